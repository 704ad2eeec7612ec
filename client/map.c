/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * map.c - mappings: layouts asked for, kept alive, lost; and the COMMITs of what went through them
 *
 *   L1  RMA is begun only on a layout of the connection that stands, not recalled, whose lease has not run out by our
 *       own clock (a tenth early): where the provider checks keys, using a dead one costs the connection; where it
 *       does not, nothing else keeps us out.
 *   L2  An answer of a COMMIT counts for bytes only if it was sent on the connection that they were written on, behind
 *       them or after their completion. Calls about layouts are never sent again on another connection.
 *   L3  Durable puts share COMMITs: one goes out at once, those that come while COMMITS_OUT are out, or within one
 *       round of callbacks, go together.
 *   L4  Without a layout everything works by READ and WRITE; a new one is asked for while that goes on.
 *   L5  A MAP whose connection ends is asked for again on the next one, as long as an outage may last (reconnect_ms).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/map.h"

#define BLOCK       4096u /* what a COMMIT turns into data; extents are multiples of it */
#define COMMITS_OUT 2
#define MAPS_MAX    64   /* layouts that one berth_map() asks for */
#define AGAIN_MS    1000 /* after a MAP that failed */
#define REFUSED_MS  10000 /* after a lane that did not come up */
#define RENEW_MIN   50   /* ms */

/* --- layouts --- */

static void layout_free(struct layout *l)
{
	LIST_REMOVE(l, link);
	extents_free(&l->x);
	free(l);
}

static void nobody_waits(void *arg, int err, const struct berth_reply *r)
{
	(void)arg;
	(void)err;
	(void)r;
}

/* A server in software (tcp) knows that nothing is under way with the keys when it hears something newer than their end. If
 * it does not, and somebody waits for the blocks, the connection is what it ends. */
static void say_something_newer(struct berth *b)
{
	struct tp_client_rma_info info;

	if (!layouts_up(b))
		return;
	tp_client_get_rma_info(layouts_client(b), &info);
	if (info.keys_checked)
		layout_start_null(b, nobody_waits, NULL); /* no memory: then it is the connection */
}

static void returned(void *arg, int err, const struct berth_reply *r)
{
	struct berth_map *m = arg;

	(void)r;
	if (!err) /* it is gone in any case */
		say_something_newer(m->f->b);
	m->calls--;
	map_idle(m);
}

static void give_back(struct berth_map *m, struct layout *l)
{
	if (l->epoch == m->f->b->epoch && !layout_start_return(m->f->b, l->id, returned, m))
		m->calls++;
	layout_free(l);
}

/* Nothing new through it; it goes back when nothing is under way. */
static void layout_end(struct berth_map *m, struct layout *l)
{
	if (l->ending)
		return;
	l->ending = true;
	m->f->b->count.layouts_lost++;
	if (!l->out)
		give_back(m, l);
}

struct layout *map_layout(struct berth_map *m, uint64_t epoch, uint64_t id)
{
	struct layout *l;

	LIST_FOREACH (l, &m->layouts, link)
		if (l->epoch == epoch && l->id == id)
			return l;
	return NULL;
}

/* L1 */
static bool usable(const struct berth_map *m, const struct layout *l)
{
	return l->epoch == m->f->b->epoch && layouts_up(m->f->b) && !l->ending && now_ms() < l->expires;
}

struct layout *map_usable_layout(struct berth_map *m, uint64_t epoch, uint64_t id)
{
	struct layout *l = map_layout(m, epoch, id);

	return l && usable(m, l) ? l : NULL;
}

static void forget_dead(struct berth_map *m)
{
	struct layout *l, *next;

	for (l = LIST_FIRST(&m->layouts); l; l = next) {
		next = LIST_NEXT(l, link);
		if (l->ending || usable(m, l) || l->out)
			continue;
		m->f->b->count.layouts_lost++;
		if (l->epoch == m->f->b->epoch) /* its lease ran out, or it soon will */
			give_back(m, l);
		else
			layout_free(l);
	}
}

void layout_rma_begun(struct layout *l)
{
	l->out++;
}

void layout_rma_over(struct berth_map *m, uint64_t epoch, uint64_t id)
{
	struct layout *l = map_layout(m, epoch, id);

	if (l && !--l->out && l->ending)
		give_back(m, l);
}

static uint64_t lease_end(uint64_t sent, unsigned lease_ms)
{
	return sent + lease_ms - lease_ms / 10;
}

