/* Random steps on pools, compared with a model that knows of each 64 bytes of memory who has them. POOL_MODEL_STEPS
 * (1,000,000) is divided among the seeds; POOL_MODEL_SEED runs one seed only. After each step nothing may be under way, so
 * that what is not answered waits, and whoever is first in a queue must not find enough free blocks. Some answers call the
 * core again, also to end what they were asked of. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "daemon/core/broker.h"
#include "daemon/iommu/none.h"
#include "daemon/source/sources.h"

#define BASE UINT64_C(0x140000000)
#define CELL UINT64_C(64)
#define N_CELLS ((UINT64_C(4) << 20) / CELL)
#define N_SEEDS 8
#define N_POOLS 4
#define N_SESSIONS 4
#define N_ASKS 64
#define N_LEASES 64
#define N_KEYS 8
#define N_ALLOCS 64
#define COUNT_MAX 48

enum state { FREE, USED, LEASED, RESTING };

struct cell {
        uint8_t state, pool, session;
        uint8_t key;    /* + 1; 0: none */
        bool start;     /* of a block */
        uint32_t index; /* in held, of used blocks */
        uint64_t since;  /* resting */
        uint64_t number; /* of the request */
};

struct model_pool {
        uint64_t handle; /* 0: there is none */
        struct pool_view view;
        uint64_t n[RESTING + 1];
};

struct model_lease {
        uint64_t handle, addr, count;
        uint8_t pool, session;
};

struct ask {
        struct model *model;
        bool live, lease, high;
        bool asking; /* the call has not returned */
        uint8_t pool, session, key;
        uint64_t count, wait_ms, deadline, number;
        struct ticket *ticket;
};

struct model_key {
        bool valid;
        uint8_t pool;
        uint64_t number, count, addrs[COUNT_MAX];
};

struct model {
        uint64_t now, random, number;
        unsigned seed, step, nested;
        struct broker *broker;
        struct source *source;
        struct session *sessions[N_SESSIONS], *other;
        uint64_t device, other_device;
        struct model_pool pools[N_POOLS];
        struct model_lease leases[N_LEASES];
        size_t n_leases;
        struct ask asks[N_ASKS];
        struct model_key keys[N_KEYS];
        uint64_t allocs[N_ALLOCS];
        size_t n_allocs, n_held;
        uint64_t created;
        bool created_failed;
        struct cell cells[N_CELLS];
        uint64_t held[N_CELLS];
        uint64_t given, failed;
};

