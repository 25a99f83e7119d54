/* A client is killed at a random moment, again and again, while its threads hold blocks, leases, bounce slots and mappings:
 * whatever it had comes back each time, and the daemon's books are clean. KILLS says how often; the moment is the client's
 * progress, which the seed decides, not a clock. */
#include <dmabroker.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/daemon.h"

enum { KILLS_DEFAULT = 100, PROGRESS_MAX = 400, SHARED_BLOCKS = 4096, SHARED_SIZE = 512, HELD_MAX = 48, THREADS = 2 };

struct victim {
        dmab_t *dmab;
        dmab_device_t *device;
        dmab_pool_t *own, *shared;
        uint64_t random;
        int progress;
        pthread_t thread;
};

/* What one thread of the victim has at this moment. */
struct held {
        enum { NOTHING, OWN, SHARED, ANY, COHERENT, MAPPED } kind;
        void *vaddr;
        dmab_addr_t dma;
        size_t size;
        enum dmab_direction direction;
};

static uint64_t next_random(uint64_t *random) {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        return *random;
}

/* ---- the victim ---- */

static int take(struct victim *victim, struct held *held) {
        uint64_t random = next_random(&victim->random);

        *held = (struct held){ .kind = OWN + random % 5, .size = 1 + random / 8 % 20000, .direction = random / 64 % 3 };
        switch (held->kind) {
        case OWN:
                return dmab_pool_alloc(victim->own, DMAB_NOWAIT, &held->vaddr, &held->dma);
        case SHARED:
                return dmab_pool_alloc(victim->shared, DMAB_NOWAIT, &held->vaddr, &held->dma);
        case ANY:
                return dmab_alloc(victim->device, held->size, DMAB_NOWAIT, &held->vaddr, &held->dma);
        case COHERENT:
                return dmab_alloc_coherent(victim->device, held->size, DMAB_NOWAIT, &held->vaddr, &held->dma);
        default:
                held->vaddr = malloc(held->size);
                return dmab_map_single(victim->device, held->vaddr, held->size, held->direction, &held->dma);
        }
}

static int give(struct victim *victim, struct held *held) {
        int r;

        switch (held->kind) {
        case NOTHING:
                return 0;
        case OWN:
                return dmab_pool_free(victim->own, held->vaddr, held->dma);
        case SHARED:
                return dmab_pool_free(victim->shared, held->vaddr, held->dma);
        case ANY:
                return dmab_free(victim->device, held->vaddr);
        case COHERENT:
                return dmab_free_coherent(victim->device, held->size, held->vaddr, held->dma);
        default:
                r = dmab_unmap_single(victim->device, held->dma, held->size, held->direction);
                free(held->vaddr);
                return r;
        }
}

static void *live(void *userdata) {
        struct victim *victim = userdata;
        struct held held[HELD_MAX] = { 0 };

        for (;;) {
                struct held *one = &held[next_random(&victim->random) % HELD_MAX];
                bool empty = one->kind == NOTHING;
                int r = empty ? take(victim, one) : give(victim, one);

                /* Memory that is full is no failure: the other thread, or the kills before, may have it still. */
                if (r && !(empty && (r == -ENOMEM || r == -EAGAIN))) {
                        dprintf(STDERR_FILENO, "the victim failed: %s\n", dmab_last_error());
                        _exit(1);
                }
                if (r || !empty)
                        *one = (struct held){ 0 };
                else
                        memset(one->vaddr, 0x5a, one->size);
                if (write(victim->progress, "", 1) != 1)
                        _exit(2);
        }
        return NULL;
}

static void __attribute__((noreturn)) victim_run(const char *uri, uint64_t shared, uint64_t seed, int progress) {
        struct victim victims[THREADS] = { 0 };
        dmab_device_t *device, *card;
        dmab_pool_t *own, *pool;
        dmab_t *dmab;

        if (dmab_connect(uri, &dmab) || dmab_device_open(dmab, "victim", NULL, &device) ||
            dmab_device_open(dmab, "card", NULL, &card) || dmab_pool_open(card, shared, &pool) ||
            dmab_pool_create("own", device, SHARED_SIZE, 0, 0, NULL, &own)) {
                dprintf(STDERR_FILENO, "the victim cannot begin: %s\n", dmab_last_error());
                _exit(1);
        }
        for (size_t i = 0; i < THREADS; i++) {
                victims[i] = (struct victim){ .dmab = dmab, .device = device, .own = own, .shared = pool,
                                              .random = seed * THREADS + i + 1, .progress = progress };
                pthread_create(&victims[i].thread, NULL, live, &victims[i]);
        }
        for (;;)
                pause();
}

/* ---- the survivor ---- */

struct fixture {
        struct test_daemon *daemon;
        char uri[256];
        dmab_t *dmab;
        dmab_device_t *card;
        dmab_pool_t *shared;
};

