/* Pools as a whole: making and destroying them, taking blocks back, and giving memory back that they do not need. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/pool.h"

#define NAME_MAX_LENGTH 63
#define BLOCK_MIN UINT64_C(8)
#define BLOCK_MAX (UINT64_C(4) << 20)
#define ALIGN_DEFAULT UINT64_C(64)
/* A slab has at least this many blocks, and at least, or else at most, these bytes. */
#define SLAB_BLOCKS 16
#define SLAB_MIN (UINT64_C(64) << 10)
#define SLAB_MAX (UINT64_C(2) << 20)

static struct pool *pool_find(const struct caller *caller, uint64_t handle, bool any) {
        struct owner *owner = caller->session->owner;
        struct pool *pool = handle_find(&owner->broker->handles, HANDLE_POOL, handle);
        bool may = pool && (pool->holder.device->owner == owner || (any && caller->admin));

        return may && !pool->creating ? pool : NULL;
}

struct pool *pool_of(const struct caller *caller, uint64_t handle, bool any, struct failure *failure) {
        struct pool *pool = pool_find(caller, handle, any);

        if (!pool)
                handle_not_found(caller, HANDLE_POOL, handle, failure);
        return pool;
}

/* ---- making ---- */

static int bad_param(const char *param, struct failure *failure, const char *sentence) {
        failure_set(failure, REASON_bad_param, "%s", sentence);
        failure_add_text(failure, "param", param);
        return -EINVAL;
}

static int name_check(const char *name, struct failure *failure) {
        const char *c = name;

        while (*c && !iscntrl((unsigned char)*c))
                c++;
        if (*c || c == name || c - name > NAME_MAX_LENGTH)
                return bad_param("name", failure, "A pool's name has 1 to 63 bytes, and no control characters");
        return 0;
}

static int options_check(const struct pool_options *options, struct failure *failure) {
        int r;

        r = name_check(options->name ? options->name : "", failure);
        if (r == 0 && !options->size)
                r = bad_param("size", failure, "A pool's blocks have a size above zero");
        if (r == 0)
                r = power_check(options->align, "align", REASON_bad_param, failure);
        if (r == 0)
                r = power_check(options->boundary, "boundary", REASON_boundary, failure);
        if (r == 0 && options->max_blocks && options->reserve > options->max_blocks)
                r = bad_param("reserve", failure, "The reserve is part of max_blocks, and cannot be larger");
        if (r == 0 && options->caching != POOL_CACHED)
                r = failure_set(failure, REASON_unsupported,
                                "Blocks are cached only: the kernel maps huge pages, dma-bufs and the simulation write-back");
        return r;
}

static int block_limit(uint64_t size, uint64_t limit, const char *whose, struct failure *failure) {
        if (size <= limit)
                return 0;
        failure_set(failure, REASON_limit, "A block of %llu bytes, with its alignment, is too large: %s is %llu",
                    (unsigned long long)size, whose, (unsigned long long)limit);
        failure_add_number(failure, "asked", size);
        failure_add_number(failure, "limit", limit);
        return -reason_errno(REASON_limit);
}

static int block_layout(struct pool *pool, const struct pool_options *options, struct failure *failure) {
        const struct device *device = pool->holder.device;
        int r;

        pool->align = options->align ? options->align : ALIGN_DEFAULT;
        r = block_limit(options->size, BLOCK_MAX, "the most", failure);
        if (r == 0)
                r = block_limit(pool->align, BLOCK_MAX, "the most", failure);
        if (r < 0)
                return r;
        pool->holder.unit = round_up(larger(options->size, BLOCK_MIN), pool->align);
        pool->boundary = tightest(options->boundary, device->boundary);
        if (device->max_segment)
                r = block_limit(pool->holder.unit, device->max_segment, "the device's largest segment", failure);
        if (r == 0 && pool->boundary && pool->holder.unit > pool->boundary) {
                failure_set(failure, REASON_boundary, "A block of %llu bytes cannot lie between two boundaries of %llu",
                            (unsigned long long)pool->holder.unit, (unsigned long long)pool->boundary);
                failure_add_number(failure, "asked", pool->holder.unit);
                failure_add_number(failure, "boundary", pool->boundary);
                r = -reason_errno(REASON_boundary);
        }
        return r;
}

