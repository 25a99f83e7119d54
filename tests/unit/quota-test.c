/* Limits of owners and of their devices, through the core's face. */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/core-fixture.h"

#define LAYOUT "64M@0x40000000,64M@0x100000000"

static struct caller as_admin(const struct caller *caller) {
        return (struct caller){ .session = caller->session, .admin = true };
}

static void limit_device(const struct caller *caller, uint64_t device, enum quota_kind kind, uint64_t limit) {
        struct caller admin = as_admin(caller);
        struct quota limits = {};
        struct failure failure = {};

        limits.of[kind] = limit;
        if (quota_set_device(&admin, device, 1u << kind, &limits, &failure) < 0)
                fail_msg("%s", failure.sentence);
}

static struct quota device_usage(const struct caller *caller, uint64_t device) {
        struct owner_view view;

        assert_int_equal(quota_get_device(caller, device, &view, NULL), 0);
        return view.usage;
}

static struct quota device_limits(const struct caller *caller, uint64_t device) {
        struct owner_view view;

        assert_int_equal(quota_get_device(caller, device, &view, NULL), 0);
        return view.limits;
}

static struct answer ask(struct fixture *f, const struct caller *caller, const struct alloc_request *request) {
        struct answer to = {};

        coherent_alloc(caller, request, answer, &to);
        fixture_settle(f);
        return to;
}

static uint64_t open_named(const struct caller *caller, const char *name) {
        return fixture_open(caller, &(struct device_options){ .name = name });
}

/* ---- devices ---- */

static void test_a_device_takes_no_more_than_its_limit_and_says_so(void **state) {
        struct fixture f;
        struct answer to;
        uint64_t nic, disk;

        fixture_start(&f, LAYOUT, NULL);
        nic = open_named(&f.caller, "nic");
        disk = open_named(&f.caller, "disk");
        limit_device(&f.caller, nic, QUOTA_bytes, 3 * 4096);
        fixture_alloc(&f, &f.caller, &(struct alloc_request){ .device = nic, .size = 8192 });
        to = ask(&f, &f.caller, &(struct alloc_request){ .device = nic, .size = 8192 });
        require_refused(&to, REASON_quota);
        assert_int_equal(failure_number(&to.failure, "limit"), 12288);
        assert_int_equal(failure_number(&to.failure, "in_use"), 8192);
        assert_int_equal(failure_number(&to.failure, "asked"), 8192);
        assert_int_equal(failure_number(&to.failure, "device"), nic);
        fixture_alloc(&f, &f.caller, &(struct alloc_request){ .device = nic, .size = 4096 });
        fixture_alloc(&f, &f.caller, &(struct alloc_request){ .device = disk, .size = MIB });
        assert_int_equal(device_usage(&f.caller, nic).of[QUOTA_bytes], 12288);
        assert_int_equal(device_usage(&f.caller, nic).of[QUOTA_allocs], 2);
        assert_int_equal(fixture_usage(&f.caller, QUOTA_bytes), MIB + 12288);
        fixture_stop(&f);
}

static void test_opening_a_device_again_does_not_get_round_its_limit(void **state) {
        struct fixture f;
        struct answer to;
        uint64_t first, second;

        fixture_start(&f, LAYOUT, NULL);
        first = open_named(&f.caller, "nic");
        limit_device(&f.caller, first, QUOTA_allocs, 2);
        second = open_named(&f.caller, "nic");
        fixture_alloc(&f, &f.caller, &(struct alloc_request){ .device = first, .size = 4096 });
        fixture_alloc(&f, &f.caller, &(struct alloc_request){ .device = second, .size = 4096 });
        to = ask(&f, &f.caller, &(struct alloc_request){ .device = second, .size = 4096 });
        require_refused(&to, REASON_quota);
        assert_int_equal(device_usage(&f.caller, first).of[QUOTA_allocs], 2);
        fixture_stop(&f);
}

static void test_closing_a_device_does_not_lift_what_an_administrator_has_set(void **state) {
        struct fixture f;
        uint64_t device;

        fixture_start(&f, LAYOUT, NULL);
        device = open_named(&f.caller, "nic");
        limit_device(&f.caller, device, QUOTA_pools, 0);
        assert_int_equal(device_close(&f.caller, device, false, NULL, NULL, NULL), 0);
        session_close(f.caller.session);
        f.caller = fixture_session(&f, NULL);
        device = open_named(&f.caller, "nic");
        assert_int_equal(device_limits(&f.caller, device).of[QUOTA_pools], 0);
        fixture_stop(&f);
}

