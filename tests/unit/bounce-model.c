/* Bounce pools against a model that is too simple to be wrong: one cell per slot, every answer by trying each cell, and a
 * list of those who wait in the order in which they must be served.
 *
 * BOUNCE_MODEL_STEPS (1,000,000) is divided among the seeds; BOUNCE_MODEL_SEED runs one seed only. After each step the
 * statistics must be those of the model, and now and then the broker's own books must hold. */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/core-fixture.h"

enum { N_SEEDS = 16, N_ITEMS = 64, N_PARTS = 32, N_CELLS = 1024, N_SESSIONS = 3, CHECK_EVERY = 997 };
enum { QUARANTINE_MS = 40, IDLE_MS = 70, N_HOARDED = 24 };

enum item_state { ITEM_NONE, ITEM_WAITING, ITEM_MAPPED, ITEM_LEASED, ITEM_RESTING };

/* A request, and then what came of it. */
struct item {
        struct model *model;
        enum item_state state;
        bool lease, high;
        unsigned session; /* index */
        uint64_t number;  /* in the order of asking */
        uint64_t slots, size, offset;
        enum dma_direction direction;
        uint64_t deadline; /* 0: it does not wait */
        bool ended;        /* its session or pool */
        struct ticket *ticket;
        uint64_t handle, dma_addr; /* dma_addr: of the first slot */
        uint64_t until; /* resting */
};

struct part {
        uint64_t dma_addr, slots;
        int cells[N_CELLS]; /* -1: free, else an item */
};

struct told {
        struct item *item;
        uint64_t handle;
        struct failure failure;
};

struct model {
        struct fixture f;
        struct caller sessions[N_SESSIONS]; /* the first has the device */
        struct device_options device_options;
        uint64_t device, pool, slot, first_size, max_size;
        struct item items[N_ITEMS];
        struct part parts[N_PARTS];
        unsigned n_parts;
        struct told told[N_ITEMS];
        unsigned n_told;
        uint64_t number, high_water, maps;
        bool scarce; /* somebody hoards memory, so that the pool may fail to grow */
        uint64_t hoarded[N_HOARDED];
        uint64_t random;
        unsigned seed, step;
        const char *doing;
        unsigned long served, waited, timeouts, turned_away, full, grown; /* for the last line */
};

#define REQUIRE(model, condition) \
        do { \
                if (!(condition)) \
                        fail_msg("line %d: %s: seed %u, step %u, %s", __LINE__, #condition, (model)->seed, (model)->step, \
                                 (model)->doing); \
        } while (0)

static uint64_t model_random(struct model *model) {
        model->random ^= model->random << 13;
        model->random ^= model->random >> 7;
        model->random ^= model->random << 17;
        return model->random * UINT64_C(0x2545f4914f6cdd1d) >> 16;
}

static unsigned below(struct model *model, uint64_t n) {
        return (unsigned)(model_random(model) % n);
}

/* ---- the model's own view ---- */

static bool is_taken(const struct item *item) {
        return item->state == ITEM_MAPPED || item->state == ITEM_LEASED || item->state == ITEM_RESTING;
}

static struct part *part_of(struct model *model, uint64_t dma_addr) {
        unsigned i;

        for (i = 0; i < model->n_parts; i++)
                if (dma_addr >= model->parts[i].dma_addr &&
                    dma_addr < model->parts[i].dma_addr + model->parts[i].slots * model->slot)
                        return &model->parts[i];
        return NULL;
}

static void mark(struct model *model, const struct item *item, int before, int after) {
        struct part *part = part_of(model, item->dma_addr);
        uint64_t i, first;

        REQUIRE(model, part);
        first = (item->dma_addr - part->dma_addr) / model->slot;
        REQUIRE(model, first + item->slots <= part->slots);
        for (i = first; i < first + item->slots; i++) {
                REQUIRE(model, part->cells[i] == before);
                part->cells[i] = after;
        }
}

static int index_of(const struct model *model, const struct item *item) {
        return (int)(item - model->items);
}