/* Blocks that must not cross a boundary are laid out from one to the next; what is left before each is not used. */
static void slab_layout(struct pool *pool) {
        const struct device *device = pool->holder.device;
        uint64_t unit = pool->holder.unit, blocks = larger(SLAB_MIN / unit, SLAB_BLOCKS), limit, chunks;

        limit = tightest(tightest(device->max_segment, device->boundary), SLAB_MAX);
        limit = larger(unit, smaller(limit, SLAB_MAX));
        blocks = smaller(blocks, limit / unit);
        if (pool->max_blocks)
                blocks = smaller(blocks, pool->max_blocks);
        pool->slab_size = pool->chunk = round_up(blocks * unit, PAGE);
        if (pool->boundary && pool->boundary < pool->slab_size && pool->boundary % unit) {
                pool->chunk = pool->boundary;
                chunks = (blocks + pool->chunk / unit - 1) / (pool->chunk / unit);
                chunks = larger(1, smaller(chunks, limit / pool->chunk));
                pool->slab_size = round_up(chunks * pool->chunk, PAGE);
        }
        pool->per_chunk = pool->chunk / unit;
        pool->per_slab = pool->slab_size / pool->chunk * pool->per_chunk;
        if (pool->max_blocks)
                pool->per_slab = smaller(pool->per_slab, pool->max_blocks);
}

/* A reserve that can never be had takes nothing from others while it tries. */
static int reserve_check(const struct pool *pool, struct failure *failure) {
        const struct broker *broker = pool_broker(pool);
        uint64_t slabs = pool->reserve / pool->per_slab + !!(pool->reserve % pool->per_slab), all = 0;
        const struct supply *supply;
        int r;

        LL_FOREACH(broker->supplies, supply)
                if (supply_is_granted(supply) == owner_is_granted(pool->holder.device->owner))
                        all += smaller(supply->held + smaller(supply->info.available, UINT64_MAX - supply->held),
                                       UINT64_MAX - all);
        if (slabs > all / pool->slab_size) {
                failure_set(failure, REASON_no_memory,
                            "A reserve of %llu blocks takes %llu slabs of %llu bytes, more memory than there is",
                            (unsigned long long)pool->reserve, (unsigned long long)slabs,
                            (unsigned long long)pool->slab_size);
                failure_add_number(failure, "asked", pool->reserve);
                failure_add_number(failure, "reachable", all);
                return -reason_errno(REASON_no_memory);
        }
        r = device_check(pool->holder.device, QUOTA_bytes, slabs * pool->slab_size, failure);
        return r < 0 ? r : device_check(pool->holder.device, QUOTA_allocs, slabs, failure);
}

static void pool_enter(struct pool *pool) {
        struct device *device = pool->holder.device;

        DL_APPEND(device->pools, pool);
        device->n_pools++;
        device_charge(device, QUOTA_pools, 1);
        device->owner->broker->counts.pools++;
}

static int pool_new(struct device *device, const struct pool_options *options, struct pool **ret, struct failure *failure) {
        struct broker *broker = device->owner->broker;
        struct pool *pool = calloc(1, sizeof(*pool));
        int r = -ENOMEM;

        if (!pool)
                goto fail;
        pool->holder.kind = HOLDER_POOL;
        pool->holder.device = device;
        pool->holder.ops = &pool_ops;
        pool->holder.lease_ended = blocks_lease_ended;
        pool->reserve = options->reserve;
        pool->max_blocks = options->max_blocks;
        pool->creating = true;
        pool->born_ms = now_ms(broker);
        r = block_layout(pool, options, failure);
        if (r < 0)
                goto fail;
        slab_layout(pool);
        r = reserve_check(pool, failure);
        if (r < 0)
                goto fail;
        r = -ENOMEM;
        pool->name = strdup(options->name);
        if (!pool->name || handle_new(&broker->handles, HANDLE_POOL, pool, &pool->holder.handle) < 0)
                goto fail;
        pool_enter(pool);
        *ret = pool;
        return 0;

fail:
        if (pool)
                free(pool->name);
        free(pool);
        /* What was refused for a reason has said so. */
        return failure->error ? r : failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
}

