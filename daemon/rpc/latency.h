/* How long calls took: a histogram whose buckets grow with the value, so that each quantile is known to an eighth. */
#ifndef DMAB_RPC_LATENCY_H
#define DMAB_RPC_LATENCY_H

#include <stdint.h>

enum { LATENCY_STEPS = 8, LATENCY_BUCKETS = 40 * LATENCY_STEPS };

struct latency {
        uint64_t count, sum, max; /* nanoseconds */
        uint32_t buckets[LATENCY_BUCKETS];
};

void latency_add(struct latency *latency, uint64_t nanoseconds);
/* The value that `permille` of all calls did not exceed, in nanoseconds. 0 when there was none. */
uint64_t latency_quantile(const struct latency *latency, unsigned permille);

#endif
