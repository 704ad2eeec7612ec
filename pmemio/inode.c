/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * inode.c - the inode table: slots of 256 bytes in chunks of 16 blocks that belong to inode 0
 *
 * In memory: where each chunk lies, and one bit per slot that may be handed out. A slot whose inode
 * is damaged is never free here, so that nothing is written over what a repair may still want. Another bit
 * says what truncate.c has found out of the file, and is gone with the store.
 *
 * Chunks come and go only when somebody is alone; for the bits there is a lock. Threads beside each other begin to
 * look in different words, so that a slot given up by one is not the next that another takes.
 */
#include <errno.h>
#include <stdlib.h>

#include "pmemio/core.h"

#define WORDS (PM_CHUNK_INODES / 64)

struct chunk {
	uint64_t start;            /* block */
	uint64_t free_slot[WORDS]; /* bit set: free */
	uint64_t trimmed[WORDS];   /* see ino_trimmed; atomic */
	uint32_t nfree;
};
struct pm_table {
	struct pm_lock lock; /* for whoever is inside: free_slot, nfree, rotor */
	struct chunk *chunk;
	uint64_t n, cap;
	uint64_t rotor; /* no chunk before it has a free slot */
	uint64_t nfree, bad;
	bool proved; /* inode 0 is damaged, but see table_proved */
	bool found;  /* without inode 0 */
	struct pm_inode seen[INO_SEEN]; /* of whoever is alone */
};

/* --- reading --------------------------------------------------------------------------------- */

const struct pm_inode *ino_at(struct pm_store *st, uint64_t ino)
{
	const struct pm_table *t = st->table;
	uint64_t c = ino / PM_CHUNK_INODES;

	if (c >= t->n)
		return NULL;
	return (const struct pm_inode *)blk_ptr(st, t->chunk[c].start) + ino % PM_CHUNK_INODES;
}

void ino_fetch(struct pm_store *st, uint64_t ino)
{
	const uint8_t *in = (const uint8_t *)ino_at(st, ino);

	for (unsigned at = 0; in && at < PM_INODE_SIZE; at += 64)
		__builtin_prefetch(in + at);
}

int ino_verify(const struct pm_inode *in, uint64_t ino)
{
	static const struct pm_inode never; /* a slot as its chunk was zeroed */

	if (in->crc == pm_crc(in, sizeof(*in), offsetof(struct pm_inode, crc)) && in->ino == ino)
		return in->type > PM_FIFO ? -EIO : in->type ? 0 : -ENOENT;
	return in->type == 0 && !memcmp(in, &never, sizeof(never)) ? -ENOENT : -EIO;
}

/* Where the calling thread keeps what it knows to be good. */
static struct pm_inode *seen_at(struct pm_store *st, struct pm_worker *w, uint64_t ino)
{
	return &(w ? w->seen : st->table->seen)[ino % INO_SEEN];
}

void ino_saw(struct pm_store *st, struct pm_worker *w, const struct pm_inode *good)
{
	*seen_at(st, w, good->ino) = *good;
}

/* As ino_verify. An operation comes to one inode several times: bytes that have not changed since they passed need no
 * other checksum, and to compare them costs a tenth of it. */
static int verify(struct pm_store *st, const struct pm_inode *in, uint64_t ino)
{
	struct pm_worker *w = worker_here(st);
	int rc;

	if (in->ino == ino && !memcmp(in, seen_at(st, w, ino), sizeof(*in)))
		return in->type ? 0 : -ENOENT;
	rc = ino_verify(in, ino);
	if (!rc)
		ino_saw(st, w, in);
	return rc;
}

const struct pm_inode *ino_get(struct pm_store *st, struct pm_id id, int *err)
{
	const struct pm_inode *in = id.ino ? ino_at(st, id.ino) : NULL;
	int rc = in ? verify(st, in, id.ino) : -ESTALE;
	bool gone = in && faults_in(st, (uint64_t)((const uint8_t *)in - st->media.view), 8);

	if (gone || (!rc && in->flags & PM_IF_DOUBT))
		rc = -EIO;
	if (rc == -EIO) {
		STAT_ADD(st, checksum_errors, 1);
		store_log(st, 3, gone ? "media error: inode %llu cannot be read" : "inode %llu is damaged",
		          (unsigned long long)id.ino);
	}
	if (rc == -ENOENT && id.ino == PM_ROOT_INO)
		rc = -EIO;
	if (rc == -ENOENT || (!rc && in->gen != id.gen))
		rc = -ESTALE;
	if (rc) {
		*err = rc;
		return NULL;
	}
	return in;
}

const struct pm_inode *ino_look(struct pm_tx *tx, const struct pm_inode *in)
{
	return tx_look(tx, in);
}

