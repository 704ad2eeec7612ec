/* SPDX-License-Identifier: BSD-3-Clause */
/* medium.c - memory behind struct pm_media_ops, with a log or a list of touched lines */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "test/lib/medium.h"

static void die(const char *what)
{
	fprintf(stderr, "medium: %s\n", what);
	abort();
}

static void *must(void *p)
{
	if (!p || p == MAP_FAILED)
		die("no memory");
	return p;
}

static struct medium *of(struct pm_media *m)
{
	return m->priv;
}

static uint32_t off(const struct pm_media *m, const void *at)
{
	return (uint32_t)((const uint8_t *)at - m->base);
}

/* --- the log --------------------------------------------------------------------------------- */

enum ev_where medium_where(const struct medium *d, uint32_t at)
{
	if (at < d->head)
		return AT_SUPER;
	if (at >= d->data)
		return AT_POOL;
	return (at - d->head) % d->lanes < PM_BLOCK ? AT_HEAD : AT_RECORD;
}

static struct ev *log_event(struct medium *d, uint8_t kind, uint32_t at, size_t len)
{
	struct ev *e;

	if (d->nev == d->cap) {
		d->cap = d->cap ? 2 * d->cap : 1024;
		d->ev = must(realloc(d->ev, d->cap * sizeof(*d->ev)));
	}
	e = &d->ev[d->nev++];
	*e = (struct ev){ .kind = kind, .at = at, .len = (uint32_t)len, .by = d->by };
	if (kind != EV_FENCE && kind != EV_WINDOW && kind != EV_RELEASED)
		e->where = (uint8_t)medium_where(d, at);
	return e;
}

static void log_bytes(struct medium *d, uint8_t kind, uint32_t at, size_t len)
{
	struct ev *e = log_event(d, kind, at, len);

	while (d->nbytes + len > d->capbytes) {
		d->capbytes = d->capbytes ? 2 * d->capbytes : 1u << 20;
		d->bytes = must(realloc(d->bytes, d->capbytes));
	}
	e->bytes = d->nbytes;
	memcpy(d->bytes + d->nbytes, d->m.base + at, len);
	d->nbytes += (len + 7) & ~(size_t)7; /* what is read out of them as a struct is aligned */
	memset(d->via + at / LINE, kind, (at + len - 1) / LINE - at / LINE + 1);
}

/* --- the operations -------------------------------------------------------------------------- */

static void stored(struct medium *d, uint8_t kind, uint32_t at, size_t len)
{
	if (d->recording) {
		log_bytes(d, kind, at, len);
		return;
	}
	for (uint32_t l = at / LINE; l <= (at + len - 1) / LINE; l++) {
		if (!d->is_hot[l]) {
			d->is_hot[l] = 1;
			d->hot[d->nhot++] = l;
		}
	}
}

static void put(struct pm_media *m, uint8_t kind, void *dst, const void *src, size_t len)
{
	struct medium *d = of(m);

	if (!len)
		return;
	if (d->before)
		d->before(d->hook_arg, kind, off(m, dst), src);
	pthread_mutex_lock(&d->lock);
	if (src)
		memcpy(dst, src, len);
	else
		memset(dst, 0, len);
	stored(d, kind, off(m, dst), len);
	pthread_mutex_unlock(&d->lock);
}

static void med_op_store(struct pm_media *m, void *dst, const void *src, size_t len)
{
	put(m, EV_STORE, dst, src, len);
}

static void med_op_nt(struct pm_media *m, void *dst, const void *src, size_t len)
{
	put(m, EV_NT, dst, src, len);
}

static void med_op_zero(struct pm_media *m, void *dst, size_t len)
{
	put(m, EV_NT, dst, NULL, len);
}

static void logged(struct pm_media *m, uint8_t kind, uint32_t at, size_t len)
{
	struct medium *d = of(m);
	struct ev *e;

	if (!d->recording)
		return;
	pthread_mutex_lock(&d->lock);
	e = log_event(d, kind, at, len);
	if (kind == EV_FLUSH || kind == EV_SYNC)
		e->via = d->via[at / LINE];
	pthread_mutex_unlock(&d->lock);
}

static void med_op_flush(struct pm_media *m, const void *at, size_t len)
{
	struct medium *d = of(m);

	if (!len)
		return;
	if (d->before)
		d->before(d->hook_arg, EV_FLUSH, off(m, at), NULL);
	logged(m, EV_FLUSH, off(m, at), len);
}

static void med_op_drain(struct pm_media *m)
{
	struct medium *d = of(m);

	if (d->before)
		d->before(d->hook_arg, EV_FENCE, 0, NULL);
	logged(m, EV_FENCE, 0, 0);
	if (d->fenced)
		d->fenced(d->hook_arg);
}

static int med_op_sync(struct pm_media *m, const void *at, size_t len)
{
	if (len)
		logged(m, EV_SYNC, off(m, at), len);
	return 0;
}

static void med_op_close(struct pm_media *m)
{
	(void)m;
}

static void med_op_blocked(struct pm_media *m, bool is)
{
	struct medium *d = of(m);

	if (d->blocked)
		d->blocked(d->hook_arg, is);
}

