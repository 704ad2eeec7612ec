/* SPDX-License-Identifier: BSD-3-Clause */
/* model.c - a small file system beside the real one, and steps that both take */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/lib/model.h"

#define SAY(w, ...) snprintf((w)->why, sizeof((w)->why), __VA_ARGS__)

static const uint8_t zeros[PM_BLOCK];

static void *get(struct world *w, size_t n)
{
	void *p = calloc(1, n);

	if (w->ngarbage == w->capgarbage) {
		w->capgarbage = w->capgarbage ? 2 * w->capgarbage : 256;
		w->garbage = realloc(w->garbage, w->capgarbage * sizeof(void *));
	}
	if (!p || !w->garbage)
		abort();
	return w->garbage[w->ngarbage++] = p;
}

/* --- names in the model ---------------------------------------------------------------------- */

static int find(const struct state *s, int dir, const char *name)
{
	for (int i = 0; i < s->nent; i++)
		if (s->ent[i].dir == dir && !strcmp(s->ent[i].name, name))
			return i;
	return -1;
}

/* The object at @path, -1: none. @name: the last part, @dir: where it stands. */
static int walk(const struct state *s, const char *path, int *dir, const char **name)
{
	int at = 0;

	for (;;) {
		const char *slash = strchr(path, '/');
		char part[PM_NAME_MAX + 1];
		int e;

		if (!slash) {
			*dir = at;
			*name = path;
			e = at < 0 ? -1 : find(s, at, path);
			return e < 0 ? -1 : s->ent[e].obj;
		}
		memcpy(part, path, (size_t)(slash - path));
		part[slash - path] = '\0';
		e = at < 0 ? -1 : find(s, at, part);
		at = e < 0 ? -1 : s->ent[e].obj;
		path = slash + 1;
	}
}

static int object_at(const struct state *s, const char *path)
{
	const char *name;
	int dir;

	return walk(s, path, &dir, &name);
}

static void enter(struct state *s, int dir, const char *name, int obj)
{
	if (s->nent == W_ENT)
		abort();
	s->ent[s->nent++] = (struct went){ dir, obj, name };
}

static int add_object(struct world *w, struct state *s, enum pm_type type)
{
	if (s->nobj == W_OBJ)
		abort();
	s->obj[s->nobj] = (struct wobj){ .live = true, .c = get(w, sizeof(struct content)) };
	s->obj[s->nobj].attr.type = type;
	s->obj[s->nobj].attr.nlink = type == PM_DIR ? 2 : 1;
	return s->nobj++;
}

static void leave(struct state *s, int ent)
{
	int obj = s->ent[ent].obj, dir = s->ent[ent].dir;
	struct wobj *o = &s->obj[obj];

	s->ent[ent] = s->ent[--s->nent];
	if (o->attr.type == PM_DIR) {
		o->live = false;
		s->obj[dir].attr.nlink--;
	} else if (!--o->attr.nlink) {
		o->live = false;
	}
}

static bool below(const struct state *s, int dir, int of)
{
	while (dir != of && dir) {
		int i;

		for (i = 0; i < s->nent && s->ent[i].obj != dir; i++)
			;
		if (i == s->nent)
			return false;
		dir = s->ent[i].dir;
	}
	return dir == of;
}

static bool empty(const struct state *s, int dir)
{
	for (int i = 0; i < s->nent; i++)
		if (s->ent[i].dir == dir)
			return false;
	return true;
}

/* --- bytes in the model ---------------------------------------------------------------------- */

static uint8_t pattern(unsigned step, uint64_t at)
{
	return (uint8_t)(1 + (step * 61 + (at >> 3) * 7 + at) % 229); /* never 0, never stale */
}

static struct content *change(struct world *w, struct wobj *o)
{
	struct content *c = get(w, sizeof(*c));

	*c = *o->c;
	o->c = c;
	return c;
}

static uint8_t *block_copy(struct world *w, uint8_t **at, const uint8_t *or_else)
{
	uint8_t *p = get(w, PM_BLOCK);

	memcpy(p, *at ? *at : or_else ? or_else : zeros, PM_BLOCK);
	return *at = p;
}

static void put_bytes(struct world *w, struct content *c, uint64_t from, uint64_t to, unsigned step)
{
	for (uint64_t b = from / PM_BLOCK; b * PM_BLOCK < to; b++) {
		uint8_t *p = block_copy(w, &c->data[b], NULL);
		uint8_t *a = c->alt[b] ? block_copy(w, &c->alt[b], NULL) : NULL;

		for (uint64_t i = 0; i < PM_BLOCK; i++) {
			uint64_t at = b * PM_BLOCK + i;

			if (at < from || at >= to)
				continue;
			p[i] = step ? pattern(step, at) : 0;
			if (a)
				a[i] = p[i];
		}
		c->state[b] = PM_EXT_VALID;
	}
}

