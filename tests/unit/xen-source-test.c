/* The source xen where the hypervisor refuses, fails, or has been tampered with. What works is proven by
 * tests/vm/xen.sh. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xen/xen.h>
#include <xen/grant_table.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "daemon/source/sources.h"
#include "daemon/source/xen-grants.h"
#include "tests/unit/fake-xen.h"

#define MIB (UINT64_C(1) << 20)

static const struct source_ops *const ops = &source_xen_ops;
static struct source *source;
static struct source_job last;
static struct failure why;

static int begin(void **state) {
        fake_xen_begin();
        return 0;
}

static int end(void **state) {
        source_job_deinit(&last);
        fake_xen_end();
        return 0;
}

static void begin_source(const char *key, const char *value) {
        const struct source_option options[] = { { key, value } };

        assert_int_equal(ops->open(options, key != NULL, NULL, &source, &why), 0);
}

static void note_done(struct source_job *job) {
        *(bool *)job->userdata = true;
}

static int run(struct source_job job) {
        bool is_done = false;

        source_job_deinit(&last);
        last = job;
        why = (struct failure){ 0 };
        last.failure = &why;
        last.done = note_done;
        last.userdata = &is_done;
        ops->submit(source, &last);
        while (!is_done) {
                ops->wait(source);
                ops->dispatch(source);
        }
        return last.status;
}

static uint64_t arrived(void) {
        uint64_t sum = 0;

        for (size_t i = 0; i < last.n_arrived; i++)
                sum += last.arrived[i].size;
        return sum;
}

static int grow(uint64_t size, uint64_t limit) {
        return run((struct source_job){ .kind = SOURCE_GROW, .size = size, .limit = limit });
}

/* 4 MiB of Xen's, as a region. */
static struct source_backing *begin_region(uint64_t *ret_addr) {
        assert_int_equal(grow(4 * MIB, UINT64_MAX), 0);
        *ret_addr = last.arrived[0].addr;
        assert_int_equal(run((struct source_job){ .kind = SOURCE_CARVE, .addr = *ret_addr, .size = 4 * MIB }), 0);
        return last.backing;
}

static uint64_t held(void) {
        struct source_info info;

        ops->describe(source, &info);
        return FAKE_PAGES - fake_xen_free();
}

/* ---- refusals ---- */

static void test_without_the_right_to_ask_it_does_not_open(void **state) {
        fake_xen.no_ask = EPERM;
        assert_int_equal(ops->open(NULL, 0, NULL, &source, &why), -EPERM);
        assert_non_null(strstr(why.sentence, "must be root in a dom0"));
        assert_int_equal(ops->probe(&why), -EPERM);
}

/* A dom0 that is not paravirtualised is refused as long as nothing is lost by that. */
static void test_where_nothing_could_be_found_again_nothing_is_taken(void **state) {
        fake_xen.no_notes = EACCES;
        assert_int_equal(ops->open(NULL, 0, NULL, &source, &why), -EACCES);
        assert_non_null(strstr(why.sentence, "cannot be found"));
}

static void test_a_table_that_xen_does_not_allow_is_a_limit(void **state) {
        begin_source("grant_frames", "65");
        fake_xen.no_create = EINVAL;
        assert_int_equal(grow(2 * MIB, UINT64_MAX), -E2BIG);
        assert_non_null(strstr(why.sentence, "gnttab_max_frames=65"));
        assert_int_equal(arrived(), 0);
        ops->close(source);
}

static void test_a_domain_without_its_table_is_not_left_behind(void **state) {
        begin_source(NULL, NULL);
        fake_xen.no_table = EPERM;
        assert_int_equal(grow(2 * MIB, UINT64_MAX), -EPERM);
        assert_false(fake_xen.domains[1].is_there);
        ops->close(source);
}

static void test_memory_in_small_pieces_is_taken_as_it_is(void **state) {
        begin_source(NULL, NULL);
        fake_xen.order_max = 10;
        assert_int_equal(grow(20 * MIB, UINT64_MAX), 0);
        assert_int_equal(arrived(), 20 * MIB);
        fake_xen.order_max = 8;
        assert_int_equal(grow(2 * MIB, UINT64_MAX), -ENOMEM);
        assert_non_null(strstr(why.sentence, "Xen has no 2 MiB in one piece free"));
        ops->close(source);
        assert_int_equal(fake_xen_free(), FAKE_PAGES);
}

