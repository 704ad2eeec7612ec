/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fabsrv.h - a server of RPC-over-RDMA on a thread of its own, and what a requester (fabpeer.h) says to it by hand
 *
 * Its program keeps a piece of memory: WRITE places payload into it, cut into segments, READ pushes from it, HOLD is not
 * answered before the test pokes, BIG has long results. Failures stop the test.
 */
#ifndef TEST_LIB_FABSRV_H
#define TEST_LIB_FABSRV_H

#include <ev.h>
#include <pthread.h>

#include "transport/fabric_server.h"

#include "test/lib/fabpeer.h"

#define MIB ((size_t)1 << 20)

enum { P_NULL, P_ECHO, P_WRITE, P_READ, P_HOLD, P_BIG };

struct fabsrv {
	struct ev_loop *loop;
	ev_async stop, poke; /* poke: the calls held are answered */
	pthread_t thread;
	struct tp_service *svc;
	struct tp_listener *listener;
	uint8_t *region; /* 8 MiB */
	struct tp_call *held[256];
	unsigned nheld, sent;
	int sent_err;
};

/* @credits 0: the default. On a port of this process; over tcp on 127.0.0.1. */
void fabsrv_make(struct fabsrv *s, const char *provider, unsigned credits); /* its thread is still to be started */
void *fabsrv_main(void *arg);                                               /* what that runs: a struct fabsrv */
void fabsrv_start(struct fabsrv *s, const char *provider, unsigned credits);
void fabsrv_stop(struct fabsrv *s); /* fails if a call is left, or payload was copied */
/* @test once over tcp (FI_EP_MSG), once over shm (FI_EP_RDM), each with a requester that is connected. */
void with_both(void (*test)(struct fabsrv *s, struct fpeer *p));

struct tp_fabric_opts fabric_opts(const char *provider); /* where the server is */
int peer_open(struct fpeer *p, const char *provider);

/* Big-endian into @p at @at; where it ends. */
size_t put_word(uint8_t *p, size_t at, uint32_t v);
size_t put_call(uint8_t *b, uint32_t xid, uint32_t proc);
/* Header and message; the chunk lists are those of @h. */
void send_msg(struct fpeer *p, struct rr_header *h, const struct rr_seg *segs, const uint8_t *msg, size_t len);
struct rr_seg seg_of(struct fpeer *p, size_t off, size_t len); /* of its memory */
/* A reply that must be RDMA_MSG or NOMSG: its header, and the RPC message in *msg. */
struct rr_header expect_reply(struct fpeer *p, uint32_t xid, uint32_t proc, struct rr_seg *segs, const uint8_t **msg,
			      size_t *len);
void expect_success(const uint8_t *msg, size_t len, uint32_t xid);
void expect_error(struct fpeer *p, uint32_t xid, uint32_t err);
void ping(struct fpeer *p, uint32_t xid); /* NULL and its reply */
void fabsrv_fill(uint8_t *p, size_t len, uint32_t seed);

#endif
