/* Huge pages from one daemon's life to the next, on the real kernel: no byte, no address and no page is lost. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <unistd.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "daemon/source/sources.h"
#include "tests/lib/hugepages.h"
#include "tests/lib/pagemap.h"
#include "tests/unit/keep-fixture.h"

#define PAGE (UINT64_C(2) << 20)

enum {
        N_PAGES = 80,
        GROWN = 24,
        KILLS = 60,
        REGIONS = 4,
        RUNS_MAX = 512,
};

static const struct source_ops *const ops = &source_hugetlb_ops;

static uint64_t pool_total(void) {
        FILE *file = fopen("/proc/sys/vm/nr_hugepages", "re");
        uint64_t n = 0;

        insist(file);
        insist(fscanf(file, "%" SCNu64, &n) == 1);
        fclose(file);
        return n;
}

static struct source_info info_of(const struct life *life) {
        struct source_info info;

        ops->describe(life->source, &info);
        return info;
}

static struct life begin(void) {
        return life_begin(ops, NULL, 0);
}

/* GROW, and the longest run of what came. */
static struct source_run grow(struct life *life, size_t n) {
        struct source_job job = { .kind = SOURCE_GROW, .size = n * PAGE, .node = -1 };
        struct source_run longest = { 0 };
        size_t i;

        insist(life_run(life, &job) == 0);
        for (i = 0; i < job.n_arrived; i++)
                if (job.arrived[i].size > longest.size)
                        longest = job.arrived[i];
        source_job_deinit(&job);
        return longest;
}

static void write_pattern(struct life *life, struct source_backing *backing, uint64_t size) {
        char *at = life_map(life, backing, size);
        uint64_t offset;

        for (offset = 0; offset < size; offset += sizeof(offset))
                *(uint64_t *)(at + offset) = offset + 1;
        munmap(at, size);
}

static void assert_pattern(struct life *life, struct source_backing *backing, uint64_t addr, uint64_t size) {
        char *at = life_map(life, backing, size);
        uint64_t offset;

        for (offset = 0; offset < size; offset += sizeof(offset))
                if (*(uint64_t *)(at + offset) != offset + 1)
                        fail_msg("at %" PRIu64 ": %" PRIx64, offset, *(uint64_t *)(at + offset));
        for (offset = 0; offset < size; offset += 4096)
                assert_int_equal(pagemap_machine_address(at + offset), addr + offset);
        munmap(at, size);
}

static void assert_zero(struct life *life, struct source_backing *backing, uint64_t size) {
        char *at = life_map(life, backing, size);
        uint64_t offset;

        for (offset = 0; offset < size; offset += sizeof(offset))
                assert_int_equal(*(uint64_t *)(at + offset), 0);
        munmap(at, size);
}

/* A region of the longest run, and one of a page that is half of what is left; says both addresses. */
static void carve_one(void *userdata, int out) {
        struct life life = begin();
        struct source_run run = grow(&life, GROWN);
        struct source_backing *backing = life_carve(&life, 5, run.addr, run.size);

        write_pattern(&life, backing, run.size);
        say(out, run.addr);
        say(out, run.size);
        be_killed();
}

static struct source_run live_and_carve(void) {
        struct source_run run = { .node = -1 };
        int said;
        pid_t child;

        child = life_fork(carve_one, NULL, &said);
        run.addr = hear(said);
        run.size = hear(said);
        life_await(child);
        close(said);
        return run;
}

