/* The library against a real daemon on simulated memory. */
#include <dirent.h>
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
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/daemon.h"

enum { PAGE = 4096, MIB = 1 << 20 };

struct fixture {
        struct test_daemon *daemon;
        char uri[256];
        dmab_t *dmab;
        dmab_device_t *device; /* 64 bits */
};

static dmab_t *connect_again(const struct fixture *fixture) {
        dmab_t *dmab;

        assert_int_equal(dmab_connect(fixture->uri, &dmab), 0);
        return dmab;
}

static dmab_device_t *open_device(dmab_t *dmab, const char *name, uint64_t mask) {
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        dmab_device_t *device;

        options.mask = mask;
        assert_int_equal(dmab_device_open(dmab, name, &options, &device), 0);
        return device;
}

static int set_up(void **state) {
        struct test_daemon_options options = { .open_directory = true, .config = "[daemon]\naccess = everyone\n" };
        struct fixture *fixture = calloc(1, sizeof(*fixture));

        if (!fixture || test_daemon_start(&options, &fixture->daemon))
                return -1;
        snprintf(fixture->uri, sizeof(fixture->uri), "unix:%s", test_daemon_socket(fixture->daemon));
        fixture->dmab = connect_again(fixture);
        fixture->device = open_device(fixture->dmab, "card", DMAB_MASK(64));
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

/* What the daemon charges this owner for. */
static long long usage(dmab_t *dmab, const char *name) {
        json_t *quota = call(dmab, "quota.get", NULL);
        long long value = json_integer_value(json_object_get(json_object_get(quota, "usage"), name));

        json_decref(quota);
        return value;
}

static void expect_reason(const char *reason) {
        assert_non_null(dmab_last_reason());
        assert_string_equal(dmab_last_reason(), reason);
        assert_true(strlen(dmab_last_error()) > 10);
}

/* ---- allocating ---- */

static void test_allocated_memory_is_zeroed_mapped_and_the_regions_own(void **state) {
        struct fixture *fixture = *state;
        struct dmab_coherent_info info = DMAB_COHERENT_INFO_INIT;
        char params[64], *other;
        dmab_addr_t dma;
        size_t n_fds;
        void *vaddr;
        int fd;

        assert_int_equal(dmab_alloc_coherent(fixture->device, MIB, DMAB_NOWAIT | DMAB_ZERO, &vaddr, &dma), 0);
        for (size_t i = 0; i < MIB; i++)
                assert_int_equal(((char *)vaddr)[i], 0);
        memset(vaddr, 0x5a, MIB);
        assert_int_equal(dmab_coherent_info(fixture->device, vaddr, &info), 0);
        assert_int_equal(info.size, MIB);
        assert_int_equal(info.dma_addr, dma);
        assert_int_equal(info.addressing, DMAB_ADDRESSING_SIMULATED);
        assert_int_equal(info.machine_addr, dma); /* identity */

        snprintf(params, sizeof(params), "{\"region\":%llu}", (unsigned long long)info.region);
        assert_int_equal(dmab_call_fds(fixture->dmab, "region.get", params, NULL, &fd, 1, &n_fds), 0);
        assert_int_equal(n_fds, 1);
        other = mmap(NULL, MIB, PROT_READ, MAP_SHARED, fd, info.offset);
        assert_ptr_not_equal(other, MAP_FAILED);
        assert_memory_equal(other, vaddr, MIB);
        munmap(other, MIB);
        close(fd);

        assert_int_equal(dmab_free_coherent(fixture->device, MIB, vaddr, dma), 0);
        assert_int_equal(usage(fixture->dmab, "bytes"), 0);
}

static void test_allocations_of_one_region_share_its_mapping_until_the_last_goes(void **state) {
        struct fixture *fixture = *state;
        struct dmab_coherent_info a = DMAB_COHERENT_INFO_INIT, b = DMAB_COHERENT_INFO_INIT;
        dmab_addr_t dma[2];
        void *vaddr[2];
        int ends[2];

        for (size_t i = 0; i < 2; i++)
                assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, 0, &vaddr[i], &dma[i]), 0);
        assert_int_equal(dmab_coherent_info(fixture->device, vaddr[0], &a), 0);
        assert_int_equal(dmab_coherent_info(fixture->device, vaddr[1], &b), 0);
        assert_int_equal(a.region, b.region);
        assert_int_equal((char *)vaddr[1] - (char *)vaddr[0], (int64_t)b.offset - (int64_t)a.offset);
        assert_int_equal(dmab_free_coherent(fixture->device, PAGE, vaddr[0], dma[0]), 0);
        memset(vaddr[1], 1, PAGE);
        assert_int_equal(dmab_free_coherent(fixture->device, PAGE, vaddr[1], dma[1]), 0);
        /* Its pages are gone from this process: the kernel refuses to look at them. */
        assert_int_equal(pipe(ends), 0);
        assert_int_equal(write(ends[1], vaddr[1], 1), -1);
        assert_int_equal(errno, EFAULT);
        close(ends[0]);
        close(ends[1]);
}

static void test_every_address_in_an_allocation_has_its_dma_address(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma, at;
        char *vaddr;

        assert_int_equal(dmab_alloc_coherent(fixture->device, 3 * PAGE, 0, (void **)&vaddr, &dma), 0);
        for (size_t i = 0; i < 3 * PAGE; i += 1000) {
                assert_int_equal(dmab_dma_addr(fixture->device, vaddr + i, &at), 0);
                assert_int_equal(at, dma + i);
        }
        assert_int_equal(dmab_dma_addr(fixture->device, &dma, &at), -EFAULT);
        assert_int_equal(dmab_free_coherent(fixture->device, 3 * PAGE, vaddr, dma), 0);
        assert_int_equal(dmab_dma_addr(fixture->device, vaddr, &at), -EFAULT);
}

