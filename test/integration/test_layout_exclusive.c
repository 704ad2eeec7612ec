/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * layout_exclusive: one client at a time has layouts, however many connections it has; the others have their turn
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "test/lib/onesided.h"

#define BLOCK 4096u

static struct daemon d;
static struct berth *b; /* NFS beside it, over fabric tcp */
static struct os first, same, second; /* two connections of one client; one of another */

static void start(const char *provider, const char *lease, const char *recall, bool on)
{
	char text[3][64];
	const char *const set[] = { "fabric tcp.layouts=on", "fabric shm.layouts=on", "fabric tcp.node=::",
		                    text[0], text[1], text[2], NULL };

	snprintf(text[0], sizeof(text[0]), "fabric %s.layout_exclusive=%s", provider, on ? "on" : "off");
	snprintf(text[1], sizeof(text[1]), "fabric %s.layout_lease=%s", provider, lease);
	snprintf(text[2], sizeof(text[2]), "fabric %s.layout_recall=%s", provider, recall);
	daemon_start(&d, &(struct daemon_opts){ .set = set });
	b = os_session(d.tcp_url);
	os_open_as(&first, &d, provider, 1);
	os_open_as(&same, &d, provider, 1);
	os_open_as(&second, &d, provider, 2);
}

static void finish(void)
{
	os_close(&first);
	os_close(&same);
	os_close(&second);
	berth_disconnect(b);
	daemon_remove(&d);
}

static layoutstat may_map(struct os *o, const struct berth_fh *fh, unsigned block, struct os_map *m)
{
	cr_assert_eq(os_map(o, fh, block * BLOCK, BLOCK, 0, LAYOUT_RW, m), 0);
	return m->status;
}

/* Another client that asks has them asked back, and is the next: the first one is not served before it. */
static void by_turns(const char *provider)
{
	struct os_map m, m2, m3;
	struct os_commit c;
	struct berth_fh fh;

	start(provider, "3600", "60000", true);
	fh = os_make(b, "f", NULL, 0);
	m = os_mapped(&first, &fh, 0, BLOCK, LAYOUT_RW);
	m2 = os_mapped(&same, &fh, BLOCK, BLOCK, LAYOUT_RW);
	cr_assert_eq(os_news(&first, m.id), LAYOUT_OK);
	cr_assert_eq(may_map(&second, &fh, 2, &m3), LAYOUTERR_JUKEBOX);
	cr_assert_eq(os_news(&first, m.id), LAYOUTERR_RECALLED);
	cr_assert_eq(os_news(&same, m2.id), LAYOUTERR_RECALLED);
	cr_assert_eq(os_commit(&first, m.id, 0, BLOCK, &c), 0);
	cr_assert(c.status == LAYOUT_OK && c.recalled);
	cr_assert_eq(os_returned(&first, m.id), LAYOUT_OK);
	cr_assert_eq(may_map(&second, &fh, 2, &m3), LAYOUTERR_JUKEBOX, "the same client has another one still");
	cr_assert_eq(os_returned(&same, m2.id), LAYOUT_OK);
	cr_assert_eq(os_null(&first), 0); /* nothing of theirs is under way */
	cr_assert_eq(os_null(&same), 0);
	cr_assert_eq(may_map(&first, &fh, 0, &m), LAYOUTERR_JUKEBOX, "it is the second's turn");
	while (may_map(&second, &fh, 2, &m3) == LAYOUTERR_JUKEBOX)
		;
	cr_assert_eq(m3.status, LAYOUT_OK);
	cr_assert_eq(may_map(&same, &fh, 0, &m), LAYOUTERR_JUKEBOX);
	cr_assert_eq(os_news(&second, m3.id), LAYOUTERR_RECALLED);
	cr_assert_eq(daemon_counter(&d, "layouts_revoked"), 0);
	finish();
}

/* A client that does not give them back is cut off, or nobody gets any before its lease is over. */
static void not_given_back(const char *provider)
{
	struct os_map m;
	struct berth_fh fh;

	start(provider, strcmp(provider, "shm") ? "3600" : "1", "200", true);
	fh = os_make(b, "f", NULL, 0);
	os_mapped(&first, &fh, 0, BLOCK, LAYOUT_RW);
	while (may_map(&second, &fh, 2, &m) == LAYOUTERR_JUKEBOX)
		;
	cr_assert_eq(m.status, LAYOUT_OK);
	cr_assert_eq(daemon_counter(&d, "layouts"), 1);
	cr_assert_eq(daemon_counter(&d, "layouts_revoked"), 1);
	finish();
}

/* The next one that does not ask again has had its turn. */
static void promised_for_a_while(const char *provider)
{
	struct os_map m, m2;
	struct berth_fh fh;

	start(provider, "3600", "60000", true);
	fh = os_make(b, "f", NULL, 0);
	m = os_mapped(&first, &fh, 0, BLOCK, LAYOUT_RW);
	cr_assert_eq(may_map(&second, &fh, 2, &m2), LAYOUTERR_JUKEBOX);
	cr_assert_eq(os_returned(&first, m.id), LAYOUT_OK);
	cr_assert_eq(may_map(&first, &fh, 0, &m), LAYOUTERR_JUKEBOX);
	while (may_map(&first, &fh, 0, &m) == LAYOUTERR_JUKEBOX)
		;
	cr_assert_eq(m.status, LAYOUT_OK);
	finish();
}

static void not_exclusive(const char *provider)
{
	struct os_map m, m2;
	struct berth_fh fh;

	start(provider, "3600", "200", false);
	fh = os_make(b, "f", NULL, 0);
	m = os_mapped(&first, &fh, 0, BLOCK, LAYOUT_RW);
	cr_assert_eq(may_map(&second, &fh, 2, &m2), LAYOUT_OK);
	cr_assert_eq(os_news(&first, m.id), LAYOUT_OK);
	finish();
}

#define EXCLUSIVE(name)                                                                            \
	Test(layout_exclusive, name##_tcp)                                                         \
	{                                                                                          \
		name("tcp");                                                                       \
	}                                                                                          \
	Test(layout_exclusive, name##_shm)                                                         \
	{                                                                                          \
		name("shm");                                                                       \
	}
EXCLUSIVE(by_turns)
EXCLUSIVE(not_given_back)
EXCLUSIVE(promised_for_a_while)
EXCLUSIVE(not_exclusive)
