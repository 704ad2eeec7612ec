/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fabric.c - choose a provider, open its domain, and turn its events into calls of ours
 *
 * fi_getinfo is asked for the strictest set of memory registration modes, and what comes back is
 * obeyed: providers clear the bits that they do not need, and then expect offsets in place of
 * addresses and keys of our choice in place of theirs. The provider's name must match exactly, as
 * layered providers ("tcp;ofi_rxm") answer to the name of their lower half.
 */
#include "transport/fabric.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <rdma/fi_errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define CQ_SIZE     8192
#define SHM_PREFIX  "fi_shm://"
#define MR_MODES    (FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY)
#define DEF_SERVICE "20049"
#define SHM_DIR     "/dev/shm"
#define SHM_ROOM    (32u << 20) /* bytes that an endpoint of shm takes there, and what the provider wants to see besides */
#define KEY_TRIES   16

int fab_error(struct tp_error *why, const struct tp_fabric_opts *opts, const char *what, int err)
{
	/* Queues and endpoints of cards are locked memory as well. */
	bool card = opts->provider && strcmp(opts->provider, "tcp") && strcmp(opts->provider, "shm");
	bool locked = (card || strstr(what, "regist")) && (err == -ENOMEM || err == -EPERM);

	if (why)
		snprintf(why->text, sizeof(why->text), "fabric %s (%s): %s: %s%s",
		         opts->name ? opts->name : "-", opts->provider ? opts->provider : "any",
		         what, fi_strerror(-err),
		         locked ? "; raise the limit of locked memory (LimitMEMLOCK= in the unit, or ulimit -l)"
		                : "");
	return err;
}

static int to_errno(int err)
{
	return err > 0 && err < FI_ERRNO_OFFSET ? -err : -EIO;
}

/* --- choice --- */

static bool is_shm(const char *provider)
{
	return provider && !strcmp(provider, "shm");
}

/* Numbers of processes mean something in their own name space only. */
static unsigned long pid_space(void)
{
	struct stat st;

	return stat("/proc/self/ns/pid", &st) ? 0 : (unsigned long)st.st_ino;
}

/* Names of shm endpoints are files in /dev/shm, one name space for the whole machine. */
static void shm_new_name(char *name, size_t len, enum fab_role role)
{
	uint32_t r = 0;

	if (getrandom(&r, sizeof(r), 0) != sizeof(r))
		r = (uint32_t)(uintptr_t)name;
	snprintf(name, len, "berth-%c-%lx-%ld-%08x", role == FAB_SERVER ? 's' : 'c', pid_space(),
	         (long)getpid(), r);
}

/* The provider maps its region without room being there for all of it: when SHM_DIR ran full later, whoever came to a page
 * first, here or in a peer, would die of SIGBUS, most likely with the lock of the region. */
static int shm_take_room(const char *name)
{
	char path[128];
	struct stat st;
	int fd, err;

	snprintf(path, sizeof(path), SHM_DIR "/%.100s", name);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	err = fstat(fd, &st) ? errno : EINTR;
	while (err == EINTR)
		err = posix_fallocate(fd, 0, st.st_size);
	close(fd);
	return -err;
}

/* What an error of shm comes from, as often as not: 64 MiB is all that containers get there unless told otherwise. */
static const char *shm_lacks(char *buf, size_t len)
{
	struct statvfs v;
	uint64_t room = statvfs(SHM_DIR, &v) ? UINT64_MAX : (uint64_t)v.f_bavail * v.f_frsize;

	if (room >= SHM_ROOM)
		return NULL;
	snprintf(buf, len, SHM_DIR " has only %.1f MiB free: an endpoint of shm takes 16 there and wants %u; make room, or give it "
		 "more (mount -o remount,size=, docker run --shm-size=)", (double)room / (1 << 20), SHM_ROOM >> 20);
	return buf;
}

/* Files of ours whose process is dead: 16 MiB each, and nobody else removes them. */
static void shm_sweep(void)
{
	DIR *dir = opendir(SHM_DIR);
	unsigned long space;
	struct dirent *d;
	long pid;
	char role;

	if (!dir)
		return;
	while ((d = readdir(dir)))
		if (sscanf(d->d_name, "berth-%c-%lx-%ld-", &role, &space, &pid) == 3 &&
		    (role == 's' || role == 'c') && pid > 0 && space == pid_space() &&
		    kill((pid_t)pid, 0) && errno == ESRCH)
			fab_unlink_shm(d->d_name);
	closedir(dir);
}

