/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * onesided.h - a client of the LAYOUT program that does what it is told, also what no client should
 *
 * Calls and RMA of the transport, one after the other; nothing is renewed, returned or checked by itself. A broken
 * connection shows as a negative errno from then on.
 */
#ifndef TEST_LIB_ONESIDED_H
#define TEST_LIB_ONESIDED_H

#include "client/berth.h"
#include "proto/layout.h"
#include "test/lib/daemon.h"
#include "transport/transport.h"

struct os {
	struct tp_client *c;
	struct tp_cred cred; /* root */
};
struct os_map { /* a layout, or why not */
	layoutstat status;
	layoutwhy why;
	uint64_t id, generation, off, len;
	unsigned lease, n;
	layoutmethod method;
	layoutextent ext[LAYOUT_MAX_EXTENTS];
};
struct os_commit {
	layoutstat status;
	uint64_t generation, size; /* size: of the file, afterwards */
	stable_how committed;
	bool recalled;
	char verf[8];
};

/* "tcp", "shm". Where the daemon was started so that layouts have domains of their own, one of those. */
void os_open(struct os *o, const struct daemon *d, const char *provider);
/* As another client than usual, unless @who is 0: over shm by what it says, over tcp by its address, 1: 127.0.0.1, 2: ::1, of
 * a server that listens on ::. */
void os_open_as(struct os *o, const struct daemon *d, const char *provider, uint8_t who);
void os_open_at(struct os *o, const struct tp_fabric_opts *opts);
void os_close(struct os *o);
bool os_up(struct os *o); /* the connection stands, as far as is known */
/* 0, or -errno of the connection; the answer's status is in the output. */
int os_getuuid(struct os *o, const struct berth_fh *fh, LAYOUTGETUUIDres *out); /* texts are left out */
int os_map(struct os *o, const struct berth_fh *fh, uint64_t off, uint64_t len, uint64_t min, layoutiomode mode,
	   struct os_map *out);
int os_commit(struct os *o, uint64_t id, uint64_t off, uint64_t len, struct os_commit *out); /* len 0: no range */
int os_commit_args(struct os *o, const LAYOUTCOMMITargs *args, struct os_commit *out);
int os_return(struct os *o, uint64_t id, layoutstat *out);
int os_renew(struct os *o, uint64_t id, layoutnews *out); /* 0: all; then *out is the first, id 0: no news */
int os_null(struct os *o);
void os_spoil(struct os *o); /* what is no call is sent: the server ends the connection */
/* A MAP sent, its answer not waited for: os_map_end() does. */
struct os_asked;
struct os_asked *os_map_begin(struct os *o, const struct berth_fh *fh, uint64_t off, uint64_t len, layoutiomode mode);
bool os_asked_over(struct os *o, struct os_asked *a); /* after some progress */
int os_map_end(struct os *o, struct os_asked *a, struct os_map *out);

void os_ignore(struct tp_rma *op, int err); /* tp_rma.done */
void os_return_begin(struct os *o, uint64_t id); /* sent, whatever the answer: once per client */

/* An honest client beside it, by libberth; stops the test when it cannot connect. @url of the daemon: d->tcp_url, d->shm_url. */
struct berth *os_session(const char *url);
struct berth_fh os_make(struct berth *b, const char *name, const void *buf, size_t len); /* a file of these bytes, durable */
/* MAP of all of [off, off + len), which must be answered OK, with the range as far as it must be there. */
struct os_map os_mapped(struct os *o, const struct berth_fh *fh, uint64_t off, uint64_t len, layoutiomode mode);
layoutstat os_returned(struct os *o, uint64_t id); /* RETURN, answered */
layoutstat os_news(struct os *o, uint64_t id);     /* RENEW likewise */
/* Layouts on for tcp and shm. */
extern const char *const os_layouts_on[];

int os_rma(struct os *o, enum tp_rma_how how, void *buf, size_t len, uint64_t addr, uint64_t key);
/* Bytes of the file through the extents of @m; a hole, or no extent there, is -ENXIO. */
int os_put(struct os *o, const struct os_map *m, uint64_t off, const void *buf, size_t len);
int os_get(struct os *o, const struct os_map *m, uint64_t off, void *buf, size_t len);

#endif