static uint64_t *trimmed_at(struct pm_store *st, uint64_t ino)
{
	return &st->table->chunk[ino / PM_CHUNK_INODES].trimmed[ino % PM_CHUNK_INODES / 64];
}

bool ino_trimmed(struct pm_store *st, uint64_t ino)
{
	return __atomic_load_n(trimmed_at(st, ino), __ATOMIC_RELAXED) >> (ino % 64) & 1;
}

void ino_set_trimmed(struct pm_store *st, uint64_t ino, bool trimmed)
{
	uint64_t bit = 1ull << (ino % 64);

	if (trimmed)
		__atomic_fetch_or(trimmed_at(st, ino), bit, __ATOMIC_RELAXED);
	else if (ino_trimmed(st, ino))
		__atomic_fetch_and(trimmed_at(st, ino), ~bit, __ATOMIC_RELAXED);
}

static struct timespec unpack_time(const struct pm_time *t)
{
	return (struct timespec){ .tv_sec = t->sec, .tv_nsec = t->nsec };
}

void ino_attr(const struct pm_inode *in, struct pm_attr *out)
{
	*out = (struct pm_attr){
		.id = { in->ino, in->gen },
		.type = in->type,
		.mode = in->mode,
		.nlink = in->nlink,
		.uid = in->uid,
		.gid = in->gid,
		.rdev_major = in->rdev_major,
		.rdev_minor = in->rdev_minor,
		/* a directory counts entries on media; callers expect bytes */
		.size = in->type == PM_DIR ? PM_BLOCK * (in->blocks ? in->blocks : 1) : in->size,
		.used = in->blocks * PM_BLOCK,
		.atime = unpack_time(&in->atime),
		.mtime = unpack_time(&in->mtime),
		.ctime = unpack_time(&in->ctime),
	};
}

uint64_t ino_count(struct pm_store *st)
{
	return st->table->n * PM_CHUNK_INODES;
}

void table_count(struct pm_store *st, uint64_t *used, uint64_t *nfree)
{
	*nfree = st->table->nfree;
	*used = ino_count(st) - st->table->nfree;
}

/* --- slots ----------------------------------------------------------------------------------- */

static void set_slot(struct pm_table *t, uint64_t ino, bool is_free)
{
	uint64_t c = ino / PM_CHUNK_INODES, i = ino % PM_CHUNK_INODES;
	uint64_t *w = &t->chunk[c].free_slot[i / 64], bit = 1ull << (i % 64);

	if (!!(*w & bit) == is_free)
		return;
	*w ^= bit;
	if (is_free) {
		t->chunk[c].nfree++;
		t->nfree++;
		if (c < t->rotor)
			t->rotor = c;
	} else {
		t->chunk[c].nfree--;
		t->nfree--;
	}
}

void table_slot(struct pm_store *st, uint64_t ino, bool is_free)
{
	lock_take(&st->table->lock);
	set_slot(st->table, ino, is_free);
	lock_drop(&st->table->lock);
}

static int add_chunk(struct pm_store *st, uint64_t start)
{
	struct pm_table *t = st->table;

	if (t->n == t->cap) {
		uint64_t cap = t->cap ? t->cap * 2 : 64;
		struct chunk *c = realloc(t->chunk, cap * sizeof(*c));

		if (!c)
			return -ENOMEM;
		t->chunk = c;
		t->cap = cap;
	}
	t->chunk[t->n++] = (struct chunk){ .start = start };
	return 0;
}

void table_pop_chunk(struct pm_store *st)
{
	struct pm_table *t = st->table;

	t->nfree -= t->chunk[--t->n].nfree;
	if (t->rotor > t->n)
		t->rotor = t->n;
}

static void free_all_slots(struct pm_store *st, uint64_t c)
{
	for (uint64_t i = 0; i < PM_CHUNK_INODES; i++)
		set_slot(st->table, c * PM_CHUNK_INODES + i, true);
}

/* One more chunk, within the transaction: zeroed first, then named by inode 0. */
static int grow(struct pm_tx *tx, struct pm_store *st)
{
	struct pm_table *t = st->table;
	const struct pm_inode *in0 = ino_at(st, 0);
	struct pm_inode *shadow;
	struct blk_run run;
	struct ext e;
	int err;

	if (worker_here(st))
		return NEEDS_ALL;
	err = tx_take(tx, t->chunk[t->n - 1].start + PM_CHUNK_BLOCKS, PM_CHUNK_BLOCKS, BLK_WHOLE,
	              &run);
	if (err)
		return err;
	err = tx_zero_run(tx, run.start, run.len);
	if (err)
		return err;
	e = (struct ext){ .lblk = t->n * PM_CHUNK_BLOCKS, .pblk = run.start, .len = run.len };
	err = ext_put(st, tx, in0, &e);
	if (!err)
		err = add_chunk(st, run.start);
	if (err)
		return err;
	tx_note_chunk(tx);
	shadow = ino_edit(tx, in0);
	shadow->size = t->n * PM_CHUNK_BLOCKS * PM_BLOCK;
	free_all_slots(st, t->n - 1);
	return 0;
}

