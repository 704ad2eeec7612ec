/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * media.c - the mapping of a pool, and the only stores, flushes, fences and syncs of metadata
 *
 * libpmem2 maps the pool and says at what granularity a store becomes durable; persist.c turns that
 * into a method. With PM_MSYNC a second, private mapping of the same file is the view (store.h
 * tells why); a read-only open is one private mapping, so that replay stays in memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <libpmem2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "pmemio/core.h"

struct media_map {             /* pm_media.priv */
	struct pmem2_map *map; /* NULL: read-only */
	pmem2_flush_fn flush;
	pmem2_drain_fn drain;
};

void why_set(struct pm_error *why, const char *fmt, ...)
{
	va_list ap;

	if (!why)
		return;
	va_start(ap, fmt);
	vsnprintf(why->text, sizeof(why->text), fmt, ap);
	va_end(ap);
}

/* --- copies ---------------------------------------------------------------------------------- */

#ifdef __SSE2__
static void nt_copy(uint8_t *dst, const uint8_t *src, size_t len)
{
	size_t head = -(uintptr_t)dst & 15;

	if (head > len)
		head = len;
	memcpy(dst, src, head);
	dst += head;
	src += head;
	len -= head;
	for (; len >= 64; dst += 64, src += 64, len -= 64) {
		__m128i a = _mm_loadu_si128((const __m128i *)(const void *)src);
		__m128i b = _mm_loadu_si128((const __m128i *)(const void *)(src + 16));
		__m128i c = _mm_loadu_si128((const __m128i *)(const void *)(src + 32));
		__m128i d = _mm_loadu_si128((const __m128i *)(const void *)(src + 48));

		_mm_stream_si128((__m128i *)(void *)dst, a);
		_mm_stream_si128((__m128i *)(void *)(dst + 16), b);
		_mm_stream_si128((__m128i *)(void *)(dst + 32), c);
		_mm_stream_si128((__m128i *)(void *)(dst + 48), d);
	}
	memcpy(dst, src, len);
	_mm_sfence(); /* another thread may issue the drain */
}

static void nt_zero(uint8_t *dst, size_t len)
{
	size_t head = -(uintptr_t)dst & 15;
	__m128i z = _mm_setzero_si128();

	if (head > len)
		head = len;
	memset(dst, 0, head);
	dst += head;
	len -= head;
	for (; len >= 16; dst += 16, len -= 16)
		_mm_stream_si128((__m128i *)(void *)dst, z);
	memset(dst, 0, len);
	_mm_sfence();
}
#else
static void nt_copy(uint8_t *dst, const uint8_t *src, size_t len)
{
	memcpy(dst, src, len);
}

static void nt_zero(uint8_t *dst, size_t len)
{
	memset(dst, 0, len);
}
#endif

void pm_copy_in(void *dst, const void *src, size_t len)
{
	nt_copy(dst, src, len);
}

/* --- the real media's operations ------------------------------------------------------------- */

static void real_store(struct pm_media *m, void *dst, const void *src, size_t len)
{
	(void)m;
	memcpy(dst, src, len);
}

/* The ragged ends are cached stores: callers flush the range afterwards as after real_store. */
static void real_store_nt(struct pm_media *m, void *dst, const void *src, size_t len)
{
	(void)m;
	nt_copy(dst, src, len);
}

static void real_zero(struct pm_media *m, void *dst, size_t len)
{
	(void)m;
	nt_zero(dst, len);
}

static void real_flush(struct pm_media *m, const void *at, size_t len)
{
	struct media_map *mm = m->priv;

	if (m->method == PM_CLWB || m->method == PM_FENCE)
		mm->flush(at, len);
}

static void real_drain(struct pm_media *m)
{
	struct media_map *mm = m->priv;

	if (m->method == PM_CLWB || m->method == PM_FENCE)
		mm->drain();
}

static int real_sync(struct pm_media *m, const void *at, size_t len)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), off = (size_t)((const uint8_t *)at - m->base);
	size_t lo = off & ~(page - 1), hi = off + len;

	return msync(m->base + lo, hi - lo, MS_SYNC) ? -errno : 0;
}

static void real_close(struct pm_media *m)
{
	struct media_map *mm = m->priv;

	if (m->view && m->view != m->base)
		munmap(m->view, m->len);
	if (mm->map)
		pmem2_map_delete(&mm->map);
	else
		munmap(m->base, m->len);
	close(m->fd); /* and with it both locks */
	free(mm);
}