static void test_each_owner_has_the_limits_of_a_device_for_itself(void **state) {
        struct quota limits;
        struct caller other;
        struct fixture f;
        struct answer to;
        uint64_t mine, theirs;

        fixture_start(&f, LAYOUT, NULL);
        memset(&limits, 0xff, sizeof(limits));
        limits.of[QUOTA_allocs] = 1;
        assert_int_equal(broker_define_device(f.broker, &(struct device_options){ .name = "nic", .node = -1 }, true, NULL), 0);
        assert_int_equal(broker_limit_device(f.broker, "nic", &limits), 0);
        other = fixture_session(&f, "user:1001");
        mine = open_named(&f.caller, "nic");
        theirs = open_named(&other, "nic");
        fixture_alloc(&f, &f.caller, &(struct alloc_request){ .device = mine, .size = 4096 });
        fixture_alloc(&f, &other, &(struct alloc_request){ .device = theirs, .size = 4096 });
        to = ask(&f, &other, &(struct alloc_request){ .device = theirs, .size = 4096 });
        require_refused(&to, REASON_quota);
        /* The configuration is read again: what is open follows, but for what an administrator said. */
        limit_device(&f.caller, mine, QUOTA_allocs, 5);
        assert_int_equal(broker_limit_device(f.broker, "nic", NULL), 0);
        assert_int_equal(device_limits(&f.caller, mine).of[QUOTA_allocs], 5);
        assert_int_equal(device_limits(&other, theirs).of[QUOTA_allocs], QUOTA_UNLIMITED);
        assert_int_equal(broker_limit_device(f.broker, "disk", NULL), -ENOENT);
        fixture_stop(&f);
}

static void test_a_name_of_the_bus_in_short_is_the_same_device(void **state) {
        struct fixture f;
        uint64_t shorter, longer;

        fixture_start(&f, LAYOUT, NULL);
        shorter = open_named(&f.caller, "1f:1e.7");
        longer = open_named(&f.caller, "0000:1f:1e.7");
        limit_device(&f.caller, shorter, QUOTA_mappings, 3);
        assert_int_equal(device_limits(&f.caller, longer).of[QUOTA_mappings], 3);
        fixture_stop(&f);
}

static void test_low_memory_of_a_device_is_limited(void **state) {
        struct fixture f;
        struct answer to;
        uint64_t device;

        fixture_start(&f, LAYOUT, NULL);
        device = open_named(&f.caller, "nic");
        limit_device(&f.caller, device, QUOTA_low_bytes, 4096);
        to = ask(&f, &f.caller, &(struct alloc_request){ .device = device, .size = 8192, .mask = MASK32 });
        require_refused(&to, REASON_quota);
        fixture_alloc(&f, &f.caller, &(struct alloc_request){ .device = device, .size = 8192 });
        fixture_alloc(&f, &f.caller, &(struct alloc_request){ .device = device, .size = 4096, .mask = MASK32 });
        to = (struct answer){};
        device_reserve(&f.caller, &(struct reserve_request){ .device = device, .size = 4096, .mask = MASK32 }, answer, &to);
        fixture_settle(&f);
        require_refused(&to, REASON_quota);
        fixture_stop(&f);
}

