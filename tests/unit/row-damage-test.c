/* Rows of the ledger that are whole and make no sense: they are damage, and cost neither time nor memory. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemon/core/objects.h"
#include "daemon/core/pool.h"

#define DEVICE (UINT64_C(1) << 24)
#define HIGHEST_SLOT ((UINT64_C(1) << 24) - 1)

static size_t largest = SIZE_MAX; /* that can be had */

void *__real_realloc(void *pointer, size_t size);
void *__wrap_realloc(void *pointer, size_t size);

void *__wrap_realloc(void *pointer, size_t size) {
        return size <= largest ? __real_realloc(pointer, size) : NULL;
}

static void read_from(struct load *load, const struct row_writer *row) {
        assert_false(row->failed);
        row_reader_init(&load->row, row->bytes, row->size);
}

static void test_limits_that_are_not_there_are_not_read(void **state) {
        struct owner owner = {};
        struct row_writer row = {};
        struct load load = {};

        row_text(&row, "nic");
        row_number(&row, UINT64_MAX);
        row_number(&row, 17);
        read_from(&load, &row);
        assert_int_equal(budgets_load(&load, &owner), 0);
        assert_true(load.row.failed);
        budgets_free(&owner);
        row_reader_deinit(&load.row);

        /* A newer daemon may have more kinds. */
        row_begin(&row);
        row_text(&row, "nic");
        row_number(&row, QUOTA_KINDS + 1);
        for (int kind = 0; kind <= QUOTA_KINDS; kind++)
                row_number(&row, 5);
        row_text(&row, NULL);
        read_from(&load, &row);
        assert_int_equal(budgets_load(&load, &owner), 0);
        assert_false(load.row.failed);
        assert_int_equal(owner.budgets->limits.of[QUOTA_KINDS - 1], 5);
        budgets_free(&owner);
        row_reader_deinit(&load.row);
        row_deinit(&row);
}

static int load_pool(uint64_t slab_size, uint64_t per_chunk, uint64_t per_slab) {
        const uint64_t fields[] = { 1, 64, 64, 0, slab_size, 4096, per_chunk, per_slab };
        struct broker broker = {};
        struct device device = {};
        struct row_writer row = {};
        struct load load = { .broker = &broker, .id = DEVICE + 1 };
        int r;

        handle_table_init(&broker.handles);
        assert_int_equal(handle_restore(&broker.handles, HANDLE_DEVICE, &device, DEVICE), 0);
        row_number(&row, DEVICE);
        row_text(&row, "pool");
        for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
                row_number(&row, fields[i]);
        read_from(&load, &row);
        r = pool_load(&load);
        row_reader_deinit(&load.row);
        row_deinit(&row);
        handle_table_deinit(&broker.handles);
        return r;
}

static void test_a_slab_has_no_more_blocks_than_can_be_counted(void **state) {
        assert_int_equal(load_pool(65536, 64, 1025), -EBADMSG);
        assert_int_equal(load_pool(UINT64_C(1) << 50, 64, (UINT64_C(1) << 32) + 1024), -EBADMSG);
}

static void test_a_slab_needs_the_memory_that_its_pool_says(void **state) {
        struct pool pool = { .slab_size = UINT64_C(1) << 40, .per_slab = UINT32_MAX };
        struct window window = {};
        struct region region = { .window = &window };
        struct arena_block block;

        assert_int_equal(arena_new(PAGE, &window.arena), 0);
        assert_int_equal(arena_add(window.arena, UINT64_C(1) << 32, 65536, 0), 0);
        assert_int_equal(arena_alloc_at(window.arena, UINT64_C(1) << 32, 65536, &block), 0);
        assert_int_equal(pool_load_slab(&pool, &(struct alloc){ .region = &region, .block = block.number }), -EBADMSG);
        arena_free(window.arena);
}

struct grant_row {
        uint64_t kind, direction, domain, n;
        struct {
                uint64_t first, count;
        } runs[2];
};

