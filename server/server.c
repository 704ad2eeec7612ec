/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * server.c - the server process: pool, workers, signals, the way down
 *
 * Order up: exports, pool, sockets, workers with their listeners, control socket, rpcbind, "ready".
 * Order down: nothing new is accepted, calls in progress end and are answered, loops end, pool is closed clean.
 */
#include <errno.h>
#include <execinfo.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <syslog.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "server/nfs3.h"
#include "server/process.h"

struct running { /* server_run's own */
	struct server srv;
	struct worker workers[MAX_WORKERS];
	struct worker_plan plan[MAX_WORKERS];
	struct control *control;
	ev_signal on_term, on_int, on_hup;
	bool reloading, reload_again;
};

/* --- what happened, when it ends badly ------------------------------------------------------------ */

static void on_crash(int sig)
{
	void *frames[48];
	int n = backtrace(frames, 48);

	log_msg(LOG_CRIT, "crash: signal %d (%s); where:", sig, strsignal(sig));
	backtrace_symbols_fd(frames, n, STDERR_FILENO);
	signal(sig, SIG_DFL);
	raise(sig);
}

/* The one variable that is not on a stack or in an object: a signal handler gets nothing else to go by. Written
 * before the handler is installed and after it is out of use. */
static struct pm_store *_Atomic served;

/* Bad media under the pool is no crash: see pmemio/fault.c. */
static void on_bus_error(int sig, siginfo_t *info, void *context)
{
	struct pm_store *st = served;

	(void)context;
	if (st && info->si_code > 0 && pm_media_fault(st, info->si_addr))
		return;
	signal(SIGBUS, SIG_DFL); /* one that on_crash itself runs into ends it */
	on_crash(sig);
}

/* After the fabrics are up: the shm provider installs a handler of its own. */
static void catch_bus_errors(struct pm_store *st)
{
	served = st;
	sigaction(SIGBUS, &(struct sigaction){ .sa_sigaction = on_bus_error,
					       .sa_flags = SA_SIGINFO | SA_NODEFER }, NULL);
}

