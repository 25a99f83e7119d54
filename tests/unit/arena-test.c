/* What each function of the arena promises, one promise per test. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemon/core/arena.h"

enum { PAGE = 4096 };

#define GIB (UINT64_C(1) << 30)

/* The linker sends the arena's requests for memory here: the one that n_until_failure counts down to fails. */
static long n_until_failure = -1;

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *at, size_t size);
void *__real_reallocarray(void *at, size_t n, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *at, size_t size);
void *__wrap_reallocarray(void *at, size_t n, size_t size);

static bool fails_now(void) {
        if (n_until_failure < 0)
                return false;
        return n_until_failure-- == 0;
}

void *__wrap_malloc(size_t size) {
        return fails_now() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size) {
        return fails_now() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *at, size_t size) {
        return fails_now() ? NULL : __real_realloc(at, size);
}

void *__wrap_reallocarray(void *at, size_t n, size_t size) {
        return fails_now() ? NULL : __real_reallocarray(at, n, size);
}

static int set_up(void **state) {
        return arena_new(PAGE, (struct arena **)state);
}

static int tear_down(void **state) {
        struct arena *arena = *state;
        char text[256] = "";
        int r = arena_check(arena, text, sizeof(text));

        if (r < 0)
                print_error("%s\n", text);
        arena_free(arena);
        return r;
}

static struct arena_request pages(uint64_t n) {
        return (struct arena_request){ .size = n * PAGE, .limit = UINT64_MAX };
}

static uint64_t alloc_pages(struct arena *arena, uint64_t n) {
        struct arena_request request = pages(n);
        struct arena_block block;

        assert_int_equal(arena_alloc(arena, &request, &block), 0);
        assert_int_equal(block.size, n * PAGE);
        return block.addr;
}

static struct arena_usage usage_of(const struct arena *arena) {
        struct arena_usage usage;

        arena_usage(arena, &usage);
        return usage;
}

static void test_a_granule_that_is_no_power_of_two_is_refused(void **state) {
        struct arena *arena = NULL;

        assert_int_equal(arena_new(0, &arena), -EINVAL);
        assert_int_equal(arena_new(3000, &arena), -EINVAL);
        assert_null(arena);
        assert_null(arena_free(NULL));
}

static void test_a_span_must_be_in_granules_and_within_the_address_space(void **state) {
        struct arena *arena = *state;

        assert_int_equal(arena_add(arena, PAGE, 0, 1), -EINVAL);
        assert_int_equal(arena_add(arena, PAGE + 1, PAGE, 1), -EINVAL);
        assert_int_equal(arena_add(arena, PAGE, PAGE + 1, 1), -EINVAL);
        assert_int_equal(arena_add(arena, UINT64_MAX - PAGE + 1, 2 * PAGE, 1), -EINVAL);
        assert_int_equal(usage_of(arena).n_spans, 0);
}

static void test_a_span_has_as_many_granules_as_32_bits_count(void **state) {
        const uint64_t most = UINT64_C(4096) << 32;
        struct arena *arena = *state;
        struct arena_request request = pages(UINT64_C(1) << 32);
        struct arena_block block, rest;

        assert_int_equal(arena_add(arena, GIB, most, 1), 0);
        assert_int_equal(arena_add(arena, UINT64_C(1) << 60, most + PAGE, 2), -EINVAL);
        assert_int_equal(arena_alloc(arena, &request, &block), 0);
        assert_int_equal(block.addr, GIB);
        assert_int_equal(block.size, most);
        assert_int_equal(usage_of(arena).free_bytes, 0);
        arena_release(arena, block.number, NULL);
        assert_int_equal(arena_alloc_at(arena, GIB + PAGE, PAGE, &block), 0);
        arena_release(arena, block.number, &rest);
        assert_int_equal(rest.addr, GIB);
        assert_int_equal(rest.size, most);
}

