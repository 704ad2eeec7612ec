/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * util.c - messages, formats and sessions of the `berth` command
 */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "client/cmd/cmd.h"

#define PATIENCE 1500 /* ms; a server that is being started again is back by then */

void complain(const char *fmt, ...)
{
	char text[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* one write, so that threads do not mix; \r and erase: a progress bar may stand there */
	fprintf(stderr, "%sberth: %s\n", isatty(2) ? "\r\033[K" : "", text);
}

void complain_errno(int err, const char *what, const char *name)
{
	complain("%s %s: %s", what, name, strerror(-err));
}

/* --- sessions --- */

static void session_log(void *arg, int priority, const char *text)
{
	struct outage *said = arg;
	bool lost = priority == LOG_WARNING;

	if (priority > LOG_NOTICE)
		return;
	if (priority < LOG_WARNING || atomic_exchange(&said->lost, lost) != lost)
		complain("%s", text);
}

int session_open(const char *url, unsigned patience_ms, struct outage *said, struct berth **out)
{
	struct berth_opts opts = { .log = session_log,
		                   .log_arg = said,
		                   .patience_ms = patience_ms };
	struct berth_error why = { { 0 } };
	int err = berth_connect(url, &opts, out, &why);

	if (err)
		complain("%s: %s", url, why.text[0] ? why.text : strerror(-err));
	return err;
}

int place_open(struct sessions *s, const char *operand, struct place *p)
{
	int err;

	*p = (struct place){ .text = operand };
	if (!berth_is_url(operand)) {
		if (!strncmp(operand, "berth", 5) && strstr(operand, "://")) {
			complain("%s: no such kind of URL; one begins with berth+tcp://, "
			         "berth+shm:// "
			         "or berth+verbs://",
			         operand);
			return -EINVAL;
		}
		p->path = strdup(operand);
		return p->path ? 0 : -ENOMEM;
	}
	for (unsigned i = 0; i < s->n && !strchr(operand, '?'); i++)
		if (!berth_resolve(s->list[i], operand, &p->path, NULL)) {
			p->b = s->list[i];
			return 0;
		}
	if (s->n == sizeof(s->list) / sizeof(*s->list)) {
		complain("%s: more than %u exports in one command", operand, s->n);
		return -E2BIG;
	}
	err = session_open(operand, PATIENCE, &s->outage, &p->b);
	if (err)
		return err;
	s->list[s->n++] = p->b;
	p->path = strdup(berth_url_path(p->b));
	return p->path ? 0 : -ENOMEM;
}

int place_remote(struct sessions *s, const struct cmd *c, const char *operand, struct place *p)
{
	if (!berth_is_url(operand)) {
		complain("%s: '%s' is no URL: berth+tcp://HOST[:PORT]/EXPORT/PATH", c->name,
		         operand);
		return -EINVAL;
	}
	return place_open(s, operand, p);
}

void place_close(struct place *p)
{
	free(p->path);
	p->path = NULL;
}

void sessions_close(struct sessions *s)
{
	while (s->n)
		berth_disconnect(s->list[--s->n]);
}

/* --- parsing --- */

bool parse_size(const char *text, uint64_t *out)
{
	static const char units[] = "KMGTPE";
	const char *u;
	char *end;
	double v;
	uint64_t mul = 1, whole;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	whole = strtoull(text, &end, 10);
	if (errno)
		return false;
	v = *end == '.' ? strtod(text, &end) : (double)whole;
	if (*end) {
		u = strchr(units, toupper((unsigned char)*end));
		if (!u)
			return false;
		mul = 1ull << (10 * (u - units + 1));
		end++;
		if (!strcmp(end, "iB") || !strcmp(end, "B"))
			end += strlen(end);
	}
	if (*end || v * (double)mul >= 18446744073709551615.0)
		return false;
	*out = v == (double)whole ? whole * mul : (uint64_t)(v * (double)mul);
	return true;
}

bool parse_octal(const char *text, uint32_t max, uint32_t *out)
{
	char *end;
	unsigned long v = strtoul(text, &end, 8);

	if (!*text || strspn(text, "01234567") != strlen(text) || strlen(text) > 11 || v > max)
		return false;
	*out = (uint32_t)v;
	return true;
}

static bool mode_clause(const char **p, uint32_t *mode, bool is_dir)
{
	uint32_t who = 0, bits = 0;
	char op;

	for (; **p && strchr("ugoa", **p); (*p)++)
		who |= **p == 'u' ? 04700 : **p == 'g' ? 02070 : **p == 'o' ? 01007 : 07777;
	if (!who)
		who = 07777;
	op = **p;
	if (!op || !strchr("+-=", op))
		return false;
	for ((*p)++; **p && strchr("rwxXst", **p); (*p)++) {
		switch (**p) {
		case 'r':
			bits |= 0444;
			break;
		case 'w':
			bits |= 0222;
			break;
		case 'X':
			if (!is_dir && !(*mode & 0111))
				break;
			/* fall through */
		case 'x':
			bits |= 0111;
			break;
		case 's':
			bits |= 06000;
			break;
		default:
			bits |= 01000;
			if (who & 07000)
				who |= 01000;
		}
	}
	bits &= who;
	if (op == '=')
		*mode = (*mode & ~(who & 0777)) | bits;
	else
		*mode = op == '+' ? *mode | bits : *mode & ~bits;
	return !**p || **p == ',';
}

bool parse_mode(const char *text, uint32_t mode, bool is_dir, uint32_t *out)
{
	if (parse_octal(text, 07777, out))
		return true;
	if (isdigit((unsigned char)*text) || !*text)
		return false;
	for (;;) {
		if (!mode_clause(&text, &mode, is_dir))
			return false;
		if (!*text)
			break;
		text++;
	}
	*out = mode;
	return true;
}

bool parse_uuid(const char *text, uint8_t uuid[16])
{
	uint8_t out[16];
	unsigned n = 0;

	if (strlen(text) != 36)
		return false;
	for (unsigned i = 0; i < 36; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;
		char pair[3];

		if (dash != (text[i] == '-'))
			return false;
		if (dash)
			continue;
		if (!isxdigit((unsigned char)text[i]) || !isxdigit((unsigned char)text[i + 1]))
			return false;
		memcpy(pair, text + i, 2);
		pair[2] = '\0';
		out[n++] = (uint8_t)strtoul(pair, NULL, 16);
		i++;
	}
	memcpy(uuid, out, 16);
	return true;
}

/* --- formats --- */

void format_uuid(const uint8_t uuid[16], char out[37])
{
	char *w = out;

	for (int i = 0; i < 16; i++)
		w += sprintf(w, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
		             uuid[i]);
}

void format_size(uint64_t bytes, char out[16])
{
	static const char units[] = "KMGTPE";
	double v = (double)bytes;
	int u = -1;

	while (v >= 1023.95 && u < 5) {
		v /= 1024;
		u++;
	}
	if (u < 0)
		snprintf(out, 16, "%u", (unsigned)bytes);
	else
		snprintf(out, 16, v < 9.95 ? "%.1f%c" : "%.0f%c", v, units[u]);
}

void format_mode(enum berth_type type, uint32_t mode, char out[11])
{
	static const char kinds[] = "?-dbclsp", rwx[] = "rwxrwxrwx";

	out[0] = kinds[type <= BERTH_FIFO ? type : 0];
	for (int i = 0; i < 9; i++)
		out[i + 1] = mode & (0400u >> i) ? rwx[i] : '-';
	if (mode & 04000)
		out[3] = out[3] == 'x' ? 's' : 'S';
	if (mode & 02000)
		out[6] = out[6] == 'x' ? 's' : 'S';
	if (mode & 01000)
		out[9] = out[9] == 'x' ? 't' : 'T';
	out[10] = '\0';
}

void format_time(const struct timespec *ts, char out[40])
{
	struct tm tm;
	char zone[8];
	size_t n;

	if (!localtime_r(&ts->tv_sec, &tm)) {
		snprintf(out, 40, "%lld", (long long)ts->tv_sec);
		return;
	}
	n = strftime(out, 40, "%Y-%m-%d %H:%M:%S", &tm);
	strftime(zone, sizeof(zone), "%z", &tm);
	snprintf(out + n, 40 - n, ".%09ld %s", ts->tv_nsec, zone);
}

const char *type_name(enum berth_type type)
{
	static const char *const names[] = { "unknown",          "file",
		                             "directory",        "block device",
		                             "character device", "symbolic link",
		                             "socket",           "fifo" };

	return names[type <= BERTH_FIFO ? type : 0];
}

static size_t utf8_one(const unsigned char *s, size_t len)
{
	size_t n = *s < 0x80                 ? 1
	           : *s >= 0xc2 && *s < 0xe0 ? 2
	           : *s >= 0xe0 && *s < 0xf0 ? 3
	           : *s >= 0xf0 && *s < 0xf5 ? 4
	                                     : 0;

	if (!n || n > len)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if (n == 3 && ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0)))
		return 0;
	if (n == 4 && ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] >= 0x90)))
		return 0;
	return n;
}

