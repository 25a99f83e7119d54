/* What must outlive the daemon: every "daemon" here is a child process that is killed. */
#include "config.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#ifdef HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#endif
#include <time.h>
#include <unistd.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "daemon/source/keep.h"
#include "daemon/source/keeper.h"

enum {
        LONG_MS = 60000,
        MANY = 700,
        THREADS = 4,
        DEADLINE_MS = 20000,
};

/* The process that is killed before so many more of these calls. */
static pid_t victim;
static int calls_left;

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __real_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags);
ssize_t __real_recvmsg(int fd, struct msghdr *message, int flags);
int __wrap_socketpair(int domain, int type, int protocol, int ends[2]);
int __real_socketpair(int domain, int type, int protocol, int ends[2]);
pid_t __wrap__Fork(void);
pid_t __real__Fork(void);
int __wrap_pidfd_send_signal(int fd, int number, siginfo_t *info, unsigned flags);
int __real_pidfd_send_signal(int fd, int number, siginfo_t *info, unsigned flags);
int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to);
int __real_renameat(int from_fd, const char *from, int to_fd, const char *to);
int __wrap_close(int fd);
int __real_close(int fd);

static void come_nearer(void) {
        if (calls_left > 0 && getpid() == victim && --calls_left == 0)
                kill(victim, SIGKILL);
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags) {
        come_nearer();
        return __real_sendmsg(fd, message, flags);
}

ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags) {
        come_nearer();
        return __real_recvmsg(fd, message, flags);
}

int __wrap_socketpair(int domain, int type, int protocol, int ends[2]) {
        come_nearer();
        return __real_socketpair(domain, type, protocol, ends);
}

#ifdef HAVE__FORK
pid_t __wrap__Fork(void) {
        come_nearer();
        return __real__Fork();
}
#endif

int __wrap_pidfd_send_signal(int fd, int number, siginfo_t *info, unsigned flags) {
        come_nearer();
        return __real_pidfd_send_signal(fd, number, info, flags);
}

int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to) {
        come_nearer();
        return __real_renameat(from_fd, from, to_fd, to);
}

int __wrap_close(int fd) {
        come_nearer();
        return __real_close(fd);
}

static char directory[] = "/tmp/dmab-keep-XXXXXX";
static int directory_fd;

/* ---- the daemons and their keeper ---- */

static struct keep *open_keep(uint64_t keep_ms) {
        struct failure failure = { 0 };
        struct keep *keep = NULL;

        if (keep_open(directory_fd, keep_ms, &keep, &failure) < 0)
                fail_msg("%s", failure.sentence);
        return keep;
}

static int make_file(const char *text) {
        int fd = memfd_create("keep-test", MFD_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, text, strlen(text)), strlen(text));
        return fd;
}

static void assert_text(int fd, const char *text) {
        char got[64] = "";

        assert_true(pread(fd, got, sizeof(got) - 1, 0) >= 0);
        assert_string_equal(got, text);
}

