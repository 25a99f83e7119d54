/* Mappings of allocations through the core's face. */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/core-fixture.h"

#define HIGH_LAYOUT "16M@0x100000000"
#define BOTH_LAYOUT "16M@0x10000000,16M@0x100000000"

struct pair {
        struct fixture f;
        uint64_t disk, nic; /* two devices without limits */
};

static void start(struct pair *p, const char *layout, struct broker_options *options) {
        fixture_start(&p->f, layout, options);
        p->disk = fixture_open(&p->f.caller, &(struct device_options){ .name = "disk" });
        p->nic = fixture_open(&p->f.caller, &(struct device_options){ .name = "nic" });
}

static struct alloc_view take(struct pair *p, const struct caller *caller, uint64_t device, uint64_t size, bool shareable) {
        return fixture_alloc(&p->f, caller, &(struct alloc_request){ .device = device, .size = size, .shareable = shareable });
}

static uint64_t map(struct pair *p, uint64_t device, uint64_t alloc) {
        struct failure failure = {};
        uint64_t mapping = 0;

        if (mapping_map(&p->f.caller, &(struct mapping_request){ .device = device, .alloc = alloc }, &mapping, &failure) < 0)
                fail_msg("%s", failure.sentence);
        return mapping;
}

static void refuse(struct pair *p, const struct mapping_request *request, enum reason reason) {
        struct failure failure = {};
        uint64_t mapping = 0, before = fixture_usage(&p->f.caller, QUOTA_mappings);
        int r;

        r = mapping_map(&p->f.caller, request, &mapping, &failure);
        assert_true(r < 0);
        assert_int_equal(r, -failure.error);
        require_failure(&failure, reason);
        assert_int_equal(fixture_usage(&p->f.caller, QUOTA_mappings), before);
}

static int no_alloc(const struct leak_view *leak, void *userdata) {
        return 0;
}

static int no_mapping(const struct mapping_view *view, void *userdata) {
        return 0;
}

/* ---- mapping ---- */

static void test_a_device_sees_a_shareable_allocation_of_another(void **state) {
        struct pair p;
        struct alloc_view alloc;
        struct mapping_view view;

        start(&p, HIGH_LAYOUT, NULL);
        alloc = take(&p, &p.f.caller, p.disk, 10000, true);
        assert_int_equal(mapping_get(&p.f.caller, map(&p, p.nic, alloc.handle), &view, NULL), 0);
        assert_int_equal(view.alloc, alloc.handle);
        assert_int_equal(view.device, p.nic);
        assert_string_equal(view.device_name, "nic");
        assert_int_equal(view.bounce, 0);
        assert_int_equal(view.dma_addr, alloc.machine_addr);
        assert_int_equal(view.machine_addr, alloc.machine_addr);
        assert_int_equal(view.region, alloc.region);
        assert_int_equal(view.offset, alloc.offset);
        assert_int_equal(view.size, 12288);
        assert_true(view.simulated);
        assert_int_equal(fixture_usage(&p.f.caller, QUOTA_mappings), 1);
        fixture_stop(&p.f);
}

static void test_a_device_maps_a_part_of_its_own_allocation(void **state) {
        struct pair p;
        struct alloc_view alloc;
        struct mapping_view view;
        uint64_t mapping;

        start(&p, HIGH_LAYOUT, NULL);
        alloc = take(&p, &p.f.caller, p.disk, 8192, false);
        assert_int_equal(mapping_map(&p.f.caller, &(struct mapping_request){ .device = p.disk, .alloc = alloc.handle,
                                     .offset = 100, .size = 200, .direction = DMA_FROM_DEVICE }, &mapping, NULL), 0);
        assert_int_equal(mapping_get(&p.f.caller, mapping, &view, NULL), 0);
        assert_int_equal(view.dma_addr, alloc.dma_addr + 100);
        assert_int_equal(view.offset, alloc.offset + 100);
        assert_int_equal(view.size, 200);
        assert_int_equal(view.direction, DMA_FROM_DEVICE);
        fixture_stop(&p.f);
}

static void test_a_private_allocation_is_not_for_another_device(void **state) {
        struct pair p;
        struct alloc_view alloc;

        start(&p, HIGH_LAYOUT, NULL);
        alloc = take(&p, &p.f.caller, p.disk, 4096, false);
        refuse(&p, &(struct mapping_request){ .device = p.nic, .alloc = alloc.handle }, REASON_wrong_device);
        map(&p, p.disk, alloc.handle);
        fixture_stop(&p.f);
}

