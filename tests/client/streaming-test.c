/* Streaming mappings against a real daemon on simulated memory, with a device that is played by the test. */
#include <dmabroker.h>
#include <errno.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/client/fake-device.h"
#include "tests/lib/daemon.h"

enum { KIB = 1024, PAGE = 4096, MIB = 1 << 20, SLOT = 2048 };

struct fixture {
        struct test_daemon *daemon;
        char uri[256];
        dmab_t *dmab;
        dmab_device_t *device; /* 64 bits, nothing special */
        struct fake_device *fake;
        char *buf; /* 4 MiB of the test's own */
        size_t n_mapped;
};

static dmab_device_t *open_device(struct fixture *fixture, const char *name, const struct dmab_device_options *options) {
        dmab_device_t *device;

        if (dmab_device_open(fixture->dmab, name, options, &device))
                fail_msg("%s", dmab_last_error());
        return device;
}

static int set_up(void **state) {
        struct fixture *fixture = calloc(1, sizeof(*fixture));

        unsetenv("DMAB_DEBUG");
        if (!fixture || test_daemon_start(NULL, &fixture->daemon))
                return -1;
        snprintf(fixture->uri, sizeof(fixture->uri), "unix:%s", test_daemon_socket(fixture->daemon));
        if (dmab_connect(fixture->uri, &fixture->dmab))
                return -1;
        fixture->device = open_device(fixture, "card", NULL);
        fixture->fake = fake_device_new(fixture->dmab);
        fixture->buf = aligned_alloc(PAGE, 4 * MIB);
        memset(fixture->buf, 0x11, 4 * MIB);
        *state = fixture;
        return 0;
}

/* As with DMAB_DEBUG: it is looked at when a device is opened. */
static int set_up_debug(void **state) {
        struct fixture *fixture;

        if (set_up(state))
                return -1;
        fixture = *state;
        setenv("DMAB_DEBUG", "1", 1);
        if (dmab_device_close(fixture->device))
                return -1;
        fixture->device = open_device(fixture, "card", NULL);
        unsetenv("DMAB_DEBUG");
        return 0;
}

static int tear_down(void **state) {
        struct fixture *fixture = *state;
        int r;

        fake_device_free(fixture->fake);
        dmab_disconnect(fixture->dmab);
        r = test_daemon_end(fixture->daemon);
        free(fixture->buf);
        free(fixture);
        return r;
}

static void expect(int r, int expected, const char *reason, const char *part) {
        assert_int_equal(r, expected);
        assert_non_null(dmab_last_reason());
        assert_string_equal(dmab_last_reason(), reason);
        if (part && !strstr(dmab_last_error(), part))
                fail_msg("no \"%s\" in: %s", part, dmab_last_error());
}

static dmab_addr_t map(dmab_device_t *device, void *buf, size_t size, enum dmab_direction direction) {
        dmab_addr_t dma;

        if (dmab_map_single(device, buf, size, direction, &dma))
                fail_msg("%s", dmab_last_error());
        return dma;
}

static void unmap(dmab_device_t *device, dmab_addr_t dma, size_t size, enum dmab_direction direction) {
        if (dmab_unmap_single(device, dma, size, direction))
                fail_msg("%s", dmab_last_error());
}

static struct dmab_bounce_info info_of(dmab_device_t *device) {
        struct dmab_bounce_info info = DMAB_BOUNCE_INFO_INIT;

        assert_int_equal(dmab_bounce_info(device, &info), 0);
        return info;
}

static void *alloc(dmab_device_t *device, size_t size, dmab_addr_t *ret_dma) {
        void *vaddr;

        if (dmab_alloc_coherent(device, size, DMAB_ZERO, &vaddr, ret_dma))
                fail_msg("%s", dmab_last_error());
        return vaddr;
}

/* ---- in place or bounced ---- */

static void test_what_the_device_reaches_is_mapped_in_place(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t start, dma;
        char *vaddr = alloc(fixture->device, 4 * PAGE, &start);

        dma = map(fixture->device, vaddr + 100, 2 * PAGE, DMAB_BIDIRECTIONAL);
        assert_int_equal(dma, start + 100);
        assert_int_equal(info_of(fixture->device).mapped_in_place, 1);
        assert_int_equal(info_of(fixture->device).slots, 0);
        *(char *)fake_device_at(fixture->fake, dma, 1) = 77;
        assert_int_equal(dmab_sync_single_for_cpu(fixture->device, dma, 2 * PAGE, DMAB_BIDIRECTIONAL), 0);
        assert_int_equal(vaddr[100], 77);
        unmap(fixture->device, dma, 2 * PAGE, DMAB_BIDIRECTIONAL);
}

static void test_a_buffer_that_reaches_beyond_its_memory_is_bounced(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t start, dma;
        char *vaddr = alloc(fixture->device, PAGE, &start);

        dmab_addr_t second;
        char *other = alloc(fixture->device, PAGE, &second), *first = other < vaddr ? other : vaddr;

        if (labs(other - vaddr) != PAGE)
                skip();
        dma = map(fixture->device, first + PAGE - 10, 20, DMAB_TO_DEVICE);
        assert_int_equal(info_of(fixture->device).bounced, 1);
        unmap(fixture->device, dma, 20, DMAB_TO_DEVICE);
}

static void test_blocks_are_mapped_in_place_wherever_leases_begin(void **state) {
        struct fixture *fixture = *state;
        static void *vaddrs[2000];
        static dmab_addr_t dmas[2000];
        dmab_pool_t *pool;

        assert_int_equal(dmab_pool_create("odd", fixture->device, 3000, 0, 0, NULL, &pool), 0);
        for (size_t i = 0; i < 2000; i++)
                assert_int_equal(dmab_pool_alloc(pool, 0, &vaddrs[i], &dmas[i]), 0);
        for (size_t i = 0; i < 2000; i++) {
                assert_int_equal(map(fixture->device, vaddrs[i], 3000, DMAB_BIDIRECTIONAL), dmas[i]);
                assert_int_equal(dmab_sync_single_for_cpu(fixture->device, dmas[i], 3000, DMAB_BIDIRECTIONAL), 0);
                unmap(fixture->device, dmas[i], 3000, DMAB_BIDIRECTIONAL);
        }
        assert_int_equal(info_of(fixture->device).bounced, 0);
        assert_int_equal(dmab_pool_destroy_force(pool), 0);
}

