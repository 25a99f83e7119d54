/* Pools in the library against a real daemon on simulated memory. */
#include <dmabroker.h>
#include <errno.h>
#include <jansson.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/daemon.h"

enum { PAGE = 4096, MIB = 1 << 20 };

struct fixture {
        struct test_daemon *daemon;
        char uri[256];
        dmab_t *dmab;
        dmab_device_t *device;
};

static dmab_t *connect_again(const struct fixture *fixture) {
        dmab_t *dmab;

        assert_int_equal(dmab_connect(fixture->uri, &dmab), 0);
        return dmab;
}

static dmab_device_t *open_device(dmab_t *dmab, const char *name) {
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        dmab_device_t *device;

        assert_int_equal(dmab_device_open(dmab, name, &options, &device), 0);
        return device;
}

static int set_up_with(void **state, const char *config) {
        struct test_daemon_options options = { .open_directory = true, .config = config };
        struct fixture *fixture = calloc(1, sizeof(*fixture));

        unsetenv("DMAB_DEBUG");
        if (!fixture || test_daemon_start(&options, &fixture->daemon))
                return -1;
        snprintf(fixture->uri, sizeof(fixture->uri), "unix:%s", test_daemon_socket(fixture->daemon));
        fixture->dmab = connect_again(fixture);
        fixture->device = open_device(fixture->dmab, "card");
        *state = fixture;
        return 0;
}

static int set_up(void **state) {
        return set_up_with(state, "[daemon]\naccess = everyone\n");
}

static int tear_down(void **state) {
        struct fixture *fixture = *state;
        int r;

        dmab_disconnect(fixture->dmab);
        r = test_daemon_end(fixture->daemon);
        free(fixture);
        return r;
}

static void expect_reason(const char *reason) {
        assert_non_null(dmab_last_reason());
        assert_string_equal(dmab_last_reason(), reason);
        assert_true(strlen(dmab_last_error()) > 10);
}

static dmab_pool_t *make_pool(struct fixture *fixture, size_t size, size_t max_blocks) {
        struct dmab_pool_options options = DMAB_POOL_OPTIONS_INIT;
        dmab_pool_t *pool;

        options.max_blocks = max_blocks;
        if (dmab_pool_create("blocks", fixture->device, size, 0, 0, &options, &pool))
                fail_msg("%s", dmab_last_error());
        return pool;
}

static struct dmab_pool_info info_of(dmab_pool_t *pool) {
        struct dmab_pool_info info = DMAB_POOL_INFO_INIT;

        assert_int_equal(dmab_pool_info(pool, &info), 0);
        return info;
}

/* A number from the daemon's side of a pool. */
static long long daemon_says(dmab_t *dmab, const dmab_pool_t *pool, const char *member) {
        char params[64], *text = NULL;
        json_t *result;
        long long value;

        snprintf(params, sizeof(params), "{\"pool\":%llu}", (unsigned long long)dmab_pool_handle(pool));
        if (dmab_call(dmab, "pool.stats", params, &text))
                fail_msg("%s", dmab_last_error());
        result = json_loads(text, 0, NULL);
        value = json_integer_value(json_object_get(result, member));
        json_decref(result);
        free(text);
        return value;
}

/* ---- blocks ---- */

static void test_blocks_are_aligned_apart_and_have_their_dma_addresses(void **state) {
        struct fixture *fixture = *state;
        enum { N = 300 };
        dmab_pool_t *pool = make_pool(fixture, 100, 0);
        void *vaddrs[N];
        dmab_addr_t dmas[N], dma;

        assert_int_equal(info_of(pool).block_size, 128);
        for (size_t i = 0; i < N; i++) {
                assert_int_equal(dmab_pool_alloc(pool, 0, &vaddrs[i], &dmas[i]), 0);
                assert_int_equal(dmas[i] % 64, 0);
                assert_int_equal(dmab_dma_addr(fixture->device, vaddrs[i], &dma), 0);
                assert_int_equal(dma, dmas[i]);
                memset(vaddrs[i], (int)i, 128);
        }
        for (size_t i = 0; i < N; i++)
                for (size_t at = 0; at < 128; at++)
                        assert_int_equal(((unsigned char *)vaddrs[i])[at], (unsigned char)i);
        assert_int_equal(info_of(pool).used, N);
        for (size_t i = 0; i < N; i++)
                assert_int_equal(dmab_pool_free(pool, vaddrs[i], dmas[i]), 0);
        assert_int_equal(info_of(pool).used, 0);
        assert_int_equal(dmab_pool_destroy(pool), 0);
}

static void test_blocks_keep_a_boundary_that_leaves_gaps(void **state) {
        struct fixture *fixture = *state;
        enum { N = 400 };
        dmab_pool_t *pool;
        void *vaddrs[N];
        dmab_addr_t dmas[N];

        assert_int_equal(dmab_pool_create("gaps", fixture->device, 96, 32, 1024, NULL, &pool), 0);
        for (size_t i = 0; i < N; i++) {
                assert_int_equal(dmab_pool_alloc(pool, 0, &vaddrs[i], &dmas[i]), 0);
                assert_int_equal(dmas[i] / 1024, (dmas[i] + 95) / 1024);
        }
        for (size_t i = 0; i < N; i++)
                assert_int_equal(dmab_pool_free(pool, vaddrs[i], dmas[i]), 0);
        assert_int_equal(dmab_pool_destroy(pool), 0);
}

static void test_a_block_is_zeroed_when_it_is_wanted_so(void **state) {
        struct fixture *fixture = *state;
        dmab_pool_t *pool = make_pool(fixture, 256, 0);
        dmab_addr_t dma;
        char *vaddr;

        assert_int_equal(dmab_pool_alloc(pool, 0, (void **)&vaddr, &dma), 0);
        memset(vaddr, 0x55, 256);
        assert_int_equal(dmab_pool_free(pool, vaddr, dma), 0);
        assert_int_equal(dmab_pool_alloc(pool, DMAB_ZERO, (void **)&vaddr, &dma), 0);
        for (size_t i = 0; i < 256; i++)
                assert_int_equal(vaddr[i], 0);
        assert_int_equal(dmab_pool_free(pool, vaddr, dma), 0);
}