static void test_memory_of_every_kind_is_called_simulated_where_it_is(void **state) {
        struct fixture *fixture = *state;
        struct dmab_bounce_info info = DMAB_BOUNCE_INFO_INIT;
        dmab_pool_t *pool;
        dmab_addr_t dma, addr;
        void *vaddr;

        assert_int_equal(dmab_addressing(fixture->device, &info), -EFAULT);
        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, 0, &vaddr, &dma), 0);
        assert_int_equal(dmab_addressing(fixture->device, (char *)vaddr + 7), DMAB_ADDRESSING_SIMULATED);
        assert_int_equal(dmab_free_coherent(fixture->device, PAGE, vaddr, dma), 0);
        assert_int_equal(dmab_addressing(fixture->device, vaddr), -EFAULT);
        assert_int_equal(dmab_alloc(fixture->device, 100, 0, &vaddr, &dma), 0);
        assert_int_equal(dmab_addressing(fixture->device, vaddr), DMAB_ADDRESSING_SIMULATED);
        assert_int_equal(dmab_free(fixture->device, vaddr), 0);
        assert_int_equal(dmab_pool_create("rings", fixture->device, 64, 0, 0, NULL, &pool), 0);
        assert_int_equal(dmab_pool_alloc(pool, 0, &vaddr, &addr), 0);
        assert_int_equal(dmab_addressing(fixture->device, vaddr), DMAB_ADDRESSING_SIMULATED);
        assert_int_equal(dmab_pool_free(pool, vaddr, addr), 0);
        assert_int_equal(dmab_pool_destroy(pool), 0);
        assert_int_equal(dmab_bounce_info(fixture->device, &info), 0);
        assert_int_equal(info.addressing, 0);
        assert_int_equal(dmab_map_single(fixture->device, &dma, sizeof(dma), DMAB_TO_DEVICE, &addr), 0);
        assert_int_equal(dmab_bounce_info(fixture->device, &info), 0);
        assert_int_equal(info.addressing, DMAB_ADDRESSING_SIMULATED);
        assert_int_equal(dmab_unmap_single(fixture->device, addr, sizeof(dma), DMAB_TO_DEVICE), 0);
}

static void test_another_devices_memory_has_no_dma_address_for_this_one(void **state) {
        struct fixture *fixture = *state;
        dmab_device_t *other;
        dmab_addr_t dma, at;
        void *vaddr;

        assert_int_equal(dmab_device_open(fixture->dmab, "other", NULL, &other), 0);
        assert_int_equal(dmab_alloc_coherent(other, PAGE, 0, &vaddr, &dma), 0);
        assert_int_equal(dmab_dma_addr(fixture->device, vaddr, &at), -EXDEV);
        assert_int_equal(dmab_device_close_force(other), 0);
}

static void test_alignment_boundary_and_mask_are_kept(void **state) {
        struct fixture *fixture = *state;
        struct dmab_coherent_attrs attrs = DMAB_COHERENT_ATTRS_INIT;
        dmab_addr_t dma;
        void *vaddr;

        assert_int_equal(dmab_alloc_coherent(fixture->device, 3 * PAGE - 5, 0, &vaddr, &dma), 0);
        assert_int_equal(dma % PAGE, 0);
        assert_int_equal((uintptr_t)vaddr % PAGE, 0);
        attrs.align = MIB;
        assert_int_equal(dmab_alloc_coherent_attrs(fixture->device, PAGE, 0, &attrs, &vaddr, &dma), 0);
        assert_int_equal(dma % MIB, 0);
        attrs.mask = DMAB_MASK(32);
        assert_int_equal(dmab_alloc_coherent_attrs(fixture->device, PAGE, 0, &attrs, &vaddr, &dma), 0);
        assert_true(dma < DMAB_MASK(32));
        attrs = (struct dmab_coherent_attrs)DMAB_COHERENT_ATTRS_INIT;
        attrs.align = PAGE;
        attrs.boundary = 64 << 10;
        for (size_t i = 0; i < 20; i++) {
                assert_int_equal(dmab_alloc_coherent_attrs(fixture->device, 7 * PAGE, 0, &attrs, &vaddr, &dma), 0);
                assert_int_equal(dma / attrs.boundary, (dma + 7 * PAGE - 1) / attrs.boundary);
        }
        assert_int_equal(dmab_alloc_coherent_attrs(fixture->device, 128 << 10, 0, &attrs, &vaddr, &dma), -EINVAL);
        expect_reason("boundary");
        attrs.boundary = 3 * PAGE;
        assert_int_equal(dmab_alloc_coherent_attrs(fixture->device, PAGE, 0, &attrs, &vaddr, &dma), -EINVAL);
}

static void test_what_can_never_be_is_refused_and_takes_nothing(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma = 77;
        void *vaddr = &dma;

        assert_int_equal(dmab_alloc_coherent(fixture->device, 0, 0, &vaddr, &dma), -EINVAL);
        assert_int_equal(dmab_alloc_coherent(fixture->device, SIZE_MAX, 0, &vaddr, &dma), -E2BIG);
        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, DMAB_NOWAIT | DMAB_WAIT, &vaddr, &dma), -EINVAL);
        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, 1u << 20, &vaddr, &dma), -EINVAL);
        assert_true(dmab_alloc_coherent(fixture->device, (size_t)1 << 40, 0, &vaddr, &dma) < 0);
        assert_ptr_equal(vaddr, &dma);
        assert_int_equal(dma, 77);
        assert_int_equal(usage(fixture->dmab, "allocs"), 0);
}

