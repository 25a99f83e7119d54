/* Where a pool's blocks come from when no thread has any: its leases, the daemon, other threads' magazines; and the queue
 * of those who wait. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "client/error.h"
#include "client/params.h"
#include "client/pool.h"
#include "client/region.h"
#include "client/result.h"

enum {
        KEEP_BYTES = 1 << 20, /* of idle blocks that a pool keeps in any case */
        KEEP_BLOCKS = 8,
        GIVEN_UP_TRIES = 1000, /* a millisecond each */
        WAKE_TRIES = 100, /* each lost to another thread that narrows the mask just then */
};

/* A thread that waits; lives on its stack. */
struct waiter {
        TAILQ_ENTRY(waiter) entry;
        pthread_cond_t wake;
        uint64_t turn; /* pool->waits when it came */
        size_t n;
        void **vaddrs;
        dmab_addr_t *dmas;
        unsigned flags;
        struct timespec deadline;
        bool hopeless; /* the daemon will have no more: only this process's own blocks can help */
        bool done;
        int status;
        struct error_state *error;
};

/* ---- the daemon ---- */

static void wish_make(struct dmab_pool *pool, uint64_t number, unsigned flags, size_t count, struct lease_wish *wish) {
        *wish = (struct lease_wish){
                .number = number,
                .count = count,
                .high = flags & DMAB_HIGH,
                .fd = __atomic_load_n(&pool->dmab->fresh_regions, __ATOMIC_RELAXED),
        };
        link_make_key(pool->dmab->link, wish->key);
}

static void lease_params(const struct lease_wish *wish, uint64_t wait_ms, struct params *params) {
        params_begin(params);
        params_uint(params, "pool", wish->number);
        params_uint(params, "count", wish->count);
        params_uint(params, "wait_ms", wait_ms);
        if (wish->high)
                params_word(params, "priority", "high", '"');
        if (wish->fd)
                params_word(params, "fd", "true", 0);
        params_word(params, "request_key", wish->key, '"');
        params_end(params);
}

static void return_number(struct dmab *dmab, uint64_t number) {
        struct error_state *saved = error_save();
        struct link_reply reply = { 0 };
        struct params params;

        params_begin(&params);
        params_uint(&params, "lease", number);
        params_end(&params);
        /* What cannot be returned goes back with the session. */
        link_call(dmab->link,
                  &(struct link_request){ .method = "pool.return", .params = params.text, .repeat = LINK_RELEASE }, &reply);
        link_reply_release(&reply);
        error_restore(saved);
}

struct answer {
        struct region_place place;
        uint64_t number, count;
};

static int take_answer(json_t *result, struct answer *answer) {
        int r = result_uint(result, "lease", &answer->number);

        if (!r)
                r = region_read_place(result, &answer->place);
        if (!r)
                r = result_uint(result, "count", &answer->count);
        return r;
}

/* Into the books. With the lock held. */
static int note_lease(struct dmab_pool *pool, const struct answer *answer, struct region *region, void *start) {
        int r = lease_add(pool, answer->number, region, start, answer->place.dma_addr, answer->count);

        if (r)
                return r;
        pool->leases_taken++;
        if (pool->leases.blocks > pool->high_water)
                pool->high_water = pool->leases.blocks;
        pool->lease_next = 2 * pool->lease_next < pool->lease_most ? 2 * pool->lease_next : pool->lease_most;
        return 0;
}

