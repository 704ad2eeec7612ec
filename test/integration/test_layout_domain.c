/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A domain for each client's layouts (layout_domain = client): whom its keys keep out, where MAP is answered, how many there
 * may be, what a client does about it, and what is left of those that die.
 */
#include <criterion/criterion.h>
#include <dirent.h>
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
#define LEN   (8 * BLOCK)

static const char *const own[] = { "fabric tcp.layouts=on", "fabric tcp.layout_domain=client",
	                           "fabric tcp.layout_domains_client=128", NULL }; /* of those killed some may be there yet */
static const char *const shared[] = { "fabric tcp.layouts=on", "fabric tcp.layout_domain=shared", NULL };
static const char *const only_one[] = { "fabric tcp.layouts=on", "fabric tcp.layout_domain=client",
	                                "fabric tcp.layout_domains_client=1", NULL };

static struct daemon d;
static struct berth *b; /* an honest client */
static uint8_t good[LEN];

static void start_with(const char *const *set)
{
	setenv("FI_PROVIDER", "tcp,shm", 0);
	daemon_start(&d, &(struct daemon_opts){ .size = 64 << 20, .set = set });
	b = os_session(d.tcp_url);
	for (size_t i = 0; i < LEN; i++)
		good[i] = (uint8_t)(i * 13 + (i >> 12));
}

static void start(void)
{
	start_with(own);
}

static void finish(void)
{
	berth_disconnect(b);
	cr_assert_eq(shell("grep -q 'crash' %s", d.log), 1, "the server crashed");
	daemon_remove(&d);
}

/* One of the connections that carry NFS. */
static void open_shared(struct os *o)
{
	char port[16];

	snprintf(port, sizeof(port), "%u", d.fabric_port);
	os_open_at(o, &(struct tp_fabric_opts){ .name = "test", .provider = "tcp", .node = "127.0.0.1", .service = port });
}

static void whole(const struct berth_fh *fh)
{
	static uint8_t got[LEN];
	struct berth_file *f;

	cr_assert_eq(berth_open_fh(b, fh, &f), 0);
	cr_assert_eq(berth_pread(f, got, LEN, 0), (ssize_t)LEN);
	cr_assert_eq(memcmp(got, good, LEN), 0);
	cr_assert_eq(berth_close(f), 0);
}

/* --- keys --- */

static void refused(struct os *o, const struct berth_fh *fh, const struct os_map *m, enum tp_rma_how how)
{
	uint8_t buf[BLOCK], evil[BLOCK];

	memset(buf, 0xee, BLOCK);
	memset(evil, 0xee, BLOCK);
	if (!os_rma(o, how, buf, BLOCK, m->ext[0].addr, m->ext[0].key))
		cr_assert_lt(os_null(o), 0);
	cr_assert_eq(memcmp(buf, evil, BLOCK), 0, "it was read");
	whole(fh);
	os_close(o);
}

Test(layout_domain, a_known_key_is_of_no_use_to_others, .init = start, .fini = finish)
{
	struct berth_fh fh = os_make(b, "f", good, LEN);
	struct os a, o;
	struct os_map m;

	os_open(&a, &d, "tcp");
	m = os_mapped(&a, &fh, 0, LEN, LAYOUT_RW);
	os_open(&o, &d, "tcp");
	refused(&o, &fh, &m, TP_RMA_WRITE);
	os_open(&o, &d, "tcp");
	os_mapped(&o, &fh, 0, LEN, LAYOUT_READ); /* with keys of its own, and the other's recalled */
	refused(&o, &fh, &m, TP_RMA_READ);
	open_shared(&o);
	refused(&o, &fh, &m, TP_RMA_WRITE);
	open_shared(&o);
	refused(&o, &fh, &m, TP_RMA_READ);
	os_close(&a);
}