static void test_flags_reach_the_daemon(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma;
        json_t *list, *alloc;
        void *vaddr;

        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, DMAB_SHAREABLE, &vaddr, &dma), 0);
        list = call(fixture->dmab, "coherent.list", NULL);
        alloc = json_array_get(json_object_get(list, "allocs"), 0);
        assert_true(json_is_true(json_object_get(alloc, "shareable")));
        assert_string_equal(json_string_value(json_object_get(alloc, "lifetime")), "session");
        json_decref(list);

        /* The same owner's memory comes back as it was left, unless it shall be zero. */
        memset(vaddr, 0x77, PAGE);
        assert_int_equal(dmab_free_coherent(fixture->device, PAGE, vaddr, dma), 0);
        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, DMAB_ZERO, &vaddr, &dma), 0);
        for (size_t i = 0; i < PAGE; i++)
                assert_int_equal(((char *)vaddr)[i], 0);
}

/* Take pieces of that size until there are none. */
static size_t exhaust(struct fixture *fixture, size_t size, void **vaddrs, dmab_addr_t *dmas, size_t room) {
        size_t n = 0;
        int r = 0;

        while (n < room && !(r = dmab_alloc_coherent(fixture->device, size, DMAB_NOWAIT, &vaddrs[n], &dmas[n])))
                n++;
        assert_int_equal(r, -ENOMEM);
        return n;
}

struct waiter {
        pthread_t thread;
        struct fixture *fixture;
        int status;
        void *vaddr;
        dmab_addr_t dma;
};

static void *wait_for_memory(void *pointer) {
        struct waiter *waiter = pointer;

        waiter->status = dmab_alloc_coherent(waiter->fixture->device, 8 * MIB, DMAB_WAIT, &waiter->vaddr, &waiter->dma);
        return NULL;
}

static void test_waiting_ends_with_memory_or_at_the_deadline_and_holds_nobody_up(void **state) {
        struct fixture *fixture = *state;
        struct dmab_coherent_attrs attrs = DMAB_COHERENT_ATTRS_INIT;
        struct waiter waiter = { .fixture = fixture };
        dmab_addr_t dma, dmas[64];
        void *vaddr, *vaddrs[64];
        size_t n = exhaust(fixture, 8 * MIB, vaddrs, dmas, 64);

        assert_true(n > 10);
        attrs.wait_ms = 20;
        assert_int_equal(dmab_alloc_coherent_attrs(fixture->device, 8 * MIB, DMAB_WAIT, &attrs, &vaddr, &dma),
                         -ETIMEDOUT);
        expect_reason("timeout");

        assert_int_equal(pthread_create(&waiter.thread, NULL, wait_for_memory, &waiter), 0);
        while (!usage(fixture->dmab, "waiters")) /* each a call that is answered while the other waits */
                ;
        assert_int_equal(dmab_free_coherent(fixture->device, 8 * MIB, vaddrs[0], dmas[0]), 0);
        assert_int_equal(pthread_join(waiter.thread, NULL), 0);
        assert_int_equal(waiter.status, 0);
        memset(waiter.vaddr, 1, 8 * MIB);
}

static void test_high_priority_may_use_the_reserve(void **state) {
        struct fixture *fixture = *state;
        static dmab_addr_t dmas[65536];
        static void *vaddrs[65536];
        dmab_addr_t dma;
        void *vaddr;

        /* Without memory below 4 GiB, what is left in the end is the reserve. */
        assert_int_equal(dmab_set_mask(fixture->device, DMAB_MASK(32)), 0);
        exhaust(fixture, 8 * MIB, vaddrs, dmas, 64);
        assert_int_equal(dmab_set_mask(fixture->device, DMAB_MASK(64)), 0);
        exhaust(fixture, 8 * MIB, vaddrs, dmas, 64);
        exhaust(fixture, PAGE, vaddrs, dmas, 65536);
        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, DMAB_NOWAIT, &vaddr, &dma), -ENOMEM);
        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, DMAB_NOWAIT | DMAB_HIGH, &vaddr, &dma), 0);
}

/* ---- freeing ---- */

static void test_a_free_that_does_not_fit_changes_nothing(void **state) {
        struct fixture *fixture = *state;
        dmab_device_t *other = open_device(fixture->dmab, "other", DMAB_MASK(64));
        dmab_addr_t dma;
        void *vaddr;

        assert_int_equal(dmab_alloc_coherent(fixture->device, 2 * PAGE, 0, &vaddr, &dma), 0);
        assert_int_equal(dmab_free_coherent(fixture->device, 2 * PAGE, (char *)vaddr + PAGE, dma), -EFAULT);
        assert_int_equal(dmab_free_coherent(other, 2 * PAGE, vaddr, dma), -EXDEV);
        assert_non_null(strstr(dmab_last_error(), "card"));
        assert_int_equal(dmab_free_coherent(fixture->device, PAGE, vaddr, dma), -EINVAL);
        assert_int_equal(dmab_free_coherent(fixture->device, 2 * PAGE, vaddr, dma + PAGE), -EINVAL);
        memset(vaddr, 1, 2 * PAGE);
        assert_int_equal(usage(fixture->dmab, "allocs"), 1);
        assert_int_equal(dmab_free_coherent(fixture->device, 2 * PAGE, vaddr, dma), 0);
        assert_int_equal(dmab_free_coherent(fixture->device, 2 * PAGE, vaddr, dma), -EFAULT);
}

static void test_what_somebody_else_freed_is_reported_and_unmapped(void **state) {
        struct fixture *fixture = *state;
        struct dmab_coherent_info info = DMAB_COHERENT_INFO_INIT;
        char params[64];
        dmab_addr_t dma;
        void *vaddr;

        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, 0, &vaddr, &dma), 0);
        assert_int_equal(dmab_coherent_info(fixture->device, vaddr, &info), 0);
        snprintf(params, sizeof(params), "{\"alloc\":%llu}", (unsigned long long)info.alloc);
        json_decref(call(fixture->dmab, "coherent.free", params));
        assert_int_equal(dmab_free_coherent(fixture->device, PAGE, vaddr, dma), -EINVAL);
        expect_reason("double_free");
        assert_int_equal(dmab_coherent_info(fixture->device, vaddr, &info), -EFAULT);
}

