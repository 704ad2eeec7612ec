/* SPDX-License-Identifier: BSD-3-Clause */
/* nfstree.h - trees in and out through libnfs, an NFS client that is not ours */
#ifndef TEST_LIB_NFSTREE_H
#define TEST_LIB_NFSTREE_H

#include <nfsc/libnfs.h>

#include "test/lib/daemon.h"

/* Mount @path of @d; the test ends with libnfs's words if that fails. */
struct nfs_context *nfst_mount(struct daemon *d, const char *path);
/* Copy the directory @local to @remote (made here) with content, modes, times (microseconds), symbolic and hard links. */
void nfst_put(struct nfs_context *nfs, const char *local, const char *remote);
void nfst_get(struct nfs_context *nfs, const char *remote, const char *local);
/* A tree worth copying at @dir: @from, and beside it sparse files, hard links, odd names, empty things. Times have
 * whole microseconds, which is what every client can carry. */
void tree_make(const char *from, const char *dir);
/* No difference in names, types, modes, sizes, times, links, link counts and content; else a message. */
void tree_same(const char *a, const char *b);

#endif