static void test_what_is_left_of_others_is_used_without_a_word(void **state) {
        begin_source("domains", "2");
        assert_int_equal(grow(110 * MIB, UINT64_MAX), 0);
        assert_int_equal(grow(110 * MIB, UINT64_MAX), 0);
        assert_int_equal(grow(32 * MIB, UINT64_MAX), 0);
        assert_int_equal(arrived(), 32 * MIB);
        assert_int_equal(why.error, 0);
        ops->close(source);
}

static void test_no_domain_is_made_for_memory_that_is_not_there(void **state) {
        begin_source(NULL, NULL);
        for (unsigned frame = 500; frame < FAKE_PAGES; frame++)
                fake_xen.owner[frame] = 7;
        assert_int_equal(grow(2 * MIB, UINT64_MAX), -ENOMEM);
        assert_non_null(strstr(why.sentence, "Xen has no 2 MiB in one piece free"));
        assert_int_equal(fake_xen.creates, 0);
        ops->close(source);
}

static void test_more_domains_than_allowed_are_not_made(void **state) {
        begin_source("domains", "1");
        assert_int_equal(grow(200 * MIB, UINT64_MAX), 0);
        assert_int_equal(arrived(), 126 * MIB);
        assert_int_equal(grow(2 * MIB, UINT64_MAX), -E2BIG);
        assert_non_null(strstr(why.sentence, "raise domains or grant_frames"));
        ops->close(source);
}

static void test_a_reserve_that_no_domains_can_have_is_refused(void **state) {
        static const struct source_option options[] = { { "reserve", "7G" }, { "domains", "56" } };
        static const struct source_option enough[] = { { "reserve", "7G" }, { "domains", "57" } };

        assert_int_equal(ops->open(options, 2, NULL, &source, &why), -EINVAL);
        assert_non_null(strstr(why.sentence, "raise domains or grant_frames"));
        assert_int_equal(ops->open(enough, 2, NULL, &source, &why), 0);
        ops->close(source);
}

static void test_xen_is_asked_for_what_the_limit_allows(void **state) {
        const struct source_option options[] = { { "reserve", "8M" }, { "low", "4M" } };

        assert_int_equal(ops->open(options, 2, NULL, &source, &why), 0);
        assert_int_equal(grow(2 * MIB, UINT64_MAX), 0);
        assert_true(last.kept_low);
        assert_int_equal(grow(6 * MIB, UINT64_MAX), 0);
        assert_false(last.kept_low);
        assert_int_equal(fake_xen.n_bits, 3);
        assert_int_equal(fake_xen.bits[0], 32);
        assert_int_equal(fake_xen.bits[1], 32);
        assert_int_equal(fake_xen.bits[2], 44);
        assert_int_equal(grow(2 * MIB, (UINT64_C(1) << 30) - 1), 0);
        assert_int_equal(fake_xen.bits[3], 30);
        /* All that has so few bits is within it, though not all within it has. */
        assert_int_equal(grow(2 * MIB, UINT64_C(0x5fffffff)), 0);
        assert_int_equal(fake_xen.bits[4], 30);
        /* Which Xen would take for no limit. */
        assert_int_equal(grow(2 * MIB, 0), -ENOMEM);
        assert_int_equal(grow(2 * MIB, MIB), -ENOMEM);
        assert_int_equal(fake_xen.n_bits, 5);
        ops->close(source);
}

/* ---- failures on the way ---- */

static void test_what_cannot_be_zeroed_goes_back_at_once(void **state) {
        begin_source(NULL, NULL);
        fake_xen.maps_to_fail = 1;
        assert_int_equal(grow(2 * MIB, UINT64_MAX), -ENOMEM);
        assert_int_equal(held(), 0);
        ops->close(source);
}

