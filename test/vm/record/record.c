/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * record.c - a berthd that writes down what passes between it and a client over a fabric
 *
 * Linked in front of the server by the linker's --wrap: the functions below see what the transport was given by
 * the provider, and what it hands back to it, byte by byte. One line each in the file that $BERTH_RECORD names:
 *
 *   cm HEX                  private data of a connection request, as libfabric lets it through
 *   call HEX                a message that came
 *   run HAVE HEX            the RPC message in it with its chunks pulled in, payload left out; HAVE: bytes of payload
 *   push KEY ADDR LEN HEX   RDMA Write into the client: its first 4,096 bytes
 *   reply HEX               a message that went
 *
 * test/vm/t/record.sh puts it to work and cuts the file into test/transport/fixtures/.
 */
#include "transport/rpc.h"

#include "transport/fabric.h"
#include "transport/rpcrdma.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PUSH_SHOWN 4096
#define LINE_MAX_  (128 << 10)

static void line(const char *what, const void *data, size_t len)
{
	static int fd = -1; /* one thread: the worker's */
	static char text[LINE_MAX_];
	const char *path = getenv("BERTH_RECORD");
	size_t n = strlen(what);

	if (fd < 0 && path)
		fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (fd < 0 || n + 2 * len + 2 > sizeof(text))
		abort(); /* a record with a hole in it is none */
	memcpy(text, what, n);
	for (size_t i = 0; i < len; i++, n += 2)
		snprintf(text + n, 3, "%02x", ((const uint8_t *)data)[i]);
	text[n++] = '\n';
	if (write(fd, text, n) != (ssize_t)n)
		abort();
}

bool __real_rr_cm_decode(const void *buf, size_t len, uint32_t *send_size, uint32_t *recv_size);
bool __wrap_rr_cm_decode(const void *buf, size_t len, uint32_t *send_size, uint32_t *recv_size);
bool __wrap_rr_cm_decode(const void *buf, size_t len, uint32_t *send_size, uint32_t *recv_size)
{
	line("cm ", buf, len);
	return __real_rr_cm_decode(buf, len, send_size, recv_size);
}

int __real_rr_decode(const void *buf, size_t len, struct rr_header *h, struct rr_seg *segs, size_t max);
int __wrap_rr_decode(const void *buf, size_t len, struct rr_header *h, struct rr_seg *segs, size_t max);
int __wrap_rr_decode(const void *buf, size_t len, struct rr_header *h, struct rr_seg *segs, size_t max)
{
	line("call ", buf, len);
	return __real_rr_decode(buf, len, h, segs, max);
}

int __real_rpc_call_run(struct rpc_call *c, const uint8_t *msg, size_t len, size_t payload_have);
int __wrap_rpc_call_run(struct rpc_call *c, const uint8_t *msg, size_t len, size_t payload_have);
int __wrap_rpc_call_run(struct rpc_call *c, const uint8_t *msg, size_t len, size_t payload_have)
{
	char what[32];

	snprintf(what, sizeof(what), "run %zu ", payload_have);
	if (c->pub.kind != TP_TCP)
		line(what, msg, len);
	return __real_rpc_call_run(c, msg, len, payload_have);
}

int __real_fab_write(struct fab *f, struct fid_ep *ep, const struct iovec *iov, void **desc, unsigned n, fi_addr_t addr,
		     uint64_t raddr, uint64_t key, struct fab_op *op);
int __wrap_fab_write(struct fab *f, struct fid_ep *ep, const struct iovec *iov, void **desc, unsigned n, fi_addr_t addr,
		     uint64_t raddr, uint64_t key, struct fab_op *op);
int __wrap_fab_write(struct fab *f, struct fid_ep *ep, const struct iovec *iov, void **desc, unsigned n, fi_addr_t addr,
		     uint64_t raddr, uint64_t key, struct fab_op *op)
{
	int err = __real_fab_write(f, ep, iov, desc, n, addr, raddr, key, op);
	uint8_t shown[PUSH_SHOWN];
	size_t len = 0, have = 0;
	char what[80];

	for (unsigned i = 0; i < n; i++) {
		size_t take = iov[i].iov_len < sizeof(shown) - have ? iov[i].iov_len : sizeof(shown) - have;

		memcpy(shown + have, iov[i].iov_base, take);
		have += take;
		len += iov[i].iov_len;
	}
	snprintf(what, sizeof(what), "push %08llx %016llx %zu ", (unsigned long long)key, (unsigned long long)raddr, len);
	if (!err) /* else it is posted again */
		line(what, shown, have);
	return err;
}

int __real_fab_send(struct fab *f, struct fid_ep *ep, const void *buf, size_t len, void *desc, fi_addr_t addr,
		    struct fab_op *op);
int __wrap_fab_send(struct fab *f, struct fid_ep *ep, const void *buf, size_t len, void *desc, fi_addr_t addr,
		    struct fab_op *op);
int __wrap_fab_send(struct fab *f, struct fid_ep *ep, const void *buf, size_t len, void *desc, fi_addr_t addr,
		    struct fab_op *op)
{
	int err = __real_fab_send(f, ep, buf, len, desc, addr, op);

	if (!err)
		line("reply ", buf, len);
	return err;
}
