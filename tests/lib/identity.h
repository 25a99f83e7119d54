/* Who a child process of a test shall be. */
#ifndef DMAB_TESTS_LIB_IDENTITY_H
#define DMAB_TESTS_LIB_IDENTITY_H

#include <stddef.h>
#include <sys/types.h>

struct test_identity {
        uid_t uid;
        gid_t gid;
        const gid_t *groups; /* supplementary groups; none when n_groups is 0 */
        size_t n_groups;
};

/* Become it, for good: only in a child. 0 or -errno. */
int test_identity_assume(const struct test_identity *identity);

#endif
