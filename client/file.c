/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file.c - open files: any length cut into pieces, and data that is not durable kept until it is
 *
 *   F1  Data that the server answered less than FILE_SYNC to is in f->kept, with the verifier of that answer, or in the
 *       list of the commit under way, until a COMMIT answers the same verifier. So is what was put one-sided,
 *       with the layout that it went through, until a COMMIT (LAYOUT) of that layout is answered.
 *   F2  Ranges in these lists do not overlap and hold the newest acknowledged data: a write that is
 *       acknowledged cuts its range out of them.
 *   F3  While kept data is written again, no other write of the file is out: new ones wait in
 *       f->held, and the resend waits for those already out. So an old copy never overwrites newer data.
 *   F4  At most KEEP_MAX bytes are copied. Half of it starts a COMMIT; beyond it writes are sent
 *       FILE_SYNC.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/map.h"

#define KEEP_MAX   (32u << 20)
#define ROUNDS_MAX 10 /* servers lost during one commit */
#define WINDOW     16 /* pieces of one synchronous call in flight */

static void run_commit(struct commit *c);
static int send_write(struct write_op *w);

/* --- what is kept --- */

static size_t copied_bytes(const struct berth_file *f)
{
	return f->kept_bytes - f->borrowed_bytes;
}

/* Of @k only @len bytes from @front on remain. */
static void kept_trim(struct berth_file *f, struct kept *k, size_t front, size_t len)
{
	f->kept_bytes -= k->len - len;
	if (!k->mem)
		f->borrowed_bytes -= k->len - len;
	k->data += front;
	k->off += front;
	k->len = len;
}

static void kept_drop(struct berth_file *f, struct kept_list *list, struct kept *k)
{
	kept_trim(f, k, 0, 0);
	TAILQ_REMOVE(list, k, link);
	free(k->mem);
	free(k);
}

static struct kept *kept_new(struct berth_file *f, uint64_t off, const uint8_t *data, size_t len, bool copy)
{
	struct kept *k = calloc(1, sizeof(*k));

	if (!k)
		return NULL;
	k->data = data;
	if (copy) {
		k->mem = malloc(len);
		if (!k->mem) {
			free(k);
			return NULL;
		}
		memcpy(k->mem, data, len);
		k->data = k->mem;
	}
	k->off = off;
	k->len = len;
	f->kept_bytes += len;
	if (!copy)
		f->borrowed_bytes += len;
	return k;
}

/* @k loses its middle: what is behind @end becomes an entry of its own. */
static int kept_split(struct berth_file *f, struct kept_list *list, struct kept *k, uint64_t off, uint64_t end)
{
	struct kept *tail = kept_new(f, end, k->data + (end - k->off), (size_t)(k->off + k->len - end), k->mem);

	if (!tail)
		return -ENOMEM;
	tail->epoch = k->epoch;
	tail->layout = k->layout;
	tail->map = k->map;
	tail->call = k->call;
	memcpy(tail->verf, k->verf, sizeof(k->verf));
	TAILQ_INSERT_AFTER(list, k, tail, link);
	kept_trim(f, k, 0, (size_t)(off - k->off));
	return 0;
}

/* F2: bytes from @off to @end are newer than what @list holds. */
static int cut_out(struct berth_file *f, struct kept_list *list, uint64_t off, uint64_t end)
{
	struct kept *k, *next;

	for (k = TAILQ_FIRST(list); k; k = next) {
		uint64_t k_end = k->off + k->len;
		int err = 0;

		next = TAILQ_NEXT(k, link);
		if (k_end <= off || k->off >= end)
			continue;
		if (k->off < off && k_end > end)
			err = kept_split(f, list, k, off, end);
		else if (k->off < off)
			kept_trim(f, k, 0, (size_t)(off - k->off));
		else if (k_end > end)
			kept_trim(f, k, (size_t)(end - k->off), (size_t)(k_end - end));
		else
			kept_drop(f, list, k);
		if (err)
			return err;
	}
	return 0;
}

int file_newer(struct berth_file *f, uint64_t off, size_t len)
{
	struct commit *c;
	int err = cut_out(f, &f->kept, off, off + len);

	TAILQ_FOREACH (c, &f->commits, link)
		if (!err)
			err = cut_out(f, &c->list, off, off + len);
	return err;
}

static void overlay(const struct kept_list *list, uint64_t off, uint8_t *buf, size_t len)
{
	const struct kept *k;

	TAILQ_FOREACH (k, list, link) {
		uint64_t from = k->off > off ? k->off : off;
		uint64_t to = k->off + k->len < off + len ? k->off + k->len : off + len;

		if (from < to)
			memcpy(buf + (from - off), k->data + (from - k->off), (size_t)(to - from));
	}
}

