/* SPDX-License-Identifier: BSD-3-Clause */
/* persist.c - which method makes a mapping durable: one pure function and its names */
#include <errno.h>

#include "pmemio/core.h"

const char *pm_method_name(enum pm_method m)
{
	static const char *const name[] = { [PM_AUTO] = "auto",
		                            [PM_FENCE] = "fence",
		                            [PM_CLWB] = "clwb",
		                            [PM_MSYNC] = "msync",
		                            [PM_VOLATILE] = "volatile" };

	return (unsigned)m < sizeof(name) / sizeof(name[0]) ? name[m] : "unknown";
}

int persist_choose(enum persist_gran gran, enum pm_method want, enum pm_method *out,
                   const char **reason)
{
	static const struct {
		enum pm_method best;
		const char *why;
	} by_gran[] = {
		[GRAN_BYTE] = { PM_FENCE, "the CPU caches are in the persistence domain (eADR)" },
		[GRAN_CACHE_LINE] = { PM_CLWB, "the mapping is persistent by cache line" },
		[GRAN_PAGE] = { PM_MSYNC, "the mapping is page cache" },
	};

	switch (want) {
	case PM_AUTO:
		*out = by_gran[gran].best;
		*reason = by_gran[gran].why;
		return 0;
	case PM_FENCE:
		if (gran != GRAN_BYTE)
			return -EPERM;
		break;
	case PM_CLWB:
		if (gran == GRAN_PAGE)
			return -EPERM;
		break;
	case PM_MSYNC:
	case PM_VOLATILE:
		break;
	default:
		return -EINVAL;
	}
	*out = want;
	*reason = "the administrator's choice";
	return 0;
}
