/* What an owner may have and do: limits that are set, met, told and lifted again. */
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "tests/rpc/ask.h"

#define ACCESS "[daemon]\naccess = everyone\n"
#define FEW "[quota default]\ncalls_per_second = 10\n"

/* ---- calls per second ---- */

/* n pings in one piece, which the daemon reads at one moment. How many of them were executed; *ret_refused, if there was
 * one, is the last refusal. */
static unsigned ping(struct test_client *client, unsigned n, bool as_batch, json_t **ret_refused) {
        char text[8192] = "";
        size_t length = 0;
        unsigned executed = 0;
        json_t *answers, *answer;
        size_t i;

        *ret_refused = NULL;
        for (unsigned k = 0; k < n; k++)
                length += (size_t)snprintf(text + length, sizeof(text) - length,
                                           "%s{\"jsonrpc\":\"2.0\",\"id\":%u,\"method\":\"broker.ping\"}%s",
                                           !as_batch ? "" : k ? "," : "[", k, !as_batch ? "\n" : k == n - 1 ? "]\n" : "");
        assert_int_equal(test_client_send(client, text, length), 0);
        answers = as_batch ? ask_read(client) : json_array();
        while (json_array_size(answers) < n)
                json_array_append_new(answers, ask_read(client));
        json_array_foreach(answers, i, answer) {
                executed += json_object_get(answer, "result") != NULL;
                if (!json_object_get(answer, "error"))
                        continue;
                json_decref(*ret_refused);
                *ret_refused = json_incref(json_object_get(answer, "error"));
        }
        json_decref(answers);
        return executed;
}

static unsigned ping_batch(struct test_client *client, unsigned n) {
        json_t *refused;
        unsigned executed = ping(client, n, true, &refused);

        json_decref(refused);
        return executed;
}

static void test_calls_beyond_those_of_a_second_are_refused_with_the_numbers(void **state) {
        struct test_daemon *daemon = ask_daemon(FEW);
        struct test_client *client = ask_connect(daemon, NULL);
        json_t *refused, *data;

        assert_int_equal(ping(client, 30, false, &refused), 10);
        data = json_object_get(refused, "data");
        assert_string_equal(json_string_value(json_object_get(data, "reason")), "quota");
        assert_string_equal(json_string_value(json_object_get(data, "quota")), "calls_per_second");
        assert_int_equal(ask_peek_number(data, "limit"), 10);
        assert_int_equal(ask_peek_number(data, "in_use"), 10);
        assert_in_range(ask_peek_number(data, "retry_ms"), 1, 100);
        json_decref(refused);
        test_client_close(client);
        assert_int_equal(test_daemon_end(daemon), 0);
}

static void test_a_batch_does_not_get_round_the_limit_on_calls(void **state) {
        struct test_daemon *daemon = ask_daemon(FEW);
        struct test_client *client = ask_connect(daemon, NULL);

        assert_int_equal(ping_batch(client, 30), 10);
        test_client_close(client);
        assert_int_equal(test_daemon_end(daemon), 0);
}

static void test_calls_are_allowed_again_as_time_goes_by(void **state) {
        struct test_daemon *daemon = ask_daemon(FEW);
        struct test_client *client = ask_connect(daemon, NULL);

        assert_int_equal(ping_batch(client, 30), 10);
        ask_until(ping_batch(client, 1) == 1);
        test_client_close(client);
        assert_int_equal(test_daemon_end(daemon), 0);
}

static void test_connections_of_one_owner_share_the_limit_on_calls(void **state) {
        struct test_daemon *daemon = ask_daemon(ACCESS FEW);
        struct test_client *first = ask_connect(daemon, NULL), *second = ask_connect(daemon, NULL);
        uint64_t start = ask_now_ms();
        unsigned executed = ping_batch(first, 30) + ping_batch(second, 30);

        /* Each begun tenth of a second allows one more. */
        assert_in_range(executed, 10, 10 + (ask_now_ms() - start) / 100 + 1);
        test_client_close(first);
        test_client_close(second);
        assert_int_equal(test_daemon_end(daemon), 0);
}

static void test_connecting_again_brings_no_more_calls(void **state) {
        struct test_daemon *daemon = ask_daemon(FEW);
        uint64_t start = ask_now_ms();
        unsigned executed = 0;

        for (int i = 0; i < 3; i++) {
                struct test_client *client = ask_connect(daemon, NULL);

                executed += ping_batch(client, 30);
                test_client_close(client);
        }
        assert_in_range(executed, 10, 10 + (ask_now_ms() - start) / 100 + 1);
        assert_int_equal(test_daemon_end(daemon), 0);
}