static int map_lease(struct dmab_pool *pool, const struct answer *answer, int fd, struct region **ret_region,
                     void **ret_start) {
        struct dmab *dmab = pool->dmab;
        void *start = NULL;
        size_t bytes;
        bool fresh;
        int r = region_use(dmab, &answer->place, fd, ret_region, &fresh);

        if (r)
                return r;
        __atomic_store_n(&dmab->fresh_regions, fresh, __ATOMIC_RELAXED);
        if (answer->count && !__builtin_mul_overflow(answer->count, pool->block_size, &bytes) &&
            answer->place.dma_addr <= UINT64_MAX - bytes)
                start = region_address(*ret_region, answer->place.offset, bytes);
        if (!start || ((uintptr_t)start | answer->place.dma_addr) & pool->shadow.mask) {
                region_release(dmab, *ret_region);
                return error_set(EPROTO, "the daemon's answer puts a lease of the pool %s outside its region, or where no "
                                         "block can begin", pool->name);
        }
        *ret_start = start;
        return 0;
}

/* Make what the daemon has leased usable. Without the lock. */
static int settle(struct dmab_pool *pool, struct link_reply *reply) {
        struct answer answer = { 0 };
        struct region *region;
        void *start = NULL;
        int r = take_answer(reply->result, &answer);

        if (!r)
                r = map_lease(pool, &answer, reply->n_fds ? reply->fds[0] : -1, &region, &start);
        if (!r) {
                pthread_mutex_lock(&pool->lock);
                r = note_lease(pool, &answer, region, start);
                pthread_mutex_unlock(&pool->lock);
                if (r)
                        region_release(pool->dmab, region);
        }
        if (r && answer.number)
                return_number(pool->dmab, answer.number);
        return r;
}

/* Without waiting for memory, and without the lock. */
static int wish_call(struct dmab_pool *pool, const struct lease_wish *wish) {
        struct link_reply reply = { 0 };
        struct params params;
        int r;

        lease_params(wish, 0, &params);
        r = link_call(pool->dmab->link,
                      &(struct link_request){
                              .method = "pool.lease", .params = params.text, .repeat = LINK_KEYED },
                      &reply);
        if (!r)
                r = settle(pool, &reply);
        link_reply_release(&reply);
        return r;
}

/* One more lease. Without the lock. */
static int lease_more(struct dmab_pool *pool, unsigned flags, size_t count) {
        struct lease_wish wish;
        uint64_t number;
        int r = agent_start(pool->dmab);

        for (unsigned i = 0; i < WAKE_TRIES && !r; i++) {
                r = pool_wake(pool, &number);
                if (r)
                        return r;
                agent_watch(pool->dmab->agent, &pool->watch, number);
                wish_make(pool, number, flags, count, &wish);
                r = wish_call(pool, &wish);
                /* Another thread may have put it to sleep in between. */
                if (!pool->any || !r || link_is_over(pool->dmab->link) ||
                    !(error_is("unknown_handle") || (r == -ESTALE && error_is("gone"))))
                        break;
                pool_slept(pool, number);
                if (i + 1 < WAKE_TRIES)
                        r = 0;
        }
        return r;
}

/* ---- waiting ---- */

static struct timespec time_after(unsigned ms) {
        struct timespec time;

        clock_gettime(CLOCK_MONOTONIC, &time);
        time.tv_sec += ms / 1000;
        time.tv_nsec += ms % 1000 * 1000000L;
        if (time.tv_nsec >= 1000000000) {
                time.tv_nsec -= 1000000000;
                time.tv_sec++;
        }
        return time;
}

static uint64_t ms_until(const struct timespec *time) {
        struct timespec now;
        int64_t ms;

        clock_gettime(CLOCK_MONOTONIC, &now);
        ms = (int64_t)(time->tv_sec - now.tv_sec) * 1000 + (time->tv_nsec - now.tv_nsec) / 1000000;
        return ms > 0 ? ms : 0;
}

/* Off the queue, with a result. error is consumed. */
static void finish(struct dmab_pool *pool, struct waiter *waiter, int status, struct error_state *error) {
        TAILQ_REMOVE(&pool->waiters, waiter, entry);
        waiter->status = status;
        waiter->error = error;
        waiter->done = true;
        pthread_cond_signal(&waiter->wake);
}

