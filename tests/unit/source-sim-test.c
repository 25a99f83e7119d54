/* The simulated source and, through it, the worker that all sources share. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "daemon/source/option.h"
#include "daemon/source/sources.h"

#define MIB (UINT64_C(1) << 20)

static const struct source_ops *const ops = &source_sim_ops;

static struct source *open_sim(const struct source_option *options, size_t n) {
        struct failure failure = {};
        struct source *source = NULL;

        if (ops->open(options, n, NULL, &source, &failure) < 0)
                fail_msg("%s", failure.sentence);
        return source;
}

static void note_done(struct source_job *job) {
        *(bool *)job->userdata = true;
}

/* Submit one job and come back when its completion has run. */
static int run(struct source *source, struct source_job *job) {
        bool is_done = false;

        job->done = note_done;
        job->userdata = &is_done;
        ops->submit(source, job);
        while (!is_done) {
                ops->wait(source);
                ops->dispatch(source);
        }
        return job->status;
}

static struct source_backing *carve(struct source *source, uint64_t addr, uint64_t size) {
        struct source_job job = { .kind = SOURCE_CARVE, .addr = addr, .size = size };

        assert_int_equal(run(source, &job), 0);
        assert_int_equal(job.n_arrived, 0);
        return job.backing;
}

static void restore(struct source *source, struct source_backing *backing) {
        struct source_job job = { .kind = SOURCE_RESTORE, .backing = backing };

        assert_int_equal(run(source, &job), 0);
        source_job_deinit(&job);
}

static void assert_run(const struct source_job *job, size_t i, uint64_t addr, uint64_t size) {
        assert_true(i < job->n_arrived);
        assert_int_equal(job->arrived[i].addr, addr);
        assert_int_equal(job->arrived[i].size, size);
}

static void test_the_default_layout_has_256_mib_on_both_sides_of_4_gib(void **state) {
        struct source *source = open_sim(NULL, 0);
        struct source_job job = { .kind = SOURCE_GROW, .size = UINT64_MAX };
        struct source_info info;

        ops->describe(source, &info);
        assert_string_equal(info.name, "sim");
        assert_int_equal(info.flags, SOURCE_SIMULATED);
        assert_int_equal(info.grain, 4096);
        assert_int_equal(info.reserve, 256 * MIB);
        assert_int_equal(info.available, 256 * MIB);

        assert_int_equal(run(source, &job), 0);
        assert_int_equal(job.n_arrived, 3);
        assert_run(&job, 0, 0x00800000, 8 * MIB);
        assert_run(&job, 1, 0x78000000, 120 * MIB);
        assert_run(&job, 2, 0x100000000, 128 * MIB);
        ops->describe(source, &info);
        assert_int_equal(info.available, 0);
        source_job_deinit(&job);
        ops->close(source);
}

static void test_grow_goes_through_the_layout_in_the_order_of_the_text(void **state) {
        static const struct source_option options[] = { { "layout", "1M@0x100000000, 8K@0x4000" }, { "reserve", "0" } };
        struct source *source = open_sim(options, 2);
        struct source_job first = { .kind = SOURCE_GROW, .size = MIB / 2 }, second = { .kind = SOURCE_GROW, .size = MIB };
        struct failure failure = {};
        struct source_job third = { .kind = SOURCE_GROW, .size = 4096, .failure = &failure };

        assert_int_equal(run(source, &first), 0);
        assert_run(&first, 0, 0x100000000, MIB / 2);
        assert_int_equal(run(source, &second), 0);
        assert_int_equal(second.n_arrived, 2);
        assert_run(&second, 0, 0x100080000, MIB / 2);
        assert_run(&second, 1, 0x4000, 8192);

        assert_int_equal(run(source, &third), -ENOMEM);
        assert_int_equal(failure.reason, REASON_no_memory);
        assert_int_equal(third.n_arrived, 0);
        source_job_deinit(&first);
        source_job_deinit(&second);
        ops->close(source);
}

