/* Bounce pools: runs of slots, through which clients copy. */
#include "daemon/core/objects.h"

void bounces_end(struct device *device) {
}

void bounces_tick(struct broker *broker, uint64_t now) {
}

uint64_t bounces_deadline(const struct broker *broker) {
        return UINT64_MAX;
}

void check_bounces(struct check *check, const struct device *device, struct quota *counted) {
}
