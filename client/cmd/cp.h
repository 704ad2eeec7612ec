/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cp.h - what the parts of berth cp share; private to them
 *
 *   cp.c         options, operands, the end            cp_walk.c   the source walked, the queue
 *   cp_object.c  one file, link or node copied         transfer.c  the bytes of a file
 */
#ifndef CLIENT_CMD_CP_H
#define CLIENT_CMD_CP_H

#include <pthread.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <uthash.h>

#include "client/cmd/cmd.h"

#define CP_PATIENCE 60000 /* ms; the server was there just now */

struct cdir {                   /* a directory on its two sides; lives until the end */
	SLIST_ENTRY(cdir) link; /* newest first: children before their parents */
	const struct place *from;
	char *src, *dst; /* paths as shown; local ones are used */
	struct berth_fh sfh, dfh;
	struct berth_attr attr;
	bool fresh; /* made by us */
};

struct job {
	STAILQ_ENTRY(job) link;
	struct cdir *dir;
	char *sname, *dname;
	struct berth_attr attr;
	struct berth_fh sfh; /* remote source */
	struct job *first;   /* of a hard link: the copy to link to */
};
STAILQ_HEAD(job_list, job);

struct seen { /* a source with several names */
	struct {
		const void *from;
		uint64_t fsid, fileid;
	} key;
	struct job *job; /* keeps it alive: see kept */
	UT_hash_handle hh;
};

struct cp {
	struct cmd *c;
	bool recursive, preserve, verbose, quiet, json;
	enum sparse sparse;
	unsigned nworkers;
	mode_t umask;
	bool root;
	struct sessions sessions; /* of the main thread */
	struct place *src, dst;
	struct berth_fh guard; /* top directory of the copy: not to be copied into itself */
	bool has_guard;
	SLIST_HEAD(, cdir) dirs;
	struct seen *seen;
	struct job_list links, kept;
	struct progress progress;

	pthread_mutex_t lock; /* what follows */
	pthread_cond_t more, less;
	struct job_list queue;
	unsigned queued, working;
	bool no_more;
	_Atomic bool failed, dead; /* dead: the server is gone, stop everything */
	_Atomic uint64_t errors;
};

struct worker {
	struct cp *cp;
	pthread_t thread;
	bool started;
	struct {
		const struct berth *main; /* session of the main thread that this one doubles */
		struct berth *own;
	} own[16];
	unsigned nown;
	struct engine *engine;
	struct berth *engine_src, *engine_dst;
};

/* --- cp_object.c --- */
/* @name of @dir, both below @p, as the user named that; malloc'ed, NULL: no memory. */
char *cp_shown(const struct place *p, const char *dir, const char *name);
/* The copy is not complete, because of @err if it is not 0; said already. */
void cp_failed(struct cp *cp, int err);
/* Say it, and that. @what and then the name of @name in @dir below @p. */
void cp_failure(struct cp *cp, int err, const char *what, const struct place *p, const char *dir, const char *name);
void cp_from_stat(const struct stat *st, struct berth_attr *a);
bool cp_same_fh(const struct berth_fh *a, const struct berth_fh *b);
uint32_t cp_final_mode(const struct cp *cp, const struct berth_attr *a);
/* Owner, mode and times of the copy, as far as asked for; 0 or a negative errno. @mode false: symbolic links have none. */
int cp_dress_remote(const struct cp *cp, struct berth *b, const struct berth_fh *fh, const struct berth_attr *a, bool mode);
int cp_dress_local(const struct cp *cp, const char *path, const struct berth_attr *a, bool mode);
/* Copy one object; on a worker's thread. Failures are told and counted. */
void cp_do_job(struct worker *w, struct job *j);

/* --- cp_walk.c --- */
/* Take one operand, or what is below it: directories are made, the rest goes into the queue. */
void cp_visit(struct cp *cp, struct cdir *dir, const char *sname, const char *dname, const struct berth_attr *attr,
              const struct berth_fh *sfh);
void *cp_work(void *worker); /* a worker's thread, until there is nothing more */
/* Wait until less than @below jobs wait (0: until all are done), drawing the bar. Lock held. */
void cp_wait_queue(struct cp *cp, unsigned below);
void cp_job_free(struct job *j);

#endif
