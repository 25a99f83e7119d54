/* Leases of pools and bounce pools: spans that a client divides without asking, by itself and in its own mapping. */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/rpc/ask.h"

static const char config[] = "[daemon]\naccess = everyone\ngrace = 0\n[memory]\nregion_idle = 0\nquarantine = 0\n";

/* Of 64 blocks of 1 KiB, and of 32 slots. */
static uint64_t pool_of_64, bounce_of_32;

static int set_up(void **state) {
        struct ask_fixture *fixture;

        ask_set_up(state, config);
        fixture = *state;
        pool_of_64 = ask_number(fixture->client, "pool", "pool.create",
                                "{'name':'ring','device':%" PRIu64 ",'size':1024,'reserve':64,'max_blocks':64}",
                                fixture->device);
        bounce_of_32 = ask_number(fixture->client, "bounce", "bounce.create", "{'device':%" PRIu64 ",'size':65536}",
                                  fixture->device);
        return 0;
}

static json_t *lease(struct ask_fixture *fixture, uint64_t count, const char *more) {
        return ask(fixture->client, "pool.lease", "{'pool':%" PRIu64 ",'count':%" PRIu64 "%s}", pool_of_64, count, more);
}

static void give_back(struct ask_fixture *fixture, uint64_t handle) {
        json_decref(ask(fixture->client, "pool.return", "{'lease':%" PRIu64 "}", handle));
}

static uint64_t stat(struct ask_fixture *fixture, const char *member) {
        return ask_number(fixture->client, member, "pool.stats", "{'pool':%" PRIu64 "}", pool_of_64);
}

static unsigned char *map_lease(struct ask_fixture *fixture, const json_t *result, size_t size) {
        uint64_t offset = ask_peek_number(result, "offset"), page = offset % 4096;
        int fd = test_client_take_fd(fixture->client);
        unsigned char *memory;

        assert_int_equal(ask_peek_number(result, "fds"), 1);
        assert_true(fd >= 0);
        memory = mmap(NULL, size + page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)(offset - page));
        assert_true(memory != MAP_FAILED);
        close(fd);
        return memory + page;
}

static void test_the_blocks_of_a_lease_lie_one_behind_the_other(void **state) {
        struct ask_fixture *fixture = *state;
        json_t *result = lease(fixture, 16, ""), *found;
        uint64_t first = ask_peek_hex(result, "dma_addr"), handle = ask_peek_number(result, "lease");

        assert_int_equal(ask_peek_number(result, "count"), 16);
        assert_int_equal(ask_peek_number(result, "block_size"), 1024);
        json_decref(result);
        assert_int_equal(stat(fixture, "leased"), 16);
        for (uint64_t i = 0; i < 16; i++) {
                found = ask(fixture->client, "coherent.lookup", "{'dma_addr':'0x%" PRIx64 "'}", first + i * 1024 + 1023);
                assert_int_equal(ask_peek_hex(found, "block"), first + i * 1024);
                assert_string_equal(json_string_value(json_object_get(found, "state")), "leased");
                assert_int_equal(ask_take_number(found, "lease"), handle);
        }
        ask_clean(fixture->client);
}

static void test_less_is_given_when_there_is_no_longer_run(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t leases[64], count, left = 64;

        for (int i = 0; i < 64; i++)
                leases[i] = ask_take_number(lease(fixture, 1, ""), "lease");
        for (int i = 0; i < 64; i += 2)
                give_back(fixture, leases[i]);
        assert_int_equal(stat(fixture, "free"), 32);
        count = ask_take_number(lease(fixture, 32, ""), "count");
        assert_true(count >= 1 && count < 32);
        left = stat(fixture, "free");
        assert_int_equal(left, 32 - count);
        ask_clean(fixture->client);
}

static void test_a_lease_of_all_is_all(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t count = ask_take_number(lease(fixture, 1000000, ""), "count");

        assert_true(count >= 1 && count <= 64);
        assert_int_equal(stat(fixture, "leased"), count);
        ask_clean(fixture->client);
}

