/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_libberth.c - the client library against a real server, over fabric tcp and over shm
 *
 * Every test runs on both; the last ones take the server away in the middle.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/berth.h"
#include "test/lib/daemon.h"

#define MIB (1u << 20)

struct on { /* one server, one session */
	struct daemon d;
	struct berth *b;
};

static struct berth *session(const struct daemon *d, bool shm)
{
	struct berth_error why = { { 0 } };
	char url[128];
	struct berth *b = NULL;

	snprintf(url, sizeof(url), "%s/", shm ? d->shm_url : d->tcp_url);
	cr_assert_eq(berth_connect(url, NULL, &b, &why), 0, "%s: %s", url, why.text);
	return b;
}

/* FI_PROVIDER is set so that a test does not wait for providers that nobody asked for. */
static void begin(struct on *o, bool shm)
{
	setenv("FI_PROVIDER", "tcp,shm", 0);
	memset(o, 0, sizeof(*o));
	daemon_start(&o->d, &(struct daemon_opts){ 0 });
	o->b = session(&o->d, shm);
}

static void end(struct on *o)
{
	berth_disconnect(o->b);
	daemon_remove(&o->d);
}

static void fill(uint8_t *buf, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++) {
		seed = seed * 1103515245 + 12345;
		buf[i] = (uint8_t)(seed >> 16);
	}
}

