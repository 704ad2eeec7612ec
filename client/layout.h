/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * layout.h - the procedures of the LAYOUT program (proto/layout.x) as asynchronous operations; private to libberth
 *
 * Each is sent once, on the connection that stands or the next one; with its end it fails (-ECONNRESET). The answer
 * is put into *out before @done is called with no error; *out lives until then. More errors: -EOPNOTSUPP no layouts;
 * -EKEYREVOKED recalled, nothing was committed; -EKEYEXPIRED no such layout any more; -EUSERS too many; -EAGAIN not now.
 */
#ifndef CLIENT_LAYOUT_H
#define CLIENT_LAYOUT_H

#include "client/client.h"
#include "client/extent.h"
#include "proto/layout.h"

struct layout_facts {
	unsigned recall_ms, lease_ms;
	bool none, none_rw; /* MAP would say UNAVAILABLE */
	bool elsewhere;     /* on this connection: they have one of their own */
	char why[256];
};
struct layout_mapped {
	uint64_t id, generation, off, len;
	unsigned lease_ms;
	layoutmethod method;
	struct extent *e; /* malloc'ed, the receiver's */
	unsigned n;
	bool has_size;
	uint64_t size;
	char why[256]; /* also set when it failed */
};
struct layout_committed {
	uint64_t generation;
	unsigned lease_ms;
	bool recalled, stable;
	uint8_t verf[8];
};
struct layout_renewed {
	unsigned lease_ms, n;
	struct layoutnews news[LAYOUT_MAX_IDS];
};

int layout_start_facts(struct berth *b, const struct berth_fh *fh, struct layout_facts *out, berth_done *done,
                       void *arg);
int layout_start_map(struct berth *b, const struct berth_fh *fh, uint64_t off, uint64_t len, bool rw,
                     struct layout_mapped *out, berth_done *done, void *arg);
int layout_start_commit(struct berth *b, uint64_t id, const struct layoutrange *r, unsigned n,
                        struct layout_committed *out, berth_done *done, void *arg);
int layout_start_return(struct berth *b, uint64_t id, berth_done *done, void *arg);
int layout_start_renew(struct berth *b, struct layout_renewed *out, berth_done *done, void *arg);
int layout_start_null(struct berth *b, berth_done *done, void *arg);
const char *layout_method_name(layoutmethod m);

#endif
