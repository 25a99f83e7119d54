/* Sessions: what they hold lives as long as they do, and they live as long as they are wanted. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/rpc/ask.h"

static struct test_daemon *start(const char *grace) {
        char config[128];

        snprintf(config, sizeof(config),
                 "[daemon]\naccess = everyone\ngrace = %s\n[memory]\nregion_idle = 0\nquarantine = 0\n", grace);
        return ask_daemon(config);
}

/* The caller's; free(). session NULL: a new one. */
static char *hello(struct test_client *client, const char *session) {
        json_t *result = session ? ask(client, "broker.hello", "{'session':'%s'}", session)
                                 : ask(client, "broker.hello", "{}");
        char *token = strdup(json_string_value(json_object_get(result, "session")));

        json_decref(result);
        return token;
}

static uint64_t sessions(struct test_client *client) {
        json_t *result = ask(client, "broker.status", "{}");
        uint64_t n = (uint64_t)json_integer_value(json_object_get(json_object_get(result, "counts"), "sessions"));

        json_decref(result);
        return n;
}

/* Each question is a turn of the daemon's loop, in which it notices. */
static void wait_for_sessions(struct test_client *client, uint64_t wanted) {
        for (int i = 0; i < 1000000 && sessions(client) != wanted; i++)
                ;
        assert_int_equal(sessions(client), wanted);
}

static void test_a_session_is_resumed_with_its_token(void **state) {
        struct test_daemon *running = start("30s");
        struct test_client *one = ask_connect(running, NULL), *two;
        char *token = hello(one, NULL), *again;
        uint64_t alloc = ask_alloc(one, ask_device(one, "card"), 4096);

        test_client_close(one);
        two = ask_connect(running, NULL);
        again = hello(two, token);
        assert_string_equal(token, again);
        json_decref(ask(two, "coherent.free", "{'alloc':%" PRIu64 "}", alloc));
        free(token);
        free(again);
        test_client_close(two);
        assert_int_equal(test_daemon_end(running), 0);
}

static void test_several_connections_share_a_session(void **state) {
        struct test_daemon *running = start("0");
        struct test_client *one = ask_connect(running, NULL), *two = ask_connect(running, NULL);
        char *token = hello(one, NULL);
        uint64_t device = ask_device(one, "card");

        free(hello(two, token));
        test_client_close(one);
        json_decref(ask(two, "broker.ping", "{}"));
        ask_alloc(two, device, 4096);
        free(token);
        test_client_close(two);
        assert_int_equal(test_daemon_end(running), 0);
}

static void test_without_grace_a_session_ends_with_its_connection(void **state) {
        struct test_daemon *running = start("0");
        struct test_client *one = ask_connect(running, NULL), *two = ask_connect(running, NULL);
        char *token = hello(one, NULL), *books = ask_books(two), *after;

        ask_alloc(one, ask_device(one, "card"), 65536);
        test_client_close(one);
        wait_for_sessions(two, 1);
        ask_refused(two, "unknown_handle", "broker.hello", "{'session':'%s'}", token);
        after = ask_books(two);
        assert_non_null(strstr(after, "devices 0 allocs 0"));
        assert_non_null(strstr(books, "devices 0 allocs 0"));
        free(after);
        free(books);
        free(token);
        test_client_close(two);
        assert_int_equal(test_daemon_end(running), 0);
}

static void test_a_session_ends_when_its_grace_time_is_over(void **state) {
        struct test_daemon *running = start("50ms");
        struct test_client *one = ask_connect(running, NULL), *two = ask_connect(running, NULL);

        free(hello(one, NULL));
        free(hello(two, NULL));
        ask_alloc(one, ask_device(one, "card"), 65536);
        assert_int_equal(sessions(two), 2);
        test_client_close(one);
        wait_for_sessions(two, 1);
        test_client_close(two);
        assert_int_equal(test_daemon_end(running), 0);
}

static void test_bye_ends_the_session_at_once(void **state) {
        struct test_daemon *running = start("30s");
        struct test_client *one = ask_connect(running, NULL);
        char *token = hello(one, NULL), *books;

        ask_alloc(one, ask_device(one, "card"), 65536);
        json_decref(ask(one, "broker.bye", "{}"));
        ask_refused(one, "unknown_handle", "broker.hello", "{'session':'%s'}", token);
        books = ask_books(one);
        assert_non_null(strstr(books, "devices 0 allocs 0"));
        free(books);
        free(token);
        test_client_close(one);
        assert_int_equal(test_daemon_end(running), 0);
}

static void test_a_connection_whose_session_was_ended_is_told(void **state) {
        struct test_daemon *running = start("30s");
        struct test_client *one = ask_connect(running, NULL), *two = ask_connect(running, NULL);
        char *token = hello(one, NULL);

        free(hello(two, token));
        json_decref(ask(one, "broker.bye", "{}"));
        ask_refused(two, "gone", "device.open", "{'name':'card'}");
        free(hello(two, NULL));
        ask_device(two, "card");
        free(token);
        test_client_close(one);
        test_client_close(two);
        assert_int_equal(test_daemon_end(running), 0);
}

static void test_an_allocation_of_the_owner_outlives_the_session(void **state) {
        struct test_daemon *running = start("0");
        struct test_client *one = ask_connect(running, NULL), *two = ask_connect(running, NULL);
        uint64_t device = ask_device(one, "card"), alloc;

        alloc = ask_number(one, "alloc", "coherent.alloc", "{'device':%" PRIu64 ",'size':4096,'lifetime':'owner'}", device);
        ask_alloc(one, device, 4096);
        ask_device(two, "other");
        test_client_close(one);
        wait_for_sessions(two, 1);
        json_decref(ask(two, "coherent.free", "{'alloc':%" PRIu64 "}", alloc));
        ask_refused(two, "double_free", "coherent.free", "{'alloc':%" PRIu64 "}", alloc);
        test_client_close(two);
        assert_int_equal(test_daemon_end(running), 0);
}

