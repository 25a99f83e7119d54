/* The daemon's small parts that need no daemon: values of the configuration, PCI addresses, addresses of metrics,
 * histograms, digests, the place of the state. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/config.h"
#include "daemon/iommu/none.h"
#include "daemon/iommu/pci.h"
#include "daemon/metrics/address.h"
#include "daemon/rpc/json-memory.h"
#include "daemon/rpc/latency.h"
#include "daemon/rpc/method.h"
#include "daemon/state.h"

/* ---- configuration ---- */

static int parse(enum config_type type, const char *text, uint64_t *ret) {
        const struct config_key key = { .section = "x", .key = "y", .type = type };
        struct failure failure = { 0 };
        int r = config_value_parse(&key, text, ret, &failure);

        if (r < 0)
                assert_non_null(strstr(failure.sentence, "y is"));
        return r;
}

static void test_sizes_have_units(void **state) {
        static const struct {
                const char *text;
                uint64_t value;
        } good[] = { { "0", 0 }, { "4096", 4096 }, { "64K", 65536 }, { "1m", 1 << 20 }, { "2 GiB", UINT64_C(2) << 30 },
                     { "1TB", UINT64_C(1) << 40 } };
        static const char *const bad[] = { "", "-1", "+1", " 1", "1Q", "1K5", "K", "0x10", "1.5M", "99999999999999999999",
                                           "99999999T" };
        uint64_t value;

        for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
                assert_int_equal(parse(CONFIG_SIZE, good[i].text, &value), 0);
                assert_int_equal(value, good[i].value);
        }
        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
                assert_int_equal(parse(CONFIG_SIZE, bad[i], &value), -EINVAL);
}

static void test_times_are_seconds_unless_they_say_otherwise(void **state) {
        uint64_t value;

        assert_int_equal(parse(CONFIG_TIME, "3", &value), 0);
        assert_int_equal(value, 3000);
        assert_int_equal(parse(CONFIG_TIME, "250ms", &value), 0);
        assert_int_equal(value, 250);
        assert_int_equal(parse(CONFIG_TIME, "2min", &value), 0);
        assert_int_equal(value, 120000);
        assert_int_equal(parse(CONFIG_TIME, "3m", &value), -EINVAL);
        assert_int_equal(parse(CONFIG_TIME, "3sB", &value), -EINVAL);
}

static void test_masks_are_ones_and_powers_are_powers(void **state) {
        uint64_t value;

        assert_int_equal(parse(CONFIG_MASK, "0xffffffff", &value), 0);
        assert_int_equal(value, 0xffffffff);
        assert_int_equal(parse(CONFIG_MASK, "0xffffffffffffffff", &value), 0);
        assert_int_equal(value, UINT64_MAX);
        assert_int_equal(parse(CONFIG_MASK, "0xff00", &value), -EINVAL);
        assert_int_equal(parse(CONFIG_MASK, "4095", &value), -EINVAL);
        assert_int_equal(parse(CONFIG_POWER, "64K", &value), 0);
        assert_int_equal(parse(CONFIG_POWER, "0", &value), -EINVAL);
        assert_int_equal(parse(CONFIG_POWER, "96K", &value), -EINVAL);
}

