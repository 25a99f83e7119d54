#include "daemon/source/keep.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "daemon/source/keep-store.h"
#include "daemon/source/keeper.h"

enum {
        ANSWER_SECONDS = 10,
        REVIVALS = 3, /* for one request */
        /* Between attempts to have a keeper again: twice as long each time. */
        RETRY_SECONDS = 1,
        RETRY_SECONDS_MAX = 64,
        GREETINGS = 100, /* an end takes no longer */
        /* The manager passes the names as one environment variable, and the kernel takes no longer ones than 128 KiB. */
        STORE_NAMES_MAX = 120 * 1024,
};

struct held {
        char name[KEEP_NAME_MAX + 1];
        int fd;         /* the keep's own until it is taken, then borrowed */
        bool untaken;   /* from an earlier daemon */
        uint32_t slot;  /* in the keeper */
        UT_hash_handle hh;
};

struct keep {
        pthread_mutex_t mutex;
        struct held *held;
        char about[128];

        /* The service manager's store. */
        uint64_t store_max; /* 0: the keeper it is */
        size_t names_bytes;

        /* The keeper. */
        int directory_fd; /* borrowed */
        uint64_t keep_ms;
        int socket;       /* -1: there is no keeper at present */
        int pid_fd;       /* readable when the keeper has died */
        int event_fd;     /* epoll: pid_fd, told_fd and timer_fd */
        int timer_fd;     /* runs while there is none */
        int retry_seconds;
        int told_fd;      /* eventfd: raised when the keeper's death was seen by another thread first */
        int attended;     /* what keep_attend() has still to tell */
        struct failure failure;
};

_Static_assert((int)KEEP_NAME_MAX < (int)KEEPER_NAME_SIZE, "a name fits into a request");

static bool is_name(const char *name) {
        size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");

        return length > 0 && length <= KEEP_NAME_MAX && !name[length];
}

/* ---- the books ---- */

static struct held *find(struct keep *keep, const char *name) {
        struct held *held;

        HASH_FIND_STR(keep->held, name, held);
        return held;
}

static int enter(struct keep *keep, const char *name, int fd, struct held **ret) {
        struct held *held = calloc(1, sizeof(*held));

        if (!held)
                return -ENOMEM;
        snprintf(held->name, sizeof(held->name), "%s", name);
        held->fd = fd;
        HASH_ADD_STR(keep->held, name, held);
        if (!held->hh.tbl) {
                free(held);
                return -ENOMEM;
        }
        keep->names_bytes += strlen(name) + sizeof(KEEP_STORE_PREFIX);
        *ret = held;
        return 0;
}

static void forget(struct keep *keep, struct held *held) {
        HASH_DEL(keep->held, held);
        keep->names_bytes -= strlen(held->name) + sizeof(KEEP_STORE_PREFIX);
        if (held->untaken)
                close(held->fd);
        free(held);
}

/* From an earlier daemon. The descriptor is the keep's from here on. */
static int enter_untaken(struct keep *keep, const char *name, int fd, uint32_t slot) {
        struct held *held;
        int r;

        r = is_name(name) && !find(keep, name) ? enter(keep, name, fd, &held) : -EEXIST;
        if (r < 0) {
                close(fd);
                return r;
        }
        held->untaken = true;
        held->slot = slot;
        return 0;
}

/* ---- talking to the keeper ---- */

static int send_request(int socket, const struct keeper_request *request, int fd) {
        _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = { 0 };
        struct iovec part = { .iov_base = (void *)request, .iov_len = sizeof(*request) };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
        struct cmsghdr *head;
        ssize_t n;

        if (fd >= 0) {
                message.msg_control = control;
                message.msg_controllen = sizeof(control);
                head = CMSG_FIRSTHDR(&message);
                *head = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET,
                                          .cmsg_type = SCM_RIGHTS };
                memcpy(CMSG_DATA(head), &fd, sizeof(int));
        }
        do
                n = sendmsg(socket, &message, MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : 0;
}