static void test_holes_are_cut_out_and_what_is_given_back_comes_again(void **state) {
        static const struct source_option options[] = {
                { "layout", "1M@0x100000,1M@0x200000" },
                { "holes", "64K@0x140000,128K@0x1f0000,4K@0x9000000" },
        };
        struct source *source = open_sim(options, 2);
        struct source_job all = { .kind = SOURCE_GROW, .size = UINT64_MAX }, again = { .kind = SOURCE_GROW, .size = 12288 };
        struct source_job shrink = { .kind = SOURCE_SHRINK, .addr = 0x210000, .size = 8192 };
        struct source_job shrink_low = { .kind = SOURCE_SHRINK, .addr = 0x100000, .size = 4096 };
        struct source_info info;

        assert_int_equal(run(source, &all), 0);
        assert_int_equal(all.n_arrived, 3);
        assert_run(&all, 0, 0x100000, 0x40000);
        assert_run(&all, 1, 0x150000, 0xa0000);
        assert_run(&all, 2, 0x210000, 0xf0000);

        assert_int_equal(run(source, &shrink), 0);
        assert_int_equal(run(source, &shrink_low), 0);
        ops->describe(source, &info);
        assert_int_equal(info.available, 12288);
        assert_int_equal(run(source, &again), 0);
        assert_int_equal(again.n_arrived, 2);
        assert_run(&again, 0, 0x100000, 4096);
        assert_run(&again, 1, 0x210000, 8192);
        source_job_deinit(&all);
        source_job_deinit(&again);
        ops->close(source);
}

static void test_a_shrink_across_spans_that_touch_is_whole_again_after_growing(void **state) {
        static const struct source_option options[] = { { "layout", "8K@0x2000,8K@0x4000" } };
        struct source *source = open_sim(options, 1);
        struct source_job all = { .kind = SOURCE_GROW, .size = UINT64_MAX }, again = { .kind = SOURCE_GROW, .size = UINT64_MAX };
        struct source_job shrink = { .kind = SOURCE_SHRINK, .addr = 0x3000, .size = 8192 };

        assert_int_equal(run(source, &all), 0);
        assert_int_equal(all.n_arrived, 1);
        assert_run(&all, 0, 0x2000, 16384);
        assert_int_equal(run(source, &shrink), 0);
        assert_int_equal(run(source, &again), 0);
        assert_int_equal(again.n_arrived, 1);
        assert_run(&again, 0, 0x3000, 8192);
        source_job_deinit(&all);
        source_job_deinit(&again);
        ops->close(source);
}

static void test_the_limit_holds_until_memory_is_given_back(void **state) {
        static const struct source_option options[] = { { "limit", "1M" } };
        struct source *source = open_sim(options, 1);
        struct source_job all = { .kind = SOURCE_GROW, .size = UINT64_MAX }, more = { .kind = SOURCE_GROW, .size = 4096 };

        assert_int_equal(run(source, &all), 0);
        assert_run(&all, 0, 0x00800000, MIB);
        assert_int_equal(run(source, &more), -ENOMEM);
        source_job_deinit(&all);
        ops->close(source);
}

static void test_a_region_is_a_zeroed_file_of_its_own_that_cannot_change_size(void **state) {
        struct source *source = open_sim(NULL, 0);
        struct source_backing *one = carve(source, 0x800000, MIB), *two = carve(source, 0x900000, 4096);
        int fd = ops->backing_fd(one);
        struct stat st, other;
        char *at;

        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(st.st_size, MIB);
        assert_int_equal(fstat(ops->backing_fd(two), &other), 0);
        assert_int_not_equal(st.st_ino, other.st_ino);
        assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        assert_int_equal(ftruncate(fd, 4096), -1);
        assert_int_equal(ftruncate(fd, 2 * (off_t)MIB), -1);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);

        at = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        assert_true(at != MAP_FAILED);
        assert_int_equal(at[0], 0);
        assert_int_equal(at[MIB - 1], 0);
        munmap(at, MIB);
        restore(source, two);
        restore(source, one);
        ops->close(source);
}

static void test_a_copy_is_exact_also_within_pages(void **state) {
        struct source *source = open_sim(NULL, 0);
        struct source_backing *from = carve(source, 0x800000, 4 * MIB), *to = carve(source, 0x100000000, 4 * MIB);
        struct source_job job = { .kind = SOURCE_COPY, .to_ops = ops, .from_ops = ops, .from = from, .from_offset = 4097,
                                  .backing = to,
                                  .offset = 77, .size = 3 * MIB + 5 };
        char *a, *b, byte;

        a = mmap(NULL, 4 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, ops->backing_fd(from), 0);
        b = mmap(NULL, 4 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, ops->backing_fd(to), 0);
        assert_true(a != MAP_FAILED && b != MAP_FAILED);
        for (size_t i = 0; i < 4 * MIB; i++)
                a[i] = (char)(i * 31 + i / 4096);
        memset(b, 0x5a, 4 * MIB);
        assert_int_equal(run(source, &job), 0);
        assert_memory_equal(b + 77, a + 4097, 3 * MIB + 5);
        assert_int_equal(b[76], 0x5a);
        assert_int_equal(b[77 + 3 * MIB + 5], 0x5a);
        assert_int_equal(ops->backing_read(from, 4 * MIB, &byte, 1), -EINVAL);
        assert_int_equal(ops->backing_write(to, UINT64_MAX, &byte, 2), -EINVAL);
        munmap(a, 4 * MIB);
        munmap(b, 4 * MIB);
        restore(source, from);
        restore(source, to);
        ops->close(source);
}

