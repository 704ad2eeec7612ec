/* SPDX-License-Identifier: BSD-3-Clause */
/* test_nfs3_name.c - names: CREATE and its kin, REMOVE, RENAME, LINK, and who may */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "test/lib/nfs3fix.h"

TestSuite(nfs3, .init = nfs3fix_start, .fini = nfs3fix_stop, .timeout = 60);

Test(nfs3, create_modes)
{
	sattr3 cut = { .mode = { TRUE, { 0777 } }, .size = { TRUE, { 0 } } };
	fattr3 a;
	H h, h2;

	cr_assert_eq(create_as(&root, "f", UNCHECKED, mode_is(0604), &h), NFS3_OK);
	cr_assert_eq(write_at(&h, 0, "data", 4, FILE_SYNC), NFS3_OK);
	cr_assert_eq(create_as(&root, "f", GUARDED, mode_is(0644), &h2), NFS3ERR_EXIST);
	cr_assert(made.CREATE3res_u.resfail.dir_wcc.after.attributes_follow);
	cr_assert_eq(create_as(&root, "f", UNCHECKED, mode_is(0777), &h2), NFS3_OK);
	cr_assert_arr_eq(h.b, h2.b, FH_SIZE);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert(a.size == 4 && a.mode == 0604, "an existing file keeps what it has");
	cr_assert_eq(create_as(&root, "f", UNCHECKED, cut, &h2), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert(a.size == 0 && a.mode == 0604, "but for its length");
	cr_assert_eq(create_as(&root, "sub", UNCHECKED, nothing, NULL), NFS3ERR_EXIST);
}

Test(nfs3, unchecked_create_needs_permission_only_for_what_it_does)
{
	sattr3 cut = { .size = { TRUE, { 0 } } };
	H h;

	cr_assert_eq(create_as(&root, "f", GUARDED, mode_is(0644), &h), NFS3_OK);
	be(5, 5);
	cr_assert_eq(create_as(&root, "f", UNCHECKED, nothing, NULL), NFS3_OK,
	             "open without O_TRUNC");
	cr_assert_eq(create_as(&root, "f", UNCHECKED, cut, NULL), NFS3ERR_ACCES);
	cr_assert_eq(create_as(&root, "g", UNCHECKED, nothing, NULL), NFS3ERR_ACCES);
	cr_assert_eq(create_as(&root, "f", GUARDED, nothing, NULL), NFS3ERR_EXIST);
}

Test(nfs3, exclusive_create_can_be_repeated_by_the_same)
{
	H h, h2;

	cr_assert_eq(create_excl(&root, "f", "verifier", &h), NFS3_OK);
	cr_assert_eq(create_excl(&root, "f", "verifier", &h2), NFS3_OK);
	cr_assert_arr_eq(h.b, h2.b, FH_SIZE);
	cr_assert_eq(create_excl(&root, "f", "somebody", &h2), NFS3ERR_EXIST);
}

Test(nfs3, bad_names_get_the_error_of_their_procedure)
{
	static char too_long[257];
	static const struct {
		const char *name;
		nfsstat3 look, make, gone, gonedir, move;
	} cases[] = {
		{ "", NFS3ERR_ACCES, NFS3ERR_ACCES, NFS3ERR_ACCES, NFS3ERR_ACCES, NFS3ERR_ACCES },
		{ "a/b", NFS3ERR_INVAL, NFS3ERR_INVAL, NFS3ERR_INVAL, NFS3ERR_INVAL,
		  NFS3ERR_INVAL },
		{ "/", NFS3ERR_INVAL, NFS3ERR_INVAL, NFS3ERR_INVAL, NFS3ERR_INVAL, NFS3ERR_INVAL },
		{ ".", NFS3_OK, NFS3ERR_EXIST, NFS3ERR_ACCES, NFS3ERR_INVAL, NFS3ERR_INVAL },
		{ "..", NFS3_OK, NFS3ERR_EXIST, NFS3ERR_ACCES, NFS3ERR_EXIST, NFS3ERR_INVAL },
		{ too_long, NFS3ERR_NAMETOOLONG, NFS3ERR_NAMETOOLONG, NFS3ERR_NAMETOOLONG,
		  NFS3ERR_NAMETOOLONG, NFS3ERR_NAMETOOLONG },
		{ "none", NFS3ERR_NOENT, NFS3_OK, NFS3_OK, NFS3ERR_NOENT, NFS3ERR_NOENT },
	};
	H f, d;

	memset(too_long, 'n', 256);
	cr_assert_eq(lookup(&root, "sub", &d), NFS3_OK);
	cr_assert_eq(create(&root, "f", &f), NFS3_OK);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *n = cases[i].name;

		cr_assert_eq(lookup(&d, n, NULL), cases[i].look, "%zu", i);
		cr_assert_eq(create(&d, n, NULL), cases[i].make, "%zu", i);
		cr_assert_eq(remove_name(&d, n), cases[i].gone, "%zu", i);
		cr_assert_eq(mkdir_mode(&d, n, 0755, NULL), cases[i].make, "%zu", i);
		cr_assert_eq(cases[i].make == NFS3_OK ? rmdir_name(&d, n) : NFS3_OK, NFS3_OK, "%zu",
		             i);
		cr_assert_eq(rmdir_name(&d, n), cases[i].gonedir, "%zu", i);
		cr_assert_eq(symlink_to(&d, n, "t", NULL), cases[i].make, "%zu", i);
		cr_assert_eq(cases[i].make == NFS3_OK ? remove_name(&d, n) : NFS3_OK, NFS3_OK,
		             "%zu", i);
		cr_assert_eq(mknod_of(&d, n, NF3FIFO, NULL), cases[i].make, "%zu", i);
		cr_assert_eq(cases[i].make == NFS3_OK ? remove_name(&d, n) : NFS3_OK, NFS3_OK,
		             "%zu", i);
		cr_assert_eq(rename_name(&d, n, &d, "m"), cases[i].move, "%zu", i);
		if (cases[i].make != NFS3_OK) {
			cr_assert_eq(rename_name(&root, "f", &d, n), cases[i].move, "%zu", i);
			cr_assert_eq(link_name(&f, &d, n), cases[i].make, "%zu", i);
		}
	}
}