bool utf8_ok(const char *s, size_t len)
{
	for (size_t i = 0, n; i < len; i += n) {
		n = utf8_one((const unsigned char *)s + i, len - i);
		if (!n)
			return false;
	}
	return true;
}

size_t escape_name(char *out, const char *name, size_t len)
{
	char *w = out;

	for (size_t i = 0; i < len;) {
		unsigned char c = (unsigned char)name[i];
		size_t n = utf8_one((const unsigned char *)name + i, len - i);

		if (!n || c < 0x20 || c == 0x7f ||
		    (n == 2 && c == 0xc2 && (unsigned char)name[i + 1] < 0xa0)) {
			for (size_t k = 0; k < (n ? n : 1); k++)
				w += sprintf(w, "\\%03o", (unsigned char)name[i + k]);
			i += n ? n : 1;
		} else {
			memcpy(w, name + i, n);
			w += n;
			i += n;
		}
	}
	*w = '\0';
	return (size_t)(w - out);
}

void print_name(FILE *to, const char *name, size_t len)
{
	char *buf = isatty(fileno(to)) ? malloc(4 * len + 1) : NULL;

	if (buf)
		fwrite(buf, 1, escape_name(buf, name, len), to);
	else
		fwrite(name, 1, len, to);
	free(buf);
}