static int wait_for_answer(int socket) {
        struct pollfd poll_for = { .fd = socket, .events = POLLIN };
        struct timespec now;
        int64_t until, left;
        int r;

        clock_gettime(CLOCK_MONOTONIC, &now);
        until = (now.tv_sec + ANSWER_SECONDS) * INT64_C(1000) + now.tv_nsec / 1000000;
        do {
                clock_gettime(CLOCK_MONOTONIC, &now);
                left = until - (now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000);
                r = poll(&poll_for, 1, left > 0 ? (int)left : 0);
        } while (r < 0 && errno == EINTR);
        /* An answer that was not waited for would be taken for that to the next request. */
        return r < 0 ? -EPIPE : r == 0 ? -ETIMEDOUT : 0;
}

/* fds: where the descriptors go, reply->n of them; NULL: none are expected. */
static int receive_reply(int socket, struct keeper_reply *reply, int *fds) {
        _Alignas(struct cmsghdr) char control[CMSG_SPACE(KEEPER_BATCH * sizeof(int))];
        struct iovec part = { .iov_base = reply, .iov_len = sizeof(*reply) };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                                  .msg_controllen = fds ? sizeof(control) : 0 };
        struct cmsghdr *head;
        size_t i, n_fds = 0;
        ssize_t n;

        do
                n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
        while (n < 0 && errno == EINTR);
        /* Whatever went wrong: the answer is there still, or will never come. */
        if (n <= 0)
                return -EPIPE;
        head = CMSG_FIRSTHDR(&message);
        if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) {
                n_fds = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                memcpy(fds, CMSG_DATA(head), n_fds * sizeof(int));
        }
        if ((size_t)n >= offsetof(struct keeper_reply, items) && reply->version != KEEPER_VERSION)
                n = -EPROTONOSUPPORT;
        else if ((size_t)n < offsetof(struct keeper_reply, items) || reply->n != n_fds ||
                 (size_t)n != offsetof(struct keeper_reply, items) + n_fds * sizeof(reply->items[0]))
                n = message.msg_flags & MSG_CTRUNC ? -EMFILE : -EPROTO;
        if (n < 0) {
                for (i = 0; i < n_fds; i++)
                        close(fds[i]);
                return (int)n;
        }
        return reply->error;
}

static int ask(int socket, const struct keeper_request *request, int fd, struct keeper_reply *reply, int *fds) {
        int r;

        r = send_request(socket, request, fd);
        if (r == 0)
                r = wait_for_answer(socket);
        return r < 0 ? r : receive_reply(socket, reply, fds);
}

/* Whether the keeper is of no use any more, or what it says of one request only. */
static bool is_lost(int error) {
        return error == -EPIPE || error == -ECONNRESET || error == -ENOTCONN || error == -EPROTO || error == -ETIMEDOUT;
}

static void set_name(struct keeper_request *request, const char *name) {
        snprintf(request->name, sizeof(request->name), "%s", name);
}

/* ---- the keeper's life ---- */

/* *ret_pid_fd: readable, as the keep's event_fd, when that one has died; -1 where there is no such thing. */
static int watch(struct keep *keep, int64_t pid, int *ret_pid_fd) {
        struct epoll_event event = { .events = EPOLLIN };
        int fd, r = 0;

        fd = pidfd_open((pid_t)pid, 0);
        if (fd < 0)
                r = errno == ENOSYS ? 0 : -errno;
        else if (epoll_ctl(keep->event_fd, EPOLL_CTL_ADD, fd, &event) < 0)
                r = -errno;
        if (r < 0 && fd >= 0)
                close(fd);
        if (r == 0)
                *ret_pid_fd = fd;
        return r == -ESRCH ? -EPIPE : r;
}

static int greet(struct keep *keep, int socket, int *ret_pid_fd) {
        struct keeper_request request = { .op = KEEPER_HELLO, .keep_ms = keep->keep_ms };
        struct keeper_reply reply;
        int r;

        r = ask(socket, &request, -1, &reply, NULL);
        return r < 0 ? r : watch(keep, reply.pid, ret_pid_fd);
}

