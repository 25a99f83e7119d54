/* What a client must not be able to ask: each its own error, the connection kept, nothing taken. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/rpc/ask.h"

struct fixture {
        struct test_daemon *daemon;
        struct test_client *client;
        uint64_t device;
        char *books;
};

static struct fixture fixture;

static int set_up_daemon(void **state) {
        fixture.daemon = ask_daemon("[daemon]\naccess = everyone\n");
        return 0;
}

static int tear_down_daemon(void **state) {
        return test_daemon_end(fixture.daemon);
}

static int set_up(void **state) {
        fixture.client = ask_connect(fixture.daemon, NULL);
        fixture.device = ask_device(fixture.client, "card");
        fixture.books = ask_books(fixture.client);
        return 0;
}

/* The connection is still of use, and all books are as they were. */
static int tear_down(void **state) {
        char *books = ask_books(fixture.client);

        assert_string_equal(books, fixture.books);
        json_decref(ask(fixture.client, "broker.ping", "{}"));
        json_decref(ask(fixture.client, "broker.bye", "{}"));
        test_client_close(fixture.client);
        free(fixture.books);
        free(books);
        return 0;
}

static void refuse_text(const char *text, int code) {
        json_t *answer, *error;

        test_client_send_text(fixture.client, text);
        answer = ask_read(fixture.client);
        error = json_incref(json_object_get(answer, "error"));
        assert_non_null(error);
        json_decref(answer);
        ask_take_code(error, code);
}

#define ALLOC(...) "coherent.alloc", "{'device':%" PRIu64 "," __VA_ARGS__ "}", fixture.device

static void test_malformed_json_is_a_parse_error(void **state) {
        refuse_text("{\"jsonrpc\":\"2.0\",\n", -32700);
        refuse_text("nonsense\n", -32700);
}

static void test_json_that_is_no_request_is_invalid(void **state) {
        refuse_text("42\n", -32600);
        refuse_text("[]\n", -32600);
        refuse_text("{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"broker.ping\"}\n", -32600);
        refuse_text("{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"broker.ping\"}\n", -32600);
        refuse_text("{\"jsonrpc\":\"2.0\",\"id\":[],\"method\":\"broker.ping\"}\n", -32600);
}

static void test_an_unknown_method_is_not_found(void **state) {
        ask_invalid(fixture.client, -32601, "coherent.steal", "{}");
}

static void test_an_unknown_parameter_is_refused_by_name(void **state) {
        json_t *error = ask_error(fixture.client, ask_send(fixture.client, ALLOC("'size':4096,'colour':'red'")));

        assert_non_null(strstr(json_string_value(json_object_get(error, "message")), "colour"));
        ask_take_code(error, -32602);
}

static void test_positional_parameters_are_refused(void **state) {
        ask_invalid(fixture.client, -32602, "coherent.alloc", "[1, 4096]");
}

static void test_a_missing_parameter_is_refused(void **state) {
        ask_invalid(fixture.client, -32602, "coherent.alloc", "{'size':4096}");
}

static void test_wrong_types_are_refused(void **state) {
        ask_invalid(fixture.client, -32602, ALLOC("'size':'4096'"));
        ask_invalid(fixture.client, -32602, ALLOC("'size':4096.5"));
        ask_invalid(fixture.client, -32602, ALLOC("'size':true"));
        ask_invalid(fixture.client, -32602, ALLOC("'size':4096,'mask':4294967295"));
        ask_invalid(fixture.client, -32602, ALLOC("'size':4096,'priority':'urgent'"));
        ask_invalid(fixture.client, -32602, ALLOC("'size':4096,'zero':1"));
}

static void test_numbers_out_of_range_are_refused(void **state) {
        ask_invalid(fixture.client, -32602, ALLOC("'size':-1"));
        ask_invalid(fixture.client, -32602, ALLOC("'size':9007199254740992"));
        ask_invalid(fixture.client, -32602, ALLOC("'size':4096,'mask':'0x10000000000000000'"));
        ask_invalid(fixture.client, -32602, ALLOC("'size':4096,'wait_ms':99999999999"));
}

static void test_a_number_beyond_every_integer_is_refused(void **state) {
        json_t *answer;

        test_client_send_text(fixture.client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"coherent.free\","
                                              "\"params\":{\"alloc\":99999999999999999999999}}\n");
        answer = ask_read(fixture.client);
        assert_non_null(json_object_get(answer, "error"));
        json_decref(answer);
}

static void test_size_zero_is_refused(void **state) {
        ask_invalid(fixture.client, -32602, ALLOC("'size':0"));
}

static void test_a_huge_size_is_refused(void **state) {
        ask_refused(fixture.client, "no_memory", ALLOC("'size':1099511627776"));
        ask_refused(fixture.client, "no_memory", ALLOC("'size':9007199254740991"));
}