/* ---- devices ---- */

static void test_a_device_with_memory_is_not_closed_and_names_it(void **state) {
        struct fixture *fixture = *state;
        dmab_device_t *device = open_device(fixture->dmab, "leaky", DMAB_MASK(64));
        char address[32];
        dmab_addr_t dma;
        void *vaddr;

        assert_int_equal(dmab_alloc_coherent(device, PAGE, 0, &vaddr, &dma), 0);
        assert_int_equal(dmab_device_close(device), -EBUSY);
        expect_reason("busy");
        snprintf(address, sizeof(address), "0x%llx", (unsigned long long)dma);
        assert_non_null(strstr(dmab_last_error(), address));
        assert_non_null(strstr(dmab_last_error(), "leaky"));
        memset(vaddr, 1, PAGE);
        assert_int_equal(dmab_device_close_force(device), 0);
        assert_int_equal(usage(fixture->dmab, "allocs"), 0);
}

static void test_masks_are_asked_for_set_and_refused(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma;
        void *vaddr;

        assert_int_equal(dmab_supported(fixture->device, DMAB_MASK(32)), 1);
        assert_int_equal(dmab_supported(fixture->device, DMAB_MASK(64)), 1);
        assert_int_equal(dmab_supported(fixture->device, DMAB_MASK(13)), 0);
        assert_int_equal(dmab_set_mask(fixture->device, DMAB_MASK(32)), 0);
        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, 0, &vaddr, &dma), 0);
        assert_true(dma < DMAB_MASK(32));
        assert_int_equal(dmab_set_mask(fixture->device, DMAB_MASK(13)), -ERANGE);
        expect_reason("mask");
        assert_int_equal(dmab_set_mask(fixture->device, 0x12345), -ERANGE);
        expect_reason("mask");
}

static void test_a_device_says_what_it_is(void **state) {
        struct fixture *fixture = *state;
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        dmab_device_t *child;

        assert_string_equal(dmab_device_name(fixture->device), "card");
        assert_string_equal(dmab_device_translation(fixture->device), "identity");
        assert_string_equal(dmab_device_via(fixture->device), "card");
        assert_true(dmab_device_handle(fixture->device) > 0);
        options.parent = "card";
        assert_int_equal(dmab_device_open(fixture->dmab, "", &options, &child), -EINVAL);
        assert_int_equal(dmab_device_open(fixture->dmab, "bad\xff", &options, &child), -EINVAL);
        assert_int_equal(dmab_device_open(fixture->dmab, NULL, &options, &child), -EINVAL);
        options.boundary = 12345;
        assert_int_equal(dmab_device_open(fixture->dmab, "child", &options, &child), -EINVAL);
}

static void test_structures_of_other_versions_are_understood_or_refused(void **state) {
        struct fixture *fixture = *state;
        struct {
                struct dmab_device_options known;
                uint64_t later;
        } options = { .known = DMAB_DEVICE_OPTIONS_INIT };
        struct dmab_coherent_info info = DMAB_COHERENT_INFO_INIT;
        dmab_device_t *device;
        dmab_addr_t dma;
        void *vaddr;

        options.known.struct_size = sizeof(options);
        assert_int_equal(dmab_device_open(fixture->dmab, "x", &options.known, &device), 0);
        options.later = 1;
        assert_int_equal(dmab_device_open(fixture->dmab, "x", &options.known, &device), -E2BIG);
        options.known.struct_size = offsetof(struct dmab_device_options, coherent_mask);
        options.known.coherent_mask = 1; /* beyond what an older program has */
        assert_int_equal(dmab_device_open(fixture->dmab, "x", &options.known, &device), 0);
        options.known.struct_size = 0;
        assert_int_equal(dmab_device_open(fixture->dmab, "x", &options.known, &device), -EINVAL);

        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, 0, &vaddr, &dma), 0);
        info.struct_size = offsetof(struct dmab_coherent_info, region);
        info.region = 4711;
        assert_int_equal(dmab_coherent_info(fixture->device, vaddr, &info), 0);
        assert_true(info.alloc > 0);
        assert_int_equal(info.region, 4711);
        assert_int_equal(info.struct_size, offsetof(struct dmab_coherent_info, region));
}

static void test_reserved_memory_serves_its_device_alone(void **state) {
        struct fixture *fixture = *state;
        struct dmab_coherent_info info = DMAB_COHERENT_INFO_INIT;
        dmab_device_t *other = open_device(fixture->dmab, "other", DMAB_MASK(64));
        dmab_addr_t dma;
        uint64_t region;
        void *vaddr;

        assert_int_equal(dmab_device_reserve(fixture->device, 2 * MIB, 0, &region), 0);
        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, 0, &vaddr, &dma), 0);
        assert_int_equal(dmab_coherent_info(fixture->device, vaddr, &info), 0);
        assert_int_equal(info.region, region);
        assert_int_equal(dmab_device_unreserve(fixture->device, region), -EBUSY);
        assert_int_equal(dmab_device_unreserve(other, region), -EXDEV);
        assert_int_equal(dmab_free_coherent(fixture->device, PAGE, vaddr, dma), 0);
        assert_int_equal(dmab_alloc_coherent(other, PAGE, 0, &vaddr, &dma), 0);
        assert_int_equal(dmab_coherent_info(other, vaddr, &info), 0);
        assert_int_not_equal(info.region, region);
        assert_int_equal(dmab_device_unreserve(fixture->device, region), 0);
        assert_int_equal(dmab_device_unreserve(fixture->device, region), -ENOENT);
}

