/* Bounce pools through the core's face. */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/core-fixture.h"

#define SLOT UINT64_C(2048)
#define HIGH_LAYOUT "16M@0x100000000"

static const enum dma_direction to_device = DMA_TO_DEVICE, from_device = DMA_FROM_DEVICE, both = DMA_BIDIRECTIONAL;

static struct answer ask_pool(struct fixture *f, const struct bounce_options *options) {
        struct answer to = {};

        bounce_create(&f->caller, options, answer, &to);
        fixture_settle(f);
        assert_true(to.given);
        return to;
}

static uint64_t make_pool(struct fixture *f, uint64_t device, uint64_t size, uint64_t max_size) {
        struct answer to = ask_pool(f, &(struct bounce_options){ .device = device, .size = size, .max_size = max_size });

        return answer_handle(&to);
}

/* A device without limits and a pool that does not grow. */
static uint64_t start_with_pool(struct fixture *f, uint64_t size) {
        fixture_start(f, HIGH_LAYOUT, NULL);
        return make_pool(f, fixture_open(&f->caller, &(struct device_options){}), size, 0);
}

static struct bounce_view look(struct fixture *f, uint64_t pool) {
        struct bounce_view view;

        assert_int_equal(bounce_get(&f->caller, pool, &view, NULL), 0);
        return view;
}

static struct answer ask(struct fixture *f, const struct bounce_request *request) {
        struct answer to = {};

        bounce_map(&f->caller, request, answer, &to);
        fixture_settle(f);
        assert_true(to.given);
        return to;
}

static struct mapping_view map(struct fixture *f, uint64_t pool, uint64_t size) {
        struct answer to = ask(f, &(struct bounce_request){ .bounce = pool, .size = size });
        struct mapping_view view;

        assert_int_equal(mapping_get(&f->caller, answer_handle(&to), &view, NULL), 0);
        return view;
}

/* A request that is not answered yet. */
static struct ticket *wait_for(struct fixture *f, uint64_t pool, uint64_t size, uint64_t wait_ms, struct answer *to) {
        struct ticket *ticket;

        *to = (struct answer){};
        ticket = bounce_map(&f->caller, &(struct bounce_request){ .bounce = pool, .size = size, .wait_ms = wait_ms }, answer,
                            to);
        fixture_settle(f);
        assert_non_null(ticket);
        assert_false(to->given);
        return ticket;
}

static void unmap(struct fixture *f, uint64_t mapping) {
        assert_int_equal(bounce_unmap(&f->caller, mapping, 0, NULL, NULL), 0);
}

static struct answer ask_lease(struct fixture *f, const struct caller *caller, uint64_t pool, uint64_t slots,
                               uint64_t wait_ms) {
        struct answer to = {};

        bounce_lease(caller, &(struct bounce_request){ .bounce = pool, .size = slots, .wait_ms = wait_ms }, answer, &to);
        fixture_settle(f);
        return to;
}

static int count_visit(const struct mapping_view *view, void *userdata) {
        ++*(unsigned *)userdata;
        return 0;
}

static int no_alloc(const struct leak_view *leak, void *userdata) {
        return 0;
}

/* ---- making one ---- */

static void test_a_pool_has_whole_slots_and_says_where_it_lies(void **state) {
        struct fixture f;
        struct bounce_view view;
        struct region_view region;
        uint64_t pool = start_with_pool(&f, 100000);

        view = look(&f, pool);
        assert_int_equal(view.slot_size, SLOT);
        assert_int_equal(view.size, 25 * 4096);
        assert_int_equal(view.slots, 50);
        assert_int_equal(view.free, 50);
        assert_int_equal(view.largest_free, 50);
        assert_int_equal(view.parts, 1);
        assert_int_equal(view.areas, 1);
        assert_true(view.simulated);
        assert_string_equal(view.owner, "user:1000");
        assert_string_equal(view.device_name, "nic");
        assert_int_equal(region_get(&f.caller, view.region, &region, NULL), 0);
        assert_int_equal(region.machine_addr + view.offset, view.machine_addr);
        assert_int_equal(fixture_usage(&f.caller, QUOTA_pools), 1);
        fixture_stop(&f);
}

static void test_the_memory_of_a_pool_is_told_apart_and_cannot_be_freed(void **state) {
        struct fixture f;
        struct alloc_view alloc;
        struct failure failure;
        uint64_t pool = start_with_pool(&f, 64 * KIB);

        assert_int_equal(coherent_lookup(&f.caller, look(&f, pool).dma_addr, false, &alloc, NULL), 0);
        assert_int_equal(alloc.bounce, pool);
        assert_int_equal(coherent_free(&f.caller, alloc.handle, &failure), -EBUSY);
        require_failure(&failure, REASON_busy);
        fixture_stop(&f);
}

static void test_a_pool_with_senseless_options_is_refused(void **state) {
        static const struct {
                struct bounce_options options;
                enum reason reason;
        } rows[] = {
                { { .size = 0 }, REASON_bad_param },
                { { .size = 4096, .slot_size = 3000 }, REASON_bad_param },
                { { .size = 4096, .slot_size = 32 }, REASON_bad_param },
                { { .size = 8192, .max_size = 4096 }, REASON_bad_param },
                { { .size = 4096, .areas = 3 }, REASON_bad_param },
                { { .size = UINT64_MAX }, REASON_limit },
                { { .size = 4096, .max_size = UINT64_MAX }, REASON_limit },
                { { .size = 4096, .slot_size = UINT64_C(1) << 60 }, REASON_limit },
                { { .size = 64 * MIB }, REASON_no_memory },
        };
        struct bounce_options options;
        struct answer to;
        struct fixture f;
        uint64_t device;
        size_t i;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        device = fixture_open(&f.caller, &(struct device_options){});
        for (i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
                options = rows[i].options;
                options.device = device;
                to = ask_pool(&f, &options);
                require_refused(&to, rows[i].reason);
        }
        to = ask_pool(&f, &(struct bounce_options){ .device = device + 1, .size = 4096 });
        require_refused(&to, REASON_unknown_handle);
        assert_int_equal(fixture_usage(&f.caller, QUOTA_pools), 0);
        assert_int_equal(device_close(&f.caller, device, false, no_alloc, NULL, NULL), 0);
        fixture_stop(&f);
}

static void test_a_pool_obeys_the_streaming_mask_and_the_coherent_one(void **state) {
        struct fixture f;
        uint64_t device, pool;

        fixture_start(&f, "16M@0x10000000,16M@0x100000000", NULL);
        device = fixture_open(&f.caller, &(struct device_options){ .mask = MASK32, .coherent_mask = UINT64_MAX });
        pool = make_pool(&f, device, 64 * KIB, 0);
        assert_true(look(&f, pool).dma_addr + 64 * KIB - 1 <= MASK32);
        device = fixture_open(&f.caller, &(struct device_options){ .mask = UINT64_MAX, .coherent_mask = MASK32 });
        pool = make_pool(&f, device, 64 * KIB, 0);
        assert_true(look(&f, pool).dma_addr + 64 * KIB - 1 <= MASK32);
        fixture_stop(&f);
}

static void test_a_pool_may_be_larger_than_boundary_and_segment(void **state) {
        struct fixture f;
        uint64_t pool;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        pool = make_pool(&f, fixture_open(&f.caller, &(struct device_options){ .boundary = 64 * KIB, .max_segment = 32 * KIB }),
                         4 * MIB, 0);
        assert_int_equal(look(&f, pool).slots, 2048);
        fixture_stop(&f);
}

static void test_a_pool_counts_against_its_quota(void **state) {
        struct fixture f;
        struct answer to;
        uint64_t device;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        fixture_limit(&f.caller, QUOTA_pools, 1);
        device = fixture_open(&f.caller, &(struct device_options){});
        make_pool(&f, device, 64 * KIB, 0);
        to = ask_pool(&f, &(struct bounce_options){ .device = device, .size = 64 * KIB });
        require_refused(&to, REASON_quota);
        fixture_stop(&f);
}

static void test_the_same_key_gives_the_same_pool_and_takes_nothing_twice(void **state) {
        struct bounce_options options = { .size = 64 * KIB, .request_key = "p", .request_digest = 1 };
        struct fixture f;
        struct answer a, b;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        options.device = fixture_open(&f.caller, &(struct device_options){});
        a = ask_pool(&f, &options);
        b = ask_pool(&f, &options);
        assert_int_equal(answer_handle(&a), answer_handle(&b));
        assert_int_equal(fixture_usage(&f.caller, QUOTA_pools), 1);
        options.request_digest = 2;
        b = ask_pool(&f, &options);
        require_refused(&b, REASON_bad_param);
        assert_int_equal(bounce_destroy(&f.caller, a.handle, false, count_visit, NULL, NULL), 0);
        b = ask_pool(&f, &options);
        assert_int_not_equal(answer_handle(&b), a.handle);
        fixture_stop(&f);
}

static void test_a_pool_waits_for_memory_or_gives_up_in_time(void **state) {
        struct fixture f;
        struct alloc_view all;
        struct answer late = {}, served = {};
        uint64_t device;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        device = fixture_open(&f.caller, &(struct device_options){});
        all = fixture_alloc(&f, &f.caller, &(struct alloc_request){ .device = device, .size = 16 * MIB, .high = true });
        assert_non_null(bounce_create(&f.caller, &(struct bounce_options){ .device = device, .size = MIB, .wait_ms = 100 },
                                      answer, &late));
        assert_non_null(bounce_create(&f.caller, &(struct bounce_options){ .device = device, .size = MIB, .wait_ms = 1000 },
                                      answer, &served));
        fixture_pass(&f, 200);
        require_refused(&late, REASON_timeout);
        assert_false(served.given);
        fixture_check(&f);
        assert_int_equal(coherent_free(&f.caller, all.handle, NULL), 0);
        fixture_settle(&f);
        answer_handle(&served);
        assert_int_equal(fixture_usage(&f.caller, QUOTA_pools), 1);
        fixture_stop(&f);
}

