/* The library against a daemon that follows a script: replies out of order and in pieces, connections lost at bad
 * moments, peers that do not speak the protocol. */
#include <dmabroker.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/client/scripted.h"
#include "tests/client/task.h"

/* ---- replies ---- */

static void test_hello_tells_who_one_is(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);

        assert_string_equal(dmab_owner(dmab), "user:42");
        assert_string_equal(dmab_role(dmab), "local");
        assert_string_equal(dmab_server_version(dmab), "7.7");
        task_end_session(scripted, dmab);
}

static void test_replies_may_overtake_each_other(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task slow = { .dmab = dmab, .method = "broker.ping" },
                    fast = { .dmab = dmab, .method = "broker.status" };
        long long slow_id;

        task_start(&slow, task_call);
        scripted_expect(scripted, "broker.ping");
        slow_id = scripted_id(scripted);
        task_start(&fast, task_call);
        scripted_expect(scripted, "broker.status");
        scripted_result(scripted, "{\"n\":2}");
        assert_int_equal(task_end(&fast), 0);
        assert_string_equal(fast.result, "{\"n\":2}");
        scripted_result_of(scripted, slow_id, "{\"n\":1}");
        assert_int_equal(task_end(&slow), 0);
        assert_string_equal(slow.result, "{\"n\":1}");
        free(fast.result);
        free(slow.result);
        task_end_session(scripted, dmab);
}

static void test_a_reply_may_come_in_pieces_and_with_notifications_around_it(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .method = "broker.ping" };
        char rest[64];

        task_start(&task, task_call);
        scripted_expect(scripted, "broker.ping");
        scripted_send(scripted, "{\"jsonrpc\":\"2.0\",\"method\":\"event\"}\n{\"jsonrpc\":\"2.", NULL, 0);
        snprintf(rest, sizeof(rest), "0\",\"id\":%lld,\"result\":{}}\n{\"jsonrpc\"", scripted_id(scripted));
        scripted_send(scripted, rest, NULL, 0);
        assert_int_equal(task_end(&task), 0);
        scripted_send(scripted, ":\"2.0\",\"method\":\"event\"}\n", NULL, 0);
        free(task.result);
        task_end_session(scripted, dmab);
}

static void test_descriptors_go_with_their_own_reply(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task with = { .dmab = dmab, .method = "region.get", .params = "{\"region\":3}" };
        struct task without = { .dmab = dmab, .method = "broker.ping" };
        char text[256];
        long long id;
        int fd = task_memory_file(4096);

        task_start(&with, task_call);
        scripted_expect(scripted, "region.get");
        id = scripted_id(scripted);
        task_start(&without, task_call);
        scripted_expect(scripted, "broker.ping");
        snprintf(text, sizeof(text), "{\"jsonrpc\":\"2.0\",\"id\":%lld,\"result\":{}}\n", scripted_id(scripted));
        snprintf(text + strlen(text), sizeof(text) - strlen(text),
                 "{\"jsonrpc\":\"2.0\",\"id\":%lld,\"result\":{\"fds\":1}}\n", id);
        scripted_send(scripted, text, &fd, 1);
        assert_int_equal(task_end(&with), 0);
        assert_int_equal(task_end(&without), 0);
        assert_int_equal(with.n_fds, 1);
        assert_int_equal(without.n_fds, 0);
        assert_true(fcntl(with.fds[0], F_GETFD) & FD_CLOEXEC);
        close(with.fds[0]);
        close(fd);
        free(with.result);
        free(without.result);
        task_end_session(scripted, dmab);
}

