/* The simulated source, from one daemon's life to the next. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "daemon/source/sources.h"
#include "tests/unit/keep-fixture.h"

#define MIB (UINT64_C(1) << 20)
#define FIRST UINT64_C(0x100000)

static const struct source_ops *const ops = &source_sim_ops;

static const struct source_option options[] = { { "layout", "1M@0x100000,1M@0x200000,1M@0x800000" } };

static struct life begin(void) {
        return life_begin(ops, options, 1);
}

static uint64_t kept(const struct life *life) {
        struct source_info info;

        ops->describe(life->source, &info);
        return info.kept;
}

/* Two regions, the second across two spans of the layout, and an end without a warning. */
static void carve_two(void *userdata, int out) {
        struct life life = begin();
        struct source_backing *one, *two;

        insist(life_gain(&life, SOURCE_GROW, UINT64_MAX) == 3 * MIB);
        one = life_carve(&life, 7, FIRST, 8192);
        two = life_carve(&life, 9, FIRST + MIB / 2, MIB);
        memset(life_map(&life, one, 8192), 0x11, 8192);
        memset(life_map(&life, two, MIB), 0x22, MIB);
        be_killed();
}

static void live(void (*what)(void *userdata, int out)) {
        int out;

        life_await(life_fork(what, NULL, &out));
        close(out);
}

static void test_regions_of_a_killed_process_are_adopted_with_every_byte(void **state) {
        struct source_job restore = { .kind = SOURCE_RESTORE };
        struct source_backing *one, *two;
        struct life life;
        size_t i;
        char *at;

        live(carve_two);
        life = begin();
        assert_int_equal(kept(&life), MIB + 8192);
        assert_int_equal(life_adopt(&life, 7, FIRST, 8192, &one), 0);
        assert_int_equal(life_adopt(&life, 9, FIRST + MIB / 2, MIB, &two), 0);
        assert_int_equal(life_adopt(&life, 9, FIRST + MIB / 2, MIB, &two), -ENOENT);
        assert_int_equal(kept(&life), 0);
        at = life_map(&life, two, MIB);
        for (i = 0; i < MIB; i++)
                assert_int_equal(at[i], 0x22);
        munmap(at, MIB);

        /* What is adopted is not told by GROW, and comes back by its restore. */
        assert_int_equal(life_gain(&life, SOURCE_RECLAIM, 0), 0);
        assert_int_equal(life_gain(&life, SOURCE_GROW, UINT64_MAX), 2 * MIB - 8192);
        restore.backing = two;
        assert_int_equal(life_run(&life, &restore), 0);
        assert_int_equal(restore.n_arrived, 1);
        assert_int_equal(restore.arrived[0].addr, FIRST + MIB / 2);
        source_job_deinit(&restore);
        life_close(&life);
}

static void test_what_nobody_adopts_is_reclaimed_and_zero(void **state) {
        struct source_backing *one;
        struct life life;
        char *at;

        live(carve_two);
        life = begin();
        assert_int_equal(life_gain(&life, SOURCE_RECLAIM, 0), 0);
        assert_int_equal(kept(&life), 0);
        assert_int_equal(life_gain(&life, SOURCE_GROW, UINT64_MAX), 3 * MIB);
        one = life_carve(&life, 7, FIRST, 8192); /* the number is free again */
        at = life_map(&life, one, 8192);
        assert_int_equal(at[0], 0);
        assert_int_equal(at[8191], 0);
        munmap(at, 8192);
        life_leave(&life);

        life = begin();
        assert_int_equal(kept(&life), 8192);
        life_close(&life);
        life = begin();
        assert_int_equal(kept(&life), 0);
        life_close(&life);
}

static int unexpected(void *userdata, const char *name) {
        return 1;
}

static void test_leaving_keeps_bytes_and_closing_does_not(void **state) {
        struct life life = begin();
        struct source_backing *backing;
        char *at;

        life_gain(&life, SOURCE_GROW, UINT64_MAX);
        backing = life_carve(&life, 1, FIRST, MIB);
        at = life_map(&life, backing, MIB);
        strcpy(at, "still here");
        munmap(at, MIB);
        life_leave(&life);

        life = begin();
        assert_int_equal(life_adopt(&life, 1, FIRST, MIB, &backing), 0);
        at = life_map(&life, backing, MIB);
        assert_string_equal(at, "still here");
        munmap(at, MIB);
        ops->close(life.source);
        assert_int_equal(keep_visit(life.keep, "", unexpected, NULL), 0);
        keep_free(life.keep);
        life = begin();
        assert_int_equal(life_adopt(&life, 1, FIRST, MIB, &backing), -ENOENT);
        life_close(&life);
}

static void test_another_thing_than_the_books_say_is_not_adopted(void **state) {
        static const struct source_option elsewhere[] = { { "layout", "1M@0x900000" } };
        struct source_backing *backing = NULL;
        struct life life;

        live(carve_two);
        life = begin();
        assert_int_equal(life_adopt(&life, 8, FIRST, 8192, &backing), -ENOENT);
        assert_int_equal(life_adopt(&life, 7, FIRST, 4096, &backing), -EINVAL);
        assert_int_equal(life_adopt(&life, 7, FIRST, 8192, &backing), 0);
        assert_int_equal(life_adopt(&life, 9, FIRST, MIB, &backing), -ENOENT); /* overlaps */
        life_leave(&life);

        life = life_begin(ops, elsewhere, 1);
        assert_int_equal(life_adopt(&life, 7, FIRST, 8192, &backing), -ENOENT);
        life_close(&life);
}

static void test_a_lower_limit_takes_nothing_away(void **state) {
        static const struct source_option lower[] = { { "layout", "1M@0x100000,1M@0x200000" }, { "limit", "64K" } };
        struct source_backing *backing;
        struct source_info info;
        struct life life;

        live(carve_two);
        life = life_begin(ops, lower, 2);
        assert_int_equal(life_adopt(&life, 9, FIRST + MIB / 2, MIB, &backing), 0);
        ops->describe(life.source, &info);
        assert_int_equal(info.available, 0);
        assert_int_equal(life_gain(&life, SOURCE_GROW, UINT64_MAX), 0);
        life_close(&life);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_regions_of_a_killed_process_are_adopted_with_every_byte),
                cmocka_unit_test(test_what_nobody_adopts_is_reclaimed_and_zero),
                cmocka_unit_test(test_leaving_keeps_bytes_and_closing_does_not),
                cmocka_unit_test(test_another_thing_than_the_books_say_is_not_adopted),
                cmocka_unit_test(test_a_lower_limit_takes_nothing_away),
        };

        return cmocka_run_group_tests(tests, lives_begin, lives_end);
}