static void test_zeroing_touches_exactly_what_was_asked(void **state) {
        static const struct { uint64_t offset, size; } cases[] = { { 1, 3 }, { 4095, 2 }, { 100, 65536 }, { 5000, 65537 },
                                                                   { 4096, 300000 } };
        struct source *source = open_sim(NULL, 0);
        struct source_backing *backing = carve(source, 0x800000, MIB);
        size_t i, j;
        char *at;

        at = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, ops->backing_fd(backing), 0);
        assert_true(at != MAP_FAILED);
        for (i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
                uint64_t offset = cases[i / 2].offset, size = cases[i / 2].size;
                struct source_job job = { .kind = SOURCE_ZERO, .backing = backing, .offset = offset, .size = size };

                memset(at, 0x5a, MIB);
                if (i % 2)
                        assert_int_equal(run(source, &job), 0);
                else
                        assert_int_equal(ops->backing_zero(backing, offset, size), 0);
                for (j = 0; j < MIB; j++)
                        if (at[j] != (j >= offset && j < offset + size ? 0 : 0x5a))
                                fail_msg("case %zu: byte %zu is 0x%x", i, j, (unsigned)at[j]);
        }
        assert_int_equal(ops->backing_zero(backing, MIB - 1, 2), -EINVAL);
        assert_int_equal(ops->backing_zero(backing, UINT64_MAX, 2), -EINVAL);
        munmap(at, MIB);
        restore(source, backing);
        ops->close(source);
}

static void test_what_the_last_owner_wrote_is_not_seen_at_the_same_address(void **state) {
        struct source *source = open_sim(NULL, 0);
        struct source_job job = { .kind = SOURCE_RESTORE };
        char *before, *after;

        job.backing = carve(source, 0x800000, 8192);
        before = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, ops->backing_fd(job.backing), 0);
        assert_true(before != MAP_FAILED);
        memset(before, 1, 8192);
        assert_int_equal(run(source, &job), 0);
        assert_null(job.backing);
        assert_int_equal(job.n_arrived, 1);
        assert_run(&job, 0, 0x800000, 8192);

        job = (struct source_job){ .kind = SOURCE_RESTORE, .arrived = job.arrived };
        source_job_deinit(&job);
        job.backing = carve(source, 0x800000, 8192);
        after = mmap(NULL, 8192, PROT_READ, MAP_SHARED, ops->backing_fd(job.backing), 0);
        assert_true(after != MAP_FAILED);
        memset(before, 2, 8192); /* the last owner goes on writing through what it still maps */
        assert_int_equal(after[0], 0);
        assert_int_equal(after[8191], 0);
        munmap(before, 8192);
        munmap(after, 8192);
        restore(source, job.backing);
        ops->close(source);
}

static void test_verify_finds_nothing_wrong_with_a_good_region(void **state) {
        struct source *source = open_sim(NULL, 0);
        struct source_job job = { .kind = SOURCE_VERIFY, .backing = carve(source, 0x800000, 8192) };

        assert_int_equal(run(source, &job), 0);
        restore(source, job.backing);
        ops->close(source);
}

static void test_a_malformed_carve_fails_and_hands_the_memory_back(void **state) {
        struct source *source = open_sim(NULL, 0);
        struct source_job job = { .kind = SOURCE_CARVE, .addr = 0x800000, .size = 100 };

        assert_int_equal(run(source, &job), -EINVAL);
        assert_null(job.backing);
        assert_int_equal(job.n_arrived, 1);
        assert_run(&job, 0, 0x800000, 100);
        source_job_deinit(&job);
        ops->close(source);
}

struct order {
        int seen[64];
        size_t n;
        struct source *source;
        struct source_job *next; /* submitted by the first completion */
};

