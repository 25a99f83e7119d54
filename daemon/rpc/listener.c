#include "daemon/rpc/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/loop.h"
#include "daemon/rpc/connection.h"
#include "daemon/rpc/error.h"
#include "daemon/rpc/principal.h"

/* ---- a place for the socket ---- */

static int make_directory(const char *path, const char *option, struct failure *failure) {
        char directory[sizeof(((struct sockaddr_un *)0)->sun_path)], *slash;

        strcpy(directory, path); /* fits: the caller has checked */
        slash = strrchr(directory, '/');
        if (!slash || slash == directory)
                return 0;
        *slash = '\0';
        for (char *at = strchr(directory + 1, '/');; at = strchr(at + 1, '/')) {
                if (at)
                        *at = '\0';
                if (mkdir(directory, 0755) < 0 && errno != EEXIST)
                        return failure_set_errno(failure, REASON_bad_param, errno,
                                                 "the directory %s cannot be made: %s; make it, or use another %s",
                                                 directory, strerror(errno), option);
                if (!at)
                        return 0;
                *at = '/';
        }
}

static int check_stale(const struct sockaddr_un *address, const char *option, struct failure *failure) {
        struct stat status;
        int fd, r;

        if (lstat(address->sun_path, &status) < 0)
                return 0;
        if (!S_ISSOCK(status.st_mode))
                return failure_set_errno(failure, REASON_bad_param, ENOTSOCK,
                                         "%s is there and is no socket; remove it, or use another %s",
                                         address->sun_path, option);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return failure_set_errno(failure, REASON_bad_param, errno, "no socket can be made: %s", strerror(errno));
        r = connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? errno : 0;
        close(fd);
        /* EAGAIN: somebody listens, and is busy. */
        if (r == 0 || r == EAGAIN)
                return failure_set_errno(failure, REASON_busy, EADDRINUSE,
                                         "another daemon answers at %s; stop it, or use another %s",
                                         address->sun_path, option);
        if (r == ECONNREFUSED && unlink(address->sun_path) == 0)
                return 0;
        return failure_set_errno(failure, REASON_bad_param, r, "the socket %s is in the way: %s; remove it",
                                 address->sun_path, strerror(r));
}

int listener_bind(const char *path, mode_t mode, const char *option, int *ret_fd, ino_t *ret_inode,
                  struct failure *failure) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        struct stat status;
        int fd, r;

        if (strlen(path) >= sizeof(address.sun_path))
                return failure_set_errno(failure, REASON_bad_param, ENAMETOOLONG,
                                         "the socket's path has %zu characters, but at most %zu fit: %s", strlen(path),
                                         sizeof(address.sun_path) - 1, path);
        strcpy(address.sun_path, path);
        r = make_directory(path, option, failure);
        if (r == 0)
                r = check_stale(&address, option, failure);
        if (r < 0)
                return r;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || chmod(path, mode) < 0 ||
            stat(path, &status) < 0 || listen(fd, SOMAXCONN) < 0) {
                r = errno;
                if (fd >= 0)
                        close(fd);
                return failure_set_errno(failure, REASON_bad_param, r, "cannot listen at %s: %s; use another %s",
                                         path, strerror(r), option);
        }
        *ret_fd = fd;
        *ret_inode = status.st_ino;
        return 0;
}

void listener_unlink(const char *path, ino_t inode) {
        struct stat status;

        if (lstat(path, &status) == 0 && S_ISSOCK(status.st_mode) && status.st_ino == inode)
                unlink(path);
}

/* ---- accepting ---- */

/* Without a free descriptor nothing can be accepted, and the socket stays readable for ever. So one descriptor is kept
 * for that moment: it makes room to accept, tell, and close. When even that is gone, accepting pauses. */
struct listener {
        struct server *server;
        int fd, spare;
        uv_poll_t poll;
        uv_timer_t pause;
        unsigned n_handles;
        bool exhausted; /* has been told */
};

enum { ACCEPTS_AT_ONCE = 32, PAUSE_MS = 500 };

static void on_readable(uv_poll_t *handle, int status, int events);

static void send_once(struct rpc_peer *peer, const char *text, size_t length, const int *fds, size_t n_fds) {
        /* A new socket has room for a line; there is nobody to tell when it has not. */
        ssize_t n = send(*(int *)peer->userdata, text, length, MSG_DONTWAIT | MSG_NOSIGNAL);

        (void)n;
}

/* Consumes fd. */
static void refuse(struct server *server, int fd, const struct failure *failure) {
        struct rpc_error error;
        struct rpc_peer peer;

        server->counters.refused++;
        error_of_failure(failure, &error);
        rpc_peer_init(&peer, server->service, SCHEMA_ROLE_ANY, false, send_once, &fd);
        rpc_peer_complain(&peer, &error);
        rpc_peer_drop(&peer);
        close(fd);
}

