/* SPDX-License-Identifier: BSD-3-Clause */
/* main.c - berthd's command line */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "server/config.h"
#include "server/process.h"

static const char usage[] =
	"usage: berthd -c FILE [-o section.key=value]... [-t]\n"
	"  -c, --config FILE      configuration, see berth.conf(5)\n"
	"  -o, --set s.key=value  set one key; for a fabric: -o 'fabric NAME.key=value'\n"
	"  -t, --test             check configuration and exports, then exit\n"
	"  -h, --help   -V, --version\n";

/* libfabric brings along a library that takes these over before main. */
static void take_signals_back(void)
{
	static const int sigs[] = { SIGSEGV, SIGBUS, SIGTERM, SIGINT, SIGABRT, SIGILL };

	for (size_t i = 0; i < sizeof(sigs) / sizeof(*sigs); i++)
		signal(sigs[i], SIG_DFL);
}

static int run_server(struct heartbeat *hb, void *arg)
{
	return server_run(arg, hb);
}

static int test_exports(const struct config *conf)
{
	struct exports *ex;
	char why[4000];
	int err = exports_load(conf->exports_file, &ex, why, sizeof(why));

	if (err)
		log_text(NULL, LOG_ERR, why);
	else
		exports_free(ex);
	return err ? 2 : 0;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = { { "config", 1, NULL, 'c' }, { "set", 1, NULL, 'o' },
					       { "test", 0, NULL, 't' },   { "help", 0, NULL, 'h' },
					       { "version", 0, NULL, 'V' }, { NULL, 0, NULL, 0 } };
	struct config conf;
	char why[4000] = "";
	bool test = false;
	int opt, err = 0, status;

	take_signals_back();
	config_init(&conf);
	/* the file first, whatever the order on the command line */
	while ((opt = getopt_long(argc, argv, "c:o:thV", longs, NULL)) != -1) {
		if (opt == 'c' && !err)
			err = config_load(&conf, optarg, why, sizeof(why));
		else if (opt == 't')
			test = true;
		else if (opt == 'h' || opt == 'V') {
			fputs(opt == 'h' ? usage : "berthd " BERTH_VERSION "\n", stdout);
			return 0;
		} else if (opt == '?') {
			fputs(usage, stderr);
			return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "berthd: unexpected argument '%s'\n%s", argv[optind], usage);
		return 2;
	}
	optind = 1;
	while (!err && (opt = getopt_long(argc, argv, "c:o:thV", longs, NULL)) != -1)
		if (opt == 'o')
			err = config_override(&conf, optarg, why, sizeof(why));
	if (!err)
		err = config_finish(&conf, why, sizeof(why));
	if (err) {
		log_text(NULL, LOG_ERR, why);
		return 2;
	}
	if (test)
		status = test_exports(&conf);
	else if (conf.supervise)
		status = supervise(run_server, &conf);
	else
		status = server_run(&conf, NULL);
	config_free(&conf);
	return status;
}