static void catch_crashes(void)
{
	static const int sigs[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT };
	void *warm_up[1];

	backtrace(warm_up, 1); /* loads its library now, not in a signal handler */
	for (size_t i = 0; i < sizeof(sigs) / sizeof(*sigs); i++)
		sigaction(sigs[i], &(struct sigaction){ .sa_handler = on_crash,
							.sa_flags = (int)SA_RESETHAND }, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* --- SIGHUP: new exports, worker by worker -------------------------------------------------------------- */

struct reload {
	struct mail mail;
	struct running *run;
	struct exports *table;
	int err;
	char why[2000];
	unsigned next;
};

static void start_reload(struct running *run);

/* A directory of the pool that is not there may come; who cannot mount it wants to know why. Worker 0. */
static void tell_exports(const struct server *srv)
{
	const char *const *specs, *path;
	struct pm_attr dir;
	unsigned i, n;

	for (i = 0; exports_entry(srv->exports, i, &path, &specs, &n); i++) {
		int err = mount3_walk(srv->store, path, strlen(path), &dir);

		if (!err && dir.type != PM_DIR)
			err = -ENOTDIR;
		if (err)
			log_msg(LOG_WARNING, "export %s: %s; it cannot be mounted before the pool has such a directory",
				path, strerror(-err));
	}
	if (!i)
		log_msg(LOG_WARNING, "%s exports nothing: nobody can mount", srv->conf.exports_file);
}

static void reload_done(struct reload *r)
{
	struct running *run = r->run;

	free(r);
	run->reloading = false;
	if (run->reload_again) {
		run->reload_again = false;
		start_reload(run);
	}
}

static void deliver_reload(struct worker *w, struct mail *m)
{
	struct reload *r = container_of(m, struct reload, mail);
	struct server *srv = w->srv;

	if (r->next < srv->nworkers) {
		w->exports = r->table;
		r->next++;
		worker_post(&srv->workers[r->next % srv->nworkers], m);
		return;
	}
	/* back on worker 0: every worker has the new table, none looks at the old one */
	exports_free(srv->exports);
	srv->exports = r->table;
	log_msg(LOG_NOTICE, "exports loaded again from %s", srv->conf.exports_file);
	tell_exports(srv);
	reload_done(r);
}

static void deliver_loaded(struct worker *w, struct mail *m)
{
	struct reload *r = container_of(m, struct reload, mail);

	if (!r->err) {
		r->mail.deliver = deliver_reload;
		deliver_reload(w, m);
		return;
	}
	log_msg(LOG_ERR, "exports stay as they were: %s", r->why);
	reload_done(r);
}

/* Host names may take long to resolve: not on the loop. */
static void *load_exports(void *arg)
{
	struct reload *r = arg;

	r->err = exports_load(r->run->srv.conf.exports_file, &r->table, r->why, sizeof(r->why));
	r->mail.deliver = deliver_loaded;
	worker_post(&r->run->workers[0], &r->mail);
	return NULL;
}

static void start_reload(struct running *run)
{
	struct reload *r = calloc(1, sizeof(*r));
	pthread_t t;

	if (!r)
		return;
	r->run = run;
	run->reloading = true;
	if (pthread_create(&t, NULL, load_exports, r)) {
		run->reloading = false;
		free(r);
		return;
	}
	pthread_detach(t);
}

static void on_hup(struct ev_loop *loop, ev_signal *sig, int events)
{
	struct running *run = container_of(sig, struct running, on_hup);

	(void)loop;
	(void)events;
	if (run->reloading)
		run->reload_again = true; /* the one under way may have read the file already */
	else
		start_reload(run);
}

/* --- the way down ------------------------------------------------------------------------------------------ */

static void stop(struct running *run)
{
	log_msg(LOG_NOTICE, "stopping: finishing calls in progress");
	for (unsigned i = 0; i < run->srv.nworkers; i++)
		worker_stop(&run->workers[i]);
}

static void on_term(struct ev_loop *loop, ev_signal *sig, int events)
{
	(void)loop;
	(void)events;
	stop(container_of(sig, struct running, on_term)); /* again and again if need be */
}

static void on_int(struct ev_loop *loop, ev_signal *sig, int events)
{
	(void)loop;
	(void)events;
	stop(container_of(sig, struct running, on_int)); /* again and again if need be */
}

/* --- the way up ---------------------------------------------------------------------------------------------- */

/* libfabric asks every provider it has unless told which: that takes a third of a second and starts
 * things nobody wants. */
static void name_providers(const struct config *conf)
{
	char list[400] = "";
	struct fabric_conf *f;

	/* The registration cache of verbs gives every region to the peers, for writing too, whatever was
	 * asked for: without it the pool is registered for local access only. */
	setenv("FI_MR_CACHE_MONITOR", "disabled", 1);
	STAILQ_FOREACH (f, &conf->fabrics, link)
		if (f->opts.odp) /* the provider knows it for the process only */
			setenv("FI_VERBS_USE_ODP", "1", 1);
	if (getenv("FI_PROVIDER"))
		return;
	STAILQ_FOREACH (f, &conf->fabrics, link) {
		if (strlen(list) + strlen(f->opts.provider) + 2 > sizeof(list))
			return;
		if (*list)
			strcat(list, ",");
		strcat(list, f->opts.provider);
	}
	if (*list)
		setenv("FI_PROVIDER", list, 1);
}

static bool polls(const struct fabric_conf *f)
{
	return (f->opts.ep_type && !strcmp(f->opts.ep_type, "FI_EP_RDM")) ||
	       !strcmp(f->opts.provider, "shm");
}

/* Sockets: every worker has its own on each port. Fabrics in turn; one that cannot be waited for, or whose
 * provider may hang with a dying client, gets a worker of its own. */
static int bind_port(struct running *run, const char *host, unsigned port, struct tp_error *why)
{
	const struct config *conf = &run->srv.conf;
	char text[12];
	int err = 0;

	snprintf(text, sizeof(text), "%u", port);
	for (unsigned i = 0; !err && i < conf->workers; i++) {
		struct worker_plan *p = &run->plan[i];
		unsigned n = 0, room = (unsigned)(sizeof(p->fds) / sizeof(*p->fds)) - p->nfds;

		err = tp_socket_bind(host, text, conf->workers > 1, p->fds + p->nfds, room, &n, why);
		p->nfds += err ? 0 : n;
	}
	return err;
}

static int plan_sockets(struct running *run, struct tp_error *why)
{
	const struct config *conf = &run->srv.conf;
	char *list, *save = NULL, *host;
	int err = 0;

	if (!conf->port)
		return 0;
	list = conf->listen ? strdup(conf->listen) : NULL;
	host = list ? strtok_r(list, " ,\t", &save) : NULL;
	do {
		err = bind_port(run, host, conf->port, why);
		if (!err && conf->mount_port && conf->mount_port != conf->port)
			err = bind_port(run, host, conf->mount_port, why);
		host = list ? strtok_r(NULL, " ,\t", &save) : NULL;
	} while (!err && host);
	free(list);
	return err;
}

static int plan_fabrics(struct running *run, struct tp_error *why)
{
	struct config *conf = &run->srv.conf;
	struct fabric_conf *f;
	unsigned turn = 0;

	run->srv.nworkers = conf->workers;
	STAILQ_FOREACH (f, &conf->fabrics, link) {
		unsigned i = polls(f) ? run->srv.nworkers : turn++ % conf->workers;
		struct worker_plan *p;

		if (i >= MAX_WORKERS ||
		    run->plan[i].nfabrics == sizeof(run->plan[i].fabrics) / sizeof(void *)) {
			snprintf(why->text, sizeof(why->text), "[fabric %s]: too many fabrics",
				 f->opts.name);
			return -E2BIG;
		}
		if (polls(f))
			run->srv.nworkers++;
		p = &run->plan[i];
		p->fabrics[p->nfabrics++] = &f->opts;
		if (f->layouts && !strcmp(f->opts.provider, "shm"))
			log_msg(LOG_WARNING, "[fabric %s] layouts = on: the shm provider checks no keys; a client that "
					     "breaks the rules can write anywhere in this process", f->opts.name);
	}
	return 0;
}

/* What a file lacks of its size is found block by block, if it is found. */
static void look_for_holes(const char *pool)
{
	const int64_t slack = 1 << 20; /* what file systems keep of a file elsewhere */
	struct stat sb;

	if (!stat(pool, &sb) && S_ISREG(sb.st_mode) && sb.st_blocks * 512 + slack < sb.st_size)
		log_msg(LOG_WARNING, "pool %s is sparse: should its file system run full, writing is an I/O error, and changes "
				     "may end; `fallocate -l %lld %s` gives it its space",
			pool, (long long)sb.st_size, pool);
}

static int open_pool(struct server *srv)
{
	struct pm_error why;
	int err = pm_open(srv->conf.pool, &(struct pm_open_opts){ .method = srv->conf.method,
								  .verify_reads = srv->conf.verify_reads,
								  .once_age = srv->conf.drc_age,
								  .log = log_text },
			  &srv->store, &why);

	if (err) {
		log_text(NULL, LOG_ERR, why.text);
		return err;
	}
	pm_get_info(srv->store, &srv->info);
	memcpy(&srv->fsid, srv->info.uuid, sizeof(srv->fsid));
	look_for_holes(srv->conf.pool);
	log_msg(LOG_INFO, "pool %s: %.1f GiB, persistence %s (%s; not promised: %s), %s, opened in %.1f ms",
		srv->conf.pool, (double)srv->info.size / (1 << 30), pm_method_name(srv->info.method),
		srv->info.reason, srv->info.not_promised,
		srv->info.was_clean ? "closed clean before" : "recovered", (double)srv->info.open_usec / 1e3);
	return 0;
}

static int start_workers(struct running *run, struct tp_error *why)
{
	struct server *srv = &run->srv;
	int err = 0;

	for (unsigned i = 0; !err && i < srv->nworkers; i++)
		err = worker_init(&run->workers[i], srv, i, &run->plan[i]);
	for (unsigned i = 1; !err && i < srv->nworkers; i++)
		err = worker_start(&run->workers[i]);
	if (err) {
		snprintf(why->text, sizeof(why->text), "workers: %s", strerror(-err));
		return err;
	}
	err = worker_setup(&run->workers[0], why);
	for (unsigned i = 1; i < srv->nworkers; i++) {
		struct tp_error w;
		int e = worker_wait_up(&run->workers[i], &w);

		if (e && !err) {
			err = e;
			*why = w;
		}
	}
	return err;
}

static void watch_signals(struct running *run)
{
	struct ev_loop *loop = run->workers[0].loop;

	ev_signal_init(&run->on_term, on_term, SIGTERM);
	ev_signal_start(loop, &run->on_term);
	ev_signal_init(&run->on_int, on_int, SIGINT);
	ev_signal_start(loop, &run->on_int);
	ev_signal_init(&run->on_hup, on_hup, SIGHUP);
	ev_signal_start(loop, &run->on_hup);
}

static void raise_limits(void)
{
	struct rlimit rl;

	if (!getrlimit(RLIMIT_NOFILE, &rl) && rl.rlim_cur < rl.rlim_max) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
	if (!getrlimit(RLIMIT_MEMLOCK, &rl) && rl.rlim_cur < rl.rlim_max) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_MEMLOCK, &rl);
	}
	if (geteuid() == 0)
		setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){ RLIM_INFINITY, RLIM_INFINITY });
}

