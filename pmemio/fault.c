/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fault.c - media that answers an access with SIGBUS: a bad page, or a file cut short under its
 * mapping
 *
 * The process's SIGBUS handler hands the address to pm_media_fault(), which puts a page of ones in
 * the place of the bad one (device-DAX: a large page), notes it, and lets the access go on. Nothing
 * has to be unwound, whoever touched the page: this library with its lock held, or a provider that
 * copies. What keeps the ones from being taken for data:
 *
 *   metadata   ones pass no checksum: the object answers -EIO
 *   data       a map for reading or writing touches one byte of each page, always if there are few
 *              and none is on a disk, else once the pool has shrunk or an error was seen; a commit
 *              asks again. -EIO if a page in the range is bad
 *   journal    a store to a bad page is seen before the transaction counts as durable: no more are
 *              accepted
 *
 * The kernel's own copies (readv, writev) fail with EFAULT instead; whoever gets that asks
 * pm_map_probe().
 *
 * Limit: a page that goes bad between map and the end of a transfer, met first by a provider's copy
 * rather than by the kernel or a device, sends ones in that one reply.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "pmemio/core.h"
#include "pmemio/file.h"

int faults_open(struct pm_store *st)
{
	struct pm_faults *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->bad = calloc(st->media.len / PM_BLOCK / 64 + 1, 8);
	if (!f->bad) {
		free(f);
		return -ENOMEM;
	}
	st->faults = f;
	return 0;
}

void faults_close(struct pm_store *st)
{
	if (st->faults)
		free(st->faults->bad);
	free(st->faults);
	st->faults = NULL;
}

static bool offset_of(const struct pm_store *st, const void *addr, uint64_t *off)
{
	uint64_t at = (uint64_t)(uintptr_t)addr;
	uint64_t base = (uint64_t)(uintptr_t)st->media.base,
		 view = (uint64_t)(uintptr_t)st->media.view;

	if (at - base < st->media.len)
		*off = at - base;
	else if (at - view < st->media.len)
		*off = at - view;
	else
		return false;
	return true;
}

static bool put_ones(void *at, size_t len)
{
	void *page = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return false;
	memset(page, 0xff, len);
	if (mremap(page, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, at) != MAP_FAILED)
		return true;
	munmap(page, len);
	return false;
}

static void note_bad(struct pm_store *st, uint64_t blk, uint64_t end)
{
	struct pm_faults *f = st->faults;

	for (; blk < end; blk++) {
		uint64_t bit = 1ull << (blk % 64);

		if (__atomic_fetch_or(&f->bad[blk / 64], bit, __ATOMIC_ACQ_REL) & bit)
			continue;
		__atomic_fetch_add(&f->n, 1, __ATOMIC_ACQ_REL);
		STAT_ADD(st, media_errors, 1);
	}
}

/* Called in a signal handler, on any thread, whatever it was doing: system calls and atomics only. */
bool pm_media_fault(struct pm_store *st, void *addr)
{
	/* A mapping of device-DAX can be split at its large pages only. */
	static const size_t steps[] = { PM_BLOCK, 2u << 20 };
	int keep = errno;
	uint64_t off;

	if (!st->faults || !offset_of(st, addr, &off))
		return false;
	for (unsigned i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		uint64_t before = (uintptr_t)addr & (steps[i] - 1), from = off - before;

		if (before > off || from + steps[i] > st->media.len ||
		    !put_ones((uint8_t *)addr - before, steps[i]))
			continue;
		note_bad(st, from / PM_BLOCK, (from + steps[i]) / PM_BLOCK);
		errno = keep;
		return true;
	}
	errno = keep;
	return false;
}

static bool is_bad(const struct pm_faults *f, uint64_t blk)
{
	return __atomic_load_n(&f->bad[blk / 64], __ATOMIC_ACQUIRE) >> (blk % 64) & 1;
}

bool faults_among(const struct pm_faults *f, uint64_t at, uint64_t len)
{
	for (uint64_t b = at / PM_BLOCK; len && b <= (at + len - 1) / PM_BLOCK; b++)
		if (is_bad(f, b))
			return true;
	return false;
}

