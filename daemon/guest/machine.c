#include <config.h>

#include "daemon/guest/machine.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
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

/* ---- names ---- */

static bool is_letter_or_digit(char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* As libvirt's virDomainDriverGenerateMachineName(): letters, digits, dots and dashes; of dots and dashes in a row the first, and
 * none at either end. Older versions leave two where something else was between them. */
void machine_clean(const char *name, char ret_name[LIBVIRT_MACHINE_SIZE]) {
        bool is_after_mark = true;
        size_t n = 0;

        for (; *name && n < LIBVIRT_MACHINE_SIZE - 1; name++) {
                bool is_mark = *name == '.' || *name == '-';

                if (is_mark ? is_after_mark : !is_letter_or_digit(*name))
                        continue;
                ret_name[n++] = *name;
                is_after_mark = is_mark;
        }
        if (n && is_after_mark)
                n--;
        ret_name[n] = '\0';
}

void machine_name(unsigned run, const char *cleaned, char ret_name[LIBVIRT_MACHINE_SIZE]) {
        char whole[LIBVIRT_MACHINE_SIZE + sizeof("qemu-4294967295-")];

        snprintf(whole, sizeof(whole), "qemu-%u-%s", run, cleaned);
        machine_clean(whole, ret_name);
}

/* Whether this machine is called so, by whatever version of libvirt. */
static bool machine_is(const char *machine, const char *name) {
        char cleaned[LIBVIRT_MACHINE_SIZE];

        machine_clean(machine, cleaned);
        return strcmp(cleaned, name) == 0;
}

unsigned machine_run(const char *machine, const char *cleaned) {
        unsigned run = strncmp(machine, "qemu-", 5) == 0 ? (unsigned)strtoul(machine + 5, NULL, 10) : 0;
        char name[LIBVIRT_MACHINE_SIZE];

        machine_name(run, cleaned, name);
        return machine_is(machine, name) ? run : 0;
}

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
