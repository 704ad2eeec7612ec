/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Clients that use layouts as no client should: old keys, keys of others, ranges that are not theirs, ids and handles made
 * up, blocks committed that were never written. Nobody else's bytes change, nobody's old bytes are seen, and the server
 * goes on serving.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stddef.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/lib/onesided.h"

#define BLOCK 4096u
#define MIB   (1u << 20)

static struct daemon d;
static struct berth *b; /* an honest client */

static void start_with(const char *const *set)
{
	daemon_start(&d, &(struct daemon_opts){ .size = 64 << 20, .set = set });
	b = os_session(d.tcp_url);
}

static void start(void)
{
	static const char *const on[] = { "fabric tcp.layouts=on", "fabric shm.layouts=on",
		                          "fabric tcp.layout_recall=0", "fabric tcp.layout_count=8",
		                          "fabric tcp.layout_mib=16",   "fabric shm.layout_count=8",
		                          "fabric shm.layout_mib=16",   NULL };

	start_with(on);
}

/* The server did not crash, and its pool is whole (daemon_remove checks it). */
static void finish(void)
{
	berth_disconnect(b);
	cr_assert_eq(shell("grep -q 'crash' %s", d.log), 1, "the server crashed");
	daemon_remove(&d);
}

static void expect(const struct berth_fh *fh, const uint8_t *want, size_t len)
{
	uint8_t *got = malloc(len);
	struct berth_file *f;

	cr_assert_eq(berth_open_fh(b, fh, &f), 0);
	cr_assert_eq(berth_pread(f, got, len, 0), (ssize_t)len);
	for (size_t i = 0; i < len; i++)
		cr_assert_eq(got[i], want ? want[i] : 0, "byte %zu is %02x", i, got[i]);
	cr_assert_eq(berth_close(f), 0);
	free(got);
}

/* RMA that must not do anything: it fails, or the call behind it does. */
static void refused(struct os *o, enum tp_rma_how how, void *buf, size_t len, uint64_t addr, uint64_t key)
{
	if (!os_rma(o, how, buf, len, addr, key))
		cr_assert_lt(os_null(o), 0);
}

static uint8_t evil[MIB], good[MIB];

static void paint(void)
{
	memset(evil, 0xee, sizeof(evil));
	for (size_t i = 0; i < sizeof(good); i++)
		good[i] = (uint8_t)(i * 13 + (i >> 12));
}

/* --- keys (tcp) --- */

/* Blocks of a layout that is over serve another file; the old key does not reach them. */
static void old_key(void (*end)(struct os *o, struct os_map *m))
{
	struct berth_fh fh, other;
	struct os_map m;
	struct os o;

	paint();
	fh = os_make(b, "f", NULL, 0);
	os_open(&o, &d, "tcp");
	m = os_mapped(&o, &fh, 0, MIB, LAYOUT_RW);
	end(&o, &m);
	other = os_make(b, "other", good, MIB);
	for (unsigned i = 0; i < m.n; i++) {
		if (!o.c)
			os_open(&o, &d, "tcp");
		refused(&o, i % 2 ? TP_RMA_READ : TP_RMA_WRITE, evil, BLOCK, m.ext[i].addr, m.ext[i].key);
		os_close(&o);
	}
	if (o.c)
		os_close(&o);
	expect(&other, good, MIB);
}

static void by_return(struct os *o, struct os_map *m)
{
	cr_assert_eq(os_returned(o, m->id), LAYOUT_OK);
}

static void by_disconnect(struct os *o, struct os_map *m)
{
	(void)m;
	os_close(o);
	while (daemon_counter(&d, "layouts"))
		;
}

static void by_recall(struct os *o, struct os_map *m)
{
	(void)o;
	(void)m;
	cr_assert_eq(berth_unlink(b, NULL, "f"), 0);
	while (daemon_counter(&d, "layouts"))
		;
}

static void by_the_end_of_its_lease(struct os *o, struct os_map *m)
{
	(void)o;
	(void)m;
	while (!daemon_counter(&d, "layouts_expired"))
		;
}

Test(layout_hostile, old_key_after_return, .init = start, .fini = finish)
{
	old_key(by_return);
}

