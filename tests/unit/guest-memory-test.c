/* What guests have: memory in windows of their own and nowhere else, by the addresses at which they see it. */
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "daemon/guest/place.h"
#include "daemon/iommu/none.h"
#include "daemon/source/sources.h"
#include "tests/unit/core-fixture.h"

#define GUEST "kvm:1b4e28ba-2fa1-11d2-883f-0016d3cca427"
#define XEN_GUEST "xen:1b4e28ba-2fa1-11d2-883f-0016d3cca427"
#define SEEN UINT64_C(0x800000000)

enum { WINDOW = 1 << 20, COOKIE = 4096 };

struct scene {
        struct fixture f;
        struct caller tracker, guest; /* two sessions of the guest's */
        uint64_t commons, device, window, addr;
};

static uint64_t reserve(struct scene *s, uint64_t size) {
        const struct reserve_request request = { .device = s->commons, .size = size, .usable = size - COOKIE };
        struct answer reserved = {};

        device_reserve(&s->tracker, &request, answer, &reserved);
        fixture_settle(&s->f);
        return answer_handle(&reserved);
}

static uint64_t add_window(struct scene *s, uint64_t size) {
        uint64_t window = reserve(s, size);
        struct region_view view;

        assert_int_equal(region_get(&s->tracker, window, &view, NULL), 0);
        assert_int_equal(place_add(view.machine_addr, view.size), 0);
        s->addr = view.machine_addr;
        return window;
}

static void describe(struct source *source, struct source_info *ret) {
        source_sim_ops.describe(source, ret);
        ret->flags |= SOURCE_GUESTS;
}

static void begin_with(struct scene *s, const char *owner, bool is_granted) {
        static const struct translator_ops *const translators[] = { &translator_guest_ops, &translator_grant_ops,
                                                                      &translator_identity_ops, NULL };
        static struct source_ops granting;
        struct broker_options options;

        broker_options_default(&options);
        options.translators = translators;
        fixture_start(&s->f, "64M@0x200000000", &options);
        granting = source_sim_ops;
        granting.describe = describe;
        if (is_granted)
                s->f.source->ops = &granting;
        fixture_source(&s->f);
        s->tracker = fixture_session(&s->f, owner);
        s->guest = fixture_session(&s->f, owner);
        s->commons = fixture_open(&s->tracker, &(struct device_options){ .name = "windows", .node = -1, .commons = true });
        s->device = fixture_open(&s->guest, &(struct device_options){ .name = "card", .node = -1 });
}

static void begin(struct scene *s) {
        begin_with(s, GUEST, false);
}

static void begin_granted(struct scene *s) {
        begin_with(s, XEN_GUEST, true);
        s->window = add_window(s, WINDOW);
}

static void begin_with_window(struct scene *s) {
        begin(s);
        s->window = add_window(s, WINDOW);
        place_bind(s->addr, SEEN);
}

static void end(struct scene *s) {
        struct failure failure = {};

        session_close(s->guest.session);
        if (s->window)
                assert_int_equal(device_unreserve(&s->tracker, s->commons, s->window, &failure), 0);
        place_remove(s->addr);
        session_close(s->tracker.session);
        fixture_stop(&s->f);
}

static void test_a_device_of_a_guest_gets_memory_of_its_window_by_the_guests_addresses(void **state) {
        struct alloc_view view;
        struct device_view device;
        struct scene s = {};

        begin_with_window(&s);
        view = fixture_alloc(&s.f, &s.guest, &(struct alloc_request){ .device = s.device, .size = 64 * KIB });
        assert_int_equal(view.region, s.window);
        assert_int_equal(view.dma_addr, SEEN + view.offset);
        assert_int_equal(view.machine_addr, s.addr + view.offset);
        assert_int_equal(device_get(&s.guest, s.device, &device, NULL), 0);
        assert_string_equal(device.translation, "guest");
        end(&s);
}

static void test_a_guest_without_a_window_gets_nothing_of_the_host(void **state) {
        struct answer got = {};
        struct scene s = {};

        begin(&s);
        coherent_alloc(&s.guest, &(struct alloc_request){ .device = s.device, .size = 4096 }, answer, &got);
        fixture_settle(&s.f);
        require_refused(&got, REASON_no_memory);
        assert_int_equal(fixture_usage(&s.guest, QUOTA_held_bytes), 0);
        end(&s);
}

