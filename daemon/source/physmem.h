/* Physical memory, read only, through /proc/kcore: a core file of the running kernel, whose segments say at which physical
 * address each piece of its linear mapping lies. */
#ifndef DMAB_SOURCE_PHYSMEM_H
#define DMAB_SOURCE_PHYSMEM_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/core/failure.h"
#include "daemon/source/mark.h"

struct physmem;

/* Open it, and prove on a page of our own, whose address the page map tells, that what it says of addresses is true. Open
 * it anew for each use: the places in the file change when memory is plugged in. Needs CAP_SYS_RAWIO and CAP_SYS_ADMIN.
 * -errno with a sentence. */
int physmem_open(struct physmem **ret, struct failure *failure);
struct physmem *physmem_close(struct physmem *physmem); /* returns NULL; NULL is fine */

/* Read [addr, addr+size), which must not cross a page. -ENXIO: no memory that the kernel has mapped there. userdata: the
 * struct physmem; a mark_read_fn. */
int physmem_read(void *userdata, uint64_t addr, void *ret, size_t size);

/* All memory there is, borrowed until physmem_close(). */
size_t physmem_ranges(const struct physmem *physmem, const struct mark_range **ret);

#endif
