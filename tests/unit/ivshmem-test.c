/* The server of a window, with real sockets: the test is QEMU, and whoever else connects. */
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/guest/ivshmem.h"
#include "daemon/loop.h"
#include "proto/fdpass.h"

enum { SIZE = 1 << 20 };

static uv_loop_t loop;
static struct ivshmem *server;
static char directory[64], path[100];
static int memory;
static unsigned fds_before;

static struct {
        unsigned connected, gone, closed;
        struct ucred who;
        bool admits, closes_when_connected, closes_when_gone, closes_when_asked;
} seen;

/* ---- a call that fails ---- */

static int sends_until_failure, failing_error; /* 0: none fails */

ssize_t __real_sendmsg(int socket, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int socket, const struct msghdr *message, int flags);

ssize_t __wrap_sendmsg(int socket, const struct msghdr *message, int flags) {
        if (sends_until_failure && --sends_until_failure == 0) {
                errno = failing_error;
                return -1;
        }
        return __real_sendmsg(socket, message, flags);
}

/* ---- the server ---- */

static void on_closed(void *userdata) {
        seen.closed++;
}

static bool on_admits(void *userdata, int fd, const struct ucred *who) {
        if (seen.closes_when_asked)
                ivshmem_close(server, on_closed);
        return seen.admits;
}

static void on_changed(void *userdata, bool connected, const struct ucred *who) {
        seen.who = *who;
        *(connected ? &seen.connected : &seen.gone) += 1;
        assert_true(ivshmem_is_connected(server) == connected);
        if (connected ? seen.closes_when_connected : seen.closes_when_gone)
                ivshmem_close(server, on_closed);
}

static int start(unsigned vectors, struct failure *failure) {
        const struct ivshmem_options options = { .vectors = vectors, .admits = on_admits, .changed = on_changed };

        return ivshmem_new(&loop, path, memory, &options, &server, failure);
}

static unsigned count_fds(void) {
        DIR *fds = opendir("/proc/self/fd");
        unsigned n = 0;

        while (readdir(fds))
                n++;
        closedir(fds);
        return n;
}

static int make_memory(off_t size) {
        int fd = memfd_create("window", MFD_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, size), 0);
        return fd;
}

/* libuv has two descriptors of the process, which stay. */
static int begin_all(void **state) {
        return loop_init(&loop) < 0 || uv_loop_close(&loop) < 0;
}

static int begin_without(void **state) {
        alarm(60);
        fds_before = count_fds();
        memset(&seen, 0, sizeof(seen));
        seen.admits = true;
        sends_until_failure = 0;
        strcpy(directory, "/tmp/ivshmem-XXXXXX");
        assert_non_null(mkdtemp(directory));
        snprintf(path, sizeof(path), "%s/window", directory);
        memory = make_memory(SIZE);
        assert_int_equal(loop_init(&loop), 0);
        return 0;
}

static int begin(void **state) {
        begin_without(state);
        return start(1, NULL);
}

/* Nothing is left: no handle, no descriptor, no file. */
static int end_without(void **state) {
        assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
        assert_int_equal(uv_loop_close(&loop), 0);
        close(memory);
        assert_int_equal(rmdir(directory), 0);
        assert_int_equal(count_fds(), fds_before);
        return 0;
}

static void stop(void) {
        ivshmem_close(server, on_closed);
        while (!seen.closed)
                uv_run(&loop, UV_RUN_ONCE);
}

static int end(void **state) {
        if (!seen.closed)
                stop();
        assert_int_equal(seen.closed, 1);
        return end_without(state);
}

static void run_until(const unsigned *counter, unsigned value) {
        while (*counter < value)
                uv_run(&loop, UV_RUN_ONCE);
        assert_int_equal(*counter, value);
}

/* ---- QEMU ---- */

static int new_socket(void) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_true(fd >= 0);
        return fd;
}

static void connect_socket(int fd) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        strcpy(address.sun_path, path);
        assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
}

static int connect_qemu(void) {
        int fd = new_socket();

        connect_socket(fd);
        return fd;
}

/* As QEMU does: 8 bytes, and the descriptor that comes with them or -1. False at the end. */
static bool receive(int socket, int64_t *ret_value, int *ret_fd) {
        int fds[FDPASS_MAX];
        size_t n_fds = 0;
        ssize_t n;

        for (;;) {
                struct timeval wait = { .tv_usec = 1000 };

                setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
                n = fdpass_receive(socket, ret_value, sizeof(*ret_value), fds, &n_fds);
                if (n != -EAGAIN)
                        break;
                uv_run(&loop, UV_RUN_NOWAIT);
        }
        if (n <= 0)
                return false;
        assert_int_equal(n, sizeof(*ret_value));
        *ret_value = (int64_t)le64toh((uint64_t)*ret_value);
        assert_in_range(n_fds, 0, 1);
        *ret_fd = n_fds ? fds[0] : -1;
        return true;
}