static void test_what_is_at_hand_needs_no_call(void **state) {
        struct fixture *fixture = *state;
        dmab_pool_t *pool = make_pool(fixture, 2048, 0);
        uint64_t leases;
        dmab_addr_t dma;
        void *vaddr;

        assert_int_equal(dmab_pool_alloc(pool, 0, &vaddr, &dma), 0);
        assert_int_equal(dmab_pool_free(pool, vaddr, dma), 0);
        leases = info_of(pool).leases;
        /* The daemon cannot answer now. */
        assert_int_equal(test_daemon_signal(fixture->daemon, SIGSTOP), 0);
        for (size_t i = 0; i < 100000; i++) {
                assert_int_equal(dmab_pool_alloc(pool, DMAB_NOWAIT, &vaddr, &dma), 0);
                assert_int_equal(dmab_pool_free(pool, vaddr, dma), 0);
        }
        assert_int_equal(test_daemon_signal(fixture->daemon, SIGCONT), 0);
        assert_int_equal(info_of(pool).leases, leases);
        assert_int_equal(dmab_pool_destroy(pool), 0);
}

/* ---- refused ---- */

static void test_a_pool_that_can_never_be_is_refused(void **state) {
        struct fixture *fixture = *state;
        struct dmab_pool_options options = DMAB_POOL_OPTIONS_INIT;
        dmab_pool_t *pool;

        assert_int_equal(dmab_pool_create("p", fixture->device, 0, 0, 0, NULL, &pool), -EINVAL);
        assert_int_equal(dmab_pool_create("p", fixture->device, 64, 3, 0, NULL, &pool), -EINVAL);
        assert_int_equal(dmab_pool_create("p", fixture->device, 64, 0, 3000, NULL, &pool), -EINVAL);
        assert_int_equal(dmab_pool_create("p", fixture->device, 4096, 0, 1024, NULL, &pool), -EINVAL);
        expect_reason("boundary");
        assert_int_equal(dmab_pool_create("", fixture->device, 64, 0, 0, NULL, &pool), -EINVAL);
        assert_int_equal(dmab_pool_create("p", NULL, 64, 0, 0, NULL, &pool), -EINVAL);
        assert_true(dmab_pool_create("p", fixture->device, (size_t)1 << 40, 0, 0, NULL, &pool) < 0);
        options.caching = DMAB_UNCACHED;
        assert_int_equal(dmab_pool_create("p", fixture->device, 64, 0, 0, &options, &pool), -EOPNOTSUPP);
        expect_reason("unsupported");
}

static void test_flags_that_make_no_sense_are_refused(void **state) {
        struct fixture *fixture = *state;
        dmab_pool_t *pool = make_pool(fixture, 64, 0);
        dmab_addr_t dma;
        void *vaddr;

        for (int warm = 0; warm < 2; warm++) {
                assert_int_equal(dmab_pool_alloc(pool, DMAB_NOWAIT | DMAB_WAIT, &vaddr, &dma), -EINVAL);
                assert_int_equal(dmab_pool_alloc(pool, 1u << 20, &vaddr, &dma), -EINVAL);
                assert_int_equal(dmab_pool_alloc(pool, DMAB_SHAREABLE, &vaddr, &dma), -EOPNOTSUPP);
                assert_int_equal(dmab_pool_alloc(pool, 0, &vaddr, &dma), 0);
                assert_int_equal(dmab_pool_free(pool, vaddr, dma), 0);
        }
        assert_int_equal(dmab_pool_alloc(NULL, 0, &vaddr, &dma), -EINVAL);
        assert_int_equal(dmab_pool_free(NULL, vaddr, dma), -EINVAL);
}

static void test_a_wrong_free_is_told_and_changes_nothing(void **state) {
        struct fixture *fixture = *state;
        dmab_pool_t *pool = make_pool(fixture, 192, 0), *other;
        dmab_addr_t dma, dma_other;
        void *vaddr, *vaddr_other;

        assert_int_equal(dmab_pool_create("others", fixture->device, 192, 0, 0, NULL, &other), 0);
        assert_int_equal(dmab_pool_alloc(pool, 0, &vaddr, &dma), 0);
        assert_int_equal(dmab_pool_alloc(other, 0, &vaddr_other, &dma_other), 0);
        assert_int_equal(dmab_pool_free(pool, vaddr_other, dma_other), -EFAULT);
        assert_non_null(strstr(dmab_last_error(), "others"));
        assert_int_equal(dmab_pool_free(pool, (char *)vaddr + 64, dma + 64), -EFAULT);
        assert_int_equal(dmab_pool_free(pool, (char *)vaddr + 1, dma + 1), -EFAULT);
        assert_int_equal(dmab_pool_free(pool, vaddr, dma + 192), -EFAULT);
        assert_int_equal(dmab_pool_free(pool, &dma, dma), -EFAULT);
        assert_int_equal(dmab_pool_free(pool, NULL, dma), -EFAULT);
        expect_reason("bad_address");
        assert_int_equal(info_of(pool).used, 1);
        assert_int_equal(dmab_pool_free(pool, vaddr, dma), 0);
        assert_int_equal(dmab_pool_free(pool, vaddr, dma), -EINVAL);
        expect_reason("double_free");
        assert_non_null(strstr(dmab_last_error(), "card"));
        assert_int_equal(dmab_pool_free(other, vaddr_other, dma_other), 0);
        assert_int_equal(dmab_pool_destroy(other), 0);
        assert_int_equal(dmab_pool_destroy(pool), 0);
}

static void test_a_block_that_another_thread_has_at_hand_is_no_ones(void **state) {
        struct fixture *fixture = *state;
        dmab_pool_t *pool = make_pool(fixture, 4096, 64);
        dmab_addr_t dmas[200];
        void *vaddrs[200];
        size_t n = 0;

        while (n < 200 && !dmab_pool_alloc(pool, DMAB_NOWAIT, &vaddrs[n], &dmas[n]))
                n++;
        assert_int_equal(n, 64);
        while (n--)
                assert_int_equal(dmab_pool_free(pool, vaddrs[n], dmas[n]), 0);
        assert_int_equal(dmab_pool_free(pool, vaddrs[0], dmas[0]), -EINVAL);
        assert_int_equal(dmab_pool_trim(pool), 0);
        assert_int_equal(dmab_pool_free(pool, vaddrs[0], dmas[0]), -EFAULT);
        assert_int_equal(dmab_pool_destroy(pool), 0);
}

/* ---- bulk ---- */

