/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * super.c - the two superblocks, and mkfs
 *
 * A superblock is written to the copy that its seq selects (seq & 1), so that the other one stays
 * whole while this one is on its way. Only open, close and the first unstable write of an open
 * change it.
 */
#include <errno.h>
#include <isa-l/crc.h>
#include <sodium.h>
#include <stdio.h>
#include <time.h>

#include "pmemio/core.h"

#define LANE_MIN (256u << 10)
#define LANE_MAX (4u << 20)

uint32_t pm_crc(const void *p, size_t len, size_t crc_at)
{
	static const uint8_t none[4];
	uint8_t *b = (uint8_t *)(uintptr_t)p; /* isa-l wants it so; it only reads */
	uint32_t c = ~0u;

	if (crc_at)
		c = crc32_iscsi(b, (int)crc_at, c);
	c = crc32_iscsi((uint8_t *)(uintptr_t)none, 4, c);
	return ~crc32_iscsi(b + crc_at + 4, (int)(len - crc_at - 4), c);
}

struct pm_time store_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (struct pm_time){ .sec = ts.tv_sec, .nsec = (uint32_t)ts.tv_nsec };
}

static void put_crc(struct pm_super *s)
{
	s->crc = pm_crc(s, sizeof(*s), offsetof(struct pm_super, crc));
}

static bool has_magic(const struct pm_super *s)
{
	return !memcmp(s->magic, PM_MAGIC, sizeof(s->magic));
}

/* --- reading --------------------------------------------------------------------------------- */

static int judge_version(const struct pm_super *s, bool read_only, struct pm_error *why)
{
	uint64_t bits;

	if (s->version == 0 || s->version > PM_VERSION) {
		why_set(why, "has format version %u, this program knows %u; use a newer berth",
		        s->version, PM_VERSION);
		return -EPROTONOSUPPORT;
	}
	bits = s->incompat & ~PM_INCOMPAT_KNOWN;
	if (bits) {
		why_set(why, "has unknown incompatible features 0x%llx; use a newer berth",
		        (unsigned long long)bits);
		return -EPROTONOSUPPORT;
	}
	bits = s->ro_compat & ~PM_ROCOMPAT_KNOWN;
	if (bits && !read_only) {
		why_set(why,
		        "has unknown features 0x%llx that allow reading only; use a newer berth",
		        (unsigned long long)bits);
		return -EPROTONOSUPPORT;
	}
	return 0;
}

/* The checksum is right, so this catches our own mistakes and a pool cut short; later code trusts
 * it. */
static int judge_geometry(const struct pm_super *s, size_t len, struct pm_error *why)
{
	uint64_t lanes = (uint64_t)s->lanes * s->lane_blocks;

	if (s->blocks > len / PM_BLOCK) {
		why_set(why,
		        "is cut short: made with %llu bytes, has %llu; restore its full length",
		        (unsigned long long)s->blocks * PM_BLOCK, (unsigned long long)len);
		return -EUCLEAN;
	}
	if (s->lanes == 0 || s->lanes > PM_MAX_LANES || s->lane_blocks < 2 || s->lane_start < 2 ||
	    s->lane_start >= s->blocks || lanes > s->blocks - s->lane_start ||
	    s->data_start != s->lane_start + lanes || s->data_start + PM_CHUNK_BLOCKS > s->blocks ||
	    ((s->saved_blocks || s->saved_bytes) &&
	     (s->saved_start < s->data_start || s->saved_start >= s->blocks ||
	      s->saved_blocks > s->blocks - s->saved_start || s->saved_bytes < PM_SAVED_MIN ||
	      s->saved_bytes > PM_SAVED_MAX || s->saved_bytes > s->saved_blocks * PM_BLOCK)) ||
	    ((s->incompat & PM_INCOMPAT_REPLIES) &&
	     (s->reply_start < s->data_start + PM_CHUNK_BLOCKS || s->reply_start >= s->blocks ||
	      s->reply_blocks == 0 || s->reply_blocks > s->blocks - s->reply_start ||
	      s->reply_blocks > PM_REPLY_BLOCKS_MAX)) ||
	    ((s->ro_compat & PM_ROCOMPAT_SUMS) &&
	     (s->sum_blocks != sum_table_blocks(s->blocks) ||
	      s->sum_start != s->blocks - s->sum_blocks ||
	      s->sum_start < s->data_start + PM_CHUNK_BLOCKS ||
	      ((s->incompat & PM_INCOMPAT_REPLIES) &&
	       s->reply_blocks > s->sum_start - s->reply_start)))) {
		why_set(why,
		        "superblock seq %llu describes an impossible layout; restore from a copy",
		        (unsigned long long)s->seq);
		return -EUCLEAN;
	}
	return 0;
}

