/* SPDX-License-Identifier: BSD-3-Clause */
/* RPC-over-RDMA headers: what we write we can read, and what a hostile peer writes costs nothing.
 */
#include "transport/rpcrdma.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A message put together word by word; @n counts bytes. */
struct msg {
	uint8_t b[16384];
	size_t n;
};

static void words(struct msg *m, unsigned count, const uint32_t *w)
{
	for (unsigned i = 0; i < count; i++)
		for (int s = 24; s >= 0; s -= 8)
			m->b[m->n++] = (uint8_t)(w[i] >> s);
}
#define WORDS(m, ...) words(m, sizeof((uint32_t[]){ __VA_ARGS__ }) / 4, (uint32_t[]){ __VA_ARGS__ })

/* Decode from an allocation of exactly the right size: a sanitizer sees the first byte beyond. */
static int decode(const void *buf, size_t len, struct rr_header *h, struct rr_seg **segs)
{
	uint8_t *copy = malloc(len ? len : 1);
	int err;

	if (len)
		memcpy(copy, buf, len);
	*segs = malloc(RR_SEGS_IN(len) * sizeof(**segs) + 1);
	err = rr_decode(copy, len, h, *segs, RR_SEGS_IN(len));
	free(copy);
	return err;
}

static void check(const struct msg *m, int want, const char *what)
{
	struct rr_header h;
	struct rr_seg *segs;
	int err = decode(m->b, m->n, &h, &segs);

	cr_assert_eq(err, want, "%s: %d, not %d", what, err, want);
	free(segs);
}

/* Two read chunks, two write chunks, a reply chunk. */
static void full(struct msg *m)
{
	m->n = 0;
	WORDS(m, 7, 1, 32, RR_MSG);
	WORDS(m, 1, 0, 0xa0, 100, 0, 0x1000, 1, 0, 0xa1, 28, 0, 0x2000);
	WORDS(m, 1, 132, 0xa2, 4096, 1, 0, 0);
	WORDS(m, 1, 2, 0xb0, 512, 0, 1, 0xb1, 513, 0, 2, 1, 1, 0xb2, 9, 0, 3, 0);
	WORDS(m, 1, 1, 0xc0, 65536, 0xffffffff, 0);
}

Test(rpcrdma, reads_every_list)
{
	struct msg m;
	struct rr_header h;
	struct rr_seg *s;

	full(&m);
	cr_assert_eq(decode(m.b, m.n, &h, &s), 0);
	cr_assert_eq(h.xid, 7);
	cr_assert_eq(h.credits, 32);
	cr_assert_eq(h.size, m.n);
	cr_assert_eq(h.nreads, 2);
	cr_assert_eq(h.read[0].position, 0);
	cr_assert_eq(h.read[0].n, 2);
	cr_assert_eq(h.read[0].length, 128);
	cr_assert_eq(h.read[1].position, 132);
	cr_assert_eq(s[h.read[1].first].offset, 0x100000000ull);
	cr_assert_eq(h.nwrites, 2);
	cr_assert_eq(h.write[0].length, 1025);
	cr_assert_eq(s[h.write[1].first].handle, 0xb2);
	cr_assert(h.has_reply);
	cr_assert_eq(h.reply.length, 65536);
	cr_assert_eq(s[h.reply.first].offset, 0xffffffff00000000ull);
	free(s);
}

Test(rpcrdma, a_header_cut_anywhere_is_refused)
{
	struct msg m;

	full(&m);
	for (size_t cut = 0; cut < m.n; cut++) {
		struct rr_header h;
		struct rr_seg *s;
		int err = decode(m.b, cut, &h, &s);

		cr_assert_eq(err, cut < RR_FIXED ? -EBADMSG : -EINVAL, "cut at %zu: %d", cut, err);
		if (err == -EINVAL)
			cr_assert(h.xid == 7 && !h.nreads && !h.nwrites && !h.has_reply);
		free(s);
	}
}