static void test_more_calls_than_the_daemon_takes_wait_their_turn(void **state) {
        struct scripted *scripted = scripted_new(); /* says calls_in_flight: 2 */
        dmab_t *dmab = task_session(scripted);
        struct task tasks[3] = { { .dmab = dmab, .method = "broker.ping" },
                                 { .dmab = dmab, .method = "broker.ping" },
                                 { .dmab = dmab, .method = "broker.ping" } };

        for (size_t i = 0; i < 3; i++)
                task_start(&tasks[i], task_call);
        scripted_expect(scripted, "broker.ping");
        scripted_expect(scripted, "broker.ping");
        assert_true(scripted_is_silent(scripted));
        scripted_result_of(scripted, 1, "{}");
        scripted_expect(scripted, "broker.ping");
        scripted_result_of(scripted, 2, "{}");
        scripted_result_of(scripted, 3, "{}");
        for (size_t i = 0; i < 3; i++) {
                assert_int_equal(task_end(&tasks[i]), 0);
                free(tasks[i].result);
        }
        task_end_session(scripted, dmab);
}

static void test_an_error_has_its_sentence_reason_and_errno(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .method = "coherent.alloc", .params = "{\"device\":1,\"size\":4096}" };

        task_start(&task, task_call);
        scripted_expect(scripted, "coherent.alloc");
        scripted_error(scripted, ENOMEM, "no_contiguous", "not in one piece");
        assert_int_equal(task_end(&task), -ENOMEM);
        assert_string_equal(task.error, "not in one piece");
        assert_string_equal(task.reason, "no_contiguous");
        assert_null(task.result);
        task_end_session(scripted, dmab);
}

static void test_what_would_be_answered_without_an_id_is_not_sent(void **state) {
        struct scripted *scripted = scripted_new(); /* says message_bytes: 4096, nesting: 8 */
        dmab_t *dmab = task_session(scripted);
        uint32_t refs[1000];
        dmab_grant_t *grant;
        char large[6000];
        void *vaddr;

        memset(refs, 0xff, sizeof(refs));
        assert_int_equal(dmab_grant_map(dmab, "vm", refs, 1000, DMAB_TO_DEVICE, NULL, &vaddr, &grant), -E2BIG);
        assert_string_equal(dmab_last_reason(), "limit");
        snprintf(large, sizeof(large), "{\"name\":\"%05000d\"}", 0);
        assert_int_equal(dmab_call(dmab, "device.open", large, NULL), -E2BIG);
        assert_int_equal(dmab_call(dmab, "broker.ping", "{\"a\":[[[[[[[[1]]]]]]]]}", NULL), -E2BIG);
        assert_int_equal(dmab_call(dmab, "broker.ping", "{\"a\":", NULL), -EINVAL);
        assert_int_equal(dmab_call(dmab, "broker.ping", "{\"a\":1,\"a\":2}", NULL), -EINVAL);
        assert_int_equal(dmab_call(dmab, "broker.ping", "[1]", NULL), -EINVAL);
        assert_int_equal(dmab_call(dmab, "bro\"ker", NULL, NULL), -ENOSYS);
        assert_int_equal(dmab_call(dmab, "", NULL, NULL), -ENOSYS);
        assert_true(scripted_is_silent(scripted));
        task_end_session(scripted, dmab);
}

/* ---- lost connections ---- */

static void test_a_lost_connection_is_made_again_with_the_same_session(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .method = "broker.ping" };

        scripted_hang_up(scripted);
        task_start(&task, task_call);
        scripted_accept(scripted);
        assert_non_null(strstr(scripted_hello(scripted), "\"session\":\"secret\""));
        scripted_expect(scripted, "broker.ping");
        scripted_result(scripted, "{}");
        assert_int_equal(task_end(&task), 0);
        free(task.result);
        task_end_session(scripted, dmab);
}

static void test_a_call_whose_reply_is_lost_is_repeated_with_the_same_key(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .device = task_device(scripted, dmab) };
        char first[4096];

        task_start(&task, task_alloc);
        snprintf(first, sizeof(first), "%s", scripted_expect(scripted, "coherent.alloc"));
        assert_non_null(strstr(first, "\"request_key\":"));
        scripted_welcome(scripted);
        assert_string_equal(scripted_expect(scripted, "coherent.alloc"), first);
        scripted_result(scripted, ALLOC_RESULT);
        scripted_expect(scripted, "region.get");
        task_give_region(scripted, task_memory_file(8192));
        assert_int_equal(task_end(&task), 0);
        task_end_session(scripted, dmab);
}

