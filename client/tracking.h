/* Every live mapping of a device, for DMAB_DEBUG: what the kernel's CONFIG_DMA_API_DEBUG knows. Found by the caller's memory. */
#ifndef DMAB_CLIENT_TRACKING_H
#define DMAB_CLIENT_TRACKING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "include/dmabroker.h"

struct tracking;

struct tracked {
        const void *buf;
        size_t size;
        dmab_addr_t dma;
        enum dmab_direction direction;
        uint32_t pieces; /* of its scatter list; 0: of none */
};

/* NULL without memory. */
struct tracking *tracking_new(void);
void tracking_free(struct tracking *tracking);

/* 0; -ENOMEM; or -EEXIST if they overlap and one of them is written to by the device: *ret is then the other one. */
int tracking_add(struct tracking *tracking, const struct tracked *mapping, struct tracked *ret);

/* Forget the one that is like this; of several with the same addresses, the one that fits best. 0; -ENOENT: there is none;
 * -EINVAL: there is one at these addresses, but otherwise: *ret. */
int tracking_remove(struct tracking *tracking, const struct tracked *mapping, struct tracked *ret);

/* The one that has all of [buf, buf+size) at dma; of several, one of a list with so many pieces if there is one. */
bool tracking_find(struct tracking *tracking, const void *buf, size_t size, dmab_addr_t dma, uint32_t pieces,
                   struct tracked *ret);

/* How many there are, and the one that has been there for longest. */
size_t tracking_count(struct tracking *tracking, struct tracked *ret_oldest);

#endif
