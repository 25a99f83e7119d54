#include <config.h>

#include "daemon/guest/machine.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#include <systemd/sd-login.h>
#endif

/* Linux 6.5, for which the C library may be too old. */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* ---- systemd ---- */

#ifdef HAVE_SYSTEMD

static bool are_kept(void) {
        return sd_booted() > 0;
}

static int of_process(pid_t pid, char ret_name[MACHINE_NAME_SIZE]) {
        char *name = NULL;
        int r = sd_pid_get_machine_name(pid, &name);

        /* Of a unit that is no machine some versions say that there is no such file. */
        if (r == -ENOENT || r == -ENXIO)
                return -ENODATA;
        if (r < 0)
                return r;
        r = strlen(name) < MACHINE_NAME_SIZE ? 0 : -ENAMETOOLONG;
        if (r == 0)
                strcpy(ret_name, name);
        free(name);
        return r;
}

static int is_there(const char *prefix) {
        char **names = NULL;
        int r = sd_get_machine_names(&names), is = 0;

        for (int i = 0; i < r; i++) {
                is |= strncmp(names[i], prefix, strlen(prefix)) == 0;
                free(names[i]);
        }
        free(names);
        return r < 0 ? r : is;
}

const char *machine_unavailable(void) {
        return NULL;
}

#else

static bool are_kept(void) {
        return false;
}

static int of_process(pid_t pid, char ret_name[MACHINE_NAME_SIZE]) {
        return -ENODATA;
}

static int is_there(const char *prefix) {
        return 0;
}

const char *machine_unavailable(void) {
        return access("/run/systemd/system", F_OK) == 0 ? "this build does without libsystemd" : NULL;
}

#endif

const struct machine_ops machine_systemd_ops = {
        .are_kept = are_kept,
        .of_process = of_process,
        .is_there = is_there,
};

/* ---- at the other end ---- */

/* Of whoever connected, where the kernel has kept that; else of who has its number now. */
static int open_peer(int fd, pid_t pid) {
        socklen_t length = sizeof(int);
        int pidfd = -1;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &length) == 0)
                return pidfd;
        if (errno != ENOPROTOOPT)
                return -errno;
        pidfd = pidfd_open(pid, 0);
        return pidfd < 0 ? -errno : pidfd;
}

int machine_of_peer(const struct machine_ops *ops, int fd, pid_t pid, char ret_name[MACHINE_NAME_SIZE]) {
        struct pollfd end = { .fd = -1, .events = POLLIN };
        int r;

        if (pid <= 0)
                return -ENODATA; /* of a namespace that is not seen here */
        end.fd = open_peer(fd, pid);
        if (end.fd < 0)
                return end.fd == -EINVAL || end.fd == -ENODATA ? -ESRCH : end.fd;
        r = ops->of_process(pid, ret_name);
        /* As long as it lives the number is its own, so that it was when that was asked for. */
        if (poll(&end, 1, 0) != 0)
                r = -ESRCH;
        close(end.fd);
        return r;
}
