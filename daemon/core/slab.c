/* Slabs: how they are cut into blocks, and who has which. All of this takes constant time per block, but for finding a slab
 * by an address, which takes as many steps as the number of slabs has bits. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/pool.h"

/* A lease looks at this many partly used slabs for a run that is long enough. */
#define RUN_SLABS 8

/* ---- where things are ---- */

/* Where in pool->slabs the first slab above dma_addr is. */
static size_t slab_index(const struct pool *pool, uint64_t dma_addr) {
        size_t low = 0, high = pool->n_slabs, middle;

        while (low < high) {
                middle = low + (high - low) / 2;
                if (alloc_dma_addr(pool->slabs[middle]->alloc) <= dma_addr)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

struct slab *slab_at(const struct pool *pool, uint64_t dma_addr) {
        size_t index = slab_index(pool, dma_addr);
        struct slab *slab = index ? pool->slabs[index - 1] : NULL;

        return slab && dma_addr - alloc_dma_addr(slab->alloc) < alloc_size(slab->alloc) ? slab : NULL;
}

static uint64_t block_offset(const struct pool *pool, uint32_t index) {
        return index / pool->per_chunk * pool->chunk + index % pool->per_chunk * pool->holder.unit;
}

uint64_t block_dma(const struct pool *pool, const struct slab *slab, uint32_t index) {
        return alloc_dma_addr(slab->alloc) + block_offset(pool, index);
}

int64_t block_index(const struct pool *pool, const struct slab *slab, uint64_t offset, bool *ret_exact) {
        uint64_t rest = offset % pool->chunk, in_chunk = rest / pool->holder.unit;
        uint64_t index = offset / pool->chunk * pool->per_chunk + in_chunk;

        if (in_chunk >= pool->per_chunk || index >= slab->n)
                return -1;
        *ret_exact = rest % pool->holder.unit == 0;
        return (int64_t)index;
}

struct taker *block_taker(const struct pool *pool, const struct slab *slab, uint32_t index) {
        uint32_t tag = slab->tags[index] & ~TAG_MARK;

        return tag ? pool->takers[tag - 1].taker : NULL;
}

void block_look(const struct pool *pool, const struct slab *slab, uint32_t index, struct pool_block *ret) {
        const struct taker *taker = block_taker(pool, slab, index);
        const struct alloc *alloc = slab->alloc;
        uint64_t offset = block_offset(pool, index);

        *ret = (struct pool_block){
                .dma_addr = alloc_dma_addr(alloc) + offset,
                .machine_addr = alloc_addr(alloc) + offset,
                .region = alloc->region->handle,
                .offset = alloc_addr(alloc) - alloc->region->addr + offset,
                .lease = taker && taker->lease ? taker->lease->handle : 0,
        };
}

/* ---- slabs ---- */

static void slab_unlist(struct pool *pool, struct slab *slab) {
        if (slab->n_free == slab->n)
                DL_DELETE(pool->idle, slab);
        else if (slab->n_free)
                DL_DELETE(pool->partial, slab);
}

static void slab_list(struct pool *pool, struct slab *slab) {
        if (slab->n_free == slab->n) {
                slab->idle_since_ms = now_ms(pool_broker(pool));
                /* When there is little to spare, the small one is all that can go: there it is looked for. */
                if (slab->n < pool->per_slab)
                        DL_PREPEND(pool->idle, slab);
                else
                        DL_APPEND(pool->idle, slab);
        } else if (slab->n_free) {
                DL_PREPEND(pool->partial, slab);
        }
}

static void slab_set_free(struct pool *pool, struct slab *slab, uint32_t n_free) {
        bool was_idle = slab->n_free == slab->n, was_full = !slab->n_free;

        pool->n_free += n_free;
        pool->n_free -= slab->n_free;
        if (was_idle != (n_free == slab->n) || was_full != !n_free) {
                slab_unlist(pool, slab);
                slab->n_free = n_free;
                slab_list(pool, slab);
        } else {
                slab->n_free = n_free;
        }
}

static int slabs_room(struct pool *pool) {
        struct slab **slabs;
        size_t capacity;

        if (pool->n_slabs < pool->slabs_capacity)
                return 0;
        capacity = 2 * pool->n_slabs + 8;
        slabs = realloc(pool->slabs, capacity * sizeof(struct slab *));
        if (!slabs)
                return -ENOMEM;
        pool->slabs = slabs;
        pool->slabs_capacity = capacity;
        return 0;
}

static int slab_new(struct pool *pool, struct alloc *alloc, uint32_t n) {
        size_t words = (n + 63) / 64, index = slab_index(pool, alloc_dma_addr(alloc)), i;
        struct slab *slab = calloc(1, sizeof(*slab) + words * sizeof(uint64_t) + n * sizeof(uint32_t));

        if (!slab || slabs_room(pool) < 0) {
                free(slab);
                return -ENOMEM;
        }
        slab->alloc = alloc;
        slab->n = slab->n_free = n;
        slab->tags = (uint32_t *)(slab->free + words);
        for (i = 0; i < words; i++)
                slab->free[i] = UINT64_MAX;
        if (n % 64)
                slab->free[words - 1] = (UINT64_C(1) << n % 64) - 1;
        memmove(&pool->slabs[index + 1], &pool->slabs[index], (pool->n_slabs - index) * sizeof(struct slab *));
        pool->slabs[index] = slab;
        pool->n_slabs++;
        pool->bytes += alloc_size(alloc);
        pool->n_blocks += n;
        pool->n_free += n;
        slab_list(pool, slab);
        pool_look_spare(pool);
        return 0;
}

int slab_add(struct pool *pool, struct alloc *alloc, struct failure *failure) {
        uint32_t n = pool->max_blocks ? smaller(pool->per_slab, pool->max_blocks - pool->n_blocks) : pool->per_slab;

        if (slab_new(pool, alloc, n) < 0)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        if (n < pool->per_slab) {
                pool->small = alloc->handle;
                pool->small_n = n;
                book_note(pool_broker(pool), ROW_POOL, pool->holder.handle);
        }
        return 0;
}

/* It has as much memory as its pool says: what is said of blocks must not exceed what there is. */
int pool_load_slab(struct pool *pool, struct alloc *alloc) {
        if (alloc_size(alloc) < pool->slab_size)
                return -EBADMSG;
        return slab_new(pool, alloc, alloc->handle == pool->small ? pool->small_n : pool->per_slab);
}

void slab_drop(struct pool *pool, struct slab *slab) {
        slab_unlist(pool, slab);
        pool->bytes -= alloc_size(slab->alloc);
        pool->n_blocks -= slab->n;
        pool->n_free -= slab->n;
        slab->dropped = true;
}

/* All at once: closing the gap of each would take minutes where there are many. */
void slabs_sweep(struct pool *pool) {
        size_t i, kept = 0;
        struct slab *slab;

        for (i = 0; i < pool->n_slabs; i++) {
                slab = pool->slabs[i];
                if (!slab->dropped) {
                        pool->slabs[kept++] = slab;
                        continue;
                }
                if (slab->rests)
                        alloc_rest(slab->alloc);
                else
                        alloc_free(slab->alloc);
                free(slab);
        }
        pool->n_slabs = kept;
}

void slabs_rest(struct pool *pool) {
        const struct taker *taker;
        struct slab *slab;
        uint32_t index;
        size_t i;

        for (i = 0; i < pool->n_slabs && pool->of[TAKER_QUARANTINE]; i++) {
                slab = pool->slabs[i];
                for (index = 0; index < slab->n && !slab->rests && slab->n_free < slab->n; index++) {
                        taker = block_taker(pool, slab, index);
                        slab->rests = taker && taker->kind == TAKER_QUARANTINE;
                }
        }
}

uint64_t slabs_drop(struct pool *pool, uint64_t before) {
        struct slab *slab, *next;
        uint64_t bytes = 0;

        DL_FOREACH_SAFE(pool->idle, slab, next) {
                if (pool->n_blocks < pool->reserve + slab->n)
                        break;
                if (slab->idle_since_ms > before)
                        continue;
                bytes += alloc_size(slab->alloc);
                slab_drop(pool, slab);
        }
        if (bytes)
                slabs_sweep(pool);
        pool_look_spare(pool);
        return bytes;
}

/* ---- takers ---- */

static int taker_enter(struct pool *pool, struct taker *taker) {
        struct taker_slot *slots;
        uint32_t capacity;

        if (pool->first_free) {
                taker->tag = pool->first_free;
                pool->first_free = pool->takers[taker->tag - 1].next_free;
        } else {
                if (pool->n_takers == pool->takers_capacity) {
                        capacity = 2 * pool->n_takers + 8;
                        slots = capacity < TAG_MARK ? realloc(pool->takers, capacity * sizeof(*slots)) : NULL;
                        if (!slots)
                                return -ENOMEM;
                        pool->takers = slots;
                        pool->takers_capacity = capacity;
                }
                taker->tag = ++pool->n_takers;
        }
        pool->takers[taker->tag - 1].taker = taker;
        return 0;
}

static struct taker *taker_new(struct pool *pool, enum taker_kind kind, size_t n_told) {
        struct taker *taker = calloc(1, sizeof(*taker) + n_told * sizeof(uint64_t));

        if (!taker)
                return NULL;
        taker->pool = pool;
        taker->kind = kind;
        if (taker_enter(pool, taker) < 0) {
                free(taker);
                return NULL;
        }
        return taker;
}

static void taker_leave(struct taker *taker) {
        struct taker_slot *slot = &taker->pool->takers[taker->tag - 1];

        slot->taker = NULL;
        slot->next_free = taker->pool->first_free;
        taker->pool->first_free = taker->tag;
        free(taker);
}

struct taker *taker_get(struct pool *pool, struct session *session, bool answer, size_t n) {
        struct taker *taker = NULL;

        if (!answer)
                HASH_FIND_PTR(pool->by_session, &session, taker);
        if (taker)
                return taker;
        taker = taker_new(pool, answer ? TAKER_ANSWER : TAKER_SESSION, answer ? n : 0);
        if (!taker)
                return NULL;
        taker->session = session;
        if (!answer) {
                HASH_ADD_PTR(pool->by_session, session, taker);
                if (!taker->hh.tbl) {
                        taker_leave(taker);
                        return NULL;
                }
        }
        DL_APPEND(session->takers, taker);
        return taker;
}

void taker_untell(struct taker *taker) {
        struct owner *owner = taker->pool->holder.device->owner;

        if (taker->key)
                book_note(owner->broker, ROW_ANSWER, taker->handle);
        owner->n_answers -= taker->key != NULL;
        key_forget(owner, taker->key);
        taker->key = NULL;
        if (taker->handle)
                handle_release(&owner->broker->handles, taker->handle, 0);
        taker->handle = 0;
}

static uint64_t taker_bytes(const struct taker *taker) {
        return taker->n * taker->pool->holder.unit;
}

/* It is nobody's any more. */
static void taker_unbind(struct taker *taker) {
        taker_untell(taker);
        if (taker->kind == TAKER_SESSION)
                HASH_DEL(taker->pool->by_session, taker);
        if (taker->kind == TAKER_SESSION || taker->kind == TAKER_ANSWER)
                DL_DELETE(taker->session->takers, taker);
        if (taker->kind == TAKER_QUARANTINE)
                quarantine_leave(pool_broker(taker->pool), &taker->resting, taker_bytes(taker));
        taker->session = NULL;
        taker->lease = NULL;
}

void taker_end(struct taker *taker) {
        taker_unbind(taker);
        taker_leave(taker);
}

static void taker_forget(struct taker *taker) {
        if (!taker->n)
                taker_end(taker);
}

/* What a block's row says of it. */
static void block_tell(struct pool *pool, struct slab *slab, uint32_t index) {
        const struct taker *taker = block_taker(pool, slab, index);
        struct row_writer *row = book_begin(pool_broker(pool));

        if (!row || !taker || taker->kind == TAKER_LEASE)
                return;
        row_number(row, pool->holder.handle);
        row_number(row, block_dma(pool, slab, index));
        row_number(row, taker->kind == TAKER_QUARANTINE ? 0 : taker->session->id);
        row_number(row, taker->since_ms);
        row_number(row, taker->resting.until_ms);
        book_end(pool_broker(pool), ROW_BLOCK, alloc_addr(slab->alloc) + block_offset(pool, index));
}

/* What is left of an answer is among what was told. Looking through the whole pool for each of many answers would take
 * minutes. */
static void visit_told(struct taker *taker, void (*visit)(struct pool *pool, struct slab *slab, uint32_t index)) {
        struct pool *pool = taker->pool;
        struct slab *slab;
        int64_t index;
        bool exact;
        size_t i;

        for (i = 0; i < taker->n_told; i++) {
                slab = slab_at(pool, taker->told[i]);
                index = slab ? block_index(pool, slab, taker->told[i] - alloc_dma_addr(slab->alloc), &exact) : -1;
                if (index >= 0 && slab->tags[index] == taker->tag)
                        visit(pool, slab, (uint32_t)index);
        }
}

/* Every block that it has. */
static void taker_visit(struct taker *taker, void (*visit)(struct pool *pool, struct slab *slab, uint32_t index)) {
        struct pool *pool = taker->pool;
        uint64_t left = taker->n;
        struct slab *slab;
        uint32_t index;
        size_t i;

        if (taker->n_told) {
                visit_told(taker, visit);
                return;
        }
        if (taker->slab) {
                for (index = taker->first; index < taker->first + left; index++)
                        visit(pool, taker->slab, index);
                return;
        }
        for (i = 0; i < pool->n_slabs && left; i++) {
                slab = pool->slabs[i];
                for (index = 0; index < slab->n && left && slab->n_free < slab->n; index++) {
                        if (slab->tags[index] != taker->tag)
                                continue;
                        visit(pool, slab, index);
                        left--;
                }
        }
}

void taker_quarantine(struct taker *taker) {
        struct broker *broker = pool_broker(taker->pool);
        const uint64_t ms = quarantine_ms(taker->pool->holder.device);

        if (!ms) {
                taker_release(taker);
                return;
        }
        taker_unbind(taker);
        taker->pool->of[taker->kind] -= taker->n;
        taker->kind = TAKER_QUARANTINE;
        taker->pool->of[taker->kind] += taker->n;
        taker->since_ms = now_ms(broker);
        quarantine_enter(broker, &taker->resting, RESTING_BLOCKS, later(taker->since_ms, ms), taker_bytes(taker));
        if (broker->book.ledger)
                taker_visit(taker, block_tell);
}

/* ---- blocks ---- */

static void block_give(struct slab *slab, uint32_t index, uint32_t tag) {
        slab->free[index / 64] &= ~(UINT64_C(1) << index % 64);
        slab->tags[index] = tag;
}

static void block_return(struct pool *pool, struct slab *slab, uint32_t index) {
        const struct taker *taker = block_taker(pool, slab, index);

        if (taker && taker->kind != TAKER_LEASE)
                book_drop(pool_broker(pool), ROW_BLOCK, alloc_addr(slab->alloc) + block_offset(pool, index));
        slab->free[index / 64] |= UINT64_C(1) << index % 64;
        slab->tags[index] = 0;
        slab->hint = smaller(slab->hint, index / 64);
}

/* n blocks went out (more) or came back. */
static void taker_count(struct taker *taker, uint64_t n, bool more) {
        struct pool *pool = taker->pool;
        uint64_t out;

        if (taker->kind == TAKER_QUARANTINE) {
                pool_broker(pool)->resting_bytes += more ? n * pool->holder.unit : 0;
                pool_broker(pool)->resting_bytes -= more ? 0 : n * pool->holder.unit;
        }
        if (more) {
                taker->n += n;
                pool->of[taker->kind] += n;
                pool->allocs += n;
                out = pool->n_blocks - pool->n_free - pool->of[TAKER_QUARANTINE];
                pool->high_water = larger(pool->high_water, out);
        } else {
                taker->n -= n;
                pool->of[taker->kind] -= n;
                pool->frees += n;
                holder_due(&pool->holder);
        }
        pool_look_spare(pool);
}

static uint32_t slab_next(struct slab *slab) {
        while (!slab->free[slab->hint])
                slab->hint++;
        return slab->hint * 64 + (uint32_t)__builtin_ctzll(slab->free[slab->hint]);
}

/* Slabs that are in use anyway come first, so that others can stay idle. */
void blocks_take(struct pool *pool, struct taker *taker, uint64_t n) {
        uint64_t done = 0;
        struct slab *slab;
        uint32_t index, n_free;

        while (done < n) {
                slab = pool->partial ? pool->partial : pool->idle->prev;
                for (n_free = slab->n_free; n_free && done < n; n_free--, done++) {
                        index = slab_next(slab);
                        block_give(slab, index, taker->tag);
                        block_tell(pool, slab, index);
                        taker->told[taker->n_told++] = block_dma(pool, slab, index);
                }
                slab_set_free(pool, slab, n_free);
        }
        taker_count(taker, n, true);
}

void taker_merge(struct taker *answer) {
        struct pool *pool = answer->pool;
        struct taker *taker = taker_get(pool, answer->session, false, 0);
        struct slab *slab;
        bool exact;
        size_t i;

        taker_untell(answer);
        if (!taker)
                return;
        for (i = 0; i < answer->n_told; i++) {
                slab = slab_at(pool, answer->told[i]);
                slab->tags[block_index(pool, slab, answer->told[i] - alloc_dma_addr(slab->alloc), &exact)] = taker->tag;
        }
        taker->n += answer->n;
        pool->of[TAKER_SESSION] += answer->n;
        pool->of[TAKER_ANSWER] -= answer->n;
        taker_end(answer);
}

void block_release(struct pool *pool, struct slab *slab, uint32_t index) {
        struct taker *taker = block_taker(pool, slab, index);

        taker_untell(taker);
        block_return(pool, slab, index);
        slab_set_free(pool, slab, slab->n_free + 1);
        taker_count(taker, 1, false);
        taker_forget(taker);
}

static void give_back(struct pool *pool, struct slab *slab, uint32_t index) {
        block_return(pool, slab, index);
        slab_set_free(pool, slab, slab->n_free + 1);
}

void taker_release(struct taker *taker) {
        taker_visit(taker, give_back);
        taker_count(taker, taker->n, false);
        taker_forget(taker);
}

/* ---- runs of blocks ---- */

/* The first block from `from` on that is free, or is not. */
static uint32_t slab_seek(const struct slab *slab, uint32_t from, bool is_free) {
        uint64_t word;

        while (from < slab->n) {
                word = (is_free ? slab->free[from / 64] : ~slab->free[from / 64]) >> from % 64;
                if (word)
                        return smaller(from + (uint32_t)__builtin_ctzll(word), slab->n);
                from = (from / 64 + 1) * 64;
        }
        return slab->n;
}

/* The first run of `most` blocks, or the longest there is; no run goes from one chunk to the next. */
static uint32_t slab_run(const struct pool *pool, const struct slab *slab, uint32_t most, uint32_t *ret_first) {
        uint32_t first = slab_seek(slab, slab->hint * 64, true), end, longest = 0;

        while (first < slab->n && longest < most) {
                end = slab_seek(slab, first, false);
                end = smaller(end, (uint64_t)(first / pool->per_chunk + 1) * pool->per_chunk);
                if (end - first > longest) {
                        longest = smaller(end - first, most);
                        *ret_first = first;
                }
                first = slab_seek(slab, end, true);
        }
        return longest;
}

/* A run of partly used slabs that is long enough, or else one of an idle slab, or else the longest that was seen. */
static uint32_t pool_run(const struct pool *pool, uint64_t most, struct slab **ret_slab, uint32_t *ret_first) {
        uint32_t longest = 0, run, first = 0, looked = 0;
        struct slab *slab;

        most = smaller(most, pool->per_chunk);
        DL_FOREACH(pool->partial, slab) {
                run = slab_run(pool, slab, most, &first);
                if (run > longest) {
                        longest = run;
                        *ret_slab = slab;
                        *ret_first = first;
                }
                if (longest == most || ++looked == RUN_SLABS)
                        break;
        }
        slab = pool->idle ? pool->idle->prev : NULL;
        if (slab && longest < smaller(most, slab->n)) {
                longest = smaller(most, slab->n);
                *ret_slab = slab;
                *ret_first = 0;
        }
        return longest;
}

int blocks_lease(struct pool *pool, struct session *session, uint64_t most, struct request_key *key, struct lease **ret,
                 struct failure *failure) {
        struct taker *taker = taker_new(pool, TAKER_LEASE, 0);
        uint32_t n, i;
        int r;

        if (!taker)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        n = pool_run(pool, most, &taker->slab, &taker->first);
        r = lease_new(session, &pool->holder, taker->slab->alloc,
                      alloc_addr(taker->slab->alloc) + block_offset(pool, taker->first), n, key, &taker->lease, failure);
        if (r < 0) {
                taker_leave(taker);
                return r;
        }
        for (i = taker->first; i < taker->first + n; i++)
                block_give(taker->slab, i, taker->tag);
        slab_set_free(pool, taker->slab, taker->slab->n_free - n);
        taker_count(taker, n, true);
        *ret = taker->lease;
        return 0;
}

void blocks_lease_ended(struct lease *lease, bool died) {
        struct pool *pool = (struct pool *)lease->holder;
        struct slab *slab = slab_at(pool, alloc_dma_addr(lease->alloc));
        bool exact;
        struct taker *taker = block_taker(pool, slab, block_index(pool, slab, lease->addr - alloc_addr(lease->alloc), &exact));

        if (died)
                taker_quarantine(taker);
        else
                taker_release(taker);
}

/* ---- the quarantine ---- */

static struct taker *taker_of(const struct resting *resting) {
        return (struct taker *)((char *)resting - offsetof(struct taker, resting));
}

static struct owner *blocks_owner(const struct resting *resting) {
        return taker_of(resting)->pool->holder.device->owner;
}

/* There is one. */
static const struct slab *first_block(const struct taker *taker, uint32_t *ret_index) {
        const struct pool *pool = taker->pool;
        const struct slab *slab = taker->slab;
        uint32_t index;
        size_t i;

        *ret_index = taker->first;
        for (i = 0; i < pool->n_slabs && !slab; i++)
                for (index = 0; index < pool->slabs[i]->n && !slab; index++)
                        if (block_taker(pool, pool->slabs[i], index) == taker) {
                                *ret_index = index;
                                slab = pool->slabs[i];
                        }
        return slab;
}

static void blocks_look(const struct resting *resting, struct quarantine_view *ret) {
        const struct taker *taker = taker_of(resting);
        const struct pool *pool = taker->pool;
        uint32_t index;
        const struct alloc *alloc = first_block(taker, &index)->alloc;

        ret->what = QUARANTINE_BLOCKS;
        ret->owner = pool->holder.device->owner->name;
        ret->device_name = pool->holder.device->name;
        ret->pool = pool->holder.handle;
        ret->region = alloc->region->handle;
        ret->machine_addr = alloc_addr(alloc) + block_offset(pool, index);
        ret->count = taker->n;
        ret->bytes = taker_bytes(taker);
        ret->since_ms = taker->since_ms;
        ret->simulated = alloc->region->supply->info.flags & SOURCE_SIMULATED;
}

static bool blocks_hold(const struct resting *resting, uint64_t machine_addr) {
        const struct taker *taker = taker_of(resting);
        const struct pool *pool = taker->pool;
        const struct alloc *alloc;
        int64_t index;
        bool exact;
        size_t i;

        for (i = 0; i < pool->n_slabs; i++) {
                alloc = pool->slabs[i]->alloc;
                if (machine_addr < alloc_addr(alloc) || machine_addr - alloc_addr(alloc) >= alloc_size(alloc))
                        continue;
                index = block_index(pool, pool->slabs[i], machine_addr - alloc_addr(alloc), &exact);
                return index >= 0 && block_taker(pool, pool->slabs[i], (uint32_t)index) == taker;
        }
        return false;
}

static void blocks_end(struct resting *resting) {
        taker_release(taker_of(resting));
}

const struct resting_ops blocks_resting_ops = {
        .owner = blocks_owner, .look = blocks_look, .holds = blocks_hold, .end = blocks_end,
};

/* ---- the ledger ---- */

void pool_save_blocks(struct pool *pool) {
        struct slab *slab;
        uint32_t index;
        size_t i;

        for (i = 0; i < pool->n_slabs; i++) {
                slab = pool->slabs[i];
                for (index = 0; index < slab->n && slab->n_free < slab->n; index++)
                        if (!block_free(slab, index))
                                block_tell(pool, slab, index);
        }
}

/* -EBADMSG: there is no such block. -EEXIST: somebody has it. */
static int block_restore(struct taker *taker, uint64_t dma_addr) {
        struct pool *pool = taker->pool;
        struct slab *slab = slab_at(pool, dma_addr);
        bool exact = false;
        int64_t index = slab ? block_index(pool, slab, dma_addr - alloc_dma_addr(slab->alloc), &exact) : -1;

        if (index < 0 || !exact)
                return -EBADMSG;
        if (!block_free(slab, (uint32_t)index))
                return -EEXIST;
        block_give(slab, (uint32_t)index, taker->tag);
        slab_set_free(pool, slab, slab->n_free - 1);
        taker_count(taker, 1, true);
        return 0;
}

int pool_load_lease(struct lease *lease) {
        struct pool *pool = (struct pool *)lease->holder;
        uint64_t dma_addr = alloc_dma_at(lease->alloc, lease->addr), i;
        struct taker *taker = taker_new(pool, TAKER_LEASE, 0);
        bool exact;
        int r = 0;

        if (!taker)
                return -ENOMEM;
        taker->slab = slab_at(pool, dma_addr);
        for (i = 0; i < lease->count && r == 0; i++)
                r = block_restore(taker, dma_addr + i * pool->holder.unit);
        if (r < 0) {
                taker_release(taker);
                return -EBADMSG;
        }
        taker->first = (uint32_t)block_index(pool, taker->slab, dma_addr - alloc_dma_addr(taker->slab->alloc), &exact);
        taker->lease = lease;
        return 0;
}

void answer_save(struct row_writer *row, const struct taker *taker) {
        size_t i;

        row_number(row, taker->session->id);
        row_number(row, taker->pool->holder.handle);
        row_number(row, taker->n_told);
        for (i = 0; i < taker->n_told; i++)
                row_number(row, taker->told[i]);
        row_key(row, taker->key);
}

int answer_load(struct load *load) {
        struct session *session = load_session(load);
        struct pool *pool = load_object(load, HANDLE_POOL);
        uint64_t n = row_read_number(&load->row), i, dma_addr;
        struct taker *taker;
        int r = 0;

        if (!session || !pool)
                return -ENOENT;
        if (!n || n > pool->n_free)
                return -EBADMSG;
        taker = taker_get(pool, session, true, n);
        if (!taker)
                return -ENOMEM;
        for (i = 0; i < n; i++) {
                dma_addr = row_read_number(&load->row);
                if (r == 0)
                        r = block_restore(taker, dma_addr);
                taker->told[taker->n_told++] = dma_addr;
        }
        if (r == 0)
                r = handle_restore(&load->broker->handles, HANDLE_BLOCKS, taker, load->id);
        if (r < 0) {
                taker_release(taker);
                return r == -ENOMEM ? r : -EBADMSG;
        }
        taker->handle = load->id;
        taker->key = load_key(load, session->owner, HANDLE_BLOCKS);
        session->owner->n_answers += taker->key != NULL;
        return 0;
}

/* Those that rest for the same time rest together. */
static struct taker *quarantine_get(struct pool *pool, uint64_t since_ms, uint64_t until_ms) {
        struct taker *taker;
        uint32_t i;

        for (i = 0; i < pool->n_takers; i++) {
                taker = pool->takers[i].taker;
                if (taker && taker->kind == TAKER_QUARANTINE && taker->since_ms == since_ms &&
                    taker->resting.until_ms == until_ms)
                        return taker;
        }
        taker = taker_new(pool, TAKER_QUARANTINE, 0);
        if (!taker)
                return NULL;
        taker->since_ms = since_ms;
        quarantine_enter(pool_broker(pool), &taker->resting, RESTING_BLOCKS, until_ms, 0);
        return taker;
}

int block_load(struct load *load) {
        struct pool *pool = load_object(load, HANDLE_POOL);
        uint64_t dma_addr = row_read_number(&load->row);
        const uint8_t *before = load->row.at;
        bool rests = !row_read_number(&load->row);
        uint64_t since_ms = row_read_number(&load->row), until_ms = row_read_number(&load->row);
        struct session *session;
        struct taker *taker;
        int r;

        load->row.at = before;
        session = load_session(load);
        if (!pool || (!rests && !session))
                return -ENOENT;
        taker = rests ? quarantine_get(pool, since_ms, until_ms) : taker_get(pool, session, false, 0);
        if (!taker)
                return -ENOMEM;
        r = block_restore(taker, dma_addr);
        taker_forget(taker);
        /* It is one of an answer's, which has been read. */
        return r == -EEXIST ? 0 : r;
}
