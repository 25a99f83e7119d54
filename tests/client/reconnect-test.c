/* What the library does with calls under way when the connection is lost, and how it comes back. The daemon is a script. */
#include <dmabroker.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "tests/client/scripted.h"
#include "tests/client/task.h"

/* ---- what is made twice ---- */

static void test_whatever_gives_back_by_number_is_made_again(void **state) {
        static const struct {
                const char *method, *reason, *result;
        } releases[] = {
                { "coherent.free", "double_free", "{\"ok\":true}" },
                { "coherent.free", "unknown_handle", "{\"ok\":true}" },
                { "pool.return", "double_free", "{\"ok\":true}" },
                { "bounce.return", "unknown_handle", "{\"ok\":true}" },
                { "bounce.unmap", "double_free", "{\"ok\":true}" },
                { "mapping.unmap", "unknown_handle", "{\"ok\":true}" },
                { "device.unreserve", "unknown_handle", "{\"ok\":true}" },
                { "device.close", "unknown_device", "{\"leaked\":[]}" },
                { "pool.destroy", "unknown_handle", "{\"busy\":[],\"more\":false}" },
                { "bounce.destroy", "unknown_handle", "{\"busy\":[],\"more\":false}" },
        };
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);

        assert_null(*state);
        for (size_t i = 0; i < sizeof(releases) / sizeof(*releases); i++) {
                struct task task = { .dmab = dmab, .method = releases[i].method, .params = "{\"number\":7}" };

                task_start(&task, task_call);
                assert_string_equal(scripted_expect(scripted, releases[i].method), "{\"number\":7}");
                scripted_welcome(scripted);
                assert_string_equal(scripted_expect(scripted, releases[i].method), "{\"number\":7}");
                scripted_error(scripted, ENOENT, releases[i].reason, "it is not there");
                assert_int_equal(task_end(&task), 0);
                assert_string_equal(task.result, releases[i].result);
                free(task.result);
                /* The first time it means what it says. */
                task_start(&task, task_call);
                scripted_expect(scripted, releases[i].method);
                scripted_error(scripted, ENOENT, releases[i].reason, "it is not there");
                assert_int_equal(task_end(&task), -ENOENT);
        }
        task_end_session(scripted, dmab);
}

static void test_a_release_that_is_refused_the_second_time_is_refused(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .method = "pool.destroy", .params = "{\"pool\":7}" };

        assert_null(*state);
        task_start(&task, task_call);
        scripted_expect(scripted, "pool.destroy");
        scripted_welcome(scripted);
        scripted_expect(scripted, "pool.destroy");
        scripted_error(scripted, EBUSY, "busy", "blocks are in use");
        assert_int_equal(task_end(&task), -EBUSY);
        assert_string_equal(task.reason, "busy");
        task_end_session(scripted, dmab);
}

/* Nothing has been carried out of what was refused. */
static void test_a_release_that_is_refused_for_too_many_calls_and_finds_nothing_then_is_an_error(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .method = "coherent.free", .params = "{\"alloc\":7}" };

        assert_null(*state);
        task_start(&task, task_call);
        scripted_expect(scripted, "coherent.free");
        scripted_too_often(scripted);
        scripted_expect(scripted, "coherent.free");
        scripted_error(scripted, EINVAL, "double_free", "it has been freed already");
        assert_int_equal(task_end(&task), -EINVAL);
        assert_string_equal(task.reason, "double_free");
        task_end_session(scripted, dmab);
}

/* It may have been given, and nobody would know. */
static void test_what_was_asked_for_is_asked_for_again_in_spite_of_too_many_calls(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .method = "coherent.alloc", .params = "{\"request_key\":\"mine\"}" };

        assert_null(*state);
        task_start(&task, task_call);
        scripted_expect(scripted, "coherent.alloc");
        scripted_welcome(scripted);
        for (int i = 0; i < 2; i++) {
                scripted_expect(scripted, "coherent.alloc");
                scripted_too_often(scripted);
        }
        scripted_expect(scripted, "coherent.alloc");
        scripted_result(scripted, "{\"alloc\":1}");
        assert_int_equal(task_end(&task), 0);
        free(task.result);
        /* The first time it is the caller's to wait. */
        task_start(&task, task_call);
        scripted_expect(scripted, "coherent.alloc");
        scripted_too_often(scripted);
        assert_int_equal(task_end(&task), -EDQUOT);
        task_end_session(scripted, dmab);
}

