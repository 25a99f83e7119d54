/* Whose memory domains are: those of the daemon whose state directory has this number, wherever that directory is. It is
 * random, made once, and on disk before the first domain bears it, so that no daemon takes another one's domains for its own, and
 * none loses those that it has. */
#ifndef DMAB_SOURCE_XEN_IDENTITY_H
#define DMAB_SOURCE_XEN_IDENTITY_H

#include <stdint.h>

#include "daemon/core/failure.h"

/* Of source_directory(), without which it is 0. -ENOENT: it has none, and so no domains; -EBADMSG, -errno: that cannot be
 * told. */
int xen_identity_find(uint64_t *ret);
/* The same, but it is made if there is none. -errno with a sentence. */
int xen_identity_get(uint64_t *ret, struct failure *failure);

#endif
