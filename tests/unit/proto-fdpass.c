/* File descriptors over a socket pair. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "proto/fdpass.h"

static int ends[2];

static int begin(void **state) {
        return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends);
}

static int end(void **state) {
        close(ends[0]);
        close(ends[1]);
        return 0;
}

static ssize_t send_text(const char *text, const int *fds, size_t n_fds) {
        struct iovec piece = { .iov_base = (char *)text, .iov_len = strlen(text) };

        return fdpass_send(ends[0], &piece, 1, fds, n_fds);
}

static size_t count_open(void) {
        size_t n = 0;

        for (int fd = 0; fd < 256; fd++)
                n += fcntl(fd, F_GETFD) >= 0;
        return n;
}

static void test_a_descriptor_arrives_with_its_bytes_and_closes_on_exec(void **state) {
        char buffer[16];
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), received[FDPASS_MAX];
        size_t n_fds = 9;
        struct stat a, b;

        assert_int_equal(send_text("hello\n", &fd, 1), 6);
        assert_int_equal(fdpass_receive(ends[1], buffer, sizeof(buffer), received, &n_fds), 6);
        assert_int_equal(n_fds, 1);
        assert_int_equal(fstat(fd, &a) | fstat(received[0], &b), 0);
        assert_true(a.st_ino == b.st_ino && a.st_rdev == b.st_rdev);
        assert_true(fcntl(received[0], F_GETFD) & FD_CLOEXEC);
        close(received[0]);
        close(fd);
}

static void test_as_many_as_allowed_arrive_and_one_more_is_not_sent(void **state) {
        int fds[FDPASS_MAX + 1], received[FDPASS_MAX];
        char buffer[16];
        size_t n_fds = 0;

        for (size_t i = 0; i <= FDPASS_MAX; i++)
                fds[i] = ends[0];
        assert_int_equal(send_text("x", fds, FDPASS_MAX + 1), -EINVAL);
        assert_int_equal(send_text("x", fds, FDPASS_MAX), 1);
        assert_int_equal(fdpass_receive(ends[1], buffer, sizeof(buffer), received, &n_fds), 1);
        assert_int_equal(n_fds, FDPASS_MAX);
        for (size_t i = 0; i < n_fds; i++)
                assert_int_equal(close(received[i]), 0);
}

static void test_more_than_expected_is_an_error_and_none_is_kept(void **state) {
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE((FDPASS_MAX + 1) * sizeof(int))];
        } control = { .bytes = { 0 } };
        struct iovec piece = { .iov_base = "x", .iov_len = 1 };
        struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control,
                                  .msg_controllen = sizeof(control) };
        int fds[FDPASS_MAX + 1], received[FDPASS_MAX];
        size_t n_fds = 77, before = count_open();
        char buffer[16];

        for (size_t i = 0; i <= FDPASS_MAX; i++)
                fds[i] = ends[0];
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(fds));
        memcpy(CMSG_DATA(&control.header), fds, sizeof(fds));
        assert_int_equal(sendmsg(ends[0], &message, 0), 1);
        assert_int_equal(fdpass_receive(ends[1], buffer, sizeof(buffer), received, &n_fds), -EPROTO);
        assert_int_equal(n_fds, 77);
        assert_int_equal(count_open(), before);
}

static void test_a_side_that_takes_none_is_told_and_keeps_none(void **state) {
        size_t before = count_open();
        bool refused = false;
        char buffer[16];

        assert_int_equal(send_text("ab", ends, 2), 2);
        assert_int_equal(fdpass_receive_none(ends[1], buffer, sizeof(buffer), &refused), 2);
        assert_true(refused);
        assert_int_equal(count_open(), before);
        assert_int_equal(send_text("cd", NULL, 0), 2);
        assert_int_equal(fdpass_receive_none(ends[1], buffer, sizeof(buffer), &refused), 2);
        assert_false(refused);
}

static void test_a_full_table_of_files_does_not_hinder_who_takes_none(void **state) {
        struct rlimit old, none;
        bool refused = false;
        char buffer[4];
        ssize_t n;

        assert_int_equal(send_text("x", ends, 2), 1);
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
        none = (struct rlimit){ .rlim_cur = (rlim_t)ends[1] + 1, .rlim_max = old.rlim_max };
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
        n = fdpass_receive_none(ends[1], buffer, sizeof(buffer), &refused);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
        assert_int_equal(n, 1);
        assert_true(refused);
}

static void test_pieces_are_gathered_and_a_full_socket_says_so(void **state) {
        struct iovec pieces[] = { { .iov_base = "ab", .iov_len = 2 }, { .iov_base = "cd", .iov_len = 2 } };
        int received[FDPASS_MAX];
        size_t n_fds = 0;
        char buffer[16];
        ssize_t n;

        assert_int_equal(fdpass_send(ends[0], pieces, 2, NULL, 0), 4);
        assert_int_equal(fdpass_receive(ends[1], buffer, sizeof(buffer), received, &n_fds), 4);
        assert_memory_equal(buffer, "abcd", 4);
        assert_int_equal(fdpass_receive(ends[1], buffer, sizeof(buffer), received, &n_fds), -EAGAIN);
        do
                n = fdpass_send(ends[0], pieces, 2, NULL, 0);
        while (n > 0);
        assert_int_equal(n, -EAGAIN);
        assert_int_equal(fdpass_send(ends[0], pieces, 0, NULL, 0), -EINVAL);
}

static void test_a_peer_that_is_gone_is_an_error_and_no_signal(void **state) {
        int received[FDPASS_MAX];
        size_t n_fds = 0;
        char buffer[4];

        shutdown(ends[1], SHUT_RDWR);
        assert_int_equal(send_text("x", NULL, 0), -EPIPE);
        assert_int_equal(fdpass_receive(ends[0], buffer, sizeof(buffer), received, &n_fds), 0);
        assert_int_equal(n_fds, 0);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
        const struct CMUnitTest tests[] = {
                TEST(test_a_descriptor_arrives_with_its_bytes_and_closes_on_exec),
                TEST(test_as_many_as_allowed_arrive_and_one_more_is_not_sent),
                TEST(test_more_than_expected_is_an_error_and_none_is_kept),
                TEST(test_a_side_that_takes_none_is_told_and_keeps_none),
                TEST(test_a_full_table_of_files_does_not_hinder_who_takes_none),
                TEST(test_pieces_are_gathered_and_a_full_socket_says_so),
                TEST(test_a_peer_that_is_gone_is_an_error_and_no_signal),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
