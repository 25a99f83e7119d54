/* Moving allocations from one device to another, with what is in them. */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/core-fixture.h"

#define LAYOUT "64M@0x40000000,64M@0x100000000"

struct scene {
        struct fixture f;
        uint64_t wide, narrow;
        struct alloc_view alloc;
};

static void begin(struct scene *s, uint64_t size) {
        fixture_start(&s->f, LAYOUT, NULL);
        s->wide = fixture_open(&s->f.caller, &(struct device_options){ .name = "wide" });
        s->narrow = fixture_open(&s->f.caller, &(struct device_options){ .name = "narrow", .mask = MASK32, .boundary = MIB });
        s->alloc = fixture_alloc(&s->f, &s->f.caller,
                                 &(struct alloc_request){ .device = s->wide, .size = size, .owner_lifetime = true,
                                                          .shareable = true });
        assert_true(s->alloc.dma_addr > MASK32);
        fixture_fill(&s->f.caller, &s->alloc);
}

static struct ticket *move(struct scene *s, uint64_t device, const char *key, struct answer *to) {
        *to = (struct answer){};
        return coherent_move(&s->f.caller, &(struct move_request){ .alloc = s->alloc.handle, .device = device,
                                                                   .request_key = key }, answer, to);
}

static void test_contents_go_to_where_the_other_device_reaches(void **state) {
        static const uint64_t sizes[] = { 4096, 300 * KIB, MIB };
        struct failure failure = {};
        struct alloc_view view;
        struct scene s;
        struct answer to;

        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
                begin(&s, sizes[i]);
                move(&s, s.narrow, NULL, &to);
                fixture_settle(&s.f);
                assert_int_equal(coherent_get(&s.f.caller, answer_handle(&to), &view, NULL), 0);
                assert_int_not_equal(view.handle, s.alloc.handle);
                assert_int_equal(view.device, s.narrow);
                assert_int_equal(view.size, sizes[i]);
                assert_true(view.dma_addr + view.size - 1 <= MASK32);
                assert_int_equal(view.dma_addr / MIB, (view.dma_addr + view.size - 1) / MIB);
                assert_true(view.owner_lifetime);
                assert_true(view.shareable);
                assert_true(fixture_is_filled(&s.f.caller, &view));
                assert_true(coherent_get(&s.f.caller, s.alloc.handle, &view, &failure) < 0);
                require_failure(&failure, REASON_double_free);
                assert_int_equal(fixture_usage(&s.f.caller, QUOTA_allocs), 1);
                assert_int_equal(fixture_usage(&s.f.caller, QUOTA_bytes), sizes[i]);
                fixture_stop(&s.f);
        }
}

static void test_while_it_is_moved_it_can_neither_be_freed_nor_mapped_nor_moved(void **state) {
        struct failure failure = {};
        struct answer to, again;
        uint64_t mapping;
        struct scene s;

        begin(&s, MIB);
        assert_non_null(move(&s, s.narrow, NULL, &to));
        assert_true(coherent_free(&s.f.caller, s.alloc.handle, &failure) < 0);
        require_failure(&failure, REASON_busy);
        assert_true(mapping_map(&s.f.caller, &(struct mapping_request){ .device = s.wide, .alloc = s.alloc.handle }, &mapping,
                                &failure) < 0);
        require_failure(&failure, REASON_busy);
        move(&s, s.narrow, NULL, &again);
        require_refused(&again, REASON_busy);
        fixture_settle(&s.f);
        answer_handle(&to);
        fixture_stop(&s.f);
}

static void test_a_move_that_fails_leaves_everything_as_it_was(void **state) {
        struct ticket *ticket;
        struct scene s;
        struct answer to;

        begin(&s, MIB);
        fixture_limit(&s.f.caller, QUOTA_allocs, 1);
        move(&s, s.narrow, "k", &to);
        require_refused(&to, REASON_quota);
        fixture_limit(&s.f.caller, QUOTA_allocs, 2);
        ticket = move(&s, s.narrow, "k", &to);
        assert_non_null(ticket);
        ticket_cancel(ticket);
        fixture_settle(&s.f);
        assert_false(to.given);
        assert_true(fixture_is_filled(&s.f.caller, &s.alloc));
        assert_int_equal(fixture_usage(&s.f.caller, QUOTA_allocs), 1);
        move(&s, s.narrow, "k", &to);
        fixture_settle(&s.f);
        answer_handle(&to);
        fixture_stop(&s.f);
}

static void test_a_move_asked_for_again_is_answered_again(void **state) {
        struct answer first, second;
        struct scene s;

        begin(&s, 8192);
        move(&s, s.narrow, "once", &first);
        fixture_settle(&s.f);
        move(&s, s.narrow, "once", &second);
        assert_int_equal(answer_handle(&second), answer_handle(&first));
        assert_int_equal(fixture_usage(&s.f.caller, QUOTA_allocs), 1);
        fixture_stop(&s.f);
}