static int set_up(void **state) {
        struct test_daemon_options options = {
                .config = "[daemon]\ngrace = 0\n[memory]\nregion_idle = 0\nquarantine = 5ms\n",
        };
        struct dmab_pool_options pool = DMAB_POOL_OPTIONS_INIT;
        struct fixture *fixture = calloc(1, sizeof(*fixture));

        if (!fixture || test_daemon_start(&options, &fixture->daemon))
                return -1;
        snprintf(fixture->uri, sizeof(fixture->uri), "unix:%s", test_daemon_socket(fixture->daemon));
        pool.reserve = 64;
        pool.max_blocks = SHARED_BLOCKS;
        if (dmab_connect(fixture->uri, &fixture->dmab) ||
            dmab_device_open(fixture->dmab, "card", NULL, &fixture->card) ||
            dmab_pool_create("shared", fixture->card, SHARED_SIZE, 0, 0, &pool, &fixture->shared)) {
                print_error("%s\n", dmab_last_error());
                return -1;
        }
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

static json_t *call(const struct fixture *fixture, const char *method, const char *params) {
        char *text = NULL;
        json_t *result;

        if (dmab_call(fixture->dmab, method, params, &text))
                fail_msg("%s: %s", method, dmab_last_error());
        result = json_loads(text, JSON_DECODE_ANY, NULL);
        assert_non_null(result);
        free(text);
        return result;
}

static bool member_is(json_t *object, const char *name, json_int_t value) {
        return json_integer_value(json_object_get(object, name)) == value;
}

/* Is everything as if no victim had ever been? Quarantine included: then its time is not over yet. */
static bool all_is_back(const struct fixture *fixture) {
        char params[64];
        json_t *status = call(fixture, "broker.status", NULL), *counts = json_object_get(status, "counts"), *pool;
        bool back = member_is(counts, "sessions", 1) && member_is(counts, "devices", 1) && member_is(counts, "pools", 1) &&
                    member_is(counts, "leases", 0) && member_is(counts, "mappings", 0) && member_is(counts, "bounces", 0);

        json_decref(status);
        snprintf(params, sizeof(params), "{\"pool\":%llu}", (unsigned long long)dmab_pool_handle(fixture->shared));
        pool = call(fixture, "pool.stats", params);
        back &= member_is(pool, "used", 0) && member_is(pool, "leased", 0) && member_is(pool, "quarantined", 0);
        json_decref(pool);
        return back;
}

static void expect_clean_books(const struct fixture *fixture) {
        json_t *check = call(fixture, "debug.check", NULL);
        char *text;

        if (!json_is_true(json_object_get(check, "clean"))) {
                text = json_dumps(json_object_get(check, "problems"), JSON_INDENT(2));
                fail_msg("the books are not clean: %s", text);
        }
        json_decref(check);
}

static void kill_one(const struct fixture *fixture, uint64_t seed) {
        uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
        size_t wanted = next_random(&random) % PROGRESS_MAX, got = 0;
        char bytes[PROGRESS_MAX];
        int ends[2], status;
        ssize_t n = 1;
        pid_t pid;

        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        pid = fork();
        if (!pid)
                victim_run(fixture->uri, dmab_pool_handle(fixture->shared), seed, ends[1]);
        assert_true(pid > 0);
        close(ends[1]);
        for (; got < wanted && n > 0; got += n)
                n = read(ends[0], bytes, wanted - got);
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        close(ends[0]);
        assert_true(WIFSIGNALED(status)); /* or it failed by itself, and has said why */
}

static void test_a_client_killed_at_any_moment_leaves_nothing_behind(void **state) {
        const struct fixture *fixture = *state;
        const char *text = getenv("KILLS");
        unsigned long kills = text ? strtoul(text, NULL, 10) : KILLS_DEFAULT, i;

        for (i = 0; i < kills; i++) {
                kill_one(fixture, i + 1);
                while (!all_is_back(fixture)) /* each look is a call that the daemon answers */
                        ;
                expect_clean_books(fixture);
        }
        print_message("%lu clients were killed; everything came back each time\n", kills);
}

static void test_the_reserve_can_still_be_had_afterwards(void **state) {
        const struct fixture *fixture = *state;
        void *vaddrs[64];
        dmab_addr_t dmas[64];

        kill_one(fixture, 77);
        while (!all_is_back(fixture))
                ;
        assert_int_equal(dmab_pool_alloc_bulk(fixture->shared, DMAB_NOWAIT, 64, vaddrs, dmas), 0);
        assert_int_equal(dmab_pool_free_bulk(fixture->shared, 64, vaddrs, dmas), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_a_client_killed_at_any_moment_leaves_nothing_behind, set_up,
                                                tear_down),
                cmocka_unit_test_setup_teardown(test_the_reserve_can_still_be_had_afterwards, set_up, tear_down),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
