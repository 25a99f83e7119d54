/* Parameters in, results out, and the tables that say how. */
#include "tests/unit/proto-peer.h"

#include <math.h>
#include <stdio.h>

#include "proto/codec.h"
#include "proto/help.h"
#include "proto/methods.h"

static struct listener listener;

static int begin(void **state) {
        listener_init(&listener, false, NULL);
        listener.peer.role = SCHEMA_ROLE_ADMIN;
        return 0;
}

static int begin_with_toys(void **state) {
        listener_init(&listener, true, NULL);
        return 0;
}

static int end(void **state) {
        listener_deinit(&listener);
        return 0;
}

#define OK "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}"

/* The parameter is refused, and the answer names it in its data and in its sentence. */
static json_t *assert_refused(const char *method, const char *params, const char *param) {
        json_t *data = assert_error(call(&listener, method, params), -32602, "bad_param");
        char words[96];

        assert_string_equal(json_string_value(json_object_get(data, "param")), param);
        snprintf(words, sizeof(words), "the parameter %s ", param);
        assert_non_null(strstr(listener.heard, words));
        return data;
}

static void test_the_tables_keep_their_own_rules(void **state) {
        char text[200] = "";

        if (schema_table_check(&protocol_table, text, sizeof(text)))
                fail_msg("%s", text);
        if (schema_table_check(&toy_table, text, sizeof(text)))
                fail_msg("%s", text);
}

static void test_a_table_that_breaks_a_rule_is_found_out(void **state) {
        static const struct schema_field rows[] = {
                { .name = "a", .type = SCHEMA_UINT, .offset = 8, .size = 8, .doc = "a" },
                { .name = "b", .type = SCHEMA_UINT, .offset = 12, .size = 8, .doc = "b" },
        };
        static const struct schema_struct structure = { "broken", 24, rows, 2 };
        static const struct schema_method method = { .id = 0, .name = "m", .summary = "m", .params = &structure };
        const struct schema_table table = { .methods = &method, .n_methods = 1 };
        char text[200] = "";

        assert_int_not_equal(schema_table_check(&table, text, sizeof(text)), 0);
        assert_string_equal(text, "broken.b: has no slot of its own, or is out of order");
}

static void test_an_unknown_parameter_is_named(void **state) {
        assert_refused("broker.ping", "{\"loud\":true}", "loud");
        assert_refused("coherent.alloc", "{\"device\":1,\"size\":1,\"sise\":2}", "sise");
        assert_refused("quota.set", "{\"owner\":\"user:1\",\"limits\":{\"byte\":1}}", "limits.byte");
        assert_refused("coherent.free", "{\"alloc\":1,\"\":2}", "");
}

static void test_a_missing_parameter_is_named(void **state) {
        assert_refused("coherent.alloc", "{\"device\":1}", "size");
        assert_error(ask(&listener, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"coherent.free\"}"), -32602,
                     "bad_param");
}

static void test_an_integer_is_nothing_else(void **state) {
        static const char *const wrong[] = { "\"1\"", "1.0", "1e3", "true", "null", "[1]", "{}", "0.5" };
        char params[64];

        for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
                snprintf(params, sizeof(params), "{\"device\":1,\"size\":%s}", wrong[i]);
                assert_refused("coherent.alloc", params, "size");
        }
}

static void test_an_integer_out_of_range_says_the_range(void **state) {
        static const char *const wrong[] = { "0",
                                             "-1",
                                             "9007199254740992",
                                             "9223372036854775807",
                                             "-9223372036854775808",
                                             "9223372036854775808",
                                             "18446744073709551616",
                                             "-99999999999999999999999" };
        char params[64];
        json_t *data;

        for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
                snprintf(params, sizeof(params), "{\"device\":1,\"size\":%s}", wrong[i]);
                data = assert_refused("coherent.alloc", params, "size");
                assert_int_equal(json_integer_value(json_object_get(data, "min")), 1);
                assert_int_equal(json_integer_value(json_object_get(data, "max")), 9007199254740991);
        }
        assert_json(call(&listener, "coherent.alloc", "{\"device\":1,\"size\":9007199254740991}"), OK);
        assert_refused("coherent.alloc", "{\"device\":1,\"size\":1,\"wait_ms\":86400001}", "wait_ms");
        assert_json(call(&listener, "coherent.alloc", "{\"device\":1,\"size\":1,\"wait_ms\":86400000}"), OK);
}

