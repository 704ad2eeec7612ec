/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * persist.c - persistence of what clients write by RMA of their own: the facts of each fabric, for pm_persist()
 *
 * Before the workers start, while nothing has to be answered yet. A fabric without layouts is not tried.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "server/process.h"

#define SELFTEST_MS 3000

static void describe_test(const struct tp_provider_facts *p, char *buf, size_t len)
{
	*buf = '\0';
	if (p->commit_test == TP_TEST_PASSED)
		snprintf(buf, len, "; self-test of FI_COMMIT_COMPLETE passed");
	else if (p->commit_test == TP_TEST_FAILED)
		snprintf(buf, len, "; self-test of FI_COMMIT_COMPLETE failed: %s", strerror(-p->commit_err));
}

static int judge(struct server *srv, struct fabric_conf *f, struct tp_error *why)
{
	struct pm_facts facts = { .purpose = PM_FOR_LAYOUT, .gran = srv->info.gran, .map_sync = srv->info.map_sync,
				  .pool_method = srv->conf.method, .want = f->method, .ddio = f->ddio };
	struct tp_provider_facts p;
	struct pm_region pool, zero;
	struct tp_region mem;
	const char *cpu;
	char test[120];
	int err;

	pm_get_regions(srv->store, &pool, &zero);
	mem = (struct tp_region){ .base = pool.base, .len = PM_BLOCK };
	err = tp_provider_try(&f->opts, &mem, SELFTEST_MS, &p, why);
	if (err)
		return err;
	facts.line_flush = pm_cpu_line_flush(&cpu);
	facts.rma_pmem = p.rma_pmem;
	facts.commit_test = (enum pm_selftest)p.commit_test;
	facts.verbs_like = p.verbs_like;
	facts.placement = p.staged ? PM_PLACE_STAGED : PM_PLACE_DIRECT;
	err = pm_persist(&facts, &f->verdict);
	describe_test(&p, test, sizeof(test));
	if (err == -EPERM || err == -EINVAL) {
		snprintf(why->text, sizeof(why->text), "[fabric %s] persistence = %s: %s", f->opts.name,
			 pm_method_name(f->method), f->verdict.reason);
		return err;
	}
	if (err)
		log_msg(LOG_WARNING, "[fabric %s] %s", f->opts.name, f->verdict.reason);
	else
		log_msg(LOG_INFO, "[fabric %s] persistence of layouts %s (%s%s); not promised: %s", f->opts.name,
			pm_method_name(f->verdict.method), f->verdict.reason, test, f->verdict.not_promised);
	return 0;
}

int persist_fabrics(struct server *srv, struct tp_error *why)
{
	struct fabric_conf *f;
	int err = 0;

	STAILQ_FOREACH (f, &srv->conf.fabrics, link) {
		if (!f->layouts)
			f->verdict = (struct pm_verdict){ .reason = "layouts = off" };
		else if (!err)
			err = judge(srv, f, why);
	}
	return err;
}

const struct pm_verdict *persist_of_fabric(const struct server *srv, const char *name)
{
	const struct fabric_conf *f;

	STAILQ_FOREACH (f, &srv->conf.fabrics, link)
		if (!strcmp(f->opts.name, name))
			return &f->verdict;
	return NULL;
}
