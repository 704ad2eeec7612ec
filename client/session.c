/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * session.c - the connection of a session, and what becomes of operations when it breaks
 *
 *   S1  An operation is never lost: every op_start() leads to exactly one callback.
 *   S2  An operation sent again keeps its transaction number, except after NFS3ERR_JUKEBOX, whose
 *       answer the server's duplicate cache would repeat.
 *   S3  Callbacks run with the session in order: never out of the transport's own callbacks, where
 *       answers are only decoded and the operation moved to the finished list.
 *   S4  The clock of an outage starts when the connection is found dead and stops at the first
 *       answer, not at the first connection: a server that dies of a request is not tried for ever.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <syslog.h>
#include <unistd.h>

#include "client/client.h"
#include "client/map.h"
#include "proto/layout.h"
#include "proto/mount3.h"
#include "proto/nfs3.h"

#define BACKOFF_MIN 20   /* ms */
#define BACKOFF_MAX 500 /* ms: a server that comes back, or up now and then, is to be found soon */
#define TRIES_MAX   32 /* times that one operation is sent: a connection that it broke each time */
#define DELAY_MAX   5000 /* ms between tries after NFS3ERR_JUKEBOX */

uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void say(struct berth *b, int priority, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void say(struct berth *b, int priority, const char *fmt, ...)
{
	char text[640];
	va_list ap;

	if (!b->log)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	b->log(b->log_arg, priority, text);
}

/* --- operations --- */

void op_free(struct op *op)
{
	if (op->drop_extra)
		op->drop_extra(op);
	free(op->args);
	free(op);
}

/* From no list to the finished one. */
static void finish(struct op *op, int err)
{
	op->err = err;
	TAILQ_INSERT_TAIL(&op->b->finished, op, link);
}

static void again(struct op *op)
{
	struct berth *b = op->b;

	if (b->closing)
		finish(op, -ECANCELED);
	else if (op->once)
		finish(op, -ECONNRESET);
	else if (op->tries >= TRIES_MAX)
		finish(op, -ETIMEDOUT);
	else
		TAILQ_INSERT_TAIL(&b->pending, op, link);
}

static void later(struct op *op)
{
	unsigned wait = 100u << (op->delays < 6 ? op->delays : 6);

	op->numbered = false; /* S2 */
	op->not_before = now_ms() + (wait < DELAY_MAX ? wait : DELAY_MAX);
	op->delays++;
	if (op->delays > 16)
		finish(op, -EAGAIN);
	else
		again(op);
}

static bool means_lost(const struct berth *b, int err)
{
	if (b->tearing || tp_client_state(b->c, NULL) == TP_CLIENT_DOWN)
		return true;
	return err == -ECONNRESET || err == -ECONNABORTED || err == -ENOTCONN || err == -EPIPE ||
	       err == -ESHUTDOWN;
}

static int rpc_errno(const struct tp_req *req)
{
	switch (req->reply.ar_stat) {
	case SUCCESS:
		return 0;
	case PROG_UNAVAIL:
	case PROG_MISMATCH:
	case PROC_UNAVAIL:
		return -EOPNOTSUPP;
	case GARBAGE_ARGS:
		return -EBADMSG;
	default:
		return -EREMOTEIO;
	}
}

void op_conclude(struct op *op, int err)
{
	if (!err)
		err = rpc_errno(&op->req);
	if (!err)
		err = op->decode(op, &op->req.results);
	if (err == OP_JUKEBOX)
		later(op);
	else
		finish(op, err);
}

/* The transport's callback: decode while the answer is there, let the user know later (S3). */
static void answered(struct tp_req *req, int err)
{
	struct op *op = container_of(req, struct op, req);
	struct berth *b = op->b;

	if (op->lane) {
		lane_answered(op, err);
		return;
	}
	TAILQ_REMOVE(&b->sent, op, link);
	if (err && means_lost(b, err)) {
		again(op);
		return;
	}
	b->outage_since = 0; /* S4 */
	b->backoff_ms = BACKOFF_MIN;
	op_conclude(op, err);
}

static uint32_t version_of(uint32_t prog)
{
	switch (prog) {
	case NFS3_PROGRAM:
		return NFS3_VERSION;
	case LAYOUT_PROGRAM:
		return LAYOUT_VERSION;
	default:
		return MOUNT3_VERSION;
	}
}

int op_send(struct op *op, struct tp_client *c, uint64_t now)
{
	struct tp_req *req = &op->req;
	struct berth *b = op->b;
	XDR *x;

	memset(req, 0, sizeof(*req));
	if (!op->numbered)
		op->xid = b->next_xid++;
	else
		b->count.resent++;
	req->xid = op->xid;
	req->set_xid = true;
	req->out = op->out.iov_base ? &op->out : NULL;
	req->nout = op->out.iov_base ? 1 : 0;
	req->in = op->in.iov_base ? &op->in : NULL;
	req->nin = op->in.iov_base ? 1 : 0;
	req->max_results = op->max_results;
	req->done = answered;
	x = tp_req_begin(c, req, op->prog, version_of(op->prog), op->proc, &b->cred, op->args_len);
	if (!x)
		return -ENOMEM;
	if (op->args_len && !XDR_PUTBYTES(x, (char *)op->args, (u_int)op->args_len)) {
		tp_req_abandon(c, req);
		return -EMSGSIZE;
	}
	op->numbered = true;
	op->tries++;
	op->sent_at = now;
	return tp_req_send(c, req);
}

/* Hand what is due to the transport. */
static void flush(struct berth *b)
{
	struct op_list due = TAILQ_HEAD_INITIALIZER(due);
	struct op *op;
	uint64_t now;

	lane_flush(b);
	if (!b->up || TAILQ_EMPTY(&b->pending))
		return;
	now = now_ms();
	TAILQ_CONCAT(&due, &b->pending, link);
	while ((op = TAILQ_FIRST(&due))) {
		int err;

		TAILQ_REMOVE(&due, op, link);
		if (op->not_before > now) {
			TAILQ_INSERT_TAIL(&b->pending, op, link);
			continue;
		}
		TAILQ_INSERT_TAIL(&b->sent, op, link);
		err = op_send(op, b->c, now);
		if (!err)
			continue;
		TAILQ_REMOVE(&b->sent, op, link);
		if (means_lost(b, err))
			again(op);
		else
			finish(op, err);
	}
}

void op_start(struct op *op)
{
	struct berth *b = op->b;

	b->nops++;
	b->count.calls++;
	op->lane = b->own_lane && op->prog == LAYOUT_PROGRAM;
	TAILQ_INSERT_TAIL(op->lane ? &b->lane.pending : &b->pending, op, link);
	if (b->nops == 1) /* an outage counts from when somebody waits */
		b->outage_since = b->up ? 0 : now_ms();
	if (!b->in_progress)
		flush(b);
}

struct op *op_hold(struct berth *b, berth_done *done, void *arg)
{
	struct op *op = calloc(1, sizeof(*op));

	if (!op)
		return NULL;
	*op = (struct op){ .b = b, .done = done, .arg = arg };
	b->nops++;
	return op;
}

void op_finish(struct op *op, int err)
{
	finish(op, err);
}

void op_drop(struct op *op)
{
	op->b->nops--;
	op_free(op);
}

/* --- connection --- */

static void watch(struct berth *b, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN };

	if (b->watched >= 0)
		epoll_ctl(b->epfd, EPOLL_CTL_DEL, b->watched, NULL);
	b->watched = -1;
	if (fd >= 0 && !epoll_ctl(b->epfd, EPOLL_CTL_ADD, fd, &ev))
		b->watched = fd;
}

