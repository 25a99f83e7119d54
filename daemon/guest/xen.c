#include "daemon/guest/xen.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "daemon/guest/thread.h"
#include "daemon/guest/xen-shared.h"

/* Two threads and the loop share struct xen_tracker. The lister asks Xen, which always answers. The watcher waits for xenstore,
 * which may never: all that depends on it is how soon the lister asks again. Closing asks both to end, and waits with a timer;
 * a thread that has not ended by then is detached, and has a reference of its own to what it may still touch. */

enum { POLL_MS = 1000, STORE_RETRY_MS = 5000, CLOSE_PATIENCE_MS = 2000 };

const char *xen_unavailable(void) {
        const char *why = NULL;

        xen_library(&why);
        return why;
}

void xen_tracker_unref(struct xen_tracker *tracker) {
        if (atomic_fetch_sub(&tracker->n_refs, 1) > 1)
                return;
        free(tracker->news);
        free(tracker->policies);
        pthread_cond_destroy(&tracker->wanted);
        pthread_mutex_destroy(&tracker->mutex);
        close(tracker->wake_fd);
        free(tracker);
}

void xen_tracker_hurry_from(struct xen_tracker *tracker) {
        pthread_mutex_lock(&tracker->mutex);
        tracker->is_hurried = true;
        pthread_cond_signal(&tracker->wanted);
        pthread_mutex_unlock(&tracker->mutex);
}

void xen_tracker_hurry(struct xen_tracker *tracker) {
        xen_tracker_hurry_from(tracker);
}

void xen_tracker_repeat(struct xen_tracker *tracker) {
        pthread_mutex_lock(&tracker->mutex);
        tracker->is_wanted_again = true;
        pthread_mutex_unlock(&tracker->mutex);
}

void xen_tracker_thread_ended(struct xen_tracker *tracker, enum xen_thread thread) {
        pthread_mutex_lock(&tracker->mutex);
        tracker->has_ended[thread] = true;
        if (!tracker->told_no_more)
                uv_async_send(&tracker->async);
        pthread_mutex_unlock(&tracker->mutex);
        xen_tracker_unref(tracker);
}

/* ---- telling ---- */

static void tell_news(struct xen_tracker *tracker) {
        char why[sizeof(tracker->why)];
        struct xen_policy *policies;
        struct xen_seen *news;
        bool has_news, has_policies;
        size_t n, n_policies;

        pthread_mutex_lock(&tracker->mutex);
        news = tracker->news;
        n = tracker->n_news;
        has_news = tracker->has_news;
        memcpy(why, tracker->why, sizeof(why));
        tracker->news = NULL;
        tracker->has_news = false;
        policies = tracker->policies;
        n_policies = tracker->n_policies;
        has_policies = tracker->has_policies;
        tracker->policies = NULL;
        tracker->has_policies = false;
        *tracker->why = '\0';
        pthread_mutex_unlock(&tracker->mutex);
        /* First, so that who is seen for the first time has what it is to have. */
        if (has_policies)
                tracker->ops->policies(tracker->userdata, policies, n_policies);
        if (*why)
                tracker->ops->lost(tracker->userdata, why);
        if (has_news && !tracker->closing)
                tracker->ops->listed(tracker->userdata, news, n);
        free(news);
        free(policies);
}

/* ---- end ---- */

static void on_handle_closed(uv_handle_t *handle) {
        struct xen_tracker *tracker = handle->data;

        if (--tracker->n_handles > 0)
                return;
        if (tracker->closed)
                tracker->closed(tracker->userdata);
        xen_tracker_unref(tracker);
}

static void close_handles(struct xen_tracker *tracker) {
        pthread_mutex_lock(&tracker->mutex);
        tracker->told_no_more = true;
        pthread_mutex_unlock(&tracker->mutex);
        uv_close((uv_handle_t *)&tracker->async, on_handle_closed);
        uv_close((uv_handle_t *)&tracker->patience, on_handle_closed);
}

static void finish(struct xen_tracker *tracker) {
        bool has_ended[XEN_THREADS];

        if (tracker->finished)
                return;
        tracker->finished = true;
        pthread_mutex_lock(&tracker->mutex);
        memcpy(has_ended, tracker->has_ended, sizeof(has_ended));
        pthread_mutex_unlock(&tracker->mutex);
        for (unsigned i = 0; i < tracker->n_threads; i++)
                if (has_ended[i])
                        pthread_join(tracker->threads[i], NULL);
                else
                        pthread_detach(tracker->threads[i]);
        close_handles(tracker);
}