/* Bytes of [from, to) in written blocks may be those of the placed payload from now on. */
static void put_alt(struct world *w, struct content *c, uint64_t from, uint64_t to, unsigned step)
{
	for (uint64_t b = from / PM_BLOCK; b * PM_BLOCK < to; b++) {
		uint8_t *a;

		if (c->state[b] != PM_EXT_VALID)
			continue;
		a = block_copy(w, &c->alt[b], c->data[b]);
		for (uint64_t i = 0; i < PM_BLOCK; i++)
			if (b * PM_BLOCK + i >= from && b * PM_BLOCK + i < to)
				a[i] = pattern(step, b * PM_BLOCK + i);
	}
}

static void cut_bytes(struct world *w, struct wobj *o, uint64_t size)
{
	struct content *c = change(w, o);
	uint64_t b = size / PM_BLOCK;

	if (size % PM_BLOCK && b < W_BLK) {
		if (c->data[b])
			memset(block_copy(w, &c->data[b], NULL) + size % PM_BLOCK, 0,
			       PM_BLOCK - size % PM_BLOCK);
		if (c->alt[b])
			memset(block_copy(w, &c->alt[b], NULL) + size % PM_BLOCK, 0,
			       PM_BLOCK - size % PM_BLOCK);
		b++;
	}
	for (; b < W_BLK; b++) {
		c->state[b] = PM_EXT_HOLE;
		c->data[b] = c->alt[b] = NULL;
	}
}

