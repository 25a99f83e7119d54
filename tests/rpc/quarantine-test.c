/* What rests because a device may still write it: who is told, who ends it, and that it outlives the daemon. */
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "tests/rpc/ask.h"

#define HOUR_MS UINT64_C(3600000)

struct fixture {
        struct test_daemon *daemon;
        struct test_client *client;
};

static void start(struct fixture *fixture, const char *config, bool survives) {
        const struct test_daemon_options options = { .config = config, .survives = survives, .open_directory = true };

        assert_int_equal(test_daemon_start(&options, &fixture->daemon), 0);
        fixture->client = ask_connect(fixture->daemon, NULL);
}

static int set_up(void **state) {
        struct fixture *fixture = calloc(1, sizeof(*fixture));

        *state = fixture;
        start(fixture, "[daemon]\naccess = everyone\ngrace = 0\nkeep = 60s\n[memory]\nquarantine = 1h\n", true);
        return 0;
}

static int tear_down(void **state) {
        struct fixture *fixture = *state;
        int r;

        test_client_close(fixture->client);
        r = test_daemon_end(fixture->daemon);
        free(fixture);
        return r;
}

static void die_and_come_back(struct fixture *fixture) {
        assert_int_equal(test_daemon_kill(fixture->daemon), 0);
        test_client_close(fixture->client);
        assert_int_equal(test_daemon_start_again(fixture->daemon), 0);
        fixture->client = ask_connect(fixture->daemon, NULL);
}

static json_t *items(struct test_client *client) {
        json_t *result = ask(client, "quarantine.list", "{}"), *list = json_incref(json_object_get(result, "items"));

        json_decref(result);
        return list;
}

static size_t count(struct test_client *client) {
        json_t *list = items(client);
        size_t n = json_array_size(list);

        json_decref(list);
        return n;
}

static uint64_t quarantined(struct test_client *client) {
        return ask_number(client, "quarantined", "broker.status", "{}");
}

/* Somebody allocates and vanishes. The machine address. */
static uint64_t vanish(struct fixture *fixture, struct test_client *doomed, const char *device, uint64_t size) {
        json_t *result = ask(doomed, "coherent.alloc", "{'device':%" PRIu64 ",'size':%" PRIu64 "}", ask_device(doomed, device),
                             size);
        uint64_t addr = ask_peek_hex(result, "machine_addr"), before = quarantined(fixture->client);

        json_decref(result);
        test_client_close(doomed);
        ask_until(quarantined(fixture->client) >= before + size);
        return addr;
}

static void test_what_rests_is_told_with_its_device_and_its_time(void **state) {
        struct fixture *fixture = *state;
        struct test_client *doomed = ask_connect(fixture->daemon, NULL);
        uint64_t device = ask_device(fixture->client, "nic"), pool, bounce, addr;
        json_t *list, *item;
        size_t i;

        pool = ask_number(fixture->client, "pool", "pool.create", "{'name':'ring','device':%" PRIu64 ",'size':256}", device);
        bounce = ask_number(fixture->client, "bounce", "bounce.create", "{'device':%" PRIu64 ",'size':65536}", device);
        json_decref(ask(doomed, "pool.lease", "{'pool':%" PRIu64 ",'count':2}", pool));
        json_decref(ask(doomed, "bounce.map", "{'bounce':%" PRIu64 ",'size':3000,'direction':'to_device'}", bounce));
        addr = vanish(fixture, doomed, "gpu", 8192);
        list = items(fixture->client);
        assert_int_equal(json_array_size(list), 3);
        json_array_foreach(list, i, item) {
                static const struct {
                        const char *what, *device;
                        uint64_t size, count;
                } wanted[] = { { "slots", "nic", 4096, 2 }, { "blocks", "nic", 512, 2 }, { "alloc", "gpu", 8192, 1 } };

                assert_string_equal(json_string_value(json_object_get(item, "what")), wanted[i].what);
                assert_string_equal(json_string_value(json_object_get(item, "device_name")), wanted[i].device);
                assert_string_equal(json_string_value(json_object_get(item, "reason")), "vanished");
                assert_int_equal(ask_peek_number(item, "size"), wanted[i].size);
                assert_int_equal(ask_peek_number(item, "count"), wanted[i].count);
                assert_int_equal(ask_peek_number(item, "age_ms") + ask_peek_number(item, "left_ms"), HOUR_MS);
        }
        assert_int_equal(ask_peek_number(json_array_get(list, 0), "bounce"), bounce);
        assert_int_equal(ask_peek_number(json_array_get(list, 1), "pool"), pool);
        assert_int_equal(ask_peek_hex(json_array_get(list, 2), "machine_addr"), addr);
        json_decref(list);
        ask_clean(fixture->client);
}

