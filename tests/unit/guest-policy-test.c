/* Which window a guest gets by what its domain's metadata says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "daemon/guest/guest.h"

enum { MIB = 1 << 20 };

/* It wakes nothing: what would be done for it is only written down. */
static struct guests guests = { .closing = true };
static struct guest guest;

static int begin(void **state) {
        guest = (struct guest){ .guests = &guests, .name = "one", .has_begun = true };
        return 0;
}

static bool wants(const char *metadata) {
        guest.wants_own = false;
        guest_take_metadata(&guest, metadata);
        return guest.wants_own;
}

static void test_a_window_that_the_metadata_names_is_had(void **state) {
        assert_true(wants("<guest window='16M'/>"));
        assert_int_equal(guest.own_bytes, 16 * MIB);
}

/* Whoever has taken it out since does not find it again only because libvirt was asked once more. */
static void test_a_window_is_not_had_again_for_the_same_metadata(void **state) {
        assert_true(wants("<guest window='16M'/>"));
        assert_false(wants("<guest window='16M'/>"));
        assert_false(wants("<guest window='16384K' allocs='abc'/>"));
        assert_int_equal(guest.own_bytes, 16 * MIB);
        assert_true(wants("<guest window='32M'/>"));
        assert_false(wants(NULL));
        assert_int_equal(guest.own_bytes, 0);
        assert_true(wants("<guest window='32M'/>"));
}

static void test_a_guest_that_does_not_run_gets_it_when_it_starts(void **state) {
        guest.has_begun = false;
        assert_false(wants("<guest window='16M'/>"));
        assert_int_equal(guest.own_bytes, 16 * MIB);
}

static void test_the_configuration_comes_before_the_metadata(void **state) {
        guest.window_bytes = guest.own_bytes = 4 * MIB;
        assert_false(wants("<guest window='16M'/>"));
        assert_int_equal(guest.own_bytes, 4 * MIB);
}

static void test_a_size_that_no_window_has_is_none(void **state) {
        static const char *const sizes[] = { "", "0", "4K", "3M", "-1M", "unlimited", "16MM", "2T", "18446744073709551617" };
        char metadata[64];

        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
                snprintf(metadata, sizeof(metadata), "<guest window='%s'/>", sizes[i]);
                assert_false(wants(metadata));
                assert_int_equal(guest.own_bytes, 0);
        }
        assert_false(wants("<other window='16M'/>"));
        assert_false(wants("window='16M'"));
        assert_false(wants("<guest window='16M'"));
}

static bool wants_by_words(const char *words) {
        guest.wants_own = false;
        guest_take_words(&guest, words);
        return guest.wants_own;
}

static void test_what_xenstore_says_is_words(void **state) {
        assert_true(wants_by_words("window=16M"));
        assert_int_equal(guest.own_bytes, 16 * MIB);
        assert_false(wants_by_words("  window=16M\n"));
        assert_true(wants_by_words("colour=blue windows=1M  window=8M\twindow=4M"));
        assert_int_equal(guest.own_bytes, 8 * MIB);
        assert_false(wants_by_words(NULL));
        assert_int_equal(guest.own_bytes, 0);
}

static void test_words_that_are_no_window_are_none(void **state) {
        static const char *const words[] = {
                "", " ", "window", "window=", "window = 16M", "=16M", "window=16MM", "Window=16M", "<guest window='16M'/>",
                "window=00000000000000000000000000000000000000000000000000000000000016M",
        };

        for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
                assert_false(wants_by_words(words[i]));
                assert_int_equal(guest.own_bytes, 0);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(test_a_window_that_the_metadata_names_is_had, begin),
                cmocka_unit_test_setup(test_a_window_is_not_had_again_for_the_same_metadata, begin),
                cmocka_unit_test_setup(test_a_guest_that_does_not_run_gets_it_when_it_starts, begin),
                cmocka_unit_test_setup(test_the_configuration_comes_before_the_metadata, begin),
                cmocka_unit_test_setup(test_a_size_that_no_window_has_is_none, begin),
                cmocka_unit_test_setup(test_what_xenstore_says_is_words, begin),
                cmocka_unit_test_setup(test_words_that_are_no_window_are_none, begin),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