static void test_spans_that_overlap_are_refused(void **state) {
        struct arena *arena = *state;

        assert_int_equal(arena_add(arena, 4 * PAGE, 4 * PAGE, 1), 0);
        assert_int_equal(arena_add(arena, 7 * PAGE, 4 * PAGE, 2), -EEXIST);
        assert_int_equal(arena_add(arena, PAGE, 4 * PAGE, 2), -EEXIST);
        assert_int_equal(arena_add(arena, 5 * PAGE, PAGE, 2), -EEXIST);
        assert_int_equal(arena_add(arena, 0, 16 * PAGE, 2), -EEXIST);
        assert_int_equal(arena_add(arena, 8 * PAGE, PAGE, 2), 0);
        assert_int_equal(arena_add(arena, 3 * PAGE, PAGE, 3), 0);
}

static void test_the_last_page_of_the_address_space_can_be_used(void **state) {
        struct arena *arena = *state;
        struct arena_request request = pages(2);
        struct arena_block block;

        assert_int_equal(arena_add(arena, UINT64_MAX - 2 * PAGE + 1, 2 * PAGE, 7), 0);
        assert_int_equal(arena_alloc(arena, &request, &block), 0);
        assert_int_equal(block.addr, UINT64_MAX - 2 * PAGE + 1);
        assert_int_equal(block.tag, 7);
        assert_int_equal(arena_release_at(arena, block.addr, NULL), 0);
}

static void test_the_address_space_cannot_be_completed(void **state) {
        const uint64_t granule = UINT64_C(1) << 32;
        struct arena *arena = arena_free(*state);

        assert_int_equal(arena_new(granule, &arena), 0);
        *state = arena;
        assert_int_equal(arena_add(arena, 0, UINT64_C(1) << 63, 1), 0);
        assert_int_equal(arena_add(arena, UINT64_C(1) << 63, UINT64_C(1) << 63, 2), -EINVAL);
        assert_int_equal(arena_add(arena, UINT64_C(1) << 63, (UINT64_C(1) << 63) - granule, 2), 0);
}

static void test_a_malformed_request_is_told_apart_from_no_space(void **state) {
        struct arena *arena = *state;
        struct arena_request request;
        struct arena_block block;

        request = pages(0);
        assert_int_equal(arena_alloc(arena, &request, &block), -EINVAL);
        request = pages(1);
        request.align = 3 * PAGE;
        assert_int_equal(arena_alloc(arena, &request, &block), -EINVAL);
        request = pages(1);
        request.boundary = 3 * PAGE;
        assert_int_equal(arena_find(arena, &request, &block), -EINVAL);
        request = pages(2);
        request.boundary = PAGE;
        assert_int_equal(arena_alloc(arena, &request, &block), -EINVAL);
        request = pages(1);
        assert_int_equal(arena_alloc(arena, &request, &block), -ENOSPC);
}

static void test_a_size_that_rounds_past_64_bits_has_no_space(void **state) {
        struct arena *arena = *state;
        struct arena_request request = { .size = UINT64_MAX, .limit = UINT64_MAX };
        struct arena_block block;

        assert_int_equal(arena_add(arena, 0, GIB, 1), 0);
        assert_int_equal(arena_alloc(arena, &request, &block), -ENOSPC);
        request.size = UINT64_MAX - PAGE;
        request.align = UINT64_C(1) << 63;
        assert_int_equal(arena_alloc(arena, &request, &block), -ENOSPC);
}

static void test_a_floor_above_the_limit_has_no_space(void **state) {
        struct arena *arena = *state;
        struct arena_request request = pages(1);
        struct arena_block block;

        assert_int_equal(arena_add(arena, 0, GIB, 1), 0);
        request.floor = GIB / 2;
        request.limit = GIB / 4;
        assert_int_equal(arena_alloc(arena, &request, &block), -ENOSPC);
}

static void test_a_size_is_rounded_up_to_the_granule(void **state) {
        struct arena *arena = *state;
        struct arena_request request = { .size = PAGE + 1, .limit = UINT64_MAX };
        struct arena_block block;

        assert_int_equal(arena_add(arena, GIB, GIB, 1), 0);
        assert_int_equal(arena_alloc(arena, &request, &block), 0);
        assert_int_equal(block.size, 2 * PAGE);
}

