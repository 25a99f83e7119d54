/* Memory of any size against a simple model: whoever has a block has his mark in each of its cache lines, and finds it there
 * when he gives the block back. Blocks that overlap, share a line, or lie elsewhere for the device are found out.
 *
 * ANY_CLIENT_STEPS says how many operations are made in all (200,000), half by one thread half by several. */
#include <dmabroker.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/lib/daemon.h"

enum { THREADS_MAX = 4, HELD_MAX = 200, LINE = 64, STEPS = 200000 };

struct block {
        char *vaddr;
        dmab_addr_t dma;
        size_t size;
        uint64_t mark;
};

struct actor {
        pthread_t thread;
        dmab_device_t *device;
        uint64_t random;
        size_t steps, n, failures;
        struct block held[HELD_MAX];
        /* Blocks that its neighbour shall give back. */
        pthread_mutex_t lock;
        struct actor *neighbour;
        size_t n_passed;
        struct block passed[HELD_MAX];
        const char *wrong;
};

static uint64_t next_random(struct actor *actor) {
        actor->random ^= actor->random << 13;
        actor->random ^= actor->random >> 7;
        actor->random ^= actor->random << 17;
        return actor->random * UINT64_C(0x2545f4914f6cdd1d);
}

/* Log-uniform from 1 byte to 512 KiB: small ones come from pools, large ones from the daemon. */
static size_t next_size(struct actor *actor) {
        return (size_t)exp2(19 * ((double)(next_random(actor) >> 11) * 0x1p-53));
}

/* A line's first byte is always the block's own, however small it is. */
static void mark(const struct block *block) {
        for (size_t at = 0; at < block->size; at += LINE)
                for (size_t i = 0; i < sizeof(block->mark) && at + i < block->size; i++)
                        block->vaddr[at + i] = (char)(block->mark >> 8 * i);
}

static bool is_marked(const struct block *block) {
        for (size_t at = 0; at < block->size; at += LINE)
                for (size_t i = 0; i < sizeof(block->mark) && at + i < block->size; i++)
                        if (block->vaddr[at + i] != (char)(block->mark >> 8 * i))
                                return false;
        return true;
}

static const char *take(struct actor *actor) {
        struct block *block = &actor->held[actor->n];
        dmab_addr_t last;
        int r;

        *block = (struct block){ .size = next_size(actor), .mark = next_random(actor) };
        r = dmab_alloc(actor->device, block->size, DMAB_NOWAIT, (void **)&block->vaddr, &block->dma);
        if (r == -ENOMEM) {
                actor->failures++;
                return NULL;
        }
        if (r)
                return dmab_last_error();
        if ((uintptr_t)block->vaddr % LINE || block->dma % LINE)
                return "a block does not start at a cache line";
        if (dmab_dma_addr(actor->device, block->vaddr + block->size - 1, &last) || last != block->dma + block->size - 1)
                return "a block is not in one piece for the device";
        mark(block);
        actor->n++;
        return NULL;
}

static const char *give(struct actor *actor, const struct block *block) {
        if (!is_marked(block))
                return "somebody else has written into a block";
        return dmab_free(actor->device, block->vaddr) ? dmab_last_error() : NULL;
}

static bool pass_on(struct actor *actor, const struct block *block) {
        struct actor *to = actor->neighbour;
        bool room;

        pthread_mutex_lock(&to->lock);
        room = to->n_passed < HELD_MAX;
        if (room)
                to->passed[to->n_passed++] = *block;
        pthread_mutex_unlock(&to->lock);
        return room;
}

static const char *give_passed(struct actor *actor) {
        struct block block;
        bool any;

        pthread_mutex_lock(&actor->lock);
        any = actor->n_passed;
        if (any)
                block = actor->passed[--actor->n_passed];
        pthread_mutex_unlock(&actor->lock);
        return any ? give(actor, &block) : NULL;
}

static const char *step(struct actor *actor) {
        uint64_t what = next_random(actor) % 8;
        struct block block;
        size_t i;

        if (what == 0)
                return give_passed(actor);
        if (actor->n < HELD_MAX && (what < 5 || !actor->n))
                return take(actor);
        i = next_random(actor) % actor->n;
        block = actor->held[i];
        actor->held[i] = actor->held[--actor->n];
        if (what == 7 && pass_on(actor, &block))
                return NULL;
        return give(actor, &block);
}

static void *act(void *userdata) {
        struct actor *actor = userdata;

        for (size_t i = 0; i < actor->steps && !actor->wrong; i++)
                actor->wrong = step(actor);
        while (actor->n && !actor->wrong)
                actor->wrong = give(actor, &actor->held[--actor->n]);
        return NULL;
}

static size_t steps_wanted(void) {
        const char *text = getenv("ANY_CLIENT_STEPS");

        return text ? strtoull(text, NULL, 10) : STEPS;
}

static void run(size_t threads) {
        static struct actor actors[THREADS_MAX];
        struct test_daemon *daemon;
        dmab_device_t *device;
        size_t failures = 0;
        char uri[256];
        dmab_t *dmab;

        assert_int_equal(test_daemon_start(NULL, &daemon), 0);
        snprintf(uri, sizeof(uri), "unix:%s", test_daemon_socket(daemon));
        assert_int_equal(dmab_connect(uri, &dmab), 0);
        assert_int_equal(dmab_device_open(dmab, "card", NULL, &device), 0);
        for (size_t i = 0; i < threads; i++) {
                actors[i] = (struct actor){ .device = device,
                                            .random = 88172645463325252 + i,
                                            .neighbour = &actors[(i + 1) % threads],
                                            .steps = steps_wanted() / 2 / threads };
                pthread_mutex_init(&actors[i].lock, NULL);
        }
        for (size_t i = 0; i < threads; i++)
                assert_int_equal(pthread_create(&actors[i].thread, NULL, act, &actors[i]), 0);
        for (size_t i = 0; i < threads; i++) {
                pthread_join(actors[i].thread, NULL);
                if (actors[i].wrong)
                        fail_msg("thread %zu: %s", i, actors[i].wrong);
                failures += actors[i].failures;
        }
        for (size_t i = 0; i < threads; i++)
                while (actors[i].n_passed)
                        assert_null(give_passed(&actors[i]));
        print_message("%zu steps of %zu threads, %zu of them found no memory\n", steps_wanted() / 2, threads, failures);
        /* Nothing is left: the device says so itself. */
        assert_int_equal(dmab_device_close(device), 0);
        dmab_disconnect(dmab);
        assert_int_equal(test_daemon_end(daemon), 0);
}

static void test_blocks_of_one_thread_are_apart(void **state) {
        run(1);
}

static void test_blocks_of_several_threads_are_apart(void **state) {
        run(THREADS_MAX);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_blocks_of_one_thread_are_apart),
                cmocka_unit_test(test_blocks_of_several_threads_are_apart),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
