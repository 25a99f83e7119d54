/* How many calls there may be in a second: a bucket that holds one second's worth and fills as time goes by, so that a
 * burst of that many is fine, and no more than twice as many fit into any one second. Embedded; it knows no clock: times
 * are in milliseconds of the caller's, and do not go back. */
#ifndef DMAB_RPC_RATE_H
#define DMAB_RPC_RATE_H

#include <stdbool.h>
#include <stdint.h>

#define RATE_UNLIMITED UINT64_MAX

struct rate {
        uint64_t limit;  /* calls per second */
        uint64_t credit; /* thousandths of a call, for at most `limit` calls */
        uint64_t at_ms;  /* when that was */
};

/* Full. */
void rate_init(struct rate *rate, uint64_t limit, uint64_t now_ms);
/* What has been used stays used. */
void rate_set_limit(struct rate *rate, uint64_t limit, uint64_t now_ms);
/* One call. false: it is one too many, and has not been counted. */
bool rate_take(struct rate *rate, uint64_t now_ms);
/* Calls of the last second's worth that are used; 0 if there is no limit. */
uint64_t rate_in_use(struct rate *rate, uint64_t now_ms);
/* After which time one call will be allowed again; UINT64_MAX: never. */
uint64_t rate_retry_ms(const struct rate *rate);

#endif
