/* SPDX-License-Identifier: BSD-3-Clause */
/* A pool with checksums behind a real server: killed amid copies, scrubbed while it serves, damaged. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "test/lib/daemon.h"
#include "test/lib/nfstree.h"

#define MIB (1u << 20)

static struct daemon d;
static char berth[512];

static void nap(long msec)
{
	nanosleep(&(struct timespec){ msec / 1000, msec % 1000 * 1000000 }, NULL);
}

static void start(bool msync)
{
	static const char *const set[] = { "server.verify_reads=on", NULL };
	struct daemon_opts o = { .msync = msync, .checksum = true, .no_fabric = true,
		                 .no_supervisor = true, .set = set };

	daemon_start(&d, &o);
	built("berth", berth);
}

static void write_at(struct nfsfh *fh, struct nfs_context *nfs, uint64_t off, size_t len, int byte)
{
	static char buf[MIB];

	memset(buf, byte, len);
	cr_assert_eq(nfs_pwrite(nfs, fh, off, len, buf), (int)len, "%s", nfs_get_error(nfs));
}

static void write_file(const char *name, uint64_t len)
{
	struct nfs_context *nfs = nfst_mount(&d, "/");
	struct nfsfh *fh;

	cr_assert_eq(nfs_creat(nfs, name, 0644, &fh), 0, "%s", nfs_get_error(nfs));
	for (uint64_t at = 0; at < len; at += MIB)
		write_at(fh, nfs, at, MIB, 'a' + (int)(at / MIB % 26));
	nfs_close(nfs, fh);
	nfs_destroy_context(nfs);
}

/* Overwrite, append and cut, at every offset in a block, until killed. */
static void churn(unsigned seed)
{
	struct nfs_context *nfs = nfst_mount(&d, "/");
	struct nfsfh *fh;

	srandom(seed);
	if (nfs_open(nfs, "/churn", O_RDWR, &fh))
		_exit(1);
	for (;;) {
		static char buf[70000];
		uint64_t off = (uint64_t)random() % (4 * MIB);
		size_t len = 1 + (size_t)random() % (random() % 2 ? 300 : sizeof(buf) - 1);

		memset(buf, (int)random(), len);
		if (nfs_pwrite(nfs, fh, off, len, buf) != (int)len ||
		    (random() % 8 == 0 && nfs_ftruncate(nfs, fh, off)))
			_exit(2);
	}
}

/* What a scrub of the stopped pool counts. */
static int scrub_pool(void)
{
	return shell("%s scrub --pool %s >/dev/null", berth, d.pool);
}

static void killed_and_scrubbed(bool msync, unsigned rounds)
{
	start(msync);
	write_file("/churn", 2 * MIB);
	for (unsigned i = 0; i < rounds; i++) {
		pid_t pid = fork();

		if (pid == 0)
			churn(i);
		nap(60 + (long)(i * 37 % 90));
		daemon_kill(&d);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		cr_assert_eq(scrub_pool(), 0, "before recovery, round %u", i);
		daemon_check(&d);
		daemon_launch(&d);
	}
	daemon_stop(&d);
	cr_assert_eq(scrub_pool(), 0);
	daemon_remove(&d);
}

Test(scrub, killed_at_any_time_is_clean, .timeout = 60)
{
	killed_and_scrubbed(false, 12);
}
Test(scrub, killed_at_any_time_is_clean_with_msync, .timeout = 60)
{
	killed_and_scrubbed(true, 5);
}

/* Flip a bit in the pool wherever a block is nothing but @byte; false: there is none. */
static bool damage(int byte)
{
	int fd = open(d.pool, O_RDWR | O_CLOEXEC);
	struct stat sb;
	char want[4096];
	char *p;
	bool hit = false;

	cr_assert(fd >= 0 && fstat(fd, &sb) == 0);
	p = mmap(NULL, (size_t)sb.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	cr_assert_neq(p, MAP_FAILED);
	memset(want, byte, sizeof(want));
	for (off_t at = 0; !hit && at < sb.st_size; at += 4096)
		if (!memcmp(p + at, want, sizeof(want))) {
			p[at + 77] ^= 1;
			hit = true;
		}
	munmap(p, (size_t)sb.st_size);
	close(fd);
	return hit;
}

static bool says(const char *what, const char *text)
{
	return shell("%s -s %s scrub %s | grep -q '%s'", berth, d.control, what, text) == 0;
}

static void until(const char *text)
{
	for (int i = 0; i < 500 && !says("status", text); i++)
		nap(20);
	cr_assert(says("status", text), "scrub never was '%s'", text);
}

Test(scrub, a_running_server_finds_flipped_bits, .timeout = 60)
{
	struct nfs_context *nfs;
	struct nfsfh *fh;
	char buf[4096];
	int got;

	start(false);
	write_file("/file", 8 * MIB);
	cr_assert(says("start", "running"));
	until("^done, 100%, 8 MiB seen, 0 bad");
	cr_assert(damage('c'));
	cr_assert(says("start", "running"));
	until("^done, 100%, 8 MiB seen, 1 bad");
	cr_assert(says("status", "bad data at offset 2097152 "));
	cr_assert(says("status --json", "\"offset\": 2097152"));
	nfs = nfst_mount(&d, "/");
	cr_assert_eq(nfs_open(nfs, "/file", O_RDONLY, &fh), 0);
	cr_assert_eq(nfs_pread(nfs, fh, 2097152 + 5000, 4096, buf), 4096);
	got = nfs_pread(nfs, fh, 2097152, 4096, buf);
	cr_assert_lt(got, 0); /* libnfs tells no more */
	cr_assert_geq(daemon_counter(&d, "checksum_errors"), 2);
	daemon_stop(&d);
	cr_assert_eq(scrub_pool(), 1);
	daemon_remove(&d);
}

Test(scrub, pauses_resumes_and_keeps_to_its_rate, .timeout = 60)
{
	start(false);
	write_file("/file", 40 * MIB);
	cr_assert(says("start --rate 2", "running"));
	cr_assert(says("pause", "paused"));
	cr_assert(!says("start", "running"), "one at a time");
	cr_assert(says("status", "paused"));
	cr_assert(says("resume", "running"));
	cr_assert(says("stop", "stopped"));
	cr_assert(!says("resume", "running"));
	cr_assert(says("start --rate 0", "running\\|done"));
	until("^done, 100%, 40 MiB seen, 0 bad");
	daemon_remove(&d);
}

Test(scrub, a_pool_without_checksums_says_so, .timeout = 60)
{
	struct daemon_opts o = { .no_fabric = true, .no_supervisor = true };

	daemon_start(&d, &o);
	built("berth", berth);
	cr_assert_eq(shell("%s -s %s scrub start 2>&1 | grep -q 'no checksums'", berth, d.control), 0);
	daemon_stop(&d);
	cr_assert_eq(shell("%s scrub --pool %s 2>&1 | grep -q 'no checksums'", berth, d.pool), 0);
	daemon_remove(&d);
}
