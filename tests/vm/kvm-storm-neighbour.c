/* A guest that works while all that befalls another one. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tests/vm/kvm-storm.h"

enum { BUCKETS = 240, PER_OCTAVE = 8, HELD = 65536 };

static struct {
        uint64_t ops, bytes, worst_us, histogram[BUCKETS];
} seen[STORM_WEATHERS];

void storm_neighbour_begin(void) {
        storm_must(storm_neighbour, "connect");
        kvm_attach(storm_neighbour);
        storm_must(storm_neighbour, "alloc %d", HELD);
        storm_must(storm_neighbour, "fill 1");
        storm_must(storm_neighbour, "work");
}

void storm_neighbour_report(enum storm_weather weather, unsigned more) {
        json_t *report, *pair;
        const char *answer;
        size_t i;

        storm_must(storm_neighbour, "verify 1");
        answer = storm_must(storm_neighbour, "report %u", more);
        report = json_loads(answer, JSON_DISABLE_EOF_CHECK, NULL);
        if (!report || kvm_number(report, "errors"))
                kvm_give_up("the neighbour: %s", answer);
        seen[weather].ops += (uint64_t)kvm_number(report, "ops");
        seen[weather].bytes += (uint64_t)kvm_number(report, "bytes");
        if ((uint64_t)kvm_number(report, "worst_us") > seen[weather].worst_us)
                seen[weather].worst_us = (uint64_t)kvm_number(report, "worst_us");
        json_array_foreach(json_object_get(report, "histogram"), i, pair)
                seen[weather].histogram[json_integer_value(json_array_get(pair, 0)) % BUCKETS] +=
                        (uint64_t)json_integer_value(json_array_get(pair, 1));
        json_decref(report);
}

/* The least of the bucket. */
static uint64_t us_of(unsigned bucket) {
        unsigned octave = bucket / PER_OCTAVE, part = bucket % PER_OCTAVE;

        return octave < 3 ? part : (uint64_t)(PER_OCTAVE + part) << (octave - 3);
}

static uint64_t percentile(enum storm_weather weather, unsigned permille) {
        uint64_t below = 0;
        unsigned i = 0;

        for (; i < BUCKETS - 1; i++) {
                below += seen[weather].histogram[i];
                if (below * 1000 > seen[weather].ops * permille)
                        break;
        }
        return us_of(i);
}

void storm_neighbour_tell(void) {
        static const char *const weathers[] = { "while it is quiet", "in the storm", "in rounds in which the daemon dies" };

        for (int i = 0; i < STORM_WEATHERS; i++)
                if (seen[i].ops)
                        printf("the neighbour %s: %" PRIu64 " operations, %" PRIu64 " bytes written and compared, 0 errors;"
                               " p50 %" PRIu64 " us, p99 %" PRIu64 " us, worst %" PRIu64 " us\n",
                               weathers[i], seen[i].ops, seen[i].bytes, percentile(i, 500), percentile(i, 990),
                               seen[i].worst_us);
        printf("the neighbour's p99 in the storm is %.2f times that of quiet\n",
               (double)percentile(STORM_RAGES, 990) / (double)(percentile(STORM_QUIET, 990) + !percentile(STORM_QUIET, 990)));
}
