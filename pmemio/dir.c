/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dir.c - names: lookup, create, remove, rename, link, readdir
 *
 * A directory is a B+tree from cookie to entry. The cookie is a keyed hash of the name, so that
 * nobody can aim many names at one cookie, with a sequence number for names that meet there all the
 * same. It stays with the entry for its life: a scan that goes on behind a cookie sees every entry
 * that was there all the time exactly once. "." and ".." are not stored; they are cookies 1 and 2.
 *
 * Every change is one transaction: checks come first and touch nothing, then edits, then commit.
 * Attributes for the reply are taken under the same lock. Changes of different directories go on side by side (worker.h): the
 * directory is locked first, then whatever else changes.
 */
#include <errno.h>
#include <sys/stat.h>
#include <syslog.h>
#include <sodium.h>

#include "pmemio/core.h"
#include "pmemio/file.h"

#define SEQ_BITS   16
#define HASH_RANGE ((1ull << 47) - 3) /* hashes 0..2 << 16 are kept free of names: "." and ".." */
#define DENT_HEAD  ((uint16_t)sizeof(struct pm_dent))

static_assert(DENT_HEAD == 17, "as format.h says");

struct name {
	const char *s;
	size_t len;
};

/* Where a name stands in a directory, or would. */
struct place {
	uint64_t key;
	struct pm_id id;
	enum pm_type type;
};

/* --- helpers --- */

static int name_check(struct name n)
{
	if (n.len > PM_NAME_MAX)
		return -ENAMETOOLONG;
	if (n.len == 0 || memchr(n.s, '/', n.len) || memchr(n.s, '\0', n.len))
		return -EINVAL;
	if (n.s[0] == '.' && (n.len == 1 || (n.len == 2 && n.s[1] == '.')))
		return -EINVAL;
	return 0;
}

uint64_t dir_hash(const struct pm_store *st, uint64_t ino, const void *name, size_t len)
{
	uint8_t msg[8 + PM_NAME_MAX], out[8];
	uint64_t h;

	memcpy(msg, &ino, 8);
	memcpy(msg + 8, name, len);
	crypto_shorthash(out, msg, 8 + len, st->super.secret);
	memcpy(&h, out, 8);
	return (h >> 17) % HASH_RANGE + 3;
}

static struct timespec to_ts(struct pm_time t)
{
	return (struct timespec){ .tv_sec = t.sec, .tv_nsec = t.nsec };
}

static struct pm_time to_time(struct timespec ts)
{
	if (ts.tv_nsec == UTIME_NOW)
		return store_now();
	return (struct pm_time){ .sec = ts.tv_sec, .nsec = (uint32_t)ts.tv_nsec };
}

static struct pm_id id_of(const struct pm_inode *in)
{
	return (struct pm_id){ in->ino, in->gen };
}

static const struct pm_inode *dir_get(struct pm_store *st, struct pm_id id, int *err)
{
	const struct pm_inode *in = ino_get(st, id, err);

	if (in && in->type != PM_DIR) {
		*err = -ENOTDIR;
		return NULL;
	}
	return in;
}

/* The object that an entry names. That it is not there is damage, not staleness. */
static const struct pm_inode *child_get(struct pm_store *st, uint64_t dir, const struct place *p,
                                        int *err)
{
	const struct pm_inode *in = ino_get(st, p->id, err);

	if (in && in->type == (uint16_t)p->type)
		return in;
	store_log(st, LOG_ERR, "directory %llu: an entry leads to inode %llu, which is not it",
	          (unsigned long long)dir, (unsigned long long)p->id.ino);
	*err = -EIO;
	return NULL;
}

static int dent_read(const struct bt_cursor *c, struct place *p, struct name *n)
{
	struct pm_dent d;

	if (c->len <= DENT_HEAD || c->len > DENT_HEAD + PM_NAME_MAX)
		return -EIO;
	memcpy(&d, c->val, DENT_HEAD);
	*p = (struct place){ .key = c->key, .id = { d.ino, d.gen }, .type = d.type };
	*n = (struct name){ (const char *)c->val + DENT_HEAD, c->len - DENT_HEAD };
	return 0;
}