void file_overlay(const struct berth_file *f, uint64_t off, uint8_t *buf, size_t len)
{
	const struct commit *c;

	if (!f->kept_bytes)
		return;
	overlay(&f->kept, off, buf, len);
	TAILQ_FOREACH (c, &f->commits, link)
		overlay(&c->list, off, buf, len);
}

/* --- commit --- */

static void background_done(void *arg, int err, const struct berth_reply *r)
{
	struct berth_file *f = arg;

	(void)r;
	if (err)
		f->background_err = err;
}

static void release_held(struct berth_file *f)
{
	struct put_list puts = TAILQ_HEAD_INITIALIZER(puts);
	struct write_op *w;
	struct put *p;
	int err;

	while ((w = TAILQ_FIRST(&f->held))) {
		struct berth_reply none = { 0 };

		TAILQ_REMOVE(&f->held, w, link);
		err = send_write(w);
		if (err) {
			w->done(w->arg, err, &none);
			free(w);
		}
	}
	TAILQ_CONCAT(&puts, &f->held_puts, link);
	while ((p = TAILQ_FIRST(&puts))) {
		TAILQ_REMOVE(&puts, p, link);
		put_go(p);
	}
}

static void commit_over(struct commit *c, int err)
{
	struct berth_file *f = c->f;
	struct commit *next;

	TAILQ_CONCAT(&f->kept, &c->list, link); /* after an error: for the next try */
	TAILQ_REMOVE(&f->commits, c, link);
	if (!err && f->background_err && c->done != background_done) {
		err = f->background_err;
		f->background_err = 0;
	}
	release_held(f);
	next = TAILQ_FIRST(&f->commits);
	c->done(c->arg, err, &c->last);
	free(c);
	if (next && !next->started)
		run_commit(next);
}

static void resend_over(struct commit *c)
{
	if (--c->resending)
		return;
	if (c->err)
		commit_over(c, c->err);
	else if (TAILQ_EMPTY(&c->list))
		commit_over(c, 0);
	else if (++c->rounds == ROUNDS_MAX)
		commit_over(c, -EIO);
	else
		run_commit(c); /* answered less than FILE_SYNC again */
}

static void resent(void *arg, int err, const struct berth_reply *r)
{
	struct kept *k = arg;
	struct commit *c = k->job;

	if (err) {
		c->err = err;
	} else {
		c->f->b->count.resent_unstable_bytes += r->count;
		maps_written(c->f, k->off, r->count);
		memcpy(k->verf, r->verf, sizeof(k->verf));
		k->layout = 0;
		if (r->count < k->len) { /* the rest once more, in the next round */
			memset(k->verf, 0, sizeof(k->verf));
			if (r->stable == BERTH_FILE_SYNC)
				kept_trim(c->f, k, r->count, k->len - r->count);
		} else if (r->stable == BERTH_FILE_SYNC) {
			kept_drop(c->f, &c->list, k);
		}
	}
	resend_over(c);
}

/* What a put placed may be longer than a WRITE: cut it. */
static int cut_to_size(struct commit *c)
{
	size_t max = c->f->b->wtmax;
	struct kept *k;

	TAILQ_FOREACH (k, &c->list, link) {
		int err = k->len > max ? kept_split(c->f, &c->list, k, k->off + max, k->off + max) : 0;

		if (err)
			return err;
	}
	return 0;
}

/* F3 holds here: nothing else of the file is out. */
static void resend(struct commit *c)
{
	struct kept *k, *next;
	int err;

	c->quiet_wanted = false;
	c->resending = 1; /* ours, so that the end is not reached in the loop */
	c->err = cut_to_size(c);
	for (k = TAILQ_FIRST(&c->list); k && !c->err; k = next) {
		next = TAILQ_NEXT(k, link);
		k->job = c;
		err = berth_start_write(c->f->b, &c->f->fh, k->off, k->data, k->len,
		                        BERTH_FILE_SYNC, resent, k);
		if (err)
			c->err = err;
		else
			c->resending++;
	}
	resend_over(c);
}

/* Every part is answered: what is still in the list was lost. */
static void answered_all(struct commit *c)
{
	if (c->err) {
		commit_over(c, c->err);
	} else if (TAILQ_EMPTY(&c->list)) {
		commit_over(c, 0);
	} else {
		c->quiet_wanted = true;
		if (!c->f->writes_out)
			resend(c);
	}
}

