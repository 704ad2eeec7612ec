/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fabric_key.c - keys that give the peer of a connection access to memory of the program's
 *
 *   OPEN --tp_key_close: fi_close(mr)--> CLOSED --nothing is under way any more--> dead(), gone
 *
 * K1  After fi_close(mr) no operation of any peer begins on the memory.
 * K2  dead() is called only when none that had begun before can still touch it.
 *
 * Hardware's fi_close waits for K2 by itself. tcp receives into and sends from raw pointers, an operation at a
 * time and in the order of the stream. So nothing is under way when, after the close,
 *   - a message has been received that had not been received before (it lies behind every write in the stream:
 *     the queue was found empty after the close, then this message came out of it), and
 *   - a send posted after the close has completed (it lies behind the answer to every read).
 * A peer that says nothing leaves K2 open; then only closing its endpoint helps, which ends both.
 *
 * shm with virtual addresses checks no key: the peer copies with the rights of its user. K1 and K2 hold for peers
 * that keep to the protocol; the program has to ask for that (tp_rma_facts.fenced).
 */
#include "transport/fabric_server.h"

#include <errno.h>
#include <stdlib.h>

struct tp_key {
	TAILQ_ENTRY(tp_key) link; /* fconn.keys, closing */
	struct fconn *conn;
	struct fab *fab; /* closed: who counts it */
	struct fab_mr mr;
	bool virt, closed;
	uint64_t drained; /* fab.drained at the close */
	uint64_t sends;   /* to be completed */
	void (*dead)(void *arg);
	void *arg;
};

static bool close_fences(const struct fab *f)
{
	return f->mr_prov_key || f->shm; /* shm: nothing does, or nothing need */
}

int fkey_facts(const struct tp_conn *tc, struct tp_rma_facts *out)
{
	const struct fconn *conn = container_of((struct tp_conn *)(uintptr_t)tc, struct fconn, base);
	const struct fab *f = conn->l ? fconn_fab(conn) : NULL;

	if (!f)
		return -ECONNRESET;
	*out = (struct tp_rma_facts){
		.fabric = conn->l->opts.name,
		.provider = f->info->fabric_attr->prov_name,
		.key_size = (unsigned)f->info->domain_attr->mr_key_size,
		.virt = f->mr_virt,
		.fenced = !(f->shm && f->mr_virt),
		.commit_complete = f->pmem,
		.staged = conn->l->regions.staged,
		.own = conn->own,
		.own_offered = conn->l->opts.own.prog,
	};
	return 0;
}

int fkey_open(struct tp_conn *tc, void *base, size_t len, bool writable, struct tp_key **out)
{
	struct fconn *conn = container_of(tc, struct fconn, base);
	struct tp_key *k;
	int err;

	if (!conn->l || !fconn_fab(conn) || conn->state != FCONN_UP)
		return -ECONNRESET;
	k = calloc(1, sizeof(*k));
	if (!k)
		return -ENOMEM;
	err = fab_key_open(fconn_fab(conn), base, len,
	                   writable ? FI_REMOTE_READ | FI_REMOTE_WRITE : FI_REMOTE_READ, &k->mr);
	if (err) {
		free(k);
		return err;
	}
	k->conn = conn;
	k->virt = fconn_fab(conn)->mr_virt;
	TAILQ_INSERT_TAIL(&conn->keys, k, link);
	*out = k;
	return 0;
}

uint64_t tp_key_value(const struct tp_key *k)
{
	return k->mr.long_key;
}

uint64_t tp_key_addr(const struct tp_key *k, const void *p)
{
	return k->virt ? (uint64_t)(uintptr_t)p
	               : (uint64_t)((const char *)p - (const char *)k->mr.base);
}

static void die(struct tp_key *k)
{
	void (*dead)(void *arg) = k->dead;
	void *arg = k->arg;

	TAILQ_REMOVE(k->closed ? &k->conn->closing : &k->conn->keys, k, link);
	if (k->closed)
		k->fab->nclosing--;
	free(k);
	dead(arg);
}

static void mr_close(struct fab *f, struct tp_key *k)
{
	if (f && k->mr.mr)
		fab_mr_close(f, &k->mr);
	k->mr.mr = NULL; /* of an abandoned provider: left behind with it */
}

void tp_key_close(struct tp_key *k, void (*dead)(void *arg), void *arg)
{
	struct fconn *conn = k->conn;
	struct fab *f = conn->l ? fconn_fab(conn) : NULL;

	k->dead = dead;
	k->arg = arg;
	mr_close(f, k);
	if (!f || close_fences(f)) {
		die(k);
		return;
	}
	k->closed = true;
	k->fab = f;
	f->nclosing++;
	k->drained = f->drained;
	k->sends = conn->sends_posted + 1;
	TAILQ_REMOVE(&conn->keys, k, link);
	TAILQ_INSERT_TAIL(&conn->closing, k, link);
}

void tp_key_hurry(struct tp_key *k)
{
	if (k->conn->l)
		fconn_kill(k->conn);
}

/* In the order in which they were closed: if one has to wait, so have those behind it. */
static void bury(struct fconn *conn)
{
	struct tp_key *k;

	while ((k = TAILQ_FIRST(&conn->closing)) &&
	       (!conn->l || (conn->heard > k->drained && conn->sends_back >= k->sends)))
		die(k);
}

void fkeys_heard(struct fconn *conn)
{
	if (conn->l)
		conn->heard = fconn_fab(conn)->drained;
	bury(conn);
}

void fkeys_sent(struct fconn *conn)
{
	conn->sends_back++;
	bury(conn);
}

void fkeys_close(struct fconn *conn)
{
	struct tp_key *k;

	TAILQ_FOREACH (k, &conn->keys, link)
		mr_close(fconn_fab(conn), k);
}

void fkeys_dead(struct fconn *conn)
{
	bury(conn);
}