static struct fi_info *make_hints(const struct tp_fabric_opts *opts, enum fab_role role,
                                  const char *provider, enum fi_ep_type type)
{
	struct fi_info *h = fi_allocinfo();

	if (!h)
		return NULL;
	h->caps = FI_MSG | FI_RMA;
	if (type == FI_EP_RDM && role == FAB_SERVER)
		h->caps |= FI_SOURCE;
	h->mode = FI_CONTEXT | FI_CONTEXT2 | FI_RX_CQ_DATA;
	h->ep_attr->type = type;
	h->domain_attr->mr_mode = MR_MODES;
	h->domain_attr->threading = FI_THREAD_DOMAIN;
	h->domain_attr->resource_mgmt = FI_RM_ENABLED;
	h->domain_attr->av_type = type == FI_EP_RDM ? FI_AV_TABLE : FI_AV_UNSPEC;
	h->fabric_attr->prov_name = strdup(provider);
	if (opts->fabric)
		h->fabric_attr->name = strdup(opts->fabric);
	if (opts->domain)
		h->domain_attr->name = strdup(opts->domain);
	if (h->fabric_attr->prov_name && (!opts->fabric || h->fabric_attr->name) &&
	    (!opts->domain || h->domain_attr->name))
		return h;
	fi_freeinfo(h);
	return NULL;
}

/* Keep only what is exactly this provider: unlinks the rest from the list. */
static struct fi_info *only_exact(struct fi_info *list, const char *provider)
{
	struct fi_info *keep = NULL, **end = &keep, *next;

	for (; list; list = next) {
		next = list->next;
		list->next = NULL;
		if (list->fabric_attr && list->fabric_attr->prov_name &&
		    !strcmp(list->fabric_attr->prov_name, provider)) {
			*end = list;
			end = &list->next;
		} else {
			fi_freeinfo(list);
		}
	}
	return keep;
}

/* Listen on every address: verbs says so by a domain that cannot be opened ("any"), so ask what there
 * is, and let what was found first listen everywhere. */
static int listen_anywhere(struct fi_info *list, const char *service)
{
	unsigned long port = strtoul(service, NULL, 10);

	for (; list; list = list->next) {
		struct sockaddr_in6 *any = calloc(1, sizeof(*any));

		if (!any)
			return -ENOMEM;
		any->sin6_family = AF_INET6;
		any->sin6_port = htons((uint16_t)port);
		free(list->src_addr);
		list->src_addr = any;
		list->src_addrlen = sizeof(*any);
		list->addr_format = FI_SOCKADDR_IN6;
	}
	return 0;
}

static int ask(const struct tp_fabric_opts *opts, enum fab_role role, const char *provider,
               enum fi_ep_type type, struct fi_info **out)
{
	struct fi_info *hints = make_hints(opts, role, provider, type), *list = NULL;
	const char *node = opts->node, *service = opts->service;
	uint64_t flags = role == FAB_SERVER ? FI_SOURCE : 0;
	bool anywhere = !node && role == FAB_SERVER && !strcmp(provider, "verbs");
	char name[64];
	int err;

	if (!hints)
		return -ENOMEM;
	if (is_shm(provider)) {
		shm_new_name(name, sizeof(name), role);
		node = name;
		service = NULL;
		flags = FI_SOURCE;
	} else if (type == FI_EP_RDM) {
		service = role == FAB_SERVER ? NULL : service ? service : DEF_SERVICE;
	} else if (!service) {
		service = DEF_SERVICE;
	}
	if (!node && !anywhere)
		node = "127.0.0.1";
	err = fi_getinfo(FAB_API, node, anywhere ? NULL : service, anywhere ? 0 : flags, hints, &list);
	fi_freeinfo(hints);
	if (err)
		return err;
	list = only_exact(list, provider);
	err = !list ? -FI_ENODATA : anywhere ? listen_anywhere(list, service) : 0;
	if (err)
		fi_freeinfo(list);
	else
		*out = list;
	return err;
}

static int ask_types(const struct tp_fabric_opts *opts, enum fab_role role, const char *provider,
                     struct fi_info **out)
{
	int err;

