/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scrub.c - berth scrub: prove the checksums of file data
 *
 * Of a running server through its control socket; or of a pool that nobody has open, here.
 * Exit: 0 no bad block, 1 bad blocks or the command failed, 2 usage.
 */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/cmd/cmd.h"
#include "pmemio/pmemio.h"

#define STEP 4096u /* blocks between two looks at the terminal */

struct scrubbing {
	json_t *list;
	bool json, bar;
};

static void print_bad(uint64_t ino, uint64_t off, uint64_t at)
{
	printf("inode %llu: bad data at offset %llu (byte 0x%llx of the pool)\n",
	       (unsigned long long)ino, (unsigned long long)off, (unsigned long long)at);
}

static void found(void *arg, const struct pm_scrub_bad *b)
{
	struct scrubbing *s = arg;

	if (s->json) {
		json_array_append_new(s->list,
		                      json_pack("{s:I, s:I, s:I}", "inode", (json_int_t)b->id.ino,
		                                "offset", (json_int_t)b->off, "pool_offset",
		                                (json_int_t)b->at));
		return;
	}
	if (s->bar)
		fprintf(stderr, "\r\033[K");
	print_bad(b->id.ino, b->off, b->at);
}

static int scrub_pool(const char *path, bool json)
{
	struct scrubbing s = { .json = json, .bar = isatty(2) && !json };
	struct pm_scrub at = { .found = found, .arg = &s };
	struct pm_open_opts o = { .read_only = true };
	struct pm_error why = { { 0 } };
	struct pm_store *st;
	int err = pm_open(path, &o, &st, &why);

	if (err) {
		complain("%s", why.text[0] ? why.text : strerror(-err));
		return EXIT_SOME;
	}
	s.list = json_array();
	while ((err = pm_scrub_step(st, &at, STEP)) == -EAGAIN) {
		if (s.bar)
			fprintf(stderr, "\rscrubbing %3llu%%",
			        (unsigned long long)(at.ino * 100 / at.inodes));
	}
	if (s.bar)
		fprintf(stderr, "\r\033[K");
	pm_close(st);
	if (err) {
		json_decref(s.list);
		complain("pool %s: %s", path,
		         err == -EOPNOTSUPP
		                 ? "has no checksums of data (berth mkfs --checksum crc32c)"
		                 : strerror(-err));
		return EXIT_SOME;
	}
	if (!json) {
		json_decref(s.list);
		printf("%s: %s, %llu blocks seen, %llu bad, %llu without a checksum, %llu objects "
		       "unreadable\n",
		       path, at.bad || at.unreadable ? "PROBLEMS" : "clean",
		       (unsigned long long)at.blocks, (unsigned long long)at.bad,
		       (unsigned long long)at.unproven, (unsigned long long)at.unreadable);
	} else if (json_print(json_pack("{s:s, s:I, s:I, s:I, s:I, s:o}", "state", "done", "bytes_done",
	                                (json_int_t)(at.blocks * PM_BLOCK), "bad_blocks",
	                                (json_int_t)at.bad, "unproven",
	                                (json_int_t)at.unproven, "unreadable", (json_int_t)at.unreadable,
	                                "bad", s.list)) != EXIT_OK) {
		return EXIT_SOME;
	}
	return at.bad || at.unreadable ? EXIT_SOME : EXIT_OK;
}

static long long number(json_t *o, const char *key)
{
	return (long long)json_integer_value(json_object_get(o, key));
}

static void print_status(json_t *o)
{
	long long used = number(o, "bytes_used"), seen = number(o, "bytes_done");
	json_t *b, *list = json_object_get(o, "bad");
	const char *state = json_string_value(json_object_get(o, "state"));
	size_t i;

	printf("%s, %lld%%, %lld MiB seen, %lld bad blocks, %lld had no checksum, %lld objects "
	       "unreadable, at most %lld MB/s\n",
	       state ? state : "?",
	       state && !strcmp(state, "done") ? 100
	       : used > seen                   ? seen * 100 / used
	                                       : 99,
	       seen >> 20, number(o, "bad_blocks"), number(o, "unproven"), number(o, "unreadable"),
	       number(o, "rate_mb"));
	json_array_foreach(list, i, b)
		print_bad((uint64_t)number(b, "inode"), (uint64_t)number(b, "offset"),
	                  (uint64_t)number(b, "pool_offset"));
}

static int scrub_server(struct cmd *c, const char *words, bool json)
{
	char line[64];
	const char *wrong;
	int code = EXIT_OK;
	json_t *o;

	snprintf(line, sizeof(line), "scrub %s\n", words);
	o = server_ask(c, line);
	if (!o)
		return EXIT_SOME;
	wrong = json_string_value(json_object_get(o, "error"));
	if (wrong) {
		complain("%s", wrong);
		json_decref(o);
		return EXIT_SOME;
	}
	if (number(o, "bad_blocks") || number(o, "unreadable"))
		code = EXIT_SOME;
	if (json)
		return json_print(o) ? EXIT_SOME : code;
	print_status(o);
	json_decref(o);
	return fflush(stdout) ? EXIT_SOME : code;
}

int cmd_scrub(struct cmd *c, int argc, char **argv)
{
	static const struct option longs[] = { { "json", no_argument, NULL, 'j' },
		                               { "rate", required_argument, NULL, 'r' },
		                               { "pool", required_argument, NULL, 'p' },
		                               { 0 } };
	const char *pool = NULL, *rate = NULL;
	bool json = false;
	char words[48];
	int opt;

	while ((opt = next_option(c, argc, argv, "", longs)) != -1) {
		if (opt == 'H')
			return EXIT_OK;
		if (opt == '?')
			return EXIT_USAGE;
		if (opt == 'j')
			json = true;
		else if (opt == 'r')
			rate = optarg;
		else
			pool = optarg;
	}
	if (pool && optind == argc && !rate)
		return scrub_pool(pool, json);
	if (pool || optind + 1 != argc)
		return usage_error(c, "start, pause, resume, stop or status; or --pool PATH");
	if (rate && (strcmp(argv[optind], "start") || strspn(rate, "0123456789") != strlen(rate) ||
	             !*rate || strlen(rate) > 7))
		return usage_error(c,
		                   "--rate goes with start and is a number of MB/s, 0: no bound");
	if (strlen(argv[optind]) > 16)
		return usage_error(c, "'%s' is none of start, pause, resume, stop, status",
		                   argv[optind]);
	snprintf(words, sizeof(words), "%s%s%s", argv[optind], rate ? " " : "", rate ? rate : "");
	return scrub_server(c, words, json);
}