static void fail_waiting(struct berth *b, int err)
{
	struct op *op;

	while ((op = TAILQ_FIRST(&b->pending))) {
		TAILQ_REMOVE(&b->pending, op, link);
		finish(op, err);
	}
}

/* What was meant for the connection that ended, and not even sent. */
static void fail_once(struct berth *b)
{
	struct op *op, *next;

	for (op = TAILQ_FIRST(&b->pending); op; op = next) {
		next = TAILQ_NEXT(op, link);
		if (!op->once)
			continue;
		TAILQ_REMOVE(&b->pending, op, link);
		finish(op, -ECONNRESET);
	}
}

static void unregister_all(struct berth *b)
{
	struct berth_mr *mr;

	LIST_FOREACH (mr, &b->regs, link) {
		if (mr->mr)
			tp_client_unregister(b->c, mr->mr);
		mr->mr = NULL;
	}
}

/* Registration again is an optimisation: without it the transport's cache serves. */
static void register_all(struct berth *b)
{
	struct berth_mr *mr;

	LIST_FOREACH (mr, &b->regs, link)
		if (!mr->mr && tp_client_register(b->c, mr->base, mr->len, &mr->mr))
			mr->mr = NULL;
}

static void close_connection(struct berth *b)
{
	struct tp_client *c = b->c;
	struct berth_mr *mr;

	if (!c)
		return;
	watch(b, -1);
	b->tearing = true; /* sent operations come back through answered() */
	b->up = false;
	LIST_FOREACH (mr, &b->regs, link)
		mr->mr = NULL; /* they go with the connection */
	if (!b->own_lane) {
		b->epoch++;
		b->know_layouts = false;
	}
	tp_client_close(c);
	b->c = NULL;
	b->tearing = false;
	fail_once(b);
}