Test(layout_hostile, old_key_after_disconnect, .init = start, .fini = finish)
{
	old_key(by_disconnect);
}

Test(layout_hostile, old_key_after_recall, .init = start, .fini = finish)
{
	old_key(by_recall);
}

Test(layout_hostile, old_key_after_the_lease, .fini = finish)
{
	static const char *const set[] = { "fabric tcp.layouts=on", "fabric tcp.layout_lease=1", NULL };

	start_with(set);
	old_key(by_the_end_of_its_lease);
}

/*
 * Writes that begin before RETURN is heard, and go on behind it: the blocks must not serve another file before they
 * have ended. Whatever the server makes of it, the other file stays whole.
 */
Test(layout_hostile, writes_around_return, .init = start, .fini = finish)
{
	paint();
	for (unsigned round = 0; round < 20; round++) {
		struct tp_rma rma[32];
		struct berth_fh fh, other;
		struct os_asked *asked;
		struct os_map m, none;
		struct os o;

		fh = os_make(b, "f", NULL, 0);
		os_open(&o, &d, "tcp");
		m = os_mapped(&o, &fh, 0, MIB, LAYOUT_RW);
		for (unsigned i = 0; i < 32; i++)
			rma[i] = (struct tp_rma){ .how = TP_RMA_WRITE, .buf = evil, .len = m.ext[0].length,
				                  .addr = m.ext[0].addr, .key = m.ext[0].key, .done = os_ignore };
		for (unsigned i = 0; i < 16; i++)
			tp_client_rma(o.c, &rma[i]);
		os_return_begin(&o, m.id);
		for (unsigned i = 16; i < 32; i++)
			tp_client_rma(o.c, &rma[i]);
		asked = os_map_begin(&o, &fh, 0, BLOCK, LAYOUT_READ);
		os_asked_over(&o, asked);
		cr_assert_eq(berth_unlink(b, NULL, "f"), 0);
		other = os_make(b, "other", good, MIB);
		os_map_end(&o, asked, &none);
		os_close(&o);
		expect(&other, good, MIB);
		cr_assert_eq(berth_unlink(b, NULL, "other"), 0);
	}
}

static void outside(uint64_t (*aim)(const struct os_map *m), bool write)
{
	struct berth_fh before, fh, after;
	struct os_map m;
	struct os o;

	paint();
	before = os_make(b, "before", good, MIB);
	fh = os_make(b, "f", good, MIB);
	after = os_make(b, "after", good, MIB);
	os_open(&o, &d, "tcp");
	m = os_mapped(&o, &fh, 256 << 10, 256 << 10, LAYOUT_RW);
	refused(&o, write ? TP_RMA_WRITE : TP_RMA_READ, evil, 2 * BLOCK, aim(&m), m.ext[0].key);
	os_close(&o);
	expect(&before, good, MIB);
	expect(&fh, good, MIB);
	expect(&after, good, MIB);
}

static uint64_t over_the_end(const struct os_map *m)
{
	return m->ext[0].addr + m->ext[0].length - BLOCK;
}

static uint64_t behind_the_end(const struct os_map *m)
{
	return m->ext[0].addr + m->ext[0].length;
}

static uint64_t before_the_start(const struct os_map *m)
{
	return m->ext[0].addr - 2 * BLOCK;
}

static uint64_t around_zero(const struct os_map *m)
{
	(void)m;
	return UINT64_MAX - BLOCK + 1;
}

Test(layout_hostile, outside_its_range, .init = start, .fini = finish)
{
	outside(over_the_end, true);
	outside(over_the_end, false);
	outside(behind_the_end, true);
	outside(before_the_start, true);
	outside(before_the_start, false);
	outside(around_zero, true);
}

Test(layout_hostile, guessed_keys, .init = start, .fini = finish)
{
	struct berth_fh fh;
	struct os_map m;
	struct os keeper;

	paint();
	fh = os_make(b, "f", good, MIB);
	os_open(&keeper, &d, "tcp");
	m = os_mapped(&keeper, &fh, 0, MIB, LAYOUT_RW);
	for (unsigned i = 0; i < 24; i++) {
		uint64_t key = i < 8 ? i : i < 16 ? m.ext[0].key ^ 1ull << (i * 3) : 0;
		struct os o;

		if (i >= 16)
			cr_assert_eq(getrandom(&key, 8, 0), 8);
		os_open(&o, &d, "tcp");
		refused(&o, TP_RMA_WRITE, evil, BLOCK, 0, key);
		os_close(&o);
	}
	expect(&fh, good, MIB);
	os_close(&keeper);
}

