/* Pools, memory of any size and streaming mappings on real memory: the address that the device is given is where the kernel's
 * page map says that the bytes are, read by the tests' own reader; and what goes through a bounce slot is really there. */
#include <dmabroker.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/daemon.h"
#include "tests/lib/hugepages.h"
#include "tests/lib/pagemap.h"

enum { PAGES = 64, BLOCKS = 3000, PAGE = 4096 };

struct fixture {
        struct test_daemon *daemon;
        dmab_t *dmab;
        dmab_device_t *device;
};

static int set_up(void **state) {
        struct test_daemon_options options = { .source = "hugetlb", .config = "[memory]\nemergency_permille = 0\n" };
        struct dmab_device_options device = DMAB_DEVICE_OPTIONS_INIT;
        struct fixture *fixture = calloc(1, sizeof(*fixture));
        char uri[256];

        device.min_align_mask = 0xfff; /* as NVMe has it */
        if (!fixture || test_daemon_start(&options, &fixture->daemon))
                return -1;
        snprintf(uri, sizeof(uri), "unix:%s", test_daemon_socket(fixture->daemon));
        if (dmab_connect(uri, &fixture->dmab) || dmab_device_open(fixture->dmab, "nvme", &device, &fixture->device)) {
                print_error("%s\n", dmab_last_error());
                return -1;
        }
        *state = fixture;
        return 0;
}

static int tear_down(void **state) {
        struct fixture *fixture = *state;
        int r;

        dmab_disconnect(fixture->dmab);
        r = test_daemon_end(fixture->daemon);
        free(fixture);
        return r;
}

/* Touch every page, then ask the kernel where it is. */
static void expect_at(volatile char *vaddr, size_t size, dmab_addr_t dma) {
        for (size_t at = 0; at < size; at += PAGE - ((uintptr_t)vaddr + at) % PAGE) {
                vaddr[at] = (char)at;
                assert_int_equal(pagemap_machine_address(vaddr + at), dma + at);
        }
}

static void test_blocks_of_a_pool_are_where_the_device_is_told(void **state) {
        const struct fixture *fixture = *state;
        static void *vaddrs[BLOCKS];
        static dmab_addr_t dmas[BLOCKS];
        dmab_pool_t *pool;

        assert_int_equal(dmab_pool_create("rings", fixture->device, 1000, 128, 0, NULL, &pool), 0);
        for (size_t i = 0; i < BLOCKS; i++)
                assert_int_equal(dmab_pool_alloc(pool, DMAB_NOWAIT, &vaddrs[i], &dmas[i]), 0);
        for (size_t i = 0; i < BLOCKS; i++) {
                assert_int_equal(dmas[i] % 128, 0);
                assert_int_equal(dmab_addressing(fixture->device, vaddrs[i]), DMAB_ADDRESSING_MACHINE);
                expect_at(vaddrs[i], 1000, dmas[i]);
        }
        for (size_t i = 0; i < BLOCKS; i++)
                assert_int_equal(dmab_pool_free(pool, vaddrs[i], dmas[i]), 0);
        assert_int_equal(dmab_pool_destroy(pool), 0);
}

static void test_blocks_keep_their_boundary_in_machine_memory(void **state) {
        const struct fixture *fixture = *state;
        void *vaddrs[100];
        dmab_addr_t dmas[100];
        dmab_pool_t *pool;

        assert_int_equal(dmab_pool_create("short", fixture->device, 1536, 64, 4096, NULL, &pool), 0);
        assert_int_equal(dmab_pool_alloc_bulk(pool, DMAB_NOWAIT, 100, vaddrs, dmas), 0);
        for (size_t i = 0; i < 100; i++) {
                expect_at(vaddrs[i], 1536, dmas[i]);
                assert_int_equal(dmas[i] / 4096, (dmas[i] + 1535) / 4096);
        }
        assert_int_equal(dmab_pool_free_bulk(pool, 100, vaddrs, dmas), 0);
        assert_int_equal(dmab_pool_destroy(pool), 0);
}

static void test_memory_of_any_size_is_in_one_piece_where_the_device_is_told(void **state) {
        const struct fixture *fixture = *state;
        static const size_t sizes[] = { 1, 64, 65, 1000, 4096, 5000, 65536, 100000, 300000, 1 << 20 };
        void *vaddrs[sizeof(sizes) / sizeof(*sizes)];
        dmab_addr_t dma;

        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
                if (dmab_alloc(fixture->device, sizes[i], DMAB_NOWAIT | DMAB_ZERO, &vaddrs[i], &dma))
                        fail_msg("%zu bytes: %s", sizes[i], dmab_last_error());
                assert_int_equal(dma % 64, 0);
                expect_at(vaddrs[i], sizes[i], dma);
        }
        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
                assert_int_equal(dmab_free(fixture->device, vaddrs[i]), 0);
}

