/* P6: finding room for bounced mappings, beside the search of the kernel's SWIOTLB. The copying is left out.
 *
 * Sizes are log-uniform from 2 KiB to 256 KiB in 64 MiB of slots of 2 KiB. A map that would exceed the wanted occupancy
 * first unmaps random ones; one that fails is timed by itself, then a random one is unmapped and it is tried again. What
 * failed is not in the time of a pair, and neither is the loop itself, which is timed with a side that does nothing. Both
 * sides get the same seeds and take turns; every figure is a median. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/slots.h"
#include "tests/bench/peer-swiotlb.h"
#include "tests/bench/table.h"

enum {
        SLOT_SIZE = 2048,
        N_SLOTS = 64 << 20 >> 11,
        N_AREAS_MOST = 2,
        N_RUNS = 7,
        N_STEPS = 160000,
        N_STEPS_FULL = 20000, /* above half: half of the peer's maps fail then, and take 100 times as long */
        N_LIVE_MOST = N_SLOTS,
        N_FAILS = 2, /* a failing map is timed over so many */
};

/* One who finds room. A handle is a slot; -1 is none. */
struct contender {
        long (*map)(void *self, uintptr_t original, size_t size);
        void (*unmap)(void *self, long handle);
        void *self;
};

enum figure { PAIR, FAILED, FAILURES, OCCUPANCY, N_FIGURES };

struct live {
        long handle;
        uint32_t slots;
};

struct step {
        uint32_t size, victim;
};

static struct live lives[N_LIVE_MOST];
static struct step steps[N_STEPS];

static void draw_steps(unsigned seed) {
        uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15);

        for (size_t i = 0; i < N_STEPS; i++) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                steps[i].size = (uint32_t)exp2(11 + 7 * ((double)(random >> 11) * 0x1p-53));
                steps[i].victim = (uint32_t)((random * UINT64_C(0x2545f4914f6cdd1d)) >> 32);
        }
}

struct run {
        const struct contender *contender;
        size_t n_live, used, limit;
        uint64_t failing_ns; /* in all, those that only timed it included */
        size_t n_failed, n_timed;
};

static void unmap_any(struct run *run, uint32_t random) {
        size_t i = (uint64_t)random * run->n_live >> 32;
        struct live victim = lives[i];

        lives[i] = lives[--run->n_live];
        run->used -= victim.slots;
        run->contender->unmap(run->contender->self, victim.handle);
}

/* It has just failed: how long does that take? Counted for the one that was not timed, too. */
static void time_failure(struct run *run, uintptr_t original, size_t size) {
        uint64_t start = table_now(), took;

        for (size_t i = 0; i < N_FAILS; i++)
                if (run->contender->map(run->contender->self, original, size) >= 0)
                        exit(1);
        took = table_now() - start;
        run->failing_ns += took + took / N_FAILS;
        run->n_timed += N_FAILS + 1;
        run->n_failed++;
}

static void exchange(struct run *run, struct step step) {
        uint32_t n = (step.size + SLOT_SIZE - 1) / SLOT_SIZE, random = step.victim;
        uintptr_t original = (uintptr_t)step.victim << 12;
        long handle;

        while (run->used + n > run->limit)
                unmap_any(run, random = random * 2654435761u + 1);
        while ((handle = run->contender->map(run->contender->self, original, step.size)) < 0) {
                time_failure(run, original, step.size);
                unmap_any(run, random = random * 2654435761u + 1);
        }
        lives[run->n_live++] = (struct live){ handle, n };
        run->used += n;
}

/* The figures are of the second half, when everything has been exchanged many times. */
static void measure(const struct contender *contender, double occupancy, double figures[N_FIGURES]) {
        struct run run = { .contender = contender, .limit = (size_t)(occupancy * N_SLOTS) };
        size_t n_steps = occupancy > 0.5 ? N_STEPS_FULL : N_STEPS, n_half = n_steps / 2, i = 0;
        double sum_used = 0;
        uint64_t start;

        for (; i < n_half; i++)
                exchange(&run, steps[i]);
        run.failing_ns = run.n_failed = run.n_timed = 0;
        start = table_now();
        for (; i < n_steps; i++) {
                exchange(&run, steps[i]);
                sum_used += (double)run.used;
        }
        figures[PAIR] = ((double)(table_now() - start) - (double)run.failing_ns) / (double)(n_steps - n_half);
        figures[FAILED] = run.n_timed ? (double)run.failing_ns / (double)run.n_timed : NAN;
        figures[FAILURES] = 100 * (double)run.n_failed / (double)(n_steps - n_half + run.n_failed);
        figures[OCCUPANCY] = 100 * sum_used / (double)(n_steps - n_half) / N_SLOTS;
        while (run.n_live)
                contender->unmap(contender->self, lives[--run.n_live].handle);
}

/* ---- the two sides, and none ---- */

static long nothing_map(void *self, uintptr_t original, size_t size) {
        return 0;
}

static void nothing_unmap(void *self, long handle) {
}

static long peer_map(void *self, uintptr_t original, size_t size) {
        return peer_swiotlb_map(self, 0, original, size);
}

static void peer_unmap(void *self, long handle) {
        peer_swiotlb_unmap(self, handle);
}

/* With a record for each mapping, as bounce.c keeps it: the peer writes its own too. */
struct ours {
        size_t n_areas, area_slots;
        struct ours_area {
                struct slots_lock lock;
                struct slots *slots;
        } __attribute__((aligned(64))) areas[N_AREAS_MOST];
        struct record {
                uintptr_t original;
                uint64_t size;
        } *records;
};

