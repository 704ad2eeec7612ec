/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * probe.c - berth probe: what libfabric offers here, what Berth would do with it, and how durable that is
 *
 * Providers search for devices, print, and now and then hang or crash. So each is asked in a process of its own,
 * with its output thrown away and its time bounded; the answer comes back through a pipe as JSON.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/cmd/cmd.h"
#include "pmemio/pmemio.h"
#include "transport/transport.h"
#include "transport/own.h"

#define SELFTEST_MS 3000
#define MAX_ASKED   40

struct probe {
	const char *pool, *only;
	bool json, markdown;
	unsigned seconds;
	enum pm_ddio ddio;
	struct pm_look look; /* pool */
	bool line_flush;
	json_t *result; /* in the child: what it answers */
};

static json_t *text_or_null(const char *s)
{
	return s && *s ? json_string(s) : json_null();
}

/* --- NUMA: where devices are ------------------------------------------------------------------- */

static int read_number(const char *path)
{
	FILE *f = fopen(path, "re");
	int n = -1;

	if (f && fscanf(f, "%d", &n) != 1)
		n = -1;
	if (f)
		fclose(f);
	return n;
}

static int device_node(const char *domain)
{
	static const char *const classes[] = { "infiniband", "net" };
	char path[256];
	int node = -1;

	for (size_t i = 0; i < 2 && node < 0 && !strchr(domain, '/'); i++) {
		snprintf(path, sizeof(path), "/sys/class/%s/%.100s/device/numa_node", classes[i], domain);
		node = read_number(path);
	}
	return node;
}

static int pool_node(int fd)
{
	static const char *const where[] = { "numa_node", "target_node", "device/numa_node", "../device/numa_node" };
	struct stat sb;
	char path[256];
	int node = -1;

	if (fstat(fd, &sb))
		return -1;
	for (size_t i = 0; i < 4 && node < 0; i++) {
		dev_t dev = S_ISCHR(sb.st_mode) ? sb.st_rdev : sb.st_dev;

		snprintf(path, sizeof(path), "/sys/dev/%s/%u:%u/%s", S_ISCHR(sb.st_mode) ? "char" : "block", major(dev),
		         minor(dev), where[i]);
		node = read_number(path);
	}
	return node;
}

/* As the kernel rates it: 10 is the same node. */
static int node_distance(int from, int to)
{
	char path[128];
	int n = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/distance", from);
	f = from < 0 || to < 0 ? NULL : fopen(path, "re");
	for (int i = 0; f && i <= to; i++)
		if (fscanf(f, "%d", &n) != 1)
			n = -1;
	if (f)
		fclose(f);
	return n;
}

static json_t *node_json(int n)
{
	return n < 0 ? json_null() : json_integer(n);
}

/* --- one offer ---------------------------------------------------------------------------------- */

static json_t *verdict_json(const struct pm_facts *f)
{
	struct pm_verdict v;
	json_t *o = json_object();
	int err = pm_persist(f, &v);

	json_object_set_new(o, "method", err ? json_null() : json_string(pm_method_name(v.method)));
	json_object_set_new(o, "reason", json_string(v.reason));
	json_object_set_new(o, "not_promised", text_or_null(v.not_promised));
	return o;
}

static void add_persistence(const struct probe *p, const struct tp_provider_facts *t, json_t *o)
{
	struct pm_facts f = { .gran = p->look.gran, .map_sync = p->look.map_sync, .line_flush = p->line_flush,
		              .rma_pmem = t->rma_pmem, .commit_test = (enum pm_selftest)t->commit_test,
		              .verbs_like = t->verbs_like, .ddio = p->ddio,
		              .placement = t->staged ? PM_PLACE_STAGED : PM_PLACE_DIRECT };
	int from = device_node(t->domain), to = pool_node(p->look.fd);

	json_object_set_new(o, "placement", json_string(t->staged ? "staged" : t->memory_err ? "none" : "direct"));
	json_object_set_new(o, "placement_error", t->memory_err ? json_string(strerror(-t->memory_err)) : json_null());
	f.purpose = PM_FOR_SERVER;
	json_object_set_new(o, "persistence", verdict_json(&f));
	f.purpose = PM_FOR_LAYOUT;
	json_object_set_new(o, "layout_persistence", verdict_json(&f));
	json_object_set_new(o, "layouts", json_boolean(!t->staged && !t->memory_err));
	json_object_set_new(o, "pool_numa_node", node_json(to));
	json_object_set_new(o, "numa_distance", node_json(node_distance(from, to)));
}

