/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fh.c - file handles: 32 bytes that only this pool can have made
 *
 *   0  version   1 byte, 1; then 3 zero bytes
 *   4  export    4 bytes: key of the export it was obtained through
 *   8  ino       8 bytes
 *  16  gen       8 bytes: an inode number is reused, with its generation never
 *  24  mac       8 bytes: SipHash-2-4 of bytes 0 to 23 under the pool's secret
 *
 * Little-endian. The MAC is what makes the export key worth something: a client cannot turn a
 * handle of one export into one of another, nor guess its way to a file that it was never shown.
 *
 * Calls come in runs about few objects, so each worker keeps the MACs that it worked out lately (struct fh_macs).
 * They are its own, whatever a client sent: a forged handle is compared with one of these or with a new one.
 */
#include <endian.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "server/nfs3.h"

#define FH_VERSION 1
#define FH_MAC_AT  24

_Static_assert(FH_MAC_AT + crypto_shorthash_BYTES == FH_SIZE, "the MAC ends the handle");
_Static_assert(sizeof(uint64_t) == crypto_shorthash_BYTES, "the MAC is one word");
_Static_assert(FH_VERSION, "an empty fh_mac is of no handle");
_Static_assert(crypto_shorthash_KEYBYTES == 16, "as long as pm_secret()");

static void put32(uint8_t *at, uint32_t v)
{
	v = htole32(v);
	memcpy(at, &v, sizeof(v));
}

static void put64(uint8_t *at, uint64_t v)
{
	v = htole64(v);
	memcpy(at, &v, sizeof(v));
}

static uint32_t get32(const uint8_t *at)
{
	uint32_t v;

	memcpy(&v, at, sizeof(v));
	return le32toh(v);
}

static uint64_t get64(const uint8_t *at)
{
	uint64_t v;

	memcpy(&v, at, sizeof(v));
	return le64toh(v);
}

static void put_body(const struct fh *fh, uint8_t *out)
{
	put32(out, FH_VERSION);
	put32(out + 4, fh->export_key);
	put64(out + 8, fh->id.ino);
	put64(out + 16, fh->id.gen);
}

void fh_seal(const uint8_t *secret, const struct fh *fh, uint8_t out[FH_SIZE])
{
	put_body(fh, out);
	crypto_shorthash(out + FH_MAC_AT, out, FH_MAC_AT, secret);
}

/* The MAC of bytes 0 to 23, as it lies in the handle. */
static uint64_t mac_of(struct worker *w, const uint8_t *body)
{
	uint64_t b[FH_MAC_AT / 8];
	struct fh_mac *m;

	memcpy(b, body, sizeof(b));
	m = &w->macs.of[((b[0] ^ b[1] ^ b[2]) * 0x9e3779b97f4a7c15ull >> 32) % FH_MACS];
	if ((m->body[0] ^ b[0]) | (m->body[1] ^ b[1]) | (m->body[2] ^ b[2])) {
		crypto_shorthash((uint8_t *)&m->mac, body, FH_MAC_AT, pm_secret(w->srv->store));
		memcpy(m->body, b, sizeof(b));
	}
	return m->mac;
}

void fh_make(struct worker *w, const struct fh *fh, uint8_t out[FH_SIZE])
{
	uint64_t mac;

	put_body(fh, out);
	mac = mac_of(w, out);
	memcpy(out + FH_MAC_AT, &mac, sizeof(mac));
}

int fh_parse(struct worker *w, const uint8_t *data, size_t len, struct fh *out)
{
	uint64_t mac;

	if (len != FH_SIZE || get32(data) != FH_VERSION)
		return -EBADF;
	memcpy(&mac, data + FH_MAC_AT, sizeof(mac));
	if (mac != mac_of(w, data)) /* one word: how much of it agrees does not show in the time */
		return -EBADF;
	out->export_key = get32(data + 4);
	out->id.ino = get64(data + 8);
	out->id.gen = get64(data + 16);
	return 0;
}
