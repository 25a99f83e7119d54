#include "daemon/rpc/rate.h"

enum { SECOND_MS = 1000, CALL = 1000 };

/* Beyond this nothing could be counted, and nobody could call so often. */
#define LIMIT_MAX (UINT64_C(1) << 40)

static uint64_t usable(uint64_t limit) {
        return limit > LIMIT_MAX ? RATE_UNLIMITED : limit;
}

static void fill(struct rate *rate, uint64_t now_ms) {
        uint64_t passed = now_ms - rate->at_ms, most = rate->limit * CALL;

        if (!passed)
                return;
        rate->at_ms = now_ms;
        if (passed >= SECOND_MS || rate->credit + passed * rate->limit > most)
                rate->credit = most;
        else
                rate->credit += passed * rate->limit;
}

void rate_init(struct rate *rate, uint64_t limit, uint64_t now_ms) {
        *rate = (struct rate){ .limit = usable(limit), .at_ms = now_ms };
        if (rate->limit != RATE_UNLIMITED)
                rate->credit = rate->limit * CALL;
}

void rate_set_limit(struct rate *rate, uint64_t limit, uint64_t now_ms) {
        uint64_t used, most;

        limit = usable(limit);
        if (rate->limit == RATE_UNLIMITED || limit == RATE_UNLIMITED) {
                if (rate->limit != limit)
                        rate_init(rate, limit, now_ms);
                return;
        }
        fill(rate, now_ms);
        used = rate->limit * CALL - rate->credit;
        most = limit * CALL;
        rate->limit = limit;
        rate->credit = used < most ? most - used : 0;
}

bool rate_take(struct rate *rate, uint64_t now_ms) {
        if (rate->limit == RATE_UNLIMITED)
                return true;
        fill(rate, now_ms);
        if (rate->credit < CALL)
                return false;
        rate->credit -= CALL;
        return true;
}

uint64_t rate_in_use(struct rate *rate, uint64_t now_ms) {
        if (rate->limit == RATE_UNLIMITED)
                return 0;
        fill(rate, now_ms);
        return (rate->limit * CALL - rate->credit + CALL - 1) / CALL;
}

uint64_t rate_retry_ms(const struct rate *rate) {
        if (!rate->limit)
                return UINT64_MAX;
        return rate->credit >= CALL ? 0 : (CALL - rate->credit + rate->limit - 1) / rate->limit;
}
