/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * layout.h - what the LAYOUT program's parts share
 *
 *   layout.c        the procedures                 layout_table.c  layouts of each connection: life, lease, recall
 *
 * Who is where. A layout lives on the worker of its connection. Only its recall comes from elsewhere (any thread that
 * cuts or removes the file, or maps it): it arrives as mail.
 *
 *   LIVE --RETURN, lease over, recall time over, connection gone--> ENDED --keys dead, no commit--> gone
 *
 * ENDED: no call finds it any more, its keys are closed. Its lease on the pool's blocks stays until the transport
 * says that the keys are dead (transport.h), and is hurried when somebody waits for the blocks. Where no key is checked
 * (shm), and it was not the client that ended the connection, it stays until the time given to the client is over.
 */
#ifndef SERVER_LAYOUT_H
#define SERVER_LAYOUT_H

#include <uthash.h>

#include "proto/layout.h"
#include "server/nfs3.h"

#define LAYOUT_MAX_LENGTH (64ull << 20) /* of one MAP */
#define LAYOUT_ZERO_STEP  256u          /* blocks zeroed before others get the loop */

struct layout;
struct layout_key {
	struct layout *l;
	struct tp_key *k; /* NULL: dead */
	bool closed;
};

struct layout_client { /* one connection */
	UT_hash_handle hh;
	struct tp_conn *conn; /* the key; not followed */
	struct worker *w;
	const struct fabric_conf *conf;
	uint8_t peer[16]; /* which client this is a connection of */
	struct tp_conn_watch watch;
	struct layouts live, ended; /* ended: keys or commits to be waited for */
	double next_until; /* layout_exclusive: it has been promised the next turn; loop's clock */
	double turn_until; /* its turn, begun when it had none, lasts at least so long */
	unsigned n; /* layouts that are not gone, MAPs under way counted */
	uint64_t mapped; /* bytes of them */
	uint64_t next_id;
	unsigned lease; /* seconds */
	bool fenced, gone;
};

struct layout {
	TAILQ_ENTRY(layout) link; /* in client.live, then .ended or worker.unaware_layouts */
	struct layout_client *cl;
	uint64_t id, bytes;
	struct pm_id file;
	uint64_t generation; /* as RENEW without ids told last */
	struct pm_lease *lease;
	struct layout_key *key;
	unsigned nkeys, nalive; /* keys that are not dead */
	bool rw, live, told;    /* told: asked back, as this worker knows */
	bool unaware;           /* ended with its connection, and the client, which nothing keeps out, may not know */
	double expires, dies;   /* loop's clock; dies: 0 or when the recall time is over */
	ev_timer timer;
	unsigned commits;       /* calls that use it */
	struct mail recall;
	_Atomic bool recall_sent;
	bool recall_here, closed; /* the mail has come; the pool's lease is closed */
};

/* The client of this call's connection, made if need be; NULL: no memory, or not a fabric with layouts. */
struct layout_client *layout_client_of(struct tp_call *call, const struct fabric_conf *conf, bool fenced);
struct layout_client *layout_client_find(struct tp_call *call);
unsigned layout_lease(const struct fabric_conf *conf, bool fenced); /* seconds */
/* May it have another one of @bytes? Then they are counted. */
bool layout_reserve(struct layout_client *cl, uint64_t bytes);
/* May it have layouts now? layout_exclusive: not while another client of this fabric has any, or has been promised to be
 * the next; those are asked back then, once its turn has lasted a second, and the one who asks is promised to be, for a while. */
bool layout_turn(struct layout_client *cl);
void layout_unreserve(struct layout_client *cl, uint64_t bytes);
/* A layout that has counted, not yet live; give it a lease or free it. */
struct layout *layout_new(struct layout_client *cl, uint64_t bytes, bool rw);
void layout_free_new(struct layout *l);
void layout_recall(void *arg); /* pm_lease_opts.recall of a layout */
void layout_start(struct layout *l, double sent); /* keys are there: it lives */
void layout_end(struct layout *l);
void layout_renew(struct layout *l);
bool layout_recalled(const struct layout *l); /* asked back, as its client is to be told */
struct layout *layout_find(struct layout_client *cl, uint64_t id);
void layout_commit_begin(struct layout *l);
void layout_commit_end(struct layout *l);

#endif
