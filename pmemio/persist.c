/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * persist.c - which method makes bytes durable: one pure function, and its words
 *
 * Strength is what must not be overstated. FENCE is true only where the caches are in the persistence domain, CLWB
 * and FI_COMMIT_COMPLETE only where a line written back is durable, msync always. A read behind writes pushes them
 * out of a card, into the caches unless DDIO is off.
 */
#include "pmemio/persist.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

static const char *const names[] = { [PM_AUTO] = "auto",
	                             [PM_FENCE] = "fence",
	                             [PM_CLWB] = "clwb",
	                             [PM_MSYNC] = "msync",
	                             [PM_VOLATILE] = "volatile",
	                             [PM_COMMIT_COMPLETE] = "commit-complete",
	                             [PM_READ_AFTER_WRITE] = "read-after-write" };

const char *pm_method_name(enum pm_method m)
{
	return (unsigned)m < PM_METHODS ? names[m] : "unknown";
}

int pm_method_parse(const char *name)
{
	for (int m = PM_AUTO; m < PM_METHODS; m++)
		if (!strcmp(name, names[m]))
			return m;
	return -1;
}

const char *pm_gran_name(enum pm_gran g)
{
	static const char *const name[] = { "byte", "cache line", "page" };

	return (unsigned)g <= PM_GRAN_PAGE ? name[g] : "unknown";
}

bool pm_cpu_line_flush(const char **name)
{
	*name = "none";
#if defined(__x86_64__) || defined(__i386__)
	unsigned a, b, c, d;

	if (__get_cpuid(1, &a, &b, &c, &d) && (d & 1u << 19))
		*name = "clflush";
	if (__get_cpuid_count(7, 0, &a, &b, &c, &d))
		*name = b & 1u << 24 ? "clwb" : b & 1u << 23 ? "clflushopt" : *name;
#endif
	return strcmp(*name, "none") != 0;
}

static int refuse(struct pm_verdict *out, int err, const char *why)
{
	*out = (struct pm_verdict){ .method = PM_AUTO, .reason = why };
	return err;
}

static int say(struct pm_verdict *out, enum pm_method m, const char *reason, const char *not_promised)
{
	*out = (struct pm_verdict){ .method = m, .reason = reason, .not_promised = not_promised };
	return 0;
}

/* --- the pool --------------------------------------------------------------------------------- */

static const char forced[] =
	"anything at a power failure: the kernel did not confirm this mapping as persistent memory, its "
	"granularity was forced from outside";

static const char *unsure(const struct pm_facts *f, const char *otherwise)
{
	return f->gran != PM_GRAN_PAGE && !f->map_sync ? forced : otherwise;
}

static const char no_eadr[] = "what the caches hold, should the platform's stored energy fail to empty them";
static const char no_reply[] = "what has not been answered yet";
static const char no_disk[] = "what a disk keeps in a volatile cache although it was told to flush";

static int pool_auto(const struct pm_facts *f, struct pm_verdict *out)
{
	switch (f->gran) {
	case PM_GRAN_BYTE:
		return say(out, PM_FENCE, "the CPU caches are in the persistence domain (eADR)", unsure(f, no_eadr));
	case PM_GRAN_CACHE_LINE:
		return say(out, PM_CLWB, "the mapping is persistent by cache line", unsure(f, no_reply));
	default:
		return say(out, PM_MSYNC, "the mapping is page cache", no_disk);
	}
}

static int pool_wanted(const struct pm_facts *f, struct pm_verdict *out)
{
	static const char chosen[] = "the administrator's choice";

	switch (f->pool_method) {
	case PM_FENCE:
		if (f->gran == PM_GRAN_BYTE)
			return say(out, PM_FENCE, chosen, unsure(f, no_eadr));
		return refuse(out, -EPERM, "fence claims more than this mapping gives: its caches are not in the "
					   "persistence domain; use auto or msync");
	case PM_CLWB:
		if (f->gran != PM_GRAN_PAGE)
			return say(out, PM_CLWB, chosen, unsure(f, no_reply));
		return refuse(out, -EPERM, "clwb claims more than this mapping gives: it is page cache; use auto or "
					   "msync");
	case PM_MSYNC:
		return say(out, PM_MSYNC, chosen, unsure(f, no_disk));
	case PM_VOLATILE:
		return say(out, PM_VOLATILE, chosen, "anything: replies say UNSTABLE, and the write verifier "
						     "changes at every start");
	case PM_COMMIT_COMPLETE:
	case PM_READ_AFTER_WRITE:
		return refuse(out, -EINVAL, "this method is one of layouts: set it in [fabric NAME]; for the pool "
					    "use auto, fence, clwb, msync or volatile");
	default:
		return refuse(out, -EINVAL, "no such persistence method: use auto, fence, clwb, msync or volatile");
	}
}

static int choose_pool(const struct pm_facts *f, struct pm_verdict *out)
{
	return f->pool_method == PM_AUTO ? pool_auto(f, out) : pool_wanted(f, out);
}

/* --- layouts ---------------------------------------------------------------------------------- */

static const char no_unflagged[] = "writes without the flag, until they are committed";
static const char no_unread[] = "writes with no read behind them, or on another endpoint, until they are committed";
static const char no_ddio[] = "anything not yet committed, should the card write through the caches after all: this "
			      "rests on ddio = off being true";
