/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Layouts against a real berthd: what a client maps, writes by itself and commits is in the file, durably, and nothing
 * else is; leases end, recalls are told, and the server's death in the middle loses only what was not committed.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/lib/onesided.h"

#define BLOCK 4096u
#define MIB   (1u << 20)

static const struct daemon_opts no_opts;
static struct daemon d;
static struct berth *b; /* NFS beside it, over fabric tcp */

static void start_with(struct daemon_opts opts, const char *const *set)
{
	opts.set = set ? set : os_layouts_on;
	daemon_start(&d, &opts);
	b = os_session(d.tcp_url);
}

static void start(void)
{
	start_with(no_opts, NULL);
}

static void finish(void)
{
	if (b)
		berth_disconnect(b);
	daemon_remove(&d);
}

static void nfs_write(const struct berth_fh *fh, uint64_t off, const void *buf, size_t len)
{
	struct berth_file *f;

	cr_assert_eq(berth_open_fh(b, fh, &f), 0);
	cr_assert_eq(berth_pwrite(f, buf, len, off, BERTH_FILE_SYNC), (ssize_t)len);
	cr_assert_eq(berth_close(f), 0);
}

/* The file has exactly @len bytes from @off to its end. */
static void nfs_expect(const struct berth_fh *fh, uint64_t off, const void *want, size_t len)
{
	uint8_t *got = malloc(len + 1);
	struct berth_file *f;

	cr_assert_eq(berth_open_fh(b, fh, &f), 0);
	cr_assert_eq(berth_pread(f, got, len + 1, off), (ssize_t)len);
	for (size_t i = 0; i < len; i++)
		cr_assert_eq(got[i], ((const uint8_t *)want)[i], "byte %zu of %zu", i, len);
	cr_assert_eq(berth_close(f), 0);
	free(got);
}

static void fill(uint8_t *buf, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(1 + (i * 31 + seed * 17 + (i >> 12)) % 255);
}

static struct os_commit committed(struct os *o, uint64_t id, uint64_t off, uint64_t len)
{
	struct os_commit c;

	cr_assert_eq(os_commit(o, id, off, len, &c), 0);
	cr_assert_eq(c.status, LAYOUT_OK);
	return c;
}

/* Until it is told. */
static void recalled(struct os *o, uint64_t id)
{
	layoutstat stat;

	do
		stat = os_news(o, id);
	while (stat == LAYOUT_OK);
	cr_assert_eq(stat, LAYOUTERR_RECALLED);
}

/* --- map, write, commit, read --- */

static void write_and_read(const char *provider)
{
	static uint8_t data[3 * MIB + 777], back[3 * MIB + 777];
	struct berth_fh fh = os_make(b, "f", NULL, 0);
	struct os o;
	struct os_map m;
	struct os_commit c;

	os_open(&o, &d, provider);
	fill(data, sizeof(data), 1);
	m = os_mapped(&o, &fh, 0, sizeof(data), LAYOUT_RW);
	for (unsigned i = 0; i < m.n; i++)
		cr_assert_eq(m.ext[i].state, LAYOUT_UNWRITTEN);
	cr_assert_eq(os_put(&o, &m, 0, data, sizeof(data)), 0);
	nfs_expect(&fh, 0, "", 0); /* not before COMMIT */
	c = committed(&o, m.id, 0, sizeof(data));
	cr_assert_eq(c.size, sizeof(data));
	cr_assert_eq(c.committed, FILE_SYNC);
	nfs_expect(&fh, 0, data, sizeof(data));
	cr_assert_eq(os_returned(&o, m.id), LAYOUT_OK);
	m = os_mapped(&o, &fh, 0, sizeof(data), LAYOUT_READ);
	cr_assert_eq(m.len, sizeof(data), "a layout for reading ends with the file");
	cr_assert_eq(m.ext[0].state, LAYOUT_VALID);
	cr_assert_eq(os_get(&o, &m, 0, back, sizeof(back)), 0);
	cr_assert_eq(memcmp(data, back, sizeof(data)), 0);
	os_close(&o);
}

Test(layout, write_and_read_tcp, .init = start, .fini = finish)
{
	write_and_read("tcp");
}

