/* Mappings of allocations: a second device may reach what was made shareable, and what is mapped stays. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/rpc/ask.h"

static const char config[] = "[daemon]\naccess = everyone\ngrace = 0\n[memory]\nregion_idle = 0\nquarantine = 0\n"
                             "[device narrow]\nmask = 0xffffff\n";

static uint64_t disk, private, shareable; /* a second device, and allocations of the first */

static int set_up(void **state) {
        struct ask_fixture *fixture;

        ask_set_up(state, config);
        fixture = *state;
        disk = ask_device(fixture->client, "disk");
        private = ask_alloc(fixture->client, fixture->device, 65536);
        shareable = ask_number(fixture->client, "alloc", "coherent.alloc",
                               "{'device':%" PRIu64 ",'size':65536,'shareable':true}", fixture->device);
        return 0;
}

static json_t *map(struct ask_fixture *fixture, uint64_t device, uint64_t alloc, const char *more) {
        return ask(fixture->client, "mapping.map",
                   "{'device':%" PRIu64 ",'alloc':%" PRIu64 ",'direction':'bidirectional'%s}", device, alloc, more);
}

#define REFUSE(reason, device, alloc, more)                                                                           \
        ask_refused(fixture->client, reason, "mapping.map",                                                           \
                    "{'device':%" PRIu64 ",'alloc':%" PRIu64 ",'direction':'to_device'%s}", device, alloc, more)

static void unmap(struct ask_fixture *fixture, uint64_t mapping) {
        json_decref(ask(fixture->client, "mapping.unmap", "{'mapping':%" PRIu64 "}", mapping));
}

static void test_a_second_device_reaches_what_is_shareable(void **state) {
        struct ask_fixture *fixture = *state;
        json_t *mapping = map(fixture, disk, shareable, ",'offset':4096,'size':8192"), *list, *row;

        assert_int_equal(ask_peek_number(mapping, "size"), 8192);
        assert_int_equal(ask_peek_hex(mapping, "iova"), ask_peek_hex(mapping, "machine_addr"));
        list = ask(fixture->client, "mapping.list", "{'device':%" PRIu64 "}", disk);
        row = json_array_get(json_object_get(list, "mappings"), 0);
        assert_int_equal(ask_peek_number(row, "mapping"), ask_peek_number(mapping, "mapping"));
        assert_int_equal(ask_peek_number(row, "alloc"), shareable);
        assert_null(json_object_get(row, "bounce"));
        assert_string_equal(json_string_value(json_object_get(row, "direction")), "bidirectional");
        assert_string_equal(json_string_value(json_object_get(row, "device_name")), "disk");
        json_decref(list);
        unmap(fixture, ask_take_number(mapping, "mapping"));
        ask_clean(fixture->client);
}

static void test_what_is_private_stays_with_its_device(void **state) {
        struct ask_fixture *fixture = *state;

        REFUSE("wrong_device", disk, private, "");
        json_decref(map(fixture, fixture->device, private, ""));
}

static void test_what_is_mapped_is_not_freed(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t mapping = ask_take_number(map(fixture, disk, shareable, ""), "mapping");

        ask_refused(fixture->client, "busy", "coherent.free", "{'alloc':%" PRIu64 "}", shareable);
        unmap(fixture, mapping);
        json_decref(ask(fixture->client, "coherent.free", "{'alloc':%" PRIu64 "}", shareable));
        ask_clean(fixture->client);
}

static void test_a_mapping_is_unmapped_once(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t mapping = ask_take_number(map(fixture, disk, shareable, ""), "mapping");

        unmap(fixture, mapping);
        ask_refused(fixture->client, "double_free", "mapping.unmap", "{'mapping':%" PRIu64 "}", mapping);
        ask_refused(fixture->client, "unknown_handle", "mapping.unmap", "{'mapping':4711}");
}

static void test_a_mapping_stays_within_its_allocation(void **state) {
        struct ask_fixture *fixture = *state;

        REFUSE("bad_address", disk, shareable, ",'offset':65536");
        REFUSE("bad_address", disk, shareable, ",'offset':61440,'size':8192");
        REFUSE("bad_address", disk, shareable, ",'offset':9007199254740991,'size':9007199254740991");
        ask_invalid(fixture->client, -32602, "mapping.map",
                    "{'device':%" PRIu64 ",'alloc':%" PRIu64 ",'direction':'to_device','size':0}", disk,
                    shareable);
        ask_invalid(fixture->client, -32602, "mapping.map", "{'device':%" PRIu64 ",'alloc':%" PRIu64 "}", disk,
                    shareable);
        ask_clean(fixture->client);
}

