/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * medium.h - media of tests: memory that writes down what is done to it
 *
 * A recorder logs every store, flush, fence and sync in order, with the bytes; explore.c builds
 * from the log what a power failure could leave. Payload goes past pmemio, so the test places it
 * through medium_place(). A plain medium remembers only which lines were touched, so that it can be
 * put back.
 */
#ifndef TEST_LIB_MEDIUM_H
#define TEST_LIB_MEDIUM_H

#include <pthread.h>

#include "pmemio/core.h"

#define LINE 64u

enum ev_kind {
	EV_NONE,  /* taken out by a fault */
	EV_STORE, /* cached store */
	EV_NT,    /* store past the caches, zeros included: weakly ordered until a fence */
	EV_PLACE, /* payload, placed by whoever: likewise */
	EV_FLUSH, /* write back started */
	EV_FENCE,
	EV_SYNC,   /* durable when it returns */
	EV_WINDOW, /* at: steps answered; len: steps begun */
	EV_RELEASED, /* the thread has let go of its locks: what it flushed is covered by any fence */
};
enum ev_where { AT_SUPER, AT_HEAD, AT_RECORD, AT_POOL };
struct ev {
	uint8_t kind;
	uint8_t where;
	uint8_t via; /* EV_FLUSH: how its first line was stored last */
	uint8_t by;  /* which of two threads (pair.h), from 1; 0: they are no more than one */
	uint32_t at, len;
	size_t bytes; /* in medium.bytes; stores */
};

struct medium {
	struct pm_media m;
	bool recording;
	pthread_mutex_t lock;
	uint64_t head, lanes, data; /* bytes: first lane, one lane, data area */
	struct ev *ev;
	size_t nev, cap;
	uint8_t *bytes;
	size_t nbytes, capbytes;
	uint8_t *via;    /* per line */
	uint8_t *image;  /* when recording began */
	uint8_t by;      /* who does what is logged */
	/* Called before something is done to the media, and behind a fence; may be NULL. No lock held. */
	void (*before)(void *arg, uint8_t kind, uint32_t at, const void *src);
	void (*fenced)(void *arg);
	void (*blocked)(void *arg, bool is); /* the thread waits for another one; NULL too */
	void *hook_arg;
	/* plain: lines touched since medium_mark() */
	uint32_t *hot;
	size_t nhot;
	uint8_t *is_hot;
};

struct geometry {
	unsigned blocks, lanes, lane_blocks;
	bool sums; /* checksums of data */
};
/* An empty pool, far smaller than mkfs makes them: mounting it takes microseconds. What is free
 * holds old bytes (MEDIUM_STALE), so that a block published without its bytes shows. */
#define MEDIUM_STALE 0xee
uint8_t *medium_image(const struct geometry *g);
/* An image of all that was recorded but what was stored in place since the last store to @where: to a header, a
 * checkpoint; to a record, the newest. */
uint8_t *medium_not_in_place(const struct medium *d, enum ev_where where);
/* The pool of format version 1 that is the same: its superblocks, and the records at the start of each lane. */
void image_of_version_1(uint8_t *image);

/* Memory that holds a copy of @image. */
struct medium *medium_new(const uint8_t *image, size_t len, enum pm_method method, bool recording);
void medium_free(struct medium *d);
/* Open it; NULL and @why. The medium outlives the store. */
struct pm_store *medium_open(struct medium *d, struct pm_error *why);
/* Over a private copy: the medium stays as it is. */
struct pm_store *medium_open_ro(struct medium *d, struct pm_error *why);
/* As pm_repair; what it writes is recorded, what it looks at is not touched. */
int medium_repair(struct medium *d, const struct pm_repair_calls *calls, void *arg,
                  struct pm_repair_report *out, struct pm_error *why);
void medium_place(struct medium *d, void *dst, const void *src, size_t len);
void medium_window(struct medium *d, unsigned answered, unsigned begun);
void medium_released(struct medium *d);
enum ev_where medium_where(const struct medium *d, uint32_t at);

#endif
