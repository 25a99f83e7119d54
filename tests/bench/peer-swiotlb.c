#include "tests/bench/peer-swiotlb.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

enum { SLOT_SIZE = 2048, SEGMENT = 128, PAGE = 4096 };

/* As in the kernel: the address, the size and the count of a slot lie together. */
struct slot {
        uint64_t original, size;
        uint16_t n_free; /* from here to the end of the segment, or 0: taken */
        uint16_t padding;
};

struct area {
        size_t index; /* where the next probe begins */
        size_t used;
        unsigned lock;
} __attribute__((aligned(64)));

struct peer_swiotlb {
        size_t n_areas, area_slots;
        struct area *areas;
        struct slot *slots;
};

/* The same as ours. */
static void lock(struct area *area) {
        while (__atomic_exchange_n(&area->lock, 1, __ATOMIC_ACQUIRE))
                while (__atomic_load_n(&area->lock, __ATOMIC_RELAXED))
                        ;
}

static void unlock(struct area *area) {
        __atomic_store_n(&area->lock, 0, __ATOMIC_RELEASE);
}

static size_t in_segment(size_t slot) {
        return slot % SEGMENT;
}

/* Free slots before `slot` in its segment count those from there on as well. */
static void recount_before(struct slot *slots, size_t slot, uint16_t n_free) {
        while (in_segment(slot) && slots[slot - 1].n_free)
                slots[--slot].n_free = ++n_free;
}

static bool probe(const struct peer_swiotlb *pool, const struct area *area, size_t base, size_t n, size_t stride,
                  size_t *ret_index) {
        size_t index = area->index, n_checked = 0;

        while (n_checked < pool->area_slots) {
                if (stride > 1 && (base + index) % stride) {
                        index = index + 1 < pool->area_slots ? index + 1 : 0;
                        n_checked++;
                        continue;
                }
                if (pool->slots[base + index].n_free >= n) {
                        *ret_index = index;
                        return true;
                }
                index = index + stride < pool->area_slots ? index + stride : 0;
                n_checked += stride;
        }
        return false;
}

static long map_in(struct peer_swiotlb *pool, struct area *area, uint64_t original, size_t size) {
        size_t n = (size + SLOT_SIZE - 1) / SLOT_SIZE, stride = size >= PAGE ? PAGE / SLOT_SIZE : 1;
        size_t base = (size_t)(area - pool->areas) * pool->area_slots, index, first;

        lock(area);
        if (n > pool->area_slots - area->used || !probe(pool, area, base, n, stride, &index)) {
                unlock(area);
                return -1;
        }
        first = base + index;
        for (size_t i = 0; i < n; i++) {
                pool->slots[first + i].n_free = 0;
                pool->slots[first + i].size = size - i * SLOT_SIZE;
        }
        recount_before(pool->slots, first, 0);
        area->index = index + n < pool->area_slots ? index + n : 0;
        area->used += n;
        unlock(area);
        for (size_t i = 0; i < n; i++)
                pool->slots[first + i].original = original + i * SLOT_SIZE;
        return (long)first;
}

long peer_swiotlb_map(struct peer_swiotlb *pool, size_t area, unsigned long original, size_t size) {
        for (size_t i = 0; i < pool->n_areas; i++) {
                long slot = map_in(pool, &pool->areas[(area + i) % pool->n_areas], original, size);

                if (slot >= 0)
                        return slot;
        }
        return -1;
}

void peer_swiotlb_unmap(struct peer_swiotlb *pool, long slot) {
        struct area *area = &pool->areas[(size_t)slot / pool->area_slots];
        size_t first = (size_t)slot, n = (pool->slots[first].size + SLOT_SIZE - 1) / SLOT_SIZE;
        uint16_t n_free;

        lock(area);
        n_free = in_segment(first) + n < SEGMENT ? pool->slots[first + n].n_free : 0;
        for (size_t i = first + n; i-- > first;) {
                pool->slots[i].n_free = ++n_free;
                pool->slots[i].original = UINT64_MAX;
                pool->slots[i].size = 0;
        }
        recount_before(pool->slots, first, n_free);
        area->used -= n;
        unlock(area);
}

struct peer_swiotlb *peer_swiotlb_new(size_t n_slots, size_t n_areas) {
        struct peer_swiotlb *pool = calloc(1, sizeof(*pool));

        if (!pool)
                return NULL;
        pool->n_areas = n_areas;
        pool->area_slots = n_slots / n_areas;
        pool->areas = aligned_alloc(64, n_areas * sizeof(*pool->areas));
        pool->slots = calloc(n_slots, sizeof(*pool->slots));
        if (!pool->areas || !pool->slots) {
                peer_swiotlb_free(pool);
                return NULL;
        }
        for (size_t i = 0; i < n_areas; i++)
                pool->areas[i] = (struct area){ 0 };
        for (size_t i = 0; i < n_slots; i++)
                pool->slots[i].n_free = (uint16_t)(SEGMENT - in_segment(i));
        return pool;
}

void peer_swiotlb_free(struct peer_swiotlb *pool) {
        if (!pool)
                return;
        free(pool->areas);
        free(pool->slots);
        free(pool);
}
