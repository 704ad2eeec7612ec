/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * config.c - berth.conf: INI in the manner of nfs.conf, parsed by inih
 *
 * One table says which keys exist, where they go and what they may be; etc/berth.conf documents each.
 * A key that is not in the table is an error with its line number, as is one that is set twice: a typing mistake must not be
 * a default.
 */
#include "server/config.h"
#include "proto/layout.h"
#include "transport/own.h"

#include <errno.h>
#include <ini.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum value { V_TEXT, V_PATH, V_COUNT, V_SWITCH, V_AUTO_OFF, V_STABILITY, V_METHOD, V_LAYOUT_METHOD, V_DDIO, V_PLACEMENT, V_LAYOUT_DOMAIN };

struct key {
	const char *section, *name;
	enum value value;
	size_t at;        /* in struct config, or struct fabric_conf for "fabric" */
	unsigned min, max; /* V_COUNT */
};

#define C(field) offsetof(struct config, field)
#define F(field) offsetof(struct fabric_conf, field)
static const struct key keys[] = {
	{ "server", "pool", V_PATH, C(pool), 0, 0 },
	{ "server", "workers", V_COUNT, C(workers), 1, 64 },
	{ "server", "control", V_PATH, C(control), 0, 0 },
	{ "server", "persistence", V_METHOD, C(method), 0, 0 },
	{ "server", "verify_reads", V_SWITCH, C(verify_reads), 0, 0 },
	{ "server", "supervise", V_SWITCH, C(supervise), 0, 0 },
	{ "server", "max_connections", V_COUNT, C(max_conns), 1, 100000 },
	{ "server", "idle_timeout", V_COUNT, C(idle_timeout), 1, 86400 },
	{ "server", "client_timeout", V_COUNT, C(client_timeout), 2, 86400 },
	{ "nfs", "listen", V_TEXT, C(listen), 0, 0 },
	{ "nfs", "port", V_COUNT, C(port), 0, 65535 },
	{ "nfs", "mount_port", V_COUNT, C(mount_port), 0, 65535 },
	{ "nfs", "rpcbind", V_AUTO_OFF, C(rpcbind_auto), 0, 0 },
	{ "nfs", "stability", V_STABILITY, C(stability), 0, 0 },
	{ "nfs", "drc", V_SWITCH, C(drc), 0, 0 },
	{ "nfs", "drc_age", V_COUNT, C(drc_age), 0, 10 * 365 * 86400 },
	{ "exports", "file", V_PATH, C(exports_file), 0, 0 },
	{ "fabric", "provider", V_TEXT, F(opts.provider), 0, 0 },
	{ "fabric", "fabric", V_TEXT, F(opts.fabric), 0, 0 },
	{ "fabric", "domain", V_TEXT, F(opts.domain), 0, 0 },
	{ "fabric", "node", V_TEXT, F(opts.node), 0, 0 },
	{ "fabric", "service", V_TEXT, F(opts.service), 0, 0 },
	{ "fabric", "ep_type", V_TEXT, F(opts.ep_type), 0, 0 },
	{ "fabric", "credits", V_COUNT, F(opts.credits), 1, 1024 },
	{ "fabric", "inline_size", V_COUNT, F(opts.inline_size), 1024, 65536 },
	{ "fabric", "read_depth", V_COUNT, F(opts.read_depth), 1, 256 },
	{ "fabric", "placement", V_PLACEMENT, F(opts.placement), 0, 0 },
	{ "fabric", "on_demand_paging", V_SWITCH, F(opts.odp), 0, 0 },
	{ "fabric", "layouts", V_SWITCH, F(layouts), 0, 0 },
	{ "fabric", "layout_lease", V_COUNT, F(lease), 1, 3600 }, /* 0: not set */
	{ "fabric", "layout_recall", V_COUNT, F(recall_ms), 0, 60000 },
	{ "fabric", "layout_count", V_COUNT, F(layout_count), 1, 65536 },
	{ "fabric", "layout_mib", V_COUNT, F(layout_mib), 1, 1 << 20 },
	{ "fabric", "layout_exclusive", V_SWITCH, F(layout_exclusive), 0, 0 },
	{ "fabric", "layout_domain", V_LAYOUT_DOMAIN, F(layout_domain), 0, 0 },
	{ "fabric", "layout_domains", V_COUNT, F(layout_domains), 1, 65536 },
	{ "fabric", "layout_domains_client", V_COUNT, F(layout_domains_client), 1, 65536 },
	{ "fabric", "persistence", V_LAYOUT_METHOD, F(method), 0, 0 },
	{ "fabric", "ddio", V_DDIO, F(ddio), 0, 0 },
};
#undef C
#undef F
#define NKEYS (sizeof(keys) / sizeof(*keys))

