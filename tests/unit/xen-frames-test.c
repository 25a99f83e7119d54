/* Frames of guests, exchanged by a hypervisor that is played. What a real one does: tests/vm/xen.sh. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "daemon/source/xen-frames.h"
#include "tests/unit/fake-xen.h"

#define UUID "6f1c6f0e-3a55-4a8a-9d0e-0c6f0b8a2d11"

enum { GUEST = 3, OTHER = 4, FIRST = 1000, N = 16, ORDER = 2, PAGE = 4096, PFN = 0x800 };

static uint64_t frames[N], extents[N];
static struct xen_exchange exchange;
static struct failure why;

/* A guest that has every other frame of a piece of memory, calls them one after the other, and uses none of them. */
static int begin(void **state) {
        static const uint8_t handle[16] = { 0x6f, 0x1c, 0x6f, 0x0e, 0x3a, 0x55, 0x4a, 0x8a, 0x9d, 0x0e,
                                            0x0c, 0x6f, 0x0b, 0x8a, 0x2d, 0x11 };

        fake_xen_begin();
        fake_xen_guest(GUEST);
        fake_xen_guest(OTHER);
        memcpy(fake_xen.domains[GUEST].handle, handle, sizeof(handle));
        for (unsigned i = 0; i < N; i++) {
                frames[i] = FIRST + 2 * i;
                fake_xen_give(GUEST, frames[i], 1, PFN + i);
                memset(fake_xen_page(frames[i]), 0x5a, PAGE);
        }
        exchange = (struct xen_exchange){
                .domid = GUEST, .uuid = UUID, .order = ORDER, .mask = UINT64_MAX, .frames = frames, .n_frames = N,
                .extents = extents,
        };
        why = (struct failure){ 0 };
        return 0;
}

static int end(void **state) {
        fake_xen_end();
        return 0;
}

static void refused(enum reason reason, const char *part) {
        const uint64_t free = fake_xen_free();
        const int r = xen_frames_exchange(&exchange, &why);

        assert_int_equal(r, -why.error);
        assert_int_equal(why.reason, reason);
        if (!strstr(why.sentence, part))
                fail_msg("%s", why.sentence);
        assert_int_equal(exchange.n_extents, 0);
        assert_int_equal(fake_xen.exchanges, 0);
        assert_int_equal(fake_xen_free(), free);
}

static void is_the_guests(uint64_t extent, uint64_t pfn) {
        for (uint64_t i = 0; i < 1 << ORDER; i++) {
                assert_int_equal(fake_xen.owner[extent + i], GUEST);
                assert_int_equal(fake_xen_name(extent + i), pfn + i);
                for (unsigned byte = 0; byte < PAGE; byte++)
                        assert_int_equal(fake_xen_page(extent + i)[byte], 0);
        }
}

static void test_frames_that_lie_apart_become_pieces_that_do_not_and_are_called_as_before(void **state) {
        memset(fake_xen_page(FAKE_PAGES - N), 0xa5, N * PAGE);
        assert_int_equal(xen_frames_exchange(&exchange, &why), 0);
        assert_int_equal(exchange.n_extents, N >> ORDER);
        assert_int_equal(exchange.why.error, 0);
        for (unsigned i = 0; i < N >> ORDER; i++)
                is_the_guests(extents[i], PFN + (i << ORDER));
        for (unsigned i = 0; i < N; i++)
                assert_int_equal(fake_xen.owner[frames[i]], 0);
        assert_int_equal(fake_xen.domains[GUEST].pages, N);
}

static void test_the_guest_says_what_it_calls_them(void **state) {
        static const uint64_t pfns[N >> ORDER] = { 0x100, 0x500, 0x200, 0x40 };
        const uint64_t first = frames[0];

        frames[0] = frames[7]; /* in whatever order */
        frames[7] = first;
        exchange.pfns = pfns;
        assert_int_equal(xen_frames_exchange(&exchange, &why), 0);
        for (unsigned i = 0; i < N >> ORDER; i++)
                is_the_guests(extents[i], pfns[i]);
}

static void test_without_that_they_must_follow_one_another_in_the_guest(void **state) {
        const uint64_t first = frames[0];

        frames[0] = frames[1];
        frames[1] = first;
        refused(REASON_bad_param, "pfns");
}

static void test_all_that_it_gets_is_within_the_mask(void **state) {
        exchange.mask = 0x3fffff;
        fake_xen_give(OTHER, 1, 800, 0); /* of the 1,024 frames below it */
        assert_int_equal(xen_frames_exchange(&exchange, &why), 0);
        for (unsigned i = 0; i < N >> ORDER; i++)
                assert_true(extents[i] + (1 << ORDER) <= 1024);
}

static void test_a_mask_that_is_no_power_of_two_is_kept_too(void **state) {
        exchange.mask = 0x7ffff0;
        assert_int_equal(xen_frames_exchange(&exchange, &why), 0);
        for (unsigned i = 0; i < N >> ORDER; i++)
                assert_true(extents[i] + (1 << ORDER) <= 1024);
}

static void test_what_the_kernel_has_mapped_is_busy_and_told_which(void **state) {
        fake_xen.is_used[frames[2]] = true;
        refused(REASON_busy, "the frames from 0x3e8 on");
        assert_int_equal(why.values[0].number, FIRST);
        for (unsigned i = 0; i < N; i++)
                assert_int_equal(fake_xen_page(frames[i])[17], 0x5a);
}