int super_read(const struct pm_media *m, bool read_only, struct pm_super *out, struct pm_error *why)
{
	const struct pm_super *best = NULL;
	struct pm_super copy[2];
	bool magic = false;
	int err;

	if (m->len < 2 * PM_BLOCK) {
		why_set(why, "is not a berth pool (too short); make one with `berth mkfs`");
		return -EINVAL;
	}
	for (unsigned i = 0; i < 2; i++) {
		memcpy(&copy[i], m->view + i * PM_BLOCK, sizeof(copy[i]));
		if (!has_magic(&copy[i]))
			continue;
		magic = true;
		if (copy[i].crc !=
		    pm_crc(&copy[i], sizeof(copy[i]), offsetof(struct pm_super, crc)))
			continue;
		if (!best || copy[i].seq > best->seq)
			best = &copy[i];
	}
	if (!magic) {
		why_set(why, "is not a berth pool (no %s magic); make one with `berth mkfs`",
		        PM_MAGIC);
		return -EINVAL;
	}
	if (!best) {
		why_set(why, "superblocks 0 and 1 have bad checksums; restore blocks 0 and 1 from "
		             "a copy");
		return -EUCLEAN;
	}
	err = judge_version(best, read_only, why);
	if (!err)
		err = judge_geometry(best, m->len, why);
	if (!err)
		*out = *best;
	return err;
}

/* --- writing --------------------------------------------------------------------------------- */

static int write_next(struct pm_store *st, const struct pm_super *next)
{
	uint64_t at = (next->seq & 1) * PM_BLOCK;

	med_store(st, at, next, sizeof(*next));
	return med_settle(st, at, sizeof(*next));
}

int super_write(struct pm_store *st)
{
	struct pm_super next;
	int err;

	pthread_mutex_lock(&st->super_lock);
	next = st->super;
	next.seq++;
	next.uptime = store_uptime(st);
	put_crc(&next);
	err = write_next(st, &next);
	/* even a failed write used this seq up: half of it may be on the media */
	st->super.seq = next.seq;
	pthread_mutex_unlock(&st->super_lock);
	return err;
}

static uint64_t random_verf(void)
{
	uint64_t v;

	randombytes_buf(&v, sizeof(v));
	return v;
}

int super_begin(struct pm_store *st)
{
	struct pm_super *s = &st->super;
	bool lost = !(s->state & PM_STATE_CLEAN) && (s->state & PM_STATE_UNSTABLE);

	if (lost || st->media.method == PM_VOLATILE)
		s->write_verf = random_verf();
	s->boot++;
	s->state = 0;
	s->saved_start = s->saved_blocks = s->saved_bytes = 0;
	s->saved_crc = 0;
	return super_write(st);
}

int super_convert(struct pm_store *st)
{
	int err;

	if (st->super.version == PM_VERSION)
		return 0;
	store_log(st, 5, "the pool is of format version %u from now on, which programs that know %u at most refuse",
	          PM_VERSION, st->super.version);
	st->super.version = PM_VERSION;
	err = super_write(st);
	return err ? err : super_write(st); /* an older program must not find the older copy and miss records */
}

/* Set bits, which are seen to be set only once they are so on the media. */
static int note(struct pm_store *st, uint64_t ro_compat, uint32_t state)
{
	struct pm_super next;
	int err = 0;

	pthread_mutex_lock(&st->super_lock);
	if (~st->super.ro_compat & ro_compat || ~st->super.state & state) {
		next = st->super;
		next.seq++;
		next.ro_compat |= ro_compat;
		next.state |= state;
		put_crc(&next);
		err = write_next(st, &next);
		st->super.seq = next.seq;
		if (!err) {
			__atomic_store_n(&st->super.ro_compat, next.ro_compat, __ATOMIC_RELAXED);
			__atomic_store_n(&st->super.state, next.state, __ATOMIC_RELEASE);
		}
	}
	pthread_mutex_unlock(&st->super_lock);
	return err;
}