static void test_metrics_are_served_at_numbers_or_paths(void **state) {
        static const struct {
                const char *text;
                int family; /* 0: wrong; -1: off */
        } cases[] = {
                { "127.0.0.1:9464", AF_INET }, { "0.0.0.0:0", AF_INET },  { "[::1]:9464", AF_INET6 },
                { "[::]:65535", AF_INET6 },    { "unix:/run/m", AF_UNIX }, { "off", -1 },
                { "127.0.0.1", 0 },            { "127.0.0.1:", 0 },       { "127.0.0.1:65536", 0 },
                { "127.0.0.1:-1", 0 },         { "127.0.0.1:1x", 0 },     { "127.0.0:1", 0 },
                { ":9464", 0 },                { "9464", 0 },             { "localhost:9464", 0 },
                { "::1:9464", 0 },             { "[::1]", 0 },            { "[::1:9464", 0 },
                { "[127.0.0.1]:9464", 0 },     { "unix:", 0 },            { "unix:run/m", 0 },
                { "OFF", 0 },                  { "[]:1", 0 },
        };
        char path[200] = "unix:/";

        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
                struct failure failure = { 0 };
                struct metrics_address address;
                int r = metrics_address_parse(cases[i].text, &address, &failure);

                if (!cases[i].family) {
                        assert_int_equal(r, -EINVAL);
                        assert_non_null(strstr(failure.sentence, "127.0.0.1:9464"));
                        continue;
                }
                assert_int_equal(r, 0);
                assert_int_equal(address.off, cases[i].family == -1);
                assert_int_equal(!!address.path, cases[i].family == AF_UNIX);
                if (address.network_length)
                        assert_int_equal(address.network.ss_family, cases[i].family);
        }
        memset(path + 6, 'x', sizeof(path) - 7);
        assert_int_equal(metrics_address_parse(path, &(struct metrics_address){ 0 }, NULL), -EINVAL);
}

static void test_every_key_has_a_default_that_is_valid(void **state) {
        for (const struct config_key *key = config_keys; key->section; key++) {
                union {
                        uint64_t number;
                        char *text;
                } value = { 0 };

                assert_non_null(key->doc);
                assert_int_not_equal(key->doc[strlen(key->doc) - 1], '.');
                if (key->fallback)
                        assert_int_equal(config_value_parse(key, key->fallback, &value, NULL), 0);
                if (key->type == CONFIG_TEXT)
                        free(value.text);
        }
}

/* ---- devices ---- */

static void test_pci_addresses_are_completed(void **state) {
        char name[PCI_NAME_MAX];

        assert_true(pci_name_parse("03:00.0", name));
        assert_string_equal(name, "0000:03:00.0");
        assert_true(pci_name_parse("0000:03:00.0", name));
        assert_string_equal(name, "0000:03:00.0");
        assert_true(pci_name_parse("10000:E1:1f.7", name));
        assert_string_equal(name, "10000:e1:1f.7");
        assert_true(pci_name_parse("0:3:0.0", name));
        assert_string_equal(name, "0000:03:00.0");
}

static void test_other_names_are_no_pci_addresses(void **state) {
        static const char *const names[] = { "", "card", "03:00", "03:00.8", "03:20.0", "103:00.0", "0000:03:00.0x",
                                             "0000:03:00.", ":03:00.0", "0000::00.0", "000000000:03:00.0" };
        char name[PCI_NAME_MAX];

        for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
                assert_false(pci_name_parse(names[i], name));
}

static void test_identity_gives_machine_addresses_to_any_device(void **state) {
        const struct translator_ops *ops = &translator_identity_ops;
        struct translation *translation;
        struct translator_facts facts;
        uint64_t dma;

        assert_int_equal(ops->attach("a device", "user:1000", false, &translation, &facts, NULL), 0);
        assert_string_equal(facts.name, "a device");
        assert_int_equal(facts.node, -1);
        assert_false(facts.present);
        assert_int_equal(facts.mask, UINT64_MAX);
        assert_int_equal(ops->map(translation, &(struct translator_run){ .addr = 0x12345000, .size = 4096 }, &dma, NULL), 0);
        assert_int_equal(dma, 0x12345000);
        ops->unmap(translation, dma, 4096);
        ops->detach(translation);
}

static void test_a_name_that_is_too_long_is_refused(void **state) {
        struct translation *translation;
        struct translator_facts facts;
        char name[129];

        memset(name, 'x', 128);
        name[128] = '\0';
        assert_int_equal(translator_identity_ops.attach(name, "user:1000", false, &translation, &facts, NULL), -EINVAL);
}

