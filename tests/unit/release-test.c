/* Giving memory back to the system: how much, in which order, and what stays. */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/core-fixture.h"

static void start(struct fixture *f, const char *reserve, struct broker_options *options) {
        fixture_start_growing(f, "64M@0x100000000", reserve, options);
}

/* Make the source hold so much at least, all of it in stock. How much. */
static uint64_t hold(struct fixture *f, uint64_t size) {
        uint64_t device = fixture_open(&f->caller, &(struct device_options){});
        struct alloc_view view = fixture_alloc(f, &f->caller, &(struct alloc_request){ .device = device, .size = size });

        assert_int_equal(coherent_free(&f->caller, view.handle, NULL), 0);
        fixture_pass(f, 60000);
        assert_int_equal(fixture_source(f).free, fixture_source(f).total);
        return fixture_source(f).total;
}

static struct ticket *begin(struct fixture *f, uint64_t bytes, uint64_t wait_ms, struct answer *to) {
        struct caller admin = { .session = f->caller.session, .admin = true };

        return memory_release(&admin, bytes, wait_ms, answer, to);
}

static uint64_t release(struct fixture *f, uint64_t bytes) {
        struct answer to = {};

        begin(f, bytes, 0, &to);
        fixture_settle(f);
        return answer_handle(&to);
}

static void test_free_stock_goes_back_as_much_as_is_asked_for(void **state) {
        struct fixture f;

        start(&f, "0", NULL);
        hold(&f, 32 * MIB);
        assert_int_equal(release(&f, 5 * MIB), 5 * MIB);
        assert_int_equal(fixture_source(&f).total, 27 * MIB);
        assert_int_equal(release(&f, 1), 1); /* of a grain that went */
        assert_int_equal(fixture_source(&f).total, 27 * MIB - 4096);
        assert_int_equal(release(&f, 0), 27 * MIB - 4096);
        assert_int_equal(fixture_source(&f).total, 0);
        assert_int_equal(release(&f, 0), 0);
        fixture_stop(&f);
}

static void test_the_reserve_and_the_minimum_stay(void **state) {
        struct broker_options options;
        struct fixture f;

        start(&f, "8M", NULL);
        assert_int_equal(release(&f, 0), 0);
        assert_int_equal(hold(&f, 32 * MIB) - release(&f, 0), 8 * MIB);
        fixture_stop(&f);

        broker_options_default(&options);
        options.minimum = 12 * MIB;
        start(&f, "8M", &options);
        assert_int_equal(hold(&f, 32 * MIB) - release(&f, 0), 12 * MIB);
        assert_int_equal(fixture_source(&f).total, 12 * MIB);
        fixture_stop(&f);
}

static void test_what_was_guaranteed_stays(void **state) {
        struct fixture f;

        start(&f, "0", NULL);
        hold(&f, 32 * MIB);
        assert_int_equal(broker_set_guarantee(f.broker, "user:1", &(struct guarantee){ .bytes = 20 * MIB }), 0);
        assert_int_equal(release(&f, 0), 12 * MIB);
        fixture_stop(&f);
}

static void test_unused_regions_go_back_and_used_ones_stay(void **state) {
        struct alloc_view kept, freed;
        struct fixture f;
        uint64_t device;

        start(&f, "0", NULL);
        device = fixture_open(&f.caller, &(struct device_options){});
        kept = fixture_alloc(&f, &f.caller, &(struct alloc_request){ .device = device, .size = 8 * MIB });
        freed = fixture_alloc(&f, &f.caller, &(struct alloc_request){ .device = device, .size = 8 * MIB });
        assert_int_equal(coherent_free(&f.caller, freed.handle, NULL), 0);
        release(&f, 0);
        assert_int_equal(fixture_source(&f).total, 8 * MIB);
        assert_int_equal(coherent_free(&f.caller, kept.handle, NULL), 0);
        fixture_stop(&f);
}