Test(layout, write_and_read_shm, .init = start, .fini = finish)
{
	write_and_read("shm");
}

/* What was not committed reads as zeros, and is free again when the layout ends. */
static void only_what_is_committed(const char *provider)
{
	static uint8_t data[16 * BLOCK], want[16 * BLOCK];
	struct berth_fh fh = os_make(b, "f", NULL, 0);
	struct berth_statfs before, after;
	struct os o;
	struct os_map m;

	cr_assert_eq(berth_statfs(b, NULL, "", &before), 0);
	os_open(&o, &d, provider);
	fill(data, sizeof(data), 2);
	m = os_mapped(&o, &fh, 0, sizeof(data), LAYOUT_RW);
	cr_assert_eq(os_put(&o, &m, 0, data, sizeof(data)), 0);
	committed(&o, m.id, 8 * BLOCK + 100, 200);
	committed(&o, m.id, 2 * BLOCK, BLOCK);
	memcpy(want + 2 * BLOCK, data + 2 * BLOCK, BLOCK);
	memcpy(want + 8 * BLOCK, data + 8 * BLOCK, 300); /* whole blocks are committed, the size ends them */
	nfs_expect(&fh, 0, want, 8 * BLOCK + 300);
	cr_assert_eq(os_returned(&o, m.id), LAYOUT_OK);
	nfs_expect(&fh, 0, want, 8 * BLOCK + 300);
	os_close(&o);
	do
		cr_assert_eq(berth_statfs(b, NULL, "", &after), 0);
	while (after.free_bytes + 3 * BLOCK < before.free_bytes);
	cr_assert_eq(daemon_counter(&d, "layouts"), 0);
}

Test(layout, only_what_is_committed_tcp, .init = start, .fini = finish)
{
	only_what_is_committed("tcp");
}

Test(layout, only_what_is_committed_shm, .init = start, .fini = finish)
{
	only_what_is_committed("shm");
}

Test(layout, several_ranges_size_and_time_in_one_commit, .init = start, .fini = finish)
{
	static uint8_t data[64 * BLOCK], want[64 * BLOCK];
	layoutrange r[3] = { { BLOCK, 10 }, { 40 * BLOCK, BLOCK }, { 7 * BLOCK - 5, 10 } };
	LAYOUTCOMMITargs args = { .ranges = { .ranges_len = 3, .ranges_val = r },
		                  .size = { .set_it = TRUE, .set_size3_u.size = 50 * BLOCK + 1 },
		                  .mtime = { .set_it = SET_TO_CLIENT_TIME,
		                             .set_mtime_u.mtime = { .seconds = 12345, .nseconds = 678 } } };
	struct berth_fh fh = os_make(b, "f", NULL, 0);
	struct berth_attr attr;
	struct os_commit c;
	struct os_map m;
	struct os o;

	os_open(&o, &d, "tcp");
	fill(data, sizeof(data), 3);
	m = os_mapped(&o, &fh, 0, sizeof(data), LAYOUT_RW);
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(os_put(&o, &m, r[i].offset, data + r[i].offset, r[i].length), 0);
		memcpy(want + r[i].offset, data + r[i].offset, r[i].length);
	}
	args.id = m.id;
	cr_assert_eq(os_commit_args(&o, &args, &c), 0);
	cr_assert_eq(c.status, LAYOUT_OK);
	cr_assert_eq(c.size, 50 * BLOCK + 1);
	nfs_expect(&fh, 0, want, 50 * BLOCK + 1);
	cr_assert_eq(berth_stat(b, NULL, "f", 0, &attr), 0);
	cr_assert(attr.mtime.tv_sec == 12345 && attr.mtime.tv_nsec == 678);
	os_close(&o);
}

