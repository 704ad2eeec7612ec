/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * onesided.c - durable writes by libberth's puts, by WRITE, and by bare libfabric, in one run
 *
 *   raw       fi_writemsg with FI_COMMIT_COMPLETE to a process that does nothing but progress (tcp)
 *   put       BERTH_DURABLE | BERTH_BY_RMA over bytes that exist
 *   append    the same into new blocks: RMA write and COMMIT behind it
 *   WRITE     FILE_SYNC over bytes that exist
 *
 * Each cell: operations of one size, so many in flight; microseconds of one. Rounds go through all cells in turn, so
 * that a slow minute of the machine meets them all; the medians of the rounds are shown.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/media.h"
#include "client/berth.h"

#define DEPTH_MAX  16u
#define ROUNDS_MAX 31u
#define NSIZES     5
#define NDEPTHS    2
enum way { RAW, PUT, APPEND, WRITE, WAYS };
static const size_t sizes[NSIZES] = { 64, 512, 4096, 65536, 1 << 20 };
static const unsigned depths[NDEPTHS] = { 1, DEPTH_MAX };
static const unsigned ops_of[NSIZES] = { 2000, 2000, 1000, 300, 48 };

/* --- bare libfabric --- */

struct raw {
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_eq *eq;
	struct fid_cq *cq;
	struct fid_ep *ep;
	struct fid_mr *mr;
	char *data;
	uint64_t addr, key; /* the other side's */
	int fd, pipe;
	pid_t pid;
	struct fi_context2 ctx[DEPTH_MAX];
};
struct hello {
	uint16_t port;
	uint64_t addr, key;
};

static int raw_open(struct raw *r, const char *port, uint64_t flags)
{
	struct fi_info *hints = fi_allocinfo();
	int err;

	hints->ep_attr->type = FI_EP_MSG;
	hints->caps = FI_MSG | FI_RMA;
	hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
	hints->fabric_attr->prov_name = strdup("tcp");
	err = fi_getinfo(FI_VERSION(1, 17), "127.0.0.1", port, flags, hints, &r->info);
	fi_freeinfo(hints);
	if (!err)
		err = fi_fabric(r->info->fabric_attr, &r->fabric, NULL);
	if (!err)
		err = fi_domain(r->fabric, r->info, &r->domain, NULL);
	if (!err)
		err = fi_eq_open(r->fabric, &(struct fi_eq_attr){ .wait_obj = FI_WAIT_UNSPEC }, &r->eq, NULL);
	if (!err)
		err = fi_mr_reg(r->domain, r->data, BENCH_SPAN, FI_WRITE | FI_REMOTE_WRITE, 0, 7, 0, &r->mr, NULL);
	return err;
}

static int raw_ep(struct raw *r, struct fi_info *info)
{
	struct fi_cq_attr ca = { .format = FI_CQ_FORMAT_CONTEXT, .size = 64, .wait_obj = FI_WAIT_FD };
	int err = fi_cq_open(r->domain, &ca, &r->cq, NULL);

	if (!err)
		err = fi_control(&r->cq->fid, FI_GETWAIT, &r->fd);
	if (!err)
		err = fi_endpoint(r->domain, info, &r->ep, NULL);
	if (!err)
		err = fi_ep_bind(r->ep, &r->cq->fid, FI_SEND | FI_RECV);
	if (!err)
		err = fi_ep_bind(r->ep, &r->eq->fid, 0);
	return err ? err : fi_enable(r->ep);
}

/* Completions, at least one if @wait and nothing breaks. */
static int raw_progress(struct raw *r, bool wait)
{
	struct fid *fid = &r->cq->fid;
	struct fi_cq_entry ev[DEPTH_MAX];
	ssize_t n;

	while ((n = fi_cq_read(r->cq, ev, DEPTH_MAX)) == -FI_EAGAIN && wait) {
		struct pollfd p = { .fd = r->fd, .events = POLLIN };

		if (!fi_trywait(r->fabric, &fid, 1))
			poll(&p, 1, 1000);
	}
	return n == -FI_EAGAIN ? 0 : (int)n;
}