	if (opts->ep_type)
		return ask(opts, role, provider,
		           strcmp(opts->ep_type, "FI_EP_RDM") ? FI_EP_MSG : FI_EP_RDM, out);
	err = is_shm(provider) ? -FI_ENODATA : ask(opts, role, provider, FI_EP_MSG, out);
	return err == -FI_ENODATA ? ask(opts, role, provider, FI_EP_RDM, out) : err;
}

int fab_getinfo(const struct tp_fabric_opts *opts, enum fab_role role, struct fi_info **out,
                struct tp_error *why)
{
	const char *lacks;
	char text[300];
	int err;

	if (opts->ep_type && strcmp(opts->ep_type, "FI_EP_MSG") &&
	    strcmp(opts->ep_type, "FI_EP_RDM"))
		return fab_error(why, opts, "ep_type is neither FI_EP_MSG nor FI_EP_RDM", -EINVAL);
	if (opts->provider) {
		err = ask_types(opts, role, opts->provider, out);
	} else {
		err = ask_types(opts, role, "verbs", out);
		if (err)
			err = ask_types(opts, role, "tcp", out);
	}
	if (!err)
		return 0;
	lacks = is_shm(opts->provider) ? shm_lacks(text, sizeof(text)) : NULL;
	if (lacks)
		return fab_error(why, opts, lacks, -ENOSPC);
	return fab_error(why, opts, "the provider offers nothing usable for these settings (see berth probe)",
	                 err == -FI_ENODATA ? -ENODEV : err);
}

/* --- opening --- */

/* What providers take over while their first endpoint is opened. */
static const int taken_signals[] = { SIGBUS, SIGSEGV, SIGTERM, SIGINT, SIGABRT, SIGILL };
#define NTAKEN (sizeof(taken_signals) / sizeof(taken_signals[0]))

static void save_signals(struct sigaction *old)
{
	for (size_t i = 0; i < NTAKEN; i++)
		sigaction(taken_signals[i], NULL, &old[i]);
}

static void restore_signals(const struct sigaction *old)
{
	for (size_t i = 0; i < NTAKEN; i++)
		sigaction(taken_signals[i], &old[i], NULL);
}

static size_t at_least_one(size_t v, size_t max)
{
	return v < 1 ? 1 : v > max ? max : v;
}

static void read_attributes(struct fab *f)
{
	const struct fi_info *i = f->info;
	uint64_t order = i->tx_attr->msg_order;
	size_t iov = i->tx_attr->iov_limit;

	f->rdm = i->ep_attr->type == FI_EP_RDM;
	f->shm = is_shm(i->fabric_attr->prov_name);
	f->mr_local = i->domain_attr->mr_mode & FI_MR_LOCAL;
	f->mr_virt = i->domain_attr->mr_mode & FI_MR_VIRT_ADDR;
	f->pmem = i->caps & FI_RMA_PMEM;
	f->mr_prov_key = i->domain_attr->mr_mode & FI_MR_PROV_KEY;
	/* shm copies writes by itself in VA mode, beside its queue, and promises no order. */
	f->saw = (order & FI_ORDER_SAW) && !f->shm;
	f->deliver = !f->saw && !f->shm;
	f->iov_max = at_least_one(iov, FAB_MAX_IOV);
	f->tcp = !strcmp(i->fabric_attr->prov_name, "tcp");
	f->msg_max = at_least_one(i->ep_attr->max_msg_size, SIZE_MAX);
	f->raw = (order & FI_ORDER_RAW) && i->ep_attr->max_order_raw_size >= f->msg_max && !f->shm;
	f->tx_size = at_least_one(i->tx_attr->size, SIZE_MAX);
	f->rx_size = at_least_one(i->rx_attr->size, SIZE_MAX);
}

static int open_cq(struct fab *f, size_t size)
{
	const struct {
		enum fi_wait_obj wait;
		size_t size;
	} tries[] = { { FI_WAIT_FD, size }, { FI_WAIT_FD, 0 }, { FI_WAIT_NONE, size }, { FI_WAIT_NONE, 0 } };
	int err = 0;

	f->cq_fd = -1;
	for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
		struct fi_cq_attr a = { .size = tries[i].size,
			                .format = FI_CQ_FORMAT_MSG,
			                .wait_obj = tries[i].wait };

		err = fi_cq_open(f->domain, &a, &f->cq, NULL);
		if (err)
			continue;
		if (tries[i].wait != FI_WAIT_FD)
			return 0;
		err = fi_control(&f->cq->fid, FI_GETWAIT, &f->cq_fd);
		if (!err)
			return 0;
		fi_close(&f->cq->fid);
		f->cq = NULL;
		f->cq_fd = -1;
	}
	return err;
}