/* --- MAP --- */

struct map_call {
	struct berth_map *m;
	uint64_t off, sent, epoch;
	uint64_t lost_since; /* ms; 0: not lost since the last answer */
	unsigned rounds;
	bool by_lane; /* the facts are asked for over the lane */
	struct layout_facts facts;
	struct layout_mapped got;
	berth_done *done; /* NULL: nobody waits */
	void *arg;
};

static int map_round(struct map_call *c);

static void map_free(struct berth_map *m)
{
	struct layout *l;

	while ((l = LIST_FIRST(&m->layouts)))
		layout_free(l);
	LIST_REMOVE(m, link);
	LIST_REMOVE(m, in_file);
	free(m);
}

/* Why a mapping cannot be had, as against: not one-sided. */
static bool is_final(int err)
{
	return err == -EACCES || err == -EROFS || err == -EFBIG || err == -ENOSPC || err == -EDQUOT ||
	       err == -ESTALE || err == -EISDIR || err == -EIO || err == -ECANCELED || err == -ETIMEDOUT ||
	       err == -ENOMEM;
}

static void map_call_over(struct map_call *c, int err)
{
	struct berth_map *m = c->m;
	struct berth_reply r = { .map = m };

	m->mapping = false;
	m->calls--;
	m->no_map_before = err ? now_ms() + (err == -ECONNREFUSED ? REFUSED_MS : AGAIN_MS) : 0;
	if (err && !m->why[0])
		snprintf(m->why, sizeof(m->why), "%s", strerror(-err));
	if (!LIST_EMPTY(&m->layouts) || !(is_final(err) || (m->flags & BERTH_MAP_ONE_SIDED)))
		err = 0;
	if (c->done && !err) {
		c->done(c->arg, 0, &r);
	} else {
		if (c->done) { /* no mapping: ended as by berth_unmap(), for a layout of it may just be going back */
			m->unmapped = c->done;
			m->unmap_arg = c->arg;
			m->unmap_err = err;
		}
		map_idle(m);
	}
	free(c);
}

static int take_layout(struct map_call *c)
{
	const struct layout_mapped *g = &c->got;
	struct layout *l;
	int err;

	if (g->off > c->off || g->len > INT64_MAX - g->off || g->off + g->len <= c->off)
		return -EPROTO;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->rw = c->m->flags & BERTH_MAP_WRITE;
	err = extents_set(&l->x, g->off, g->off + g->len, l->rw, g->e, g->n);
	if (err) {
		free(l);
		return err;
	}
	l->id = g->id;
	l->epoch = c->epoch;
	l->generation = g->generation;
	l->method = g->method;
	l->size = g->has_size ? g->size : 0;
	l->expires = lease_end(c->sent, g->lease_ms);
	LIST_INSERT_HEAD(&c->m->layouts, l, link);
	return 0;
}

static void renew_soon(struct berth *b)
{
	uint64_t at = now_ms() + b->renew_ms;

	if (!b->next_renew || at < b->next_renew)
		b->next_renew = at;
}

/* L5: @err is how a call of @c ended. */
static bool try_again(struct map_call *c, int err)
{
	uint64_t now = now_ms();

	if (err != -ECONNRESET || c->m->unmapped)
		return false;
	if (!c->lost_since)
		c->lost_since = now;
	return now - c->lost_since < c->m->f->b->reconnect_ms;
}

static void mapped(void *arg, int err, const struct berth_reply *r)
{
	struct map_call *c = arg;
	struct berth_map *m = c->m;
	struct berth *b = m->f->b;
	uint64_t next = c->got.off + c->got.len;

	(void)r;
	if (c->epoch != b->epoch) {
		free(c->got.e);
		c->got.e = NULL;
		err = err ? err : -ECONNRESET;
	}
	if (!err) {
		err = take_layout(c);
		free(c->got.e);
		c->got.e = NULL;
		b->count.layout_maps++;
		c->lost_since = 0;
	} else if (err == -EOPNOTSUPP && c->got.why[0]) {
		snprintf(m->why, sizeof(m->why), "%s", c->got.why);
	}
	if (try_again(c, err)) {
		err = map_round(c);
		if (!err)
			return;
	}
	if (!err) {
		m->why[0] = '\0';
		renew_soon(b);
		if (next < m->end && ++c->rounds < MAPS_MAX && c->done) {
			c->off = next;
			err = map_round(c);
			if (!err)
				return;
		}
	}
	map_call_over(c, err);
}

