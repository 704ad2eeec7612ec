/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tx.c - transactions: edit shadows in DRAM, journal what differs, then change the media
 *
 * Commit, on media with a cheap flush:
 *
 *   new blocks, and the caller's data, stored and flushed
 *     drain (only if there were any)
 *   record in the lane, flushed
 *     drain: the transaction is durable (journal_append)
 *   changes in place, flushed; the next drain covers them
 *
 * so at most two drains, and one where nothing is new. Data that has checksums needs no drain before the
 * record either: recovery sees whether it has arrived (tx_with_data); new blocks travel in the record then.
 * Before the record is durable no byte that
 * anything durable leads to has changed; after it recovery makes the rest of the changes. With
 * PM_MSYNC new blocks travel in the record too, the changes go to the private view, and the flusher
 * does the rest. Several commits in one transaction (batch.c) have its two drains together.
 *
 * Memory of a transaction (shadows, lists) is kept from one to the next.
 */
#include <errno.h>
#include <stdlib.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "pmemio/core.h"
#include "pmemio/words.h"

#define CHUNK (256u << 10) /* of shadow memory */
#define LINE       64u
#define LINE_WORDS (LINE / 8)
#define STEP_WORDS 64u
#define KEEP  4u           /* chunks kept between transactions */

struct edit {
	const uint8_t *at; /* view */
	uint8_t *shadow;
	uint32_t len;
	uint8_t kind;
	bool is_new, dead;
	uint64_t own; /* TX_SUMS: the entries of the line that count; of the others the shadow knows nothing */
};
struct given {
	struct blk_run run;
	bool meta;
};
struct slot {
	uint64_t ino;
	bool freed;
};
struct chunk {
	struct chunk *next;
	size_t used;
	uint8_t mem[] __attribute__((aligned(64)));
};

struct pm_tx {
	struct pm_store *st;
	struct pm_worker *w;    /* inside; NULL: alone */
	struct pm_stats *count;
	bool padded; /* the last range is nothing new */
	bool with_data;
	bool open, after_data, grew, replies, admitted;
	struct pm_slot reply; /* if so */
	size_t reply_at;      /* byte in the record */
	size_t bound;   /* the record will not be longer */
	unsigned quiet; /* calls of tx_large that need not look */
	bool sums;          /* some edits are TX_SUMS */
	struct words words; /* locked for them */
	const struct pm_inode *pad; /* tx_pad_from; or NULL */
	int err;
	struct edit *edit;
	size_t nedit, cap_edit;
	uint32_t *hash; /* index + 1 of an edit, by address; emptied through the edits */
	size_t nhash;
	struct blk_run *take;
	size_t ntake, cap_take;
	struct given *give;
	size_t ngive, cap_give;
	struct slot *slot;
	size_t nslot, cap_slot;
	struct chunk *chunks;
	struct pm_rec_run *run; /* of data that arrives with the record */
	size_t nrun, cap_run;
	uint32_t run_crc;
	uint8_t *rec; /* journal_max_rec bytes, touched as far as records go */
	size_t rec_len;
	bool rec_full;
	uint8_t scratch[PM_BLOCK]; /* what edits get when memory ran out */
};

/* --- memory ---------------------------------------------------------------------------------- */

static int room(void **at, size_t *cap, size_t n, size_t size)
{
	size_t want = *cap ? *cap * 2 : 32;
	void *p;

	if (n < *cap)
		return 0;
	p = realloc(*at, want * size);
	if (!p)
		return -ENOMEM;
	*at = p;
	*cap = want;
	return 0;
}
#define ROOM(tx, list, n, cap) room((void **)&(tx)->list, &(tx)->cap, (tx)->n, sizeof(*(tx)->list))

static uint8_t *shadow_mem(struct pm_tx *tx, size_t len)
{
	struct chunk *c = tx->chunks;

	len = (len + 63) & ~(size_t)63;
	if (!c || c->used + len > CHUNK) {
		c = malloc(sizeof(*c) + CHUNK);
		if (!c)
			return NULL;
		c->next = tx->chunks;
		c->used = 0;
		tx->chunks = c;
	}
	c->used += len;
	return c->mem + c->used - len;
}