/* Threads keep blocks at hand again when nobody waits any more; else the first of those who do asks the daemon. */
static void go_on(struct dmab_pool *pool) {
        struct waiter *first = TAILQ_FIRST(&pool->waiters);

        if (first)
                pthread_cond_signal(&first->wake);
        else if (pool_is_at_ease(pool))
                magazines_release(pool);
}

void refill_serve(struct dmab_pool *pool) {
        struct waiter *waiter;

        if (TAILQ_EMPTY(&pool->waiters))
                return;
        while ((waiter = TAILQ_FIRST(&pool->waiters)) && pool->leases.n_idle >= waiter->n) {
                lease_take(pool, waiter->n, BLOCK_BUSY, waiter->vaddrs, waiter->dmas);
                finish(pool, waiter, 0, NULL);
        }
        go_on(pool);
}

void refill_fail_all(struct dmab_pool *pool) {
        struct waiter *waiter;

        while ((waiter = TAILQ_FIRST(&pool->waiters)))
                finish(pool, waiter, pool->dead, error_save());
}

/* What the daemon has answered to the agent. A lease helps whoever is first now. */
static void asked_done(struct agent_call *call, int status, struct link_reply *reply) {
        struct dmab_pool *pool = (struct dmab_pool *)((char *)call - offsetof(struct dmab_pool, asking));
        struct waiter *first;
        int r = status ? status : settle(pool, reply);

        pthread_mutex_lock(&pool->lock);
        pool->is_asking = false;
        first = TAILQ_FIRST(&pool->waiters);
        /* A refusal is for whom it was asked; who is first now may have more time. */
        if (r && first && first->turn == pool->asked_for) {
                first->hopeless = true;
                /* Nobody here can give anything back. */
                if (!pool->leases.blocks)
                        finish(pool, first, r, error_save());
        }
        refill_serve(pool);
        go_on(pool);
        pthread_mutex_unlock(&pool->lock);
}

static void ask(struct dmab_pool *pool, const struct waiter *first) {
        size_t missing = first->n - pool->leases.n_idle;

        pool->is_asking = true;
        pool->asked_for = first->turn;
        pool->asking.method = "pool.lease";
        pool->asking.done = asked_done;
        wish_make(pool, pool->number, first->flags, missing > pool->lease_next ? missing : pool->lease_next, &pool->wish);
        lease_params(&pool->wish, ms_until(&first->deadline), &pool->asking.params);
        agent_ask(pool->dmab->agent, &pool->asking);
}

/* With the lock held. */
static int queue(struct dmab_pool *pool, struct waiter *waiter) {
        int timed_out = 0;

        TAILQ_INSERT_TAIL(&pool->waiters, waiter, entry);
        waiter->turn = ++pool->waits;
        pool_gather(pool);
        refill_serve(pool);
        while (!waiter->done && !timed_out) {
                if (TAILQ_FIRST(&pool->waiters) == waiter && !waiter->hopeless && !pool->is_asking)
                        ask(pool, waiter);
                timed_out = pthread_cond_timedwait(&waiter->wake, &pool->lock, &waiter->deadline);
                refill_serve(pool); /* somebody may have got a lease meanwhile and not have taken all of it yet */
        }
        if (waiter->done)
                return waiter->status;
        TAILQ_REMOVE(&pool->waiters, waiter, entry);
        pool->failures++;
        refill_serve(pool);
        go_on(pool);
        return -ETIMEDOUT;
}