Test(layout, overwrites_in_place_without_commit, .init = start, .fini = finish)
{
	static uint8_t data[8 * BLOCK];
	struct berth_fh fh = os_make(b, "f", NULL, 0);
	struct os_map m;
	struct os o;

	fill(data, sizeof(data), 4);
	nfs_write(&fh, 0, data, sizeof(data));
	os_open(&o, &d, "tcp");
	m = os_mapped(&o, &fh, 0, sizeof(data), LAYOUT_RW);
	cr_assert_eq(m.ext[0].state, LAYOUT_VALID);
	cr_assert_eq(m.method, LAYOUT_COMMIT_COMPLETE);
	fill(data + 100, 5000, 5);
	cr_assert_eq(os_rma(&o, TP_RMA_WRITE_COMMIT, data + 100, 5000, m.ext[0].addr + 100, m.ext[0].key), 0);
	nfs_expect(&fh, 0, data, sizeof(data));
	os_close(&o);
}

/* WRITE and layouts share blocks: nobody's bytes are zeroed. */
Test(layout, nfs_writes_beside_it, .init = start, .fini = finish)
{
	static uint8_t data[4 * BLOCK], want[4 * BLOCK];
	struct berth_fh fh = os_make(b, "f", NULL, 0);
	layoutnews news;
	struct os_map m;
	struct os o;

	os_open(&o, &d, "tcp");
	fill(data, sizeof(data), 6);
	m = os_mapped(&o, &fh, 0, sizeof(data), LAYOUT_RW);
	cr_assert_eq(os_put(&o, &m, 100, data + 100, 100), 0);
	nfs_write(&fh, 1000, data + 1000, 100); /* the same block */
	cr_assert_eq(os_renew(&o, m.id, &news), 0);
	cr_assert(news.status == LAYOUT_OK && news.generation != m.generation, "the change is told");
	committed(&o, m.id, 100, 100);
	nfs_write(&fh, BLOCK, data + BLOCK, BLOCK); /* a whole one */
	cr_assert_eq(os_put(&o, &m, 2 * BLOCK, data + 2 * BLOCK, 2 * BLOCK), 0);
	committed(&o, m.id, 2 * BLOCK, 2 * BLOCK);
	memcpy(want + 100, data + 100, 100);
	memcpy(want + 1000, data + 1000, 100);
	memcpy(want + BLOCK, data + BLOCK, 3 * BLOCK);
	nfs_expect(&fh, 0, want, sizeof(want));
	os_close(&o);
}

Test(layout, holes_for_reading_have_no_address, .init = start, .fini = finish)
{
	static uint8_t data[BLOCK];
	struct berth_fh fh = os_make(b, "f", NULL, 0);
	struct os_map m;
	struct os o;

	fill(data, sizeof(data), 7);
	nfs_write(&fh, 10 * BLOCK, data, 100);
	os_open(&o, &d, "tcp");
	m = os_mapped(&o, &fh, 0, MIB, LAYOUT_READ);
	cr_assert_eq(m.n, 2);
	cr_assert(m.ext[0].state == LAYOUT_HOLE && !m.ext[0].key && !m.ext[0].addr);
	cr_assert(m.ext[1].state == LAYOUT_VALID && m.ext[1].length == 100);
	cr_assert_eq(os_map(&o, &fh, MIB, BLOCK, 0, LAYOUT_READ, &m), 0);
	cr_assert_eq(m.status, LAYOUTERR_INVAL);
	os_close(&o);
}

/* msync: nothing the client does is durable by itself. */
Test(layout, ordinary_files_are_synced_at_commit, .fini = finish)
{
	static uint8_t data[300000];
	LAYOUTCOMMITargs args = { .durable = TRUE };
	layoutrange r = { 5, sizeof(data) };
	struct berth_fh fh;
	LAYOUTGETUUIDres dev;
	struct os_commit c;
	struct os_map m;
	uint64_t before;
	struct os o;

	start_with((struct daemon_opts){ .msync = true }, NULL);
	fh = os_make(b, "f", NULL, 0);
	os_open(&o, &d, "tcp");
	cr_assert_eq(os_getuuid(&o, &fh, &dev), 0);
	cr_assert_eq(dev.LAYOUTGETUUIDres_u.device.method, LAYOUT_MSYNC);
	m = os_mapped(&o, &fh, 0, MIB, LAYOUT_RW);
	fill(data, sizeof(data), 8);
	cr_assert_eq(os_put(&o, &m, 5, data, sizeof(data)), 0);
	before = daemon_counter(&d, "msyncs");
	args.id = m.id;
	args.ranges.ranges_len = 1;
	args.ranges.ranges_val = &r;
	cr_assert_eq(os_commit_args(&o, &args, &c), 0);
	cr_assert(c.status == LAYOUT_OK && c.committed == FILE_SYNC);
	cr_assert_gt(daemon_counter(&d, "msyncs"), before);
	os_close(&o);
}

