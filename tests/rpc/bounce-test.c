/* Bounce pools by RPC alone: runs of slots, what is kept of an address, growth, waiting, and the checks of unmap and sync. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/rpc/ask.h"

#define KIB UINT64_C(1024)

static const char config[] = "[daemon]\naccess = everyone\ngrace = 0\n[memory]\nregion_idle = 0\nquarantine = 0\n"
                             "[device window]\nmin_align_mask = 0xfff\n[device short]\nmax_segment = 16K\n"
                             "[device narrow]\nmask = 0xffffffff\n";

static int set_up(void **state) {
        return ask_set_up(state, config);
}

static uint64_t make(struct ask_fixture *fixture, uint64_t size, const char *more) {
        return ask_number(fixture->client, "bounce", "bounce.create", "{'device':%" PRIu64 ",'size':%" PRIu64 "%s}",
                          fixture->device, size, more);
}

static json_t *map(struct ask_fixture *fixture, uint64_t bounce, uint64_t size, const char *more) {
        return ask(fixture->client, "bounce.map", "{'bounce':%" PRIu64 ",'size':%" PRIu64 ",'direction':'to_device'%s}", bounce,
                   size, more);
}

static uint64_t map_one(struct ask_fixture *fixture, uint64_t bounce, uint64_t size) {
        return ask_take_number(map(fixture, bounce, size, ""), "mapping");
}

static void unmap(struct test_client *client, uint64_t mapping) {
        json_decref(ask(client, "bounce.unmap", "{'mapping':%" PRIu64 "}", mapping));
}

static uint64_t stat(struct ask_fixture *fixture, uint64_t bounce, const char *member) {
        return ask_number(fixture->client, member, "bounce.stats", "{'bounce':%" PRIu64 "}", bounce);
}

/* ---- what it is made of ---- */

static void test_slots_are_2_kib_unless_said_otherwise(void **state) {
        struct ask_fixture *fixture = *state;
        json_t *bounce = ask(fixture->client, "bounce.create", "{'device':%" PRIu64 ",'size':1000000}", fixture->device);

        assert_int_equal(ask_peek_number(bounce, "slot_size"), 2048);
        assert_true(ask_peek_number(bounce, "size") >= 1000000);
        assert_int_equal(ask_peek_number(bounce, "slots"), ask_peek_number(bounce, "size") / 2048);
        assert_int_equal(ask_peek_number(bounce, "areas"), 1);
        assert_null(json_object_get(bounce, "max_size"));
        assert_string_equal(json_string_value(json_object_get(bounce, "addressing")), "simulated");
        json_decref(bounce);
        assert_int_equal(stat(fixture, make(fixture, 64 * KIB, ",'slot_size':4096"), "slots"), 16);
}

static void test_a_mapping_lies_in_memory_that_its_device_reaches(void **state) {
        struct ask_fixture *fixture = *state;
        json_t *mapping;

        fixture->device = ask_device(fixture->client, "narrow");
        mapping = map(fixture, make(fixture, 64 * KIB, ""), 5000, "");
        assert_true(ask_peek_hex(mapping, "dma_addr") + 5000 <= UINT64_C(1) << 32);
        assert_int_equal(ask_peek_number(mapping, "slots"), 3);
        assert_int_equal(ask_peek_number(mapping, "size"), 5000);
        json_decref(mapping);
}

static void test_the_client_can_see_what_it_copies_to(void **state) {
        struct ask_fixture *fixture = *state;
        json_t *mapping = map(fixture, make(fixture, 64 * KIB, ""), 5000, "");
        uint64_t region = ask_peek_number(mapping, "region"), offset = ask_peek_number(mapping, "offset"), size;
        unsigned char *memory;
        int fd;

        json_decref(mapping);
        size = ask_number(fixture->client, "size", "region.get", "{'region':%" PRIu64 "}", region);
        fd = test_client_take_fd(fixture->client);
        assert_true(fd >= 0);
        memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        assert_true(memory != MAP_FAILED);
        close(fd);
        assert_true(offset + 5000 <= size);
        memset(memory + offset, 0x5a, 5000);
        munmap(memory, size);
}

