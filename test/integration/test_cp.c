/* SPDX-License-Identifier: BSD-3-Clause */
/* test_cp.c - what berth cp says when it cannot: both ends, as the user named them */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "test/lib/daemon.h"

TestSuite(cp, .timeout = 60);

static struct daemon d;

/* @args with every U for the server and L for the local directory: it fails, and says @text likewise. */
static void says(const char *args, const char *text)
{
	char cmd[2048], path[512], want[512] = "", out[2048];
	FILE *p;
	size_t n;

	n = (size_t)snprintf(cmd, sizeof(cmd), "%s cp -q ", built("berth", path));
	for (const char *a = args; *a; a++)
		n += (size_t)snprintf(cmd + n, sizeof(cmd) - n, *a == 'U' ? "%s" : *a == 'L' ? "%s/l" : "%.1s",
		                      *a == 'U' ? d.tcp_url : *a == 'L' ? d.dir : a);
	snprintf(cmd + n, sizeof(cmd) - n, " 2>&1");
	n = 0;
	for (const char *a = text; *a; a++)
		n += (size_t)snprintf(want + n, sizeof(want) - n, *a == 'U' ? "%s" : *a == 'L' ? "%s/l" : "%.1s",
		                      *a == 'U' ? d.tcp_url : *a == 'L' ? d.dir : a);
	p = popen(cmd, "r");
	cr_assert_not_null(p);
	n = fread(out, 1, sizeof(out) - 1, p);
	out[n] = '\0';
	cr_expect_eq(WEXITSTATUS(pclose(p)), 1, "%s", cmd);
	cr_expect(strstr(out, want), "%s: '%s', not '%s'", cmd, out, want);
}

Test(cp, an_error_names_both_ends)
{
	char path[512];

	daemon_start(&d, &(struct daemon_opts){ .size = 64 << 20,
	                                        .exports = "/ 127.0.0.1(rw,no_root_squash,insecure)\n"
	                                                   "/fixed 127.0.0.1(ro,no_root_squash,insecure)\n" });
	cr_assert_eq(shell("%s mkdir %s/fixed %s/t && mkdir -p %s/l/t/d && echo x >%s/l/a && echo y >%s/l/t/d/b &&"
	                   " head -c 90000000 /dev/zero | tr '\\0' x >%s/l/big && %s cp %s/l/a %s/t/a",
	                   built("berth", path), d.tcp_url, d.tcp_url, d.dir, d.dir, d.dir, d.dir, path, d.dir, d.tcp_url), 0);
	says("L/a U/fixed/a", "cannot copy L/a to U/fixed/a: Read-only file system");
	says("L/a U/fixed/", "cannot copy L/a to U/fixed/a: Read-only file system");
	says("L/a U/fixed/?reconnect=5", "cannot copy L/a to U/fixed/a: Read-only file system");
	says("-r L/t U/fixed", "cannot make directory U/fixed/t: Read-only file system");
	says("L/a U/no/such", "cannot copy L/a to U/no/such: No such file or directory");
	says("L/a U/t/a/b", "cannot copy L/a to U/t/a/b: Not a directory");
	says("L/big U/big", "cannot copy L/big to U/big: No space left on device");
	says("L/nosuch U/x", "cannot stat L/nosuch: No such file or directory");
	says("U/t/nosuch L/", "cannot stat U/t/nosuch: No such file or directory");
	says("U/fixed L/", "U/fixed is a directory (use -r)");
	says("U/t/a L/no/such", "cannot copy U/t/a to L/no/such: No such file or directory");
	says("-r U/t L/no/such", "cannot make directory L/no/such: No such file or directory");
	says("L/a L/t U/t", "L/t is a directory (use -r)");
	daemon_remove(&d);
}