int super_note_unstable(struct pm_store *st)
{
	if (__atomic_load_n(&st->super.state, __ATOMIC_ACQUIRE) & PM_STATE_UNSTABLE)
		return 0;
	return note(st, 0, PM_STATE_UNSTABLE);
}

int super_note_feature(struct pm_store *st, uint64_t ro_compat)
{
	return note(st, ro_compat, 0);
}

/* The new one need not be on the media: data was unstable, so PM_STATE_UNSTABLE is, and a store
 * that lost a flush never closes clean. */
void super_new_verf(struct pm_store *st)
{
	pthread_mutex_lock(&st->super_lock);
	__atomic_store_n(&st->super.write_verf, random_verf(), __ATOMIC_RELEASE);
	pthread_mutex_unlock(&st->super_lock);
}

void pm_write_verf(struct pm_store *st, uint8_t verf[8])
{
	uint64_t v = __atomic_load_n(&st->super.write_verf, __ATOMIC_ACQUIRE);

	memcpy(verf, &v, sizeof(v));
}

const uint8_t *pm_secret(struct pm_store *st)
{
	return st->super.secret; /* constant while open */
}

/* --- mkfs ------------------------------------------------------------------------------------ */

static int mk_settle(struct pm_media *m, uint64_t at, size_t len)
{
	if (m->method == PM_MSYNC)
		return m->ops->sync(m, m->base + at, len);
	m->ops->flush(m, m->base + at, len);
	m->ops->drain(m);
	return 0;
}

/* 1/64 of the pool for the journal, 256 KiB to 4 MiB a lane, fewer lanes where that is too little.
 */
static void layout(struct pm_super *s, size_t len, unsigned lanes)
{
	uint64_t total = len / 64, each;

	if (lanes == 0)
		lanes = 8;
	if (lanes > total / LANE_MIN)
		lanes = (unsigned)(total / LANE_MIN);
	if (lanes == 0)
		lanes = 1;
	each = total / lanes;
	if (each < LANE_MIN)
		each = LANE_MIN;
	if (each > LANE_MAX)
		each = LANE_MAX;
	s->blocks = len / PM_BLOCK;
	s->lanes = lanes;
	s->lane_blocks = (uint32_t)(each / PM_BLOCK);
	s->lane_start = 2;
	s->data_start = s->lane_start + (uint64_t)s->lanes * s->lane_blocks;
	s->incompat |= PM_INCOMPAT_REPLIES;
	s->reply_start = s->data_start + PM_CHUNK_BLOCKS;
	s->reply_blocks = reply_blocks(s->blocks);
}

static void root_inode(struct pm_inode *in, const struct pm_mkfs_opts *o)
{
	*in = (struct pm_inode){ .type = PM_DIR,
		                 .ino = PM_ROOT_INO,
		                 .gen = 1,
		                 .mode = o->root_mode ? o->root_mode & 07777 : 0755,
		                 .nlink = 2,
		                 .uid = o->root_uid,
		                 .gid = o->root_gid,
		                 .parent = PM_ROOT_INO };
	in->atime = in->mtime = in->ctime = store_now();
}

static void table_inode(struct pm_inode *in, const struct pm_super *s)
{
	*in = (struct pm_inode){ .type = PM_REG,
		                 .gen = 1,
		                 .mode = 0600,
		                 .nlink = 1,
		                 .size = PM_CHUNK_BLOCKS * PM_BLOCK,
		                 .blocks = PM_CHUNK_BLOCKS };
	in->atime = in->mtime = in->ctime = store_now();
	in->u.ext[0] = (struct pm_ext){ .len_lo = PM_CHUNK_BLOCKS };
	in->u.ext[0].pblk = s->data_start & ((1ull << 44) - 1);
}

static void mk_zero(struct pm_media *m, uint64_t blk, uint64_t n)
{
	if (m->zeroed)
		return;
	m->ops->zero(m, m->base + blk * PM_BLOCK, n * PM_BLOCK);
	m->ops->flush(m, m->base + blk * PM_BLOCK, n * PM_BLOCK);
}

