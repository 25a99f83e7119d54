/* Which domains there are, as Xen says: the thread that asks for all, and whoever asks for one. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/guest/xen-shared.h"
#include "daemon/source/xen-domain.h"

struct lister {
        struct xen_tracker *tracker;
        struct xen_host *host; /* NULL: not yet */
        struct xen_seen *last; /* what was told of */
        size_t n_last;
        bool has_last;
        char last_why[160];
};

static const char *why_over(const struct xen_listed *listed) {
        static const char *const names[] = {
                [SHUTDOWN_poweroff] = "shutdown", [SHUTDOWN_reboot] = "reboot", [SHUTDOWN_suspend] = "suspended",
                [SHUTDOWN_crash] = "crash", [SHUTDOWN_watchdog] = "watchdog", [SHUTDOWN_soft_reset] = "soft reset",
        };

        if (!listed->is_down)
                return "destroyed";
        return listed->why_down < sizeof(names) / sizeof(*names) ? names[listed->why_down] : "shutdown";
}

static enum xen_state state_of(const struct xen_listed *listed) {
        if (listed->is_dying || (listed->is_down && listed->why_down != SHUTDOWN_suspend))
                return XEN_OVER;
        return listed->is_down || listed->is_paused ? XEN_PAUSED : XEN_RUNNING;
}

/* What the loop is to see of them. NULL: no memory. */
static struct xen_seen *see(const struct xen_listed *listed, size_t n, size_t *ret_n) {
        struct xen_seen *seen = calloc(n + 1, sizeof(*seen));
        size_t used = 0;

        for (size_t i = 0; seen && i < n; i++) {
                if (!listed[i].domid)
                        continue;
                seen[used] = (struct xen_seen){ .domid = listed[i].domid, .state = state_of(&listed[i]),
                                                .is_pv = listed[i].is_pv, .why_over = "" };
                if (seen[used].state == XEN_OVER)
                        seen[used].why_over = why_over(&listed[i]);
                xen_write_uuid(listed[i].uuid, seen[used++].uuid);
        }
        *ret_n = used;
        return seen;
}

static bool is_same(const struct xen_seen *one, const struct xen_seen *other) {
        return one->domid == other->domid && one->state == other->state && one->is_pv == other->is_pv &&
               strcmp(one->uuid, other->uuid) == 0 && strcmp(one->why_over, other->why_over) == 0;
}

static bool is_news(const struct lister *lister, const struct xen_seen *seen, size_t n) {
        if (!lister->has_last || *lister->last_why || n != lister->n_last)
                return true;
        for (size_t i = 0; i < n; i++)
                if (!is_same(&seen[i], &lister->last[i]))
                        return true;
        return false;
}

static void tell(struct lister *lister, const struct xen_seen *seen, size_t n) {
        struct xen_tracker *tracker = lister->tracker;
        struct xen_seen *copy = malloc((n + 1) * sizeof(*copy));

        /* It is told of the next time. */
        if (!copy)
                return;
        memcpy(copy, seen, n * sizeof(*copy));
        free(lister->last);
        lister->last = copy;
        lister->n_last = n;
        lister->has_last = true;
        *lister->last_why = '\0';
        copy = malloc((n + 1) * sizeof(*copy));
        if (!copy) {
                lister->has_last = false;
                return;
        }
        memcpy(copy, seen, n * sizeof(*copy));
        pthread_mutex_lock(&tracker->mutex);
        free(tracker->news);
        tracker->news = copy;
        tracker->n_news = n;
        tracker->has_news = true;
        if (!tracker->told_no_more)
                uv_async_send(&tracker->async);
        pthread_mutex_unlock(&tracker->mutex);
}

static void tell_lost(struct lister *lister, const char *why) {
        struct xen_tracker *tracker = lister->tracker;

        if (strncmp(lister->last_why, why, sizeof(lister->last_why) - 1) == 0)
                return;
        snprintf(lister->last_why, sizeof(lister->last_why), "%s", why);
        pthread_mutex_lock(&tracker->mutex);
        snprintf(tracker->why, sizeof(tracker->why), "%s", why);
        /* Of what was seen before, nothing is certain any more. */
        free(tracker->news);
        tracker->news = NULL;
        tracker->has_news = false;
        if (!tracker->told_no_more)
                uv_async_send(&tracker->async);
        pthread_mutex_unlock(&tracker->mutex);
}

static bool is_wanted_again(struct xen_tracker *tracker) {
        bool is;

        pthread_mutex_lock(&tracker->mutex);
        is = tracker->is_wanted_again;
        tracker->is_wanted_again = false;
        pthread_mutex_unlock(&tracker->mutex);
        return is;
}

static void look(struct lister *lister) {
        struct xen_listed *listed = NULL;
        struct failure failure = { 0 };
        struct xen_seen *seen;
        size_t n = 0, n_seen;
        char why[160];
        int r;

        if (!lister->host && xen_host_open(&lister->host, NULL, &failure) < 0) {
                tell_lost(lister, failure.sentence);
                return;
        }
        r = xen_host_list(lister->host, &listed, &n);
        if (r < 0) {
                snprintf(why, sizeof(why), "Xen does not list its domains: %s", strerror(-r));
                tell_lost(lister, why);
                return;
        }
        lister->has_last &= !is_wanted_again(lister->tracker);
        seen = see(listed, n, &n_seen);
        if (seen && is_news(lister, seen, n_seen))
                tell(lister, seen, n_seen);
        free(seen);
        free(listed);
}

int xen_check_guest(uint32_t domid, const char *uuid, struct failure *failure) {
        struct xen_listed listed = { 0 };
        struct xen_host *host = NULL;
        int r = xen_host_open(&host, NULL, failure);

        if (r < 0)
                return r;
        r = xen_host_look_guest(host, domid, uuid, &listed);
        xen_host_close(host);
        if (r < 0 && r != -ENOENT)
                return failure_set_errno(failure, REASON_source_unavailable, -r,
                                         "Xen does not say what domain %" PRIu32 " is: %s", domid, strerror(-r));
        if (r == 0 && state_of(&listed) != XEN_OVER)
                return 0;
        return failure_set_errno(failure, REASON_source_unavailable, ENOENT, "domain %" PRIu32 " is not it any more", domid);
}

/* Until it is time to look, or somebody wants it. false: this is the end. */
static bool rest(struct xen_tracker *tracker) {
        struct timespec until;
        bool goes_on;
        int r = 0;

        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += tracker->options.poll_ms / 1000;
        until.tv_nsec += tracker->options.poll_ms % 1000 * 1000000L;
        if (until.tv_nsec >= 1000000000L) {
                until.tv_sec++;
                until.tv_nsec -= 1000000000L;
        }
        pthread_mutex_lock(&tracker->mutex);
        while (!tracker->ending && !tracker->is_hurried && r == 0)
                r = pthread_cond_timedwait(&tracker->wanted, &tracker->mutex, &until);
        tracker->is_hurried = false;
        goes_on = !tracker->ending;
        pthread_mutex_unlock(&tracker->mutex);
        return goes_on;
}

void *xen_lister_main(void *userdata) {
        struct lister lister = { .tracker = userdata };

        do
                look(&lister);
        while (rest(lister.tracker));
        free(lister.last);
        xen_host_close(lister.host);
        xen_tracker_thread_ended(lister.tracker, XEN_LISTER);
        return NULL;
}
