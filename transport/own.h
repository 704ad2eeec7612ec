/* SPDX-License-Identifier: BSD-3-Clause */
/* own.h - when connections are to have domains of their own (struct tp_own of clnt_fabric.h) */
#ifndef TRANSPORT_OWN_H
#define TRANSPORT_OWN_H

#include <stdbool.h>

/* What they are good for over a provider, and what they cost. @ep_type: NULL or as fi_tostr has it. Pure. */
struct tp_own_advice {
	bool possible;              /* keys are looked at, in the domain of the connection */
	bool better;                /* a client could guess another's key otherwise: the default */
	const char *why;
	unsigned most, most_of_one; /* by default: they bound the memory that clients can take */
	unsigned kib, descriptors;  /* of the server for each, as measured (doc/layout.md); 0: not measured */
};
void tp_own_advise(const char *provider, const char *ep_type, struct tp_own_advice *out);

#endif