static int check_room(struct server *server, const struct identity *identity, const struct principal *principal,
                      struct failure *failure) {
        uint64_t limit = principal_limit(server, principal), used = principal_connections(principal) - 1;

        if (server->n_connections >= server->settings.connections) {
                failure_set(failure, REASON_limit, "The daemon has %zu connections already; try again later",
                            server->n_connections);
                failure_add_number(failure, "limit", server->settings.connections);
                return -E2BIG;
        }
        if (used < limit)
                return 0;
        failure_set(failure, REASON_quota, "%s has %llu connections already, which is all that its quota allows",
                    identity->owner, (unsigned long long)used);
        failure_add_text(failure, "quota", quota_name(QUOTA_connections));
        failure_add_number(failure, "limit", limit);
        failure_add_number(failure, "in_use", used);
        return -EDQUOT;
}

/* Consumes fd. */
static void admit(struct server *server, int fd) {
        struct principal *principal = NULL;
        struct failure failure = { 0 };
        struct identity identity;
        int r;

        r = identity_of_socket(fd, &server->settings.rules, &identity, &failure);
        if (r == 0) {
                principal = principal_get(server, identity.owner);
                r = principal ? check_room(server, &identity, principal, &failure)
                              : failure_set(&failure, REASON_no_memory, "The daemon itself is out of memory");
        }
        if (r < 0) {
                log_debug("refused a connection: %s", failure.sentence);
                refuse(server, fd, &failure);
        } else {
                r = connection_new(server, fd, &identity, principal);
                if (r < 0)
                        log_error("a connection of %s cannot be served: %s", identity.owner, strerror(-r));
        }
        principal_unref(server, principal);
}

static void on_pause_over(uv_timer_t *timer);

static void pause_accepting(struct listener *listener) {
        uv_poll_stop(&listener->poll);
        uv_timer_start(&listener->pause, on_pause_over, PAUSE_MS, 0);
}

static void resume_accepting(struct listener *listener) {
        if (loop_watch(&listener->poll, UV_READABLE, on_readable) < 0)
                pause_accepting(listener);
}

static void on_pause_over(uv_timer_t *timer) {
        struct listener *listener = timer->data;

        if (listener->spare < 0)
                listener->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
        resume_accepting(listener);
}

/* Returns whether the next connection may be looked at. */
static bool on_exhausted(struct listener *listener, int error) {
        struct failure failure = { 0 };
        int fd = -1;

        if (!listener->exhausted)
                log_error("no connection can be accepted: %s; raise LimitNOFILE=, or lower connections in [limits]",
                          strerror(error));
        listener->exhausted = true;
        if (listener->spare >= 0 && (error == EMFILE || error == ENFILE)) {
                close(listener->spare);
                fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
                if (fd >= 0) {
                        failure_set(&failure, REASON_limit, "The daemon has no file descriptors left; try again later");
                        refuse(listener->server, fd, &failure);
                }
                listener->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
        }
        if (fd < 0 || listener->spare < 0) {
                pause_accepting(listener);
                return false;
        }
        return true;
}

static void on_readable(uv_poll_t *handle, int status, int events) {
        struct listener *listener = handle->data;
        int fd, error;

        for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
                fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
                error = errno;
                if (fd >= 0) {
                        listener->exhausted = false;
                        admit(listener->server, fd);
                } else if (error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM) {
                        if (!on_exhausted(listener, error))
                                return;
                } else if (error != ECONNABORTED && error != EINTR)
                        return;
        }
}

/* ---- beginning and end ---- */

static void on_closed(uv_handle_t *handle) {
        struct listener *listener = handle->data;
        struct server *server = listener->server;

        if (--listener->n_handles)
                return;
        close(listener->fd);
        if (listener->spare >= 0)
                close(listener->spare);
        free(listener);
        server->listener = NULL;
        server_connection_gone(server);
}

int listener_new(struct server *server, int fd, struct listener **ret) {
        struct listener *listener = calloc(1, sizeof(*listener));
        int r;

        if (!listener) {
                close(fd);
                return -ENOMEM;
        }
        *listener = (struct listener){ .server = server, .fd = fd, .n_handles = 2 };
        listener->poll.data = listener->pause.data = listener;
        r = uv_poll_init(server->loop, &listener->poll, fd);
        if (r < 0) {
                close(fd);
                free(listener);
                return r;
        }
        uv_timer_init(server->loop, &listener->pause);
        listener->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
        resume_accepting(listener);
        *ret = listener;
        return 0;
}

void listener_close(struct listener *listener) {
        uv_close((uv_handle_t *)&listener->poll, on_closed);
        uv_close((uv_handle_t *)&listener->pause, on_closed);
}
