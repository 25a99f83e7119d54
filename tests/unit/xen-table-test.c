/* The grant table of a memory domain, on ordinary memory, with a hypervisor that is played. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xen/xen.h>
#include <xen/grant_table.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "daemon/source/xen-domain.h"
#include "daemon/source/xen-grants.h"

enum { ENTRIES = 2048, USABLE = ENTRIES - XEN_ENTRIES_RESERVED, FRAME = 0x3d400, GUEST = 7, OTHER = 8 };

struct bed {
        grant_entry_v1_t entries[ENTRIES];
        struct xen_table table;
        uint32_t refs[ENTRIES];
};

static int begin(void **state) {
        struct bed *bed = calloc(1, sizeof(*bed));

        if (!bed)
                return -1;
        bed->table = (struct xen_table){ .entries = bed->entries, .n = ENTRIES };
        *state = bed;
        return 0;
}

static int end(void **state) {
        free(*state);
        return 0;
}

/* ---- the hypervisor ---- */

/* As Xen does it: who it is for, and whether it is permitted, is judged together with the note that it is mapped. */
static int xen_map(grant_entry_v1_t *entry, domid_t guest, bool writes) {
        uint16_t flags = __atomic_load_n(&entry->flags, __ATOMIC_SEQ_CST);

        do
                if ((flags & GTF_type_mask) != GTF_permit_access || entry->domid != guest || (writes && flags & GTF_readonly))
                        return -EINVAL;
        while (!__atomic_compare_exchange_n(&entry->flags, &flags, flags | GTF_reading | (writes ? GTF_writing : 0), false,
                                            __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
        return 0;
}

static void xen_unmap(grant_entry_v1_t *entry) {
        __atomic_and_fetch(&entry->flags, (uint16_t)~(GTF_reading | GTF_writing), __ATOMIC_SEQ_CST);
}

static struct xen_table_use use_of(const struct bed *bed, uint64_t frame, uint64_t count) {
        struct xen_table_use use;

        xen_table_look(&bed->table, frame, count, &use, NULL);
        return use;
}

/* ---- the table ---- */

static void test_what_is_given_is_permitted_and_found_again(void **state) {
        struct bed *bed = *state;
        uint32_t again[512];

        assert_int_equal(xen_table_give(&bed->table, FRAME, 512, GUEST, false, bed->refs), 0);
        for (unsigned i = 0; i < 512; i++) {
                const grant_entry_v1_t *entry = &bed->entries[bed->refs[i]];

                assert_int_equal(entry->frame, FRAME + i);
                assert_int_equal(entry->domid, GUEST);
                assert_int_equal(entry->flags, GTF_permit_access);
                assert_true(bed->refs[i] >= XEN_ENTRIES_RESERVED);
        }
        assert_int_equal(xen_table_find(&bed->table, FRAME, 512, GUEST, again), 0);
        assert_memory_equal(again, bed->refs, sizeof(again));
        assert_int_equal(xen_table_find(&bed->table, FRAME, 512, OTHER, again), -ENOENT);
        assert_int_equal(xen_table_find(&bed->table, FRAME + 1, 512, GUEST, again), -ENOENT);
        assert_int_equal(use_of(bed, FRAME, 512).granted, 512);
        assert_int_equal(xen_table_count(&bed->table), 512);
}

static void test_a_reader_may_not_write(void **state) {
        struct bed *bed = *state;

        assert_int_equal(xen_table_give(&bed->table, FRAME, 1, GUEST, true, bed->refs), 0);
        assert_int_equal(xen_map(&bed->entries[bed->refs[0]], GUEST, true), -EINVAL);
        assert_int_equal(xen_map(&bed->entries[bed->refs[0]], OTHER, false), -EINVAL);
        assert_int_equal(xen_map(&bed->entries[bed->refs[0]], GUEST, false), 0);
        assert_int_equal(use_of(bed, FRAME, 1).reading, 1);
        assert_int_equal(use_of(bed, FRAME, 1).writing, 0);
}

static void test_what_is_mapped_stays_busy_until_it_is_not(void **state) {
        struct bed *bed = *state;
        unsigned char busy[4] = { 0 };
        struct xen_table_use use;

        assert_int_equal(xen_table_give(&bed->table, FRAME, 4, GUEST, false, bed->refs), 0);
        assert_int_equal(xen_map(&bed->entries[bed->refs[2]], GUEST, true), 0);
        xen_table_revoke(&bed->table, FRAME, 4);
        xen_table_look(&bed->table, FRAME, 4, &use, busy);
        assert_int_equal(use.granted, 0);
        assert_int_equal(use.busy, 1);
        assert_int_equal(use.writing, 1);
        assert_memory_equal(busy, "\0\0\1\0", 4);
        assert_int_equal(xen_map(&bed->entries[bed->refs[0]], GUEST, true), -EINVAL);
        assert_int_equal(xen_table_give(&bed->table, FRAME + 2, 1, OTHER, false, bed->refs), -EEXIST);
        xen_unmap(&bed->entries[bed->refs[2]]);
        assert_int_equal(use_of(bed, FRAME + 2, 1).busy, 0);
}

static void test_whose_a_frame_was_is_known_until_it_is_forgotten(void **state) {
        struct bed *bed = *state;
        uint32_t others[ENTRIES];

        assert_int_equal(xen_table_give(&bed->table, FRAME, 4, GUEST, false, bed->refs), 0);
        xen_table_revoke(&bed->table, FRAME, 4);
        assert_int_equal(use_of(bed, FRAME, 4).past, 4);
        assert_int_equal(use_of(bed, FRAME, 4).last, GUEST);
        assert_int_equal(xen_table_count(&bed->table), 0);
        assert_int_equal(xen_table_count_blank(&bed->table), USABLE - 4);
        assert_int_equal(xen_table_give(&bed->table, FRAME + 3, 1, OTHER, false, others), -EEXIST);
        /* Its entries are used for nothing else, */
        assert_int_equal(xen_table_give(&bed->table, FRAME + 4, USABLE - 4, OTHER, false, others), 0);
        for (unsigned i = 0; i < 4; i++)
                assert_int_equal(bed->entries[bed->refs[i]].frame, FRAME + i);
        /* but for the same guest, which needs no other for it. */
        assert_int_equal(xen_table_give(&bed->table, FRAME + 1, 1, GUEST, false, others), 0);
        assert_int_equal(others[0], bed->refs[1]);
        assert_int_equal(use_of(bed, FRAME, 4).past, 3);
        xen_table_forget(&bed->table, FRAME, 4, OTHER);
        assert_int_equal(use_of(bed, FRAME, 4).past, 3);
        xen_table_forget(&bed->table, FRAME, 4, GUEST);
        assert_int_equal(use_of(bed, FRAME, 4).past, 0);
        assert_int_equal(use_of(bed, FRAME, 4).granted, 1);
        assert_int_equal(xen_table_give(&bed->table, FRAME, 1, OTHER, false, others), 0);
}

static void test_a_full_table_gives_nothing_and_all_or_nothing(void **state) {
        struct bed *bed = *state;

        assert_int_equal(xen_table_give(&bed->table, FRAME, USABLE + 1, GUEST, false, bed->refs), -ENOSPC);
        assert_int_equal(xen_table_count(&bed->table), 0);
        assert_int_equal(xen_table_give(&bed->table, FRAME, USABLE, GUEST, false, bed->refs), 0);
        assert_int_equal(xen_table_count(&bed->table), USABLE);
        assert_int_equal(xen_table_give(&bed->table, FRAME + USABLE, 1, GUEST, false, bed->refs), -ENOSPC);
        xen_table_revoke(&bed->table, FRAME + 5, 1);
        xen_table_forget(&bed->table, FRAME + 5, 1, GUEST);
        assert_int_equal(xen_table_give(&bed->table, FRAME + USABLE, 1, GUEST, false, bed->refs), 0);
        for (unsigned i = 0; i < XEN_ENTRIES_RESERVED; i++)
                assert_int_equal(bed->entries[i].flags, 0);
}

static void test_frames_that_no_entry_can_name_are_refused(void **state) {
        struct bed *bed = *state;

        assert_int_equal(xen_table_give(&bed->table, UINT64_C(1) << 32, 1, GUEST, false, bed->refs), -ERANGE);
        assert_int_equal(xen_table_give(&bed->table, UINT32_MAX, 2, GUEST, false, bed->refs), -ERANGE);
        assert_int_equal(xen_table_give(&bed->table, FRAME, 0, GUEST, false, bed->refs), -ERANGE);
        /* 16 bits of it would be another one's, and the last of these are none's. */
        assert_int_equal(xen_table_give(&bed->table, FRAME, 1, 65541, false, bed->refs), -ERANGE);
        assert_int_equal(xen_table_give(&bed->table, FRAME, 1, DOMID_FIRST_RESERVED, false, bed->refs), -ERANGE);
        assert_int_equal(xen_table_give(&bed->table, FRAME, 1, DOMID_FIRST_RESERVED - 1, false, bed->refs), 0);
        assert_int_equal(xen_table_give(&bed->table, UINT32_MAX, 1, GUEST, false, bed->refs), 0);
}

/* ---- with a guest that maps and unmaps as fast as it can ---- */

static struct {
        struct bed *bed;
        _Atomic uint64_t rounds, late;
        _Atomic int owner; /* whose the frame is */
        _Atomic bool over;
} race;

static void *live(void *userdata) {
        grant_entry_v1_t *const entry = &race.bed->entries[XEN_ENTRIES_RESERVED];

        while (!race.over) {
                if (xen_map(entry, GUEST, true) == 0) {
                        /* While it is mapped it is nobody else's. */
                        race.late += race.owner == OTHER;
                        race.rounds++;
                        xen_unmap(entry);
                }
        }
        return NULL;
}

static void test_nothing_is_used_again_while_a_guest_has_it(void **state) {
        struct bed *bed = *state;
        pthread_t guest;

        race.bed = bed;
        assert_int_equal(pthread_create(&guest, NULL, live, NULL), 0);
        while (race.rounds < 20000) {
                race.owner = GUEST;
                assert_int_equal(xen_table_give(&bed->table, FRAME, 1, GUEST, false, bed->refs), 0);
                for (uint64_t until = race.rounds + 3; race.rounds < until;)
                        ;
                xen_table_revoke(&bed->table, FRAME, 1);
                while (use_of(bed, FRAME, 1).busy)
                        ;
                race.owner = OTHER;
        }
        race.over = true;
        pthread_join(guest, NULL);
        assert_int_equal(race.late, 0);
}

/* ---- by address ---- */

static void test_a_region_in_two_domains_is_granted_from_both_tables(void **state) {
        struct bed *bed = *state;
        struct bed *second = calloc(1, sizeof(*second));
        struct xen_piece pieces[2];
        struct xen_lot lot = { .pieces = pieces, .n_pieces = 2 };
        struct xen_grant_run *runs = NULL, *found = NULL;
        struct failure failure = { 0 };
        struct xen_table_use use;
        size_t n = 0, n_found = 0;

        assert_non_null(second);
        second->table = (struct xen_table){ .entries = second->entries, .n = ENTRIES };
        pieces[0] = (struct xen_piece){ .addr = 0x10000000, .size = 0x200000, .domid = 3, .table = &bed->table };
        pieces[1] = (struct xen_piece){ .addr = 0x10200000, .size = 0x400000, .domid = 5, .table = &second->table };
        xen_grants_enter(&lot);
        assert_int_equal(xen_grants_give(0x10000000, 0x600000, GUEST, false, &runs, &n, &failure), 0);
        assert_int_equal(n, 2);
        assert_int_equal(runs[0].domid, 3);
        assert_int_equal(runs[0].count, 512);
        assert_int_equal(runs[1].domid, 5);
        assert_int_equal(runs[1].count, 1024);
        assert_int_equal(xen_grants_find(0x10000000, 0x600000, GUEST, &found, &n_found, &failure), 0);
        assert_int_equal(n_found, n);
        assert_memory_equal(found, runs, n * sizeof(*runs));
        free(found);
        assert_int_equal(xen_grants_give(0x10100000, 0x1000, OTHER, false, &found, &n_found, &failure), -EBUSY);
        assert_string_equal(failure.sentence, "4096 bytes at 0x10100000 cannot be granted to domain 8: some of it is "
                            "granted already, "
                                              "or a guest still has it mapped");
        xen_map(&second->entries[runs[1].first + 1023], GUEST, true);
        assert_int_equal(xen_grants_revoke(0x10000000, 0x600000), 0);
        assert_int_equal(xen_grants_look(0x10000000, 0x600000, &use), 0);
        assert_int_equal(use.granted, 0);
        assert_int_equal(use.busy, 1);
        free(runs);
        /* The second table has no room, so that the first is not used either. */
        for (unsigned i = XEN_ENTRIES_RESERVED; i < ENTRIES - 100; i++)
                second->entries[i] = (grant_entry_v1_t){ .flags = GTF_permit_access, .domid = 9, .frame = 0x900000 + i };
        xen_unmap(&second->entries[XEN_ENTRIES_RESERVED + 1023]);
        assert_int_equal(xen_grants_give(0x10000000, 0x600000, GUEST, false, &runs, &n, &failure), -E2BIG);
        assert_int_equal(use_of(bed, 0x10000, 512).granted, 0);
        assert_int_equal(use_of(bed, 0x10000, 512).past, 512);
        assert_int_equal(xen_grants_give(0x20000000, 0x1000, GUEST, false, &runs, &n, &failure), -EFAULT);
        xen_grants_leave(&lot);
        assert_int_equal(xen_grants_look(0x10000000, 0x1000, &use), -ENOENT);
        free(second);
}

static void test_all_of_a_table_is_counted(void **state) {
        struct bed *bed = *state;
        struct xen_table_counts counts;

        assert_int_equal(xen_table_give(&bed->table, FRAME, 100, GUEST, false, bed->refs), 0);
        for (unsigned i = 10; i < 30; i++)
                assert_int_equal(xen_map(&bed->entries[bed->refs[i]], GUEST, i % 2), 0);
        xen_table_revoke(&bed->table, FRAME, 25);
        xen_table_sum_up(&bed->table, &counts);
        assert_int_equal(counts.entries, USABLE);
        assert_int_equal(counts.granted, 75);
        assert_int_equal(counts.mapped, 20);
        assert_int_equal(counts.revoking, 15);
        assert_int_equal(counts.free, USABLE - 90);
}

/* Two tables, of memory that each has: the first one's is what is granted here. */
struct tables {
        grant_entry_v1_t none[XEN_ENTRIES_RESERVED + 1];
        struct xen_table other;
        struct xen_seat seats[2];
        struct xen_piece pieces[2];
        struct xen_lot lots[2];
};

enum { MEMORY = USABLE * XEN_PAGE };
#define OF_TABLE ((uint64_t)FRAME * XEN_PAGE)
#define OF_OTHER UINT64_C(0x7000000000)

static void enter_tables(struct bed *bed, struct tables *tables) {
        *tables = (struct tables){ .other = { .n = XEN_ENTRIES_RESERVED + 1 } };
        tables->other.entries = tables->none;
        tables->seats[0] = (struct xen_seat){ .domid = 3, .table = &bed->table };
        tables->seats[1] = (struct xen_seat){ .domid = 4, .table = &tables->other };
        tables->pieces[0] = (struct xen_piece){ .addr = OF_TABLE, .size = MEMORY, .domid = 3, .table = &bed->table };
        tables->pieces[1] = (struct xen_piece){ .addr = OF_OTHER, .size = XEN_PAGE, .domid = 4, .table = &tables->other };
        for (unsigned i = 0; i < 2; i++) {
                tables->lots[i] = (struct xen_lot){ .pieces = &tables->pieces[i], .n_pieces = 1 };
                xen_grants_enter(&tables->lots[i]);
                xen_grants_enter_table(&tables->seats[i]);
        }
}

static void leave_tables(struct tables *tables) {
        for (unsigned i = 0; i < 2; i++) {
                xen_grants_leave_table(&tables->seats[i]);
                xen_grants_leave(&tables->lots[i]);
        }
}

static void test_that_a_table_is_nearly_full_is_told_once(void **state) {
        const unsigned full = (USABLE * XEN_TABLE_FULL_PERCENT + 99) / 100, room = (USABLE * XEN_TABLE_ROOM_PERCENT - 1) / 100;
        struct bed *bed = *state;
        struct tables tables;
        struct xen_table_view view, views[2];
        bool is_over;

        enter_tables(bed, &tables);
        assert_int_equal(xen_grants_look_tables(views, 2), 2);
        assert_int_equal(xen_grants_look_tables(views, 1), 1);
        assert_int_equal(xen_table_give(&bed->table, FRAME, full - 1, GUEST, false, bed->refs), 0);
        assert_false(xen_grants_find_crossed(OF_TABLE, MEMORY, &view, &is_over));
        assert_int_equal(xen_table_give(&bed->table, FRAME + full, 1, GUEST, false, bed->refs + full), 0);
        assert_true(xen_grants_find_crossed(OF_TABLE, MEMORY, &view, &is_over));
        assert_false(is_over);
        assert_int_equal(view.domid, 3);
        assert_int_equal(view.counts.granted, full);
        assert_false(xen_grants_find_crossed(OF_TABLE, MEMORY, &view, &is_over));
        /* As one window comes and goes. */
        xen_table_revoke(&bed->table, FRAME, full - room - 2);
        assert_false(xen_grants_find_crossed(OF_TABLE, MEMORY, &view, &is_over));
        assert_int_equal(xen_table_give(&bed->table, FRAME, full - room - 2, GUEST, false, bed->refs), 0);
        assert_false(xen_grants_find_crossed(OF_TABLE, MEMORY, &view, &is_over));
        xen_table_revoke(&bed->table, FRAME, full - room - 1);
        /* What is mapped takes an entry also when it is revoked. */
        assert_int_equal(xen_map(&bed->entries[bed->refs[full]], GUEST, false), 0);
        xen_table_revoke(&bed->table, FRAME + full, 1);
        assert_false(xen_grants_find_crossed(OF_TABLE, MEMORY, &view, &is_over));
        xen_unmap(&bed->entries[bed->refs[full]]);
        assert_true(xen_grants_find_crossed(OF_TABLE, MEMORY, &view, &is_over));
        assert_true(is_over);
        assert_int_equal(view.counts.granted, room);
        assert_false(xen_grants_find_crossed(OF_TABLE, MEMORY, &view, &is_over));
        leave_tables(&tables);
        assert_int_equal(xen_grants_look_tables(views, 2), 0);
}

static void test_no_table_is_looked_through_but_that_of_the_memory(void **state) {
        struct bed *bed = *state;
        struct tables tables;
        struct xen_table_view view;
        bool is_over;

        enter_tables(bed, &tables);
        assert_int_equal(xen_table_give(&bed->table, FRAME, USABLE, GUEST, false, bed->refs), 0);
        assert_false(xen_grants_find_crossed(OF_OTHER, XEN_PAGE, &view, &is_over));
        assert_false(xen_grants_find_crossed(UINT64_C(0x6000000000), XEN_PAGE, &view, &is_over));
        assert_true(xen_grants_find_crossed(OF_TABLE + XEN_PAGE, XEN_PAGE, &view, &is_over));
        assert_int_equal(view.domid, 3);
        leave_tables(&tables);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
        const struct CMUnitTest tests[] = {
                TEST(test_what_is_given_is_permitted_and_found_again),
                TEST(test_a_reader_may_not_write),
                TEST(test_all_of_a_table_is_counted),
                TEST(test_that_a_table_is_nearly_full_is_told_once),
                TEST(test_no_table_is_looked_through_but_that_of_the_memory),
                TEST(test_what_is_mapped_stays_busy_until_it_is_not),
                TEST(test_whose_a_frame_was_is_known_until_it_is_forgotten),
                TEST(test_a_full_table_gives_nothing_and_all_or_nothing),
                TEST(test_frames_that_no_entry_can_name_are_refused),
                TEST(test_nothing_is_used_again_while_a_guest_has_it),
                TEST(test_a_region_in_two_domains_is_granted_from_both_tables),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