static int open_eq(struct fab *f)
{
	struct fi_eq_attr a = { .size = 1024, .wait_obj = FI_WAIT_FD };
	int err = fi_eq_open(f->fabric, &a, &f->eq, NULL);

	if (!err)
		err = fi_control(&f->eq->fid, FI_GETWAIT, &f->eq_fd);
	return err;
}

/* The one endpoint of FI_EP_RDM, and under which address others find it. */
static int open_rdm(struct fab *f)
{
	struct fi_av_attr a = { .type = FI_AV_TABLE, .count = 256 };
	int err = fi_av_open(f->domain, &a, &f->av, NULL);

	if (!err)
		err = fi_endpoint(f->domain, f->info, &f->ep, NULL);
	if (!err)
		err = fi_ep_bind(f->ep, &f->av->fid, 0);
	if (!err)
		err = fi_ep_bind(f->ep, &f->cq->fid, FI_TRANSMIT | FI_RECV);
	if (!err)
		err = fi_enable(f->ep);
	f->addr_len = sizeof(f->addr);
	if (!err)
		err = fi_getname(&f->ep->fid, f->addr, &f->addr_len);
	if (!err && f->shm && !strncmp((char *)f->addr, SHM_PREFIX, strlen(SHM_PREFIX)))
		snprintf(f->shm_name, sizeof(f->shm_name), "%.63s",
		         (char *)f->addr + strlen(SHM_PREFIX));
	return err;
}

static int open_endpoint(struct fab *f, const struct tp_fabric_opts *opts, struct tp_error *why)
{
	char text[300];
	int err = f->rdm ? open_rdm(f) : open_eq(f);

	if (err)
		return fab_error(why, opts, f->rdm ? "endpoint" : "event queue", err);
	err = f->shm_name[0] ? shm_take_room(f->shm_name) : 0;
	return err ? fab_error(why, opts, shm_lacks(text, sizeof(text)) ? text : "room in " SHM_DIR, err) : 0;
}

static int open_all(struct fab *f, const struct tp_fabric_opts *opts, enum fab_role role,
                    struct tp_error *why)
{
	int err = fab_getinfo(opts, role, &f->info, why);

	if (err)
		return err;
	read_attributes(f);
	err = fi_fabric(f->info->fabric_attr, &f->fabric, NULL);
	if (err)
		return fab_error(why, opts, "fi_fabric", err);
	err = fi_domain(f->fabric, f->info, &f->domain, NULL);
	if (err)
		return fab_error(why, opts, "fi_domain", err);
	err = open_cq(f, CQ_SIZE);
	if (err)
		return fab_error(why, opts, "completion queue", err);
	return open_endpoint(f, opts, why);
}

int fab_open(const struct tp_fabric_opts *opts, enum fab_role role, struct fab **out,
             struct tp_error *why)
{
	struct sigaction old[NTAKEN];
	struct fab *f = calloc(1, sizeof(*f));
	int err;

	if (!f)
		return fab_error(why, opts, "memory", -ENOMEM);
	f->cq_fd = f->eq_fd = -1;
	save_signals(old);
	err = open_all(f, opts, role, why);
	restore_signals(old);
	if (!err && f->shm && role == FAB_SERVER)
		shm_sweep();
	if (err) {
		fab_close(f);
		return err < -FI_ERRNO_OFFSET ? -EIO : err;
	}
	*out = f;
	return 0;
}

int fab_open_beside(struct fab *with, size_t depth, struct fab **out)
{
	struct fab *f = malloc(sizeof(*f));
	int err;

	if (!f)
		return -ENOMEM;
	*f = *with;
	f->domain = NULL;
	f->cq = NULL;
	f->cq_fd = f->eq_fd = -1;
	f->eq_ready = false;
	f->beside = true;
	f->guard = (struct fab_guard){ 0 };
	f->nclosing = 0;
	f->tx_size = at_least_one(depth, with->tx_size);
	f->rx_size = at_least_one(depth, with->rx_size);
	fab_enter(f);
	err = fi_domain(f->fabric, f->info, &f->domain, NULL);
	if (!err)
		err = open_cq(f, 2 * depth);
	fab_leave(f);
	if (!err && f->cq_fd < 0)
		err = -EOPNOTSUPP; /* nobody would look at it */
	if (err) {
		fab_close(f);
		return err < -FI_ERRNO_OFFSET ? -EIO : err;
	}
	*out = f;
	return 0;
}