static void committed(void *arg, int err, const struct berth_reply *r)
{
	struct commit *c = arg;
	struct kept *k, *next;

	c->last = *r;
	if (err)
		c->err = err;
	for (k = TAILQ_FIRST(&c->list); k && !err; k = next) {
		next = TAILQ_NEXT(k, link);
		if (!k->layout && !memcmp(k->verf, r->verf, sizeof(k->verf)))
			kept_drop(c->f, &c->list, k);
	}
	if (!--c->waiting)
		answered_all(c);
}

void file_commit_answer(struct commit *c, unsigned call, bool durable)
{
	struct kept *k, *next;

	for (k = TAILQ_FIRST(&c->list); k && durable; k = next) {
		next = TAILQ_NEXT(k, link);
		if (k->layout && k->call == call)
			kept_drop(c->f, &c->list, k);
	}
	if (!--c->waiting)
		answered_all(c);
}

/* There was nothing to ask. */
static void nothing_to_wait_for(void *arg, int err, const struct berth_reply *r)
{
	struct commit *c = arg;

	(void)r;
	if (err)
		c->err = err;
	if (!--c->waiting)
		answered_all(c);
}

static bool wants_nfs_commit(const struct commit *c)
{
	const struct kept *k;

	if (TAILQ_EMPTY(&c->list))
		return c->end == UINT64_MAX && LIST_EMPTY(&c->f->maps);
	TAILQ_FOREACH (k, &c->list, link)
		if (!k->layout)
			return true;
	return false;
}

static void take(struct commit *c)
{
	struct kept *k, *next;

	for (k = TAILQ_FIRST(&c->f->kept); k; k = next) {
		next = TAILQ_NEXT(k, link);
		if (k->off >= c->end || k->off + k->len <= c->off)
			continue;
		TAILQ_REMOVE(&c->f->kept, k, link);
		TAILQ_INSERT_TAIL(&c->list, k, link);
	}
	c->started = true;
}

/* Send what the list needs; a callback will follow, or the error. */
static int ask(struct commit *c)
{
	struct op *op;
	int err = 0;

	c->waiting = 0;
	if (wants_nfs_commit(c)) {
		err = berth_start_commit(c->f->b, &c->f->fh, committed, c);
		c->waiting += !err;
	}
	if (!err)
		c->waiting += maps_commit(c->f, c);
	if (c->waiting) {
		c->err = err;
		return 0;
	}
	op = err ? NULL : op_hold(c->f->b, nothing_to_wait_for, c);
	if (!op)
		return err ? err : -ENOMEM;
	c->waiting = 1;
	op_finish(op, 0);
	return 0;
}

static void run_commit(struct commit *c)
{
	int err;

	if (!c->started)
		take(c);
	err = ask(c);
	if (err) {
		memset(&c->last, 0, sizeof(c->last));
		commit_over(c, err);
	}
}

int file_start_commit(struct berth_file *f, uint64_t off, uint64_t end, berth_done *done, void *arg)
{
	struct commit *c = calloc(1, sizeof(*c));
	bool idle = TAILQ_EMPTY(&f->commits);
	int err;

	if (!c)
		return -ENOMEM;
	c->f = f;
	c->off = off;
	c->end = end;
	c->done = done;
	c->arg = arg;
	TAILQ_INIT(&c->list);
	TAILQ_INSERT_TAIL(&f->commits, c, link);
	if (!idle)
		return 0;
	take(c);
	err = ask(c);
	if (err) {
		TAILQ_CONCAT(&f->kept, &c->list, link);
		TAILQ_REMOVE(&f->commits, c, link);
		free(c);
	}
	return err;
}

int berth_file_start_commit(struct berth_file *f, berth_done *done, void *arg)
{
	return file_start_commit(f, 0, UINT64_MAX, done, arg);
}

/* --- write --- */

static void start_half_way(struct berth_file *f)
{
	if (copied_bytes(f) >= KEEP_MAX / 2 && TAILQ_EMPTY(&f->commits))
		berth_file_start_commit(f, background_done, f);
}

static int keep(struct berth_file *f, const struct write_op *w, const struct berth_reply *r)
{
	struct kept *k = kept_new(f, w->off, w->buf, r->count, true);

	if (!k)
		return -ENOMEM;
	memcpy(k->verf, r->verf, sizeof(k->verf));
	TAILQ_INSERT_TAIL(&f->kept, k, link);
	start_half_way(f);
	return 0;
}

int file_keep_put(struct berth_file *f, struct berth_map *m, uint64_t epoch, uint64_t layout, uint64_t off,
                  const void *buf, size_t len, bool copy)
{
	struct kept *k = kept_new(f, off, buf, len, copy);

	if (!k)
		return -ENOMEM;
	k->map = m;
	k->epoch = epoch;
	k->layout = layout;
	TAILQ_INSERT_TAIL(&f->kept, k, link);
	start_half_way(f);
	return 0;
}

