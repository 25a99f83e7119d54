/* Devices: whose DMA it is, which memory they can be given, what is theirs alone, what they leave behind. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/rpc/ask.h"

#define MIB (UINT64_C(1) << 20)
#define GIB4 (UINT64_C(1) << 32)

static const char config[] = "[daemon]\naccess = everyone\n[memory]\nregion_idle = 0\n"
                             "[device controller]\nmask = 0xffffffff\n"
                             "[device hub]\ndma = no\nparent = controller\n"
                             "[device orphan]\ndma = no\n"
                             "[device narrow]\nmask = 0xffffff\nboundary = 64K\nmax_segment = 128K\n";

struct fixture {
        struct test_daemon *daemon;
        struct test_client *client;
};

static int set_up(void **state) {
        struct fixture *fixture = calloc(1, sizeof(*fixture));

        fixture->daemon = ask_daemon(config);
        fixture->client = ask_connect(fixture->daemon, NULL);
        *state = fixture;
        return 0;
}

static int tear_down(void **state) {
        struct fixture *fixture = *state;
        int r;

        test_client_close(fixture->client);
        r = test_daemon_end(fixture->daemon);
        free(fixture);
        return r;
}

static const char *text(const json_t *object, const char *member) {
        return json_string_value(json_object_get(object, member));
}

static uint64_t alloc_at(struct test_client *client, uint64_t device, uint64_t size) {
        return ask_take_hex(ask(client, "coherent.alloc", "{'device':%" PRIu64 ",'size':%" PRIu64 "}", device, size),
                            "dma_addr");
}

/* ---- delegation ---- */

static void test_a_device_without_dma_uses_the_nearest_ancestor_that_has_it(void **state) {
        struct fixture *fixture = *state;
        json_t *stick = ask(fixture->client, "device.open", "{'name':'stick','parent':'hub'}");

        assert_string_equal(text(stick, "via"), "controller");
        assert_string_equal(text(stick, "parent"), "hub");
        assert_string_equal(text(stick, "translation"), "identity");
        assert_string_equal(text(stick, "mask"), "0xffffffff");
        assert_true(alloc_at(fixture->client, ask_take_number(stick, "device"), 4096) < GIB4);
}

static void test_a_device_of_its_own_is_its_own_way(void **state) {
        struct fixture *fixture = *state;
        json_t *card = ask(fixture->client, "device.open", "{'name':'card'}");

        assert_string_equal(text(card, "via"), "card");
        json_decref(card);
}

static void test_a_chain_without_dma_is_told(void **state) {
        struct fixture *fixture = *state;

        ask_refused(fixture->client, "unsupported", "device.open", "{'name':'orphan'}");
        ask_refused(fixture->client, "unknown_device", "device.open", "{'name':'stick','parent':'nobody'}");
}

static void test_a_pci_address_is_completed(void **state) {
        struct fixture *fixture = *state;
        json_t *card = ask(fixture->client, "device.open", "{'name':'1F:03.5'}");

        assert_string_equal(text(card, "via"), "0000:1f:03.5");
        json_decref(card);
}

static void test_the_configurations_limits_hold(void **state) {
        struct fixture *fixture = *state;
        uint64_t device = ask_device(fixture->client, "narrow");

        assert_true(alloc_at(fixture->client, device, 65536) < 16 * MIB);
        ask_refused(fixture->client, "boundary", "coherent.alloc", "{'device':%" PRIu64 ",'size':131072}", device);
}

/* ---- masks ---- */

static void test_wide_devices_are_served_from_high_memory(void **state) {
        struct fixture *fixture = *state;
        uint64_t wide = ask_device(fixture->client, "wide");
        uint64_t narrow = ask_number(fixture->client, "device", "device.open", "{'name':'n','mask':'0xffffffff'}");

        assert_true(alloc_at(fixture->client, wide, 65536) >= GIB4);
        assert_true(alloc_at(fixture->client, narrow, 65536) < GIB4);
}