static void test_in_bulk_it_is_all_or_none(void **state) {
        struct fixture *fixture = *state;
        dmab_pool_t *pool = make_pool(fixture, 1024, 96);
        dmab_addr_t dmas[128], dma;
        void *vaddrs[128], *vaddr;

        assert_int_equal(dmab_pool_alloc_bulk(pool, 0, 0, vaddrs, dmas), 0);
        assert_int_equal(dmab_pool_alloc_bulk(pool, 0, 97, vaddrs, dmas), -E2BIG);
        assert_int_equal(info_of(pool).used, 0);
        assert_int_equal(dmab_pool_alloc_bulk(pool, 0, 96, vaddrs, dmas), 0);
        assert_int_equal(dmab_pool_alloc(pool, 0, &vaddr, &dma), -E2BIG);
        expect_reason("limit");
        for (size_t i = 0; i < 96; i++)
                for (size_t j = 0; j < i; j++)
                        assert_ptr_not_equal(vaddrs[i], vaddrs[j]);
        vaddr = vaddrs[50];
        vaddrs[50] = &dma;
        assert_int_equal(dmab_pool_free_bulk(pool, 96, vaddrs, dmas), -EFAULT);
        assert_int_equal(info_of(pool).used, 96);
        vaddrs[50] = vaddr;
        dmas[7] += 1024;
        assert_int_equal(dmab_pool_free_bulk(pool, 96, vaddrs, dmas), -EFAULT);
        dmas[7] -= 1024;
        assert_int_equal(dmab_pool_free_bulk(pool, 0, vaddrs, dmas), 0);
        assert_int_equal(dmab_pool_free_bulk(pool, 96, vaddrs, dmas), 0);
        assert_int_equal(info_of(pool).used, 0);
        assert_int_equal(dmab_pool_destroy(pool), 0);
}

static void test_a_block_freed_in_bulk_and_once_more_is_found_out(void **state) {
        struct fixture *fixture = *state;
        dmab_pool_t *pool = make_pool(fixture, 1024, 0);
        dmab_addr_t dmas[32], dma;
        void *vaddrs[32], *vaddr;

        assert_int_equal(dmab_pool_alloc_bulk(pool, 0, 32, vaddrs, dmas), 0);
        assert_int_equal(dmab_pool_alloc(pool, 0, &vaddr, &dma), 0);
        assert_int_equal(dmab_pool_free_bulk(pool, 32, vaddrs, dmas), 0);
        assert_int_equal(dmab_pool_free(pool, vaddr, dma), 0); /* marks what came in bulk */
        assert_int_equal(dmab_pool_free(pool, vaddrs[3], dmas[3]), -EINVAL);
        expect_reason("double_free");
        assert_int_equal(dmab_pool_destroy(pool), 0);
}

/* ---- shortage ---- */

struct worker {
        pthread_t thread;
        dmab_device_t *device;
        dmab_pool_t *pool;
        unsigned flags;
        int to_us[2], to_worker[2]; /* pipes: it is there; it may go on */
        int status;
        void *vaddr;
        dmab_addr_t dma;
};

static void tell(int fd) {
        assert_int_equal(write(fd, "", 1), 1);
}

static void hear(int fd) {
        char byte;

        assert_int_equal(read(fd, &byte, 1), 1);
}

/* Has blocks at hand, and stays. */
static void *hoard(void *pointer) {
        struct worker *worker = pointer;

        worker->status = dmab_pool_alloc(worker->pool, 0, &worker->vaddr, &worker->dma);
        if (!worker->status)
                worker->status = dmab_pool_free(worker->pool, worker->vaddr, worker->dma);
        tell(worker->to_us[1]);
        hear(worker->to_worker[0]);
        return NULL;
}

static void test_blocks_at_hand_of_another_thread_are_found_before_anybody_fails(void **state) {
        struct fixture *fixture = *state;
        dmab_pool_t *pool = make_pool(fixture, 1024, 64);
        struct worker worker = { .pool = pool };
        dmab_addr_t dmas[64];
        void *vaddrs[64];

        assert_int_equal(pipe(worker.to_us), 0);
        assert_int_equal(pipe(worker.to_worker), 0);
        assert_int_equal(pthread_create(&worker.thread, NULL, hoard, &worker), 0);
        hear(worker.to_us[0]);
        assert_int_equal(worker.status, 0);
        assert_true(info_of(pool).at_hand > 0);
        for (size_t i = 0; i < 64; i++)
                assert_int_equal(dmab_pool_alloc(pool, DMAB_NOWAIT, &vaddrs[i], &dmas[i]), 0);
        tell(worker.to_worker[1]);
        pthread_join(worker.thread, NULL);
        assert_int_equal(dmab_pool_free_bulk(pool, 64, vaddrs, dmas), 0);
        assert_int_equal(dmab_pool_destroy(pool), 0);
        for (int i = 0; i < 2; i++) {
                close(worker.to_us[i]);
                close(worker.to_worker[i]);
        }
}

