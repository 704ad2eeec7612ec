/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fabric_buf.c - memory that a provider may touch: message buffers in slabs, big ones singly, the
 * pool's regions
 */
#include "transport/fabric_server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SLAB_BUFS    64
#define LOCAL_ACCESS (FI_SEND | FI_RECV | FI_READ | FI_WRITE)
#define PIECE        ((size_t)1 << 30)

struct fslab {
	LIST_ENTRY(fslab) link;
	uint8_t *base;
	size_t len;
	struct fab_mr mr;
	struct fbuf buf[];
};

int fpool_new(struct fab *f, size_t cap, unsigned at_once, struct fpool **out)
{
	struct fpool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return -ENOMEM;
	pool->fab = f;
	pool->refs = 1;
	pool->cap = cap;
	pool->at_once = at_once ? at_once : SLAB_BUFS;
	*out = pool;
	return 0;
}

/* One mapping, one registration. */
static int slab_add(struct fpool *pool)
{
	struct fslab *s = calloc(1, sizeof(*s) + pool->at_once * sizeof(s->buf[0]));
	int err;

	if (!s)
		return -ENOMEM;
	s->len = pool->cap * pool->at_once;
	s->base = mmap(NULL, s->len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s->base == MAP_FAILED) {
		free(s);
		return -ENOMEM;
	}
	err = fab_mr_open(pool->fab, s->base, s->len, LOCAL_ACCESS, &s->mr);
	if (err) {
		munmap(s->base, s->len);
		free(s);
		return err;
	}
	LIST_INSERT_HEAD(&pool->slabs, s, link);
	for (unsigned i = 0; i < pool->at_once; i++) {
		s->buf[i].p = s->base + i * pool->cap;
		s->buf[i].cap = pool->cap;
		s->buf[i].pool = pool;
		s->buf[i].desc = s->mr.desc;
		LIST_INSERT_HEAD(&pool->free, &s->buf[i], link);
	}
	return 0;
}

static struct fbuf *big_get(struct fpool *pool, size_t len)
{
	struct fbuf *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->p = malloc(len);
	if (!b->p || fab_mr_open(pool->fab, b->p, len, LOCAL_ACCESS, &b->mr)) {
		free(b->p);
		free(b);
		return NULL;
	}
	b->desc = b->mr.desc;
	b->cap = len;
	b->big = true;
	b->pool = pool;
	LIST_INSERT_HEAD(&pool->big, b, link);
	return b;
}

struct fbuf *fbuf_get(struct fpool *pool, size_t len)
{
	struct fbuf *b;

	if (!pool->fab)
		return NULL;
	if (len > pool->cap)
		return big_get(pool, len);
	if (LIST_EMPTY(&pool->free) && slab_add(pool))
		return NULL;
	b = LIST_FIRST(&pool->free);
	LIST_REMOVE(b, link);
	b->call = NULL;
	b->conn = NULL;
	b->len = 0;
	return b;
}

void fbuf_put(struct fbuf *b)
{
	struct fpool *pool;

	if (!b)
		return;
	pool = b->pool;
	if (!b->big) {
		LIST_INSERT_HEAD(&pool->free, b, link);
		return;
	}
	LIST_REMOVE(b, link);
	if (pool->fab)
		fab_mr_close(pool->fab, &b->mr);
	free(b->p);
	free(b);
}

void fpool_put(struct fpool *pool)
{
	struct fslab *s;

	if (--pool->refs)
		return;
	while ((s = LIST_FIRST(&pool->slabs))) {
		LIST_REMOVE(s, link);
		munmap(s->base, s->len);
		free(s);
	}
	free(pool);
}

void fpool_close(struct fpool *pool)
{
	struct fslab *s;
	struct fbuf *b;

	if (pool->fab) {
		LIST_FOREACH (s, &pool->slabs, link)
			fab_mr_close(pool->fab, &s->mr);
		LIST_FOREACH (b, &pool->big, link)
			fab_mr_close(pool->fab, &b->mr);
	}
	pool->fab = NULL;
	fpool_put(pool);
}

/* --- regions --- */

