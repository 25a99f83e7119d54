/* Users without privileges among themselves: each has its own memory, and nothing of anybody else's. */
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

static void test_a_stranger_without_the_group_is_told_so_and_closed(void **state) {
        struct test_daemon *daemon = ask_daemon(NULL);
        struct test_client *client = ask_connect_as(daemon, 12345);
        json_t *reply = ask_read(client);

        ask_take_reason(json_incref(json_object_get(reply, "error")), "not_permitted");
        json_decref(reply);
        assert_int_equal(test_client_wait_closed(client), 0);
        test_client_close(client);
        assert_int_equal(test_daemon_end(daemon), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_stranger_without_the_group_is_told_so_and_closed),
        };

        if (geteuid() != 0) {
                printf("skipped: only root can become other users\n");
                return 77;
        }
        return cmocka_run_group_tests_name("isolation", tests, NULL, NULL);
}