static void test_idle_slabs_go_back_but_for_the_pools_reserve(void **state) {
        struct answer pool = {};
        struct pool_view view;
        struct fixture f;
        uint64_t device;

        start(&f, "0", NULL);
        device = fixture_open(&f.caller, &(struct device_options){});
        pool_create(&f.caller, &(struct pool_options){ .device = device, .name = "p", .size = 4096, .reserve = 20 }, answer,
                    &pool);
        fixture_settle(&f);
        assert_int_equal(pool_get(&f.caller, answer_handle(&pool), &view, NULL), 0);
        release(&f, 0);
        assert_int_equal(fixture_source(&f).total, view.bytes);
        assert_int_equal(pool_get(&f.caller, pool.handle, &view, NULL), 0);
        assert_true(view.free >= 20);
        fixture_stop(&f);
}

static void test_what_costs_least_goes_first(void **state) {
        struct answer pool = {}, lease = {};
        struct pool_view view;
        struct fixture f;
        uint64_t device;

        start(&f, "0", NULL);
        hold(&f, 32 * MIB);
        device = fixture_open(&f.caller, &(struct device_options){});
        pool_create(&f.caller, &(struct pool_options){ .device = device, .name = "p", .size = 65536 }, answer, &pool);
        fixture_settle(&f);
        pool_lease(&f.caller, &(struct pool_request){ .pool = answer_handle(&pool), .count = 1 }, answer, &lease);
        fixture_settle(&f);
        assert_int_equal(lease_return(&f.caller, answer_handle(&lease), LEASE_OF_POOL, NULL), 0);
        assert_int_equal(release(&f, 8 * MIB), 8 * MIB);
        assert_int_equal(pool_get(&f.caller, pool.handle, &view, NULL), 0);
        assert_int_equal(view.slabs, 1);
        assert_int_equal(f.events.recalls, 0);
        release(&f, 0);
        assert_int_equal(pool_get(&f.caller, pool.handle, &view, NULL), 0);
        assert_int_equal(view.slabs, 0);
        assert_int_equal(fixture_source(&f).total, 0);
        fixture_stop(&f);
}

static void test_clients_are_asked_for_leases_and_waited_for(void **state) {
        struct answer pool = {}, lease = {}, to = {};
        struct fixture f;
        uint64_t device;

        start(&f, "0", NULL);
        device = fixture_open(&f.caller, &(struct device_options){});
        pool_create(&f.caller, &(struct pool_options){ .device = device, .name = "p", .size = 65536 }, answer, &pool);
        fixture_settle(&f);
        pool_lease(&f.caller, &(struct pool_request){ .pool = answer_handle(&pool), .count = 1 }, answer, &lease);
        fixture_settle(&f);
        begin(&f, 0, 900, &to);
        fixture_settle(&f);
        assert_int_equal(f.events.recalls, 1);
        assert_int_equal(f.events.last.topic, EVENT_RECALL);
        assert_false(to.given);
        fixture_pass(&f, 100);
        assert_int_equal(f.events.recalls, 1);
        /* Who was not listening yet is asked again. */
        fixture_pass(&f, broker_deadline(f.broker) - f.now);
        assert_int_equal(f.events.recalls, 2);
        assert_false(to.given);
        assert_int_equal(lease_return(&f.caller, answer_handle(&lease), LEASE_OF_POOL, NULL), 0);
        fixture_settle(&f);
        assert_true(answer_handle(&to) >= MIB);
        assert_int_equal(fixture_source(&f).total, 0);
        fixture_stop(&f);
}

static void test_clients_that_return_nothing_are_not_waited_for_longer(void **state) {
        struct answer pool = {}, lease = {}, to = {};
        struct fixture f;
        uint64_t device;

        start(&f, "0", NULL);
        device = fixture_open(&f.caller, &(struct device_options){});
        pool_create(&f.caller, &(struct pool_options){ .device = device, .name = "p", .size = 65536 }, answer, &pool);
        fixture_settle(&f);
        pool_lease(&f.caller, &(struct pool_request){ .pool = answer_handle(&pool), .count = 1 }, answer, &lease);
        fixture_settle(&f);
        begin(&f, 0, 500, &to);
        fixture_settle(&f);
        assert_int_equal(broker_deadline(f.broker), f.now + 500);
        fixture_pass(&f, 500);
        assert_true(to.given);
        fixture_stop(&f);
}

