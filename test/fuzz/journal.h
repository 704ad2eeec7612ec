/* SPDX-License-Identifier: BSD-3-Clause */
/* journal.h - the fuzz target of journals, for the test that runs it a little */
#ifndef TEST_FUZZ_JOURNAL_H
#define TEST_FUZZ_JOURNAL_H

#include <stddef.h>
#include <stdint.h>

/* An input that finds a mistake ends in abort(), behind a line that says which. Always 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct journal_fuzz_seen { /* inputs so far */
	unsigned opened, refused, repaired;
	unsigned honest, missed; /* of damage that nobody can make good; of that, records that later ones call durable */
};
const struct journal_fuzz_seen *journal_fuzz_seen(void);

#endif
