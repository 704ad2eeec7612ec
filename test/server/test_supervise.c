/* SPDX-License-Identifier: BSD-3-Clause */
/* supervise.c: what is started again, what is not, and what a hang looks like */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/process.h"

static unsigned *starts; /* shared with the children */

static void setup(void)
{
	starts = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

TestSuite(supervise, .init = setup, .timeout = 60);

/* Run in a child: supervise() takes over signals. Returns its exit status. */
static int supervised(int (*serve)(struct heartbeat *hb, void *arg), pid_t *out)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(supervise(serve, NULL));
	if (out) {
		*out = pid;
		return 0;
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int crash_twice(struct heartbeat *hb, void *arg)
{
	(void)arg;
	heartbeat_ready(hb);
	if (++*starts < 3)
		raise(SIGKILL);
	return 0;
}

Test(supervise, a_crashed_server_is_started_again)
{
	cr_assert_eq(supervised(crash_twice, NULL), 0);
	cr_assert_eq(*starts, 3);
}

static int refuse(struct heartbeat *hb, void *arg)
{
	(void)hb;
	(void)arg;
	++*starts;
	return 2;
}

Test(supervise, a_server_that_never_got_ready_is_not)
{
	cr_assert_eq(supervised(refuse, NULL), 2);
	cr_assert_eq(*starts, 1);
}

static int hang_once(struct heartbeat *hb, void *arg)
{
	(void)arg;
	signal(SIGABRT, SIG_DFL);
	heartbeat_ready(hb);
	heartbeat_busy(hb, 3);
	if (++*starts == 1)
		pause(); /* holding an event, getting nowhere */
	heartbeat_idle(hb, 3);
	return 0;
}

Test(supervise, a_server_that_makes_no_progress_is_ended_and_started_again)
{
	cr_assert_eq(supervised(hang_once, NULL), 0);
	cr_assert_eq(*starts, 2);
}

static int idle_for_long(struct heartbeat *hb, void *arg)
{
	(void)arg;
	++*starts;
	heartbeat_ready(hb);
	heartbeat_busy(hb, 0);
	heartbeat_idle(hb, 0);
	sleep(SUPERVISE_PATIENCE + 4);
	return 0;
}

Test(supervise, a_server_that_is_only_idle_is_left_alone)
{
	cr_assert_eq(supervised(idle_for_long, NULL), 0);
	cr_assert_eq(*starts, 1);
}

static volatile sig_atomic_t told;

static void on_term(int sig)
{
	told = sig;
}

static int until_told(struct heartbeat *hb, void *arg)
{
	sigset_t none;

	(void)arg;
	signal(SIGTERM, on_term);
	++*starts;
	heartbeat_ready(hb);
	sigemptyset(&none);
	while (!told)
		sleep(1); /* ended by the signal */
	return told == SIGTERM ? 0 : 9;
}

Test(supervise, sigterm_goes_to_the_server_and_ends_both)
{
	pid_t pid;
	int status;

	supervised(until_told, &pid);
	while (!*(volatile unsigned *)starts)
		usleep(1000);
	kill(pid, SIGTERM);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	cr_assert_eq(*starts, 1);
}

static int die_at_once(struct heartbeat *hb, void *arg)
{
	(void)arg;
	++*starts;
	heartbeat_ready(hb);
	abort();
}

Test(supervise, a_server_that_dies_at_every_start_is_given_up)
{
	cr_assert_eq(supervised(die_at_once, NULL), 1);
	cr_assert_eq(*starts, 10);
}
