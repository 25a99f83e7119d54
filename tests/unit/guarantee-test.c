/* Guarantees: what an owner was promised it gets, whoever else has asked for memory before. */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/core-fixture.h"

#define HALF_LOW "64M@0x40000000,64M@0x100000000"
#define ALL_HIGH "64M@0x100000000"

static int try_guarantee(struct fixture *f, const char *owner, uint64_t bytes, uint64_t low, struct failure *failure) {
        struct caller admin = { .session = f->caller.session, .admin = true };

        return guarantee_set(&admin, owner, &(struct guarantee){ .bytes = bytes, .low_bytes = low }, failure);
}

static void guarantee(struct fixture *f, const char *owner, uint64_t bytes, uint64_t low) {
        struct failure failure = {};

        if (try_guarantee(f, owner, bytes, low, &failure) < 0)
                fail_msg("%s", failure.sentence);
}

struct user {
        struct caller caller;
        uint64_t device;
};

static struct user user(struct fixture *f, const char *name) {
        struct user user = { .caller = fixture_session(f, name) };

        user.device = fixture_open(&user.caller, &(struct device_options){});
        return user;
}

static struct answer ask(struct fixture *f, const struct user *user, uint64_t size, uint64_t mask, bool high) {
        struct answer to = {};

        coherent_alloc(&user->caller, &(struct alloc_request){ .device = user->device, .size = size, .mask = mask,
                                                               .high = high }, answer, &to);
        fixture_settle(f);
        assert_true(to.given);
        return to;
}

static uint64_t granted(struct answer to) {
        return answer_handle(&to);
}

/* Allocate until there is no more. Bytes; the last refusal is in *ret_refused, if that is not NULL. */
static uint64_t flood(struct fixture *f, const struct user *user, uint64_t size, uint64_t mask, bool high,
                      struct failure *ret_refused) {
        uint64_t bytes = 0;
        struct answer to;

        for (;;) {
                to = ask(f, user, size, mask, high);
                if (to.failure.error)
                        break;
                bytes += size;
        }
        if (ret_refused)
                *ret_refused = to.failure;
        return bytes;
}

static uint64_t unmet_of(const struct user *user) {
        struct owner_view view;

        assert_int_equal(quota_get(&user->caller, NULL, &view, NULL), 0);
        return view.unmet.bytes + view.unmet.low_bytes;
}

static void test_a_flood_leaves_others_what_they_were_guaranteed(void **state) {
        static const uint64_t sizes[] = { 4096, 64 * KIB, 192 * KIB, MIB };
        struct user first, second, third;
        struct failure refused;
        struct fixture f;

        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
                fixture_start(&f, ALL_HIGH, NULL);
                guarantee(&f, "user:1", 16 * MIB, 0);
                guarantee(&f, "user:2", 20 * MIB, 0);
                first = user(&f, "user:1");
                second = user(&f, "user:2");
                third = user(&f, "user:3");
                assert_in_range(flood(&f, &third, sizes[i], 0, true, &refused), 26 * MIB, 28 * MIB);
                require_failure(&refused, REASON_no_memory);
                assert_int_equal(failure_number(&refused, "guaranteed"), 36 * MIB);
                assert_true(flood(&f, &first, 64 * KIB, 0, false, NULL) >= 16 * MIB);
                assert_true(flood(&f, &second, MIB, 0, false, NULL) >= 20 * MIB);
                assert_int_equal(unmet_of(&first) + unmet_of(&second), 0);
                fixture_stop(&f);
        }
}

static void test_those_with_a_guarantee_do_not_take_each_others(void **state) {
        struct user first, second;
        struct fixture f;

        fixture_start(&f, ALL_HIGH, NULL);
        guarantee(&f, "user:1", 16 * MIB, 0);
        guarantee(&f, "user:2", 32 * MIB, 0);
        first = user(&f, "user:1");
        second = user(&f, "user:2");
        assert_in_range(flood(&f, &first, 64 * KIB, 0, true, NULL), 31 * MIB, 32 * MIB);
        assert_int_equal(flood(&f, &second, 64 * KIB, 0, false, NULL), 32 * MIB);
        fixture_stop(&f);
}