static void test_what_is_mapped_or_a_pools_is_not_moved(void **state) {
        struct answer to, pool = {}, bounce = {};
        struct bounce_view view;
        uint64_t mapping;
        struct alloc_view held;
        struct scene s;

        begin(&s, 8192);
        assert_int_equal(mapping_map(&s.f.caller, &(struct mapping_request){ .device = s.wide, .alloc = s.alloc.handle },
                                     &mapping, NULL), 0);
        move(&s, s.narrow, NULL, &to);
        require_refused(&to, REASON_busy);
        assert_int_equal(mapping_unmap(&s.f.caller, mapping, NULL), 0);
        bounce_create(&s.f.caller, &(struct bounce_options){ .device = s.wide, .size = 4096 }, answer, &bounce);
        fixture_settle(&s.f);
        assert_int_equal(bounce_get(&s.f.caller, answer_handle(&bounce), &view, NULL), 0);
        assert_int_equal(coherent_lookup(&s.f.caller, view.machine_addr, true, &held, NULL), 0);
        coherent_move(&s.f.caller, &(struct move_request){ .alloc = held.handle, .device = s.narrow }, answer, &pool);
        require_refused(&pool, REASON_busy);
        fixture_stop(&s.f);
}

static void test_nobody_moves_what_is_anothers_or_to_anothers_device(void **state) {
        struct answer to = {};
        struct caller other, admin;
        uint64_t theirs;
        struct scene s;

        begin(&s, 8192);
        other = fixture_session(&s.f, "user:1001");
        admin = (struct caller){ .session = other.session, .admin = true };
        theirs = fixture_open(&other, &(struct device_options){});
        coherent_move(&admin, &(struct move_request){ .alloc = s.alloc.handle, .device = theirs }, answer, &to);
        require_refused(&to, REASON_unknown_handle);
        to = (struct answer){};
        move(&s, theirs, NULL, &to);
        require_refused(&to, REASON_unknown_handle);
        move(&s, s.narrow + 1000, NULL, &to);
        require_refused(&to, REASON_unknown_handle);
        fixture_stop(&s.f);
}

static int ignore_leak(const struct leak_view *leak, void *userdata) {
        return 0;
}

static void test_what_ends_while_it_is_moved_is_gone(void **state) {
        struct answer to;
        struct scene s;

        begin(&s, MIB);
        assert_non_null(move(&s, s.narrow, NULL, &to));
        assert_int_equal(device_close(&s.f.caller, s.wide, true, ignore_leak, NULL, NULL), 0);
        fixture_settle(&s.f);
        require_refused(&to, REASON_gone);
        assert_int_equal(fixture_usage(&s.f.caller, QUOTA_allocs), 0);
        fixture_stop(&s.f);

        begin(&s, MIB);
        assert_non_null(move(&s, s.narrow, NULL, &to));
        session_close(s.f.caller.session);
        fixture_settle(&s.f);
        require_refused(&to, REASON_gone);
        s.f.caller = fixture_session(&s.f, NULL);
        assert_true(fixture_is_filled(&s.f.caller, &s.alloc));
        fixture_stop(&s.f);
}

static void test_a_move_waits_for_memory_like_an_allocation(void **state) {
        struct alloc_view blocks[64];
        struct answer to = {};
        struct scene s;
        size_t n = 0;

        begin(&s, MIB);
        for (;; n++) {
                coherent_alloc(&s.f.caller, &(struct alloc_request){ .device = s.narrow, .size = MIB }, answer, &to);
                fixture_settle(&s.f);
                if (to.failure.error)
                        break;
                assert_int_equal(coherent_get(&s.f.caller, to.handle, &blocks[n], NULL), 0);
                to = (struct answer){};
        }
        to = (struct answer){};
        coherent_move(&s.f.caller,
                      &(struct move_request){ .alloc = s.alloc.handle, .device = s.narrow, .wait_ms = 1000 }, answer, &to);
        fixture_settle(&s.f);
        assert_false(to.given);
        assert_int_equal(coherent_free(&s.f.caller, blocks[n / 2].handle, NULL), 0);
        fixture_settle(&s.f);
        assert_int_equal(coherent_get(&s.f.caller, answer_handle(&to), &s.alloc, NULL), 0);
        assert_true(fixture_is_filled(&s.f.caller, &s.alloc));
        fixture_stop(&s.f);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_contents_go_to_where_the_other_device_reaches),
                cmocka_unit_test(test_while_it_is_moved_it_can_neither_be_freed_nor_mapped_nor_moved),
                cmocka_unit_test(test_a_move_that_fails_leaves_everything_as_it_was),
                cmocka_unit_test(test_a_move_asked_for_again_is_answered_again),
                cmocka_unit_test(test_what_is_mapped_or_a_pools_is_not_moved),
                cmocka_unit_test(test_nobody_moves_what_is_anothers_or_to_anothers_device),
                cmocka_unit_test(test_what_ends_while_it_is_moved_is_gone),
                cmocka_unit_test(test_a_move_waits_for_memory_like_an_allocation),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