static void test_what_cannot_be_zeroed_when_it_ends_is_awaited(void **state) {
        struct source_backing *backing;
        uint64_t addr;

        begin_source(NULL, NULL);
        backing = begin_region(&addr);
        assert_int_equal(ops->backing_write(backing, 2 * MIB - 4, "secret secret", 13), 0);
        fake_xen.maps_to_fail = 1;
        assert_int_equal(run((struct source_job){ .kind = SOURCE_RESTORE, .backing = backing }), -EBUSY);
        assert_int_equal(arrived(), 2 * MIB);
        assert_int_equal(run((struct source_job){ .kind = SOURCE_RECLAIM }), 0);
        assert_int_equal(arrived(), 2 * MIB);
        ops->close(source);
}

static void test_what_does_not_go_back_stays(void **state) {
        begin_source(NULL, NULL);
        assert_int_equal(grow(4 * MIB, UINT64_MAX), 0);
        fake_xen.no_give_back = EIO;
        assert_int_equal(run((struct source_job){ .kind = SOURCE_SHRINK, .addr = last.arrived[0].addr,
                             .size = 4 * MIB }), -EIO);
        assert_int_equal(arrived(), 4 * MIB);
        ops->close(source);
        assert_int_equal(fake_xen_free(), FAKE_PAGES);
}

/* ---- what others do ---- */

static void test_a_domain_that_somebody_ended_is_noticed(void **state) {
        struct source_backing *backing;
        uint64_t addr;

        begin_source(NULL, NULL);
        backing = begin_region(&addr);
        assert_int_equal(grow(4 * MIB, UINT64_MAX), 0);
        addr = last.arrived[0].addr;
        assert_int_equal(run((struct source_job){ .kind = SOURCE_VERIFY, .backing = backing }), 0);
        fake_xen_destroy(1);
        assert_int_equal(run((struct source_job){ .kind = SOURCE_VERIFY, .backing = backing }), -EUCLEAN);
        assert_int_equal(ops->backing_zero(backing, 0, 4096), -EINVAL);
        assert_int_equal(run((struct source_job){ .kind = SOURCE_CARVE, .addr = addr, .size = 2 * MIB }), -EAGAIN);
        assert_int_equal(arrived(), 0);
        assert_int_equal(run((struct source_job){ .kind = SOURCE_RESTORE, .backing = backing }), -ENXIO);
        assert_int_equal(arrived(), 0);
        /* And another one takes its place. */
        assert_int_equal(grow(2 * MIB, UINT64_MAX), 0);
        assert_int_equal(arrived(), 2 * MIB);
        ops->close(source);
        assert_int_equal(fake_xen_free(), FAKE_PAGES);
}

/* The source as an earlier daemon leaves it: with a keep, whichever that is. */
static void leave(void) {
        ops->leave(source);
        assert_true(ops->is_kept());
}

static void begin_to_leave(void) {
        assert_int_equal(ops->open(NULL, 0, (struct keep *)&why, &source, &why), 0);
}

static void test_what_others_have_is_not_taken_for_ours(void **state) {
        struct source_backing *backing, *again = NULL;
        struct source_info info;
        uint64_t addr;
        char byte = 0;

        begin_to_leave();
        backing = begin_region(&addr);
        assert_int_equal(ops->backing_write(backing, 7, "x", 1), 0);
        leave();
        for (uint64_t frame = 0; frame < 512; frame++)
                fake_xen_forge(FAKE_PAGES - 512 + frame, 7);
        begin_source(NULL, NULL);
        ops->describe(source, &info);
        assert_int_equal(info.kept, 4 * MIB);
        assert_int_equal(ops->adopt(source, 1, addr, 6 * MIB, -1, &again, &why), -ENOENT);
        assert_int_equal(ops->adopt(source, 1, addr, 4 * MIB, -1, &again, &why), 0);
        assert_int_equal(ops->backing_read(again, 7, &byte, 1), 0);
        assert_int_equal(byte, 'x');
        assert_int_equal(run((struct source_job){ .kind = SOURCE_RECLAIM }), 0);
        assert_int_equal(arrived(), 0);
        ops->close(source);
        assert_false(ops->is_kept());
        assert_int_equal(fake_xen_free(), FAKE_PAGES - 512);
}