static int put_again(struct held *held, int socket) {
        struct keeper_request request = { .op = KEEPER_PUT };
        struct keeper_reply reply;
        int r;

        set_name(&request, held->name);
        r = ask(socket, &request, held->fd, &reply, NULL);
        if (r == 0)
                held->slot = reply.slot;
        return r;
}

/* The mark last: a daemon that finds it takes what else there is for everything. */
static int put_all(struct keep *keep, int socket) {
        struct held *held, *mark = find(keep, KEEP_MARK);
        int r = 0;

        for (held = keep->held; held && r == 0; held = held->hh.next)
                if (held != mark)
                        r = put_again(held, socket);
        return r == 0 && mark ? put_again(mark, socket) : r;
}

/* One that does not answer must not be left to wake up. Returns -1, for what its descriptor was in; which takes it out of
 * the epoll set, too. */
static int make_sure_of_death(int pid_fd) {
        struct pollfd poll_for = { .fd = pid_fd, .events = POLLIN };

        if (pid_fd < 0)
                return -1;
        if (pidfd_send_signal(pid_fd, SIGKILL, NULL, 0) == 0)
                while (poll(&poll_for, 1, ANSWER_SECONDS * 1000) < 0 && errno == EINTR)
                        ;
        close(pid_fd);
        return -1;
}

/* Only part of everything is there: nobody may find it. */
static void give_up(int socket, int pid_fd, int error) {
        struct keeper_request request = { .op = KEEPER_END };
        struct keeper_reply reply;

        if (!is_lost(error))
                ask(socket, &request, -1, &reply, NULL);
        make_sure_of_death(pid_fd);
        close(socket);
}

/* The one before, if there is any, may live and have everything until this one has. */
static int start(struct keep *keep) {
        int fd, pid_fd = -1, r;

        r = keeper_start(keep->directory_fd, &fd);
        if (r < 0)
                return r;
        r = greet(keep, fd, &pid_fd);
        if (r == 0)
                r = put_all(keep, fd);
        if (r == 0) {
                keep->pid_fd = make_sure_of_death(keep->pid_fd);
                r = keeper_settle(keep->directory_fd);
        }
        if (r < 0) {
                give_up(fd, pid_fd, r);
                return r;
        }
        keep->pid_fd = pid_fd;
        keep->socket = fd;
        keep->retry_seconds = RETRY_SECONDS;
        return 0;
}

static void raise_event(struct keep *keep) {
        uint64_t one = 1;
        ssize_t n;

        /* Fails only when it is raised already. */
        do
                n = write(keep->told_fd, &one, sizeof(one));
        while (n < 0 && errno == EINTR);
}

static void try_later(struct keep *keep) {
        const struct itimerspec later = { .it_value.tv_sec = keep->retry_seconds };

        timerfd_settime(keep->timer_fd, 0, &later, NULL);
        if (keep->retry_seconds < RETRY_SECONDS_MAX)
                keep->retry_seconds *= 2;
}

/* What the old one has is not everything any more from here on: nobody may find it. */
static void go_without(struct keep *keep, const char *why) {
        unlinkat(keep->directory_fd, KEEPER_SOCKET, 0);
        keep->pid_fd = make_sure_of_death(keep->pid_fd);
        failure_set(&keep->failure, REASON_source_unavailable,
                    "the process that keeps the memory when the daemon ends has died, and no other can be made (%s): no memory "
                    "outlives the daemon until one can, in %d s perhaps", why, keep->retry_seconds);
        try_later(keep);
}

/* There is no keeper: another one gets everything. 0, or -errno, after which it is tried again in a while. */
static int replace(struct keep *keep) {
        int r = start(keep);

        /* What was short may be there again already. */
        if (r < 0)
                r = start(keep);
        keep->attended = r < 0 ? r : 1;
        if (r < 0) {
                go_without(keep, strerror(-r));
        } else {
                failure_set(&keep->failure, REASON_source_unavailable,
                            "the process that keeps the memory when the daemon ends had died: another one has all %u "
                            "descriptors again", HASH_COUNT(keep->held));
        }
        raise_event(keep);
        return r;
}

/* The keeper is no more, or does not answer. As replace(). */
static int revive(struct keep *keep) {
        close(keep->socket);
        keep->socket = -1;
        return replace(keep);
}

