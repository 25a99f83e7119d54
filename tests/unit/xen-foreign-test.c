/* What becomes of the entries of a guest's grant table, by a hypervisor that does as it is told. */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include <xenctrl.h>
#include <xen/grant_table.h>

#include "daemon/guest/guests.h"
#include "daemon/guest/xen-foreign.h"
#include "tests/unit/fake-xen.h"

enum { GUEST = 3 };

static int begin(void **state) {
        fake_xen_begin();
        fake_xen_guest(GUEST);
        fake_xen.domains[GUEST].table = calloc(FAKE_ENTRIES, sizeof(grant_entry_v1_t));
        return 0;
}

static int end(void **state) {
        fake_xen_end();
        return 0;
}

static void grants(uint32_t ref, uint16_t flags) {
        grant_entry_v1_t *entries = fake_xen.domains[GUEST].table;

        entries[ref] = (grant_entry_v1_t){ .flags = flags, .domid = 0, .frame = 77 };
}

static int look(uint32_t first, uint32_t count, bool writes, struct xen_foreign_use *ret) {
        const struct grant_run run = { .first = first, .count = count };
        struct xen_foreign *foreign = NULL;
        int r = xen_foreign_open(GUEST, &foreign);

        if (r == 0)
                xen_foreign_look(foreign, &run, 1, writes, ret);
        xen_foreign_close(foreign);
        return r;
}

static void test_what_is_granted_and_what_is_mapped_of_it_is_counted(void **state) {
        struct xen_foreign_use use;

        grants(8, GTF_permit_access);
        grants(9, GTF_permit_access | GTF_reading | GTF_writing);
        grants(10, GTF_permit_access | GTF_readonly | GTF_reading);
        assert_int_equal(look(8, 3, false, &use), 0);
        assert_int_equal(use.in_use, 2);
        assert_int_equal(use.not_granted, 0);
        assert_int_equal(look(8, 4, true, &use), 0);
        assert_int_equal(use.not_granted, 2);
        assert_int_equal(use.first_not_granted, 10);
        assert_int_equal(look(UINT32_MAX, 1, false, &use), 0);
        assert_int_equal(use.not_granted, 1);
        assert_int_equal(use.first_not_granted, UINT32_MAX);
}

static void test_a_failure_of_which_xen_says_nothing_is_one_all_the_same(void **state) {
        struct xen_foreign_use use;

        fake_xen.no_table = FAKE_UNSAID;
        assert_int_equal(look(8, 1, false, &use), -EIO);
        fake_xen.no_table = EPERM;
        assert_int_equal(look(8, 1, false, &use), -EPERM);
        fake_xen.no_version = FAKE_UNSAID;
        assert_int_equal(look(8, 1, false, &use), -EIO);
        fake_xen.no_version = 0;
        fake_xen_destroy(GUEST);
        assert_int_equal(look(8, 1, false, &use), -ENOENT);
}

/* They are opened by whoever looks first, and stay. */
static void test_what_the_libraries_would_print_nobody_sees(void **state) {
        struct xen_foreign_use use;

        assert_int_equal(look(8, 1, false, &use), 0);
        assert_int_equal(fake_xen.n_loud, 0);
}

static void test_for_one_answer_each_table_is_opened_once_whether_it_can_be_read_or_not(void **state) {
        const struct grant_run run = { .first = 8, .count = 4 };
        struct grant_view view = { .kind = GRANT_MAP, .domain = GUEST, .pages = 4, .runs = &run, .n_runs = 1 };
        struct guests_use *use = guests_use_new();
        uint64_t in_use = 0;

        grants(9, GTF_permit_access | GTF_reading);
        fake_xen.tables = 0;
        for (unsigned i = 0; i < 5; i++) {
                assert_true(guests_look_use(use, &view, &in_use));
                assert_int_equal(in_use, 1);
        }
        assert_int_equal(fake_xen.tables, 1);
        view.gone = true;
        assert_false(guests_look_use(use, &view, &in_use));
        view.gone = false;
        view.kind = GRANT_SHARE;
        assert_false(guests_look_use(use, &view, &in_use));
        view.kind = GRANT_MAP;
        view.domain = GUEST + 1;
        assert_false(guests_look_use(use, &view, &in_use));
        fake_xen_guest(GUEST + 1);
        assert_false(guests_look_use(use, &view, &in_use));
        guests_use_free(use);
}

static void test_an_answer_is_not_without_end(void **state) {
        const struct grant_run run = { .first = 8, .count = GRANT_PAGES_MAX };
        const struct grant_view view = {
                .kind = GRANT_MAP, .domain = GUEST, .pages = GRANT_PAGES_MAX, .runs = &run, .n_runs = 1,
        };
        struct guests_use *use = guests_use_new();
        uint64_t in_use;

        for (unsigned i = 0; i < 8; i++)
                assert_true(guests_look_use(use, &view, &in_use));
        assert_false(guests_look_use(use, &view, &in_use));
        guests_use_free(use);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_what_the_libraries_would_print_nobody_sees),
                TEST(test_what_is_granted_and_what_is_mapped_of_it_is_counted),
                TEST(test_for_one_answer_each_table_is_opened_once_whether_it_can_be_read_or_not),
                TEST(test_an_answer_is_not_without_end),
                TEST(test_a_failure_of_which_xen_says_nothing_is_one_all_the_same),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
