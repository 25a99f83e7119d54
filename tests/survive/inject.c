#include "tests/survive/inject.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

/* Where the child sends the filter's descriptor through: the one call that is not asked for. */
enum { DOOR_FD = 1000 };

/* The loop, the threads of two sources, the keeper and the one that follows it. */
enum { ANSWERERS = 5 };

/* What is told of the call's descriptor: some errors are those of some files only. */
enum about { ANY, READING, WRITING, SOCKET, ADDING, DUPLICATING };

/* Calls that can fail, with what they can fail with. Not here: what cannot fail but by a mistake of the caller's (as close(),
 * of which the descriptor is gone in any case, munmap() of a whole mapping, epoll_ctl() of what is there already, or those
 * that set and tell times, signals and limits), and what tells of a failure otherwise (brk()). */
static const struct call {
        long number;
        const char *name;
        enum about about;
        int errors[INJECT_VARIANTS]; /* up to the first 0 */
} calls[] = {
#define CALL(name, about, ...) { SYS_##name, #name, about, { __VA_ARGS__ } }
        CALL(read, READING, EINTR, EIO, EAGAIN),
        CALL(write, WRITING, EINTR, EIO, ENOSPC),
        CALL(pread64, READING, EINTR, EIO),
        CALL(pwrite64, WRITING, EINTR, EIO, ENOSPC, EDQUOT),
        CALL(readv, READING, EINTR, EIO, EAGAIN),
        CALL(writev, WRITING, EINTR, EIO, ENOSPC),
        CALL(sendmsg, SOCKET, EINTR, ENOMEM, ENOBUFS, ETOOMANYREFS, EAGAIN),
        CALL(sendto, SOCKET, EINTR, ENOMEM, ENOBUFS, EAGAIN),
        CALL(recvmsg, SOCKET, EINTR, ENOMEM, EAGAIN),
        CALL(recvfrom, SOCKET, EINTR, ENOMEM, EAGAIN),
        CALL(accept4, SOCKET, EMFILE, ENFILE, ENOMEM, ECONNABORTED, EINTR),
        CALL(socket, ANY, EMFILE, ENFILE, ENOMEM, ENOBUFS),
        CALL(socketpair, ANY, EMFILE, ENFILE, ENOMEM),
        CALL(bind, ANY, ENOMEM, EROFS, ENOSPC),
        CALL(connect, ANY, ENOMEM, EINTR, EACCES),
        CALL(getsockopt, ANY, ENOMEM),
        CALL(openat, ANY, EMFILE, ENFILE, ENOMEM, EINTR, EACCES),
        CALL(getdents64, ANY, ENOMEM, EIO),
        CALL(fstat, ANY, ENOMEM),
        CALL(newfstatat, ANY, ENOMEM, EIO),
        CALL(statx, ANY, ENOMEM, EIO),
        CALL(statfs, ANY, ENOMEM, EIO),
        CALL(fstatfs, ANY, ENOMEM, EIO),
        CALL(readlinkat, ANY, ENOMEM, EIO),
        CALL(faccessat, ANY, ENOMEM, EIO),
        CALL(unlinkat, ANY, ENOMEM, EROFS, EIO),
        CALL(mkdirat, ANY, ENOMEM, ENOSPC, EROFS),
        CALL(fchmodat, ANY, ENOMEM, EROFS, EIO),
        CALL(flock, ANY, EINTR, ENOLCK),
        CALL(fsync, ANY, EIO, ENOSPC),
        CALL(mmap, ANY, ENOMEM, EAGAIN),
        CALL(mprotect, ANY, ENOMEM),
        CALL(mremap, ANY, ENOMEM),
        CALL(madvise, ANY, ENOMEM, EAGAIN),
        CALL(mlock, ANY, ENOMEM, EAGAIN),
        CALL(memfd_create, ANY, EMFILE, ENFILE, ENOMEM),
        CALL(ftruncate, ANY, EINTR, EIO, ENOSPC),
        CALL(fallocate, ANY, EINTR, EIO, ENOSPC, ENOMEM),
        CALL(fcntl, DUPLICATING, EMFILE, EBUSY),
        CALL(dup3, ANY, EBUSY),
        CALL(eventfd2, ANY, EMFILE, ENFILE, ENOMEM),
        CALL(epoll_create1, ANY, EMFILE, ENFILE, ENOMEM),
        CALL(epoll_ctl, ADDING, ENOMEM, ENOSPC),
        CALL(epoll_pwait, ANY, EINTR),
        CALL(timerfd_create, ANY, EMFILE, ENFILE, ENOMEM),
        CALL(signalfd4, ANY, EMFILE, ENFILE, ENOMEM),
        CALL(pidfd_open, ANY, EMFILE, ENFILE, ENOMEM),
        CALL(pipe2, ANY, EMFILE, ENFILE),
        CALL(ppoll, ANY, EINTR, ENOMEM),
        CALL(vmsplice, ANY, ENOMEM),
        CALL(splice, ANY, ENOMEM),
        CALL(getrandom, ANY, EINTR),
        CALL(clone, ANY, EAGAIN, ENOMEM),
        CALL(clone3, ANY, EAGAIN, ENOMEM),
        CALL(wait4, ANY, EINTR),
        CALL(chdir, ANY, ENOMEM),
        CALL(io_uring_setup, ANY, ENOMEM, EMFILE, EPERM),
        CALL(io_uring_register, ANY, ENOMEM),
        CALL(io_uring_enter, ANY, EINTR, EAGAIN),
        CALL(mbind, ANY, ENOMEM, EIO),
        CALL(set_mempolicy, ANY, ENOMEM),
        /* Those that newer architectures do not have. */
#ifdef SYS_open
        CALL(open, ANY, EMFILE, ENFILE, ENOMEM, EINTR, EACCES),
        CALL(stat, ANY, ENOMEM, EIO),
        CALL(lstat, ANY, ENOMEM, EIO),
        CALL(access, ANY, ENOMEM, EIO),
        CALL(readlink, ANY, ENOMEM, EIO),
        CALL(unlink, ANY, ENOMEM, EROFS, EIO),
        CALL(mkdir, ANY, ENOMEM, ENOSPC, EROFS),
        CALL(chmod, ANY, ENOMEM, EROFS, EIO),
        CALL(poll, ANY, EINTR, ENOMEM),
        CALL(epoll_wait, ANY, EINTR),
        CALL(fork, ANY, EAGAIN, ENOMEM),
        CALL(vfork, ANY, EAGAIN, ENOMEM),
#endif
#undef CALL
};
enum { CALLS = sizeof(calls) / sizeof(*calls) };

