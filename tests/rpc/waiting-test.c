/* Calls that wait for memory: who is served first, who is told off, who goes with its connection. The daemon has 16 MiB,
 * of which 1 MiB is kept for requests of high priority. */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/rpc/ask.h"

#define MIB (UINT64_C(1) << 20)

static const char config[] = "[daemon]\naccess = everyone\ngrace = 0\n"
                             "[memory]\nregion_idle = 0\nemergency_permille = 62\nemergency_max = 1M\n"
                             "[source sim]\nlayout = 16M@0x100000000\n";

struct fixture {
        struct test_daemon *daemon;
        struct test_client *client, *other;
        uint64_t device, other_device;
};

static int set_up(void **state) {
        struct fixture *fixture = calloc(1, sizeof(*fixture));

        fixture->daemon = ask_daemon(config);
        fixture->client = ask_connect(fixture->daemon, NULL);
        fixture->other = ask_connect(fixture->daemon, NULL);
        fixture->device = ask_device(fixture->client, "card");
        fixture->other_device = ask_device(fixture->other, "card");
        *state = fixture;
        return 0;
}

static int tear_down(void **state) {
        struct fixture *fixture = *state;
        int r;

        test_client_close(fixture->client);
        test_client_close(fixture->other);
        r = test_daemon_end(fixture->daemon);
        free(fixture);
        return r;
}

static int send_alloc(struct test_client *client, uint64_t device, uint64_t size, unsigned wait_ms, const char *priority) {
        return ask_send(client, "coherent.alloc",
                        "{'device':%" PRIu64 ",'size':%" PRIu64 ",'wait_ms':%u,'priority':'%s'}", device, size, wait_ms,
                        priority);
}

/* What the emergency reserve leaves, in MiBs. */
static uint64_t fill(struct fixture *fixture, uint64_t allocs[16]) {
        uint64_t n = 0;

        for (;;) {
                json_t *answer;

                send_alloc(fixture->client, fixture->device, MIB, 0, "normal");
                answer = ask_read(fixture->client);
                if (!json_object_get(answer, "result")) {
                        json_decref(answer);
                        return n;
                }
                assert_true(n < 16);
                allocs[n++] = (uint64_t)json_integer_value(json_object_get(json_object_get(answer, "result"), "alloc"));
                json_decref(answer);
        }
}

static void give_back(struct fixture *fixture, uint64_t alloc) {
        json_decref(ask(fixture->client, "coherent.free", "{'alloc':%" PRIu64 "}", alloc));
}

static void test_a_call_that_may_not_wait_fails_at_once(void **state) {
        struct fixture *fixture = *state;
        uint64_t allocs[16];

        assert_int_equal(fill(fixture, allocs), 15);
        ask_invalid(fixture->client, ENOMEM, "coherent.alloc", "{'device':%" PRIu64 ",'size':1048576,'wait_ms':0}",
                    fixture->device);
}

static void test_other_calls_are_answered_while_one_waits(void **state) {
        struct fixture *fixture = *state;
        uint64_t allocs[16];
        int waiting;

        fill(fixture, allocs);
        waiting = send_alloc(fixture->client, fixture->device, MIB, 60000, "normal");
        json_decref(ask(fixture->client, "broker.ping", "{}"));
        ask_until_waiting(fixture->other, 1);
        json_decref(ask(fixture->other, "coherent.free", "{'alloc':%" PRIu64 "}", allocs[0]));
        assert_true(ask_take_number(ask_result(fixture->client, waiting), "alloc") > 0);
}

static void test_waiting_calls_of_one_owner_are_served_in_order(void **state) {
        struct fixture *fixture = *state;
        uint64_t allocs[16];
        int waiting[4];

        fill(fixture, allocs);
        for (int i = 0; i < 4; i++)
                waiting[i] = send_alloc(fixture->client, fixture->device, MIB, 60000, "normal");
        ask_until_waiting(fixture->other, 4);
        for (int i = 0; i < 4; i++) {
                json_decref(ask(fixture->other, "coherent.free", "{'alloc':%" PRIu64 "}", allocs[i]));
                json_decref(ask_result(fixture->client, waiting[i]));
        }
}

static void test_a_waiting_call_is_told_when_its_time_is_over(void **state) {
        struct fixture *fixture = *state;
        uint64_t allocs[16];
        int waiting;

        fill(fixture, allocs);
        waiting = send_alloc(fixture->client, fixture->device, MIB, 30, "normal");
        ask_take_reason(ask_error(fixture->client, waiting), "timeout");
        ask_until_waiting(fixture->other, 0);
}

static void test_a_device_says_how_long_its_calls_wait(void **state) {
        struct fixture *fixture = *state;
        uint64_t allocs[16], device;

        fill(fixture, allocs);
        device = ask_number(fixture->client, "device", "device.open", "{'name':'patient','wait_ms':30}");
        ask_refused(fixture->client, "timeout", "coherent.alloc", "{'device':%" PRIu64 ",'size':1048576}", device);
}

