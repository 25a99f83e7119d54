/* Asking again with the same request_key: with less patience, for something else, and while the daemon lacks something. */
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

static void test_asking_again_with_less_patience_is_asking_the_same(void **state) {
        static const char request[] = "{'device':%" PRIu64 ",'size':4096,'wait_ms':%d,'request_key':'one'}";
        struct test_daemon *running = ask_daemon(NULL);
        struct test_client *client = ask_connect(running, NULL);
        uint64_t device = ask_device(client, "card"), first;

        first = ask_number(client, "alloc", "coherent.alloc", request, device, 500);
        assert_int_equal(ask_number(client, "alloc", "coherent.alloc", request, device, 20), first);
        assert_int_equal(ask_number(client, "alloc", "coherent.alloc",
                                    "{'device':%" PRIu64 ",'size':4096,'request_key':'one'}", device), first);
        assert_int_equal(allocs(client), 1);
        test_client_close(client);
        assert_int_equal(test_daemon_end(running), 0);
}

static void test_a_device_of_another_patience_is_another_device(void **state) {
        static const char request[] = "{'name':'card','wait_ms':%d,'request_key':'one'}";
        struct test_daemon *running = ask_daemon(NULL);
        struct test_client *client = ask_connect(running, NULL);
        uint64_t first = ask_number(client, "device", "device.open", request, 500);

        assert_int_equal(ask_number(client, "device", "device.open", request, 500), first);
        ask_refused(client, "bad_param", "device.open", request, 20);
        ask_refused(client, "bad_param", "device.open", "{'name':'card','request_key':'one'}");
        test_client_close(client);
        assert_int_equal(test_daemon_end(running), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_asking_again_without_a_descriptor_left_takes_nothing_away),
                cmocka_unit_test(test_asking_first_without_a_descriptor_left_takes_nothing),
                cmocka_unit_test(test_asking_again_with_less_patience_is_asking_the_same),
                cmocka_unit_test(test_a_device_of_another_patience_is_another_device),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
