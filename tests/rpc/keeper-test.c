/* The process that holds the daemon's memory while there is no daemon, beside a real daemon. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/rpc/ask.h"

#define MIB (1 << 20)

static struct test_daemon *running;

static int begin(void **state) {
        const struct test_daemon_options options = { .survives = true };

        return test_daemon_start(&options, &running);
}

/* Whatever is in use ends as well. */
static int end(void **state) {
        int status = 0, r = 0;

        if (test_daemon_pid(running)) {
                test_daemon_signal(running, SIGINT);
                r = test_daemon_wait(running, &status);
        }
        test_daemon_end(running);
        return r < 0 || status ? -1 : 0;
}

static bool has_logged(const char *text) {
        char *log = test_daemon_log(running);
        bool has = log && strstr(log, text);

        free(log);
        return has;
}

static void allocate(const char *device) {
        struct test_client *client = ask_connect(running, NULL);

        ask_alloc(client, ask_device(client, device), MIB);
        test_client_close(client);
}

static uint64_t count_allocs(void) {
        struct test_client *client = ask_connect(running, NULL);
        json_t *status = ask(client, "broker.status", "{}");
        uint64_t allocs = ask_peek_number(json_object_get(status, "counts"), "allocs");

        json_decref(status);
        ask_clean(client);
        test_client_close(client);
        return allocs;
}

static void test_memory_outlives_a_daemon_that_is_killed(void **state) {
        allocate("card");
        assert_int_not_equal(test_daemon_find_keeper(running), 0);
        assert_int_equal(test_daemon_kill(running), 0);
        assert_int_equal(test_daemon_start_again(running), 0);
        assert_int_equal(count_allocs(), 1);
}

static void test_memory_outlives_a_keeper_that_is_killed_and_then_the_daemon(void **state) {
        pid_t first, second;

        allocate("card");
        first = test_daemon_find_keeper(running);
        assert_int_equal(kill(first, SIGKILL), 0);
        ask_until(has_logged("had died"));
        second = test_daemon_find_keeper(running);
        assert_int_not_equal(second, 0);
        assert_int_not_equal(second, first);
        allocate("other");
        assert_int_equal(test_daemon_kill(running), 0);
        assert_int_equal(test_daemon_start_again(running), 0);
        assert_int_equal(count_allocs(), 2);
        assert_int_equal(test_daemon_find_keeper(running), second);
}

static void test_the_keeper_ends_with_a_daemon_of_which_nothing_is_left(void **state) {
        assert_int_not_equal(test_daemon_find_keeper(running), 0);
        assert_int_equal(test_daemon_stop(running), 0);
        ask_until(test_daemon_find_keeper(running) == 0);
}

static void test_a_service_without_a_store_is_warned(void **state) {
        assert_false(has_logged("will not outlive a restart"));
        assert_int_equal(test_daemon_stop(running), 0);
        setenv("INVOCATION_ID", "0123456789abcdef0123456789abcdef", 1);
        assert_int_equal(test_daemon_start_again(running), 0);
        unsetenv("INVOCATION_ID");
        assert_true(has_logged("will not outlive a restart"));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_memory_outlives_a_daemon_that_is_killed, begin, end),
                cmocka_unit_test_setup_teardown(test_memory_outlives_a_keeper_that_is_killed_and_then_the_daemon, begin,
                                                end),
                cmocka_unit_test_setup_teardown(test_the_keeper_ends_with_a_daemon_of_which_nothing_is_left, begin, end),
                cmocka_unit_test_setup_teardown(test_a_service_without_a_store_is_warned, begin, end),
        };

        unsetenv("INVOCATION_ID"); /* of whatever runs the tests */
        return cmocka_run_group_tests(tests, NULL, NULL);
}
