/* Requests for blocks, and the memory that a pool fetches for them. The queue itself is in wait.c. */
#include <errno.h>
#include <stdlib.h>

#include "daemon/core/pool.h"

/* More in one request would hold up everybody else. */
#define BLOCKS_MAX (UINT64_C(1) << 16)
/* Nobody tells when a quota or a source has room again, or when whoever was asked for leases is ready to be asked anew. */
#define RETRY_MS 100

enum ask_kind { ASK_RESERVE, ASK_BLOCKS, ASK_LEASE };

struct ask {
        struct waiter waiter;
        enum ask_kind kind;
        uint64_t count;
        uint64_t grow; /* number of the growth that it waited for, or 0 */
        uint64_t handle;     /* the answer: of a pool, of a taker or of a lease */
        struct taker *taker; /* the answer that is told at once and only once, and needs no handle */
        bool again;          /* it was told before */
        broker_done_fn done;
        pool_done_fn done_blocks;
        void *userdata;
};

/* ---- fetching memory ---- */

static void grown(void *userdata, const struct failure *failure, uint64_t handle) {
        struct pool *pool = userdata;
        struct broker *broker = pool_broker(pool);
        struct failure own = {};
        struct alloc *alloc;

        pool->growing = false;
        pool->growth = NULL;
        if (!failure) {
                alloc = handle_find(&broker->handles, HANDLE_ALLOC, handle);
                if (slab_add(pool, alloc, &own) < 0) {
                        alloc_free(alloc);
                        failure = &own;
                }
        }
        if (failure) {
                pool->grow_failure = *failure;
                pool->failed_grow = pool->n_grows;
                pool->failed_waited = pool->grow_waits;
                /* Whoever waits has not been refused yet if this one could not wait, or not as long. */
                if (pool->grow_waits && failure->reason != REASON_timeout)
                        pool->retry_ms = now_ms(broker) + RETRY_MS;
        }
        holder_due(&pool->holder);
}

void pool_stop_growing(struct pool *pool) {
        struct ticket *growth = pool->growth;

        if (!pool->growing)
                return;
        pool->growing = false;
        pool->growth = NULL;
        request_withdraw(growth);
        pool_broker(pool)->serve_again = true;
}

static int pool_grow(struct pool *pool, struct ask *ask) {
        const struct device *device = pool->holder.device;
        const struct waiter *waiter = &ask->waiter;
        struct arena_request want = {
                .size = pool->slab_size,
                .align = larger(larger(pool->align, PAGE), device->min_align_mask + 1),
                .limit = device->coherent_mask,
        };
        uint64_t wait_ms = 0, now = now_ms(waiter->broker);
        struct ticket *growth;

        if (pool->boundary && pool->boundary < pool->slab_size)
                want.align = larger(want.align, pool->boundary);
        else
                want.boundary = pool->boundary;
        if (waiter->wait_ms)
                wait_ms = waiter->deadline_ms > now ? waiter->deadline_ms - now : 1;
        pool->growing = true;
        pool->grows_high = waiter->high;
        pool->grow_waits = wait_ms > 0;
        pool->retry_ms = 0;
        ask->grow = ++pool->n_grows;
        growth = alloc_for_holder(&pool->holder, &want, wait_ms, waiter->high, grown, pool);
        if (pool->growing)
                pool->growth = growth;
        return WAITER_FETCHING;
}

/* ---- why not ---- */

static void add_numbers(struct failure *failure, const struct pool *pool, const struct ask *ask) {
        failure_add_number(failure, "pool", pool->holder.handle);
        failure_add_number(failure, "asked", ask->count);
        failure_add_number(failure, "blocks", pool->n_blocks);
        failure_add_number(failure, "free", pool->n_free);
}