static const struct pm_media_ops real_ops = {
	.store = real_store,
	.store_nt = real_store_nt,
	.zero = real_zero,
	.flush = real_flush,
	.drain = real_drain,
	.sync = real_sync,
	.close = real_close,
};

/* --- the calls that count -------------------------------------------------------------------- */

void med_store(struct pm_store *st, uint64_t at, const void *src, size_t len)
{
	st->media.ops->store(&st->media, st->media.base + at, src, len);
}

void med_flush_as(struct pm_store *st, struct pm_stats *s, uint64_t at, size_t len)
{
	if (media_slow(st))
		return; /* a sync will follow */
	st->media.ops->flush(&st->media, st->media.base + at, len);
	COUNT(st, s, flushes, 1);
	COUNT(st, s, flushed_bytes, len);
}

void med_flush(struct pm_store *st, uint64_t at, size_t len)
{
	med_flush_as(st, &st->stats, at, len);
}

void med_drain_as(struct pm_store *st, struct pm_stats *s)
{
	st->media.ops->drain(&st->media);
	COUNT(st, s, drains, 1);
}

void med_drain(struct pm_store *st)
{
	med_drain_as(st, &st->stats);
}

int med_sync(struct pm_store *st, uint64_t at, size_t len)
{
	int err = st->media.ops->sync(&st->media, st->media.base + at, len);

	STAT_ADD(st, msyncs, 1);
	if (err) {
		STAT_ADD(st, flush_errors, 1);
		store_log(st, 3, "sync of bytes %llu to %llu of the pool failed: %s",
		          (unsigned long long)at, (unsigned long long)(at + len), strerror(-err));
	}
	return err;
}

int med_settle(struct pm_store *st, uint64_t at, size_t len)
{
	if (media_slow(st))
		return med_sync(st, at, len);
	med_flush(st, at, len);
	med_drain(st);
	return 0;
}

/* --- locking --------------------------------------------------------------------------------- */

/* Who holds the flock of @fd, as /proc/locks shows it; 0 unknown. */
static long lock_holder(int fd)
{
	struct stat sb;
	char line[256];
	long pid = 0;
	FILE *f;

	if (fstat(fd, &sb))
		return 0;
	f = fopen("/proc/locks", "re");
	if (!f)
		return 0;
	while (!pid && fgets(line, sizeof(line), f)) {
		unsigned maj, min;
		unsigned long long ino;
		long who;

		if (sscanf(line, "%*d: FLOCK %*s %*s %ld %x:%x:%llu", &who, &maj, &min, &ino) ==
		            4 &&
		    ino == sb.st_ino && makedev(maj, min) == sb.st_dev && who > 0)
			pid = who;
	}
	fclose(f);
	return pid;
}

/* Both kinds: flock is seen by the other berth tools, OFD locks also travel over network file
 * systems. */
static int media_lock(int fd, bool shared, struct pm_error *why)
{
	struct flock fl = { .l_type = shared ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET };
	long pid;

	if (!flock(fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) &&
	    (!fcntl(fd, F_OFD_SETLK, &fl) || errno == EINVAL))
		return 0;
	if (errno != EWOULDBLOCK && errno != EAGAIN && errno != EACCES) {
		int err = -errno;

		why_set(why, "cannot be locked: %s", strerror(-err));
		return err;
	}
	pid = lock_holder(fd);
	if (pid)
		why_set(why, "is in use by another process (pid %ld); stop that one first", pid);
	else
		why_set(why, "is in use by another process; stop that one first");
	return -EBUSY;
}

/* --- mapping --------------------------------------------------------------------------------- */

static int pmem2_fail(int rc, const char *what, struct pm_error *why)
{
	int err = rc > -100000 && rc < 0 ? rc : -EINVAL; /* PMEM2_E_* lie beyond every errno */

	why_set(why, "%s: %s", what, pmem2_errormsg());
	return err;
}

static int source_len(int fd, struct pmem2_source **src, size_t *len, struct pm_error *why)
{
	int rc = pmem2_source_from_fd(src, fd);

	if (rc)
		return pmem2_fail(rc, "cannot be mapped", why);
	rc = pmem2_source_size(*src, len);
	*len &= ~(size_t)(PM_BLOCK - 1);
	if (rc) {
		pmem2_source_delete(src);
		return pmem2_fail(rc, "its size cannot be had", why);
	}
	return 0;
}

