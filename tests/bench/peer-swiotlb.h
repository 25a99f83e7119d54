/* The search of the kernel's SWIOTLB as it is published, written anew for user space and without the copying: slots of 2 KiB
 * in segments of 128, one area or several with a lock each, for every slot the number of free ones from it to the end of its
 * segment, and a linear probe that goes on where the last one ended.
 *
 * A run never crosses a segment, so 256 KiB is the most. Runs of a page or more begin at even slots, as they do there.
 * What the kernel does beyond that for a mapping (interrupts off, statistics, addresses of pages) is left out. */
#ifndef DMAB_TESTS_BENCH_PEER_SWIOTLB_H
#define DMAB_TESTS_BENCH_PEER_SWIOTLB_H

#include <stddef.h>

struct peer_swiotlb;

/* n_slots a multiple of 128 * n_areas. NULL without memory. */
struct peer_swiotlb *peer_swiotlb_new(size_t n_slots, size_t n_areas);
void peer_swiotlb_free(struct peer_swiotlb *pool);

/* The first slot of a run for `size` bytes at the address original, tried in area `area` first; -1: full. */
long peer_swiotlb_map(struct peer_swiotlb *pool, size_t area, unsigned long original, size_t size);
void peer_swiotlb_unmap(struct peer_swiotlb *pool, long slot);

#endif