/* 0: there. -ENOENT: @p->key is where it would go (0: no cookie is left). */
static int find(struct pm_store *st, const struct pm_inode *dir, struct name n, struct place *p)
{
	uint64_t first = dir_hash(st, dir->ino, n.s, n.len) << SEQ_BITS, free = first;
	struct bt_cursor c;
	int err = bt_seek(st, NULL, dir, first, &c);

	while (!err && c.key >> SEQ_BITS == first >> SEQ_BITS) {
		struct place at;
		struct name have;

		err = dent_read(&c, &at, &have);
		if (err)
			return err;
		if (have.len == n.len && !memcmp(have.s, n.s, n.len)) {
			*p = at;
			return 0;
		}
		if (c.key == free)
			free++;
		err = bt_next(st, NULL, dir, &c);
	}
	if (err && err != -ENOENT)
		return err;
	*p = (struct place){ .key = free >> SEQ_BITS == first >> SEQ_BITS ? free : 0 };
	return -ENOENT;
}

struct dent_buf {
	uint8_t bytes[DENT_HEAD + PM_NAME_MAX];
	uint16_t len;
};

static void dent_make(struct dent_buf *b, const struct pm_inode *obj, struct name n)
{
	struct pm_dent d = { .ino = obj->ino, .gen = obj->gen, .type = (uint8_t)obj->type };

	memcpy(b->bytes, &d, DENT_HEAD);
	memcpy(b->bytes + DENT_HEAD, n.s, n.len);
	b->len = (uint16_t)(DENT_HEAD + n.len);
}

static int entry_add(struct pm_tx *tx, const struct pm_inode *dir, uint64_t key,
                     const struct pm_inode *obj, struct name n)
{
	struct dent_buf b;

	if (key == 0)
		return -ENOSPC;
	ino_edit(tx, dir)->size++;
	dent_make(&b, obj, n);
	return bt_insert(tx_store(tx), tx, dir, key, b.bytes, b.len);
}

static int entry_cut(struct pm_tx *tx, const struct pm_inode *dir, uint64_t key)
{
	ino_edit(tx, dir)->size--;
	return bt_delete(tx_store(tx), tx, dir, key);
}

static void dir_touch(struct pm_tx *tx, const struct pm_inode *dir)
{
	struct pm_inode *sh = ino_edit(tx, dir);

	sh->mtime = sh->ctime = store_now();
}

/* Commit with a record that @obj was changed, or abort by @err; then fill in what the directory
 * looks like now. */
static int finish(struct pm_tx *tx, int err, const struct pm_inode *dir, struct pm_id obj,
                  const struct pm_once *once, struct pm_change *ch)
{
	if (err) {
		tx_abort(tx);
		return err;
	}
	reply_note(tx, once, obj);
	err = tx_commit(tx, &ch->lsn);
	if (!err)
		ino_attr(dir, &ch->dir);
	return err;
}

/* A name of @obj is gone. @after: its attributes then. */
static int drop_link(struct pm_tx *tx, const struct pm_inode *obj, struct pm_attr *after)
{
	struct pm_inode *sh = ino_edit(tx, obj);

	sh->ctime = store_now();
	sh->nlink = sh->type == PM_DIR || sh->nlink == 0 ? 0 : sh->nlink - 1;
	if (after) {
		file_attr(tx_store(tx), sh, after);
		after->ctime = to_ts(sh->ctime);
	}
	if (sh->nlink)
		return 0;
	if (sh->type != PM_DIR)
		return file_unlinked(tx, obj);
	ino_free(tx, sh);
	return 0;
}

/* A change of names; which fields count is for its function to say. */
struct deed {
	int (*run)(struct pm_store *st, struct pm_worker *w, const struct deed *d, struct pm_change *ch);
	struct pm_id dir, to, obj;
	struct name name, to_name;
	const struct pm_new *nw;
	bool want_dir;
	const struct pm_once *once;
};

/* Beside others with the directory locked, if it can be, else alone. Two that make the same change meet in the
 * directory: the later one finds the record. */