struct ticket *pool_create(const struct caller *caller, const struct pool_options *options, broker_done_fn done,
                           void *userdata) {
        struct device *device;
        struct request_key *key = NULL;
        struct failure failure = {};
        struct pool *pool = NULL;
        int r = -ENOENT;

        device = device_of(caller, options->device, &failure);
        if (device)
                r = options_check(options, &failure);
        if (r == 0)
                r = key_begin(device->owner, options->request_key, HANDLE_POOL, options->request_digest, &key, &failure);
        if (r == 1) {
                done(userdata, NULL, key->handle);
                return NULL;
        }
        if (r == 0)
                r = device_check(device, QUOTA_pools, 1, &failure);
        if (r == 0)
                r = pool_new(device, options, &pool, &failure);
        if (r == 0) {
                pool->holder.maker = caller->session->id;
                return pool_ask_reserve(pool, caller->session, options, key, done, userdata);
        }
        if (key)
                key_forget(device->owner, key);
        done(userdata, &failure, 0);
        return NULL;
}

/* ---- the ledger ---- */

void pool_save(struct row_writer *row, const struct pool *pool) {
        const struct holder *holder = &pool->holder;

        row_number(row, holder->device->handle);
        row_text(row, pool->name);
        row_number(row, holder->maker);
        row_number(row, holder->unit);
        row_number(row, pool->align);
        row_number(row, pool->boundary);
        row_number(row, pool->slab_size);
        row_number(row, pool->chunk);
        row_number(row, pool->per_chunk);
        row_number(row, pool->per_slab);
        row_number(row, pool->reserve);
        row_number(row, pool->max_blocks);
        row_number(row, pool->small);
        row_number(row, pool->small_n);
        row_number(row, pool->born_ms);
        row_key(row, holder->key);
}

static int pool_read(struct load *load, struct pool *pool) {
        uint64_t per_slab;
        const char *name;

        pool->holder.device = load_object(load, HANDLE_DEVICE);
        name = row_read_text(&load->row);
        pool->name = name ? strdup(name) : NULL;
        if (name && !pool->name)
                return -ENOMEM;
        pool->holder.maker = (uint32_t)row_read_number(&load->row);
        pool->holder.unit = row_read_number(&load->row);
        pool->align = row_read_number(&load->row);
        pool->boundary = row_read_number(&load->row);
        pool->slab_size = row_read_number(&load->row);
        pool->chunk = row_read_number(&load->row);
        pool->per_chunk = (uint32_t)row_read_number(&load->row);
        per_slab = row_read_number(&load->row);
        pool->per_slab = (uint32_t)per_slab;
        pool->reserve = row_read_number(&load->row);
        pool->max_blocks = row_read_number(&load->row);
        pool->small = row_read_number(&load->row);
        pool->small_n = (uint32_t)row_read_number(&load->row);
        pool->born_ms = row_read_number(&load->row);
        if (!pool->holder.device)
                return -ENOENT;
        if (load->row.failed || !name || !pool->holder.unit || !pool->chunk || !pool->per_chunk || !pool->per_slab ||
            pool->small_n > pool->per_slab || per_slab > UINT32_MAX ||
            per_slab > pool->slab_size / pool->chunk * pool->per_chunk ||
            pool->per_chunk > pool->chunk / pool->holder.unit)
                return -EBADMSG;
        return handle_restore(&load->broker->handles, HANDLE_POOL, pool, load->id);
}

int pool_load(struct load *load) {
        struct pool *pool = calloc(1, sizeof(*pool));
        int r;

        if (!pool)
                return -ENOMEM;
        r = pool_read(load, pool);
        if (r < 0) {
                free(pool->name);
                free(pool);
                return r;
        }
        pool->holder.kind = HOLDER_POOL;
        pool->holder.ops = &pool_ops;
        pool->holder.lease_ended = blocks_lease_ended;
        pool->holder.handle = load->id;
        pool->holder.key = load_key(load, pool->holder.device->owner, HANDLE_POOL);
        pool_enter(pool);
        return 0;
}

/* ---- ending ---- */

void pool_end(struct pool *pool) {
        struct device *device = pool->holder.device;
        struct broker *broker = pool_broker(pool);
        uint32_t i;
        size_t j;

        handle_release(&broker->handles, pool->holder.handle, device->owner->id);
        book_note(broker, ROW_POOL, pool->holder.handle);
        key_forget(device->owner, pool->holder.key);
        pool_stop_growing(pool);
        slabs_rest(pool);
        while (pool->holder.leases)
                lease_end(pool->holder.leases, false);
        for (i = 0; i < pool->n_takers; i++)
                if (pool->takers[i].taker)
                        taker_end(pool->takers[i].taker);
        for (j = 0; j < pool->n_slabs; j++)
                slab_drop(pool, pool->slabs[j]);
        slabs_sweep(pool);
        waiters_end(&pool->holder);
        if (pool->spare)
                DL_DELETE2(broker->spare, pool, spare_prev, spare_next);
        DL_DELETE(device->pools, pool);
        device->n_pools--;
        device_discharge(device, QUOTA_pools, 1);
        broker->counts.pools--;
        free(pool->slabs);
        free(pool->takers);
        free(pool->name);
        free(pool);
        device_forget(device);
}