static void test_mappings_never_overlap(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t bounce = make(fixture, 1024 * KIB, ""), addrs[100], sizes[100];

        for (uint64_t i = 0; i < 100; i++) {
                sizes[i] = 1 + i * 61;
                addrs[i] = ask_take_hex(map(fixture, bounce, sizes[i], ""), "dma_addr");
                for (uint64_t j = 0; j < i; j++)
                        assert_true(addrs[i] + sizes[i] <= addrs[j] || addrs[j] + sizes[j] <= addrs[i]);
        }
        ask_clean(fixture->client);
}

static void test_the_offset_within_the_devices_window_is_kept(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t bounce;
        json_t *mapping;

        fixture->device = ask_device(fixture->client, "window");
        bounce = make(fixture, 256 * KIB, "");
        assert_int_equal(stat(fixture, bounce, "slot_size"), 4096);
        mapping = map(fixture, bounce, 4096, ",'align_offset':139637976803851");
        assert_int_equal(ask_peek_hex(mapping, "dma_addr") & 0xfff, UINT64_C(139637976803851) & 0xfff);
        assert_int_equal(ask_peek_number(mapping, "slots"), 2);
        assert_int_equal(ask_peek_number(mapping, "offset") & 0xfff, UINT64_C(139637976803851) & 0xfff);
        json_decref(mapping);
        ask_clean(fixture->client);
}

/* ---- full ---- */

static void test_a_full_pool_answers_with_its_numbers(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t bounce = make(fixture, 64 * KIB, ""), mappings[32];
        json_t *error, *data;

        for (int i = 0; i < 32; i++)
                mappings[i] = map_one(fixture, bounce, 2048);
        error = ask_error(fixture->client, ask_send(fixture->client, "bounce.map", "{'bounce':%" PRIu64
                                                    ",'size':5000,'direction':'to_device','wait_ms':0}", bounce));
        data = json_object_get(error, "data");
        assert_int_equal(ask_peek_number(data, "asked"), 3);
        assert_int_equal(ask_peek_number(data, "in_use"), 32);
        assert_int_equal(ask_peek_number(data, "largest_free"), 0);
        ask_take_reason(error, "no_memory");
        for (int i = 0; i < 32; i += 2)
                unmap(fixture->client, mappings[i]);
        error = ask_error(fixture->client, ask_send(fixture->client, "bounce.map", "{'bounce':%" PRIu64
                                                    ",'size':5000,'direction':'to_device','wait_ms':0}", bounce));
        assert_int_equal(ask_peek_number(json_object_get(error, "data"), "largest_free"), 1);
        ask_take_reason(error, "no_contiguous");
        assert_int_equal(stat(fixture, bounce, "fulls"), 2);
        assert_int_equal(stat(fixture, bounce, "high_water"), 32);
        ask_clean(fixture->client);
}

static void test_what_can_never_fit_is_a_limit(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t bounce = make(fixture, 64 * KIB, "");

        ask_refused(fixture->client, "limit", "bounce.map",
                    "{'bounce':%" PRIu64 ",'size':65537,'direction':'to_device','wait_ms':60000}", bounce);
        fixture->device = ask_device(fixture->client, "short");
        bounce = make(fixture, 64 * KIB, "");
        ask_refused(fixture->client, "limit", "bounce.map", "{'bounce':%" PRIu64 ",'size':16385,'direction':'to_device'}",
                    bounce);
        map_one(fixture, bounce, 16384);
}

static void test_a_pool_grows_up_to_its_limit(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t bounce = make(fixture, 64 * KIB, ",'max_size':131072");

        for (int i = 0; i < 4; i++)
                map_one(fixture, bounce, 32 * KIB);
        assert_int_equal(stat(fixture, bounce, "size"), 128 * KIB);
        assert_true(stat(fixture, bounce, "grows") >= 1);
        assert_true(stat(fixture, bounce, "parts") >= 2);
        ask_refused(fixture->client, "no_memory", "bounce.map",
                    "{'bounce':%" PRIu64 ",'size':2048,'direction':'to_device','wait_ms':0}", bounce);
        ask_clean(fixture->client);
}

