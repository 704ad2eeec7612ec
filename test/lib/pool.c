/* SPDX-License-Identifier: BSD-3-Clause */
/* pool.c - scratch pools on /dev/shm: made, opened with any method, killed, copied, dropped */
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pmemio/core.h"
#include "test/lib/pool.h"

static void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	abort();
}

static void log_line(void *arg, int priority, const char *text)
{
	(void)arg;
	if (getenv("BERTH_TEST_LOG"))
		fprintf(stderr, "<%d> %s\n", priority, text);
}

void pool_path(struct test_pool *p, const char *tag)
{
	*p = (struct test_pool){ .st = NULL };
	snprintf(p->path, sizeof(p->path), "/dev/shm/berth-test-%d-%s", (int)getpid(), tag);
	unlink(p->path);
}

void pool_mkfs(struct test_pool *p, const char *tag, uint64_t size)
{
	struct pm_mkfs_opts o = { .size = size, .label = "test" };
	struct pm_error why;

	pool_path(p, tag);
	if (pm_mkfs(p->path, &o, &why))
		die("mkfs: %s", why.text);
}

int pool_try_open(struct test_pool *p, enum pm_method method, struct pm_error *why)
{
	static const char *const gran[] = { [PM_AUTO] = "CACHE_LINE",
		                            [PM_FENCE] = "BYTE",
		                            [PM_CLWB] = "CACHE_LINE",
		                            [PM_MSYNC] = "PAGE",
		                            [PM_VOLATILE] = "PAGE" };
	struct pm_open_opts o = { .method = method, .log = log_line };

	setenv("PMEM2_FORCE_GRANULARITY", gran[method], 1);
	return pm_open(p->path, &o, &p->st, why);
}

void pool_open(struct test_pool *p, enum pm_method method)
{
	struct pm_error why;

	if (pool_try_open(p, method, &why))
		die("open: %s", why.text);
}

void pool_new(struct test_pool *p, const char *tag, uint64_t size, enum pm_method method)
{
	pool_mkfs(p, tag, size);
	pool_open(p, method);
}

void pool_close(struct test_pool *p)
{
	int err = pm_close(p->st);

	if (err)
		die("close %s: %s", p->path, strerror(-err));
	p->st = NULL;
}

/* Holes stay holes, so that a copy costs what the pool holds. */
void pool_copy(struct test_pool *to, const struct test_pool *from, const char *tag)
{
	static char buf[1 << 16];
	int in = open(from->path, O_RDONLY | O_CLOEXEC), out;
	struct stat sb;
	off_t at = 0;

	pool_path(to, tag);
	out = open(to->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (in < 0 || out < 0 || fstat(in, &sb) || ftruncate(out, sb.st_size))
		die("copy %s: %s", from->path, strerror(errno));
	while ((at = lseek(in, at, SEEK_DATA)) >= 0) {
		off_t end = lseek(in, at, SEEK_HOLE);

		while (at < end) {
			size_t want =
				(size_t)(end - at) < sizeof(buf) ? (size_t)(end - at) : sizeof(buf);
			ssize_t n = pread(in, buf, want, at);

			if (n <= 0 || pwrite(out, buf, (size_t)n, at) != n)
				die("copy %s: %s", from->path, strerror(errno));
			at += n;
		}
	}
	close(in);
	close(out);
}

void pool_kill(struct test_pool *p)
{
	store_drop(p->st);
	p->st = NULL;
}

void pool_drop(struct test_pool *p)
{
	if (p->st)
		pool_kill(p);
	unlink(p->path);
}

struct waiter_sync {
	sem_t sem;
	int err;
};

static void woken(struct pm_wait *w, int err)
{
	struct test_waiter *tw = container_of(w, struct test_waiter, w);

	tw->sync->err = err;
	sem_post(&tw->sync->sem);
}

void waiter_init(struct test_waiter *w)
{
	w->w = (struct pm_wait){ .done = woken };
	w->sync = calloc(1, sizeof(*w->sync));
	if (!w->sync || sem_init(&w->sync->sem, 0, 0))
		die("no memory");
}

int waiter_result(struct test_waiter *w, int rc)
{
	if (rc == -EINPROGRESS) {
		while (sem_wait(&w->sync->sem))
			;
		rc = w->sync->err;
	}
	sem_destroy(&w->sync->sem);
	free(w->sync);
	w->sync = NULL;
	return rc;
}

int pool_wait(struct pm_store *st, pm_lsn lsn)
{
	struct test_waiter w;

	waiter_init(&w);
	return waiter_result(&w, pm_durable(st, lsn, &w.w));
}
