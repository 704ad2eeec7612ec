/* SPDX-License-Identifier: BSD-3-Clause */
/* daemon.c - start, stop, kill and ask a berthd */
#include "test/lib/daemon.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <libgen.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

const char *built(const char *name, char buf[512])
{
	const char *other = getenv("BERTH_PROGRAMS"); /* another build's programs under these tests */
	char exe[400];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	if (other) {
		snprintf(buf, 512, "%s/%s", other, name);
		return buf;
	}
	cr_assert(n > 0);
	exe[n] = '\0'; /* $(B)/test/MODULE/PROGRAM */
	snprintf(buf, 512, "%s/%s", dirname(dirname(dirname(exe))), name);
	return buf;
}

int shell(const char *fmt, ...)
{
	char cmd[4096];
	va_list ap;
	int status;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	status = system(cmd);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static unsigned free_port(void)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	cr_assert(!bind(fd, (struct sockaddr *)&in, sizeof(in)) &&
		  !getsockname(fd, (struct sockaddr *)&in, &len));
	close(fd);
	return ntohs(in.sin_port);
}

void daemon_show_log(struct daemon *d)
{
	fprintf(stderr, "--- log of berthd (%s):\n", d->log);
	fflush(stderr);
	shell("tail -n 60 %s >&2", d->log);
}

static void nap(long msec)
{
	nanosleep(&(struct timespec){ msec / 1000, msec % 1000 * 1000000 }, NULL);
}

static bool answers(struct daemon *d)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	char buf[16] = "";
	bool ok;

	strcpy(sun.sun_path, d->control);
	ok = !connect(fd, (struct sockaddr *)&sun, sizeof(sun)) && write(fd, "ping\n", 5) == 5 &&
	     read(fd, buf, sizeof(buf) - 1) > 0 && !strcmp(buf, "pong\n");
	close(fd);
	return ok;
}

static void exec_daemon(struct daemon *d)
{
	char path[512], text[24][160];
	char *argv[64];
	int n = 0, t = 0, fd = open(d->log, O_WRONLY | O_CREAT | O_APPEND, 0600);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(fd, 1);
	dup2(fd, 2);
	if (!d->opts.msync)
		setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE", 1);
	else
		unsetenv("PMEM2_FORCE_GRANULARITY");
	argv[n++] = (char *)(uintptr_t)built("berthd", path);
#define SET(...) (snprintf(text[t], sizeof(text[t]), __VA_ARGS__), argv[n++] = (char *)"-o", argv[n++] = text[t++])
	SET("server.pool=%s", d->pool);
	SET("server.control=%s", d->control);
	SET("server.workers=%u", d->opts.workers ? d->opts.workers : 1);
	SET("server.supervise=%s", d->opts.no_supervisor ? "off" : "on");
	SET("exports.file=%s", d->exports);
	SET("nfs.port=%u", d->port);
	SET("nfs.listen=127.0.0.1");
	SET("nfs.rpcbind=off");
	if (!d->opts.no_fabric) {
		SET("fabric tcp.provider=tcp");
		SET("fabric tcp.node=127.0.0.1");
		SET("fabric tcp.service=%u", d->fabric_port);
		SET("fabric shm.provider=shm");
		SET("fabric shm.service=%s", d->shm);
	}
#undef SET
	for (const char *const *s = d->opts.set; s && *s; s++) {
		argv[n++] = (char *)"-o";
		argv[n++] = (char *)(uintptr_t)*s;
	}
	argv[n] = NULL;
	execv(argv[0], argv);
	_exit(127);
}

void daemon_launch(struct daemon *d)
{
	int status;

	d->pid = fork();
	cr_assert_geq(d->pid, 0);
	if (d->pid == 0)
		exec_daemon(d);
	for (int i = 0; i < 3000; i++) {
		if (answers(d))
			return;
		if (waitpid(d->pid, &status, WNOHANG) == d->pid) {
			daemon_show_log(d);
			d->pid = 0;
			cr_assert_fail("berthd ended with status 0x%x instead of being ready", status);
		}
		nap(10);
	}
	daemon_show_log(d);
	cr_assert_fail("berthd is not ready after 30 seconds");
}

