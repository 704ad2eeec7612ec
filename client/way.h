/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * way.h - which way a transfer through a mapping goes where it is left to the library; private to libberth
 *
 * Nothing but its arguments decides. The figures are measured ones: providers.md has them, and a test holds the two against
 * each other.
 */
#ifndef CLIENT_WAY_H
#define CLIENT_WAY_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/layout.h"

#define WAY_MANY 4u /* transfers of one mapping in flight: "several" */

/* What makes bytes durable that were placed by RMA. */
enum way_durable {
	WAY_BY_COMMIT,          /* the server, at a COMMIT */
	WAY_BY_COMPLETION,      /* a write with FI_COMMIT_COMPLETE */
	WAY_BY_READ_AFTER_WRITE /* a read behind the writes */
};
/* @commit_complete: our end of the connection can ask for it; @in_place: they are data already, within the file's size. */
enum way_durable way_durable(layoutmethod method, bool commit_complete, bool in_place);
/* Is a put of @len bytes to go by RMA, or by WRITE? @provider: as libfabric calls it; @commit: it wants a COMMIT; @busy:
 * transfers of its mapping in flight, itself among them. */
bool way_put_one_sided(const char *provider, size_t len, bool commit, unsigned busy);
/* Is a piece of @len bytes to be fetched by RMA, or by READ? */
bool way_get_one_sided(const char *provider, size_t len);

#endif
