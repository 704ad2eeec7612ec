/* SPDX-License-Identifier: BSD-3-Clause */
/* main.c - the berth-bench command, and what its parts share */
#include <ctype.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

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

bool bench_number(const char *text, unsigned least, unsigned most, unsigned *out)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	*out = (unsigned)v;
	return isdigit((unsigned char)*text) && !*end && v >= least && v <= most;
}

bool bench_wants_help(int argc, char **argv)
{
	return argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"));
}

struct signal_watch {
	sigset_t set;
	void (*stop)(void *arg, int sig);
	void *arg;
};

static void *watch(void *arg)
{
	struct signal_watch *w = arg;
	int sig;

	sigwait(&w->set, &sig);
	w->stop(w->arg, sig);
	sigwait(&w->set, &sig);
	_exit(128 + sig);
}

void bench_on_signal(void (*stop)(void *arg, int sig), void *arg)
{
	struct signal_watch *w = malloc(sizeof(*w)); /* for as long as the process lives */
	pthread_t th;

	if (!w)
		return;
	*w = (struct signal_watch){ .stop = stop, .arg = arg };
	sigemptyset(&w->set);
	sigaddset(&w->set, SIGINT);
	sigaddset(&w->set, SIGTERM);
	sigaddset(&w->set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &w->set, NULL);
	if (pthread_create(&th, NULL, watch, w))
		pthread_sigmask(SIG_UNBLOCK, &w->set, NULL);
	else
		pthread_detach(th);
}

static void usage(FILE *f)
{
	fprintf(f,
	        "usage: berth-bench load ...      operations over sockets and fabrics, beside the bare exchange and another server\n"
	        "       berth-bench report ...    show what load wrote, compare it, plot it, make a page of it\n"
	        "       berth-bench pool ...      the pool at many sizes, or by several threads, without a network\n"
	        "       berth-bench onesided ...  puts and gets through layouts beside WRITE, READ and bare RMA\n"
	        "       berth-bench puts ...      puts on demand, for a profile of the server\n"
	        "       berth-bench floor ...     the bare exchange on the server's machine, for load --floor\n"
	        "`berth-bench PART --help` tells the options of one; berth-bench(1) what they mean.\n");
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
	if (argc > 1 && (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		usage(stdout);
		return 0;
	}
	if (argc > 1)
		fprintf(stderr, "berth-bench: no '%s' among its parts\n", argv[1]);
	usage(stderr);
	return 2;
}
