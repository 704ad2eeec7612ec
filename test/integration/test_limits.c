/* SPDX-License-Identifier: BSD-3-Clause */
/* Idle, small, full, many: what a server must be besides correct. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/berth.h"
#include "test/lib/daemon.h"
#include "test/lib/nfstree.h"

static struct daemon d;

TestSuite(limits, .timeout = 300);

static struct berth *session(const char *url, const char *path)
{
	struct berth_error why = { "" };
	struct berth *b;
	char text[256];

	snprintf(text, sizeof(text), "%s%s", url, path);
	cr_assert_eq(berth_connect(text, NULL, &b, &why), 0, "%s: %s", text, why.text);
	return b;
}

/* A TCP connection that has made one NULL call and stays open. */
static int null_call(void)
{
	static const uint32_t call[] = { 0x80000028, 1, 0, 2, 100003, 3, 0, 0, 0, 0, 0 };
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons((uint16_t)d.port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	uint32_t wire[11], back[7];

	for (int i = 0; i < 11; i++)
		wire[i] = htonl(call[i]);
	cr_assert_eq(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0, "%s", strerror(errno));
	cr_assert_eq(write(fd, wire, sizeof(wire)), (ssize_t)sizeof(wire));
	cr_assert_eq(recv(fd, back, sizeof(back), MSG_WAITALL), (ssize_t)sizeof(back));
	cr_assert_eq(ntohl(back[6]), 0, "accept_stat");
	return fd;
}

/* Context switches (each wake-up is one) and CPU ticks of all threads of @pid so far. */
static void activity(pid_t pid, uint64_t *switches, uint64_t *ticks)
{
	char path[300], line[256];
	struct dirent *de;
	unsigned long v, ut, st;
	DIR *dir;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	cr_assert(dir);
	*switches = *ticks = 0;
	while ((de = readdir(dir))) {
		if (de->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%s/status", pid, de->d_name);
		f = fopen(path, "r");
		cr_assert(f);
		while (fgets(line, sizeof(line), f))
			if (sscanf(line, "voluntary_ctxt_switches: %lu", &v) == 1)
				*switches += v;
		fclose(f);
		snprintf(path, sizeof(path), "/proc/%d/task/%s/stat", pid, de->d_name);
		f = fopen(path, "r");
		cr_assert(f && fgets(line, sizeof(line), f));
		cr_assert_eq(sscanf(strrchr(line, ')'), ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &ut, &st), 2);
		*ticks += ut + st;
		fclose(f);
	}
	closedir(dir);
}

static void ten_seconds_of_rest(uint64_t most_switches)
{
	uint64_t s0, t0, s1, t1, p0, p1;

	sleep(2); /* whatever the connections started comes to an end */
	activity(daemon_server_pid(&d), &s0, &t0);
	activity(d.pid, &p0, &t1);
	sleep(10);
	activity(daemon_server_pid(&d), &s1, &t1);
	cr_assert_leq(s1 - s0, most_switches, "%lu wake-ups in ten seconds", (unsigned long)(s1 - s0));
	cr_assert_leq(t1 - t0, 1, "%lu ticks of CPU", (unsigned long)(t1 - t0));
	activity(d.pid, &p1, &t1);
	cr_assert_eq(p1, p0, "the supervisor woke up");
}

Test(limits, fifty_clients_at_rest_cause_no_wake_ups)
{
	static const char *const no_shm[] = { "fabric tcp.provider=tcp", "fabric tcp.node=127.0.0.1", NULL, NULL };
	const char *set[5];
	struct berth *b[25];
	char service[64];
	int fd[25];

	memcpy(set, no_shm, sizeof(no_shm));
	snprintf(service, sizeof(service), "fabric tcp.service=%u", 20000 + (unsigned)getpid() % 20000);
	set[2] = service;
	daemon_start(&d, &(struct daemon_opts){ .no_fabric = true, .set = set });
	snprintf(d.tcp_url, sizeof(d.tcp_url), "berth+tcp://127.0.0.1:%s", strchr(service, '=') + 1);
	for (int i = 0; i < 25; i++) {
		fd[i] = null_call();
		b[i] = session(d.tcp_url, "/");
	}
	ten_seconds_of_rest(0);
	for (int i = 0; i < 25; i++) {
		close(fd[i]);
		berth_disconnect(b[i]);
	}
	daemon_remove(&d);
}

Test(limits, shm_at_rest_wakes_up_a_few_times_a_second_at_most)
{
	struct berth *b;

	daemon_start(&d, NULL);
	b = session(d.shm_url, "/");
	ten_seconds_of_rest(50);
	cr_assert_eq(berth_ping(b, NULL), 0, "and is awake when called");
	berth_disconnect(b);
	daemon_remove(&d);
}

/* --- many files ------------------------------------------------------------------------------------ */

#define MANY 100000

struct pump {
	struct berth *b;
	int err;
};

static void created(void *arg, int err, const struct berth_reply *r)
{
	struct pump *p = arg;

	(void)r;
	if (err && !p->err)
		p->err = err;
}

static void make_many(struct berth *b, const struct berth_fh *dir, unsigned n)
{
	struct berth_set set = { .set = BERTH_SET_MODE, .mode = 0644 };
	struct pump p = { b, 0 };
	char name[32];

	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "file-%06u", i);
		cr_assert_eq(berth_start_create(b, dir, name, BERTH_GUARDED, &set, NULL, created, &p), 0);
		while (berth_in_flight(b) >= 16)
			berth_wait(b, 1000);
	}
	while (berth_in_flight(b))
		berth_wait(b, 1000);
	cr_assert_eq(p.err, 0, "%s", strerror(-p.err));
}