static void test_a_client_writes_where_its_device_reads(void **state) {
        struct ask_fixture *fixture = *state;
        json_t *one = lease(fixture, 4, ",'fd':true"), *other;
        unsigned char *memory = map_lease(fixture, one, 4096);

        json_decref(one);
        memset(memory, 0x5a, 4096);
        other = ask(fixture->client, "bounce.lease", "{'bounce':%" PRIu64 ",'slots':2,'fd':true}", bounce_of_32);
        memory = map_lease(fixture, other, 4096);
        json_decref(other);
        memset(memory, 0xa5, 4096);
}

static void test_leased_blocks_are_not_freed_one_by_one(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t addr = ask_take_hex(lease(fixture, 4, ""), "dma_addr");

        ask_refused(fixture->client, "busy", "pool.free", "{'pool':%" PRIu64 ",'dma_addrs':['0x%" PRIx64 "']}",
                    pool_of_64, addr);
        assert_int_equal(stat(fixture, "leased"), 4);
}

static void test_a_lease_is_returned_once_and_where_it_came_from(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t handle = ask_take_number(lease(fixture, 4, ""), "lease"), other;

        other = ask_number(fixture->client, "lease", "bounce.lease", "{'bounce':%" PRIu64 "}", bounce_of_32);
        ask_refused(fixture->client, "unknown_handle", "bounce.return", "{'lease':%" PRIu64 "}", handle);
        ask_refused(fixture->client, "unknown_handle", "pool.return", "{'lease':%" PRIu64 "}", other);
        give_back(fixture, handle);
        json_decref(ask(fixture->client, "bounce.return", "{'lease':%" PRIu64 "}", other));
        ask_refused(fixture->client, "double_free", "pool.return", "{'lease':%" PRIu64 "}", handle);
        ask_refused(fixture->client, "double_free", "bounce.return", "{'lease':%" PRIu64 "}", other);
        ask_refused(fixture->client, "unknown_handle", "pool.return", "{'lease':4711}");
        assert_int_equal(stat(fixture, "free"), 64);
        ask_clean(fixture->client);
}

static void test_leases_are_listed_by_what_they_are_of(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t handle = ask_take_number(lease(fixture, 4, ""), "lease"), other, after;
        json_t *list, *row;

        other = ask_number(fixture->client, "lease", "bounce.lease", "{'bounce':%" PRIu64 ",'slots':3}", bounce_of_32);
        list = ask(fixture->client, "lease.list", "{'pool':%" PRIu64 "}", pool_of_64);
        row = json_array_get(json_object_get(list, "leases"), 0);
        assert_int_equal(json_array_size(json_object_get(list, "leases")), 1);
        assert_int_equal(ask_peek_number(row, "lease"), handle);
        assert_int_equal(ask_peek_number(row, "pool"), pool_of_64);
        assert_int_equal(ask_peek_number(row, "unit"), 1024);
        assert_int_equal(ask_peek_number(row, "count"), 4);
        json_decref(list);
        list = ask(fixture->client, "lease.list", "{'bounce':%" PRIu64 "}", bounce_of_32);
        row = json_array_get(json_object_get(list, "leases"), 0);
        assert_int_equal(ask_peek_number(row, "lease"), other);
        assert_int_equal(ask_peek_number(row, "bounce"), bounce_of_32);
        assert_null(json_object_get(row, "pool"));
        json_decref(list);
        list = ask(fixture->client, "lease.list", "{'limit':1}");
        assert_true(json_is_true(json_object_get(list, "more")));
        after = ask_peek_number(json_array_get(json_object_get(list, "leases"), 0), "lease");
        json_decref(list);
        list = ask(fixture->client, "lease.list", "{'limit':1,'after':%" PRIu64 "}", after);
        assert_false(json_is_true(json_object_get(list, "more")));
        json_decref(list);
}

static void test_the_same_key_gives_the_same_lease(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t handle = ask_take_number(lease(fixture, 4, ",'request_key':'l'"), "lease");

        assert_int_equal(ask_take_number(lease(fixture, 4, ",'request_key':'l'"), "lease"), handle);
        assert_int_equal(stat(fixture, "leased"), 4);
        ask_refused(fixture->client, "bad_param", "pool.lease",
                    "{'pool':%" PRIu64 ",'count':5,'request_key':'l'}", pool_of_64);
        give_back(fixture, handle);
        assert_int_not_equal(ask_take_number(lease(fixture, 5, ",'request_key':'l'"), "lease"), handle);
}

