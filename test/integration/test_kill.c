/* SPDX-License-Identifier: BSD-3-Clause */
/* kill -9 of the server in the middle of real copies: nothing acknowledged is lost, clients go on. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "test/lib/daemon.h"
#include "test/lib/nfstree.h"

#define ROUNDS 20
#define LIMIT  500  /* seconds, of a test */
#define RECORD 3001 /* bytes: crosses blocks at every offset */

static struct daemon d;
static char dir[] = "/dev/shm/berth-kill-XXXXXX";
static char berth[512];
static unsigned seed;

struct shared {
	_Atomic uint64_t acked; /* records that the server said are stable */
};

static void nap(long msec)
{
	nanosleep(&(struct timespec){ msec / 1000, msec % 1000 * 1000000 }, NULL);
}

static void fill_record(char *buf, uint64_t n)
{
	for (unsigned i = 0; i < RECORD; i++)
		buf[i] = (char)(n * 131 + i * 7 + (n >> 8));
}

/* Append records with FILE_SYNC through libnfs, which reconnects by itself; never ends. */
static void write_records(struct shared *s)
{
	struct nfs_context *nfs = nfst_mount(&d, "/");
	struct nfsfh *fh;
	char buf[RECORD];

	if (nfs_creat(nfs, "/records", 0644, &fh))
		_exit(1);
	nfs_close(nfs, fh);
	if (nfs_open(nfs, "/records", O_WRONLY | O_SYNC, &fh))
		_exit(1);
	for (uint64_t n = 0;; n++) {
		fill_record(buf, n);
		if (nfs_pwrite(nfs, fh, n * RECORD, RECORD, buf) != RECORD)
			_exit(2);
		s->acked = n + 1;
		if (n > (1u << 30) / RECORD) /* a slow machine must not fill the pool */
			nap(10);
	}
}

/* Records [@from, @count) are what was written. */
static void verify_records(uint64_t from, uint64_t count)
{
	enum { MANY = 300 };
	static char want[RECORD], got[MANY * RECORD];
	struct nfs_context *nfs;
	struct nfsfh *fh;

	if (from >= count)
		return;
	nfs = nfst_mount(&d, "/");
	cr_assert_eq(nfs_open(nfs, "/records", O_RDONLY, &fh), 0, "%s", nfs_get_error(nfs));
	for (uint64_t n = from; n < count; n++) {
		uint64_t k = (n - from) % MANY, left = count - n < MANY ? count - n : MANY;

		if (k == 0)
			cr_assert_eq(nfs_pread(nfs, fh, n * RECORD, left * RECORD, got), (int)(left * RECORD),
				     "%s", nfs_get_error(nfs));
		fill_record(want, n);
		cr_assert(!memcmp(want, got + k * RECORD, RECORD), "record %lu of %lu is not what was written",
			  (unsigned long)n, (unsigned long)count);
	}
	nfs_close(nfs, fh);
	nfs_destroy_context(nfs);
}

static pid_t start_copy(const char *src, const char *url, unsigned n)
{
	pid_t pid = fork();

	if (pid == 0) {
		char to[256];

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* Where everything is slow the server is up a small part of the time: that is not an outage to give up. */
		snprintf(to, sizeof(to), "%s/copy%u?reconnect=%d", url, n, LIMIT);
		execl(berth, berth, "cp", "-r", "-p", src, to, (char *)NULL);
		_exit(127);
	}
	for (int i = 0; i < 1000; i++) { /* connected and at work, so that a kill finds it there */
		if (!shell("%s stat %s/copy%u >/dev/null 2>&1", berth, url, n))
			break;
		nap(10);
	}
	return pid;
}

/* Fetch copy @n and compare it. */
static void verify_copy(const char *src, unsigned n)
{
	char out[64];

	snprintf(out, sizeof(out), "%s/out", dir);
	cr_assert_eq(shell("%s cp -r -p %s/copy%u %s", berth, d.tcp_url, n, out), 0);
	tree_same(src, out);
	shell("chmod -R u+rwx %s; rm -rf %s; %s rm -r %s/copy%u", out, out, berth, d.tcp_url, n);
}

