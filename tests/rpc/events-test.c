/* Events: who is told what, in which order, and what happens to those who do not listen. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "tests/rpc/ask.h"

static const char config[] = "[daemon]\naccess = everyone\ngrace = 0\n[memory]\nregion_idle = 0\nquarantine = 0\n"
                             "[limits]\nqueue_pause = 4K\n[source sim]\nlayout = 16M@0x100000000\n";

static int set_up(void **state) {
        return ask_set_up(state, config);
}

static json_t *subscribe(struct test_client *client, const char *topics) {
        return ask(client, "events.subscribe", "{'topics':[%s]}", topics);
}

/* A pool with a block in use, ended by force: one leak. */
static uint64_t leak(struct test_client *client) {
        uint64_t pool = ask_number(client, "pool", "pool.create", "{'name':'leaky','device':%" PRIu64 ",'size':64}",
                                   ask_device(client, "card"));

        json_decref(ask(client, "pool.alloc", "{'pool':%" PRIu64 ",'count':3}", pool));
        json_decref(ask(client, "pool.destroy", "{'pool':%" PRIu64 ",'force':true}", pool));
        return pool;
}

/* The next line must be an event of this topic: its params. The caller's. */
static json_t *event(struct test_client *client, const char *topic) {
        json_t *message = ask_read(client), *params = json_incref(json_object_get(message, "params"));

        if (!json_object_get(message, "method") || json_object_get(message, "id") ||
            strcmp(json_string_value(json_object_get(message, "method")), "event") != 0 ||
            strcmp(json_string_value(json_object_get(params, "topic")), topic) != 0)
                fail_msg("wanted an event of %s, got %s", topic, json_dumps(message, 0));
        json_decref(message);
        return params;
}

/* Whatever was told has come before this answer. */
static void hears_nothing(struct test_client *client) {
        json_decref(ask(client, "broker.ping", "{}"));
}

/* ---- subscribing ---- */

static void test_a_subscription_begins_with_what_is_the_case(void **state) {
        struct ask_fixture *fixture = *state;
        json_t *result = subscribe(fixture->client, "'leak','recall'");

        assert_int_equal(json_array_size(json_object_get(result, "topics")), 2);
        assert_int_equal(ask_peek_number(result, "event"), 0);
        assert_true(json_is_false(json_object_get(result, "pressure")));
        assert_int_equal(json_array_size(json_object_get(result, "pending")), 0);
        json_decref(result);
        result = subscribe(fixture->client, "'pressure'");
        assert_int_equal(json_array_size(json_object_get(result, "topics")), 3);
        json_decref(result);
}

static void test_topics_that_cannot_happen_are_refused(void **state) {
        struct ask_fixture *fixture = *state;

        ask_invalid(fixture->client, -32602, "events.subscribe", "{'topics':['weather']}");
        ask_invalid(fixture->client, -32602, "events.subscribe", "{'topics':'leak'}");
        ask_invalid(fixture->client, -32602, "events.subscribe", "{}");
        leak(fixture->other);
        hears_nothing(fixture->client);
}

static void test_events_come_numbered_to_those_who_subscribed(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool, number = 0;
        json_t *params;

        json_decref(subscribe(fixture->client, "'leak'"));
        for (int i = 0; i < 3; i++) {
                pool = leak(fixture->other);
                params = event(fixture->client, "leak");
                assert_int_equal(ask_peek_number(params, "event"), ++number);
                assert_int_equal(ask_peek_number(params, "pool"), pool);
                assert_int_equal(ask_peek_number(params, "count"), 3);
                assert_int_equal(ask_peek_number(params, "bytes"), 192);
                assert_string_equal(json_string_value(json_object_get(params, "name")), "leaky");
                assert_null(json_object_get(params, "missed"));
                json_decref(params);
        }
}

