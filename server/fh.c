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
 */
#include <endian.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "server/nfs3.h"

#define FH_VERSION 1
#define FH_MAC_AT  24

_Static_assert(FH_MAC_AT + crypto_shorthash_BYTES == FH_SIZE, "the MAC ends the handle");
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

void fh_seal(const uint8_t *secret, const struct fh *fh, uint8_t out[FH_SIZE])
{
	put32(out, FH_VERSION);
	put32(out + 4, fh->export_key);
	put64(out + 8, fh->id.ino);
	put64(out + 16, fh->id.gen);
	crypto_shorthash(out + FH_MAC_AT, out, FH_MAC_AT, secret);
}

void fh_make(const struct server *srv, const struct fh *fh, uint8_t out[FH_SIZE])
{
	fh_seal(pm_secret(srv->store), fh, out);
}

int fh_parse(const struct server *srv, const uint8_t *data, size_t len, struct fh *out)
{
	uint8_t mac[crypto_shorthash_BYTES];

	if (len != FH_SIZE || get32(data) != FH_VERSION)
		return -EBADF;
	crypto_shorthash(mac, data, FH_MAC_AT, pm_secret(srv->store));
	if (sodium_memcmp(mac, data + FH_MAC_AT, sizeof(mac)))
		return -EBADF;
	out->export_key = get32(data + 4);
	out->id.ino = get64(data + 8);
	out->id.gen = get64(data + 16);
	return 0;
}