static void remove_every_third(void)
{
	struct nfs_context *nfs = nfst_mount(&d, "/");
	char name[64];

	for (unsigned i = 0; i < MANY; i += 3) {
		snprintf(name, sizeof(name), "/many/file-%06u", i);
		if (nfs_unlink(nfs, name))
			_exit(1);
	}
	_exit(0);
}

static int count_entry(void *arg, const struct berth_dirent *e)
{
	uint8_t *seen = arg;
	unsigned i;

	if (sscanf(e->name, "file-%u", &i) != 1 || i >= MANY || seen[i] || !e->has_attr || !e->has_fh)
		return -EBADMSG;
	seen[i] = 1;
	return 0;
}

/* Outside the mapping of the pool, in KiB. */
static unsigned long resident(pid_t pid)
{
	char path[64], line[512];
	unsigned long kib, sum = 0;
	bool of_pool = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
	f = fopen(path, "r");
	cr_assert(f);
	while (fgets(line, sizeof(line), f)) {
		if (strchr(line, '-') && strspn(line, "0123456789abcdef") >= 8)
			of_pool = strstr(line, d.pool);
		else if (!of_pool && sscanf(line, "Rss: %lu", &kib) == 1)
			sum += kib;
	}
	fclose(f);
	return sum;
}

Test(limits, hundred_thousand_files_are_listed_while_a_third_is_removed)
{
	static uint8_t seen[MANY];
	struct nfs_context *nfs;
	struct nfsdirent *de;
	struct nfsdir *dir;
	struct berth_fh fh;
	struct berth *b;
	unsigned n = 0, i;
	int status;
	pid_t pid;

	daemon_start(&d, NULL);
	b = session(d.tcp_url, "/");
	cr_assert_eq(berth_mkdir(b, NULL, "many", 0755, &fh), 0);
	make_many(b, &fh, MANY);

	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		remove_every_third();
	}
	do { /* list again and again until the removal is over */
		memset(seen, 0, sizeof(seen));
		cr_assert_eq(berth_readdir(b, &fh, true, count_entry, seen), 0);
		for (i = 0; i < MANY; i++)
			cr_assert(seen[i] || i % 3 == 0, "file %u is missing from the list", i);
	} while (waitpid(pid, &status, WNOHANG) == 0);
	cr_assert_eq(status, 0);

	nfs = nfst_mount(&d, "/"); /* and by a client that is not ours */
	cr_assert_eq(nfs_opendir(nfs, "/many", &dir), 0, "%s", nfs_get_error(nfs));
	while ((de = nfs_readdir(nfs, dir)))
		if (sscanf(de->name, "file-%u", &i) == 1) {
			cr_assert(i % 3 != 0);
			n++;
		}
	cr_assert_eq(n, MANY - (MANY + 2) / 3);
	nfs_closedir(nfs, dir);
	nfs_destroy_context(nfs);
	berth_disconnect(b);
	daemon_remove(&d);
}