Test(layout_domain, it_is_good_where_it_belongs, .init = start, .fini = finish)
{
	struct berth_fh fh = os_make(b, "f", good, LEN);
	struct os a, o;
	struct os_map m;

	os_open(&a, &d, "tcp");
	m = os_mapped(&a, &fh, 0, LEN, LAYOUT_RW);
	os_open(&o, &d, "tcp");
	refused(&o, &fh, &m, TP_RMA_WRITE);
	cr_assert_eq(os_rma(&a, TP_RMA_WRITE, good, BLOCK, m.ext[0].addr, m.ext[0].key), 0);
	cr_assert_eq(os_null(&a), 0);
	cr_assert_eq(os_returned(&a, m.id), LAYOUT_OK);
	refused(&a, &fh, &m, TP_RMA_WRITE);
}

/* --- where MAP is answered --- */

static layoutwhy device_why(struct os *o, const struct berth_fh *fh)
{
	LAYOUTGETUUIDres res;

	cr_assert_eq(os_getuuid(o, fh, &res), 0);
	cr_assert_eq(res.status, LAYOUT_OK);
	return res.LAYOUTGETUUIDres_u.device.why;
}

Test(layout_domain, only_on_a_connection_of_their_own, .init = start, .fini = finish)
{
	struct berth_fh fh = os_make(b, "f", good, LEN);
	struct os_map m;
	struct os o;

	open_shared(&o);
	cr_assert_eq(device_why(&o, &fh), LAYOUT_WHY_CONNECTION);
	cr_assert_eq(os_map(&o, &fh, 0, BLOCK, 0, LAYOUT_READ, &m), 0);
	cr_assert(m.status == LAYOUTERR_UNAVAILABLE && m.why == LAYOUT_WHY_CONNECTION);
	os_close(&o);
	os_open(&o, &d, "tcp");
	cr_assert_eq(device_why(&o, &fh), LAYOUT_WHY_NONE);
	cr_assert_eq(daemon_counter(&d, "domains"), 1);
	os_close(&o);
}

/* An answer has room for some ninety extents there. */
Test(layout_domain, a_file_in_many_pieces_takes_several, .init = start, .fini = finish)
{
	struct berth_fh fh = os_make(b, "f", good, BLOCK);
	uint64_t end = 400 * BLOCK, at = 0;
	struct berth_file *f;
	unsigned maps = 0;
	struct os o;

	cr_assert_eq(berth_open_fh(b, &fh, &f), 0);
	for (uint64_t off = 0; off < end; off += 2 * BLOCK)
		cr_assert_eq(berth_pwrite(f, good, BLOCK, off, BERTH_FILE_SYNC), (ssize_t)BLOCK);
	cr_assert_eq(berth_close(f), 0);
	os_open(&o, &d, "tcp");
	for (; at < end - BLOCK; maps++) {
		struct os_map m;

		cr_assert_eq(os_map(&o, &fh, at, end - BLOCK - at, 1, LAYOUT_READ, &m), 0);
		cr_assert(m.status == LAYOUT_OK && m.off <= at && m.off + m.len > at);
		for (unsigned i = 0; i < m.n; i++)
			cr_assert_eq(m.ext[i].state, m.ext[i].offset / BLOCK % 2 ? LAYOUT_HOLE : LAYOUT_VALID);
		at = m.off + m.len;
	}
	cr_assert(maps > 3 && maps < 10, "%u", maps);
	os_close(&o);
}

/* --- what a client does about it --- */

static void put_and_look(struct berth_map *m, struct berth_file *f, int with, bool one_sided)
{
	uint8_t buf[BLOCK], got[BLOCK];
	struct berth_map_info i;

	memset(buf, with, BLOCK);
	do { /* a lost layout is asked for again while puts go by the server */
		cr_assert_eq(berth_put(m, buf, BLOCK, 0, BERTH_DURABLE), 0);
		berth_map_get_info(m, &i);
	} while (one_sided && !i.layouts);
	cr_assert_eq(i.layouts > 0, one_sided, "%s", i.why);
	cr_assert_eq(berth_pread(f, got, BLOCK, 0), (ssize_t)BLOCK);
	cr_assert_eq(memcmp(buf, got, BLOCK), 0);
}