static void test_an_address_is_a_hex_string_of_at_most_64_bits(void **state) {
        static const char *const wrong[] = {
                "5",       "\"\"",          "\"0x\"",        "\"0\"",    "\"10\"",
                "\"0xg\"", "\"0x1g\"",      "\"0x1 \"",      "\"-0x1\"", "\"0x10000000000000000\"",
                "null",    "\"0x\\u0000\"", "\"0x1\\u0000\""
        };
        static const char *const right[] = { "\"0x0\"", "\"0xffffffffffffffff\"", "\"0xFFffFF\"",
                                             "\"0x00000000000000ff\"" };
        char params[96];

        for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
                snprintf(params, sizeof(params), "{\"device\":1,\"mask\":%s}", wrong[i]);
                assert_refused("device.supported", params, "mask");
        }
        for (size_t i = 0; i < sizeof(right) / sizeof(*right); i++) {
                snprintf(params, sizeof(params), "{\"device\":1,\"mask\":%s}", right[i]);
                assert_json(call(&listener, "device.supported", params), OK);
        }
}

static void test_a_string_has_bounds_and_no_nul(void **state) {
        char params[256] = "{\"name\":\"", *end = params + strlen(params);

        assert_refused("device.open", "{\"name\":\"\"}", "name");
        assert_refused("device.open", "{\"name\":7}", "name");
        assert_refused("device.open", "{\"name\":\"a\\u0000b\"}", "name");
        memset(end, 'x', 129);
        memcpy(end + 129, "\"}", 3);
        assert_refused("device.open", params, "name");
        memcpy(end + 128, "\"}", 3);
        assert_json(call(&listener, "device.open", params), OK);
}

static void test_an_enum_says_its_words(void **state) {
        assert_refused("coherent.alloc", "{\"device\":1,\"size\":1,\"priority\":\"urgent\"}", "priority");
        assert_non_null(strstr(listener.heard, "normal, high"));
        assert_refused("coherent.alloc", "{\"device\":1,\"size\":1,\"priority\":1}", "priority");
        assert_refused("coherent.alloc", "{\"device\":1,\"size\":1,\"priority\":\"high\\u0000\"}", "priority");
        assert_json(call(&listener, "coherent.alloc", "{\"device\":1,\"size\":1,\"priority\":\"high\"}"), OK);
}

static void test_a_boolean_is_nothing_else(void **state) {
        assert_refused("coherent.alloc", "{\"device\":1,\"size\":1,\"zero\":1}", "zero");
        assert_refused("coherent.alloc", "{\"device\":1,\"size\":1,\"zero\":\"true\"}", "zero");
        assert_refused("coherent.alloc", "{\"device\":1,\"size\":1,\"zero\":null}", "zero");
}

static void test_lists_and_objects_name_the_element(void **state) {
        assert_refused("quota.set", "{\"owner\":\"user:1\",\"unlimited\":[\"bytes\",\"byte\"]}", "unlimited[1]");
        assert_refused("quota.set", "{\"owner\":\"user:1\",\"unlimited\":\"bytes\"}", "unlimited");
        assert_refused("quota.set", "{\"owner\":\"user:1\",\"limits\":[]}", "limits");
        assert_refused("quota.set", "{\"owner\":\"user:1\",\"limits\":{\"bytes\":-1}}", "limits.bytes");
        assert_json(call(&listener, "quota.set", "{\"owner\":\"user:1\",\"limits\":{\"bytes\":null}}"), OK);
}

/* All types, there and back. */
static const char everything[] = "{\"flag\":true,\"small\":10,\"large\":9007199254740991,\"below\":-5,\"real\":0.5,"
                                 "\"address\":\"0xffffffffffffffff\","
                                 "\"word\":\"\xC3\xA9\\\"\\\\\\n\\u0001\",\"colour\":\"green\",\"inner\":{\"count\":7},"
                                 "\"raw\":{\"a\":[1,null,\"\\u0000\"]},"
                                 "\"numbers\":[1,2,3],\"words\":[\"a\",\"\"],\"things\":[{\"count\":1},{\"count\":2}],"
                                 "\"colours\":[\"red\",\"green\"]";

static void test_every_type_survives_the_way_there_and_back(void **state) {
        char params[1024], expected[1200];

        snprintf(params, sizeof(params), "%s}", everything);
        snprintf(expected, sizeof(expected), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":%s}", params);
        assert_json(call(&listener, "everything", params), expected);
        snprintf(params, sizeof(params), "%s,\"maybe\":0}", everything);
        snprintf(expected, sizeof(expected), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":%s}", params);
        assert_json(call(&listener, "everything", params), expected);
        snprintf(params, sizeof(params), "%s,\"maybe\":null}", everything);
        assert_null(strstr(call(&listener, "everything", params), "maybe"));
}

static const struct {
        const char *param, *value;
} wrong_everything[] = {
        { "flag", "0" },    { "small", "11" },          { "below", "-6" },           { "below", "6" },
        { "below", "0.0" }, { "real", "\"1\"" },        { "word", "\"123456789\"" }, { "colour", "\"blue\"" },
        { "inner", "7" },   { "numbers", "[1,2,3,4]" }, { "things", "{}" },          { "maybe", "false" },
};

