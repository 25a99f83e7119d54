#include "daemon/state.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int default_path(char path[PATH_MAX], struct failure *failure) {
        const char *service = getenv("STATE_DIRECTORY"), *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

        /* The service manager has made it; where it is told of several, the first. */
        if (service && *service == '/')
                snprintf(path, PATH_MAX, "%.*s", (int)strcspn(service, ":"), service);
        else if (geteuid() == 0)
                snprintf(path, PATH_MAX, "/var/lib/dmabroker");
        else if (state && *state == '/')
                snprintf(path, PATH_MAX, "%s/dmabroker", state);
        else if (home && *home == '/')
                snprintf(path, PATH_MAX, "%s/.local/state/dmabroker", home);
        else
                return failure_set(failure, REASON_bad_param,
                                   "there is no place for the daemon's state: give --state-dir, or set XDG_STATE_HOME");
        return 0;
}

static int make_directories(char *path) {
        for (char *at = strchr(path + 1, '/');; at = strchr(at + 1, '/')) {
                int r;

                if (at)
                        *at = '\0';
                r = mkdir(path, at ? 0755 : 0700) < 0 && errno != EEXIST ? -errno : 0;
                if (at)
                        *at = '/';
                if (r < 0 || !at)
                        return r;
        }
}

static int fail(const char *path, int error, struct failure *failure) {
        return failure_set_errno(failure, REASON_bad_param, error,
                                 "the state directory %s cannot be used: %s; give another --state-dir", path,
                                 strerror(error));
}

/* Whoever may write in it may put a ledger there, and have the daemon connect to a keeper of their own. */
static int check_directory(int directory, const char *path, struct failure *failure) {
        struct stat status;

        if (fstat(directory, &status) < 0)
                return fail(path, errno, failure);
        if (status.st_uid != 0 && status.st_uid != geteuid())
                return failure_set_errno(failure, REASON_bad_param, EPERM,
                                         "the state directory %s belongs to another user, %u, who could change what the daemon "
                                         "trusts: give it to user %u, or give another --state-dir", path,
                                         (unsigned)status.st_uid, (unsigned)geteuid());
        if (status.st_mode & (S_IWGRP | S_IWOTH))
                return failure_set_errno(failure, REASON_bad_param, EPERM,
                                         "others may write in the state directory %s (its mode is %04o), and so change what the "
                                         "daemon trusts: give it mode 0700, or give another --state-dir", path,
                                         (unsigned)status.st_mode & 07777);
        return 0;
}

int state_open(const char *given, int *ret_fd, int *ret_lock_fd, struct failure *failure) {
        char path[PATH_MAX];
        int directory, fd, r;

        if (given && strlen(given) >= sizeof(path))
                return fail(given, ENAMETOOLONG, failure);
        if (given)
                strcpy(path, given);
        else {
                r = default_path(path, failure);
                if (r < 0)
                        return r;
        }
        r = *path ? make_directories(path) : -ENOENT;
        if (r < 0)
                return fail(path, -r, failure);
        directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (directory < 0)
                return fail(path, errno, failure);
        r = check_directory(directory, path, failure);
        if (r < 0) {
                close(directory);
                return r;
        }
        fd = openat(directory, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0) {
                r = errno;
                close(directory);
                return fail(path, r, failure);
        }
        if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
                r = errno;
                close(fd);
                close(directory);
                if (r != EWOULDBLOCK)
                        return fail(path, r, failure);
                return failure_set_errno(failure, REASON_busy, EBUSY, "another daemon uses the state directory %s; stop "
                                         "it, or give another --state-dir", path);
        }
        *ret_fd = directory;
        *ret_lock_fd = fd;
        return 0;
}
