/* A program goes through ten restarts of the daemon, killed and ended in turns, while two of its threads take and give: it sees
 * no error and no changed byte, its memory is the daemon's memory afterwards as before, and nothing is left behind. RESTARTS says
 * how many, SEED what the threads do. */
#include <dmabroker.h>
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/client/load.h"
#include "tests/lib/daemon.h"

enum { RESTARTS_DEFAULT = 10, THREADS = 2, STEPS_BETWEEN = 64, QUIET_SIZE = 3 << 20, BOUNCED_SIZE = 5000,
       LARGE = 16 << 20, LARGE_MOST = 16 /* and there is no other one, of the simulated source */ };

static const struct test_daemon_options survives = { .survives = true };

/* What is taken once, and not asked about while the daemon comes and goes. */
struct quiet {
        dmab_device_t *device;
        dmab_pool_t *pool;
        uint8_t *ring, *block, buffer[BOUNCED_SIZE];
        dmab_addr_t ring_dma, block_dma, buffer_dma;
};

static unsigned long number_of(const char *variable, unsigned long otherwise) {
        const char *text = getenv(variable);

        return text ? strtoul(text, NULL, 10) : otherwise;
}

static json_t *call(dmab_t *dmab, const char *method, const char *params) {
        char *text = NULL;
        json_t *result;

        if (dmab_call(dmab, method, params, &text))
                fail_msg("%s: %s", method, dmab_last_error());
        result = json_loads(text, JSON_DECODE_ANY, NULL);
        assert_non_null(result);
        free(text);
        return result;
}

static void quiet_begin(dmab_t *dmab, struct quiet *quiet) {
        if (dmab_device_open(dmab, "quiet", NULL, &quiet->device) ||
            dmab_pool_create("quiet", quiet->device, 256, 0, 0, NULL, &quiet->pool) ||
            dmab_alloc_coherent(quiet->device, QUIET_SIZE, DMAB_NOWAIT, (void **)&quiet->ring, &quiet->ring_dma) ||
            dmab_pool_alloc(quiet->pool, DMAB_NOWAIT, (void **)&quiet->block, &quiet->block_dma))
                fail_msg("%s", dmab_last_error());
        for (size_t i = 0; i < QUIET_SIZE; i++)
                quiet->ring[i] = (uint8_t)(i * 31 + i / 4096);
        memset(quiet->block, 0x3c, 256);
        memset(quiet->buffer, 0xa5, sizeof(quiet->buffer));
        if (dmab_map_single(quiet->device, quiet->buffer, sizeof(quiet->buffer), DMAB_BIDIRECTIONAL, &quiet->buffer_dma))
                fail_msg("%s", dmab_last_error());
}

static void quiet_look(const struct quiet *quiet) {
        for (size_t i = 0; i < QUIET_SIZE; i++)
                assert_int_equal(quiet->ring[i], (uint8_t)(i * 31 + i / 4096));
        for (size_t i = 0; i < 256; i++)
                assert_int_equal(quiet->block[i], 0x3c);
}

static void quiet_end(struct quiet *quiet) {
        quiet_look(quiet);
        memset(quiet->buffer, 0, sizeof(quiet->buffer));
        if (dmab_unmap_single(quiet->device, quiet->buffer_dma, sizeof(quiet->buffer), DMAB_BIDIRECTIONAL))
                fail_msg("%s", dmab_last_error());
        for (size_t i = 0; i < sizeof(quiet->buffer); i++)
                assert_int_equal(quiet->buffer[i], 0xa5);
        if (dmab_pool_free(quiet->pool, quiet->block, quiet->block_dma) || dmab_pool_destroy(quiet->pool) ||
            dmab_free_coherent(quiet->device, QUIET_SIZE, quiet->ring, quiet->ring_dma) ||
            dmab_device_close(quiet->device))
                fail_msg("%s", dmab_last_error());
}