static size_t hash_of(const struct pm_tx *tx, const void *at)
{
	uint64_t h = (uint64_t)(uintptr_t)at * 0x9e3779b97f4a7c15ull;

	return (size_t)(h >> 32) & (tx->nhash - 1);
}

static struct edit *find(const struct pm_tx *tx, const void *at)
{
	if (tx->nedit == 0)
		return NULL;
	for (size_t i = hash_of(tx, at); tx->hash[i]; i = (i + 1) & (tx->nhash - 1))
		if (tx->edit[tx->hash[i] - 1].at == at)
			return &tx->edit[tx->hash[i] - 1];
	return NULL;
}

static void hash_put(struct pm_tx *tx, size_t e)
{
	size_t i = hash_of(tx, tx->edit[e].at);

	while (tx->hash[i])
		i = (i + 1) & (tx->nhash - 1);
	tx->hash[i] = (uint32_t)e + 1;
}

static int hash_room(struct pm_tx *tx)
{
	size_t n = tx->nhash ? tx->nhash * 2 : 64;
	uint32_t *h;

	if (tx->nhash >= 2 * (tx->nedit + 1))
		return 0;
	h = calloc(n, sizeof(*h));
	if (!h)
		return -ENOMEM;
	free(tx->hash);
	tx->hash = h;
	tx->nhash = n;
	for (size_t e = 0; e < tx->nedit; e++)
		hash_put(tx, e);
	return 0;
}

/* Back to empty. A large table is cheaper to clear through its few entries. */
static void reset(struct pm_tx *tx)
{
	unsigned kept = 0;
	struct chunk **pc = &tx->chunks;

	if (tx->nedit * 16 > tx->nhash) {
		memset(tx->hash, 0, tx->nhash * sizeof(*tx->hash));
	} else {
		for (size_t e = 0; e < tx->nedit; e++) {
			size_t i = hash_of(tx, tx->edit[e].at);

			while (tx->hash[i] != e + 1)
				i = (i + 1) & (tx->nhash - 1);
			tx->hash[i] = UINT32_MAX; /* keeps the probe paths of the others */
		}
		for (size_t e = 0; e < tx->nedit; e++) {
			size_t i = hash_of(tx, tx->edit[e].at);

			for (; tx->hash[i]; i = (i + 1) & (tx->nhash - 1))
				tx->hash[i] = 0;
		}
	}
	while (*pc) {
		struct chunk *c = *pc;

		c->used = 0;
		if (++kept <= KEEP) {
			pc = &c->next;
		} else {
			*pc = c->next;
			free(c);
		}
	}
	tx->nedit = tx->ntake = tx->ngive = tx->nslot = tx->nrun = 0;
	tx->run_crc = ~0u;
	tx->with_data = false;
	tx->err = 0;
	tx->open = tx->after_data = tx->grew = tx->replies = tx->rec_full = tx->admitted = tx->padded = false;
	tx->bound = 0;
	tx->quiet = 0;
	tx->sums = false;
	tx->pad = NULL;
}

struct pm_tx *tx_alloc(struct pm_store *st)
{
	struct pm_tx *tx = calloc(1, sizeof(*tx));

	if (!tx)
		return NULL;
	tx->st = st;
	tx->run_crc = ~0u;
	tx->rec = malloc(journal_max_rec(st));
	if (!tx->rec || hash_room(tx)) {
		free(tx->rec);
		free(tx);
		return NULL;
	}
	return tx;
}

void tx_destroy(struct pm_tx *tx)
{
	if (!tx)
		return;
	while (tx->chunks) {
		struct chunk *c = tx->chunks;

		tx->chunks = c->next;
		free(c);
	}
	free(tx->edit);
	free(tx->hash);
	free(tx->take);
	free(tx->give);
	free(tx->slot);
	free(tx->run);
	free(tx->rec);
	free(tx);
}

struct pm_store *tx_store(const struct pm_tx *tx)
{
	return tx->st;
}

/* --- building a transaction ------------------------------------------------------------------ */

struct pm_tx *tx_begin(struct pm_store *st)
{
	struct pm_worker *w = worker_here(st);
	struct pm_tx *tx = w ? worker_tx(w) : st->tx;

	assert(!tx->open);
	tx->open = true;
	tx->w = w;
	tx->count = stats_of(st, w);
	return tx;
}