Test(layout_hostile, a_layout_for_reading_does_not_write, .init = start, .fini = finish)
{
	struct berth_fh fh;
	struct os_map m;
	struct os o;

	paint();
	fh = os_make(b, "f", good, MIB);
	os_open(&o, &d, "tcp");
	m = os_mapped(&o, &fh, 0, MIB, LAYOUT_READ);
	refused(&o, TP_RMA_WRITE, evil, BLOCK, m.ext[0].addr, m.ext[0].key);
	os_close(&o);
	expect(&fh, good, MIB);
}

/* --- another user of this machine (shm) --- */

/* The endpoint's socket has an abstract name: no permissions of a file keep anybody from connecting to it. */
static int connect_by_name(const char *part)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	char line[256], *name = NULL;
	FILE *f = fopen("/proc/net/unix", "r");
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	while (f && !name && fgets(line, sizeof(line), f))
		if (strstr(line, part))
			name = strchr(line, '@');
	if (f)
		fclose(f);
	if (!name)
		return -1;
	name[strcspn(name, "\n")] = '\0';
	memcpy(sun.sun_path + 1, name + 1, strlen(name) - 1);
	return connect(fd, (struct sockaddr *)&sun, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))) ? -1 : fd;
}

static void region_of(pid_t pid, char path[320])
{
	char part[32];
	DIR *dir = opendir("/dev/shm");
	struct dirent *e;

	path[0] = '\0';
	snprintf(part, sizeof(part), "-%d-", pid);
	while ((e = readdir(dir)))
		if (!strncmp(e->d_name, "berth-s-", 8) && strstr(e->d_name, part))
			snprintf(path, 320, "/dev/shm/%s", e->d_name);
	closedir(dir);
}

/* What is wrong, or NULL. Runs as somebody else. */
static const char *intrude(pid_t pid, const char *region)
{
	char byte = 'x', buf[64];
	struct iovec mine = { &byte, 1 }, theirs = { &byte, 1 };
	int fd;

	if (open(region, O_RDWR) >= 0 || open(region, O_RDONLY) >= 0)
		return "the region can be opened";
	if (process_vm_writev(pid, &mine, 1, &theirs, 1, 0) != -1 || errno != EPERM)
		return "the kernel lets it write into the server";
	if (open(d.pool, O_RDWR) >= 0)
		return "the pool can be opened";
	fd = connect_by_name(d.shm);
	if (fd < 0)
		return "there is no socket to try";
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ .tv_sec = 10 }, sizeof(struct timeval));
	if (recv(fd, buf, sizeof(buf), 0)) /* hung up at once, before a word was said */
		return "the socket waits for what it has to say";
	return NULL;
}

Test(layout_hostile, shm_is_for_one_user, .init = start, .fini = finish)
{
	pid_t server = daemon_server_pid(&d), pid;
	char region[320];
	struct stat st;
	int status;

	region_of(server, region);
	cr_assert_eq(stat(region, &st), 0, "%s", region);
	cr_assert_eq(st.st_mode & 077, 0, "mode %o", st.st_mode & 0777);
	cr_assert_eq(st.st_uid, geteuid());
	if (geteuid()) /* only root can be somebody else */
		return;
	pid = fork();
	if (!pid) {
		const char *bad = setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534) ? "setresuid" :
		                                                                             intrude(server, region);

		if (bad)
			fprintf(stderr, "%s\n", bad);
		_exit(bad != NULL);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0, "another user gets in");
}

/* --- old bytes (I1) --- */