/* From now on, the kernel refuses membarrier(2) to all threads. */
static bool lock_in(void) {
        struct sock_filter code[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = { .len = sizeof(code) / sizeof(*code), .filter = code };

        return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
               !syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
}

/* In a process of its own. 0: another thread has kept what it had at hand, and everybody could go on. */
static int take_all_locked_in(dmab_pool_t *pool, struct worker *worker) {
        struct dmab_pool_info info = DMAB_POOL_INFO_INIT;
        dmab_addr_t dmas[64];
        size_t at_hand, n = 0;
        void *vaddrs[64];

        if (pthread_create(&worker->thread, NULL, hoard, worker))
                return 1;
        hear(worker->to_us[0]);
        if (worker->status || dmab_pool_info(pool, &info) || !info.at_hand)
                return 2;
        at_hand = info.at_hand;
        if (!lock_in())
                return 77;
        while (n < 64 && !dmab_pool_alloc(pool, DMAB_NOWAIT, &vaddrs[n], &dmas[n]))
                n++;
        if (n != 64 - at_hand)
                return 3;
        while (n)
                if (n--, dmab_pool_free(pool, vaddrs[n], dmas[n]))
                        return 4;
        tell(worker->to_worker[1]);
        pthread_join(worker->thread, NULL);
        return dmab_pool_destroy(pool) ? 5 : 0;
}

static void test_without_a_barrier_blocks_at_hand_stay_their_threads(void **state) {
        struct fixture *fixture = *state;
        struct dmab_pool_options options = DMAB_POOL_OPTIONS_INIT;
        struct worker worker = { 0 };
        dmab_device_t *device;
        dmab_t *dmab;
        int status;
        pid_t child;

        child = fork();
        if (!child) {
                options.max_blocks = 64;
                if (pipe(worker.to_us) || pipe(worker.to_worker) || dmab_connect(fixture->uri, &dmab) ||
                    dmab_device_open(dmab, "locked", NULL, &device) ||
                    dmab_pool_create("locked", device, 1024, 0, 0, &options, &worker.pool))
                        _exit(6);
                _exit(take_all_locked_in(worker.pool, &worker));
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
                skip();
        assert_int_equal(status, 0);
}

static void *alloc_one(void *pointer) {
        struct worker *worker = pointer;

        worker->status = dmab_pool_alloc(worker->pool, worker->flags, &worker->vaddr, &worker->dma);
        return NULL;
}

static void await_waits(dmab_pool_t *pool, uint64_t n) {
        while (info_of(pool).waits < n)
                ;
}

static void test_waiters_are_served_in_their_order_by_who_frees(void **state) {
        struct fixture *fixture = *state;
        enum { N = 8, WAITERS = 20 };
        dmab_pool_t *pool = make_pool(fixture, 1024, N);
        struct worker workers[WAITERS];
        dmab_addr_t dmas[N], dma;
        void *vaddrs[N], *vaddr;

        assert_int_equal(dmab_pool_alloc_bulk(pool, 0, N, vaddrs, dmas), 0);
        for (size_t i = 0; i < WAITERS; i++) {
                workers[i] = (struct worker){ .pool = pool, .flags = DMAB_WAIT };
                assert_int_equal(pthread_create(&workers[i].thread, NULL, alloc_one, &workers[i]), 0);
                await_waits(pool, i + 1);
        }
        assert_int_equal(dmab_pool_alloc(pool, DMAB_NOWAIT, &vaddr, &dma), -EAGAIN);
        expect_reason("would_block");
        vaddr = vaddrs[0];
        dma = dmas[0];
        for (size_t i = 0; i < WAITERS; i++) {
                assert_int_equal(dmab_pool_free(pool, vaddr, dma), 0);
                pthread_join(workers[i].thread, NULL);
                assert_int_equal(workers[i].status, 0);
                vaddr = workers[i].vaddr;
                dma = workers[i].dma;
        }
        assert_int_equal(dmab_pool_free(pool, vaddr, dma), 0);
        assert_int_equal(dmab_pool_free_bulk(pool, N - 1, vaddrs + 1, dmas + 1), 0);
        assert_int_equal(dmab_pool_destroy(pool), 0);
}

static void test_waiting_ends_at_the_devices_deadline(void **state) {
        struct fixture *fixture = *state;
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        struct dmab_pool_options limits = DMAB_POOL_OPTIONS_INIT;
        dmab_device_t *device;
        dmab_pool_t *pool;
        dmab_addr_t dma, other;
        void *vaddr;

        options.timeout_ms = 30;
        limits.max_blocks = 1;
        assert_int_equal(dmab_device_open(fixture->dmab, "hasty", &options, &device), 0);
        assert_int_equal(dmab_pool_create("one", device, 64, 0, 0, &limits, &pool), 0);
        assert_int_equal(dmab_pool_alloc(pool, 0, &vaddr, &dma), 0);
        assert_int_equal(dmab_pool_alloc(pool, DMAB_WAIT, &vaddr, &other), -ETIMEDOUT);
        expect_reason("timeout");
        /* And the pool goes on as before. */
        assert_int_equal(dmab_pool_free(pool, vaddr, dma), 0);
        assert_int_equal(dmab_pool_alloc(pool, DMAB_WAIT, &vaddr, &dma), 0);
        assert_int_equal(dmab_pool_free(pool, vaddr, dma), 0);
        assert_int_equal(dmab_pool_destroy(pool), 0);
        assert_int_equal(dmab_device_close(device), 0);
}

static void test_a_waiter_gets_what_another_process_gives_back(void **state) {
        struct fixture *fixture = *state;
        dmab_pool_t *pool = make_pool(fixture, 4096, 4), *theirs;
        dmab_t *other = connect_again(fixture);
        dmab_device_t *device = open_device(other, "card");
        struct worker worker = { .pool = pool, .flags = DMAB_WAIT };
        dmab_addr_t dmas[4];
        void *vaddrs[4];

        assert_int_equal(dmab_pool_open(device, dmab_pool_handle(pool), &theirs), 0);
        assert_int_equal(dmab_pool_alloc_bulk(theirs, 0, 4, vaddrs, dmas), 0);
        assert_int_equal(pthread_create(&worker.thread, NULL, alloc_one, &worker), 0);
        await_waits(pool, 1);
        while (!daemon_says(fixture->dmab, pool, "waiters"))
                ;
        assert_int_equal(dmab_pool_free_bulk(theirs, 4, vaddrs, dmas), 0);
        assert_int_equal(dmab_pool_destroy(theirs), 0);
        pthread_join(worker.thread, NULL);
        assert_int_equal(worker.status, 0);
        assert_int_equal(dmab_pool_free(pool, worker.vaddr, worker.dma), 0);
        dmab_disconnect(other);
        assert_int_equal(dmab_pool_destroy(pool), 0);
}

/* Stays until it may go: a thread that ends gives what it has at hand to those who wait. */
static void *alloc_one_and_stay(void *pointer) {
        struct worker *worker = pointer;

        worker->status = dmab_pool_alloc(worker->pool, worker->flags, &worker->vaddr, &worker->dma);
        tell(worker->to_us[1]);
        hear(worker->to_worker[0]);
        return NULL;
}

/* One of both threads takes a lease of all the blocks while the other one is told that there are none. */
static void test_what_is_left_of_a_lease_goes_to_who_waits(void **state) {
        struct fixture *fixture = *state;
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        struct dmab_pool_options limits = DMAB_POOL_OPTIONS_INIT;

        struct worker workers[2];

        options.timeout_ms = 3000;
        limits.max_blocks = 4;
        for (int i = 0; i < 30; i++) {
                dmab_t *dmab = connect_again(fixture);
                dmab_device_t *device;
                dmab_pool_t *pool;

                assert_int_equal(dmab_device_open(dmab, "card", &options, &device), 0);
                assert_int_equal(dmab_pool_create("few", device, PAGE, 0, 0, &limits, &pool), 0);
                for (int j = 0; j < 2; j++) {
                        workers[j] = (struct worker){ .pool = pool, .flags = DMAB_WAIT };
                        assert_int_equal(pipe(workers[j].to_us), 0);
                        assert_int_equal(pipe(workers[j].to_worker), 0);
                        assert_int_equal(pthread_create(&workers[j].thread, NULL, alloc_one_and_stay, &workers[j]), 0);
                }
                for (int j = 0; j < 2; j++) {
                        hear(workers[j].to_us[0]);
                        assert_int_equal(workers[j].status, 0);
                }
                for (int j = 0; j < 2; j++) {
                        tell(workers[j].to_worker[1]);
                        pthread_join(workers[j].thread, NULL);
                        for (int end = 0; end < 2; end++) {
                                close(workers[j].to_us[end]);
                                close(workers[j].to_worker[end]);
                        }
                }
                for (int j = 0; j < 2; j++)
                        assert_int_equal(dmab_pool_free(pool, workers[j].vaddr, workers[j].dma), 0);
                assert_int_equal(dmab_pool_destroy(pool), 0);
                dmab_disconnect(dmab);
        }
}

/* A device with that timeout, and a pool of `blocks` of which another session has all. */
struct taken {
        dmab_device_t *device;
        dmab_pool_t *pool, *theirs;
        dmab_t *other;
        void *vaddrs[8];
        dmab_addr_t dmas[8];
};

static void take_all(struct fixture *fixture, unsigned timeout_ms, size_t blocks, struct taken *taken) {
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        struct dmab_pool_options limits = DMAB_POOL_OPTIONS_INIT;

        options.timeout_ms = timeout_ms;
        limits.max_blocks = blocks;
        taken->other = connect_again(fixture);
        assert_int_equal(dmab_device_open(fixture->dmab, "taken", &options, &taken->device), 0);
        assert_int_equal(dmab_pool_create("taken", taken->device, PAGE, 0, 0, &limits, &taken->pool), 0);
        assert_int_equal(dmab_pool_open(open_device(taken->other, "taken"), dmab_pool_handle(taken->pool), &taken->theirs), 0);
        assert_int_equal(dmab_pool_alloc_bulk(taken->theirs, 0, blocks, taken->vaddrs, taken->dmas), 0);
}

static void give_all(struct taken *taken, size_t blocks) {
        assert_int_equal(dmab_pool_free_bulk(taken->theirs, blocks, taken->vaddrs, taken->dmas), 0);
        dmab_disconnect(taken->other);
}

static void test_threads_keep_blocks_at_hand_again_after_one_has_waited_in_vain(void **state) {
        struct fixture *fixture = *state;

        /* Either the daemon is the first to say so, or the library. */
        for (int i = 0; i < 10; i++) {
                struct taken taken;
                dmab_addr_t dma;
                void *vaddr;

                take_all(fixture, 20, 8, &taken);
                assert_int_equal(dmab_pool_alloc(taken.pool, DMAB_WAIT, &vaddr, &dma), -ETIMEDOUT);
                give_all(&taken, 8);
                assert_int_equal(dmab_pool_alloc(taken.pool, DMAB_WAIT, &vaddr, &dma), 0);
                assert_int_equal(dmab_pool_free(taken.pool, vaddr, dma), 0);
                assert_true(info_of(taken.pool).at_hand > 0);
                assert_int_equal(dmab_pool_destroy(taken.pool), 0);
                assert_int_equal(dmab_device_close(taken.device), 0);
        }
}

static void test_a_deadline_is_not_the_next_waiters(void **state) {
        struct fixture *fixture = *state;
        struct worker first = { .flags = DMAB_WAIT }, second = { .flags = DMAB_WAIT };
        struct taken taken, clock;
        dmab_addr_t dma;
        void *vaddr;

        take_all(fixture, 1000, 1, &clock);
        take_all(fixture, 2000, 1, &taken);
        first.pool = second.pool = taken.pool;
        assert_int_equal(pthread_create(&first.thread, NULL, alloc_one, &first), 0);
        while (!daemon_says(fixture->dmab, taken.pool, "waiters"))
                ;
        assert_int_equal(dmab_pool_alloc(clock.pool, DMAB_WAIT, &vaddr, &dma), -ETIMEDOUT); /* a second passes */
        assert_int_equal(pthread_create(&second.thread, NULL, alloc_one, &second), 0);
        await_waits(taken.pool, 2);
        /* The daemon says that the first has waited long enough when he has gone already. */
        assert_int_equal(test_daemon_signal(fixture->daemon, SIGSTOP), 0);
        pthread_join(first.thread, NULL);
        assert_int_equal(test_daemon_signal(fixture->daemon, SIGCONT), 0);
        assert_int_equal(first.status, -ETIMEDOUT);
        daemon_says(fixture->dmab, taken.pool, "waiters");
        give_all(&taken, 1);
        pthread_join(second.thread, NULL);
        assert_int_equal(second.status, 0);
        assert_int_equal(dmab_pool_free(taken.pool, second.vaddr, second.dma), 0);
        assert_int_equal(dmab_pool_destroy(taken.pool), 0);
        give_all(&clock, 1);
}

static void test_a_thread_that_waits_is_not_cancelled(void **state) {
        struct fixture *fixture = *state;
        dmab_pool_t *pool = make_pool(fixture, 1024, 1);
        struct worker worker = { .pool = pool, .flags = DMAB_WAIT };
        dmab_addr_t dma;
        void *vaddr;

        assert_int_equal(dmab_pool_alloc(pool, 0, &vaddr, &dma), 0);
        worker.status = 1;
        assert_int_equal(pthread_create(&worker.thread, NULL, alloc_one, &worker), 0);
        await_waits(pool, 1);
        pthread_cancel(worker.thread);
        alarm(20); /* a lock that a cancelled thread has kept is waited for for ever */
        assert_int_equal(dmab_pool_free(pool, vaddr, dma), 0);
        pthread_join(worker.thread, NULL);
        alarm(0);
        assert_int_equal(worker.status, 0);
        assert_int_equal(dmab_pool_free(pool, worker.vaddr, worker.dma), 0);
        assert_int_equal(dmab_pool_destroy(pool), 0);
}

static void *take_and_give(void *pointer) {
        struct worker *worker = pointer;
        dmab_addr_t dmas[64];
        void *vaddrs[64];

        while (!__atomic_load_n(&worker->flags, __ATOMIC_RELAXED) && !worker->status) {
                worker->status = dmab_pool_alloc_bulk(worker->pool, 0, 64, vaddrs, dmas);
                if (!worker->status)
                        worker->status = dmab_pool_free_bulk(worker->pool, 64, vaddrs, dmas);
        }
        return NULL;
}

static int count_visit(void *vaddr, dmab_addr_t dma, void *userdata) {
        assert_true(vaddr && dma);
        ++*(size_t *)userdata;
        return 0;
}

static void test_blocks_in_use_are_told_while_threads_go_on(void **state) {
        struct fixture *fixture = *state;
        dmab_pool_t *pool = make_pool(fixture, 1024, 0);
        struct worker worker = { .pool = pool };
        dmab_addr_t dma;
        void *vaddr;

        assert_int_equal(dmab_pool_alloc(pool, 0, &vaddr, &dma), 0);
        assert_int_equal(pthread_create(&worker.thread, NULL, take_and_give, &worker), 0);
        for (int i = 0; i < 20000; i++) {
                size_t n = 0;

                assert_int_equal(dmab_pool_visit_busy(pool, count_visit, &n), 0);
                assert_true(n >= 1 && n <= 65);
        }
        __atomic_store_n(&worker.flags, 1, __ATOMIC_RELAXED);
        pthread_join(worker.thread, NULL);
        assert_int_equal(worker.status, 0);
        assert_int_equal(dmab_pool_free(pool, vaddr, dma), 0);
        assert_int_equal(dmab_pool_destroy(pool), 0);
}

static void test_idle_leases_go_back_when_the_daemon_asks(void **state) {
        struct fixture *fixture = *state;
        dmab_pool_t *pool = make_pool(fixture, 4096, 32), *theirs;
        dmab_t *other = connect_again(fixture);
        dmab_device_t *device = open_device(other, "card");
        dmab_addr_t dmas[32], dma;
        void *vaddrs[32], *vaddr;

        assert_int_equal(dmab_pool_alloc_bulk(pool, 0, 32, vaddrs, dmas), 0);
        assert_int_equal(dmab_pool_free_bulk(pool, 32, vaddrs, dmas), 0);
        assert_int_equal(daemon_says(fixture->dmab, pool, "leased"), 32);
        assert_int_equal(dmab_pool_open(device, dmab_pool_handle(pool), &theirs), 0);
        assert_int_equal(dmab_pool_alloc(theirs, DMAB_WAIT, &vaddr, &dma), 0);
        assert_true(info_of(pool).recalls > 0);
        assert_int_equal(dmab_pool_free(theirs, vaddr, dma), 0);
        dmab_disconnect(other);
        assert_int_equal(dmab_pool_destroy(pool), 0);
}

static int set_up_growing(void **state) {
        return set_up_with(state, "[source sim]\nlayout = 64M@0x100000000\nreserve = 0\n");
}

static void test_what_threads_have_at_hand_goes_back_when_the_host_wants_memory(void **state) {
        struct fixture *fixture = *state;
        dmab_pool_t *pool = make_pool(fixture, 4096, 0);
        char *text = NULL;
        json_t *result;
        dmab_addr_t dma;
        void *vaddr;

        assert_int_equal(dmab_pool_alloc(pool, 0, &vaddr, &dma), 0);
        assert_int_equal(dmab_pool_free(pool, vaddr, dma), 0);
        assert_true(daemon_says(fixture->dmab, pool, "leased") > 0);
        if (dmab_call(fixture->dmab, "memory.release", "{\"wait_ms\":20000}", &text))
                fail_msg("%s", dmab_last_error());
        result = json_loads(text, 0, NULL);
        assert_true(json_integer_value(json_object_get(result, "released")) > 0);
        assert_int_equal(json_integer_value(json_object_get(result, "held")), 0);
        assert_true(info_of(pool).recalls > 0);
        json_decref(result);
        free(text);
        assert_int_equal(dmab_pool_alloc(pool, DMAB_WAIT, &vaddr, &dma), 0);
        assert_int_equal(dmab_pool_free(pool, vaddr, dma), 0);
        assert_int_equal(dmab_pool_destroy(pool), 0);
}

static int set_up_slow(void **state) {
        return set_up_with(state, "[quota default]\ncalls_per_second = 20\n");
}

static void test_giving_back_waits_for_its_turn_when_there_were_too_many_calls(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma;
        void *vaddr;

        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, DMAB_WAIT, &vaddr, &dma), 0);
        while (!dmab_call(fixture->dmab, "broker.ping", NULL, NULL))
                ;
        expect_reason("quota");
        assert_int_equal(dmab_free_coherent(fixture->device, PAGE, vaddr, dma), 0);
}

