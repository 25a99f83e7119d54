/* The slots against a model that is too simple to be wrong: one cell per slot, every answer by trying each.
 *
 * SLOTS_MODEL_STEPS (1,000,000) is divided among the shapes; SLOTS_MODEL_SEED is another random sequence. After each step
 * the invariants and the counters must hold. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "client/slots.h"

enum { N_MOST = 300 };

/* With and without barriers, at sizes around the words of a bitmap. */
static const struct shape {
        size_t n;
        uint64_t base, barrier;
} shapes[] = {
        { 1, 0, 0 },      { 63, 5, 0 },   { 64, 0, 0 },    { 65, 0, 1 },  { 128, 3, 16 },
        { 200, 120, 128 }, { 256, 0, 64 }, { N_MOST, 7, 0 }, { N_MOST, UINT64_MAX - 100, 64 },
};

enum { N_SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

struct model {
        const struct shape *shape;
        struct slots *slots;
        uint32_t owners[N_MOST]; /* 0: free; otherwise one more than the run's first slot */
        size_t used, high_water, runs;
        uint64_t fulls, random;
        unsigned step;
};

static unsigned below(struct model *model, unsigned n) {
        model->random ^= model->random << 13;
        model->random ^= model->random >> 7;
        model->random ^= model->random << 17;
        return (unsigned)((model->random * UINT64_C(0x2545f4914f6cdd1d) >> 33) % n);
}

#define REQUIRE(model, condition) \
        do { \
                if (!(condition)) \
                        fail_msg("%s: %zu slots, barrier %llu, step %u", #condition, (model)->shape->n, \
                                 (unsigned long long)(model)->shape->barrier, (model)->step); \
        } while (0)

static bool is_behind_barrier(const struct model *model, size_t slot) {
        return model->shape->barrier && !((model->shape->base + slot) % model->shape->barrier);
}

/* Slots from `first` on up to the next that is not free, or to a barrier. */
static size_t free_from(const struct model *model, size_t first) {
        size_t n = 0;

        while (first + n < model->shape->n && !model->owners[first + n] && (!n || !is_behind_barrier(model, first + n)))
                n++;
        return n;
}

/* Of the free runs that have n slots, the shortest; 0: none has. And the longest of all. */
static size_t search(const struct model *model, size_t n, size_t *ret_longest) {
        size_t best = 0, run;

        *ret_longest = 0;
        for (size_t i = 0; i < model->shape->n; i += run ? run : 1) {
                run = free_from(model, i);
                if (run > *ret_longest)
                        *ret_longest = run;
                if (run >= n && (!best || run < best))
                        best = run;
        }
        return best;
}

static void step_take(struct model *model) {
        size_t n = 1 + below(model, below(model, 4) ? 12 : (unsigned)model->shape->n), longest, first = SIZE_MAX, before;
        size_t expected;
        bool taken;

        if (!below(model, 200))
                n = below(model, 2) ? SIZE_MAX - below(model, 3) : ((size_t)1 << 32) + 1;
        expected = search(model, n, &longest);
        taken = slots_take(model->slots, n, &first);
        REQUIRE(model, taken == (expected != 0));
        if (!taken) {
                model->fulls++;
                return;
        }
        REQUIRE(model, first < model->shape->n && free_from(model, first) >= n);
        /* It was the shortest that there was. */
        for (before = first; before > 0 && free_from(model, before - 1) > free_from(model, before); before--)
                ;
        REQUIRE(model, free_from(model, before) == expected);
        for (size_t i = first; i < first + n; i++)
                model->owners[i] = (uint32_t)first + 1;
        model->runs++;
        model->used += n;
        if (model->used > model->high_water)
                model->high_water = model->used;
}

static void step_give(struct model *model) {
        size_t slot = below(model, (unsigned)model->shape->n), first, n = 0;

        for (unsigned i = 0; i < 8 && !model->owners[slot]; i++)
                slot = below(model, (unsigned)model->shape->n);
        if (!model->owners[slot])
                return;
        first = model->owners[slot] - 1;
        while (first + n < model->shape->n && model->owners[first + n] == first + 1) {
                model->owners[first + n] = 0;
                n++;
        }
        REQUIRE(model, slots_length(model->slots, first) == n);
        slots_give(model->slots, first);
        model->used -= n;
        model->runs--;
}

static void look(struct model *model) {
        size_t slot = below(model, (unsigned)model->shape->n + 3), first = SIZE_MAX, next = slot;
        uint32_t owner = slot < model->shape->n ? model->owners[slot] : 0;

        REQUIRE(model, slots_is_run(model->slots, slot) == (owner == slot + 1));
        REQUIRE(model, slots_find_run(model->slots, slot, &first) == (owner != 0));
        REQUIRE(model, !owner || first == owner - 1);
        while (next < model->shape->n && model->owners[next] != next + 1)
                next++;
        REQUIRE(model, slots_next_run(model->slots, slot, &first) == (next < model->shape->n));
        REQUIRE(model, next >= model->shape->n || first == next);
}

static void compare(struct model *model) {
        struct slots_usage usage;
        char text[100] = "";
        size_t longest;

        search(model, 1, &longest);
        if (slots_check(model->slots, text, sizeof(text)))
                fail_msg("step %u: %s", model->step, text);
        slots_usage(model->slots, &usage);
        REQUIRE(model, usage.slots == model->shape->n && usage.used == model->used && usage.runs == model->runs);
        REQUIRE(model, usage.high_water == model->high_water && usage.fulls == model->fulls);
        REQUIRE(model, usage.largest_free == longest);
}

static void run_model(const struct shape *shape, uint64_t seed, unsigned n_steps) {
        struct model model = { .shape = shape, .random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1 };
        struct slots_usage usage;
        size_t longest;

        assert_int_equal(slots_new(shape->n, shape->base, shape->barrier, &model.slots), 0);
        search(&model, 1, &longest);
        slots_usage(model.slots, &usage);
        REQUIRE(&model, usage.longest == longest);
        for (model.step = 0; model.step < n_steps; model.step++) {
                /* It fills and empties in turn. */
                unsigned phase = model.step / 500 % 3, n_take = phase == 0 ? 70 : phase == 1 ? 48 : 30;

                (below(&model, 100) < n_take ? step_take : step_give)(&model);
                look(&model);
                compare(&model);
        }
        slots_free(model.slots);
}

static unsigned number_from(const char *name, unsigned otherwise) {
        const char *text = getenv(name);

        return text && *text ? (unsigned)strtoul(text, NULL, 0) : otherwise;
}

static void test_a_million_random_steps_agree_with_the_model(void **state) {
        unsigned n_steps = number_from("SLOTS_MODEL_STEPS", 1000000), seed = number_from("SLOTS_MODEL_SEED", 1);

        for (size_t i = 0; i < N_SHAPES; i++)
                run_model(&shapes[i], seed + i, n_steps / N_SHAPES);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_million_random_steps_agree_with_the_model),
        };

        return cmocka_run_group_tests_name("slots-model", tests, NULL, NULL);
}