static void test_a_repeated_call_waits_for_the_first_one_that_is_still_under_way(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .method = "coherent.alloc", .params = "{\"request_key\":\"mine\"}" };

        task_start(&task, task_call);
        scripted_expect(scripted, "coherent.alloc");
        scripted_welcome(scripted);
        for (size_t i = 0; i < 2; i++) {
                scripted_expect(scripted, "coherent.alloc");
                scripted_error(scripted, EBUSY, "busy", "a request with this key is under way");
        }
        scripted_expect(scripted, "coherent.alloc");
        scripted_result(scripted, "{}");
        assert_int_equal(task_end(&task), 0);
        free(task.result);
        /* The first time it means what it says. */
        task_start(&task, task_call);
        scripted_expect(scripted, "coherent.alloc");
        scripted_error(scripted, EBUSY, "busy", "a request with this key is under way");
        assert_int_equal(task_end(&task), -EBUSY);
        task_end_session(scripted, dmab);
}

static void test_two_allocations_have_two_keys(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .method = "coherent.alloc", .params = "{\"device\":1,\"size\":4096}" };
        char first[4096];

        task_start(&task, task_call);
        snprintf(first, sizeof(first), "%s", scripted_expect(scripted, "coherent.alloc"));
        scripted_result(scripted, "{}");
        assert_int_equal(task_end(&task), 0);
        free(task.result);
        task_start(&task, task_call);
        assert_string_not_equal(scripted_expect(scripted, "coherent.alloc"), first);
        scripted_result(scripted, "{}");
        assert_int_equal(task_end(&task), 0);
        free(task.result);
        task_end_session(scripted, dmab);
}

static void test_a_callers_own_key_is_kept(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .method = "coherent.alloc", .params = "{\"request_key\":\"mine\"}" };

        task_start(&task, task_call);
        assert_string_equal(scripted_expect(scripted, "coherent.alloc"), "{\"request_key\":\"mine\"}");
        scripted_result(scripted, "{}");
        assert_int_equal(task_end(&task), 0);
        free(task.result);
        task_end_session(scripted, dmab);
}

static void test_a_call_that_may_not_be_repeated_says_that_its_end_is_unknown(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .method = "pool.free", .params = "{\"pool\":1,\"dma_addrs\":[\"0x1000\"]}" };

        task_start(&task, task_call);
        scripted_expect(scripted, "pool.free");
        scripted_hang_up(scripted);
        assert_int_equal(task_end(&task), -ECONNRESET);
        assert_non_null(strstr(task.error, "pool.free"));
        assert_non_null(strstr(task.error, "not known"));
        assert_string_equal(task.reason, "gone");
        /* The session goes on. */
        task.method = "broker.ping";
        task.params = NULL;
        task_start(&task, task_call);
        scripted_welcome(scripted);
        scripted_expect(scripted, "broker.ping");
        scripted_result(scripted, "{}");
        assert_int_equal(task_end(&task), 0);
        free(task.result);
        task_end_session(scripted, dmab);
}

static void test_a_repeated_free_that_finds_nothing_has_done_its_work(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .device = task_device(scripted, dmab) };

        task_allocate(scripted, &task);
        task_start(&task, task_free);
        scripted_expect(scripted, "coherent.free");
        scripted_welcome(scripted);
        scripted_expect(scripted, "coherent.free");
        scripted_error(scripted, EINVAL, "double_free", "it has been freed already");
        assert_int_equal(task_end(&task), 0);
        task_start(&task, task_close);
        scripted_expect(scripted, "device.close");
        scripted_welcome(scripted);
        scripted_expect(scripted, "device.close");
        scripted_error(scripted, ENODEV, "unknown_device", "there is no such device");
        assert_int_equal(task_end(&task), 0);
        task_end_session(scripted, dmab);
}