/* "Durable already" counts only from clients that have a way to make it so. */
Test(layout, the_server_flushes_what_its_client_cannot, .init = start, .fini = finish)
{
	static uint8_t data[300000];
	LAYOUTCOMMITargs args = { .durable = TRUE };
	layoutrange r = { 0, sizeof(data) };
	struct berth_fh fh = os_make(b, "f", NULL, 0);
	struct os_commit c;
	struct os_map m;
	uint64_t before;
	struct os o;

	os_open(&o, &d, "shm");
	m = os_mapped(&o, &fh, 0, MIB, LAYOUT_RW);
	cr_assert_eq(m.method, LAYOUT_CLWB);
	fill(data, sizeof(data), 9);
	cr_assert_eq(os_put(&o, &m, 0, data, sizeof(data)), 0);
	before = daemon_counter(&d, "flushed_bytes");
	args.id = m.id;
	args.ranges.ranges_len = 1;
	args.ranges.ranges_val = &r;
	cr_assert_eq(os_commit_args(&o, &args, &c), 0);
	cr_assert(c.status == LAYOUT_OK && c.committed == FILE_SYNC);
	cr_assert_geq(daemon_counter(&d, "flushed_bytes") - before, sizeof(data));
	os_close(&o);
}

/* --- what is not given --- */

static layoutwhy refused(struct os *o, const struct berth_fh *fh, layoutiomode mode)
{
	struct os_map m;

	cr_assert_eq(os_map(o, fh, 0, BLOCK, 0, mode, &m), 0);
	cr_assert_eq(m.status, LAYOUTERR_UNAVAILABLE);
	return m.why;
}

Test(layout, off_unless_asked_for, .fini = finish)
{
	static const char *const nothing[] = { NULL };
	LAYOUTGETUUIDres dev;
	struct berth_fh fh;
	struct os o;

	start_with(no_opts, nothing);
	fh = os_make(b, "f", NULL, 0);
	os_open(&o, &d, "tcp");
	cr_assert_eq(os_getuuid(&o, &fh, &dev), 0);
	cr_assert_eq(dev.LAYOUTGETUUIDres_u.device.why, LAYOUT_WHY_FABRIC);
	cr_assert_eq(refused(&o, &fh, LAYOUT_RW), LAYOUT_WHY_FABRIC);
	os_close(&o);
}

Test(layout, not_for_an_export_without, .fini = finish)
{
	struct berth_fh fh;
	struct os o;

	start_with((struct daemon_opts){ .exports = "/ *(rw,no_root_squash,insecure,no_layouts)\n" }, NULL);
	fh = os_make(b, "f", NULL, 0);
	os_open(&o, &d, "tcp");
	cr_assert_eq(refused(&o, &fh, LAYOUT_READ), LAYOUT_WHY_EXPORT);
	os_close(&o);
}

Test(layout, checksums_allow_reading_only, .fini = finish)
{
	static uint8_t data[BLOCK], back[BLOCK];
	struct berth_fh fh;
	struct os_map m;
	struct os o;

	start_with((struct daemon_opts){ .checksum = true }, NULL);
	fh = os_make(b, "f", NULL, 0);
	fill(data, BLOCK, 9);
	nfs_write(&fh, 0, data, BLOCK);
	os_open(&o, &d, "tcp");
	cr_assert_eq(refused(&o, &fh, LAYOUT_RW), LAYOUT_WHY_CHECKSUM);
	m = os_mapped(&o, &fh, 0, BLOCK, LAYOUT_READ);
	cr_assert_eq(os_get(&o, &m, 0, back, BLOCK), 0);
	cr_assert_eq(memcmp(data, back, BLOCK), 0);
	os_close(&o);
}

/* --- leases and recalls --- */

