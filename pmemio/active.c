/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * active.c - active files, their fresh blocks, and limbo
 *
 * Fresh blocks stand in one sorted array per file: appending is cheap, a search takes log n, and n
 * is bound by the pins and by what dirty.c lets pile up.
 */
#include <errno.h>
#include <stdlib.h>
#include <syslog.h>

#include "pmemio/core.h"
#include "pmemio/file.h"

/* --- runs --- */

int runs_reserve(struct runs *r, unsigned n)
{
	unsigned cap = r->cap ? r->cap : 16;
	struct blk_run *run;

	while (cap - r->n < n)
		cap *= 2;
	if (cap == r->cap)
		return 0;
	run = realloc(r->run, cap * sizeof(*run));
	if (!run)
		return -ENOMEM;
	r->run = run;
	r->cap = cap;
	return 0;
}

void runs_add(struct runs *r, uint64_t start, uint64_t len)
{
	uint64_t end = start + len, gone = 0;
	unsigned lo = 0, hi = r->n, to;

	while (lo < hi) { /* the first run that touches or lies behind start */
		unsigned mid = (lo + hi) / 2;

		if (r->run[mid].start + r->run[mid].len < start)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (to = lo; to < r->n && r->run[to].start <= end; to++) {
		gone += r->run[to].len;
		start = min64(start, r->run[to].start);
		end = max64(end, r->run[to].start + r->run[to].len);
	}
	memmove(&r->run[lo + 1], &r->run[to], (r->n - to) * sizeof(*r->run));
	r->n = r->n - (to - lo) + 1;
	r->run[lo] = (struct blk_run){ start, end - start };
	r->blocks += end - start - gone;
}

/* --- fresh blocks --- */

unsigned fresh_at(const struct file *f, uint64_t lblk)
{
	unsigned lo = 0, hi = f->nfresh;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (f->fresh[mid].lblk + f->fresh[mid].len <= lblk)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

int fresh_reserve(struct file *f, unsigned n)
{
	unsigned cap = f->cap ? f->cap : 8;
	struct fresh *p;

	while (cap - f->nfresh < n)
		cap *= 2;
	if (cap == f->cap)
		return 0;
	p = realloc(f->fresh, cap * sizeof(*p));
	if (!p)
		return -ENOMEM;
	f->fresh = p;
	f->cap = cap;
	return 0;
}

static void insert_at(struct file *f, unsigned i, struct fresh e)
{
	memmove(&f->fresh[i + 1], &f->fresh[i], (f->nfresh - i) * sizeof(e));
	f->fresh[i] = e;
	f->nfresh++;
}

void fresh_count(struct pm_store *st, struct file *f, bool owned, uint64_t len)
{
	COUNT(st, stats_of(st, worker_here(st)), fresh_blocks, len);
	if (owned)
		return;
	f->pending += len;
	quota_pend(f->quota[0], len);
	quota_pend(f->quota[1], len);
}

bool file_may_grow(const struct file *f, uint64_t n)
{
	return quota_allows(f->quota[0], n) && quota_allows(f->quota[1], n);
}

void file_charge(struct file *f, struct quota *uid, struct quota *gid)
{
	for (unsigned k = 0; k < 2; k++) {
		quota_pend(f->quota[k], -f->pending);
		quota_owe(f->quota[k], -(f->owed + f->promised));
	}
	f->quota[0] = uid;
	f->quota[1] = gid;
	for (unsigned k = 0; k < 2; k++) {
		quota_pend(f->quota[k], f->pending);
		quota_owe(f->quota[k], f->owed + f->promised);
	}
}

void fresh_insert(struct pm_store *st, struct file *f, struct fresh e)
{
	insert_at(f, fresh_at(f, e.lblk), e);
	fresh_count(st, f, e.owned || e.cow, e.len);
}

void fresh_remove(struct pm_store *st, struct file *f, unsigned i)
{
	fresh_count(st, f, f->fresh[i].owned || f->fresh[i].cow, -f->fresh[i].len);
	f->nfresh--;
	memmove(&f->fresh[i], &f->fresh[i + 1], (f->nfresh - i) * sizeof(f->fresh[0]));
}

void fresh_split(struct file *f, uint64_t lblk)
{
	unsigned i = fresh_at(f, lblk);
	struct fresh e;
	uint64_t d;

	if (i == f->nfresh || f->fresh[i].lblk >= lblk)
		return;
	e = f->fresh[i];
	d = lblk - e.lblk;
	f->fresh[i].len = d;
	e.lblk += d;
	e.pblk += d;
	e.len -= d;
	insert_at(f, i + 1, e);
}

static void join_next(struct file *f, unsigned i)
{
	struct fresh *a = &f->fresh[i], *b = a + 1;

	if (i + 1 >= f->nfresh || a->state != DIRTY || b->state != DIRTY || a->epoch != b->epoch ||
	    a->owned != b->owned || a->lblk + a->len != b->lblk || a->pblk + a->len != b->pblk)
		return;
	a->len += b->len;
	f->nfresh--;
	memmove(b, b + 1, (f->nfresh - i - 1) * sizeof(*a));
}

void fresh_dirty(struct file *f, uint64_t lblk, uint64_t end)
{
	unsigned i;

	fresh_split(f, lblk);
	fresh_split(f, end);
	for (i = fresh_at(f, lblk); i < f->nfresh && f->fresh[i].lblk < end; i++) {
		if (f->fresh[i].state == DIRTY)
			continue;
		f->fresh[i].state = DIRTY;
		f->fresh[i].settled = false;
		f->fresh[i].pin = NULL;
		f->fresh[i].epoch = f->epoch;
	}
	while (i-- > 0 && f->fresh[i].lblk + f->fresh[i].len >= lblk)
		join_next(f, i);
}

/* --- who covers what --- */

static bool covers(const struct pm_pin *p, uint64_t lblk, uint64_t len)
{
	return p->len && p->off / PM_BLOCK < lblk + len && blk_up(p->off + p->len) > lblk;
}

bool file_written_by(const struct file *f, const struct pm_pin *but, uint64_t lblk)
{
	const struct pm_pin *p;

	LIST_FOREACH (p, &f->pins, link) {
		if (p != but && p->write && !p->committed && p->off < p->cut &&
		    covers(p, lblk, 1) && lblk < blk_up(p->cut))
			return true;
	}
	return false;
}

bool file_pinned(const struct file *f, uint64_t lblk, uint64_t len)
{
	const struct pm_pin *p;

	LIST_FOREACH (p, &f->pins, link) {
		if (covers(p, lblk, len))
			return true;
	}
	return false;
}

static void give(struct pm_store *st, uint64_t pblk, uint64_t len, pm_lsn lsn)
{
	if (lsn)
		blk_give_after(st, lsn, pblk, len);
	else
		blk_give(st, pblk, len);
}

void file_release(struct pm_store *st, struct file *f, uint64_t lblk, uint64_t pblk, uint64_t len,
                  pm_lsn lsn)
{
	struct limbo *l;

	if (!file_pinned(f, lblk, len)) {
		give(st, pblk, len, lsn);
		return;
	}
	if (lsn) /* others have no lease on what never was on media */
		lease_recall(st, f, lblk, lblk + len);
	l = malloc(sizeof(*l));
	if (!l) { /* in use until the next open finds them free */
		store_log(st, LOG_ERR,
		          "no memory to remember %llu pinned blocks: free after reopening",
		          (unsigned long long)len);
		return;
	}
	*l = (struct limbo){
		.lblk = lblk, .pblk = pblk, .len = len, .lsn = lsn, .serial = ++f->serial
	};
	LIST_INSERT_HEAD(&f->limbo, l, link);
}

static bool limbo_held(const struct file *f, const struct limbo *l)
{
	const struct pm_pin *p;

	LIST_FOREACH (p, &f->pins, link) {
		if (p->serial < l->serial && covers(p, l->lblk, l->len))
			return true;
	}
	return false;
}

void file_unlimbo(struct pm_store *st, struct file *f)
{
	struct limbo *l = LIST_FIRST(&f->limbo), *next;

	for (; l; l = next) {
		next = LIST_NEXT(l, link);
		if (limbo_held(f, l))
			continue;
		LIST_REMOVE(l, link);
		give(st, l->pblk, l->len, l->lsn);
		free(l);
	}
}

/* --- zeroing --- */

void file_zero(struct pm_store *st, struct file *f, const struct pm_pin *but, uint64_t a,
               uint64_t b, uint8_t *at)
{
	uint64_t base = a, next;
	const struct pm_pin *p;

	if (sum_moves(st)) { /* nobody else writes to this block */
		st->media.ops->zero(&st->media, at, b - a);
		return;
	}

	while (a < b) {
		next = b;
		LIST_FOREACH (p, &f->pins, link) {
			uint64_t end = min64(p->off + p->len, p->cut);

			if (p == but || !p->write || p->committed || p->off >= next || end <= a)
				continue;
			if (p->off <= a) {
				a = end;
				break;
			}
			next = p->off;
		}
		if (p)
			continue;
		st->media.ops->zero(&st->media, at + (a - base), next - a);
		a = next;
	}
}

int file_tail_block(struct pm_store *st, const struct pm_inode *in, uint64_t *blk)
{
	struct ext e;
	int err;

	*blk = 0;
	if (in->size % PM_BLOCK == 0)
		return 0;
	err = ext_find(st, NULL, in, in->size / PM_BLOCK, &e);
	if (!err && !e.unwritten)
		*blk = e.pblk + (in->size / PM_BLOCK - e.lblk);
	return err == -ENOENT ? 0 : err;
}

int file_tail(struct pm_store *st, struct file *f, const struct pm_inode *in, uint8_t **at)
{
	uint64_t size = file_size(f, in), lblk = size / PM_BLOCK, pblk;
	unsigned i = f ? fresh_at(f, lblk) : 0;
	struct ext e;
	int err;

	*at = NULL;
	if (size % PM_BLOCK == 0)
		return 0;
	if (f && i < f->nfresh && f->fresh[i].lblk <= lblk && !f->fresh[i].cow) {
		if (f->fresh[i].state != DIRTY)
			return 0;
		pblk = f->fresh[i].pblk + (lblk - f->fresh[i].lblk);
	} else {
		err = ext_find(st, NULL, in, lblk, &e);
		if (err || e.unwritten)
			return err == -ENOENT ? 0 : err;
		pblk = e.pblk + (lblk - e.lblk);
	}
	*at = (uint8_t *)data_ptr(st, pblk) + size % PM_BLOCK;
	return 0;
}

/* --- active files --- */

uint64_t file_size(const struct file *f, const struct pm_inode *in)
{
	return f && f->over ? max64(f->size, in->size) : in->size;
}

const struct pm_inode *file_inode(struct pm_store *st, struct pm_id id, int *err)
{
	const struct pm_inode *in = NULL;

	*err = -ESTALE;
	if (id.ino)
		in = ino_get(st, id, err);
	if (in && in->nlink)
		return in;
	if (in)
		*err = -ESTALE; /* removed; only pins keep it */
	return NULL;
}

const struct pm_inode *file_regular(struct pm_store *st, struct pm_id id, int *err)
{
	const struct pm_inode *in = file_inode(st, id, err);

	if (!in || in->type == PM_REG)
		return in;
	*err = in->type == PM_DIR ? -EISDIR : -EINVAL;
	return NULL;
}

struct file *file_find(struct pm_store *st, struct pm_id id)
{
	struct file *f;

	LIST_FOREACH (f, &ino_slot(st, id.ino)->files, link) {
		if (f->id.ino == id.ino && f->id.gen == id.gen)
			return f;
	}
	return NULL;
}

struct file *file_get(struct pm_store *st, struct pm_id id)
{
	const struct pm_inode *in = ino_at(st, id.ino);
	struct file *f = file_find(st, id);
	struct quota *u, *g;

	if (f)
		return f;
	u = quota_of(st, PM_QUOTA_UID, in->uid);
	g = quota_of(st, PM_QUOTA_GID, in->gid);
	f = u && g ? malloc(sizeof(*f)) : NULL; /* calloc() passes by the thread's own free memory */
	if (!f)
		return NULL;
	*f = (struct file){ .id = id, .quota = { u, g } };
	LIST_INIT(&f->pins);
	LIST_INIT(&f->limbo);
	LIST_INSERT_HEAD(&ino_slot(st, id.ino)->files, f, link);
	return f;
}

void file_rest(struct pm_store *st, struct file *f)
{
	if (f->refs || f->over || f->nfresh || !LIST_EMPTY(&f->pins) || !LIST_EMPTY(&f->limbo))
		return;
	file_unowe(st, f);
	LIST_REMOVE(f, link);
	free(f->fresh);
	free(f->runs.run);
	free(f);
}

void file_gone(struct pm_store *st, struct file *f)
{
	dirty_drop(st, f);
	while (f->nfresh) {
		struct fresh e = f->fresh[f->nfresh - 1];

		fresh_remove(st, f, f->nfresh - 1);
		if (!e.owned)
			file_release(st, f, e.lblk, e.pblk, e.len, 0);
	}
	file_rest(st, f);
}

void files_sweep(struct pm_store *st)
{
	struct pm_files *fs = st->files;
	struct file *f, *next;

	if (!fs->doubt || worker_here(st)) /* of other inodes */
		return;
	fs->doubt = false;
	for (f = TAILQ_FIRST(&fs->dirty); f; f = next) {
		const struct pm_inode *in = ino_at(st, f->id.ino);

		next = TAILQ_NEXT(f, dirty);
		if (LIST_EMPTY(&f->pins) && (!in || !in->type || in->gen != f->id.gen))
			file_gone(st, f);
	}
}

void files_pending(struct pm_store *st)
{
	struct file *f;

	for (unsigned i = 0; i < INO_SLOTS; i++) {
		LIST_FOREACH (f, &st->workers->ino[i].files, link) {
			quota_pending(f->quota[0], f->pending, f->owed + f->promised);
			quota_pending(f->quota[1], f->pending, f->owed + f->promised);
		}
	}
}

int files_init(struct pm_store *st)
{
	struct pm_files *fs = calloc(1, sizeof(*fs));

	if (!fs)
		return -ENOMEM;
	TAILQ_INIT(&fs->dirty);
	pthread_cond_init(&fs->idle, NULL);
	st->files = fs;
	return 0;
}

static void file_free(struct pm_store *st, struct file *f)
{
	struct pm_pin *p;
	struct limbo *l;

	while ((p = LIST_FIRST(&f->pins))) {
		LIST_REMOVE(p, link);
		free(p->heap);
		free(p);
	}
	while ((l = LIST_FIRST(&f->limbo))) {
		LIST_REMOVE(l, link);
		free(l);
	}
	f->nfresh = 0;
	dirty_drop(st, f);
	file_rest(st, f);
}

void files_fini(struct pm_store *st)
{
	if (!st->files)
		return;
	for (unsigned i = 0; i < INO_SLOTS; i++) {
		while (!LIST_EMPTY(&st->workers->ino[i].files))
			file_free(st, LIST_FIRST(&st->workers->ino[i].files));
	}
	pthread_cond_destroy(&st->files->idle);
	free(st->files);
	st->files = NULL;
}