static void test_the_reserve_can_be_had_when_all_memory_is_taken(void **state) {
        struct fixture *fixture = *state;
        struct dmab_pool_options options = DMAB_POOL_OPTIONS_INIT;
        static dmab_addr_t dmas[4096];
        static void *vaddrs[4096];
        dmab_pool_t *pool;
        size_t n = 0;

        options.reserve = 40;
        assert_int_equal(dmab_pool_create("kept", fixture->device, 2048, 0, 0, &options, &pool), 0);
        for (size_t size = 8 * MIB; size >= PAGE; size /= 2)
                while (n < 4096 && !dmab_alloc_coherent(fixture->device, size, DMAB_NOWAIT, &vaddrs[n], &dmas[n]))
                        n++;
        for (size_t i = 0; i < 40; i++)
                assert_int_equal(dmab_pool_alloc(pool, DMAB_NOWAIT, &vaddrs[0], &dmas[0]), 0);
        assert_int_equal(dmab_pool_destroy_force(pool), 0);
}

/* ---- ending ---- */

static int count(void *vaddr, dmab_addr_t dma, void *userdata) {
        ++*(size_t *)userdata;
        return 0;
}

static int stop_at_first(void *vaddr, dmab_addr_t dma, void *userdata) {
        *(void **)userdata = vaddr;
        return 7;
}