static void test_an_allocation_on_a_device_that_has_outlived_its_session_ends_with_its_own(void **state) {
        struct test_daemon *running = start("0");
        struct test_client *one = ask_connect(running, NULL), *two = ask_connect(running, NULL), *three;
        uint64_t device = ask_device(one, "card");
        char *books;

        ask_take_number(ask(one, "coherent.alloc", "{'device':%" PRIu64 ",'size':4096,'lifetime':'owner'}", device), "alloc");
        free(hello(two, NULL));
        test_client_close(one);
        wait_for_sessions(two, 1);
        three = ask_connect(running, NULL);
        ask_alloc(three, device, 4096);
        test_client_close(three);
        wait_for_sessions(two, 1);
        books = ask_books(two);
        assert_non_null(strstr(books, "devices 1 allocs 1"));
        free(books);
        test_client_close(two);
        assert_int_equal(test_daemon_end(running), 0);
}

static void test_tokens_are_long_and_never_alike(void **state) {
        struct test_daemon *running = start("30s");
        struct test_client *one = ask_connect(running, NULL);
        char *first = hello(one, NULL), *second = hello(one, NULL);

        assert_int_equal(strlen(first), 32);
        assert_string_not_equal(first, second);
        free(first);
        free(second);
        test_client_close(one);
        assert_int_equal(test_daemon_end(running), 0);
}

static void test_sessions_count_against_the_quota_of_connections(void **state) {
        struct test_daemon *running = ask_daemon("[quota default]\nconnections = 3\n");
        struct test_client *clients[4];

        for (int i = 0; i < 3; i++) {
                clients[i] = ask_connect(running, NULL);
                free(hello(clients[i], NULL));
        }
        /* One too many: told in a line, and closed. */
        clients[3] = ask_connect(running, NULL);
        json_t *answer = ask_read(clients[3]), *error = json_incref(json_object_get(answer, "error"));

        json_decref(answer);
        ask_take_reason(error, "quota");
        assert_int_equal(test_client_wait_closed(clients[3]), 0);
        ask_refused(clients[0], "quota", "broker.hello", "{}");
        json_decref(ask(clients[0], "broker.ping", "{}"));
        for (int i = 0; i < 4; i++)
                test_client_close(clients[i]);
        assert_int_equal(test_daemon_end(running), 0);
}

static void test_a_user_outside_the_group_is_told_what_to_do(void **state) {
        struct test_daemon *running = ask_daemon("[daemon]\ngroup = no-such-group\n");
        struct test_client *client = ask_connect_as(running, 12345);
        json_t *answer = ask_read(client), *error = json_incref(json_object_get(answer, "error"));

        json_decref(answer);
        assert_non_null(strstr(json_string_value(json_object_get(error, "message")), "no-such-group"));
        ask_take_reason(error, "not_permitted");
        assert_int_equal(test_client_wait_closed(client), 0);
        test_client_close(client);
        assert_int_equal(test_daemon_end(running), 0);
}

/* Any group will do; `nogroup` is there on every Debian, as a primary or a supplementary group. */
static void test_members_of_the_groups_have_their_roles(void **state) {
        struct test_daemon *running = ask_daemon("[daemon]\ngroup = daemon\nadmin_group = bin\n");
        const gid_t daemons[] = { 1 }, bins[] = { 2 };
        const struct test_identity member = { .uid = 12345, .gid = 12345, .groups = daemons, .n_groups = 1 };
        const struct test_identity admin = { .uid = 12345, .gid = 12345, .groups = bins, .n_groups = 1 };
        struct test_client *client;
        json_t *result;

        if (geteuid() != 0)
                skip();
        client = ask_connect(running, &member);
        result = ask(client, "broker.hello", "{}");
        assert_string_equal(json_string_value(json_object_get(result, "role")), "local");
        assert_string_equal(json_string_value(json_object_get(result, "owner")), "user:12345");
        json_decref(result);
        test_client_close(client);
        client = ask_connect(running, &admin);
        result = ask(client, "broker.hello", "{}");
        assert_string_equal(json_string_value(json_object_get(result, "role")), "admin");
        json_decref(result);
        test_client_close(client);
        assert_int_equal(test_daemon_end(running), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_session_is_resumed_with_its_token),
                cmocka_unit_test(test_several_connections_share_a_session),
                cmocka_unit_test(test_without_grace_a_session_ends_with_its_connection),
                cmocka_unit_test(test_a_session_ends_when_its_grace_time_is_over),
                cmocka_unit_test(test_bye_ends_the_session_at_once),
                cmocka_unit_test(test_a_connection_whose_session_was_ended_is_told),
                cmocka_unit_test(test_an_allocation_of_the_owner_outlives_the_session),
                cmocka_unit_test(test_an_allocation_on_a_device_that_has_outlived_its_session_ends_with_its_own),
                cmocka_unit_test(test_tokens_are_long_and_never_alike),
                cmocka_unit_test(test_sessions_count_against_the_quota_of_connections),
                cmocka_unit_test(test_a_user_outside_the_group_is_told_what_to_do),
                cmocka_unit_test(test_members_of_the_groups_have_their_roles),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
