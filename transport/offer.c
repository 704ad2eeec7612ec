/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * offer.c - what libfabric offers here, and what comes of it when it is tried
 *
 * fi_getinfo tells what a provider claims. tp_provider_try() opens it as a listener would, registers memory, and where
 * FI_RMA_PMEM is claimed sends a write with FI_COMMIT_COMPLETE from an endpoint of its own to another: durability
 * must rest on nothing that was only claimed. Both ends are driven here, since software providers (tcp) answer
 * only while their target asks for completions.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <rdma/fi_errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "transport/fabric.h"
#include "transport/own.h"

#define TEST_BYTES 256u

/* --- what is offered -------------------------------------------------------------------------- */

static const char *address_text(const struct fi_info *i, char *buf, size_t len)
{
	const struct sockaddr *sa = i->src_addr;
	const void *at = NULL;

	*buf = '\0';
	if (!sa || i->src_addrlen < sizeof(struct sockaddr_in))
		return buf;
	if (sa->sa_family == AF_INET)
		at = &((const struct sockaddr_in *)i->src_addr)->sin_addr;
	else if (sa->sa_family == AF_INET6 && i->src_addrlen >= sizeof(struct sockaddr_in6))
		at = &((const struct sockaddr_in6 *)i->src_addr)->sin6_addr;
	if (!at || !inet_ntop(sa->sa_family, at, buf, (socklen_t)len))
		*buf = '\0';
	return buf;
}

static void fill_offer(const struct fi_info *i, struct tp_offer *o)
{
	const char *type = fi_tostr(&i->ep_attr->type, FI_TYPE_EP_TYPE);

	memset(o, 0, sizeof(*o));
	snprintf(o->provider, sizeof(o->provider), "%s", i->fabric_attr->prov_name);
	snprintf(o->fabric, sizeof(o->fabric), "%s", i->fabric_attr->name ? i->fabric_attr->name : "");
	snprintf(o->domain, sizeof(o->domain), "%s", i->domain_attr->name ? i->domain_attr->name : "");
	snprintf(o->ep_type, sizeof(o->ep_type), "%s", type ? type : "");
	address_text(i, o->address, sizeof(o->address));
	o->rma = (i->caps & FI_RMA) && (i->caps & FI_MSG);
	o->rma_pmem = i->caps & FI_RMA_PMEM;
}

int tp_offers(const char *provider, void (*offer)(void *arg, const struct tp_offer *o), void *arg)
{
	struct fi_info *hints = fi_allocinfo(), *list = NULL;
	struct tp_offer o;
	int err = hints ? 0 : -ENOMEM;

	if (!err && provider) {
		hints->fabric_attr->prov_name = strdup(provider);
		err = hints->fabric_attr->prov_name ? 0 : -ENOMEM;
	}
	if (!err) {
		hints->mode = ~0ull;
		hints->domain_attr->mode = ~0ull;
		hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
		err = fi_getinfo(FAB_API, NULL, NULL, 0, hints, &list);
	}
	if (hints)
		fi_freeinfo(hints);
	if (err)
		return err == -FI_ENODATA ? 0 : err;
	for (const struct fi_info *i = list; i; i = i->next) {
		fill_offer(i, &o);
		if (!provider || !strcmp(provider, o.provider)) /* layered ones answer to the name of a part */
			offer(arg, &o);
	}
	fi_freeinfo(list);
	return 0;
}

int tp_provider_names(void (*name)(void *arg, const char *provider), void *arg)
{
	struct fi_info *list = NULL;
	int err = fi_getinfo(FAB_API, NULL, NULL, FI_PROV_ATTR_ONLY, NULL, &list);

	if (err)
		return err;
	for (const struct fi_info *i = list; i; i = i->next)
		name(arg, i->fabric_attr->prov_name);
	fi_freeinfo(list);
	return 0;
}

void tp_fabric_version(unsigned *major, unsigned *minor)
{
	uint32_t v = fi_version();

	*major = FI_MAJOR(v);
	*minor = FI_MINOR(v);
}

/* --- the self-test: one durable write between two endpoints of our own ------------------------ */

struct pair {
	struct fab *target, *initiator;
	struct fid_pep *pep;
	struct fid_ep *in, *out; /* MSG: the target's and the initiator's endpoint */
	bool in_up, out_up, done;
	int err;
	struct fab_op op;
	fi_addr_t to;
	uint8_t sink[TEST_BYTES], source[TEST_BYTES];
	struct fab_mr sink_mr, source_mr;
};

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void write_done(struct fab_op *op, int err)
{
	struct pair *p = container_of(op, struct pair, op);

	p->done = true;
	p->err = err;
}

static int on_event(struct pair *p, struct fab *f, struct fab_event *ev)
{
	int err = ev->err;

	if (err)
		return err;
	if (ev->event == FI_CONNREQ) {
		err = p->in ? -EISCONN : fab_ep_open(f, ev->info, p, &p->in);
		if (!err)
			err = fi_accept(p->in, NULL, 0);
		fi_freeinfo(ev->info);
	} else if (ev->event == FI_CONNECTED) {
		*(f == p->target ? &p->in_up : &p->out_up) = true;
	} else if (ev->event == FI_SHUTDOWN) {
		err = -ECONNRESET;
	}
	return err;
}