static void test_nothing_comes_once_unsubscribed(void **state) {
        struct ask_fixture *fixture = *state;
        json_t *result;

        json_decref(subscribe(fixture->client, "'leak','recall'"));
        result = ask(fixture->client, "events.unsubscribe", "{'topics':['leak','pressure']}");
        assert_int_equal(json_array_size(json_object_get(result, "topics")), 1);
        json_decref(result);
        leak(fixture->other);
        hears_nothing(fixture->client);
        result = ask(fixture->client, "events.unsubscribe", "{}");
        assert_int_equal(json_array_size(json_object_get(result, "topics")), 0);
        json_decref(result);
}

static void test_an_event_of_a_call_comes_before_its_answer(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = ask_number(fixture->client, "pool", "pool.create", "{'name':'leaky','device':%" PRIu64 ",'size':64}",
                                   ask_device(fixture->client, "card"));
        int id;

        json_decref(ask(fixture->client, "pool.alloc", "{'pool':%" PRIu64 "}", pool));
        json_decref(subscribe(fixture->client, "'leak'"));
        id = ask_send(fixture->client, "pool.destroy", "{'pool':%" PRIu64 ",'force':true}", pool);
        json_decref(event(fixture->client, "leak"));
        json_decref(ask_result(fixture->client, id));
}

static void test_an_event_is_a_line_of_its_own_beside_a_batch(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = ask_number(fixture->client, "pool", "pool.create", "{'name':'leaky','device':%" PRIu64 ",'size':64}",
                                   ask_device(fixture->client, "card"));
        char text[512];
        json_t *answers;

        json_decref(ask(fixture->client, "pool.alloc", "{'pool':%" PRIu64 "}", pool));
        json_decref(subscribe(fixture->client, "'leak'"));
        snprintf(text, sizeof(text),
                 "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"broker.ping\"},{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":"
                 "\"pool.destroy\",\"params\":{\"pool\":%" PRIu64 ",\"force\":true}},"
                 "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"broker.ping\"}]\n", pool);
        assert_int_equal(test_client_send_text(fixture->client, text), 0);
        json_decref(event(fixture->client, "leak"));
        answers = ask_read(fixture->client);
        assert_int_equal(json_array_size(answers), 3);
        json_decref(answers);
}

/* ---- what was missed ---- */

static void test_events_since_a_number_are_answered_with(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pools[5];
        json_t *result, *pending;

        for (int i = 0; i < 5; i++)
                pools[i] = leak(fixture->other);
        result = ask(fixture->client, "events.subscribe", "{'topics':['leak'],'since':2}");
        pending = json_object_get(result, "pending");
        assert_int_equal(ask_peek_number(result, "event"), 5);
        assert_int_equal(json_array_size(pending), 3);
        for (size_t i = 0; i < 3; i++) {
                assert_int_equal(ask_peek_number(json_array_get(pending, i), "event"), i + 3);
                assert_int_equal(ask_peek_number(json_array_get(pending, i), "pool"), pools[i + 2]);
        }
        assert_null(json_object_get(result, "missed"));
        json_decref(result);
        result = ask(fixture->client, "events.subscribe", "{'topics':['leak'],'since':5}");
        assert_int_equal(json_array_size(json_object_get(result, "pending")), 0);
        json_decref(result);
        /* That was another daemon. */
        result = ask(fixture->client, "events.subscribe", "{'topics':['leak'],'since':1000}");
        assert_int_equal(json_array_size(json_object_get(result, "pending")), 5);
        json_decref(result);
}

static void test_only_so_many_events_are_remembered(void **state) {
        struct ask_fixture *fixture = *state;
        json_t *result;

        for (int i = 0; i < 300; i++)
                leak(fixture->other);
        result = ask(fixture->client, "events.subscribe", "{'topics':['leak'],'since':10}");
        assert_int_equal(ask_peek_number(result, "event"), 300);
        assert_int_equal(json_array_size(json_object_get(result, "pending")), 256);
        assert_int_equal(ask_peek_number(result, "missed"), 300 - 256 - 10);
        json_decref(result);
}

