/* What is JSON and what is not, told by the answer: a value that is JSON stands in a member that nobody looks at, so
 * the request is answered; what is not JSON is a parse error. */
#include "tests/unit/proto-peer.h"

#include <stdio.h>

static struct listener listener;

static int begin(void **state) {
        listener_init(&listener, true, NULL);
        return 0;
}

static int end(void **state) {
        listener_deinit(&listener);
        return 0;
}

static const char *ask_with_value(const char *value) {
        char text[512];

        snprintf(text, sizeof(text), "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"update\",\"x\":%s}", value);
        return ask(&listener, text);
}

static void test_what_the_grammar_allows_is_accepted(void **state) {
        static const char *const values[] = {
                "0",
                "-0",
                "1",
                "-1",
                "10",
                "0.0",
                "1.5",
                "-1.5e10",
                "1E5",
                "1e+5",
                "1e-5",
                "123456789012345678901234567890",
                "0e0",
                "0E+1",
                "1e-400",
                "true",
                "false",
                "null",
                "\"\"",
                "\"a\"",
                "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
                "\"\\u0041\"",
                "\"\\u0000\"",
                "\"\\uD83D\\uDE00\"",
                "\"\xC3\xA9\"",
                "\"\xF0\x9F\x98\x80\"",
                "\"\xF4\x8F\xBF\xBF\"",
                "\"\x7F\"",
                "\"\\uFFFF\"",
                "[]",
                "[1]",
                "[[],{}]",
                "[ 1 , 2 ]",
                "{}",
                "{\"\":0}",
                "{\"a\":1,\"b\":2}",
                "{ \"a\" : 1 }",
                "\t\r 1 \t\r",
                "{\"a\":{\"a\":1}}",
                "\"\\u2028\"",
                "\"\xE2\x80\xA8\"",
        };

        for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
                const char *heard = ask_with_value(values[i]);

                if (!heard || !strstr(heard, "\"id\":1,\"result\":{}"))
                        fail_msg("%s: %s", values[i], heard);
        }
}

static void test_what_the_grammar_does_not_allow_is_a_parse_error(void **state) {
        static const char *const values[] = {
                "",
                "01",
                "-01",
                "+1",
                ".5",
                "1.",
                "1.e5",
                "1e",
                "1e+",
                "-",
                "--1",
                "0x10",
                "1_000",
                "NaN",
                "Infinity",
                "-Infinity",
                "True",
                "nul",
                "nulll",
                "'a'",
                "\"",
                "\"a",
                "\"\\\"",
                "\"\\x41\"",
                "\"\\u12\"",
                "\"\\u12G4\"",
                "\"\\a\"",
                "\"\\uD800\"",
                "\"\\uDC00\"",
                "\"\\uD800\\u0041\"",
                "\"\t\"",
                "\"\n\"",
                "\"\x01\"",
                "\"\xFF\"",
                "\"\xC0\x80\"",
                "\"\xC3\"",
                "\"\xED\xA0\x80\"",
                "\"\xF4\x90\x80\x80\"",
                "\"\xF8\x88\x80\x80\x80\"",
                "[",
                "]",
                "[1",
                "[1,]",
                "[,1]",
                "[1,,2]",
                "[1 2]",
                "[1}",
                "{",
                "{]",
                "{\"a\"}",
                "{\"a\":}",
                "{\"a\":1,}",
                "{a:1}",
                "{1:1}",
                "{\"a\" 1}",
                "{\"a\"::1}",
                "{,}",
                "1 1",
                "/* */ 1",
                "1 // 1",
                "# 1",
                "\xEF\xBB\xBF"
                "1",
                "1;",
                "\f1",
                "\xC2\xA0"
                "1",
        };

        for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
                const char *heard = ask_with_value(values[i]);

                if (!heard || !strstr(heard, "\"code\":-32700"))
                        fail_msg("%s: %s", values[i], heard ? heard : "no answer");
        }
        assert_int_equal(listener.n_updates, 0);
}

static void test_what_follows_the_text_is_a_parse_error(void **state) {
        static const char *const texts[] = {
                "{} {}",          "[] []",  "{\"jsonrpc\":\"2.0\",\"method\":\"update\"}x", "[],1", " ",
                "\xEF\xBB\xBF{}", "{}\x01",
        };

        for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
                assert_error(ask(&listener, texts[i]), -32700, NULL);
        assert_int_equal(listener.n_updates, 0);
}

/* Good JSON that is refused all the same, because what it means differs from one implementation to the next. */
static void test_what_is_ambiguous_is_an_invalid_request(void **state) {
        static const char *const values[] = { "{\"a\":1,\"a\":1}", "{\"a\":1,\"\\u0061\":2}", "{\"\\u0000\":1}",
                                              "1e400", "-1e400" };

        for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++)
                assert_error(ask_with_value(values[i]), -32600, NULL);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
        const struct CMUnitTest tests[] = {
                TEST(test_what_the_grammar_allows_is_accepted),
                TEST(test_what_the_grammar_does_not_allow_is_a_parse_error),
                TEST(test_what_follows_the_text_is_a_parse_error),
                TEST(test_what_is_ambiguous_is_an_invalid_request),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
