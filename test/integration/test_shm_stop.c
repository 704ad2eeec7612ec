/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A client over shared memory that is stopped (SIGSTOP, a debugger, a frozen container) while it has the lock of the server's
 * region: the others go on without it, and it goes on when it is let.
 *
 * libfabric 1.17 takes that lock by pthread_spin_lock() or _trylock(), which a test can come before: the client stops itself
 * behind it.
 */
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/lib/onesided.h"

TestSuite(shm_stop, .timeout = 120);

static struct daemon d;
static _Atomic int stop_after; /* locks of the server's region from now; 0: never */
static pid_t server;

/* Does @lock lie in the region of the server's endpoint, whose file is named after its process? */
static bool of_server(const void *lock)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512], name[32];
	bool is = false;

	snprintf(name, sizeof(name), "-%d-", (int)server);
	while (f && fgets(line, sizeof(line), f)) {
		unsigned long from, to;

		if (sscanf(line, "%lx-%lx", &from, &to) == 2 && (unsigned long)lock >= from && (unsigned long)lock < to)
			is = strstr(line, "/dev/shm/") && strstr(line, name);
	}
	if (f)
		fclose(f);
	return is;
}

static int locked(pthread_spinlock_t *lock, int err)
{
	if (!err && stop_after && of_server((const void *)lock) && !--stop_after)
		raise(SIGSTOP);
	return err;
}

__attribute__((visibility("default"))) int pthread_spin_lock(pthread_spinlock_t *lock)
{
	static int (*_Atomic real)(pthread_spinlock_t *);

	if (!real)
		real = (int (*)(pthread_spinlock_t *))dlsym(RTLD_NEXT, "pthread_spin_lock");
	return locked(lock, real(lock));
}

__attribute__((visibility("default"))) int pthread_spin_trylock(pthread_spinlock_t *lock)
{
	static int (*_Atomic real)(pthread_spinlock_t *);

	if (!real)
		real = (int (*)(pthread_spinlock_t *))dlsym(RTLD_NEXT, "pthread_spin_trylock");
	return locked(lock, real(lock));
}

/* Writes, stops in the @n-th lock from then on, and when it is woken writes again and ends. */
static void stopped(unsigned n)
{
	static uint8_t buf[64 << 10];
	struct berth *b = os_session(d.shm_url);
	struct berth_file *f;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (berth_open(b, NULL, "stopped", O_CREAT | O_RDWR, 0644, &f) ||
	    berth_pwrite(f, buf, sizeof(buf), 0, BERTH_FILE_SYNC) != sizeof(buf))
		_exit(1);
	stop_after = (int)n;
	while (stop_after)
		if (berth_pwrite(f, buf, sizeof(buf), 0, BERTH_FILE_SYNC) != sizeof(buf))
			_exit(2);
	memset(buf, (int)n, sizeof(buf));
	if (berth_pwrite(f, buf, sizeof(buf), 0, BERTH_FILE_SYNC) != sizeof(buf) || berth_close(f))
		_exit(3);
	berth_disconnect(b);
	_exit(0);
}

/* --- leaks: an endpoint that hangs is abandoned with all that it has, here and in the server ------------------------ */

#define ABANDONED "leak:libfabric.so\nleak:fab_open\nleak:make_slots\nleak:shm_touch\n"

const char *__lsan_default_suppressions(void);
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void)
{
	return ABANDONED;
}

/* berthd inherits the file. */
static void excuse_berthd(void)
{
	int fd = memfd_create("suppressions", 0);
	char text[64];

	cr_assert_eq(write(fd, ABANDONED, strlen(ABANDONED)), (ssize_t)strlen(ABANDONED));
	snprintf(text, sizeof(text), "suppressions=/proc/self/fd/%d", fd);
	setenv("LSAN_OPTIONS", text, 1);
}

/* --- the others ----------------------------------------------------------------------------------------------------- */

static struct berth *newcomer(void)
{
	char url[128];
	struct berth *b;
	struct berth_error why = { "" };

	snprintf(url, sizeof(url), "%s/", d.shm_url);
	cr_assert_eq(berth_connect(url, &(struct berth_opts){ .patience_ms = 60000 }, &b, &why), 0, "%s", why.text);
	return b;
}

Test(shm_stop, the_others_go_on)
{
	struct berth *beside, *late;
	struct berth_file *f;
	uint8_t got[100];
	int status;

	excuse_berthd();
	daemon_start(&d, NULL);
	server = daemon_server_pid(&d);
	beside = newcomer();
	for (unsigned n = 1; n <= 5; n++) {
		pid_t pid = fork();

		if (!pid)
			stopped(n);
		cr_assert_eq(waitpid(pid, &status, WUNTRACED), pid);
		cr_assert(WIFSTOPPED(status), "round %u: 0x%x", n, status);
		cr_assert_eq(berth_ping(beside, NULL), 0, "round %u: %s", n, berth_why(beside));
		late = newcomer();
		cr_assert_eq(berth_ping(late, NULL), 0, "round %u: %s", n, berth_why(late));
		cr_assert_eq(berth_ping(beside, NULL), 0, "round %u: %s", n, berth_why(beside));
		cr_expect_eq(shell("grep -q 'client pid %d (.*) is stopped' %s", (int)pid, d.log), 0, "the log does not name it");
		kill(pid, SIGCONT);
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert_eq(status, 0, "round %u: 0x%x", n, status);
		cr_assert_eq(berth_open(late, NULL, "stopped", O_RDONLY, 0, &f), 0);
		cr_assert_eq(berth_pread(f, got, sizeof(got), 1000), sizeof(got));
		for (size_t i = 0; i < sizeof(got); i++)
			cr_assert_eq(got[i], n);
		cr_assert_eq(berth_close(f), 0);
		berth_disconnect(late);
	}
	berth_disconnect(beside);
	cr_expect_gt(daemon_counter(&d, "provider_resets"), 0, "nobody was stopped in the lock");
	fprintf(stderr, "endpoint made anew %lu times\n", (unsigned long)daemon_counter(&d, "provider_resets"));
	cr_expect_eq(daemon_server_pid(&d), server);
	daemon_remove(&d);
}
