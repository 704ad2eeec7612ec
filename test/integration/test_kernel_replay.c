/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_kernel_replay.c - sessions of the Linux kernel's client, said again to a berthd of this build
 *
 * The calls of test/fixtures/kernel go out as they were recorded, but for what another server instance must change: file
 * handles, which are learned from the replies as they come, and the memory that chunks name, which is ours. RDMA calls
 * travel over libfabric's tcp provider; to the server that is the same path. What comes back must be as long as what
 * the kernel got, with the same status, the same chunks filled to the same lengths, and the same payload.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/nfs3.h"
#include "test/lib/daemon.h"
#include "test/lib/fabpeer.h"
#include "test/lib/fixture.h"

#define FH       32
#define MAX_FHS  64
#define MAX_MSG  (256 << 10)
#define XDR_HEAD 28 /* of an accepted reply: xid, REPLY, ACCEPTED, verifier, SUCCESS; then the status of the procedure */

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* --- file handles: theirs and ours ------------------------------------------------------------------------------------ */

struct handles {
	uint8_t was[MAX_FHS][FH], is[MAX_FHS][FH];
	unsigned n;
};

static bool is_handle(const uint8_t *p)
{
	return be32(p) == FH && be32(p + 4) == 0x01000000 /* its version, in the server's byte order */;
}

/* Two replies to the same call have their handles in the same places. */
static void learn(struct handles *h, const uint8_t *was, const uint8_t *is, size_t len)
{
	for (size_t at = 0; at + 4 + FH <= len; at += 4) {
		unsigned i = 0;

		if (!is_handle(was + at) || !is_handle(is + at))
			continue;
		while (i < h->n && memcmp(h->was[i], was + at + 4, FH))
			i++;
		cr_assert_lt(i, MAX_FHS);
		memcpy(h->was[i], was + at + 4, FH);
		memcpy(h->is[i], is + at + 4, FH);
		h->n += i == h->n;
		at += FH;
	}
}

/* In a call every handle is one that a reply gave. */
static void translate(const struct handles *h, uint8_t *msg, size_t len, unsigned line)
{
	for (size_t at = 0; at + 4 + FH <= len; at += 4) {
		unsigned i = 0;

		if (!is_handle(msg + at))
			continue;
		while (i < h->n && memcmp(h->was[i], msg + at + 4, FH))
			i++;
		cr_assert_lt(i, h->n, "line %u: a handle that no reply gave", line);
		memcpy(msg + at + 4, h->is[i], FH);
		at += FH;
	}
}

/* Entries of a directory come in an order that the pool's secret decides: only their sum is the same. */
static bool in_any_order(const uint8_t *call_msg)
{
	return be32(call_msg + 12) == NFS3_PROGRAM && be32(call_msg + 20) == NFSPROC3_READDIRPLUS;
}

static void reply_same(const uint8_t *was, size_t was_len, const uint8_t *is, size_t is_len, unsigned line)
{
	cr_assert_eq(is_len, was_len, "line %u: a reply of %zu bytes, the kernel got %zu", line, is_len, was_len);
	cr_assert_eq(memcmp(is, was, was_len < XDR_HEAD ? was_len : XDR_HEAD), 0, "line %u: status", line);
}

/* --- over TCP ------------------------------------------------------------------------------------------------------- */