/* Fill the free space with a secret, free it, and look for it through a layout that nobody writes to. */
static void old_bytes(const char *provider)
{
	static uint8_t secret[MIB], got[MIB];
	struct berth_fh fh;
	struct os_commit c;
	struct os_map m;
	char name[32];
	unsigned n = 0;
	struct os o;

	memset(secret, 0x5e, sizeof(secret));
	for (; n < 40; n++) {
		snprintf(name, sizeof(name), "secret%u", n);
		os_make(b, name, secret, MIB);
	}
	while (n--) {
		snprintf(name, sizeof(name), "secret%u", n);
		cr_assert_eq(berth_unlink(b, NULL, name), 0);
	}
	fh = os_make(b, "f", NULL, 0);
	os_open(&o, &d, provider);
	for (unsigned i = 0; i < 12; i++) {
		m = os_mapped(&o, &fh, i * MIB, MIB, LAYOUT_RW);
		cr_assert_eq(os_get(&o, &m, i * MIB, got, MIB), 0);
		for (size_t k = 0; k < MIB; k++)
			cr_assert_eq(got[k], 0, "old bytes in the place of new blocks");
		cr_assert_eq(os_commit(&o, m.id, i * MIB, MIB, &c), 0);
		cr_assert_eq(c.status, LAYOUT_OK);
		cr_assert_eq(os_returned(&o, m.id), LAYOUT_OK);
	}
	expect(&fh, NULL, 12 * MIB);
	os_close(&o);
}

Test(layout_hostile, old_bytes_tcp, .init = start, .fini = finish)
{
	old_bytes("tcp");
}

Test(layout_hostile, old_bytes_shm, .init = start, .fini = finish)
{
	old_bytes("shm");
}

/* What a truncate cut off comes back neither in a layout for reading nor behind an end that moves up. */
Test(layout_hostile, cut_bytes_do_not_come_back, .init = start, .fini = finish)
{
	static uint8_t want[BLOCK], got[BLOCK];
	struct berth_fh fh;
	struct os_commit c;
	struct os_map m;
	struct os o;

	paint();
	fh = os_make(b, "f", good, BLOCK);
	cr_assert_eq(berth_truncate(b, NULL, "f", 100), 0);
	os_open(&o, &d, "tcp");
	m = os_mapped(&o, &fh, 0, BLOCK, LAYOUT_READ);
	cr_assert_eq(m.ext[0].length, 100);
	refused(&o, TP_RMA_READ, got, 200, m.ext[0].addr, m.ext[0].key);
	for (unsigned i = 0; i < 200; i++)
		cr_assert_eq(got[i], 0);
	os_close(&o);
	os_open(&o, &d, "tcp");
	m = os_mapped(&o, &fh, 0, BLOCK, LAYOUT_RW);
	cr_assert_eq(os_commit(&o, m.id, 0, BLOCK, &c), 0);
	memcpy(want, good, 100);
	expect(&fh, want, BLOCK);
	os_close(&o);
}

/* Bytes put behind the end of the file and not committed are gone when the end moves over them. */
Test(layout_hostile, bytes_behind_the_end, .init = start, .fini = finish)
{
	static uint8_t want[BLOCK];
	struct berth_fh fh;
	struct os_map m;
	struct os o;

	paint();
	fh = os_make(b, "f", good, 100);
	os_open(&o, &d, "tcp");
	m = os_mapped(&o, &fh, 0, BLOCK, LAYOUT_RW);
	cr_assert_eq(os_rma(&o, TP_RMA_WRITE, evil, 1000, m.ext[0].addr + 200, m.ext[0].key), 0);
	cr_assert_eq(os_returned(&o, m.id), LAYOUT_OK);
	while (daemon_counter(&d, "layouts"))
		cr_assert_eq(os_null(&o), 0);
	cr_assert_eq(berth_truncate(b, NULL, "f", BLOCK), 0);
	memcpy(want, good, 100);
	expect(&fh, want, BLOCK);
	os_close(&o);
}

/* --- calls --- */

