/* Long-term pins: pages that the kernel must neither move nor reclaim, held as io_uring's registered buffers. */
#ifndef DMAB_SOURCE_PIN_H
#define DMAB_SOURCE_PIN_H

#include <stddef.h>

struct pin;

/* Whether pinning works here at all. 0; -EOPNOTSUPP: this build has no liburing; -ENOSYS, -EPERM: the kernel has no
 * io_uring, or does not let this process use it. */
int pin_probe(void);

/* Pin the pages mapped at [at, at+size), both multiples of the page size. The mapping may go while the pin stays.
 * -ENOMEM also when RLIMIT_MEMLOCK does not allow it, -EFAULT when a page cannot be had, -EMFILE. */
int pin_new(void *at, size_t size, struct pin **ret);

/* The pages are free of this pin when it returns. Returns NULL; NULL is fine. */
struct pin *pin_free(struct pin *pin);

#endif
