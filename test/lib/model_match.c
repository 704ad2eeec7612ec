/* SPDX-License-Identifier: BSD-3-Clause */
/* model_match.c - is what a store holds what the model says? */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/lib/model.h"

static const uint8_t zeros[PM_BLOCK];

struct listing {
	unsigned n;
	struct {
		char name[PM_NAME_MAX + 1];
		struct pm_id id;
		struct pm_attr attr;
	} e[W_ENT + 4];
};

static bool list_one(void *arg, const struct pm_dirent *de)
{
	struct listing *l = arg;

	if (de->len <= 2 && de->name[0] == '.')
		return true;
	if (l->n == W_ENT + 4)
		return false;
	memcpy(l->e[l->n].name, de->name, de->len);
	l->e[l->n].name[de->len] = '\0';
	l->e[l->n].id = de->id;
	if (de->attr)
		l->e[l->n].attr = *de->attr;
	else
		l->e[l->n].attr.id.ino = 0;
	l->n++;
	return true;
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static const char *attr_differs(const struct pm_attr *a, const struct pm_attr *b)
{
	if (a->id.ino != b->id.ino || a->id.gen != b->id.gen)
		return "identity";
	if (a->type != b->type)
		return "type";
	if (a->mode != b->mode || a->uid != b->uid || a->gid != b->gid)
		return "mode or owner";
	if (a->nlink != b->nlink)
		return "link count";
	if (a->size != b->size)
		return "size";
	if (a->used != b->used)
		return "space used";
	if (!same_time(a->mtime, b->mtime))
		return "mtime";
	if (!same_time(a->ctime, b->ctime))
		return "ctime";
	return same_time(a->atime, b->atime) ? NULL : "atime";
}

static bool bytes_match(const struct wobj *o, uint64_t at, const uint8_t *p, size_t n,
                        uint64_t *sum, char *why, size_t size)
{
	while (n) {
		uint64_t b = at / PM_BLOCK, in = at % PM_BLOCK;
		size_t part = PM_BLOCK - in < n ? PM_BLOCK - in : n;
		const uint8_t *want = b < W_BLK && o->c->data[b] ? o->c->data[b] + in : zeros;
		const uint8_t *alt = b < W_BLK && o->c->alt[b] ? o->c->alt[b] + in : want;

		for (size_t i = 0; (alt != want || memcmp(p, want, part)) && i < part; i++) {
			*sum = (*sum ^ p[i]) * 0x100000001b3ull;
			if (p[i] == want[i] || p[i] == alt[i])
				continue;
			snprintf(why, size, "byte %llu is %02x, not %02x%s",
			         (unsigned long long)(at + i), p[i], want[i],
			         alt[i] != want[i] ? " nor what was placed over it" : "");
			return false;
		}
		at += part;
		p += part;
		n -= part;
	}
	return true;
}

static bool file_matches(struct pm_store *st, const struct wobj *o, uint64_t *sum, char *why,
                         size_t size)
{
	struct pm_map m;
	uint64_t at = 0;
	bool ok = true;
	int err;

	if (!o->attr.size)
		return true;
	err = pm_map_read(st, o->attr.id, 0, (uint32_t)o->attr.size, &m);
	if (err) {
		snprintf(why, size, "cannot be read: %s", strerror(-err));
		return false;
	}
	for (unsigned i = 0; i < m.nseg && ok; i++) {
		ok = bytes_match(o, at, m.seg[i].iov_base, m.seg[i].iov_len, sum, why, size);
		at += m.seg[i].iov_len;
	}
	if (ok && at != o->attr.size) {
		snprintf(why, size, "only %llu bytes can be read", (unsigned long long)at);
		ok = false;
	}
	pm_unpin(&m);
	return ok;
}

static bool object_matches(struct pm_store *st, const struct state *s, int obj,
                           const struct pm_attr *is, uint64_t *sum, char *why, size_t size)
{
	const struct wobj *o = &s->obj[obj];
	const char *what = attr_differs(is, &o->attr);
	char text[sizeof(o->link)];
	size_t len = 0;

	if (what) {
		snprintf(why, size, "%s differs", what);
		return false;
	}
	if (o->attr.type == PM_REG)
		return file_matches(st, o, sum, why, size);
	if (o->attr.type == PM_LNK && (pm_readlink(st, o->attr.id, text, sizeof(text), &len) ||
	                               len != strlen(o->link) || memcmp(text, o->link, len))) {
		snprintf(why, size, "the link leads elsewhere");
		return false;
	}
	return true;
}

static bool dir_matches(struct pm_store *st, const struct state *s, int dir, uint64_t *sum,
                        char *why, size_t size)
{
	struct listing *l = malloc(sizeof(*l));
	unsigned want = 0;
	bool eof = false, ok = true;
	char part[256];

	l->n = 0;
	if (pm_readdir(st, s->obj[dir].attr.id, 0, true, list_one, l, &eof) || !eof) {
		snprintf(why, size, "directory %d cannot be read", dir);
		ok = false;
	}
	for (int i = 0; i < s->nent && ok; i++) {
		const struct went *e = &s->ent[i];
		unsigned k;

		if (e->dir != dir)
			continue;
		want++;
		for (k = 0; k < l->n && strcmp(l->e[k].name, e->name); k++)
			;
		if (k == l->n) {
			snprintf(why, size, "'%.60s' is missing", e->name);
			ok = false;
		} else if (!object_matches(st, s, e->obj, &l->e[k].attr, sum, part, sizeof(part))) {
			snprintf(why, size, "'%.60s': %s", e->name, part);
			ok = false;
		}
	}
	if (ok && l->n != want) {
		snprintf(why, size, "directory %d has %u entries, not %u", dir, l->n, want);
		ok = false;
	}
	free(l);
	return ok;
}

struct pm_once state_key(unsigned n)
{
	struct pm_once o = { .tag = n };

	for (unsigned i = 0; i < sizeof(o.key); i++)
		o.key[i] = (uint8_t)((n + 1) * (2 * i + 37) >> i % 3);
	memcpy(o.key + 8, &n, sizeof(n));
	return o;
}

/* The last records are there, and none of a change that was not made. */
static bool records_match(struct pm_store *st, const struct state *s, char *why, size_t size)
{
	unsigned slots = st->info.reply_slots, later = 0;

	for (unsigned n = s->keys + 1; n-- > 0;) {
		struct pm_once o = state_key(n);
		struct pm_reply r;
		bool want = n < s->keys && s->made[n] && later++ < slots;
		bool is = !pm_once_find(st, &o, &r);

		if (is == want && (!is || r.tag == n))
			continue;
		snprintf(why, size, "the record of change %u is %s", n,
		         is && want ? "another's"
		         : is       ? "there, not the change"
		                    : "missing");
		return false;
	}
	return true;
}

unsigned state_doubtful(const struct state *s)
{
	unsigned n = s->pinned;

	for (int i = 0; i < s->nobj; i++) {
		const struct content *c = s->obj[i].c;

		for (unsigned b = 0; s->obj[i].live && c && b < W_BLK; b++)
			n += c->alt[b] && memcmp(c->alt[b], c->data[b] ? c->data[b] : zeros, PM_BLOCK);
	}
	return n;
}

bool state_matches(struct pm_store *st, const struct state *s, uint64_t *sum, char *why,
                   size_t size)
{
	struct pm_attr root;

	*sum = 0;
	if (pm_getattr(st, s->obj[0].attr.id, &root)) {
		snprintf(why, size, "no root");
		return false;
	}
	if (!object_matches(st, s, 0, &root, sum, why, size))
		return false;
	for (int i = 0; i < s->nobj; i++)
		if (s->obj[i].live && s->obj[i].attr.type == PM_DIR &&
		    !dir_matches(st, s, i, sum, why, size))
			return false;
	return records_match(st, s, why, size);
}