static void test_all_calls_under_way_survive_a_lost_connection(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task tasks[2] = { { .dmab = dmab, .method = "broker.ping" }, { .dmab = dmab, .method = "broker.ping" } };

        for (size_t i = 0; i < 2; i++)
                task_start(&tasks[i], task_call);
        scripted_expect(scripted, "broker.ping");
        scripted_expect(scripted, "broker.ping");
        scripted_welcome(scripted);
        for (size_t i = 0; i < 2; i++) {
                scripted_expect(scripted, "broker.ping");
                scripted_result(scripted, "{}");
        }
        for (size_t i = 0; i < 2; i++) {
                assert_int_equal(task_end(&tasks[i]), 0);
                free(tasks[i].result);
        }
        task_end_session(scripted, dmab);
}

static void test_a_forgotten_session_is_stale_for_good_and_memory_can_be_released(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .device = task_device(scripted, dmab) };

        task_allocate(scripted, &task);
        strcpy(task.vaddr, "still here");
        scripted_hang_up(scripted);
        task_start(&task, task_free);
        scripted_accept(scripted);
        scripted_expect(scripted, "broker.hello");
        scripted_error(scripted, ESTALE, "gone", "the session has ended");
        assert_int_equal(task_end(&task), -ESTALE);
        assert_non_null(strstr(task.error, "connect again"));
        assert_int_equal(dmab_call(dmab, "broker.ping", NULL, NULL), -ESTALE);
        assert_int_equal(dmab_free_coherent(task.device, 100, task.vaddr, task.dma), -EFAULT);
        assert_int_equal(dmab_device_close(task.device), -ESTALE);
        dmab_disconnect(dmab);
        scripted_free(scripted);
}

static void test_a_daemon_that_stays_away_is_given_up(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);

        assert_int_equal(dmab_set_reconnect_timeout(dmab, 50), 0);
        scripted_vanish(scripted);
        scripted_hang_up(scripted);
        assert_int_equal(dmab_call(dmab, "broker.ping", NULL, NULL), -ENOENT);
        assert_non_null(strstr(dmab_last_error(), "dmabrokerd"));
        dmab_disconnect(dmab);
        scripted_free(scripted);
}

/* ---- peers that do not speak the protocol ---- */

static void answer_hello_with(const char *answer, int expected) {
        struct scripted *scripted = scripted_new();
        struct task task = { .uri = scripted_uri(scripted) };

        task_start(&task, task_connect);
        scripted_accept(scripted);
        scripted_expect(scripted, "broker.hello");
        scripted_send(scripted, answer, NULL, 0);
        if (expected == -ECONNRESET)
                scripted_hang_up(scripted);
        assert_int_equal(task_end(&task), expected);
        assert_true(*task.error);
        scripted_free(scripted);
}

static void test_a_server_of_another_protocol_is_told_apart(void **state) {
        answer_hello_with("SSH-2.0-OpenSSH_9.2\r\n", -EPROTO);
        answer_hello_with("{\"jsonrpc\":\"2.0\",\"id\":0}\n", -EPROTO);
        answer_hello_with("{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{\"session\":1}}\n", -EPROTO);
        answer_hello_with("{\"jsonrpc\":\"2.0\",\"id\":0,\"error\":{}}\n", -EPROTO);
        answer_hello_with("{\"jsonrpc\":\"2.0\",\"id\":0,\"error\":{\"code\":-32601,\"message\":\"no such method\"}}\n",
                          -ENOSYS);
        answer_hello_with(
                "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":7,\"message\":\"too many connections\"}}\n", -7);
        answer_hello_with("{\"half\":", -ECONNRESET);
}

