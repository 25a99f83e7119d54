/* Pools when memory is short: what the reserve keeps, who waits, who comes first, and what a client that vanishes leaves.
 * The daemon has 16 MiB, of which 2 MiB are kept for requests of high priority. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/rpc/ask.h"

#define KIB UINT64_C(1024)

/* idle: how long unused memory is kept. */
#define CONFIG(idle)                                                                                                  \
        "[daemon]\naccess = everyone\ngrace = 0\n"                                                                    \
        "[memory]\nregion_idle = " idle "\nquarantine = 0\nemergency_permille = 125\nemergency_max = 2M\n"            \
        "[source sim]\nlayout = 16M@0x100000000\n"

static int set_up(void **state) {
        return ask_set_up(state, CONFIG("0"));
}

static int set_up_to_keep(void **state) {
        return ask_set_up(state, CONFIG("1h"));
}

/* Blocks of 64 KiB. */
static uint64_t make_pool(struct test_client *client, uint64_t device, uint64_t reserve, uint64_t max_blocks) {
        return ask_number(client, "pool", "pool.create",
                          "{'name':'ring','device':%" PRIu64 ",'size':65536,'reserve':%" PRIu64 ",'max_blocks':%" PRIu64 "}",
                          device, reserve, max_blocks);
}

static int send_alloc(struct test_client *client, uint64_t pool, unsigned wait_ms, const char *priority) {
        return ask_send(client, "pool.alloc", "{'pool':%" PRIu64 ",'wait_ms':%u,'priority':'%s'}", pool, wait_ms, priority);
}

static uint64_t addr_of(json_t *result) {
        uint64_t addr = ask_peek_hex(json_array_get(json_object_get(result, "blocks"), 0), "dma_addr");

        json_decref(result);
        return addr;
}

static uint64_t take(struct test_client *client, uint64_t pool) {
        return addr_of(ask_result(client, send_alloc(client, pool, 0, "normal")));
}

static void give_back(struct test_client *client, uint64_t pool, uint64_t addr) {
        json_decref(ask(client, "pool.free", "{'pool':%" PRIu64 ",'dma_addrs':['0x%" PRIx64 "']}", pool, addr));
}

static uint64_t stat(struct test_client *client, uint64_t pool, const char *member) {
        return ask_number(client, member, "pool.stats", "{'pool':%" PRIu64 "}", pool);
}

/* All memory is taken by others, to the last page that normal priority may have. */
static void fill(struct test_client *client) {
        uint64_t device = ask_device(client, "greedy");

        for (uint64_t size = 4096 * KIB; size >= 4 * KIB;) {
                json_t *answer;

                ask_send(client, "coherent.alloc", "{'device':%" PRIu64 ",'size':%" PRIu64 ",'wait_ms':0}", device, size);
                answer = ask_read(client);
                if (!json_object_get(answer, "result"))
                        size /= 2;
                json_decref(answer);
        }
}

/* ---- the reserve ---- */

static void test_the_reserve_is_kept_when_all_memory_is_taken(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture->client, fixture->device, 20, 0), addrs[20];

        fill(fixture->other);
        for (int round = 0; round < 3; round++) {
                for (int i = 0; i < 20; i++)
                        addrs[i] = take(fixture->client, pool);
                for (int i = 0; i < 20; i++)
                        give_back(fixture->client, pool, addrs[i]);
        }
        assert_true(stat(fixture->client, pool, "free") >= 20);
        ask_clean(fixture->client);
}

static void test_beyond_the_reserve_a_full_pool_says_what_is_missing(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture->client, fixture->device, 2, 0), n = stat(fixture->client, pool, "free");
        json_t *error;

        fill(fixture->other);
        for (uint64_t i = 0; i < n; i++)
                take(fixture->client, pool);
        error = ask_error(fixture->client, send_alloc(fixture->client, pool, 0, "normal"));
        assert_true(json_integer_value(json_object_get(error, "code")) == 12);
        json_decref(error);
        assert_int_equal(stat(fixture->client, pool, "used"), n);
        assert_true(stat(fixture->client, pool, "failures") >= 1);
}

static void test_high_priority_may_use_what_is_kept_for_emergencies(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture->client, fixture->device, 0, 0);

        fill(fixture->other);
        ask_invalid(fixture->client, 12, "pool.alloc", "{'pool':%" PRIu64 ",'wait_ms':0}", pool);
        addr_of(ask_result(fixture->client, send_alloc(fixture->client, pool, 0, "high")));
}