static void test_frames_are_exchanged_for_guests_of_xen_alone(void **state) {
        struct fixture *fixture = *state;
        struct dmab_exchange_options options = DMAB_EXCHANGE_OPTIONS_INIT;
        uint64_t frames[] = { 0x1f400, 0x1f402 }, got[2];
        size_t n = 4711;

        assert_int_equal(dmab_exchange_frames(fixture->dmab, frames, 2, 1, NULL, got, &n), -EINVAL);
        options.guest = "one";
        assert_int_equal(dmab_exchange_frames(fixture->dmab, frames, 2, 1, &options, got, &n), -EOPNOTSUPP);
        assert_string_equal(dmab_last_reason(), "unsupported");
        assert_int_equal(n, 4711);
}

/* ---- calls ---- */

static void test_calls_answer_with_the_protocols_errors(void **state) {
        struct fixture *fixture = *state;
        char *text = NULL;
        json_t *error;

        assert_int_equal(dmab_call(fixture->dmab, "no.such_method", NULL, &text), -ENOSYS);
        assert_non_null(strstr(dmab_last_error_json(), "-32601"));
        assert_int_equal(dmab_call(fixture->dmab, "coherent.free", "{\"alloc\":\"x\"}", &text), -EINVAL);
        assert_non_null(strstr(dmab_last_error_json(), "-32602"));
        assert_int_equal(dmab_call(fixture->dmab, "coherent.free", "{\"alloc\":1,\"wrong\":2}", &text), -EINVAL);
        assert_non_null(strstr(dmab_last_error(), "wrong"));
        assert_int_equal(dmab_call(fixture->dmab, "coherent.free", "{\"alloc\":123456}", &text), -ENOENT);
        expect_reason("unknown_handle");
        error = json_loads(dmab_last_error_json(), 0, NULL);
        assert_int_equal(json_integer_value(json_object_get(error, "code")), ENOENT);
        json_decref(error);
        assert_null(text);
        assert_int_equal(dmab_call(fixture->dmab, "broker.ping", "{}", &text), 0);
        assert_string_equal(text, "{}");
        free(text);
}

static void test_hello_keeps_the_session_and_bye_ends_it(void **state) {
        struct fixture *fixture = *state;
        dmab_t *dmab = connect_again(fixture);
        dmab_device_t *device = open_device(dmab, "x", DMAB_MASK(64));
        dmab_addr_t dma;
        json_t *hello;
        void *vaddr;

        assert_int_equal(dmab_alloc_coherent(device, PAGE, 0, &vaddr, &dma), 0);
        hello = call(dmab, "broker.hello", NULL);
        assert_string_equal(json_string_value(json_object_get(hello, "owner")), dmab_owner(dmab));
        json_decref(hello);
        assert_int_equal(dmab_free_coherent(device, PAGE, vaddr, dma), 0);
        assert_int_equal(dmab_alloc_coherent(device, PAGE, 0, &vaddr, &dma), 0);
        json_decref(call(dmab, "broker.bye", NULL));
        assert_int_equal(usage(fixture->dmab, "allocs"), 0);
        assert_int_equal(dmab_call(dmab, "broker.ping", NULL, NULL), -ESTALE);
        dmab_disconnect(dmab);
}

/* ---- many threads, lost connections ---- */

struct hammer {
        pthread_t thread;
        struct fixture *fixture;
        unsigned char mark;
        size_t rounds, done; /* done: atomic */
        int status;
        bool spoiled;
};

/* Two allocations at a time, filled with a mark of one's own: memory that is somebody else's too would show. */
static void *hammer_main(void *pointer) {
        struct hammer *hammer = pointer;

        for (size_t i = 0; i < hammer->rounds && !hammer->status; i++) {
                dmab_device_t *device = hammer->fixture->device;
                size_t size[2] = { PAGE * (1 + i % 7), PAGE * (1 + i % 3) };
                dmab_addr_t dma[2];
                void *vaddr[2];

                for (size_t k = 0; k < 2 && !hammer->status; k++) {
                        hammer->status = dmab_alloc_coherent(device, size[k], DMAB_WAIT, &vaddr[k], &dma[k]);
                        if (!hammer->status)
                                memset(vaddr[k], hammer->mark, size[k]);
                }
                for (size_t k = 0; k < 2 && !hammer->status; k++) {
                        for (size_t b = 0; b < size[k]; b += 64)
                                hammer->spoiled |= ((unsigned char *)vaddr[k])[b] != hammer->mark;
                        hammer->status = dmab_free_coherent(device, size[k], vaddr[k], dma[k]);
                }
                __atomic_fetch_add(&hammer->done, 1, __ATOMIC_RELAXED);
        }
        return NULL;
}

static void hammer_start(struct hammer *hammers, size_t n, struct fixture *fixture, size_t rounds) {
        for (size_t i = 0; i < n; i++) {
                hammers[i] = (struct hammer){ .fixture = fixture, .mark = i + 1, .rounds = rounds };
                assert_int_equal(pthread_create(&hammers[i].thread, NULL, hammer_main, &hammers[i]), 0);
        }
}

static size_t hammer_done(struct hammer *hammers, size_t n) {
        size_t done = 0;

        for (size_t i = 0; i < n; i++)
                done += __atomic_load_n(&hammers[i].done, __ATOMIC_RELAXED);
        return done;
}

static void hammer_end(struct hammer *hammers, size_t n) {
        for (size_t i = 0; i < n; i++) {
                assert_int_equal(pthread_join(hammers[i].thread, NULL), 0);
                assert_int_equal(hammers[i].status, 0);
                assert_false(hammers[i].spoiled);
        }
}

static void test_threads_share_one_session(void **state) {
        struct fixture *fixture = *state;
        struct hammer hammers[8];

        hammer_start(hammers, 8, fixture, 200);
        hammer_end(hammers, 8);
        assert_int_equal(usage(fixture->dmab, "allocs"), 0);
}

