#include "daemon/guest/ivshmem.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utlist.h>

#include "daemon/log.h"
#include "daemon/loop.h"
#include "daemon/rpc/listener.h"
#include "proto/fdpass.h"

enum {
        ACCEPTS_AT_ONCE = 32,
        PAUSE_MS = 50, /* somebody's guest stands still meanwhile */
        LINGER_LOOK_MS = 10,
        LINGER_MAX_MS = 2000,
        TELL_MS = 1000, /* whoever is refused often shall not fill the log */
        SIZE_MIN = 4096,
};

/* What travels, in the protocol that QEMU has spoken since 2.5. */
enum {
        VERSION = 0,
        VERSION_REFUSED = 99, /* one that QEMU does not know */
        PEER_ID = 1,          /* 0 would tell the guest nothing: a device without interrupts has it too */
        MEMORY = -1,
        NONSENSE = -2, /* what QEMU refuses in place of any message that comes before the memory */
};

struct peer {
        struct ivshmem *server;
        struct peer *prev, *next; /* in server->refused */
        int fd;
        uv_poll_t poll;
        struct ucred who;
        bool is_refused, closing;
};

struct ivshmem {
        uv_loop_t *loop;
        struct ivshmem_options options;
        char *path;
        ino_t inode;
        int fd, memory_fd;
        int spare; /* in the place of a connection that could not be refused otherwise */
        uint64_t size;
        uv_poll_t poll;
        uv_timer_t pause;
        unsigned n_handles;
        bool closing;
        void (*closed)(void *userdata);

        struct peer *peer; /* who has the window, or NULL */
        int vectors[IVSHMEM_VECTORS_MAX]; /* of the peer, made for it */
        struct peer *refused;
        unsigned n_refused;
        uint64_t linger_ms; /* when nobody is waited for any more */
        uint64_t tell_ms; /* when the next refusal is worth a warning */
};

/* ---- what is said ---- */

/* fd: borrowed, or -1. A message is so short that it goes whole or not at all. */
static int send_message(int socket, int64_t value, int fd) {
        const int64_t wire = (int64_t)htole64((uint64_t)value);
        const struct iovec piece = { .iov_base = (void *)&wire, .iov_len = sizeof(wire) };
        ssize_t n = fdpass_send(socket, &piece, 1, &fd, fd >= 0);

        return n < 0 ? (int)n : 0;
}

/* Fails only before the memory has gone; then the peer knows that it gets none. Each message is sent by itself, because
 * QEMU looks for the descriptor of a message where the message is. */
static int send_window(struct ivshmem *server, const struct peer *peer) {
        int r = send_message(peer->fd, VERSION, -1);

        if (r == 0)
                r = send_message(peer->fd, PEER_ID, -1);
        if (r == 0)
                r = send_message(peer->fd, MEMORY, server->memory_fd);
        if (r < 0) {
                send_message(peer->fd, NONSENSE, -1);
                return r;
        }
        for (unsigned i = 0; i < server->options.vectors && r == 0; i++)
                r = send_message(peer->fd, PEER_ID, server->vectors[i]);
        if (r < 0)
                log_warning("the guest with the window %s can not be interrupted: %s", server->path, strerror(-r));
        return 0;
}

/* Whether it has read all that it was told, or is no more. */
static bool has_heard(const struct peer *peer) {
        struct pollfd end = { .fd = peer->fd, .events = POLLRDHUP };
        int unread = 0;

        return poll(&end, 1, 0) > 0 || (ioctl(peer->fd, SIOCOUTQ, &unread) == 0 && !unread);
}

/* ---- peers ---- */

static void handle_closed(struct ivshmem *server);

static void close_vectors(struct ivshmem *server) {
        for (unsigned i = 0; i < IVSHMEM_VECTORS_MAX; i++) {
                if (server->vectors[i] >= 0)
                        close(server->vectors[i]);
                server->vectors[i] = -1;
        }
}

