/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rendezvous.c - how FI_EP_RDM peers meet, notice each other's end, and wake each other
 *
 * The hello is one fixed block of big-endian words and an address, the same both ways:
 *
 *   0  magic "BRDV"    4  version 2     8  flags: 1 = ring me, I cannot sleep on my queue; 2 = share memory with me
 *  12  inline size    16  credits      20  slot in the page (server)
 *  24  nonce (8)      32  address length, then 256 bytes of address
 * 292  which client this is (16): the same after it has met the server anew
 *
 * It is smaller than any socket buffer, so a fresh connection takes it whole. The page goes along
 * with the server's answer as a sealed memory file: a peer may lie in its flags, and cost itself or
 * others a wake-up, but cannot cut the file from under a mapping. So does, as a second one, the memory that this
 * client and the server share.
 *
 * The flag of a side that sleeps is taken down by whoever rings it, so that many messages cost one
 * byte. Both sides order "post, fence, look at the flag" against "set the flag, fence, look at the
 * queue".
 */
#include "transport/fabric.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/un.h>
#include <unistd.h>

#define HELLO_MAGIC   0x42524456u
#define HELLO_VERSION 2
#define HELLO_RING    1u
#define HELLO_SHARE   2u
#define HELLO_SIZE    (36 + FAB_ADDR_MAX + 16)
#define SLOT_SIZE     64 /* a cache line each */
#define SLOTS         1024
#define PAGE_LEN      ((size_t)SLOT_SIZE * (SLOTS + 1))
#define DEF_SERVICE   "20049"
#define DEF_SHM       "berth"
#define FDS           2 /* that come with an answer: the page, then shared memory */

struct rdv_page {
	int fd;
	uint8_t *map;
	bool used[SLOTS];
};

/* --- hello --- */

static void put32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void hello_encode(const struct rdv_hello *h, uint8_t *b)
{
	memset(b, 0, HELLO_SIZE);
	put32(b, HELLO_MAGIC);
	put32(b + 4, HELLO_VERSION);
	put32(b + 8, (h->ring ? HELLO_RING : 0) | (h->share ? HELLO_SHARE : 0));
	put32(b + 12, h->inline_size);
	put32(b + 16, h->credits);
	put32(b + 20, h->slot);
	put32(b + 24, (uint32_t)(h->nonce >> 32));
	put32(b + 28, (uint32_t)h->nonce);
	put32(b + 32, h->addr_len);
	memcpy(b + 36, h->addr, h->addr_len);
	memcpy(b + 36 + FAB_ADDR_MAX, h->instance, sizeof(h->instance));
}

static int hello_decode(const uint8_t *b, struct rdv_hello *out)
{
	struct rdv_hello h = { .ring = get32(b + 8) & HELLO_RING,
		               .share = get32(b + 8) & HELLO_SHARE,
		               .inline_size = get32(b + 12),
		               .credits = get32(b + 16),
		               .slot = get32(b + 20),
		               .nonce = (uint64_t)get32(b + 24) << 32 | get32(b + 28),
		               .addr_len = get32(b + 32) };

	if (get32(b) != HELLO_MAGIC || get32(b + 4) != HELLO_VERSION)
		return -EPROTO;
	if (!h.addr_len || h.addr_len > FAB_ADDR_MAX || h.slot > SLOTS || h.inline_size < 256)
		return -EPROTO;
	memcpy(h.addr, b + 36, h.addr_len);
	memcpy(h.instance, b + 36 + FAB_ADDR_MAX, sizeof(h.instance));
	*out = h;
	return 0;
}

static int send_block(struct rdv *r, const struct rdv_hello *h, const int *fd, unsigned nfds)
{
	uint8_t b[HELLO_SIZE];
	struct iovec iov = { .iov_base = b, .iov_len = sizeof(b) };
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(FDS * sizeof(int))];
	} ctl;
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	hello_encode(h, b);
	if (nfds) {
		struct cmsghdr *c;

		memset(&ctl, 0, sizeof(ctl));
		m.msg_control = &ctl;
		m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fd, nfds * sizeof(int));
	}
	n = sendmsg(r->fd, &m, MSG_NOSIGNAL);
	if (n < 0)
		return -errno;
	return n == (ssize_t)sizeof(b) ? 0 : -EIO;
}

