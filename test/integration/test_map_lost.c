/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_map_lost.c - MAPs whose connection ends before the answer: asked again for as long as an outage may last
 *
 * The test stands in front of layout_start_map() (--wrap) and loses as many as it likes.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "client/layout.h"
#include "client/map.h"
#include "test/lib/onesided.h"

TestSuite(map_lost, .timeout = 60);

#define OK(call)                                                                                   \
	do {                                                                                       \
		int err_ = (int)(call);                                                            \
		cr_assert(err_ >= 0, "%s: %s", #call, strerror(-err_));                            \
	} while (0)

static unsigned to_lose, asked;

int __real_layout_start_map(struct berth *b, const struct berth_fh *fh, uint64_t off, uint64_t len, bool rw,
                            struct layout_mapped *out, berth_done *done, void *arg);
int __wrap_layout_start_map(struct berth *b, const struct berth_fh *fh, uint64_t off, uint64_t len, bool rw,
                            struct layout_mapped *out, berth_done *done, void *arg);
int __wrap_layout_start_map(struct berth *b, const struct berth_fh *fh, uint64_t off, uint64_t len, bool rw,
                            struct layout_mapped *out, berth_done *done, void *arg)
{
	asked++;
	if (!to_lose)
		return __real_layout_start_map(b, fh, off, len, rw, out, done, arg);
	to_lose--;
	op_finish(op_hold(b, done, arg), -ECONNRESET);
	return 0;
}

struct setting {
	struct daemon d;
	struct berth *b;
	struct berth_file *f;
};

static void begin(struct setting *s, const char *options)
{
	struct berth_error why = { "" };
	char url[300];

	setenv("FI_PROVIDER", "tcp,shm", 0);
	daemon_start(&s->d, &(struct daemon_opts){ .set = os_layouts_on });
	snprintf(url, sizeof(url), "%s/%s", s->d.tcp_url, options);
	cr_assert_eq(berth_connect(url, NULL, &s->b, &why), 0, "%s", why.text);
	OK(berth_open(s->b, NULL, "f", O_CREAT | O_RDWR, 0644, &s->f));
}

static void end(struct setting *s)
{
	OK(berth_close(s->f));
	berth_disconnect(s->b);
	daemon_remove(&s->d);
}

Test(map_lost, how_often_does_not_matter)
{
	struct berth_map_info i;
	struct setting s;
	struct berth_map *m;

	begin(&s, "");
	to_lose = 500;
	OK(berth_map(s.f, 0, 1 << 20, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &m));
	cr_expect_eq(asked, 501);
	berth_map_get_info(m, &i);
	cr_expect_eq(i.layouts, 1, "%s", i.why);
	OK(berth_unmap(m));
	end(&s);
}

Test(map_lost, after_the_time_it_goes_by_read_and_write)
{
	struct berth_map_info i;
	struct setting s;
	struct berth_map *m;

	begin(&s, "?reconnect=1");
	to_lose = UINT32_MAX;
	OK(berth_map(s.f, 0, 1 << 20, BERTH_MAP_WRITE, &m));
	cr_expect_gt(asked, 1);
	berth_map_get_info(m, &i);
	cr_expect_eq(i.layouts, 0);
	cr_expect_str_not_empty(i.why);
	OK(berth_put(m, "by WRITE", 8, 0, BERTH_DURABLE));
	OK(berth_unmap(m));
	cr_expect_eq(berth_map(s.f, 0, 1 << 20, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &m), -ECONNRESET);
	end(&s);
}

/* One that nobody waits for does not keep a mapping from its end. */
Test(map_lost, unmapping_ends_it)
{
	struct setting s;
	struct berth_map *m;
	unsigned before;

	begin(&s, "");
	OK(berth_map(s.f, 0, 1 << 20, BERTH_MAP_WRITE, &m));
	to_lose = UINT32_MAX;
	s.b->epoch++; /* as if the connection had ended: the layout is none any more */
	cr_expect_null(map_layout_at(m, 0));
	before = asked;
	cr_expect_gt(before, 1);
	OK(berth_unmap(m));
	cr_expect_leq(asked, before + 1);
	end(&s);
}