static void test_a_pool_that_is_being_made_can_be_cancelled_and_ends_with_its_device(void **state) {
        struct fixture f;
        struct answer cancelled = {}, ended = {};
        struct ticket *ticket;
        uint64_t device;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        device = fixture_open(&f.caller, &(struct device_options){});
        fixture_alloc(&f, &f.caller, &(struct alloc_request){ .device = device, .size = 16 * MIB, .high = true });
        ticket = bounce_create(&f.caller, &(struct bounce_options){ .device = device, .size = MIB, .wait_ms = 1000 }, answer,
                               &cancelled);
        bounce_create(&f.caller, &(struct bounce_options){ .device = device, .size = MIB, .wait_ms = 1000 }, answer, &ended);
        ticket_cancel(ticket);
        fixture_check(&f);
        assert_int_equal(fixture_usage(&f.caller, QUOTA_pools), 1);
        assert_int_equal(device_close(&f.caller, device, true, no_alloc, NULL, NULL), 0);
        fixture_settle(&f);
        assert_false(cancelled.given);
        require_refused(&ended, REASON_gone);
        assert_int_equal(fixture_usage(&f.caller, QUOTA_waiters), 0);
        assert_int_equal(fixture_usage(&f.caller, QUOTA_pools), 0);
        fixture_stop(&f);
}

/* ---- mapping ---- */

static void test_a_mapping_takes_as_many_slots_as_it_needs(void **state) {
        struct fixture f;
        struct mapping_view a, b;
        struct bounce_view view;
        uint64_t pool = start_with_pool(&f, 64 * KIB);

        a = map(&f, pool, 1);
        b = map(&f, pool, 5000);
        assert_int_equal(a.slots, 1);
        assert_int_equal(b.slots, 3);
        assert_int_equal(a.size, 1);
        assert_int_equal(b.bounce, pool);
        assert_int_equal(b.alloc, 0);
        assert_true(a.dma_addr + SLOT <= b.dma_addr || b.dma_addr + 3 * SLOT <= a.dma_addr);
        view = look(&f, pool);
        assert_int_equal(view.used, 4);
        assert_int_equal(view.free, 28);
        unmap(&f, a.handle);
        unmap(&f, b.handle);
        view = look(&f, pool);
        assert_int_equal(view.used, 0);
        assert_int_equal(view.high_water, 4);
        assert_int_equal(view.maps, 2);
        assert_int_equal(view.unmaps, 2);
        assert_int_equal(fixture_usage(&f.caller, QUOTA_mappings), 0);
        fixture_stop(&f);
}

static void test_a_mapping_may_be_as_large_as_the_pool(void **state) {
        struct fixture f;
        uint64_t pool = start_with_pool(&f, 8 * MIB);

        assert_int_equal(map(&f, pool, 8 * MIB).slots, 4096);
        fixture_stop(&f);
}

static void test_the_offset_in_the_devices_alignment_window_survives(void **state) {
        struct bounce_request request = { .size = 4096, .align_offset = 0x123456789abcULL };
        struct fixture f;
        struct answer to;
        struct mapping_view view;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        request.bounce = make_pool(&f, fixture_open(&f.caller, &(struct device_options){ .min_align_mask = 4095 }), MIB, 0);
        assert_int_equal(look(&f, request.bounce).slot_size, 4096);
        to = ask(&f, &request);
        assert_int_equal(mapping_get(&f.caller, answer_handle(&to), &view, NULL), 0);
        assert_int_equal(view.dma_addr & 4095, 0xabc);
        assert_int_equal(view.machine_addr & 4095, 0xabc);
        assert_int_equal(view.slots, 2);
        assert_int_equal(view.size, 4096);
        unmap(&f, to.handle);
        assert_int_equal(look(&f, request.bounce).free, 256);
        fixture_stop(&f);
}

static void test_no_mapping_crosses_the_devices_boundary(void **state) {
        struct fixture f;
        struct mapping_view view;
        struct answer to;
        uint64_t pool;
        int i;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        pool = make_pool(&f, fixture_open(&f.caller, &(struct device_options){ .boundary = 64 * KIB }), 512 * KIB, 0);
        for (i = 0; i < 8; i++) {
                view = map(&f, pool, 40 * KIB);
                assert_int_equal(view.dma_addr >> 16, (view.dma_addr + view.size - 1) >> 16);
        }
        to = ask(&f, &(struct bounce_request){ .bounce = pool, .size = 40 * KIB });
        require_refused(&to, REASON_no_contiguous);
        to = ask(&f, &(struct bounce_request){ .bounce = pool, .size = 64 * KIB + 1 });
        require_refused(&to, REASON_boundary);
        fixture_stop(&f);
}

static void test_a_slot_may_be_larger_than_the_boundary(void **state) {
        struct fixture f;
        struct mapping_view view;
        struct answer to;
        uint64_t pool;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        pool = make_pool(&f, fixture_open(&f.caller, &(struct device_options){ .boundary = 4096, .min_align_mask = 16383 }),
                         MIB, 0);
        view = map(&f, pool, 4096);
        assert_int_equal(view.dma_addr >> 12, (view.dma_addr + view.size - 1) >> 12);
        to = ask(&f, &(struct bounce_request){ .bounce = pool, .size = 4096, .align_offset = 64 });
        require_refused(&to, REASON_boundary);
        fixture_stop(&f);
}

static void test_a_mapping_that_can_never_fit_is_refused_with_limit(void **state) {
        struct fixture f;
        struct answer to;
        uint64_t pool, growing, segments;

        pool = start_with_pool(&f, 64 * KIB);
        to = ask(&f, &(struct bounce_request){ .bounce = pool, .size = 64 * KIB + 1 });
        require_refused(&to, REASON_limit);
        assert_int_equal(failure_number(&to.failure, "asked"), 33);
        assert_int_equal(failure_number(&to.failure, "limit"), 32);
        growing = make_pool(&f, fixture_open(&f.caller, &(struct device_options){}), 64 * KIB, MIB);
        to = ask(&f, &(struct bounce_request){ .bounce = growing, .size = MIB - 64 * KIB });
        answer_handle(&to);
        to = ask(&f, &(struct bounce_request){ .bounce = growing, .size = MIB });
        require_refused(&to, REASON_limit);
        segments = make_pool(&f, fixture_open(&f.caller, &(struct device_options){ .max_segment = 8192 }), 64 * KIB, 0);
        to = ask(&f, &(struct bounce_request){ .bounce = segments, .size = 8193 });
        require_refused(&to, REASON_limit);
        to = ask(&f, &(struct bounce_request){ .bounce = segments, .size = UINT64_MAX });
        require_refused(&to, REASON_limit);
        to = ask(&f, &(struct bounce_request){ .bounce = segments, .size = 0 });
        require_refused(&to, REASON_bad_param);
        to = ask(&f, &(struct bounce_request){ .bounce = segments, .size = 1, .direction = (enum dma_direction)7 });
        require_refused(&to, REASON_bad_param);
        fixture_stop(&f);
}

static void test_a_full_pool_says_what_was_asked_what_is_in_use_and_what_is_free(void **state) {
        struct fixture f;
        struct mapping_view first, third;
        struct answer to;
        uint64_t pool = start_with_pool(&f, 8192);

        first = map(&f, pool, SLOT);
        map(&f, pool, SLOT);
        third = map(&f, pool, SLOT);
        map(&f, pool, SLOT);
        to = ask(&f, &(struct bounce_request){ .bounce = pool, .size = SLOT });
        require_refused(&to, REASON_no_memory);
        assert_int_equal(failure_number(&to.failure, "asked"), 1);
        assert_int_equal(failure_number(&to.failure, "in_use"), 4);
        assert_int_equal(failure_number(&to.failure, "slots"), 4);
        assert_int_equal(failure_number(&to.failure, "largest_free"), 0);
        assert_int_equal(failure_number(&to.failure, "bounce"), pool);
        unmap(&f, first.handle);
        unmap(&f, third.handle);
        to = ask(&f, &(struct bounce_request){ .bounce = pool, .size = 2 * SLOT });
        require_refused(&to, REASON_no_contiguous);
        assert_int_equal(failure_number(&to.failure, "in_use"), 2);
        assert_int_equal(failure_number(&to.failure, "largest_free"), 1);
        assert_int_equal(look(&f, pool).fulls, 2);
        fixture_stop(&f);
}

static void test_mappings_count_against_their_quota(void **state) {
        struct fixture f;
        struct answer to;
        uint64_t pool = start_with_pool(&f, 64 * KIB);

        fixture_limit(&f.caller, QUOTA_mappings, 1);
        map(&f, pool, 1);
        to = ask(&f, &(struct bounce_request){ .bounce = pool, .size = 1 });
        require_refused(&to, REASON_quota);
        assert_int_equal(look(&f, pool).used, 1);
        fixture_stop(&f);
}

static void test_the_same_key_gives_the_same_mapping(void **state) {
        struct bounce_request request = { .size = 100, .request_key = "m", .request_digest = 7 };
        struct fixture f;
        struct answer a, b;

        request.bounce = start_with_pool(&f, 64 * KIB);
        a = ask(&f, &request);
        b = ask(&f, &request);
        assert_int_equal(answer_handle(&a), answer_handle(&b));
        assert_int_equal(look(&f, request.bounce).used, 1);
        unmap(&f, a.handle);
        b = ask(&f, &request);
        assert_int_not_equal(answer_handle(&b), a.handle);
        fixture_stop(&f);
}

