/* Connections are cut at random bytes, thousands of times, while threads take and give: no call fails, no byte changes, nothing
 * is taken twice and nothing is left behind. CUTS says how often, SEED where. */
#include <dmabroker.h>
#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/client/cutter.h"
#include "tests/client/load.h"
#include "tests/lib/daemon.h"

enum { CUTS_DEFAULT = 2000, THREADS = 4, STEPS_AFTER = 200, STEPS_BETWEEN = 10 };

static unsigned long number_of(const char *variable, unsigned long otherwise) {
        const char *text = getenv(variable);

        return text ? strtoul(text, NULL, 10) : otherwise;
}

static json_t *call(dmab_t *dmab, const char *method) {
        char *text = NULL;
        json_t *result;

        if (dmab_call(dmab, method, NULL, &text))
                fail_msg("%s: %s", method, dmab_last_error());
        result = json_loads(text, JSON_DECODE_ANY, NULL);
        assert_non_null(result);
        free(text);
        return result;
}

static void expect_clean_books(dmab_t *dmab) {
        json_t *check = call(dmab, "debug.check");

        if (!json_is_true(json_object_get(check, "clean")))
                fail_msg("the books are not clean: %s", json_dumps(json_object_get(check, "problems"), JSON_INDENT(2)));
        json_decref(check);
}

/* Of the session, which has not ended yet. */
static void expect_nothing(dmab_t *dmab) {
        static const char *const lists[][2] = { { "device.list", "devices" },   { "coherent.list", "allocs" },
                                                { "pool.list", "pools" },       { "lease.list", "leases" },
                                                { "bounce.list", "bounces" },   { "mapping.list", "mappings" } };

        for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++) {
                json_t *result = call(dmab, lists[i][0]), *list = json_object_get(result, lists[i][1]);

                assert_true(json_is_array(list));
                if (json_array_size(list))
                        fail_msg("%s: %s", lists[i][0], json_dumps(list, 0));
                json_decref(result);
        }
}

/* restarts: the daemon is killed or ended at each look, too. */
static void cut(unsigned cuts, bool restarts) {
        const struct test_daemon_options options = { .survives = restarts };
        uint64_t seed = number_of("SEED", 1);
        struct test_daemon *daemon;
        struct cutter *cutter;
        struct load *load;
        dmab_t *dmab;

        assert_int_equal(test_daemon_start(&options, &daemon), 0);
        cutter = cutter_start(test_daemon_socket(daemon), cuts, seed);
        while (dmab_connect(cutter_uri(cutter), &dmab)) /* it is cut, too */
                ;
        load = load_start(dmab, THREADS, seed);
        for (unsigned i = 0; load_wait(load, restarts ? STEPS_BETWEEN : 1) && !cutter_is_done(cutter); i++)
                if (restarts)
                        assert_int_equal(test_daemon_restart(daemon, i % 2 ? SIGTERM : SIGKILL), 0);
        load_wait(load, STEPS_AFTER);
        load_end(load);
        expect_nothing(dmab);
        expect_clean_books(dmab);
        dmab_disconnect(dmab);
        cutter_end(cutter);
        assert_int_equal(test_daemon_end(daemon), 0);
}

static void test_connections_that_are_cut_anywhere_are_not_noticed(void **state) {
        assert_null(*state);
        cut((unsigned)number_of("CUTS", CUTS_DEFAULT), false);
}

static void test_nor_is_it_that_the_daemon_is_restarted_meanwhile(void **state) {
        assert_null(*state);
        cut((unsigned)number_of("CUTS", CUTS_DEFAULT) / 10, true);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_connections_that_are_cut_anywhere_are_not_noticed),
                cmocka_unit_test(test_nor_is_it_that_the_daemon_is_restarted_meanwhile),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