static int carry_out(struct pm_store *st, const struct deed *d, struct pm_change *ch)
{
	struct pm_change done = { .lsn = 0 };
	struct pm_worker *w;
	int err;

	if (st->read_only)
		return -EROFS;
	w = inode_lock_write(st, d->dir.ino);
	for (;;) {
		err = reply_known(st, d->once);
		if (!err)
			err = d->run(st, w, d, &done);
		if (!w || err != NEEDS_ALL)
			break;
		inode_alone(st, &w, d->dir.ino);
		done = (struct pm_change){ .lsn = 0 };
	}
	if (!err)
		*ch = done;
	else if (err == -EEXIST && d->nw)
		ch->obj = done.obj;
	files_sweep(st); /* what was written to a file that is gone and never committed is free space again */
	inode_unlock(st, w, d->dir.ino);
	return err;
}

/* --- lookup --- */

static const struct pm_inode *parent_of(struct pm_store *st, const struct pm_inode *dir, int *err)
{
	const struct pm_inode *up = ino_at(st, dir->parent);

	if (!up || ino_verify(up, dir->parent) || up->type != PM_DIR) {
		store_log(st, LOG_ERR, "directory %llu: its parent %llu is none",
		          (unsigned long long)dir->ino, (unsigned long long)dir->parent);
		*err = -EIO;
		return NULL;
	}
	return up;
}

/* Inside with one inode after the other; what is not a plain name is for somebody alone, and so is a name that has
 * gone in between, which is no damage then. */
static int look_inside(struct pm_store *st, struct pm_worker *w, struct pm_id id, struct name n, struct pm_attr *out)
{
	const struct pm_inode *in;
	struct place p;
	int err;

	in = dir_get(st, id, &err);
	if (in)
		err = name_check(n) ? NEEDS_ALL : find(st, in, n, &p);
	inode_next(st, w, id.ino, err ? id.ino : p.id.ino);
	if (!err) {
		in = ino_get(st, p.id, &err);
		id = p.id;
		if (!in || in->type != (uint16_t)p.type)
			err = NEEDS_ALL;
	}
	if (!err)
		file_attr(st, in, out);
	inode_unlock(st, w, id.ino);
	return err;
}

static const struct pm_inode *look_up(struct pm_store *st, struct pm_id id, struct name n, int *err)
{
	const struct pm_inode *dir = dir_get(st, id, err);
	struct place p;

	if (!dir)
		return NULL;
	if (n.len && n.len <= 2 && !memcmp(n.s, "..", n.len))
		return n.len == 1 ? dir : parent_of(st, dir, err);
	*err = name_check(n);
	if (!*err)
		*err = find(st, dir, n, &p);
	return *err ? NULL : child_get(st, dir->ino, &p, err);
}

int pm_lookup(struct pm_store *st, struct pm_id dir, const char *name, size_t len,
              struct pm_attr *out)
{
	struct pm_worker *w = inode_lock(st, dir.ino);
	struct name n = { name, len };
	const struct pm_inode *in;
	int err = NEEDS_ALL;

	if (w)
		err = look_inside(st, w, dir, n, out);
	if (w && err != NEEDS_ALL)
		return err;
	if (w)
		store_lock(st);
	in = look_up(st, dir, n, &err);
	if (in)
		file_attr(st, in, out);
	store_unlock(st);
	return in ? 0 : err;
}

/* --- create --- */

static int new_check(const struct pm_new *nw)
{
	if (nw->type < PM_REG || nw->type > PM_FIFO)
		return -EINVAL;
	if (nw->type == PM_REG && (nw->set & PM_SET_SIZE) && nw->size > PM_FILE_MAX)
		return -EFBIG;
	if (nw->type != PM_LNK)
		return 0;
	if (nw->target_len > PM_LINK_PATH)
		return -ENAMETOOLONG;
	return nw->target_len && !memchr(nw->target, '\0', nw->target_len) ? 0 : -EINVAL;
}

static int link_fill(struct pm_tx *tx, struct pm_inode *sh, const struct pm_new *nw)
{
	sh->size = nw->target_len;
	if (nw->target_len > PM_INLINE_LINK)
		return file_link_put(tx, ino_at(tx_store(tx), sh->ino), nw->target, nw->target_len);
	memcpy(sh->u.link, nw->target, nw->target_len);
	return 0;
}