static void test_what_belongs_to_another_owner_cannot_be_mapped(void **state) {
        struct pair p;
        struct caller other, admin;
        struct alloc_view alloc;
        struct failure failure;
        uint64_t mapping, device;

        start(&p, HIGH_LAYOUT, NULL);
        other = fixture_session(&p.f, "user:1001");
        device = fixture_open(&other, &(struct device_options){});
        alloc = take(&p, &other, device, 4096, true);
        refuse(&p, &(struct mapping_request){ .device = p.nic, .alloc = alloc.handle }, REASON_unknown_handle);
        refuse(&p, &(struct mapping_request){ .device = device, .alloc = alloc.handle }, REASON_unknown_handle);
        admin = (struct caller){ .session = p.f.caller.session, .admin = true };
        assert_int_equal(mapping_map(&admin, &(struct mapping_request){ .device = p.nic, .alloc = alloc.handle }, &mapping,
                                     &failure), -ENOENT);
        fixture_stop(&p.f);
}

static void test_what_is_not_there_cannot_be_mapped(void **state) {
        struct pair p;
        struct alloc_view alloc;

        start(&p, HIGH_LAYOUT, NULL);
        alloc = take(&p, &p.f.caller, p.disk, 8192, true);
        refuse(&p, &(struct mapping_request){ .device = 77, .alloc = alloc.handle }, REASON_unknown_handle);
        refuse(&p, &(struct mapping_request){ .device = p.nic, .alloc = 77 }, REASON_unknown_handle);
        refuse(&p, &(struct mapping_request){ .device = p.nic, .alloc = p.nic }, REASON_unknown_handle);
        refuse(&p, &(struct mapping_request){ .device = p.nic, .alloc = alloc.handle, .direction = (enum dma_direction)3 },
               REASON_bad_param);
        assert_int_equal(coherent_free(&p.f.caller, alloc.handle, NULL), 0);
        refuse(&p, &(struct mapping_request){ .device = p.nic, .alloc = alloc.handle }, REASON_double_free);
        fixture_stop(&p.f);
}

static void test_a_span_outside_the_allocation_is_a_bad_address(void **state) {
        static const struct {
                uint64_t offset, size;
                bool fine;
        } rows[] = {
                { 0, 8192, true },     { 8191, 1, true },          { 8191, 0, true }, { 0, 8193, false }, { 8192, 0, false },
                { 4096, 4097, false }, { UINT64_MAX, 2, false }, { 1, UINT64_MAX, false },
        };
        struct pair p;
        struct alloc_view alloc;
        struct mapping_request request;
        uint64_t mapping;
        size_t i;

        start(&p, HIGH_LAYOUT, NULL);
        alloc = take(&p, &p.f.caller, p.disk, 8192, true);
        for (i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
                request = (struct mapping_request){ .device = p.nic, .alloc = alloc.handle, .offset = rows[i].offset,
                                                    .size = rows[i].size };
                if (rows[i].fine)
                        assert_int_equal(mapping_map(&p.f.caller, &request, &mapping, NULL), 0);
                else
                        refuse(&p, &request, REASON_bad_address);
        }
        fixture_stop(&p.f);
}

static void test_a_mapping_beyond_the_streaming_mask_is_refused(void **state) {
        struct pair p;
        struct alloc_view high, low;
        uint64_t narrow;

        start(&p, BOTH_LAYOUT, NULL);
        narrow = fixture_open(&p.f.caller, &(struct device_options){ .name = "narrow", .mask = MASK32,
                                                                     .coherent_mask = UINT64_MAX });
        high = take(&p, &p.f.caller, p.disk, 4096, true);
        assert_true(high.machine_addr > MASK32);
        refuse(&p, &(struct mapping_request){ .device = narrow, .alloc = high.handle }, REASON_mask);
        low = fixture_alloc(&p.f, &p.f.caller, &(struct alloc_request){ .device = p.disk, .size = 4096, .mask = MASK32,
                                                                         .shareable = true });
        map(&p, narrow, low.handle);
        fixture_stop(&p.f);
}