static void tell_leak(const struct pool *pool, uint64_t blocks) {
        const struct device *device = pool->holder.device;
        struct event event = {
                .topic = EVENT_LEAK,
                .owner = device->owner->name,
                .pool = pool->holder.handle,
                .device = device->handle,
                .name = pool->name,
                .bytes = blocks * pool->holder.unit,
                .count = blocks,
        };

        if (blocks)
                event_tell(pool_broker(pool), &event);
}

static uint64_t pool_busy(const struct pool *pool) {
        return pool->n_blocks - pool->n_free - pool->of[TAKER_QUARANTINE];
}

void pools_end(struct device *device) {
        while (device->pools) {
                tell_leak(device->pools, pool_busy(device->pools));
                pool_end(device->pools);
        }
}

/* The id of another session that has blocks of it; 0: there is none. */
static uint32_t other_user(const struct pool *pool, const struct session *session) {
        const struct session *user;
        uint32_t i;

        for (i = 0; i < pool->n_takers; i++) {
                const struct taker *taker = pool->takers[i].taker;

                user = !taker ? NULL : taker->lease ? taker->lease->session : taker->session;
                if (user && user != session)
                        return user->id;
        }
        return 0;
}

void pools_leave(struct device *device, const struct session *session) {
        struct pool *pool, *next;

        DL_FOREACH_SAFE(device->pools, pool, next) {
                if (pool->holder.maker != session->id)
                        continue;
                pool->holder.maker = other_user(pool, session);
                book_note(pool_broker(pool), ROW_POOL, pool->holder.handle);
                if (pool->holder.maker)
                        continue;
                tell_leak(pool, pool_busy(pool));
                pool_end(pool);
        }
}

void pools_end_session(struct session *session, bool died) {
        struct taker *taker;

        DL_FOREACH(session->takers, taker)
                taker->pool->leaked += taker->n;
        while ((taker = session->takers)) {
                tell_leak(taker->pool, taker->pool->leaked);
                taker->pool->leaked = 0;
                if (died)
                        taker_quarantine(taker);
                else
                        taker_release(taker);
        }
}

static void visit_busy(const struct pool *pool, pool_block_visit_fn visit, void *userdata) {
        const struct taker *taker;
        struct pool_block block;
        struct slab *slab;
        uint32_t index;
        size_t i;

        for (i = 0; i < pool->n_slabs; i++) {
                slab = pool->slabs[i];
                for (index = 0; index < slab->n && slab->n_free < slab->n; index++) {
                        taker = block_taker(pool, slab, index);
                        if (!taker || taker->kind == TAKER_QUARANTINE)
                                continue;
                        block_look(pool, slab, index, &block);
                        if (visit(&block, userdata))
                                return;
                }
        }
}

int pool_destroy(const struct caller *caller, uint64_t handle, bool force, pool_block_visit_fn visit, void *userdata,
                 struct failure *failure) {
        struct broker *broker = caller->session->owner->broker;
        struct pool *pool = pool_of(caller, handle, true, failure);
        uint64_t busy;

        if (!pool)
                return -ENOENT;
        busy = pool_busy(pool);
        if (busy && visit)
                visit_busy(pool, visit, userdata);
        if (busy && !force) {
                failure_set(failure, REASON_busy, "Pool %s still has %llu blocks handed out, %llu of them in %llu leases",
                            pool->name, (unsigned long long)busy, (unsigned long long)pool->of[TAKER_LEASE],
                            (unsigned long long)pool->holder.n_leases);
                failure_add_number(failure, "pool", handle);
                failure_add_number(failure, "blocks", busy);
                failure_add_number(failure, "leases", pool->holder.n_leases);
                return -reason_errno(REASON_busy);
        }
        tell_leak(pool, busy);
        pool_end(pool);
        requests_serve(broker);
        return 0;
}

/* ---- taking blocks back ---- */

