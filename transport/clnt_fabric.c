/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * clnt_fabric.c - a libtirpc CLIENT whose calls travel over a fabric
 *
 * An rpcgen client knows nothing of payloads: arguments that do not fit a message go by a position-zero
 * read chunk, and every call offers a reply chunk, since only the stub knows how long its results may be.
 *
 * A call that timed out stays with the transport, which may still receive its reply: its memory is its
 * own, not the stub's, and is freed by whichever comes last (struct call, forgotten).
 */
#include "transport/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RESULTS (1u << 20)
#define REFRESHES   2 /* new credentials that one call tries */

struct clnt_fabric {
	CLIENT cl;
	struct clnt_ops ops;
	struct tp_client *c;
	rpcprog_t prog;
	rpcvers_t vers;
	struct timeval timeout;
	bool timeout_set; /* by CLSET_TIMEOUT: wins over what a call says */
	bool xid_set;
	uint32_t xid; /* of the last call, or for the next one */
	struct rpc_err err;
};

struct call {
	struct tp_req req;
	AUTH *auth;
	xdrproc_t xres;
	void *resp;
	struct rpc_err err;
	bool over;      /* done() was called, the caller reads err */
	bool forgotten; /* timed out: done() frees */
};

static int to_ms(struct timeval tv)
{
	if (tv.tv_sec < 0)
		return 0;
	if (tv.tv_sec > 1000000)
		return 1000000000;
	return (int)(tv.tv_sec * 1000 + (tv.tv_usec + 999) / 1000);
}

/* --- one call --------------------------------------------------------------------------------------- */

static void accepted(struct call *k)
{
	struct accepted_reply *ar = &k->req.reply;

	switch (ar->ar_stat) {
	case SUCCESS:
		if (!AUTH_VALIDATE(k->auth, &ar->ar_verf)) {
			k->err.re_status = RPC_AUTHERROR;
			k->err.re_why = AUTH_INVALIDRESP;
		} else if (!AUTH_UNWRAP(k->auth, &k->req.results, k->xres, k->resp)) {
			k->err.re_status = RPC_CANTDECODERES;
		} else {
			k->err.re_status = RPC_SUCCESS;
		}
		return;
	case PROG_UNAVAIL:
		k->err.re_status = RPC_PROGUNAVAIL;
		return;
	case PROG_MISMATCH:
		k->err.re_status = RPC_PROGVERSMISMATCH;
		k->err.re_vers.low = ar->ar_vers.low;
		k->err.re_vers.high = ar->ar_vers.high;
		return;
	case PROC_UNAVAIL:
		k->err.re_status = RPC_PROCUNAVAIL;
		return;
	case GARBAGE_ARGS:
		k->err.re_status = RPC_CANTDECODEARGS;
		return;
	case SYSTEM_ERR:
		k->err.re_status = RPC_SYSTEMERROR;
		return;
	default:
		k->err.re_status = RPC_FAILED;
	}
}

static void answered(struct tp_req *req, int err)
{
	struct call *k = container_of(req, struct call, req);

	if (k->forgotten) {
		free(k);
		return;
	}
	k->over = true;
	if (!err) {
		accepted(k);
	} else if (err == -EACCES) {
		k->err.re_status = RPC_AUTHERROR;
		k->err.re_why = req->auth_why;
	} else if (err == -EPROTONOSUPPORT) {
		k->err.re_status = RPC_VERSMISMATCH;
	} else {
		k->err.re_status = RPC_CANTRECV;
		k->err.re_errno = -err;
	}
}

static bool marshal(XDR *x, const void *arg)
{
	AUTH *auth = (AUTH *)(uintptr_t)arg;

	return AUTH_MARSHALL(auth, x);
}

static enum clnt_stat send_call(struct clnt_fabric *cf, struct call *k, rpcproc_t proc,
                                xdrproc_t xargs, void *args)
{
	XDR *x;
	int err;

	k->req.max_results = MAX_RESULTS;
	k->req.done = answered;
	k->req.xid = cf->xid;
	k->req.set_xid = cf->xid_set;
	cf->xid_set = false;
	x = client_req_begin(cf->c, &k->req, (uint32_t)cf->prog, (uint32_t)cf->vers, (uint32_t)proc,
	                     marshal, k->auth, xdr_sizeof(xargs, args));
	if (!x)
		return RPC_CANTENCODEARGS;
	cf->xid = k->req.xid;
	if (!AUTH_WRAP(k->auth, x, xargs, args)) {
		tp_req_abandon(cf->c, &k->req);
		return RPC_CANTENCODEARGS;
	}
	err = tp_req_send(cf->c, &k->req);
	if (err) {
		k->err.re_errno = -err;
		return RPC_CANTSEND;
	}
	return RPC_SUCCESS;
}

static void await(struct clnt_fabric *cf, struct call *k, int ms)
{
	uint64_t end = client_now() + (uint64_t)ms * 1000000;

	while (!k->over) {
		uint64_t now = client_now();

		if (now >= end)
			return;
		tp_client_wait(cf->c, (int)((end - now + 999999) / 1000000));
	}
}

