/* The thread that hears from xenstore that a domain has come or gone. What it asks for may never be answered: whoever has lost
 * xenstore's daemon is connected with nobody, without an error, by way of the kernel. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/guest/xen-shared.h"
#include "daemon/log.h"

#define SOCKET "/run/xenstored/socket"

bool xen_store_is_dead(void) {
        const struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = SOCKET };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r;

        if (fd < 0)
                return true;
        r = connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ? errno : 0;
        close(fd);
        return r == ECONNREFUSED;
}

static struct xs_handle *open_store(const struct xen_library *library) {
        struct xs_handle *store = xen_store_is_dead() ? NULL : library->xs_open(0);

        if (store && library->xs_watch(store, "@introduceDomain", "") && library->xs_watch(store, "@releaseDomain", ""))
                return store;
        if (store)
                library->xs_close(store);
        return NULL;
}

/* false: this is the end. */
static bool rest(const struct xen_tracker *tracker) {
        struct pollfd wake = { .fd = tracker->wake_fd, .events = POLLIN };

        return poll(&wake, 1, (int)tracker->options.store_retry_ms) == 0;
}

/* -EAGAIN: all that there was is heard; or it is lost. */
static int hear(struct xen_tracker *tracker, struct xs_handle *store) {
        bool any = false;
        char **what;

        errno = 0;
        while ((what = tracker->library->xs_check_watch(store))) {
                any = true;
                free(what);
                errno = 0;
        }
        if (any)
                xen_tracker_hurry_from(tracker);
        return errno == EAGAIN ? -EAGAIN : -EIO;
}

/* true: xenstore is lost; false: this is the end. */
static bool listen_to(struct xen_tracker *tracker, struct xs_handle *store) {
        struct pollfd polled[] = {
                { .fd = tracker->library->xs_fileno(store), .events = POLLIN },
                { .fd = tracker->wake_fd, .events = POLLIN },
        };

        for (;;) {
                if (poll(polled, 2, -1) < 0)
                        return true;
                if (polled[1].revents)
                        return false;
                if (hear(tracker, store) != -EAGAIN)
                        return true;
        }
}

void *xen_watcher_main(void *userdata) {
        struct xen_tracker *tracker = userdata;
        bool is_told = false, goes_on = true;

        while (goes_on) {
                struct xs_handle *store = open_store(tracker->library);

                if (store && is_told)
                        log_info("xenstore tells of domains again");
                is_told &= !store;
                if (store) {
                        goes_on = listen_to(tracker, store);
                        tracker->library->xs_close(store);
                }
                if (goes_on && !is_told) {
                        log_warning("xenstore does not tell of domains: that they come and go is noticed within a second");
                        is_told = true;
                }
                goes_on = goes_on && rest(tracker);
        }
        xen_tracker_thread_ended(tracker, XEN_WATCHER);
        return NULL;
}