static int new_fill(struct pm_tx *tx, const struct pm_inode *dir, struct pm_inode *sh,
                    const struct pm_new *nw)
{
	sh->mode = nw->mode & 07777;
	sh->uid = nw->uid;
	sh->gid = nw->gid;
	sh->nlink = nw->type == PM_DIR ? 2 : 1;
	if (nw->type == PM_DIR)
		sh->parent = dir->ino;
	if (nw->type == PM_BLK || nw->type == PM_CHR) {
		sh->rdev_major = nw->rdev_major;
		sh->rdev_minor = nw->rdev_minor;
	}
	if (nw->set & PM_SET_ATIME)
		sh->atime = to_time(nw->atime);
	if (nw->set & PM_SET_MTIME)
		sh->mtime = to_time(nw->mtime);
	if (nw->type == PM_REG && (nw->set & PM_SET_SIZE))
		sh->size = nw->size;
	if (nw->type == PM_REG && nw->exclusive) {
		sh->flags |= PM_IF_VERF;
		memcpy(sh->verf, nw->verf, sizeof(sh->verf));
	}
	return nw->type == PM_LNK ? link_fill(tx, sh, nw) : 0;
}

static int create_new(struct pm_store *st, const struct pm_inode *dir, uint64_t key, const struct deed *d,
                      struct pm_change *ch)
{
	const struct pm_new *nw = d->nw;
	struct pm_tx *tx = tx_begin(st);
	struct pm_inode *sh;
	struct pm_id id = { 0 };
	int err = ino_new(tx, nw->type, &sh);

	if (!err) {
		id = id_of(sh);
		err = new_fill(tx, dir, sh, nw);
	}
	if (!err)
		err = entry_add(tx, dir, key, sh, d->name);
	if (!err) {
		dir_touch(tx, dir);
		if (nw->type == PM_DIR)
			ino_edit(tx, dir)->nlink++;
	}
	err = finish(tx, err, dir, id, d->once, ch);
	if (!err)
		file_attr(st, ino_at(st, id.ino), &ch->obj);
	return err;
}

/* The name exists. An EXCLUSIVE create that comes again succeeds; its record, which follows the
 * first one's, makes the reply wait until that is durable. */
static int create_old(struct pm_store *st, struct pm_worker *w, const struct pm_inode *dir,
                      const struct place *p, const struct deed *d, struct pm_change *ch)
{
	const struct pm_new *nw = d->nw;
	const struct pm_inode *obj;
	struct pm_tx *tx;
	int err = 0;

	if (!inode_also(st, w, p->id.ino))
		return NEEDS_ALL;
	obj = child_get(st, dir->ino, p, &err);
	if (!obj)
		return err;
	file_attr(st, obj, &ch->obj);
	if (nw->type != PM_REG || !nw->exclusive || obj->type != PM_REG ||
	    !(obj->flags & PM_IF_VERF) || memcmp(obj->verf, nw->verf, sizeof(nw->verf)))
		return -EEXIST;
	tx = tx_begin(st);
	ino_edit(tx, obj)->ctime = store_now();
	err = finish(tx, 0, dir, p->id, d->once, ch);
	if (!err)
		file_attr(st, obj, &ch->obj);
	return err;
}

static int create_at(struct pm_store *st, struct pm_worker *w, const struct deed *d, struct pm_change *ch)
{
	const struct pm_inode *dir;
	struct place p;
	int err;

	dir = dir_get(st, d->dir, &err);
	if (!dir)
		return err;
	ino_attr(dir, &ch->dir_before);
	err = find(st, dir, d->name, &p);
	if (!err)
		return create_old(st, w, dir, &p, d, ch);
	if (err == -ENOENT && d->nw->type == PM_DIR && dir->nlink >= PM_LINK_MAX)
		return -EMLINK;
	return err == -ENOENT ? create_new(st, dir, p.key, d, ch) : err;
}

int pm_create_once(struct pm_store *st, struct pm_id dir, const char *name, size_t len,
                   const struct pm_new *nw, const struct pm_once *once, struct pm_change *ch)
{
	struct deed d = { .run = create_at, .dir = dir, .name = { name, len }, .nw = nw, .once = once };
	int err = name_check(d.name);

	if (!err)
		err = new_check(nw);
	return err ? err : carry_out(st, &d, ch);
}

int pm_create(struct pm_store *st, struct pm_id dir, const char *name, size_t len,
              const struct pm_new *nw, struct pm_change *ch)
{
	return pm_create_once(st, dir, name, len, nw, NULL, ch);
}

/* --- remove --- */

