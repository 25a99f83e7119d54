/* After fork() this calls nothing that needs a lock or the heap: the daemon may have had threads, of which none is here. */
#include "daemon/source/keeper.h"

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NO_SLOT UINT32_MAX

enum {
        FIRST_FD = 3, /* in the keeper: its client, its listening socket, the directory */
        N_FDS = 3,
        ROOM_FIRST = 64,
};

struct slot {
        int fd; /* -1: free */
        uint32_t next_free;
        char name[KEEPER_NAME_SIZE];
};

struct keeper {
        int client; /* -1: none */
        int listener, directory;
        ino_t inode; /* of the listening socket's name */
        uint64_t keep_ms, alone_since_ms;
        struct slot *slots;
        uint32_t room, n, n_held, first_free; /* slots [0, n) have been used */
        struct keeper_reply reply;
};

static volatile sig_atomic_t is_told_to_end;

static void on_term(int number) {
        is_told_to_end = 1;
}

static uint64_t now_ms(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- what is held ---- */

static int make_room(struct keeper *keeper) {
        const size_t size = keeper->room * sizeof(*keeper->slots);
        void *slots;

        if (keeper->n < keeper->room)
                return 0;
        slots = size ? mremap(keeper->slots, size, 2 * size, MREMAP_MAYMOVE)
                     : mmap(NULL, ROOM_FIRST * sizeof(*keeper->slots), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (slots == MAP_FAILED)
                return -ENOMEM;
        keeper->slots = slots;
        keeper->room = size ? 2 * keeper->room : ROOM_FIRST;
        return 0;
}

/* Takes the descriptor over, also on failure. */
static int put(struct keeper *keeper, const char *name, int fd, uint32_t *ret_slot) {
        uint32_t slot = keeper->first_free;
        int r = 0;

        if (fd < 0)
                return -EMFILE; /* the kernel could not deliver it, or none was sent */
        if (slot == NO_SLOT)
                r = make_room(keeper);
        if (r < 0) {
                close(fd);
                return r;
        }
        if (slot == NO_SLOT)
                slot = keeper->n++;
        else
                keeper->first_free = keeper->slots[slot].next_free;
        keeper->slots[slot] = (struct slot){ .fd = fd };
        memcpy(keeper->slots[slot].name, name, KEEPER_NAME_SIZE);
        keeper->n_held++;
        *ret_slot = slot;
        return 0;
}

static int drop(struct keeper *keeper, uint32_t slot, const char *name) {
        if (slot >= keeper->n || keeper->slots[slot].fd < 0 || strcmp(keeper->slots[slot].name, name) != 0)
                return -ENOENT;
        close(keeper->slots[slot].fd);
        keeper->slots[slot] = (struct slot){ .fd = -1, .next_free = keeper->first_free };
        keeper->first_free = slot;
        keeper->n_held--;
        return 0;
}

static void list(struct keeper *keeper, uint32_t from, struct keeper_reply *reply, int fds[static KEEPER_BATCH]) {
        uint32_t i;

        for (i = from; i < keeper->n && reply->n < KEEPER_BATCH; i++) {
                if (keeper->slots[i].fd < 0)
                        continue;
                reply->items[reply->n].slot = i;
                memcpy(reply->items[reply->n].name, keeper->slots[i].name, KEEPER_NAME_SIZE);
                fds[reply->n++] = keeper->slots[i].fd;
        }
        reply->slot = i < keeper->n ? i : NO_SLOT;
}

/* The name goes first: whoever finds no listener any more finds no socket either, and makes another one. It may be that of
 * another keeper by now, if this one was given up before it had anything. The name of the next one is not ours to remove:
 * between a look and the removal it may have become another one's, which starts while we end. */
static void __attribute__((noreturn)) end(struct keeper *keeper) {
        struct stat status;
        uint32_t i;

        if (fstatat(keeper->directory, KEEPER_SOCKET, &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_ino == keeper->inode)
                unlinkat(keeper->directory, KEEPER_SOCKET, 0);
        for (i = 0; i < keeper->n; i++)
                if (keeper->slots[i].fd >= 0)
                        close(keeper->slots[i].fd);
        close(keeper->listener);
        if (keeper->client >= 0) {
                keeper->reply = (struct keeper_reply){ .version = KEEPER_VERSION };
                send(keeper->client, &keeper->reply, offsetof(struct keeper_reply, items), MSG_NOSIGNAL | MSG_DONTWAIT);
        }
        _exit(0);
}

/* ---- the client ---- */

/* SIGTERM is for the daemon; when there is none it says that nobody will come. It is blocked except in ppoll(). */
static void forget_sigterm(void) {
        static const struct timespec at_once;
        sigset_t term;

        sigemptyset(&term);
        sigaddset(&term, SIGTERM);
        while (sigtimedwait(&term, NULL, &at_once) > 0)
                ;
        is_told_to_end = 0;
}

static void client_gone(struct keeper *keeper) {
        forget_sigterm(); /* what came before was meant for both */
        close(keeper->client);
        keeper->client = -1;
        keeper->alone_since_ms = now_ms();
}

/* 1: a request; 0: nothing more for now; -errno: the client is gone. *ret_fd: ours, or -1. */
static int receive(int socket, struct keeper_request *request, int *ret_fd) {
        _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
        struct iovec part = { .iov_base = request, .iov_len = sizeof(*request) };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                                  .msg_controllen = sizeof(control) };
        struct cmsghdr *head;
        ssize_t n;

        *ret_fd = -1;
        do
                n = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return errno == EAGAIN ? 0 : -errno;
        head = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
        if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
            head->cmsg_len == CMSG_LEN(sizeof(int)))
                memcpy(ret_fd, CMSG_DATA(head), sizeof(int));
        if (n != sizeof(*request) || request->name[KEEPER_NAME_SIZE - 1] != '\0') {
                if (*ret_fd >= 0)
                        close(*ret_fd);
                return -EPROTO;
        }
        return 1;
}

/* The client waits for it, so that there is room for it always. */
static int answer(int socket, struct keeper_reply *reply, const int *fds) {
        static _Alignas(struct cmsghdr) char control[CMSG_SPACE(KEEPER_BATCH * sizeof(int))];
        struct iovec part = { .iov_base = reply, .iov_len = offsetof(struct keeper_reply, items) +
                                                            reply->n * sizeof(reply->items[0]) };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
        struct cmsghdr *head;

        if (reply->n > 0) {
                message.msg_control = control;
                message.msg_controllen = CMSG_SPACE(reply->n * sizeof(int));
                head = CMSG_FIRSTHDR(&message);
                *head = (struct cmsghdr){ .cmsg_len = CMSG_LEN(reply->n * sizeof(int)), .cmsg_level = SOL_SOCKET,
                                          .cmsg_type = SCM_RIGHTS };
                memcpy(CMSG_DATA(head), fds, reply->n * sizeof(int));
        }
        return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

static int serve(struct keeper *keeper, const struct keeper_request *request, int fd) {
        struct keeper_reply *reply = &keeper->reply;
        int fds[KEEPER_BATCH];

        *reply = (struct keeper_reply){ .version = KEEPER_VERSION };
        switch ((enum keeper_op)request->op) {
        case KEEPER_HELLO:
                keeper->keep_ms = request->keep_ms;
                reply->pid = getpid();
                break;
        case KEEPER_LIST:
                list(keeper, request->slot, reply, fds);
                break;
        case KEEPER_PUT:
                reply->error = put(keeper, request->name, fd, &reply->slot);
                fd = -1;
                break;
        case KEEPER_DROP:
                reply->error = drop(keeper, request->slot, request->name);
                break;
        case KEEPER_END:
                end(keeper);
        default:
                reply->error = -EOPNOTSUPP;
        }
        if (fd >= 0)
                close(fd);
        return answer(keeper->client, reply, fds);
}

/* Everything that the client has asked until now. */
static void serve_all(struct keeper *keeper) {
        struct keeper_request request;
        int fd, r;

        do {
                r = receive(keeper->client, &request, &fd);
                if (r > 0)
                        r = serve(keeper, &request, fd) < 0 ? -EPIPE : 1;
        } while (r > 0);
        if (r < 0)
                client_gone(keeper);
}

/* The directory's lock says that the client we have is dead, even if something else has a copy of its end. */
static void welcome(struct keeper *keeper) {
        struct ucred peer;
        socklen_t size = sizeof(peer);
        int fd;

        fd = accept4(keeper->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
                return;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || peer.uid != geteuid()) {
                close(fd);
                return;
        }
        if (keeper->client >= 0)
                serve_all(keeper);
        if (keeper->client >= 0)
                close(keeper->client);
        keeper->client = fd;
}

/* ---- the process ---- */

/* How long poll() may take; ends the keeper when it is not needed any more. */
static struct timespec *time_left(struct keeper *keeper, struct timespec *left) {
        uint64_t until = keeper->alone_since_ms + keeper->keep_ms, now;

        if (keeper->client >= 0) {
                is_told_to_end = 0;
                return NULL;
        }
        now = now_ms();
        if (keeper->n_held == 0 || is_told_to_end || now >= until)
                end(keeper);
        *left = (struct timespec){ .tv_sec = (time_t)((until - now) / 1000),
                                   .tv_nsec = (long)((until - now) % 1000) * 1000000 };
        return left;
}

static void __attribute__((noreturn)) keeper_run(struct keeper *keeper) {
        struct pollfd polls[2];
        struct timespec left;
        sigset_t none;

        sigemptyset(&none);
        for (;;) {
                polls[0] = (struct pollfd){ .fd = keeper->listener, .events = POLLIN };
                polls[1] = (struct pollfd){ .fd = keeper->client, .events = POLLIN }; /* poll() skips negative ones */
                if (ppoll(polls, 2, time_left(keeper, &left), &none) <= 0)
                        continue;
                if (polls[1].revents)
                        serve_all(keeper);
                if (polls[0].revents)
                        welcome(keeper);
        }
}

static void become_deaf(void) {
        struct sigaction action = { .sa_handler = SIG_DFL };
        sigset_t term;
        int number;

        for (number = 1; number < NSIG; number++)
                sigaction(number, &action, NULL);
        action.sa_handler = SIG_IGN;
        sigaction(SIGHUP, &action, NULL);
        sigaction(SIGINT, &action, NULL);
        sigaction(SIGQUIT, &action, NULL);
        sigaction(SIGPIPE, &action, NULL);
        action.sa_handler = on_term;
        sigaction(SIGTERM, &action, NULL);
        sigemptyset(&term);
        sigaddset(&term, SIGTERM);
        sigprocmask(SIG_SETMASK, &term, NULL);
}

static void close_from(int first) {
        struct rlimit files;
        rlim_t fd;

        if (close_range((unsigned)first, ~0U, 0) == 0)
                return;
        if (getrlimit(RLIMIT_NOFILE, &files) < 0)
                return;
        for (fd = (rlim_t)first; fd < files.rlim_cur && fd < INT_MAX; fd++)
                close((int)fd);
}

/* The three to their places, and nothing else of the daemon's: not its lock, not its memory, not its terminal. */
static void arrange_files(int client, int listener, int directory) {
        int fds[N_FDS] = { client, listener, directory };
        int i, null;

        for (i = 0; i < N_FDS; i++) {
                fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, FIRST_FD + N_FDS);
                if (fds[i] < 0)
                        _exit(1);
        }
        for (i = 0; i < N_FDS; i++)
                if (dup3(fds[i], FIRST_FD + i, O_CLOEXEC) < 0)
                        _exit(1);
        close_from(FIRST_FD + N_FDS);
        null = open("/dev/null", O_RDWR);
        for (i = 0; i < FIRST_FD; i++)
                if (null < 0 || dup2(null, i) < 0)
                        close(i);
        if (null >= FIRST_FD)
                close(null);
}

static void __attribute__((noreturn)) keeper_main(int client, int listener, int directory, ino_t inode) {
        static struct keeper keeper = { .client = FIRST_FD, .listener = FIRST_FD + 1, .directory = FIRST_FD + 2,
                                        .first_free = NO_SLOT };
        struct rlimit files;

        keeper.inode = inode;
        become_deaf();
        arrange_files(client, listener, directory);
        setsid();
        if (chdir("/") < 0)
                _exit(1);
        prctl(PR_SET_NAME, "dmabroker-keep");
        if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
                files.rlim_cur = files.rlim_max;
                setrlimit(RLIMIT_NOFILE, &files);
        }
        keeper_run(&keeper);
}