/* Run live(), in a process that kills itself afterwards. */
static void live_and_be_killed(void (*live)(void)) {
        int status;
        pid_t child;

        child = fork();
        assert_true(child >= 0);
        if (child == 0) {
                live();
                kill(getpid(), SIGKILL);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* A connection of the test's own, that the keeper takes for the daemon's, and who it is. */
static int greet(uint64_t keep_ms, pid_t *ret_pid) {
        struct keeper_request request = { .op = KEEPER_HELLO, .keep_ms = keep_ms };
        struct keeper_reply reply;
        int fd;

        assert_int_equal(keeper_connect(directory_fd, KEEPER_SOCKET, &fd), 0);
        assert_int_equal(send(fd, &request, sizeof(request), MSG_NOSIGNAL), sizeof(request));
        assert_true(recv(fd, &reply, sizeof(reply), 0) >= (ssize_t)offsetof(struct keeper_reply, items));
        *ret_pid = (pid_t)reply.pid;
        return fd;
}

static void await_end(int pid_fd) {
        struct pollfd poll_for = { .fd = pid_fd, .events = POLLIN };

        assert_int_equal(poll(&poll_for, 1, DEADLINE_MS), 1);
        close(pid_fd);
}

static bool is_socket_there(void) {
        return faccessat(directory_fd, KEEPER_SOCKET, F_OK, 0) == 0;
}

static void assert_nothing_is_left(void) {
        int fd;

        assert_int_equal(keeper_connect(directory_fd, KEEPER_SOCKET, &fd), -ENOENT);
        assert_int_equal(keeper_connect(directory_fd, KEEPER_SOCKET_NEXT, &fd), -ENOENT);
        assert_false(is_socket_there());
}

static int count(void *userdata, const char *name) {
        ++*(size_t *)userdata;
        return 0;
}

static size_t count_untaken(struct keep *keep, const char *prefix) {
        size_t n = 0;

        keep_visit(keep, prefix, count, &n);
        return n;
}

/* ---- tests ---- */

static void put_two(void) {
        struct keep *keep = open_keep(LONG_MS);

        assert_int_equal(keep_put(keep, "one", make_file("first")), 0);
        assert_int_equal(keep_put(keep, "other", make_file("second")), 0);
}

static void test_what_a_killed_daemon_put_is_there_for_the_next(void **state) {
        struct keep *keep;
        int one, other;

        live_and_be_killed(put_two);
        keep = open_keep(LONG_MS);
        assert_int_equal(count_untaken(keep, ""), 2);
        assert_int_equal(count_untaken(keep, "on"), 1);
        assert_int_equal(keep_take(keep, "one", &one), 0);
        assert_int_equal(keep_take(keep, "other", &other), 0);
        assert_text(one, "first");
        assert_text(other, "second");
        assert_int_equal(fcntl(one, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        assert_int_equal(count_untaken(keep, ""), 0);
        assert_int_equal(keep_take(keep, "one", &one), -ENOENT);
        keep_end(keep);
        close(one);
        close(other);
        assert_nothing_is_left();
}

static void take_one_of_two(void) {
        struct keep *keep = open_keep(LONG_MS);
        int fd;

        assert_int_equal(keep_take(keep, "one", &fd), 0);
        close(fd);
        assert_int_equal(keep_drop(keep, "other"), 0);
}

static void test_what_was_taken_stays_held_until_it_is_dropped(void **state) {
        struct keep *keep;
        int fd;

        live_and_be_killed(put_two);
        live_and_be_killed(take_one_of_two);
        keep = open_keep(LONG_MS);
        assert_int_equal(count_untaken(keep, ""), 1);
        assert_int_equal(keep_take(keep, "one", &fd), 0);
        assert_text(fd, "first");
        keep_end(keep);
        close(fd);
}

static void test_names_are_unique_and_have_limits(void **state) {
        static const char *const bad[] = { "", "Upper", "a_b", "a.b", "a/b", "\xc3\xa4",
                                           "a123456789b123456789c123456789d123456789e123456789f1234567891234x" };
        struct keep *keep = open_keep(LONG_MS);
        int fd = make_file("x");
        size_t i;

        for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                assert_int_equal(keep_put(keep, bad[i], fd), -EINVAL);
        assert_int_equal(keep_put(keep, "a123456789b123456789c123456789d123456789e123456789f123456789-123", fd), 0);
        assert_int_equal(keep_put(keep, "a-name", fd), 0);
        assert_int_equal(keep_put(keep, "a-name", fd), -EEXIST);
        assert_int_equal(keep_take(keep, "a-name", &fd), -ENOENT); /* put by this daemon */
        assert_int_equal(keep_drop(keep, "a-name"), 0);
        assert_int_equal(keep_drop(keep, "a-name"), -ENOENT);
        assert_int_equal(keep_put(keep, "a-name", fd), 0);
        keep_end(keep);
        close(fd);
}

static void test_without_a_keep_everything_is_well(void **state) {
        struct keep *keep = open_keep(0);
        int fd;

        assert_null(keep);
        assert_int_equal(keep_put(keep, "x", 0), 0);
        assert_int_equal(keep_drop(keep, "x"), 0);
        assert_int_equal(keep_take(keep, "x", &fd), -ENOENT);
        assert_int_equal(keep_visit(keep, "", count, NULL), 0);
        assert_int_equal(keep_event_fd(keep), -1);
        assert_int_equal(keep_attend(keep, NULL), 0);
        assert_non_null(keep_about(keep));
        assert_null(keep_end(keep));
        assert_null(keep_free(keep));
        assert_nothing_is_left();
}

static void test_a_daemon_that_keeps_nothing_gives_up_what_was_held(void **state) {
        live_and_be_killed(put_two);
        assert_true(is_socket_there());
        assert_null(open_keep(0));
        assert_nothing_is_left();
}

static void put_many(void) {
        struct keep *keep = open_keep(LONG_MS);
        char name[32];
        int i;

        for (i = 0; i < MANY; i++) {
                snprintf(name, sizeof(name), "file-%d", i);
                assert_int_equal(keep_put(keep, name, make_file(name)), 0);
        }
        for (i = 0; i < MANY; i += 3) {
                snprintf(name, sizeof(name), "file-%d", i);
                assert_int_equal(keep_drop(keep, name), 0);
        }
        for (i = 0; i < MANY; i += 6) {
                snprintf(name, sizeof(name), "again-%d", i);
                assert_int_equal(keep_put(keep, name, make_file(name)), 0);
        }
}

static void test_hundreds_of_descriptors_keep_their_names(void **state) {
        struct keep *keep;
        char name[32];
        int i, fd, r;

        live_and_be_killed(put_many);
        keep = open_keep(LONG_MS);
        assert_int_equal(count_untaken(keep, "file-"), MANY - (MANY + 2) / 3);
        assert_int_equal(count_untaken(keep, "again-"), (MANY + 5) / 6);
        for (i = 0; i < MANY; i++) {
                snprintf(name, sizeof(name), i % 3 == 0 ? "again-%d" : "file-%d", i);
                r = keep_take(keep, name, &fd);
                assert_int_equal(r, i % 3 == 0 && i % 6 != 0 ? -ENOENT : 0);
                if (r < 0)
                        continue;
                assert_text(fd, name);
                close(fd);
        }
        keep_end(keep);
}

struct putter {
        struct keep *keep;
        int number, fd;
};

static void *put_and_drop(void *userdata) {
        struct putter *putter = userdata;
        char name[32];
        int i;

        for (i = 0; i < 200; i++) {
                snprintf(name, sizeof(name), "thread-%d-%d", putter->number, i);
                if (keep_put(putter->keep, name, putter->fd) != 0 || (i % 2 && keep_drop(putter->keep, name) != 0))
                        return putter;
        }
        return NULL;
}

static void put_from_threads(void) {
        struct putter putters[THREADS];
        pthread_t threads[THREADS];
        struct keep *keep = open_keep(LONG_MS);
        void *result;
        int i;

        for (i = 0; i < THREADS; i++) {
                putters[i] = (struct putter){ .keep = keep, .number = i, .fd = make_file("x") };
                assert_int_equal(pthread_create(&threads[i], NULL, put_and_drop, &putters[i]), 0);
        }
        for (i = 0; i < THREADS; i++) {
                assert_int_equal(pthread_join(threads[i], &result), 0);
                assert_null(result);
        }
}

static void test_threads_may_put_and_drop_at_the_same_time(void **state) {
        struct keep *keep;

        live_and_be_killed(put_from_threads);
        keep = open_keep(LONG_MS);
        assert_int_equal(count_untaken(keep, "thread-"), THREADS * 100);
        keep_end(keep);
}

static void test_a_keeper_that_holds_nothing_ends_with_its_daemon(void **state) {
        struct keep *keep = open_keep(LONG_MS);
        int connection, pid_fd;
        pid_t pid;

        connection = greet(LONG_MS, &pid);
        pid_fd = pidfd_open(pid, 0);
        keep_free(keep);
        close(connection);
        await_end(pid_fd);
        assert_nothing_is_left();
}

static void test_a_keeper_gives_up_when_no_daemon_comes(void **state) {
        int connection, pid_fd;
        pid_t pid;

        live_and_be_killed(put_two);
        connection = greet(30, &pid);
        pid_fd = pidfd_open(pid, 0);
        assert_true(pid_fd >= 0);
        close(connection);
        await_end(pid_fd);
        assert_nothing_is_left();
}

static void test_a_keeper_without_a_daemon_ends_on_sigterm_and_with_one_does_not(void **state) {
        struct keep *keep;
        int connection, pid_fd, fd;
        pid_t pid;

        live_and_be_killed(put_two);
        connection = greet(LONG_MS, &pid);
        pid_fd = pidfd_open(pid, 0);
        assert_int_equal(kill(pid, SIGTERM), 0);
        assert_int_equal(kill(pid, SIGINT), 0);
        assert_int_equal(kill(pid, SIGHUP), 0);
        close(connection);
        keep = open_keep(LONG_MS);
        assert_int_equal(keep_take(keep, "one", &fd), 0);
        assert_text(fd, "first");
        close(fd);
        keep_free(keep);

        /* It sees the end of the connection before or after the signal. */
        do
                kill(pid, SIGTERM);
        while (poll(&(struct pollfd){ .fd = pid_fd, .events = POLLIN }, 1, 10) == 0);
        close(pid_fd);
        assert_nothing_is_left();
}

static void test_the_keeper_has_nothing_of_the_daemon(void **state) {
        struct keep *keep = open_keep(LONG_MS);
        char path[64], text[64] = "", link[256];
        int connection, pid_fd, fd, n = 0;
        pid_t pid;

        connection = greet(LONG_MS, &pid);
        pid_fd = pidfd_open(pid, 0);
        snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(read(fd, text, sizeof(text) - 1) > 0);
        close(fd);
        assert_string_equal(text, "dmabroker-keep\n");
        assert_int_equal(getsid(pid), pid);
        for (fd = 0; fd < 64; fd++) {
                snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
                n += readlink(path, link, sizeof(link)) > 0;
        }
        assert_int_equal(n, 6); /* /dev/null three times, two sockets, the directory */
        keep_free(keep);
        close(connection);
        await_end(pid_fd);
}

static void test_a_socket_that_nobody_listens_on_is_replaced(void **state) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        struct keep *keep;
        int fd;

        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        snprintf(address.sun_path, sizeof(address.sun_path), "%s/" KEEPER_SOCKET, directory);
        assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        close(fd);
        keep = open_keep(LONG_MS);
        assert_int_equal(count_untaken(keep, ""), 0);
        keep_end(keep);
        assert_nothing_is_left();
}

static int fork_stranger(void) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        struct keeper_request request = { .op = KEEPER_LIST };
        struct keeper_reply reply;
        int fd, status;
        pid_t child;

        child = fork();
        if (child == 0) {
                if (setgid(65534) < 0 || setuid(65534) < 0)
                        _exit(10);
                fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
                snprintf(address.sun_path, sizeof(address.sun_path), "%s/" KEEPER_SOCKET, directory);
                if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
                        _exit(errno == EACCES ? 1 : 11);
                send(fd, &request, sizeof(request), MSG_NOSIGNAL);
                _exit(recv(fd, &reply, sizeof(reply), 0) > 0 ? 12 : 2);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        return WEXITSTATUS(status);
}

static void test_nobody_else_gets_anything_from_the_keeper(void **state) {
        struct keep *keep;
        struct stat st;
        int fd;

        if (geteuid() != 0)
                skip();
        live_and_be_killed(put_two);
        assert_int_equal(fstatat(directory_fd, KEEPER_SOCKET, &st, 0), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        assert_int_equal(chmod(directory, 0755), 0);
        assert_int_equal(fork_stranger(), 1);
        assert_int_equal(fchmodat(directory_fd, KEEPER_SOCKET, 0666, 0), 0);
        assert_int_equal(fork_stranger(), 2);
        assert_int_equal(chmod(directory, 0700), 0);

        keep = open_keep(LONG_MS);
        assert_int_equal(keep_take(keep, "one", &fd), 0);
        close(fd);
        keep_end(keep);
}

static void test_another_keeper_gets_everything_when_one_dies(void **state) {
        struct failure failure = { 0 };
        struct pollfd poll_for;
        struct keep *keep;
        int fd = make_file("mine"), one, other, connection;
        pid_t pid;

        live_and_be_killed(put_two);
        connection = greet(LONG_MS, &pid);
        close(connection);
        keep = open_keep(LONG_MS);
        assert_int_equal(keep_put(keep, "mine", fd), 0);
        assert_int_equal(keep_take(keep, "one", &one), 0);
        assert_int_equal(keep_attend(keep, &failure), 0);
        poll_for = (struct pollfd){ .fd = keep_event_fd(keep), .events = POLLIN };
        assert_int_equal(poll(&poll_for, 1, 0), 0);

        kill(pid, SIGKILL);
        assert_int_equal(poll(&poll_for, 1, DEADLINE_MS), 1);
        assert_int_equal(keep_attend(keep, &failure), 1);
        assert_non_null(strstr(failure.sentence, "all 3 descriptors"));
        assert_int_equal(poll(&poll_for, 1, 0), 0);
        assert_int_equal(keep_attend(keep, &failure), 0);
        keep_free(keep);
        close(fd);
        close(one);

        keep = open_keep(LONG_MS);
        assert_int_equal(count_untaken(keep, ""), 3);
        assert_int_equal(keep_take(keep, "mine", &fd), 0);
        assert_int_equal(keep_take(keep, "other", &other), 0);
        assert_text(fd, "mine");
        assert_text(other, "second");
        keep_end(keep);
        close(fd);
        close(other);
}

static void test_a_put_to_a_dead_keeper_makes_another_one_and_tells(void **state) {
        struct failure failure = { 0 };
        struct keep *keep;
        int fd = make_file("mine"), pid_fd, connection, taken;
        pid_t pid;

        live_and_be_killed(put_two);
        connection = greet(LONG_MS, &pid);
        close(connection);
        keep = open_keep(LONG_MS);
        pid_fd = pidfd_open(pid, 0);
        kill(pid, SIGKILL);
        await_end(pid_fd);
        assert_int_equal(keep_put(keep, "mine", fd), 0);
        assert_int_equal(keep_drop(keep, "one"), 0);
        assert_int_equal(keep_attend(keep, &failure), 1);
        keep_free(keep);
        close(fd);
        keep = open_keep(LONG_MS);
        assert_int_equal(count_untaken(keep, ""), 2);
        assert_int_equal(keep_take(keep, "mine", &taken), 0);
        assert_text(taken, "mine");
        close(taken);
        keep_end(keep);
}

static void test_when_no_keeper_can_be_had_it_says_so(void **state) {
        struct failure failure = { 0 };
        char elsewhere[] = "/tmp/dmab-keep-XXXXXX", path[64];
        int fd = make_file("mine"), other_fd, pid_fd, connection, saved = directory_fd;
        struct keep *keep;
        pid_t pid;

        assert_non_null(mkdtemp(elsewhere));
        other_fd = directory_fd = open(elsewhere, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        live_and_be_killed(put_two);
        connection = greet(LONG_MS, &pid);
        close(connection);
        keep = open_keep(LONG_MS);
        pid_fd = pidfd_open(pid, 0);
        kill(pid, SIGKILL);
        await_end(pid_fd);
        snprintf(path, sizeof(path), "%s/" KEEPER_SOCKET, elsewhere);
        unlink(path);
        assert_int_equal(rmdir(elsewhere), 0);
        assert_int_equal(keep_put(keep, "mine", fd), 1);
        assert_true(keep_attend(keep, &failure) < 0);
        assert_non_null(strstr(failure.sentence, "no memory outlives"));
        assert_int_equal(keep_put(keep, "more", fd), 1);
        assert_int_equal(keep_attend(keep, &failure), 0);
        assert_int_equal(keep_drop(keep, "more"), 0);
        keep_free(keep);
        close(fd);
        close(other_fd);
        directory_fd = saved;
}

/* While the limit is this low nothing can be opened. */
static rlim_t limit_files(rlim_t limit) {
        struct rlimit files;
        rlim_t before;

        assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
        before = files.rlim_cur;
        files.rlim_cur = limit;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
        return before;
}

static void test_a_keeper_that_cannot_be_replaced_at_once_is_replaced_later(void **state) {
        struct failure failure = { 0 };
        struct pollfd poll_for;
        struct keep *keep;
        int fd = make_file("mine"), late = make_file("late"), connection;
        rlim_t limit;
        pid_t pid;

        live_and_be_killed(put_two);
        connection = greet(LONG_MS, &pid);
        close(connection);
        keep = open_keep(LONG_MS);
        assert_int_equal(keep_put(keep, "mine", fd), 0);
        poll_for = (struct pollfd){ .fd = keep_event_fd(keep), .events = POLLIN };
        kill(pid, SIGKILL);
        assert_int_equal(poll(&poll_for, 1, DEADLINE_MS), 1);
        limit = limit_files(1);
        assert_int_equal(keep_attend(keep, &failure), -EMFILE);
        limit_files(limit);
        /* The dead one is not told of again, and what is put and dropped meanwhile counts. */
        assert_int_equal(poll(&poll_for, 1, 0), 0);
        assert_int_equal(keep_put(keep, "late", late), 1);
        assert_int_equal(keep_drop(keep, "one"), 0);
        assert_int_equal(poll(&poll_for, 1, DEADLINE_MS), 1);
        assert_int_equal(keep_attend(keep, &failure), 1);
        assert_non_null(strstr(failure.sentence, "all 3 descriptors"));
        assert_int_equal(poll(&poll_for, 1, 0), 0);
        keep_free(keep);
        close(fd);
        close(late);

        keep = open_keep(LONG_MS);
        assert_int_equal(count_untaken(keep, ""), 3);
        assert_int_equal(keep_take(keep, "late", &late), 0);
        assert_text(late, "late");
        assert_int_equal(keep_take(keep, "mine", &fd), 0);
        assert_text(fd, "mine");
        keep_end(keep);
        close(fd);
        close(late);
}

/* The next keeper may have fewer files than there are descriptors. */
static void lose_a_keeper_to_one_that_is_too_small(void) {
        const struct rlimit few = { .rlim_cur = 24, .rlim_max = 24 };
        struct failure failure = { 0 };
        struct pollfd poll_for;
        int fd = make_file("mine"), connection, i;
        struct keep *keep;
        char name[32];
        pid_t pid;

        keep = open_keep(LONG_MS);
        for (i = 0; i < 30; i++) {
                snprintf(name, sizeof(name), "file-%d", i);
                assert_int_equal(keep_put(keep, name, fd), 0);
        }
        connection = greet(LONG_MS, &pid);
        close(connection);
        poll_for = (struct pollfd){ .fd = keep_event_fd(keep), .events = POLLIN };
        kill(pid, SIGKILL);
        assert_int_equal(poll(&poll_for, 1, DEADLINE_MS), 1);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
        assert_int_equal(keep_attend(keep, &failure), -EMFILE);
        assert_nothing_is_left();
}

static void test_a_keeper_that_could_not_be_given_everything_is_ended(void **state) {
        live_and_be_killed(lose_a_keeper_to_one_that_is_too_small);
        assert_nothing_is_left();
}

/* The name in the last slot of a keeper that has few. */
static void last_name(char name[static KEEPER_NAME_SIZE]) {
        static _Alignas(struct cmsghdr) char control[CMSG_SPACE(KEEPER_BATCH * sizeof(int))];
        struct keeper_request request = { .op = KEEPER_LIST };
        static struct keeper_reply reply;
        struct iovec part = { .iov_base = &reply, .iov_len = sizeof(reply) };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                                  .msg_controllen = sizeof(control) };
        int connection, fd;
        pid_t pid;
        uint32_t i;

        connection = greet(LONG_MS, &pid);
        assert_int_equal(send(connection, &request, sizeof(request), MSG_NOSIGNAL), sizeof(request));
        assert_true(recvmsg(connection, &message, MSG_CMSG_CLOEXEC) > 0);
        assert_true(reply.n > 0 && CMSG_FIRSTHDR(&message));
        for (i = 0; i < reply.n; i++) {
                memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)) + i * sizeof(fd), sizeof(fd));
                close(fd);
        }
        memcpy(name, reply.items[reply.n - 1].name, KEEPER_NAME_SIZE);
        close(connection);
}

static void test_the_mark_is_put_last_when_everything_is_put_again(void **state) {
        struct failure failure = { 0 };
        struct pollfd poll_for;
        char name[KEEPER_NAME_SIZE];
        int fd = make_file("x"), connection;
        struct keep *keep;
        pid_t pid;

        keep = open_keep(LONG_MS);
        assert_int_equal(keep_put(keep, KEEP_MARK, fd), 0);
        assert_int_equal(keep_put(keep, "other", fd), 0);
        keep_free(keep);
        last_name(name);
        assert_string_equal(name, "other");
        connection = greet(LONG_MS, &pid);
        close(connection);
        keep = open_keep(LONG_MS);
        kill(pid, SIGKILL);
        poll_for = (struct pollfd){ .fd = keep_event_fd(keep), .events = POLLIN };
        assert_int_equal(poll(&poll_for, 1, DEADLINE_MS), 1);
        assert_int_equal(keep_attend(keep, &failure), 1);
        keep_free(keep);
        last_name(name);
        assert_string_equal(name, KEEP_MARK);
        keep_end(open_keep(LONG_MS));
        close(fd);
}

/* What is held is seen at the other end of a pipe. */
static int pipe_ends[2];
static int kill_before;

static void replace_the_keeper(void) {
        struct keep *keep = open_keep(LONG_MS);
        int connection;
        pid_t pid;

        assert_int_equal(keep_put(keep, "one", pipe_ends[1]), 0);
        assert_int_equal(keep_put(keep, "other", pipe_ends[1]), 0);
        assert_int_equal(keep_put(keep, KEEP_MARK, pipe_ends[1]), 0);
        /* The keeper lives, and takes somebody else for its daemon. */
        connection = greet(LONG_MS, &pid);
        close(connection);
        victim = getpid();
        calls_left = kill_before;
        assert_int_equal(keep_put(keep, "more", pipe_ends[1]), 0);
        assert_int_equal(write(pipe_ends[1], "!", 1), 1);
}

/* True: the call was reached. */
static bool kill_while_the_keeper_is_replaced(void) {
        struct keep *keep;
        char byte;
        int fd;
        bool was_killed;

        assert_int_equal(pipe2(pipe_ends, O_CLOEXEC | O_NONBLOCK), 0);
        live_and_be_killed(replace_the_keeper);
        close(pipe_ends[1]);
        was_killed = read(pipe_ends[0], &byte, 1) < 0;
        keep = open_keep(LONG_MS);
        if (count_untaken(keep, "") < 3)
                fail_msg("killed before call %d: %zu of 3 are held", kill_before, count_untaken(keep, ""));
        assert_int_equal(keep_take(keep, KEEP_MARK, &fd), 0);
        close(fd);
        keep_end(keep);
        assert_nothing_is_left();
        await_end(pipe_ends[0]); /* nobody has it any more */
        return was_killed;
}

static void test_a_kill_while_a_keeper_is_replaced_loses_nothing(void **state) {
        kill_before = 1;
        while (kill_while_the_keeper_is_replaced())
                kill_before++;
        assert_true(kill_before > 10);
}

static void test_a_keeper_that_cannot_be_told_is_ended_all_the_same(void **state) {
        struct keep *keep;
        int connection;
        pid_t pid;

        assert_int_equal(pipe2(pipe_ends, O_CLOEXEC), 0);
        keep = open_keep(LONG_MS);
        assert_int_equal(keep_put(keep, "one", pipe_ends[1]), 0);
        connection = greet(LONG_MS, &pid);
        keep_end(keep);
        assert_nothing_is_left();
        close(pipe_ends[1]);
        await_end(pipe_ends[0]); /* nobody has it any more */
        close(connection);
}

/* libuv has a handler that aborts in the child when there is no pipe for it. */
static bool has_hostile_handler;

static void end_the_child(void) {
        if (has_hostile_handler)
                abort();
}

static void test_a_keeper_is_forked_without_the_handlers_of_libraries(void **state) {
#ifdef HAVE__FORK
        struct keep *keep;

        assert_int_equal(pthread_atfork(NULL, NULL, end_the_child), 0);
        has_hostile_handler = true;
        keep = open_keep(LONG_MS);
        has_hostile_handler = false;
        keep_end(keep);
        assert_nothing_is_left();
#else
        (void)end_the_child;
        skip();
#endif
}

/* ---- the service manager's store ---- */

#ifdef HAVE_SYSTEMD

enum { STORE_MAX = 4 };

static struct manager {
        char path[64];
        int socket;
        struct {
                char name[KEEP_NAME_MAX + 3];
                int fd;
        } stored[STORE_MAX + 1];
        size_t n;
} manager;

static void manager_remove(const char *name) {
        size_t i, n = 0;

        for (i = 0; i < manager.n; i++)
                if (strcmp(manager.stored[i].name, name) == 0)
                        close(manager.stored[i].fd);
                else
                        manager.stored[n++] = manager.stored[i];
        manager.n = n;
}

static void manager_hear(void) {
        _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
        char text[256] = "", name[KEEP_NAME_MAX + 3] = "";
        struct iovec part = { .iov_base = text, .iov_len = sizeof(text) - 1 };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                                  .msg_controllen = sizeof(control) };
        char *at;
        int fd = -1;

        assert_true(recvmsg(manager.socket, &message, MSG_CMSG_CLOEXEC) > 0);
        if (CMSG_FIRSTHDR(&message))
                memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
        at = strstr(text, "FDNAME=");
        if (at)
                sscanf(at, "FDNAME=%66[^\n]", name);
        if (strstr(text, "FDSTOREREMOVE=1"))
                manager_remove(name);
        else if (strstr(text, "FDSTORE=1")) {
                assert_non_null(strstr(text, "FDPOLL=0"));
                assert_true(manager.n < STORE_MAX && fd >= 0);
                strcpy(manager.stored[manager.n].name, name);
                manager.stored[manager.n++].fd = fd;
                fd = -1;
        }
        if (fd >= 0)
                close(fd); /* the barrier */
}

