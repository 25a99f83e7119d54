#ifndef DMAB_GUEST_THREAD_H
#define DMAB_GUEST_THREAD_H

#include <pthread.h>

/* Start a thread called `name` (at most 15 characters) with all signals blocked: they belong to the daemon's loop. 0 or
 * -errno. */
int guest_thread_start(pthread_t *ret, const char *name, void *(*main)(void *), void *userdata);

#endif