static void test_owners_do_not_share_their_limits_on_calls(void **state) {
        struct test_daemon *daemon = ask_daemon(ACCESS FEW);
        struct test_client *mine = ask_connect(daemon, NULL), *theirs = ask_connect_as(daemon, 12345);

        assert_int_equal(ping_batch(mine, 30), 10);
        assert_int_equal(ping_batch(theirs, 30), 10);
        test_client_close(mine);
        test_client_close(theirs);
        assert_int_equal(test_daemon_end(daemon), 0);
}

static void test_what_is_no_call_counts_as_one(void **state) {
        struct test_daemon *daemon = ask_daemon("[quota default]\ncalls_per_second = 1\n");
        struct test_client *client = ask_connect(daemon, NULL);
        json_t *answer;

        assert_int_equal(test_client_send_text(client, "no JSON\n"
                                                       "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"broker.ping\"}\n"), 0);
        answer = ask_read(client);
        ask_take_code(json_incref(json_object_get(answer, "error")), -32700);
        json_decref(answer);
        answer = ask_read(client);
        ask_take_reason(json_incref(json_object_get(answer, "error")), "quota");
        json_decref(answer);
        test_client_close(client);
        assert_int_equal(test_daemon_end(daemon), 0);
}

static void test_an_administrator_who_may_not_call_any_more_can_still_set_the_limit(void **state) {
        struct test_daemon *daemon = ask_daemon("[quota default]\ncalls_per_second = 0\n");
        struct test_client *client = ask_connect(daemon, NULL);

        ask_refused(client, "quota", "broker.ping", "{}");
        ask_refused(client, "quota", "broker.hello", "{}");
        json_decref(ask(client, "quota.set", "{'owner':'user:%u','unlimited':['calls_per_second']}", (unsigned)geteuid()));
        json_decref(ask(client, "broker.ping", "{}"));
        test_client_close(client);
        assert_int_equal(test_daemon_end(daemon), 0);
}

static void test_a_limit_on_calls_holds_at_once_and_is_told_with_its_use(void **state) {
        struct test_daemon *daemon = ask_daemon(ACCESS);
        struct test_client *admin = ask_connect(daemon, NULL), *client = ask_connect_as(daemon, 12345);
        json_t *quota;

        json_decref(ask(client, "broker.hello", "{}"));
        json_decref(ask(admin, "quota.set", "{'owner':'user:12345','limits':{'calls_per_second':5}}"));
        assert_int_equal(ping_batch(client, 30), 5);
        quota = ask(admin, "quota.get", "{'owner':'user:12345'}");
        assert_int_equal(ask_peek_number(json_object_get(quota, "limits"), "calls_per_second"), 5);
        assert_in_range(ask_peek_number(json_object_get(quota, "usage"), "calls_per_second"), 1, 5);
        json_decref(quota);
        test_client_close(admin);
        test_client_close(client);
        assert_int_equal(test_daemon_end(daemon), 0);
}

static void test_a_limit_on_calls_follows_the_configuration(void **state) {
        struct test_daemon *daemon = ask_daemon("");
        struct test_client *client = ask_connect(daemon, NULL);
        FILE *file = fopen(test_daemon_config(daemon), "w");

        assert_int_equal(ping_batch(client, 30), 30);
        assert_non_null(file);
        fprintf(file, "[quota user:%u]\ncalls_per_second = 7\n", (unsigned)geteuid());
        assert_int_equal(fclose(file), 0);
        assert_int_equal(test_daemon_signal(daemon, SIGHUP), 0);
        assert_int_equal(test_daemon_wait_notify(daemon, "RELOADING=1"), 0);
        ask_until(ping_batch(client, 30) < 30);
        test_client_close(client);
        assert_int_equal(test_daemon_end(daemon), 0);
}

/* ---- devices ---- */