static void expect_nothing(dmab_t *dmab) {
        static const char *const lists[][2] = { { "device.list", "devices" }, { "coherent.list", "allocs" },
                                                { "pool.list", "pools" },     { "lease.list", "leases" },
                                                { "bounce.list", "bounces" }, { "mapping.list", "mappings" } };
        json_t *check = call(dmab, "debug.check", NULL);

        if (!json_is_true(json_object_get(check, "clean")))
                fail_msg("the books are not clean: %s", json_dumps(json_object_get(check, "problems"), JSON_INDENT(2)));
        json_decref(check);
        for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++) {
                json_t *result = call(dmab, lists[i][0], NULL), *list = json_object_get(result, lists[i][1]);

                assert_true(json_is_array(list));
                if (json_array_size(list))
                        fail_msg("%s: %s", lists[i][0], json_dumps(list, 0));
                json_decref(result);
        }
}

static void test_a_program_goes_through_restarts_without_noticing(void **state) {
        unsigned long restarts = number_of("RESTARTS", RESTARTS_DEFAULT);
        struct quiet quiet = { 0 };
        struct test_daemon *daemon;
        struct load *load;
        char uri[256];
        dmab_t *dmab;
        bool well = true;

        assert_null(*state);
        assert_int_equal(test_daemon_start(&survives, &daemon), 0);
        snprintf(uri, sizeof(uri), "unix:%s", test_daemon_socket(daemon));
        assert_int_equal(dmab_connect(uri, &dmab), 0);
        quiet_begin(dmab, &quiet);
        load = load_start(dmab, THREADS, number_of("SEED", 7));
        for (unsigned long i = 0; i < restarts && well; i++) {
                well = load_wait(load, 1 + i * 29 % STEPS_BETWEEN);
                assert_int_equal(test_daemon_restart(daemon, i % 2 ? SIGTERM : SIGKILL), 0);
                well = well && load_wait(load, 1);
                quiet_look(&quiet);
        }
        load_end(load);
        quiet_end(&quiet);
        expect_nothing(dmab);
        dmab_disconnect(dmab);
        assert_int_equal(test_daemon_end(daemon), 0);
}

/* The first call after several restarts of which it has not seen one. */
static void test_a_program_that_was_not_there_meanwhile_finds_everything(void **state) {
        struct quiet quiet = { 0 };
        struct test_daemon *daemon;
        char uri[256];
        dmab_t *dmab;

        assert_null(*state);
        assert_int_equal(test_daemon_start(&survives, &daemon), 0);
        snprintf(uri, sizeof(uri), "unix:%s", test_daemon_socket(daemon));
        assert_int_equal(dmab_connect(uri, &dmab), 0);
        quiet_begin(dmab, &quiet);
        for (int i = 0; i < 3; i++)
                assert_int_equal(test_daemon_restart(daemon, i % 2 ? SIGTERM : SIGKILL), 0);
        quiet_end(&quiet);
        expect_nothing(dmab);
        dmab_disconnect(dmab);
        assert_int_equal(test_daemon_end(daemon), 0);
}

struct waiter {
        pthread_t thread;
        dmab_device_t *device;
        void *vaddr;
        dmab_addr_t dma;
        int r;
};

static void *wait_for_memory(void *userdata) {
        struct waiter *waiter = userdata;

        waiter->r = dmab_alloc_coherent(waiter->device, LARGE, DMAB_WAIT, &waiter->vaddr, &waiter->dma);
        if (waiter->r)
                print_error("%s\n", dmab_last_error());
        return NULL;
}

static json_int_t count(dmab_t *dmab, const char *what) {
        json_t *status = call(dmab, "broker.status", NULL);
        json_int_t n = json_integer_value(json_object_get(json_object_get(status, "counts"), what));

        json_decref(status);
        return n;
}

