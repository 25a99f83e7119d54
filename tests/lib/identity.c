#include "tests/lib/identity.h"

#include <errno.h>
#include <grp.h>
#include <unistd.h>

int test_identity_assume(const struct test_identity *identity) {
        if (setgroups(identity->n_groups, identity->groups) < 0)
                return -errno;
        if (setresgid(identity->gid, identity->gid, identity->gid) < 0)
                return -errno;
        if (setresuid(identity->uid, identity->uid, identity->uid) < 0)
                return -errno;
        return 0;
}
