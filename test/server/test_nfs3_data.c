/* SPDX-License-Identifier: BSD-3-Clause */
/* test_nfs3_data.c - READ, WRITE, COMMIT and READLINK; on slow media every durable answer comes by mail */
#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

#include "test/lib/nfs3fix.h"

TestSuite(nfs3, .init = nfs3fix_start, .fini = nfs3fix_stop, .timeout = 60);
TestSuite(nfs3_msync, .init = nfs3fix_start_msync, .fini = nfs3fix_stop, .timeout = 60);

static void fill(uint8_t *p, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * 1103515245 + 12345;
		p[i] = (uint8_t)(seed >> 16);
	}
}

Test(nfs3, what_is_written_is_read)
{
	static const struct {
		uint64_t off;
		uint32_t len;
	} at_[] = { { 0, 1 },          { 1, 4096 },         { 4095, 2 }, { 100000, 1 << 20 },
		    { 123457, 77777 }, { 1ull << 40, 4097 } };
	static uint8_t data[1 << 20], back[1 << 20];
	uint32_t got;
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	for (size_t i = 0; i < sizeof(at_) / sizeof(at_[0]); i++) {
		fill(data, at_[i].len, (unsigned)i);
		cr_assert_eq(write_at(&h, at_[i].off, data, at_[i].len, (stable_how)(i % 3)),
		             NFS3_OK);
		cr_assert_eq(written.WRITE3res_u.resok.count, at_[i].len);
		cr_assert_geq(written.WRITE3res_u.resok.committed, i % 3);
		cr_assert(written.WRITE3res_u.resok.file_wcc.before.attributes_follow);
		cr_assert(written.WRITE3res_u.resok.file_wcc.after.attributes_follow);
		cr_assert_eq(read_at(&h, at_[i].off, at_[i].len, back, &got), NFS3_OK);
		cr_assert_eq(got, at_[i].len);
		cr_assert_arr_eq(back, data, got);
	}
	cr_assert(read_head.READ3head_u.resok.eof);
	cr_assert_eq(read_at(&h, 1 << 22, 4096, back, &got), NFS3_OK);
	for (uint32_t i = 0; i < got; i++)
		cr_assert_eq(back[i], 0, "a hole");
	cr_assert_eq(got, 4096);
	cr_assert_not(read_head.READ3head_u.resok.eof);
}

Test(nfs3, reads_at_and_behind_the_end)
{
	char buf[16];
	uint32_t got;
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(read_at(&h, 0, 16, buf, &got), NFS3_OK);
	cr_assert(got == 0 && read_head.READ3head_u.resok.eof);
	cr_assert_eq(write_at(&h, 0, "0123456789", 10, FILE_SYNC), NFS3_OK);
	cr_assert_eq(read_at(&h, 4, 16, buf, &got), NFS3_OK);
	cr_assert(got == 6 && read_head.READ3head_u.resok.eof && memcmp(buf, "456789", 6) == 0);
	cr_assert_eq(read_at(&h, 4, 6, buf, &got), NFS3_OK);
	cr_assert(got == 6 && read_head.READ3head_u.resok.eof);
	cr_assert_eq(read_at(&h, 4, 5, buf, &got), NFS3_OK);
	cr_assert(got == 5 && !read_head.READ3head_u.resok.eof);
	cr_assert_eq(read_at(&h, 4, 0, buf, &got), NFS3_OK);
	cr_assert_eq(got, 0);
	cr_assert_eq(read_at(&h, 10, 1, buf, &got), NFS3_OK);
	cr_assert(got == 0 && read_head.READ3head_u.resok.eof);
	cr_assert_eq(read_at(&h, UINT64_MAX, 16, buf, &got), NFS3_OK);
	cr_assert(got == 0 && read_head.READ3head_u.resok.eof);
}