static const char *const function_names[FAULTY_FUNCTIONS] = FAULTY_NAMES;

struct inject {
        int page_fd;
        struct faulty *page;
        int door[2];
        pthread_mutex_t mutex;
        unsigned n_watches;
        unsigned variant;
        const struct call *hit;
        int hit_error;
        char what[64];
        unsigned long counted[CALLS], failed[CALLS][INJECT_VARIANTS];
};

struct watch {
        struct inject *inject;
        int fd;                  /* -1: not there yet */
        uint64_t libc, libc_end; /* where it is in the daemon; 0: not looked up yet */
};

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_SANITIZERS 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define HAS_SANITIZERS 1
#endif

/* ---- in the daemon ---- */

static int install(void) {
        struct sock_filter filter[2 * CALLS + 8];
        struct sock_fprog program = { .filter = filter };
        unsigned short n = 0;
        long fd;

        filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
        filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sendmsg, 0, 4);
        filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0]));
        filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, DOOR_FD, 0, 1);
        filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
        filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
        for (size_t i = 0; i < CALLS; i++) {
                filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i].number, 0, 1);
                filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
        }
        filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
        program.len = n;
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return -errno;
        fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                     SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &program);
        return fd < 0 ? -errno : (int)fd;
}

/* The one byte is 0 with the descriptor, or the error. */
static void send_filter(int fd) {
        union {
                char bytes[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } control = { 0 };
        unsigned char error = fd < 0 ? (unsigned char)-fd : 0;
        struct iovec part = { .iov_base = &error, .iov_len = 1 };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

        if (fd >= 0) {
                message.msg_control = &control;
                message.msg_controllen = sizeof(control);
                control.align = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET,
                                                  .cmsg_type = SCM_RIGHTS };
                memcpy(CMSG_DATA(&control.align), &fd, sizeof(int));
        }
        syscall(SYS_sendmsg, DOOR_FD, &message, 0);
}