Test(layout, a_lease_ends, .fini = finish)
{
	static const char *const set[] = { "fabric tcp.layouts=on", "fabric tcp.layout_lease=1", NULL };
	struct berth_fh fh;
	struct os_map m;
	struct os_commit c;
	struct os o;

	start_with(no_opts, set);
	fh = os_make(b, "f", NULL, 0);
	os_open(&o, &d, "tcp");
	m = os_mapped(&o, &fh, 0, BLOCK, LAYOUT_RW);
	cr_assert_eq(m.lease, 1);
	cr_assert_eq(os_news(&o, m.id), LAYOUT_OK);
	while (!daemon_counter(&d, "layouts_expired"))
		;
	cr_assert_eq(os_commit(&o, m.id, 0, BLOCK, &c), 0);
	cr_assert_eq(c.status, LAYOUTERR_BADLAYOUT);
	cr_assert_eq(os_news(&o, m.id), LAYOUTERR_BADLAYOUT);
	os_close(&o);
}

/* What a client that does not answer a recall costs the others: where nobody keeps it out, all of its lease. */
Test(layout, leases_are_short_where_keys_are_not_checked, .fini = finish)
{
	static const char *const set[] = { "fabric tcp.layouts=on", "fabric shm.layouts=on", NULL };
	static const char *const provider[] = { "tcp", "shm" };
	unsigned lease[2];
	struct berth_fh fh;
	struct os o;

	start_with(no_opts, set);
	fh = os_make(b, "f", NULL, 0);
	for (unsigned i = 0; i < 2; i++) {
		LAYOUTGETUUIDres dev;

		os_open(&o, &d, provider[i]);
		cr_assert_eq(os_getuuid(&o, &fh, &dev), 0);
		lease[i] = os_mapped(&o, &fh, 0, BLOCK, LAYOUT_RW).lease;
		cr_assert_eq(dev.LAYOUTGETUUIDres_u.device.lease, lease[i]);
		os_close(&o);
		while (daemon_counter(&d, "layouts"))
			;
	}
	cr_assert_eq(lease[0], 30);
	cr_assert_eq(lease[1], 2);
}

static const char *const hour[] = { "fabric tcp.layouts=on", "fabric tcp.layout_lease=3600", "fabric shm.layouts=on",
	                            "fabric shm.layout_lease=3600", NULL };

/* A client whose connection the server has ended goes on with its RMA until it knows. Only a checked key stops that. */
static void ended_by_the_server(const char *provider, bool keeps)
{
	struct berth_fh fh;
	struct os o;

	start_with(no_opts, hour);
	fh = os_make(b, "f", NULL, 0);
	os_open(&o, &d, provider);
	os_mapped(&o, &fh, 0, 4 * BLOCK, LAYOUT_RW);
	os_spoil(&o);
	if (keeps) {
		cr_assert_eq(daemon_counter(&d, "layouts"), 1);
		cr_assert_eq(daemon_counter(&d, "fresh_blocks"), 4);
	} else {
		while (daemon_counter(&d, "layouts"))
			;
	}
	os_close(&o);
}

Test(layout, ended_by_the_server_tcp, .fini = finish)
{
	ended_by_the_server("tcp", false);
}

Test(layout, ended_by_the_server_shm, .fini = finish)
{
	ended_by_the_server("shm", true);
}

/* And until its lease is over, no longer. */
Test(layout, ended_by_the_server_and_the_lease_is_over, .fini = finish)
{
	static const char *const set[] = { "fabric tcp.layouts=on", "fabric shm.layouts=on", "fabric shm.layout_lease=1", NULL };
	struct berth_fh fh;
	struct os o;

	start_with(no_opts, set);
	fh = os_make(b, "f", NULL, 0);
	os_open(&o, &d, "shm");
	os_mapped(&o, &fh, 0, 4 * BLOCK, LAYOUT_RW);
	os_spoil(&o);
	while (daemon_counter(&d, "layouts"))
		;
	cr_assert_eq(daemon_counter(&d, "fresh_blocks"), 0);
	os_close(&o);
}