/* The connection is dead: every operation goes back to pending; when to try again. */
static void lost(struct berth *b, uint64_t now)
{
	bool was_up = b->up;

	close_connection(b);
	if (!b->outage_since)
		b->outage_since = now;
	if (was_up)
		say(b, LOG_WARNING, "connection to %s lost (%s), reconnecting",
		    b->url->host ? b->url->host : b->url->port,
		    b->why.text[0] ? b->why.text : "closed by the server");
	b->next_try = now + b->backoff_ms + (unsigned)rand() % (b->backoff_ms / 4 + 1);
	b->backoff_ms = b->backoff_ms * 2 < BACKOFF_MAX ? b->backoff_ms * 2 : BACKOFF_MAX;
}

static int begin_connecting(struct berth *b, uint64_t now)
{
	int err = tp_client_open(&b->fab, &b->c, &b->why);

	if (err) {
		b->c = NULL;
		if (!b->first)
			lost(b, now);
		return err;
	}
	b->connect_by = now + b->connect_ms;
	watch(b, tp_client_fd(b->c));
	return 0;
}

static void came_up(struct berth *b)
{
	b->up = true;
	watch(b, tp_client_fd(b->c));
	register_all(b);
	if (b->first)
		return;
	b->count.reconnects++;
	say(b, LOG_NOTICE, "connected to %s again", b->url->host ? b->url->host : b->url->port);
}

/* What time says: connection attempts, silence, the end of patience. */
static void look_at_clock(struct berth *b)
{
	uint64_t now = now_ms();
	struct op *oldest = TAILQ_FIRST(&b->sent);

	if (b->first)
		return;
	if (layouts_up(b) && b->next_renew && now >= b->next_renew)
		maps_renew(b, now);
	if (b->c && !b->up && now >= b->connect_by) {
		snprintf(b->why.text, sizeof(b->why.text), "no answer to the connection request");
		lost(b, now);
	} else if (b->up && oldest && now >= oldest->sent_at + b->timeout_ms) {
		snprintf(b->why.text, sizeof(b->why.text), "no answer for %u s",
		         b->timeout_ms / 1000);
		lost(b, now);
	}
	if (b->outage_since && !b->up && now - b->outage_since >= b->reconnect_ms &&
	    !TAILQ_EMPTY(&b->pending)) {
		say(b, LOG_ERR, "no connection for %u s, giving up: %s", b->reconnect_ms / 1000,
		    b->why.text);
		fail_waiting(b, -ETIMEDOUT);
		b->outage_since = 0;
	}
	if (!b->c && now >= b->next_try && !TAILQ_EMPTY(&b->pending))
		begin_connecting(b, now);
}

static void advance(struct berth *b)
{
	int state, err = 0;

	look_at_clock(b);
	lane_advance(b);
	lane_flush(b);
	if (!b->c)
		return;
	err = tp_client_progress(b->c);
	state = tp_client_state(b->c, NULL);
	if (err < 0 || state == TP_CLIENT_DOWN) {
		tp_client_state(b->c, &b->why);
		if (!b->first)
			lost(b, now_ms());
	} else if (state == TP_CLIENT_UP && !b->up) {
		came_up(b);
	}
	flush(b);
}

static int call_back(struct berth *b)
{
	struct op_list batch = TAILQ_HEAD_INITIALIZER(batch);
	struct op *op;
	int n = 0;

	TAILQ_CONCAT(&batch, &b->finished, link);
	b->in_callback = true;
	while ((op = TAILQ_FIRST(&batch))) {
		TAILQ_REMOVE(&batch, op, link);
		b->nops--;
		n++;
		op->done(op->arg, op->err, &op->reply);
		op_free(op);
	}
	b->in_callback = false;
	return n;
}

