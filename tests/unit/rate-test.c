/* Calls per second: the bucket by itself, with a clock that only the test moves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "daemon/rpc/rate.h"

static unsigned take_all(struct rate *rate, uint64_t now_ms) {
        unsigned n = 0;

        while (n < 1000000 && rate_take(rate, now_ms))
                n++;
        return n;
}

static void test_a_burst_of_one_seconds_worth_is_allowed(void **state) {
        struct rate rate;

        rate_init(&rate, 50, 7);
        assert_int_equal(take_all(&rate, 7), 50);
        assert_int_equal(take_all(&rate, 7), 0);
}

static void test_a_second_brings_as_many_again_and_no_more(void **state) {
        struct rate rate;

        rate_init(&rate, 50, 0);
        take_all(&rate, 0);
        assert_int_equal(take_all(&rate, 100), 5);
        assert_int_equal(take_all(&rate, 1000), 45);
        assert_int_equal(take_all(&rate, 3600000), 50);
}

static void test_fractions_of_a_call_are_not_lost(void **state) {
        struct rate rate;
        unsigned n = 0;

        rate_init(&rate, 3, 0);
        take_all(&rate, 0);
        for (uint64_t now = 1; now <= 10000; now++)
                n += take_all(&rate, now);
        assert_int_equal(n, 30);
}

static void test_the_time_to_the_next_call_is_right_to_the_millisecond(void **state) {
        struct rate rate;

        for (uint64_t limit = 1; limit < 3000; limit += 7) {
                rate_init(&rate, limit, 0);
                assert_int_equal(rate_retry_ms(&rate), 0);
                take_all(&rate, 0);
                assert_true(rate_retry_ms(&rate) > 0);
                assert_int_equal(take_all(&rate, rate_retry_ms(&rate) - 1), 0);
                assert_true(rate_take(&rate, rate.at_ms + rate_retry_ms(&rate)));
        }
}

static void test_none_at_all_is_a_limit_too(void **state) {
        struct rate rate;

        rate_init(&rate, 0, 0);
        assert_false(rate_take(&rate, 0));
        assert_false(rate_take(&rate, 5000));
        assert_int_equal(rate_retry_ms(&rate), UINT64_MAX);
        assert_int_equal(rate_in_use(&rate, 5000), 0);
}

static void test_without_a_limit_nothing_is_counted(void **state) {
        struct rate rate;

        rate_init(&rate, RATE_UNLIMITED, 0);
        assert_int_equal(take_all(&rate, 0), 1000000);
        assert_int_equal(rate_in_use(&rate, 0), 0);
        rate_set_limit(&rate, RATE_UNLIMITED - 1, 0);
        assert_int_equal(take_all(&rate, 0), 1000000);
}

static void test_what_is_used_stays_used_when_the_limit_changes(void **state) {
        struct rate rate;

        rate_init(&rate, 50, 0);
        for (int i = 0; i < 30; i++)
                assert_true(rate_take(&rate, 0));
        assert_int_equal(rate_in_use(&rate, 0), 30);
        rate_set_limit(&rate, 40, 0);
        assert_int_equal(rate_in_use(&rate, 0), 30);
        rate_set_limit(&rate, 20, 0);
        assert_int_equal(take_all(&rate, 0), 0);
        rate_set_limit(&rate, 60, 0);
        assert_int_equal(take_all(&rate, 0), 40);
        rate_set_limit(&rate, RATE_UNLIMITED, 0);
        assert_int_equal(take_all(&rate, 0), 1000000);
        rate_set_limit(&rate, 5, 0);
        assert_int_equal(take_all(&rate, 0), 5);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_burst_of_one_seconds_worth_is_allowed),
                cmocka_unit_test(test_a_second_brings_as_many_again_and_no_more),
                cmocka_unit_test(test_fractions_of_a_call_are_not_lost),
                cmocka_unit_test(test_the_time_to_the_next_call_is_right_to_the_millisecond),
                cmocka_unit_test(test_none_at_all_is_a_limit_too),
                cmocka_unit_test(test_without_a_limit_nothing_is_counted),
                cmocka_unit_test(test_what_is_used_stays_used_when_the_limit_changes),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