/* A daemon that has no place for a connection says so and hangs up, often before the client has asked for anything. */
static void test_a_refusal_is_heard_although_the_daemon_hung_up_first(void **state) {
        struct scripted *scripted = scripted_new();

        for (int i = 0; i < 200; i++) {
                struct task task = { .uri = scripted_uri(scripted) };

                task_start(&task, task_connect);
                scripted_accept(scripted);
                scripted_send(scripted,
                              "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":1,\"message\":\"join the group\"}}\n",
                              NULL, 0);
                scripted_hang_up(scripted);
                assert_int_equal(task_end(&task), -EPERM);
                assert_string_equal(task.error, "join the group");
        }
        scripted_free(scripted);
}

#define COMPLAINT                                                                                                      \
        "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32600,\"message\":\"Invalid Request\",\"data\":"            \
        "{\"reason\":\"limit\",\"limit\":1024}}}\n"

/* Such as when the daemon's limits were lowered since it told them. */
static void test_a_complaint_without_an_id_is_the_answer_to_the_only_call(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .method = "broker.ping" };

        task_start(&task, task_call);
        scripted_expect(scripted, "broker.ping");
        scripted_send(scripted, COMPLAINT, NULL, 0);
        assert_int_equal(task_end(&task), -EINVAL);
        assert_string_equal(task.reason, "limit");
        task_end_session(scripted, dmab);
}

static void test_a_complaint_without_an_id_among_several_calls_leaves_none_waiting(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task tasks[2] = { { .dmab = dmab, .method = "broker.ping" }, { .dmab = dmab, .method = "broker.ping" } };

        for (size_t i = 0; i < 2; i++)
                task_start(&tasks[i], task_call);
        scripted_expect(scripted, "broker.ping");
        scripted_expect(scripted, "broker.ping");
        scripted_send(scripted, COMPLAINT, NULL, 0);
        scripted_welcome(scripted);
        for (size_t i = 0; i < 2; i++) {
                scripted_expect(scripted, "broker.ping");
                scripted_result(scripted, "{}");
        }
        for (size_t i = 0; i < 2; i++) {
                assert_int_equal(task_end(&tasks[i]), 0);
                free(tasks[i].result);
        }
        task_end_session(scripted, dmab);
}

/* A reply that announces another number of descriptors than came must not be given those of another reply. */
static void test_descriptors_that_do_not_fit_end_the_connection(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .method = "region.get", .params = "{\"region\":1}" };
        char text[128];
        int fd = task_memory_file(4096);

        task_start(&task, task_call);
        scripted_expect(scripted, "region.get");
        scripted_result(scripted, "{\"fds\":1}");
        scripted_welcome(scripted);
        scripted_expect(scripted, "region.get");
        snprintf(text, sizeof(text), "{\"jsonrpc\":\"2.0\",\"method\":\"event\",\"params\":%lld}\n",
                 scripted_id(scripted));
        scripted_send(scripted, text, &fd, 1);
        scripted_welcome(scripted);
        scripted_expect(scripted, "region.get");
        scripted_result(scripted, "{}");
        assert_int_equal(task_end(&task), 0);
        assert_int_equal(task.n_fds, 0);
        free(task.result);
        close(fd);
        task_end_session(scripted, dmab);
}

static void test_an_answer_that_lies_about_memory_is_refused_and_given_back(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .device = task_device(scripted, dmab) };

        /* The file is shorter than the region: a touch behind its end would kill the process. */
        task_start(&task, task_alloc);
        scripted_expect(scripted, "coherent.alloc");
        scripted_result(scripted, ALLOC_RESULT);
        scripted_expect(scripted, "region.get");
        task_give_region(scripted, task_memory_file(4096));
        assert_string_equal(scripted_expect(scripted, "coherent.free"), "{\"alloc\":9}");
        scripted_result(scripted, "{\"ok\":true}");
        assert_int_equal(task_end(&task), -EPROTO);

        /* The allocation lies behind the region's end. */
        task_start(&task, task_alloc);
        scripted_expect(scripted, "coherent.alloc");
        scripted_result(scripted, "{\"alloc\":10,\"region\":3,\"offset\":8192,\"size\":4096,\"dma_addr\":\"0x0\","
                                  "\"addressing\":\"machine\"}");
        scripted_expect(scripted, "region.get");
        task_give_region(scripted, task_memory_file(8192));
        assert_string_equal(scripted_expect(scripted, "coherent.free"), "{\"alloc\":10}");
        scripted_result(scripted, "{\"ok\":true}");
        assert_int_equal(task_end(&task), -EPROTO);
        task_end_session(scripted, dmab);
}

