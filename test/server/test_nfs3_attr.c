/* SPDX-License-Identifier: BSD-3-Clause */
/* test_nfs3_attr.c - attributes, SETATTR, ACCESS, and what the server says of itself */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/stat.h>

#include "test/lib/nfs3fix.h"

TestSuite(nfs3, .init = nfs3fix_start, .fini = nfs3fix_stop, .timeout = 60);

Test(nfs3, getattr_tells_all)
{
	H h, dev;
	fattr3 a;

	be(12, 34);
	cr_assert_eq(lookup(&root, "sub", &h), NFS3_OK);
	cr_assert_eq(create_as(&h, "f", UNCHECKED, mode_is(0640), &h), NFS3_OK);
	cr_assert_eq(write_at(&h, 5000, "xyz", 3, FILE_SYNC), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert(a.type == NF3REG && a.mode == 0640 && a.nlink == 1 && a.uid == 12 && a.gid == 34);
	cr_assert_eq(a.size, 5003);
	cr_assert(a.used > 0 && a.used <= 8192);
	cr_assert_eq(a.fsid, srv.fsid);
	cr_assert(a.mtime.seconds > 1600000000 && a.mtime.nseconds < 1000000000);
	be(0, 0);
	cr_assert_eq(mknod_of(&root, "dev", NF3BLK, &dev), NFS3_OK);
	cr_assert_eq(getattr(&dev, &a), NFS3_OK);
	cr_assert(a.type == NF3BLK && a.rdev.specdata1 == 7 && a.rdev.specdata2 == 300);
}

Test(nfs3, times_beyond_the_wire_are_clamped)
{
	struct pm_setattr sa = { .set = PM_SET_MTIME | PM_SET_ATIME,
		                 .mtime = { 1ll << 33, 5 },
		                 .atime = { -10, 5 } };
	struct pm_change ch;
	struct fh fh;
	fattr3 a;
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(fh_parse(&worker, h.b, FH_SIZE, &fh), 0);
	cr_assert_eq(pm_setattr(pool.st, fh.id, &sa, &ch), 0);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert_eq(a.mtime.seconds, UINT32_MAX);
	cr_assert(a.atime.seconds == 0 && a.atime.nseconds == 0);
}

Test(nfs3, setattr_sets)
{
	sattr3 sa = { .mode = { TRUE, { 0751 } },
		      .uid = { TRUE, { 9 } },
		      .gid = { TRUE, { 8 } },
		      .size = { TRUE, { 10000 } },
		      .atime = { SET_TO_CLIENT_TIME, { { 0xfffffff0, 999999999 } } },
		      .mtime = { SET_TO_CLIENT_TIME, { { 123, 456 } } } };
	fattr3 a, before;
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(getattr(&h, &before), NFS3_OK);
	cr_assert_eq(setattr_of(&h, sa, NULL), NFS3_OK);
	cr_assert(set_res.obj_wcc.before.attributes_follow);
	cr_assert_eq(set_res.obj_wcc.before.pre_op_attr_u.attributes.size, 0);
	cr_assert_eq(
		memcmp(&set_res.obj_wcc.before.pre_op_attr_u.attributes.ctime, &before.ctime, 8),
		0);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert_eq(memcmp(&a, &set_res.obj_wcc.after.post_op_attr_u.attributes, sizeof(a)), 0);
	cr_assert(a.mode == 0751 && a.uid == 9 && a.gid == 8 && a.size == 10000);
	cr_assert(a.atime.seconds == 0xfffffff0 && a.atime.nseconds == 999999999);
	cr_assert(a.mtime.seconds == 123 && a.mtime.nseconds == 456);
	sa = (sattr3){ .mtime = { .set_it = SET_TO_SERVER_TIME } };
	cr_assert_eq(setattr_of(&h, sa, NULL), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert_gt(a.mtime.seconds, 1600000000);
	cr_assert_eq(setattr_of(&h, nothing, NULL), NFS3_OK);
}

Test(nfs3, setattr_is_guarded_by_ctime)
{
	nfstime3 old;
	fattr3 a;
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	old = a.ctime;
	cr_assert_eq(setattr_of(&h, mode_is(0600), &old), NFS3_OK);
	cr_assert_eq(setattr_of(&h, mode_is(0601), &old), NFS3ERR_NOT_SYNC);
	cr_assert(set_res.obj_wcc.after.attributes_follow);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert_eq(a.mode, 0600);
}

Test(nfs3, setattr_refuses_what_makes_no_sense)
{
	sattr3 ns = { .atime = { SET_TO_CLIENT_TIME, { { 1, 1000000000 } } } };
	sattr3 now = { .atime = { SET_TO_CLIENT_TIME, { { 1, UTIME_NOW } } } };
	sattr3 huge = { .size = { TRUE, { UINT64_MAX } } };
	sattr3 size = { .size = { TRUE, { 1 } } };
	H h, dir, fifo;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(lookup(&root, "sub", &dir), NFS3_OK);
	cr_assert_eq(mknod_of(&root, "p", NF3FIFO, &fifo), NFS3_OK);
	cr_assert_eq(setattr_of(&h, ns, NULL), NFS3ERR_INVAL);
	cr_assert_eq(setattr_of(&h, now, NULL), NFS3ERR_INVAL);
	cr_assert_eq(setattr_of(&h, huge, NULL), NFS3ERR_FBIG);
	cr_assert_eq(setattr_of(&dir, size, NULL), NFS3ERR_ISDIR);
	cr_assert_eq(setattr_of(&fifo, size, NULL), NFS3ERR_INVAL);
	be(3, 3);
	cr_assert_eq(setattr_of(&h, mode_is(0777), NULL), NFS3ERR_PERM);
	cr_assert_eq(setattr_of(&h, size, NULL), NFS3ERR_ACCES);
}

Test(nfs3, a_write_takes_set_id_bits_away)
{
	fattr3 a;
	H dir, h;

	cr_assert_eq(lookup(&root, "sub", &dir), NFS3_OK);
	be(3, 3);
	cr_assert_eq(create_as(&dir, "f", GUARDED, mode_is(06755), &h), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert_eq(a.mode, 06755);
	cr_assert_eq(write_at(&h, 0, "x", 1, FILE_SYNC), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert_eq(a.mode, 0755);
}

Test(nfs3, a_program_that_is_given_away_loses_set_id_bits)
{
	sattr3 to_root = { .uid = { TRUE, { 0 } } };
	fattr3 a;
	H dir, h;

	cr_assert_eq(lookup(&root, "sub", &dir), NFS3_OK);
	be(3, 3);
	cr_assert_eq(create_as(&dir, "f", GUARDED, mode_is(06755), &h), NFS3_OK);
	be(0, 0);
	cr_assert_eq(setattr_of(&h, to_root, NULL), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert(a.uid == 0 && a.mode == 0755, "mode %o of user %u", a.mode, a.uid);
	cr_assert_eq(set_res.obj_wcc.after.post_op_attr_u.attributes.mode, 0755);
}

Test(nfs3, access_by_mode_and_groups)
{
	H h;

	cr_assert_eq(create_as(&root, "f", GUARDED,
	                       (sattr3){ .mode = { TRUE, { 0640 } },
	                                 .uid = { TRUE, { 5 } },
	                                 .gid = { TRUE, { 50 } } },
	                       &h),
	             NFS3_OK);
	cr_assert_eq(access_of(&h, 0x3f), ACCESS3_READ | ACCESS3_MODIFY | ACCESS3_EXTEND);
	be(5, 1);
	cr_assert_eq(access_of(&h, 0x3f), ACCESS3_READ | ACCESS3_MODIFY | ACCESS3_EXTEND);
	be(6, 1);
	cr_assert_eq(access_of(&h, 0x3f), 0);
	me.ngids = 3;
	me.gids[2] = 50;
	cr_assert_eq(access_of(&h, 0x3f), ACCESS3_READ);
}

Test(nfs3, fsstat_fsinfo_pathconf_tell_the_truth)
{
	FSSTAT3args sq = { wire(&root) };
	FSINFO3args iq = { wire(&root) };
	PATHCONF3args pq = { wire(&root) };
	FSSTAT3res s1, s2;
	FSINFO3res i;
	PATHCONF3res p;
	static char mib[1 << 20];
	H h;

	NFS(FSSTAT, FSSTAT3args, &sq, FSSTAT3res, &s1);
	cr_assert_eq(s1.status, NFS3_OK);
	cr_assert_leq(s1.FSSTAT3res_u.resok.tbytes, 64 << 20);
	cr_assert_gt(s1.FSSTAT3res_u.resok.tbytes, 32 << 20);
	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(write_at(&h, 0, mib, sizeof(mib), FILE_SYNC), NFS3_OK);
	NFS(FSSTAT, FSSTAT3args, &sq, FSSTAT3res, &s2);
	cr_assert_eq(s1.FSSTAT3res_u.resok.tbytes, s2.FSSTAT3res_u.resok.tbytes);
	cr_assert_geq(s1.FSSTAT3res_u.resok.fbytes - s2.FSSTAT3res_u.resok.fbytes, sizeof(mib));
	cr_assert_leq(s1.FSSTAT3res_u.resok.fbytes - s2.FSSTAT3res_u.resok.fbytes,
	              sizeof(mib) + 65536);

	NFS(FSINFO, FSINFO3args, &iq, FSINFO3res, &i);
	cr_assert_eq(i.status, NFS3_OK);
	cr_assert_eq(i.FSINFO3res_u.resok.wtmax, 1 << 20);
	cr_assert_eq(i.FSINFO3res_u.resok.rtmax, 1 << 20);
	cr_assert_eq(i.FSINFO3res_u.resok.dtpref, 65536);
	cr_assert_eq(i.FSINFO3res_u.resok.maxfilesize, PM_FILE_MAX);
	cr_assert_eq(i.FSINFO3res_u.resok.time_delta.nseconds, 1);
	cr_assert_eq(i.FSINFO3res_u.resok.properties, 0x1b);

	NFS(PATHCONF, PATHCONF3args, &pq, PATHCONF3res, &p);
	cr_assert_eq(p.status, NFS3_OK);
	cr_assert_eq(p.PATHCONF3res_u.resok.name_max, 255);
	cr_assert_eq(p.PATHCONF3res_u.resok.linkmax, PM_LINK_MAX);
	cr_assert(p.PATHCONF3res_u.resok.no_trunc && p.PATHCONF3res_u.resok.chown_restricted);
	cr_assert(p.PATHCONF3res_u.resok.case_preserving &&
	          !p.PATHCONF3res_u.resok.case_insensitive);
}