/* Name what has gone bad since the last time, run by run. Lock held. */
static void tell(struct pm_store *st, uint64_t from, uint64_t to)
{
	struct pm_faults *f = st->faults;
	uint64_t b = from;

	while (b < to) {
		uint64_t start = b;

		while (b < to && is_bad(f, b))
			b++;
		if (b > start)
			store_log(st, 3,
			          "media error: bytes %llu to %llu of the pool cannot be accessed; "
			          "what is there answers an I/O error",
			          (unsigned long long)(start * PM_BLOCK),
			          (unsigned long long)(b * PM_BLOCK));
		else
			b++;
	}
}

/* Has the file got shorter? Devices do not. */
static bool shrunk(struct pm_store *st)
{
	struct pm_faults *f = st->faults;
	struct stat sb;

	if (!__atomic_load_n(&f->shrunk, __ATOMIC_RELAXED) && st->media.regular && !fstat(st->media.fd, &sb) &&
	    (uint64_t)sb.st_size < st->super.blocks * PM_BLOCK) {
		if (__atomic_exchange_n(&f->shrunk, true, __ATOMIC_RELAXED))
			return true;
		store_log(st, 2,
		          "the pool was cut short from %llu to %llu bytes while in use; what lay "
		          "behind is "
		          "lost",
		          (unsigned long long)st->super.blocks * PM_BLOCK,
		          (unsigned long long)sb.st_size);
	}
	return __atomic_load_n(&f->shrunk, __ATOMIC_RELAXED);
}

/* So few pages are touched in less time than it takes to ask for the size of the file. */
#define TOUCH_MAX 8

static bool few(const struct pm_store *st, const struct iovec *seg, unsigned n)
{
	size_t pages = 0;

	if (media_slow(st)) /* a page might have to come from the disk, and the lock is held */
		return false;
	for (unsigned i = 0; i < n && pages <= TOUCH_MAX; i++)
		pages += seg[i].iov_len / PM_BLOCK + 1;
	return pages <= TOUCH_MAX;
}

/* Writing finds also what lacks a place in its file system, and changes nothing, whoever else writes there. */
static void touch(volatile uint8_t *at, bool write)
{
	uint8_t v = *at;

	if (write)
		__atomic_compare_exchange_n(at, &v, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/* Touch the pages of segments of the pool; -EIO: one of them is bad. */
static int probe(struct pm_store *st, const struct iovec *seg, unsigned n, bool write, bool always)
{
	struct pm_faults *f = st->faults;
	int err = 0;

	if (!f)
		return 0;
	if (!always && !__atomic_load_n(&f->n, __ATOMIC_ACQUIRE) &&
	    !(few(st, seg, n) ? st->media.regular : shrunk(st)))
		return 0;
	for (unsigned i = 0; i < n; i++) {
		uint64_t off, end, before;

		if (!seg[i].iov_len || !offset_of(st, seg[i].iov_base, &off))
			continue;
		end = off + seg[i].iov_len;
		before = __atomic_load_n(&f->n, __ATOMIC_ACQUIRE);
		for (uint64_t at = off; at < end; at = (at / PM_BLOCK + 1) * PM_BLOCK)
			touch(st->media.base + at, write);
		if (__atomic_load_n(&f->n, __ATOMIC_ACQUIRE) != before)
			tell(st, off / PM_BLOCK, (end + PM_BLOCK - 1) / PM_BLOCK);
		if (faults_in(st, off, end - off))
			err = -EIO;
	}
	if (err)
		shrunk(st); /* if that is why, the log says so */
	return err;
}

int faults_probe(struct pm_store *st, const struct iovec *seg, unsigned n, bool always)
{
	return probe(st, seg, n, false, always);
}

int pm_map_probe(struct pm_map *m)
{
	struct pm_store *st = m->pin->st;
	int err;

	store_lock(st);
	err = probe(st, m->seg, m->nseg, m->pin->write, true);
	store_unlock(st);
	return err;
}