static void stop_workers(struct running *run)
{
	for (unsigned i = 1; i < run->srv.nworkers; i++)
		if (run->workers[i].rt)
			worker_stop(&run->workers[i]);
	for (unsigned i = 0; i < run->srv.nworkers; i++)
		worker_join(&run->workers[i]);
}

static int serve(struct running *run, struct tp_error *why)
{
	struct server *srv = &run->srv;
	int err = plan_sockets(run, why);

	if (!err)
		err = plan_fabrics(run, why);
	if (err)
		return err;
	err = persist_fabrics(srv, why);
	if (err)
		return err;
	err = start_workers(run, why);
	if (!err)
		err = scrub_open(srv, why);
	if (!err)
		err = control_open(srv, run->workers[0].loop, &run->control, why);
	if (!err) {
		catch_bus_errors(srv->store);
		watch_signals(run);
		rpcb_register(srv);
		tell_exports(srv);
		log_text(NULL, LOG_NOTICE, "ready");
		if (srv->hb)
			heartbeat_ready(srv->hb);
		else
			sd_notify(0, "READY=1");
		worker_main(&run->workers[0]);
		rpcb_unregister(srv);
	}
	control_close(run->control);
	scrub_close(srv);
	stop_workers(run);
	return err;
}

/* Returns whether nothing uses the server any more. */
static bool close_pool(struct server *srv, bool failed)
{
	int err = pm_close(srv->store);

	if (err)
		log_text(NULL, LOG_WARNING, "the pool could not be closed clean; the next start recovers it");
	else if (!failed)
		log_text(NULL, LOG_NOTICE, "stopped");
	return err != -EBUSY;
}

