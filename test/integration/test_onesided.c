/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_onesided.c - mappings of libberth against a real server: what is put is there, durably, by whichever way it
 * went, and whatever becomes of the layout in the middle
 *
 * Every test of a BOTH runs over fabric tcp and over shm.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/berth.h"
#include "client/map.h"
#include "test/lib/onesided.h"

#define KIB 1024u
#define MIB (1u << 20)

struct on { /* one server, one session, one file */
	struct daemon d;
	bool shm;
	struct berth *b;
	struct berth_file *f;
};

#define OK(call)                                                                                   \
	do {                                                                                       \
		int err_ = (int)(call);                                                            \
		cr_assert(err_ >= 0, "%s: %s", #call, strerror(-err_));                            \
	} while (0)
#define FAILS(call, with)                                                                          \
	do {                                                                                       \
		int err_ = (int)(call);                                                            \
		cr_expect_eq(err_, -(with), "%s: %d, not -%s", #call, err_, #with);                \
	} while (0)

static struct berth *session(const struct daemon *d, bool shm)
{
	return os_session(shm ? d->shm_url : d->tcp_url);
}

/* @opts, and a domain for each client. */
static struct daemon_opts own_domains(const struct daemon_opts *opts)
{
	static const char *set[16];
	struct daemon_opts own = *opts;
	size_t n = 0;

	for (const char *const *s = opts->set; s && *s; s++)
		set[n++] = *s;
	set[n++] = "fabric tcp.layout_domain=client";
	set[n] = NULL;
	own.set = set;
	return own;
}

static void begin(struct on *o, bool shm, const struct daemon_opts *opts)
{
	setenv("FI_PROVIDER", "tcp,shm", 0);
	memset(o, 0, sizeof(*o));
	o->shm = shm;
	daemon_start(&o->d, opts);
	o->b = session(&o->d, shm);
	OK(berth_open(o->b, NULL, "f", O_CREAT | O_RDWR, 0644, &o->f));
}

static void end(struct on *o)
{
	OK(berth_close(o->f));
	berth_disconnect(o->b);
	daemon_remove(&o->d);
}

static const char *const layouts_on[] = { "fabric tcp.layouts=on", "fabric shm.layouts=on", NULL }; /* leases as they are */
static const char *const layouts_off[] = { "fabric tcp.layouts=off", "fabric shm.layouts=off", NULL };
/* So that nothing is forgotten between a recall and a look. */
static const char *const slow_recall[] = { "fabric tcp.layouts=on", "fabric shm.layouts=on",
	                                   "fabric tcp.layout_recall=60000", "fabric shm.layout_recall=60000",
	                                   NULL };

#define WITH(suite, name, how)                                                                     \
	static void suite##_##name(struct on *o);                                                  \
	Test(suite, name##_over_tcp)                                                               \
	{                                                                                          \
		struct on o;                                                                       \
		begin(&o, false, &(struct daemon_opts){ .set = how });                             \
		suite##_##name(&o);                                                                \
		end(&o);                                                                           \
	}                                                                                          \
	Test(suite, name##_over_tcp_in_own_domains)                                                \
	{                                                                                          \
		struct daemon_opts own = own_domains(&(struct daemon_opts){ .set = how });         \
		struct on o;                                                                       \
		begin(&o, false, &own);                                                            \
		suite##_##name(&o);                                                                \
		end(&o);                                                                           \
	}                                                                                          \
	Test(suite, name##_over_shm)                                                               \
	{                                                                                          \
		struct on o;                                                                       \
		begin(&o, true, &(struct daemon_opts){ .set = how });                              \
		suite##_##name(&o);                                                                \
		end(&o);                                                                           \
	}                                                                                          \
	static void suite##_##name(struct on *o)
#define BOTH(suite, name) WITH(suite, name, os_layouts_on)

static void fill(uint8_t *buf, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++) {
		seed = seed * 1103515245 + 12345;
		buf[i] = (uint8_t)(seed >> 16);
	}
}

static uint8_t *bytes(size_t len, unsigned seed)
{
	uint8_t *buf = malloc(len);

	cr_assert_not_null(buf);
	fill(buf, len, seed);
	return buf;
}

/* What the file holds, as NFS over a connection of its own says. */
static void holds(struct on *o, uint64_t off, const void *want, size_t len)
{
	struct berth *b = session(&o->d, false);
	uint8_t *got = calloc(1, len);
	struct berth_file *f;

	OK(berth_open(b, NULL, "f", O_RDONLY, 0, &f));
	cr_expect_eq(berth_pread(f, got, len, off), (ssize_t)len);
	for (size_t i = 0; i < len; i++)
		if (got[i] != ((const uint8_t *)want)[i]) {
			cr_expect_fail("byte %llu is %02x, not %02x", (unsigned long long)(off + i), got[i],
			               ((const uint8_t *)want)[i]);
			break;
		}
	OK(berth_close(f));
	berth_disconnect(b);
	free(got);
}

static struct berth_counters counters(struct on *o)
{
	struct berth_counters c;

	berth_get_counters(o->b, &c);
	return c;
}

static void is_one_sided(struct berth_map *m)
{
	struct berth_map_info i;

	berth_map_get_info(m, &i);
	cr_assert_gt(i.layouts, 0, "no layout: %s", i.why);
}

/* --- the plain way --- */

BOTH(onesided, what_is_put_durably_is_in_the_file)
{
	static const size_t size[] = { 1, 7, 64, 4096, 5000, 65536, MIB, 3 * MIB + 17 };
	uint8_t *buf = bytes(4 * MIB, 1), *got = malloc(4 * MIB);
	struct berth_counters before = counters(o), after;
	struct berth_attr a;
	struct berth_map *m;
	uint64_t at = 100;

	OK(berth_map(o->f, 0, 16 * MIB, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &m));
	is_one_sided(m);
	for (size_t i = 0; i < sizeof(size) / sizeof(*size); i++) {
		OK(berth_put(m, buf, size[i], at, BERTH_DURABLE | BERTH_BY_RMA));
		holds(o, at, buf, size[i]);
		OK(berth_get(m, got, size[i], at, BERTH_BY_RMA));
		cr_expect_arr_eq(got, buf, size[i]);
		at += size[i];
	}
	after = counters(o);
	cr_expect_geq(after.rma_writes - before.rma_writes, sizeof(size) / sizeof(*size), "%llu",
	             (unsigned long long)(after.rma_writes - before.rma_writes));
	cr_expect_gt(after.rma_reads, before.rma_reads);
	cr_expect_eq(after.puts_fallen_back, 0);
	OK(berth_fstat(o->f, &a));
	cr_expect_eq(a.size, at, "COMMIT moves the end of the file to what was put");
	OK(berth_unmap(m));
	free(buf);
	free(got);
}

BOTH(onesided, puts_become_durable_by_persist_commit_and_unmap)
{
	uint8_t *buf = bytes(3 * MIB, 2);
	struct berth_map *m;

	OK(berth_map(o->f, 0, 4 * MIB, BERTH_MAP_WRITE, &m));
	OK(berth_put(m, buf, MIB, 0, BERTH_BY_RMA));
	OK(berth_put(m, buf + MIB, 100, MIB, BERTH_BY_RMA));
	OK(berth_persist(m, 0, MIB));
	holds(o, 0, buf, MIB);
	OK(berth_commit(o->f));
	holds(o, 0, buf, MIB + 100);
	OK(berth_put(m, buf + MIB + 100, MIB, MIB + 100, BERTH_BY_RMA | BERTH_COPY));
	OK(berth_unmap(m));
	holds(o, 0, buf, 2 * MIB + 100);
	cr_expect_eq(counters(o).puts_fallen_back, 0);
	cr_expect_eq(counters(o).resent_unstable_bytes, 0);
	free(buf);
}

/* Not committed: a get has it, by whichever way it asks; other readers have zeros or the bytes. */
BOTH(onesided, a_get_sees_what_was_put)
{
	uint8_t *buf = bytes(64 * KIB, 3), *got = malloc(64 * KIB);
	struct berth_map *m;

	OK(berth_map(o->f, 0, MIB, BERTH_MAP_WRITE, &m));
	OK(berth_put(m, buf, 60000, 1000, BERTH_BY_RMA));
	OK(berth_put(m, buf, 500, 2000, BERTH_BY_RMA));
	memcpy(buf + 1000, buf, 500);
	OK(berth_get(m, got, 60000, 1000, 0));
	cr_expect_arr_eq(got, buf, 60000);
	memset(got, 1, 60000);
	OK(berth_get(m, got, 60000, 1000, BERTH_BY_SERVER));
	cr_expect_arr_eq(got, buf, 60000);
	OK(berth_unmap(m));
	holds(o, 1000, buf, 60000);
	free(buf);
	free(got);
}

BOTH(onesided, holes_are_read_without_asking)
{
	uint8_t *got = malloc(MIB), *zeros = calloc(1, MIB);
	struct berth_counters before, after;
	struct berth_map *m;

	OK(berth_pwrite(o->f, "end", 3, 8 * MIB, BERTH_FILE_SYNC));
	OK(berth_map(o->f, 0, 8 * MIB + 3, BERTH_MAP_READ | BERTH_MAP_ONE_SIDED, &m));
	before = counters(o);
	memset(got, 1, MIB);
	OK(berth_get(m, got, MIB, 3 * MIB, 0));
	after = counters(o);
	cr_expect_arr_eq(got, zeros, MIB);
	cr_expect_eq(after.rma_reads, before.rma_reads);
	cr_expect_eq(after.read_bytes, before.read_bytes, "READ was asked");
	OK(berth_get(m, got, 3, 8 * MIB, BERTH_BY_RMA));
	cr_expect_arr_eq(got, "end", 3);
	FAILS(berth_put(m, got, 1, 0, 0), EBADF);
	OK(berth_unmap(m));
	free(got);
	free(zeros);
}

/* Blocks without data inside the file: nothing is durable there before the server knows that they are data. */
BOTH(onesided, durable_into_a_hole)
{
	uint8_t *buf = bytes(8 * KIB, 21), *zeros = calloc(1, 8 * KIB);
	struct berth_map *m;

	OK(berth_ftruncate(o->f, MIB));
	OK(berth_map(o->f, 0, MIB, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &m));
	OK(berth_put(m, buf, 8 * KIB, 64 * KIB, BERTH_DURABLE | BERTH_BY_RMA));
	holds(o, 64 * KIB, buf, 8 * KIB);
	holds(o, 72 * KIB, zeros, 8 * KIB);
	OK(berth_unmap(m));
	free(buf);
	free(zeros);
}

/* Holes that somebody writes, through the same session and through another one. */
WITH(onesided, holes_that_were_written_are_seen, os_layouts_on)
{
	struct berth *other = session(&o->d, false);
	struct berth_file *f;
	struct berth_map *m;
	uint8_t got[8];

	OK(berth_pwrite(o->f, "end", 3, 8 * MIB, BERTH_FILE_SYNC));
	OK(berth_map(o->f, 0, 8 * MIB + 3, BERTH_MAP_READ, &m));
	OK(berth_pwrite(o->f, "mine", 4, MIB, BERTH_FILE_SYNC));
	OK(berth_get(m, got, 4, MIB, 0));
	cr_expect_arr_eq(got, "mine", 4);
	OK(berth_open(other, NULL, "f", O_RDWR, 0, &f));
	OK(berth_pwrite(f, "theirs", 6, 2 * MIB, BERTH_FILE_SYNC));
	do { /* told by a RENEW, in its time */
		OK(berth_wait(o->b, 1000));
		OK(berth_get(m, got, 6, 2 * MIB, 0));
	} while (!got[0]);
	cr_expect_arr_eq(got, "theirs", 6);
	OK(berth_unmap(m));
	OK(berth_close(f));
	berth_disconnect(other);
}

/* --- many at a time --- */

struct many {
	struct berth_map *m;
	uint8_t *buf;
	unsigned next, done, total, depth, bad;
	size_t len;
};

static void one_more(struct many *s);
static void many_done(void *arg, int err, const struct berth_reply *r)
{
	struct many *s = arg;

	(void)r;
	s->done++;
	s->bad += err != 0;
	one_more(s);
}

static void one_more(struct many *s)
{
	uint64_t at = (uint64_t)s->next * s->len;

	if (s->next < s->total) {
		s->next++;
		OK(berth_map_start_put(s->m, at, s->buf + at, s->len, BERTH_DURABLE | BERTH_BY_RMA, many_done, s));
	}
}

static void run_many(struct on *o, struct many *s)
{
	for (unsigned i = 0; i < s->depth; i++)
		one_more(s);
	while (s->done < s->total)
		OK(berth_wait(o->b, -1));
	cr_expect_eq(s->bad, 0);
}

BOTH(onesided, durable_puts_in_flight_together_share_commits)
{
	struct many s = { .total = 2000, .depth = 32, .len = 300 };
	struct berth_counters before, after;

	s.buf = bytes(s.total * s.len, 4);
	OK(berth_map(o->f, 0, MIB, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &s.m));
	before = counters(o);
	run_many(o, &s);
	after = counters(o);
	cr_expect_geq(after.rma_writes - before.rma_writes, s.total);
	cr_expect_eq(after.puts_fallen_back, 0);
	cr_expect_lt(after.layout_commits - before.layout_commits, s.total / 4, "%llu COMMITs for %u puts",
	             (unsigned long long)(after.layout_commits - before.layout_commits), s.total);
	holds(o, 0, s.buf, s.total * s.len);
	OK(berth_unmap(s.m));
	free(s.buf);
}

/* More than the provider keeps for a server that is asleep, and no call between them. */
WITH(onesided, thousands_of_puts_and_gets_and_no_call, slow_recall)
{
	uint8_t buf[64], got[64];
	struct berth_counters before, after;
	struct berth_map *m;

	fill(buf, sizeof(buf), 15);
	OK(berth_pwrite(o->f, buf, 64, 0, BERTH_FILE_SYNC));
	OK(berth_map(o->f, 0, 4096, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &m));
	before = counters(o);
	for (unsigned i = 0; i < 3000; i++) {
		OK(berth_get(m, got, 64, 0, BERTH_BY_RMA));
		cr_assert_arr_eq(got, buf, 64);
		OK(berth_put(m, buf, 64, 64 * (i % 64), BERTH_BY_RMA));
	}
	after = counters(o);
	cr_expect_geq(after.rma_reads - before.rma_reads, 3000);
	cr_expect_eq(after.puts_fallen_back, 0);
	OK(berth_unmap(m));
}

/* Where the kernel does not let the client copy (containers without ptrace), shm's server has to. */
Test(onesided, over_shm_without_the_right_to_copy)
{
	uint8_t *buf = bytes(100000, 16), *got = malloc(100000);
	struct berth_map *m;
	struct on o;

	setenv("FI_SHM_DISABLE_CMA", "1", 1);
	begin(&o, true, &(struct daemon_opts){ .set = slow_recall });
	OK(berth_map(o.f, 0, MIB, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &m));
	for (unsigned i = 0; i < 20; i++) {
		OK(berth_put(m, buf, 100000, i, BERTH_BY_RMA));
		OK(berth_get(m, got, 100000, i, BERTH_BY_RMA));
		cr_expect_arr_eq(got, buf, 100000);
	}
	cr_expect_geq(counters(&o).rma_writes, 20);
	OK(berth_unmap(m));
	free(buf);
	free(got);
	end(&o);
}

/* Puts, gets, WRITEs and READs on the same file against a copy in memory. */
BOTH(onesided, mixed_with_read_and_write)
{
	uint8_t *model = calloc(1, 2 * MIB), *got = malloc(2 * MIB), *src = bytes(2 * MIB, 5);
	struct berth_map *m;

	srand(7);
	OK(berth_ftruncate(o->f, 2 * MIB));
	OK(berth_map(o->f, 0, 2 * MIB, BERTH_MAP_WRITE, &m));
	for (unsigned i = 0; i < 300; i++) {
		size_t len = 1 + (size_t)rand() % (rand() % 4 ? 3000 : 300000);
		uint64_t at = (uint64_t)rand() % (2 * MIB - len), from = (uint64_t)rand() % (2 * MIB - len);
		int how = rand() % 8;

		if (how < 5) { /* the buffer stays until the commit */
			static const int flags[] = { BERTH_BY_RMA, BERTH_DURABLE | BERTH_BY_RMA, BERTH_DURABLE,
				                     BERTH_COPY, BERTH_BY_SERVER };

			OK(berth_put(m, src + from, len, at, flags[how]));
			memcpy(model + at, src + from, len);
		} else if (how == 5) {
			OK(berth_pwrite(o->f, src + from, len, at, rand() % 2 ? BERTH_UNSTABLE : BERTH_FILE_SYNC));
			memcpy(model + at, src + from, len);
		} else if (how == 6) {
			OK(rand() % 2 ? berth_commit(o->f) : berth_persist(m, at, len));
		}
		OK(berth_get(m, got, len, at, rand() % 2 ? BERTH_BY_SERVER : 0));
		for (size_t k = 0; k < len; k++)
			cr_assert_eq(got[k], model[at + k], "step %u (%d): byte %llu", i, how,
			             (unsigned long long)(at + k));
	}
	OK(berth_commit(o->f));
	cr_expect_eq(berth_pread(o->f, got, 2 * MIB, 0), 2 * MIB);
	cr_expect_arr_eq(got, model, 2 * MIB);
	OK(berth_unmap(m));
	holds(o, 0, model, 2 * MIB);
	free(model);
	free(got);
	free(src);
}

/* --- no RPC --- */

static uint64_t calls_of_all_procedures(struct on *o)
{
	char cmd[1024];
	uint64_t sum = 0, n;
	FILE *p;
	char berth[512];

	snprintf(cmd, sizeof(cmd), "%s -s %s stat --json | grep -o '\"count\": *[0-9]*' | grep -o '[0-9]*$'",
	         built("berth", berth), o->d.control);
	p = popen(cmd, "r");
	cr_assert_not_null(p);
	while (fscanf(p, "%lu", &n) == 1)
		sum += n;
	cr_assert_eq(pclose(p), 0);
	return sum;
}

/* The provider's own FI_COMMIT_COMPLETE: between MAP and COMMIT the server handles no call. */
Test(no_rpc, durable_writes_over_tcp_cost_no_call)
{
	struct many s = { .total = 1000, .depth = 4, .len = 4096 };
	uint64_t before, after;
	struct berth_map_info i;
	struct on o;

	begin(&o, false, &(struct daemon_opts){ .set = slow_recall });
	s.buf = bytes(s.total * s.len, 6);
	OK(berth_pwrite(o.f, s.buf, s.total * s.len, 0, BERTH_FILE_SYNC));
	fill(s.buf, s.total * s.len, 66);
	OK(berth_map(o.f, 0, s.total * s.len, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &s.m));
	berth_map_get_info(s.m, &i);
	cr_assert_str_eq(i.method, "commit-complete");
	cr_assert_not(i.needs_commit);
	before = calls_of_all_procedures(&o);
	run_many(&o, &s);
	after = calls_of_all_procedures(&o);
	cr_expect_eq(after, before, "%llu calls for %u durable writes", (unsigned long long)(after - before),
	             s.total);
	cr_expect_geq(counters(&o).rma_writes, s.total);
	cr_expect_gt(before, 0);
	OK(berth_unmap(s.m));
	cr_expect_gt(calls_of_all_procedures(&o), after, "the counters count");
	holds(&o, 0, s.buf, s.total * s.len);
	free(s.buf);
	end(&o);
}

/* --- which way --- */

/* As if the server had said so: what these providers' writes are worth is not the question. */
static void by_read_after_write(struct berth_map *m)
{
	struct layout *l;

	LIST_FOREACH (l, &m->layouts, link)
		l->method = LAYOUT_READ_AFTER_WRITE;
}

WITH(way, read_after_write_costs_a_read_and_no_call, slow_recall)
{
	struct many s = { .total = 100, .depth = 4, .len = 5000 };
	struct berth_counters before, after;
	struct berth_map_info i;

	s.buf = bytes(MIB, 17);
	OK(berth_pwrite(o->f, s.buf + 1, s.total * s.len, 0, BERTH_FILE_SYNC));
	OK(berth_map(o->f, 0, MIB, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &s.m));
	by_read_after_write(s.m);
	berth_map_get_info(s.m, &i);
	cr_expect_str_eq(i.method, "read-after-write");
	cr_expect_not(i.needs_commit);
	before = counters(o);
	run_many(o, &s);
	after = counters(o);
	cr_expect_eq(after.rma_writes - before.rma_writes, s.total);
	cr_expect_gt(after.rma_reads, before.rma_reads);
	cr_expect_lt(after.rma_reads - before.rma_reads, s.total, "puts in flight share them");
	cr_expect_eq(after.rma_read_bytes - before.rma_read_bytes, after.rma_reads - before.rma_reads, "of a byte");
	cr_expect_eq(after.calls, before.calls);
	cr_expect_eq(after.puts_fallen_back, 0);
	holds(o, 0, s.buf, s.total * s.len);
	/* New blocks are the server's to commit. */
	OK(berth_put(s.m, s.buf, 4096, 800 * KIB, BERTH_DURABLE | BERTH_BY_RMA));
	cr_expect_eq(counters(o).layout_commits, after.layout_commits + 1);
	cr_expect_eq(counters(o).rma_reads, after.rma_reads);
	OK(berth_unmap(s.m));
	holds(o, 800 * KIB, s.buf, 4096);
	free(s.buf);
}

/* The read does not come back: the put is written again. */
BOTH(way, read_after_write_and_the_server_dies)
{
	struct many s = { .total = 400, .depth = 8, .len = 1000 };

	s.buf = bytes(MIB, 18);
	OK(berth_pwrite(o->f, s.buf + 1, s.total * s.len, 0, BERTH_FILE_SYNC));
	OK(berth_map(o->f, 0, MIB, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &s.m));
	by_read_after_write(s.m);
	for (unsigned i = 0; i < s.depth; i++)
		one_more(&s);
	while (s.done < s.total / 2)
		OK(berth_wait(o->b, -1));
	daemon_kill(&o->d);
	daemon_launch(&o->d);
	while (s.done < s.total)
		OK(berth_wait(o->b, -1));
	cr_expect_eq(s.bad, 0);
	holds(o, 0, s.buf, s.total * s.len);
	OK(berth_unmap(s.m));
	free(s.buf);
}

/* One layout is at most 64 MiB: a put over the border goes through both of them. */
BOTH(way, over_the_border_of_two_layouts)
{
	uint8_t *buf = bytes(3 * MIB, 19), *got = malloc(3 * MIB);
	uint64_t at = (64ull * MIB) - MIB - 5;
	struct berth_counters before, after;
	struct berth_map_info i;
	struct berth_map *m;

	OK(berth_map(o->f, 0, (64ull * MIB) + 8 * MIB, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &m));
	berth_map_get_info(m, &i);
	cr_assert_eq(i.layouts, 2);
	before = counters(o);
	OK(berth_put(m, buf, 3 * MIB, at, BERTH_DURABLE | BERTH_BY_RMA));
	OK(berth_put(m, buf, 2 * MIB, at, BERTH_BY_RMA));
	OK(berth_get(m, got, 3 * MIB, at, BERTH_BY_RMA));
	after = counters(o);
	cr_expect_arr_eq(got, buf, 3 * MIB);
	cr_expect_geq(after.rma_writes - before.rma_writes, 4);
	cr_expect_eq(after.rma_write_bytes - before.rma_write_bytes, 5 * MIB);
	cr_expect_eq(after.written_bytes, before.written_bytes, "some went by WRITE");
	OK(berth_persist(m, 0, 0));
	holds(o, at, buf, 3 * MIB);
	OK(berth_unmap(m));
	free(buf);
	free(got);
}

/* Left to itself the library takes the way that was measured to be the quicker one (providers.md). */
static uint64_t by_rma_of(struct on *o, struct berth_map *m, size_t len, unsigned depth)
{
	static uint64_t at; /* new blocks each time */
	struct many s = { .m = m, .total = depth, .depth = depth, .len = len };
	uint64_t before = counters(o).rma_writes;

	s.buf = bytes(depth * len, 20);
	for (; s.next < depth; s.next++)
		OK(berth_map_start_put(m, at + s.next * len, s.buf + s.next * len, len, BERTH_DURABLE, many_done, &s));
	while (s.done < depth)
		OK(berth_wait(o->b, -1));
	cr_assert_eq(s.bad, 0);
	free(s.buf);
	at += depth * len + MIB;
	return counters(o).rma_writes - before;
}

BOTH(way, chosen_by_size_depth_and_provider)
{
	struct berth_map *m;

	OK(berth_map(o->f, 0, 16 * MIB, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &m));
	cr_expect_eq(by_rma_of(o, m, 512, 1), 0);
	cr_expect_eq(by_rma_of(o, m, 4096, 1), !o->shm);
	cr_expect_eq(by_rma_of(o, m, MIB, 1), !o->shm);
	cr_expect_gt(by_rma_of(o, m, 64 * KIB, 16), 0);
	cr_expect_eq(by_rma_of(o, m, 512, 16) > 0, !o->shm);
	OK(berth_unmap(m));
}

/* --- no layout --- */

WITH(fallback, without_layouts_all_goes_by_read_and_write, layouts_off)
{
	uint8_t *buf = bytes(3 * MIB, 8), *got = malloc(3 * MIB);
	struct berth_map_info i;
	struct berth_map *m;

	FAILS(berth_map(o->f, 0, MIB, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &m), EOPNOTSUPP);
	OK(berth_map(o->f, 0, 4 * MIB, BERTH_MAP_WRITE, &m));
	berth_map_get_info(m, &i);
	cr_expect_eq(i.layouts, 0);
	cr_expect_neq(i.why[0], '\0');
	OK(berth_put(m, buf, 2 * MIB, 0, BERTH_BY_RMA));
	OK(berth_put(m, buf + 2 * MIB, 1000, 2 * MIB, BERTH_DURABLE));
	OK(berth_get(m, got, 2 * MIB + 1000, 0, BERTH_BY_RMA));
	cr_expect_arr_eq(got, buf, 2 * MIB + 1000);
	OK(berth_persist(m, 0, 0));
	holds(o, 0, buf, 2 * MIB + 1000);
	cr_expect_eq(counters(o).rma_writes, 0);
	OK(berth_get(m, got, MIB, 3 * MIB, 0));
	cr_expect_eq(got[0], 0);
	OK(berth_unmap(m));
	free(buf);
	free(got);
}

BOTH(fallback, wrong_arguments)
{
	uint8_t buf[16] = { 0 };
	struct berth_map *m;

	FAILS(berth_map(o->f, 0, 0, BERTH_MAP_READ, &m), EINVAL);
	FAILS(berth_map(o->f, 0, 1, 0, &m), EINVAL);
	FAILS(berth_map(o->f, 0, 1, 64, &m), EINVAL);
	FAILS(berth_map(o->f, UINT64_MAX, 1, BERTH_MAP_READ, &m), EINVAL);
	FAILS(berth_map(o->f, INT64_MAX, INT64_MAX, BERTH_MAP_READ, &m), EINVAL);
	OK(berth_map(o->f, 4096, 8192, BERTH_MAP_WRITE, &m));
	FAILS(berth_put(m, buf, 0, 4096, 0), EINVAL);
	FAILS(berth_put(m, buf, 16, 4095, 0), EINVAL);
	FAILS(berth_put(m, buf, 16, 12288 - 15, 0), EINVAL);
	FAILS(berth_put(m, buf, 16, 12288, 0), EINVAL);
	FAILS(berth_put(m, buf, 16, 4096, BERTH_BY_RMA | BERTH_BY_SERVER), EINVAL);
	FAILS(berth_put(m, buf, 16, 4096, 1024), EINVAL);
	FAILS(berth_get(m, buf, 16, 4096, BERTH_DURABLE), EINVAL);
	FAILS(berth_get(m, buf, SIZE_MAX, 4096, 0), EINVAL);
	FAILS(berth_persist(m, 0, 1), EINVAL);
	FAILS(berth_persist(m, 4096, 8193), EINVAL);
	FAILS(berth_close(o->f), EBUSY);
	OK(berth_persist(m, 12288, 0));
	OK(berth_unmap(m));
	OK(berth_unmap(NULL));
}

/* --- the layout is lost --- */

/* Another client cuts the file while puts wait for their commit: they are written again. */
BOTH(lost, a_truncate_by_another_client_costs_a_delay)
{
	struct berth *other = session(&o->d, false);
	uint8_t *buf = bytes(MIB, 9), *got = malloc(MIB);
	struct berth_map *m;

	OK(berth_map(o->f, 0, MIB, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &m));
	OK(berth_put(m, buf, MIB / 2, 0, BERTH_DURABLE | BERTH_BY_RMA));
	OK(berth_put(m, buf, MIB / 2, 0, BERTH_BY_RMA));
	OK(berth_truncate(other, NULL, "f", 0));
	OK(berth_put(m, buf + MIB / 2, MIB / 2, MIB / 2, BERTH_BY_RMA));
	OK(berth_get(m, got, MIB, 0, 0));
	cr_expect_arr_eq(got, buf, MIB);
	OK(berth_persist(m, 0, 0));
	holds(o, 0, buf, MIB);
	cr_expect_gt(counters(o).layouts_lost, 0);
	for (unsigned i = 0; i < 200; i++) /* goes on, one-sided again after a while */
		OK(berth_put(m, buf, 4096, 4096 * (i % 100), BERTH_DURABLE | BERTH_BY_RMA));
	OK(berth_unmap(m));
	berth_disconnect(other);
	free(buf);
	free(got);
}

BOTH(lost, a_removed_file_is_stale_and_nothing_else)
{
	struct berth *other = session(&o->d, false);
	uint8_t *buf = bytes(MIB, 10);
	struct berth_map *m;
	int err;

	OK(berth_map(o->f, 0, MIB, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &m));
	OK(berth_put(m, buf, MIB, 0, BERTH_BY_RMA));
	OK(berth_unlink(other, NULL, "f"));
	err = berth_unmap(m);
	cr_expect(err == 0 || err == -ESTALE, "%d: committed before it was gone, or told", err);
	berth_disconnect(other);
	free(buf);
	OK(berth_open(o->b, NULL, "g", O_CREAT | O_RDWR, 0644, &o->f)); /* for end() */
}

/* Two clients put into the same file by turns: each takes the layout from the other. */
WITH(lost, two_writers_take_turns, layouts_on)
{
	struct berth *other = session(&o->d, o->shm);
	uint8_t *buf = bytes(64 * KIB, 11);
	struct berth_map *m[2];
	struct berth_file *f;

	OK(berth_open(other, NULL, "f", O_RDWR, 0, &f));
	OK(berth_map(o->f, 0, 64 * KIB, BERTH_MAP_WRITE, &m[0]));
	OK(berth_map(f, 0, 64 * KIB, BERTH_MAP_WRITE, &m[1]));
	for (unsigned i = 0; i < 16; i++)
		OK(berth_put(m[i % 2], buf + i * 4096, 4096, i * 4096, BERTH_DURABLE | BERTH_BY_RMA));
	holds(o, 0, buf, 64 * KIB);
	OK(berth_unmap(m[1]));
	OK(berth_unmap(m[0]));
	OK(berth_close(f));
	berth_disconnect(other);
	free(buf);
}

static void map_came(void *arg, int err, const struct berth_reply *r)
{
	struct berth_map **m = arg;

	OK(err);
	*m = r->map;
}

/* Two sessions of one thread: waited for together, the one gives back what the other asks for. */
static const char *const quick_renewal[] = { "fabric tcp.layouts=on", "fabric tcp.layout_recall=30000", "fabric tcp.layout_lease=3",
	                                     "fabric shm.layouts=on", "fabric shm.layout_recall=30000", NULL };

WITH(lost, asked_back_from_a_session_of_the_same_thread, quick_renewal)
{
	struct berth *two[] = { o->b, session(&o->d, o->shm) };
	struct berth_map *m[2] = { NULL };
	struct berth_file *f;

	OK(berth_open(two[1], NULL, "f", O_RDWR, 0, &f));
	OK(berth_map(o->f, 0, 64 * KIB, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &m[0]));
	OK(berth_file_start_map(f, 0, 64 * KIB, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, map_came, &m[1]));
	while (!m[1])
		OK(berth_wait_any(two, 2, -1));
	cr_expect_eq(daemon_counter(&o->d, "layouts_revoked"), 0);
	cr_expect_eq(daemon_counter(&o->d, "layouts_expired"), 0);
	cr_expect_eq(counters(o).reconnects, 0);
	OK(berth_unmap(m[1]));
	OK(berth_unmap(m[0]));
	OK(berth_close(f));
	berth_disconnect(two[1]);
}

/* A session that has given its layout back and then has nothing to say keeps its connection. */
BOTH(lost, unmapped_and_silent)
{
	struct berth *other = session(&o->d, o->shm);
	struct berth_map *m;
	struct berth_file *f;

	OK(berth_open(other, NULL, "f", O_RDWR, 0, &f));
	OK(berth_map(o->f, 0, 64 * KIB, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &m));
	OK(berth_unmap(m));
	OK(berth_map(f, 0, 64 * KIB, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &m));
	OK(berth_ping(o->b, NULL));
	cr_expect_eq(counters(o).reconnects, 0);
	OK(berth_unmap(m));
	OK(berth_close(f));
	berth_disconnect(other);
}

struct map_end {
	bool over;
	int err;
};

static void map_ended(void *arg, int err, const struct berth_reply *r)
{
	*(struct map_end *)arg = (struct map_end){ true, err };
	(void)r;
}

static const char *const in_nine_seconds[] = { "fabric tcp.layouts=on",        "fabric shm.layouts=on",
	                                       "fabric tcp.layout_lease=9",    "fabric shm.layout_lease=9",
	                                       "fabric tcp.layout_recall=20000", "fabric shm.layout_recall=20000", NULL };

/* A mapping of two layouts. The file is removed while another client keeps the server from giving out the second: the first
 * is on its way back when the answer to the second says that there is none. */
WITH(lost, the_second_layout_fails_while_the_first_goes_back, in_nine_seconds)
{
	const uint64_t most = 64 * MIB; /* of one layout */
	struct berth *third = session(&o->d, false);
	struct map_end end = { 0 };
	struct os_map held;
	struct berth_fh fh;
	struct os other;
	layoutnews news;

	berth_file_fh(o->f, &fh);
	os_open_as(&other, &o->d, o->shm ? "shm" : "tcp", 2 * o->shm);
	held = os_mapped(&other, &fh, most, 64 * KIB, LAYOUT_RW);
	OK(berth_file_start_map(o->f, 0, most + 64 * KIB, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, map_ended, &end));
	do { /* until the server has the second MAP, and nothing else is out */
		OK(berth_progress(o->b));
		cr_assert_eq(os_renew(&other, held.id, &news), 0);
	} while (news.status == LAYOUT_OK || berth_in_flight(o->b) != 1);
	OK(berth_unlink(third, NULL, "f"));
	while (berth_in_flight(o->b) == 1) /* until the question is on its way whose answer is that the first has to go */
		OK(berth_progress(o->b));
	cr_expect_eq(os_returned(&other, held.id), LAYOUT_OK);
	cr_expect_eq(os_null(&other), 0);
	while (daemon_counter(&o->d, "layouts") > 1)
		;
	cr_expect_eq(counters(o).layouts_lost, 0);
	while (!end.over)
		OK(berth_wait(o->b, -1));
	cr_expect_eq(end.err, -ESTALE, "%d", end.err);
	cr_expect_eq(counters(o).layouts_lost, 1);
	while (daemon_counter(&o->d, "layouts"))
		OK(berth_progress(o->b));
	os_close(&other);
	berth_disconnect(third);
	OK(berth_close(o->f));
	OK(berth_open(o->b, NULL, "g", O_CREAT | O_RDWR, 0644, &o->f)); /* for end() */
}

/* The last answer that berth_unmap() waits for says that the layout is lost: there is none left to give back. */
Test(lost, a_layout_lost_while_it_is_unmapped)
{
	struct on o;
	struct berth *other;
	uint8_t *buf = bytes(4096, 11);
	struct berth_map *m[2];
	struct berth_file *f;

	begin(&o, false, &(struct daemon_opts){ .size = 512 * MIB, .set = os_layouts_on });
	other = session(&o.d, o.shm);
	OK(berth_open(other, NULL, "f", O_RDWR, 0, &f));
	for (unsigned round = 0; round < 4; round++) {
		OK(berth_map(o.f, 0, 256 * MIB, BERTH_MAP_WRITE, &m[0]));
		OK(berth_map(f, 0, 256 * MIB, BERTH_MAP_WRITE, &m[1]));
		for (unsigned i = 0; i < 8; i++)
			OK(berth_put(m[i % 2], buf, 4096, i / 2 * 4096, BERTH_DURABLE));
		OK(berth_unmap(m[0]));
		OK(berth_unmap(m[1]));
	}
	OK(berth_close(f));
	berth_disconnect(other);
	free(buf);
	end(&o);
}

/* What was put and not committed when the server died is written again to the next one. */
BOTH(lost, the_server_dies_between_put_and_commit)
{
	uint8_t *buf = bytes(2 * MIB, 12), *got = malloc(2 * MIB);
	struct berth_map *m;

	OK(berth_map(o->f, 0, 2 * MIB, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &m));
	OK(berth_put(m, buf, MIB, 0, BERTH_DURABLE | BERTH_BY_RMA));
	OK(berth_put(m, buf + MIB, MIB / 2, MIB, BERTH_BY_RMA));
	daemon_kill(&o->d);
	daemon_launch(&o->d);
	OK(berth_put(m, buf + MIB + MIB / 2, MIB / 2, MIB + MIB / 2, BERTH_DURABLE | BERTH_BY_RMA));
	OK(berth_get(m, got, 2 * MIB, 0, 0));
	cr_expect_arr_eq(got, buf, 2 * MIB);
	OK(berth_commit(o->f));
	holds(o, 0, buf, 2 * MIB);
	cr_expect_geq(counters(o).resent_unstable_bytes, MIB / 2);
	cr_expect_geq(counters(o).reconnects, 1);
	OK(berth_unmap(m));
	free(buf);
	free(got);
}

/* With puts, COMMITs and gets under way. */
BOTH(lost, the_server_dies_under_load)
{
	struct many s = { .total = 3000, .depth = 16, .len = 1000 };

	s.buf = bytes(s.total * s.len, 13);
	OK(berth_map(o->f, 0, 4 * MIB, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &s.m));
	for (unsigned i = 0; i < s.depth; i++)
		one_more(&s);
	for (unsigned kill = 500; s.done < s.total;) {
		OK(berth_wait(o->b, -1));
		if (s.done > kill) {
			daemon_kill(&o->d);
			daemon_launch(&o->d);
			kill += 1000;
		}
	}
	cr_expect_eq(s.bad, 0);
	holds(o, 0, s.buf, s.total * s.len);
	OK(berth_unmap(s.m));
	free(s.buf);
}

static const char *const long_recall[] = { "fabric tcp.layouts=on", "fabric shm.layouts=on", "fabric tcp.layout_lease=1",
	                                   "fabric shm.layout_lease=1", "fabric tcp.layout_recall=60000",
	                                   "fabric shm.layout_recall=60000", NULL };

/* However long the server waits for recalls, it is the lease that has to be renewed. */
WITH(onesided, a_lease_is_renewed_in_time, long_recall)
{
	uint64_t end = now_ms() + 2500;
	struct berth_map_info i;
	struct berth_map *m;

	OK(berth_map(o->f, 0, MIB, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &m));
	for (uint64_t left; (left = end > now_ms() ? end - now_ms() : 0);)
		OK(berth_wait(o->b, (int)left));
	berth_map_get_info(m, &i);
	cr_expect_eq(i.layouts, 1);
	cr_expect_eq(counters(o).layouts_lost, 0);
	OK(berth_unmap(m));
}

static const char *const short_lease[] = { "fabric tcp.layouts=on", "fabric shm.layouts=on", "fabric tcp.layout_lease=1",
	                                   "fabric shm.layout_lease=1", NULL };

/* A client that does not look for longer than its lease. */
WITH(lost, a_lease_that_ran_out_is_asked_for_again, short_lease)
{
	uint8_t *buf = bytes(MIB, 14);
	struct berth_counters before;
	struct berth_map_info i;
	struct berth_map *m;

	OK(berth_map(o->f, 0, MIB, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &m));
	OK(berth_put(m, buf, MIB, 0, BERTH_BY_RMA));
	do { /* time passes, nobody calls berth_progress() */
		usleep(10000);
		berth_map_get_info(m, &i);
	} while (i.layouts);
	before = counters(o);
	OK(berth_put(m, buf, 4096, 0, BERTH_DURABLE | BERTH_BY_RMA));
	OK(berth_commit(o->f));
	holds(o, 0, buf, MIB);
	cr_expect_gt(counters(o).layouts_lost, before.layouts_lost);
	do
		OK(berth_put(m, buf, 4096, 0, BERTH_DURABLE | BERTH_BY_RMA));
	while (counters(o).rma_writes == before.rma_writes);
	OK(berth_unmap(m));
	free(buf);
}