static void test_a_pool_of_another_owner_is_unknown(void **state) {
        struct fixture f;
        struct answer to = {};
        struct caller other, admin;
        struct mapping_view view;
        struct failure failure;
        struct bounce_view pool_view;
        uint64_t pool = start_with_pool(&f, 64 * KIB), mapping = map(&f, pool, 1).handle;

        other = fixture_session(&f, "user:1001");
        admin = (struct caller){ .session = other.session, .admin = true };
        assert_int_equal(bounce_get(&other, pool, &pool_view, &failure), -ENOENT);
        assert_int_equal(mapping_get(&other, mapping, &view, &failure), -ENOENT);
        assert_int_equal(bounce_unmap(&other, mapping, 0, NULL, &failure), -ENOENT);
        require_failure(&failure, REASON_unknown_handle);
        /* An administrator sees it, but takes nothing of it. */
        assert_int_equal(bounce_get(&admin, pool, &pool_view, NULL), 0);
        bounce_map(&admin, &(struct bounce_request){ .bounce = pool, .size = 1 }, answer, &to);
        require_refused(&to, REASON_unknown_handle);
        assert_int_equal(bounce_unmap(&admin, mapping, 0, NULL, NULL), 0);
        fixture_stop(&f);
}

/* ---- what dma-debug finds ---- */

static void test_unmapping_what_was_never_mapped_is_an_unknown_handle(void **state) {
        struct fixture f;
        struct failure failure;

        start_with_pool(&f, 64 * KIB);
        assert_int_equal(bounce_unmap(&f.caller, 12345, 0, NULL, &failure), -ENOENT);
        require_failure(&failure, REASON_unknown_handle);
        assert_int_equal(bounce_sync(&f.caller, 12345, 0, 0, NULL, DMA_SYNC_ANY, &failure), -ENOENT);
        require_failure(&failure, REASON_unknown_handle);
        fixture_stop(&f);
}

static void test_unmapping_twice_is_a_double_free(void **state) {
        struct fixture f;
        struct failure failure;
        uint64_t pool = start_with_pool(&f, 64 * KIB), mapping = map(&f, pool, 100).handle;

        unmap(&f, mapping);
        assert_int_equal(bounce_unmap(&f.caller, mapping, 0, NULL, &failure), -EINVAL);
        require_failure(&failure, REASON_double_free);
        assert_int_equal(bounce_sync(&f.caller, mapping, 0, 0, NULL, DMA_SYNC_ANY, &failure), -EINVAL);
        require_failure(&failure, REASON_double_free);
        fixture_stop(&f);
}

static void test_unmapping_with_another_size_is_refused_and_changes_nothing(void **state) {
        struct fixture f;
        struct failure failure;
        uint64_t pool = start_with_pool(&f, 64 * KIB), mapping = map(&f, pool, 100).handle;

        assert_int_equal(bounce_unmap(&f.caller, mapping, 101, NULL, &failure), -EINVAL);
        require_failure(&failure, REASON_wrong_size);
        assert_int_equal(failure_number(&failure, "size"), 100);
        assert_int_equal(look(&f, pool).used, 1);
        assert_int_equal(bounce_unmap(&f.caller, mapping, 100, &to_device, NULL), 0);
        fixture_stop(&f);
}

static void test_unmapping_in_another_direction_is_refused_and_changes_nothing(void **state) {
        struct fixture f;
        struct failure failure;
        uint64_t pool = start_with_pool(&f, 64 * KIB), mapping = map(&f, pool, 100).handle;

        assert_int_equal(bounce_unmap(&f.caller, mapping, 100, &from_device, &failure), -EINVAL);
        require_failure(&failure, REASON_wrong_direction);
        assert_int_equal(bounce_unmap(&f.caller, mapping, 100, &both, &failure), -EINVAL);
        require_failure(&failure, REASON_wrong_direction);
        assert_int_equal(look(&f, pool).used, 1);
        assert_int_equal(bounce_unmap(&f.caller, mapping, 100, &to_device, NULL), 0);
        fixture_stop(&f);
}

static void test_synchronising_outside_the_mapping_is_a_bad_address(void **state) {
        static const struct {
                uint64_t offset, size;
                int r;
        } rows[] = {
                { 0, 0, 0 },     { 0, 100, 0 },          { 99, 1, 0 },         { 99, 0, 0 },
                { 0, 101, -1 },  { 100, 0, -1 },         { 100, 1, -1 },       { 50, 51, -1 },
                { 1, UINT64_MAX, -1 }, { UINT64_MAX, 1, -1 }, { UINT64_MAX, 0, -1 },
        };
        struct fixture f;
        struct failure failure;
        uint64_t pool = start_with_pool(&f, 64 * KIB), mapping = map(&f, pool, 100).handle;
        size_t i;

        for (i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
                if (rows[i].r == 0) {
                        assert_int_equal(bounce_sync(&f.caller, mapping, rows[i].offset, rows[i].size, &to_device,
                                                     DMA_SYNC_FOR_DEVICE, NULL), 0);
                        continue;
                }
                assert_int_equal(bounce_sync(&f.caller, mapping, rows[i].offset, rows[i].size, &to_device,
                                             DMA_SYNC_FOR_DEVICE, &failure), -EFAULT);
                require_failure(&failure, REASON_bad_address);
        }
        assert_int_equal(look(&f, pool).syncs, 4);
        fixture_stop(&f);
}

static void test_synchronising_must_follow_the_direction(void **state) {
        static const struct {
                enum dma_direction mapped, asked;
                enum dma_sync sync;
                bool fine;
        } rows[] = {
                { DMA_TO_DEVICE, DMA_TO_DEVICE, DMA_SYNC_ANY, true },
                { DMA_TO_DEVICE, DMA_TO_DEVICE, DMA_SYNC_FOR_DEVICE, true },
                { DMA_TO_DEVICE, DMA_TO_DEVICE, DMA_SYNC_FOR_CPU, false },
                { DMA_TO_DEVICE, DMA_FROM_DEVICE, DMA_SYNC_ANY, false },
                { DMA_TO_DEVICE, DMA_BIDIRECTIONAL, DMA_SYNC_FOR_DEVICE, false },
                { DMA_FROM_DEVICE, DMA_FROM_DEVICE, DMA_SYNC_ANY, true },
                { DMA_FROM_DEVICE, DMA_FROM_DEVICE, DMA_SYNC_FOR_CPU, true },
                { DMA_FROM_DEVICE, DMA_FROM_DEVICE, DMA_SYNC_FOR_DEVICE, false },
                { DMA_FROM_DEVICE, DMA_TO_DEVICE, DMA_SYNC_FOR_CPU, false },
                { DMA_BIDIRECTIONAL, DMA_BIDIRECTIONAL, DMA_SYNC_FOR_CPU, true },
                { DMA_BIDIRECTIONAL, DMA_BIDIRECTIONAL, DMA_SYNC_FOR_DEVICE, true },
                { DMA_BIDIRECTIONAL, DMA_TO_DEVICE, DMA_SYNC_FOR_DEVICE, true },
                { DMA_BIDIRECTIONAL, DMA_FROM_DEVICE, DMA_SYNC_FOR_CPU, true },
                { DMA_BIDIRECTIONAL, DMA_TO_DEVICE, DMA_SYNC_ANY, true },
        };
        struct fixture f;
        struct failure failure;
        struct answer to;
        uint64_t pool = start_with_pool(&f, 64 * KIB);
        size_t i;
        int r;

        for (i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
                to = ask(&f, &(struct bounce_request){ .bounce = pool, .size = 100, .direction = rows[i].mapped });
                r = bounce_sync(&f.caller, answer_handle(&to), 0, 0, &rows[i].asked, rows[i].sync, &failure);
                if ((r == 0) != rows[i].fine)
                        fail_msg("row %zu", i);
                if (r < 0)
                        require_failure(&failure, REASON_wrong_direction);
                unmap(&f, to.handle);
        }
        fixture_stop(&f);
}

static void test_a_device_with_live_mappings_is_busy_and_force_ends_them(void **state) {
        struct fixture f;
        struct failure failure;
        struct device_view device;
        struct mapping_view mapping;
        uint64_t pool = start_with_pool(&f, 64 * KIB);

        mapping = map(&f, pool, 100);
        assert_int_equal(device_close(&f.caller, mapping.device, false, no_alloc, NULL, &failure), -EBUSY);
        assert_int_equal(failure_number(&failure, "mappings"), 1);
        assert_int_equal(failure_number(&failure, "bounces"), 1);
        assert_int_equal(device_close(&f.caller, mapping.device, true, no_alloc, NULL, NULL), 0);
        assert_int_equal(device_get(&f.caller, mapping.device, &device, NULL), -ENOENT);
        assert_int_equal(f.events.leaks, 1);
        assert_int_equal(f.events.last.count, 1);
        assert_int_equal(bounce_unmap(&f.caller, mapping.handle, 0, NULL, &failure), -EINVAL);
        require_failure(&failure, REASON_double_free);
        assert_int_equal(fixture_usage(&f.caller, QUOTA_mappings), 0);
        assert_int_equal(fixture_usage(&f.caller, QUOTA_bytes), 0);
        fixture_stop(&f);
}

/* ---- waiting ---- */

static void test_whoever_waits_is_served_in_order_when_slots_come_back(void **state) {
        struct fixture f;
        struct answer first, second, third;
        struct mapping_view a, b;
        uint64_t pool = start_with_pool(&f, 4096);

        a = map(&f, pool, SLOT);
        b = map(&f, pool, SLOT);
        wait_for(&f, pool, 2 * SLOT, 1000, &first);
        wait_for(&f, pool, SLOT, 1000, &second);
        wait_for(&f, pool, SLOT, 1000, &third);
        assert_int_equal(look(&f, pool).waiters, 3);
        assert_int_equal(look(&f, pool).waits, 3);
        unmap(&f, a.handle);
        /* One slot is free, and would do for the second: but the first was here before. */
        assert_false(first.given || second.given);
        unmap(&f, b.handle);
        unmap(&f, answer_handle(&first));
        assert_true(answer_handle(&second) && answer_handle(&third));
        assert_true(first.order < second.order && second.order < third.order);
        assert_int_equal(look(&f, pool).waiters, 0);
        fixture_stop(&f);
}

