/* SPDX-License-Identifier: BSD-3-Clause */
/* test_way.c - which way a transfer goes: every row of the choice, and the table of providers.md */
#include <criterion/criterion.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/way.h"

#define NEVER SIZE_MAX

/* From how many bytes on a put with a COMMIT goes by RMA, and up to where a get does. */
struct row {
	const char *provider;
	size_t alone, several, get_below;
};
static const struct row rows[] = {
	{ "tcp", 4096, 1, 1048576 },
	{ "verbs", NEVER, 1, NEVER },
	{ "shm", NEVER, 4096, NEVER },
	{ "efa", NEVER, 1, NEVER }, /* not measured: as verbs */
};
static const size_t sizes[] = { 1,       64,      512,         4095,        4096,        4097,         65536,
	                        1048575, 1048576, 1048577, 64u << 20, 1u << 30, NEVER - 1 };
#define EACH(type, x, list) for (const type *x = list; x < list + sizeof(list) / sizeof(*(list)); x++)

Test(way, of_puts_with_a_commit)
{
	EACH (struct row, r, rows)
		EACH (size_t, len, sizes)
			for (unsigned busy = 1; busy < 70; busy++)
				cr_expect_eq(way_put_one_sided(r->provider, *len, true, busy),
				             *len >= (busy < 4 ? r->alone : r->several), "%s: %zu bytes, %u in flight",
				             r->provider, *len, busy);
}

Test(way, of_puts_that_need_no_call)
{
	EACH (struct row, r, rows)
		EACH (size_t, len, sizes)
			for (unsigned busy = 1; busy < 70; busy++)
				cr_expect(way_put_one_sided(r->provider, *len, false, busy), "%s: %zu", r->provider, *len);
}

Test(way, of_gets)
{
	EACH (struct row, r, rows)
		EACH (size_t, len, sizes)
			cr_expect_eq(way_get_one_sided(r->provider, *len), *len < r->get_below, "%s: %zu", r->provider,
			             *len);
}

Test(way, a_layout_method_is_believed_only_for_bytes_that_exist)
{
	static const struct {
		layoutmethod method;
		enum way_durable pmem, other; /* with FI_COMMIT_COMPLETE at our end, without */
	} of[] = {
		{ LAYOUT_FENCE, WAY_BY_COMMIT, WAY_BY_COMMIT },
		{ LAYOUT_CLWB, WAY_BY_COMMIT, WAY_BY_COMMIT },
		{ LAYOUT_MSYNC, WAY_BY_COMMIT, WAY_BY_COMMIT },
		{ LAYOUT_VOLATILE, WAY_BY_COMMIT, WAY_BY_COMMIT },
		{ LAYOUT_COMMIT_COMPLETE, WAY_BY_COMPLETION, WAY_BY_COMMIT },
		{ LAYOUT_READ_AFTER_WRITE, WAY_BY_READ_AFTER_WRITE, WAY_BY_READ_AFTER_WRITE },
		{ (layoutmethod)77, WAY_BY_COMMIT, WAY_BY_COMMIT },
	};

	for (size_t i = 0; i < sizeof(of) / sizeof(*of); i++) {
		cr_expect_eq(way_durable(of[i].method, true, true), of[i].pmem, "%d", of[i].method);
		cr_expect_eq(way_durable(of[i].method, false, true), of[i].other, "%d", of[i].method);
		cr_expect_eq(way_durable(of[i].method, true, false), WAY_BY_COMMIT, "%d", of[i].method);
		cr_expect_eq(way_durable(of[i].method, false, false), WAY_BY_COMMIT, "%d", of[i].method);
	}
}

/* --- providers.md --- */

/* What a cell says of @len bytes: "WRITE", "RMA", "RMA from N bytes", "RMA below N bytes", and then the reason. */
static bool says_rma(const char *cell, size_t len)
{
	size_t n;

	if (!strncmp(cell, "WRITE", 5))
		return false;
	cr_assert(!strncmp(cell, "RMA", 3), "'%s'", cell);
	if (sscanf(cell, "RMA from %zu bytes", &n) == 1)
		return len >= n;
	if (sscanf(cell, "RMA below %zu bytes", &n) == 1)
		return len < n;
	cr_assert(cell[3] == '\0' || !strncmp(cell + 3, " (", 2), "'%s'", cell);
	return true;
}

static bool takes_rma(const char *row, const char *provider, size_t len)
{
	if (!strcmp(row, "reads"))
		return way_get_one_sided(provider, len);
	return way_put_one_sided(provider, len, !strncmp(row, "COMMIT", 6), strstr(row, "several") ? WAY_MANY : 1);
}

/* The cells of a row of three, in place. */
static void split(char *line, char *cell[4])
{
	char *at = line;

	for (unsigned i = 0; i < 4; i++) {
		cr_assert(at && !strncmp(at, "| ", 2), "%s", line);
		cell[i] = at + 2;
		at = strstr(cell[i], " |");
		cr_assert_not_null(at, "%s", line);
		*at++ = '\0';
	}
}

Test(way, providers_md_says_what_the_code_does)
{
	static const char *const columns[] = { "tcp", "verbs", "shm" };
	static const char head[] = "| | over tcp | over verbs | over shm |\n";
	static const char *const names[] = { "no COMMIT, alone", "no COMMIT, several", "COMMIT, alone", "COMMIT, several",
		                             "reads" };
	FILE *f = fopen("providers.md", "r");
	char line[1000], *cell[4];
	bool there = false;

	cr_assert_not_null(f);
	while (!there && fgets(line, sizeof(line), f))
		there = !strcmp(line, "<!-- ways -->\n");
	cr_assert(there && fgets(line, sizeof(line), f) && !strcmp(line, head), "%s", line);
	cr_assert(fgets(line, sizeof(line), f));
	EACH (char *const, name, names) {
		cr_assert(fgets(line, sizeof(line), f));
		split(line, cell);
		cr_assert_str_eq(cell[0], *name);
		for (unsigned i = 0; i < 3; i++)
			EACH (size_t, len, sizes)
				cr_expect_eq(takes_rma(*name, columns[i], *len), says_rma(cell[i + 1], *len),
				             "%s over %s, %zu bytes: providers.md says '%s'", *name, columns[i], *len,
				             cell[i + 1]);
	}
	cr_assert(fgets(line, sizeof(line), f) && !strcmp(line, "<!-- end -->\n"), "%s", line);
	fclose(f);
}