static const struct pm_media_ops ops = { .store = med_op_store,
	                                 .store_nt = med_op_nt,
	                                 .zero = med_op_zero,
	                                 .flush = med_op_flush,
	                                 .drain = med_op_drain,
	                                 .sync = med_op_sync,
	                                 .close = med_op_close,
	                                 .blocked = med_op_blocked };

void medium_place(struct medium *d, void *dst, const void *src, size_t len)
{
	put(&d->m, EV_PLACE, dst, src, len);
}

void medium_window(struct medium *d, unsigned answered, unsigned begun)
{
	logged(&d->m, EV_WINDOW, answered, begun);
}

void medium_released(struct medium *d)
{
	logged(&d->m, EV_RELEASED, 0, 0);
}

/* --- making and opening ---------------------------------------------------------------------- */

static void learn_layout(struct medium *d)
{
	struct pm_super s;

	if (super_read(&d->m, true, &s, NULL))
		return;
	d->head = s.lane_start * PM_BLOCK;
	d->lanes = (uint64_t)s.lane_blocks * PM_BLOCK;
	d->data = s.data_start * PM_BLOCK;
}

struct medium *medium_new(const uint8_t *image, size_t len, enum pm_method method, bool recording)
{
	struct medium *d = must(calloc(1, sizeof(*d)));
	int fd = memfd_create("medium", MFD_CLOEXEC), rw = PROT_READ | PROT_WRITE;

	if (fd < 0 || ftruncate(fd, (off_t)len))
		die("no memfd");
	d->m = (struct pm_media){
		.ops = &ops, .len = len, .method = method, .reason = "test", .fd = fd, .priv = d
	};
	d->recording = recording;
	pthread_mutex_init(&d->lock, NULL);
	d->m.base = d->m.view = must(mmap(NULL, len, rw, MAP_SHARED, fd, 0));
	if (method == PM_MSYNC)
		d->m.view = must(mmap(NULL, len, rw, MAP_PRIVATE, fd, 0));
	if (image)
		memcpy(d->m.base, image, len);
	d->via = must(calloc(1, len / LINE));
	if (recording && image) {
		d->image = must(malloc(len));
		memcpy(d->image, image, len);
	}
	if (!recording) {
		d->hot = must(malloc(len / LINE * sizeof(*d->hot)));
		d->is_hot = must(calloc(1, len / LINE));
	}
	if (image)
		learn_layout(d);
	return d;
}

void medium_free(struct medium *d)
{
	if (d->m.view != d->m.base)
		munmap(d->m.view, d->m.len);
	munmap(d->m.base, d->m.len);
	close(d->m.fd);
	pthread_mutex_destroy(&d->lock);
	free(d->ev);
	free(d->bytes);
	free(d->via);
	free(d->image);
	free(d->hot);
	free(d->is_hot);
	free(d);
}

/* --- a private copy, as those who only read have ------------------------------------------------ */

static void private_op_store(struct pm_media *m, void *dst, const void *src, size_t len)
{
	(void)m;
	memcpy(dst, src, len);
}

static void private_op_zero(struct pm_media *m, void *dst, size_t len)
{
	(void)m;
	memset(dst, 0, len);
}

static void private_op_flush(struct pm_media *m, const void *at, size_t len)
{
	(void)m;
	(void)at;
	(void)len;
}

static void private_op_drain(struct pm_media *m)
{
	(void)m;
}

static int private_op_sync(struct pm_media *m, const void *at, size_t len)
{
	private_op_flush(m, at, len);
	return 0;
}

static void private_op_close(struct pm_media *m)
{
	munmap(m->base, m->len);
}

static const struct pm_media_ops private_ops = { .store = private_op_store,
	                                         .store_nt = private_op_store,
	                                         .zero = private_op_zero,
	                                         .flush = private_op_flush,
	                                         .drain = private_op_drain,
	                                         .sync = private_op_sync,
	                                         .close = private_op_close };

static int open_private(struct medium *d, struct pm_store **out, struct pm_error *why)
{
	struct pm_open_opts o = { .read_only = true };
	struct pm_media m = d->m;
	int err;

	m.ops = &private_ops;
	m.method = PM_VOLATILE;
	m.base = m.view =
		must(mmap(NULL, m.len, PROT_READ | PROT_WRITE, MAP_PRIVATE, d->m.fd, 0));
	err = store_open_media(&m, &o, out, why);
	if (err)
		munmap(m.base, m.len);
	return err;
}

struct pm_store *medium_open(struct medium *d, struct pm_error *why)
{
	struct pm_open_opts o = { .method = d->m.method };
	struct pm_media m = d->m;
	struct pm_store *st = NULL;

	why->text[0] = '\0';
	return store_open_media(&m, &o, &st, why) ? NULL : st;
}

struct pm_store *medium_open_ro(struct medium *d, struct pm_error *why)
{
	struct pm_store *st = NULL;

	why->text[0] = '\0';
	return open_private(d, &st, why) ? NULL : st;
}