static uint64_t now_ns(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* For each of n regions; of some rounds the fastest. */
static uint64_t unmap_ns(struct fixture *fixture, char **vaddrs, size_t n) {
        uint64_t least = UINT64_MAX, start, took;
        dmab_addr_t dmas[64];

        for (unsigned round = 0; round < 10; round++) {
                for (size_t i = 0; i < n; i++)
                        dmas[i] = map(fixture->device, vaddrs[i], 100, DMAB_TO_DEVICE);
                start = now_ns();
                for (size_t i = 0; i < n; i++)
                        unmap(fixture->device, dmas[i], 100, DMAB_TO_DEVICE);
                took = (now_ns() - start) / n;
                least = took < least ? took : least;
        }
        return least;
}

static void test_unmapping_in_place_takes_no_longer_where_there_is_much(void **state) {
        struct fixture *fixture = *state;
        char *vaddrs[64];
        dmab_addr_t dma;

        for (size_t i = 0; i < 64; i++)
                vaddrs[i] = alloc(fixture->device, 2 * MIB, &dma);
        assert_true(unmap_ns(fixture, vaddrs, 64) < 30 * (unmap_ns(fixture, vaddrs, 4) + 10));
}

static void test_another_devices_memory_is_bounced(void **state) {
        struct fixture *fixture = *state;
        dmab_device_t *other = open_device(fixture, "other", NULL);
        dmab_addr_t start, dma;
        char *vaddr = alloc(other, PAGE, &start);

        memset(vaddr, 5, PAGE);
        dma = map(fixture->device, vaddr, PAGE, DMAB_TO_DEVICE);
        assert_int_not_equal(dma, start);
        assert_memory_equal(fake_device_at(fixture->fake, dma, PAGE), vaddr, PAGE);
        unmap(fixture->device, dma, PAGE, DMAB_TO_DEVICE);
}

static void test_what_is_above_the_mask_is_bounced_below_it(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t start, dma;
        char *vaddr = alloc(fixture->device, PAGE, &start);

        assert_true(start > DMAB_MASK(32));
        dma = map(fixture->device, fixture->buf, PAGE, DMAB_TO_DEVICE);
        assert_int_equal(dmab_set_mask(fixture->device, DMAB_MASK(32)), 0);
        unmap(fixture->device, dma, PAGE, DMAB_TO_DEVICE); /* from before */
        dma = map(fixture->device, vaddr, PAGE, DMAB_TO_DEVICE);
        assert_true(dma + PAGE - 1 <= DMAB_MASK(32));
        unmap(fixture->device, dma, PAGE, DMAB_TO_DEVICE);
}

static void test_what_crosses_the_boundary_is_bounced_within_it(void **state) {
        struct fixture *fixture = *state;
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        dmab_addr_t dmas[100];
        dmab_device_t *device;

        options.boundary = 8 * KIB;
        device = open_device(fixture, "narrow", &options);
        for (size_t i = 0; i < 100; i++) {
                dmas[i] = map(device, fixture->buf + i * 7 * KIB, 7 * KIB, DMAB_TO_DEVICE);
                assert_int_equal(dmas[i] / (8 * KIB), (dmas[i] + 7 * KIB - 1) / (8 * KIB));
        }
        for (size_t i = 0; i < 100; i++)
                unmap(device, dmas[i], 7 * KIB, DMAB_TO_DEVICE);
        dmas[0] = 1;
        expect(dmab_map_single(device, fixture->buf, 8 * KIB + 1, DMAB_TO_DEVICE, dmas), -E2BIG, "limit", "narrow");
        assert_int_equal(dmas[0], DMAB_ADDR_NONE);
        assert_int_equal(dmab_device_close(device), 0);
}

static void test_the_longest_within_the_boundary_finds_room_in_any_pool(void **state) {
        struct fixture *fixture = *state;
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;

        options.boundary = MIB;
        for (size_t size = MIB; size <= 3 * MIB; size += 256 * KIB) {
                dmab_device_t *device = open_device(fixture, "narrow", &options);

                assert_int_equal(dmab_set_bounce(device, size, 2 * size, 0), 0);
                unmap(device, map(device, fixture->buf, MIB, DMAB_TO_DEVICE), MIB, DMAB_TO_DEVICE);
                for (size_t i = 1; i < 20; i++)
                        unmap(device, map(device, fixture->buf, i * 50 * KIB, DMAB_TO_DEVICE), i * 50 * KIB, DMAB_TO_DEVICE);
                assert_int_equal(dmab_device_close(device), 0);
        }
}

static void test_low_bits_of_the_address_survive(void **state) {
        struct fixture *fixture = *state;
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        dmab_device_t *device;

        options.min_align_mask = 0xfff;
        device = open_device(fixture, "nvme", &options);
        for (size_t i = 0; i < PAGE; i += 511) {
                char *buf = fixture->buf + i;
                dmab_addr_t dma = map(device, buf, 5000, DMAB_BIDIRECTIONAL);

                assert_int_equal(dma & 0xfff, (uintptr_t)buf & 0xfff);
                assert_memory_equal(fake_device_at(fixture->fake, dma, 5000), buf, 5000);
                memset(fake_device_at(fixture->fake, dma, 5000), (int)i, 5000);
                unmap(device, dma, 5000, DMAB_BIDIRECTIONAL);
                assert_int_equal(buf[4999], (char)i);
        }
        assert_int_equal(info_of(device).slot_size, PAGE);
        assert_int_equal(dmab_device_close(device), 0);
}

static void test_low_bits_survive_in_memory_that_the_device_could_reach_too(void **state) {
        struct fixture *fixture = *state;
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        dmab_addr_t start, dma;

        /* Regions begin wherever the one before ends. */
        for (size_t i = 0; i < 30; i++) {
                dmab_device_t *device;
                char *vaddr;

                options.min_align_mask = ((uint64_t)PAGE << i % 6) - 1;
                device = open_device(fixture, "coarse", &options);
                vaddr = alloc(device, 20 * PAGE, &start);
                dma = map(device, vaddr + 100, PAGE, DMAB_TO_DEVICE);
                assert_int_equal(dma & options.min_align_mask, (uintptr_t)(vaddr + 100) & options.min_align_mask);
                unmap(device, dma, PAGE, DMAB_TO_DEVICE);
        }
}

static void test_slots_that_are_larger_for_low_bits_are_counted_as_such(void **state) {
        struct fixture *fixture = *state;
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        dmab_device_t *device;
        dmab_addr_t dma;

        options.min_align_mask = 0xfff;
        device = open_device(fixture, "nvme", &options);
        assert_int_equal(dmab_set_bounce(device, MIB, 4 * MIB, 0), 0);
        dma = map(device, fixture->buf, 3 * MIB, DMAB_TO_DEVICE);
        assert_int_equal(info_of(device).used, 3 * MIB / PAGE);
        unmap(device, dma, 3 * MIB, DMAB_TO_DEVICE);
        assert_int_equal(dmab_device_close(device), 0);
}

static void test_low_bits_survive_that_need_slots_as_large_as_all_to_begin_with(void **state) {
        struct fixture *fixture = *state;
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        dmab_device_t *device;
        dmab_addr_t dma;

        options.min_align_mask = 2 * MIB - 1;
        device = open_device(fixture, "coarse", &options);
        dma = map(device, fixture->buf + 5, 100, DMAB_TO_DEVICE);
        assert_int_equal(dma & options.min_align_mask, (uintptr_t)(fixture->buf + 5) & options.min_align_mask);
        unmap(device, dma, 100, DMAB_TO_DEVICE);
        assert_int_equal(dmab_device_close(device), 0);
}

static void test_there_is_no_limit_of_256_kib(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma = map(fixture->device, fixture->buf, 3 * MIB + 1, DMAB_TO_DEVICE);

        assert_memory_equal(fake_device_at(fixture->fake, dma, 3 * MIB + 1), fixture->buf, 3 * MIB + 1);
        unmap(fixture->device, dma, 3 * MIB + 1, DMAB_TO_DEVICE);
}

/* ---- copying ---- */

static void test_data_goes_to_the_device_at_map_and_does_not_come_back(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma = map(fixture->device, fixture->buf + 3, 5000, DMAB_TO_DEVICE);
        unsigned char *device = fake_device_at(fixture->fake, dma, 5000);

        assert_memory_equal(device, fixture->buf + 3, 5000);
        memset(device, 0x22, 5000);
        unmap(fixture->device, dma, 5000, DMAB_TO_DEVICE);
        assert_int_equal(fixture->buf[3], 0x11);
}

static void test_data_comes_from_the_device_at_unmap(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma = map(fixture->device, fixture->buf, 5000, DMAB_FROM_DEVICE);

        memset(fake_device_at(fixture->fake, dma, 5000), 0x22, 5000);
        assert_int_equal(fixture->buf[0], 0x11);
        unmap(fixture->device, dma, 5000, DMAB_FROM_DEVICE);
        for (size_t i = 0; i < 5000; i++)
                assert_int_equal(fixture->buf[i], 0x22);
        assert_int_equal(fixture->buf[5000], 0x11);
}

static void test_what_the_device_does_not_write_comes_back_as_it_was(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma = map(fixture->device, fixture->buf + MIB, 5000, DMAB_TO_DEVICE);

        memset(fake_device_at(fixture->fake, dma, 5000), 0x55, 5000); /* what another mapping leaves in the slots */
        unmap(fixture->device, dma, 5000, DMAB_TO_DEVICE);
        dma = map(fixture->device, fixture->buf, 5000, DMAB_FROM_DEVICE);
        memset((char *)fake_device_at(fixture->fake, dma, 5000) + 100, 0x22, 50);
        unmap(fixture->device, dma, 5000, DMAB_FROM_DEVICE);
        for (size_t i = 0; i < 5000; i++)
                assert_int_equal(fixture->buf[i], i >= 100 && i < 150 ? 0x22 : 0x11);
}

static void test_a_part_is_synced_and_nothing_else(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma = map(fixture->device, fixture->buf, 10000, DMAB_BIDIRECTIONAL);
        unsigned char *device = fake_device_at(fixture->fake, dma, 10000);

        memset(device, 0x22, 10000);
        assert_int_equal(dmab_sync_single_for_cpu(fixture->device, dma + 3000, 2000, DMAB_BIDIRECTIONAL), 0);
        for (size_t i = 0; i < 10000; i++)
                assert_int_equal(fixture->buf[i], i >= 3000 && i < 5000 ? 0x22 : 0x11);
        memset(fixture->buf, 0x33, 10000);
        assert_int_equal(dmab_sync_single_for_device(fixture->device, dma + 9999, 1, DMAB_BIDIRECTIONAL), 0);
        for (size_t i = 0; i < 10000; i++)
                assert_int_equal(device[i], i == 9999 ? 0x33 : 0x22);
        unmap(fixture->device, dma, 10000, DMAB_BIDIRECTIONAL);
}

/* ---- the fast path ---- */

/* gcc has no such thing. */
#ifndef __has_feature
#define __has_feature(feature) 0
#endif

/* Only read(), write() and the end of the thread are possible in it: any other system call is the end of the test. */
static void *map_without_calls(void *pointer) {
        struct fixture *fixture = pointer;
        dmab_addr_t start, dma;
        bool fine = true;
        void *vaddr = alloc(fixture->device, PAGE, &start);

        unmap(fixture->device, map(fixture->device, fixture->buf, 5000, DMAB_TO_DEVICE), 5000, DMAB_TO_DEVICE);
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT))
                syscall(SYS_exit, 0);
        for (size_t i = 0; i < 3000; i++) {
                void *buf = i % 3 ? fixture->buf + i : vaddr;

                fine = fine && !dmab_map_single(fixture->device, buf, 4000, i % 3, &dma);
                fine = fine && (i % 3 == DMAB_TO_DEVICE || !dmab_sync_single_for_cpu(fixture->device, dma, 10, i % 3));
                fine = fine && !dmab_unmap_single(fixture->device, dma, 4000, i % 3);
        }
        fixture->n_mapped = fine ? 3000 : 1;
        syscall(SYS_exit, 0);
        return NULL;
}

