/* SPDX-License-Identifier: BSD-3-Clause */
/* Real trees and large files, one side of each transfer being a program that is not ours (libnfs). */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "test/lib/daemon.h"
#include "test/lib/nfstree.h"

static struct daemon d;
static char dir[] = "/dev/shm/berth-real-XXXXXX";

static void setup(void)
{
	cr_assert(mkdtemp(dir));
	daemon_start(&d, &(struct daemon_opts){ .size = 4ull << 30 });
}

static void teardown(void)
{
	daemon_remove(&d);
	shell("chmod -R u+rwx %s; rm -rf %s", dir, dir);
}

TestSuite(real_input, .init = setup, .fini = teardown, .timeout = 500);

#define BERTH(...) cr_assert_eq(shell(__VA_ARGS__), 0)

Test(real_input, what_libnfs_stores_berth_reads_over_fabric_tcp_and_shm)
{
	struct nfs_context *nfs = nfst_mount(&d, "/");
	char src[64], out[64], berth[512];

	snprintf(src, sizeof(src), "%s/src", dir);
	snprintf(out, sizeof(out), "%s/out", dir);
	built("berth", berth);
	tree_make("/usr/include", src);
	nfst_put(nfs, src, "/tree");
	nfs_destroy_context(nfs);
	BERTH("head -c 1073741824 /dev/urandom >%s/big", dir);
	BERTH("nfs-cp %s/big 'nfs://127.0.0.1//big?nfsport=%u&mountport=%u' >/dev/null", dir, d.port, d.port);

	BERTH("%s cp -r -p %s/tree %s", berth, d.tcp_url, out);
	tree_same(src, out);
	BERTH("%s cp %s/big %s/big.tcp && cmp %s/big %s/big.tcp && rm %s/big.tcp", berth, d.tcp_url, dir, dir,
	      dir, dir);
	BERTH("chmod -R u+rwx %s; rm -rf %s", out, out);

	BERTH("%s cp -r -p %s/tree %s", berth, d.shm_url, out);
	tree_same(src, out);
	BERTH("%s cp %s/big %s/big.shm && cmp %s/big %s/big.shm", berth, d.shm_url, dir, dir, dir);

	cr_assert_eq(daemon_counter(&d, "payload_copied_bytes"), 0);
	cr_assert_geq(daemon_counter(&d, "payload_placed_bytes"), 3ull << 30, "1 GiB in, twice out");
}

Test(real_input, what_berth_stores_libnfs_reads)
{
	struct nfs_context *nfs;
	char src[64], out[64], berth[512];

	snprintf(src, sizeof(src), "%s/src", dir);
	snprintf(out, sizeof(out), "%s/out", dir);
	built("berth", berth);
	tree_make("/usr/include", src);
	BERTH("head -c 1073741824 /dev/urandom >%s/big", dir);
	BERTH("%s cp -r -p %s %s/tree", berth, src, d.shm_url);
	BERTH("%s cp %s/big %s/big", berth, dir, d.shm_url);
	BERTH("%s cp -r -p %s %s/tree2", berth, src, d.tcp_url);
	BERTH("%s cp %s/big %s/big2", berth, dir, d.tcp_url);

	nfs = nfst_mount(&d, "/");
	nfst_get(nfs, "/tree", out);
	tree_same(src, out);
	BERTH("chmod -R u+rwx %s; rm -rf %s", out, out);
	nfst_get(nfs, "/tree2", out);
	tree_same(src, out);
	nfs_destroy_context(nfs);
	BERTH("nfs-cat 'nfs://127.0.0.1//big?nfsport=%u&mountport=%u' | cmp - %s/big", d.port, d.port, dir);
	BERTH("nfs-cp 'nfs://127.0.0.1//big2?nfsport=%u&mountport=%u' %s/back >/dev/null && cmp %s/big %s/back",
	      d.port, d.port, dir, dir, dir);
	BERTH("test $(nfs-ls -R 'nfs://127.0.0.1/tree/from?nfsport=%u&mountport=%u' | wc -l) = "
	      "$(find %s/from -mindepth 1 | wc -l)", d.port, d.port, src);
	cr_assert_eq(daemon_counter(&d, "payload_copied_bytes"), 0);
	cr_assert_geq(daemon_counter(&d, "payload_placed_bytes"), 4ull << 30, "twice 1 GiB in, twice out");
}

Test(real_input, a_copy_from_server_to_server_keeps_everything)
{
	struct daemon e;
	char src[64], out[64], berth[512];

	snprintf(src, sizeof(src), "%s/src", dir);
	snprintf(out, sizeof(out), "%s/out", dir);
	built("berth", berth);
	daemon_start(&e, &(struct daemon_opts){ .size = 1ull << 30 });
	tree_make("/usr/include/linux", src);
	BERTH("%s cp -r -p %s %s/a", berth, src, d.tcp_url);
	BERTH("%s cp -r -p %s/a %s/b", berth, d.tcp_url, e.shm_url);
	BERTH("%s cp -r -p %s/b %s", berth, e.tcp_url, out);
	tree_same(src, out);
	daemon_remove(&e);
}