static long ours_map(void *self, uintptr_t original, size_t size) {
        struct ours *ours = self;
        size_t n = (size + SLOT_SIZE - 1) / SLOT_SIZE, first;

        for (size_t i = 0; i < ours->n_areas; i++) {
                struct ours_area *area = &ours->areas[i];
                bool found;

                slots_lock(&area->lock);
                found = slots_take(area->slots, n, &first);
                if (found)
                        ours->records[i * ours->area_slots + first] = (struct record){ original, size };
                slots_unlock(&area->lock);
                if (found)
                        return (long)(i * ours->area_slots + first);
        }
        return -1;
}

static void ours_unmap(void *self, long handle) {
        struct ours *ours = self;
        struct ours_area *area = &ours->areas[(size_t)handle / ours->area_slots];
        size_t first = (size_t)handle % ours->area_slots;

        slots_lock(&area->lock);
        if (!slots_is_run(area->slots, first) || !ours->records[handle].size)
                exit(1);
        slots_give(area->slots, first);
        slots_unlock(&area->lock);
}

static void ours_start(struct ours *ours, size_t n_areas) {
        *ours = (struct ours){ .n_areas = n_areas, .area_slots = N_SLOTS / n_areas };
        ours->records = calloc(N_SLOTS, sizeof(*ours->records));
        if (!ours->records)
                exit(1);
        for (size_t i = 0; i < n_areas; i++)
                if (slots_new(ours->area_slots, 0, 0, &ours->areas[i].slots))
                        exit(1);
}

static void ours_end(struct ours *ours) {
        for (size_t i = 0; i < ours->n_areas; i++)
                slots_free(ours->areas[i].slots);
        free(ours->records);
}

/* ---- the table ---- */

struct goal {
        unsigned percent, n_areas;
        enum figure figure;
        const char *what, *unit, *target;
        double most, least; /* of the ratio for times, of the figure itself for the rest */
};

/* Lines without a target explain the others. A peer that does not get to an occupancy stays at its own ceiling. */
static const struct goal goals[] = {
        { 50, 1, PAIR, "a map and an unmap", "ns", "<= 0.35x", 0.35, 0 },
        { 50, 2, PAIR, "a map and an unmap", "ns", "<= 0.35x", 0.35, 0 },
        { 75, 1, PAIR, "a map and an unmap", "ns", "<= 0.1x", 0.1, 0 },
        { 75, 1, FAILURES, "maps that fail", "%", NULL, 0, 0 },
        { 75, 1, OCCUPANCY, "occupancy reached", "%", NULL, 0, 0 },
        { 90, 1, PAIR, "a map and an unmap", "ns", "<= 0.1x", 0.1, 0 },
        { 90, 1, FAILURES, "maps that fail", "%", NULL, 0, 0 },
        { 90, 1, OCCUPANCY, "occupancy reached", "%", "> 85%", INFINITY, 85 },
        { 100, 1, PAIR, "a map and an unmap", "ns", "<= 0.1x", 0.1, 0 },
        { 100, 1, FAILED, "a map that fails", "ns", "<= 0.03x", 0.03, 0 },
        { 100, 1, OCCUPANCY, "occupancy reached", "%", NULL, 0, 0 },
        { 100, 2, PAIR, "a map and an unmap", "ns", "<= 0.1x", 0.1, 0 },
        { 100, 2, FAILED, "a map that fails", "ns", "<= 0.03x", 0.03, 0 },
};

static void print_goal(const struct goal *goal, double peer, double ours) {
        enum table_met met;
        char what[64];

        snprintf(what, sizeof(what), "%u%%, %u area%s: %s", goal->percent, goal->n_areas, goal->n_areas == 1 ? "" : "s",
                 goal->what);
        if (goal->figure == PAIR || goal->figure == FAILED)
                met = table_met_ratio(ours, peer, goal->most);
        else
                met = ours > goal->least && ours <= goal->most ? TABLE_MET : TABLE_NOT_MET;
        table_print(&(struct table_row){ "P6", what, "swiotlb's search", peer, ours, goal->unit, goal->target, met });
}

static void measure_occupancy(unsigned percent, unsigned n_areas) {
        double peer[N_FIGURES][N_RUNS], ours[N_FIGURES][N_RUNS], one[N_FIGURES], loop;

        for (unsigned run = 0; run < N_RUNS; run++) {
                struct peer_swiotlb *pool = peer_swiotlb_new(N_SLOTS, n_areas);
                struct ours self;

                if (!pool)
                        exit(1);
                draw_steps(run + 1);
                measure(&(struct contender){ nothing_map, nothing_unmap, NULL }, percent / 100.0, one);
                loop = one[PAIR];
                ours_start(&self, n_areas);
                measure(&(struct contender){ ours_map, ours_unmap, &self }, percent / 100.0, one);
                for (unsigned i = 0; i < N_FIGURES; i++)
                        ours[i][run] = one[i] - (i == PAIR ? loop : 0);
                ours_end(&self);
                measure(&(struct contender){ peer_map, peer_unmap, pool }, percent / 100.0, one);
                for (unsigned i = 0; i < N_FIGURES; i++)
                        peer[i][run] = one[i] - (i == PAIR ? loop : 0);
                peer_swiotlb_free(pool);
        }
        for (size_t i = 0; i < sizeof(goals) / sizeof(goals[0]); i++)
                if (goals[i].percent == percent && goals[i].n_areas == n_areas)
                        print_goal(&goals[i], table_median(peer[goals[i].figure], N_RUNS),
                                   table_median(ours[goals[i].figure], N_RUNS));
}

int main(void) {
        measure_occupancy(50, 1);
        measure_occupancy(50, 2);
        measure_occupancy(75, 1);
        measure_occupancy(90, 1);
        measure_occupancy(100, 1);
        measure_occupancy(100, 2);
        return 0;
}