static uint64_t min_of(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* What is placed, not answered, and lies in a written block. */
static void all_alts(struct world *w, struct state *s)
{
	s->pinned = 0;
	for (unsigned i = 0; i < W_PINS; i++) {
		const struct wpin *p = &w->pin[i];

		if (p->used && p->write)
			s->pinned += (unsigned)((p->off + p->len - 1) / PM_BLOCK - p->off / PM_BLOCK + 1);
	}
	for (unsigned i = 0; i < W_PINS + w->nsoft; i++) {
		const struct wpin *p = i < W_PINS ? &w->pin[i] : &w->soft[i - W_PINS];
		struct wobj *o = &s->obj[p->obj];

		if ((i < W_PINS && !p->placed) || !o->live || p->cut <= p->off)
			continue;
		put_alt(w, change(w, o), p->off, min_of(p->off + p->len, p->cut), p->step);
	}
}

static void commit_bytes(struct world *w, struct wobj *o, const struct wpin *p)
{
	uint64_t end = min_of(p->off + p->len, p->cut);

	if (!o->live || end <= p->off)
		return;
	put_bytes(w, change(w, o), p->off, end, p->step);
	if (o->attr.size < end)
		o->attr.size = end;
}

/* --- steps on the model ---------------------------------------------------------------------- */

static int model_rename(struct state *s, const struct op *op)
{
	const char *an, *bn;
	int ad, bd, a = walk(s, op->a, &ad, &an), b = walk(s, op->b, &bd, &bn);

	if (a < 0 || bd < 0)
		return -ENOENT;
	if (a == b)
		return 0;
	if (s->obj[a].attr.type == PM_DIR && below(s, bd, a))
		return -EINVAL;
	if (b >= 0) {
		if ((s->obj[a].attr.type == PM_DIR) != (s->obj[b].attr.type == PM_DIR))
			return -EEXIST;
		if (s->obj[b].attr.type == PM_DIR && !empty(s, b))
			return -ENOTEMPTY;
		leave(s, find(s, bd, bn));
	}
	s->ent[find(s, ad, an)] = (struct went){ bd, a, bn };
	if (s->obj[a].attr.type == PM_DIR) {
		s->obj[ad].attr.nlink--;
		s->obj[bd].attr.nlink++;
	}
	return 0;
}

static int model_new(struct world *w, struct state *s, const struct op *op, enum pm_type type)
{
	const char *name;
	int dir, obj = walk(s, op->a, &dir, &name);

	if (dir < 0)
		return -ENOENT;
	if (obj >= 0)
		return -EEXIST;
	obj = add_object(w, s, type);
	enter(s, dir, name, obj);
	if (type == PM_DIR)
		s->obj[dir].attr.nlink++;
	if (type == PM_LNK) {
		size_t n = op->kind == OP_LONGLINK ? 200 : 20;

		memset(s->obj[obj].link, 'a' + (int)(w->n % 26), n);
		s->obj[obj].attr.size = n;
	}
	return 0;
}

static int model_names(struct world *w, struct state *s, const struct op *op)
{
	const char *an, *bn;
	int ad, bd, a = walk(s, op->a, &ad, &an), b;

	switch (op->kind) {
	case OP_CREATE:
		return model_new(w, s, op, PM_REG);
	case OP_MKDIR:
		return model_new(w, s, op, PM_DIR);
	case OP_SYMLINK:
	case OP_LONGLINK:
		return model_new(w, s, op, PM_LNK);
	case OP_MKNOD:
		return model_new(w, s, op, PM_FIFO);
	case OP_LINK:
		b = walk(s, op->b, &bd, &bn);
		if (a < 0 || bd < 0)
			return -ENOENT;
		if (b >= 0 || s->obj[a].attr.type == PM_DIR)
			return -EEXIST;
		s->obj[a].attr.nlink++;
		enter(s, bd, bn, a);
		return 0;
	case OP_REMOVE:
		if (a < 0 || s->obj[a].attr.type == PM_DIR)
			return -ENOENT;
		leave(s, find(s, ad, an));
		return 0;
	case OP_RMDIR:
		if (a < 0 || s->obj[a].attr.type != PM_DIR || !empty(s, a))
			return -ENOTEMPTY;
		leave(s, find(s, ad, an));
		return 0;
	default:
		return model_rename(s, op);
	}
}

static void model_size(struct world *w, struct state *s, int obj, uint64_t size)
{
	struct wobj *o = &s->obj[obj];

	if (size < o->attr.size)
		cut_bytes(w, o, size);
	for (unsigned i = 0; size < o->attr.size && i < W_PINS; i++)
		if (w->pin[i].used && w->pin[i].write && w->pin[i].obj == obj)
			w->pin[i].cut = min_of(w->pin[i].cut, size);
	o->attr.size = size;
}

static void model_sync(struct world *w, struct state *s, int obj)
{
	unsigned n = 0;

	for (unsigned i = 0; i < w->nsoft; i++) {
		if (w->soft[i].obj == obj)
			commit_bytes(w, &s->obj[obj], &w->soft[i]);
		else
			w->soft[n++] = w->soft[i];
	}
	w->nsoft = n;
}

/* Does an OP_LCOMMIT mean this one? */
static bool leased(const struct op *op, unsigned i, const struct wpin *p)
{
	return p->used && p->leased && (op->len || i == op->pin);
}

static int model_files(struct world *w, struct state *s, const struct op *op)
{
	int obj = op->a ? object_at(s, op->a) : -1;
	struct wobj *o = obj < 0 ? NULL : &s->obj[obj];
	struct wpin *p = &w->pin[op->pin];
	struct content *c;

	if (op->a && (!o || (o->attr.type != PM_REG && op->kind != OP_CHMOD)))
		return -ENOENT;
	switch (op->kind) {
	case OP_CHMOD:
		o->attr.mode = (uint32_t)op->off;
		return 0;
	case OP_SIZE:
		model_size(w, s, obj, op->off);
		return 0;
	case OP_ALLOC:
		c = change(w, o);
		for (uint64_t b = op->off / PM_BLOCK; b * PM_BLOCK < op->off + op->len; b++)
			if (c->state[b] == PM_EXT_HOLE)
				c->state[b] = PM_EXT_UNWRITTEN;
		return 0;
	case OP_COMMIT:
		commit_bytes(w, &s->obj[p->obj], p);
		p->placed = false;
		return 0;
	case OP_GIVEUP:
		p->placed = false; /* what lies in written blocks stays in doubt */
		return 0;
	case OP_SYNC:
		model_sync(w, s, obj);
		return 0;
	case OP_LCOMMIT:
		for (unsigned i = 0; i < W_PINS; i++) {
			p = &w->pin[i];
			if (!leased(op, i, p))
				continue;
			if (p->cut < p->off + p->len)
				return -ECANCELED;
			commit_bytes(w, &s->obj[p->obj], p);
			p->placed = p->used = false;
		}
		return 0;
	case OP_LDONE:
		for (unsigned i = 0; i < W_PINS; i++)
			if (w->pin[i].leased)
				w->pin[i].placed = w->pin[i].used = false;
		return 0;
	default:
		return 0;
	}
}

/* --- steps on the store ---------------------------------------------------------------------- */

static int named(struct world *w, const struct state *s, const struct op *op,
                 const struct pm_once *o, struct pm_change *ch)
{
	const char *an, *bn = NULL;
	int ad, bd = -1, a = walk(s, op->a, &ad, &an);
	struct pm_new nw = { .type = PM_REG, .mode = 0640, .uid = 3 };
	char target[300];
	struct pm_id in, to = { 0, 0 };

	if (op->b)
		walk(s, op->b, &bd, &bn);
	if (ad < 0 || (op->b && bd < 0))
		return -ENOENT;
	in = s->obj[ad].attr.id;
	if (op->b)
		to = s->obj[bd].attr.id;
	switch (op->kind) {
	case OP_REMOVE:
		return pm_remove_once(w->st, in, an, strlen(an), o, ch);
	case OP_RMDIR:
		return pm_rmdir_once(w->st, in, an, strlen(an), o, ch);
	case OP_RENAME:
		return pm_rename_once(w->st, in, an, strlen(an), to, bn, strlen(bn), o, ch);
	case OP_LINK:
		if (a < 0)
			return -ENOENT;
		return pm_link_once(w->st, s->obj[a].attr.id, to, bn, strlen(bn), o, ch);
	case OP_MKDIR:
		nw.type = PM_DIR;
		break;
	case OP_MKNOD:
		nw.type = PM_FIFO;
		break;
	case OP_SYMLINK:
	case OP_LONGLINK:
		nw.type = PM_LNK;
		nw.target_len = op->kind == OP_LONGLINK ? 200 : 20;
		memset(target, 'a' + (int)(w->n % 26), nw.target_len);
		nw.target = target;
		break;
	default:
		break;
	}
	return pm_create_once(w->st, in, an, strlen(an), &nw, o, ch);
}

static int place(struct world *w, struct wpin *p)
{
	uint64_t at = p->off;
	uint8_t buf[PM_BLOCK];

	for (unsigned i = 0; i < p->m.nseg; i++) {
		uint8_t *to = p->m.seg[i].iov_base;

		for (size_t n = p->m.seg[i].iov_len; n;) {
			size_t part = n < sizeof(buf) ? n : sizeof(buf);

			for (size_t k = 0; k < part; k++)
				buf[k] = pattern(p->step, at + k);
			medium_place(w->d, to, buf, part);
			to += part;
			at += part;
			n -= part;
		}
	}
	return 0;
}

static int map_step(struct world *w, struct pm_id id, int obj, const struct op *op, struct wpin *p)
{
	struct test_waiter tw = { .sync = NULL };
	int err;

	*p = (struct wpin){ .write = true,
		            .obj = obj,
		            .step = w->salt + w->n,
		            .off = op->off,
		            .len = op->len,
		            .cut = UINT64_MAX };
	err = pm_map_write(w->st, id, op->off, (uint32_t)op->len, &p->m, &tw.w);
	if (err)
		return err;
	p->used = p->placed = true;
	return place(w, p);
}

static int commit_step(struct wpin *p, enum pm_stable how)
{
	struct pm_committed out;
	struct test_waiter tw;
	int err;

	waiter_init(&tw);
	err = waiter_result(&tw, pm_commit(&p->m, p->len, how, how == PM_UNSTABLE, &out, &tw.w));
	pm_unpin(&p->m);
	p->used = false;
	return err;
}

static int lease_step(struct world *w, struct pm_id id, int obj, const struct op *op)
{
	struct pm_lease_opts o = { .owner = w, .write = true, .max_extents = 64 };
	struct test_waiter tw = { .sync = NULL };
	int err = pm_lease_open(w->st, id, op->off, op->len, op->len, &o, &w->lease, &tw.w);

	while (!err && (err = pm_lease_zero(w->lease, 2)) == -EAGAIN)
		err = 0;
	w->lease_obj = obj;
	return err;
}

/* RMA: bytes go to the places that the lease told when it was opened. */
static int put_step(struct world *w, const struct op *op, struct wpin *p)
{
	const struct pm_extent *e;
	struct pm_region pool, zero;
	uint64_t end = op->off + op->len;
	unsigned n;

	*p = (struct wpin){ .used = true, .write = true, .placed = true, .leased = true,
		            .obj = w->lease_obj, .step = w->salt + w->n, .off = op->off,
		            .len = op->len, .cut = UINT64_MAX };
	pm_get_regions(w->st, &pool, &zero);
	e = pm_lease_extents(w->lease, &n);
	for (unsigned i = 0; i < n; i++) {
		uint64_t a = e[i].off > op->off ? e[i].off : op->off;
		uint64_t b = e[i].off + e[i].len < end ? e[i].off + e[i].len : end;

		for (uint8_t buf[PM_BLOCK]; a < b;) {
			size_t part = b - a < sizeof(buf) ? (size_t)(b - a) : sizeof(buf);

			for (size_t k = 0; k < part; k++)
				buf[k] = pattern(p->step, a + k);
			medium_place(w->d, (uint8_t *)pool.base + e[i].at + (a - e[i].off), buf, part);
			a += part;
		}
	}
	return 0;
}

static int lcommit_step(struct world *w, const struct op *op)
{
	struct pm_range r[W_PINS];
	struct pm_committed out;
	struct test_waiter tw;
	unsigned n = 0;

	for (unsigned i = 0; i < W_PINS; i++)
		if (leased(op, i, &w->pin[i]))
			r[n++] = (struct pm_range){ w->pin[i].off, w->pin[i].len };
	waiter_init(&tw);
	return waiter_result(&tw, pm_lease_commit(w->lease, r, n, false, 0, NULL, &out, &tw.w));
}

static int on_file(struct world *w, const struct state *s, const struct op *op,
                   const struct pm_once *o, struct pm_change *ch)
{
	int obj = op->a ? object_at(s, op->a) : -1;
	struct pm_id id = obj < 0 ? (struct pm_id){ 0, 0 } : s->obj[obj].attr.id;
	struct pm_setattr sa = { .set = op->kind == OP_SIZE ? PM_SET_SIZE : PM_SET_MODE,
		                 .mode = (uint32_t)op->off,
		                 .size = op->off };
	struct wpin *p = &w->pin[op->pin];
	struct pm_committed out;
	struct test_waiter tw;

	if (op->a && obj < 0)
		return -ENOENT;
	switch (op->kind) {
	case OP_CHMOD:
	case OP_SIZE:
		return pm_setattr_once(w->st, id, &sa, o, ch);
	case OP_ALLOC:
		return pm_allocate(w->st, id, op->off, op->len, ch);
	case OP_MAP:
		return map_step(w, id, obj, op, p);
	case OP_COMMIT:
		return commit_step(p, PM_FILE_SYNC);
	case OP_GIVEUP:
		pm_unpin(&p->m);
		p->used = false;
		return 0;
	case OP_READPIN:
		return pm_map_read(w->st, id, op->off, (uint32_t)op->len, &p->m);
	case OP_READOFF:
		pm_unpin(&p->m);
		return 0;
	case OP_LEASE:
		return lease_step(w, id, obj, op);
	case OP_LPUT:
		return put_step(w, op, p);
	case OP_LCOMMIT:
		return lcommit_step(w, op);
	case OP_LDONE:
		pm_lease_close(w->lease);
		w->lease = NULL;
		return 0;
	case OP_SYNC:
		waiter_init(&tw);
		return waiter_result(&tw, pm_sync_file(w->st, id, &out, &tw.w));
	default:
		return -EINVAL;
	}
}

/* --- a step ---------------------------------------------------------------------------------- */

static struct state *next_state(struct world *w)
{
	struct state *s = get(w, sizeof(*s));

	*s = *w->state[w->n];
	if (w->n + 1 == W_STEPS)
		abort();
	w->state[++w->n] = s;
	return s;
}

static bool soft(const struct world *w, int obj)
{
	for (unsigned i = 0; i < w->nsoft; i++)
		if (w->soft[i].obj == obj)
			return true;
	return false;
}

/* Objects made in this step get their identity by the name that leads to them. */
static bool learn_attrs(struct world *w, struct state *s)
{
	for (int i = 0; i < s->nobj; i++) {
		struct wobj *o = &s->obj[i];
		struct pm_attr is;
		int err = 0;

		if (!o->live || soft(w, i))
			continue;
		if (!o->attr.id.ino) {
			int e;

			for (e = 0; s->ent[e].obj != i; e++)
				;
			err = pm_lookup(w->st, s->obj[s->ent[e].dir].attr.id, s->ent[e].name,
			                strlen(s->ent[e].name), &is);
			o->attr.mode = 0640;
		} else {
			err = pm_getattr(w->st, o->attr.id, &is);
		}
		if (err || is.type != o->attr.type || is.nlink != o->attr.nlink ||
		    is.mode != o->attr.mode || (is.type != PM_DIR && is.size != o->attr.size)) {
			SAY(w,
			    "step %u: object %d: %s: type %d nlink %u size %llu, wanted %d %u %llu",
			    w->n, i, err ? strerror(-err) : "attributes", is.type, is.nlink,
			    (unsigned long long)is.size, o->attr.type, o->attr.nlink,
			    (unsigned long long)o->attr.size);
			return false;
		}
		o->attr = is;
	}
	pm_write_verf(w->st, s->verf);
	return true;
}

static bool settle(struct world *w, const struct op *op, pm_lsn lsn)
{
	if (lsn)
		w->last = lsn;
	if (op->nowait)
		return true;
	if (w->last && pool_wait(w->st, w->last)) {
		SAY(w, "step %u is not durable", w->n);
		return false;
	}
	w->last = 0;
	w->answered = w->n;
	medium_window(w->d, w->answered, w->n);
	return true;
}

static bool is_name(enum op_kind k)
{
	return k >= OP_CREATE && k <= OP_RENAME;
}

static bool is_change(enum op_kind k)
{
	return is_name(k) || k == OP_CHMOD || k == OP_SIZE;
}

static bool disagree(struct world *w, const struct op *op, int err, int want)
{
	SAY(w, "step %u (kind %d, %.60s): %d (%s), the model says %d", w->n, (int)op->kind,
	    op->a ? op->a : "-", err, strerror(-err), want);
	return false;
}

static bool reopen(struct world *w)
{
	struct pm_error why;

	if (pm_close(w->st)) {
		SAY(w, "close failed");
		w->st = NULL;
		return false;
	}
	w->st = medium_open(w->d, &why);
	if (!w->st)
		SAY(w, "reopen: %.400s", why.text);
	return w->st != NULL;
}

static bool one_step(struct world *w, const struct op *op)
{
	const struct state *old = w->state[w->n];
	struct state *s = next_state(w);
	struct pm_once once = state_key(s->keys);
	struct pm_change ch = { .lsn = 0 };
	int err = 0, want = 0;
	bool ok;

	medium_window(w->d, w->answered, w->n);
	if (op->kind == OP_CHECKPOINT) {
		pthread_mutex_lock(&w->st->lock);
		journal_checkpoint(w->st);
		pthread_mutex_unlock(&w->st->lock);
	} else if (op->kind == OP_REOPEN) {
		if (!reopen(w))
			return false;
		s->doubt = false;
	} else if (is_name(op->kind)) {
		want = model_names(w, s, op);
		err = named(w, old, op, &once, &ch);
	} else {
		err = on_file(w, old, op, &once, &ch);
		want = err == -ENOSPC ? 0 : model_files(w, s, op);
	}
	if (is_change(op->kind)) /* what does nothing has no lsn, and leaves no record */
		s->made[s->keys++] = !err && ch.lsn;
	w->err = err;
	w->failed = err != 0;
	if (err == -ENOSPC) {
		*s = *old;
		w->refused++;
		if (op->kind == OP_COMMIT)
			w->pin[op->pin].placed = false;
	}
	if (err != -ENOSPC && !err != !want)
		return disagree(w, op, err, want);
	all_alts(w, s);
	ok = learn_attrs(w, s) && settle(w, op, err ? 0 : ch.lsn);
	return ok;
}

struct side {
	struct world *w;
	const struct state *old;
	const struct op *op;
	struct pm_once once;
	struct pm_change ch;
	int err;
};

/* Who comes into the store for the first time waits for the other to come out. */
static void side_come(void *arg)
{
	struct side *s = arg;
	struct pm_attr a;

	pm_getattr(s->w->st, (struct pm_id){ PM_ROOT_INO, 1 }, &a);
}

static void side_main(void *arg)
{
	struct side *s = arg;

	s->err = is_name(s->op->kind) ? named(s->w, s->old, s->op, &s->once, &s->ch)
	                              : on_file(s->w, s->old, s->op, &s->once, &s->ch);
}

static struct wobj *known(struct state *s, struct pm_id id)
{
	for (int i = 0; i < s->nobj; i++)
		if (s->obj[i].live && s->obj[i].attr.id.ino == id.ino && s->obj[i].attr.id.gen == id.gen)
			return &s->obj[i];
	return NULL;
}

/* What the first looked like alone: as it was told. */
static void learn_told(struct state *s, const struct op *op, const struct pm_change *ch)
{
	const struct pm_attr *told[] = { &ch->dir, &ch->dir2, &ch->obj };

	if (is_name(op->kind) && s->nobj && !s->obj[s->nobj - 1].attr.id.ino) /* it made this one */
		s->obj[s->nobj - 1].attr.id = ch->obj.id;
	for (unsigned i = 0; i < 3; i++) {
		struct wobj *o = told[i]->id.ino ? known(s, told[i]->id) : NULL;

		if (o)
			o->attr = *told[i];
	}
}

static bool side_model(struct world *w, struct state *s, unsigned nth, const struct side *side)
{
	int want = is_name(side->op->kind) ? model_names(w, s, side->op) : model_files(w, s, side->op);

	if (is_change(side->op->kind))
		s->made[nth] = !side->err;
	return !side->err == !want ? true : disagree(w, side->op, side->err, want);
}

static const struct op both_commit[2] = { { .kind = OP_COMMIT, .pin = 0 }, { .kind = OP_COMMIT, .pin = 1 } };

/* The file that a commit or a sync makes durable; -1: another kind of step. */
static int made_durable(const struct world *w, const struct state *s, const struct op *op)
{
	switch (op->kind) {
	case OP_COMMIT:
		return w->pin[op->pin].obj;
	case OP_SYNC:
		return object_at(s, op->a);
	case OP_LCOMMIT:
		return w->lease_obj;
	default:
		return -1;
	}
}

/* Two states more: one of them done, then both. */
static bool both_step(struct world *w, const struct op *op)
{
	const struct op *two = op->two ? op->two : both_commit;
	const struct state *old = w->state[w->n];
	struct pair pair = { .d = w->d, .seed = op->off, .answered = w->n };
	struct state *one = next_state(w), *last = next_state(w);
	struct side side[2];
	unsigned k;
	int obj;

	for (k = 0; k < 2; k++) {
		side[k] = (struct side){ .w = w, .old = old, .op = &two[k], .once = state_key(old->keys + k) };
		pair.side[k] = (struct pair_side){ .come = side_come, .run = side_main, .arg = &side[k] };
	}
	k = pair_run(&pair);
	w->switches += pair.switches;
	w->blocks += pair.blocks;
	if (pair.why) {
		SAY(w, "step %u: %s", w->n, pair.why);
		return false;
	}
	if (is_change(two[0].kind) || is_change(two[1].kind))
		one->keys += 2;
	if (!side_model(w, one, old->keys + k, &side[k]))
		return false;
	all_alts(w, one);
	*last = *one;
	if (!side_model(w, last, old->keys + !k, &side[!k]))
		return false;
	all_alts(w, last);
	if (!learn_attrs(w, last))
		return false;
	obj = made_durable(w, one, &two[k]);
	if (obj >= 0)
		one->obj[obj].attr = last->obj[obj].attr;
	else if (!side[k].err)
		learn_told(one, &two[k], &side[k].ch);
	memcpy(one->verf, last->verf, sizeof(one->verf));
	return settle(w, op, 0);
}

/* --- a batch --------------------------------------------------------------------------------- */

struct batched {
	struct pm_wait w; /* first */
	struct batch_run *run;
	struct wpin *p;
	struct pm_committed out;
	int err;
};
struct batch_run {
	struct world *w;
	unsigned n, from, done; /* commits, the state in front, those answered */
	struct batched b[W_PINS], *order[W_PINS];
};

/* What has been answered is there from now on. */
static void batched_done(struct pm_wait *pw, int err)
{
	struct batched *b = (struct batched *)pw;
	struct batch_run *r = b->run;

	b->err = err;
	r->order[r->done++] = b;
	medium_window(r->w->d, r->from + r->done, r->from + r->n);
	pm_unpin(&b->p->m);
}

static bool run_batch(struct batch_run *r, const struct op *op)
{
	struct pm_batch *batch;
	struct pm_stats was, is;

	if (pm_batch_make(r->w->st, &batch))
		abort();
	pm_get_stats(r->w->st, &was);
	for (unsigned i = 0; i < r->n; i++) {
		struct batched *b = &r->b[i];
		int err;

		*b = (struct batched){ .w.done = batched_done, .run = r, .p = &r->w->pin[op->pin + i] };
		err = pm_batch_commit(batch, &b->p->m, b->p->len, PM_FILE_SYNC, false, &b->out, &b->w);
		if (err != -EINPROGRESS)
			batched_done(&b->w, err);
	}
	pm_batch_end(batch);
	pm_batch_free(batch);
	pm_get_stats(r->w->st, &is);
	if (r->n > is.transactions - was.transactions)
		r->w->shared += r->n - (unsigned)(is.transactions - was.transactions);
	return r->done == r->n;
}

/* As @b was answered. */
static bool batched_model(struct world *w, struct state *s, const struct batched *b)
{
	struct wobj *o = &s->obj[b->p->obj];

	commit_bytes(w, o, b->p);
	b->p->placed = b->p->used = false;
	all_alts(w, s);
	if (!o->live)
		return !b->err;
	if (b->err || b->out.attr.size != o->attr.size) {
		SAY(w, "step %u: a commit of a batch: %s, size %llu, the model says %llu", w->n, strerror(-b->err),
		    (unsigned long long)b->out.attr.size, (unsigned long long)o->attr.size);
		return false;
	}
	o->attr = b->out.attr;
	return true;
}

/* A state more for each, in the order of the answers. */
static bool batch_step(struct world *w, const struct op *op)
{
	struct batch_run r = { .w = w, .n = (unsigned)op->len, .from = w->n };

	for (unsigned i = 0; i < r.n; i++)
		next_state(w);
	medium_window(w->d, w->answered, w->n);
	if (!run_batch(&r, op)) {
		SAY(w, "step %u: only %u commits of a batch were answered", w->n, r.done);
		return false;
	}
	for (unsigned i = 0; i < r.n; i++) {
		struct state *s = w->state[r.from + 1 + i];

		*s = *w->state[r.from + i];
		if (!batched_model(w, s, r.order[i]))
			return false;
	}
	return learn_attrs(w, w->state[w->n]) && settle(w, op, 0);
}

/* Unstable: readable at once; on the media any mixture until a sync. */
static bool unstable_step(struct world *w, const struct op *op)
{
	struct op part = *op;
	struct wpin *p = &w->pin[op->pin];
	struct state *s;

	part.kind = OP_MAP;
	if (!one_step(w, &part))
		return false;
	s = next_state(w);
	s->doubt = true;
	medium_window(w->d, w->answered, w->n);
	if (commit_step(p, PM_UNSTABLE)) {
		SAY(w, "step %u: unstable commit failed", w->n);
		return false;
	}
	p->placed = false;
	w->soft[w->nsoft++] = *p;
	all_alts(w, s);
	return learn_attrs(w, s) && settle(w, op, 0);
}

bool world_do(struct world *w, const struct op *op)
{
	struct op part = *op;

	if (op->kind == OP_UNSTABLE)
		return unstable_step(w, op);
	if (op->kind == OP_BOTH)
		return both_step(w, op);
	if (op->kind == OP_BATCH)
		return batch_step(w, op);
	if (op->kind != OP_WRITE)
		return one_step(w, op);
	part.kind = OP_MAP;
	if (!one_step(w, &part))
		return false;
	if (w->failed)
		return true;
	part.kind = OP_COMMIT;
	part.a = NULL;
	return one_step(w, &part);
}

bool world_run(struct world *w, const struct op *ops)
{
	for (; ops->kind != OP_END; ops++)
		if (!world_do(w, ops))
			return false;
	return true;
}

static void adopt(struct world *w, struct state *s, const struct world *from)
{
	*s = *from->state[from->n];
	for (int i = 0; i < s->nobj; i++) {
		struct content *c;

		if (!s->obj[i].c)
			continue;
		c = get(w, sizeof(*c));
		*c = *s->obj[i].c; /* the blocks stay @from's */
		s->obj[i].c = c;
	}
}

struct world *world_new(const uint8_t *image, size_t len, enum pm_method method, struct world *from)
{
	struct world *w = calloc(1, sizeof(*w));
	struct pm_error why;
	struct state *s;

	w->d = medium_new(image, len, method, true);
	s = w->state[0] = get(w, sizeof(*s));
	if (from) {
		adopt(w, s, from);
		w->salt = from->salt + from->n; /* no payload looks like an earlier one */
	} else {
		s->nobj = 1;
		s->obj[0] = (struct wobj){ .live = true, .c = get(w, sizeof(struct content)) };
	}
	w->st = medium_open(w->d, &why);
	if (!w->st) {
		fprintf(stderr, "world: %s\n", why.text);
		abort();
	}
	if (!from)
		pm_getattr(w->st, (struct pm_id){ PM_ROOT_INO, 1 }, &s->obj[0].attr);
	pm_write_verf(w->st, s->verf);
	return w;
}

bool world_close(struct world *w)
{
	int err = pm_close(w->st);

	w->st = NULL;
	if (err)
		SAY(w, "close: %s", strerror(-err));
	return !err;
}

void world_kill(struct world *w)
{
	if (w->st)
		store_drop(w->st);
	w->st = NULL;
}

void world_free(struct world *w)
{
	world_kill(w);
	medium_free(w->d);
	for (size_t i = 0; i < w->ngarbage; i++)
		free(w->garbage[i]);
	free(w->garbage);
	free(w);
}