static void expect_unknown(struct scripted *scripted, dmab_t *dmab, const char *method) {
        struct task task = { .dmab = dmab, .method = method, .params = "{}" };

        task_start(&task, task_call);
        scripted_expect(scripted, method);
        scripted_hang_up(scripted);
        assert_int_equal(task_end(&task), -ECONNRESET);
        assert_string_equal(task.reason, "gone");
        assert_non_null(strstr(task.error, method));
        assert_non_null(strstr(task.error, "whether it was carried out is not known"));
        task_start(&task, task_call);
        scripted_welcome(scripted);
        scripted_expect(scripted, method);
        scripted_result(scripted, "{}");
        assert_int_equal(task_end(&task), 0);
        free(task.result);
}

/* Blocks are freed by address, and may be somebody else's the second time; of a later daemon's methods nothing is known. */
static void test_whatever_may_not_be_made_twice_is_told_as_failed(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);

        assert_null(*state);
        expect_unknown(scripted, dmab, "pool.free");
        expect_unknown(scripted, dmab, "guest.evict");
        task_end_session(scripted, dmab);
}

/* ---- when it is lost ---- */

static void expect_ping(struct scripted *scripted, struct task *task) {
        scripted_expect(scripted, "broker.ping");
        scripted_result(scripted, "{\"pong\":true}");
        assert_int_equal(task_end(task), 0);
        assert_string_equal(task->result, "{\"pong\":true}");
        free(task->result);
}

static void test_a_connection_lost_in_the_middle_of_an_answer(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .method = "broker.ping" };

        assert_null(*state);
        task_start(&task, task_call);
        scripted_expect(scripted, "broker.ping");
        scripted_send(scripted, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"pong\":fal", NULL, 0);
        scripted_welcome(scripted);
        expect_ping(scripted, &task);
        task_end_session(scripted, dmab);
}

static void test_a_connection_lost_again_and_again(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .method = "broker.ping" };

        assert_null(*state);
        task_start(&task, task_call);
        scripted_expect(scripted, "broker.ping");
        for (int i = 0; i < 3; i++) {
                scripted_accept(scripted); /* and lost before hello */
                scripted_accept(scripted);
                scripted_expect(scripted, "broker.hello"); /* and before the answer to it */
                scripted_welcome(scripted);
                scripted_expect(scripted, "broker.ping");
        }
        scripted_welcome(scripted);
        expect_ping(scripted, &task);
        task_end_session(scripted, dmab);
}

/* Nothing that has not been sent has been carried out. */
static void test_a_call_that_finds_the_connection_lost_is_made_whatever_it_is(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .method = "pool.free", .params = "{\"pool\":1}" };

        assert_null(*state);
        scripted_hang_up(scripted);
        task_start(&task, task_call);
        scripted_welcome(scripted);
        scripted_expect(scripted, "pool.free");
        scripted_result(scripted, "{\"ok\":true}");
        assert_int_equal(task_end(&task), 0);
        free(task.result);
        task_end_session(scripted, dmab);
}

static void test_a_daemon_that_was_away_for_a_while(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .method = "broker.ping" };

        assert_null(*state);
        task_start(&task, task_call);
        scripted_expect(scripted, "broker.ping");
        scripted_vanish(scripted);
        scripted_hang_up(scripted);
        scripted_return(scripted);
        scripted_welcome(scripted);
        expect_ping(scripted, &task);
        task_end_session(scripted, dmab);
}

static void test_a_daemon_that_has_no_place_yet(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .method = "broker.ping" };

        assert_null(*state);
        task_start(&task, task_call);
        scripted_expect(scripted, "broker.ping");
        scripted_accept(scripted);
        scripted_send(scripted,
                      "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":28,\"message\":\"too many connections\","
                      "\"data\":{\"reason\":\"limit\"}}}\n",
                      NULL, 0);
        scripted_welcome(scripted);
        expect_ping(scripted, &task);
        task_end_session(scripted, dmab);
}

