/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * main.c - the `berth` command: which subcommand, which options
 */
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "client/cmd/cmd.h"

static const struct cmd commands[] = {
	{ "mkfs", "PATH [-s SIZE] [-L LABEL] [-U UUID] [--lanes N] [--checksum crc32c]\n"
	  "                        [--sparse] [--force]",
	  "make an empty pool in a file or on a device-DAX node", cmd_mkfs, NULL },
	{ "check", "PATH [--repair] [--json]", "verify every invariant of a pool that is not in use",
	  cmd_check, NULL },
	{ "probe", "[--pool PATH] [--provider NAME] [--ddio on|off|unknown] [--timeout SECONDS]\n"
	  "                         [--json | --markdown]",
	  "what libfabric offers here, and how durable a pool is over it", cmd_probe, NULL },
	{ "quota", "[-u UID | -g GID] [--blocks N] [--inodes N] [--pool PATH] [--json]",
	  "who uses how much, and may; of the server here or of a pool not in use", cmd_quota, NULL },
	{ "scrub",
	  "[--json] start [--rate MB/S] | pause | resume | stop | status\n"
	  "       berth scrub [--json] --pool PATH",
	  "prove the checksums of file data: in the server here, or of a pool not in use",
	  cmd_scrub, NULL },
	{ "ls", "[-l] [-a] [-R] [-d] [-h] [-n] [--json] URL...", "list directories", cmd_ls, NULL },
	{ "stat", "[-L] [--json] [URL...]",
	  "attributes of files; without URL: counters of the server here", cmd_stat, NULL },
	{ "cat", "URL...", "files to standard output", cmd_cat, NULL },
	{ "cp", "[-r] [-p] [-S auto|always|never] [-j N] [-q] [-v] [--json] SOURCE... DEST",
	  "copy to, from and between servers", cmd_cp, NULL },
	{ "mv", "SOURCE... DEST", "rename within one export", cmd_mv, NULL },
	{ "rm", "[-r] [-f] URL...", "remove", cmd_rm, NULL },
	{ "mkdir", "[-p] [-m MODE] URL...", "make directories", cmd_mkdir, NULL },
	{ "rmdir", "URL...", "remove empty directories", cmd_rmdir, NULL },
	{ "ln", "[-s] TARGET URL", "make a hard or (-s) symbolic link", cmd_ln, NULL },
	{ "readlink", "URL...", "targets of symbolic links", cmd_readlink, NULL },
	{ "chmod", "MODE URL...", "change permission bits", cmd_chmod, NULL },
	{ "chown", "UID[:GID] URL...", "change owner and group, by number", cmd_chown, NULL },
	{ "touch", "URL...", "make files, or set their times to now", cmd_touch, NULL },
	{ "truncate", "-s SIZE URL...", "set the size of files", cmd_truncate, NULL },
	{ "df", "[-h] [--json] URL...", "space of the pool behind an export", cmd_df, NULL },
	{ "ping", "[-c COUNT] [-i SECONDS] [--json] URL", "round trips of empty calls", cmd_ping,
	  NULL },
};
#define NCOMMANDS (sizeof(commands) / sizeof(*commands))

static const struct option none[] = { { 0 } };

static void print_usage(const struct cmd *c, FILE *to)
{
	fprintf(to, "usage: berth %s %s\n       %s\n", c->name, c->usage, c->what);
}

int usage_error(const struct cmd *c, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "berth %s: ", c->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	print_usage(c, stderr);
	return EXIT_USAGE;
}

int next_option(const struct cmd *c, int argc, char **argv, const char *shorts,
                const struct option *longs)
{
	struct option all[16] = { { "help", no_argument, NULL, 'H' } };
	char spec[64];
	int got;

	if (!longs)
		longs = none;
	for (unsigned i = 0; longs[i].name && i < 14; i++)
		all[i + 1] = longs[i];
	snprintf(spec, sizeof(spec), "%s:%s", *shorts == '+' ? "+" : "", shorts + (*shorts == '+'));
	opterr = 0;
	got = getopt_long(argc, argv, spec, all, NULL);
	if (got == 'H') {
		print_usage(c, stdout);
	} else if (got == ':') {
		usage_error(c, "option '%s' needs a value", argv[optind - 1]);
		got = '?';
	} else if (got == '?') {
		if (optopt && optopt < 128 && strchr("-", optopt) == NULL &&
		    argv[optind - 1][1] != '-')
			usage_error(c, "unknown option '-%c'", optopt);
		else
			usage_error(c, "unknown option '%s'", argv[optind - 1]);
	}
	return got;
}

static int help(FILE *to)
{
	fprintf(to, "usage: berth [-s SOCKET] COMMAND [OPTION...] [OPERAND...]\n\n");
	for (unsigned i = 0; i < NCOMMANDS; i++)
		fprintf(to, "  %-9s %s\n", commands[i].name, commands[i].what);
	fprintf(to,
	        "\nURL: berth+tcp://HOST[:PORT]/EXPORT/PATH, berth+shm://[NAME]/EXPORT/PATH,\n"
	        "     berth+verbs://HOST[:PORT]/EXPORT/PATH   (options behind '?': see berth(1))\n"
	        "`berth COMMAND --help` tells the options of one.\n");
	return to == stdout ? EXIT_OK : EXIT_USAGE;
}

static int run(const char *name, const char *socket, int argc, char **argv)
{
	for (unsigned i = 0; i < NCOMMANDS; i++)
		if (!strcmp(name, commands[i].name)) {
			struct cmd c = commands[i];

			c.socket = socket;
			optind = 0; /* GNU: start over, with the new argv */
			return c.run(&c, argc, argv);
		}
	fprintf(stderr, "berth: unknown command '%s'\n", name);
	return help(stderr);
}

/* libfabric starts every provider it knows at the first question; some search the kernel's symbols
 * for half a second. The operands tell which ones we need. */
static void only_needed_providers(int argc, char **argv)
{
	char list[128] = "";
	size_t at = 0;

	/* The registration cache of verbs lets peers read and write whatever was registered once. */
	setenv("FI_MR_CACHE_MONITOR", "disabled", 1);
	if (getenv("FI_PROVIDER"))
		return;
	for (int i = 1; i < argc; i++) {
		const char *name = argv[i] + strlen("berth+");
		size_t n;

		if (!berth_is_url(argv[i]))
			continue;
		n = strcspn(name, ":");
		if (at + n + 2 < sizeof(list))
			at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%.*s",
			                       at ? "," : "", (int)n, name);
	}
	if (at)
		setenv("FI_PROVIDER", list, 1);
}

int main(int argc, char **argv)
{
	static const int taken[] = { SIGSEGV, SIGBUS, SIGTERM, SIGINT, SIGABRT, SIGILL };
	const char *socket = NULL;
	int i = 1;

	/* A library that libfabric pulls in takes these over before main; a killed copy must die.
	 */
	for (unsigned k = 0; k < sizeof(taken) / sizeof(*taken); k++)
		signal(taken[k], SIG_DFL);

	only_needed_providers(argc, argv);
	if (i + 1 < argc && !strcmp(argv[i], "-s")) {
		socket = argv[i + 1];
		i += 2;
	}
	if (i >= argc)
		return help(stderr);
	if (!strcmp(argv[i], "help") || !strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
		return help(stdout);
	if (argv[i][0] == '-') {
		fprintf(stderr, "berth: unknown option '%s'\n", argv[i]);
		return help(stderr);
	}
	return run(argv[i], socket, argc - i, argv + i);
}