static struct edit *add_edit(struct pm_tx *tx, const void *at, size_t len, enum tx_kind kind)
{
	struct edit *e;
	uint8_t *shadow;

	assert(tx->open && len && len <= PM_BLOCK && len % 8 == 0 && (uintptr_t)at % 8 == 0);
	assert((const uint8_t *)at >= tx->st->media.view &&
	       (const uint8_t *)at + len <= tx->st->media.view + tx->st->media.len);
	shadow = shadow_mem(tx, len);
	if (!shadow || hash_room(tx) || ROOM(tx, edit, nedit, cap_edit)) {
		tx->err = -ENOMEM;
		return NULL;
	}
	e = &tx->edit[tx->nedit];
	*e = (struct edit){
		.at = at, .shadow = shadow, .len = (uint32_t)len, .kind = (uint8_t)kind
	};
	hash_put(tx, tx->nedit++);
	/* a range costs 8 bytes, and two words at least lie between two of them */
	tx->bound += len + sizeof(struct pm_rec_range);
	return e;
}

/* Do new blocks travel in the record? */
static bool carries_new(const struct pm_tx *tx)
{
	return tx->with_data || media_slow(tx->st);
}

/* @e will not be in the record. */
static void unbound(struct pm_tx *tx, const struct edit *e)
{
	if (!e->dead && (!e->is_new || carries_new(tx)))
		tx->bound -= e->len + sizeof(struct pm_rec_range);
}

void *tx_edit(struct pm_tx *tx, const void *at, size_t len, enum tx_kind kind)
{
	struct edit *e = find(tx, at);

	if (e) {
		assert(e->len == len);
		return e->shadow;
	}
	e = add_edit(tx, at, len, kind);
	if (!e) {
		memcpy(tx->scratch, at, len);
		return tx->scratch;
	}
	memcpy(e->shadow, at, len);
	return e->shadow;
}

void tx_sum(struct pm_tx *tx, uint64_t blk, uint32_t crc)
{
	const uint8_t *table = blk_ptr(tx->st, tx->st->super.sum_start), *line = table + 4 * blk / SUM_LINE * SUM_LINE;
	struct edit *e = find(tx, line);

	if (!e)
		e = add_edit(tx, line, SUM_LINE, TX_SUMS);
	if (!e)
		return;
	tx->sums = true;
	e->own |= 1ull << blk % (SUM_LINE / 4);
	memcpy(e->shadow + 4 * blk % SUM_LINE, &crc, sizeof(crc));
}

void tx_pad_from(struct pm_tx *tx, const struct pm_inode *in)
{
	tx->pad = in;
}

const void *tx_look(struct pm_tx *tx, const void *at)
{
	const struct edit *e = tx ? find(tx, at) : NULL;

	return e ? e->shadow : at;
}

void *tx_new_block(struct pm_tx *tx, uint64_t blk, enum tx_kind kind)
{
	const void *at = blk_ptr(tx->st, blk);
	struct edit *e = find(tx, at);

	if (!e)
		e = add_edit(tx, at, PM_BLOCK, kind);
	if (!e)
		return memset(tx->scratch, 0, PM_BLOCK);
	if (!e->is_new && !carries_new(tx))
		unbound(tx, e);
	e->is_new = true;
	return memset(e->shadow, 0, PM_BLOCK);
}

void tx_after_data(struct pm_tx *tx)
{
	tx->after_data = true;
}

void tx_with_data(struct pm_tx *tx)
{
	tx->with_data = true;
}

void tx_vouch(struct pm_tx *tx, uint64_t blk, uint64_t len, uint32_t crc)
{
	struct pm_rec_run *last = tx->nrun ? &tx->run[tx->nrun - 1] : NULL;
	uint64_t at = blk * PM_BLOCK;

	if (!tx->with_data || !len)
		return;
	tx->run_crc = sum_fold(tx->run_crc, crc);
	if (last && last->at + last->len == at && last->len % PM_BLOCK == 0) {
		last->len += len;
		return;
	}
	if (ROOM(tx, run, nrun, cap_run)) {
		tx->err = -ENOMEM;
		return;
	}
	tx->run[tx->nrun++] = (struct pm_rec_run){ at, len };
	tx->bound += sizeof(struct pm_rec_run);
}

