/* What must be known after the daemon's death, as the core tells it to whoever can write it down: the table of operations
 * that a ledger offers. Everything that the core has promised is a row, named by its kind and a number. The core tells of
 * rows that are new or have changed, and of those that are no more; what it told since the last commit becomes true all at
 * once, or not at all. Nothing is answered, and no memory moves, before the commit of what it follows from.
 *
 * A row whose parent is no more is void: the lease of a pool that has ended need not be dropped by itself.
 *
 * Calls happen on the loop's thread. */
#ifndef DMAB_CORE_LEDGER_H
#define DMAB_CORE_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core/failure.h"

enum { LEDGER_VERSION = 1 };

/* In the order in which they are read: parents first. */
enum row_kind {
        ROW_BROKER,  /* the numbers that are not reused; id 0 */
        ROW_OWNER,   /* by the owner's id */
        ROW_SESSION, /* by the session's id */
        ROW_DEVICE,  /* these are by handle */
        ROW_REGION,
        ROW_POOL,
        ROW_BOUNCE,
        ROW_ALLOC,
        ROW_LEASE,
        ROW_MAPPING,
        ROW_ANSWER,  /* blocks that can be told again for their request_key */
        ROW_BLOCK,   /* of a pool, taken but not leased, or in quarantine; by machine address, as the following are */
        ROW_REST,    /* slots of a bounce pool that rest */
        ROW_RESTING, /* an allocation that rests, nobody's any more */
        ROW_BAR,     /* what of a region may be somebody's; by the region's handle */
        ROW_GRANT,   /* by handle */
        ROW_KINDS
};

struct ledger;

/* -errno ends the visit, which returns it. The bytes live until then. */
typedef int (*row_visit_fn)(void *userdata, uint64_t id, const void *bytes, size_t size);
/* The same with the kind. */
typedef int (*row_read_fn)(void *userdata, enum row_kind kind, uint64_t id, const void *bytes, size_t size);

struct ledger_ops {
        /* Nothing is written yet. -ENOMEM: it has not been noted. */
        int (*put)(struct ledger *ledger, enum row_kind kind, uint64_t id, const void *bytes, size_t size);
        int (*drop)(struct ledger *ledger, enum row_kind kind, uint64_t id);
        /* Whether anything has been put or dropped since the last commit. */
        bool (*is_dirty)(const struct ledger *ledger);
        /* 0: what was put and dropped is true whatever happens to this process. -errno: nothing of it is; it is kept for the
         * next attempt. */
        int (*commit)(struct ledger *ledger);
        /* 0, or why nothing more can be promised: what is there already can be given back even so. last: half of the room that
         * is left for giving back will do. */
        int (*room)(struct ledger *ledger, bool last, struct failure *failure);
        /* It has nothing to go on with: everything must be told first, as if it had grown, and alone. */
        bool (*is_blank)(const struct ledger *ledger);
        /* It has grown so much that it should be written anew. */
        bool (*wants_rewrite)(const struct ledger *ledger);
        /* From here on the core tells every row that there is, beside what changes; then rewrite_end(), which the next commit
         * makes true. alone: what was told before is not needed, and not to be trusted, once that commit is done. */
        int (*rewrite_begin)(struct ledger *ledger, bool alone);
        int (*rewrite_end)(struct ledger *ledger);
        /* What an earlier daemon left, before anything is put. */
        int (*visit)(struct ledger *ledger, enum row_kind kind, row_visit_fn visit, void *userdata);
        /* Part of what an earlier daemon left cannot be read: rows may be missing, and others be out of date. */
        bool (*is_damaged)(const struct ledger *ledger);
        /* The memory of this source's regions is gone, whatever is told of it: nobody has kept it. */
        bool (*is_void)(const struct ledger *ledger, const char *source);
        /* For a check: every row that another daemon would find if this one died now, in any order. Takes as long as reading
         * all of it takes. -EBADMSG: it could not be read without damage; -errno, also from `read`, which ends it. */
        int (*read_back)(struct ledger *ledger, row_read_fn read, void *userdata);
};

struct ledger {
        const struct ledger_ops *ops; /* first member of what it is */
};

#endif