static void test_a_boundary_below_the_granule_is_kept_by_every_block(void **state) {
        struct arena *arena = *state;
        struct arena_request request = { .size = 100, .boundary = 128, .limit = UINT64_MAX };
        struct arena_block block;

        assert_int_equal(arena_add(arena, GIB, PAGE, 1), 0);
        assert_int_equal(arena_alloc(arena, &request, &block), 0);
        assert_int_equal(block.addr, GIB);
}

static void test_wide_requests_take_memory_below_4_gib_last(void **state) {
        struct arena *arena = *state;
        unsigned i;

        assert_int_equal(arena_add(arena, 2 * GIB, GIB, 1), 0);
        assert_int_equal(arena_add(arena, 4 * GIB, GIB, 2), 0);
        for (i = 0; i < 1024; i++)
                assert_true(alloc_pages(arena, 256) >= 4 * GIB);
        assert_true(alloc_pages(arena, 256) < 4 * GIB);
}

static void test_wide_requests_take_the_upper_part_of_a_span_across_4_gib(void **state) {
        struct arena *arena = *state;
        unsigned i;

        assert_int_equal(arena_add(arena, 4 * GIB - 8 * PAGE, 16 * PAGE, 1), 0);
        /* A hole that fits exactly is no reason to go below. */
        assert_int_equal(arena_add(arena, GIB, PAGE, 2), 0);
        for (i = 0; i < 8; i++)
                assert_true(alloc_pages(arena, 1) >= 4 * GIB);
        assert_true(alloc_pages(arena, 1) < 4 * GIB);
}

static void test_a_limit_is_the_last_byte(void **state) {
        struct arena *arena = *state;
        struct arena_request request = pages(4);
        struct arena_block block;

        assert_int_equal(arena_add(arena, 4 * GIB - 8 * PAGE, 16 * PAGE, 1), 0);
        request.limit = UINT32_MAX;
        assert_int_equal(arena_alloc(arena, &request, &block), 0);
        assert_int_equal(block.addr, 4 * GIB - 4 * PAGE);
        request.limit = 4 * GIB - 4 * PAGE - 2;
        assert_int_equal(arena_alloc(arena, &request, &block), -ENOSPC);
        request.limit++;
        assert_int_equal(arena_alloc(arena, &request, &block), 0);
        assert_int_equal(block.addr, 4 * GIB - 8 * PAGE);
}

static void test_a_floor_is_the_first_byte(void **state) {
        struct arena *arena = *state;
        struct arena_request request = pages(2);
        struct arena_block block;

        assert_int_equal(arena_add(arena, GIB, 4 * PAGE, 1), 0);
        request.floor = GIB + 2 * PAGE + 1;
        assert_int_equal(arena_alloc(arena, &request, &block), -ENOSPC);
        request.floor--;
        assert_int_equal(arena_alloc(arena, &request, &block), 0);
        assert_int_equal(block.addr, GIB + 2 * PAGE);
}

static void test_alignment_and_boundary_are_kept(void **state) {
        struct arena *arena = *state;
        struct arena_request request = pages(3);
        struct arena_block block;

        assert_int_equal(arena_add(arena, GIB - 3 * PAGE, 6 * PAGE, 1), 0);
        request.boundary = 4 * PAGE;
        assert_int_equal(arena_alloc(arena, &request, &block), 0);
        assert_int_equal(block.addr, GIB);
        request.align = 4 * PAGE;
        assert_int_equal(arena_alloc(arena, &request, &block), -ENOSPC);
        request.align = PAGE;
        assert_int_equal(arena_alloc(arena, &request, &block), 0);
        assert_int_equal(block.addr, GIB - 3 * PAGE);
}