bool file_may_copy(const struct berth_file *f, size_t len)
{
	return copied_bytes(f) + len <= KEEP_MAX;
}

void file_forget_map(struct berth_file *f, struct berth_map *m)
{
	struct kept *k, *next;

	for (k = TAILQ_FIRST(&f->kept); k; k = next) {
		next = TAILQ_NEXT(k, link);
		if (k->map == m)
			kept_drop(f, &f->kept, k);
	}
}

bool file_holds(const struct berth_file *f)
{
	const struct commit *c = TAILQ_FIRST(&f->commits);

	return c && (c->quiet_wanted || c->resending);
}

void file_put_begin(struct berth_file *f)
{
	f->writes_out++;
}

void file_put_end(struct berth_file *f)
{
	struct commit *c = TAILQ_FIRST(&f->commits);

	f->writes_out--;
	if (c && c->quiet_wanted && !f->writes_out)
		resend(c);
}

static void written(void *arg, int err, const struct berth_reply *r)
{
	struct write_op *w = arg;
	struct berth_file *f = w->f;

	if (!err) {
		maps_written(f, w->off, r->count);
		err = file_newer(f, w->off, r->count);
	}
	if (!err && r->stable < BERTH_FILE_SYNC)
		err = keep(f, w, r);
	file_put_end(f);
	w->done(w->arg, err, r);
	free(w);
}

static int send_write(struct write_op *w)
{
	struct berth_file *f = w->f;
	enum berth_stable stable = w->stable;
	int err;

	if (copied_bytes(f) + (size_t)f->writes_out * f->b->wtmax >= KEEP_MAX) /* F4 */
		stable = BERTH_FILE_SYNC;
	err = berth_start_write(f->b, &f->fh, w->off, w->buf, w->len, stable, written, w);
	if (!err)
		f->writes_out++;
	return err;
}

static int start_write(struct berth_file *f, uint64_t off, const void *buf, size_t len,
                       enum berth_stable stable, berth_done *done, void *arg, bool hold)
{
	struct write_op *w;
	int err = 0;

	if (!len || len > f->b->wtmax)
		return -EINVAL;
	w = malloc(sizeof(*w));
	if (!w)
		return -ENOMEM;
	*w = (struct write_op){ .f = f,
		                .off = off,
		                .buf = buf,
		                .len = len,
		                .stable = stable,
		                .done = done,
		                .arg = arg };
	if (hold)
		TAILQ_INSERT_TAIL(&f->held, w, link); /* F3 */
	else
		err = send_write(w);
	if (err)
		free(w);
	return err;
}

int berth_file_start_write(struct berth_file *f, uint64_t off, const void *buf, size_t len,
                           enum berth_stable stable, berth_done *done, void *arg)
{
	return start_write(f, off, buf, len, stable, done, arg, file_holds(f));
}

int file_put_write(struct berth_file *f, uint64_t off, const void *buf, size_t len, enum berth_stable stable,
                   berth_done *done, void *arg)
{
	return start_write(f, off, buf, len, stable, done, arg, false);
}

int berth_file_start_read(struct berth_file *f, uint64_t off, void *buf, size_t len,
                          berth_done *done, void *arg)
{
	return berth_start_read(f->b, &f->fh, off, buf, len, done, arg);
}

/* --- any length, synchronously --- */

struct transfer;
struct piece {
	struct transfer *t;
	size_t at, len; /* in the caller's buffer */
	size_t got;
	bool eof;
};
struct transfer {
	struct berth_file *f;
	uint8_t *buf;
	uint64_t off;
	size_t len;
	bool write;
	enum berth_stable stable;
	struct piece *piece;
	size_t npieces, next;
	unsigned out;
	size_t end; /* where reading found the end of the file */
	int err;
};

static void piece_done(void *arg, int err, const struct berth_reply *r);

static int piece_start(struct piece *p)
{
	struct transfer *t = p->t;
	uint64_t off = t->off + p->at + p->got;
	uint8_t *buf = t->buf + p->at + p->got;
	int err;

	err = t->write ? berth_file_start_write(t->f, off, buf, p->len - p->got, t->stable,
	                                        piece_done, p)
	               : berth_file_start_read(t->f, off, buf, p->len - p->got, piece_done, p);
	if (!err)
		t->out++;
	return err;
}

