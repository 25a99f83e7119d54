/* The core through its face, on the simulated source, with a clock that only the test moves. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "daemon/core/broker.h"
#include "daemon/iommu/none.h"
#include "daemon/source/sources.h"

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define MASK32 UINT64_C(0xffffffff)

struct answer {
        bool given;
        struct failure failure;
        uint64_t handle;
        unsigned order; /* in which it was given */
};

struct fixture {
        uint64_t now;
        struct broker *broker;
        struct source *source;
        struct session *session;
        struct caller caller;
};

static unsigned answers_given;

static uint64_t fixture_now(void *userdata) {
        return ((struct fixture *)userdata)->now;
}

static void answer(void *userdata, const struct failure *failure, uint64_t handle) {
        struct answer *to = userdata;

        assert_false(to->given);
        to->given = true;
        to->order = ++answers_given;
        to->failure = failure ? *failure : (struct failure){};
        to->handle = handle;
}

static void settle(struct fixture *fixture) {
        while (!broker_settled(fixture->broker)) {
                fixture->source->ops->wait(fixture->source);
                fixture->source->ops->dispatch(fixture->source);
        }
}

static void start_growing(struct fixture *fixture, const char *layout, const char *reserve,
                          struct broker_options *options) {
        static const struct translator_ops *const translators[] = { &translator_identity_ops, NULL };
        struct source_option source_options[] = { { "layout", layout }, { "reserve", reserve } };
        struct broker_options defaults;
        struct failure failure = {};

        if (!options) {
                broker_options_default(&defaults);
                options = &defaults;
        }
        *fixture = (struct fixture){ .now = 1000 };
        options->now_ms = fixture_now;
        options->userdata = fixture;
        options->translators = translators;
        assert_int_equal(broker_new(options, &fixture->broker), 0);
        if (source_sim_ops.open(source_options, reserve ? 2 : 1, NULL, &fixture->source, &failure) < 0)
                fail_msg("%s", failure.sentence);
        assert_int_equal(broker_add_source(fixture->broker, fixture->source), 0);
        settle(fixture);
        assert_int_equal(session_open(fixture->broker, "user:1000", &fixture->session, NULL), 0);
        fixture->caller = (struct caller){ .session = fixture->session };
}

static void start(struct fixture *fixture, const char *layout, struct broker_options *options) {
        start_growing(fixture, layout, NULL, options);
}

static void problem(void *userdata, const char *what, const char *text, uint64_t handle) {
        print_error("%s %llu: %s\n", what, (unsigned long long)handle, text);
        ++*(unsigned *)userdata;
}

static void checked(void *userdata, uint64_t n) {
        assert_true(n > 0);
}

static void check(struct fixture *fixture) {
        unsigned problems = 0;

        broker_check(fixture->broker, problem, checked, &problems);
        settle(fixture);
        assert_int_equal(problems, 0);
}

static void stop(struct fixture *fixture) {
        check(fixture);
        broker_free(fixture->broker);
}

static uint64_t open_device(struct fixture *fixture, uint64_t mask) {
        struct device_options options = { .name = "nic", .mask = mask, .node = -1 };
        struct failure failure = {};
        uint64_t device = 0;

        if (device_open(&fixture->caller, &options, &device, &failure) < 0)
                fail_msg("%s", failure.sentence);
        return device;
}

static struct answer ask(struct fixture *fixture, const struct alloc_request *request) {
        struct answer to = {};

        coherent_alloc(&fixture->caller, request, answer, &to);
        settle(fixture);
        assert_true(to.given);
        return to;
}

static struct alloc_view take(struct fixture *fixture, uint64_t device, uint64_t size) {
        struct answer to = ask(fixture, &(struct alloc_request){ .device = device, .size = size });
        struct alloc_view view;

        if (to.failure.error)
                fail_msg("%s", to.failure.sentence);
        assert_int_equal(coherent_get(&fixture->caller, to.handle, &view, NULL), 0);
        return view;
}

static uint64_t usage(struct fixture *fixture, enum quota_kind kind) {
        struct owner_view view;

        assert_int_equal(quota_get(&fixture->caller, NULL, &view, NULL), 0);
        return view.usage.of[kind];
}

static void drop(struct fixture *fixture, uint64_t alloc) {
        assert_int_equal(coherent_free(&fixture->caller, alloc, NULL), 0);
}

/* ---- tests ---- */

static void test_an_allocation_has_the_address_of_its_region_and_offset(void **state) {
        struct fixture f;
        struct alloc_view view;
        struct region_view region;

        start(&f, "16M@0x100000000", NULL);
        view = take(&f, open_device(&f, 0), 10000);
        assert_int_equal(view.size, 12288);
        assert_true(view.simulated);
        assert_int_equal(region_get(&f.caller, view.region, &region, NULL), 0);
        assert_int_equal(region.machine_addr + view.offset, view.machine_addr);
        assert_int_equal(view.dma_addr, view.machine_addr);
        assert_string_equal(view.owner, "user:1000");
        stop(&f);
}

static void test_small_allocations_of_an_owner_share_a_region_and_owners_never_do(void **state) {
        struct fixture f;
        struct alloc_view a, b, c;
        struct caller mine;
        uint64_t device;

        start(&f, "16M@0x100000000", NULL);
        device = open_device(&f, 0);
        a = take(&f, device, 4096);
        b = take(&f, device, 4096);
        assert_int_equal(a.region, b.region);
        mine = f.caller;
        assert_int_equal(session_open(f.broker, "user:1001", &f.caller.session, NULL), 0);
        c = take(&f, open_device(&f, 0), 4096);
        assert_int_not_equal(a.region, c.region);
        f.caller = mine;
        stop(&f);
}

static void test_what_belongs_to_another_owner_is_unknown(void **state) {
        struct fixture f;
        struct alloc_view a, view;
        struct region_view region;
        struct caller other = {};
        struct failure failure;
        int fd;

        start(&f, "16M@0x100000000", NULL);
        a = take(&f, open_device(&f, 0), 4096);
        assert_int_equal(session_open(f.broker, "user:1001", &other.session, NULL), 0);
        assert_int_equal(coherent_free(&other, a.handle, &failure), -ENOENT);
        assert_int_equal(failure.reason, REASON_unknown_handle);
        assert_int_equal(coherent_get(&other, a.handle, &view, &failure), -ENOENT);
        assert_int_equal(region_get(&other, a.region, &region, &failure), -ENOENT);
        assert_int_equal(region_fd(&other, a.region, &fd, &failure), -ENOENT);
        assert_int_equal(coherent_lookup(&other, a.dma_addr, false, &view, &failure), -EFAULT);
        assert_int_equal(device_close(&other, a.device, true, NULL, NULL, &failure), -ENOENT);
        drop(&f, a.handle);
        assert_int_equal(coherent_free(&other, a.handle, &failure), -ENOENT);
        assert_int_equal(failure.reason, REASON_unknown_handle);
        stop(&f);
}

static void test_a_second_free_is_told_apart_from_an_unknown_handle(void **state) {
        struct fixture f;
        struct alloc_view a;
        struct failure failure;

        start(&f, "16M@0x100000000", NULL);
        a = take(&f, open_device(&f, 0), 4096);
        drop(&f, a.handle);
        assert_int_equal(coherent_free(&f.caller, a.handle, &failure), -EINVAL);
        assert_int_equal(failure.reason, REASON_double_free);
        assert_int_equal(coherent_free(&f.caller, 12345, &failure), -ENOENT);
        assert_int_equal(failure.reason, REASON_unknown_handle);
        stop(&f);
}

static void test_an_administrator_frees_what_belongs_to_others_but_gets_no_memory_of_theirs(void **state) {
        struct fixture f;
        struct alloc_view a;
        struct caller admin = { .admin = true };
        struct failure failure;
        int fd;

        start(&f, "16M@0x100000000", NULL);
        a = take(&f, open_device(&f, 0), 4096);
        assert_int_equal(session_open(f.broker, "user:0", &admin.session, NULL), 0);
        assert_int_equal(region_fd(&admin, a.region, &fd, &failure), -EPERM);
        assert_int_equal(coherent_free(&admin, a.handle, NULL), 0);
        stop(&f);
}

