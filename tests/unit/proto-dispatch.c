/* What the dispatch does with requests, whatever their methods are about. */
#include "tests/unit/proto-peer.h"

#include <errno.h>
#include <stdio.h>

#include "proto/methods.h"

static struct listener listener;

static int begin(void **state) {
        listener_init(&listener, true, NULL);
        return 0;
}

static int begin_with_small_limits(void **state) {
        listener_init(&listener, true,
                      &(struct rpc_limits){ .message_bytes = 1000, .nesting = 4, .calls_in_flight = 3,
                                            .batch_elements = 5, .batch_reply_bytes = 300, .fds_per_reply = 2 });
        return 0;
}

static int end(void **state) {
        listener_deinit(&listener);
        return 0;
}

static const char *ask_with_id(const char *id) {
        char text[8192];

        snprintf(text, sizeof(text), "{\"jsonrpc\":\"2.0\",\"id\":%s,\"method\":\"update\"}", id);
        return ask(&listener, text);
}

static void test_an_id_is_echoed_as_it_was_written(void **state) {
        static const char *const ids[] = { "1",
                                           "-0",
                                           "0.1",
                                           "1e2",
                                           "1E+2",
                                           "12345678901234567890123",
                                           "-9.50e-1",
                                           "\"\"",
                                           "\"a\\u0062\\/\"",
                                           "\"\xC3\xA9\"",
                                           "\"\\ud83d\\ude00\"",
                                           "null",
                                           "\"an id that is longer than what a call keeps within itself\"" };
        char expected[256];

        for (size_t i = 0; i < sizeof(ids) / sizeof(*ids); i++) {
                snprintf(expected, sizeof(expected), "{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{}}\n", ids[i]);
                assert_string_equal(ask_with_id(ids[i]), expected);
        }
}

static void test_an_id_is_found_wherever_it_is(void **state) {
        assert_json(ask(&listener, "{\"method\":\"update\",\"params\":{},\"\\u0069d\" :\t7 ,\"jsonrpc\":\"2.0\"}"),
                    "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}");
        assert_json(ask(&listener, "{\"x\":{\"id\":5},\"y\":\"\\\"id\\\":3\",\"z\":\"id\",\"method\":\"update\","
                                   "\"i\\u0064\":\"q\",\"jsonrpc\":\"2.0\"}"),
                    "{\"jsonrpc\":\"2.0\",\"id\":\"q\",\"result\":{}}");
        ask(&listener, "[{\"a\":[1,2],\"id\":1},[3,4],{\"id\":2,\"jsonrpc\":\"2.0\",\"method\":\"update\"}]");
        assert_non_null(strstr(listener.heard, "\"id\":2,\"result\":{}"));
}

static void test_an_id_of_another_type_is_an_invalid_request(void **state) {
        static const char *const ids[] = { "true", "false", "[1]", "{\"a\":1}" };

        for (size_t i = 0; i < sizeof(ids) / sizeof(*ids); i++) {
                assert_error(ask_with_id(ids[i]), -32600, NULL);
                assert_non_null(strstr(listener.heard, "\"id\":null"));
        }
        assert_int_equal(listener.n_updates, 0);
}

static void test_an_id_that_is_too_long_is_refused(void **state) {
        char id[4200];

        memset(id, 'a', sizeof(id) - 1);
        id[0] = id[sizeof(id) - 2] = '"';
        id[sizeof(id) - 1] = '\0';
        assert_error(ask_with_id(id), -32600, "limit");
}

static void test_a_request_of_another_version_is_invalid_and_keeps_its_id(void **state) {
        static const char *const texts[] = {
                "{\"id\":7,\"method\":\"update\"}",
                "{\"jsonrpc\":\"1.0\",\"id\":7,\"method\":\"update\"}",
                "{\"jsonrpc\":2.0,\"id\":7,\"method\":\"update\"}",
                "{\"jsonrpc\":\"2.0\",\"id\":7}",
                "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":null}",
                "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"update\",\"params\":5}",
                "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"update\",\"params\":null}",
                "{\"jsonrpc\":\"2.0\\u0000\",\"id\":7,\"method\":\"update\"}",
        };

        for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
                assert_error(ask(&listener, texts[i]), -32600, NULL);
                assert_non_null(strstr(listener.heard, "\"id\":7"));
        }
        assert_int_equal(listener.n_updates, 0);
}

