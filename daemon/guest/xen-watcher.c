/* The thread that hears from xenstore that a domain has come or gone, and what guests are to have. What it asks for may never be
 * answered: whoever has lost xenstore's daemon is connected with nobody, without an error, by way of the kernel. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/guest/xen-shared.h"
#include "daemon/log.h"

#define SOCKET "/run/xenstored/socket"

/* What watches are called. */
#define DOMAINS "domains"
#define POLICIES "policies"

enum { POLICIES_MAX = 32768 };

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

        if (store && library->xs_watch(store, "@introduceDomain", DOMAINS) &&
            library->xs_watch(store, "@releaseDomain", DOMAINS) && library->xs_watch(store, XEN_POLICIES, POLICIES))
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

/* ---- what guests are to have ---- */

static bool read_policy(const struct xen_library *library, struct xs_handle *store, const char *uuid, struct xen_policy *ret) {
        char path[sizeof(XEN_POLICIES) + XEN_UUID_SIZE], *text = NULL;
        unsigned n = 0;

        if (strlen(uuid) < sizeof(ret->uuid)) {
                snprintf(path, sizeof(path), XEN_POLICIES "/%s", uuid);
                text = library->xs_read(store, XBT_NULL, path, &n);
                /* It is gone again. */
                if (!text)
                        return false;
        }
        if (!text || n >= sizeof(ret->text)) {
                log_warning("what xenstore says in %s/%.40s is too long to be anything", XEN_POLICIES, uuid);
                free(text);
                return false;
        }
        *ret = (struct xen_policy){ 0 };
        strcpy(ret->uuid, uuid);
        memcpy(ret->text, text, n);
        free(text);
        return true;
}

static void tell_policies(struct xen_tracker *tracker, struct xen_policy *policies, size_t n) {
        pthread_mutex_lock(&tracker->mutex);
        free(tracker->policies);
        tracker->policies = policies;
        tracker->n_policies = n;
        tracker->has_policies = true;
        if (!tracker->told_no_more)
                uv_async_send(&tracker->async);
        pthread_mutex_unlock(&tracker->mutex);
}

static void read_policies(struct xen_tracker *tracker, struct xs_handle *store) {
        struct xen_policy *policies;
        unsigned n = 0;
        size_t used = 0;
        char **names;

        errno = 0;
        names = tracker->library->xs_directory(store, XBT_NULL, XEN_POLICIES, &n);
        /* Only that there are none is an answer. */
        if (!names && errno != ENOENT)
                return;
        if (n > POLICIES_MAX) {
                log_warning("xenstore has %u nodes in %s: no more than %d are read", n, XEN_POLICIES, POLICIES_MAX);
                n = POLICIES_MAX;
        }
        policies = calloc((size_t)n + 1, sizeof(*policies));
        for (unsigned i = 0; policies && names && i < n; i++)
                used += read_policy(tracker->library, store, names[i], &policies[used]);
        free(names);
        if (policies)
                tell_policies(tracker, policies, used);
}

/* ---- what is heard ---- */

/* -EAGAIN: all that there was is heard; or it is lost. */
static int hear(struct xen_tracker *tracker, struct xs_handle *store, bool *ret_policies) {
        bool any = false;
        char **what;

        errno = 0;
        while ((what = tracker->library->xs_check_watch(store))) {
                const bool is_policy = strcmp(what[XS_WATCH_TOKEN], POLICIES) == 0;

                *ret_policies |= is_policy;
                any |= !is_policy;
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
                bool has_policies = false;

                if (hear(tracker, store, &has_policies) != -EAGAIN)
                        return true;
                /* What was heard while they were read is not told of by the descriptor. */
                if (has_policies) {
                        read_policies(tracker, store);
                        continue;
                }
                if (poll(polled, 2, -1) < 0)
                        return true;
                if (polled[1].revents)
                        return false;
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
