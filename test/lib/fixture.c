/* SPDX-License-Identifier: BSD-3-Clause */
/* fixture.c - read recorded sessions */
#include "test/lib/fixture.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t put_pattern(uint8_t *to, const char *hex)
{
	unsigned first, bytes;

	cr_assert_eq(sscanf(hex, "{%u+%u}", &first, &bytes), 2, "pattern: %.40s", hex);
	cr_assert_eq(bytes % 4, 0);
	for (unsigned i = 0; to && i < bytes; i++)
		to[i] = (uint8_t)((first + (i & ~3u)) >> (24 - 8 * (i & 3)));
	return bytes;
}

/* @to NULL: only how many bytes there are. */
static size_t unpack(uint8_t *to, const char *hex)
{
	size_t n = 0;

	while (*hex) {
		unsigned byte;

		if (*hex == '{') {
			n += put_pattern(to ? to + n : NULL, hex);
			hex = strchr(hex, '}') + 1;
			continue;
		}
		cr_assert_eq(sscanf(hex, "%2x", &byte), 1, "not hex: %.40s", hex);
		if (to)
			to[n] = (uint8_t)byte;
		n++;
		hex += 2;
	}
	return n;
}

static void parse(struct fixture_line *l, char *s)
{
	char *hex;

	l->what = s;
	s += strcspn(s, " ");
	if (*s)
		*s++ = '\0';
	l->text = s;
	if (*l->what == '#' || *l->what == '=')
		return;
	hex = strrchr(s, ' ');
	if (hex)
		*hex++ = '\0';
	else
		hex = s, l->text = s + strlen(s);
	l->len = unpack(NULL, hex);
	l->data = malloc(l->len + 1);
	unpack(l->data, hex);
}

void fixture_load(const char *name, struct fixture *f)
{
	char path[256], *s = NULL;
	size_t cap = 0;
	ssize_t n;
	FILE *in;

	snprintf(path, sizeof(path), "test/fixtures/%s", name);
	in = fopen(path, "r");
	cr_assert(in, "%s: tests run in the directory of the sources", path);
	*f = (struct fixture){ 0 };
	while ((n = getline(&s, &cap, in)) > 0) {
		s[n - 1] = '\0';
		f->line = realloc(f->line, (f->n + 1) * sizeof(*f->line));
		f->line[f->n] = (struct fixture_line){ .number = (unsigned)f->n + 1 };
		parse(&f->line[f->n++], strdup(s));
	}
	free(s);
	fclose(in);
	cr_assert_gt(f->n, 100, "%s is not whole", path);
}

void fixture_free(struct fixture *f)
{
	for (size_t i = 0; i < f->n; i++) {
		free(f->line[i].what);
		free(f->line[i].data);
	}
	free(f->line);
}

const struct fixture_line *fixture_next(const struct fixture *f, const struct fixture_line *at, const char *what,
					const char *until)
{
	for (at++; at < f->line + f->n; at++) {
		if (!strcmp(at->what, what))
			return at;
		if (until && !strcmp(at->what, until))
			return NULL;
	}
	return NULL;
}
