/* What the loop's side of a tracker and its two threads share. */
#ifndef DMAB_GUEST_XEN_SHARED_H
#define DMAB_GUEST_XEN_SHARED_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "daemon/guest/xen.h"
#include "daemon/source/xen-library.h"

enum xen_thread { XEN_LISTER, XEN_WATCHER, XEN_THREADS };

struct xen_tracker {
        /* One for the loop, one for each thread. */
        atomic_uint n_refs;
        const struct xen_library *library;
        struct xen_options options;
        int wake_fd; /* readable when the watcher is to end */

        pthread_mutex_t mutex;
        /* All under the mutex. */
        pthread_cond_t wanted; /* the lister has something to do */
        bool is_hurried, ending;
        bool is_wanted_again; /* what was listed before */
        bool told_no_more; /* `async` is closed */
        bool has_ended[XEN_THREADS];
        struct xen_seen *news; /* that the loop has not been told of, or NULL */
        size_t n_news;
        bool has_news;
        char why[160]; /* it is this that it has not been told of, if it is not "" */
        struct xen_policy *policies; /* likewise */
        size_t n_policies;
        bool has_policies;

        /* The loop's. */
        uv_async_t async;
        uv_timer_t patience;
        unsigned n_handles, n_threads;
        pthread_t threads[XEN_THREADS];
        const struct xen_listener *ops;
        void *userdata;
        void (*closed)(void *userdata);
        bool closing, finished;
};

void xen_tracker_unref(struct xen_tracker *tracker);
/* From any thread. */
void xen_tracker_hurry_from(struct xen_tracker *tracker);
/* The thread has ended, and touches nothing of it any more but its own reference. */
void xen_tracker_thread_ended(struct xen_tracker *tracker, enum xen_thread thread);

/* xen-lister.c, xen-watcher.c */
void *xen_lister_main(void *tracker);
void *xen_watcher_main(void *tracker);

#endif