/* Nobody tells it that the daemon has ended, or that it is another one. */
static void test_a_call_that_waits_goes_on_waiting(void **state) {
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        struct test_daemon *daemon;
        struct waiter waiter = { 0 };
        dmab_addr_t dmas[LARGE_MOST];
        void *vaddrs[LARGE_MOST];
        size_t n = 0;
        dmab_t *dmab;
        char uri[256];

        assert_null(*state);
        assert_int_equal(test_daemon_start(&survives, &daemon), 0);
        snprintf(uri, sizeof(uri), "unix:%s", test_daemon_socket(daemon));
        assert_int_equal(dmab_connect(uri, &dmab), 0);
        options.timeout_ms = (unsigned)test_timeout_ms();
        assert_int_equal(dmab_device_open(dmab, "waits", &options, &waiter.device), 0);
        while (n < LARGE_MOST && !dmab_alloc_coherent(waiter.device, LARGE, DMAB_NOWAIT, &vaddrs[n], &dmas[n]))
                n++;
        assert_true(n > 0);
        assert_int_equal(pthread_create(&waiter.thread, NULL, wait_for_memory, &waiter), 0);
        for (int i = 0; i < 4; i++) {
                while (count(dmab, "waiters") != 1) /* each look is a call that the daemon answers */
                        ;
                assert_int_equal(test_daemon_restart(daemon, i % 2 ? SIGKILL : SIGTERM), 0);
        }
        n--;
        assert_int_equal(dmab_free_coherent(waiter.device, LARGE, vaddrs[n], dmas[n]), 0);
        assert_int_equal(pthread_join(waiter.thread, NULL), 0);
        assert_int_equal(waiter.r, 0);
        assert_int_equal(dmab_free_coherent(waiter.device, LARGE, waiter.vaddr, waiter.dma), 0);
        while (n--)
                assert_int_equal(dmab_free_coherent(waiter.device, LARGE, vaddrs[n], dmas[n]), 0);
        assert_int_equal(dmab_device_close(waiter.device), 0);
        expect_nothing(dmab);
        dmab_disconnect(dmab);
        assert_int_equal(test_daemon_end(daemon), 0);
}

/* Its state is lost: that is told, and nothing is made anew behind the program's back. */
static void test_a_daemon_that_has_lost_its_state_is_told_of(void **state) {
        struct quiet quiet = { 0 };
        struct test_daemon *daemon;
        dmab_device_t *device;
        dmab_addr_t dma;
        char uri[256];
        void *vaddr;
        dmab_t *dmab;

        assert_null(*state);
        assert_int_equal(test_daemon_start(NULL, &daemon), 0);
        snprintf(uri, sizeof(uri), "unix:%s", test_daemon_socket(daemon));
        assert_int_equal(dmab_connect(uri, &dmab), 0);
        quiet_begin(dmab, &quiet);
        assert_int_equal(test_daemon_kill(daemon), 0);
        assert_int_equal(test_daemon_start_again(daemon), 0);
        assert_int_equal(dmab_alloc_coherent(quiet.device, 4096, DMAB_NOWAIT, &vaddr, &dma), -ESTALE);
        assert_string_equal(dmab_last_reason(), "gone");
        assert_int_equal(dmab_device_open(dmab, "another", NULL, &device), -ESTALE);
        assert_int_equal(dmab_free_coherent(quiet.device, QUIET_SIZE, quiet.ring, quiet.ring_dma), -ESTALE);
        assert_int_equal(dmab_map_single(quiet.device, quiet.buffer, 100, DMAB_TO_DEVICE, &dma), -ESTALE);
        assert_string_equal(dmab_last_reason(), "gone");
        dmab_disconnect(dmab);
        assert_int_equal(test_daemon_end(daemon), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_program_goes_through_restarts_without_noticing),
                cmocka_unit_test(test_a_program_that_was_not_there_meanwhile_finds_everything),
                cmocka_unit_test(test_a_call_that_waits_goes_on_waiting),
                cmocka_unit_test(test_a_daemon_that_has_lost_its_state_is_told_of),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
