/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * drc.c - the duplicate request cache: a change is made once, however often it is asked for
 *
 * A client that lost its connection, or its server, before the answer arrived sends the same call
 * again. The record of a change is in the pool, part of the change's own transaction (pm_once), so
 * it is there if and only if the change is, also after a crash. What is kept suffices for the first
 * answer: that it succeeded, and the object's identity. Attributes are the present ones.
 *
 * A call is known by its client's address (not the port, which is another after a reconnect; clients over
 * shared memory have none, and say in their hello which one they are), the caller's uid and gid, xid,
 * program, version, procedure and the bytes of its arguments. A client that begins with the same xid
 * each time would be given old answers; so they are forgotten after a while ([nfs] drc_age).
 *
 *   nfs3_rename:   drc_answered? done.     the usual case of a retry
 *                  make the change         -EALREADY: the first one was still on its way
 *                  failed: drc_answered? done.
 *
 * The second look is for a first call that another worker carried out in the meantime: the failure
 * may be its doing (REMOVE: no such name). An answer waits until the first change is durable.
 *
 * Failures leave no record. Asked again, the request is judged anew; it had no effect before.
 */
#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "server/nfs3.h"

struct who_what { /* hashed as it stands: no padding */
	uint8_t addr[16];
	uint8_t args[16]; /* hash of the arguments */
	uint32_t family, uid, gid, xid, prog, vers, proc, arg_len;
};
static_assert(sizeof(struct who_what) == 64, "no padding");

static void key_of(const struct nfs3_ctx *cx, struct pm_once *once)
{
	const uint8_t *secret = pm_secret(cx->srv->store);
	const struct tp_call *call = cx->call;
	struct who_what w = { .uid = call->cred.uid,
		              .gid = call->cred.gid,
		              .xid = call->xid,
		              .prog = call->prog,
		              .vers = call->vers,
		              .proc = call->proc,
		              .arg_len = call->arg_len };

	w.family = nfs3_client(call, w.addr);
	crypto_shorthash_siphashx24(w.args, call->arg_bytes, call->arg_len, secret);
	crypto_shorthash_siphashx24(once->key, (const uint8_t *)&w, sizeof(w), secret);
	once->tag = call->proc;
}

const struct pm_once *drc_once(const struct nfs3_ctx *cx)
{
	return cx->keyed ? &cx->once : NULL;
}

bool drc_answered(struct nfs3_ctx *cx, const nfs_fh3 *first, const nfs_fh3 *second,
                  void (*answer)(struct nfs3_ctx *cx, int err))
{
	struct server *srv = cx->srv;
	bool late = cx->keyed;
	struct pm_reply reply;
	struct fh fh;
	int err;

	if (!srv->conf.drc)
		return false;
	if (!late)
		key_of(cx, &cx->once);
	cx->keyed = true;
	if (pm_once_find(srv->store, &cx->once, &reply) || reply.tag != cx->call->proc)
		return false;
	if (nfs3_may_use(cx, first) != NFS3_OK)
		return false; /* the export was taken from the client: it hears that */
	cx->replay = true;
	cx->dir = cx->fh.id;
	if (second &&
	    !fh_parse(cx->call->worker, (const uint8_t *)second->data.data_val, second->data.data_len, &fh))
		cx->dir2 = fh.id;
	cx->ch = (struct pm_change){ .lsn = reply.lsn, .obj.id = reply.obj };
	err = pm_durable(srv->store, reply.lsn, nfs3_wait(cx, answer));
	atomic_fetch_add_explicit(&srv->drc_hits, 1, memory_order_relaxed);
	if (late || err == -EINPROGRESS)
		atomic_fetch_add_explicit(&srv->drc_in_progress, 1, memory_order_relaxed);
	if (err != -EINPROGRESS)
		answer(cx, err);
	return true;
}
