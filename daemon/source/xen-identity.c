#include "daemon/source/xen-identity.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "daemon/source/sources.h"

#define NAME "identity"

enum { DIGITS = 16 };

int xen_identity_find(uint64_t *ret) {
        const int directory = source_directory();
        char text[DIGITS + 2], *end;
        uint64_t identity;
        ssize_t n;
        int fd;

        if (directory < 0) {
                *ret = 0;
                return 0;
        }
        fd = openat(directory, NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return -errno;
        n = read(fd, text, sizeof(text));
        if (n < 0)
                n = -errno;
        close(fd);
        if (n != DIGITS + 1)
                return n < 0 ? (int)n : -EBADMSG;
        text[n] = '\0';
        if (strspn(text, "0123456789abcdef") != DIGITS)
                return -EBADMSG;
        identity = strtoumax(text, &end, 16);
        if (strcmp(end, "\n") != 0)
                return -EBADMSG;
        *ret = identity;
        return 0;
}

static int write_down(int directory, uint64_t identity) {
        int fd = openat(directory, NAME ".new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600), r = 0;

        if (fd < 0)
                return -errno;
        if (dprintf(fd, "%016" PRIx64 "\n", identity) != DIGITS + 1 || fsync(fd) < 0)
                r = errno > 0 ? -errno : -EIO;
        if (close(fd) < 0 && r == 0)
                r = -errno;
        if (r == 0 && renameat(directory, NAME ".new", directory, NAME) < 0)
                r = -errno;
        if (r == 0 && fsync(directory) < 0)
                r = -errno;
        return r;
}

static int make(uint64_t *ret) {
        uint64_t identity;
        int r;

        if (getrandom(&identity, sizeof(identity), 0) != sizeof(identity))
                return -EIO;
        r = write_down(source_directory(), identity);
        if (r == 0)
                *ret = identity;
        return r;
}

int xen_identity_get(uint64_t *ret, struct failure *failure) {
        int r = xen_identity_find(ret);

        if (r == -ENOENT)
                r = make(ret);
        if (r < 0)
                return failure_set_errno(failure, REASON_source_unavailable, -r,
                                         "the file " NAME " of the state directory, which tells whose the domains for memory "
                                         "are, cannot be used: %s", r == -EBADMSG ? "it is not as it was written" : strerror(-r));
        return 0;
}