static int region_piece(struct flistener *l, void *base, size_t len, bool read_only)
{
	struct fregions *r = &l->regions;
	struct fab_mr mr, *grown;
	int err = fab_mr_open(l->fab, base, len, FI_WRITE | (read_only ? 0 : FI_READ), &mr);

	if (err)
		return err;
	grown = realloc(r->mr, (r->n + 1) * sizeof(*r->mr));
	if (!grown) {
		fab_mr_close(l->fab, &mr);
		return -ENOMEM;
	}
	r->mr = grown;
	r->mr[r->n++] = mr;
	return 0;
}

static int region_add(struct flistener *l, const struct tp_region *reg)
{
	int err = region_piece(l, reg->base, reg->len, reg->read_only);

	/* Some providers refuse what is larger than a device likes. */
	if (err && reg->len > PIECE && err != -EOPNOTSUPP) {
		err = 0;
		for (size_t at = 0; at < reg->len && !err; at += PIECE)
			err = region_piece(l, (char *)reg->base + at,
			                   reg->len - at < PIECE ? reg->len - at : PIECE,
			                   reg->read_only);
	}
	return err;
}

/* Registration is refused for good (fsdax). */
static int region_refused(struct flistener *l, struct tp_error *why, const struct tp_fabric_opts *opts)
{
	const char *odp = opts->odp ? "on-demand paging is configured, but the device has none" :
				      "on-demand paging is not configured";

	if (opts->placement == TP_PLACE_DIRECT) {
		char text[300];

		snprintf(text, sizeof(text),
		         "registering the pool's memory, and placement = direct forbids to stage: the kernel does not "
		         "pin memory of a file on DAX, and %s (on_demand_paging = on needs a device that has it; a pool "
		         "on a device-DAX node needs neither)",
		         odp);
		return fab_error(why, opts, text, -EOPNOTSUPP);
	}
	l->regions.staged = true;
	snprintf(l->regions.why, sizeof(l->regions.why), "the kernel does not pin memory of a file on DAX; %s", odp);
	return 0;
}

static void say_registered(struct flistener *l, const struct tp_fabric_opts *opts)
{
	struct fregions *r = &l->regions;
	size_t bytes = 0;

	for (unsigned i = 0; i < r->n; i++)
		bytes += r->mr[i].len;
	snprintf(r->why, sizeof(r->why), "%.1f GiB registered in %u region%s%s", (double)bytes / (1 << 30), r->n,
	         r->n == 1 ? "" : "s", opts->odp ? ", on-demand paging asked for" : "");
}

int fregions_open(struct flistener *l, struct tp_error *why, const struct tp_fabric_opts *opts)
{
	const struct tp_service *svc = l->base.svc;
	struct fregions *r = &l->regions;

	if (!l->fab->mr_local) {
		snprintf(r->why, sizeof(r->why), "the provider needs no registration");
		return 0;
	}
	if (opts->placement == TP_PLACE_STAGED) {
		r->staged = true;
		snprintf(r->why, sizeof(r->why), "configured");
		return 0;
	}
	for (unsigned i = 0; i < svc->o.nregions; i++) {
		int err = region_add(l, &svc->o.regions[i]);

		if (err == -EOPNOTSUPP)
			err = region_refused(l, why, opts);
		else if (err)
			err = fab_error(why, opts, "registering the pool's memory", err);
		if (err) {
			fregions_close(l);
			return err;
		}
	}
	if (!r->staged)
		say_registered(l, opts);
	return 0;
}

void fregions_close(struct flistener *l)
{
	if (l->fab)
		for (unsigned i = 0; i < l->regions.n; i++)
			fab_mr_close(l->fab, &l->regions.mr[i]);
	free(l->regions.mr);
	l->regions = (struct fregions){ 0 };
}

bool fregions_desc(const struct flistener *l, const void *p, size_t *len, void **desc)
{
	const struct fregions *r = &l->regions;

	*desc = NULL;
	if (!l->fab->mr_local)
		return true;
	for (unsigned i = 0; i < r->n; i++) {
		size_t at = (uintptr_t)p - (uintptr_t)r->mr[i].base;

		if ((uintptr_t)p < (uintptr_t)r->mr[i].base || at >= r->mr[i].len)
			continue;
		if (*len > r->mr[i].len - at)
			*len = r->mr[i].len - at;
		*desc = r->mr[i].desc;
		return true;
	}
	return false;
}
