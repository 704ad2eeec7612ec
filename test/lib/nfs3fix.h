/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nfs3fix.h - the NFS and MOUNT programs over a real worker, a real socket and a real pool, all in this process
 *
 * The client speaks RPC by hand, so that it can also say what is wrong. A helper named for a procedure makes one whole
 * call, which must be accepted and whose results must decode, and returns the status in them.
 */
#ifndef TEST_LIB_NFS3FIX_H
#define TEST_LIB_NFS3FIX_H

#include "proto/mount3.h"
#include "server/nfs3.h"
#include "server/process.h"
#include "test/lib/pool.h"

enum {
	DENIED = 100, /* + auth_stat */
	LOST = -1,
	ARGS_AT = 256 /* of arguments in @out: behind any header */
};

typedef struct {
	uint8_t b[FH_SIZE];
} H;

extern struct test_pool pool;
extern struct server srv;
extern struct worker worker;
extern struct sockaddr_in where; /* it listens */
extern H root;                   /* of the export "/" */
extern struct tp_cred me;        /* whom the next call speaks for: AUTH_SYS, root at first */
extern int sock;                 /* the present connection */
extern uint32_t xid;             /* of the last call */
extern uint8_t *out;
extern XDR enc, res;             /* arguments being made; results of the last call */

/* For TestSuite(). Exports: /, /ro (read-only), /sub, /squash, /all (77:88), /secure (reserved ports), /far (not for us). */
void nfs3fix_start(void);       /* a pool of 64 MiB of memory, with a directory for each export */
void nfs3fix_start_msync(void); /* of slow media, empty */
void nfs3fix_stop(void);        /* fails if a pin was left behind */

/* --- by hand ------------------------------------------------------------------------------------------------ */

void die_unless(bool ok, const char *what);
void dial(struct sockaddr_in *sa); /* a new connection becomes @sock */
void put32(uint8_t **p, uint32_t v);
XDR *args(void); /* @enc, at the beginning of the arguments */
/* Call with the @n bytes of arguments at out + ARGS_AT. */
void post(uint32_t prog, uint32_t proc, size_t n);
/* The answer to the last call: accept_stat, DENIED + auth_stat, or LOST. */
int receive(void);
int go(uint32_t prog, uint32_t proc, size_t n); /* both */

/* One whole call that must be accepted, results decoded. */
#define NFS(proc, argt, argp, rest, resp)                                                          \
	do {                                                                                       \
		cr_assert(xdr_##argt(args(), argp));                                               \
		cr_assert_eq(go(NFS3_PROGRAM, NFSPROC3_##proc, xdr_getpos(&enc)), SUCCESS);        \
		cr_assert(xdr_##rest(&res, resp), #proc ": results do not decode");                \
	} while (0)

nfs_fh3 wire(const H *h);
diropargs3 at(const H *dir, const char *name);
extern const sattr3 nothing;
sattr3 mode_is(uint32_t mode);
void be(uint32_t uid, uint32_t gid); /* from the next call on, in no other group */

/* --- procedures --------------------------------------------------------------------------------------------- */

mountstat3 mnt(const char *path, H *h);
nfsstat3 getattr(const H *h, fattr3 *a);
nfsstat3 lookup(const H *dir, const char *name, H *h);
nfsstat3 setattr_of(const H *h, sattr3 sa, const nfstime3 *guard);
uint32_t access_of(const H *h, uint32_t asked);
nfsstat3 readlink_of(const H *h, char *buf, uint32_t *len);
nfsstat3 read_at(const H *h, uint64_t off, uint32_t count, void *buf, uint32_t *got);
nfsstat3 write_at(const H *h, uint64_t off, const void *data, uint32_t n, stable_how stable);
nfsstat3 write_n(const H *h, uint64_t off, const void *data, uint32_t n, stable_how stable, uint32_t count);
nfsstat3 commit(const H *h, uint64_t off, uint32_t n);
/* Of these @h may be NULL. */
nfsstat3 create(const H *dir, const char *name, H *h); /* GUARDED, 0644 */
nfsstat3 create_as(const H *dir, const char *name, createmode3 mode, sattr3 sa, H *h);
nfsstat3 create_excl(const H *dir, const char *name, const char verf[8], H *h);
nfsstat3 mkdir_mode(const H *dir, const char *name, uint32_t mode, H *h);
nfsstat3 symlink_to(const H *dir, const char *name, const char *target, H *h);
nfsstat3 mknod_of(const H *dir, const char *name, ftype3 type, H *h);
nfsstat3 remove_name(const H *dir, const char *name);
nfsstat3 rmdir_name(const H *dir, const char *name);
nfsstat3 rename_name(const H *from, const char *fname, const H *to, const char *tname);
nfsstat3 link_name(const H *file, const H *dir, const char *name);

/* Results of the last call of that kind. */
extern CREATE3res made; /* create, mkdir, symlink, mknod */
extern REMOVE3res removed;
extern RENAME3res renamed;
extern LINK3res linked;
extern SETATTR3res set_res;
extern WRITE3res written;
extern READ3head read_head; /* read */
extern COMMIT3res committed;

#endif
