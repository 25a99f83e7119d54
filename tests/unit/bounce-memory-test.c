/* Bounce pools and mappings when the daemon itself has no memory left: each allocation fails in turn. */
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/core-fixture.h"

static _Thread_local unsigned allocations_left = UINT_MAX; /* of this thread */

static bool may_allocate(void) {
        return allocations_left == UINT_MAX || (allocations_left && allocations_left--);
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

void *__wrap_malloc(size_t size) {
        return may_allocate() ? __real_malloc(size) : NULL;
}

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);

void *__wrap_calloc(size_t n, size_t size) {
        return may_allocate() ? __real_calloc(n, size) : NULL;
}

void *__real_realloc(void *pointer, size_t size);
void *__wrap_realloc(void *pointer, size_t size);

void *__wrap_realloc(void *pointer, size_t size) {
        return may_allocate() ? __real_realloc(pointer, size) : NULL;
}

static int no_mapping(const struct mapping_view *view, void *userdata) {
        return 0;
}

/* A bit of everything, of which each step may fail. */
static bool try_everything(struct fixture *f, uint64_t device, uint64_t alloc) {
        struct answer pool = {}, mapped = {}, grown = {}, leased = {}, waiting = {};
        struct mapping_request request = { .device = device, .alloc = alloc, .request_key = "mapping" };
        uint64_t mapping = 0;
        bool all;

        bounce_create(&f->caller, &(struct bounce_options){ .device = device, .size = 64 * KIB, .max_size = MIB,
                      .request_key = "pool" }, answer, &pool);
        fixture_settle(f);
        bounce_map(&f->caller, &(struct bounce_request){ .bounce = pool.handle, .size = 64 * KIB, .request_key = "a" }, answer,
                   &mapped);
        bounce_map(&f->caller, &(struct bounce_request){ .bounce = pool.handle, .size = 64 * KIB, .request_key = "b" }, answer,
                   &grown);
        fixture_settle(f);
        bounce_lease(&f->caller, &(struct bounce_request){ .bounce = pool.handle, .size = 4, .request_key = "c" }, answer,
                     &leased);
        bounce_map(&f->caller, &(struct bounce_request){ .bounce = pool.handle, .size = 900 * KIB, .wait_ms = 10 }, answer,
                   &waiting);
        fixture_settle(f);
        mapping_map(&f->caller, &request, &mapping, NULL);
        allocations_left = UINT_MAX;
        if (!waiting.given)
                fixture_pass(f, 10);
        assert_true(pool.given && mapped.given && grown.given && leased.given && waiting.given);
        all = pool.handle && mapped.handle && grown.handle && leased.handle && mapping;
        fixture_check(f);
        if (mapping)
                assert_int_equal(mapping_unmap(&f->caller, mapping, NULL), 0);
        if (pool.handle)
                assert_int_equal(bounce_destroy(&f->caller, pool.handle, true, no_mapping, &(unsigned){ 0 }, NULL), 0);
        fixture_settle(f);
        fixture_check(f);
        return all;
}

static void test_without_memory_for_its_books_every_step_fails_and_nothing_is_lost(void **state) {
        struct fixture f;
        struct alloc_view alloc;
        unsigned n;

        fixture_start(&f, "16M@0x100000000", NULL);
        alloc = fixture_alloc(&f, &f.caller, &(struct alloc_request){ .device = fixture_open(&f.caller,
                              &(struct device_options){}), .size = 4096 });
        for (n = 0;; n++) {
                assert_true(n < 1000);
                allocations_left = n;
                if (try_everything(&f, alloc.device, alloc.handle))
                        break;
                assert_int_equal(fixture_usage(&f.caller, QUOTA_bytes), 4096);
                assert_int_equal(fixture_usage(&f.caller, QUOTA_pools) + fixture_usage(&f.caller, QUOTA_mappings) +
                                 fixture_usage(&f.caller, QUOTA_leases) + fixture_usage(&f.caller, QUOTA_waiters), 0);
        }
        assert_true(n > 20);
        fixture_stop(&f);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_without_memory_for_its_books_every_step_fails_and_nothing_is_lost),
        };

        return cmocka_run_group_tests_name("bounce pools out of memory", tests, NULL, NULL);
}