static _Noreturn void raw_server(const char *dir, int fd)
{
	struct fi_eq_cm_entry *e = calloc(1, sizeof(*e) + 256);
	struct raw r = { .data = bench_media(dir) };
	struct fid_pep *pep;
	struct sockaddr_in in;
	size_t len = sizeof(in);
	struct hello h;
	uint32_t event;
	int err;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	err = r.data ? raw_open(&r, "0", FI_SOURCE) : -ENOMEM;
	err = err ? err : fi_passive_ep(r.fabric, r.info, &pep, NULL);
	err = err ? err : fi_pep_bind(pep, &r.eq->fid, 0);
	err = err ? err : fi_listen(pep);
	err = err ? err : fi_getname(&pep->fid, &in, &len);
	if (err)
		_exit(1);
	h = (struct hello){ in.sin_port, r.info->domain_attr->mr_mode & FI_MR_VIRT_ADDR ? (uintptr_t)r.data : 0,
		            fi_mr_key(r.mr) };
	if (write(fd, &h, sizeof(h)) != sizeof(h) ||
	    fi_eq_sread(r.eq, &event, e, sizeof(*e) + 256, 10000, 0) < 0 || raw_ep(&r, e->info) ||
	    fi_accept(r.ep, NULL, 0) || fi_eq_sread(r.eq, &event, e, sizeof(*e) + 256, 10000, 0) < 0)
		_exit(1);
	for (;;)
		raw_progress(&r, true);
}

static int raw_start(struct raw *r, const char *dir)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	uint8_t space[512];
	struct hello h;
	uint32_t event;
	int p[2], err;

	if (pipe(p))
		return -errno;
	r->pid = fork();
	if (!r->pid)
		raw_server(dir, p[1]);
	close(p[1]);
	r->pipe = p[0];
	r->data = aligned_alloc(4096, BENCH_SPAN);
	if (!r->data || read(r->pipe, &h, sizeof(h)) != sizeof(h))
		return -EPIPE;
	memset(r->data, 'b', BENCH_SPAN);
	r->addr = h.addr;
	r->key = h.key;
	in.sin_port = h.port;
	err = raw_open(r, "1", 0);
	err = err ? err : raw_ep(r, r->info);
	err = err ? err : fi_connect(r->ep, &in, NULL, 0);
	if (!err && fi_eq_sread(r->eq, &event, space, sizeof(space), 10000, 0) < 0)
		err = -EIO;
	return err;
}

static int raw_write(struct raw *r, uint64_t at, size_t len, unsigned slot)
{
	struct iovec iov = { r->data + at, len };
	struct fi_rma_iov rma = { r->addr + at, len, r->key };
	void *desc = fi_mr_desc(r->mr);
	struct fi_msg_rma msg = { .msg_iov = &iov,
		                  .desc = &desc,
		                  .iov_count = 1,
		                  .rma_iov = &rma,
		                  .rma_iov_count = 1,
		                  .context = &r->ctx[slot] };
	ssize_t n;

	while ((n = fi_writemsg(r->ep, &msg, FI_COMMIT_COMPLETE | FI_COMPLETION)) == -FI_EAGAIN)
		if (raw_progress(r, false) < 0)
			return -EIO;
	return (int)n;
}

static int raw_run(struct raw *r, size_t len, unsigned depth, unsigned ops)
{
	unsigned sent = 0, done = 0;

	while (done < ops) {
		int n;

		for (; sent < ops && sent - done < depth; sent++)
			if ((n = raw_write(r, sent * len % BENCH_SPAN, len, sent % DEPTH_MAX)))
				return n;
		n = raw_progress(r, true);
		if (n < 0)
			return n;
		done += (unsigned)n;
	}
	return 0;
}

/* --- Berth --- */

struct run {
	struct berth *b;
	struct berth_file *f;
	struct berth_map *m;
	char *buf;
	enum way way;
	size_t len;
	unsigned next, done, ops;
	int err;
};

static void op_done(void *arg, int err, const struct berth_reply *r);

static void op_next(struct run *r)
{
	uint64_t at = r->next * r->len % BENCH_SPAN;
	const char *from = r->buf + at;
	int err;

	if (r->next == r->ops || r->err)
		return;
	err = r->way == WRITE ? berth_file_start_write(r->f, at, from, r->len, BERTH_FILE_SYNC, op_done, r) :
	                        berth_map_start_put(r->m, at, from, r->len, BERTH_DURABLE | BERTH_BY_RMA, op_done, r);
	if (err)
		r->err = err;
	else
		r->next++;
}

static void op_done(void *arg, int err, const struct berth_reply *reply)
{
	struct run *r = arg;

	(void)reply;
	r->done++;
	if (err)
		r->err = err;
	op_next(r);
}

static int berth_run(struct run *r, unsigned depth, uint64_t *nsec)
{
	uint64_t start = bench_now();

	for (unsigned i = 0; i < depth; i++)
		op_next(r);
	while (!r->err && r->done < r->ops)
		if (berth_wait(r->b, 10000) <= 0)
			r->err = -ETIMEDOUT;
	*nsec = bench_now() - start;
	return r->err;
}