static void test_wide_masks_leave_narrow_ones_their_memory(void **state) {
        struct alloc_request narrow = { .size = 4 * MIB };
        struct fixture f;
        struct answer to;
        uint64_t wide;
        unsigned i, taken = 0;

        start(&f, "64M@0x40000000,64M@0x140000000", NULL);
        wide = open_device(&f, 0);
        for (i = 0; i < 10000; i++) {
                to = ask(&f, &(struct alloc_request){ .device = wide, .size = 16 * KIB });
                taken += !to.failure.error;
        }
        /* All of the high memory but the emergency reserve, and half of the low. */
        assert_in_range(taken, 90 * MIB / (16 * KIB), 96 * MIB / (16 * KIB));
        narrow.device = open_device(&f, MASK32);
        for (i = 0; i < 6; i++) {
                to = ask(&f, &narrow);
                if (to.failure.error)
                        fail_msg("%s", to.failure.sentence);
        }
        stop(&f);
}

static void test_a_mask_keeps_every_byte_below_it(void **state) {
        struct alloc_view view;
        struct fixture f;

        start(&f, "8M@0x800000,64M@0x40000000,64M@0x140000000", NULL);
        view = take(&f, open_device(&f, 0xffffff), 3 * MIB);
        assert_true(view.machine_addr + view.size - 1 <= 0xffffff);
        view = take(&f, open_device(&f, MASK32), 3 * MIB);
        assert_in_range(view.machine_addr, 0x1000000, MASK32);
        stop(&f);
}

static void test_masks_without_memory_are_refused(void **state) {
        struct device_options options = { .name = "isa", .mask = 0xffffff, .node = -1 };
        struct failure failure;
        struct fixture f;
        uint64_t device;
        bool supported;

        start(&f, "64M@0x140000000", NULL);
        assert_int_equal(device_open(&f.caller, &options, &device, &failure), -ERANGE);
        assert_int_equal(failure.reason, REASON_mask);
        device = open_device(&f, 0);
        assert_int_equal(device_set_mask(&f.caller, device, MASK32, false, &failure), -ERANGE);
        assert_int_equal(device_set_mask(&f.caller, device, 0x1234, false, &failure), -ERANGE);
        assert_int_equal(device_set_mask(&f.caller, device, 0xfff, false, &failure), -ERANGE);
        assert_int_equal(device_supported(&f.caller, device, MASK32, false, &supported, NULL), 0);
        assert_false(supported);
        assert_int_equal(device_supported(&f.caller, device, UINT64_MAX, false, &supported, NULL), 0);
        assert_true(supported);
        stop(&f);
}

static void refused(struct fixture *f, struct alloc_request request, enum reason reason) {
        uint64_t bytes = usage(f, QUOTA_bytes);
        struct answer to = ask(f, &request);

        assert_string_equal(reason_name(to.failure.reason), reason_name(reason));
        assert_int_equal(to.handle, 0);
        assert_int_equal(usage(f, QUOTA_bytes), bytes);
}

static void test_each_impossible_request_has_its_own_reason(void **state) {
        struct fixture f;
        uint64_t device;

        start(&f, "64M@0x40000000", NULL);
        device = open_device(&f, 0);
        refused(&f, (struct alloc_request){ .device = device }, REASON_bad_param);
        refused(&f, (struct alloc_request){ .device = device, .size = UINT64_C(1) << 54 }, REASON_limit);
        refused(&f, (struct alloc_request){ .device = device, .size = GIB }, REASON_no_memory);
        refused(&f, (struct alloc_request){ .device = device, .size = 4096, .align = 3 }, REASON_bad_param);
        refused(&f, (struct alloc_request){ .device = device, .size = 4096, .boundary = 5000 }, REASON_boundary);
        refused(&f, (struct alloc_request){ .device = device, .size = 8192, .boundary = 4096 }, REASON_boundary);
        refused(&f, (struct alloc_request){ .device = device, .size = 4096, .mask = 0xff }, REASON_mask);
        refused(&f, (struct alloc_request){ .device = device, .size = 4096, .mask = 0xffffff }, REASON_mask);
        refused(&f, (struct alloc_request){ .device = 99, .size = 4096 }, REASON_unknown_handle);
        stop(&f);
}

static void test_a_device_takes_no_segment_above_its_largest(void **state) {
        struct device_options options = { .name = "disk", .max_segment = 65536, .node = -1 };
        struct fixture f;
        uint64_t device;

        start(&f, "64M@0x40000000", NULL);
        assert_int_equal(device_open(&f.caller, &options, &device, NULL), 0);
        refused(&f, (struct alloc_request){ .device = device, .size = 65537 }, REASON_limit);
        take(&f, device, 65536);
        stop(&f);
}

static void test_a_boundary_of_the_device_is_never_crossed(void **state) {
        struct device_options options = { .name = "disk", .boundary = 64 * KIB, .node = -1 };
        struct alloc_view view;
        struct fixture f;
        uint64_t device;
        int i;

        start(&f, "64M@0x40000000", NULL);
        assert_int_equal(device_open(&f.caller, &options, &device, NULL), 0);
        for (i = 0; i < 100; i++) {
                view = take(&f, device, 40 * KIB);
                assert_int_equal(view.machine_addr / (64 * KIB), (view.machine_addr + view.size - 1) / (64 * KIB));
        }
        stop(&f);
}

static void test_quotas_are_enforced_one_by_one(void **state) {
        struct quota limits = {};
        struct caller admin = { .admin = true };
        struct fixture f;
        uint64_t device;

        start(&f, "64M@0x40000000,64M@0x140000000", NULL);
        assert_int_equal(session_open(f.broker, "user:0", &admin.session, NULL), 0);
        device = open_device(&f, 0);
        limits.of[QUOTA_bytes] = 8192;
        assert_int_equal(quota_set(&f.caller, NULL, 1u << QUOTA_bytes, &limits, NULL), -EPERM);
        assert_int_equal(quota_set(&admin, "user:1000", 1u << QUOTA_bytes, &limits, NULL), 0);
        refused(&f, (struct alloc_request){ .device = device, .size = 12288 }, REASON_quota);
        take(&f, device, 8192);
        refused(&f, (struct alloc_request){ .device = device, .size = 1 }, REASON_quota);
        limits.of[QUOTA_bytes] = QUOTA_UNLIMITED;
        limits.of[QUOTA_low_bytes] = 4096;
        limits.of[QUOTA_held_bytes] = 8 * MIB;
        assert_int_equal(quota_set(&admin, "user:1000",
                                   1u << QUOTA_bytes | 1u << QUOTA_low_bytes | 1u << QUOTA_held_bytes, &limits, NULL), 0);
        refused(&f, (struct alloc_request){ .device = device, .size = 8192, .mask = MASK32 }, REASON_quota);
        refused(&f, (struct alloc_request){ .device = device, .size = 16 * MIB }, REASON_quota);
        limits.of[QUOTA_allocs] = 1;
        limits.of[QUOTA_devices] = 1;
        assert_int_equal(quota_set(&admin, "user:1000", 1u << QUOTA_allocs | 1u << QUOTA_devices, &limits, NULL), 0);
        refused(&f, (struct alloc_request){ .device = device, .size = 4096 }, REASON_quota);
        assert_int_equal(device_open(&f.caller, &(struct device_options){ .name = "b", .node = -1 }, &device, NULL),
                         -EDQUOT);
        stop(&f);
}

static void fill(struct fixture *f, uint64_t device, uint64_t *ret_first) {
        struct answer to;

        *ret_first = 0;
        for (;;) {
                to = ask(f, &(struct alloc_request){ .device = device, .size = MIB });
                if (to.failure.error)
                        break;
                if (!*ret_first)
                        *ret_first = to.handle;
        }
        assert_int_equal(to.failure.error, ENOMEM);
}