/* Whether the keeper and the books may disagree from here on. What it was not told to drop it would hold for ever; and that it
 * does not know what it has is an answer to something else. */
static bool is_out_of_step(enum keeper_op op, int error) {
        return is_lost(error) || error == -ENOENT || (op == KEEPER_DROP && error < 0);
}

/* Another keeper is made if this one is dead; it then has what the books say. 1: there is none at present; the next one will
 * have it. */
static int request_keeper(struct keep *keep, enum keeper_op op, struct held *held) {
        struct keeper_request request = { .op = op };
        struct keeper_reply reply;
        int r, tries;

        set_name(&request, held->name);
        for (tries = 0; tries < REVIVALS; tries++) {
                if (keep->socket < 0)
                        return 1;
                request.slot = held->slot;
                r = ask(keep->socket, &request, op == KEEPER_PUT ? held->fd : -1, &reply, NULL);
                if (!is_out_of_step(op, r)) {
                        if (r == 0 && op == KEEPER_PUT)
                                held->slot = reply.slot;
                        return r;
                }
                if (revive(keep) < 0)
                        return 1;
                if (op == KEEPER_PUT)
                        return 0;
        }
        close(keep->socket);
        keep->socket = -1;
        keep->attended = -EPIPE;
        go_without(keep, "none answers");
        raise_event(keep);
        return 1;
}

/* ---- opening ---- */

static int receive_held(struct keep *keep) {
        struct keeper_request request = { .op = KEEPER_LIST };
        struct keeper_reply reply;
        int fds[KEEPER_BATCH], r;
        uint32_t i;

        do {
                r = ask(keep->socket, &request, -1, &reply, fds);
                if (r < 0)
                        return r;
                for (i = 0; i < reply.n; i++) {
                        reply.items[i].name[KEEPER_NAME_SIZE - 1] = '\0';
                        if (enter_untaken(keep, reply.items[i].name, fds[i], reply.items[i].slot) == -ENOMEM)
                                r = -ENOMEM;
                }
                request.slot = reply.slot;
        } while (r == 0 && reply.slot != UINT32_MAX);
        return r;
}

/* The keeper of an earlier daemon. -ENOENT: there is none. One that ends just when we come is gone the next time; one that
 * hangs up otherwise has what must not be lost. */
static int greet_old(struct keep *keep, const char *name) {
        int r, tries = 0;

        do {
                r = keeper_connect(keep->directory_fd, name, &keep->socket);
                if (r < 0)
                        continue;
                r = greet(keep, keep->socket, &keep->pid_fd);
                if (r == 0)
                        return 0;
                close(keep->socket);
                keep->socket = -1;
        } while ((r == -EPIPE || r == -ECONNRESET) && ++tries < GREETINGS);
        return r;
}

/* The daemon was killed before it had another keeper take the place of the one that we have found. */
static int end_next(struct keep *keep) {
        struct keeper_request request = { .op = KEEPER_END };
        struct keeper_reply reply;
        int fd, r;

        r = keeper_connect(keep->directory_fd, KEEPER_SOCKET_NEXT, &fd);
        if (r < 0)
                return r == -ENOENT ? 0 : r;
        r = ask(fd, &request, -1, &reply, NULL);
        close(fd);
        return is_lost(r) ? 0 : r;
}

/* -ENOENT: there is none. Of two, the next one may not have everything. */
static int find_keeper(struct keep *keep) {
        int r = greet_old(keep, KEEPER_SOCKET);

        if (r == 0)
                return end_next(keep);
        if (r != -ENOENT)
                return r;
        r = greet_old(keep, KEEPER_SOCKET_NEXT);
        return r == 0 ? keeper_settle(keep->directory_fd) : r;
}