Test(nfs3, a_nul_in_a_name_is_seen)
{
	LOOKUP3args q = { { wire(&root), { 7, (char *)(uintptr_t) "sub\0sub" } } };
	LOOKUP3res r = { 0 };

	NFS(LOOKUP, LOOKUP3args, &q, LOOKUP3res, &r);
	cr_assert_eq(r.status, NFS3ERR_INVAL);
}

Test(nfs3, names_of_any_bytes_and_of_255)
{
	char name[256], odd[] = "\x01\xff\n \\*\"'\xc3\x28";
	H h, h2;

	memset(name, 0xe4, 255);
	name[255] = 0;
	cr_assert_eq(create(&root, name, &h), NFS3_OK);
	cr_assert_eq(lookup(&root, name, &h2), NFS3_OK);
	cr_assert_arr_eq(h.b, h2.b, FH_SIZE);
	cr_assert_eq(create(&root, odd, &h), NFS3_OK);
	cr_assert_eq(rename_name(&root, odd, &root, name), NFS3_OK);
	cr_assert_eq(lookup(&root, name, &h2), NFS3_OK);
	cr_assert_arr_eq(h.b, h2.b, FH_SIZE);
	cr_assert_eq(lookup(&root, odd, NULL), NFS3ERR_NOENT);
}

Test(nfs3, what_is_no_directory_holds_no_names)
{
	H f;

	cr_assert_eq(create(&root, "f", &f), NFS3_OK);
	cr_assert_eq(lookup(&f, "x", NULL), NFS3ERR_NOTDIR);
	cr_assert_eq(create(&f, "x", NULL), NFS3ERR_NOTDIR);
	cr_assert_eq(mkdir_mode(&f, "x", 0755, NULL), NFS3ERR_NOTDIR);
	cr_assert_eq(remove_name(&f, "x"), NFS3ERR_NOTDIR);
	cr_assert_eq(rename_name(&root, "f", &f, "x"), NFS3ERR_NOTDIR);
	cr_assert_eq(link_name(&f, &f, "x"), NFS3ERR_NOTDIR);
}

Test(nfs3, remove_and_rmdir)
{
	H d;

	cr_assert_eq(mkdir_mode(&root, "d", 0755, &d), NFS3_OK);
	cr_assert_eq(create(&d, "f", NULL), NFS3_OK);
	cr_assert_eq(rmdir_name(&root, "d"), NFS3ERR_NOTEMPTY);
	cr_assert_eq(remove_name(&root, "d"), NFS3ERR_ISDIR);
	cr_assert_eq(rmdir_name(&d, "f"), NFS3ERR_NOTDIR);
	cr_assert_eq(remove_name(&d, "f"), NFS3_OK);
	cr_assert(removed.dir_wcc.before.attributes_follow &&
	          removed.dir_wcc.after.attributes_follow);
	cr_assert_eq(remove_name(&d, "f"), NFS3ERR_NOENT);
	cr_assert_eq(rmdir_name(&root, "d"), NFS3_OK);
	cr_assert_eq(create(&d, "x", NULL), NFS3ERR_STALE);
}

