/* SPDX-License-Identifier: BSD-3-Clause */
/* What an administrator is told while the server goes on. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "test/lib/daemon.h"

static struct daemon d;

TestSuite(admin, .timeout = 120);

static bool logged(const char *text)
{
	return shell("grep -qF '%s' %s", text, d.log) == 0;
}

static void until_logged(const char *text)
{
	while (!logged(text)) /* the test's own limit ends it */
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
}

static void export_only(const char *text)
{
	FILE *f = fopen(d.exports, "w");

	cr_assert(f && fputs(text, f) >= 0 && !fclose(f));
	kill(d.pid, SIGHUP);
}

Test(admin, exports_that_lead_nowhere_are_named)
{
	char berth[512];

	daemon_start(&d, &(struct daemon_opts){ .exports = "/ 127.0.0.1(rw,no_root_squash)\n/later 127.0.0.1\n" });
	cr_assert(logged("export /later: No such file or directory"));
	cr_assert_not(logged("export /:"));
	built("berth", berth);
	cr_assert_eq(shell("%s mkdir %s/later && %s touch %s/file", berth, d.tcp_url, berth, d.tcp_url), 0);
	export_only("/later 127.0.0.1\n/file 127.0.0.1\n");
	until_logged("export /file: Not a directory");
	export_only("# none\n");
	until_logged("exports nothing: nobody can mount");
	cr_assert_eq(shell("test $(grep -c 'export /later:' %s) = 1", d.log), 0);
	daemon_remove(&d);
}
