/* SPDX-License-Identifier: BSD-3-Clause */
/* stress.c - threads, their files and what they must be */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "test/lib/pool.h"
#include "test/lib/stress.h"

#define THREADS_MAX 16u
#define FILES       6u
#define FILE_BLOCKS 12u
#define FILE_BYTES  (FILE_BLOCKS * PM_BLOCK)
#define NAMES       24u
#define SHARED      3u
#define CALLS       128u

struct copy { /* what a file must hold */
	struct pm_id id;
	uint64_t size;
	uint8_t *bytes;
};
struct call { /* which every thread makes, some at the same time: it is carried out once */
	unsigned tried, done; /* atomic */
};
struct actor {
	struct stress *s;
	struct call *calls; /* of all */
	unsigned called;    /* of them by this thread */
	struct pm_store *st;
	unsigned no;
	uint64_t rnd;
	struct pm_id dir, common, shared[SHARED];
	struct copy file[FILES];
	struct pm_id name[NAMES]; /* ino 0: not there */
	enum pm_type type[NAMES];
	bool away[NAMES];         /* in the common directory */
	unsigned mine;            /* names in the common directory */
	uint64_t seen[SHARED];    /* sizes: they only grow */
	struct pm_batch *batch;
	struct pm_scrub scrub;
	char why[300];
};

/* --- plain media --- */

static void plain_store(struct pm_media *m, void *dst, const void *src, size_t len)
{
	(void)m;
	memcpy(dst, src, len);
}

static void plain_zero(struct pm_media *m, void *dst, size_t len)
{
	(void)m;
	memset(dst, 0, len);
}

static void plain_flush(struct pm_media *m, const void *at, size_t len)
{
	(void)m;
	(void)at;
	(void)len;
}

static void plain_drain(struct pm_media *m)
{
	(void)m;
}

static int plain_sync(struct pm_media *m, const void *at, size_t len)
{
	(void)m;
	(void)at;
	(void)len;
	return 0;
}

static const struct pm_media_ops plain = { .store = plain_store,
	                                   .store_nt = plain_store,
	                                   .zero = plain_zero,
	                                   .flush = plain_flush,
	                                   .drain = plain_drain,
	                                   .sync = plain_sync,
	                                   .close = plain_drain };

/* --- an actor's words --- */

static uint64_t roll(struct actor *a, uint64_t n)
{
	a->rnd ^= a->rnd << 13;
	a->rnd ^= a->rnd >> 7;
	a->rnd ^= a->rnd << 17;
	return (a->rnd >> 11) % n;
}