/* Drive both ends once, and sleep a little where nothing happened. */
static int turn(struct pair *p)
{
	struct fab *ends[2] = { p->target, p->initiator };
	struct pollfd fds[4];
	nfds_t n = 0;
	int err, busy = 0;

	for (unsigned i = 0; i < 2; i++) {
		struct fab *f = ends[i];
		struct fab_event ev;

		err = fab_progress(f, 16);
		if (err < 0)
			return err;
		busy |= err;
		if (f->eq) {
			err = fab_eq_read(f, &ev);
			if (err > 0) {
				busy = 1;
				err = on_event(p, f, &ev);
			}
			if (err < 0)
				return err;
		}
		if (f->cq_fd < 0 || fab_before_sleep(f))
			busy = 1;
		fds[n++] = (struct pollfd){ .fd = f->cq_fd, .events = POLLIN };
		fds[n++] = (struct pollfd){ .fd = f->eq_fd, .events = POLLIN };
	}
	if (!busy)
		poll(fds, n, 10);
	return 0;
}

static int pair_listen(struct pair *p, char node[64], char service[8])
{
	struct sockaddr_in6 addr = { 0 };
	size_t len = sizeof(addr);
	const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)&addr;
	const void *at = &in->sin_addr;
	int err = fi_passive_ep(p->target->fabric, p->target->info, &p->pep, p);

	if (!err)
		err = fi_pep_bind(p->pep, &p->target->eq->fid, 0);
	if (!err)
		err = fi_listen(p->pep);
	if (!err)
		err = fi_getname(&p->pep->fid, &addr, &len);
	if (err)
		return err;
	if (addr.sin6_family == AF_INET6)
		at = &addr.sin6_addr;
	snprintf(service, 8, "%u", (unsigned)ntohs(addr.sin6_port)); /* at the same place in both families */
	return inet_ntop(addr.sin6_family, at, node, 64) ? 0 : -EAFNOSUPPORT;
}

static int pair_connect(struct pair *p, const struct tp_fabric_opts *opts, int64_t until)
{
	struct tp_fabric_opts to = *opts;
	struct tp_error why;
	char node[64], service[8];
	int err = pair_listen(p, node, service);

	if (err)
		return err;
	to.node = node;
	to.service = service;
	err = fab_open(&to, FAB_CLIENT, &p->initiator, &why);
	if (!err)
		err = fab_ep_open(p->initiator, p->initiator->info, p, &p->out);
	if (!err)
		err = fi_connect(p->out, p->initiator->info->dest_addr, NULL, 0);
	while (!err && !(p->in_up && p->out_up))
		err = now_ms() < until ? turn(p) : -ETIMEDOUT;
	return err;
}

static int pair_meet(struct pair *p, const struct tp_fabric_opts *opts)
{
	struct tp_error why;
	int err = fab_open(opts, FAB_CLIENT, &p->initiator, &why);

	if (err)
		return err;
	p->out = p->initiator->ep;
	return fi_av_insert(p->initiator->av, p->target->addr, 1, &p->to, 0, NULL) == 1 ? 0 : -EIO;
}

static int pair_write(struct pair *p, int64_t until)
{
	int err = fab_key_open(p->target, p->sink, sizeof(p->sink), FI_REMOTE_WRITE, &p->sink_mr);

	if (!err)
		err = fab_mr_open(p->initiator, p->source, sizeof(p->source), FI_WRITE, &p->source_mr);
	if (err)
		return err;
	memset(p->source, 0xb7, sizeof(p->source));
	p->op.done = write_done;
	do {
		err = fab_write_commit(p->initiator, p->out, p->source, sizeof(p->source), p->source_mr.desc, p->to,
		                       fab_mr_addr(p->target, &p->sink_mr, p->sink), p->sink_mr.long_key, &p->op);
		if (err == -EAGAIN)
			turn(p);
	} while (err == -EAGAIN && now_ms() < until);
	while (!err && !p->done)
		err = now_ms() < until ? turn(p) : -ETIMEDOUT;
	if (!err)
		err = p->err;
	return !err && memcmp(p->source, p->sink, sizeof(p->sink)) ? -EBADMSG : err;
}

static void pair_close(struct pair *p)
{
	fab_mr_close(p->target, &p->sink_mr);
	if (p->initiator)
		fab_mr_close(p->initiator, &p->source_mr);
	if (p->pep) {
		if (p->out)
			fab_ep_close(p->initiator, p->out);
		if (p->in)
			fab_ep_close(p->target, p->in);
		fi_close(&p->pep->fid);
	}
	if (p->initiator)
		fab_close(p->initiator);
}

/* @f: opened as a server on a port of its own. */
static void commit_test(struct fab *f, const struct tp_fabric_opts *opts, unsigned timeout_ms,
                        struct tp_provider_facts *out)
{
	struct pair *p = calloc(1, sizeof(*p));
	int64_t until = now_ms() + timeout_ms;
	int err;