static void test_a_device_has_limits_by_configuration_and_by_word(void **state) {
        struct test_daemon *daemon = ask_daemon(ACCESS "[device card]\nbytes = 8K\n[device disk]\nmappings = 1\n");
        struct test_client *admin = ask_connect(daemon, NULL), *client = ask_connect_as(daemon, 12345);
        uint64_t card = ask_device(client, "card"), again = ask_device(client, "card");
        json_t *data, *error, *quota;

        ask_alloc(client, card, 8192);
        error = ask_error(client, ask_send(client, "coherent.alloc", "{'device':%" PRIu64 ",'size':4096}", again));
        data = json_object_get(error, "data");
        assert_string_equal(json_string_value(json_object_get(data, "quota")), "bytes");
        assert_int_equal(ask_peek_number(data, "limit"), 8192);
        assert_int_equal(ask_peek_number(data, "in_use"), 8192);
        assert_int_equal(ask_peek_number(data, "device"), again);
        ask_take_reason(error, "quota");

        quota = ask(admin, "quota.set", "{'device':%" PRIu64 ",'limits':{'bytes':12288,'pools':0}}", card);
        assert_string_equal(json_string_value(json_object_get(quota, "owner")), "user:12345");
        assert_string_equal(json_string_value(json_object_get(quota, "device_name")), "card");
        assert_int_equal(ask_peek_number(json_object_get(quota, "usage"), "bytes"), 8192);
        assert_null(json_object_get(json_object_get(quota, "usage"), "connections"));
        json_decref(quota);
        ask_alloc(client, again, 4096);
        ask_refused(client, "quota", "bounce.create", "{'device':%" PRIu64 ",'size':4096}", again);
        quota = ask(client, "quota.get", "{'device':%" PRIu64 "}", again);
        assert_int_equal(ask_peek_number(json_object_get(quota, "limits"), "bytes"), 12288);
        json_decref(quota);
        ask_clean(admin);
        test_client_close(admin);
        test_client_close(client);
        assert_int_equal(test_daemon_end(daemon), 0);
}

static void test_wrong_limits_of_devices_are_refused(void **state) {
        struct ask_fixture *f = *state;

        ask_refused(f->client, "bad_param", "quota.set", "{'limits':{'bytes':1}}");
        ask_refused(f->client, "bad_param", "quota.set", "{'device':%" PRIu64 ",'limits':{'regions':1}}", f->device);
        ask_refused(f->client, "bad_param", "quota.set", "{'device':%" PRIu64 ",'owner':'user:12345','limits':{'bytes':1}}",
                    f->device);
        ask_refused(f->client, "bad_param", "quota.set", "{'device':%" PRIu64 ",'guaranteed':{'bytes':1}}", f->device);
        ask_refused(f->client, "unknown_handle", "quota.set", "{'device':%" PRIu64 ",'limits':{'bytes':1}}", f->device + 1);
        ask_refused(f->client, "unknown_handle", "quota.get", "{'device':%" PRIu64 "}", f->device + 1);
}

/* ---- guarantees ---- */

#define PROMISES "[quota user:12345]\nguaranteed = 32M\n[quota user:12346]\nguaranteed = 16M\n" \
                 "[source sim]\nlayout = 64M@0x100000000\n"

static unsigned take_all(struct test_client *client, uint64_t device, const char *priority) {
        json_t *answer;
        unsigned n = 0;
        bool more;

        do {
                ask_send(client, "coherent.alloc", "{'device':%" PRIu64 ",'size':1048576,'priority':'%s'}", device, priority);
                answer = ask_read(client);
                more = json_object_get(answer, "result") != NULL;
                if (!more)
                        ask_take_reason(json_incref(json_object_get(answer, "error")), "no_memory");
                json_decref(answer);
                n += more;
        } while (more);
        return n;
}

static void test_two_owners_get_what_they_were_promised_though_a_third_floods(void **state) {
        struct test_daemon *daemon = ask_daemon(ACCESS PROMISES);
        struct test_client *admin = ask_connect(daemon, NULL), *third = ask_connect_as(daemon, 12347);
        struct test_client *first = ask_connect_as(daemon, 12345), *second = ask_connect_as(daemon, 12346);
        json_t *status, *quota;

        assert_in_range(take_all(third, ask_device(third, "card"), "high"), 15, 16);
        status = ask(admin, "broker.status", "{}");
        assert_int_equal(ask_peek_number(json_object_get(status, "guarantees"), "bytes"), 48 << 20);
        assert_int_equal(ask_peek_number(json_object_get(status, "guarantees"), "unmet"), 48 << 20);
        json_decref(status);
        assert_int_equal(take_all(first, ask_device(first, "card"), "normal"), 32);
        assert_int_equal(take_all(second, ask_device(second, "card"), "normal"), 16);
        quota = ask(first, "quota.get", "{}");
        assert_int_equal(ask_peek_number(json_object_get(quota, "guaranteed"), "bytes"), 32 << 20);
        assert_int_equal(ask_peek_number(json_object_get(quota, "unmet"), "bytes"), 0);
        json_decref(quota);
        ask_clean(admin);
        test_client_close(admin);
        test_client_close(first);
        test_client_close(second);
        test_client_close(third);
        assert_int_equal(test_daemon_end(daemon), 0);
}

