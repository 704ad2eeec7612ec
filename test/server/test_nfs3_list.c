/* SPDX-License-Identifier: BSD-3-Clause */
/* test_nfs3_list.c - READDIR and READDIRPLUS */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "test/lib/nfs3fix.h"

TestSuite(nfs3, .init = nfs3fix_start, .fini = nfs3fix_stop, .timeout = 60);

struct listed {
	unsigned n, dots, attrs, handles;
	uint64_t last, dot, dotdot; /* cookie; fileids */
	char verf[8];
	bool eof;
	size_t bytes;       /* of the last reply */
	uint8_t seen[2000]; /* of names "f%u" */
};

static void take_entry(struct listed *l, uint64_t fileid, const filename3 *name, uint64_t cookie)
{
	char text[256] = "";
	unsigned i;

	memcpy(text, name->filename3_val, name->filename3_len);
	l->n++;
	l->last = cookie;
	if (strcmp(text, ".") == 0)
		l->dot = fileid, l->dots++;
	else if (strcmp(text, "..") == 0)
		l->dotdot = fileid, l->dots++;
	else if (sscanf(text, "f%u", &i) == 1 && i < sizeof(l->seen))
		l->seen[i]++;
}

static nfsstat3 take_list(struct listed *l, bool plus)
{
	u_int from = xdr_getpos(&res);
	READDIR3head hd;
	bool_t more, eof;

	cr_assert(xdr_READDIR3head(&res, &hd));
	if (hd.status != NFS3_OK)
		return hd.status;
	memcpy(l->verf, hd.READDIR3head_u.resok.cookieverf, 8);
	cr_assert(hd.READDIR3head_u.resok.dir_attributes.attributes_follow);
	while (xdr_bool(&res, &more) && more) {
		char name[256];
		H h;
		entryplus3 e = { .name.filename3_val = name };
		entry3 s = { .name.filename3_val = name };

		e.name_handle.post_op_fh3_u.handle.data.data_val = (char *)h.b;
		if (!plus) {
			cr_assert(xdr_entry3(&res, &s));
			take_entry(l, s.fileid, &s.name, s.cookie);
			continue;
		}
		cr_assert(xdr_entryplus3(&res, &e));
		take_entry(l, e.fileid, &e.name, e.cookie);
		l->attrs += e.name_attributes.attributes_follow ? 1 : 0;
		l->handles += e.name_handle.handle_follows ? 1 : 0;
		if (e.name_attributes.attributes_follow)
			cr_assert_eq(e.name_attributes.post_op_attr_u.attributes.fileid, e.fileid);
	}
	cr_assert(xdr_bool(&res, &eof));
	l->eof = eof;
	l->bytes = xdr_getpos(&res) - from;
	return NFS3_OK;
}

static nfsstat3 readdir_one(const H *dir, struct listed *l, uint32_t count)
{
	READDIR3args q = { .dir = wire(dir), .cookie = l->last, .count = count };

	memcpy(q.cookieverf, l->verf, 8);
	cr_assert(xdr_READDIR3args(args(), &q));
	cr_assert_eq(go(NFS3_PROGRAM, NFSPROC3_READDIR, xdr_getpos(&enc)), SUCCESS);
	return take_list(l, false);
}

static nfsstat3 readdirplus_one(const H *dir, struct listed *l, uint32_t dircount,
                                uint32_t maxcount)
{
	READDIRPLUS3args q = {
		.dir = wire(dir), .cookie = l->last, .dircount = dircount, .maxcount = maxcount
	};

	memcpy(q.cookieverf, l->verf, 8);
	cr_assert(xdr_READDIRPLUS3args(args(), &q));
	cr_assert_eq(go(NFS3_PROGRAM, NFSPROC3_READDIRPLUS, xdr_getpos(&enc)), SUCCESS);
	return take_list(l, true);
}

static void populate(H *dir, unsigned n)
{
	char name[16];

	cr_assert_eq(mkdir_mode(&root, "list", 0755, dir), NFS3_OK);
	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		cr_assert_eq(create(dir, name, NULL), NFS3_OK);
	}
}

Test(nfs3, listings_are_complete_and_keep_their_counts)
{
	static const uint32_t counts[] = { 140, 512, 4096, 65536, UINT32_MAX };
	H dir;

	populate(&dir, 300);
	for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
		struct listed l = { 0 }, p = { 0 };

		while (!l.eof) {
			cr_assert_eq(readdir_one(&dir, &l, counts[c]), NFS3_OK, "count %u",
			             counts[c]);
			cr_assert_leq(l.bytes, (size_t)counts[c] + 4);
		}
		cr_assert_eq(l.n, 302);
		cr_assert_eq(l.dots, 2);
		while (!p.eof) {
			cr_assert_eq(readdirplus_one(&dir, &p, counts[c],
			                             counts[c] + 200u > 200u ? counts[c] + 200
			                                                     : counts[c]),
			             NFS3_OK);
			cr_assert_leq(p.bytes, (size_t)counts[c] + 204);
		}
		cr_assert_eq(p.n, 302);
		cr_assert_eq(p.attrs, 302);
		cr_assert_eq(p.handles, 302);
		for (unsigned i = 0; i < 300; i++)
			cr_assert(l.seen[i] == 1 && p.seen[i] == 1, "f%u", i);
	}
}