static void test_calls_that_wait_are_served_in_order(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t bounce = make(fixture, 4 * KIB, ",'slot_size':4096"), mapping = map_one(fixture, bounce, 4096);
        int waiting[20];

        for (int i = 0; i < 20; i++)
                waiting[i] = ask_send(fixture->client, "bounce.map", "{'bounce':%" PRIu64
                                      ",'size':4096,'direction':'from_device','wait_ms':60000}", bounce);
        ask_until_waiting(fixture->other, 20);
        for (int i = 0; i < 20; i++) {
                unmap(fixture->other, mapping);
                mapping = ask_take_number(ask_result(fixture->client, waiting[i]), "mapping");
        }
        assert_int_equal(stat(fixture, bounce, "waits"), 20);
        ask_clean(fixture->client);
}

static void test_a_call_that_waits_is_told_when_its_time_is_over(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t bounce = make(fixture, 4 * KIB, ",'slot_size':4096");

        map_one(fixture, bounce, 4096);
        ask_refused(fixture->client, "timeout", "bounce.map",
                    "{'bounce':%" PRIu64 ",'size':1,'direction':'to_device','wait_ms':30}", bounce);
        assert_int_equal(stat(fixture, bounce, "timeouts"), 1);
        assert_int_equal(stat(fixture, bounce, "waiters"), 0);
}

/* ---- unmap and sync ---- */

static void test_unmap_checks_what_it_is_told(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t mapping = map_one(fixture, make(fixture, 64 * KIB, ""), 5000);

        ask_refused(fixture->client, "wrong_size", "bounce.unmap", "{'mapping':%" PRIu64 ",'size':4999}", mapping);
        ask_refused(fixture->client, "wrong_direction", "bounce.unmap", "{'mapping':%" PRIu64 ",'direction':'from_device'}",
                    mapping);
        ask_refused(fixture->client, "bad_address", "bounce.unmap", "{'mapping':%" PRIu64 ",'offset':2048}", mapping);
        ask_invalid(fixture->client, -32602, "bounce.unmap", "{'mapping':%" PRIu64 ",'size':0}", mapping);
        ask_invalid(fixture->client, -32602, "bounce.unmap", "{'mapping':%" PRIu64 ",'direction':'sideways'}", mapping);
        json_decref(ask(fixture->client, "bounce.unmap",
                        "{'mapping':%" PRIu64 ",'offset':0,'size':5000,'direction':'to_device'}", mapping));
        ask_refused(fixture->client, "double_free", "bounce.unmap", "{'mapping':%" PRIu64 "}", mapping);
        ask_refused(fixture->client, "double_free", "bounce.sync", "{'mapping':%" PRIu64 "}", mapping);
        ask_refused(fixture->client, "unknown_handle", "bounce.unmap", "{'mapping':4711}");
        ask_clean(fixture->client);
}

static void test_sync_stays_within_the_mapping(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t bounce = make(fixture, 64 * KIB, ""), mapping = map_one(fixture, bounce, 5000);

        json_decref(ask(fixture->client, "bounce.sync", "{'mapping':%" PRIu64 "}", mapping));
        json_decref(ask(fixture->client, "bounce.sync", "{'mapping':%" PRIu64 ",'offset':4999,'size':1}", mapping));
        ask_refused(fixture->client, "bad_address", "bounce.sync", "{'mapping':%" PRIu64 ",'offset':4999,'size':2}", mapping);
        ask_refused(fixture->client, "bad_address", "bounce.sync", "{'mapping':%" PRIu64 ",'offset':5001}", mapping);
        ask_refused(fixture->client, "bad_address", "bounce.sync",
                    "{'mapping':%" PRIu64 ",'offset':9007199254740991,'size':9007199254740991}", mapping);
        assert_int_equal(stat(fixture, bounce, "syncs"), 2);
}

static void test_sync_goes_the_mappings_way(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t bounce = make(fixture, 64 * KIB, ""), to = map_one(fixture, bounce, 100), from, both;

        from = ask_number(fixture->client, "mapping", "bounce.map",
                          "{'bounce':%" PRIu64 ",'size':1,'direction':'from_device'}", bounce);
        both = ask_number(fixture->client, "mapping", "bounce.map",
                          "{'bounce':%" PRIu64 ",'size':1,'direction':'bidirectional'}", bounce);
        ask_refused(fixture->client, "wrong_direction", "bounce.sync", "{'mapping':%" PRIu64 ",'for':'cpu'}", to);
        ask_refused(fixture->client, "wrong_direction", "bounce.sync", "{'mapping':%" PRIu64 ",'for':'device'}", from);
        ask_refused(fixture->client, "wrong_direction", "bounce.sync", "{'mapping':%" PRIu64 ",'direction':'from_device'}", to);
        json_decref(ask(fixture->client, "bounce.sync", "{'mapping':%" PRIu64 ",'for':'device'}", to));
        json_decref(ask(fixture->client, "bounce.sync", "{'mapping':%" PRIu64 ",'for':'cpu'}", from));
        json_decref(ask(fixture->client, "bounce.sync", "{'mapping':%" PRIu64 ",'for':'cpu'}", both));
        json_decref(ask(fixture->client, "bounce.sync", "{'mapping':%" PRIu64 ",'for':'device'}", both));
}

