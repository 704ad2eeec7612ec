/* SPDX-License-Identifier: BSD-3-Clause */
/* access.c: squashing, mode bits, and the rules of POSIX about owners, as tables */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/stat.h>

#include "server/nfs3.h"

static const struct access_who root = { .uid = 0, .gid = 0 };
static const struct access_who owner = { .uid = 100, .gid = 10 };
static const struct access_who member = { .uid = 200, .gid = 20, .ngids = 2, .gids = { 30, 10 } };
static const struct access_who other = { .uid = 300, .gid = 20 };

static struct pm_attr obj(enum pm_type type, uint32_t mode)
{
	return (struct pm_attr){ .type = type, .mode = mode, .uid = 100, .gid = 10 };
}

Test(access, squashes_as_the_export_says)
{
	struct tp_cred c = { .flavor = AUTH_SYS, .ngids = 2, .gids = { 0, 5 } };
	struct tp_cred u = { .flavor = AUTH_SYS, .uid = 7, .gid = 8, .ngids = 1, .gids = { 9 } };
	struct tp_cred none = { .flavor = AUTH_NONE };
	struct export_opts o = { .root_squash = true, .anonuid = 65534, .anongid = 65533 };
	struct access_who w;

	access_who(&c, &o, &w);
	cr_assert(w.uid == 65534 && w.gid == 65533 && w.ngids == 2 && w.gids[0] == 65533 &&
	          w.gids[1] == 5);
	access_who(&u, &o, &w);
	cr_assert(w.uid == 7 && w.gid == 8 && w.ngids == 1 && w.gids[0] == 9);
	access_who(&none, &o, &w);
	cr_assert(w.uid == 65534 && w.gid == 65533 && w.ngids == 0);
	o.root_squash = false;
	access_who(&c, &o, &w);
	cr_assert(w.uid == 0 && w.gid == 0 && w.gids[0] == 0);
	o.all_squash = true;
	access_who(&u, &o, &w);
	cr_assert(w.uid == 65534 && w.gid == 65533 && w.ngids == 0);
}

Test(access, secure_wants_a_reserved_port_of_sockets)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(1024) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(40000) };
	struct sockaddr_storage s4 = { 0 }, s6 = { 0 }, local = { .ss_family = AF_UNSPEC };
	struct export_opts o = { .secure = true };

	memcpy(&s4, &v4, sizeof(v4));
	memcpy(&s6, &v6, sizeof(v6));
	cr_assert_not(access_port_ok(&o, TP_TCP, &s4));
	cr_assert_not(access_port_ok(&o, TP_TCP, &s6));
	cr_assert(access_port_ok(&o, TP_FABRIC_MSG, &s4), "fabrics have no reserved ports");
	cr_assert(access_port_ok(&o, TP_FABRIC_RDM, &local));
	((struct sockaddr_in *)&s4)->sin_port = htons(1023);
	cr_assert(access_port_ok(&o, TP_TCP, &s4));
	o.secure = false;
	cr_assert(access_port_ok(&o, TP_TCP, &s6));
}

Test(access, the_first_class_that_fits_decides)
{
	/* owner may nothing, group read, others everything */
	struct pm_attr a = obj(PM_REG, 0047);

	cr_assert_eq(access_may(&owner, &a, MAY_READ), -EACCES);
	cr_assert_eq(access_may(&owner, &a, MAY_READ | MAY_OWNER), 0);
	cr_assert_eq(access_may(&member, &a, MAY_READ), 0);
	cr_assert_eq(access_may(&member, &a, MAY_WRITE), -EACCES, "by a supplementary group");
	cr_assert_eq(access_may(&other, &a, MAY_READ | MAY_WRITE | MAY_EXEC), 0);
	cr_assert_eq(access_may(&other, &a, MAY_READ | MAY_OWNER), 0);
	cr_assert_eq(access_may(&root, &a, MAY_READ | MAY_WRITE), 0);
}

Test(access, root_executes_only_what_somebody_may)
{
	struct pm_attr plain = obj(PM_REG, 0666), prog = obj(PM_REG, 0610), dir = obj(PM_DIR, 0);

	cr_assert_eq(access_may(&root, &plain, MAY_EXEC), -EACCES);
	cr_assert_eq(access_may(&root, &prog, MAY_EXEC), 0);
	cr_assert_eq(access_may(&root, &dir, MAY_EXEC), 0);
}

Test(access, sticky_directories_keep_entries_for_their_owners)
{
	struct pm_attr dir = { .type = PM_DIR, .mode = 01777, .uid = 1 },
		       plain = { .type = PM_DIR, .mode = 0777 };
	struct pm_attr file = obj(PM_REG, 0666);
	struct access_who dir_owner = { .uid = 1 };

	cr_assert_eq(access_sticky(&other, &dir, &file), -EACCES);
	cr_assert_eq(access_sticky(&owner, &dir, &file), 0);
	cr_assert_eq(access_sticky(&dir_owner, &dir, &file), 0);
	cr_assert_eq(access_sticky(&root, &dir, &file), 0);
	cr_assert_eq(access_sticky(&other, &plain, &file), 0);
}

