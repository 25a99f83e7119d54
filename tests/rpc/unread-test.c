/* Descriptors that are not read cost the daemon few of its own, in however many connections they wait. */
#include <dirent.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/rpc/ask.h"

enum { CLIENTS = 20, REQUESTS = 500 };

static size_t open_files(const struct test_daemon *daemon) {
        char path[64];
        size_t n = 0;
        DIR *directory;

        snprintf(path, sizeof(path), "/proc/%ld/fd", (long)test_daemon_pid(daemon));
        directory = opendir(path);
        assert_non_null(directory);
        while (readdir(directory))
                n++;
        closedir(directory);
        return n;
}

/* All with the id 1, and in one piece: a socket holds few small ones. */
static void send_requests(struct test_client *client, uint64_t region) {
        char text[REQUESTS * 100];
        size_t n = 0;

        for (int i = 0; i < REQUESTS; i++)
                n += (size_t)snprintf(text + n, sizeof(text) - n,
                                      "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"region.get\",\"params\":{\"region\":%"
                                      PRIu64 "}}\n", region);
        assert_int_equal(test_client_send(client, text, n), 0);
}

static void test_one_user_cannot_use_up_the_daemons_descriptors(void **state) {
        struct test_daemon *running = ask_daemon(NULL);
        struct test_client *greedy[CLIENTS], *other = ask_connect(running, NULL);
        uint64_t device = ask_device(other, "card"), region;
        size_t before;
        int fd;

        region = ask_number(other, "region", "coherent.alloc", "{'device':%" PRIu64 ",'size':4096}", device);
        for (int i = 0; i < CLIENTS; i++) {
                greedy[i] = ask_connect(running, NULL);
                json_decref(ask(greedy[i], "broker.ping", "{}"));
        }
        before = open_files(running);
        for (int i = 0; i < CLIENTS; i++)
                send_requests(greedy[i], region);
        /* Each is a turn of the daemon's loop, in which it reads more. */
        for (int i = 0; i < 100; i++)
                json_decref(ask(other, "broker.ping", "{}"));
        assert_in_range(open_files(running), before, before + 256 + CLIENTS + 8);
        /* Whoever reads gets all of it, although the others do not. */
        for (int j = 0; j < REQUESTS; j++) {
                json_decref(ask_result(greedy[3], 1));
                fd = test_client_take_fd(greedy[3]);
                assert_true(fd >= 0);
                close(fd);
        }
        for (int i = 0; i < CLIENTS; i++)
                test_client_close(greedy[i]);
        test_client_close(other);
        assert_int_equal(test_daemon_end(running), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_one_user_cannot_use_up_the_daemons_descriptors),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
