/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * layout.c - the LAYOUT program: where a file's blocks are, for a client's own RMA (proto/layout.x, doc/layout.md)
 *
 *   MAP   layout_map --> map_open --> pm_lease_open --> map_zero --> map_keys --> answer
 *                          ^  mail: another's layout has to go first     ^  mail: a part at a time
 *
 * The permission of READ or WRITE is asked at MAP, for the whole life of the layout.
 */
#include "server/layout.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAP_TRIES   16 /* how often a MAP steps back behind another client's */
#define MAP_FIXED   512 /* bytes of its answer beside the extents */
#define MAP_EXTENT  40
#define NEWS_FIXED  64 /* likewise of RENEW */
#define NEWS_EACH   20

struct layout_ctx { /* tp_call.ctx */
	struct nfs3_ctx cx; /* first */
	struct layout *l;
	unsigned tries;
	bool rw;
	uint64_t off, len, min;
	struct pm_committed done;
};

static struct layout_ctx *ctx_of(struct nfs3_ctx *cx)
{
	return container_of(cx, struct layout_ctx, cx);
}

static XDR *reply_begin(struct tp_call *call, size_t max)
{
	return tp_reply_begin(call, max);
}

static void reply_end(struct tp_call *call, bool encoded)
{
	if (encoded)
		tp_reply_end(call);
	else
		tp_reply_error(call, SYSTEM_ERR);
}