Test(nfs3, writes_near_the_end_of_numbers_are_too_big)
{
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(write_at(&h, UINT64_MAX, "abcd", 4, FILE_SYNC), NFS3ERR_FBIG);
	cr_assert_eq(write_at(&h, UINT64_MAX - 3, "abcd", 4, FILE_SYNC), NFS3ERR_FBIG);
	cr_assert_eq(write_at(&h, PM_FILE_MAX - 3, "abcd", 4, FILE_SYNC), NFS3ERR_FBIG);
	cr_assert_eq(write_at(&h, PM_FILE_MAX - 4, "abcd", 4, FILE_SYNC), NFS3_OK);
	cr_assert_eq(commit(&h, UINT64_MAX, 2), NFS3ERR_INVAL);
	cr_assert_eq(commit(&h, 0, 0), NFS3_OK);
}

Test(nfs3, a_write_of_nothing_changes_nothing)
{
	fattr3 a, b;
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(getattr(&h, &a), NFS3_OK);
	cr_assert_eq(write_at(&h, 100, "", 0, FILE_SYNC), NFS3_OK);
	cr_assert_eq(written.WRITE3res_u.resok.count, 0);
	cr_assert_eq(getattr(&h, &b), NFS3_OK);
	cr_assert_eq(memcmp(&a, &b, sizeof(a)), 0);
}

Test(nfs3, count_and_data_of_a_write_must_agree)
{
	char buf[8];
	uint32_t got;
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(write_n(&h, 0, "abcd", 4, FILE_SYNC, 5), NFS3ERR_INVAL);
	cr_assert_eq(write_n(&h, 0, "abcd", 4, FILE_SYNC, 3), NFS3ERR_INVAL);
	cr_assert_eq(write_n(&h, 0, "abcd", 4, FILE_SYNC, UINT32_MAX), NFS3ERR_INVAL);
	cr_assert_eq(read_at(&h, 0, 8, buf, &got), NFS3_OK);
	cr_assert_eq(got, 0);
}

Test(nfs3, data_calls_want_regular_files)
{
	char buf[8];
	uint32_t got;
	H l, d;

	cr_assert_eq(symlink_to(&root, "l", "x", &l), NFS3_OK);
	cr_assert_eq(lookup(&root, "sub", &d), NFS3_OK);
	cr_assert_eq(read_at(&d, 0, 8, buf, &got), NFS3ERR_ISDIR);
	cr_assert_eq(read_at(&l, 0, 8, buf, &got), NFS3ERR_INVAL);
	cr_assert_eq(write_at(&d, 0, "x", 1, UNSTABLE), NFS3ERR_ISDIR);
	cr_assert_eq(write_at(&l, 0, "x", 1, UNSTABLE), NFS3ERR_INVAL);
	cr_assert_eq(commit(&d, 0, 0), NFS3ERR_ISDIR);
}

Test(nfs3, data_calls_check_permission)
{
	char buf[8];
	uint32_t got;
	H dir, h;

	cr_assert_eq(lookup(&root, "sub", &dir), NFS3_OK);
	be(5, 5);
	cr_assert_eq(create_as(&dir, "f", GUARDED, mode_is(0), &h), NFS3_OK);
	cr_assert_eq(write_at(&h, 0, "x", 1, UNSTABLE), NFS3_OK,
	             "the owner wrote through an open file");
	cr_assert_eq(read_at(&h, 0, 8, buf, &got), NFS3_OK);
	cr_assert_eq(setattr_of(&h, mode_is(0711), NULL), NFS3_OK);
	be(6, 6);
	cr_assert_eq(write_at(&h, 0, "x", 1, UNSTABLE), NFS3ERR_ACCES);
	cr_assert_eq(write_at(&h, 0, "", 0, UNSTABLE), NFS3ERR_ACCES);
	cr_assert_eq(commit(&h, 0, 0), NFS3ERR_ACCES);
	cr_assert_eq(read_at(&h, 0, 8, buf, &got), NFS3_OK, "who may execute may read");
	be(5, 5);
	cr_assert_eq(setattr_of(&h, mode_is(0700), NULL), NFS3_OK);
	be(6, 6);
	cr_assert_eq(read_at(&h, 0, 8, buf, &got), NFS3ERR_ACCES);
}

