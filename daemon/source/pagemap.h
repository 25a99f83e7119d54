/* The kernel's page map of this process: the only place where user space learns machine addresses. */
#ifndef DMAB_SOURCE_PAGEMAP_H
#define DMAB_SOURCE_PAGEMAP_H

#include <stdint.h>

/* Open the page map with the rights that there are now: pagemap_open() then gives copies of it, also when these rights
 * have been given up. Before there are threads, and once; -errno of open(2). */
int pagemap_prepare(void);
/* Close that one; descriptors from pagemap_open() stay. When there are no other threads any more. */
void pagemap_finish(void);

/* A descriptor for pagemap_read(), to be closed by the caller and good in this process only. -errno of open(2). */
int pagemap_open(void);

/* The machine address of the byte at `at`. 0; -ENOENT: no page is mapped there now (nothing is faulted in for asking);
 * -EPERM: the kernel hides page frames from whoever opened the descriptor; or -errno of the read. Thread-safe. */
int pagemap_read(int fd, const void *at, uint64_t *ret_addr);

#endif