static int unlink_at(struct pm_store *st, struct pm_worker *w, const struct deed *d, struct pm_change *ch)
{
	const struct pm_inode *dir, *obj;
	struct place p;
	struct pm_tx *tx;
	int err;

	dir = dir_get(st, d->dir, &err);
	if (!dir)
		return err;
	ino_attr(dir, &ch->dir_before);
	err = find(st, dir, d->name, &p);
	if (err)
		return err;
	if ((p.type == PM_DIR) != d->want_dir)
		return d->want_dir ? -ENOTDIR : -EISDIR;
	if (!inode_also(st, w, p.id.ino))
		return NEEDS_ALL;
	obj = child_get(st, dir->ino, &p, &err);
	if (!obj)
		return err;
	if (d->want_dir && (obj->size || (obj->flags & PM_IF_TREE)))
		return -ENOTEMPTY;
	tx = tx_begin(st);
	err = entry_cut(tx, dir, p.key);
	if (!err)
		err = drop_link(tx, obj, &ch->obj);
	if (!err) {
		dir_touch(tx, dir);
		if (d->want_dir)
			ino_edit(tx, dir)->nlink--;
	}
	return finish(tx, err, dir, p.id, d->once, ch);
}

static int remove_any(struct pm_store *st, struct pm_id dir, struct name n, bool want_dir,
                      const struct pm_once *once, struct pm_change *ch)
{
	struct deed d = { .run = unlink_at, .dir = dir, .name = n, .want_dir = want_dir, .once = once };
	int err = name_check(n);

	return err ? err : carry_out(st, &d, ch);
}

int pm_remove_once(struct pm_store *st, struct pm_id dir, const char *name, size_t len,
                   const struct pm_once *once, struct pm_change *ch)
{
	return remove_any(st, dir, (struct name){ name, len }, false, once, ch);
}

int pm_rmdir_once(struct pm_store *st, struct pm_id dir, const char *name, size_t len,
                  const struct pm_once *once, struct pm_change *ch)
{
	return remove_any(st, dir, (struct name){ name, len }, true, once, ch);
}

int pm_remove(struct pm_store *st, struct pm_id dir, const char *name, size_t len,
              struct pm_change *ch)
{
	return pm_remove_once(st, dir, name, len, NULL, ch);
}

int pm_rmdir(struct pm_store *st, struct pm_id dir, const char *name, size_t len,
             struct pm_change *ch)
{
	return pm_rmdir_once(st, dir, name, len, NULL, ch);
}

/* --- link --- */

static int link_at(struct pm_store *st, struct pm_worker *w, const struct deed *d, struct pm_change *ch)
{
	const struct pm_inode *dir, *obj;
	struct pm_inode *sh;
	struct place p;
	struct pm_tx *tx;
	int err;

	if (!inode_also(st, w, d->obj.ino))
		return NEEDS_ALL;
	obj = ino_get(st, d->obj, &err);
	dir = obj ? dir_get(st, d->dir, &err) : NULL;
	if (!dir)
		return err;
	if (obj->type == PM_DIR)
		return -EISDIR;
	if (obj->nlink == 0)
		return -ESTALE;
	ino_attr(dir, &ch->dir_before);
	err = find(st, dir, d->name, &p);
	if (err != -ENOENT)
		return err ? err : -EEXIST;
	if (obj->nlink >= PM_LINK_MAX)
		return -EMLINK;
	tx = tx_begin(st);
	sh = ino_edit(tx, obj);
	sh->nlink++;
	sh->ctime = store_now();
	err = entry_add(tx, dir, p.key, obj, d->name);
	if (!err)
		dir_touch(tx, dir);
	err = finish(tx, err, dir, d->obj, d->once, ch);
	if (!err)
		file_attr(st, obj, &ch->obj);
	return err;
}

int pm_link_once(struct pm_store *st, struct pm_id obj, struct pm_id dir, const char *name,
                 size_t len, const struct pm_once *once, struct pm_change *ch)
{
	struct deed d = { .run = link_at, .obj = obj, .dir = dir, .name = { name, len }, .once = once };
	int err = name_check(d.name);

	return err ? err : carry_out(st, &d, ch);
}