static void test_pools_leases_and_mappings_of_a_device_are_limited(void **state) {
        struct answer to = {}, bounce = {}, mapping = {}, lease = {};
        struct fixture f;
        uint64_t device;

        fixture_start(&f, LAYOUT, NULL);
        device = open_named(&f.caller, "nic");
        limit_device(&f.caller, device, QUOTA_pools, 1);
        limit_device(&f.caller, device, QUOTA_leases, 1);
        limit_device(&f.caller, device, QUOTA_mappings, 1);
        bounce_create(&f.caller, &(struct bounce_options){ .device = device, .size = 65536 }, answer, &bounce);
        fixture_settle(&f);
        pool_create(&f.caller, &(struct pool_options){ .device = device, .name = "p", .size = 64 }, answer, &to);
        require_refused(&to, REASON_quota);
        assert_int_equal(failure_number(&to.failure, "device"), device);
        bounce_map(&f.caller, &(struct bounce_request){ .bounce = answer_handle(&bounce), .size = 1 }, answer, &mapping);
        to = (struct answer){};
        bounce_map(&f.caller, &(struct bounce_request){ .bounce = bounce.handle, .size = 1 }, answer, &to);
        require_refused(&to, REASON_quota);
        bounce_lease(&f.caller, &(struct bounce_request){ .bounce = bounce.handle, .size = 1 }, answer, &lease);
        to = (struct answer){};
        bounce_lease(&f.caller, &(struct bounce_request){ .bounce = bounce.handle, .size = 1 }, answer, &to);
        require_refused(&to, REASON_quota);
        assert_int_equal(bounce_unmap(&f.caller, answer_handle(&mapping), 0, NULL, NULL), 0);
        assert_int_equal(lease_return(&f.caller, answer_handle(&lease), LEASE_OF_BOUNCE, NULL), 0);
        assert_int_equal(device_usage(&f.caller, device).of[QUOTA_mappings], 0);
        assert_int_equal(device_usage(&f.caller, device).of[QUOTA_leases], 0);
        assert_int_equal(device_usage(&f.caller, device).of[QUOTA_pools], 1);
        fixture_stop(&f);
}

static void test_requests_of_a_device_that_wait_are_limited(void **state) {
        struct answer first = {}, second = {};
        struct fixture f;
        uint64_t device;

        fixture_start(&f, LAYOUT, NULL);
        device = open_named(&f.caller, "nic");
        while (!ask(&f, &f.caller, &(struct alloc_request){ .device = device, .size = 4 * MIB }).failure.error)
                ;
        limit_device(&f.caller, device, QUOTA_waiters, 1);
        coherent_alloc(&f.caller, &(struct alloc_request){ .device = device, .size = 4 * MIB, .wait_ms = 100 }, answer, &first);
        coherent_alloc(&f.caller, &(struct alloc_request){ .device = device, .size = 4 * MIB, .wait_ms = 100 }, answer, &second);
        require_refused(&second, REASON_quota);
        fixture_pass(&f, 200);
        require_refused(&first, REASON_timeout);
        assert_int_equal(device_usage(&f.caller, device).of[QUOTA_waiters], 0);
        fixture_stop(&f);
}

static void test_who_may_limit_devices_and_what_of_them(void **state) {
        struct failure failure = {};
        struct quota limits = {};
        struct caller admin, other;
        struct fixture f;
        uint64_t device;

        fixture_start(&f, LAYOUT, NULL);
        admin = as_admin(&f.caller);
        other = fixture_session(&f, "user:1001");
        device = open_named(&f.caller, "nic");
        assert_int_equal(quota_set_device(&f.caller, device, 1u << QUOTA_bytes, &limits, &failure), -EPERM);
        assert_true(quota_set_device(&admin, device, 1u << QUOTA_regions, &limits, &failure) < 0);
        require_failure(&failure, REASON_bad_param);
        assert_true(quota_set_device(&admin, device + 100, 1u << QUOTA_bytes, &limits, &failure) < 0);
        require_failure(&failure, REASON_unknown_handle);
        assert_true(quota_get_device(&other, device, &(struct owner_view){}, &failure) < 0);
        require_failure(&failure, REASON_unknown_handle);
        fixture_stop(&f);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_device_takes_no_more_than_its_limit_and_says_so),
                cmocka_unit_test(test_opening_a_device_again_does_not_get_round_its_limit),
                cmocka_unit_test(test_closing_a_device_does_not_lift_what_an_administrator_has_set),
                cmocka_unit_test(test_each_owner_has_the_limits_of_a_device_for_itself),
                cmocka_unit_test(test_a_name_of_the_bus_in_short_is_the_same_device),
                cmocka_unit_test(test_low_memory_of_a_device_is_limited),
                cmocka_unit_test(test_pools_leases_and_mappings_of_a_device_are_limited),
                cmocka_unit_test(test_requests_of_a_device_that_wait_are_limited),
                cmocka_unit_test(test_who_may_limit_devices_and_what_of_them),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