static void test_nobody_is_bothered_where_nothing_can_go_back(void **state) {
        struct answer pool = {}, lease = {};
        struct fixture f;
        uint64_t device;

        start(&f, NULL, NULL);
        device = fixture_open(&f.caller, &(struct device_options){});
        pool_create(&f.caller, &(struct pool_options){ .device = device, .name = "p", .size = 65536 }, answer, &pool);
        fixture_settle(&f);
        pool_lease(&f.caller, &(struct pool_request){ .pool = answer_handle(&pool), .count = 1 }, answer, &lease);
        fixture_settle(&f);
        assert_int_equal(release(&f, 0), 0);
        assert_int_equal(f.events.recalls, 0);
        fixture_stop(&f);
}

static void test_pressure_of_the_host_is_told_when_it_begins_and_ends(void **state) {
        struct answer to = {};
        struct fixture f;

        start(&f, "0", NULL);
        hold(&f, 32 * MIB);
        begin(&f, 8 * MIB, 0, &to);
        assert_int_equal(f.events.last.topic, EVENT_PRESSURE);
        assert_int_equal(f.events.last.level, PRESSURE_HOST);
        assert_int_equal(f.events.last.bytes, 8 * MIB);
        assert_false(f.events.last.over);
        fixture_settle(&f);
        assert_true(f.events.last.over);

        broker_press(f.broker, true);
        fixture_settle(&f);
        assert_int_equal(fixture_source(&f).total, 0);
        assert_int_equal(f.events.last.topic, EVENT_PRESSURE);
        assert_false(f.events.last.over);
        broker_press(f.broker, true);
        fixture_settle(&f);
        assert_false(f.events.last.over);
        broker_press(f.broker, false);
        assert_true(f.events.last.over);
        assert_int_equal(f.events.last.level, PRESSURE_HOST);
        fixture_stop(&f);
}

static void test_two_releases_are_served_one_after_the_other(void **state) {
        struct answer first = {}, second = {}, third = {};
        struct ticket *ticket;
        struct fixture f;

        start(&f, "0", NULL);
        hold(&f, 32 * MIB);
        begin(&f, 8 * MIB, 0, &first);
        ticket = begin(&f, 4 * MIB, 0, &second);
        begin(&f, 2 * MIB, 0, &third);
        assert_non_null(ticket);
        ticket_cancel(ticket);
        fixture_settle(&f);
        assert_int_equal(answer_handle(&first), 8 * MIB);
        assert_false(second.given);
        assert_int_equal(answer_handle(&third), 2 * MIB);
        assert_int_equal(fixture_source(&f).total, 22 * MIB);
        fixture_stop(&f);
}

static void test_only_an_administrator_may_ask_and_the_end_answers(void **state) {
        struct answer refused = {}, unfinished = {};
        struct fixture f;

        start(&f, "0", NULL);
        hold(&f, 32 * MIB);
        memory_release(&f.caller, 0, 0, answer, &refused);
        require_refused(&refused, REASON_not_permitted);
        begin(&f, 0, 0, &unfinished);
        assert_false(unfinished.given);
        broker_free(f.broker);
        require_refused(&unfinished, REASON_gone);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_free_stock_goes_back_as_much_as_is_asked_for),
                cmocka_unit_test(test_the_reserve_and_the_minimum_stay),
                cmocka_unit_test(test_what_was_guaranteed_stays),
                cmocka_unit_test(test_unused_regions_go_back_and_used_ones_stay),
                cmocka_unit_test(test_idle_slabs_go_back_but_for_the_pools_reserve),
                cmocka_unit_test(test_what_costs_least_goes_first),
                cmocka_unit_test(test_clients_are_asked_for_leases_and_waited_for),
                cmocka_unit_test(test_clients_that_return_nothing_are_not_waited_for_longer),
                cmocka_unit_test(test_nobody_is_bothered_where_nothing_can_go_back),
                cmocka_unit_test(test_pressure_of_the_host_is_told_when_it_begins_and_ends),
                cmocka_unit_test(test_two_releases_are_served_one_after_the_other),
                cmocka_unit_test(test_only_an_administrator_may_ask_and_the_end_answers),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
