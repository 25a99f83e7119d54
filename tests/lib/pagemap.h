/* A reader of the kernel's page map for tests, written apart from the daemon's own so that one can prove the other. */
#ifndef DMAB_TESTS_LIB_PAGEMAP_H
#define DMAB_TESTS_LIB_PAGEMAP_H

#include <stdbool.h>
#include <stdint.h>

/* The machine address of the byte at `at`, which must have been touched through this mapping by the caller. 0 when no
 * page is mapped there, when the kernel hides page frame numbers from this process, or when /proc cannot be read. */
uint64_t pagemap_machine_address(const volatile void *at);

/* Whether this process is shown page frame numbers at all (CAP_SYS_ADMIN): a test that needs them skips otherwise. */
bool pagemap_is_readable(void);

#endif