static void test_a_busy_pool_is_not_destroyed_and_tells_its_blocks(void **state) {
        struct fixture *fixture = *state;
        dmab_pool_t *pool = make_pool(fixture, 512, 0);
        dmab_addr_t dmas[3];
        void *vaddrs[3], *first = NULL;
        char address[32];
        size_t n = 0;

        assert_int_equal(dmab_pool_alloc_bulk(pool, 0, 3, vaddrs, dmas), 0);
        assert_int_equal(dmab_pool_free(pool, vaddrs[1], dmas[1]), 0);
        assert_int_equal(dmab_pool_destroy(pool), -EBUSY);
        expect_reason("busy");
        assert_non_null(strstr(dmab_last_error(), "2 blocks"));
        assert_int_equal(dmab_pool_visit_busy(pool, count, &n), 0);
        assert_int_equal(n, 2);
        assert_int_equal(dmab_pool_visit_busy(pool, stop_at_first, &first), 7);
        assert_true(first == vaddrs[0] || first == vaddrs[2]);
        assert_int_equal(dmab_pool_free(pool, vaddrs[0], dmas[0]), 0);
        snprintf(address, sizeof(address), "%p", vaddrs[2]);
        assert_int_equal(dmab_pool_destroy(pool), -EBUSY);
        assert_non_null(strstr(dmab_last_error(), address));
        assert_int_equal(dmab_pool_destroy_force(pool), 0);
}

static void test_a_device_with_a_pool_is_not_closed_unless_by_force(void **state) {
        struct fixture *fixture = *state;
        dmab_device_t *device = open_device(fixture->dmab, "leaky");
        dmab_pool_t *pool;
        dmab_addr_t dma;
        void *vaddr;

        assert_int_equal(dmab_pool_create("left", device, 64, 0, 0, NULL, &pool), 0);
        assert_int_equal(dmab_pool_alloc(pool, 0, &vaddr, &dma), 0);
        assert_int_equal(dmab_device_close(device), -EBUSY);
        assert_non_null(strstr(dmab_last_error(), "left"));
        assert_int_equal(dmab_pool_free(pool, vaddr, dma), 0);
        assert_int_equal(dmab_device_close_force(device), 0);
}

