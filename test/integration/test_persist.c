/* SPDX-License-Identifier: BSD-3-Clause */
/* test_persist.c - the persistence verdict of a running server, and the overrides that it refuses */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "test/lib/daemon.h"

static struct daemon d;

TestSuite(persist, .timeout = 60);

static json_t *ask(void)
{
	char cmd[1024], path[512];
	json_t *o;
	FILE *p;

	snprintf(cmd, sizeof(cmd), "%s -s %s stat --json", built("berth", path), d.control);
	p = popen(cmd, "r");
	o = json_loadf(p, 0, NULL);
	pclose(p);
	cr_assert_not_null(o);
	return o;
}

static const char *text(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static json_t *fabric(json_t *o, const char *name)
{
	json_t *f;
	size_t i;

	json_array_foreach(json_object_get(o, "fabrics"), i, f)
		if (!strcmp(text(f, "name"), name))
			return f;
	return NULL;
}

static const char *const with_layouts[] = { "fabric tcp.layouts=on", "fabric shm.layouts=on", NULL };

Test(persist, lines_written_back_are_enough_where_the_pool_is_memory)
{
	json_t *o, *f;

	daemon_start(&d, &(struct daemon_opts){ .set = with_layouts });
	o = ask();
	cr_assert_str_eq(text(json_object_get(o, "pool"), "persistence"), "clwb");
	cr_assert(strstr(text(json_object_get(o, "pool"), "persistence_not_promised"), "did not confirm"),
		  "the granularity is forced, and nobody is told");
	f = fabric(o, "tcp");
	cr_assert_str_eq(text(f, "layout_persistence"), "commit-complete");
	cr_assert(strstr(text(f, "layout_persistence_not_promised"), "did not confirm"));
	f = fabric(o, "shm");
	cr_assert_str_eq(text(f, "layout_persistence"), "clwb");
	cr_assert(strstr(text(f, "layout_persistence_reason"), "at COMMIT"));
	json_decref(o);
	cr_assert_eq(shell("grep -q 'fabric tcp.* persistence of layouts commit-complete .*self-test.* passed' %s", d.log), 0);
	cr_assert_eq(shell("%s -s %s stat | grep -q 'layouts, fabric tcp *commit-complete'",
			   built("berth", (char[512]){ 0 }), d.control), 0);
	daemon_remove(&d);
}

/* FI_COMMIT_COMPLETE of tcp writes lines back, into the page cache. */
Test(persist, what_tcp_commits_to_the_page_cache_is_not_durable)
{
	json_t *o;

	daemon_start(&d, &(struct daemon_opts){ .msync = true, .set = with_layouts });
	o = ask();
	cr_assert_str_eq(text(json_object_get(o, "pool"), "persistence"), "msync");
	cr_assert_str_eq(text(fabric(o, "tcp"), "layout_persistence"), "msync");
	cr_assert_str_eq(text(fabric(o, "shm"), "layout_persistence"), "msync");
	json_decref(o);
	daemon_remove(&d);
}

Test(persist, without_layouts_there_is_no_verdict)
{
	json_t *o;

	daemon_start(&d, &(struct daemon_opts){ 0 });
	o = ask();
	cr_assert(json_is_null(json_object_get(fabric(o, "tcp"), "layout_persistence")));
	cr_assert_str_eq(text(fabric(o, "tcp"), "layout_persistence_reason"), "layouts = off");
	json_decref(o);
	daemon_remove(&d);
}

/* berthd on the pool of a stopped daemon, with one fabric: exit status 2, and the words in its log. */
static void refused(const char *provider, const char *setting, const char *gran, const char *says)
{
	char path[512];
	int status = shell("PMEM2_FORCE_GRANULARITY=%s timeout 30 %s -o server.pool=%s -o exports.file=%s -o nfs.port=0 "
			   "-o server.supervise=off -o server.control=%s -o 'fabric f.provider=%s' -o 'fabric f.service=0' "
			   "-o 'fabric f.layouts=on' -o 'fabric f.%s' 2>%s.out", gran, built("berthd", path), d.pool,
			   d.exports, d.control, provider, setting, d.log);

	cr_expect_eq(status, 2, "%s %s on %s: %d", provider, setting, gran, status);
	cr_expect_eq(shell("grep -qF '[fabric f] persistence' %s.out && grep -q '%s' %s.out", d.log, says, d.log), 0,
		     "%s %s: %s", provider, setting, says);
	cr_expect_eq(shell("grep -q 'use persistence = auto' %s.out", d.log), 0, "no cure");
}

Test(persist, an_override_that_claims_too_much_stops_the_server)
{
	daemon_start(&d, &(struct daemon_opts){ .no_fabric = true });
	daemon_stop(&d);
	refused("tcp", "persistence=commit-complete", "PAGE", "needs msync");
	refused("tcp", "persistence=read-after-write", "CACHE_LINE", "for cards that place writes themselves");
	refused("shm", "persistence=commit-complete", "BYTE", "no FI_RMA_PMEM");
	refused("tcp", "persistence=fence", "CACHE_LINE", "not the method of the pool");
	daemon_remove(&d);
}
