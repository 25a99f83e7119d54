/* The arena against a model that is too simple to be wrong: one cell per granule, every answer by trying each cell.
 *
 * ARENA_MODEL_STEPS (1,000,000) is divided among the seeds; ARENA_MODEL_SEED runs one seed only. After each step the
 * arena's own invariants and its counters must hold. */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/core/arena.h"

enum { GRANULE = 64, N_CELLS = 256, N_SEEDS = 8 };

/* Where memory may be: at both ends of the address space, and across lines where the number of address bits grows. */
static const struct {
        uint64_t addr;
        unsigned n_cells;
} windows[] = {
        { 0, 24 },
        { 4096 - 8 * GRANULE, 16 },
        { (UINT64_C(1) << 32) - 24 * GRANULE, 60 },
        { (UINT64_C(1) << 40) - 5 * GRANULE, 28 },
        { UINT64_MAX - 128 * GRANULE + 1, 128 },
};

struct cell {
        uint64_t addr;
        uint32_t span;  /* 0: no memory here */
        uint32_t owner; /* 0: free; otherwise one more than the first cell of the allocation */
};

struct model {
        struct arena *arena;
        struct cell cells[N_CELLS];
        uint32_t next_span;
        uint64_t random;
        unsigned seed, step;
        const char *doing;
        struct arena_request request; /* the last one, for the message */
};

