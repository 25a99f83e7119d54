#include "client/ctl/top-sampler.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "client/ctl/top-views.h"

enum { END_WAIT_MS = 300 }; /* how long to wait for a call that is under way */

struct top_sampler {
        pthread_t thread;
        pthread_mutex_t lock;
        pthread_cond_t changed;
        /* Under the lock. */
        bool end, ended, hurry;
        unsigned interval_ms;
        json_t *refresh;
        char *failure;
        /* The thread's own. */
        const char *uri;
        dmab_t *dmab; /* NULL: the daemon is away */
        json_t *before;
        int fd;
};

static struct timespec after_ms(unsigned ms) {
        struct timespec time;

        clock_gettime(CLOCK_MONOTONIC, &time);
        time.tv_sec += ms / 1000;
        time.tv_nsec += (long)(ms % 1000) * 1000000;
        if (time.tv_nsec >= 1000000000) {
                time.tv_sec++;
                time.tv_nsec -= 1000000000;
        }
        return time;
}

static void publish(struct top_sampler *sampler, json_t *refresh, const char *failure) {
        const uint64_t one = 1;

        pthread_mutex_lock(&sampler->lock);
        json_decref(sampler->refresh);
        free(sampler->failure);
        sampler->refresh = json_incref(refresh);
        sampler->failure = failure ? strdup(failure) : NULL;
        pthread_mutex_unlock(&sampler->lock);
        /* It can only fail when it is readable anyway. */
        if (write(sampler->fd, &one, sizeof(one)) < 0)
                return;
}

/* One attempt per interval: whoever looks on wants to know now that nobody answers. */
static int reconnect(struct top_sampler *sampler) {
        int r = sampler->dmab ? 0 : dmab_connect(sampler->uri, &sampler->dmab);

        return r ? r : dmab_set_reconnect_timeout(sampler->dmab, 0);
}

static void sample(struct top_sampler *sampler) {
        json_t *answers, *refresh;
        int r = reconnect(sampler);

        if (!r)
                r = top_sample(sampler->dmab, &answers);
        if (r) {
                publish(sampler, NULL, dmab_last_error());
                dmab_disconnect(sampler->dmab);
                sampler->dmab = NULL;
                return;
        }
        refresh = top_refresh(answers, sampler->before);
        json_decref(sampler->before);
        sampler->before = refresh;
        publish(sampler, refresh, NULL);
}

/* Until the next refresh is due. False: it is the end. */
static bool wait_until(struct top_sampler *sampler, struct timespec due) {
        bool end;
        int r = 0;

        pthread_mutex_lock(&sampler->lock);
        while (!sampler->end && !sampler->hurry && r != ETIMEDOUT)
                r = pthread_cond_timedwait(&sampler->changed, &sampler->lock, &due);
        sampler->hurry = false;
        end = sampler->end;
        pthread_mutex_unlock(&sampler->lock);
        return !end;
}

static void *run(void *userdata) {
        struct top_sampler *sampler = userdata;
        struct timespec due;

        do {
                pthread_mutex_lock(&sampler->lock);
                due = after_ms(sampler->interval_ms);
                pthread_mutex_unlock(&sampler->lock);
                sample(sampler);
        } while (wait_until(sampler, due));
        dmab_disconnect(sampler->dmab);
        json_decref(sampler->before);
        pthread_mutex_lock(&sampler->lock);
        sampler->ended = true;
        pthread_cond_broadcast(&sampler->changed);
        pthread_mutex_unlock(&sampler->lock);
        return NULL;
}

static void init_locks(struct top_sampler *sampler) {
        pthread_condattr_t attributes;

        pthread_mutex_init(&sampler->lock, NULL);
        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        pthread_cond_init(&sampler->changed, &attributes);
        pthread_condattr_destroy(&attributes);
}

static void free_all(struct top_sampler *sampler) {
        pthread_cond_destroy(&sampler->changed);
        pthread_mutex_destroy(&sampler->lock);
        json_decref(sampler->refresh);
        free(sampler->failure);
        close(sampler->fd);
        free(sampler);
}

int top_sampler_start(const char *uri, dmab_t *dmab, unsigned interval_ms, struct top_sampler **ret) {
        struct top_sampler *sampler = calloc(1, sizeof(*sampler));
        int r;

        if (!sampler) {
                dmab_disconnect(dmab);
                return -ENOMEM;
        }
        *sampler = (struct top_sampler){ .uri = uri, .dmab = dmab, .interval_ms = interval_ms };
        init_locks(sampler);
        sampler->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        r = sampler->fd < 0 ? errno : pthread_create(&sampler->thread, NULL, run, sampler);
        if (r) {
                dmab_disconnect(dmab);
                free_all(sampler);
                return -r;
        }
        *ret = sampler;
        return 0;
}

void top_sampler_end(struct top_sampler *sampler) {
        struct timespec due = after_ms(END_WAIT_MS);
        bool ended;
        int r = 0;

        pthread_mutex_lock(&sampler->lock);
        sampler->end = true;
        pthread_cond_broadcast(&sampler->changed);
        while (!sampler->ended && r != ETIMEDOUT)
                r = pthread_cond_timedwait(&sampler->changed, &sampler->lock, &due);
        ended = sampler->ended;
        pthread_mutex_unlock(&sampler->lock);
        if (!ended) {
                pthread_detach(sampler->thread);
                return;
        }
        pthread_join(sampler->thread, NULL);
        free_all(sampler);
}

int top_sampler_fd(const struct top_sampler *sampler) {
        return sampler->fd;
}

void top_sampler_take(struct top_sampler *sampler, json_t **ret_refresh, char **ret_failure) {
        uint64_t count;

        pthread_mutex_lock(&sampler->lock);
        if (read(sampler->fd, &count, sizeof(count)) < 0)
                count = 0;
        *ret_refresh = sampler->refresh;
        *ret_failure = sampler->failure;
        sampler->refresh = NULL;
        sampler->failure = NULL;
        pthread_mutex_unlock(&sampler->lock);
}

void top_sampler_set_interval(struct top_sampler *sampler, unsigned interval_ms) {
        pthread_mutex_lock(&sampler->lock);
        sampler->interval_ms = interval_ms;
        sampler->hurry = true;
        pthread_cond_broadcast(&sampler->changed);
        pthread_mutex_unlock(&sampler->lock);
}