/* Cut the library's connections, as a network would: the daemon lives on. */
static size_t cut_connections(const struct fixture *fixture) {
        DIR *directory = opendir("/proc/self/fd");
        struct dirent *entry;
        size_t n = 0;

        assert_non_null(directory);
        while ((entry = readdir(directory))) {
                struct sockaddr_un peer = { 0 };
                socklen_t size = sizeof(peer);
                int fd = atoi(entry->d_name);

                if (!getpeername(fd, (struct sockaddr *)&peer, &size) && peer.sun_family == AF_UNIX &&
                    !strcmp(peer.sun_path, test_daemon_socket(fixture->daemon)))
                        n += !shutdown(fd, SHUT_RDWR);
        }
        closedir(directory);
        return n;
}

static void test_a_cut_connection_is_made_again_and_the_session_goes_on(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma;
        void *vaddr;

        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, 0, &vaddr, &dma), 0);
        strcpy(vaddr, "before");
        assert_int_equal(cut_connections(fixture), 1);
        assert_string_equal(vaddr, "before");
        assert_int_equal(usage(fixture->dmab, "allocs"), 1);
        assert_int_equal(cut_connections(fixture), 1);
        assert_int_equal(dmab_free_coherent(fixture->device, PAGE, vaddr, dma), 0);
        assert_int_equal(usage(fixture->dmab, "allocs"), 0);
}

static void test_cutting_again_and_again_loses_nothing_and_takes_nothing_twice(void **state) {
        struct fixture *fixture = *state;
        struct hammer hammers[4];

        hammer_start(hammers, 4, fixture, 100);
        for (size_t i = 0; i < 20; i++) {
                size_t before = hammer_done(hammers, 4);

                cut_connections(fixture);
                /* No network is cut so often that nobody ever gets through. */
                do
                        assert_int_equal(dmab_call(fixture->dmab, "broker.ping", NULL, NULL), 0);
                while (hammer_done(hammers, 4) < before + 4 && hammer_done(hammers, 4) < 400);
        }
        hammer_end(hammers, 4);
        assert_int_equal(usage(fixture->dmab, "allocs"), 0);
        assert_int_equal(usage(fixture->dmab, "bytes"), 0);
}

static void test_a_new_daemon_does_not_know_the_session_and_one_can_begin_anew(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma;
        void *vaddr;

        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, 0, &vaddr, &dma), 0);
        strcpy(vaddr, "before");
        assert_int_equal(test_daemon_kill(fixture->daemon), 0);
        assert_string_equal(vaddr, "before");
        assert_int_equal(test_daemon_start_again(fixture->daemon), 0);
        assert_int_equal(dmab_call(fixture->dmab, "broker.ping", NULL, NULL), -ESTALE);
        assert_string_equal(vaddr, "before");
        assert_int_equal(dmab_free_coherent(fixture->device, PAGE, vaddr, dma), -ESTALE);
        dmab_disconnect(fixture->dmab);
        fixture->dmab = connect_again(fixture);
        assert_int_equal(usage(fixture->dmab, "allocs"), 0);
}

/* ---- other users ---- */

static void in_the_child(const struct fixture *fixture, unsigned long long alloc, unsigned long long region) {
        dmab_device_t *device;
        dmab_addr_t dma;
        char params[64];
        dmab_t *dmab;
        void *vaddr;

        if (setgid(65534) || setuid(65534) || dmab_connect(fixture->uri, &dmab))
                _exit(1);
        if (dmab_device_open(dmab, "mine", NULL, &device) || dmab_alloc_coherent(device, PAGE, 0, &vaddr, &dma))
                _exit(2);
        for (size_t i = 0; i < PAGE; i++)
                if (((char *)vaddr)[i])
                        _exit(3);
        memset(vaddr, 1, PAGE);
        snprintf(params, sizeof(params), "{\"alloc\":%llu}", alloc);
        if (dmab_call(dmab, "coherent.free", params, NULL) != -ENOENT || strcmp(dmab_last_reason(), "unknown_handle"))
                _exit(4);
        snprintf(params, sizeof(params), "{\"region\":%llu}", region);
        if (dmab_call(dmab, "region.get", params, NULL) != -ENOENT)
                _exit(5);
        if (dmab_free_coherent(device, PAGE, vaddr, dma) || dmab_device_close(device))
                _exit(6);
        dmab_disconnect(dmab);
        _exit(0);
}

static void test_another_user_has_memory_of_its_own_and_no_others(void **state) {
        struct fixture *fixture = *state;
        struct dmab_coherent_info info = DMAB_COHERENT_INFO_INIT;
        dmab_addr_t dma;
        void *vaddr;
        int status;
        pid_t pid;

        if (geteuid()) {
                print_message("another user is needed, and only root can become one\n");
                skip();
        }
        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, 0, &vaddr, &dma), 0);
        assert_int_equal(dmab_coherent_info(fixture->device, vaddr, &info), 0);
        memset(vaddr, 0x11, PAGE);
        pid = fork();
        if (!pid)
                in_the_child(fixture, info.alloc, info.region);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        assert_int_equal(dmab_free_coherent(fixture->device, PAGE, vaddr, dma), 0);
}