static void test_a_mapping_across_the_boundary_or_larger_than_a_segment_is_refused(void **state) {
        struct pair p;
        struct alloc_view alloc;
        struct mapping_request request;
        uint64_t bounded, mapping, to_boundary;

        start(&p, HIGH_LAYOUT, NULL);
        bounded = fixture_open(&p.f.caller, &(struct device_options){ .name = "bounded", .boundary = 64 * KIB,
                                                                      .max_segment = 32 * KIB });
        alloc = fixture_alloc(&p.f, &p.f.caller, &(struct alloc_request){ .device = p.disk, .size = 128 * KIB,
                                                                           .align = 64 * KIB, .shareable = true });
        refuse(&p, &(struct mapping_request){ .device = bounded, .alloc = alloc.handle }, REASON_limit);
        to_boundary = 64 * KIB - (alloc.dma_addr & (64 * KIB - 1));
        request = (struct mapping_request){ .device = bounded, .alloc = alloc.handle, .offset = to_boundary - 4096,
                                            .size = 4097 };
        refuse(&p, &request, REASON_boundary);
        request.size = 4096;
        assert_int_equal(mapping_map(&p.f.caller, &request, &mapping, NULL), 0);
        fixture_stop(&p.f);
}

static void test_an_address_of_ones_choice_needs_a_translation(void **state) {
        struct pair p;
        struct alloc_view alloc;
        struct mapping_request request;
        uint64_t mapping;

        start(&p, HIGH_LAYOUT, NULL);
        alloc = take(&p, &p.f.caller, p.disk, 4096, true);
        request = (struct mapping_request){ .device = p.nic, .alloc = alloc.handle, .iova = 0x1000 };
        refuse(&p, &request, REASON_unsupported);
        request.iova = alloc.machine_addr;
        assert_int_equal(mapping_map(&p.f.caller, &request, &mapping, NULL), 0);
        fixture_stop(&p.f);
}

static void test_the_memory_of_pools_cannot_be_mapped(void **state) {
        struct pair p;
        struct answer to = {};
        struct bounce_view bounce;
        struct alloc_view alloc;

        start(&p, HIGH_LAYOUT, NULL);
        bounce_create(&p.f.caller, &(struct bounce_options){ .device = p.disk, .size = 4096 }, answer, &to);
        fixture_settle(&p.f);
        assert_int_equal(bounce_get(&p.f.caller, answer_handle(&to), &bounce, NULL), 0);
        assert_int_equal(coherent_lookup(&p.f.caller, bounce.dma_addr, false, &alloc, NULL), 0);
        refuse(&p, &(struct mapping_request){ .device = p.disk, .alloc = alloc.handle }, REASON_unsupported);
        fixture_stop(&p.f);
}

static void test_mappings_count_against_their_quota(void **state) {
        struct pair p;
        struct alloc_view alloc;

        start(&p, HIGH_LAYOUT, NULL);
        alloc = take(&p, &p.f.caller, p.disk, 4096, true);
        fixture_limit(&p.f.caller, QUOTA_mappings, 2);
        map(&p, p.nic, alloc.handle);
        map(&p, p.nic, alloc.handle);
        refuse(&p, &(struct mapping_request){ .device = p.nic, .alloc = alloc.handle, .request_key = "k" }, REASON_quota);
        fixture_limit(&p.f.caller, QUOTA_mappings, 3);
        map(&p, p.nic, alloc.handle);
        fixture_stop(&p.f);
}

static void test_the_same_key_gives_the_same_mapping(void **state) {
        struct pair p;
        struct alloc_view alloc;
        struct mapping_request request;
        uint64_t a, b;

        start(&p, HIGH_LAYOUT, NULL);
        alloc = take(&p, &p.f.caller, p.disk, 4096, true);
        request = (struct mapping_request){ .device = p.nic, .alloc = alloc.handle, .request_key = "k" };
        assert_int_equal(mapping_map(&p.f.caller, &request, &a, NULL), 0);
        assert_int_equal(mapping_map(&p.f.caller, &request, &b, NULL), 0);
        assert_int_equal(a, b);
        assert_int_equal(mapping_unmap(&p.f.caller, a, NULL), 0);
        assert_int_equal(mapping_map(&p.f.caller, &request, &b, NULL), 0);
        assert_int_not_equal(a, b);
        request.request_digest = 1;
        refuse(&p, &request, REASON_bad_param);
        fixture_stop(&p.f);
}

/* ---- unmapping ---- */

