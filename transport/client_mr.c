/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client_mr.c - registrations of a fabric client
 *
 * One list, most recently used first, holds the caller's own registrations and those made on his
 * behalf. A range that lies inside a registered one with enough access uses that one.
 *
 * M1  A registration with users is never closed: the server may reach it at any moment.
 * M2  At most CLIENT_CACHE ranges are kept on the caller's behalf while none of them is in use.
 * M3  Where a registration pins pages (FI_MR_ALLOCATED), a range is closed with its last user:
 * memory that the caller unmaps and maps anew would otherwise be served from the old pages.
 */
#include "transport/client.h"

#include <errno.h>
#include <stdlib.h>

static bool covers(const struct tp_mr *mr, const char *base, size_t len, uint64_t access)
{
	const char *at = mr->mr.base;

	return !mr->orphan && (mr->access & access) == access && base >= at && len <= mr->mr.len &&
	       (size_t)(base - at) <= mr->mr.len - len;
}

static void mr_close(struct tp_client *c, struct tp_mr *mr)
{
	TAILQ_REMOVE(&c->mrs, mr, link);
	if (!mr->callers)
		c->ncached--;
	if (!c->hung)
		fab_mr_close(c->f, &mr->mr);
	free(mr);
}

static int mr_open(struct tp_client *c, void *base, size_t len, uint64_t access, struct tp_mr **out)
{
	struct tp_mr *mr = calloc(1, sizeof(*mr));
	int err;

	if (!mr)
		return -ENOMEM;
	mr->access = access;
	err = fab_mr_open(c->f, base, len, access, &mr->mr);
	if (err) {
		free(mr);
		return err;
	}
	TAILQ_INSERT_HEAD(&c->mrs, mr, link);
	*out = mr;
	return 0;
}

/* Let the range go that nobody asked for the longest. */
static void make_room(struct tp_client *c)
{
	struct tp_mr *mr = TAILQ_LAST(&c->mrs, client_mrs), *before;

	for (; mr && c->ncached >= CLIENT_CACHE; mr = before) {
		before = TAILQ_PREV(mr, client_mrs, link);
		if (!mr->users && !mr->callers)
			mr_close(c, mr);
	}
}

int client_mr_get(struct tp_client *c, void *base, size_t len, uint64_t access, struct tp_mr **out)
{
	struct tp_mr *mr;
	int err;

	TAILQ_FOREACH (mr, &c->mrs, link) {
		if (!covers(mr, base, len, access))
			continue;
		TAILQ_REMOVE(&c->mrs, mr, link);
		TAILQ_INSERT_HEAD(&c->mrs, mr, link);
		mr->users++;
		*out = mr;
		return 0;
	}
	make_room(c);
	err = mr_open(c, base, len, access, &mr);
	if (err)
		return err;
	c->ncached++;
	mr->users = 1;
	*out = mr;
	return 0;
}

void client_mr_put(struct tp_client *c, struct tp_mr *mr)
{
	if (--mr->users)
		return;
	if (mr->orphan || (!mr->callers && (c->pinned || c->ncached > CLIENT_CACHE)))
		mr_close(c, mr);
}

TP_API int tp_client_register(struct tp_client *c, void *base, size_t len, struct tp_mr **out)
{
	/* For the server's RMA, where there are chunks; for our own. */
	uint64_t in = FI_READ | (c->opts.own.ask ? 0 : FI_REMOTE_WRITE);
	uint64_t from = FI_WRITE | (c->opts.own.ask ? 0 : FI_REMOTE_READ);
	int err = mr_open(c, base, len, in | from, out);

	if (err == -EFAULT || err == -EACCES) /* read-only memory can still be sent from */
		err = mr_open(c, base, len, from, out);
	if (!err)
		(*out)->callers = true;
	return err;
}

TP_API void tp_client_unregister(struct tp_client *c, struct tp_mr *mr)
{
	if (mr->users)
		mr->orphan = true;
	else
		mr_close(c, mr);
}

/* --- long replies --- */

struct client_reply *client_reply_get(struct tp_client *c, size_t size)
{
	struct client_reply *r;

	SLIST_FOREACH (r, &c->replies, link) {
		if (r->size < size)
			continue;
		SLIST_REMOVE(&c->replies, r, client_reply, link);
		c->nreplies--;
		return r;
	}
	r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	r->size = (size + 4095) & ~(size_t)4095;
	r->buf = aligned_alloc(4096, r->size);
	if (!r->buf || fab_mr_open(c->f, r->buf, r->size, FI_REMOTE_WRITE, &r->mr)) {
		free(r->buf);
		free(r);
		return NULL;
	}
	return r;
}

static void reply_free(struct tp_client *c, struct client_reply *r)
{
	if (!c->hung)
		fab_mr_close(c->f, &r->mr);
	free(r->buf);
	free(r);
}

void client_reply_put(struct tp_client *c, struct client_reply *r)
{
	if (c->nreplies == CLIENT_REPLIES) {
		struct client_reply *old = SLIST_FIRST(&c->replies);

		SLIST_REMOVE_HEAD(&c->replies, link);
		c->nreplies--;
		reply_free(c, old);
	}
	SLIST_INSERT_HEAD(&c->replies, r, link);
	c->nreplies++;
}

void client_mr_free_all(struct tp_client *c)
{
	struct client_reply *r;
	struct tp_mr *mr;

	while ((mr = TAILQ_FIRST(&c->mrs)))
		mr_close(c, mr);
	while ((r = SLIST_FIRST(&c->replies))) {
		SLIST_REMOVE_HEAD(&c->replies, link);
		reply_free(c, r);
	}
}
