#include "client/ctl/keeper.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum {
        LOOK_MS = 500,     /* well below the time for which a session is kept whose connection is lost */
        END_WAIT_MS = 300, /* how long to wait for a call that is under way */
};

struct keeper {
        struct ctl *ctl;
        int signal_number;
        pthread_t thread;
        pthread_mutex_t lock;
        pthread_cond_t changed;
        bool end, ended, lost;
};

static struct timespec after_ms(unsigned ms) {
        struct timespec time;

        clock_gettime(CLOCK_MONOTONIC, &time);
        time.tv_nsec += (long)ms * 1000000;
        time.tv_sec += time.tv_nsec / 1000000000;
        time.tv_nsec %= 1000000000;
        return time;
}

/* Until *what or the time is over. With the lock held. */
static void wait_for(struct keeper *keeper, const bool *what, unsigned ms) {
        struct timespec due = after_ms(ms);
        int r = 0;

        while (!*what && r != ETIMEDOUT)
                r = pthread_cond_timedwait(&keeper->changed, &keeper->lock, &due);
}

/* A daemon that is away for the moment is tried again next time. */
static bool look(struct keeper *keeper) {
        if (dmab_call(keeper->ctl->dmab, "broker.ping", NULL, NULL) != -ESTALE)
                return true;
        ctl_complain(keeper->ctl);
        if (keeper->signal_number)
                kill(getpid(), keeper->signal_number);
        return false;
}

static void *run(void *userdata) {
        struct keeper *keeper = userdata;
        bool well = true;

        pthread_mutex_lock(&keeper->lock);
        while (!keeper->end && well) {
                wait_for(keeper, &keeper->end, LOOK_MS);
                if (keeper->end)
                        break;
                pthread_mutex_unlock(&keeper->lock);
                well = look(keeper);
                pthread_mutex_lock(&keeper->lock);
        }
        keeper->lost = !well;
        keeper->ended = true;
        pthread_cond_broadcast(&keeper->changed);
        pthread_mutex_unlock(&keeper->lock);
        return NULL;
}

static void free_all(struct keeper *keeper) {
        pthread_cond_destroy(&keeper->changed);
        pthread_mutex_destroy(&keeper->lock);
        free(keeper);
}

struct keeper *keeper_start(struct ctl *ctl, int signal_number) {
        struct keeper *keeper = calloc(1, sizeof(*keeper));
        pthread_condattr_t attributes;

        if (!keeper)
                return NULL;
        keeper->ctl = ctl;
        keeper->signal_number = signal_number;
        pthread_mutex_init(&keeper->lock, NULL);
        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        pthread_cond_init(&keeper->changed, &attributes);
        pthread_condattr_destroy(&attributes);
        /* Once each time, so that an end need not wait. */
        dmab_set_reconnect_timeout(ctl->dmab, 0);
        if (pthread_create(&keeper->thread, NULL, run, keeper)) {
                free_all(keeper);
                return NULL;
        }
        return keeper;
}

bool keeper_end(struct keeper *keeper) {
        bool well;

        if (!keeper)
                return true;
        pthread_mutex_lock(&keeper->lock);
        keeper->end = true;
        pthread_cond_broadcast(&keeper->changed);
        wait_for(keeper, &keeper->ended, END_WAIT_MS);
        well = keeper->ended;
        pthread_mutex_unlock(&keeper->lock);
        if (!well) {
                pthread_detach(keeper->thread);
                keeper->ctl->dmab = NULL;
                return false;
        }
        pthread_join(keeper->thread, NULL);
        well = !keeper->lost;
        free_all(keeper);
        return well;
}
