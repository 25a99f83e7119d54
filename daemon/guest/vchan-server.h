/* The host's end of a vchan: a page and two streams that are shared with one guest, an event channel, and what xenstore tells
 * that guest of them. It is as Xen's libxenvchan has it, which reads, writes and closes it; but it is made here, because what
 * that library has made in part it does not undo without harm: it takes for its own whatever lay in the memory of its struct.
 *
 * All functions may wait for xenstore, which may never answer, and each belongs to one thread at a time. */
#ifndef DMAB_GUEST_VCHAN_SERVER_H
#define DMAB_GUEST_VCHAN_SERVER_H

#include <stdint.h>

#include "daemon/core/failure.h"

struct libxenvchan;
struct vchan_library;
struct vchan_server;

/* -errno with a sentence: then nothing is shared, and xenstore tells nothing of it. library outlives it. */
int vchan_server_new(const struct vchan_library *library, uint32_t domid, struct vchan_server **ret, struct failure *failure);
/* What the library reads and writes, as long as the server is there. */
struct libxenvchan *vchan_server_vchan(const struct vchan_server *server);
/* Nothing is shared any more; and what xenstore tells the guest goes, unless somebody else has told it something meanwhile.
 * Returns NULL; NULL is fine. */
struct vchan_server *vchan_server_free(struct vchan_server *server);

#endif