static void test_an_allocation_stays_until_it_is_unmapped(void **state) {
        struct pair p;
        struct alloc_view alloc;
        struct failure failure;
        uint64_t first, second;

        start(&p, HIGH_LAYOUT, NULL);
        alloc = take(&p, &p.f.caller, p.disk, 4096, true);
        first = map(&p, p.nic, alloc.handle);
        second = map(&p, p.disk, alloc.handle);
        assert_int_equal(coherent_free(&p.f.caller, alloc.handle, &failure), -EBUSY);
        assert_int_equal(failure_number(&failure, "mappings"), 2);
        assert_int_equal(mapping_unmap(&p.f.caller, first, NULL), 0);
        assert_int_equal(coherent_free(&p.f.caller, alloc.handle, &failure), -EBUSY);
        assert_int_equal(mapping_unmap(&p.f.caller, second, NULL), 0);
        assert_int_equal(coherent_free(&p.f.caller, alloc.handle, &failure), 0);
        fixture_stop(&p.f);
}

static void test_unmapping_twice_or_what_never_was_is_refused(void **state) {
        struct pair p;
        struct caller other;
        struct failure failure;
        uint64_t mapping;

        start(&p, HIGH_LAYOUT, NULL);
        mapping = map(&p, p.nic, take(&p, &p.f.caller, p.disk, 4096, true).handle);
        other = fixture_session(&p.f, "user:1001");
        assert_int_equal(mapping_unmap(&other, mapping, &failure), -ENOENT);
        require_failure(&failure, REASON_unknown_handle);
        assert_int_equal(mapping_unmap(&p.f.caller, mapping + 1, &failure), -ENOENT);
        require_failure(&failure, REASON_unknown_handle);
        assert_int_equal(mapping_unmap(&p.f.caller, mapping, NULL), 0);
        assert_int_equal(mapping_unmap(&p.f.caller, mapping, &failure), -EINVAL);
        require_failure(&failure, REASON_double_free);
        assert_int_equal(mapping_unmap(&other, mapping, &failure), -ENOENT);
        require_failure(&failure, REASON_unknown_handle);
        fixture_stop(&p.f);
}

static void test_a_mapping_is_unmapped_with_the_call_of_its_kind(void **state) {
        struct pair p;
        struct answer pool = {}, bounced = {};
        struct failure failure;
        uint64_t mapping;

        start(&p, HIGH_LAYOUT, NULL);
        mapping = map(&p, p.nic, take(&p, &p.f.caller, p.disk, 4096, true).handle);
        assert_int_equal(bounce_unmap(&p.f.caller, mapping, 0, NULL, &failure), -ENOENT);
        require_failure(&failure, REASON_unknown_handle);
        bounce_create(&p.f.caller, &(struct bounce_options){ .device = p.disk, .size = 4096 }, answer, &pool);
        fixture_settle(&p.f);
        bounce_map(&p.f.caller, &(struct bounce_request){ .bounce = answer_handle(&pool), .size = 1 }, answer, &bounced);
        assert_int_equal(mapping_unmap(&p.f.caller, answer_handle(&bounced), &failure), -ENOENT);
        require_failure(&failure, REASON_unknown_handle);
        /* To synchronise is the same for both. */
        assert_int_equal(bounce_sync(&p.f.caller, mapping, 4000, 96, NULL, DMA_SYNC_FOR_DEVICE, NULL), 0);
        assert_int_equal(bounce_sync(&p.f.caller, mapping, 4000, 97, NULL, DMA_SYNC_FOR_DEVICE, &failure), -EFAULT);
        assert_int_equal(bounce_sync(&p.f.caller, mapping, 0, 0, NULL, DMA_SYNC_FOR_CPU, &failure), -EINVAL);
        fixture_stop(&p.f);
}

/* ---- the end of a device or a session ---- */

static void test_a_device_with_mappings_is_busy_and_force_ends_them(void **state) {
        struct pair p;
        struct alloc_view alloc;
        struct failure failure;

        start(&p, HIGH_LAYOUT, NULL);
        alloc = take(&p, &p.f.caller, p.disk, 4096, true);
        map(&p, p.nic, alloc.handle);
        assert_int_equal(device_close(&p.f.caller, p.nic, false, no_alloc, NULL, &failure), -EBUSY);
        assert_int_equal(failure_number(&failure, "mappings"), 1);
        assert_int_equal(device_close(&p.f.caller, p.nic, true, no_alloc, NULL, NULL), 0);
        assert_int_equal(p.f.events.leaks, 1);
        assert_int_equal(p.f.events.last.bytes, 4096);
        assert_int_equal(coherent_free(&p.f.caller, alloc.handle, NULL), 0);
        fixture_stop(&p.f);
}