/* Who ended it himself begins nothing more. */
Test(layout, ended_by_the_client, .fini = finish)
{
	static const char *const provider[] = { "tcp", "shm" };
	struct berth_fh fh;
	struct os o;

	start_with(no_opts, hour);
	fh = os_make(b, "f", NULL, 0);
	for (unsigned i = 0; i < 2; i++) {
		os_open(&o, &d, provider[i]);
		os_mapped(&o, &fh, 0, 4 * BLOCK, LAYOUT_RW);
		os_close(&o);
		while (daemon_counter(&d, "layouts"))
			;
	}
}

static const char *const patient[] = { "fabric tcp.layouts=on", "fabric shm.layouts=on", "fabric tcp.layout_recall=60000", NULL };

/* Told at RENEW; what has been written is committed still, and RETURN lets the other one in. */
Test(layout, another_client_recalls_it, .fini = finish)
{
	static uint8_t data[BLOCK];
	struct os_asked *asked;
	struct berth_fh fh;
	struct os_map m, m2;
	struct os_commit c;
	layoutnews news;
	struct os o, o2;

	start_with(no_opts, patient);
	fh = os_make(b, "f", NULL, 0);
	os_open(&o, &d, "tcp");
	os_open(&o2, &d, "tcp");
	fill(data, BLOCK, 10);
	nfs_write(&fh, 0, "x", 1);
	m = os_mapped(&o, &fh, 0, 4 * BLOCK, LAYOUT_RW);
	cr_assert_eq(os_put(&o, &m, 0, data, BLOCK), 0);
	asked = os_map_begin(&o2, &fh, 0, BLOCK, LAYOUT_READ);
	do
		cr_assert_eq(os_renew(&o, m.id, &news), 0);
	while (news.status == LAYOUT_OK && !os_asked_over(&o2, asked));
	cr_assert_eq(news.status, LAYOUTERR_RECALLED);
	cr_assert_not(os_asked_over(&o2, asked));
	cr_assert_eq(os_commit(&o, m.id, 0, BLOCK, &c), 0);
	cr_assert(c.status == LAYOUT_OK && c.recalled);
	cr_assert_eq(os_returned(&o, m.id), LAYOUT_OK);
	cr_assert_eq(os_null(&o), 0); /* whatever was under way is over */
	while (!os_asked_over(&o2, asked))
		cr_assert_eq(os_null(&o), 0);
	cr_assert_eq(os_map_end(&o2, asked, &m2), 0);
	cr_assert(m2.status == LAYOUT_OK && m2.ext[0].state == LAYOUT_VALID);
	os_close(&o);
	os_close(&o2);
}

Test(layout, two_readers_do_not_disturb_each_other, .init = start, .fini = finish)
{
	static uint8_t data[BLOCK];
	struct berth_fh fh = os_make(b, "f", NULL, 0);
	struct os_map m, m2;
	struct os o, o2;

	nfs_write(&fh, 0, data, BLOCK);
	os_open(&o, &d, "tcp");
	os_open(&o2, &d, "tcp");
	m = os_mapped(&o, &fh, 0, BLOCK, LAYOUT_READ);
	m2 = os_mapped(&o2, &fh, 0, BLOCK, LAYOUT_READ);
	cr_assert_neq(m.ext[0].key, m2.ext[0].key);
	cr_assert_eq(os_news(&o, m.id), LAYOUT_OK);
	os_close(&o);
	os_close(&o2);
}

Test(layout, truncate_recalls_it, .fini = finish)
{
	static uint8_t data[4 * BLOCK];
	struct berth_fh fh;
	struct os_commit c;
	struct os_map m;
	struct os o;

	start_with(no_opts, patient);
	fh = os_make(b, "f", NULL, 0);
	os_open(&o, &d, "tcp");
	fill(data, sizeof(data), 11);
	m = os_mapped(&o, &fh, 0, sizeof(data), LAYOUT_RW);
	cr_assert_eq(os_put(&o, &m, 0, data, sizeof(data)), 0);
	committed(&o, m.id, 0, sizeof(data));
	cr_assert_eq(berth_truncate(b, NULL, "f", 2 * BLOCK), 0);
	recalled(&o, m.id);
	cr_assert_eq(os_commit(&o, m.id, 3 * BLOCK, BLOCK, &c), 0);
	cr_assert_eq(c.status, LAYOUTERR_RECALLED, "the range is cut off");
	nfs_expect(&fh, 0, data, 2 * BLOCK);
	cr_assert_eq(os_returned(&o, m.id), LAYOUT_OK);
	os_close(&o);
}