static void test_the_limits_are_those_of_the_daemon_that_came_back(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task tasks[2] = { { .dmab = dmab, .method = "broker.ping" }, { .dmab = dmab, .method = "broker.ping" } };
        long long first;

        assert_null(*state);
        for (size_t i = 0; i < 2; i++)
                task_start(&tasks[i], task_call);
        scripted_expect(scripted, "broker.ping");
        scripted_expect(scripted, "broker.ping");
        scripted_accept(scripted);
        scripted_hello_as(scripted, "secret", "user:42", 1);
        scripted_expect(scripted, "broker.ping");
        first = scripted_id(scripted);
        assert_true(scripted_is_silent(scripted));
        scripted_result(scripted, "{}");
        scripted_expect(scripted, "broker.ping");
        assert_true(scripted_id(scripted) != first);
        scripted_result(scripted, "{}");
        for (size_t i = 0; i < 2; i++) {
                assert_int_equal(task_end(&tasks[i]), 0);
                free(tasks[i].result);
        }
        task_end_session(scripted, dmab);
}

/* What a daemon that ends answers to whoever waits is not about what they wait for. */
static void test_a_refusal_by_a_daemon_that_ends_is_not_the_answer(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .method = "coherent.alloc", .params = "{\"request_key\":\"mine\"}" };

        assert_null(*state);
        task_start(&task, task_call);
        scripted_expect(scripted, "coherent.alloc");
        scripted_error(scripted, ESTALE, "gone", "The daemon is ending");
        scripted_welcome(scripted);
        scripted_expect(scripted, "broker.ping");
        scripted_result(scripted, "{}");
        scripted_expect(scripted, "coherent.alloc");
        assert_true(scripted_is_silent(scripted));
        scripted_result(scripted, "{\"alloc\":1}");
        assert_int_equal(task_end(&task), 0);
        assert_string_equal(task.result, "{\"alloc\":1}");
        free(task.result);
        /* Of one that lives on, it is. */
        task_start(&task, task_call);
        scripted_expect(scripted, "coherent.alloc");
        scripted_error(scripted, ESTALE, "gone", "The device was closed while the request waited");
        scripted_expect(scripted, "broker.ping");
        scripted_result(scripted, "{}");
        assert_int_equal(task_end(&task), -ESTALE);
        assert_string_equal(task.error, "The device was closed while the request waited");
        assert_string_equal(task.reason, "gone");
        task_end_session(scripted, dmab);
}

/* ---- when it does not come back ---- */

static void expect_over(dmab_t *dmab, const char *sentence) {
        assert_int_equal(dmab_call(dmab, "broker.ping", NULL, NULL), -ESTALE);
        assert_string_equal(dmab_last_reason(), "gone");
        assert_non_null(strstr(dmab_last_error(), sentence));
        assert_non_null(strstr(dmab_last_error(), "connect again"));
}

static void test_a_session_that_is_another_one_is_over(void **state) {
        static const char *const others[][2] = { { "other", "user:42" }, { "secret", "user:43" } };

        assert_null(*state);
        for (size_t i = 0; i < 2; i++) {
                struct scripted *scripted = scripted_new();
                dmab_t *dmab = task_session(scripted);
                struct task task = { .dmab = dmab, .method = "broker.ping" };

                task_start(&task, task_call);
                scripted_expect(scripted, "broker.ping");
                scripted_accept(scripted);
                scripted_hello_as(scripted, others[i][0], others[i][1], 2);
                assert_int_equal(task_end(&task), -ESTALE);
                assert_string_equal(task.reason, "gone");
                expect_over(dmab, others[i][1]);
                assert_string_equal(dmab_owner(dmab), "user:42");
                dmab_disconnect(dmab);
                scripted_free(scripted);
        }
}