void tx_admitted(struct pm_tx *tx)
{
	tx->admitted = true;
}

int tx_take(struct pm_tx *tx, uint64_t goal, uint64_t want, unsigned flags, struct blk_run *out)
{
	int err = ROOM(tx, take, ntake, cap_take);

	if (tx->admitted && flags & BLK_META)
		flags |= BLK_PROMISED;
	if (!err)
		err = blk_take(tx->st, goal, want, 0, flags, &tx->take[tx->ntake]);
	if (!err)
		*out = tx->take[tx->ntake++];
	return err;
}

uint64_t tx_taken(const struct pm_tx *tx)
{
	uint64_t n = 0;

	for (size_t i = 0; i < tx->ntake; i++)
		n += tx->take[i].len;
	return n;
}

/* What happened to a metadata block that is given up no longer matters, so its changes are not
 * journaled. */
void tx_give(struct pm_tx *tx, uint64_t start, uint64_t len, bool meta)
{
	if (len == 0)
		return;
	if (ROOM(tx, give, ngive, cap_give)) {
		tx->err = -ENOMEM;
		return;
	}
	tx->give[tx->ngive++] = (struct given){ { start, len }, meta };
	for (uint64_t b = start; meta && b < start + len; b++) {
		struct edit *e = find(tx, blk_ptr(tx->st, b));

		if (e) {
			unbound(tx, e);
			e->dead = true;
		}
	}
}

int tx_zero_run(struct pm_tx *tx, uint64_t start, uint64_t len)
{
	struct pm_store *st = tx->st;
	uint64_t at = start * PM_BLOCK;
	size_t n = len * PM_BLOCK;

	st->media.ops->zero(&st->media, st->media.base + at, n);
	if (media_slow(st))
		return journal_sync_first(st, at, n);
	med_flush(st, at, n);
	tx->after_data = true;
	return 0;
}

int tx_note_slot(struct pm_tx *tx, uint64_t ino, bool freed)
{
	if (ROOM(tx, slot, nslot, cap_slot)) {
		tx->err = -ENOMEM;
		return -ENOMEM;
	}
	tx->slot[tx->nslot++] = (struct slot){ ino, freed };
	return 0;
}

void tx_note_chunk(struct pm_tx *tx)
{
	tx->grew = true;
}

void tx_note_reply(struct pm_tx *tx, const struct pm_slot *s)
{
	tx->reply = *s;
	tx->replies = true;
	tx->bound += sizeof(struct rec_reply);
}

/* --- commit ---------------------------------------------------------------------------------- */

static void put_crc(struct edit *e)
{
	if (e->kind == TX_RAW || e->kind == TX_SUMS || e->dead)
		return;
	uint32_t crc = pm_crc(e->shadow, e->len, 0);

	memcpy(e->shadow, &crc, sizeof(crc));
}

static void add_range(struct pm_tx *tx, const struct edit *e, uint32_t from, uint32_t to)
{
	struct pm_rec *rec = (struct pm_rec *)(void *)tx->rec;
	uint64_t at = (uint64_t)(e->at + from - tx->st->media.view);
	uint32_t len = to - from;
	struct pm_rec_range rr = { .len = (uint16_t)len };

	if (tx->rec_len + sizeof(rr) + len > journal_max_rec(tx->st)) {
		tx->rec_full = true;
		return;
	}
	rr.at = at & ((1ull << 48) - 1);
	memcpy(tx->rec + tx->rec_len, &rr, sizeof(rr));
	memcpy(tx->rec + tx->rec_len + sizeof(rr), e->shadow + from, len);
	tx->rec_len += sizeof(rr) + len;
	rec->nranges++;
}

static bool word_differs(const struct edit *e, uint32_t i)
{
	uint64_t a, b;

	memcpy(&a, e->at + i * 8, 8);
	memcpy(&b, e->shadow + i * 8, 8);
	return a != b;
}

static bool words_same(const struct edit *e, uint32_t i, uint32_t n)
{
	return !memcmp(e->at + i * 8, e->shadow + i * 8, n * 8);
}

