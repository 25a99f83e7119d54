/* P5: how the arena takes a mix of sizes that lives long, beside DPDK's rte_malloc.
 *
 * Sizes are log-uniform from 64 B to 256 KiB in 512 MiB. A request that would exceed the wanted occupancy first frees
 * random blocks; one that fails frees a random block and is retried, because otherwise the mix would degenerate into
 * the small blocks that still fit. Both sides get the same seeds and take turns; every figure is a median. */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/arena.h"
#include "tests/bench/peer-dpdk.h"
#include "tests/bench/table.h"
#include "tests/lib/hugepages.h"

enum {
        MIB = 512,
        N_RUNS = 7,
        N_STEPS = 400000, /* allocations per run: at 95% everything is exchanged 25 times */
        N_LIVE_MAX = 1 << 20,
        HUGE_PAGE_MIB = 2,
};

#define TOTAL ((uint64_t)MIB << 20)
#define ARENA_BASE (UINT64_C(1) << 33) /* where a machine has its memory above 4 GiB */

/* One who allocates. 0 is no handle. */
struct contender {
        uint64_t (*alloc)(void *self, uint64_t size);
        void (*release)(void *self, uint64_t handle);
        double (*largest)(void *self); /* the largest free block in percent of what is free */
        void *self;
};

enum figure { MEAN, P999, FAILURES, OCCUPANCY, LARGEST, N_FIGURES };

struct live {
        uint64_t handle, size;
};

struct run {
        const struct contender *contender;
        uint64_t random;
        struct live *live;
        size_t n_live;
        uint64_t bytes; /* asked for and alive */
        double *samples;
        size_t n_samples, n_failed;
};

static uint64_t run_random(struct run *run) {
        run->random ^= run->random << 13;
        run->random ^= run->random >> 7;
        run->random ^= run->random << 17;
        return run->random * UINT64_C(0x2545f4914f6cdd1d);
}

static uint64_t run_size(struct run *run) {
        return (uint64_t)exp2(6 + 12 * ((double)(run_random(run) >> 11) * 0x1p-53));
}

static void run_sample(struct run *run, uint64_t start) {
        run->samples[run->n_samples++] = (double)(table_now() - start);
}

static void run_release_any(struct run *run) {
        size_t i = run_random(run) % run->n_live;
        struct live victim = run->live[i];
        uint64_t start;

        run->live[i] = run->live[--run->n_live];
        run->bytes -= victim.size;
        start = table_now();
        run->contender->release(run->contender->self, victim.handle);
        run_sample(run, start);
}

static void run_alloc(struct run *run, uint64_t size) {
        uint64_t start, handle;

        for (;;) {
                start = table_now();
                handle = run->contender->alloc(run->contender->self, size);
                run_sample(run, start);
                if (handle)
                        break;
                run->n_failed++;
                run_release_any(run);
        }
        run->live[run->n_live++] = (struct live){ handle, size };
        run->bytes += size;
}

/* The figures are of the second half, when the memory has long been full and the mix has been exchanged many times. */
static void run_measure(const struct contender *contender, unsigned seed, double occupancy, double *samples,
                        struct live *live, double figures[N_FIGURES]) {
        struct run run = { .contender = contender, .random = seed * UINT64_C(0x9e3779b97f4a7c15), .live = live,
                           .samples = samples };
        uint64_t limit = (uint64_t)(occupancy * (double)TOTAL), size;
        double sum_occupancy = 0, sum = 0;
        size_t i, n_half = N_STEPS / 2;

        for (i = 0; i < N_STEPS; i++) {
                if (i == n_half)
                        run.n_samples = run.n_failed = 0;
                size = run_size(&run);
                while (run.bytes + size > limit)
                        run_release_any(&run);
                run_alloc(&run, size);
                if (i >= n_half)
                        sum_occupancy += (double)run.bytes / (double)TOTAL;
        }
        for (i = 0; i < run.n_samples; i++)
                sum += run.samples[i];
        figures[MEAN] = sum / (double)run.n_samples;
        figures[P999] = table_percentile(run.samples, run.n_samples, 0.999);
        figures[FAILURES] = 100 * (double)run.n_failed / (double)(n_half + run.n_failed);
        figures[OCCUPANCY] = 100 * sum_occupancy / (double)n_half;
        figures[LARGEST] = contender->largest(contender->self);
        while (run.n_live)
                contender->release(contender->self, run.live[--run.n_live].handle);
}

/* ---- the two sides ---- */

static uint64_t arena_contender_alloc(void *self, uint64_t size) {
        struct arena_request request = { .size = size, .limit = UINT64_MAX };
        struct arena_block block;

        return arena_alloc(self, &request, &block) < 0 ? 0 : (uint64_t)block.number + 1;
}

static void arena_contender_release(void *self, uint64_t handle) {
        arena_release(self, (uint32_t)(handle - 1), NULL);
}

static double arena_contender_largest(void *self) {
        struct arena_usage usage;

        arena_usage(self, &usage);
        return 100 * (double)usage.largest_free / (double)usage.free_bytes;
}

static uint64_t dpdk_contender_alloc(void *self, uint64_t size) {
        return (uintptr_t)peer_dpdk_alloc(size);
}

static void dpdk_contender_release(void *self, uint64_t handle) {
        peer_dpdk_release((void *)(uintptr_t)handle);
}