Test(nfs3, sticky_directories)
{
	H d, h;

	cr_assert_eq(mkdir_mode(&root, "tmp", 01777, &d), NFS3_OK);
	be(5, 5);
	cr_assert_eq(create(&d, "five", &h), NFS3_OK);
	be(6, 6);
	cr_assert_eq(create(&d, "six", &h), NFS3_OK);
	cr_assert_eq(remove_name(&d, "five"), NFS3ERR_ACCES);
	cr_assert_eq(rename_name(&d, "five", &d, "x"), NFS3ERR_ACCES);
	cr_assert_eq(rename_name(&d, "six", &d, "five"), NFS3ERR_ACCES);
	cr_assert_eq(remove_name(&d, "six"), NFS3_OK);
	be(5, 5);
	cr_assert_eq(remove_name(&d, "five"), NFS3_OK);
}

Test(nfs3, changes_need_a_writable_directory)
{
	H f;

	cr_assert_eq(create(&root, "f", &f), NFS3_OK);
	be(5, 5);
	cr_assert_eq(create(&root, "x", NULL), NFS3ERR_ACCES);
	cr_assert_eq(mkdir_mode(&root, "x", 0755, NULL), NFS3ERR_ACCES);
	cr_assert_eq(symlink_to(&root, "x", "t", NULL), NFS3ERR_ACCES);
	cr_assert_eq(mknod_of(&root, "x", NF3FIFO, NULL), NFS3ERR_ACCES);
	cr_assert_eq(remove_name(&root, "f"), NFS3ERR_ACCES);
	cr_assert_eq(rmdir_name(&root, "sub"), NFS3ERR_ACCES);
	cr_assert_eq(rename_name(&root, "f", &root, "g"), NFS3ERR_ACCES);
	cr_assert_eq(link_name(&f, &root, "g"), NFS3ERR_ACCES);
}

Test(nfs3, a_name_that_is_there_exists_also_where_none_may_be_made)
{
	H d, f, closed;

	cr_assert_eq(mkdir_mode(&root, "d", 0755, &d), NFS3_OK);
	cr_assert_eq(mkdir_mode(&root, "closed", 0744, &closed), NFS3_OK);
	cr_assert_eq(create(&d, "f", &f), NFS3_OK);
	cr_assert_eq(create(&closed, "f", NULL), NFS3_OK);
	be(5, 5);
	cr_assert_eq(mkdir_mode(&d, "f", 0755, NULL), NFS3ERR_EXIST);
	cr_assert_eq(symlink_to(&d, "f", "t", NULL), NFS3ERR_EXIST);
	cr_assert_eq(mknod_of(&d, "f", NF3FIFO, NULL), NFS3ERR_EXIST);
	cr_assert_eq(create(&d, "f", NULL), NFS3ERR_EXIST);
	cr_assert_eq(create_excl(&d, "f", "12345678", NULL), NFS3ERR_EXIST);
	cr_assert_eq(link_name(&f, &d, "f"), NFS3ERR_EXIST);
	cr_assert_eq(mkdir_mode(&closed, "f", 0755, NULL), NFS3ERR_ACCES, "who may not look is told nothing");
	cr_assert_eq(link_name(&f, &closed, "f"), NFS3ERR_ACCES);
}

Test(nfs3, a_closed_directory_is_not_searched)
{
	H d;

	cr_assert_eq(mkdir_mode(&root, "d", 0700, &d), NFS3_OK);
	cr_assert_eq(create(&d, "f", NULL), NFS3_OK);
	be(5, 5);
	cr_assert_eq(lookup(&d, "f", NULL), NFS3ERR_ACCES);
	cr_assert_eq(lookup(&d, "none", NULL), NFS3ERR_ACCES);
}

