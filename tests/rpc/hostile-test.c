/* Peers that mean harm: whatever they do, the daemon lives, its memory stays bounded and the others are served. */
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

static void test_a_message_over_the_limit_is_skipped_to_its_end(void **state) {
        static char bytes[2 << 20];
        struct test_daemon *daemon = ask_daemon(NULL);
        struct test_client *client = ask_connect(daemon, NULL);
        json_t *reply;

        memset(bytes, ' ', sizeof(bytes));
        assert_int_equal(test_client_send(client, bytes, sizeof(bytes)), 0);
        assert_int_equal(test_client_send_text(client, "\n"), 0);
        reply = ask_read(client);
        assert_true(json_is_null(json_object_get(reply, "id")));
        assert_int_equal(json_integer_value(json_object_get(json_object_get(reply, "error"), "code")), -32600);
        json_decref(reply);
        json_decref(ask(client, "broker.ping", "{}"));
        test_client_close(client);
        assert_int_equal(test_daemon_end(daemon), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_message_over_the_limit_is_skipped_to_its_end),
        };

        return cmocka_run_group_tests_name("hostile", tests, NULL, NULL);
}
