/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * access.c - who may do what: squashing, permission bits, and the rules of POSIX about owners
 *
 * Pure functions of a caller and of attributes; the calls that use them are in nfs3*.c. Between the
 * check and the change another client may change the attributes: that is a race of the clients'
 * making, as on any NFS server, and never one that gives a caller more than he had a moment ago.
 */
#include <errno.h>
#include <netinet/in.h>

#include "server/nfs3.h"

#define S_SUID   04000u
#define S_SGID   02000u
#define S_STICKY 01000u
#define S_XGRP   00010u

void access_who(const struct tp_cred *cred, const struct export_opts *opts, struct access_who *out)
{
	out->ngids = 0;
	if (opts->all_squash || cred->flavor != AUTH_SYS) {
		out->uid = opts->anonuid;
		out->gid = opts->anongid;
		return;
	}
	out->uid = opts->root_squash && cred->uid == 0 ? opts->anonuid : cred->uid;
	out->gid = opts->root_squash && cred->gid == 0 ? opts->anongid : cred->gid;
	for (uint32_t i = 0; i < cred->ngids && i < 16; i++) {
		uint32_t gid = cred->gids[i];

		out->gids[out->ngids++] = opts->root_squash && gid == 0 ? opts->anongid : gid;
	}
}

bool access_port_ok(const struct export_opts *opts, enum tp_kind kind,
                    const struct sockaddr_storage *peer)
{
	if (!opts->secure || kind != TP_TCP)
		return true;
	if (peer->ss_family == AF_INET)
		return ntohs(((const struct sockaddr_in *)peer)->sin_port) < IPPORT_RESERVED;
	if (peer->ss_family == AF_INET6)
		return ntohs(((const struct sockaddr_in6 *)peer)->sin6_port) < IPPORT_RESERVED;
	return true;
}

bool access_in_group(const struct access_who *who, uint32_t gid)
{
	if (who->gid == gid)
		return true;
	for (uint32_t i = 0; i < who->ngids; i++)
		if (who->gids[i] == gid)
			return true;
	return false;
}

/* MAY_* bits that the mode grants. */
static unsigned granted(const struct access_who *who, const struct pm_attr *attr)
{
	if (who->uid == 0)
		return MAY_READ | MAY_WRITE |
		       (attr->type == PM_DIR || (attr->mode & 0111) ? MAY_EXEC : 0);
	if (who->uid == attr->uid)
		return attr->mode >> 6 & 7;
	if (access_in_group(who, attr->gid))
		return attr->mode >> 3 & 7;
	return attr->mode & 7;
}

int access_may(const struct access_who *who, const struct pm_attr *attr, unsigned want)
{
	if ((want & MAY_OWNER) && who->uid == attr->uid)
		return 0;
	want &= ~(unsigned)MAY_OWNER;
	return (granted(who, attr) & want) == want ? 0 : -EACCES;
}

int access_sticky(const struct access_who *who, const struct pm_attr *dir,
                  const struct pm_attr *obj)
{
	if (!(dir->mode & S_STICKY) || who->uid == 0 || who->uid == dir->uid ||
	    who->uid == obj->uid)
		return 0;
	return -EACCES;
}

/* set-group-id of a file that nobody in the group may execute is a mark for locking, not a
 * privilege. */
static uint32_t without_setid(uint32_t mode)
{
	mode &= ~S_SUID;
	return mode & S_XGRP ? mode & ~S_SGID : mode;
}

uint32_t access_written_mode(const struct access_who *who, const struct pm_attr *attr)
{
	return who->uid == 0 || attr->type != PM_REG ? attr->mode : without_setid(attr->mode);
}

static int may_chown(const struct access_who *who, const struct pm_attr *attr,
                     const struct pm_setattr *sa)
{
	if (who->uid == 0)
		return 0;
	if (who->uid != attr->uid)
		return -EPERM;
	if ((sa->set & PM_SET_UID) && sa->uid != attr->uid)
		return -EPERM;
	if ((sa->set & PM_SET_GID) && sa->gid != attr->gid && !access_in_group(who, sa->gid))
		return -EPERM;
	return 0;
}

