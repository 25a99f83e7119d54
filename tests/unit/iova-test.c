/* I/O virtual addresses: where they are taken from, and when they may be used again. */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "daemon/iommu/iova.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define MASK32 UINT64_C(0xffffffff)

/* As type 1 tells them on a PC: a hole for interrupts. */
static struct iova *begin(void) {
        struct iova *iova = NULL;

        assert_int_equal(iova_new(&iova), 0);
        assert_int_equal(iova_add(iova, 0, 0xfedfffff), 0);
        assert_int_equal(iova_add(iova, 0xfef00000, 0x7fffffffff), 0);
        return iova;
}

static uint64_t take(struct iova *iova, uint64_t size, uint64_t limit) {
        struct translator_run run = { .addr = GIB, .size = size, .limit = limit };
        uint64_t addr = 0;

        assert_int_equal(iova_take(iova, &run, &addr), 0);
        return addr;
}

static void test_addresses_are_within_the_limit_and_as_high_as_can_be(void **state) {
        struct iova *iova = begin();

        assert_int_equal(take(iova, 4096, UINT64_MAX), 0x7ffffff000);
        assert_int_equal(take(iova, 4096, MASK32), 0xfffff000);
        assert_int_equal(take(iova, 16 * MIB, MASK32), 0xfde00000);
        assert_true(take(iova, 4096, 0xffffff) <= 0xfff000);
        iova_free(iova);
}

static void test_neither_the_lowest_addresses_nor_holes_are_ever_taken(void **state) {
        struct translator_run run = { .size = 4096, .limit = 0xffff };
        struct iova *iova = begin();
        uint64_t addr;

        assert_int_equal(iova_take(iova, &run, &addr), -ENOSPC);
        assert_false(iova_reaches(iova, 0xffff));
        assert_true(iova_reaches(iova, 0x1ffff));
        for (int i = 0; i < 20; i++) {
                addr = take(iova, MIB, MASK32);
                assert_true(addr >= 0xfef00000 || addr + MIB <= 0xfee00000);
        }
        iova_free(iova);
}

static void test_alignment_and_boundary_are_kept(void **state) {
        struct translator_run run = { .addr = 4096, .size = 12288, .align = 65536, .boundary = 65536, .limit = UINT64_MAX };
        struct iova *iova = begin();
        uint64_t addr;

        for (int i = 0; i < 10; i++) {
                assert_int_equal(iova_take(iova, &run, &addr), 0);
                assert_int_equal(addr % 65536, 0);
        }
        run = (struct translator_run){ .addr = 4096, .size = 8192, .boundary = 8192, .limit = UINT64_MAX };
        assert_int_equal(iova_take(iova, &run, &addr), 0);
        assert_int_equal(addr % 8192, 0);
        iova_free(iova);
}

static void test_memory_in_large_pages_has_addresses_for_large_pages(void **state) {
        struct translator_run run = { .addr = 6 * MIB, .size = 4 * MIB, .limit = UINT64_MAX };
        struct iova *iova = begin();
        uint64_t addr;

        take(iova, 4096, UINT64_MAX);
        assert_int_equal(iova_take(iova, &run, &addr), 0);
        assert_int_equal(addr % (2 * MIB), 0);
        run = (struct translator_run){ .addr = 3 * GIB, .size = 2 * GIB, .limit = UINT64_MAX };
        assert_int_equal(iova_take(iova, &run, &addr), 0);
        assert_int_equal(addr % GIB, 0);
        iova_free(iova);
}

static void test_what_was_retired_is_used_again_only_when_that_is_settled(void **state) {
        struct iova *iova = NULL;
        struct iova_usage usage;
        uint64_t first, second;

        assert_int_equal(iova_new(&iova), 0);
        assert_int_equal(iova_add(iova, 0x10000, 0x11fff), 0);
        first = take(iova, 4096, UINT64_MAX);
        second = take(iova, 4096, UINT64_MAX);
        assert_int_not_equal(first, second);
        iova_retire(iova, first);
        assert_int_equal(iova_take(iova, &(struct translator_run){ .size = 4096, .limit = UINT64_MAX }, &first), -ENOSPC);
        iova_settle(iova);
        assert_int_equal(take(iova, 4096, UINT64_MAX), first);
        iova_give_back(iova, second);
        iova_usage(iova, &usage);
        assert_int_equal(usage.n_used, 1);
        assert_int_equal(usage.free_bytes, 4096);
        iova_free(iova);
}

static void count(void *userdata, uint64_t addr, uint64_t size) {
        *(uint64_t *)userdata += size;
}

static void test_what_was_there_before_is_there_again(void **state) {
        struct iova *iova = begin();
        struct iova_usage usage;
        uint64_t unused = 0;

        assert_int_equal(iova_take_at(iova, 0x1000000, 8192), 0);
        assert_int_equal(iova_take_at(iova, 0x1001000, 4096), -EBUSY);
        assert_int_equal(iova_take_at(iova, 0xfee00000, 4096), -ENOENT);
        iova_visit_free(iova, count, &unused);
        iova_usage(iova, &usage);
        assert_int_equal(usage.bytes - unused, 8192);
        assert_int_equal(usage.free_bytes, unused);
        iova_free(iova);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_addresses_are_within_the_limit_and_as_high_as_can_be),
                cmocka_unit_test(test_neither_the_lowest_addresses_nor_holes_are_ever_taken),
                cmocka_unit_test(test_alignment_and_boundary_are_kept),
                cmocka_unit_test(test_memory_in_large_pages_has_addresses_for_large_pages),
                cmocka_unit_test(test_what_was_retired_is_used_again_only_when_that_is_settled),
                cmocka_unit_test(test_what_was_there_before_is_there_again),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