void inject_begin(struct inject *inject, const char *library) {
        char path[64];
        int fd;

        snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getppid(), inject->page_fd);
        setenv(FAULTY_PAGE, path, 1);
        setenv("LD_PRELOAD", library, 1);
        if (dup3(inject->door[1], DOOR_FD, O_CLOEXEC) < 0)
                _exit(125);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        fd = install();
        send_filter(fd);
        if (fd < 0)
                _exit(125);
        /* The listener itself is CLOEXEC. */
}

/* ---- who watches ---- */

static int receive_filter(int door) {
        union {
                char bytes[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } control;
        unsigned char error = 0;
        struct iovec part = { .iov_base = &error, .iov_len = 1 };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                                  .msg_controllen = sizeof(control) };
        ssize_t n;
        int fd;

        do
                n = recvmsg(door, &message, MSG_CMSG_CLOEXEC);
        while (n < 0 && errno == EINTR);
        if (n != 1)
                return -EIO;
        if (error || message.msg_controllen < CMSG_LEN(sizeof(int)))
                return error ? -(int)error : -EIO;
        memcpy(&fd, CMSG_DATA(&control.align), sizeof(int));
        return fd;
}

static const struct call *find_call(int number) {
        for (size_t i = 0; i < CALLS; i++)
                if (calls[i].number == number)
                        return &calls[i];
        return NULL;
}

static unsigned n_errors(const struct call *call) {
        unsigned n = 0;

        while (n < INJECT_VARIANTS && call->errors[n])
                n++;
        return n;
}

static bool is_nonblocking(const struct seccomp_notif *request) {
        char path[64], text[512];
        unsigned flags = 0;
        const char *line;
        ssize_t n;
        int fd;

        snprintf(path, sizeof(path), "/proc/%u/fdinfo/%d", request->pid, (int)request->data.args[0]);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
        if (fd >= 0)
                close(fd);
        text[n > 0 ? n : 0] = '\0';
        line = strstr(text, "flags:");
        return line && sscanf(line, "flags: %o", &flags) == 1 && (flags & O_NONBLOCK);
}

/* What is there already is found before anything is allocated for it. */
static bool is_added_already(const struct seccomp_notif *request) {
        char path[64], line[256];
        bool is = false;
        FILE *file;
        int fd;

        snprintf(path, sizeof(path), "/proc/%u/fdinfo/%d", request->pid, (int)request->data.args[0]);
        file = fopen(path, "re");
        while (file && !is && fgets(line, sizeof(line), file))
                is = sscanf(line, "tfd: %d", &fd) == 1 && fd == (int)request->data.args[2];
        if (file)
                fclose(file);
        return is;
}

/* Whether this very call can fail with this error. */
static bool fits(const struct call *call, const struct seccomp_notif *request, int error) {
        char path[64], target[256];
        bool is_counter;
        ssize_t n;

        if (call->about == ADDING)
                return !is_added_already(request);
        if (call->about == DUPLICATING || call->about == ANY)
                return true;
        snprintf(path, sizeof(path), "/proc/%u/fd/%d", request->pid, (int)request->data.args[0]);
        n = readlink(path, target, sizeof(target) - 1);
        target[n > 0 ? n : 0] = '\0';
        /* A pipe and a counter, which nothing can happen to. */
        is_counter = strncmp(target, "anon_inode:", 11) == 0 || strncmp(target, "pipe:", 5) == 0;
        if (error == EAGAIN)
                return is_nonblocking(request) && (call->about == SOCKET || is_counter);
        if (error == ETOOMANYREFS)
                return true;
        return !is_counter || error == EINTR;
}

/* Whether it counts at all. */
static bool counts(const struct call *call, const struct seccomp_notif *request, unsigned variant) {
        const unsigned long long *args = request->data.args;

        if (variant >= n_errors(call))
                return false;
        if (call->about == ADDING)
                return args[1] == EPOLL_CTL_ADD;
        if (call->about == DUPLICATING)
                return variant == 0 ? args[1] == F_DUPFD || args[1] == F_DUPFD_CLOEXEC : args[1] == F_ADD_SEALS;
        return true;
}