static void test_a_hundred_waiters_are_served_in_the_order_in_which_they_came(void **state) {
        struct answer answers[100] = {};
        struct fixture f;
        uint64_t pool = start_with_pool(&f, 4096), held;
        unsigned i;

        held = map(&f, pool, 2 * SLOT).handle;
        for (i = 0; i < 100; i++)
                wait_for(&f, pool, (1 + i % 2) * SLOT, 1000, &answers[i]);
        unmap(&f, held);
        for (i = 0; i < 100; i++) {
                unmap(&f, answer_handle(&answers[i]));
                assert_true(!i || answers[i - 1].order < answers[i].order);
        }
        assert_int_equal(look(&f, pool).free, 2);
        fixture_stop(&f);
}

static void test_who_may_not_wait_is_turned_away_behind_those_who_wait(void **state) {
        struct fixture f;
        struct answer waiting, to;
        uint64_t pool = start_with_pool(&f, 8192);

        map(&f, pool, 2 * SLOT);
        wait_for(&f, pool, 3 * SLOT, 1000, &waiting);
        /* There would be room for it. */
        to = ask(&f, &(struct bounce_request){ .bounce = pool, .size = SLOT });
        require_refused(&to, REASON_would_block);
        to = ask(&f, &(struct bounce_request){ .bounce = pool, .size = 3 * SLOT });
        require_refused(&to, REASON_no_memory);
        fixture_stop(&f);
}

static void test_high_priority_passes_those_who_wait(void **state) {
        struct fixture f;
        struct answer waiting, urgent = {}, more_urgent = {}, to;
        uint64_t pool = start_with_pool(&f, 8192), held = map(&f, pool, 2 * SLOT).handle;

        wait_for(&f, pool, 3 * SLOT, 1000, &waiting);
        to = ask(&f, &(struct bounce_request){ .bounce = pool, .size = SLOT, .high = true });
        answer_handle(&to);
        bounce_map(&f.caller, &(struct bounce_request){ .bounce = pool, .size = 4 * SLOT, .high = true, .wait_ms = 1000 },
                   answer, &urgent);
        bounce_map(&f.caller, &(struct bounce_request){ .bounce = pool, .size = 2 * SLOT, .high = true, .wait_ms = 1000 },
                   answer, &more_urgent);
        /* Behind others of high priority it still does not wait. */
        to = ask(&f, &(struct bounce_request){ .bounce = pool, .size = SLOT, .high = true });
        answer_handle(&to);
        to = ask(&f, &(struct bounce_request){ .bounce = pool, .size = SLOT, .high = true });
        require_refused(&to, REASON_no_memory);
        unmap(&f, held);
        assert_false(urgent.given || more_urgent.given || waiting.given);
        assert_int_equal(look(&f, pool).waiters, 3);
        fixture_stop(&f);
}

static void test_waiting_ends_with_timeout_and_numbers(void **state) {
        struct fixture f;
        struct answer to, later;
        uint64_t pool = start_with_pool(&f, 4096);

        map(&f, pool, 2 * SLOT);
        wait_for(&f, pool, SLOT, 100, &to);
        wait_for(&f, pool, SLOT, 200, &later);
        assert_int_equal(broker_deadline(f.broker), f.now + 100);
        fixture_pass(&f, 99);
        assert_false(to.given);
        fixture_pass(&f, 1);
        require_refused(&to, REASON_timeout);
        assert_int_equal(failure_number(&to.failure, "asked"), 1);
        assert_int_equal(failure_number(&to.failure, "in_use"), 2);
        assert_int_equal(failure_number(&to.failure, "largest_free"), 0);
        assert_int_equal(failure_number(&to.failure, "wait_ms"), 100);
        assert_false(later.given);
        assert_int_equal(look(&f, pool).timeouts, 1);
        assert_int_equal(fixture_usage(&f.caller, QUOTA_waiters), 1);
        fixture_stop(&f);
}

static void test_when_the_first_gives_up_the_next_gets_what_suits_it(void **state) {
        struct fixture f;
        struct answer first, second, third, fourth;
        struct ticket *ticket;
        uint64_t pool = start_with_pool(&f, 8192);

        map(&f, pool, 2 * SLOT);
        wait_for(&f, pool, 3 * SLOT, 100, &first);
        wait_for(&f, pool, SLOT, 1000, &second);
        fixture_pass(&f, 100);
        require_refused(&first, REASON_timeout);
        answer_handle(&second);
        ticket = wait_for(&f, pool, 3 * SLOT, 1000, &third);
        wait_for(&f, pool, SLOT, 1000, &fourth);
        ticket_cancel(ticket);
        answer_handle(&fourth);
        assert_false(third.given);
        assert_int_equal(look(&f, pool).waiters, 0);
        fixture_stop(&f);
}

static void test_a_key_that_is_waited_with_is_busy_and_free_after_a_cancel(void **state) {
        struct bounce_request request = { .size = SLOT, .wait_ms = 100, .request_key = "k" };
        struct fixture f;
        struct answer a = {}, b;
        struct ticket *ticket;
        struct mapping_view held;

        request.bounce = start_with_pool(&f, 4096);
        held = map(&f, request.bounce, 2 * SLOT);
        ticket = bounce_map(&f.caller, &request, answer, &a);
        b = ask(&f, &request);
        require_refused(&b, REASON_busy);
        ticket_cancel(ticket);
        unmap(&f, held.handle);
        b = ask(&f, &request);
        answer_handle(&b);
        assert_false(a.given);
        fixture_stop(&f);
}

static void test_waiters_count_against_their_quota(void **state) {
        struct fixture f;
        struct answer waiting, to = {};
        uint64_t pool = start_with_pool(&f, 4096);

        map(&f, pool, 2 * SLOT);
        fixture_limit(&f.caller, QUOTA_waiters, 1);
        wait_for(&f, pool, SLOT, 1000, &waiting);
        bounce_map(&f.caller, &(struct bounce_request){ .bounce = pool, .size = SLOT, .wait_ms = 10 }, answer, &to);
        require_refused(&to, REASON_quota);
        fixture_stop(&f);
}

static void test_waiters_are_told_when_their_pool_is_gone(void **state) {
        struct fixture f;
        struct answer waiting;
        unsigned left = 0;
        uint64_t pool = start_with_pool(&f, 4096);

        map(&f, pool, 2 * SLOT);
        wait_for(&f, pool, SLOT, 1000, &waiting);
        assert_int_equal(bounce_destroy(&f.caller, pool, true, count_visit, &left, NULL), 0);
        require_refused(&waiting, REASON_gone);
        assert_int_equal(left, 1);
        fixture_stop(&f);
}

static void test_waiters_are_told_when_their_session_or_device_ends(void **state) {
        struct fixture f;
        struct answer of_session = {}, of_device;
        struct caller second;
        uint64_t pool = start_with_pool(&f, 4096), device = look(&f, pool).device;

        second = fixture_session(&f, NULL);
        map(&f, pool, 2 * SLOT);
        bounce_map(&second, &(struct bounce_request){ .bounce = pool, .size = 2 * SLOT, .wait_ms = 1000 }, answer,
                   &of_session);
        wait_for(&f, pool, SLOT, 1000, &of_device);
        session_close(second.session);
        require_refused(&of_session, REASON_gone);
        assert_int_equal(look(&f, pool).waiters, 1);
        assert_int_equal(device_close(&f.caller, device, true, no_alloc, NULL, NULL), 0);
        fixture_settle(&f);
        require_refused(&of_device, REASON_gone);
        fixture_stop(&f);
}

/* What an answer does. */
struct deed {
        struct fixture *f;
        uint64_t pool;
        struct session *session;
        struct ticket *ticket;
        struct answer got, follow_up;
};

static void destroy_when_answered(void *userdata, const struct failure *failure, uint64_t handle) {
        struct deed *deed = userdata;

        answer(&deed->got, failure, handle);
        bounce_destroy(&deed->f->caller, deed->pool, true, count_visit, &(unsigned){ 0 }, NULL);
}

static void close_when_answered(void *userdata, const struct failure *failure, uint64_t handle) {
        struct deed *deed = userdata;

        answer(&deed->got, failure, handle);
        session_close(deed->session);
}

static void map_when_answered(void *userdata, const struct failure *failure, uint64_t handle) {
        struct deed *deed = userdata;

        answer(&deed->got, failure, handle);
        bounce_unmap(&deed->f->caller, handle, 0, NULL, NULL);
        deed->ticket = bounce_map(&deed->f->caller, &(struct bounce_request){ .bounce = deed->pool, .size = SLOT, .wait_ms = 9 },
                                  answer, &deed->follow_up);
}

static void cancel_when_answered(void *userdata, const struct failure *failure, uint64_t handle) {
        struct deed *deed = userdata;

        answer(&deed->got, failure, handle);
        ticket_cancel(deed->ticket);
}

static void test_an_answer_may_destroy_the_pool_that_others_wait_for(void **state) {
        struct fixture f;
        struct deed deed = { .f = &f };
        struct answer second, third;
        uint64_t held;

        deed.pool = start_with_pool(&f, 4096);
        held = map(&f, deed.pool, 2 * SLOT).handle;
        bounce_map(&f.caller, &(struct bounce_request){ .bounce = deed.pool, .size = SLOT, .wait_ms = 1000 },
                   destroy_when_answered, &deed);
        wait_for(&f, deed.pool, SLOT, 1000, &second);
        wait_for(&f, deed.pool, SLOT, 1000, &third);
        unmap(&f, held);
        answer_handle(&deed.got);
        /* It had been served, and its mapping has gone with the pool before it could be told. */
        require_refused(&second, REASON_gone);
        require_refused(&third, REASON_gone);
        assert_int_equal(fixture_usage(&f.caller, QUOTA_bytes), 0);
        fixture_stop(&f);
}

