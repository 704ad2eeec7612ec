/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef BENCH_MEDIA_H
#define BENCH_MEDIA_H

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench/bench.h"

/* Memory like a pool's: BENCH_SPAN bytes of a file in @dir, all there. NULL: no room. */
static inline char *bench_media(const char *dir)
{
	char path[256];
	char *p;
	int fd;

	snprintf(path, sizeof(path), "%s/berth-bench-floor.%d", dir, getpid());
	fd = open(path, O_RDWR | O_CREAT, 0600);
	unlink(path);
	if (fd < 0)
		return NULL;
	if (posix_fallocate(fd, 0, BENCH_SPAN)) { /* or a full tmpfs is a SIGBUS later */
		close(fd);
		return NULL;
	}
	p = mmap(NULL, BENCH_SPAN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		return NULL;
	memset(p, 'm', BENCH_SPAN);
	return p;
}

#endif