/* --- event loop --- */

int berth_fd(const struct berth *b)
{
	return b->epfd;
}

int berth_progress(struct berth *b)
{
	int n;

	if (b->in_progress)
		return -EDEADLK;
	b->in_progress = true;
	advance(b);
	n = call_back(b);
	maps_flush(b);
	flush(b); /* what callbacks started */
	b->in_progress = false;
	return n;
}

void sooner(int *timeout_ms, uint64_t at, uint64_t now)
{
	uint64_t ms = at > now ? at - now : 0;

	if (*timeout_ms < 0 || ms < (uint64_t)*timeout_ms)
		*timeout_ms = ms > 1000000 ? 1000000 : (int)ms;
}

int berth_before_poll(struct berth *b, int *timeout_ms)
{
	uint64_t now = now_ms();
	struct op *op;
	int err, timeout = -1;

	if (!TAILQ_EMPTY(&b->finished))
		return -EAGAIN;
	if (b->c) {
		err = tp_client_before_poll(b->c, &timeout);
		if (err)
			return -EAGAIN;
	}
	if (b->c && !b->up)
		sooner(&timeout, b->connect_by, now);
	if (lane_before_poll(b, &timeout, now))
		return -EAGAIN;
	if (layouts_up(b) && b->next_renew)
		sooner(&timeout, b->next_renew, now);
	if (!TAILQ_EMPTY(&b->sent))
		sooner(&timeout, TAILQ_FIRST(&b->sent)->sent_at + b->timeout_ms, now);
	if (!TAILQ_EMPTY(&b->pending) && !b->up) {
		if (b->outage_since)
			sooner(&timeout, b->outage_since + b->reconnect_ms, now);
		if (!b->c)
			sooner(&timeout, b->next_try, now);
	}
	if (b->up)
		TAILQ_FOREACH (op, &b->pending, link)
			sooner(&timeout, op->not_before, now);
	*timeout_ms = timeout;
	return timeout ? 0 : -EAGAIN;
}

int berth_wait_any(struct berth *const *b, unsigned n, int timeout_ms)
{
	uint64_t end = timeout_ms < 0 ? UINT64_MAX : now_ms() + (uint64_t)timeout_ms;
	struct pollfd fds[8];

	if (n > sizeof(fds) / sizeof(*fds))
		return -EINVAL;
	for (;;) {
		int sleep = -1, made = 0;
		bool now = false;

		for (unsigned i = 0; i < n; i++) {
			int t = -1, got = berth_progress(b[i]);

			if (got < 0)
				return got;
			made += got;
			if (berth_before_poll(b[i], &t))
				now = true;
			else if (t >= 0 && (sleep < 0 || t < sleep))
				sleep = t;
			fds[i] = (struct pollfd){ .fd = b[i]->epfd, .events = POLLIN };
		}
		if (made)
			return made;
		if (end != UINT64_MAX) {
			uint64_t at = now_ms();

			if (at >= end)
				return 0;
			sooner(&sleep, end, at);
		}
		if (!now)
			poll(fds, n, sleep);
	}
}

int berth_wait(struct berth *b, int timeout_ms)
{
	return berth_wait_any(&b, 1, timeout_ms);
}

unsigned berth_in_flight(const struct berth *b)
{
	return b->nops;
}

void sync_done(void *arg, int err, const struct berth_reply *r)
{
	struct waiting *w = arg;

	w->answered = true;
	w->err = err;
	w->reply = *r;
	w->reply.entry = NULL;
}

static void nobody_waits(void *arg, int err, const struct berth_reply *r)
{
	(void)arg;
	(void)err;
	(void)r;
}

int sync_wait(struct berth *b, struct waiting *w, int started)
{
	struct op *op;

	if (started)
		return started;
	if (b->in_progress) { /* a callback's mistake: the operation goes on without us */
		TAILQ_FOREACH (op, &b->pending, link)
			if (op->arg == w)
				op->done = nobody_waits;
		TAILQ_FOREACH (op, &b->lane.pending, link)
			if (op->arg == w)
				op->done = nobody_waits;
		return -EDEADLK;
	}
	while (!w->answered) {
		int n = berth_wait(b, -1);

		if (n < 0)
			return n;
	}
	return w->err;
}

