/* SPDX-License-Identifier: BSD-3-Clause */
/* daemon.h - a real berthd of its own for each test, on loopback ports that are free just now */
#ifndef TEST_LIB_DAEMON_H
#define TEST_LIB_DAEMON_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct daemon_opts {
	uint64_t size;       /* of the pool; 0: 256 MiB, sparse */
	bool msync;          /* pool in /tmp, flushed by msync; else on tmpfs with CACHE_LINE forced */
	bool checksum;       /* the pool has checksums of data */
	bool no_fabric;      /* sockets only: starts faster */
	bool no_supervisor;  /* pid is then the server itself */
	unsigned workers;    /* 0: 1 */
	const char *exports; /* text of the exports file; NULL: everything to loopback, rw, no squash */
	const char *const *set; /* more "section.key=value", NULL-terminated */
};
struct daemon {
	struct daemon_opts opts;
	char dir[64], pool[96], control[96], exports[96], log[96];
	char tcp_url[64], shm_url[64]; /* "berth+tcp://127.0.0.1:PORT", "berth+shm://NAME" */
	unsigned port, fabric_port;
	char shm[32];
	pid_t pid;
};

/* Each stops the test with a message (and the daemon's log) when it cannot do its part. */
void daemon_start(struct daemon *d, const struct daemon_opts *opts); /* makes the pool */
void daemon_launch(struct daemon *d);  /* start on what is there, wait for "ready" */
void daemon_kill(struct daemon *d);    /* SIGKILL to all of it */
void daemon_stop(struct daemon *d);    /* SIGTERM; the exit status must be 0 */
void daemon_check(struct daemon *d);   /* the pool of a stopped daemon has no problem */
void daemon_remove(struct daemon *d);  /* stop if it runs, check the pool, delete everything */
uint64_t daemon_counter(struct daemon *d, const char *name); /* from `berth stat --json` */
pid_t daemon_server_pid(struct daemon *d); /* the process that serves (the supervisor's child) */
void daemon_show_log(struct daemon *d);

/* $(B)/NAME of the build that this test belongs to, or of the one that $BERTH_PROGRAMS names. */
const char *built(const char *name, char buf[512]);
/* Run a shell command (printf format); returns its exit status. */
int shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
