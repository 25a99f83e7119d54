#include "client/channel.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/error.h"
#include "client/port.h"
#include "proto/fdpass.h"
#include "proto/frame.h"

enum {
        PIECE_SIZE = 64 << 10,
        CONNECT_SECONDS = 5,
};

struct channel {
        int refs; /* atomic */
        int fd;
        char prefix[PORT_PREFIX_SIZE]; /* of its ids; "": none */
        pthread_mutex_t send_lock; /* keeps messages whole */

        /* The receiver's: */
        struct frame_reader reader;
        int fds[2 * CHANNEL_FDS_MAX]; /* received, and not claimed by a message yet, in their order */
        size_t n_fds;
        char piece[PIECE_SIZE];
};

static int connect_error(const char *path, int error) {
        switch (error) {
        case ENOENT:
                return error_set(error,
                                 "there is no socket at %s: is dmabrokerd running? (DMABROKER_SOCKET or unix:PATH name "
                                 "another one)",
                                 path);
        case ECONNREFUSED:
                return error_set(error, "nobody listens at %s: dmabrokerd has ended, or this is not a socket; start it",
                                 path);
        case ENOTSOCK:
                return error_set(error, "%s is not a socket; give the path of the socket of dmabrokerd, or virtio:PATH for a "
                                 "virtio port", path);
        case EACCES:
        case EPERM:
                return error_set(error,
                                 "this user may not use %s: become a member of the group that owns it (dmabroker), or "
                                 "root",
                                 path);
        case EAGAIN:
                return error_set(ETIMEDOUT, "the daemon at %s does not accept connections: it is stopped or overloaded",
                                 path);
        default:
                return error_set(error, "cannot connect to %s: %s", path, strerrordesc_np(error));
        }
}

/* connect() says ECONNREFUSED for any file that is no socket; the kind of the file tells more. */
static int connect_socket(int fd, const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        struct timeval patience = { .tv_sec = CONNECT_SECONDS }, forever = { 0 };
        struct stat about;

        memcpy(address.sun_path, path, strlen(path));
        if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)))
                return connect_error(path, errno);
        while (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
                int error = errno;

                if (error == EINTR)
                        continue;
                if (error == EISCONN)
                        break;
                if (error == ECONNREFUSED && !stat(path, &about) && !S_ISSOCK(about.st_mode))
                        error = ENOTSOCK;
                return connect_error(path, error);
        }
        if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &forever, sizeof(forever)))
                return connect_error(path, errno);
        return 0;
}

int channel_adopt(int fd, const char *prefix, struct channel **ret) {
        struct channel *channel = calloc(1, sizeof(*channel));

        if (!channel) {
                close(fd);
                return error_set(ENOMEM, "there is not enough memory");
        }
        channel->refs = 1;
        channel->fd = fd;
        snprintf(channel->prefix, sizeof(channel->prefix), "%s", prefix);
        frame_reader_init(&channel->reader, CHANNEL_MESSAGE_MAX, false);
        pthread_mutex_init(&channel->send_lock, NULL);
        *ret = channel;
        return 0;
}

int channel_connect(const char *path, struct channel **ret) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

        if (fd < 0)
                return error_set(errno, "cannot make a socket: %s", strerrordesc_np(errno));
        r = connect_socket(fd, path);
        if (r) {
                close(fd);
                return r;
        }
        return channel_adopt(fd, "", ret);
}

const char *channel_prefix(const struct channel *channel) {
        return channel->prefix;
}

struct channel *channel_ref(struct channel *channel) {
        __atomic_fetch_add(&channel->refs, 1, __ATOMIC_RELAXED);
        return channel;
}

static void close_fds(int *fds, size_t n_fds) {
        for (size_t i = 0; i < n_fds; i++)
                close(fds[i]);
}

struct channel *channel_unref(struct channel *channel) {
        if (!channel || __atomic_sub_fetch(&channel->refs, 1, __ATOMIC_ACQ_REL))
                return NULL;
        if (channel->fd >= 0)
                close(channel->fd);
        close_fds(channel->fds, channel->n_fds);
        pthread_mutex_destroy(&channel->send_lock);
        frame_reader_deinit(&channel->reader);
        free(channel);
        return NULL;
}

void channel_abandon(struct channel *channel) {
        close(channel->fd);
        close_fds(channel->fds, channel->n_fds);
        frame_reader_deinit(&channel->reader);
        free(channel);
}