static void test_waiting_requests_of_an_owner_are_served_in_order(void **state) {
        struct answer a = {}, b = {}, c = {};
        struct alloc_request request = { .size = MIB, .wait_ms = 1000 };
        struct broker_options options;
        struct fixture f;
        uint64_t first;

        broker_options_default(&options);
        options.emergency_permille = 0;
        start(&f, "16M@0x40000000", &options);
        request.device = open_device(&f, 0);
        fill(&f, request.device, &first);
        assert_non_null(coherent_alloc(&f.caller, &request, answer, &a));
        request.size = 4096;
        assert_non_null(coherent_alloc(&f.caller, &request, answer, &b));
        request.wait_ms = 0;
        coherent_alloc(&f.caller, &request, answer, &c);
        settle(&f);
        assert_true(c.given);
        assert_int_equal(c.failure.error, ENOMEM);
        assert_false(a.given || b.given);
        drop(&f, first);
        settle(&f);
        assert_true(a.given);
        assert_int_equal(a.failure.error, 0);
        assert_false(b.given);
        drop(&f, a.handle);
        settle(&f);
        assert_true(b.given);
        assert_true(a.order < b.order);
        stop(&f);
}

static void test_a_request_that_may_not_wait_does_not_overtake(void **state) {
        struct answer a = {}, b = {};
        struct alloc_request request = { .size = 8 * MIB, .wait_ms = 1000 };
        struct fixture f;
        uint64_t first;

        start(&f, "16M@0x40000000", NULL);
        request.device = open_device(&f, 0);
        fill(&f, request.device, &first);
        coherent_alloc(&f.caller, &request, answer, &a);
        drop(&f, first);
        settle(&f);
        request = (struct alloc_request){ .device = request.device, .size = 4096 };
        coherent_alloc(&f.caller, &request, answer, &b);
        settle(&f);
        assert_true(b.given);
        assert_int_equal(b.failure.reason, REASON_would_block);
        assert_false(a.given);
        f.now += 1001;
        broker_tick(f.broker);
        assert_int_equal(a.failure.reason, REASON_timeout);
        stop(&f);
}

static void test_a_deadline_ends_the_wait(void **state) {
        struct alloc_request request = { .size = MIB, .wait_ms = 500 };
        struct answer a = {};
        struct fixture f;
        uint64_t first;

        start(&f, "16M@0x40000000", NULL);
        request.device = open_device(&f, 0);
        fill(&f, request.device, &first);
        coherent_alloc(&f.caller, &request, answer, &a);
        settle(&f);
        assert_int_equal(broker_deadline(f.broker), f.now + 500);
        f.now += 499;
        broker_tick(f.broker);
        assert_false(a.given);
        f.now += 1;
        broker_tick(f.broker);
        assert_true(a.given);
        assert_int_equal(a.failure.error, ETIMEDOUT);
        stop(&f);
}

static void test_a_request_that_can_never_be_served_does_not_wait(void **state) {
        struct fixture f;

        start(&f, "16M@0x40000000", NULL);
        refused(&f, (struct alloc_request){ .device = open_device(&f, 0), .size = 32 * MIB, .wait_ms = 60000 },
                REASON_no_memory);
        stop(&f);
}

static void test_a_cancelled_request_takes_nothing(void **state) {
        struct alloc_request request = { .size = MIB, .wait_ms = 500 };
        struct answer a = {};
        struct ticket *ticket;
        struct fixture f;
        uint64_t first, bytes;

        start(&f, "16M@0x40000000", NULL);
        request.device = open_device(&f, 0);
        /* ... while its memory is being carved */
        ticket = coherent_alloc(&f.caller, &request, answer, &a);
        assert_non_null(ticket);
        ticket_cancel(ticket);
        settle(&f);
        fill(&f, request.device, &first);
        bytes = usage(&f, QUOTA_bytes);
        /* ... while it waits */
        ticket = coherent_alloc(&f.caller, &request, answer, &a);
        settle(&f);
        ticket_cancel(ticket);
        drop(&f, first);
        settle(&f);
        assert_int_equal(usage(&f, QUOTA_bytes), bytes - MIB);
        assert_false(a.given);
        assert_int_equal(usage(&f, QUOTA_waiters), 0);
        stop(&f);
}

static void test_the_emergency_reserve_is_for_high_priority_only(void **state) {
        struct broker_options options;
        struct fixture f;
        struct answer to;
        uint64_t device, first;

        broker_options_default(&options);
        options.emergency_permille = 250;
        start(&f, "16M@0x40000000", &options);
        device = open_device(&f, 0);
        fill(&f, device, &first);
        assert_in_range(usage(&f, QUOTA_bytes), 11 * MIB, 12 * MIB);
        refused(&f, (struct alloc_request){ .device = device, .size = MIB }, REASON_no_memory);
        to = ask(&f, &(struct alloc_request){ .device = device, .size = 2 * MIB, .high = true });
        assert_int_equal(to.failure.error, 0);
        stop(&f);
}

static void test_low_memory_has_its_share_of_the_emergency_reserve(void **state) {
        struct alloc_request request = { .size = MIB };
        struct broker_options options;
        struct fixture f;
        struct answer to;

        broker_options_default(&options);
        options.emergency_permille = 250;
        start(&f, "16M@0x40000000,16M@0x140000000", &options);
        request.device = open_device(&f, MASK32);
        do
                to = ask(&f, &request);
        while (!to.failure.error);
        assert_in_range(usage(&f, QUOTA_bytes), 11 * MIB, 12 * MIB);
        request.high = true;
        assert_int_equal(ask(&f, &request).failure.error, 0);
        stop(&f);
}

static void test_small_low_allocations_share_regions_too(void **state) {
        struct fixture f;
        uint64_t device;
        int i;

        start(&f, "16M@0x40000000", NULL);
        device = open_device(&f, MASK32);
        for (i = 0; i < 64; i++)
                take(&f, device, 4096);
        assert_in_range(usage(&f, QUOTA_regions), 1, 4);
        stop(&f);
}

static void test_there_are_no_more_regions_than_the_process_has_descriptors_for(void **state) {
        struct broker_options options;
        struct fixture f;
        uint64_t device;

        broker_options_default(&options);
        options.regions_max = 2;
        start(&f, "16M@0x40000000", &options);
        device = open_device(&f, 0);
        take(&f, device, MIB);
        take(&f, device, MIB);
        refused(&f, (struct alloc_request){ .device = device, .size = MIB }, REASON_limit);
        stop(&f);
}

static void test_a_reserve_has_no_more_pieces_than_can_be_entered_in_a_moment(void **state) {
        struct reserve_request reserve = { .size = UINT64_C(1) << 40, .stride = 8192, .usable = 4096 };
        struct answer region = {};
        struct fixture f;

        start(&f, "16M@0x40000000", NULL);
        reserve.device = open_device(&f, 0);
        device_reserve(&f.caller, &reserve, answer, &region);
        assert_int_equal(region.failure.reason, REASON_limit);
        stop(&f);
}

static void test_a_reserved_region_serves_its_device_and_nobody_else(void **state) {
        struct reserve_request reserve = { .size = 2 * MIB };
        struct answer region = {};
        struct alloc_view view;
        struct fixture f;
        uint64_t device, other;
        struct failure failure;

        start(&f, "16M@0x40000000", NULL);
        device = open_device(&f, 0);
        other = open_device(&f, 0);
        reserve.device = device;
        device_reserve(&f.caller, &reserve, answer, &region);
        settle(&f);
        assert_int_equal(region.failure.error, 0);
        view = take(&f, device, MIB);
        assert_int_equal(view.region, region.handle);
        assert_int_not_equal(take(&f, other, MIB).region, region.handle);
        refused(&f, (struct alloc_request){ .device = device, .size = 2 * MIB }, REASON_no_memory);
        assert_int_equal(device_unreserve(&f.caller, device, region.handle, &failure), -EBUSY);
        assert_int_equal(device_unreserve(&f.caller, other, region.handle, &failure), -EXDEV);
        drop(&f, view.handle);
        assert_int_equal(device_unreserve(&f.caller, device, region.handle, &failure), 0);
        settle(&f);
        assert_int_not_equal(take(&f, device, MIB).region, region.handle);
        stop(&f);
}

static uint64_t reserve(struct fixture *f, struct reserve_request request) {
        struct answer reserved = {};

        device_reserve(&f->caller, &request, answer, &reserved);
        settle(f);
        assert_int_equal(reserved.failure.error, 0);
        return reserved.handle;
}

