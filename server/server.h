/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * server.h - what the parts of berthd share; private to this directory
 *
 *   main.c        command line, supervisor or worker process    supervise.c  restart after crash or hang
 *   config.c      berth.conf (inih)                             exports.c    exports(5)
 *   server.c      pool, workers, listeners, signals, shutdown   worker.c     event loop thread, mailbox
 *   control.c     control socket: stat, ping                    stats.c      counters as JSON
 *   persist.c     persistence of layouts, per fabric
 *   rpcb.c        registration with rpcbind                     fh.c         file handles
 *   mount3.c      MOUNT version 3                               access.c     who may do what
 *   nfs3.c        NFS version 3: dispatch, attributes           nfs3_io.c    READ, WRITE, COMMIT
 *   layout.c      LAYOUT: one-sided access                      layout_table.c  whose, how long
 *   nfs3_dir.c    names: LOOKUP, CREATE ... READDIRPLUS         drc.c        duplicate requests
 */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include <ev.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "pmemio/pmemio.h"
#include "transport/transport.h"

#ifndef container_of
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#endif

#define BERTH_VERSION "0.1"
#define SERVER_MAX_IO (1u << 20) /* bytes of one READ or WRITE: rtmax, wtmax */

/* --- log.c: to stderr, or to the journal with its levels under systemd ------------------------------------- */
void log_text(void *unused, int priority, const char *text);
void log_msg(int priority, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* --- exports.c ---------------------------------------------------------------------------------------------------- */

struct export_opts { /* what one client may do in one export */
	bool rw, root_squash, all_squash, secure, layouts;
	uint32_t anonuid, anongid;
};
struct exports; /* an immutable table; replaced whole on SIGHUP */

/* Parse @path. On error every bad line is reported to @why as "file:line: what, and what would be right". */
int exports_load(const char *path, struct exports **out, char *why, size_t why_len);
int exports_parse(const char *text, const char *name, struct exports **out, char *why, size_t why_len);
void exports_free(struct exports *ex);
/* The export whose path is the longest that holds @dir ("/a" holds "/a" and "/a/b"), if it lets @peer in. @key is
 * what file handles carry: a hash of the export's path, the same after reload and restart. @path: the export's.
 * -ENOENT no such export, -EACCES not for this peer. AF_UNSPEC peers count as loopback. */
int exports_find(const struct exports *ex, const char *dir, const struct sockaddr_storage *peer, uint32_t *key,
		 const char **path, struct export_opts *opts);
/* The options of export @key for @peer: -ENOENT (it is no longer exported: NFS3ERR_STALE), -EACCES. */
int exports_by_key(const struct exports *ex, uint32_t key, const struct sockaddr_storage *peer,
		   struct export_opts *opts, const char **path);
/* For EXPORT (showmount -e): i-th export and its client specifications as text; false behind the last. */
bool exports_entry(const struct exports *ex, unsigned i, const char **path, const char *const **specs, unsigned *nspecs);

/* --- config.c -------------------------------------------------------------------------------------------------------- */

enum stability { STABILITY_AUTO, STABILITY_HONOR };
enum layout_domain { LAYOUT_DOMAIN_AUTO, LAYOUT_DOMAIN_CLIENT, LAYOUT_DOMAIN_SHARED };
struct fabric_conf {
	struct tp_fabric_opts opts;
	bool layouts, layout_exclusive;
	enum layout_domain layout_domain; /* config_finish() makes opts.own of it, and of these: */
	unsigned layout_domains, layout_domains_client; /* 0: not set */
	unsigned lease, recall_ms; /* of layouts: seconds; milliseconds */
	unsigned layout_count, layout_mib; /* most of one connection */
	enum pm_method method; /* layouts: what the administrator insists on */
	enum pm_ddio ddio;
	struct pm_verdict verdict; /* layouts: persist.c, before the workers start; PM_AUTO: none, the reason tells why */
	STAILQ_ENTRY(fabric_conf) link;
};
struct config {
	char *pool, *control;
	unsigned workers;
	enum pm_method method;
	bool supervise, verify_reads;
	char *listen; /* addresses, blank-separated; NULL: any */
	unsigned port, mount_port;
	bool rpcbind_auto;
	enum stability stability;
	bool drc;
	unsigned drc_age; /* seconds; 0: no bound */
	unsigned max_conns, idle_timeout, client_timeout;
	char *exports_file;
	STAILQ_HEAD(, fabric_conf) fabrics;
};

/* --- worker.c ----------------------------------------------------------------------------------------------------------- */

struct worker;
struct layout_client;
struct layout;
TAILQ_HEAD(layouts, layout);
struct mail { /* something to do on a worker's thread; embedded in what it is about */
	void (*deliver)(struct worker *w, struct mail *m);
	STAILQ_ENTRY(mail) link;
};
#define FH_MACS 512u
struct fh_mac {
	uint64_t body[3], mac; /* as they lie in a handle */
};
struct fh_macs { /* fh.c: of handles met lately */
	struct fh_mac of[FH_MACS];
};
struct worker {
	struct server *srv;
	struct ev_loop *loop;
	struct tp_service *svc;
	struct pm_batch *batch;        /* commits of calls that were ready together */
	const struct exports *exports; /* this worker's view; replaced by mail */
	unsigned index;
	struct layout_client *layout_clients; /* a uthash */
	struct layouts unaware_layouts; /* layout_table.c: their clients may not know that the connection is over */
	bool ending;
	struct fh_macs macs;
	struct worker_rt *rt; /* worker.c's own: thread, mailbox, listeners */
};
/* Any thread. deliver() runs soon, in order. */
void worker_post(struct worker *w, struct mail *m);
/* What a call has waited for is over. Any thread; as worker_post(), but at once behind commits of the worker's own batch,
 * so that the reply leaves with those of the turn. */
void worker_resume(struct worker *w, struct mail *m);
/* A commit for @bytes of payload has joined the batch: it ends with this turn. On the worker's thread. */
void worker_hold(struct worker *w, uint32_t bytes);

struct mount_list; /* mount3.c */

struct server {
	struct config conf;
	struct pm_store *store;
	struct pm_info info;
	struct worker *workers; /* [0] is the main thread's; fabrics that poll get one of their own */
	unsigned nworkers;
	struct exports *exports;
	struct mount_list *mounts;
	uint64_t fsid;
	struct scrub *scrub; /* scrub.c */
	struct heartbeat *hb; /* NULL without a supervisor */
	struct timespec started;
	_Atomic uint64_t layouts_expired; /* not renewed in time */
	_Atomic uint64_t layouts_revoked; /* recalled, and not returned in time */
	_Atomic uint64_t drc_hits;        /* answers that had been given before */
	_Atomic uint64_t drc_in_progress; /* of these: the first was not finished when the second came */
};

/* --- persist.c ------------------------------------------------------------------------------------------------------------- */

/* Judge each fabric that hands out layouts: its provider is tried, with a self-test where it promises durable writes.
 * -EPERM, -EINVAL: persistence = of a fabric cannot be had; @why has the cure. Fills fabric_conf.verdict. */
int persist_fabrics(struct server *srv, struct tp_error *why);
/* The verdict for layouts over the fabric of that name; NULL: no such fabric. Any thread. */
const struct pm_verdict *persist_of_fabric(const struct server *srv, const char *name);

/* --- fh.c --------------------------------------------------------------------------------------------------------------------- */

#define FH_SIZE 32
struct fh {
	uint32_t export_key;
	struct pm_id id;
};
/* On the worker's thread. */
void fh_make(struct worker *w, const struct fh *fh, uint8_t out[FH_SIZE]);
/* -EBADF: forged, damaged or of another pool (NFS3ERR_BADHANDLE). */
int fh_parse(struct worker *w, const uint8_t *data, size_t len, struct fh *out);

/* --- programs ------------------------------------------------------------------------------------------------------------------ */

/* call->worker is a struct worker. */
extern const struct tp_program nfs3_program;
extern const struct tp_program mount3_program;
extern const struct tp_program layout_program;
/* The worker's connections are closed and it ends: what was kept for clients that may not know is let go. */
void layouts_let_go(struct worker *w);
struct mount_list *mount_list_new(void);
void mount_list_free(struct mount_list *ml);

#endif