static void test_what_others_have_mapped_is_revoked_when_the_allocations_device_is_closed(void **state) {
        struct pair p;
        struct alloc_view alloc;
        struct failure failure;
        uint64_t mapping, own;

        start(&p, HIGH_LAYOUT, NULL);
        alloc = take(&p, &p.f.caller, p.disk, 4096, true);
        mapping = map(&p, p.nic, alloc.handle);
        own = map(&p, p.nic, take(&p, &p.f.caller, p.nic, 4096, false).handle);
        assert_int_equal(device_close(&p.f.caller, p.disk, true, no_alloc, NULL, NULL), 0);
        assert_int_equal(p.f.events.leaks, 2); /* of the mapping and of the allocation */
        assert_int_equal(p.f.events.last.device, p.nic);
        assert_ptr_equal(p.f.events.last.session, p.f.caller.session);
        assert_int_equal(mapping_unmap(&p.f.caller, mapping, &failure), -EINVAL);
        require_failure(&failure, REASON_double_free);
        fixture_check(&p.f);
        assert_int_equal(mapping_unmap(&p.f.caller, own, NULL), 0);
        fixture_stop(&p.f);
}

static void test_what_others_have_mapped_is_revoked_when_the_allocations_session_ends(void **state) {
        struct pair p;
        struct caller second;
        struct alloc_view bound, lasting;
        uint64_t device, revoked, kept;
        struct mapping_view view;
        struct failure failure;

        start(&p, HIGH_LAYOUT, NULL);
        second = fixture_session(&p.f, NULL);
        device = fixture_open(&second, &(struct device_options){ .name = "other" });
        bound = take(&p, &second, device, 4096, true);
        lasting = fixture_alloc(&p.f, &second, &(struct alloc_request){ .device = device, .size = 4096, .shareable = true,
                                                                        .owner_lifetime = true });
        revoked = map(&p, p.nic, bound.handle);
        kept = map(&p, p.nic, lasting.handle);
        session_abandon(second.session);
        assert_int_equal(mapping_get(&p.f.caller, revoked, &view, &failure), -EINVAL);
        require_failure(&failure, REASON_double_free);
        assert_int_equal(mapping_get(&p.f.caller, kept, &view, NULL), 0);
        assert_int_equal(view.alloc, lasting.handle);
        fixture_check(&p.f);
        assert_int_equal(mapping_unmap(&p.f.caller, kept, NULL), 0);
        assert_int_equal(coherent_free(&p.f.caller, lasting.handle, NULL), 0);
        fixture_stop(&p.f);
}

static void test_what_others_have_mapped_is_revoked_when_the_allocations_maker_ends(void **state) {
        struct pair p;
        struct caller second, third;
        struct alloc_view made, shared;
        struct mapping_view view;
        struct failure failure;
        uint64_t device, revoked, kept;

        start(&p, HIGH_LAYOUT, NULL);
        second = fixture_session(&p.f, NULL);
        third = fixture_session(&p.f, NULL);
        device = fixture_open(&second, &(struct device_options){ .name = "other" });
        fixture_alloc(&p.f, &second, &(struct alloc_request){ .device = device, .size = 4096, .owner_lifetime = true });
        session_close(second.session);
        made = take(&p, &third, device, 4096, true);
        shared = take(&p, &p.f.caller, device, 4096, true);
        revoked = map(&p, p.nic, made.handle);
        kept = map(&p, p.nic, shared.handle);
        session_close(third.session);
        assert_int_equal(p.f.events.leaks, 2); /* of the allocation and of the mapping */
        assert_int_equal(mapping_get(&p.f.caller, revoked, &view, &failure), -EINVAL);
        require_failure(&failure, REASON_double_free);
        assert_int_equal(mapping_get(&p.f.caller, kept, &view, NULL), 0);
        fixture_stop(&p.f);
}

