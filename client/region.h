/* Regions as this process sees them: each is mapped once, whole, for as long as an allocation in it lives. */
#ifndef DMAB_CLIENT_REGION_H
#define DMAB_CLIENT_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dmab;
struct region;

/* Guarded by its session's lock. */
struct region_table {
        struct region *first;
};

/* The region with that number, mapped now if it is not yet; *ret has one more user. fd is its memory, borrowed, or -1:
 * it is then asked for if it is needed. *ret_mapped (may be NULL) tells whether it was mapped now. -errno with a
 * sentence. */
int region_use(struct dmab *dmab, uint64_t number, int fd, struct region **ret, bool *ret_mapped);

/* One user less; the last one unmaps it. */
void region_release(struct dmab *dmab, struct region *region);

/* The CPU's address of `size` bytes at `offset`, or NULL if they do not lie in the region. */
void *region_address(const struct region *region, uint64_t offset, uint64_t size);

#endif