void fab_unlink_shm(const char *name)
{
	char path[128];

	if (!strncmp(name, "berth-", 6) && !strchr(name, '/')) {
		snprintf(path, sizeof(path), SHM_DIR "/%.100s", name);
		unlink(path);
	}
}

static void close_fid(void *fid)
{
	if (fid)
		fi_close(fid);
}

void fab_close(struct fab *f)
{
	fab_enter(f);
	close_fid(f->ep);
	close_fid(f->cq);
	close_fid(f->av);
	if (!f->beside)
		close_fid(f->eq);
	close_fid(f->domain);
	if (!f->beside)
		close_fid(f->fabric);
	fab_leave(f);
	if (f->shm_name[0])
		fab_unlink_shm(f->shm_name);
	if (f->info && !f->beside)
		fi_freeinfo(f->info);
	free(f);
}

void fab_abandon(struct fab *f)
{
	if (f->shm_name[0])
		fab_unlink_shm(f->shm_name);
	f->shm_name[0] = 0; /* f itself is left behind too: it is how a debugger finds the rest */
}

/* --- connections --- */

int fab_ep_open(struct fab *f, struct fi_info *info, void *context, struct fid_ep **out)
{
	struct fid_ep *ep;
	int err;

	if (f->beside) {
		info->tx_attr->size = f->tx_size;
		info->rx_attr->size = f->rx_size;
	}
	fab_enter(f);
	err = fi_endpoint(f->domain, info, &ep, context);
	if (!err) {
		err = fi_ep_bind(ep, &f->eq->fid, 0);
		if (!err)
			err = fi_ep_bind(ep, &f->cq->fid, FI_TRANSMIT | FI_RECV);
		if (!err)
			err = fi_enable(ep);
		if (err)
			fi_close(&ep->fid);
	}
	fab_leave(f);
	if (!err)
		*out = ep;
	return err;
}

void fab_ep_close(struct fab *f, struct fid_ep *ep)
{
	fab_enter(f);
	if (!f->rdm)
		fi_shutdown(ep, 0);
	fi_close(&ep->fid);
	fab_leave(f);
}

static int eq_error(struct fab *f, struct fab_event *ev)
{
	struct fi_eq_err_entry e = { .err_data = ev->data, .err_data_size = sizeof(ev->data) };
	ssize_t n = fi_eq_readerr(f->eq, &e, 0);

	if (n == -FI_EAGAIN)
		return 0;
	if (n < 0)
		return (int)n;
	ev->fid = e.fid;
	ev->err = to_errno(e.err);
	/* A refusal's private data may lie elsewhere than where we asked for it. */
	ev->len = 0;
	return 1;
}

int fab_eq_read(struct fab *f, struct fab_event *ev)
{
	union {
		struct fi_eq_cm_entry cm;
		uint8_t room[sizeof(struct fi_eq_cm_entry) + sizeof(ev->data)];
	} e;
	ssize_t n;
	int got = 0;

	*ev = (struct fab_event){ 0 };
	fab_enter(f);
	n = fi_eq_read(f->eq, &ev->event, &e, sizeof(e), 0);
	if (n == -FI_EAVAIL)
		got = eq_error(f, ev);
	fab_leave(f);
	if (n == -FI_EAVAIL)
		return got;
	if (n == -FI_EAGAIN) {
		f->eq_ready = false;
		return 0;
	}
	if (n < 0)
		return (int)n;
	if ((size_t)n < sizeof(e.cm)) {
		ev->fid = NULL;
		return 1;
	}
	ev->fid = e.cm.fid;
	ev->info = ev->event == FI_CONNREQ ? e.cm.info : NULL;
	ev->len = (size_t)n - sizeof(e.cm);
	if (ev->len > sizeof(ev->data))
		ev->len = sizeof(ev->data);
	memcpy(ev->data, e.cm.data, ev->len);
	return 1;
}

/* --- completions --- */

static int cq_error(struct fab *f)
{
	struct fi_cq_err_entry e = { 0 };
	struct fab_op *op;
	ssize_t n;

	fab_enter(f);
	n = fi_cq_readerr(f->cq, &e, 0);
	fab_leave(f);
	if (n == -FI_EAGAIN)
		return 0;
	if (n < 0)
		return (int)n;
	if (!e.op_context)
		return 1;
	op = container_of(e.op_context, struct fab_op, ctx);
	op->len = 0;
	op->done(op, e.err ? to_errno(e.err) : -EIO);
	return 1;
}