static int part_visit(const struct alloc_view *view, void *userdata) {
        struct model *model = userdata;
        struct part *part;
        unsigned i;

        if (!view->bounce || view->bounce != model->pool)
                return 0;
        REQUIRE(model, model->n_parts < N_PARTS && view->size / model->slot <= N_CELLS);
        part = &model->parts[model->n_parts++];
        part->dma_addr = view->dma_addr;
        part->slots = view->size / model->slot;
        for (i = 0; i < part->slots; i++)
                part->cells[i] = -1;
        return 0;
}

/* Where the pool has memory now. What is taken must still be there. */
static void parts_learn(struct model *model) {
        struct item *item;

        model->n_parts = 0;
        assert_int_equal(coherent_visit(&model->sessions[0], model->device, NULL, 0, part_visit, model, NULL), 0);
        for (item = model->items; item < model->items + N_ITEMS; item++)
                if (is_taken(item))
                        mark(model, item, -1, index_of(model, item));
}

static bool crosses(const struct model *model, const struct item *item, uint64_t dma_addr) {
        uint64_t boundary = model->device_options.boundary, first = dma_addr + item->offset;

        /* A large lease starts at one. */
        if (item->lease && boundary && item->slots * model->slot > boundary)
                return dma_addr % boundary;
        if (item->lease)
                return boundary && first / boundary != (first + item->slots * model->slot - 1) / boundary;
        return boundary && first / boundary != (first + item->size - 1) / boundary;
}

static bool fits(const struct model *model, const struct item *item) {
        const struct part *part;
        uint64_t first, n;

        for (part = model->parts; part < model->parts + model->n_parts; part++)
                for (first = 0; first + item->slots <= part->slots; first++) {
                        for (n = 0; n < item->slots && part->cells[first + n] < 0; n++)
                                ;
                        /* A run that only just does not cross as a whole is what the pool looks for. */
                        if (n == item->slots && !crosses(model, item, part->dma_addr + first * model->slot))
                                return true;
                        first += n < item->slots ? n : 0;
                }
        return false;
}

static bool part_is_unused(const struct part *part) {
        uint64_t i;

        for (i = 0; i < part->slots; i++)
                if (part->cells[i] >= 0)
                        return false;
        return true;
}

/* Whether the pool may get a part that is large enough, once it has given back what it does not use. */
static bool can_grow(const struct model *model, const struct item *item) {
        uint64_t unit = model->slot > 4096 ? model->slot : 4096, size = model->first_size;
        uint64_t needed = (item->slots * model->slot + unit - 1) / unit * unit;
        struct bounce_view view;
        const struct part *part;

        assert_int_equal(bounce_get(&model->sessions[0], model->pool, &view, NULL), 0);
        for (part = model->parts; part < model->parts + model->n_parts; part++)
                if (part->dma_addr != view.dma_addr && !part_is_unused(part))
                        size += part->slots * model->slot;
        return model->max_size > size && model->max_size - size >= needed;
}

/* Of those who wait, who must be served before the others. */
static struct item *first_waiting(struct model *model) {
        struct item *item, *first = NULL;

        for (item = model->items; item < model->items + N_ITEMS; item++)
                if (item->state == ITEM_WAITING && !item->ended &&
                    (!first || item->high > first->high || (item->high == first->high && item->number < first->number)))
                        first = item;
        return first;
}

/* ---- answers ---- */

static void on_answer(void *userdata, const struct failure *failure, uint64_t handle) {
        struct item *item = userdata;
        struct model *model = item->model;
        struct told *told = &model->told[model->n_told++];

        *told = (struct told){ .item = item, .handle = handle };
        if (failure)
                told->failure = *failure;
}

static void item_served(struct model *model, struct item *item, uint64_t handle) {
        struct mapping_view mapping;
        struct lease_view lease;

        REQUIRE(model, item == first_waiting(model) || (item->high && !item->deadline));
        item->handle = handle;
        item->ticket = NULL;
        if (item->lease) {
                assert_int_equal(lease_get(&model->sessions[0], handle, &lease, NULL), 0);
                REQUIRE(model, lease.count == item->slots && lease.unit == model->slot && lease.bounce == model->pool);
                item->dma_addr = lease.dma_addr;
        } else {
                assert_int_equal(mapping_get(&model->sessions[0], handle, &mapping, NULL), 0);
                REQUIRE(model, mapping.slots == item->slots && mapping.size == item->size && mapping.bounce == model->pool);
                REQUIRE(model, (mapping.dma_addr & model->device_options.min_align_mask) == item->offset);
                item->dma_addr = mapping.dma_addr - item->offset;
                model->maps++;
        }
        REQUIRE(model, item->dma_addr % model->slot == 0);
        REQUIRE(model, !crosses(model, item, item->dma_addr));
        mark(model, item, -1, index_of(model, item));
        item->state = item->lease ? ITEM_LEASED : ITEM_MAPPED;
        model->served++;
}