/* --- values ----------------------------------------------------------------------------------------- */

static bool parse_switch(const char *v, bool *out)
{
	static const char *const on[] = { "on", "yes", "true", "1" };
	static const char *const off[] = { "off", "no", "false", "0" };

	for (unsigned i = 0; i < 4; i++) {
		if (!strcasecmp(v, on[i]) || !strcasecmp(v, off[i])) {
			*out = !strcasecmp(v, on[i]);
			return true;
		}
	}
	return false;
}

/* Methods up to @last. */
static bool parse_method(const char *v, enum pm_method last, enum pm_method *out)
{
	int m = pm_method_parse(v);

	if (m < 0 || m > (int)last)
		return false;
	*out = (enum pm_method)m;
	return true;
}

static bool parse_ddio(const char *v, enum pm_ddio *out)
{
	bool on;

	if (!strcmp(v, "unknown")) {
		*out = PM_DDIO_UNKNOWN;
		return true;
	}
	if (!parse_switch(v, &on))
		return false;
	*out = on ? PM_DDIO_ON : PM_DDIO_OFF;
	return true;
}

static bool parse_placement(const char *v, enum tp_placement *out)
{
	static const char *const names[] = { [TP_PLACE_AUTO] = "auto",
					     [TP_PLACE_DIRECT] = "direct",
					     [TP_PLACE_STAGED] = "staged" };

	for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (!strcmp(v, names[i])) {
			*out = (enum tp_placement)i;
			return true;
		}
	}
	return false;
}

static bool parse_layout_domain(const char *v, enum layout_domain *out)
{
	if (strcmp(v, "client") && strcmp(v, "shared"))
		return false;
	*out = strcmp(v, "client") ? LAYOUT_DOMAIN_SHARED : LAYOUT_DOMAIN_CLIENT;
	return true;
}

/* Store @v into @at as @k says; on a mistake tell what would be right. */
static const char *set_value(const struct key *k, void *at, const char *v, char *want, size_t len)
{
	char *end, *copy;
	unsigned long n;

	switch (k->value) {
	case V_PATH:
		if (v[0] != '/')
			return "an absolute path";
		/* fall through */
	case V_TEXT:
		if (!*v)
			return "a value";
		copy = strdup(v);
		if (!copy)
			return "memory";
		free(*(char **)at);
		*(char **)at = copy;
		return NULL;
	case V_COUNT:
		n = strtoul(v, &end, 10);
		if (end == v || *end || *v == '-' || n < k->min || n > k->max) {
			snprintf(want, len, "a number from %u to %u", k->min, k->max);
			return want;
		}
		*(unsigned *)at = (unsigned)n;
		return NULL;
	case V_SWITCH:
		return parse_switch(v, at) ? NULL : "on or off";
	case V_AUTO_OFF:
		if (strcmp(v, "auto") && strcmp(v, "off"))
			return "auto or off";
		*(bool *)at = !strcmp(v, "auto");
		return NULL;
	case V_STABILITY:
		if (strcmp(v, "auto") && strcmp(v, "honor"))
			return "auto or honor";
		*(enum stability *)at = strcmp(v, "auto") ? STABILITY_HONOR : STABILITY_AUTO;
		return NULL;
	case V_PLACEMENT:
		return parse_placement(v, at) ? NULL : "auto, direct or staged";
	case V_METHOD:
		return parse_method(v, PM_VOLATILE, at) ? NULL : "auto, fence, clwb, msync or volatile";
	case V_LAYOUT_METHOD:
		return parse_method(v, PM_READ_AFTER_WRITE, at) ? NULL :
			"auto, commit-complete, read-after-write, or the pool's fence, clwb, msync, volatile";
	case V_LAYOUT_DOMAIN:
		return parse_layout_domain(v, at) ? NULL : "client or shared";
	case V_DDIO:
		return parse_ddio(v, at) ? NULL : "on, off or unknown";
	}
	return "something else";
}

/* --- keys ----------------------------------------------------------------------------------------------- */

static struct fabric_conf *fabric_get(struct config *c, const char *name)
{
	struct fabric_conf *f;

	STAILQ_FOREACH (f, &c->fabrics, link)
		if (!strcmp(f->opts.name, name))
			return f;
	f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	f->recall_ms = 200;
	f->layout_count = 256;
	f->layout_mib = 1024;
	f->opts.name = strdup(name);
	if (!f->opts.name) {
		free(f);
		return NULL;
	}
	STAILQ_INSERT_TAIL(&c->fabrics, f, link);
	return f;
}

static const struct key *find_key(const char *section, const char *name, bool *section_known)
{
	*section_known = false;
	for (size_t i = 0; i < NKEYS; i++) {
		if (strcmp(keys[i].section, section))
			continue;
		*section_known = true;
		if (!strcmp(keys[i].name, name))
			return &keys[i];
	}
	return NULL;
}

