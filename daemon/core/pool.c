/* Pools: blocks of one size, cut from slabs. */
#include "daemon/core/objects.h"

void pools_end(struct device *device) {
}

void pools_end_session(struct session *session, bool died) {
}

bool pools_reclaim(struct broker *broker, const struct request *request) {
        return false;
}

void pools_tick(struct broker *broker, uint64_t now) {
}

uint64_t pools_deadline(const struct broker *broker) {
        return UINT64_MAX;
}

void check_pools(struct check *check, const struct device *device, struct quota *counted) {
}
