/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * progress.c - a bar on stderr while bytes move: done, rate, and how long still
 */
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "client/cmd/cmd.h"

#define REDRAW_MS 200

static uint64_t clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void progress_begin(struct progress *p, bool wanted)
{
	p->on = wanted && isatty(2);
	p->began = p->drawn = clock_ms();
}

static void format_eta(char *buf, size_t size, uint64_t sec)
{
	if (sec >= 360000)
		snprintf(buf, size, "long");
	else if (sec >= 3600)
		snprintf(buf, size, "%u:%02u:%02u", (unsigned)(sec / 3600),
		         (unsigned)(sec / 60 % 60), (unsigned)(sec % 60));
	else
		snprintf(buf, size, "%u:%02u", (unsigned)(sec / 60), (unsigned)(sec % 60));
}

void progress_text(char *buf, size_t size, uint64_t bytes, uint64_t total, bool complete,
                   uint64_t ms, unsigned columns)
{
	uint64_t rate = ms ? bytes * 1000 / ms : 0;
	char done[16], all[16], speed[16], eta[16] = "-:--", tail[96];
	unsigned bar, full, percent = total ? (unsigned)((double)bytes * 100 / (double)total) : 0;
	size_t at;

	if (percent > 100)
		percent = 100;
	format_size(bytes, done);
	format_size(total, all);
	format_size(rate, speed);
	if (complete && rate && total >= bytes)
		format_eta(eta, sizeof(eta), (total - bytes) / rate);
	snprintf(tail, sizeof(tail), " %3u%% %s of %s%s, %s/s, ETA %s", percent, done,
	         complete ? "" : "at least ", all, speed, eta);
	at = strlen(tail);
	bar = columns > at + 12 ? columns - (unsigned)at - 3 : 0;
	if (bar > 50)
		bar = 50;
	full = bar * percent / 100;
	at = 0;
	if (bar && size > bar + 2) {
		buf[at++] = '[';
		for (unsigned i = 0; i < bar; i++)
			buf[at++] = i < full ? '#' : '.';
		buf[at++] = ']';
	}
	snprintf(buf + at, size - at, "%s", tail);
}

void progress_draw(struct progress *p, bool now)
{
	struct winsize ws = { .ws_col = 80 };
	char text[256];
	uint64_t at = clock_ms();

	if (!p->on || (!now && at - p->drawn < REDRAW_MS))
		return;
	p->drawn = at;
	ioctl(2, TIOCGWINSZ, &ws);
	progress_text(text, sizeof(text), p->bytes, p->total, p->complete, at - p->began,
	              ws.ws_col ? ws.ws_col : 80);
	fprintf(stderr, "\r%s\033[K", text);
}

void progress_end(struct progress *p)
{
	if (!p->on)
		return;
	progress_draw(p, true);
	fputc('\n', stderr);
	p->on = false;
}