/* Which words of a line differ: bit 2k stands for word k. */
static unsigned line_differs(const uint8_t *a, const uint8_t *b)
{
#ifdef __SSE2__
	__m128i same[4];
	unsigned halves;

	for (unsigned k = 0; k < 4; k++)
		same[k] = _mm_cmpeq_epi32(_mm_loadu_si128((const void *)(a + 16 * k)),
		                          _mm_loadu_si128((const void *)(b + 16 * k)));
	halves = ~(unsigned)_mm_movemask_epi8(_mm_packs_epi16(_mm_packs_epi32(same[0], same[1]),
	                                                      _mm_packs_epi32(same[2], same[3])));
	return (halves | halves >> 1) & 0x5555;
#else
	unsigned mask = 0;

	for (unsigned k = 0; k < LINE_WORDS; k++)
		mask |= (unsigned)!!memcmp(a + 8 * k, b + 8 * k, 8) << 2 * k;
	return mask;
#endif
}

/* The same of the words from @i on, of which there are @n. */
static unsigned words_differ(const struct edit *e, uint32_t i, uint32_t n)
{
	unsigned mask = 0;

	if (n - i >= LINE_WORDS)
		return line_differs(e->at + i * 8, e->shadow + i * 8);
	for (unsigned k = 0; i + k < n; k++)
		mask |= (unsigned)word_differs(e, i + k) << 2 * k;
	return mask;
}

/* The words that differ; ranges closer than a range header costs are one. Of a block mostly few do: what is the same is
 * passed over in large steps, where the library compares faster than we do. */
static void add_diff(struct pm_tx *tx, const struct edit *e)
{
	uint32_t n = e->len / 8, from = 0, to = 0;

	for (uint32_t i = 0; i < n; i += LINE_WORDS) {
		unsigned mask = 0;

		if (i % STEP_WORDS == 0 && n - i >= STEP_WORDS && words_same(e, i, STEP_WORDS))
			i += STEP_WORDS - LINE_WORDS;
		else
			mask = words_differ(e, i, n);
		for (; mask; mask &= mask - 1) {
			uint32_t at = i + (uint32_t)__builtin_ctz(mask) / 2;

			if (to && at - to > 1) {
				add_range(tx, e, from * 8, to * 8);
				to = 0;
			}
			from = to ? from : at;
			to = at + 1;
		}
	}
	if (to)
		add_range(tx, e, from * 8, to * 8);
}

/* What add_diff would take. */
static size_t diff_size(const struct edit *e)
{
	size_t n = 0, same = 2;

	for (uint32_t i = 0; i < e->len / 8; i++) {
		if (!word_differs(e, i)) {
			same++;
			continue;
		}
		n += same > 1 ? sizeof(struct pm_rec_range) + 8 : same * 8 + 8;
		same = 0;
	}
	return n;
}

static void add_sums(struct pm_tx *tx, const struct edit *e)
{
	for (unsigned from = 0, to = 0; bits_run(words_of(e->own), &from, &to);)
		add_range(tx, e, 4 * from, 4 * to);
}

static size_t sums_size(const struct edit *e)
{
	uint64_t words = words_of(e->own);

	return (size_t)(4 * __builtin_popcountll(words)) +
	       sizeof(struct pm_rec_range) * (size_t)__builtin_popcountll(words & ~(words << 1));
}

static void drop_words(struct pm_tx *tx)
{
	if (tx->sums)
		words_drop(tx->st, &tx->words);
}

/* What the record says of entries beside its own is what they are. */
static void take_words(struct pm_tx *tx)
{
	bool beside = worker_beside(tx->st, tx->w);

	for (size_t i = 0; beside && i < tx->nedit; i++)
		if (tx->edit[i].kind == TX_SUMS)
			words_note(&tx->words, tx->edit[i].at, tx->edit[i].own);
	if (beside)
		words_take(tx->st, &tx->words);
	for (size_t i = 0; i < tx->nedit; i++) {
		struct edit *e = &tx->edit[i];
		uint64_t others = e->kind == TX_SUMS ? words_of(e->own) & ~e->own : 0;

		for (; others; others &= others - 1) {
			size_t at = 4 * (size_t)__builtin_ctzll(others);

			memcpy(e->shadow + at, e->at + at, 4);
		}
	}
}