static const char no_commit[] = "what has not been committed yet";

/* What a provider lacks for FI_COMMIT_COMPLETE to mean durable; NULL: nothing. Granularity is not PAGE. */
static const char *commit_lacks(const struct pm_facts *f)
{
	if (!f->rma_pmem)
		return "commit-complete claims more than the provider gives: it has no FI_RMA_PMEM and would ignore "
		       "the flag; use persistence = auto";
	if (f->commit_test == PM_TEST_FAILED)
		return "commit-complete: a write with FI_COMMIT_COMPLETE failed in the self-test; use persistence = "
		       "auto";
	if (f->commit_test != PM_TEST_PASSED)
		return "commit-complete: no self-test of FI_COMMIT_COMPLETE could be made; use persistence = auto";
	if (f->gran == PM_GRAN_CACHE_LINE && !f->line_flush && !f->verbs_like)
		return "commit-complete claims more than this CPU gives: the provider knows no instruction here that "
		       "writes cache lines back; use persistence = auto";
	return NULL;
}

static const char *read_lacks(const struct pm_facts *f)
{
	if (!f->verbs_like)
		return "read-after-write is for cards that place writes themselves (verbs): here a read pushes "
		       "nothing out; use persistence = auto";
	if (f->gran == PM_GRAN_CACHE_LINE && f->ddio != PM_DDIO_OFF)
		return "read-after-write claims more than the platform gives: the card may write into CPU caches that "
		       "are not in the persistence domain; switch DDIO off and say ddio = off, or use "
		       "persistence = auto";
	return NULL;
}

static int by_commit(const struct pm_facts *f, struct pm_verdict *out)
{
	return say(out, PM_COMMIT_COMPLETE, "the provider writes back what a write with FI_COMMIT_COMPLETE brought",
		   unsure(f, no_unflagged));
}

static int by_read(const struct pm_facts *f, struct pm_verdict *out)
{
	if (f->gran == PM_GRAN_BYTE)
		return say(out, PM_READ_AFTER_WRITE, "a read pushes writes out of the card, and all beyond it is in the "
						     "persistence domain (eADR)", unsure(f, no_unread));
	return say(out, PM_READ_AFTER_WRITE, "a read pushes writes out of the card, past the caches (ddio = off)",
		   unsure(f, no_ddio));
}

/* The server does at COMMIT what it does for its own payload. */
static int by_server(const struct pm_facts *f, enum pm_method m, struct pm_verdict *out)
{
	switch (m) {
	case PM_VOLATILE:
		return say(out, m, "the pool is volatile", "anything");
	case PM_MSYNC:
		return say(out, m, f->gran == PM_GRAN_PAGE
			   ? "the pool is page cache: only msync, at COMMIT, makes it durable, whatever a provider says"
			   : "the pool's method is msync, by the administrator's choice", unsure(f, no_commit));
	case PM_FENCE:
		return say(out, m, "the provider cannot make it durable; the server fences at COMMIT", unsure(f, no_commit));
	default:
		return say(out, m, "the provider cannot make it durable; the server writes lines back at COMMIT",
			   unsure(f, no_commit));
	}
}

static int wanted_by_fabric(const struct pm_facts *f, enum pm_method pool, struct pm_verdict *out)
{
	const char *lacks;

	if (f->want == pool)
		return by_server(f, pool, out);
	if (f->want != PM_COMMIT_COMPLETE && f->want != PM_READ_AFTER_WRITE)
		return refuse(out, -EINVAL, "not the method of the pool, on which layouts rest: set it in [server], or "
					    "use persistence = auto here");
	if (pool == PM_VOLATILE || pool == PM_MSYNC)
		return refuse(out, -EPERM, pool == PM_MSYNC
			      ? "claims more than the pool gives, which needs msync at COMMIT; use persistence = auto"
			      : "claims more than the pool gives, which is volatile; use persistence = auto");
	lacks = f->want == PM_COMMIT_COMPLETE ? commit_lacks(f) : read_lacks(f);
	if (lacks)
		return refuse(out, -EPERM, lacks);
	return f->want == PM_COMMIT_COMPLETE ? by_commit(f, out) : by_read(f, out);
}

static int choose_layout(const struct pm_facts *f, struct pm_verdict *out)
{
	int err = choose_pool(f, out);
	enum pm_method pool = out->method;

	if (err)
		return err;
	if (f->placement == PM_PLACE_STAGED)
		return refuse(out, -EOPNOTSUPP, "no layouts: clients cannot reach a pool that is placed through a "
						"staging buffer; use device DAX, or another provider");
	if (f->want != PM_AUTO)
		return wanted_by_fabric(f, pool, out);
	if (pool == PM_VOLATILE || pool == PM_MSYNC)
		return by_server(f, pool, out);
	if (!commit_lacks(f))
		return by_commit(f, out);
	if (!read_lacks(f))
		return by_read(f, out);
	return by_server(f, pool, out);
}

int pm_persist(const struct pm_facts *f, struct pm_verdict *out)
{
	return f->purpose == PM_FOR_LAYOUT ? choose_layout(f, out) : choose_pool(f, out);
}
