/* SPDX-License-Identifier: BSD-3-Clause */
/* repair_name.c - link counts, parents, loops, and names for what has none */
#include <errno.h>
#include <stdio.h>

#include "pmemio/repair.h"

/* --- links --- */

static int fix_links(struct repair *r, uint64_t ino)
{
	const struct pm_inode *in = ino_at(r->st, ino);
	const struct object *o = &r->obj[ino];
	struct where w = rep_where(r, ino);
	bool dir = in->type == PM_DIR;
	uint32_t nlink = dir ? 2 + o->subdirs : o->names;
	uint64_t parent = ino == PM_ROOT_INO ? ino : o->names ? o->in_dir : in->parent;
	struct pm_inode *sh;
	struct pm_tx *tx;

	if (!dir && !o->names) /* an orphan, or for lost+found */
		nlink = in->nlink;
	if (in->nlink == nlink && (!dir || in->parent == parent))
		return 0;
	tx = rep_begin(r);
	sh = ino_edit(tx, in);
	if (in->nlink != nlink && !o->salvaged)
		rep_say(r, w.text, "link count set from %u to %u", in->nlink, nlink);
	if (dir && in->parent != parent && !o->salvaged)
		rep_say(r, w.text, "parent set from %llu to %llu", ULL(in->parent), ULL(parent));
	sh->nlink = nlink;
	if (dir)
		sh->parent = parent;
	return rep_commit(r, tx);
}

/* Directories that do not hang from the root hang from themselves, or from one without a name. A
 * loop is cut where it is met. */
static int cut_loop(struct repair *r, uint64_t ino)
{
	uint64_t slow = ino, fast = ino, steps = 0;
	int err;

	while (fast != PM_ROOT_INO && r->obj[fast].names && steps++ < 2 * r->nino) {
		fast = r->obj[fast].in_dir;
		if (steps % 2 == 0)
			slow = r->obj[slow].in_dir;
		if (fast == slow && fast != PM_ROOT_INO && r->obj[fast].names && steps > 1)
			break;
	}
	if (fast == PM_ROOT_INO || !r->obj[fast].names)
		return 0;
	rep_say(r, rep_where(r, fast).text, "was inside itself: its name in directory %llu dropped",
	    ULL(r->obj[fast].in_dir));
	err = dir_disown(r->st, r->obj[fast].in_dir, fast);
	r->obj[r->obj[fast].in_dir].subdirs--;
	r->obj[fast].names = 0;
	return err;
}

int rep_links(struct repair *r)
{
	int err = 0;

	for (uint64_t ino = PM_ROOT_INO; ino < r->nino && !err; ino++)
		if (r->obj[ino].state == LIVE)
			err = fix_links(r, ino);
	for (uint64_t ino = PM_ROOT_INO + 1; ino < r->nino && !err; ino++)
		if (r->obj[ino].state == LIVE && ino_at(r->st, ino)->type == PM_DIR)
			err = cut_loop(r, ino);
	return err;
}

/* --- lost+found --- */

static int free_orphan(struct repair *r, uint64_t ino)
{
	struct pm_tx *tx = rep_begin(r);

	ino_free(tx, ino_edit(tx, ino_at(r->st, ino)));
	r->obj[ino].state = FREE;
	return rep_commit(r, tx);
}

/* A directory of this name, made if need be; another one's name is left alone. */
static int lost_found(struct repair *r, uint64_t *dir)
{
	static const char *const names[] = { "lost+found", "lost+found.berth",
		                             "lost+found.berth.1" };
	const struct pm_id root = { PM_ROOT_INO, 1 };
	int err = -ENOSPC;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		struct pm_new nw = { .type = PM_DIR, .mode = 0700 };
		struct pm_change ch;
		struct pm_attr a;

		err = pm_lookup(r->st, root, names[i], strlen(names[i]), &a);
		if (!err && a.type == PM_DIR) {
			*dir = a.id.ino;
			return 0;
		}
		if (err != -ENOENT)
			continue;
		err = pm_create(r->st, root, names[i], strlen(names[i]), &nw, &ch);
		if (!err) {
			*dir = ch.obj.id.ino;
			return 0;
		}
	}
	return err ? err : -EEXIST;
}

int rep_adopt(struct repair *r)
{
	uint64_t dir = 0;
	int err = 0;

	for (uint64_t ino = PM_ROOT_INO + 1; ino < r->nino && !err; ino++) {
		const struct pm_inode *in = ino_at(r->st, ino);
		struct where w;
		char name[32];

		if (r->obj[ino].state != LIVE || r->obj[ino].names || ino == dir ||
		    ino == r->quota)
			continue;
		if (in->type != PM_DIR && !in->nlink) {
			err = free_orphan(r, ino); /* as every open does */
			continue;
		}
		if (!dir)
			err = lost_found(r, &dir);
		snprintf(name, sizeof(name), "#%llu", ULL(ino));
		if (!err)
			err = dir_adopt(r->st, dir, name, ino);
		w = rep_where(r, ino);
		if (!err)
			rep_say(r, w.text, "no name led to it: now '%s' in lost+found (directory %llu)",
			    name, ULL(dir));
	}
	return err;
}
