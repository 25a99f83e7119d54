/* Mappings: what a device may reach at this moment, other than its own coherent memory. */
#include "daemon/core/objects.h"

void mappings_end(struct device *device) {
}

void mappings_end_session(struct session *session, bool died) {
}

void check_mappings(struct check *check, const struct device *device, struct quota *counted) {
}
