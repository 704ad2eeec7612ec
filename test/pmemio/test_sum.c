/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checksums of file data: at every moment at which the power may fail, or the server be killed,
 * each block that can be read is as its entry says, and holds what was promised.
 *
 * The media is memory with a second copy, which gets only what was flushed and fenced, or synced:
 * what a power failure leaves at least. The first one is what a kill leaves, and a power failure at
 * most.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pmemio/core.h"
#include "test/lib/pool.h"

#define SIZE    (18u << 20)
#define LIMIT   (96u * 1024)
#define FILES   3u
#define FLIGHTS 3u
#define RANGES  65536u
#define STALE   0xee

/* --- media --- */

struct sim {
	struct pm_media m;
	uint8_t *safe;
	struct iovec *pending; /* flushed since the last fence */
	unsigned npending;
	void (*fenced)(struct sim *s); /* a test looks at every fence, or sync */
	unsigned fences;
};

static void sim_store(struct pm_media *m, void *dst, const void *src, size_t len)
{
	(void)m;
	memcpy(dst, src, len);
}

static void sim_zero(struct pm_media *m, void *dst, size_t len)
{
	(void)m;
	memset(dst, 0, len);
}

static void sim_flush(struct pm_media *m, const void *at, size_t len)
{
	struct sim *s = m->priv;
	size_t from = (size_t)((const uint8_t *)at - m->base), to = (from + len + 63) & ~63ull;

	if (!s->safe)
		return;
	cr_assert_lt(s->npending, RANGES);
	s->pending[s->npending++] =
		(struct iovec){ m->base + (from & ~63ull), to - (from & ~63ull) };
}

static void sim_drain(struct pm_media *m)
{
	struct sim *s = m->priv;

	for (unsigned i = 0; i < s->npending; i++) {
		size_t at = (size_t)((uint8_t *)s->pending[i].iov_base - m->base);

		memcpy(s->safe + at, s->pending[i].iov_base, s->pending[i].iov_len);
	}
	s->npending = 0;
	if (s->fenced)
		s->fenced(s);
}

static int sim_sync(struct pm_media *m, const void *at, size_t len)
{
	struct sim *s = m->priv;
	size_t from = (size_t)((const uint8_t *)at - m->base) & ~4095ull;
	size_t to = ((size_t)((const uint8_t *)at - m->base) + len + 4095) & ~4095ull;

	if (s->safe)
		memcpy(s->safe + from, m->base + from, to - from);
	if (s->fenced)
		s->fenced(s);
	return 0;
}

static void sim_close(struct pm_media *m)
{
	struct sim *s = m->priv;

	munmap(m->base, m->len);
	if (m->view != m->base)
		munmap(m->view, m->len);
	close(m->fd);
	free(s->pending);
	free(s->safe);
	free(s);
}

static const struct pm_media_ops sim_ops = {
	.store = sim_store,
	.store_nt = sim_store,
	.zero = sim_zero,
	.flush = sim_flush,
	.drain = sim_drain,
	.sync = sim_sync,
	.close = sim_close,
};

static struct sim *sim_new(enum pm_method method, const uint8_t *image, bool strict)
{
	struct sim *s = calloc(1, sizeof(*s));
	int fd = memfd_create("pool", 0);

	cr_assert(s && fd >= 0 && ftruncate(fd, SIZE) == 0);
	s->m = (struct pm_media){ .ops = &sim_ops,
		                  .len = SIZE,
		                  .method = method,
		                  .reason = "test",
		                  .fd = fd,
		                  .priv = s };
	s->m.base = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	s->m.view = method != PM_MSYNC
	                    ? s->m.base
	                    : mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	cr_assert(s->m.base != MAP_FAILED && s->m.view != MAP_FAILED);
	if (image)
		memcpy(s->m.base, image, SIZE);
	else
		memset(s->m.base, STALE, SIZE);
	if (strict) {
		s->safe = malloc(SIZE);
		s->pending = malloc(RANGES * sizeof(*s->pending));
		cr_assert(s->safe && s->pending);
		memcpy(s->safe, s->m.base, SIZE);
	}
	return s;
}

static unsigned logged;

static void count_line(void *arg, int priority, const char *text)
{
	(void)arg;
	(void)priority;
	logged += strstr(text, "differs from its checksum") != NULL;
}