static void test_a_mapped_page_keeps_its_grain_over_a_restart(void **state) {
        struct xen_grant_run *runs = NULL;
        grant_entry_v1_t *entries;
        uint64_t addr;
        size_t n = 0;

        begin_to_leave();
        begin_region(&addr);
        assert_int_equal(xen_grants_give(addr + 2 * MIB, 8192, 7, false, &runs, &n, &why), 0);
        entries = fake_xen.domains[1].table;
        entries[runs[0].first + 1].flags |= GTF_reading;
        leave();
        begin_source(NULL, NULL);
        assert_int_equal(run((struct source_job){ .kind = SOURCE_RECLAIM }), -EBUSY);
        assert_int_equal(arrived(), 2 * MIB);
        assert_int_equal(last.arrived[0].addr, addr);
        assert_int_equal(entries[runs[0].first].flags, 0);
        assert_int_equal(run((struct source_job){ .kind = SOURCE_RECLAIM }), -EBUSY);
        assert_int_equal(arrived(), 0);
        entries[runs[0].first + 1].flags = 0;
        assert_int_equal(run((struct source_job){ .kind = SOURCE_RECLAIM }), 0);
        assert_int_equal(arrived(), 2 * MIB);
        free(runs);
        ops->close(source);
}

/* It was killed before it had said how much memory the domain may have. */
static void test_a_domain_that_was_just_being_made_is_used(void **state) {
        begin_to_leave();
        assert_int_equal(grow(2 * MIB, UINT64_MAX), 0);
        leave();
        fake_xen.domains[1].max_pages = 0;
        begin_source(NULL, NULL);
        assert_int_equal(grow(4 * MIB, UINT64_MAX), 0);
        assert_int_equal(arrived(), 4 * MIB);
        assert_int_equal(fake_xen.domains[1].pages, 3 * 512);
        ops->close(source);
}

/* A guest may call all its frames so. */
static void test_names_that_others_give_cost_little(void **state) {
        struct source_info info;

        begin_to_leave();
        assert_int_equal(grow(4 * MIB, UINT64_MAX), 0);
        leave();
        for (uint64_t frame = 0; frame < 64 * 512; frame++)
                fake_xen_forge(FAKE_PAGES - 64 * 512 + frame, 7);
        begin_source(NULL, NULL);
        ops->describe(source, &info);
        assert_int_equal(info.kept, 4 * MIB);
        assert_int_equal(fake_xen.refused, 64);
        ops->close(source);
}

static void test_a_hole_in_the_machines_memory_is_not_looked_at(void **state) {
        struct source_info info;

        begin_to_leave();
        assert_int_equal(grow(4 * MIB, UINT64_MAX), 0);
        leave();
        fake_xen.has_hole = true;
        begin_source(NULL, NULL);
        ops->describe(source, &info);
        assert_int_equal(info.kept, 4 * MIB);
        assert_int_equal(fake_xen.refused, 0);
        ops->close(source);
}

/* Three maps: of the notes, of first frames, and of all. */
static void test_what_cannot_be_proven_now_is_not_given_up(void **state) {
        begin_to_leave();
        assert_int_equal(grow(4 * MIB, UINT64_MAX), 0);
        leave();
        fake_xen.no_map = EINTR;
        for (int n = 0; n < 3; n++) {
                fake_xen.maps_to_pass = n;
                fake_xen.maps_to_fail = 1;
                assert_int_equal(ops->open(NULL, 0, NULL, &source, &why), -EINTR);
        }
        begin_source(NULL, NULL);
        ops->close(source);
}

/* ---- whose it is ---- */

static char path[64];
static int directory = -1;

static void begin_directory(void) {
        snprintf(path, sizeof(path), "/tmp/xen-source-XXXXXX");
        assert_non_null(mkdtemp(path));
        directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(directory >= 0);
        source_set_directory(directory);
}

static void end_directory(void) {
        unlinkat(directory, "identity", 0);
        close(directory);
        rmdir(path);
        source_set_directory(-1);
}

static uint64_t kept(void) {
        struct source_info info;

        ops->describe(source, &info);
        return info.kept;
}

