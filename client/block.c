/* Blocks of pools: taken from the thread's magazine and put back there, with neither lock nor system call; and what must be
 * done when the magazine is empty, full, or not the thread's at the moment. */
#include <errno.h>
#include <stdlib.h>

#include "client/error.h"
#include "client/pool.h"

#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)

/* DMAB_NOWAIT or DMAB_WAIT or neither, with or without DMAB_HIGH, and nothing else: bits of what flags can be. */
static inline bool flags_are_plain(unsigned flags) {
        return flags < 8 && 0x77 >> flags & 1;
}

/* ---- between magazines and leases ---- */

/* Mark what came in in bulk, as far as it is the pool's and not in it already. With the magazine begun, or seized. */
static void __attribute__((noinline)) mark(const struct dmab_pool *pool, struct magazine *magazine) {
        uint32_t n = magazine_load(&magazine->n), i = magazine->marked < n ? magazine->marked : n;

        while (i < n) {
                struct piece *piece;
                uint8_t *state = slab_state(pool->memory, pool, pool->granule_shift, magazine->vaddrs[i], &piece);

                if (likely(state && magazine_load(state) == BLOCK_BUSY)) {
                        magazine_store(state, BLOCK_FREE);
                        magazine->states[i++] = state;
                        continue;
                }
                inspect_late(pool, magazine->vaddrs[i], !state || magazine_load(state) == BLOCK_NONE);
                n--;
                magazine->vaddrs[i] = magazine->vaddrs[n];
                magazine->dmas[i] = magazine->dmas[n];
        }
        magazine->marked = n;
        magazine_store(&magazine->n, n);
}

/* The ones that were put in first: they are the coldest. */
void pool_flush(struct dmab_pool *pool, struct magazine *magazine, uint32_t keep) {
        struct lease *hint = NULL;
        uint32_t n, gone;

        mark(pool, magazine);
        n = magazine_load(&magazine->n);
        if (n <= keep)
                return;
        gone = n - keep;
        for (uint32_t i = 0; i < gone; i++)
                lease_put(pool, magazine->vaddrs[i], &hint);
        memmove(magazine->vaddrs, magazine->vaddrs + gone, keep * sizeof(*magazine->vaddrs));
        memmove(magazine->dmas, magazine->dmas + gone, keep * sizeof(*magazine->dmas));
        memmove(magazine->states, magazine->states + gone, keep * sizeof(*magazine->states));
        magazine->marked = keep;
        magazine_store(&magazine->n, keep);
        magazine->flushes++;
}

void pool_gather(struct dmab_pool *pool) {
        magazines_seize(pool);
        for (struct magazine *magazine = pool->magazines; magazine; magazine = magazine->next)
                pool_flush(pool, magazine, 0);
        if (TAILQ_EMPTY(&pool->waiters) && !pool->dead)
                magazines_release(pool);
}

/* ---- taking ---- */

static int check_flags(const struct dmab_pool *pool, unsigned flags) {
        const unsigned known = DMAB_NOWAIT | DMAB_WAIT | DMAB_HIGH | DMAB_ZERO;

        if (flags & DMAB_SHAREABLE)
                return error_set_reason(EOPNOTSUPP, "unsupported",
                                        "blocks of the pool %s cannot be shared one by one; use dmab_alloc_coherent()",
                                        pool->name);
        if (flags & ~known)
                return error_set(EINVAL, "flags 0x%x are none that libdmabroker knows", flags & ~known);
        if ((flags & DMAB_NOWAIT) && (flags & DMAB_WAIT))
                return error_set(EINVAL, "DMAB_NOWAIT and DMAB_WAIT contradict each other");
        return 0;
}

static int check_pool(const struct dmab_pool *pool) {
        return pool ? session_check(pool->dmab) : error_set(EINVAL, "the handle of the pool is NULL");
}

