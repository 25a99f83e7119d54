/* A byte for each place in a session's range of addresses where a block of one pool can begin: what is there. Found from an
 * address by a shift and an addition, which is what makes checking every free affordable: a store whose address is known late
 * holds up every load behind it.
 *
 * Only addresses are reserved for the whole range; memory is used where the pool has blocks. */
#ifndef DMAB_CLIENT_SHADOW_H
#define DMAB_CLIENT_SHADOW_H

#include <stddef.h>
#include <stdint.h>

enum block_state {
        BLOCK_NONE, /* no block of the pool begins there, or none of this process */
        BLOCK_BUSY, /* given out, or in a magazine without a mark */
        BLOCK_FREE,
};

struct memory;

struct shadow {
        uintptr_t start; /* of the session's range */
        size_t size;     /* atomic; 0: not made yet, and then nothing is found */
        uint8_t *states; /* enum block_state; atomic */
        uintptr_t bias;  /* the state of the block at vaddr is at bias + (vaddr >> shift) */
        unsigned shift;  /* blocks begin at multiples of 1 << shift */
        uintptr_t mask;
};

/* The state of the block that begins at vaddr, or NULL if no block of the pool can begin there. Any thread, no lock. */
static inline uint8_t *shadow_state(const struct shadow *shadow, const void *vaddr) {
        size_t size = __atomic_load_n(&shadow->size, __ATOMIC_ACQUIRE); /* first: the rest is set before it */
        uintptr_t offset = (uintptr_t)vaddr - __atomic_load_n(&shadow->start, __ATOMIC_RELAXED);

        if (offset >= size || offset & shadow->mask)
                return NULL;
        return (uint8_t *)(shadow->bias + ((uintptr_t)vaddr >> shadow->shift));
}

/* Of an address that is known to be right. */
static inline uint8_t *shadow_state_sure(const struct shadow *shadow, const void *vaddr) {
        return (uint8_t *)(shadow->bias + ((uintptr_t)vaddr >> shadow->shift));
}

void shadow_init(struct shadow *shadow, unsigned shift);

/* Let the states of [start, end) be written; the first call reserves the whole. -ENOMEM with a sentence. One thread at a
 * time. */
int shadow_open(struct shadow *shadow, const struct memory *memory, uintptr_t start, uintptr_t end);

void shadow_deinit(struct shadow *shadow);

#endif