#ifdef HAS_SANITIZERS
static void find_libc(struct watch *watch, pid_t pid) {
        unsigned long long begin, end;
        char path[64], line[512];
        FILE *file;

        watch->libc = 1;
        snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
        file = fopen(path, "re");
        while (file && fgets(line, sizeof(line), file))
                if (sscanf(line, "%llx-%llx r-xp", &begin, &end) == 2 && strstr(line, "r-xp") && strstr(line, "/libc.so")) {
                        watch->libc = begin;
                        watch->libc_end = end;
                }
        if (file)
                fclose(file);
}

/* The sanitizers make calls of their own, by themselves, and end the process when one fails. */
static bool is_of_daemon(struct watch *watch, const struct seccomp_notif *request) {
        if (!watch->libc)
                find_libc(watch, (pid_t)request->pid);
        return request->data.instruction_pointer >= watch->libc && request->data.instruction_pointer < watch->libc_end;
}
#else
static bool is_of_daemon(struct watch *watch, const struct seccomp_notif *request) {
        return true;
}
#endif

static int decide(struct watch *watch, const struct seccomp_notif *request) {
        struct inject *inject = watch->inject;
        const struct call *call = find_call(request->data.nr);
        int error = 0;

        if (!call || !inject->page->ready || !is_of_daemon(watch, request))
                return 0;
        pthread_mutex_lock(&inject->mutex);
        inject->counted[call - calls]++;
        if (inject->page->kind == FAULTY_CALL && counts(call, request, inject->variant) &&
            faulty_fails(inject->page, FAULTY_CALL))
                error = call->errors[inject->variant];
        if (error && !fits(call, request, error))
                error = 0;
        if (error) {
                inject->failed[call - calls][inject->variant]++;
                inject->hit = call;
                inject->hit_error = error;
        }
        pthread_mutex_unlock(&inject->mutex);
        return error;
}

static void *answer_all(void *userdata) {
        struct watch *watch = userdata;
        struct pollfd poll_for = { .fd = watch->fd, .events = POLLIN };
        struct seccomp_notif request;
        struct seccomp_notif_resp answer;

        for (;;) {
                if (poll(&poll_for, 1, -1) < 0 && errno != EINTR)
                        return NULL;
                /* POLLERR only says that the kernel was interrupted while it looked. */
                if (!(poll_for.revents & POLLIN) && (poll_for.revents & POLLHUP))
                        return NULL;
                memset(&request, 0, sizeof(request));
                if (ioctl(watch->fd, SECCOMP_IOCTL_NOTIF_RECV, &request) < 0)
                        continue;
                memset(&answer, 0, sizeof(answer));
                answer.id = request.id;
                answer.error = -decide(watch, &request);
                if (!answer.error)
                        answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
                /* Fails when whoever asked has been killed. One that is not answered waits for ever. */
                while (ioctl(watch->fd, SECCOMP_IOCTL_NOTIF_SEND, &answer) < 0 && errno == EINTR)
                        ;
        }
}

/* Of several calls that wait, the kernel hands out the newest one. One of us alone would hear the loop of a busy daemon for
 * ever, and never its other threads, nor its keeper: as many can wait as there are of us. */
static void answer_in_turn(struct watch *watch) {
        pthread_t others[ANSWERERS - 1];
        size_t n = 0;

        while (n < ANSWERERS - 1 && pthread_create(&others[n], NULL, answer_all, watch) == 0)
                n++;
        answer_all(watch);
        while (n)
                pthread_join(others[--n], NULL);
}

static void *watch_main(void *userdata) {
        struct watch *watch = userdata;

        watch->fd = receive_filter(watch->inject->door[0]);
        if (watch->fd >= 0) {
                answer_in_turn(watch);
                close(watch->fd);
        }
        pthread_mutex_lock(&watch->inject->mutex);
        watch->inject->n_watches--;
        pthread_mutex_unlock(&watch->inject->mutex);
        kill(getpid(), SIGCHLD);
        free(watch);
        return NULL;
}

bool inject_watches(struct inject *inject) {
        bool watches;

        pthread_mutex_lock(&inject->mutex);
        watches = inject->n_watches > 0;
        pthread_mutex_unlock(&inject->mutex);
        return watches;
}