/* That one, or a new one. */
static int open_keeper(struct keep *keep) {
        struct epoll_event event = { .events = EPOLLIN };
        int r;

        keep->event_fd = epoll_create1(EPOLL_CLOEXEC);
        keep->told_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        keep->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        if (keep->event_fd < 0 || keep->told_fd < 0 || keep->timer_fd < 0 ||
            epoll_ctl(keep->event_fd, EPOLL_CTL_ADD, keep->told_fd, &event) < 0 ||
            epoll_ctl(keep->event_fd, EPOLL_CTL_ADD, keep->timer_fd, &event) < 0)
                return -errno;
        snprintf(keep->about, sizeof(keep->about), "memory is kept for %" PRIu64 " ms after the daemon's end, by a process "
                 "of its own", keep->keep_ms);
        r = find_keeper(keep);
        if (r == 0)
                return receive_held(keep);
        if (r != -ENOENT)
                return r;
        return keep->keep_ms ? start(keep) : 0;
}

static int take_stored(void *userdata, const char *name, int fd) {
        return enter_untaken(userdata, name, fd, 0) == -ENOMEM ? -ENOMEM : 0;
}

static int open_store(struct keep *keep) {
        snprintf(keep->about, sizeof(keep->about),
                 "memory is kept after the daemon's end by the service manager, in at most %" PRIu64 " descriptors",
                 keep->store_max);
        return keep_store_receive(take_stored, keep);
}

static void end_keeper(struct keep *keep) {
        struct keeper_request request = { .op = KEEPER_END };
        struct keeper_reply reply;

        unlinkat(keep->directory_fd, KEEPER_SOCKET_NEXT, 0);
        if (keep->socket < 0 || ask(keep->socket, &request, -1, &reply, NULL) == 0)
                return;
        unlinkat(keep->directory_fd, KEEPER_SOCKET, 0);
        keep->pid_fd = make_sure_of_death(keep->pid_fd);
}

static void end_store(struct keep *keep) {
        struct held *held;

        for (held = keep->held; held; held = held->hh.next)
                keep_store_drop(held->name);
}

struct keep *keep_free(struct keep *keep) {
        struct held *held, *next;
        int *fds[5], i;

        if (!keep)
                return NULL;
        HASH_ITER(hh, keep->held, held, next)
                forget(keep, held);
        fds[0] = &keep->socket;
        fds[1] = &keep->pid_fd;
        fds[2] = &keep->told_fd;
        fds[3] = &keep->timer_fd;
        fds[4] = &keep->event_fd;
        for (i = 0; i < 5; i++)
                if (*fds[i] >= 0)
                        close(*fds[i]);
        pthread_mutex_destroy(&keep->mutex);
        free(keep);
        return NULL;
}

struct keep *keep_end(struct keep *keep) {
        if (!keep)
                return NULL;
        if (keep->store_max)
                end_store(keep);
        else
                end_keeper(keep);
        return keep_free(keep);
}

int keep_open(int directory_fd, uint64_t keep_ms, struct keep **ret, struct failure *failure) {
        struct keep *keep;
        int r;

        keep = calloc(1, sizeof(*keep));
        if (!keep)
                return failure_set(failure, REASON_no_memory, "there is no memory to start");
        keep->directory_fd = directory_fd;
        keep->keep_ms = keep_ms;
        keep->socket = keep->pid_fd = keep->event_fd = keep->told_fd = keep->timer_fd = -1;
        keep->retry_seconds = RETRY_SECONDS;
        pthread_mutex_init(&keep->mutex, NULL);
        keep->store_max = keep_store_max();
        r = keep->store_max ? open_store(keep) : open_keeper(keep);
        if (r < 0) {
                keep_free(keep);
                return failure_set_errno(failure, REASON_source_unavailable, -r,
                                         "memory cannot be kept beyond the daemon's end (%s): if it need not be, set keep = 0 in "
                                         "[daemon]", strerror(-r));
        }
        *ret = keep_ms ? keep : keep_end(keep);
        return 0;
}

const char *keep_about(const struct keep *keep) {
        return keep ? keep->about : "no memory outlives the daemon";
}

bool keep_ends_with_service(const struct keep *keep) {
        return keep && !keep->store_max && getenv("INVOCATION_ID");
}

uint64_t keep_room(const struct keep *keep) {
        return keep && keep->store_max ? keep->store_max : UINT64_MAX;
}