static void test_who_does_not_listen_is_told_how_much_was_missed(void **state) {
        struct ask_fixture *fixture = *state;
        struct test_client *deaf = ask_connect(fixture->daemon, NULL);
        uint64_t told = 0, missed = 0, last = 0;
        json_t *params;
        int size = 1;

        /* A pause in reading shows soon in a socket that holds little. */
        assert_int_equal(setsockopt(test_client_fd(deaf), SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)), 0);
        json_decref(subscribe(deaf, "'leak'"));
        for (int i = 0; i < 4000; i++)
                leak(fixture->other);
        while (last < 4000) {
                params = event(deaf, "leak");
                last = ask_peek_number(params, "event");
                if (json_object_get(params, "missed"))
                        missed += ask_peek_number(params, "missed");
                told++;
                assert_int_equal(told + missed, last);
                json_decref(params);
                /* Something to be told after what is missing. */
                if (last < 4000 && told % 64 == 0)
                        leak(fixture->other);
                if (told > 5000)
                        break;
        }
        assert_true(missed > 0);
        test_client_close(deaf);
        ask_clean(fixture->client);
}

/* ---- whose business it is ---- */

static void test_others_events_are_for_administrators_only(void **state) {
        struct ask_fixture *fixture = *state;
        struct test_client *client = ask_connect_as(fixture->daemon, 12345);
        struct test_client *stranger = ask_connect_as(fixture->daemon, 12346);
        struct test_client *same = ask_connect_as(fixture->daemon, 12346);
        json_t *params, *result;

        json_decref(subscribe(client, "'leak'"));
        json_decref(subscribe(same, "'leak'"));
        json_decref(subscribe(fixture->client, "'leak'"));
        leak(stranger);
        json_decref(event(same, "leak"));
        hears_nothing(client);
        params = event(fixture->client, "leak");
        assert_string_equal(json_string_value(json_object_get(params, "owner")), "user:12346");
        json_decref(params);
        result = ask(client, "events.subscribe", "{'topics':['leak'],'since':0}");
        assert_int_equal(json_array_size(json_object_get(result, "pending")), 0);
        json_decref(result);
        test_client_close(client);
        test_client_close(stranger);
        test_client_close(same);
}

static void test_only_the_session_that_has_leases_is_asked_for_them(void **state) {
        struct ask_fixture *fixture = *state;
        struct test_client *holder = ask_connect(fixture->daemon, NULL), *agent = ask_connect(fixture->daemon, NULL);
        uint64_t device = ask_device(holder, "card"), pool, lease;
        json_t *hello = ask(holder, "broker.hello", "{}"), *params;
        int waiting;

        /* A new session: that of the device has ended. */
        device = ask_device(holder, "card");
        json_decref(ask(agent, "broker.hello", "{'session':'%s'}", json_string_value(json_object_get(hello, "session"))));
        json_decref(hello);
        pool = ask_number(holder, "pool", "pool.create",
                          "{'name':'ring','device':%" PRIu64 ",'size':64,'reserve':8,'max_blocks':8}", device);
        lease = ask_number(holder, "lease", "pool.lease", "{'pool':%" PRIu64 ",'count':8}", pool);
        json_decref(subscribe(agent, "'recall'"));
        json_decref(subscribe(fixture->client, "'recall'"));
        waiting = ask_send(fixture->other, "pool.alloc", "{'pool':%" PRIu64 ",'wait_ms':60000}", pool);
        params = event(agent, "recall");
        assert_int_equal(ask_peek_number(params, "pool"), pool);
        assert_int_equal(ask_peek_number(params, "device"), device);
        assert_true(ask_peek_number(params, "bytes") > 0);
        json_decref(params);
        hears_nothing(fixture->client);
        json_decref(ask(agent, "pool.return", "{'lease':%" PRIu64 "}", lease));
        json_decref(ask_result(fixture->other, waiting));
        test_client_close(holder);
        test_client_close(agent);
}

