/* Runs of slots, one behaviour each; slots-model compares whole histories. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "client/slots.h"

static struct slots *make(size_t n, uint64_t base, uint64_t barrier) {
        struct slots *slots;

        assert_int_equal(slots_new(n, base, barrier, &slots), 0);
        return slots;
}

static size_t take(struct slots *slots, size_t n) {
        size_t first;

        assert_true(slots_take(slots, n, &first));
        return first;
}

static size_t largest_free(const struct slots *slots) {
        struct slots_usage usage;

        slots_usage(slots, &usage);
        return usage.largest_free;
}

static void check(const struct slots *slots) {
        char text[100];

        if (slots_check(slots, text, sizeof(text)))
                fail_msg("%s", text);
}

static void test_what_makes_no_sense_is_refused(void **state) {
        struct slots *slots = NULL;
        size_t first = 77;

        assert_int_equal(slots_new(0, 0, 0, &slots), -EINVAL);
        assert_int_equal(slots_new((size_t)SLOTS_MOST + 1, 0, 0, &slots), -EINVAL);
        assert_int_equal(slots_new(10, 0, 3, &slots), -EINVAL);
        assert_null(slots);
        slots = make(10, 0, 0);
        assert_false(slots_take(slots, 11, &first));
        assert_false(slots_take(slots, SIZE_MAX, &first));
        assert_int_equal(first, 77);
        assert_false(slots_is_run(slots, 10));
        assert_false(slots_is_run(slots, SIZE_MAX));
        slots_free(slots);
        assert_null(slots_free(NULL));
}

static void test_all_slots_are_one_run_and_are_so_again_in_the_end(void **state) {
        struct slots *slots = make(1000, 0, 0);
        size_t firsts[1000];

        for (size_t i = 0; i < 1000; i++)
                firsts[i] = take(slots, 1);
        assert_int_equal(largest_free(slots), 0);
        for (size_t i = 0; i < 1000; i += 2)
                slots_give(slots, firsts[i]);
        assert_int_equal(largest_free(slots), 1);
        check(slots);
        for (size_t i = 1; i < 1000; i += 2)
                slots_give(slots, firsts[i]);
        assert_int_equal(largest_free(slots), 1000);
        check(slots);
        slots_free(slots);
}

static void test_the_shortest_run_that_fits_is_taken(void **state) {
        struct slots *slots = make(100, 0, 0);
        size_t ten = take(slots, 10), between = take(slots, 1), five = take(slots, 5);

        take(slots, 1);
        slots_give(slots, ten);
        slots_give(slots, five);
        assert_int_equal(take(slots, 4), five);
        assert_int_equal(take(slots, 6), ten);
        assert_true(slots_is_run(slots, between));
        slots_free(slots);
}

static void test_runs_do_not_cross_barriers_and_are_not_joined_over_them(void **state) {
        struct slots *slots = make(64, 12, 16); /* barriers at 4, 20, 36, 52 */
        size_t firsts[4];

        assert_int_equal(largest_free(slots), 16);
        for (size_t i = 0; i < 3; i++) {
                firsts[i] = take(slots, 16);
                assert_int_equal((firsts[i] + 12) % 16, 0);
        }
        assert_int_equal(take(slots, 12), 52);
        assert_int_equal(take(slots, 4), 0);
        for (size_t i = 0; i < 3; i++)
                slots_give(slots, firsts[i]);
        assert_int_equal(largest_free(slots), 16);
        check(slots);
        slots_free(slots);
}

static void test_the_longest_that_can_ever_be_is_told(void **state) {
        struct slots *slots = make(64, 12, 16);
        struct slots_usage usage;
        size_t first;

        take(slots, 16);
        slots_usage(slots, &usage);
        assert_int_equal(usage.longest, 16);
        assert_int_equal(usage.used, 16);
        assert_int_equal(usage.high_water, 16);
        assert_false(slots_take(slots, 17, &first));
        slots_usage(slots, &usage);
        assert_int_equal(usage.fulls, 1);
        slots_free(slots);
}

static void test_every_slot_of_a_run_leads_to_its_first(void **state) {
        struct slots *slots = make(5000, 0, 0);
        size_t small = take(slots, 3), large = take(slots, 4000), first;

        for (size_t i = 0; i < 5000; i++) {
                bool in_small = i - small < 3, in_large = i - large < 4000;

                assert_int_equal(slots_find_run(slots, i, &first), in_small || in_large);
                if (in_small || in_large)
                        assert_int_equal(first, in_small ? small : large);
        }
        assert_false(slots_find_run(slots, 5000, &first));
        slots_free(slots);
}

static void test_the_most_slots_there_can_be_are_found_and_joined(void **state) {
        struct slots *slots = make(SLOTS_MOST, 0, 0);
        size_t half = take(slots, SLOTS_MOST / 2), rest = take(slots, SLOTS_MOST / 2 - 1), last = take(slots, 1), first;

        assert_false(slots_take(slots, 1, &first));
        slots_give(slots, half);
        assert_int_equal(largest_free(slots), SLOTS_MOST / 2);
        slots_give(slots, last);
        slots_give(slots, rest);
        assert_int_equal(largest_free(slots), SLOTS_MOST);
        assert_int_equal(take(slots, SLOTS_MOST), 0);
        slots_free(slots);
}

/* ---- threads ---- */

enum { N_THREADS = 4, N_ROUNDS = 20000, N_HELD = 8 };

struct shared {
        struct slots_lock lock;
        struct slots *slots;
};

static void *exchange(void *pointer) {
        struct shared *shared = pointer;
        struct slots *slots = shared->slots;
        size_t held[N_HELD], n = 0;

        for (unsigned i = 0; i < N_ROUNDS; i++) {
                slots_lock(&shared->lock);
                if (n < N_HELD && slots_take(slots, 1 + i % 7, &held[n]))
                        n++;
                else if (n)
                        slots_give(slots, held[--n]);
                slots_unlock(&shared->lock);
        }
        slots_lock(&shared->lock);
        while (n)
                slots_give(slots, held[--n]);
        slots_unlock(&shared->lock);
        return NULL;
}

static void test_threads_take_turns(void **state) {
        struct shared shared = { .slots = make(150, 0, 0) };
        pthread_t threads[N_THREADS];

        for (size_t i = 0; i < N_THREADS; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, exchange, &shared), 0);
        for (size_t i = 0; i < N_THREADS; i++)
                pthread_join(threads[i], NULL);
        assert_int_equal(largest_free(shared.slots), 150);
        check(shared.slots);
        slots_lock(&shared.lock);
        assert_false(slots_try_lock(&shared.lock));
        slots_unlock(&shared.lock);
        assert_true(slots_try_lock(&shared.lock));
        slots_free(shared.slots);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_what_makes_no_sense_is_refused),
                cmocka_unit_test(test_all_slots_are_one_run_and_are_so_again_in_the_end),
                cmocka_unit_test(test_the_shortest_run_that_fits_is_taken),
                cmocka_unit_test(test_runs_do_not_cross_barriers_and_are_not_joined_over_them),
                cmocka_unit_test(test_the_longest_that_can_ever_be_is_told),
                cmocka_unit_test(test_every_slot_of_a_run_leads_to_its_first),
                cmocka_unit_test(test_the_most_slots_there_can_be_are_found_and_joined),
                cmocka_unit_test(test_threads_take_turns),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
