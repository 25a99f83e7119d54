/* Frames of a paravirtualised guest's, exchanged for others that follow one another in the machine. Of all that a guest has,
 * Xen takes only what nobody has mapped and nobody was granted, its own kernel included; what a kernel of Linux's uses, it has
 * mapped. The kernel must know before that what it has there is going, and afterwards what it has got: Xen does not tell it.
 *
 * Blocks as long as Xen takes, and needs no xenstore. Any thread may call. */
#ifndef DMAB_SOURCE_XEN_FRAMES_H
#define DMAB_SOURCE_XEN_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core/failure.h"

struct xen_exchange {
        uint32_t domid;
        char uuid[37]; /* of the guest, which must be this domain, in small letters */
        bool if_paused; /* and then only */
        unsigned order; /* of the extents that it gets: 1 << order pages each */
        uint64_t mask;  /* of their addresses */
        const uint64_t *frames; /* the machine's numbers of its pages, a multiple of 1 << order */
        size_t n_frames;
        const uint64_t *pfns; /* what it calls the first page of each extent; NULL: what it calls the frames that it has there */
        /* What it has got. */
        uint64_t *extents; /* room for n_frames >> order: the first frame of each, in their order */
        size_t n_extents;
        struct failure why; /* if this is set: it has not got all, or it is not as it should be */
};

/* The pages that it gets are zeroed. 0 if it has got any. -errno with a sentence; then it has still what it had, unless it has
 * ended. Reasons: bad_param (without pfns: these frames are no ranges of its own), bad_address (it does not have them), busy (Xen
 * does not take them: they are mapped), no_contiguous, mask, not_permitted (it is not paused), unsupported (it is not
 * paravirtualised), gone, limit, no_memory, source_unavailable. */
int xen_frames_exchange(struct xen_exchange *exchange, struct failure *failure);

#endif