/* ---- while it is open ---- */

static int hold(struct keep *keep, struct held *held) {
        return keep->store_max ? keep_store_put(held->name, held->fd) : request_keeper(keep, KEEPER_PUT, held);
}

static int release(struct keep *keep, struct held *held) {
        return keep->store_max ? keep_store_drop(held->name) : request_keeper(keep, KEEPER_DROP, held);
}

static bool is_full(const struct keep *keep, const char *name) {
        return keep->store_max && (HASH_COUNT(keep->held) >= keep->store_max ||
                                   keep->names_bytes + strlen(name) + sizeof(KEEP_STORE_PREFIX) > STORE_NAMES_MAX);
}

static int put(struct keep *keep, const char *name, int fd) {
        struct held *held;
        int r;

        if (find(keep, name))
                return -EEXIST;
        if (is_full(keep, name))
                return -ENOSPC;
        r = enter(keep, name, fd, &held);
        if (r < 0)
                return r;
        r = hold(keep, held);
        if (r < 0)
                forget(keep, held);
        return r;
}

int keep_put(struct keep *keep, const char *name, int fd) {
        int r;

        if (!keep)
                return 0;
        if (!is_name(name))
                return -EINVAL;
        pthread_mutex_lock(&keep->mutex);
        r = put(keep, name, fd);
        pthread_mutex_unlock(&keep->mutex);
        return r;
}

int keep_drop(struct keep *keep, const char *name) {
        struct held *held;
        int r = -ENOENT;

        if (!keep)
                return 0;
        pthread_mutex_lock(&keep->mutex);
        held = find(keep, name);
        if (held) {
                r = release(keep, held);
                forget(keep, held);
        }
        pthread_mutex_unlock(&keep->mutex);
        return r > 0 ? 0 : r;
}

int keep_take(struct keep *keep, const char *name, int *ret_fd) {
        struct held *held;
        int r = -ENOENT;

        if (!keep)
                return -ENOENT;
        pthread_mutex_lock(&keep->mutex);
        held = find(keep, name);
        if (held && held->untaken) {
                held->untaken = false;
                *ret_fd = held->fd;
                r = 0;
        }
        pthread_mutex_unlock(&keep->mutex);
        return r;
}

int keep_visit(struct keep *keep, const char *prefix, int (*visit)(void *userdata, const char *name), void *userdata) {
        char name[KEEP_NAME_MAX + 1];
        struct held *held, *next;
        int r = 0;

        if (!keep)
                return 0;
        pthread_mutex_lock(&keep->mutex);
        HASH_ITER(hh, keep->held, held, next) {
                if (!held->untaken || strncmp(held->name, prefix, strlen(prefix)) != 0)
                        continue;
                strcpy(name, held->name);
                pthread_mutex_unlock(&keep->mutex);
                r = visit(userdata, name);
                pthread_mutex_lock(&keep->mutex);
                if (r != 0)
                        break;
        }
        pthread_mutex_unlock(&keep->mutex);
        return r;
}

int keep_event_fd(const struct keep *keep) {
        return keep ? keep->event_fd : -1;
}

static bool has_died(const struct keep *keep) {
        struct pollfd poll_for = { .fd = keep->pid_fd, .events = POLLIN };

        return keep->socket >= 0 && keep->pid_fd >= 0 && poll(&poll_for, 1, 0) > 0;
}

static bool is_due(const struct keep *keep) {
        uint64_t count;

        return read(keep->timer_fd, &count, sizeof(count)) > 0 && keep->socket < 0;
}

int keep_attend(struct keep *keep, struct failure *failure) {
        uint64_t count;
        int r;

        if (!keep || keep->event_fd < 0)
                return 0;
        pthread_mutex_lock(&keep->mutex);
        if (has_died(keep))
                revive(keep);
        else if (is_due(keep))
                replace(keep);
        if (read(keep->told_fd, &count, sizeof(count)) < 0)
                keep->attended = 0;
        r = keep->attended;
        if (r != 0)
                *failure = keep->failure;
        keep->attended = 0;
        pthread_mutex_unlock(&keep->mutex);
        return r;
}