/* As systemd does: a socket first, then what is in the store. */
static void manager_exec(void (*live)(void)) {
        char names[1024] = "dmabroker.socket", number[16];
        size_t i;

        for (i = 0; i < manager.n; i++) {
                snprintf(names + strlen(names), sizeof(names) - strlen(names), ":%s", manager.stored[i].name);
                assert_int_equal(dup3(manager.stored[i].fd, 200 + (int)i, O_CLOEXEC), 200 + i);
        }
        for (i = 0; i < manager.n; i++)
                assert_int_equal(dup2(200 + (int)i, 4 + (int)i), 4 + i);
        assert_int_equal(dup2(make_file("a socket"), 3), 3);
        snprintf(number, sizeof(number), "%zu", manager.n + 1);
        setenv("LISTEN_FDS", number, 1);
        snprintf(number, sizeof(number), "%d", (int)getpid());
        setenv("LISTEN_PID", number, 1);
        setenv("LISTEN_FDNAMES", names, 1);
        setenv("NOTIFY_SOCKET", manager.path, 1);
        setenv("DMABROKER_FDSTORE", "4", 1);
        live();
        _exit(0);
}

static void manager_run(void (*live)(void)) {
        struct pollfd polls[2];
        int status;
        pid_t child;

        child = fork();
        if (child == 0)
                manager_exec(live);
        polls[0] = (struct pollfd){ .fd = manager.socket, .events = POLLIN };
        polls[1] = (struct pollfd){ .fd = pidfd_open(child, 0), .events = POLLIN };
        for (;;) {
                assert_true(poll(polls, 2, DEADLINE_MS) > 0);
                if (polls[0].revents)
                        manager_hear();
                else
                        break;
        }
        close(polls[1].fd);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) ? WEXITSTATUS(status) == 0 : WTERMSIG(status) == SIGKILL);
}

