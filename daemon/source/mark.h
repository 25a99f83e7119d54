/* Where in physical memory is a buffer that nobody tells the address of? Marks that no other memory can hold are written
 * to its pages, physical memory is searched for them, and the find is proven with marks of another kind. Nothing is ever
 * concluded from a likeness: whatever does not fit exactly is an error. */
#ifndef DMAB_SOURCE_MARK_H
#define DMAB_SOURCE_MARK_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/core/failure.h"

struct mark_range {
        uint64_t addr, size; /* whole pages */
};

/* Read `size` bytes of physical memory at addr; they never cross a page. -ENXIO: there is no memory. Else -errno. */
typedef int (*mark_read_fn)(void *userdata, uint64_t addr, void *ret, size_t size);

struct mark_search {
        mark_read_fn read;
        void *userdata;
        const struct mark_range *ranges; /* borrowed */
        size_t n_ranges;
        uint64_t limit; /* nothing above this is looked at */
        size_t page_size;
};

/* Find the machine address of map[0, size), which must be physically contiguous, shared with nobody yet, and whole pages
 * that are present; the first bytes of each page are overwritten. 0 only when physical memory showed, at *ret_addr and on
 * page by page to the end, first one set of random marks, at one place only, and then a second one that replaced it.
 * -ERANGE: not found at or below the limit, and some range goes beyond it; -ENXIO: not found; -ENOTUNIQ: found more than
 * once; -EXDEV: not contiguous; -ESTALE: the second marks did not show; -errno of reading. With a sentence. */
int mark_locate(const struct mark_search *search, void *map, uint64_t size, uint64_t *ret_addr, struct failure *failure);

/* Does physical memory at addr show what map[0, size), whole pages, holds, though somebody may be writing to it? 0;
 * -EUCLEAN: it stays different; or -errno of reading. *ret_offset: the page where. */
int mark_compare(mark_read_fn read, void *userdata, const void *map, uint64_t addr, uint64_t size, size_t page_size,
                 uint64_t *ret_offset);

#endif
