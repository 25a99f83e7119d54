/* Real huge pages: what the daemon says of machine addresses is what the kernel says. */
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

#include "tests/lib/hugepages.h"

static void test_addresses_are_the_machines(void **state) {
        const struct test_daemon_options options = { .source = "hugetlb" };
        struct test_daemon *daemon;
        struct test_client *client;
        json_t *result;

        assert_int_equal(test_daemon_start(&options, &daemon), 0);
        client = ask_connect(daemon, NULL);
        result = ask(client, "coherent.alloc", "{'device':%" PRIu64 ",'size':4096}", ask_device(client, "card"));
        assert_string_equal(json_string_value(json_object_get(result, "addressing")), "machine");
        json_decref(result);
        test_client_close(client);
        assert_int_equal(test_daemon_end(daemon), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_addresses_are_the_machines),
        };

        test_hugepages_reserve_or_skip(600);
        return cmocka_run_group_tests_name("hugetlb", tests, NULL, NULL);
}
