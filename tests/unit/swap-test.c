/* Allocations that are swapped out to ordinary memory, and in again, with what is in them. */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/core-fixture.h"

#define LAYOUT "16M@0x40000000,16M@0x100000000"

struct scene {
        struct fixture f;
        uint64_t device;
        struct alloc_view alloc; /* as it was allocated */
};

static void begin_with(struct scene *s, const struct device_options *options, uint64_t size, struct broker_options *broker) {
        fixture_start(&s->f, LAYOUT, broker);
        s->device = fixture_open(&s->f.caller, options);
        s->alloc = fixture_alloc(&s->f, &s->f.caller,
                                 &(struct alloc_request){ .device = s->device, .size = size, .shareable = true });
        fixture_fill(&s->f.caller, &s->alloc);
}

static void begin(struct scene *s, uint64_t size) {
        begin_with(s, &(struct device_options){}, size, NULL);
}

static struct ticket *out(struct scene *s, struct answer *to) {
        *to = (struct answer){};
        return coherent_swap_out(&s->f.caller, s->alloc.handle, answer, to);
}

static struct ticket *in(struct scene *s, const struct swap_in_request *ask, struct answer *to) {
        struct swap_in_request request = *ask;

        *to = (struct answer){};
        request.alloc = s->alloc.handle;
        return coherent_swap_in(&s->f.caller, &request, answer, to);
}

static struct alloc_view view_of(struct scene *s) {
        struct alloc_view view;

        assert_int_equal(coherent_get(&s->f.caller, s->alloc.handle, &view, NULL), 0);
        return view;
}

static void swap_out(struct scene *s) {
        struct answer to;

        out(s, &to);
        fixture_settle(&s->f);
        assert_int_equal(answer_handle(&to), s->alloc.handle);
}

static void swap_in(struct scene *s) {
        struct answer to;

        in(s, &(struct swap_in_request){}, &to);
        fixture_settle(&s->f);
        assert_int_equal(answer_handle(&to), s->alloc.handle);
}

static void test_contents_go_out_and_come_back_under_the_same_handle(void **state) {
        static const uint64_t sizes[] = { 4096, 300 * KIB, MIB };
        struct alloc_view view;
        struct scene s;

        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
                begin(&s, sizes[i]);
                fixture_pass(&s.f, 40);
                swap_out(&s);
                view = view_of(&s);
                assert_true(view.anonymous);
                assert_int_equal(view.dma_addr, 0);
                assert_int_equal(view.machine_addr, 0);
                assert_int_equal(view.size, sizes[i]);
                assert_int_equal(view.age_ms, 40);
                assert_true(view.shareable);
                assert_true(fixture_is_filled(&s.f.caller, &view));
                fixture_check(&s.f);
                swap_in(&s);
                view = view_of(&s);
                assert_false(view.anonymous);
                assert_true(view.dma_addr != 0);
                assert_int_equal(view.dma_addr, view.machine_addr);
                assert_int_equal(view.age_ms, 40);
                assert_true(fixture_is_filled(&s.f.caller, &view));
                fixture_stop(&s.f);
        }
}

static void test_what_is_swapped_out_takes_no_device_memory(void **state) {
        struct source_view before, after, anonymous;
        struct scene s;

        begin(&s, MIB);
        before = fixture_source(&s.f);
        assert_int_equal(before.used, MIB);
        swap_out(&s);
        fixture_pass(&s.f, 60000);
        after = fixture_source(&s.f);
        assert_int_equal(after.used, 0);
        assert_int_equal(after.in_regions, 0);
        assert_true(broker_anonymous(s.f.broker, &anonymous));
        assert_int_equal(anonymous.used, MIB);
        assert_int_equal(fixture_usage(&s.f.caller, QUOTA_bytes), 0);
        assert_int_equal(fixture_usage(&s.f.caller, QUOTA_held_bytes), 0);
        assert_int_equal(fixture_usage(&s.f.caller, QUOTA_allocs), 1);
        assert_int_equal(fixture_usage(&s.f.caller, QUOTA_anonymous_bytes), MIB);
        swap_in(&s);
        fixture_pass(&s.f, 60000);
        assert_true(broker_anonymous(s.f.broker, &anonymous));
        assert_int_equal(anonymous.total, 0);
        assert_int_equal(fixture_usage(&s.f.caller, QUOTA_anonymous_bytes), 0);
        assert_int_equal(fixture_usage(&s.f.caller, QUOTA_bytes), MIB);
        fixture_stop(&s.f);
}

