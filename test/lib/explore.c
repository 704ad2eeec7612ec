/* SPDX-License-Identifier: BSD-3-Clause */
/* explore.c - build, mount, compare and check the states of a log */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "test/lib/explore.h"

#define MAX_VER 6u
#define NO_UNIT UINT32_MAX

struct ver {
	uint8_t *bytes;
	uint64_t seq; /* order of the stores */
	bool nt;      /* weakly ordered */
};
struct unit {
	uint32_t no;
	unsigned nver, flushed; /* versions up to flushed were written back, but not fenced */
	unsigned held[2];       /* by a thread of two, which alone can fence them for now */
	struct ver ver[MAX_VER];
};
struct seen { /* hashes of states that were right */
	uint64_t *slot;
	size_t mask, n;
};

struct walk { /* of one log */
	struct explore *x;
	const struct world *w;    /* whose states count; NULL: */
	const struct trial *trial;
	const struct medium *log; /* w->d, or that of a recovery */
	bool inner;
	uint64_t want_sum; /* inner: what the outer mount found */
	unsigned want_state;
	size_t len;
	uint32_t size; /* of a unit */
	uint8_t *safe;
	struct medium *scratch; /* holds safe but while a state is looked at */
	struct unit *unit;
	unsigned n, cap;
	uint32_t *index;    /* unit number -> index + 1 */
	uint64_t hash;      /* of safe */
	uint64_t *unithash; /* of its units */
	uint64_t seq, fenced;
	unsigned answered, begun;
	size_t at; /* event */
	uint8_t *pick;
	uint64_t rnd;
	bool stop, bad;
};

double explore_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

void explore_note(const char *fmt, ...)
{
	const char *path = getenv("BERTH_TEST_NOTES");
	FILE *f = path ? fopen(path, "ae") : stderr;
	va_list ap;

	va_start(ap, fmt);
	vfprintf(f ? f : stderr, fmt, ap);
	va_end(ap);
	if (f && f != stderr)
		fclose(f);
}

static uint64_t rnd(struct walk *k)
{
	k->rnd ^= k->rnd << 13;
	k->rnd ^= k->rnd >> 7;
	return k->rnd ^= k->rnd << 17;
}

static uint64_t mix(uint64_t h)
{
	h ^= h >> 32;
	h *= 0xd6e8feb86659fd93ull;
	h ^= h >> 32;
	h *= 0xd6e8feb86659fd93ull;
	return h ^ (h >> 32);
}

static uint64_t hash_unit(const struct walk *k, uint32_t no, const uint8_t *p)
{
	uint64_t h = no * 0x9e3779b97f4a7c15ull + 1, v;

	for (uint32_t i = 0; i < k->size; i += 8) {
		memcpy(&v, p + i, 8);
		h = (h ^ v) * 0x9fb21c651e98df25ull;
		h ^= h >> 29;
	}
	return mix(h);
}

/* --- states seen ----------------------------------------------------------------------------- */

static bool seen_before(struct explore *x, uint64_t h)
{
	struct seen *s = x->seen;

	if (!s) {
		s = x->seen = calloc(1, sizeof(*s));
		s->mask = (1u << 22) - 1;
		s->slot = calloc(s->mask + 1, sizeof(*s->slot));
	}
	h |= !h;
	for (size_t i = h & s->mask;; i = (i + 1) & s->mask) {
		if (s->slot[i] == h)
			return true;
		if (s->slot[i])
			continue;
		if (s->n < s->mask / 4 * 3) {
			s->slot[i] = h;
			s->n++;
		}
		return false;
	}
}

void explore_deepen(struct explore *x, unsigned pass, bool sparse)
{
	unsigned p = pass < 7 ? pass : 7;

	x->exhaust = 16u << (p < 6 ? p : 6);
	x->samples = 2u << p;
	x->points = 2u << p;
	x->nested = 256u >> p;
	x->sparse = sparse ? 64u >> (p < 6 ? p : 6) : 1;
}

void explore_free(struct explore *x)
{
	if (x->seen)
		free(x->seen->slot);
	free(x->seen);
	x->seen = NULL;
}

/* --- judging a state ------------------------------------------------------------------------- */

struct problems {
	unsigned n;
	char text[400];
};

static void problem(void *arg, const char *where, const char *what)
{
	struct problems *p = arg;

	if (!p->n++)
		snprintf(p->text, sizeof(p->text), "%s: %s", where, what);
}