/* The blocks of what another file's name has replaced are taken back as those of a removed one. */
static void renamed_over(const char *provider)
{
	static uint8_t data[4 * BLOCK], got[BLOCK];
	struct berth_fh fh, other;
	struct os_commit c;
	struct os_map m;
	struct os o;

	start_with(no_opts, patient);
	fh = os_make(b, "f", NULL, 0);
	other = os_make(b, "g", NULL, 0);
	os_open(&o, &d, provider);
	fill(data, sizeof(data), 15);
	nfs_write(&other, 0, data, sizeof(data));
	m = os_mapped(&o, &fh, 0, sizeof(data), LAYOUT_RW);
	cr_assert_eq(os_news(&o, m.id), LAYOUT_OK, "not before");
	cr_assert_eq(berth_rename(b, NULL, "g", NULL, "f"), 0);
	recalled(&o, m.id);
	memset(got, 0xee, sizeof(got));
	cr_assert_eq(os_put(&o, &m, 0, got, sizeof(got)), 0, "into its own blocks still");
	cr_assert_eq(os_commit(&o, m.id, 0, BLOCK, &c), 0);
	cr_assert_eq(os_returned(&o, m.id), LAYOUT_OK);
	nfs_expect(&other, 0, data, sizeof(data));
	os_close(&o);
	while (daemon_counter(&d, "layouts") || daemon_counter(&d, "pins"))
		;
}

Test(layout, rename_over_recalls_it_tcp, .fini = finish)
{
	renamed_over("tcp");
}

Test(layout, rename_over_recalls_it_shm, .fini = finish)
{
	renamed_over("shm");
}

/* Where keys are not checked a client that renews keeps a recalled layout no longer than its lease. */
Test(layout, renewing_does_not_keep_what_is_recalled, .fini = finish)
{
	static const char *const set[] = { "fabric tcp.layouts=on", "fabric shm.layouts=on", "fabric shm.layout_lease=1",
		                           "fabric shm.layout_recall=60000", NULL };
	struct berth_fh fh;
	layoutnews news;
	struct os_map m;
	struct os o;

	start_with(no_opts, set);
	fh = os_make(b, "f", NULL, 0);
	os_open(&o, &d, "shm");
	m = os_mapped(&o, &fh, 0, BLOCK, LAYOUT_RW);
	cr_assert_eq(berth_unlink(b, NULL, "f"), 0);
	recalled(&o, m.id);
	do
		cr_assert_eq(os_renew(&o, m.id, &news), 0);
	while (news.status == LAYOUTERR_RECALLED);
	cr_assert_eq(news.status, LAYOUTERR_BADLAYOUT);
	while (daemon_counter(&d, "pins"))
		;
	os_close(&o);
}

/* A client that does not return what is asked back loses it, and here its connection. */
Test(layout, who_does_not_return_is_cut_off, .init = start, .fini = finish)
{
	struct berth_fh fh = os_make(b, "f", NULL, 0);
	struct os_map m;
	struct os o;

	os_open(&o, &d, "tcp");
	m = os_mapped(&o, &fh, 0, 4 * BLOCK, LAYOUT_RW);
	(void)m;
	cr_assert_eq(berth_unlink(b, NULL, "f"), 0);
	while (os_up(&o))
		tp_client_wait(o.c, 100);
	cr_assert_eq(daemon_counter(&d, "layouts"), 0);
	cr_assert_eq(daemon_counter(&d, "layouts_revoked"), 1);
	cr_assert_eq(daemon_counter(&d, "pins"), 0);
	os_close(&o);
}

/* --- death --- */