static void test_mapping_makes_no_system_call(void **state) {
        struct fixture *fixture = *state;
        pthread_t thread;

#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer) || defined(__SANITIZE_THREAD__) || \
        defined(__SANITIZE_ADDRESS__)
        print_message("sanitizers make calls of their own\n");
        skip();
#endif
        assert_int_equal(pthread_create(&thread, NULL, map_without_calls, fixture), 0);
        pthread_join(thread, NULL);
        if (!fixture->n_mapped)
                skip();
        assert_int_equal(fixture->n_mapped, 3000);
}

/* ---- refused maps ---- */

static void test_what_cannot_be_mapped_is_refused_by_name(void **state) {
        struct fixture *fixture = *state;
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        dmab_device_t *device = fixture->device;
        dmab_addr_t dma = 1;

        expect(dmab_map_single(device, NULL, 10, DMAB_TO_DEVICE, &dma), -EINVAL, "bad_param", "card");
        assert_int_equal(dma, DMAB_ADDR_NONE);
        expect(dmab_map_single(device, fixture->buf, 0, DMAB_TO_DEVICE, &dma), -EINVAL, "bad_param", "card");
        expect(dmab_map_single(device, fixture->buf, SIZE_MAX, DMAB_TO_DEVICE, &dma), -EINVAL, "bad_param", "card");
        expect(dmab_map_single(device, fixture->buf, 10, 3, &dma), -EINVAL, "bad_param", "direction");
        expect(dmab_map_single(device, fixture->buf, 10, -1, &dma), -EINVAL, "bad_param", "direction");
        expect(dmab_map_single(device, fixture->buf, (size_t)1 << 40, DMAB_TO_DEVICE, &dma), -E2BIG, "limit", "card");
        options.max_segment = 64 * KIB;
        device = open_device(fixture, "short", &options);
        expect(dmab_map_single(device, fixture->buf, 64 * KIB + 1, DMAB_TO_DEVICE, &dma), -E2BIG, "limit", "short");
        unmap(device, map(device, fixture->buf, 64 * KIB, DMAB_TO_DEVICE), 64 * KIB, DMAB_TO_DEVICE);
        assert_int_equal(dmab_device_close(device), 0);
}