/* Soon enough for a recall, and for the lease. */
static unsigned renew_period(const struct layout_facts *facts)
{
	unsigned ms = facts->recall_ms / 2;

	if (facts->lease_ms && facts->lease_ms / 3 < ms)
		ms = facts->lease_ms / 3;
	return ms < RENEW_MIN ? RENEW_MIN : ms;
}

static void know(struct map_call *c, int err)
{
	struct berth *b = c->m->f->b;

	b->know_layouts = true;
	b->no_layouts = err != 0 || c->facts.none;
	b->renew_ms = renew_period(&c->facts);
	snprintf(b->no_layouts_why, sizeof(b->no_layouts_why), "%s",
	         err ? "the server does not offer layouts" : c->facts.why);
}

static void facts_came(void *arg, int err, const struct berth_reply *r)
{
	struct map_call *c = arg;
	struct berth *b = c->m->f->b;

	(void)r;
	if (!err && c->facts.elsewhere && !c->by_lane) {
		b->own_lane = c->by_lane = true;
		err = layout_start_facts(b, &c->m->f->fh, &c->facts, facts_came, c);
		if (!err)
			return;
	}
	if (err == -ECONNREFUSED)
		snprintf(c->m->why, sizeof(c->m->why), "the server wants layouts on a connection of their own, and refuses it "
		                                       "(its log tells why; layout_domains in its [fabric] section?)");
	if (err == -EOPNOTSUPP || !err)
		know(c, err);
	else if (!try_again(c, err)) {
		map_call_over(c, err);
		return;
	}
	err = map_round(c);
	if (err)
		map_call_over(c, err);
}

static void none_to_ask_for(void *arg, int err, const struct berth_reply *r)
{
	(void)r;
	map_call_over(arg, err);
}

/* Ask for the rest, or first whether there is a point in asking. */
static int map_round(struct map_call *c)
{
	struct berth_map *m = c->m;
	struct berth *b = m->f->b;

	c->epoch = b->epoch;
	c->sent = now_ms();
	c->by_lane = b->own_lane;
	if (!b->know_layouts)
		return layout_start_facts(b, &m->f->fh, &c->facts, facts_came, c);
	if (b->no_layouts) {
		snprintf(m->why, sizeof(m->why), "%s", b->no_layouts_why);
		return -EOPNOTSUPP;
	}
	return layout_start_map(b, &m->f->fh, c->off, m->end - c->off, m->flags & BERTH_MAP_WRITE, &c->got, mapped,
	                        c);
}

static int start_mapping(struct berth_map *m, uint64_t off, berth_done *done, void *arg)
{
	struct map_call *c = calloc(1, sizeof(*c));
	int err;

	if (!c)
		return -ENOMEM;
	*c = (struct map_call){ .m = m, .off = off, .done = done, .arg = arg };
	err = map_round(c);
	if (err == -EOPNOTSUPP && done) { /* to be told by callback */
		struct op *op = op_hold(m->f->b, none_to_ask_for, c);

		err = op ? 0 : -ENOMEM;
		if (op)
			op_finish(op, -EOPNOTSUPP);
	}
	if (err) {
		free(c);
		return err;
	}
	m->mapping = true;
	m->calls++;
	return 0;
}

struct layout *map_layout_at(struct berth_map *m, uint64_t off)
{
	struct layout *l;

	forget_dead(m);
	LIST_FOREACH (l, &m->layouts, link)
		if (off >= l->x.off && off < l->x.end && usable(m, l))
			return l;
	if (!m->mapping && !m->unmapped && (m->f->b->up || layouts_up(m->f->b)) && now_ms() >= m->no_map_before &&
	    start_mapping(m, off, NULL, NULL)) /* L4 */
		m->no_map_before = now_ms() + AGAIN_MS;
	return NULL;
}

uint64_t map_border(struct berth_map *m, uint64_t off, uint64_t end)
{
	const struct layout *l = map_layout_at(m, off);

	return l && l->x.end < end && map_layout_at(m, l->x.end) ? l->x.end : end;
}

/* --- leases and news --- */

struct renewal {
	struct berth *b;
	uint64_t epoch, sent;
	struct layout_renewed got;
};

