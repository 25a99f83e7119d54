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
        uint32_t n = magazine_load(&magazine->n), i = magazine_marked(magazine);

        while (i < n) {
                uint8_t *state = shadow_state_sure(&pool->shadow, magazine->vaddrs[i]);

                if (likely(magazine_load(state) == BLOCK_BUSY)) {
                        magazine_store(state, BLOCK_FREE);
                        i++;
                        continue;
                }
                inspect_late(pool, magazine->vaddrs[i], magazine_load(state) == BLOCK_NONE);
                n--;
                magazine->vaddrs[i] = magazine->vaddrs[n];
                magazine->dmas[i] = magazine->dmas[n];
        }
        magazine->limit = magazine->size;
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
        magazine_store(&magazine->n, keep);
        magazine->flushes++;
}

void pool_gather(struct dmab_pool *pool) {
        magazines_seize(pool);
        for (struct magazine *magazine = pool->magazines; magazine; magazine = magazine->next)
                if (magazine_load(&magazine->drain) == MAGAZINE_SEIZED)
                        pool_flush(pool, magazine, 0);
        if (pool_is_at_ease(pool))
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

static inline __attribute__((always_inline)) int alloc(struct dmab_pool *pool, unsigned flags, void **ret_vaddr,
                                                       dmab_addr_t *ret_dma) {
        struct magazine *magazine = magazine_find(pool->slot);

        if (likely(magazine && flags_are_plain(flags) && magazine_begin(magazine))) {
                if (likely(magazine_load(&magazine->n))) {
                        magazine_pop(magazine, &pool->shadow, ret_vaddr, ret_dma);
                        magazine_end(magazine);
                        return 0;
                }
                magazine_end(magazine);
        }
        return take_slowly(pool, flags, 1, ret_vaddr, ret_dma);
}

int block_alloc(struct dmab_pool *pool, unsigned flags, void **ret_vaddr, dmab_addr_t *ret_dma) {
        return alloc(pool, flags, ret_vaddr, ret_dma);
}

int dmab_pool_alloc(dmab_pool_t *pool, unsigned flags, void **ret_vaddr, dmab_addr_t *ret_dma) {
        return likely(pool) ? alloc(pool, flags, ret_vaddr, ret_dma) : check_pool(pool);
}

int dmab_pool_alloc_bulk(dmab_pool_t *pool, unsigned flags, size_t n, void **ret_vaddrs, dmab_addr_t *ret_dmas) {
        struct magazine *magazine = pool ? magazine_find(pool->slot) : NULL;

        if (likely(magazine && flags_are_plain(flags) && magazine_begin(magazine))) {
                if (likely(magazine_load(&magazine->n) >= n)) {
                        magazine_pop_bulk(magazine, &pool->shadow, n, ret_vaddrs, ret_dmas);
                        magazine_end(magazine);
                        return 0;
                }
                magazine_end(magazine);
        }
        return take_slowly(pool, flags, n, ret_vaddrs, ret_dmas);
}

/* ---- giving ---- */

/* Most pools have one delta, and few have many. */
static inline __attribute__((always_inline)) bool is_dma_of(const struct dmab_pool *pool, const void *vaddr,
                                                            dmab_addr_t dma) {
        const struct piece *piece;

        if (likely(dma - (uintptr_t)vaddr == magazine_load(&pool->delta)))
                return true;
        piece = memory_find(pool->memory, vaddr);
        return piece && dma == (uintptr_t)vaddr + piece->delta;
}

/* The state of a block that may be freed, or NULL. */
static inline uint8_t *state_of_busy(const struct dmab_pool *pool, const void *vaddr, dmab_addr_t dma) {
        uint8_t *state = shadow_state(&pool->shadow, vaddr);

        return likely(state && magazine_load(state) == BLOCK_BUSY && is_dma_of(pool, vaddr, dma)) ? state : NULL;
}

/* Mark them all free, or say what is wrong and change nothing. */
static int mark_free(struct dmab_pool *pool, size_t n, void *const *vaddrs, const dmab_addr_t *dmas) {
        int r = 0;

        for (size_t i = 0; i < n; i++) {
                uint8_t *state = state_of_busy(pool, vaddrs[i], dmas[i]);

                if (state) {
                        magazine_store(state, BLOCK_FREE);
                        continue;
                }
                r = inspect_free(pool, vaddrs[i], dmas[i]);
                while (i--)
                        magazine_store(shadow_state_sure(&pool->shadow, vaddrs[i]), BLOCK_BUSY);
                break;
        }
        return r;
}

/* Marked ones, into the magazine as far as there is room, else into the leases. With the lock held. */
static void put(struct dmab_pool *pool, size_t n, void *const *vaddrs, const dmab_addr_t *dmas) {
        struct magazine *magazine = magazine_find(pool->slot);
        struct lease *hint = NULL;
        size_t i = 0, half;

        if (magazine && !magazine_load(&magazine->drain)) {
                half = magazine->size / 2;
                pool_flush(pool, magazine, n <= magazine->size - magazine_load(&magazine->n) ? magazine->size : half);
                for (; i < n && magazine_load(&magazine->n) < magazine->size; i++)
                        magazine_push(magazine, vaddrs[i], dmas[i], shadow_state_sure(&pool->shadow, vaddrs[i]));
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

/* The magazine may have blocks without a mark. */
static int __attribute__((noinline)) give_one(struct dmab_pool *pool, void *vaddr, dmab_addr_t dma) {
        struct magazine *magazine = magazine_find(pool->slot);
        uint8_t *state;

        if (magazine && magazine_begin(magazine)) {
                mark(pool, magazine);
                state = state_of_busy(pool, vaddr, dma);
                if (state && magazine_load(&magazine->n) < magazine->size) {
                        magazine_push(magazine, vaddr, dma, state);
                        magazine_end(magazine);
                        return 0;
                }
                magazine_end(magazine);
        }
        return give_slowly(pool, 1, &vaddr, &dma);
}

/* No call but at its end: nothing must be kept on the stack. */
static inline __attribute__((always_inline)) int release(struct dmab_pool *pool, void *vaddr, dmab_addr_t dma) {
        struct magazine *magazine = magazine_find(pool->slot);
        uint8_t *state;

        if (likely(magazine && magazine_begin(magazine))) {
                state = state_of_busy(pool, vaddr, dma);
                if (likely(state && magazine_load(&magazine->n) < magazine->limit)) {
                        magazine_push(magazine, vaddr, dma, state);
                        magazine_end(magazine);
                        return 0;
                }
                magazine_end(magazine);
        }
        return give_one(pool, vaddr, dma);
}

int block_free(struct dmab_pool *pool, void *vaddr, dmab_addr_t dma) {
        return release(pool, vaddr, dma);
}

int dmab_pool_free(dmab_pool_t *pool, void *vaddr, dmab_addr_t dma) {
        return likely(pool) ? release(pool, vaddr, dma) : check_pool(pool);
}

/* Copy blocks into a magazine, and look whether all of them lie in the span of a slab, where blocks can begin, with the right
 * addresses. No branch per block, so that the compiler looks at several at a time: what is wrong with any of them is left in
 * the bits of a sum. */
static inline __attribute__((always_inline)) bool copy_and_look(const struct slab *slab, uintptr_t mask, size_t n,
                                                                const uint64_t *restrict vaddrs,
                                                                const uint64_t *restrict dmas,
                                                                uint64_t *restrict to_vaddrs, uint64_t *restrict to_dmas) {
        uint64_t start = magazine_load(&slab->span_start), last = magazine_load(&slab->span_size) - 1;
        uint64_t delta = slab->piece.delta, offsets = 0, outside = 0, other = 0;

        for (size_t i = 0; i < n; i++) {
                uint64_t vaddr = vaddrs[i], dma = dmas[i], offset = vaddr - start;

                offsets |= offset;
                outside |= last - offset;
                other |= (dma - vaddr) ^ delta;
                to_vaddrs[i] = vaddr;
                to_dmas[i] = dma;
        }
        return !(other | (offsets & mask) | (offsets | outside) >> 63);
}

/* clang vectorizes at -O2 already, and does not know the attribute. */
#ifdef __clang__
#define VECTORIZED
#else
#define VECTORIZED __attribute__((optimize("O3")))
#endif

#define COPY_AND_LOOK(name, ...)                                                                                           \
        static bool __attribute__((noinline, ##__VA_ARGS__)) VECTORIZED name(                                              \
                const struct slab *slab, uintptr_t mask, size_t n, const uint64_t *vaddrs, const uint64_t *dmas,           \
                uint64_t *to_vaddrs, uint64_t *to_dmas) {                                                                  \
                return copy_and_look(slab, mask, n, vaddrs, dmas, to_vaddrs, to_dmas);                                     \
        }

COPY_AND_LOOK(copy_and_look_plainly)

#ifdef __x86_64__
COPY_AND_LOOK(copy_and_look_widely, target("avx2"))

static bool is_wide;

static void __attribute__((constructor)) look_at_processor(void) {
        is_wide = __builtin_cpu_supports("avx2");
}
#else
#define is_wide false
#define copy_and_look_widely copy_and_look_plainly
#endif

/* All of them into the magazine, without marks, if they lie in one span. False: nothing has changed. */
static inline bool push_one_span(const struct dmab_pool *pool, struct magazine *magazine, size_t n, void *const *vaddrs,
                                 const dmab_addr_t *dmas) {
        const struct slab *slab = (struct slab *)memory_find(pool->memory, vaddrs[0]);
        uint32_t first = magazine_load(&magazine->n);
        bool (*look)(const struct slab *slab, uintptr_t mask, size_t n, const uint64_t *vaddrs, const uint64_t *dmas,
                     uint64_t *to_vaddrs, uint64_t *to_dmas) = is_wide ? copy_and_look_widely : copy_and_look_plainly;

        if (unlikely(!slab || magazine_load(&slab->piece.of) != pool))
                return false;
        if (!look(slab, pool->shadow.mask, n, (const uint64_t *)vaddrs, dmas, (uint64_t *)magazine->vaddrs + first,
                  magazine->dmas + first))
                return false;
        magazine->marked = magazine_marked(magazine);
        magazine->limit = 0;
        magazine_store(&magazine->n, first + n);
        return true;
}

/* Those that do not: one by one. False: something is wrong with one of them, and nothing has changed. */
static bool push_singly(const struct dmab_pool *pool, struct magazine *magazine, size_t n, void *const *vaddrs,
                        const dmab_addr_t *dmas) {
        uint32_t before;

        mark(pool, magazine);
        before = magazine_load(&magazine->n);
        if (n > magazine->size - before)
                return false;
        for (size_t i = 0; i < n; i++) {
                uint8_t *state = state_of_busy(pool, vaddrs[i], dmas[i]);

                if (unlikely(!state)) {
                        for (uint32_t pushed = before; pushed < before + i; pushed++)
                                magazine_store(shadow_state_sure(&pool->shadow, magazine->vaddrs[pushed]), BLOCK_BUSY);
                        magazine_store(&magazine->n, before);
                        return false;
                }
                magazine_push(magazine, vaddrs[i], dmas[i], state);
        }
        return true;
}

int dmab_pool_free_bulk(dmab_pool_t *pool, size_t n, void *const *vaddrs, const dmab_addr_t *dmas) {
        struct magazine *magazine = pool ? magazine_find(pool->slot) : NULL;
        bool done = false;

        if (!n)
                return check_pool(pool);
        if (likely(magazine && magazine_begin(magazine))) {
                if (likely(n <= magazine->size - magazine_load(&magazine->n))) {
                        done = push_one_span(pool, magazine, n, vaddrs, dmas) ||
                               push_singly(pool, magazine, n, vaddrs, dmas);
                }
                magazine_end(magazine);
        }
        return likely(done) ? 0 : give_slowly(pool, n, vaddrs, dmas);
}
