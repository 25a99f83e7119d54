/* Giving memory back to the host over the socket, and what clients are told of it. */
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "tests/rpc/ask.h"

#define CONFIG "[memory]\nminimum = 1M\n[source sim]\nlayout = 64M@0x100000000\nreserve = 0\n"

static int set_up(void **state) {
        return ask_set_up(state, "[daemon]\naccess = everyone\n" CONFIG);
}

/* The next event on this topic; whoever does not return what it is asked for is asked again. */
static json_t *event(struct test_client *client, const char *topic) {
        json_t *message = ask_read(client), *params = json_incref(json_object_get(message, "params"));

        while (!params || (strcmp(topic, "recall") && !strcmp("recall", json_string_value(json_object_get(params, "topic"))))) {
                json_decref(message);
                json_decref(params);
                message = ask_read(client);
                params = json_incref(json_object_get(message, "params"));
        }
        assert_string_equal(json_string_value(json_object_get(message, "method")), "event");
        assert_string_equal(json_string_value(json_object_get(params, "topic")), topic);
        json_decref(message);
        return params;
}

static uint64_t held(struct test_client *client) {
        json_t *status = ask(client, "broker.status", "{}");
        uint64_t total = ask_peek_number(json_array_get(json_object_get(status, "sources"), 0), "total");

        json_decref(status);
        return total;
}

/* Memory that is free and held. */
static void use_once(struct ask_fixture *f, uint64_t size) {
        uint64_t alloc = ask_alloc(f->client, f->device, size);

        json_decref(ask(f->client, "coherent.free", "{'alloc':%" PRIu64 "}", alloc));
        assert_true(held(f->client) >= size);
}

static void test_what_nobody_needs_goes_back_down_to_the_minimum(void **state) {
        struct ask_fixture *f = *state;
        uint64_t before;
        json_t *result;

        use_once(f, 32 << 20);
        before = held(f->client);
        assert_int_equal(ask_number(f->client, "released", "memory.release", "{'bytes':1048576}"), 1 << 20);
        result = ask(f->client, "memory.release", "{}");
        assert_int_equal(ask_peek_number(result, "held"), 1 << 20);
        assert_int_equal(ask_peek_number(result, "released"), before - (2 << 20));
        json_decref(result);
        assert_int_equal(held(f->client), 1 << 20);
        assert_int_equal(ask_number(f->client, "released", "memory.release", "{'wait_ms':0}"), 0);
        ask_clean(f->client);
}

static void test_clients_are_told_of_pressure_and_asked_for_leases(void **state) {
        struct ask_fixture *f = *state;
        struct test_client *client = ask_connect_as(f->daemon, 12345);
        uint64_t device = ask_device(client, "card"), pool, lease;
        json_t *params, *result;
        int release;

        pool = ask_number(client, "pool", "pool.create", "{'name':'ring','device':%" PRIu64 ",'size':1048576}", device);
        lease = ask_number(client, "lease", "pool.lease", "{'pool':%" PRIu64 ",'count':16}", pool);
        json_decref(ask(client, "events.subscribe", "{'topics':['recall','pressure']}"));
        release = ask_send(f->client, "memory.release", "{'wait_ms':3600000}");
        params = event(client, "pressure");
        assert_string_equal(json_string_value(json_object_get(params, "level")), "host");
        assert_true(json_is_false(json_object_get(params, "over")));
        assert_null(json_object_get(params, "bytes"));
        json_decref(params);
        params = event(client, "recall");
        assert_int_equal(ask_peek_number(params, "pool"), pool);
        json_decref(params);
        result = ask(f->other, "events.subscribe", "{'topics':['pressure']}");
        assert_true(json_is_true(json_object_get(result, "pressure")));
        assert_string_equal(json_string_value(json_object_get(result, "level")), "host");
        json_decref(result);
        /* Its answer may come before or after the event. */
        ask_send(client, "pool.return", "{'lease':%" PRIu64 "}", lease);
        params = event(client, "pressure");
        assert_true(json_is_true(json_object_get(params, "over")));
        json_decref(params);
        result = ask_result(f->client, release);
        assert_true(ask_peek_number(result, "released") > 0);
        assert_int_equal(ask_peek_number(result, "held"), 1 << 20);
        json_decref(result);
        test_client_close(client);
}

static void test_only_administrators_give_memory_back(void **state) {
        struct ask_fixture *f = *state;
        struct test_client *client = ask_connect_as(f->daemon, 12345);

        ask_refused(client, "not_permitted", "memory.release", "{}");
        test_client_close(client);
}

static void test_a_release_goes_with_its_connection_and_with_the_daemon(void **state) {
        struct ask_fixture *f = *state;
        struct test_client *admin = ask_connect(f->daemon, NULL);
        uint64_t pool;
        json_t *params, *result;

        pool = ask_number(f->client, "pool", "pool.create", "{'name':'ring','device':%" PRIu64 ",'size':1048576}", f->device);
        json_decref(ask(f->client, "pool.lease", "{'pool':%" PRIu64 ",'count':16}", pool));
        json_decref(ask(f->other, "events.subscribe", "{'topics':['pressure']}"));
        ask_send(admin, "memory.release", "{'wait_ms':3600000}");
        json_decref(event(f->other, "pressure"));
        test_client_close(admin);
        params = event(f->other, "pressure");
        assert_true(json_is_true(json_object_get(params, "over")));
        json_decref(params);
        result = ask(f->other, "events.subscribe", "{'topics':['pressure']}");
        assert_true(json_is_false(json_object_get(result, "pressure")));
        json_decref(result);
        ask_send(f->client, "memory.release", "{'wait_ms':3600000}");
        json_decref(event(f->other, "pressure"));
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, ask_tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(test_what_nobody_needs_goes_back_down_to_the_minimum),
                T(test_clients_are_told_of_pressure_and_asked_for_leases),
                T(test_only_administrators_give_memory_back),
                T(test_a_release_goes_with_its_connection_and_with_the_daemon),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
