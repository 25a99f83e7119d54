/* debug.check of pools: every number in them is counted anew. */
#include <stdlib.h>

#include "daemon/core/pool.h"

struct count {
        uint64_t blocks, free, bytes, idle, of[TAKER_KINDS];
        uint64_t *by_tag;
};

static void check_slab(struct check *check, const struct pool *pool, const struct slab *slab, struct count *count) {
        const uint64_t handle = pool->holder.handle;
        const struct taker *taker;
        uint32_t i, n_free = 0;

        for (i = 0; i < slab->n; i++) {
                taker = block_taker(pool, slab, i);
                n_free += block_free(slab, i);
                if (slab->tags[i] & TAG_MARK || block_free(slab, i) != !slab->tags[i] || (slab->tags[i] && !taker))
                        check_complain(check, "pool", handle, "Block %u of the slab at 0x%llx is neither free nor taken", i,
                                       (unsigned long long)alloc_dma_addr(slab->alloc));
                if (block_free(slab, i) && i / 64 < slab->hint)
                        check_complain(check, "pool", handle, "Block %u of a slab is free, but never found", i);
                if (!taker)
                        continue;
                count->of[taker->kind]++;
                count->by_tag[taker->tag - 1]++;
        }
        check_equal(check, "pool", handle, "free blocks of a slab", slab->n_free, n_free);
        if (!(slab->alloc->flags & ALLOC_HELD) || slab->alloc->holder != &pool->holder)
                check_complain(check, "pool", handle, "Allocation %llu is not the pool's",
                               (unsigned long long)slab->alloc->handle);
        count->blocks += slab->n;
        count->free += n_free;
        count->idle += n_free == slab->n;
        count->bytes += alloc_size(slab->alloc);
}

static void check_takers(struct check *check, const struct pool *pool, const uint64_t *counts) {
        const uint64_t handle = pool->holder.handle;
        const struct taker *taker;
        uint32_t i;

        for (i = 0; i < pool->n_takers; i++) {
                taker = pool->takers[i].taker;
                if (!taker)
                        continue;
                check_equal(check, "pool", handle, "blocks of one taker", taker->n, counts[i]);
                if (!taker->n)
                        check_complain(check, "pool", handle, "A taker has nothing");
                if (taker->lease && (taker->lease->count != taker->n || taker->lease->holder != &pool->holder))
                        check_complain(check, "pool", handle, "Lease %llu and its blocks differ",
                                       (unsigned long long)taker->lease->handle);
        }
}

static void check_lists(struct check *check, const struct pool *pool, const struct count *count) {
        const uint64_t handle = pool->holder.handle;
        uint64_t idle = 0, leases = 0, waiters = 0;
        const struct waiter *waiter;
        const struct lease *lease;
        const struct slab *slab;

        DL_FOREACH(pool->idle, slab)
                idle++;
        DL_FOREACH2(pool->holder.leases, lease, holder_next)
                leases++;
        DL_FOREACH(pool->holder.waiters, waiter)
                waiters++;
        check_equal(check, "pool", handle, "idle slabs", idle, count->idle);
        check_equal(check, "pool", handle, "leases", pool->holder.n_leases, leases);
        check_equal(check, "pool", handle, "waiters", pool->holder.n_waiters, waiters);
        /* What memory is fetched for is the only reason to have less. */
        if (!pool->creating && pool->n_blocks < pool->reserve)
                check_complain(check, "pool", handle, "The reserve of %llu blocks is not there",
                               (unsigned long long)pool->reserve);
        if (pool->max_blocks && pool->n_blocks > pool->max_blocks)
                check_complain(check, "pool", handle, "It has more blocks than it may have");
}

static void check_pool(struct check *check, const struct pool *pool) {
        const uint64_t handle = pool->holder.handle;
        struct count count = { .by_tag = calloc(pool->n_takers + 1, sizeof(*count.by_tag)) };
        uint32_t i;
        size_t j;

        if (!count.by_tag) {
                check_complain(check, "pool", handle, "The daemon itself is out of memory");
                return;
        }
        for (j = 0; j < pool->n_slabs; j++) {
                check_slab(check, pool, pool->slabs[j], &count);
                if (j && alloc_dma_addr(pool->slabs[j]->alloc) <= alloc_dma_addr(pool->slabs[j - 1]->alloc))
                        check_complain(check, "pool", handle, "Its slabs are out of order");
        }
        check_takers(check, pool, count.by_tag);
        check_equal(check, "pool", handle, "blocks", pool->n_blocks, count.blocks);
        check_equal(check, "pool", handle, "free", pool->n_free, count.free);
        check_equal(check, "pool", handle, "bytes", pool->bytes, count.bytes);
        for (i = 0; i < TAKER_KINDS; i++)
                check_equal(check, "pool", handle, "blocks taken", pool->of[i], count.of[i]);
        check_equal(check, "pool", handle, "blocks out", pool->allocs - pool->frees, count.blocks - count.free);
        check_lists(check, pool, &count);
        free(count.by_tag);
}

void check_pools(struct check *check, const struct device *device, struct quota *counted) {
        const struct pool *pool;
        uint64_t n = 0;

        DL_FOREACH(device->pools, pool) {
                check_pool(check, pool);
                counted->of[QUOTA_leases] += pool->holder.n_leases;
                n++;
        }
        counted->of[QUOTA_pools] += n;
        check_equal(check, "device", device->handle, "pools", device->n_pools, n);
}
