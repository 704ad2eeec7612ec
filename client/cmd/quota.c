/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * quota.c - berth quota: who uses how much of a pool, and how much he may
 *
 * Of a running server through its control socket, or of a pool that is not in use (--pool).
 */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "client/cmd/cmd.h"
#include "pmemio/pmemio.h"

struct wish {
	const char *pool, *kind; /* kind NULL: everybody */
	uint32_t id;
	bool set_blocks, set_inodes, json;
	uint64_t blocks, inodes;
};

static bool number(const char *text, uint64_t most, uint64_t *out)
{
	char *end;

	errno = 0;
	if (*text < '0' || *text > '9')
		return false;
	*out = strtoull(text, &end, 10);
	return !*end && !errno && *out <= most;
}

/* --- a pool that is not in use -------------------------------------------------------------------
 */

static json_t *one(const struct pm_quota *q)
{
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "kind",
	                 q->kind == PM_QUOTA_UID ? "uid" : "gid", "id", (json_int_t)q->id, "blocks",
	                 (json_int_t)q->blocks, "pending", (json_int_t)q->pending, "inodes",
	                 (json_int_t)q->inodes, "block_limit", (json_int_t)q->max_blocks,
	                 "inode_limit", (json_int_t)q->max_inodes);
}

static int ask_store(struct pm_store *st, const struct wish *w, json_t *list)
{
	struct pm_quota q, *all;
	pm_lsn lsn; /* durable when the pool is closed */
	size_t n;
	int err;

	if (!w->kind) {
		err = pm_quota_list(st, &all, &n);
		for (size_t i = 0; !err && i < n; i++)
			json_array_append_new(list, one(&all[i]));
		if (!err)
			free(all);
		return err;
	}
	pm_quota_get(st, *w->kind == 'u' ? PM_QUOTA_UID : PM_QUOTA_GID, w->id, &q);
	q.max_blocks = w->set_blocks ? w->blocks : q.max_blocks;
	q.max_inodes = w->set_inodes ? w->inodes : q.max_inodes;
	err = w->set_blocks || w->set_inodes ? pm_quota_set(st, &q, &lsn) : 0;
	if (!err)
		json_array_append_new(list, one(&q));
	return err;
}

static json_t *ask_pool(const struct wish *w)
{
	struct pm_open_opts o = { .read_only = !w->set_blocks && !w->set_inodes };
	json_t *list = json_array();
	struct pm_error why = { { 0 } };
	struct pm_store *st;
	int err = pm_open(w->pool, &o, &st, &why), rc;

	if (err) {
		complain("%s%s", why.text[0] ? why.text : strerror(-err),
		         err == -EBUSY ? "; without --pool its server is asked" : "");
		json_decref(list);
		return NULL;
	}
	err = ask_store(st, w, list);
	rc = pm_close(st);
	if (err || rc) {
		complain("pool %s: %s", w->pool, strerror(err ? -err : -rc));
		json_decref(list);
		return NULL;
	}
	return json_pack("{s:o}", "quotas", list);
}

/* --- a running server --- */

static void limit_text(char *buf, size_t size, bool given, uint64_t n)
{
	if (given)
		snprintf(buf, size, "%llu", (unsigned long long)n);
	else
		snprintf(buf, size, "-");
}

static json_t *ask_server(struct cmd *c, const struct wish *w)
{
	char line[128] = "quota\n", blocks[24], inodes[24];
	const char *what;
	json_t *o;

	limit_text(blocks, sizeof(blocks), w->set_blocks, w->blocks);
	limit_text(inodes, sizeof(inodes), w->set_inodes, w->inodes);
	if (w->kind && (w->set_blocks || w->set_inodes))
		snprintf(line, sizeof(line), "quota set %s %u %s %s\n", w->kind, w->id, blocks,
		         inodes);
	else if (w->kind)
		snprintf(line, sizeof(line), "quota %s %u\n", w->kind, w->id);
	o = server_ask(c, line);
	what = o ? json_string_value(json_object_get(o, "error")) : NULL;
	if (what) {
		complain("the server says: %s", what);
		json_decref(o);
		return NULL;
	}
	return o;
}

/* --- the command --- */

static void print_limit(json_t *q, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(q, key));

	if (n)
		printf(" %14lld", (long long)n);
	else
		printf(" %14s", "-");
}

static int print_table(json_t *o)
{
	json_t *q, *list = json_object_get(o, "quotas");
	size_t i;

	printf("%-14s %14s %14s %14s %14s\n", "owner", "blocks", "limit", "inodes", "limit");
	json_array_foreach(list, i, q)
	{
		json_int_t blocks = json_integer_value(json_object_get(q, "blocks")) +
		                    json_integer_value(json_object_get(q, "pending"));
		const char *kind = json_string_value(json_object_get(q, "kind"));

		printf("%s %-10lld %14lld", kind ? kind : "?",
		       (long long)json_integer_value(json_object_get(q, "id")), (long long)blocks);
		print_limit(q, "block_limit");
		printf(" %14lld", (long long)json_integer_value(json_object_get(q, "inodes")));
		print_limit(q, "inode_limit");
		putchar('\n');
	}
	json_decref(o);
	return fflush(stdout) ? EXIT_SOME : EXIT_OK;
}

static int owner(const struct cmd *c, struct wish *w, const char *kind)
{
	uint64_t id;

	if (w->kind)
		return usage_error(c, "one owner at a time: -u or -g");
	if (!number(optarg, UINT32_MAX, &id))
		return usage_error(c, "'%s' is no number of a user or group", optarg);
	w->kind = kind;
	w->id = (uint32_t)id;
	return -1;
}

/* -1: go on, otherwise the exit code. */
static int options(struct cmd *c, int argc, char **argv, struct wish *w)
{
	static const struct option longs[] = { { "blocks", required_argument, NULL, 'b' },
		                               { "inodes", required_argument, NULL, 'i' },
		                               { "pool", required_argument, NULL, 'p' },
		                               { "json", no_argument, NULL, 'j' },
		                               { 0 } };
	int opt, code = -1;

	while (code < 0 && (opt = next_option(c, argc, argv, "u:g:", longs)) != -1) {
		if (opt == 'u')
			code = owner(c, w, "uid");
		else if (opt == 'g')
			code = owner(c, w, "gid");
		else if (opt == 'p')
			w->pool = optarg;
		else if (opt == 'j')
			w->json = true;
		else if (opt == 'b' && number(optarg, INT64_MAX, &w->blocks))
			w->set_blocks = true;
		else if (opt == 'i' && number(optarg, INT64_MAX, &w->inodes))
			w->set_inodes = true;
		else if (opt == 'b' || opt == 'i')
			code = usage_error(c, "'%s' is no limit: a number, 0 for none", optarg);
		else
			code = opt == 'H' ? EXIT_OK : EXIT_USAGE;
	}
	if (code < 0 && optind < argc)
		code = usage_error(c, "unknown operand '%s'", argv[optind]);
	if (code < 0 && !w->kind && (w->set_blocks || w->set_inodes))
		code = usage_error(c, "whose limit? -u UID or -g GID");
	return code;
}

int cmd_quota(struct cmd *c, int argc, char **argv)
{
	struct wish w = { .pool = NULL };
	int code = options(c, argc, argv, &w);
	json_t *o;

	if (code >= 0)
		return code;
	o = w.pool ? ask_pool(&w) : ask_server(c, &w);
	if (!o)
		return EXIT_SOME;
	return w.json ? json_print(o) : print_table(o);
}
