#include "daemon/rpc/latency.h"

#define DECADE(one) (one), (one) * 5 / 2, (one) * 5

const uint64_t latency_bounds[LATENCY_BOUNDS] = {
        DECADE(UINT64_C(1000)),      DECADE(UINT64_C(10000)),      DECADE(UINT64_C(100000)),      DECADE(UINT64_C(1000000)),
        DECADE(UINT64_C(10000000)),  DECADE(UINT64_C(100000000)),  DECADE(UINT64_C(1000000000)),  UINT64_C(10000000000),
};

/* Values below 2 * STEPS have a bucket each; above, every power of two is divided into STEPS. */
static unsigned bucket_of(uint64_t value) {
        unsigned power, bucket;

        if (value < 2 * LATENCY_STEPS)
                return (unsigned)value;
        power = 63 - (unsigned)__builtin_clzll(value);
        bucket = (power - 2) * LATENCY_STEPS + (unsigned)(value >> (power - 3)) % LATENCY_STEPS;
        return bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1;
}

/* The greatest value that falls into a bucket. */
static uint64_t bucket_top(unsigned bucket) {
        unsigned power = bucket / LATENCY_STEPS + 2;

        if (bucket < 2 * LATENCY_STEPS)
                return bucket;
        return (((uint64_t)LATENCY_STEPS + bucket % LATENCY_STEPS + 1) << (power - 3)) - 1;
}

void latency_add(struct latency *latency, uint64_t nanoseconds) {
        unsigned bound = 0;

        latency->count++;
        latency->sum += nanoseconds;
        if (nanoseconds > latency->max)
                latency->max = nanoseconds;
        latency->buckets[bucket_of(nanoseconds)]++;
        while (bound < LATENCY_BOUNDS && nanoseconds > latency_bounds[bound])
                bound++;
        if (bound < LATENCY_BOUNDS)
                latency->within[bound]++;
}

uint64_t latency_quantile(const struct latency *latency, unsigned permille) {
        uint64_t rank = (latency->count * permille + 999) / 1000, seen = 0;

        if (!latency->count)
                return 0;
        for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
                seen += latency->buckets[i];
                if (seen >= rank)
                        return bucket_top(i) < latency->max ? bucket_top(i) : latency->max;
        }
        return latency->max;
}
