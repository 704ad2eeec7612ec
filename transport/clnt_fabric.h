/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * clnt_fabric.h - ONC RPC over a libfabric fabric for rpcgen clients; in libberth, see clnt_fabric_create(3)
 *
 *     struct tp_fabric_opts opts = { .provider = "tcp", .node = "192.0.2.1", .service = "20049" };
 *     CLIENT *clnt = clnt_fabric_create(&opts, MY_PROG, MY_VERS, (struct timeval){ 5, 0 }, &why);
 *
 * The calls that rpcgen made run over it unchanged. On the wire: RPC-over-RDMA version 1 (RFC 8166).
 */
#ifndef TRANSPORT_CLNT_FABRIC_H
#define TRANSPORT_CLNT_FABRIC_H

#include <rpc/rpc.h>
#include <stdbool.h>
#include <stdint.h>

#define TP_API __attribute__((visibility("default")))

struct tp_error {
	char text[512]; /* names the thing and the cure */
};

/* Where a server lets the provider put payload. AUTO: directly where the memory can be registered, else staged. */
enum tp_placement { TP_PLACE_AUTO, TP_PLACE_DIRECT, TP_PLACE_STAGED };

struct tp_fabric_opts { /* named as in struct fi_info; NULL where left open */
	const char *name;     /* of the configuration section, for messages */
	const char *provider; /* exact: "tcp", "verbs", "shm", ... */
	const char *fabric, *domain;
	const char *node, *service; /* node NULL: loopback for tcp; service: port, or the name of an shm endpoint (default "berth") */
	const char *ep_type;  /* "FI_EP_MSG", "FI_EP_RDM"; NULL: what the provider is best at */
	unsigned credits;     /* most per connection; 0: 32 */
	uint32_t inline_size; /* of one message; 0: 4096 */
	unsigned read_depth;  /* server: reads in flight per connection; 0: 16 */
	enum tp_placement placement; /* server */
	bool odp;             /* server: FI_VERBS_USE_ODP is set; only for what is said about placement */
	/* Client: which one this is, for servers that cannot tell by an address (shm): the same after a reconnect, another
	 * for every other client of that server. All zero: this process, whatever it opens. */
	uint8_t instance[16];
	/* FI_EP_MSG: connections with a domain of their own (transport.h), where keys of the server's memory are good on no
	 * other connection. */
	struct tp_own {
		bool ask;      /* client: for one, if the server gives such. Calls and answers must fit a message then */
		uint32_t prog; /* server: to those that ask; the only program on them. 0: to nobody */
		unsigned most, most_of_one; /* server: in all, and of one address */
	} own;
};

/* A libtirpc CLIENT over a fabric (RFC 8166): an rpcgen client runs over it unchanged. @timeout for connecting.
 * NULL: rpc_createerr and @why tell. Destroy with clnt_destroy(). Not for several threads at once. */
TP_API CLIENT *clnt_fabric_create(const struct tp_fabric_opts *opts, rpcprog_t prog, rpcvers_t vers, struct timeval timeout,
			   struct tp_error *why);

#endif
