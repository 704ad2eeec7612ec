/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * quota.c - quotas on the control socket
 *
 *   quota                             everybody who uses something or has a limit
 *   quota uid|gid ID                  one of them
 *   quota set uid|gid ID BLOCKS INODES   new limits; 0 none, - as before
 *
 * The answer is JSON: {"quotas": [...]} or {"error": "..."}.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/process.h"

static json_t *one(const struct pm_quota *q)
{
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "kind",
	                 q->kind == PM_QUOTA_UID ? "uid" : "gid", "id", (json_int_t)q->id, "blocks",
	                 (json_int_t)q->blocks, "pending", (json_int_t)q->pending, "inodes",
	                 (json_int_t)q->inodes, "block_limit", (json_int_t)q->max_blocks,
	                 "inode_limit", (json_int_t)q->max_inodes);
}

static char *print(json_t *o)
{
	char *text = o ? json_dumps(o, JSON_INDENT(2)) : NULL, *line = NULL;

	json_decref(o);
	if (text && asprintf(&line, "%s\n", text) < 0)
		line = NULL;
	free(text);
	return line;
}

static char *print_error(const char *what)
{
	return print(json_pack("{s:s}", "error", what));
}

static char *list(struct pm_store *st)
{
	json_t *all = json_array();
	struct pm_quota *q;
	size_t n;

	if (pm_quota_list(st, &q, &n)) {
		json_decref(all);
		return NULL;
	}
	for (size_t i = 0; i < n; i++)
		json_array_append_new(all, one(&q[i]));
	free(q);
	return print(json_pack("{s:o}", "quotas", all));
}

struct durable {
	struct pm_wait wait;
	sem_t sem;
	int err;
};

static void durable_done(struct pm_wait *w, int err)
{
	struct durable *d = container_of(w, struct durable, wait);

	d->err = err;
	sem_post(&d->sem);
}

/* An administrator's rare request: this thread waits for one round of the flusher. */
static int set(struct pm_store *st, const struct pm_quota *q)
{
	struct durable d = { .wait = { .done = durable_done } };
	pm_lsn lsn;
	int err = pm_quota_set(st, q, &lsn);

	if (err)
		return err;
	sem_init(&d.sem, 0, 0);
	err = pm_durable(st, lsn, &d.wait);
	if (err == -EINPROGRESS) {
		while (sem_wait(&d.sem))
			;
		err = d.err;
	}
	sem_destroy(&d.sem);
	return err;
}

static bool number(const char *text, uint64_t most, uint64_t *out)
{
	char *end;

	errno = 0;
	if (*text < '0' || *text > '9')
		return false;
	*out = strtoull(text, &end, 10);
	return !*end && !errno && *out <= most;
}

static bool limit(const char *text, uint64_t *out)
{
	return !strcmp(text, "-") || number(text, INT64_MAX, out);
}

char *quota_command(struct pm_store *st, const char *line)
{
	char verb[8], kind[8], id[24], blocks[24], inodes[24], more[2];
	int n = sscanf(line, "quota %7s %7s %23s %23s %23s %1s", verb, kind, id, blocks, inodes,
	               more);
	bool change = n == 5 && !strcmp(verb, "set");
	struct pm_quota q;
	uint64_t num;
	int err;

	if (n <= 0)
		return list(st);
	if (!change && n == 2) {
		memcpy(id, kind, sizeof(kind));
		sscanf(line, "quota %*s %23s", id);
		memcpy(kind, verb, sizeof(verb));
	} else if (!change) {
		return print_error(
			"usage: quota [uid|gid ID] or quota set uid|gid ID BLOCKS INODES");
	}
	if ((strcmp(kind, "uid") && strcmp(kind, "gid")) || !number(id, UINT32_MAX, &num))
		return print_error("no such owner; name one as uid N or gid N");
	pm_quota_get(st, *kind == 'u' ? PM_QUOTA_UID : PM_QUOTA_GID, (uint32_t)num, &q);
	if (change) {
		if (!limit(blocks, &q.max_blocks) || !limit(inodes, &q.max_inodes))
			return print_error("a limit is a number, 0 for none, - for the one it has");
		err = set(st, &q);
		if (err)
			return print_error(strerror(-err));
	}
	return print(json_pack("{s:[o]}", "quotas", one(&q)));
}
