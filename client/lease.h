/* The leases of a pool: spans of its blocks that the daemon has given to this session, and which of them are idle. And the
 * slabs: what is known of the pages they lie in, found by any address in them.
 *
 * Everything here is called with the pool's lock held, unless it says otherwise. */
#ifndef DMAB_CLIENT_LEASE_H
#define DMAB_CLIENT_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "client/magazine.h"
#include "client/memory.h"

struct dmab;
struct dmab_pool;
struct region;

/* Pages of leases of one pool. Never freed before the session ends: a pointer that was freed is looked up like any other. */
struct slab {
        struct piece piece;
        struct slab *next; /* in dmab->spare_slabs */
        struct slab *next_of_all; /* in dmab->slabs */
        unsigned users;    /* leases that lie in it */
        bool any;          /* of a size class of dmab_alloc() */
        /* The slabs of the same pool that lie around this one without a gap, with the same delta. Atomic: while it changes, a
         * reader may see more or less than there is. */
        uintptr_t span_start;
        size_t span_size;
};

struct lease {
        TAILQ_ENTRY(lease) entry; /* in one of the lists of struct lease_table */
        uint64_t number;
        struct region *region; /* it has one user more for this */
        uintptr_t start;       /* the CPU's address of the first block */
        uint64_t delta;
        size_t count, n_idle;
        size_t hint; /* words of idle before this one are 0 */
        uint64_t idle[]; /* bitmap */
};
TAILQ_HEAD(lease_list, lease);

/* Zeroed and lease_table_init(). */
struct lease_table {
        struct lease **sorted; /* by start */
        size_t n, room;
        struct lease_list full;    /* no idle block */
        struct lease_list partial; /* some: taken from first */
        struct lease_list idle;    /* nothing but */
        size_t blocks, n_idle;     /* of all */
};

void lease_table_init(struct lease_table *table);

/* A lease with all its blocks idle. region is consumed on success. -ENOMEM or -EPROTO with a sentence. */
int lease_add(struct dmab_pool *pool, uint64_t number, struct region *region, void *start, dmab_addr_t dma, size_t count);

/* Take n idle blocks; there must be as many. Their states become what is said: BLOCK_FREE for a magazine. */
void lease_take(struct dmab_pool *pool, size_t n, enum block_state state, void **ret_vaddrs, dmab_addr_t *ret_dmas);

/* A block is idle again; its state must be BLOCK_FREE. *hint: NULL, or what the last call left there. False: no lease has
 * it. */
bool lease_put(struct dmab_pool *pool, void *vaddr, struct lease **hint);

/* Take a lease of which all blocks are idle out of the books, if there is one; it is the caller's to lease_free(). */
struct lease *lease_pick_idle(struct dmab_pool *pool);

/* Take any lease out of the books, or NULL. */
struct lease *lease_pick_any(struct dmab_pool *pool);

/* Without the pool's lock: it unmaps. */
void lease_free(struct dmab *dmab, struct lease *lease);

/* Call fn for each block that is not idle, until it returns something else than 0. */
int lease_visit_busy(const struct dmab_pool *pool, int (*fn)(void *vaddr, dmab_addr_t dma, void *userdata), void *userdata);

void lease_table_deinit(struct lease_table *table);

/* The pool ends: what is left of its slabs, where others' memory has come to lie on them. Without a lock. */
void slabs_sweep(struct dmab_pool *pool);

/* When the session ends. */
void slabs_deinit(struct dmab *dmab);

#endif
