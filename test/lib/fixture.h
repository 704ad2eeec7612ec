/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fixture.h - what real clients said, as test/vm/record/cut wrote it down; test/fixtures/kernel/README tells how
 *
 * A line is a word, for "push" some numbers, then bytes in hex, in which {FIRST+BYTES} stands for big-endian words
 * FIRST, FIRST + 4, and so on. Lines "# STEP" and "= MEANING" are text.
 */
#ifndef TEST_LIB_FIXTURE_H
#define TEST_LIB_FIXTURE_H

#include <stddef.h>
#include <stdint.h>

struct fixture_line {
	unsigned number; /* in the file, for messages */
	char *what;      /* "#", "=", "cm", "call", "run", "push", "reply" */
	char *text;      /* of "#" and "="; of "push" its numbers; else "" */
	uint8_t *data;
	size_t len;
};
struct fixture {
	struct fixture_line *line;
	size_t n;
};
/* test/fixtures/@name, seen from the directory where tests run. Stops the test if it is not there or not whole. */
void fixture_load(const char *name, struct fixture *f);
void fixture_free(struct fixture *f);
/* The next line after @at that is a @what, or NULL if a line of kind @until comes first, or none. */
const struct fixture_line *fixture_next(const struct fixture *f, const struct fixture_line *at, const char *what,
					const char *until);

#endif
