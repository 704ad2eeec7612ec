/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_push.c - read-after-write: puts share the reads behind them, and none is durable before one of these is over
 *
 * The test stands in front of tp_client_rma() (--wrap), numbers what is sent, and can keep the ends of reads back.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/map.h"
#include "test/lib/onesided.h"

TestSuite(push, .timeout = 120);

#define OK(call)                                                                                   \
	do {                                                                                       \
		int err_ = (int)(call);                                                            \
		cr_assert(err_ >= 0, "%s: %s", #call, strerror(-err_));                            \
	} while (0)

#define LEN  512u
#define MOST 64u
#define MIB  (1u << 20)

/* --- between the library and the transport --- */

struct sent { /* one RMA operation; its number is its place */
	struct tp_rma *op;
	void (*done)(struct tp_rma *op, int err);
	const uint8_t *buf; /* NULL: a read behind writes */
	bool came, told;
	int err;
};
static struct sent all[4096];
static unsigned n_sent, n_reads;
static bool keep; /* the ends of reads back */

static void tell(struct sent *s)
{
	s->told = true;
	s->done(s->op, s->err);
}

static void came(struct tp_rma *op, int err)
{
	struct sent *s = NULL;

	for (unsigned i = 0; i < n_sent; i++)
		if (all[i].op == op && !all[i].came)
			s = &all[i];
	cr_assert_not_null(s);
	s->came = true;
	s->err = err;
	if (s->buf || !keep)
		tell(s);
}

int __real_tp_client_rma(struct tp_client *c, struct tp_rma *op);
int __wrap_tp_client_rma(struct tp_client *c, struct tp_rma *op);
int __wrap_tp_client_rma(struct tp_client *c, struct tp_rma *op)
{
	struct sent *s = &all[n_sent++];

	cr_assert_lt(n_sent, 4096);
	*s = (struct sent){ .op = op, .done = op->done, .buf = op->how == TP_RMA_PUSH ? NULL : op->buf };
	n_reads += !s->buf;
	op->done = came;
	return __real_tp_client_rma(c, op);
}

/* The @k-th read, from 0. */
static struct sent *read_of(unsigned k)
{
	for (unsigned i = 0; i < n_sent; i++)
		if (!all[i].buf && !k--)
			return &all[i];
	return NULL;
}

/* --- a server, a file of bytes, and puts to it --- */

struct one {
	unsigned times;
	int err;
	bool too_soon;
};
static struct {
	struct daemon d;
	struct berth *b;
	struct berth_file *f;
	struct berth_map *m;
	uint8_t *buf;
	struct one one[MOST];
	unsigned done;
} s;

/* Is a read over that was sent behind all writes of [buf, buf + len)? */
static bool read_behind(const uint8_t *buf, size_t len)
{
	bool behind = false, written = false;

	for (unsigned i = 0; i < n_sent; i++) {
		if (all[i].buf >= buf && all[i].buf < buf + len) {
			written = true;
			behind = false;
		} else if (!all[i].buf && all[i].told && !all[i].err) {
			behind = true;
		}
	}
	return written && behind;
}

static void one_done(void *arg, int err, const struct berth_reply *r)
{
	struct one *o = arg;

	(void)r;
	o->times++;
	o->err = err;
	o->too_soon = !err && !read_behind(s.buf + (o - s.one) * LEN, LEN);
	s.done++;
}

static void begin(bool shm)
{
	struct layout *l;

	setenv("FI_PROVIDER", "tcp,shm", 0);
	daemon_start(&s.d, &(struct daemon_opts){ .set = os_layouts_on });
	s.b = os_session(shm ? s.d.shm_url : s.d.tcp_url);
	OK(berth_open(s.b, NULL, "f", O_CREAT | O_RDWR, 0644, &s.f));
	s.buf = malloc(2 * MIB);
	memset(s.buf, 1, 2 * MIB);
	OK(berth_pwrite(s.f, s.buf, 2 * MIB, 0, BERTH_FILE_SYNC));
	for (size_t i = 0; i < 2 * MIB; i++)
		s.buf[i] = (uint8_t)(i * 7 + i / 251);
	OK(berth_map(s.f, 0, 2 * MIB, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &s.m));
	LIST_FOREACH (l, &s.m->layouts, link) /* as if the server had said so: what these providers' writes are worth is not the question */
		l->method = LAYOUT_READ_AFTER_WRITE;
}

static void put_one(unsigned i, size_t len)
{
	OK(berth_map_start_put(s.m, i * LEN, s.buf + i * LEN, len, BERTH_DURABLE | BERTH_BY_RMA, one_done, &s.one[i]));
}

static void put_some(unsigned from, unsigned n)
{
	for (unsigned i = from; i < from + n; i++)
		put_one(i, LEN);
}

static void wait_done(unsigned n)
{
	while (s.done < n)
		OK(berth_wait(s.b, -1));
}

/* Until everything that was sent has come, kept back or not, and what it led to, too. */
static void settle(void)
{
	for (bool out = true; out;) {
		OK(berth_wait(s.b, 1));
		out = false;
		for (unsigned i = 0; i < n_sent; i++)
			out |= !all[i].came;
	}
	OK(berth_progress(s.b));
}

static void let(unsigned k)
{
	cr_assert_not_null(read_of(k));
	cr_assert(read_of(k)->came && !read_of(k)->told);
	tell(read_of(k));
	settle();
}

static void end(unsigned n)
{
	struct berth_counters c;
	uint8_t *got = malloc(n * LEN);

	cr_expect_eq(s.done, n);
	for (unsigned i = 0; i < n; i++) {
		cr_expect(s.one[i].times == 1 && !s.one[i].err, "put %u: %u times, %d", i, s.one[i].times, s.one[i].err);
		cr_expect_not(s.one[i].too_soon, "put %u was called durable before a read behind it was over", i);
	}
	berth_get_counters(s.b, &c);
	cr_expect_eq(c.puts_fallen_back, 0);
	cr_expect_eq(c.rma_reads, n_reads);
	OK(berth_unmap(s.m));
	OK(berth_pread(s.f, got, n * LEN, 0));
	cr_expect_arr_eq(got, s.buf, n * LEN);
	OK(berth_close(s.f));
	berth_disconnect(s.b);
	daemon_remove(&s.d);
	free(got);
	free(s.buf);
}

/* --- how many --- */

Test(push, puts_started_together_share_over_tcp)
{
	begin(false);
	put_some(0, 16);
	cr_expect_eq(n_reads, 2, "the first ones wait for nobody");
	wait_done(16);
	cr_expect_eq(n_reads, 3, "and the others share: %u", n_reads);
	end(16);
}

/* Without that order of reads behind writes, they follow completions, which come several at a time. */
Test(push, puts_started_together_share_over_shm)
{
	begin(true);
	put_some(0, 16);
	cr_expect_eq(n_reads, 0);
	wait_done(16);
	cr_expect_leq(n_reads, 8, "%u", n_reads);
	end(16);
}

static void next_one(void *arg, int err, const struct berth_reply *r)
{
	unsigned i = s.done + 4; /* four in flight */

	one_done(arg, err, r);
	if (i < MOST)
		OK(berth_map_start_put(s.m, i * LEN, s.buf + i * LEN, LEN, BERTH_DURABLE | BERTH_BY_RMA, next_one,
		                       &s.one[i]));
}

Test(push, puts_out_of_callbacks_share)
{
	begin(false);
	for (unsigned i = 0; i < 4; i++)
		OK(berth_map_start_put(s.m, i * LEN, s.buf + i * LEN, LEN, BERTH_DURABLE | BERTH_BY_RMA, next_one,
		                       &s.one[i]));
	wait_done(MOST);
	cr_expect_lt(n_reads, MOST, "%u", n_reads);
	end(MOST);
}

/* --- who waits for whom --- */

static void none_is_durable_before_its_read(bool shm)
{
	unsigned first = shm ? 1 : 2; /* reads that go out at first */

	begin(shm);
	keep = true;
	put_some(0, 2);
	settle();
	cr_expect_geq(n_reads, first);
	first = n_reads;
	put_some(2, 8);
	settle();
	cr_expect_leq(n_reads, 2);
	cr_expect_eq(s.done, 0, "%u are durable, and no read is over", s.done);
	let(0);
	cr_expect_geq(s.done, 1);
	cr_expect_leq(s.done, 2);
	for (unsigned i = 2; i < 10; i++)
		cr_expect_eq(s.one[i].times, 0, "put %u was made durable by a read in front of it", i);
	for (unsigned k = 1; read_of(k); k++)
		if (!read_of(k)->told)
			let(k);
	cr_expect_leq(n_reads, 4, "%u", n_reads);
	end(10);
}

Test(push, none_is_durable_before_its_read_over_tcp)
{
	none_is_durable_before_its_read(false);
}

Test(push, none_is_durable_before_its_read_over_shm)
{
	none_is_durable_before_its_read(true);
}

/* The read of those that wait goes out in front of what is long. */
Test(push, none_waits_for_a_long_one_behind_it)
{
	unsigned at = 0;

	begin(false);
	keep = true;
	put_some(0, 3);
	cr_expect_eq(n_reads, 2, "two are out, the third put waits");
	put_one(3, MIB);
	for (unsigned i = 0; i < n_sent; i++)
		if (all[i].buf == s.buf + 3 * LEN)
			at = i;
	cr_assert_gt(at, 0);
	cr_expect_null(all[at - 1].buf, "no read between the third put and the long one");
	settle();
	for (unsigned k = 0; read_of(k); k++)
		let(k);
	end(4);
}

/* Nor for many short ones. */
Test(push, none_waits_for_much_behind_it)
{
	unsigned bytes = 0, most = 0;

	begin(false);
	keep = true;
	for (unsigned i = 0; i < 50; i++)
		put_one(i, 32 * 1024);
	for (unsigned i = 0; i < n_sent; i++) {
		bytes = all[i].buf ? bytes + 32 * 1024 : 0;
		most = bytes > most ? bytes : most;
	}
	cr_expect_leq(most, 96 * 1024, "%u bytes, and no read among them", most);
	settle();
	for (unsigned k = 0; read_of(k); k++)
		let(k);
	end(50);
}

/* --- when it goes wrong --- */

/* A read that fails is worth nothing: all that it was for are written again. */
Test(push, a_read_that_fails_makes_nothing_durable)
{
	struct berth_counters c;

	begin(false);
	keep = true;
	put_some(0, 2);
	settle();
	put_some(2, 8);
	settle();
	let(0);
	let(1);
	cr_assert_eq(n_reads, 3);
	read_of(2)->err = -EIO;
	cr_assert(read_of(2)->came && s.done == 2);
	keep = false;
	tell(read_of(2));
	wait_done(10);
	berth_get_counters(s.b, &c);
	cr_expect_eq(c.puts_fallen_back, 8);
	for (unsigned i = 0; i < 10; i++)
		cr_expect(s.one[i].times == 1 && !s.one[i].err);
	OK(berth_unmap(s.m));
	OK(berth_close(s.f));
	berth_disconnect(s.b);
	daemon_remove(&s.d);
	free(s.buf);
}

/* Those that wait for a read, or for a COMMIT, that never went out are told as well. */
static void told_at_the_end(bool commit)
{
	struct layout *l;

	begin(false);
	LIST_FOREACH (l, &s.m->layouts, link)
		l->method = commit ? LAYOUT_CLWB : LAYOUT_READ_AFTER_WRITE;
	put_some(0, 20);
	berth_disconnect(s.b);
	cr_expect_eq(s.done, 20);
	for (unsigned i = 0; i < 20; i++)
		cr_expect(s.one[i].times == 1 && s.one[i].err == -ECANCELED, "put %u: %u times, %d", i, s.one[i].times,
		          s.one[i].err);
	daemon_remove(&s.d);
}

Test(push, disconnecting_ends_those_that_wait_for_a_read)
{
	told_at_the_end(false);
}

Test(push, disconnecting_ends_those_that_wait_for_a_commit)
{
	told_at_the_end(true);
}