static void made_up_ids(const char *provider)
{
	struct berth_fh fh = os_make(b, "f", NULL, 0);
	struct os_commit c;
	layoutnews news;
	struct os_map m;
	struct os o, o2;

	os_open(&o, &d, provider);
	os_open(&o2, &d, provider);
	m = os_mapped(&o, &fh, 0, BLOCK, LAYOUT_RW);
	for (uint64_t id = 0; id < 20; id++) {
		if (id)
			cr_assert_eq(os_returned(&o2, id), LAYOUTERR_BADLAYOUT);
		cr_assert_eq(os_commit(&o2, id, 0, BLOCK, &c), 0);
		cr_assert_eq(c.status, LAYOUTERR_BADLAYOUT);
	}
	cr_assert_eq(os_renew(&o2, m.id, &news), 0);
	cr_assert_eq(news.status, LAYOUTERR_BADLAYOUT, "another's");
	cr_assert_eq(os_returned(&o2, 0), LAYOUT_OK, "all of none");
	cr_assert_eq(os_commit(&o, m.id, 0, BLOCK, &c), 0);
	cr_assert_eq(c.status, LAYOUT_OK);
	cr_assert_eq(os_returned(&o, m.id), LAYOUT_OK);
	cr_assert_eq(os_returned(&o, m.id), LAYOUTERR_BADLAYOUT, "twice");
	os_close(&o);
	os_close(&o2);
}

Test(layout_hostile, made_up_ids_tcp, .init = start, .fini = finish)
{
	made_up_ids("tcp");
}

Test(layout_hostile, made_up_ids_shm, .init = start, .fini = finish)
{
	made_up_ids("shm");
}

static void forged_handles(const char *provider)
{
	struct berth_fh fh = os_make(b, "f", NULL, 0), bad;
	LAYOUTGETUUIDres dev;
	struct os_map m;
	struct os o;

	os_open(&o, &d, provider);
	for (unsigned bit = 0; bit < fh.len * 8; bit++) {
		bad = fh;
		bad.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		cr_assert_eq(os_map(&o, &bad, 0, BLOCK, 0, LAYOUT_RW, &m), 0);
		cr_assert_eq(m.status, LAYOUTERR_BADHANDLE, "bit %u", bit);
		cr_assert_eq(os_getuuid(&o, &bad, &dev), 0);
		cr_assert_eq(dev.status, LAYOUTERR_BADHANDLE);
	}
	for (bad = fh; bad.len--;) {
		cr_assert_eq(os_map(&o, &bad, 0, BLOCK, 0, LAYOUT_RW, &m), 0);
		cr_assert_eq(m.status, LAYOUTERR_BADHANDLE);
	}
	os_close(&o);
}

Test(layout_hostile, forged_handles_tcp, .init = start, .fini = finish)
{
	forged_handles("tcp");
}

Test(layout_hostile, forged_handles_shm, .init = start, .fini = finish)
{
	forged_handles("shm");
}

Test(layout_hostile, arguments_out_of_range, .init = start, .fini = finish)
{
	static const struct {
		uint64_t off, len;
	} bad[] = { { 0, 0 }, { 4 * BLOCK, 1 }, { 0, 4 * BLOCK + 1 }, { UINT64_MAX, 1 }, { 1, UINT64_MAX },
		    { UINT64_MAX - BLOCK, 2 * BLOCK }, { 4 * BLOCK - 1, 2 } };
	struct berth_fh fh = os_make(b, "f", NULL, 0), root;
	LAYOUTCOMMITargs args = { 0 };
	struct os_commit c;
	layoutrange r;
	struct os_map m, got;
	struct os o;

	os_open(&o, &d, "tcp");
	m = os_mapped(&o, &fh, 0, 4 * BLOCK, LAYOUT_RW);
	args.id = m.id;
	args.ranges.ranges_val = &r;
	args.ranges.ranges_len = 1;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		r = (layoutrange){ bad[i].off, bad[i].len };
		cr_assert_eq(os_commit_args(&o, &args, &c), 0);
		cr_assert_eq(c.status, LAYOUTERR_INVAL, "range %u", i);
	}
	args.ranges.ranges_len = 0;
	args.size.set_it = TRUE;
	args.size.set_size3_u.size = 4 * BLOCK + 1;
	cr_assert_eq(os_commit_args(&o, &args, &c), 0);
	cr_assert_eq(c.status, LAYOUTERR_INVAL);
	cr_assert_eq(os_map(&o, &fh, 0, 0, 0, LAYOUT_RW, &got), 0);
	cr_assert_eq(got.status, LAYOUTERR_INVAL);
	cr_assert_eq(os_map(&o, &fh, 0, 1, 2, LAYOUT_RW, &got), 0);
	cr_assert_eq(got.status, LAYOUTERR_INVAL);
	cr_assert_eq(os_map(&o, &fh, UINT64_MAX, UINT64_MAX, 0, LAYOUT_RW, &got), 0);
	cr_assert_eq(got.status, LAYOUTERR_FBIG);
	berth_root(b, &root);
	cr_assert_eq(os_map(&o, &root, 0, 1, 0, LAYOUT_RW, &got), 0);
	cr_assert_eq(got.status, LAYOUTERR_ISDIR);
	expect(&fh, NULL, 0);
	os_close(&o);
}