static int may_set_times(const struct access_who *who, const struct pm_attr *attr,
                         const struct pm_setattr *sa)
{
	if (who->uid == 0 || who->uid == attr->uid)
		return 0;
	if (((sa->set & PM_SET_ATIME) && sa->atime.tv_nsec != UTIME_NOW) ||
	    ((sa->set & PM_SET_MTIME) && sa->mtime.tv_nsec != UTIME_NOW))
		return -EPERM;
	return access_may(who, attr, MAY_WRITE);
}

/* What the change does to the set-id bits, beyond what was asked. A program given to another owner or group lends nobody
 * their rights, root's least of all, unless root gives it the bits in the same call: clients leave that to the server. */
static void settle_mode(const struct access_who *who, const struct pm_attr *attr,
                        struct pm_setattr *sa)
{
	uint32_t gid = sa->set & PM_SET_GID ? sa->gid : attr->gid;
	bool moved = ((sa->set & PM_SET_UID) && sa->uid != attr->uid) || gid != attr->gid;
	uint32_t mode;

	if (who->uid == 0 && (!moved || attr->type == PM_DIR || (sa->set & PM_SET_MODE)))
		return;
	if ((sa->set & PM_SET_MODE) && !access_in_group(who, gid))
		sa->mode &= ~S_SGID;
	if (attr->type == PM_DIR)
		return;
	mode = sa->set & PM_SET_MODE ? sa->mode : attr->mode;
	if (moved ||
	    (!(sa->set & PM_SET_MODE) && (sa->set & (PM_SET_UID | PM_SET_GID | PM_SET_SIZE))))
		mode = without_setid(mode);
	if (!(sa->set & PM_SET_MODE) && mode == attr->mode)
		return;
	sa->set |= PM_SET_MODE;
	sa->mode = mode;
}

int access_setattr(const struct access_who *who, const struct pm_attr *attr, struct pm_setattr *sa)
{
	int err = 0;

	if ((sa->set & PM_SET_MODE) && who->uid != 0 && who->uid != attr->uid)
		return -EPERM;
	if (sa->set & (PM_SET_UID | PM_SET_GID))
		err = may_chown(who, attr, sa);
	if (!err && (sa->set & PM_SET_SIZE))
		err = access_may(who, attr, MAY_WRITE | MAY_OWNER);
	if (!err && (sa->set & (PM_SET_ATIME | PM_SET_MTIME)))
		err = may_set_times(who, attr, sa);
	if (!err)
		settle_mode(who, attr, sa);
	return err;
}

void access_new(const struct access_who *who, const struct pm_attr *dir, unsigned set,
                struct pm_new *nw)
{
	bool root = who->uid == 0;
	uint32_t gid = dir->mode & S_SGID ? dir->gid : who->gid;

	if (!(set & PM_SET_UID) || !root)
		nw->uid = who->uid;
	if (!(set & PM_SET_GID) || (!root && !access_in_group(who, nw->gid)))
		nw->gid = gid;
	if (!(set & PM_SET_MODE))
		nw->mode = nw->type == PM_DIR ? 0755 : nw->type == PM_LNK ? 0777 : 0600;
	nw->mode &= 07777;
	if (nw->type == PM_DIR && (dir->mode & S_SGID))
		nw->mode |= S_SGID;
	else if (!root && !access_in_group(who, nw->gid))
		nw->mode &= ~S_SGID;
}

uint32_t access_bits(const struct access_who *who, const struct pm_attr *attr, bool rw,
                     uint32_t asked)
{
	/* A device, socket or pipe lives on the client: writing to it does not write to the export.
	 */
	bool here = attr->type == PM_REG || attr->type == PM_DIR || attr->type == PM_LNK;
	unsigned has = granted(who, attr);
	uint32_t ok = 0;

	if (here && !rw)
		has &= ~(unsigned)MAY_WRITE;
	if (has & MAY_READ)
		ok |= ACCESS3_READ;
	if (attr->type != PM_DIR) {
		if (has & MAY_WRITE)
			ok |= ACCESS3_MODIFY | ACCESS3_EXTEND;
		if (has & MAY_EXEC)
			ok |= ACCESS3_EXECUTE;
		return ok & asked;
	}
	if (has & MAY_EXEC)
		ok |= ACCESS3_LOOKUP;
	if ((has & (MAY_WRITE | MAY_EXEC)) == (MAY_WRITE | MAY_EXEC))
		ok |= ACCESS3_MODIFY | ACCESS3_EXTEND | ACCESS3_DELETE;
	return ok & asked;
}