void channel_shutdown(struct channel *channel) {
        shutdown(channel->fd, SHUT_RDWR);
}

int channel_fd(const struct channel *channel) {
        return channel->fd;
}

int channel_send(struct channel *channel, struct iovec *pieces, size_t n_pieces) {
        ssize_t sent;
        int r = 0;

        pthread_mutex_lock(&channel->send_lock);
        while (n_pieces && !r) {
                sent = fdpass_send(channel->fd, pieces, n_pieces, NULL, 0);
                if (sent < 0)
                        r = sent;
                for (; !r && n_pieces && (size_t)sent >= pieces->iov_len; n_pieces--, pieces++)
                        sent -= pieces->iov_len;
                if (!r && n_pieces) {
                        pieces->iov_base = (char *)pieces->iov_base + sent;
                        pieces->iov_len -= sent;
                }
        }
        pthread_mutex_unlock(&channel->send_lock);
        return r;
}

/* Descriptors that the kernel had to drop, or more than the protocol knows, end the channel: a message would be given
 * descriptors of another. */
static int receive_bytes(struct channel *channel, size_t *ret_n) {
        int fds[FDPASS_MAX];
        size_t n_fds = 0;
        ssize_t n = fdpass_receive(channel->fd, channel->piece, sizeof(channel->piece), fds, &n_fds);

        if (n == -EPROTO)
                return -EMFILE; /* this process has no place for them */
        if (n <= 0)
                return n ? (int)n : -ECONNRESET;
        if (n_fds > sizeof(channel->fds) / sizeof(int) - channel->n_fds) {
                close_fds(fds, n_fds);
                return -EPROTO;
        }
        memcpy(channel->fds + channel->n_fds, fds, n_fds * sizeof(int));
        channel->n_fds += n_fds;
        *ret_n = n;
        return 0;
}

/* The number that was sent behind the prefix, in its place. */
static void strip_prefix(const struct channel *channel, json_t *message) {
        const char *id = json_string_value(json_object_get(message, "id"));
        size_t length = strlen(channel->prefix);

        if (length && id && !strncmp(id, channel->prefix, length))
                json_object_set_new(message, "id", json_integer((json_int_t)strtoull(id + length, NULL, 10)));
}

/* One line, without its LF. Its descriptors came with its bytes at the latest, so they are the first in the queue. */
static int deliver(struct channel *channel, const char *line, size_t length, channel_message_fn fn, void *userdata) {
        json_t *message = json_loadb(line, length, JSON_REJECT_DUPLICATES, NULL), *count;
        int fds[CHANNEL_FDS_MAX];
        size_t n_fds = 0;

        if (!message)
                return -EPROTO;
        strip_prefix(channel, message);
        count = json_object_get(json_object_get(message, "result"), "fds");
        if (json_is_integer(count)) {
                json_int_t n = json_integer_value(count);

                if (n < 0 || n > CHANNEL_FDS_MAX || (size_t)n > channel->n_fds) {
                        json_decref(message);
                        return -EPROTO;
                }
                n_fds = n;
                memcpy(fds, channel->fds, n_fds * sizeof(int));
                channel->n_fds -= n_fds;
                memmove(channel->fds, channel->fds + n_fds, channel->n_fds * sizeof(int));
        }
        fn(message, fds, n_fds, userdata);
        return 0;
}

int channel_receive(struct channel *channel, int timeout_ms, channel_message_fn fn, void *userdata) {
        const char *piece = channel->piece, *line;
        size_t size, length;
        int r = 0;

        if (timeout_ms >= 0) {
                struct pollfd poller = { .fd = channel->fd, .events = POLLIN };
                int ready = poll(&poller, 1, timeout_ms);

                if (ready <= 0)
                        return !ready ? -ETIMEDOUT : errno == EINTR ? 0 : -errno;
        }
        r = receive_bytes(channel, &size);
        while (!r) {
                enum frame_event event = frame_reader_next(&channel->reader, &piece, &size, &line, &length);

                if (event == FRAME_MORE)
                        break;
                r = event == FRAME_TEXT        ? deliver(channel, line, length, fn, userdata)
                    : event == FRAME_NO_MEMORY ? -ENOMEM
                                               : -EMSGSIZE;
        }
        /* Descriptors that no message claims would be given to a later one. */
        if (!r && channel->n_fds && !frame_reader_pending(&channel->reader))
                r = -EPROTO;
        return r;
}