static void item_refused(struct model *model, struct item *item, const struct failure *failure) {
        struct item *first;

        item->state = ITEM_NONE;
        first = first_waiting(model);
        switch (failure->reason) {
        case REASON_gone:
                REQUIRE(model, item->ended);
                break;
        case REASON_timeout:
                REQUIRE(model, item->deadline && item->deadline <= model->f.now);
                model->timeouts++;
                break;
        case REASON_would_block:
                REQUIRE(model, !item->deadline && !item->high && first && fits(model, item));
                model->turned_away++;
                break;
        case REASON_no_memory:
        case REASON_no_contiguous:
                REQUIRE(model, (!item->deadline || model->scarce) && !fits(model, item));
                REQUIRE(model, first || model->scarce || !can_grow(model, item));
                REQUIRE(model, failure_number(failure, "asked") == item->slots);
                model->full++;
                break;
        default:
                fail_msg("seed %u, step %u, %s: %s", model->seed, model->step, model->doing, failure->sentence);
        }
}

/* What has been taken, counted cell by cell. */
static void compare(struct model *model) {
        uint64_t counts[ITEM_RESTING + 1] = {}, slots = 0, run, largest = 0, i, waiting = 0;
        const struct part *part;
        const struct item *item;
        struct bounce_view view;

        for (part = model->parts; part < model->parts + model->n_parts; part++)
                for (i = run = 0; i < part->slots; i++, slots++) {
                        run = part->cells[i] < 0 ? run + 1 : 0;
                        largest = run > largest ? run : largest;
                        counts[part->cells[i] < 0 ? ITEM_NONE : model->items[part->cells[i]].state]++;
                }
        for (item = model->items; item < model->items + N_ITEMS; item++)
                waiting += item->state == ITEM_WAITING;
        assert_int_equal(bounce_get(&model->sessions[0], model->pool, &view, NULL), 0);
        REQUIRE(model, view.slots == slots && view.free == counts[ITEM_NONE] && view.largest_free == largest);
        REQUIRE(model, view.used == counts[ITEM_MAPPED] && view.leased == counts[ITEM_LEASED]);
        REQUIRE(model, view.quarantined == counts[ITEM_RESTING] && view.waiters == waiting);
        REQUIRE(model, view.high_water >= view.used + view.leased && view.high_water >= model->high_water);
        REQUIRE(model, view.maps == model->maps);
        REQUIRE(model, view.size <= (model->max_size > model->first_size ? model->max_size : model->first_size));
        model->high_water = view.high_water;
        model->grown = view.grows > model->grown ? view.grows : model->grown;
}

/* After a step: everything that could be answered was, in the right order, and nothing else. */
static void digest(struct model *model) {
        struct bounce_view view;
        struct item *first;
        uint64_t slots = 0;
        unsigned i;

        fixture_settle(&model->f);
        assert_int_equal(bounce_get(&model->sessions[0], model->pool, &view, NULL), 0);
        for (i = 0; i < model->n_parts; i++)
                slots += model->parts[i].slots;
        if (view.slots != slots || view.parts != model->n_parts || model->max_size)
                parts_learn(model);
        for (i = 0; i < model->n_told; i++)
                if (model->told[i].failure.error)
                        item_refused(model, model->told[i].item, &model->told[i].failure);
                else
                        item_served(model, model->told[i].item, model->told[i].handle);
        model->n_told = 0;
        first = first_waiting(model);
        if (first) {
                REQUIRE(model, first->deadline > model->f.now);
                REQUIRE(model, !fits(model, first) && (model->scarce || !can_grow(model, first)));
        }
        compare(model);
        if (model->step % CHECK_EVERY == 0)
                fixture_check(&model->f);
}