#define REQUIRE(model, condition)                                                                           \
        do {                                                                                                \
                if (!(condition))                                                                           \
                        fail_msg("seed %u, step %u, line %d: %s", (model)->seed, (model)->step, __LINE__, #condition); \
        } while (0)

static uint64_t model_now(void *userdata) {
        return ((struct model *)userdata)->now;
}

static uint64_t model_below(struct model *model, uint64_t n) {
        model->random ^= model->random << 13;
        model->random ^= model->random >> 7;
        model->random ^= model->random << 17;
        return model->random % n;
}

static struct caller caller_of(const struct model *model, unsigned session) {
        return (struct caller){ .session = model->sessions[session] };
}

/* While a session ends, others are answered. */
static unsigned live_session(const struct model *model, unsigned i) {
        while (!model->sessions[i])
                i = (i + 1) % N_SESSIONS;
        return i;
}

static unsigned any_session(struct model *model) {
        return live_session(model, model_below(model, N_SESSIONS));
}

static void model_settle(struct model *model) {
        while (!model->nested && !broker_settled(model->broker)) {
                model->source->ops->wait(model->source);
                model->source->ops->dispatch(model->source);
        }
}

static struct cell *cell_at(struct model *model, uint64_t addr) {
        REQUIRE(model, addr >= BASE && (addr - BASE) / CELL < N_CELLS && addr % CELL == 0);
        return &model->cells[(addr - BASE) / CELL];
}

/* ---- the model's books ---- */

static void block_set(struct model *model, uint64_t addr, struct cell value) {
        struct model_pool *pool = &model->pools[value.pool];
        uint64_t i, n = pool->view.block_size / CELL;
        struct cell *cell = cell_at(model, addr), *last;

        REQUIRE(model, pool->view.boundary == 0 ||
                               (addr ^ (addr + pool->view.block_size - 1)) < pool->view.boundary);
        REQUIRE(model, addr % pool->view.align == 0);
        for (i = 0; i < n; i++)
                REQUIRE(model, cell[i].state == FREE);
        if (value.state == USED) {
                value.index = model->n_held;
                model->held[model->n_held++] = addr;
        }
        for (i = 0; i < n; i++)
                cell[i] = value;
        last = &cell[0];
        last->start = true;
        pool->n[value.state]++;
}

static void unheld(struct model *model, struct cell *cell) {
        uint64_t last = model->held[--model->n_held];

        model->held[cell->index] = last;
        cell_at(model, last)->index = cell->index;
}

static void block_clear(struct model *model, uint64_t addr) {
        struct cell *cell = cell_at(model, addr);
        struct model_pool *pool = &model->pools[cell->pool];
        uint64_t i;

        REQUIRE(model, cell->start);
        if (cell->key && model->keys[cell->key - 1].number == cell->number)
                model->keys[cell->key - 1].valid = false;
        if (cell->state == USED)
                unheld(model, cell);
        pool->n[cell->state]--;
        for (i = 0; i < pool->view.block_size / CELL; i++)
                cell[i] = (struct cell){};
}

static void block_rest(struct model *model, uint64_t addr) {
        struct cell value = *cell_at(model, addr);

        block_clear(model, addr);
        value.state = RESTING;
        value.key = 0;
        value.since = model->now;
        value.start = false;
        block_set(model, addr, value);
}

static void lease_clear(struct model *model, size_t i, bool rest) {
        struct model_lease lease = model->leases[i];
        uint64_t j, unit = model->pools[lease.pool].view.block_size;

        for (j = 0; j < lease.count; j++)
                (rest ? block_rest : block_clear)(model, lease.addr + j * unit);
        model->leases[i] = model->leases[--model->n_leases];
}

static void all_clear(struct model *model, int pool, int session, bool rest) {
        uint64_t i;
        size_t j;

        for (j = model->n_leases; j-- > 0;)
                if (model->leases[j].pool == pool || model->leases[j].session == session)
                        lease_clear(model, j, rest);
        for (i = 0; i < N_CELLS; i++)
                if (model->cells[i].start &&
                    ((model->cells[i].pool == pool) || (model->cells[i].state == USED && model->cells[i].session == session)))
                        (rest ? block_rest : block_clear)(model, BASE + i * CELL);
}

static struct pool_view look(struct model *model, unsigned i) {
        const struct caller caller = caller_of(model, live_session(model, 0));
        struct pool_view view;

        REQUIRE(model, pool_get(&caller, model->pools[i].handle, &view, NULL) == 0);
        return view;
}

/* ---- answers ---- */

static bool anybody_waits(const struct model *model) {
        size_t i;

        for (i = 0; i < N_ASKS; i++)
                if (model->asks[i].live && model->asks[i].wait_ms)
                        return true;
        return false;
}

static void ask_failed(struct model *model, const struct ask *ask, const struct failure *failure) {
        struct pool_view view;

        model->failed++;
        REQUIRE(model, failure->error > 0 && failure->sentence[0]);
        if (failure->reason == REASON_timeout)
                REQUIRE(model, ask->wait_ms && ask->deadline <= model->now);
        if (failure->reason == REASON_gone || failure->reason == REASON_busy || failure->reason == REASON_bad_param)
                return;
        view = look(model, ask->pool);
        /* Behind those who wait for blocks of this pool, or for the owner's memory. */
        if (failure->reason == REASON_would_block)
                REQUIRE(model, !ask->wait_ms && !ask->high && anybody_waits(model));
        if (failure->reason == REASON_no_memory || failure->reason == REASON_no_contiguous ||
            (failure->reason == REASON_limit && ask->count <= COUNT_MAX))
                REQUIRE(model, view.free < (ask->lease ? 1 : ask->count));
}

/* Nobody who has waited longer is still waiting, unless he has less to say, or could wait when this one could not. */
static void ask_in_order(struct model *model, const struct ask *ask) {
        size_t i;

        /* Nor may those who are served, but told after this one, be taken for waiting. */
        if (model->nested || (ask->high && !ask->wait_ms))
                return;
        for (i = 0; i < N_ASKS; i++)
                REQUIRE(model, &model->asks[i] == ask || !model->asks[i].live || model->asks[i].pool != ask->pool ||
                                       model->asks[i].number > ask->number || model->asks[i].high != ask->high);
}

static void step_nested(struct model *model);

static void on_blocks(void *userdata, const struct failure *failure, const struct pool_block *blocks, size_t n) {
        struct ask *ask = userdata;
        struct model *model = ask->model;
        struct model_key *key = ask->key ? &model->keys[ask->key - 1] : NULL;
        size_t i;

        REQUIRE(model, ask->live);
        ask->live = false;
        if (failure) {
                ask_failed(model, ask, failure);
                return;
        }
        model->given++;
        REQUIRE(model, n == ask->count);
        if (key && key->valid) {
                REQUIRE(model, key->pool == ask->pool && key->count == n);
                for (i = 0; i < n; i++)
                        REQUIRE(model, key->addrs[i] == blocks[i].dma_addr);
                return;
        }
        ask_in_order(model, ask);
        for (i = 0; i < n; i++) {
                REQUIRE(model, !blocks[i].lease);
                block_set(model, blocks[i].dma_addr,
                          (struct cell){ .state = USED, .pool = ask->pool, .session = ask->session, .key = ask->key,
                                         .number = ask->number });
                if (key)
                        key->addrs[i] = blocks[i].dma_addr;
        }
        if (key) {
                key->valid = true;
                key->pool = ask->pool;
                key->number = ask->number;
                key->count = n;
        }
        step_nested(model);
}

static void on_lease(void *userdata, const struct failure *failure, uint64_t handle) {
        struct ask *ask = userdata;
        struct model *model = ask->model;
        const struct caller caller = caller_of(model, live_session(model, 0));
        struct lease_view view;
        uint64_t i;

        REQUIRE(model, ask->live);
        ask->live = false;
        if (failure) {
                ask_failed(model, ask, failure);
                return;
        }
        model->given++;
        ask_in_order(model, ask);
        REQUIRE(model, lease_get(&caller, handle, &view, NULL) == 0);
        REQUIRE(model, view.count > 0 && view.count <= ask->count && view.unit == model->pools[ask->pool].view.block_size);
        for (i = 0; i < view.count; i++)
                block_set(model, view.dma_addr + i * view.unit,
                          (struct cell){ .state = LEASED, .pool = ask->pool, .session = ask->session });
        model->leases[model->n_leases++] = (struct model_lease){
                .handle = handle, .addr = view.dma_addr, .count = view.count, .pool = ask->pool, .session = ask->session,
        };
        step_nested(model);
}

static void on_pool(void *userdata, const struct failure *failure, uint64_t handle) {
        struct model *model = userdata;

        model->created = handle;
        model->created_failed = failure != NULL;
}

/* ---- steps ---- */

static int any_pool(struct model *model) {
        unsigned i = model_below(model, N_POOLS);

        return model->pools[i].handle ? (int)i : -1;
}

static void step_create(struct model *model) {
        static const uint64_t sizes[] = { 64, 100, 512, 1536, 4096, 5000, 16384 };
        const struct caller caller = caller_of(model, live_session(model, 0));
        struct pool_options options = { .name = "pool", .device = model->device };
        unsigned i = model_below(model, N_POOLS);
        struct model_pool *pool = &model->pools[i];

        if (pool->handle)
                return;
        options.size = sizes[model_below(model, 7)];
        options.align = CELL << model_below(model, 3);
        options.boundary = model_below(model, 3) ? 0 : options.size <= 1536 ? 4096 : 32768;
        options.max_blocks = model_below(model, 2) ? 0 : 8 + model_below(model, 120);
        options.reserve = model_below(model, 2) ? 0 : 1 + model_below(model, 8);
        pool_create(&caller, &options, on_pool, model);
        model_settle(model);
        if (model->created_failed)
                return;
        pool->handle = model->created;
        pool->view = look(model, i);
        memset(pool->n, 0, sizeof(pool->n));
}

/* It ends, and its memory serves those who wait for another pool at once. */
static uint64_t pool_forget(struct model *model, unsigned i) {
        uint64_t handle = model->pools[i].handle;

        if (handle)
                all_clear(model, (int)i, -1, false);
        model->pools[i].handle = 0;
        return handle;
}

static void pool_forgotten(struct model *model, unsigned i) {
        size_t j;

        for (j = 0; j < N_ASKS; j++)
                REQUIRE(model, model->nested || !model->asks[j].live || model->asks[j].pool != i);
}

static int count_block(const struct pool_block *block, void *userdata) {
        ++*(uint64_t *)userdata;
        return 0;
}

static void step_destroy(struct model *model) {
        const struct caller caller = caller_of(model, any_session(model));
        bool force = model->nested || model_below(model, 2);
        int i = any_pool(model), r;
        uint64_t busy = 0, out, handle;
        bool ends;

        if (i < 0)
                return;
        out = model->pools[i].n[USED] + model->pools[i].n[LEASED];
        ends = force || !out;
        handle = ends ? pool_forget(model, (unsigned)i) : model->pools[i].handle;
        r = pool_destroy(&caller, handle, force, count_block, &busy, NULL);
        /* What has been taken for those who are about to be told is not in the model yet. */
        REQUIRE(model, model->nested || busy == out);
        REQUIRE(model, r == (ends ? 0 : -EBUSY));
        if (ends)
                pool_forgotten(model, (unsigned)i);
}

static void step_ask(struct model *model) {
        bool wait = model_below(model, 3) == 0;
        struct pool_request request = {
                .high = model_below(model, 10) == 0,
                .wait_ms = wait ? 1 + model_below(model, 300) : 0,
        };
        struct ask *ask = model->asks;
        struct caller caller;
        char key[8];
        int i = any_pool(model);

        while (ask < model->asks + N_ASKS && (ask->live || ask->asking))
                ask++;
        if (i < 0 || ask == model->asks + N_ASKS)
                return;
        request.pool = model->pools[i].handle;
        request.count = 1 + (model_below(model, 4) ? model_below(model, 4) : model_below(model, COUNT_MAX));
        *ask = (struct ask){
                .model = model, .live = true, .asking = true, .high = request.high, .pool = (uint8_t)i,
                .count = request.count, .wait_ms = request.wait_ms, .deadline = model->now + request.wait_ms,
                .number = ++model->number,
        };
        ask->session = (uint8_t)any_session(model);
        ask->lease = model_below(model, 3) == 0;
        caller = caller_of(model, ask->session);
        if (ask->lease && model->n_leases >= N_LEASES - 20) {
                ask->live = ask->asking = false;
                return;
        }
        if (!ask->lease && model_below(model, 8) == 0) {
                ask->key = 1 + model_below(model, N_KEYS);
                snprintf(key, sizeof(key), "k%u", ask->key);
                request.request_key = key;
                request.request_digest = request.pool * 100 + request.count;
        }
        ask->ticket = ask->lease ? pool_lease(&caller, &request, on_lease, ask)
                                 : pool_alloc(&caller, &request, on_blocks, ask);
        REQUIRE(model, ask->ticket || !ask->live);
        model_settle(model);
        REQUIRE(model, model->nested || !ask->live || request.wait_ms);
        ask->asking = false;
}

static void cancel(struct model *model, struct ask *ask) {
        ask->live = false;
        ticket_cancel(ask->ticket);
        model_settle(model);
}

static void step_cancel(struct model *model) {
        struct ask *ask = &model->asks[model_below(model, N_ASKS)];

        if (ask->live && !ask->asking)
                cancel(model, ask);
}

static void step_free(struct model *model) {
        uint64_t addrs[4], n = 1 + model_below(model, 4), i, j;
        const struct caller caller = caller_of(model, any_session(model));
        bool good = true;
        unsigned pool;
        int r;

        if (!model->n_held)
                return;
        for (i = 0; i < n; i++) {
                addrs[i] = model->held[model_below(model, model->n_held)];
                if (!model->nested && model_below(model, 50) == 0)
                        addrs[i] += CELL * model_below(model, 3);
        }
        pool = cell_at(model, model->held[0])->pool;
        if (model_below(model, 4))
                pool = cell_at(model, addrs[0] & ~(CELL - 1))->pool;
        if (!model->pools[pool].handle)
                return;
        for (i = 0; i < n; i++) {
                const struct cell *cell = addrs[i] < BASE + N_CELLS * CELL ? cell_at(model, addrs[i]) : NULL;

                good &= cell && cell->start && cell->state == USED && cell->pool == pool;
                for (j = 0; j < i; j++)
                        good &= addrs[i] != addrs[j];
        }
        /* Freeing serves those who wait, so the model goes first. */
        if (good)
                for (i = 0; i < n; i++)
                        block_clear(model, addrs[i]);
        r = pool_free_blocks(&caller, model->pools[pool].handle, addrs, n, NULL);
        REQUIRE(model, (r == 0) == good);
}

static void step_return(struct model *model) {
        struct caller caller = caller_of(model, any_session(model));
        uint64_t handle;
        size_t i;

        if (!model->n_leases)
                return;
        i = model_below(model, model->n_leases);
        handle = model->leases[i].handle;
        lease_clear(model, i, false);
        REQUIRE(model, lease_return(&caller, handle, LEASE_OF_POOL, NULL) == 0);
        /* Whoever was served then may have ended the session. */
        caller = caller_of(model, any_session(model));
        REQUIRE(model, lease_return(&caller, handle, LEASE_OF_POOL, NULL) < 0);
}

static void session_end(struct model *model, unsigned i, bool died) {
        struct session *session = model->sessions[i];
        unsigned j;

        all_clear(model, -1, (int)i, died);
        model->sessions[i] = NULL;
        if (died)
                session_abandon(session);
        else
                session_close(session);
        for (j = 0; j < N_ASKS; j++)
                REQUIRE(model, model->nested || !model->asks[j].live || model->asks[j].session != i);
}

static void session_begin(struct model *model, unsigned i) {
        struct device_options options = { .name = "nic", .node = -1 };
        struct caller caller;

        REQUIRE(model, session_open(model->broker, "user:1000", &model->sessions[i], NULL) == 0);
        caller = caller_of(model, i);
        if (i == 0)
                REQUIRE(model, device_open(&caller, &options, &model->device, NULL) == 0);
}

/* The first session has the device, and has made the pools, which go with whoever has something of them: so the others end
 * first. It is answered through, so it is replaced after it ended. */
static void step_session(struct model *model) {
        unsigned i = model->nested || model_below(model, 20) ? 1 + model_below(model, N_SESSIONS - 1) : 0, j;

        if (!model->sessions[i])
                return;
        for (j = 1; i == 0 && j < N_SESSIONS; j++) {
                session_end(model, j, !model->nested && model_below(model, 2));
                session_begin(model, j);
        }
        for (j = 0; i == 0 && j < N_POOLS; j++)
                pool_forget(model, j);
        /* What is about to be told would rest, too, and the model does not know of it. */
        session_end(model, i, !model->nested && model_below(model, 2));
        for (j = 0; i == 0 && j < N_POOLS; j++)
                pool_forgotten(model, j);
        session_begin(model, i);
}

static void on_alloc(void *userdata, const struct failure *failure, uint64_t handle) {
        struct model *model = userdata;

        if (!failure)
                model->allocs[model->n_allocs++] = handle;
}

/* Another owner, who takes memory away and gives it back. */
static void step_pressure(struct model *model) {
        const struct caller caller = { .session = model->other };
        struct alloc_request request = { .device = model->other_device };
        size_t i;

        if (model->n_allocs < N_ALLOCS && model_below(model, 5)) {
                request.size = UINT64_C(4096) << model_below(model, 8);
                coherent_alloc(&caller, &request, on_alloc, model);
        } else if (model->n_allocs) {
                i = model_below(model, model->n_allocs);
                REQUIRE(model, coherent_free(&caller, model->allocs[i], NULL) == 0);
                model->allocs[i] = model->allocs[--model->n_allocs];
        }
}

static void step_trim(struct model *model) {
        const struct caller caller = caller_of(model, live_session(model, 0));
        uint64_t bytes;
        int i = any_pool(model);

        if (i >= 0)
                REQUIRE(model, pool_trim(&caller, model->pools[i].handle, &bytes, NULL) == 0);
}

static void step_clock(struct model *model) {
        uint64_t i;

        model->now += model_below(model, 4) ? model_below(model, 30) : model_below(model, 3000);
        if (broker_deadline(model->broker) > model->now)
                return;
        for (i = 0; i < N_CELLS; i++)
                if (model->cells[i].start && model->cells[i].state == RESTING && model->cells[i].since + 1000 <= model->now)
                        block_clear(model, BASE + i * CELL);
        broker_tick(model->broker);
        model_settle(model);
        REQUIRE(model, broker_deadline(model->broker) > model->now);
}

static void step_look(struct model *model) {
        static const enum pool_block_state states[] = {
                [FREE] = POOL_BLOCK_FREE, [USED] = POOL_BLOCK_USED, [LEASED] = POOL_BLOCK_LEASED,
                [RESTING] = POOL_BLOCK_QUARANTINED,
        };
        const struct caller caller = caller_of(model, any_session(model));
        uint64_t i = model_below(model, N_CELLS);
        const struct cell *cell = &model->cells[i];
        struct pool_block_view view;
        int r;

        r = pool_block_at(&caller, BASE + i * CELL + model_below(model, CELL), model_below(model, 2), &view, NULL);
        REQUIRE(model, cell->state == FREE || r == 0);
        if (r < 0)
                return;
        REQUIRE(model, view.state == states[cell->state] && (view.lease != 0) == (cell->state == LEASED));
        if (cell->state != FREE)
                REQUIRE(model, view.pool == model->pools[cell->pool].handle && cell_at(model, view.dma_addr)->start);
}

/* From within an answer. */
static void step_nested(struct model *model) {
        static void (*const steps[])(struct model *) = {
                step_ask, step_free, step_return, step_cancel, step_trim, step_ask, step_free, step_ask,
        };
        unsigned dice = model_below(model, 256);

        if (model->nested == 2 || dice >= 64)
                return;
        model->nested++;
        if (dice == 0)
                step_session(model);
        else if (dice == 1)
                step_destroy(model);
        else
                steps[dice % 8](model);
        model->nested--;
}

/* ---- after each step ---- */

static const struct ask *first_in_line(const struct model *model, unsigned pool) {
        const struct ask *first = NULL, *ask;

        for (ask = model->asks; ask < model->asks + N_ASKS; ask++)
                if (ask->live && ask->pool == pool &&
                    (!first || ask->high > first->high || (ask->high == first->high && ask->number < first->number)))
                        first = ask;
        return first;
}

static void model_compare(struct model *model) {
        const struct ask *first;
        struct pool_view view;
        unsigned i;

        for (i = 0; i < N_POOLS; i++) {
                if (!model->pools[i].handle)
                        continue;
                view = look(model, i);
                REQUIRE(model, view.used == model->pools[i].n[USED] && view.leased == model->pools[i].n[LEASED]);
                REQUIRE(model, view.quarantined == model->pools[i].n[RESTING]);
                REQUIRE(model, view.blocks == view.free + view.used + view.leased + view.quarantined);
                REQUIRE(model, view.blocks >= view.reserve && (!view.max_blocks || view.blocks <= view.max_blocks));
                first = first_in_line(model, i);
                REQUIRE(model, !first == !view.waiters);
                if (first)
                        REQUIRE(model, view.free < (first->lease ? 1 : first->count));
        }
}

static void problem(void *userdata, const char *what, const char *text, uint64_t handle) {
        struct model *model = userdata;

        fail_msg("seed %u, step %u: %s %llu: %s", model->seed, model->step, what, (unsigned long long)handle, text);
}

static void checked(void *userdata, uint64_t n) {
}

static void model_step(struct model *model) {
        /* It fills, empties and is between in turn. */
        unsigned phase = model->step / 1000 % 3, n_ask = phase == 0 ? 60 : phase == 1 ? 45 : 30;
        unsigned dice = model_below(model, 1000);

        if (dice < 2)
                step_session(model);
        else if (dice < 4)
                step_destroy(model);
        else if (dice < 20)
                step_create(model);
        else if (dice < 30)
                step_trim(model);
        else if (dice < 60)
                step_pressure(model);
        else if (dice < 90)
                step_cancel(model);
        else if (dice < 120)
                step_look(model);
        else if (dice < 180)
                step_clock(model);
        else if (dice % 100 < n_ask)
                step_ask(model);
        else
                (dice % 3 ? step_free : step_return)(model);
        model_settle(model);
        model_compare(model);
        if (model->step % 1000 == 0) {
                broker_check(model->broker, problem, checked, model);
                model_settle(model);
        }
}

static void model_start(struct model *model) {
        static const struct translator_ops *const translators[] = { &translator_identity_ops, NULL };
        struct source_option layout = { "layout", "4M@0x140000000" };
        struct device_options hog = { .name = "hog", .node = -1 };
        struct broker_options options;
        struct caller other;
        unsigned i;

        broker_options_default(&options);
        options.now_ms = model_now;
        options.userdata = model;
        options.translators = translators;
        assert_int_equal(broker_new(&options, &model->broker), 0);
        assert_int_equal(source_sim_ops.open(&layout, 1, NULL, &model->source, NULL), 0);
        assert_int_equal(broker_add_source(model->broker, model->source), 0);
        model_settle(model);
        for (i = 0; i < N_SESSIONS; i++)
                session_begin(model, i);
        assert_int_equal(session_open(model->broker, "user:1001", &model->other, NULL), 0);
        other = (struct caller){ .session = model->other };
        assert_int_equal(device_open(&other, &hog, &model->other_device, NULL), 0);
}

static void model_run(unsigned seed, unsigned n_steps) {
        struct model *model = calloc(1, sizeof(*model));
        size_t i;

        assert_non_null(model);
        model->now = 1000;
        model->seed = seed;
        model->random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
        model_start(model);
        for (model->step = 0; model->step < n_steps; model->step++)
                model_step(model);
        for (i = 0; i < N_ASKS; i++)
                if (model->asks[i].live)
                        cancel(model, &model->asks[i]);
        if (getenv("POOL_MODEL_SEED"))
                print_message("%llu given, %llu failed\n", (unsigned long long)model->given,
                              (unsigned long long)model->failed);
        broker_check(model->broker, problem, checked, model);
        model_settle(model);
        broker_free(model->broker);
        free(model);
}

static unsigned number_from(const char *name, unsigned otherwise) {
        const char *text = getenv(name);

        return text && *text ? (unsigned)strtoul(text, NULL, 0) : otherwise;
}

static void test_a_million_random_steps_agree_with_the_model(void **state) {
        unsigned n_steps = number_from("POOL_MODEL_STEPS", 1000000), seed;

        if (getenv("POOL_MODEL_SEED")) {
                model_run(number_from("POOL_MODEL_SEED", 1), n_steps);
                return;
        }
        for (seed = 1; seed <= N_SEEDS; seed++)
                model_run(seed, n_steps / N_SEEDS);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_million_random_steps_agree_with_the_model),
        };

        return cmocka_run_group_tests_name("pool-model", tests, NULL, NULL);
}