int rdv_send_hello(struct rdv *r, const struct rdv_hello *h)
{
	return send_block(r, h, NULL, 0);
}

static void take_fds(struct rdv *r, struct msghdr *m)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (r->page_fd < 0)
				r->page_fd = fd;
			else if (r->shared_fd < 0)
				r->shared_fd = fd;
			else
				close(fd);
		}
	}
}

static ssize_t receive_some(struct rdv *r)
{
	struct iovec iov = { .iov_base = r->buf + r->have, .iov_len = HELLO_SIZE - r->have };
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(FDS * sizeof(int))];
	} ctl;
	struct msghdr m = { .msg_iov = &iov,
		            .msg_iovlen = 1,
		            .msg_control = &ctl,
		            .msg_controllen = sizeof(ctl.room) };
	ssize_t n = recvmsg(r->fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

	if (n >= 0)
		take_fds(r, &m);
	return n;
}

/* The client's half: only a file that nobody can cut is mapped. @len: how long it must be, then how long it is. */
static int map_sealed(int fd, size_t *len, void **map)
{
	int seals = fcntl(fd, F_GET_SEALS);
	off_t size = lseek(fd, 0, SEEK_END);

	if (seals < 0 || !(seals & F_SEAL_SHRINK) || size < (off_t)*len)
		return -EPROTO;
	*len = (size_t)size;
	*map = mmap(NULL, *len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return *map == MAP_FAILED ? -errno : 0;
}

static void close_shared(struct rdv *r)
{
	if (r->shared_fd >= 0)
		close(r->shared_fd);
	r->shared_fd = -1;
}

static int map_shared(struct rdv *r)
{
	size_t len = 1;
	void *map;
	int err = map_sealed(r->shared_fd, &len, &map);

	close_shared(r);
	if (err)
		return err;
	r->shared = map;
	r->shared_len = len;
	return 0;
}

static int map_page(struct rdv *r, uint32_t slot)
{
	size_t len = PAGE_LEN;
	void *map;
	int err = map_sealed(r->page_fd, &len, &map);

	if (err)
		return err;
	r->map = map;
	r->map_len = len;
	r->their = map;
	r->mine = (_Atomic uint32_t *)(void *)((uint8_t *)map + (size_t)SLOT_SIZE * slot);
	return 0;
}

int rdv_recv_hello(struct rdv *r, struct rdv_hello *h)
{
	struct rdv_hello got;
	int err;

	while (r->have < HELLO_SIZE) {
		ssize_t n = receive_some(r);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EWOULDBLOCK ? -EAGAIN : -errno;
		if (n == 0)
			return -ECONNRESET;
		r->have += (size_t)n;
	}
	err = hello_decode(r->buf, &got);
	if (!err && r->page_fd >= 0 && got.slot)
		err = map_page(r, got.slot);
	if (!err && r->shared_fd >= 0)
		err = map_shared(r);
	if (err)
		return err;
	r->ring = got.ring && !r->their;
	*h = got;
	return 0;
}

/* --- after the hello --- */

int rdv_drain(struct rdv *r)
{
	uint8_t junk[256];

	/* Bounded: a peer that rings without end does not keep us here. */
	for (int i = 0; i < 16; i++) {
		ssize_t n = recv(r->fd, junk, sizeof(junk), MSG_DONTWAIT);

		if (n == 0)
			return -ECONNRESET;
		if (n < 0 && errno != EINTR)
			return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -ECONNRESET;
		if (n > 0 && n < (ssize_t)sizeof(junk))
			return 0;
	}
	return 0;
}

static void ring(struct rdv *r)
{
	static const uint8_t bell = 1;

	/* A full socket has bells enough in it; a broken one tells its reader. */
	if (send(r->fd, &bell, 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return;
}

void rdv_ring(struct rdv *r)
{
	if (r->their) {
		atomic_thread_fence(memory_order_seq_cst);
		if (atomic_load_explicit(r->their, memory_order_relaxed) &&
		    atomic_exchange(r->their, 0))
			ring(r);
	} else if (r->ring) {
		ring(r);
	}
}

void rdv_arm(_Atomic uint32_t *mine)
{
	atomic_store(mine, 1);
	atomic_thread_fence(memory_order_seq_cst);
}

void rdv_disarm(_Atomic uint32_t *mine)
{
	atomic_store_explicit(mine, 0, memory_order_relaxed);
}

void rdv_close(struct rdv *r)
{
	if (r->fd >= 0)
		close(r->fd);
	if (r->page_fd >= 0)
		close(r->page_fd);
	close_shared(r);
	if (r->map)
		munmap(r->map, r->map_len);
	if (r->shared)
		munmap(r->shared, r->shared_len);
	*r = RDV_NONE;
}

/* --- sockets --- */

/* "\0berth.shm.UID.SERVICE": gone with its process, whatever it dies of. */
static socklen_t shm_address(const struct tp_fabric_opts *opts, struct sockaddr_un *sun)
{
	int n;

	*sun = (struct sockaddr_un){ .sun_family = AF_UNIX };
	n = snprintf(sun->sun_path + 1, sizeof(sun->sun_path) - 1, "berth.shm.%ld.%s",
	             (long)geteuid(), opts->service ? opts->service : DEF_SHM);
	if (n < 0 || (size_t)n >= sizeof(sun->sun_path) - 1)
		n = (int)sizeof(sun->sun_path) - 2;
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static int resolve(const struct tp_fabric_opts *opts, bool passive, struct addrinfo **out,
                   struct tp_error *why)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC,
		                  .ai_socktype = SOCK_STREAM,
		                  .ai_flags = passive ? AI_PASSIVE : 0 };
	int err = getaddrinfo(opts->node ? opts->node : "127.0.0.1",
	                      opts->service ? opts->service : DEF_SERVICE, &hints, out);

	if (!err)
		return 0;
	return fab_error(why, opts, "node and service do not name an address",
	                 err == EAI_MEMORY ? -ENOMEM : -EADDRNOTAVAIL);
}

int rdv_dial(const struct fab *f, const struct tp_fabric_opts *opts, struct rdv *r,
             struct tp_error *why)
{
	const int type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
	struct addrinfo *ai = NULL;
	struct sockaddr_un sun;
	int fd, err = 0;

	if (f->shm) {
		socklen_t len = shm_address(opts, &sun);

		fd = socket(AF_UNIX, type, 0);
		if (fd < 0 || connect(fd, (struct sockaddr *)&sun, len))
			err = -errno;
	} else {
		err = resolve(opts, false, &ai, why);
		if (err)
			return err;
		fd = socket(ai->ai_family, type, 0);
		if (fd < 0 || (connect(fd, ai->ai_addr, ai->ai_addrlen) && errno != EINPROGRESS))
			err = -errno;
		freeaddrinfo(ai);
	}
	if (err) {
		if (fd >= 0)
			close(fd);
		return fab_error(why, opts, "the server cannot be reached", err);
	}
	*r = RDV_NONE;
	r->fd = fd;
	return 0;
}

int rdv_dialed(struct rdv *r)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(int);
	int err = 0;

	if (getsockopt(r->fd, SOL_SOCKET, SO_ERROR, &err, &len))
		return -errno;
	if (err)
		return -err;
	len = sizeof(ss);
	if (getpeername(r->fd, (struct sockaddr *)&ss, &len))
		return errno == ENOTCONN ? -EAGAIN : -errno;
	return 0;
}

int rdv_listen(const struct fab *f, const struct tp_fabric_opts *opts, int *out,
               struct tp_error *why)
{
	const int type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, on = 1;
	struct addrinfo *ai = NULL;
	struct sockaddr_un sun;
	int fd, err = 0;

	if (f->shm) {
		socklen_t len = shm_address(opts, &sun);

		fd = socket(AF_UNIX, type, 0);
		if (fd < 0 || bind(fd, (struct sockaddr *)&sun, len))
			err = -errno;
	} else {
		err = resolve(opts, true, &ai, why);
		if (err)
			return err;
		fd = socket(ai->ai_family, type, 0);
		if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
		    bind(fd, ai->ai_addr, ai->ai_addrlen))
			err = -errno;
		freeaddrinfo(ai);
	}
	if (!err && listen(fd, 128))
		err = -errno;
	if (err) {
		if (fd >= 0)
			close(fd);
		return fab_error(why, opts, "listening for hellos (is another server running?)",
		                 err);
	}
	*out = fd;
	return 0;
}

