/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * format.h - what stands on the media. FORMAT.md tells the same story in words.
 *
 * Little-endian; every metadata structure carries a CRC32C (Castagnoli, as isa-l's crc32_iscsi with
 * initial value ~0 and a final inversion) of its own bytes with the crc field taken as zero.
 *
 *   block 0, 1      superblocks; the valid one with the larger seq counts
 *   lane_start ...  journal lanes, lane_blocks each: one header block, then records
 *   data_start ...  everything else: data, B+tree nodes, inode chunks. The first PM_CHUNK_BLOCKS blocks are
 *                   inode chunk 0. Free space is what no inode leads to; it is not stored, except by
 *                   a clean close.
 *
 * F1  An inode is live iff type != 0. Slot 0 is the inode table's own inode: a regular file whose blocks are
 *     the inode chunks, chunk c at file blocks [c * PM_CHUNK_BLOCKS, +PM_CHUNK_BLOCKS), each contiguous.
 *     Slot 1 is the root directory. A free slot keeps its gen; allocation adds one.
 * F2  Extents of one file do not overlap, are sorted by lblk and lie inside [data_start, blocks).
 * F3  Every block belongs to at most one extent, B+tree node, inode chunk, saved-free-space run or the ring of
 *     reply records.
 * F4  Every live inode but slots 0 and 1 and the quota file has nlink names leading to it, or nlink == 0 (an orphan: recovery
 *     frees it). A directory has exactly one name, nlink 2 + its subdirectories, and its parent field.
 * F5  Bytes of the last block behind the end of file are undefined; whoever moves the end over them zeroes
 *     them first. So are written extents wholly behind it, which a crash in a long truncate can leave: whoever
 *     moves the end up cuts them first. Unwritten ones may stand there for good.
 * F6  An extent without PM_EXT_UNWRITTEN was durable, data and all, before the transaction that made it so.
 * F7  The seqs of the reply records grow around the ring, from the one behind the newest on to the newest.
 */
#ifndef PMEMIO_FORMAT_H
#define PMEMIO_FORMAT_H

#include <assert.h>
#include <stdint.h>

#define PM_MAGIC       "BERTHPMP"
#define PM_VERSION     2u /* 1: records of another kind, see below */
#define PM_MIN_SIZE    (16ull << 20)
#define PM_MAX_LANES   64u
#define PM_CHUNK_BLOCKS 16u
#define PM_INODE_SIZE  256u
#define PM_CHUNK_INODES (PM_CHUNK_BLOCKS * 4096u / PM_INODE_SIZE) /* 256 */

/* Feature bits: an unknown incompat bit refuses to open, an unknown ro_compat bit allows read_only. */
#define PM_INCOMPAT_REPLIES 1ull /* reply_start, reply_blocks: blocks that no inode leads to are in use */
#define PM_INCOMPAT_KNOWN PM_INCOMPAT_REPLIES
#define PM_ROCOMPAT_QUOTA 1ull /* limits have been set: whoever writes has to mind them */
#define PM_ROCOMPAT_SUMS  2ull /* sum_start, sum_blocks: checksums of file data */
#define PM_ROCOMPAT_KNOWN (PM_ROCOMPAT_QUOTA | PM_ROCOMPAT_SUMS)

enum { PM_STATE_CLEAN = 1,      /* closed clean; saved_* is valid */
       PM_STATE_UNSTABLE = 2 }; /* since this open unstable data was accepted (write verifier, I5) */

