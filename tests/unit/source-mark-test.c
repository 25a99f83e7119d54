/* Finding a buffer in physical memory, with a physical memory of our own: a file of 256 pages, of which the buffer maps
 * some, in any order, as the kernel would have it. */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "daemon/source/mark.h"

#define BASE UINT64_C(0x7ff00000)
enum { PAGE = 4096, PAGES = 256 };

struct machine {
        int fd;
        char *physical, *map;
        size_t n; /* pages of map */
        struct mark_range range;
        unsigned long reads;
        /* What goes wrong. */
        size_t copied_from, copied_to; /* a page that shows at another place as well; 0: none */
        bool stale;                    /* reads show memory as it was at the first marks */
        char *snapshot;
        uint64_t hole;  /* an address without memory */
        int read_error; /* of every read */
};

static int machine_read(void *userdata, uint64_t addr, void *ret, size_t size) {
        struct machine *machine = userdata;
        uint64_t offset = addr - BASE;

        machine->reads++;
        assert_true(addr % PAGE + size <= PAGE);
        if (machine->read_error)
                return machine->read_error;
        if (addr < BASE || offset >= (uint64_t)PAGES * PAGE || (machine->hole && addr / PAGE == machine->hole / PAGE))
                return -ENXIO;
        if (machine->stale && !machine->snapshot) {
                machine->snapshot = malloc((size_t)PAGES * PAGE);
                assert_non_null(machine->snapshot);
                memcpy(machine->snapshot, machine->physical, (size_t)PAGES * PAGE);
        }
        if (machine->copied_to && offset / PAGE == machine->copied_to)
                offset = machine->copied_from * PAGE + offset % PAGE;
        memcpy(ret, (machine->snapshot ? machine->snapshot : machine->physical) + offset, size);
        return 0;
}

/* A buffer of n pages; its page i is physical page `first + i * step`. */
static void machine_start(struct machine *machine, size_t first, size_t n, size_t step) {
        const size_t all = (size_t)PAGES * PAGE;
        size_t i;

        *machine = (struct machine){ .n = n, .range = { BASE, all } };
        machine->fd = memfd_create("machine", MFD_CLOEXEC);
        assert_true(machine->fd >= 0);
        assert_int_equal(ftruncate(machine->fd, (off_t)all), 0);
        machine->physical = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_SHARED, machine->fd, 0);
        assert_true(machine->physical != MAP_FAILED);
        machine->map = mmap(NULL, n * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_true(machine->map != MAP_FAILED);
        for (i = 0; i < n; i++)
                assert_true(mmap(machine->map + i * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, machine->fd,
                                 (off_t)((first + i * step) * PAGE)) != MAP_FAILED);
}

static void machine_stop(struct machine *machine) {
        munmap(machine->physical, (size_t)PAGES * PAGE);
        munmap(machine->map, machine->n * PAGE);
        close(machine->fd);
        free(machine->snapshot);
}

static int locate(struct machine *machine, uint64_t limit, uint64_t *ret_addr, struct failure *failure) {
        struct mark_search search = { .read = machine_read, .userdata = machine, .ranges = &machine->range, .n_ranges = 1,
                                      .limit = limit, .page_size = PAGE };

        *failure = (struct failure){};
        *ret_addr = 1;
        return mark_locate(&search, machine->map, machine->n * PAGE, ret_addr, failure);
}

static void expect_failure(struct machine *machine, uint64_t limit, int error, enum reason reason) {
        struct failure failure;
        uint64_t addr;

        assert_int_equal(locate(machine, limit, &addr, &failure), -error);
        assert_int_equal(failure.error, error);
        assert_int_equal(failure.reason, reason);
        assert_true(failure.sentence[0]);
        assert_int_equal(addr, 1);
        machine_stop(machine);
}

static void test_a_contiguous_buffer_is_found_where_it_is(void **state) {
        static const struct { size_t first, n; } places[] = { { 0, 1 }, { 100, 17 }, { PAGES - 3, 3 }, { 0, PAGES } };
        struct machine machine;
        struct failure failure;
        uint64_t addr;
        size_t i;

        for (i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
                machine_start(&machine, places[i].first, places[i].n, 1);
                assert_int_equal(locate(&machine, UINT64_MAX, &addr, &failure), 0);
                assert_int_equal(addr, BASE + places[i].first * PAGE);
                machine_stop(&machine);
        }
}

static void test_memory_that_is_not_there_is_passed_over(void **state) {
        struct machine machine;
        struct failure failure;
        uint64_t addr;

        machine_start(&machine, 30, 2, 1);
        machine.hole = BASE + 5 * PAGE;
        machine.range = (struct mark_range){ BASE - 64 * PAGE, (PAGES + 128) * (uint64_t)PAGE };
        assert_int_equal(locate(&machine, UINT64_MAX, &addr, &failure), 0);
        assert_int_equal(addr, BASE + 30 * PAGE);
        machine_stop(&machine);
}

static void test_ranges_that_overlap_do_not_make_two_of_one(void **state) {
        struct machine machine;
        struct mark_range ranges[2];
        struct mark_search search = { .read = machine_read, .ranges = ranges, .n_ranges = 2, .limit = UINT64_MAX,
                                      .page_size = PAGE };
        struct failure failure = {};
        uint64_t addr = 0;

        machine_start(&machine, 9, 3, 1);
        search.userdata = &machine;
        ranges[0] = ranges[1] = machine.range;
        assert_int_equal(mark_locate(&search, machine.map, machine.n * PAGE, &addr, &failure), 0);
        assert_int_equal(addr, BASE + 9 * PAGE);
        machine_stop(&machine);
}