static void test_a_guarantee_is_set_replaced_and_refused_with_the_numbers(void **state) {
        struct test_daemon *daemon = ask_daemon(PROMISES);
        struct test_client *admin = ask_connect(daemon, NULL);
        json_t *error, *quota;

        error = ask_error(admin, ask_send(admin, "quota.set", "{'owner':'user:12347','guaranteed':{'bytes':16777217},"
                                                              "'limits':{'bytes':0}}"));
        assert_int_equal(ask_peek_number(json_object_get(error, "data"), "asked"), 16777217);
        assert_int_equal(ask_peek_number(json_object_get(error, "data"), "guaranteed"), 48 << 20);
        assert_int_equal(ask_peek_number(json_object_get(error, "data"), "reachable"), 64 << 20);
        ask_take_reason(error, "no_memory");
        quota = ask(admin, "quota.get", "{'owner':'user:12347'}");
        assert_null(json_object_get(json_object_get(quota, "limits"), "bytes"));
        assert_null(json_object_get(quota, "guaranteed"));
        json_decref(quota);
        json_decref(ask(admin, "quota.set", "{'owner':'user:12345','guaranteed':{}}"));
        quota = ask(admin, "quota.set", "{'owner':'user:12347','guaranteed':{'bytes':16777217}}");
        assert_int_equal(ask_peek_number(json_object_get(quota, "unmet"), "bytes"), 16781312); /* whole grains */
        json_decref(quota);
        ask_refused(admin, "no_memory", "quota.set", "{'owner':'user:12347','guaranteed':{'low_bytes':4096}}");
        test_client_close(admin);
        assert_int_equal(test_daemon_end(daemon), 0);
}

static void test_guarantees_that_cannot_be_kept_are_told_in_the_log(void **state) {
        struct test_daemon *daemon = ask_daemon("[quota user:1]\nguaranteed = 100M\nguaranteed_low = 1M\n"
                                                "[source sim]\nlayout = 64M@0x100000000\n");
        char *log = test_daemon_log(daemon);

        assert_non_null(log);
        assert_non_null(strstr(log, "105906176 bytes are guaranteed in the configuration, but the sources can have only "
                                    "67108864"));
        assert_non_null(strstr(log, "1048576 bytes below 4 GiB are guaranteed in the configuration, but there are only 0"));
        free(log);
        assert_int_equal(test_daemon_end(daemon), 0);
}

static int set_up(void **state) {
        return ask_set_up(state, NULL);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_calls_beyond_those_of_a_second_are_refused_with_the_numbers),
                cmocka_unit_test(test_a_batch_does_not_get_round_the_limit_on_calls),
                cmocka_unit_test(test_calls_are_allowed_again_as_time_goes_by),
                cmocka_unit_test(test_connections_of_one_owner_share_the_limit_on_calls),
                cmocka_unit_test(test_connecting_again_brings_no_more_calls),
                cmocka_unit_test(test_owners_do_not_share_their_limits_on_calls),
                cmocka_unit_test(test_what_is_no_call_counts_as_one),
                cmocka_unit_test(test_an_administrator_who_may_not_call_any_more_can_still_set_the_limit),
                cmocka_unit_test(test_a_limit_on_calls_holds_at_once_and_is_told_with_its_use),
                cmocka_unit_test(test_a_limit_on_calls_follows_the_configuration),
                cmocka_unit_test(test_a_device_has_limits_by_configuration_and_by_word),
                cmocka_unit_test(test_two_owners_get_what_they_were_promised_though_a_third_floods),
                cmocka_unit_test(test_a_guarantee_is_set_replaced_and_refused_with_the_numbers),
                cmocka_unit_test(test_guarantees_that_cannot_be_kept_are_told_in_the_log),
                cmocka_unit_test_setup_teardown(test_wrong_limits_of_devices_are_refused, set_up, ask_tear_down),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