int pm_link(struct pm_store *st, struct pm_id obj, struct pm_id dir, const char *name, size_t len,
            struct pm_change *ch)
{
	return pm_link_once(st, obj, dir, name, len, NULL, ch);
}

/* --- repair --- */

int dir_adopt(struct pm_store *st, uint64_t dir, const char *name, uint64_t ino)
{
	const struct pm_inode *d = ino_at(st, dir), *obj = ino_at(st, ino);
	struct name n = { name, strlen(name) };
	struct pm_inode *sh;
	struct pm_tx *tx;
	struct place p;
	int err;

	store_lock(st);
	err = find(st, d, n, &p);
	if (err == -ENOENT) {
		tx = tx_begin(st);
		sh = ino_edit(tx, obj);
		if (obj->type == PM_DIR) {
			sh->parent = dir;
			ino_edit(tx, d)->nlink++;
		} else {
			sh->nlink = 1;
		}
		err = entry_add(tx, d, p.key, obj, n);
		if (err)
			tx_abort(tx);
		else
			err = tx_commit(tx, NULL);
	} else if (!err) {
		err = -EEXIST;
	}
	store_unlock(st);
	return err;
}

int dir_disown(struct pm_store *st, uint64_t dir, uint64_t ino)
{
	const struct pm_inode *d = ino_at(st, dir);
	struct bt_cursor c;
	struct place p = { .key = 0 };
	struct name n;
	int err;

	store_lock(st);
	err = bt_seek(st, NULL, d, 0, &c);
	while (!err) {
		err = dent_read(&c, &p, &n);
		if (err || p.id.ino == ino)
			break;
		err = bt_next(st, NULL, d, &c);
	}
	if (!err) {
		struct pm_tx *tx = tx_begin(st);

		err = entry_cut(tx, d, p.key);
		ino_edit(tx, d)->nlink--;
		if (err)
			tx_abort(tx);
		else
			err = tx_commit(tx, NULL);
	}
	store_unlock(st);
	return err;
}

/* --- rename --- */

struct move {
	const struct pm_inode *from, *to; /* directories */
	struct name fname, tname;
	struct place src, dst;
	const struct pm_inode *obj, *victim; /* victim: what the new name led to, or NULL */
};

/* Is @to inside @obj? Parents lead to the root; a loop would be damage, and ends at the number of
 * inodes. */
static int subtree_check(struct pm_store *st, const struct pm_inode *obj, const struct pm_inode *to)
{
	int err = 0;

	for (uint64_t n = ino_count(st); n && to; n--) {
		if (to == obj)
			return -EINVAL;
		if (to->ino == PM_ROOT_INO)
			return 0;
		to = parent_of(st, to, &err);
	}
	return -EIO;
}

static int move_check(struct pm_store *st, const struct move *m)
{
	bool is_dir = m->obj->type == PM_DIR;
	const struct pm_inode *v = m->victim;
	int err = is_dir && m->from != m->to ? subtree_check(st, m->obj, m->to) : 0;

	if (err)
		return err;
	if (v && is_dir && v->type != PM_DIR)
		return -ENOTDIR;
	if (v && !is_dir && v->type == PM_DIR)
		return -EISDIR;
	if (v && is_dir && (v->size || (v->flags & PM_IF_TREE)))
		return -ENOTEMPTY;
	if (!v && is_dir && m->from != m->to && m->to->nlink >= PM_LINK_MAX)
		return -EMLINK;
	return 0;
}

static int move_find(struct pm_store *st, struct pm_worker *w, const struct deed *d, struct move *m)
{
	int err;

	if (!inode_also(st, w, d->to.ino))
		return NEEDS_ALL;
	m->from = dir_get(st, d->dir, &err);
	m->to = m->from ? dir_get(st, d->to, &err) : NULL;
	if (!m->to)
		return err;
	err = find(st, m->from, m->fname, &m->src);
	if (err)
		return err;
	if (w && m->src.type == PM_DIR && m->from != m->to) /* who its parents are is to stay so */
		return NEEDS_ALL;
	if (!inode_also(st, w, m->src.id.ino))
		return NEEDS_ALL;
	m->obj = child_get(st, m->from->ino, &m->src, &err);
	if (!m->obj)
		return err;
	err = find(st, m->to, m->tname, &m->dst);
	if (err)
		return err == -ENOENT ? 0 : err;
	if (!inode_also(st, w, m->dst.id.ino))
		return NEEDS_ALL;
	m->victim = child_get(st, m->to->ino, &m->dst, &err);
	return m->victim ? 0 : err;
}