static void test_a_region_that_is_withdrawn_stays_and_serves_nobody(void **state) {
        struct failure failure = {};
        struct fixture f;
        uint64_t device, first, second;

        start(&f, "16M@0x40000000", NULL);
        device = open_device(&f, 0);
        first = reserve(&f, (struct reserve_request){ .device = device, .size = 2 * MIB });
        second = reserve(&f, (struct reserve_request){ .device = device, .size = 2 * MIB });
        assert_int_equal(device_withdraw(&f.caller, device, first, &failure), 0);
        assert_int_equal(take(&f, device, MIB).region, second);
        assert_int_equal(take(&f, device, MIB).region, second);
        refused(&f, (struct alloc_request){ .device = device, .size = 4096 }, REASON_no_memory);
        assert_int_equal(usage(&f, QUOTA_regions), 2);
        assert_int_equal(device_unreserve(&f.caller, device, first, &failure), 0);
        settle(&f);
        assert_int_equal(usage(&f, QUOTA_regions), 1);
        stop(&f);
}

static void test_what_is_freed_in_a_region_that_is_withdrawn_serves_nobody(void **state) {
        struct fixture f;
        uint64_t device, region, held[3];

        start(&f, "16M@0x40000000", NULL);
        device = open_device(&f, 0);
        region = reserve(&f, (struct reserve_request){ .device = device, .size = 2 * MIB });
        for (int i = 0; i < 3; i++)
                held[i] = take(&f, device, MIB / 2).handle;
        for (int i = 0; i < 2; i++)
                assert_int_equal(device_withdraw(&f.caller, device, region, NULL), 0);
        for (int i = 0; i < 3; i++) {
                refused(&f, (struct alloc_request){ .device = device, .size = 4096 }, REASON_no_memory);
                drop(&f, held[i]);
        }
        refused(&f, (struct alloc_request){ .device = device, .size = 4096 }, REASON_no_memory);
        check(&f);
        assert_int_equal(device_unreserve(&f.caller, device, region, NULL), 0);
        stop(&f);
}

static void test_a_region_that_is_reinstated_serves_as_before(void **state) {
        struct alloc_request request = { .size = MIB, .wait_ms = 1000 };
        struct answer waits = {};
        struct fixture f;
        uint64_t region, first, second;

        start(&f, "16M@0x40000000", NULL);
        request.device = open_device(&f, 0);
        region = reserve(&f, (struct reserve_request){ .device = request.device, .size = 4 * MIB, .stride = 2 * MIB,
                                                       .usable = MIB });
        first = take(&f, request.device, MIB / 2).handle;
        second = take(&f, request.device, MIB / 2).handle;
        assert_int_equal(device_withdraw(&f.caller, request.device, region, NULL), 0);
        drop(&f, first);
        coherent_alloc(&f.caller, &request, answer, &waits);
        settle(&f);
        assert_false(waits.given);
        assert_int_equal(device_reinstate(&f.caller, request.device, region, NULL), 0);
        settle(&f);
        assert_true(waits.given && !waits.failure.error);
        drop(&f, second);
        /* What was free, what was freed and what was there are one piece again. */
        assert_int_equal(take(&f, request.device, MIB).region, region);
        refused(&f, (struct alloc_request){ .device = request.device, .size = 4096 }, REASON_no_memory);
        assert_int_equal(device_reinstate(&f.caller, request.device, region + 1, NULL), -ENOENT);
        stop(&f);
}

static void test_a_reserve_serves_its_device_also_while_others_wait(void **state) {
        struct alloc_request request = { .size = MIB, .wait_ms = 1000 };
        struct reserve_request reserve = { .size = 2 * MIB };
        struct answer region = {}, a = {}, b = {}, c = {};
        struct fixture f;
        uint64_t first;

        start(&f, "16M@0x140000000", NULL);
        reserve.device = open_device(&f, 0);
        device_reserve(&f.caller, &reserve, answer, &region);
        settle(&f);
        request.device = open_device(&f, 0);
        fill(&f, request.device, &first);
        coherent_alloc(&f.caller, &request, answer, &a);
        request.device = reserve.device;
        request.size = 2 * MIB;
        request.wait_ms = 0;
        drop(&f, ask(&f, &request).handle);
        request.size = MIB;
        take(&f, reserve.device, MIB);
        /* ... where its own requests stand in line */
        request.size = 2 * MIB;
        request.wait_ms = 1000;
        coherent_alloc(&f.caller, &request, answer, &b);
        request.size = MIB;
        request.wait_ms = 0;
        coherent_alloc(&f.caller, &request, answer, &c);
        settle(&f);
        assert_int_equal(c.failure.reason, REASON_would_block);
        assert_false(a.given || b.given);
        f.now += 1001;
        broker_tick(f.broker);
        assert_true(a.given && b.given);
        stop(&f);
}

static void test_only_even_megabytes_of_a_reserved_region_are_used(void **state) {
        struct reserve_request reserve = { .size = 8 * MIB, .stride = 2 * MIB, .usable = MIB };
        struct answer region = {};
        struct alloc_view view;
        struct fixture f;
        int i;

        start(&f, "32M@0x40100000", NULL);
        reserve.device = open_device(&f, 0);
        device_reserve(&f.caller, &reserve, answer, &region);
        settle(&f);
        assert_int_equal(region.failure.error, 0);
        refused(&f, (struct alloc_request){ .device = reserve.device, .size = MIB + 4096 }, REASON_no_contiguous);
        for (i = 0; i < 8; i++) {
                view = take(&f, reserve.device, 512 * KIB);
                assert_int_equal(view.machine_addr / MIB % 2, 0);
        }
        refused(&f, (struct alloc_request){ .device = reserve.device, .size = 4096 }, REASON_no_memory);
        reserve.usable = 4 * MIB;
        region = (struct answer){};
        device_reserve(&f.caller, &reserve, answer, &region);
        assert_int_equal(region.failure.reason, REASON_bad_param);
        stop(&f);
}

static int count_leak(const struct leak_view *leak, void *userdata) {
        ++*(unsigned *)userdata;
        return 0;
}

static void test_closing_a_device_reports_what_it_still_holds(void **state) {
        struct failure failure;
        struct fixture f;
        uint64_t device;
        unsigned leaks = 0;

        start(&f, "16M@0x40000000", NULL);
        device = open_device(&f, 0);
        take(&f, device, 4096);
        take(&f, device, 4096);
        assert_int_equal(device_close(&f.caller, device, false, count_leak, &leaks, &failure), -EBUSY);
        assert_int_equal(leaks, 2);
        assert_int_equal(usage(&f, QUOTA_allocs), 2);
        leaks = 0;
        assert_int_equal(device_close(&f.caller, device, true, count_leak, &leaks, &failure), 0);
        assert_int_equal(leaks, 2);
        assert_int_equal(usage(&f, QUOTA_allocs), 0);
        assert_int_equal(device_close(&f.caller, device, true, count_leak, &leaks, &failure), -ENOENT);
        stop(&f);
}

static void test_closing_a_device_ends_what_waits_on_it(void **state) {
        struct alloc_request request = { .size = MIB, .wait_ms = 500 };
        struct answer a = {}, b = {};
        struct fixture f;
        uint64_t first;
        unsigned leaks = 0;

        start(&f, "16M@0x40000000", NULL);
        request.device = open_device(&f, 0);
        fill(&f, request.device, &first);
        coherent_alloc(&f.caller, &request, answer, &a);
        request.device = open_device(&f, 0);
        request.wait_ms = 0;
        settle(&f);
        assert_int_equal(device_close(&f.caller, request.device, true, count_leak, &leaks, NULL), 0);
        assert_int_equal(session_close(f.session), 0);
        assert_true(a.given);
        assert_int_equal(a.failure.reason, REASON_gone);
        settle(&f);
        /* ... also while memory is being carved for it */
        assert_int_equal(session_open(f.broker, "user:1000", &f.session, NULL), 0);
        f.caller.session = f.session;
        request.device = open_device(&f, 0);
        request.zero = true;
        coherent_alloc(&f.caller, &request, answer, &b);
        assert_int_equal(device_close(&f.caller, request.device, true, count_leak, &leaks, NULL), 0);
        settle(&f);
        assert_true(b.given);
        assert_int_equal(b.failure.reason, REASON_gone);
        stop(&f);
}