static void fill_store(void) {
        struct keep *keep = open_keep(LONG_MS);

        if (!strstr(keep_about(keep), "service manager") || keep_room(keep) != STORE_MAX ||
            keep_put(keep, "one", make_file("first")) != 0 || keep_put(keep, "two", make_file("second")) != 0 ||
            keep_put(keep, "three", make_file("third")) != 0 || keep_drop(keep, "two") != 0 ||
            keep_put(keep, "four", make_file("fourth")) != 0 || keep_put(keep, "five", make_file("fifth")) != 0 ||
            keep_put(keep, "six", make_file("sixth")) != -ENOSPC)
                _exit(1);
        kill(getpid(), SIGKILL);
}

static bool has_text(struct keep *keep, const char *name, const char *text) {
        char got[16] = "";
        int fd;

        return keep_take(keep, name, &fd) == 0 && pread(fd, got, sizeof(got) - 1, 0) > 0 && strcmp(got, text) == 0;
}

static void use_store(void) {
        struct keep *keep = open_keep(LONG_MS);

        if (count_untaken(keep, "") != 4 || !has_text(keep, "one", "first") || !has_text(keep, "three", "third") ||
            !has_text(keep, "four", "fourth") || !has_text(keep, "five", "fifth"))
                _exit(1);
        keep_end(keep);
}