static void test_a_huge_size_is_refused_at_once_even_when_it_may_wait(void **state) {
        ask_refused(fixture.client, "no_memory", ALLOC("'size':1099511627776,'wait_ms':3600000"));
}

static void test_an_alignment_that_is_no_power_of_two_is_refused(void **state) {
        ask_refused(fixture.client, "bad_param", ALLOC("'size':4096,'align':12288"));
}

static void test_a_huge_alignment_is_refused(void **state) {
        json_t *error = ask_error(fixture.client, ask_send(fixture.client, ALLOC("'size':4096,'align':4503599627370496")));

        assert_non_null(json_object_get(json_object_get(error, "data"), "reason"));
        json_decref(error);
}

static void test_a_boundary_that_is_no_power_of_two_is_refused(void **state) {
        json_t *error = ask_error(fixture.client, ask_send(fixture.client, ALLOC("'size':4096,'boundary':12288")));

        assert_int_equal(json_integer_value(json_object_get(error, "code")), 22);
        json_decref(error);
}

static void test_a_size_beyond_the_boundary_is_refused(void **state) {
        ask_refused(fixture.client, "boundary", ALLOC("'size':65536,'boundary':4096"));
}

static void test_masks_below_the_smallest_page_are_refused(void **state) {
        ask_refused(fixture.client, "mask", "device.open", "{'name':'tiny','mask':'0x7ff'}");
        ask_refused(fixture.client, "mask", "device.open", "{'name':'tiny','mask':'0x0'}");
        ask_refused(fixture.client, "mask", "device.open", "{'name':'tiny','coherent_mask':'0x0'}");
        ask_refused(fixture.client, "mask", "device.set_mask", "{'device':%" PRIu64 ",'mask':'0x7ff'}", fixture.device);
        ask_refused(fixture.client, "mask", "device.set_mask", "{'device':%" PRIu64 ",'mask':'0x0'}", fixture.device);
        ask_refused(fixture.client, "mask", ALLOC("'size':4096,'mask':'0x7ff'"));
        ask_refused(fixture.client, "mask", ALLOC("'size':4096,'mask':'0x0'"));
}

static void test_a_mask_below_all_memory_is_refused(void **state) {
        ask_refused(fixture.client, "mask", "device.open", "{'name':'low','mask':'0xffff'}");
        ask_refused(fixture.client, "mask", "device.set_mask", "{'device':%" PRIu64 ",'mask':'0xffff'}", fixture.device);
}

static void test_a_mask_with_a_hole_is_refused(void **state) {
        json_t *error = ask_error(fixture.client, ask_send(fixture.client, "device.open", "{'name':'x','mask':'0xff00ffff'}"));

        assert_int_not_equal(json_integer_value(json_object_get(error, "code")), 0);
        json_decref(error);
}

static void test_unknown_handles_are_told(void **state) {
        ask_refused(fixture.client, "unknown_handle", "coherent.free", "{'alloc':123456789}");
        ask_refused(fixture.client, "unknown_handle", "region.get", "{'region':123456789}");
        ask_refused(fixture.client, "unknown_handle", "device.close", "{'device':123456789}");
        ask_refused(fixture.client, "unknown_handle", "coherent.alloc", "{'device':123456789,'size':4096}");
        ask_refused(fixture.client, "unknown_handle", "device.reserve", "{'device':123456789,'size':4096}");
}

static void test_a_device_handle_is_no_allocation(void **state) {
        ask_refused(fixture.client, "unknown_handle", "coherent.free", "{'alloc':%" PRIu64 "}", fixture.device);
        ask_refused(fixture.client, "unknown_handle", "region.get", "{'region':%" PRIu64 "}", fixture.device);
}

static void test_a_freed_handle_is_told_apart_from_an_unknown_one(void **state) {
        uint64_t alloc = ask_alloc(fixture.client, fixture.device, 4096);

        json_decref(ask(fixture.client, "coherent.free", "{'alloc':%" PRIu64 "}", alloc));
        ask_refused(fixture.client, "double_free", "coherent.free", "{'alloc':%" PRIu64 "}", alloc);
        free(fixture.books);
        fixture.books = ask_books(fixture.client); /* the region is kept for a while */
}

static void test_an_address_that_was_never_given_is_told(void **state) {
        ask_refused(fixture.client, "bad_address", "coherent.lookup", "{'dma_addr':'0x1000'}");
        ask_refused(fixture.client, "bad_address", "coherent.lookup", "{'machine_addr':'0xffffffffffffffff'}");
        ask_refused(fixture.client, "bad_param", "coherent.lookup", "{}");
        ask_refused(fixture.client, "bad_param", "coherent.lookup", "{'dma_addr':'0x1000','machine_addr':'0x1000'}");
}