/* @fn may end the layout. */
static void news(struct berth *b, uint64_t epoch, const struct layoutnews *n)
{
	struct berth_map *m;

	LIST_FOREACH (m, &b->maps, link) {
		struct layout *l = map_layout(m, epoch, n->id);

		if (!l)
			continue;
		if (n->status != LAYOUT_OK) {
			layout_end(m, l);
		} else if (n->generation != l->generation) {
			l->generation = n->generation;
			extents_doubt(&l->x);
		}
		return;
	}
}

static void extend(struct berth *b, uint64_t epoch, uint64_t until)
{
	struct berth_map *m;
	struct layout *l;

	LIST_FOREACH (m, &b->maps, link)
		LIST_FOREACH (l, &m->layouts, link)
			if (l->epoch == epoch && !l->ending && now_ms() < l->expires && l->expires < until)
				l->expires = until;
}

static void renewed(void *arg, int err, const struct berth_reply *r)
{
	struct renewal *rn = arg;
	struct berth *b = rn->b;

	(void)r;
	b->renewing = false;
	if (!err && rn->epoch == b->epoch) {
		for (unsigned i = 0; i < rn->got.n; i++)
			news(b, rn->epoch, &rn->got.news[i]);
		extend(b, rn->epoch, lease_end(rn->sent, rn->got.lease_ms));
	}
	free(rn);
}

static bool any_layout(const struct berth *b)
{
	const struct berth_map *m;

	LIST_FOREACH (m, &b->maps, link)
		if (!LIST_EMPTY(&m->layouts))
			return true;
	return false;
}

void maps_renew(struct berth *b, uint64_t now)
{
	struct renewal *rn;

	b->next_renew = any_layout(b) ? now + b->renew_ms : 0;
	if (!b->next_renew || b->renewing)
		return;
	rn = malloc(sizeof(*rn));
	if (!rn)
		return;
	rn->b = b;
	rn->epoch = b->epoch;
	rn->sent = now;
	if (layout_start_renew(b, &rn->got, renewed, rn))
		free(rn);
	else
		b->renewing = true;
}

void maps_written(struct berth_file *f, uint64_t off, size_t len)
{
	struct berth_map *m;
	struct layout *l;

	LIST_FOREACH (m, &f->maps, in_file)
		LIST_FOREACH (l, &m->layouts, link) {
			if (extents_committed(&l->x, off, off + len, BLOCK))
				extents_doubt(&l->x);
			if (l->size < off + len)
				l->size = off + len;
		}
}

/* --- COMMIT --- */

struct commit_call {
	struct berth_map *m;
	uint64_t epoch, id, sent;
	struct layoutrange range[LAYOUT_MAX_RANGES];
	unsigned n;
	struct layout_committed got;
	struct put_list puts; /* of these, or */
	struct commit *job;   /* of the file's */
	unsigned call;
};

/* Beside the last range: one range the longer. False: it is full. */
static bool add_range(struct commit_call *c, uint64_t off, uint64_t len)
{
	struct layoutrange *last = c->n ? &c->range[c->n - 1] : NULL;

	if (last && off == last->offset + last->length) {
		last->length += len;
		return true;
	}
	if (c->n == LAYOUT_MAX_RANGES)
		return false;
	c->range[c->n++] = (struct layoutrange){ off, len };
	return true;
}

/* The answer says what is data now, what the lease is, and whether the layout stays. */
static void learn(struct commit_call *c)
{
	struct layout *l = map_layout(c->m, c->epoch, c->id);

	if (!l)
		return;
	for (unsigned i = 0; i < c->n; i++)
		maps_written(c->m->f, c->range[i].offset, (size_t)c->range[i].length);
	if (l->expires < lease_end(c->sent, c->got.lease_ms))
		l->expires = lease_end(c->sent, c->got.lease_ms);
	if (c->got.recalled) {
		layout_end(c->m, l);
	} else if (c->got.generation != l->generation) {
		l->generation = c->got.generation;
		extents_doubt(&l->x);
	}
}

static void commit_answered(void *arg, int err, const struct berth_reply *r)
{
	struct commit_call *c = arg;
	struct berth_map *m = c->m;
	bool ok = !err && c->epoch == m->f->b->epoch; /* L2 */
	struct layout *l;
	struct put *p;

	(void)r;
	if (ok)
		learn(c);
	else if ((l = map_layout(m, c->epoch, c->id)))
		layout_end(m, l);
	if (!c->job)
		m->commits_out--;
	while ((p = TAILQ_FIRST(&c->puts))) {
		TAILQ_REMOVE(&c->puts, p, link);
		put_committed(p, ok);
	}
	if (c->job)
		file_commit_answer(c->job, c->call, ok); /* may be all that berth_unmap() waited for but us */
	free(c);
	m->calls--;
	map_idle(m);
}