/* --- JSON --- */

void json_set_name(json_t *o, const char *key, const char *name, size_t len)
{
	char *buf, hexkey[32];

	if (utf8_ok(name, len)) {
		json_object_set_new(o, key, json_stringn(name, len));
		return;
	}
	buf = malloc(4 * len + 1);
	if (!buf)
		return;
	json_object_set_new(o, key, json_stringn(buf, escape_name(buf, name, len)));
	for (size_t i = 0; i < len; i++)
		sprintf(buf + 2 * i, "%02x", (unsigned char)name[i]);
	snprintf(hexkey, sizeof(hexkey), "%s_hex", key);
	json_object_set_new(o, hexkey, json_stringn(buf, 2 * len));
	free(buf);
}

static json_t *json_time(const struct timespec *ts)
{
	return json_pack("{s:I, s:I}", "sec", (json_int_t)ts->tv_sec, "nsec",
	                 (json_int_t)ts->tv_nsec);
}

json_t *json_attr(const struct berth_attr *a)
{
	char mode[8];
	json_t *o;

	snprintf(mode, sizeof(mode), "%04o", a->mode);
	o = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "type",
	              type_name(a->type), "mode", mode, "nlink", (json_int_t)a->nlink, "uid",
	              (json_int_t)a->uid, "gid", (json_int_t)a->gid, "size", (json_int_t)a->size,
	              "used", (json_int_t)a->used, "fileid", (json_int_t)a->fileid, "atime",
	              json_time(&a->atime), "mtime", json_time(&a->mtime), "ctime",
	              json_time(&a->ctime));
	if (o && (a->type == BERTH_BLK || a->type == BERTH_CHR)) {
		json_object_set_new(o, "major", json_integer(a->rdev_major));
		json_object_set_new(o, "minor", json_integer(a->rdev_minor));
	}
	return o;
}

int json_print(json_t *o)
{
	int err = !o || json_dumpf(o, stdout, JSON_INDENT(2)) || putchar('\n') == EOF ||
	          fflush(stdout);

	json_decref(o);
	if (err)
		complain("cannot write to standard output: %s", strerror(errno));
	return err ? EXIT_SOME : EXIT_OK;
}

/* --- paths --- */

const char *base_name(const char *path)
{
	const char *end = path + strlen(path), *p;

	while (end > path && end[-1] == '/')
		end--;
	for (p = end; p > path && p[-1] != '/'; p--)
		;
	return p;
}

char *join(const char *dir, const char *name)
{
	size_t n = strlen(dir);
	char *out = malloc(n + strlen(name) + 2);

	if (out)
		sprintf(out, "%s%s%s", dir, !n || dir[n - 1] == '/' ? "" : "/", name);
	return out;
}