static void test_a_mapping_ends_with_the_session_that_made_it(void **state) {
        struct pair p;
        struct caller second;
        struct alloc_view alloc;
        uint64_t mapping;

        start(&p, HIGH_LAYOUT, NULL);
        alloc = take(&p, &p.f.caller, p.disk, 4096, true);
        second = fixture_session(&p.f, NULL);
        assert_int_equal(mapping_map(&second, &(struct mapping_request){ .device = p.nic, .alloc = alloc.handle }, &mapping,
                                     NULL), 0);
        session_close(second.session);
        assert_int_equal(p.f.events.leaks, 1);
        assert_int_equal(coherent_free(&p.f.caller, alloc.handle, NULL), 0);
        fixture_stop(&p.f);
}

/* A device that has outlived its session because of an allocation, which is gone, and stays because of a mapping. */
static void test_a_device_that_only_a_mapping_keeps_goes_with_it(void **state) {
        struct pair p;
        struct broker_counts counts;
        struct caller second;
        struct alloc_view lasting, shared;
        uint64_t device, mapping;

        start(&p, HIGH_LAYOUT, NULL);
        shared = take(&p, &p.f.caller, p.disk, 4096, true);
        second = fixture_session(&p.f, NULL);
        device = fixture_open(&second, &(struct device_options){ .name = "other" });
        lasting = fixture_alloc(&p.f, &second, &(struct alloc_request){ .device = device, .size = 4096, .owner_lifetime = true });
        session_close(second.session);
        mapping = map(&p, device, shared.handle);
        assert_int_equal(coherent_free(&p.f.caller, lasting.handle, NULL), 0);
        broker_counts(p.f.broker, &counts);
        assert_int_equal(counts.devices, 3);
        assert_int_equal(mapping_unmap(&p.f.caller, mapping, NULL), 0);
        broker_counts(p.f.broker, &counts);
        assert_int_equal(counts.devices, 2);
        fixture_stop(&p.f);
}

static void test_devices_that_only_mappings_keep_go_when_those_are_revoked(void **state) {
        struct broker_counts counts;
        struct pair p;
        struct caller second, third;
        struct alloc_view shared, lasting[3];
        uint64_t devices[3], mapping;
        int i;

        start(&p, HIGH_LAYOUT, NULL);
        second = fixture_session(&p.f, NULL);
        third = fixture_session(&p.f, NULL);
        shared = take(&p, &second, fixture_open(&second, &(struct device_options){ .name = "owning" }), 4096, true);
        for (i = 0; i < 3; i++) {
                devices[i] = fixture_open(&third, &(struct device_options){ .name = "kept" });
                lasting[i] = fixture_alloc(&p.f, &third, &(struct alloc_request){ .device = devices[i], .size = 4096,
                                                                                  .owner_lifetime = true });
        }
        session_close(third.session);
        for (i = 0; i < 3; i++) {
                assert_int_equal(mapping_map(&p.f.caller, &(struct mapping_request){ .device = devices[i],
                                             .alloc = shared.handle }, &mapping, NULL), 0);
                assert_int_equal(coherent_free(&p.f.caller, lasting[i].handle, NULL), 0);
        }
        session_close(second.session);
        broker_counts(p.f.broker, &counts);
        assert_int_equal(counts.devices, 2);
        assert_int_equal(counts.mappings, 0);
        fixture_stop(&p.f);
}

static int collect(const struct mapping_view *view, void *userdata) {
        uint64_t *sum = userdata;

        sum[0]++;
        sum[1] = view->handle;
        return 0;
}

static void test_mappings_are_listed_by_device_and_owner(void **state) {
        struct pair p;
        struct caller other;
        uint64_t seen[2] = {}, first, second, alloc;
        struct failure failure;

        start(&p, HIGH_LAYOUT, NULL);
        alloc = take(&p, &p.f.caller, p.disk, 4096, true).handle;
        first = map(&p, p.nic, alloc);
        second = map(&p, p.disk, alloc);
        assert_int_equal(mapping_visit(&p.f.caller, 0, NULL, 0, collect, seen, NULL), 0);
        assert_int_equal(seen[0], 2);
        assert_int_equal(seen[1], second);
        assert_int_equal(mapping_visit(&p.f.caller, p.nic, NULL, 0, collect, seen, NULL), 0);
        assert_int_equal(seen[0], 3);
        assert_int_equal(seen[1], first);
        assert_int_equal(mapping_visit(&p.f.caller, 0, NULL, first, collect, seen, NULL), 0);
        assert_int_equal(seen[0], 4);
        other = fixture_session(&p.f, "user:1001");
        assert_int_equal(mapping_visit(&other, 0, NULL, 0, collect, seen, NULL), 0);
        assert_int_equal(seen[0], 4);
        assert_int_equal(mapping_visit(&other, 0, "user:1000", 0, collect, seen, &failure), -EPERM);
        other.admin = true;
        assert_int_equal(mapping_visit(&other, 0, "user:1000", 0, collect, seen, &failure), 0);
        assert_int_equal(seen[0], 6);
        fixture_stop(&p.f);
}

