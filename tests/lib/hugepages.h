/* 2 MiB huge pages for a test. What a test changes is put back when it ends, however it ends, SIGKILL included. */
#ifndef DMAB_TESTS_LIB_HUGEPAGES_H
#define DMAB_TESTS_LIB_HUGEPAGES_H

#include <stddef.h>

/* Make sure that at least n pages are free, until this process ends; tests that call this run one after the other.
 * 0; -EPERM: not root; -EACCES: pagemap shows no machine addresses here; -ENOMEM: the system has not that many;
 * -ENOENT: it has no 2 MiB pages; -ETIMEDOUT: another test kept them for minutes. Call it once, before any fork(). */
int test_hugepages_reserve(size_t n);

/* The same, but on failure it prints why and ends the process with 77, which the test driver takes for "skipped". */
void test_hugepages_reserve_or_skip(size_t n);

/* Now free in the system. */
size_t test_hugepages_free(void);

/* Now taken by somebody, whatever becomes of the total. */
size_t test_hugepages_used(void);

#endif
