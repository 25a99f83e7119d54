/* The files of regions that a source finds in the keep when it opens, until each is adopted or given up; and how what a
 * source keeps is named. Not thread-safe. */
#ifndef DMAB_SOURCE_KEPT_H
#define DMAB_SOURCE_KEPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/source/keep.h"

struct kept_region {
        uint64_t id;
        int fd; /* -1: adopted */
        uint64_t bytes; /* the source's own */
};

struct kept {
        struct keep *keep;  /* borrowed; NULL: nothing is kept */
        const char *source; /* what all names begin with; static */
        struct kept_region *regions; /* by id */
        size_t n;
};

/* "SOURCE-WHAT-ID", e.g. hugetlb-region-17. Returns name. */
const char *kept_name(const char *source, const char *what, uint64_t id, char name[static KEEP_NAME_MAX + 1]);

/* Take all regions of this source; others of its names stay. -ENOMEM: then none was taken. */
int kept_init(struct keep *keep, const char *source, struct kept *ret);

/* Close the files that nobody has adopted. drop: and hold them no more. */
void kept_deinit(struct kept *kept, bool drop);

/* The region of this id, which stays listed until its fd is set to -1 by whoever adopts it. NULL: there is none. */
struct kept_region *kept_find(const struct kept *kept, uint64_t id);

/* Hold the file of a region that is made now, fd, as `what` of this id; or hold it no more. As keep_put() and
 * keep_drop(), but 0 instead of 1: that nothing is held any more has been told, and the daemon goes on without; and -EMFILE
 * instead of -ENOSPC, which sources know as another thing. */
int kept_put(const struct kept *kept, const char *what, uint64_t id, int fd);
void kept_drop(const struct kept *kept, const char *what, uint64_t id);

/* The daemon's answer to kept_put() that failed: a sentence. Returns r. */
int kept_fail(int r, uint64_t size, struct failure *failure);

#endif