static void test_a_mask_can_be_asked_about_and_changed(void **state) {
        struct fixture *fixture = *state;
        uint64_t device = ask_device(fixture->client, "card");
        json_t *answer = ask(fixture->client, "device.supported", "{'device':%" PRIu64 ",'mask':'0xffffffff'}", device);

        assert_true(json_is_true(json_object_get(answer, "supported")));
        json_decref(answer);
        answer = ask(fixture->client, "device.supported", "{'device':%" PRIu64 ",'mask':'0xffff'}", device);
        assert_true(json_is_false(json_object_get(answer, "supported")));
        json_decref(answer);
        answer = ask(fixture->client, "device.set_mask", "{'device':%" PRIu64 ",'mask':'0xffffff'}", device);
        assert_string_equal(text(answer, "coherent_mask"), "0xffffff");
        json_decref(answer);
        assert_true(alloc_at(fixture->client, device, 65536) < 16 * MIB);
}

/* ---- leaks ---- */

static void test_closing_tells_what_is_left_and_refuses(void **state) {
        struct fixture *fixture = *state;
        uint64_t device = ask_device(fixture->client, "card"), allocs[3];
        json_t *error, *leaked;

        for (size_t i = 0; i < 3; i++)
                allocs[i] = ask_alloc(fixture->client, device, 8192);
        error = ask_error(fixture->client, ask_send(fixture->client, "device.close", "{'device':%" PRIu64 "}", device));
        leaked = json_object_get(json_object_get(error, "data"), "leaked");
        assert_int_equal(json_array_size(leaked), 3);
        for (size_t i = 0; i < 3; i++)
                assert_int_equal(json_integer_value(json_object_get(json_array_get(leaked, i), "size")), 8192);
        ask_take_reason(error, "busy");
        json_decref(ask(fixture->client, "coherent.free", "{'alloc':%" PRIu64 "}", allocs[0]));
}

static void test_force_frees_what_is_left(void **state) {
        struct fixture *fixture = *state;
        uint64_t device = ask_device(fixture->client, "card"), alloc = ask_alloc(fixture->client, device, 8192);
        json_t *result = ask(fixture->client, "device.close", "{'device':%" PRIu64 ",'force':true}", device);

        assert_int_equal(json_array_size(json_object_get(result, "leaked")), 1);
        json_decref(result);
        ask_refused(fixture->client, "double_free", "coherent.free", "{'alloc':%" PRIu64 "}", alloc);
        result = ask(fixture->client, "device.list", "{}");
        assert_int_equal(json_array_size(json_object_get(result, "devices")), 0);
        json_decref(result);
}

static void test_a_long_list_comes_in_pages(void **state) {
        struct fixture *fixture = *state;
        uint64_t device = ask_device(fixture->client, "card"), after = 0, seen = 0;
        bool more = true;

        for (int i = 0; i < 25; i++)
                ask_alloc(fixture->client, device, 4096);
        while (more) {
                json_t *page = ask(fixture->client, "coherent.list", "{'limit':10,'after':%" PRIu64 "}", after), *alloc;
                size_t i;

                json_array_foreach(json_object_get(page, "allocs"), i, alloc) {
                        after = (uint64_t)json_integer_value(json_object_get(alloc, "alloc"));
                        seen++;
                }
                more = json_is_true(json_object_get(page, "more"));
                json_decref(page);
                assert_true(seen <= 25);
        }
        assert_int_equal(seen, 25);
}

/* ---- reserves ---- */

static void test_a_reserve_serves_its_device_alone(void **state) {
        struct fixture *fixture = *state;
        uint64_t device = ask_device(fixture->client, "card"), other = ask_device(fixture->client, "other");
        json_t *reserve = ask(fixture->client, "device.reserve", "{'device':%" PRIu64 ",'size':4194304}", device);
        uint64_t start = ask_take_hex(json_incref(reserve), "dma_addr"), size, addr;

        size = ask_take_number(reserve, "size");
        for (int i = 0; i < 8; i++) {
                addr = alloc_at(fixture->client, device, 65536);
                assert_true(addr >= start && addr + 65536 <= start + size);
                addr = alloc_at(fixture->client, other, 65536);
                assert_true(addr + 65536 <= start || addr >= start + size);
        }
        /* What does not fit is not taken from elsewhere. */
        ask_invalid(fixture->client, 12, "coherent.alloc", "{'device':%" PRIu64 ",'size':8388608}", device);
}

