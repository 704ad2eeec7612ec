/* SPDX-License-Identifier: BSD-3-Clause */
/* The pool is cut short under a running server: what is gone answers I/O errors, the rest is
 * served. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "client/berth.h"
#include "test/lib/daemon.h"
#include "test/lib/nfstree.h"

#define MIB (1ull << 20)

static struct daemon d;

static void put(struct nfs_context *nfs, const char *path, size_t len, int byte)
{
	char *buf = memset(malloc(MIB), byte, MIB);
	struct nfsfh *fh;

	cr_assert_eq(nfs_creat(nfs, path, 0644, &fh), 0, "%s", nfs_get_error(nfs));
	for (size_t at = 0; at < len; at += MIB)
		for (size_t done = 0; done < MIB;) {
			int n = nfs_pwrite(nfs, fh, at + done, MIB - done, buf + done);

			cr_assert_gt(n, 0, "%s", nfs_get_error(nfs));
			done += (size_t)n;
		}
	cr_assert_eq(nfs_close(nfs, fh), 0);
	free(buf);
}

/* What a read of 4 KiB brings: bytes, or a negative errno. */
static int get(struct nfs_context *nfs, const char *path, uint64_t at, char *buf)
{
	struct nfsfh *fh;
	int n;

	cr_assert_eq(nfs_open(nfs, path, O_RDONLY, &fh), 0, "%s", nfs_get_error(nfs));
	n = nfs_pread(nfs, fh, at, 4096, buf);
	nfs_close(nfs, fh);
	return n;
}

/* libnfs says EFAULT for whatever status a READ or WRITE brings. */
static void lost(int rc)
{
	cr_assert(rc == -EIO || rc == -EFAULT, "%d", rc);
}

static bool logged(const char *text)
{
	return shell("grep -q '%s' %s", text, d.log) == 0;
}

static void cut_short(bool msync)
{
	struct nfs_context *nfs;
	struct nfsfh *fh;
	char buf[4096];
	pid_t before;

	daemon_start(&d,
	             &(struct daemon_opts){ .size = 64 * MIB, .no_fabric = true, .msync = msync });
	before = daemon_server_pid(&d);
	nfs = nfst_mount(&d, "/");
	put(nfs, "/kept", MIB, 'k');
	put(nfs, "/lost", 40 * MIB, 'l');
	cr_assert_eq(daemon_counter(&d, "media_errors"), 0);
	cr_assert_eq(truncate(d.pool, 32 * MIB), 0);

	cr_assert_eq(get(nfs, "/kept", 8192, buf), 4096);
	cr_assert_eq(buf[100], 'k');
	cr_assert_eq(get(nfs, "/lost", 0, buf), 4096);
	cr_assert_eq(buf[100], 'l');
	lost(get(nfs, "/lost", 39 * MIB, buf));
	lost(get(nfs, "/lost", 39 * MIB, buf)); /* and so it stays */
	cr_assert_gt(daemon_counter(&d, "media_errors"), 0);

	cr_assert_eq(nfs_open(nfs, "/lost", O_WRONLY | O_SYNC, &fh), 0);
	lost(nfs_pwrite(nfs, fh, 38 * MIB, sizeof(buf), buf));
	cr_assert_eq(nfs_pwrite(nfs, fh, 4096, sizeof(buf), buf), 4096);
	nfs_close(nfs, fh);
	cr_assert_eq(nfs_mkdir(nfs, "/made"), 0, "%s", nfs_get_error(nfs));
	cr_assert_eq(get(nfs, "/kept", 0, buf), 4096);
	cr_assert_eq(daemon_server_pid(&d), before);
	cr_assert(logged("media error: bytes"));
	cr_assert(logged("cut short"));
	cr_assert_not(logged("crash: signal"));

	nfs_destroy_context(nfs);
	cr_assert_eq(truncate(d.pool, 64 * MIB), 0); /* for the check that follows */
	daemon_remove(&d);
}

Test(media, a_pool_cut_short_answers_io_errors_for_what_is_gone, .timeout = 120)
{
	cut_short(false);
}