static void test_a_bounce_pool_of_an_impossible_shape_is_refused(void **state) {
        struct ask_fixture *fixture = *state;
        char *before = ask_books(fixture->client), *after;

        ask_invalid(fixture->client, -32602, "bounce.create", "{'device':%" PRIu64 ",'size':0}", fixture->device);
        ask_refused(fixture->client, "bad_param", "bounce.create", "{'device':%" PRIu64 ",'size':65536,'slot_size':3000}",
                    fixture->device);
        ask_refused(fixture->client, "bad_param", "bounce.create", "{'device':%" PRIu64 ",'size':65536,'max_size':4096}",
                    fixture->device);
        ask_invalid(fixture->client, -32602, "bounce.create", "{'device':%" PRIu64 ",'size':65536,'areas':0}",
                    fixture->device);
        ask_invalid(fixture->client, 12, "bounce.create", "{'device':%" PRIu64 ",'size':1073741824,'wait_ms':0}",
                    fixture->device);
        ask_refused(fixture->client, "unknown_handle", "bounce.create", "{'device':4711,'size':65536}");
        after = ask_books(fixture->client);
        assert_string_equal(before, after);
        free(before);
        free(after);
        ask_invalid(fixture->client, -32602, "bounce.map", "{'bounce':%" PRIu64 ",'size':0,'direction':'to_device'}",
                    make(fixture, 65536, ""));
        ask_refused(fixture->client, "unknown_handle", "bounce.map", "{'bounce':4711,'size':1,'direction':'to_device'}");
        ask_refused(fixture->client, "unknown_handle", "bounce.lease", "{'bounce':4711}");
        ask_clean(fixture->client);
}

/* ---- leases ---- */

static void test_a_lease_takes_an_area_unless_told_otherwise(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t bounce = make(fixture, 256 * KIB, ",'areas':4"), leases[4];
        json_t *lease;

        for (int i = 0; i < 4; i++) {
                lease = ask(fixture->client, "bounce.lease", "{'bounce':%" PRIu64 "}", bounce);
                assert_int_equal(ask_peek_number(lease, "slots"), 32);
                assert_int_equal(ask_peek_number(lease, "slot_size"), 2048);
                leases[i] = ask_take_number(lease, "lease");
        }
        assert_int_equal(stat(fixture, bounce, "leased"), 128);
        for (int i = 0; i < 4; i++)
                json_decref(ask(fixture->client, "bounce.return", "{'lease':%" PRIu64 "}", leases[i]));
        assert_int_equal(stat(fixture, bounce, "leased"), 0);
        assert_int_equal(stat(fixture, bounce, "largest_free"), 128);
        lease = ask(fixture->client, "bounce.lease", "{'bounce':%" PRIu64 ",'slots':7}", bounce);
        assert_int_equal(ask_take_number(lease, "slots"), 7);
        ask_clean(fixture->client);
}

/* ---- the end ---- */