static const char *const test_name[] = { "not run", "passed", "failed" };

static void add_facts(const struct tp_provider_facts *t, json_t *o)
{
	json_object_set_new(o, "mr_mode", json_string(t->mr_mode));
	json_object_set_new(o, "key_size", json_integer(t->key_size));
	json_object_set_new(o, "addressing", json_string(t->virt ? "virtual" : "offset"));
	json_object_set_new(o, "wait", json_string(t->wait_fd ? "descriptor" : "polled"));
	json_object_set_new(o, "msg_order", json_string(t->msg_order));
	json_object_set_new(o, "send_after_write", json_boolean(t->send_after_write));
	json_object_set_new(o, "keys_checked", json_boolean(t->fenced));
	json_object_set_new(o, "iov_limit", json_integer((json_int_t)t->iov_limit));
	json_object_set_new(o, "rma_iov_limit", json_integer((json_int_t)t->rma_iov_limit));
	json_object_set_new(o, "max_msg_size", json_integer((json_int_t)(t->max_msg_size & INT64_MAX)));
	json_object_set_new(o, "rma_pmem", json_boolean(t->rma_pmem));
	json_object_set_new(o, "commit_test", json_string(test_name[t->commit_test]));
	json_object_set_new(o, "commit_error", t->commit_err ? json_string(strerror(-t->commit_err)) : json_null());
	json_object_set_new(o, "numa_node", node_json(device_node(t->domain)));
}

static json_t *count_json(unsigned n)
{
	return n ? json_integer(n) : json_null();
}

/* Whose keys are good on which connection, by the default of layout_domain. */
static json_t *domains_json(const struct tp_own_advice *own)
{
	return json_pack("{s:s, s:b, s:s, s:o, s:o, s:o, s:o}", "default", own->better ? "client" : "shared", "client_possible",
	                 own->possible, "reason", own->why, "kib_each", count_json(own->kib), "descriptors_each",
	                 count_json(own->descriptors), "layout_domains", count_json(own->most), "layout_domains_client",
	                 count_json(own->most_of_one));
}

/* What to put into berth.conf. */
static json_t *section(const struct tp_offer *of, const struct tp_own_advice *own)
{
	bool shm = !strcmp(of->provider, "shm"), tcp = !strcmp(of->provider, "tcp");
	char buf[600], name[64], domain[80] = "", node[80] = "", keys[40] = "";
	size_t n = 0;

	for (const char *s = tcp || shm ? of->provider : of->domain; *s && n + 1 < sizeof(name); s++)
		name[n++] = strchr("[]=;#. ", *s) ? '-' : *s;
	name[n] = '\0';
	if (!tcp && !shm && of->domain[0])
		snprintf(domain, sizeof(domain), "domain = %s\n", of->domain);
	if (of->address[0])
		snprintf(node, sizeof(node), "node = %s\n", of->address);
	if (own->possible)
		snprintf(keys, sizeof(keys), "layout_domain = %s\n", own->better ? "client" : "shared");
	snprintf(buf, sizeof(buf), "[fabric %s]\nprovider = %s\n%s%sservice = %s\n%s", name, of->provider, domain, node,
	         shm ? "berth" : "20049", keys);
	return json_string(buf);
}

