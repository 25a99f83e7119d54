/* The kernel's pool of huge pages of one size, as /sys/kernel/mm/hugepages shows it. */
#ifndef DMAB_SOURCE_HUGEPOOL_H
#define DMAB_SOURCE_HUGEPOOL_H

#include <stdint.h>

struct hugepool {
        uint64_t page_size;
};

/* 0; -ENOENT: the kernel has no huge pages of this size; -ENOSYS: it has none at all. */
int hugepool_find(struct hugepool *pool, uint64_t page_size);

/* All its pages, in use or not. -errno. */
int hugepool_total(const struct hugepool *pool, uint64_t *ret);

/* Pages that are free and promised to nobody, right now. 0 also when the kernel does not say. */
uint64_t hugepool_available(const struct hugepool *pool);

/* How many pages the system's memory might still make, at best. */
uint64_t hugepool_possible(const struct hugepool *pool);

/* Enlarge the pool by up to n pages, on `node` if that is not -1, but never by more than hugepool_possible(): the
 * kernel would starve the whole system in trying. *ret_got says by how many it really grew, which may be none. -errno when the
 * kernel refused to be asked at all (-EACCES, -EROFS, …). */
int hugepool_raise(const struct hugepool *pool, uint64_t n, int node, uint64_t *ret_got);

/* Make the pool smaller by n pages again. Pages in use follow when they are freed. -errno. */
int hugepool_lower(const struct hugepool *pool, uint64_t n);

#endif
