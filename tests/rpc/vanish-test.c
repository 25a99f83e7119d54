/* Clients that vanish at any moment, a thousand of them, while they hold blocks, leases and mappings, wait for more, or are
 * in the middle of a request: everything comes back, and the books are right. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/rpc/ask.h"

enum { CLIENTS = 1000, REQUESTS_MAX = 12, BLOCKS = 64, FEW = 16, SLOTS = 64 };

static const char config[] = "[daemon]\naccess = everyone\ngrace = 0\n[memory]\nregion_idle = 0\nquarantine = 0\n"
                             "[source sim]\nlayout = 16M@0x100000000\n";

/* Something for all of them to take from: what a vanished client had must serve the others. */
struct shared {
        uint64_t device, pool, bounce, alloc;
};

static void share(struct ask_fixture *fixture, struct shared *ret) {
        ret->device = fixture->device;
        ret->pool = ask_number(fixture->client, "pool", "pool.create",
                               "{'name':'shared','device':%" PRIu64 ",'size':512,'reserve':%d,'max_blocks':%d}",
                               fixture->device, BLOCKS, BLOCKS);
        ret->bounce = ask_number(fixture->client, "bounce", "bounce.create", "{'device':%" PRIu64 ",'size':%d}",
                                 fixture->device, SLOTS * 2048);
        ret->alloc = ask_number(fixture->client, "alloc", "coherent.alloc",
                                "{'device':%" PRIu64 ",'size':65536,'shareable':true}", fixture->device);
}

static unsigned below(unsigned *seed, unsigned limit) {
        *seed = *seed * 1103515245 + 12345;
        return (*seed >> 16) % limit;
}

/* Without waiting for the answer. own: a device of the client itself. */
static void send_any(struct test_client *client, const struct shared *shared, uint64_t own, unsigned *seed) {
        unsigned wait_ms = below(seed, 2) * 60000, n = 1 + below(seed, 20);

        switch (below(seed, 8)) {
        case 0:
                ask_send(client, "pool.alloc", "{'pool':%" PRIu64 ",'count':%u,'wait_ms':%u}", shared->pool, n, wait_ms);
                break;
        case 1:
                ask_send(client, "pool.lease", "{'pool':%" PRIu64 ",'count':%u,'wait_ms':%u,'fd':true}", shared->pool, n,
                         wait_ms);
                break;
        case 2:
                ask_send(client, "bounce.map",
                         "{'bounce':%" PRIu64 ",'size':%u,'direction':'bidirectional','wait_ms':%u}", shared->bounce, n * 1500,
                         wait_ms);
                break;
        case 3:
                ask_send(client, "bounce.lease", "{'bounce':%" PRIu64 ",'slots':%u,'wait_ms':%u}", shared->bounce, n, wait_ms);
                break;
        case 4:
                ask_send(client, "mapping.map", "{'device':%" PRIu64 ",'alloc':%" PRIu64 ",'direction':'to_device'}", own,
                         shared->alloc);
                break;
        case 5:
                ask_send(client, "pool.create", "{'name':'own','device':%" PRIu64 ",'size':%u,'reserve':%u,'wait_ms':%u}", own,
                         n * 100, n, wait_ms);
                break;
        case 6:
                ask_send(client, "bounce.create", "{'device':%" PRIu64 ",'size':%u,'wait_ms':%u}", own, n * 65536, wait_ms);
                break;
        default:
                ask_send(client, "coherent.alloc", "{'device':%" PRIu64 ",'size':%u,'wait_ms':%u}", own, n * 65536, wait_ms);
                break;
        }
}

static void live_and_vanish(struct ask_fixture *fixture, const struct shared *shared, unsigned *seed) {
        struct test_client *client = ask_connect(fixture->daemon, NULL);
        uint64_t own = ask_device(client, "own");
        unsigned requests = 1 + below(seed, REQUESTS_MAX);

        for (unsigned i = 0; i < requests; i++)
                send_any(client, shared, own, seed);
        /* Some hear an answer or two, some are in the middle of a word. */
        if (below(seed, 2))
                json_decref(ask(fixture->other, "broker.ping", "{}"));
        if (below(seed, 4) == 0)
                test_client_send_text(client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"pool.al");
        test_client_close(client);
}

static uint64_t pool_stat(struct ask_fixture *fixture, const struct shared *shared, const char *member) {
        return ask_number(fixture->client, member, "pool.stats", "{'pool':%" PRIu64 "}", shared->pool);
}

static void vanish(struct ask_fixture *fixture, unsigned seed) {
        struct shared shared;
        uint64_t scarce; /* so that any client may have to wait, even if the one before it has gone unheard */
        char *before;

        share(fixture, &shared);
        scarce = ask_number(fixture->client, "lease", "pool.lease", "{'pool':%" PRIu64 ",'count':%d}", shared.pool,
                            BLOCKS - FEW);
        before = ask_books(fixture->client);
        for (int i = 0; i < CLIENTS; i++) {
                live_and_vanish(fixture, &shared, &seed);
                if (i % 100 == 0)
                        ask_clean(fixture->other);
        }
        ask_until_books(fixture->client, before);
        free(before);
        ask_clean(fixture->client);
        /* They did get something, and did wait. */
        assert_true(pool_stat(fixture, &shared, "allocs") > CLIENTS);
        assert_true(pool_stat(fixture, &shared, "waits") > 0);
        json_decref(ask(fixture->client, "pool.return", "{'lease':%" PRIu64 "}", scarce));
        /* All of it, at once. */
        assert_int_equal(pool_stat(fixture, &shared, "free"), BLOCKS);
        json_decref(ask(fixture->client, "pool.alloc", "{'pool':%" PRIu64 ",'count':%d}", shared.pool, BLOCKS));
        json_decref(ask(fixture->client, "bounce.map", "{'bounce':%" PRIu64 ",'size':%d,'direction':'to_device'}",
                        shared.bounce, SLOTS * 2048));
        json_decref(ask(fixture->client, "coherent.free", "{'alloc':%" PRIu64 "}", shared.alloc));
}

static void test_a_thousand_clients_vanish_and_everything_comes_back(void **state) {
        struct ask_fixture *fixture;

        ask_set_up(state, config);
        fixture = *state;
        vanish(fixture, 1);
        assert_int_equal(ask_tear_down(state), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_thousand_clients_vanish_and_everything_comes_back),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