static void test_an_answer_may_close_the_session_that_waits(void **state) {
        struct fixture f;
        struct deed deed = { .f = &f };
        struct answer second = {};
        struct caller other;
        uint64_t pool, held;

        pool = start_with_pool(&f, 4096);
        other = fixture_session(&f, NULL);
        deed.session = other.session;
        held = map(&f, pool, 2 * SLOT).handle;
        bounce_map(&other, &(struct bounce_request){ .bounce = pool, .size = SLOT, .wait_ms = 1000 }, close_when_answered,
                   &deed);
        bounce_map(&other, &(struct bounce_request){ .bounce = pool, .size = 2 * SLOT, .wait_ms = 1000 }, answer, &second);
        unmap(&f, held);
        answer_handle(&deed.got);
        require_refused(&second, REASON_gone);
        assert_int_equal(look(&f, pool).free, 2);
        fixture_stop(&f);
}

static void test_an_answer_may_ask_again(void **state) {
        struct fixture f;
        struct deed deed = { .f = &f };
        struct answer second;
        uint64_t held;

        deed.pool = start_with_pool(&f, 2048);
        assert_int_equal(look(&f, deed.pool).slots, 2);
        held = map(&f, deed.pool, 2 * SLOT).handle;
        bounce_map(&f.caller, &(struct bounce_request){ .bounce = deed.pool, .size = SLOT, .wait_ms = 1000 },
                   map_when_answered, &deed);
        wait_for(&f, deed.pool, 2 * SLOT, 1000, &second);
        unmap(&f, held);
        answer_handle(&deed.got);
        answer_handle(&second);
        assert_false(deed.follow_up.given);
        assert_non_null(deed.ticket);
        unmap(&f, second.handle);
        answer_handle(&deed.follow_up);
        fixture_stop(&f);
}

static void test_an_answer_may_cancel_another_that_is_about_to_be_given(void **state) {
        struct fixture f;
        struct deed deed = { .f = &f };
        struct answer second;
        uint64_t held, pool = start_with_pool(&f, 4096);

        held = map(&f, pool, 2 * SLOT).handle;
        bounce_map(&f.caller, &(struct bounce_request){ .bounce = pool, .size = SLOT, .wait_ms = 1000 }, cancel_when_answered,
                   &deed);
        deed.ticket = wait_for(&f, pool, SLOT, 1000, &second);
        unmap(&f, held);
        answer_handle(&deed.got);
        assert_false(second.given);
        assert_int_equal(look(&f, pool).used, 1);
        fixture_stop(&f);
}

/* ---- growing ---- */

static void test_a_pool_grows_on_demand_up_to_its_limit(void **state) {
        struct fixture f;
        struct bounce_view view;
        struct answer to;
        uint64_t pool;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        pool = make_pool(&f, fixture_open(&f.caller, &(struct device_options){}), 64 * KIB, 256 * KIB);
        map(&f, pool, 64 * KIB);
        map(&f, pool, SLOT);
        view = look(&f, pool);
        assert_int_equal(view.parts, 2);
        assert_int_equal(view.size, 128 * KIB);
        map(&f, pool, 128 * KIB);
        view = look(&f, pool);
        assert_int_equal(view.parts, 3);
        assert_int_equal(view.grows, 2);
        assert_int_equal(view.size, 256 * KIB);
        to = ask(&f, &(struct bounce_request){ .bounce = pool, .size = 64 * KIB });
        require_refused(&to, REASON_no_memory);
        assert_int_equal(failure_number(&to.failure, "in_use"), 97);
        fixture_stop(&f);
}

static void test_growing_takes_less_when_there_is_no_more(void **state) {
        struct fixture f;
        struct alloc_view rest;
        uint64_t device, pool;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        device = fixture_open(&f.caller, &(struct device_options){});
        pool = make_pool(&f, device, 4 * MIB, 16 * MIB);
        rest = fixture_alloc(&f, &f.caller, &(struct alloc_request){ .device = device, .size = 11 * MIB, .high = true });
        map(&f, pool, 4 * MIB);
        map(&f, pool, SLOT);
        assert_int_equal(look(&f, pool).size, 4 * MIB + 4 * KIB);
        assert_int_equal(coherent_free(&f.caller, rest.handle, NULL), 0);
        fixture_stop(&f);
}

static void test_a_pool_that_cannot_grow_says_why(void **state) {
        struct fixture f;
        struct answer to;
        uint64_t pool;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        pool = make_pool(&f, fixture_open(&f.caller, &(struct device_options){}), 64 * KIB, MIB);
        fixture_limit(&f.caller, QUOTA_bytes, 64 * KIB);
        map(&f, pool, 64 * KIB);
        to = ask(&f, &(struct bounce_request){ .bounce = pool, .size = SLOT });
        require_refused(&to, REASON_no_memory);
        assert_string_equal(to.failure.values[to.failure.n_values - 1].name, "grow");
        assert_string_equal(to.failure.values[to.failure.n_values - 1].text, "quota");
        /* What never fitted is not waited for either when nothing can come back. */
        assert_int_equal(look(&f, pool).parts, 1);
        fixture_stop(&f);
}

static void test_a_waiter_is_served_by_growth_or_by_slots_whichever_comes_first(void **state) {
        struct fixture f;
        struct answer by_slots, by_growth;
        struct alloc_view all;
        uint64_t device, pool, held;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        device = fixture_open(&f.caller, &(struct device_options){});
        pool = make_pool(&f, device, 8 * KIB, MIB);
        all = fixture_alloc(&f, &f.caller, &(struct alloc_request){ .device = device, .size = 14 * MIB, .high = true });
        while (ask(&f, &(struct bounce_request){ .bounce = pool, .size = 8 * KIB }).handle)
                if (look(&f, pool).size == MIB)
                        break;
        pool = make_pool(&f, device, 8 * KIB, 64 * KIB);
        while (fixture_usage(&f.caller, QUOTA_bytes) < 16 * MIB)
                fixture_alloc(&f, &f.caller, &(struct alloc_request){ .device = device, .size = 4096, .high = true });
        held = map(&f, pool, 8 * KIB).handle;
        wait_for(&f, pool, SLOT, 1000, &by_slots);
        unmap(&f, held);
        answer_handle(&by_slots);
        wait_for(&f, pool, 8 * KIB, 1000, &by_growth);
        assert_int_equal(coherent_free(&f.caller, all.handle, NULL), 0);
        fixture_settle(&f);
        answer_handle(&by_growth);
        assert_int_equal(look(&f, pool).parts, 2);
        fixture_stop(&f);
}

static void test_growth_that_nobody_waits_for_any_more_is_called_off(void **state) {
        struct fixture f;
        struct answer to = {};
        struct ticket *ticket;
        uint64_t pool, device;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        device = fixture_open(&f.caller, &(struct device_options){});
        pool = make_pool(&f, device, 2 * MIB, 8 * MIB);
        map(&f, pool, 2 * MIB);
        ticket = bounce_map(&f.caller, &(struct bounce_request){ .bounce = pool, .size = 2 * MIB, .wait_ms = 10 }, answer, &to);
        assert_non_null(ticket);
        ticket_cancel(ticket);
        fixture_settle(&f);
        assert_int_equal(look(&f, pool).parts, 1);
        /* The same with the pool's end, while its memory is on its way. */
        ticket = bounce_map(&f.caller, &(struct bounce_request){ .bounce = pool, .size = 6 * MIB, .wait_ms = 10 }, answer, &to);
        assert_non_null(ticket);
        assert_int_equal(device_close(&f.caller, device, true, no_alloc, NULL, NULL), 0);
        fixture_settle(&f);
        require_refused(&to, REASON_gone);
        fixture_stop(&f);
}

static void test_who_may_not_wait_still_waits_for_memory_that_is_being_fetched(void **state) {
        struct fixture f;
        struct answer a = {}, b = {};
        uint64_t pool;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        pool = make_pool(&f, fixture_open(&f.caller, &(struct device_options){}), 2 * MIB, 4 * MIB);
        map(&f, pool, 2 * MIB);
        bounce_map(&f.caller, &(struct bounce_request){ .bounce = pool, .size = MIB }, answer, &a);
        bounce_map(&f.caller, &(struct bounce_request){ .bounce = pool, .size = MIB }, answer, &b);
        assert_false(a.given || b.given);
        fixture_settle(&f);
        assert_true(answer_handle(&a) && answer_handle(&b));
        assert_int_equal(look(&f, pool).grows, 1);
        fixture_stop(&f);
}

static void test_a_grown_part_goes_back_when_it_stays_unused(void **state) {
        struct broker_options options;
        struct fixture f;
        uint64_t pool, grown;

        broker_options_default(&options);
        options.region_idle_ms = 500;
        fixture_start(&f, HIGH_LAYOUT, &options);
        pool = make_pool(&f, fixture_open(&f.caller, &(struct device_options){}), 64 * KIB, MIB);
        map(&f, pool, 64 * KIB);
        grown = map(&f, pool, SLOT).handle;
        fixture_pass(&f, 600);
        assert_int_equal(look(&f, pool).parts, 2);
        unmap(&f, grown);
        assert_int_equal(broker_deadline(f.broker), f.now + 500);
        fixture_pass(&f, 499);
        assert_int_equal(look(&f, pool).parts, 2);
        fixture_pass(&f, 1);
        assert_int_equal(look(&f, pool).parts, 1);
        assert_int_equal(look(&f, pool).size, 64 * KIB);
        fixture_stop(&f);
}