static void client_killed(const char *provider)
{
	static uint8_t data[16 * BLOCK];
	struct berth_fh fh;
	int status;
	pid_t pid;

	start_with(no_opts, hour);
	fh = os_make(b, "f", NULL, 0);
	fill(data, sizeof(data), 12);
	pid = fork();
	if (!pid) {
		struct os_commit c;
		struct os_map m;
		struct os o;

		os_open(&o, &d, provider);
		if (os_map(&o, &fh, 0, sizeof(data), 0, LAYOUT_RW, &m) || os_put(&o, &m, 0, data, sizeof(data)) ||
		    os_commit(&o, m.id, 0, 2 * BLOCK, &c))
			_exit(1);
		kill(getpid(), SIGKILL); /* between write and commit of the rest */
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the client failed");
	while (daemon_counter(&d, "layouts"))
		;
	nfs_expect(&fh, 0, data, 2 * BLOCK);
	cr_assert_eq(daemon_counter(&d, "fresh_blocks"), 0);
}

Test(layout, client_killed_tcp, .fini = finish)
{
	client_killed("tcp");
}

Test(layout, client_killed_shm, .fini = finish)
{
	client_killed("shm");
}

static void server_killed(bool msync)
{
	static uint8_t data[64 * BLOCK], want[64 * BLOCK];
	struct berth_fh fh;
	struct os_map m;
	struct os o;

	start_with((struct daemon_opts){ .msync = msync }, NULL);
	fh = os_make(b, "f", NULL, 0);
	fill(data, sizeof(data), 13);
	os_open(&o, &d, "tcp");
	m = os_mapped(&o, &fh, 0, sizeof(data), LAYOUT_RW);
	cr_assert_eq(os_put(&o, &m, 0, data, sizeof(data)), 0);
	cr_assert_eq(os_null(&o), 0); /* the writes lie behind it: they have arrived */
	for (unsigned i = 0; i < 64; i += 4) {
		committed(&o, m.id, i * BLOCK, BLOCK);
		memcpy(want + i * BLOCK, data + i * BLOCK, BLOCK);
	}
	daemon_kill(&d);
	os_close(&o);
	daemon_launch(&d);
	nfs_expect(&fh, 0, want, 61 * BLOCK);
}

Test(layout, server_killed_between_write_and_commit, .fini = finish)
{
	server_killed(false);
}

Test(layout, server_killed_on_an_ordinary_file, .fini = finish)
{
	server_killed(true);
}

/* Killed at any moment of many commits: what was answered is there, what was not is there as a whole or not at all. */
Test(layout, server_killed_between_commit_and_reply, .fini = finish)
{
	enum { N = 200 };
	static uint8_t data[N * BLOCK], got[N * BLOCK];
	struct berth_file *f;
	struct berth_fh fh;
	ssize_t len;

	start_with((struct daemon_opts){ .no_supervisor = true }, NULL);
	fh = os_make(b, "f", NULL, 0);
	fill(data, sizeof(data), 14);
	for (unsigned round = 0; round < 4; round++) {
		unsigned answered = 0, n = 0;
		struct os_commit c;
		struct os_map m;
		pid_t killer;
		struct os o;

		cr_assert_eq(berth_truncate(b, NULL, "f", 0), 0);
		os_open(&o, &d, "tcp");
		m = os_mapped(&o, &fh, 0, sizeof(data), LAYOUT_RW);
		cr_assert_eq(os_put(&o, &m, 0, data, sizeof(data)), 0);
		cr_assert_eq(os_null(&o), 0);
		killer = fork();
		if (!killer) {
			usleep(200 + 900 * round);
			kill(d.pid, SIGKILL);
			_exit(0);
		}
		/* Two blocks a commit. */
		for (; n < N / 2 && !os_commit(&o, m.id, n * 2 * BLOCK, 2 * BLOCK, &c) && c.status == LAYOUT_OK; n++)
			answered = n + 1;
		cr_assert_eq(waitpid(killer, NULL, 0), killer);
		os_close(&o);
		daemon_kill(&d);
		daemon_launch(&d);
		cr_assert_eq(berth_open_fh(b, &fh, &f), 0);
		len = berth_pread(f, got, sizeof(got), 0);
		cr_assert_eq(berth_close(f), 0);
		cr_assert(len == answered * 2 * BLOCK || len == (answered + 1) * 2 * BLOCK, "%zd bytes, %u answered", len,
		          answered);
		cr_assert_eq(memcmp(got, data, (size_t)len), 0);
	}
}

TestSuite(layout, .timeout = 120);
