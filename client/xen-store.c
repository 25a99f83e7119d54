#include "client/xen-store.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/clock.h"

enum {
        TYPE_READ = 2,
        TYPE_ERROR = 16,
        ANSWER_MAX = 4096,
        PATIENCE_MS = 5000,
};

/* xenstore's, before what it says and what it is told. */
struct header {
        uint32_t type, request, transaction, length;
};

static const char *device = "/dev/xen/xenbus";

void xen_store_set_device(const char *path) {
        device = path;
}

/* A signal of the program's ends a call, and not the wait. */
static int await(int fd, short events, uint64_t until_ms) {
        struct pollfd poller = { .fd = fd, .events = events };
        uint64_t now;
        int n;

        do {
                now = clock_ms();
                n = poll(&poller, 1, now < until_ms ? (int)(until_ms - now) : 0);
        } while (n < 0 && errno == EINTR);
        return n > 0 ? 0 : n < 0 ? -errno : -ETIMEDOUT;
}

/* The kernel takes a whole message, or the rest of one. */
static int say(int fd, const char *path, uint64_t until_ms) {
        char message[sizeof(struct header) + 256];
        const struct header header = { .type = TYPE_READ, .length = (uint32_t)strlen(path) + 1 };
        size_t size = sizeof(header) + header.length, done = 0;

        if (size > sizeof(message))
                return -ENAMETOOLONG;
        memcpy(message, &header, sizeof(header));
        memcpy(message + sizeof(header), path, header.length);
        while (done < size) {
                ssize_t n = write(fd, message + done, size - done);
                int r = n > 0 ? 0 : n < 0 && errno != EAGAIN && errno != EINTR ? -errno : await(fd, POLLOUT, until_ms);

                if (r)
                        return r;
                done += n > 0 ? (size_t)n : 0;
        }
        return 0;
}

static int hear(int fd, void *ret, size_t size, uint64_t until_ms) {
        for (size_t done = 0; done < size;) {
                ssize_t n = read(fd, (char *)ret + done, size - done);
                int r = n > 0 ? 0 : !n ? -EPROTO : errno != EAGAIN && errno != EINTR ? -errno : await(fd, POLLIN, until_ms);

                if (r)
                        return r;
                done += n > 0 ? (size_t)n : 0;
        }
        return 0;
}

/* xenstore names errors. */
static int error_of(const char *name) {
        return !strcmp(name, "ENOENT") ? -ENOENT : !strcmp(name, "EACCES") || !strcmp(name, "EPERM") ? -EACCES : -EPROTO;
}

static int ask(int fd, const char *path, char *ret, size_t size) {
        const uint64_t until_ms = clock_ms() + PATIENCE_MS;
        struct header header;
        char answer[ANSWER_MAX + 1];
        int r = say(fd, path, until_ms);

        if (!r)
                r = hear(fd, &header, sizeof(header), until_ms);
        if (!r && header.length > ANSWER_MAX)
                r = -EPROTO;
        if (!r)
                r = hear(fd, answer, header.length, until_ms);
        if (r)
                return r;
        answer[header.length] = '\0';
        if (header.type == TYPE_ERROR)
                return error_of(answer);
        if (header.type != TYPE_READ || header.length >= size || strlen(answer) != header.length)
                return -EPROTO;
        memcpy(ret, answer, header.length + 1);
        return 0;
}

int xen_store_read(const char *path, char *ret, size_t size) {
        int fd = open(device, O_RDWR | O_NONBLOCK | O_CLOEXEC), r;

        if (fd < 0)
                return errno == EPERM ? -EACCES : errno == ENODEV || errno == ENXIO ? -ENOENT : -errno;
        r = ask(fd, path, ret, size);
        close(fd);
        return r;
}

int xen_store_read_number(const char *path, uint32_t *ret) {
        char text[16], *end;
        unsigned long long number;
        int r = xen_store_read(path, text, sizeof(text));

        if (r)
                return r;
        number = strtoull(text, &end, 10);
        if (*text < '0' || *text > '9' || *end || number > UINT32_MAX)
                return -EPROTO;
        *ret = (uint32_t)number;
        return 0;
}
