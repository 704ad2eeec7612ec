/* SPDX-License-Identifier: BSD-3-Clause */
/* A pool file that gets shorter under its mapping: maps, commits and transactions over what is gone
 * fail. */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "pmemio/core.h"
#include "test/lib/pool.h"

#define SIZE (32u << 20)

static struct test_pool pool;
static const struct pm_id ROOT = { PM_ROOT_INO, 1 };
static atomic_int faults;

static void on_bus(int sig, siginfo_t *info, void *context)
{
	(void)context;
	faults++;
	if (!pm_media_fault(pool.st, info->si_addr))
		signal(sig, SIG_DFL);
}

static struct pm_id make(const char *name, uint32_t len)
{
	struct pm_new nw = { .type = PM_REG, .mode = 0644 };
	struct pm_committed done;
	struct pm_change ch;
	struct pm_map m;

	cr_assert_eq(pm_create(pool.st, ROOT, name, strlen(name), &nw, &ch), 0);
	cr_assert_eq(pm_map_write(pool.st, ch.obj.id, 0, len, &m, NULL), 0);
	for (unsigned i = 0; i < m.nseg; i++)
		memset(m.seg[i].iov_base, 'x', m.seg[i].iov_len);
	cr_assert_eq(pm_commit(&m, len, PM_FILE_SYNC, false, &done, NULL), 0);
	pm_unpin(&m);
	return ch.obj.id;
}

static void setup(void)
{
	pool_new(&pool, "fault", SIZE, PM_CLWB);
	sigaction(
		SIGBUS,
		&(struct sigaction){ .sa_sigaction = on_bus, .sa_flags = SA_SIGINFO | SA_NODEFER },
		NULL);
}

static void teardown(void)
{
	pool_drop(&pool);
}

TestSuite(fault, .init = setup, .fini = teardown);

static uint64_t counted(void)
{
	struct pm_stats s;

	pm_get_stats(pool.st, &s);
	return s.media_errors;
}

Test(fault, a_map_of_what_is_gone_fails_and_each_page_counts_once)
{
	struct pm_id f = make("f", 24u << 20);
	struct pm_map m;

	cr_assert_eq(truncate(pool.path, SIZE / 2), 0);
	cr_assert_eq(pm_map_read(pool.st, f, 23u << 20, 8192, &m), -EIO);
	cr_assert_eq(counted(), 2);
	cr_assert_eq(pm_map_read(pool.st, f, 23u << 20, 8192, &m), -EIO);
	cr_assert_eq(pm_map_write(pool.st, f, 23u << 20, 8192, &m, NULL), -EIO);
	cr_assert_eq(counted(), 2);
	cr_assert_eq(faults, 2);
	cr_assert_eq(pm_map_read(pool.st, f, 0, 8192, &m), 0);
	pm_unpin(&m);
}

Test(fault, what_was_placed_on_a_page_that_went_bad_is_not_committed)
{
	struct pm_id f = make("f", 24u << 20);
	struct pm_committed done;
	struct pm_map m;

	cr_assert_eq(pm_map_write(pool.st, f, 23u << 20, 8192, &m, NULL), 0);
	cr_assert_eq(truncate(pool.path, SIZE / 2), 0);
	memset(m.seg[0].iov_base, 'y', 8192); /* as a provider's copy would */
	cr_assert_eq(counted(), 2);
	cr_assert_eq(pm_commit(&m, 8192, PM_FILE_SYNC, false, &done, NULL), -EIO);
	pm_unpin(&m);
}

Test(fault, metadata_on_a_bad_page_is_an_error_and_ends_changes_to_it)
{
	struct pm_new nw = { .type = PM_REG };
	struct pm_change ch;
	struct pm_attr a;
	int err = 0;

	/* behind the superblocks and the journal nothing is left */
	cr_assert_eq(truncate(pool.path, (off_t)(pool.st->super.data_start * PM_BLOCK)), 0);
	cr_assert_eq(pm_getattr(pool.st, ROOT, &a), -EIO);
	err = pm_create(pool.st, ROOT, "new", 3, &nw, &ch);
	cr_assert_eq(err, -EIO);
	cr_assert_gt(counted(), 0);
}

Test(fault, a_record_on_a_bad_page_of_the_journal_is_no_success)
{
	struct pm_super *s = &pool.st->super;
	struct pm_id f = make("f", 8192);
	struct pm_new nw = { .type = PM_REG };
	struct pm_committed done;
	struct pm_change ch;
	struct pm_attr a;
	struct pm_map m;

	cr_assert_eq(pm_map_write(pool.st, f, 0, 4096, &m, NULL), 0);
	for (uint64_t b = s->lane_start; b < s->lane_start + s->lanes * s->lane_blocks; b++)
		cr_assert(pm_media_fault(pool.st, pool.st->media.base + b * PM_BLOCK));
	cr_assert_eq(pm_commit(&m, 4096, PM_FILE_SYNC, false, &done, NULL), -EIO, "the one that meets it");
	pm_unpin(&m);
	cr_assert_eq(pm_create(pool.st, ROOT, "new", 3, &nw, &ch), -EIO, "and all behind it");
	cr_assert_eq(pm_map_write(pool.st, f, 0, 4096, &m, NULL), -EIO);
	cr_assert_eq(pm_getattr(pool.st, f, &a), 0, "what is there is served");
}

Test(fault, an_address_elsewhere_is_not_the_pools)
{
	int here;

	cr_assert_not(pm_media_fault(pool.st, &here));
	cr_assert_eq(counted(), 0);
}