static void test_a_guest_gets_no_more_than_its_windows_and_not_their_last_page(void **state) {
        const struct alloc_request most = { .size = WINDOW - COOKIE }, more = { .size = WINDOW };
        struct alloc_request request;
        struct answer got = {};
        struct scene s = {};

        begin_with_window(&s);
        request = more;
        request.device = s.device;
        coherent_alloc(&s.guest, &request, answer, &got);
        fixture_settle(&s.f);
        assert_true(got.given && got.failure.error);
        request = most;
        request.device = s.device;
        fixture_alloc(&s.f, &s.guest, &request);
        got = (struct answer){};
        coherent_alloc(&s.guest, &(struct alloc_request){ .device = s.device, .size = 4096 }, answer, &got);
        fixture_settle(&s.f);
        require_refused(&got, REASON_no_memory);
        end(&s);
}

static void test_what_waits_is_served_when_another_window_comes(void **state) {
        struct failure failure = {};
        struct answer got = {};
        struct scene s = {};
        uint64_t other, first;

        begin_with_window(&s);
        first = s.addr;
        coherent_alloc(&s.guest, &(struct alloc_request){ .device = s.device, .size = 2 * MIB, .wait_ms = 1000 }, answer, &got);
        fixture_settle(&s.f);
        /* Larger than everything it has: it is told at once. */
        require_refused(&got, REASON_no_memory);
        fixture_alloc(&s.f, &s.guest, &(struct alloc_request){ .device = s.device, .size = WINDOW / 2 });
        got = (struct answer){};
        coherent_alloc(&s.guest, &(struct alloc_request){ .device = s.device, .size = WINDOW / 2, .wait_ms = 1000 }, answer,
                       &got);
        fixture_settle(&s.f);
        assert_false(got.given);
        other = reserve(&s, WINDOW);
        fixture_settle(&s.f);
        /* There it is not seen yet. */
        require_refused(&got, REASON_source_unavailable);
        assert_int_equal(device_unreserve(&s.tracker, s.commons, other, &failure), 0);
        s.addr = first;
        end(&s);
}

static void test_a_window_that_is_not_bound_says_so(void **state) {
        struct answer got = {};
        struct scene s = {};

        begin_with_window(&s);
        place_unbind(s.addr);
        coherent_alloc(&s.guest, &(struct alloc_request){ .device = s.device, .size = 4096 }, answer, &got);
        fixture_settle(&s.f);
        require_refused(&got, REASON_source_unavailable);
        assert_int_equal(failure_number(&got.failure, "unbound"), 1);
        place_bind(s.addr, SEEN);
        fixture_alloc(&s.f, &s.guest, &(struct alloc_request){ .device = s.device, .size = 4096 });
        end(&s);
}

static void test_a_mask_is_that_of_the_guests_addresses(void **state) {
        struct answer got = {};
        struct scene s = {};

        begin_with_window(&s);
        coherent_alloc(&s.guest, &(struct alloc_request){ .device = s.device, .size = 4096, .mask = MASK32 }, answer, &got);
        fixture_settle(&s.f);
        require_refused(&got, REASON_mask);
        place_bind(s.addr, UINT64_C(0xc0000000));
        assert_int_equal(fixture_alloc(&s.f, &s.guest, &(struct alloc_request){ .device = s.device, .size = 4096,
                                                                               .mask = MASK32 }).dma_addr >> 20, 0xc00);
        end(&s);
}

static void test_a_guest_reserves_nothing_of_the_host(void **state) {
        struct answer got = {};
        struct scene s = {};

        begin_with_window(&s);
        device_reserve(&s.guest, &(struct reserve_request){ .device = s.device, .size = MIB }, answer, &got);
        fixture_settle(&s.f);
        require_refused(&got, REASON_unsupported);
        end(&s);
}

static void test_a_window_with_allocations_stays(void **state) {
        struct failure failure = {};
        struct scene s = {};
        struct alloc_view view;

        begin_with_window(&s);
        view = fixture_alloc(&s.f, &s.guest, &(struct alloc_request){ .device = s.device, .size = 4096 });
        assert_true(device_unreserve(&s.tracker, s.commons, s.window, &failure) < 0);
        require_failure(&failure, REASON_busy);
        assert_true(device_close(&s.tracker, s.commons, false, NULL, NULL, &failure) < 0);
        require_failure(&failure, REASON_busy);
        assert_int_equal(coherent_free(&s.guest, view.handle, &failure), 0);
        end(&s);
}