static void test_a_device_that_memory_is_on_its_way_to_is_closed_once(void **state) {
        struct device_options options = { .name = "nic", .node = -1, .request_key = "d1" };
        struct alloc_request request = { .size = MIB };
        struct session *other;
        struct answer a = {};
        struct fixture f;
        unsigned leaks = 0;

        start(&f, "16M@0x40000000", NULL);
        assert_int_equal(session_open(f.broker, "user:1000", &other, NULL), 0);
        assert_int_equal(device_open(&f.caller, &options, &request.device, NULL), 0);
        coherent_alloc(&f.caller, &request, answer, &a);
        assert_int_equal(device_close(&f.caller, request.device, true, count_leak, &leaks, NULL), 0);
        assert_false(a.given);
        session_close(f.session);
        f.caller.session = other;
        assert_int_equal(usage(&f, QUOTA_devices), 0);
        settle(&f);
        assert_int_equal(a.failure.reason, REASON_gone);
        assert_int_equal(usage(&f, QUOTA_devices), 0);
        stop(&f);
}

static void test_the_end_of_a_session_frees_what_it_held_and_leaves_what_outlives_it(void **state) {
        struct alloc_request request = { .size = 4096, .owner_lifetime = true };
        struct session *other;
        struct fixture f;
        struct answer kept;

        start(&f, "16M@0x40000000", NULL);
        assert_int_equal(session_open(f.broker, "user:1000", &other, NULL), 0);
        request.device = open_device(&f, 0);
        kept = ask(&f, &request);
        take(&f, request.device, 4096);
        take(&f, open_device(&f, 0), 4096);
        session_close(f.session);
        f.caller.session = other;
        assert_int_equal(usage(&f, QUOTA_allocs), 1);
        assert_int_equal(usage(&f, QUOTA_devices), 1);
        drop(&f, kept.handle);
        assert_int_equal(usage(&f, QUOTA_devices), 0);
        stop(&f);
}

/* A device that an allocation keeps beyond its session. The caller is another session of its owner then. */
static uint64_t open_lasting_device(struct fixture *f) {
        struct alloc_request request = { .device = open_device(f, 0), .size = 4096, .owner_lifetime = true };
        struct session *other;

        assert_int_equal(ask(f, &request).failure.error, 0);
        assert_int_equal(session_open(f->broker, "user:1000", &other, NULL), 0);
        session_close(f->session);
        f->session = f->caller.session = other;
        return request.device;
}

static void test_what_is_allocated_on_a_device_without_a_session_goes_with_the_session_that_made_it(void **state) {
        struct session *second;
        struct fixture f;
        uint64_t device;

        start(&f, "16M@0x40000000", NULL);
        device = open_lasting_device(&f);
        take(&f, device, 4096);
        assert_int_equal(session_open(f.broker, "user:1000", &second, NULL), 0);
        f.caller.session = second;
        take(&f, device, 4096);
        take(&f, device, 4096);
        ask(&f, &(struct alloc_request){ .device = device, .size = 4096, .owner_lifetime = true });
        assert_int_equal(usage(&f, QUOTA_allocs), 5);
        session_close(second);
        f.caller.session = f.session;
        assert_int_equal(usage(&f, QUOTA_allocs), 3);
        stop(&f);
}

static void test_what_is_asked_for_on_a_device_without_a_session_ends_with_the_session_that_asked(void **state) {
        struct alloc_request request = { .size = MIB, .wait_ms = 500 };
        struct answer working = {}, queued = {};
        struct fixture f;
        struct session *second;

        start(&f, "16M@0x40000000", NULL);
        request.device = open_lasting_device(&f);
        assert_int_equal(session_open(f.broker, "user:1000", &second, NULL), 0);
        f.caller.session = second;
        coherent_alloc(&f.caller, &request, answer, &working);
        coherent_alloc(&f.caller, &request, answer, &queued);
        session_close(second);
        f.caller.session = f.session;
        assert_true(queued.given && !working.given);
        settle(&f);
        assert_int_equal(working.failure.reason, REASON_gone);
        assert_int_equal(queued.failure.reason, REASON_gone);
        assert_int_equal(usage(&f, QUOTA_allocs), 1);
        stop(&f);
}

static void test_an_unused_region_goes_back_when_it_was_idle_long_enough(void **state) {
        struct fixture f;
        struct alloc_view view;

        start(&f, "16M@0x40000000", NULL);
        view = take(&f, open_device(&f, 0), 4096);
        drop(&f, view.handle);
        assert_int_equal(usage(&f, QUOTA_regions), 1);
        f.now = broker_deadline(f.broker);
        broker_tick(f.broker);
        settle(&f);
        assert_int_equal(usage(&f, QUOTA_regions), 0);
        stop(&f);
}

static void test_unused_regions_of_others_are_taken_back_under_pressure(void **state) {
        struct fixture f;
        struct caller other = {};
        uint64_t first, device;
        struct answer to;

        start(&f, "16M@0x40000000", NULL);
        device = open_device(&f, 0);
        fill(&f, device, &first);
        session_close(f.session);
        assert_int_equal(session_open(f.broker, "user:1001", &other.session, NULL), 0);
        f.caller = other;
        to = ask(&f, &(struct alloc_request){ .device = open_device(&f, 0), .size = 8 * MIB });
        if (to.failure.error)
                fail_msg("%s", to.failure.sentence);
        stop(&f);
}

static void test_the_same_key_gives_the_same_answer_and_takes_nothing_twice(void **state) {
        struct alloc_request request = { .size = 4096, .request_key = "k1", .request_digest = 7 };
        struct device_options options = { .name = "nic", .node = -1, .request_key = "d1", .request_digest = 1 };
        struct answer a, b;
        struct fixture f;
        uint64_t device, again;

        start(&f, "16M@0x40000000", NULL);
        assert_int_equal(device_open(&f.caller, &options, &device, NULL), 0);
        assert_int_equal(device_open(&f.caller, &options, &again, NULL), 0);
        assert_int_equal(device, again);
        request.device = device;
        a = ask(&f, &request);
        b = ask(&f, &request);
        assert_int_equal(a.handle, b.handle);
        assert_int_equal(usage(&f, QUOTA_allocs), 1);
        request.request_digest = 8;
        refused(&f, request, REASON_bad_param);
        drop(&f, a.handle);
        request.request_digest = 9;
        assert_int_not_equal(ask(&f, &request).handle, a.handle);
        stop(&f);
}

static void test_a_device_without_dma_uses_its_nearest_ancestor_that_has_it(void **state) {
        struct device_options bridge = { .name = "usb-controller", .mask = MASK32, .node = -1 };
        struct device_options stick = { .name = "usb-stick", .parent = "usb-controller", .node = -1 };
        struct device_options orphan = { .name = "x", .parent = "nowhere", .node = -1 };
        struct device_view view;
        struct failure failure;
        struct fixture f;
        uint64_t device;

        start(&f, "16M@0x40000000", NULL);
        assert_int_equal(device_open(&f.caller, &orphan, &device, &failure), -ENODEV);
        assert_int_equal(failure.reason, REASON_unknown_device);
        assert_int_equal(device_open(&f.caller, &bridge, &device, NULL), 0);
        assert_int_equal(device_open(&f.caller, &stick, &device, NULL), 0);
        assert_int_equal(device_get(&f.caller, device, &view, NULL), 0);
        assert_string_equal(view.via, "usb-controller");
        assert_string_equal(view.translation, "identity");
        assert_int_equal(view.coherent_mask, MASK32);
        assert_int_equal(device_set_mask(&f.caller, device, UINT64_MAX, false, NULL), 0);
        assert_int_equal(device_get(&f.caller, device, &view, NULL), 0);
        assert_int_equal(view.mask, MASK32);
        stop(&f);
}