static void setup(void)
{
	cr_assert(mkdtemp(dir));
	seed = (unsigned)time(NULL);
	fprintf(stderr, "seed %u\n", seed);
	built("berth", berth);
}

static void teardown(void)
{
	shell("chmod -R u+rwx %s; rm -rf %s", dir, dir);
}

TestSuite(kill, .init = setup, .fini = teardown, .timeout = LIMIT);

static void rounds(bool msync, bool over_shm, unsigned count)
{
	struct shared *s = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned copy = 0;
	uint64_t verified = 0;
	char src[64];
	pid_t writer, cp;
	int status;

	daemon_start(&d, &(struct daemon_opts){ .size = 2ull << 30, .msync = msync });
	snprintf(src, sizeof(src), "%s/src", dir);
	tree_make("/usr/include/linux", src);
	cr_assert_eq(shell("head -c 50000000 /dev/urandom >%s/big", src), 0);
	cr_assert_eq(shell("touch -d @1700000000.123456 %s/big %s", src, src), 0);
	writer = fork();
	if (writer == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		write_records(s);
	}
	cp = start_copy(src, over_shm ? d.shm_url : d.tcp_url, copy);
	for (unsigned i = 0; i < count; i++) {
		uint64_t acked;

		nap(20 + rand_r(&seed) % 300);
		acked = s->acked;
		daemon_kill(&d);
		daemon_check(&d);
		daemon_launch(&d);
		verify_records(verified, acked);
		verified = acked;
		if (waitpid(cp, &status, WNOHANG) == cp) {
			cr_assert_eq(status, 0, "berth cp ended with 0x%x", status);
			verify_copy(src, copy);
			cp = start_copy(src, over_shm ? d.shm_url : d.tcp_url, ++copy);
		}
		cr_assert_eq(waitpid(writer, &status, WNOHANG), 0, "the writer ended: 0x%x", status);
	}
	cr_assert_eq(waitpid(cp, &status, 0), cp);
	cr_assert_eq(status, 0, "berth cp ended with 0x%x", status);
	verify_copy(src, copy);
	kill(writer, SIGKILL);
	waitpid(writer, NULL, 0);
	cr_assert_gt(s->acked, 0);
	verify_records(0, s->acked);
	daemon_remove(&d);
}

Test(kill, twenty_rounds_during_a_copy_over_fabric_tcp)
{
	rounds(false, false, ROUNDS);
}

Test(kill, rounds_during_a_copy_over_shm)
{
	rounds(false, true, 10);
}

Test(kill, rounds_with_a_pool_flushed_by_msync)
{
	rounds(true, false, 10);
}

Test(kill, the_supervisor_starts_the_server_again)
{
	struct nfs_context *nfs;
	struct nfsfh *fh;
	char buf[100] = "before", back[100];
	pid_t first, now;

	daemon_start(&d, NULL);
	nfs = nfst_mount(&d, "/");
	cr_assert_eq(nfs_creat(nfs, "/f", 0644, &fh), 0);
	cr_assert_eq(nfs_pwrite(nfs, fh, 0, sizeof(buf), buf), sizeof(buf));
	cr_assert_eq(nfs_fsync(nfs, fh), 0);
	for (int i = 0; i < 3; i++) {
		first = daemon_server_pid(&d);
		cr_assert_neq(first, d.pid);
		kill(first, SIGKILL);
		/* the same client, no help: it reconnects and reads */
		cr_assert_eq(nfs_pread(nfs, fh, 0, sizeof(back), back), sizeof(back), "%s",
			     nfs_get_error(nfs));
		cr_assert(!memcmp(buf, back, sizeof(buf)));
		now = daemon_server_pid(&d);
		cr_assert(now != first && now != d.pid);
	}
	nfs_destroy_context(nfs);
	daemon_remove(&d);
}

/* `pkill berthd` reaches supervisor and server, and the supervisor passes it on. */
Test(kill, being_asked_to_stop_twice_is_a_clean_stop)
{
	pid_t server;

	daemon_start(&d, NULL);
	server = daemon_server_pid(&d);
	for (int i = 0; i < 5; i++)
		kill(server, SIGTERM);
	daemon_stop(&d);
	cr_assert_eq(shell("grep -q 'berthd: stopped' %s", d.log), 0);
	daemon_remove(&d);
}