static void test_finding_takes_nothing(void **state) {
        struct arena *arena = *state;
        struct arena_request request = pages(2);
        struct arena_block found, block;

        assert_int_equal(arena_add(arena, GIB, 8 * PAGE, 1), 0);
        assert_int_equal(arena_find(arena, &request, &found), 0);
        assert_int_equal(usage_of(arena).n_allocated, 0);
        assert_int_equal(arena_alloc(arena, &request, &block), 0);
        assert_int_equal(found.addr, block.addr);
}

static void test_no_block_crosses_from_span_to_span(void **state) {
        struct arena *arena = *state;
        struct arena_request request = pages(3);
        struct arena_block block;

        assert_int_equal(arena_add(arena, GIB, 2 * PAGE, 1), 0);
        assert_int_equal(arena_add(arena, GIB + 2 * PAGE, 2 * PAGE, 2), 0);
        assert_int_equal(arena_alloc(arena, &request, &block), -ENOSPC);
        assert_int_equal(arena_alloc_at(arena, GIB + PAGE, 2 * PAGE, &block), -ENOENT);
        assert_int_equal(usage_of(arena).n_free, 2);
}

static void test_an_exact_allocation_says_why_it_cannot_be(void **state) {
        struct arena *arena = *state;
        struct arena_block block;

        assert_int_equal(arena_add(arena, GIB, 8 * PAGE, 5), 0);
        assert_int_equal(arena_alloc_at(arena, GIB + 2 * PAGE, 2 * PAGE, &block), 0);
        assert_int_equal(block.addr, GIB + 2 * PAGE);
        assert_int_equal(block.tag, 5);
        assert_int_equal(arena_alloc_at(arena, GIB + PAGE, 2 * PAGE, &block), -EBUSY);
        assert_int_equal(arena_alloc_at(arena, GIB + 3 * PAGE, PAGE, &block), -EBUSY);
        assert_int_equal(arena_alloc_at(arena, GIB + 7 * PAGE, 2 * PAGE, &block), -ENOENT);
        assert_int_equal(arena_alloc_at(arena, 0, PAGE, &block), -ENOENT);
        assert_int_equal(arena_alloc_at(arena, GIB + 1, PAGE, &block), -EINVAL);
        assert_int_equal(arena_alloc_at(arena, GIB, 0, &block), -EINVAL);
}

static void test_only_the_start_of_an_allocated_block_can_be_released(void **state) {
        struct arena *arena = *state;
        uint64_t addr;

        assert_int_equal(arena_add(arena, GIB, 8 * PAGE, 1), 0);
        addr = alloc_pages(arena, 2);
        assert_int_equal(arena_release_at(arena, addr + PAGE, NULL), -ENOENT);
        assert_int_equal(arena_release_at(arena, GIB, NULL), -ENOENT);
        assert_int_equal(arena_release_at(arena, addr, NULL), 0);
        assert_int_equal(arena_release_at(arena, addr, NULL), -ENOENT);
}

static void test_an_allocated_block_has_a_number_and_a_note(void **state) {
        struct arena *arena = *state;
        struct arena_block blocks[100], found;
        bool is_free;
        size_t i;

        assert_int_equal(arena_add(arena, GIB, 128 * PAGE, 5), 0);
        for (i = 0; i < 100; i++) {
                assert_int_equal(arena_alloc(arena, &(struct arena_request){ .size = PAGE, .limit = UINT64_MAX }, &blocks[i]), 0);
                assert_int_equal(blocks[i].note, 0);
                arena_note(arena, blocks[i].number, ~(uint64_t)i);
        }
        for (i = 0; i < 100; i += 2)
                arena_release(arena, blocks[i].number, NULL);
        for (i = 1; i < 100; i += 2) {
                found = arena_block(arena, blocks[i].number);
                assert_int_equal(found.addr, blocks[i].addr);
                assert_int_equal(found.size, PAGE);
                assert_int_equal(found.tag, 5);
                assert_int_equal(found.note, ~(uint64_t)i);
                assert_int_equal(arena_lookup(arena, found.addr + 17, &found, &is_free), 0);
                assert_int_equal(found.number, blocks[i].number);
                assert_int_equal(found.note, ~(uint64_t)i);
        }
        assert_int_equal(arena_lookup(arena, blocks[50].addr, &found, &is_free), 0);
        assert_true(is_free && found.note == 0);
        assert_int_equal(arena_alloc_at(arena, blocks[50].addr, PAGE, &found), 0);
        assert_int_equal(found.note, 0);
}

