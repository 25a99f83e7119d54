#include "tests/lib/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/daemon.h"

enum { FDS_PER_MESSAGE = 253, FDS_WAITING = 1024 };

struct test_client {
        int fd;
        char *buffer; /* what was read and not yet returned: [start, end) */
        size_t start, end, capacity;
        int fds[FDS_WAITING];
        size_t fds_start, fds_end;
};

static long long now_ms(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static int connect_here(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd, error;

        if (strlen(path) >= sizeof(address.sun_path))
                return -ENAMETOOLONG;
        strcpy(address.sun_path, path);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
                error = -errno;
                close(fd);
                return error;
        }
        return fd;
}

union fd_control {
        char bytes[CMSG_SPACE(FDS_PER_MESSAGE * sizeof(int))];
        struct cmsghdr align;
};

static ssize_t send_with_fds(int socket, const void *bytes, size_t size, const int *fds, size_t n_fds, int flags) {
        union fd_control control;
        struct iovec part = { .iov_base = (void *)bytes, .iov_len = size };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

        if (n_fds > FDS_PER_MESSAGE) {
                errno = EINVAL;
                return -1;
        }
        if (n_fds > 0) {
                memset(&control, 0, sizeof(control));
                message.msg_control = &control;
                message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                control.align.cmsg_level = SOL_SOCKET;
                control.align.cmsg_type = SCM_RIGHTS;
                control.align.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
                memcpy(CMSG_DATA(&control.align), fds, n_fds * sizeof(int));
        }
        return sendmsg(socket, &message, MSG_NOSIGNAL | flags);
}

/* Takes up to max descriptors out of a received message; those beyond are closed. */
static size_t collect_fds(struct msghdr *message, int *fds, size_t max) {
        size_t n = 0;

        for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
                size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);

                if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
                        continue;
                for (size_t i = 0; i < count; i++) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(fd));
                        if (n < max)
                                fds[n++] = fd;
                        else
                                close(fd);
                }
        }
        return n;
}

static int connect_as(const char *path, const struct test_identity *as) {
        int pair[2], result = 0, fd = -1, status;
        union fd_control control;
        struct iovec part = { .iov_base = &result, .iov_len = sizeof(result) };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                                  .msg_controllen = sizeof(control) };
        ssize_t n;
        pid_t pid;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                return -errno;
        pid = fork();
        if (pid == 0) {
                result = test_identity_assume(as);
                if (result == 0)
                        result = fd = connect_here(path);
                _exit(send_with_fds(pair[1], &result, sizeof(result), &fd, fd >= 0 ? 1 : 0, 0) < 0);
        }
        close(pair[1]);
        n = pid < 0 ? -1 : recvmsg(pair[0], &message, MSG_CMSG_CLOEXEC);
        if (pid > 0)
                waitpid(pid, &status, 0);
        close(pair[0]);
        if (n != sizeof(result))
                return -EIO;
        if (collect_fds(&message, &fd, 1) == 1)
                return fd;
        return result < 0 ? result : -EIO;
}

static int make_room(struct test_client *client) {
        size_t capacity;
        char *buffer;

        if (client->start > 0) {
                memmove(client->buffer, client->buffer + client->start, client->end - client->start);
                client->end -= client->start;
                client->start = 0;
        }
        if (client->capacity - client->end >= 65536)
                return 0;
        capacity = client->capacity ? 2 * client->capacity : 131072;
        buffer = realloc(client->buffer, capacity);
        if (!buffer)
                return -ENOMEM;
        client->buffer = buffer;
        client->capacity = capacity;
        return 0;
}

int test_client_adopt(int fd, struct test_client **ret) {
        struct test_client *client = calloc(1, sizeof(*client));

        if (!client || fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
                free(client);
                close(fd);
                return -ENOMEM;
        }
        client->fd = fd;
        if (make_room(client) < 0) {
                test_client_close(client);
                return -ENOMEM;
        }
        *ret = client;
        return 0;
}

int test_client_connect(const char *path, const struct test_identity *as, struct test_client **ret) {
        int fd = as ? connect_as(path, as) : connect_here(path);

        return fd < 0 ? fd : test_client_adopt(fd, ret);
}

void test_client_close(struct test_client *client) {
        int fd;

        if (!client)
                return;
        while ((fd = test_client_take_fd(client)) >= 0)
                close(fd);
        close(client->fd);
        free(client->buffer);
        free(client);
}