static void list_keys(const char *section, char *buf, size_t len)
{
	size_t used = 0;

	for (size_t i = 0; i < NKEYS; i++) {
		int n;

		if (strcmp(keys[i].section, section))
			continue;
		n = snprintf(buf + used, len - used, " %s", keys[i].name);
		if (n > 0 && used + (size_t)n < len)
			used += (size_t)n;
	}
}

/* Returns false with a message in @msg. */
static bool set_key(struct config *c, const char *section, const char *name, const char *value,
		    char *msg, size_t len)
{
	const char *kind = section, *wrong;
	const struct key *k;
	struct fabric_conf *f;
	char list[400] = "", want[60];
	void *base = c;
	bool known;

	if (!strncmp(section, "fabric ", 7))
		kind = "fabric";
	k = find_key(kind, name, &known);
	if (!known || (!strcmp(section, "fabric") && k)) {
		snprintf(msg, len, "no section [%s]; there are [server], [nfs], [exports] and [fabric NAME]",
			 section);
		return false;
	}
	if (!k) {
		list_keys(kind, list, sizeof(list));
		snprintf(msg, len, "[%s] has no key '%s'; it has%s", section, name, list);
		return false;
	}
	if (!strcmp(kind, "fabric")) {
		f = fabric_get(c, section + 7 + strspn(section + 7, " "));
		if (!f) {
			snprintf(msg, len, "out of memory");
			return false;
		}
		base = f;
	}
	wrong = set_value(k, (char *)base + k->at, value, want, sizeof(want));
	if (wrong)
		snprintf(msg, len, "%s = %s: must be %s", name, value, wrong);
	return !wrong;
}

/* --- the file ---------------------------------------------------------------------------------------------- */

struct said { /* a key that the file has set */
	SLIST_ENTRY(said) link;
	unsigned line;
	char name[]; /* "[section] key" */
};

struct reading {
	struct config *c;
	SLIST_HEAD(, said) said;
	const char *path;
	FILE *f;
	unsigned line;
	char *why;
	size_t len, used;
	unsigned errors;
};

static void complain(struct reading *r, unsigned line, const char *msg)
{
	int n = snprintf(r->why + r->used, r->len - r->used, "%s%s:%u: %s", r->errors ? "\n" : "",
			 r->path, line, msg);

	r->errors++;
	if (n > 0 && r->used + (size_t)n < r->len)
		r->used += (size_t)n;
}

static char *read_line(char *buf, int size, void *arg)
{
	struct reading *r = arg;

	r->line++;
	return fgets(buf, size, r->f);
}

/* The line that set it before, or 0. */
static unsigned said_before(struct reading *r, const char *section, const char *name)
{
	size_t len = strlen(section) + strlen(name) + 4;
	struct said *new = malloc(sizeof(*new) + len), *s;

	if (!new)
		return 0;
	snprintf(new->name, len, "[%s] %s", section, name);
	SLIST_FOREACH (s, &r->said, link) {
		if (!strcmp(s->name, new->name)) {
			free(new);
			return s->line;
		}
	}
	new->line = r->line;
	SLIST_INSERT_HEAD(&r->said, new, link);
	return 0;
}

static int on_key(void *arg, const char *section, const char *name, const char *value)
{
	struct reading *r = arg;
	unsigned before = said_before(r, section, name);
	char msg[480];

	if (before)
		snprintf(msg, sizeof(msg), "[%s] %s is set in line %u already", section, name, before);
	if (before || !set_key(r->c, section, name, value, msg, sizeof(msg)))
		complain(r, r->line, msg);
	return 1;
}

int config_load(struct config *c, const char *path, char *why, size_t why_len)
{
	struct reading r = { .c = c, .path = path, .why = why, .len = why_len };
	struct said *s;
	int line;

	r.f = fopen(path, "re");
	if (!r.f) {
		int err = -errno;

		snprintf(why, why_len, "configuration %s: %s; -c names it", path, strerror(-err));
		return err;
	}
	line = ini_parse_stream(read_line, &r, on_key, &r);
	fclose(r.f);
	while ((s = SLIST_FIRST(&r.said))) {
		SLIST_REMOVE_HEAD(&r.said, link);
		free(s);
	}
	if (line > 0)
		complain(&r, (unsigned)line, "neither [section] nor key = value, or too long");
	else if (line < 0)
		complain(&r, r.line, "cannot be read");
	return r.errors ? -EINVAL : 0;
}