static void restart_with(const char *const *set)
{
	daemon_kill(&d);
	d.opts.set = set;
	daemon_launch(&d);
}

/* Servers that know of no such connection, or want none, are asked on the one that there is; and back. */
Test(layout_domain, a_client_goes_where_the_server_wants_it, .fini = finish)
{
	struct berth_file *f;
	struct berth_map *m;
	struct berth_fh fh;

	start_with(shared);
	fh = os_make(b, "f", good, LEN);
	cr_assert_eq(berth_open_fh(b, &fh, &f), 0);
	cr_assert_eq(berth_map(f, 0, LEN, BERTH_MAP_READ | BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &m), 0);
	put_and_look(m, f, 1, true);
	cr_assert_eq(daemon_counter(&d, "domains"), 0);
	restart_with(own);
	put_and_look(m, f, 2, true);
	cr_assert_eq(daemon_counter(&d, "domains"), 1);
	restart_with(shared);
	put_and_look(m, f, 3, true);
	cr_assert_eq(daemon_counter(&d, "domains"), 0);
	cr_assert_eq(berth_unmap(m), 0);
	cr_assert_eq(berth_close(f), 0);
}

Test(layout_domain, who_gets_none_goes_by_the_server, .fini = finish)
{
	struct berth_map *m, *m2;
	struct berth_map_info i;
	struct berth_file *f, *f2;
	struct berth_fh fh;
	struct berth *b2;

	start_with(only_one);
	b2 = os_session(d.tcp_url);
	fh = os_make(b, "f", good, LEN);
	cr_assert_eq(berth_open_fh(b, &fh, &f), 0);
	cr_assert_eq(berth_open_fh(b2, &fh, &f2), 0);
	cr_assert_eq(berth_map(f, 0, LEN, BERTH_MAP_READ | BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &m), 0);
	cr_assert_eq(berth_map(f2, 0, LEN, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &m2), -ECONNREFUSED);
	cr_assert_eq(berth_map(f2, 0, LEN, BERTH_MAP_READ | BERTH_MAP_WRITE, &m2), 0);
	berth_map_get_info(m2, &i);
	cr_assert(strstr(i.why, "layout_domains"), "%s", i.why);
	put_and_look(m2, f2, 4, false);
	cr_assert_eq(shell("[ $(grep -c 'no domain of its own for .*: it has 1 already' %s) = 1 ]", d.log), 0);
	cr_assert_eq(berth_unmap(m), 0);
	cr_assert_eq(berth_unmap(m2), 0);
	cr_assert_eq(berth_close(f), 0);
	cr_assert_eq(berth_close(f2), 0);
	berth_disconnect(b2);
}

/* --- what is left --- */

static unsigned server_fds(void)
{
	char path[64];
	unsigned n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)daemon_server_pid(&d));
	dir = opendir(path);
	cr_assert_not_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void map_and_die(const struct berth_fh *fh)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		struct os_map m;
		struct os o;

		os_open(&o, &d, "tcp");
		m = os_mapped(&o, fh, 0, LEN, LAYOUT_READ);
		for (unsigned i = 0; i < 4; i++)
			tp_client_rma(o.c, &(struct tp_rma){ .how = TP_RMA_READ, .buf = good, .len = BLOCK,
			                                     .addr = m.ext[0].addr, .key = m.ext[0].key, .done = os_ignore });
		kill(getpid(), SIGKILL);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

Test(layout_domain, of_killed_clients_nothing_is_left, .init = start, .fini = finish, .timeout = 100)
{
	struct berth_fh fh = os_make(b, "f", good, LEN);
	unsigned before = server_fds();

	for (unsigned i = 0; i < 100; i++)
		map_and_die(&fh);
	while (daemon_counter(&d, "domains") || daemon_counter(&d, "layouts"))
		;
	for (unsigned i = 0; i < 1000 && server_fds() != before; i++)
		;
	cr_assert_eq(server_fds(), before);
}