/* ---- fork ---- */

static void test_the_child_of_a_fork_cannot_use_the_handle_but_can_drop_it(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .device = task_device(scripted, dmab) };
        int status;
        pid_t pid;

        task_allocate(scripted, &task);
        pid = fork();
        if (!pid) {
                bool refused = dmab_call(dmab, "broker.ping", NULL, NULL) == -EINVAL &&
                               dmab_free_coherent(task.device, 100, task.vaddr, task.dma) == -EINVAL;

                strcpy(task.vaddr, "from the child");
                dmab_disconnect(dmab);
                _exit(refused ? 0 : 1);
        }
        assert_true(pid > 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_string_equal(task.vaddr, "from the child");
        assert_true(scripted_is_silent(scripted));
        task_end_session(scripted, dmab);
}

/* ---- leases that cannot be ---- */

static void test_a_lease_that_cannot_be_is_refused_and_returned(void **state) {
        static const char *const bad[] = {
                LEASE_RESULT(21, 1024, 0x1400, 2),                /* a block that the process has already */
                LEASE_RESULT(21, 0, 0x1000, 1),                   /* the same */
                LEASE_RESULT(21, 7168, 0x2c00, 2),                /* beyond the region's end */
                LEASE_RESULT(21, 2048, 0x1800, 0),                /* nothing */
                LEASE_RESULT(21, 2048, 0x1800, 18014398509481984), /* 2^64 bytes */
                LEASE_RESULT(21, 2048, 0x1900, 1),                /* where no block begins, for the device */
                LEASE_RESULT(21, 2100, 0x1834, 1),                /* for the CPU as well */
                LEASE_RESULT(21, 2048, 0xfffffffffffffc00, 2),    /* beyond all addresses */
        };
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .device = task_device(scripted, dmab) };

        assert_null(*state);
        scripted_vanish(scripted); /* for the connection that listens: nobody asks for leases back here */
        task_start(&task, task_make_pool);
        scripted_expect(scripted, "pool.create");
        scripted_result(scripted, "{\"pool\":8,\"block_size\":1024,\"blocks_per_slab\":64}");
        assert_int_equal(task_end(&task), 0);
        task_start(&task, task_pool_alloc);
        scripted_expect(scripted, "pool.lease");
        scripted_result(scripted, LEASE_RESULT(20, 0, 0x1000, 2));
        scripted_expect(scripted, "region.get");
        task_give_region(scripted, task_memory_file(8192));
        assert_int_equal(task_end(&task), 0);
        task_start(&task, task_pool_alloc);
        assert_int_equal(task_end(&task), 0);
        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
                task_start(&task, task_pool_alloc);
                scripted_expect(scripted, "pool.lease");
                scripted_result(scripted, bad[i]);
                assert_string_equal(scripted_expect(scripted, "pool.return"), "{\"lease\":21}");
                scripted_result(scripted, "{}");
                assert_int_equal(task_end(&task), -EPROTO);
        }
        task_start(&task, task_pool_alloc);
        scripted_expect(scripted, "pool.lease");
        scripted_result(scripted, LEASE_RESULT(22, 2048, 0x1800, 2));
        assert_int_equal(task_end(&task), 0);
        task_end_session(scripted, dmab);
}