static void test_full_slots_are_told_with_numbers_and_what_can_never_fit_too(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dmas[64], dma;

        assert_int_equal(dmab_set_bounce(fixture->device, 128 * KIB, 128 * KIB, 0), 0);
        for (size_t i = 0; i < 64; i++)
                dmas[i] = map(fixture->device, fixture->buf, SLOT, DMAB_TO_DEVICE);
        expect(dmab_map_single(fixture->device, fixture->buf, 3 * SLOT, DMAB_TO_DEVICE, &dma), -ENOMEM, "no_memory",
               "a run of 3 was asked for, 64 of 64 are in use, and the longest free run has 0");
        assert_int_equal(dma, DMAB_ADDR_NONE);
        for (size_t i = 0; i < 64; i += 2)
                unmap(fixture->device, dmas[i], SLOT, DMAB_TO_DEVICE);
        expect(dmab_map_single(fixture->device, fixture->buf, 3 * SLOT, DMAB_TO_DEVICE, &dma), -ENOMEM, "no_contiguous",
               "32 of 64 are in use, and the longest free run has 1");
        expect(dmab_map_single(fixture->device, fixture->buf, 65 * SLOT, DMAB_TO_DEVICE, &dma), -E2BIG, "limit", "64");
        assert_int_equal(info_of(fixture->device).fulls, 2);
        assert_int_equal(info_of(fixture->device).used, 32);
        for (size_t i = 1; i < 64; i += 2)
                unmap(fixture->device, dmas[i], SLOT, DMAB_TO_DEVICE);
        /* Areas of CPUs that are too short give way to one that is not. */
        dma = map(fixture->device, fixture->buf, 64 * SLOT, DMAB_TO_DEVICE);
        unmap(fixture->device, dma, 64 * SLOT, DMAB_TO_DEVICE);
}

static void test_slots_grow_up_to_their_limit(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dmas[64], dma;
        size_t n = 0;

        assert_int_equal(dmab_set_bounce(fixture->device, 256 * KIB, 2 * MIB, 4096), 0);
        while (n < 64 && !dmab_map_single(fixture->device, fixture->buf + n * 64 * KIB, 64 * KIB, DMAB_TO_DEVICE, &dmas[n]))
                n++;
        assert_int_equal(n, 32);
        assert_int_equal(info_of(fixture->device).slots, 2 * MIB / 4096);
        assert_int_equal(info_of(fixture->device).slot_size, 4096);
        expect(dmab_map_single(fixture->device, fixture->buf, 1, DMAB_TO_DEVICE, &dma), -ENOMEM, "no_memory", "512 of 512");
        while (n--)
                unmap(fixture->device, dmas[n], 64 * KIB, DMAB_TO_DEVICE);
        assert_int_equal(info_of(fixture->device).used, 0);
}

static void test_sizes_of_bounce_memory_are_checked_and_chosen_before_it_is_used(void **state) {
        struct fixture *fixture = *state;
        dmab_device_t *device = fixture->device;
        dmab_addr_t dma;

        expect(dmab_set_bounce(device, 2 * MIB, MIB, 0), -EINVAL, "bad_param", "card");
        expect(dmab_set_bounce(device, 0, 0, 3000), -EINVAL, "bad_param", "3000");
        expect(dmab_set_bounce(device, 0, 0, 32), -EINVAL, "bad_param", "32");
        expect(dmab_set_bounce(device, SIZE_MAX, 0, 0), -E2BIG, "limit", "card");
        dma = map(device, fixture->buf, 1, DMAB_TO_DEVICE);
        expect(dmab_set_bounce(device, MIB, 0, 0), -EBUSY, "busy", "card");
        unmap(device, dma, 1, DMAB_TO_DEVICE);
}

/* ---- refused unmaps and syncs ---- */

static void test_an_unmap_that_does_not_fit_changes_nothing(void **state) {
        struct fixture *fixture = *state;
        dmab_device_t *device = fixture->device, *other = open_device(fixture, "other", NULL);
        dmab_addr_t dma = map(device, fixture->buf, 5000, DMAB_FROM_DEVICE);
        char address[32];

        snprintf(address, sizeof(address), "0x%llx", (unsigned long long)dma);
        expect(dmab_unmap_single(device, dma, 5001, DMAB_FROM_DEVICE), -EINVAL, "wrong_size", address);
        expect(dmab_unmap_single(device, dma, 0, DMAB_FROM_DEVICE), -EINVAL, "wrong_size", "card");
        expect(dmab_unmap_single(device, dma, 5000, DMAB_TO_DEVICE), -EINVAL, "wrong_direction", address);
        expect(dmab_unmap_single(device, dma + 1, 5000, DMAB_FROM_DEVICE), -EFAULT, "bad_address", address);
        expect(dmab_unmap_single(device, dma + SLOT, 5000, DMAB_FROM_DEVICE), -EFAULT, "bad_address", address);
        expect(dmab_unmap_single(device, dma + 64 * KIB, 5000, DMAB_FROM_DEVICE), -EFAULT, "bad_address", "card");
        expect(dmab_unmap_single(device, 0x1234, 5000, DMAB_FROM_DEVICE), -EFAULT, "bad_address", "0x1234");
        expect(dmab_unmap_single(device, DMAB_ADDR_NONE, 5000, DMAB_FROM_DEVICE), -EFAULT, "bad_address", "card");
        expect(dmab_unmap_single(device, DMAB_ADDR_NONE - 1, 5000, DMAB_FROM_DEVICE), -EFAULT, "bad_address", "card");
        expect(dmab_unmap_single(other, dma, 5000, DMAB_FROM_DEVICE), -EXDEV, "wrong_device", "card");
        assert_non_null(strstr(dmab_last_error(), "other"));
        unmap(device, dma, 5000, DMAB_FROM_DEVICE);
        expect(dmab_unmap_single(device, dma, 5000, DMAB_FROM_DEVICE), -EFAULT, "bad_address", address);
}

