/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rpcrdma.c - RPC-over-RDMA version 1 headers: measured while they are read, built in one pass
 *
 * A decoder walks a cursor that cannot leave its buffer: after the first take that does not fit,
 * every further one fails as well, so a list is read to its end and judged once. Read segments are
 * sorted by position while they come in, because RFC 8166 makes a chunk of all segments with one
 * position.
 */
#include "transport/rpcrdma.h"

#include <errno.h>
#include <string.h>

struct cursor {
	const uint8_t *p, *end;
	bool bad; /* something did not fit; values taken since are 0 */
};

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint8_t *put32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
	return p + 4;
}

static uint32_t take32(struct cursor *c)
{
	uint32_t v;

	if (c->bad || c->end - c->p < 4) {
		c->bad = true;
		return 0;
	}
	v = get32(c->p);
	c->p += 4;
	return v;
}

/* "Another item follows": anything but 0 and 1 is not XDR. */
static bool take_more(struct cursor *c)
{
	uint32_t v = take32(c);

	c->bad |= v > 1;
	return !c->bad && v == 1;
}

static struct rr_seg take_seg(struct cursor *c)
{
	struct rr_seg s;

	s.handle = take32(c);
	s.length = take32(c);
	s.offset = (uint64_t)take32(c) << 32;
	s.offset |= take32(c);
	c->bad |= s.offset > UINT64_MAX - s.length;
	return s;
}

/* The segments taken so far and the room there is for them. */
struct table {
	struct rr_seg *segs;
	size_t n, max;
};

/*
 * Put @s at the end of the chunk at @position, which may not be the last one: segments behind it
 * move up. Lists come sorted from all but odd peers, and RR_MAX_SEGS bounds what an odd one can
 * cost.
 */
static int add_read(struct rr_header *h, struct table *t, uint32_t position, struct rr_seg s)
{
	unsigned i = h->nreads;
	size_t at;

	while (i && h->read[i - 1].position > position)
		i--;
	if (!i || h->read[i - 1].position != position) {
		if (h->nreads == RR_MAX_CHUNKS)
			return -E2BIG;
		at = i < h->nreads ? h->read[i].first : t->n;
		memmove(&h->read[i + 1], &h->read[i], (h->nreads - i) * sizeof(h->read[0]));
		h->read[i] = (struct rr_chunk){ .position = position, .first = (uint16_t)at };
		h->nreads++;
		i++;
	}
	struct rr_chunk *c = &h->read[i - 1];

	if (t->n == t->max)
		return -E2BIG;
	at = (size_t)c->first + c->n;
	memmove(&t->segs[at + 1], &t->segs[at], (t->n - at) * sizeof(*t->segs));
	for (; i < h->nreads; i++)
		h->read[i].first++;
	t->segs[at] = s;
	t->n++;
	c->n++;
	c->length += s.length;
	return 0;
}

static int take_reads(struct cursor *c, struct rr_header *h, struct table *t)
{
	while (take_more(c)) {
		uint32_t position = take32(c);
		struct rr_seg s = take_seg(c);
		int err;

		if (c->bad)
			break;
		err = add_read(h, t, position, s);
		if (err)
			return err;
	}
	return c->bad ? -EINVAL : 0;
}

/* A write or reply chunk: the count is the peer's word, the message's own length is what bounds it.
 */
static int take_chunk(struct cursor *c, struct rr_chunk *chunk, struct table *t)
{
	uint32_t n = take32(c);

	if (c->bad || n > (size_t)(c->end - c->p) / 16)
		return -EINVAL;
	if (n > t->max - t->n)
		return -E2BIG;
	*chunk = (struct rr_chunk){ .first = (uint16_t)t->n, .n = (uint16_t)n };
	for (; n; n--) {
		struct rr_seg s = take_seg(c);

		t->segs[t->n++] = s;
		chunk->length += s.length;
	}
	return c->bad ? -EINVAL : 0;
}