/* The magazine could not give them. */
static int __attribute__((noinline)) take_slowly(struct dmab_pool *pool, unsigned flags, size_t n, void **ret_vaddrs,
                                                 dmab_addr_t *ret_dmas) {
        int r = check_pool(pool);

        if (!r)
                r = check_flags(pool, flags);
        if (r || !n)
                return r;
        if (n > SIZE_MAX / pool->block_size)
                return error_set(E2BIG, "%zu blocks of the pool %s are more than any machine has", n, pool->name);
        magazine_make(pool);
        if (flags & DMAB_ZERO && !pool->debug)
                r = dmab_pool_alloc_bulk(pool, flags & ~DMAB_ZERO, n, ret_vaddrs, ret_dmas);
        else
                r = refill_take(pool, flags, n, ret_vaddrs, ret_dmas);
        for (size_t i = 0; i < n && !r && (flags & DMAB_ZERO || pool->debug); i++)
                if (pool->debug)
                        inspect_given(pool, ret_vaddrs[i], ret_dmas[i], flags & DMAB_ZERO);
                else
                        memset(ret_vaddrs[i], 0, pool->size);
        return r;
}

int block_alloc(struct dmab_pool *pool, unsigned flags, void **ret_vaddr, dmab_addr_t *ret_dma) {
        struct magazine *magazine = magazine_find(pool->slot);

        if (likely(magazine && flags_are_plain(flags) && magazine_begin(magazine))) {
                if (likely(magazine_load(&magazine->n))) {
                        magazine_pop(magazine, ret_vaddr, ret_dma);
                        magazine_end(magazine);
                        return 0;
                }
                magazine_end(magazine);
        }
        return take_slowly(pool, flags, 1, ret_vaddr, ret_dma);
}

int dmab_pool_alloc(dmab_pool_t *pool, unsigned flags, void **ret_vaddr, dmab_addr_t *ret_dma) {
        return likely(pool) ? block_alloc(pool, flags, ret_vaddr, ret_dma) : check_pool(pool);
}

int dmab_pool_alloc_bulk(dmab_pool_t *pool, unsigned flags, size_t n, void **ret_vaddrs, dmab_addr_t *ret_dmas) {
        struct magazine *magazine = pool ? magazine_find(pool->slot) : NULL;

        if (likely(magazine && flags_are_plain(flags) && magazine_begin(magazine))) {
                if (likely(magazine_load(&magazine->n) >= n)) {
                        magazine_pop_bulk(magazine, n, ret_vaddrs, ret_dmas);
                        magazine_end(magazine);
                        return 0;
                }
                magazine_end(magazine);
        }
        return take_slowly(pool, flags, n, ret_vaddrs, ret_dmas);
}

/* ---- giving ---- */

/* The state of a block that may be freed, or NULL. */
static inline uint8_t *state_of_busy(const struct dmab_pool *pool, const void *vaddr, dmab_addr_t dma) {
        struct piece *piece;
        uint8_t *state = slab_state(pool->memory, pool, pool->granule_shift, vaddr, &piece);

        return likely(state && magazine_load(state) == BLOCK_BUSY && dma == (uintptr_t)vaddr + piece->delta) ? state : NULL;
}

/* Mark them all free, or say what is wrong and change nothing. */
static int mark_free(struct dmab_pool *pool, size_t n, void *const *vaddrs, const dmab_addr_t *dmas) {
        struct piece *piece;
        int r = 0;

        for (size_t i = 0; i < n; i++) {
                uint8_t *state = state_of_busy(pool, vaddrs[i], dmas[i]);

                if (state) {
                        magazine_store(state, BLOCK_FREE);
                        continue;
                }
                r = inspect_free(pool, vaddrs[i], dmas[i]);
                while (i--)
                        magazine_store(slab_state(pool->memory, pool, pool->granule_shift, vaddrs[i], &piece), BLOCK_BUSY);
                break;
        }
        return r;
}

