/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * batch.c - commits that are ready together
 */
#include <errno.h>
#include <stdlib.h>

#include "pmemio/core.h"
#include "pmemio/file.h"

#define BATCH_PINS 256u /* what else comes is committed at once */

struct pm_batch {
	struct pm_store *st;
	unsigned n;
	bool ending;
	struct pm_pin *pin[BATCH_PINS]; /* as they joined */
};

int pm_batch_make(struct pm_store *st, struct pm_batch **out)
{
	struct pm_batch *b = malloc(sizeof(*b));

	if (!b)
		return -ENOMEM;
	b->st = st;
	b->n = 0;
	b->ending = false;
	*out = b;
	return 0;
}

void pm_batch_free(struct pm_batch *b)
{
	assert(!b || (!b->n && !b->ending));
	free(b);
}

static bool gains(const struct pm_batch *b, const struct pm_pin *p)
{
	enum pm_method how = b->st->media.method;

	return b->n < BATCH_PINS && !p->unstable && (how == PM_CLWB || how == PM_FENCE) && !sum_on(b->st);
}

int pm_batch_commit(struct pm_batch *b, struct pm_map *m, uint64_t prefix, enum pm_stable stable, bool honor,
                    struct pm_committed *out, struct pm_wait *w)
{
	int err = commit_ask(m, prefix, stable, honor, out, w);

	if (err)
		return err;
	if (!gains(b, m->pin))
		return commit_now(m->pin);
	b->pin[b->n++] = m->pin;
	return -EINPROGRESS;
}

/* Those that joined until now. */
static void end_some(struct pm_batch *b)
{
	struct pm_pin *pin[BATCH_PINS];
	unsigned n = b->n;

	memcpy(pin, b->pin, n * sizeof(pin[0]));
	b->n = 0;
	for (unsigned i = 0; i < n; i++) {
		struct pm_wait *w = pin[i]->w;

		w->done(w, commit_now(pin[i]));
	}
}

void pm_batch_end(struct pm_batch *b)
{
	if (b->ending)
		return;
	b->ending = true;
	while (b->n)
		end_some(b);
	b->ending = false;
}