static int set(const struct access_who *who, uint32_t mode, struct pm_setattr *sa)
{
	struct pm_attr a = obj(PM_REG, mode);

	return access_setattr(who, &a, sa);
}

#define SA(...) (&(struct pm_setattr){ __VA_ARGS__ })

Test(access, setattr_rules)
{
	const struct timespec now = { .tv_nsec = UTIME_NOW }, then = { .tv_sec = 5 };

	cr_assert_eq(set(&owner, 0644, SA(.set = PM_SET_MODE, .mode = 0600)), 0);
	cr_assert_eq(set(&other, 0666, SA(.set = PM_SET_MODE, .mode = 0600)), -EPERM);
	cr_assert_eq(set(&root, 0, SA(.set = PM_SET_MODE, .mode = 0600)), 0);

	cr_assert_eq(set(&owner, 0644, SA(.set = PM_SET_UID, .uid = 101)), -EPERM,
	             "nobody gives files away");
	cr_assert_eq(set(&owner, 0644, SA(.set = PM_SET_UID, .uid = 100)), 0, "to himself");
	cr_assert_eq(set(&root, 0644, SA(.set = PM_SET_UID, .uid = 101)), 0);
	cr_assert_eq(set(&owner, 0644, SA(.set = PM_SET_GID, .gid = 30)), -EPERM, "not his group");
	cr_assert_eq(set(&owner, 0644, SA(.set = PM_SET_GID, .gid = 10)), 0);
	cr_assert_eq(set(&member, 0664, SA(.set = PM_SET_GID, .gid = 30)), -EPERM, "not his file");

	cr_assert_eq(set(&owner, 0400, SA(.set = PM_SET_SIZE)), 0,
	             "the owner may write, as after open()");
	cr_assert_eq(set(&member, 0660, SA(.set = PM_SET_SIZE)), 0);
	cr_assert_eq(set(&other, 0660, SA(.set = PM_SET_SIZE)), -EACCES);

	cr_assert_eq(set(&owner, 0, SA(.set = PM_SET_MTIME, .mtime = then)), 0);
	cr_assert_eq(set(&other, 0666, SA(.set = PM_SET_MTIME, .mtime = then)), -EPERM);
	cr_assert_eq(set(&other, 0666,
	                 SA(.set = PM_SET_MTIME | PM_SET_ATIME, .mtime = now, .atime = now)),
	             0);
	cr_assert_eq(set(&other, 0644,
	                 SA(.set = PM_SET_MTIME | PM_SET_ATIME, .mtime = now, .atime = now)),
	             -EACCES);
	cr_assert_eq(set(&other, 0666,
	                 SA(.set = PM_SET_MTIME | PM_SET_ATIME, .mtime = now, .atime = then)),
	             -EPERM);
}

Test(access, setid_bits_go_when_they_must)
{
	struct access_who two = { .uid = 100, .gid = 10, .ngids = 1, .gids = { 30 } };
	struct pm_setattr *sa;
	struct pm_attr a;

	sa = SA(.set = PM_SET_GID, .gid = 30);
	cr_assert_eq(set(&two, 06755, sa), 0);
	cr_assert(sa->set & PM_SET_MODE);
	cr_assert_eq(sa->mode, 0755);
	sa = SA(.set = PM_SET_SIZE);
	cr_assert_eq(set(&two, 06745, sa), 0);
	cr_assert_eq(sa->mode, 02745, "without group execution it is a lock mark");
	sa = SA(.set = PM_SET_UID | PM_SET_GID, .uid = 0, .gid = 10);
	cr_assert_eq(set(&root, 06755, sa), 0);
	cr_assert(sa->set & PM_SET_MODE);
	cr_assert_eq(sa->mode, 0755, "a program of his would be one of root's");
	sa = SA(.set = PM_SET_GID | PM_SET_MODE, .gid = 30, .mode = 06755);
	cr_assert_eq(set(&root, 0755, sa), 0);
	cr_assert_eq(sa->mode, 06755, "root says so");
	sa = SA(.set = PM_SET_UID | PM_SET_GID | PM_SET_SIZE, .uid = 100, .gid = 10);
	cr_assert_eq(set(&root, 06755, sa), 0);
	cr_assert_eq(sa->set, PM_SET_UID | PM_SET_GID | PM_SET_SIZE, "nothing changes hands");
	a = obj(PM_DIR, 02755);
	sa = SA(.set = PM_SET_GID, .gid = 30);
	cr_assert_eq(access_setattr(&root, &a, sa), 0);
	cr_assert_eq(sa->set, PM_SET_GID, "a directory hands its group down as before");
	sa = SA(.set = PM_SET_SIZE);
	cr_assert_eq(set(&two, 0644, sa), 0);
	cr_assert_eq(sa->set, PM_SET_SIZE, "nothing to clear, nothing set");

	sa = SA(.set = PM_SET_MODE, .mode = 02755);
	cr_assert_eq(set(&owner, 0755, sa), 0);
	cr_assert_eq(sa->mode, 02755);
	a = obj(PM_REG, 0755);
	a.gid = 99;
	sa = SA(.set = PM_SET_MODE, .mode = 02755);
	cr_assert_eq(access_setattr(&owner, &a, sa), 0);
	cr_assert_eq(sa->mode, 0755, "a group that he is not in");

	a = obj(PM_REG, 06755);
	cr_assert_eq(access_written_mode(&owner, &a), 0755);
	cr_assert_eq(access_written_mode(&root, &a), 06755);
}