int fab_poll(struct fab *f)
{
	struct fi_cq_msg_entry e[FAB_POLL];
	fi_addr_t from[FAB_POLL];
	bool source = f->info->caps & FI_SOURCE;
	ssize_t n;

	fab_enter(f);
	n = source ? fi_cq_readfrom(f->cq, e, FAB_POLL, from) : fi_cq_read(f->cq, e, FAB_POLL);
	fab_leave(f);
	if (n == -FI_EAGAIN)
		return 0;
	if (n == -FI_EAVAIL)
		return cq_error(f);
	for (ssize_t i = 0; i < n; i++) {
		struct fab_op *op;

		if (!e[i].op_context)
			continue;
		op = container_of(e[i].op_context, struct fab_op, ctx);
		op->len = e[i].len;
		op->from = source ? from[i] : FI_ADDR_NOTAVAIL;
		op->done(op, 0);
	}
	return (int)n;
}

int fab_progress(struct fab *f, unsigned max)
{
	unsigned total = 0;

	while (total < max) {
		int n = fab_poll(f);

		if (n < 0)
			return n;
		if (!n)
			break;
		total += (unsigned)n;
	}
	return (int)total;
}

int fab_before_sleep(struct fab *f)
{
	struct fid *cq = &f->cq->fid, *eq = f->eq ? &f->eq->fid : NULL;
	int err = 0;

	fab_enter(f);
	if (f->cq_fd >= 0)
		err = fi_trywait(f->fabric, &cq, 1);
	if (err != -FI_EAGAIN && f->eq_fd >= 0) {
		err = fi_trywait(f->fabric, &eq, 1);
		f->eq_ready = err == -FI_EAGAIN;
	}
	fab_leave(f);
	return err == -FI_EAGAIN ? -EAGAIN : 0;
}

/* --- posting --- */

int fab_recv(struct fab *f, struct fid_ep *ep, void *buf, size_t len, void *desc, struct fab_op *op)
{
	ssize_t err;

	fab_enter(f);
	err = fi_recv(ep, buf, len, desc, FI_ADDR_UNSPEC, &op->ctx);
	fab_leave(f);
	return (int)err;
}

int fab_send(struct fab *f, struct fid_ep *ep, const void *buf, size_t len, void *desc,
             fi_addr_t addr, struct fab_op *op)
{
	ssize_t err;

	fab_enter(f);
	err = fi_send(ep, buf, len, desc, addr, &op->ctx);
	fab_leave(f);
	return (int)err;
}

int fab_read(struct fab *f, struct fid_ep *ep, const struct iovec *iov, void **desc, unsigned n,
             fi_addr_t addr, uint64_t raddr, uint64_t key, struct fab_op *op)
{
	ssize_t err;

	fab_enter(f);
	err = n == 1 ? fi_read(ep, iov->iov_base, iov->iov_len, desc[0], addr, raddr, key, &op->ctx)
	             : fi_readv(ep, iov, desc, n, addr, raddr, key, &op->ctx);
	fab_leave(f);
	return (int)err;
}

/* Where nothing orders a send behind the writes, their completion must mean that the data is there.
 */
static ssize_t write_delivered(struct fid_ep *ep, const struct iovec *iov, void **desc, unsigned n,
                               fi_addr_t addr, uint64_t raddr, uint64_t key, struct fab_op *op)
{
	struct fi_rma_iov rma = { .addr = raddr, .key = key };
	struct fi_msg_rma m = { .msg_iov = iov,
		                .desc = desc,
		                .iov_count = n,
		                .addr = addr,
		                .rma_iov = &rma,
		                .rma_iov_count = 1,
		                .context = &op->ctx };

	for (unsigned i = 0; i < n; i++)
		rma.len += iov[i].iov_len;
	return fi_writemsg(ep, &m, FI_DELIVERY_COMPLETE | FI_COMPLETION);
}

