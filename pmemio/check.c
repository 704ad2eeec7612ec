/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * check.c - every invariant of the format, offline
 *
 * The pool is opened read-only: what a crash left in the journal is replayed in memory, nothing is
 * written. Then everything that the inode table leads to is walked once, trusting no structure
 * further than its own bytes have been judged:
 *
 *   superblocks, lane headers -> inode table -> each inode: its tree, extents or entries -> names
 * against link counts and parents -> blocks in use against the free space that open computed or
 * found stored
 *
 * A damaged inode or node is one finding; what it would have led to may follow as findings of its
 * own (blocks that nobody owns, inodes without a name).
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "pmemio/core.h"

#define MAX_LEVELS 12u
#define ULL(x)     ((unsigned long long)(x))

enum reach { REACH_UNKNOWN, REACH_WALKING, REACH_ROOT, REACH_NOT };

struct object { /* one per inode slot */
	uint32_t names, subdirs;
	uint64_t in_dir; /* directories: where the last name of it was seen */
	uint8_t type;    /* 0: free or damaged */
	uint8_t reach;
};

struct check {
	struct pm_store *st;
	struct pm_check_report *rep;
	void (*problem)(void *arg, const char *where, const char *what);
	void (*progress)(void *arg, unsigned permille);
	void *arg;
	uint64_t nino, nblk;
	struct object *obj;
	uint64_t *owned; /* bitmap of blocks */
	unsigned told;
};

/* What is known while one inode is looked at. */
struct subject {
	struct check *c;
	const struct pm_inode *in;
	uint64_t blocks, entries;
	uint64_t end;  /* file block behind the last extent */
	uint64_t last; /* key seen last */
	bool any, broken;
};

/* --- findings --- */

