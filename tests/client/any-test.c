/* Memory of any size against a real daemon on simulated memory. */
#include <dmabroker.h>
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/lib/daemon.h"

enum { LINE = 64, MIB = 1 << 20 };

struct fixture {
        struct test_daemon *daemon;
        char uri[256];
        dmab_t *dmab;
        dmab_device_t *device;
};

static int set_up(void **state) {
        struct test_daemon_options options = { .open_directory = true, .config = "[daemon]\naccess = everyone\n" };
        struct fixture *fixture = calloc(1, sizeof(*fixture));

        unsetenv("DMAB_DEBUG");
        if (!fixture || test_daemon_start(&options, &fixture->daemon))
                return -1;
        snprintf(fixture->uri, sizeof(fixture->uri), "unix:%s", test_daemon_socket(fixture->daemon));
        if (dmab_connect(fixture->uri, &fixture->dmab) || dmab_device_open(fixture->dmab, "card", NULL, &fixture->device))
                return -1;
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

static long long usage(dmab_t *dmab, const char *name) {
        char *text = NULL;
        json_t *quota;
        long long value;

        assert_int_equal(dmab_call(dmab, "quota.get", NULL, &text), 0);
        quota = json_loads(text, 0, NULL);
        value = json_integer_value(json_object_get(json_object_get(quota, "usage"), name));
        json_decref(quota);
        free(text);
        return value;
}

struct block {
        unsigned char *vaddr;
        dmab_addr_t dma;
        size_t size;
};

static int by_address(const void *a, const void *b) {
        const struct block *left = a, *right = b;

        return (left->vaddr > right->vaddr) - (left->vaddr < right->vaddr);
}

static void test_every_size_can_be_had_and_no_two_share_a_cache_line(void **state) {
        struct fixture *fixture = *state;
        static struct block blocks[400];
        dmab_addr_t dma;
        size_t n = 0;

        for (size_t size = 1; size <= 2 * MIB && n < 397; size += 1 + size / 16)
                for (int twice = 0; twice < 2; twice++, n++) {
                        struct block *block = &blocks[n];

                        block->size = size;
                        if (dmab_alloc(fixture->device, size, 0, (void **)&block->vaddr, &block->dma))
                                fail_msg("%zu bytes: %s", size, dmab_last_error());
                        assert_int_equal(block->dma % LINE, 0);
                        assert_int_equal((uintptr_t)block->vaddr % LINE, 0);
                        assert_int_equal(dmab_dma_addr(fixture->device, block->vaddr + size - 1, &dma), 0);
                        assert_int_equal(dma, block->dma + size - 1);
                        memset(block->vaddr, 0x3c, size);
                }
        qsort(blocks, n, sizeof(*blocks), by_address);
        for (size_t i = 1; i < n; i++)
                assert_true((uintptr_t)(blocks[i - 1].vaddr + blocks[i - 1].size - 1) / LINE < (uintptr_t)blocks[i].vaddr / LINE);
        for (size_t i = 0; i < n; i++)
                assert_int_equal(dmab_free(fixture->device, blocks[i].vaddr), 0);
        assert_int_equal(dmab_device_close(fixture->device), 0);
        assert_int_equal(usage(fixture->dmab, "bytes"), 0);
}

static void test_a_size_class_wastes_at_most_a_fifth(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dmas[65];
        void *vaddrs[65];

        for (size_t size = 512; size <= 256 << 10; size += size / 4) {
                uint64_t least = UINT64_MAX;

                for (size_t i = 0; i < 65; i++) {
                        assert_int_equal(dmab_alloc(fixture->device, size + 1, 0, &vaddrs[i], &dmas[i]), 0);
                        for (size_t j = 0; j < i; j++) {
                                uint64_t apart = dmas[i] > dmas[j] ? dmas[i] - dmas[j] : dmas[j] - dmas[i];

                                least = apart < least ? apart : least;
                        }
                }
                /* Above the largest class, whole pages. */
                assert_true(least <= (size + 1) * 5 / 4 + 4096 || size + 1 > 256 << 10);
                for (size_t i = 0; i < 65; i++)
                        assert_int_equal(dmab_free(fixture->device, vaddrs[i]), 0);
                if (size >= 64 << 10)
                        break;
        }
}

static void test_small_and_large_blocks_can_be_zeroed(void **state) {
        struct fixture *fixture = *state;
        const size_t sizes[] = { 1, 64, 777, 5000, 300000 };
        unsigned char *vaddr;
        dmab_addr_t dma;

        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                assert_int_equal(dmab_alloc(fixture->device, sizes[i], 0, (void **)&vaddr, &dma), 0);
                memset(vaddr, 0x99, sizes[i]);
                assert_int_equal(dmab_free(fixture->device, vaddr), 0);
                assert_int_equal(dmab_alloc(fixture->device, sizes[i], DMAB_ZERO, (void **)&vaddr, &dma), 0);
                for (size_t at = 0; at < sizes[i]; at++)
                        assert_int_equal(vaddr[at], 0);
                assert_int_equal(dmab_free(fixture->device, vaddr), 0);
        }
}