static void test_a_grown_part_goes_back_when_others_need_memory(void **state) {
        struct fixture f;
        uint64_t device, pool, grown;
        struct caller other;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        device = fixture_open(&f.caller, &(struct device_options){});
        pool = make_pool(&f, device, 4 * MIB, 12 * MIB);
        map(&f, pool, 4 * MIB);
        grown = map(&f, pool, 8 * MIB).handle;
        unmap(&f, grown);
        other = fixture_session(&f, "user:1001");
        fixture_alloc(&f, &other, &(struct alloc_request){ .device = fixture_open(&other, &(struct device_options){}),
                                                           .size = 10 * MIB, .high = true });
        assert_int_equal(look(&f, pool).parts, 1);
        fixture_stop(&f);
}

static void test_a_grown_part_goes_back_when_its_owner_needs_memory_in_the_same_region(void **state) {
        struct fixture f;
        struct alloc_view all;
        uint64_t device, pool;

        fixture_start(&f, "256k@0x100000000", NULL);
        device = fixture_open(&f.caller, &(struct device_options){});
        /* One region for everything. */
        all = fixture_alloc(&f, &f.caller, &(struct alloc_request){ .device = device, .size = 256 * KIB, .high = true });
        assert_int_equal(coherent_free(&f.caller, all.handle, NULL), 0);
        pool = make_pool(&f, device, 16 * KIB, 128 * KIB);
        map(&f, pool, 16 * KIB);
        unmap(&f, map(&f, pool, 112 * KIB).handle);
        assert_int_equal(fixture_usage(&f.caller, QUOTA_regions), 1);
        fixture_alloc(&f, &f.caller, &(struct alloc_request){ .device = device, .size = 200 * KIB, .high = true });
        assert_int_equal(look(&f, pool).parts, 1);
        fixture_stop(&f);
}

static void test_unused_parts_make_room_for_one_that_is_large_enough(void **state) {
        struct fixture f;
        uint64_t pool, small;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        pool = make_pool(&f, fixture_open(&f.caller, &(struct device_options){}), 64 * KIB, 256 * KIB);
        map(&f, pool, 64 * KIB);
        small = map(&f, pool, SLOT).handle;
        unmap(&f, small);
        map(&f, pool, 192 * KIB);
        assert_int_equal(look(&f, pool).parts, 2);
        assert_int_equal(look(&f, pool).size, 256 * KIB);
        fixture_stop(&f);
}

static void test_what_a_narrower_mask_cannot_reach_is_not_used_any_more(void **state) {
        struct fixture f;
        struct mapping_view view;
        struct answer to;
        uint64_t device, pool;

        fixture_start(&f, "16M@0x10000000,16M@0x100000000", NULL);
        device = fixture_open(&f.caller, &(struct device_options){});
        pool = make_pool(&f, device, 64 * KIB, 0);
        view = map(&f, pool, SLOT);
        assert_true(view.dma_addr > MASK32);
        assert_int_equal(device_set_mask(&f.caller, device, MASK32, false, NULL), 0);
        to = ask(&f, &(struct bounce_request){ .bounce = pool, .size = SLOT });
        require_refused(&to, REASON_no_contiguous);
        pool = make_pool(&f, device, 64 * KIB, 128 * KIB);
        assert_true(map(&f, pool, SLOT).dma_addr <= MASK32);
        fixture_stop(&f);
}

static void test_growing_for_a_request_is_not_another_one_that_waits(void **state) {
        struct fixture f;
        struct answer to;
        uint64_t pool;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        pool = make_pool(&f, fixture_open(&f.caller, &(struct device_options){}), 64 * KIB, MIB);
        map(&f, pool, 64 * KIB);
        fixture_limit(&f.caller, QUOTA_waiters, 1);
        to = ask(&f, &(struct bounce_request){ .bounce = pool, .size = SLOT });
        assert_true(answer_handle(&to) > 0);
        assert_int_equal(look(&f, pool).parts, 2);
        fixture_stop(&f);
}

static void test_a_pool_of_a_device_with_a_reserve_grows_in_the_reserve(void **state) {
        struct fixture f;
        struct answer reserved = {}, to;
        struct region_view region;
        struct mapping_view view;
        struct failure failure;
        uint64_t device, pool;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        device = fixture_open(&f.caller, &(struct device_options){});
        device_reserve(&f.caller, &(struct reserve_request){ .device = device, .size = MIB }, answer, &reserved);
        fixture_settle(&f);
        assert_int_equal(region_get(&f.caller, answer_handle(&reserved), &region, NULL), 0);
        pool = make_pool(&f, device, 512 * KIB, 4 * MIB);
        map(&f, pool, 512 * KIB);
        view = map(&f, pool, SLOT);
        assert_int_equal(view.region, reserved.handle);
        assert_int_equal(look(&f, pool).parts, 2);
        to = ask(&f, &(struct bounce_request){ .bounce = pool, .size = 512 * KIB });
        require_refused(&to, REASON_no_memory);
        assert_int_equal(device_unreserve(&f.caller, device, reserved.handle, &failure), -EBUSY);
        assert_int_equal(bounce_destroy(&f.caller, pool, true, count_visit, &(unsigned){ 0 }, NULL), 0);
        assert_int_equal(device_unreserve(&f.caller, device, reserved.handle, &failure), 0);
        fixture_settle(&f);
        fixture_stop(&f);
}

static void test_a_device_with_a_reserve_gets_its_unused_parts_back(void **state) {
        struct fixture f;
        struct answer reserved = {};
        uint64_t device, pool;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        device = fixture_open(&f.caller, &(struct device_options){});
        device_reserve(&f.caller, &(struct reserve_request){ .device = device, .size = 2 * MIB }, answer, &reserved);
        fixture_settle(&f);
        answer_handle(&reserved);
        pool = make_pool(&f, device, 512 * KIB, 2 * MIB);
        map(&f, pool, 512 * KIB);
        unmap(&f, map(&f, pool, 1536 * KIB).handle);
        assert_int_equal(look(&f, pool).parts, 2);
        fixture_alloc(&f, &f.caller, &(struct alloc_request){ .device = device, .size = MIB });
        assert_int_equal(look(&f, pool).parts, 1);
        fixture_stop(&f);
}

static void test_a_request_for_a_reserve_leaves_others_their_unused_parts(void **state) {
        struct fixture f;
        struct answer reserved = {}, to = {};
        struct caller other;
        uint64_t device, pool;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        pool = make_pool(&f, fixture_open(&f.caller, &(struct device_options){}), 64 * KIB, MIB);
        map(&f, pool, 64 * KIB);
        unmap(&f, map(&f, pool, SLOT).handle);
        assert_int_equal(look(&f, pool).parts, 2);
        other = fixture_session(&f, "user:1001");
        device = fixture_open(&other, &(struct device_options){});
        device_reserve(&other, &(struct reserve_request){ .device = device, .size = 2 * MIB }, answer, &reserved);
        fixture_settle(&f);
        answer_handle(&reserved);
        fixture_alloc(&f, &other, &(struct alloc_request){ .device = device, .size = 2 * MIB });
        coherent_alloc(&other, &(struct alloc_request){ .device = device, .size = MIB }, answer, &to);
        fixture_settle(&f);
        require_refused(&to, REASON_no_memory);
        assert_int_equal(look(&f, pool).parts, 2);
        fixture_stop(&f);
}

static void test_slots_that_come_back_wake_whoever_waits_for_the_memory(void **state) {
        struct fixture f;
        struct answer to = {};
        uint64_t device, pool, grown;
        struct caller other;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        pool = make_pool(&f, fixture_open(&f.caller, &(struct device_options){}), 4 * MIB, 12 * MIB);
        map(&f, pool, 4 * MIB);
        grown = map(&f, pool, 8 * MIB).handle;
        other = fixture_session(&f, "user:1001");
        device = fixture_open(&other, &(struct device_options){});
        coherent_alloc(&other, &(struct alloc_request){ .device = device, .size = 10 * MIB, .high = true, .wait_ms = 60000 },
                       answer, &to);
        fixture_settle(&f);
        assert_false(to.given);
        unmap(&f, grown);
        fixture_settle(&f);
        answer_handle(&to);
        fixture_stop(&f);
}

static void test_a_pool_in_a_full_reserve_is_refused_behind_those_who_wait(void **state) {
        struct fixture f;
        struct answer reserved = {}, waiting = {}, to;
        uint64_t device;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        device = fixture_open(&f.caller, &(struct device_options){});
        device_reserve(&f.caller, &(struct reserve_request){ .device = device, .size = 2 * MIB }, answer, &reserved);
        fixture_settle(&f);
        answer_handle(&reserved);
        fixture_alloc(&f, &f.caller, &(struct alloc_request){ .device = device, .size = 2 * MIB });
        coherent_alloc(&f.caller, &(struct alloc_request){ .device = device, .size = MIB, .wait_ms = 1000 }, answer, &waiting);
        fixture_settle(&f);
        assert_false(waiting.given);
        to = ask_pool(&f, &(struct bounce_options){ .device = device, .size = 64 * KIB });
        require_refused(&to, REASON_no_memory);
        fixture_stop(&f);
}

/* ---- leases ---- */

