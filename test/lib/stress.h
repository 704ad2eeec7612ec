/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stress.h - many threads in one pool, each of which knows what it must see
 *
 * A thread has files and a directory of its own, of which it keeps a copy in plain memory and compares what it
 * reads, byte for byte; and shares other files and a directory with the rest. The media is plain memory with
 * nothing between the store and its bytes, so that a sanitizer sees every access. At the end the pool is
 * checked, opened again after a kill, and compared with the copies once more.
 */
#ifndef TEST_LIB_STRESS_H
#define TEST_LIB_STRESS_H

#include "pmemio/core.h"

struct stress {
	enum pm_method method;
	unsigned threads, steps; /* of a thread */
	uint64_t seed;
	unsigned blocks; /* of the pool; 0: 8192 */
	/* With checksums of data, which reads verify. Blocks of the threads' files alternate: each word of the table belongs to two.
	 * Scrubs go on meanwhile; there are no leases. */
	bool sums;
	char why[400];   /* of a failure */
};
/* True: everybody saw what he must. */
bool stress_run(struct stress *s);

#endif