static void test_swapping_twice_changes_nothing(void **state) {
        struct alloc_view one, other;
        struct scene s;

        begin(&s, 8192);
        swap_in(&s);
        one = view_of(&s);
        assert_int_equal(one.dma_addr, s.alloc.dma_addr);
        swap_out(&s);
        one = view_of(&s);
        swap_out(&s);
        other = view_of(&s);
        assert_int_equal(one.region, other.region);
        assert_int_equal(one.offset, other.offset);
        fixture_stop(&s.f);
}

static void test_no_address_leads_to_what_is_swapped_out(void **state) {
        struct failure failure = {};
        struct alloc_view view;
        struct scene s;

        begin(&s, MIB);
        swap_out(&s);
        assert_true(coherent_lookup(&s.f.caller, s.alloc.dma_addr, false, &view, &failure) < 0);
        require_failure(&failure, REASON_bad_address);
        assert_true(coherent_lookup(&s.f.caller, s.alloc.machine_addr, true, &view, &failure) < 0);
        assert_true(coherent_lookup(&s.f.caller, 0, false, &view, &failure) < 0);
        assert_true(coherent_lookup(&s.f.caller, UINT64_C(1) << 62, true, &view, &failure) < 0);
        fixture_stop(&s.f);
}

static void test_it_can_be_swapped_out_when_others_wait_and_quotas_are_reached(void **state) {
        struct answer waits = {}, to;
        struct scene s;

        begin_with(&s, &(struct device_options){ .mask = MASK32 }, MIB, NULL);
        fixture_limit(&s.f.caller, QUOTA_allocs, 1);
        swap_out(&s);
        swap_in(&s);
        fixture_limit(&s.f.caller, QUOTA_allocs, 1000);
        for (;;) {
                coherent_alloc(&s.f.caller, &(struct alloc_request){ .device = s.device, .size = MIB }, answer, &waits);
                fixture_settle(&s.f);
                if (waits.failure.error)
                        break;
                waits = (struct answer){};
        }
        waits = (struct answer){};
        assert_non_null(coherent_alloc(&s.f.caller, &(struct alloc_request){ .device = s.device, .size = MIB, .wait_ms = 9000 },
                                       answer, &waits));
        out(&s, &to);
        fixture_settle(&s.f);
        answer_handle(&to);
        answer_handle(&waits); /* with the memory that became free */
        in(&s, &(struct swap_in_request){}, &to);
        fixture_settle(&s.f);
        assert_int_equal(to.failure.error, ENOMEM);
        assert_true(view_of(&s).anonymous);
        in(&s, &(struct swap_in_request){ .wait_ms = 9000 }, &to);
        assert_false(to.given);
        assert_int_equal(coherent_free(&s.f.caller, waits.handle, NULL), 0);
        fixture_settle(&s.f);
        assert_int_equal(answer_handle(&to), s.alloc.handle);
        s.alloc = view_of(&s);
        assert_true(fixture_is_filled(&s.f.caller, &s.alloc));
        fixture_stop(&s.f);
}

