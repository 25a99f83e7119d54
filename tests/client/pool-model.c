/* Pools against a simple model: whoever is given a block writes his name into a table of our own, at the block's place, and
 * takes it out before he gives the block back. A block that two have, or that comes from nowhere, is found out at once.
 *
 * POOL_CLIENT_STEPS says how many operations are made in all (300,000); the seed is told when something is wrong. */
#include <dmabroker.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "tests/lib/daemon.h"

enum { THREADS = 4, HELD_MAX = 400, BULK_MAX = 150, PLACES = 1 << 22 };

/* Who has the block with that dma address: an open table of places, which are never given up. */
struct place {
        uint64_t dma;   /* 0: unused; atomic */
        uint32_t owner; /* 0: nobody; atomic */
};

struct model {
        struct place *places;
        size_t block_size;
        dmab_pool_t *pool;
        size_t max_blocks;
        bool stop; /* atomic */
};

struct block {
        void *vaddr;
        dmab_addr_t dma;
};

struct actor {
        pthread_t thread;
        struct model *model;
        uint64_t random;
        uint32_t name;
        size_t steps;
        size_t n;
        struct block held[HELD_MAX];
        struct actor *neighbour; /* to whom some blocks are passed on */
        pthread_mutex_t lock;
        size_t n_passed;
        struct block passed[HELD_MAX];
        size_t failures;
};

static size_t steps_wanted(void) {
        const char *text = getenv("POOL_CLIENT_STEPS");

        return text ? strtoull(text, NULL, 10) : 300000;
}

static uint64_t next_random(struct actor *actor) {
        actor->random ^= actor->random << 13;
        actor->random ^= actor->random >> 7;
        actor->random ^= actor->random << 17;
        return actor->random * UINT64_C(0x2545f4914f6cdd1d) >> 11;
}

static void wrong(const struct actor *actor, const char *what, const struct block *block) {
        fprintf(stderr, "actor %u: %s: %p (0x%llx)\n", actor->name, what, block->vaddr, (unsigned long long)block->dma);
        abort();
}

static struct place *place_of(struct model *model, uint64_t dma) {
        size_t i = (dma >> 6) * UINT64_C(0x9e3779b97f4a7c15) >> 42;

        for (;; i = (i + 1) % PLACES) {
                uint64_t there = 0;

                if (__atomic_load_n(&model->places[i].dma, __ATOMIC_RELAXED) == dma ||
                    __atomic_compare_exchange_n(&model->places[i].dma, &there, dma, false, __ATOMIC_RELAXED,
                                                __ATOMIC_RELAXED) ||
                    there == dma)
                        return &model->places[i];
        }
}

static void take(struct actor *actor, const struct block *block) {
        uint32_t nobody = 0;

        if (!__atomic_compare_exchange_n(&place_of(actor->model, block->dma)->owner, &nobody, actor->name, false,
                                         __ATOMIC_RELAXED, __ATOMIC_RELAXED))
                wrong(actor, "somebody else has this block", block);
        /* Plain stores: under ThreadSanitizer they prove that blocks change hands properly. */
        memset(block->vaddr, (int)actor->name, actor->model->block_size < 256 ? actor->model->block_size : 256);
}

static void let_go(struct actor *actor, const struct block *block) {
        if (*(unsigned char *)block->vaddr == 0)
                wrong(actor, "this block has been emptied", block);
        memset(block->vaddr, 0, 1);
        __atomic_store_n(&place_of(actor->model, block->dma)->owner, 0, __ATOMIC_RELAXED);
}

/* ---- what an actor does ---- */

static void alloc_one(struct actor *actor) {
        struct block block;
        unsigned flags = next_random(actor) % 16 ? DMAB_NOWAIT : DMAB_ZERO;
        int r;

        if (actor->n == HELD_MAX)
                return;
        r = dmab_pool_alloc(actor->model->pool, flags, &block.vaddr, &block.dma);
        if (r) {
                if (r != -ENOMEM && r != -EAGAIN && r != -E2BIG)
                        wrong(actor, dmab_last_error(), &block);
                actor->failures++;
                return;
        }
        take(actor, &block);
        actor->held[actor->n++] = block;
}

