/* SPDX-License-Identifier: BSD-3-Clause */
/* crash_ops.h - steps of runs in few letters */
#ifndef TEST_PMEMIO_CRASH_OPS_H
#define TEST_PMEMIO_CRASH_OPS_H

#define W(file, at, n)                                                                             \
	{                                                                                          \
		.kind = OP_WRITE, .a = file, .off = at, .len = n                                   \
	}
#define SIZE(file, n)                                                                              \
	{                                                                                          \
		.kind = OP_SIZE, .a = file, .off = n                                               \
	}
#define NEW(file)                                                                                  \
	{                                                                                          \
		.kind = OP_CREATE, .a = file                                                       \
	}
#define ALLOC(file, at, n)                                                                         \
	{                                                                                          \
		.kind = OP_ALLOC, .a = file, .off = at, .len = n                                   \
	}
#define MAP(k, file, at, n)                                                                        \
	{                                                                                          \
		.kind = OP_MAP, .pin = k, .a = file, .off = at, .len = n                           \
	}
#define COMMIT(k)                                                                                  \
	{                                                                                          \
		.kind = OP_COMMIT, .pin = k                                                        \
	}
#define BATCH(n) /* pins 0 .. n - 1 */                                                              \
	{                                                                                          \
		.kind = OP_BATCH, .len = n                                                         \
	}
#define GIVEUP(k)                                                                                  \
	{                                                                                          \
		.kind = OP_GIVEUP, .pin = k                                                        \
	}
#define LEASE(file, at, n)                                                                         \
	{                                                                                          \
		.kind = OP_LEASE, .a = file, .off = at, .len = n                                   \
	}
#define PUT(k, at, n)                                                                              \
	{                                                                                          \
		.kind = OP_LPUT, .pin = k, .off = at, .len = n                                     \
	}
#define LCOMMIT(k)                                                                                 \
	{                                                                                          \
		.kind = OP_LCOMMIT, .pin = k                                                       \
	}
#define LCOMMIT_ALL                                                                                \
	{                                                                                          \
		.kind = OP_LCOMMIT, .len = 1                                                       \
	}
#define LDONE                                                                                      \
	{                                                                                          \
		.kind = OP_LDONE                                                                   \
	}
#define RM(file)                                                                                   \
	{                                                                                          \
		.kind = OP_REMOVE, .a = file                                                       \
	}
#define MV(from, to)                                                                               \
	{                                                                                          \
		.kind = OP_RENAME, .a = from, .b = to                                              \
	}
#define LN(from, to)                                                                               \
	{                                                                                          \
		.kind = OP_LINK, .a = from, .b = to                                                \
	}
#define B 4096u
#define OPS(...)                                                                                   \
	(const struct op[])                                                                        \
	{                                                                                          \
		__VA_ARGS__,                                                                       \
		{                                                                                  \
			.kind = OP_END                                                             \
		}                                                                                  \
	}

#endif