static void test_another_directory_is_another_daemon(void **state) {
        char before[64], moved[80];
        int first;

        begin_directory();
        begin_to_leave();
        assert_int_equal(grow(2 * MIB, UINT64_MAX), 0);
        leave();
        snprintf(moved, sizeof(moved), "%s.moved", path);
        assert_int_equal(rename(path, moved), 0);
        strcpy(before, path);
        first = directory;
        /* In the very place where the other one was. */
        assert_int_equal(mkdir(before, 0700), 0);
        directory = open(before, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        source_set_directory(directory);
        assert_false(ops->is_kept());
        assert_int_equal(faccessat(directory, "identity", F_OK, 0), -1);
        begin_source(NULL, NULL);
        assert_int_equal(kept(), 0);
        ops->close(source);
        end_directory();
        directory = first;
        strcpy(path, moved);
        source_set_directory(first);
        assert_true(ops->is_kept());
        begin_source(NULL, NULL);
        assert_int_equal(kept(), 2 * MIB);
        ops->close(source);
        end_directory();
}

static void test_who_cannot_know_whose_it_is_does_not_open(void **state) {
        int fd;

        begin_directory();
        fd = openat(directory, "identity", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_int_equal(write(fd, "12345\n", 6), 6);
        close(fd);
        assert_true(ops->is_kept());
        assert_int_equal(ops->open(NULL, 0, NULL, &source, &why), -EBADMSG);
        assert_non_null(strstr(why.sentence, "it is not as it was written"));
        unlinkat(directory, "identity", 0);
        rmdir(path);
        assert_int_equal(ops->open(NULL, 0, NULL, &source, &why), -ENOENT);
        close(directory);
        source_set_directory(-1);
}

/* ---- guests that end ---- */

enum { GUEST = 7 };
static grant_entry_v1_t *mapped; /* an entry of a region that the guest has mapped */

static struct source_backing *begin_mapped(uint64_t *ret_addr) {
        struct source_backing *backing = begin_region(ret_addr);
        struct xen_grant_run *runs = NULL;
        size_t n = 0;

        fake_xen_guest(GUEST);
        assert_int_equal(xen_grants_give(*ret_addr, 4096, GUEST, false, &runs, &n, &why), 0);
        mapped = (grant_entry_v1_t *)fake_xen.domains[1].table + runs[0].first;
        mapped->flags |= GTF_reading | GTF_writing;
        free(runs);
        return backing;
}

static void unmap(void) {
        mapped->flags &= (uint16_t)~(GTF_reading | GTF_writing);
}

/* As Xen begins with it: nothing of it is mapped any more, but its devices are there. */
static void begin_to_die(void) {
        fake_xen.domains[GUEST].is_stopped = true;
        unmap();
}

static int reclaim(void) {
        return run((struct source_job){ .kind = SOURCE_RECLAIM });
}

static void test_what_is_looked_for_later_is_not_what_was_left(void **state) {
        struct source_backing *backing = NULL;
        struct source_info info;
        uint64_t addr, left;

        begin_to_leave();
        begin_mapped(&addr);
        assert_int_equal(grow(6 * MIB, UINT64_MAX), 0);
        leave();
        begin_source(NULL, NULL);
        assert_int_equal(ops->adopt(source, 1, addr, 4 * MIB, -1, &backing, &why), 0);
        ops->describe(source, &info);
        left = info.kept;
        assert_int_equal(run((struct source_job){ .kind = SOURCE_RESTORE, .backing = backing }), -EBUSY);
        unmap();
        assert_int_equal(run((struct source_job){ .kind = SOURCE_RECLAIM, .later = true }), 0);
        assert_int_equal(arrived(), 2 * MIB);
        ops->describe(source, &info);
        assert_int_equal(info.kept, left);
        assert_int_equal(reclaim(), 0);
        assert_int_equal(arrived(), 6 * MIB);
        ops->close(source);
}

static void test_what_a_living_guest_unmaps_comes_back_at_once(void **state) {
        struct source_backing *backing;
        uint64_t addr;

        begin_source(NULL, NULL);
        backing = begin_mapped(&addr);
        xen_grants_revoke(addr, 4096);
        unmap();
        assert_int_equal(run((struct source_job){ .kind = SOURCE_RESTORE, .backing = backing }), 0);
        assert_int_equal(arrived(), 4 * MIB);
        assert_int_equal(mapped->frame, 0);
        ops->close(source);
}

static void test_a_dying_guests_devices_keep_what_it_had(void **state) {
        struct source_backing *backing;
        struct source_info info;
        uint64_t addr;

        begin_source(NULL, NULL);
        backing = begin_mapped(&addr);
        begin_to_die();
        assert_int_equal(run((struct source_job){ .kind = SOURCE_RESTORE, .backing = backing }), -EBUSY);
        assert_int_equal(arrived(), 2 * MIB);
        ops->describe(source, &info);
        assert_int_equal(info.awaited_of, GUEST);
        assert_int_equal(last.awaited, 2 * MIB);
        for (int i = 0; i < 3; i++) {
                assert_int_equal(reclaim(), -EBUSY);
                assert_int_equal(arrived(), 0);
        }
        fake_xen_destroy(GUEST);
        assert_int_equal(reclaim(), 0);
        assert_int_equal(arrived(), 2 * MIB);
        ops->close(source);
}

/* It has run for a little after the list was made, and is killed before the table is looked at. */
static void run_and_die(void) {
        fake_xen.domains[GUEST].ran_ns += 7;
        begin_to_die();
}

static void test_a_guest_that_dies_meanwhile_is_not_taken_for_one_that_lives(void **state) {
        struct source_backing *backing;
        uint64_t addr;

        begin_source(NULL, NULL);
        backing = begin_mapped(&addr);
        fake_xen.listed = run_and_die;
        assert_int_equal(run((struct source_job){ .kind = SOURCE_RESTORE, .backing = backing }), -EBUSY);
        assert_int_equal(reclaim(), -EBUSY);
        assert_int_equal(arrived(), 0);
        fake_xen_destroy(GUEST);
        assert_int_equal(reclaim(), 0);
        ops->close(source);
}

static void test_the_next_daemon_knows_whose_it_was(void **state) {
        uint64_t addr;

        begin_to_leave();
        begin_mapped(&addr);
        begin_to_die();
        leave();
        begin_source(NULL, NULL);
        assert_int_equal(reclaim(), -EBUSY);
        assert_int_equal(arrived(), 2 * MIB);
        fake_xen.domains[GUEST].is_stopped = false;
        assert_int_equal(reclaim(), 0);
        assert_int_equal(arrived(), 2 * MIB);
        ops->close(source);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
        const struct CMUnitTest tests[] = {
                TEST(test_without_the_right_to_ask_it_does_not_open),
                TEST(test_where_nothing_could_be_found_again_nothing_is_taken),
                TEST(test_a_table_that_xen_does_not_allow_is_a_limit),
                TEST(test_a_domain_without_its_table_is_not_left_behind),
                TEST(test_memory_in_small_pieces_is_taken_as_it_is),
                TEST(test_what_is_left_of_others_is_used_without_a_word),
                TEST(test_no_domain_is_made_for_memory_that_is_not_there),
                TEST(test_more_domains_than_allowed_are_not_made),
                TEST(test_a_reserve_that_no_domains_can_have_is_refused),
                TEST(test_xen_is_asked_for_what_the_limit_allows),
                TEST(test_what_cannot_be_zeroed_goes_back_at_once),
                TEST(test_what_cannot_be_zeroed_when_it_ends_is_awaited),
                TEST(test_what_does_not_go_back_stays),
                TEST(test_a_domain_that_somebody_ended_is_noticed),
                TEST(test_what_others_have_is_not_taken_for_ours),
                TEST(test_a_mapped_page_keeps_its_grain_over_a_restart),
                TEST(test_a_domain_that_was_just_being_made_is_used),
                TEST(test_names_that_others_give_cost_little),
                TEST(test_a_hole_in_the_machines_memory_is_not_looked_at),
                TEST(test_what_cannot_be_proven_now_is_not_given_up),
                TEST(test_another_directory_is_another_daemon),
                TEST(test_who_cannot_know_whose_it_is_does_not_open),
                TEST(test_what_is_looked_for_later_is_not_what_was_left),
                TEST(test_what_a_living_guest_unmaps_comes_back_at_once),
                TEST(test_a_dying_guests_devices_keep_what_it_had),
                TEST(test_a_guest_that_dies_meanwhile_is_not_taken_for_one_that_lives),
                TEST(test_the_next_daemon_knows_whose_it_was),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
