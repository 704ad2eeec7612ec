/* SPDX-License-Identifier: BSD-3-Clause */
/* test_shm_room.c - a /dev/shm without room is an error when an endpoint is opened, and nobody's death later */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "transport/fabric.h"

/* What those say who would know. */
static bool no_provider, no_room;
static int fallocate_says;

int __real_fi_getinfo(uint32_t version, const char *node, const char *service, uint64_t flags, const struct fi_info *hints,
		      struct fi_info **info);
int __wrap_fi_getinfo(uint32_t version, const char *node, const char *service, uint64_t flags, const struct fi_info *hints,
		      struct fi_info **info);
int __wrap_fi_getinfo(uint32_t version, const char *node, const char *service, uint64_t flags, const struct fi_info *hints,
		      struct fi_info **info)
{
	return no_provider ? -FI_ENODATA : __real_fi_getinfo(version, node, service, flags, hints, info);
}

int __real_posix_fallocate(int fd, off_t off, off_t len);
int __wrap_posix_fallocate(int fd, off_t off, off_t len);
int __wrap_posix_fallocate(int fd, off_t off, off_t len)
{
	return fallocate_says ? fallocate_says : __real_posix_fallocate(fd, off, len);
}

int __real_statvfs(const char *path, struct statvfs *v);
int __wrap_statvfs(const char *path, struct statvfs *v);
int __wrap_statvfs(const char *path, struct statvfs *v)
{
	int rc = __real_statvfs(path, v);

	if (no_room)
		v->f_bavail = (3 << 20) / v->f_frsize;
	return rc;
}

static const struct tp_fabric_opts shm = { .name = "t", .provider = "shm" };

Test(shm_room, the_region_of_an_endpoint_is_there_as_a_whole)
{
	struct tp_error why = { "" };
	struct stat st;
	char path[128];
	struct fab *f;

	cr_assert_eq(fab_open(&shm, FAB_SERVER, &f, &why), 0, "%s", why.text);
	snprintf(path, sizeof(path), "/dev/shm/%s", f->shm_name);
	cr_assert_eq(stat(path, &st), 0, "%s: %s", path, strerror(errno));
	cr_assert_gt(st.st_size, 1 << 20);
	cr_assert_geq(st.st_blocks * 512, st.st_size, "%lld of %lld bytes", (long long)st.st_blocks * 512,
		      (long long)st.st_size);
	fab_close(f);
}

static void is_refused(void)
{
	struct tp_error why = { "" };
	struct fab *f = NULL;

	cr_assert_eq(fab_open(&shm, FAB_CLIENT, &f, &why), -ENOSPC, "%s", why.text);
	cr_assert_null(f);
	cr_assert(strstr(why.text, "/dev/shm has only 3.0 MiB free"), "%s", why.text);
	cr_assert(strstr(why.text, "--shm-size"), "%s", why.text);
}

Test(shm_room, the_provider_sees_that_there_is_none)
{
	no_provider = no_room = true;
	is_refused();
}

Test(shm_room, it_shows_when_it_is_taken)
{
	no_room = true;
	fallocate_says = ENOSPC;
	is_refused();
}

/* Another reason is not blamed on it. */
Test(shm_room, there_is_room_and_no_provider)
{
	struct tp_error why = { "" };
	struct fab *f;

	no_provider = true;
	cr_assert_eq(fab_open(&shm, FAB_CLIENT, &f, &why), -ENODEV);
	cr_assert_not(strstr(why.text, "/dev/shm"), "%s", why.text);
}