static int load_grant(const struct grant_row *fields) {
        struct broker broker = {};
        struct owner owner = { .broker = &broker };
        struct session session = { .owner = &owner };
        struct numbered number = { .id = 3, .object = &session };
        struct load load = { .broker = &broker, .sessions = { .all = &number, .n = 1 }, .id = DEVICE + 2 };
        struct row_writer row = {};
        int r;

        handle_table_init(&broker.handles);
        row_number(&row, number.id);
        row_text(&row, "xen:6f1c6f0e-3a55-4a8a-9d0e-0c6f0b8a2d11");
        row_number(&row, fields->kind);
        row_number(&row, fields->direction);
        row_number(&row, fields->domain);
        row_number(&row, 0);
        row_number(&row, 1000);
        row_number(&row, fields->n);
        for (size_t i = 0; i < fields->n && i < 2; i++) {
                row_number(&row, fields->runs[i].first);
                row_number(&row, fields->runs[i].count);
        }
        row_key(&row, NULL);
        read_from(&load, &row);
        r = grant_load(&load);
        if (r == 0) {
                assert_int_equal(owner.usage.of[QUOTA_grants], session.grants->pages);
                free(session.grants->guest);
                free(session.grants);
        }
        row_reader_deinit(&load.row);
        row_deinit(&row);
        handle_table_deinit(&broker.handles);
        return r;
}

static void test_a_grant_is_of_a_kind_a_direction_and_a_domain_that_there_are(void **state) {
        const struct grant_row right = { GRANT_SHARE, DMA_BIDIRECTIONAL, 0x7fef, 2, { { 8, 1 }, { UINT32_MAX, 1 } } };
        struct grant_row row = right;

        assert_int_equal(load_grant(&row), 0);
        row.kind = 7700;
        assert_int_equal(load_grant(&row), -EBADMSG);
        row.kind = UINT64_C(1) << 32;
        assert_int_equal(load_grant(&row), -EBADMSG);
        row = right;
        row.direction = 99;
        assert_int_equal(load_grant(&row), -EBADMSG);
        row.direction = UINT64_C(1) << 32;
        assert_int_equal(load_grant(&row), -EBADMSG);
        row = right;
        row.domain = 0;
        assert_int_equal(load_grant(&row), -EBADMSG);
        row.domain = 0x7ff0;
        assert_int_equal(load_grant(&row), -EBADMSG);
        row.domain = (UINT64_C(1) << 32) + 7;
        assert_int_equal(load_grant(&row), -EBADMSG);
}

static void test_a_grant_has_as_many_pages_as_one_can_have(void **state) {
        const struct grant_row right = { GRANT_MAP, DMA_TO_DEVICE, 7, 2, { { 8, 16384 }, { 40000, 16384 } } };
        struct grant_row row = right;

        assert_int_equal(load_grant(&row), 0);
        row.runs[1].count++;
        assert_int_equal(load_grant(&row), -EBADMSG);
        row.runs[1].count = 0;
        assert_int_equal(load_grant(&row), -EBADMSG);
        row.runs[1].count = UINT32_MAX;
        assert_int_equal(load_grant(&row), -EBADMSG);
        row.runs[1].count = UINT64_C(1) << 32 | 1;
        assert_int_equal(load_grant(&row), -EBADMSG);
        row = right;
        row.runs[1].first = UINT32_MAX;
        assert_int_equal(load_grant(&row), -EBADMSG);
        row.runs[1].first = UINT64_C(1) << 32;
        assert_int_equal(load_grant(&row), -EBADMSG);
        row = right;
        row.n = 0;
        assert_int_equal(load_grant(&row), -EBADMSG);
        row.n = GRANT_PAGES_MAX + 1;
        assert_int_equal(load_grant(&row), -EBADMSG);
        row.n = UINT64_MAX;
        assert_int_equal(load_grant(&row), -EBADMSG);
}

static void test_a_handle_far_beyond_all_others_is_a_wrong_one(void **state) {
        struct handle_table table;
        int object;

        handle_table_init(&table);
        assert_int_equal(handle_restore(&table, HANDLE_ALLOC, &object, DEVICE), 0);
        largest = 1 << 20;
        assert_int_equal(handle_restore(&table, HANDLE_ALLOC, &object, DEVICE + HIGHEST_SLOT), -EINVAL);
        /* A right one must not be taken for damage. */
        assert_int_equal(handle_restore(&table, HANDLE_ALLOC, &object, DEVICE + 500000), -ENOMEM);
        largest = SIZE_MAX;
        assert_int_equal(handle_restore(&table, HANDLE_ALLOC, &object, DEVICE + 500000), 0);
        assert_ptr_equal(handle_find(&table, HANDLE_ALLOC, DEVICE + 500000), &object);
        handle_table_deinit(&table);
}

