/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rpcb.c - tell rpcbind (RFC 1833) where NFS and MOUNT are
 *
 * netids (RFC 5665): tcp and tcp6 for sockets, rdma and rdma6 for fabrics on IP. Where no rpcbind listens
 * on its local socket nothing is said and nothing is tried.
 */
#include <arpa/inet.h>
#include <netconfig.h>
#include <netinet/in.h>
#include <rpc/rpc.h>
#include <rpc/rpcb_clnt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include "proto/mount3.h"
#include "proto/nfs3.h"
#include "server/process.h"

#define MAX_REGISTRATIONS 8

struct registration {
	rpcprog_t prog;
	bool v6, rdma;
	uint16_t port;
};
struct registrations {
	unsigned n;
	struct registration r[MAX_REGISTRATIONS];
};

static bool rpcbind_there(void)
{
	static const char *const paths[] = { "/run/rpcbind.sock", "/var/run/rpcbind.sock" };
	bool there = false;

	for (unsigned i = 0; i < 2 && !there; i++) {
		struct sockaddr_un sun = { .sun_family = AF_UNIX };
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		strcpy(sun.sun_path, paths[i]);
		there = fd >= 0 && !connect(fd, (struct sockaddr *)&sun, sizeof(sun));
		if (fd >= 0)
			close(fd);
	}
	return there;
}

static struct registrations list_registrations(const struct config *conf)
{
	struct registrations all = { .n = 0 };
	struct registration *r = all.r;
	struct fabric_conf *f;

	for (int v6 = 0; v6 < 2 && conf->port; v6++) {
		r[all.n++] = (struct registration){ NFS3_PROGRAM, v6, false, (uint16_t)conf->port };
		r[all.n++] = (struct registration){ MOUNT3_PROGRAM, v6, false,
						    (uint16_t)(conf->mount_port ? conf->mount_port : conf->port) };
	}
	STAILQ_FOREACH (f, &conf->fabrics, link) {
		unsigned long port = f->opts.service ? strtoul(f->opts.service, NULL, 10) : 20049;

		if (strcmp(f->opts.provider, "verbs") || !port || port > 65535)
			continue; /* netid rdma means verbs to every client */
		r[all.n++] = (struct registration){ NFS3_PROGRAM, false, true, (uint16_t)port };
		r[all.n++] = (struct registration){ NFS3_PROGRAM, true, true, (uint16_t)port };
		break;
	}
	return all;
}

/* rpcb_set wants a netconfig entry; /etc/netconfig has none for rdma. libtirpc looks addresses up by
 * protocol, and knows tcp; what rpcbind is told is the netid. It copies the device's name. */
static struct netconfig netconfig_of(const struct registration *r)
{
	static char netid[2][2][6] = { { "tcp", "tcp6" }, { "rdma", "rdma6" } };

	return (struct netconfig){ .nc_netid = netid[r->rdma][r->v6],
				   .nc_semantics = NC_TPI_COTS_ORD,
				   .nc_flag = NC_VISIBLE,
				   .nc_protofmly = (char *)(r->v6 ? NC_INET6 : NC_INET),
				   .nc_proto = (char *)NC_TCP,
				   .nc_device = (char *)NC_NOPROTO };
}

static void set_one(const struct registration *r)
{
	struct netconfig nc = netconfig_of(r);
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(r->port) };
	struct sockaddr_in in4 = { .sin_family = AF_INET, .sin_port = htons(r->port) };
	struct netbuf nb;

	nb.buf = r->v6 ? (void *)&in6 : (void *)&in4;
	nb.len = nb.maxlen = r->v6 ? sizeof(in6) : sizeof(in4);
	if (!rpcb_set(r->prog, 3, &nc, &nb))
		log_msg(LOG_INFO, "rpcbind has program %u on %s already: from before a restart, or another "
				  "server's (rpcinfo -p shows it, rpcinfo -d clears it)",
			(unsigned)r->prog, nc.nc_netid);
}

/* Only what points here: another server's registration is not ours to take away. */
static void unset_one(const struct registration *r)
{
	struct netconfig nc = netconfig_of(r);
	struct sockaddr_storage ss;
	struct netbuf nb = { .buf = &ss, .maxlen = sizeof(ss) };

	if (!r->rdma) {
		if (!rpcb_getaddr(r->prog, 3, &nc, &nb, r->v6 ? "::1" : "127.0.0.1"))
			return;
		if (ntohs(((struct sockaddr_in *)&ss)->sin_port) != r->port) /* same place in both */
			return;
	}
	rpcb_unset(r->prog, 3, &nc);
}

static void *set_all(void *arg)
{
	struct registrations *all = arg;

	if (rpcbind_there()) {
		for (unsigned i = 0; i < all->n; i++)
			set_one(&all->r[i]);
	}
	free(all);
	return NULL;
}

/* rpcbind answers when it likes: not on a loop, and with what the thread has to itself, for the server may end before. */
void rpcb_register(const struct server *srv)
{
	struct registrations *all;
	pthread_t t;

	if (!srv->conf.rpcbind_auto)
		return;
	all = malloc(sizeof(*all));
	if (!all)
		return;
	*all = list_registrations(&srv->conf);
	if (pthread_create(&t, NULL, set_all, all))
		free(all);
	else
		pthread_detach(t);
}

void rpcb_unregister(const struct server *srv)
{
	struct registrations all;

	if (!srv->conf.rpcbind_auto || !rpcbind_there())
		return;
	all = list_registrations(&srv->conf);
	for (unsigned i = 0; i < all.n; i++)
		unset_one(&all.r[i]);
}