/* @from: the word of a chunk to begin with. */
static bool next_slot(struct pm_table *t, unsigned from, uint64_t *ino)
{
	for (; t->rotor < t->n; t->rotor++) {
		const struct chunk *c = &t->chunk[t->rotor];

		for (unsigned k = 0; c->nfree && k < WORDS; k++) {
			unsigned w = (from + k) % WORDS;

			if (!c->free_slot[w])
				continue;
			*ino = t->rotor * PM_CHUNK_INODES + w * 64 +
			       (unsigned)__builtin_ctzll(c->free_slot[w]);
			return true;
		}
	}
	return false;
}

static bool take_slot(struct pm_store *st, const struct pm_worker *w, uint64_t *ino)
{
	struct pm_table *t = st->table;
	bool found;

	lock_take(&t->lock);
	found = next_slot(t, w ? w->no % WORDS : 0, ino);
	if (found)
		set_slot(t, *ino, false);
	lock_drop(&t->lock);
	return found;
}

struct pm_inode *ino_edit(struct pm_tx *tx, const struct pm_inode *in)
{
	return tx_edit(tx, in, sizeof(*in), TX_INODE);
}

int ino_new(struct pm_tx *tx, enum pm_type type, struct pm_inode **shadow)
{
	struct pm_store *st = tx_store(tx);
	struct pm_worker *here = worker_here(st);
	const struct pm_inode *in;
	struct pm_inode *s;
	uint64_t ino, gen;
	int err;

	for (;;) {
		if (!take_slot(st, here, &ino)) {
			err = grow(tx, st);
			if (err)
				return err;
			continue;
		}
		if (!inode_also(st, here, ino)) { /* a stale handle is being looked at */
			table_slot(st, ino, true);
			return NEEDS_ALL;
		}
		in = ino_at(st, ino);
		err = ino_verify(ino_look(tx, in), ino);
		if (err == -ENOENT)
			break;
		STAT_ADD(st, checksum_errors, 1);
		store_log(st, 3, "free inode slot %llu is damaged and left alone",
		          (unsigned long long)ino);
	}
	err = tx_note_slot(tx, ino, false);
	if (err) {
		table_slot(st, ino, true);
		return err;
	}
	s = ino_edit(tx, in);
	gen = s->gen + 1;
	*s = (struct pm_inode){ .type = (uint16_t)type, .ino = ino, .gen = gen };
	s->atime = s->mtime = s->ctime = store_now();
	*shadow = s;
	return 0;
}

void ino_free(struct pm_tx *tx, struct pm_inode *shadow)
{
	uint64_t ino = shadow->ino, gen = shadow->gen;

	*shadow = (struct pm_inode){ .ino = ino, .gen = gen };
	tx_note_slot(tx, ino, true);
}

/* --- opening --------------------------------------------------------------------------------- */

bool table_proved(const struct pm_store *st)
{
	return st->table->proved;
}

bool table_found(const struct pm_store *st)
{
	return st->table->found;
}

uint64_t table_chunk(const struct pm_store *st, uint64_t c)
{
	return st->table->chunk[c].start;
}

bool table_chunk_proves(struct pm_store *st, uint64_t start, uint64_t c)
{
	const struct pm_inode *in = blk_ptr(st, start);
	unsigned good = 0, bad = 0;

	for (unsigned i = 0; i < PM_CHUNK_INODES; i++) {
		switch (ino_verify(&in[i], c * PM_CHUNK_INODES + i)) {
		case 0:
			good++;
			break;
		case -ENOENT:
			good += in[i].crc != 0;
			break;
		default:
			bad++;
		}
	}
	return good > bad;
}

/* Repair of a pool whose inode 0 fails its checksum: its extents are believed if every one leads to
 * slots with the right numbers, and none is missing. */
static int prove_table(struct pm_store *st, const struct pm_inode *in0)
{
	struct ext e;

	if (!table_chunk_proves(st, st->super.data_start, 0))
		return -EUCLEAN;
	for (uint64_t c = 1;; c++) {
		uint64_t lblk = c * PM_CHUNK_BLOCKS, start;
		int err = ext_find(st, NULL, in0, lblk, &e);

		if (err == -ENOENT && e.len < UINT64_MAX - lblk)
			return -EUCLEAN;
		if (err == -ENOENT)
			break;
		if (err)
			return -EUCLEAN;
		start = e.pblk + (lblk - e.lblk);
		if (e.lblk + e.len < lblk + PM_CHUNK_BLOCKS || !table_chunk_proves(st, start, c))
			return -EUCLEAN;
		err = add_chunk(st, start);
		if (err)
			return err;
	}
	if (ext_find(st, NULL, in0, 0, &e) || e.lblk || e.len < PM_CHUNK_BLOCKS ||
	    e.pblk != st->super.data_start)
		return -EUCLEAN;
	/* and none at the end: one of the two counts has to agree */
	if (in0->size != st->table->n * PM_CHUNK_BLOCKS * PM_BLOCK &&
	    ((in0->flags & PM_IF_TREE) || in0->blocks != st->table->n * PM_CHUNK_BLOCKS))
		return -EUCLEAN;
	st->table->proved = true;
	return 0;
}

