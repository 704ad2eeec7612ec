/* SPDX-License-Identifier: BSD-3-Clause */
/* test_command.c - the `berth` command where no server is needed: usage, messages, exit codes, mkfs
 * and check */
#include <criterion/criterion.h>
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/lib/daemon.h"

struct ran {
	int status;
	char text[16384]; /* stdout and stderr */
};

static struct ran run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static struct ran run(const char *fmt, ...)
{
	static struct ran r;
	char args[1024], cmd[2048], path[512];
	va_list ap;
	FILE *p;
	size_t n;

	va_start(ap, fmt);
	vsnprintf(args, sizeof(args), fmt, ap);
	va_end(ap);
	snprintf(cmd, sizeof(cmd), "%s %s 2>&1", built("berth", path), args);
	p = popen(cmd, "r");
	cr_assert_not_null(p);
	n = fread(r.text, 1, sizeof(r.text) - 1, p);
	r.text[n] = '\0';
	r.status = WEXITSTATUS(pclose(p));
	return r;
}

Test(usage, mistakes_are_named)
{
	static const struct {
		const char *args, *names;
		int status;
	} cases[] = {
		{ "", "usage:", 2 },
		{ "frobnicate", "frobnicate", 2 },
		{ "-x", "-x", 2 },
		{ "ls", "which directory", 2 },
		{ "ls -z berth+tcp://h/x", "-z", 2 },
		{ "ls --nonsense berth+tcp://h/x", "--nonsense", 2 },
		{ "cp a", "source", 2 },
		{ "cp -S maybe a berth+tcp://h/x", "maybe", 2 },
		{ "cp -j 0 a berth+tcp://h/x", "-j", 2 },
		{ "mkdir -m 9 berth+tcp://h/x", "'9'", 2 },
		{ "chmod rw berth+tcp://h/x", "'rw'", 2 },
		{ "chown me berth+tcp://h/x", "'me'", 2 },
		{ "truncate berth+tcp://h/x", "-s SIZE", 2 },
		{ "mkfs", "which file", 2 },
		{ "mkfs -s lots /nowhere/x", "lots", 2 },
		{ "mkfs -U 1 /nowhere/x", "UUID", 2 },
		{ "mkfs -s", "needs a value", 2 },
		{ "ls file", "'file' is no URL", 1 },
		{ "ls berth+tpc://h/x", "tpc", 1 },
		{ "ls 'berth+tcp://h/x?colour=1'", "colour", 1 },
		{ "cp a berth://c", "berth://c", 1 },
		{ "ls berth+tcp://127.0.0.1:1/x", "127.0.0.1:1", 1 },
		{ "-s /nowhere/sock stat", "/nowhere/sock", 1 },
		{ "probe pool", "--pool names a pool", 2 },
		{ "probe --ddio maybe", "on, off or unknown", 2 },
		{ "probe --timeout 0", "1 to 3600", 2 },
		{ "probe --pool", "needs a value", 2 },
		{ "probe --pool /nowhere/pool", "/nowhere/pool: cannot be opened", 1 },
		{ "probe --pool /dev/null --json", "/dev/null", 1 },
		{ "help", "mkfs", 0 },
		{ "cp --help", "usage: berth cp", 0 },
		{ "check", "which pool", 16 },
		{ "check /nowhere/pool", "/nowhere/pool: cannot be opened: No such file or directory; `berth mkfs` makes a pool", 8 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct ran r = run("%s", cases[i].args);

		cr_expect_eq(r.status, cases[i].status, "berth %s: %d\n%s", cases[i].args, r.status,
		             r.text);
		cr_expect_not_null(strstr(r.text, cases[i].names), "berth %s: '%s' in\n%s",
		                   cases[i].args, cases[i].names, r.text);
	}
}

static char dir[] = "/dev/shm/berth-cmd-XXXXXX";

static void make_dir(void)
{
	cr_assert_not_null(mkdtemp(dir));
}

static void drop_dir(void)
{
	shell("rm -rf %s", dir);
}

Test(pool, made_checked_and_guarded, .init = make_dir, .fini = drop_dir)
{
	struct stat st;
	struct ran r;
	json_t *o;
	char path[128];

	r = run("mkfs %s/p -s 32M -L here -U 0123abcd-4567-89ef-fedc-ba9876543210", dir);
	cr_assert_eq(r.status, 0, "%s", r.text);
	snprintf(path, sizeof(path), "%s/p", dir);
	cr_assert_eq(stat(path, &st), 0);
	cr_expect_eq(st.st_size, 32 << 20);
	cr_expect(st.st_blocks >= (32 << 20) / 512, "its space is not reserved");
	r = run("check %s/p", dir);
	cr_expect_eq(r.status, 0, "%s", r.text);
	cr_expect_not_null(strstr(r.text, "clean"), "%s", r.text);
	r = run("check --json %s/p", dir);
	o = json_loads(r.text, 0, NULL);
	cr_assert_not_null(o, "%s", r.text);
	cr_expect(json_is_true(json_object_get(o, "clean")));
	cr_expect_eq(json_integer_value(json_object_get(o, "directories")), 1);
	json_decref(o);
	r = run("mkfs %s/p -s 32M", dir);
	cr_expect_eq(r.status, 1, "a pool was overwritten");
	cr_expect_not_null(strstr(r.text, "force"), "%s", r.text);
	r = run("mkfs %s/p --force", dir);
	cr_expect_eq(r.status, 0, "%s", r.text);
}

Test(pool, takes_its_space_unless_told_otherwise, .init = make_dir, .fini = drop_dir)
{
	char path[128];
	struct statvfs fs;
	struct stat st;
	struct ran r;

	snprintf(path, sizeof(path), "%s/p", dir);
	cr_assert(!statvfs(dir, &fs) && fs.f_blocks, "a file system with an end");
	r = run("mkfs %s -s %lluM", path, (unsigned long long)(fs.f_blocks * fs.f_frsize >> 20) + 32);
	cr_expect_eq(r.status, 1);
	cr_expect(strstr(r.text, "are left") && strstr(r.text, "--sparse"), "%s", r.text);
	cr_expect_neq(stat(path, &st), 0, "what could not be made is left behind");
	r = run("mkfs --sparse %s -s 32M", path);
	cr_assert_eq(r.status, 0, "%s", r.text);
	cr_assert_eq(stat(path, &st), 0);
	cr_expect(st.st_blocks < (16 << 20) / 512);
	r = run("mkfs --force %s", path);
	cr_assert_eq(r.status, 0, "%s", r.text);
	cr_assert_eq(stat(path, &st), 0);
	cr_expect(st.st_blocks >= (32 << 20) / 512);
	r = run("mkfs %s/q -s 1K", dir);
	cr_expect(strstr(r.text, "1024 bytes are too few; a pool has 16 MiB"), "%s", r.text);
}

Test(pool, damage_is_told_by_the_exit_code, .init = make_dir, .fini = drop_dir)
{
	struct ran r = run("mkfs %s/p -s 32M", dir);

	cr_assert_eq(r.status, 0, "%s", r.text);
	shell("dd if=/dev/urandom of=%s/p bs=4096 count=64 conv=notrunc status=none", dir);
	r = run("check %s/p", dir);
	cr_expect(r.status == 4 || r.status == 8, "%d %s", r.status, r.text);
	r = run("check --json %s/p", dir);
	cr_expect(r.status == 4 || r.status == 8, "%d", r.status);
	cr_expect_not_null(strstr(r.text, "\"clean\": false"), "%s", r.text);
}

/* The control socket's answer, from a server that says what we like. */
static pid_t play_server(const char *answer, char path[128])
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	pid_t pid;

	snprintf(path, 128, "%s/sock", dir);
	strcpy(un.sun_path, path);
	cr_assert_eq(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	cr_assert_eq(listen(fd, 4), 0);
	pid = fork();
	if (!pid) {
		char line[16] = "";
		int c = accept(fd, NULL, NULL);

		if (read(c, line, sizeof(line) - 1) == 5 && !strcmp(line, "stat\n") &&
		    write(c, answer, strlen(answer)) < 0)
			_exit(1);
		_exit(0);
	}
	close(fd);
	return pid;
}

static const char answer[] =
	"{\"pid\": 7, \"counters\": {\"payload_copied_bytes\": 0, \"drains\": 12345}, \"calls\": "
	"{\"tcp\": {\"nfs3.WRITE\": {\"count\": 3, \"errors\": 1, \"mean_ns\": 2000, "
	"\"latency_log2_ns\": [0, 3]}}}}";

Test(server_stat, readable_and_raw, .init = make_dir, .fini = drop_dir)
{
	char path[128];
	struct ran r;
	json_t *o;
	pid_t pid = play_server(answer, path);

	r = run("-s %s stat", path);
	waitpid(pid, NULL, 0);
	cr_expect_eq(r.status, 0, "%s", r.text);
	cr_expect_not_null(strstr(r.text, "drains"), "%s", r.text);
	cr_expect_not_null(strstr(r.text, "12345"), "%s", r.text);
	cr_expect_not_null(strstr(r.text, "nfs3.WRITE"), "%s", r.text);
	unlink(path);
	pid = play_server(answer, path);
	r = run("stat -s %s --json", path);
	waitpid(pid, NULL, 0);
	o = json_loads(r.text, 0, NULL);
	cr_assert_not_null(o, "%s", r.text);
	cr_expect_eq(json_integer_value(json_object_get(json_object_get(o, "counters"), "drains")),
	             12345);
	json_decref(o);
}

Test(server_stat, nonsense_is_refused, .init = make_dir, .fini = drop_dir)
{
	char path[128];
	pid_t pid = play_server("{\"half\": ", path);
	struct ran r = run("-s %s stat --json", path);

	waitpid(pid, NULL, 0);
	cr_expect_eq(r.status, 1);
	cr_expect_not_null(strstr(r.text, "no JSON"), "%s", r.text);
}
