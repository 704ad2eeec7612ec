/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The fuzz target of journals (test/fuzz/journal.c): what it has found and what is worth keeping, and so many inputs of
 * a fixed seed. `make fuzz` looks for more.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "test/fuzz/journal.h"

#define INPUTS 800u
#define CORPUS "test/fuzz/journal"

TestSuite(journal_fuzz, .timeout = 300);

static size_t read_all(const char *path, uint8_t *buf, size_t size)
{
	FILE *f = fopen(path, "rb");
	size_t n;

	cr_assert_not_null(f, "%s", path);
	n = fread(buf, 1, size, f);
	fclose(f);
	return n;
}

Test(journal_fuzz, corpus)
{
	struct dirent *e;
	uint8_t buf[1024];
	unsigned n = 0;
	char path[300];
	DIR *d = opendir(CORPUS);

	cr_assert_not_null(d, CORPUS ": run this from the top of the tree");
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), CORPUS "/%s", e->d_name);
		LLVMFuzzerTestOneInput(buf, read_all(path, buf, sizeof(buf)));
		n++;
	}
	closedir(d);
	cr_assert_gt(n, 10);
}

/* Few changes, most of them small: that is where records and their checksums still lead somewhere. */
static size_t make_input(uint8_t *buf, unsigned i)
{
	size_t n = 1 + 8 * (1 + (size_t)random() % 3);

	for (size_t k = 0; k < n; k++)
		buf[k] = (uint8_t)random();
	for (size_t k = 1; k < n; k += 8) {
		buf[k] = i % 2 ? buf[k] & 7 : buf[k]; /* half of them damage alone */
		buf[k + 3] &= 3;
		if (random() % 2)
			buf[k + 5] = buf[k + 6] = buf[k + 7] = 0;
	}
	return n;
}

Test(journal_fuzz, inputs_of_a_fixed_seed)
{
	const struct journal_fuzz_seen *seen = journal_fuzz_seen();
	uint8_t buf[64];

	srandom(1);
	for (unsigned i = 0; i < INPUTS; i++)
		LLVMFuzzerTestOneInput(buf, make_input(buf, i));
	cr_log_info("%u opened, %u refused, %u repaired, %u of damage alone, %u of them missed something", seen->opened,
	            seen->refused, seen->repaired, seen->honest, seen->missed);
	cr_assert(seen->opened > INPUTS / 4 && seen->refused > INPUTS / 4 && seen->repaired > INPUTS / 4);
	cr_assert(seen->honest > INPUTS / 4 && seen->missed > INPUTS / 8);
}