static void test_a_region_is_adopted_with_its_bytes_and_addresses(void **state) {
        size_t before = test_hugepages_free();
        struct source_job restore = { .kind = SOURCE_RESTORE };
        struct source_run run = live_and_carve();
        struct source_backing *backing;
        struct life life;

        assert_int_equal(test_hugepages_free(), before - GROWN);
        life = begin();
        assert_int_equal(info_of(&life).kept, GROWN * PAGE);
        assert_int_equal(life_adopt(&life, 5, run.addr, run.size, &backing), 0);
        assert_pattern(&life, backing, run.addr, run.size);
        assert_int_equal(info_of(&life).kept, GROWN * PAGE - run.size);
        assert_int_equal(life_gain(&life, SOURCE_RECLAIM, 0), GROWN * PAGE - run.size);
        assert_int_equal(info_of(&life).kept, 0);
        assert_int_equal(test_hugepages_free(), before - GROWN);

        restore.backing = backing;
        assert_int_equal(life_run(&life, &restore), 0);
        assert_int_equal(restore.n_arrived, 1);
        assert_int_equal(restore.arrived[0].addr, run.addr);
        assert_int_equal(restore.arrived[0].size, run.size);
        source_job_deinit(&restore);
        backing = life_carve(&life, 6, run.addr, run.size);
        assert_zero(&life, backing, run.size);
        life_close(&life);
        assert_int_equal(test_hugepages_free(), before);
}

static void test_what_nobody_adopts_is_stock_again_and_zero(void **state) {
        size_t before = test_hugepages_free();
        struct source_run run = live_and_carve();
        struct source_backing *backing;
        struct life life = begin();

        assert_int_equal(life_gain(&life, SOURCE_RECLAIM, 0), GROWN * PAGE);
        assert_int_equal(test_hugepages_free(), before - GROWN);
        backing = life_carve(&life, 5, run.addr, run.size);
        assert_zero(&life, backing, run.size);
        life_close(&life);
        assert_int_equal(test_hugepages_free(), before);
}

static void test_leaving_keeps_all_and_a_second_life_may_leave_too(void **state) {
        size_t before = test_hugepages_free();
        struct life life = begin();
        struct source_run run = grow(&life, GROWN);
        struct source_backing *backing = life_carve(&life, 1, run.addr, run.size);
        int i;

        write_pattern(&life, backing, run.size);
        life_leave(&life);
        for (i = 0; i < 3; i++) {
                assert_int_equal(test_hugepages_free(), before - GROWN);
                life = begin();
                assert_int_equal(life_adopt(&life, 1, run.addr, run.size, &backing), 0);
                assert_pattern(&life, backing, run.addr, run.size);
                life_leave(&life);
        }
        life = begin();
        life_close(&life); /* what was not even adopted goes back, too */
        assert_int_equal(test_hugepages_free(), before);
}

static void test_nobody_gets_a_page_that_a_holder_lets_go_while_there_is_no_daemon(void **state) {
        size_t before = test_hugepages_free();
        struct source_job restore = { .kind = SOURCE_RESTORE };
        struct life life = begin();
        struct source_run run = grow(&life, GROWN);
        struct source_backing *backing = life_carve(&life, 1, run.addr, run.size);
        bool pins = info_of(&life).flags & SOURCE_PINS;
        int holder = dup(ops->backing_fd(backing));

        life_leave(&life);
        assert_int_equal(fallocate(holder, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), 0);
        assert_int_equal(test_hugepages_free(), before - GROWN + (pins ? 0 : 1));
        life = begin();
        assert_int_equal(life_adopt(&life, 1, run.addr, run.size, &backing), pins ? -EUCLEAN : 0);
        assert_non_null(backing);
        restore.backing = backing;
        assert_int_equal(life_run(&life, &restore), 0);
        source_job_deinit(&restore);
        life_close(&life);
        close(holder);
        assert_int_equal(test_hugepages_free(), before);
}

static void test_another_thing_than_the_books_say_is_not_adopted(void **state) {
        size_t before = test_hugepages_free();
        struct source_run run = live_and_carve();
        struct source_backing *backing = NULL;
        struct life life = begin();

        assert_int_equal(life_adopt(&life, 4, run.addr, run.size, &backing), -ENOENT);
        assert_int_equal(life_adopt(&life, 5, run.addr, run.size + PAGE, &backing), -EINVAL);
        assert_null(backing);
        assert_int_equal(life_adopt(&life, 5, run.addr + PAGE, run.size, &backing), -EUCLEAN);
        assert_non_null(backing);
        life_close(&life);
        assert_int_equal(test_hugepages_free(), before);
}