static struct block pick(struct actor *actor) {
        size_t i = next_random(actor) % actor->n;
        struct block block = actor->held[i];

        actor->held[i] = actor->held[--actor->n];
        return block;
}

static void free_one(struct actor *actor) {
        struct block block;

        if (!actor->n)
                return;
        block = pick(actor);
        let_go(actor, &block);
        if (dmab_pool_free(actor->model->pool, block.vaddr, block.dma))
                wrong(actor, dmab_last_error(), &block);
}

static void alloc_bulk(struct actor *actor) {
        size_t n = 1 + next_random(actor) % BULK_MAX;
        void *vaddrs[BULK_MAX];
        dmab_addr_t dmas[BULK_MAX];

        if (n > HELD_MAX - actor->n)
                return;
        if (dmab_pool_alloc_bulk(actor->model->pool, DMAB_NOWAIT, n, vaddrs, dmas)) {
                actor->failures++;
                return;
        }
        for (size_t i = 0; i < n; i++) {
                actor->held[actor->n] = (struct block){ vaddrs[i], dmas[i] };
                take(actor, &actor->held[actor->n++]);
        }
}

static void free_bulk(struct actor *actor) {
        size_t n = 1 + next_random(actor) % BULK_MAX;
        void *vaddrs[BULK_MAX];
        dmab_addr_t dmas[BULK_MAX];

        if (n > actor->n)
                return;
        for (size_t i = 0; i < n; i++) {
                struct block block = pick(actor);

                let_go(actor, &block);
                vaddrs[i] = block.vaddr;
                dmas[i] = block.dma;
        }
        if (dmab_pool_free_bulk(actor->model->pool, n, vaddrs, dmas))
                wrong(actor, dmab_last_error(), &(struct block){ vaddrs[0], dmas[0] });
}

/* Freed by another than who took it. */
static void pass_on(struct actor *actor) {
        struct actor *to = actor->neighbour;
        struct block block;

        if (!actor->n)
                return;
        block = pick(actor);
        let_go(actor, &block);
        pthread_mutex_lock(&to->lock);
        if (to->n_passed < HELD_MAX) {
                to->passed[to->n_passed++] = block;
                block.vaddr = NULL;
        }
        pthread_mutex_unlock(&to->lock);
        if (block.vaddr && dmab_pool_free(actor->model->pool, block.vaddr, block.dma))
                wrong(actor, dmab_last_error(), &block);
}

static void free_passed(struct actor *actor) {
        struct block passed[HELD_MAX];
        size_t n;

        pthread_mutex_lock(&actor->lock);
        n = actor->n_passed;
        memcpy(passed, actor->passed, n * sizeof(*passed));
        actor->n_passed = 0;
        pthread_mutex_unlock(&actor->lock);
        for (size_t i = 0; i < n; i++)
                if (dmab_pool_free(actor->model->pool, passed[i].vaddr, passed[i].dma))
                        wrong(actor, dmab_last_error(), &passed[i]);
}

/* What must be refused is, in the middle of everything. */
static void free_wrongly(struct actor *actor) {
        struct block block;

        if (!actor->n)
                return;
        block = actor->held[next_random(actor) % actor->n];
        if (dmab_pool_free(actor->model->pool, (char *)block.vaddr + 8, block.dma + 8) != -EFAULT ||
            dmab_pool_free(actor->model->pool, block.vaddr, block.dma + actor->model->block_size) != -EFAULT ||
            dmab_pool_free(actor->model->pool, actor, block.dma) != -EFAULT)
                wrong(actor, "a wrong free was accepted", &block);
}

static void step(struct actor *actor) {
        unsigned what = next_random(actor) % 1000;

        if (what < 440)
                alloc_one(actor);
        else if (what < 860)
                free_one(actor);
        else if (what < 885)
                alloc_bulk(actor);
        else if (what < 910)
                free_bulk(actor);
        else if (what < 960)
                pass_on(actor);
        else if (what < 980)
                free_passed(actor);
        else if (what < 998)
                free_wrongly(actor);
        else if (dmab_pool_trim(actor->model->pool))
                wrong(actor, dmab_last_error(), &(struct block){ 0 });
}

