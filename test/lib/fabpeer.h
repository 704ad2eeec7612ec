/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fabpeer.h - a requester on a fabric that says what it likes: bytes out, bytes in, and memory for the server's RMA
 *
 * A few calls of libfabric under the transport's own fab_* functions, none of its client. One thread.
 */
#ifndef TEST_LIB_FABPEER_H
#define TEST_LIB_FABPEER_H

#include "transport/fabric.h"
#include "transport/rpcrdma.h"

#define FPEER_MEM   ((size_t)8 << 20)
#define FPEER_RECVS 40

struct fpeer;
struct fmessage {
	struct fab_op op;
	struct fpeer *peer;
	uint8_t buf[4096];
	size_t len;
};
struct fpeer {
	struct fab *f;
	struct fid_ep *ep;
	fi_addr_t addr;
	struct rdv rdv;
	struct fab_mr mr;
	uint8_t *mem; /* FPEER_MEM bytes that the server may read and write */
	struct fmessage *in;
	struct fmessage *got[FPEER_RECVS];
	unsigned ngot, next;
	struct fab_op send;
	uint8_t out[4096];
	unsigned sending;
	bool up, down;
};

/* Connect with @cm as private data (FI_EP_MSG). 0, or -errno: the server said no. */
int fpeer_open(struct fpeer *p, const struct tp_fabric_opts *o, const void *cm, size_t cm_len);
void fpeer_close(struct fpeer *p);
void fpeer_send(struct fpeer *p, const void *msg, size_t len);
/* The next message, or NULL when the connection is down. Its buffer goes back at once: good till
 * the next call. */
struct fmessage *fpeer_receive(struct fpeer *p);
void fpeer_progress(struct fpeer *p);
/* Progress until @what holds; false after some seconds. */
bool fpeer_soon(struct fpeer *p, bool (*what)(struct fpeer *));
bool fpeer_is_up_or_down(struct fpeer *p);
bool fpeer_is_down(struct fpeer *p);
bool fpeer_has_message(struct fpeer *p);
bool fpeer_is_sent(struct fpeer *p);

#endif