static void test_a_busy_bounce_pool_tells_what_is_left(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t bounce = make(fixture, 256 * KIB, ""), mapping = map_one(fixture, bounce, 5000), lease;
        json_t *error, *busy, *row;
        unsigned seen = 0;
        size_t i;

        lease = ask_number(fixture->client, "lease", "bounce.lease", "{'bounce':%" PRIu64 ",'slots':4}", bounce);
        error = ask_error(fixture->client, ask_send(fixture->client, "bounce.destroy", "{'bounce':%" PRIu64 "}", bounce));
        busy = json_object_get(json_object_get(error, "data"), "busy");
        json_array_foreach(busy, i, row) {
                if (json_object_get(row, "lease"))
                        seen |= (ask_peek_number(row, "lease") == lease && ask_peek_number(row, "slots") == 4) << 0;
                else
                        seen |= (ask_peek_number(row, "mapping") == mapping && ask_peek_number(row, "slots") == 3) << 1;
        }
        assert_int_equal(i, 2);
        assert_int_equal(seen, 3);
        ask_take_reason(error, "busy");
        error = ask(fixture->client, "bounce.destroy", "{'bounce':%" PRIu64 ",'force':true}", bounce);
        assert_int_equal(json_array_size(json_object_get(error, "busy")), 2);
        json_decref(error);
        ask_refused(fixture->client, "double_free", "bounce.unmap", "{'mapping':%" PRIu64 "}", mapping);
        ask_refused(fixture->client, "unknown_handle", "bounce.stats", "{'bounce':%" PRIu64 "}", bounce);
        ask_clean(fixture->client);
}

static void test_a_device_with_a_bounce_pool_is_not_closed(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t bounce = make(fixture, 64 * KIB, ""), mapping = map_one(fixture, bounce, 5000), seen = 0;
        json_t *error, *leak;
        size_t i;

        error = ask_error(fixture->client,
                          ask_send(fixture->client, "device.close", "{'device':%" PRIu64 "}", fixture->device));
        json_array_foreach(json_object_get(json_object_get(error, "data"), "leaked"), i, leak) {
                assert_int_equal(ask_peek_number(leak, "bounce"), bounce);
                assert_null(json_object_get(leak, "alloc"));
                if (json_object_get(leak, "mapping"))
                        seen += ask_peek_number(leak, "mapping") == mapping && ask_peek_number(leak, "size") == 5000;
        }
        assert_int_equal(i, 2);
        assert_int_equal(seen, 1);
        ask_take_reason(error, "busy");
        json_decref(ask(fixture->client, "device.close", "{'device':%" PRIu64 ",'force':true}", fixture->device));
        ask_clean(fixture->client);
}

static void test_everything_comes_back_from_a_client_that_vanishes(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t bounce = make(fixture, 64 * KIB, "");

        for (int i = 0; i < 20; i++) {
                struct test_client *doomed = ask_connect(fixture->daemon, NULL);

                json_decref(ask(doomed, "bounce.map", "{'bounce':%" PRIu64 ",'size':30000,'direction':'to_device'}", bounce));
                json_decref(ask(doomed, "bounce.lease", "{'bounce':%" PRIu64 ",'slots':17}", bounce));
                assert_int_equal(stat(fixture, bounce, "free"), 0);
                test_client_close(doomed);
                ask_until(stat(fixture, bounce, "free") == 32);
        }
        ask_clean(fixture->client);
}

/* ---- asking again, limits, strangers ---- */

static void test_the_same_key_gives_the_same_mapping(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t bounce = make(fixture, 64 * KIB, ",'request_key':'b'"), mapping, lease;

        assert_int_equal(make(fixture, 64 * KIB, ",'request_key':'b'"), bounce);
        mapping = ask_take_number(map(fixture, bounce, 100, ",'request_key':'m'"), "mapping");
        assert_int_equal(ask_take_number(map(fixture, bounce, 100, ",'request_key':'m'"), "mapping"), mapping);
        ask_refused(fixture->client, "bad_param", "bounce.map",
                    "{'bounce':%" PRIu64 ",'size':101,'direction':'to_device','request_key':'m'}", bounce);
        lease = ask_number(fixture->client, "lease", "bounce.lease", "{'bounce':%" PRIu64 ",'slots':2,'request_key':'l'}",
                           bounce);
        assert_int_equal(ask_number(fixture->client, "lease", "bounce.lease",
                                    "{'bounce':%" PRIu64 ",'slots':2,'request_key':'l'}", bounce), lease);
        assert_int_equal(stat(fixture, bounce, "used"), 1);
        assert_int_equal(stat(fixture, bounce, "leased"), 2);
        unmap(fixture->client, mapping);
        assert_int_not_equal(ask_take_number(map(fixture, bounce, 100, ",'request_key':'m'"), "mapping"), mapping);
}