/* ---- where addresses are translated ---- */

static struct {
        uint64_t maps, unmaps, bytes;
        uint64_t shift; /* of every address */
} shifter;

static struct translation {
        char nothing;
} shifted;

static int shift_attach(const char *name, const char *owner, bool permitted, struct translation **ret,
                        struct translator_facts *ret_facts, struct failure *failure) {
        *ret = &shifted;
        *ret_facts = (struct translator_facts){ .node = -1, .mask = UINT64_MAX };
        return 0;
}

static void shift_detach(struct translation *translation) {
}

static int shift_map(struct translation *translation, const struct translator_run *run, uint64_t *ret_dma,
                     struct failure *failure) {
        assert_int_equal(run->addr % 4096 + run->size % 4096, 0);
        shifter.maps++;
        shifter.bytes += run->size;
        *ret_dma = run->addr - shifter.shift;
        return 0;
}

static int shift_unmap(struct translation *translation, uint64_t dma_addr, uint64_t size) {
        assert_int_equal((dma_addr + shifter.shift) % 4096 + size % 4096, 0);
        shifter.unmaps++;
        shifter.bytes -= size;
        return 0;
}

static const struct translator_ops shift_ops = {
        .struct_size = sizeof(struct translator_ops),
        .version = TRANSLATOR_OPS_VERSION,
        .name = "shift",
        .attach = shift_attach,
        .detach = shift_detach,
        .map = shift_map,
        .unmap = shift_unmap,
};

static void start_shifting(struct pair *p, uint64_t shift) {
        static const struct translator_ops *const translators[] = { &shift_ops, NULL };
        struct broker_options options;

        broker_options_default(&options);
        options.translators = translators;
        shifter.maps = shifter.unmaps = shifter.bytes = 0;
        shifter.shift = shift;
        start(p, HIGH_LAYOUT, &options);
}

static void stop_shifting(struct pair *p) {
        fixture_stop(&p->f);
        assert_int_equal(shifter.maps, shifter.unmaps);
        assert_int_equal(shifter.bytes, 0);
}

static void test_a_translator_maps_whole_pages_and_gets_each_back(void **state) {
        struct pair p;
        struct alloc_view alloc;
        struct mapping_view view;
        struct mapping_request request;
        uint64_t mapping, narrow;

        start_shifting(&p, UINT64_C(0xf0000000));
        alloc = take(&p, &p.f.caller, p.disk, 8192, true);
        request = (struct mapping_request){ .device = p.nic, .alloc = alloc.handle, .offset = 4000, .size = 200 };
        assert_int_equal(mapping_map(&p.f.caller, &request, &mapping, NULL), 0);
        assert_int_equal(shifter.bytes, 8192 + 8192);
        assert_int_equal(mapping_get(&p.f.caller, mapping, &view, NULL), 0);
        assert_int_equal(view.dma_addr, alloc.machine_addr + 4000 - shifter.shift);
        assert_int_equal(view.machine_addr, alloc.machine_addr + 4000);
        /* Below the mask by translation; the address that it must be given decides. */
        narrow = fixture_open(&p.f.caller, &(struct device_options){ .name = "narrow", .mask = MASK32,
                                                                     .coherent_mask = UINT64_MAX });
        request.device = narrow;
        assert_int_equal(mapping_map(&p.f.caller, &request, &mapping, NULL), 0);
        request.iova = 0x5000;
        refuse(&p, &request, REASON_unsupported);
        assert_int_equal(mapping_unmap(&p.f.caller, mapping, NULL), 0);
        stop_shifting(&p);
}

