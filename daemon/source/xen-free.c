#include "daemon/source/xen-free.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

enum { EVERY_S = 1 };

struct xen_free {
        struct xen_host *host;
        pthread_t thread;
        pthread_mutex_t mutex;
        pthread_cond_t ends;
        bool ending;
        _Atomic uint64_t bytes;
};

/* Whether it goes on when it is time to ask again. */
static bool rest(struct xen_free *free) {
        struct timespec until;
        bool goes_on;
        int r = 0;

        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += EVERY_S;
        pthread_mutex_lock(&free->mutex);
        while (!free->ending && r == 0)
                r = pthread_cond_timedwait(&free->ends, &free->mutex, &until);
        goes_on = !free->ending;
        pthread_mutex_unlock(&free->mutex);
        return goes_on;
}

static void *thread_main(void *userdata) {
        struct xen_free *free = userdata;

        while (rest(free))
                atomic_store(&free->bytes, xen_host_free(free->host));
        return NULL;
}

/* Signals belong to the loop's thread. */
static int start(struct xen_free *free) {
        sigset_t all, before;
        int r;

        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        r = -pthread_create(&free->thread, NULL, thread_main, free);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (r == 0)
                pthread_setname_np(free->thread, "xen-free");
        return r;
}

int xen_free_new(struct xen_host *host, struct xen_free **ret) {
        struct xen_free *made = calloc(1, sizeof(*made));
        pthread_condattr_t clock;
        int r;

        if (!made)
                return -ENOMEM;
        made->host = host;
        atomic_store(&made->bytes, xen_host_free(host));
        pthread_mutex_init(&made->mutex, NULL);
        pthread_condattr_init(&clock);
        pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
        pthread_cond_init(&made->ends, &clock);
        pthread_condattr_destroy(&clock);
        r = start(made);
        if (r < 0) {
                pthread_cond_destroy(&made->ends);
                pthread_mutex_destroy(&made->mutex);
                free(made);
                return r;
        }
        *ret = made;
        return 0;
}

struct xen_free *xen_free_end(struct xen_free *ended) {
        if (!ended)
                return NULL;
        pthread_mutex_lock(&ended->mutex);
        ended->ending = true;
        pthread_cond_signal(&ended->ends);
        pthread_mutex_unlock(&ended->mutex);
        pthread_join(ended->thread, NULL);
        pthread_cond_destroy(&ended->ends);
        pthread_mutex_destroy(&ended->mutex);
        free(ended);
        return NULL;
}

uint64_t xen_free_bytes(const struct xen_free *free) {
        return atomic_load(&free->bytes);
}

void xen_free_note(struct xen_free *free, uint64_t bytes) {
        atomic_store(&free->bytes, bytes);
}