static int complain(struct actor *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int complain(struct actor *a, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(a->why, sizeof(a->why), fmt, ap);
	va_end(ap);
	return -1;
}

/* --- files --- */

static void gather(const struct pm_map *m, uint8_t *to)
{
	for (unsigned i = 0; i < m->nseg; i++) {
		memcpy(to, m->seg[i].iov_base, m->seg[i].iov_len);
		to += m->seg[i].iov_len;
	}
}

static void place(const struct pm_map *m, const uint8_t *from)
{
	for (unsigned i = 0; i < m->nseg; i++) {
		memcpy(m->seg[i].iov_base, from, m->seg[i].iov_len);
		from += m->seg[i].iov_len;
	}
}

static int map_write(struct pm_store *st, struct pm_id id, uint64_t off, uint32_t len, struct pm_map *m)
{
	struct test_waiter w;
	int err;

	do {
		waiter_init(&w);
		err = pm_map_write(st, id, off, len, m, &w.w);
	} while (err == -EINPROGRESS && (waiter_result(&w, err), true));
	if (err)
		waiter_result(&w, err);
	else
		waiter_result(&w, 0);
	return err;
}

static int commit(struct pm_map *m, uint64_t len, enum pm_stable how, bool honor, struct pm_committed *out)
{
	struct test_waiter w;

	waiter_init(&w);
	return waiter_result(&w, pm_commit(m, len, how, honor, out, &w.w));
}

static int file_write(struct actor *a, struct copy *c)
{
	uint64_t off = roll(a, 2) ? roll(a, FILE_BLOCKS) * PM_BLOCK : roll(a, FILE_BYTES - 1);
	uint32_t len = roll(a, 2) ? PM_BLOCK : 1 + (uint32_t)roll(a, 3 * PM_BLOCK);
	enum pm_stable how = roll(a, 4) ? PM_FILE_SYNC : PM_UNSTABLE;
	struct pm_committed out;
	struct pm_map m;
	int err;

	if (roll(a, 3) == 0)
		off = c->size < FILE_BYTES ? c->size : 0; /* append */
	if (len > FILE_BYTES - off)
		len = (uint32_t)(FILE_BYTES - off);
	err = map_write(a->st, c->id, off, len, &m);
	if (err)
		return complain(a, "map for writing: %s", strerror(-err));
	if (off > c->size)
		memset(c->bytes + c->size, 0, off - c->size);
	memset(c->bytes + off, (int)(1 + roll(a, 255)), len);
	place(&m, c->bytes + off);
	err = commit(&m, len, how, true, &out);
	pm_unpin(&m);
	if (off + len > c->size)
		c->size = off + len;
	if (err)
		return complain(a, "commit: %s", strerror(-err));
	return out.attr.size == c->size ? 0 : complain(a, "size %llu after a write, not %llu",
	                                               (unsigned long long)out.attr.size,
	                                               (unsigned long long)c->size);
}

static int lease_open(struct actor *a, struct pm_id id, uint64_t off, uint64_t len, struct pm_lease **l)
{
	struct pm_lease_opts o = { .owner = a, .write = true, .max_extents = 16 };
	struct test_waiter w;
	int err;

	do {
		waiter_init(&w);
		err = pm_lease_open(a->st, id, off, len, len, &o, l, &w.w);
	} while (err == -EINPROGRESS && (waiter_result(&w, err), true));
	waiter_result(&w, err);
	while (!err && (err = pm_lease_zero(*l, 1)) == -EAGAIN)
		err = 0;
	return err;
}

/* As RMA would, to the places that the lease has told. */
static void lease_put(struct actor *a, const struct pm_lease *l, uint64_t off, uint64_t len, int byte)
{
	struct pm_region pool, zero;
	unsigned n;
	const struct pm_extent *e = pm_lease_extents(l, &n);

	pm_get_regions(a->st, &pool, &zero);
	for (unsigned i = 0; i < n; i++) {
		uint64_t from = e[i].off > off ? e[i].off : off;
		uint64_t to = e[i].off + e[i].len < off + len ? e[i].off + e[i].len : off + len;

		if (from < to)
			memset((uint8_t *)pool.base + e[i].at + (from - e[i].off), byte, to - from);
	}
}

/* One-sided: a lease, bytes, a commit of them, and back with it; or back with it at once. */
static int file_lease(struct actor *a, struct pm_id id, struct copy *c)
{
	uint64_t off = roll(a, FILE_BLOCKS - 3) * PM_BLOCK, len = 1 + roll(a, 3 * PM_BLOCK);
	int byte = (int)(1 + roll(a, 255)), err;
	struct pm_committed out;
	struct test_waiter w;
	struct pm_lease *l;

	err = lease_open(a, id, off, len, &l);
	if (err)
		return complain(a, "lease: %s", strerror(-err));
	if (roll(a, 4)) {
		struct pm_range r = { off, len };

		lease_put(a, l, off, len, byte);
		waiter_init(&w);
		err = waiter_result(&w, pm_lease_commit(l, &r, 1, false, 0, NULL, &out, &w.w));
		if (!err && c && off > c->size)
			memset(c->bytes + c->size, 0, off - c->size);
		if (!err && c)
			memset(c->bytes + off, byte, len);
		if (!err && c && off + len > c->size)
			c->size = off + len;
	}
	pm_lease_close(l);
	return err ? complain(a, "commit of a lease: %s", strerror(-err)) : 0;
}

static int file_read(struct actor *a, struct pm_store *st, const struct copy *c)
{
	uint64_t off = roll(a, 2) ? 0 : roll(a, FILE_BYTES);
	uint8_t *buf = malloc(FILE_BYTES);
	struct pm_map m;
	int err = pm_map_read(st, c->id, off, FILE_BYTES, &m);
	uint64_t want = off < c->size ? c->size - off : 0;

	if (err) {
		free(buf);
		return complain(a, "map for reading: %s", strerror(-err));
	}
	if (m.len != want) {
		err = complain(a, "%llu bytes can be read, not %llu", (unsigned long long)m.len,
		               (unsigned long long)want);
	} else {
		gather(&m, buf);
		if (memcmp(buf, c->bytes + off, want))
			err = complain(a, "inode %llu holds other bytes", (unsigned long long)c->id.ino);
	}
	pm_unpin(&m);
	free(buf);
	return err;
}

static int file_cut(struct actor *a, struct copy *c)
{
	struct pm_setattr sa = { .set = PM_SET_SIZE, .size = roll(a, FILE_BYTES) };
	struct pm_change ch;
	int err = pm_setattr(a->st, c->id, &sa, &ch);

	if (err)
		return complain(a, "setattr: %s", strerror(-err));
	if (sa.size > c->size)
		memset(c->bytes + c->size, 0, sa.size - c->size);
	c->size = sa.size;
	return 0;
}

static int file_ask(struct actor *a, const struct copy *c)
{
	struct pm_attr at;
	int err = pm_getattr(a->st, c->id, &at);

	if (err || at.size != c->size)
		return complain(a, "getattr: %s, size %llu, not %llu", strerror(-err),
		                (unsigned long long)at.size, (unsigned long long)c->size);
	return 0;
}

static int file_sync(struct actor *a, const struct copy *c)
{
	struct pm_committed out;
	struct test_waiter w;
	int err;

	waiter_init(&w);
	err = waiter_result(&w, pm_sync_file(a->st, c->id, &out, &w.w));
	return err ? complain(a, "sync: %s", strerror(-err)) : 0;
}

/* --- names --- */

static int make(struct pm_store *st, struct pm_id dir, const char *name, enum pm_type type, struct pm_id *id)
{
	struct pm_new nw = { .type = type, .mode = 0755, .uid = 1000, .gid = 1000 };
	struct pm_change ch;
	int err = pm_create(st, dir, name, strlen(name), &nw, &ch);

	if (!err)
		*id = ch.obj.id;
	return err;
}

/* Names that travel are told apart by their owner. */
static size_t name_of(const struct actor *a, unsigned k, char buf[24])
{
	return (size_t)snprintf(buf, 24, "name-%u-%u", a->no, k);
}

static struct pm_id where(const struct actor *a, unsigned k)
{
	return a->away[k] ? a->common : a->dir;
}

static int name_look(struct actor *a, struct pm_store *st, unsigned k)
{
	struct pm_attr at;
	char name[24];
	size_t len = name_of(a, k, name);
	int err = pm_lookup(st, where(a, k), name, len, &at);

	if (a->name[k].ino ? err || at.id.ino != a->name[k].ino || at.id.gen != a->name[k].gen : err != -ENOENT)
		return complain(a, "%s is %s: %s", name, a->name[k].ino ? "there" : "not there", strerror(-err));
	return 0;
}

static int name_make(struct actor *a, unsigned k, const char *name, size_t len)
{
	static const enum pm_type some[] = { PM_REG, PM_REG, PM_REG, PM_DIR, PM_LNK, PM_FIFO };
	char target[300];
	struct pm_new nw = { .type = some[roll(a, 6)], .mode = 0755, .uid = 1000, .gid = 1000 };
	struct pm_change ch;
	int err;

	memset(target, 't', sizeof(target));
	nw.target = target;
	nw.target_len = nw.type == PM_LNK ? roll(a, 2) ? 20 : 200 : 0;
	err = pm_create(a->st, where(a, k), name, len, &nw, &ch);
	if (!err)
		a->name[k] = ch.obj.id;
	a->type[k] = nw.type;
	return err;
}

static int name_flip(struct actor *a, unsigned k)
{
	struct pm_change ch;
	char name[24];
	size_t len = name_of(a, k, name);
	int err;

	if (!a->name[k].ino) {
		a->away[k] = roll(a, 4) == 0;
		err = name_make(a, k, name, len);
	} else {
		err = a->type[k] == PM_DIR ? pm_rmdir(a->st, where(a, k), name, len, &ch)
		                           : pm_remove(a->st, where(a, k), name, len, &ch);
		a->name[k].ino = 0;
	}
	return err ? complain(a, "%s: %s", name, strerror(-err)) : 0;
}

/* To another name, maybe over what is there, here or in the directory of all. */
static int name_move(struct actor *a, unsigned k, unsigned to)
{
	struct pm_id from = where(a, k);
	struct pm_change ch;
	char old[24], name[24];
	size_t olen = name_of(a, k, old), len = name_of(a, to, name);
	int err;

	if (!a->name[k].ino || k == to)
		return 0;
	if (!a->name[to].ino)
		a->away[to] = roll(a, 4) == 0;
	if (a->name[to].ino && (a->type[k] == PM_DIR) != (a->type[to] == PM_DIR))
		return 0;
	err = pm_rename(a->st, from, old, olen, where(a, to), name, len, &ch);
	a->name[to] = a->name[k];
	a->type[to] = a->type[k];
	a->name[k].ino = 0;
	return err ? complain(a, "rename %s %s: %s", old, name, strerror(-err)) : 0;
}

/* One name more, and away with it again. */
static int name_link(struct actor *a, unsigned k)
{
	struct pm_change ch;
	struct pm_attr at;
	int err;

	if (!a->name[k].ino || a->type[k] == PM_DIR)
		return 0;
	err = pm_link(a->st, a->name[k], a->dir, "link", 4, &ch);
	if (!err)
		err = pm_getattr(a->st, a->name[k], &at);
	if (!err && at.nlink != 2)
		return complain(a, "%u links, not 2", at.nlink);
	if (!err)
		err = pm_remove(a->st, a->dir, "link", 4, &ch);
	if (!err && ch.obj.nlink != 1)
		return complain(a, "%u links, not 1", ch.obj.nlink);
	return err ? complain(a, "a link: %s", strerror(-err)) : 0;
}

static int name_mode(struct actor *a, unsigned k)
{
	struct pm_setattr sa = { .set = PM_SET_MODE, .mode = (uint32_t)roll(a, 512) };
	struct pm_change ch;
	struct pm_attr at;
	int err;

	if (!a->name[k].ino)
		return 0;
	err = pm_setattr(a->st, a->name[k], &sa, &ch);
	if (!err)
		err = pm_getattr(a->st, a->name[k], &at);
	if (!err && at.mode == sa.mode)
		return 0;
	return complain(a, "chmod: %s, %o, not %o", strerror(-err), at.mode, sa.mode);
}

/* What another thread has there, which may come and go meanwhile. */
static int name_of_other(struct actor *a)
{
	unsigned no = (unsigned)roll(a, a->s->threads), k = (unsigned)roll(a, NAMES);
	struct pm_attr at;
	char name[24];
	int len = snprintf(name, sizeof(name), "name-%u-%u", no, k);
	int err = pm_lookup(a->st, a->common, name, (size_t)len, &at);

	if (err == -ENOENT)
		return 0;
	if (err)
		return complain(a, "%s, another's: %s", name, strerror(-err));
	err = pm_getattr(a->st, at.id, &at);
	return err && err != -ESTALE ? complain(a, "%s, another's, by handle: %s", name, strerror(-err)) : 0;
}

/* The next call that all make. */
static int same_call(struct actor *a)
{
	struct pm_once once = { .tag = a->called };
	struct pm_new nw = { .type = PM_REG, .mode = 0600 };
	struct pm_change ch;
	struct pm_reply r;
	char name[24];
	int len, err;

	if (a->called == CALLS)
		return 0;
	memset(once.key, (int)a->called + 1, sizeof(once.key));
	len = snprintf(name, sizeof(name), "call-%u", a->called);
	__atomic_fetch_add(&a->calls[a->called].tried, 1, __ATOMIC_RELAXED);
	err = pm_create_once(a->st, a->common, name, (size_t)len, &nw, &once, &ch);
	if (!err)
		__atomic_fetch_add(&a->calls[a->called].done, 1, __ATOMIC_RELAXED);
	else if (err != -EALREADY)
		return complain(a, "%s: %s", name, strerror(-err));
	err = pm_once_find(a->st, &once, &r);
	if (err || r.tag != a->called)
		return complain(a, "%s: no record, or another's: %s", name, strerror(-err));
	a->called++;
	return 0;
}

static bool count(void *arg, const struct pm_dirent *de)
{
	if (de->cookie > 2)
		++*(unsigned *)arg;
	return true;
}

static int names_list(struct actor *a, bool attr)
{
	unsigned n = 0, want = 0;
	bool eof = false;
	int err = pm_readdir(a->st, a->dir, roll(a, 2) * 2, attr, count, &n, &eof);

	for (unsigned k = 0; k < NAMES; k++)
		want += a->name[k].ino && !a->away[k];
	return err || !eof || n != want ? complain(a, "readdir: %s, %u names, not %u", strerror(-err), n, want) : 0;
}

/* The directory of all, where names come and go meanwhile: what this thread has there is shown, once and as it is. */
struct listing {
	struct actor *a;
	unsigned seen[NAMES], mine;
	bool wrong;
};

static bool list_one(void *arg, const struct pm_dirent *de)
{
	struct listing *l = arg;
	struct actor *a = l->a;
	char name[24], mine[24];
	size_t len = (size_t)snprintf(mine, sizeof(mine), "of-%u-", a->no);

	l->mine += de->len > len && !memcmp(de->name, mine, len);
	for (unsigned k = 0; k < NAMES; k++) {
		if (!a->name[k].ino || !a->away[k] || de->len != name_of(a, k, name) || memcmp(de->name, name, de->len))
			continue;
		l->seen[k]++;
		l->wrong |= !de->attr || de->attr->id.ino != a->name[k].ino || de->attr->id.gen != a->name[k].gen ||
		            de->attr->type != a->type[k];
	}
	return true;
}

static int common_list(struct actor *a)
{
	struct listing l = { .a = a };
	bool eof = false;
	int err = pm_readdir(a->st, a->common, 0, true, list_one, &l, &eof);

	for (unsigned k = 0; k < NAMES; k++)
		l.wrong |= l.seen[k] != (a->name[k].ino && a->away[k]);
	return err || !eof || l.wrong || l.mine != a->mine
	               ? complain(a, "readdir of all: %s, %u of %u names", strerror(-err), l.mine, a->mine)
	               : 0;
}

/* A file that is removed while what was written to it is unstable. */
static int brief_file(struct actor *a)
{
	struct pm_committed out;
	struct pm_change ch;
	struct pm_map m;
	struct pm_id id;
	int err = make(a->st, a->dir, "brief", PM_REG, &id);

	if (!err)
		err = map_write(a->st, id, 0, PM_BLOCK, &m);
	if (!err) {
		err = commit(&m, PM_BLOCK, PM_UNSTABLE, true, &out);
		pm_unpin(&m);
	}
	if (!err)
		err = pm_remove(a->st, a->dir, "brief", 5, &ch);
	return err ? complain(a, "a brief file: %s", strerror(-err)) : 0;
}

/* A name more in the directory of all, and a look at one from before. */
static int common_name(struct actor *a)
{
	struct pm_attr at;
	struct pm_id id;
	char name[24];
	int err;

	snprintf(name, sizeof(name), "of-%u-%u", a->no, a->mine++);
	err = make(a->st, a->common, name, roll(a, 4) ? PM_REG : PM_DIR, &id);
	if (err)
		return complain(a, "%s: %s", name, strerror(-err));
	snprintf(name, sizeof(name), "of-%u-%u", a->no, (unsigned)roll(a, a->mine));
	err = pm_lookup(a->st, a->common, name, strlen(name), &at);
	return err ? complain(a, "%s: %s", name, strerror(-err)) : 0;
}

/* With checksums: some of the pool, beside what others write there. */
static int scrub_some(struct actor *a)
{
	struct pm_scrub *s = &a->scrub;
	int err = pm_scrub_step(a->st, s, 64);

	if (err && err != -EAGAIN)
		return complain(a, "scrub: %s", strerror(-err));
	if (s->bad || s->unreadable || s->unproven)
		return complain(a, "scrub: %llu bad, %llu unreadable, %llu without a checksum", (unsigned long long)s->bad,
		                (unsigned long long)s->unreadable, (unsigned long long)s->unproven);
	if (!err)
		*s = (struct pm_scrub){ .ino = 0 };
	return 0;
}

/* --- what all write to: nobody looks at the bytes --- */

static int shared_write(struct actor *a, unsigned k)
{
	struct pm_committed out;
	struct pm_map m;
	uint64_t off = roll(a, 48) * PM_BLOCK / 2;
	int err = map_write(a->st, a->shared[k], off, PM_BLOCK, &m);

	if (err)
		return complain(a, "map for writing, shared: %s", strerror(-err));
	if (roll(a, 8)) {
		err = commit(&m, roll(a, 8) ? PM_BLOCK : PM_BLOCK / 2, roll(a, 3) ? PM_FILE_SYNC : PM_UNSTABLE, true, &out);
		if (!err && out.attr.size < a->seen[k])
			err = complain(a, "a shared file has shrunk");
		else if (!err)
			a->seen[k] = out.attr.size;
		else
			err = complain(a, "commit, shared: %s", strerror(-err));
	}
	pm_unpin(&m);
	return err;
}

static int shared_sync(struct actor *a, unsigned k)
{
	struct copy c = { .id = a->shared[k] };

	return file_sync(a, &c);
}

static int shared_read(struct actor *a, unsigned k)
{
	struct pm_map m;
	int err = pm_map_read(a->st, a->shared[k], roll(a, 30) * PM_BLOCK, 4 * PM_BLOCK, &m);

	if (err)
		return complain(a, "map for reading, shared: %s", strerror(-err));
	if (m.attr.size < a->seen[k])
		err = complain(a, "a shared file has shrunk");
	else
		a->seen[k] = m.attr.size;
	pm_unpin(&m);
	return err;
}

/* --- commits that end together --- */

#define JOINED 8u

struct joined {
	struct pm_wait w; /* first */
	struct pm_map m;
	struct pm_committed out;
	uint64_t size; /* of the file when it is over; 0: shared */
	int err;
	bool over;
};

static void joined_done(struct pm_wait *w, int err)
{
	struct joined *j = (struct joined *)w;

	j->err = err;
	j->over = true;
	pm_unpin(&j->m);
}

/* Who waits ends the batch first: what has joined may be what others wait for, or this one. */
static int map_and_end(struct actor *a, struct pm_id id, uint64_t off, uint32_t len, struct pm_map *m)
{
	struct test_waiter w;
	int err;

	for (;;) {
		waiter_init(&w);
		err = pm_map_write(a->st, id, off, len, m, &w.w);
		if (err == -EINPROGRESS)
			pm_batch_end(a->batch);
		waiter_result(&w, err);
		if (err != -EINPROGRESS)
			return err;
	}
}

static int join_one(struct actor *a, struct joined *j)
{
	struct copy *c = roll(a, 4) ? &a->file[roll(a, 2)] : NULL;
	uint64_t off = roll(a, 2 * FILE_BLOCKS - 4) * PM_BLOCK / 2;
	uint32_t len = roll(a, 2) ? PM_BLOCK : 1 + (uint32_t)roll(a, 2 * PM_BLOCK);
	int byte = (int)(1 + roll(a, 255));
	int err = map_and_end(a, c ? c->id : a->shared[roll(a, SHARED)], off, len, &j->m);

	if (err)
		return complain(a, "map for a batch: %s", strerror(-err));
	for (unsigned i = 0; c && i < j->m.nseg; i++)
		memset(j->m.seg[i].iov_base, byte, j->m.seg[i].iov_len);
	if (c && off > c->size)
		memset(c->bytes + c->size, 0, off - c->size);
	if (c)
		memset(c->bytes + off, byte, len);
	if (c && off + len > c->size)
		c->size = off + len;
	j->w.done = joined_done;
	j->size = c ? c->size : 0;
	j->over = false;
	err = pm_batch_commit(a->batch, &j->m, len, PM_FILE_SYNC, false, &j->out, &j->w);
	if (err != -EINPROGRESS)
		joined_done(&j->w, err);
	return 0;
}

static int files_batch(struct actor *a)
{
	struct joined j[JOINED];
	unsigned n = 0, most = 1 + (unsigned)roll(a, JOINED);
	int err = 0;

	while (n < most && !err)
		err = join_one(a, &j[n++]);
	n -= err != 0;
	pm_batch_end(a->batch);
	for (unsigned i = 0; i < n && !err; i++) {
		if (!j[i].over || j[i].err)
			err = complain(a, "commit in a batch: %s", j[i].over ? strerror(-j[i].err) : "not over");
		else if (j[i].size && j[i].out.attr.size != j[i].size)
			err = complain(a, "size %llu after a batch, not %llu", (unsigned long long)j[i].out.attr.size,
			               (unsigned long long)j[i].size);
	}
	return err;
}

/* --- acting --- */

static int act(struct actor *a)
{
	struct copy *c = &a->file[roll(a, FILES)];

	switch (roll(a, 40)) {
	case 0:
		return file_cut(a, c);
	case 1:
		return file_sync(a, c);
	case 2:
	case 3:
		return file_ask(a, c);
	case 4:
	case 5:
	case 6:
		return file_read(a, a->st, c);
	case 7:
	case 8:
		return name_flip(a, (unsigned)roll(a, NAMES));
	case 9:
		return name_move(a, (unsigned)roll(a, NAMES), (unsigned)roll(a, NAMES));
	case 10:
	case 11:
		return name_look(a, a->st, (unsigned)roll(a, NAMES));
	case 12:
		return names_list(a, roll(a, 2));
	case 13:
		return a->mine < 100 ? common_name(a) : 0;
	case 14:
	case 15:
		return shared_write(a, (unsigned)roll(a, SHARED));
	case 17:
		return brief_file(a);
	case 16:
		return shared_read(a, (unsigned)roll(a, SHARED));
	case 18:
	case 19:
	case 20:
		return name_flip(a, (unsigned)roll(a, NAMES));
	case 21:
	case 22:
		return name_move(a, (unsigned)roll(a, NAMES), (unsigned)roll(a, NAMES));
	case 23:
		return name_link(a, (unsigned)roll(a, NAMES));
	case 24:
		return name_mode(a, (unsigned)roll(a, NAMES));
	case 25:
		return same_call(a);
	case 26:
		return name_of_other(a);
	case 27:
		return common_list(a);
	case 28:
		return shared_sync(a, (unsigned)roll(a, SHARED));
	case 29:
	case 30:
		return a->s->sums ? file_write(a, c) : file_lease(a, c->id, c);
	case 31:
		return a->s->sums ? scrub_some(a) : file_lease(a, a->shared[roll(a, SHARED)], NULL);
	case 32:
	case 33:
	case 34:
	case 35:
		return files_batch(a);
	default:
		return file_write(a, c);
	}
}

static void *actor_main(void *arg)
{
	struct actor *a = arg;

	if (pm_batch_make(a->st, &a->batch))
		abort();
	for (unsigned i = 0; i < a->s->steps; i++)
		if (act(a))
			break;
	pm_batch_free(a->batch);
	return NULL;
}

static int actor_prepare(struct actor *a, struct pm_store *st, const struct actor *first)
{
	struct pm_id root = { PM_ROOT_INO, 1 };
	char name[24];
	int err = 0;

	a->st = st;
	if (a == first) {
		err = make(st, root, "common", PM_DIR, &a->common);
		for (unsigned i = 0; i < SHARED && !err; i++) {
			snprintf(name, sizeof(name), "shared-%u", i);
			err = make(st, root, name, PM_REG, &a->shared[i]);
		}
	} else {
		a->common = first->common;
		memcpy(a->shared, first->shared, sizeof(a->shared));
	}
	snprintf(name, sizeof(name), "dir-%u", a->no);
	if (!err)
		err = make(st, root, name, PM_DIR, &a->dir);
	for (unsigned i = 0; i < FILES && !err; i++) {
		snprintf(name, sizeof(name), "file-%u-%u", a->no, i);
		a->file[i].bytes = calloc(1, FILE_BYTES);
		err = make(st, root, name, PM_REG, &a->file[i].id);
	}
	return err ? complain(a, "making files: %s", strerror(-err)) : 0;
}

/* A block more at the end of a file. */
static int grow(struct actor *a, struct copy *c)
{
	struct pm_committed out;
	struct pm_map m;
	int err = map_write(a->st, c->id, c->size, PM_BLOCK, &m);

	if (err)
		return complain(a, "map for writing: %s", strerror(-err));
	memset(c->bytes + c->size, (int)a->no + 1, PM_BLOCK);
	place(&m, c->bytes + c->size);
	err = commit(&m, PM_BLOCK, PM_FILE_SYNC, true, &out);
	pm_unpin(&m);
	c->size += PM_BLOCK;
	return err ? complain(a, "commit: %s", strerror(-err)) : 0;
}

/* Files of all threads, a block of each in turn. */
static int interleave(struct stress *s, struct actor *a)
{
	for (unsigned b = 0; b < FILE_BLOCKS / 2; b++)
		for (unsigned k = 0; k < FILES; k++)
			for (unsigned i = 0; i < s->threads; i++)
				if (grow(&a[i], &a[i].file[k]))
					return -1;
	return 0;
}

/* After it is over, maybe in a store opened anew. */
static int actor_check(struct actor *a, struct pm_store *st)
{
	a->st = st;
	for (unsigned i = 0; i < FILES; i++)
		if (file_ask(a, &a->file[i]) || file_read(a, st, &a->file[i]))
			return -1;
	for (unsigned k = 0; k < NAMES; k++)
		if (name_look(a, st, k))
			return -1;
	return names_list(a, true);
}

/* --- the run --- */

struct found {
	unsigned n;
	char text[200];
};

static void problem(void *arg, const char *where, const char *what)
{
	struct found *f = arg;

	if (!f->n++)
		snprintf(f->text, sizeof(f->text), "%s: %s", where, what);
}

/* Every block that was written has its checksum. */
static bool all_summed(struct stress *s, struct pm_store *st)
{
	struct pm_scrub k = { .ino = 0 };
	int err;

	while ((err = pm_scrub_step(st, &k, 4096)) == -EAGAIN)
		;
	if (!err && !k.bad && !k.unreadable && !k.unproven && k.blocks)
		return true;
	snprintf(s->why, sizeof(s->why), "scrub of %llu blocks: %s, %llu bad, %llu unreadable, %llu without a checksum",
	         (unsigned long long)k.blocks, strerror(-err), (unsigned long long)k.bad, (unsigned long long)k.unreadable,
	         (unsigned long long)k.unproven);
	return false;
}

static bool sound(struct stress *s, struct pm_store *st)
{
	struct pm_check_report rep;
	struct found f = { 0 };

	if (store_check(st, problem, NULL, &f, &rep) || rep.problems) {
		snprintf(s->why, sizeof(s->why), "check: %s", f.text);
		return false;
	}
	return !s->sums || all_summed(s, st);
}

static bool everybody(struct stress *s, struct actor *a, struct pm_store *st)
{
	for (unsigned i = 0; i < s->threads; i++) {
		if (!a[i].why[0] && st)
			actor_check(&a[i], st);
		if (a[i].why[0]) {
			snprintf(s->why, sizeof(s->why), "thread %u: %s", i, a[i].why);
			return false;
		}
	}
	return true;
}

static struct pm_store *open_again(struct stress *s, struct pm_media *m)
{
	struct pm_open_opts o = { .method = m->method, .verify_reads = s->sums };
	struct pm_error why = { "" };
	struct pm_store *st = NULL;

	if (store_open_media(m, &o, &st, &why))
		snprintf(s->why, sizeof(s->why), "open: %.380s", why.text);
	return st;
}

static bool called_once(struct stress *s, const struct call *calls)
{
	for (unsigned i = 0; i < CALLS; i++) {
		if (calls[i].done == !!calls[i].tried)
			continue;
		snprintf(s->why, sizeof(s->why), "call %u was made %u times and carried out %u times", i,
		         calls[i].tried, calls[i].done);
		return false;
	}
	return true;
}

static bool act_all(struct stress *s, struct actor *a, struct pm_store *st)
{
	struct call calls[CALLS] = { { 0 } };
	pthread_t th[THREADS_MAX];
	unsigned n = 0;

	for (unsigned i = 0; i < s->threads; i++) {
		a[i].s = s;
		a[i].no = i;
		a[i].calls = calls;
		a[i].rnd = (s->seed + i) * 0x9e3779b97f4a7c15ull | 1;
		if (actor_prepare(&a[i], st, &a[0]))
			return everybody(s, a, NULL);
	}
	if (s->sums && interleave(s, a))
		return everybody(s, a, NULL);
	while (n < s->threads && !pthread_create(&th[n], NULL, actor_main, &a[n]))
		n++;
	for (unsigned i = 0; i < n; i++)
		pthread_join(th[i], NULL);
	for (unsigned i = 0; i < s->threads && everybody(s, a, NULL); i++)
		for (unsigned k = 0; k < FILES; k++)
			file_sync(&a[i], &a[i].file[k]);
	return everybody(s, a, st) && called_once(s, calls);
}

bool stress_run(struct stress *s)
{
	size_t len = (size_t)(s->blocks ? s->blocks : 8192) * PM_BLOCK;
	struct actor *a = calloc(s->threads, sizeof(*a));
	struct pm_mkfs_opts mo = { .label = "stress", .data_checksum = s->sums };
	struct pm_media m = { .ops = &plain, .len = len, .method = s->method, .reason = "test", .fd = -1 };
	struct pm_error why = { "" };
	struct pm_store *st = NULL;
	bool ok = false;

	s->why[0] = '\0';
	m.base = m.view = aligned_alloc(PM_BLOCK, len);
	memset(m.base, 0, len);
	if (mkfs_media(&m, &mo, &why))
		snprintf(s->why, sizeof(s->why), "mkfs: %.380s", why.text);
	else
		st = open_again(s, &m);
	if (st)
		ok = act_all(s, a, st);
	if (st)
		store_drop(st); /* a kill: what was acknowledged is in memory */
	st = ok ? open_again(s, &m) : NULL;
	ok = st && everybody(s, a, st) && sound(s, st);
	if (st && pm_close(st) && ok)
		ok = snprintf(s->why, sizeof(s->why), "close") < 0;
	for (unsigned i = 0; i < s->threads; i++)
		for (unsigned k = 0; k < FILES; k++)
			free(a[i].file[k].bytes);
	free(m.base);
	free(a);
	return ok;
}