static double dpdk_contender_largest(void *self) {
        uint64_t total, free_bytes, largest;

        peer_dpdk_usage(&total, &free_bytes, &largest);
        return 100 * (double)largest / (double)free_bytes;
}

static const struct contender arena_contender = {
        arena_contender_alloc, arena_contender_release, arena_contender_largest, NULL
};
static const struct contender dpdk_contender = {
        dpdk_contender_alloc, dpdk_contender_release, dpdk_contender_largest, NULL
};

/* DPDK gets as many pages as hold the heap; it is missing where it cannot have them. */
static bool dpdk_start(const char *program) {
        uint64_t total, free_bytes, largest;
        int r = test_hugepages_reserve(MIB / HUGE_PAGE_MIB);

        if (r == 0)
                r = peer_dpdk_start(program, MIB);
        if (r < 0) {
                fprintf(stderr, "rte_malloc is missing: %s\n", r == -ENOTSUP ? "built without libdpdk" : strerror(-r));
                return false;
        }
        peer_dpdk_usage(&total, &free_bytes, &largest);
        if (total != TOTAL)
                fprintf(stderr, "rte_malloc has %llu MiB instead of %u\n", (unsigned long long)total >> 20, MIB);
        return true;
}

/* ---- the table ---- */

struct goal {
        unsigned percent;
        enum figure figure;
        const char *what, *unit, *target;
        double most, least; /* of the ratio for times, of the figure itself for the rest */
};

/* Lines without a target explain the others. */
static const struct goal goals[] = {
        { 50, MEAN, "an alloc or free, mean", "ns", "<= 0.15x", 0.15, 0 },
        { 50, P999, "an alloc or free, p99.9", "ns", "<= 0.15x", 0.15, 0 },
        { 50, FAILURES, "calls that failed", "%", NULL, 0, 0 },
        { 50, LARGEST, "largest free block of what is free", "%", NULL, 0, 0 },
        { 90, MEAN, "an alloc or free, mean", "ns", NULL, 0, 0 },
        { 90, P999, "an alloc or free, p99.9", "ns", NULL, 0, 0 },
        { 90, OCCUPANCY, "occupancy reached", "%", ">= 89.9%", INFINITY, 89.9 },
        { 90, FAILURES, "calls that failed", "%", "none", 0, 0 },
        { 90, LARGEST, "largest free block of what is free", "%", ">= 35%", INFINITY, 35 },
        { 95, MEAN, "an alloc or free, mean", "ns", NULL, 0, 0 },
        { 95, P999, "an alloc or free, p99.9", "ns", NULL, 0, 0 },
        { 95, OCCUPANCY, "occupancy reached", "%", ">= 94.5%", INFINITY, 94.5 },
        { 95, FAILURES, "calls that failed", "%", NULL, 0, 0 },
        { 95, LARGEST, "largest free block of what is free", "%", NULL, 0, 0 },
};

static void print_goal(const struct goal *goal, double peer, double ours) {
        char what[64];
        enum table_met met;

        snprintf(what, sizeof(what), "%u%%: %s", goal->percent, goal->what);
        if (goal->figure == MEAN || goal->figure == P999)
                met = table_met_ratio(ours, peer, goal->most);
        else
                met = ours >= goal->least && ours <= goal->most ? TABLE_MET : TABLE_NOT_MET;
        table_print(&(struct table_row){ "P5", what, "rte_malloc", peer, ours, goal->unit, goal->target, met });
}

static void measure_occupancy(unsigned percent, bool has_dpdk, double *samples, struct live *live) {
        double peer[N_FIGURES][N_RUNS], ours[N_FIGURES][N_RUNS], one[N_FIGURES];
        unsigned run, i;

        for (run = 0; run < N_RUNS; run++) {
                struct contender ours_now = arena_contender;
                struct arena *self;

                if (arena_new(64, &self) < 0 || arena_add(self, ARENA_BASE, TOTAL, 0) < 0)
                        exit(1);
                ours_now.self = self;
                run_measure(&ours_now, run + 1, percent / 100.0, samples, live, one);
                for (i = 0; i < N_FIGURES; i++)
                        ours[i][run] = one[i];
                arena_free(self);
                if (has_dpdk)
                        run_measure(&dpdk_contender, run + 1, percent / 100.0, samples, live, one);
                for (i = 0; i < N_FIGURES; i++)
                        peer[i][run] = has_dpdk ? one[i] : NAN;
        }
        for (i = 0; i < sizeof(goals) / sizeof(goals[0]); i++)
                if (goals[i].percent == percent)
                        print_goal(&goals[i], table_median(peer[goals[i].figure], N_RUNS),
                                   table_median(ours[goals[i].figure], N_RUNS));
}

int main(int argc, char **argv) {
        /* A failing peer takes many calls for one allocation. */
        double *samples = malloc(sizeof(*samples) * N_STEPS * 64);
        struct live *live = malloc(sizeof(*live) * N_LIVE_MAX);
        bool has_dpdk = dpdk_start(argv[0]);

        if (!samples || !live)
                return 1;
        measure_occupancy(50, has_dpdk, samples, live);
        measure_occupancy(90, has_dpdk, samples, live);
        measure_occupancy(95, has_dpdk, samples, live);
        free(live);
        free(samples);
        return 0;
}
