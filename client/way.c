/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * way.c - by RMA, or by READ and WRITE: whichever was measured to be quicker
 *
 * A write that is durable by itself, or with a read behind it, needs no call: by RMA at any size. With a COMMIT it stands
 * against one WRITE that brings its data along; puts in flight share their COMMITs.
 */
#include <stdint.h>
#include <string.h>

#include "client/way.h"

struct ways {
	const char *provider;    /* NULL: all others */
	size_t commit_from;      /* bytes of a put that wants a COMMIT, alone */
	size_t commit_many_from; /* with WAY_MANY in flight */
	size_t get_below;        /* bytes of one piece */
};

static const struct ways *ways_of(const char *provider)
{
	static const struct ways ways[] = {
		{ "shm", SIZE_MAX, 4096, SIZE_MAX },
		{ "tcp", 4096, 1, 1 << 20 },
		{ NULL, SIZE_MAX, 1, SIZE_MAX }, /* measured over verbs */
	};
	const struct ways *w = ways;

	while (w->provider && strcmp(w->provider, provider))
		w++;
	return w;
}

enum way_durable way_durable(layoutmethod method, bool commit_complete, bool in_place)
{
	if (!in_place)
		return WAY_BY_COMMIT;
	if (method == LAYOUT_COMMIT_COMPLETE && commit_complete)
		return WAY_BY_COMPLETION;
	return method == LAYOUT_READ_AFTER_WRITE ? WAY_BY_READ_AFTER_WRITE : WAY_BY_COMMIT;
}

bool way_put_one_sided(const char *provider, size_t len, bool commit, unsigned busy)
{
	const struct ways *w = ways_of(provider);

	return !commit || len >= (busy < WAY_MANY ? w->commit_from : w->commit_many_from);
}

bool way_get_one_sided(const char *provider, size_t len)
{
	return len < ways_of(provider)->get_below;
}
