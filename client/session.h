/* What a dmab_t and a dmab_device_t are, for the files that make them up. */
#ifndef DMAB_CLIENT_SESSION_H
#define DMAB_CLIENT_SESSION_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/link.h"
#include "client/memory.h"
#include "client/region.h"
#include "include/dmabroker.h"

struct agent;
struct any_classes;
struct allocation; /* coherent.c */
struct slab;       /* lease.h */
struct streaming;  /* streaming.c */

struct dmab {
        struct link *link;
        unsigned forks;       /* fork_count() when it was made */
        pthread_mutex_t lock; /* guards all below */
        struct memory memory; /* read without the lock */
        struct region_table regions;
        struct allocation *allocations, *swapped, *spare_allocations;
        struct dmab_device *devices;
        struct dmab_grant *grants;
        pthread_mutex_t pools_lock; /* guards the list of pools; taken before any pool's lock */
        struct dmab_pool *pools;
        struct slab *slabs, *spare_slabs;
        struct agent *agent; /* NULL: nobody has needed it yet; set once; atomic */
        bool lost;          /* the daemon has forgotten the session; atomic */
        bool fresh_regions; /* the last allocation lay in a region that was not mapped yet; atomic */
};

struct dmab_device {
        struct dmab *dmab;
        struct dmab_device *next, **pprev; /* in dmab->devices */
        uint64_t handle;
        unsigned wait_ms;
        char *name, *translation, *via;
        bool closing; /* by force: its memory may be somebody else's already; guarded by the session's lock */
        uint64_t mask; /* atomic */
        uint64_t boundary, max_segment, min_align_mask; /* 0: none */
        struct streaming *streaming;
        struct any_classes *classes; /* of dmab_alloc(), any.c; NULL: none yet; atomic */
};

/* 0, or -EINVAL with a sentence in the child of a fork: every public function asks this first. */
int session_check(const struct dmab *dmab);

/* The daemon does not know the session any more: what it has given must not be used for anything new. Not with the lock
 * of a pool held. Keeps the last error. */
void session_lost(struct dmab *dmab);

/* Unmap and forget every allocation of a device, or of all when device is NULL, without a word to the daemon. */
void coherent_forget(struct dmab *dmab, const struct dmab_device *device);

/* Free what is left of allocations that have ended. */
void coherent_deinit(struct dmab *dmab);

/* Unmap every grant, without a word to the daemon. */
void grants_forget(struct dmab *dmab);

/* Take a device off its session and free it. */
void device_forget(struct dmab_device *device);

/* Copy a caller's struct that begins with its size into known, of which the size is known_size: members that the
 * caller's version does not have stay as they are; -E2BIG when it has members, not 0, that this one does not know.
 * -EINVAL: no size. */
int session_copy_struct(void *known, size_t known_size, const void *given, const char *what);

#endif