struct pm_super {
	char magic[8];
	uint32_t crc;
	uint32_t version;
	uint64_t seq; /* of this superblock's writing */
	uint64_t compat, ro_compat, incompat;
	uint8_t uuid[16];
	char label[64];
	uint8_t secret[16];
	uint64_t created; /* seconds */
	uint64_t blocks;  /* of the whole pool */
	uint64_t lane_start, data_start;
	uint32_t lanes, lane_blocks;
	/* changes at open and close */
	uint64_t boot;       /* counts read-write opens */
	uint64_t write_verf; /* NFS write verifier */
	uint32_t state, reserved0;
	uint64_t saved_start, saved_blocks; /* run of blocks that holds the stored free space; free itself */
	uint64_t saved_bytes;
	uint32_t saved_crc, reserved1;
	uint64_t reply_start, reply_blocks; /* PM_INCOMPAT_REPLIES: the ring of reply records */
	uint64_t sum_start, sum_blocks; /* PM_ROCOMPAT_SUMS: a CRC32C for each block, at the end of the pool */
	uint64_t uptime; /* seconds for which the pool has been open for writing in all, at least */
	uint8_t reserved2[512 - 280];
};
static_assert(sizeof(struct pm_super) == 512, "one sector");
#define PM_SAVED_MIN 16u         /* its checksum and what the shortest has */
#define PM_SAVED_MAX (1u << 30)  /* what would take more is gathered from the inodes */

/* Journal. seq = boot << 40 | counter; the counter goes up by one over all lanes, so that recovery replays
 * the unbroken run behind the largest checkpointed seq that any lane header names, and stops at a gap. A gap that a later
 * record calls durable is damage. */
struct pm_lane_head {
	uint32_t crc, reserved;
	uint64_t ckpt_seq; /* every transaction up to here, of every lane, is applied and durable */
	uint8_t pad[48];
};
static_assert(sizeof(struct pm_lane_head) == 64, "one cache line");
/* Two copies, at bytes 0 and 64 of the lane's header block, written in turn; the larger ckpt_seq counts. */

#define PM_REC_MAGIC 0x5242u /* "BR" */
#define PM_REC_MAGIC_DATA 0x4442u /* "BD": struct pm_rec_data follows the header */
#define PM_REC_MUTE  0xffffu
struct pm_rec {
	uint32_t crc; /* of the pool's secret and what of the record follows */
	uint16_t magic;
	uint16_t unsure; /* so many right in front of it were not known to be durable; PM_REC_MUTE: it does not say */
	uint32_t len;    /* bytes, multiple of 8, with this header */
	uint32_t nranges;
	uint64_t seq;
};
/* Version 1: this magic, 1 in the place of unsure, and crc covers the record alone. */
#define PM_REC_MAGIC_1 0x4a42u
#define PM_REC_TYPE_1  1u
static_assert(sizeof(struct pm_rec) == 24, "");
/* File data that was on its way together with the record: unless a later one calls this one durable, it counts only
 * if the data is there. */
struct pm_rec_data {
	uint32_t crc; /* CRC32C over the checksums (as in the table of them) of each block of the runs, in order */
	uint32_t n;   /* runs, which follow */
};
struct pm_rec_run {
	uint64_t at, len; /* bytes in the pool; begins with a block */
};
struct pm_rec_range {
	uint64_t at : 48;  /* byte in the pool */
	uint64_t len : 16; /* bytes, multiple of 8; that many new bytes follow */
};
static_assert(sizeof(struct pm_rec_range) == 8, "");

#define PM_INLINE_EXTENTS 8
#define PM_INLINE_LINK    128

struct pm_ext { /* a run of blocks */
	uint64_t lblk : 44, len_lo : 20;
	uint64_t pblk : 44, flags : 20;
};
static_assert(sizeof(struct pm_ext) == 16, "");
#define PM_EXT_MAX_LEN   ((1u << 20) - 1)
#define PM_XF_UNWRITTEN  1u

struct pm_time {
	int64_t sec;
	uint32_t nsec, pad;
};

enum { PM_IF_TREE = 1,      /* root leads to a B+tree (extents or entries) */
       PM_IF_VERF = 2,      /* made by an EXCLUSIVE create with verf */
       PM_IF_DOUBT = 4 };   /* made anew by a repair that has not judged its contents yet: not to be used */

