/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scrub.c - prove the checksums of all file data, in the background
 *
 * A thread of its own takes small steps (pm_scrub_step holds the pool's lock for one of them) and
 * sleeps between them as the rate asks. It exists from the first "start" until the server stops, and
 * sleeps on a condition while there is nothing to do.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>

#include "server/process.h"

#define STEP      64u   /* blocks: 256 KiB, some 30 us of the lock */
#define KEEP_BAD  1000u /* findings kept for status; all are counted */
#define RATE_MB   100u  /* unless start says otherwise */
#define RATE_MAX  1000000u

enum phase { IDLE, RUNNING, PAUSED, DONE, STOPPED };
static const char *const phase_name[] = { "idle", "running", "paused", "done", "stopped" };

struct scrub {
	struct server *srv;
	pthread_mutex_t lock; /* of what follows; pool's lock may be taken inside */
	pthread_cond_t wake;
	pthread_t thread;
	bool threaded, quit;
	enum phase phase;
	unsigned rate; /* MB/s; 0: unbounded */
	struct pm_scrub at;
	struct pm_scrub_bad bad[KEEP_BAD];
	unsigned nbad;
	time_t began, ended;
};

static void found(void *arg, const struct pm_scrub_bad *bad)
{
	struct scrub *s = arg;

	if (s->nbad < KEEP_BAD)
		s->bad[s->nbad++] = *bad;
}

/* --- the thread ---------------------------------------------------------------------------------- */

static void later(struct timespec *t, uint64_t nsec)
{
	t->tv_sec += (time_t)((uint64_t)t->tv_nsec + nsec) / 1000000000;
	t->tv_nsec = (long)(((uint64_t)t->tv_nsec + nsec) % 1000000000);
}

/* Until the rate allows more, or something else is asked for. */
static void pace(struct scrub *s, struct timespec *due, uint64_t blocks)
{
	struct timespec now;
	int err = 0;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (due->tv_sec + 1 < now.tv_sec) /* what was not used up is not saved */
		*due = now;
	if (s->rate)
		later(due, blocks * PM_BLOCK * 1000 / s->rate);
	else /* a mutex is not fair: let others have the pool's */
		*due = now, later(due, 50000);
	while (s->phase == RUNNING && !s->quit && err != ETIMEDOUT)
		err = pthread_cond_timedwait(&s->wake, &s->lock, due);
}

static void *scrub_main(void *arg)
{
	struct scrub *s = arg;
	struct timespec due = { 0 };

	pthread_mutex_lock(&s->lock);
	while (!s->quit) {
		uint64_t before = s->at.blocks;
		int err;

		if (s->phase != RUNNING) {
			pthread_cond_wait(&s->wake, &s->lock);
			continue;
		}
		err = pm_scrub_step(s->srv->store, &s->at, STEP);
		if (err == -EAGAIN) {
			pthread_mutex_unlock(&s->lock); /* let a command in, whatever the rate */
			pthread_mutex_lock(&s->lock);
			pace(s, &due, s->at.blocks - before);
			continue;
		}
		s->phase = DONE;
		s->ended = time(NULL);
		log_msg(s->at.bad ? LOG_ERR : LOG_NOTICE, "scrub done: %llu blocks, %llu bad",
			(unsigned long long)s->at.blocks, (unsigned long long)s->at.bad);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* --- commands ------------------------------------------------------------------------------------ */

static json_t *status(struct scrub *s)
{
	json_t *o = json_object(), *list = json_array();
	struct pm_space sp;

	pm_get_space(s->srv->store, &sp);
	for (unsigned i = 0; i < s->nbad; i++)
		json_array_append_new(list, json_pack("{s:I, s:I, s:I}", "inode", (json_int_t)s->bad[i].id.ino,
						      "offset", (json_int_t)s->bad[i].off, "pool_offset",
						      (json_int_t)s->bad[i].at));
	json_object_set_new(o, "state", json_string(phase_name[s->phase]));
	json_object_set_new(o, "rate_mb", json_integer(s->rate));
	json_object_set_new(o, "inodes", json_integer((json_int_t)s->at.inodes));
	json_object_set_new(o, "inodes_done", json_integer((json_int_t)s->at.ino));
	json_object_set_new(o, "bytes_done", json_integer((json_int_t)(s->at.blocks * PM_BLOCK)));
	json_object_set_new(o, "bytes_used",
			    json_integer((json_int_t)((sp.blocks - sp.free_blocks) * PM_BLOCK)));
	json_object_set_new(o, "bad_blocks", json_integer((json_int_t)s->at.bad));
	json_object_set_new(o, "unproven", json_integer((json_int_t)s->at.unproven));
	json_object_set_new(o, "unreadable", json_integer((json_int_t)s->at.unreadable));
	json_object_set_new(o, "began", json_integer((json_int_t)s->began));
	json_object_set_new(o, "ended", json_integer((json_int_t)s->ended));
	json_object_set_new(o, "bad", list);
	return o;
}

static const char *start(struct scrub *s, const char *rate)
{
	char *end;
	unsigned long n = RATE_MB;

	if (*rate) {
		n = strtoul(rate, &end, 10);
		if (*end || *rate == '-' || n > RATE_MAX)
			return "the rate is a number of MB/s, 0 for no bound";
	}
	if (s->phase == RUNNING || s->phase == PAUSED)
		return "a scrub is under way; stop it first";
	if (!s->threaded && pthread_create(&s->thread, NULL, scrub_main, s))
		return "no thread to be had";
	s->threaded = true;
	s->rate = (unsigned)n;
	s->at = (struct pm_scrub){ .found = found, .arg = s };
	s->nbad = 0;
	s->began = time(NULL);
	s->ended = 0;
	s->phase = RUNNING;
	return NULL;
}

static const char *change(struct scrub *s, enum phase from, enum phase to)
{
	if (s->phase != from)
		return from == RUNNING ? "no scrub is running" : "no scrub is paused";
	s->phase = to;
	return NULL;
}

static const char *obey(struct scrub *s, const char *words)
{
	if (!s->srv->info.data_checksum)
		return "the pool has no checksums of data; `berth mkfs --checksum crc32c` makes one that has";
	if (!strncmp(words, "start", 5) && (!words[5] || words[5] == ' '))
		return start(s, words + 5 + strspn(words + 5, " "));
	if (!strcmp(words, "pause"))
		return change(s, RUNNING, PAUSED);
	if (!strcmp(words, "resume"))
		return change(s, PAUSED, RUNNING);
	if (!strcmp(words, "stop")) {
		if (s->phase != RUNNING && s->phase != PAUSED)
			return "no scrub is under way";
		s->phase = STOPPED;
		s->ended = time(NULL);
		return NULL;
	}
	return strcmp(words, "status") ? "known are start [MB/s], pause, resume, stop and status" : NULL;
}

char *scrub_command(struct server *srv, const char *words)
{
	struct scrub *s = srv->scrub;
	const char *wrong;
	char *text;
	json_t *o;

	pthread_mutex_lock(&s->lock);
	wrong = obey(s, words);
	o = wrong ? json_pack("{s:s}", "error", wrong) : status(s);
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
	text = json_dumps(o, JSON_INDENT(1));
	json_decref(o);
	return text;
}

int scrub_open(struct server *srv, struct tp_error *why)
{
	struct scrub *s = calloc(1, sizeof(*s));
	pthread_condattr_t attr;

	if (!s) {
		snprintf(why->text, sizeof(why->text), "not enough memory");
		return -ENOMEM;
	}
	s->srv = srv;
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->wake, &attr);
	pthread_condattr_destroy(&attr);
	srv->scrub = s;
	return 0;
}

void scrub_close(struct server *srv)
{
	struct scrub *s = srv->scrub;

	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->quit = true;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
	if (s->threaded)
		pthread_join(s->thread, NULL);
	pthread_cond_destroy(&s->wake);
	pthread_mutex_destroy(&s->lock);
	free(s);
	srv->scrub = NULL;
}