static void test_ordinary_memory_has_limits_of_its_own(void **state) {
        struct alloc_view others[3];
        struct answer to;
        struct scene s;

        begin(&s, 4 * MIB);
        fixture_limit(&s.f.caller, QUOTA_anonymous_bytes, 4 * MIB - 1);
        out(&s, &to);
        require_refused(&to, REASON_quota);
        assert_int_equal(failure_number(&to.failure, "limit"), 4 * MIB - 1);
        fixture_limit(&s.f.caller, QUOTA_anonymous_bytes, 100 * MIB);
        for (size_t i = 0; i < 3; i++)
                others[i] = fixture_alloc(&s.f, &s.f.caller, &(struct alloc_request){ .device = s.device, .size = 4 * MIB });
        for (size_t i = 0; i < 2; i++) {
                to = (struct answer){};
                coherent_swap_out(&s.f.caller, others[i].handle, answer, &to);
                fixture_settle(&s.f);
                answer_handle(&to);
        }
        out(&s, &to); /* the source's limit is 8 MiB */
        require_refused(&to, REASON_no_memory);
        assert_int_equal(failure_number(&to.failure, "asked"), 4 * MIB);
        assert_false(view_of(&s).anonymous);
        assert_int_equal(coherent_free(&s.f.caller, others[1].handle, NULL), 0);
        swap_out(&s); /* nothing is kept for later */
        fixture_stop(&s.f);
}

static void test_who_asks_for_more_than_the_host_has_keeps_nobody_else_from_swapping(void **state) {
        struct broker_options options;
        struct alloc_view huge;
        struct answer to = {};
        struct scene s;

        broker_options_default(&options);
        fixture_start_anonymous(&s.f, "1T@0x10000000000", "1T", &options);
        s.device = fixture_open(&s.f.caller, &(struct device_options){});
        s.alloc = fixture_alloc(&s.f, &s.f.caller, &(struct alloc_request){ .device = s.device, .size = 8192 });
        fixture_fill(&s.f.caller, &s.alloc);
        huge = fixture_alloc(&s.f, &s.f.caller, &(struct alloc_request){ .device = s.device, .size = 512 * GIB });
        coherent_swap_out(&s.f.caller, huge.handle, answer, &to);
        fixture_settle(&s.f);
        require_refused(&to, REASON_no_memory);
        swap_out(&s);
        fixture_stop(&s.f);
}

static void test_whoever_keeps_the_descriptor_keeps_none_of_the_memory(void **state) {
        struct stat st;
        struct scene s;
        int fd;

        begin(&s, MIB);
        swap_out(&s);
        assert_int_equal(region_fd(&s.f.caller, view_of(&s).region, &fd, NULL), 0);
        fd = dup(fd);
        assert_true(fd >= 0);
        assert_int_equal(fstat(fd, &st), 0);
        assert_true((uint64_t)st.st_blocks * 512 >= MIB);
        swap_in(&s);
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(st.st_blocks, 0);
        close(fd);
        fixture_stop(&s.f);
}

static void test_what_is_in_but_not_as_it_is_wanted_is_moved(void **state) {
        struct alloc_view view;
        struct answer to;
        struct scene s;

        begin(&s, MIB);
        assert_true(s.alloc.dma_addr > MASK32);
        in(&s, &(struct swap_in_request){ .align = 3 }, &to);
        require_refused(&to, REASON_bad_param);
        in(&s, &(struct swap_in_request){ .mask = MASK32 }, &to);
        fixture_settle(&s.f);
        assert_int_equal(answer_handle(&to), s.alloc.handle);
        view = view_of(&s);
        assert_true(view.dma_addr + view.size - 1 <= MASK32);
        assert_true(fixture_is_filled(&s.f.caller, &view));
        assert_int_equal(fixture_usage(&s.f.caller, QUOTA_bytes), MIB);
        fixture_stop(&s.f);
}