/* ---- latencies ---- */

static void test_quantiles_are_known_to_an_eighth(void **state) {
        struct latency latency = { 0 };

        assert_int_equal(latency_quantile(&latency, 500), 0);
        for (uint64_t i = 1; i <= 100000; i++)
                latency_add(&latency, i * 10);
        assert_in_range(latency_quantile(&latency, 500), 500000, 500000 * 9 / 8);
        assert_in_range(latency_quantile(&latency, 990), 990000, 1000000);
        assert_int_equal(latency_quantile(&latency, 1000), 1000000);
        assert_int_equal(latency.max, 1000000);
}

static void test_a_latency_counts_for_the_first_bound_that_it_does_not_exceed(void **state) {
        static const struct {
                uint64_t nanoseconds;
                int bound; /* LATENCY_BOUNDS: none */
        } cases[] = {
                { 0, 0 }, { 1000, 0 }, { 1001, 1 }, { 2500, 1 }, { 5000, 2 }, { 5001, 3 }, { 1000000000, 18 },
                { 10000000000, 21 }, { 10000000001, LATENCY_BOUNDS },
        };

        for (size_t i = 1; i < LATENCY_BOUNDS; i++)
                assert_true(latency_bounds[i - 1] < latency_bounds[i]);
        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
                struct latency latency = { 0 };

                latency_add(&latency, cases[i].nanoseconds);
                assert_int_equal(latency.count, 1);
                for (int bound = 0; bound < LATENCY_BOUNDS; bound++)
                        assert_int_equal(latency.within[bound], bound == cases[i].bound);
        }
}

static void test_no_latency_is_beyond_the_histogram(void **state) {
        struct latency latency = { 0 };

        latency_add(&latency, 0);
        latency_add(&latency, UINT64_MAX);
        assert_int_equal(latency.count, 2);
        assert_int_equal(latency_quantile(&latency, 1), 0);
}

/* ---- memory for the parser ---- */

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

static bool exhausted;

void *__wrap_malloc(size_t size) {
        return exhausted ? NULL : __real_malloc(size);
}

static void test_the_parser_has_a_reserve_when_memory_is_short(void **state) {
        char *from_system = json_memory_take(100), *one, *other;

        assert_non_null(from_system);
        exhausted = true;
        for (int i = 0; i < 3; i++) {
                one = json_memory_take(100);
                other = json_memory_take(6 << 20);
                assert_non_null(one);
                assert_non_null(other);
                memset(one, 1, 100);
                memset(other, 2, 6 << 20);
                assert_int_equal(one[99], 1);
                assert_null(json_memory_take(6 << 20));
                json_memory_give(one);
                json_memory_give(other);
        }
        exhausted = false;
        json_memory_give(from_system);
        json_memory_give(NULL);
}

/* ---- digests ---- */

static uint64_t digest(const struct coherent_alloc_params *params) {
        return method_digest(&protocol_table.methods[METHOD_coherent_alloc], params);
}

static void test_a_digest_is_of_everything_but_the_key(void **state) {
        struct coherent_alloc_params one = { 0 }, other;

        schema_put(&one, device, 7);
        schema_put(&one, size, 4096);
        schema_put(&one, request_key, "a");
        other = one;
        other.request_key = "b";
        assert_true(digest(&one) == digest(&other));
        other.size = 8192;
        assert_true(digest(&one) != digest(&other));
        other = one;
        schema_put(&other, zero, false);
        assert_true(digest(&one) != digest(&other));
        other = one;
        schema_put(&other, align, 4096);
        schema_put(&one, boundary, 4096);
        assert_true(digest(&one) != digest(&other));
}

/* ---- state ---- */

