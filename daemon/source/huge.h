/* Files of huge pages, page by page, with the machine address of each. */
#ifndef DMAB_SOURCE_HUGE_H
#define DMAB_SOURCE_HUGE_H

#include <stdint.h>

/* What all files of huge pages of a source share. */
struct huge {
        uint64_t page_size;
        int pagemap_fd; /* pagemap_open() */
        int zero_fd;    /* /dev/zero, to write to mappings without ever touching them */
};

/* A file of huge pages of `size` bytes, without pages, CLOEXEC and open to sealing. -errno. */
int huge_make_file(const struct huge *huge, const char *name, uint64_t size);

/* Map it, without claiming pages for its holes, and not for processes that are forked. -errno. */
int huge_map(int fd, uint64_t size, void **ret);

/* Get a page from the kernel for [offset, offset+page_size) of the file mapped at `map`, zeroed by it, and say which one
 * it is. -ENOSPC: the kernel has none; -EPERM: pagemap hides it; the file then has no page there. */
int huge_fill(const struct huge *huge, int fd, void *map, uint64_t offset, uint64_t *ret_addr);

/* The pages that the file has. -errno. */
int huge_count(const struct huge *huge, int fd, uint64_t *ret);

/* See to it that the page at `at`, in a mapping whose pages others may take away, is in the page tables, without changing
 * it. A hole gets a page if the kernel has one. -EFAULT: it has none. */
int huge_touch(void *at);

/* Give the page there back to the kernel. It reaches the kernel's free list only when nobody holds it any more. */
int huge_punch(const struct huge *huge, int fd, uint64_t offset, uint64_t size);

/* Zero a part of a mapping whose pages others may take away at any time: never a signal, always an errno (-EFAULT). */
int huge_zero(const struct huge *huge, void *at, uint64_t size);

#endif
