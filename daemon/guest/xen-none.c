/* A build without Xen. */
#include <errno.h>

#include "daemon/guest/guest.h"

const char *xen_unavailable(void) {
        return "this build goes without Xen";
}

int xen_tracker_new(uv_loop_t *loop, const struct xen_options *options, const struct xen_listener *ops, void *userdata,
                    struct xen_tracker **ret) {
        return -ENOPKG;
}

void xen_tracker_close(struct xen_tracker *tracker, void (*closed)(void *userdata)) {
}

void xen_tracker_hurry(struct xen_tracker *tracker) {
}

void xen_tracker_repeat(struct xen_tracker *tracker) {
}

int xen_channel_new(uv_loop_t *loop, uint32_t domid, const char *uuid, const char *name, const struct xen_channel_listener *ops,
                    void *userdata, struct xen_channel **ret) {
        return -ENOPKG;
}

void xen_channel_close(struct xen_channel *channel, void (*closed)(void *userdata), void *userdata) {
}

/* Of guests that a daemon with Xen has left. They have nothing, since their memory is not to be had either. */
const struct window_way window_xen_way = { .prefix = "" };