static int wait_for(struct test_client *client, short events, long long end) {
        struct pollfd item = { .fd = client->fd, .events = events };
        long long left = end - now_ms();
        int n;

        if (left <= 0)
                return -ETIMEDOUT;
        n = poll(&item, 1, (int)left);
        if (n < 0 && errno != EINTR)
                return -errno;
        return n == 0 ? -ETIMEDOUT : 0;
}

int test_client_send_fds(struct test_client *client, const void *bytes, size_t size, const int *fds, size_t n_fds) {
        long long end = now_ms() + test_timeout_ms();
        size_t sent = 0;

        while (sent < size) {
                ssize_t n = send_with_fds(client->fd, (const char *)bytes + sent, size - sent, fds, n_fds, MSG_DONTWAIT);
                int error;

                if (n >= 0) {
                        sent += (size_t)n;
                        n_fds = 0;
                        continue;
                }
                if (errno == EINTR)
                        continue;
                if (errno != EAGAIN)
                        return -errno;
                error = wait_for(client, POLLOUT, end);
                if (error < 0)
                        return error;
        }
        return 0;
}

int test_client_send(struct test_client *client, const void *bytes, size_t size) {
        return test_client_send_fds(client, bytes, size, NULL, 0);
}

int test_client_send_text(struct test_client *client, const char *text) {
        return test_client_send(client, text, strlen(text));
}

int test_client_send_some(struct test_client *client, const void *bytes, size_t size, size_t *ret_sent) {
        ssize_t n = send(client->fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno != EAGAIN)
                return -errno;
        *ret_sent = n < 0 ? 0 : (size_t)n;
        return 0;
}

/* One recvmsg(): bytes to the buffer, descriptors to their queue. -EAGAIN: nothing there; -ENODATA: closed. */
static int receive(struct test_client *client) {
        union fd_control control;
        struct iovec part;
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                                  .msg_controllen = sizeof(control) };
        ssize_t n;
        int error;

        error = make_room(client);
        if (error < 0)
                return error;
        /* One byte stays free for the NUL that ends a line. */
        part.iov_base = client->buffer + client->end;
        part.iov_len = client->capacity - client->end - 1;
        n = recvmsg(client->fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (n < 0)
                return -errno;
        if (n == 0)
                return -ENODATA;
        client->end += (size_t)n;
        if (client->fds_start == client->fds_end)
                client->fds_start = client->fds_end = 0;
        client->fds_end += collect_fds(&message, client->fds + client->fds_end, FDS_WAITING - client->fds_end);
        return message.msg_flags & MSG_CTRUNC ? -EMFILE : 0;
}

static int receive_before(struct test_client *client, long long end) {
        int error;

        for (;;) {
                error = receive(client);
                if (error != -EAGAIN && error != -EINTR)
                        return error;
                error = wait_for(client, POLLIN, end);
                if (error < 0)
                        return error;
        }
}

int test_client_read_line(struct test_client *client, const char **ret_line) {
        long long end = now_ms() + test_timeout_ms();
        size_t searched = 0;

        for (;;) {
                char *line = client->buffer + client->start, *stop = NULL;
                size_t size = client->end - client->start;
                int error;

                if (size > searched)
                        stop = memchr(line + searched, '\n', size - searched);
                if (stop) {
                        *stop = '\0';
                        client->start += (size_t)(stop - line) + 1;
                        *ret_line = line;
                        return 0;
                }
                searched = size;
                error = receive_before(client, end);
                if (error < 0)
                        return error;
        }
}

int test_client_ask(struct test_client *client, const char *line, const char **ret_line) {
        int error;

        error = test_client_send_text(client, line);
        if (error >= 0)
                error = test_client_send_text(client, "\n");
        if (error < 0)
                return error;
        return test_client_read_line(client, ret_line);
}

int test_client_wait_closed(struct test_client *client) {
        long long end = now_ms() + test_timeout_ms();
        int error;

        do {
                client->start = client->end = 0;
                error = receive_before(client, end);
        } while (error == 0);
        return error == -ENODATA || error == -ECONNRESET ? 0 : error;
}

int test_client_take_fd(struct test_client *client) {
        return client->fds_start < client->fds_end ? client->fds[client->fds_start++] : -1;
}

int test_client_fd(const struct test_client *client) {
        return client->fd;
}