static void test_a_bounce_pool_hands_out_addresses_of_its_device(void **state) {
        struct pair p;
        struct answer pool = {}, bounced = {}, leased = {};
        struct mapping_view view;
        struct bounce_view bounce;
        struct lease_view lease;

        start_shifting(&p, UINT64_C(0xf0000000));
        bounce_create(&p.f.caller, &(struct bounce_options){ .device = p.disk, .size = 64 * KIB }, answer, &pool);
        fixture_settle(&p.f);
        bounce_map(&p.f.caller, &(struct bounce_request){ .bounce = answer_handle(&pool), .size = 5000 }, answer, &bounced);
        bounce_lease(&p.f.caller, &(struct bounce_request){ .bounce = pool.handle, .size = 3 }, answer, &leased);
        assert_int_equal(mapping_get(&p.f.caller, answer_handle(&bounced), &view, NULL), 0);
        assert_int_equal(lease_get(&p.f.caller, answer_handle(&leased), &lease, NULL), 0);
        assert_int_equal(bounce_get(&p.f.caller, pool.handle, &bounce, NULL), 0);
        assert_int_equal(view.dma_addr, view.machine_addr - shifter.shift);
        assert_int_equal(view.dma_addr - bounce.dma_addr, view.offset - bounce.offset);
        assert_int_equal(lease.dma_addr, lease.machine_addr - shifter.shift);
        fixture_check(&p.f);
        assert_int_equal(bounce_unmap(&p.f.caller, bounced.handle, 5000, NULL, NULL), 0);
        assert_int_equal(lease_return(&p.f.caller, leased.handle, LEASE_OF_BOUNCE, NULL), 0);
        assert_int_equal(bounce_destroy(&p.f.caller, pool.handle, false, no_mapping, NULL, NULL), 0);
        stop_shifting(&p);
}

static void test_a_bounce_pool_refuses_addresses_in_which_its_slots_would_not_be_aligned(void **state) {
        struct pair p;
        struct answer pool = {};

        start_shifting(&p, 100);
        bounce_create(&p.f.caller, &(struct bounce_options){ .device = p.disk, .size = 64 * KIB }, answer, &pool);
        fixture_settle(&p.f);
        require_refused(&pool, REASON_source_unavailable);
        stop_shifting(&p);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_device_sees_a_shareable_allocation_of_another),
                cmocka_unit_test(test_a_device_maps_a_part_of_its_own_allocation),
                cmocka_unit_test(test_a_private_allocation_is_not_for_another_device),
                cmocka_unit_test(test_what_belongs_to_another_owner_cannot_be_mapped),
                cmocka_unit_test(test_what_is_not_there_cannot_be_mapped),
                cmocka_unit_test(test_a_span_outside_the_allocation_is_a_bad_address),
                cmocka_unit_test(test_a_mapping_beyond_the_streaming_mask_is_refused),
                cmocka_unit_test(test_a_mapping_across_the_boundary_or_larger_than_a_segment_is_refused),
                cmocka_unit_test(test_an_address_of_ones_choice_needs_a_translation),
                cmocka_unit_test(test_the_memory_of_pools_cannot_be_mapped),
                cmocka_unit_test(test_mappings_count_against_their_quota),
                cmocka_unit_test(test_the_same_key_gives_the_same_mapping),
                cmocka_unit_test(test_an_allocation_stays_until_it_is_unmapped),
                cmocka_unit_test(test_unmapping_twice_or_what_never_was_is_refused),
                cmocka_unit_test(test_a_mapping_is_unmapped_with_the_call_of_its_kind),
                cmocka_unit_test(test_a_device_with_mappings_is_busy_and_force_ends_them),
                cmocka_unit_test(test_what_others_have_mapped_is_revoked_when_the_allocations_device_is_closed),
                cmocka_unit_test(test_what_others_have_mapped_is_revoked_when_the_allocations_session_ends),
                cmocka_unit_test(test_what_others_have_mapped_is_revoked_when_the_allocations_maker_ends),
                cmocka_unit_test(test_a_mapping_ends_with_the_session_that_made_it),
                cmocka_unit_test(test_a_device_that_only_a_mapping_keeps_goes_with_it),
                cmocka_unit_test(test_devices_that_only_mappings_keep_go_when_those_are_revoked),
                cmocka_unit_test(test_mappings_are_listed_by_device_and_owner),
                cmocka_unit_test(test_a_translator_maps_whole_pages_and_gets_each_back),
                cmocka_unit_test(test_a_bounce_pool_hands_out_addresses_of_its_device),
                cmocka_unit_test(test_a_bounce_pool_refuses_addresses_in_which_its_slots_would_not_be_aligned),
        };

        return cmocka_run_group_tests_name("mapping", tests, NULL, NULL);
}
