/* SPDX-License-Identifier: BSD-3-Clause */
/* load_op.c - the table of operations, for every transport */
#include <string.h>

#include "bench/load.h"

static const struct load_op ops[] = {
	{ .name = "null", .nsteps = 1, .step = { L_NULL } },
	{ .name = "getattr", .nsteps = 1, .step = { L_GETATTR } },
	{ .name = "lookup", .nsteps = 1, .step = { L_LOOKUP } },
	{ .name = "read", .nsteps = 1, .step = { L_READ } },
	{ .name = "write", .nsteps = 1, .step = { L_WRITE } },
	{ .name = "commit", .nsteps = 2, .step = { L_WRITE_UNSTABLE, L_COMMIT } },
	{ .name = "create", .nsteps = 1, .step = { L_CREATE }, .makes = true },
	{ .name = "remove", .nsteps = 1, .step = { L_REMOVE }, .takes = true },
	{ .name = "mixed", .nsteps = 4, .step = { L_READ, L_READ, L_WRITE, L_GETATTR } },
	{ .name = "small", .nsteps = 4, .step = { L_CREATE, L_WRITE_NEW, L_READ_NEW, L_REMOVE } },
	{ .name = "put", .nsteps = 1, .step = { L_PUT }, .one_sided = true },
	{ .name = "get", .nsteps = 1, .step = { L_GET }, .one_sided = true },
};
const char load_op_names[] = "null getattr lookup read write commit create remove mixed small put get";

const struct load_op *load_op(const char *name)
{
	for (size_t i = 0; i < sizeof(ops) / sizeof(*ops); i++)
		if (!strcmp(ops[i].name, name))
			return &ops[i];
	return NULL;
}

enum load_way load_way(enum load_step s)
{
	switch (s) {
	case L_WRITE:
	case L_WRITE_UNSTABLE:
	case L_WRITE_NEW:
	case L_PUT: return WAY_OUT;
	case L_READ:
	case L_READ_NEW:
	case L_GET: return WAY_IN;
	default: return WAY_NONE;
	}
}

bool load_persists(const struct load_op *op)
{
	for (unsigned i = 0; i < op->nsteps; i++)
		if (op->step[i] == L_WRITE || op->step[i] == L_WRITE_NEW || op->step[i] == L_COMMIT)
			return true;
	return false;
}

bool load_has_data(const struct load_op *op)
{
	for (unsigned i = 0; i < op->nsteps; i++)
		if (load_way(op->step[i]))
			return true;
	return false;
}
