/* Plain requests are read without the parser: nobody may be able to tell. A member that requests do not have is ignored
 * and makes the parser read the request, so every text is said twice, with and without one. */
#include "tests/unit/proto-peer.h"

#include <stdio.h>

#include "proto/methods.h"
#include "proto/quick.h"

static struct listener listener;

static int begin(void **state) {
        listener_init(&listener, true, NULL);
        return 0;
}

static int end(void **state) {
        listener_deinit(&listener);
        return 0;
}

/* request: an object's text. */
static void assert_alike(const char *request) {
        char slowly[4096], quickly[8192];
        const char *heard;

        heard = ask(&listener, request);
        snprintf(quickly, sizeof(quickly), "%s", heard ? heard : "nothing");
        snprintf(slowly, sizeof(slowly), "%.*s,\"unheard of\":0}", (int)(strrchr(request, '}') - request), request);
        heard = ask(&listener, slowly);
        if (strcmp(quickly, heard ? heard : "nothing"))
                fail_msg("%s\n  quickly: %s\n  slowly: %s", request, quickly, heard ? heard : "nothing");
}

static bool is_quick(const char *text) {
        struct quick quick;

        return quick_read(text, strlen(text), &quick);
}

static void test_a_plain_request_needs_no_parser(void **state) {
        struct schema_memory memory = { .chunks = NULL };
        static const char text[] = " {\"jsonrpc\":\"2.0\", \"id\" : 7,\"method\":\"coherent.alloc\",\"params\":{\"device\":5,"
                                   "\"size\":4096,\"mask\":\"0xff\",\"zero\":true,\"priority\":\"high\","
                                   "\"request_key\":\"k\"}}\r";
        struct coherent_alloc_params params;
        struct quick quick;

        assert_true(quick_read(text, sizeof(text) - 1, &quick));
        assert_true(quick_decode(schema_method_find(&protocol_table, "coherent.alloc")->params, &quick, &memory, &params));
        assert_int_equal(params.device, 5);
        assert_int_equal(params.size, 4096);
        assert_true(schema_has(&params, mask) && params.mask == 0xff);
        assert_true(schema_has(&params, zero) && params.zero);
        assert_true(schema_has(&params, priority) && params.priority == PROTOCOL_HIGH);
        assert_string_equal(params.request_key, "k");
        assert_false(schema_has(&params, align));
        schema_memory_free(&memory);
}

static void test_whatever_is_in_doubt_is_left_to_the_parser(void **state) {
        static const char *const doubtful[] = {
                "", "{", "{}", "[]", "42",
                "{\"jsonrpc\":\"2.0\"}",
                "{\"jsonrpc\":\"1.0\",\"method\":\"update\"}",
                "{\"jsonrpc\":\"2.0\",\"method\":\"update\"} x",
                "{\"jsonrpc\":\"2.0\",\"method\":\"update\",}",
                "{\"jsonrpc\":\"2.0\",\"method\":\"update\",\"method\":\"update\"}",
                "{\"jsonrpc\":\"2.0\",\"method\":\"upd\\u0061te\"}",
                "{\"jsonrpc\":\"2.0\",\"method\":\"update\",\"id\":null}",
                "{\"jsonrpc\":\"2.0\",\"method\":\"update\",\"id\":-1}",
                "{\"jsonrpc\":\"2.0\",\"method\":\"update\",\"id\":01}",
                "{\"jsonrpc\":\"2.0\",\"method\":\"update\",\"id\":1.0}",
                "{\"jsonrpc\":\"2.0\",\"method\":\"update\",\"id\":1e2}",
                "{\"jsonrpc\":\"2.0\",\"method\":\"update\",\"id\":1234567890123456}",
                "{\"jsonrpc\":\"2.0\",\"method\":\"update\",\"id\":true}",
                "{\"jsonrpc\":\"2.0\",\"method\":\"update\",\"id\":\"\xC3\xA9\"}",
                "{\"jsonrpc\":\"2.0\",\"method\":\"update\",\"id\":\"a\tb\"}",
                "{\"jsonrpc\":\"2.0\",\"method\":\"update\",\"params\":[]}",
                "{\"jsonrpc\":\"2.0\",\"method\":\"update\",\"params\":{\"a\":{}}}",
                "{\"jsonrpc\":\"2.0\",\"method\":\"update\",\"params\":{\"a\":trueish}}",
                "{\"jsonrpc\":\"2.0\",\"method\":\"update\",\"params\":{\"a\":1,}}",
                "{\"jsonrpc\":\"2.0\",\"method\":\"update\",\"more\":1}",
        };

        for (size_t i = 0; i < sizeof(doubtful) / sizeof(*doubtful); i++)
                if (is_quick(doubtful[i]))
                        fail_msg("%s is read quickly", doubtful[i]);
        assert_false(quick_read("{\"jsonrpc\":\"2.0\",\"method\":\"a\0b\"}", 33, &(struct quick){ .n_params = 0 }));
}