static void release(struct running *run)
{
	served = NULL;
	for (unsigned i = 0; i < run->srv.nworkers; i++)
		worker_fini(&run->workers[i]);
	mount_list_free(run->srv.mounts);
	exports_free(run->srv.exports);
	free(run);
}

int server_run(struct config *conf, struct heartbeat *hb)
{
	struct running *run = calloc(1, sizeof(*run));
	struct server *srv = &run->srv;
	struct tp_error why = { "" };
	char text[4000] = "out of memory";
	bool over;
	int err;

	if (!run || sodium_init() < 0)
		return 1;
	catch_crashes();
	raise_limits();
	srv->conf = *conf;
	STAILQ_INIT(&srv->conf.fabrics);
	STAILQ_CONCAT(&srv->conf.fabrics, &conf->fabrics);
	srv->hb = hb;
	srv->workers = run->workers;
	clock_gettime(CLOCK_MONOTONIC, &srv->started);
	srv->mounts = mount_list_new();
	err = srv->mounts ? exports_load(conf->exports_file, &srv->exports, text, sizeof(text)) : -ENOMEM;
	if (err) {
		log_text(NULL, LOG_ERR, text);
		return 2;
	}
	name_providers(conf);
	err = open_pool(srv);
	if (err)
		return 2;
	err = serve(run, &why);
	if (err)
		log_text(NULL, LOG_ERR, why.text);
	over = close_pool(srv, err);
	signal(SIGBUS, SIG_DFL);
	STAILQ_CONCAT(&conf->fabrics, &srv->conf.fabrics);
	if (over && !run->reloading) /* else what the pool or a resolver is at outlives this */
		release(run);
	return err ? 2 : 0;
}