static void test_unused_slabs_are_given_up_for_others(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture->client, fixture->device, 0, 0), addrs[64], n = 0;

        for (; n < 64; n++)
                addrs[n] = take(fixture->client, pool);
        fill(fixture->other);
        while (n)
                give_back(fixture->client, pool, addrs[--n]);
        assert_true(stat(fixture->client, pool, "bytes") >= 64 * 64 * KIB);
        /* There is no other memory for this. */
        ask_alloc(fixture->other, ask_device(fixture->other, "card"), 1024 * KIB);
        ask_clean(fixture->client);
}

/* ---- waiting ---- */

static void test_a_call_that_may_not_wait_fails_at_once(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture->client, fixture->device, 0, 1);

        take(fixture->client, pool);
        ask_refused(fixture->client, "limit", "pool.alloc", "{'pool':%" PRIu64 ",'wait_ms':0}", pool);
        assert_int_equal(stat(fixture->client, pool, "waiters"), 0);
}

static void test_a_call_that_waits_is_told_when_its_time_is_over(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture->client, fixture->device, 0, 1);

        take(fixture->client, pool);
        ask_take_reason(ask_error(fixture->client, send_alloc(fixture->client, pool, 30, "normal")), "timeout");
        assert_int_equal(stat(fixture->client, pool, "timeouts"), 1);
        assert_int_equal(stat(fixture->client, pool, "waits"), 1);
        ask_until_waiting(fixture->other, 0);
}

static void test_the_device_says_how_long_calls_wait(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t device = ask_number(fixture->client, "device", "device.open", "{'name':'patient','wait_ms':30}");
        uint64_t pool = make_pool(fixture->client, device, 0, 1);

        take(fixture->client, pool);
        ask_refused(fixture->client, "timeout", "pool.alloc", "{'pool':%" PRIu64 "}", pool);
        ask_refused(fixture->client, "timeout", "pool.lease", "{'pool':%" PRIu64 ",'count':1}", pool);
}

static void test_a_call_that_may_not_wait_does_not_overtake_one_that_waits(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture->client, fixture->device, 0, 4), addrs[4];
        int waiting;

        for (int i = 0; i < 4; i++)
                addrs[i] = take(fixture->client, pool);
        waiting = ask_send(fixture->client, "pool.alloc", "{'pool':%" PRIu64 ",'count':2,'wait_ms':60000}", pool);
        ask_until_waiting(fixture->other, 1);
        give_back(fixture->other, pool, addrs[0]);
        ask_refused(fixture->other, "would_block", "pool.alloc", "{'pool':%" PRIu64 ",'wait_ms':0}", pool);
        addr_of(ask_result(fixture->other, send_alloc(fixture->other, pool, 0, "high")));
        give_back(fixture->other, pool, addrs[1]);
        give_back(fixture->other, pool, addrs[2]);
        json_decref(ask_result(fixture->client, waiting));
        ask_clean(fixture->client);
}

static void test_calls_that_may_wait_wait_for_memory_too(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture->client, fixture->device, 0, 0), device = ask_device(fixture->other, "card");
        uint64_t alloc = ask_alloc(fixture->other, device, 1024 * KIB);
        int waiting;

        fill(fixture->other);
        waiting = send_alloc(fixture->client, pool, 60000, "normal");
        ask_until(stat(fixture->other, pool, "waiters") == 1);
        json_decref(ask(fixture->other, "coherent.free", "{'alloc':%" PRIu64 "}", alloc));
        addr_of(ask_result(fixture->client, waiting));
}

static void test_a_hundred_calls_of_many_connections_are_served_in_order(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture->client, fixture->device, 0, 1), addr = take(fixture->client, pool);
        struct test_client *clients[10];
        int ids[100];

        for (int i = 0; i < 10; i++)
                clients[i] = ask_connect(fixture->daemon, NULL);
        for (int i = 0; i < 100; i++) {
                ids[i] = send_alloc(clients[i * 7 % 10], pool, 60000, "normal");
                ask_until_waiting(fixture->other, (uint64_t)i + 1);
        }
        for (int i = 0; i < 100; i++) {
                give_back(fixture->other, pool, addr);
                /* Nobody but this one can have been answered: there is a single block. */
                addr = addr_of(ask_result(clients[i * 7 % 10], ids[i]));
                assert_int_equal(stat(fixture->other, pool, "waiters"), 99 - i);
        }
        for (int i = 0; i < 10; i++)
                test_client_close(clients[i]);
        ask_clean(fixture->client);
}