#define REPLY(call, type, res, room)                                                               \
	do {                                                                                       \
		XDR *x_ = reply_begin(call, room);                                                 \
                                                                                                   \
		if (x_)                                                                            \
			reply_end(call, xdr_##type(x_, res));                                      \
	} while (0)

static layoutstat to_layoutstat(nfsstat3 stat)
{
	switch (stat) { /* those that layoutstat has */
	case NFS3_OK:
	case NFS3ERR_PERM:
	case NFS3ERR_IO:
	case NFS3ERR_ACCES:
	case NFS3ERR_ISDIR:
	case NFS3ERR_INVAL:
	case NFS3ERR_FBIG:
	case NFS3ERR_NOSPC:
	case NFS3ERR_ROFS:
	case NFS3ERR_DQUOT:
	case NFS3ERR_STALE:
	case NFS3ERR_BADHANDLE:
	case NFS3ERR_JUKEBOX:
		return (layoutstat)stat;
	default:
		return LAYOUTERR_SERVERFAULT;
	}
}

/* --- what there is for this connection --- */

struct offer {
	struct tp_rma_facts facts;
	const struct fabric_conf *conf; /* NULL: none */
	layoutwhy why, why_rw;
	const char *text;
	layoutmethod method;
	const char *reason;
	layoutgranularity gran;
};

static const struct fabric_conf *conf_of(const struct server *srv, const char *name)
{
	const struct fabric_conf *f;

	STAILQ_FOREACH (f, &srv->conf.fabrics, link)
		if (!strcmp(f->opts.name, name))
			return f;
	return NULL;
}

_Static_assert((int)LAYOUT_FENCE == PM_FENCE && (int)LAYOUT_CLWB == PM_CLWB && (int)LAYOUT_MSYNC == PM_MSYNC &&
		       (int)LAYOUT_VOLATILE == PM_VOLATILE && (int)LAYOUT_COMMIT_COMPLETE == PM_COMMIT_COMPLETE &&
		       (int)LAYOUT_READ_AFTER_WRITE == PM_READ_AFTER_WRITE && (int)LAYOUT_GRAN_PAGE == PM_GRAN_PAGE &&
		       (int)LAYOUT_GRAN_CACHE_LINE == PM_GRAN_CACHE_LINE,
	       "the wire has the numbers of pmemio/persist.h");

/* As judged when the server started; where there are no layouts, what the server does itself. */
static void choose_method(const struct server *srv, struct offer *o)
{
	const struct pm_verdict *v = o->conf ? &o->conf->verdict : NULL;
	bool judged = v && v->method != PM_AUTO;

	o->gran = (layoutgranularity)srv->info.gran;
	o->method = (layoutmethod)(judged ? v->method : srv->info.method);
	o->reason = judged ? v->reason : srv->info.reason;
}

static void refuse(struct offer *o, layoutwhy why, const char *text)
{
	o->why = o->why_rw = why;
	o->text = text;
}

static void look(struct layout_ctx *lx, struct offer *o)
{
	const struct server *srv = lx->cx.srv;

	*o = (struct offer){ .text = "" };
	if (tp_call_rma_facts(lx->cx.call, &o->facts)) {
		choose_method(srv, o);
		refuse(o, LAYOUT_WHY_SOCKET, "sockets have no RMA: connect over a fabric");
		return;
	}
	o->conf = conf_of(srv, o->facts.fabric);
	choose_method(srv, o);
	if (!o->conf || !o->conf->layouts)
		refuse(o, LAYOUT_WHY_FABRIC, "layouts are off for this fabric: layouts = on in its section");
	else if (!lx->cx.opts.layouts)
		refuse(o, LAYOUT_WHY_EXPORT, "layouts are off for this export: no_layouts in exports");
	else if (o->facts.staged)
		refuse(o, LAYOUT_WHY_MEMORY,
		       "the pool's memory cannot be registered with this provider (a file on fsdax)");
	else if (o->facts.own_offered && !o->facts.own)
		refuse(o, LAYOUT_WHY_CONNECTION,
		       "layouts have a connection of their own here (layout_domain = client), which this one is not");
	if (!o->why && srv->info.data_checksum) {
		o->why_rw = LAYOUT_WHY_CHECKSUM;
		o->text = "no layouts for writing: the pool keeps checksums of file data";
	}
}

static struct layout_ctx *begin(struct tp_call *call)
{
	struct nfs3_ctx *cx = nfs3_begin(call);

	return ctx_of(cx);
}

/* --- NULL, GETUUID --- */

static void layout_null(struct tp_call *call)
{
	if (tp_reply_begin(call, 0))
		tp_reply_end(call);
}

static void fill_device(const struct server *srv, const struct offer *o, layoutdevice *d)
{
	memcpy(d->uuid, srv->info.uuid, sizeof(d->uuid));
	d->block_size = PM_BLOCK;
	pm_write_verf(srv->store, (uint8_t *)d->verf);
	d->granularity = o->gran;
	d->method = o->method;
	d->reason = (char *)(uintptr_t)o->reason;
	d->why = o->why;
	d->why_rw = o->why_rw;
	d->why_text = (char *)(uintptr_t)o->text;
	d->addressing = o->facts.virt ? LAYOUT_ADDR_VIRTUAL : LAYOUT_ADDR_OFFSET;
	d->key_size = o->facts.key_size;
	d->fenced = o->facts.fenced;
	if (!o->conf)
		return;
	d->lease = layout_lease(o->conf, o->facts.fenced);
	d->recall_msec = o->conf->recall_ms;
	d->max_layouts = o->conf->layout_count;
	d->max_mapped = (uint64_t)o->conf->layout_mib << 20;
	d->max_length = d->max_mapped < LAYOUT_MAX_LENGTH ? d->max_mapped : LAYOUT_MAX_LENGTH;
}

static void layout_getuuid(struct tp_call *call)
{
	struct layout_ctx *lx = begin(call);
	struct nfs3_fh_buf fh;
	LAYOUTGETUUIDargs args = { 0 };
	LAYOUTGETUUIDres res = { 0 };
	struct pm_attr attr;
	struct offer o;

	nfs3_preset_fh(&args.file, &fh);
	if (!xdr_LAYOUTGETUUIDargs(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	res.status = to_layoutstat(nfs3_handle(&lx->cx, &args.file, &attr));
	if (res.status == LAYOUT_OK) {
		look(lx, &o);
		fill_device(lx->cx.srv, &o, &res.LAYOUTGETUUIDres_u.device);
	}
	REPLY(call, LAYOUTGETUUIDres, &res, 1024);
}

/* --- MAP --- */

static void map_fail(struct layout_ctx *lx, layoutstat stat, layoutwhy why, const char *text)
{
	LAYOUTMAPres res = { .status = stat };
	LAYOUTMAPresfail *fail = &res.LAYOUTMAPres_u.resfail;

	fail->why = why;
	fail->text = (char *)(uintptr_t)text;
	nfs3_post_attr_now(&lx->cx, lx->cx.dir, &fail->attributes);
	REPLY(lx->cx.call, LAYOUTMAPres, &res, 1024);
}

static void map_drop(struct layout_ctx *lx, int err)
{
	layoutwhy why = LAYOUT_WHY_NONE;
	const char *text = "";
	layoutstat stat;

	layout_free_new(lx->l);
	switch (err) {
	case -ECONNRESET:
		tp_drop(lx->cx.call);
		return;
	case -ENODATA:
		stat = LAYOUTERR_INVAL;
		text = "nothing to read: the range begins behind the end of the file";
		break;
	case -EOPNOTSUPP:
		stat = LAYOUTERR_UNAVAILABLE;
		why = LAYOUT_WHY_MEMORY;
		text = "the pool's memory cannot be registered with this provider (a file on fsdax)";
		break;
	case -EBUSY:
	case -ENOMEM:
		stat = LAYOUTERR_JUKEBOX;
		text = err == -EBUSY ? "other clients map the same range all the time" : "no memory";
		break;
	default:
		stat = to_layoutstat(nfs3_errstat(err));
	}
	map_fail(lx, stat, why, text);
}

/* One key for what lies in one piece. */
static int open_keys(struct layout_ctx *lx, const struct pm_extent *e, unsigned n, layoutextent *out)
{
	struct layout *l = lx->l;
	struct pm_region pool, zero;
	uint64_t end = 0;

	pm_get_regions(lx->cx.srv->store, &pool, &zero);
	l->key = calloc(n ? n : 1, sizeof(*l->key));
	if (!l->key)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++) {
		uint8_t *at = (uint8_t *)pool.base + e[i].at;
		struct layout_key *k;

		out[i].offset = e[i].off;
		out[i].length = e[i].len;
		out[i].state = e[i].state == PM_EXT_VALID       ? LAYOUT_VALID
		               : e[i].state == PM_EXT_UNWRITTEN ? LAYOUT_UNWRITTEN
		                                                : LAYOUT_HOLE;
		if (!e[i].at)
			continue;
		if (!l->nkeys || e[i].at != end) {
			uint64_t len = e[i].len;
			int err;

			for (unsigned j = i + 1; j < n && e[j].at == e[i].at + len; j++)
				len += e[j].len;
			k = &l->key[l->nkeys];
			k->l = l;
			err = tp_key_open(lx->cx.call, at, len, l->rw, &k->k);
			if (err)
				return err;
			l->nkeys++;
			l->nalive++;
		}
		end = e[i].at + e[i].len;
		k = &l->key[l->nkeys - 1];
		out[i].addr = tp_key_addr(k->k, at);
		out[i].key = tp_key_value(k->k);
	}
	return 0;
}

/* Of @most, as many as the answer has room for. */
static unsigned fitting(struct tp_call *call, size_t fixed, size_t each, unsigned most)
{
	size_t room = tp_reply_room(call), n = room < fixed + each ? 1 : (room - fixed) / each;

	return n < most ? (unsigned)n : most;
}

static void map_keys(struct layout_ctx *lx)
{
	struct layout *l = lx->l;
	layoutextent ext[LAYOUT_MAX_EXTENTS] = { 0 };
	LAYOUTMAPres res = { .status = LAYOUT_OK };
	LAYOUTMAPresok *ok = &res.LAYOUTMAPres_u.resok;
	const struct pm_extent *e;
	struct pm_attr attr;
	struct offer o;
	unsigned n;
	int err;

	look(lx, &o);
	e = pm_lease_extents(l->lease, &n);
	if (e[n - 1].off + e[n - 1].len < lx->off + lx->min)
		err = l->rw ? -ENOSPC : 0;
	else
		err = 0;
	if (!err)
		err = tp_call_alive(lx->cx.call) && o.conf ? open_keys(lx, e, n, ext) : -ECONNRESET;
	if (err) {
		map_drop(lx, err);
		return;
	}
	l->file = lx->cx.fh.id;
	l->generation = pm_lease_generation(l->lease);
	layout_start(l, ev_now(l->cl->w->loop));
	pm_lease_attr(l->lease, &attr);
	ok->id = l->id;
	ok->generation = l->generation;
	ok->lease = l->cl->lease;
	ok->method = o.method;
	ok->offset = e[0].off;
	ok->length = e[n - 1].off + e[n - 1].len - e[0].off;
	ok->extents.extents_len = n;
	ok->extents.extents_val = ext;
	nfs3_post_attr(lx->cx.srv, &attr, &ok->attributes);
	REPLY(lx->cx.call, LAYOUTMAPres, &res, MAP_FIXED + MAP_EXTENT * n);
}

static void map_zero(struct nfs3_ctx *cx, int err)
{
	struct layout_ctx *lx = ctx_of(cx);

	if (!err && lx->l->rw)
		err = pm_lease_zero(lx->l->lease, LAYOUT_ZERO_STEP);
	if (err == -EAGAIN)
		nfs3_yield(cx, map_zero);
	else if (err)
		map_drop(lx, err);
	else
		map_keys(lx);
}

static void map_open(struct nfs3_ctx *cx, int err)
{
	struct layout_ctx *lx = ctx_of(cx);
	struct pm_lease_opts o = { .owner = lx->l->cl,
		                   .write = lx->rw,
		                   .max_extents = fitting(cx->call, MAP_FIXED, MAP_EXTENT, LAYOUT_MAX_EXTENTS),
		                   .recall = layout_recall,
		                   .arg = lx->l };

	if (!err && (lx->tries++ == MAP_TRIES || !tp_call_alive(cx->call)))
		err = tp_call_alive(cx->call) ? -EBUSY : -ECONNRESET;
	if (!err)
		err = pm_lease_open(cx->srv->store, cx->fh.id, lx->off, lx->len, lx->min, &o, &lx->l->lease,
		                    nfs3_wait(cx, map_open));
	if (err == -EINPROGRESS)
		return;
	if (err)
		map_drop(lx, err);
	else
		map_zero(cx, 0);
}

static nfsstat3 map_check(struct layout_ctx *lx, const LAYOUTMAPargs *args)
{
	struct pm_attr attr;
	nfsstat3 stat = nfs3_handle(&lx->cx, &args->file, &attr);

	if (stat != NFS3_OK)
		return stat;
	lx->cx.dir = attr.id;
	lx->rw = args->iomode == LAYOUT_RW;
	if (!lx->rw && args->iomode != LAYOUT_READ)
		return NFS3ERR_INVAL;
	if (lx->rw && !lx->cx.opts.rw)
		return NFS3ERR_ROFS;
	if (attr.type != PM_REG)
		return attr.type == PM_DIR ? NFS3ERR_ISDIR : NFS3ERR_INVAL;
	if (access_may(&lx->cx.who, &attr, (lx->rw ? MAY_WRITE | MAY_READ : MAY_READ) | MAY_OWNER))
		return NFS3ERR_ACCES;
	if (!args->length || args->min_length > args->length)
		return NFS3ERR_INVAL;
	if (args->offset > PM_FILE_MAX || args->length > PM_FILE_MAX - args->offset)
		return NFS3ERR_FBIG;
	return lx->rw ? nfs3_errstat(nfs3_drop_setid(&lx->cx, &attr)) : NFS3_OK;
}

/* What it may count: whole blocks, no more than one MAP may have. */
static uint64_t map_size(struct layout_ctx *lx, const LAYOUTMAPargs *args, const struct fabric_conf *conf)
{
	uint64_t most = (uint64_t)conf->layout_mib << 20, head = args->offset % PM_BLOCK;

	if (most > LAYOUT_MAX_LENGTH)
		most = LAYOUT_MAX_LENGTH;
	lx->off = args->offset;
	lx->len = args->length < most - head ? args->length : most - head;
	lx->min = args->min_length;
	return (head + lx->len + PM_BLOCK - 1) / PM_BLOCK * PM_BLOCK;
}

static void map_begin(struct layout_ctx *lx, const LAYOUTMAPargs *args, const struct offer *o)
{
	struct layout_client *cl = layout_client_of(lx->cx.call, o->conf, o->facts.fenced);
	uint64_t bytes = map_size(lx, args, o->conf);

	if (!cl) {
		map_fail(lx, LAYOUTERR_JUKEBOX, LAYOUT_WHY_NONE, "no memory");
		return;
	}
	if (!layout_turn(cl)) {
		map_fail(lx, LAYOUTERR_JUKEBOX, LAYOUT_WHY_NONE,
		         "another client has layouts of this fabric, or is to have them next (layout_exclusive)");
		return;
	}
	if (lx->min > lx->len || !layout_reserve(cl, bytes)) {
		map_fail(lx, LAYOUTERR_TOOMANY, LAYOUT_WHY_NONE,
		         "more layouts, or more bytes in them, than one client may have: return some");
		return;
	}
	lx->l = layout_new(cl, bytes, lx->rw);
	if (!lx->l) {
		layout_unreserve(cl, bytes);
		map_fail(lx, LAYOUTERR_JUKEBOX, LAYOUT_WHY_NONE, "no memory");
		return;
	}
	map_open(&lx->cx, 0);
}

static void layout_map(struct tp_call *call)
{
	struct layout_ctx *lx = begin(call);
	struct nfs3_fh_buf fh;
	LAYOUTMAPargs args = { 0 };
	struct offer o;
	nfsstat3 stat;
	layoutwhy why;

	nfs3_preset_fh(&args.file, &fh);
	if (!xdr_LAYOUTMAPargs(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	stat = map_check(lx, &args);
	if (stat != NFS3_OK) {
		map_fail(lx, to_layoutstat(stat), LAYOUT_WHY_NONE, "");
		return;
	}
	look(lx, &o);
	why = lx->rw ? o.why_rw : o.why;
	if (why)
		map_fail(lx, LAYOUTERR_UNAVAILABLE, why, o.text);
	else
		map_begin(lx, &args, &o);
}

/* --- COMMIT --- */

static void commit_fail(struct layout_ctx *lx, layoutstat stat)
{
	LAYOUTCOMMITres res = { .status = stat };

	if (lx->cx.fh.id.ino)
		nfs3_wcc_now(&lx->cx, lx->cx.fh.id, &res.LAYOUTCOMMITres_u.resfail.file_wcc);
	REPLY(lx->cx.call, LAYOUTCOMMITres, &res, NFS3_SMALL_REPLY + 64);
}

static void commit_done(struct nfs3_ctx *cx, int err)
{
	struct layout_ctx *lx = ctx_of(cx);
	struct layout *l = lx->l;
	LAYOUTCOMMITres res = { .status = LAYOUT_OK };
	LAYOUTCOMMITresok *ok = &res.LAYOUTCOMMITres_u.resok;
	bool recalled = layout_recalled(l);

	if (!err) {
		layout_renew(l);
		nfs3_wcc(cx->srv, &lx->done.before, &lx->done.attr, &ok->file_wcc);
		ok->committed = (stable_how)lx->done.stable;
		memcpy(ok->verf, lx->done.verf, sizeof(ok->verf));
		ok->generation = pm_lease_generation(l->lease);
		ok->lease = l->cl->lease;
		ok->recalled = recalled;
	}
	layout_commit_end(l);
	if (err == -ECANCELED)
		commit_fail(lx, LAYOUTERR_RECALLED);
	else if (err)
		commit_fail(lx, to_layoutstat(nfs3_errstat(err)));
	else
		REPLY(cx->call, LAYOUTCOMMITres, &res, NFS3_SMALL_REPLY + 64);
}

/* A client that says "durable already" is believed where it had a way to make it so. */
static bool client_persists(const struct fabric_conf *f)
{
	return f->verdict.method == PM_COMMIT_COMPLETE || f->verdict.method == PM_READ_AFTER_WRITE;
}

static void commit_start(struct layout_ctx *lx, const LAYOUTCOMMITargs *args)
{
	struct pm_range r[LAYOUT_MAX_RANGES];
	struct timespec ts, *mtime = NULL;
	unsigned n = args->ranges.ranges_len;
	uint64_t size = args->size.set_it ? args->size.set_size3_u.size : 0;
	int err;

	for (unsigned i = 0; i < n; i++)
		r[i] = (struct pm_range){ args->ranges.ranges_val[i].offset, args->ranges.ranges_val[i].length };
	if (args->mtime.set_it == SET_TO_CLIENT_TIME) {
		ts.tv_sec = args->mtime.set_mtime_u.mtime.seconds;
		ts.tv_nsec = args->mtime.set_mtime_u.mtime.nseconds;
		mtime = &ts;
	}
	if (mtime && ts.tv_nsec >= 1000000000) {
		commit_fail(lx, LAYOUTERR_INVAL);
		return;
	}
	layout_commit_begin(lx->l);
	err = pm_lease_commit(lx->l->lease, r, n, args->durable && client_persists(lx->l->cl->conf), size,
	                      mtime, &lx->done, nfs3_wait(&lx->cx, commit_done));
	if (err != -EINPROGRESS)
		commit_done(&lx->cx, err);
}

static void layout_commit(struct tp_call *call)
{
	struct layout_ctx *lx = begin(call);
	layoutrange ranges[LAYOUT_MAX_RANGES];
	LAYOUTCOMMITargs args = { 0 };

	args.ranges.ranges_val = ranges;
	if (!xdr_LAYOUTCOMMITargs(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	lx->l = layout_find(layout_client_find(call), args.id);
	if (!lx->l) {
		commit_fail(lx, LAYOUTERR_BADLAYOUT);
		return;
	}
	lx->cx.fh.id = lx->l->file;
	commit_start(lx, &args);
}

/* --- RETURN, RENEW --- */

static void layout_return(struct tp_call *call)
{
	struct layout_client *cl = layout_client_find(call);
	LAYOUTRETURNargs args = { 0 };
	LAYOUTRETURNres res = { .status = LAYOUT_OK };
	struct layout *l;

	if (!xdr_LAYOUTRETURNargs(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	if (args.id) {
		l = layout_find(cl, args.id);
		if (l)
			layout_end(l);
		else
			res.status = LAYOUTERR_BADLAYOUT;
	} else if (cl) {
		while ((l = TAILQ_FIRST(&cl->live)))
			layout_end(l);
	}
	/* The keys are closed: that comes before the answer is sent. */
	REPLY(call, LAYOUTRETURNres, &res, 16);
}

static void tell(const struct layout *l, layoutnews *out)
{
	out->id = l->id;
	out->generation = pm_lease_generation(l->lease);
	out->status = layout_recalled(l) ? LAYOUTERR_RECALLED : LAYOUT_OK;
}

/* What has no room is told next time. */
static unsigned renew_all(struct layout_client *cl, layoutnews *news, unsigned most)
{
	struct layout *l;
	unsigned n = 0;

	TAILQ_FOREACH (l, &cl->live, link) {
		layout_renew(l);
		if (n == most)
			continue;
		tell(l, &news[n]);
		n += news[n].status != LAYOUT_OK || news[n].generation != l->generation;
		l->generation = pm_lease_generation(l->lease);
	}
	return n;
}

static void layout_renew_call(struct tp_call *call)
{
	struct layout_client *cl = layout_client_find(call);
	uint64_t ids[LAYOUT_MAX_IDS];
	layoutnews news[LAYOUT_MAX_IDS] = { 0 };
	LAYOUTRENEWargs args = { 0 };
	LAYOUTRENEWres res = { .status = LAYOUT_OK };
	LAYOUTRENEWresok *ok = &res.LAYOUTRENEWres_u.resok;

	args.ids.ids_val = (u_quad_t *)ids;
	if (!xdr_LAYOUTRENEWargs(&call->args, &args)) {
		tp_reply_error(call, GARBAGE_ARGS);
		return;
	}
	ok->news.news_val = news;
	ok->lease = cl ? cl->lease : 0;
	for (u_int i = 0; i < args.ids.ids_len; i++) {
		struct layout *l = layout_find(cl, ids[i]);

		if (!l) {
			news[i] = (layoutnews){ .id = ids[i], .status = LAYOUTERR_BADLAYOUT };
			continue;
		}
		layout_renew(l);
		tell(l, &news[i]);
	}
	ok->news.news_len = args.ids.ids_len;
	if (!args.ids.ids_len && cl)
		ok->news.news_len = renew_all(cl, news, fitting(call, NEWS_FIXED, NEWS_EACH, LAYOUT_MAX_IDS));
	REPLY(call, LAYOUTRENEWres, &res, NEWS_FIXED + NEWS_EACH * ok->news.news_len);
}

static const struct tp_proc procs[] = {
	[LAYOUTPROC_NULL] = { .name = "NULL", .run = layout_null },
	[LAYOUTPROC_GETUUID] = { .name = "GETUUID", .run = layout_getuuid },
	[LAYOUTPROC_MAP] = { .name = "MAP", .run = layout_map },
	[LAYOUTPROC_COMMIT] = { .name = "COMMIT", .run = layout_commit },
	[LAYOUTPROC_RETURN] = { .name = "RETURN", .run = layout_return },
	[LAYOUTPROC_RENEW] = { .name = "RENEW", .run = layout_renew_call },
};

const struct tp_program layout_program = {
	.prog = LAYOUT_PROGRAM,
	.vers = LAYOUT_VERSION,
	.procs = procs,
	.nprocs = LAYOUTPROC_COUNT,
	.ctx_size = sizeof(struct layout_ctx),
};