static void test_what_was_exchanged_before_that_is_told_with_the_reason(void **state) {
        fake_xen.is_used[frames[9]] = true;
        assert_int_equal(xen_frames_exchange(&exchange, &why), 0);
        assert_int_equal(exchange.n_extents, 2);
        assert_int_equal(exchange.why.reason, REASON_busy);
        assert_int_equal(exchange.why.values[0].number, frames[8]);
        for (unsigned i = 0; i < 2; i++)
                is_the_guests(extents[i], PFN + (i << ORDER));
        for (unsigned i = 8; i < N; i++) {
                assert_int_equal(fake_xen.owner[frames[i]], GUEST);
                assert_int_equal(fake_xen_page(frames[i])[17], 0x5a);
        }
}

static void test_where_there_is_no_such_piece_nothing_is_lost(void **state) {
        fake_xen.exchanges_max = 0;
        refused(REASON_no_contiguous, "no more 16384 bytes in one piece");
        exchange.mask = 0xffffffff;
        refused(REASON_no_contiguous, "at or below 0xffffffff");
}

static void test_frames_of_somebody_else_are_none(void **state) {
        const uint64_t others[] = { 5000, FAKE_PAGES + 5, UINT64_C(1) << 40, 0 };

        fake_xen_give(OTHER, 5000, 1, PFN);
        for (unsigned i = 0; i < 4; i++) {
                frames[5] = others[i];
                refused(REASON_bad_address, "does not have the frame");
                assert_int_equal(why.values[0].number, others[i]);
        }
}

static void test_twice_the_same_frame_is_not_exchanged(void **state) {
        static const uint64_t pfns[N >> ORDER] = { 0 };

        frames[3] = frames[2];
        exchange.pfns = pfns;
        exchange.n_frames = 4;
        refused(REASON_busy, "mapped still");
}

static void test_a_domain_that_is_another_guest_by_now_has_ended(void **state) {
        fake_xen.domains[GUEST].handle[15]++;
        refused(REASON_gone, "has ended");
        fake_xen.domains[GUEST].is_there = false;
        refused(REASON_gone, "has ended");
}

static void become_another(void) {
        fake_xen.domains[GUEST].handle[0]++;
}

static void test_that_is_looked_at_again_at_the_last_moment(void **state) {
        fake_xen.listed = become_another;
        refused(REASON_gone, "has ended");
}

static void test_a_guest_that_ends_meanwhile_has_nothing(void **state) {
        fake_xen.exchanged = become_another;
        assert_int_equal(xen_frames_exchange(&exchange, &why), -ESTALE);
}

static void test_only_a_paravirtualised_guest_has_frames(void **state) {
        fake_xen.domains[GUEST].is_hvm = true;
        refused(REASON_unsupported, "not paravirtualised");
}

static void test_a_guest_that_must_be_paused_and_is_not(void **state) {
        exchange.if_paused = true;
        refused(REASON_not_permitted, "The guest runs");
        fake_xen.domains[GUEST].is_paused = true;
        assert_int_equal(xen_frames_exchange(&exchange, &why), 0);
}

static void go_on(void) {
        fake_xen.domains[GUEST].is_paused = false;
}

static void test_one_that_goes_on_meanwhile_is_told_of(void **state) {
        exchange.if_paused = fake_xen.domains[GUEST].is_paused = true;
        fake_xen.exchanged = go_on;
        assert_int_equal(xen_frames_exchange(&exchange, &why), 0);
        assert_int_equal(exchange.n_extents, N >> ORDER);
        assert_int_equal(exchange.why.reason, REASON_not_permitted);
}

static void test_without_the_right_to_call_nothing_is_exchanged(void **state) {
        fake_xen.no_call = EACCES;
        refused(REASON_source_unavailable, "Permission denied");
        fake_xen.no_call = 0;
        fake_xen.no_notes = EACCES;
        refused(REASON_source_unavailable, "calls its frames");
}

int main(void) {
#define T(test) cmocka_unit_test_setup_teardown(test_##test, begin, end)
        const struct CMUnitTest tests[] = {
                T(frames_that_lie_apart_become_pieces_that_do_not_and_are_called_as_before),
                T(the_guest_says_what_it_calls_them),
                T(without_that_they_must_follow_one_another_in_the_guest),
                T(all_that_it_gets_is_within_the_mask),
                T(a_mask_that_is_no_power_of_two_is_kept_too),
                T(what_the_kernel_has_mapped_is_busy_and_told_which),
                T(what_was_exchanged_before_that_is_told_with_the_reason),
                T(where_there_is_no_such_piece_nothing_is_lost),
                T(frames_of_somebody_else_are_none),
                T(twice_the_same_frame_is_not_exchanged),
                T(a_domain_that_is_another_guest_by_now_has_ended),
                T(that_is_looked_at_again_at_the_last_moment),
                T(a_guest_that_ends_meanwhile_has_nothing),
                T(only_a_paravirtualised_guest_has_frames),
                T(a_guest_that_must_be_paused_and_is_not),
                T(one_that_goes_on_meanwhile_is_told_of),
                T(without_the_right_to_call_nothing_is_exchanged),
        };
#undef T

        return cmocka_run_group_tests(tests, NULL, NULL);
}