struct pm_inode {
	uint32_t crc;
	uint16_t type; /* enum pm_type; 0 free */
	uint16_t flags;
	uint64_t ino;  /* its own number: a misdirected read shows */
	uint64_t gen;
	uint32_t mode, nlink, uid, gid;
	uint64_t size;   /* bytes; a directory: number of entries */
	uint64_t blocks; /* all blocks it owns, tree nodes included */
	uint64_t parent; /* directories: inode of the parent; inode 0: the quota file, or 0 */
	uint32_t rdev_major, rdev_minor;
	uint8_t verf[8];
	struct pm_time atime, mtime, ctime; /* 128 bytes up to here with what follows */
	union {
		struct pm_ext ext[PM_INLINE_EXTENTS]; /* sorted by lblk; the first with length 0 ends them */
		struct {
			uint64_t root;     /* block of the root node */
			uint32_t height;   /* 1: the root is a leaf */
			uint32_t pad;
			uint64_t count;    /* entries in the leaves */
		} tree;
		char link[PM_INLINE_LINK]; /* symbolic link target, size bytes, if it fits; else an extent */
	} u;
};
static_assert(sizeof(struct pm_inode) == PM_INODE_SIZE, "four cache lines");

/* B+tree node, one block. Slots are 16-bit offsets from the start of the node, sorted by key, growing up
 * behind the header; entries (8-byte aligned) are packed from the end of the block downwards. Node level 0 is a leaf.
 * Interior values are a uint64_t child block; the key of an interior entry is a lower bound of its subtree. */
#define PM_NODE_MAGIC 0x4e42u
struct pm_bnode {
	uint32_t crc;
	uint16_t magic;
	uint8_t level, reserved0;
	uint64_t owner; /* inode */
	uint64_t self;  /* own block */
	uint16_t count; /* slots */
	uint16_t low;   /* lowest byte in use by entries */
	uint16_t dead;  /* bytes of removed entries, to be had by packing */
	uint16_t reserved1;
	uint16_t slot[];
};
static_assert(sizeof(struct pm_bnode) == 32, "");
struct pm_bent {
	uint64_t key;
	uint16_t len; /* bytes of value */
	uint8_t val[];
};

/* What was answered to one request that must not be carried out twice, written by the request's own
 * transaction. Slots are filled in turn, around and around. */
struct pm_slot {
	uint32_t crc;
	uint32_t tag;    /* the server's: procedure number */
	uint8_t key[16]; /* of the request: SipHash of who asked what */
	uint64_t seq;    /* boot << 40 | counter; 0: never used, then all is zero */
	uint64_t ino, gen; /* the object made or changed */
	uint64_t when;     /* pm_super.uptime then */
	uint64_t reserved;
};
static_assert(sizeof(struct pm_slot) == 64, "one cache line");
#define PM_BLOCK_SLOTS (4096u / 64u)
#define PM_REPLY_BLOCKS_MAX (1u << 16)

/* Directory entry value; key = the cookie: the upper 47 bits of SipHash-2-4(secret, directory ino || name)
 * modulo 2^47 - 3, plus 3, << 16 | a sequence number that tells names of equal hash apart. The top bit stays clear. */
struct pm_dent {
	uint64_t ino, gen;
	uint8_t type;
	uint8_t name[];
} __attribute__((packed));

/* The quota file: a regular file without a name, nlink 1, each block of it 127 limits. */
#define PM_QUOTA_MAGIC   0x5142u
#define PM_QUOTA_RECORDS 127u
struct pm_quota_rec {
	uint32_t kind; /* 0: not in use; 1 uid, 2 gid */
	uint32_t id;
	uint64_t max_blocks, max_inodes; /* 0: no limit */
	uint64_t reserved;
};
struct pm_quota_block {
	uint32_t crc;
	uint16_t magic, reserved0;
	uint64_t lblk; /* its place in the file */
	uint64_t reserved1[2];
	struct pm_quota_rec rec[PM_QUOTA_RECORDS];
};
static_assert(sizeof(struct pm_quota_block) == 4096, "one block");

#endif