static void note_order(struct source_job *job) {
        struct order *order = job->userdata;

        order->seen[order->n++] = (int)job->offset;
        if (order->next) {
                ops->submit(order->source, order->next);
                order->next = NULL;
        }
        /* A completion may dispatch: those after it come in order all the same. */
        ops->dispatch(order->source);
}

static void test_completions_come_in_the_order_of_submission_and_close_waits_for_all(void **state) {
        struct source *source = open_sim(NULL, 0);
        struct order order = { .source = source };
        struct source_job jobs[41];
        struct source_backing *backing = carve(source, 0x800000, 4096);
        size_t i;

        for (i = 0; i < 41; i++)
                jobs[i] = (struct source_job){ .kind = SOURCE_VERIFY, .backing = backing, .offset = i, .done = note_order,
                                               .userdata = &order };
        jobs[39].kind = SOURCE_GROW;
        jobs[39].size = 4096;
        order.next = &jobs[40];
        for (i = 0; i < 40; i++)
                ops->submit(source, &jobs[i]);
        assert_int_equal(order.n, 0);
        jobs[40].kind = SOURCE_RESTORE;
        ops->close(source);
        assert_int_equal(order.n, 41);
        for (i = 0; i < 41; i++)
                assert_int_equal(order.seen[i], i);
        source_job_deinit(&jobs[39]);
        source_job_deinit(&jobs[40]);
}

static void test_the_event_fd_tells_when_there_is_something_to_dispatch(void **state) {
        static const struct source_option options[] = { { "delay_ms", "20" } };
        struct source *source = open_sim(options, 1);
        struct pollfd poll_fd = { .fd = ops->event_fd(source), .events = POLLIN };
        bool is_done = false;
        struct source_job job = { .kind = SOURCE_CARVE, .addr = 0x800000, .size = 4096, .done = note_done, .userdata = &is_done };

        assert_int_equal(poll(&poll_fd, 1, 0), 0);
        ops->submit(source, &job);
        assert_int_equal(poll(&poll_fd, 1, 0), 0);
        ops->dispatch(source);
        assert_false(is_done);
        assert_int_equal(poll(&poll_fd, 1, 60000), 1);
        ops->dispatch(source);
        assert_true(is_done);
        assert_int_equal(poll(&poll_fd, 1, 0), 0);
        ops->wait(source); /* nothing is left: returns at once */
        restore(source, job.backing);
        ops->close(source);
}

static void test_the_worker_takes_no_signals(void **state) {
        struct source *source = open_sim(NULL, 0);
        char path[64], line[256], name[16] = "";
        unsigned long long blocked = 0;
        sigset_t mask;
        FILE *file;
        pid_t tid;

        /* Threads are numbered upwards: the worker is the one after this process that has its name. */
        for (tid = getpid() + 1; strcmp(name, "source-sim") != 0; tid++) {
                assert_true(tid < getpid() + 10000);
                snprintf(path, sizeof(path), "/proc/self/task/%d/status", (int)tid);
                file = fopen(path, "re");
                if (!file)
                        continue;
                while (fgets(line, sizeof(line), file)) {
                        sscanf(line, "Name: %15s", name);
                        sscanf(line, "SigBlk: %llx", &blocked);
                }
                fclose(file);
        }
        assert_true(blocked & (1ULL << (SIGTERM - 1)));
        assert_true(blocked & (1ULL << (SIGCHLD - 1)));
        sigprocmask(SIG_SETMASK, NULL, &mask);
        assert_false(sigismember(&mask, SIGTERM)); /* the caller's own mask is as it was */
        ops->close(source);
}

static void test_bad_options_are_refused_with_a_sentence(void **state) {
        static const struct { const char *key, *value, *says; } cases[] = {
                { "layuot", "1M@0", "layout" },
                { "layout", "", "SIZE@ADDR" },
                { "layout", "1M", "SIZE@ADDR" },
                { "layout", "1M@", "SIZE@ADDR" },
                { "layout", "1M@0x100000,", "SIZE@ADDR" },
                { "layout", "1X@0", "SIZE@ADDR" },
                { "layout", "-1@0", "SIZE@ADDR" },
                { "layout", "0@0x1000", "empty" },
                { "layout", "100@0x1000", "4096" },
                { "layout", "4K@0x1001", "4096" },
                { "layout", "1M@0x100000,1M@0x1ff000", "overlaps" },
                { "layout", "4K@0xfffffffffffff000", "2^52" },
                { "layout", "16T@0,4K@0x200000000000", "16 TiB" },
                { "layout", "99999999T@0", "SIZE@ADDR" },
                { "holes", "4K", "SIZE@ADDR" },
                { "limit", "1", "4096" },
                { "limit", "ten", "size" },
                { "limit", "99999999999999999999", "too large" },
                { "reserve", "1.5M", "size" },
                { "idle_ms", "1s", "number" },
                { "delay_ms", "60001", "60000" },
        };
        size_t i;

        for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct failure failure = {};

                assert_true(ops->check_option(cases[i].key, cases[i].value, &failure) < 0);
                assert_int_equal(failure.reason, REASON_bad_param);
                if (!strstr(failure.sentence, cases[i].says))
                        fail_msg("%s = %s: %s", cases[i].key, cases[i].value, failure.sentence);
        }
}