static void test_a_lease_is_a_run_of_slots_an_area_by_default(void **state) {
        struct fixture f;
        struct answer to;
        struct lease_view lease;
        struct bounce_view view;
        uint64_t pool;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        to = ask_pool(&f, &(struct bounce_options){ .device = fixture_open(&f.caller, &(struct device_options){}),
                                                    .size = 64 * KIB, .areas = 4 });
        pool = answer_handle(&to);
        to = ask_lease(&f, &f.caller, pool, 0, 0);
        assert_int_equal(lease_get(&f.caller, answer_handle(&to), &lease, NULL), 0);
        assert_int_equal(lease.count, 8);
        assert_int_equal(lease.unit, SLOT);
        assert_int_equal(lease.bounce, pool);
        view = look(&f, pool);
        assert_int_equal(view.leased, 8);
        assert_int_equal(view.free, 24);
        assert_int_equal(view.leases, 1);
        assert_int_equal(view.high_water, 8);
        assert_int_equal(lease.dma_addr - view.dma_addr, lease.offset - view.offset);
        assert_int_equal(lease_return(&f.caller, to.handle, LEASE_OF_BOUNCE, NULL), 0);
        assert_int_equal(look(&f, pool).leased, 0);
        to = ask_lease(&f, &f.caller, pool, 33, 0);
        require_refused(&to, REASON_limit);
        fixture_stop(&f);
}

static void test_a_full_pool_asks_for_leases_back_and_serves_who_waits(void **state) {
        struct fixture f;
        struct answer lease, to;
        uint64_t pool = start_with_pool(&f, 64 * KIB);

        lease = ask_lease(&f, &f.caller, pool, 32, 0);
        answer_handle(&lease);
        wait_for(&f, pool, SLOT, 1000, &to);
        assert_int_equal(f.events.recalls, 1);
        assert_int_equal(f.events.last.bounce, pool);
        assert_int_equal(look(&f, pool).recalls, 1);
        assert_int_equal(lease_return(&f.caller, lease.handle, LEASE_OF_BOUNCE, NULL), 0);
        answer_handle(&to);
        fixture_stop(&f);
}

static void test_a_pool_with_mappings_or_leases_is_busy_unless_forced(void **state) {
        struct fixture f;
        struct answer lease;
        struct failure failure;
        unsigned left = 0;
        uint64_t pool = start_with_pool(&f, 64 * KIB), mapping = map(&f, pool, 100).handle;

        lease = ask_lease(&f, &f.caller, pool, 4, 0);
        assert_int_equal(bounce_destroy(&f.caller, pool, false, count_visit, &left, &failure), -EBUSY);
        require_failure(&failure, REASON_busy);
        assert_int_equal(failure_number(&failure, "mappings"), 1);
        assert_int_equal(failure_number(&failure, "leases"), 1);
        assert_int_equal(left, 2);
        assert_int_equal(bounce_destroy(&f.caller, pool, true, count_visit, &left, NULL), 0);
        assert_int_equal(left, 4);
        assert_int_equal(f.events.leaks, 1);
        assert_int_equal(f.events.last.bounce, pool);
        assert_int_equal(f.events.last.count, 2);
        assert_int_equal(bounce_unmap(&f.caller, mapping, 0, NULL, &failure), -EINVAL);
        assert_int_equal(lease_return(&f.caller, lease.handle, LEASE_OF_BOUNCE, &failure), -EINVAL);
        assert_int_equal(fixture_usage(&f.caller, QUOTA_bytes), 0);
        assert_int_equal(fixture_usage(&f.caller, QUOTA_leases), 0);
        fixture_stop(&f);
}

static void test_slots_of_a_vanished_client_rest_before_they_are_used_again(void **state) {
        struct broker_options options;
        struct fixture f;
        struct bounce_view view;
        struct answer waiting, to = {};
        struct caller other;
        uint64_t pool;

        broker_options_default(&options);
        options.quarantine_ms = 300;
        fixture_start(&f, HIGH_LAYOUT, &options);
        pool = make_pool(&f, fixture_open(&f.caller, &(struct device_options){}), 8192, 0);
        other = fixture_session(&f, NULL);
        ask_lease(&f, &other, pool, 2, 0);
        bounce_map(&other, &(struct bounce_request){ .bounce = pool, .size = 2 * SLOT }, answer, &to);
        answer_handle(&to);
        session_abandon(other.session);
        view = look(&f, pool);
        assert_int_equal(view.quarantined, 4);
        assert_int_equal(view.free + view.used + view.leased, 0);
        fixture_check(&f);
        to = ask(&f, &(struct bounce_request){ .bounce = pool, .size = SLOT });
        require_refused(&to, REASON_no_memory);
        assert_int_equal(failure_number(&to.failure, "quarantined"), 4);
        wait_for(&f, pool, SLOT, 1000, &waiting);
        assert_int_equal(broker_deadline(f.broker), f.now + 300);
        fixture_pass(&f, 299);
        assert_false(waiting.given);
        fixture_pass(&f, 1);
        answer_handle(&waiting);
        assert_int_equal(look(&f, pool).quarantined, 0);
        fixture_stop(&f);
}

static int count_device(const struct device_view *view, void *userdata) {
        ++*(unsigned *)userdata;
        return 0;
}

/* Its last allocation was the owner's, and outlived the session; what rests is nobody's. */
static void test_a_device_in_which_something_only_rests_is_found_no_more(void **state) {
        struct answer to = {}, pool = {}, slots = {};
        struct caller other;
        struct fixture f;
        uint64_t device;
        unsigned n = 0;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        other = fixture_session(&f, NULL);
        device = fixture_open(&other, &(struct device_options){});
        coherent_alloc(&other, &(struct alloc_request){ .device = device, .size = 4096, .owner_lifetime = true }, answer, &to);
        fixture_settle(&f);
        bounce_create(&other, &(struct bounce_options){ .device = device, .size = 8192 }, answer, &pool);
        fixture_settle(&f);
        bounce_lease(&other, &(struct bounce_request){ .bounce = answer_handle(&pool), .size = 2 }, answer, &slots);
        answer_handle(&slots);
        session_abandon(other.session);
        device_visit(&f.caller, NULL, count_device, &n, NULL);
        assert_int_equal(n, 1);
        assert_int_equal(coherent_free(&f.caller, answer_handle(&to), NULL), 0);
        assert_int_equal(fixture_usage(&f.caller, QUOTA_bytes), 8192);
        n = 0;
        device_visit(&f.caller, NULL, count_device, &n, NULL);
        assert_int_equal(n, 0);
        assert_int_equal(fixture_usage(&f.caller, QUOTA_devices), 0);
        fixture_check(&f);
        fixture_pass(&f, 1000);
        assert_int_equal(fixture_usage(&f.caller, QUOTA_bytes), 0);
        fixture_stop(&f);
}

static void test_slots_of_a_session_that_says_goodbye_are_free_at_once(void **state) {
        struct fixture f;
        struct caller other;
        uint64_t pool = start_with_pool(&f, 8192);

        other = fixture_session(&f, NULL);
        ask_lease(&f, &other, pool, 2, 0);
        session_close(other.session);
        assert_int_equal(look(&f, pool).free, 4);
        fixture_stop(&f);
}

/* Takes all memory there is for another owner; whether this address was part of it. */
static bool others_can_get(struct fixture *f, uint64_t dma_addr) {
        struct caller other = fixture_session(f, "user:1001");
        uint64_t device = fixture_open(&other, &(struct device_options){ .name = "gpu" });
        struct alloc_view view;
        struct answer to;
        bool got;

        do {
                to = (struct answer){};
                coherent_alloc(&other, &(struct alloc_request){ .device = device, .size = 4096, .high = true }, answer, &to);
                fixture_settle(f);
                assert_true(to.given);
        } while (!to.failure.error);
        got = coherent_lookup(&other, dma_addr, false, &view, NULL) == 0;
        session_close(other.session);
        fixture_settle(f);
        return got;
}

static void test_slots_of_a_vanished_client_rest_though_their_pool_is_destroyed(void **state) {
        struct fixture f;
        struct caller other;
        struct lease_view lease;
        uint64_t pool = start_with_pool(&f, 8192);
        struct answer to;

        other = fixture_session(&f, NULL);
        to = ask_lease(&f, &other, pool, 2, 0);
        assert_int_equal(lease_get(&other, answer_handle(&to), &lease, NULL), 0);
        session_abandon(other.session);
        assert_int_equal(look(&f, pool).quarantined, 2);
        assert_int_equal(bounce_destroy(&f.caller, pool, false, count_visit, &(unsigned){ 0 }, NULL), 0);
        assert_int_equal(fixture_usage(&f.caller, QUOTA_bytes), 8192);
        assert_false(others_can_get(&f, lease.dma_addr));
        fixture_pass(&f, 1000);
        assert_int_equal(fixture_usage(&f.caller, QUOTA_bytes), 0);
        assert_true(others_can_get(&f, lease.dma_addr));
        fixture_stop(&f);
}

static void test_a_session_takes_its_pools_along_when_it_ends(void **state) {
        struct fixture f;
        struct broker_counts counts;
        struct answer waiting;
        uint64_t pool = start_with_pool(&f, 8192);

        map(&f, pool, SLOT);
        ask_lease(&f, &f.caller, pool, 1, 0);
        wait_for(&f, pool, 4 * SLOT, 1000, &waiting);
        session_abandon(f.caller.session);
        fixture_settle(&f);
        require_refused(&waiting, REASON_gone);
        broker_counts(f.broker, &counts);
        assert_int_equal(counts.bounces + counts.mappings + counts.leases + counts.waiters + counts.devices, 0);
        assert_int_equal(counts.allocs, 1);
        fixture_pass(&f, 1000);
        broker_counts(f.broker, &counts);
        assert_int_equal(counts.allocs, 0);
        f.caller = fixture_session(&f, NULL);
        fixture_stop(&f);
}