static void test_a_text_that_is_no_request_is_invalid(void **state) {
        static const char *const texts[] = { "1", "\"update\"", "null", "true", "{}", "[[]]", "[{}]" };

        for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
                assert_non_null(strstr(ask(&listener, texts[i]), "-32600"));
}

static void test_a_key_given_twice_is_an_invalid_request(void **state) {
        assert_error(ask(&listener, "{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"update\"}"), -32600, NULL);
        assert_error(ask(&listener,
                         "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"long\",\"params\":{\"bytes\":1,\"bytes\":2}}"),
                     -32600, NULL);
        assert_int_equal(listener.n_updates, 0);
}

static void test_a_raw_nul_is_a_parse_error(void **state) {
        static const char text[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"upd\0ate\"}";

        listener.n_heard = 0;
        rpc_peer_receive(&listener.peer, text, sizeof(text) - 1);
        assert_error(listener.heard, -32700, NULL);
        rpc_peer_receive(&listener.peer, "", 1);
        rpc_peer_receive(&listener.peer, "", 0);
        assert_int_equal(listener.n_sends, 3);
}

static void test_a_method_name_with_an_escaped_nul_is_not_found(void **state) {
        assert_error(ask(&listener, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"update\\u0000\"}"), -32601, NULL);
}

static void test_nesting_beyond_the_limit_is_refused(void **state) {
        assert_error(ask(&listener, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"update\",\"x\":[[[[]]]]}"), -32600,
                     "limit");
        assert_json(ask(&listener, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"update\",\"x\":[[[\"[[[[[\"]]]}"),
                    "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}");
}

#define UPDATE "{\"jsonrpc\":\"2.0\",\"method\":\"update\"}"

static void test_a_batch_beyond_the_limit_is_refused_whole(void **state) {
        assert_error(ask(&listener, "[" UPDATE "," UPDATE "," UPDATE "," UPDATE "," UPDATE "," UPDATE "]"), -32600,
                     "limit");
        assert_int_equal(listener.n_updates, 0);
        assert_null(ask(&listener, "[" UPDATE "," UPDATE "," UPDATE "," UPDATE "," UPDATE "]"));
        assert_int_equal(listener.n_updates, 5);
}

static void test_calls_beyond_the_limit_are_refused_until_one_is_answered(void **state) {
        json_t *data;

        for (int i = 0; i < 3; i++)
                assert_null(call(&listener, "late", "{}"));
        data = assert_error(call(&listener, "late", "{}"), EBUSY, "limit");
        assert_int_equal(json_integer_value(json_object_get(data, "limit")), 3);
        assert_string_equal(json_string_value(json_object_get(data, "errno")), "EBUSY");
        assert_error(call(&listener, "update", "{}"), EBUSY, "limit");
        toy_answer_late(&listener, 1);
        assert_json(call(&listener, "update", "{}"), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}");
        assert_int_equal(listener.n_updates, 1);
}

static void test_a_batch_whose_answers_grow_too_long_is_not_executed_further(void **state) {
        const char *heard = ask(&listener,
                "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"long\",\"params\":{\"bytes\":300}},"
                "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"update\"}]");
        json_t *answers = json_loads(heard, 0, NULL);
        char *second = json_dumps(json_array_get(answers, 1), 0);

        assert_error(second, E2BIG, "limit");
        assert_int_equal(listener.n_updates, 0);
        free(second);
        json_decref(answers);
}

#define LATE(id) "{\"jsonrpc\":\"2.0\",\"id\":" id ",\"method\":\"late\"}"

/* A batch that waits keeps what was answered so far: a peer must not have many of them hold the memory of many. */
static void test_batches_that_wait_share_the_limit_of_one(void **state) {
        json_t *answers;
        char *second;

        assert_null(ask(&listener, "[" LATE("1") ",{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"long\",\"params\":"
                                   "{\"bytes\":300}}]"));
        answers = json_loads(ask(&listener, "[" UPDATE ",{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"update\"}]"), 0,
                             NULL);
        second = json_dumps(json_array_get(answers, 0), 0);
        assert_error(second, E2BIG, "limit");
        assert_int_equal(listener.n_updates, 0);
        free(second);
        json_decref(answers);
        /* A request by itself is not concerned. */
        assert_json(call(&listener, "update", "{}"), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}");
        toy_answer_late(&listener, 0);
        assert_json(ask(&listener, "[{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"update\"}]"),
                    "[{\"jsonrpc\":\"2.0\",\"id\":4,\"result\":{}}]");
}

static void test_batches_that_wait_share_the_descriptors_of_one(void **state) {
        static const char pass[] = "[{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"pass\",\"params\":{\"fd\":true}}]";
        json_t *answers;
        char *first;

        assert_null(ask(&listener, "[" LATE("1") ",{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"pass\",\"params\":"
                                   "{\"fd\":true}},{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"pass\",\"params\":"
                                   "{\"fd\":true}}]"));
        answers = json_loads(ask(&listener, pass), 0, NULL);
        first = json_dumps(json_array_get(answers, 0), 0);
        assert_error(first, E2BIG, "limit");
        free(first);
        json_decref(answers);
        toy_answer_late(&listener, 0);
        assert_int_equal(listener.n_fds, 2);
        ask(&listener, pass);
        assert_int_equal(listener.n_fds, 3);
}

static void test_an_oversize_message_is_told_with_its_limit(void **state) {
        listener.n_heard = 0;
        rpc_peer_complain_oversize(&listener.peer);
        assert_int_equal(json_integer_value(json_object_get(assert_error(listener.heard, -32600, "limit"), "limit")),
                         1000);
        listener.n_heard = 0;
        rpc_peer_complain_fds(&listener.peer);
        assert_error(listener.heard, -32600, "unsupported");
}

static void test_answers_overtake_each_other(void **state) {
        assert_null(ask(&listener, "{\"jsonrpc\":\"2.0\",\"id\":\"slow\",\"method\":\"late\"}"));
        assert_non_null(ask(&listener, "{\"jsonrpc\":\"2.0\",\"id\":\"quick\",\"method\":\"update\"}"));
        listener.n_heard = 0;
        toy_answer_late(&listener, 0);
        assert_json(listener.heard, "{\"jsonrpc\":\"2.0\",\"id\":\"slow\",\"result\":{}}");
        assert_int_equal(listener.peer.n_calls, 0);
}

static void test_a_batch_waits_for_its_slowest_call(void **state) {
        assert_null(ask(&listener, "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"late\"},"
                                   "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"update\"},"
                                   "{\"jsonrpc\":\"2.0\",\"method\":\"late\"},"
                                   "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"late\"}]"));
        toy_answer_late(&listener, 2);
        toy_answer_late(&listener, 0);
        assert_int_equal(listener.n_sends, 0);
        toy_answer_late(&listener, 1);
        assert_int_equal(listener.n_sends, 1);
        assert_json(listener.heard,
                    "[{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}},{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{}},"
                    "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}]");
}

static void test_a_notification_is_a_line_of_its_own(void **state) {
        struct event_info event = { .topic = PROTOCOL_LEAK, .event = 7 };

        schema_put(&event, name, "card");
        assert_null(ask(&listener, "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"update\"},"
                                   "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"late\"}]"));
        assert_int_equal(rpc_peer_notify(&listener.peer, PROTOCOL_EVENT, &event_info_struct, &event), 0);
        assert_json(listener.heard, "{\"jsonrpc\":\"2.0\",\"method\":\"event\",\"params\":"
                                    "{\"topic\":\"leak\",\"event\":7,\"name\":\"card\"}}");
        listener.n_heard = 0;
        toy_answer_late(&listener, 0);
        assert_json(listener.heard, "[{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}},"
                                    "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}]");
        rpc_peer_drop(&listener.peer);
        assert_int_equal(rpc_peer_notify(&listener.peer, PROTOCOL_EVENT, &event_info_struct, &event), 0);
        assert_int_equal(listener.n_sends, 2);
}

static void test_a_dropped_peer_cancels_its_calls_and_hears_nothing(void **state) {
        ask(&listener, "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"late\"},{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":"
                       "\"update\"}]");
        ask(&listener, "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"late\"}");
        rpc_peer_drop(&listener.peer);
        assert_int_equal(listener.n_cancelled, 2);
        assert_int_equal(listener.peer.n_calls, 0);
        assert_null(ask(&listener, "{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"update\"}"));
        assert_int_equal(listener.n_sends, 0);
}

static void test_a_handler_may_drop_its_own_peer(void **state) {
        assert_null(ask(&listener,
                        "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"late\"},{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":"
                        "\"drop\"},{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"update\"}]"));
        assert_int_equal(listener.n_cancelled, 1);
        assert_int_equal(listener.n_updates, 0);
}

static void test_sending_may_drop_the_peer(void **state) {
        listener.drops_when_sent_to = true;
        assert_null(ask(&listener, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"late\"}"));
        assert_non_null(ask(&listener, "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"update\"}"));
        assert_int_equal(listener.n_cancelled, 1);
}

static void test_sending_a_refusal_may_drop_the_peer(void **state) {
        listener.drops_when_sent_to = true;
        assert_error(call(&listener, "long", "{}"), -32602, "bad_param");
        assert_int_equal(listener.peer.n_calls, 0);
        listener_deinit(&listener);
        listener_init(&listener, true, NULL);
        listener.drops_when_sent_to = true;
        listener.peer.takes_fds = false;
        assert_error(call(&listener, "pass", "{\"fd\":true}"), EOPNOTSUPP, "unsupported");
        assert_int_equal(listener.peer.n_calls, 0);
        assert_int_equal(listener.n_sends, 1);
}

static void test_a_handler_that_forgets_its_call_is_an_internal_error(void **state) {
        assert_error(call(&listener, "forget", "{}"), -32603, NULL);
        assert_int_equal(listener.peer.n_calls, 0);
}

static void test_a_method_above_the_callers_role_is_not_permitted(void **state) {
        json_t *data = assert_error(call(&listener, "admin", "{}"), EPERM, "not_permitted");

        assert_string_equal(json_string_value(json_object_get(data, "errno")), "EPERM");
        listener.peer.role = SCHEMA_ROLE_ADMIN;
        assert_json(call(&listener, "admin", "{}"), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}");
}

static void test_descriptors_travel_with_the_reply_that_counts_them(void **state) {
        assert_json(call(&listener, "pass", "{\"fd\":true}"), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"fds\":1}}");
        assert_int_equal(listener.n_fds, 1);
        assert_json(call(&listener, "pass", "{\"fd\":false}"), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}");
        assert_null(ask(&listener, "{\"jsonrpc\":\"2.0\",\"method\":\"pass\",\"params\":{\"fd\":true}}"));
        assert_int_equal(listener.n_fds, 1);
}

static void test_descriptors_are_refused_where_none_can_travel(void **state) {
        listener.peer.takes_fds = false;
        assert_error(call(&listener, "pass", "{\"fd\":true}"), EOPNOTSUPP, "unsupported");
        assert_json(call(&listener, "pass", "{}"), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}");
}

static void test_a_batch_carries_no_more_descriptors_than_a_reply_may(void **state) {
        const char *heard =
                ask(&listener, "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"pass\",\"params\":{\"fd\":true}},"
                               "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"pass\",\"params\":{\"fd\":true}},"
                               "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"pass\",\"params\":{\"fd\":true}},"
                               "{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"pass\",\"params\":{}}]");
        json_t *answers = json_loads(heard, 0, NULL);
        char *third = json_dumps(json_array_get(answers, 2), 0);

        assert_error(third, E2BIG, "limit");
        assert_int_equal(listener.n_fds, 2);
        assert_int_equal(json_array_size(answers), 4);
        free(third);
        json_decref(answers);
}

static void test_every_answered_call_is_observed_once(void **state) {
        call(&listener, "update", "{}");
        call(&listener, "late", "{}");
        assert_int_equal(listener.n_observed, 1);
        toy_answer_late(&listener, 0);
        assert_int_equal(listener.n_observed, 2);
}

static void test_every_request_is_counted_once(void **state) {
        static const struct {
                const char *text;
                size_t n;
        } texts[] = {
                { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"update\"}", 1 },
                { "{\"jsonrpc\":\"2.0\",\"method\":\"update\"}", 1 },
                { "{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"update\"}", 1 },
                { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"subtract\",\"params\":{\"minuend\":-1}}", 1 },
                { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"long\",\"params\":{\"byte\":1}}", 1 },
                { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"nothing of that name\"}", 1 },
                { "{\"jsonrpc\":\"2.0\",\"id\":[],\"method\":\"update\"}", 1 },
                { "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"update\"},1,{}]", 3 },
                { "[]", 1 },
                { "7", 1 },
                { "this is not JSON", 1 },
                { "[[[[[[[[[[1]]]]]]]]]]", 1 },
        };

        listener.counts = true;
        listener.n_admitted_most = 1000;
        for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
                listener.n_counted = 0;
                ask(&listener, texts[i].text);
                if (listener.n_counted != texts[i].n)
                        fail_msg("counted %zu times: %s", listener.n_counted, texts[i].text);
        }
        listener.n_counted = 0;
        rpc_peer_complain_oversize(&listener.peer);
        rpc_peer_complain_fds(&listener.peer);
        assert_int_equal(listener.n_counted, 2);
}

