/* Every allocation failing once: each request is answered all the same, and the next one is served as if nothing had been. */
#include "tests/unit/proto-peer.h"

#include <stdio.h>

static struct listener listener;
static size_t n_until_failure; /* 0: none fails */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

static bool fails(void) {
        return n_until_failure && !--n_until_failure;
}

void *__wrap_malloc(size_t size) {
        return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size) {
        return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size) {
        return fails() ? NULL : __real_realloc(old, size);
}

static int begin(void **state) {
        json_set_alloc_funcs(__wrap_malloc, free);
        return 0;
}

/* The answer with the nth allocation failing, and whether there were that many. */
static bool ask_failing(const char *text, size_t nth) {
        bool reached;

        listener.n_heard = 0;
        listener.heard[0] = '\0';
        n_until_failure = nth;
        rpc_peer_receive(&listener.peer, text, strlen(text));
        reached = !n_until_failure;
        n_until_failure = 0;
        return reached;
}

/* A new listener for each failure, so that memory kept for reuse does not hide the allocation. */
static void assert_survives(const char *text, const char *good) {
        bool reached = true;

        for (size_t nth = 1; reached; nth++) {
                listener_init(&listener, true, NULL);
                reached = ask_failing(text, nth);
                assert_int_equal(listener.n_sends, 1);
                if (reached && !strstr(listener.heard, good) && !strstr(listener.heard, "\"reason\":\"no_memory\""))
                        fail_msg("allocation %zu failing: %s", nth, listener.heard);
                assert_int_equal(listener.peer.n_calls, 0);
                assert_non_null(strstr(ask(&listener, text), good));
                listener_deinit(&listener);
                assert_true(nth < 1000);
        }
}

static void test_a_request_survives(void **state) {
        assert_survives("{\"jsonrpc\":\"2.0\",\"id\":\"an id that is longer than what a call keeps within itself\","
                        "\"method\":\"subtract\",\"params\":{\"minuend\":42,\"subtrahend\":23}}",
                        "\"result\":19");
}

static void test_lists_and_raw_values_survive(void **state) {
        assert_survives("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"everything\",\"params\":{\"flag\":true,\"small\":10,"
                        "\"large\":1,\"below\":-5,\"real\":0.5,\"address\":\"0xff\",\"word\":\"a\",\"colour\":\"green\","
                        "\"inner\":{\"count\":7},\"raw\":{\"a\":[1]},\"numbers\":[1,2,3],\"words\":[\"a\",\"\"],"
                        "\"things\":[{\"count\":1}],\"colours\":[\"red\"]}}",
                        "\"raw\":{\"a\":[1]}");
}

static void test_a_batch_survives(void **state) {
        assert_survives("[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"get_data\"},{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":"
                        "\"pass\",\"params\":{\"fd\":true}},5,{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"nope\"}]",
                        "\"fds\":1");
}

static void test_a_long_answer_survives(void **state) {
        assert_survives("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"long\",\"params\":{\"bytes\":3000}}", "aaaa");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_request_survives),
                cmocka_unit_test(test_lists_and_raw_values_survive),
                cmocka_unit_test(test_a_batch_survives),
                cmocka_unit_test(test_a_long_answer_survives),
        };

        return cmocka_run_group_tests(tests, begin, NULL);
}