static void test_a_buffer_that_is_not_contiguous_is_refused(void **state) {
        struct machine machine;

        machine_start(&machine, 10, 4, 2);
        expect_failure(&machine, UINT64_MAX, EXDEV, REASON_source_unavailable);
}

static void test_a_buffer_of_which_only_the_last_page_lies_elsewhere_is_refused(void **state) {
        struct machine machine;

        machine_start(&machine, 10, 4, 1);
        assert_true(mmap(machine.map + 3 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, machine.fd,
                         200 * PAGE) != MAP_FAILED);
        expect_failure(&machine, UINT64_MAX, EXDEV, REASON_source_unavailable);
}

static void test_marks_that_show_at_two_places_are_refused(void **state) {
        struct machine machine;

        machine_start(&machine, 10, 4, 1);
        machine.copied_from = 10;
        machine.copied_to = 11 + 4;
        expect_failure(&machine, UINT64_MAX, ENOTUNIQ, REASON_source_unavailable);
        machine_start(&machine, 10, 4, 1);
        machine.copied_from = 10;
        machine.copied_to = PAGES - 1;
        expect_failure(&machine, UINT64_MAX, ENOTUNIQ, REASON_source_unavailable);
}

static void test_a_copy_that_does_not_follow_the_buffer_is_refused(void **state) {
        struct machine machine;

        machine_start(&machine, 10, 4, 1);
        machine.stale = true;
        expect_failure(&machine, UINT64_MAX, ESTALE, REASON_source_unavailable);
}

static void test_a_buffer_that_is_nowhere_is_refused(void **state) {
        struct machine machine;

        machine_start(&machine, 100, 4, 1);
        machine.range.size = 100 * PAGE;
        expect_failure(&machine, UINT64_MAX, ENXIO, REASON_source_unavailable);
}

static void test_a_buffer_above_the_limit_is_out_of_reach(void **state) {
        struct machine machine;
        struct failure failure;
        uint64_t addr;

        machine_start(&machine, 100, 4, 1);
        expect_failure(&machine, BASE + 100 * PAGE - 1, ERANGE, REASON_mask);
        /* Its first page alone is no help. */
        machine_start(&machine, 100, 4, 1);
        expect_failure(&machine, BASE + 104 * PAGE - 2, ERANGE, REASON_mask);
        machine_start(&machine, 100, 4, 1);
        assert_int_equal(locate(&machine, BASE + 104 * PAGE - 1, &addr, &failure), 0);
        assert_int_equal(addr, BASE + 100 * PAGE);
        machine_stop(&machine);
}

static void test_memory_that_cannot_be_read_ends_the_search(void **state) {
        struct machine machine;

        machine_start(&machine, 100, 4, 1);
        machine.read_error = -EIO;
        expect_failure(&machine, UINT64_MAX, EIO, REASON_source_unavailable);
}

static void test_a_region_is_the_memory_that_it_is_said_to_be_or_not(void **state) {
        struct machine machine;
        uint64_t offset;

        machine_start(&machine, 20, 8, 1);
        memset(machine.map, 0x5a, machine.n * PAGE);
        assert_int_equal(mark_compare(machine_read, &machine, machine.map, BASE + 20 * PAGE, 8 * PAGE, PAGE, &offset), 0);
        assert_int_equal(mark_compare(machine_read, &machine, machine.map, BASE + 21 * PAGE, 8 * PAGE, PAGE, &offset),
                         -EUCLEAN);
        assert_int_equal(offset, 7 * PAGE);
        machine_stop(&machine);
}

/* Somebody counts in the region: each read finds another number than the mapping had. */
static int counting_read(void *userdata, uint64_t addr, void *ret, size_t size) {
        struct machine *machine = userdata;
        int r = machine_read(userdata, addr, ret, size);

        *(volatile uint64_t *)machine->map += 1;
        return r;
}

static int always_behind_read(void *userdata, uint64_t addr, void *ret, size_t size) {
        struct machine *machine = userdata;
        int r = counting_read(userdata, addr, ret, size);

        *(volatile uint64_t *)machine->map += 1;
        *(uint64_t *)ret -= 1;
        return r;
}

static void test_a_region_that_is_being_written_is_not_taken_for_another(void **state) {
        struct machine machine;
        uint64_t offset;

        machine_start(&machine, 20, 1, 1);
        assert_int_equal(mark_compare(counting_read, &machine, machine.map, BASE + 20 * PAGE, PAGE, PAGE, &offset), 0);
        assert_int_equal(mark_compare(always_behind_read, &machine, machine.map, BASE + 20 * PAGE, PAGE, PAGE, &offset), 0);
        machine_stop(&machine);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_contiguous_buffer_is_found_where_it_is),
                cmocka_unit_test(test_memory_that_is_not_there_is_passed_over),
                cmocka_unit_test(test_ranges_that_overlap_do_not_make_two_of_one),
                cmocka_unit_test(test_a_buffer_that_is_not_contiguous_is_refused),
                cmocka_unit_test(test_a_buffer_of_which_only_the_last_page_lies_elsewhere_is_refused),
                cmocka_unit_test(test_marks_that_show_at_two_places_are_refused),
                cmocka_unit_test(test_a_copy_that_does_not_follow_the_buffer_is_refused),
                cmocka_unit_test(test_a_buffer_that_is_nowhere_is_refused),
                cmocka_unit_test(test_a_buffer_above_the_limit_is_out_of_reach),
                cmocka_unit_test(test_memory_that_cannot_be_read_ends_the_search),
                cmocka_unit_test(test_a_region_is_the_memory_that_it_is_said_to_be_or_not),
                cmocka_unit_test(test_a_region_that_is_being_written_is_not_taken_for_another),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