/* Without what libraries have done in a child: libuv aborts there when it gets no pipe. */
static pid_t fork_alone(void) {
#ifdef HAVE__FORK
        return _Fork();
#else
        return fork();
#endif
}

/* Twice, so that the keeper is nobody's child that would have to be waited for. */
static int fork_keeper(int client, int listener, int directory, ino_t inode) {
        sigset_t all, before;
        pid_t child;
        int status;

        sigfillset(&all);
        sigprocmask(SIG_SETMASK, &all, &before);
        child = fork_alone();
        if (child == 0) {
                child = fork_alone();
                if (child == 0)
                        keeper_main(client, listener, directory, inode);
                _exit(child < 0 ? errno : 0);
        }
        status = child < 0 ? errno : 0;
        if (child > 0) {
                while (waitpid(child, &status, 0) < 0 && errno == EINTR)
                        ;
                status = WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
        }
        sigprocmask(SIG_SETMASK, &before, NULL);
        return -status;
}

/* A path through /proc, since a socket's may have 107 bytes only and the directory's own may be longer. */
static void socket_address(int directory_fd, const char *name, struct sockaddr_un *ret) {
        *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
        snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d/%s", directory_fd, name);
}

static int make_listener(int directory_fd, ino_t *ret_inode) {
        struct sockaddr_un address;
        struct stat status;
        int fd, r;

        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        unlinkat(directory_fd, KEEPER_SOCKET_NEXT, 0);
        socket_address(directory_fd, KEEPER_SOCKET_NEXT, &address);
        /* Nobody can connect before listen(), so the mode is in time. */
        if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
            fchmodat(directory_fd, KEEPER_SOCKET_NEXT, 0600, 0) < 0 ||
            fstatat(directory_fd, KEEPER_SOCKET_NEXT, &status, AT_SYMLINK_NOFOLLOW) < 0 || listen(fd, 8) < 0) {
                r = -errno;
                close(fd);
                return r;
        }
        *ret_inode = status.st_ino;
        return fd;
}