static void test_leases_and_blocks_wait_in_one_line(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture->client, fixture->device, 0, 1), addr = take(fixture->client, pool), lease;
        int first, second;

        first = ask_send(fixture->client, "pool.lease", "{'pool':%" PRIu64 ",'count':1,'wait_ms':60000}", pool);
        second = send_alloc(fixture->client, pool, 60000, "normal");
        ask_until_waiting(fixture->other, 2);
        give_back(fixture->other, pool, addr);
        lease = ask_take_number(ask_result(fixture->client, first), "lease");
        ask_until_waiting(fixture->other, 1);
        json_decref(ask(fixture->other, "pool.return", "{'lease':%" PRIu64 "}", lease));
        addr_of(ask_result(fixture->client, second));
}

static void test_a_waiter_that_vanishes_loses_nothing(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture->client, fixture->device, 0, 2), a = take(fixture->client, pool);
        uint64_t b = take(fixture->client, pool);
        struct test_client *third = ask_connect(fixture->daemon, NULL);
        int waiting;

        send_alloc(third, pool, 60000, "normal");
        ask_until_waiting(fixture->other, 1);
        waiting = send_alloc(fixture->client, pool, 60000, "normal");
        ask_until_waiting(fixture->other, 2);
        test_client_close(third);
        ask_until_waiting(fixture->other, 1);
        give_back(fixture->other, pool, a);
        assert_int_equal(addr_of(ask_result(fixture->client, waiting)), a);
        give_back(fixture->client, pool, a);
        give_back(fixture->client, pool, b);
        assert_int_equal(stat(fixture->client, pool, "used"), 0);
        ask_clean(fixture->client);
}

static void test_a_pool_that_ends_answers_those_who_wait(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture->client, fixture->device, 0, 1);
        int alloc, lease;

        take(fixture->client, pool);
        alloc = send_alloc(fixture->client, pool, 60000, "normal");
        lease = ask_send(fixture->client, "pool.lease", "{'pool':%" PRIu64 ",'count':1,'wait_ms':60000}", pool);
        ask_until_waiting(fixture->other, 2);
        ask_send(fixture->other, "pool.destroy", "{'pool':%" PRIu64 ",'force':true}", pool);
        ask_take_reason(ask_error(fixture->client, alloc), "gone");
        ask_take_reason(ask_error(fixture->client, lease), "gone");
        json_decref(ask_read(fixture->other));
        ask_until_waiting(fixture->other, 0);
        ask_clean(fixture->client);
}

static void test_the_quota_counts_waiters(void **state) {
        struct ask_fixture *fixture = *state;
        struct test_client *client = ask_connect_as(fixture->daemon, 12345);
        uint64_t pool = make_pool(client, ask_device(client, "card"), 0, 1);
        int waiting;

        json_decref(ask(fixture->client, "quota.set", "{'owner':'user:12345','limits':{'waiters':1}}"));
        take(client, pool);
        waiting = send_alloc(client, pool, 60000, "normal");
        ask_until_waiting(fixture->other, 1);
        ask_refused(client, "quota", "pool.alloc", "{'pool':%" PRIu64 ",'wait_ms':60000}", pool);
        json_decref(ask(fixture->client, "pool.destroy", "{'pool':%" PRIu64 ",'force':true}", pool));
        ask_take_reason(ask_error(client, waiting), "gone");
        test_client_close(client);
}

/* ---- clients that vanish ---- */

static void test_everything_comes_back_from_a_client_that_vanishes(void **state) {
        struct ask_fixture *fixture = *state;
        char *before = ask_books(fixture->client);

        for (int i = 0; i < 20; i++) {
                struct test_client *doomed = ask_connect(fixture->daemon, NULL);
                uint64_t pool = make_pool(doomed, ask_device(doomed, "card"), 4, 0);

                take(doomed, pool);
                json_decref(ask(doomed, "pool.lease", "{'pool':%" PRIu64 ",'count':3}", pool));
                send_alloc(doomed, pool, 0, "normal");
                test_client_close(doomed);
        }
        ask_until_books(fixture->client, before);
        free(before);
        ask_clean(fixture->client);
}