static void test_the_quota_holds_however_many_come_in_at_once(void **state) {
        struct alloc_view allocs[8];
        struct answer answers[8] = {};
        unsigned n = 0;
        struct scene s;

        begin(&s, 8 * MIB);
        for (size_t i = 0; i < 8; i++) {
                allocs[i] = fixture_alloc(&s.f, &s.f.caller,
                                          &(struct alloc_request){ .device = s.device, .size = MIB / 2 });
                coherent_swap_out(&s.f.caller, allocs[i].handle, answer, &answers[i]);
                fixture_settle(&s.f);
                answer_handle(&answers[i]);
                answers[i] = (struct answer){};
        }
        assert_int_equal(coherent_free(&s.f.caller, s.alloc.handle, NULL), 0); /* room in a region of the owner's */
        fixture_limit(&s.f.caller, QUOTA_bytes, MIB / 2);
        for (size_t i = 0; i < 8; i++)
                coherent_swap_in(&s.f.caller, &(struct swap_in_request){ .alloc = allocs[i].handle, .high = true }, answer,
                                 &answers[i]);
        fixture_settle(&s.f);
        for (size_t i = 0; i < 8; i++) {
                n += !answers[i].failure.error;
                if (answers[i].failure.error)
                        require_refused(&answers[i], REASON_quota);
        }
        assert_int_equal(n, 1);
        assert_int_equal(fixture_usage(&s.f.caller, QUOTA_bytes), MIB / 2);
        fixture_stop(&s.f);
}

static void test_it_comes_back_within_its_devices_constraints_and_those_given(void **state) {
        struct alloc_view view;
        struct answer to;
        struct scene s;

        begin_with(&s, &(struct device_options){ .mask = MASK32, .boundary = MIB }, 64 * KIB, NULL);
        swap_out(&s);
        in(&s, &(struct swap_in_request){ .align = 3 }, &to);
        require_refused(&to, REASON_bad_param);
        in(&s, &(struct swap_in_request){ .boundary = 4096 }, &to);
        require_refused(&to, REASON_boundary);
        in(&s, &(struct swap_in_request){ .mask = 0xffffff }, &to);
        fixture_settle(&s.f);
        require_refused(&to, REASON_mask);
        in(&s, &(struct swap_in_request){ .align = 256 * KIB, .mask = 0x7fffffff }, &to);
        fixture_settle(&s.f);
        answer_handle(&to);
        view = view_of(&s);
        assert_int_equal(view.dma_addr % (256 * KIB), 0);
        assert_true(view.dma_addr + view.size - 1 <= 0x7fffffff);
        assert_true(fixture_is_filled(&s.f.caller, &view));
        fixture_stop(&s.f);
}

static void test_a_devices_own_reserve_takes_it_back(void **state) {
        struct answer to = {};
        struct region_view region;
        struct alloc_view view;
        struct scene s;

        fixture_start(&s.f, LAYOUT, NULL);
        s.device = fixture_open(&s.f.caller, &(struct device_options){});
        device_reserve(&s.f.caller, &(struct reserve_request){ .device = s.device, .size = MIB }, answer, &to);
        fixture_settle(&s.f);
        assert_int_equal(region_get(&s.f.caller, answer_handle(&to), &region, NULL), 0);
        s.alloc = fixture_alloc(&s.f, &s.f.caller, &(struct alloc_request){ .device = s.device, .size = MIB });
        fixture_fill(&s.f.caller, &s.alloc);
        assert_int_equal(s.alloc.region, region.handle);
        swap_out(&s);
        assert_int_not_equal(view_of(&s).region, region.handle);
        swap_in(&s);
        view = view_of(&s);
        assert_int_equal(view.region, region.handle);
        assert_true(fixture_is_filled(&s.f.caller, &view));
        fixture_stop(&s.f);
}