int rdv_accept(const struct fab *f, int listen_fd, struct rdv *r)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), on = 1;
	struct ucred peer = { 0 };
	socklen_t len = sizeof(peer);

	if (fd < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	if (!f->shm) {
		if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) ||
		    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)))
			goto refuse;
	} else if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) || peer.uid != geteuid()) {
		goto refuse;
	}
	*r = RDV_NONE;
	r->fd = fd;
	r->pid = peer.pid;
	return 0;
refuse:
	close(fd);
	return -EACCES;
}

/* --- the page of flags, and shared memory --- */

/* The descriptor of a memory file of @len bytes for ever, mapped; or -errno. */
static int sealed_new(const char *name, size_t len, void **map)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING), err;

	if (fd < 0)
		return -errno;
	if (!ftruncate(fd, (off_t)len) && !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
		*map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (*map != MAP_FAILED)
			return fd;
	}
	err = -errno;
	close(fd);
	return err;
}

int rdv_page_new(struct rdv_page **out)
{
	struct rdv_page *pg = calloc(1, sizeof(*pg));
	void *map;

	if (!pg)
		return -ENOMEM;
	pg->fd = sealed_new("berth-bells", PAGE_LEN, &map);
	if (pg->fd < 0) {
		int err = pg->fd;

		free(pg);
		return err;
	}
	pg->map = map;
	*out = pg;
	return 0;
}