static void test_options_that_only_together_make_no_sense_are_refused_at_open(void **state) {
        static const struct source_option nothing_left[] = { { "layout", "4K@0x1000" }, { "holes", "8K@0x0" } };
        static const struct source_option too_much[] = { { "limit", "1M" }, { "reserve", "2M" } };
        struct failure failure = {};
        struct source *source;

        assert_int_equal(ops->open(nothing_left, 2, NULL, &source, &failure), -EINVAL);
        assert_non_null(strstr(failure.sentence, "nothing"));
        assert_int_equal(ops->open(too_much, 2, NULL, &source, &failure), -EINVAL);
        assert_non_null(strstr(failure.sentence, "limit"));
}

static void test_sizes_take_suffixes_and_nothing_else(void **state) {
        uint64_t size = 7;

        assert_int_equal(option_parse_size("0x10", &size), 0);
        assert_int_equal(size, 16);
        assert_int_equal(option_parse_size("3k", &size), 0);
        assert_int_equal(size, 3072);
        assert_int_equal(option_parse_size("2T", &size), 0);
        assert_int_equal(size, UINT64_C(2) << 40);
        assert_int_equal(option_parse_size("16777215T", &size), 0);
        assert_int_equal(option_parse_size("16777216T", &size), -ERANGE);
        assert_int_equal(option_parse_size("1KK", &size), -EINVAL);
        assert_int_equal(option_parse_size(" 1", &size), -EINVAL);
        assert_int_equal(option_parse_size("0x", &size), -EINVAL);
        assert_int_equal(option_parse_number("1K", &size), -EINVAL);
}

static void test_every_option_has_a_sentence_and_sources_are_found_by_name(void **state) {
        const struct source_ops *const *each;
        const struct source_option *option;

        for (each = source_all; *each; each++) {
                assert_ptr_equal(source_find((*each)->name), *each);
                assert_int_equal((*each)->struct_size, sizeof(struct source_ops));
                for (option = (*each)->options; option->key; option++)
                        assert_true(strlen(option->value) > 10);
        }
        assert_null(source_find("nowhere"));
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_the_default_layout_has_256_mib_on_both_sides_of_4_gib),
                cmocka_unit_test(test_grow_goes_through_the_layout_in_the_order_of_the_text),
                cmocka_unit_test(test_holes_are_cut_out_and_what_is_given_back_comes_again),
                cmocka_unit_test(test_a_shrink_across_spans_that_touch_is_whole_again_after_growing),
                cmocka_unit_test(test_the_limit_holds_until_memory_is_given_back),
                cmocka_unit_test(test_a_region_is_a_zeroed_file_of_its_own_that_cannot_change_size),
                cmocka_unit_test(test_a_copy_is_exact_also_within_pages),
                cmocka_unit_test(test_zeroing_touches_exactly_what_was_asked),
                cmocka_unit_test(test_what_the_last_owner_wrote_is_not_seen_at_the_same_address),
                cmocka_unit_test(test_verify_finds_nothing_wrong_with_a_good_region),
                cmocka_unit_test(test_a_malformed_carve_fails_and_hands_the_memory_back),
                cmocka_unit_test(test_completions_come_in_the_order_of_submission_and_close_waits_for_all),
                cmocka_unit_test(test_the_event_fd_tells_when_there_is_something_to_dispatch),
                cmocka_unit_test(test_the_worker_takes_no_signals),
                cmocka_unit_test(test_bad_options_are_refused_with_a_sentence),
                cmocka_unit_test(test_options_that_only_together_make_no_sense_are_refused_at_open),
                cmocka_unit_test(test_sizes_take_suffixes_and_nothing_else),
                cmocka_unit_test(test_every_option_has_a_sentence_and_sources_are_found_by_name),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
