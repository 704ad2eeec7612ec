/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_fabric_buf.c - registering the pool with a card that says no
 *
 * The domain below is a few function pointers: it registers nothing, counts, and refuses what a test tells it to.
 * The regions are addresses only; nobody touches what is there.
 */
#include "transport/fabric_server.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <rdma/fi_errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GIB  ((size_t)1 << 30)
#define BASE ((char *)0x100000000)

struct card {
	struct fid_domain domain;
	size_t longest; /* registration that it takes */
	size_t pinned, most;
	int refuse; /* with this error */
	int no_more; /* and this when more than most is pinned */
	unsigned now, ever;
	uint64_t access; /* all that was ever asked for */
};

struct registration {
	struct fid_mr mr;
	struct card *card;
	size_t len;
};

static int mr_close(struct fid *fid)
{
	struct registration *r = container_of(fid, struct registration, mr.fid);

	r->card->now--;
	r->card->pinned -= r->len;
	free(r);
	return 0;
}

static struct fi_ops mr_ops = { .size = sizeof(struct fi_ops), .close = mr_close };

static int regattr(struct fid *fid, const struct fi_mr_attr *attr, uint64_t flags, struct fid_mr **out)
{
	struct card *c = container_of(fid, struct card, domain.fid);
	size_t len = attr->mr_iov->iov_len;
	struct registration *r;

	(void)flags;
	c->access |= attr->access;
	if (len > c->longest)
		return -c->refuse;
	if (c->pinned + len > c->most)
		return -c->no_more;
	r = calloc(1, sizeof(*r));
	r->card = c;
	r->len = len;
	r->mr.fid.ops = &mr_ops;
	r->mr.mem_desc = r;
	c->pinned += len;
	c->now++;
	c->ever++;
	*out = &r->mr;
	return 0;
}

static struct fi_ops_mr reg_ops = { .size = sizeof(struct fi_ops_mr), .regattr = regattr };

struct rig {
	struct card card;
	struct fab fab;
	struct tp_service svc;
	struct tp_region region[2];
	struct flistener l;
	struct tp_error why;
};

static int open_regions(struct rig *r, const struct tp_fabric_opts *o)
{
	r->card.domain.mr = &reg_ops;
	r->fab = (struct fab){ .domain = &r->card.domain, .mr_local = true, .mr_virt = true, .mr_prov_key = true };
	r->l.fab = &r->fab;
	r->l.base.svc = &r->svc;
	r->svc.o.regions = r->region;
	if (!r->svc.o.nregions)
		r->svc.o.nregions = 1;
	return fregions_open(&r->l, &r->why, o);
}

static void covered(struct rig *r, const char *from, size_t len)
{
	while (len) {
		size_t n = len;
		void *desc;

		cr_assert(fregions_desc(&r->l, from, &n, &desc), "%p", (const void *)from);
		cr_assert(n > 0 && n <= len);
		cr_assert_geq(((struct registration *)desc)->len, n);
		from += n;
		len -= n;
	}
}

static const struct tp_fabric_opts verbs = { .name = "x", .provider = "verbs" };

Test(fabric_buf, one_registration_if_the_card_takes_it)
{
	struct rig r = { .card = { .longest = SIZE_MAX, .most = SIZE_MAX },
		         .region = { { BASE, 100 * GIB, false }, { BASE + 200 * GIB, 4096, true } },
		         .svc.o.nregions = 2 };
	size_t n = 8192;
	void *desc;

	cr_assert_eq(open_regions(&r, &verbs), 0, "%s", r.why.text);
	cr_assert_eq(r.card.ever, 2);
	cr_assert_eq(r.card.access & (FI_REMOTE_READ | FI_REMOTE_WRITE), 0, "nobody else may reach the pool");
	covered(&r, BASE + 5, 100 * GIB - 5);
	covered(&r, BASE + 200 * GIB, 4096);
	cr_assert(!fregions_desc(&r.l, BASE - 1, &n, &desc));
	cr_assert(!fregions_desc(&r.l, BASE + 100 * GIB, &n, &desc));
	cr_assert(fregions_desc(&r.l, BASE + 100 * GIB - 1, &n, &desc) && n == 1);
	cr_assert(!r.l.regions.staged);
	cr_assert(strstr(r.l.regions.why, "100.0 GiB registered in 2 regions"), "%s", r.l.regions.why);
	fregions_close(&r.l);
	cr_assert_eq(r.card.now, 0);
}

