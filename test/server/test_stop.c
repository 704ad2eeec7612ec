/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * SIGTERM while the pool makes something durable that takes longer than anybody waits: a medium that hangs. The loops have ended
 * when it is over at last, and nobody takes the news; the server must end in order all the same.
 *
 * A child is the server. Its msync is here, and lies still until the pool is being closed.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/berth.h"
#include "server/config.h"
#include "server/process.h"
#include "test/lib/pool.h"

TestSuite(stop, .timeout = 60);

enum { LEN = 8192 };

static struct { /* seen by both */
	_Atomic bool hang; /* the next msync shall */
	_Atomic pid_t hanging; /* the thread that is in it */
	_Atomic bool in_msync, let_go;
	_Atomic int closed; /* what pm_close said, + 1000 */
} *both;
static bool close_first; /* the pool is closed before the medium goes on */

/* --- what is put in between ------------------------------------------------------------------------------------ */

__attribute__((visibility("default"))) int msync(void *at, size_t len, int flags)
{
	int rc;

	if (both && atomic_exchange(&both->hang, false)) {
		both->in_msync = true;
		both->hanging = (pid_t)syscall(SYS_gettid);
		while (!both->let_go)
			usleep(1000);
	}
	rc = (int)syscall(SYS_msync, at, len, flags);
	if (both && both->hanging == syscall(SYS_gettid))
		both->in_msync = false;
	return rc;
}

int __real_pm_close(struct pm_store *st);
int __wrap_pm_close(struct pm_store *st);
int __wrap_pm_close(struct pm_store *st)
{
	int err;

	if (!close_first)
		both->let_go = true;
	err = __real_pm_close(st);
	both->closed = 1000 + err;
	return err;
}

/* --- the server ------------------------------------------------------------------------------------------------- */

/* Until that thread has nothing to do any more, or is gone: what it was at is behind it. */
static void wait_for_rest(pid_t tid)
{
	char path[64], line[512], *state;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)tid);
	while (both->in_msync)
		usleep(1000);
	do {
		usleep(1000);
		f = fopen(path, "r");
		state = f && fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
		if (f)
			fclose(f);
	} while (state && state[2] != 'S');
}

static void serve(const char *pool, const char *exports, const char *service)
{
	struct config conf;
	char why[4000] = "", text[6][300];
	int status;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	config_init(&conf);
	snprintf(text[0], 300, "server.pool=%s", pool);
	snprintf(text[1], 300, "server.control=%s.control", pool);
	snprintf(text[2], 300, "exports.file=%s", exports);
	snprintf(text[3], 300, "nfs.port=0");
	snprintf(text[4], 300, "fabric tcp.provider=tcp");
	snprintf(text[5], 300, "fabric tcp.service=%s", service);
	for (unsigned i = 0; i < 6; i++)
		if (config_override(&conf, text[i], why, sizeof(why)))
			_exit(90);
	if (config_override(&conf, "server.persistence=msync", why, sizeof(why)) ||
	    config_finish(&conf, why, sizeof(why)))
		_exit(91);
	status = server_run(&conf, NULL);
	both->let_go = true;
	if (close_first)
		wait_for_rest(both->hanging);
	_exit(status);
}

static void nobody_waits(void *arg, int err, const struct berth_reply *r)
{
	(void)arg;
	(void)err;
	(void)r;
}

static void end_while_it_hangs(enum berth_stable how, int closed)
{
	static uint8_t buf[LEN];
	struct test_pool p;
	struct berth *b;
	struct berth_file *f;
	struct berth_fh fh;
	struct berth_error err = { "" };
	char exports[200], service[16], url[64];
	FILE *file;
	pid_t pid;
	int status;

	both = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pool_mkfs(&p, "stop", 32 << 20);
	snprintf(exports, sizeof(exports), "%s.exports", p.path);
	file = fopen(exports, "w");
	fputs("/ *(rw,no_root_squash,insecure)\n", file);
	fclose(file);
	snprintf(service, sizeof(service), "%u", 20000 + (unsigned)getpid() % 20000);
	snprintf(url, sizeof(url), "berth+tcp://127.0.0.1:%s/", service);
	pid = fork();
	if (!pid)
		serve(p.path, exports, service);
	while (berth_connect(url, NULL, &b, &err))
		cr_assert_eq(waitpid(pid, &status, WNOHANG), 0, "it ended: 0x%x; %s", status, err.text);
	cr_assert_eq(berth_open(b, NULL, "f", O_CREAT | O_RDWR, 0644, &f), 0);
	berth_file_fh(f, &fh);
	cr_assert_eq(berth_pwrite(f, buf, LEN, 0, BERTH_UNSTABLE), LEN);
	both->hang = true;
	if (how == BERTH_FILE_SYNC)
		cr_assert_eq(berth_start_write(b, &fh, 0, buf, LEN, how, nobody_waits, NULL), 0);
	else
		cr_assert_eq(berth_start_commit(b, &fh, nobody_waits, NULL), 0);
	while (!both->hanging)
		berth_wait(b, 10);
	kill(pid, SIGTERM);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0, "0x%x", status);
	cr_assert_eq(both->closed, 1000 + closed, "pm_close: %d", both->closed - 1000);
	berth_disconnect(b);
	unlink(exports);
	pool_drop(&p);
}

/* Nothing pins the pool: closing it waits for the medium. */
Test(stop, while_a_commit_hangs)
{
	end_while_it_hangs(BERTH_UNSTABLE, 0);
}

/* The write has its pin still. */
Test(stop, while_a_write_hangs)
{
	close_first = true;
	end_while_it_hangs(BERTH_FILE_SYNC, -EBUSY);
}
