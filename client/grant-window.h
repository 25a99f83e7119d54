/* Windows of Xen's guests: memory that the broker's memory domain has granted to this domain, and that it maps itself. */
#ifndef DMAB_CLIENT_GRANT_WINDOW_H
#define DMAB_CLIENT_GRANT_WINDOW_H

#include <stddef.h>
#include <stdint.h>

#include "client/fork.h"

/* `count` pages, by the references from `first` on of the domain. */
struct grant_run {
        uint32_t domain, first, count;
};

/* *file is the caller's, to map `size` bytes of it at 0, shared, in one piece and once; they are mapped until they are
 * unmapped, whether it is closed or not. window: its number, for sentences. -ENOENT: this kernel maps no grants; -EACCES;
 * -EPROTO: they are not as many pages; with a sentence, and the reason source_unavailable. */
int grant_window_open(uint64_t window, const struct grant_run *runs, size_t n, uint64_t size, struct fork_file *file);

/* Open this instead of the kernel's device: for tests. The string must live on. */
void grant_window_set_device(const char *path);

#endif