int config_override(struct config *c, const char *text, char *why, size_t why_len)
{
	char copy[1200], msg[480], *eq, *dot = NULL;

	if (strlen(text) >= sizeof(copy) || !strchr(text, '=')) {
		snprintf(why, why_len, "-o %s: write section.key=value", text);
		return -EINVAL;
	}
	strcpy(copy, text);
	eq = strchr(copy, '=');
	*eq++ = '\0';
	dot = strrchr(copy, '.');
	if (!dot || dot == copy || !dot[1]) {
		snprintf(why, why_len, "-o %s: write section.key=value", text);
		return -EINVAL;
	}
	*dot++ = '\0';
	if (!set_key(c, copy, dot, eq, msg, sizeof(msg))) {
		snprintf(why, why_len, "-o %s: %s", text, msg);
		return -EINVAL;
	}
	return 0;
}

/* --- the whole ------------------------------------------------------------------------------------------------- */

void config_init(struct config *c)
{
	*c = (struct config){ .workers = 1, .port = 2049, .mount_port = UINT32_MAX,
			      .rpcbind_auto = true, .drc = true, .drc_age = 3600, .supervise = true, .max_conns = 4096,
			      .idle_timeout = 60,
			      .client_timeout = 180 };
	STAILQ_INIT(&c->fabrics);
}

static char *default_control(void)
{
	const char *run = getenv("XDG_RUNTIME_DIR");
	char *path;

	if (geteuid() == 0 || !run || run[0] != '/')
		return strdup("/run/berth/control.sock");
	return asprintf(&path, "%s/berth.sock", run) < 0 ? NULL : path;
}

/* Where keys are the provider's, and short, each client has its own. A domain is a connection's (FI_EP_MSG). */
static int finish_layout_domain(struct fabric_conf *f, char *why, size_t why_len)
{
	bool rdm = f->opts.ep_type && !strcmp(f->opts.ep_type, "FI_EP_RDM");
	bool own = f->layout_domain == LAYOUT_DOMAIN_CLIENT;
	struct tp_own_advice advice;

	tp_own_advise(f->opts.provider, f->opts.ep_type, &advice);
	if (own && !strcmp(f->opts.provider, "shm")) {
		snprintf(why, why_len, "[fabric %s] layout_domain = client: the shm provider looks at no key, in whatever "
				       "domain; leave it away, or use tcp or verbs", f->opts.name);
		return -EINVAL;
	}
	if (own && rdm) {
		snprintf(why, why_len, "[fabric %s] layout_domain = client: endpoints of FI_EP_RDM share one domain; set "
				       "ep_type = FI_EP_MSG, or layout_domain = shared", f->opts.name);
		return -EINVAL;
	}
	if (f->layout_domain == LAYOUT_DOMAIN_AUTO)
		own = advice.better;
	if (own && f->layouts)
		f->opts.own = (struct tp_own){ .prog = LAYOUT_PROGRAM,
			                       .most = f->layout_domains ? f->layout_domains : advice.most,
			                       .most_of_one = f->layout_domains_client ? f->layout_domains_client :
			                                                                 advice.most_of_one };
	return 0;
}

int config_finish(struct config *c, char *why, size_t why_len)
{
	struct fabric_conf *f;

	if (!c->control)
		c->control = default_control();
	if (c->mount_port == UINT32_MAX)
		c->mount_port = c->port;
	if (!c->control)
		return -ENOMEM;
	if (!c->pool) {
		snprintf(why, why_len, "no pool: set pool in [server], or -o server.pool=PATH; "
				       "`berth mkfs PATH` makes one");
		return -EINVAL;
	}
	if (!c->exports_file) {
		snprintf(why, why_len, "no exports: set file in [exports], or -o exports.file=PATH");
		return -EINVAL;
	}
	STAILQ_FOREACH (f, &c->fabrics, link) {
		if (!f->opts.provider) {
			snprintf(why, why_len, "[fabric %s] has no provider; tcp, verbs and shm are usual "
					       "(fi_info -l lists what libfabric has here)", f->opts.name);
			return -EINVAL;
		}
		if (finish_layout_domain(f, why, why_len))
			return -EINVAL;
	}
	if (c->port == 0 && STAILQ_EMPTY(&c->fabrics)) {
		snprintf(why, why_len, "[nfs] port = 0 switches sockets off, and there is no [fabric NAME]: "
				       "nobody could connect");
		return -EINVAL;
	}
	return 0;
}

void config_free(struct config *c)
{
	struct fabric_conf *f;

	while ((f = STAILQ_FIRST(&c->fabrics))) {
		STAILQ_REMOVE_HEAD(&c->fabrics, link);
		free((char *)f->opts.name);
		free((char *)f->opts.provider);
		free((char *)f->opts.fabric);
		free((char *)f->opts.domain);
		free((char *)f->opts.node);
		free((char *)f->opts.service);
		free((char *)f->opts.ep_type);
		free(f);
	}
	free(c->pool);
	free(c->control);
	free(c->listen);
	free(c->exports_file);
}