static struct pm_store *open_sim(struct sim *s, bool verify)
{
	struct pm_open_opts o = { .method = s->m.method,
		                  .verify_reads = verify,
		                  .log = count_line };
	struct pm_media m = s->m;
	struct pm_error why = { "" };
	struct pm_store *st;

	cr_assert_eq(store_open_media(&m, &o, &st, &why), 0, "%s", why.text);
	return st;
}

static struct sim *made(enum pm_method method, bool sums)
{
	struct pm_mkfs_opts mk = { .size = SIZE, .data_checksum = sums };
	struct sim *s = sim_new(method, NULL, true);
	struct pm_error why = { "" };

	cr_assert_eq(mkfs_media(&s->m, &mk, &why), 0, "%s", why.text);
	return s;
}

/* --- helpers --- */

static const struct pm_id root = { PM_ROOT_INO, 1 };

static struct pm_id mk(struct pm_store *st, const char *name)
{
	struct pm_new nw = { .type = PM_REG, .mode = 0644 };
	struct pm_change ch;

	cr_assert_eq(pm_create(st, root, name, strlen(name), &nw, &ch), 0);
	cr_assert_eq(pool_wait(st, ch.lsn), 0);
	return ch.obj.id;
}

static void place(struct pm_map *m, uint64_t n, int byte)
{
	for (unsigned i = 0; i < m->nseg && n; i++) {
		size_t k = m->seg[i].iov_len < n ? m->seg[i].iov_len : n;

		memset(m->seg[i].iov_base, byte, k);
		n -= k;
	}
}

static int commit(struct pm_map *m, uint64_t prefix, struct pm_committed *c)
{
	struct test_waiter w;

	waiter_init(&w);
	return waiter_result(&w, pm_commit(m, prefix, PM_UNSTABLE, true, c, &w.w));
}

static int put(struct pm_store *st, struct pm_id id, uint64_t off, uint32_t len, int byte)
{
	struct pm_committed c;
	struct pm_map m;
	int err = pm_map_write(st, id, off, len, &m, NULL);

	if (err)
		return err;
	place(&m, len, byte);
	err = commit(&m, len, &c);
	pm_unpin(&m);
	cr_assert(err || !sum_on(st) || c.stable == PM_FILE_SYNC,
	          "a block that can be read has an entry");
	return err;
}

static void resize(struct pm_store *st, struct pm_id id, uint64_t size)
{
	struct pm_setattr sa = { .set = PM_SET_SIZE, .size = size };
	struct pm_change ch;

	cr_assert_eq(pm_setattr(st, id, &sa, &ch), 0);
	cr_assert_eq(pool_wait(st, ch.lsn), 0);
}

static uint64_t scrub(struct pm_store *st, struct pm_scrub *s)
{
	int err;

	while ((err = pm_scrub_step(st, s, 7)) == -EAGAIN)
		;
	cr_assert_eq(err, 0);
	cr_assert_eq(s->unreadable, 0);
	return s->bad;
}

static void say(void *arg, const char *where, const char *what)
{
	(void)arg;
	fprintf(stderr, "%s: %s\n", where, what);
}

static void sound(struct pm_store *st)
{
	struct pm_check_report rep;
	struct pm_scrub s = { .found = NULL };

	cr_assert_eq(store_check(st, say, NULL, NULL, &rep), 0);
	cr_assert_eq(rep.problems, 0);
	cr_assert_eq(scrub(st, &s), 0);
}

/* --- any moment --- */

struct model {
	struct pm_id id;
	uint64_t size;
	uint8_t byte[LIMIT];
	uint8_t alt[LIMIT]; /* or this one, of a write on its way; 0: none */
};
struct flight { /* a write on its way */
	struct pm_map m;
	struct model *f;
	uint64_t off, len, cut, placed;
	int byte;
};
struct world {
	struct sim *sim;
	struct pm_store *st;
	struct model file[FILES];
	struct flight flight[FLIGHTS];
};

static uint64_t upto(uint64_t n)
{
	return n ? (uint64_t)random() % n : 0;
}