/* A layout for reading commits nothing. */
Test(layout_hostile, commit_of_a_layout_for_reading, .init = start, .fini = finish)
{
	struct berth_fh fh;
	struct os_commit c;
	struct os_map m;
	struct os o;

	paint();
	fh = os_make(b, "f", good, BLOCK);
	os_open(&o, &d, "tcp");
	m = os_mapped(&o, &fh, 0, BLOCK, LAYOUT_READ);
	cr_assert_eq(os_commit(&o, m.id, 0, BLOCK, &c), 0);
	cr_assert_eq(c.status, LAYOUTERR_INVAL);
	os_close(&o);
}

static void limits(const char *provider)
{
	struct berth_fh fh = os_make(b, "f", NULL, 0);
	struct os_map m, big;
	struct os o;

	os_open(&o, &d, provider);
	for (unsigned i = 0; i < 8; i++)
		m = os_mapped(&o, &fh, i * BLOCK, BLOCK, LAYOUT_RW);
	cr_assert_eq(os_map(&o, &fh, 0, BLOCK, 0, LAYOUT_RW, &big), 0);
	cr_assert_eq(big.status, LAYOUTERR_TOOMANY);
	cr_assert_eq(os_returned(&o, m.id), LAYOUT_OK);
	do /* its bytes count until the keys are dead */
		cr_assert_eq(os_map(&o, &fh, MIB, 12 * MIB, 0, LAYOUT_RW, &big), 0);
	while (big.status == LAYOUTERR_TOOMANY);
	cr_assert_eq(big.status, LAYOUT_OK);
	cr_assert_eq(os_returned(&o, big.id - 1), LAYOUTERR_BADLAYOUT);
	cr_assert_eq(os_returned(&o, 1), LAYOUT_OK);
	do
		cr_assert_eq(os_map(&o, &fh, 32 * MIB, 4 * MIB, 0, LAYOUT_RW, &m), 0);
	while (m.status == LAYOUTERR_TOOMANY && daemon_counter(&d, "layouts") > 7);
	cr_assert_eq(m.status, LAYOUTERR_TOOMANY, "16 MiB are the most");
	os_close(&o);
}

Test(layout_hostile, limits_tcp, .init = start, .fini = finish)
{
	limits("tcp");
}

Test(layout_hostile, limits_shm, .init = start, .fini = finish)
{
	limits("shm");
}

/* Who may not read or write gets no layout, by AUTH_SYS as ever. */
Test(layout_hostile, permissions_are_asked, .init = start, .fini = finish)
{
	struct berth_fh fh = os_make(b, "f", NULL, 0);
	struct berth_set set = { .set = BERTH_SET_MODE, .mode = 0640 };
	struct os_map m;
	struct os o;

	cr_assert_eq(berth_setattr(b, NULL, "f", 0, &set), 0);
	os_open(&o, &d, "tcp");
	o.cred.uid = o.cred.gid = 1000;
	cr_assert_eq(os_map(&o, &fh, 0, BLOCK, 0, LAYOUT_READ, &m), 0);
	cr_assert_eq(m.status, LAYOUTERR_ACCES);
	cr_assert_eq(os_map(&o, &fh, 0, BLOCK, 0, LAYOUT_RW, &m), 0);
	cr_assert_eq(m.status, LAYOUTERR_ACCES);
	os_close(&o);
}

TestSuite(layout_hostile, .timeout = 120);