	if (!p)
		return;
	p->target = f;
	p->to = FI_ADDR_UNSPEC;
	err = f->rdm ? pair_meet(p, opts) : pair_connect(p, opts, until);
	if (!err)
		err = pair_write(p, until);
	out->commit_test = err ? TP_TEST_FAILED : TP_TEST_PASSED;
	out->commit_err = err;
	pair_close(p);
	free(p);
}

/* --- domains of their own --------------------------------------------------------------------- */

void tp_own_advise(const char *provider, const char *ep_type, struct tp_own_advice *out)
{
	bool shm = !strcmp(provider, "shm"), verbs = !strcmp(provider, "verbs"), tcp = !strcmp(provider, "tcp");

	*out = (struct tp_own_advice){ .why = "nothing looks at keys" };
	if (shm)
		return;
	out->why = "endpoints of FI_EP_RDM share one domain";
	if (ep_type && !strcmp(ep_type, "FI_EP_RDM"))
		return;
	*out = (struct tp_own_advice){ .possible = true,
		                       .better = verbs,
		                       .why = verbs ? "keys are short and the provider's, so that another's could be guessed" :
		                              tcp   ? "keys are 64 random bits" :
		                                      "keys are taken for hard to guess",
		                       .most = verbs ? 1024 : 128,
		                       .most_of_one = verbs ? 128 : 16,
		                       .kib = verbs ? 118 : tcp ? 527 : 0,
		                       .descriptors = verbs ? 3 : tcp ? 5 : 0 };
}

/* --- trying a provider ------------------------------------------------------------------------ */

static void bits_text(uint64_t bits, enum fi_type type, char *buf, size_t len)
{
	char text[256] = "";

	if (bits)
		fi_tostr_r(text, sizeof(text), &bits, type);
	snprintf(buf, len, "%s", text);
}

static void read_facts(const struct fab *f, struct tp_provider_facts *o)
{
	const struct fi_info *i = f->info;
	int mode = i->domain_attr->mr_mode & (FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY);

	snprintf(o->provider, sizeof(o->provider), "%s", i->fabric_attr->prov_name);
	snprintf(o->fabric, sizeof(o->fabric), "%s", i->fabric_attr->name ? i->fabric_attr->name : "");
	snprintf(o->domain, sizeof(o->domain), "%s", i->domain_attr->name ? i->domain_attr->name : "");
	snprintf(o->ep_type, sizeof(o->ep_type), "%s", f->rdm ? "FI_EP_RDM" : "FI_EP_MSG");
	bits_text((uint64_t)(unsigned)mode, FI_TYPE_MR_MODE, o->mr_mode, sizeof(o->mr_mode));
	bits_text(i->tx_attr->msg_order, FI_TYPE_MSG_ORDER, o->msg_order, sizeof(o->msg_order));
	o->key_size = (unsigned)i->domain_attr->mr_key_size;
	o->virt = f->mr_virt;
	o->prov_key = f->mr_prov_key;
	o->registers = f->mr_local;
	o->send_after_write = f->saw;
	o->wait_fd = f->cq_fd >= 0;
	o->fenced = !(f->shm && f->mr_virt);
	o->rma_pmem = f->pmem;
	o->verbs_like = !strcmp(o->provider, "verbs");
	o->iov_limit = i->tx_attr->iov_limit;
	o->rma_iov_limit = i->tx_attr->rma_iov_limit;
	o->max_msg_size = i->ep_attr->max_msg_size;
	o->inject_size = i->tx_attr->inject_size;
}

static void try_memory(struct fab *f, const struct tp_fabric_opts *opts, const struct tp_region *mem,
                       struct tp_provider_facts *out)
{
	struct fab_mr mr;
	int err = 0;

	if (f->mr_local && opts->placement != TP_PLACE_STAGED)
		err = fab_mr_open(f, mem->base, mem->len, FI_READ | FI_WRITE, &mr);
	if (!err && f->mr_local && opts->placement != TP_PLACE_STAGED)
		fab_mr_close(f, &mr);
	out->memory_tried = true;
	out->memory_err = err;
	out->staged = err == -EOPNOTSUPP || (f->mr_local && opts->placement == TP_PLACE_STAGED);
}

int tp_provider_try(const struct tp_fabric_opts *opts, const struct tp_region *mem, unsigned timeout_ms,
                    struct tp_provider_facts *out, struct tp_error *why)
{
	struct tp_fabric_opts own = *opts;
	struct fab *f;
	int err;

	own.service = "0"; /* a port of its own: the one of @opts may be listened on */
	err = fab_open(&own, FAB_SERVER, &f, why);
	if (err)
		return err;
	memset(out, 0, sizeof(*out));
	read_facts(f, out);
	if (mem)
		try_memory(f, opts, mem, out);
	if (f->pmem && timeout_ms)
		commit_test(f, &own, timeout_ms, out);
	fab_close(f);
	return 0;
}