static bool is_manager_slow;

/* In place of the library's, whose time is long. */
int sd_notify_barrier(int unset_environment, uint64_t timeout) {
        int (*real)(int unset_environment, uint64_t timeout);

        *(void **)&real = dlsym(RTLD_NEXT, "sd_notify_barrier");
        return is_manager_slow ? -ETIMEDOUT : real(unset_environment, timeout);
}

static void manager_open(void) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        snprintf(manager.path, sizeof(manager.path), "%s/notify", directory);
        strcpy(address.sun_path, manager.path);
        manager.socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(manager.socket, (struct sockaddr *)&address, sizeof(address)), 0);
}

static void manager_close(void) {
        close(manager.socket);
        unlink(manager.path);
}

static void test_a_service_manager_with_a_store_is_the_keeper(void **state) {
        manager_open();
        manager_run(fill_store);
        assert_int_equal(manager.n, STORE_MAX);
        assert_false(is_socket_there()); /* no keeper */
        manager_run(use_store);
        assert_int_equal(manager.n, 0);
        manager_close();
}

static void put_too_slowly(void) {
        struct keep *keep = open_keep(LONG_MS);

        if (keep_put(keep, "one", make_file("first")) != 0)
                _exit(1);
        is_manager_slow = true;
        if (keep_put(keep, "two", make_file("second")) != -ETIMEDOUT)
                _exit(1);
}