Test(media, also_where_the_pool_is_flushed_by_msync, .timeout = 120)
{
	cut_short(true);
}

/* --- over fabrics ---------------------------------------------------------------------------- */

/* Read and write @len bytes at @at: bytes of @byte, or all of it is an I/O error. */
static void whole(struct berth_file *f, uint64_t at, size_t len, int byte)
{
	char *buf = malloc(len);

	cr_assert_eq(berth_pread(f, buf, len, at), (ssize_t)len);
	for (size_t i = 0; i < len; i++)
		cr_assert_eq(buf[i], byte, "byte %llu", (unsigned long long)(at + i));
	free(buf);
}

static void gone(struct berth_file *f, uint64_t at, size_t len)
{
	char *buf = calloc(1, len);
	ssize_t n = berth_pread(f, buf, len, at);

	cr_assert_eq(n, -EIO, "read of %zu at %llu: %zd", len, (unsigned long long)at, n);
	n = berth_pwrite(f, buf, len, at, BERTH_FILE_SYNC);
	cr_assert_eq(n, -EIO, "write of %zu at %llu: %zd", len, (unsigned long long)at, n);
	free(buf);
}

static struct berth_file *make(struct berth *b, const char *name, size_t len, int byte)
{
	char *buf = memset(malloc(MIB), byte, MIB);
	struct berth_file *f;

	cr_assert_eq(berth_open(b, NULL, name, O_CREAT | O_RDWR, 0644, &f), 0);
	for (size_t at = 0; at < len; at += MIB)
		cr_assert_eq(berth_pwrite(f, buf, MIB, at, BERTH_FILE_SYNC), (ssize_t)MIB);
	free(buf);
	return f;
}

static void cut_under_a_fabric(bool shm)
{
	static const size_t sizes[] = { 100, 4096, 65536, MIB }; /* inline, and by RMA */
	struct berth_error why = { { 0 } };
	struct berth_file *kept, *lost_file;
	uint64_t errors = 0, now;
	struct berth *b;
	char url[128];
	pid_t before;

	setenv("FI_PROVIDER", "tcp,shm", 0);
	daemon_start(&d, &(struct daemon_opts){ .size = 64 * MIB });
	before = daemon_server_pid(&d);
	snprintf(url, sizeof(url), "%s/", shm ? d.shm_url : d.tcp_url);
	cr_assert_eq(berth_connect(url, NULL, &b, &why), 0, "%s", why.text);
	kept = make(b, "kept", MIB, 'k');
	lost_file = make(b, "lost", 40 * MIB, 'l');
	whole(lost_file, 39 * MIB, MIB, 'l');
	cr_assert_eq(daemon_counter(&d, "media_errors"), 0);
	cr_assert_eq(truncate(d.pool, 32 * MIB), 0);

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		gone(lost_file, (38 - i) * MIB, sizes[i]);
		now = daemon_counter(&d, "media_errors");
		cr_assert_gt(now, errors, "%zu bytes", sizes[i]);
		errors = now;
		gone(lost_file, (38 - i) * MIB, sizes[i]); /* and so it stays */
		whole(kept, 4096, sizes[i] < MIB ? sizes[i] : MIB / 2, 'k');
		whole(lost_file, 0, sizes[i], 'l');
	}
	cr_assert_eq(berth_pwrite(kept, "new", 3, 0, BERTH_FILE_SYNC), 3);
	cr_assert_eq(berth_mkdir(b, NULL, "made", 0755, NULL), 0);
	cr_assert_eq(daemon_server_pid(&d), before);
	cr_assert(logged("media error: bytes"));
	cr_assert(logged("cut short"));
	cr_assert_not(logged("crash: signal"));

	berth_close(kept);
	berth_close(lost_file);
	berth_disconnect(b);
	cr_assert_eq(truncate(d.pool, 64 * MIB), 0); /* for the check that follows */
	daemon_remove(&d);
}

Test(media, a_pool_cut_short_under_fabric_tcp, .timeout = 120)
{
	cut_under_a_fabric(false);
}

Test(media, a_pool_cut_short_under_shm, .timeout = 120)
{
	cut_under_a_fabric(true);
}