/* The new name: over the victim's entry, whose cookie it takes, or a new one. */
static int move_enter(struct pm_tx *tx, const struct move *m)
{
	struct dent_buf b;

	if (!m->victim)
		return entry_add(tx, m->to, m->dst.key, m->obj, m->tname);
	dent_make(&b, m->obj, m->tname);
	return bt_replace(tx_store(tx), tx, m->to, m->dst.key, b.bytes, b.len);
}

static int move_tx(struct pm_tx *tx, const struct move *m)
{
	struct pm_inode *sh = ino_edit(tx, m->obj);
	int err;

	sh->ctime = store_now();
	if (m->obj->type == PM_DIR) {
		sh->parent = m->to->ino;
		ino_edit(tx, m->from)->nlink--;
		if (!m->victim)
			ino_edit(tx, m->to)->nlink++;
	}
	err = entry_cut(tx, m->from, m->src.key);
	if (!err)
		err = move_enter(tx, m);
	if (!err && m->victim)
		err = drop_link(tx, m->victim, NULL);
	dir_touch(tx, m->from);
	dir_touch(tx, m->to);
	return err;
}

static int rename_at(struct pm_store *st, struct pm_worker *w, const struct deed *d, struct pm_change *ch)
{
	struct move m = { .fname = d->name, .tname = d->to_name };
	struct pm_tx *tx;
	int err = move_find(st, w, d, &m);

	if (err)
		return err;
	ino_attr(m.from, &ch->dir_before);
	ino_attr(m.to, &ch->dir2_before);
	if (m.victim != m.obj) {
		err = move_check(st, &m);
		if (err)
			return err;
		tx = tx_begin(st);
		err = move_tx(tx, &m);
		err = finish(tx, err, m.from, m.src.id, d->once, ch);
		if (err)
			return err;
	}
	ino_attr(m.from, &ch->dir);
	ino_attr(m.to, &ch->dir2);
	file_attr(st, m.obj, &ch->obj);
	return 0;
}

int pm_rename_once(struct pm_store *st, struct pm_id from, const char *fname, size_t flen,
                   struct pm_id to, const char *tname, size_t tlen, const struct pm_once *once,
                   struct pm_change *ch)
{
	struct deed d = { .run = rename_at,
		          .dir = from,
		          .to = to,
		          .name = { fname, flen },
		          .to_name = { tname, tlen },
		          .once = once };
	int err = name_check(d.name);

	if (!err)
		err = name_check(d.to_name);
	return err ? err : carry_out(st, &d, ch);
}

int pm_rename(struct pm_store *st, struct pm_id from, const char *fname, size_t flen,
              struct pm_id to, const char *tname, size_t tlen, struct pm_change *ch)
{
	return pm_rename_once(st, from, fname, flen, to, tname, tlen, NULL, ch);
}

/* --- readlink, readdir --- */

static int link_read(struct pm_store *st, struct pm_id id, char *buf, size_t size, size_t *len)
{
	const struct pm_inode *in;
	int err;

	in = ino_get(st, id, &err);
	if (!in)
		return err;
	if (in->type != PM_LNK)
		return -EINVAL;
	if (in->size > PM_INLINE_LINK)
		return file_link_get(st, in, buf, size, len);
	memcpy(buf, in->u.link, in->size < size ? in->size : size);
	*len = in->size;
	return 0;
}

int pm_readlink(struct pm_store *st, struct pm_id id, char *buf, size_t size, size_t *len)
{
	struct pm_worker *w = inode_lock(st, id.ino);
	int err = link_read(st, id, buf, size, len);

	inode_unlock(st, w, id.ino);
	return err;
}

struct scan {
	struct pm_store *st;
	struct pm_worker *w; /* has the directory */
	bool beside;         /* others, and needs what the entries lead to, one after the other */
	bool want_attr;
	bool (*fn)(void *arg, const struct pm_dirent *de);
	void *arg;
	uint64_t cookie; /* to go on behind */
};
enum { SHOW_MORE, SHOWN_ENOUGH }; /* or NEEDS_ALL */

