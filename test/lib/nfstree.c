/* SPDX-License-Identifier: BSD-3-Clause */
/* nfstree.c - trees in and out through libnfs, and the comparison of trees */
#include "test/lib/nfstree.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct copy {
	struct nfs_context *nfs;
	struct link {
		uint64_t ino;
		char *path;
	} *links; /* of files with several names: the first one copied */
	size_t nlinks;
	char buf[1 << 20];
};

#define NFS_OK(call)                                                                               \
	do {                                                                                       \
		int rc_ = (call);                                                                  \
		cr_assert_geq(rc_, 0, "%s: %d %s", #call, rc_, nfs_get_error(c->nfs));             \
	} while (0)
#define SYS_OK(call) cr_assert_geq((call), 0, "%s: %s", #call, strerror(errno))

struct nfs_context *nfst_mount(struct daemon *d, const char *path)
{
	struct nfs_context *nfs = nfs_init_context();
	struct nfs_url *url;
	char text[512];

	cr_assert(nfs);
	snprintf(text, sizeof(text), "nfs://127.0.0.1%s?nfsport=%u&mountport=%u", path, d->port, d->port);
	url = nfs_parse_url_dir(nfs, text);
	cr_assert(url, "%s", nfs_get_error(nfs));
	cr_assert_eq(nfs_mount(nfs, url->server, url->path), 0, "%s", nfs_get_error(nfs));
	nfs_destroy_url(url);
	return nfs;
}

static char *join(const char *dir, const char *name)
{
	char *path;

	cr_assert(asprintf(&path, "%s/%s", strcmp(dir, "/") ? dir : "", name) > 0);
	return path;
}

/* Where inode @ino went before; else remember @path. */
static const char *known_link(struct copy *c, uint64_t ino, const char *path)
{
	for (size_t i = 0; i < c->nlinks; i++)
		if (c->links[i].ino == ino)
			return c->links[i].path;
	c->links = realloc(c->links, (c->nlinks + 1) * sizeof(*c->links));
	c->links[c->nlinks++] = (struct link){ ino, strdup(path) };
	return NULL;
}

static void forget_links(struct copy *c)
{
	while (c->nlinks)
		free(c->links[--c->nlinks].path);
	free(c->links);
}

/* --- in ------------------------------------------------------------------------------------------- */

static void put_file(struct copy *c, const char *from, const char *to, mode_t mode)
{
	int fd = open(from, O_RDONLY);
	struct nfsfh *fh;
	off_t at = 0, end;
	struct stat st;

	SYS_OK(fd);
	SYS_OK(fstat(fd, &st));
	NFS_OK(nfs_creat(c->nfs, to, (int)mode, &fh));
	while ((at = lseek(fd, at, SEEK_DATA)) >= 0) {
		end = lseek(fd, at, SEEK_HOLE);
		while (at < end) {
			size_t want = (size_t)(end - at) < sizeof(c->buf) ? (size_t)(end - at) : sizeof(c->buf);
			ssize_t n = pread(fd, c->buf, want, at);

			cr_assert(n > 0);
			NFS_OK(nfs_pwrite(c->nfs, fh, (uint64_t)at, (uint64_t)n, c->buf));
			at += n;
		}
	}
	NFS_OK(nfs_ftruncate(c->nfs, fh, (uint64_t)st.st_size));
	NFS_OK(nfs_close(c->nfs, fh));
	close(fd);
}

static void put_times(struct copy *c, const char *to, const struct stat *st)
{
	struct timeval tv[2] = { { st->st_atim.tv_sec, st->st_atim.tv_nsec / 1000 },
				 { st->st_mtim.tv_sec, st->st_mtim.tv_nsec / 1000 } };

	NFS_OK(nfs_lutimes(c->nfs, to, tv));
}

static void put_dir(struct copy *c, const char *from, const char *to);

static void put_one(struct copy *c, const char *from, const char *to)
{
	const char *first;
	struct stat st;
	char target[4096];
	ssize_t n;

	SYS_OK(lstat(from, &st));
	if (!S_ISDIR(st.st_mode) && st.st_nlink > 1 && (first = known_link(c, st.st_ino, to))) {
		NFS_OK(nfs_link(c->nfs, first, to));
		return;
	}
	switch (st.st_mode & S_IFMT) {
	case S_IFDIR:
		NFS_OK(nfs_mkdir2(c->nfs, to, (int)(st.st_mode & 07777)));
		put_dir(c, from, to);
		NFS_OK(nfs_chmod(c->nfs, to, (int)(st.st_mode & 07777)));
		break;
	case S_IFREG:
		put_file(c, from, to, st.st_mode & 07777);
		NFS_OK(nfs_chmod(c->nfs, to, (int)(st.st_mode & 07777)));
		break;
	case S_IFLNK:
		n = readlink(from, target, sizeof(target) - 1);
		SYS_OK(n);
		target[n] = '\0';
		NFS_OK(nfs_symlink(c->nfs, target, to));
		break;
	default:
		return;
	}
	put_times(c, to, &st);
}

static void put_dir(struct copy *c, const char *from, const char *to)
{
	DIR *dir = opendir(from);
	struct dirent *de;

	cr_assert(dir, "%s: %s", from, strerror(errno));
	while ((de = readdir(dir))) {
		char *f, *t;

		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		f = join(from, de->d_name);
		t = join(to, de->d_name);
		put_one(c, f, t);
		free(f);
		free(t);
	}
	closedir(dir);
}

void nfst_put(struct nfs_context *nfs, const char *local, const char *remote)
{
	struct copy *c = calloc(1, sizeof(*c));

	c->nfs = nfs;
	put_one(c, local, remote);
	forget_links(c);
	free(c);
}

/* --- out -------------------------------------------------------------------------------------------- */

static void get_file(struct copy *c, const char *from, const char *to, const struct nfs_stat_64 *st)
{
	int fd = open(to, O_WRONLY | O_CREAT | O_EXCL, 0600);
	struct nfsfh *fh;
	uint64_t at = 0;

	SYS_OK(fd);
	NFS_OK(nfs_open(c->nfs, from, O_RDONLY, &fh));
	while (at < st->nfs_size) {
		int n = nfs_pread(c->nfs, fh, at, sizeof(c->buf), c->buf);

		cr_assert(n > 0, "%s: %s", from, nfs_get_error(c->nfs));
		cr_assert_eq(pwrite(fd, c->buf, (size_t)n, (off_t)at), n);
		at += (uint64_t)n;
	}
	NFS_OK(nfs_close(c->nfs, fh));
	close(fd);
}

static void get_dir(struct copy *c, const char *from, const char *to);

static void get_one(struct copy *c, const char *from, const char *to)
{
	struct nfs_stat_64 st;
	struct timespec ts[2];
	char target[4097];
	const char *first;

	NFS_OK(nfs_lstat64(c->nfs, from, &st));
	if (!S_ISDIR(st.nfs_mode) && st.nfs_nlink > 1 && (first = known_link(c, st.nfs_ino, to))) {
		SYS_OK(link(first, to));
		return;
	}
	switch (st.nfs_mode & S_IFMT) {
	case S_IFDIR:
		SYS_OK(mkdir(to, 0700));
		get_dir(c, from, to);
		SYS_OK(chmod(to, (mode_t)(st.nfs_mode & 07777)));
		break;
	case S_IFREG:
		get_file(c, from, to, &st);
		SYS_OK(chmod(to, (mode_t)(st.nfs_mode & 07777)));
		break;
	case S_IFLNK:
		memset(target, 0, sizeof(target));
		NFS_OK(nfs_readlink(c->nfs, from, target, 4096));
		SYS_OK(symlink(target, to));
		break;
	default:
		return;
	}
	ts[0] = (struct timespec){ (time_t)st.nfs_atime, (long)st.nfs_atime_nsec };
	ts[1] = (struct timespec){ (time_t)st.nfs_mtime, (long)st.nfs_mtime_nsec };
	SYS_OK(utimensat(AT_FDCWD, to, ts, AT_SYMLINK_NOFOLLOW));
}

static void get_dir(struct copy *c, const char *from, const char *to)
{
	struct nfsdirent *de;
	struct nfsdir *dir;

	NFS_OK(nfs_opendir(c->nfs, from, &dir));
	while ((de = nfs_readdir(c->nfs, dir))) {
		char *f, *t;

		if (!strcmp(de->name, ".") || !strcmp(de->name, ".."))
			continue;
		f = join(from, de->name);
		t = join(to, de->name);
		get_one(c, f, t);
		free(f);
		free(t);
	}
	nfs_closedir(c->nfs, dir);
}

void nfst_get(struct nfs_context *nfs, const char *remote, const char *local)
{
	struct copy *c = calloc(1, sizeof(*c));

	c->nfs = nfs;
	get_one(c, remote, local);
	forget_links(c);
	free(c);
}

/* --- trees --------------------------------------------------------------------------------------------- */

static const char make_py[] =
	"import os, sys, shutil\n"
	"src, d = os.fsencode(sys.argv[1]), os.fsencode(sys.argv[2])\n"
	"os.mkdir(d)\n"
	"shutil.copytree(src, d + b'/from', symlinks=True)\n"
	"x = d + b'/odd'; os.mkdir(x, 0o1777); os.chmod(x, 0o1777)\n"
	"def put(name, data=b'x', mode=0o644):\n"
	"    with open(x + b'/' + name, 'wb') as f: f.write(data)\n"
	"    os.chmod(x + b'/' + name, mode)\n"
	"put(b'n' * 255); put(b'empty', b'', 0o400)\n"
	"put(bytes(b for b in range(1, 128) if b != 47)); put(bytes(range(128, 256)))\n"
	"put(b'new\\nline'); put(b' '); put(b'...'); put(b'-rf', mode=0o755)\n"
	"put(b'first', b'linked' * 1000); os.link(x + b'/first', x + b'/second'); os.link(x + b'/first', d + b'/third')\n"
	"os.symlink(b'/nowhere/' + b't' * 900, x + b'/long link'); os.symlink(b'first', x + b'/short link')\n"
	"os.mkdir(x + b'/void')\n"
	"with open(x + b'/sparse', 'wb') as f:\n"
	"    f.seek(5 << 20); f.write(b'middle' * 999); f.truncate((64 << 20) + 123)\n"
	"with open(x + b'/all hole', 'wb') as f: f.truncate(10 << 20)\n"
	"for n in (1, 511, 4095, 4096, 4097, 65535, 1 << 20, (1 << 20) + 1):\n"
	"    put(b'size %d' % n, os.urandom(n))\n"
	"for top, dirs, files in os.walk(d, topdown=False):\n"
	"    for n in files + dirs + [b'.']:\n"
	"        p = os.path.join(top, n); s = os.lstat(p)\n"
	"        os.utime(p, ns=(s.st_atime_ns // 1000 * 1000, s.st_mtime_ns // 1000 * 1000), follow_symlinks=False)\n";

/* One line per entry, and the content of files by its hash. */
static const char list_py[] =
	"import os, sys, stat, hashlib\n"
	"top = os.fsencode(sys.argv[1]); rows = []; inodes = {}\n"
	"for dir, dirs, files in os.walk(top):\n"
	"    for n in files + dirs + ([b'.'] if dir == top else []):\n"
	"        p = os.path.join(dir, n); s = os.lstat(p); extra = b''\n"
	"        if stat.S_ISREG(s.st_mode):\n"
	"            extra = hashlib.blake2b(open(p, 'rb').read(), digest_size=16).hexdigest().encode()\n"
	"        elif stat.S_ISLNK(s.st_mode): extra = os.readlink(p)\n"
	"        size = s.st_size if stat.S_ISREG(s.st_mode) else 0\n"
	"        rel = os.path.relpath(p, top)\n"
	"        if not stat.S_ISDIR(s.st_mode): inodes.setdefault(s.st_ino, []).append(rel)\n"
	"        mode = 0 if stat.S_ISLNK(s.st_mode) else s.st_mode\n"
	"        rows.append((rel, '%o' % mode, size, s.st_mtime_ns, extra))\n"
	"for names in inodes.values():\n"
	"    if len(names) > 1: rows.append((b'links', sorted(names)))\n"
	"print('\\n'.join(map(repr, sorted(rows, key=repr))))\n";

static void write_script(char path[64], const char *text)
{
	int fd;

	strcpy(path, "/tmp/berth-script-XXXXXX");
	fd = mkstemp(path);
	SYS_OK(fd);
	cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

void tree_make(const char *from, const char *dir)
{
	char script[64];

	write_script(script, make_py);
	cr_assert_eq(shell("python3 %s %s %s", script, from, dir), 0);
	unlink(script);
}

void tree_same(const char *a, const char *b)
{
	char script[64];
	int rc;

	write_script(script, list_py);
	rc = shell("python3 %s %s >%s.a && python3 %s %s >%s.b && diff %s.a %s.b | head -n 20 >&2; "
		   "cmp -s %s.a %s.b && test -s %s.a",
		   script, a, script, script, b, script, script, script, script, script, script);
	shell("rm -f %s %s.a %s.b", script, script, script);
	cr_assert_eq(rc, 0, "%s and %s differ", a, b);
}