static int expect(int socket, int64_t value, bool with_fd) {
        int64_t received;
        int fd;

        assert_true(receive(socket, &received, &fd));
        assert_int_equal(received, value);
        assert_int_equal(fd >= 0, with_fd);
        return fd;
}

/* Whether there is nothing to read, and the other end is there. */
static bool is_silent(int socket) {
        char byte;

        for (int i = 0; i < 4; i++)
                uv_run(&loop, UV_RUN_NOWAIT);
        return recv(socket, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
}

/* Whether it is there, read or not. */
static bool is_waiting(int socket) {
        struct pollfd end = { .fd = socket, .events = POLLRDHUP };

        for (int i = 0; i < 4; i++)
                uv_run(&loop, UV_RUN_NOWAIT);
        return poll(&end, 1, 0) == 0;
}

static bool has_ended(int socket) {
        int64_t value;
        int fd;

        return !receive(socket, &value, &fd);
}

static int expect_window(int socket) {
        int fd;

        expect(socket, 0, false);
        expect(socket, 1, false);
        fd = expect(socket, -1, true);
        close(expect(socket, 1, true));
        return fd;
}

static void expect_refusal(int socket) {
        expect(socket, 99, false);
        assert_true(is_silent(socket));
}

/* ---- the happy path ---- */

static void test_a_peer_is_told_all_at_once_in_the_order_of_the_protocol(void **state) {
        int qemu, window, vectors[3];
        struct stat got, own;

        assert_int_equal(start(3, NULL), 0);
        qemu = connect_qemu();
        expect(qemu, 0, false);
        expect(qemu, 1, false);
        window = expect(qemu, -1, true);
        for (int i = 0; i < 3; i++)
                vectors[i] = expect(qemu, 1, true);
        assert_true(is_silent(qemu));
        assert_int_equal(fstat(window, &got), 0);
        assert_int_equal(fstat(memory, &own), 0);
        assert_int_equal(got.st_ino, own.st_ino);
        for (unsigned i = 0; i < 3; i++) {
                eventfd_t count;

                assert_int_equal(ivshmem_interrupt(server, i), 0);
                assert_int_equal(ivshmem_interrupt(server, i), 0);
                assert_int_equal(eventfd_read(vectors[i], &count), 0);
                assert_int_equal(count, 2);
                close(vectors[i]);
        }
        assert_int_equal(ivshmem_interrupt(server, 3), -EINVAL);
        close(window);
        close(qemu);
        run_until(&seen.gone, 1);
        assert_int_equal(ivshmem_interrupt(server, 0), -ENOTCONN);
}

static void test_there_need_be_no_interrupt(void **state) {
        int qemu;

        assert_int_equal(start(0, NULL), 0);
        qemu = connect_qemu();
        expect(qemu, 0, false);
        expect(qemu, 1, false);
        close(expect(qemu, -1, true));
        assert_true(is_silent(qemu));
        assert_int_equal(ivshmem_interrupt(server, 0), -EINVAL);
        close(qemu);
}

static void test_coming_and_leaving_is_told_with_who_it_is(void **state) {
        int qemu = connect_qemu();

        run_until(&seen.connected, 1);
        assert_int_equal(seen.who.pid, getpid());
        assert_int_equal(seen.who.uid, getuid());
        assert_true(ivshmem_is_connected(server));
        assert_int_equal(seen.gone, 0);
        close(qemu);
        run_until(&seen.gone, 1);
        assert_false(ivshmem_is_connected(server));
}

static void test_the_next_one_gets_the_window_when_the_first_has_left(void **state) {
        for (unsigned i = 1; i <= 50; i++) {
                int qemu = connect_qemu();

                close(expect_window(qemu));
                assert_int_equal(seen.connected, i);
                close(qemu);
        }
        run_until(&seen.gone, 50);
}

static void test_a_window_has_its_own_copy_of_the_descriptor(void **state) {
        int qemu, window;
        char byte = 0;

        close(memory);
        qemu = connect_qemu();
        window = expect_window(qemu);
        assert_int_equal(pwrite(window, "x", 1, SIZE - 1), 1);
        memory = window;
        assert_int_equal(pread(memory, &byte, 1, SIZE - 1), 1);
        assert_int_equal(byte, 'x');
        close(qemu);
}

static void test_interrupts_of_an_earlier_peer_do_not_reach_the_next_one(void **state) {
        int first = connect_qemu(), second, old, new;
        eventfd_t count;

        expect(first, 0, false);
        expect(first, 1, false);
        close(expect(first, -1, true));
        old = expect(first, 1, true);
        close(first);
        run_until(&seen.gone, 1);
        second = connect_qemu();
        expect(second, 0, false);
        expect(second, 1, false);
        close(expect(second, -1, true));
        new = expect(second, 1, true);
        assert_int_equal(eventfd_write(old, 1), 0);
        assert_int_equal(eventfd_read(new, &count), -1);
        assert_int_equal(errno, EAGAIN);
        close(old);
        close(new);
        close(second);
}

static void has_mode(bool is_open, mode_t mode) {
        const struct ivshmem_options options = { .is_open = is_open };
        struct stat st;

        assert_int_equal(ivshmem_new(&loop, path, memory, &options, &server, NULL), 0);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 07777, mode);
        assert_int_equal(st.st_uid, getuid());
}