/* New ones for everybody, so that who had the window before can not interrupt who has it now. */
static int make_vectors(struct ivshmem *server) {
        for (unsigned i = 0; i < server->options.vectors; i++) {
                server->vectors[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
                if (server->vectors[i] < 0) {
                        int r = -errno;

                        close_vectors(server);
                        return r;
                }
        }
        return 0;
}

static void on_peer_closed(uv_handle_t *handle) {
        struct peer *peer = handle->data;
        struct ivshmem *server = peer->server;

        close(peer->fd);
        free(peer);
        handle_closed(server);
}

static void peer_close(struct peer *peer) {
        struct ivshmem *server = peer->server;

        if (peer->closing)
                return;
        peer->closing = true;
        uv_close((uv_handle_t *)&peer->poll, on_peer_closed);
        if (peer->is_refused) {
                DL_DELETE(server->refused, peer);
                server->n_refused--;
        }
        if (server->peer == peer) {
                server->peer = NULL;
                close_vectors(server);
                if (server->options.changed && !server->closing)
                        server->options.changed(server->options.userdata, false, &peer->who);
        }
}

/* It has nothing to say, so that only its end is watched for. */
static void on_peer_event(uv_poll_t *handle, int status, int events) {
        peer_close(handle->data);
}

/* Consumes fd, if it returns a peer. It is there even when its end can not be watched for, and must be refused then. */
static struct peer *peer_new(struct ivshmem *server, int fd, int *ret_error) {
        struct peer *peer = calloc(1, sizeof(*peer));
        socklen_t length = sizeof(peer->who);

        if (!peer)
                return NULL;
        if (uv_poll_init(server->loop, &peer->poll, fd) < 0) {
                free(peer);
                return NULL;
        }
        peer->server = server;
        peer->fd = fd;
        peer->poll.data = peer;
        server->n_handles++;
        *ret_error = loop_watch(&peer->poll, UV_DISCONNECT, on_peer_event);
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer->who, &length) < 0)
                *ret_error = -errno;
        return peer;
}

/* who: 0 where that is not known. */
static void tell_refusal(struct ivshmem *server, pid_t who, const char *why) {
        bool often = uv_now(server->loop) < server->tell_ms;

        log_fields(often ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARNING, NULL, "a process (pid %ld) does not get the window %s: %s",
                   (long)who, server->path, why);
        if (!often)
                server->tell_ms = uv_now(server->loop) + TELL_MS;
}

/* Only so many are kept. One that has read what it was told does not miss its connection; among those that have not,
 * the oldest has had the most time. */
static void drop_one_refused(struct ivshmem *server) {
        struct peer *peer;

        DL_FOREACH(server->refused, peer) {
                if (has_heard(peer))
                        break;
        }
        peer_close(peer ? peer : server->refused);
}

/* It is told, unless it was told already. */
static void refuse(struct peer *peer, bool is_told, const char *why) {
        struct ivshmem *server = peer->server;

        tell_refusal(server, peer->who.pid, why);
        if (!is_told)
                send_message(peer->fd, VERSION_REFUSED, -1);
        peer->is_refused = true;
        DL_APPEND(server->refused, peer);
        if (++server->n_refused > IVSHMEM_REFUSED_MAX && !server->closing)
                drop_one_refused(server);
}

static bool has_hung_up(const struct peer *peer) {
        struct pollfd end = { .fd = peer->fd, .events = POLLRDHUP };

        return poll(&end, 1, 0) > 0;
}

/* QEMU ends and is started again faster than the loop goes round. */
static void forget_ended_peer(struct ivshmem *server) {
        if (server->peer && has_hung_up(server->peer))
                peer_close(server->peer);
}

static bool is_memory_as_it_was(const struct ivshmem *server) {
        struct stat st;

        return fstat(server->memory_fd, &st) == 0 && (uint64_t)st.st_size == server->size;
}

static const char *why_refused(struct ivshmem *server, const struct peer *peer) {
        forget_ended_peer(server);
        if (server->closing)
                return "it is being closed";
        if (server->peer)
                return "another one has it";
        if (!is_memory_as_it_was(server))
                return "the memory has changed its size";
        if (!server->options.admits || server->options.admits(server->options.userdata, peer->fd, &peer->who))
                return NULL;
        return server->closing ? "it is being closed" : "it is not admitted";
}

/* 0, or -errno; then is_told tells whether the peer knows. */
static int give(struct ivshmem *server, const struct peer *peer, bool *is_told) {
        int r = server->closing ? -ECANCELED : make_vectors(server);

        *is_told = r == 0;
        if (r == 0)
                r = send_window(server, peer);
        if (r < 0)
                close_vectors(server);
        return r;
}