Test(nfs3, cheap_persistence_answers_file_sync_at_once)
{
	H h;

	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(write_at(&h, 0, "x", 1, UNSTABLE), NFS3_OK);
	cr_assert_eq(written.WRITE3res_u.resok.committed, FILE_SYNC);
}

Test(nfs3, a_configured_server_honors_what_was_asked)
{
	H h;

	srv.conf.stability = STABILITY_HONOR;
	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	cr_assert_eq(write_at(&h, 0, "x", 1, UNSTABLE), NFS3_OK);
	cr_assert_eq(written.WRITE3res_u.resok.committed, UNSTABLE);
	cr_assert_eq(commit(&h, 0, 0), NFS3_OK);
	cr_assert_arr_eq(committed.COMMIT3res_u.resok.verf, written.WRITE3res_u.resok.verf, 8);
	cr_assert_eq(write_at(&h, 0, "x", 1, FILE_SYNC), NFS3_OK);
	cr_assert_eq(written.WRITE3res_u.resok.committed, FILE_SYNC);
}

Test(nfs3, a_full_pool_says_so_and_recovers)
{
	static uint8_t mib[1 << 20];
	char buf[8];
	uint32_t got;
	nfsstat3 stat = NFS3_OK;
	uint64_t off = 0;
	H h, first;

	cr_assert_eq(create(&root, "first", &first), NFS3_OK);
	cr_assert_eq(write_at(&first, 0, "precious", 8, FILE_SYNC), NFS3_OK);
	cr_assert_eq(create(&root, "f", &h), NFS3_OK);
	for (; stat == NFS3_OK && off < 100 << 20; off += sizeof(mib))
		stat = write_at(&h, off, mib, sizeof(mib), UNSTABLE);
	cr_assert_eq(stat, NFS3ERR_NOSPC);
	cr_assert(written.WRITE3res_u.resfail.file_wcc.after.attributes_follow);
	cr_assert_eq(read_at(&first, 0, 8, buf, &got), NFS3_OK);
	cr_assert_arr_eq(buf, "precious", 8);
	cr_assert_eq(remove_name(&root, "f"), NFS3_OK);
	cr_assert_eq(create(&root, "g", &h), NFS3_OK);
	cr_assert_eq(write_at(&h, 0, mib, sizeof(mib), UNSTABLE), NFS3_OK);
}

Test(nfs3, symbolic_links)
{
	char longest[4097], back[4097];
	uint32_t got;
	fattr3 a;
	H l, f;

	cr_assert_eq(symlink_to(&root, "l", "some/where", &l), NFS3_OK);
	cr_assert_eq(readlink_of(&l, back, &got), NFS3_OK);
	cr_assert(got == 10 && memcmp(back, "some/where", 10) == 0);
	cr_assert_eq(getattr(&l, &a), NFS3_OK);
	cr_assert(a.type == NF3LNK && a.size == 10 && a.mode == 0777);
	memset(longest, 't', sizeof(longest));
	longest[4096] = 0;
	cr_assert_eq(symlink_to(&root, "toolong", longest, NULL), NFS3ERR_NAMETOOLONG);
	longest[4095] = 0;
	cr_assert_eq(symlink_to(&root, "long", longest, &l), NFS3_OK);
	cr_assert_eq(readlink_of(&l, back, &got), NFS3_OK);
	cr_assert_eq(got, 4095);
	cr_assert_arr_eq(back, longest, 4095);
	cr_assert_eq(symlink_to(&root, "empty", "", NULL), NFS3ERR_INVAL);
	cr_assert_eq(symlink_to(&root, "l", "again", NULL), NFS3ERR_EXIST);
	cr_assert_eq(create(&root, "f", &f), NFS3_OK);
	cr_assert_eq(readlink_of(&f, back, &got), NFS3ERR_INVAL);
}