/* ---- steps ---- */

static struct item *item_in(struct model *model, enum item_state state) {
        unsigned i, at = below(model, N_ITEMS);

        for (i = 0; i < N_ITEMS; i++, at = (at + 1) % N_ITEMS)
                if (model->items[at].state == state)
                        return &model->items[at];
        return NULL;
}

static uint64_t most_slots(const struct model *model) {
        uint64_t more = model->max_size > model->first_size ? model->max_size - model->first_size : 0;

        return (more > model->first_size ? more : model->first_size) / model->slot;
}

/* A size that the device could have. */
static uint64_t random_size(struct model *model, uint64_t offset) {
        uint64_t most = most_slots(model) * model->slot, size;

        if (model->device_options.boundary && most > model->device_options.boundary)
                most = model->device_options.boundary;
        most -= offset < most ? offset : most - 1;
        if (model->device_options.max_segment && most > model->device_options.max_segment)
                most = model->device_options.max_segment;
        size = 1 + below(model, below(model, 4) ? (most < 4 * model->slot ? most : 4 * model->slot) : most);
        return size;
}

static void step_ask(struct model *model) {
        struct item *item = item_in(model, ITEM_NONE);
        struct bounce_request request = { .bounce = model->pool };

        if (!item)
                return;
        *item = (struct item){ .model = model, .state = ITEM_WAITING, .lease = below(model, 4) == 0,
                               .session = below(model, N_SESSIONS), .high = below(model, 8) == 0, .number = ++model->number };
        request.high = item->high;
        if (below(model, 3) == 0) {
                request.wait_ms = 1 + below(model, 60);
                item->deadline = model->f.now + request.wait_ms;
                model->waited++;
        }
        if (item->lease) {
                item->slots = request.size = 1 + below(model, below(model, 4) ? 4 : most_slots(model));
                if (item->slots > most_slots(model))
                        item->slots = request.size = most_slots(model);
                item->size = item->slots * model->slot;
                item->ticket = bounce_lease(&model->sessions[item->session], &request, on_answer, item);
                return;
        }
        request.align_offset = model_random(model);
        item->offset = request.align_offset & model->device_options.min_align_mask;
        if (model->device_options.boundary && item->offset >= model->device_options.boundary)
                request.align_offset = item->offset = 0;
        item->size = request.size = random_size(model, item->offset);
        item->slots = (item->offset + item->size + model->slot - 1) / model->slot;
        if (item->slots > most_slots(model)) {
                item->state = ITEM_NONE;
                return;
        }
        item->direction = request.direction = (enum dma_direction)below(model, 3);
        item->ticket = bounce_map(&model->sessions[item->session], &request, on_answer, item);
}

static void step_unmap(struct model *model) {
        struct item *item = item_in(model, ITEM_MAPPED);
        enum dma_direction direction;
        struct failure failure;

        if (!item)
                return;
        direction = (enum dma_direction)below(model, 3);
        if (below(model, 8) == 0) {
                assert_int_equal(bounce_unmap(&model->sessions[0], item->handle, item->size + 1, NULL, &failure), -EINVAL);
                REQUIRE(model, failure.reason == REASON_wrong_size);
                return;
        }
        if (direction != item->direction) {
                assert_int_equal(bounce_unmap(&model->sessions[0], item->handle, 0, &direction, &failure), -EINVAL);
                REQUIRE(model, failure.reason == REASON_wrong_direction);
        }
        mark(model, item, index_of(model, item), -1);
        item->state = ITEM_NONE;
        assert_int_equal(bounce_unmap(&model->sessions[0], item->handle, item->size, &item->direction, NULL), 0);
        if (below(model, 16) == 0) {
                assert_true(bounce_unmap(&model->sessions[0], item->handle, 0, NULL, &failure) < 0);
                /* Whoever waited may have what takes its place. */
                REQUIRE(model, failure.reason == REASON_double_free || failure.reason == REASON_unknown_handle);
        }
}