static int fail_full(const struct pool *pool, struct ask *ask) {
        struct failure *failure = &ask->waiter.failure;

        failure_set(failure, REASON_limit,
                    "Pool %s has all the blocks that it may have, %llu, and too few of them are free: %llu", pool->name,
                    (unsigned long long)pool->n_blocks, (unsigned long long)pool->n_free);
        add_numbers(failure, pool, ask);
        failure_add_number(failure, "limit", pool->max_blocks);
        return -reason_errno(REASON_limit);
}

/* The reason is the memory's, with whose pool it was for. */
static int fail_grow(const struct pool *pool, struct ask *ask) {
        const struct failure *why = &pool->grow_failure;
        struct failure *failure = &ask->waiter.failure;
        size_t i;

        failure_set_errno(failure, why->reason, why->error, "Pool %s, with %llu of %llu blocks free, needs memory: %s",
                          pool->name, (unsigned long long)pool->n_free, (unsigned long long)pool->n_blocks, why->sentence);
        for (i = 0; i < why->n_values && i < FAILURE_VALUES_MAX - 3; i++)
                failure->values[failure->n_values++] = why->values[i];
        failure_add_number(failure, "pool", pool->holder.handle);
        failure_add_number(failure, "blocks", pool->n_blocks);
        failure_add_number(failure, "free_blocks", pool->n_free);
        return -failure->error;
}

static void ask_refuse(struct waiter *waiter, enum reason reason) {
        const struct pool *pool = (struct pool *)waiter->holder;
        struct ask *ask = (struct ask *)waiter;

        if (reason == REASON_timeout)
                failure_set(&waiter->failure, reason, "No %s of pool %s became free within %llu ms",
                            ask->kind == ASK_RESERVE ? "memory for the reserve" : ask->count > 1 ? "such number of blocks"
                                                                                                  : "block",
                            pool->name, (unsigned long long)waiter->wait_ms);
        else
                failure_set(&waiter->failure, reason,
                            "Earlier requests wait for blocks of pool %s; this one was told not to wait", pool->name);
        add_numbers(&waiter->failure, pool, ask);
        if (reason == REASON_timeout)
                failure_add_number(&waiter->failure, "wait_ms", waiter->wait_ms);
}

/* ---- serving ---- */

/* Blocks without which it is not served. */
static uint64_t ask_need(const struct ask *ask) {
        return ask->kind == ASK_LEASE ? 1 : ask->count;
}

static bool ask_ready(const struct pool *pool, const struct ask *ask) {
        return ask_need(ask) <= (ask->kind == ASK_RESERVE ? pool->n_blocks : pool->n_free);
}

/* Each is remembered block by block. */
static bool answers_full(const struct owner *owner, struct failure *failure) {
        uint64_t limit = owner->quota.of[QUOTA_leases];

        if (owner->n_answers < limit)
                return false;
        failure_set(failure, REASON_quota, "%s has %llu answers with a request_key whose blocks are not freed, and may have as "
                    "many as leases: %llu", owner->name, (unsigned long long)owner->n_answers, (unsigned long long)limit);
        failure_add_text(failure, "quota", quota_name(QUOTA_leases));
        failure_add_number(failure, "limit", limit);
        failure_add_number(failure, "in_use", owner->n_answers);
        return true;
}

/* Released handles are remembered the longer the fewer are taken: most answers do without one. */
static int take_blocks(struct pool *pool, struct ask *ask) {
        struct waiter *waiter = &ask->waiter;
        struct taker *taker = taker_get(pool, waiter->session, true, ask->count);
        bool later = waiter->key || waiter->holder;

        if (taker && waiter->key && answers_full(waiter->session->owner, &waiter->failure)) {
                taker_end(taker);
                return -waiter->failure.error;
        }
        if (!taker || (later && handle_new(&waiter->broker->handles, HANDLE_BLOCKS, taker, &taker->handle) < 0)) {
                if (taker)
                        taker_end(taker);
                return failure_set(&waiter->failure, REASON_no_memory, "The daemon itself is out of memory");
        }
        blocks_take(pool, taker, ask->count);
        ask->taker = taker;
        ask->handle = taker->handle;
        taker->key = waiter->key;
        if (taker->key) {
                taker->key->handle = taker->handle;
                waiter->session->owner->n_answers++;
                book_note(waiter->broker, ROW_ANSWER, taker->handle);
        }
        return 0;
}