static void test_a_device_cannot_map_what_it_cannot_reach(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t narrow = ask_device(fixture->client, "narrow");

        REFUSE("mask", narrow, shareable, "");
}

static void test_where_nothing_translates_there_is_no_choice_of_address(void **state) {
        struct ask_fixture *fixture = *state;

        REFUSE("unsupported", disk, shareable, ",'iova':'0x10000'");
}

static void test_unknown_devices_and_allocations_are_told(void **state) {
        struct ask_fixture *fixture = *state;

        REFUSE("unknown_handle", UINT64_C(4711), shareable, "");
        REFUSE("unknown_handle", disk, UINT64_C(4711), "");
}

static void test_a_device_with_mappings_is_not_closed(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t mapping = ask_take_number(map(fixture, disk, shareable, ""), "mapping");
        json_t *error = ask_error(fixture->client,
                                  ask_send(fixture->client, "device.close", "{'device':%" PRIu64 "}", disk));
        json_t *leaked = json_object_get(json_object_get(error, "data"), "leaked");

        assert_int_equal(json_array_size(leaked), 1);
        assert_int_equal(ask_peek_number(json_array_get(leaked, 0), "mapping"), mapping);
        assert_int_equal(ask_peek_number(json_array_get(leaked, 0), "size"), 65536);
        ask_take_reason(error, "busy");
        json_decref(ask(fixture->client, "device.close", "{'device':%" PRIu64 ",'force':true}", disk));
        json_decref(ask(fixture->client, "coherent.free", "{'alloc':%" PRIu64 "}", shareable));
        ask_clean(fixture->client);
}

static uint64_t count_mappings(struct ask_fixture *fixture) {
        json_t *status = ask(fixture->client, "broker.status", "{}");
        uint64_t n = ask_peek_number(json_object_get(status, "counts"), "mappings");

        json_decref(status);
        return n;
}

static void test_mappings_end_with_their_session(void **state) {
        struct ask_fixture *fixture = *state;
        struct test_client *doomed = ask_connect(fixture->daemon, NULL);

        json_decref(ask(doomed, "mapping.map", "{'device':%" PRIu64 ",'alloc':%" PRIu64 ",'direction':'to_device'}",
                        disk, shareable));
        test_client_close(doomed);
        ask_until(count_mappings(fixture) == 0);
        json_decref(ask(fixture->client, "coherent.free", "{'alloc':%" PRIu64 "}", shareable));
        ask_clean(fixture->client);
}

static void test_the_same_key_gives_the_same_mapping(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t mapping = ask_take_number(map(fixture, disk, shareable, ",'request_key':'m'"), "mapping");

        assert_int_equal(ask_take_number(map(fixture, disk, shareable, ",'request_key':'m'"), "mapping"),
                         mapping);
        REFUSE("bad_param", disk, shareable, ",'request_key':'m'");
        unmap(fixture, mapping);
        assert_int_not_equal(ask_take_number(map(fixture, disk, shareable, ",'request_key':'m'"),
                                             "mapping"), mapping);
}

static void test_a_strangers_allocation_cannot_be_mapped(void **state) {
        struct ask_fixture *fixture = *state;
        struct test_client *client = ask_connect_as(fixture->daemon, 12345);
        struct test_client *stranger = ask_connect_as(fixture->daemon, 12346);
        uint64_t alloc, device = ask_device(stranger, "disk"), mapping, own = ask_device(client, "card");

        alloc = ask_number(client, "alloc", "coherent.alloc", "{'device':%" PRIu64 ",'size':4096,'shareable':true}", own);
        mapping = ask_number(client, "mapping", "mapping.map",
                             "{'device':%" PRIu64 ",'alloc':%" PRIu64 ",'direction':'to_device'}", own, alloc);
        ask_refused(stranger, "unknown_handle", "mapping.map",
                    "{'device':%" PRIu64 ",'alloc':%" PRIu64 ",'direction':'to_device'}", device, alloc);
        ask_refused(stranger, "unknown_handle", "mapping.unmap", "{'mapping':%" PRIu64 "}", mapping);
        ask_refused(stranger, "not_permitted", "mapping.list", "{'owner':'user:12345'}");
        test_client_close(client);
        test_client_close(stranger);
}

static void test_mappings_are_listed_in_pages(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t after = 0;
        json_t *page;

        for (int i = 0; i < 3; i++)
                json_decref(map(fixture, disk, shareable, ""));
        for (int i = 0; i < 3; i++) {
                page = ask(fixture->client, "mapping.list", "{'limit':1,'after':%" PRIu64 "}", after);
                assert_int_equal(json_is_true(json_object_get(page, "more")), i < 2);
                after = ask_peek_number(json_array_get(json_object_get(page, "mappings"), 0), "mapping");
                json_decref(page);
        }
}