int keeper_start(int directory_fd, int *ret_fd) {
        int listener, ends[2], r;
        ino_t inode;

        listener = make_listener(directory_fd, &inode);
        if (listener < 0)
                return listener;
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
                r = -errno;
                goto fail;
        }
        r = fork_keeper(ends[1], listener, directory_fd, inode);
        close(ends[1]);
        if (r < 0) {
                close(ends[0]);
                goto fail;
        }
        close(listener);
        *ret_fd = ends[0];
        return 0;

fail:
        unlinkat(directory_fd, KEEPER_SOCKET_NEXT, 0);
        close(listener);
        return r;
}

int keeper_settle(int directory_fd) {
        return renameat(directory_fd, KEEPER_SOCKET_NEXT, directory_fd, KEEPER_SOCKET) < 0 ? -errno : 0;
}

int keeper_connect(int directory_fd, const char *name, int *ret_fd) {
        struct sockaddr_un address;
        struct ucred peer;
        socklen_t size = sizeof(peer);
        int fd, r;

        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        socket_address(directory_fd, name, &address);
        r = connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
        if (r == 0 && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
                r = -errno;
        if (r == 0 && peer.uid != geteuid())
                r = -EPERM;
        if (r < 0) {
                close(fd);
                return r == -ECONNREFUSED ? -ENOENT : r;
        }
        *ret_fd = fd;
        return 0;
}
