/* What a dmab_pool_t is, for the files that make it up:
 *
 *   pool.c      making and ending pools
 *   pool-info.c telling about them
 *   block.c     taking and giving blocks: the fast path, and what it leads to when it cannot go on
 *   lease.c     the leases that the blocks come from, and which of their blocks are idle
 *   refill.c    getting leases from the daemon, waiting for blocks, and giving leases back
 *   magazine.c  what threads keep at hand
 *   inspect.c   what is checked and said when something is wrong
 *
 * Locks are taken in this order: the session's pools_lock, the one of all threads' magazines (magazine.c), a pool's, then the
 * session's or the agent's. No call to the daemon is made with any of them held. */
#ifndef DMAB_CLIENT_POOL_H
#define DMAB_CLIENT_POOL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "client/agent.h"
#include "client/lease.h"
#include "client/magazine.h"
#include "client/session.h"
#include "client/shadow.h"
#include "include/dmabroker.h"

enum { DELTA_MIXED = 1 }; /* no block has it: both addresses are multiples of 8 */

struct waiter;
TAILQ_HEAD(waiter_list, waiter);

/* A lease that is asked for, and may be asked for again. */
struct lease_wish {
        uint64_t number; /* of the pool */
        size_t count;
        bool high, fd;
        char key[LINK_KEY_SIZE];
};

struct dmab_pool {
        /* Set when it is made, read on every path. */
        struct dmab *dmab;
        struct dmab_device *device;
        const struct memory *memory;
        uint32_t slot;
        struct shadow shadow; /* what it covers is set with the first lease */
        uint64_t delta;       /* of all leases; DELTA_MIXED: they differ, or there is none. Atomic */
        size_t block_size; /* from one block's start to the next's */
        size_t size;       /* of it, what is the user's: the rest is a red zone */
        bool debug;    /* DMAB_DEBUG: no magazines, everything is checked */
        bool opened;   /* made by somebody else, who ends it */
        bool any;      /* a size class of dmab_alloc() */
        size_t thread_blocks;
        size_t max_blocks; /* 0: no limit */
        size_t lease_most; /* blocks of one lease */
        char *name;

        pthread_mutex_t lock __attribute__((aligned(64))); /* guards all below */
        uint64_t number; /* in the protocol; 0: it sleeps (pool_sleep()) */
        int dead; /* -ESTALE: the daemon has forgotten the session */
        bool ending; /* by force: its memory may be somebody else's already; guarded by the session's lock */
        bool retired; /* its class has another pool now: what it has is given back, and not given out */
        struct lease_table leases;
        size_t n_slabs; /* guarded by the session's lock */
        struct magazine *magazines;
        unsigned n_magazines;
        size_t lease_next;           /* blocks to ask for next time */
        struct waiter_list waiters;  /* first come first */
        struct agent_call asking;    /* for the first of them */
        struct lease_wish wish;      /* what it asks for */
        bool is_asking;
        uint64_t asked_for; /* the turn of the waiter that it was for */
        struct watch watch;
        size_t high_water;
        uint64_t refills, flushes; /* of threads that have ended */
        uint64_t leases_taken, recalls, failures, waits;
        struct dmab_pool *next, **pprev; /* in dmab->pools; guarded by its pools_lock */
        struct dmab_pool *next_retired;  /* of the same device; any.c's */
};

/* Whether threads may keep blocks at hand: not while others wait. With the pool's lock held. */
static inline bool pool_is_at_ease(const struct dmab_pool *pool) {
        return TAILQ_EMPTY(&pool->waiters) && !pool->dead && !pool->retired;
}

/* ---- pool.c ---- */

/* dmab_pool_create(); any: as a class of dmab_alloc(). */
int pool_create(const char *name, struct dmab_device *device, size_t size, size_t align, size_t boundary,
                const struct dmab_pool_options *options, bool any, struct dmab_pool **ret);

/* Blocks that threads have at hand, and blocks that are in use. With the pool's lock held. */
size_t pool_at_hand(const struct dmab_pool *pool);
size_t pool_used(const struct dmab_pool *pool);

