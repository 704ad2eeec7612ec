/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * keysrv.h - a server on a thread of its own that gives its peer keys for the first half of some memory, and a client
 *
 * Calls: OPEN (writable) -> addr, key; CLOSE (hurry): all keys; DEAD -> how many are; NOTHING. Failures stop the test.
 */
#ifndef TEST_LIB_KEYSRV_H
#define TEST_LIB_KEYSRV_H

#include <ev.h>
#include <pthread.h>

#include "transport/transport.h"

#define KEY_PROG  0x20000097
#define KEY_OTHER 0x20000098 /* another program, of the same procedures */
#define KEY_MEM  (4u << 20)
#define KEY_HALF (KEY_MEM / 2) /* what keys cover; the rest must stay as it is */

enum { KEY_NOTHING, KEY_OPEN, KEY_CLOSE, KEY_DEAD };

struct keysrv {
	pthread_t thread;
	struct ev_loop *loop;
	ev_async quit;
	struct tp_service *svc;
	struct tp_listener *l;
	struct tp_fabric_opts o;
	char service[32];
	uint8_t *mem;
	struct tp_key *key[16];
	unsigned nkeys;
	struct tp_conn_watch watch;
	bool watched;
	_Atomic unsigned dead, gone;
	_Atomic bool left; /* tp_conn_watch.left, when it was gone */
	struct tp_rma_facts facts;
};

struct key_ask {
	struct tp_req req;
	bool over;
	int err;
	uint64_t a, b; /* of the answer */
};
struct key_rma {
	struct tp_rma rma;
	bool over;
	int err;
};

struct keysrv *keysrv_start(const char *provider);
struct keysrv *keysrv_start_own(const char *provider, const struct tp_own *own); /* gives domains to those that ask */
void keysrv_stop(struct keysrv *s); /* fails if it was not told of the end of a connection that had keys */
struct tp_client *keysrv_dial(struct keysrv *s);
struct tp_client *keysrv_dial_own(struct keysrv *s); /* asks for a domain of its own; NULL: refused */
void keysrv_send(struct tp_client *c, struct key_ask *k, uint32_t proc, bool_t arg);
struct key_ask keysrv_ask(struct tp_client *c, uint32_t proc, bool_t arg); /* and its answer */
int key_move(struct tp_client *c, enum tp_rma_how how, void *buf, size_t len, uint64_t addr, uint64_t key);
void key_moved(struct tp_rma *op, int err); /* done() of a struct key_rma */

#endif