Test(rpcrdma, every_single_wrong_bit_is_survived)
{
	struct msg m;

	full(&m);
	for (size_t bit = 0; bit < m.n * 8; bit++) {
		struct rr_header h;
		struct rr_seg *s;

		m.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (!decode(m.b, m.n, &h, &s)) {
			cr_assert_leq(h.size, m.n);
			for (unsigned i = 0; i < h.nreads; i++)
				cr_assert_leq((size_t)h.read[i].first + h.read[i].n,
				              RR_SEGS_IN(m.n));
		}
		free(s);
		m.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

Test(rpcrdma, hostile_words_have_their_error)
{
	static const struct {
		const char *what;
		int err;
		unsigned n;
		uint32_t w[16];
	} cases[] = {
		{ "version 0", -EPROTONOSUPPORT, 7, { 1, 0, 1, 0, 0, 0, 0 } },
		{ "version 2", -EPROTONOSUPPORT, 7, { 1, 2, 1, 0, 0, 0, 0 } },
		{ "version 2 and nothing else", -EPROTONOSUPPORT, 4, { 1, 2, 1, 0 } },
		{ "empty lists", 0, 7, { 1, 1, 1, 0, 0, 0, 0 } },
		{ "RDMA_NOMSG", 0, 7, { 1, 1, 1, 1, 0, 0, 0 } },
		{ "no credits", 0, 7, { 1, 1, 0, 0, 0, 0, 0 } },
		{ "credits without measure", 0, 7, { 1, 1, ~0u, 0, 0, 0, 0 } },
		{ "RDMA_MSGP", -EINVAL, 9, { 1, 1, 1, 2, 4, 4, 0, 0, 0 } },
		{ "RDMA_DONE", 0, 4, { 1, 1, 1, 3 } },
		{ "unknown proc", -EINVAL, 7, { 1, 1, 1, 5, 0, 0, 0 } },
		{ "huge proc", -EINVAL, 7, { 1, 1, 1, ~0u, 0, 0, 0 } },
		{ "read list neither 0 nor 1", -EINVAL, 7, { 1, 1, 1, 0, 2, 0, 0 } },
		{ "write list neither 0 nor 1", -EINVAL, 7, { 1, 1, 1, 0, 0, 2, 0 } },
		{ "reply chunk neither 0 nor 1", -EINVAL, 7, { 1, 1, 1, 0, 0, 0, 2 } },
		{ "read segment wraps",
		  -EINVAL,
		  13,
		  { 1, 1, 1, 0, 1, 0, 9, 2, ~0u, ~0u, 0, 0, 0 } },
		{ "read segment up to the last byte",
		  0,
		  13,
		  { 1, 1, 1, 0, 1, 0, 9, 1, ~0u, ~0u - 1, 0, 0, 0 } },
		{ "write segment wraps",
		  -EINVAL,
		  13,
		  { 1, 1, 1, 0, 0, 1, 1, 9, ~0u, ~0u, ~0u, 0, 0 } },
		{ "write count ~0", -EINVAL, 12, { 1, 1, 1, 0, 0, 1, ~0u, 9, 1, 0, 0, 0 } },
		{ "write count 2^28", -EINVAL, 12, { 1, 1, 1, 0, 0, 1, 1u << 28, 9, 1, 0, 0, 0 } },
		{ "write count one too many",
		  -EINVAL,
		  13,
		  { 1, 1, 1, 0, 0, 1, 2, 9, 1, 0, 0, 0, 0 } },
		{ "write chunk of no segments", 0, 9, { 1, 1, 1, 0, 0, 1, 0, 0, 0 } },
		{ "reply chunk of no segments", 0, 8, { 1, 1, 1, 0, 0, 0, 1, 0 } },
		{ "reply count ~0", -EINVAL, 8, { 1, 1, 1, 0, 0, 0, 1, ~0u } },
		{ "ERR_VERS", 0, 7, { 1, 1, 1, 4, 1, 1, 1 } },
		{ "ERR_CHUNK", 0, 5, { 1, 1, 1, 4, 2 } },
		{ "ERR_VERS without versions", -EINVAL, 5, { 1, 1, 1, 4, 1 } },
		{ "an error without its kind", -EINVAL, 4, { 1, 1, 1, 4 } },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct msg m = { .n = 0 };

		words(&m, cases[i].n, cases[i].w);
		check(&m, cases[i].err, cases[i].what);
	}
}

Test(rpcrdma, more_than_we_take_is_refused_and_not_stored)
{
	struct msg m = { .n = 0 };

	WORDS(&m, 1, 1, 1, 0);
	for (uint32_t i = 0; i < RR_MAX_SEGS; i++)
		WORDS(&m, 1, 0, i, 1, 0, i);
	struct msg ok = m;

	WORDS(&ok, 0, 0, 0);
	check(&ok, 0, "as many read segments as we take");
	WORDS(&m, 1, 0, 9, 1, 0, 9, 0, 0, 0);
	check(&m, -E2BIG, "one more");

	m.n = 0;
	WORDS(&m, 1, 1, 1, 0);
	for (uint32_t i = 0; i <= RR_MAX_CHUNKS; i++)
		WORDS(&m, 1, i, 9, 1, 0, 9);
	WORDS(&m, 0, 0, 0);
	check(&m, -E2BIG, "too many read chunks");

	m.n = 0;
	WORDS(&m, 1, 1, 1, 0, 0);
	for (uint32_t i = 0; i <= RR_MAX_CHUNKS; i++)
		WORDS(&m, 1, 1, 9, 1, 0, 9);
	WORDS(&m, 0, 0);
	check(&m, -E2BIG, "too many write chunks");

	m.n = 0;
	WORDS(&m, 1, 1, 1, 0, 0, 0, 1, RR_MAX_SEGS + 1);
	for (uint32_t i = 0; i <= RR_MAX_SEGS; i++)
		WORDS(&m, 9, 1, 0, 9);
	check(&m, -E2BIG, "too many segments in the reply chunk");
}

Test(rpcrdma, a_short_table_of_segments_is_never_overrun)
{
	struct rr_header h;
	struct msg m;

	full(&m);
	for (size_t max = 0; max < 7; max++) {
		struct rr_seg *s = malloc(max * sizeof(*s) + 1);

		cr_assert_eq(rr_decode(m.b, m.n, &h, s, max), -E2BIG, "%zu", max);
		free(s);
	}
}

Test(rpcrdma, read_segments_in_any_order_make_one_chunk_per_position)
{
	static const uint32_t pos[] = { 200, 0, 100, 0, 200, 100, 50, 0 };
	static const uint32_t want_pos[] = { 0, 50, 100, 200 };
	static const uint32_t want_handle[] = { 1, 3, 7, 6, 2, 5, 0, 4 };
	struct msg m = { .n = 0 };
	struct rr_header h;
	struct rr_seg *s;

	WORDS(&m, 1, 1, 1, 1);
	for (uint32_t i = 0; i < 8; i++)
		WORDS(&m, 1, pos[i], i, 10, 0, i);
	WORDS(&m, 0, 0, 0);
	cr_assert_eq(decode(m.b, m.n, &h, &s), 0);
	cr_assert_eq(h.nreads, 4);
	for (unsigned i = 0, at = 0; i < 4; i++) {
		cr_assert_eq(h.read[i].position, want_pos[i]);
		cr_assert_eq(h.read[i].first, at);
		cr_assert_eq(h.read[i].length, 10u * h.read[i].n);
		at += h.read[i].n;
	}
	for (unsigned i = 0; i < 8; i++)
		cr_assert_eq(s[i].handle, want_handle[i], "segment %u", i);
	free(s);
}

/* A small generator, so that a failing seed can be named. */
static uint32_t next(uint32_t *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 8;
}

static void random_chunk(struct rr_chunk *c, struct rr_seg *segs, unsigned *at, unsigned n,
                         uint32_t *seed)
{
	*c = (struct rr_chunk){ .first = (uint16_t)*at, .n = (uint16_t)n };
	for (; n; n--) {
		struct rr_seg *s = &segs[(*at)++];

		s->handle = next(seed);
		s->length = next(seed);
		s->offset = (uint64_t)next(seed) << 36 | next(seed);
		c->length += s->length;
	}
}

Test(rpcrdma, what_is_encoded_decodes_to_the_same)
{
	for (uint32_t seed = 1; seed < 500; seed++) {
		uint32_t r = seed;
		struct rr_header h = { .xid = seed, .credits = next(&r), .proc = next(&r) & 1 }, g;
		struct rr_seg segs[200], *got;
		uint8_t buf[8192];
		unsigned n = 0;

		h.nreads = next(&r) % 4;
		h.nwrites = next(&r) % 4;
		h.has_reply = next(&r) & 1;
		for (unsigned i = 0; i < h.nreads; i++) {
			random_chunk(&h.read[i], segs, &n, 1 + next(&r) % 20, &r);
			h.read[i].position = i * 100;
		}
		for (unsigned i = 0; i < h.nwrites; i++)
			random_chunk(&h.write[i], segs, &n, next(&r) % 20, &r);
		if (h.has_reply)
			random_chunk(&h.reply, segs, &n, next(&r) % 20, &r);

		size_t size = rr_size(&h);

		cr_assert_eq(rr_encode(&h, segs, buf, size - 1), 0);
		cr_assert_eq(rr_encode(&h, segs, buf, size), size);
		cr_assert_eq(decode(buf, size, &g, &got), 0, "seed %u", seed);
		cr_assert(g.xid == h.xid && g.credits == h.credits && g.proc == h.proc);
		cr_assert(g.nreads == h.nreads && g.nwrites == h.nwrites);
		cr_assert(g.has_reply == h.has_reply && g.size == size);
		for (unsigned i = 0; i < n; i++)
			cr_assert(segs[i].handle == got[i].handle &&
			                  segs[i].length == got[i].length &&
			                  segs[i].offset == got[i].offset,
			          "seed %u", seed);
		for (unsigned i = 0; i < h.nreads; i++)
			cr_assert(g.read[i].position == h.read[i].position &&
			          g.read[i].length == h.read[i].length);
		free(got);
	}
}

Test(rpcrdma, random_bytes_do_no_harm)
{
	for (uint32_t seed = 1; seed < 20000; seed++) {
		struct msg m = { .n = 0 };
		struct rr_header h;
		struct rr_seg *s;
		uint32_t r = seed;

		WORDS(&m, seed, 1, 1, next(&r) % 6);
		for (unsigned n = next(&r) % 60; n; n--) /* mostly small words, some wild */
			WORDS(&m, next(&r) % 8 ? next(&r) % 4 : next(&r) * 257);
		m.n -= next(&r) % 4;
		if (!decode(m.b, m.n, &h, &s))
			cr_assert_leq(h.size, m.n);
		free(s);
	}
}

Test(rpcrdma, errors_are_as_long_as_the_rfc_says)
{
	uint8_t buf[RR_MIN];
	struct rr_header h;
	struct rr_seg s[1];

	cr_assert_eq(rr_encode_error(buf, 5, 8, RR_ERR_VERS), 28);
	cr_assert_eq(rr_decode(buf, 28, &h, s, 1), 0);
	cr_assert(h.proc == RR_ERROR && h.err == RR_ERR_VERS && h.xid == 5);
	cr_assert(h.err_low == 1 && h.err_high == 1 && h.credits == 8);
	cr_assert_eq(rr_encode_error(buf, 6, 8, RR_ERR_CHUNK), 20);
	cr_assert_eq(rr_decode(buf, 20, &h, s, 1), 0);
	cr_assert(h.proc == RR_ERROR && h.err == RR_ERR_CHUNK && h.xid == 6);
}

Test(rpcrdma, used_bytes_are_dealt_out_from_the_front)
{
	for (uint64_t used = 0; used <= 60; used++) {
		struct rr_seg s[3] = { { .length = 10 }, { .length = 20 }, { .length = 30 } };
		struct rr_chunk c = { .first = 0, .n = 3, .length = 60 };

		rr_chunk_used(&c, s, used);
		cr_assert_eq(s[0].length, used < 10 ? used : 10);
		cr_assert_eq(rr_chunk_length(&c, s), used);
		cr_assert(s[2].length == 0 || s[1].length == 20);
	}
}

static enum rr_cm cm_decode(const void *data, size_t len, uint32_t *s, uint32_t *r)
{
	uint8_t *copy = malloc(len ? len : 1); /* of the right size: a sanitizer sees what lies behind */
	enum rr_cm cm;

	if (len)
		memcpy(copy, data, len);
	cm = rr_cm_decode(copy, len, s, r);
	free(copy);
	return cm;
}

static void cm_default(const void *data, size_t len, enum rr_cm want, const char *what)
{
	uint32_t s = 0, r = 0;

	cr_assert_eq(cm_decode(data, len, &s, &r), want, "%s", what);
	cr_assert(s == RR_DEF_INLINE && r == RR_DEF_INLINE, "%s: %u %u", what, s, r);
}

Test(rpcrdma, private_data_of_a_peer_that_reads_ours)
{
	uint8_t buf[RR_CM_SIZE + 1] = { 0 };
	uint32_t s, r;

	rr_cm_encode(buf, 4096, 65536);
	for (size_t len = RR_CM_SIZE; len <= RR_CM_SIZE + 1; len++) {
		cr_assert_eq(cm_decode(buf, len, &s, &r), RR_CM_HEARD);
		cr_assert(s == 4096 && r == 65536);
	}
	rr_cm_encode(buf, 10, 1u << 30);
	cr_assert_eq(cm_decode(buf, 8, &s, &r), RR_CM_HEARD);
	cr_assert(s == 1024 && r == 256 * 1024);
	for (unsigned k = 0; k < 256; k++) {
		buf[6] = (uint8_t)k;
		buf[7] = (uint8_t)(255 - k);
		cr_assert_eq(cm_decode(buf, 8, &s, &r), RR_CM_HEARD);
		cr_assert(s == (k + 1) * 1024 && r == (256 - k) * 1024);
	}
}

/* Sizes that we cannot answer do not hold: the kernel announced 4096 (and posts receives of 1024). */
Test(rpcrdma, private_data_of_a_peer_that_cannot_read_ours)
{
	static const uint8_t kernel[246] = { 0xab, 0x0e, 0x18, 1, 1, 3, 3 };
	uint8_t big[7] = { 0xab, 0x0e, 0x18, 1, 0, 255, 255 };

	for (size_t len = 7; len <= sizeof(kernel); len++)
		cm_default(kernel, len, RR_CM_DEAF, "kernel");
	cm_default(big, sizeof(big), RR_CM_DEAF, "largest sizes");
}

Test(rpcrdma, private_data_that_is_none)
{
	static const uint8_t zeros[256];
	uint8_t whole[RR_CM_SIZE], version2[8] = { 0xab, 0x0e, 0x18, 2, 0, 3, 3, 0 };
	uint8_t len_first[9] = { 8, 0xf6, 0xab, 0x0e, 0x18, 1, 0, 3, 3 };

	rr_cm_encode(whole, 4096, 4096);
	for (size_t n = 0; n < RR_CM_SIZE; n++)
		cm_default(whole, n, RR_CM_NONE, "cut");
	for (size_t n = 0; n < RR_CM_SIZE - 1; n++)
		cm_default(whole + 1, n, RR_CM_NONE, "cut, first byte gone");
	for (unsigned bit = 0; bit < 40; bit++) { /* the magic and the version */
		whole[bit / 8] ^= (uint8_t)(1u << bit % 8);
		cm_default(whole, sizeof(whole), RR_CM_NONE, "a wrong bit");
		if (bit >= 8)
			cm_default(whole + 1, sizeof(whole) - 1, RR_CM_NONE, "a wrong bit, first byte gone");
		whole[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	cm_default(version2, sizeof(version2), RR_CM_NONE, "version 2");
	cm_default(zeros, sizeof(zeros), RR_CM_NONE, "zeros");
	cm_default("garbage!", 8, RR_CM_NONE, "text");
	cm_default(len_first, sizeof(len_first), RR_CM_NONE, "a length still in front");
}
