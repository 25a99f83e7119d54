/* What the outside sees of pools and blocks. */
#include <errno.h>

#include "daemon/core/pool.h"

static bool pool_simulated(const struct pool *pool) {
        const struct supply *supply = pool->n_slabs ? pool->slabs[0]->alloc->region->supply : pool_broker(pool)->supplies;

        return supply && supply->info.flags & SOURCE_SIMULATED;
}

static void pool_view(const struct pool *pool, struct pool_view *ret) {
        const struct holder *holder = &pool->holder;

        *ret = (struct pool_view){
                .handle = holder->handle,
                .device = holder->device->handle,
                .owner = holder->device->owner->name,
                .device_name = holder->device->name,
                .name = pool->name,
                .block_size = holder->unit,
                .align = pool->align,
                .boundary = pool->boundary,
                .blocks_per_slab = pool->per_slab,
                .slab_size = pool->slab_size,
                .reserve = pool->reserve,
                .max_blocks = pool->max_blocks,
                .slabs = pool->n_slabs,
                .bytes = pool->bytes,
                .blocks = pool->n_blocks,
                .free = pool->n_free,
                .used = pool->of[TAKER_SESSION] + pool->of[TAKER_ANSWER],
                .leased = pool->of[TAKER_LEASE],
                .quarantined = pool->of[TAKER_QUARANTINE],
                .high_water = pool->high_water,
                .leases = holder->n_leases,
                .waiters = holder->n_waiters,
                .allocs = pool->allocs,
                .frees = pool->frees,
                .failures = holder->failures,
                .waits = holder->waits,
                .timeouts = holder->timeouts,
                .recalls = holder->recalls,
                .age_ms = now_ms(pool_broker(pool)) - pool->born_ms,
                .simulated = pool_simulated(pool),
        };
}

int pool_get(const struct caller *caller, uint64_t handle, struct pool_view *ret, struct failure *failure) {
        const struct pool *pool = pool_of(caller, handle, true, failure);

        if (!pool)
                return -ENOENT;
        pool_view(pool, ret);
        return 0;
}

int pool_visit(const struct caller *caller, uint64_t device, const char *name, uint64_t after, pool_visit_fn visit,
               void *userdata, struct failure *failure) {
        struct selection selection;
        struct pool_view view;
        struct pool *pool;
        int r;

        r = selection_begin(&selection, caller, name, device, after, failure);
        if (r < 0)
                return r;
        while ((pool = selection_next(&selection, HANDLE_POOL))) {
                if (pool->creating || !selection_has(&selection, pool->holder.device->owner, pool->holder.device))
                        continue;
                pool_view(pool, &view);
                if (visit(&view, userdata))
                        break;
        }
        return 0;
}

int pool_block_at(const struct caller *caller, uint64_t addr, bool machine, struct pool_block_view *ret,
                  struct failure *failure) {
        static const enum pool_block_state states[] = {
                [TAKER_SESSION] = POOL_BLOCK_USED,
                [TAKER_ANSWER] = POOL_BLOCK_USED,
                [TAKER_LEASE] = POOL_BLOCK_LEASED,
                [TAKER_QUARANTINE] = POOL_BLOCK_QUARANTINED,
        };
        const struct owner *owner = caller->session->owner;
        const struct alloc *alloc = alloc_at(owner->broker, caller->admin ? NULL : owner, addr, machine);
        const struct taker *taker;
        const struct pool *pool;
        const struct slab *slab;
        int64_t index;
        bool exact;

        if (!alloc || !(alloc->flags & ALLOC_HELD) || alloc->holder->kind != HOLDER_POOL ||
            (alloc->device->owner != caller->session->owner && !caller->admin))
                return bad_address(addr, failure);
        pool = (const struct pool *)alloc->holder;
        slab = slab_at(pool, alloc_dma_addr(alloc));
        index = slab ? block_index(pool, slab, addr - (machine ? alloc_addr(alloc) : alloc_dma_addr(alloc)), &exact) : -1;
        if (index < 0)
                return bad_address(addr, failure);
        taker = block_taker(pool, slab, (uint32_t)index);
        *ret = (struct pool_block_view){
                .pool = pool->holder.handle,
                .dma_addr = block_dma(pool, slab, (uint32_t)index),
                .lease = taker && taker->lease ? taker->lease->handle : 0,
                .state = taker ? states[taker->kind] : POOL_BLOCK_FREE,
        };
        return 0;
}