static void test_high_priority_may_use_the_reserve(void **state) {
        struct fixture *fixture = *state;
        uint64_t allocs[16];
        int id;

        fill(fixture, allocs);
        id = send_alloc(fixture->client, fixture->device, MIB, 0, "high");
        assert_true(ask_take_number(ask_result(fixture->client, id), "alloc") > 0);
        id = send_alloc(fixture->client, fixture->device, MIB, 0, "high");
        ask_take_reason(ask_error(fixture->client, id), "no_memory");
}

static void test_high_priority_passes_those_that_wait(void **state) {
        struct fixture *fixture = *state;
        uint64_t allocs[16];
        int waiting, high;

        fill(fixture, allocs);
        waiting = send_alloc(fixture->client, fixture->device, MIB, 60000, "normal");
        high = send_alloc(fixture->client, fixture->device, MIB, 60000, "high");
        json_decref(ask_result(fixture->client, high));
        json_decref(ask(fixture->other, "coherent.free", "{'alloc':%" PRIu64 "}", allocs[0]));
        json_decref(ask_result(fixture->client, waiting));
}

static void test_a_waiting_call_goes_with_its_connection(void **state) {
        struct fixture *fixture = *state;
        struct test_client *third = ask_connect(fixture->daemon, NULL);
        uint64_t allocs[16];

        fill(fixture, allocs);
        send_alloc(third, ask_device(third, "card"), MIB, 3600000, "normal");
        ask_until_waiting(fixture->client, 1);
        test_client_close(third);
        ask_until_waiting(fixture->client, 0);
        give_back(fixture, allocs[0]);
        allocs[0] = ask_alloc(fixture->client, fixture->device, MIB);
}

static void test_a_client_that_stops_sending_is_answered_what_it_asked(void **state) {
        struct fixture *fixture = *state;
        struct test_client *third = ask_connect(fixture->daemon, NULL);
        uint64_t allocs[16];
        int waiting;

        fill(fixture, allocs);
        waiting = send_alloc(third, ask_device(third, "card"), MIB, 3600000, "normal");
        assert_int_equal(shutdown(test_client_fd(third), SHUT_WR), 0);
        ask_until_waiting(fixture->client, 1);
        give_back(fixture, allocs[0]);
        json_decref(ask_result(third, waiting));
        assert_int_equal(test_client_wait_closed(third), 0);
        test_client_close(third);
}

static void test_bye_refuses_what_the_session_waits_for(void **state) {
        struct fixture *fixture = *state;
        uint64_t allocs[16];
        int waiting, bye;

        fill(fixture, allocs);
        waiting = send_alloc(fixture->other, fixture->other_device, MIB, 3600000, "normal");
        bye = ask_send(fixture->other, "broker.bye", "{}");
        ask_take_reason(ask_error(fixture->other, waiting), "gone");
        json_decref(ask_result(fixture->other, bye));
        ask_until_waiting(fixture->client, 0);
}

static void test_waiters_have_a_quota(void **state) {
        struct fixture *fixture = *state;
        uint64_t allocs[16];

        fill(fixture, allocs);
        json_decref(ask(fixture->client, "quota.set", "{'owner':'user:%u','limits':{'waiters':1}}", (unsigned)geteuid()));
        send_alloc(fixture->other, fixture->other_device, MIB, 3600000, "normal");
        ask_until_waiting(fixture->client, 1);
        ask_refused(fixture->client, "quota", "coherent.alloc", "{'device':%" PRIu64 ",'size':1048576,'wait_ms':60000}",
                    fixture->device);
}

static void test_a_daemon_that_ends_tells_those_that_wait(void **state) {
        struct fixture *fixture = *state;
        uint64_t allocs[16];
        int waiting, status;

        fill(fixture, allocs);
        waiting = send_alloc(fixture->other, fixture->other_device, MIB, 3600000, "normal");
        ask_until_waiting(fixture->client, 1);
        assert_int_equal(test_daemon_signal(fixture->daemon, SIGTERM), 0);
        ask_take_reason(ask_error(fixture->other, waiting), "gone");
        assert_int_equal(test_client_wait_closed(fixture->other), 0);
        assert_int_equal(test_daemon_wait(fixture->daemon, &status), 0);
        assert_int_equal(status, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(test_a_call_that_may_not_wait_fails_at_once),
                T(test_other_calls_are_answered_while_one_waits),
                T(test_waiting_calls_of_one_owner_are_served_in_order),
                T(test_a_waiting_call_is_told_when_its_time_is_over),
                T(test_a_device_says_how_long_its_calls_wait),
                T(test_high_priority_may_use_the_reserve),
                T(test_high_priority_passes_those_that_wait),
                T(test_a_waiting_call_goes_with_its_connection),
                T(test_a_client_that_stops_sending_is_answered_what_it_asked),
                T(test_bye_refuses_what_the_session_waits_for),
                T(test_waiters_have_a_quota),
                T(test_a_daemon_that_ends_tells_those_that_wait),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
