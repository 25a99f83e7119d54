/* Magazines: the free blocks of a pool that one thread keeps at hand. The thread takes from its magazine and puts into it
 * with plain loads and stores, no lock and no atomic read-modify-write.
 *
 * Who else needs the blocks takes them away (magazines_seize()) at no cost to the thread: it stores `drain`, has the kernel
 * run a barrier on every thread of the process (membarrier(2)), and waits until the thread is not `busy`. From then on the
 * thread finds `drain` set and takes the pool's lock instead. A magazine is its thread's while drain is 0, and the holder's
 * of the pool's lock when it is MAGAZINE_SEIZED. Where the kernel refuses the barrier, as to a process that has locked itself in
 * since, it stays between both, and nobody touches what is in it.
 *
 * Blocks put in one by one have their state set to BLOCK_FREE, so that a second free is found out. Blocks put in in bulk
 * have not: looking 32 of them up takes ten times as long as moving them. They are marked when a single one is put above
 * them, and when they leave the magazine for the pool. */
#ifndef DMAB_CLIENT_MAGAZINE_H
#define DMAB_CLIENT_MAGAZINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "client/shadow.h"
#include "include/dmabroker.h"

struct dmab_pool;

enum { MAGAZINE_MAX = 256, MAGAZINE_PAD = 8 /* so that the arrays do not alias in the cache */ };

enum magazine_drain {
        MAGAZINE_WANTED = 1, /* its thread may not know yet */
        MAGAZINE_SEIZED,     /* what is in it is the holder's of the pool's lock */
};

struct magazine {
        uint32_t n;      /* blocks in it */
        uint32_t limit;  /* to which single ones are put in: size while all blocks are marked, else 0 */
        uint32_t size;   /* the most */
        uint32_t marked; /* when limit is 0: so many of the first are; may be more than n */
        uint32_t busy;   /* the thread is at work on it */
        uint32_t drain;  /* enum magazine_drain; not 0: others need it, leave it alone */
        uint64_t refills, flushes;
        struct magazine *next; /* in pool->magazines */
        struct dmab_pool *pool;
        struct magazine_table *table;
        void *vaddrs[MAGAZINE_MAX + MAGAZINE_PAD];
        dmab_addr_t dmas[MAGAZINE_MAX + MAGAZINE_PAD];
};

/* A thread's magazines, by the slots of their pools. */
struct magazine_table {
        uint32_t n;
        struct magazine_table *next, **pprev; /* in the list of all threads' */
        struct magazine *magazines[];
};

/* The calling thread's; never NULL, and empty in a thread that has none. Not exported, and in the static block of thread-local
 * storage: reached without a call. */
extern __thread struct magazine_table *magazine_table __attribute__((visibility("hidden"), tls_model("initial-exec")));

#define magazine_load(at) __atomic_load_n(at, __ATOMIC_RELAXED)
#define magazine_store(at, value) __atomic_store_n(at, value, __ATOMIC_RELAXED)

/* The thread's magazine of the pool with that slot, or NULL. */
static inline struct magazine *magazine_find(uint32_t slot) {
        const struct magazine_table *table = magazine_table;

        return slot < table->n ? table->magazines[slot] : NULL;
}

/* Mark the magazine busy. False: somebody needs it; it is not busy then. */
static inline bool magazine_begin(struct magazine *magazine) {
        magazine_store(&magazine->busy, 1);
        __atomic_signal_fence(__ATOMIC_SEQ_CST); /* the barrier of the one who sets drain does the rest */
        if (__builtin_expect(!__atomic_load_n(&magazine->drain, __ATOMIC_ACQUIRE), 1))
                return true;
        __atomic_store_n(&magazine->busy, 0, __ATOMIC_RELEASE);
        return false;
}

static inline void magazine_end(struct magazine *magazine) {
        __atomic_store_n(&magazine->busy, 0, __ATOMIC_RELEASE);
}

/* One block, from a magazine that is begun and not empty. */
static inline void magazine_pop(struct magazine *magazine, const struct shadow *shadow, void **ret_vaddr,
                                dmab_addr_t *ret_dma) {
        uint32_t n = magazine_load(&magazine->n) - 1;
        void *vaddr = magazine->vaddrs[n];

        magazine_store(shadow_state_sure(shadow, vaddr), BLOCK_BUSY);
        *ret_vaddr = vaddr;
        *ret_dma = magazine->dmas[n];
        magazine_store(&magazine->n, n);
}

/* Into a magazine that is begun and has less than its limit. */
static inline void magazine_push(struct magazine *magazine, void *vaddr, dmab_addr_t dma, uint8_t *state) {
        uint32_t n = magazine_load(&magazine->n);

        magazine->vaddrs[n] = vaddr;
        magazine->dmas[n] = dma;
        magazine_store(state, BLOCK_FREE);
        magazine_store(&magazine->n, n + 1);
}

/* How many of the first are marked. */
static inline uint32_t magazine_marked(const struct magazine *magazine) {
        uint32_t n = magazine_load(&magazine->n);

        return magazine->limit || magazine->marked > n ? n : magazine->marked;
}

/* n pointers or addresses, without a call: for the compiler, the size of a piece is known. */
static inline void magazine_copy(void *to, const void *from, size_t n) {
        enum { PIECE = 8 };
        size_t i = 0;

        for (; i + PIECE <= n; i += PIECE)
                memcpy((uint64_t *)to + i, (const uint64_t *)from + i, PIECE * sizeof(uint64_t));
        for (; i < n; i++)
                memcpy((uint64_t *)to + i, (const uint64_t *)from + i, sizeof(uint64_t));
}

/* n of them, from a magazine that is begun and has as many. */
static inline void magazine_pop_bulk(struct magazine *magazine, const struct shadow *shadow, size_t n, void **ret_vaddrs,
                                     dmab_addr_t *ret_dmas) {
        uint32_t rest = magazine_load(&magazine->n) - n, marked = magazine_marked(magazine);

        for (uint32_t i = rest; i < marked; i++)
                magazine_store(shadow_state_sure(shadow, magazine->vaddrs[i]), BLOCK_BUSY);
        magazine_copy(ret_vaddrs, magazine->vaddrs + rest, n);
        magazine_copy(ret_dmas, magazine->dmas + rest, n);
        if (rest <= marked)
                magazine->limit = magazine->size;
        magazine_store(&magazine->n, rest);
}

/* Get a slot for a pool that is made, or give it back. -ENOMEM, without a sentence. */
int magazine_slot_take(uint32_t *ret);
void magazine_slot_release(uint32_t slot);

/* The calling thread's magazine of the pool, made now if it has none. NULL: there is no memory for one, or the kernel has
 * no membarrier(2); the thread then uses the pool's lock every time. Not with the pool's lock held. */
struct magazine *magazine_make(struct dmab_pool *pool);

/* Whether threads can have magazines at all. */
bool magazines_possible(void);

/* Take all magazines of the pool away from their threads, with the pool's lock held, until magazines_release(). Their blocks
 * stay in them. Those that are MAGAZINE_SEIZED then are the caller's. */
void magazines_seize(struct dmab_pool *pool);
/* Let the threads use them again. With the pool's lock held. */
void magazines_release(struct dmab_pool *pool);

/* Free the magazines of a pool that ends, and what they hold. Without the pool's lock. */
void magazines_drop(struct dmab_pool *pool);

#endif
