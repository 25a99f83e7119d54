#include "daemon/guest/thread.h"

#include <signal.h>

/* A thread inherits the mask of its creator: all signals are blocked just while it is made. */
int guest_thread_start(pthread_t *ret, const char *name, void *(*main)(void *), void *userdata) {
        sigset_t all, before;
        int r;

        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        r = pthread_create(ret, NULL, main, userdata);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (r == 0)
                pthread_setname_np(*ret, name);
        return -r;
}