static void answer(struct ivshmem *server, struct peer *peer) {
        const char *why = why_refused(server, peer);
        bool is_told;
        int r;

        if (why) {
                refuse(peer, false, why);
                return;
        }
        r = give(server, peer, &is_told);
        if (r < 0) {
                refuse(peer, is_told, strerror(-r));
                if (server->options.not_given && !server->closing)
                        server->options.not_given(server->options.userdata);
                return;
        }
        server->peer = peer;
        if (server->options.changed)
                server->options.changed(server->options.userdata, true, &peer->who);
}

/* ---- accepting ---- */

static void on_readable(uv_poll_t *handle, int status, int events);
static void on_pause_over(uv_timer_t *timer);

static void pause_accepting(struct ivshmem *server) {
        uv_poll_stop(&server->poll);
        uv_timer_start(&server->pause, on_pause_over, PAUSE_MS, 0);
}

static void keep_spare(struct ivshmem *server) {
        if (server->spare < 0)
                server->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void on_pause_over(uv_timer_t *timer) {
        struct ivshmem *server = timer->data;

        keep_spare(server);
        if (loop_watch(&server->poll, UV_READABLE, on_readable) < 0)
                pause_accepting(server);
}

/* 0, or -errno when there is nobody, or nobody can be let in. */
static int accept_one(struct ivshmem *server, int *ret_fd) {
        do
                *ret_fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        while (*ret_fd < 0 && (errno == EINTR || errno == ECONNABORTED));
        return *ret_fd < 0 ? -errno : 0;
}

/* The spare descriptor is given to one that is refused: without a word QEMU would stand still, and without its
 * connection it would spin for ever. Whoever comes then waits until there is a descriptor. */
static bool use_spare(struct ivshmem *server) {
        if (server->spare < 0)
                return false;
        close(server->spare);
        server->spare = -1;
        return true;
}

/* 0, or -errno when there is nobody, or nobody can be let in. */
static int let_in(struct ivshmem *server) {
        struct peer *peer;
        int fd, r = accept_one(server, &fd), error = 0;
        bool is_last = false;

        if ((r == -EMFILE || r == -ENFILE) && use_spare(server)) {
                r = accept_one(server, &fd);
                is_last = true;
        }
        if (r < 0)
                return r;
        peer = peer_new(server, fd, &error);
        if (!peer) {
                send_message(fd, VERSION_REFUSED, -1);
                close(fd);
                return -ENOMEM;
        }
        if (is_last || error < 0)
                refuse(peer, false, is_last ? "no descriptor is left" : strerror(-error));
        else
                answer(server, peer);
        return 0;
}

static void on_readable(uv_poll_t *handle, int status, int events) {
        struct ivshmem *server = handle->data;
        int r = 0;

        keep_spare(server);
        for (int i = 0; i < ACCEPTS_AT_ONCE && r == 0 && !server->closing; i++)
                r = let_in(server);
        if (r < 0 && r != -EAGAIN && !server->closing)
                pause_accepting(server);
}

/* ---- beginning and end ---- */

static void ivshmem_free(struct ivshmem *server) {
        if (server->fd >= 0)
                close(server->fd);
        if (server->spare >= 0)
                close(server->spare);
        if (server->memory_fd >= 0)
                close(server->memory_fd);
        free(server->path);
        free(server);
}

static void handle_closed(struct ivshmem *server) {
        void (*closed)(void *) = server->closed;
        void *userdata = server->options.userdata;

        if (--server->n_handles)
                return;
        ivshmem_free(server);
        if (closed)
                closed(userdata);
}

static void on_closed(uv_handle_t *handle) {
        handle_closed(handle->data);
}

/* ---- the end, which is not at once ---- */

static void on_linger(uv_timer_t *timer) {
        struct ivshmem *server = timer->data;
        bool is_over = uv_now(server->loop) >= server->linger_ms;
        struct peer *peer, *next;

        DL_FOREACH_SAFE(server->refused, peer, next) {
                if (is_over || has_heard(peer))
                        peer_close(peer);
        }
        if (server->peer && (is_over || has_heard(server->peer)))
                peer_close(server->peer);
        if (server->peer || server->refused)
                return;
        uv_close((uv_handle_t *)&server->poll, on_closed);
        uv_close((uv_handle_t *)&server->pause, on_closed);
}

/* Whoever waits to be let in is let in and refused, and whoever has not read yet what it was told is waited for a
 * little: QEMU spins when it has only connected, loses its connection, and is then given the device. */
void ivshmem_close(struct ivshmem *server, void (*closed)(void *userdata)) {
        if (server->closing)
                return;
        server->closing = true;
        server->closed = closed;
        listener_unlink(server->path, server->inode);
        uv_poll_stop(&server->poll);
        while (let_in(server) == 0)
                ;
        if (server->spare >= 0)
                close(server->spare);
        server->spare = -1;
        server->linger_ms = uv_now(server->loop) + LINGER_MAX_MS;
        uv_timer_start(&server->pause, on_linger, 0, LINGER_LOOK_MS);
}

static int take_memory(struct ivshmem *server, int memory_fd, struct failure *failure) {
        struct stat st;

        if (fstat(memory_fd, &st) < 0)
                return failure_set_errno(failure, REASON_bad_param, errno, "the window's memory cannot be examined: %s",
                                         strerror(errno));
        server->size = (uint64_t)st.st_size;
        if (server->size < SIZE_MIN || (server->size & (server->size - 1)))
                return failure_set(failure, REASON_wrong_size,
                                   "a window's memory must have a power of two of bytes, at least %d, but this has %" PRIu64,
                                   SIZE_MIN, server->size);
        server->memory_fd = fcntl(memory_fd, F_DUPFD_CLOEXEC, 0);
        if (server->memory_fd < 0)
                return failure_set_errno(failure, REASON_limit, errno, "the window's memory cannot be kept: %s",
                                         strerror(errno));
        return 0;
}

static int watch_socket(struct ivshmem *server, struct failure *failure) {
        int r = uv_poll_init(server->loop, &server->poll, server->fd);

        if (r < 0) {
                listener_unlink(server->path, server->inode);
                return failure_set_errno(failure, REASON_unsupported, -r, "the socket %s cannot be waited for: %s", server->path,
                                         strerror(-r));
        }
        uv_timer_init(server->loop, &server->pause);
        server->poll.data = server->pause.data = server;
        server->n_handles = 2;
        on_pause_over(&server->pause);
        return 0;
}

static struct ivshmem *ivshmem_make(uv_loop_t *loop, const char *path, const struct ivshmem_options *options) {
        struct ivshmem *server = calloc(1, sizeof(*server));

        if (!server)
                return NULL;
        server->loop = loop;
        server->options = *options;
        server->fd = server->memory_fd = server->spare = -1;
        for (unsigned i = 0; i < IVSHMEM_VECTORS_MAX; i++)
                server->vectors[i] = -1;
        server->path = strdup(path);
        if (server->path)
                return server;
        ivshmem_free(server);
        return NULL;
}

int ivshmem_new(uv_loop_t *loop, const char *path, int memory_fd, const struct ivshmem_options *options, struct ivshmem **ret,
                struct failure *failure) {
        struct ivshmem *server;
        int r;

        if (options->vectors > IVSHMEM_VECTORS_MAX)
                return failure_set(failure, REASON_bad_param, "a window has at most %d interrupts", IVSHMEM_VECTORS_MAX);
        server = ivshmem_make(loop, path, options);
        if (!server)
                return failure_set(failure, REASON_no_memory, "there is no memory for a window");
        r = take_memory(server, memory_fd, failure);
        if (r == 0)
                r = listener_bind(server->path, options->is_open ? 0666 : 0600, "socket for the window", &server->fd,
                                  &server->inode, failure);
        if (r == 0)
                r = watch_socket(server, failure);
        if (r < 0) {
                ivshmem_free(server);
                return r;
        }
        *ret = server;
        return 0;
}

bool ivshmem_is_connected(const struct ivshmem *server) {
        return server->peer && !has_hung_up(server->peer);
}

/* That a counter is full only means that the guest has not looked at the interrupts before. */
int ivshmem_interrupt(struct ivshmem *server, unsigned vector) {
        if (vector >= server->options.vectors)
                return -EINVAL;
        if (!server->peer)
                return -ENOTCONN;
        return eventfd_write(server->vectors[vector], 1) < 0 && errno != EAGAIN ? -errno : 0;
}
