/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * model.h - what a pool must hold after each step of a run
 *
 * A world is a store on recording media and the list of states that its steps went through. Names,
 * types, links, sizes and bytes are worked out here, apart from pmemio; times and space used are as
 * pmemio gave them when the step was answered. Every change is made once: the tree that it leads to
 * and its record must appear together. Where a WRITE has been placed and is not answered, a
 * byte of a written block may be the old one or the new one, and nothing else may.
 */
#ifndef TEST_LIB_MODEL_H
#define TEST_LIB_MODEL_H

#include "test/lib/medium.h"
#include "test/lib/pair.h"
#include "test/lib/pool.h"

#define W_OBJ   280
#define W_ENT   280
#define W_BLK   48u
#define W_PINS  6
#define W_STEPS 512

enum op_kind {
	OP_END,
	OP_CREATE,
	OP_MKDIR,
	OP_SYMLINK,
	OP_LONGLINK,
	OP_MKNOD,
	OP_LINK,
	OP_REMOVE,
	OP_RMDIR,
	OP_RENAME,
	OP_CHMOD,
	OP_SIZE,
	OP_ALLOC,
	OP_WRITE,
	OP_UNSTABLE,
	OP_SYNC,
	OP_MAP,
	OP_COMMIT,
	OP_GIVEUP,
	OP_READPIN,
	OP_READOFF,
	OP_LEASE,   /* the one lease of the world, on a range of a */
	OP_LPUT,    /* pin: bytes placed through it */
	OP_LCOMMIT, /* what was put as pin; len: everything put so far, in one call */
	OP_LDONE,   /* close it; what was not committed is lost or in doubt */
	OP_BATCH,   /* pins [pin, pin + len) are committed in a batch */
	OP_CHECKPOINT,
	OP_REOPEN,
	OP_BOTH, /* two: by two threads; NULL: they commit pins 0 and 1, of two files; off: seed */
};
struct op {
	enum op_kind kind;
	const char *a, *b; /* paths from the root, without the first slash */
	uint64_t off, len; /* OP_SIZE: off; OP_CHMOD: off */
	unsigned pin;      /* OP_MAP .. OP_READOFF: which */
	bool nowait;       /* PM_MSYNC: begin the next step before this one is durable */
	const struct op *two; /* OP_BOTH: of one transaction each */
};

struct content {              /* never changed once a state has it */
	uint8_t state[W_BLK]; /* enum pm_ext_state */
	uint8_t *data[W_BLK]; /* NULL: zeros */
	uint8_t *alt[W_BLK];  /* NULL: none; a byte is this one or that of data */
};
struct wobj {
	bool live;
	struct pm_attr attr; /* durable ones */
	struct content *c;
	char link[300];
};
struct went {
	int dir, obj;
	const char *name;
};
struct state {
	int nobj, nent;
	struct wobj obj[W_OBJ];
	struct went ent[W_ENT];
	unsigned keys;      /* given out so far, one for each change */
	bool made[W_STEPS]; /* by key: a record of it must be there, unless too many followed */
	uint8_t verf[8];
	unsigned pinned; /* blocks of writes under way, cut off or not */
	bool doubt; /* unstable data was accepted: the verifier must change */
};
struct wpin {
	struct pm_map m;
	bool used, write, placed, unstable, leased;
	int obj;
	unsigned step;
	uint64_t off, len, cut;
};
struct world {
	struct medium *d;
	struct pm_store *st;
	struct state *state[W_STEPS]; /* [0]: at the start */
	unsigned n;                   /* steps so far */
	unsigned answered;
	unsigned salt; /* of payload */
	pm_lsn last;
	struct wpin pin[W_PINS];
	struct pm_lease *lease;
	int lease_obj;
	struct wpin soft[8]; /* unstable writes that no sync has followed */
	unsigned nsoft;
	bool failed;      /* of the step */
	unsigned switches; /* from thread to thread, in all OP_BOTH */
	unsigned blocks;   /* likewise: one met a lock of the other's */
	unsigned refused; /* steps, for lack of space */
	unsigned shared;  /* commits that were in one transaction with another one */
	int err;
	void **garbage;
	size_t ngarbage, capgarbage;
	char why[512];
};

/* A world on a copy of @image; @from: the state that holds there, NULL: empty pool. */
struct world *world_new(const uint8_t *image, size_t len, enum pm_method method,
                        struct world *from);
/* Do a step. False: pmemio and the model disagree, w->why. */
bool world_do(struct world *w, const struct op *op);
bool world_run(struct world *w, const struct op *ops); /* up to OP_END */
/* Let go of the store: a clean close, or as a kill would. The log and the states stay. */
bool world_close(struct world *w);
void world_kill(struct world *w);
void world_free(struct world *w);

/* --- model_match.c --- */

/* What the store remembers change @n by. */
struct pm_once state_key(unsigned n);
/* Blocks that a write under way may be changing, or that hold one thing or another since it was given up. */
unsigned state_doubtful(const struct state *s);
/* Is this what @st holds? @sum: of all bytes that may be one thing or another. */
bool state_matches(struct pm_store *st, const struct state *s, uint64_t *sum, char *why,
                   size_t size);

#endif