/* Write a text into an allocation, or compare it: through a descriptor of its region. */
static void with_text(struct ask_fixture *fixture, const json_t *place, bool writes) {
        static const char text[] = "what the device has written";
        char found[sizeof(text)];
        uint64_t at = ask_peek_number(place, "offset") + 60000;
        int fd;

        json_decref(ask(fixture->client, "region.get", "{'region':%" PRIu64 "}", ask_peek_number(place, "region")));
        fd = test_client_take_fd(fixture->client);
        assert_true(fd >= 0);
        if (writes)
                assert_int_equal(pwrite(fd, text, sizeof(text), (off_t)at), sizeof(text));
        assert_int_equal(pread(fd, found, sizeof(found), (off_t)at), sizeof(found));
        assert_memory_equal(found, text, sizeof(text));
        close(fd);
}

static void test_what_a_device_cannot_reach_is_moved_to_it_with_its_contents(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t narrow = ask_device(fixture->client, "narrow");
        json_t *place, *moved, *again;

        place = ask(fixture->client, "coherent.alloc", "{'device':%" PRIu64 ",'size':65536}", fixture->device);
        with_text(fixture, place, true);
        REFUSE("wrong_device", narrow, ask_peek_number(place, "alloc"), "");
        moved = ask(fixture->client, "coherent.move", "{'alloc':%" PRIu64 ",'device':%" PRIu64 ",'request_key':'move'}",
                    ask_peek_number(place, "alloc"), narrow);
        assert_true(ask_peek_hex(moved, "dma_addr") + 65535 <= 0xffffff);
        assert_int_equal(ask_peek_number(moved, "size"), 65536);
        with_text(fixture, moved, false);
        ask_refused(fixture->client, "double_free", "coherent.free", "{'alloc':%" PRIu64 "}", ask_peek_number(place, "alloc"));
        again = ask(fixture->client, "coherent.move", "{'alloc':%" PRIu64 ",'device':%" PRIu64 ",'request_key':'move'}",
                    ask_peek_number(place, "alloc"), narrow);
        assert_true(json_equal(again, moved));
        json_decref(again);
        json_decref(ask(fixture->client, "coherent.free", "{'alloc':%" PRIu64 "}", ask_peek_number(moved, "alloc")));
        json_decref(moved);
        json_decref(place);
        ask_clean(fixture->client);
}

static void test_what_cannot_be_moved_is_refused_and_stays(void **state) {
        struct ask_fixture *fixture = *state;
        struct test_client *stranger = ask_connect_as(fixture->daemon, 12345);
        uint64_t theirs = ask_device(stranger, "card"), mapping;

        mapping = ask_take_number(map(fixture, disk, shareable, ""), "mapping");
        ask_refused(fixture->client, "busy", "coherent.move", "{'alloc':%" PRIu64 ",'device':%" PRIu64 "}", shareable, disk);
        unmap(fixture, mapping);
        ask_refused(fixture->client, "unknown_handle", "coherent.move", "{'alloc':%" PRIu64 ",'device':%" PRIu64 "}",
                    private, theirs);
        ask_refused(stranger, "unknown_handle", "coherent.move", "{'alloc':%" PRIu64 ",'device':%" PRIu64 "}", private, theirs);
        ask_refused(fixture->client, "bad_param", "coherent.move",
                    "{'alloc':%" PRIu64 ",'device':%" PRIu64 ",'align':3}", private, disk);
        json_decref(ask(fixture->client, "coherent.free", "{'alloc':%" PRIu64 "}", private));
        test_client_close(stranger);
        ask_clean(fixture->client);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, ask_tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(test_a_second_device_reaches_what_is_shareable),
                T(test_what_is_private_stays_with_its_device),
                T(test_what_is_mapped_is_not_freed),
                T(test_a_mapping_is_unmapped_once),
                T(test_a_mapping_stays_within_its_allocation),
                T(test_a_device_cannot_map_what_it_cannot_reach),
                T(test_where_nothing_translates_there_is_no_choice_of_address),
                T(test_unknown_devices_and_allocations_are_told),
                T(test_a_device_with_mappings_is_not_closed),
                T(test_mappings_end_with_their_session),
                T(test_the_same_key_gives_the_same_mapping),
                T(test_a_strangers_allocation_cannot_be_mapped),
                T(test_mappings_are_listed_in_pages),
                T(test_what_a_device_cannot_reach_is_moved_to_it_with_its_contents),
                T(test_what_cannot_be_moved_is_refused_and_stays),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