/* Makes pools and allocations on a device of its own until it is told to stop. */
static void *use_other_memory(void *pointer) {
        struct worker *worker = pointer;
        dmab_device_t *device = worker->device;
        dmab_addr_t dmas[40], dma, found;
        dmab_pool_t *pool;
        void *vaddrs[40], *vaddr;
        int r = 0;

        while (!r && !__atomic_load_n(&worker->flags, __ATOMIC_RELAXED)) {
                r = dmab_pool_create("other", device, PAGE, 0, 0, NULL, &pool);
                if (!r)
                        r = dmab_pool_alloc_bulk(pool, 0, 40, vaddrs, dmas);
                if (!r)
                        r = dmab_alloc_coherent(device, 3 * PAGE, 0, &vaddr, &dma);
                if (!r)
                        r = dmab_dma_addr(device, vaddr, &found);
                if (!r && found != dma)
                        r = -EIO;
                if (!r)
                        r = dmab_free_coherent(device, 3 * PAGE, vaddr, dma);
                if (!r)
                        r = dmab_pool_free_bulk(pool, 40, vaddrs, dmas);
                if (!r)
                        r = dmab_pool_destroy(pool);
        }
        worker->status = r;
        return NULL;
}

static void test_memory_that_is_taken_by_force_may_be_another_threads_at_once(void **state) {
        struct fixture *fixture = *state;
        struct worker worker = { .device = fixture->device };
        dmab_addr_t dma;
        void *vaddr;

        assert_int_equal(pthread_create(&worker.thread, NULL, use_other_memory, &worker), 0);
        for (int i = 0; i < 200; i++) {
                dmab_device_t *device = open_device(fixture->dmab, "taken");
                dmab_pool_t *pool;

                assert_int_equal(dmab_pool_create("taken", device, PAGE, 0, 0, NULL, &pool), 0);
                for (int j = 0; j < 60; j++)
                        assert_int_equal(dmab_pool_alloc(pool, 0, &vaddr, &dma), 0);
                for (int j = 0; j < 4; j++)
                        assert_int_equal(dmab_alloc_coherent(device, 2 * PAGE, 0, &vaddr, &dma), 0);
                if (i % 2)
                        assert_int_equal(dmab_pool_destroy_force(pool), 0);
                assert_int_equal(dmab_device_close_force(device), 0);
        }
        __atomic_store_n(&worker.flags, 1, __ATOMIC_RELAXED);
        pthread_join(worker.thread, NULL);
        assert_int_equal(worker.status, 0);
}

static void test_a_session_may_end_with_blocks_in_use(void **state) {
        struct fixture *fixture = *state;
        dmab_t *dmab = connect_again(fixture);
        dmab_device_t *device = open_device(dmab, "other");
        dmab_pool_t *pool;
        dmab_addr_t dma;
        void *vaddr;

        for (int i = 0; i < 10; i++) {
                assert_int_equal(dmab_pool_create("many", device, 64 << i, 0, 0, NULL, &pool), 0);
                assert_int_equal(dmab_pool_alloc(pool, 0, &vaddr, &dma), 0);
        }
        dmab_disconnect(dmab);
}

static void *take_and_leave(void *pointer) {
        struct worker *worker = pointer;

        worker->status = dmab_pool_alloc(worker->pool, 0, &worker->vaddr, &worker->dma);
        return NULL;
}

static void test_a_thread_that_ends_leaves_nothing_at_hand(void **state) {
        struct fixture *fixture = *state;
        dmab_pool_t *pool = make_pool(fixture, 256, 0);

        for (int i = 0; i < 50; i++) {
                struct worker worker = { .pool = pool };

                assert_int_equal(pthread_create(&worker.thread, NULL, take_and_leave, &worker), 0);
                pthread_join(worker.thread, NULL);
                assert_int_equal(worker.status, 0);
                assert_int_equal(info_of(pool).at_hand, 0);
                assert_int_equal(info_of(pool).used, 1);
                assert_int_equal(dmab_pool_free(pool, worker.vaddr, worker.dma), 0);
                assert_int_equal(dmab_pool_trim(pool), 0);
        }
        assert_int_equal(daemon_says(fixture->dmab, pool, "leased"), 0);
        assert_int_equal(dmab_pool_destroy(pool), 0);
}