static int ask_take(struct pool *pool, struct ask *ask) {
        struct waiter *waiter = &ask->waiter;
        struct lease *lease;
        int r = 0;

        if (ask->kind == ASK_BLOCKS) {
                r = take_blocks(pool, ask);
        } else if (ask->kind == ASK_LEASE) {
                r = blocks_lease(pool, waiter->session, ask->count, waiter->key, &lease, &waiter->failure);
                if (r == 0)
                        ask->handle = lease->handle;
        } else {
                pool->creating = false;
                book_note(waiter->broker, ROW_POOL, pool->holder.handle);
                ask->handle = pool->holder.handle;
                pool->holder.key = waiter->key;
                if (waiter->key)
                        waiter->key->handle = ask->handle;
        }
        if (r == 0)
                waiter->key = NULL;
        return r;
}

/* Memory that is fetched for others will do, unless they have more or less to say, or more time. */
static bool growth_suits(const struct pool *pool, const struct waiter *waiter) {
        return pool->grows_high == waiter->high && (!pool->grow_waits || waiter->wait_ms);
}

/* Its own last attempt to fetch memory failed for good: also waiting brings none. But what it waits for can come from
 * those who have it now, if there is enough in all; and a deadline was another's, or it would not be here any more. */
static bool ask_hopeless(const struct pool *pool, const struct ask *ask) {
        if (!ask->waiter.wait_ms)
                return true;
        return pool->failed_waited && pool->grow_failure.reason != REASON_timeout && ask_need(ask) > pool->n_blocks;
}

static int ask_fetch(struct pool *pool, struct ask *ask) {
        struct waiter *waiter = &ask->waiter;
        uint64_t now = now_ms(waiter->broker);

        if (ask->grow && ask->grow == pool->failed_grow) {
                ask->grow = 0;
                holder_recall(&pool->holder, ask_need(ask) * pool->holder.unit);
                if (ask_hopeless(pool, ask))
                        return fail_grow(pool, ask);
        }
        if (pool->growing && !growth_suits(pool, waiter))
                pool_stop_growing(pool);
        if (pool->growing) {
                ask->grow = pool->n_grows;
                return WAITER_FETCHING;
        }
        if (pool->max_blocks && pool->n_blocks >= pool->max_blocks) {
                holder_recall(&pool->holder, ask_need(ask) * pool->holder.unit);
                if (pool->retry_ms <= now)
                        pool->retry_ms = pool->holder.leases ? now + RETRY_MS : 0;
                fail_full(pool, ask);
                return WAITER_BLOCKED;
        }
        if (waiter->wait_ms && now < pool->retry_ms)
                return WAITER_BLOCKED;
        return pool_grow(pool, ask);
}

static int ask_serve(struct waiter *waiter) {
        struct pool *pool = (struct pool *)waiter->holder;
        struct ask *ask = (struct ask *)waiter;

        return ask_ready(pool, ask) ? ask_take(pool, ask) : ask_fetch(pool, ask);
}

static void nobody_waits(struct holder *holder) {
        struct broker *broker = holder->device->owner->broker;
        struct pool *pool = (struct pool *)holder;

        pool_stop_growing(pool);
        if (pool->creating) {
                pool_end(pool);
                return;
        }
        pool_look_spare(pool);
        /* Others may wait for the memory that is not needed here. */
        if (pool->spare && broker->n_requests)
                broker->serve_again = true;
}

/* ---- answering ---- */

static void *ask_object(const struct ask *ask) {
        static const enum handle_kind kinds[] = {
                [ASK_RESERVE] = HANDLE_POOL,
                [ASK_BLOCKS] = HANDLE_BLOCKS,
                [ASK_LEASE] = HANDLE_LEASE,
        };

        if (ask->taker && !ask->handle)
                return ask->taker;
        return handle_find(&ask->waiter.broker->handles, kinds[ask->kind], ask->handle);
}

