/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pool.h - scratch pools on /dev/shm for tests
 *
 * A failure here is not what a test is about: it prints why and aborts.
 */
#ifndef TEST_LIB_POOL_H
#define TEST_LIB_POOL_H

#include "pmemio/pmemio.h"

struct test_pool {
	char path[128];
	struct pm_store *st;
};

/* A path of its own for this process; nothing is there yet. */
void pool_path(struct test_pool *p, const char *tag);
/* An empty pool of @size bytes there, not opened. */
void pool_mkfs(struct test_pool *p, const char *tag, uint64_t size);
/* Open with @method in force, by telling libpmem2 which granularity to believe. */
void pool_open(struct test_pool *p, enum pm_method method);
int pool_try_open(struct test_pool *p, enum pm_method method, struct pm_error *why);
/* mkfs and open. */
void pool_new(struct test_pool *p, const char *tag, uint64_t size, enum pm_method method);
/* pm_close, which must succeed. */
void pool_close(struct test_pool *p);
/* What a kill at this moment would leave: a copy of the media under a new path, not opened. */
void pool_copy(struct test_pool *to, const struct test_pool *from, const char *tag);
/* Let go of the open store as a kill would: nothing more is written. The media stays. */
void pool_kill(struct test_pool *p);
/* Remove the media; an open store is killed first. */
void pool_drop(struct test_pool *p);

/* Wait until @lsn is durable. Returns what the wait brought. */
int pool_wait(struct pm_store *st, pm_lsn lsn);

/* For calls that take a struct pm_wait: waiter_init, call, then waiter_result(w, what the call
 * returned). */
struct test_waiter {
	struct pm_wait w;
	struct waiter_sync *sync;
};
void waiter_init(struct test_waiter *w);
int waiter_result(struct test_waiter *w, int rc);

#endif
