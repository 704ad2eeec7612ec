/* SPDX-License-Identifier: BSD-3-Clause */
/* test_nfs3_export.c - what a file handle stands for: files that are gone, exports, whom they take callers for */
#include <criterion/criterion.h>
#include <semaphore.h>
#include <string.h>

#include "test/lib/nfs3fix.h"

TestSuite(nfs3, .init = nfs3fix_start, .fini = nfs3fix_stop, .timeout = 60);

Test(nfs3, a_handle_with_a_flipped_bit_is_bad_everywhere)
{
	fattr3 a;
	H h = root;

	for (unsigned bit = 0; bit < 8 * FH_SIZE; bit += 7) {
		h.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
		cr_assert_eq(getattr(&h, &a), NFS3ERR_BADHANDLE);
		cr_assert_eq(lookup(&h, "sub", NULL), NFS3ERR_BADHANDLE);
		cr_assert_eq(create(&h, "x", NULL), NFS3ERR_BADHANDLE);
		cr_assert_eq(write_at(&h, 0, "x", 1, FILE_SYNC), NFS3ERR_BADHANDLE);
		cr_assert_eq(rename_name(&root, "a", &h, "b"), NFS3ERR_BADHANDLE);
		h.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
}

Test(nfs3, a_removed_file_is_stale)
{
	uint32_t got;
	char buf[8];
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(remove_name(&root, "f"), NFS3_OK);
	cr_assert_eq(getattr(&h, NULL), NFS3ERR_STALE);
	cr_assert_eq(read_at(&h, 0, 8, buf, &got), NFS3ERR_STALE);
	cr_assert_eq(write_at(&h, 0, "x", 1, UNSTABLE), NFS3ERR_STALE);
	cr_assert_eq(commit(&h, 0, 0), NFS3ERR_STALE);
	cr_assert_eq(create(&root, "g", NULL), NFS3_OK);
	cr_assert_eq(getattr(&h, NULL), NFS3ERR_STALE, "though its inode number is in use again");
}

struct swap {
	struct mail mail;
	const struct exports *ex;
	sem_t done;
};

static void swap_in(struct worker *w, struct mail *m)
{
	struct swap *s = container_of(m, struct swap, mail);

	w->exports = s->ex;
	sem_post(&s->done);
}

static void export_instead(const char *text)
{
	struct swap s = { .mail.deliver = swap_in };
	struct exports *ex;
	char why[300];

	cr_assert_eq(exports_parse(text, "new", &ex, why, sizeof(why)), 0, "%s", why);
	s.ex = ex;
	sem_init(&s.done, 0, 0);
	worker_post(&worker, &s.mail);
	sem_wait(&s.done);
	exports_free(srv.exports);
	srv.exports = ex;
}

Test(nfs3, an_export_that_is_gone_takes_its_handles_along)
{
	H sub;

	cr_assert_eq(mnt("/sub", &sub), MNT3_OK);
	export_instead("/ 127.0.0.1(ro,insecure)\n");
	cr_assert_eq(getattr(&sub, NULL), NFS3ERR_STALE);
	cr_assert_eq(create(&root, "x", NULL), NFS3ERR_ROFS);
	export_instead("/sub 192.0.2.1(rw)\n");
	cr_assert_eq(getattr(&sub, NULL), NFS3ERR_ACCES);
	cr_assert_eq(getattr(&root, NULL), NFS3ERR_STALE);
	export_instead("/sub 127.0.0.1(rw)\n");
	cr_assert_eq(getattr(&sub, NULL), NFS3ERR_ACCES, "secure, and our port is not reserved");
	export_instead("/sub 127.0.0.1(rw,insecure)\n");
	cr_assert_eq(getattr(&sub, NULL), NFS3_OK, "the same key as before");
}

Test(nfs3, dot_dot_stays_within_the_export)
{
	H sub, dir, deep, h, seen;
	fattr3 a, b;

	cr_assert_eq(mnt("/sub", &sub), MNT3_OK);
	cr_assert_eq(mkdir_mode(&sub, "dir", 0755, &dir), NFS3_OK);
	cr_assert_eq(mkdir_mode(&dir, "deep", 0755, &deep), NFS3_OK);
	cr_assert_eq(lookup(&sub, "..", &h), NFS3_OK);
	cr_assert_arr_eq(h.b, sub.b, FH_SIZE);
	cr_assert_eq(lookup(&root, "..", &h), NFS3_OK);
	cr_assert_arr_eq(h.b, root.b, FH_SIZE);
	cr_assert_eq(lookup(&deep, "..", &h), NFS3_OK);
	cr_assert_arr_eq(h.b, dir.b, FH_SIZE);
	cr_assert_eq(lookup(&deep, ".", &h), NFS3_OK);
	cr_assert_arr_eq(h.b, deep.b, FH_SIZE);

	/* Seen through "/", the same directory has another handle, and its parent is the root. */
	cr_assert_eq(lookup(&root, "sub", &seen), NFS3_OK);
	cr_assert_neq(memcmp(seen.b, sub.b, FH_SIZE), 0);
	cr_assert(getattr(&seen, &a) == NFS3_OK && getattr(&sub, &b) == NFS3_OK);
	cr_assert_eq(a.fileid, b.fileid);
	cr_assert_eq(lookup(&seen, "..", &h), NFS3_OK);
	cr_assert_arr_eq(h.b, root.b, FH_SIZE);

	/* Moved out by somebody else: the handle lives, but leads nowhere. */
	cr_assert_eq(rename_name(&seen, "dir", &root, "out"), NFS3_OK);
	cr_assert_eq(lookup(&dir, "..", &h), NFS3ERR_STALE);
	cr_assert_eq(lookup(&deep, "..", &h), NFS3ERR_STALE);
}

Test(nfs3, exports_do_not_mix)
{
	H sub, f;

	cr_assert_eq(mnt("/sub", &sub), MNT3_OK);
	cr_assert_eq(create(&root, "f", &f), NFS3_OK);
	cr_assert_eq(rename_name(&root, "f", &sub, "f"), NFS3ERR_XDEV);
	cr_assert_eq(link_name(&f, &sub, "f"), NFS3ERR_XDEV);
}

Test(nfs3, a_read_only_export_refuses_every_change)
{
	char buf[8];
	uint32_t got;
	H ro, via, f, f2;

	cr_assert_eq(lookup(&root, "ro", &via), NFS3_OK);
	cr_assert_eq(create(&via, "f", &f2), NFS3_OK);
	cr_assert_eq(write_at(&f2, 0, "data", 4, FILE_SYNC), NFS3_OK);
	cr_assert_eq(mnt("/ro", &ro), MNT3_OK);
	cr_assert_eq(lookup(&ro, "f", &f), NFS3_OK);
	cr_assert_eq(read_at(&f, 0, 8, buf, &got), NFS3_OK);
	cr_assert_eq(got, 4);
	cr_assert_eq(setattr_of(&f, mode_is(0), NULL), NFS3ERR_ROFS);
	cr_assert_eq(write_at(&f, 0, "x", 1, UNSTABLE), NFS3ERR_ROFS);
	cr_assert_eq(commit(&f, 0, 0), NFS3ERR_ROFS);
	cr_assert_eq(create(&ro, "x", NULL), NFS3ERR_ROFS);
	cr_assert_eq(mkdir_mode(&ro, "x", 0755, NULL), NFS3ERR_ROFS);
	cr_assert_eq(symlink_to(&ro, "x", "y", NULL), NFS3ERR_ROFS);
	cr_assert_eq(mknod_of(&ro, "x", NF3FIFO, NULL), NFS3ERR_ROFS);
	cr_assert_eq(remove_name(&ro, "f"), NFS3ERR_ROFS);
	cr_assert_eq(rmdir_name(&ro, "f"), NFS3ERR_ROFS);
	cr_assert_eq(rename_name(&ro, "f", &ro, "g"), NFS3ERR_ROFS);
	cr_assert_eq(link_name(&f, &ro, "g"), NFS3ERR_ROFS);
	cr_assert_eq(access_of(&f, 0x3f), ACCESS3_READ);
}

Test(nfs3, squashed_callers_are_who_the_export_says)
{
	fattr3 a;
	H sq, all, h;

	cr_assert_eq(mnt("/squash", &sq), MNT3_OK);
	cr_assert_eq(mnt("/all", &all), MNT3_OK);
	cr_assert_eq(create(&sq, "by-root", &h), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert(a.uid == 77 && a.gid == 88);
	cr_assert_eq(mknod_of(&sq, "dev", NF3CHR, NULL), NFS3ERR_PERM);
	be(5, 6);
	cr_assert_eq(create(&sq, "by-5", &h), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert(a.uid == 5 && a.gid == 6);
	cr_assert_eq(create(&all, "by-5", &h), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert(a.uid == 77 && a.gid == 88);
}
