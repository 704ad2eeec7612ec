/* SPDX-License-Identifier: BSD-3-Clause */
/* test_nfs3_mount.c - who may mount what, and the lists of mounts and exports */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "test/lib/nfs3fix.h"

TestSuite(mount3, .init = nfs3fix_start, .fini = nfs3fix_stop, .timeout = 60);

static int lists(uint32_t proc)
{
	return go(MOUNT3_PROGRAM, proc, 0);
}

static unsigned dump(char hosts[][64], char paths[][1100])
{
	unsigned n = 0;
	bool_t more;

	cr_assert_eq(lists(MOUNTPROC3_DUMP), SUCCESS);
	for (; xdr_bool(&res, &more) && more; n++) {
		char host[256] = "", path[1100] = "";
		mountentry3 e = { { 0, host }, { 0, path } };

		cr_assert(xdr_mountentry3(&res, &e));
		if (n < 8) {
			strcpy(hosts[n], host);
			strcpy(paths[n], path);
		}
	}
	cr_assert_not(more);
	return n;
}

Test(mount3, null_and_unknown)
{
	cr_assert_eq(lists(MOUNTPROC3_NULL), SUCCESS);
	cr_assert_eq(lists(6), PROC_UNAVAIL);
}

Test(mount3, gives_handles_of_exports_and_of_what_is_below)
{
	H sub, deep, h;

	cr_assert_eq(mnt("/sub", &sub), MNT3_OK);
	cr_assert_eq(mkdir_mode(&sub, "deep", 0755, &deep), NFS3_OK);
	cr_assert_eq(mnt("/sub/deep", &h), MNT3_OK);
	cr_assert_arr_eq(h.b, deep.b, FH_SIZE, "a subdirectory belongs to the same export");
	cr_assert_eq(mnt("//sub/.//deep/", &h), MNT3_OK);
	cr_assert_arr_eq(h.b, deep.b, FH_SIZE);
}

Test(mount3, refuses_with_the_error_that_tells)
{
	char longest[600];
	H h;

	cr_assert_eq(create(&root, "file", NULL), NFS3_OK);
	cr_assert_eq(symlink_to(&root, "sym", "sub", NULL), NFS3_OK);
	cr_assert_eq(mnt("/none", &h), MNT3ERR_NOENT);
	cr_assert_eq(mnt("/file", &h), MNT3ERR_NOTDIR);
	cr_assert_eq(mnt("/file/x", &h), MNT3ERR_NOTDIR);
	cr_assert_eq(mnt("/sym", &h), MNT3ERR_NOTDIR);
	cr_assert_eq(mnt("/far", &h), MNT3ERR_ACCES);
	cr_assert_eq(mnt("/secure", &h), MNT3ERR_ACCES);
	cr_assert_eq(mnt("/sub/../far", &h), MNT3ERR_ACCES);
	cr_assert_eq(mnt("sub", &h), MNT3ERR_INVAL);
	cr_assert_eq(mnt("", &h), MNT3ERR_INVAL);
	memset(longest, 'x', sizeof(longest));
	longest[0] = '/';
	longest[300] = 0;
	cr_assert_eq(mnt(longest, &h), MNT3ERR_NAMETOOLONG);
}

Test(mount3, lists_who_mounted_what)
{
	char hosts[8][64], paths[8][1100];
	mntpath3 p = { 4, (char *)(uintptr_t) "/sub" };
	H h;

	cr_assert_eq(dump(hosts, paths), 1); /* "/", by start() */
	cr_assert_str_eq(hosts[0], "127.0.0.1");
	cr_assert_str_eq(paths[0], "/");
	cr_assert_eq(mnt("/sub", &h), MNT3_OK);
	cr_assert_eq(mnt("/sub/", &h), MNT3_OK);
	cr_assert_eq(mnt("/none", &h), MNT3ERR_NOENT);
	cr_assert_eq(dump(hosts, paths), 2, "the same twice is one line, a refusal none");
	cr_assert_str_eq(paths[1], "/sub");
	cr_assert(xdr_mntpath3(args(), &p));
	cr_assert_eq(go(MOUNT3_PROGRAM, MOUNTPROC3_UMNT, xdr_getpos(&enc)), SUCCESS);
	cr_assert_eq(dump(hosts, paths), 1);
	cr_assert_eq(lists(MOUNTPROC3_UMNTALL), SUCCESS);
	cr_assert_eq(dump(hosts, paths), 0);
}

Test(mount3, the_list_is_bounded)
{
	char name[300], path[320], hosts[8][64], paths[8][1100];
	unsigned n;
	H h;

	for (unsigned i = 0; i < 1100; i++) {
		snprintf(name, sizeof(name), "d%u", i);
		snprintf(path, sizeof(path), "/%s", name);
		cr_assert_eq(mkdir_mode(&root, name, 0755, NULL), NFS3_OK);
		cr_assert_eq(mnt(path, &h), MNT3_OK);
	}
	n = dump(hosts, paths);
	cr_assert_eq(n, 1024);
	cr_assert_str_eq(paths[0], "/d76", "the oldest left first");
}

Test(mount3, shows_the_exports)
{
	unsigned n = 0, far = 0;
	bool_t more, group;

	cr_assert_eq(lists(MOUNTPROC3_EXPORT), SUCCESS);
	for (; xdr_bool(&res, &more) && more; n++) {
		char path[1100] = "", spec[256] = "";
		mntpath3 p = { 0, path };

		cr_assert(xdr_mntpath3(&res, &p));
		while (xdr_bool(&res, &group) && group) {
			exportgroup3 g = { { 0, spec } };

			cr_assert(xdr_exportgroup3(&res, &g));
		}
		if (strcmp(path, "/far") == 0 && strstr(spec, "192.0.2.1"))
			far++;
	}
	cr_assert_eq(n, 7);
	cr_assert_eq(far, 1);
}

Test(mount3, needs_no_credential)
{
	H h;

	me.flavor = AUTH_NONE;
	cr_assert_eq(mnt("/", &h), MNT3_OK);
	args();
	cr_assert_eq(go(NFS3_PROGRAM, NFSPROC3_NULL, 0), SUCCESS);
	cr_assert_eq(go(NFS3_PROGRAM, NFSPROC3_GETATTR, 0), DENIED + AUTH_TOOWEAK);
}
