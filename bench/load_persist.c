/* SPDX-License-Identifier: BSD-3-Clause */
/* load_persist.c - the floor of persistence: what libpmem2 wants for bytes just written, without moving any */
#include <fcntl.h>
#include <libpmem2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/load.h"

struct load_persist {
	struct pmem2_map *map;
	struct pmem2_source *src;
	struct pmem2_config *cfg;
	pmem2_persist_fn persist;
	char *base;
};

/* On tmpfs, of the granularity that PMEM2_FORCE_GRANULARITY says. */
int load_persist_open(struct load_persist **out)
{
	struct load_persist *p = calloc(1, sizeof(*p));
	char path[64];
	int fd, err;

	if (!p)
		return -1;
	snprintf(path, sizeof(path), "/dev/shm/berth-bench-persist.%d", (int)getpid());
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	unlink(path);
	err = fd < 0 || posix_fallocate(fd, 0, LOAD_SPAN) || pmem2_source_from_fd(&p->src, fd) || pmem2_config_new(&p->cfg) ||
	      pmem2_config_set_required_store_granularity(p->cfg, PMEM2_GRANULARITY_PAGE) ||
	      pmem2_map_new(&p->map, p->cfg, p->src);
	if (fd >= 0)
		close(fd);
	if (err) {
		load_persist_close(p);
		return -1;
	}
	p->persist = pmem2_get_persist_fn(p->map);
	p->base = pmem2_map_get_address(p->map);
	memset(p->base, 'p', LOAD_SPAN);
	*out = p;
	return 0;
}

double load_persist_once(struct load_persist *p, size_t len, uint64_t seed)
{
	enum { TIMES = 33 };
	double ns[TIMES];

	for (unsigned i = 0; i < TIMES; i++) {
		char *at = p->base + (seed + i * 2654435761u) % (LOAD_SPAN / len) * len;
		uint64_t start;

		memset(at, (int)i, len);
		start = bench_now();
		p->persist(at, len);
		ns[i] = (double)(bench_now() - start);
	}
	return bench_median(ns, TIMES);
}

void load_persist_close(struct load_persist *p)
{
	if (p->map)
		pmem2_map_delete(&p->map);
	if (p->cfg)
		pmem2_config_delete(&p->cfg);
	if (p->src)
		pmem2_source_delete(&p->src);
	free(p);
}