static void test_each_type_refuses_the_others(void **state) {
        json_t *params;
        char *text;

        for (size_t i = 0; i < sizeof(wrong_everything) / sizeof(*wrong_everything); i++) {
                char whole[1024];

                snprintf(whole, sizeof(whole), "%s}", everything);
                params = json_loads(whole, JSON_ALLOW_NUL, NULL);
                json_object_set_new(params, wrong_everything[i].param,
                                    json_loads(wrong_everything[i].value, JSON_DECODE_ANY, NULL));
                text = json_dumps(params, 0);
                assert_refused("everything", text, wrong_everything[i].param);
                free(text);
                json_decref(params);
        }
}

static void assert_written(const struct json_writer *writer, const char *expected) {
        assert_int_equal(writer->length, strlen(expected));
        assert_memory_equal(writer->text, expected, writer->length);
}

static void test_strings_are_escaped_and_made_utf8(void **state) {
        static const char text[] = "a\"\\\b\f\n\r\t\x01\x7f/\xC3\xA9\xF0\x9F\x98\x80\xFF\xC0\x80\xED\xA0\x80\xE2\x82";
        struct json_writer writer = { .text = NULL };

        json_write_string(&writer, text, sizeof(text) - 1);
        assert_written(
                &writer,
                "\"a\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u007f/\xC3\xA9\xF0\x9F\x98\x80"
                "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"");
        json_writer_deinit(&writer);
}

static void assert_number(double value, const char *expected) {
        struct json_writer writer = { .text = NULL };

        json_write_number(&writer, value);
        assert_written(&writer, expected);
        json_writer_deinit(&writer);
}

static void test_numbers_are_written_whole_and_short(void **state) {
        struct json_writer writer = { .text = NULL };

        assert_number(0, "0");
        assert_number(-0.0001, "0");
        assert_number(1.5, "1.5");
        assert_number(-2.125, "-2.125");
        assert_number(0.0499, "0.05");
        assert_number(1e15, "1000000000000000");
        assert_number(1e17, "100000000000000000");
        assert_number((double)NAN, "0");
        assert_number((double)INFINITY, "0");
        json_write_unsigned(&writer, UINT64_MAX);
        json_write_signed(&writer, INT64_MIN);
        json_write_hex(&writer, UINT64_MAX);
        json_write_hex(&writer, 0);
        assert_written(&writer, "18446744073709551615-9223372036854775808\"0xffffffffffffffff\"\"0x0\"");
        json_writer_deinit(&writer);
}

/* A result of zeroes, empty lists and empty strings has every required member, so the method's own table must accept
 * it, once ranges that exclude zero are out of the way. */
static void test_every_methods_result_is_what_its_table_says(void **state) {
        static const uint64_t zeroes[512];

        for (size_t i = 0; i < METHOD_COUNT; i++) {
                const struct schema_method *method = &protocol_table.methods[i];
                struct json_writer writer = { .text = NULL };
                json_t *json;
                char text[300] = "";

                if (!method->results)
                        continue;
                assert_true(method->results->size <= sizeof(zeroes));
                schema_encode_result(method, zeroes, method->fds_max, &writer);
                json = json_loadb(writer.text, writer.length, JSON_REJECT_DUPLICATES, NULL);
                assert_non_null(json);
                for (size_t k = 0; k < method->results->n_fields; k++) {
                        const struct schema_field *field = &method->results->fields[k];

                        assert_int_equal(!!json_object_get(json, field->name), field->required);
                        if (field->required && field->min && field->type == SCHEMA_UINT)
                                json_object_set_new(json, field->name, json_integer((json_int_t)field->min));
                }
                if (schema_check_result(method, json, text, sizeof(text)))
                        fail_msg("%s: %s", method->name, text);
                json_object_set_new(json, "surplus", json_true());
                assert_int_not_equal(schema_check_result(method, json, text, sizeof(text)), 0);
                json_decref(json);
                json_writer_deinit(&writer);
        }
}

static void test_an_allocations_result_reads_as_the_contract_says(void **state) {
        struct coherent_alloc_result result = { .alloc = 5,
                                                .region = 3,
                                                .offset = 4096,
                                                .size = 8192,
                                                .dma_addr = 0x1f400000,
                                                .addressing = PROTOCOL_SIMULATED };
        struct json_writer writer = { .text = NULL };

        schema_put(&result, machine_addr, UINT64_C(0x21f400000));
        schema_encode_result(&protocol_table.methods[METHOD_coherent_alloc], &result, 1, &writer);
        assert_written(&writer, "{\"alloc\":5,\"region\":3,\"offset\":4096,\"size\":8192,\"dma_addr\":\"0x1f400000\","
                                "\"machine_addr\":\"0x21f400000\",\"addressing\":\"simulated\",\"fds\":1}");
        json_writer_deinit(&writer);
}

static void test_discover_describes_every_method(void **state) {
        json_t *answer = json_loads(call(&listener, "rpc.discover", "{}"), JSON_REJECT_DUPLICATES, NULL), *methods,
               *method;
        const json_t *document = json_object_get(answer, "result");
        size_t i, k;

        assert_string_equal(json_string_value(json_object_get(document, "openrpc")), "1.4.0");
        assert_string_equal(json_string_value(json_object_get(json_object_get(document, "info"), "title")),
                            "dmabroker");
        methods = json_object_get(document, "methods");
        assert_int_equal(json_array_size(methods), METHOD_COUNT);
        json_array_foreach(methods, i, method) {
                const struct schema_method *row =
                        schema_method_find(&protocol_table, json_string_value(json_object_get(method, "name")));
                json_t *params = json_object_get(method, "params"), *param;

                assert_non_null(row);
                assert_int_equal(json_array_size(params), row->params ? row->params->n_fields : 0);
                json_array_foreach(params, k, param) {
                        assert_string_equal(json_string_value(json_object_get(param, "name")),
                                            row->params->fields[k].name);
                        assert_true(json_is_object(json_object_get(param, "schema")));
                        assert_int_equal(json_is_true(json_object_get(param, "required")),
                                         row->params->fields[k].required);
                }
                assert_true(json_is_object(json_object_get(json_object_get(method, "result"), "schema")));
                assert_true(json_is_array(json_object_get(method, "errors")));
        }
        json_decref(answer);
}

static void assert_described(const struct schema_struct *structure, const char *name, const char *expected) {
        char text[64] = "";

        for (size_t i = 0; i < structure->n_fields; i++)
                if (!strcmp(structure->fields[i].name, name))
                        help_describe_type(&structure->fields[i], text, sizeof(text));
        assert_string_equal(text, expected);
}

static void test_types_have_words_for_people(void **state) {
        const struct schema_struct *alloc = protocol_table.methods[METHOD_coherent_alloc].params;
        const struct schema_struct *quota = protocol_table.methods[METHOD_quota_set].params;
        char text[8];

        assert_described(alloc, "size", "integer, at least 1");
        assert_described(alloc, "wait_ms", "integer, 0 to 86400000");
        assert_described(alloc, "mask", "hex string");
        assert_described(alloc, "priority", "one of normal, high");
        assert_described(alloc, "zero", "boolean");
        assert_described(quota, "owner", "string, 1 to 128 bytes");
        assert_described(&everything_struct, "below", "integer, -5 to 5");
        assert_described(&everything_struct, "things", "array of object");
        assert_described(&everything_struct, "colours", "array of red, green");
        help_describe_type(&alloc->fields[0], text, sizeof(text));
        assert_string_equal(text, "integer");
        assert_string_equal(help_reason_text(REASON_busy), "something still uses it");
}

static void test_later_stages_are_absent(void **state) {
        static const char *const later[] = { "grant.copy", "grant.revoke", "grant.transfer" };

        for (size_t i = 0; i < sizeof(later) / sizeof(*later); i++)
                assert_error(call(&listener, later[i], "{}"), -32601, NULL);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
#define TEST_TOYS(name) cmocka_unit_test_setup_teardown(name, begin_with_toys, end)
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_the_tables_keep_their_own_rules),
                cmocka_unit_test(test_a_table_that_breaks_a_rule_is_found_out),
                TEST(test_an_unknown_parameter_is_named),
                TEST(test_a_missing_parameter_is_named),
                TEST(test_an_integer_is_nothing_else),
                TEST(test_an_integer_out_of_range_says_the_range),
                TEST(test_an_address_is_a_hex_string_of_at_most_64_bits),
                TEST(test_a_string_has_bounds_and_no_nul),
                TEST(test_an_enum_says_its_words),
                TEST(test_a_boolean_is_nothing_else),
                TEST(test_lists_and_objects_name_the_element),
                TEST_TOYS(test_every_type_survives_the_way_there_and_back),
                TEST_TOYS(test_each_type_refuses_the_others),
                cmocka_unit_test(test_strings_are_escaped_and_made_utf8),
                cmocka_unit_test(test_numbers_are_written_whole_and_short),
                TEST(test_every_methods_result_is_what_its_table_says),
                cmocka_unit_test(test_an_allocations_result_reads_as_the_contract_says),
                TEST(test_discover_describes_every_method),
                cmocka_unit_test(test_types_have_words_for_people),
                TEST(test_later_stages_are_absent),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
