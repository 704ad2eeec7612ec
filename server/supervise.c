/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * supervise.c - berthd is crash-only: a small process starts the server process again
 *
 * The supervisor uses no library that could bring it down, holds no lock and no socket. The server dies
 * with it (PR_SET_PDEATHSIG), so that the pool is never held by a process that nobody looks after.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <syslog.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "server/process.h"

#define QUICK_DEATH 2  /* seconds: it cannot have been of much use */
#define MAX_QUICK   10 /* deaths of that kind in a row, then give up */

/* --- in the server ------------------------------------------------------------------------------- */

void heartbeat_busy(struct heartbeat *hb, unsigned slot)
{
	atomic_fetch_add_explicit(&hb->slot[slot].beat, 1, memory_order_relaxed);
	atomic_store(&hb->slot[slot].busy, 1);
	if (!atomic_load(&hb->watching) && !atomic_exchange(&hb->watching, 1))
		eventfd_write(hb->poke, 1);
}

void heartbeat_idle(struct heartbeat *hb, unsigned slot)
{
	atomic_store_explicit(&hb->slot[slot].busy, 0, memory_order_release);
}

void heartbeat_ready(struct heartbeat *hb)
{
	atomic_store(&hb->ready, 1);
	eventfd_write(hb->poke, 1);
}

/* --- in the supervisor ---------------------------------------------------------------------------- */

struct supervisor {
	struct heartbeat *hb;
	int signals;
	pid_t child;
	time_t started;
	unsigned quick, killed;
	bool stopping, announced;
	uint64_t seen[MAX_WORKERS]; /* beat at the last look */
	unsigned stuck[MAX_WORKERS]; /* seconds busy without a beat */
};

static time_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

static int start_child(struct supervisor *s, int (*serve)(struct heartbeat *, void *), void *arg,
		       const sigset_t *old)
{
	pid_t parent = getpid();

	memset(s->hb->slot, 0, sizeof(s->hb->slot));
	memset(s->stuck, 0, sizeof(s->stuck));
	s->hb->ready = 0;
	s->hb->watching = 0;
	s->killed = 0;
	s->started = now();
	s->child = fork();
	if (s->child < 0)
		return -errno;
	if (s->child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		close(s->signals);
		sigprocmask(SIG_SETMASK, old, NULL);
		exit(serve(s->hb, arg));
	}
	return 0;
}

/* The server is alive; does it get on? Returns whether to look again in a second. */
static bool look(struct supervisor *s)
{
	bool active = false;

	for (unsigned i = 0; i < MAX_WORKERS; i++) {
		uint64_t beat = atomic_load(&s->hb->slot[i].beat);
		bool busy = atomic_load(&s->hb->slot[i].busy);

		active |= busy || beat != s->seen[i];
		s->stuck[i] = busy && beat == s->seen[i] ? s->stuck[i] + 1 : 0;
		s->seen[i] = beat;
		if (s->stuck[i] == SUPERVISE_PATIENCE) {
			log_msg(LOG_CRIT, "worker %u of process %d has made no progress for %d seconds; "
					  "restarting the server", i, (int)s->child, SUPERVISE_PATIENCE);
			kill(s->child, SIGABRT);
			s->killed = 1;
		}
	}
	if (s->killed && ++s->killed > 3)
		kill(s->child, SIGKILL);
	if (active)
		return true;
	atomic_store(&s->hb->watching, 0);
	for (unsigned i = 0; i < MAX_WORKERS; i++)
		if (atomic_load(&s->hb->slot[i].busy)) {
			atomic_store(&s->hb->watching, 1);
			return true;
		}
	return false;
}

/* @status of the child that ended. Returns true to start it again. */
static bool after_death(struct supervisor *s, int status, int *exit_status)
{
	bool was_ready = atomic_load(&s->hb->ready);

	*exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
	if (WIFSIGNALED(status))
		log_msg(LOG_ERR, "the server process %d was ended by signal %d (%s)%s", (int)s->child,
			WTERMSIG(status), strsignal(WTERMSIG(status)),
			WCOREDUMP(status) ? ", core dumped" : "");
	else if (*exit_status)
		log_msg(LOG_ERR, "the server process %d ended with status %d", (int)s->child,
			*exit_status);
	if (s->stopping || (WIFEXITED(status) && (*exit_status == 0 || !was_ready)))
		return false;
	s->quick = now() - s->started < QUICK_DEATH ? s->quick + 1 : 0;
	if (s->quick >= MAX_QUICK) {
		log_msg(LOG_CRIT, "the server ended %u times within %d seconds of its start; giving up",
			s->quick, QUICK_DEATH);
		return false;
	}
	log_msg(LOG_NOTICE, "starting the server again");
	if (s->quick > 3)
		sleep(1);
	return true;
}

/* Handle one signal; true: the child has ended. */
static bool on_signal(struct supervisor *s, int *status)
{
	struct signalfd_siginfo si;

	if (read(s->signals, &si, sizeof(si)) != sizeof(si))
		return false;
	if (si.ssi_signo == SIGCHLD)
		return waitpid(s->child, status, WNOHANG) == s->child;
	if (si.ssi_signo == SIGTERM || si.ssi_signo == SIGINT) {
		s->stopping = true;
		sd_notify(0, "STOPPING=1");
	}
	kill(s->child, (int)si.ssi_signo == SIGINT ? SIGTERM : (int)si.ssi_signo);
	return false;
}

static int wait_child(struct supervisor *s)
{
	struct pollfd fds[2] = { { .fd = s->signals, .events = POLLIN },
				 { .fd = s->hb->poke, .events = POLLIN } };
	bool watching = false;
	int status = 0;

	for (;;) {
		eventfd_t v;
		int n = poll(fds, 2, watching ? 1000 : -1);

		if (n < 0 && errno != EINTR)
			return 0;
		if (n > 0 && fds[1].revents) {
			eventfd_read(s->hb->poke, &v);
			watching = true;
			if (atomic_load(&s->hb->ready) && !s->announced) {
				s->announced = true;
				sd_notify(0, "READY=1");
			}
		}
		if (n > 0 && fds[0].revents && on_signal(s, &status))
			return status;
		if (n == 0)
			watching = look(s);
	}
}

int supervise(int (*serve)(struct heartbeat *hb, void *arg), void *arg)
{
	struct supervisor s = { 0 };
	sigset_t set, old;
	int err, status;

	s.hb = mmap(NULL, sizeof(*s.hb), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (s.hb == MAP_FAILED)
		return 1;
	s.hb->poke = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, &old);
	s.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s.hb->poke < 0 || s.signals < 0)
		return 1;
	do {
		err = start_child(&s, serve, arg, &old);
		if (err) {
			log_msg(LOG_CRIT, "no process can be started: %s", strerror(-err));
			return 1;
		}
		status = wait_child(&s);
	} while (after_death(&s, status, &err));
	return err;
}
