/* SPDX-License-Identifier: BSD-3-Clause */
/* main.c - the berth-bench command, and what its parts share */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "bench/bench.h"

uint64_t bench_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_median(double *v, unsigned n)
{
	qsort(v, n, sizeof(*v), by_size);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

void bench_end(pid_t pid, const char *name)
{
	static const char shm[] = "fi_shm://";

	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	if (!strncmp(name, shm, sizeof(shm) - 1))
		shm_unlink(name + sizeof(shm) - 1);
}

int main(int argc, char **argv)
{
	static const int sigs[] = { SIGSEGV, SIGBUS, SIGTERM, SIGINT, SIGABRT, SIGILL };
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv);
	} part[] = { { "load", bench_load }, { "report", bench_report }, { "pool", bench_pool },
		   { "onesided", bench_onesided }, { "puts", bench_puts }, { "floor", bench_floor } };

	for (size_t i = 0; i < sizeof(sigs) / sizeof(*sigs); i++) /* libfabric may have its own */
		signal(sigs[i], SIG_DFL);
	setenv("FI_MR_CACHE_MONITOR", "disabled", 1); /* or libfabric registers more, and for others, than it was asked to */
	for (size_t i = 0; argc > 1 && i < sizeof(part) / sizeof(*part); i++)
		if (!strcmp(argv[1], part[i].name))
			return part[i].run(argc - 1, argv + 1);
	fprintf(stderr,
	        "usage: berth-bench load ...    operations over sockets and fabrics, beside the bare exchange and another server\n"
	        "       berth-bench report ...  compare what load wrote, plot it, make a page of it\n"
	        "       berth-bench pool ...    the pool at many sizes, without a network\n"
	        "       berth-bench onesided ...  puts through layouts beside WRITE and bare RMA\n"
	        "       berth-bench puts ...    puts on demand, for a profile of the server\n"
	        "       berth-bench floor ...   the bare exchange on the server's machine, for load --floor\n");
	return 2;
}
