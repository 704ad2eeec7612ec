/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rpcfix.h - a small RPC program and a peer that writes bytes as it likes
 *
 * The program keeps a piece of memory: PUT places payload into it, cut into odd segments, GET
 * pushes from it. The event loop is turned by the test itself, on the same thread, so that nothing
 * depends on time.
 */
#ifndef TEST_LIB_RPCFIX_H
#define TEST_LIB_RPCFIX_H

#include "transport/transport.h"

enum { FIX_PROG = 0x20000099, FIX_VERS = 3 };
enum { FIX_NULL, FIX_ECHO, FIX_PUT, FIX_GET, FIX_HOLD, FIX_GAP, FIX_PROCS };
/* What PUT does: mode word of its arguments. */
enum { PUT_NOW, PUT_HOLD, PUT_REFUSE, PUT_DROP };
enum { FIX_MEM = 8 << 20, FIX_HELD = 256 };

struct fix {
	struct ev_loop *loop;
	struct tp_service *svc;
	struct tp_listener *listener;
	char port[8];
	uint8_t *mem;
	struct tp_call *held[FIX_HELD]; /* HOLD and PUT_HOLD, in the order of their arrival */
	unsigned nheld;
	unsigned runs, placed, sent; /* calls of the program's callbacks */
	int place_err, sent_err;     /* the last non-zero ones */
	uint32_t seg;                /* bytes of a segment; 0: 4093 */
	bool hold_turn;              /* HOLD waits for the end of the turn, on behalf of so many bytes: */
	uint32_t hold_bytes;
};

extern const struct tp_program *const fix_programs[];

void fix_service(struct fix *f, const struct tp_service_opts *more);
void fix_listen(struct fix *f);
void fix_free(struct fix *f);
void fix_turn(struct fix *f); /* everything that can be done now */
/* A held call: place its payload (then it is answered), or answer it. */
void fix_place(struct fix *f, struct tp_call *call);
void fix_answer(struct tp_call *call, uint32_t word);

/* Bytes of a call. */
struct wire {
	uint8_t *b;
	size_t len, cap;
};
void wire_u32(struct wire *w, uint32_t v);
void wire_bytes(struct wire *w, const void *p, size_t n); /* no length, no padding */
void wire_pad(struct wire *w);
void wire_call(struct wire *w, uint32_t xid, uint32_t vers,
               uint32_t proc); /* AUTH_SYS, uid 7, gid 8, gids 9 10 */
void wire_put(struct wire *w, uint32_t xid, uint32_t off, uint32_t mode, const void *data,
              uint32_t len);
void wire_get(struct wire *w, uint32_t xid, uint32_t off, uint32_t len);
void wire_record(struct wire *to, const struct wire *msg); /* as one fragment */
void wire_free(struct wire *w);
uint32_t wire_at(const uint8_t *p);

int peer_connect(struct fix *f);
void peer_send(struct fix *f, int fd, const void *p, size_t n);
/* Exactly @n bytes, turning the loop meanwhile. False: the server closed or nothing comes. */
bool peer_recv(struct fix *f, int fd, void *p, size_t n);
/* One reply record in w (mark left out). */
bool peer_reply(struct fix *f, int fd, struct wire *w);
bool peer_closed(struct fix *f, int fd); /* the server ended the connection, no byte before it */
bool peer_quiet(struct fix *f, int fd);  /* no byte, and the connection stands */
void fill(uint8_t *p, size_t n, unsigned seed);

#endif