int fab_write(struct fab *f, struct fid_ep *ep, const struct iovec *iov, void **desc, unsigned n,
              fi_addr_t addr, uint64_t raddr, uint64_t key, struct fab_op *op)
{
	ssize_t err = -FI_EOPNOTSUPP;

	fab_enter(f);
	if (f->deliver) {
		err = write_delivered(ep, iov, desc, n, addr, raddr, key, op);
		if (err == -FI_EOPNOTSUPP || err == -FI_EINVAL)
			f->deliver = false;
	}
	if (!f->deliver)
		err = n == 1 ? fi_write(ep, iov->iov_base, iov->iov_len, desc[0], addr, raddr, key,
		                        &op->ctx)
		             : fi_writev(ep, iov, desc, n, addr, raddr, key, &op->ctx);
	fab_leave(f);
	return (int)err;
}

int fab_write_commit(struct fab *f, struct fid_ep *ep, void *buf, size_t len, void *desc, fi_addr_t addr,
                     uint64_t raddr, uint64_t key, struct fab_op *op)
{
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	struct fi_rma_iov rma = { .addr = raddr, .len = len, .key = key };
	struct fi_msg_rma m = { .msg_iov = &iov,
		                .desc = &desc,
		                .iov_count = 1,
		                .addr = addr,
		                .rma_iov = &rma,
		                .rma_iov_count = 1,
		                .context = &op->ctx };
	ssize_t err;

	/* As a flag of the operation: tcp 1.17 takes it as a default of the endpoint and does not act on it. */
	fab_enter(f);
	err = fi_writemsg(ep, &m, FI_COMMIT_COMPLETE | FI_COMPLETION);
	fab_leave(f);
	return (int)err;
}

/* --- memory --- */

int fab_mr_open(struct fab *f, void *base, size_t len, uint64_t access, struct fab_mr *out)
{
	struct iovec iov = { .iov_base = base, .iov_len = len };
	struct fi_mr_attr a = { .mr_iov = &iov, .iov_count = 1, .access = access };
	struct fab_mr mr = { .base = base, .len = len };
	int err = -FI_ENOKEY;

	if (!f->mr_local && !(access & (FI_REMOTE_READ | FI_REMOTE_WRITE))) {
		*out = mr;
		return 0;
	}
	for (int i = 0; i < KEY_TRIES && err == -FI_ENOKEY; i++) {
		uint32_t key;

		/* Not to be guessed, where the choice is ours. */
		if (getrandom(&key, sizeof(key), 0) != sizeof(key))
			return -EIO;
		if (key == RDV_SHARED)
			continue;
		a.requested_key = key;
		fab_enter(f);
		err = fi_mr_regattr(f->domain, &a, 0, &mr.mr);
		fab_leave(f);
	}
	if (err)
		return err == -FI_EADDRNOTAVAIL || err == -FI_ENOSYS ? -EOPNOTSUPP : err;
	mr.desc = fi_mr_desc(mr.mr);
	if (fi_mr_key(mr.mr) > UINT32_MAX) {
		fab_mr_close(f, &mr);
		return -EOVERFLOW;
	}
	mr.key = (uint32_t)fi_mr_key(mr.mr);
	*out = mr;
	return 0;
}

int fab_key_open(struct fab *f, void *base, size_t len, uint64_t access, struct fab_mr *out)
{
	size_t size = f->info->domain_attr->mr_key_size;
	uint64_t mask = size < 8 ? (1ull << 8 * size) - 1 : UINT64_MAX;
	struct iovec iov = { .iov_base = base, .iov_len = len };
	struct fi_mr_attr a = { .mr_iov = &iov, .iov_count = 1, .access = access };
	struct fab_mr mr = { .base = base, .len = len };
	int err = -FI_ENOKEY;

	for (int i = 0; i < KEY_TRIES && err == -FI_ENOKEY; i++) {
		if (getrandom(&a.requested_key, sizeof(a.requested_key), 0) != sizeof(a.requested_key))
			return -EIO;
		a.requested_key &= mask;
		fab_enter(f);
		err = fi_mr_regattr(f->domain, &a, 0, &mr.mr);
		fab_leave(f);
	}
	if (err)
		return err == -FI_EADDRNOTAVAIL || err == -FI_ENOSYS ? -EOPNOTSUPP : err;
	mr.long_key = fi_mr_key(mr.mr);
	*out = mr;
	return 0;
}

void fab_mr_close(struct fab *f, struct fab_mr *mr)
{
	if (mr->mr) {
		fab_enter(f);
		fi_close(&mr->mr->fid);
		fab_leave(f);
	}
	*mr = (struct fab_mr){ 0 };
}