static void test_blocks_that_a_vanished_client_had_of_anothers_pool_come_back(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture->client, fixture->device, 8, 8);

        for (int i = 0; i < 20; i++) {
                struct test_client *doomed = ask_connect(fixture->daemon, NULL);

                take(doomed, pool);
                take(doomed, pool);
                json_decref(ask(doomed, "pool.lease", "{'pool':%" PRIu64 ",'count':6}", pool));
                assert_int_equal(stat(fixture->client, pool, "free"), 0);
                test_client_close(doomed);
                ask_until(stat(fixture->client, pool, "free") == 8);
                assert_int_equal(stat(fixture->client, pool, "used") + stat(fixture->client, pool, "leased"), 0);
        }
        ask_clean(fixture->client);
}

static void test_what_a_vanished_client_had_rests_before_it_is_used_again(void **state) {
        struct test_daemon *running = ask_daemon("[daemon]\naccess = everyone\ngrace = 0\n[memory]\nquarantine = 1h\n");
        struct test_client *client = ask_connect(running, NULL), *doomed = ask_connect(running, NULL);
        uint64_t pool = make_pool(client, ask_device(client, "card"), 4, 4), addr;

        addr = take(doomed, pool);
        json_decref(ask(doomed, "pool.lease", "{'pool':%" PRIu64 ",'count':2}", pool));
        test_client_close(doomed);
        ask_until(stat(client, pool, "quarantined") == 3);
        assert_int_equal(stat(client, pool, "free"), 1);
        assert_int_equal(stat(client, pool, "leases"), 0);
        ask_refused(client, "quarantined", "pool.free", "{'pool':%" PRIu64 ",'dma_addrs':['0x%" PRIx64 "']}", pool, addr);
        take(client, pool);
        ask_refused(client, "limit", "pool.alloc", "{'pool':%" PRIu64 ",'wait_ms':0}", pool);
        ask_clean(client);
        test_client_close(client);
        assert_int_equal(test_daemon_end(running), 0);
}

static void test_what_a_client_leaves_with_a_word_does_not_rest(void **state) {
        struct test_daemon *running = ask_daemon("[daemon]\naccess = everyone\ngrace = 0\n[memory]\nquarantine = 1h\n");
        struct test_client *client = ask_connect(running, NULL), *polite = ask_connect(running, NULL);
        uint64_t pool = make_pool(client, ask_device(client, "card"), 4, 4);

        take(polite, pool);
        json_decref(ask(polite, "pool.lease", "{'pool':%" PRIu64 ",'count':2}", pool));
        json_decref(ask(polite, "broker.bye", "{}"));
        assert_int_equal(stat(client, pool, "quarantined"), 0);
        assert_int_equal(stat(client, pool, "free"), 4);
        test_client_close(polite);
        test_client_close(client);
        assert_int_equal(test_daemon_end(running), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, ask_tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(test_the_reserve_is_kept_when_all_memory_is_taken),
                T(test_beyond_the_reserve_a_full_pool_says_what_is_missing),
                T(test_high_priority_may_use_what_is_kept_for_emergencies),
                cmocka_unit_test_setup_teardown(test_unused_slabs_are_given_up_for_others, set_up_to_keep, ask_tear_down),
                T(test_a_call_that_may_not_wait_fails_at_once),
                T(test_a_call_that_waits_is_told_when_its_time_is_over),
                T(test_the_device_says_how_long_calls_wait),
                T(test_a_call_that_may_not_wait_does_not_overtake_one_that_waits),
                T(test_calls_that_may_wait_wait_for_memory_too),
                T(test_a_hundred_calls_of_many_connections_are_served_in_order),
                T(test_leases_and_blocks_wait_in_one_line),
                T(test_a_waiter_that_vanishes_loses_nothing),
                T(test_a_pool_that_ends_answers_those_who_wait),
                T(test_the_quota_counts_waiters),
                T(test_everything_comes_back_from_a_client_that_vanishes),
                T(test_blocks_that_a_vanished_client_had_of_anothers_pool_come_back),
                cmocka_unit_test(test_what_a_vanished_client_had_rests_before_it_is_used_again),
                cmocka_unit_test(test_what_a_client_leaves_with_a_word_does_not_rest),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