static void test_a_sync_that_does_not_fit_is_refused(void **state) {
        struct fixture *fixture = *state;
        dmab_device_t *device = fixture->device;
        dmab_addr_t to = map(device, fixture->buf, 5000, DMAB_TO_DEVICE);
        dmab_addr_t from = map(device, fixture->buf + MIB, 5000, DMAB_FROM_DEVICE);
        dmab_addr_t both = map(device, fixture->buf + 2 * MIB, 5000, DMAB_BIDIRECTIONAL);

        expect(dmab_sync_single_for_cpu(device, to, 5000, DMAB_TO_DEVICE), -EINVAL, "wrong_direction", "card");
        expect(dmab_sync_single_for_device(device, from, 5000, DMAB_FROM_DEVICE), -EINVAL, "wrong_direction", "card");
        expect(dmab_sync_single_for_device(device, to, 5000, DMAB_BIDIRECTIONAL), -EINVAL, "wrong_direction", "card");
        assert_int_equal(dmab_sync_single_for_device(device, to, 5000, DMAB_TO_DEVICE), 0);
        assert_int_equal(dmab_sync_single_for_cpu(device, from, 5000, DMAB_FROM_DEVICE), 0);
        for (int direction = 0; direction < 3; direction++) {
                assert_int_equal(dmab_sync_single_for_cpu(device, both, 5000, direction), 0);
                assert_int_equal(dmab_sync_single_for_device(device, both, 5000, direction), 0);
        }
        expect(dmab_sync_single_for_device(device, to + 1, 5000, DMAB_TO_DEVICE), -EFAULT, "bad_address", "card");
        expect(dmab_sync_single_for_device(device, to + 5000, 1, DMAB_TO_DEVICE), -EFAULT, "bad_address", "card");
        expect(dmab_sync_single_for_device(device, to, 0, DMAB_TO_DEVICE), -EINVAL, "wrong_size", "card");
        expect(dmab_sync_single_for_device(device, 0x1000, 1, DMAB_TO_DEVICE), -EFAULT, "bad_address", "card");
        unmap(device, to, 5000, DMAB_TO_DEVICE);
        expect(dmab_sync_single_for_device(device, to, 5000, DMAB_TO_DEVICE), -EFAULT, "bad_address", "card");
        unmap(device, from, 5000, DMAB_FROM_DEVICE);
        unmap(device, both, 5000, DMAB_BIDIRECTIONAL);
}

static void test_in_place_only_the_devices_own_memory_can_be_unmapped(void **state) {
        struct fixture *fixture = *state;
        dmab_device_t *other = open_device(fixture, "other", NULL);
        dmab_addr_t start;

        alloc(fixture->device, PAGE, &start);
        expect(dmab_unmap_single(other, start, 10, DMAB_TO_DEVICE), -EXDEV, "wrong_device", "card");
        expect(dmab_unmap_single(fixture->device, start, 2 * PAGE, DMAB_TO_DEVICE), -EFAULT, "bad_address", "card");
        expect(dmab_sync_single_for_cpu(other, start, 10, DMAB_FROM_DEVICE), -EXDEV, "wrong_device", "card");
        unmap(fixture->device, start, 10, DMAB_TO_DEVICE); /* what is mapped in place leaves no record */
}

/* ---- lists ---- */

static void test_neighbours_are_merged_and_found_again(void **state) {
        struct fixture *fixture = *state;
        dmab_device_t *device = fixture->device;
        dmab_addr_t start;
        char *vaddr = alloc(device, 16 * PAGE, &start);
        struct dmab_sg sg[5] = { { vaddr, PAGE, 0, 0 }, { vaddr + PAGE, 100, 0, 0 }, { fixture->buf, 5000, 0, 0 },
                                 { vaddr + 4 * PAGE, PAGE, 0, 0 }, { vaddr + 5 * PAGE, PAGE, 0, 0 } };
        size_t n = 0;

        assert_int_equal(dmab_map_sg(device, sg, 5, DMAB_FROM_DEVICE, &n), 0);
        assert_int_equal(n, 3);
        assert_int_equal(sg[0].dma_addr, start);
        assert_int_equal(sg[0].dma_size, PAGE + 100);
        assert_int_equal(sg[1].dma_size, 5000);
        assert_int_equal(sg[2].dma_addr, start + 4 * PAGE);
        assert_int_equal(sg[2].dma_size, 2 * PAGE);
        memset(fake_device_at(fixture->fake, sg[1].dma_addr, 5000), 0x44, 5000);
        assert_int_equal(dmab_sync_sg_for_cpu(device, sg, 5, DMAB_FROM_DEVICE), 0);
        assert_int_equal(fixture->buf[4999], 0x44);
        expect(dmab_sync_sg_for_device(device, sg, 5, DMAB_FROM_DEVICE), -EINVAL, "wrong_direction", "card");
        expect(dmab_unmap_sg(device, sg, 3, DMAB_FROM_DEVICE), -EINVAL, "wrong_size", "card");
        expect(dmab_unmap_sg(device, sg, 5, DMAB_TO_DEVICE), -EINVAL, "wrong_direction", "card");
        expect(dmab_unmap_single(device, sg[1].dma_addr, 5000, DMAB_FROM_DEVICE), -EINVAL, "bad_param", "dmab_map_sg");
        memset(fake_device_at(fixture->fake, sg[1].dma_addr, 5000), 0x66, 5000);
        assert_int_equal(dmab_unmap_sg(device, sg, 5, DMAB_FROM_DEVICE), 0);
        assert_int_equal(fixture->buf[0], 0x66);
        assert_true(dmab_unmap_sg(device, sg, 5, DMAB_FROM_DEVICE) < 0);
}

static void test_merging_keeps_segment_and_boundary(void **state) {
        struct fixture *fixture = *state;
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        struct dmab_sg sg[16];
        dmab_device_t *device;
        dmab_addr_t start;
        size_t n, sum = 0;
        char *vaddr;

        options.max_segment = 3 * PAGE;
        options.boundary = 16 * PAGE;
        device = open_device(fixture, "narrow", &options);
        assert_int_equal(dmab_map_single(device, fixture->buf, 10, DMAB_TO_DEVICE, &start), 0);
        unmap(device, start, 10, DMAB_TO_DEVICE);
        vaddr = alloc(device, 2 * PAGE, &start);
        for (size_t i = 0; i < 16; i++)
                sg[i] = (struct dmab_sg){ .addr = vaddr + i * PAGE / 8, .size = PAGE / 8 };
        assert_int_equal(dmab_map_sg(device, sg, 16, DMAB_TO_DEVICE, &n), 0);
        assert_true(n <= 2);
        assert_int_equal(dmab_unmap_sg(device, sg, 16, DMAB_TO_DEVICE), 0);
        for (size_t i = 0; i < 16; i++)
                sg[i] = (struct dmab_sg){ .addr = fixture->buf + i * PAGE, .size = PAGE };
        assert_int_equal(dmab_map_sg(device, sg, 16, DMAB_TO_DEVICE, &n), 0);
        assert_in_range(n, 6, 16);
        for (size_t i = 0; i < n; i++) {
                assert_true(sg[i].dma_size <= 3 * PAGE);
                assert_int_equal(sg[i].dma_addr / (16 * PAGE), (sg[i].dma_addr + sg[i].dma_size - 1) / (16 * PAGE));
                sum += sg[i].dma_size;
        }
        assert_int_equal(sum, 16 * PAGE);
        assert_int_equal(dmab_unmap_sg(device, sg, 16, DMAB_TO_DEVICE), 0);
        assert_int_equal(dmab_device_close_force(device), 0);
}