static void test_a_pool_that_has_ended_is_not_the_end_of_the_session(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .device = task_device(scripted, dmab) }, other = task;

        assert_null(*state);
        scripted_vanish(scripted);
        task_start(&task, task_make_pool);
        scripted_expect(scripted, "pool.create");
        scripted_result(scripted, "{\"pool\":8,\"block_size\":1024,\"blocks_per_slab\":64}");
        assert_int_equal(task_end(&task), 0);
        task_start(&other, task_make_pool);
        scripted_expect(scripted, "pool.create");
        scripted_result(scripted, "{\"pool\":9,\"block_size\":1024,\"blocks_per_slab\":64}");
        assert_int_equal(task_end(&other), 0);
        task_start(&task, task_pool_alloc);
        scripted_expect(scripted, "pool.lease");
        scripted_result(scripted, LEASE_RESULT(20, 0, 0x1000, 2));
        scripted_expect(scripted, "region.get");
        task_give_region(scripted, task_memory_file(8192));
        assert_int_equal(task_end(&task), 0);
        task_start(&other, task_pool_alloc);
        scripted_expect(scripted, "pool.lease");
        scripted_error(scripted, ESTALE, "gone", "The pool ended while the answer was on its way");
        scripted_expect(scripted, "broker.ping"); /* or is it the daemon that ends? */
        scripted_result(scripted, "{}");
        assert_int_equal(task_end(&other), -ESTALE);
        task_start(&task, task_pool_alloc);
        assert_int_equal(task_end(&task), 0);
        task_end_session(scripted, dmab);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_hello_tells_who_one_is),
                cmocka_unit_test(test_replies_may_overtake_each_other),
                cmocka_unit_test(test_a_reply_may_come_in_pieces_and_with_notifications_around_it),
                cmocka_unit_test(test_descriptors_go_with_their_own_reply),
                cmocka_unit_test(test_more_calls_than_the_daemon_takes_wait_their_turn),
                cmocka_unit_test(test_an_error_has_its_sentence_reason_and_errno),
                cmocka_unit_test(test_what_would_be_answered_without_an_id_is_not_sent),
                cmocka_unit_test(test_a_lost_connection_is_made_again_with_the_same_session),
                cmocka_unit_test(test_a_call_whose_reply_is_lost_is_repeated_with_the_same_key),
                cmocka_unit_test(test_a_repeated_call_waits_for_the_first_one_that_is_still_under_way),
                cmocka_unit_test(test_two_allocations_have_two_keys),
                cmocka_unit_test(test_a_callers_own_key_is_kept),
                cmocka_unit_test(test_a_call_that_may_not_be_repeated_says_that_its_end_is_unknown),
                cmocka_unit_test(test_a_repeated_free_that_finds_nothing_has_done_its_work),
                cmocka_unit_test(test_all_calls_under_way_survive_a_lost_connection),
                cmocka_unit_test(test_a_forgotten_session_is_stale_for_good_and_memory_can_be_released),
                cmocka_unit_test(test_a_daemon_that_stays_away_is_given_up),
                cmocka_unit_test(test_a_server_of_another_protocol_is_told_apart),
                cmocka_unit_test(test_a_refusal_is_heard_although_the_daemon_hung_up_first),
                cmocka_unit_test(test_a_complaint_without_an_id_is_the_answer_to_the_only_call),
                cmocka_unit_test(test_a_complaint_without_an_id_among_several_calls_leaves_none_waiting),
                cmocka_unit_test(test_descriptors_that_do_not_fit_end_the_connection),
                cmocka_unit_test(test_an_answer_that_lies_about_memory_is_refused_and_given_back),
                cmocka_unit_test(test_a_pool_that_has_ended_is_not_the_end_of_the_session),
                cmocka_unit_test(test_a_lease_that_cannot_be_is_refused_and_returned),
                cmocka_unit_test(test_the_child_of_a_fork_cannot_use_the_handle_but_can_drop_it),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