static void test_the_child_of_a_fork_may_only_disconnect(void **state) {
        struct fixture *fixture = *state;
        dmab_pool_t *pool = make_pool(fixture, 256, 0);
        dmab_addr_t dma, other;
        void *vaddr;
        int status;
        pid_t child;

        assert_int_equal(dmab_pool_alloc(pool, 0, &vaddr, &dma), 0);
        child = fork();
        if (!child) {
                void *more;

                if (dmab_pool_alloc(pool, 0, &more, &other) != -EINVAL || dmab_pool_free(pool, vaddr, dma) != -EINVAL ||
                    dmab_pool_destroy(pool) != -EINVAL)
                        _exit(1);
                dmab_disconnect(fixture->dmab);
                _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        assert_int_equal(dmab_pool_free(pool, vaddr, dma), 0);
        assert_int_equal(dmab_pool_destroy(pool), 0);
}

static void test_when_the_session_is_gone_no_block_is_given_out(void **state) {
        struct fixture *fixture = *state;
        struct test_daemon_options options = { .config = "[daemon]\naccess = everyone\n" };
        struct test_daemon *daemon;
        dmab_device_t *device;
        dmab_pool_t *pool;
        dmab_addr_t dma;
        void *vaddr;
        dmab_t *dmab;
        char uri[256];
        int r;

        assert_int_equal(test_daemon_start(&options, &daemon), 0);
        snprintf(uri, sizeof(uri), "unix:%s", test_daemon_socket(daemon));
        assert_int_equal(dmab_connect(uri, &dmab), 0);
        device = open_device(dmab, "card");
        assert_int_equal(dmab_pool_create("lost", device, 64, 0, 0, NULL, &pool), 0);
        assert_int_equal(dmab_pool_alloc(pool, 0, &vaddr, &dma), 0);
        assert_int_equal(test_daemon_kill(daemon), 0);
        assert_int_equal(test_daemon_start_again(daemon), 0);
        do {
                r = dmab_pool_free(pool, vaddr, dma);
                if (!r)
                        r = dmab_pool_alloc(pool, 0, &vaddr, &dma);
        } while (!r);
        assert_int_equal(r, -ESTALE);
        assert_int_equal(dmab_pool_alloc(pool, 0, &vaddr, &dma), -ESTALE);
        dmab_disconnect(dmab);
        assert_int_equal(test_daemon_end(daemon), 0);
        assert_non_null(fixture);
}

/* ---- DMAB_DEBUG ---- */

static FILE *errors;
static int real_stderr;

static void catch_errors(void) {
        fflush(stderr);
        real_stderr = dup(STDERR_FILENO);
        errors = tmpfile();
        assert_non_null(errors);
        assert_true(dup2(fileno(errors), STDERR_FILENO) >= 0);
        setenv("DMAB_DEBUG", "1", 1);
}

static void expect_complaint(const char *text) {
        char said[4096];
        size_t n;

        fflush(stderr);
        rewind(errors);
        n = fread(said, 1, sizeof(said) - 1, errors);
        said[n] = 0;
        dup2(real_stderr, STDERR_FILENO);
        close(real_stderr);
        fclose(errors);
        unsetenv("DMAB_DEBUG");
        if (text ? !strstr(said, text) : n)
                fail_msg("expected \"%s\", found \"%s\"", text ? text : "", said);
}

static void test_debug_tells_of_a_write_behind_a_block(void **state) {
        struct fixture *fixture = *state;
        dmab_pool_t *pool;
        dmab_addr_t dma;
        char *vaddr;

        catch_errors();
        pool = make_pool(fixture, 128, 0);
        assert_int_equal(dmab_pool_alloc(pool, 0, (void **)&vaddr, &dma), 0);
        assert_int_equal(info_of(pool).block_size, 128);
        vaddr[129] = 1;
        assert_int_equal(dmab_pool_free(pool, vaddr, dma), 0);
        expect_complaint("written to behind its end: byte 129 is 0x01");
        assert_int_equal(dmab_pool_destroy(pool), 0);
}

static void test_debug_tells_of_a_write_to_a_free_block(void **state) {
        struct fixture *fixture = *state;
        dmab_pool_t *pool;
        dmab_addr_t dma;
        char *vaddr;

        catch_errors();
        pool = make_pool(fixture, 128, 0);
        assert_int_equal(dmab_pool_alloc(pool, 0, (void **)&vaddr, &dma), 0);
        assert_int_equal(dmab_pool_free(pool, vaddr, dma), 0);
        vaddr[5] = 0x11;
        assert_int_equal(dmab_pool_alloc(pool, 0, (void **)&vaddr, &dma), 0);
        expect_complaint("written to while it was free: byte 5 is 0x11");
        assert_int_equal(dmab_pool_destroy_force(pool), 0);
}

static void test_debug_finds_a_double_free_in_bulk_at_once(void **state) {
        struct fixture *fixture = *state;
        dmab_pool_t *pool;
        dmab_addr_t dmas[4];
        void *vaddrs[4];

        catch_errors();
        pool = make_pool(fixture, 128, 0);
        assert_int_equal(dmab_pool_alloc_bulk(pool, DMAB_ZERO, 4, vaddrs, dmas), 0);
        assert_int_equal(((char *)vaddrs[2])[77], 0);
        vaddrs[3] = vaddrs[0];
        dmas[3] = dmas[0];
        assert_int_equal(dmab_pool_free_bulk(pool, 4, vaddrs, dmas), -EINVAL);
        expect_reason("double_free");
        assert_int_equal(info_of(pool).used, 4);
        assert_int_equal(dmab_pool_free_bulk(pool, 3, vaddrs, dmas), 0);
        expect_complaint(NULL);
        assert_int_equal(dmab_pool_destroy_force(pool), 0);
}

static void test_debug_lists_what_is_left(void **state) {
        struct fixture *fixture = *state;
        char address[64];
        dmab_pool_t *pool;
        dmab_addr_t dma;
        void *vaddr;

        catch_errors();
        pool = make_pool(fixture, 128, 0);
        assert_int_equal(dmab_pool_alloc(pool, 0, &vaddr, &dma), 0);
        snprintf(address, sizeof(address), "%p (0x%llx)", vaddr, (unsigned long long)dma);
        assert_int_equal(dmab_pool_destroy_force(pool), 0);
        expect_complaint(address);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(blocks_are_aligned_apart_and_have_their_dma_addresses),
                TEST(blocks_keep_a_boundary_that_leaves_gaps),
                TEST(a_block_is_zeroed_when_it_is_wanted_so),
                TEST(what_is_at_hand_needs_no_call),
                TEST(a_pool_that_can_never_be_is_refused),
                TEST(flags_that_make_no_sense_are_refused),
                TEST(a_wrong_free_is_told_and_changes_nothing),
                TEST(a_block_that_another_thread_has_at_hand_is_no_ones),
                TEST(in_bulk_it_is_all_or_none),
                TEST(a_block_freed_in_bulk_and_once_more_is_found_out),
                TEST(blocks_at_hand_of_another_thread_are_found_before_anybody_fails),
                TEST(without_a_barrier_blocks_at_hand_stay_their_threads),
                TEST(waiters_are_served_in_their_order_by_who_frees),
                TEST(waiting_ends_at_the_devices_deadline),
                TEST(a_waiter_gets_what_another_process_gives_back),
                TEST(what_is_left_of_a_lease_goes_to_who_waits),
                TEST(threads_keep_blocks_at_hand_again_after_one_has_waited_in_vain),
                TEST(a_deadline_is_not_the_next_waiters),
                TEST(a_thread_that_waits_is_not_cancelled),
                TEST(blocks_in_use_are_told_while_threads_go_on),
                TEST(idle_leases_go_back_when_the_daemon_asks),
                cmocka_unit_test_setup_teardown(test_what_threads_have_at_hand_goes_back_when_the_host_wants_memory,
                                                set_up_growing, tear_down),
                cmocka_unit_test_setup_teardown(test_giving_back_waits_for_its_turn_when_there_were_too_many_calls,
                                                set_up_slow, tear_down),
                TEST(the_reserve_can_be_had_when_all_memory_is_taken),
                TEST(a_busy_pool_is_not_destroyed_and_tells_its_blocks),
                TEST(a_device_with_a_pool_is_not_closed_unless_by_force),
                TEST(memory_that_is_taken_by_force_may_be_another_threads_at_once),
                TEST(a_session_may_end_with_blocks_in_use),
                TEST(a_thread_that_ends_leaves_nothing_at_hand),
                TEST(the_child_of_a_fork_may_only_disconnect),
                TEST(when_the_session_is_gone_no_block_is_given_out),
                TEST(debug_tells_of_a_write_behind_a_block),
                TEST(debug_tells_of_a_write_to_a_free_block),
                TEST(debug_finds_a_double_free_in_bulk_at_once),
                TEST(debug_lists_what_is_left),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
