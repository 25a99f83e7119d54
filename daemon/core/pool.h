/* What a pool is made of. Private to the pool's own files: slab.c has the blocks and who has them, pool-ask.c the requests
 * for them and the memory, pool.c the pool as a whole, pool-view.c what is told of it, pool-check.c the test of the books.
 *
 * A slab is one allocation, cut into blocks. Nothing of the books lies in it. For each block there is a tag: 0, or the
 * number of its taker. A taker is whoever has blocks: a session that took them one by one, a lease, one answer to a
 * request, or the quarantine. */
#ifndef DMAB_CORE_POOL_H
#define DMAB_CORE_POOL_H

#include "daemon/core/objects.h"

struct slab {
        struct slab *prev, *next; /* in pool->partial or pool->idle */
        struct alloc *alloc;
        uint32_t n, n_free; /* blocks */
        uint32_t hint;      /* no word of `free` before this one has a bit */
        bool rests;   /* blocks of it rest while the pool ends */
        bool dropped; /* until the next slabs_sweep() */
        uint64_t idle_since_ms;
        uint32_t *tags; /* behind `free` */
        uint64_t free[];
};

enum taker_kind { TAKER_SESSION, TAKER_ANSWER, TAKER_LEASE, TAKER_QUARANTINE, TAKER_KINDS };

struct taker {
        struct taker *prev, *next; /* in session->takers */
        UT_hash_handle hh;         /* of a session: in pool->by_session, by session */
        struct pool *pool;
        enum taker_kind kind;
        uint32_t tag;
        uint64_t n; /* blocks */
        struct session *session;
        struct lease *lease;
        struct slab *slab; /* of a lease, also in quarantine: where its run of blocks is */
        uint32_t first;
        struct request_key *key; /* of an answer */
        uint64_t handle;         /* of an answer that is told later, or may be told again */
        struct resting resting;  /* in quarantine ... */
        uint64_t since_ms;       /* ... since */
        size_t n_told;           /* of an answer: its blocks, as they were told */
        uint64_t told[];
};

struct taker_slot {
        struct taker *taker; /* or NULL */
        uint32_t next_free;
};

struct pool {
        struct holder holder;
        struct pool *prev, *next;             /* in device->pools */
        struct pool *spare_prev, *spare_next; /* in broker->spare */
        char *name;
        bool creating; /* nobody can find it yet */
        bool spare;
        uint64_t spare_since_ms;
        uint64_t born_ms;

        /* How a slab is cut: per_chunk blocks from the start of each chunk. */
        uint64_t align, boundary /* 0: none */, slab_size, chunk;
        uint32_t per_chunk, per_slab;
        uint64_t reserve, max_blocks /* 0: none */;
        uint64_t small;   /* the slab that has only small_n blocks, so that there are max_blocks in all; or 0 */
        uint32_t small_n;

        struct slab **slabs; /* sorted by dma address */
        size_t n_slabs, slabs_capacity;
        struct slab *partial, *idle; /* idle: longest first; but one that is smaller than the others comes first */
        uint64_t bytes, n_blocks, n_free, of[TAKER_KINDS], high_water;
        uint64_t allocs, frees, leaked; /* leaked: by the session that ends */

        struct taker_slot *takers; /* by tag - 1 */
        uint32_t n_takers, takers_capacity, first_free; /* first_free: a tag, or 0 */
        struct taker *by_session;

        struct ticket *growth;
        bool growing, grows_high, grow_waits;
        uint64_t n_grows, failed_grow; /* the number of the last attempt, and of the last that failed */
        struct failure grow_failure;   /* of that one */
        bool failed_waited;            /* it had time */
        uint64_t retry_ms;             /* growing failed, and is tried again then; 0: at once */
};

enum { TAG_MARK = 1u << 31 }; /* of a block that is named in the call under way */

static inline struct broker *pool_broker(const struct pool *pool) {
        return pool->holder.device->owner->broker;
}

/* slab.c */
int slab_add(struct pool *pool, struct alloc *alloc, struct failure *failure);
/* An idle slab, or any while the pool ends, is none of the pool's any more; slabs_sweep() frees those, and nothing else is
 * done with the pool before that. */
void slab_drop(struct pool *pool, struct slab *slab);
void slabs_sweep(struct pool *pool);
/* The pool ends: what is in quarantine stays there, see alloc_rest(). */
void slabs_rest(struct pool *pool);
/* Idle slabs down to the reserve, those that are idle since `before` or longer. Bytes. */
uint64_t slabs_drop(struct pool *pool, uint64_t before);
/* The slab that holds a dma address, or NULL. */
struct slab *slab_at(const struct pool *pool, uint64_t dma_addr);
uint64_t block_dma(const struct pool *pool, const struct slab *slab, uint32_t index);
/* -1: between blocks. *ret_exact: it is the first byte. */
int64_t block_index(const struct pool *pool, const struct slab *slab, uint64_t offset, bool *ret_exact);
void block_look(const struct pool *pool, const struct slab *slab, uint32_t index, struct pool_block *ret);
/* NULL: the block is free. */
struct taker *block_taker(const struct pool *pool, const struct slab *slab, uint32_t index);
static inline bool block_free(const struct slab *slab, uint32_t index) {
        return slab->free[index / 64] & UINT64_C(1) << index % 64;
}

/* A session's, or with `answer` one of its own for this many blocks. NULL: out of memory. */
struct taker *taker_get(struct pool *pool, struct session *session, bool answer, size_t n);
/* What it has is not given back. */
void taker_end(struct taker *taker);
/* An answer that is told: nobody asks for it again, its blocks are among the session's. */
void taker_merge(struct taker *answer);
/* It has lost blocks, or its session, and cannot be told again as it was. */
void taker_untell(struct taker *taker);
void taker_release(struct taker *taker);
void taker_quarantine(struct taker *taker);
/* There are that many, and the taker is an answer of its own. */
void blocks_take(struct pool *pool, struct taker *taker, uint64_t n);
/* At least one is free. */
int blocks_lease(struct pool *pool, struct session *session, uint64_t most, struct request_key *key, struct lease **ret,
                 struct failure *failure);
void blocks_lease_ended(struct lease *lease, bool died);
/* One block that was taken one by one. */
void block_release(struct pool *pool, struct slab *slab, uint32_t index);

void answer_save(struct row_writer *row, const struct taker *taker);

/* pool-ask.c */
extern const struct holder_ops pool_ops;
/* The pool's first request: its reserve. */
struct ticket *pool_ask_reserve(struct pool *pool, struct session *session, const struct pool_options *options,
                                struct request_key *key, broker_done_fn done, void *userdata);
void pool_stop_growing(struct pool *pool);

/* pool.c */
/* The caller's own; others' also, if it is an administrator and `any` allows it. */
struct pool *pool_of(const struct caller *caller, uint64_t handle, bool any, struct failure *failure);
/* It is freed; what waits is answered. */
void pool_end(struct pool *pool);
/* Whether it has slabs to give back may have changed. */
void pool_look_spare(struct pool *pool);

#endif
