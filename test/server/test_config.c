/* SPDX-License-Identifier: BSD-3-Clause */
/* config.c: what a berth.conf may say, and how mistakes are told */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/config.h"

static char why[4000];

static int load(struct config *c, const char *text)
{
	char path[] = "/tmp/berth-conf-XXXXXX";
	int fd = mkstemp(path), err;

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	config_init(c);
	why[0] = '\0';
	err = config_load(c, path, why, sizeof(why));
	unlink(path);
	return err;
}

Test(config, every_key_arrives)
{
	struct config c;
	struct fabric_conf *f;

	cr_assert_eq(load(&c, "[server]\npool = /p\nworkers = 3\ncontrol=/c\npersistence = clwb\n"
			      "supervise = off\nmax_connections = 7\nidle_timeout = 9\nclient_timeout = 5\n"
			      "[nfs]\nlisten = 127.0.0.1 ::1\nport = 12049\nmount_port = 12050\n"
			      "rpcbind = off\nstability = honor\n[exports]\nfile = /e\n"
			      "[fabric one]\nprovider = tcp\nnode = 127.0.0.1\nservice = 1\nep_type = FI_EP_MSG\n"
			      "domain = lo\nfabric = f\ncredits = 5\ninline_size = 2048\nread_depth = 4\nplacement = staged\non_demand_paging = on\nlayouts = on\n"
			      "persistence = read-after-write\nddio = off\n"
			      "[fabric two]\nprovider = shm\n"),
		     0, "%s", why);
	cr_assert_eq(config_finish(&c, why, sizeof(why)), 0, "%s", why);
	cr_assert_str_eq(c.pool, "/p");
	cr_assert_eq(c.workers, 3);
	cr_assert_str_eq(c.control, "/c");
	cr_assert_eq(c.method, PM_CLWB);
	cr_assert(!c.supervise);
	cr_assert_eq(c.max_conns, 7);
	cr_assert_eq(c.idle_timeout, 9);
	cr_assert_eq(c.client_timeout, 5);
	cr_assert_str_eq(c.listen, "127.0.0.1 ::1");
	cr_assert(c.port == 12049 && c.mount_port == 12050 && !c.rpcbind_auto);
	cr_assert_eq(c.stability, STABILITY_HONOR);
	cr_assert_str_eq(c.exports_file, "/e");
	f = STAILQ_FIRST(&c.fabrics);
	cr_assert_str_eq(f->opts.name, "one");
	cr_assert_str_eq(f->opts.provider, "tcp");
	cr_assert_str_eq(f->opts.node, "127.0.0.1");
	cr_assert_str_eq(f->opts.service, "1");
	cr_assert_str_eq(f->opts.ep_type, "FI_EP_MSG");
	cr_assert_str_eq(f->opts.domain, "lo");
	cr_assert_str_eq(f->opts.fabric, "f");
	cr_assert(f->opts.credits == 5 && f->opts.inline_size == 2048 && f->layouts);
	cr_assert(f->opts.read_depth == 4 && f->opts.placement == TP_PLACE_STAGED && f->opts.odp);
	cr_assert(f->method == PM_READ_AFTER_WRITE && f->ddio == PM_DDIO_OFF);
	cr_assert(STAILQ_NEXT(f, link)->method == PM_AUTO && STAILQ_NEXT(f, link)->ddio == PM_DDIO_UNKNOWN);
	cr_assert_str_eq(STAILQ_NEXT(f, link)->opts.name, "two");
	config_free(&c);
}

static struct tp_own own_of(const char *text)
{
	struct tp_own own;
	struct config c;
	char all[500];

	snprintf(all, sizeof(all), "[server]\npool = /p\n[exports]\nfile = /e\n[fabric a]\n%s", text);
	cr_assert_eq(load(&c, all), 0, "%s", why);
	cr_assert_eq(config_finish(&c, why, sizeof(why)), 0, "%s", why);
	own = STAILQ_FIRST(&c.fabrics)->opts.own;
	config_free(&c);
	return own;
}

static void no_domains(const char *text, const char *says)
{
	struct config c;
	char all[500];

	snprintf(all, sizeof(all), "[server]\npool = /p\n[exports]\nfile = /e\n[fabric a]\n%s", text);
	cr_assert_eq(load(&c, all), 0, "%s", why);
	cr_assert_eq(config_finish(&c, why, sizeof(why)), -EINVAL);
	cr_assert(strstr(why, says), "%s", why);
	config_free(&c);
}

Test(config, a_domain_for_each_client_where_keys_are_short_or_it_is_wanted)
{
	struct tp_own own;

	cr_assert_eq(own_of("provider = verbs\n").prog, 0, "no layouts");
	own = own_of("provider = verbs\nlayouts = on\n");
	cr_assert(own.prog && own.most == 1024 && own.most_of_one == 128);
	cr_assert_eq(own_of("provider = verbs\nlayouts = on\nlayout_domain = shared\n").prog, 0);
	cr_assert_eq(own_of("provider = verbs\nlayouts = on\nep_type = FI_EP_RDM\n").prog, 0);
	cr_assert_eq(own_of("provider = tcp\nlayouts = on\n").prog, 0);
	own = own_of("provider = tcp\nlayouts = on\nlayout_domain = client\n");
	cr_assert(own.prog && own.most == 128 && own.most_of_one == 16, "they take half a MiB each");
	own = own_of("provider = tcp\nlayouts = on\nlayout_domain = client\nlayout_domains = 5\nlayout_domains_client = 2\n");
	cr_assert(own.prog && own.most == 5 && own.most_of_one == 2);
	cr_assert_eq(own_of("provider = shm\nlayouts = on\n").prog, 0);
	no_domains("provider = shm\nlayouts = on\nlayout_domain = client\n", "looks at no key");
	no_domains("provider = tcp\nep_type = FI_EP_RDM\nlayout_domain = client\n", "ep_type = FI_EP_MSG");
}

