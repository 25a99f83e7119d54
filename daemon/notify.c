#include <config.h>

#include "daemon/notify.h"

#include <errno.h>

#ifdef HAVE_SYSTEMD
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <time.h>

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

int notify_take_socket(int *ret_fd, struct failure *failure) {
        int n = sd_listen_fds(1);

        if (n <= 0)
                return 0;
        if (n > 1)
                return failure_set(failure, REASON_bad_param,
                                   "the service manager passes %d sockets, but one is enough: correct dmabroker.socket", n);
        if (sd_is_socket_unix(SD_LISTEN_FDS_START, SOCK_STREAM, 1, NULL, 0) <= 0)
                return failure_set(failure, REASON_bad_param, "what the service manager passes is no listening UNIX "
                                   "stream socket: correct dmabroker.socket");
        *ret_fd = SD_LISTEN_FDS_START;
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