static void test_another_limit_takes_nothing_away_and_another_page_size_is_refused(void **state) {
        static const struct source_option low[] = { { "limit", "4M" } }, high[] = { { "limit", "1T" } };
        static const struct source_option large[] = { { "page_size", "1G" } };
        size_t before = test_hugepages_free();
        struct failure failure = { 0 };
        struct source *source;
        struct keep *keep;
        struct life life;

        live_and_carve();
        life = life_begin(ops, low, 1);
        assert_int_equal(info_of(&life).available, 0);
        assert_int_equal(life_gain(&life, SOURCE_RECLAIM, 0), GROWN * PAGE);
        assert_int_equal(life_gain(&life, SOURCE_GROW, PAGE), 0);
        life_leave(&life);
        life = life_begin(ops, high, 1);
        assert_int_equal(info_of(&life).kept, GROWN * PAGE);
        assert_int_equal(life_gain(&life, SOURCE_GROW, 2 * PAGE), (GROWN + 2) * PAGE);
        life_leave(&life);

        keep = life_keep();
        if (access("/sys/kernel/mm/hugepages/hugepages-1048576kB", F_OK) == 0) {
                assert_int_equal(ops->open(large, 1, keep, &source, &failure), -EBUSY);
                assert_non_null(strstr(failure.sentence, "page_size = 2 MiB"));
        }
        keep_free(keep);
        life = begin();
        assert_int_equal(info_of(&life).kept, (GROWN + 2) * PAGE);
        life_close(&life);
        assert_int_equal(test_hugepages_free(), before);
}

static char reserve[32];
static const struct source_option reserve_options[] = { { "reserve", reserve } };

static void fill_reserve(void *userdata, int out) {
        struct life life = life_begin(ops, reserve_options, 1);

        grow(&life, info_of(&life).reserve / PAGE);
        be_killed();
}

static void test_a_reserve_is_raised_once_and_lowered_in_the_end(void **state) {
        uint64_t before = pool_total(), n = test_hugepages_free() + 3;
        struct life life;
        int said, i;

        snprintf(reserve, sizeof(reserve), "%" PRIu64 "M", 2 * n);
        for (i = 0; i < 3; i++) {
                if (i == 0) {
                        life_await(life_fork(fill_reserve, NULL, &said));
                        close(said);
                }
                assert_int_equal(pool_total(), before + 3);
                life = life_begin(ops, reserve_options, 1);
                assert_int_equal(pool_total(), before + 3);
                assert_int_equal(info_of(&life).kept, n * PAGE);
                if (i < 2)
                        life_leave(&life);
        }
        life_close(&life);
        assert_int_equal(pool_total(), before);
}

/* ---- killed at any time ---- */

struct stock {
        uint64_t pages[RUNS_MAX];
        size_t n;
};

static void stock_put(struct stock *stock, struct source_job *job) {
        uint64_t page;
        size_t i;

        for (i = 0; i < job->n_arrived; i++)
                for (page = job->arrived[i].addr; page < job->arrived[i].addr + job->arrived[i].size; page += PAGE) {
                        insist(stock->n < RUNS_MAX);
                        stock->pages[stock->n++] = page;
                }
        source_job_deinit(job);
}

static char limit[32];
static const struct source_option growing[] = { { "grow", "system" }, { "limit", limit } };

/* Grows beyond the pool, carves, restores and shrinks for ever; tells of every step. */
static void work_for_ever(void *userdata, int out) {
        struct source_backing *regions[REGIONS] = { NULL };
        struct life life = life_begin(ops, growing, 2);
        struct source_job job = { .kind = SOURCE_RECLAIM };
        struct stock stock = { .n = 0 };
        uint64_t step, id = 0;

        life_run(&life, &job);
        stock_put(&stock, &job);
        for (step = 0;; step++) {
                struct source_backing **region = &regions[step % REGIONS];

                job = (struct source_job){ .kind = SOURCE_GROW, .node = -1, .size = 3 * PAGE };
                if (*region) {
                        job = (struct source_job){ .kind = SOURCE_RESTORE, .backing = *region };
                        *region = NULL;
                } else if (step % 7 == 3 && stock.n > 6) {
                        job = (struct source_job){ .kind = SOURCE_SHRINK, .addr = stock.pages[--stock.n], .size = PAGE };
                } else if (stock.n > 4) {
                        job = (struct source_job){ .kind = SOURCE_CARVE, .addr = stock.pages[--stock.n], .size = PAGE,
                                                   .id = ++id };
                }
                life_run(&life, &job);
                *region = job.kind == SOURCE_CARVE && job.status == 0 ? job.backing : NULL;
                stock_put(&stock, &job);
                say(out, step);
        }
}