static void test_a_release_merges_with_both_neighbours_and_tells_the_whole(void **state) {
        struct arena *arena = *state;
        struct arena_block merged;
        uint64_t a, b, c;

        assert_int_equal(arena_add(arena, GIB, 6 * PAGE, 9), 0);
        a = alloc_pages(arena, 2);
        b = alloc_pages(arena, 2);
        c = alloc_pages(arena, 2);
        assert_int_equal(arena_release_at(arena, a, &merged), 0);
        assert_int_equal(merged.size, 2 * PAGE);
        assert_int_equal(arena_release_at(arena, c, &merged), 0);
        assert_int_equal(merged.size, 2 * PAGE);
        assert_int_equal(arena_release_at(arena, b, &merged), 0);
        assert_int_equal(merged.addr, GIB);
        assert_int_equal(merged.size, 6 * PAGE);
        assert_int_equal(merged.tag, 9);
}

static void test_removing_the_middle_of_a_span_leaves_two(void **state) {
        struct arena *arena = *state;
        struct arena_block span;

        assert_int_equal(arena_add(arena, GIB, 8 * PAGE, 3), 0);
        assert_int_equal(arena_remove(arena, GIB + 2 * PAGE, 2 * PAGE), 0);
        assert_int_equal(usage_of(arena).n_spans, 2);
        assert_int_equal(usage_of(arena).bytes, 6 * PAGE);
        assert_int_equal(arena_span(arena, GIB + PAGE, &span), 0);
        assert_int_equal(span.size, 2 * PAGE);
        assert_int_equal(arena_span(arena, GIB + 5 * PAGE, &span), 0);
        assert_int_equal(span.addr, GIB + 4 * PAGE);
        assert_int_equal(span.size, 4 * PAGE);
        assert_int_equal(span.tag, 3);
        assert_int_equal(arena_span(arena, GIB + 3 * PAGE, &span), -ENOENT);
}

static void test_removing_refuses_what_is_allocated_or_not_there(void **state) {
        struct arena *arena = *state;
        uint64_t addr;

        assert_int_equal(arena_add(arena, GIB, 8 * PAGE, 3), 0);
        addr = alloc_pages(arena, 1);
        assert_int_equal(arena_remove(arena, GIB, 8 * PAGE), -EBUSY);
        assert_int_equal(arena_remove(arena, GIB, 9 * PAGE), -ENOENT);
        assert_int_equal(arena_remove(arena, 0, PAGE), -ENOENT);
        assert_int_equal(arena_remove(arena, GIB, 1), -EINVAL);
        assert_int_equal(arena_release_at(arena, addr, NULL), 0);
        assert_int_equal(arena_remove(arena, GIB, 8 * PAGE), 0);
        assert_int_equal(usage_of(arena).n_spans, 0);
}

static void test_lookup_tells_free_from_allocated_and_the_rest(void **state) {
        struct arena *arena = *state;
        struct arena_block block;
        bool is_free;
        uint64_t addr;

        assert_int_equal(arena_add(arena, GIB, 8 * PAGE, 3), 0);
        addr = alloc_pages(arena, 2);
        assert_int_equal(arena_lookup(arena, addr + PAGE + 17, &block, &is_free), 0);
        assert_int_equal(block.addr, addr);
        assert_false(is_free);
        assert_int_equal(arena_lookup(arena, GIB, &block, &is_free), 0);
        assert_int_equal(block.size, 6 * PAGE);
        assert_true(is_free);
        assert_int_equal(arena_lookup(arena, GIB + 8 * PAGE, &block, &is_free), -ENOENT);
        assert_int_equal(arena_lookup(arena, GIB - 1, &block, &is_free), -ENOENT);
}

