/* What the kernel tells of its areas for contiguous allocation (CMA). */
#ifndef DMAB_SOURCE_CMA_H
#define DMAB_SOURCE_CMA_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/source/mark.h"

/* Bytes in all areas, and those that are free (others may be made free by moving what is there). -ENOENT: the kernel has
 * no such area. */
int cma_bytes(uint64_t *ret_total, uint64_t *ret_free);

/* Where the areas lie, at most n_max of them. Only debugfs tells that. Returns how many; 0 also when debugfs is not
 * mounted or may not be read. */
size_t cma_ranges(struct mark_range *ret, size_t n_max);

#endif
