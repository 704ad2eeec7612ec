/* SPDX-License-Identifier: BSD-3-Clause */
/* test_probe.c - berth probe: verdicts for a pool, the section that berthd takes, and the tables of providers.md */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "test/lib/daemon.h"

/* AddressSanitizer wants to be the first library, unless it is told otherwise. */
#define PRELOAD "ASAN_OPTIONS=$ASAN_OPTIONS:verify_asan_link_order=0 LD_PRELOAD="

TestSuite(probe, .timeout = 120);

static char dir[] = "/dev/shm/berth-probe-XXXXXX", pool[64], path[512];

static void setup(void)
{
	int fd;

	cr_assert_not_null(mkdtemp(dir));
	snprintf(pool, sizeof(pool), "%s/pool", dir);
	fd = open(pool, O_RDWR | O_CREAT, 0600);
	cr_assert(fd >= 0 && !ftruncate(fd, 32 << 20));
	close(fd);
}

static void teardown(void)
{
	shell("rm -rf %s", dir);
}

static json_t *probe(const char *env, const char *args)
{
	char cmd[1200];
	json_t *o;
	FILE *p;

	snprintf(cmd, sizeof(cmd), "%s %s probe --json %s", env, built("berth", path), args);
	p = popen(cmd, "r");
	o = json_loadf(p, 0, NULL);
	cr_assert_eq(pclose(p), 0, "%s", cmd);
	cr_assert_not_null(o, "no JSON: %s", cmd);
	return o;
}

