/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * berth quota against a running server, over a kill, and on the pool without one.
 */
#include <criterion/criterion.h>

#include "test/lib/daemon.h"

static void run(bool msync)
{
	struct daemon d;
	char berth[512];

	daemon_start(&d, &(struct daemon_opts){ .msync = msync });
	built("berth", berth);
	cr_assert_eq(shell("head -c 81920 /dev/urandom > %s/src", d.dir), 0);
	cr_assert_eq(
		shell("%s touch %s/f && %s chown 12:13 %s/f", berth, d.tcp_url, berth, d.tcp_url),
		0);
	cr_assert_eq(
		shell("%s -s %s quota -u 12 --blocks 19 --inodes 1 > /dev/null", berth, d.control),
		0);
	cr_assert_neq(shell("%s cp -q %s/src %s/f 2> %s/said", berth, d.dir, d.tcp_url, d.dir), 0);
	cr_assert_eq(shell("grep -qi quota %s/said", d.dir), 0);
	cr_assert_eq(shell("%s touch %s/g && ! %s chown 12 %s/g 2> /dev/null", berth, d.tcp_url,
	                   berth, d.tcp_url),
	             0);
	cr_assert_eq(shell("%s -s %s quota -u 12 --blocks 20 > /dev/null", berth, d.control), 0);
	cr_assert_eq(shell("%s cp -q %s/src %s/f", berth, d.dir, d.tcp_url), 0);
	cr_assert_eq(shell("%s -s %s quota | grep -Eq '^uid 12 +20 +20 +1 +1$'", berth, d.control),
	             0);
	cr_assert_eq(shell("%s -s %s quota | grep -Eq '^gid 13 +20 +- +1 +-$'", berth, d.control),
	             0);
	daemon_kill(&d);
	daemon_launch(&d);
	cr_assert_eq(shell("%s -s %s quota -u 12 --json | grep -q '\"block_limit\": *20'", berth,
	                   d.control),
	             0);
	cr_assert_neq(shell("%s quota --pool %s 2> /dev/null", berth, d.pool), 0); /* in use */
	daemon_stop(&d);
	cr_assert_eq(shell("%s quota --pool %s -u 12 --inodes 0 | "
	                   "grep -Eq '^uid 12 +20 +20 +1 +-$'",
	                   berth, d.pool),
	             0);
	daemon_launch(&d);
	cr_assert_eq(shell("%s chown 12 %s/g && %s rm %s/f", berth, d.tcp_url, berth, d.tcp_url),
	             0);
	cr_assert_eq(
		shell("%s -s %s quota -u 12 | grep -Eq '^uid 12 +0 +20 +1 +-$'", berth, d.control),
		0);
	cr_assert_eq(shell("%s -s %s quota --blocks 3 2> /dev/null", berth, d.control), 2);
	cr_assert_eq(shell("%s -s %s quota -u x 2> /dev/null", berth, d.control), 2);
	daemon_remove(&d);
}

Test(quota, limits_hold_for_clients_and_survive)
{
	run(false);
}
Test(quota, limits_hold_for_clients_and_survive_with_msync)
{
	run(true);
}
