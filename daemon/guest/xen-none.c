/* A build without Xen. */
#include <errno.h>
#include <unistd.h>

#include "daemon/guest/guest.h"
#include "daemon/guest/xen-exchange.h"
#include "daemon/guest/xen-foreign.h"

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

int xen_check_guest(uint32_t domid, const char *uuid, struct failure *failure) {
        return failure_set(failure, REASON_unsupported, "this build goes without Xen");
}

int xen_channel_new(uv_loop_t *loop, uint32_t domid, const char *uuid, const char *name, const struct xen_channel_listener *ops,
                    void *userdata, struct xen_channel **ret) {
        return -ENOPKG;
}

void xen_channel_close(struct xen_channel *channel, void (*closed)(void *userdata), void *userdata) {
}

size_t guests_look_tables(struct guest_table_view *ret, size_t max) {
        return 0;
}

int xen_exchange_begin(uv_loop_t *loop, const struct exchange_request *request, uint32_t domid, const char *uuid,
                       xen_exchange_over_fn over, void *userdata) {
        return -EOPNOTSUPP;
}

int xen_foreign_open(uint32_t domain, struct xen_foreign **ret) {
        return -ENOPKG;
}

struct xen_foreign *xen_foreign_close(struct xen_foreign *foreign) {
        return NULL;
}

void xen_foreign_look(const struct xen_foreign *foreign, const struct grant_run *runs, size_t n_runs, bool writes,
                      struct xen_foreign_use *ret) {
}

int xen_share_open(uint32_t domain, uint64_t pages, bool is_writable, int *ret_fd, struct grant_run **ret_runs,
                   size_t *ret_n_runs, struct failure *failure) {
        return failure_set(failure, REASON_unsupported, "this build goes without Xen");
}

void xen_share_end(int fd, uint64_t pages) {
        close(fd);
}

/* Of guests that a daemon with Xen has left. They have nothing, since their memory is not to be had either. */
const struct window_way window_xen_way = { .prefix = "" };