#define STEP (32u << 10) /* what one change may add at most: a split on every level */

bool tx_large(struct pm_tx *tx)
{
	size_t half = journal_max_rec(tx->st) / 2;
	size_t n = sizeof(struct pm_rec) + tx->nrun * sizeof(struct pm_rec_run);

	if (tx->bound <= half || tx->quiet) {
		tx->quiet -= !!tx->quiet;
		return false;
	}
	for (size_t i = 0; i < tx->nedit; i++) {
		const struct edit *e = &tx->edit[i];

		if (e->kind == TX_SUMS)
			n += sums_size(e);
		else if (!e->dead && !e->is_new)
			n += diff_size(e);
		else if (!e->dead && carries_new(tx))
			n += sizeof(struct pm_rec_range) + e->len;
	}
	if (n <= half)
		tx->quiet = (unsigned)((half - n) / STEP);
	return n > half;
}

static void add_reply(struct pm_tx *tx)
{
	struct pm_rec *rec = (struct pm_rec *)(void *)tx->rec;
	struct rec_reply r = { .where.len = sizeof(r.slot), .slot = tx->reply };

	if (tx->rec_len + sizeof(r) > journal_max_rec(tx->st)) {
		tx->rec_full = true;
		return;
	}
	memcpy(tx->rec + tx->rec_len, &r, sizeof(r));
	tx->reply_at = tx->rec_len;
	tx->rec_len += sizeof(r);
	rec->nranges++;
}

static struct rec_reply *reply_in(struct pm_tx *tx)
{
	return tx->replies ? (struct rec_reply *)(void *)(tx->rec + tx->reply_at) : NULL;
}

static void add_pad(struct pm_tx *tx, const struct edit *e, size_t pad)
{
	add_range(tx, e, 0, (uint32_t)(pad - sizeof(struct pm_rec_range)));
	tx->padded = !tx->rec_full;
}

/* Side by side with others: end with a cache line, so that nobody stores to one that somebody else is flushing. What fills
 * it up is a range that says what is so already. */
static void pad_record(struct pm_tx *tx)
{
	size_t pad = -tx->rec_len & 63;

	if (!pad || tx->rec_full)
		return;
	if (pad < sizeof(struct pm_rec_range) + 8)
		pad += 64;
	for (size_t i = 0; i < tx->nedit; i++) {
		const struct edit *e = &tx->edit[i];

		if (e->dead || e->is_new || e->len < pad || e->kind == TX_SUMS)
			continue;
		add_pad(tx, e, pad);
		return;
	}
	if (tx->pad) {
		uint8_t is[128];
		struct edit e = { .at = (const uint8_t *)tx->pad, .shadow = is };

		memcpy(is, tx->pad, sizeof(is));
		add_pad(tx, &e, pad);
	}
}

/* Say by what it can be seen whether the data has arrived. */
static void build_data(struct pm_tx *tx)
{
	struct pm_rec_data d = { .crc = ~tx->run_crc, .n = (uint32_t)tx->nrun };
	size_t len = tx->nrun * sizeof(*tx->run);

	if (!tx->nrun) {
		tx->after_data |= tx->with_data; /* by nothing */
		return;
	}
	if (tx->rec_len + sizeof(d) + len > journal_max_rec(tx->st)) {
		tx->rec_full = true;
		return;
	}
	((struct pm_rec *)(void *)tx->rec)->magic = PM_REC_MAGIC_DATA;
	memcpy(tx->rec + tx->rec_len, &d, sizeof(d));
	memcpy(tx->rec + tx->rec_len + sizeof(d), tx->run, len);
	tx->rec_len += sizeof(d) + len;
}

/* Returns how many new blocks go past the record. */
static size_t build_record(struct pm_tx *tx)
{
	struct pm_rec *rec = (struct pm_rec *)(void *)tx->rec;
	size_t fresh = 0;

	*rec = (struct pm_rec){ .magic = PM_REC_MAGIC };
	tx->rec_len = sizeof(*rec);
	build_data(tx);
	for (size_t i = 0; i < tx->nedit; i++) {
		struct edit *e = &tx->edit[i];

		if (e->dead)
			continue;
		put_crc(e);
		if (e->kind == TX_SUMS)
			add_sums(tx, e);
		else if (!e->is_new)
			add_diff(tx, e);
		else if (carries_new(tx))
			add_range(tx, e, 0, e->len);
		else
			fresh++;
	}
	if (tx->replies)
		add_reply(tx);
	if (tx->w && rec->nranges && journal_shared(tx->st))
		pad_record(tx);
	rec->len = (uint32_t)tx->rec_len;
	return fresh;
}