static void test_windows_that_are_closed_by_force_are_there_until_they_are_empty(void **state) {
        struct failure failure = {};
        struct scene s = {};
        struct alloc_view view;

        begin_with_window(&s);
        view = fixture_alloc(&s.f, &s.guest, &(struct alloc_request){ .device = s.device, .size = 4096 });
        session_close(s.tracker.session);
        fixture_settle(&s.f);
        assert_int_equal(fixture_source(&s.f).in_regions, WINDOW);
        assert_int_equal(coherent_free(&s.guest, view.handle, &failure), 0);
        fixture_settle(&s.f);
        assert_int_equal(fixture_source(&s.f).in_regions, 0);
        s.tracker = fixture_session(&s.f, GUEST);
        s.window = 0;
        end(&s);
}

static void test_pools_and_bounce_pools_lie_in_windows(void **state) {
        struct answer pool = {}, bounce = {};
        struct scene s = {};

        begin_with_window(&s);
        pool_create(&s.guest, &(struct pool_options){ .name = "ring", .device = s.device, .size = 64, .reserve = 100 }, answer,
                    &pool);
        bounce_create(&s.guest, &(struct bounce_options){ .device = s.device, .size = 128 * KIB }, answer, &bounce);
        fixture_settle(&s.f);
        answer_handle(&pool);
        answer_handle(&bounce);
        assert_int_equal(fixture_source(&s.f).in_regions, WINDOW);
        end(&s);
}

static void test_others_get_nothing_of_a_window(void **state) {
        struct scene s = {};
        struct alloc_view view;
        uint64_t device;

        begin_with_window(&s);
        device = fixture_open(&s.f.caller, &(struct device_options){ .name = "card", .node = -1 });
        view = fixture_alloc(&s.f, &s.f.caller, &(struct alloc_request){ .device = device, .size = 4096 });
        assert_int_not_equal(view.region, s.window);
        assert_int_equal(view.dma_addr, view.machine_addr);
        end(&s);
}

static size_t n_users(const struct scene *s) {
        size_t n = 77;

        assert_int_equal(region_find_users(&s->tracker, s->window, &n, NULL), 0);
        return n;
}

static void test_those_who_have_something_in_a_window_are_known(void **state) {
        struct scene s = {};
        struct caller idle, maker;
        struct alloc_view view;
        struct failure failure = {};
        size_t n;

        begin_with_window(&s);
        idle = fixture_session(&s.f, GUEST);
        maker = fixture_session(&s.f, GUEST);
        fixture_open(&idle, &(struct device_options){ .name = "nic", .node = -1 });
        assert_int_equal(n_users(&s), 0);
        /* On another one's device, with which it goes. */
        view = fixture_alloc(&s.f, &maker, &(struct alloc_request){ .device = s.device, .size = 4096 });
        assert_int_equal(n_users(&s), 2);
        assert_true(session_is_user(maker.session));
        assert_true(session_is_user(s.guest.session));
        assert_false(session_is_user(idle.session));
        assert_false(session_is_user(s.tracker.session));
        assert_int_equal(coherent_free(&maker, view.handle, NULL), 0);
        assert_int_equal(n_users(&s), 0);
        assert_false(session_is_user(maker.session));
        /* The device need not go for what outlives it. */
        fixture_alloc(&s.f, &maker, &(struct alloc_request){ .device = s.device, .size = 4096, .owner_lifetime = true });
        assert_int_equal(n_users(&s), 1);
        assert_true(session_is_user(maker.session));
        session_close(maker.session);
        assert_int_equal(n_users(&s), 0);
        assert_int_equal(region_find_users(&s.tracker, 4711, &n, &failure), -reason_errno(REASON_unknown_handle));
        assert_int_equal(device_close(&s.guest, s.device, true, NULL, NULL, NULL), 0);
        session_close(idle.session);
        end(&s);
}

