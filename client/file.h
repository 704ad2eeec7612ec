/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file.h - an open file, as file.c (WRITE and COMMIT), map.c and put.c (one-sided) share it; private to libberth
 *
 * A put takes part in the rules of file.c: between file_put_begin() and file_put_end() it is a write that is out, what
 * it has placed but not made durable is kept, and what it has placed cuts older data out of what is kept.
 */
#ifndef CLIENT_FILE_H
#define CLIENT_FILE_H

#include "client/client.h"

struct kept {
	TAILQ_ENTRY(kept) link;
	uint64_t off;
	size_t len;
	const uint8_t *data; /* inside mem, or the application's */
	uint8_t *mem;        /* NULL: the application's */
	uint64_t epoch, layout; /* placed through that layout of that connection; layout 0: by WRITE */
	struct berth_map *map;  /* with layout */
	unsigned call;          /* of the COMMIT (LAYOUT) that it is part of */
	uint8_t verf[8];        /* by WRITE */
	struct commit *job;     /* while being written again */
};
TAILQ_HEAD(kept_list, kept);

struct write_op { /* one WRITE */
	TAILQ_ENTRY(write_op) link;
	struct berth_file *f;
	uint64_t off;
	const uint8_t *buf;
	size_t len;
	enum berth_stable stable;
	berth_done *done;
	void *arg;
};

struct commit {
	struct berth_file *f;
	TAILQ_ENTRY(commit) link;
	struct kept_list list; /* what this one is about */
	uint64_t off, end;     /* of the file; end UINT64_MAX: all, and the time */
	unsigned rounds, resending, waiting, calls;
	bool started, quiet_wanted;
	int err;
	struct berth_reply last;
	berth_done *done;
	void *arg;
};

struct berth_file {
	struct berth *b;
	struct berth_fh fh;
	struct kept_list kept;
	size_t kept_bytes;     /* in kept and in the running commit */
	size_t borrowed_bytes; /* of these in the application's buffers */
	unsigned writes_out;
	TAILQ_HEAD(, write_op) held;
	struct put_list held_puts;
	TAILQ_HEAD(, commit) commits; /* the first one runs */
	LIST_HEAD(, berth_map) maps;
	int background_err;           /* of a commit that nobody asked for: the next one tells */
};

/* --- file.c --- */
bool file_holds(const struct berth_file *f); /* F3: a put must wait; put_go() is called when it need not */
void file_put_begin(struct berth_file *f);
void file_put_end(struct berth_file *f);
/* F2: [off, off + len) has been placed and is newer than what is kept. -ENOMEM. */
int file_newer(struct berth_file *f, uint64_t off, size_t len);
bool file_may_copy(const struct berth_file *f, size_t len); /* F4 */
/* Placed through @layout of connection @epoch, not yet durable. The bytes stay the application's unless @copy. */
int file_keep_put(struct berth_file *f, struct berth_map *m, uint64_t epoch, uint64_t layout, uint64_t off,
                  const void *buf, size_t len, bool copy);
/* A WRITE as part of a put that is out: never held. */
int file_put_write(struct berth_file *f, uint64_t off, const void *buf, size_t len, enum berth_stable stable,
                   berth_done *done, void *arg);
/* Lay what is kept over what was read. */
void file_overlay(const struct berth_file *f, uint64_t off, uint8_t *buf, size_t len);
/* Commit what is kept of [off, end). */
int file_start_commit(struct berth_file *f, uint64_t off, uint64_t end, berth_done *done, void *arg);
void file_forget_map(struct berth_file *f, struct berth_map *m); /* its buffers are the application's again */
/* One part of what file_commit_layouts() has started is answered; @call's entries are durable or not. */
void file_commit_answer(struct commit *c, unsigned call, bool durable);

/* --- put.c --- */
void put_go(struct put *p);

#endif