static enum clnt_stat call_once(struct clnt_fabric *cf, rpcproc_t proc, xdrproc_t xargs, void *args,
                                xdrproc_t xres, void *resp, int ms)
{
	struct call *k = calloc(1, sizeof(*k));

	cf->err = (struct rpc_err){ .re_status = RPC_SYSTEMERROR };
	if (!k)
		return RPC_SYSTEMERROR;
	*k = (struct call){ .auth = cf->cl.cl_auth, .xres = xres, .resp = resp };
	k->err.re_status = send_call(cf, k, proc, xargs, args);
	if (k->err.re_status != RPC_SUCCESS) {
		cf->err = k->err;
		free(k);
		return cf->err.re_status;
	}
	await(cf, k, ms);
	if (!k->over) {
		k->forgotten = true;
		cf->err.re_status = RPC_TIMEDOUT;
		return RPC_TIMEDOUT;
	}
	cf->err = k->err;
	free(k);
	return cf->err.re_status;
}

static enum clnt_stat cf_call(CLIENT *cl, rpcproc_t proc, xdrproc_t xargs, void *args,
                              xdrproc_t xres, void *resp, struct timeval timeout)
{
	struct clnt_fabric *cf = cl->cl_private;
	int ms = to_ms(cf->timeout_set ? cf->timeout : timeout);
	enum clnt_stat st = RPC_FAILED;

	for (unsigned i = 0; i <= REFRESHES; i++) {
		st = call_once(cf, proc, xargs, args, xres, resp, ms);
		if (st != RPC_AUTHERROR || !AUTH_REFRESH(cl->cl_auth, NULL))
			break;
	}
	return st;
}

/* --- the other operations ------------------------------------------------------------------------------- */

static void cf_abort(CLIENT *cl)
{
	(void)cl;
}

static void cf_geterr(CLIENT *cl, struct rpc_err *err)
{
	struct clnt_fabric *cf = cl->cl_private;

	*err = cf->err;
}

static bool_t cf_freeres(CLIENT *cl, xdrproc_t xres, void *resp)
{
	XDR x = { .x_op = XDR_FREE };

	(void)cl;
	return xres(&x, resp);
}

static void cf_destroy(CLIENT *cl)
{
	struct clnt_fabric *cf = cl->cl_private;

	tp_client_close(cf->c);
	free(cf);
}

static bool_t cf_control(CLIENT *cl, u_int request, void *info)
{
	struct clnt_fabric *cf = cl->cl_private;

	if (!info)
		return FALSE;
	switch (request) {
	case CLSET_TIMEOUT:
		cf->timeout = *(struct timeval *)info;
		cf->timeout_set = true;
		return TRUE;
	case CLGET_TIMEOUT:
		*(struct timeval *)info = cf->timeout;
		return TRUE;
	case CLGET_FD: /* to poll on; there is nothing to read from it */
		*(int *)info = tp_client_fd(cf->c);
		return TRUE;
	case CLGET_XID:
		*(uint32_t *)info = cf->xid;
		return TRUE;
	case CLSET_XID:
		cf->xid = *(uint32_t *)info;
		cf->xid_set = true;
		return TRUE;
	case CLGET_VERS:
		*(uint32_t *)info = (uint32_t)cf->vers;
		return TRUE;
	case CLSET_VERS:
		cf->vers = *(uint32_t *)info;
		return TRUE;
	case CLGET_PROG:
		*(uint32_t *)info = (uint32_t)cf->prog;
		return TRUE;
	case CLSET_PROG:
		cf->prog = *(uint32_t *)info;
		return TRUE;
	default:
		return FALSE;
	}
}

/* --- create ------------------------------------------------------------------------------------------------ */

static int connect_in(struct tp_client *c, struct timeval timeout, struct tp_error *why)
{
	int ms = to_ms(timeout);
	uint64_t end = client_now() + (uint64_t)ms * 1000000;

	while (tp_client_state(c, NULL) == TP_CLIENT_CONNECTING) {
		uint64_t now = client_now();

		if (now >= end) {
			strcpy(why->text, "the server did not answer in time");
			return -ETIMEDOUT;
		}
		tp_client_wait(c, (int)((end - now + 999999) / 1000000));
	}
	if (tp_client_state(c, why) == TP_CLIENT_UP)
		return 0;
	return tp_client_progress(c);
}

static CLIENT *fail(int err)
{
	rpc_createerr.cf_stat = err == -ETIMEDOUT ? RPC_TIMEDOUT : RPC_SYSTEMERROR;
	rpc_createerr.cf_error.re_status = rpc_createerr.cf_stat;
	rpc_createerr.cf_error.re_errno = -err;
	return NULL;
}

TP_API CLIENT *clnt_fabric_create(const struct tp_fabric_opts *opts, rpcprog_t prog, rpcvers_t vers,
                                  struct timeval timeout, struct tp_error *why)
{
	struct tp_error unheard;
	struct clnt_fabric *cf = calloc(1, sizeof(*cf));
	int err;

	if (!cf)
		return fail(-ENOMEM);
	if (!why)
		why = &unheard;
	err = tp_client_open(opts, &cf->c, why);
	if (!err) {
		err = connect_in(cf->c, timeout, why);
		if (err)
			tp_client_close(cf->c);
	}
	if (err) {
		free(cf);
		return fail(err);
	}
	cf->prog = prog;
	cf->vers = vers;
	cf->timeout = timeout;
	cf->ops = (struct clnt_ops){ .cl_call = cf_call,
		                     .cl_abort = cf_abort,
		                     .cl_geterr = cf_geterr,
		                     .cl_freeres = cf_freeres,
		                     .cl_destroy = cf_destroy,
		                     .cl_control = cf_control };
	cf->cl.cl_ops = &cf->ops;
	cf->cl.cl_private = cf;
	cf->cl.cl_auth = authnone_create();
	return &cf->cl;
}