static void test_what_is_released_while_rows_are_read_can_be_had_again(void **state) {
        int objects[4];
        struct handle_table table;
        uint64_t handles[8];

        handle_table_init(&table);
        for (unsigned i = 0; i < 3; i++)
                assert_int_equal(handle_restore(&table, HANDLE_ALLOC, &objects[i], UINT64_C(1) << 24 | i), 0);
        handle_release(&table, UINT64_C(1) << 24 | 2, 0);
        assert_int_equal(handle_restore(&table, HANDLE_LEASE, &objects[3], UINT64_C(1) << 24 | 2), 0);
        handle_table_restored(&table, 70);
        for (unsigned i = 0; i < 8; i++) {
                assert_int_equal(handle_new(&table, HANDLE_ALLOC, &objects[1], &handles[i]), 0);
                for (unsigned j = 0; j < i; j++)
                        assert_int_not_equal(handles[i], handles[j]);
        }
        assert_ptr_equal(handle_find(&table, HANDLE_LEASE, UINT64_C(1) << 24 | 2), &objects[3]);
        handle_table_deinit(&table);
}

static void test_taking_and_giving_back_uses_generations_up_slowly(void **state) {
        struct handle_table table;
        uint64_t handle;
        int object;

        handle_table_init(&table);
        for (unsigned i = 0; i < 300000; i++) {
                assert_int_equal(handle_new(&table, HANDLE_ALLOC, &object, &handle), 0);
                handle_release(&table, handle, 1);
        }
        assert_true(table.highest <= 5);
        assert_true(table.n_slots <= 70000);
        /* The next daemon, which knows of none of them. */
        handle_table_deinit(&table);
        handle_table_init(&table);
        handle_table_restored(&table, 5);
        assert_int_equal(handle_new(&table, HANDLE_ALLOC, &object, &handle), 0);
        assert_int_equal(handle >> 24, 6);
        handle_table_deinit(&table);
}

static void test_handles_come_to_an_end_rather_than_again(void **state) {
        const uint32_t generation_max = (UINT32_C(1) << 28) - 1;
        struct handle_table table;
        uint64_t handle;
        int object;

        handle_table_init(&table);
        handle_table_restored(&table, generation_max - 1);
        for (uint64_t i = 0; i < 100; i++) {
                assert_int_equal(handle_new(&table, HANDLE_BLOCKS, &object, &handle), 0);
                assert_int_equal(handle, (uint64_t)generation_max << 24 | i);
                assert_ptr_equal(handle_find(&table, HANDLE_BLOCKS, handle), &object);
                handle_release(&table, handle, UINT32_MAX);
                assert_null(handle_find(&table, HANDLE_BLOCKS, handle));
                assert_true(handle_was(&table, HANDLE_BLOCKS, handle, UINT32_MAX));
                assert_false(handle_was(&table, HANDLE_DEVICE, handle, UINT32_MAX));
                assert_false(handle_was(&table, HANDLE_BLOCKS, handle, 1));
        }
        handle_table_restored(&table, UINT32_MAX);
        assert_int_equal(handle_new(&table, HANDLE_DEVICE, &object, &handle), -ENOMEM);
        handle_table_deinit(&table);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_limits_that_are_not_there_are_not_read),
                cmocka_unit_test(test_a_slab_has_no_more_blocks_than_can_be_counted),
                cmocka_unit_test(test_a_slab_needs_the_memory_that_its_pool_says),
                cmocka_unit_test(test_a_grant_is_of_a_kind_a_direction_and_a_domain_that_there_are),
                cmocka_unit_test(test_a_grant_has_as_many_pages_as_one_can_have),
                cmocka_unit_test(test_what_is_released_while_rows_are_read_can_be_had_again),
                cmocka_unit_test(test_taking_and_giving_back_uses_generations_up_slowly),
                cmocka_unit_test(test_handles_come_to_an_end_rather_than_again),
                cmocka_unit_test(test_a_handle_far_beyond_all_others_is_a_wrong_one),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
