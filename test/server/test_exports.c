/* SPDX-License-Identifier: BSD-3-Clause */
/* exports.c: who gets in with which options, and what is refused with which words */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "server/server.h"

static struct sockaddr_storage addr(const char *text)
{
	struct sockaddr_storage ss = { 0 };

	if (strchr(text, ':')) {
		ss.ss_family = AF_INET6;
		cr_assert_eq(inet_pton(AF_INET6, text, &((struct sockaddr_in6 *)&ss)->sin6_addr), 1);
	} else {
		ss.ss_family = AF_INET;
		cr_assert_eq(inet_pton(AF_INET, text, &((struct sockaddr_in *)&ss)->sin_addr), 1);
	}
	return ss;
}

static struct exports *parse(const char *text)
{
	struct exports *ex = NULL;
	char why[1000];

	cr_assert_eq(exports_parse(text, "t", &ex, why, sizeof(why)), 0, "%s", why);
	return ex;
}

static int find(const struct exports *ex, const char *dir, const char *who, struct export_opts *o)
{
	struct sockaddr_storage ss = addr(who);
	const char *path;
	uint32_t key;

	return exports_find(ex, dir, &ss, &key, &path, o);
}

Test(exports, the_most_specific_client_counts)
{
	struct exports *ex = parse("/a *(ro) 192.0.2.0/24(rw) 192.0.2.128/255.255.255.128(ro,all_squash)\\\n"
				   "   192.0.2.7(rw,no_root_squash) [2001:db8::]/32(rw,insecure)\n");
	struct export_opts o;

	cr_assert_eq(find(ex, "/a", "198.51.100.1", &o), 0);
	cr_assert(!o.rw && o.root_squash && o.secure && !o.all_squash);
	cr_assert_eq(find(ex, "/a", "192.0.2.5", &o), 0);
	cr_assert(o.rw && o.root_squash);
	cr_assert_eq(find(ex, "/a", "192.0.2.200", &o), 0);
	cr_assert(!o.rw && o.all_squash);
	cr_assert_eq(find(ex, "/a", "192.0.2.7", &o), 0);
	cr_assert(o.rw && !o.root_squash);
	cr_assert_eq(find(ex, "/a", "2001:db8:1::1", &o), 0);
	cr_assert(o.rw && !o.secure);
	cr_assert_eq(find(ex, "/a", "2001:db9::1", &o), 0, "* stands for IPv6 as well");
	cr_assert(!o.rw);
	exports_free(ex);
}

Test(exports, a_v4_client_on_a_v6_socket_is_the_same_client)
{
	struct exports *ex = parse("/ 192.0.2.0/24(rw)\n");
	struct export_opts o;

	cr_assert_eq(find(ex, "/", "::ffff:192.0.2.9", &o), 0);
	cr_assert_eq(find(ex, "/", "::ffff:192.0.3.9", &o), -EACCES);
	exports_free(ex);
}

Test(exports, the_longest_path_that_holds_a_directory_counts)
{
	struct exports *ex = parse("/ *(ro)\n/a/b *(rw)\n\"/with blank\" *(rw)\n/o\\040ct *(rw)\n");
	struct sockaddr_storage ss = addr("192.0.2.1");
	struct export_opts o;
	const char *path;
	uint32_t key, key2;

	cr_assert_eq(exports_find(ex, "/a/bc", &ss, &key, &path, &o), 0);
	cr_assert_str_eq(path, "/");
	cr_assert_eq(exports_find(ex, "/a/b/c", &ss, &key, &path, &o), 0);
	cr_assert_str_eq(path, "/a/b");
	cr_assert_eq(exports_by_key(ex, key, &ss, &o, &path), 0);
	cr_assert(o.rw);
	cr_assert_str_eq(path, "/a/b");
	cr_assert_eq(exports_find(ex, "/with blank/x", &ss, &key2, &path, &o), 0);
	cr_assert_str_eq(path, "/with blank");
	cr_assert_eq(exports_find(ex, "/o ct", &ss, &key2, &path, &o), 0);
	cr_assert_str_eq(path, "/o ct");
	cr_assert_neq(key, key2);
	cr_assert_eq(exports_by_key(ex, 12345, &ss, &o, &path), -ENOENT);
	exports_free(ex);
}

Test(exports, a_key_is_the_same_after_a_reload)
{
	struct exports *a = parse("/x *(ro)\n"), *b = parse("/first *(ro)\n/x 192.0.2.1\n");
	struct sockaddr_storage ss = addr("192.0.2.1");
	struct export_opts o;
	const char *path;
	uint32_t ka, kb;

	cr_assert_eq(exports_find(a, "/x", &ss, &ka, &path, &o), 0);
	cr_assert_eq(exports_find(b, "/x", &ss, &kb, &path, &o), 0);
	cr_assert_eq(ka, kb);
	exports_free(a);
	exports_free(b);
}

Test(exports, defaults_of_a_line_and_ids)
{
	struct exports *ex = parse("/x -rw,anonuid=7 192.0.2.1 192.0.2.2(ro,anongid=-2) # comment\n");
	struct export_opts o;

	cr_assert_eq(find(ex, "/x", "192.0.2.1", &o), 0);
	cr_assert(o.rw && o.anonuid == 7 && o.anongid == 65534);
	cr_assert_eq(find(ex, "/x", "192.0.2.2", &o), 0);
	cr_assert(!o.rw && o.anonuid == 7 && o.anongid == 4294967294u);
	exports_free(ex);
}

Test(exports, entries_for_showmount)
{
	struct exports *ex = parse("/x 192.0.2.1(rw) *(ro)\n/y *\n");
	const char *path, *const *specs;
	unsigned n;

	cr_assert(exports_entry(ex, 0, &path, &specs, &n));
	cr_assert(n == 2 && !strcmp(path, "/x") && !strcmp(specs[0], "192.0.2.1") && !strcmp(specs[1], "*"));
	cr_assert(exports_entry(ex, 1, &path, &specs, &n));
	cr_assert(!exports_entry(ex, 2, &path, &specs, &n));
	exports_free(ex);
}

Test(exports, mistakes_are_named_with_their_lines)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "\n\n/x *(rw,colour)\n", "t:3: unknown option 'colour'" },
		{ "/x \\\n *(no)\n", "t:2: unknown option 'no'" },
		{ "x *(rw)\n", "t:1: 'x': an export is an absolute path" },
		{ "/a/../b *\n", "without . and .." },
		{ "/x\n", "exported to nobody" },
		{ "/x 192.0.2.1 (rw)\n", "take out the blank" },
		{ "/x 192.0.2.1(rw\n", "must end with ')'" },
		{ "/x 192.0.2.0/33(rw)\n", "prefix length" },
		{ "/x 192.0.2.0/255.0.255.0\n", "prefix length" },
		{ "/x @group(rw)\n", "netgroups" },
		{ "/x *.example.com(rw)\n", "name patterns" },
		{ "/x *(anonuid=me)\n", "user number" },
		{ "\"/x *(rw)\n", "not closed" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct exports *ex = NULL;
		char why[1000];

		cr_assert_eq(exports_parse(cases[i].text, "t", &ex, why, sizeof(why)), -EINVAL, "%s",
			     cases[i].text);
		cr_assert_null(ex);
		cr_assert(strstr(why, cases[i].says), "'%s' does not say '%s'", why, cases[i].says);
	}
}