#define REQUIRE(model, condition) \
        do { \
                if (!(condition)) \
                        model_fail(model, __LINE__, #condition); \
        } while (0)

static void model_fail(const struct model *model, int line, const char *condition) {
        const struct arena_request *r = &model->request;

        fail_msg("line %d: %s: seed %u, step %u, %s; last request size=%" PRIu64 " align=%" PRIu64 " boundary=%" PRIu64
                 " floor=0x%" PRIx64 " limit=0x%" PRIx64, line, condition, model->seed, model->step, model->doing,
                 r->size, r->align, r->boundary, r->floor, r->limit);
}

static uint64_t model_random(struct model *model) {
        model->random ^= model->random << 13;
        model->random ^= model->random >> 7;
        model->random ^= model->random << 17;
        return model->random * UINT64_C(0x2545f4914f6cdd1d) >> 16;
}

static unsigned model_below(struct model *model, unsigned n) {
        return (unsigned)(model_random(model) % n);
}

static unsigned bit_length(uint64_t value) {
        return value ? 64 - (unsigned)__builtin_clzll(value) : 0;
}

/* Whether n cells from first on are one piece of one span, and free if they must be. */
static bool model_is_run(const struct model *model, unsigned first, unsigned n, bool must_be_free) {
        const struct cell *cells = model->cells;
        unsigned i;

        if (n > N_CELLS - first)
                return false;
        for (i = first; i < first + n; i++)
                if (!cells[i].span || cells[i].span != cells[first].span || (must_be_free && cells[i].owner) ||
                    cells[i].addr - cells[first].addr != (uint64_t)(i - first) * GRANULE)
                        return false;
        return true;
}

static bool request_allows(const struct arena_request *request, uint64_t addr, uint64_t size) {
        uint64_t last = addr + (size - 1), used_last = addr + (request->size - 1);

        if (addr < request->floor || last > request->limit || (request->align && addr % request->align))
                return false;
        return !request->boundary || addr / request->boundary == used_last / request->boundary;
}

/* Whether any cell can begin the block, and the most address bits that such a cell's address has. */
static bool model_search(const struct model *model, const struct arena_request *request, unsigned *ret_bits) {
        unsigned n, i, bits;
        bool found = false;

        if (request->size > N_CELLS * GRANULE)
                return false;
        n = (unsigned)((request->size + GRANULE - 1) / GRANULE);
        *ret_bits = 0;
        for (i = 0; i < N_CELLS; i++) {
                if (!request_allows(request, model->cells[i].addr, (uint64_t)n * GRANULE) ||
                    !model_is_run(model, i, n, true))
                        continue;
                bits = bit_length(model->cells[i].addr);
                if (bits > *ret_bits)
                        *ret_bits = bits;
                found = true;
        }
        return found;
}

static unsigned model_cell_at(const struct model *model, uint64_t addr) {
        unsigned i;

        for (i = 0; i < N_CELLS; i++)
                if (addr >= model->cells[i].addr && addr - model->cells[i].addr < GRANULE)
                        return i;
        return N_CELLS;
}

static void model_own(struct model *model, unsigned first, unsigned n, uint32_t owner) {
        unsigned i;

        for (i = first; i < first + n; i++)
                model->cells[i].owner = owner;
}

/* ---- steps ---- */

static struct arena_request model_request(struct model *model) {
        static const uint64_t limits[] = { 2047, 4095, 8191, UINT32_MAX, (UINT64_C(1) << 40) - 1 };
        struct arena_request request = { .limit = UINT64_MAX };

        request.size = 1 + model_below(model, model_below(model, 8) ? 6 * GRANULE : 60 * GRANULE);
        /* Every other seed makes more free pieces than the arena looks at before it believes that none suits. */
        if (model->seed % 2 && model_below(model, 8))
                request.size = 1 + model_below(model, GRANULE);
        if (model_below(model, 3) == 0)
                request.align = UINT64_C(1) << model_below(model, 13);
        if (model_below(model, 4) == 0)
                request.boundary = UINT64_C(1) << (bit_length(request.size - 1) + model_below(model, 4));
        if (model_below(model, 4) == 0)
                request.floor = model->cells[model_below(model, N_CELLS)].addr + model_below(model, 2 * GRANULE);
        if (model_below(model, 3) == 0)
                request.limit = model_below(model, 2) ? limits[model_below(model, sizeof(limits) / sizeof(limits[0]))] :
                                model->cells[model_below(model, N_CELLS)].addr + model_below(model, GRANULE);
        if (model_below(model, 500) == 0)
                request.size = UINT64_MAX - model_below(model, 2 * GRANULE);
        if (request.boundary && request.size > request.boundary)
                request.boundary = 0;
        return request;
}

/* Its user keeps something with it. */
static void model_note(struct model *model, const struct arena_block *block) {
        REQUIRE(model, block->note == 0);
        arena_note(model->arena, block->number, block->addr + 1);
}

static void step_alloc(struct model *model) {
        struct arena_request request = model_request(model);
        struct arena_block found = { 0 }, block = { 0 };
        unsigned bits, first, n;
        bool possible;
        int r;

        model->doing = "alloc";
        model->request = request;
        possible = model_search(model, &request, &bits);
        REQUIRE(model, arena_find(model->arena, &request, &found) == (possible ? 0 : -ENOSPC));
        r = arena_alloc(model->arena, &request, &block);
        REQUIRE(model, r == (possible ? 0 : -ENOSPC));
        if (!possible)
                return;
        REQUIRE(model, found.addr == block.addr && found.size == block.size && found.tag == block.tag);
        n = (unsigned)((request.size + GRANULE - 1) / GRANULE);
        first = model_cell_at(model, block.addr);
        REQUIRE(model, block.size == (uint64_t)n * GRANULE && first < N_CELLS);
        REQUIRE(model, model->cells[first].addr == block.addr && model_is_run(model, first, n, true));
        REQUIRE(model, request_allows(&request, block.addr, block.size));
        REQUIRE(model, bit_length(block.addr | 1) == (bits ? bits : 1));
        REQUIRE(model, block.tag == model->cells[first].span);
        model_note(model, &block);
        model_own(model, first, n, first + 1);
}

static void step_release(struct model *model) {
        unsigned cell = model_below(model, N_CELLS), tries, first, n = 0;
        struct arena_block block = { 0 }, merged;
        bool is_free;
        uint64_t addr;

        model->doing = "release";
        for (tries = 0; tries < 8 && !model->cells[cell].owner; tries++)
                cell = model_below(model, N_CELLS);
        addr = model->cells[cell].addr;
        first = model->cells[cell].owner - 1;
        if (model->cells[cell].owner && model_below(model, 16))
                addr = model->cells[first].addr; /* otherwise somewhere within the block, which must be refused */
        if (!model->cells[cell].owner || addr != model->cells[first].addr) {
                REQUIRE(model, arena_release_at(model->arena, addr, &merged) == -ENOENT);
                return;
        }
        REQUIRE(model, arena_lookup(model->arena, addr, &block, &is_free) == 0 && !is_free);
        REQUIRE(model, block.note == addr + 1 && arena_block(model->arena, block.number).addr == addr);
        if (model_below(model, 2))
                REQUIRE(model, arena_release_at(model->arena, addr, &merged) == 0);
        else
                arena_release(model->arena, block.number, &merged);
        while (first + n < N_CELLS && model->cells[first + n].owner == first + 1)
                n++;
        model_own(model, first, n, 0);
        REQUIRE(model, merged.tag == model->cells[first].span);
        cell = model_cell_at(model, merged.addr);
        n = (unsigned)(merged.size / GRANULE);
        REQUIRE(model, model_is_run(model, cell, n, true) && cell <= first && first < cell + n);
        REQUIRE(model, cell == 0 || !model_is_run(model, cell - 1, n + 1, true));
        REQUIRE(model, !model_is_run(model, cell, n + 1, true));
}

static int model_expect_exactly(const struct model *model, unsigned first, unsigned n) {
        if (!model->cells[first].span || !model_is_run(model, first, n, false))
                return -ENOENT;
        return model_is_run(model, first, n, true) ? 0 : -EBUSY;
}

static void step_alloc_at(struct model *model) {
        unsigned first = model_below(model, N_CELLS), n = 1 + model_below(model, 6);
        struct arena_block block = { 0 };
        uint64_t addr = model->cells[first].addr;
        int expected = model_expect_exactly(model, first, n);

        model->doing = "alloc_at";
        if (addr + ((uint64_t)n * GRANULE - 1) < addr)
                expected = -EINVAL;
        REQUIRE(model, arena_alloc_at(model->arena, addr, (uint64_t)n * GRANULE, &block) == expected);
        if (expected < 0)
                return;
        REQUIRE(model, block.addr == addr && block.size == (uint64_t)n * GRANULE);
        REQUIRE(model, block.tag == model->cells[first].span);
        model_note(model, &block);
        model_own(model, first, n, first + 1);
}

static void step_add(struct model *model) {
        unsigned first = model_below(model, N_CELLS), n = 1 + model_below(model, 40), i;
        uint64_t addr = model->cells[first].addr;
        int expected = 0;

        model->doing = "add";
        /* The model has no cells between the windows. */
        while (n > N_CELLS - first || model->cells[first + n - 1].addr - addr != (uint64_t)(n - 1) * GRANULE)
                n--;
        for (i = first; i < first + n; i++)
                if (model->cells[i].span)
                        expected = -EEXIST;
        REQUIRE(model, arena_add(model->arena, addr, (uint64_t)n * GRANULE, model->next_span) == expected);
        if (expected < 0)
                return;
        for (i = first; i < first + n; i++)
                model->cells[i].span = model->next_span;
        model->next_span++;
}

/* The arena keeps the tag on both sides of a hole, and the model keeps the sides apart by the hole itself. */
static void step_remove(struct model *model) {
        unsigned first = model_below(model, N_CELLS), n = 1 + model_below(model, 12), i;
        uint64_t addr = model->cells[first].addr;
        int expected = model_expect_exactly(model, first, n);

        model->doing = "remove";
        if (addr + ((uint64_t)n * GRANULE - 1) < addr)
                expected = -EINVAL;
        REQUIRE(model, arena_remove(model->arena, addr, (uint64_t)n * GRANULE) == expected);
        for (i = first; expected == 0 && i < first + n; i++)
                model->cells[i].span = 0;
}

static void step_look(struct model *model) {
        unsigned cell = model_below(model, N_CELLS), low = cell, high = cell;
        uint64_t addr = model->cells[cell].addr + model_below(model, GRANULE);
        struct arena_block block, span;
        bool is_free = false;

        model->doing = "lookup";
        if (!model->cells[cell].span) {
                REQUIRE(model, arena_lookup(model->arena, addr, &block, &is_free) == -ENOENT);
                REQUIRE(model, arena_span(model->arena, addr, &span) == -ENOENT);
                return;
        }
        REQUIRE(model, arena_lookup(model->arena, addr, &block, &is_free) == 0);
        REQUIRE(model, arena_span(model->arena, addr, &span) == 0);
        REQUIRE(model, is_free == !model->cells[cell].owner && addr - block.addr < block.size);
        if (!is_free)
                REQUIRE(model, block.addr == model->cells[model->cells[cell].owner - 1].addr);
        while (low > 0 && model_is_run(model, low - 1, cell - low + 2, false))
                low--;
        while (model_is_run(model, low, high - low + 2, false))
                high++;
        REQUIRE(model, span.addr == model->cells[low].addr && span.size == (uint64_t)(high - low + 1) * GRANULE);
        REQUIRE(model, span.tag == model->cells[cell].span && block.tag == span.tag);
}

static void step_usage_within(struct model *model) {
        uint64_t floor = model->cells[model_below(model, N_CELLS)].addr, limit, total = 0, largest = 0, run = 0;
        uint64_t got_total, got_largest;
        unsigned i;

        model->doing = "usage_within";
        limit = model->cells[model_below(model, N_CELLS)].addr + (GRANULE - 1);
        for (i = 0; i < N_CELLS; i++) {
                const struct cell *cell = &model->cells[i];

                if (!cell->span || cell->owner || cell->addr < floor || cell->addr + (GRANULE - 1) > limit) {
                        run = 0;
                        continue;
                }
                run = run && model_is_run(model, i - 1, 2, true) ? run + GRANULE : GRANULE;
                total += GRANULE;
                largest = run > largest ? run : largest;
        }
        arena_usage_within(model->arena, floor, limit, &got_total, &got_largest);
        REQUIRE(model, got_total == total && got_largest == largest);
}

/* ---- after each step ---- */

static void model_compare(const struct model *model) {
        struct arena_usage usage, seen = { 0 };
        char text[200] = "";
        uint64_t run = 0;
        unsigned i;

        if (arena_check(model->arena, text, sizeof(text)) < 0)
                model_fail(model, __LINE__, text);
        for (i = 0; i < N_CELLS; i++) {
                const struct cell *cell = &model->cells[i];
                bool joins = i > 0 && model_is_run(model, i - 1, 2, false);

                if (!cell->span)
                        continue;
                seen.bytes += GRANULE;
                seen.n_spans += !joins;
                seen.n_allocated += cell->owner == i + 1;
                if (cell->owner)
                        continue;
                joins = joins && !model->cells[i - 1].owner;
                run = joins ? run + GRANULE : GRANULE;
                seen.n_free += !joins;
                seen.free_bytes += GRANULE;
                seen.largest_free = run > seen.largest_free ? run : seen.largest_free;
        }
        arena_usage(model->arena, &usage);
        REQUIRE(model, usage.bytes == seen.bytes && usage.free_bytes == seen.free_bytes);
        REQUIRE(model, usage.n_spans == seen.n_spans && usage.n_free == seen.n_free);
        REQUIRE(model, usage.n_allocated == seen.n_allocated && usage.largest_free == seen.largest_free);
}

static void model_step(struct model *model) {
        /* It fills, empties and is between in turn, so that every occupancy is met often. */
        unsigned phase = model->step / 1000 % 3, n_alloc = phase == 0 ? 70 : phase == 1 ? 48 : 30;
        unsigned dice = model_below(model, 100);

        if (dice >= 94)
                (dice >= 97 ? step_add : step_remove)(model);
        else if (dice >= 90)
                (dice >= 92 ? step_look : step_usage_within)(model);
        else if (dice >= 86)
                step_alloc_at(model);
        else
                (dice < n_alloc ? step_alloc : step_release)(model);
        model_compare(model);
}

static void model_run(unsigned seed, unsigned n_steps) {
        struct model model = { .next_span = 1, .random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1, .seed = seed };
        unsigned i, j, n = 0;

        for (i = 0; i < sizeof(windows) / sizeof(windows[0]); i++)
                for (j = 0; j < windows[i].n_cells; j++)
                        model.cells[n++].addr = windows[i].addr + (uint64_t)j * GRANULE;
        assert_int_equal(n, N_CELLS);
        assert_int_equal(arena_new(GRANULE, &model.arena), 0);
        for (i = 0; i < 12; i++)
                step_add(&model);
        for (model.step = 0; model.step < n_steps; model.step++)
                model_step(&model);
        arena_free(model.arena);
}

static unsigned number_from(const char *name, unsigned otherwise) {
        const char *text = getenv(name);

        return text && *text ? (unsigned)strtoul(text, NULL, 0) : otherwise;
}

static void test_a_million_random_steps_agree_with_the_model(void **state) {
        unsigned n_steps = number_from("ARENA_MODEL_STEPS", 1000000), seed;

        if (getenv("ARENA_MODEL_SEED")) {
                model_run(number_from("ARENA_MODEL_SEED", 1), n_steps);
                return;
        }
        for (seed = 1; seed <= N_SEEDS; seed++)
                model_run(seed, n_steps / N_SEEDS);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_million_random_steps_agree_with_the_model),
        };

        return cmocka_run_group_tests_name("arena-model", tests, NULL, NULL);
}