static void step_return(struct model *model) {
        struct item *item = item_in(model, ITEM_LEASED);

        if (!item)
                return;
        mark(model, item, index_of(model, item), -1);
        item->state = ITEM_NONE;
        assert_int_equal(lease_return(&model->sessions[0], item->handle, LEASE_OF_BOUNCE, NULL), 0);
}

static void step_cancel(struct model *model) {
        struct item *item = item_in(model, ITEM_WAITING);

        if (!item)
                return;
        item->state = ITEM_NONE;
        ticket_cancel(item->ticket);
}

static void step_sync(struct model *model) {
        struct item *item = item_in(model, ITEM_MAPPED);
        uint64_t offset, size;
        bool inside;

        if (!item)
                return;
        offset = below(model, item->size + 2);
        size = below(model, item->size + 2);
        inside = offset < item->size && offset + size <= item->size;
        assert_int_equal(bounce_sync(&model->sessions[0], item->handle, offset, size, &item->direction, DMA_SYNC_ANY, NULL),
                         inside ? 0 : -EFAULT);
}

static void step_hoard(struct model *model) {
        uint64_t *hoarded = &model->hoarded[below(model, N_HOARDED)];
        struct answer to = {};

        if (!model->scarce)
                return;
        if (*hoarded) {
                assert_int_equal(coherent_free(&model->sessions[0], *hoarded, NULL), 0);
                *hoarded = 0;
                return;
        }
        coherent_alloc(&model->sessions[0], &(struct alloc_request){ .device = model->device, .high = true,
                       .size = (1 + below(model, 8)) * 65536 }, answer, &to);
        fixture_settle(&model->f);
        *hoarded = to.handle;
}

static void hoard_end(struct model *model) {
        unsigned i;

        for (i = 0; i < N_HOARDED; i++)
                if (model->hoarded[i])
                        assert_int_equal(coherent_free(&model->sessions[0], model->hoarded[i], NULL), 0);
        memset(model->hoarded, 0, sizeof(model->hoarded));
}

static void step_clock(struct model *model) {
        struct item *item;

        model->f.now += 1 + below(model, below(model, 4) ? 5 : 100);
        for (item = model->items; item < model->items + N_ITEMS; item++)
                if (item->state == ITEM_RESTING && item->until <= model->f.now) {
                        mark(model, item, index_of(model, item), -1);
                        item->state = ITEM_NONE;
                }
        broker_tick(model->f.broker);
}

/* Not the first, which has the device. */
static void step_session(struct model *model) {
        unsigned session = 1 + below(model, N_SESSIONS - 1);
        bool died = below(model, 2);
        struct item *item;

        for (item = model->items; item < model->items + N_ITEMS; item++) {
                if (item->state == ITEM_NONE || item->state == ITEM_RESTING || item->session != session)
                        continue;
                if (item->state == ITEM_WAITING) {
                        item->ended = true;
                } else if (died) {
                        item->state = ITEM_RESTING;
                        item->until = model->f.now + QUARANTINE_MS;
                } else {
                        mark(model, item, index_of(model, item), -1);
                        item->state = ITEM_NONE;
                }
        }
        if (died)
                session_abandon(model->sessions[session].session);
        else
                session_close(model->sessions[session].session);
        model->sessions[session] = fixture_session(&model->f, NULL);
}

static void pool_make(struct model *model) {
        struct bounce_options options = { .device = model->device, .slot_size = 64u << below(model, 8) };
        uint64_t unit = options.slot_size;
        struct answer to = {};

        if (model->device_options.min_align_mask >= unit)
                unit = model->device_options.min_align_mask + 1;
        options.size = unit * (1 + below(model, model->scarce ? 20 : 40));
        options.max_size = below(model, 2) ? options.size * (1 + below(model, 6)) : 0;
        bounce_create(&model->sessions[0], &options, answer, &to);
        fixture_settle(&model->f);
        model->pool = answer_handle(&to);
        model->slot = unit;
        unit = unit > 4096 ? unit : 4096;
        model->first_size = (options.size + unit - 1) / unit * unit;
        model->max_size = (options.max_size + unit - 1) / unit * unit;
        model->maps = model->high_water = 0;
        parts_learn(model);
}

