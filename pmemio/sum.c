/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sum.c - checksums of file data, for pools that were made with them
 *
 * A table at the end of the pool holds a CRC32C for each block. The entry of a written block of a
 * file (or of a symbolic link's target) is that of its 4096 bytes, those behind the end of file
 * taken as zeros; of every other block it means nothing.
 *
 * S1  No byte in front of the end of file changes in a written block that has an entry. There are two
 *     ways to overwrite one:
 *     in place (flushing is cheap)  before the first byte may arrive, a transaction makes the entries
 *         UNPROVEN; the one that ends the write, when its bytes are durable, makes them anew. If the
 *         power fails in between, the block holds old and new bytes, as on a pool without checksums,
 *         and that it is not damage can be seen. The next scrub makes the entry.
 *     elsewhere (PM_MSYNC)  the write goes to new blocks, with the rest of a block that it covers in part
 *         copied; the transaction that publishes them sets their entries and drops the old ones.
 * S2  What is behind the end of file does not count, so zeroing it before the end moves up (F5), or
 *     writing to it, changes no entry. Before the end moves over bytes that are still arriving the entry
 *     is made UNPROVEN. A truncate into a block changes the entry in its own transaction.
 * S3  One write at a time has a block: a second one waits in pm_map_write. What is summed at commit is
 *     at rest.
 * S5  In place: data and the record that has its checksums become durable with one drain. The record counts
 *     only if the data is there (sum_arrived), which a replay looks at.
 * S4  There are no unstable writes: a block that can be read has an entry, but for S1.
 *
 * What was found bad stays so: a write that keeps some of it is refused, and a truncate into a bad
 * block leaves an entry that is wrong as well.
 */
#include <errno.h>
#include <isa-l/crc.h>
#include <stdlib.h>
#include <syslog.h>

#include "pmemio/core.h"
#include "pmemio/file.h"

#define UNPROVEN 0u /* no checksum */

bool sum_moves(const struct pm_store *st)
{
	return sum_on(st) && media_slow(st);
}

bool sum_stays(const struct pm_store *st)
{
	return sum_on(st) && !media_slow(st);
}

static uint32_t crc_of(const uint8_t *data, uint64_t len)
{
	static const uint8_t none[PM_BLOCK];
	uint32_t c = crc32_iscsi((uint8_t *)(uintptr_t)data, (int)len, ~0u);

	if (len < PM_BLOCK)
		c = crc32_iscsi((uint8_t *)(uintptr_t)none, (int)(PM_BLOCK - len), c);
	return ~c == UNPROVEN ? UNPROVEN + 1 : ~c;
}

/* How many bytes of file block @lblk are in front of @size. */
static uint64_t within(uint64_t lblk, uint64_t size)
{
	uint64_t at = lblk * PM_BLOCK;

	return size > at ? min64(size - at, PM_BLOCK) : 0;
}

static uint8_t *entry(struct pm_store *st, uint64_t blk)
{
	return (uint8_t *)blk_ptr(st, st->super.sum_start) + 4 * blk;
}

/* Block @blk, @len bytes of which count, is durable with the transaction. */
static void put_data(struct pm_tx *tx, uint64_t blk, uint64_t len)
{
	uint32_t crc = crc_of(data_ptr(tx_store(tx), blk), len);

	tx_sum(tx, blk, crc);
	tx_vouch(tx, blk, len, crc);
}

static uint32_t entry_of(struct pm_store *st, uint64_t blk)
{
	uint32_t crc;

	memcpy(&crc, entry(st, blk), sizeof(crc));
	return crc;
}

/* Is block @blk, which is @lblk of a file or a link target, as its entry says, if it says anything? */
static bool good(struct pm_store *st, const struct pm_inode *in, uint64_t lblk, uint64_t blk)
{
	const uint8_t *at = in->type == PM_LNK ? blk_ptr(st, blk) : data_ptr(st, blk);
	uint32_t want = entry_of(st, blk);

	return want == UNPROVEN || crc_of(at, within(lblk, in->size)) == want;
}

static void complain(struct pm_store *st, const struct pm_inode *in, uint64_t lblk, uint64_t blk)
{
	STAT_ADD(st, checksum_errors, 1);
	if (__atomic_exchange_n(&st->bad_sum, blk, __ATOMIC_RELAXED) == blk)
		return;
	store_log(st, LOG_ERR,
	          "inode %llu: the data at offset %llu (block 0x%llx) differs from its checksum; "
	          "restore the file from a copy",
	          (unsigned long long)in->ino, (unsigned long long)(lblk * PM_BLOCK),
	          (unsigned long long)blk);
}

int sum_verify(struct pm_store *st, const struct pm_inode *in, uint64_t lblk, uint64_t blk,
               uint64_t n)
{
	for (uint64_t i = 0; i < n && (lblk + i) * PM_BLOCK < in->size; i++) {
		if (good(st, in, lblk + i, blk + i))
			continue;
		complain(st, in, lblk + i, blk + i);
		return -EIO;
	}
	return 0;
}

void sum_put_link(struct pm_tx *tx, uint64_t blk, const void *target, size_t len)
{
	if (sum_on(tx_store(tx)))
		tx_sum(tx, blk, crc_of(target, len));
}

/* --- writing to new blocks ------------------------------------------------------------------- */

/* The written block of the media at @lblk; 0: none. */
static int written(struct pm_store *st, const struct pm_inode *in, uint64_t lblk, uint64_t *blk)
{
	struct ext e;
	int err = ext_find(st, NULL, in, lblk, &e);

	*blk = err || e.unwritten ? 0 : e.pblk + (lblk - e.lblk);
	return err == -ENOENT ? 0 : err;
}

int sum_copy(struct pm_store *st, const struct pm_inode *in, uint64_t lblk, uint64_t to)
{
	uint64_t n = within(lblk, in->size), from;
	uint8_t *dst = data_ptr(st, to);
	int err = written(st, in, lblk, &from);

	if (err)
		return err;
	if (!from)
		n = 0;
	if (n)
		err = sum_verify(st, in, lblk, from, 1);
	if (err)
		return err;
	if (n)
		st->media.ops->store(&st->media, dst, data_ptr(st, from), n);
	if (n < PM_BLOCK)
		st->media.ops->zero(&st->media, dst + n, PM_BLOCK - n);
	return 0;
}

int sum_keep(struct pm_store *st, const struct pm_inode *in, uint64_t lblk)
{
	uint64_t blk;
	int err = written(st, in, lblk, &blk);

	return err || !blk ? err : sum_verify(st, in, lblk, blk, 1);
}

void sum_restore(struct pm_store *st, const struct pm_inode *in, uint64_t to, uint64_t a,
                 uint64_t b)
{
	uint64_t lblk = a / PM_BLOCK, from;

	if (a < b && !written(st, in, lblk, &from) && from)
		st->media.ops->store(&st->media, (uint8_t *)data_ptr(st, to) + a % PM_BLOCK,
		                     (uint8_t *)data_ptr(st, from) + a % PM_BLOCK, b - a);
}

static void take_old(void *arg, const struct ext *e)
{
	struct sum_old *o = arg;
	struct ext *held;

	held = realloc(o->held, (o->n + 1) * sizeof(*held));
	if (!held) {
		o->err = -ENOMEM;
		return;
	}
	o->held = held;
	o->held[o->n++] = *e;
}

int sum_publish(struct sum_old *o, struct pm_tx *tx, const struct pm_inode *in,
                const struct fresh *x, uint64_t size)
{
	struct pm_store *st = tx_store(tx);
	int err = 0;

	if (x->cow)
		err = ext_cut(st, tx, in, x->lblk, x->len, take_old, o);
	for (uint64_t i = 0; i < x->len; i++)
		put_data(tx, x->pblk + i, within(x->lblk + i, size));
	return err ? err : o->err;
}

void sum_published(struct pm_store *st, struct sum_old *o, int err, pm_lsn lsn)
{
	for (unsigned i = 0; !err && i < o->n; i++)
		file_release(st, o->f, o->held[i].lblk, o->held[i].pblk, o->held[i].len, lsn);
	free(o->held);
	o->held = NULL;
	o->n = 0;
}

int sum_cut(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in, uint64_t size)
{
	uint64_t lblk = size / PM_BLOCK, blk;
	uint32_t crc;
	int err;

	if (size % PM_BLOCK == 0 || size >= in->size)
		return 0;
	err = written(st, in, lblk, &blk);
	if (err || !blk)
		return err;
	if (entry_of(st, blk) == UNPROVEN)
		return 0;
	crc = crc_of(data_ptr(st, blk), size % PM_BLOCK);
	if (!good(st, in, lblk, blk)) {
		complain(st, in, lblk, blk);
		crc = ~crc;
	}
	tx_sum(tx, blk, crc);
	return 0;
}

/* --- writing in place ------------------------------------------------------------------------ */

/* The next run of written blocks in [*lblk, end); false: none, or *err. */
static bool next_written(struct pm_store *st, struct pm_tx *tx, const struct pm_inode *in,
                         uint64_t *lblk, uint64_t end, struct blk_run *run, int *err)
{
	struct ext e;

	for (; *lblk < end; *lblk = e.len > end - e.lblk ? end : e.lblk + e.len) {
		*err = ext_find(st, tx, in, *lblk, &e);
		if (*err && *err != -ENOENT)
			return false;
		if (*err || e.unwritten)
			continue;
		run->start = e.pblk + (*lblk - e.lblk);
		run->len = min64(end, e.lblk + e.len) - *lblk;
		*err = 0;
		return true;
	}
	*err = 0;
	return false;
}

/* May the entry of another block go into the transaction? */
static bool has_room(struct pm_tx *tx, unsigned n)
{
	return n < SUM_BLOCKS && (n % 64 || !tx_large(tx));
}

/* The write keeps bytes of block @lblk that are in front of the end of file. */
static bool keeps(const struct pm_inode *in, uint64_t lblk, uint64_t off, uint64_t end)
{
	return off > lblk * PM_BLOCK || end < min64((lblk + 1) * PM_BLOCK, in->size);
}

/* One transaction of sum_open, from *lblk on. Beside others it does all or nothing: the rest might be refused. */
static int open_some(struct pm_store *st, const struct pm_inode *in, uint64_t *lblk, uint64_t end)
{
	struct pm_tx *tx = tx_begin(st);
	struct blk_run run;
	unsigned n = 0;
	int err;

	tx_admitted(tx);
	tx_pad_from(tx, in);
	while (has_room(tx, n) && next_written(st, NULL, in, lblk, end, &run, &err)) {
		for (uint64_t i = 0; i < run.len && has_room(tx, n); i++, n++, ++*lblk)
			if (entry_of(st, run.start + i) != UNPROVEN)
				tx_sum(tx, run.start + i, UNPROVEN);
	}
	if (!err && *lblk < end && worker_here(st))
		err = NEEDS_ALL;
	if (err) {
		tx_abort(tx);
		return err;
	}
	return tx_commit(tx, NULL);
}

int sum_open(struct pm_store *st, struct file *f, const struct pm_inode *in, uint64_t off,
             uint64_t end)
{
	uint64_t first = off / PM_BLOCK, last = blk_up(min64(end, in->size)), at = first;
	int err = 0;

	if (off >= in->size || off == end)
		return 0;
	if (keeps(in, first, off, end))
		err = sum_keep(st, in, first);
	if (!err && last - 1 > first && keeps(in, last - 1, off, end))
		err = sum_keep(st, in, last - 1);
	while (!err && at < last)
		err = open_some(st, in, &at, last);
	if (err && err != NEEDS_ALL) /* that has changed nothing */
		sum_seal(st, f, in, NULL, first, at);
	return err;
}

/* Bytes may still arrive there, whatever has been cut off since. */
static bool in_flux(const struct file *f, const struct pm_pin *but, uint64_t lblk)
{
	const struct pm_pin *p;

	if (!f)
		return false;
	LIST_FOREACH (p, &f->pins, link) {
		if (p != but && p->write && !p->committed && p->off < (lblk + 1) * PM_BLOCK &&
		    p->off + p->len > lblk * PM_BLOCK)
			return true;
	}
	return false;
}

int sum_overwritten(struct pm_tx *tx, const struct pm_inode *in, uint64_t *lblk, uint64_t end)
{
	uint64_t tail = in->size % PM_BLOCK ? in->size / PM_BLOCK : UINT64_MAX;
	struct pm_store *st = tx_store(tx);
	struct blk_run run;
	unsigned n = 0;
	int err = 0;

	end = min64(end, blk_up(in->size));
	while (has_room(tx, n) && next_written(st, NULL, in, lblk, end, &run, &err)) {
		for (uint64_t i = 0; i < run.len && has_room(tx, n); i++, n++, ++*lblk)
			if (*lblk != tail)
				put_data(tx, run.start + i, PM_BLOCK);
	}
	if (err)
		return err;
	return *lblk < end ? -EAGAIN : 0;
}

int sum_end(struct pm_tx *tx, const struct file *f, const struct pm_inode *in, bool done,
            uint64_t size)
{
	uint64_t tail = in->size / PM_BLOCK, blk;
	struct pm_store *st = tx_store(tx);
	int err = 0;

	if (in->size % PM_BLOCK == 0 || sum_moves(st))
		return 0;
	err = written(st, in, tail, &blk);
	if (err || !blk)
		return err;
	if (done) {
		put_data(tx, blk, within(tail, size));
	} else if (size > in->size && (in_flux(f, NULL, tail) || entry_of(st, blk) == UNPROVEN)) {
		tx_sum(tx, blk, UNPROVEN);
		tx_after_data(tx); /* nothing would tell whether the zeros behind the end have arrived */
	} else if (size > in->size) {
		tx_vouch(tx, blk, within(tail, size), crc_of(data_ptr(st, blk), within(tail, size)));
	}
	return 0;
}

/* Make the entry of a block that is at rest, if it has none. */
static int seal(struct pm_tx *tx, const struct pm_inode *in, uint64_t lblk, uint64_t blk)
{
	struct pm_store *st = tx_store(tx);

	if (media_slow(st)) {
		int err = journal_sync_first(st, blk * PM_BLOCK, PM_BLOCK);

		if (err)
			return err;
	} else {
		med_flush(st, blk * PM_BLOCK, PM_BLOCK);
		tx_after_data(tx);
	}
	tx_sum(tx, blk, crc_of(data_ptr(st, blk), within(lblk, in->size)));
	return 0;
}

static int seal_some(struct pm_store *st, const struct file *f, const struct pm_inode *in,
                     const struct pm_pin *but, uint64_t *lblk, uint64_t end)
{
	struct pm_tx *tx = tx_begin(st);
	struct blk_run run;
	unsigned n = 0;
	int err;

	tx_admitted(tx);
	while (has_room(tx, n) && next_written(st, NULL, in, lblk, end, &run, &err)) {
		for (uint64_t i = 0; i < run.len && !err && has_room(tx, n); i++, n++, ++*lblk)
			if (entry_of(st, run.start + i) == UNPROVEN && !in_flux(f, but, *lblk))
				err = seal(tx, in, *lblk, run.start + i);
		if (err)
			break;
	}
	if (err) {
		tx_abort(tx);
		return err;
	}
	return tx_commit(tx, NULL);
}

void sum_seal(struct pm_store *st, const struct file *f, const struct pm_inode *in,
              const struct pm_pin *but, uint64_t lblk, uint64_t end)
{
	int err = 0;

	end = min64(end, blk_up(in->size));
	while (!err && lblk < end)
		err = seal_some(st, f, in, but, &lblk, end);
	if (err)
		store_log(st, LOG_WARNING,
		          "inode %llu: data that a write left half done has no checksum until the "
		          "next scrub",
		          (unsigned long long)in->ino);
}

/* --- data that is durable with its record ---------------------------------------------------- */

uint32_t sum_fold(uint32_t before, uint32_t crc)
{
	return crc32_iscsi((uint8_t *)&crc, sizeof(crc), before);
}

bool sum_arrived(struct pm_store *st, const struct pm_rec *rec)
{
	const uint8_t *p = (const uint8_t *)(rec + 1);
	struct pm_rec_data d;
	struct pm_rec_run run;
	uint32_t all = ~0u;

	memcpy(&d, p, sizeof(d));
	p += sizeof(d);
	for (uint32_t i = 0; i < d.n; i++, p += sizeof(run)) {
		memcpy(&run, p, sizeof(run));
		for (uint64_t at = 0; at < run.len; at += PM_BLOCK)
			all = sum_fold(all, crc_of(st->media.base + run.at + at, min64(run.len - at, PM_BLOCK)));
	}
	return ~all == d.crc;
}

/* --- scrubbing ------------------------------------------------------------------------------- */

struct scrubber {
	struct pm_store *st;
	const struct pm_inode *in;
	struct pm_scrub *s;
	uint64_t left; /* blocks */
};

/* What the power failing in a write left is what the file holds now. */
static void unproven(struct scrubber *k, uint64_t blk)
{
	struct pm_id id = { k->in->ino, k->in->gen };
	const struct file *f = file_find(k->st, id);
	struct pm_tx *tx;
	int err;

	if (in_flux(f, NULL, k->s->lblk))
		return;
	k->s->unproven++;
	if (k->st->read_only)
		return;
	tx = tx_begin(k->st);
	err = seal(tx, k->in, k->s->lblk, blk);
	if (err)
		tx_abort(tx);
	else
		tx_commit(tx, NULL); /* or the next scrub does it */
}

static void scrub_block(struct scrubber *k, uint64_t blk)
{
	struct pm_scrub *s = k->s;
	struct pm_scrub_bad bad = { .id = { k->in->ino, k->in->gen },
		                    .off = s->lblk * PM_BLOCK,
		                    .at = blk * PM_BLOCK };

	k->left--;
	s->blocks++;
	if (entry_of(k->st, blk) == UNPROVEN) {
		unproven(k, blk);
		return;
	}
	if (good(k->st, k->in, s->lblk, blk))
		return;
	s->bad++;
	complain(k->st, k->in, s->lblk, blk);
	if (s->found)
		s->found(s->arg, &bad);
}

/* Go on at s->lblk; false: the rest of this object has been seen, or cannot be. */
static bool scrub_extent(struct scrubber *k)
{
	struct pm_scrub *s = k->s;
	uint64_t end = blk_up(k->in->size);
	struct ext e;
	int err = ext_find(k->st, NULL, k->in, s->lblk, &e);

	if (err && err != -ENOENT) {
		s->unreadable++;
		return false;
	}
	if (e.len >= end || e.lblk + e.len > end)
		e.len = end > e.lblk ? end - e.lblk : 0;
	if (err || e.unwritten) {
		s->lblk = e.lblk + e.len;
		k->left--;
	} else {
		for (; k->left && s->lblk < e.lblk + e.len; s->lblk++)
			scrub_block(k, e.pblk + (s->lblk - e.lblk));
	}
	return s->lblk < end;
}

/* The quota file is metadata and has checksums of its own. */
static bool has_data(struct pm_store *st, const struct pm_inode *in)
{
	return (in->type == PM_REG && in->ino != quota_ino(st)) || (in->type == PM_LNK && in->size > PM_INLINE_LINK);
}

int pm_scrub_step(struct pm_store *st, struct pm_scrub *s, unsigned blocks)
{
	struct scrubber k = { .st = st, .s = s, .left = blocks };
	int err;

	if (!sum_on(st))
		return -EOPNOTSUPP;
	store_lock(st);
	s->inodes = ino_count(st);
	s->ino = max64(s->ino, PM_ROOT_INO + 1);
	while (k.left && s->ino < s->inodes) {
		k.in = ino_at(st, s->ino);
		err = ino_verify(k.in, s->ino);
		if (err == -EIO)
			s->unreadable++;
		if (!err && s->gen != k.in->gen) /* maybe another object than at the last step */
			s->lblk = 0;
		if (!err)
			s->gen = k.in->gen;
		if (!err && has_data(st, k.in) && s->lblk < blk_up(k.in->size) && scrub_extent(&k))
			continue;
		s->ino++;
		s->gen = s->lblk = 0;
		k.left -= k.left > 0;
	}
	err = s->ino >= s->inodes ? 0 : -EAGAIN;
	store_unlock(st);
	return err;
}