static void test_only_even_megabytes_of_a_reserve_are_used(void **state) {
        struct fixture *fixture = *state;
        uint64_t device = ask_device(fixture->client, "card");
        json_t *reserve = ask(fixture->client, "device.reserve",
                              "{'device':%" PRIu64 ",'size':8388608,'stride':2097152,'usable':1048576}", device);
        uint64_t start = ask_take_hex(json_incref(reserve), "dma_addr");

        assert_int_equal(ask_take_number(reserve, "usable_bytes"), 4 * MIB);
        assert_int_equal(start % (2 * MIB), 0);
        for (int i = 0; i < 16; i++)
                assert_true((alloc_at(fixture->client, device, 256 << 10) - start) % (2 * MIB) <= MIB - (256 << 10));
        ask_invalid(fixture->client, 12, "coherent.alloc", "{'device':%" PRIu64 ",'size':4096}", device);
}

static void test_a_reserve_in_use_cannot_be_given_back(void **state) {
        struct fixture *fixture = *state;
        uint64_t device = ask_device(fixture->client, "card"), other = ask_device(fixture->client, "other"), alloc;
        uint64_t region = ask_number(fixture->client, "region", "device.reserve", "{'device':%" PRIu64 ",'size':1048576}",
                                     device);

        alloc = ask_alloc(fixture->client, device, 4096);
        ask_refused(fixture->client, "busy", "device.unreserve", "{'device':%" PRIu64 ",'region':%" PRIu64 "}", device,
                    region);
        ask_refused(fixture->client, "wrong_device", "device.unreserve", "{'device':%" PRIu64 ",'region':%" PRIu64 "}",
                    other, region);
        json_decref(ask(fixture->client, "coherent.free", "{'alloc':%" PRIu64 "}", alloc));
        json_decref(ask(fixture->client, "device.unreserve", "{'device':%" PRIu64 ",'region':%" PRIu64 "}", device, region));
}

/* ---- memory that few can reach ---- */

static void test_many_wide_allocations_leave_a_narrow_device_its_memory(void **state) {
        struct test_daemon *running = ask_daemon("[daemon]\nsource = sim\n[source sim]\n"
                                                 "layout = 16M@0x10000000,48M@0xc0000000,64M@0x100000000\n");
        struct test_client *client = ask_connect(running, NULL);
        uint64_t wide = ask_device(client, "wide");
        uint64_t narrow = ask_number(client, "device", "device.open", "{'name':'narrow','mask':'0xffffffff'}");
        unsigned served = 0;

        for (int i = 0; i < 10000; i++) {
                json_t *answer;

                ask_send(client, "coherent.alloc", "{'device':%" PRIu64 ",'size':8192}", wide);
                answer = ask_read(client);
                served += json_object_get(answer, "result") != NULL;
                json_decref(answer);
        }
        /* 64 MiB above 4 GiB alone are 8192 of them. */
        assert_true(served >= 8000);
        assert_true(alloc_at(client, narrow, 16 * MIB) < GIB4);
        test_client_close(client);
        assert_int_equal(test_daemon_end(running), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(test_a_device_without_dma_uses_the_nearest_ancestor_that_has_it),
                T(test_a_device_of_its_own_is_its_own_way),
                T(test_a_chain_without_dma_is_told),
                T(test_a_pci_address_is_completed),
                T(test_the_configurations_limits_hold),
                T(test_wide_devices_are_served_from_high_memory),
                T(test_a_mask_can_be_asked_about_and_changed),
                T(test_closing_tells_what_is_left_and_refuses),
                T(test_force_frees_what_is_left),
                T(test_a_long_list_comes_in_pages),
                T(test_a_reserve_serves_its_device_alone),
                T(test_only_even_megabytes_of_a_reserve_are_used),
                T(test_a_reserve_in_use_cannot_be_given_back),
                cmocka_unit_test(test_many_wide_allocations_leave_a_narrow_device_its_memory),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