static void *act(void *pointer) {
        struct actor *actor = pointer;

        for (size_t i = 0; i < actor->steps; i++)
                step(actor);
        while (actor->n)
                free_one(actor);
        return NULL;
}

/* ---- the two ways to run it ---- */

struct fixture {
        struct test_daemon *daemon;
        dmab_t *dmab;
        dmab_device_t *device;
};

static int set_up(void **state) {
        struct test_daemon_options options = { .open_directory = true, .config = "[daemon]\naccess = everyone\n" };
        struct fixture *fixture = calloc(1, sizeof(*fixture));
        char uri[256];

        if (!fixture || test_daemon_start(&options, &fixture->daemon))
                return -1;
        snprintf(uri, sizeof(uri), "unix:%s", test_daemon_socket(fixture->daemon));
        if (dmab_connect(uri, &fixture->dmab) || dmab_device_open(fixture->dmab, "card", NULL, &fixture->device))
                return -1;
        *state = fixture;
        return 0;
}

static int tear_down(void **state) {
        struct fixture *fixture = *state;
        int r;

        dmab_disconnect(fixture->dmab);
        r = test_daemon_end(fixture->daemon);
        free(fixture);
        return r;
}

static void run(struct fixture *fixture, size_t size, size_t max_blocks, size_t threads, size_t steps) {
        struct dmab_pool_options options = DMAB_POOL_OPTIONS_INIT;
        struct dmab_pool_info info = DMAB_POOL_INFO_INIT;
        struct model model = { .max_blocks = max_blocks };
        struct actor *actors = calloc(threads, sizeof(*actors));
        uint64_t seed = (uint64_t)time(NULL) | 1;

        options.max_blocks = max_blocks;
        model.places = calloc(PLACES, sizeof(*model.places));
        assert_non_null(model.places);
        assert_int_equal(dmab_pool_create("model", fixture->device, size, 0, 0, &options, &model.pool), 0);
        assert_int_equal(dmab_pool_info(model.pool, &info), 0);
        model.block_size = info.block_size;
        print_message("seed %llu\n", (unsigned long long)seed);
        for (size_t i = 0; i < threads; i++) {
                actors[i].model = &model;
                actors[i].random = seed * (i + 1);
                actors[i].name = i + 1;
                actors[i].steps = steps / threads;
                actors[i].neighbour = &actors[(i + 1) % threads];
                pthread_mutex_init(&actors[i].lock, NULL);
        }
        for (size_t i = 0; i < threads; i++)
                assert_int_equal(pthread_create(&actors[i].thread, NULL, act, &actors[i]), 0);
        for (size_t i = 0; i < threads; i++)
                pthread_join(actors[i].thread, NULL);
        for (size_t i = 0; i < threads; i++) {
                free_passed(&actors[i]);
                pthread_mutex_destroy(&actors[i].lock);
        }
        assert_int_equal(dmab_pool_info(model.pool, &info), 0);
        assert_int_equal(info.used, 0);
        if (dmab_pool_destroy(model.pool))
                fail_msg("%s", dmab_last_error());
        free(model.places);
        free(actors);
}

static void test_one_thread_with_plenty(void **state) {
        run(*state, 192, 0, 1, steps_wanted() / 4);
}

static void test_one_thread_that_goes_short(void **state) {
        run(*state, 1024, 200, 1, steps_wanted() / 4);
}

static void test_threads_with_plenty(void **state) {
        run(*state, 64, 0, THREADS, steps_wanted() / 4);
}

static void test_threads_that_go_short(void **state) {
        run(*state, 4096, 300, THREADS, steps_wanted() / 4);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(one_thread_with_plenty),
                TEST(one_thread_that_goes_short),
                TEST(threads_with_plenty),
                TEST(threads_that_go_short),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