/* Nothing starts here in this pool. Where it does lie helps whoever has mixed something up, if it is theirs. */
static int fail_address(const struct caller *caller, const struct pool *pool, uint64_t dma_addr, struct failure *failure) {
        const struct alloc *alloc = alloc_at(pool_broker(pool), pool->holder.device->owner, dma_addr, false);
        const char *where = "nothing has been handed out there";
        char text[120];

        if (alloc && alloc->device->owner == caller->session->owner) {
                if (alloc->flags & ALLOC_HELD && alloc->holder == &pool->holder)
                        snprintf(text, sizeof(text), "it lies in the pool, but no block starts there");
                else if (alloc->flags & ALLOC_HELD && alloc->holder->kind == HOLDER_POOL)
                        snprintf(text, sizeof(text), "it lies in pool %llu, %s", (unsigned long long)alloc->holder->handle,
                                 ((const struct pool *)alloc->holder)->name);
                else if (alloc->flags & ALLOC_HELD)
                        snprintf(text, sizeof(text), "it lies in bounce pool %llu", (unsigned long long)alloc->holder->handle);
                else
                        snprintf(text, sizeof(text), "it lies in allocation %llu", (unsigned long long)alloc->handle);
                where = text;
        }
        failure_set(failure, REASON_bad_address, "No block of pool %s starts at 0x%llx: %s", pool->name,
                    (unsigned long long)dma_addr, where);
        failure_add_hex(failure, "dma_addr", dma_addr);
        failure_add_number(failure, "pool", pool->holder.handle);
        return -reason_errno(REASON_bad_address);
}

static int fail_block(const struct pool *pool, uint64_t dma_addr, const struct taker *taker, struct failure *failure) {
        enum reason reason = !taker ? REASON_double_free : taker->kind == TAKER_LEASE ? REASON_busy : REASON_quarantined;

        failure_set(failure, reason, "The block of pool %s at 0x%llx %s", pool->name, (unsigned long long)dma_addr,
                    reason == REASON_double_free ? "is free already"
                    : reason == REASON_busy      ? "is part of a lease, which goes back as a whole"
                                                 : "was a vanished client's, and comes back by itself");
        failure_add_hex(failure, "dma_addr", dma_addr);
        failure_add_number(failure, "pool", pool->holder.handle);
        if (reason == REASON_busy)
                failure_add_number(failure, "lease", taker->lease->handle);
        return -reason_errno(reason);
}

static int block_find(const struct caller *caller, const struct pool *pool, uint64_t dma_addr, struct slab **ret_slab,
                      uint32_t *ret_index, struct failure *failure) {
        struct slab *slab = slab_at(pool, dma_addr);
        bool exact = false;
        int64_t index = slab ? block_index(pool, slab, dma_addr - alloc_dma_addr(slab->alloc), &exact) : -1;

        if (index < 0 || !exact)
                return fail_address(caller, pool, dma_addr, failure);
        *ret_slab = slab;
        *ret_index = (uint32_t)index;
        return 0;
}

/* Marks it as named in this call, so that it cannot be named twice. */
static int block_mark(const struct caller *caller, const struct pool *pool, uint64_t dma_addr, struct failure *failure) {
        const struct taker *taker;
        struct slab *slab;
        uint32_t index;
        int r;

        r = block_find(caller, pool, dma_addr, &slab, &index, failure);
        if (r < 0)
                return r;
        taker = slab->tags[index] & TAG_MARK ? NULL : block_taker(pool, slab, index);
        if (!taker || taker->kind == TAKER_LEASE || taker->kind == TAKER_QUARANTINE)
                return fail_block(pool, dma_addr, taker, failure);
        slab->tags[index] |= TAG_MARK;
        return 0;
}

int pool_free_blocks(const struct caller *caller, uint64_t handle, const uint64_t *dma_addrs, size_t n,
                     struct failure *failure) {
        struct broker *broker = caller->session->owner->broker;
        struct pool *pool = pool_of(caller, handle, true, failure);
        struct slab *slab = NULL;
        uint32_t index = 0;
        size_t marked;
        int r = 0;

        if (!pool)
                return -ENOENT;
        for (marked = 0; marked < n && r == 0; marked++)
                r = block_mark(caller, pool, dma_addrs[marked], failure);
        if (r < 0)
                marked--;
        while (marked--) {
                block_find(caller, pool, dma_addrs[marked], &slab, &index, NULL);
                slab->tags[index] &= ~TAG_MARK;
                if (r == 0)
                        block_release(pool, slab, index);
        }
        waiters_serve(broker);
        return r;
}