static bool have_ended(struct xen_tracker *tracker) {
        bool have = true;

        pthread_mutex_lock(&tracker->mutex);
        for (unsigned i = 0; i < tracker->n_threads; i++)
                have &= tracker->has_ended[i];
        pthread_mutex_unlock(&tracker->mutex);
        return have;
}

static void on_async(uv_async_t *async) {
        struct xen_tracker *tracker = async->data;

        if (!tracker->closing)
                tell_news(tracker);
        if (tracker->closing && have_ended(tracker))
                finish(tracker);
}

static void on_impatience(uv_timer_t *timer) {
        finish(timer->data);
}

static void ask_to_end(struct xen_tracker *tracker) {
        const uint64_t one = 1;

        pthread_mutex_lock(&tracker->mutex);
        tracker->ending = true;
        pthread_cond_signal(&tracker->wanted);
        pthread_mutex_unlock(&tracker->mutex);
        if (write(tracker->wake_fd, &one, sizeof(one)) < 0)
                return; /* it is readable already */
}

void xen_tracker_close(struct xen_tracker *tracker, void (*closed)(void *userdata)) {
        if (!tracker)
                return;
        tracker->closing = true;
        tracker->closed = closed;
        uv_timer_start(&tracker->patience, on_impatience, tracker->options.close_patience_ms, 0);
        ask_to_end(tracker);
        /* In case that their end was told of, and that passed by. */
        uv_async_send(&tracker->async);
}

/* ---- beginning ---- */

static unsigned or_default(unsigned value, unsigned otherwise) {
        return value > 0 ? value : otherwise;
}

static struct xen_tracker *allocate(const struct xen_options *options, const struct xen_library *library) {
        struct xen_tracker *tracker = calloc(1, sizeof(*tracker));
        pthread_condattr_t monotonic;

        if (!tracker)
                return NULL;
        tracker->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (tracker->wake_fd < 0) {
                free(tracker);
                return NULL;
        }
        tracker->library = library;
        tracker->options = (struct xen_options){
                .poll_ms = or_default(options->poll_ms, POLL_MS),
                .store_retry_ms = or_default(options->store_retry_ms, STORE_RETRY_MS),
                .close_patience_ms = or_default(options->close_patience_ms, CLOSE_PATIENCE_MS),
        };
        atomic_init(&tracker->n_refs, 1);
        pthread_mutex_init(&tracker->mutex, NULL);
        pthread_condattr_init(&monotonic);
        pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
        pthread_cond_init(&tracker->wanted, &monotonic);
        pthread_condattr_destroy(&monotonic);
        return tracker;
}

static int start(struct xen_tracker *tracker, enum xen_thread thread, const char *name, void *(*thread_main)(void *)) {
        int r;

        atomic_fetch_add(&tracker->n_refs, 1);
        r = guest_thread_start(&tracker->threads[thread], name, thread_main, tracker);
        if (r < 0)
                xen_tracker_unref(tracker);
        else
                tracker->n_threads++;
        return r;
}

/* The handles come last but for the threads. If those fail, they free the rest; the first one ends by itself. */
int xen_tracker_new(uv_loop_t *loop, const struct xen_options *options, const struct xen_listener *ops, void *userdata,
                    struct xen_tracker **ret) {
        const struct xen_library *library = xen_library(NULL);
        struct xen_tracker *tracker;
        int r;

        if (!library)
                return -ENOPKG;
        tracker = allocate(options, library);
        r = tracker ? uv_async_init(loop, &tracker->async, on_async) : -ENOMEM;
        if (r < 0) {
                if (tracker)
                        xen_tracker_unref(tracker);
                return r;
        }
        uv_timer_init(loop, &tracker->patience);
        tracker->n_handles = 2;
        tracker->async.data = tracker->patience.data = tracker;
        tracker->ops = ops;
        tracker->userdata = userdata;
        r = start(tracker, XEN_LISTER, "xen-list", xen_lister_main);
        if (r == 0 && library->has_store)
                r = start(tracker, XEN_WATCHER, "xen-store", xen_watcher_main);
        if (r < 0) {
                xen_tracker_close(tracker, NULL);
                return r;
        }
        *ret = tracker;
        return 0;
}
