/* How much memory Xen has free: asked each second, on a thread of its own, because whoever wants to know must not wait. */
#ifndef DMAB_SOURCE_XEN_FREE_H
#define DMAB_SOURCE_XEN_FREE_H

#include <stdint.h>

#include "daemon/source/xen-domain.h"

struct xen_free;

/* Asked once before it returns. host: borrowed, and nobody else's until xen_free_end(). -ENOMEM, -EAGAIN. */
int xen_free_new(struct xen_host *host, struct xen_free **ret);
/* Returns NULL; NULL is fine. */
struct xen_free *xen_free_end(struct xen_free *free);

/* Any thread may ask, and say what it has been told itself. */
uint64_t xen_free_bytes(const struct xen_free *free);
void xen_free_note(struct xen_free *free, uint64_t bytes);

#endif
