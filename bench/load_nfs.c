/* SPDX-License-Identifier: BSD-3-Clause */
/* load_nfs.c - calls of NFS version 3 and MOUNT version 3 as records (RFC 1813, RFC 5531), and what their replies say */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "bench/load.h"

enum { PROG_MOUNT = 100005, PROG_NFS = 100003, FILE_SYNC = 2, HEAD_REPLY = 24 };

struct out {
	uint8_t *p;
};

static void put(struct out *o, uint32_t v)
{
	*o->p++ = (uint8_t)(v >> 24);
	*o->p++ = (uint8_t)(v >> 16);
	*o->p++ = (uint8_t)(v >> 8);
	*o->p++ = (uint8_t)v;
}

static void put64(struct out *o, uint64_t v)
{
	put(o, (uint32_t)(v >> 32));
	put(o, (uint32_t)v);
}

static void put_opaque(struct out *o, const void *data, uint32_t len)
{
	put(o, len);
	memcpy(o->p, data, len);
	memset(o->p + len, 0, -len & 3);
	o->p += len + (-len & 3);
}

static uint32_t get(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Record mark (filled in by the sender), header with AUTH_SYS of root. */
static void put_head(struct out *o, uint32_t xid, uint32_t prog, uint32_t proc)
{
	const uint32_t words[] = { 0, xid, 0, 2, prog, 3, proc, 1, 20, 0, 0, 0, 0, 0, 0, 0 };

	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		put(o, words[i]);
}

void load_name(const struct load_conn *c, unsigned slot, uint64_t n, char out[32])
{
	snprintf(out, 32, "b%05u.%03u.%010llu", c->id % 100000, slot % 1000, (unsigned long long)n);
}

static void put_name(struct out *o, const struct load_conn *c, unsigned slot, uint64_t n)
{
	char name[32];

	load_name(c, slot, n, name);
	put_opaque(o, name, (uint32_t)strlen(name));
}

static void put_create(struct out *o)
{
	put(o, 0);                  /* UNCHECKED */
	put(o, 1), put(o, 0644);    /* mode */
	for (int i = 0; i < 5; i++) /* uid, gid, size, atime, mtime: not set */
		put(o, 0);
}

static void put_write(struct out *o, const struct load_fh *fh, uint64_t off, uint32_t len, uint32_t stable)
{
	put_opaque(o, fh->data, fh->len);
	put64(o, off);
	put(o, len);
	put(o, stable);
	put(o, len);
}

size_t load_nfs_encode(const struct load_names *t, uint32_t len, const struct load_conn *c, unsigned slot, enum load_step s,
		       uint8_t *buf, uint32_t *payload)
{
	static const uint32_t proc[L_NSTEPS] = { 0, 1, 3, 6, 7, 7, 21, 8, 12, 7, 6 };
	const struct load_slot *sl = &c->slot[slot];
	struct out o = { buf };

	*payload = 0;
	put_head(&o, sl->xid, PROG_NFS, proc[s]);
	switch (s) {
	case L_NULL: break;
	case L_GETATTR: put_opaque(&o, t->file.data, t->file.len); break;
	case L_LOOKUP:
		put_opaque(&o, t->root.data, t->root.len);
		put_opaque(&o, "bench", 5);
		break;
	case L_READ:
	case L_READ_NEW:
		put_opaque(&o, s == L_READ ? t->file.data : sl->fh.data, s == L_READ ? t->file.len : sl->fh.len);
		put64(&o, s == L_READ ? sl->off : 0);
		put(&o, len);
		break;
	case L_WRITE:
	case L_WRITE_UNSTABLE:
		put_write(&o, &t->file, sl->off, *payload = len, s == L_WRITE ? FILE_SYNC : 0);
		break;
	case L_WRITE_NEW: put_write(&o, &sl->fh, 0, *payload = len, FILE_SYNC); break;
	case L_COMMIT:
		put_opaque(&o, t->file.data, t->file.len);
		put64(&o, sl->off);
		put(&o, len);
		break;
	case L_CREATE:
		put_opaque(&o, t->root.data, t->root.len);
		put_name(&o, c, slot, sl->made);
		put_create(&o);
		break;
	case L_REMOVE:
		put_opaque(&o, t->root.data, t->root.len);
		put_name(&o, c, slot, sl->made - 1);
		break;
	case L_PUT:
	case L_GET:
	case L_NSTEPS: break; /* not of NFS */
	}
	return (size_t)(o.p - buf);
}

/* 0; a status of RFC 1813; -EPROTO. CREATE's handle goes to @fh. */
int load_nfs_status(enum load_step s, const uint8_t *rec, uint32_t len, struct load_fh *fh)
{
	const uint8_t *p = rec + 4 + HEAD_REPLY; /* behind mark and header */
	uint32_t n;

	if (len < 4 + HEAD_REPLY || get(rec + 12) || get(rec + 24))
		return -EPROTO;
	if (s == L_NULL)
		return 0;
	if (len < 4 + HEAD_REPLY + 4)
		return -EPROTO;
	if (get(p) || s != L_CREATE)
		return (int)get(p);
	if (len < 4 + HEAD_REPLY + 12 || !get(p + 4) || (n = get(p + 8)) > LOAD_FH || len < 4 + HEAD_REPLY + 12 + n)
		return -EPROTO;
	fh->len = n;
	memcpy(fh->data, p + 12, n);
	return 0;
}

size_t load_nfs_create(const struct load_fh *dir, const char *name, uint8_t *buf)
{
	struct out o = { buf };

	put_head(&o, 1, PROG_NFS, 8);
	put_opaque(&o, dir->data, dir->len);
	put_opaque(&o, name, (uint32_t)strlen(name));
	put_create(&o);
	return (size_t)(o.p - buf);
}

size_t load_nfs_mount(const char *export, uint8_t *buf)
{
	struct out o = { buf };

	put_head(&o, 1, PROG_MOUNT, 1);
	put_opaque(&o, export, (uint32_t)strlen(export));
	return (size_t)(o.p - buf);
}

int load_nfs_mounted(const uint8_t *rec, uint32_t len, struct load_fh *root)
{
	const uint8_t *p = rec + 4 + HEAD_REPLY;
	uint32_t n;

	if (len < 4 + HEAD_REPLY + 4 || get(rec + 12) || get(rec + 24))
		return -EPROTO;
	if (get(p))
		return (int)get(p);
	if (len < 4 + HEAD_REPLY + 8 || (n = get(p + 4)) > LOAD_FH || len < 4 + HEAD_REPLY + 8 + n)
		return -EPROTO;
	root->len = n;
	memcpy(root->data, p + 8, n);
	return 0;
}