static void test_a_guarantee_holds_while_memory_must_be_fetched_from_the_system(void **state) {
        struct user first, third;
        struct fixture f;

        fixture_start_growing(&f, ALL_HIGH, "0", NULL);
        guarantee(&f, "user:1", 16 * MIB, 0);
        first = user(&f, "user:1");
        third = user(&f, "user:3");
        assert_in_range(flood(&f, &third, 64 * KIB, 0, true, NULL), 47 * MIB, 48 * MIB);
        assert_int_equal(flood(&f, &first, 64 * KIB, 0, false, NULL), 16 * MIB);
        fixture_stop(&f);
}

static void test_a_guarantee_below_4_gib_leaves_narrow_devices_their_memory(void **state) {
        struct user first, third;
        struct fixture f;

        fixture_start(&f, HALF_LOW, NULL);
        guarantee(&f, "user:1", 0, 24 * MIB);
        first = user(&f, "user:1");
        third = user(&f, "user:3");
        assert_in_range(flood(&f, &third, 64 * KIB, MASK32, true, NULL), 39 * MIB, 40 * MIB);
        flood(&f, &third, 64 * KIB, 0, true, NULL);
        assert_int_equal(flood(&f, &first, 64 * KIB, MASK32, false, NULL), 24 * MIB);
        fixture_stop(&f);
}

static void test_both_parts_of_a_guarantee_can_be_called_in_in_any_order(void **state) {
        struct user first, third;
        struct fixture f;

        for (int low_first = 0; low_first < 2; low_first++) {
                fixture_start(&f, HALF_LOW, NULL);
                guarantee(&f, "user:1", 40 * MIB, 8 * MIB);
                first = user(&f, "user:1");
                third = user(&f, "user:3");
                flood(&f, &third, 64 * KIB, 0, true, NULL);
                flood(&f, &third, 64 * KIB, MASK32, true, NULL);
                for (int i = 0; i < 2; i++) {
                        uint64_t mask = i == low_first ? 0 : MASK32, part = mask ? 8 * MIB : 40 * MIB;

                        for (uint64_t n = 0; n < part; n += MIB)
                                granted(ask(&f, &first, MIB, mask, false));
                }
                assert_int_equal(unmet_of(&first), 0);
                fixture_stop(&f);
        }
}

static void test_what_a_guaranteed_owner_gives_back_is_kept_for_it(void **state) {
        struct user first, third;
        struct fixture f;
        uint64_t alloc;

        fixture_start(&f, ALL_HIGH, NULL);
        guarantee(&f, "user:1", 16 * MIB, 0);
        first = user(&f, "user:1");
        third = user(&f, "user:3");
        alloc = granted(ask(&f, &first, 16 * MIB, 0, false));
        flood(&f, &third, MIB, 0, true, NULL);
        assert_int_equal(coherent_free(&first.caller, alloc, NULL), 0);
        fixture_pass(&f, 60000);
        assert_int_equal(unmet_of(&first), 16 * MIB);
        assert_int_equal(flood(&f, &third, 64 * KIB, 0, true, NULL), 0);
        granted(ask(&f, &first, 16 * MIB, 0, false));
        fixture_stop(&f);
}

static void test_no_more_is_guaranteed_than_there_is(void **state) {
        struct promises promises;
        struct failure failure = {};
        struct fixture f;

        fixture_start(&f, HALF_LOW, NULL);
        guarantee(&f, "user:1", 64 * MIB, 16 * MIB);
        assert_true(try_guarantee(&f, "user:2", 49 * MIB, 0, &failure) < 0);
        require_failure(&failure, REASON_no_memory);
        assert_int_equal(failure_number(&failure, "asked"), 49 * MIB);
        assert_int_equal(failure_number(&failure, "guaranteed"), 80 * MIB);
        assert_int_equal(failure_number(&failure, "reachable"), 128 * MIB);
        assert_true(try_guarantee(&f, "user:2", 0, 49 * MIB, &failure) < 0);
        require_failure(&failure, REASON_no_memory);
        guarantee(&f, "user:2", 0, 48 * MIB);
        /* One's own guarantee is replaced, not added to. */
        guarantee(&f, "user:1", 80 * MIB, 0);
        guarantee(&f, "user:1", 0, 0);
        broker_promises(f.broker, false, &promises);
        assert_int_equal(promises.guaranteed.bytes, 0);
        assert_int_equal(promises.guaranteed.low_bytes, 48 * MIB);
        assert_int_equal(promises.unmet.low_bytes, 48 * MIB);
        assert_int_equal(promises.possible.bytes, 128 * MIB);
        assert_int_equal(promises.possible.low_bytes, 64 * MIB);
        assert_int_equal(guarantee_set(&f.caller, NULL, &(struct guarantee){ .bytes = 1 }, NULL), -EPERM);
        fixture_stop(&f);
}