/* fe80::/10: a node of that address says nothing without its interface. */
static bool link_local(const char *address)
{
	struct in6_addr a;

	return inet_pton(AF_INET6, address, &a) == 1 && IN6_IS_ADDR_LINKLOCAL(&a);
}

static void judge(struct probe *p, const struct tp_offer *of, json_t *o)
{
	struct tp_fabric_opts opts = { .name = of->domain, .provider = of->provider, .domain = of->domain,
		                       .fabric = of->fabric, .ep_type = of->ep_type,
		                       .node = of->address[0] ? of->address : NULL };
	struct tp_region mem = { .base = p->look.base, .len = PM_BLOCK };
	struct tp_provider_facts t;
	struct tp_own_advice own;
	struct tp_error why = { "" };
	int err;

	if (strchr(of->provider, ';'))
		snprintf(why.text, sizeof(why.text), "a layered provider: Berth uses its parts");
	else if (!of->rma || (strcmp(of->ep_type, "FI_EP_MSG") && strcmp(of->ep_type, "FI_EP_RDM")))
		snprintf(why.text, sizeof(why.text), "no messages with RMA (FI_MSG, FI_RMA) on FI_EP_MSG or FI_EP_RDM");
	else if (!strcmp(of->provider, "sockets") || !strcmp(of->provider, "net"))
		snprintf(why.text, sizeof(why.text), "superseded by tcp in libfabric itself");
	else if (link_local(of->address))
		snprintf(why.text, sizeof(why.text), "%s is link-local: name another address", of->address);
	err = why.text[0] ? -ENOTSUP : tp_provider_try(&opts, p->pool ? &mem : NULL, SELFTEST_MS, &t, &why);
	json_object_set_new(o, "usable", json_boolean(!err));
	json_object_set_new(o, "why", err ? json_string(why.text) : json_null());
	if (err)
		return;
	add_facts(&t, o);
	if (p->pool)
		add_persistence(p, &t, o);
	tp_own_advise(of->provider, of->ep_type, &own);
	json_object_set_new(o, "layout_domain", domains_json(&own));
	json_object_set_new(o, "config", section(of, &own));
}

static bool same(json_t *o, const char *key, const char *value)
{
	return !strcmp(json_string_value(json_object_get(o, key)), value);
}

/* One entry for each fabric, domain and endpoint type; further addresses are told with it. */
static void on_offer(void *arg, const struct tp_offer *of)
{
	struct probe *p = arg;
	json_t *o, *list = p->result;
	size_t i;

	json_array_foreach(list, i, o)
		if (same(o, "fabric", of->fabric) && same(o, "domain", of->domain) && same(o, "ep_type", of->ep_type)) {
			if (of->address[0])
				json_array_append_new(json_object_get(o, "addresses"), json_string(of->address));
			return;
		}
	o = json_pack("{s:s, s:s, s:s, s:s, s:[]}", "provider", of->provider, "fabric", of->fabric, "domain", of->domain,
	              "ep_type", of->ep_type, "addresses");
	if (of->address[0])
		json_array_append_new(json_object_get(o, "addresses"), json_string(of->address));
	judge(p, of, o);
	json_array_append_new(list, o);
}

/* --- a process for each question ------------------------------------------------------------- */

struct asked {
	char provider[64]; /* empty: which there are */
	pid_t pid;
	int fd;
	char *text;
	size_t len;
	bool ended;
};

static void on_name(void *arg, const char *name)
{
	json_array_append_new(((struct probe *)arg)->result, json_string(name));
}

static void answer(struct probe *p, const char *provider, int out)
{
	int null = open("/dev/null", O_RDWR);

	dup2(null, 1);
	dup2(null, 2);
	p->result = json_array();
	if (*provider)
		setenv("FI_PROVIDER", provider, 1);
	if (*provider ? tp_offers(provider, on_offer, p) : tp_provider_names(on_name, p))
		_exit(1);
	_exit(json_dumpfd(p->result, out, JSON_COMPACT) ? 1 : 0);
}

