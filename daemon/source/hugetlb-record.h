/* What a source of huge pages may not forget when the daemon is killed: how far it has enlarged the kernel's pool, and in
 * which slots of its stash there may be a page. A small file that is mapped and kept; every change is such that a kill at
 * any instruction leaves it true, or says what was about to happen. Not thread-safe. */
#ifndef DMAB_SOURCE_HUGETLB_RECORD_H
#define DMAB_SOURCE_HUGETLB_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core/failure.h"
#include "daemon/source/hugepool.h"
#include "daemon/source/keep.h"

enum record_purpose {
        RECORD_GROWTH,  /* until it is given back */
        RECORD_RESERVE, /* for good */
        RECORD_PURPOSES
};

struct record;

/* The one that is kept, or a new one that is kept from now on, for at least n_slots. What a daemon was doing to the pool
 * when it was killed is settled by looking at the pool. *ret_is_old: it was kept. keep: borrowed, NULL is fine.
 * -EBUSY: it is of pages of another size; -EIO: it is none; -errno. With a sentence. */
int record_open(struct keep *keep, const struct hugepool *pool, size_t n_slots, struct record **ret, bool *ret_is_old,
                struct failure *failure);

/* Returns NULL; NULL is fine. drop: and hold it no more. */
struct record *record_close(struct record *record, bool drop);

/* A byte for each of at least n_slots slots, which belong to the stash. They live as long as the record. */
unsigned char *record_marks(struct record *record);

/* Pages by which the pool is larger because of this source. */
uint64_t record_raised(const struct record *record, enum record_purpose purpose);

/* As hugepool_raise(), and remember it. */
int record_raise(struct record *record, enum record_purpose purpose, uint64_t n, int node, uint64_t *ret_got);
/* As hugepool_lower(), by at most what is remembered. */
int record_lower(struct record *record, enum record_purpose purpose, uint64_t n);

#endif