static const char *text(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static const char *first_address(json_t *o)
{
	const char *s = json_string_value(json_array_get(json_object_get(o, "addresses"), 0));

	return s ? s : "";
}

/* The offer of @provider on loopback, or without an address. */
static json_t *offer(json_t *o, const char *provider, const char *ep_type)
{
	json_t *e, *found = NULL;
	size_t i;

	json_array_foreach(json_object_get(o, "offers"), i, e)
		if (!strcmp(text(e, "provider"), provider) && !strcmp(text(e, "ep_type"), ep_type) &&
		    (strcmp(provider, "tcp") || !strcmp(first_address(e), "127.0.0.1")))
			found = e;
	cr_assert_not_null(found, "%s %s is not listed", provider, ep_type);
	cr_assert(json_is_true(json_object_get(found, "usable")), "%s: %s", provider, text(found, "why"));
	return found;
}

static const char *method(json_t *offer, const char *whose)
{
	return text(json_object_get(offer, whose), "method");
}

Test(probe, a_pool_of_pages_needs_msync_whatever_the_provider_says, .init = setup, .fini = teardown)
{
	char args[200];
	json_t *o, *tcp;

	snprintf(args, sizeof(args), "--provider tcp --pool %s", pool);
	o = probe("PMEM2_FORCE_GRANULARITY=PAGE", args);
	tcp = offer(o, "tcp", "FI_EP_MSG");
	cr_assert_str_eq(text(tcp, "commit_test"), "passed");
	cr_assert_str_eq(method(tcp, "persistence"), "msync");
	cr_assert_str_eq(method(tcp, "layout_persistence"), "msync");
	cr_assert_str_eq(text(json_object_get(o, "pool"), "granularity"), "page");
	json_decref(o);
}

Test(probe, memory_is_committed_by_tcp_and_by_the_server_over_shm, .init = setup, .fini = teardown)
{
	char args[200];
	json_t *o;

	snprintf(args, sizeof(args), "--pool %s", pool);
	o = probe("PMEM2_FORCE_GRANULARITY=CACHE_LINE", args);
	cr_assert_str_eq(method(offer(o, "tcp", "FI_EP_MSG"), "persistence"), "clwb");
	cr_assert_str_eq(method(offer(o, "tcp", "FI_EP_MSG"), "layout_persistence"), "commit-complete");
	cr_assert_str_eq(method(offer(o, "shm", "FI_EP_RDM"), "layout_persistence"), "clwb");
	cr_assert_str_eq(text(offer(o, "shm", "FI_EP_RDM"), "placement"), "direct");
	cr_assert(strstr(text(json_object_get(offer(o, "shm", "FI_EP_RDM"), "persistence"), "not_promised"), "did not confirm"));
	json_decref(o);
}

static const char *domains(json_t *o, const char *provider, const char *ep_type, bool *possible)
{
	json_t *d = json_object_get(offer(o, provider, ep_type), "layout_domain");

	*possible = json_is_true(json_object_get(d, "client_possible"));
	return text(d, "default");
}

Test(probe, where_each_client_has_keys_of_its_own, .init = setup, .fini = teardown)
{
	json_t *o = probe("", ""), *d = json_object_get(offer(o, "tcp", "FI_EP_MSG"), "layout_domain");
	bool possible;

	cr_expect_str_eq(domains(o, "tcp", "FI_EP_MSG", &possible), "shared");
	cr_expect(possible);
	cr_expect_eq(json_integer_value(json_object_get(d, "kib_each")), 527);
	cr_expect_eq(json_integer_value(json_object_get(d, "layout_domains")), 128);
	cr_expect(strstr(text(offer(o, "tcp", "FI_EP_MSG"), "config"), "\nlayout_domain = shared\n"));
	cr_expect_str_eq(domains(o, "shm", "FI_EP_RDM", &possible), "shared");
	cr_expect_not(possible);
	cr_expect_null(strstr(text(offer(o, "shm", "FI_EP_RDM"), "config"), "layout_domain"));
	json_decref(o);
	cr_expect_eq(shell("%s probe --provider tcp >%s/out && grep -q 'layout_domain = shared by default: keys are 64 random bits; "
	                   "client would take 527 KiB' %s/out",
	                   built("berth", path), dir, dir), 0);
}

/* berthd takes the section as it is printed. */
Test(probe, the_section_is_one_that_berthd_takes, .init = setup, .fini = teardown)
{
	static const char *const providers[][2] = { { "tcp", "FI_EP_MSG" }, { "shm", "FI_EP_RDM" } };
	json_t *o = probe("", "");
	char file[128];
	FILE *f;

	snprintf(file, sizeof(file), "%s/berth.conf", dir);
	for (size_t i = 0; i < 2; i++) {
		f = fopen(file, "w");
		fprintf(f, "[server]\npool = %s\n[exports]\nfile = %s/exports\n[nfs]\nport = 0\n%s", pool, dir,
		        text(offer(o, providers[i][0], providers[i][1]), "config"));
		fclose(f);
		cr_assert_eq(shell("echo '/ *(rw)' >%s/exports; %s -c %s -t", dir, built("berthd", path), file), 0, "%s",
		             text(offer(o, providers[i][0], providers[i][1]), "config"));
	}
	json_decref(o);
}

Test(probe, a_provider_that_is_not_here_is_told)
{
	json_t *o = probe("", "--provider no-such"), *e = json_array_get(json_object_get(o, "offers"), 0);

	cr_assert_eq(json_array_size(json_object_get(o, "offers")), 1);
	cr_assert(json_is_false(json_object_get(e, "usable")));
	cr_assert_str_eq(text(e, "why"), "offers nothing on this machine");
	json_decref(o);
}

/* --- providers.md -------------------------------------------------------------------------------- */

static char *slurp(FILE *f)
{
	char *s = calloc(1, 65536);

	cr_assert(f && s);
	s[fread(s, 1, 65535, f)] = '\0';
	return s;
}

/* Each table row of @from between @begin and @end is in @to. */
static unsigned rows_in(const char *from, const char *begin, const char *end, const char *to, const char *but)
{
	const char *at = strstr(from, begin), *stop = at ? strstr(at + strlen(begin), end) : NULL, *nl;
	unsigned n = 0;

	cr_assert(at && stop, "no '%s'", begin);
	for (at = strchr(at, '|'); at && at < stop; at = nl + 1) {
		char row[300];

		nl = strchr(at, '\n');
		if (*at != '|')
			continue;
		snprintf(row, sizeof(row), "%.*s\n", (int)(nl - at), at);
		if (but && strstr(row, but) == row)
			continue;
		n++;
		cr_expect_not_null(strstr(to, row), "only one of text and code says: %s", row);
	}
	return n;
}

Test(probe, providers_md_says_what_the_code_does)
{
	char cmd[600];
	FILE *p, *f = fopen("providers.md", "r");
	char *doc = slurp(f), *now, *second;

	fclose(f);
	snprintf(cmd, sizeof(cmd), "%s probe --markdown; echo end", built("berth", path));
	p = popen(cmd, "r");
	now = slurp(p);
	cr_assert_eq(pclose(p), 0);
	second = strstr(now, "\n\n");
	cr_assert_not_null(second);
	/* verbs is not on every machine */
	cr_assert_eq(rows_in(doc, "<!-- probe: providers -->", "<!-- end -->", now, "| `verbs`"), 4);
	cr_assert_geq(rows_in(now, "| provider", "\n\n", doc, NULL), 4);
	cr_assert_eq(rows_in(doc, "<!-- probe: persistence -->", "<!-- end -->", second, NULL), 7);
	cr_assert_eq(rows_in(now, "| who places", "\nend", doc, NULL), 7);
	free(doc);
	free(now);
}

/* --- providers that misbehave ------------------------------------------------------------------ */

/* A fi_getinfo of our own in front of libfabric's. */
static void misbehaves(const char *body, const char *why)
{
	char env[200];
	json_t *o, *e;

	cr_assert_eq(shell("echo '#include <stdlib.h>\n#include <unistd.h>\nint fi_getinfo(void);\n"
	                   "int fi_getinfo(void) { %s }' | cc -shared -fPIC -x c -o %s/bad.so -",
	                   body, dir), 0);
	snprintf(env, sizeof(env), PRELOAD "%s/bad.so", dir);
	o = probe(env, "--provider tcp --timeout 1");
	e = json_array_get(json_object_get(o, "offers"), 0);
	cr_expect(json_is_false(json_object_get(e, "usable")) && strstr(text(e, "why"), why), "'%s', not '%s'",
	          text(e, "why"), why);
	json_decref(o);
}

Test(probe, one_that_hangs_is_given_up, .init = setup, .fini = teardown)
{
	misbehaves("for (;;) pause();", "did not answer within 1 s");
}

Test(probe, one_that_crashes_is_told, .init = setup, .fini = teardown)
{
	misbehaves("abort();", "crashed when asked: Aborted");
}

/* An address that a section cannot name is none to choose. */
Test(probe, link_local_addresses_are_not_usable, .init = setup, .fini = teardown)
{
	char env[200];
	json_t *o, *e;
	size_t i;

	cr_assert_eq(shell("echo '#include <string.h>\nconst char *inet_ntop(int af, const void *a, char *b, unsigned n);\n"
	                   "const char *inet_ntop(int af, const void *a, char *b, unsigned n) { return strncpy(b, \"fe80::1\", n); }' "
	                   "| cc -shared -fPIC -x c -o %s/local.so -",
	                   dir), 0);
	snprintf(env, sizeof(env), PRELOAD "%s/local.so", dir);
	o = probe(env, "--provider tcp");
	cr_assert_gt(json_array_size(json_object_get(o, "offers")), 0);
	json_array_foreach(json_object_get(o, "offers"), i, e) {
		cr_expect(json_is_false(json_object_get(e, "usable")));
		cr_expect(strstr(text(e, "why"), "fe80::1 is link-local"), "%s", text(e, "why"));
		cr_expect_null(json_object_get(e, "config"));
	}
	json_decref(o);
}