static void finding(struct check *c, const char *where, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void finding(struct check *c, const char *where, const char *fmt, ...)
{
	char what[512];
	va_list ap;

	c->rep->problems++;
	if (!c->problem)
		return;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	for (char *p = what; *p;
	     p++) /* names may hold any byte; terminals should not see them all */
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
	c->problem(c->arg, where, what);
}

struct where {
	char text[160];
};

static struct where where_ino(const struct subject *s)
{
	struct where w;

	snprintf(w.text, sizeof(w.text), "%s %llu",
	         s->in->ino == 0         ? "inode table"
	         : s->in->type == PM_DIR ? "directory"
	                                 : "inode",
	         ULL(s->in->ino));
	return w;
}

static struct where where_node(const struct subject *s, uint64_t blk, unsigned level)
{
	struct where w = where_ino(s);
	size_t n = strlen(w.text);

	snprintf(w.text + n, sizeof(w.text) - n, " %s 0x%llx", level ? "node" : "leaf", ULL(blk));
	return w;
}

/* --- blocks --- */

static bool owned(const struct check *c, uint64_t blk)
{
	return c->owned[blk / 64] >> (blk % 64) & 1;
}

/* F2, F3: @len blocks of @s's inode. */
static bool own(struct subject *s, const char *where, uint64_t start, uint64_t len)
{
	struct check *c = s->c;
	uint64_t twice = 0, first = 0;

	if (start < c->st->super.data_start || start >= c->nblk || len > c->nblk - start) {
		finding(c, where, "names blocks 0x%llx+%llu outside the data area", ULL(start),
		        ULL(len));
		return false;
	}
	for (uint64_t b = start; b < start + len; b++) {
		if (owned(c, b) && !twice++)
			first = b;
		c->owned[b / 64] |= 1ull << (b % 64);
	}
	s->blocks += len;
	if (twice)
		finding(c, where, "shares %llu blocks from 0x%llx on with another owner",
		        ULL(twice), ULL(first));
	return twice == 0;
}

/* --- trees --- */

typedef void entry_fn(struct subject *s, const char *where, const struct pm_bent *e);

static const struct pm_bent *node_ent(const struct pm_bnode *n, unsigned i)
{
	return (const struct pm_bent *)(const void *)((const uint8_t *)n + n->slot[i]);
}

/* All keys of the node at @blk lie in [@min, @max]. */
static void tree_node(struct subject *s, uint64_t blk, unsigned level, uint64_t min, uint64_t max,
                      entry_fn *fn)
{
	struct where w = where_node(s, blk, level);
	const struct pm_bnode *n;
	const char *fault;

	if (!own(s, w.text, blk, 1)) {
		s->broken = true;
		return;
	}
	n = blk_ptr(s->c->st, blk);
	fault = bt_fault(n, s->in->ino, blk, level);
	if (fault) {
		s->broken = true;
		finding(s->c, w.text, "%s", fault);
		return;
	}
	if (node_ent(n, 0)->key < min || node_ent(n, n->count - 1u)->key > max)
		finding(s->c, w.text, "holds keys that belong elsewhere");
	for (unsigned i = 0; i < n->count; i++) {
		const struct pm_bent *e = node_ent(n, i);
		uint64_t down;

		if (level == 0) {
			s->entries++;
			fn(s, w.text, e);
			continue;
		}
		memcpy(&down, e->val, sizeof(down));
		tree_node(s, down, level - 1, e->key,
		          i + 1u < n->count ? node_ent(n, i + 1)->key - 1 : max, fn);
	}
}

static void tree(struct subject *s, entry_fn *fn)
{
	const struct pm_inode *in = s->in;
	struct where w = where_ino(s);

	if (in->u.tree.height == 0 || in->u.tree.height > MAX_LEVELS) {
		s->broken = true;
		finding(s->c, w.text, "impossible tree height %u", in->u.tree.height);
		return;
	}
	tree_node(s, in->u.tree.root, in->u.tree.height - 1, 0, UINT64_MAX, fn);
	if (!s->broken && s->entries != in->u.tree.count)
		finding(s->c, w.text, "says its tree has %llu entries, but it has %llu",
		        ULL(in->u.tree.count), ULL(s->entries));
}

/* --- files --- */

static void extent(struct subject *s, const char *where, const struct pm_ext *x)
{
	if (x->len_lo == 0 || (x->flags & ~PM_XF_UNWRITTEN)) {
		finding(s->c, where, "impossible extent at file block %llu", ULL(x->lblk));
		return;
	}
	if (x->lblk < s->end)
		finding(s->c, where, "extents overlap or are out of order at file block %llu",
		        ULL(x->lblk));
	if (x->lblk + x->len_lo > PM_FILE_MAX / PM_BLOCK)
		finding(s->c, where, "extent at file block %llu is beyond the largest file",
		        ULL(x->lblk));
	s->end = x->lblk + x->len_lo;
	s->c->rep->extents++;
	own(s, where, x->pblk, x->len_lo);
}

static void extent_entry(struct subject *s, const char *where, const struct pm_bent *e)
{
	struct pm_ext x;

	if (e->len != sizeof(x)) {
		finding(s->c, where, "entry of %u bytes is no extent", e->len);
		return;
	}
	memcpy(&x, e->val, sizeof(x));
	if (x.lblk != e->key)
		finding(s->c, where, "extent at file block %llu stands under key %llu", ULL(x.lblk),
		        ULL(e->key));
	extent(s, where, &x);
}

static void extents(struct subject *s)
{
	const struct pm_inode *in = s->in;
	struct where w = where_ino(s);

	if (in->flags & PM_IF_TREE) {
		tree(s, extent_entry);
		return;
	}
	for (unsigned i = 0; i < PM_INLINE_EXTENTS && in->u.ext[i].len_lo; i++)
		extent(s, w.text, &in->u.ext[i]);
}

static void file(struct subject *s)
{
	struct where w = where_ino(s);

	if (s->in->size > PM_FILE_MAX)
		finding(s->c, w.text, "size %llu is beyond the largest file", ULL(s->in->size));
	extents(s);
}

static void symlink_target(struct subject *s)
{
	struct where w = where_ino(s);

	if (s->in->size == 0 || s->in->size > PM_LINK_PATH)
		finding(s->c, w.text, "symbolic link of %llu bytes", ULL(s->in->size));
	else if (s->in->size > PM_INLINE_LINK)
		extents(s);
	if (s->in->size > PM_INLINE_LINK && s->in->size <= PM_LINK_PATH && s->end != 1 &&
	    !s->broken)
		finding(s->c, w.text, "symbolic link without its block");
}

/* --- directories --- */

static bool name_ok(const char *n, size_t len)
{
	return len <= PM_NAME_MAX && !memchr(n, '/', len) && !memchr(n, 0, len) &&
	       !(n[0] == '.' && (len == 1 || (len == 2 && n[1] == '.')));
}

/* The entry's object as the inode table has it (F4). */
static void entry_target(struct subject *s, const char *where, const struct pm_dent *d,
                         const char *name, int len)
{
	struct check *c = s->c;
	const struct pm_inode *to = d->ino < c->nino ? ino_at(c->st, d->ino) : NULL;
	struct object *o;

	if (!to || d->ino <= PM_ROOT_INO) {
		finding(c, where, "entry '%.*s' leads to inode %llu, which no name may have", len,
		        name, ULL(d->ino));
		return;
	}
	o = &c->obj[d->ino];
	if (!o->type) {
		finding(c, where, "entry '%.*s' leads to inode %llu, which is free or damaged", len,
		        name, ULL(d->ino));
		return;
	}
	if (to->gen != d->gen || to->type != d->type)
		finding(c, where,
		        "entry '%.*s' disagrees with inode %llu on its generation or type", len,
		        name, ULL(d->ino));
	o->names++;
	if (to->type == PM_DIR) {
		o->in_dir = s->in->ino;
		c->obj[s->in->ino].subdirs++;
	}
}

static void dir_entry(struct subject *s, const char *where, const struct pm_bent *e)
{
	struct check *c = s->c;
	const char *name = (const char *)e->val + sizeof(struct pm_dent);
	size_t len = e->len - sizeof(struct pm_dent);
	struct pm_dent d;

	if (e->len <= sizeof(d) || !name_ok(name, len)) {
		finding(c, where, "entry under cookie 0x%llx has an impossible name", ULL(e->key));
		return;
	}
	memcpy(&d, e->val, sizeof(d));
	if (e->key >> 16 != dir_hash(c->st, s->in->ino, name, len))
		finding(c, where, "entry '%.*s' stands under the wrong cookie 0x%llx", (int)len,
		        name, ULL(e->key));
	entry_target(s, where, &d, name, (int)len);
}

static void directory(struct subject *s)
{
	const struct pm_inode *in = s->in;
	struct where w = where_ino(s);

	if (in->flags & PM_IF_TREE)
		tree(s, dir_entry);
	if (!s->broken && in->size != s->entries)
		finding(s->c, w.text, "says it has %llu entries, but it has %llu", ULL(in->size),
		        ULL(s->entries));
}

/* --- inodes --- */

static void contents(struct check *c, const struct pm_inode *in)
{
	struct subject s = { .c = c, .in = in };
	struct where w = where_ino(&s);

	switch (in->type) {
	case PM_REG:
		c->rep->files += in->ino != 0;
		file(&s);
		break;
	case PM_DIR:
		c->rep->dirs++;
		directory(&s);
		break;
	case PM_LNK:
		c->rep->others++;
		symlink_target(&s);
		break;
	default:
		c->rep->others++;
	}
	if (!s.broken && s.blocks != in->blocks)
		finding(c, w.text, "says it owns %llu blocks, but owns %llu", ULL(in->blocks),
		        ULL(s.blocks));
	if (in->mode & ~07777u)
		finding(c, w.text, "impossible mode 0%o", in->mode);
}

/* Slot by slot: what is live, before any entry is followed. */
static void census(struct check *c)
{
	for (uint64_t ino = 0; ino < c->nino; ino++) {
		const struct pm_inode *in = ino_at(c->st, ino);
		char where[48];

		snprintf(where, sizeof(where), "inode %llu", ULL(ino));
		switch (ino_verify(in, ino)) {
		case 0:
			c->obj[ino].type = (uint8_t)in->type;
			if (in->flags & PM_IF_DOUBT)
				finding(c, where, "was made anew by a repair that was cut off");
			break;
		case -ENOENT:
			if (ino <= PM_ROOT_INO)
				finding(c, where, "is free, but must not be");
			break;
		default:
			if (in->crc == pm_crc(in, sizeof(*in), offsetof(struct pm_inode, crc)) && in->ino == ino)
				finding(c, where, "impossible type %u", in->type);
			else
				finding(c, where, "bad checksum or number");
		}
	}
	if (c->obj[0].type && c->obj[0].type != PM_REG)
		finding(c, "inode table", "inode 0 is not a file");
	if (c->obj[PM_ROOT_INO].type && c->obj[PM_ROOT_INO].type != PM_DIR)
		finding(c, "inode 1", "the root is not a directory");
}

static void walk_inodes(struct check *c)
{
	for (uint64_t ino = 0; ino < c->nino; ino++) {
		unsigned now = (unsigned)(ino * 900 / c->nino);

		if (c->obj[ino].type)
			contents(c, ino_at(c->st, ino));
		if (c->progress && now > c->told)
			c->progress(c->arg, c->told = now);
	}
}

/* --- names against inodes --- */

static void dir_links(struct check *c, const struct pm_inode *in, const struct object *o,
                      const char *where)
{
	bool root = in->ino == PM_ROOT_INO;

	if (o->names != !root)
		finding(c, where, "a directory with %u names", o->names);
	if (in->nlink != 2 + o->subdirs)
		finding(c, where, "link count %u, but %u subdirectories", in->nlink, o->subdirs);
	if (o->names && in->parent != o->in_dir)
		finding(c, where, "says its parent is %llu, but stands in %llu", ULL(in->parent),
		        ULL(o->in_dir));
	if (root && in->parent != PM_ROOT_INO)
		finding(c, where, "the root's parent is %llu", ULL(in->parent));
}

static void file_links(struct check *c, const struct pm_inode *in, const struct object *o,
                       const char *where)
{
	if (in->nlink == 0 && o->names == 0) {
		if (c->st->info.was_clean) /* else recovery frees it */
			finding(c, where, "an orphan in a pool that was closed clean");
	} else if (o->names == 0) {
		finding(c, where, "no name leads to it (link count %u)", in->nlink);
	} else if (in->nlink != o->names) {
		finding(c, where, "link count %u, but %u names", in->nlink, o->names);
	}
}

/* Follow the directories that hold each directory: what does not end at the root ends at a loop or
 * at nothing. */
static void reach(struct check *c, uint64_t ino)
{
	uint64_t at = ino;
	uint8_t end;

	while (at < c->nino && c->obj[at].reach == REACH_UNKNOWN && at != PM_ROOT_INO &&
	       c->obj[at].names) {
		c->obj[at].reach = REACH_WALKING;
		at = c->obj[at].in_dir;
	}
	if (at == PM_ROOT_INO || (at < c->nino && c->obj[at].reach == REACH_ROOT))
		end = REACH_ROOT;
	else
		end = REACH_NOT;
	if (end == REACH_NOT && at < c->nino && c->obj[at].reach == REACH_WALKING) {
		char where[48];

		snprintf(where, sizeof(where), "directory %llu", ULL(at));
		finding(c, where, "is inside itself: a loop that the root does not lead to");
	}
	for (at = ino; at < c->nino && c->obj[at].reach == REACH_WALKING; at = c->obj[at].in_dir)
		c->obj[at].reach = end;
}

static void names(struct check *c)
{
	for (uint64_t ino = PM_ROOT_INO; ino < c->nino; ino++) {
		const struct object *o = &c->obj[ino];
		char where[48];

		if (!o->type || ino == quota_ino(c->st))
			continue;
		snprintf(where, sizeof(where), "%s %llu", o->type == PM_DIR ? "directory" : "inode",
		         ULL(ino));
		if (o->type != PM_DIR) {
			file_links(c, ino_at(c->st, ino), o, where);
			continue;
		}
		dir_links(c, ino_at(c->st, ino), o, where);
		reach(c, ino);
	}
}

/* --- free space --- */

static void free_space(struct check *c)
{
	const struct pm_super *sb = &c->st->super;
	uint64_t b = sb->data_start;

	while (b < c->nblk) {
		bool mine = owned(c, b);
		uint64_t from = b;

		c->rep->blocks_used += mine;
		if (mine == blk_marked(c->st, b)) {
			b++;
			continue;
		}
		for (; b < c->nblk && owned(c, b) == mine && blk_marked(c->st, b) != mine; b++)
			c->rep->blocks_used += mine && b > from;
		finding(c, "free space", "blocks 0x%llx+%llu are %s", ULL(from), ULL(b - from),
		        mine ? "in use, but counted as free" : "free, but counted as in use");
	}
	c->rep->blocks_used += sb->data_start;
}

static void saved_run(struct check *c)
{
	const struct pm_super *sb = &c->st->super;
	uint64_t b = sb->saved_start;

	if (!(sb->state & PM_STATE_CLEAN) || !sb->saved_bytes)
		return;
	if (b < sb->data_start || b >= c->nblk || sb->saved_blocks > c->nblk - b ||
	    sb->saved_bytes > sb->saved_blocks * PM_BLOCK) {
		finding(c, "stored free space", "lies outside the data area");
		return;
	}
	if (pm_crc(blk_ptr(c->st, b), sb->saved_bytes, 0) != sb->saved_crc)
		finding(c, "stored free space", "bad checksum");
	for (; b < sb->saved_start + sb->saved_blocks; b++) {
		if (owned(c, b)) {
			finding(c, "stored free space", "shares block 0x%llx with an inode",
			        ULL(b));
			return;
		}
	}
}

/* --- superblocks, journal --- */

/* Open chose a good copy. The other may be half written by a crash: then all that never changes is
 * as in the good one, and the next open writes it anew. */
static void supers(struct check *c)
{
	const struct pm_super *good = &c->st->super;

	for (unsigned i = 0; i < 2; i++) {
		const struct pm_super *s = blk_ptr(c->st, i);
		char where[32];

		snprintf(where, sizeof(where), "superblock %u", i);
		if (s->crc == pm_crc(s, sizeof(*s), offsetof(struct pm_super, crc)) &&
		    !memcmp(s->magic, PM_MAGIC, 8)) {
			if (memcmp(s->uuid, good->uuid, 16))
				finding(c, where, "belongs to another pool");
			continue;
		}
		/* not incompat: an open that gives the pool its ring sets a bit of it; nor ro_compat:
		 * so does the first limit; a version grows when an older pool is opened */
		if (memcmp(s->magic, good->magic, 8) || s->version == 0 || s->version > PM_VERSION ||
		    s->compat != good->compat ||
		    memcmp(s->uuid, good->uuid,
		           offsetof(struct pm_super, boot) - offsetof(struct pm_super, uuid)) ||
		    s->sum_start != good->sum_start || s->sum_blocks != good->sum_blocks ||
		    memcmp(s->reserved2, good->reserved2, sizeof(s->reserved2)))
			finding(c, where, "damaged; the other one is good");
	}
}

static void lanes(struct check *c)
{
	const struct pm_super *sb = &c->st->super;

	for (uint64_t l = 0; l < sb->lanes; l++) {
		const struct pm_lane_head *h = blk_ptr(c->st, sb->lane_start + l * sb->lane_blocks);
		char where[32];

		snprintf(where, sizeof(where), "journal lane %llu", ULL(l));
		if (h[0].crc != pm_crc(&h[0], sizeof(h[0]), 0) &&
		    h[1].crc != pm_crc(&h[1], sizeof(h[1]), 0))
			finding(c, where, "both copies of its header have bad checksums");
	}
}

/* --- reply records --- */

/* Before any inode, so that whoever shares its blocks is named. */
static void replies(struct check *c)
{
	const struct pm_super *sb = &c->st->super;
	const struct pm_slot *slot = blk_ptr(c->st, sb->reply_start);
	uint64_t n = sb->reply_blocks * PM_BLOCK_SLOTS, last = 0, falls = 0;

	if (!(sb->incompat & PM_INCOMPAT_REPLIES))
		return;
	for (uint64_t b = sb->reply_start; b < sb->reply_start + sb->reply_blocks; b++)
		c->owned[b / 64] |= 1ull << (b % 64);
	for (uint64_t i = 0; i < n; i++) {
		const char *fault = slot_fault(&slot[i], sb->boot);
		char where[48];

		snprintf(where, sizeof(where), "reply record %llu", ULL(i));
		if (fault) {
			finding(c, where, "%s", fault);
			continue;
		}
		if (slot[i].seq == last && last)
			finding(c, where, "its number was used twice");
		falls += slot[i].seq < last;
		if (slot[i].seq < last && falls == 2)
			finding(c, where, "the ring has more than one end");
		last = slot[i].seq;
	}
}

/* --- entry --- */

static void bad_quota(void *arg, const char *what)
{
	finding(arg, "quotas", "%s", what);
}

/* The table of checksums is its own owner; where it is, open has judged. Scrubbing tells about the data. */
static void sum_table(struct check *c)
{
	const struct pm_super *sb = &c->st->super;

	for (uint64_t b = sb->sum_start; sum_on(c->st) && b < sb->sum_start + sb->sum_blocks; b++)
		c->owned[b / 64] |= 1ull << (b % 64);
}

static int check_store(struct check *c)
{
	struct pm_store *st = c->st;

	c->nino = ino_count(st);
	c->nblk = st->super.blocks;
	c->rep->blocks_total = c->nblk;
	c->obj = calloc(c->nino, sizeof(*c->obj));
	c->owned = calloc(c->nblk / 64 + 1, 8);
	if (!c->obj || !c->owned)
		return -ENOMEM;
	supers(c);
	lanes(c);
	replies(c);
	sum_table(c);
	census(c);
	walk_inodes(c);
	names(c);
	saved_run(c);
	free_space(c);
	if (c->progress)
		c->progress(c->arg, 1000);
	return quota_audit(c->st, bad_quota, c);
}

int store_check(struct pm_store *st,
                void (*problem)(void *arg, const char *where, const char *what),
                void (*progress)(void *arg, unsigned permille), void *arg,
                struct pm_check_report *out)
{
	struct pm_check_report rep = { 0 };
	struct check c = {
		.st = st, .rep = &rep, .problem = problem, .progress = progress, .arg = arg
	};
	int err = check_store(&c);

	free(c.obj);
	free(c.owned);
	if (!err)
		*out = rep;
	return err;
}

int pm_check(const char *path, void (*problem)(void *arg, const char *where, const char *what),
             void (*progress)(void *arg, unsigned permille), void *arg, struct pm_check_report *out,
             struct pm_error *why)
{
	struct pm_open_opts o = { .read_only = true };
	struct pm_store *st;
	int err = pm_open(path, &o, &st, why);

	if (err)
		return err;
	err = store_check(st, problem, progress, arg, out);
	pm_close(st);
	if (err && why)
		why_set(why, "pool %.200s: not enough memory to check it", path);
	return err;
}