/* Give a size class back to the daemon, while other threads may go on to use it: it is made again then. -EBUSY. */
int pool_sleep(struct dmab_pool *pool);
/* Its number in the daemon, where it is made again if it sleeps. Without the pool's lock. */
int pool_wake(struct dmab_pool *pool, uint64_t *ret_number);
/* The daemon has no pool of that number any more: it sleeps, unless it has woken up already. */
void pool_slept(struct dmab_pool *pool, uint64_t number);

/* From now on whatever comes back goes to the daemon. Other threads may be about to take a block all the same. */
void pool_retire(struct dmab_pool *pool);

/* -EBUSY with a sentence if the device has a user's pool left, or memory of dmab_alloc(). */
int pools_check_closing(struct dmab_device *device);

/* End the pools of a device, or of all when device is NULL, without a word to the daemon. */
void pools_forget(struct dmab *dmab, const struct dmab_device *device);

/* Tell on standard error what they leave behind, with DMAB_DEBUG. */
void pools_report(struct dmab *dmab, const struct dmab_device *device, const char *when);

/* In the child of a fork, of which no other thread can hold their locks. */
void pools_disown(struct dmab *dmab);

/* The daemon no longer knows the session: no block is handed out any more. */
void pools_session_lost(struct dmab *dmab);

/* ---- block.c ---- */

int block_alloc(struct dmab_pool *pool, unsigned flags, void **ret_vaddr, dmab_addr_t *ret_dma);
int block_free(struct dmab_pool *pool, void *vaddr, dmab_addr_t dma);

/* Take the blocks of all magazines into the leases, with the pool's lock held. The magazines stay seized while threads
 * wait. */
void pool_gather(struct dmab_pool *pool);

/* Put one magazine's blocks but `keep` into the leases, with the pool's lock held and the magazine seized or one's own. */
void pool_flush(struct dmab_pool *pool, struct magazine *magazine, uint32_t keep);

/* ---- refill.c ---- */

/* n blocks, from the leases that there are, from the daemon, from other threads' magazines, or by waiting, as flags say.
 * Without the pool's lock. With a sentence. */
int refill_take(struct dmab_pool *pool, unsigned flags, size_t n, void **ret_vaddrs, dmab_addr_t *ret_dmas);

/* Give blocks to those who wait. With the pool's lock held. */
void refill_serve(struct dmab_pool *pool);

/* Everyone who waits fails with dead's sentence. With the pool's lock held. */
void refill_fail_all(struct dmab_pool *pool);

/* -ESTALE with a sentence. */
int refill_dead(const struct dmab_pool *pool);

/* Give leases back that are not used: all but `keep` blocks. Without the pool's lock. */
void refill_give_back(struct dmab_pool *pool, size_t keep);

/* Give back a lease that is out of the books, and free it. Without the pool's lock. */
void refill_return(struct dmab_pool *pool, struct lease *lease);

/* How many idle blocks a pool keeps. With the pool's lock held. */
size_t refill_keep(const struct dmab_pool *pool);

/* Stop asking on behalf of waiters; none may be there. And listen to the daemon again, for the pool with that number. */
void refill_stop(struct dmab_pool *pool);
void refill_go_on(struct dmab_pool *pool, uint64_t number);

/* The daemon wants leases back (struct watch). */
void refill_recalled(struct watch *watch, uint64_t bytes);

/* ---- inspect.c ---- */

/* Is DMAB_DEBUG set to something else than "" and "0"? */
bool inspect_wanted(void);

/* Why a free is refused, as a sentence. Returns -errno, or 0 when there is nothing wrong with it. */
int inspect_free(const struct dmab_pool *pool, const void *vaddr, dmab_addr_t dma);

/* With pool->debug. A block that is given out is filled, one that comes back is poisoned, and both are checked: a
 * complaint goes to standard error. inspect_red_zone(): -EFAULT with a sentence. */
void inspect_given(const struct dmab_pool *pool, void *vaddr, dmab_addr_t dma, bool zero);
void inspect_returned(const struct dmab_pool *pool, void *vaddr, dmab_addr_t dma);
void inspect_poison(const struct dmab_pool *pool, void *vaddr);

/* A block was given back twice in bulk, which was found out when it left the thread's magazine. */
void inspect_late(const struct dmab_pool *pool, const void *vaddr, bool none);

/* Tell on standard error which blocks are left, with DMAB_DEBUG. With the pool's lock held and its magazines gathered. */
void inspect_leaks(const struct dmab_pool *pool, const char *when);

#endif
