/* Whoever asks for what is refused, over and over, is heard now and then as long as others ask for something. */
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "tests/rpc/ask.h"

enum { FLOOD = 200, FLOODER = 12345 };

#define CONFIG "[daemon]\naccess = everyone\n"

static const char wrong[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"broker.pong\"}\n";

static void send_wrong(struct test_client *client) {
        static char text[FLOOD * sizeof(wrong)];

        for (size_t i = 0; i < FLOOD; i++)
                memcpy(text + i * (sizeof(wrong) - 1), wrong, sizeof(wrong));
        assert_int_equal(test_client_send_text(client, text), 0);
}

static void hear_wrong(struct test_client *client) {
        for (size_t i = 0; i < FLOOD; i++) {
                json_t *answer = ask_read(client);

                ask_take_code(json_incref(json_object_get(answer, "error")), -32601);
                json_decref(answer);
        }
}

static uint64_t held_back(struct test_client *client) {
        json_t *stats = ask(client, "stats.get", "{'group':'rpc'}"), *counters, *counter;
        uint64_t n = UINT64_MAX;
        size_t i;

        counters = json_object_get(json_array_get(json_object_get(stats, "groups"), 0), "counters");
        json_array_foreach(counters, i, counter)
                if (strcmp(json_string_value(json_object_get(counter, "name")), "held_back") == 0)
                        n = ask_peek_number(counter, "value");
        json_decref(stats);
        assert_true(n < UINT64_MAX);
        return n;
}

static uint64_t connections(struct test_client *client) {
        json_t *status = ask(client, "broker.status", "{}");
        uint64_t n = ask_peek_number(json_object_get(status, "counts"), "connections");

        json_decref(status);
        return n;
}

static void test_who_is_refused_without_end_is_held_back_while_others_ask_and_answered_in_the_end(void **state) {
        struct test_daemon *daemon = ask_daemon(CONFIG);
        struct test_client *other = ask_connect(daemon, NULL), *flooder = ask_connect_as(daemon, FLOODER);

        while (!held_back(other)) {
                send_wrong(flooder);
                json_decref(ask(other, "broker.ping", "{}"));
                hear_wrong(flooder);
        }
        json_decref(ask(flooder, "broker.ping", "{}"));
        test_client_close(other);
        test_client_close(flooder);
        assert_int_equal(test_daemon_end(daemon), 0);
}

static void test_a_peer_that_leaves_while_it_is_held_back_is_forgotten(void **state) {
        struct test_daemon *daemon = ask_daemon(CONFIG);
        struct test_client *other = ask_connect(daemon, NULL), *flooder;

        /* Those that have ended may have waited for their next turn as well, or have been answered already. */
        while (held_back(other) < 5) {
                flooder = ask_connect_as(daemon, FLOODER);
                send_wrong(flooder);
                json_decref(ask(other, "broker.ping", "{}"));
                test_client_close(flooder);
        }
        ask_until(connections(other) == 1);
        test_client_close(other);
        assert_int_equal(test_daemon_end(daemon), 0);
}

static void test_who_is_alone_is_refused_at_once_however_often(void **state) {
        struct test_daemon *daemon = ask_daemon(CONFIG);
        struct test_client *client = ask_connect(daemon, NULL);

        for (int i = 0; i < 10; i++) {
                send_wrong(client);
                hear_wrong(client);
        }
        assert_int_equal(held_back(client), 0);
        test_client_close(client);
        assert_int_equal(test_daemon_end(daemon), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_who_is_refused_without_end_is_held_back_while_others_ask_and_answered_in_the_end),
                cmocka_unit_test(test_a_peer_that_leaves_while_it_is_held_back_is_forgotten),
                cmocka_unit_test(test_who_is_alone_is_refused_at_once_however_often),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
