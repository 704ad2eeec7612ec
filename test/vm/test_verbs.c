/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Layouts over verbs, run in the virtual machine by t/keys.sh: what keys keep out, and whom. The server is at $SERVER.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/lib/onesided.h"

#define BLOCK 4096u
#define LEN   (8 * BLOCK)

static struct daemon d;
static struct berth *b; /* an honest client */
static uint8_t good[LEN], evil[BLOCK];

/* Two sections: in the one each client has a domain, and so a protection domain, of its own; in the other they share one. */
static void start(void)
{
	const char *const set[] = { "fabric rdma.provider=verbs",  "fabric rdma.service=20049",   "fabric rdma.layouts=on",
		                    "fabric other.provider=verbs", "fabric other.service=20050",  "fabric other.layouts=on",
		                    "fabric other.layout_domain=shared", NULL };
	char url[96];

	daemon_start(&d, &(struct daemon_opts){ .size = 64 << 20, .no_fabric = true,
	                                        .exports = "/ *(rw,no_root_squash,insecure)\n", .set = set });
	snprintf(url, sizeof(url), "berth+verbs://%s:20049", getenv("SERVER"));
	b = os_session(url);
	memset(evil, 0xee, sizeof(evil));
	for (size_t i = 0; i < LEN; i++)
		good[i] = (uint8_t)(i * 13 + (i >> 12));
}

static void finish(void)
{
	berth_disconnect(b);
	daemon_remove(&d);
}

static void open_as(struct os *o, const char *port, bool own)
{
	os_open_at(o, &(struct tp_fabric_opts){ .name = "test", .provider = "verbs", .node = getenv("SERVER"), .service = port,
	                                        .own.ask = own });
}

/* Where layouts are had. */
static void open_at(struct os *o, const char *port)
{
	open_as(o, port, !strcmp(port, "20049"));
}

static void whole(const struct berth_fh *fh)
{
	static uint8_t got[LEN];
	struct berth_file *f;

	cr_assert_eq(berth_open_fh(b, fh, &f), 0);
	cr_assert_eq(berth_pread(f, got, LEN, 0), (ssize_t)LEN);
	cr_assert_eq(memcmp(got, good, LEN), 0);
	cr_assert_eq(berth_close(f), 0);
}

/* The card says no: an error completion, and the connection is over. Nothing has changed, nothing was read. */
static void refused(struct os *o, const struct berth_fh *fh, enum tp_rma_how how, uint64_t addr, uint64_t key)
{
	uint8_t buf[BLOCK];

	memcpy(buf, evil, BLOCK);
	cr_assert_lt(os_rma(o, how, buf, BLOCK, addr, key), 0);
	cr_assert_lt(os_null(o), 0);
	cr_assert_eq(memcmp(buf, evil, BLOCK), 0);
	whole(fh);
	os_close(o);
}

static void refused_both(struct os *o, const char *port, const struct berth_fh *fh, uint64_t addr, uint64_t key)
{
	refused(o, fh, TP_RMA_WRITE, addr, key);
	open_at(o, port);
	refused(o, fh, TP_RMA_READ, addr, key);
}

Test(verbs, keys)
{
	struct os_map m, m2;
	struct berth_fh fh;
	struct os o, o2;

	start();
	fh = os_make(b, "f", good, LEN);

	open_at(&o, "20049");
	m = os_mapped(&o, &fh, 0, BLOCK, LAYOUT_RW);
	cr_assert_eq(os_rma(&o, TP_RMA_WRITE, good, BLOCK, m.ext[0].addr, m.ext[0].key), 0, "while it is good");
	refused(&o, &fh, TP_RMA_WRITE, m.ext[0].addr + 1, m.ext[0].key); /* beyond its end, by a byte */
	open_at(&o, "20049");
	m = os_mapped(&o, &fh, BLOCK, BLOCK, LAYOUT_RW);
	refused(&o, &fh, TP_RMA_READ, m.ext[0].addr - 1, m.ext[0].key);

	open_at(&o, "20049");
	m = os_mapped(&o, &fh, 0, BLOCK, LAYOUT_READ);
	refused(&o, &fh, TP_RMA_WRITE, m.ext[0].addr, m.ext[0].key);

	open_at(&o, "20049");
	m = os_mapped(&o, &fh, 0, BLOCK, LAYOUT_RW);
	cr_assert_eq(os_returned(&o, m.id), LAYOUT_OK);
	refused_both(&o, "20049", &fh, m.ext[0].addr, m.ext[0].key);

	/* Of a connection that is over. */
	open_at(&o, "20049");
	refused_both(&o, "20049", &fh, m.ext[0].addr, m.ext[0].key);

	/* Of another section, over a connection of this one: it is open, and does not count here. */
	open_at(&o2, "20050");
	m2 = os_mapped(&o2, &fh, 0, BLOCK, LAYOUT_RW);
	open_at(&o, "20049");
	refused_both(&o, "20049", &fh, m2.ext[0].addr, m2.ext[0].key);
	cr_assert_eq(os_rma(&o2, TP_RMA_WRITE, good, BLOCK, m2.ext[0].addr, m2.ext[0].key), 0, "where it belongs");

	/* Of another client of a section with one domain: one trust group, as doc/layout.md says. */
	open_at(&o, "20050");
	cr_assert_eq(os_rma(&o, TP_RMA_WRITE, good, BLOCK, m2.ext[0].addr, m2.ext[0].key), 0);
	os_close(&o);
	os_close(&o2);
	whole(&fh);
	finish();
}

/* Another client of the same section knows the key, and then tries those beside it, over both connections that it may have. */
Test(verbs, a_known_key_is_of_no_use_to_others)
{
	struct os_map m, mine;
	struct berth_fh fh, own;
	struct os a, o;

	start();
	fh = os_make(b, "f", good, LEN);
	own = os_make(b, "own", good, LEN);
	open_at(&a, "20049");
	m = os_mapped(&a, &fh, 0, BLOCK, LAYOUT_RW);
	for (unsigned i = 0; i < 24; i++) {
		open_as(&o, "20049", i % 2);
		if (i % 2)
			mine = os_mapped(&o, &own, 0, BLOCK, LAYOUT_RW);
		refused(&o, &fh, i % 4 < 2 ? TP_RMA_WRITE : TP_RMA_READ, m.ext[0].addr,
		        i < 8 ? m.ext[0].key : (m.ext[0].key + (i - 8) * 64) & UINT32_MAX);
	}
	whole(&own);
	cr_assert_eq(os_rma(&a, TP_RMA_WRITE, good, BLOCK, m.ext[0].addr, m.ext[0].key), 0, "where it belongs");
	cr_assert_eq(os_null(&a), 0);
	os_close(&a);
	while (daemon_counter(&d, "domains"))
		;
	(void)mine;
	whole(&fh);
	finish();
}