/* @in: NULL if it is damaged or not asked for; @held: its lock, or NULL. */
static inline int show(const struct scan *s, struct name n, uint64_t cookie, struct pm_id id, const struct pm_inode *in,
                       struct ino_slot *held)
{
	struct pm_dirent de = { .name = n.s, .len = n.len, .cookie = cookie, .id = id };
	struct pm_attr attr;

	if (in && s->want_attr) {
		file_attr(s->st, in, &attr);
		de.attr = &attr;
	}
	inode_seen(held);
	return s->fn(s->arg, &de) ? SHOW_MORE : SHOWN_ENOUGH;
}

static int show_dots(struct scan *s, const struct pm_inode *dir)
{
	const struct pm_inode *up;
	struct pm_id id = { dir->parent, 0 };
	struct ino_slot *held = NULL;
	int err;

	if (s->cookie < 1 && show(s, (struct name){ ".", 1 }, 1, id_of(dir), dir, NULL))
		return SHOWN_ENOUGH;
	if (s->cookie >= 2)
		return SHOW_MORE;
	s->cookie = 1;
	if (s->beside && !inode_see(s->st, s->w, dir->parent, &held))
		return NEEDS_ALL;
	up = parent_of(s->st, dir, &err);
	return show(s, (struct name){ "..", 2 }, 2, up ? id_of(up) : id, up, held);
}

static inline int show_entry(struct scan *s, const struct pm_inode *dir, const struct place *p, struct name n)
{
	const struct pm_inode *in = NULL;
	struct ino_slot *held = NULL;
	int bad;

	if (s->want_attr && s->beside && !inode_see(s->st, s->w, p->id.ino, &held)) {
		s->cookie = p->key - 1;
		return NEEDS_ALL;
	}
	if (s->want_attr)
		in = child_get(s->st, dir->ino, p, &bad);
	return show(s, n, p->key, p->id, in, held);
}

/* Entries are read some way ahead of being shown, so that their inodes, which lie all over the table,
 * come from memory side by side. */
#define AHEAD 8u
struct entry {
	struct place p;
	struct name n;
};

static int scan_dir(struct scan *s, const struct pm_inode *dir, bool *eof)
{
	unsigned have = 0, shown = 0;
	struct entry q[AHEAD], *e;
	struct bt_cursor c;
	int err = show_dots(s, dir), rc;

	if (err)
		return err;
	if (s->cookie >> 63) {
		*eof = true;
		return 0;
	}
	err = bt_seek(s->st, NULL, dir, max64(s->cookie, 2) + 1, &c);
	for (;;) {
		while (!err && have - shown < AHEAD) {
			e = &q[have % AHEAD];
			err = dent_read(&c, &e->p, &e->n);
			if (err)
				break;
			have++;
			if (s->want_attr)
				ino_fetch(s->st, e->p.id.ino);
			err = bt_next(s->st, NULL, dir, &c);
		}
		if (have == shown)
			break;
		e = &q[shown++ % AHEAD];
		rc = show_entry(s, dir, &e->p, e->n);
		if (rc)
			return rc;
	}
	*eof = err == -ENOENT;
	return err == -ENOENT ? 0 : err;
}

static int scan_at(struct scan *s, struct pm_id id, bool *eof)
{
	int err = 0;
	const struct pm_inode *dir = dir_get(s->st, id, &err);

	return dir ? scan_dir(s, dir, eof) : err;
}

int pm_readdir(struct pm_store *st, struct pm_id id, uint64_t cookie, bool want_attr,
               bool (*fn)(void *arg, const struct pm_dirent *de), void *arg, bool *eof)
{
	struct scan s = {
		.st = st, .w = inode_lock(st, id.ino), .want_attr = want_attr, .fn = fn, .arg = arg, .cookie = cookie
	};
	bool end = false;
	int err;

	s.beside = worker_beside(st, s.w);
	err = scan_at(&s, id, &end);
	if (err == NEEDS_ALL) { /* behind what has been shown */
		inode_alone(st, &s.w, id.ino);
		s.beside = false;
		err = scan_at(&s, id, &end);
	}
	inode_unlock(st, s.w, id.ino);
	if (err == SHOWN_ENOUGH)
		err = 0;
	if (!err)
		*eof = end;
	return err;
}