/* Nothing else takes huge pages now, so every one is in the pool or kept. */
static void kill_again_and_again(void) {
        uint64_t total = pool_total(), unused = test_hugepages_free(), kept, steps, step;
        struct source_info info;
        struct life life;
        pid_t child;
        int said, i;

        snprintf(limit, sizeof(limit), "%" PRIu64 "M", 2 * (unused + 10));
        srand(1);
        for (i = 0; i < KILLS; i++) {
                child = life_fork(work_for_ever, NULL, &said);
                steps = (uint64_t)(rand() % 40);
                for (step = 0; step <= steps; step++)
                        hear(said);
                kill(child, SIGKILL);
                life_await(child);
                close(said);

                life = life_begin(ops, growing, 2);
                info = info_of(&life);
                kept = info.kept / PAGE;
                /* What the pool has more than before was raised, and is not lost either. */
                assert_int_equal(test_hugepages_free() + kept, unused + (pool_total() - total));
                if (i % 3 == 0) {
                        assert_int_equal(life_gain(&life, SOURCE_RECLAIM, 0), kept * PAGE);
                        assert_int_equal(test_hugepages_free() + kept, unused + (pool_total() - total));
                }
                if (i % 8 == 7) {
                        life_close(&life);
                        assert_int_equal(pool_total(), total);
                        assert_int_equal(test_hugepages_free(), unused);
                } else {
                        life_leave(&life);
                }
        }
        life = begin();
        life_close(&life);
        assert_int_equal(pool_total(), total);
        assert_int_equal(test_hugepages_free(), unused);
}

static void test_a_kill_at_any_time_loses_no_page(void **state) {
        kill_again_and_again();
}

/* All that is free is taken, so that every growth must enlarge the pool. */
static void test_a_kill_while_the_pool_is_enlarged_or_lowered_loses_no_page(void **state) {
        int fd = memfd_create("hog", MFD_CLOEXEC | MFD_HUGETLB);
        off_t size = 0;

        assert_true(fd >= 0);
        while (fallocate(fd, 0, size, PAGE) == 0)
                size += PAGE;
        assert_int_equal(test_hugepages_free(), 0);
        kill_again_and_again();
        close(fd);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_region_is_adopted_with_its_bytes_and_addresses),
                cmocka_unit_test(test_what_nobody_adopts_is_stock_again_and_zero),
                cmocka_unit_test(test_leaving_keeps_all_and_a_second_life_may_leave_too),
                cmocka_unit_test(test_nobody_gets_a_page_that_a_holder_lets_go_while_there_is_no_daemon),
                cmocka_unit_test(test_another_thing_than_the_books_say_is_not_adopted),
                cmocka_unit_test(test_another_limit_takes_nothing_away_and_another_page_size_is_refused),
                cmocka_unit_test(test_a_reserve_is_raised_once_and_lowered_in_the_end),
                cmocka_unit_test(test_a_kill_at_any_time_loses_no_page),
                cmocka_unit_test(test_a_kill_while_the_pool_is_enlarged_or_lowered_loses_no_page),
        };

        /* Valgrind looks for pointers in all that a child has mapped, which is as much as the machine has. */
        if (pidfd_open(getpid(), 0) < 0) {
                printf("skipped: there is no pidfd_open() here, as in valgrind, which would take hours\n");
                return 77;
        }
        test_hugepages_reserve_or_skip(N_PAGES);
        return cmocka_run_group_tests(tests, lives_begin, lives_end);
}