static void test_usage_within_counts_the_part_between(void **state) {
        struct arena *arena = *state;
        struct arena_block block;
        uint64_t free_bytes, largest;

        assert_int_equal(arena_add(arena, GIB, 8 * PAGE, 3), 0);
        assert_int_equal(arena_alloc_at(arena, GIB + 2 * PAGE, PAGE, &block), 0);
        arena_usage_within(arena, GIB + PAGE, GIB + 6 * PAGE - 1, &free_bytes, &largest);
        assert_int_equal(free_bytes, 4 * PAGE);
        assert_int_equal(largest, 3 * PAGE);
        arena_usage_within(arena, 2 * GIB, UINT64_MAX, &free_bytes, &largest);
        assert_int_equal(free_bytes, 0);
        assert_int_equal(largest, 0);
}

struct visit {
        uint64_t next;
        unsigned n;
};

static int visit_in_order(const struct arena_block *block, bool is_free, void *userdata) {
        struct visit *visit = userdata;

        if (block->addr < visit->next)
                return -EINVAL;
        visit->next = block->addr + block->size;
        return ++visit->n == 3 ? 42 : 0;
}

static void test_a_visit_goes_up_and_ends_when_told(void **state) {
        struct arena *arena = *state;
        struct visit visit = { 0 };

        assert_int_equal(arena_visit(arena, visit_in_order, &visit), 0);
        assert_int_equal(arena_add(arena, 2 * GIB, PAGE, 1), 0);
        assert_int_equal(arena_add(arena, GIB, 8 * PAGE, 1), 0);
        assert_int_equal(arena_visit(arena, visit_in_order, &visit), 0);
        assert_int_equal(visit.n, 2);
        visit = (struct visit){ 0 };
        alloc_pages(arena, 2);
        alloc_pages(arena, 2);
        assert_int_equal(arena_visit(arena, visit_in_order, &visit), 42);
        assert_int_equal(visit.n, 3);
}

static void test_a_hundred_thousand_blocks_are_found_by_any_of_their_addresses(void **state) {
        struct arena *arena = *state;
        struct arena_block block;
        bool is_free;
        uint64_t i, n = 100000;

        assert_int_equal(arena_add(arena, 8 * GIB, n * 2 * PAGE, 1), 0);
        for (i = 0; i < n; i++)
                assert_int_equal(arena_alloc_at(arena, 8 * GIB + i * 2 * PAGE, 2 * PAGE, &block), 0);
        for (i = 0; i < n; i += 2)
                assert_int_equal(arena_release_at(arena, 8 * GIB + i * 2 * PAGE, NULL), 0);
        for (i = 0; i < n; i++) {
                assert_int_equal(arena_lookup(arena, 8 * GIB + i * 2 * PAGE + PAGE, &block, &is_free), 0);
                assert_int_equal(block.addr, 8 * GIB + i * 2 * PAGE);
                assert_int_equal(is_free, i % 2 == 0);
        }
        assert_int_equal(usage_of(arena).n_allocated, n / 2);
        assert_int_equal(usage_of(arena).largest_free, 2 * PAGE);
}

/* One round of everything that may need memory; stops at the first refusal. */
static int round_of_everything(struct arena *arena, struct arena_usage *before) {
        struct arena_request request = pages(1);
        struct arena_block block;
        unsigned i;
        int r;

        *before = usage_of(arena);
        r = arena_add(arena, GIB, 1024 * PAGE, 1);
        for (i = 0; r >= 0 && i < 200; i++) {
                *before = usage_of(arena);
                r = arena_alloc(arena, &request, &block);
                if (r < 0)
                        break;
                *before = usage_of(arena);
                r = arena_alloc_at(arena, GIB + 2 * i * PAGE, PAGE, &block);
        }
        if (r < 0)
                return r;
        *before = usage_of(arena);
        r = arena_add(arena, 4 * GIB, 8 * PAGE, 2);
        if (r < 0)
                return r;
        *before = usage_of(arena);
        return arena_remove(arena, 4 * GIB + PAGE, PAGE);
}