static void test_a_block_is_mapped_in_place_at_its_machine_address(void **state) {
        const struct fixture *fixture = *state;
        dmab_addr_t dma, mapped;
        char *vaddr;

        assert_int_equal(dmab_alloc(fixture->device, 8000, DMAB_NOWAIT, (void **)&vaddr, &dma), 0);
        assert_int_equal(dmab_map_single(fixture->device, vaddr + 100, 5000, DMAB_BIDIRECTIONAL, &mapped), 0);
        vaddr[100] = 1;
        assert_int_equal(mapped, pagemap_machine_address(vaddr + 100));
        assert_int_equal(dmab_unmap_single(fixture->device, mapped, 5000, DMAB_BIDIRECTIONAL), 0);
        assert_int_equal(dmab_free(fixture->device, vaddr), 0);
}

/* The device's view of a dma address: the region that the daemon says it is in, mapped a second time, at the page that the kernel
 * says is there. */
static volatile char *device_view(const struct fixture *fixture, dmab_addr_t dma, size_t *ret_size, void **ret_map) {
        char params[96], *text;
        json_t *found;
        volatile char *at;
        struct stat about;
        size_t n_fds;
        int fd;

        snprintf(params, sizeof(params), "{\"dma_addr\":\"0x%" PRIx64 "\"}", dma);
        if (dmab_call(fixture->dmab, "coherent.lookup", params, &text))
                fail_msg("%s", dmab_last_error());
        found = json_loads(text, 0, NULL);
        free(text);
        snprintf(params, sizeof(params), "{\"region\":%lld}",
                 (long long)json_integer_value(json_object_get(found, "region")));
        assert_int_equal(dmab_call_fds(fixture->dmab, "region.get", params, NULL, &fd, 1, &n_fds), 0);
        assert_int_equal(fstat(fd, &about), 0);
        *ret_size = about.st_size;
        *ret_map = mmap(NULL, about.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        assert_ptr_not_equal(*ret_map, MAP_FAILED);
        close(fd);
        at = (char *)*ret_map + json_integer_value(json_object_get(found, "offset")) +
             json_integer_value(json_object_get(found, "at"));
        json_decref(found);
        (void)*at;
        assert_int_equal(pagemap_machine_address(at), dma);
        return at;
}

static void test_what_is_bounced_is_at_the_machine_address_that_the_device_is_told(void **state) {
        const struct fixture *fixture = *state;
        static char buffer[20000] __attribute__((aligned(4096)));
        struct dmab_bounce_info info = DMAB_BOUNCE_INFO_INIT;
        volatile char *device;
        dmab_addr_t dma;
        size_t size;
        void *map;

        for (size_t i = 0; i < sizeof(buffer); i++)
                buffer[i] = (char)(i * 7);
        assert_int_equal(dmab_map_single(fixture->device, buffer + 300, 15000, DMAB_BIDIRECTIONAL, &dma), 0);
        assert_int_equal(dma & 0xfff, 300); /* what NVMe needs */
        assert_int_equal(dmab_bounce_info(fixture->device, &info), 0);
        assert_int_equal(info.addressing, DMAB_ADDRESSING_MACHINE);
        device = device_view(fixture, dma, &size, &map);
        for (size_t i = 0; i < 15000; i++) {
                assert_int_equal(device[i], (char)((i + 300) * 7));
                device[i] = (char)(i * 3);
        }
        assert_int_equal(dmab_unmap_single(fixture->device, dma, 15000, DMAB_BIDIRECTIONAL), 0);
        for (size_t i = 0; i < 15000; i++)
                assert_int_equal(buffer[300 + i], (char)(i * 3));
        assert_int_equal(buffer[299], (char)(299 * 7));
        assert_int_equal(buffer[15300], (char)(15300 * 7));
        munmap(map, size);
}

static void test_a_block_of_two_megabytes_comes_through_a_lease(void **state) {
        const struct fixture *fixture = *state;
        dmab_pool_t *pool;
        dmab_addr_t dma;
        void *vaddr;

        assert_int_equal(dmab_pool_create("large", fixture->device, 2 << 20, 0, 0, NULL, &pool), 0);
        assert_int_equal(dmab_pool_alloc(pool, DMAB_NOWAIT, &vaddr, &dma), 0);
        expect_at(vaddr, 2 << 20, dma);
        assert_int_equal(dmab_pool_free(pool, vaddr, dma), 0);
        assert_int_equal(dmab_pool_destroy(pool), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(blocks_of_a_pool_are_where_the_device_is_told),
                TEST(blocks_keep_their_boundary_in_machine_memory),
                TEST(memory_of_any_size_is_in_one_piece_where_the_device_is_told),
                TEST(a_block_is_mapped_in_place_at_its_machine_address),
                TEST(what_is_bounced_is_at_the_machine_address_that_the_device_is_told),
                TEST(a_block_of_two_megabytes_comes_through_a_lease),
        };

        test_hugepages_reserve_or_skip(PAGES);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