/* The next daemon would find what this one's books do not have. */
static void test_what_a_slow_service_manager_was_given_is_taken_back(void **state) {
        manager_open();
        manager_run(put_too_slowly);
        assert_int_equal(manager.n, 1);
        assert_string_equal(manager.stored[0].name, KEEP_STORE_PREFIX "one");
        manager_remove(KEEP_STORE_PREFIX "one");
        manager_close();
}

#endif

/* ---- what it costs ---- */

static void test_a_put_is_not_dear(void **state) {
        struct keep *keep = open_keep(LONG_MS);
        int fd = make_file("x"), i;
        struct timespec begin, end;
        char name[32];

        clock_gettime(CLOCK_MONOTONIC, &begin);
        for (i = 0; i < 2000; i++) {
                snprintf(name, sizeof(name), "x-%d", i);
                assert_int_equal(keep_put(keep, name, fd), 0);
        }
        clock_gettime(CLOCK_MONOTONIC, &end);
        print_message("keep_put() by a keeper: %.1f us\n",
                      ((double)(end.tv_sec - begin.tv_sec) * 1e9 + (double)(end.tv_nsec - begin.tv_nsec)) / 1000 / i);
        keep_end(keep);
        close(fd);
}

static int set_up(void **state) {
        unsetenv("NOTIFY_SOCKET");
        if (!mkdtemp(directory))
                return -1;
        directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return directory_fd < 0 ? -1 : 0;
}