/* A file for each way: what exists, or nothing. */
static int berth_cell(struct berth *b, char *buf, enum way way, size_t len, unsigned depth, unsigned ops,
                      uint64_t *nsec)
{
	struct run r = { .b = b, .buf = buf, .way = way, .len = len, .ops = ops };
	int flags = O_CREAT | O_RDWR | (way == APPEND ? O_TRUNC : 0);
	int err = berth_open(b, NULL, way == APPEND ? "new" : "old", flags, 0644, &r.f);

	if (err)
		return err;
	if (way != WRITE)
		err = berth_map(r.f, 0, BENCH_SPAN, BERTH_MAP_WRITE | BERTH_MAP_ONE_SIDED, &r.m);
	if (!err)
		err = berth_run(&r, depth, nsec);
	if (r.m)
		berth_unmap(r.m);
	berth_close(r.f);
	return err;
}

static int prepare(struct berth *b, const char *buf)
{
	struct berth_file *f;
	int err = berth_open(b, NULL, "old", O_CREAT | O_RDWR, 0644, &f);

	if (err)
		return err;
	err = berth_pwrite(f, buf, BENCH_SPAN, 0, BERTH_FILE_SYNC) == (ssize_t)BENCH_SPAN ? 0 : -EIO;
	berth_close(f);
	return err;
}

/* --- the table --- */

struct table {
	double us[WAYS][NDEPTHS][NSIZES][ROUNDS_MAX];
};

static int one_round(struct table *t, struct raw *raw, struct berth *b, char *buf, unsigned round)
{
	for (unsigned s = 0; s < NSIZES; s++)
		for (unsigned d = 0; d < NDEPTHS; d++)
			for (enum way w = RAW; w < WAYS; w++) {
				uint64_t start = bench_now(), nsec = 0;
				int err = w == RAW ? raw_run(raw, sizes[s], depths[d], ops_of[s]) :
				                     berth_cell(b, buf, w, sizes[s], depths[d], ops_of[s], &nsec);

				if (err)
					return err;
				if (w == RAW)
					nsec = bench_now() - start;
				t->us[w][d][s][round] = (double)nsec / 1000 / ops_of[s];
			}
	return 0;
}

static void print(struct table *t, unsigned rounds)
{
	printf("durable writes over tcp, us of one operation, medians of %u rounds; x: times raw\n"
	       "%8s %6s %9s %9s %6s %9s %6s %9s %6s %9s\n",
	       rounds, "bytes", "depth", "raw", "put", "x", "append", "x", "WRITE", "x", "WRITE/put");
	for (unsigned d = 0; d < NDEPTHS; d++)
		for (unsigned s = 0; s < NSIZES; s++) {
			double v[WAYS];

			for (enum way w = RAW; w < WAYS; w++)
				v[w] = bench_median(t->us[w][d][s], rounds);
			printf("%8zu %6u %9.1f %9.1f %6.2f %9.1f %6.2f %9.1f %6.2f %9.2f\n", sizes[s], depths[d],
			       v[RAW], v[PUT], v[PUT] / v[RAW], v[APPEND], v[APPEND] / v[RAW], v[WRITE],
			       v[WRITE] / v[RAW], v[WRITE] / v[PUT]);
		}
}

int bench_onesided(int argc, char **argv)
{
	unsigned rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 5;
	char *buf = aligned_alloc(4096, BENCH_SPAN);
	struct table *t = calloc(1, sizeof(*t));
	struct raw raw = { 0 };
	struct berth_error why = { "" };
	struct berth_mr *mr;
	struct berth *b;
	int err;

	if (argc < 2 || argc > 3 || rounds < 1 || rounds > ROUNDS_MAX || !buf || !t) {
		fprintf(stderr, "usage: berth-bench onesided berth+tcp://HOST:PORT/ [ROUNDS]   layouts on; up to %u rounds\n",
		        ROUNDS_MAX);
		return 2;
	}
	memset(buf, 'b', BENCH_SPAN);
	err = raw_start(&raw, "/dev/shm");
	if (!err)
		err = berth_connect(argv[1], NULL, &b, &why);
	if (!err)
		err = berth_register(b, buf, BENCH_SPAN, &mr);
	if (!err)
		err = prepare(b, buf);
	for (unsigned i = 0; !err && i < rounds; i++)
		err = one_round(t, &raw, b, buf, i);
	if (err)
		fprintf(stderr, "berth-bench: %s%s%s\n", strerror(-err), why.text[0] ? ": " : "", why.text);
	else
		print(t, rounds);
	kill(raw.pid, SIGKILL);
	waitpid(raw.pid, NULL, 0);
	return err ? 1 : 0;
}
