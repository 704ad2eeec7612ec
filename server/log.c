/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * log.c - one line per event on stderr
 *
 * Under systemd (JOURNAL_STREAM is set) each line starts with its syslog level as sd-daemon(3) wants
 * it; on a terminal the program's name does.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "server/server.h"

void log_text(void *unused, int priority, const char *text)
{
	static const char *const word[] = { "emergency: ", "alert: ", "critical: ", "error: ",
					    "warning: ",   "",	      "",	    "debug: " };
	char line[1400];
	int n;

	(void)unused;
	priority &= 7;
	if (getenv("JOURNAL_STREAM"))
		n = snprintf(line, sizeof(line), "<%d>%s\n", priority, text);
	else
		n = snprintf(line, sizeof(line), "berthd: %s%s\n", word[priority], text);
	if (n < 0)
		return;
	if ((size_t)n >= sizeof(line)) {
		n = sizeof(line) - 1;
		line[n - 1] = '\n';
	}
	if (write(STDERR_FILENO, line, (size_t)n) < 0) {
		/* nobody is left to tell */
	}
}

void log_msg(int priority, const char *fmt, ...)
{
	char text[1200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_text(NULL, priority, text);
}
