/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rpcrdma.h - the wire format of RPC-over-RDMA version 1 (RFC 8166), both ways
 *
 *   xid  vers=1  credits  proc                          four big-endian words, always
 *     RDMA_MSG, RDMA_NOMSG:
 *       { 1 position handle length offset64 } ... 0     read list: what the responder pulls
 *       { 1 n { handle length offset64 } * n } ... 0    write list: where payload results go
 *       0 | 1 n { handle length offset64 } * n          reply chunk: where a long reply goes
 *       RDMA_MSG only: the RPC message
 *     RDMA_ERROR: 1 low high (versions) | 2 (chunk)
 *
 * Pure functions on buffers: nothing here knows of libfabric. A header that decodes well has been
 * measured completely: every segment lies inside the 64-bit address space, sums fit 64 bits, counts
 * fit the arrays given. What the segments may *mean* (size limits, positions) is for the caller to
 * say.
 *
 * Segments live in an array that the caller owns: RR_SEGS_IN(len) of them always suffice for a
 * message of len bytes. The struct holds chunks, which are ranges of that array.
 */
#ifndef TRANSPORT_RPCRDMA_H
#define TRANSPORT_RPCRDMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RR_VERSION      1
#define RR_FIXED        16   /* bytes of the four words */
#define RR_MIN          28   /* of a header with three empty lists */
#define RR_MAX_SEGS     512  /* of one message, all lists together */
#define RR_MAX_CHUNKS   16   /* of one list */
#define RR_DEF_INLINE   1024 /* bytes of a message, where nothing better was agreed */
#define RR_SEGS_IN(len) ((len) / 16 < RR_MAX_SEGS ? (len) / 16 : (size_t)RR_MAX_SEGS)

enum rr_proc { RR_MSG = 0, RR_NOMSG = 1, RR_MSGP = 2, RR_DONE = 3, RR_ERROR = 4 };
enum rr_err { RR_ERR_VERS = 1, RR_ERR_CHUNK = 2 };

struct rr_seg {
	uint64_t offset; /* remote address: virtual, or an offset, as the provider has it */
	uint32_t handle; /* key */
	uint32_t length; /* decoded: offset + length does not wrap */
};

struct rr_chunk {
	uint32_t position; /* read chunks: offset in the XDR stream of the call where the bytes
	                      belong */
	uint16_t first, n; /* segs[first .. first + n); n may be 0 in write and reply chunks */
	uint64_t length;   /* sum of the segments' lengths; encode ignores it */
};

struct rr_header {
	uint32_t xid, vers, credits, proc;
	/* RR_MSG, RR_NOMSG */
	unsigned nreads, nwrites;
	bool has_reply;
	struct rr_chunk
		read[RR_MAX_CHUNKS]; /* decoded: ascending position, one chunk per position */
	struct rr_chunk write[RR_MAX_CHUNKS];
	struct rr_chunk reply;
	/* RR_ERROR */
	uint32_t err, err_low, err_high;
	size_t size; /* bytes of the header: in RR_MSG the RPC message begins here */
};

/*
 * Decode the message @buf of @len bytes. @segs: at least min(@max, RR_SEGS_IN(len)) entries.
 * Return 0, or
 *   -EBADMSG          shorter than the four words: no answer is possible; h untouched
 *   -EPROTONOSUPPORT  another version: answer ERR_VERS        (xid, vers, credits are set)
 *   -EINVAL           unknown or refused proc (also RDMA_MSGP), a list that is cut, wraps or is not
 * a list: answer ERR_CHUNK                         (xid, vers, credits, proc are set) -E2BIG
 * well-formed so far, but more segments or chunks than we take: answer ERR_CHUNK A zero credit
 * value is for the caller to judge. RDMA_NOMSG with bytes behind its header: they are ignored.
 */
int rr_decode(const void *buf, size_t len, struct rr_header *h, struct rr_seg *segs, size_t max);

/* Bytes of padding behind @n (RFC 4506). */
static inline size_t rr_pad(uint64_t n)
{
	return (size_t)(-n & 3);
}

/* Bytes that rr_encode will need. */
size_t rr_size(const struct rr_header *h);
/* The same for an RR_MSG with the write list of @h and no other. */
size_t rr_size_writes(const struct rr_header *h);
/* Encode into @buf: returns the size, or 0 if @len is too short for it. */
size_t rr_encode(const struct rr_header *h, const struct rr_seg *segs, void *buf, size_t len);
/* The 20 or 28 bytes of an RDMA_ERROR; @buf holds at least RR_MIN. */
size_t rr_encode_error(void *buf, uint32_t xid, uint32_t credits, enum rr_err err);

/* Shrink the segments of a write or reply chunk to say that its first @used bytes were written (the
 * rest: 0). */
void rr_chunk_used(const struct rr_chunk *c, struct rr_seg *segs, uint64_t used);
/* Bytes the segments of a chunk say now, after a peer filled lengths in. */
uint64_t rr_chunk_length(const struct rr_chunk *c, const struct rr_seg *segs);

/*
 * Private data of connection requests (RFC 8797), 8 bytes. Sizes are in bytes, multiples of 1024 up
 * to 256 KiB; others are rounded down (and up to 1024).
 */
#define RR_CM_SIZE 8
void rr_cm_encode(uint8_t buf[RR_CM_SIZE], uint32_t send_size, uint32_t recv_size);
enum rr_cm {
	RR_CM_NONE,  /* no such data: a peer that takes the sizes of the standard */
	RR_CM_HEARD, /* whole: a peer that reads ours as well */
	RR_CM_DEAF,  /* its first byte is gone: libfabric's verbs provider took it for the length that it puts
	                in front of its own. The peer speaks rdma_cm itself (the Linux kernel), and finds such
	                a length in front of ours: it cannot read it */
};
/* Behind them, of Berth's own: the client asks for a domain of its own (fabric_own.c). Who does not know it lets it lie. */
#define RR_CM_OWN_SIZE (RR_CM_SIZE + 8)
void rr_cm_ask_own(uint8_t buf[RR_CM_OWN_SIZE]); /* behind rr_cm_encode() */
bool rr_cm_asks_own(const void *buf, size_t len);
/* The sizes that hold, given what @buf says: those in it if the peer reads ours too; else both sides fall back
 * to RR_DEF_INLINE (RFC 8797), and a kernel that announced 4096 posts receives of 1024. */
enum rr_cm rr_cm_decode(const void *buf, size_t len, uint32_t *send_size, uint32_t *recv_size);

#endif
