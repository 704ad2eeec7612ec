/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Clients over shared memory killed in the middle of transfers, fifty times: libfabric 1.17 may leave a lock of
 * the server's region taken. Others are served all the while, and shm answers again within two seconds.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/berth.h"
#include "test/lib/daemon.h"
#include "test/lib/nfstree.h"

#define ROUNDS 50

static struct daemon d;

TestSuite(shm_kill, .timeout = 400);

static uint64_t msec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* Write and read 1 MiB pieces, several in flight, until killed. */
static void transfer(unsigned who)
{
	static char buf[4 << 20];
	struct berth_file *f;
	struct berth *b;
	char url[128], name[32];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	snprintf(url, sizeof(url), "%s/", d.shm_url);
	snprintf(name, sizeof(name), "victim%u", who);
	if (berth_connect(url, NULL, &b, NULL) || berth_open(b, NULL, name, O_CREAT | O_RDWR, 0644, &f))
		_exit(1);
	for (;;) {
		berth_pwrite(f, buf, sizeof(buf), 0, BERTH_FILE_SYNC);
		berth_pread(f, buf, sizeof(buf), 0);
	}
}

struct witness {
	_Atomic uint64_t calls, worst; /* of the client beside: calls made, longest one in ms */
};

/* A client on a socket that expects an answer to every call, in time. */
static void witness(struct witness *w)
{
	struct nfs_context *nfs = nfst_mount(&d, "/");
	struct nfs_stat_64 st;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		uint64_t start = msec(), took;

		if (nfs_stat64(nfs, "/", &st))
			_exit(1);
		took = msec() - start;
		if (took > w->worst)
			w->worst = took;
		w->calls++;
		usleep(1000);
	}
}

Test(shm_kill, fifty_killed_clients_stop_nobody_else)
{
	struct witness *w = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned seed = (unsigned)time(NULL);
	pid_t beside, server;
	struct berth *b;
	char url[128];
	int status;

	fprintf(stderr, "seed %u\n", seed);
	daemon_start(&d, NULL);
	server = daemon_server_pid(&d);
	snprintf(url, sizeof(url), "%s/", d.shm_url);
	beside = fork();
	if (beside == 0)
		witness(w);
	for (unsigned i = 0; i < ROUNDS; i++) {
		pid_t victim = fork();
		uint64_t dead;

		if (victim == 0)
			transfer(i % 3);
		usleep(300000 + (useconds_t)(rand_r(&seed) % 100000));
		kill(victim, SIGKILL);
		cr_assert(waitpid(victim, &status, 0) == victim && WIFSIGNALED(status),
			  "round %u: the client ended by itself: 0x%x", i, status);
		dead = msec();
		cr_assert_eq(berth_connect(url, &(struct berth_opts){ .connect_ms = 5000 }, &b, NULL), 0,
			     "round %u: no service over shm", i);
		cr_assert_eq(berth_ping(b, NULL), 0, "round %u", i);
		cr_assert_lt(msec() - dead, 2000, "round %u: back after %lu ms", i,
			     (unsigned long)(msec() - dead));
		berth_disconnect(b);
		cr_assert_eq(waitpid(beside, &status, WNOHANG), 0, "round %u: the witness failed", i);
	}
	kill(beside, SIGKILL);
	waitpid(beside, NULL, 0);
	cr_assert_eq(daemon_server_pid(&d), server, "the server was restarted");
	cr_assert_gt(w->calls, ROUNDS);
	cr_assert_lt(w->worst, 2000, "somebody else waited %lu ms", (unsigned long)w->worst);
	fprintf(stderr, "%lu calls beside, longest %lu ms; endpoint made anew %lu times\n",
		(unsigned long)w->calls, (unsigned long)w->worst,
		(unsigned long)daemon_counter(&d, "provider_resets"));
	cr_assert_eq(daemon_counter(&d, "pins"), 0, "a dead client's blocks are still pinned");
	daemon_remove(&d);
}