static void test_the_socket_is_for_the_daemons_user_only(void **state) {
        has_mode(false, 0600);
}

static void test_the_socket_is_for_everybody_where_admits_is_to_look(void **state) {
        has_mode(true, 0666);
}

/* ---- who gets nothing ---- */

static void test_a_second_one_is_refused_and_keeps_its_connection(void **state) {
        int first = connect_qemu(), second;

        close(expect_window(first));
        second = connect_qemu();
        expect_refusal(second);
        assert_true(is_silent(first));
        assert_int_equal(seen.connected, 1);
        close(second);
        close(first);
        run_until(&seen.gone, 1);
}

static void test_who_comes_right_after_the_end_of_another_gets_the_window(void **state) {
        int first = connect_qemu(), second;

        close(expect_window(first));
        second = connect_qemu();
        close(first);
        close(expect_window(second));
        close(second);
        run_until(&seen.gone, 2);
}

static void test_who_is_not_admitted_is_refused(void **state) {
        int stranger, qemu;

        seen.admits = false;
        stranger = connect_qemu();
        expect_refusal(stranger);
        assert_int_equal(seen.connected, 0);
        seen.admits = true;
        qemu = connect_qemu();
        close(expect_window(qemu));
        close(qemu);
        close(stranger);
}

static void test_all_of_many_are_told_and_few_are_kept(void **state) {
        int crowd[64], qemu = connect_qemu();
        unsigned silent = 0, ended = 0;

        close(expect_window(qemu));
        for (unsigned i = 0; i < 64; i++)
                crowd[i] = connect_qemu();
        for (unsigned i = 0; i < 64; i++)
                expect(crowd[i], 99, false);
        for (unsigned i = 0; i < 64; i++) {
                if (is_silent(crowd[i]))
                        silent++;
                else if (has_ended(crowd[i]))
                        ended++;
                close(crowd[i]);
        }
        assert_int_equal(silent, IVSHMEM_REFUSED_MAX);
        assert_int_equal(ended, 64 - IVSHMEM_REFUSED_MAX);
        assert_true(is_silent(qemu));
        close(qemu);
}

static void test_what_a_peer_says_is_never_read(void **state) {
        int qemu = connect_qemu(), sent = 0;
        char noise[4096];

        memset(noise, 'x', sizeof(noise));
        close(expect_window(qemu));
        while (send(qemu, noise, sizeof(noise), MSG_DONTWAIT) > 0) {
                uv_run(&loop, UV_RUN_NOWAIT);
                assert_true(++sent < 1000);
        }
        assert_int_equal(errno, EAGAIN);
        assert_int_equal(seen.gone, 0);
        close(qemu);
        run_until(&seen.gone, 1);
}

static void test_who_closes_its_sending_side_has_left(void **state) {
        int qemu = connect_qemu();

        close(expect_window(qemu));
        shutdown(qemu, SHUT_WR);
        run_until(&seen.gone, 1);
        assert_true(has_ended(qemu));
        close(qemu);
}

static void test_who_vanishes_before_the_first_message_takes_nothing_along(void **state) {
        int qemu;

        for (int i = 0; i < 20; i++)
                close(connect_qemu());
        qemu = connect_qemu();
        close(expect_window(qemu));
        close(qemu);
        run_until(&seen.gone, seen.connected);
}

static void test_memory_that_has_changed_its_size_is_not_handed_out(void **state) {
        int qemu;

        assert_int_equal(ftruncate(memory, SIZE + 4096), 0);
        qemu = connect_qemu();
        expect_refusal(qemu);
        close(qemu);
}

/* ---- what is missing ---- */