static void mk_body(struct pm_media *m, const struct pm_super *s, const struct pm_mkfs_opts *o)
{
	struct pm_inode in[2];
	struct pm_lane_head head = { .crc = 0 };
	uint64_t at = s->data_start * PM_BLOCK;

	/* the old superblocks first: a pool half made is no pool */
	m->ops->zero(m, m->base, 2 * PM_BLOCK);
	mk_settle(m, 0, 2 * PM_BLOCK);
	mk_zero(m, s->lane_start, s->data_start - s->lane_start);
	mk_zero(m, s->data_start, PM_CHUNK_BLOCKS);
	mk_zero(m, s->reply_start, s->reply_blocks);
	head.crc = pm_crc(&head, sizeof(head), offsetof(struct pm_lane_head, crc));
	for (unsigned i = 0; i < s->lanes; i++) {
		uint64_t lane = (s->lane_start + (uint64_t)i * s->lane_blocks) * PM_BLOCK;

		m->ops->store(m, m->base + lane, &head, sizeof(head));
		m->ops->flush(m, m->base + lane, sizeof(head));
	}
	table_inode(&in[0], s);
	root_inode(&in[1], o);
	for (unsigned i = 0; i < 2; i++)
		in[i].crc = pm_crc(&in[i], sizeof(in[i]), offsetof(struct pm_inode, crc));
	m->ops->store(m, m->base + at, in, sizeof(in));
	m->ops->flush(m, m->base + at, sizeof(in));
}

int mkfs_media(struct pm_media *m, const struct pm_mkfs_opts *o, struct pm_error *why)
{
	static const uint8_t none[16];
	struct pm_super s = { .magic = PM_MAGIC, .version = PM_VERSION, .state = PM_STATE_CLEAN };
	int err;

	if (m->len < PM_MIN_SIZE || o->lanes > PM_MAX_LANES ||
	    strnlen(o->label, sizeof(o->label)) == sizeof(o->label) || o->root_mode > 07777) {
		why_set(why, m->len < PM_MIN_SIZE      ? "is too small; a pool has 16 MiB at least"
		             : o->lanes > PM_MAX_LANES ? "cannot have more than 64 journal lanes"
		             : o->root_mode > 07777    ? "cannot have that mode on its root"
		                                    : "cannot have a label of more than 63 bytes");
		return -EINVAL;
	}
	if (sodium_init() < 0) {
		why_set(why, "no random numbers to be had");
		return -EIO;
	}
	layout(&s, m->len, o->lanes);
	if (o->data_checksum) {
		s.ro_compat |= PM_ROCOMPAT_SUMS;
		s.sum_blocks = sum_table_blocks(s.blocks);
		s.sum_start = s.blocks - s.sum_blocks;
	}
	memcpy(s.label, o->label, sizeof(s.label));
	memcpy(s.uuid, o->uuid, sizeof(s.uuid));
	if (!memcmp(s.uuid, none, sizeof(none))) {
		randombytes_buf(s.uuid, sizeof(s.uuid));
		s.uuid[6] = (uint8_t)((s.uuid[6] & 0x0f) | 0x40); /* RFC 4122: random */
		s.uuid[8] = (uint8_t)((s.uuid[8] & 0x3f) | 0x80);
	}
	randombytes_buf(s.secret, sizeof(s.secret));
	s.created = (uint64_t)time(NULL);
	s.write_verf = random_verf();
	mk_body(m, &s, o);
	err = mk_settle(m, 0, m->method == PM_MSYNC ? m->len : PM_BLOCK);
	for (s.seq = 1; s.seq <= 2 && !err; s.seq++) {
		uint64_t at = (s.seq & 1) * PM_BLOCK;

		put_crc(&s);
		m->ops->store(m, m->base + at, &s, sizeof(s));
		err = mk_settle(m, at, sizeof(s));
	}
	if (err)
		why_set(why, "could not be made durable: %s", strerror(-err));
	return err;
}

/* Say which pool; the parts below do not know its name. */
static int named(const char *path, int err, struct pm_error *why)
{
	struct pm_error plain;

	if (!err || !why)
		return err;
	plain = *why;
	if (!plain.text[0])
		why_set(&plain, "%s", strerror(-err));
	snprintf(why->text, sizeof(why->text), "pool %.180s: %.300s", path, plain.text);
	return err;
}

int pm_mkfs(const char *path, const struct pm_mkfs_opts *opts, struct pm_error *why)
{
	struct pm_media m;
	int err;

	if (why)
		why->text[0] = '\0';
	err = media_create(path, opts, &m, why);
	if (err)
		return named(path, err, why);
	err = mkfs_media(&m, opts, why);
	m.ops->close(&m);
	return named(path, err, why);
}