/* The daemon has all of these descriptors open already. */
static void let_open(const struct test_daemon *daemon, rlim_t files) {
        struct rlimit limit;

        assert_int_equal(prlimit(test_daemon_pid(daemon), RLIMIT_NOFILE, NULL, &limit), 0);
        limit.rlim_cur = files;
        assert_int_equal(prlimit(test_daemon_pid(daemon), RLIMIT_NOFILE, &limit, NULL), 0);
}

static void test_a_lease_whose_descriptor_cannot_be_passed_is_given_back(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t handle = ask_take_number(lease(fixture, 4, ",'request_key':'l'"), "lease");

        let_open(fixture->daemon, 4);
        ask_invalid(fixture->client, EMFILE, "pool.lease", "{'pool':%" PRIu64 ",'count':4,'fd':true}", pool_of_64);
        ask_invalid(fixture->client, EMFILE, "bounce.lease", "{'bounce':%" PRIu64 ",'fd':true}", bounce_of_32);
        assert_int_equal(stat(fixture, "leases"), 1);
        let_open(fixture->daemon, 1024);
        give_back(fixture, handle);
        ask_clean(fixture->client);
}

static void test_the_quota_counts_leases(void **state) {
        struct ask_fixture *fixture = *state;
        struct test_client *client = ask_connect_as(fixture->daemon, 12345);
        uint64_t pool = ask_number(client, "pool", "pool.create", "{'name':'r','device':%" PRIu64 ",'size':64}",
                                   ask_device(client, "card"));

        json_decref(ask(fixture->client, "quota.set", "{'owner':'user:12345','limits':{'leases':2}}"));
        for (int i = 0; i < 2; i++)
                json_decref(ask(client, "pool.lease", "{'pool':%" PRIu64 ",'count':1}", pool));
        ask_refused(client, "quota", "pool.lease", "{'pool':%" PRIu64 ",'count':1}", pool);
        assert_int_equal(ask_number(client, "leased", "pool.stats", "{'pool':%" PRIu64 "}", pool), 2);
        test_client_close(client);
}

static void test_a_strangers_lease_is_answered_like_none(void **state) {
        struct ask_fixture *fixture = *state;
        struct test_client *client = ask_connect_as(fixture->daemon, 12345);
        struct test_client *stranger = ask_connect_as(fixture->daemon, 12346);
        uint64_t pool = ask_number(client, "pool", "pool.create", "{'name':'r','device':%" PRIu64 ",'size':64}",
                                   ask_device(client, "card")), handle;
        json_t *list;

        handle = ask_number(client, "lease", "pool.lease", "{'pool':%" PRIu64 ",'count':1}", pool);
        ask_refused(stranger, "unknown_handle", "pool.return", "{'lease':%" PRIu64 "}", handle);
        list = ask(stranger, "lease.list", "{}");
        assert_int_equal(json_array_size(json_object_get(list, "leases")), 0);
        json_decref(list);
        ask_refused(stranger, "not_permitted", "lease.list", "{'owner':'user:12345'}");
        list = ask(fixture->client, "lease.list", "{'owner':'user:12345'}");
        assert_int_equal(json_array_size(json_object_get(list, "leases")), 1);
        json_decref(list);
        test_client_close(client);
        test_client_close(stranger);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, ask_tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(test_the_blocks_of_a_lease_lie_one_behind_the_other),
                T(test_less_is_given_when_there_is_no_longer_run),
                T(test_a_lease_of_all_is_all),
                T(test_a_client_writes_where_its_device_reads),
                T(test_leased_blocks_are_not_freed_one_by_one),
                T(test_a_lease_is_returned_once_and_where_it_came_from),
                T(test_leases_are_listed_by_what_they_are_of),
                T(test_the_same_key_gives_the_same_lease),
                T(test_a_lease_whose_descriptor_cannot_be_passed_is_given_back),
                T(test_the_quota_counts_leases),
                T(test_a_strangers_lease_is_answered_like_none),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