Test(fabric_buf, a_pool_too_large_for_one_goes_in_pieces)
{
	struct rig r = { .card = { .longest = 4 * GIB - 1, .most = SIZE_MAX, .refuse = FI_EINVAL },
		         .region = { { BASE, 10 * GIB + 4096, false } } };

	cr_assert_eq(open_regions(&r, &verbs), 0, "%s", r.why.text);
	cr_assert_eq(r.card.now, 11);
	covered(&r, BASE, 10 * GIB + 4096);
	covered(&r, BASE + GIB - 1, 2); /* over the seam */
	cr_assert(!r.l.regions.staged);
	fregions_close(&r.l);
	cr_assert_eq(r.card.now, 0);
}

static void locked(int err)
{
	struct rig r = { .card = { .longest = SIZE_MAX, .most = 3 * GIB, .no_more = err },
		         .region = { { BASE, 10 * GIB, false } } };
	const char *const say[] = { "fabric x (verbs)", "registering the pool", "LimitMEMLOCK=", "ulimit -l" };

	cr_assert_eq(open_regions(&r, &verbs), -err);
	for (size_t i = 0; i < sizeof(say) / sizeof(*say); i++)
		cr_assert(strstr(r.why.text, say[i]), "no '%s' in: %s", say[i], r.why.text);
	cr_assert_eq(r.card.now, 0, "%u left registered", r.card.now);
}

Test(fabric_buf, the_limit_of_locked_memory_is_named)
{
	locked(FI_ENOMEM);
	locked(FI_EPERM);
}

Test(fabric_buf, memory_that_cannot_be_registered_is_staged)
{
	struct rig r = { .card = { .refuse = FI_EOPNOTSUPP },
		         .region = { { BASE, 10 * GIB, false } } };
	size_t n = 1;
	void *desc;

	cr_assert_eq(open_regions(&r, &verbs), 0, "%s", r.why.text);
	cr_assert_eq(r.card.ever, 0);
	cr_assert(r.l.regions.staged && !fregions_desc(&r.l, BASE, &n, &desc));
	cr_assert(strstr(r.l.regions.why, "on-demand paging is not configured"), "%s", r.l.regions.why);
}

Test(fabric_buf, on_demand_paging_that_the_card_lacks_is_told)
{
	struct tp_fabric_opts o = { .name = "x", .provider = "verbs", .odp = true };
	struct rig r = { .card = { .refuse = FI_EOPNOTSUPP },
		         .region = { { BASE, GIB, false } } };

	cr_assert_eq(open_regions(&r, &o), 0);
	cr_assert(r.l.regions.staged && strstr(r.l.regions.why, "the device has none"), "%s", r.l.regions.why);
}

Test(fabric_buf, direct_placement_is_a_demand)
{
	struct tp_fabric_opts o = { .name = "x", .provider = "verbs", .placement = TP_PLACE_DIRECT };
	struct rig r = { .card = { .longest = 4096, .most = SIZE_MAX, .refuse = FI_EOPNOTSUPP },
		         .region = { { BASE, 4096, false }, { BASE + GIB, GIB, false } },
		         .svc.o.nregions = 2 };

	cr_assert_eq(open_regions(&r, &o), -EOPNOTSUPP);
	cr_assert(strstr(r.why.text, "placement = direct") && strstr(r.why.text, "on_demand_paging"), "%s", r.why.text);
	cr_assert_eq(r.card.now, 0);
}

Test(fabric_buf, staged_placement_registers_nothing)
{
	struct tp_fabric_opts o = { .name = "x", .provider = "verbs", .placement = TP_PLACE_STAGED };
	struct rig r = { .card = { .longest = SIZE_MAX, .most = SIZE_MAX },
		         .region = { { BASE, GIB, false } } };

	cr_assert_eq(open_regions(&r, &o), 0);
	cr_assert_eq(r.card.ever, 0);
	cr_assert(r.l.regions.staged);
	cr_assert_str_eq(r.l.regions.why, "configured");
}

Test(fabric_buf, a_provider_that_wants_no_registration_gets_none)
{
	struct rig r = { .region = { { BASE, GIB, false } } };
	struct tp_fabric_opts o = { .name = "x", .provider = "tcp" };
	size_t n = GIB;
	void *desc;

	r.l.fab = &r.fab;
	r.l.base.svc = &r.svc;
	r.svc.o.regions = r.region;
	r.svc.o.nregions = 1;
	cr_assert_eq(fregions_open(&r.l, &r.why, &o), 0);
	cr_assert(!r.l.regions.staged && fregions_desc(&r.l, BASE, &n, &desc) && n == GIB && !desc);
}