static void test_without_memory_nothing_changes(void **state) {
        struct arena_usage before, after;
        unsigned n_refused = 0;
        struct arena *arena;
        char text[256];
        long n;
        int r;

        for (n = 0;; n++) {
                assert_int_equal(arena_new(PAGE, &arena), 0);
                n_until_failure = n;
                r = round_of_everything(arena, &before);
                after = usage_of(arena);
                if (r == -ENOMEM) {
                        assert_memory_equal(&before, &after, sizeof(after));
                        n_refused++;
                } else
                        assert_int_equal(r, 0);
                assert_int_equal(arena_check(arena, text, sizeof(text)), 0);
                arena_free(arena);
                if (n_until_failure >= 0)
                        break; /* fewer requests for memory than that */
        }
        n_until_failure = -1;
        assert_true(n_refused >= 6);
}

static void test_an_arena_needs_memory(void **state) {
        struct arena *arena = NULL;

        n_until_failure = 0;
        assert_int_equal(arena_new(PAGE, &arena), -ENOMEM);
        assert_null(arena);
        n_until_failure = -1;
}

static void test_a_whole_span_goes_without_any_memory(void **state) {
        struct arena *arena = *state;

        for (uint64_t n = 1; n <= 100; n++) {
                assert_int_equal(arena_add(arena, n * 4 * PAGE, 2 * PAGE, 0), 0);
                n_until_failure = 0;
                assert_int_equal(arena_remove(arena, n * 4 * PAGE, 2 * PAGE), 0);
                n_until_failure = -1;
                assert_int_equal(arena_add(arena, n * 4 * PAGE, 2 * PAGE, 0), 0);
        }
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        const struct CMUnitTest tests[] = {
                TEST(test_a_whole_span_goes_without_any_memory),
                TEST(test_a_granule_that_is_no_power_of_two_is_refused),
                TEST(test_a_span_must_be_in_granules_and_within_the_address_space),
                TEST(test_a_span_has_as_many_granules_as_32_bits_count),
                TEST(test_spans_that_overlap_are_refused),
                TEST(test_the_last_page_of_the_address_space_can_be_used),
                TEST(test_the_address_space_cannot_be_completed),
                TEST(test_a_malformed_request_is_told_apart_from_no_space),
                TEST(test_a_size_that_rounds_past_64_bits_has_no_space),
                TEST(test_a_floor_above_the_limit_has_no_space),
                TEST(test_a_size_is_rounded_up_to_the_granule),
                TEST(test_a_boundary_below_the_granule_is_kept_by_every_block),
                TEST(test_wide_requests_take_memory_below_4_gib_last),
                TEST(test_wide_requests_take_the_upper_part_of_a_span_across_4_gib),
                TEST(test_a_limit_is_the_last_byte),
                TEST(test_a_floor_is_the_first_byte),
                TEST(test_alignment_and_boundary_are_kept),
                TEST(test_finding_takes_nothing),
                TEST(test_no_block_crosses_from_span_to_span),
                TEST(test_an_exact_allocation_says_why_it_cannot_be),
                TEST(test_only_the_start_of_an_allocated_block_can_be_released),
                TEST(test_an_allocated_block_has_a_number_and_a_note),
                TEST(test_a_release_merges_with_both_neighbours_and_tells_the_whole),
                TEST(test_removing_the_middle_of_a_span_leaves_two),
                TEST(test_removing_refuses_what_is_allocated_or_not_there),
                TEST(test_lookup_tells_free_from_allocated_and_the_rest),
                TEST(test_usage_within_counts_the_part_between),
                TEST(test_a_visit_goes_up_and_ends_when_told),
                TEST(test_a_hundred_thousand_blocks_are_found_by_any_of_their_addresses),
                TEST(test_without_memory_nothing_changes),
                TEST(test_an_arena_needs_memory),
        };

        return cmocka_run_group_tests_name("arena-test", tests, NULL, NULL);
}