static void test_so_are_those_who_have_something_of_a_pool_there(void **state) {
        struct answer pool = {}, leased = {};
        struct scene s = {};
        struct caller tenant, idle;

        begin_with_window(&s);
        tenant = fixture_session(&s.f, GUEST);
        idle = fixture_session(&s.f, GUEST);
        pool_create(&s.guest, &(struct pool_options){ .name = "ring", .device = s.device, .size = 64, .reserve = 100 }, answer,
                    &pool);
        fixture_settle(&s.f);
        assert_int_equal(n_users(&s), 1);
        pool_lease(&tenant, &(struct pool_request){ .pool = answer_handle(&pool), .count = 8 }, answer, &leased);
        fixture_settle(&s.f);
        answer_handle(&leased);
        assert_int_equal(n_users(&s), 2);
        assert_true(session_is_user(tenant.session));
        assert_true(session_is_user(s.guest.session));
        session_close(tenant.session);
        assert_int_equal(n_users(&s), 1);
        session_close(idle.session);
        end(&s);
}

/* ---- of Xen's ---- */

static void test_a_device_by_name_of_a_granted_guest_has_machine_addresses_wherever_that_sees_them(void **state) {
        struct device_view device;
        struct alloc_view view;
        struct scene s = {};

        begin_granted(&s);
        view = fixture_alloc(&s.f, &s.guest, &(struct alloc_request){ .device = s.device, .size = 4096 });
        assert_int_equal(view.dma_addr, s.addr + view.offset);
        place_bind(s.addr, SEEN);
        view = fixture_alloc(&s.f, &s.guest, &(struct alloc_request){ .device = s.device, .size = 4096 });
        assert_int_equal(view.dma_addr, s.addr + view.offset);
        assert_int_equal(device_get(&s.guest, s.device, &device, NULL), 0);
        assert_string_equal(device.translation, "grant");
        end(&s);
}

static void test_one_on_its_bus_has_those_at_which_the_guest_sees_them(void **state) {
        struct alloc_view view;
        struct answer got = {};
        struct scene s = {};
        uint64_t device;

        begin_granted(&s);
        device = fixture_open(&s.guest, &(struct device_options){ .name = "0000:00:05.0", .node = -1 });
        coherent_alloc(&s.guest, &(struct alloc_request){ .device = device, .size = 4096 }, answer, &got);
        fixture_settle(&s.f);
        require_refused(&got, REASON_source_unavailable);
        place_bind(s.addr, SEEN);
        view = fixture_alloc(&s.f, &s.guest, &(struct alloc_request){ .device = device, .size = 4096 });
        assert_int_equal(view.dma_addr, SEEN + view.offset);
        end(&s);
}

static void expect_no_window(const char *owner, bool is_granted) {
        struct answer got = {};
        struct scene s = {};

        begin_with(&s, owner, is_granted);
        device_reserve(&s.tracker, &(struct reserve_request){ .device = s.commons, .size = WINDOW }, answer, &got);
        fixture_settle(&s.f);
        require_refused(&got, REASON_no_memory);
        end(&s);
}

static void test_windows_are_of_memory_that_can_be_granted_or_of_what_can_be_mapped(void **state) {
        expect_no_window(XEN_GUEST, false);
        expect_no_window(GUEST, true);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_device_of_a_guest_gets_memory_of_its_window_by_the_guests_addresses),
                cmocka_unit_test(test_a_guest_without_a_window_gets_nothing_of_the_host),
                cmocka_unit_test(test_a_guest_gets_no_more_than_its_windows_and_not_their_last_page),
                cmocka_unit_test(test_what_waits_is_served_when_another_window_comes),
                cmocka_unit_test(test_a_window_that_is_not_bound_says_so),
                cmocka_unit_test(test_a_mask_is_that_of_the_guests_addresses),
                cmocka_unit_test(test_a_guest_reserves_nothing_of_the_host),
                cmocka_unit_test(test_a_window_with_allocations_stays),
                cmocka_unit_test(test_windows_that_are_closed_by_force_are_there_until_they_are_empty),
                cmocka_unit_test(test_pools_and_bounce_pools_lie_in_windows),
                cmocka_unit_test(test_others_get_nothing_of_a_window),
                cmocka_unit_test(test_those_who_have_something_in_a_window_are_known),
                cmocka_unit_test(test_so_are_those_who_have_something_of_a_pool_there),
                cmocka_unit_test(test_a_device_by_name_of_a_granted_guest_has_machine_addresses_wherever_that_sees_them),
                cmocka_unit_test(test_one_on_its_bus_has_those_at_which_the_guest_sees_them),
                cmocka_unit_test(test_windows_are_of_memory_that_can_be_granted_or_of_what_can_be_mapped),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
