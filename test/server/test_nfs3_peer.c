/* SPDX-License-Identifier: BSD-3-Clause */
/* test_nfs3_peer.c - what peers may send: arguments cut, out of range, or left unfinished */
#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

#include "test/lib/nfs3fix.h"

TestSuite(nfs3, .init = nfs3fix_start, .fini = nfs3fix_stop, .timeout = 60);

static size_t sample(uint32_t proc)
{
	static char eight[8] = "verifier";
	sattr3 sa = { { TRUE, { 0644 } },
		      { TRUE, { 1 } },
		      { TRUE, { 2 } },
		      { TRUE, { 3 } },
		      { SET_TO_CLIENT_TIME, { { 1, 2 } } },
		      { SET_TO_CLIENT_TIME, { { 3, 4 } } } };
	diropargs3 d = at(&root, "cut"), d2 = at(&root, "other");
	nfs_fh3 h = wire(&root);
	XDR *x = args();
	uint32_t n = 5;
	char *p = eight;
	bool ok = true;

	switch (proc) {
	case NFSPROC3_SETATTR:
		ok = xdr_SETATTR3args(x, &(SETATTR3args){ h, sa, { TRUE, { { 1, 2 } } } });
		break;
	case NFSPROC3_LOOKUP:
	case NFSPROC3_REMOVE:
	case NFSPROC3_RMDIR:
		ok = xdr_diropargs3(x, &d);
		break;
	case NFSPROC3_ACCESS:
		ok = xdr_ACCESS3args(x, &(ACCESS3args){ h, 63 });
		break;
	case NFSPROC3_READ:
		ok = xdr_READ3args(x, &(READ3args){ h, 1, 2 });
		break;
	case NFSPROC3_WRITE:
		ok = xdr_WRITE3head(x, &(WRITE3head){ h, 1, 5, FILE_SYNC }) &&
		     xdr_bytes(x, &p, &n, 8);
		break;
	case NFSPROC3_CREATE:
		ok = xdr_CREATE3args(x, &(CREATE3args){ d, { GUARDED, { .obj_attributes = sa } } });
		break;
	case NFSPROC3_MKDIR:
		ok = xdr_MKDIR3args(x, &(MKDIR3args){ d, sa });
		break;
	case NFSPROC3_SYMLINK:
		ok = xdr_SYMLINK3args(
			x, &(SYMLINK3args){ d, { sa, { 6, (char *)(uintptr_t) "target" } } });
		break;
	case NFSPROC3_MKNOD:
		ok = xdr_MKNOD3args(x,
		                    &(MKNOD3args){ d, { NF3CHR, { .device = { sa, { 1, 2 } } } } });
		break;
	case NFSPROC3_RENAME:
		ok = xdr_RENAME3args(x, &(RENAME3args){ d, d2 });
		break;
	case NFSPROC3_LINK:
		ok = xdr_LINK3args(x, &(LINK3args){ h, d });
		break;
	case NFSPROC3_READDIR:
		ok = xdr_READDIR3args(x, &(READDIR3args){ .dir = h, .count = 1000 });
		break;
	case NFSPROC3_READDIRPLUS:
		ok = xdr_READDIRPLUS3args(
			x, &(READDIRPLUS3args){ .dir = h, .dircount = 9, .maxcount = 999 });
		break;
	case NFSPROC3_COMMIT:
		ok = xdr_COMMIT3args(x, &(COMMIT3args){ h, 1, 2 });
		break;
	default: /* a handle alone */
		ok = xdr_nfs_fh3(x, &h);
	}
	cr_assert(ok);
	return xdr_getpos(x);
}

Test(nfs3, arguments_cut_anywhere_are_garbage)
{
	for (uint32_t proc = 1; proc < NFSPROC3_COUNT; proc++) {
		size_t whole = sample(proc);

		/* The padding behind a payload is nobody's loss. */
		for (size_t n = 0; n < whole - (proc == NFSPROC3_WRITE ? 3 : 0); n++)
			cr_assert_eq(go(NFS3_PROGRAM, proc, n), GARBAGE_ARGS,
			             "procedure %u cut to %zu", proc, n);
		cr_assert_eq(go(NFS3_PROGRAM, proc, whole), SUCCESS, "procedure %u", proc);
	}
	cr_assert_eq(getattr(&root, NULL), NFS3_OK);
}

Test(nfs3, mount_arguments_cut_anywhere_are_garbage)
{
	mntpath3 p = { 7, (char *)(uintptr_t) "/a/b/cd" };

	for (size_t n = 0; n < 12; n++) {
		cr_assert(xdr_mntpath3(args(), &p));
		cr_assert_eq(go(MOUNT3_PROGRAM, MOUNTPROC3_MNT, n), GARBAGE_ARGS);
		cr_assert_eq(go(MOUNT3_PROGRAM, MOUNTPROC3_UMNT, n), GARBAGE_ARGS);
	}
}