static void test_the_quota_counts_mappings_and_leases(void **state) {
        struct ask_fixture *fixture = *state;
        struct test_client *client = ask_connect_as(fixture->daemon, 12345);
        uint64_t bounce = ask_number(client, "bounce", "bounce.create", "{'device':%" PRIu64 ",'size':65536}",
                                     ask_device(client, "card"));

        json_decref(ask(fixture->client, "quota.set", "{'owner':'user:12345','limits':{'mappings':1,'leases':1}}"));
        json_decref(ask(client, "bounce.map", "{'bounce':%" PRIu64 ",'size':1,'direction':'to_device'}", bounce));
        ask_refused(client, "quota", "bounce.map", "{'bounce':%" PRIu64 ",'size':1,'direction':'to_device'}", bounce);
        json_decref(ask(client, "bounce.lease", "{'bounce':%" PRIu64 ",'slots':1}", bounce));
        ask_refused(client, "quota", "bounce.lease", "{'bounce':%" PRIu64 ",'slots':1}", bounce);
        test_client_close(client);
}

static void test_a_strangers_bounce_pool_is_answered_like_none(void **state) {
        struct ask_fixture *fixture = *state;
        struct test_client *client = ask_connect_as(fixture->daemon, 12345);
        struct test_client *stranger = ask_connect_as(fixture->daemon, 12346);
        uint64_t bounce, mapping, lease;
        json_t *result;

        bounce = ask_number(client, "bounce", "bounce.create", "{'device':%" PRIu64 ",'size':65536}",
                            ask_device(client, "card"));
        mapping = ask_number(client, "mapping", "bounce.map", "{'bounce':%" PRIu64 ",'size':1,'direction':'to_device'}",
                             bounce);
        lease = ask_number(client, "lease", "bounce.lease", "{'bounce':%" PRIu64 ",'slots':1}", bounce);
        ask_refused(stranger, "unknown_handle", "bounce.map", "{'bounce':%" PRIu64 ",'size':1,'direction':'to_device'}", bounce);
        ask_refused(stranger, "unknown_handle", "bounce.lease", "{'bounce':%" PRIu64 "}", bounce);
        ask_refused(stranger, "unknown_handle", "bounce.stats", "{'bounce':%" PRIu64 "}", bounce);
        ask_refused(stranger, "unknown_handle", "bounce.destroy", "{'bounce':%" PRIu64 ",'force':true}", bounce);
        ask_refused(stranger, "unknown_handle", "bounce.unmap", "{'mapping':%" PRIu64 "}", mapping);
        ask_refused(stranger, "unknown_handle", "bounce.sync", "{'mapping':%" PRIu64 "}", mapping);
        ask_refused(stranger, "unknown_handle", "mapping.unmap", "{'mapping':%" PRIu64 "}", mapping);
        ask_refused(stranger, "unknown_handle", "bounce.return", "{'lease':%" PRIu64 "}", lease);
        result = ask(stranger, "bounce.list", "{}");
        assert_int_equal(json_array_size(json_object_get(result, "bounces")), 0);
        json_decref(result);
        result = ask(client, "bounce.list", "{}");
        assert_int_equal(json_array_size(json_object_get(result, "bounces")), 1);
        json_decref(result);
        test_client_close(client);
        test_client_close(stranger);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, ask_tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(test_slots_are_2_kib_unless_said_otherwise),
                T(test_a_mapping_lies_in_memory_that_its_device_reaches),
                T(test_the_client_can_see_what_it_copies_to),
                T(test_mappings_never_overlap),
                T(test_the_offset_within_the_devices_window_is_kept),
                T(test_a_full_pool_answers_with_its_numbers),
                T(test_what_can_never_fit_is_a_limit),
                T(test_a_pool_grows_up_to_its_limit),
                T(test_calls_that_wait_are_served_in_order),
                T(test_a_call_that_waits_is_told_when_its_time_is_over),
                T(test_unmap_checks_what_it_is_told),
                T(test_sync_stays_within_the_mapping),
                T(test_sync_goes_the_mappings_way),
                T(test_a_bounce_pool_of_an_impossible_shape_is_refused),
                T(test_a_lease_takes_an_area_unless_told_otherwise),
                T(test_a_busy_bounce_pool_tells_what_is_left),
                T(test_a_device_with_a_bounce_pool_is_not_closed),
                T(test_everything_comes_back_from_a_client_that_vanishes),
                T(test_the_same_key_gives_the_same_mapping),
                T(test_the_quota_counts_mappings_and_leases),
                T(test_a_strangers_bounce_pool_is_answered_like_none),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