/* ---- at random ---- */

static unsigned seed = 21;

static const char *pick(const char *const *words, size_t n) {
        return words[(unsigned)rand_r(&seed) % n];
}
#define PICK(words) pick(words, sizeof(words) / sizeof(*(words)))

static void add_params(char *text, size_t size) {
        static const char *const names[] = { "minuend", "subtrahend", "flag", "small", "large", "below", "real",
                                             "address", "word", "colour", "maybe", "numbers", "inner", "fd", "strange" };
        static const char *const values[] = { "0", "1", "42", "9007199254740991", "9007199254740992", "-3", "1.5", "1.0",
                                              "\"red\"", "\"green\"", "\"0x10\"", "\"0XAB\"", "\"0xAb\"", "\"\"", "true",
                                              "false", "null", "[1]", "{}", "\"a\\u0062\"", "007", "tru", "100",
                                              "\"0x12345678901234567\"", "999999999999999", "1000000000000000" };
        unsigned n = (unsigned)rand_r(&seed) % 5;

        snprintf(text, size, "{");
        for (unsigned i = 0; i < n; i++)
                snprintf(text + strlen(text), size - strlen(text), "%s\"%s\"%s:%s", i ? "," : "", PICK(names),
                         rand_r(&seed) % 8 ? "" : " ", PICK(values));
        snprintf(text + strlen(text), size - strlen(text), "}");
}

static void make_request(char *text, size_t size) {
        static const char *const versions[] = { "\"2.0\"", "\"2.0\"", "\"2.0\"", "\"2.0\"", "\"1.0\"", "2.0" };
        static const char *const methods[] = { "\"subtract\"", "\"everything\"", "\"update\"", "\"get_data\"", "\"pass\"",
                                               "\"subtract\"", "\"everything\"", "\"nowhere\"", "\"admin\"", "5" };
        static const char *const ids[] = { "1", "0", "-1", "\"x\"", "\"\"", "null", "1.5", "true", "123456789012345" };
        char params[1024], member[2048];
        unsigned order = (unsigned)rand_r(&seed);

        add_params(params, sizeof(params));
        snprintf(text, size, "{");
        for (unsigned i = 0; i < 4; i++) {
                member[0] = '\0';
                switch ((i + order) % 4) {
                case 0:
                        snprintf(member, sizeof(member), "\"jsonrpc\":%s", PICK(versions));
                        break;
                case 1:
                        snprintf(member, sizeof(member), "\"method\":%s", PICK(methods));
                        break;
                case 2:
                        if (rand_r(&seed) % 8)
                                snprintf(member, sizeof(member), "\"id\":%s", PICK(ids));
                        break;
                default:
                        if (rand_r(&seed) % 8)
                                snprintf(member, sizeof(member), "\"params\":%s", params);
                }
                if (member[0])
                        snprintf(text + strlen(text), size - strlen(text), "%s%s", strlen(text) > 1 ? "," : "", member);
        }
        snprintf(text + strlen(text), size - strlen(text), "}");
        /* Now and then one byte is another. */
        if (rand_r(&seed) % 4 == 0)
                text[1 + (unsigned)rand_r(&seed) % (strlen(text) - 1)] = "\"{}:,0 1a\\-"[rand_r(&seed) % 11];
}

static void test_nobody_can_tell_who_read_the_request(void **state) {
        char request[2048];
        unsigned quick = 0;

        for (int i = 0; i < 30000; i++) {
                make_request(request, sizeof(request));
                if (!is_quick(request))
                        continue;
                quick++;
                assert_alike(request);
        }
        assert_in_range(quick, 3000, 27000); /* else little was compared */
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_plain_request_needs_no_parser),
                cmocka_unit_test(test_whatever_is_in_doubt_is_left_to_the_parser),
                cmocka_unit_test_setup_teardown(test_nobody_can_tell_who_read_the_request, begin, end),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