static int tear_down(void **state) {
        close(directory_fd);
        return rmdir(directory);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_what_a_killed_daemon_put_is_there_for_the_next),
                cmocka_unit_test(test_what_was_taken_stays_held_until_it_is_dropped),
                cmocka_unit_test(test_names_are_unique_and_have_limits),
                cmocka_unit_test(test_without_a_keep_everything_is_well),
                cmocka_unit_test(test_a_daemon_that_keeps_nothing_gives_up_what_was_held),
                cmocka_unit_test(test_hundreds_of_descriptors_keep_their_names),
                cmocka_unit_test(test_threads_may_put_and_drop_at_the_same_time),
                cmocka_unit_test(test_a_keeper_that_holds_nothing_ends_with_its_daemon),
                cmocka_unit_test(test_a_keeper_gives_up_when_no_daemon_comes),
                cmocka_unit_test(test_a_keeper_without_a_daemon_ends_on_sigterm_and_with_one_does_not),
                cmocka_unit_test(test_the_keeper_has_nothing_of_the_daemon),
                cmocka_unit_test(test_a_socket_that_nobody_listens_on_is_replaced),
                cmocka_unit_test(test_nobody_else_gets_anything_from_the_keeper),
                cmocka_unit_test(test_another_keeper_gets_everything_when_one_dies),
                cmocka_unit_test(test_a_put_to_a_dead_keeper_makes_another_one_and_tells),
                cmocka_unit_test(test_when_no_keeper_can_be_had_it_says_so),
                cmocka_unit_test(test_a_keeper_that_cannot_be_replaced_at_once_is_replaced_later),
                cmocka_unit_test(test_a_keeper_that_could_not_be_given_everything_is_ended),
                cmocka_unit_test(test_a_keeper_that_cannot_be_told_is_ended_all_the_same),
                cmocka_unit_test(test_a_keeper_is_forked_without_the_handlers_of_libraries),
                cmocka_unit_test(test_a_kill_while_a_keeper_is_replaced_loses_nothing),
                cmocka_unit_test(test_the_mark_is_put_last_when_everything_is_put_again),
#ifdef HAVE_SYSTEMD
                cmocka_unit_test(test_a_service_manager_with_a_store_is_the_keeper),
                cmocka_unit_test(test_what_a_slow_service_manager_was_given_is_taken_back),
#endif
                cmocka_unit_test(test_a_put_is_not_dear),
        };

        if (pidfd_open(getpid(), 0) < 0) {
                printf("skipped: the end of a process is awaited with pidfd_open(), which valgrind may not know: %s\n",
                       strerror(errno));
                return 77;
        }
        return cmocka_run_group_tests(tests, set_up, tear_down);
}