static bool busy(const struct world *v, const struct model *f, uint64_t off, uint64_t len)
{
	for (unsigned i = 0; i < FLIGHTS; i++) {
		const struct flight *x = &v->flight[i];

		if (x->f == f && off / PM_BLOCK <= (x->off + x->len - 1) / PM_BLOCK &&
		    x->off / PM_BLOCK <= (off + len - 1) / PM_BLOCK)
			return true;
	}
	return false;
}

static void take_off(struct world *v, struct flight *x, struct model *f)
{
	uint64_t off = upto(3) ? upto(LIMIT) : f->size, len = 1 + upto(upto(2) ? 3000 : 20000);

	if (off >= LIMIT)
		off = upto(LIMIT);
	if (upto(3) == 0)
		off &= ~4095ull;
	len = len > LIMIT - off ? LIMIT - off : len;
	if (busy(v, f, off, len))
		return;
	*x = (struct flight){
		.f = f, .off = off, .len = len, .cut = UINT64_MAX, .byte = 1 + (int)upto(200)
	};
	cr_assert_eq(pm_map_write(v->st, f->id, off, (uint32_t)len, &x->m, NULL), 0);
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static void fly(struct flight *x)
{
	uint64_t n = upto(3) ? x->len : upto(x->len + 1);

	place(&x->m, n, x->byte);
	x->placed = n > x->placed ? n : x->placed;
	for (uint64_t at = x->off; at < least(x->off + x->placed, x->cut); at++)
		x->f->alt[at] = (uint8_t)x->byte;
}

static void check_file(struct pm_store *st, struct model *f, bool adopt)
{
	struct pm_map m;
	uint64_t at = 0;

	cr_assert_eq(pm_map_read(st, f->id, 0, LIMIT, &m), 0);
	cr_assert_eq(m.attr.size, f->size);
	for (unsigned i = 0; i < m.nseg; at += m.seg[i++].iov_len) {
		for (size_t n = 0; n < m.seg[i].iov_len; n++) {
			uint8_t is = ((uint8_t *)m.seg[i].iov_base)[n];

			cr_assert(is == f->byte[at + n] || (f->alt[at + n] && is == f->alt[at + n]),
			          "byte %lu of %lu is %u, not %u nor %u", (unsigned long)(at + n),
			          (unsigned long)f->size, is, f->byte[at + n], f->alt[at + n]);
			if (adopt)
				f->byte[at + n] = is;
		}
	}
	pm_unpin(&m);
}

/* A write is over: what it left half done is what the file holds. */
static void settle(struct world *v, struct flight *x)
{
	struct model *f = x->f;

	check_file(v->st, f, true);
	for (uint64_t at = x->off; at < x->off + x->len; at++)
		f->alt[at] = 0;
	x->f = NULL;
}

static void land(struct world *v, struct flight *x)
{
	uint64_t end = x->off + (upto(4) ? x->placed : upto(x->placed + 1));
	struct pm_committed c;
	struct model *f = x->f;

	if (upto(6)) {
		cr_assert_eq(commit(&x->m, end - x->off, &c), 0);
		cr_assert_eq(c.stable, PM_FILE_SYNC);
		end = end < x->cut ? end : x->cut;
		if (end > x->off) {
			memset(f->byte + x->off, x->byte, end - x->off);
			memset(f->alt + x->off, 0, end - x->off);
			f->size = f->size < end ? end : f->size;
		}
	}
	pm_unpin(&x->m);
	settle(v, x);
}

static void cut(struct world *v, struct model *f)
{
	uint64_t size = upto(2) ? upto(LIMIT) : upto(f->size + 1);

	resize(v->st, f->id, size);
	if (size < f->size) {
		memset(f->byte + size, 0, LIMIT - size);
		memset(f->alt + size, 0, LIMIT - size);
	}
	for (unsigned i = 0; size < f->size && i < FLIGHTS; i++) {
		struct flight *x = &v->flight[i];

		if (x->f == f && size < x->cut)
			x->cut = size;
	}
	f->size = size;
}

static void reserve(struct world *v, struct model *f)
{
	struct pm_change ch;

	cr_assert_eq(pm_allocate(v->st, f->id, upto(LIMIT), upto(20000), &ch), 0);
	cr_assert_eq(pool_wait(v->st, ch.lsn), 0);
}

/* The power fails, or the server is killed, and @image is what is left. */
static void after(struct world *v, const uint8_t *image)
{
	struct pm_store *st = open_sim(sim_new(v->sim->m.method, image, false), true);

	sound(st);
	for (unsigned k = 0; k < FILES; k++)
		check_file(st, &v->file[k], false);
	cr_assert_eq(pm_close(st), 0);
}

static void any_moment(enum pm_method method, unsigned seed, unsigned steps)
{
	struct world *v = calloc(1, sizeof(*v));

	srandom(seed);
	v->sim = made(method, true);
	v->st = open_sim(v->sim, true);
	for (unsigned i = 0; i < FILES; i++)
		v->file[i].id = mk(v->st, (char[]){ (char)('a' + i), 0 });
	for (unsigned i = 0; i < steps; i++) {
		struct model *f = &v->file[upto(FILES)];
		struct flight *x = &v->flight[upto(FLIGHTS)];
		uint64_t k = upto(10);

		if (k == 0)
			cut(v, f);
		else if (k == 1)
			reserve(v, f);
		else if (!x->f)
			take_off(v, x, f);
		else if (k < 5)
			fly(x);
		else if (x->placed)
			land(v, x);
		for (unsigned n = 0; n < FILES; n++)
			check_file(v->st, &v->file[n], false);
		if (i % 12 == 11)
			after(v, v->sim->safe);
		if (i % 12 == 5)
			after(v, v->sim->m.base);
	}
	for (unsigned i = 0; i < FLIGHTS; i++)
		if (v->flight[i].f)
			land(v, &v->flight[i]);
	cr_assert_eq(pm_close(v->st), 0);
	free(v);
}

Test(sum, holds_at_any_moment_with_clwb)
{
	any_moment(PM_CLWB, 1, 900);
}
Test(sum, holds_at_any_moment_with_msync)
{
	any_moment(PM_MSYNC, 2, 900);
}

/* A write of several transactions, seen at every fence. */
static void look(struct sim *s)
{
	struct pm_store *st;
	uint8_t *image = malloc(SIZE);

	s->fences++;
	memcpy(image, s->safe, SIZE);
	st = open_sim(sim_new(s->m.method, image, false), true);
	sound(st);
	cr_assert_eq(pm_close(st), 0);
	free(image);
}

static void large(enum pm_method method)
{
	struct sim *s = made(method, true);
	struct pm_store *st = open_sim(s, true);
	struct pm_id id = mk(st, "large");

	cr_assert_eq(put(st, id, 0, 7000, 1), 0);
	s->fenced = look;
	cr_assert_eq(put(st, id, 100, 8 << 20, 2), 0);
	cr_assert_geq(s->fences, 3, "it is more than one transaction");
	cr_assert_eq(put(st, id, 1 << 20, 5 << 20, 3), 0);
	s->fenced = NULL;
	sound(st);
	cr_assert_eq(pm_close(st), 0);
}

Test(sum, large_write_with_clwb)
{
	large(PM_CLWB);
}
Test(sum, large_write_with_msync)
{
	large(PM_MSYNC);
}

/* --- damage --- */

static struct sim *sim;
static struct pm_store *st;
static struct pm_id file;

static void setup_for(enum pm_method method)
{
	sim = made(method, true);
	st = open_sim(sim, true);
	file = mk(st, "file");
	logged = 0;
}

static void setup(void)
{
	setup_for(PM_CLWB);
}

static void setup_msync(void)
{
	setup_for(PM_MSYNC);
}

static void done(void)
{
	cr_assert_eq(pm_close(st), 0);
}

/* Flip a bit of the media at @off of the file. */
static void flip(uint64_t off)
{
	struct pm_extent x;
	unsigned n;

	cr_assert_eq(pm_extents(st, file, off & ~4095ull, &x, 1, &n), 0);
	cr_assert(n == 1 && x.state == PM_EXT_VALID);
	sim->m.base[x.at + off % 4096] ^= 4;
}

static int readable(uint64_t off, uint32_t len)
{
	struct pm_map m;
	int err = pm_map_read(st, file, off, len, &m);

	if (!err)
		pm_unpin(&m);
	return err;
}

struct hits {
	struct pm_scrub_bad bad[8];
	unsigned n;
};

static void hit(void *arg, const struct pm_scrub_bad *bad)
{
	struct hits *h = arg;

	cr_assert_lt(h->n, 8);
	h->bad[h->n++] = *bad;
}

static struct hits scrubbed(void)
{
	struct hits h = { .n = 0 };
	struct pm_scrub s = { .found = hit, .arg = &h };

	cr_assert_eq(scrub(st, &s), h.n);
	return h;
}

Test(sum, scrub_finds_flipped_bits, .init = setup, .fini = done)
{
	struct hits h;

	cr_assert_eq(put(st, file, 0, 50000, 7), 0);
	cr_assert_eq(scrubbed().n, 0);
	flip(0);
	flip(20000);
	flip(49999);
	h = scrubbed();
	cr_assert_eq(h.n, 3);
	cr_assert_eq(h.bad[0].off, 0);
	cr_assert_eq(h.bad[1].off, 16384);
	cr_assert_eq(h.bad[2].off, 49152);
	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(h.bad[i].id.ino, file.ino);
}

Test(sum, bytes_behind_the_end_do_not_count, .init = setup, .fini = done)
{
	cr_assert_eq(put(st, file, 0, 5000, 7), 0);
	flip(5000);
	cr_assert_eq(scrubbed().n, 0);
	resize(st, file, 8000); /* and are zeroed before they do */
	cr_assert_eq(scrubbed().n, 0);
	cr_assert_eq(readable(0, 8000), 0);
}

Test(sum, read_of_a_bad_block_fails_and_others_do_not, .init = setup, .fini = done)
{
	struct pm_stats a, b;

	cr_assert_eq(put(st, file, 0, 50000, 7), 0);
	flip(20000);
	pm_get_stats(st, &a);
	cr_assert_eq(readable(0, 16384), 0);
	cr_assert_eq(readable(20480, 29520), 0);
	cr_assert_eq(readable(0, 50000), -EIO);
	cr_assert_eq(readable(16384, 1), -EIO);
	pm_get_stats(st, &b);
	cr_assert_eq(b.checksum_errors - a.checksum_errors, 2);
	cr_assert_eq(logged, 1, "one line for one block");
}

Test(sum, a_bad_block_is_not_made_good_by_halves, .init = setup, .fini = done)
{
	cr_assert_eq(put(st, file, 0, 50000, 7), 0);
	flip(20000);
	cr_assert_eq(put(st, file, 16384, 100, 8), -EIO);
	cr_assert_eq(scrubbed().n, 1);
	resize(st, file, 20100);
	cr_assert_eq(scrubbed().n, 1);
	cr_assert_eq(put(st, file, 16384, 4096, 8), 0);
	cr_assert_eq(scrubbed().n, 0);
}

Test(sum, a_damaged_entry_is_found, .init = setup, .fini = done)
{
	struct pm_extent x;
	unsigned n;

	cr_assert_eq(put(st, file, 0, 4096, 7), 0);
	cr_assert_eq(pm_extents(st, file, 0, &x, 1, &n), 0);
	sim->m.base[st->super.sum_start * PM_BLOCK + x.at / PM_BLOCK * 4] ^= 1;
	cr_assert_eq(scrubbed().n, 1);
}

Test(sum, long_link_targets_have_one, .init = setup, .fini = done)
{
	char target[1000], buf[1000];
	struct pm_new nw = { .type = PM_LNK, .target = target, .target_len = sizeof(target) };
	struct pm_change ch;
	struct pm_id dir = file;
	size_t len;

	memset(target, 'x', sizeof(target));
	cr_assert_eq(pm_create(st, root, "link", 4, &nw, &ch), 0);
	cr_assert_eq(scrubbed().n, 0);
	cr_assert_eq(pm_readlink(st, ch.obj.id, buf, sizeof(buf), &len), 0);
	for (size_t at = st->super.data_start * PM_BLOCK; at < SIZE - 1000; at += 8)
		if (!memcmp(sim->m.base + at, target, sizeof(target))) {
			sim->m.base[at] = 'y';
			break;
		}
	cr_assert_eq(scrubbed().n, 1);
	cr_assert_eq(pm_readlink(st, ch.obj.id, buf, sizeof(buf), &len), -EIO);
	(void)dir;
}

/* --- writes over old blocks --- */

Test(sum, with_msync_readers_see_the_old_contents_until_commit, .init = setup_msync, .fini = done)
{
	struct pm_map w, r;
	struct pm_committed c;

	cr_assert_eq(put(st, file, 0, 8192, 7), 0);
	cr_assert_eq(pm_map_write(st, file, 100, 8000, &w, NULL), 0);
	place(&w, 8000, 9);
	cr_assert_eq(pm_map_read(st, file, 0, 8192, &r), 0);
	cr_assert_eq(((uint8_t *)r.seg[0].iov_base)[200], 7);
	cr_assert_eq(commit(&w, 8000, &c), 0);
	pm_unpin(&w);
	cr_assert_eq(((uint8_t *)r.seg[0].iov_base)[200], 7, "and a pin keeps them");
	pm_unpin(&r);
	cr_assert_eq(pm_map_read(st, file, 0, 8192, &r), 0);
	cr_assert_eq(((uint8_t *)r.seg[0].iov_base)[200], 9);
	cr_assert_eq(((uint8_t *)r.seg[0].iov_base)[99], 7);
	pm_unpin(&r);
}

/* All bytes of [off, off + len). */
static void reads(uint64_t off, uint32_t len, int byte)
{
	struct pm_map r;

	cr_assert_eq(pm_map_read(st, file, off, len, &r), 0);
	cr_assert_eq(r.len, len);
	for (unsigned i = 0; i < r.nseg; i++)
		for (size_t n = 0; n < r.seg[i].iov_len; n++)
			cr_assert_eq(((uint8_t *)r.seg[i].iov_base)[n], byte);
	pm_unpin(&r);
}

Test(sum, what_is_cut_off_does_not_come_back_with_a_write, .init = setup, .fini = done)
{
	struct pm_committed c;
	struct pm_map w;

	cr_assert_eq(put(st, file, 0, 4096, 7), 0);
	cr_assert_eq(pm_map_write(st, file, 100, 100, &w, NULL), 0);
	place(&w, 100, 9);
	resize(st, file, 150);
	resize(st, file, 4000);
	cr_assert_eq(commit(&w, 100, &c), 0);
	pm_unpin(&w);
	reads(0, 100, 7);
	reads(100, 50, 9);
	reads(150, 3850, 0);
	cr_assert_eq(scrubbed().n, 0);
}

Test(sum, the_end_moves_over_a_write_on_its_way, .init = setup, .fini = done)
{
	struct pm_committed c;
	struct pm_map w;

	cr_assert_eq(put(st, file, 0, 4096, 7), 0);
	resize(st, file, 100);
	cr_assert_eq(pm_map_write(st, file, 100, 100, &w, NULL), 0);
	place(&w, 100, 9);
	resize(st, file, 3000);
	reads(200, 2800, 0);
	cr_assert_eq(scrubbed().n, 0);
	cr_assert_eq(commit(&w, 100, &c), 0);
	pm_unpin(&w);
	reads(100, 100, 9);
	reads(200, 2800, 0);
	cr_assert_eq(scrubbed().n, 0);
}

Test(sum, a_second_write_to_the_block_waits, .init = setup, .fini = done)
{
	struct test_waiter wait;
	struct pm_committed c;
	struct pm_map a, b;

	waiter_init(&wait);
	cr_assert_eq(pm_map_write(st, file, 0, 100, &a, NULL), 0);
	cr_assert_eq(pm_map_write(st, file, 200, 100, &b, &wait.w), -EINPROGRESS);
	place(&a, 100, 1);
	cr_assert_eq(commit(&a, 100, &c), 0);
	cr_assert_eq(waiter_result(&wait, -EINPROGRESS), 0);
	pm_unpin(&a);
	cr_assert_eq(put(st, file, 200, 100, 2), 0);
	cr_assert_eq(scrubbed().n, 0);
}

/* A random overwrite must not make a tree of extents. */
Test(sum, overwriting_stays_in_place, .init = setup, .fini = done)
{
	struct pm_extent x[4], y[4];
	unsigned n, m;

	cr_assert_eq(put(st, file, 0, 1 << 20, 1), 0);
	cr_assert_eq(pm_extents(st, file, 0, x, 4, &n), 0);
	for (int i = 0; i < 100; i++)
		cr_assert_eq(put(st, file, 4096 * (uint64_t)(i * 37 % 250) + 10, 4096, i), 0);
	cr_assert_eq(pm_extents(st, file, 0, y, 4, &m), 0);
	cr_assert_eq(n, m);
	for (unsigned i = 0; i < n; i++)
		cr_assert_eq(x[i].at, y[i].at);
	cr_assert_eq(scrubbed().n, 0);
}

static uint64_t drains(uint64_t off, uint32_t len)
{
	struct pm_stats a, b;

	pm_get_stats(st, &a);
	cr_assert_eq(put(st, file, off, len, 3), 0);
	pm_get_stats(st, &b);
	return b.drains - a.drains;
}

Test(sum, costs_one_drain_and_one_more_where_there_is_something_to_overwrite, .init = setup, .fini = done)
{
	cr_assert_eq(put(st, file, 0, 100000, 1), 0);
	cr_assert_eq(drains(100000, 100), 1);
	cr_assert_eq(drains(200000, 8192), 1);
	cr_assert_eq(drains(4096, 4096), 2);
	cr_assert_eq(drains(100, 60000), 2);
	cr_assert_eq(drains(90000, 200000), 2, "old blocks, holes and the end");
}

static void drop_power(void);

/* Damage of the newest data is that, not data which has not arrived: what its record changed is in place. What is
 * left when it really has not: test_crash.c. */
Test(sum, damage_of_the_newest_data_costs_no_more_than_that, .init = setup, .fini = done)
{
	struct pm_attr before, after;

	cr_assert_eq(put(st, file, 0, 3 * 4096, 1), 0);
	cr_assert_eq(put(st, file, 10 * 4096, 2 * 4096, 2), 0);
	cr_assert_eq(pm_getattr(st, file, &before), 0);
	flip(10 * 4096 + 5000);
	drop_power();
	cr_assert_eq(pm_getattr(st, file, &after), 0);
	cr_assert_eq(before.size, after.size);
	cr_assert_eq(before.mtime.tv_nsec, after.mtime.tv_nsec);
	cr_assert_eq(scrubbed().n, 1);
}

/* Once another record follows, data that differs is damage. */
Test(sum, data_that_has_arrived_and_differs_is_damage, .init = setup, .fini = done)
{
	cr_assert_eq(put(st, file, 0, 3 * 4096, 1), 0);
	mk(st, "another");
	flip(5000);
	drop_power();
	cr_assert_eq(scrubbed().n, 1);
}

/* --- what a write that never ended leaves --- */

static void kill_and_open(bool read_only)
{
	struct pm_open_opts o = { .method = read_only ? PM_VOLATILE : PM_CLWB,
		                  .read_only = read_only,
		                  .log = count_line };
	struct sim *left = sim_new(PM_CLWB, sim->m.base, true);
	struct pm_error why = { "" };
	struct pm_media m = left->m;

	m.method = o.method;
	store_drop(st);
	sim = left;
	cr_assert_eq(store_open_media(&m, &o, &st, &why), 0, "%s", why.text);
}

static void drop_power(void)
{
	kill_and_open(false);
}

static uint64_t unproven(void)
{
	struct pm_scrub s = { .found = NULL };

	cr_assert_eq(scrub(st, &s), 0);
	return s.unproven;
}

Test(sum, a_block_that_a_kill_left_half_written_is_no_damage, .init = setup, .fini = done)
{
	struct pm_map w;

	cr_assert_eq(put(st, file, 0, 5 * 4096, 1), 0);
	cr_assert_eq(pm_map_write(st, file, 4000, 8192, &w, NULL), 0); /* blocks 0, 1 and 2 */
	place(&w, 5000, 2);
	cr_assert_eq(unproven(), 0, "the write may still end");
	kill_and_open(true);
	cr_assert_eq(unproven(), 3);
	kill_and_open(false);
	cr_assert_eq(unproven(), 3);
	cr_assert_eq(unproven(), 0, "a scrub gives them checksums");
	for (uint64_t off = 100; off < 5 * 4096; off += 4096) {
		flip(off);
		cr_assert_eq(scrubbed().n, 1);
		flip(off);
	}
}

Test(sum, a_write_given_up_leaves_checksums, .init = setup, .fini = done)
{
	struct pm_committed c;
	struct pm_map w;

	cr_assert_eq(put(st, file, 0, 5 * 4096, 1), 0);
	cr_assert_eq(pm_map_write(st, file, 4000, 8192, &w, NULL), 0);
	place(&w, 5000, 2);
	pm_unpin(&w);
	cr_assert_eq(unproven(), 0);
	flip(100);
	flip(6000);
	flip(9000);
	cr_assert_eq(scrubbed().n, 3);
	flip(100);
	flip(6000);
	flip(9000);
	cr_assert_eq(pm_map_write(st, file, 4000, 8192, &w, NULL), 0);
	place(&w, 200, 3);
	cr_assert_eq(commit(&w, 100, &c), 0); /* short */
	pm_unpin(&w);
	cr_assert_eq(unproven(), 0);
	flip(9000);
	cr_assert_eq(scrubbed().n, 1);
}

Test(sum, an_append_needs_no_mark, .init = setup, .fini = done)
{
	struct pm_map w;

	cr_assert_eq(put(st, file, 0, 5000, 1), 0);
	cr_assert_eq(pm_map_write(st, file, 5000, 100, &w, NULL), 0);
	place(&w, 100, 2);
	kill_and_open(false);
	cr_assert_eq(unproven(), 0);
	flip(4500);
	cr_assert_eq(scrubbed().n, 1);
}

Test(sum, overwriting_keeps_no_block, .init = setup, .fini = done)
{
	struct pm_space a, b;

	cr_assert_eq(put(st, file, 0, 1 << 20, 1), 0);
	pm_get_space(st, &a);
	for (int i = 0; i < 100; i++)
		cr_assert_eq(put(st, file, 4096 * (uint64_t)(i * 37 % 250) + 10, 4096, i), 0);
	cr_assert_eq(put(st, file, 0, 1 << 20, 1), 0);
	pm_get_space(st, &b);
	cr_assert_eq(a.free_blocks, b.free_blocks);
	sound(st);
}

static uint64_t fill_up(void)
{
	uint64_t off = 0;
	int err;

	while (!(err = put(st, file, off, 65536, 1)))
		off += 65536;
	while (!(err = put(st, file, off, 4096, 1)))
		off += 4096;
	cr_assert_eq(err, -ENOSPC);
	return off;
}

Test(sum, a_full_pool_can_be_overwritten, .init = setup, .fini = done)
{
	uint64_t end = fill_up();

	for (uint64_t off = 0; off + 65536 <= end; off += 65536)
		cr_assert_eq(put(st, file, off + 100, 60000, 2), 0);
	cr_assert_eq(scrubbed().n, 0);
	cr_assert_eq(readable(0, (uint32_t)end), 0);
}

Test(sum, with_msync_a_full_pool_refuses_to_overwrite_and_keeps_the_data, .init = setup_msync,
     .fini = done)
{
	uint64_t off = fill_up();

	cr_assert_eq(put(st, file, 0, 65536, 2), -ENOSPC);
	cr_assert_eq(scrubbed().n, 0);
	cr_assert_eq(readable(0, 65536), 0);
	resize(st, file, off / 2);
	cr_assert_eq(put(st, file, 0, 65536, 2), 0);
	cr_assert_eq(scrubbed().n, 0);
}

Test(sum, a_pool_without_has_nothing_to_scrub)
{
	struct sim *plain = made(PM_CLWB, false);
	struct pm_store *s = open_sim(plain, true);
	struct pm_scrub at = { .found = NULL };
	struct pm_id id = mk(s, "file");
	struct pm_extent x, y;
	unsigned n;

	cr_assert_eq(put(s, id, 0, 4096, 1), 0);
	cr_assert_eq(pm_extents(s, id, 0, &x, 1, &n), 0);
	cr_assert_eq(put(s, id, 0, 4096, 2), 0);
	cr_assert_eq(pm_extents(s, id, 0, &y, 1, &n), 0);
	cr_assert_eq(x.at, y.at, "and overwrites in place");
	cr_assert_eq(pm_scrub_step(s, &at, 10), -EOPNOTSUPP);
	cr_assert_eq(pm_close(s), 0);
}