static int dial(unsigned port)
{
	struct sockaddr_in in = { .sin_family = AF_INET,
				  .sin_port = htons((uint16_t)port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	cr_assert_eq(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	return fd;
}

static size_t exchange(int fd, const uint8_t *call, size_t len, uint8_t *reply)
{
	size_t size;

	cr_assert_eq(send(fd, call, len, MSG_NOSIGNAL), (ssize_t)len);
	cr_assert_eq(recv(fd, reply, 4, MSG_WAITALL), 4, "no reply");
	cr_assert(reply[0] & 0x80, "a reply in fragments");
	size = be32(reply) & 0x7fffffff;
	cr_assert_leq(size, MAX_MSG);
	cr_assert_eq(recv(fd, reply, size, MSG_WAITALL), (ssize_t)size);
	return size;
}

static void tcp_call(int fd, struct handles *h, const struct fixture_line *call, const struct fixture_line *was)
{
	static uint8_t msg[MAX_MSG], is[MAX_MSG];
	size_t len;

	memcpy(msg, call->data, call->len);
	translate(h, msg, call->len, call->number);
	len = exchange(fd, msg, call->len, is);
	reply_same(was->data + 4, was->len - 4, is, len, call->number);
	if (!in_any_order(msg + 4))
		learn(h, was->data + 4, is, len);
	if (be32(msg + 4 + 12) == NFS3_PROGRAM && be32(msg + 4 + 20) == NFSPROC3_READ) {
		size_t data = be32(msg + call->len - 4) < len ? be32(msg + call->len - 4) : len - 128;

		cr_assert_eq(memcmp(is + len - data, was->data + 4 + len - data, data), 0, "line %u: data", call->number);
	}
}

Test(kernel_replay, over_tcp, .timeout = 120)
{
	const struct fixture_line *l, *reply;
	struct handles h = { .n = 0 };
	struct fixture f;
	struct daemon d;
	unsigned n = 0;
	int fd;

	daemon_start(&d, &(struct daemon_opts){ .no_fabric = true });
	fixture_load("kernel/tcp.txt", &f);
	fd = dial(d.port);
	for (l = f.line; (l = fixture_next(&f, l, "call", NULL)); n++) {
		/* Calls may cross; a reply tells by its xid what it answers. */
		for (reply = l; (reply = fixture_next(&f, reply, "reply", NULL));)
			if (!memcmp(reply->data + 4, l->data + 4, 4))
				break;
		cr_assert(reply, "line %u has no reply", l->number);
		tcp_call(fd, &h, l, reply);
	}
	cr_assert_geq(n, 90);
	cr_assert_eq(daemon_counter(&d, "payload_copied_bytes"), 0);
	cr_assert_eq(daemon_counter(&d, "bad_records"), 0);
	close(fd);
	fixture_free(&f);
	daemon_remove(&d);
}

/* --- over RDMA ------------------------------------------------------------------------------------------------------ */

/* The handle of the root, which the kernel asked for over TCP. */
static void learn_root(struct daemon *d, struct handles *h, const struct fixture *rdma)
{
	static uint8_t is[MAX_MSG];
	const struct fixture_line *l;
	struct fixture f;
	int fd = dial(d->port);
	size_t len = 0;

	fixture_load("kernel/tcp.txt", &f);
	for (l = f.line; (l = fixture_next(&f, l, "call", NULL));)
		if (be32(l->data + 4 + 12) == 100005 && be32(l->data + 4 + 20) == 1)
			break;
	cr_assert(l, "no MNT");
	len = exchange(fd, l->data, l->len, is);
	cr_assert(len > XDR_HEAD + 4 + FH && is_handle(is + XDR_HEAD));
	memcpy(h->is[0], is + XDR_HEAD + 4, FH);
	/* The first handle in the session over RDMA. */
	for (l = rdma->line; (l = fixture_next(rdma, l, "call", NULL)) && !h->n;)
		for (size_t at = RR_MIN; at + 4 + FH <= l->len && !h->n; at += 4)
			if (is_handle(l->data + at)) {
				memcpy(h->was[0], l->data + at + 4, FH);
				h->n = 1;
			}
	close(fd);
	fixture_free(&f);
}

struct session {
	struct fpeer peer;
	struct handles h;
	const struct fixture *f;
	bool up;
	size_t at; /* memory given out for this call */
};

static void reconnect(struct session *s, struct daemon *d, const struct fixture_line *cm)
{
	char service[16];
	struct tp_fabric_opts o = { .name = "replay", .provider = "tcp", .node = "127.0.0.1", .service = service };

	if (s->up)
		fpeer_close(&s->peer);
	snprintf(service, sizeof(service), "%u", d->fabric_port);
	cr_assert_eq(fpeer_open(&s->peer, &o, cm->data, cm->len), 0);
	s->up = true;
}

/* Our memory for the segments of a chunk; returns where it begins. */
static uint8_t *lend(struct session *s, const struct rr_chunk *c, struct rr_seg *segs)
{
	uint8_t *at = s->peer.mem + s->at;

	for (unsigned i = 0; i < c->n; i++) {
		struct rr_seg *seg = &segs[c->first + i];

		seg->handle = s->peer.mr.key;
		seg->offset = fab_mr_addr(s->peer.f, &s->peer.mr, s->peer.mem + s->at);
		s->at += seg->length;
		cr_assert_leq(s->at, FPEER_MEM);
	}
	return at;
}

static void words(uint8_t *to, size_t len)
{
	for (size_t i = 0; i < len; i++)
		to[i] = (uint8_t)((i & ~(size_t)3) >> (24 - 8 * (i & 3)));
}

/* What the client offers for reading: a link's target, or the words that files are made of. */
static void offer(struct session *s, const struct fixture_line *call, const struct rr_header *h, struct rr_seg *segs)
{
	const struct fixture_line *whole = fixture_next(s->f, call, "run", "call");

	for (unsigned i = 0; i < h->nreads; i++) {
		uint8_t *at = lend(s, &h->read[i], segs);
		size_t len = (size_t)h->read[i].length;

		if (whole) {
			cr_assert_geq(whole->len, h->read[i].position + len);
			memcpy(at, whole->data + h->read[i].position, len);
		} else {
			words(at, len);
		}
	}
}

/* What was pushed to the kernel for this call, in the order of its segments: the first bytes of each push. */
static const struct fixture_line *pushed(struct session *s, const struct fixture_line *call, const struct rr_seg *seg)
{
	const struct fixture_line *l = call;
	unsigned long key, addr;

	while ((l = fixture_next(s->f, l, "push", "call"))) {
		cr_assert_eq(sscanf(l->text, "%lx %lx", &key, &addr), 2);
		if (key == seg->handle && addr == seg->offset)
			return l;
	}
	return NULL;
}

static void payload_same(struct session *s, const struct fixture_line *call, const struct rr_seg *was, const uint8_t *is)
{
	const struct fixture_line *l = pushed(s, call, was);

	cr_assert(l, "line %u: nothing was pushed to the kernel", call->number);
	cr_assert_eq(memcmp(is, l->data, l->len), 0, "line %u: payload", call->number);
}

/* The message of a reply in a chunk, theirs: all segments' pushes side by side. */
static size_t chunk_message(struct session *s, const struct fixture_line *call, const struct rr_chunk *c,
			    const struct rr_seg *segs, uint8_t *to)
{
	size_t len = 0;

	for (unsigned i = 0; i < c->n; i++) {
		const struct fixture_line *l = pushed(s, call, &segs[c->first + i]);

		if (!l)
			continue;
		memcpy(to + len, l->data, l->len);
		len += l->len;
	}
	return len;
}

static void chunk_lengths_same(const struct rr_chunk *a, const struct rr_seg *as, const struct rr_chunk *b,
			       const struct rr_seg *bs, unsigned line)
{
	cr_assert_eq(a->n, b->n, "line %u: segments", line);
	for (unsigned i = 0; i < a->n; i++)
		cr_assert_eq(as[a->first + i].length, bs[b->first + i].length, "line %u: segment %u", line, i);
}

static void rdma_reply(struct session *s, const struct fixture_line *call, const struct rr_header *sent,
		       const struct rr_seg *theirs, const uint8_t *write_at, const uint8_t *reply_at)
{
	static uint8_t was_chunk[MAX_MSG];
	const struct fixture_line *reply = fixture_next(s->f, call, "reply", "call");
	struct rr_seg was_segs[RR_MAX_SEGS], is_segs[RR_MAX_SEGS];
	struct fmessage *m = fpeer_receive(&s->peer);
	const uint8_t *was_msg, *is_msg;
	struct rr_header was, is;
	size_t was_len, is_len;

	cr_assert(m && reply, "line %u: no reply", call->number);
	cr_assert_leq(m->len, RR_DEF_INLINE, "line %u: more than the kernel receives", call->number);
	cr_assert_eq(rr_decode(reply->data, reply->len, &was, was_segs, RR_MAX_SEGS), 0);
	cr_assert_eq(rr_decode(m->buf, m->len, &is, is_segs, RR_MAX_SEGS), 0);
	cr_assert(is.xid == was.xid && is.vers == 1 && is.credits > 0);
	cr_assert_eq(is.proc, was.proc, "line %u: proc %u, not %u", call->number, is.proc, was.proc);
	cr_assert(is.nwrites == was.nwrites && is.has_reply == was.has_reply && !is.nreads);
	was_msg = reply->data + was.size;
	was_len = reply->len - was.size;
	is_msg = m->buf + is.size;
	is_len = m->len - is.size;
	if (is.nwrites)
		chunk_lengths_same(&is.write[0], is_segs, &was.write[0], was_segs, call->number);
	if (is.nwrites && rr_chunk_length(&is.write[0], is_segs))
		payload_same(s, call, &theirs[sent->write[0].first], write_at);
	if (is.has_reply) {
		chunk_lengths_same(&is.reply, is_segs, &was.reply, was_segs, call->number);
		was_len = chunk_message(s, call, &sent->reply, theirs, was_chunk);
		was_msg = was_chunk;
		is_len = (size_t)rr_chunk_length(&is.reply, is_segs);
		is_msg = reply_at;
	}
	reply_same(was_msg, was_len, is_msg, is_len, call->number);
	if (!is.has_reply) /* only directories and links answer so: no new handles */
		learn(&s->h, was_msg, is_msg, is_len);
}

static void rdma_call(struct session *s, const struct fixture_line *call)
{
	struct rr_seg theirs[RR_MAX_SEGS], ours[RR_MAX_SEGS];
	uint8_t msg[4096], *write_at = NULL, *reply_at = NULL;
	struct rr_header h;
	size_t at;

	cr_assert_eq(rr_decode(call->data, call->len, &h, theirs, RR_MAX_SEGS), 0);
	memcpy(ours, theirs, sizeof(ours));
	s->at = 0;
	offer(s, call, &h, ours);
	for (unsigned i = 0; i < h.nwrites; i++) {
		uint8_t *mem = lend(s, &h.write[i], ours);

		write_at = write_at ? write_at : mem;
	}
	if (h.has_reply)
		reply_at = lend(s, &h.reply, ours);
	at = rr_encode(&h, ours, msg, sizeof(msg));
	cr_assert_eq(at, h.size);
	memcpy(msg + at, call->data + at, call->len - at);
	translate(&s->h, msg + at, call->len - at, call->number);
	fpeer_send(&s->peer, msg, call->len);
	rdma_reply(s, call, &h, theirs, write_at, reply_at);
}

Test(kernel_replay, over_rdma, .timeout = 120)
{
	struct session *s = calloc(1, sizeof(*s));
	const struct fixture_line *l;
	struct fixture f;
	struct daemon d;
	unsigned n = 0;

	daemon_start(&d, &(struct daemon_opts){ .size = 0 });
	fixture_load("kernel/rdma.txt", &f);
	s->f = &f;
	learn_root(&d, &s->h, &f);
	for (l = f.line; l < f.line + f.n; l++) {
		if (!strcmp(l->what, "cm")) {
			reconnect(s, &d, l);
		} else if (!strcmp(l->what, "call")) {
			rdma_call(s, l);
			n++;
		}
	}
	cr_assert_geq(n, 90);
	cr_assert_eq(daemon_counter(&d, "payload_copied_bytes"), 0);
	cr_assert_eq(daemon_counter(&d, "bad_chunks"), 0);
	cr_assert_eq(daemon_counter(&d, "bad_headers"), 0);
	/* Both large writes, the direct one, and what was read of them, all without a copy. */
	cr_assert_geq(daemon_counter(&d, "payload_placed_bytes"), 2 * (60000 + 12288) + 10001);
	fpeer_close(&s->peer);
	free(s);
	fixture_free(&f);
	daemon_remove(&d);
}
