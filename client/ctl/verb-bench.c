/* bench: how long a round trip takes. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "client/ctl/show.h"
#include "client/ctl/verbs.h"

enum { COUNT_DEFAULT = 2000, COUNT_MAX = 10000000, WARM_UP = 100, SIZE_DEFAULT = 4096 };

static const struct ctl_option options[] = {
        { "--count", "N", "how many of each to measure; 2000 unless given" },
        { "--size", "SIZE", "bytes of each allocation; 4096 unless given" },
        { NULL },
};

struct bench {
        struct ctl *ctl;
        dmab_device_t *device;
        uint64_t count, size;
        uint64_t *nanoseconds; /* of each operation */
};

static uint64_t now(void) {
        struct timespec time;

        clock_gettime(CLOCK_MONOTONIC, &time);
        return (uint64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int ping(const struct bench *bench) {
        return dmab_call(bench->ctl->dmab, "broker.ping", NULL, NULL);
}

static int alloc_and_free(const struct bench *bench) {
        dmab_addr_t dma;
        void *vaddr;
        int r = dmab_alloc_coherent(bench->device, bench->size, DMAB_NOWAIT, &vaddr, &dma);

        return r ? r : dmab_free_coherent(bench->device, bench->size, vaddr, dma);
}

static int compare(const void *left, const void *right) {
        const uint64_t *l = left, *r = right;

        return *l < *r ? -1 : *l > *r;
}

static int measure(const struct bench *bench, const char *name, int (*operation)(const struct bench *), json_t *rows) {
        uint64_t begin = 0, total;

        for (uint64_t i = 0; i < WARM_UP + bench->count; i++) {
                uint64_t start = now();
                int r = operation(bench);

                if (r)
                        return r;
                if (i < WARM_UP)
                        continue;
                if (i == WARM_UP)
                        begin = start;
                bench->nanoseconds[i - WARM_UP] = now() - start;
        }
        total = now() - begin;
        qsort(bench->nanoseconds, bench->count, sizeof(uint64_t), compare);
        json_array_append_new(rows,
                              json_pack("{s:s, s:I, s:f, s:f, s:f, s:I}", "operation", name, "count",
                                        (json_int_t)bench->count, "p50_us", bench->nanoseconds[bench->count / 2] / 1e3,
                                        "p99_us", bench->nanoseconds[bench->count - 1 - bench->count / 100] / 1e3,
                                        "max_us", bench->nanoseconds[bench->count - 1] / 1e3, "per_second",
                                        (json_int_t)(bench->count * 1e9 / (total ? total : 1))));
        return 0;
}

/* One allocation is kept meanwhile, so that its region stays mapped and round trips are what is measured. */
static int measure_all(struct bench *bench, json_t *rows) {
        struct dmab_device_options device = DMAB_DEVICE_OPTIONS_INIT;
        dmab_addr_t dma;
        void *vaddr;
        int r;

        device.mask = DMAB_MASK(64);
        r = dmab_device_open(bench->ctl->dmab, "dmabrokerctl-bench", &device, &bench->device);
        if (r)
                return r;
        r = dmab_alloc_coherent(bench->device, bench->size, DMAB_NOWAIT, &vaddr, &dma);
        if (!r)
                r = measure(bench, "ping", ping, rows);
        if (!r)
                r = measure(bench, "alloc+free", alloc_and_free, rows);
        if (!r)
                r = dmab_device_close_force(bench->device);
        return r;
}

static enum ctl_status run_bench(struct ctl *ctl) {
        static const struct show_column columns[] = {
                { "OPERATION", "operation" },        { "COUNT", "count", SHOW_NUMBER },
                { "P50-US", "p50_us", SHOW_NUMBER }, { "P99-US", "p99_us", SHOW_NUMBER },
                { "MAX-US", "max_us", SHOW_NUMBER }, { "PER-SECOND", "per_second", SHOW_NUMBER },
        };
        struct bench bench = { .ctl = ctl, .count = COUNT_DEFAULT, .size = SIZE_DEFAULT };
        json_t *rows, *result;
        enum ctl_status status = CTL_OK;

        if (ctl_has(ctl, "--count"))
                status = ctl_parse_uint(ctl, "--count", ctl_value(ctl, "--count"), &bench.count);
        if (status == CTL_OK && (!bench.count || bench.count > COUNT_MAX))
                status = ctl_misuse(ctl, "--count must be from 1 to %d", COUNT_MAX);
        if (status == CTL_OK && ctl_has(ctl, "--size"))
                status = ctl_parse_size(ctl, "--size", ctl_value(ctl, "--size"), &bench.size);
        if (status == CTL_OK)
                status = ctl_connect(ctl);
        if (status != CTL_OK)
                return status;
        rows = json_array();
        bench.nanoseconds = calloc(bench.count, sizeof(uint64_t));
        if (!bench.nanoseconds) {
                fprintf(stderr, "dmabrokerctl: there is not enough memory for %llu measurements\n",
                        (unsigned long long)bench.count);
                status = CTL_FAILURE;
        } else if (measure_all(&bench, rows)) {
                status = ctl_complain(ctl);
        } else if (ctl->json) {
                result = json_pack("{s:O}", "operations", rows);
                ctl_print_json(result);
                json_decref(result);
        } else {
                show_table(rows, columns, sizeof(columns) / sizeof(*columns));
        }
        free(bench.nanoseconds);
        json_decref(rows);
        return status;
}

const struct ctl_verb verb_bench = {
        .name = "bench",
        .operands = "",
        .summary = "measure round trips to the daemon",
        .doc = "One client, one call at a time: broker.ping, and an allocation with its free through the library. "
               "Microseconds.",
        .options = options,
        .run = run_bench,
};