/* --- sessions --- */

int berth_register(struct berth *b, void *base, size_t len, struct berth_mr **out)
{
	struct berth_mr *mr = calloc(1, sizeof(*mr));
	int err;

	if (!mr)
		return -ENOMEM;
	mr->base = base;
	mr->len = len;
	if (b->up) {
		err = tp_client_register(b->c, base, len, &mr->mr);
		if (err) {
			free(mr);
			return err;
		}
	}
	if (b->lane.up && tp_client_register(b->lane.c, base, len, &mr->lane_mr))
		mr->lane_mr = NULL;
	LIST_INSERT_HEAD(&b->regs, mr, link);
	*out = mr;
	return 0;
}

void berth_unregister(struct berth *b, struct berth_mr *mr)
{
	if (!mr)
		return;
	if (mr->mr && b->c)
		tp_client_unregister(b->c, mr->mr);
	if (mr->lane_mr)
		tp_client_unregister(b->lane.c, mr->lane_mr);
	LIST_REMOVE(mr, link);
	free(mr);
}

void berth_set_cred(struct berth *b, uint32_t uid, uint32_t gid, unsigned ngids,
                    const uint32_t *gids)
{
	b->cred = (struct tp_cred){ .flavor = AUTH_SYS, .uid = uid, .gid = gid };
	for (unsigned i = 0; i < ngids && i < BERTH_GIDS_MAX; i++)
		b->cred.gids[b->cred.ngids++] = gids[i];
}

static void own_cred(struct berth *b)
{
	gid_t gids[1024];
	uint32_t list[BERTH_GIDS_MAX];
	int n = getgroups(1024, gids);
	unsigned k = 0;

	for (int i = 0; i < n && k < BERTH_GIDS_MAX; i++)
		if (gids[i] != getegid())
			list[k++] = gids[i];
	berth_set_cred(b, geteuid(), getegid(), k, list);
}

static unsigned or_else(unsigned value, unsigned otherwise)
{
	return value ? value : otherwise;
}

static void set_up(struct berth *b, const struct berth_opts *o)
{
	static const struct berth_opts none;
	const struct berth_url *u = b->url;

	if (!o)
		o = &none;
	own_cred(b);
	if (o->set_cred)
		berth_set_cred(b, o->uid, o->gid, o->ngids, o->gids);
	if (u->has_uid)
		b->cred.uid = u->uid;
	if (u->has_gid)
		b->cred.gid = u->gid;
	b->connect_ms = or_else(o->connect_ms, 10000);
	b->timeout_ms = or_else(u->has_timeout ? u->timeout_ms : o->timeout_ms, 30000);
	b->reconnect_ms = u->has_reconnect ? u->reconnect_ms : or_else(o->reconnect_ms, 60000);
	b->log = o->log;
	b->log_arg = o->log_arg;
	b->fab = (struct tp_fabric_opts){ .name = "client",
		                          .provider = u->provider,
		                          .fabric = u->fabric,
		                          .domain = u->domain,
		                          .node = u->host,
		                          .service = u->port,
		                          .credits = u->credits,
		                          .inline_size = u->inline_size };
}

static struct berth *session_new(struct berth_url *url, const struct berth_opts *opts)
{
	struct berth *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (b->epfd < 0) {
		free(b);
		return NULL;
	}
	b->url = url;
	b->watched = b->lane.watched = -1;
	b->first = true;
	b->backoff_ms = BACKOFF_MIN;
	b->rtmax = b->wtmax = 1 << 20;
	b->dtpref = 1 << 16;
	TAILQ_INIT(&b->pending);
	TAILQ_INIT(&b->sent);
	TAILQ_INIT(&b->finished);
	TAILQ_INIT(&b->lane.pending);
	TAILQ_INIT(&b->lane.sent);
	LIST_INIT(&b->regs);
	LIST_INIT(&b->maps);
	TAILQ_INIT(&b->unpushed);
	if (getrandom(&b->next_xid, sizeof(b->next_xid), 0) != sizeof(b->next_xid))
		b->next_xid = (uint32_t)now_ms();
	set_up(b, opts);
	if (getrandom(b->fab.instance, sizeof(b->fab.instance), 0) !=
	    sizeof(b->fab.instance))
		memset(b->fab.instance, 0, sizeof(b->fab.instance));
	return b;
}