void daemon_start(struct daemon *d, const struct daemon_opts *opts)
{
	const char *text = "/ 127.0.0.1(rw,no_root_squash,insecure) ::1(rw,no_root_squash,insecure)\n";
	char cmd[512];
	FILE *f;

	memset(d, 0, sizeof(*d));
	if (opts)
		d->opts = *opts;
	strcpy(d->dir, d->opts.msync ? "/tmp/berth-test-XXXXXX" : "/dev/shm/berth-test-XXXXXX");
	cr_assert(mkdtemp(d->dir));
	snprintf(d->pool, sizeof(d->pool), "%s/pool", d->dir);
	snprintf(d->control, sizeof(d->control), "%s/control", d->dir);
	snprintf(d->exports, sizeof(d->exports), "%s/exports", d->dir);
	snprintf(d->log, sizeof(d->log), "%s/log", d->dir);
	d->port = free_port();
	d->fabric_port = free_port();
	snprintf(d->shm, sizeof(d->shm), "t%d.%u", getpid(), d->port);
	snprintf(d->tcp_url, sizeof(d->tcp_url), "berth+tcp://127.0.0.1:%u", d->fabric_port);
	snprintf(d->shm_url, sizeof(d->shm_url), "berth+shm://%s", d->shm);
	f = fopen(d->exports, "w");
	fputs(d->opts.exports ? d->opts.exports : text, f);
	fclose(f);
	cr_assert_eq(shell("%s mkfs --sparse %s -s %llu %s >/dev/null", built("berth", cmd),
			   d->opts.checksum ? "--checksum crc32c" : "",
			   (unsigned long long)(d->opts.size ? d->opts.size : 256ull << 20), d->pool), 0);
	daemon_launch(d);
}

pid_t daemon_server_pid(struct daemon *d)
{
	char path[64], buf[32];
	FILE *f;
	pid_t pid = d->pid;

	if (d->opts.no_supervisor)
		return pid;
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", d->pid, d->pid);
	f = fopen(path, "r");
	if (f) {
		if (fgets(buf, sizeof(buf), f))
			pid = (pid_t)atoi(buf);
		fclose(f);
	}
	return pid;
}

void daemon_kill(struct daemon *d)
{
	pid_t server = daemon_server_pid(d);

	kill(d->pid, SIGKILL); /* the server follows by PR_SET_PDEATHSIG */
	waitpid(d->pid, NULL, 0);
	for (int i = 0; i < 500 && server != d->pid && !kill(server, 0); i++)
		nap(10);
	d->pid = 0;
}

void daemon_stop(struct daemon *d)
{
	int status = 0;

	kill(d->pid, SIGTERM);
	for (int i = 0; i < 2000; i++) {
		if (waitpid(d->pid, &status, WNOHANG) == d->pid) {
			d->pid = 0;
			if (status)
				daemon_show_log(d);
			cr_assert_eq(status, 0, "berthd stopped with status 0x%x", status);
			return;
		}
		nap(10);
	}
	daemon_show_log(d);
	kill(d->pid, SIGKILL);
	cr_assert_fail("berthd does not stop");
}

void daemon_check(struct daemon *d)
{
	char cmd[512];
	int status = shell("%s check %s >>%s 2>&1", built("berth", cmd), d->pool, d->log);

	if (status)
		daemon_show_log(d);
	cr_assert_eq(status, 0, "berth check: %d", status);
}

void daemon_remove(struct daemon *d)
{
	if (d->pid)
		daemon_stop(d);
	daemon_check(d);
	shell("rm -rf %s", d->dir);
}

uint64_t daemon_counter(struct daemon *d, const char *name)
{
	json_t *o, *v;
	uint64_t n;
	char cmd[1024], path[512];
	FILE *p;

	snprintf(cmd, sizeof(cmd), "%s -s %s stat --json", built("berth", path), d->control);
	p = popen(cmd, "r");
	o = json_loadf(p, 0, NULL);
	pclose(p);
	cr_assert(o, "`berth stat --json` gives no JSON");
	v = json_object_get(json_object_get(o, "counters"), name);
	cr_assert(json_is_integer(v), "no counter %s", name);
	n = (uint64_t)json_integer_value(v);
	json_decref(o);
	return n;
}