/* --- a file system without room --------------------------------------------------------------- */

static void write_text(const char *path, const char *fmt, unsigned id)
{
	FILE *f = fopen(path, "w");

	cr_assert(f && fprintf(f, fmt, id) > 0 && !fclose(f), "%s", path);
}

/* /dev/shm of @size, seen by this process and its children alone. */
static void small_shm(const char *size)
{
	unsigned uid = geteuid(), gid = getegid();

	cr_assert_eq(unshare(CLONE_NEWNS | (uid ? CLONE_NEWUSER : 0)), 0, "%m");
	if (uid) {
		write_text("/proc/self/setgroups", "deny", 0);
		write_text("/proc/self/uid_map", "0 %u 1", uid);
		write_text("/proc/self/gid_map", "0 %u 1", gid);
	}
	cr_assert_eq(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0, "%m");
	cr_assert_eq(mount("tmpfs", "/dev/shm", "tmpfs", 0, size), 0, "%m");
}

/* Over shm the provider itself would have no room. */
Test(media, no_room_under_fabric_tcp_is_an_io_error, .timeout = 120)
{
	char *buf = calloc(1, MIB), url[128], path[512];
	struct berth_error why = { { 0 } };
	struct berth_file *f;
	struct berth *b;
	uint64_t at = 0;
	ssize_t n;

	setenv("FI_PROVIDER", "tcp,shm", 0);
	small_shm("size=100m");
	daemon_start(&d, &(struct daemon_opts){ .size = 128 * MIB });
	cr_assert(logged("is sparse"));
	snprintf(url, sizeof(url), "%s/", d.tcp_url);
	cr_assert_eq(berth_connect(url, NULL, &b, &why), 0, "%s", why.text);
	cr_assert_eq(berth_open(b, NULL, "big", O_CREAT | O_RDWR, 0644, &f), 0);
	while ((n = berth_pwrite(f, buf, MIB, at, BERTH_FILE_SYNC)) == (ssize_t)MIB)
		at += MIB;
	cr_assert_eq(n, -EIO, "%zd at %llu", n, (unsigned long long)at);
	cr_assert_not(logged("crash: signal"));
	berth_close(f);
	berth_disconnect(b);
	daemon_kill(&d);
	cr_assert_eq(shell("%s check %s > /dev/null", built("berth", path), d.pool), 0);

	cr_assert_eq(mount("tmpfs", "/dev/shm", "tmpfs", MS_REMOUNT, "size=300m"), 0, "%m");
	daemon_launch(&d);
	cr_assert_eq(berth_connect(url, NULL, &b, &why), 0, "%s", why.text);
	whole(make(b, "more", 8 * MIB, 'm'), 0, MIB, 'm');
	berth_disconnect(b);
	daemon_remove(&d);
	free(buf);
}

/* Its journal never had pages, and there is no room for any. */
Test(media, a_sparse_pool_without_room_for_its_journal_is_named_by_check, .timeout = 60)
{
	static const char pool[] = "/dev/shm/pool";
	char berth[512], out[64];

	small_shm("size=64m");
	built("berth", berth);
	snprintf(out, sizeof(out), "/tmp/berth-check.%d", getpid());
	cr_assert_eq(shell("%s mkfs --sparse --size 128M %s > /dev/null", berth, pool), 0);
	shell("cat /dev/zero > /dev/shm/fill 2>/dev/null"); /* until there is no room */
	cr_assert_eq(shell("%s check %s > %s 2>&1", berth, pool, out), 8);
	cr_assert_eq(shell("grep -q 'media that failed' %s", out), 0);
	unlink(out);
}

/* --- not the pool's -------------------------------------------------------------------------- */

Test(media, a_bus_error_that_is_not_the_pools_is_a_crash, .timeout = 120)
{
	daemon_start(&d, &(struct daemon_opts){ .no_fabric = true });
	cr_assert_eq(kill(daemon_server_pid(&d), SIGBUS), 0);
	for (int i = 0; i < 500 && !logged("crash: signal"); i++)
		nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
	cr_assert(logged("crash: signal"));
	daemon_kill(&d);
	daemon_remove(&d);
}