Test(limits, memory_stays_small_with_many_files_and_connections)
{
	struct berth *b, *more[32];
	struct berth_attr attr;
	struct berth_fh fh;
	char name[64];
	int fd[224];

	daemon_start(&d, NULL);
	b = session(d.tcp_url, "/");
	cr_assert_eq(berth_mkdir(b, NULL, "many", 0755, &fh), 0);
	make_many(b, &fh, MANY);
	for (unsigned i = 0; i < MANY; i += 7) {
		snprintf(name, sizeof(name), "file-%06u", i);
		cr_assert_eq(berth_stat(b, &fh, name, 0, &attr), 0);
	}
	for (int i = 0; i < 224; i++)
		fd[i] = null_call();
	for (int i = 0; i < 31; i++)
		more[i] = session(d.tcp_url, "/");
	cr_assert_lt(resident(daemon_server_pid(&d)), 64ul << 10, "%lu KiB outside the pool",
		     resident(daemon_server_pid(&d)));
	for (int i = 0; i < 224; i++)
		close(fd[i]);
	for (int i = 0; i < 31; i++)
		berth_disconnect(more[i]);
	berth_disconnect(b);
	daemon_remove(&d);
}

/* --- full ---------------------------------------------------------------------------------------------- */

static uint64_t avail(struct berth *b)
{
	struct berth_statfs fs;

	cr_assert_eq(berth_statfs(b, NULL, "", &fs), 0);
	return fs.avail_bytes;
}

static void expect_pattern(struct berth *b, const char *path, uint64_t len, char want)
{
	struct berth_file *f;
	static char buf[1 << 20];

	cr_assert_eq(berth_open(b, NULL, path, O_RDONLY, 0, &f), 0);
	for (uint64_t at = 0; at < len; at += sizeof(buf)) {
		ssize_t n = berth_pread(f, buf, sizeof(buf), at);

		cr_assert_gt(n, 0);
		for (ssize_t i = 0; i < n; i++)
			cr_assert_eq(buf[i], want, "%s at %lu", path, (unsigned long)(at + (uint64_t)i));
	}
	berth_close(f);
}

static void fill_up(bool msync)
{
	struct berth_file *keep, *f;
	uint64_t before, total = 0;
	static char buf[1 << 20];
	struct berth_attr attr;
	struct berth *b;
	ssize_t n;

	daemon_start(&d, &(struct daemon_opts){ .size = 64 << 20, .msync = msync });
	b = session(d.tcp_url, "/");
	cr_assert_eq(berth_open(b, NULL, "keep", O_CREAT | O_RDWR, 0644, &keep), 0);
	memset(buf, 'k', sizeof(buf));
	cr_assert_eq(berth_pwrite(keep, buf, 300000, 0, BERTH_FILE_SYNC), 300000);
	cr_assert_eq(berth_open(b, NULL, "full", O_CREAT | O_RDWR, 0644, &f), 0);
	before = avail(b);

	memset(buf, 'f', sizeof(buf));
	for (size_t piece = sizeof(buf); piece >= 4096; piece /= 2) {
		while ((n = berth_pwrite(f, buf, piece, total, BERTH_FILE_SYNC)) == (ssize_t)piece)
			total += piece;
		cr_assert_eq(n, -ENOSPC, "%zd", n);
	}
	cr_assert_eq(avail(b), 0, "df says %lu bytes are left", (unsigned long)avail(b));
	cr_assert_leq(total, before);
	cr_assert_leq(before - total, 16 * 4096, "%lu bytes fit of %lu", (unsigned long)total,
		      (unsigned long)before);
	cr_assert_eq(berth_fstat(f, &attr), 0);
	cr_assert_eq(attr.size, total, "the writes that failed moved the end of file");
	expect_pattern(b, "keep", 300000, 'k');
	expect_pattern(b, "full", total, 'f');
	/* overwriting needs no space */
	cr_assert_eq(berth_pwrite(keep, "kkkk", 4, 1000, BERTH_FILE_SYNC), 4);
	berth_close(f);
	berth_close(keep);
	cr_assert_eq(berth_unlink(b, NULL, "full"), 0);
	cr_assert_eq(avail(b), before, "removing gives back %lu of %lu", (unsigned long)avail(b),
		     (unsigned long)before);
	cr_assert_eq(berth_open(b, NULL, "again", O_CREAT | O_RDWR, 0644, &f), 0);
	cr_assert_eq(berth_pwrite(f, buf, sizeof(buf), 0, BERTH_FILE_SYNC), (ssize_t)sizeof(buf));
	berth_close(f);
	berth_disconnect(b);
	daemon_remove(&d);
}

Test(limits, a_full_pool_says_so_at_the_right_byte)
{
	fill_up(false);
}

Test(limits, a_full_pool_flushed_by_msync_says_so_at_the_right_byte)
{
	fill_up(true);
}
