/* Asking again with the same request_key while the daemon lacks something. */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/rpc/ask.h"

#define ALLOC "{'device':%" PRIu64 ",'size':4096,'fd':true,'request_key':'%s'}"

/* The daemon has all of these descriptors open already. */
static void let_open(const struct test_daemon *daemon, rlim_t files) {
        struct rlimit limit;

        assert_int_equal(prlimit(test_daemon_pid(daemon), RLIMIT_NOFILE, NULL, &limit), 0);
        limit.rlim_cur = files;
        assert_int_equal(prlimit(test_daemon_pid(daemon), RLIMIT_NOFILE, &limit, NULL), 0);
}

static uint64_t allocs(struct test_client *client) {
        json_t *result = ask(client, "coherent.list", "{}");
        size_t n = json_array_size(json_object_get(result, "allocs"));

        json_decref(result);
        return n;
}

static void test_asking_again_without_a_descriptor_left_takes_nothing_away(void **state) {
        struct test_daemon *running = ask_daemon(NULL);
        struct test_client *client = ask_connect(running, NULL);
        uint64_t device = ask_device(client, "card"), first;

        first = ask_number(client, "alloc", "coherent.alloc", ALLOC, device, "one");
        let_open(running, 4);
        ask_invalid(client, EMFILE, "coherent.alloc", ALLOC, device, "one");
        assert_int_equal(allocs(client), 1);
        let_open(running, 1024);
        assert_int_equal(ask_number(client, "alloc", "coherent.alloc", ALLOC, device, "one"), first);
        test_client_close(client);
        assert_int_equal(test_daemon_end(running), 0);
}

static void test_asking_first_without_a_descriptor_left_takes_nothing(void **state) {
        struct test_daemon *running = ask_daemon(NULL);
        struct test_client *client = ask_connect(running, NULL);
        uint64_t device = ask_device(client, "card");

        /* The region is there, only its descriptor cannot be passed. */
        ask_number(client, "alloc", "coherent.alloc", ALLOC, device, "one");
        let_open(running, 4);
        ask_invalid(client, EMFILE, "coherent.alloc", ALLOC, device, "two");
        assert_int_equal(allocs(client), 1);
        test_client_close(client);
        assert_int_equal(test_daemon_end(running), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_asking_again_without_a_descriptor_left_takes_nothing_away),
                cmocka_unit_test(test_asking_first_without_a_descriptor_left_takes_nothing),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
