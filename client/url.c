/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * url.c - berth+PROVIDER://HOST[:PORT]/EXPORT/PATH?OPTION=VALUE
 *
 * Written for the person who mistyped one: every refusal names the part and what would be right.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/client.h"

#define PREFIX       "berth+"
#define DEFAULT_PORT "20049"

static const char *const providers[] = { "tcp", "shm", "verbs", "efa", "psm3",
	                                 "opx", "cxi", "ucx",   "net", "sockets" };

static int bad(struct berth_error *why, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int bad(struct berth_error *why, const char *fmt, ...)
{
	va_list ap;

	if (why) {
		va_start(ap, fmt);
		vsnprintf(why->text, sizeof(why->text), fmt, ap);
		va_end(ap);
	}
	return -EINVAL;
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The bytes that @s of @len stands for; malloc'ed. NUL cannot be part of any name. */
static int unescape(const char *s, size_t len, char **out, struct berth_error *why)
{
	char *buf = malloc(len + 1), *w = buf;

	if (!buf)
		return -ENOMEM;
	for (size_t i = 0; i < len; i++) {
		int hi, lo;

		if (s[i] != '%') {
			*w++ = s[i];
			continue;
		}
		hi = len - i > 2 ? hex(s[i + 1]) : -1;
		lo = len - i > 2 ? hex(s[i + 2]) : -1;
		if (hi < 0 || lo < 0 || (!hi && !lo)) {
			free(buf);
			return bad(why, "'%.*s' is no escaped byte: write %%25 for a percent sign",
			           (int)(len - i < 3 ? len - i : 3), s + i);
		}
		*w++ = (char)(hi << 4 | lo);
		i += 2;
	}
	*w = '\0';
	*out = buf;
	return 0;
}

static int number(const char *key, const char *text, uint32_t max, uint32_t *out,
                  struct berth_error *why)
{
	unsigned long long v;
	char *end;

	errno = 0;
	v = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || v > max)
		return bad(why, "URL option %s=%s: a number from 0 to %u is wanted", key, text,
		           max);
	*out = (uint32_t)v;
	return 0;
}

static int one_option(struct berth_url *u, const char *key, char **value, struct berth_error *why)
{
	uint32_t sec;
	int err;

	if (!strcmp(key, "uid")) {
		u->has_uid = true;
		return number(key, *value, UINT32_MAX - 1, &u->uid, why);
	}
	if (!strcmp(key, "gid")) {
		u->has_gid = true;
		return number(key, *value, UINT32_MAX - 1, &u->gid, why);
	}
	if (!strcmp(key, "credits"))
		return number(key, *value, 4096, &u->credits, why);
	if (!strcmp(key, "inline"))
		return number(key, *value, 1 << 20, &u->inline_size, why);
	if (!strcmp(key, "timeout") || !strcmp(key, "reconnect")) {
		err = number(key, *value, 1000000, &sec, why);
		if (err)
			return err;
		if (*key == 't') {
			u->has_timeout = true;
			u->timeout_ms = sec * 1000;
		} else {
			u->has_reconnect = true;
			u->reconnect_ms = sec * 1000;
		}
		return 0;
	}
	if (!strcmp(key, "domain") || !strcmp(key, "fabric")) {
		char **place = *key == 'd' ? &u->domain : &u->fabric;

		free(*place);
		*place = *value;
		*value = NULL;
		return 0;
	}
	return bad(why,
	           "unknown URL option '%s': known are uid, gid, domain, fabric, credits, inline, "
	           "timeout, reconnect",
	           key);
}

static int parse_query(struct berth_url *u, const char *q, struct berth_error *why)
{
	while (*q) {
		size_t len = strcspn(q, "&");
		const char *eq = memchr(q, '=', len);
		char *key = NULL, *value = NULL;
		int err;

		if (!eq)
			return bad(why, "URL option '%.*s' has no value: write %.*s=...", (int)len,
			           q, (int)len, q);
		err = unescape(q, (size_t)(eq - q), &key, why);
		if (!err)
			err = unescape(eq + 1, len - (size_t)(eq + 1 - q), &value, why);
		if (!err)
			err = one_option(u, key, &value, why);
		free(key);
		free(value);
		if (err)
			return err;
		q += len;
		q += *q == '&';
	}
	return 0;
}

static int check_port(const char *port, struct berth_error *why)
{
	size_t len = strlen(port);

	if (!len || len > 5 || strspn(port, "0123456789") != len || atoi(port) < 1 ||
	    atoi(port) > 65535)
		return bad(why, "'%s' is no port: a number from 1 to 65535 is wanted", port);
	return 0;
}

/* HOST, HOST:PORT, [ADDRESS], [ADDRESS]:PORT; of shm: a name or nothing. */
static int parse_authority(struct berth_url *u, const char *s, size_t len, struct berth_error *why)
{
	const char *host = s, *port = NULL, *end = s + len, *close;
	size_t host_len = len;

	if (!strcmp(u->provider, "shm")) {
		u->port = len ? strndup(s, len) : strdup("berth");
		return u->port ? 0 : -ENOMEM;
	}
	if (len && *s == '[') {
		close = memchr(s, ']', len);
		if (!close || (close + 1 < end && close[1] != ':'))
			return bad(
				why,
				"'%.*s' is no address: an IPv6 one is written [2001:db8::1]:20049",
				(int)len, s);
		host = s + 1;
		host_len = (size_t)(close - host);
		port = close + 1 < end ? close + 2 : NULL;
	} else {
		close = memchr(s, ':', len);
		if (close) {
			host_len = (size_t)(close - s);
			port = close + 1;
			if (memchr(port, ':', (size_t)(end - port)))
				return bad(why, "'%.*s': put an IPv6 address in brackets: [%.*s]",
				           (int)len, s, (int)len, s);
		}
	}
	if (!host_len)
		return bad(why, "the URL names no host: berth+%s://HOST/EXPORT", u->provider);
	u->host = strndup(host, host_len);
	u->port = port ? strndup(port, (size_t)(end - port)) : strdup(DEFAULT_PORT);
	if (!u->host || !u->port)
		return -ENOMEM;
	return check_port(u->port, why);
}

static int parse_provider(struct berth_url *u, const char *s, size_t len, struct berth_error *why)
{
	for (size_t i = 0; i < sizeof(providers) / sizeof(*providers); i++)
		if (strlen(providers[i]) == len && !memcmp(s, providers[i], len)) {
			memcpy(u->provider, s, len);
			return 0;
		}
	return bad(
		why,
		"unknown provider '%.*s' in the URL: berth+tcp://, berth+shm:// or berth+verbs://",
		(int)len, s);
}

static int parse(struct berth_url *u, const char *s, struct berth_error *why)
{
	const char *sep = strstr(s, "://"), *path, *query;
	int err;

	if (!berth_is_url(s))
		return bad(why, "'%s' is no URL of ours: berth+tcp://HOST[:PORT]/EXPORT/PATH", s);
	s += strlen(PREFIX);
	err = parse_provider(u, s, (size_t)(sep - s), why);
	if (err)
		return err;
	s = sep + 3;
	path = s + strcspn(s, "/?");
	err = parse_authority(u, s, (size_t)(path - s), why);
	if (err)
		return err;
	query = strchr(path, '?');
	if (path == query || !*path)
		u->path = strdup("/");
	else
		err = unescape(path, query ? (size_t)(query - path) : strlen(path), &u->path, why);
	if (!err && !u->path)
		err = -ENOMEM;
	if (!err && strlen(u->path) >= BERTH_PATH_MAX)
		err = bad(why, "the URL's path is longer than %d bytes", BERTH_PATH_MAX - 1);
	if (!err && query)
		err = parse_query(u, query + 1, why);
	return err;
}

bool berth_is_url(const char *s)
{
	const char *sep = strstr(s, "://");

	return !strncmp(s, PREFIX, strlen(PREFIX)) && sep && !memchr(s, '/', (size_t)(sep - s));
}

void berth_url_free(struct berth_url *u)
{
	if (!u)
		return;
	free(u->host);
	free(u->port);
	free(u->path);
	free(u->domain);
	free(u->fabric);
	free(u);
}

int berth_url_parse(const char *s, struct berth_url **out, struct berth_error *why)
{
	struct berth_url *u = calloc(1, sizeof(*u));
	int err;

	if (!u)
		return -ENOMEM;
	err = parse(u, s, why);
	if (err) {
		berth_url_free(u);
		return err;
	}
	*out = u;
	return 0;
}

char *berth_url_escape(const char *path, size_t len)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
				    "-._~/!$'()*,;=:@+";
	char *buf = malloc(len * 3 + 1), *w = buf;

	if (!buf)
		return NULL;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)path[i];

		if (c && strchr(plain, c))
			*w++ = (char)c;
		else
			w += sprintf(w, "%%%02X", c);
	}
	*w = '\0';
	return buf;
}