static const uint8_t *picked(const struct walk *k, unsigned i)
{
	const struct unit *u = &k->unit[i];

	return k->pick[i] ? u->ver[k->pick[i] - 1].bytes : k->safe + (size_t)u->no * k->size;
}

static void fail(struct walk *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void fail(struct walk *k, const char *fmt, ...)
{
	struct explore *x = k->x;
	size_t n;
	va_list ap;
	int m;

	if (k->bad)
		return;
	k->bad = k->stop = true;
	va_start(ap, fmt);
	m = vsnprintf(x->why, sizeof(x->why), fmt, ap);
	va_end(ap);
	n = m < 0 ? 0 : (size_t)m < sizeof(x->why) ? (size_t)m : sizeof(x->why) - 1;
	m = snprintf(x->why + n, sizeof(x->why) - n,
	             "; %sevent %zu, steps answered %u, begun %u, seed %llu, on the media:",
	             k->inner ? "in a recovery, " : "", k->at, k->answered, k->begun,
	             (unsigned long long)x->seed);
	for (unsigned i = 0; i < k->n && n + (size_t)m + 24 < sizeof(x->why); i++)
		if (k->pick[i])
			m += snprintf(x->why + n + (size_t)m, sizeof(x->why) - n - (size_t)m,
			              " %x/%u", k->unit[i].no * k->size, k->pick[i]);
}

/* What was touched since the last call becomes safe again. */
static void put_back(struct walk *k)
{
	struct medium *d = k->scratch;

	for (size_t i = 0; i < d->nhot; i++) {
		size_t at = (size_t)d->hot[i] * LINE;

		memcpy(d->m.base + at, k->safe + at, LINE);
		d->is_hot[d->hot[i]] = 0;
	}
	d->nhot = 0;
}

static void touch(struct medium *d, size_t at, size_t len)
{
	for (size_t l = at / LINE; l < (at + len) / LINE; l++) {
		if (!d->is_hot[l]) {
			d->is_hot[l] = 1;
			d->hot[d->nhot++] = (uint32_t)l;
		}
	}
}

/* The state on the scratch medium: safe, the picks, and unit @torn with only the words of @mask. */
static void build(struct walk *k, unsigned torn, uint64_t mask)
{
	struct medium *d = k->scratch;
	uint32_t word = k->size / 64 < 8 ? 8 : k->size / 64; /* 8 bytes of a line, 64 of a page */

	for (unsigned i = 0; i < k->n; i++) {
		size_t at = (size_t)k->unit[i].no * k->size;
		const uint8_t *p = picked(k, i);

		if (!k->pick[i])
			continue;
		if (i == torn) {
			k->pick[i]--;
			memcpy(d->m.base + at, picked(k, i), k->size);
			k->pick[i]++;
			for (uint32_t w = 0; w < k->size / word; w++)
				if (mask >> w & 1)
					memcpy(d->m.base + at + w * word, p + w * word, word);
		} else {
			memcpy(d->m.base + at, p, k->size);
		}
		touch(d, at, k->size);
	}
}

static bool verf_ok(struct pm_store *st, const struct state *s)
{
	uint8_t v[8];

	pm_write_verf(st, v);
	return !memcmp(v, s->verf, 8) == !s->doubt;
}

/* Which of the states that may be is it? */
static bool compare(struct walk *k, struct pm_store *st, unsigned *which, uint64_t *sum)
{
	char why[2][300] = { "", "" };

	for (unsigned i = k->begun + 1; i-- > k->answered;) {
		if (!state_matches(st, k->w->state[i], sum, why[i == k->begun], sizeof(why[0])))
			continue;
		if (!verf_ok(st, k->w->state[i])) {
			snprintf(why[0], sizeof(why[0]), "the write verifier is %s",
			         k->w->state[i]->doubt ? "the old one" : "new");
			continue;
		}
		*which = i;
		return true;
	}
	fail(k, "after: %s; before: %s", why[1], why[0]);
	return false;
}

static void check(struct walk *k, struct pm_store *st, const char *when)
{
	struct pm_check_report rep;
	struct problems p = { 0 };

	if (store_check(st, problem, NULL, &p, &rep))
		fail(k, "check could not run");
	else if (rep.problems)
		fail(k, "check %s: %s", when, p.text);
}

static uint64_t bad_blocks(struct walk *k, struct pm_store *st, struct pm_scrub *s)
{
	int err;

	*s = (struct pm_scrub){ .found = NULL };
	while ((err = pm_scrub_step(st, s, 100)) == -EAGAIN)
		;
	if (err || s->unreadable)
		fail(k, "scrub could not see all");
	return s->bad;
}

/* The first written block in front of an end of file, if any; its inode. */
static const struct pm_inode *some_block(struct pm_store *st, uint64_t *blk)
{
	for (uint64_t i = PM_ROOT_INO + 1; i < ino_count(st); i++) {
		const struct pm_inode *in = ino_at(st, i);
		struct ext e;

		if (in->type == PM_REG && in->size && !ext_find(st, NULL, in, 0, &e) && !e.unwritten) {
			*blk = e.pblk;
			return in;
		}
	}
	return NULL;
}

/* Every block of data is as its checksum says; only what was being written may have none; and damage
 * would show. */
static void scrub(struct walk *k, struct pm_store *st, bool closely)
{
	unsigned doubtful = 0;
	struct pm_scrub r;
	uint64_t blk;

	if (!sum_on(st))
		return;
	for (unsigned i = k->answered; i <= k->begun; i++) {
		unsigned n = state_doubtful(k->w->state[i]);

		doubtful = n > doubtful ? n : doubtful;
	}
	if (bad_blocks(k, st, &r))
		fail(k, "scrub: %llu bad blocks", (unsigned long long)r.bad);
	if (r.unproven > doubtful)
		fail(k, "scrub: %llu blocks without a checksum, %u were being written",
		     (unsigned long long)r.unproven, doubtful);
	if (k->stop || !closely || !some_block(st, &blk))
		return;
	((uint8_t *)data_ptr(st, blk))[0] ^= 0x10;
	touch(k->scratch, blk * PM_BLOCK, LINE);
	if (bad_blocks(k, st, &r) != 1 || r.unproven)
		fail(k, "scrub: %llu bad blocks and %llu without a checksum, where one was damaged",
		     (unsigned long long)r.bad, (unsigned long long)r.unproven);
	((uint8_t *)data_ptr(st, blk))[0] ^= 0x10;
}

int explore_go_on(struct medium *d, struct pm_store *st)
{
	static const char name[] = "life goes on";
	static const uint8_t bytes[9000] = { 1, 2, 3 };
	struct pm_id root = { PM_ROOT_INO, 1 };
	struct pm_new nw = { .type = PM_REG, .mode = 0600 };
	struct pm_committed out;
	struct pm_change ch;
	struct pm_map m;
	int err = pm_create(st, root, name, sizeof(name) - 1, &nw, &ch);

	if (!err && !pm_map_write(st, ch.obj.id, 5000, sizeof(bytes), &m, NULL)) {
		for (unsigned i = 0; i < m.nseg; i++)
			medium_place(d, m.seg[i].iov_base, bytes, m.seg[i].iov_len);
		err = pm_commit(&m, m.len, PM_FILE_SYNC, false, &out, NULL);
		pm_unpin(&m);
	}
	if (!err)
		err = pm_remove(st, root, name, sizeof(name) - 1, &ch);
	return err;
}

/* Life goes on: some work, a clean close, and nothing is wrong with what that leaves. */
static void go_on(struct walk *k, struct pm_store *st)
{
	struct pm_error why;
	int err = explore_go_on(k->scratch, st);

	if (err && err != -ENOSPC)
		fail(k, "afterwards: %s", strerror(-err));
	err = pm_close(st);
	if (err) {
		fail(k, "afterwards, close: %s", strerror(-err));
		return;
	}
	st = medium_open_ro(k->scratch, &why);
	if (!st) {
		fail(k, "afterwards, open: %s", why.text);
		return;
	}
	check(k, st, "afterwards");
	store_drop(st);
}

static void explore_recovery(struct walk *k, unsigned which, uint64_t sum, uint8_t *image);

static void looked_at(struct walk *k)
{
	struct pm_error why;
	struct pm_store *st = medium_open_ro(k->scratch, &why);

	if (!st) {
		fail(k, "cannot be opened for reading: %s", why.text);
		return;
	}
	check(k, st, "as it is");
	store_drop(st);
}

static void mounted(struct walk *k, uint64_t lot, unsigned *which, uint64_t *sum)
{
	struct pm_error why;
	struct pm_store *st;

	if (lot % 8 == 0 && !k->inner)
		looked_at(k);
	st = k->stop ? NULL : medium_open(k->scratch, &why);
	if (!st) {
		fail(k, "cannot be mounted: %s", why.text);
	} else if (compare(k, st, which, sum)) {
		if (k->inner && (*sum != k->want_sum || *which != k->want_state))
			fail(k, "the first recovery would have come to another tree");
		journal_checkpoint(st);
		check(k, st, "after recovery");
		if (!k->stop)
			scrub(k, st, lot / 512 % 4 == 0);
		if (!k->stop && lot / 8 % 8 == 0) {
			go_on(k, st);
			st = NULL;
		}
	}
	if (st)
		store_drop(st);
}

static void tried(struct walk *k, uint64_t lot)
{
	char why[1000] = "";

	if (!k->trial->judge(k->trial->arg, k->scratch, lot, why, sizeof(why)))
		fail(k, "%s", why);
}

static void judge(struct walk *k, unsigned torn, uint64_t mask)
{
	struct explore *x = k->x;
	unsigned which = 0;
	uint64_t sum = 0, lot = rnd(k);
	uint8_t *image = NULL;

	build(k, torn, mask);
	x->states++;
	if (x->nested && !k->inner && lot / 64 % x->nested == 0) {
		image = malloc(k->len);
		memcpy(image, k->scratch->m.base, k->len);
	}
	if (k->trial)
		tried(k, lot);
	else
		mounted(k, lot, &which, &sum);
	put_back(k);
	if (image && !k->stop)
		explore_recovery(k, which, sum, image);
	free(image);
}

/* Ask once about each state. */
static void consider(struct walk *k, unsigned torn, uint64_t mask)
{
	uint64_t h = k->hash;

	if (k->stop)
		return;
	k->x->checked++;
	for (unsigned i = 0; i < k->n; i++)
		if (k->pick[i])
			h ^= k->unithash[k->unit[i].no] ^ hash_unit(k, k->unit[i].no, picked(k, i));
	if (torn != NO_UNIT)
		h ^= mix(mask + 77 * torn + 1);
	h = mix(h ^ mix(((uint64_t)k->answered << 32 | k->begun) + ((uint64_t)k->inner << 63) +
	                k->want_sum));
	if (seen_before(k->x, h))
		return;
	judge(k, torn, mask);
	if (k->x->until > 0 && k->x->states % 32 == 0 && explore_now() > k->x->until)
		k->stop = true;
}

/* --- subsets --------------------------------------------------------------------------------- */

/* The least version that may be on the media: with eADR cached stores are there. */
static unsigned least(const struct walk *k, const struct unit *u)
{
	unsigned v = 0;

	if (k->x->rules != RULES_EADR)
		return 0;
	for (unsigned i = 0; i < u->nver; i++)
		if (!u->ver[i].nt)
			v = i + 1;
	return v;
}

static void all_of(struct walk *k, unsigned last)
{
	for (unsigned i = 0; i < k->n; i++)
		k->pick[i] = (uint8_t)(i == last ? k->unit[i].nver : least(k, &k->unit[i]));
	for (;;) {
		unsigned i;

		consider(k, NO_UNIT, 0);
		for (i = 0; i < k->n; i++) {
			if (i == last)
				continue;
			if (k->pick[i] < k->unit[i].nver) {
				k->pick[i]++;
				break;
			}
			k->pick[i] = (uint8_t)least(k, &k->unit[i]);
		}
		if (i == k->n || k->stop)
			return;
	}
}

/* Of all subsets the likely ones, those that lack one thing or have only one, and any. */
static void pick_some(struct walk *k, unsigned last, unsigned how)
{
	unsigned kind = how < 3 ? how : 2 + how % 3; /* nothing, all, all but one; then in turn */
	uint64_t odds = kind == 0   ? 0
	                : kind == 3 ? 1 + rnd(k) % 15
	                : kind == 4 ? 13 + rnd(k) % 3
	                            : 16;

	for (unsigned i = 0; i < k->n; i++) {
		const struct unit *u = &k->unit[i];
		unsigned lo = least(k, u);

		k->pick[i] = (uint8_t)(rnd(k) % 16 < odds ? u->nver : lo);
		if (kind == 3 && u->nver > 1 && rnd(k) % 2)
			k->pick[i] = (uint8_t)(lo + rnd(k) % (u->nver - lo + 1));
		if (i == last)
			k->pick[i] = (uint8_t)u->nver;
	}
	if (kind == 2 && k->n) {
		unsigned i = (unsigned)(rnd(k) % k->n);

		if (i != last)
			k->pick[i] = (uint8_t)least(k, &k->unit[i]);
	}
}

static void tears(struct walk *k, unsigned last)
{
	const struct unit *u = &k->unit[last];
	uint32_t word = k->size / 64 < 8 ? 8 : k->size / 64;
	const uint8_t *to = u->ver[u->nver - 1].bytes;
	const uint8_t *from =
		u->nver > 1 ? u->ver[u->nver - 2].bytes : k->safe + (size_t)u->no * k->size;
	unsigned diff[64], nd = 0, tries;
	bool all;

	for (uint32_t w = 0; w < k->size / word; w++)
		if (memcmp(from + w * word, to + w * word, word))
			diff[nd++] = w;
	if (nd < 2)
		return;
	all = nd <= 8 && (1u << nd) <= k->x->exhaust;
	tries = all ? (1u << nd) - 2 : k->x->samples; /* none and all are no tears */
	for (unsigned t = 1; t <= tries && !k->stop; t++) {
		uint64_t mask = 0, bits = all ? t : rnd(k);

		for (unsigned i = 0; i < nd; i++)
			mask |= (bits >> i & 1) << diff[i];
		pick_some(k, last, t % 2 ? 1 : (unsigned)(rnd(k) % 8));
		consider(k, last, mask);
	}
}

/* All that may be there now; unit @last was stored just now (NO_UNIT: any may be missing). */
static void point(struct walk *k, unsigned last)
{
	uint64_t product = 1;

	for (unsigned i = 0; i < k->n && product <= k->x->exhaust; i++)
		if (i != last)
			product *= k->unit[i].nver + 1u - least(k, &k->unit[i]);
	if (product <= k->x->exhaust) {
		all_of(k, last);
	} else {
		for (unsigned s = 0; s < k->x->samples && !k->stop; s++) {
			pick_some(k, last, s);
			consider(k, NO_UNIT, 0);
		}
	}
	if (last != NO_UNIT && !k->stop)
		tears(k, last);
}

/* eADR: a step was answered, so stores that may still stand in the store buffer must not matter. */
static void buffered(struct walk *k)
{
	for (uint64_t cut = k->fenced; cut <= k->seq && !k->stop; cut++) {
		for (unsigned i = 0; i < k->n; i++) {
			const struct unit *u = &k->unit[i];
			unsigned v = 0;

			while (v < u->nver && u->ver[v].seq <= cut)
				v++;
			k->pick[i] = (uint8_t)v;
		}
		consider(k, NO_UNIT, 0);
	}
}

/* --- the walk -------------------------------------------------------------------------------- */

static unsigned unit_of(struct walk *k, uint32_t no)
{
	if (k->index[no])
		return k->index[no] - 1;
	if (k->n == k->cap) {
		k->cap = k->cap ? 2 * k->cap : 64;
		k->unit = realloc(k->unit, k->cap * sizeof(*k->unit));
		k->pick = realloc(k->pick, k->cap);
		if (!k->unit || !k->pick)
			abort();
	}
	k->unit[k->n] = (struct unit){ .no = no };
	k->pick[k->n] = 0;
	k->index[no] = ++k->n;
	return k->n - 1;
}

static void forget_one(unsigned *mark, unsigned v)
{
	if (*mark > v)
		--*mark;
}

/* A new content of the unit; among many the older ones that no flush names are forgotten. */
static unsigned new_version(struct walk *k, uint32_t no, uint32_t in, const uint8_t *bytes,
                            uint32_t len, bool nt)
{
	unsigned i = unit_of(k, no);
	struct unit *u = &k->unit[i];
	uint8_t *p = malloc(k->size);

	memcpy(p, u->nver ? u->ver[u->nver - 1].bytes : k->safe + (size_t)no * k->size, k->size);
	memcpy(p + in, bytes, len);
	if (u->nver == MAX_VER) {
		unsigned v = u->flushed == 1 || u->held[0] == 1 || u->held[1] == 1;

		free(u->ver[v].bytes);
		memmove(&u->ver[v], &u->ver[v + 1], (u->nver - v - 1) * sizeof(u->ver[0]));
		u->nver--;
		forget_one(&u->flushed, v);
		forget_one(&u->held[0], v);
		forget_one(&u->held[1], v);
	}
	u->ver[u->nver++] = (struct ver){ p, ++k->seq, nt };
	return i;
}

/* Versions up to @upto are durable. */
static void settle(struct walk *k, struct unit *u, unsigned upto)
{
	uint8_t *to = k->safe + (size_t)u->no * k->size;

	if (!upto)
		return;
	memcpy(to, u->ver[upto - 1].bytes, k->size);
	memcpy(k->scratch->m.base + (size_t)u->no * k->size, to, k->size);
	k->hash ^= k->unithash[u->no];
	k->unithash[u->no] = hash_unit(k, u->no, to);
	k->hash ^= k->unithash[u->no];
	for (unsigned v = 0; v < upto; v++)
		free(u->ver[v].bytes);
	memmove(&u->ver[0], &u->ver[upto], (u->nver - upto) * sizeof(u->ver[0]));
	u->nver -= upto;
	u->flushed -= u->flushed < upto ? u->flushed : upto;
	for (unsigned t = 0; t < 2; t++)
		u->held[t] -= u->held[t] < upto ? u->held[t] : upto;
}

static void drop_settled(struct walk *k)
{
	unsigned n = 0;

	for (unsigned i = 0; i < k->n; i++) {
		if (!k->unit[i].nver) {
			k->index[k->unit[i].no] = 0;
			continue;
		}
		k->unit[n] = k->unit[i];
		k->index[k->unit[n].no] = n + 1;
		n++;
	}
	k->n = n;
}

static unsigned more_of(unsigned a, unsigned b)
{
	return a > b ? a : b;
}

/* @by: 0, or the thread; a fence says nothing about what another thread has flushed and still holds. */
static void fence(struct walk *k, unsigned by)
{
	if (k->x->rules == RULES_PAGES)
		return; /* says nothing about the disk */
	for (unsigned i = 0; i < k->n; i++) {
		struct unit *u = &k->unit[i];

		settle(k, u,
		       k->x->rules == RULES_EADR ? u->nver
		                                 : more_of(u->flushed, by ? u->held[by - 1] : 0));
	}
	drop_settled(k);
	k->fenced = k->seq;
}

static void released(struct walk *k, unsigned by)
{
	for (unsigned i = 0; by && i < k->n; i++) {
		struct unit *u = &k->unit[i];

		u->flushed = more_of(u->flushed, u->held[by - 1]);
		u->held[by - 1] = 0;
	}
}

static void flush(struct walk *k, uint32_t at, uint32_t len, bool sync, unsigned by)
{
	for (uint32_t no = at / k->size; no <= (at + len - 1) / k->size; no++) {
		struct unit *u;

		if (!k->index[no])
			continue;
		u = &k->unit[k->index[no] - 1];
		*(by ? &u->held[by - 1] : &u->flushed) = u->nver;
		if (sync)
			settle(k, u, u->nver);
	}
	if (sync)
		drop_settled(k);
}

static void store(struct walk *k, const struct ev *e, bool look)
{
	const uint8_t *p = k->log->bytes + e->bytes;
	uint32_t at = e->at, end = e->at + e->len, units = (e->len - 1) / k->size + 2, n = 0;

	while (at < end) {
		uint32_t in = at % k->size, part = k->size - in;
		unsigned i;

		if (part > end - at)
			part = end - at;
		i = new_version(k, at / k->size, in, p, part, e->kind != EV_STORE);
		at += part;
		p += part;
		n++;
		if (look && !k->stop &&
		    (n <= 2 || at >= end || units <= k->x->points || rnd(k) % units < k->x->points))
			point(k, i);
	}
}

static void window(struct walk *k, unsigned answered, unsigned begun, bool look)
{
	bool more = answered > k->answered;

	k->answered = answered;
	k->begun = begun;
	if (!more || !look || k->stop)
		return;
	point(k, NO_UNIT);
	if (k->x->rules == RULES_EADR)
		buffered(k);
}

static void step(struct walk *k, const struct ev *e, bool look)
{
	switch (e->kind) {
	case EV_STORE:
	case EV_NT:
	case EV_PLACE:
		store(k, e, look);
		break;
	case EV_FLUSH:
		if (k->x->rules == RULES_ADR)
			flush(k, e->at, e->len, false, e->by);
		break;
	case EV_FENCE:
		fence(k, e->by);
		break;
	case EV_RELEASED:
		released(k, e->by);
		break;
	case EV_SYNC:
		flush(k, e->at, e->len, true, 0);
		break;
	case EV_WINDOW:
		window(k, e->at, e->len, look);
		break;
	default:
		break;
	}
}

static void begin(struct walk *k, const uint8_t *image)
{
	size_t units;

	k->len = k->log->m.len;
	k->size = k->x->rules == RULES_PAGES ? PM_BLOCK : LINE;
	units = k->len / k->size;
	k->safe = malloc(k->len);
	memcpy(k->safe, image, k->len);
	k->scratch = medium_new(image, k->len, PM_CLWB, false);
	k->index = calloc(units, sizeof(*k->index));
	k->unithash = malloc(units * sizeof(*k->unithash));
	for (uint32_t i = 0; i < units; i++) {
		k->unithash[i] = hash_unit(k, i, k->safe + (size_t)i * k->size);
		k->hash ^= k->unithash[i];
	}
	k->rnd = mix(k->x->seed + k->x->states + 1) | 1;
}

static void end(struct walk *k)
{
	for (unsigned i = 0; i < k->n; i++)
		for (unsigned v = 0; v < k->unit[i].nver; v++)
			free(k->unit[i].ver[v].bytes);
	free(k->unit);
	free(k->pick);
	free(k->index);
	free(k->unithash);
	free(k->safe);
	medium_free(k->scratch);
}

static bool mount_again(struct walk *k, struct medium *d)
{
	struct pm_error why;
	struct pm_store *st = medium_open(d, &why);

	if (st)
		store_drop(st);
	else
		fail(k, "cannot be mounted again: %s", why.text);
	return st;
}

/* Mount the state, or try it, with a recorder and walk through what that did. */
static void explore_recovery(struct walk *k, unsigned which, uint64_t sum, uint8_t *image)
{
	enum pm_method method = k->x->rules == RULES_PAGES  ? PM_MSYNC
	                        : k->x->rules == RULES_EADR ? PM_FENCE
	                                                    : PM_CLWB;
	struct medium *d = medium_new(image, k->len, method, true);
	struct explore *x = k->x;
	unsigned exhaust = x->exhaust, samples = x->samples, points = x->points;
	struct walk in = { .x = x,
		           .w = k->w,
		           .trial = k->trial,
		           .log = d,
		           .inner = true,
		           .want_sum = sum,
		           .want_state = which,
		           .answered = k->answered,
		           .begun = k->begun,
		           .at = 0 };

	if (k->trial)
		k->trial->again(k->trial->arg, d);
	else if (!mount_again(k, d)) {
		medium_free(d);
		return;
	}
	x->exhaust = exhaust < 16 ? exhaust : 16;
	x->samples = samples < 3 ? samples : 3;
	x->points = 4;
	begin(&in, image);
	for (in.at = 0; in.at < d->nev && !in.stop; in.at++)
		step(&in, &d->ev[in.at], true);
	k->stop |= in.stop;
	k->bad |= in.bad;
	end(&in);
	medium_free(d);
	x->exhaust = exhaust;
	x->samples = samples;
	x->points = points;
}

bool explore(struct explore *x, const struct world *w, size_t from)
{
	struct walk k = { .x = x, .w = w, .log = w->d };

	begin(&k, w->d->image);
	for (k.at = 0; k.at < w->d->nev && !k.stop; k.at++)
		step(&k, &w->d->ev[k.at],
		     k.at >= from && (x->sparse < 2 || rnd(&k) % x->sparse == 0));
	end(&k);
	return !k.bad;
}

bool explore_trial(struct explore *x, const struct medium *log, const struct trial *t)
{
	struct walk k = { .x = x, .trial = t, .log = log };

	begin(&k, log->image);
	for (k.at = 0; k.at < log->nev && !k.stop; k.at++)
		step(&k, &log->ev[k.at], x->sparse < 2 || rnd(&k) % x->sparse == 0);
	end(&k);
	return !k.bad;
}
