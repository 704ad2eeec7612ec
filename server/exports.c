/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * exports.c - the table of exports, in the syntax of exports(5)
 *
 *   /scratch  192.0.2.0/24(rw,no_root_squash)  [2001:db8::]/32(ro)  build.example.com(rw)
 *   "/with blank"  -rw,insecure  10.0.0.1  10.0.0.2(ro)
 *
 * A table is immutable once loaded; a reload makes a new one. Host names are resolved while loading, so
 * that no lookup is ever made while a client waits. Of several specifications that fit a client the most
 * specific one counts: a host before a longer network prefix before a shorter one before "*".
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/server.h"

struct client { /* one address or network that a specification stands for */
	uint8_t addr[16]; /* IPv4 as v4-mapped */
	unsigned prefix;  /* of 128 bits; 0 is everybody */
	struct export_opts opts;
};
struct export {
	char *path;
	uint32_t key;
	struct client *clients;
	unsigned nclients;
	char **specs; /* as written, for showmount */
	unsigned nspecs;
};
struct exports {
	struct export *ex;
	unsigned n;
};

struct parser {
	const char *name, *p;
	unsigned line;
	struct exports *out;
	char *why;
	size_t why_len, why_used;
	unsigned errors;
};

static void complain(struct parser *ps, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void complain(struct parser *ps, const char *fmt, ...)
{
	char text[300];
	va_list ap;
	int n;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	ps->errors++;
	n = snprintf(ps->why + ps->why_used, ps->why_len - ps->why_used, "%s%s:%u: %s",
		     ps->why_used ? "\n" : "", ps->name, ps->line, text);
	if (n > 0 && ps->why_used + (size_t)n < ps->why_len)
		ps->why_used += (size_t)n;
}

/* --- words -------------------------------------------------------------------------------------- */

/* Blanks, comments and line continuations; false at the end of the line. */
static bool skip_blanks(struct parser *ps)
{
	for (;; ps->p++) {
		if (ps->p[0] == '\\' && ps->p[1] == '\n') {
			ps->p++;
			ps->line++;
		} else if (*ps->p != ' ' && *ps->p != '\t' && *ps->p != '\r') {
			break;
		}
	}
	if (*ps->p == '#')
		ps->p += strcspn(ps->p, "\n");
	return *ps->p != '\n' && *ps->p != '\0';
}

/* The next word, with "quotes" and \ooo escapes undone. */
static bool next_word(struct parser *ps, char *word, size_t size)
{
	bool quoted = false, too_long = false;
	size_t n = 0;

	if (!skip_blanks(ps))
		return false;
	for (; *ps->p && *ps->p != '\n'; ps->p++) {
		unsigned char c = (unsigned char)*ps->p;

		if (c == '"') {
			quoted = !quoted;
			continue;
		}
		if (!quoted && (c == ' ' || c == '\t' || c == '\r'))
			break;
		if (c == '\\' && ps->p[1] == '\n' && !quoted)
			break;
		if (c == '\\' && strspn(ps->p + 1, "01234567") >= 3) {
			c = (unsigned char)(((ps->p[1] - '0') << 6 | (ps->p[2] - '0') << 3 |
					     (ps->p[3] - '0')) & 0xff);
			ps->p += 3;
		}
		if (n + 1 < size)
			word[n++] = (char)c;
		else
			too_long = true;
	}
	word[n] = '\0';
	if (quoted)
		complain(ps, "a quotation mark is not closed");
	if (too_long)
		complain(ps, "a word is longer than %zu bytes", size - 1);
	return true;
}

/* --- options -------------------------------------------------------------------------------------- */

static bool parse_id(const char *text, uint32_t *out)
{
	char *end;
	long long v = strtoll(text, &end, 10);

	if (end == text || *end || v < -2 || v > UINT32_MAX)
		return false;
	*out = (uint32_t)v;
	return true;
}

static void parse_option(struct parser *ps, const char *o, struct export_opts *out)
{
	static const char *const no_effect[] = { /* of exports(5), true of Berth in any case */
		"sync", "async", "wdelay", "no_wdelay", "subtree_check", "no_subtree_check", "hide",
		"nohide", "crossmnt", "acl", "no_acl", "secure_locks", "insecure_locks", "auth_nlm",
		"no_auth_nlm", "pnfs", "no_pnfs", "sec=sys" };

	if (!strcmp(o, "rw"))
		out->rw = true;
	else if (!strcmp(o, "ro"))
		out->rw = false;
	else if (!strcmp(o, "root_squash"))
		out->root_squash = true;
	else if (!strcmp(o, "no_root_squash"))
		out->root_squash = false;
	else if (!strcmp(o, "all_squash"))
		out->all_squash = true;
	else if (!strcmp(o, "no_all_squash"))
		out->all_squash = false;
	else if (!strcmp(o, "secure"))
		out->secure = true;
	else if (!strcmp(o, "insecure"))
		out->secure = false;
	else if (!strcmp(o, "layouts"))
		out->layouts = true;
	else if (!strcmp(o, "no_layouts"))
		out->layouts = false;
	else if (!strncmp(o, "anonuid=", 8)) {
		if (!parse_id(o + 8, &out->anonuid))
			complain(ps, "'%s': a user number is wanted", o);
	} else if (!strncmp(o, "anongid=", 8)) {
		if (!parse_id(o + 8, &out->anongid))
			complain(ps, "'%s': a group number is wanted", o);
	} else {
		if (!strncmp(o, "fsid=", 5))
			return;
		for (size_t i = 0; i < sizeof(no_effect) / sizeof(*no_effect); i++)
			if (!strcmp(o, no_effect[i]))
				return;
		complain(ps, "unknown option '%s'; known are ro rw root_squash no_root_squash "
			     "all_squash no_all_squash anonuid= anongid= secure insecure layouts "
			     "no_layouts", o);
	}
}

static void parse_options(struct parser *ps, char *list, struct export_opts *out)
{
	char *save, *o;

	for (o = strtok_r(list, ",", &save); o; o = strtok_r(NULL, ",", &save))
		parse_option(ps, o, out);
}

/* --- clients -------------------------------------------------------------------------------------------- */

static void map_v4(const void *in4, uint8_t out[16])
{
	static const uint8_t head[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

	memcpy(out, head, sizeof(head));
	memcpy(out + 12, in4, 4);
}

static bool add_client(struct export *ex, const uint8_t addr[16], unsigned prefix,
		       const struct export_opts *opts)
{
	struct client *c = realloc(ex->clients, (ex->nclients + 1) * sizeof(*c));

	if (!c)
		return false;
	ex->clients = c;
	c += ex->nclients++;
	memcpy(c->addr, addr, 16);
	c->prefix = prefix;
	c->opts = *opts;
	for (unsigned bit = prefix; bit < 128; bit++)
		c->addr[bit / 8] &= (uint8_t)~(0x80u >> (bit % 8));
	return true;
}

/* "/24" or "/255.255.255.0" behind an address of @bits bits; -1: neither. */
static int parse_prefix(const char *text, int bits)
{
	struct in_addr mask;
	char *end;
	long v = strtol(text, &end, 10);

	if (end != text && !*end && v >= 0 && v <= bits)
		return (int)v;
	if (bits == 32 && inet_pton(AF_INET, text, &mask) == 1) {
		uint32_t m = ntohl(mask.s_addr);

		if ((~m & (~m + 1)) == 0)
			return __builtin_popcount(m);
	}
	return -1;
}

static void resolve(struct parser *ps, struct export *ex, const char *host,
		    const struct export_opts *opts)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *list, *ai;
	int err = getaddrinfo(host, NULL, &hints, &list);
	uint8_t addr[16];

	if (err) {
		complain(ps, "host '%s': %s; write its address, or a network as 192.0.2.0/24", host,
			 gai_strerror(err));
		return;
	}
	for (ai = list; ai; ai = ai->ai_next) {
		if (ai->ai_family == AF_INET)
			map_v4(&((struct sockaddr_in *)ai->ai_addr)->sin_addr, addr);
		else if (ai->ai_family == AF_INET6)
			memcpy(addr, &((struct sockaddr_in6 *)ai->ai_addr)->sin6_addr, 16);
		else
			continue;
		add_client(ex, addr, 128, opts);
	}
	freeaddrinfo(list);
}

/* host: * | name | address | address/prefix | [address] | [address]/prefix */
static void parse_host(struct parser *ps, struct export *ex, char *host,
		       const struct export_opts *opts)
{
	uint8_t addr[16] = { 0 };
	struct in_addr in4;
	char *slash, *close;
	int prefix;

	if (!strcmp(host, "*") || !strcmp(host, "0.0.0.0/0") || !strcmp(host, "::/0")) {
		add_client(ex, addr, 0, opts);
		return;
	}
	if (*host == '@' || strpbrk(host, "*?")) {
		complain(ps, "'%s': netgroups and name patterns are not supported, since they need a "
			     "lookup for each client; list hosts or networks", host);
		return;
	}
	if (*host == '[' && (close = strchr(host, ']'))) {
		memmove(close, close + 1, strlen(close));
		host++;
	}
	slash = strchr(host, '/');
	if (slash)
		*slash++ = '\0';
	if (inet_pton(AF_INET, host, &in4) == 1) {
		map_v4(&in4, addr);
		prefix = slash ? parse_prefix(slash, 32) : 32;
		prefix += prefix >= 0 ? 96 : 0;
	} else if (inet_pton(AF_INET6, host, addr) == 1) {
		prefix = slash ? parse_prefix(slash, 128) : 128;
	} else if (slash) {
		complain(ps, "'%s/%s' is not a network; write 192.0.2.0/24 or [2001:db8::]/32", host,
			 slash);
		return;
	} else {
		resolve(ps, ex, host, opts);
		return;
	}
	if (prefix < 0)
		complain(ps, "'/%s' is not a prefix length or a mask", slash);
	else
		add_client(ex, addr, (unsigned)prefix, opts);
}

/* host(option,...) */
static void parse_spec(struct parser *ps, struct export *ex, char *word,
		       const struct export_opts *defaults)
{
	struct export_opts opts = *defaults;
	char *open = strchr(word, '('), *spec, **specs;

	if (open == word) {
		complain(ps, "'%s' names no client: take out the blank before '(', or write *%s for "
			     "everybody", word, word);
		return;
	}
	if (open) {
		char *close = strchr(open, ')');

		if (!close || close[1]) {
			complain(ps, "'%s': the list of options must end with ')'", word);
			return;
		}
		*close = *open = '\0';
		parse_options(ps, open + 1, &opts);
	}
	spec = strdup(word);
	specs = realloc(ex->specs, (ex->nspecs + 1) * sizeof(*specs));
	if (specs)
		ex->specs = specs;
	if (!spec || !specs) {
		free(spec);
		complain(ps, "out of memory");
		return;
	}
	ex->specs[ex->nspecs++] = spec;
	parse_host(ps, ex, word, &opts);
}

/* --- lines -------------------------------------------------------------------------------------------------- */

static uint32_t key_of(const char *path)
{
	static const uint8_t zero[crypto_shorthash_KEYBYTES];
	uint8_t h[crypto_shorthash_BYTES];
	uint32_t key;

	crypto_shorthash(h, (const uint8_t *)path, strlen(path), zero);
	memcpy(&key, h, sizeof(key));
	return key;
}

/* "/a//b/" and "/a/b" are one; "." and ".." are refused. */
static bool normalize(char *path)
{
	char *from = path, *to = path;

	if (*path != '/')
		return false;
	while (*from) {
		size_t n;

		from += strspn(from, "/");
		n = strcspn(from, "/");
		if (!n)
			break;
		if ((n == 1 && from[0] == '.') || (n == 2 && from[0] == '.' && from[1] == '.'))
			return false;
		*to++ = '/';
		memmove(to, from, n);
		to += n;
		from += n;
	}
	if (to == path)
		*to++ = '/';
	*to = '\0';
	return true;
}

static struct export *add_export(struct parser *ps, const char *path)
{
	struct exports *t = ps->out;
	struct export *ex;
	uint32_t key = key_of(path);

	for (unsigned i = 0; i < t->n; i++) {
		if (!strcmp(t->ex[i].path, path))
			return &t->ex[i];
		if (t->ex[i].key == key) {
			complain(ps, "the exports '%s' and '%s' have the same hash; rename one", path,
				 t->ex[i].path);
			return NULL;
		}
	}
	ex = realloc(t->ex, (t->n + 1) * sizeof(*ex));
	if (!ex)
		return NULL;
	t->ex = ex;
	ex = &t->ex[t->n];
	*ex = (struct export){ .path = strdup(path), .key = key };
	if (!ex->path)
		return NULL;
	t->n++;
	return ex;
}

static void parse_line(struct parser *ps)
{
	struct export_opts defaults = { .root_squash = true, .secure = true, .layouts = true, .anonuid = 65534,
					.anongid = 65534 };
	struct export *ex;
	char word[1100];
	unsigned before;

	if (!next_word(ps, word, sizeof(word)))
		return;
	if (!normalize(word)) {
		complain(ps, "'%s': an export is an absolute path inside the pool, without . and ..",
			 word);
		ps->p += strcspn(ps->p, "\n");
		return;
	}
	ex = add_export(ps, word);
	if (!ex) {
		ps->p += strcspn(ps->p, "\n");
		return;
	}
	before = ex->nspecs;
	while (next_word(ps, word, sizeof(word))) {
		if (word[0] == '-')
			parse_options(ps, word + 1, &defaults);
		else
			parse_spec(ps, ex, word, &defaults);
	}
	if (ex->nspecs == before)
		complain(ps, "'%s' is exported to nobody: name clients, or * for everybody", ex->path);
}

int exports_parse(const char *text, const char *name, struct exports **out, char *why, size_t why_len)
{
	struct parser ps = { .name = name, .p = text, .line = 1, .why = why, .why_len = why_len };

	if (why_len)
		why[0] = '\0';
	ps.out = calloc(1, sizeof(*ps.out));
	if (!ps.out)
		return -ENOMEM;
	while (*ps.p) {
		parse_line(&ps);
		if (*ps.p == '\n') {
			ps.p++;
			ps.line++;
		}
	}
	if (ps.errors) {
		exports_free(ps.out);
		return -EINVAL;
	}
	*out = ps.out;
	return 0;
}

int exports_load(const char *path, struct exports **out, char *why, size_t why_len)
{
	FILE *f = fopen(path, "re");
	char *text;
	size_t n;
	int err;

	if (!f) {
		err = -errno;
		snprintf(why, why_len, "exports file %s: %s; [exports] file names it", path,
			 strerror(-err));
		return err;
	}
	text = calloc(1, (1 << 20) + 1);
	n = text ? fread(text, 1, 1 << 20, f) : 0;
	err = !text ? -ENOMEM : ferror(f) ? -EIO : 0;
	if (!err && (n == 1 << 20 || memchr(text, 0, n)))
		err = -EINVAL;
	fclose(f);
	if (err)
		snprintf(why, why_len, "exports file %s: %s", path,
			 err == -EINVAL ? "not a text file of less than 1 MiB" : strerror(-err));
	else
		err = exports_parse(text, path, out, why, why_len);
	free(text);
	return err;
}

void exports_free(struct exports *t)
{
	if (!t)
		return;
	for (unsigned i = 0; i < t->n; i++) {
		for (unsigned k = 0; k < t->ex[i].nspecs; k++)
			free(t->ex[i].specs[k]);
		free(t->ex[i].specs);
		free(t->ex[i].clients);
		free(t->ex[i].path);
	}
	free(t->ex);
	free(t);
}

/* --- questions ------------------------------------------------------------------------------------------------ */

static void peer_addr(const struct sockaddr_storage *ss, uint8_t addr[16])
{
	static const uint8_t loopback[4] = { 127, 0, 0, 1 };

	if (ss && ss->ss_family == AF_INET)
		map_v4(&((const struct sockaddr_in *)ss)->sin_addr, addr);
	else if (ss && ss->ss_family == AF_INET6)
		memcpy(addr, &((const struct sockaddr_in6 *)ss)->sin6_addr, 16);
	else
		map_v4(loopback, addr);
}

static bool in_prefix(const uint8_t *addr, const uint8_t *net, unsigned prefix)
{
	unsigned bytes = prefix / 8, rest = prefix % 8;

	return !memcmp(addr, net, bytes) &&
	       (!rest || !((addr[bytes] ^ net[bytes]) & (uint8_t)(0xff00u >> rest)));
}

static int client_opts(const struct export *ex, const struct sockaddr_storage *peer,
		       struct export_opts *opts)
{
	const struct client *best = NULL;
	uint8_t addr[16];

	peer_addr(peer, addr);
	for (unsigned i = 0; i < ex->nclients; i++) {
		const struct client *c = &ex->clients[i];

		if (in_prefix(addr, c->addr, c->prefix) && (!best || c->prefix > best->prefix))
			best = c;
	}
	if (!best)
		return -EACCES;
	*opts = best->opts;
	return 0;
}

static bool holds(const char *path, const char *dir)
{
	size_t n = strlen(path);

	if (n == 1)
		return dir[0] == '/';
	return !strncmp(path, dir, n) && (dir[n] == '/' || dir[n] == '\0');
}

int exports_find(const struct exports *t, const char *dir, const struct sockaddr_storage *peer,
		 uint32_t *key, const char **path, struct export_opts *opts)
{
	const struct export *best = NULL;
	int err;

	for (unsigned i = 0; i < t->n; i++) {
		const struct export *ex = &t->ex[i];

		if (holds(ex->path, dir) && (!best || strlen(ex->path) > strlen(best->path)))
			best = ex;
	}
	if (!best)
		return -ENOENT;
	err = client_opts(best, peer, opts);
	if (err)
		return err;
	*key = best->key;
	*path = best->path;
	return 0;
}

int exports_by_key(const struct exports *t, uint32_t key, const struct sockaddr_storage *peer,
		   struct export_opts *opts, const char **path)
{
	for (unsigned i = 0; i < t->n; i++) {
		if (t->ex[i].key != key)
			continue;
		if (path)
			*path = t->ex[i].path;
		return client_opts(&t->ex[i], peer, opts);
	}
	return -ENOENT;
}

bool exports_entry(const struct exports *t, unsigned i, const char **path,
		   const char *const **specs, unsigned *nspecs)
{
	if (i >= t->n)
		return false;
	*path = t->ex[i].path;
	*specs = (const char *const *)t->ex[i].specs;
	*nspecs = t->ex[i].nspecs;
	return true;
}