static struct commit_call *call_new(struct berth_map *m, uint64_t epoch, uint64_t id)
{
	struct commit_call *c = malloc(sizeof(*c));

	if (!c)
		return NULL;
	*c = (struct commit_call){ .m = m, .epoch = epoch, .id = id, .sent = now_ms() };
	TAILQ_INIT(&c->puts);
	return c;
}

static int call_send(struct commit_call *c)
{
	int err = layout_start_commit(c->m->f->b, c->id, c->range, c->n, &c->got, commit_answered, c);

	if (!err) {
		c->m->calls++;
		c->m->touched = false;
	}
	return err;
}

/* One COMMIT for the first that waits and those behind it of the same layout. False: it failed. */
static bool commit_some(struct berth_map *m)
{
	struct put *p = TAILQ_FIRST(&m->waiting), *next;
	struct commit_call *c = call_new(m, p->epoch, p->layout);

	for (; c && p; p = next) {
		next = TAILQ_NEXT(p, link);
		if (p->layout != c->id || p->epoch != c->epoch)
			continue;
		if (!add_range(c, p->off, p->len))
			break;
		TAILQ_REMOVE(&m->waiting, p, link);
		TAILQ_INSERT_TAIL(&c->puts, p, link);
	}
	if (c && c->epoch == m->f->b->epoch && !call_send(c)) {
		m->commits_out++;
		return true;
	}
	if (c) { /* the puts' own connection is over: they know another way */
		struct put_list lost = TAILQ_HEAD_INITIALIZER(lost);

		TAILQ_CONCAT(&lost, &c->puts, link);
		free(c);
		while ((p = TAILQ_FIRST(&lost))) {
			TAILQ_REMOVE(&lost, p, link);
			put_committed(p, false);
		}
		return true;
	}
	return false;
}

static void map_flush(struct berth_map *m)
{
	while (!TAILQ_EMPTY(&m->waiting) && m->commits_out < COMMITS_OUT)
		if (!commit_some(m))
			break;
}

void maps_flush(struct berth *b)
{
	struct berth_map *m;

	LIST_FOREACH (m, &b->maps, link)
		map_flush(m);
	pushes_flush(b);
}

void map_queue_commit(struct put *p)
{
	struct berth_map *m = p->m;

	p->queued = true;
	TAILQ_INSERT_TAIL(&m->waiting, p, link);
	if (!m->f->b->in_progress)
		map_flush(m);
}

/* The entries of @job that went through @l, as many as one call takes. */
static void gather(struct commit_call *c, struct commit *job)
{
	struct kept *k;

	TAILQ_FOREACH (k, &job->list, link) {
		if (k->layout != c->id || k->epoch != c->epoch || k->call)
			continue;
		if (!add_range(c, k->off, k->len))
			return;
		k->call = c->call;
	}
}

static bool send_job(struct berth_map *m, struct commit *job, uint64_t epoch, uint64_t id)
{
	struct commit_call *c = call_new(m, epoch, id);

	if (!c)
		return false;
	c->job = job;
	c->call = ++job->calls;
	gather(c, job);
	if (call_send(c)) {
		free(c);
		return false; /* the entries are written again */
	}
	return true;
}

unsigned maps_commit(struct berth_file *f, struct commit *job)
{
	struct berth_map *m;
	struct layout *l;
	struct kept *k;
	unsigned n = 0;

	TAILQ_FOREACH (k, &job->list, link)
		k->call = 0;
	TAILQ_FOREACH (k, &job->list, link) {
		if (!k->layout || k->call)
			continue;
		l = k->epoch == f->b->epoch ? map_layout(k->map, k->epoch, k->layout) : NULL;
		if (l && !l->ending)
			n += send_job(k->map, job, k->epoch, k->layout);
	}
	LIST_FOREACH (m, &f->maps, in_file) { /* for the time alone */
		l = m->touched && job->end == UINT64_MAX ? LIST_FIRST(&m->layouts) : NULL;
		if (l && usable(m, l))
			n += send_job(m, job, l->epoch, l->id);
	}
	return n;
}