static void write_new_blocks(struct pm_tx *tx)
{
	struct pm_store *st = tx->st;

	for (size_t i = 0; i < tx->nedit; i++) {
		const struct edit *e = &tx->edit[i];
		uint64_t at = (uint64_t)(e->at - st->media.view);

		if (!e->is_new || e->dead)
			continue;
		st->media.ops->store_nt(&st->media, st->media.base + at, e->shadow, e->len);
		med_flush_as(st, tx->count, at, e->len);
	}
}

/* The flushes have to be over before a drain of another thread's, at a checkpoint. Every lock ends with a locked
 * instruction, which on x86 waits for them as a fence does. */
static void leave_flushed(struct pm_tx *tx)
{
#if defined(__x86_64__)
	(void)tx;
#else
	if (!media_slow(tx->st))
		med_drain_as(tx->st, tx->count);
#endif
}

/* What was stored in place and is to be flushed. */
struct stored {
	uint64_t at, end; /* bytes; nothing while they are the same */
};

static void flush_stored(struct pm_tx *tx, const struct stored *s)
{
	if (s->end > s->at)
		med_flush_as(tx->st, tx->count, s->at, s->end - s->at);
}

/* Ranges in one line, or in neighbours, are flushed together: no line is twice, and none in which nothing was stored. */
static void add_stored(struct pm_tx *tx, struct stored *s, uint64_t at, uint64_t end)
{
	if (at >= s->at && at / LINE <= (s->end + LINE - 1) / LINE) {
		s->end = end > s->end ? end : s->end;
		return;
	}
	flush_stored(tx, s);
	*s = (struct stored){ at, end };
}

static inline void apply_at(struct pm_tx *tx, struct stored *s, uint64_t at, const uint8_t *bytes, size_t len)
{
	struct pm_store *st = tx->st;

	if (media_slow(st)) {
		memcpy(st->media.view + at, bytes, len);
	} else {
		med_store(st, at, bytes, len);
		add_stored(tx, s, at, at + len);
	}
	if (faults_in(st, at, len))
		journal_fail(st);
}

/* Entries of the table of checksums, and no others of their words. */
static void apply_sums(struct pm_tx *tx, struct stored *s)
{
	for (size_t i = 0; i < tx->nedit; i++) {
		const struct edit *e = &tx->edit[i];
		uint64_t own = e->kind == TX_SUMS ? e->own : 0;

		for (unsigned from = 0, to = 0; bits_run(own, &from, &to);)
			apply_at(tx, s, (uint64_t)(e->at - tx->st->media.view) + 4 * from, e->shadow + 4 * from, 4 * (to - from));
	}
}

static void apply(struct pm_tx *tx)
{
	const struct pm_rec *rec = (const struct pm_rec *)(const void *)tx->rec;
	uint64_t table = tx->sums ? tx->st->super.sum_start * PM_BLOCK : UINT64_MAX; /* to the end of the pool */
	const uint8_t *p = rec_ranges(rec);
	struct stored stored = { 0 };

	for (uint32_t i = 0; i < rec->nranges - tx->padded; i++) {
		struct pm_rec_range rr;

		memcpy(&rr, p, sizeof(rr));
		p += sizeof(rr);
		if (rr.at < table)
			apply_at(tx, &stored, rr.at, p, rr.len);
		p += rr.len;
	}
	if (tx->sums)
		apply_sums(tx, &stored);
	flush_stored(tx, &stored);
	leave_flushed(tx);
	drop_words(tx);
}

