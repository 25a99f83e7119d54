#include <config.h>

#include "daemon/notify.h"

#include <errno.h>

#ifdef HAVE_SYSTEMD
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include "daemon/source/keep.h"

void notify(const char *state) {
        sd_notify(0, state);
}

void notify_reloading(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu",
                   (unsigned long long)now.tv_sec * 1000000 + (unsigned long long)now.tv_nsec / 1000);
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