static void test_what_a_device_or_a_session_leaves_is_told(void **state) {
        struct ask_fixture *fixture = *state;
        struct test_client *doomed = ask_connect(fixture->daemon, NULL);
        uint64_t device = ask_device(fixture->other, "card"), gone;
        json_t *params;

        json_decref(subscribe(fixture->client, "'leak'"));
        ask_alloc(fixture->other, device, 4096);
        ask_alloc(fixture->other, device, 8192);
        json_decref(ask(fixture->other, "device.close", "{'device':%" PRIu64 ",'force':true}", device));
        params = event(fixture->client, "leak");
        assert_int_equal(ask_peek_number(params, "device"), device);
        assert_int_equal(ask_peek_number(params, "count"), 2);
        assert_int_equal(ask_peek_number(params, "bytes"), 12288);
        json_decref(params);
        gone = ask_device(doomed, "gone");
        ask_alloc(doomed, gone, 4096);
        json_decref(ask(doomed, "coherent.alloc", "{'device':%" PRIu64 ",'size':4096,'lifetime':'owner'}", gone));
        test_client_close(doomed);
        params = event(fixture->client, "leak");
        assert_string_equal(json_string_value(json_object_get(params, "name")), "gone");
        assert_int_equal(ask_peek_number(params, "count"), 1);
        json_decref(params);
}

static void test_pressure_is_told_when_it_begins_and_ends(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t device = ask_device(fixture->other, "card"), alloc = ask_alloc(fixture->other, device, 8 << 20);
        json_t *params, *result;

        json_decref(subscribe(fixture->client, "'pressure'"));
        ask_send(fixture->other, "coherent.alloc", "{'device':%" PRIu64 ",'size':12582912,'wait_ms':60000}", device);
        params = event(fixture->client, "pressure");
        assert_true(json_is_false(json_object_get(params, "over")));
        assert_string_equal(json_string_value(json_object_get(params, "level")), "requests");
        assert_null(json_object_get(params, "owner"));
        json_decref(params);
        result = ask(fixture->client, "events.subscribe", "{'topics':['pressure']}");
        assert_true(json_is_true(json_object_get(result, "pressure")));
        json_decref(result);
        ask_send(fixture->other, "coherent.free", "{'alloc':%" PRIu64 "}", alloc);
        params = event(fixture->client, "pressure");
        assert_true(json_is_true(json_object_get(params, "over")));
        json_decref(params);
        /* The answers to both, in either order. */
        json_decref(ask_read(fixture->other));
        json_decref(ask_read(fixture->other));
}

static void test_leases_are_asked_for_when_memory_is_short(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t device = ask_device(fixture->client, "card"), pool, lease;

        pool = ask_number(fixture->client, "pool", "pool.create",
                          "{'name':'ring','device':%" PRIu64 ",'size':1048576}", device);
        lease = ask_number(fixture->client, "lease", "pool.lease", "{'pool':%" PRIu64 ",'count':1}", pool);
        json_decref(subscribe(fixture->client, "'recall'"));
        ask_send(fixture->other, "coherent.alloc", "{'device':%" PRIu64 ",'size':16777216,'wait_ms':60000}",
                           ask_device(fixture->other, "greedy"));
        json_decref(event(fixture->client, "recall"));
        ask_until_waiting(fixture->other, 1);
        json_decref(ask(fixture->client, "pool.return", "{'lease':%" PRIu64 "}", lease));
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, ask_tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(test_a_subscription_begins_with_what_is_the_case),
                T(test_topics_that_cannot_happen_are_refused),
                T(test_events_come_numbered_to_those_who_subscribed),
                T(test_nothing_comes_once_unsubscribed),
                T(test_an_event_of_a_call_comes_before_its_answer),
                T(test_an_event_is_a_line_of_its_own_beside_a_batch),
                T(test_events_since_a_number_are_answered_with),
                T(test_only_so_many_events_are_remembered),
                T(test_who_does_not_listen_is_told_how_much_was_missed),
                T(test_others_events_are_for_administrators_only),
                T(test_only_the_session_that_has_leases_is_asked_for_them),
                T(test_what_a_device_or_a_session_leaves_is_told),
                T(test_pressure_is_told_when_it_begins_and_ends),
                T(test_leases_are_asked_for_when_memory_is_short),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
