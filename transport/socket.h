/* SPDX-License-Identifier: BSD-3-Clause */
/* socket.h - what socket.c (connections) and socket_listen.c (where they come from) owe each other */
#ifndef TRANSPORT_SOCKET_H
#define TRANSPORT_SOCKET_H

#include "transport/rpc.h"

/* A connection of @svc on @fd (connected, non-blocking), which it owns from then on. -ENOMEM, and what rpc_conn_init()
 * says: @fd is still the caller's. */
int sock_conn_new(struct tp_service *svc, int fd, const struct sockaddr_storage *peer);

#endif