static int question(struct probe *p, const char *provider, struct asked *a)
{
	int fds[2];

	*a = (struct asked){ .fd = -1 };
	snprintf(a->provider, sizeof(a->provider), "%s", provider);
	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	fflush(NULL);
	a->pid = fork();
	if (a->pid == 0)
		answer(p, provider, fds[1]);
	close(fds[1]);
	a->fd = fds[0];
	return a->pid < 0 ? -errno : 0;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void take(struct asked *a)
{
	char *more = realloc(a->text, a->len + 65536);
	ssize_t n;

	if (more)
		a->text = more;
	n = more ? read(a->fd, a->text + a->len, 65535) : 0;
	if (n > 0)
		a->len += (size_t)n;
	else
		a->ended = true;
}

/* Until all have answered, or the time is over: then those that are left are killed. */
static void collect(struct asked *list, unsigned n, unsigned seconds)
{
	int64_t until = now_ms() + seconds * 1000ll;
	struct pollfd fds[MAX_ASKED];
	unsigned open = n;

	while (open && now_ms() < until) {
		open = 0;
		for (unsigned i = 0; i < n; i++) {
			fds[i] = (struct pollfd){ .fd = list[i].ended ? -1 : list[i].fd, .events = POLLIN };
			open += !list[i].ended;
		}
		if (!open || poll(fds, n, (int)(until - now_ms() > 0 ? until - now_ms() : 0)) <= 0)
			continue;
		for (unsigned i = 0; i < n; i++)
			if (fds[i].fd >= 0 && fds[i].revents)
				take(&list[i]);
	}
}

/* The answer; NULL with the reason why there is none. */
static json_t *finish(struct asked *a, unsigned seconds, char *why, size_t len)
{
	int status = 0;
	json_t *o;

	if (!a->ended)
		kill(a->pid, SIGKILL);
	waitpid(a->pid, &status, 0);
	close(a->fd);
	o = a->ended && WIFEXITED(status) && !WEXITSTATUS(status) ? json_loadb(a->text, a->len, 0, NULL) : NULL;
	if (!a->ended)
		snprintf(why, len, "did not answer within %u s (--timeout)", seconds);
	else if (WIFSIGNALED(status))
		snprintf(why, len, "crashed when asked: %s", strsignal(WTERMSIG(status)));
	else
		snprintf(why, len, "could not be asked");
	free(a->text);
	return o;
}

static json_t *provider_names(struct probe *p)
{
	static const char *const known[] = { "verbs", "tcp", "shm", "efa", "psm3", "cxi", "opx", "ucx" };
	json_t *names = NULL, *list = json_array();
	struct asked a;
	char why[80];
	const char *s;
	size_t i;

	if (!p->only && !question(p, "", &a)) {
		collect(&a, 1, p->seconds);
		names = finish(&a, p->seconds, why, sizeof(why));
	}
	if (p->only)
		json_array_append_new(list, json_string(p->only));
	else if (!names)
		for (i = 0; i < sizeof(known) / sizeof(*known); i++)
			json_array_append_new(list, json_string(known[i]));
	for (i = 0; i < json_array_size(names); i++) {
		s = json_string_value(json_array_get(names, i));
		if (s && !strchr(s, ';') && strncmp(s, "ofi_", 4))
			json_array_append_new(list, json_string(s));
	}
	json_decref(names);
	return list;
}

/* Entries of all providers, those that offer nothing too. */
static json_t *ask_all(struct probe *p)
{
	json_t *names = provider_names(p), *all = json_array(), *got;
	struct asked list[MAX_ASKED];
	unsigned n = 0;
	char why[100];

	for (size_t i = 0; i < json_array_size(names) && n < MAX_ASKED; i++)
		n += !question(p, json_string_value(json_array_get(names, i)), &list[n]);
	collect(list, n, p->seconds);
	for (unsigned i = 0; i < n; i++) {
		got = finish(&list[i], p->seconds, why, sizeof(why));
		if (json_array_size(got))
			json_array_extend(all, got);
		else
			json_array_append_new(all, json_pack("{s:s, s:b, s:s}", "provider", list[i].provider, "usable", 0,
			                                     "why", got ? "offers nothing on this machine" : why));
		json_decref(got);
	}
	json_decref(names);
	return all;
}

/* --- for people --------------------------------------------------------------------------------- */

static const char *str(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "-";
}

static const char *first_address(json_t *o)
{
	const char *s = json_string_value(json_array_get(json_object_get(o, "addresses"), 0));

	return s ? s : "";
}

static void print_verdict(const char *what, json_t *v)
{
	const char *not = json_string_value(json_object_get(v, "not_promised"));

	printf("    %-12s %s: %s\n", what, json_string_value(json_object_get(v, "method")) ? str(v, "method") : "none",
	       str(v, "reason"));
	if (not)
		printf("    %-12s not promised: %s\n", "", not);
}

/* Nothing where the kernel tells of no node: one there is, or a device of none. */
static void print_numa(json_t *o)
{
	json_t *node = json_object_get(o, "numa_node"), *pool = json_object_get(o, "pool_numa_node");
	json_t *distance = json_object_get(o, "numa_distance");

	if (!json_is_integer(node))
		return;
	printf("    %-12s node %lld", "NUMA", (long long)json_integer_value(node));
	if (json_is_integer(pool))
		printf(", the pool node %lld", (long long)json_integer_value(pool));
	if (json_is_integer(distance))
		printf(", distance %lld (10: the same)", (long long)json_integer_value(distance));
	printf("\n");
}

static void print_domains(json_t *d)
{
	bool client = !strcmp(str(d, "default"), "client");
	json_t *kib = json_object_get(d, "kib_each");

	printf("    %-12s layout_domain = %s%s: %s", "layout keys", str(d, "default"),
	       json_is_true(json_object_get(d, "client_possible")) ? " by default" : ", no other", str(d, "reason"));
	if (json_is_integer(kib))
		printf("; %s %lld KiB and %lld descriptors of the server for each client, for %lld clients at most",
		       client ? "it takes" : "client would take", (long long)json_integer_value(kib),
		       (long long)json_integer_value(json_object_get(d, "descriptors_each")),
		       (long long)json_integer_value(json_object_get(d, "layout_domains")));
	printf("\n");
}

static void print_usable(json_t *o, bool pool)
{
	const char *at = first_address(o);
	bool pmem = json_is_true(json_object_get(o, "rma_pmem"));

	const char *err = json_string_value(json_object_get(o, "commit_error"));

	printf("%-6s %-12s %-9s  %s%skeys %lld B, %s addresses, %s%s%s%s%s%s\n", str(o, "provider"), str(o, "domain"),
	       str(o, "ep_type"), at, *at ? ", " : "",
	       (long long)json_integer_value(json_object_get(o, "key_size")), str(o, "addressing"), str(o, "wait"),
	       pmem ? ", FI_RMA_PMEM, self-test " : "", pmem ? str(o, "commit_test") : "", err ? " (" : "", err ? err : "",
	       err ? ")" : "");
	print_numa(o);
	print_domains(json_object_get(o, "layout_domain"));
	if (pool) {
		printf("    %-12s %s\n", "placement", str(o, "placement"));
		print_verdict("server", json_object_get(o, "persistence"));
		print_verdict("layouts", json_object_get(o, "layout_persistence"));
	}
}

/* Entries that differ in nothing that is shown (their fabric) are shown once. */
static void print_unusable(json_t *list)
{
	char line[400], before[400] = "";
	json_t *e;
	size_t i;

	json_array_foreach(list, i, e) {
		if (json_is_true(json_object_get(e, "usable")))
			continue;
		snprintf(line, sizeof(line), "%-6s %-12s %-9s  %s\n", str(e, "provider"), str(e, "domain"), str(e, "ep_type"),
		         str(e, "why"));
		if (strcmp(line, before))
			fputs(line, stdout);
		strcpy(before, line);
	}
}

static void print_readably(const struct probe *p, json_t *o)
{
	json_t *e, *list = json_object_get(o, "offers");
	size_t i;

	printf("libfabric %s, CPU write-back %s\n", str(o, "libfabric"), str(o, "cpu_line_flush"));
	if (p->pool)
		printf("pool %s: granularity %s%s\n", p->pool, pm_gran_name(p->look.gran),
		       p->look.map_sync ? ", confirmed by the kernel" : "");
	printf("ddio: %s\n\nusable:\n", str(o, "ddio_hint"));
	json_array_foreach(list, i, e) if (json_is_true(json_object_get(e, "usable"))) print_usable(e, p->pool);
	printf("\nnot usable:\n");
	print_unusable(list);
	printf("\nfor berth.conf, choose:\n");
	json_array_foreach(list, i, e) if (json_object_get(e, "config")) printf("%s\n", str(e, "config"));
}

/* --- for providers.md ----------------------------------------------------------------------------- */

static void markdown_providers(json_t *list)
{
	json_t *e;
	size_t i;

	printf("| provider | endpoint | key bytes | addresses | wait | send after write | keys checked | FI_RMA_PMEM | self-test |\n"
	       "|---|---|---|---|---|---|---|---|---|\n");
	json_array_foreach(list, i, e)
	{
		const char *name = str(e, "provider"), *type = str(e, "ep_type");
		bool shm = !strcmp(name, "shm");

		if (!json_is_true(json_object_get(e, "usable")) || (strcmp(name, "tcp") && strcmp(name, "verbs") && !shm) ||
		    strcmp(type, shm ? "FI_EP_RDM" : "FI_EP_MSG") || (!strcmp(name, "tcp") && strcmp(first_address(e), "127.0.0.1")))
			continue;
		printf("| `%s` | %s | %lld | %s | %s | %s | %s | %s | %s |\n", name, type,
		       (long long)json_integer_value(json_object_get(e, "key_size")), str(e, "addressing"), str(e, "wait"),
		       json_is_true(json_object_get(e, "send_after_write")) ? "yes" : "no",
		       json_is_true(json_object_get(e, "keys_checked")) ? "yes" : "no",
		       json_is_true(json_object_get(e, "rma_pmem")) ? "yes" : "no", str(e, "commit_test"));
	}
}

static void markdown_persistence(void)
{
	static const struct {
		const char *name;
		bool pmem, verbs;
		enum pm_ddio ddio;
	} kinds[] = { { "`tcp` (FI_RMA_PMEM, self-test passed)", true, false, PM_DDIO_UNKNOWN },
		      { "`verbs`", false, true, PM_DDIO_UNKNOWN },
		      { "`verbs`, `ddio = off`", false, true, PM_DDIO_OFF },
		      { "`shm` and others", false, false, PM_DDIO_UNKNOWN } };
	struct pm_verdict v;

	printf("| who places | BYTE | CACHE_LINE | PAGE |\n|---|---|---|---|\n");
	for (int k = -1; k < 4; k++) {
		struct pm_facts f = { .purpose = PM_FOR_SERVER, .map_sync = true, .line_flush = true };

		if (k >= 0) {
			f.purpose = PM_FOR_LAYOUT;
			f.rma_pmem = kinds[k].pmem;
			f.commit_test = kinds[k].pmem ? PM_TEST_PASSED : PM_TEST_NOT_RUN;
			f.verbs_like = kinds[k].verbs;
			f.ddio = kinds[k].ddio;
		}
		printf("| %s%s |", k < 0 ? "the server, over anything" : "a client, over ", k < 0 ? "" : kinds[k].name);
		for (f.gran = PM_GRAN_BYTE; f.gran <= PM_GRAN_PAGE; f.gran++) {
			pm_persist(&f, &v);
			printf(" %s |", pm_method_name(v.method));
		}
		printf("\n");
	}
}

/* --- the command ---------------------------------------------------------------------------------- */

static int probe_options(struct cmd *c, int argc, char **argv, struct probe *p)
{
	static const struct option longs[] = {
		{ "json", no_argument, NULL, 'j' },        { "pool", required_argument, NULL, 'p' },
		{ "provider", required_argument, NULL, 'P' }, { "ddio", required_argument, NULL, 'd' },
		{ "timeout", required_argument, NULL, 't' }, { "markdown", no_argument, NULL, 'm' }, { 0 }
	};
	static const char *const ddio[] = { "unknown", "on", "off" };
	char *end;
	int opt;

	while ((opt = next_option(c, argc, argv, "", longs)) != -1) {
		if (opt == 'H')
			return EXIT_OK;
		if (opt == '?')
			return EXIT_USAGE;
		if (opt == 'j')
			p->json = true;
		else if (opt == 'm')
			p->markdown = true;
		else if (opt == 'p')
			p->pool = optarg;
		else if (opt == 'P')
			p->only = optarg;
		else if (opt == 't') {
			p->seconds = (unsigned)strtoul(optarg, &end, 10);
			if (*end || end == optarg || !p->seconds || p->seconds > 3600)
				return usage_error(c, "--timeout %s: seconds, 1 to 3600", optarg);
		} else if (opt == 'd') {
			int i = 2;

			while (i >= 0 && strcmp(optarg, ddio[i]))
				i--;
			if (i < 0)
				return usage_error(c, "--ddio %s: on, off or unknown", optarg);
			p->ddio = (enum pm_ddio)i;
		}
	}
	return optind < argc ? usage_error(c, "unexpected '%s'; --pool names a pool", argv[optind]) : -1;
}

static const char *ddio_hint(const struct probe *p)
{
	if (p->ddio != PM_DDIO_UNKNOWN)
		return p->ddio == PM_DDIO_ON ? "on, as you say" : "off, as you say";
	return "unknown: the kernel does not tell whether cards write into the CPU's caches; most servers do";
}

static json_t *pool_json(const struct probe *p)
{
	return json_pack("{s:s, s:s, s:b, s:o}", "path", p->pool, "granularity", pm_gran_name(p->look.gran), "map_sync",
	                 p->look.map_sync, "numa_node", node_json(pool_node(p->look.fd)));
}

int cmd_probe(struct cmd *c, int argc, char **argv)
{
	struct probe p = { .seconds = 15 };
	struct pm_error why = { "" };
	int code = probe_options(c, argc, argv, &p);
	unsigned major, minor;
	const char *cpu;
	char version[32];
	json_t *o;

	if (code >= 0)
		return code;
	if (p.pool && pm_look_open(p.pool, &p.look, &why)) {
		complain("%s", why.text);
		return EXIT_SOME;
	}
	p.line_flush = pm_cpu_line_flush(&cpu);
	tp_fabric_version(&major, &minor);
	snprintf(version, sizeof(version), "%u.%u", major, minor);
	o = json_pack("{s:s, s:s, s:s, s:o, s:o}", "libfabric", version, "cpu_line_flush", cpu, "ddio_hint", ddio_hint(&p),
	              "pool", p.pool ? pool_json(&p) : json_null(), "offers", ask_all(&p));
	if (p.pool)
		pm_look_close(&p.look);
	if (p.json)
		return json_print(o);
	if (p.markdown) {
		markdown_providers(json_object_get(o, "offers"));
		printf("\n");
		markdown_persistence();
	} else {
		print_readably(&p, o);
	}
	json_decref(o);
	return fflush(stdout) ? EXIT_SOME : EXIT_OK;
}
