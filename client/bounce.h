/* Bounce memory of a device: slots that it can reach, through which the library copies what lies where it cannot.
 *
 * The slots are in areas, each a lease from the daemon with a lock of its own. The first areas belong to CPUs: a thread
 * looks into the area of the CPU that it runs on first. More come when no area has room, and go when the daemon asks for
 * what is idle. What is mapped is recorded beside the slots, so that every misuse of an address is found out. */
#ifndef DMAB_CLIENT_BOUNCE_H
#define DMAB_CLIENT_BOUNCE_H

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/agent.h"
#include "client/slots.h"
#include "include/dmabroker.h"

struct dmab_device;
struct region;

enum { BOUNCE_AREAS_MOST = 64 };

/* A mapping, by its first slot. */
struct bounce_record {
        void *buf;
        size_t size;
        uint32_t pieces; /* of the scatter list that it is part of; 0: of none */
        uint8_t direction;
        bool ending; /* somebody unmaps it at this moment */
};

/* Once made it stays until the device is closed: others may be looking at it. While it is empty, its size is 0. */
struct bounce_area {
        struct slots_lock lock; /* guards all below; start and size are changed under bounce->lock too, and atomic */
        dmab_addr_t start;
        uint64_t size;
        uint64_t n_free; /* slots; atomic: a hint for those who look for room */
        struct slots *slots;
        char *memory;
        struct bounce_record *records;
        uint64_t bounced, bounced_bytes;
        uint64_t lease;
        struct region *region;
} __attribute__((aligned(64)));

struct bounce {
        struct dmab_device *device;
        size_t size, max_size; /* bytes */
        unsigned n_own;        /* areas that are CPUs'; atomic */
        unsigned slot_shift;   /* atomic; changes only while no area has memory */
        pthread_mutex_t lock;  /* guards all that follows */
        uint64_t number;       /* of the pool; 0: there is none */
        struct watch watch;
        uint64_t slots, high_water; /* of all areas; the most that were in use when somebody looked */
        unsigned changes;           /* of areas; atomic: read without the lock */
        unsigned n_areas;           /* atomic, as the pointers */
        struct bounce_area *areas[BOUNCE_AREAS_MOST];
        uint64_t fulls; /* atomic */
};

void bounce_init(struct bounce *bounce, struct dmab_device *device);
/* Without a word to the daemon. */
void bounce_deinit(struct bounce *bounce);

/* The area of the CPU that the caller runs on, as a number below n. No system call: the kernel keeps the number up to date
 * in the thread's memory. */
static inline unsigned bounce_own_area(unsigned n) {
        int cpu = n > 1 ? sched_getcpu() : 0;

        return cpu < 0 ? 0 : (unsigned)cpu < n ? (unsigned)cpu : (unsigned)cpu % n;
}

/* ---- bounce.c ---- */

/* What somebody says of a mapping. */
struct bounce_claim {
        dmab_addr_t dma;
        size_t size;
        enum dmab_direction direction;
        uint32_t pieces;
};

/* Find room for size bytes and copy them there. Negative errno with a sentence. */
int bounce_map(struct bounce *bounce, void *buf, size_t size, enum dmab_direction direction, uint32_t pieces,
               dmab_addr_t *ret_dma);

/* Each of these: 1 if the address is not in this bounce memory, or -errno with a sentence. bounce_check() only tells whether
 * bounce_unmap() would do it: *ret_buf is the caller's memory. */
int bounce_check(struct bounce *bounce, const struct bounce_claim *claim, void **ret_buf);
int bounce_unmap(struct bounce *bounce, const struct bounce_claim *claim);
/* The same without copying: of a mapping that nobody has been told of. */
int bounce_undo(struct bounce *bounce, const struct bounce_claim *claim);
/* [dma, dma+size) may be a part, unless pieces says that it is one of a list. */
int bounce_sync(struct bounce *bounce, const struct bounce_claim *claim, bool for_cpu);

/* Is it in the bounce memory? */
bool bounce_has(const struct bounce *bounce, dmab_addr_t dma);

/* What is mapped: how many, and the first of them. */
size_t bounce_mapped(struct bounce *bounce, dmab_addr_t *ret_dma, struct bounce_record *ret_first);

/* All members but struct_size and mapped_in_place. */
void bounce_info(struct bounce *bounce, struct dmab_bounce_info *ret);

/* Refuse a direction of unmapping or syncing that does not go with that of the mapping. -EINVAL with a sentence. */
int bounce_check_unmap_direction(const struct dmab_device *device, dmab_addr_t dma, enum dmab_direction mapped,
                                 enum dmab_direction direction);
int bounce_check_sync_direction(const struct dmab_device *device, dmab_addr_t dma, enum dmab_direction mapped,
                                enum dmab_direction direction, bool for_cpu);
const char *bounce_direction_name(enum dmab_direction direction);

/* ---- area.c ---- */

/* Get room for a run of n slots, unless there have been changes since `changes`. -errno with a sentence: -ENOMEM when
 * there is no more to be had, -E2BIG when it can never be. */
int area_grow(struct bounce *bounce, size_t n, unsigned changes);

/* Choose the sizes. -EBUSY: there is memory already; -EINVAL. */
int area_set_sizes(struct bounce *bounce, size_t size, size_t max_size, size_t slot_size);

/* Give everything back; the next mapping begins anew. 1: not all, since something is mapped. -errno with a sentence. */
int area_sleep(struct bounce *bounce);

#endif