static void expect_state(const char *path) {
        struct failure failure = { 0 };
        char lock[128], where[128] = "", link[64];
        int fd, lock_fd;

        assert_int_equal(state_open(NULL, &fd, &lock_fd, &failure), 0);
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        assert_true(readlink(link, where, sizeof(where) - 1) > 0);
        assert_string_equal(where, path);
        close(fd);
        close(lock_fd);
        snprintf(lock, sizeof(lock), "%s/lock", path);
        assert_int_equal(unlink(lock), 0);
        assert_int_equal(rmdir(path), 0);
}

static void test_state_lies_where_the_service_manager_says(void **state) {
        char directory[] = "/tmp/dmab-state-XXXXXX", inner[64], two[96];

        assert_non_null(mkdtemp(directory));
        snprintf(inner, sizeof(inner), "%s/state", directory);
        snprintf(two, sizeof(two), "%s:/var/lib/other", inner);
        setenv("HOME", directory, 1);
        setenv("STATE_DIRECTORY", inner, 1);
        expect_state(inner);
        setenv("STATE_DIRECTORY", two, 1);
        expect_state(inner);
        unsetenv("STATE_DIRECTORY");
        assert_int_equal(rmdir(directory), 0);
}

static void refuse_state(const char *path, const char *word) {
        struct failure failure = { 0 };
        char lock[128];
        int fd, lock_fd;

        assert_int_equal(state_open(path, &fd, &lock_fd, &failure), -EPERM);
        assert_non_null(strstr(failure.sentence, path));
        if (!strstr(failure.sentence, word))
                fail_msg("%s", failure.sentence);
        snprintf(lock, sizeof(lock), "%s/lock", path);
        assert_int_equal(access(lock, F_OK), -1);
}

static void accept_state(const char *path) {
        struct failure failure = { 0 };
        char lock[128];
        int fd, lock_fd;

        if (state_open(path, &fd, &lock_fd, &failure) < 0)
                fail_msg("%s", failure.sentence);
        close(fd);
        close(lock_fd);
        snprintf(lock, sizeof(lock), "%s/lock", path);
        assert_int_equal(unlink(lock), 0);
}

static void test_state_that_others_may_change_is_refused(void **state) {
        char directory[] = "/tmp/dmab-state-XXXXXX";

        assert_non_null(mkdtemp(directory));
        assert_int_equal(chmod(directory, 0755), 0);
        accept_state(directory);
        assert_int_equal(chmod(directory, 0770), 0);
        refuse_state(directory, "0770");
        assert_int_equal(chmod(directory, 01777), 0);
        refuse_state(directory, "1777");
        assert_int_equal(chmod(directory, 0700), 0);
        if (geteuid() == 0) {
                assert_int_equal(chown(directory, 65534, 65534), 0);
                refuse_state(directory, "65534");
        }
        assert_int_equal(rmdir(directory), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_sizes_have_units),
                cmocka_unit_test(test_times_are_seconds_unless_they_say_otherwise),
                cmocka_unit_test(test_masks_are_ones_and_powers_are_powers),
                cmocka_unit_test(test_metrics_are_served_at_numbers_or_paths),
                cmocka_unit_test(test_every_key_has_a_default_that_is_valid),
                cmocka_unit_test(test_pci_addresses_are_completed),
                cmocka_unit_test(test_other_names_are_no_pci_addresses),
                cmocka_unit_test(test_identity_gives_machine_addresses_to_any_device),
                cmocka_unit_test(test_a_name_that_is_too_long_is_refused),
                cmocka_unit_test(test_quantiles_are_known_to_an_eighth),
                cmocka_unit_test(test_a_latency_counts_for_the_first_bound_that_it_does_not_exceed),
                cmocka_unit_test(test_no_latency_is_beyond_the_histogram),
                cmocka_unit_test(test_the_parser_has_a_reserve_when_memory_is_short),
                cmocka_unit_test(test_a_digest_is_of_everything_but_the_key),
                cmocka_unit_test(test_state_lies_where_the_service_manager_says),
                cmocka_unit_test(test_state_that_others_may_change_is_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
