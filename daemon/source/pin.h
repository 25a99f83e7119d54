/* Pages that the kernel must neither move nor reclaim: each is in a pipe, into which one byte of it was vmspliced. The
 * kernel moves no page that somebody else has a reference to, and a pipe is a descriptor that can outlive the process, as
 * io_uring's registered buffers, say, cannot: the pages stay pinned also while there is no daemon. */
#ifndef DMAB_SOURCE_PIN_H
#define DMAB_SOURCE_PIN_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/source/kept.h"

struct pin;

/* Whether pinning works here at all. 0; -ENOSYS, -EPERM: this process may not use vmsplice(). */
int pin_probe(void);

/* Pin the pages mapped at [at, at+size), of page_size each. The mapping may go while the pin stays. -EFAULT when a page
 * cannot be had, -EMFILE, -ENOMEM. */
int pin_new(void *at, uint64_t size, uint64_t page_size, struct pin **ret);

/* The pages are free of this pin when it returns, whoever holds its pipes as well. Returns NULL; NULL is fine. */
struct pin *pin_free(struct pin *pin);

/* Forget the pin; the pages stay pinned as long as its pipes are held elsewhere. Returns NULL; NULL is fine. */
struct pin *pin_leave(struct pin *pin);

/* Hold the pipes beyond the daemon's end, under the region's id. On failure none is held. As kept_put(). */
int pin_keep(const struct pin *pin, const struct kept *kept, uint64_t id);
/* And hold them no more. NULL is fine. */
void pin_drop(const struct pin *pin, const struct kept *kept, uint64_t id);
/* The pin of this id that an earlier daemon has left; it stays held. -ENOENT: there is none; -ENOMEM. */
int pin_take(const struct kept *kept, uint64_t id, struct pin **ret);
/* How many pages it has. */
uint64_t pin_pages(const struct pin *pin);

#endif