static void test_a_guarantee_takes_nothing_away_but_is_met_first(void **state) {
        struct user first, third;
        struct answer waiting = {};
        uint64_t allocs[16];
        struct fixture f;

        fixture_start(&f, ALL_HIGH, NULL);
        first = user(&f, "user:1");
        third = user(&f, "user:3");
        for (size_t i = 0; i < 15; i++)
                allocs[i] = granted(ask(&f, &third, 4 * MIB, 0, true));
        guarantee(&f, "user:1", 8 * MIB, 0);
        coherent_alloc(&third.caller, &(struct alloc_request){ .device = third.device, .size = 4 * MIB, .wait_ms = 1000 },
                       answer, &waiting);
        assert_int_equal(coherent_free(&third.caller, allocs[0], NULL), 0);
        fixture_pass(&f, 1);
        answer_handle(&waiting); /* its owner's own region */
        assert_int_equal(coherent_free(&third.caller, allocs[1], NULL), 0);
        fixture_settle(&f);
        granted(ask(&f, &first, 4 * MIB, 0, false));
        granted(ask(&f, &first, 4 * MIB, 0, false));
        fixture_stop(&f);
}

static void test_a_guarantee_that_is_configured_can_be_taken_back(void **state) {
        struct promises promises;
        struct fixture f;

        fixture_start(&f, ALL_HIGH, NULL);
        assert_int_equal(broker_set_guarantee(f.broker, "user:1", &(struct guarantee){ .bytes = 16 * MIB }), 0);
        broker_promises(f.broker, false, &promises);
        assert_int_equal(promises.unmet.bytes, 16 * MIB);
        broker_unset_quota(f.broker, "user:1");
        broker_promises(f.broker, false, &promises);
        assert_int_equal(promises.unmet.bytes, 0);
        assert_int_equal(promises.guaranteed.bytes, 0);
        fixture_stop(&f);
}

static void test_idle_stock_that_was_guaranteed_is_not_given_back_to_the_system(void **state) {
        struct user first, third;
        struct source_option options[] = { { "layout", ALL_HIGH }, { "reserve", "0" }, { "idle_ms", "100" } };
        struct fixture f;
        uint64_t alloc;

        fixture_start_options(&f, options, 3, NULL);
        guarantee(&f, "user:1", 16 * MIB, 0);
        first = user(&f, "user:1");
        third = user(&f, "user:3");
        alloc = granted(ask(&f, &first, 32 * MIB, 0, false));
        assert_int_equal(coherent_free(&first.caller, alloc, NULL), 0);
        fixture_pass(&f, 60000);
        fixture_pass(&f, 60000);
        fixture_pass(&f, 60000);
        assert_int_equal(fixture_source(&f).free, 16 * MIB);
        assert_in_range(flood(&f, &third, MIB, 0, true, NULL), 47 * MIB, 48 * MIB);
        fixture_stop(&f);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_flood_leaves_others_what_they_were_guaranteed),
                cmocka_unit_test(test_those_with_a_guarantee_do_not_take_each_others),
                cmocka_unit_test(test_a_guarantee_holds_while_memory_must_be_fetched_from_the_system),
                cmocka_unit_test(test_a_guarantee_below_4_gib_leaves_narrow_devices_their_memory),
                cmocka_unit_test(test_both_parts_of_a_guarantee_can_be_called_in_in_any_order),
                cmocka_unit_test(test_what_a_guaranteed_owner_gives_back_is_kept_for_it),
                cmocka_unit_test(test_no_more_is_guaranteed_than_there_is),
                cmocka_unit_test(test_a_guarantee_takes_nothing_away_but_is_met_first),
                cmocka_unit_test(test_a_guarantee_that_is_configured_can_be_taken_back),
                cmocka_unit_test(test_idle_stock_that_was_guaranteed_is_not_given_back_to_the_system),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