static void test_what_can_never_be_is_refused(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma;
        void *vaddr;

        for (int warm = 0; warm < 2; warm++) {
                assert_int_equal(dmab_alloc(fixture->device, 0, 0, &vaddr, &dma), -EINVAL);
                assert_int_equal(dmab_alloc(fixture->device, SIZE_MAX, 0, &vaddr, &dma), -E2BIG);
                assert_int_equal(dmab_alloc(NULL, 64, 0, &vaddr, &dma), -EINVAL);
                assert_int_equal(dmab_alloc(fixture->device, 64, DMAB_NOWAIT | DMAB_WAIT, &vaddr, &dma), -EINVAL);
                assert_int_equal(dmab_alloc(fixture->device, 64, 0, &vaddr, &dma), 0);
                assert_int_equal(dmab_free(fixture->device, vaddr), 0);
        }
}

static void test_a_wrong_free_is_told_and_changes_nothing(void **state) {
        struct fixture *fixture = *state;
        dmab_device_t *other;
        dmab_pool_t *pool;
        dmab_addr_t dma, large_dma, coherent_dma, block_dma;
        void *small, *large, *coherent, *block;

        assert_int_equal(dmab_device_open(fixture->dmab, "other", NULL, &other), 0);
        assert_int_equal(dmab_alloc(fixture->device, 100, 0, &small, &dma), 0);
        assert_int_equal(dmab_alloc(fixture->device, MIB, 0, &large, &large_dma), 0);
        assert_int_equal(dmab_alloc_coherent(fixture->device, 4096, 0, &coherent, &coherent_dma), 0);
        assert_int_equal(dmab_pool_create("mine", fixture->device, 64, 0, 0, NULL, &pool), 0);
        assert_int_equal(dmab_pool_alloc(pool, 0, &block, &block_dma), 0);
        assert_int_equal(dmab_free(other, small), -EXDEV);
        assert_int_equal(dmab_free(other, large), -EXDEV);
        assert_int_equal(dmab_free(fixture->device, (char *)small + 64), -EFAULT);
        assert_int_equal(dmab_free(fixture->device, (char *)large + 4096), -EFAULT);
        assert_int_equal(dmab_free(fixture->device, coherent), -EFAULT);
        assert_int_equal(dmab_free(fixture->device, block), -EFAULT);
        assert_int_equal(dmab_free(fixture->device, &dma), -EFAULT);
        assert_int_equal(dmab_free(fixture->device, NULL), -EFAULT);
        assert_int_equal(dmab_free(fixture->device, small), 0);
        assert_int_equal(dmab_free(fixture->device, small), -EINVAL);
        assert_string_equal(dmab_last_reason(), "double_free");
        assert_int_equal(dmab_free(fixture->device, large), 0);
        assert_int_equal(dmab_free(fixture->device, large), -EFAULT);
        assert_int_equal(dmab_pool_destroy_force(pool), 0);
        assert_int_equal(dmab_free_coherent(fixture->device, 4096, coherent, coherent_dma), 0);
        assert_int_equal(dmab_device_close(other), 0);
}