static void test_the_configuration_says_which_devices_delegate(void **state) {
        struct device_options host = { .name = "host-bridge", .mask = MASK32, .node = -1 };
        struct device_options hub = { .name = "hub", .parent = "host-bridge", .node = -1 };
        struct device_options loop = { .name = "loop", .parent = "loop", .node = -1 };
        struct device_options ask_hub = { .name = "hub", .node = -1 }, ask_loop = { .name = "loop", .node = -1 };
        struct device_view view;
        struct failure failure;
        struct fixture f;
        uint64_t device;

        start(&f, "16M@0x40000000", NULL);
        assert_int_equal(broker_define_device(f.broker, &host, true, NULL), 0);
        assert_int_equal(broker_define_device(f.broker, &hub, false, NULL), 0);
        assert_int_equal(broker_define_device(f.broker, &loop, false, NULL), 0);
        assert_int_equal(device_open(&f.caller, &ask_hub, &device, NULL), 0);
        assert_int_equal(device_get(&f.caller, device, &view, NULL), 0);
        assert_string_equal(view.via, "host-bridge");
        assert_int_equal(view.mask, MASK32);
        assert_int_equal(device_open(&f.caller, &ask_loop, &device, &failure), -EOPNOTSUPP);
        stop(&f);
}

static void test_no_coherent_mask_goes_beyond_the_one_in_the_configuration(void **state) {
        struct device_options says = { .name = "nic", .coherent_mask = MASK32, .node = -1 };
        struct device_options hub = { .name = "hub", .parent = "nic", .node = -1 };
        struct device_options wide = { .name = "nic", .coherent_mask = UINT64_MAX, .node = -1 };
        struct device_options child = { .name = "hub", .node = -1 };
        struct device_view view;
        struct fixture f;
        uint64_t device;

        start(&f, "16M@0x40000000,16M@0x140000000", NULL);
        assert_int_equal(broker_define_device(f.broker, &says, true, NULL), 0);
        assert_int_equal(broker_define_device(f.broker, &hub, false, NULL), 0);
        assert_int_equal(device_open(&f.caller, &child, &device, NULL), 0);
        assert_in_range(take(&f, device, 4096).dma_addr, 0, MASK32);
        assert_int_equal(device_open(&f.caller, &wide, &device, NULL), 0);
        assert_in_range(take(&f, device, 4096).dma_addr, 0, MASK32);
        assert_int_equal(device_set_mask(&f.caller, device, UINT64_MAX, false, NULL), 0);
        assert_int_equal(device_get(&f.caller, device, &view, NULL), 0);
        assert_int_equal(view.mask, UINT64_MAX);
        assert_int_equal(view.coherent_mask, MASK32);
        assert_in_range(take(&f, device, 4096).dma_addr, 0, MASK32);
        stop(&f);
}

static void test_another_spelling_of_a_pci_address_is_the_same_device(void **state) {
        struct device_options says = { .name = "0000:3b:00.0", .mask = MASK32, .boundary = 65536, .node = -1 };
        struct device_options bridge = { .name = "0000:3c:00.0", .parent = "0000:3b:00.0", .node = -1 };
        struct device_options options = { .name = "3b:0.0", .node = -1 };
        struct device_view view;
        struct fixture f;
        uint64_t device;

        start(&f, "16M@0x40000000,16M@0x140000000", NULL);
        assert_int_equal(broker_define_device(f.broker, &says, true, NULL), 0);
        assert_int_equal(broker_define_device(f.broker, &bridge, false, NULL), 0);
        assert_int_equal(device_open(&f.caller, &options, &device, NULL), 0);
        assert_int_equal(device_get(&f.caller, device, &view, NULL), 0);
        assert_int_equal(view.mask, MASK32);
        assert_int_equal(view.boundary, 65536);
        options.name = "3C:00.0";
        assert_int_equal(device_open(&f.caller, &options, &device, NULL), 0);
        assert_int_equal(device_get(&f.caller, device, &view, NULL), 0);
        assert_string_equal(view.via, "0000:3b:00.0");
        assert_int_equal(view.mask, MASK32);
        options = (struct device_options){ .name = "child", .parent = "3b:00.0", .node = -1 };
        assert_int_equal(device_open(&f.caller, &options, &device, NULL), 0);
        assert_int_equal(device_get(&f.caller, device, &view, NULL), 0);
        assert_int_equal(view.mask, MASK32);
        stop(&f);
}

static void test_a_quota_that_is_no_longer_said_gives_way_to_the_default(void **state) {
        struct broker_options options;
        struct quota limits = {};
        struct fixture f;

        broker_options_default(&options);
        start(&f, "16M@0x140000000", &options);
        assert_int_equal(broker_set_quota(f.broker, "user:1000", &limits), 0);
        assert_int_equal(broker_set_quota(f.broker, "user:1001", &limits), 0);
        broker_unset_quota(f.broker, "user:1000");
        broker_unset_quota(f.broker, "user:1001");
        broker_unset_quota(f.broker, "user:1002");
        take(&f, open_device(&f, 0), 4096);
        options.quota.of[QUOTA_allocs] = 1;
        broker_reconfigure(f.broker, &options);
        refused(&f, (struct alloc_request){ .device = open_device(&f, 0), .size = 4096 }, REASON_quota);
        stop(&f);
}

static void test_a_wide_mask_that_may_have_no_more_low_memory_is_told_so(void **state) {
        struct quota limits = { .of[QUOTA_low_bytes] = 4096 };
        struct caller admin = { .admin = true };
        struct fixture f;

        start(&f, "64M@0x40000000", NULL);
        assert_int_equal(session_open(f.broker, "user:0", &admin.session, NULL), 0);
        assert_int_equal(quota_set(&admin, "user:1000", 1u << QUOTA_low_bytes, &limits, NULL), 0);
        refused(&f, (struct alloc_request){ .device = open_device(&f, 0), .size = 8192 }, REASON_quota);
        stop(&f);
}

static void test_zeroed_memory_is_zero_and_the_rest_of_the_region_is_untouched(void **state) {
        struct alloc_request request = { .size = 64 * KIB };
        struct alloc_view a, b;
        unsigned char byte = 0xaa, seen;
        struct fixture f;
        int fd, i;

        start(&f, "16M@0x40000000", NULL);
        request.device = open_device(&f, 0);
        for (i = 0; i < 2; i++) {
                a = take(&f, request.device, request.size);
                b = take(&f, request.device, 4096);
                assert_int_equal(region_fd(&f.caller, a.region, &fd, NULL), 0);
                assert_int_equal(pwrite(fd, &byte, 1, a.offset + 5), 1);
                assert_int_equal(region_fd(&f.caller, b.region, &fd, NULL), 0);
                assert_int_equal(pwrite(fd, &byte, 1, b.offset), 1);
                drop(&f, a.handle);
                request.zero = true;
                assert_int_equal(coherent_get(&f.caller, ask(&f, &request).handle, &a, NULL), 0);
                assert_int_equal(region_fd(&f.caller, a.region, &fd, NULL), 0);
                assert_int_equal(pread(fd, &seen, 1, a.offset + 5), 1);
                assert_int_equal(seen, 0);
                assert_int_equal(region_fd(&f.caller, b.region, &fd, NULL), 0);
                assert_int_equal(pread(fd, &seen, 1, b.offset), 1);
                assert_int_equal(seen, byte);
                request.size = 2 * MIB; /* by the source's worker */
        }
        stop(&f);
}

static void test_memory_is_zero_when_it_changes_its_owner(void **state) {
        struct alloc_view a;
        unsigned char *bytes = malloc(15 * MIB);
        struct fixture f;
        size_t i, dirty = 0;
        int fd;

        start(&f, "16M@0x40000000", NULL);
        a = take(&f, open_device(&f, 0), 15 * MIB);
        assert_int_equal(region_fd(&f.caller, a.region, &fd, NULL), 0);
        memset(bytes, 0xbb, 15 * MIB);
        assert_int_equal(pwrite(fd, bytes, 15 * MIB, 0), 15 * MIB);
        session_close(f.session);
        assert_int_equal(session_open(f.broker, "user:1001", &f.caller.session, NULL), 0);
        a = take(&f, open_device(&f, 0), 15 * MIB);
        assert_int_equal(region_fd(&f.caller, a.region, &fd, NULL), 0);
        assert_int_equal(pread(fd, bytes, 15 * MIB, 0), 15 * MIB);
        for (i = 0; i < 15 * MIB; i++)
                dirty += bytes[i] != 0;
        assert_int_equal(dirty, 0);
        free(bytes);
        stop(&f);
}

static int source_total(const struct source_view *view, void *userdata) {
        *(uint64_t *)userdata = view->total;
        return 0;
}

static uint64_t total(struct fixture *f) {
        uint64_t bytes = 0;

        broker_visit_sources(f->broker, source_total, &bytes);
        return bytes;
}

