/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SERVER_CONFIG_H
#define SERVER_CONFIG_H

#include "server/server.h"

void config_init(struct config *c);
/* Read a berth.conf. Every mistake is reported in @why as "file:line: what, and the cure"; -EINVAL then. */
int config_load(struct config *c, const char *path, char *why, size_t why_len);
/* One "section.key=value" of the command line; for fabrics "fabric NAME.key=value". */
int config_override(struct config *c, const char *text, char *why, size_t why_len);
/* Fill in what depends on other settings and refuse what does not fit together. */
int config_finish(struct config *c, char *why, size_t why_len);
void config_free(struct config *c);

#endif
