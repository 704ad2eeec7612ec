/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * layout_exclusive: one client at a time has layouts, however many connections it has; the others have their turn
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "test/lib/onesided.h"

#define BLOCK 4096u

static struct daemon d;
static struct berth *b; /* NFS beside it, over fabric tcp */
static struct os first, same, second; /* two connections of one client; one of another */

static void start(const char *provider, const char *lease, const char *recall, bool on)
{
	bool own = !strcmp(provider, "own"); /* tcp, each client in a domain of its own */
	char text[3][64];
	const char *const set[] = { "fabric tcp.layouts=on", "fabric shm.layouts=on", "fabric tcp.node=::",
		                    text[0], text[1], text[2],
		                    own ? "fabric tcp.layout_domain=client" : "fabric tcp.layout_domain=shared", NULL };

	provider = own ? "tcp" : provider;
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

/* @o asks until layout @id of @holder is asked back. */
static void asked_back_for(struct os *o, const struct berth_fh *fh, struct os *holder, uint64_t id)
{
	struct os_map m;

	do
		cr_assert_eq(may_map(o, fh, 5, &m), LAYOUTERR_JUKEBOX);
	while (os_news(holder, id) == LAYOUT_OK);
	cr_assert_eq(os_news(holder, id), LAYOUTERR_RECALLED);
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
	asked_back_for(&second, &fh, &first, m.id);
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
	asked_back_for(&same, &fh, &second, m3.id);
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
	struct os_map m;
	struct berth_fh fh;

	start(provider, "3600", "60000", true);
	fh = os_make(b, "f", NULL, 0);
	m = os_mapped(&first, &fh, 0, BLOCK, LAYOUT_RW);
	asked_back_for(&second, &fh, &first, m.id);
	cr_assert_eq(os_returned(&first, m.id), LAYOUT_OK);
	cr_assert_eq(may_map(&first, &fh, 0, &m), LAYOUTERR_JUKEBOX);
	while (may_map(&first, &fh, 0, &m) == LAYOUTERR_JUKEBOX)
		;
	cr_assert_eq(m.status, LAYOUT_OK);
	finish();
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* One turn of @o, while @other asks for the next one all the time: commits made before it was asked back. In the first half
 * of the second that a turn lasts it must not be, and may have more layouts; these are counted in *early. */
static unsigned one_turn(struct os *o, struct os *other, const struct berth_fh *fh, unsigned *early)
{
	double began = now();
	struct os_map m, more;
	struct os_commit c;
	unsigned commits = 0;

	while (may_map(o, fh, 0, &m) == LAYOUTERR_JUKEBOX)
		began = now();
	for (bool recalled = false; !recalled; commits++) {
		cr_assert_eq(may_map(other, fh, 1, &more), LAYOUTERR_JUKEBOX);
		may_map(o, fh, 2, &more);
		cr_assert_eq(os_commit(o, m.id, 0, BLOCK, &c), 0);
		cr_assert_eq(c.status, LAYOUT_OK);
		recalled = c.recalled;
		if (now() - began < 0.5) {
			cr_assert_eq(more.status, LAYOUT_OK);
			cr_assert_not(recalled, "asked back after %f s", now() - began);
			++*early;
		}
		if (more.status == LAYOUT_OK)
			cr_assert_eq(os_returned(o, more.id), LAYOUT_OK);
	}
	cr_assert_eq(os_returned(o, m.id), LAYOUT_OK);
	cr_assert_eq(os_null(o), 0); /* nothing is under way */
	return commits;
}

/* However often the other one asks: each gets work done in its turn, and then the other has its own. */
static void none_starves(const char *provider)
{
	unsigned early = 0;
	struct berth_fh fh;

	start(provider, "3600", "60000", true);
	fh = os_make(b, "f", NULL, 0);
	for (unsigned i = 0; i < 2 || !early; i++) { /* a machine too slow for half a second: once more */
		one_turn(&first, &second, &fh, &early);
		one_turn(&second, &first, &fh, &early);
	}
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
	Test(layout_exclusive, name##_tcp_in_own_domains)                                          \
	{                                                                                          \
		name("own");                                                                       \
	}                                                                                          \
	Test(layout_exclusive, name##_shm)                                                         \
	{                                                                                          \
		name("shm");                                                                       \
	}
EXCLUSIVE(by_turns)
EXCLUSIVE(not_given_back)
EXCLUSIVE(promised_for_a_while)
EXCLUSIVE(none_starves)
EXCLUSIVE(not_exclusive)