static unsigned fill_descriptors(int *fds, unsigned max) {
        unsigned n = 0;

        while (n < max && (fds[n] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
                n++;
        assert_true(n < max);
        assert_int_equal(errno, EMFILE);
        return n;
}

static void test_without_descriptors_everybody_is_refused_until_there_are_some(void **state) {
        struct rlimit before, few = { .rlim_cur = 64 };
        int sockets[3], fillers[64], self = pidfd_open(getpid(), 0);
        unsigned n;

        if (self < 0) {
                print_message("skipped: there is no pidfd_open() here, as in valgrind, which closes one too many itself\n");
                skip();
        }
        close(self);
        getrlimit(RLIMIT_NOFILE, &before);
        few.rlim_max = before.rlim_max;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
        for (int i = 0; i < 3; i++)
                sockets[i] = new_socket();
        n = fill_descriptors(fillers, 64);
        connect_socket(sockets[0]);
        expect_refusal(sockets[0]);
        /* There is no other; whoever comes now waits. */
        connect_socket(sockets[1]);
        assert_true(is_silent(sockets[1]));
        /* One is enough for the connection, and not for its interrupt. */
        close(fillers[--n]);
        expect_refusal(sockets[1]);
        assert_int_equal(seen.connected, 0);
        while (n)
                close(fillers[--n]);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        connect_socket(sockets[2]);
        close(expect_window(sockets[2]));
        for (int i = 0; i < 3; i++)
                close(sockets[i]);
}

static void test_who_can_not_be_told_all_is_told_nonsense_instead_of_the_memory(void **state) {
        for (int failing = 1; failing <= 3; failing++) {
                int qemu = connect_qemu();

                sends_until_failure = failing;
                failing_error = ETOOMANYREFS;
                if (failing > 1)
                        expect(qemu, 0, false);
                if (failing > 2)
                        expect(qemu, 1, false);
                expect(qemu, -2, false);
                assert_true(is_silent(qemu));
                close(qemu);
        }
        assert_int_equal(seen.connected, 0);
}

static void test_without_its_interrupt_a_guest_has_its_window_all_the_same(void **state) {
        int qemu = connect_qemu();

        sends_until_failure = 4;
        failing_error = ETOOMANYREFS;
        expect(qemu, 0, false);
        expect(qemu, 1, false);
        close(expect(qemu, -1, true));
        assert_true(is_silent(qemu));
        assert_int_equal(seen.connected, 1);
        close(qemu);
}

/* ---- beginning and end ---- */

static void test_sizes_that_would_end_qemu_are_refused(void **state) {
        static const off_t sizes[] = { 0, 1, 2048, 4095, 4097, 3 << 20, (1 << 20) + 4096 };
        struct failure failure;

        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
                assert_int_equal(ftruncate(memory, sizes[i]), 0);
                assert_int_equal(start(1, &failure), -EINVAL);
                assert_non_null(strstr(failure.sentence, "power of two"));
        }
        assert_int_equal(ftruncate(memory, SIZE), 0);
        assert_int_equal(start(IVSHMEM_VECTORS_MAX + 1, &failure), -EINVAL);
        assert_int_equal(access(path, F_OK), -1);
}

static void test_a_stale_socket_is_replaced_and_other_things_are_not(void **state) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        struct failure failure;
        int stale = new_socket(), file;

        strcpy(address.sun_path, path);
        assert_int_equal(bind(stale, (struct sockaddr *)&address, sizeof(address)), 0);
        close(stale);
        assert_int_equal(start(1, &failure), 0);
        stop();
        seen.closed = 0;
        file = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        assert_int_equal(start(1, &failure), -ENOTSOCK);
        close(file);
        unlink(path);
        assert_int_equal(start(1, &failure), 0);
        assert_int_equal(start(1, &failure), -EADDRINUSE);
}

static void test_a_socket_that_is_not_its_own_is_left_alone(void **state) {
        struct ivshmem *first;

        assert_int_equal(start(1, NULL), 0);
        first = server;
        unlink(path);
        assert_int_equal(start(1, NULL), 0);
        ivshmem_close(first, NULL);
        uv_run(&loop, UV_RUN_NOWAIT);
        assert_int_equal(access(path, F_OK), 0);
}

static void test_who_has_connected_and_was_not_seen_is_told_at_the_end(void **state) {
        int crowd[40];

        for (int i = 0; i < 40; i++)
                crowd[i] = connect_qemu();
        ivshmem_close(server, on_closed);
        for (int i = 0; i < 40; i++) {
                assert_true(is_waiting(crowd[39]));
                assert_int_equal(seen.closed, 0);
                expect(crowd[i], 99, false);
        }
        run_until(&seen.closed, 1);
        for (int i = 0; i < 40; i++)
                close(crowd[i]);
        assert_int_equal(seen.connected, 0);
}