Test(config, the_sample_holds_every_key_and_is_accepted)
{
	struct config c;

	config_init(&c);
	cr_assert_eq(config_load(&c, "etc/berth.conf", why, sizeof(why)), 0, "%s", why);
	cr_assert_eq(config_finish(&c, why, sizeof(why)), 0, "%s", why);
	config_free(&c);
}

Test(config, all_mistakes_are_told_with_their_lines)
{
	struct config c;

	cr_assert_eq(load(&c, "[server]\npoool = /p\nworkers = 0\n\n[nfs]\nstability = maybe\n"
			      "[disk]\nx = 1\n[fabric]\nprovider = tcp\n[fabric a]\nplacement = ring\n"),
		     -EINVAL);
	cr_assert(strstr(why, ":2: [server] has no key 'poool'; it has pool workers"), "%s", why);
	cr_assert(strstr(why, ":3: workers = 0: must be a number from 1 to 64"), "%s", why);
	cr_assert(strstr(why, ":6: stability = maybe: must be auto or honor"), "%s", why);
	cr_assert(strstr(why, ":8: no section [disk]"), "%s", why);
	cr_assert(strstr(why, ":10: no section [fabric]"), "%s", why);
	cr_assert(strstr(why, ":12: placement = ring: must be auto, direct or staged"), "%s", why);
	config_free(&c);
}

Test(config, a_key_is_set_once)
{
	struct config c;

	cr_assert_eq(load(&c, "[server]\npool = /p\n[nfs]\nport = 1\n[server]\nworkers = 2\npool = /q\n"
			      "[nfs]\nlisten = 127.0.0.1\n  ::1\n"
			      "[fabric a]\nprovider = tcp\n[fabric b]\nprovider = shm\n[fabric a]\nprovider = verbs\n"),
		     -EINVAL);
	cr_assert(strstr(why, ":7: [server] pool is set in line 2 already"), "%s", why);
	cr_assert(strstr(why, ":10: [nfs] listen is set in line 9 already"), "a second line is a second value: %s", why);
	cr_assert(strstr(why, ":16: [fabric a] provider is set in line 12 already"), "%s", why);
	cr_assert_null(strstr(why, "shm"), "%s", why);
	config_free(&c);
}

Test(config, text_that_is_no_ini_is_refused)
{
	struct config c;

	cr_assert_eq(load(&c, "[server]\npool /p\n"), -EINVAL);
	cr_assert(strstr(why, ":2: neither"), "%s", why);
	config_free(&c);
	cr_assert_eq(config_load(&c, "/nonexistent", why, sizeof(why)), -ENOENT);
	cr_assert(strstr(why, "/nonexistent"));
}

Test(config, the_command_line_overrides)
{
	struct config c;

	cr_assert_eq(load(&c, "[server]\npool = /p\n[exports]\nfile = /e\n"), 0);
	cr_assert_eq(config_override(&c, "server.pool=/q", why, sizeof(why)), 0);
	cr_assert_eq(config_override(&c, "fabric my.net.provider=tcp", why, sizeof(why)), 0);
	cr_assert_str_eq(c.pool, "/q");
	cr_assert_str_eq(STAILQ_FIRST(&c.fabrics)->opts.name, "my.net");
	cr_assert_eq(config_override(&c, "pool=/q", why, sizeof(why)), -EINVAL);
	cr_assert(strstr(why, "section.key=value"));
	cr_assert_eq(config_override(&c, "server.pool", why, sizeof(why)), -EINVAL);
	cr_assert_eq(config_override(&c, "server.pool=relative", why, sizeof(why)), -EINVAL);
	cr_assert(strstr(why, "absolute path"));
	config_free(&c);
}

Test(config, what_is_missing_is_asked_for)
{
	struct config c;

	cr_assert_eq(load(&c, "[exports]\nfile = /e\n"), 0);
	cr_assert_eq(config_finish(&c, why, sizeof(why)), -EINVAL);
	cr_assert(strstr(why, "server.pool"), "%s", why);
	config_free(&c);
	cr_assert_eq(load(&c, "[server]\npool=/p\n[exports]\nfile = /e\n[fabric x]\nnode = ::1\n"), 0);
	cr_assert_eq(config_finish(&c, why, sizeof(why)), -EINVAL);
	cr_assert(strstr(why, "[fabric x] has no provider"), "%s", why);
	config_free(&c);
	cr_assert_eq(load(&c, "[server]\npool=/p\n[nfs]\nport=0\n[exports]\nfile = /e\n"), 0);
	cr_assert_eq(config_finish(&c, why, sizeof(why)), -EINVAL);
	cr_assert(strstr(why, "nobody could connect"), "%s", why);
	config_free(&c);
}