static void test_memory_that_suits_is_used_before_the_system_is_asked_for_more(void **state) {
        struct fixture f;

        start_growing(&f, "64M@0x40000000,256M@0x140000000", "64M", NULL);
        take(&f, open_device(&f, MASK32), 4096);
        take(&f, open_device(&f, MASK32), 4096);
        assert_int_equal(total(&f), 64 * MIB);
        stop(&f);
        start_growing(&f, "256M@0x40000000", "16M", NULL);
        take(&f, open_device(&f, 0), 4096);
        take(&f, open_device(&f, 0), 4096);
        take(&f, open_device(&f, 0), 4096);
        assert_in_range(total(&f), 16 * MIB, 32 * MIB);
        stop(&f);
}

static void test_the_system_is_not_asked_for_what_cannot_be_had(void **state) {
        struct quota limits = { .of[QUOTA_held_bytes] = 8 * MIB };
        struct caller admin = { .admin = true };
        struct fixture f;
        uint64_t device;

        start_growing(&f, "256M@0x140000000", "16M", NULL);
        device = open_device(&f, 0);
        refused(&f, (struct alloc_request){ .device = device, .size = GIB }, REASON_no_memory);
        assert_int_equal(total(&f), 16 * MIB);
        assert_int_equal(session_open(f.broker, "user:0", &admin.session, NULL), 0);
        assert_int_equal(quota_set(&admin, "user:1000", 1u << QUOTA_held_bytes, &limits, NULL), 0);
        refused(&f, (struct alloc_request){ .device = device, .size = 32 * MIB }, REASON_quota);
        assert_int_equal(total(&f), 16 * MIB);
        stop(&f);
}

static void test_unused_regions_of_an_owner_do_not_use_up_its_quota(void **state) {
        struct quota limits = { .of[QUOTA_held_bytes] = 8 * MIB };
        struct caller admin = { .admin = true };
        struct fixture f;
        struct answer to;
        uint64_t device;
        struct alloc_view a, b;

        start(&f, "64M@0x140000000", NULL);
        assert_int_equal(session_open(f.broker, "user:0", &admin.session, NULL), 0);
        assert_int_equal(quota_set(&admin, "user:1000", 1u << QUOTA_held_bytes, &limits, NULL), 0);
        device = open_device(&f, 0);
        a = take(&f, device, 4 * MIB);
        b = take(&f, device, 4 * MIB);
        refused(&f, (struct alloc_request){ .device = device, .size = 4096, .wait_ms = 1000 }, REASON_quota);
        drop(&f, a.handle);
        drop(&f, b.handle);
        to = ask(&f, &(struct alloc_request){ .device = device, .size = 8 * MIB });
        if (to.failure.error)
                fail_msg("%s", to.failure.sentence);
        stop(&f);
}

static void test_memory_on_its_way_to_others_counts_as_memory_that_may_come_back(void **state) {
        struct alloc_request request = { .size = 12 * MIB };
        struct caller mine, other = {};
        struct answer a = {}, b = {};
        struct fixture f;

        start(&f, "16M@0x140000000", NULL);
        mine = f.caller;
        assert_int_equal(session_open(f.broker, "user:1001", &other.session, NULL), 0);
        request.device = open_device(&f, 0);
        coherent_alloc(&mine, &request, answer, &a);
        f.caller = other;
        request = (struct alloc_request){ .device = open_device(&f, 0), .size = 8 * MIB, .wait_ms = 1000 };
        coherent_alloc(&other, &request, answer, &b);
        assert_false(b.given);
        settle(&f);
        assert_true(a.given);
        assert_false(b.given);
        f.caller = mine;
        drop(&f, a.handle);
        settle(&f);
        assert_true(b.given);
        assert_int_equal(b.failure.error, 0);
        stop(&f);
}

static void test_a_deadline_that_passes_while_a_job_runs_does_not_call_for_a_tick(void **state) {
        struct alloc_request request = { .size = MIB, .wait_ms = 5 };
        struct answer a = {};
        struct fixture f;

        start(&f, "16M@0x140000000", NULL);
        request.device = open_device(&f, 0);
        coherent_alloc(&f.caller, &request, answer, &a);
        f.now += 10;
        broker_tick(f.broker);
        assert_false(a.given);
        assert_true(broker_deadline(f.broker) > f.now);
        settle(&f);
        assert_true(a.given);
        stop(&f);
}

static void test_reserved_regions_below_4_gib_count_against_the_quota_of_low_bytes(void **state) {
        struct quota limits = { .of[QUOTA_low_bytes] = 4 * MIB };
        struct reserve_request reserve = { .size = 8 * MIB, .mask = MASK32 };
        struct caller admin = { .admin = true };
        struct answer region = {};
        struct fixture f;

        start(&f, "64M@0x40000000", NULL);
        assert_int_equal(session_open(f.broker, "user:0", &admin.session, NULL), 0);
        assert_int_equal(quota_set(&admin, "user:1000", 1u << QUOTA_low_bytes, &limits, NULL), 0);
        reserve.device = open_device(&f, 0);
        device_reserve(&f.caller, &reserve, answer, &region);
        settle(&f);
        assert_int_equal(region.failure.reason, REASON_quota);
        reserve.size = 3 * MIB;
        region = (struct answer){};
        device_reserve(&f.caller, &reserve, answer, &region);
        settle(&f);
        assert_int_equal(region.failure.error, 0);
        assert_int_equal(usage(&f, QUOTA_low_bytes), 3 * MIB);
        take(&f, reserve.device, 2 * MIB);
        assert_int_equal(usage(&f, QUOTA_low_bytes), 3 * MIB);
        refused(&f, (struct alloc_request){ .device = open_device(&f, 0), .size = 2 * MIB, .mask = MASK32 }, REASON_quota);
        stop(&f);
}

static void test_an_alignment_that_nothing_has_is_refused(void **state) {
        struct device_options options = { .name = "nic", .min_align_mask = UINT64_MAX, .node = -1 };
        struct failure failure;
        struct fixture f;
        uint64_t device;

        start(&f, "16M@0x140000000", NULL);
        assert_int_equal(device_open(&f.caller, &options, &device, &failure), -EINVAL);
        assert_int_equal(failure.reason, REASON_bad_param);
        stop(&f);
}

/* A source whose next carve breaks apart, as one does where others use the same pages. */
static struct source_ops breaking_ops;
static void (*carve_done)(struct source_job *job);
static unsigned carves_to_break;

static void broken(struct source_job *job) {
        job->addr &= ~UINT64_C(1);
        assert_int_equal(job->n_arrived, 1);
        job->arrived[0].addr &= ~UINT64_C(1);
        job->status = -EAGAIN;
        carve_done(job);
}

static void break_submit(struct source *source, struct source_job *job) {
        if (job->kind == SOURCE_CARVE && carves_to_break) {
                carves_to_break--;
                carve_done = job->done;
                job->done = broken;
                job->addr |= 1;
        }
        source_sim_ops.submit(source, job);
}

static void test_a_run_that_broke_apart_is_not_held_against_the_quota(void **state) {
        struct quota limits = { .of[QUOTA_held_bytes] = 4 * MIB, .of[QUOTA_regions] = 1 };
        struct caller admin = { .admin = true };
        struct fixture f;

        start(&f, "16M@0x140000000", NULL);
        breaking_ops = source_sim_ops;
        breaking_ops.submit = break_submit;
        f.source->ops = &breaking_ops;
        assert_int_equal(session_open(f.broker, "user:0", &admin.session, NULL), 0);
        assert_int_equal(quota_set(&admin, "user:1000", 1u << QUOTA_held_bytes | 1u << QUOTA_regions, &limits, NULL), 0);
        carves_to_break = 1;
        take(&f, open_device(&f, 0), 4 * MIB);
        assert_int_equal(usage(&f, QUOTA_regions), 1);
        stop(&f);
}

struct random_state {
        unsigned seed;
        struct {
                uint64_t handle, addr, size;
        } live[256];
        size_t n;
};