static int open_for_repair(void *arg, bool write, struct pm_store **out, struct pm_error *why)
{
	struct medium *d = arg;
	struct pm_open_opts o = { .method = d->m.method };
	struct pm_media m = d->m;

	return write ? store_open_repair_media(&m, &o, out, why) : open_private(d, out, why);
}

int medium_repair(struct medium *d, const struct pm_repair_calls *calls, void *arg,
                  struct pm_repair_report *out, struct pm_error *why)
{
	const struct repair_pool pool = { .name = "medium", .open = open_for_repair, .arg = d };

	why->text[0] = '\0';
	return store_repair(&pool, calls, arg, out, why);
}

/* mkfs makes 16 MiB; its parts are put together again on less. */
uint8_t *medium_image(const struct geometry *g)
{
	struct medium *d = medium_new(NULL, PM_MIN_SIZE, PM_CLWB, false);
	struct pm_mkfs_opts o = { .label = "crash", .uuid = { 1, 2, 3 } };
	size_t len = (size_t)g->blocks * PM_BLOCK;
	uint8_t *img = must(malloc(len)), *chunk;
	struct pm_super s;
	struct pm_inode *in;

	d->m.zeroed = true;
	if (mkfs_media(&d->m, &o, NULL) || super_read(&d->m, true, &s, NULL))
		die("mkfs");
	chunk = d->m.base + s.data_start * PM_BLOCK;
	s.blocks = g->blocks;
	s.lanes = g->lanes;
	s.lane_blocks = g->lane_blocks;
	s.data_start = s.lane_start + (uint64_t)s.lanes * s.lane_blocks;
	s.reply_start = s.data_start + PM_CHUNK_BLOCKS;
	s.reply_blocks = 1;
	if (g->sums) {
		s.ro_compat |= PM_ROCOMPAT_SUMS;
		s.sum_blocks = sum_table_blocks(g->blocks);
		s.sum_start = g->blocks - s.sum_blocks;
	}
	memset(s.secret, 7, sizeof(s.secret));
	memset(img, 0, s.data_start * PM_BLOCK);
	memset(img + s.data_start * PM_BLOCK, MEDIUM_STALE, len - s.data_start * PM_BLOCK);
	memset(img + s.reply_start * PM_BLOCK, 0, s.reply_blocks * PM_BLOCK);
	for (s.seq = 1; s.seq <= 2; s.seq++) {
		s.crc = pm_crc(&s, sizeof(s), offsetof(struct pm_super, crc));
		memcpy(img + (s.seq & 1) * PM_BLOCK, &s, sizeof(s));
	}
	for (unsigned i = 0; i < s.lanes; i++)
		memcpy(img + (s.lane_start + (uint64_t)i * s.lane_blocks) * PM_BLOCK,
		       d->m.base + s.lane_start * PM_BLOCK, PM_BLOCK);
	in = (void *)(img + s.data_start * PM_BLOCK);
	memcpy(in, chunk, PM_CHUNK_BLOCKS * PM_BLOCK);
	in->u.ext[0].pblk = s.data_start & ((1ull << 44) - 1);
	in->crc = pm_crc(in, sizeof(*in), offsetof(struct pm_inode, crc));
	medium_free(d);
	return img;
}

uint8_t *medium_not_in_place(const struct medium *d, enum ev_where where)
{
	uint8_t *p = must(malloc(d->m.len));
	size_t from = 0;

	memcpy(p, d->image, d->m.len);
	for (size_t i = 0; i < d->nev; i++)
		if (d->ev[i].kind == EV_STORE && d->ev[i].where == where)
			from = i;
	for (size_t i = 0; i < d->nev; i++) {
		const struct ev *e = &d->ev[i];

		if (e->kind != EV_STORE && e->kind != EV_NT && e->kind != EV_PLACE)
			continue;
		if (i < from || e->kind != EV_STORE || e->where != AT_POOL)
			memcpy(p + e->at, d->bytes + e->bytes, e->len);
	}
	return p;
}

static void records_of_version_1(uint8_t *p, const uint8_t *end)
{
	struct pm_rec *r = (void *)p;

	while ((size_t)(end - p) > sizeof(*r) && r->magic == PM_REC_MAGIC) {
		r->magic = PM_REC_MAGIC_1;
		r->unsure = PM_REC_TYPE_1;
		r->crc = pm_crc(r, r->len, offsetof(struct pm_rec, crc));
		p += r->len;
		r = (void *)p;
	}
}

void image_of_version_1(uint8_t *image)
{
	struct pm_super *s = NULL;

	for (unsigned i = 0; i < 2; i++) {
		s = (void *)(image + i * PM_BLOCK);
		s->version = 1;
		s->crc = pm_crc(s, sizeof(*s), offsetof(struct pm_super, crc));
	}
	for (unsigned l = 0; l < s->lanes; l++) {
		uint8_t *lane = image + (s->lane_start + (uint64_t)l * s->lane_blocks) * PM_BLOCK;

		records_of_version_1(lane + PM_BLOCK, lane + s->lane_blocks * PM_BLOCK);
	}
}
