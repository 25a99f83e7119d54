#include <config.h>

#include "daemon/notify.h"

#include <errno.h>

#ifdef HAVE_SYSTEMD
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include "daemon/log.h"
#include "daemon/source/keep.h"

enum { TRIES = 3 };

/* Who is not told that the daemon is ready ends it for that. */
void notify(const char *state) {
        int i, r = -1;

        for (i = 0; r < 0 && i < TRIES; i++)
                r = sd_notify(0, state);
        if (r < 0)
                log_warning("the service manager could not be told %s: %s", state, strerror(-r));
}

void notify_reloading(void) {
        struct timespec now;
        char state[64];

        clock_gettime(CLOCK_MONOTONIC, &now);
        snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%llu",
                 (unsigned long long)now.tv_sec * 1000000 + (unsigned long long)now.tv_nsec / 1000);
        notify(state);
}

uint64_t notify_watchdog_ms(void) {
        uint64_t usec = 0;

        if (sd_watchdog_enabled(0, &usec) <= 0 || !usec)
                return 0;
        return usec / 2000 ? usec / 2000 : 1;
}

/* The manager passes sockets and what is in its store in one row; the latter is the keep's, which has taken it. */
static int count_sockets(int *ret_first) {
        char **names = NULL;
        int n = sd_listen_fds_with_names(1, &names), sockets = 0, i;

        for (i = 0; i < n; i++) {
                if (strncmp(names[i], KEEP_STORE_PREFIX, strlen(KEEP_STORE_PREFIX)) != 0 && sockets++ == 0)
                        *ret_first = SD_LISTEN_FDS_START + i;
                free(names[i]);
        }
        free(names);
        return sockets;
}

int notify_take_socket(int *ret_fd, struct failure *failure) {
        int first = -1, n = count_sockets(&first);

        if (n == 0)
                return 0;
        if (n > 1)
                return failure_set(failure, REASON_bad_param,
                                   "the service manager passes %d sockets, but one is enough: correct dmabroker.socket", n);
        if (sd_is_socket_unix(first, SOCK_STREAM, 1, NULL, 0) <= 0)
                return failure_set(failure, REASON_bad_param, "what the service manager passes is no listening UNIX "
                                   "stream socket: correct dmabroker.socket");
        *ret_fd = first;
        return 1;
}

#else

void notify(const char *state) {
}

void notify_reloading(void) {
}

uint64_t notify_watchdog_ms(void) {
        return 0;
}

int notify_take_socket(int *ret_fd, struct failure *failure) {
        return 0;
}

#endif
