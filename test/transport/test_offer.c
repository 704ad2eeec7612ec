/* SPDX-License-Identifier: BSD-3-Clause */
/* test_offer.c - what libfabric offers on this machine, tried: tcp and shm are everywhere */
#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>

#include "transport/transport.h"

static struct tp_provider_facts try_it(const char *provider, const char *ep_type)
{
	struct tp_fabric_opts o = { .name = "test", .provider = provider, .ep_type = ep_type };
	struct tp_provider_facts f;
	struct tp_error why = { "" };
	char mem[4096];
	struct tp_region region = { .base = mem, .len = sizeof(mem) };
	int err = tp_provider_try(&o, &region, 5000, &f, &why);

	cr_assert_eq(err, 0, "%s: %s", provider, why.text);
	return f;
}

/* FI_COMMIT_COMPLETE is not taken at its word: a write with it went from one endpoint to another. */
Test(offer, the_self_test_of_tcp_sends_a_durable_write)
{
	struct tp_provider_facts f = try_it("tcp", NULL);

	cr_assert_str_eq(f.provider, "tcp");
	cr_assert_str_eq(f.ep_type, "FI_EP_MSG");
	cr_assert(f.rma_pmem);
	cr_assert_eq(f.commit_test, TP_TEST_PASSED, "%s", strerror(-f.commit_err));
	cr_assert(f.wait_fd && f.send_after_write && f.fenced && !f.prov_key && !f.verbs_like);
	cr_assert_eq(f.key_size, 8);
	cr_assert(f.memory_tried && !f.staged);
}

Test(offer, shm_claims_no_durable_write_and_is_not_tested)
{
	struct tp_provider_facts f = try_it("shm", NULL);

	cr_assert_str_eq(f.ep_type, "FI_EP_RDM");
	cr_assert(!f.rma_pmem && !f.wait_fd && !f.send_after_write);
	cr_assert_eq(f.commit_test, TP_TEST_NOT_RUN);
}

Test(offer, what_is_not_there_is_an_error_that_names_it)
{
	struct tp_fabric_opts o = { .name = "x", .provider = "no-such-provider" };
	struct tp_provider_facts f = { .key_size = 77 };
	struct tp_error why = { "" };

	cr_assert_lt(tp_provider_try(&o, NULL, 0, &f, &why), 0);
	cr_assert(strstr(why.text, "fabric x (no-such-provider)"), "%s", why.text);
	cr_assert_eq(f.key_size, 77, "left alone");
}

Test(offer, a_try_leaves_signals_as_they_were)
{
	struct sigaction sa;

	signal(SIGTERM, SIG_DFL);
	for (int i = 0; i < 3; i++) {
		try_it("tcp", NULL);
		try_it("shm", NULL);
	}
	sigaction(SIGTERM, NULL, &sa);
	cr_assert(sa.sa_handler == SIG_DFL);
}

static void count_tcp(void *arg, const struct tp_offer *o)
{
	unsigned *n = arg;

	cr_assert_str_eq(o->provider, "tcp");
	cr_assert(o->fabric[0] && o->domain[0] && !strncmp(o->ep_type, "FI_EP_", 6));
	*n += !strcmp(o->address, "127.0.0.1") && !strcmp(o->ep_type, "FI_EP_MSG");
}

static void find_tcp(void *arg, const char *name)
{
	*(bool *)arg |= !strcmp(name, "tcp");
}

Test(offer, loopback_is_among_what_tcp_offers)
{
	unsigned n = 0, major = 0, minor = 0;
	bool seen = false;

	cr_assert_eq(tp_offers("tcp", count_tcp, &n), 0);
	cr_assert(n, "no FI_EP_MSG on 127.0.0.1");
	cr_assert_eq(tp_provider_names(find_tcp, &seen), 0);
	cr_assert(seen);
	tp_fabric_version(&major, &minor);
	cr_assert(major > 1 || (major == 1 && minor >= 17));
}

Test(offer, no_provider_of_that_name_offers_nothing)
{
	unsigned n = 0;

	cr_assert_eq(tp_offers("no-such-provider", count_tcp, &n), 0);
	cr_assert_eq(n, 0);
}