#define OK(call)                                                                                   \
	do {                                                                                       \
		int err_ = (int)(call);                                                            \
		cr_assert(err_ >= 0, "%s: %s", #call, strerror(-err_));                            \
	} while (0)
#define FAILS(call, with)                                                                          \
	do {                                                                                       \
		int err_ = (int)(call);                                                            \
		cr_expect_eq(err_, -(with), "%s: %d, not -%s", #call, err_, #with);                \
	} while (0)

#define BOTH(suite, name)                                                                          \
	static void suite##_##name(struct on *o);                                                  \
	Test(suite, name##_over_tcp)                                                               \
	{                                                                                          \
		struct on o;                                                                       \
		begin(&o, false);                                                                  \
		suite##_##name(&o);                                                                \
		end(&o);                                                                           \
	}                                                                                          \
	Test(suite, name##_over_shm)                                                               \
	{                                                                                          \
		struct on o;                                                                       \
		begin(&o, true);                                                                   \
		suite##_##name(&o);                                                                \
		end(&o);                                                                           \
	}                                                                                          \
	static void suite##_##name(struct on *o)

/* --- names --- */

static int count_names(void *arg, const struct berth_dirent *e)
{
	unsigned *n = arg;

	cr_expect(e->has_attr && e->has_fh, "%s", e->name);
	(*n)++;
	return 0;
}

static int stop_at_once(void *arg, const struct berth_dirent *e)
{
	(void)arg;
	(void)e;
	return 42;
}

BOTH(names, everything_in_a_tree)
{
	struct berth *b = o->b;
	struct berth_attr a, l;
	struct berth_fh d, f, root;
	char target[BERTH_PATH_MAX];
	unsigned n = 0;
	struct berth_file *file;

	OK(berth_mkdir(b, NULL, "d", 0750, &d));
	OK(berth_mkdir(b, &d, "e", 0700, NULL));
	FAILS(berth_mkdir(b, NULL, "/d/e", 0700, NULL), EEXIST);
	OK(berth_open(b, NULL, "d/f", O_CREAT | O_RDWR, 0640, &file));
	OK(berth_pwrite(file, "hello", 5, 0, BERTH_FILE_SYNC));
	OK(berth_close(file));
	OK(berth_stat(b, NULL, "d/f", 0, &a));
	cr_expect_eq(a.type, BERTH_REG);
	cr_expect_eq(a.mode, 0640);
	cr_expect_eq(a.size, 5);
	OK(berth_lookup(b, NULL, "d/f", 0, &f, NULL));
	OK(berth_link(b, &f, &d, "g"));
	OK(berth_stat(b, &d, "g", 0, &l));
	cr_expect_eq(l.fileid, a.fileid);
	cr_expect_eq(l.nlink, 2);
	OK(berth_symlink(b, &d, "s", "../d/./f", NULL));
	cr_expect_eq(berth_readlink(b, &d, "s", target, sizeof(target)), 8);
	cr_expect_str_eq(target, "../d/./f");
	FAILS(berth_readlink(b, &d, "s", target, 8), ENAMETOOLONG);
	FAILS(berth_readlink(b, &d, "f", target, sizeof(target)), EINVAL);
	OK(berth_stat(b, &d, "s", BERTH_NOFOLLOW, &l));
	cr_expect_eq(l.type, BERTH_LNK);
	OK(berth_mknod(b, &d, "fifo", BERTH_FIFO, 0600, 0, 0, NULL));
	FAILS(berth_mknod(b, &d, "x", BERTH_REG, 0600, 0, 0, NULL), EINVAL);
	OK(berth_rename(b, &d, "g", NULL, "h"));
	FAILS(berth_stat(b, &d, "g", 0, &l), ENOENT);
	berth_root(b, &root);
	OK(berth_lookup(b, NULL, "/", 0, &f, &l));
	cr_expect(f.len == root.len && !memcmp(f.data, root.data, f.len));
	OK(berth_readdir(b, &d, true, count_names, &n));
	cr_expect_eq(n, 4, "%u", n); /* e f s fifo */
	cr_expect_eq(berth_readdir(b, &d, true, stop_at_once, NULL), 42);
	FAILS(berth_rmdir(b, NULL, "d"), ENOTEMPTY);
	FAILS(berth_unlink(b, NULL, "d"), EISDIR);
	FAILS(berth_rmdir(b, &d, "f"), ENOTDIR);
	FAILS(berth_unlink(b, &d, "none"), ENOENT);
	OK(berth_unlink(b, &d, "f"));
	OK(berth_rmdir(b, &d, "e"));
	OK(berth_stat(b, NULL, "h", 0, &l));
	cr_expect_eq(l.nlink, 1);
}

BOTH(names, links_are_followed_where_they_lead)
{
	struct berth *b = o->b;
	struct berth_attr a;
	struct berth_file *f;
	char long_name[300];

	OK(berth_mkdir(b, NULL, "a", 0755, NULL));
	OK(berth_mkdir(b, NULL, "a/b", 0755, NULL));
	OK(berth_symlink(b, NULL, "rel", "a/b", NULL));
	OK(berth_symlink(b, NULL, "abs", "/a/b", NULL));        /* the export is / */
	OK(berth_symlink(b, NULL, "a/up", "../../../a", NULL)); /* no higher than the root */
	OK(berth_symlink(b, NULL, "loop", "loop", NULL));
	OK(berth_symlink(b, NULL, "nowhere", "missing", NULL));
	OK(berth_open(b, NULL, "rel/f", O_CREAT | O_EXCL | O_RDWR, 0600, &f));
	OK(berth_close(f));
	OK(berth_stat(b, NULL, "abs/f", 0, &a));
	OK(berth_stat(b, NULL, "a/up/b/f", 0, &a));
	OK(berth_stat(b, NULL, "rel/", BERTH_NOFOLLOW, &a)); /* the directory behind it */
	cr_expect_eq(a.type, BERTH_DIR);
	OK(berth_stat(b, NULL, "a/b/../../rel/.", BERTH_NOFOLLOW, &a));
	FAILS(berth_stat(b, NULL, "loop", 0, &a), ELOOP);
	FAILS(berth_stat(b, NULL, "nowhere", 0, &a), ENOENT);
	FAILS(berth_open(b, NULL, "nowhere", O_RDONLY, 0, &f), ENOENT);
	FAILS(berth_open(b, NULL, "loop", O_RDONLY | O_NOFOLLOW, 0, &f), ELOOP);
	FAILS(berth_stat(b, NULL, "rel/f/x", 0, &a), ENOTDIR);
	FAILS(berth_open(b, NULL, "a", O_RDONLY, 0, &f), EISDIR);
	FAILS(berth_open(b, NULL, "a/b/f", O_CREAT | O_EXCL, 0600, &f), EEXIST);
	memset(long_name, 'n', sizeof(long_name));
	long_name[255] = '\0';
	OK(berth_mkdir(b, NULL, long_name, 0700, NULL));
	OK(berth_rmdir(b, NULL, long_name));
	long_name[255] = 'n';
	long_name[256] = '\0';
	FAILS(berth_mkdir(b, NULL, long_name, 0700, NULL), ENAMETOOLONG);
}

BOTH(names, exclusive_files_have_the_mode_asked_for)
{
	struct berth_attr a;
	struct berth_file *f;
	time_t now = time(NULL);

	OK(berth_open(o->b, NULL, "x", O_CREAT | O_EXCL | O_RDWR, 0604, &f));
	OK(berth_fstat(f, &a));
	cr_expect_eq(a.mode, 0604);
	cr_expect(a.mtime.tv_sec >= now - 5 && a.mtime.tv_sec <= now + 60, "the verifier shows");
	OK(berth_close(f));
}

BOTH(names, attributes_are_set)
{
	struct berth_set set = { .set = BERTH_SET_MODE | BERTH_SET_UID | BERTH_SET_GID |
		                        BERTH_SET_SIZE | BERTH_SET_ATIME | BERTH_SET_MTIME,
		                 .mode = 01741,
		                 .uid = 12,
		                 .gid = 34,
		                 .size = 1234567,
		                 .atime = { 1, 2 },
		                 .mtime = { 4000000000, 999999999 } };
	struct berth_statfs fs;
	struct berth_attr a;
	struct berth_file *f;
	uint32_t granted;
	uint64_t ns = 0;

	OK(berth_open(o->b, NULL, "f", O_CREAT | O_RDWR, 0600, &f));
	OK(berth_close(f));
	OK(berth_setattr(o->b, NULL, "f", 0, &set));
	OK(berth_stat(o->b, NULL, "f", 0, &a));
	cr_expect_eq(a.mode, 01741);
	cr_expect(a.uid == 12 && a.gid == 34);
	cr_expect_eq(a.size, 1234567);
	cr_expect(a.atime.tv_sec == 1 && a.atime.tv_nsec == 2);
	cr_expect(a.mtime.tv_sec == 4000000000 && a.mtime.tv_nsec == 999999999);
	OK(berth_truncate(o->b, NULL, "f", 3));
	OK(berth_stat(o->b, NULL, "f", 0, &a));
	cr_expect_eq(a.size, 3);
	OK(berth_access(o->b, NULL, "f", 1, &granted));
	cr_expect_eq(granted, 1);
	OK(berth_statfs(o->b, NULL, "", &fs));
	cr_expect(fs.total_bytes > 100 * MIB && fs.free_bytes <= fs.total_bytes);
	OK(berth_ping(o->b, &ns));
	cr_expect_gt(ns, 0);
}

/* --- data --- */

BOTH(data, any_length_at_any_offset)
{
	static const struct {
		size_t len;
		uint64_t off;
	} cases[] = { { 1, 0 },
		      { 4095, 1 },
		      { 4097, 4095 },
		      { MIB - 1, 8191 },
		      { MIB, MIB },
		      { MIB + 1, 3 * MIB + 7 },
		      { 5 * MIB + 123, 17 },
		      { 20 * MIB, 4096 } };
	uint8_t *out = malloc(20 * MIB), *in = malloc(20 * MIB + 64);
	struct berth_file *f;
	struct berth_attr a;
	uint64_t copied;

	OK(berth_open(o->b, NULL, "f", O_CREAT | O_RDWR, 0600, &f));
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		size_t len = cases[i].len;

		fill(out, len, i);
		cr_assert_eq(berth_pwrite(f, out, len, cases[i].off,
		                          i & 1 ? BERTH_UNSTABLE : BERTH_FILE_SYNC),
		             (ssize_t)len);
		memset(in, 0xee, len);
		cr_assert_eq(berth_pread(f, in, len, cases[i].off), (ssize_t)len);
		cr_assert_eq(memcmp(in, out, len), 0, "case %u", i);
	}
	OK(berth_commit(f));
	OK(berth_fstat(f, &a));
	cr_expect_eq(a.size, 20 * MIB + 4096);
	memset(in, 0xee, 64);
	cr_expect_eq(berth_pread(f, in, 64, a.size - 10), 10);
	cr_expect_eq(in[10], 0xee);
	cr_expect_eq(berth_pread(f, in, 20 * MIB, a.size - 5 * MIB), 5 * MIB);
	cr_expect_eq(berth_pread(f, in, 64, a.size), 0);
	cr_expect_eq(berth_pread(f, in, 64, a.size + MIB), 0);
	cr_expect_eq(berth_pread(f, in, 0, 0), 0);
	OK(berth_ftruncate(f, 100));
	cr_expect_eq(berth_pread(f, in, 64, 90), 10);
	OK(berth_close(f));
	copied = daemon_counter(&o->d, "payload_copied_bytes");
	cr_expect_eq(copied, 0);
	free(out);
	free(in);
}

BOTH(data, holes_read_as_zeros)
{
	static uint8_t in[3 * 4096], zero[3 * 4096];
	struct berth_file *f;

	OK(berth_open(o->b, NULL, "f", O_CREAT | O_RDWR, 0600, &f));
	cr_assert_eq(berth_pwrite(f, "x", 1, 10 * MIB, BERTH_FILE_SYNC), 1);
	memset(in, 1, sizeof(in));
	cr_assert_eq(berth_pread(f, in, sizeof(in), 5 * MIB + 1), (ssize_t)sizeof(in));
	cr_expect_eq(memcmp(in, zero, sizeof(in)), 0);
	OK(berth_close(f));
}

BOTH(data, registered_buffers)
{
	uint8_t *buf = aligned_alloc(4096, 4 * MIB);
	struct berth_file *f;
	struct berth_mr *mr;

	fill(buf, 2 * MIB, 5);
	OK(berth_register(o->b, buf, 4 * MIB, &mr));
	OK(berth_open(o->b, NULL, "f", O_CREAT | O_RDWR, 0600, &f));
	cr_assert_eq(berth_pwrite(f, buf, 2 * MIB, 3, BERTH_FILE_SYNC), 2 * MIB);
	cr_assert_eq(berth_pread(f, buf + 2 * MIB, 2 * MIB, 3), 2 * MIB);
	cr_expect_eq(memcmp(buf, buf + 2 * MIB, 2 * MIB), 0);
	berth_unregister(o->b, mr);
	OK(berth_close(f));
	free(buf);
}

/* --- asynchronous --- */

struct many {
	unsigned done, wrong, nested;
	struct berth *b;
};

static void one_more(void *arg, int err, const struct berth_reply *r)
{
	struct many *m = arg;
	struct berth_attr a;

	(void)r;
	m->done++;
	m->wrong += err != 0;
	m->nested += berth_stat(m->b, NULL, "", 0, &a) != -EDEADLK;
	if (m->done == 1 && berth_start_null(m->b, one_more, m)) /* a callback may start another */
		m->wrong++;
}

BOTH(async, hundreds_in_flight_by_the_descriptor)
{
	struct many m = { .b = o->b };
	struct berth_fh root;

	berth_root(o->b, &root);
	for (unsigned i = 0; i < 300; i++)
		OK(berth_start_getattr(o->b, &root, one_more, &m));
	cr_expect_eq(m.done, 0, "called back before the start function returned to the loop");
	cr_expect_eq(berth_in_flight(o->b), 300);
	while (berth_in_flight(o->b)) {
		struct pollfd p = { .fd = berth_fd(o->b), .events = POLLIN };
		int timeout;

		if (!berth_before_poll(o->b, &timeout))
			poll(&p, 1, timeout);
		berth_progress(o->b);
	}
	cr_expect_eq(m.done, 301);
	cr_expect_eq(m.wrong, 0);
	cr_expect_eq(m.nested, 0, "a synchronous call in a callback was not refused");
}

BOTH(async, disconnecting_cancels)
{
	struct many m = { .b = o->b };
	struct berth_fh root;

	berth_root(o->b, &root);
	for (unsigned i = 0; i < 50; i++)
		OK(berth_start_getattr(o->b, &root, one_more, &m));
	berth_disconnect(o->b);
	cr_expect_eq(m.done, 51);
	o->b = NULL;
}

BOTH(async, bad_arguments_start_nothing)
{
	struct many m = { .b = o->b };
	struct berth_fh root;
	char buf[16];

	berth_root(o->b, &root);
	FAILS(berth_start_lookup(o->b, &root, "a/b", one_more, &m), EINVAL);
	FAILS(berth_start_lookup(o->b, &root, "", one_more, &m), EINVAL);
	FAILS(berth_start_read(o->b, &root, 0, buf, 0, one_more, &m), EINVAL);
	FAILS(berth_start_read(o->b, &root, 0, buf, berth_io_max(o->b) + 1, one_more, &m), EINVAL);
	cr_expect_eq(berth_in_flight(o->b), 0);
}

/* --- sessions --- */

Test(session, urls_are_resolved_within_the_export)
{
	struct berth_error why = { { 0 } };
	char url[160], *path;
	struct berth *b;
	struct on o;

	begin(&o, false);
	snprintf(url, sizeof(url), "%s/some/where?uid=0", o.d.tcp_url);
	OK(berth_connect(url, NULL, &b, &why));
	cr_expect_str_eq(berth_export_path(b), "/");
	cr_expect_str_eq(berth_url_path(b), "some/where");
	snprintf(url, sizeof(url), "%s//else", o.d.tcp_url);
	OK(berth_resolve(b, url, &path, NULL));
	cr_expect_str_eq(path, "else");
	free(path);
	FAILS(berth_resolve(b, "berth+tcp://127.0.0.1:1/else", &path, &why), EXDEV);
	snprintf(url, sizeof(url), "%s/else", o.d.shm_url);
	FAILS(berth_resolve(b, url, &path, &why), EXDEV);
	berth_disconnect(b);
	end(&o);
}

Test(session, an_export_that_is_not_there_is_named)
{
	struct daemon d = { 0 };
	struct berth_error why = { { 0 } };
	struct berth *b;
	char url[160];

	setenv("FI_PROVIDER", "tcp,shm", 0);
	daemon_start(&d, &(struct daemon_opts){ .exports = "/only 127.0.0.0/8(rw,insecure)\n" });
	snprintf(url, sizeof(url), "%s/other/x", d.tcp_url);
	FAILS(berth_connect(url, NULL, &b, &why), ENOENT);
	cr_expect_not_null(strstr(why.text, "/other/x"), "%s", why.text);
	cr_expect_not_null(strstr(why.text, "/only"), "%s", why.text);
	daemon_remove(&d);
}

Test(session, credentials_decide)
{
	struct berth_attr a;
	struct berth_fh d;
	struct on o;

	begin(&o, false);
	OK(berth_mkdir(o.b, NULL, "private", 0700, &d));
	OK(berth_mkdir(o.b, &d, "x", 0755, NULL));
	berth_set_cred(o.b, 1234, 1234, 0, NULL);
	FAILS(berth_stat(o.b, NULL, "private/x", 0, &a), EACCES);
	FAILS(berth_mkdir(o.b, &d, "y", 0755, NULL), EACCES);
	berth_set_cred(o.b, 0, 0, 0, NULL);
	OK(berth_stat(o.b, NULL, "private/x", 0, &a));
	end(&o);
}

/* --- the server goes away --- */

static void bridges_outage(bool shm)
{
	uint8_t *buf = malloc(MIB), *in = malloc(MIB);
	struct berth_counters c;
	struct berth_attr a;
	struct berth_file *f;
	struct berth_mr *mr;
	struct on o;

	begin(&o, shm);
	fill(buf, MIB, 9);
	OK(berth_register(o.b, buf, MIB, &mr));
	OK(berth_open(o.b, NULL, "f", O_CREAT | O_RDWR, 0600, &f));
	cr_assert_eq(berth_pwrite(f, buf, MIB, 0, BERTH_FILE_SYNC), MIB);
	daemon_kill(&o.d);
	daemon_launch(&o.d);
	cr_assert_eq(berth_pread(f, in, MIB, 0), MIB, "%s", berth_why(o.b)); /* the old handle */
	cr_expect_eq(memcmp(buf, in, MIB), 0);
	cr_assert_eq(berth_pwrite(f, buf, MIB, MIB, BERTH_FILE_SYNC), MIB); /* registered anew */
	OK(berth_stat(o.b, NULL, "f", 0, &a));
	cr_expect_eq(a.size, 2 * MIB);
	berth_get_counters(o.b, &c);
	cr_expect_eq(c.reconnects, 1);
	OK(berth_close(f));
	end(&o);
	free(buf);
	free(in);
}

Test(outage, files_live_on_over_tcp)
{
	bridges_outage(false);
}

Test(outage, files_live_on_over_shm)
{
	bridges_outage(true);
}

Test(outage, ends_in_an_error_after_the_time_allowed)
{
	struct berth_opts opts = { .reconnect_ms = 200 };
	struct berth_error why = { { 0 } };
	struct berth_attr a;
	char url[128];
	struct on o;

	begin(&o, false);
	berth_disconnect(o.b);
	snprintf(url, sizeof(url), "%s/", o.d.tcp_url);
	OK(berth_connect(url, &opts, &o.b, &why));
	daemon_kill(&o.d);
	FAILS(berth_stat(o.b, NULL, "", 0, &a), ETIMEDOUT);
	cr_expect_neq(*berth_why(o.b), '\0');
	daemon_launch(&o.d);
	OK(berth_stat(o.b, NULL, "", 0, &a)); /* the session is not spoilt */
	end(&o);
}

/* F1 of file.c. The server honours UNSTABLE and promises nothing, so that a restart really loses.
 */
Test(outage, unstable_data_is_written_again)
{
	static const char *const set[] = { "nfs.stability=honor", "server.persistence=volatile",
		                           NULL };
	uint8_t *buf = malloc(4 * MIB), *in = malloc(4 * MIB);
	struct berth_counters c;
	struct berth_file *f;
	struct daemon d = { 0 };
	struct berth *b;

	setenv("FI_PROVIDER", "tcp,shm", 0);
	daemon_start(&d, &(struct daemon_opts){ .set = set });
	b = session(&d, false);
	fill(buf, 4 * MIB, 3);
	OK(berth_open(b, NULL, "f", O_CREAT | O_RDWR, 0600, &f));
	cr_assert_eq(berth_pwrite(f, in, MIB, MIB, BERTH_UNSTABLE), MIB); /* covered by the next */
	cr_assert_eq(berth_pwrite(f, buf, 4 * MIB, 0, BERTH_UNSTABLE), 4 * MIB);
	daemon_kill(&d);
	daemon_launch(&d);
	OK(berth_commit(f));
	berth_get_counters(b, &c);
	cr_expect_eq(c.resent_unstable_bytes, 4 * MIB);
	cr_assert_eq(berth_pread(f, in, 4 * MIB, 0), 4 * MIB);
	cr_expect_eq(memcmp(buf, in, 4 * MIB), 0);
	OK(berth_commit(f)); /* nothing is left */
	berth_get_counters(b, &c);
	cr_expect_eq(c.resent_unstable_bytes, 4 * MIB);
	OK(berth_close(f));
	berth_disconnect(b);
	daemon_remove(&d);
	free(buf);
	free(in);
}

/* --- the command --- */

/* A tree with everything in it, there, between two exports' paths, and back. */
Test(command, trees_survive_the_round_trip)
{
	char berth[512], dir[] = "/dev/shm/berth-cp-XXXXXX";
	struct on o;

	begin(&o, false);
	cr_assert_not_null(mkdtemp(dir));
	built("berth", berth);
	cr_assert_eq(
		shell("cd %s && mkdir -p t/d/e t/ro && printf 'a' > t/one && ln t/one t/d/two && "
	              "ln -s ../one t/d/sym && ln -s nowhere t/dangling && : > t/empty && "
	              "truncate -s 5M t/sparse && printf end >> t/sparse && "
	              "head -c 3000001 /dev/urandom > t/big && mkfifo t/fifo && "
	              "printf x > \"t/$(printf 'new\\nline \\377 %%%%')\" && chmod 4751 t/big && "
	              "chmod 0400 t/one && touch -d '2001-02-03 04:05:06.123456789' t/d t/big && "
	              "touch -h -d '2002-03-04 05:06:07.5' t/d/sym && chmod 0555 t/ro",
	              dir),
		0);
	cr_assert_eq(shell("%s cp -rp %s/t %s/t", berth, dir, o.d.tcp_url), 0);
	cr_assert_eq(shell("%s cp -rp %s/t %s/t2", berth, o.d.tcp_url, o.d.shm_url), 0);
	cr_assert_eq(shell("%s cp -rp %s/t2 %s/back", berth, o.d.shm_url, dir), 0);
	cr_expect_eq(shell("cd %s && diff -r -x fifo --no-dereference t back", dir), 0);
	cr_expect_eq(
		shell("cd %s && l() { (cd $1; find . -type d -printf '%%p %%m %%T@\\n'; find . "
	              "! -type d -printf '%%p %%y %%m %%n %%s %%T@ %%l\\n') | LC_ALL=C sort; }; "
	              "l t > l1; l back > l2; cmp l1 l2",
	              dir),
		0);
	cr_expect_eq(shell("[ $(stat -c %%b %s/back/sparse) -lt 1000 ]", dir), 0, "holes are gone");
	cr_expect_eq(shell("%s cp -r %s/t %s/t", berth, dir, o.d.tcp_url),
	             0); /* into the directory */
	cr_expect_eq(shell("%s stat %s/t/t/d/two > /dev/null", berth, o.d.tcp_url), 0);
	cr_expect_eq(shell("%s cp %s/none %s/x 2> /dev/null", berth, dir, o.d.tcp_url), 1);
	cr_expect_eq(
		shell("%s cp %s/t/big %s/t2/big 2> /dev/null", berth, o.d.tcp_url, o.d.tcp_url), 0);
	cr_expect_eq(shell("%s cp %s/t/big %s/t/big 2> /dev/null", berth, o.d.tcp_url, o.d.tcp_url),
	             1, "a file was copied onto itself");
	cr_expect_eq(shell("%s cat %s/t/big | cmp - %s/t/big", berth, o.d.shm_url, dir), 0);
	cr_expect_eq(shell("%s rm -r %s/t %s/t2", berth, o.d.tcp_url, o.d.tcp_url), 0);
	cr_expect_eq(shell("[ -z \"$(%s ls -a %s/)\" ]", berth, o.d.tcp_url), 0);
	shell("rm -rf %s", dir);
	end(&o);
}

Test(command, everyday_use)
{
	char berth[512];
	struct on o;
	const char *u;

	begin(&o, false);
	built("berth", berth);
	u = o.d.tcp_url;
	cr_expect_eq(shell("%s mkdir -p %s/a/b/c && %s mkdir -p %s/a/b/c", berth, u, berth, u), 0);
	cr_expect_eq(shell("%s touch %s/a/f && %s chmod 640 %s/a/f", berth, u, berth, u), 0);
	cr_expect_eq(shell("%s truncate -s 10K %s/a/f", berth, u), 0);
	cr_expect_eq(shell("%s ls -l %s/a | grep -q '^-rw-r-----.* 10240 .* f$'", berth, u), 0);
	cr_expect_eq(shell("%s ln %s/a/f %s/a/g && %s ln -s f %s/a/s", berth, u, u, berth, u), 0);
	cr_expect_eq(shell("[ \"$(%s readlink %s/a/s)\" = f ]", berth, u), 0);
	cr_expect_eq(
		shell("%s mv %s/a/f %s/a/b && %s stat %s/a/b/f > /dev/null", berth, u, u, berth, u),
		0);
	cr_expect_eq(shell("%s ls --json -R %s/ | grep -q '\"name\": \"f\"'", berth, u), 0);
	cr_expect_eq(shell("%s stat --json %s/a/b/f | grep -q '\"nlink\": 2'", berth, u), 0);
	cr_expect_eq(shell("%s df %s/ > /dev/null && %s ping -c 2 -i 0 %s/ > /dev/null", berth, u,
	                   berth, u),
	             0);
	cr_expect_eq(shell("%s rm %s/a 2> /dev/null", berth, u), 1);
	cr_expect_eq(shell("%s rm %s/none 2> /dev/null", berth, u), 1);
	cr_expect_eq(shell("%s rm -f %s/none", berth, u), 0);
	cr_expect_eq(shell("%s rmdir %s/a 2> /dev/null", berth, u), 1);
	cr_expect_eq(shell("%s ls %s/none 2> /dev/null", berth, u), 1);
	cr_expect_eq(shell("%s rm -r %s/a && %s df -h --json %s/ > /dev/null", berth, u, berth, u),
	             0);
	end(&o);
}