static void test_what_is_mapped_or_moved_is_not_swapped_and_what_is_swapped_out_is_not_mapped(void **state) {
        struct answer to, again;
        struct failure failure = {};
        uint64_t mapping;
        struct scene s;

        begin(&s, MIB);
        assert_int_equal(mapping_map(&s.f.caller, &(struct mapping_request){ .device = s.device, .alloc = s.alloc.handle },
                                     &mapping, NULL), 0);
        out(&s, &to);
        require_refused(&to, REASON_busy);
        assert_int_equal(mapping_unmap(&s.f.caller, mapping, NULL), 0);
        assert_non_null(out(&s, &to));
        out(&s, &again);
        require_refused(&again, REASON_busy);
        in(&s, &(struct swap_in_request){}, &again);
        require_refused(&again, REASON_busy);
        assert_true(coherent_free(&s.f.caller, s.alloc.handle, &failure) < 0);
        require_failure(&failure, REASON_busy);
        fixture_settle(&s.f);
        answer_handle(&to);
        assert_true(mapping_map(&s.f.caller, &(struct mapping_request){ .device = s.device, .alloc = s.alloc.handle }, &mapping,
                                &failure) < 0);
        require_failure(&failure, REASON_busy);
        fixture_stop(&s.f);
}

static void test_nobody_swaps_what_is_anothers(void **state) {
        struct answer to = {};
        struct caller other;
        struct scene s;

        begin(&s, 8192);
        other = fixture_session(&s.f, "user:1001");
        coherent_swap_out(&other, s.alloc.handle, answer, &to);
        require_refused(&to, REASON_unknown_handle);
        other.admin = true;
        to = (struct answer){};
        coherent_swap_out(&other, s.alloc.handle, answer, &to);
        require_refused(&to, REASON_unknown_handle);
        swap_out(&s);
        to = (struct answer){};
        coherent_swap_in(&other, &(struct swap_in_request){ .alloc = s.alloc.handle }, answer, &to);
        require_refused(&to, REASON_unknown_handle);
        fixture_stop(&s.f);
}

static void test_what_is_swapped_out_is_freed_and_moved_like_any_other(void **state) {
        struct answer to = {};
        struct source_view anonymous;
        struct alloc_view view;
        uint64_t other;
        struct scene s;

        begin(&s, MIB);
        swap_out(&s);
        assert_int_equal(coherent_free(&s.f.caller, s.alloc.handle, NULL), 0);
        fixture_pass(&s.f, 60000);
        assert_true(broker_anonymous(s.f.broker, &anonymous));
        assert_int_equal(anonymous.total, 0);
        fixture_stop(&s.f);

        begin(&s, MIB);
        other = fixture_open(&s.f.caller, &(struct device_options){ .name = "other", .mask = MASK32 });
        swap_out(&s);
        coherent_move(&s.f.caller, &(struct move_request){ .alloc = s.alloc.handle, .device = other }, answer, &to);
        fixture_settle(&s.f);
        assert_int_equal(coherent_get(&s.f.caller, answer_handle(&to), &view, NULL), 0);
        assert_false(view.anonymous);
        assert_true(view.dma_addr + view.size - 1 <= MASK32);
        assert_true(fixture_is_filled(&s.f.caller, &view));
        fixture_stop(&s.f);
}

static int count_rest(const struct quarantine_view *view, void *userdata) {
        ++*(unsigned *)userdata;
        return 0;
}

static void test_what_a_vanished_client_had_swapped_out_need_not_rest(void **state) {
        struct source_view anonymous;
        struct caller other;
        unsigned n = 0;
        struct scene s;

        begin(&s, MIB);
        other = fixture_session(&s.f, NULL);
        swap_out(&s);
        session_abandon(s.f.caller.session);
        s.f.caller = other;
        assert_int_equal(quarantine_visit(&other, NULL, 0, count_rest, &n, NULL), 0);
        assert_int_equal(n, 0);
        fixture_pass(&s.f, 60000);
        assert_true(broker_anonymous(s.f.broker, &anonymous));
        assert_int_equal(anonymous.total, 0);
        fixture_stop(&s.f);
}