static void test_a_list_comes_in_pages(void **state) {
        struct fixture *fixture = *state;
        uint64_t last;
        json_t *result;

        for (int i = 0; i < 3; i++)
                vanish(fixture, ask_connect(fixture->daemon, NULL), "gpu", 4096);
        result = ask(fixture->client, "quarantine.list", "{'limit':2}");
        assert_true(json_is_true(json_object_get(result, "more")));
        last = ask_peek_number(json_array_get(json_object_get(result, "items"), 1), "item");
        json_decref(result);
        result = ask(fixture->client, "quarantine.list", "{'limit':2,'after':%" PRIu64 "}", last);
        assert_true(json_is_false(json_object_get(result, "more")));
        assert_int_equal(json_array_size(json_object_get(result, "items")), 1);
        json_decref(result);
}

static void test_users_see_their_own_and_release_nothing(void **state) {
        struct fixture *fixture = *state;
        struct test_client *user = ask_connect_as(fixture->daemon, 12345);

        vanish(fixture, ask_connect(fixture->daemon, NULL), "gpu", 4096);
        assert_int_equal(count(user), 0);
        vanish(fixture, ask_connect_as(fixture->daemon, 12345), "gpu", 8192);
        assert_int_equal(count(user), 1);
        ask_refused(user, "not_permitted", "quarantine.list", "{'owner':'user:0'}");
        ask_refused(user, "not_permitted", "quarantine.release", "{}");
        assert_int_equal(count(fixture->client), 2);
        assert_int_equal(ask_number(fixture->client, "released", "quarantine.release", "{'owner':'user:12345'}"), 8192);
        assert_int_equal(count(user), 0);
        assert_int_equal(quarantined(fixture->client), 4096);
        test_client_close(user);
}

static void test_an_administrator_releases_what_lies_at_an_address(void **state) {
        struct fixture *fixture = *state;
        uint64_t first = vanish(fixture, ask_connect(fixture->daemon, NULL), "gpu", 8192);
        json_t *result;
        char *log;

        vanish(fixture, ask_connect(fixture->daemon, NULL), "gpu", 4096);
        result = ask(fixture->client, "quarantine.release", "{'machine_addr':'0x%" PRIx64 "'}", first);
        assert_int_equal(ask_peek_number(result, "released"), 8192);
        assert_int_equal(ask_peek_number(result, "resting"), 4096);
        json_decref(result);
        ask_refused(fixture->client, "bad_address", "quarantine.release", "{'machine_addr':'0x%" PRIx64 "'}", first);
        log = test_daemon_log(fixture->daemon);
        assert_non_null(strstr(log, "says that devices are quiet: 8192 bytes can be used again, 4096 rest still"));
        free(log);
        ask_clean(fixture->client);
}

/* Each is there, after a restart in whatever order; the youngest's age. */
static uint64_t require_all(struct test_client *client, const char *const *whats, size_t n) {
        json_t *list = items(client), *item;
        uint64_t youngest = UINT64_MAX, age;
        size_t i, j, found = 0;

        assert_int_equal(json_array_size(list), n);
        json_array_foreach(list, i, item) {
                age = ask_peek_number(item, "age_ms");
                assert_int_equal(age + ask_peek_number(item, "left_ms"), HOUR_MS);
                youngest = age < youngest ? age : youngest;
                for (j = 0; j < n; j++)
                        found += !strcmp(json_string_value(json_object_get(item, "what")), whats[j]);
                assert_string_equal(json_string_value(json_object_get(item, "device_name")), "nic");
                assert_string_equal(json_string_value(json_object_get(item, "reason")), "vanished");
        }
        assert_int_equal(found, n);
        json_decref(list);
        return youngest;
}

static void set_grace(struct fixture *fixture, const char *grace) {
        FILE *config = fopen(test_daemon_config(fixture->daemon), "we");

        assert_non_null(config);
        fprintf(config, "[daemon]\naccess = everyone\ngrace = %s\nkeep = 60s\n[memory]\nquarantine = 1h\n", grace);
        assert_int_equal(fclose(config), 0);
}

