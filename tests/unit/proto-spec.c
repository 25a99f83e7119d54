/* The examples of the JSON-RPC 2.0 specification, in its order. Where they use positional parameters, which this
 * protocol refuses, the error for that is expected, and the example is there a second time by name. */
#include "tests/unit/proto-peer.h"

static struct listener listener;

static int begin(void **state) {
        listener_init(&listener, true, NULL);
        return 0;
}

static int end(void **state) {
        listener_deinit(&listener);
        return 0;
}

static void test_positional_parameters_are_invalid_params(void **state) {
        json_t *data;

        data = assert_error(
                ask(&listener, "{\"jsonrpc\": \"2.0\", \"method\": \"subtract\", \"params\": [42, 23], \"id\": 1}"),
                -32602, "bad_param");
        assert_string_equal(json_string_value(json_object_get(data, "param")), "params");
        assert_error(
                ask(&listener, "{\"jsonrpc\": \"2.0\", \"method\": \"subtract\", \"params\": [23, 42], \"id\": 2}"),
                -32602, "bad_param");
}

static void test_named_parameters_come_in_any_order(void **state) {
        assert_json(ask(&listener, "{\"jsonrpc\": \"2.0\", \"method\": \"subtract\", \"params\": {\"subtrahend\": 23, "
                                   "\"minuend\": 42}, \"id\": 3}"),
                    "{\"jsonrpc\": \"2.0\", \"result\": 19, \"id\": 3}");
        assert_json(ask(&listener, "{\"jsonrpc\": \"2.0\", \"method\": \"subtract\", \"params\": {\"minuend\": 42, "
                                   "\"subtrahend\": 23}, \"id\": 4}"),
                    "{\"jsonrpc\": \"2.0\", \"result\": 19, \"id\": 4}");
}

static void test_a_notification_is_executed_and_not_answered(void **state) {
        assert_null(ask(&listener, "{\"jsonrpc\": \"2.0\", \"method\": \"update\", \"params\": [1,2,3,4,5]}"));
        assert_int_equal(listener.n_updates, 0);
        assert_null(ask(&listener, "{\"jsonrpc\": \"2.0\", \"method\": \"update\", \"params\": {}}"));
        assert_null(ask(&listener, "{\"jsonrpc\": \"2.0\", \"method\": \"update\"}"));
        assert_int_equal(listener.n_updates, 2);
        assert_null(ask(&listener, "{\"jsonrpc\": \"2.0\", \"method\": \"foobar\"}"));
}

/* The error of the answer without the data, which the specification leaves to the server. */
static void assert_plain_error(const char *heard, const char *expected) {
        json_t *answer, *error;
        char *text;

        assert_non_null(heard);
        answer = json_loads(heard, 0, NULL);
        error = json_object_get(answer, "error");
        json_object_del(error, "data");
        text = json_dumps(answer, 0);
        assert_json(text, expected);
        free(text);
        json_decref(answer);
}

static void test_a_method_that_does_not_exist_is_not_found(void **state) {
        assert_plain_error(ask(&listener, "{\"jsonrpc\": \"2.0\", \"method\": \"foobar\", \"id\": \"1\"}"),
                           "{\"jsonrpc\": \"2.0\", \"error\": {\"code\": -32601, \"message\": \"Method not found\"}, "
                           "\"id\": \"1\"}");
}

static void test_invalid_json_is_a_parse_error(void **state) {
        assert_plain_error(
                ask(&listener, "{\"jsonrpc\": \"2.0\", \"method\": \"foobar, \"params\": \"bar\", \"baz]"),
                "{\"jsonrpc\": \"2.0\", \"error\": {\"code\": -32700, \"message\": \"Parse error\"}, \"id\": null}");
}

static void test_an_invalid_request_object_is_an_invalid_request(void **state) {
        assert_plain_error(ask(&listener, "{\"jsonrpc\": \"2.0\", \"method\": 1, \"params\": \"bar\"}"),
                           "{\"jsonrpc\": \"2.0\", \"error\": {\"code\": -32600, \"message\": \"Invalid Request\"}, "
                           "\"id\": null}");
}

static void test_a_batch_of_invalid_json_is_one_parse_error(void **state) {
        assert_plain_error(
                ask(&listener, "[ {\"jsonrpc\": \"2.0\", \"method\": \"sum\", \"params\": [1,2,4], \"id\": \"1\"},\n"
                               "  {\"jsonrpc\": \"2.0\", \"method\"\n]"),
                "{\"jsonrpc\": \"2.0\", \"error\": {\"code\": -32700, \"message\": \"Parse error\"}, \"id\": null}");
}