static void test_a_session_that_nobody_knows_is_over_and_nothing_is_made_anew(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        dmab_device_t *device = task_device(scripted, dmab), *other;
        struct task task = { .dmab = dmab, .device = device };
        dmab_addr_t dma;
        void *vaddr;

        assert_null(*state);
        task_start(&task, task_alloc);
        scripted_expect(scripted, "coherent.alloc");
        scripted_accept(scripted);
        assert_non_null(strstr(scripted_expect(scripted, "broker.hello"), "\"session\":\"secret\""));
        scripted_error(scripted, ENOENT, "unknown_handle", "There is no such session");
        assert_int_equal(task_end(&task), -ESTALE);
        assert_string_equal(task.reason, "gone");
        scripted_vanish(scripted); /* nobody tries */
        expect_over(dmab, "no longer knows this session");
        assert_int_equal(dmab_alloc_coherent(device, 4096, DMAB_NOWAIT, &vaddr, &dma), -ESTALE);
        assert_int_equal(dmab_device_open(dmab, "other", NULL, &other), -ESTALE);
        assert_int_equal(dmab_supported(device, DMAB_MASK(32)), -ESTALE);
        dmab_disconnect(dmab);
        scripted_free(scripted);
}

static void test_what_a_daemon_that_stays_away_had_been_sent_is_told_as_unknown(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .method = "coherent.free", .params = "{\"alloc\":1}" };

        assert_null(*state);
        assert_int_equal(dmab_set_reconnect_timeout(dmab, 30), 0);
        task_start(&task, task_call);
        scripted_expect(scripted, "coherent.free");
        scripted_vanish(scripted);
        scripted_hang_up(scripted);
        assert_int_equal(task_end(&task), -ECONNRESET);
        assert_string_equal(task.reason, "gone");
        assert_non_null(strstr(task.error, "not known"));
        assert_non_null(strstr(task.error, "is dmabrokerd running?"));
        /* What is not sent is not carried out; and the session goes on when the daemon does. */
        assert_int_equal(dmab_call(dmab, "coherent.free", "{\"alloc\":1}", NULL), -ENOENT);
        scripted_return(scripted);
        task_start(&task, task_call);
        scripted_welcome(scripted);
        scripted_expect(scripted, "coherent.free");
        scripted_result(scripted, "{\"ok\":true}");
        assert_int_equal(task_end(&task), 0);
        free(task.result);
        task_end_session(scripted, dmab);
}

/* It may be another's already. */
static void test_memory_of_which_it_is_not_known_whether_it_was_freed_is_gone(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .device = task_device(scripted, dmab) };

        assert_null(*state);
        assert_int_equal(dmab_set_reconnect_timeout(dmab, 0), 0);
        task_allocate(scripted, &task);
        task_start(&task, task_free);
        scripted_expect(scripted, "coherent.free");
        scripted_hang_up(scripted);
        assert_int_equal(task_end(&task), -ECONNRESET);
        assert_string_equal(task.reason, "gone");
        assert_int_equal(dmab_free_coherent(task.device, 100, task.vaddr, task.dma), -EFAULT);
        task_start(&task, task_close);
        scripted_welcome(scripted);
        scripted_expect(scripted, "device.close");
        scripted_vanish(scripted);
        scripted_hang_up(scripted);
        assert_int_equal(task_end(&task), -ECONNRESET); /* and the device is no more */
        dmab_disconnect(dmab);
        scripted_free(scripted);
}

/* What was never sent has not happened. */
static void test_memory_that_could_not_be_freed_stays(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .device = task_device(scripted, dmab) };

        assert_null(*state);
        assert_int_equal(dmab_set_reconnect_timeout(dmab, 0), 0);
        task_allocate(scripted, &task);
        strcpy(task.vaddr, "still here");
        scripted_vanish(scripted);
        scripted_hang_up(scripted);
        assert_int_equal(dmab_free_coherent(task.device, 100, task.vaddr, task.dma), -ENOENT);
        assert_string_equal(task.vaddr, "still here");
        scripted_return(scripted);
        task_start(&task, task_free);
        scripted_welcome(scripted);
        scripted_expect(scripted, "coherent.free");
        scripted_result(scripted, "{\"ok\":true}");
        assert_int_equal(task_end(&task), 0);
        task_end_session(scripted, dmab);
}

