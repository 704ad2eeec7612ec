/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * map.h - mappings of files, as map.c (layouts held and lost) and put.c (transfers) share them; private to libberth
 */
#ifndef CLIENT_MAP_H
#define CLIENT_MAP_H

#include "client/file.h"
#include "client/layout.h"

/*
 * A layout, as the server answered one MAP. Found by (epoch, id), never kept by pointer over a callback.
 *
 *   LIVE --recalled, doubtful--> ENDING --no RMA out--> RETURN sent, freed
 *   LIVE --lease over, connection over--> freed when looked at
 */
struct layout {
	LIST_ENTRY(layout) link;
	uint64_t id, epoch, generation;
	uint64_t expires; /* ms: no RMA is begun from then on */
	layoutmethod method;
	struct extents x;
	uint64_t size; /* the file is at least so long, as far as this layout knows */
	unsigned out;  /* RMA posted */
	bool rw, ending;
};

struct put { /* or a get: one transfer of the application's */
	TAILQ_ENTRY(put) link; /* held by the file, or waiting for a COMMIT, or for a read behind it */
	struct berth_map *m;
	bool get;
	uint64_t off;
	uint8_t *buf;
	size_t len;
	int flags;
	berth_done *done;
	void *arg;
	unsigned out;      /* pieces on their way, 1 for whoever hands them out */
	int err;
	bool by_server;    /* whole: the last resort, or chosen */
	bool by_rma;       /* whole; layout, epoch: through which */
	uint64_t epoch, layout;
	bool wants_commit, queued, answered; /* COMMIT (LAYOUT): needed; asked; how */
	bool wants_push, pushing; /* read-after-write: a read behind the writes is needed; asked for */
	uint64_t push_addr, push_key; /* of the last byte */
	bool unstable;     /* a WRITE was answered less than FILE_SYNC */
};

struct berth_map {
	LIST_ENTRY(berth_map) link, in_file;
	struct berth_file *f;
	uint64_t off, end;
	int flags;
	LIST_HEAD(, layout) layouts;
	unsigned busy;        /* puts and gets */
	unsigned calls;       /* of ours, about which somebody will be told */
	bool mapping;         /* a MAP is out */
	uint64_t no_map_before; /* ms */
	bool touched;         /* bytes were changed and no call has told the server of the time */
	struct put_list waiting; /* for a COMMIT */
	unsigned commits_out;
	char why[256];
	berth_done *unmapped; /* set: on the way out */
	void *unmap_arg;
	int unmap_err;
};

/* --- map.c --- */
void maps_renew(struct berth *b, uint64_t now);
/* Puts that wait for a COMMIT, or a read behind them, get it. Called where no more of them are to be expected just now. */
void maps_flush(struct berth *b);
/* A WRITE of ours has changed these bytes. */
void maps_written(struct berth_file *f, uint64_t off, size_t len);
bool maps_touched(const struct berth_file *f);
/* Send a COMMIT for each layout that entries of @c->list went through; returns how many answers will come to
 * file_commit_answer(). */
unsigned maps_commit(struct berth_file *f, struct commit *c);
/* The layout that may be used for @off; NULL: none, and one may have been asked for. */
struct layout *map_layout_at(struct berth_map *m, uint64_t off);
struct layout *map_layout(struct berth_map *m, uint64_t epoch, uint64_t id);
/* The same, if RMA may begin on it. */
struct layout *map_usable_layout(struct berth_map *m, uint64_t epoch, uint64_t id);
/* Where in [off, end) the layout at @off ends and another one goes on; @end: nowhere. */
uint64_t map_border(struct berth_map *m, uint64_t off, uint64_t end);
void layout_rma_begun(struct layout *l);
void layout_rma_over(struct berth_map *m, uint64_t epoch, uint64_t id);
void map_idle(struct berth_map *m); /* busy or calls went down */
void map_queue_commit(struct put *p);

/* --- put.c --- */
void put_committed(struct put *p, bool durable);
void put_pushed(struct put *p, int err); /* 0: its writes are durable */

/* --- push.c --- */
/* A read behind the writes of @p, sent or completed, is to make them durable. put_pushed() may come before this returns. */
void push_queue(struct put *p);
/* @len more bytes are about to be written, which those that wait are not to wait for. */
void push_before(struct berth *b, size_t len);
void pushes_flush(struct berth *b);

#endif
