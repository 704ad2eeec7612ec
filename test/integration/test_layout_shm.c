/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Clients over shared memory that go away, or stand still, while they have layouts: what keeps them out of other files' blocks
 * is their own clock, and what they leave behind stops nobody.
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
#include <time.h>
#include <unistd.h>

#include "test/lib/onesided.h"

#define KIB 1024u
#define MIB (1u << 20)

static const char *const shm_on[] = { "fabric tcp.layouts=on", "fabric shm.layouts=on", NULL };
static struct daemon d;
static struct berth *b; /* an honest client over fabric tcp */

static void start(void)
{
	daemon_start(&d, &(struct daemon_opts){ .size = 64 << 20, .set = shm_on });
	b = os_session(d.tcp_url);
}

static void finish(void)
{
	berth_disconnect(b);
	daemon_remove(&d);
}

static int map_own(struct berth *s, const char *name, uint64_t len, struct berth_file **f, struct berth_map **m)
{
	int err = berth_open(s, NULL, name, O_CREAT | O_RDWR, 0644, f);

	return err ? err : berth_map(*f, 0, len, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, m);
}

/* Maps, says so, and when it is told to goes on as if no time had passed. The file is gone by then, and that is what it hears. */
static void sleeper(int say, int hear)
{
	static uint8_t evil[MIB];
	struct berth_map *m;
	struct berth_file *f;
	char go = 0;
	int err;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	memset(evil, 0xee, sizeof(evil));
	err = map_own(os_session(d.shm_url), "f", MIB, &f, &m);
	if (err || berth_put(m, evil, MIB, 0, BERTH_BY_RMA) || write(say, "", 1) != 1 || read(hear, &go, 1) != 1)
		_exit(1);
	_exit(berth_put(m, evil, MIB, 0, BERTH_BY_RMA | BERTH_DURABLE) == -ESTALE ? 0 : 2);
}

/* Files of these bytes until there is no room. Returns how many. */
static unsigned fill_pool(const uint8_t *bytes)
{
	unsigned n = 0;
	char name[32];
	ssize_t put = MIB;

	while (put == MIB) {
		struct berth_file *f;

		snprintf(name, sizeof(name), "full%u", n);
		cr_assert_eq(berth_open(b, NULL, name, O_CREAT | O_RDWR, 0644, &f), 0);
		put = berth_pwrite(f, bytes, MIB, 0, BERTH_FILE_SYNC);
		cr_assert(put == MIB || put == -ENOSPC, "%zd", put);
		n += put == MIB;
		cr_assert_eq(berth_close(f), 0);
	}
	return n;
}

Test(layout_shm, a_client_that_slept_finds_its_way_barred, .init = start, .fini = finish)
{
	static uint8_t good[MIB], got[MIB];
	int said[2], heard[2], status;
	unsigned n;
	pid_t pid;
	char c;

	for (size_t i = 0; i < MIB; i++)
		good[i] = (uint8_t)(i * 13 + (i >> 12));
	cr_assert(!pipe(said) && !pipe(heard));
	pid = fork();
	if (!pid)
		sleeper(said[1], heard[0]);
	cr_assert_eq(read(said[0], &c, 1), 1);
	cr_assert_eq(berth_unlink(b, NULL, "f"), 0);
	while (daemon_counter(&d, "layouts"))
		;
	n = fill_pool(good);
	cr_assert_gt(n, 40);
	cr_assert_eq(write(heard[1], "", 1), 1);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0, "0x%x", status);
	for (unsigned i = 0; i < n; i++) {
		struct berth_file *f;
		char name[32];

		snprintf(name, sizeof(name), "full%u", i);
		cr_assert_eq(berth_open(b, NULL, name, O_RDONLY, 0, &f), 0);
		cr_assert_eq(berth_pread(f, got, MIB, 0), (ssize_t)MIB);
		cr_assert_eq(memcmp(got, good, MIB), 0, "%s", name);
		cr_assert_eq(berth_close(f), 0);
	}
}

/* Put, some of it durably, and fetch, until killed. */
static void victim(unsigned who)
{
	static uint8_t buf[64 * KIB];
	struct berth *s = os_session(d.shm_url);
	struct berth_file *f;
	struct berth_map *m;
	char name[32];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	memset(buf, (int)who, sizeof(buf));
	snprintf(name, sizeof(name), "victim%u", who % 3);
	if (map_own(s, name, MIB, &f, &m))
		_exit(1);
	for (unsigned i = 0;; i++) {
		berth_put(m, buf, sizeof(buf), i % 16 * sizeof(buf), BERTH_BY_RMA | (i % 3 ? 0 : BERTH_DURABLE));
		berth_get(m, buf, sizeof(buf), (i + 5) % 16 * sizeof(buf), BERTH_BY_RMA);
	}
}

/* One that goes on beside them, over the same endpoint, finds everything that it was promised. */
Test(layout_shm, killed_beside_one_that_goes_on, .init = start, .fini = finish, .timeout = 300)
{
	enum { ROUNDS = 20, EACH = 50, REC = 200 };
	static uint8_t log[ROUNDS * EACH * REC], got[sizeof(log)];
	struct berth *s = os_session(d.shm_url);
	unsigned seed = (unsigned)time(NULL), n = 0;
	struct berth_file *f;
	struct berth_map *m;
	int status;

	fprintf(stderr, "seed %u\n", seed);
	for (size_t i = 0; i < sizeof(log); i++)
		log[i] = (uint8_t)rand_r(&seed);
	cr_assert_eq(map_own(s, "log", sizeof(log), &f, &m), 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		pid_t pid = fork();

		if (!pid)
			victim(i);
		for (unsigned k = 0; k < EACH; k++, n++) {
			int err = berth_put(m, log + n * REC, REC, n * REC, BERTH_DURABLE | BERTH_BY_RMA);

			cr_assert_eq(err, 0, "record %u: %s: %s", n, strerror(-err), berth_why(s));
			usleep((useconds_t)rand_r(&seed) % 4000);
		}
		kill(pid, SIGKILL);
		cr_assert(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status), "it ended by itself: 0x%x", status);
	}
	cr_assert_eq(berth_unmap(m), 0);
	cr_assert_eq(berth_close(f), 0);
	berth_disconnect(s);
	cr_assert_eq(berth_open(b, NULL, "log", O_RDONLY, 0, &f), 0);
	cr_assert_eq(berth_pread(f, got, sizeof(got), 0), (ssize_t)sizeof(got));
	cr_assert_eq(memcmp(got, log, sizeof(log)), 0);
	cr_assert_eq(berth_close(f), 0);
	while (daemon_counter(&d, "layouts") || daemon_counter(&d, "fresh_blocks"))
		;
	fprintf(stderr, "endpoint made anew %lu times\n", (unsigned long)daemon_counter(&d, "provider_resets"));
}