static void test_a_list_is_mapped_wholly_or_not_at_all(void **state) {
        struct fixture *fixture = *state;
        struct dmab_sg sg[40];
        size_t n = 77;

        assert_int_equal(dmab_set_bounce(fixture->device, 64 * KIB, 64 * KIB, 0), 0);
        for (size_t i = 0; i < 40; i++)
                sg[i] = (struct dmab_sg){ .addr = fixture->buf + i * SLOT, .size = SLOT };
        expect(dmab_map_sg(fixture->device, sg, 40, DMAB_TO_DEVICE, &n), -ENOMEM, "no_memory", "32 of 32");
        assert_int_equal(n, 77);
        assert_int_equal(info_of(fixture->device).used, 0);
        assert_int_equal(dmab_map_sg(fixture->device, sg, 32, DMAB_TO_DEVICE, &n), 0);
        expect(dmab_unmap_sg(fixture->device, sg, 31, DMAB_TO_DEVICE), -EINVAL, "wrong_size", "card");
        assert_int_equal(dmab_unmap_sg(fixture->device, sg, 32, DMAB_TO_DEVICE), 0);
        assert_int_equal(info_of(fixture->device).used, 0);
}

/* What the device has written to meanwhile would be lost otherwise. */
static void test_a_list_that_cannot_be_mapped_writes_to_no_piece(void **state) {
        struct fixture *fixture = *state;
        struct dmab_sg sg[40];
        size_t n;

        assert_int_equal(dmab_set_bounce(fixture->device, 64 * KIB, 64 * KIB, 0), 0);
        for (size_t i = 0; i < 40; i++)
                sg[i] = (struct dmab_sg){ .addr = fixture->buf + i * SLOT, .size = SLOT };
        assert_int_equal(mprotect(fixture->buf, 40 * SLOT, PROT_READ), 0);
        expect(dmab_map_sg(fixture->device, sg, 40, DMAB_FROM_DEVICE, &n), -ENOMEM, "no_memory", "32 of 32");
        assert_int_equal(mprotect(fixture->buf, 40 * SLOT, PROT_READ | PROT_WRITE), 0);
        assert_int_equal(info_of(fixture->device).used, 0);
}

static void test_lists_that_are_none_are_refused(void **state) {
        struct fixture *fixture = *state;
        struct dmab_sg sg[2] = { { fixture->buf, 10, 0, 0 }, { fixture->buf + 10, 0, 0, 0 } };
        size_t n = 77;

        expect(dmab_map_sg(fixture->device, sg, 0, DMAB_TO_DEVICE, &n), -EINVAL, "bad_param", "card");
        expect(dmab_map_sg(fixture->device, NULL, 2, DMAB_TO_DEVICE, &n), -EINVAL, "bad_param", "card");
        expect(dmab_map_sg(fixture->device, sg, 2, DMAB_TO_DEVICE, &n), -EINVAL, "bad_param", "0 bytes");
        sg[1].size = SIZE_MAX;
        expect(dmab_map_sg(fixture->device, sg, 2, DMAB_TO_DEVICE, &n), -EINVAL, "bad_param", "card");
        sg[1] = (struct dmab_sg){ NULL, 1, 0, 0 };
        expect(dmab_map_sg(fixture->device, sg, 2, DMAB_TO_DEVICE, &n), -EINVAL, "bad_param", "NULL");
        expect(dmab_map_sg(fixture->device, sg, 1, 9, &n), -EINVAL, "bad_param", "direction");
        expect(dmab_unmap_sg(fixture->device, sg, 0, DMAB_TO_DEVICE), -EINVAL, "bad_param", "card");
        assert_int_equal(n, 77);
        assert_int_equal(info_of(fixture->device).used, 0);
}

/* ---- closing ---- */

static void test_a_device_with_mappings_is_not_closed_and_names_one(void **state) {
        struct fixture *fixture = *state;
        dmab_device_t *device = open_device(fixture, "leaky", NULL);
        dmab_addr_t dma = map(device, fixture->buf, 5000, DMAB_FROM_DEVICE);
        char address[32];

        snprintf(address, sizeof(address), "0x%llx", (unsigned long long)dma);
        expect(dmab_device_close(device), -EBUSY, "busy", address);
        assert_non_null(strstr(dmab_last_error(), "leaky still has 1 mapping"));
        unmap(device, dma, 5000, DMAB_FROM_DEVICE);
        assert_int_equal(dmab_device_close(device), 0);
}

static void test_a_device_is_closed_by_force_whatever_is_mapped(void **state) {
        struct fixture *fixture = *state;
        dmab_device_t *device = open_device(fixture, "leaky", NULL);

        map(device, fixture->buf, 5000, DMAB_FROM_DEVICE);
        assert_int_equal(dmab_device_close_force(device), 0);
}

static void test_a_device_that_could_not_be_closed_maps_again(void **state) {
        struct fixture *fixture = *state;
        dmab_device_t *device = open_device(fixture, "leaky", NULL);
        dmab_addr_t start, dma = map(device, fixture->buf, 5000, DMAB_TO_DEVICE);
        void *vaddr = alloc(device, PAGE, &start);

        unmap(device, dma, 5000, DMAB_TO_DEVICE);
        assert_int_equal(dmab_device_close(device), -EBUSY);
        dma = map(device, fixture->buf, 5000, DMAB_TO_DEVICE);
        unmap(device, dma, 5000, DMAB_TO_DEVICE);
        assert_int_equal(dmab_free_coherent(device, PAGE, vaddr, start), 0);
        assert_int_equal(dmab_device_close(device), 0);
}

struct mapper {
        struct fixture *fixture;
        bool stop; /* atomic */
        size_t n, n_lost;
};

static void *map_and_unmap(void *pointer) {
        struct mapper *mapper = pointer;
        struct fixture *fixture = mapper->fixture;
        dmab_addr_t dma;

        while (!__atomic_load_n(&mapper->stop, __ATOMIC_RELAXED) && !mapper->n_lost) {
                mapper->n_lost += dmab_map_single(fixture->device, fixture->buf, 5000, DMAB_FROM_DEVICE, &dma) ||
                                  dmab_unmap_single(fixture->device, dma, 5000, DMAB_FROM_DEVICE);
                mapper->n++;
        }
        return NULL;
}

static void test_a_close_that_fails_takes_no_mapping_from_another_thread(void **state) {
        struct fixture *fixture = *state;
        struct mapper mapper = { .fixture = fixture };
        dmab_addr_t start;
        pthread_t thread;

        alloc(fixture->device, PAGE, &start);
        assert_int_equal(pthread_create(&thread, NULL, map_and_unmap, &mapper), 0);
        for (size_t i = 0; i < 1000; i++)
                assert_int_equal(dmab_device_close(fixture->device), -EBUSY);
        __atomic_store_n(&mapper.stop, true, __ATOMIC_RELAXED);
        pthread_join(thread, NULL);
        assert_int_equal(mapper.n_lost, 0);
        assert_true(mapper.n > 0);
}