static void test_a_device_with_such_memory_is_not_closed_and_goes_on(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma;
        void *small, *large;

        assert_int_equal(dmab_alloc(fixture->device, 200, 0, &small, &dma), 0);
        assert_int_equal(dmab_alloc(fixture->device, MIB, 0, &large, &dma), 0);
        assert_int_equal(dmab_device_close(fixture->device), -EBUSY);
        assert_int_equal(dmab_free(fixture->device, small), 0);
        /* The size classes have gone, and come again. */
        assert_int_equal(dmab_device_close(fixture->device), -EBUSY);
        assert_int_equal(dmab_alloc(fixture->device, 200, 0, &small, &dma), 0);
        assert_int_equal(dmab_free(fixture->device, small), 0);
        assert_int_equal(dmab_free(fixture->device, large), 0);
        assert_int_equal(dmab_device_close(fixture->device), 0);
}

static void test_a_narrow_boundary_is_kept(void **state) {
        struct fixture *fixture = *state;
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        dmab_device_t *narrow;
        dmab_addr_t dma;
        void *vaddr;

        options.boundary = 16 << 10;
        assert_int_equal(dmab_device_open(fixture->dmab, "narrow", &options, &narrow), 0);
        for (size_t size = 64; size <= 16 << 10; size += 64 + size / 8)
                for (int i = 0; i < 20; i++) {
                        if (dmab_alloc(narrow, size, 0, &vaddr, &dma))
                                fail_msg("%zu bytes: %s", size, dmab_last_error());
                        assert_int_equal(dma / options.boundary, (dma + size - 1) / options.boundary);
                }
        assert_true(dmab_alloc(narrow, (16 << 10) + 1, 0, &vaddr, &dma) < 0);
        assert_int_equal(dmab_device_close_force(narrow), 0);
}

static void test_a_narrower_mask_is_kept_from_then_on(void **state) {
        struct fixture *fixture = *state;
        enum { N = 64 };
        const size_t sizes[] = { 64, 1500, 64 << 10 };
        void *vaddrs[N], *before[N], *vaddr;
        dmab_addr_t dmas[N], dma;

        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
                assert_int_equal(dmab_set_mask(fixture->device, DMAB_MASK(64)), 0);
                for (size_t j = 0; j < N; j++) {
                        assert_int_equal(dmab_alloc(fixture->device, sizes[i], 0, &before[j], &dma), 0);
                        assert_true(dma > DMAB_MASK(32));
                }
                assert_int_equal(dmab_free(fixture->device, before[0]), 0); /* at hand */
                assert_int_equal(dmab_set_mask(fixture->device, DMAB_MASK(32)), 0);
                for (size_t j = 0; j < N; j++) {
                        assert_int_equal(dmab_alloc(fixture->device, sizes[i], 0, &vaddrs[j], &dmas[j]), 0);
                        assert_true(dmas[j] + sizes[i] - 1 <= DMAB_MASK(32));
                }
                /* What is above stays valid until it is freed, and does not come back. */
                for (size_t j = 1; j < N; j++)
                        assert_int_equal(dmab_free(fixture->device, before[j]), 0);
                assert_true(dmab_free(fixture->device, before[1]) < 0);
                assert_int_equal(dmab_alloc(fixture->device, sizes[i], 0, &vaddr, &dma), 0);
                assert_true(dma <= DMAB_MASK(32));
                assert_int_equal(dmab_free(fixture->device, vaddr), 0);
                for (size_t j = 0; j < N; j++)
                        assert_int_equal(dmab_free(fixture->device, vaddrs[j]), 0);
        }
        assert_int_equal(dmab_device_close(fixture->device), 0);
        assert_int_equal(usage(fixture->dmab, "bytes"), 0);
}

struct user {
        pthread_t thread;
        dmab_device_t *device;
        bool stop, narrow; /* atomic; narrow: the mask is, and stays so */
        int status;
};

/* Takes and gives, and looks at the addresses once the mask is narrow. */
static void *use_memory(void *pointer) {
        struct user *user = pointer;
        void *vaddrs[32] = { 0 };
        dmab_addr_t dma;

        for (unsigned i = 0; !user->status && !__atomic_load_n(&user->stop, __ATOMIC_RELAXED); i++) {
                void **place = &vaddrs[i * 7 % 32];
                bool narrow = __atomic_load_n(&user->narrow, __ATOMIC_ACQUIRE);

                if (*place)
                        user->status = dmab_free(user->device, *place);
                *place = NULL;
                if (!user->status && i % 3)
                        user->status = dmab_alloc(user->device, 64 + i * 31 % 5000, 0, place, &dma);
                if (*place && narrow && dma > DMAB_MASK(32))
                        user->status = -ERANGE;
        }
        for (unsigned i = 0; i < 32; i++)
                if (vaddrs[i])
                        dmab_free(user->device, vaddrs[i]);
        return NULL;
}