static void fill_window(struct transfer *t)
{
	while (!t->err && t->out < WINDOW && t->next < t->npieces &&
	       t->piece[t->next].at < t->end) {
		int err = piece_start(&t->piece[t->next++]);

		if (err)
			t->err = err;
	}
}

static void piece_done(void *arg, int err, const struct berth_reply *r)
{
	struct piece *p = arg;
	struct transfer *t = p->t;

	t->out--;
	if (!err)
		p->got += r->count;
	if (!err && p->got < p->len && !t->write && (r->eof || !r->count)) {
		if (p->at + p->got < t->end)
			t->end = p->at + p->got;
	} else if (!err && p->got < p->len) {
		err = piece_start(p);
	}
	if (err && !t->err)
		t->err = err;
	fill_window(t);
}

static ssize_t transfer(struct transfer *t)
{
	size_t max = t->write ? t->f->b->wtmax : t->f->b->rtmax;
	struct berth *b = t->f->b;

	if (b->in_progress)
		return -EDEADLK;
	t->npieces = (t->len + max - 1) / max;
	t->piece = calloc(t->npieces ? t->npieces : 1, sizeof(*t->piece));
	if (!t->piece)
		return -ENOMEM;
	for (size_t i = 0; i < t->npieces; i++)
		t->piece[i] =
			(struct piece){ .t = t,
			                .at = i * max,
			                .len = t->len - i * max < max ? t->len - i * max : max };
	t->end = t->len;
	fill_window(t);
	while (t->out)
		berth_wait(b, -1);
	free(t->piece);
	return t->err ? t->err : (ssize_t)t->end;
}

ssize_t berth_pread(struct berth_file *f, void *buf, size_t len, uint64_t off)
{
	struct transfer t = { .f = f, .buf = buf, .off = off, .len = len };

	return transfer(&t);
}

ssize_t berth_pwrite(struct berth_file *f, const void *buf, size_t len, uint64_t off,
                     enum berth_stable stable)
{
	struct transfer t = { .f = f,
		              .buf = (uint8_t *)buf,
		              .off = off,
		              .len = len,
		              .write = true,
		              .stable = stable };
	ssize_t n = transfer(&t);
	int err;

	if (n < 0 || stable == BERTH_UNSTABLE || (!copied_bytes(f) && TAILQ_EMPTY(&f->commits)))
		return n;
	err = berth_commit(f); /* a server that promises less than it is asked for */
	return err ? err : n;
}

/* --- open files --- */

int berth_commit(struct berth_file *f)
{
	struct waiting w = { 0 };
	int err;

	if (f->b->in_progress)
		return -EDEADLK;
	if (!f->kept_bytes && TAILQ_EMPTY(&f->commits) && !maps_touched(f)) { /* all was answered FILE_SYNC */
		err = f->background_err;
		f->background_err = 0;
		return err;
	}
	return sync_wait(f->b, &w, berth_file_start_commit(f, sync_done, &w));
}

int berth_ftruncate(struct berth_file *f, uint64_t size)
{
	struct berth_set set = { .set = BERTH_SET_SIZE, .size = size };
	struct waiting w = { 0 };
	int err = berth_commit(f); /* kept data must not grow the file again */

	return err ? err
	           : sync_wait(f->b, &w, berth_start_setattr(f->b, &f->fh, &set, sync_done, &w));
}

int berth_fstat(struct berth_file *f, struct berth_attr *attr)
{
	struct waiting w = { 0 };
	int err = sync_wait(f->b, &w, berth_start_getattr(f->b, &f->fh, sync_done, &w));

	if (!err)
		*attr = w.reply.attr;
	return err;
}

void berth_file_fh(const struct berth_file *f, struct berth_fh *out)
{
	*out = f->fh;
}

int berth_open_fh(struct berth *b, const struct berth_fh *fh, struct berth_file **out)
{
	struct berth_file *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->b = b;
	f->fh = *fh;
	TAILQ_INIT(&f->kept);
	TAILQ_INIT(&f->held);
	TAILQ_INIT(&f->held_puts);
	LIST_INIT(&f->maps);
	TAILQ_INIT(&f->commits);
	*out = f;
	return 0;
}

int berth_close(struct berth_file *f)
{
	struct kept *k;
	int err;

	if (!f)
		return 0;
	if (!LIST_EMPTY(&f->maps))
		return -EBUSY;
	err = berth_commit(f);
	if (err == -EDEADLK)
		return err;
	while (!TAILQ_EMPTY(&f->commits)) /* one that started by itself */
		berth_wait(f->b, -1);
	while ((k = TAILQ_FIRST(&f->kept)))
		kept_drop(f, &f->kept, k);
	free(f);
	return err;
}