/* As inode 0 says. */
static int follow_table(struct pm_store *st, const struct pm_inode *in0, struct pm_error *why)
{
	uint64_t chunks = in0->size / (PM_CHUNK_BLOCKS * PM_BLOCK);
	int err = 0;

	if (ino_verify(in0, 0) || in0->type != PM_REG || chunks == 0 ||
	    chunks > st->super.blocks / PM_CHUNK_BLOCKS) {
		why_set(why, "the inode of the inode table (inode 0) is damaged; try `berth check --repair`, or "
		             "restore from a copy");
		return -EUCLEAN;
	}
	for (uint64_t c = 1; c < chunks && !err; c++) {
		struct ext e;
		uint64_t lblk = c * PM_CHUNK_BLOCKS;

		err = ext_find(st, NULL, in0, lblk, &e);
		if (!err && (e.lblk + e.len < lblk + PM_CHUNK_BLOCKS ||
		             e.pblk + e.len > st->super.blocks || e.pblk < st->super.data_start))
			err = -EIO;
		if (!err)
			err = add_chunk(st, e.pblk + (lblk - e.lblk));
		if (err && err != -ENOMEM) {
			err = -EUCLEAN;
			why_set(why,
			        "inode chunk %llu is missing from the inode table; try `berth check --repair`, or "
			        "restore from a copy",
			        (unsigned long long)c);
		}
	}
	return err;
}

static int find_table(struct pm_store *st, const struct pm_inode *in0, struct pm_error *why)
{
	bool sound = !ino_verify(in0, 0) && in0->type == PM_REG;
	uint64_t *start, n;
	int err = table_find(st, in0, sound, &start, &n, why);

	if (err)
		return err;
	for (uint64_t c = 1; c < n && !err; c++)
		err = add_chunk(st, start[c]);
	free(start);
	st->table->proved = st->table->found = true;
	return err;
}

int table_open(struct pm_store *st, struct pm_error *why)
{
	struct pm_table *t = calloc(1, sizeof(*t));
	const struct pm_inode *in0;
	int err;

	if (!t)
		return -ENOMEM;
	st->table = t;
	err = add_chunk(st, st->super.data_start);
	if (err)
		goto fail;
	in0 = ino_at(st, 0);
	if (st->repair && (ino_verify(in0, 0) || in0->type != PM_REG) && !prove_table(st, in0))
		return 0;
	t->n = 1;
	err = follow_table(st, in0, why);
	if (err == -EUCLEAN && st->repair) {
		t->n = 1;
		err = find_table(st, in0, why);
	}
	if (!err)
		return 0;
fail:
	table_close(st);
	return err;
}

void table_close(struct pm_store *st)
{
	if (!st->table)
		return;
	free(st->table->chunk);
	free(st->table);
	st->table = NULL;
}

/* --- stored free slots: 32 bytes per chunk --------------------------------------------------- */

size_t table_save_size(struct pm_store *st)
{
	return st->table->n * sizeof(uint64_t) * WORDS;
}

size_t table_save(struct pm_store *st, uint8_t *buf)
{
	for (uint64_t c = 0; c < st->table->n; c++)
		memcpy(buf + c * sizeof(uint64_t) * WORDS, st->table->chunk[c].free_slot,
		       sizeof(uint64_t) * WORDS);
	return table_save_size(st);
}

int table_load(struct pm_store *st, const uint8_t *buf, size_t len)
{
	struct pm_table *t = st->table;

	if (len != table_save_size(st))
		return -EUCLEAN;
	for (uint64_t c = 0; c < t->n; c++) {
		struct chunk *ch = &t->chunk[c];

		memcpy(ch->free_slot, buf + c * sizeof(uint64_t) * WORDS, sizeof(uint64_t) * WORDS);
		if (c == 0)
			ch->free_slot[0] &= ~3ull; /* inode 0 and the root */
		ch->nfree = 0;
		for (unsigned w = 0; w < WORDS; w++)
			ch->nfree += (uint32_t)__builtin_popcountll(ch->free_slot[w]);
		t->nfree += ch->nfree;
	}
	return 0;
}
