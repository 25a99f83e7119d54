/* What is said when there is no daemon to connect to. */
#include <dmabroker.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[64], path[100], uri[120];

static int set_up(void **state) {
        strcpy(directory, "/tmp/dmabroker-test.XXXXXX");
        if (!mkdtemp(directory))
                return -1;
        snprintf(path, sizeof(path), "%s/socket", directory);
        snprintf(uri, sizeof(uri), "unix:%s", path);
        unsetenv("DMABROKER_SOCKET");
        return 0;
}

static int tear_down(void **state) {
        unlink(path); /* if the test made it */
        return rmdir(directory);
}

static void expect_failure(const char *where, int error, const char *in_sentence) {
        dmab_t *dmab = NULL;

        assert_int_equal(dmab_connect(where, &dmab), -error);
        assert_null(dmab);
        if (!strstr(dmab_last_error(), in_sentence))
                fail_msg("\"%s\" does not say \"%s\"", dmab_last_error(), in_sentence);
        assert_null(dmab_last_error_json());
        assert_null(dmab_last_reason());
}

/* A socket that is bound; listening or not. */
static int make_socket(bool listening) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        assert_true(fd >= 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        if (listening)
                assert_int_equal(listen(fd, 1), 0);
        return fd;
}

static void test_a_missing_socket_names_its_path_and_the_daemon(void **state) {
        expect_failure(uri, ENOENT, path);
        expect_failure(uri, ENOENT, "dmabrokerd");
}

static void test_the_environment_names_the_socket(void **state) {
        setenv("DMABROKER_SOCKET", path, 1);
        expect_failure(NULL, ENOENT, path);
        expect_failure("", ENOENT, path);
        expect_failure("auto:", ENOENT, path);
        unsetenv("DMABROKER_SOCKET");
        /* On a host or in a guest that has one, there may be a daemon as well. */
        if (!access("/run/dmabroker/dmabroker.sock", F_OK) || !access("/dev/virtio-ports/org.dmabroker.0", F_OK))
                return;
        expect_failure("auto:", ENOENT, "/run/dmabroker/dmabroker.sock");
        expect_failure("auto:", ENOENT, "/dev/virtio-ports/org.dmabroker.0");
}

static void test_a_file_that_is_no_socket_is_told_apart_from_a_dead_one(void **state) {
        FILE *file = fopen(path, "w");

        assert_non_null(file);
        fclose(file);
        expect_failure(uri, ENOTSOCK, "not a socket");
        unlink(path);
        close(make_socket(false));
        expect_failure(uri, ECONNREFUSED, "nobody listens");
}

static void test_a_socket_without_permission_names_the_group(void **state) {
        int fd, status;
        pid_t pid;

        if (geteuid()) {
                print_message("another user is needed, and only root can become one\n");
                skip();
        }
        fd = make_socket(true);
        assert_int_equal(chmod(path, 0600), 0);
        assert_int_equal(chmod(directory, 0755), 0);
        pid = fork();
        if (!pid) {
                dmab_t *dmab;

                _exit(setgid(65534) || setuid(65534) || dmab_connect(uri, &dmab) != -EACCES ||
                      !strstr(dmab_last_error(), "group"));
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        close(fd);
}

static void test_addresses_that_are_none_are_refused(void **state) {
        char long_path[300];

        expect_failure("tcp:localhost", EINVAL, "unix:PATH");
        expect_failure("unix:", EINVAL, "empty");
        expect_failure("virtio:/nowhere/port", ENOENT, "/nowhere/port");
        if (access("/dev/virtio-ports/org.dmabroker.0", F_OK))
                expect_failure("virtio:", ENOENT, "/dev/virtio-ports/org.dmabroker.0");
        if (access("/dev/xen/gntdev", F_OK))
                expect_failure("xen:", ENOENT, "no guest of Xen's");
        memset(long_path, 'x', sizeof(long_path));
        memcpy(long_path, "unix:/", 6);
        long_path[sizeof(long_path) - 1] = '\0';
        expect_failure(long_path, ENAMETOOLONG, "bytes");
}

static void test_errors_belong_to_no_call_before_the_first(void **state) {
        pid_t pid = fork();
        int status;

        /* A new process stands for a thread that has not failed yet. */
        if (!pid)
                _exit(*dmab_last_error() || dmab_last_error_json() || dmab_last_reason());
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        dmab_disconnect(NULL);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_errors_belong_to_no_call_before_the_first),
                cmocka_unit_test_setup_teardown(test_a_missing_socket_names_its_path_and_the_daemon, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_the_environment_names_the_socket, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_a_file_that_is_no_socket_is_told_apart_from_a_dead_one, set_up,
                                                tear_down),
                cmocka_unit_test_setup_teardown(test_a_socket_without_permission_names_the_group, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_addresses_that_are_none_are_refused, set_up, tear_down),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