Test(nfs3, dircount_bounds_the_names)
{
	struct listed l = { 0 };
	H dir;

	populate(&dir, 50);
	cr_assert_eq(readdirplus_one(&dir, &l, 10 * 24, 65536), NFS3_OK);
	cr_assert(l.n > 5 && l.n <= 10, "%u", l.n);
	cr_assert_not(l.eof);
	l = (struct listed){ 0 };
	cr_assert_eq(readdirplus_one(&dir, &l, 0, 65536), NFS3_OK);
	cr_assert_eq(l.n, 1, "never none");
}

Test(nfs3, a_listing_with_no_room_is_too_small)
{
	struct listed l = { 0 };
	char name[256];
	H dir;

	cr_assert_eq(mkdir_mode(&root, "d", 0755, &dir), NFS3_OK);
	memset(name, 'x', 255);
	name[255] = 0;
	cr_assert_eq(create(&dir, name, NULL), NFS3_OK);
	cr_assert_eq(readdir_one(&dir, &l, 0), NFS3ERR_TOOSMALL);
	cr_assert_eq(readdir_one(&dir, &l, 100), NFS3ERR_TOOSMALL);
	cr_assert_eq(readdirplus_one(&dir, &l, 100, 200), NFS3ERR_TOOSMALL);
	cr_assert_eq(readdir_one(&dir, &l, 180), NFS3_OK);
	cr_assert_eq(l.n, 2);
	cr_assert_eq(readdir_one(&dir, &l, 180), NFS3ERR_TOOSMALL, "the long name is next");
	cr_assert_eq(readdir_one(&dir, &l, 400), NFS3_OK);
	cr_assert_eq(l.n, 3);
	cr_assert(l.eof);
	cr_assert_eq(readdir_one(&dir, &l, 400), NFS3_OK);
	cr_assert(l.eof && l.n == 3);
}

Test(nfs3, a_cookie_needs_its_verifier)
{
	struct listed l = { 0 };
	H dir;

	populate(&dir, 5);
	cr_assert_eq(readdir_one(&dir, &l, 160), NFS3_OK);
	cr_assert_not(l.eof);
	l.verf[3] ^= 1;
	cr_assert_eq(readdir_one(&dir, &l, 160), NFS3ERR_BAD_COOKIE);
	cr_assert_eq(readdirplus_one(&dir, &l, 4096, 4096), NFS3ERR_BAD_COOKIE);
	l.verf[3] ^= 1;
	cr_assert_eq(readdir_one(&dir, &l, 160), NFS3_OK);
}

Test(nfs3, removal_while_listing_loses_no_other_entry)
{
	struct listed l = { 0 };
	char name[16];
	unsigned rounds = 0;
	H dir;

	populate(&dir, 400);
	while (!l.eof) {
		cr_assert_eq(readdirplus_one(&dir, &l, 65536, 2000), NFS3_OK);
		for (unsigned i = rounds * 7; i < rounds * 7 + 7 && i < 400; i++) {
			snprintf(name, sizeof(name), "f%u", i * 3 % 400);
			remove_name(&dir, name);
			if (!l.seen[i * 3 % 400])
				l.seen[i * 3 % 400] = 1; /* it need not be seen any more */
		}
		rounds++;
	}
	for (unsigned i = 0; i < 400; i++)
		cr_assert_geq(l.seen[i], 1, "f%u", i);
}

Test(nfs3, listings_of_an_exports_root_do_not_look_out)
{
	struct listed l = { 0 }, p = { 0 }, d = { 0 };
	fattr3 a;
	H sub, dir;

	cr_assert_eq(mnt("/sub", &sub), MNT3_OK);
	cr_assert_eq(mkdir_mode(&sub, "dir", 0755, &dir), NFS3_OK);
	cr_assert_eq(getattr(&sub, &a), NFS3_OK);
	cr_assert_eq(readdir_one(&sub, &l, 4096), NFS3_OK);
	cr_assert(l.dot == a.fileid && l.dotdot == a.fileid);
	cr_assert_eq(readdirplus_one(&sub, &p, 4096, 4096), NFS3_OK);
	cr_assert(p.dot == a.fileid && p.dotdot == a.fileid && p.handles == 3);
	cr_assert_eq(readdirplus_one(&dir, &d, 4096, 4096), NFS3_OK);
	cr_assert_eq(d.dotdot, a.fileid);
}

Test(nfs3, listings_check_permission_and_type)
{
	struct listed l = { 0 };
	H dir, f, x;

	cr_assert_eq(mkdir_mode(&root, "r", 0744, &dir), NFS3_OK);
	cr_assert_eq(mkdir_mode(&root, "x", 0711, &x), NFS3_OK);
	cr_assert_eq(create(&dir, "f1", NULL), NFS3_OK);
	cr_assert_eq(create(&root, "f", &f), NFS3_OK);
	cr_assert_eq(readdir_one(&f, &l, 4096), NFS3ERR_NOTDIR);
	be(5, 5);
	cr_assert_eq(readdir_one(&dir, &l, 4096), NFS3_OK);
	l = (struct listed){ 0 };
	cr_assert_eq(readdirplus_one(&dir, &l, 4096, 4096), NFS3_OK);
	cr_assert(l.eof && l.n == 3 && l.seen[1] == 1, "the names take read permission");
	cr_assert(l.attrs == 0 && l.handles == 0, "attributes and handles take search permission");
	l = (struct listed){ 0 };
	cr_assert_eq(readdir_one(&x, &l, 4096), NFS3ERR_ACCES);
}