Test(access, new_objects_take_owner_and_group)
{
	struct pm_attr dir = { .type = PM_DIR, .mode = 0777, .uid = 1, .gid = 50 };
	struct pm_new nw = { .type = PM_REG, .mode = 0640 };

	access_new(&owner, &dir, PM_SET_MODE, &nw);
	cr_assert(nw.uid == 100 && nw.gid == 10 && nw.mode == 0640);
	dir.mode |= 02000;
	nw = (struct pm_new){ .type = PM_REG, .mode = 02770 };
	access_new(&owner, &dir, PM_SET_MODE, &nw);
	cr_assert(nw.gid == 50 && nw.mode == 0770, "the directory's group, and no privilege of it");
	nw = (struct pm_new){ .type = PM_DIR, .mode = 0750 };
	access_new(&owner, &dir, PM_SET_MODE, &nw);
	cr_assert(nw.gid == 50 && nw.mode == 02750, "set-group-id is inherited by directories");
	nw = (struct pm_new){ .type = PM_REG, .uid = 5, .gid = 6 };
	access_new(&owner, &dir, PM_SET_UID | PM_SET_GID, &nw);
	cr_assert(nw.uid == 100 && nw.gid == 50);
	nw = (struct pm_new){ .type = PM_REG, .uid = 5, .gid = 6 };
	access_new(&root, &dir, PM_SET_UID | PM_SET_GID, &nw);
	cr_assert(nw.uid == 5 && nw.gid == 6);
	nw = (struct pm_new){ .type = PM_REG, .gid = 30 };
	access_new(&member, &dir, PM_SET_GID, &nw);
	cr_assert(nw.gid == 30);
}

Test(access, answers_access_exactly)
{
	enum {
		R = ACCESS3_READ,
		L = ACCESS3_LOOKUP,
		M = ACCESS3_MODIFY,
		E = ACCESS3_EXTEND,
		D = ACCESS3_DELETE,
		X = ACCESS3_EXECUTE,
		ALL = 0x3f
	};
	static const struct {
		const struct access_who *who;
		enum pm_type type;
		uint32_t mode;
		bool rw;
		uint32_t asked, want;
	} cases[] = {
		{ &owner, PM_REG, 0600, true, ALL, R | M | E },
		{ &owner, PM_REG, 0700, true, ALL, R | M | E | X },
		{ &owner, PM_REG, 0700, false, ALL, R | X },
		{ &owner, PM_REG, 0077, true, ALL, 0 },
		{ &member, PM_REG, 0040, true, ALL, R },
		{ &other, PM_REG, 0004, true, ALL, R },
		{ &other, PM_REG, 0004, true, M, 0 },
		{ &root, PM_REG, 0000, true, ALL, R | M | E },
		{ &root, PM_DIR, 0000, true, ALL, R | L | M | E | D },
		{ &root, PM_DIR, 0000, false, ALL, R | L },
		{ &owner, PM_DIR, 0700, true, ALL, R | L | M | E | D },
		{ &owner, PM_DIR, 0600, true, ALL, R },
		{ &owner, PM_DIR, 0200, true, ALL, 0 },
		{ &owner, PM_DIR, 0100, true, ALL, L },
		{ &owner, PM_DIR, 0700, true, R | D, R | D },
		{ &owner, PM_FIFO, 0600, false, ALL, R | M | E },
		{ &other, PM_LNK, 0777, true, ALL, R | M | E | X },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct pm_attr a = obj(cases[i].type, cases[i].mode);

		cr_assert_eq(access_bits(cases[i].who, &a, cases[i].rw, cases[i].asked),
		             cases[i].want, "case %zu", i);
	}
}