static int wait_for_blocks(struct dmab_pool *pool, unsigned flags, size_t n, void **ret_vaddrs, dmab_addr_t *ret_dmas) {
        struct waiter waiter = { .n = n, .vaddrs = ret_vaddrs, .dmas = ret_dmas, .flags = flags,
                                 .deadline = time_after(pool->device->wait_ms) };
        pthread_condattr_t attributes;
        int r, old_state;

        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old_state);
        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        pthread_cond_init(&waiter.wake, &attributes);
        pthread_condattr_destroy(&attributes);
        r = queue(pool, &waiter);
        pthread_mutex_unlock(&pool->lock);
        pthread_cond_destroy(&waiter.wake);
        pthread_setcancelstate(old_state, NULL);
        if (waiter.error)
                error_restore(waiter.error);
        else if (r == -ETIMEDOUT)
                r = error_set_reason(ETIMEDOUT, "timeout",
                                     "no %zu block%s of the pool %s of %s became free within %u ms", n, n == 1 ? "" : "s",
                                     pool->name, pool->device->name, pool->device->wait_ms);
        return r;
}

/* ---- taking ---- */

static int refuse_to_overtake(struct dmab_pool *pool) {
        pool->failures++;
        pthread_mutex_unlock(&pool->lock);
        return error_set_reason(EAGAIN, "would_block", "other threads wait for blocks of the pool %s of %s already",
                                pool->name, pool->device->name);
}

/* The thread's magazine, if it may be used: it is the thread's own while the lock is held and nobody has seized it. */
static struct magazine *own_magazine(const struct dmab_pool *pool) {
        struct magazine *magazine = magazine_find(pool->slot);

        return magazine && !magazine_load(&magazine->drain) && magazine->limit ? magazine : NULL;
}

/* Up to half of it, so that blocks that are given back find room. What the leases have is for all threads. */
static void fill(struct dmab_pool *pool, struct magazine *magazine, size_t least) {
        size_t n = magazine_load(&magazine->n), half = (magazine->size + 1) / 2;
        size_t more = pool->leases.n_idle / (2 * pool->n_magazines);

        if (more > half - (n < half ? n : half))
                more = half - (n < half ? n : half);
        if (more < least)
                more = least;
        lease_take(pool, more, BLOCK_FREE, magazine->vaddrs + n, magazine->dmas + n);
        magazine_store(&magazine->n, n + more);
        magazine->refills++;
}

static void take_and_fill(struct dmab_pool *pool, size_t n, void **ret_vaddrs, dmab_addr_t *ret_dmas) {
        struct magazine *magazine = own_magazine(pool);

        if (magazine && n == 1) {
                fill(pool, magazine, !magazine_load(&magazine->n));
                magazine_pop(magazine, &pool->shadow, ret_vaddrs, ret_dmas);
                return;
        }
        lease_take(pool, n, BLOCK_BUSY, ret_vaddrs, ret_dmas);
        if (magazine)
                fill(pool, magazine, 0);
}

int refill_dead(const struct dmab_pool *pool) {
        return error_set_reason(ESTALE, "gone",
                                "the daemon no longer knows this session, nor the pool %s of %s; disconnect and connect "
                                "again",
                                pool->name, pool->device->name);
}

static bool may_become_free(int r) {
        return r == -ENOMEM || r == -EAGAIN || r == -EDQUOT || r == -E2BIG || r == -ETIMEDOUT;
}

int refill_take(struct dmab_pool *pool, unsigned flags, size_t n, void **ret_vaddrs, dmab_addr_t *ret_dmas) {
        size_t wanted;
        int r;

        if (pool->max_blocks && n > pool->max_blocks)
                return error_set_reason(E2BIG, "limit", "the pool %s of %s may have %zu blocks, and %zu were asked for",
                                        pool->name, pool->device->name, pool->max_blocks, n);
        pthread_mutex_lock(&pool->lock);
        if (!TAILQ_EMPTY(&pool->waiters) && !(flags & DMAB_HIGH))
                return flags & DMAB_WAIT ? wait_for_blocks(pool, flags, n, ret_vaddrs, ret_dmas)
                                         : refuse_to_overtake(pool);
        while (!pool->dead && pool->leases.n_idle < n) {
                wanted = n - pool->leases.n_idle;
                wanted = wanted > pool->lease_next ? wanted : pool->lease_next;
                pthread_mutex_unlock(&pool->lock);
                r = lease_more(pool, flags, wanted);
                pthread_mutex_lock(&pool->lock);
                if (!r)
                        continue;
                pool_gather(pool);
                if (pool->dead || pool->leases.n_idle >= n)
                        break;
                if (flags & DMAB_WAIT && may_become_free(r))
                        return wait_for_blocks(pool, flags, n, ret_vaddrs, ret_dmas);
                pool->failures++;
                pthread_mutex_unlock(&pool->lock);
                return r;
        }
        if (pool->dead) {
                pthread_mutex_unlock(&pool->lock);
                return refill_dead(pool);
        }
        take_and_fill(pool, n, ret_vaddrs, ret_dmas);
        refill_serve(pool); /* who came while the daemon was asked may have what is left */
        pthread_mutex_unlock(&pool->lock);
        return 0;
}