Test(nfs3_msync, all_changes_answer_once_they_are_durable)
{
	static uint8_t data[100000], back[100000];
	uint32_t got;
	H d, f, h;

	fill(data, sizeof(data), 9);
	cr_assert_eq(mkdir_mode(&root, "d", 0755, &d), NFS3_OK);
	cr_assert_eq(create(&d, "f", &f), NFS3_OK);
	cr_assert_eq(create_excl(&d, "x", "12345678", NULL), NFS3_OK);
	cr_assert_eq(create_excl(&d, "x", "12345678", NULL), NFS3_OK);
	cr_assert_eq(write_at(&f, 3, data, sizeof(data), UNSTABLE), NFS3_OK);
	cr_assert_eq(written.WRITE3res_u.resok.committed, UNSTABLE);
	cr_assert_eq(commit(&f, 0, 0), NFS3_OK);
	cr_assert_arr_eq(committed.COMMIT3res_u.resok.verf, written.WRITE3res_u.resok.verf, 8);
	cr_assert_eq(write_at(&f, 7, data, sizeof(data), FILE_SYNC), NFS3_OK);
	cr_assert_eq(written.WRITE3res_u.resok.committed, FILE_SYNC);
	cr_assert_eq(read_at(&f, 7, sizeof(data), back, &got), NFS3_OK);
	cr_assert_arr_eq(back, data, sizeof(data));
	cr_assert_eq(setattr_of(&f, mode_is(0600), NULL), NFS3_OK);
	cr_assert_eq(symlink_to(&d, "s", "t", NULL), NFS3_OK);
	cr_assert_eq(mknod_of(&d, "p", NF3FIFO, NULL), NFS3_OK);
	cr_assert_eq(link_name(&f, &d, "l"), NFS3_OK);
	cr_assert_eq(rename_name(&d, "l", &root, "m"), NFS3_OK);
	cr_assert_eq(remove_name(&d, "f"), NFS3_OK);
	cr_assert_eq(lookup(&root, "m", &h), NFS3_OK);
	cr_assert_arr_eq(h.b, f.b, FH_SIZE);
	cr_assert_eq(rmdir_name(&root, "d"), NFS3ERR_NOTEMPTY);
}

Test(nfs3_msync, a_client_that_does_not_wait_harms_nobody)
{
	WRITE3head q;
	H f;

	cr_assert_eq(create(&root, "f", &f), NFS3_OK);
	q = (WRITE3head){ wire(&f), 0, 8, FILE_SYNC };
	for (int i = 0; i < 20; i++) {
		uint32_t n = 8;
		char *p = (char *)(uintptr_t) "eightbyt";
		uint8_t hdr[64], *hp = hdr;
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		q.offset = (uint64_t)i * 100;
		cr_assert(xdr_WRITE3head(args(), &q) && xdr_bytes(&enc, &p, &n, 8));
		put32(&hp, 0x80000000 | (24 + 8 + 20 + 8 + xdr_getpos(&enc)));
		put32(&hp, 1000u + (uint32_t)i);
		put32(&hp, CALL);
		put32(&hp, 2);
		put32(&hp, NFS3_PROGRAM);
		put32(&hp, 3);
		put32(&hp, NFSPROC3_WRITE);
		put32(&hp, AUTH_SYS);
		put32(&hp, 20);
		die_unless(connect(fd, (struct sockaddr *)&where, sizeof(where)) == 0, "connect");
		memset(hp, 0, 28);
		hp += 28;
		die_unless(write(fd, hdr, (size_t)(hp - hdr)) == hp - hdr, "write");
		die_unless(write(fd, out + ARGS_AT, xdr_getpos(&enc)) == (ssize_t)xdr_getpos(&enc),
		           "write");
		close(fd);
	}
	cr_assert_eq(getattr(&f, NULL), NFS3_OK);
	cr_assert_eq(write_at(&f, 0, "12345678", 8, FILE_SYNC), NFS3_OK);
}