/* ---- idle memory is given back ---- */

static void test_idle_slots_go_back_when_memory_is_short(void **state) {
        struct fixture *fixture = *state;
        static dmab_addr_t dmas[256];
        static void *vaddrs[256];
        dmab_addr_t dma = map(fixture->device, fixture->buf, 4 * MIB, DMAB_TO_DEVICE);
        size_t n = 0;

        unmap(fixture->device, dma, 4 * MIB, DMAB_TO_DEVICE);
        assert_true(info_of(fixture->device).slots >= 2048);
        /* Somebody waits for the last memory that there is. */
        while (n < 256 && !dmab_alloc_coherent(fixture->device, MIB, n < 8 ? 0 : DMAB_NOWAIT, &vaddrs[n], &dmas[n]))
                n++;
        assert_int_equal(dmab_alloc_coherent(fixture->device, MIB, DMAB_WAIT, &vaddrs[n], &dmas[n]), 0);
        assert_int_equal(info_of(fixture->device).slots, 0);
        assert_int_equal(dmab_free_coherent(fixture->device, MIB, vaddrs[n], dmas[n]), 0);
        dma = map(fixture->device, fixture->buf, 5000, DMAB_TO_DEVICE);
        unmap(fixture->device, dma, 5000, DMAB_TO_DEVICE);
}

/* ---- sessions and processes ---- */

static void test_a_session_that_is_forgotten_maps_nothing_more(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma, kept = map(fixture->device, fixture->buf, 5000, DMAB_FROM_DEVICE);
        int r;

        memset(fake_device_at(fixture->fake, kept, 5000), 0x22, 5000);
        assert_int_equal(test_daemon_kill(fixture->daemon), 0);
        assert_int_equal(test_daemon_start_again(fixture->daemon), 0);
        do {
                r = dmab_map_single(fixture->device, fixture->buf + MIB, 5000, DMAB_TO_DEVICE, &dma);
                if (!r)
                        unmap(fixture->device, dma, 5000, DMAB_TO_DEVICE);
        } while (!r);
        assert_int_equal(r, -ESTALE);
        unmap(fixture->device, kept, 5000, DMAB_FROM_DEVICE);
        assert_int_equal(fixture->buf[4999], 0x22);
}

/* Asks the kernel, who answers where a load would be the end of the test. */
static bool is_readable(const void *vaddr) {
        int ends[2];
        bool readable;

        assert_int_equal(pipe(ends), 0);
        readable = write(ends[1], vaddr, 1) == 1;
        close(ends[0]);
        close(ends[1]);
        return readable;
}

static void test_a_device_that_is_forgotten_is_closed_whatever_it_had(void **state) {
        struct fixture *fixture = *state;
        dmab_device_t *mapped = open_device(fixture, "mapped", NULL), *small = open_device(fixture, "small", NULL);
        dmab_addr_t start;
        void *vaddr, *of_mapped = alloc(mapped, 4 * MIB, &start), *of_small = alloc(small, 4 * MIB, &start);

        unmap(mapped, map(mapped, fixture->buf, 5000, DMAB_TO_DEVICE), 5000, DMAB_TO_DEVICE);
        assert_int_equal(dmab_alloc(small, 100, 0, &vaddr, &start), 0);
        assert_int_equal(dmab_free(small, vaddr), 0);
        assert_true(is_readable(of_mapped) && is_readable(of_small));
        assert_int_equal(test_daemon_kill(fixture->daemon), 0);
        assert_int_equal(test_daemon_start_again(fixture->daemon), 0);
        assert_int_equal(dmab_device_close(mapped), -ESTALE);
        assert_false(is_readable(of_mapped));
        assert_int_equal(dmab_device_close(small), -ESTALE);
        assert_false(is_readable(of_small));
}

