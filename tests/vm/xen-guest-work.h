/* What a guest of Xen's does by way of the library, and with the channel behind its back. Each answers with one line. */
#ifndef DMAB_TESTS_VM_XEN_GUEST_WORK_H
#define DMAB_TESTS_VM_XEN_GUEST_WORK_H

#include <stdbool.h>
#include <stdint.h>

/* The frames of what is at that address, as the page tables have it: the first, and how many runs of neighbours there are. */
uint64_t guest_frames(const void *memory, uint32_t pages, unsigned *ret_runs);

/* false: that is no such command. */
bool guest_work(const char *line);

#endif