static void test_a_reservation_with_half_a_stride_is_refused(void **state) {
        ask_refused(fixture.client, "bad_param", "device.reserve", "{'device':%" PRIu64 ",'size':1048576,'stride':8192}",
                    fixture.device);
        ask_refused(fixture.client, "bad_param", "device.reserve",
                    "{'device':%" PRIu64 ",'size':1048576,'stride':8192,'usable':16384}", fixture.device);
}

static void test_a_quota_of_nobody_is_refused(void **state) {
        ask_refused(fixture.client, "bad_param", "quota.set", "{'owner':'everybody','limits':{'bytes':1}}");
        ask_refused(fixture.client, "bad_param", "quota.set", "{'owner':'user:-1','limits':{'bytes':1}}");
}

static void test_another_version_of_the_protocol_is_refused(void **state) {
        ask_refused(fixture.client, "unsupported", "broker.hello", "{'protocol':2}");
}

static void test_a_request_key_of_another_request_is_refused(void **state) {
        uint64_t alloc = ask_number(fixture.client, "alloc", ALLOC("'size':4096,'request_key':'k1'"));

        assert_int_equal(ask_number(fixture.client, "alloc", ALLOC("'size':4096,'request_key':'k1'")), alloc);
        ask_refused(fixture.client, "bad_param", ALLOC("'size':8192,'request_key':'k1'"));
        json_decref(ask(fixture.client, "coherent.free", "{'alloc':%" PRIu64 "}", alloc));
        free(fixture.books);
        fixture.books = ask_books(fixture.client);
}

static void test_a_message_over_the_limit_is_skipped(void **state) {
        size_t size = (1 << 20) + 100;
        char *text = malloc(size);

        memset(text, ' ', size);
        text[size - 1] = '\n';
        test_client_send(fixture.client, text, size);
        free(text);
        refuse_text("", -32600);
}

static void test_descriptors_that_come_in_are_refused_with_their_message(void **state) {
        static const char text[] = "{\"jsonrpc\":\"2.0\",\"id\":77,\"method\":\"broker.ping\"}\n";
        int fds[2] = { 0, 1 };
        json_t *answer;

        assert_int_equal(test_client_send_fds(fixture.client, text, sizeof(text) - 1, fds, 2), 0);
        answer = ask_read(fixture.client);
        assert_non_null(json_object_get(answer, "error"));
        assert_true(json_is_null(json_object_get(answer, "id")));
        json_decref(answer);
}

static void test_nested_too_deeply_is_refused(void **state) {
        char text[300];

        memset(text, '[', 200);
        memset(text + 200, ']', 98);
        memcpy(text + 298, "\n", 2);
        refuse_text(text, -32600);
}

static void test_a_batch_that_is_too_long_is_refused_whole(void **state) {
        char text[2 * 1025 + 3] = "[";

        for (size_t i = 0; i < 1025; i++)
                memcpy(text + 1 + 2 * i, "1,", 2);
        memcpy(text + 2 * 1025, "]\n", 3);
        refuse_text(text, -32600);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(test_malformed_json_is_a_parse_error),
                T(test_json_that_is_no_request_is_invalid),
                T(test_an_unknown_method_is_not_found),
                T(test_an_unknown_parameter_is_refused_by_name),
                T(test_positional_parameters_are_refused),
                T(test_a_missing_parameter_is_refused),
                T(test_wrong_types_are_refused),
                T(test_numbers_out_of_range_are_refused),
                T(test_a_number_beyond_every_integer_is_refused),
                T(test_size_zero_is_refused),
                T(test_a_huge_size_is_refused),
                T(test_a_huge_size_is_refused_at_once_even_when_it_may_wait),
                T(test_an_alignment_that_is_no_power_of_two_is_refused),
                T(test_a_huge_alignment_is_refused),
                T(test_a_boundary_that_is_no_power_of_two_is_refused),
                T(test_a_size_beyond_the_boundary_is_refused),
                T(test_masks_below_the_smallest_page_are_refused),
                T(test_a_mask_below_all_memory_is_refused),
                T(test_a_mask_with_a_hole_is_refused),
                T(test_unknown_handles_are_told),
                T(test_a_device_handle_is_no_allocation),
                T(test_a_freed_handle_is_told_apart_from_an_unknown_one),
                T(test_an_address_that_was_never_given_is_told),
                T(test_a_reservation_with_half_a_stride_is_refused),
                T(test_a_quota_of_nobody_is_refused),
                T(test_another_version_of_the_protocol_is_refused),
                T(test_a_request_key_of_another_request_is_refused),
                T(test_a_message_over_the_limit_is_skipped),
                T(test_descriptors_that_come_in_are_refused_with_their_message),
                T(test_nested_too_deeply_is_refused),
                T(test_a_batch_that_is_too_long_is_refused_whole),
        };

        return cmocka_run_group_tests(tests, set_up_daemon, tear_down_daemon);
}
