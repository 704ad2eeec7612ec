/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Several workers, every transport, many clients at once, while exports are loaded again and statistics are
 * asked for. `make check-tsan` runs this against a berthd built with ThreadSanitizer.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/berth.h"
#include "test/lib/daemon.h"
#include "test/lib/nfstree.h"

static struct daemon d;

TestSuite(workers, .timeout = 300);

#define CLIENTS 6
#define FILES   40
#define SIZE    70001

static void fill(char *buf, unsigned who, unsigned file)
{
	for (unsigned i = 0; i < SIZE; i++)
		buf[i] = (char)(who * 31 + file * 7 + i / 11);
}

/* Make, write, read back, rename and remove files in a shared directory; exit status 0 if all was right. */
static void libnfs_client(unsigned who)
{
	struct nfs_context *nfs = nfst_mount(&d, "/");
	static char buf[SIZE], back[SIZE];
	char name[64], other[64];
	struct nfsfh *fh;

	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "/shared/%u-%u", who, i);
		snprintf(other, sizeof(other), "/shared/%u-%u.done", who, i);
		fill(buf, who, i);
		if (nfs_creat(nfs, name, 0644, &fh) || nfs_pwrite(nfs, fh, 0, SIZE, buf) != SIZE ||
		    nfs_fsync(nfs, fh) || nfs_pread(nfs, fh, 0, SIZE, back) != SIZE ||
		    memcmp(buf, back, SIZE) || nfs_close(nfs, fh) || nfs_rename(nfs, name, other) ||
		    (i % 2 && nfs_unlink(nfs, other))) {
			fprintf(stderr, "client %u: %s\n", who, nfs_get_error(nfs));
			_exit(1);
		}
	}
	nfs_destroy_context(nfs);
	_exit(0);
}

static void berth_client(const char *url, unsigned who)
{
	static char buf[SIZE], back[SIZE];
	char name[64], other[64];
	struct berth_file *f;
	struct berth *b;

	if (berth_connect(url, NULL, &b, NULL))
		_exit(2);
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "shared/%u-%u", who, i);
		snprintf(other, sizeof(other), "shared/%u-%u.done", who, i);
		fill(buf, who, i);
		if (berth_open(b, NULL, name, O_CREAT | O_RDWR, 0644, &f) ||
		    berth_pwrite(f, buf, SIZE, 0, i % 3 ? BERTH_FILE_SYNC : BERTH_UNSTABLE) != SIZE ||
		    berth_commit(f) || berth_pread(f, back, SIZE, 0) != SIZE || memcmp(buf, back, SIZE) ||
		    berth_close(f) || berth_rename(b, NULL, name, NULL, other) ||
		    (i % 2 && berth_unlink(b, NULL, other)))
			_exit(1);
	}
	berth_disconnect(b);
	_exit(0);
}

static void crowd(const struct daemon_opts *opts)
{
	struct nfs_context *nfs;
	struct nfsdirent *de;
	struct nfsdir *dir;
	unsigned left = CLIENTS, done = 0;
	char url[128];
	int status;

	daemon_start(&d, opts);
	nfs = nfst_mount(&d, "/");
	cr_assert_eq(nfs_mkdir(nfs, "/shared"), 0);
	for (unsigned i = 0; i < CLIENTS; i++) {
		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			snprintf(url, sizeof(url), "%s/", i % 3 == 1 ? d.tcp_url : d.shm_url);
			if (i % 3 == 0)
				libnfs_client(i);
			berth_client(url, i);
		}
	}
	while (left) {
		kill(d.pid, SIGHUP);
		cr_assert_eq(daemon_counter(&d, "payload_copied_bytes"), 0);
		usleep(20000);
		while (left && waitpid(-1, &status, WNOHANG) > 0) {
			cr_assert_eq(status, 0, "a client ended with 0x%x", status);
			left--;
		}
	}
	cr_assert_eq(nfs_opendir(nfs, "/shared", &dir), 0);
	while ((de = nfs_readdir(nfs, dir)))
		done += strstr(de->name, ".done") != NULL;
	nfs_closedir(nfs, dir);
	cr_assert_eq(done, CLIENTS * FILES / 2);
	nfs_destroy_context(nfs);
	daemon_remove(&d);
}

Test(workers, one_worker_serves_a_crowd)
{
	crowd(NULL);
}

Test(workers, four_workers_serve_a_crowd)
{
	crowd(&(struct daemon_opts){ .workers = 4 });
}

Test(workers, four_workers_serve_a_crowd_from_a_pool_flushed_by_msync)
{
	crowd(&(struct daemon_opts){ .workers = 4, .msync = true });
}
