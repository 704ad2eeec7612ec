/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * persist.h - what makes bytes in the pool durable, decided from plain facts
 *
 * One pure function for both ways in: payload that the server places itself (sockets, RMA that it starts), and
 * bytes that a client writes by its own RMA under a layout. It knows nothing of libfabric: whoever does hands
 * over what fi_getinfo and a self-test said. providers.md tabulates the verdicts; test_persist.c proves them.
 */
#ifndef PMEMIO_PERSIST_H
#define PMEMIO_PERSIST_H

#include <stdbool.h>

/* How a range becomes durable. The numbers are those of enum layoutmethod in proto/layout.x. */
enum pm_method {
	PM_AUTO,             /* choose from the facts */
	PM_FENCE,            /* store fence (eADR: the caches are in the persistence domain) */
	PM_CLWB,             /* cache line write back, one drain per batch */
	PM_MSYNC,            /* page cache: msync on the flusher thread */
	PM_VOLATILE,         /* nothing promised; only if configured */
	PM_COMMIT_COMPLETE,  /* layouts: completion of an RMA write with FI_COMMIT_COMPLETE */
	PM_READ_AFTER_WRITE, /* layouts: completion of an RMA read behind the writes on their endpoint */
	PM_METHODS
};
const char *pm_method_name(enum pm_method m); /* "auto", "fence", ... "unknown" */
/* -1: no method has that name. */
int pm_method_parse(const char *name);

enum pm_purpose {
	PM_FOR_SERVER, /* the server places it and makes it durable before its reply */
	PM_FOR_LAYOUT, /* a client writes it by RMA; what needs the server happens at its COMMIT */
};
enum pm_gran { PM_GRAN_BYTE, PM_GRAN_CACHE_LINE, PM_GRAN_PAGE }; /* libpmem2's store granularity */
enum pm_ddio { PM_DDIO_UNKNOWN, PM_DDIO_ON, PM_DDIO_OFF }; /* do network cards write through the CPU's caches? */
enum pm_placement { PM_PLACE_DIRECT, PM_PLACE_STAGED };
enum pm_selftest { PM_TEST_NOT_RUN, PM_TEST_PASSED, PM_TEST_FAILED };

const char *pm_gran_name(enum pm_gran g); /* "byte", "cache line", "page" */

struct pm_facts {
	enum pm_purpose purpose;

	/* the mapping and the CPU: pm_get_info() fills them in */
	enum pm_gran gran;
	bool map_sync;   /* the kernel itself says that this is persistent memory: device DAX, or MAP_SYNC taken */
	bool line_flush; /* the CPU has CLWB, CLFLUSHOPT or CLFLUSH: what a software provider commits with */

	/* the provider; layouts only */
	bool rma_pmem;                /* FI_RMA_PMEM: it claims to act on FI_COMMIT_COMPLETE */
	enum pm_selftest commit_test; /* a write with FI_COMMIT_COMPLETE completed, with its bytes in place */
	bool verbs_like;              /* a card places writes; a read behind them on the endpoint pushes them out */
	enum pm_placement placement;

	/* the administrator */
	enum pm_ddio ddio;
	enum pm_method pool_method; /* [server] persistence */
	enum pm_method want;        /* layouts only: persistence of the fabric */
};

struct pm_verdict {
	enum pm_method method;   /* PM_AUTO: refused */
	const char *reason;      /* one sentence, static text; refused: why, and the cure */
	const char *not_promised; /* what may still be lost; static text, NULL when refused */
};

/**
 * pm_persist - the method in force for @f->purpose
 *
 * Pure: the same facts, the same verdict. A layout rests on the method of the pool: nothing is promised for it that
 * the pool itself could not keep.
 * Return: 0; -EPERM an override claims more than the platform gives; -EINVAL an override that does not fit the
 * purpose; -EOPNOTSUPP no layouts here, because clients cannot reach the memory. @out is always filled in.
 */
int pm_persist(const struct pm_facts *f, struct pm_verdict *out);

/* Does the CPU have what pm_facts.line_flush asks for? @name: "clwb", "clflushopt", "clflush" or "none". */
bool pm_cpu_line_flush(const char **name);

#endif