Test(nfs3, lengths_and_kinds_out_of_range_are_garbage)
{
	/* For each procedure, every word in turn becomes 0xffffffff: whatever it says, there is an
	 * answer. */
	for (uint32_t proc = 1; proc < NFSPROC3_COUNT; proc++) {
		size_t whole = sample(proc);

		for (size_t at_word = 0; at_word < whole; at_word += 4) {
			int stat;

			sample(proc);
			memset(out + ARGS_AT + at_word, 0xff, 4);
			stat = go(NFS3_PROGRAM, proc, whole);
			cr_assert(stat == SUCCESS || stat == GARBAGE_ARGS,
			          "procedure %u word %zu: %d", proc, at_word / 4, stat);
			if (at_word == 0)
				cr_assert_eq(stat, GARBAGE_ARGS, "a handle of 4 GiB");
		}
	}
	cr_assert_eq(getattr(&root, NULL), NFS3_OK);
}

Test(nfs3, unknown_kinds_of_stability_and_creation_are_garbage)
{
	WRITE3head w = { wire(&root), 0, 0, (stable_how)3 };
	CREATE3args c = { at(&root, "x"), { .mode = GUARDED } };
	uint32_t none = 0;

	cr_assert(xdr_WRITE3head(args(), &w) && xdr_u_int32_t(&enc, &none));
	cr_assert_eq(go(NFS3_PROGRAM, NFSPROC3_WRITE, xdr_getpos(&enc)), GARBAGE_ARGS);
	cr_assert(xdr_CREATE3args(args(), &c));
	out[ARGS_AT + 36 + 8 + 3] = 7;
	cr_assert_eq(go(NFS3_PROGRAM, NFSPROC3_CREATE, xdr_getpos(&enc)), GARBAGE_ARGS);
	cr_assert_eq(go(NFS3_PROGRAM, 22, 0), PROC_UNAVAIL);
}

/* Announce a WRITE of @len bytes at 0 on the present connection, but send only @now of them. */
static void write_stalled(const H *h, uint32_t len, uint32_t now)
{
	uint8_t begun[200], *p = begun;

	put32(&p, 0x80000000 | (24 + 28 + 8 + 36 + 20 + len));
	put32(&p, ++xid);
	put32(&p, CALL);
	put32(&p, 2);
	put32(&p, NFS3_PROGRAM);
	put32(&p, 3);
	put32(&p, NFSPROC3_WRITE);
	put32(&p, AUTH_SYS);
	put32(&p, 20);
	for (int i = 0; i < 7; i++)
		put32(&p, 0);
	put32(&p, FH_SIZE);
	memcpy(p, h->b, FH_SIZE);
	p += FH_SIZE;
	put32(&p, 0);
	put32(&p, 0);
	put32(&p, len);
	put32(&p, FILE_SYNC);
	put32(&p, len);
	memset(out, 'A', len);
	die_unless(write(sock, begun, (size_t)(p - begun)) == p - begun, "write");
	die_unless(write(sock, out, now) == (ssize_t)now, "write");
}

Test(nfs3, a_peer_that_dies_inside_a_write_leaves_nothing)
{
	char buf[8];
	uint32_t got;
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	for (unsigned round = 0; round < 5; round++) {
		write_stalled(&h, 65536, 1000 * round);
		close(sock);
		dial(&where);
	}
	cr_assert_eq(read_at(&h, 0, 8, buf, &got), NFS3_OK);
	cr_assert_eq(got, 0);
}

/* Two writes fill one new block: the second waits for the first, whether that succeeds or dies. */
static void share_a_block(bool first_dies)
{
	WRITE3head q;
	uint32_t n = 1, got, first_xid;
	char *p = (char *)(uintptr_t) "B", back[64];
	int first = sock;
	fattr3 a;
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	write_stalled(&h, 1000, 500);
	first_xid = xid;
	dial(&where);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert_eq(a.size, 0, "others see nothing of it");
	q = (WRITE3head){ wire(&h), 2000, 1, FILE_SYNC };
	cr_assert(xdr_WRITE3head(args(), &q) && xdr_bytes(&enc, &p, &n, n));
	post(NFS3_PROGRAM, NFSPROC3_WRITE, xdr_getpos(&enc));
	if (!first_dies) {
		int second = sock;
		uint32_t second_xid = xid;

		memset(out, 'A', 500);
		die_unless(write(first, out, 500) == 500, "write");
		sock = first;
		xid = first_xid;
		cr_assert_eq(receive(), SUCCESS);
		sock = second;
		xid = second_xid;
	}
	close(first);
	cr_assert_eq(receive(), SUCCESS);
	cr_assert(xdr_WRITE3res(&res, &written));
	cr_assert_eq(written.status, NFS3_OK);
	cr_assert_eq(read_at(&h, 990, 20, back, &got), NFS3_OK);
	cr_assert_eq(got, 20);
	for (int i = 0; i < 20; i++)
		cr_assert_eq(back[i], i < 10 && !first_dies ? 'A' : 0);
	cr_assert_eq(read_at(&h, 1999, 20, back, &got), NFS3_OK);
	cr_assert(got == 2 && back[0] == 0 && back[1] == 'B');
}

Test(nfs3, a_second_write_to_a_new_block_waits_for_the_first)
{
	share_a_block(false);
}

Test(nfs3, a_second_write_to_a_new_block_survives_the_first)
{
	share_a_block(true);
}