static void test_an_empty_array_is_one_invalid_request(void **state) {
        assert_plain_error(ask(&listener, "[]"),
                           "{\"jsonrpc\": \"2.0\", \"error\": {\"code\": -32600, \"message\": \"Invalid Request\"}, "
                           "\"id\": null}");
}

static void assert_invalid_elements(const char *heard, size_t n) {
        json_t *answers = json_loads(heard, 0, NULL);
        char *text;

        assert_int_equal(json_array_size(answers), n);
        for (size_t i = 0; i < n; i++) {
                text = json_dumps(json_array_get(answers, i), 0);
                assert_plain_error(
                        text, "{\"jsonrpc\": \"2.0\", \"error\": {\"code\": -32600, \"message\": \"Invalid Request\"}, "
                              "\"id\": null}");
                free(text);
        }
        json_decref(answers);
}

static void test_a_batch_of_one_invalid_element_is_an_array_of_one_error(void **state) {
        assert_invalid_elements(ask(&listener, "[1]"), 1);
}

static void test_a_batch_of_invalid_elements_is_an_array_of_errors(void **state) {
        assert_invalid_elements(ask(&listener, "[1,2,3]"), 3);
}

static int code_at(const json_t *answers, size_t index, const char *id) {
        const json_t *answer = json_array_get(answers, index);

        if (id)
                assert_string_equal(json_string_value(json_object_get(answer, "id")), id);
        else
                assert_true(json_is_null(json_object_get(answer, "id")));
        return (int)json_integer_value(json_object_get(json_object_get(answer, "error"), "code"));
}

static void test_a_mixed_batch_answers_each_element_on_its_own(void **state) {
        const char *heard = ask(
                &listener,
                "[ {\"jsonrpc\": \"2.0\", \"method\": \"sum\", \"params\": [1,2,4], \"id\": \"1\"},"
                "  {\"jsonrpc\": \"2.0\", \"method\": \"update\", \"params\": {}},"
                "  {\"jsonrpc\": \"2.0\", \"method\": \"subtract\", \"params\": {\"minuend\": 42, \"subtrahend\": 23}, "
                "\"id\": \"2\"},"
                "  {\"foo\": \"boo\"},"
                "  {\"jsonrpc\": \"2.0\", \"method\": \"foo.get\", \"params\": {\"name\": \"myself\"}, \"id\": \"5\"},"
                "  {\"jsonrpc\": \"2.0\", \"method\": \"get_data\", \"id\": \"9\"} ]");
        json_t *answers = json_loads(heard, 0, NULL);

        assert_int_equal(json_array_size(answers), 5);
        assert_int_equal(code_at(answers, 0, "1"), -32601);
        assert_int_equal(code_at(answers, 1, "2"), 0);
        assert_int_equal(json_integer_value(json_object_get(json_array_get(answers, 1), "result")), 19);
        assert_int_equal(code_at(answers, 2, NULL), -32600);
        assert_int_equal(code_at(answers, 3, "5"), -32601);
        assert_int_equal(code_at(answers, 4, "9"), 0);
        assert_string_equal(json_string_value(json_array_get(json_object_get(json_array_get(answers, 4), "result"), 0)),
                            "hello");
        assert_int_equal(listener.n_updates, 1);
        json_decref(answers);
}

static void test_a_batch_of_notifications_is_not_answered(void **state) {
        assert_null(ask(&listener, "[ {\"jsonrpc\": \"2.0\", \"method\": \"update\", \"params\": {}},"
                                   "  {\"jsonrpc\": \"2.0\", \"method\": \"notify_hello\", \"params\": [7]} ]"));
        assert_int_equal(listener.n_updates, 1);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
        const struct CMUnitTest tests[] = {
                TEST(test_positional_parameters_are_invalid_params),
                TEST(test_named_parameters_come_in_any_order),
                TEST(test_a_notification_is_executed_and_not_answered),
                TEST(test_a_method_that_does_not_exist_is_not_found),
                TEST(test_invalid_json_is_a_parse_error),
                TEST(test_an_invalid_request_object_is_an_invalid_request),
                TEST(test_a_batch_of_invalid_json_is_one_parse_error),
                TEST(test_an_empty_array_is_one_invalid_request),
                TEST(test_a_batch_of_one_invalid_element_is_an_array_of_one_error),
                TEST(test_a_batch_of_invalid_elements_is_an_array_of_errors),
                TEST(test_a_mixed_batch_answers_each_element_on_its_own),
                TEST(test_a_batch_of_notifications_is_not_answered),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