/* Marked ones, into the magazine as far as there is room, else into the leases. With the lock held. */
static void put(struct dmab_pool *pool, size_t n, void *const *vaddrs, const dmab_addr_t *dmas) {
        struct magazine *magazine = magazine_find(pool->slot);
        struct lease *hint = NULL;
        struct piece *piece;
        size_t i = 0, half;

        if (magazine && !magazine_load(&magazine->drain)) {
                half = magazine->size / 2;
                pool_flush(pool, magazine, n <= magazine->size - magazine_load(&magazine->n) ? magazine->size : half);
                for (; i < n && magazine_load(&magazine->n) < magazine->size; i++)
                        magazine_push(magazine, vaddrs[i], dmas[i],
                                      slab_state(pool->memory, pool, pool->granule_shift, vaddrs[i], &piece));
        }
        for (; i < n; i++)
                lease_put(pool, vaddrs[i], &hint);
}

/* The magazine could not take them, or something is wrong with them. */
static int __attribute__((noinline)) give_slowly(struct dmab_pool *pool, size_t n, void *const *vaddrs,
                                                 const dmab_addr_t *dmas) {
        size_t keep;
        int r = check_pool(pool);
        bool dead;

        if (!r)
                r = mark_free(pool, n, vaddrs, dmas);
        if (r)
                return r;
        for (size_t i = 0; i < n && pool->debug; i++)
                inspect_returned(pool, vaddrs[i], dmas[i]);
        magazine_make(pool);
        pthread_mutex_lock(&pool->lock);
        put(pool, n, vaddrs, dmas);
        refill_serve(pool);
        keep = refill_keep(pool);
        keep = pool->leases.n_idle > keep ? keep : SIZE_MAX;
        dead = pool->dead;
        pthread_mutex_unlock(&pool->lock);
        if (dead)
                return refill_dead(pool);
        if (keep != SIZE_MAX)
                refill_give_back(pool, keep);
        return 0;
}

int block_free(struct dmab_pool *pool, void *vaddr, dmab_addr_t dma) {
        struct magazine *magazine = magazine_find(pool->slot);
        uint8_t *state;

        if (likely(magazine && magazine_begin(magazine))) {
                state = state_of_busy(pool, vaddr, dma);
                if (likely(state && magazine_load(&magazine->n) < magazine->size)) {
                        if (unlikely(magazine->marked < magazine_load(&magazine->n)))
                                mark(pool, magazine);
                        magazine_push(magazine, vaddr, dma, state);
                        magazine_end(magazine);
                        return 0;
                }
                magazine_end(magazine);
        }
        return give_slowly(pool, 1, &vaddr, &dma);
}

int dmab_pool_free(dmab_pool_t *pool, void *vaddr, dmab_addr_t dma) {
        return likely(pool) ? block_free(pool, vaddr, dma) : check_pool(pool);
}

/* Are all of them in the slab of the first one, where blocks can begin, with the right addresses? No branches, so that
 * several are looked at at a time: what is wrong with any is left in the bits of a sum. */
static inline bool lie_in_one_slab(const struct dmab_pool *pool, size_t n, void *const *vaddrs, const dmab_addr_t *dmas) {
        const struct piece *piece = memory_find(pool->memory, vaddrs[0]);
        uint64_t start, last, delta, offsets = 0, outside = 0, other = 0;

        if (!piece || magazine_load(&piece->of) != pool)
                return false;
        start = piece->start;
        last = piece->size - 1;
        delta = piece->delta;
        for (size_t i = 0; i < n; i++) {
                uint64_t vaddr = (uintptr_t)vaddrs[i], offset = vaddr - start;

                offsets |= offset;
                outside |= last - offset;
                other |= (dmas[i] - vaddr) ^ delta;
        }
        return !(other | (offsets & pool->granule_mask) | (offsets | outside) >> 63);
}

int dmab_pool_free_bulk(dmab_pool_t *pool, size_t n, void *const *vaddrs, const dmab_addr_t *dmas) {
        struct magazine *magazine = pool ? magazine_find(pool->slot) : NULL;

        if (!n)
                return check_pool(pool);
        if (likely(magazine && magazine_begin(magazine))) {
                if (likely(n <= magazine->size - magazine_load(&magazine->n) && lie_in_one_slab(pool, n, vaddrs, dmas))) {
                        magazine_push_bulk(magazine, n, vaddrs, dmas);
                        magazine_end(magazine);
                        return 0;
                }
                magazine_end(magazine);
        }
        return give_slowly(pool, n, vaddrs, dmas);
}
