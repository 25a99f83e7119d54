#include "daemon/source/keep-store.h"

#include "config.h"

#include <errno.h>

#ifdef HAVE_SYSTEMD

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "daemon/source/keep.h"

/* How long the manager may take to read a message. */
#define BARRIER_USEC (10 * UINT64_C(1000000))

/* systemd says FDSTORE from its version 254 on; for older ones the unit says DMABROKER_FDSTORE. */
uint64_t keep_store_max(void) {
        const char *text = getenv("FDSTORE");
        char *end;
        unsigned long long max;

        if (!text)
                text = getenv("DMABROKER_FDSTORE");
        if (!text || !getenv("NOTIFY_SOCKET"))
                return 0;
        max = strtoull(text, &end, 10);
        return *text && !*end ? max : 0;
}

int keep_store_receive(int (*take)(void *userdata, const char *name, int fd), void *userdata) {
        char **names = NULL;
        int n, i, r = 0;

        /* The environment stays: the listening socket is taken later. */
        n = sd_listen_fds_with_names(0, &names);
        for (i = 0; i < n; i++) {
                if (r == 0 && strncmp(names[i], KEEP_STORE_PREFIX, strlen(KEEP_STORE_PREFIX)) == 0)
                        r = take(userdata, names[i] + strlen(KEEP_STORE_PREFIX), SD_LISTEN_FDS_START + i);
                free(names[i]);
        }
        free(names);
        return n < 0 ? n : r;
}

static int say(const char *verb, const char *name, const int *fds, unsigned n) {
        char text[160];
        int r;

        snprintf(text, sizeof(text), "%s\nFDNAME=" KEEP_STORE_PREFIX "%s", verb, name);
        r = sd_pid_notify_with_fds(0, 0, text, fds, n);
        return r > 0 ? 0 : r < 0 ? r : -ENOTCONN;
}

static int await_manager(void) {
        int r = sd_notify_barrier(0, BARRIER_USEC);

        return r > 0 ? 0 : r < 0 ? r : -ENOTCONN;
}

int keep_store_put(const char *name, int fd) {
        int r;

        /* FDPOLL=0: a pipe or a socket whose other end is gone is to be held all the same. */
        r = say("FDSTORE=1\nFDPOLL=0", name, &fd, 1);
        if (r < 0)
                return r;
        r = await_manager();
        /* It may have it all the same, now or later, and is told in this order. */
        if (r < 0)
                say("FDSTOREREMOVE=1", name, NULL, 0);
        return r;
}

int keep_store_drop(const char *name) {
        int r = say("FDSTOREREMOVE=1", name, NULL, 0);

        return r < 0 ? r : await_manager();
}

#else

uint64_t keep_store_max(void) {
        return 0;
}

int keep_store_receive(int (*take)(void *userdata, const char *name, int fd), void *userdata) {
        return 0;
}

int keep_store_put(const char *name, int fd) {
        return -EOPNOTSUPP;
}

int keep_store_drop(const char *name) {
        return -EOPNOTSUPP;
}

#endif
