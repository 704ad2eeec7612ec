/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cmd.h - what the parts of the `berth` command share; private to this directory
 *
 *   main.c    dispatch, options              util.c      messages, formats, sessions
 *   pool.c    mkfs, check                    control.c   stat of a running server
 *   quota.c   quota
 *   scrub.c   scrub, of a server or a pool
 *   probe.c   probe: providers, placement, persistence
 *   look.c    stat, cat, df, ping, readlink  ls.c        ls
 *   change.c  rm, mv, mkdir, rmdir, ln ...   cp*.c       copying trees
 *   transfer.c  one file's bytes, many pieces in flight    progress.c  the bar
 */
#ifndef CLIENT_CMD_CMD_H
#define CLIENT_CMD_CMD_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "client/berth.h"

enum { EXIT_OK = 0, EXIT_SOME = 1, EXIT_USAGE = 2 };

struct cmd {
	const char *name, *usage, *what;
	int (*run)(struct cmd *c, int argc, char **argv);
	const char *socket; /* -s before the command's name; NULL: the default */
};

/* --- main.c -------------------------------------------------------------------------------------
 */
struct option;
/* getopt_long with our messages: -1 at the end, '?' after a complaint (exit with EXIT_USAGE), 'H'
 * after
 * --help has been printed (exit with EXIT_OK). @shorts as for getopt. */
int next_option(const struct cmd *c, int argc, char **argv, const char *shorts,
                const struct option *longs);
int usage_error(const struct cmd *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* --- util.c --- */
/* "berth NAME: text" on stderr, from any thread; clears a progress bar. */
void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void complain_errno(int err, const char *what, const char *name); /* err: negative errno */

/* What has been said about the connections of a command: each outage is told once, not by every
 * session. */
struct outage {
	_Atomic bool lost;
};
/* Sessions of one command, each opened once and used by its thread. */
struct sessions {
	struct outage outage;
	struct berth *list[16];
	unsigned n;
};
struct place {           /* an operand: in a session, or local */
	struct berth *b; /* NULL: local */
	char *path;
	const char *text; /* as the user wrote it */
};
/* 0, or negative errno after a complaint. */
int place_open(struct sessions *s, const char *operand, struct place *p);
int place_remote(struct sessions *s, const struct cmd *c, const char *operand, struct place *p);
void place_close(struct place *p);
void sessions_close(struct sessions *s);
int session_open(const char *url, unsigned patience_ms, struct outage *said,
                 struct berth **out); /* outside of any cache */

bool parse_size(const char *text, uint64_t *out); /* 4096, 64K, 1G, 1.5T; bytes */
bool parse_octal(const char *text, uint32_t max, uint32_t *out);
/* chmod(1)'s symbolic or octal MODE applied to @mode. */
bool parse_mode(const char *text, uint32_t mode, bool is_dir, uint32_t *out);
bool parse_uuid(const char *text, uint8_t uuid[16]);
void format_uuid(const uint8_t uuid[16], char out[37]);
void format_size(uint64_t bytes, char out[16]);                      /* "1.5G" */
void format_mode(enum berth_type type, uint32_t mode, char out[11]); /* "drwxr-xr-x" */
void format_time(const struct timespec *ts, char out[40]);
const char *type_name(enum berth_type type);
/* Print a name; on a terminal with control bytes and broken UTF-8 as \ooo. */
void print_name(FILE *to, const char *name, size_t len);
size_t escape_name(char *out, const char *name, size_t len); /* out: 4 * len + 1 */
bool utf8_ok(const char *s, size_t len);
/* A name in JSON: "name", and "name_hex" where the bytes are no UTF-8. */
void json_set_name(json_t *o, const char *key, const char *name, size_t len);
json_t *json_attr(const struct berth_attr *a);
int json_print(json_t *o);               /* prints and drops; EXIT_* */
const char *base_name(const char *path); /* of "a/b/": "b/" */
char *join(const char *dir, const char *name);

/* --- progress.c --- */
struct progress {
	_Atomic uint64_t bytes, total, files, total_files;
	_Atomic bool complete; /* total is final */
	bool on;               /* stderr is a terminal and nobody said --quiet */
	uint64_t began, drawn; /* ms */
	size_t width;
};
void progress_begin(struct progress *p, bool wanted);
void progress_draw(struct progress *p, bool now);
void progress_end(struct progress *p);
/* The text of the bar; for tests too. */
void progress_text(char *buf, size_t size, uint64_t bytes, uint64_t total, bool complete,
                   uint64_t ms, unsigned columns);

/* --- transfer.c --- */
#define SLOTS      8
#define SLOT_BYTES (1u << 20)

enum sparse { SPARSE_AUTO, SPARSE_ALWAYS, SPARSE_NEVER };
struct engine; /* buffers of one thread, registered with both sessions */
int engine_new(struct berth *src, struct berth *dst, struct engine **out);
void engine_free(struct engine *e);
struct end {                     /* where bytes come from or go to */
	struct berth_file *file; /* NULL: fd */
	int fd;
};
/* Copy @size bytes into an empty file. @holes: leave out what a local source says is a hole;
 * @skip_zeros: and blocks of zeros. *copied: the size that the destination has to get (less than
 * @size if the source became shorter). 0; 1: it does not have that size yet; negative errno. */
int transfer_file(struct engine *e, const struct end *src, const struct end *dst, uint64_t size,
                  bool holes, bool skip_zeros, struct progress *p, uint64_t *copied);

/* --- the commands --- */
int cmd_mkfs(struct cmd *c, int argc, char **argv);
int cmd_check(struct cmd *c, int argc, char **argv);
int cmd_probe(struct cmd *c, int argc, char **argv);
int cmd_scrub(struct cmd *c, int argc, char **argv);
int cmd_ls(struct cmd *c, int argc, char **argv);
int cmd_stat(struct cmd *c, int argc, char **argv);
int cmd_cat(struct cmd *c, int argc, char **argv);
int cmd_df(struct cmd *c, int argc, char **argv);
int cmd_ping(struct cmd *c, int argc, char **argv);
int cmd_readlink(struct cmd *c, int argc, char **argv);
int cmd_cp(struct cmd *c, int argc, char **argv);
int cmd_mv(struct cmd *c, int argc, char **argv);
int cmd_rm(struct cmd *c, int argc, char **argv);
int cmd_mkdir(struct cmd *c, int argc, char **argv);
int cmd_rmdir(struct cmd *c, int argc, char **argv);
int cmd_ln(struct cmd *c, int argc, char **argv);
int cmd_chmod(struct cmd *c, int argc, char **argv);
int cmd_chown(struct cmd *c, int argc, char **argv);
int cmd_touch(struct cmd *c, int argc, char **argv);
int cmd_truncate(struct cmd *c, int argc, char **argv);
int cmd_quota(struct cmd *c, int argc, char **argv);
/* What the control socket answers to @line; NULL after a complaint. */
json_t *server_ask(struct cmd *c, const char *line);
int server_stat(struct cmd *c, bool json);

#endif
