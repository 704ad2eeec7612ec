/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * example-log.c - an append-only log on a Berth server whose records survive power failure, written one-sided
 *
 *     cc -o example-log example-log.c -lberth
 *     some-program | ./example-log berth+tcp://store1/scratch/app.log append
 *     ./example-log berth+tcp://store1/scratch/app.log print
 *
 * Each line of the input is a record. "append" prints its number once it is durable: whoever has read the number will
 * find the record, whatever happened to program or server since. A record torn by a crash has a wrong sum.
 */
#include <berth.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_MAX  (16u << 20) /* bytes of the log */
#define TEXT_MAX 4000u
struct record {
	uint32_t len; /* of text; never 0 */
	uint32_t sum;
	char text[TEXT_MAX];
};

static uint32_t sum_of(const struct record *r)
{
	uint32_t h = 2166136261u ^ r->len;

	for (uint32_t i = 0; i < r->len; i++)
		h = (h ^ (unsigned char)r->text[i]) * 16777619u;
	return h;
}

static uint64_t size_of(uint32_t len)
{
	return (offsetof(struct record, text) + len + 7) & ~7u;
}

/* Visit the records from the start. Returns where the next one belongs. */
static uint64_t walk(const char *log, unsigned *n, int print)
{
	uint64_t at = 0;

	for (*n = 0; at + sizeof(struct record) <= LOG_MAX; ++*n) {
		const struct record *r = (const void *)(log + at);

		if (!r->len || r->len > TEXT_MAX || r->sum != sum_of(r))
			break;
		if (print)
			printf("%.*s\n", (int)r->len, r->text);
		at += size_of(r->len);
	}
	return at;
}

static int append(struct berth_map *m, uint64_t at, unsigned n)
{
	struct record r = { 0 };
	int err = 0;
	while (!err && fgets(r.text, sizeof(r.text), stdin) && at + sizeof(r) <= LOG_MAX) {
		if (!(r.len = (uint32_t)strcspn(r.text, "\n")))
			continue;
		r.sum = sum_of(&r);
		err = berth_put(m, &r, size_of(r.len), at, BERTH_DURABLE | BERTH_BY_RMA);
		at += size_of(r.len);
		if (!err && printf("%u\n", n++) > 0)
			fflush(stdout); /* now it is promised */
	}
	return err;
}

int main(int argc, char **argv)
{
	int add = argc == 3 && !strcmp(argv[2], "append"), err;
	char *log = calloc(1, LOG_MAX);
	struct berth_error why = { "" };
	struct berth_file *f;
	struct berth_map *m;
	struct berth *b;
	unsigned n;

	if (argc != 3 || !log || berth_connect(argv[1], NULL, &b, &why)) {
		fprintf(stderr, "%s\n", why.text[0] ? why.text : "usage: example-log URL append|print");
		return 1;
	}
	err = berth_open(b, NULL, berth_url_path(b), add ? O_CREAT | O_RDWR : O_RDONLY, 0644, &f);
	if (!err && !(err = berth_map(f, 0, LOG_MAX, add ? BERTH_MAP_WRITE : BERTH_MAP_READ, &m))) {
		err = berth_get(m, log, LOG_MAX, 0, 0);
		uint64_t end = err ? 0 : walk(log, &n, !add);

		if (!err && add)
			err = append(m, end, n);
		err = berth_unmap(m) || err;
		berth_close(f);
	}
	berth_disconnect(b);
	return err ? fprintf(stderr, "example-log: %s: error %d\n", argv[1], err), 1 : 0;
}
