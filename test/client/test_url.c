/* SPDX-License-Identifier: BSD-3-Clause */
/* test_url.c - URLs: what they mean, and that a wrong one is refused with the reason */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/berth.h"

static struct berth_url *good(const char *s)
{
	struct berth_error why = { { 0 } };
	struct berth_url *u = NULL;
	int err = berth_url_parse(s, &u, &why);

	cr_assert_eq(err, 0, "%s: %d %s", s, err, why.text);
	return u;
}

Test(url, parts)
{
	static const struct {
		const char *url, *provider, *host, *port, *path;
	} cases[] = {
		{ "berth+tcp://store/scratch", "tcp", "store", "20049", "/scratch" },
		{ "berth+tcp://store:7/scratch/a b", "tcp", "store", "7", "/scratch/a b" },
		{ "berth+verbs://192.0.2.1:65535/x", "verbs", "192.0.2.1", "65535", "/x" },
		{ "berth+tcp://[2001:db8::1]/x", "tcp", "2001:db8::1", "20049", "/x" },
		{ "berth+tcp://[::1]:20050/x", "tcp", "::1", "20050", "/x" },
		{ "berth+tcp://store", "tcp", "store", "20049", "/" },
		{ "berth+tcp://store?uid=1", "tcp", "store", "20049", "/" },
		{ "berth+shm:///x", "shm", NULL, "berth", "/x" },
		{ "berth+shm://mine/x/", "shm", NULL, "mine", "/x/" },
		{ "berth+tcp://h/%41%2f%ff%25", "tcp", "h", "20049", "/A/\xff%" },
		{ "berth+tcp://h/a:b@c", "tcp", "h", "20049", "/a:b@c" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct berth_url *u = good(cases[i].url);

		cr_expect_str_eq(u->provider, cases[i].provider);
		if (cases[i].host)
			cr_expect_str_eq(u->host, cases[i].host, "%s", cases[i].url);
		else
			cr_expect_null(u->host);
		cr_expect_str_eq(u->port, cases[i].port, "%s", cases[i].url);
		cr_expect_str_eq(u->path, cases[i].path, "%s", cases[i].url);
		berth_url_free(u);
	}
}

Test(url, options)
{
	struct berth_url *u = good("berth+tcp://h/x?uid=12&gid=0&credits=8&domain=lo%26&timeout=5&"
	                           "reconnect=0&inline=8192");

	cr_expect(u->has_uid && u->uid == 12);
	cr_expect(u->has_gid && u->gid == 0);
	cr_expect_eq(u->credits, 8);
	cr_expect_str_eq(u->domain, "lo&");
	cr_expect(u->has_timeout && u->timeout_ms == 5000);
	cr_expect(u->has_reconnect && u->reconnect_ms == 0);
	cr_expect_eq(u->inline_size, 8192);
	berth_url_free(u);
}

/* Each message names what is wrong. */
Test(url, refusals)
{
	static const struct {
		const char *url, *names;
	} cases[] = {
		{ "http://h/x", "http://h/x" },
		{ "berth+tcp:/h/x", "no URL" },
		{ "berth+tpc://h/x", "tpc" },
		{ "berth+://h/x", "berth+tcp://" },
		{ "berth+tcp:///x", "no host" },
		{ "berth+tcp://h:/x", "port" },
		{ "berth+tcp://h:0/x", "port" },
		{ "berth+tcp://h:65536/x", "65535" },
		{ "berth+tcp://h:99999999999/x", "65535" },
		{ "berth+tcp://h:20x/x", "20x" },
		{ "berth+tcp://::1/x", "brackets" },
		{ "berth+tcp://[::1/x", "[::1" },
		{ "berth+tcp://[::1]7/x", "[::1]7" },
		{ "berth+tcp://h/a%", "%25" },
		{ "berth+tcp://h/a%4", "%4" },
		{ "berth+tcp://h/a%zz", "%zz" },
		{ "berth+tcp://h/a%00b", "%00" },
		{ "berth+tcp://h/x?uid", "uid=..." },
		{ "berth+tcp://h/x?uid=", "uid=" },
		{ "berth+tcp://h/x?uid=-1", "-1" },
		{ "berth+tcp://h/x?uid=4294967295", "4294967294" },
		{ "berth+tcp://h/x?uid=1x", "1x" },
		{ "berth+tcp://h/x?color=red", "color" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct berth_error why = { { 0 } };
		struct berth_url *u = (void *)-1;

		cr_expect_eq(berth_url_parse(cases[i].url, &u, &why), -EINVAL, "%s", cases[i].url);
		cr_expect_eq((void *)u, (void *)-1, "output touched");
		cr_expect_not_null(strstr(why.text, cases[i].names),
		                   "%s: '%s' says nothing of '%s'", cases[i].url, why.text,
		                   cases[i].names);
	}
}

Test(url, path_too_long)
{
	static char text[5000] = "berth+tcp://h/";
	struct berth_error why;
	struct berth_url *u;

	memset(text + strlen(text), 'a', 4900);
	cr_assert_eq(berth_url_parse(text, &u, &why), -EINVAL);
}

Test(url, every_byte_survives_escaping)
{
	char name[257], url[1024], *esc;
	struct berth_url *u;

	name[0] = '/';
	for (int i = 1; i < 256; i++)
		name[i] = (char)i;
	name[256] = '\0';
	esc = berth_url_escape(name, 256);
	snprintf(url, sizeof(url), "berth+tcp://h%s", esc);
	u = good(url);
	cr_expect_str_eq(u->path, name);
	berth_url_free(u);
	free(esc);
}

Test(url, recognised)
{
	cr_expect(berth_is_url("berth+tcp://h/x"));
	cr_expect(berth_is_url("berth+nonsense://h/x"));
	cr_expect_not(berth_is_url("/tmp/berth+tcp://h"));
	cr_expect_not(berth_is_url("berth+tcp:"));
	cr_expect_not(berth_is_url("berth+dir/file://x"));
	cr_expect_not(berth_is_url("file"));
}

/* A connection that cannot come about explains itself and leaves the output alone. */
Test(connect, refused_names_the_server)
{
	struct berth_error why = { { 0 } };
	struct berth *b = (void *)-1;

	cr_assert_neq(berth_connect("berth+tcp://127.0.0.1:1/x", NULL, &b, &why), 0);
	cr_expect_eq((void *)b, (void *)-1);
	cr_expect_gt(strlen(why.text), 10);
}