Test(nfs3, rename_as_the_rfc_says)
{
	fattr3 a;
	H d, e, f, g, h;

	cr_assert_eq(mkdir_mode(&root, "d", 0755, &d), NFS3_OK);
	cr_assert_eq(mkdir_mode(&root, "e", 0755, &e), NFS3_OK);
	cr_assert_eq(create(&d, "f", &f), NFS3_OK);
	cr_assert_eq(create(&e, "g", &g), NFS3_OK);
	cr_assert_eq(rename_name(&d, "f", &e, "g"), NFS3_OK);
	cr_assert(renamed.fromdir_wcc.before.attributes_follow &&
	          renamed.todir_wcc.before.attributes_follow);
	cr_assert(renamed.fromdir_wcc.after.attributes_follow &&
	          renamed.todir_wcc.after.attributes_follow);
	cr_assert_eq(getattr(&g, NULL), NFS3ERR_STALE);
	cr_assert_eq(lookup(&e, "g", &h), NFS3_OK);
	cr_assert_arr_eq(h.b, f.b, FH_SIZE);
	cr_assert_eq(rename_name(&root, "e", &d, "e"), NFS3_OK);
	cr_assert_eq(lookup(&e, "..", &h), NFS3_OK);
	cr_assert_arr_eq(h.b, d.b, FH_SIZE);
	cr_assert_eq(getattr(&d, &a), NFS3_OK);
	cr_assert_eq(a.nlink, 3);
	cr_assert_eq(rename_name(&root, "d", &e, "d"), NFS3ERR_INVAL, "into its own subtree");
	cr_assert_eq(rename_name(&d, "none", &d, "x"), NFS3ERR_NOENT);
	cr_assert_neq(rename_name(&e, "g", &root, "d"), NFS3_OK, "a file over a directory");
	cr_assert_neq(rename_name(&root, "d", &e, "g"), NFS3_OK, "a directory over a file");
	cr_assert_neq(rename_name(&root, "sub", &root, "d"), NFS3_OK, "over a directory in use");
}

Test(nfs3, a_directory_moves_only_with_write_permission_on_itself)
{
	H d, e;

	cr_assert_eq(mkdir_mode(&root, "d", 0777, &d), NFS3_OK);
	cr_assert_eq(mkdir_mode(&root, "e", 0777, &e), NFS3_OK);
	cr_assert_eq(mkdir_mode(&d, "x", 0755, NULL), NFS3_OK);
	be(5, 5);
	cr_assert_eq(rename_name(&d, "x", &e, "x"), NFS3ERR_ACCES);
	cr_assert_eq(rename_name(&d, "x", &d, "y"), NFS3_OK);
}

Test(nfs3, hard_links)
{
	fattr3 a;
	H f, h, d;

	cr_assert_eq(create(&root, "f", &f), NFS3_OK);
	cr_assert_eq(lookup(&root, "sub", &d), NFS3_OK);
	cr_assert_eq(link_name(&f, &d, "g"), NFS3_OK);
	cr_assert(linked.file_attributes.attributes_follow);
	cr_assert_eq(linked.file_attributes.post_op_attr_u.attributes.nlink, 2);
	cr_assert(linked.linkdir_wcc.before.attributes_follow &&
	          linked.linkdir_wcc.after.attributes_follow);
	cr_assert_eq(lookup(&d, "g", &h), NFS3_OK);
	cr_assert_arr_eq(h.b, f.b, FH_SIZE);
	cr_assert_eq(link_name(&f, &d, "g"), NFS3ERR_EXIST);
	cr_assert_eq(link_name(&d, &d, "d"), NFS3ERR_ISDIR);
	cr_assert_eq(remove_name(&root, "f"), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert_eq(a.nlink, 1);
}

Test(nfs3, special_nodes)
{
	static const ftype3 good[] = { NF3CHR, NF3BLK, NF3SOCK, NF3FIFO };
	static const ftype3 bad[] = { NF3REG, NF3DIR, NF3LNK, 0, 8 };
	char name[8];
	fattr3 a;
	H h;

	for (size_t i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "n%zu", i);
		cr_assert_eq(mknod_of(&root, name, good[i], &h), NFS3_OK);
		cr_assert_eq(getattr(&h, &a), NFS3_OK);
		cr_assert_eq(a.type, good[i]);
	}
	for (size_t i = 0; i < 5; i++)
		cr_assert_eq(mknod_of(&root, "bad", bad[i], NULL), NFS3ERR_BADTYPE);
	be(5, 5);
	cr_assert_eq(lookup(&root, "sub", &h), NFS3_OK);
	cr_assert_eq(mknod_of(&h, "dev", NF3CHR, NULL), NFS3ERR_PERM);
	cr_assert_eq(mknod_of(&h, "fifo", NF3FIFO, NULL), NFS3_OK);
}

Test(nfs3, set_group_id_directories_hand_their_group_down)
{
	fattr3 a;
	H d, h;

	cr_assert_eq(mkdir_mode(&root, "d", 0777, &d), NFS3_OK);
	cr_assert_eq(setattr_of(&d,
	                        (sattr3){ .mode = { TRUE, { 02777 } }, .gid = { TRUE, { 50 } } },
	                        NULL),
	             NFS3_OK);
	be(5, 5);
	cr_assert_eq(create(&d, "f", &h), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert(a.uid == 5 && a.gid == 50 && a.mode == 0644);
	cr_assert_eq(mkdir_mode(&d, "e", 0755, &h), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert(a.gid == 50 && a.mode == 02755);
}
