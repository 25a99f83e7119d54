/* How long calls took: a histogram whose buckets grow with the value, so that each quantile is known to an eighth, and
 * beside it one whose few bounds are round in decimal, for those who want cumulative counts. */
#ifndef DMAB_RPC_LATENCY_H
#define DMAB_RPC_LATENCY_H

#include <stdint.h>

enum { LATENCY_STEPS = 8, LATENCY_BUCKETS = 40 * LATENCY_STEPS, LATENCY_BOUNDS = 22 };

/* Ascending, in nanoseconds: 1, 2.5 and 5 of every power of ten from 1 us to 10 s. */
extern const uint64_t latency_bounds[LATENCY_BOUNDS];

struct latency {
        uint64_t count, sum, max; /* nanoseconds */
        uint32_t buckets[LATENCY_BUCKETS];
        uint64_t within[LATENCY_BOUNDS]; /* no more than this bound, but more than the one before */
};

void latency_add(struct latency *latency, uint64_t nanoseconds);
/* The value that `permille` of all calls did not exceed, in nanoseconds. 0 when there was none. */
uint64_t latency_quantile(const struct latency *latency, unsigned permille);

#endif