static struct pool_block *blocks_told(const struct taker *taker) {
        const struct pool *pool = taker->pool;
        struct pool_block *blocks = calloc(taker->n_told, sizeof(*blocks));
        struct slab *slab;
        bool exact;
        size_t i;

        for (i = 0; blocks && i < taker->n_told; i++) {
                slab = slab_at(pool, taker->told[i]);
                block_look(pool, slab, block_index(pool, slab, taker->told[i] - alloc_dma_addr(slab->alloc), &exact), &blocks[i]);
        }
        return blocks;
}

static void tell_blocks(struct ask *ask, struct taker *taker) {
        struct pool_block *blocks = blocks_told(taker);
        size_t n = taker->n_told;

        if (!blocks) {
                if (!ask->again)
                        taker_release(taker);
                failure_set(&ask->waiter.failure, REASON_no_memory, "The daemon itself is out of memory");
                ask->done_blocks(ask->userdata, &ask->waiter.failure, NULL, 0);
                return;
        }
        if (!taker->key)
                taker_merge(taker);
        ask->done_blocks(ask->userdata, NULL, blocks, n);
        free(blocks);
}

static void ask_tell(struct waiter *waiter) {
        struct ask *ask = (struct ask *)waiter;
        struct failure *failure = &waiter->failure;

        /* An answer that was told just before may have ended the pool or the session. */
        if (!failure->error && !ask_object(ask))
                failure_set(failure, REASON_gone, "The pool or the session ended while the answer was on its way");
        if (ask->kind == ASK_BLOCKS && failure->error)
                ask->done_blocks(ask->userdata, failure, NULL, 0);
        else if (ask->kind == ASK_BLOCKS)
                tell_blocks(ask, ask_object(ask));
        else
                ask->done(ask->userdata, failure->error ? failure : NULL, failure->error ? 0 : ask->handle);
}

static void ask_undo(struct waiter *waiter) {
        struct ask *ask = (struct ask *)waiter;
        void *object = ask_object(ask);

        if (!object)
                return;
        if (ask->kind == ASK_BLOCKS)
                taker_release(object);
        else if (ask->kind == ASK_LEASE)
                lease_end(object, false);
        else
                pool_end(object);
}

const struct holder_ops pool_ops = {
        .serve = ask_serve,
        .refuse = ask_refuse,
        .tell = ask_tell,
        .undo = ask_undo,
        .nobody_waits = nobody_waits,
};

/* ---- asking ---- */

static struct ticket *ask_submit(struct pool *pool, const struct ask *ask, uint64_t wait_ms, bool high,
                                 struct request_key *key, struct failure *failure) {
        struct ask *waiting = waiter_new(sizeof(*waiting), ask->waiter.session, &pool->holder, wait_ms, high, failure);

        if (!waiting)
                return NULL;
        waiting->kind = ask->kind;
        waiting->count = ask->count;
        waiting->done = ask->done;
        waiting->done_blocks = ask->done_blocks;
        waiting->userdata = ask->userdata;
        waiting->waiter.key = key;
        return waiter_submit(&waiting->waiter);
}

struct ticket *pool_ask_reserve(struct pool *pool, struct session *session, const struct pool_options *options,
                                struct request_key *key, broker_done_fn done, void *userdata) {
        struct ask ask = {
                .waiter.session = session,
                .kind = ASK_RESERVE,
                .count = pool->reserve,
                .done = done,
                .userdata = userdata,
        };
        struct failure failure = {};
        struct ticket *ticket;

        ticket = ask_submit(pool, &ask, options->wait_ms, options->high, key, &failure);
        if (failure.error) {
                key_forget(session->owner, key);
                pool_end(pool);
                done(userdata, &failure, 0);
        }
        return ticket;
}