static void test_an_allocation_moves_to_another_device_with_its_contents(void **state) {
        struct fixture *fixture = *state;
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        dmab_device_t *narrow, *elsewhere;
        dmab_addr_t dma, moved_dma, at;
        void *vaddr, *moved;
        dmab_t *other;

        options.mask = 0xffffff;
        assert_int_equal(dmab_device_open(fixture->dmab, "narrow", &options, &narrow), 0);
        assert_int_equal(dmab_alloc_coherent(fixture->device, MIB + 5, 0, &vaddr, &dma), 0);
        memset(vaddr, 0x5a, MIB + 5);

        assert_int_equal(dmab_move_coherent(fixture->device, MIB, vaddr, dma, narrow, 0, &moved, &moved_dma), -EINVAL);
        assert_int_equal(dmab_move_coherent(narrow, MIB + 5, vaddr, dma, narrow, 0, &moved, &moved_dma), -EXDEV);
        assert_int_equal(dmab_move_coherent(fixture->device, MIB + 5, vaddr, dma, narrow, DMAB_ZERO, &moved, &moved_dma),
                         -EINVAL);
        assert_int_equal(dmab_connect(fixture->uri, &other), 0);
        assert_int_equal(dmab_device_open(other, "card", NULL, &elsewhere), 0);
        assert_int_equal(dmab_move_coherent(fixture->device, MIB + 5, vaddr, dma, elsewhere, 0, &moved, &moved_dma), -EXDEV);
        dmab_disconnect(other);

        if (dmab_move_coherent(fixture->device, MIB + 5, vaddr, dma, narrow, DMAB_WAIT, &moved, &moved_dma))
                fail_msg("%s", dmab_last_error());
        assert_true(moved_dma + MIB + 4 <= 0xffffff);
        for (size_t i = 0; i < MIB + 5; i++)
                if (((char *)moved)[i] != 0x5a)
                        fail_msg("byte %zu has changed", i);
        assert_int_equal(dmab_dma_addr(narrow, (char *)moved + 9, &at), 0);
        assert_int_equal(at, moved_dma + 9);
        assert_int_equal(dmab_dma_addr(fixture->device, vaddr, &at), vaddr == moved ? -EXDEV : -EFAULT);
        assert_int_equal(dmab_free_coherent(narrow, MIB + 5, moved, moved_dma), 0);
        assert_int_equal(usage(fixture->dmab, "allocs"), 0);

        /* What cannot be moved stays. */
        assert_int_equal(dmab_alloc_coherent(fixture->device, 32 * MIB, 0, &vaddr, &dma), 0);
        memset(vaddr, 0x33, MIB);
        assert_true(dmab_move_coherent(fixture->device, 32 * MIB, vaddr, dma, narrow, 0, &moved, &moved_dma) < 0);
        assert_int_equal(*(char *)vaddr, 0x33);
        assert_int_equal(dmab_free_coherent(fixture->device, 32 * MIB, vaddr, dma), 0);
        assert_int_equal(dmab_device_close(narrow), 0);
}

static int never(const struct dmab_grant_info *info, void *userdata) {
        fail_msg("there is a grant %llu", (unsigned long long)info->grant);
        return 0;
}

/* Where there is Xen, a machine of its own proves them (tests/vm/xen-grant.c). */
static void test_without_xen_there_are_no_grants(void **state) {
        static const uint32_t refs[] = { 8, 9 };
        struct dmab_grant_options options = DMAB_GRANT_OPTIONS_INIT;
        struct fixture *fixture = *state;
        dmab_t *dmab = fixture->dmab;
        dmab_grant_t *grant;
        void *vaddr;

        if (access("/dev/xen/privcmd", F_OK) == 0)
                skip();
        assert_int_equal(dmab_grant_visit(dmab, NULL, never, NULL), -EOPNOTSUPP);
        assert_string_equal(dmab_last_reason(), "unsupported");
        /* Before anybody is asked. */
        assert_int_equal(dmab_grant_map(dmab, NULL, refs, 2, DMAB_TO_DEVICE, NULL, &vaddr, &grant), -EINVAL);
        assert_int_equal(dmab_grant_map(dmab, "vm", refs, 0, DMAB_TO_DEVICE, NULL, &vaddr, &grant), -EINVAL);
        assert_int_equal(dmab_grant_map(dmab, "vm", refs, 2, (enum dmab_direction)7, NULL, &vaddr, &grant), -EINVAL);
        options.notify = 8192;
        assert_int_equal(dmab_grant_map(dmab, "vm", refs, 2, DMAB_BIDIRECTIONAL, &options, &vaddr, &grant), -EINVAL);
        options.notify = 8191;
        assert_int_equal(dmab_grant_map(dmab, "vm", refs, 2, DMAB_TO_DEVICE, &options, &vaddr, &grant), -EINVAL);
        assert_int_equal(dmab_grant_share(dmab, "vm", 8192, DMAB_BIDIRECTIONAL, &options, &vaddr, &grant), -EINVAL);
        assert_non_null(strstr(dmab_last_error(), "notify"));
        assert_int_equal(dmab_grant_map(dmab, "vm", refs, 32769, DMAB_TO_DEVICE, NULL, &vaddr, &grant), -E2BIG);
        assert_non_null(strstr(dmab_last_error(), "32768"));
        assert_string_equal(dmab_last_reason(), "limit");
        assert_int_equal(dmab_grant_map(dmab, "vm", refs, SIZE_MAX / 4096 + 2, DMAB_TO_DEVICE, NULL, &vaddr, &grant), -E2BIG);
        assert_int_equal(dmab_grant_share(dmab, "vm", 128 * MIB + 1, DMAB_TO_DEVICE, NULL, &vaddr, &grant), -E2BIG);
        assert_non_null(strstr(dmab_last_error(), "32768"));
        assert_int_equal(dmab_grant_share(dmab, "vm", SIZE_MAX, DMAB_TO_DEVICE, NULL, &vaddr, &grant), -E2BIG);
        options.struct_size = 0;
        assert_int_equal(dmab_grant_share(dmab, "vm", 4096, DMAB_TO_DEVICE, &options, &vaddr, &grant), -EINVAL);
        assert_int_equal(dmab_grant_share(dmab, "vm", 0, DMAB_TO_DEVICE, NULL, &vaddr, &grant), -EINVAL);
        if (geteuid() != 0)
                return;
        assert_int_equal(dmab_grant_map(dmab, "vm", refs, 2, DMAB_BIDIRECTIONAL, NULL, &vaddr, &grant), -EOPNOTSUPP);
        assert_int_equal(dmab_grant_share(dmab, "vm", 4096, DMAB_TO_DEVICE, NULL, &vaddr, &grant), -EOPNOTSUPP);
}

