/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * floor.h - the other end of a floor: a process of its own, on this machine or on the server's (`berth-bench floor`)
 *
 * It is started anew (not forked with what a provider has made) for each set of connections, is asked for a shape by its
 * first words on a socket, and ends when that socket is closed.
 */
#ifndef BENCH_FLOOR_H
#define BENCH_FLOOR_H

#include <stdint.h>
#include <sys/types.h>

#include "bench/bare.h"

struct floor_process {
	int meet;  /* -1: none */
	pid_t pid; /* 0: on another machine */
};

/*
 * Begin one and ask it for @s, whose node this sets: @at, HOST:PORT of a `berth-bench floor`, or NULL for this machine, at
 * the address from which @server (a host; NULL: loopback) is reached. -errno: it is not there.
 */
int floor_begin(struct floor_process *f, const char *at, const char *server, struct bare_shape *s);
/* @left: name of a file in /dev/shm that an endpoint of it leaves, or "". */
void floor_end(struct floor_process *f, const char *left);

#endif