static int take_writes(struct cursor *c, struct rr_header *h, struct table *t)
{
	while (take_more(c)) {
		int err;

		if (h->nwrites == RR_MAX_CHUNKS)
			return -E2BIG;
		err = take_chunk(c, &h->write[h->nwrites], t);
		if (err)
			return err;
		h->nwrites++;
	}
	return c->bad ? -EINVAL : 0;
}

static int take_reply(struct cursor *c, struct rr_header *h, struct table *t)
{
	int err;

	if (!take_more(c))
		return c->bad ? -EINVAL : 0;
	err = take_chunk(c, &h->reply, t);
	h->has_reply = !err;
	return err;
}

static int take_error(struct cursor *c, struct rr_header *h)
{
	h->err = take32(c);
	if (h->err == RR_ERR_VERS) {
		h->err_low = take32(c);
		h->err_high = take32(c);
	}
	return c->bad ? -EINVAL : 0;
}

static int take_body(struct cursor *c, struct rr_header *h, struct table *t)
{
	int err;

	switch (h->proc) {
	case RR_MSG:
	case RR_NOMSG:
		err = take_reads(c, h, t);
		if (!err)
			err = take_writes(c, h, t);
		if (!err)
			err = take_reply(c, h, t);
		return err;
	case RR_DONE:
		return 0;
	case RR_ERROR:
		return take_error(c, h);
	default: /* RDMA_MSGP too: RFC 8166 section 4.5 says not to send it */
		return -EINVAL;
	}
}

int rr_decode(const void *buf, size_t len, struct rr_header *h, struct rr_seg *segs, size_t max)
{
	struct cursor c = { .p = buf, .end = (const uint8_t *)buf + len };
	struct table t = { .segs = segs, .max = max < RR_MAX_SEGS ? max : RR_MAX_SEGS };
	int err;

	if (len < RR_FIXED)
		return -EBADMSG;
	*h = (struct rr_header){ 0 };
	h->xid = take32(&c);
	h->vers = take32(&c);
	h->credits = take32(&c);
	h->proc = take32(&c);
	/* RDMA_ERROR with ERR_VERS may come in a version of the peer's choice; it is no call to
	 * answer. */
	if (h->vers != RR_VERSION)
		return -EPROTONOSUPPORT;
	err = take_body(&c, h, &t);
	if (err) { /* what was read before the fault is nobody's business */
		h->nreads = h->nwrites = 0;
		h->has_reply = false;
		return err;
	}
	h->size = (size_t)(c.p - (const uint8_t *)buf);
	return 0;
}

/* --- encode -------------------------------------------------------------------------------------
 */

size_t rr_size_writes(const struct rr_header *h)
{
	size_t n = RR_MIN;

	for (unsigned i = 0; i < h->nwrites; i++)
		n += 8 + 16 * (size_t)h->write[i].n;
	return n;
}

size_t rr_size(const struct rr_header *h)
{
	size_t n;

	if (h->proc == RR_ERROR)
		return h->err == RR_ERR_VERS ? 28 : 20;
	if (h->proc == RR_DONE)
		return RR_FIXED;
	n = rr_size_writes(h);
	for (unsigned i = 0; i < h->nreads; i++)
		n += 24 * (size_t)h->read[i].n;
	if (h->has_reply)
		n += 4 + 16 * (size_t)h->reply.n;
	return n;
}

static uint8_t *put_seg(uint8_t *p, const struct rr_seg *s)
{
	p = put32(p, s->handle);
	p = put32(p, s->length);
	p = put32(p, (uint32_t)(s->offset >> 32));
	return put32(p, (uint32_t)s->offset);
}

static uint8_t *put_chunk(uint8_t *p, const struct rr_chunk *c, const struct rr_seg *segs)
{
	p = put32(p, 1);
	p = put32(p, c->n);
	for (unsigned i = 0; i < c->n; i++)
		p = put_seg(p, &segs[c->first + i]);
	return p;
}