static int ask_check(const struct pool *pool, const struct ask *ask, struct failure *failure) {
        uint64_t limit = pool->max_blocks ? smaller(pool->max_blocks, BLOCKS_MAX) : BLOCKS_MAX;

        if (!ask->count) {
                failure_set(failure, REASON_bad_param, "count is the number of blocks, above zero");
                failure_add_text(failure, "param", "count");
                return -EINVAL;
        }
        if (ask->kind == ASK_LEASE || ask->count <= limit)
                return 0;
        failure_set(failure, REASON_limit, "Pool %s gives at most %llu blocks at once, and %llu were asked for", pool->name,
                    (unsigned long long)limit, (unsigned long long)ask->count);
        failure_add_number(failure, "pool", pool->holder.handle);
        failure_add_number(failure, "asked", ask->count);
        failure_add_number(failure, "limit", limit);
        return -reason_errno(REASON_limit);
}

/* Nobody waits, or nobody with the same right; what may not wait and is of high priority passes everybody. */
static bool may_pass(const struct pool *pool, const struct pool_request *request) {
        const struct waiter *first = pool->holder.waiters;

        return !first || (request->high && (!first->high || !request->wait_ms));
}

static struct ticket *ask_now(struct pool *pool, struct ask *ask, struct request_key *key) {
        ask->waiter.key = key;
        if (ask_take(pool, ask) < 0) {
                pool->holder.failures++;
                key_forget(ask->waiter.session->owner, key);
        }
        ask_tell(&ask->waiter);
        return NULL;
}

static struct ticket *ask_failed(struct ask *ask, const struct failure *failure) {
        ask->waiter.failure = *failure;
        ask_tell(&ask->waiter);
        return NULL;
}

/* What is asked for is in `ask`. */
static struct ticket *pool_ask(const struct caller *caller, const struct pool_request *request, struct ask *ask) {
        enum handle_kind kind = ask->kind == ASK_LEASE ? HANDLE_LEASE : HANDLE_BLOCKS;
        struct session *session = caller->session;
        struct request_key *key = NULL;
        struct failure failure = {};
        struct ticket *ticket;
        struct pool *pool;
        int r;

        ask->waiter.broker = session->owner->broker;
        ask->waiter.session = session;
        ask->count = request->count;
        pool = pool_of(caller, request->pool, false, &failure);
        if (!pool)
                return ask_failed(ask, &failure);
        r = ask_check(pool, ask, &failure);
        if (r == 0)
                r = key_begin(session->owner, request->request_key, kind, request->request_digest, &key, &failure);
        if (r == 1) {
                ask->handle = key->handle;
                ask->again = true;
                ask_tell(&ask->waiter);
                return NULL;
        }
        if (r == 0 && ask->kind == ASK_LEASE)
                r = device_check(pool->holder.device, QUOTA_leases, 1, &failure);
        if (r < 0) {
                pool->holder.failures++;
                key_forget(session->owner, key);
                return ask_failed(ask, &failure);
        }
        if (ask_ready(pool, ask) && may_pass(pool, request))
                return ask_now(pool, ask, key);
        ticket = ask_submit(pool, ask, request->wait_ms, request->high, key, &failure);
        if (failure.error) {
                pool->holder.failures++;
                key_forget(session->owner, key);
                ask_failed(ask, &failure);
        }
        return ticket;
}

struct ticket *pool_alloc(const struct caller *caller, const struct pool_request *request, pool_done_fn done,
                          void *userdata) {
        struct ask ask = { .kind = ASK_BLOCKS, .done_blocks = done, .userdata = userdata };

        return pool_ask(caller, request, &ask);
}

struct ticket *pool_lease(const struct caller *caller, const struct pool_request *request, broker_done_fn done,
                          void *userdata) {
        struct ask ask = { .kind = ASK_LEASE, .done = done, .userdata = userdata };

        return pool_ask(caller, request, &ask);
}
