/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench.h - berth-bench: what is run many times, each timed
 *
 *   main.c      the command, clock, medians        load.h      operations over sockets and fabrics, beside their floor
 *   onesided.c  puts and gets, READ and WRITE      bare.h      the fabric by bare libfabric calls
 *   pool.c      pmemio at many sizes, no network   workers.c   pmemio by several threads
 *   puts.c      puts on demand
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

uint64_t bench_now(void); /* nanoseconds */
/* Kill and reap a process of ours, and remove what an endpoint of that @name leaves (shm: its file, 16 MiB). */
void bench_end(pid_t pid, const char *name);
/* @text as a whole number from @least to @most; false: it is none. */
bool bench_number(const char *text, unsigned least, unsigned most, unsigned *out);
/* argv[1] asks for help. */
bool bench_wants_help(int argc, char **argv);
/* From now on the first SIGINT, SIGTERM or SIGHUP calls @stop on a thread of its own, the second ends the process. */
void bench_on_signal(void (*stop)(void *arg, int sig), void *arg);
double bench_median(double *v, unsigned n); /* sorts @v */
int bench_pool(int argc, char **argv);
/* @each: operations of a thread in a turn; 0: 20000 */
int bench_workers(const char *dir, unsigned threads, unsigned rounds, unsigned each, bool checksums);
int bench_load(int argc, char **argv);
int bench_report(int argc, char **argv);
int bench_onesided(int argc, char **argv);
int bench_puts(int argc, char **argv);
int bench_floor(int argc, char **argv);

#define BENCH_SPAN (64u << 20) /* bytes of the file or memory that is worked on */

#endif