static void random_step(struct fixture *f, struct random_state *s, const uint64_t *devices) {
        struct alloc_request request = { .device = devices[rand_r(&s->seed) % 3] };
        struct alloc_view view;
        struct answer to;
        size_t i, victim;

        if (s->n && (s->n == 256 || rand_r(&s->seed) % 2)) {
                victim = rand_r(&s->seed) % s->n;
                drop(f, s->live[victim].handle);
                s->live[victim] = s->live[--s->n];
                return;
        }
        request.size = UINT64_C(4096) << rand_r(&s->seed) % 9;
        request.size -= rand_r(&s->seed) % 4000;
        request.align = UINT64_C(4096) << rand_r(&s->seed) % 4;
        request.boundary = rand_r(&s->seed) % 3 ? 0 : 4 * MIB;
        request.high = rand_r(&s->seed) % 8 == 0;
        to = ask(f, &request);
        if (to.failure.error)
                return;
        assert_int_equal(coherent_get(&f->caller, to.handle, &view, NULL), 0);
        assert_int_equal(view.machine_addr % request.align, 0);
        for (i = 0; i < s->n; i++)
                assert_true(view.machine_addr + view.size <= s->live[i].addr ||
                            s->live[i].addr + s->live[i].size <= view.machine_addr);
        s->live[s->n].handle = to.handle;
        s->live[s->n].addr = view.machine_addr;
        s->live[s->n++].size = view.size;
}

/* Memory is on its way back, and all that happens meanwhile concerns others. */
static void test_what_others_do_is_no_attempt_of_a_request_that_may_not_wait(void **state) {
        struct answer first = {}, second = {};
        struct session *other;
        struct fixture f;
        uint64_t device;
        unsigned i;

        start(&f, "1M@0x100000", NULL);
        device = open_device(&f, 0);
        coherent_alloc(&f.caller, &(struct alloc_request){ .device = device, .size = MIB / 2, .high = true }, answer, &first);
        settle(&f);
        assert_int_equal(coherent_free(&f.caller, first.handle, NULL), 0);
        coherent_alloc(&f.caller, &(struct alloc_request){ .device = device, .size = MIB, .high = true }, answer, &second);
        for (i = 0; i < 200; i++) {
                assert_int_equal(session_open(f.broker, "user:1001", &other, NULL), 0);
                session_close(other);
        }
        assert_false(second.given);
        settle(&f);
        assert_true(second.given);
        if (second.failure.error)
                fail_msg("%s", second.failure.sentence);
        stop(&f);
}

static void test_random_allocations_never_overlap_and_the_books_stay_right(void **state) {
        const char *steps = getenv("BROKER_MODEL_STEPS");
        long n = steps ? atol(steps) / 50 : 20000, i;
        struct random_state s = { .seed = 4711 };
        uint64_t devices[3];
        struct fixture f;

        start(&f, "4M@0x800000,16M@0x40000000,16M@0x140000000", NULL);
        devices[0] = open_device(&f, 0);
        devices[1] = open_device(&f, MASK32);
        devices[2] = open_device(&f, 0xffffff);
        for (i = 0; i < n; i++) {
                random_step(&f, &s, devices);
                f.now += 20;
                if (broker_deadline(f.broker) <= f.now)
                        broker_tick(f.broker);
                if (i % 64 == 0)
                        check(&f);
        }
        stop(&f);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_an_allocation_has_the_address_of_its_region_and_offset),
                cmocka_unit_test(test_small_allocations_of_an_owner_share_a_region_and_owners_never_do),
                cmocka_unit_test(test_what_belongs_to_another_owner_is_unknown),
                cmocka_unit_test(test_a_second_free_is_told_apart_from_an_unknown_handle),
                cmocka_unit_test(test_an_administrator_frees_what_belongs_to_others_but_gets_no_memory_of_theirs),
                cmocka_unit_test(test_wide_masks_leave_narrow_ones_their_memory),
                cmocka_unit_test(test_a_mask_keeps_every_byte_below_it),
                cmocka_unit_test(test_masks_without_memory_are_refused),
                cmocka_unit_test(test_each_impossible_request_has_its_own_reason),
                cmocka_unit_test(test_a_device_takes_no_segment_above_its_largest),
                cmocka_unit_test(test_a_boundary_of_the_device_is_never_crossed),
                cmocka_unit_test(test_quotas_are_enforced_one_by_one),
                cmocka_unit_test(test_waiting_requests_of_an_owner_are_served_in_order),
                cmocka_unit_test(test_a_request_that_may_not_wait_does_not_overtake),
                cmocka_unit_test(test_a_deadline_ends_the_wait),
                cmocka_unit_test(test_a_request_that_can_never_be_served_does_not_wait),
                cmocka_unit_test(test_a_cancelled_request_takes_nothing),
                cmocka_unit_test(test_the_emergency_reserve_is_for_high_priority_only),
                cmocka_unit_test(test_low_memory_has_its_share_of_the_emergency_reserve),
                cmocka_unit_test(test_small_low_allocations_share_regions_too),
                cmocka_unit_test(test_there_are_no_more_regions_than_the_process_has_descriptors_for),
                cmocka_unit_test(test_a_reserve_has_no_more_pieces_than_can_be_entered_in_a_moment),
                cmocka_unit_test(test_a_reserved_region_serves_its_device_and_nobody_else),
                cmocka_unit_test(test_a_region_that_is_withdrawn_stays_and_serves_nobody),
                cmocka_unit_test(test_what_is_freed_in_a_region_that_is_withdrawn_serves_nobody),
                cmocka_unit_test(test_a_region_that_is_reinstated_serves_as_before),
                cmocka_unit_test(test_a_reserve_serves_its_device_also_while_others_wait),
                cmocka_unit_test(test_only_even_megabytes_of_a_reserved_region_are_used),
                cmocka_unit_test(test_closing_a_device_reports_what_it_still_holds),
                cmocka_unit_test(test_closing_a_device_ends_what_waits_on_it),
                cmocka_unit_test(test_a_device_that_memory_is_on_its_way_to_is_closed_once),
                cmocka_unit_test(test_the_end_of_a_session_frees_what_it_held_and_leaves_what_outlives_it),
                cmocka_unit_test(test_what_is_allocated_on_a_device_without_a_session_goes_with_the_session_that_made_it),
                cmocka_unit_test(test_what_is_asked_for_on_a_device_without_a_session_ends_with_the_session_that_asked),
                cmocka_unit_test(test_an_unused_region_goes_back_when_it_was_idle_long_enough),
                cmocka_unit_test(test_unused_regions_of_others_are_taken_back_under_pressure),
                cmocka_unit_test(test_the_same_key_gives_the_same_answer_and_takes_nothing_twice),
                cmocka_unit_test(test_a_device_without_dma_uses_its_nearest_ancestor_that_has_it),
                cmocka_unit_test(test_the_configuration_says_which_devices_delegate),
                cmocka_unit_test(test_no_coherent_mask_goes_beyond_the_one_in_the_configuration),
                cmocka_unit_test(test_another_spelling_of_a_pci_address_is_the_same_device),
                cmocka_unit_test(test_a_quota_that_is_no_longer_said_gives_way_to_the_default),
                cmocka_unit_test(test_a_wide_mask_that_may_have_no_more_low_memory_is_told_so),
                cmocka_unit_test(test_zeroed_memory_is_zero_and_the_rest_of_the_region_is_untouched),
                cmocka_unit_test(test_memory_is_zero_when_it_changes_its_owner),
                cmocka_unit_test(test_memory_that_suits_is_used_before_the_system_is_asked_for_more),
                cmocka_unit_test(test_the_system_is_not_asked_for_what_cannot_be_had),
                cmocka_unit_test(test_unused_regions_of_an_owner_do_not_use_up_its_quota),
                cmocka_unit_test(test_memory_on_its_way_to_others_counts_as_memory_that_may_come_back),
                cmocka_unit_test(test_a_deadline_that_passes_while_a_job_runs_does_not_call_for_a_tick),
                cmocka_unit_test(test_reserved_regions_below_4_gib_count_against_the_quota_of_low_bytes),
                cmocka_unit_test(test_an_alignment_that_nothing_has_is_refused),
                cmocka_unit_test(test_a_run_that_broke_apart_is_not_held_against_the_quota),
                cmocka_unit_test(test_what_others_do_is_no_attempt_of_a_request_that_may_not_wait),
                cmocka_unit_test(test_random_allocations_never_overlap_and_the_books_stay_right),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
