/* Lines of QMP: what they are taken for, and what is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/qmp-message.h"

static struct qmp_message message;

static int parse(const char *text) {
        return qmp_message_parse(text, strlen(text), &message);
}

static void test_a_greeting_is_one(void **state) {
        assert_int_equal(parse("{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, "
                               "\"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r"), 0);
        assert_int_equal(message.kind, QMP_MESSAGE_GREETING);
        qmp_message_deinit(&message);
}

static void test_a_return_has_its_number_and_its_text(void **state) {
        assert_int_equal(parse(" {\"return\": {\"status\": [1, 2.5, \"\\u00e9\"]}, \"id\": 17}"), 0);
        assert_int_equal(message.kind, QMP_MESSAGE_RETURN);
        assert_true(message.has_id);
        assert_int_equal(message.id, 17);
        assert_string_equal(message.value, "{\"status\":[1,2.5,\"\xC3\xA9\"]}");
        qmp_message_deinit(&message);
        assert_int_equal(parse("{\"return\": \"text\"}"), 0);
        assert_false(message.has_id);
        assert_string_equal(message.value, "\"text\"");
        qmp_message_deinit(&message);
}

static void test_numbers_of_64_bits_are_no_reason_to_refuse(void **state) {
        assert_int_equal(parse("{\"return\": 18446744073709551615, \"id\": 9007199254740991}"), 0);
        assert_true(message.has_id);
        assert_int_equal(message.id, INT64_C(9007199254740991));
        qmp_message_deinit(&message);
}

static void test_strange_numbers_are_nobodys(void **state) {
        static const char *const ids[] = { "-1", "\"1\"", "null", "[1]", "9007199254740992", "1e300" };
        char text[100];

        for (size_t i = 0; i < sizeof(ids) / sizeof(*ids); i++) {
                strcpy(text, "{\"return\": {}, \"id\": ");
                strncat(text, ids[i], 30);
                strncat(text, "}", 2);
                assert_int_equal(parse(text), 0);
                assert_false(message.has_id);
                qmp_message_deinit(&message);
        }
}

static void test_an_error_has_its_class_and_sentence(void **state) {
        assert_int_equal(parse("{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": 3}"), 0);
        assert_int_equal(message.kind, QMP_MESSAGE_ERROR);
        assert_string_equal(message.error_class, "GenericError");
        assert_string_equal(message.desc, "no");
        qmp_message_deinit(&message);
        assert_int_equal(parse("{\"error\": {\"desc\": \"no\"}}"), 0);
        assert_null(message.error_class);
        qmp_message_deinit(&message);
}

static void test_an_event_has_its_name_and_what_it_is_about(void **state) {
        assert_int_equal(parse("{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"DEVICE_DELETED\", "
                               "\"data\": {\"device\": \"w0\", \"path\": \"/machine/peripheral/w0\"}}"), 0);
        assert_int_equal(message.kind, QMP_MESSAGE_EVENT);
        assert_string_equal(message.event, "DEVICE_DELETED");
        assert_string_equal(message.device, "w0");
        assert_string_equal(message.path, "/machine/peripheral/w0");
        assert_null(message.reason);
        qmp_message_deinit(&message);
        assert_int_equal(parse("{\"event\": \"RESET\", \"data\": {\"guest\": true, \"reason\": \"guest-reset\"}}"), 0);
        assert_string_equal(message.reason, "guest-reset");
        assert_null(message.device);
        qmp_message_deinit(&message);
        assert_int_equal(parse("{\"event\": \"STOP\", \"data\": [7]}"), 0);
        qmp_message_deinit(&message);
}

static void test_what_is_no_message_is_refused(void **state) {
        static const char *const texts[] = {
                "", " ", "{}", "[]", "null", "7", "\"QMP\"", "{", "{\"return\": {}", "{\"return\": {}}}", "{\"return\": {}} x",
                "{\"QMP\": 1}", "{\"QMP\": []}", "{\"event\": 1}", "{\"event\": null}", "{\"error\": \"no\"}", "{\"error\": {}}",
                "{\"error\": {\"desc\": 1}}", "{\"other\": {}}", "[{\"return\": {}}]", "{\"return\": {}, \"return\": {}}",
                "{\"return\": \"\xff\"}", "{\"return\": \"\\ud800\"}", "{\"return\": \"\\u0000\"}", "{'return': {}}",
                "GET / HTTP/1.1",
        };

        for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
                assert_int_equal(parse(texts[i]), -EBADMSG);
        assert_int_equal(qmp_message_parse("{\"return\":\0 {}}", 15, &message), -EBADMSG);
}

static void test_depth_has_a_limit(void **state) {
        char text[200000];
        size_t n;

        memset(text, '[', sizeof(text));
        memcpy(text, "{\"return\":", 10);
        assert_int_equal(qmp_message_parse(text, sizeof(text), &message), -EBADMSG);
        n = 10 + 63;
        memset(text + n, ']', 63);
        text[n + 63] = '}';
        assert_int_equal(qmp_message_parse(text, n + 64, &message), 0);
        qmp_message_deinit(&message);
        n++;
        memset(text + n, ']', 64);
        text[n + 64] = '}';
        assert_int_equal(qmp_message_parse(text, n + 65, &message), -EBADMSG);
}

static void test_a_command_is_one_line_whatever_its_arguments_look_like(void **state) {
        struct json_writer writer = { 0 };

        assert_int_equal(qmp_message_compose(&writer, 5, "device_add", " {\n\"id\":\n\t\"w\\n0\", \"n\": 1}\n"), 0);
        assert_int_equal(qmp_message_compose(&writer, 6, "query-\"status", NULL), 0);
        json_write_bytes(&writer, "", 1);
        assert_string_equal(writer.text, "{\"execute\":\"device_add\",\"arguments\":{\"id\":\"w\\n0\",\"n\":1},\"id\":5}\n"
                                         "{\"execute\":\"query-\\\"status\",\"id\":6}\n");
        json_writer_deinit(&writer);
}

static void test_arguments_that_are_no_object_are_refused_and_leave_nothing(void **state) {
        static const char *const texts[] = { "", "[]", "1", "{", "{}{}", "{} x", "null", "{\"a\":1,\"a\":2}" };
        struct json_writer writer = { 0 };

        json_write_literal(&writer, "before");
        for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
                assert_int_equal(qmp_message_compose(&writer, 1, "x", texts[i]), -EINVAL);
                assert_int_equal(writer.length, 6);
        }
        assert_int_equal(qmp_message_compose(&writer, 1, "x", "{}"), 0);
        json_writer_deinit(&writer);
}

static void test_a_status_has_a_name_and_says_whether_it_runs(void **state) {
        struct qmp_status status;

        assert_int_equal(qmp_status_read("{\"status\":\"running\",\"singlestep\":false,\"running\":true}", &status), 0);
        assert_string_equal(status.name, "running");
        assert_true(status.running);
        assert_int_equal(qmp_status_read("{\"status\":\"prelaunch\",\"running\":false}", &status), 0);
        assert_false(status.running);
        assert_int_equal(qmp_status_read("{\"status\":\"running\"}", &status), -EBADMSG);
        assert_int_equal(qmp_status_read("{\"status\":\"a-state-with-a-name-that-has-no-end\",\"running\":true}", &status),
                         -EBADMSG);
        assert_int_equal(qmp_status_read("[]", &status), -EBADMSG);
        assert_int_equal(qmp_status_read("", &status), -EBADMSG);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_greeting_is_one),
                cmocka_unit_test(test_a_return_has_its_number_and_its_text),
                cmocka_unit_test(test_numbers_of_64_bits_are_no_reason_to_refuse),
                cmocka_unit_test(test_strange_numbers_are_nobodys),
                cmocka_unit_test(test_an_error_has_its_class_and_sentence),
                cmocka_unit_test(test_an_event_has_its_name_and_what_it_is_about),
                cmocka_unit_test(test_what_is_no_message_is_refused),
                cmocka_unit_test(test_depth_has_a_limit),
                cmocka_unit_test(test_a_command_is_one_line_whatever_its_arguments_look_like),
                cmocka_unit_test(test_arguments_that_are_no_object_are_refused_and_leave_nothing),
                cmocka_unit_test(test_a_status_has_a_name_and_says_whether_it_runs),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