/* ---- giving back ---- */

/* As many as are in use, so that a user who takes and gives in turns makes no calls. */
size_t refill_keep(const struct dmab_pool *pool) {
        size_t used = pool->leases.blocks - pool->leases.n_idle, keep = KEEP_BYTES / pool->block_size;

        if (pool->retired)
                return 0;
        keep = keep > KEEP_BLOCKS ? keep : KEEP_BLOCKS;
        keep = keep > pool->lease_most ? keep : pool->lease_most;
        return keep > used ? keep : used;
}

void refill_return(struct dmab_pool *pool, struct lease *lease) {
        return_number(pool->dmab, lease->number);
        lease_free(pool->dmab, lease);
}

void refill_give_back(struct dmab_pool *pool, size_t keep) {
        struct lease *lease;

        for (;;) {
                pthread_mutex_lock(&pool->lock);
                lease = TAILQ_LAST(&pool->leases.idle, lease_list);
                lease = lease && pool->leases.n_idle - lease->count >= keep ? lease_pick_idle(pool) : NULL;
                if (!lease && pool->lease_next > 1 && !keep)
                        pool->lease_next /= 2;
                pthread_mutex_unlock(&pool->lock);
                if (!lease)
                        return;
                refill_return(pool, lease);
        }
}

void refill_recalled(struct watch *watch, uint64_t bytes) {
        struct dmab_pool *pool = (struct dmab_pool *)((char *)watch - offsetof(struct dmab_pool, watch));

        pthread_mutex_lock(&pool->lock);
        pool->recalls++;
        pool_gather(pool);
        pthread_mutex_unlock(&pool->lock);
        refill_give_back(pool, 0);
}

/* What was asked for and then given up may have been given all the same, and nobody would know of that lease: whoever asks
 * again with its key is told. The daemon may not have noticed yet that the agent has hung up. */
static void take_what_was_given_up(struct dmab_pool *pool) {
        struct error_state *saved = error_save();
        int old_state;

        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old_state);
        for (unsigned i = 0; i < GIVEN_UP_TRIES && wish_call(pool, &pool->wish) == -EBUSY && error_is("busy"); i++)
                nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
        pthread_setcancelstate(old_state, NULL);
        error_restore(saved);
}

void refill_stop(struct dmab_pool *pool) {
        struct agent *agent = __atomic_load_n(&pool->dmab->agent, __ATOMIC_ACQUIRE);

        if (!agent)
                return;
        agent_unwatch(agent, &pool->watch);
        if (agent_cancel(agent, &pool->asking) && !pool->dead)
                take_what_was_given_up(pool);
        pthread_mutex_lock(&pool->lock);
        pool->is_asking = false;
        pthread_mutex_unlock(&pool->lock);
}

void refill_go_on(struct dmab_pool *pool, uint64_t number) {
        struct agent *agent = __atomic_load_n(&pool->dmab->agent, __ATOMIC_ACQUIRE);

        if (agent)
                agent_watch(agent, &pool->watch, number);
}