static void test_the_mask_may_be_narrowed_while_threads_allocate(void **state) {
        struct fixture *fixture = *state;
        struct user users[2];
        dmab_addr_t dma;
        void *vaddr;

        for (int i = 0; i < 5; i++) {
                assert_int_equal(dmab_set_mask(fixture->device, DMAB_MASK(64)), 0);
                for (int j = 0; j < 2; j++) {
                        users[j] = (struct user){ .device = fixture->device };
                        assert_int_equal(pthread_create(&users[j].thread, NULL, use_memory, &users[j]), 0);
                }
                for (int j = 0; j < 5; j++) {
                        assert_int_equal(dmab_set_mask(fixture->device, DMAB_MASK(64)), 0);
                        assert_int_equal(dmab_set_mask(fixture->device, DMAB_MASK(32)), 0);
                }
                for (int j = 0; j < 2; j++)
                        __atomic_store_n(&users[j].narrow, true, __ATOMIC_RELEASE);
                for (size_t j = 0; j < 5000; j++) {
                        assert_int_equal(dmab_alloc(fixture->device, 64 + j, 0, &vaddr, &dma), 0);
                        assert_true(dma <= DMAB_MASK(32));
                        assert_int_equal(dmab_free(fixture->device, vaddr), 0);
                }
                for (int j = 0; j < 2; j++) {
                        __atomic_store_n(&users[j].stop, true, __ATOMIC_RELAXED);
                        pthread_join(users[j].thread, NULL);
                        assert_int_equal(users[j].status, 0);
                }
        }
        assert_int_equal(dmab_device_close(fixture->device), 0);
        assert_int_equal(usage(fixture->dmab, "bytes"), 0);
}

static void test_two_devices_have_their_own_memory(void **state) {
        struct fixture *fixture = *state;
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        dmab_device_t *low;
        dmab_addr_t dma, dma_low;
        void *vaddr, *vaddr_low;

        options.mask = DMAB_MASK(32);
        assert_int_equal(dmab_device_open(fixture->dmab, "low", &options, &low), 0);
        assert_int_equal(dmab_alloc(fixture->device, 100, 0, &vaddr, &dma), 0);
        assert_int_equal(dmab_alloc(low, 100, 0, &vaddr_low, &dma_low), 0);
        assert_true(dma_low <= DMAB_MASK(32));
        assert_true(dma > DMAB_MASK(32));
        assert_int_equal(dmab_free(low, vaddr_low), 0);
        assert_int_equal(dmab_free(fixture->device, vaddr), 0);
        assert_int_equal(dmab_device_close(low), 0);
}

static void test_debug_works_with_every_size(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma;
        void *vaddr;

        setenv("DMAB_DEBUG", "1", 1);
        for (size_t size = 1; size <= MIB; size += 1 + size / 3) {
                assert_int_equal(dmab_alloc(fixture->device, size, 0, &vaddr, &dma), 0);
                assert_int_equal(dma % LINE, 0);
                memset(vaddr, 1, size);
                assert_int_equal(dmab_free(fixture->device, vaddr), 0);
        }
        unsetenv("DMAB_DEBUG");
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(every_size_can_be_had_and_no_two_share_a_cache_line),
                TEST(a_size_class_wastes_at_most_a_fifth),
                TEST(small_and_large_blocks_can_be_zeroed),
                TEST(what_can_never_be_is_refused),
                TEST(a_wrong_free_is_told_and_changes_nothing),
                TEST(a_device_with_such_memory_is_not_closed_and_goes_on),
                TEST(a_narrow_boundary_is_kept),
                TEST(a_narrower_mask_is_kept_from_then_on),
                TEST(the_mask_may_be_narrowed_while_threads_allocate),
                TEST(two_devices_have_their_own_memory),
                TEST(debug_works_with_every_size),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