static uint8_t *put_lists(uint8_t *p, const struct rr_header *h, const struct rr_seg *segs)
{
	for (unsigned i = 0; i < h->nreads; i++) {
		for (unsigned j = 0; j < h->read[i].n; j++) {
			p = put32(p, 1);
			p = put32(p, h->read[i].position);
			p = put_seg(p, &segs[h->read[i].first + j]);
		}
	}
	p = put32(p, 0);
	for (unsigned i = 0; i < h->nwrites; i++)
		p = put_chunk(p, &h->write[i], segs);
	p = put32(p, 0);
	return h->has_reply ? put_chunk(p, &h->reply, segs) : put32(p, 0);
}

size_t rr_encode(const struct rr_header *h, const struct rr_seg *segs, void *buf, size_t len)
{
	size_t size = rr_size(h);
	uint8_t *p = buf;

	if (len < size)
		return 0;
	p = put32(p, h->xid);
	p = put32(p, RR_VERSION);
	p = put32(p, h->credits);
	p = put32(p, h->proc);
	if (h->proc == RR_ERROR) {
		p = put32(p, h->err);
		if (h->err == RR_ERR_VERS) {
			p = put32(p, RR_VERSION);
			put32(p, RR_VERSION);
		}
	} else if (h->proc != RR_DONE) {
		put_lists(p, h, segs);
	}
	return size;
}

size_t rr_encode_error(void *buf, uint32_t xid, uint32_t credits, enum rr_err err)
{
	struct rr_header h = { .xid = xid, .credits = credits, .proc = RR_ERROR, .err = err };

	return rr_encode(&h, NULL, buf, RR_MIN);
}

/* --- lengths of write and reply chunks --- */

void rr_chunk_used(const struct rr_chunk *c, struct rr_seg *segs, uint64_t used)
{
	for (unsigned i = 0; i < c->n; i++) {
		struct rr_seg *s = &segs[c->first + i];

		if (s->length > used)
			s->length = (uint32_t)used;
		used -= s->length;
	}
}

uint64_t rr_chunk_length(const struct rr_chunk *c, const struct rr_seg *segs)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < c->n; i++)
		sum += segs[c->first + i].length;
	return sum;
}

/* --- private data of connection requests --- */

#define CM_VERSION 1

static const uint8_t cm_magic[4] = { 0xf6, 0xab, 0x0e, 0x18 };

static uint8_t cm_size(uint32_t bytes)
{
	uint32_t k = bytes / 1024;

	return (uint8_t)(k < 1 ? 0 : k > 256 ? 255 : k - 1);
}

void rr_cm_encode(uint8_t buf[RR_CM_SIZE], uint32_t send_size, uint32_t recv_size)
{
	memcpy(buf, cm_magic, sizeof(cm_magic));
	buf[4] = CM_VERSION;
	buf[5] = 0; /* no remote invalidation */
	buf[6] = cm_size(send_size);
	buf[7] = cm_size(recv_size);
}

static const uint8_t own_magic[] = { 'B', 'e', 'r', 't', 'h', 'O', 'w', 'n' };

void rr_cm_ask_own(uint8_t buf[RR_CM_OWN_SIZE])
{
	memcpy(buf + RR_CM_SIZE, own_magic, sizeof(own_magic));
}

bool rr_cm_asks_own(const void *buf, size_t len)
{
	return len >= RR_CM_OWN_SIZE && !memcmp((const uint8_t *)buf + RR_CM_SIZE, own_magic, sizeof(own_magic));
}

enum rr_cm rr_cm_decode(const void *buf, size_t len, uint32_t *send_size, uint32_t *recv_size)
{
	const uint8_t *p = buf;

	*send_size = *recv_size = RR_DEF_INLINE;
	if (len >= RR_CM_SIZE - 1 && !memcmp(p, cm_magic + 1, sizeof(cm_magic) - 1))
		return p[3] == CM_VERSION ? RR_CM_DEAF : RR_CM_NONE;
	if (len < RR_CM_SIZE || memcmp(p, cm_magic, sizeof(cm_magic)) || p[4] != CM_VERSION)
		return RR_CM_NONE;
	*send_size = (p[6] + 1u) * 1024;
	*recv_size = (p[7] + 1u) * 1024;
	return RR_CM_HEARD;
}