static void test_without_patience_a_call_that_loses_the_connection_fails_and_the_next_tries_once(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .method = "coherent.alloc", .params = "{\"device\":1,\"size\":4096}" };

        assert_null(*state);
        assert_int_equal(dmab_set_reconnect_timeout(dmab, 0), 0);
        task_start(&task, task_call);
        scripted_expect(scripted, "coherent.alloc");
        scripted_hang_up(scripted);
        assert_int_equal(task_end(&task), -ECONNRESET);
        assert_string_equal(task.reason, "gone");
        task.method = "broker.ping";
        task.params = NULL;
        task_start(&task, task_call);
        scripted_welcome(scripted);
        expect_ping(scripted, &task);
        scripted_hang_up(scripted);
        task_start(&task, task_call);
        scripted_welcome(scripted);
        expect_ping(scripted, &task);
        scripted_vanish(scripted);
        scripted_hang_up(scripted);
        assert_int_equal(dmab_call(dmab, "broker.ping", NULL, NULL), -ENOENT);
        dmab_disconnect(dmab);
        scripted_free(scripted);
}

static void test_the_environment_says_how_long_to_try(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = NULL;
        struct task task = { .method = "broker.ping" };

        assert_null(*state);
        setenv("DMABROKER_RECONNECT_MS", "0", 1);
        task.dmab = dmab = task_session(scripted);
        task_start(&task, task_call);
        scripted_expect(scripted, "broker.ping");
        scripted_hang_up(scripted);
        assert_int_equal(task_end(&task), -ECONNRESET);
        scripted_vanish(scripted);
        dmab_disconnect(dmab);
        setenv("DMABROKER_RECONNECT_MS", "5s", 1);
        assert_int_equal(dmab_connect(scripted_uri(scripted), &dmab), -EINVAL);
        assert_non_null(strstr(dmab_last_error(), "5s"));
        unsetenv("DMABROKER_RECONNECT_MS");
        scripted_free(scripted);
}

/* ---- the agent ---- */

#define SUBSCRIBED(event, pending) \
        "{\"topics\":[\"recall\"],\"event\":" #event ",\"pressure\":false,\"pending\":[" pending "]}"

/* Its own connection to the same session. */
static void welcome_agent(struct scripted *agent, const char *params, const char *answer) {
        scripted_accept(agent);
        assert_non_null(strstr(scripted_hello(agent), "\"session\":\"secret\""));
        assert_string_equal(scripted_expect(agent, "events.subscribe"), params);
        scripted_result(agent, answer);
}

static void make_pool(struct scripted *scripted, struct task *task) {
        task_start(task, task_make_pool);
        scripted_expect(scripted, "pool.create");
        scripted_result(scripted, "{\"pool\":8,\"block_size\":1024,\"blocks_per_slab\":64}");
        assert_int_equal(task_end(task), 0);
}

static void test_what_the_agent_waits_for_is_asked_again_until_there_is_an_answer(void **state) {
        struct scripted *scripted = scripted_new(), *agent = scripted_beside(scripted);
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .device = task_device(scripted, dmab) };
        char first[1024];

        assert_null(*state);
        make_pool(scripted, &task);
        task_start(&task, task_pool_wait);
        welcome_agent(agent, "{\"topics\":[\"recall\"]}", SUBSCRIBED(41, ""));
        scripted_expect(scripted, "pool.lease");
        scripted_error(scripted, ENOMEM, "no_memory", "there is nothing");
        snprintf(first, sizeof(first), "%s", scripted_expect(agent, "pool.lease"));
        welcome_agent(agent, "{\"topics\":[\"recall\"],\"since\":41}", SUBSCRIBED(0, ""));
        for (int i = 0; i < 2; i++) {
                assert_string_equal(scripted_expect(agent, "pool.lease"), first);
                scripted_error(agent, EBUSY, "busy", "The request with this request_key is still under way");
        }
        assert_string_equal(scripted_expect(agent, "pool.lease"), first);
        scripted_too_often(agent);
        assert_string_equal(scripted_expect(agent, "pool.lease"), first);
        scripted_error(agent, ESTALE, "gone", "The daemon is ending");
        welcome_agent(agent, "{\"topics\":[\"recall\"]}", SUBSCRIBED(2, ""));
        assert_string_equal(scripted_expect(agent, "pool.lease"), first);
        scripted_result(agent, LEASE_RESULT(20, 0, 0x1000, 1));
        scripted_expect(scripted, "region.get");
        task_give_region(scripted, task_memory_file(8192));
        assert_int_equal(task_end(&task), 0);
        scripted_free(agent);
        task_end_session(scripted, dmab);
}