/* Device DAX, or a file whose kernel takes MAP_SYNC: no word of libpmem2's, which its environment can change. */
static bool takes_map_sync(int fd)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct stat sb;
	void *p;

	if (!fstat(fd, &sb) && S_ISCHR(sb.st_mode))
		return true;
	p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED_VALIDATE | MAP_SYNC, fd, 0);
	if (p == MAP_FAILED)
		return false;
	munmap(p, page);
	return true;
}

static enum pm_gran gran_of(const struct pmem2_map *map)
{
	enum pmem2_granularity g = pmem2_map_get_store_granularity((struct pmem2_map *)(uintptr_t)map);

	return g == PMEM2_GRANULARITY_BYTE ? PM_GRAN_BYTE
	       : g == PMEM2_GRANULARITY_CACHE_LINE ? PM_GRAN_CACHE_LINE : PM_GRAN_PAGE;
}

static int choose(struct pm_media *m, enum pm_method want, struct pm_error *why)
{
	struct pm_facts f = { .purpose = PM_FOR_SERVER, .gran = m->gran, .map_sync = m->map_sync, .pool_method = want };
	struct pm_verdict v;
	int err = pm_persist(&f, &v);

	if (err) {
		why_set(why, "persistence = %s: %s (granularity: %s)", pm_method_name(want), v.reason,
		        pm_gran_name(m->gran));
		return err;
	}
	m->method = v.method;
	m->reason = v.reason;
	m->not_promised = v.not_promised;
	return 0;
}

/* The whole of @fd, at whatever granularity it has. */
static int map_whole(int fd, struct pmem2_map **map, size_t *len, struct pm_error *why)
{
	struct pmem2_config *cfg = NULL;
	struct pmem2_source *src;
	int err = source_len(fd, &src, len, why);

	if (err)
		return err;
	err = pmem2_config_new(&cfg);
	if (!err)
		err = pmem2_config_set_required_store_granularity(cfg, PMEM2_GRANULARITY_PAGE);
	if (!err)
		err = pmem2_config_set_length(cfg, *len);
	if (!err)
		err = pmem2_map_new(map, cfg, src);
	if (cfg)
		pmem2_config_delete(&cfg);
	pmem2_source_delete(&src);
	return err ? pmem2_fail(err, "cannot be mapped", why) : 0;
}

static int map_shared(struct pm_media *m, enum pm_method want, struct pm_error *why)
{
	struct media_map *mm = m->priv;
	size_t len;
	int err = map_whole(m->fd, &mm->map, &len, why);

	if (err)
		return err;
	m->len = len;
	m->base = m->view = pmem2_map_get_address(mm->map);
	/* libpmem2 aligns it to what the largest page wants. DAX has large pages by itself, tmpfs if it may; a pool of a
	 * million files costs half the time for each with them. */
	madvise(m->base, len, MADV_HUGEPAGE);
	mm->flush = pmem2_get_flush_fn(mm->map);
	mm->drain = pmem2_get_drain_fn(mm->map);
	m->gran = gran_of(mm->map);
	m->map_sync = takes_map_sync(m->fd);
	err = choose(m, want, why);
	if (err)
		pmem2_map_delete(&mm->map);
	return err;
}