/* ---- giving memory back ---- */

void pool_look_spare(struct pool *pool) {
        struct broker *broker = pool_broker(pool);
        bool spare = pool->idle && pool->n_blocks >= pool->reserve + pool->idle->n;

        if (spare && !pool->spare) {
                pool->spare_since_ms = now_ms(broker);
                DL_APPEND2(broker->spare, pool, spare_prev, spare_next);
        } else if (!spare && pool->spare) {
                DL_DELETE2(broker->spare, pool, spare_prev, spare_next);
        }
        pool->spare = spare;
}

int pool_trim(const struct caller *caller, uint64_t handle, uint64_t *ret_bytes, struct failure *failure) {
        struct broker *broker = caller->session->owner->broker;
        struct pool *pool = pool_of(caller, handle, true, failure);

        if (!pool)
                return -ENOENT;
        /* What is free is spoken for while somebody waits for more of it. */
        *ret_bytes = pool->holder.waiters ? 0 : slabs_drop(pool, UINT64_MAX);
        requests_serve(broker);
        return 0;
}

/* Whether the request could be served from where this slab is. */
static bool slab_helps(const struct slab *slab, const struct request *request) {
        const struct region *region = slab->alloc->region;

        return region->device == request_reserve(request) && alloc_addr(slab->alloc) <= request->want.limit &&
               alloc_addr(slab->alloc) + alloc_size(slab->alloc) > request->want.floor;
}

static uint64_t pool_reclaim(struct pool *pool, const struct request *request, uint64_t wanted) {
        struct slab *slab, *next;
        uint64_t bytes = 0;

        DL_FOREACH_SAFE(pool->idle, slab, next) {
                if (bytes >= wanted || pool->n_blocks < pool->reserve + slab->n)
                        break;
                if (!slab_helps(slab, request))
                        continue;
                bytes += alloc_size(slab->alloc);
                slab_drop(pool, slab);
        }
        if (bytes)
                slabs_sweep(pool);
        pool_look_spare(pool);
        return bytes;
}

/* No more than the request needs, if it all came to where it is wanted; whoever calls looks, and comes again. Pools for
 * which others wait have nothing to give: two that fetched memory would take it from each other for ever. */
bool pools_reclaim(struct broker *broker, const struct request *request) {
        struct pool *pool, *next;
        uint64_t bytes = 0;

        for (pool = broker->spare; pool && bytes < request->want.size; pool = next) {
                next = pool->spare_next;
                if (!pool->holder.waiters)
                        bytes += pool_reclaim(pool, request, request->want.size - bytes);
        }
        return bytes > 0;
}

bool pools_trim(struct broker *broker, uint64_t most) {
        struct pool *pool, *next;
        uint64_t bytes = 0;

        for (pool = broker->spare; pool && bytes < most; pool = next) {
                next = pool->spare_next;
                if (!pool->holder.waiters && !device_lender(pool->holder.device))
                        bytes += slabs_drop(pool, UINT64_MAX);
        }
        return bytes > 0;
}

void pools_tick(struct broker *broker, uint64_t now) {
        const uint64_t idle_ms = broker->options.region_idle_ms;
        struct waiter *waiter;
        struct pool *pool;

        while ((pool = broker->spare) && now >= later(pool->spare_since_ms, idle_ms)) {
                DL_DELETE2(broker->spare, pool, spare_prev, spare_next);
                pool->spare = false;
                /* It is looked at again when nobody waits any more. */
                if (!pool->holder.waiters)
                        slabs_drop(pool, now - idle_ms);
        }
        DL_FOREACH2(broker->waiters, waiter, broker_next) {
                pool = (struct pool *)waiter->holder;
                if (pool->holder.kind == HOLDER_POOL && pool->retry_ms && pool->retry_ms <= now)
                        holder_due(&pool->holder);
        }
}

uint64_t pools_deadline(const struct broker *broker) {
        uint64_t deadline = UINT64_MAX;
        const struct waiter *waiter;
        const struct pool *pool;

        if (broker->spare)
                deadline = later(broker->spare->spare_since_ms, broker->options.region_idle_ms);
        DL_FOREACH2(broker->waiters, waiter, broker_next) {
                pool = (const struct pool *)waiter->holder;
                if (pool->holder.kind == HOLDER_POOL && pool->retry_ms)
                        deadline = smaller(deadline, pool->retry_ms);
        }
        return deadline;
}