/* A keeper outlives its daemon and stays under the filter of that one: each filter has a thread of its own. */
int inject_expect(struct inject *inject) {
        struct watch *watch = calloc(1, sizeof(*watch));
        sigset_t all, before;
        pthread_t thread;
        int r;

        if (!watch)
                return -ENOMEM;
        watch->inject = inject;
        inject->page->ready = 0;
        /* Signals are for whoever waits for them. */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        pthread_mutex_lock(&inject->mutex);
        r = pthread_create(&thread, NULL, watch_main, watch);
        inject->n_watches += r == 0;
        pthread_mutex_unlock(&inject->mutex);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (r == 0)
                pthread_detach(thread);
        else
                free(watch);
        return -r;
}

/* ---- for the test ---- */

/* Whether this system lets us: in a child, since a filter stays. */
static int probe(void) {
        int status = 0;
        pid_t pid = fork();

        if (pid == 0) {
                int r = install();

                _exit(r < 0 ? -r : 0);
        }
        if (pid < 0 || waitpid(pid, &status, 0) < 0)
                return -errno;
        return WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
}

int inject_new(struct inject **ret) {
        struct inject *inject = calloc(1, sizeof(*inject));
        int r = probe();

        if (!inject || r < 0) {
                free(inject);
                return r < 0 ? r : -ENOMEM;
        }
        pthread_mutex_init(&inject->mutex, NULL);
        inject->page_fd = memfd_create("faulty", MFD_CLOEXEC);
        if (inject->page_fd < 0 || ftruncate(inject->page_fd, sizeof(struct faulty)) < 0 ||
            socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, inject->door) < 0)
                return -errno;
        inject->page = mmap(NULL, sizeof(struct faulty), PROT_READ | PROT_WRITE, MAP_SHARED, inject->page_fd, 0);
        if (inject->page == MAP_FAILED)
                return -errno;
        inject->page->hit = -1;
        *ret = inject;
        return 0;
}

struct faulty *inject_page(const struct inject *inject) {
        return inject->page;
}

void inject_arm(struct inject *inject, enum faulty_kind kind, long n, unsigned variant) {
        pthread_mutex_lock(&inject->mutex);
        inject->variant = variant;
        inject->hit = NULL;
        atomic_store(&inject->page->kind, FAULTY_NONE);
        atomic_store(&inject->page->hit, -1);
        atomic_store(&inject->page->passed, 0);
        atomic_store(&inject->page->until, n);
        atomic_store(&inject->page->kind, (uint32_t)kind);
        pthread_mutex_unlock(&inject->mutex);
}

long inject_passed(const struct inject *inject) {
        return inject->page->passed;
}

const char *inject_disarm(struct inject *inject) {
        const char *what = NULL;

        pthread_mutex_lock(&inject->mutex);
        atomic_store(&inject->page->kind, FAULTY_NONE);
        if (inject->hit) {
                snprintf(inject->what, sizeof(inject->what), "%s: %s", inject->hit->name, strerrorname_np(inject->hit_error));
                what = inject->what;
        } else if (inject->page->hit >= 0) {
                what = function_names[inject->page->hit];
        }
        pthread_mutex_unlock(&inject->mutex);
        return what;
}

unsigned long inject_total(const struct inject *inject) {
        unsigned long total = 0;

        for (size_t i = 0; i < FAULTY_FUNCTIONS; i++)
                total += inject->page->failed[i];
        for (size_t i = 0; i < CALLS; i++)
                for (unsigned j = 0; j < INJECT_VARIANTS; j++)
                        total += inject->failed[i][j];
        return total;
}

void inject_report(const struct inject *inject, FILE *file) {
        for (size_t i = 0; i < FAULTY_FUNCTIONS; i++)
                if (inject->page->calls[i])
                        fprintf(file, "%-16s %9lu calls, failed %lu\n", function_names[i], (unsigned long)inject->page->calls[i],
                                (unsigned long)inject->page->failed[i]);
        for (size_t i = 0; i < CALLS; i++) {
                if (!inject->counted[i])
                        continue;
                fprintf(file, "%-16s %9lu calls, failed", calls[i].name, inject->counted[i]);
                for (unsigned j = 0; j < n_errors(&calls[i]); j++)
                        fprintf(file, " %s %lu", strerrorname_np(calls[i].errors[j]), inject->failed[i][j]);
                fputc('\n', file);
        }
}