static void *map_private(int fd, size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* A device-DAX node has no private mappings: shared and read-only then, and no replay (m->fixed).
 */
static int map_read_only(struct pm_media *m, struct pm_error *why)
{
	struct pmem2_source *src;
	int err = source_len(m->fd, &src, &m->len, why);

	if (err)
		return err;
	pmem2_source_delete(&src);
	m->base = m->len ? map_private(m->fd, m->len) : NULL;
	if (!m->base && m->len) {
		void *p = mmap(NULL, m->len, PROT_READ, MAP_SHARED, m->fd, 0);

		m->base = p == MAP_FAILED ? NULL : p;
		m->fixed = true;
	}
	if (!m->base) {
		err = m->len ? -errno : -EINVAL;
		why_set(why,
		        m->len ? "cannot be mapped: %s" : "is empty; make a pool with `berth mkfs`",
		        strerror(-err));
		return err;
	}
	m->view = m->base;
	m->method = PM_VOLATILE;
	m->reason = "opened read-only";
	return 0;
}

/* Takes over @fd on success. */
static int media_map(int fd, enum pm_method want, bool read_only, struct pm_media *m,
                     struct pm_error *why)
{
	struct media_map *mm = calloc(1, sizeof(*mm));
	int err;

	if (!mm)
		return -ENOMEM;
	*m = (struct pm_media){ .ops = &real_ops, .fd = fd, .priv = mm };
	err = read_only ? map_read_only(m, why) : map_shared(m, want, why);
	if (err)
		goto free_mm;
	if (m->method == PM_MSYNC) {
		m->view = map_private(fd, m->len);
		if (!m->view) {
			err = -errno;
			why_set(why, "no second mapping: %s", strerror(-err));
			pmem2_map_delete(&mm->map);
			goto free_mm;
		}
		madvise(m->view, m->len, MADV_DONTFORK);
	}
	madvise(m->base, m->len, MADV_HUGEPAGE);
	madvise(m->base, m->len, MADV_DONTFORK);
	return 0;
free_mm:
	free(mm);
	return err;
}

int media_open(const char *path, const struct pm_open_opts *o, struct pm_media *m,
               struct pm_error *why)
{
	int fd = open(path, (o->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC), err;
	struct stat sb;

	if (fd < 0) {
		err = -errno;
		why_set(why, "cannot be opened: %s%s", strerror(-err),
		        err == -ENOENT ? "; `berth mkfs` makes a pool" : "");
		return err;
	}
	if (!fstat(fd, &sb) && !S_ISREG(sb.st_mode) && !S_ISCHR(sb.st_mode)) {
		err = -EINVAL;
		why_set(why, "is neither a file nor a device-DAX node");
		goto close_fd;
	}
	if (S_ISREG(sb.st_mode) && (size_t)sb.st_size < 2 * PM_BLOCK) {
		err = -EINVAL;
		why_set(why, "is not a berth pool (too short); make one with `berth mkfs %s`",
		        path);
		goto close_fd;
	}
	err = media_lock(fd, o->read_only, why);
	if (!err)
		err = media_map(fd, o->method, o->read_only, m, why);
	if (!err) {
		m->regular = S_ISREG(sb.st_mode);
		return 0;
	}
close_fd:
	close(fd);
	return err;
}

/* --- looking ------------------------------------------------------------------------------------ */

static int look_open(struct pm_look *k, struct pm_error *why)
{
	struct pmem2_map *map = NULL;
	struct stat sb;
	int err;

	if (k->fd < 0 || fstat(k->fd, &sb)) {
		err = -errno;
		why_set(why, "cannot be opened: %s", strerror(-err));
		return err;
	}
	if (!S_ISREG(sb.st_mode) && !S_ISCHR(sb.st_mode)) {
		why_set(why, "is neither a file nor a device-DAX node");
		return -EINVAL;
	}
	if (S_ISREG(sb.st_mode) && sb.st_size < (off_t)PM_BLOCK) {
		why_set(why, "is too short for a pool; make one with `berth mkfs`");
		return -EINVAL;
	}
	err = map_whole(k->fd, &map, &k->len, why);
	if (err)
		return err;
	k->map = map;
	k->base = pmem2_map_get_address(map);
	k->gran = gran_of(map);
	k->map_sync = takes_map_sync(k->fd);
	return 0;
}

int pm_look_open(const char *path, struct pm_look *out, struct pm_error *why)
{
	struct pm_look k = { .fd = open(path, O_RDWR | O_CLOEXEC) };
	struct pm_error plain;
	int err = look_open(&k, &plain);

	if (!err) {
		*out = k;
		return 0;
	}
	if (k.fd >= 0)
		close(k.fd);
	why_set(why, "%.180s: %.300s", path, plain.text);
	return err;
}

void pm_look_close(struct pm_look *k)
{
	struct pmem2_map *map = k->map;

	pmem2_map_delete(&map);
	close(k->fd);
}

/* --- mkfs ------------------------------------------------------------------------------------ */

/* Does @fd hold anything that mkfs would destroy? */
static int refuse_data(int fd, const struct stat *sb, struct pm_error *why)
{
	uint8_t head[PM_BLOCK + 8] = { 0 };
	ssize_t n = pread(fd, head, sizeof(head), 0);
	bool data = false;

	if (n >= 8 && (!memcmp(head, PM_MAGIC, 8) || !memcmp(head + PM_BLOCK, PM_MAGIC, 8))) {
		why_set(why, "already is a berth pool; --force makes a new one and destroys it");
		return -EEXIST;
	}
	if (S_ISREG(sb->st_mode))
		data = sb->st_size && lseek(fd, 0, SEEK_DATA) >= 0;
	if (data) {
		why_set(why, "holds data; --force destroys it");
		return -EEXIST;
	}
	return 0;
}

/* The blocks of a sparse file are found when they are first touched, and where there is none the access fails as on bad
 * media: for data an I/O error, for metadata the end of all changes. */
static int reserve_space(int fd, uint64_t size, struct pm_error *why)
{
	struct statfs fs;
	struct stat sb;
	uint64_t need, left;
	int err;

	if (fstat(fd, &sb) || fstatfs(fd, &fs))
		return -errno;
	need = size > (uint64_t)sb.st_blocks * 512 ? size - (uint64_t)sb.st_blocks * 512 : 0;
	left = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
	if (fs.f_blocks && need > left) { /* seen before a file system is filled up to see it */
		why_set(why, "%llu bytes are wanted, %llu are left in the file system: a smaller --size, or --sparse to take "
		             "them when they are needed",
		        (unsigned long long)need, (unsigned long long)left);
		return -ENOSPC;
	}
	if (!fallocate(fd, 0, 0, (off_t)size))
		return 0;
	err = -errno;
	why_set(why, "its space cannot be reserved: %s (--sparse does without)", strerror(-err));
	return err;
}

static int size_file(int fd, const struct stat *sb, const struct pm_mkfs_opts *o, bool *zeroed,
                     struct pm_error *why)
{
	uint64_t size = o->size ? o->size : (uint64_t)sb->st_size;
	int err;

	size &= ~(uint64_t)(PM_BLOCK - 1);
	if (!size && !o->size) {
		why_set(why, "has no size yet; name one (--size)");
		return -EINVAL;
	}
	if (size < PM_MIN_SIZE) {
		why_set(why, "%llu bytes are too few; a pool has 16 MiB at least",
		        (unsigned long long)(o->size ? o->size : size));
		return -EINVAL;
	}
	/* through zero: no journal record of an earlier pool may survive; a file that was given its
	 * blocks beforehand and holds nothing keeps them */
	if ((uint64_t)sb->st_size != size || lseek(fd, 0, SEEK_DATA) >= 0) {
		if ((lseek(fd, 0, SEEK_DATA) >= 0 && ftruncate(fd, 0)) ||
		    ftruncate(fd, (off_t)size)) {
			err = -errno;
			why_set(why, "cannot be sized to %llu bytes: %s", (unsigned long long)size,
			        strerror(-err));
			return err;
		}
	}
	*zeroed = true;
	return o->reserve ? reserve_space(fd, size, why) : 0;
}

int media_create(const char *path, const struct pm_mkfs_opts *o, struct pm_media *m,
                 struct pm_error *why)
{
	bool made = false, zeroed = false;
	struct stat sb;
	int err, fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT) {
		fd = open(path, O_RDWR | O_CLOEXEC | O_CREAT | O_EXCL, 0600);
		made = fd >= 0;
	}
	if (fd < 0 || fstat(fd, &sb)) {
		err = -errno;
		why_set(why, "cannot be opened: %s", strerror(-err));
		goto close_fd;
	}
	if (!S_ISREG(sb.st_mode) && !S_ISCHR(sb.st_mode)) {
		err = -EINVAL;
		why_set(why, "is neither a file nor a device-DAX node");
		goto close_fd;
	}
	err = media_lock(fd, false, why);
	if (!err && !o->force)
		err = refuse_data(fd, &sb, why);
	if (!err && S_ISREG(sb.st_mode))
		err = size_file(fd, &sb, o, &zeroed, why);
	if (!err)
		err = media_map(fd, PM_AUTO, false, m, why);
	if (!err) {
		m->zeroed = zeroed;
		return 0;
	}
close_fd:
	if (made)
		unlink(path);
	if (fd >= 0)
		close(fd);
	return err;
}