void rdv_share(struct rdv *r, size_t len)
{
	void *map;
	int fd = sealed_new("berth-shared", len, &map);

	if (fd < 0)
		return;
	r->shared_fd = fd;
	r->shared = map;
	r->shared_len = len;
}

void rdv_page_free(struct rdv_page *pg)
{
	munmap(pg->map, PAGE_LEN);
	close(pg->fd);
	free(pg);
}

_Atomic uint32_t *rdv_page_server(struct rdv_page *pg)
{
	return (_Atomic uint32_t *)(void *)pg->map;
}

int rdv_answer(struct rdv *r, struct rdv_page *pg, struct rdv_hello *h)
{
	const int fd[FDS] = { pg ? pg->fd : -1, r->shared_fd };
	uint32_t slot = 0;
	int err;

	if (!pg)
		return send_block(r, h, NULL, 0);
	while (slot < SLOTS && pg->used[slot])
		slot++;
	if (slot == SLOTS)
		return -ENOSPC;
	pg->used[slot] = true;
	h->slot = slot + 1;
	r->their = (_Atomic uint32_t *)(void *)(pg->map + (size_t)SLOT_SIZE * h->slot);
	r->ring = false;
	atomic_store(r->their, 0);
	err = send_block(r, h, fd, r->shared_fd < 0 ? 1 : 2);
	close_shared(r);
	return err;
}

void rdv_page_put(struct rdv_page *pg, struct rdv *r)
{
	if (r->their)
		pg->used[((uint8_t *)r->their - pg->map) / SLOT_SIZE - 1] = false;
	r->their = NULL;
}