static void test_the_end_waits_for_who_has_not_read_yet(void **state) {
        int qemu = connect_qemu(), other;

        run_until(&seen.connected, 1);
        other = connect_qemu();
        ivshmem_close(server, on_closed);
        assert_int_equal(access(path, F_OK), -1);
        assert_true(is_waiting(other));
        close(expect_window(qemu));
        assert_int_equal(seen.closed, 0);
        expect(other, 99, false);
        run_until(&seen.closed, 1);
        assert_true(has_ended(qemu));
        assert_true(has_ended(other));
        close(qemu);
        close(other);
}

static void test_the_end_does_not_wait_for_ever(void **state) {
        int qemu = connect_qemu();

        run_until(&seen.connected, 1);
        stop();
        close(qemu);
}

static void test_the_end_closes_all_connections_and_tells_of_nothing_else(void **state) {
        int qemu = connect_qemu(), other;

        close(expect_window(qemu));
        other = connect_qemu();
        expect_refusal(other);
        stop();
        assert_true(has_ended(qemu));
        assert_true(has_ended(other));
        assert_int_equal(seen.gone, 0);
        close(qemu);
        close(other);
}

static void test_closing_from_a_callback_is_fine(void **state) {
        int qemu;

        for (int i = 0; i < 4; i++) {
                int second = -1;

                memset(&seen, 0, sizeof(seen));
                seen.admits = i == 0;
                seen.closes_when_asked = i < 2;
                seen.closes_when_connected = i == 2;
                seen.closes_when_gone = i == 3;
                if (i >= 2)
                        seen.admits = true;
                assert_int_equal(start(1, NULL), 0);
                qemu = connect_qemu();
                if (i < 2)
                        expect(qemu, 99, false);
                else
                        close(expect_window(qemu));
                /* The one that comes is what shows that the other is gone. */
                if (i == 3) {
                        second = connect_qemu();
                        close(qemu);
                        expect(second, 99, false);
                        qemu = second;
                }
                run_until(&seen.closed, 1);
                assert_true(has_ended(qemu));
                close(qemu);
        }
}

#define with_server(test) cmocka_unit_test_setup_teardown(test, begin, end)
#define without_server(test) cmocka_unit_test_setup_teardown(test, begin_without, end)
#define without_end(test) cmocka_unit_test_setup_teardown(test, begin_without, end_without)

int main(void) {
        const struct CMUnitTest tests[] = {
                without_server(test_a_peer_is_told_all_at_once_in_the_order_of_the_protocol),
                without_server(test_there_need_be_no_interrupt),
                with_server(test_coming_and_leaving_is_told_with_who_it_is),
                with_server(test_the_next_one_gets_the_window_when_the_first_has_left),
                with_server(test_a_window_has_its_own_copy_of_the_descriptor),
                with_server(test_interrupts_of_an_earlier_peer_do_not_reach_the_next_one),
                without_server(test_the_socket_is_for_the_daemons_user_only),
                without_server(test_the_socket_is_for_everybody_where_admits_is_to_look),
                with_server(test_a_second_one_is_refused_and_keeps_its_connection),
                with_server(test_who_comes_right_after_the_end_of_another_gets_the_window),
                with_server(test_who_is_not_admitted_is_refused),
                with_server(test_all_of_many_are_told_and_few_are_kept),
                with_server(test_what_a_peer_says_is_never_read),
                with_server(test_who_closes_its_sending_side_has_left),
                with_server(test_who_vanishes_before_the_first_message_takes_nothing_along),
                with_server(test_memory_that_has_changed_its_size_is_not_handed_out),
                with_server(test_without_descriptors_everybody_is_refused_until_there_are_some),
                with_server(test_who_can_not_be_told_all_is_told_nonsense_instead_of_the_memory),
                with_server(test_without_its_interrupt_a_guest_has_its_window_all_the_same),
                without_end(test_sizes_that_would_end_qemu_are_refused),
                without_server(test_a_stale_socket_is_replaced_and_other_things_are_not),
                without_server(test_a_socket_that_is_not_its_own_is_left_alone),
                with_server(test_who_has_connected_and_was_not_seen_is_told_at_the_end),
                with_server(test_the_end_waits_for_who_has_not_read_yet),
                with_server(test_the_end_does_not_wait_for_ever),
                with_server(test_the_end_closes_all_connections_and_tells_of_nothing_else),
                without_server(test_closing_from_a_callback_is_fine),
        };

        return cmocka_run_group_tests(tests, begin_all, NULL);
}
