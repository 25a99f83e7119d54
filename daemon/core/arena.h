/* The extent allocator: which parts of some machine-contiguous spans are free. It never touches the memory that it
 * describes. Requests are served from the highest addresses that suit them, so that memory below a device's limit is
 * left to the devices that need it. Allocation and release cost O(log n) at most.
 *
 * A span is one machine-contiguous run that was added as a whole. Blocks are cut from one span only, and free blocks
 * merge only within their span, even where two spans touch. Not thread-safe. */
#ifndef DMAB_CORE_ARENA_H
#define DMAB_CORE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct arena;

/* What a block must be like. All addresses and sizes in bytes. */
struct arena_request {
        uint64_t size;     /* > 0; rounded up to the arena's granule */
        uint64_t align;    /* power of two; 0 or less than the granule: the granule */
        uint64_t boundary; /* power of two that the block must not cross, or 0 */
        uint64_t floor;    /* the block's first byte is at or above this */
        uint64_t limit;    /* the block's last byte is at or below this */
};

struct arena_block {
        uint64_t addr, size;
        uint64_t note;   /* what was said of it with arena_note() since it was allocated, or 0 */
        uint32_t tag;    /* of the span the block lies in, as given to arena_add() */
        uint32_t number; /* of an allocated block, by which the arena knows it until it is released */
};

/* granule: power of two, the unit of every size and address. -EINVAL: it is none; -ENOMEM. */
int arena_new(uint64_t granule, struct arena **ret);
struct arena *arena_free(struct arena *arena); /* returns NULL */

/* Add a span, all of it free. -EINVAL: not in granules, empty, more than 2^32 granules, past the end of the address
 * space, or the piece that would make the address space complete, whose size no counter holds; -EEXIST: overlaps a span
 * that is there; -ENOMEM. tag is the caller's own. */
int arena_add(struct arena *arena, uint64_t addr, uint64_t size, uint32_t tag);

/* Take [addr, addr+size), all of it free, out of the arena: what is left of the span becomes one or two spans with the
 * same tag. -EINVAL: not in granules or empty; -ENOENT: not wholly inside one span; -EBUSY: part of it is allocated;
 * -ENOMEM. What is left may cost a visit of each block on the smaller side. */
int arena_remove(struct arena *arena, uint64_t addr, uint64_t size);

/* 0 and *ret; -ENOSPC: no free block suits, and that is certain, not a guess; -EINVAL: the request is malformed
 * (zero size, alignment or boundary not a power of two, size above the boundary); -ENOMEM: no memory for the record. */
int arena_alloc(struct arena *arena, const struct arena_request *request, struct arena_block *ret);

/* Like arena_alloc(), but only looks. */
int arena_find(struct arena *arena, const struct arena_request *request, struct arena_block *ret);

/* Allocate exactly [addr, addr+size). Many of them cost least in ascending order. -EINVAL: not in granules or empty;
 * -ENOENT: not wholly inside one span; -EBUSY: part of it is allocated; -ENOMEM. */
int arena_alloc_at(struct arena *arena, uint64_t addr, uint64_t size, struct arena_block *ret);

/* What its user wants to keep with an allocated block. */
void arena_note(struct arena *arena, uint32_t number, uint64_t note);

/* An allocated block, in constant time. */
struct arena_block arena_block(const struct arena *arena, uint32_t number);

/* Release an allocated block. ret_merged, if not NULL, gets the free block that holds it now, so that the caller can see
 * whether a whole span became free. */
void arena_release(struct arena *arena, uint32_t number, struct arena_block *ret_merged);

/* The same of the allocated block that starts at addr. -ENOENT: no allocated block starts there. */
int arena_release_at(struct arena *arena, uint64_t addr, struct arena_block *ret_merged);

/* The block, free or allocated, that holds addr. -ENOENT. */
int arena_lookup(const struct arena *arena, uint64_t addr, struct arena_block *ret, bool *ret_free);

/* The span that holds addr. -ENOENT. */
int arena_span(const struct arena *arena, uint64_t addr, struct arena_block *ret);

struct arena_usage {
        uint64_t bytes, free_bytes;
        uint64_t largest_free; /* bytes of the largest free block */
        size_t n_spans, n_free, n_allocated;
};

void arena_usage(const struct arena *arena, struct arena_usage *ret);

/* Free bytes and the largest free piece within [floor, limit], both inclusive. Costs a walk: for messages, not for hot
 * paths. */
void arena_usage_within(const struct arena *arena, uint64_t floor, uint64_t limit, uint64_t *ret_free,
                        uint64_t *ret_largest);

/* Every block in ascending address order, spans apart, until visit returns non-zero, which is then returned.
 * visit must not change the arena. */
typedef int (*arena_visit_fn)(const struct arena_block *block, bool is_free, void *userdata);
int arena_visit(const struct arena *arena, arena_visit_fn visit, void *userdata);

/* Every invariant: order, coverage, merging, lists, counters. 0, or -EUCLEAN with a sentence in text. */
int arena_check(const struct arena *arena, char *text, size_t text_size);

#endif
