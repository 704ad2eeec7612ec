/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * SIGTERM while clients are stuck: one has sent half a request, one takes no replies, one stopped in the midst of its RMA. They
 * keep calls in progress for ever; berthd ends in its time all the same, and the pool is closed clean.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/nfs3.h"
#include "test/lib/onesided.h"

TestSuite(stop, .timeout = 100);

enum { MIB = 1 << 20, CALLS = 48 };

static struct daemon d;
static struct berth_fh fh;
static uint8_t buf[MIB];

/* --- clients of sockets ---------------------------------------------------------------------------------- */

static int dial(void)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons((uint16_t)d.port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0), small = 4096;

	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	cr_assert_eq(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0, "%s", strerror(errno));
	return fd;
}

/* A READ or a WRITE of the first MiB, FILE_SYNC: of the call @head bytes at most are sent, then @payload. */
static void send_call(int fd, uint32_t proc, size_t head, size_t payload)
{
	static const uint32_t cred[] = { AUTH_SYS, 20, 0, 0, 0, 0, 0, AUTH_NONE, 0 };
	uint32_t w[64], n = 1;
	size_t len;

	memset(w, 0, sizeof(w));
	for (const uint32_t *p = (const uint32_t[]){ 7, CALL, 2, NFS3_PROGRAM, 3, proc }, *end = p + 6; p < end; p++)
		w[n++] = htonl(*p);
	for (unsigned i = 0; i < sizeof(cred) / 4; i++)
		w[n++] = htonl(cred[i]);
	w[n++] = htonl(fh.len);
	memcpy(w + n, fh.data, fh.len);
	n += (fh.len + 3) / 4 + 2; /* offset 0 */
	w[n++] = htonl(MIB);
	if (proc == NFSPROC3_WRITE) {
		w[n++] = htonl(FILE_SYNC);
		w[n++] = htonl(MIB);
	}
	w[0] = htonl(0x80000000u | (n * 4 - 4 + (proc == NFSPROC3_WRITE ? MIB : 0)));
	len = n * 4 < head ? n * 4 : head;
	cr_assert_eq(send(fd, w, len, MSG_NOSIGNAL), (ssize_t)len);
	if (payload)
		cr_assert_eq(send(fd, buf, payload, MSG_NOSIGNAL), (ssize_t)payload);
}

/* --- a client of a fabric -------------------------------------------------------------------------------- */

static void answered(void *arg, int err, const struct berth_reply *r)
{
	unsigned *n = arg;

	(void)r;
	*n += !err;
}

/* Stops with calls on their way in both directions, for ever. */
static void stops_amid_calls(const char *url)
{
	struct berth *b = os_session(url);
	uint8_t *mem = malloc((size_t)CALLS * MIB);
	unsigned n = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned i = 0; i < CALLS; i++) {
		int err = i % 2 ? berth_start_read(b, &fh, 0, mem + (size_t)i * MIB, MIB, answered, &n)
				: berth_start_write(b, &fh, 0, mem + (size_t)i * MIB, MIB, BERTH_FILE_SYNC, answered, &n);

		if (err)
			_exit(1);
	}
	while (!n)
		berth_wait(b, -1);
	raise(SIGSTOP);
	_exit(2);
}

static pid_t start_stuck(const char *url)
{
	pid_t pid = fork();
	int status;

	if (!pid)
		stops_amid_calls(url);
	cr_assert_eq(waitpid(pid, &status, WUNTRACED), pid);
	cr_assert(WIFSTOPPED(status), "0x%x", status);
	return pid;
}

/* --- the server ------------------------------------------------------------------------------------------ */

static void start(const struct daemon_opts *opts)
{
	struct berth *b;

	daemon_start(&d, opts);
	b = os_session(d.tcp_url);
	fh = os_make(b, "file", buf, sizeof(buf));
	berth_disconnect(b);
}

/* It says "stopped" only if the pool is closed clean. */
static void ends_clean(void)
{
	daemon_stop(&d);
	cr_expect_eq(shell("grep -q ': stopped$' %s", d.log), 0);
	cr_expect_neq(shell("grep 'could not be closed clean' %s", d.log), 0);
	daemon_launch(&d);
	cr_expect_eq(shell("grep -q 'closed clean before' %s", d.log), 0);
	daemon_remove(&d);
}

static void stuck_on_sockets(const struct daemon_opts *opts)
{
	int fd[4];

	start(opts);
	for (int i = 0; i < 4; i++)
		fd[i] = dial();
	send_call(fd[0], NFSPROC3_WRITE, 60, 0);      /* half its header */
	send_call(fd[1], NFSPROC3_WRITE, 1000, MIB / 2);  /* half its payload */
	for (int i = 0; i < 30; i++)
		send_call(fd[2], NFSPROC3_READ, 1000, 0); /* no reply is taken */
	send_call(fd[3], NFSPROC3_READ, 1000, 0);
	cr_assert_eq(recv(fd[3], buf, sizeof(buf), MSG_WAITALL), sizeof(buf)); /* those before it have arrived */
	ends_clean();
	for (int i = 0; i < 4; i++)
		close(fd[i]);
}

Test(stop, clients_of_sockets_that_are_stuck)
{
	stuck_on_sockets(NULL);
}

Test(stop, clients_of_sockets_that_are_stuck_and_a_pool_flushed_by_msync)
{
	stuck_on_sockets(&(struct daemon_opts){ .msync = true, .workers = 2 });
}

Test(stop, a_client_of_fabric_tcp_that_is_stopped_amid_calls)
{
	pid_t pid;

	start(NULL);
	pid = start_stuck(d.tcp_url);
	ends_clean();
	kill(pid, SIGKILL);
}

Test(stop, a_client_of_shm_that_is_stopped_amid_calls)
{
	pid_t pid;

	start(NULL);
	pid = start_stuck(d.shm_url);
	ends_clean();
	kill(pid, SIGKILL);
}