/* One attempt at the first connection. -EINVAL and the like from opening are final, the rest may be
 * tried again. */
static int try_first(struct berth *b, bool *final)
{
	uint64_t end = now_ms() + b->connect_ms;
	int err = begin_connecting(b, now_ms());

	*final = err != 0;
	while (!err && !b->up) {
		uint64_t now = now_ms();
		int state;

		if (now >= end) {
			snprintf(b->why.text, sizeof(b->why.text),
			         "%s: no answer for %u s; does berthd run there, with this "
			         "provider?",
			         b->url->host ? b->url->host : b->url->port, b->connect_ms / 1000);
			return -ETIMEDOUT;
		}
		err = tp_client_wait(b->c, (int)(end - now));
		state = tp_client_state(b->c, &b->why);
		if (err < 0 || state == TP_CLIENT_DOWN)
			return err < 0 ? err : -ECONNREFUSED;
		err = 0;
		if (state == TP_CLIENT_UP)
			came_up(b);
	}
	return err;
}

static int first_connection(struct berth *b, unsigned patience_ms)
{
	uint64_t end = now_ms() + patience_ms;
	unsigned nap = BACKOFF_MIN;
	bool final;
	int err;

	while ((err = try_first(b, &final)) && !final && now_ms() + nap <= end) {
		close_connection(b);
		poll(NULL, 0, (int)nap);
		nap = nap * 2 < BACKOFF_MAX ? nap * 2 : BACKOFF_MAX;
	}
	b->first = err != 0;
	return err && err != -ETIMEDOUT ? reach_why(b->url, err, &b->why) : err;
}

const char *berth_export_path(const struct berth *b)
{
	return b->export_path;
}

const char *berth_url_path(const struct berth *b)
{
	return b->path;
}

const char *berth_why(const struct berth *b)
{
	return b->why.text;
}

size_t berth_io_max(const struct berth *b)
{
	return b->rtmax < b->wtmax ? b->rtmax : b->wtmax;
}

void berth_get_counters(const struct berth *b, struct berth_counters *out)
{
	*out = b->count;
}

void berth_disconnect(struct berth *b)
{
	struct berth_mr *mr;

	if (!b)
		return;
	b->closing = true;
	if (b->c)
		unregister_all(b);
	close_connection(b);
	do { /* a callback may start another one */
		lane_close(b);
		maps_flush(b);
		fail_waiting(b, -ECANCELED);
	} while (call_back(b));
	while ((mr = LIST_FIRST(&b->regs))) {
		LIST_REMOVE(mr, link);
		free(mr);
	}
	close(b->epfd);
	berth_url_free(b->url);
	free(b->export_path);
	free(b->path);
	free(b);
}

int berth_resolve(const struct berth *b, const char *url, char **path, struct berth_error *why)
{
	const char *mine = b->url->host ? b->url->host : "";
	struct berth_url *u;
	const char *rest;
	int err = berth_url_parse(url, &u, why);

	if (err)
		return err;
	rest = path_behind(u->path, b->export_path);
	if (strcmp(u->provider, b->url->provider) || strcmp(u->host ? u->host : "", mine) ||
	    strcmp(u->port, b->url->port) || !rest) {
		if (why)
			snprintf(why->text, sizeof(why->text),
			         "%s is not in the same export (%s of %s): copy and remove instead",
			         url, b->export_path, mine);
		err = -EXDEV;
	} else {
		*path = strdup(rest);
		err = *path ? 0 : -ENOMEM;
	}
	berth_url_free(u);
	return err;
}

int berth_connect(const char *url, const struct berth_opts *opts, struct berth **out,
                  struct berth_error *why)
{
	struct berth_error unheard;
	struct berth_url *u;
	struct berth *b;
	int err;

	if (!why)
		why = &unheard;
	err = berth_url_parse(url, &u, why);
	if (err)
		return err;
	b = session_new(u, opts);
	if (!b) {
		berth_url_free(u);
		snprintf(why->text, sizeof(why->text), "no memory");
		return -ENOMEM;
	}
	err = first_connection(b, opts ? opts->patience_ms : 0);
	if (err)
		snprintf(why->text, sizeof(why->text), "%s",
		         b->why.text[0] ? b->why.text : strerror(-err));
	else
		err = mount_export(b, why);
	if (err) {
		berth_disconnect(b);
		return err;
	}
	*out = b;
	return 0;
}
