/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client_share.c - small payloads through memory that client and server have both mapped (shm)
 *
 * The memory is cut into places of one message each. A request has one from transmit to reply: the payload that it takes
 * along is copied in before the call is sent, the payload that came is copied out when the reply is there. The server copies
 * between there and the pool; nobody registers anything, and no process reads another's memory, which is a system call.
 */
#include "transport/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int client_share_open(struct tp_client *c)
{
	struct client_share *s = &c->share;
	size_t n = c->rdv.shared ? c->rdv.shared_len / c->send_max : 0;

	if (n > c->want)
		n = c->want;
	if (!n)
		return 0;
	s->place = calloc(n, sizeof(*s->place));
	if (!s->place)
		return -ENOMEM;
	s->size = c->send_max;
	while (s->nfree < n) {
		s->place[s->nfree] = c->rdv.shared + (size_t)s->size * s->nfree;
		s->nfree++;
	}
	return 0;
}

void client_share_close(struct tp_client *c)
{
	free(c->share.place);
	c->share = (struct client_share){ .place = NULL };
}

bool client_share_take(struct client_req *q, size_t len, struct rr_seg *seg)
{
	struct client_share *s = &q->c->share;

	if (len > s->size || !s->nfree || q->place)
		return false;
	q->place = s->place[--s->nfree];
	*seg = (struct rr_seg){ .handle = RDV_SHARED, .length = (uint32_t)len,
		                .offset = (uint64_t)(q->place - q->c->rdv.shared) };
	return true;
}

void client_share_put(struct client_req *q)
{
	struct client_share *s = &q->c->share;

	if (q->place)
		s->place[s->nfree++] = q->place;
	q->place = NULL;
}

void client_share_in(const struct client_req *q, const struct iovec *iov, unsigned n)
{
	uint8_t *at = q->place;

	for (unsigned i = 0; i < n; at += iov[i++].iov_len)
		if (iov[i].iov_len)
			memcpy(at, iov[i].iov_base, iov[i].iov_len);
}

void client_share_out(const struct client_req *q, const struct iovec *iov, unsigned n, size_t len)
{
	const uint8_t *at = q->place;

	for (unsigned i = 0; i < n && len; i++) {
		size_t k = iov[i].iov_len < len ? iov[i].iov_len : len;

		if (k)
			memcpy(iov[i].iov_base, at, k);
		at += k;
		len -= k;
	}
}