static void test_what_is_not_admitted_is_answered_and_not_executed(void **state) {
        listener.counts = true;
        listener.n_admitted_most = 1;
        assert_json(ask_with_id("1"), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}");
        assert_error(ask_with_id("2"), 122, "quota");
        assert_error(ask_with_id("3.0"), 122, "quota");
        assert_null(ask(&listener, "{\"jsonrpc\":\"2.0\",\"method\":\"update\"}"));
        assert_null(ask(&listener, "[{\"jsonrpc\":\"2.0\",\"method\":\"update\"}]"));
        assert_int_equal(listener.n_updates, 1);
}

static void test_each_request_of_a_batch_is_admitted_by_itself(void **state) {
        const char *heard;

        listener.counts = true;
        listener.n_admitted_most = 2;
        heard = ask(&listener, "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"update\"},"
                               "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"update\"},"
                               "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"update\"}]");
        assert_non_null(strstr(heard, "\"id\":2,\"result\""));
        assert_non_null(strstr(heard, "\"id\":3,\"error\""));
        assert_int_equal(listener.n_updates, 2);
}

static void test_a_service_needs_a_handler_for_every_method(void **state) {
        rpc_handler_fn none[TOY_COUNT] = { NULL };
        struct rpc_service *service = NULL;

        assert_int_equal(rpc_service_new(&toy_table, none, &RPC_LIMITS_DEFAULT, &service), -EINVAL);
        assert_null(service);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
#define TEST_LIMIT(name) cmocka_unit_test_setup_teardown(name, begin_with_small_limits, end)
        const struct CMUnitTest tests[] = {
                TEST(test_an_id_is_echoed_as_it_was_written),
                TEST(test_an_id_is_found_wherever_it_is),
                TEST(test_an_id_of_another_type_is_an_invalid_request),
                TEST(test_an_id_that_is_too_long_is_refused),
                TEST(test_a_request_of_another_version_is_invalid_and_keeps_its_id),
                TEST(test_a_text_that_is_no_request_is_invalid),
                TEST(test_a_key_given_twice_is_an_invalid_request),
                TEST(test_a_raw_nul_is_a_parse_error),
                TEST(test_a_method_name_with_an_escaped_nul_is_not_found),
                TEST_LIMIT(test_nesting_beyond_the_limit_is_refused),
                TEST_LIMIT(test_a_batch_beyond_the_limit_is_refused_whole),
                TEST_LIMIT(test_calls_beyond_the_limit_are_refused_until_one_is_answered),
                TEST_LIMIT(test_a_batch_whose_answers_grow_too_long_is_not_executed_further),
                TEST_LIMIT(test_batches_that_wait_share_the_limit_of_one),
                TEST_LIMIT(test_batches_that_wait_share_the_descriptors_of_one),
                TEST_LIMIT(test_an_oversize_message_is_told_with_its_limit),
                TEST(test_answers_overtake_each_other),
                TEST(test_a_batch_waits_for_its_slowest_call),
                TEST(test_a_notification_is_a_line_of_its_own),
                TEST(test_a_dropped_peer_cancels_its_calls_and_hears_nothing),
                TEST(test_a_handler_may_drop_its_own_peer),
                TEST(test_sending_may_drop_the_peer),
                TEST(test_sending_a_refusal_may_drop_the_peer),
                TEST(test_a_handler_that_forgets_its_call_is_an_internal_error),
                TEST(test_a_method_above_the_callers_role_is_not_permitted),
                TEST(test_descriptors_travel_with_the_reply_that_counts_them),
                TEST(test_descriptors_are_refused_where_none_can_travel),
                TEST_LIMIT(test_a_batch_carries_no_more_descriptors_than_a_reply_may),
                TEST(test_every_answered_call_is_observed_once),
                TEST_LIMIT(test_every_request_is_counted_once),
                TEST(test_what_is_not_admitted_is_answered_and_not_executed),
                TEST(test_each_request_of_a_batch_is_admitted_by_itself),
                TEST(test_a_service_needs_a_handler_for_every_method),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