/* The device lives on for an allocation that outlives its session; another session makes pools on it, and ends. */
static void test_a_session_takes_along_what_it_made_on_a_device_of_another(void **state) {
        struct fixture f;
        struct caller second;
        struct broker_counts counts;
        struct answer pool = {}, bounce = {};
        uint64_t device;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        device = fixture_open(&f.caller, &(struct device_options){});
        fixture_alloc(&f, &f.caller, &(struct alloc_request){ .device = device, .size = 4096, .owner_lifetime = true });
        second = fixture_session(&f, NULL);
        session_close(f.caller.session);
        pool_create(&second, &(struct pool_options){ .name = "rings", .device = device, .size = 64, .reserve = 1 }, answer,
                    &pool);
        bounce_create(&second, &(struct bounce_options){ .device = device, .size = 8192 }, answer, &bounce);
        fixture_settle(&f);
        assert_true(answer_handle(&pool) && answer_handle(&bounce));
        f.caller = fixture_session(&f, NULL);
        session_close(second.session);
        fixture_settle(&f);
        broker_counts(f.broker, &counts);
        assert_int_equal(counts.pools + counts.bounces, 0);
        assert_int_equal(counts.devices, 1);
        assert_int_equal(counts.allocs, 1);
        fixture_stop(&f);
}

static void test_a_pool_of_which_another_session_has_slots_goes_with_that_one(void **state) {
        struct fixture f;
        struct caller second;
        struct broker_counts counts;
        struct answer mapped = {}, leased;
        struct lease_view lease;
        struct failure failure;
        uint64_t pool = start_with_pool(&f, 8192);

        second = fixture_session(&f, NULL);
        bounce_map(&second, &(struct bounce_request){ .bounce = pool, .size = SLOT }, answer, &mapped);
        leased = ask_lease(&f, &second, pool, 3, 0);
        session_close(f.caller.session);
        f.caller = second;
        assert_int_equal(look(&f, pool).used, 1);
        assert_int_equal(lease_get(&second, answer_handle(&leased), &lease, &failure), 0);
        assert_int_equal(bounce_unmap(&second, answer_handle(&mapped), 0, NULL, &failure), 0);
        fixture_check(&f);
        f.caller = fixture_session(&f, NULL);
        session_close(second.session);
        broker_counts(f.broker, &counts);
        assert_int_equal(counts.bounces + counts.leases + counts.devices + counts.allocs, 0);
        fixture_stop(&f);
}

static int sum_slots(const struct bounce_view *view, void *userdata) {
        *(uint64_t *)userdata += view->slots;
        return 0;
}

static void test_pools_are_listed_by_device_and_owner(void **state) {
        struct fixture f;
        struct caller other;
        uint64_t first, second, slots = 0;

        fixture_start(&f, HIGH_LAYOUT, NULL);
        first = make_pool(&f, fixture_open(&f.caller, &(struct device_options){ .name = "one" }), 4096, 0);
        second = make_pool(&f, fixture_open(&f.caller, &(struct device_options){ .name = "two" }), 64 * KIB, 0);
        assert_int_equal(bounce_visit(&f.caller, 0, NULL, 0, sum_slots, &slots, NULL), 0);
        assert_int_equal(slots, 2 + 32);
        assert_int_equal(bounce_visit(&f.caller, look(&f, second).device, NULL, 0, sum_slots, &slots, NULL), 0);
        assert_int_equal(slots, 2 + 32 + 32);
        assert_int_equal(bounce_visit(&f.caller, 0, NULL, first, sum_slots, &slots, NULL), 0);
        assert_int_equal(slots, 2 + 32 + 32 + 32);
        other = fixture_session(&f, "user:1001");
        assert_int_equal(bounce_visit(&other, 0, NULL, 0, sum_slots, &slots, NULL), 0);
        assert_int_equal(bounce_visit(&other, 0, "user:1000", 0, sum_slots, &slots, NULL), -EPERM);
        assert_int_equal(slots, 2 + 32 + 32 + 32);
        fixture_stop(&f);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_pool_has_whole_slots_and_says_where_it_lies),
                cmocka_unit_test(test_the_memory_of_a_pool_is_told_apart_and_cannot_be_freed),
                cmocka_unit_test(test_a_pool_with_senseless_options_is_refused),
                cmocka_unit_test(test_a_pool_obeys_the_streaming_mask_and_the_coherent_one),
                cmocka_unit_test(test_a_pool_may_be_larger_than_boundary_and_segment),
                cmocka_unit_test(test_a_pool_counts_against_its_quota),
                cmocka_unit_test(test_the_same_key_gives_the_same_pool_and_takes_nothing_twice),
                cmocka_unit_test(test_a_pool_waits_for_memory_or_gives_up_in_time),
                cmocka_unit_test(test_a_pool_that_is_being_made_can_be_cancelled_and_ends_with_its_device),
                cmocka_unit_test(test_a_mapping_takes_as_many_slots_as_it_needs),
                cmocka_unit_test(test_a_mapping_may_be_as_large_as_the_pool),
                cmocka_unit_test(test_the_offset_in_the_devices_alignment_window_survives),
                cmocka_unit_test(test_no_mapping_crosses_the_devices_boundary),
                cmocka_unit_test(test_a_slot_may_be_larger_than_the_boundary),
                cmocka_unit_test(test_a_mapping_that_can_never_fit_is_refused_with_limit),
                cmocka_unit_test(test_a_full_pool_says_what_was_asked_what_is_in_use_and_what_is_free),
                cmocka_unit_test(test_mappings_count_against_their_quota),
                cmocka_unit_test(test_the_same_key_gives_the_same_mapping),
                cmocka_unit_test(test_a_pool_of_another_owner_is_unknown),
                cmocka_unit_test(test_unmapping_what_was_never_mapped_is_an_unknown_handle),
                cmocka_unit_test(test_unmapping_twice_is_a_double_free),
                cmocka_unit_test(test_unmapping_with_another_size_is_refused_and_changes_nothing),
                cmocka_unit_test(test_unmapping_in_another_direction_is_refused_and_changes_nothing),
                cmocka_unit_test(test_synchronising_outside_the_mapping_is_a_bad_address),
                cmocka_unit_test(test_synchronising_must_follow_the_direction),
                cmocka_unit_test(test_a_device_with_live_mappings_is_busy_and_force_ends_them),
                cmocka_unit_test(test_whoever_waits_is_served_in_order_when_slots_come_back),
                cmocka_unit_test(test_a_hundred_waiters_are_served_in_the_order_in_which_they_came),
                cmocka_unit_test(test_who_may_not_wait_is_turned_away_behind_those_who_wait),
                cmocka_unit_test(test_high_priority_passes_those_who_wait),
                cmocka_unit_test(test_waiting_ends_with_timeout_and_numbers),
                cmocka_unit_test(test_when_the_first_gives_up_the_next_gets_what_suits_it),
                cmocka_unit_test(test_a_key_that_is_waited_with_is_busy_and_free_after_a_cancel),
                cmocka_unit_test(test_waiters_count_against_their_quota),
                cmocka_unit_test(test_waiters_are_told_when_their_pool_is_gone),
                cmocka_unit_test(test_waiters_are_told_when_their_session_or_device_ends),
                cmocka_unit_test(test_an_answer_may_destroy_the_pool_that_others_wait_for),
                cmocka_unit_test(test_an_answer_may_close_the_session_that_waits),
                cmocka_unit_test(test_an_answer_may_ask_again),
                cmocka_unit_test(test_an_answer_may_cancel_another_that_is_about_to_be_given),
                cmocka_unit_test(test_a_pool_grows_on_demand_up_to_its_limit),
                cmocka_unit_test(test_growing_takes_less_when_there_is_no_more),
                cmocka_unit_test(test_a_pool_that_cannot_grow_says_why),
                cmocka_unit_test(test_a_waiter_is_served_by_growth_or_by_slots_whichever_comes_first),
                cmocka_unit_test(test_growth_that_nobody_waits_for_any_more_is_called_off),
                cmocka_unit_test(test_who_may_not_wait_still_waits_for_memory_that_is_being_fetched),
                cmocka_unit_test(test_a_grown_part_goes_back_when_it_stays_unused),
                cmocka_unit_test(test_a_grown_part_goes_back_when_others_need_memory),
                cmocka_unit_test(test_a_grown_part_goes_back_when_its_owner_needs_memory_in_the_same_region),
                cmocka_unit_test(test_unused_parts_make_room_for_one_that_is_large_enough),
                cmocka_unit_test(test_what_a_narrower_mask_cannot_reach_is_not_used_any_more),
                cmocka_unit_test(test_growing_for_a_request_is_not_another_one_that_waits),
                cmocka_unit_test(test_a_pool_of_a_device_with_a_reserve_grows_in_the_reserve),
                cmocka_unit_test(test_a_device_with_a_reserve_gets_its_unused_parts_back),
                cmocka_unit_test(test_a_pool_in_a_full_reserve_is_refused_behind_those_who_wait),
                cmocka_unit_test(test_a_request_for_a_reserve_leaves_others_their_unused_parts),
                cmocka_unit_test(test_slots_that_come_back_wake_whoever_waits_for_the_memory),
                cmocka_unit_test(test_a_lease_is_a_run_of_slots_an_area_by_default),
                cmocka_unit_test(test_a_full_pool_asks_for_leases_back_and_serves_who_waits),
                cmocka_unit_test(test_a_pool_with_mappings_or_leases_is_busy_unless_forced),
                cmocka_unit_test(test_slots_of_a_vanished_client_rest_before_they_are_used_again),
                cmocka_unit_test(test_a_device_in_which_something_only_rests_is_found_no_more),
                cmocka_unit_test(test_slots_of_a_session_that_says_goodbye_are_free_at_once),
                cmocka_unit_test(test_slots_of_a_vanished_client_rest_though_their_pool_is_destroyed),
                cmocka_unit_test(test_a_session_takes_its_pools_along_when_it_ends),
                cmocka_unit_test(test_a_session_takes_along_what_it_made_on_a_device_of_another),
                cmocka_unit_test(test_a_pool_of_which_another_session_has_slots_goes_with_that_one),
                cmocka_unit_test(test_pools_are_listed_by_device_and_owner),
        };

        return cmocka_run_group_tests_name("bounce", tests, NULL, NULL);
}