static void test_what_was_recalled_while_nobody_listened_goes_back(void **state) {
        struct scripted *scripted = scripted_new(), *agent = scripted_beside(scripted);
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .device = task_device(scripted, dmab) };

        assert_null(*state);
        make_pool(scripted, &task);
        task_start(&task, task_pool_alloc);
        welcome_agent(agent, "{\"topics\":[\"recall\"]}", SUBSCRIBED(41, ""));
        scripted_expect(scripted, "pool.lease");
        scripted_result(scripted, LEASE_RESULT(20, 0, 0x1000, 2));
        scripted_expect(scripted, "region.get");
        task_give_region(scripted, task_memory_file(8192));
        assert_int_equal(task_end(&task), 0);
        assert_int_equal(dmab_pool_free(task.pool, task.vaddr, task.dma), 0);
        welcome_agent(agent, "{\"topics\":[\"recall\"],\"since\":41}",
                      SUBSCRIBED(43, "{\"topic\":\"recall\",\"event\":43,\"pool\":8,\"bytes\":2048}"));
        assert_string_equal(scripted_expect(scripted, "pool.return"), "{\"lease\":20}");
        scripted_result(scripted, "{\"ok\":true}");
        /* What comes from now on counts on. */
        scripted_send(agent,
                      "{\"jsonrpc\":\"2.0\",\"method\":\"event\",\"params\":{\"topic\":\"recall\",\"event\":44,\"pool\":9}}\n",
                      NULL, 0);
        welcome_agent(agent, "{\"topics\":[\"recall\"],\"since\":44}", SUBSCRIBED(44, ""));
        scripted_free(agent);
        task_end_session(scripted, dmab);
}

static void test_a_session_that_the_agent_finds_over_is_over(void **state) {
        struct scripted *scripted = scripted_new(), *agent = scripted_beside(scripted);
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .device = task_device(scripted, dmab) };

        assert_null(*state);
        make_pool(scripted, &task);
        task_start(&task, task_pool_wait);
        welcome_agent(agent, "{\"topics\":[\"recall\"]}", SUBSCRIBED(0, ""));
        scripted_expect(scripted, "pool.lease");
        scripted_error(scripted, ENOMEM, "no_memory", "there is nothing");
        scripted_expect(agent, "pool.lease");
        scripted_accept(agent);
        scripted_expect(agent, "broker.hello");
        scripted_error(agent, ENOENT, "unknown_handle", "There is no such session");
        assert_int_equal(task_end(&task), -ESTALE);
        assert_string_equal(task.reason, "gone");
        scripted_free(agent);
        expect_over(dmab, "no longer knows this session");
        scripted_vanish(scripted);
        dmab_disconnect(dmab);
        scripted_free(scripted);
}

/* The agent has not noticed anything. */
static void test_when_the_session_is_over_nothing_is_handed_out_any_more(void **state) {
        struct scripted *scripted = scripted_new(), *agent = scripted_beside(scripted);
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .device = task_device(scripted, dmab) };
        struct task ping = { .dmab = dmab, .method = "broker.ping" };
        dmab_addr_t dma;
        void *vaddr;

        assert_null(*state);
        make_pool(scripted, &task);
        task_start(&task, task_pool_alloc);
        welcome_agent(agent, "{\"topics\":[\"recall\"]}", SUBSCRIBED(0, ""));
        scripted_expect(scripted, "pool.lease");
        scripted_result(scripted, LEASE_RESULT(20, 0, 0x1000, 4));
        scripted_expect(scripted, "region.get");
        task_give_region(scripted, task_memory_file(8192));
        assert_int_equal(task_end(&task), 0);
        task_start(&ping, task_call);
        scripted_expect(scripted, "broker.ping");
        scripted_accept(scripted);
        scripted_expect(scripted, "broker.hello");
        scripted_error(scripted, ENOENT, "unknown_handle", "There is no such session");
        assert_int_equal(task_end(&ping), -ESTALE);
        assert_int_equal(dmab_pool_alloc(task.pool, DMAB_NOWAIT, &vaddr, &dma), -ESTALE);
        assert_string_equal(dmab_last_reason(), "gone");
        assert_int_equal(dmab_map_single(task.device, &ping, sizeof(ping), DMAB_TO_DEVICE, &dma), -ESTALE);
        assert_string_equal(dmab_last_reason(), "gone");
        scripted_vanish(scripted);
        dmab_disconnect(dmab);
        scripted_free(agent);
        scripted_free(scripted);
}