static void test_a_child_may_not_map_but_disconnect(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma = map(fixture->device, fixture->buf, 5000, DMAB_FROM_DEVICE), other;
        int status;
        pid_t pid = fork();

        if (!pid) {
                if (dmab_map_single(fixture->device, fixture->buf + MIB, 5000, DMAB_TO_DEVICE, &other) != -EINVAL ||
                    dmab_unmap_single(fixture->device, dma, 5000, DMAB_FROM_DEVICE) != -EINVAL)
                        _exit(1);
                dmab_disconnect(fixture->dmab);
                _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
        unmap(fixture->device, dma, 5000, DMAB_FROM_DEVICE);
}

/* ---- DMAB_DEBUG ---- */

static void test_debug_knows_what_is_mapped_in_place(void **state) {
        struct fixture *fixture = *state;
        dmab_device_t *device = fixture->device;
        dmab_addr_t start, dma;
        char *vaddr = alloc(device, 4 * PAGE, &start);

        expect(dmab_unmap_single(device, start, 10, DMAB_TO_DEVICE), -EFAULT, "bad_address", "card");
        dma = map(device, vaddr + 16, PAGE, DMAB_FROM_DEVICE);
        expect(dmab_unmap_single(device, dma, PAGE - 1, DMAB_FROM_DEVICE), -EINVAL, "wrong_size", "card");
        expect(dmab_unmap_single(device, dma, PAGE, DMAB_TO_DEVICE), -EINVAL, "wrong_direction", "card");
        expect(dmab_unmap_single(device, dma + 1, PAGE, DMAB_FROM_DEVICE), -EFAULT, "bad_address", "card");
        expect(dmab_sync_single_for_cpu(device, dma + 1, PAGE, DMAB_FROM_DEVICE), -EFAULT, "bad_address", "card");
        expect(dmab_sync_single_for_device(device, dma + 1, 10, DMAB_FROM_DEVICE), -EINVAL, "wrong_direction", "card");
        assert_int_equal(dmab_sync_single_for_cpu(device, dma + 1, PAGE - 1, DMAB_FROM_DEVICE), 0);
        expect(dmab_device_close(device), -EBUSY, "busy", "card still has 1 mapping");
        unmap(device, dma, PAGE, DMAB_FROM_DEVICE);
        expect(dmab_unmap_single(device, dma, PAGE, DMAB_FROM_DEVICE), -EFAULT, "bad_address", "card");
}

static void test_debug_refuses_overlaps_of_what_is_written(void **state) {
        struct fixture *fixture = *state;
        dmab_device_t *device = fixture->device;
        dmab_addr_t start, one, two, three = 0;
        char *vaddr = alloc(device, 4 * PAGE, &start);

        one = map(device, vaddr, PAGE, DMAB_TO_DEVICE);
        two = map(device, vaddr, PAGE, DMAB_TO_DEVICE); /* both are read only */
        expect(dmab_map_single(device, vaddr + PAGE - 1, 10, DMAB_FROM_DEVICE, &three), -EEXIST, "busy", "card");
        assert_int_equal(three, DMAB_ADDR_NONE);
        unmap(device, one, PAGE, DMAB_TO_DEVICE);
        unmap(device, two, PAGE, DMAB_TO_DEVICE);
        one = map(device, fixture->buf, 200 * KIB, DMAB_BIDIRECTIONAL);
        expect(dmab_map_single(device, fixture->buf + 199 * KIB, 4 * KIB, DMAB_TO_DEVICE, &three), -EEXIST, "busy", "card");
        assert_int_equal(info_of(device).used, 100);
        unmap(device, one, 200 * KIB, DMAB_BIDIRECTIONAL);
        assert_int_equal(dmab_map_single(device, fixture->buf + 199 * KIB, 4 * KIB, DMAB_TO_DEVICE, &three), 0);
        unmap(device, three, 4 * KIB, DMAB_TO_DEVICE);
}

static void test_debug_knows_lists_from_singles(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t start, dma;
        char *vaddr = alloc(fixture->device, 4 * PAGE, &start);
        struct dmab_sg sg[2] = { { vaddr, 10, 0, 0 }, { vaddr + PAGE, 10, 0, 0 } };
        size_t n;

        assert_int_equal(dmab_map_sg(fixture->device, sg, 2, DMAB_TO_DEVICE, &n), 0);
        expect(dmab_unmap_single(fixture->device, start, 10, DMAB_TO_DEVICE), -EINVAL, "bad_param", "dmab_map_sg");
        expect(dmab_unmap_sg(fixture->device, sg, 1, DMAB_TO_DEVICE), -EINVAL, "wrong_size", "a list of 2 pieces");
        assert_int_equal(dmab_unmap_sg(fixture->device, sg, 2, DMAB_TO_DEVICE), 0);
        dma = map(fixture->device, vaddr, 10, DMAB_TO_DEVICE);
        sg[0] = (struct dmab_sg){ vaddr, 10, dma, 10 };
        expect(dmab_unmap_sg(fixture->device, sg, 1, DMAB_TO_DEVICE), -EINVAL, "bad_param", "dmab_map_single");
        unmap(fixture->device, dma, 10, DMAB_TO_DEVICE);
}

static void test_debug_knows_a_list_from_a_single_at_the_same_place(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t start, dma;
        char *vaddr = alloc(fixture->device, 4 * PAGE, &start);
        struct dmab_sg sg[2] = { { vaddr, 10, 0, 0 }, { vaddr + PAGE, 10, 0, 0 } };
        size_t n;

        assert_int_equal(dmab_map_sg(fixture->device, sg, 2, DMAB_TO_DEVICE, &n), 0);
        dma = map(fixture->device, vaddr, 10, DMAB_TO_DEVICE);
        assert_int_equal(dmab_sync_sg_for_device(fixture->device, sg, 2, DMAB_TO_DEVICE), 0);
        unmap(fixture->device, dma, 10, DMAB_TO_DEVICE);
        assert_int_equal(dmab_unmap_sg(fixture->device, sg, 2, DMAB_TO_DEVICE), 0);
}

static void test_debug_tells_at_the_end_what_is_left(void **state) {
        struct fixture *fixture = *state;
        char text[512] = "";
        int ends[2], saved = dup(2);
        ssize_t n;

        map(fixture->device, fixture->buf, 5000, DMAB_TO_DEVICE);
        assert_int_equal(pipe(ends), 0);
        dup2(ends[1], 2);
        assert_int_equal(dmab_device_close_force(fixture->device), 0);
        dup2(saved, 2);
        close(saved);
        close(ends[1]);
        n = read(ends[0], text, sizeof(text) - 1);
        close(ends[0]);
        assert_true(n > 0);
        assert_non_null(strstr(text, "card still had 1 mapping when it was closed by force, such as the 5000 bytes of"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)
#define TEST_DEBUG(name) cmocka_unit_test_setup_teardown(test_##name, set_up_debug, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(what_the_device_reaches_is_mapped_in_place),
                TEST(a_buffer_that_reaches_beyond_its_memory_is_bounced),
                TEST(blocks_are_mapped_in_place_wherever_leases_begin),
                TEST(unmapping_in_place_takes_no_longer_where_there_is_much),
                TEST(another_devices_memory_is_bounced),
                TEST(what_is_above_the_mask_is_bounced_below_it),
                TEST(what_crosses_the_boundary_is_bounced_within_it),
                TEST(the_longest_within_the_boundary_finds_room_in_any_pool),
                TEST(low_bits_of_the_address_survive),
                TEST(low_bits_survive_in_memory_that_the_device_could_reach_too),
                TEST(slots_that_are_larger_for_low_bits_are_counted_as_such),
                TEST(low_bits_survive_that_need_slots_as_large_as_all_to_begin_with),
                TEST(there_is_no_limit_of_256_kib),
                TEST(data_goes_to_the_device_at_map_and_does_not_come_back),
                TEST(data_comes_from_the_device_at_unmap),
                TEST(what_the_device_does_not_write_comes_back_as_it_was),
                TEST(a_part_is_synced_and_nothing_else),
                TEST(mapping_makes_no_system_call),
                TEST(what_cannot_be_mapped_is_refused_by_name),
                TEST(full_slots_are_told_with_numbers_and_what_can_never_fit_too),
                TEST(slots_grow_up_to_their_limit),
                TEST(sizes_of_bounce_memory_are_checked_and_chosen_before_it_is_used),
                TEST(an_unmap_that_does_not_fit_changes_nothing),
                TEST(a_sync_that_does_not_fit_is_refused),
                TEST(in_place_only_the_devices_own_memory_can_be_unmapped),
                TEST(neighbours_are_merged_and_found_again),
                TEST(merging_keeps_segment_and_boundary),
                TEST(a_list_is_mapped_wholly_or_not_at_all),
                TEST(a_list_that_cannot_be_mapped_writes_to_no_piece),
                TEST(lists_that_are_none_are_refused),
                TEST(a_device_with_mappings_is_not_closed_and_names_one),
                TEST(a_device_is_closed_by_force_whatever_is_mapped),
                TEST(a_device_that_could_not_be_closed_maps_again),
                TEST(a_close_that_fails_takes_no_mapping_from_another_thread),
                TEST(idle_slots_go_back_when_memory_is_short),
                TEST(a_session_that_is_forgotten_maps_nothing_more),
                TEST(a_device_that_is_forgotten_is_closed_whatever_it_had),
                TEST(a_child_may_not_map_but_disconnect),
                TEST_DEBUG(debug_knows_what_is_mapped_in_place),
                TEST_DEBUG(debug_refuses_overlaps_of_what_is_written),
                TEST_DEBUG(debug_knows_lists_from_singles),
                TEST_DEBUG(debug_knows_a_list_from_a_single_at_the_same_place),
                TEST_DEBUG(debug_tells_at_the_end_what_is_left),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