static void test_time_goes_on_over_a_kill(void **state) {
        static const char *const whats[] = { "slots", "blocks", "alloc" };
        struct fixture *fixture = *state;
        struct test_client *doomed = ask_connect(fixture->daemon, NULL);
        json_t *hello = ask(fixture->client, "broker.hello", "{}");
        const char *session = json_string_value(json_object_get(hello, "session"));
        uint64_t device = ask_device(fixture->client, "nic"), pool, bounce, age, before;

        pool = ask_number(fixture->client, "pool", "pool.create", "{'name':'ring','device':%" PRIu64 ",'size':256}", device);
        bounce = ask_number(fixture->client, "bounce", "bounce.create", "{'device':%" PRIu64 ",'size':65536}", device);
        json_decref(ask(doomed, "pool.alloc", "{'pool':%" PRIu64 ",'count':2}", pool));
        json_decref(ask(doomed, "bounce.map", "{'bounce':%" PRIu64 ",'size':3000,'direction':'to_device'}", bounce));
        vanish(fixture, doomed, "nic", 8192);
        before = require_all(fixture->client, whats, 3);
        set_grace(fixture, "60s"); /* as the next daemon reads it */
        for (int round = 0; round < 3; round++) {
                die_and_come_back(fixture);
                json_decref(ask(fixture->client, "broker.hello", "{'session':'%s'}", session));
                age = require_all(fixture->client, whats, 3);
                assert_true(age >= before);
                before = age;
                assert_int_equal(quarantined(fixture->client), 8192 + 512 + 4096);
                ask_clean(fixture->client);
        }
        assert_int_equal(ask_number(fixture->client, "released", "quarantine.release", "{}"), 8192 + 512 + 4096);
        ask_clean(fixture->client);
        die_and_come_back(fixture);
        assert_int_equal(count(fixture->client), 0);
        json_decref(hello);
}

static void test_its_end_comes_though_the_daemon_was_killed(void **state) {
        struct fixture fixture;

        start(&fixture, "[daemon]\naccess = everyone\ngrace = 0\nkeep = 60s\n[memory]\nquarantine = 500ms\n", true);
        vanish(&fixture, ask_connect(fixture.daemon, NULL), "gpu", 8192);
        die_and_come_back(&fixture);
        ask_until(!quarantined(fixture.client));
        assert_int_equal(count(fixture.client), 0);
        ask_clean(fixture.client);
        test_client_close(fixture.client);
        assert_int_equal(test_daemon_end(fixture.daemon), 0);
}

static void test_a_device_has_the_time_that_the_configuration_gives_it(void **state) {
        struct fixture fixture;
        json_t *list, *item;
        size_t i;

        start(&fixture, "[daemon]\naccess = everyone\ngrace = 0\n[memory]\nquarantine = 1h\n"
                        "[device capture]\nquarantine = 2h\n[device strange]\nquarantine = admin\n"
                        "[device quick]\nquarantine = 1ms\n", false);
        vanish(&fixture, ask_connect(fixture.daemon, NULL), "nic", 4096);
        vanish(&fixture, ask_connect(fixture.daemon, NULL), "capture", 8192);
        vanish(&fixture, ask_connect(fixture.daemon, NULL), "strange", 12288);
        list = items(fixture.client);
        assert_int_equal(json_array_size(list), 3);
        json_array_foreach(list, i, item) {
                uint64_t age = ask_peek_number(item, "age_ms");

                if (i == 2)
                        assert_null(json_object_get(item, "left_ms"));
                else
                        assert_int_equal(age + ask_peek_number(item, "left_ms"), (i + 1) * HOUR_MS);
        }
        json_decref(list);
        json_decref(ask(fixture.client, "quarantine.release", "{}"));
        assert_int_equal(quarantined(fixture.client), 0);
        test_client_close(fixture.client);
        assert_int_equal(test_daemon_end(fixture.daemon), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(test_what_rests_is_told_with_its_device_and_its_time),
                T(test_a_list_comes_in_pages),
                T(test_users_see_their_own_and_release_nothing),
                T(test_an_administrator_releases_what_lies_at_an_address),
                T(test_time_goes_on_over_a_kill),
                cmocka_unit_test(test_a_device_has_the_time_that_the_configuration_gives_it),
                cmocka_unit_test(test_its_end_comes_though_the_daemon_was_killed),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