/* It would try for half a minute. */
static void test_who_disconnects_does_not_wait_for_a_daemon_that_is_away(void **state) {
        struct scripted *scripted = scripted_new(), *agent = scripted_beside(scripted);
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .device = task_device(scripted, dmab) };
        struct timespec before, after;

        assert_null(*state);
        make_pool(scripted, &task);
        task_start(&task, task_pool_alloc);
        welcome_agent(agent, "{\"topics\":[\"recall\"]}", SUBSCRIBED(41, ""));
        scripted_expect(scripted, "pool.lease");
        scripted_result(scripted, LEASE_RESULT(20, 0, 0x1000, 2));
        scripted_expect(scripted, "region.get");
        task_give_region(scripted, task_memory_file(8192));
        assert_int_equal(task_end(&task), 0);
        assert_int_equal(dmab_pool_free(task.pool, task.vaddr, task.dma), 0);
        scripted_send(agent, "{\"jsonrpc\":\"2.0\",\"method\":\"event\",\"params\":{\"topic\":\"recall\",\"event\":42}}\n", NULL,
                      0);
        scripted_expect(scripted, "pool.return");
        scripted_vanish(scripted);
        scripted_free(agent);
        scripted_hang_up(scripted);
        clock_gettime(CLOCK_MONOTONIC, &before);
        dmab_disconnect(dmab);
        clock_gettime(CLOCK_MONOTONIC, &after);
        assert_true(after.tv_sec - before.tv_sec < 15);
        scripted_free(scripted);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_whatever_gives_back_by_number_is_made_again),
                cmocka_unit_test(test_a_release_that_is_refused_the_second_time_is_refused),
                cmocka_unit_test(test_a_release_that_is_refused_for_too_many_calls_and_finds_nothing_then_is_an_error),
                cmocka_unit_test(test_what_was_asked_for_is_asked_for_again_in_spite_of_too_many_calls),
                cmocka_unit_test(test_whatever_may_not_be_made_twice_is_told_as_failed),
                cmocka_unit_test(test_a_connection_lost_in_the_middle_of_an_answer),
                cmocka_unit_test(test_a_connection_lost_again_and_again),
                cmocka_unit_test(test_a_call_that_finds_the_connection_lost_is_made_whatever_it_is),
                cmocka_unit_test(test_a_daemon_that_was_away_for_a_while),
                cmocka_unit_test(test_a_daemon_that_has_no_place_yet),
                cmocka_unit_test(test_the_limits_are_those_of_the_daemon_that_came_back),
                cmocka_unit_test(test_a_refusal_by_a_daemon_that_ends_is_not_the_answer),
                cmocka_unit_test(test_a_session_that_is_another_one_is_over),
                cmocka_unit_test(test_a_session_that_nobody_knows_is_over_and_nothing_is_made_anew),
                cmocka_unit_test(test_what_a_daemon_that_stays_away_had_been_sent_is_told_as_unknown),
                cmocka_unit_test(test_memory_of_which_it_is_not_known_whether_it_was_freed_is_gone),
                cmocka_unit_test(test_memory_that_could_not_be_freed_stays),
                cmocka_unit_test(test_without_patience_a_call_that_loses_the_connection_fails_and_the_next_tries_once),
                cmocka_unit_test(test_the_environment_says_how_long_to_try),
                cmocka_unit_test(test_what_the_agent_waits_for_is_asked_again_until_there_is_an_answer),
                cmocka_unit_test(test_what_was_recalled_while_nobody_listened_goes_back),
                cmocka_unit_test(test_a_session_that_the_agent_finds_over_is_over),
                cmocka_unit_test(test_when_the_session_is_over_nothing_is_handed_out_any_more),
                cmocka_unit_test(test_who_disconnects_does_not_wait_for_a_daemon_that_is_away),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