static void test_an_allocation_is_swapped_out_and_in_again_within_its_constraints(void **state) {
        struct fixture *fixture = *state;
        struct dmab_coherent_attrs attrs = DMAB_COHERENT_ATTRS_INIT;
        dmab_swapped_t *swapped, *again;
        dmab_device_t *other;
        dmab_addr_t dma, at;
        void *vaddr;

        attrs.align = 2 * MIB;
        attrs.mask = 0xffffff;
        assert_int_equal(dmab_device_open(fixture->dmab, "other", NULL, &other), 0);
        assert_int_equal(dmab_alloc_coherent_attrs(fixture->device, MIB + 5, 0, &attrs, &vaddr, &dma), 0);
        memset(vaddr, 0x5a, MIB + 5);
        assert_int_equal(dmab_swap_out_coherent(fixture->device, MIB, vaddr, dma, &swapped), -EINVAL);
        assert_int_equal(dmab_swap_out_coherent(other, MIB + 5, vaddr, dma, &swapped), -EXDEV);
        if (dmab_swap_out_coherent(fixture->device, MIB + 5, vaddr, dma, &swapped))
                fail_msg("%s", dmab_last_error());
        assert_int_equal(usage(fixture->dmab, "allocs"), 1);
        assert_int_equal(usage(fixture->dmab, "bytes"), 0);
        assert_true(usage(fixture->dmab, "anonymous_bytes") >= MIB + 5);
        assert_int_equal(dmab_dma_addr(fixture->device, vaddr, &at), -EFAULT);
        assert_int_equal(dmab_swap_out_coherent(fixture->device, MIB + 5, vaddr, dma, &again), -EFAULT);

        assert_int_equal(dmab_swap_in_coherent(other, swapped, 0, &vaddr, &dma), -EXDEV);
        assert_int_equal(dmab_swap_in_coherent(fixture->device, swapped, DMAB_ZERO, &vaddr, &dma), -EINVAL);
        if (dmab_swap_in_coherent(fixture->device, swapped, DMAB_WAIT, &vaddr, &dma))
                fail_msg("%s", dmab_last_error());
        assert_int_equal(dma % (2 * MIB), 0);
        assert_true(dma + MIB + 4 <= 0xffffff);
        for (size_t i = 0; i < MIB + 5; i++)
                if (((char *)vaddr)[i] != 0x5a)
                        fail_msg("byte %zu has changed", i);
        assert_int_equal(dmab_dma_addr(fixture->device, (char *)vaddr + 9, &at), 0);
        assert_int_equal(at, dma + 9);
        assert_int_equal(dmab_swap_in_coherent(fixture->device, swapped, 0, &vaddr, &dma), -EFAULT);
        assert_int_equal(dmab_free_swapped(fixture->device, swapped), -EFAULT);

        /* What is freed or ends there is gone, and what somebody else has freed as well. */
        assert_int_equal(dmab_swap_out_coherent(fixture->device, MIB + 5, vaddr, dma, &swapped), 0);
        assert_int_equal(dmab_free_swapped(fixture->device, swapped), 0);
        assert_int_equal(usage(fixture->dmab, "allocs"), 0);
        assert_int_equal(dmab_alloc_coherent(other, PAGE, 0, &vaddr, &dma), 0);
        assert_int_equal(dmab_swap_out_coherent(other, PAGE, vaddr, dma, &swapped), 0);
        assert_int_equal(dmab_device_close(other), -EBUSY);
        assert_int_equal(dmab_device_close_force(other), 0);
        assert_int_equal(usage(fixture->dmab, "allocs"), 0);
        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, 0, &vaddr, &dma), 0);
        assert_int_equal(dmab_swap_out_coherent(fixture->device, PAGE, vaddr, dma, &swapped), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(allocated_memory_is_zeroed_mapped_and_the_regions_own),
                TEST(allocations_of_one_region_share_its_mapping_until_the_last_goes),
                TEST(every_address_in_an_allocation_has_its_dma_address),
                TEST(memory_of_every_kind_is_called_simulated_where_it_is),
                TEST(another_devices_memory_has_no_dma_address_for_this_one),
                TEST(alignment_boundary_and_mask_are_kept),
                TEST(an_allocation_moves_to_another_device_with_its_contents),
                TEST(without_xen_there_are_no_grants),
                TEST(an_allocation_is_swapped_out_and_in_again_within_its_constraints),
                TEST(what_can_never_be_is_refused_and_takes_nothing),
                TEST(flags_reach_the_daemon),
                TEST(waiting_ends_with_memory_or_at_the_deadline_and_holds_nobody_up),
                TEST(high_priority_may_use_the_reserve),
                TEST(a_free_that_does_not_fit_changes_nothing),
                TEST(what_somebody_else_freed_is_reported_and_unmapped),
                TEST(a_device_with_memory_is_not_closed_and_names_it),
                TEST(masks_are_asked_for_set_and_refused),
                TEST(a_device_says_what_it_is),
                TEST(structures_of_other_versions_are_understood_or_refused),
                TEST(reserved_memory_serves_its_device_alone),
                TEST(frames_are_exchanged_for_guests_of_xen_alone),
                TEST(calls_answer_with_the_protocols_errors),
                TEST(hello_keeps_the_session_and_bye_ends_it),
                TEST(threads_share_one_session),
                TEST(a_cut_connection_is_made_again_and_the_session_goes_on),
                TEST(cutting_again_and_again_loses_nothing_and_takes_nothing_twice),
                TEST(a_new_daemon_does_not_know_the_session_and_one_can_begin_anew),
                TEST(another_user_has_memory_of_its_own_and_no_others),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