bool maps_touched(const struct berth_file *f)
{
	const struct berth_map *m;

	LIST_FOREACH (m, &f->maps, in_file)
		if (m->touched)
			return true;
	return false;
}

/* --- the caller's side --- */

int berth_file_start_map(struct berth_file *f, uint64_t off, uint64_t len, int flags, berth_done *done, void *arg)
{
	struct berth_map *m;
	int err;

	if (!len || off > INT64_MAX || len > INT64_MAX - off || !(flags & (BERTH_MAP_READ | BERTH_MAP_WRITE)) ||
	    flags & ~(BERTH_MAP_READ | BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED))
		return -EINVAL;
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->f = f;
	m->off = off;
	m->end = off + len;
	m->flags = flags;
	TAILQ_INIT(&m->waiting);
	LIST_INSERT_HEAD(&f->b->maps, m, link);
	LIST_INSERT_HEAD(&f->maps, m, in_file);
	err = start_mapping(m, off, done, arg);
	if (err)
		map_free(m);
	return err;
}

/* The last steps of berth_unmap(), each when the one before is over. */
void map_idle(struct berth_map *m)
{
	struct layout *l, *next;
	berth_done *done = m->unmapped;
	struct berth_reply none = { 0 };
	void *arg = m->unmap_arg;
	int err = m->unmap_err;

	if (!done || m->calls || m->busy)
		return;
	for (l = LIST_FIRST(&m->layouts); l; l = next) {
		next = LIST_NEXT(l, link);
		if (!l->out)
			give_back(m, l);
	}
	if (m->calls)
		return;
	file_forget_map(m->f, m);
	map_free(m);
	done(arg, err, &none);
}

static void unmap_committed(void *arg, int err, const struct berth_reply *r)
{
	struct berth_map *m = arg;

	(void)r;
	m->unmap_err = err;
	m->calls--;
	map_idle(m);
}

int berth_map_start_unmap(struct berth_map *m, berth_done *done, void *arg)
{
	int err;

	if (m->busy || m->unmapped)
		return -EBUSY;
	err = file_start_commit(m->f, m->touched ? 0 : m->off, m->touched ? UINT64_MAX : m->end, unmap_committed, m);
	if (err)
		return err;
	m->calls++;
	m->unmapped = done;
	m->unmap_arg = arg;
	return 0;
}

int berth_map_start_persist(struct berth_map *m, uint64_t off, uint64_t len, berth_done *done, void *arg)
{
	if (off < m->off || off > m->end || len > m->end - off)
		return -EINVAL;
	return file_start_commit(m->f, off, len ? off + len : m->end, done, arg);
}

void berth_map_get_info(const struct berth_map *m, struct berth_map_info *out)
{
	const struct layout *l;

	*out = (struct berth_map_info){ .method = "" };
	LIST_FOREACH (l, &m->layouts, link) {
		uint64_t from = l->x.off > m->off ? l->x.off : m->off, to = l->x.end < m->end ? l->x.end : m->end;

		if (!usable(m, l) || from >= to)
			continue;
		out->layouts++;
		out->mapped_bytes += to - from;
		out->method = layout_method_name(l->method);
		out->needs_commit = l->method != LAYOUT_COMMIT_COMPLETE && l->method != LAYOUT_READ_AFTER_WRITE;
	}
	if (!out->layouts)
		snprintf(out->why, sizeof(out->why), "%s", m->why);
}

int berth_map(struct berth_file *f, uint64_t off, uint64_t len, int flags, struct berth_map **out)
{
	struct waiting w = { 0 };
	int err = f->b->in_progress ? -EDEADLK : 0;

	if (!err)
		err = sync_wait(f->b, &w, berth_file_start_map(f, off, len, flags, sync_done, &w));
	if (!err)
		*out = w.reply.map;
	return err;
}

int berth_unmap(struct berth_map *m)
{
	struct waiting w = { 0 };

	if (!m)
		return 0;
	if (m->f->b->in_progress)
		return -EDEADLK;
	return sync_wait(m->f->b, &w, berth_map_start_unmap(m, sync_done, &w));
}

int berth_persist(struct berth_map *m, uint64_t off, uint64_t len)
{
	struct waiting w = { 0 };

	if (m->f->b->in_progress)
		return -EDEADLK;
	return sync_wait(m->f->b, &w, berth_map_start_persist(m, off, len, sync_done, &w));
}