static int no_mapping(const struct mapping_view *view, void *userdata) {
        return 0;
}

static void step_destroy(struct model *model) {
        struct item *item;
        unsigned i;

        for (item = model->items; item < model->items + N_ITEMS; item++)
                if (item->state == ITEM_WAITING)
                        item->ended = true;
                else
                        item->state = ITEM_NONE;
        assert_int_equal(bounce_destroy(&model->sessions[0], model->pool, true, no_mapping, NULL, NULL), 0);
        fixture_settle(&model->f);
        for (i = 0; i < model->n_told; i++)
                item_refused(model, model->told[i].item, &model->told[i].failure);
        model->n_told = 0;
        hoard_end(model);
        pool_make(model);
}

static const struct {
        const char *doing;
        unsigned weight;
        void (*step)(struct model *model);
} steps[] = {
        { "asking", 45, step_ask },       { "unmapping", 30, step_unmap },      { "returning", 10, step_return },
        { "cancelling", 4, step_cancel }, { "synchronising", 4, step_sync },    { "moving the clock", 8, step_clock },
        { "ending a session", 1, step_session }, { "hoarding", 6, step_hoard },
};

static void model_step(struct model *model) {
        /* It fills and is emptied in turn. */
        const bool filling = model->step / 300 % 2;
        unsigned i, sum = 0, at;

        for (i = 0; i < sizeof(steps) / sizeof(*steps); i++)
                sum += steps[i].weight;
        at = below(model, sum);
        for (i = 0; at >= steps[i].weight; i++)
                at -= steps[i].weight;
        model->doing = steps[i].doing;
        if (!filling || (steps[i].step != step_unmap && steps[i].step != step_return) || below(model, 2))
                steps[i].step(model);
        digest(model);
        if (below(model, 5000) == 0) {
                model->doing = "destroying the pool";
                step_destroy(model);
                digest(model);
        }
}

static void model_run(unsigned seed, unsigned n_steps) {
        static const uint64_t boundaries[] = { 0, 0, 4096, 16384, 65536 }, align_masks[] = { 0, 0, 511, 4095, 16383 };
        struct model *model = calloc(1, sizeof(*model));
        struct broker_options options;
        unsigned i;

        assert_non_null(model);
        broker_options_default(&options);
        options.quarantine_ms = QUARANTINE_MS;
        options.region_idle_ms = IDLE_MS;
        model->seed = seed;
        model->random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
        model->doing = "starting";
        model->scarce = seed % 4 == 0;
        fixture_start(&model->f, model->scarce ? "4M@0x100000000" : "64M@0x100000000", &options);
        model->sessions[0] = model->f.caller;
        for (i = 1; i < N_SESSIONS; i++)
                model->sessions[i] = fixture_session(&model->f, NULL);
        model->device_options = (struct device_options){
                .boundary = boundaries[below(model, 5)],
                .min_align_mask = align_masks[below(model, 5)],
                .max_segment = below(model, 3) ? 0 : 10000,
        };
        if (model->scarce)
                model->device_options.max_segment = 0; /* which what is hoarded would obey, too */
        model->device = fixture_open(&model->f.caller, &model->device_options);
        pool_make(model);
        for (model->step = 0; model->step < n_steps; model->step++)
                model_step(model);
        print_message("seed %u: %lu served, %lu waited, %lu timeouts, %lu full, %lu turned away, %lu parts grown\n", seed,
                      model->served, model->waited, model->timeouts, model->full, model->turned_away, model->grown);
        fixture_stop(&model->f);
        free(model);
}

static void test_a_million_random_steps_agree_with_the_model(void **state) {
        const char *text = getenv("BOUNCE_MODEL_STEPS"), *only = getenv("BOUNCE_MODEL_SEED");
        unsigned n_steps = text ? (unsigned)strtoul(text, NULL, 10) : 1000000, seed;

        for (seed = 1; seed <= N_SEEDS; seed++)
                if (!only || strtoul(only, NULL, 10) == seed)
                        model_run(seed, n_steps / N_SEEDS);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_million_random_steps_agree_with_the_model),
        };

        return cmocka_run_group_tests_name("bounce model", tests, NULL, NULL);
}
