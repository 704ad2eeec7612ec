/* SPDX-License-Identifier: BSD-3-Clause */
/* sockfix.h - the program of rpcfix.h behind a TCP listener, and what its peers expect of it; for TestSuite() */
#ifndef TEST_LIB_SOCKFIX_H
#define TEST_LIB_SOCKFIX_H

#include "test/lib/rpcfix.h"

enum { HDR = 24 /* bytes of a reply's header */, MIB = 1 << 20 };

extern struct fix f;
extern uint8_t *data; /* a MiB to send */

void sockfix_start(void);
void sockfix_stop(void); /* fails if payload was copied */
void again(const struct tp_service_opts *o); /* a new service, where the default limits are not the ones to test */

void expect_word(int fd, uint32_t xid, uint32_t v); /* the next reply is a SUCCESS for @xid with the word @v */
void expect_stat(int fd, uint32_t xid, enum accept_stat stat);
void expect_alive(int fd); /* the connection works */
void null_call(struct wire *w, uint32_t xid);
void send_put(int fd, uint32_t xid, uint32_t off, uint32_t mode, uint32_t len);
void send_holds(int fd, uint32_t n); /* xid 0 to @n - 1 */

#endif