static void test_what_is_cancelled_or_ends_on_the_way_leaves_nothing_behind(void **state) {
        struct source_view anonymous;
        struct ticket *ticket;
        struct answer to;
        struct caller other;
        struct scene s;

        begin(&s, MIB);
        ticket = out(&s, &to);
        assert_non_null(ticket);
        ticket_cancel(ticket);
        fixture_settle(&s.f);
        assert_false(to.given);
        assert_false(view_of(&s).anonymous);
        assert_true(fixture_is_filled(&s.f.caller, &s.alloc));
        other = fixture_session(&s.f, NULL);
        assert_non_null(out(&s, &to));
        session_close(s.f.caller.session);
        s.f.caller = other;
        fixture_settle(&s.f);
        require_refused(&to, REASON_gone);
        fixture_pass(&s.f, 60000);
        assert_true(broker_anonymous(s.f.broker, &anonymous));
        assert_int_equal(anonymous.total, 0);
        fixture_stop(&s.f);
}

static void test_a_copy_outlives_the_end_of_what_it_is_for(void **state) {
        struct answer to = {};
        struct ticket *ticket;
        struct caller other;
        struct scene s;

        fixture_start(&s.f, LAYOUT, NULL);
        other = fixture_session(&s.f, "user:2000");
        s.device = fixture_open(&s.f.caller, &(struct device_options){});
        device_reserve(&s.f.caller, &(struct reserve_request){ .device = s.device, .size = MIB }, answer, &to);
        fixture_settle(&s.f);
        answer_handle(&to);
        s.alloc = fixture_alloc(&s.f, &s.f.caller, &(struct alloc_request){ .device = s.device, .size = MIB / 2 });
        swap_out(&s);
        ticket = in(&s, &(struct swap_in_request){}, &to);
        assert_non_null(ticket);
        ticket_cancel(ticket);
        session_close(s.f.caller.session);
        /* The source of the reserve is faster than the worker of ordinary memory. */
        s.f.source->ops->wait(s.f.source);
        s.f.source->ops->dispatch(s.f.source);
        s.f.anonymous->ops->wait(s.f.anonymous);
        s.f.anonymous->ops->dispatch(s.f.anonymous);
        fixture_settle(&s.f);
        s.f.caller = other;
        fixture_stop(&s.f);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_contents_go_out_and_come_back_under_the_same_handle),
                cmocka_unit_test(test_what_is_swapped_out_takes_no_device_memory),
                cmocka_unit_test(test_swapping_twice_changes_nothing),
                cmocka_unit_test(test_no_address_leads_to_what_is_swapped_out),
                cmocka_unit_test(test_it_can_be_swapped_out_when_others_wait_and_quotas_are_reached),
                cmocka_unit_test(test_ordinary_memory_has_limits_of_its_own),
                cmocka_unit_test(test_who_asks_for_more_than_the_host_has_keeps_nobody_else_from_swapping),
                cmocka_unit_test(test_whoever_keeps_the_descriptor_keeps_none_of_the_memory),
                cmocka_unit_test(test_what_is_in_but_not_as_it_is_wanted_is_moved),
                cmocka_unit_test(test_the_quota_holds_however_many_come_in_at_once),
                cmocka_unit_test(test_it_comes_back_within_its_devices_constraints_and_those_given),
                cmocka_unit_test(test_a_devices_own_reserve_takes_it_back),
                cmocka_unit_test(test_what_is_mapped_or_moved_is_not_swapped_and_what_is_swapped_out_is_not_mapped),
                cmocka_unit_test(test_nobody_swaps_what_is_anothers),
                cmocka_unit_test(test_what_is_swapped_out_is_freed_and_moved_like_any_other),
                cmocka_unit_test(test_what_a_vanished_client_had_swapped_out_need_not_rest),
                cmocka_unit_test(test_what_is_cancelled_or_ends_on_the_way_leaves_nothing_behind),
                cmocka_unit_test(test_a_copy_outlives_the_end_of_what_it_is_for),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