static void settle(struct pm_tx *tx, pm_lsn lsn)
{
	struct pm_store *st = tx->st;

	for (size_t i = 0; i < tx->ngive; i++) {
		const struct given *g = &tx->give[i];

		/* without a record of its own the giving hangs from the last one */
		alloc_give(st, lsn ? lsn : journal_last(st), g->run.start, g->run.len, g->meta);
	}
	for (size_t i = 0; i < tx->nslot; i++)
		if (tx->slot[i].freed)
			table_slot(st, tx->slot[i].ino, true);
	if (tx->replies) {
		const struct rec_reply *r = reply_in(tx);

		reply_made(st, r->where.at, &r->slot);
		COUNT(st, tx->count, replies, 1);
	}
	reset(tx);
}

/* Who meets the inodes again need not verify what has just been given its checksum. */
static void saw_inodes(struct pm_tx *tx)
{
	for (size_t i = 0; i < tx->nedit; i++)
		if (tx->edit[i].kind == TX_INODE && !tx->edit[i].dead)
			ino_saw(tx->st, tx->w, (const void *)tx->edit[i].shadow);
}

/* What the inodes of the transaction change in their owners' accounts; inside: may it? */
static int account(struct pm_tx *tx)
{
	struct pm_store *st = tx->st;
	int err = 0;

	for (size_t i = 0; i < tx->nedit && !err; i++) {
		const struct edit *e = &tx->edit[i];

		if (e->kind == TX_INODE && tx->w)
			err = quota_plain(st, (const void *)e->at, (const void *)e->shadow);
		else if (e->kind == TX_INODE)
			err = quota_note(st, (const void *)e->at, (const void *)e->shadow);
	}
	if (tx->w)
		return err;
	if (!err && !tx->admitted)
		err = quota_judge(st);
	quota_settle(st, !err);
	return err;
}

/* Inside: it is durable, and not applied. */
static void account_inside(struct pm_tx *tx)
{
	for (size_t i = 0; tx->w && i < tx->nedit; i++) {
		const struct edit *e = &tx->edit[i];

		if (e->kind == TX_INODE)
			quota_moved(tx->st, (const void *)e->at, (const void *)e->shadow);
	}
}

/* Everything that may fail comes first, but for a full lane when inside. */
static int prepare(struct pm_tx *tx, size_t *fresh)
{
	struct pm_store *st = tx->st;
	int err = tx->err;

	if (!err)
		err = st->read_only ? -EROFS : journal_error(st);
	if (err)
		return err;
	if (tx->sums)
		take_words(tx);
	*fresh = build_record(tx);
	if (tx->rec_full)
		return -E2BIG;
	err = alloc_reserve(st, tx->ngive);
	if (!err && tx->rec_len > sizeof(struct pm_rec))
		err = journal_reserve(st, tx->rec_len);
	return err ? err : account(tx);
}

int tx_commit(struct pm_tx *tx, pm_lsn *lsn)
{
	struct pm_store *st = tx->st;
	struct pm_rec *rec = (struct pm_rec *)(void *)tx->rec;
	size_t fresh = 0;
	pm_lsn at = 0;
	int err;

	if (!tx->err && !tx->nedit && !tx->ngive && !tx->ntake && !tx->replies) {
		reset(tx);
		if (lsn)
			*lsn = 0;
		return 0;
	}
	err = prepare(tx, &fresh);
	if (err) {
		tx_abort(tx);
		return err;
	}
	if (fresh)
		write_new_blocks(tx);
	if ((fresh || tx->after_data || (tx->with_data && !rec->nranges)) && !media_slow(st))
		med_drain_as(st, tx->count);
	if (rec->nranges) {
		err = journal_append(st, rec, reply_in(tx), tx->w, &at);
		if (err) {
			tx_abort(tx);
			return err;
		}
		account_inside(tx);
		apply(tx);
		saw_inodes(tx);
		COUNT(st, tx->count, transactions, 1);
		COUNT(st, tx->count, journal_bytes, rec->len);
	}
	settle(tx, at);
	if (lsn)
		*lsn = at;
	return 0;
}

void tx_abort(struct pm_tx *tx)
{
	drop_words(tx);
	for (size_t i = 0; i < tx->ntake; i++)
		blk_give(tx->st, tx->take[i].start, tx->take[i].len);
	for (size_t i = 0; i < tx->nslot; i++)
		if (!tx->slot[i].freed)
			table_slot(tx->st, tx->slot[i].ino, true);
	if (tx->grew)
		table_pop_chunk(tx->st);
	reset(tx);
}
