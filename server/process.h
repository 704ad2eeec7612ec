/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * process.h - how berthd's processes and threads hang together; private to server/
 *
 *   main() -> supervise() -> [fork] server_run() -> worker threads
 */
#ifndef SERVER_PROCESS_H
#define SERVER_PROCESS_H

#include "server/server.h"

#define MAX_WORKERS 96

/* --- supervise.c ------------------------------------------------------------------------------------ */

/* Shared between supervisor and server. A worker says busy before it handles events and idle before it
 * sleeps; beat counts the turns. While the server is idle nobody wakes up: the first busy worker that finds
 * nobody watching pokes the supervisor, which then looks once a second until all is idle again. */
struct heartbeat {
	_Atomic uint32_t watching, ready;
	int poke; /* eventfd */
	struct {
		_Atomic uint64_t beat;
		_Atomic uint32_t busy;
	} slot[MAX_WORKERS];
};
void heartbeat_busy(struct heartbeat *hb, unsigned slot);
void heartbeat_idle(struct heartbeat *hb, unsigned slot);
void heartbeat_ready(struct heartbeat *hb);

/* Keep @serve running in a child process: start it again when it crashes or makes no progress for
 * SUPERVISE_PATIENCE seconds. Returns the exit status for main(). */
#define SUPERVISE_PATIENCE 10
int supervise(int (*serve)(struct heartbeat *hb, void *arg), void *arg);

/* --- server.c ------------------------------------------------------------------------------------------ */

/* Open the pool, serve until SIGTERM, close it clean. @hb may be NULL. Returns an exit status: 0; 2 the
 * configuration, the pool or a listener must be put right by somebody; 1 anything else. */
int server_run(struct config *conf, struct heartbeat *hb);

/* --- worker.c -------------------------------------------------------------------------------------------- */

struct listener_ref {
	struct tp_listener *l;
	char what[256];
	STAILQ_ENTRY(listener_ref) link;
};

/* What a worker is to listen on; filled in before worker_start(). */
struct worker_plan {
	int fds[32];
	unsigned nfds;
	const struct tp_fabric_opts *fabrics[16];
	unsigned nfabrics;
};
/* Make the loop of worker @w and start its thread (none for worker 0, whose caller runs worker_main itself).
 * Its listeners are made on its own thread; worker_wait_up() tells how that went. */
int worker_init(struct worker *w, struct server *srv, unsigned index, const struct worker_plan *plan);
int worker_start(struct worker *w);
int worker_setup(struct worker *w, struct tp_error *why); /* on its thread */
int worker_wait_up(struct worker *w, struct tp_error *why);
void worker_main(struct worker *w); /* until stopped and drained, or the time for that is over */
void worker_stop(struct worker *w); /* any thread */
/* What it listens on; any thread, while it runs. */
void worker_listeners(const struct worker *w, void (*fn)(void *arg, const char *what), void *arg);
void worker_join(struct worker *w); /* it has been told to stop: wait for the end of its thread */
/* After that, and when the pool is closed: calls that were left may still send it mail. */
void worker_fini(struct worker *w);

/* --- stats.c ------------------------------------------------------------------------------------------------ */

struct stats_request { /* goes from worker to worker and adds up */
	struct mail mail;
	struct server *srv;
	unsigned next;
	struct tp_stats sum;
	unsigned nprocs;
	void (*done)(struct stats_request *rq); /* on worker 0 */
};
int stats_begin(struct stats_request *rq, struct server *srv, void (*done)(struct stats_request *));
char *stats_json(struct stats_request *rq); /* malloced text; NULL no memory */
void stats_end(struct stats_request *rq);

/* --- control.c ------------------------------------------------------------------------------------------------ */

struct control;
int control_open(struct server *srv, struct ev_loop *loop, struct control **out, struct tp_error *why);
void control_close(struct control *c);

/* --- quota.c ------------------------------------------------------------------------------------------ */

/* Obey a line that begins with "quota": malloced text; NULL no memory. May wait for the flusher. */
char *quota_command(struct pm_store *st, const char *line);
/* --- scrub.c ---------------------------------------------------------------------------------------------------- */

/* The thread is there from the first start of a scrub on. */
int scrub_open(struct server *srv, struct tp_error *why);
void scrub_close(struct server *srv);
/* "start [MB/s]", "pause", "resume", "stop", "status": the answer as JSON, malloced; NULL no memory. */
char *scrub_command(struct server *srv, const char *words);

/* --- rpcb.c ----------------------------------------------------------------------------------------------------- */

/* Register what @conf listens on with rpcbind, on a thread of its own; silently nothing where none runs. */
void rpcb_register(const struct server *srv);
void rpcb_unregister(const struct server *srv);

#endif
