/* The library in a guest, as far as that can be had without one: over a port and with windows of a test double, behind which is
 * a real daemon. */
#include <dmabroker.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/window.h"
#include "tests/client/guest-double.h"
#include "tests/client/load.h"
#include "tests/lib/daemon.h"

enum { PAGE = 4096, MIB = 1 << 20 };

struct fixture {
        struct test_daemon *daemon;
        struct guest *guest;
        char uri[160];
        dmab_t *dmab;
        dmab_device_t *device;
};

static int set_up(void **state) {
        struct fixture *fixture = calloc(1, sizeof(*fixture));

        if (!fixture || test_daemon_start(&(struct test_daemon_options){ .survives = true }, &fixture->daemon))
                return -1;
        fixture->guest = guest_start(test_daemon_socket(fixture->daemon));
        guest_plug(fixture->guest, 2 * MIB, false);
        window_set_devices(guest_devices(fixture->guest));
        snprintf(fixture->uri, sizeof(fixture->uri), "virtio:%s", guest_port(fixture->guest));
        *state = fixture;
        return 0;
}

static void begin(struct fixture *fixture) {
        if (dmab_connect(fixture->uri, &fixture->dmab))
                fail_msg("%s", dmab_last_error());
        assert_int_equal(dmab_device_open(fixture->dmab, "card", NULL, &fixture->device), 0);
}

static void end(struct fixture *fixture) {
        dmab_disconnect(fixture->dmab);
        fixture->dmab = NULL;
}

static int tear_down(void **state) {
        struct fixture *fixture = *state;
        int r;

        dmab_disconnect(fixture->dmab);
        guest_end(fixture->guest);
        r = test_daemon_end(fixture->daemon);
        free(fixture);
        return r;
}

static void expect_sentence(const char *text) {
        if (!strstr(dmab_last_error(), text))
                fail_msg("\"%s\" does not say \"%s\"", dmab_last_error(), text);
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

/* Of the guest. */
static size_t count_allocs(struct fixture *fixture) {
        json_t *list = call(fixture->dmab, "coherent.list", NULL);
        size_t n = json_array_size(json_object_get(list, "allocs"));

        json_decref(list);
        return n - guest_windows(fixture->guest);
}

/* An allocation on a thread of its own. */
struct task {
        pthread_t thread;
        dmab_device_t *device;
        int status;
        void *vaddr;
        dmab_addr_t dma;
        char error[512];
};

static void *task_run(void *pointer) {
        struct task *task = pointer;

        task->status = dmab_alloc_coherent(task->device, PAGE, DMAB_NOWAIT, &task->vaddr, &task->dma);
        snprintf(task->error, sizeof(task->error), "%s", task->status ? dmab_last_error() : "");
        return NULL;
}

static void task_start(struct task *task, dmab_device_t *device) {
        *task = (struct task){ .device = device };
        assert_int_equal(pthread_create(&task->thread, NULL, task_run, task), 0);
}

static void task_expect_success(struct task *task) {
        assert_int_equal(pthread_join(task->thread, NULL), 0);
        if (task->status)
                fail_msg("%s", task->error);
}

/* ---- memory ---- */

static dmab_t *connect_on_host(const struct fixture *fixture) {
        char uri[128];
        dmab_t *host;

        snprintf(uri, sizeof(uri), "unix:%s", test_daemon_socket(fixture->daemon));
        assert_int_equal(dmab_connect(uri, &host), 0);
        return host;
}

/* What the host sees where the daemon says that an address is. */
static void expect_host_sees(struct fixture *fixture, dmab_addr_t dma, const void *bytes, size_t n) {
        dmab_t *host = connect_on_host(fixture);
        char params[96], *memory;
        json_t *found;
        size_t n_fds;
        int fd;

        snprintf(params, sizeof(params), "{\"dma_addr\":\"0x%llx\"}", (unsigned long long)dma);
        found = call(host, "coherent.lookup", params);
        snprintf(params, sizeof(params), "{\"region\":%lld}",
                 (long long)json_integer_value(json_object_get(found, "region")));
        assert_int_equal(dmab_call_fds(host, "region.get", params, NULL, &fd, 1, &n_fds), 0);
        assert_int_equal(n_fds, 1);
        memory = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, (off_t)json_integer_value(json_object_get(found, "offset")));
        assert_true(memory != MAP_FAILED);
        assert_memory_equal(memory, bytes, n);
        munmap(memory, n);
        close(fd);
        json_decref(found);
        dmab_disconnect(host);
}

static void test_memory_of_every_kind_lies_in_windows_and_the_host_sees_it(void **state) {
        struct fixture *fixture = *state;
        static char buffer[3000];
        dmab_pool_t *pool;
        void *vaddr, *block, *any;
        dmab_addr_t dma, block_dma, any_dma, mapped;
        int fd = -1;

        guest_plug(fixture->guest, 32 * MIB, true);
        begin(fixture);
        assert_int_equal(dmab_alloc_coherent(fixture->device, 3 * PAGE, DMAB_ZERO, &vaddr, &dma), 0);
        memset(vaddr, 0x5a, 3 * PAGE);
        expect_host_sees(fixture, dma, vaddr, 3 * PAGE);
        assert_int_equal(dmab_pool_create("blocks", fixture->device, 64, 64, 0, NULL, &pool), 0);
        assert_int_equal(dmab_pool_alloc(pool, DMAB_WAIT, &block, &block_dma), 0);
        strcpy(block, "a block");
        assert_int_equal(dmab_alloc(fixture->device, 700, DMAB_WAIT, &any, &any_dma), 0);
        strcpy(any, "anything");
        for (size_t i = 0; i < sizeof(buffer); i++)
                buffer[i] = (char)(i * 7);
        assert_int_equal(dmab_set_mask(fixture->device, DMAB_MASK(32)), 0);
        assert_int_equal(dmab_map_single(fixture->device, buffer, sizeof(buffer), DMAB_BIDIRECTIONAL, &mapped), 0);
        assert_int_equal(dmab_unmap_single(fixture->device, mapped, sizeof(buffer), DMAB_BIDIRECTIONAL), 0);
        for (size_t i = 0; i < sizeof(buffer); i++)
                assert_int_equal(buffer[i], (char)(i * 7));
        assert_string_equal(block, "a block");
        assert_string_equal(any, "anything");
        assert_true(guest_binds(fixture->guest) >= 1);
        /* What is on the host stays there. */
        assert_int_equal(dmab_device_fd(fixture->device, &fd), -EOPNOTSUPP);
        expect_sentence("guest");
        assert_int_equal(fd, -1);
        assert_int_equal(dmab_free(fixture->device, any), 0);
        assert_int_equal(dmab_pool_free(pool, block, block_dma), 0);
        assert_int_equal(dmab_pool_destroy(pool), 0);
        assert_int_equal(dmab_free_coherent(fixture->device, 3 * PAGE, vaddr, dma), 0);
}

static void test_windows_that_come_later_are_found_and_bound(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma, later_dma;
        void *vaddr, *later;
        struct task task;
        unsigned binds;

        begin(fixture);
        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, DMAB_NOWAIT, &vaddr, &dma), 0);
        binds = guest_binds(fixture->guest);
        assert_int_equal(binds, 1);
        /* More than the first one has. */
        guest_plug(fixture->guest, 8 * MIB, false);
        assert_int_equal(dmab_alloc_coherent(fixture->device, 5 * MIB, DMAB_NOWAIT, &later, &later_dma), 0);
        assert_int_equal(guest_binds(fixture->guest), binds + 1);
        memset(later, 0x77, 5 * MIB);
        expect_host_sees(fixture, later_dma, later, 5 * MIB);
        /* The daemon has forgotten where they are: it is told, and asked again. */
        guest_unbind(fixture->guest);
        assert_int_equal(dmab_free_coherent(fixture->device, PAGE, vaddr, dma), 0);
        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, DMAB_NOWAIT, &vaddr, &dma), 0);
        assert_true(guest_binds(fixture->guest) >= binds + 3);
        assert_int_equal(count_allocs(fixture), 2);
        end(fixture);
        /* The broker is faster than the guest's kernel. */
        guest_unbind(fixture->guest);
        guest_break(fixture->guest, GUEST_NO_DEVICE);
        begin(fixture);
        task_start(&task, fixture->device);
        guest_break(fixture->guest, GUEST_FINE);
        task_expect_success(&task);
}

/* Whatever is taken first: nothing lies in the way yet. */
static void test_where_the_last_program_said_that_windows_are_is_not_believed(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma;
        dmab_pool_t *pool;
        char bytes[64];
        void *vaddr;

        begin(fixture);
        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, DMAB_NOWAIT, &vaddr, &dma), 0);
        end(fixture);
        guest_misplace(fixture->guest);
        begin(fixture);
        assert_int_equal(dmab_pool_create("blocks", fixture->device, 512, 0, 0, NULL, &pool), 0);
        assert_int_equal(dmab_pool_alloc(pool, DMAB_WAIT, &vaddr, &dma), 0);
        end(fixture);
        guest_misplace(fixture->guest);
        begin(fixture);
        assert_int_equal(dmab_map_single(fixture->device, bytes, sizeof(bytes), DMAB_TO_DEVICE, &dma), 0);
        end(fixture);
}

static void misplace_windows(struct fixture *fixture) {
        dmab_addr_t dma;
        void *vaddr;

        begin(fixture);
        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, DMAB_NOWAIT, &vaddr, &dma), 0);
        end(fixture);
        guest_misplace(fixture->guest);
}

static void take_a_block(struct fixture *fixture) {
        dmab_addr_t dma;
        dmab_pool_t *pool;
        void *vaddr;

        assert_int_equal(dmab_pool_create("blocks", fixture->device, 512, 0, 0, NULL, &pool), 0);
        assert_int_equal(dmab_pool_alloc(pool, DMAB_WAIT, &vaddr, &dma), 0);
}

/* Nothing was looked at, so it is before the next thing that is taken. */
static void test_windows_that_could_not_be_looked_at_are_later(void **state) {
        struct fixture *fixture = *state;

        misplace_windows(fixture);
        guest_deny_list(fixture->guest);
        begin(fixture);
        take_a_block(fixture);
}

/* What is taken there would have an address that is not its own. */
static void test_nothing_is_taken_while_the_broker_refuses_to_hear_where_a_window_is(void **state) {
        struct fixture *fixture = *state;

        misplace_windows(fixture);
        guest_deny_bind(fixture->guest, EDQUOT, "quota");
        assert_int_equal(dmab_connect(fixture->uri, &fixture->dmab), 0);
        assert_int_equal(dmab_device_open(fixture->dmab, "card", NULL, &fixture->device), -EDQUOT);
        expect_sentence("the double refuses that");
        assert_string_equal(dmab_last_reason(), "quota");
        /* But it is told again. */
        assert_int_equal(dmab_device_open(fixture->dmab, "card", NULL, &fixture->device), 0);
        assert_int_equal(guest_binds(fixture->guest), 2);
        take_a_block(fixture);
}

static void test_a_window_that_goes_while_it_is_looked_at_keeps_nobody_from_the_others(void **state) {
        struct fixture *fixture = *state;

        misplace_windows(fixture);
        guest_deny_bind(fixture->guest, ENOENT, "unknown_handle");
        begin(fixture);
}

/* Until that has been given back; elsewhere something may be had. */
static void test_a_misplaced_window_in_which_things_lie_is_told_of_to_who_gets_something_there(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma;
        void *vaddr;

        begin(fixture);
        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, DMAB_NOWAIT, &vaddr, &dma), 0);
        guest_misplace(fixture->guest);
        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, DMAB_NOWAIT, &vaddr, &dma), 0);
        end(fixture);
        begin(fixture);
        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, DMAB_NOWAIT, &vaddr, &dma), -EBUSY);
        assert_string_equal(dmab_last_reason(), "busy");
        assert_int_equal(count_allocs(fixture), 0);
}

static void test_a_window_that_is_of_no_use_is_said_to_be_so(void **state) {
        static const struct {
                enum guest_fault fault;
                int error;
                const char *sentence;
        } faults[] = {
                { GUEST_NO_DEVICE, ENODEV, "no ivshmem device" },  { GUEST_NO_ADDRESS, ENXIO, "pref64-reserve" },
                { GUEST_NO_MAGIC, ENODEV, "no window of dmabroker" }, { GUEST_OTHER_COOKIE, ENODEV, "cookie" },
                { GUEST_OTHER_SIZE, ENXIO, "not as long" },
        };
        struct fixture *fixture = *state;
        dmab_addr_t dma;
        void *vaddr;

        begin(fixture);
        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, DMAB_NOWAIT, &vaddr, &dma), 0);
        end(fixture);
        for (size_t i = 0; i < sizeof(faults) / sizeof(*faults); i++) {
                guest_break(fixture->guest, faults[i].fault);
                begin(fixture);
                assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, DMAB_NOWAIT, &vaddr, &dma), -faults[i].error);
                expect_sentence(faults[i].sentence);
                assert_string_equal(dmab_last_reason(), "source_unavailable");
                assert_int_equal(count_allocs(fixture), 0);
                guest_break(fixture->guest, GUEST_FINE);
                assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, DMAB_NOWAIT, &vaddr, &dma), 0);
                end(fixture);
        }
}

/* ---- windows that Xen has granted ---- */

static void await_unmapped(struct fixture *fixture, size_t i) {
        for (int waited = 0; guest_has_mapped(fixture->guest, i); waited++) {
                if (waited > test_timeout_ms())
                        fail_msg("a window is still mapped");
                poll(NULL, 0, 1);
        }
}

static void use_and_free(struct fixture *fixture) {
        dmab_addr_t dma;
        void *vaddr;

        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, DMAB_ZERO, &vaddr, &dma), 0);
        memset(vaddr, 0x5a, PAGE);
        assert_int_equal(dmab_free_coherent(fixture->device, PAGE, vaddr, dma), 0);
}

static void test_a_program_that_makes_no_call_lets_go_of_a_granted_window(void **state) {
        struct fixture *fixture = *state;

        guest_grant(fixture->guest);
        begin(fixture);
        use_and_free(fixture);
        assert_true(guest_has_mapped(fixture->guest, 0));
        /* The changes of others are not its own. */
        guest_wait_heeded(fixture->guest);
        assert_true(guest_has_mapped(fixture->guest, 0));
        guest_ask_back(fixture->guest, 0, false);
        await_unmapped(fixture, 0);
        /* It stays after all. */
        guest_keep(fixture->guest, 0);
        use_and_free(fixture);
        assert_true(guest_has_mapped(fixture->guest, 0));
}

static void test_a_granted_window_is_not_unmapped_under_an_allocation(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma, more_dma;
        void *vaddr, *more;

        guest_grant(fixture->guest);
        begin(fixture);
        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, DMAB_ZERO, &vaddr, &dma), 0);
        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, DMAB_ZERO, &more, &more_dma), 0);
        guest_ask_back(fixture->guest, 0, false);
        guest_wait_heeded(fixture->guest);
        strcpy(vaddr, "still there");
        expect_host_sees(fixture, dma, "still there", 12);
        assert_int_equal(dmab_free_coherent(fixture->device, PAGE, more, more_dma), 0);
        strcpy(vaddr, "once more");
        expect_host_sees(fixture, dma, "once more", 10);
        assert_int_equal(dmab_free_coherent(fixture->device, PAGE, vaddr, dma), 0);
        /* With the last one, at once. */
        assert_false(guest_has_mapped(fixture->guest, 0));
}

static void test_a_granted_window_is_not_unmapped_under_blocks_and_slots(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t block_dma, mapped;
        char buffer[3000] = "";
        dmab_pool_t *pool;
        void *block;

        guest_grant(fixture->guest);
        begin(fixture);
        assert_int_equal(dmab_pool_create("blocks", fixture->device, 64, 64, 0, NULL, &pool), 0);
        assert_int_equal(dmab_pool_alloc(pool, DMAB_WAIT, &block, &block_dma), 0);
        assert_int_equal(dmab_map_single(fixture->device, buffer, sizeof(buffer), DMAB_BIDIRECTIONAL, &mapped), 0);
        guest_ask_back(fixture->guest, 0, false);
        guest_wait_heeded(fixture->guest);
        strcpy(block, "a block");
        strcpy(buffer, "bounced");
        assert_int_equal(dmab_sync_single_for_device(fixture->device, mapped, sizeof(buffer), DMAB_BIDIRECTIONAL), 0);
        strcpy(buffer, "");
        assert_int_equal(dmab_sync_single_for_cpu(fixture->device, mapped, sizeof(buffer), DMAB_BIDIRECTIONAL), 0);
        assert_string_equal(buffer, "bounced");
        assert_string_equal(block, "a block");
        assert_int_equal(dmab_pool_free(pool, block, block_dma), 0);
        assert_int_equal(dmab_pool_destroy(pool), 0);
        assert_int_equal(dmab_unmap_single(fixture->device, mapped, sizeof(buffer), DMAB_BIDIRECTIONAL), 0);
        assert_true(guest_has_mapped(fixture->guest, 0)); /* slots are kept at hand */
        assert_int_equal(dmab_device_close(fixture->device), 0);
        assert_false(guest_has_mapped(fixture->guest, 0));
}

static void test_a_granted_window_that_was_asked_back_unheard_is_let_go_of(void **state) {
        struct fixture *fixture = *state;

        guest_grant(fixture->guest);
        begin(fixture);
        use_and_free(fixture);
        guest_hang_up(fixture->guest);
        guest_ask_back(fixture->guest, 0, true);
        guest_come_back(fixture->guest);
        await_unmapped(fixture, 0);
}

static void test_a_granted_window_is_let_go_of_though_the_list_is_refused_once(void **state) {
        struct fixture *fixture = *state;

        guest_grant(fixture->guest);
        begin(fixture);
        use_and_free(fixture);
        guest_wait_heeded(fixture->guest);
        guest_deny_list(fixture->guest);
        guest_ask_back(fixture->guest, 0, false);
        await_unmapped(fixture, 0);
}

static void test_granted_windows_are_let_go_of_when_the_session_is_over(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma;
        void *vaddr;

        guest_plug(fixture->guest, 8 * MIB, false);
        guest_grant(fixture->guest);
        begin(fixture);
        assert_int_equal(dmab_alloc_coherent(fixture->device, 5 * MIB, DMAB_WAIT, &vaddr, &dma), 0);
        use_and_free(fixture);
        assert_true(guest_has_mapped(fixture->guest, 0));
        assert_int_equal(dmab_call(fixture->dmab, "broker.bye", NULL, NULL), 0);
        assert_false(guest_has_mapped(fixture->guest, 0));
        assert_true(guest_has_mapped(fixture->guest, 1));
        memset(vaddr, 1, 5 * MIB);
        assert_int_not_equal(dmab_free_coherent(fixture->device, 5 * MIB, vaddr, dma), 0);
        assert_false(guest_has_mapped(fixture->guest, 1));
}

/* QEMU takes it away, and whoever looks at it meanwhile must not fault. */
static void test_a_window_of_a_device_is_not_unmapped_when_it_leaves(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma;
        void *any;

        begin(fixture);
        assert_int_equal(dmab_alloc(fixture->device, 100, DMAB_WAIT, &any, &dma), 0); /* the agent runs as well */
        assert_int_equal(dmab_free(fixture->device, any), 0);
        use_and_free(fixture);
        guest_ask_back(fixture->guest, 0, false);
        guest_wait_heeded(fixture->guest);
        assert_true(guest_has_mapped(fixture->guest, 0));
}

static void test_the_child_of_a_fork_has_no_window_that_was_granted(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma;
        void *vaddr;
        int status;
        pid_t pid;

        guest_grant(fixture->guest);
        begin(fixture);
        assert_int_equal(dmab_alloc_coherent(fixture->device, PAGE, DMAB_ZERO, &vaddr, &dma), 0);
        strcpy(vaddr, "the parent's");
        pid = fork();
        if (!pid) {
                bool has = guest_has_mapped(fixture->guest, 0);
                /* But nobody else gets its addresses, which the library takes for its own. */
                bool is_free = mmap(vaddr, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == vaddr;

                dmab_disconnect(fixture->dmab);
                _exit(has || is_free);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_string_equal(vaddr, "the parent's");
        expect_host_sees(fixture, dma, "the parent's", 13);
        assert_int_equal(dmab_free_coherent(fixture->device, PAGE, vaddr, dma), 0);
        guest_ask_back(fixture->guest, 0, false);
        await_unmapped(fixture, 0);
        /* What was unmapped is not taken for something of the child's. */
        pid = fork();
        if (!pid) {
                dmab_disconnect(fixture->dmab);
                _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

/* ---- the port ---- */

static void test_what_is_heard_before_the_answer_is_nobodys(void **state) {
        static const char rubbish[] = "d\",\"result\":{}}\n\xff{\"jsonrpc\n"
                                      "{\"jsonrpc\":\"2.0\",\"id\":\"sync-0\",\"result\":{}}\n[]\n\n42\n"
                                      "{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{\"session\":\"x\"}}\n"
                                      "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32700,\"message\":\"\"}}\n"
                                      "half a line\xff";
        struct fixture *fixture = *state;

        guest_say_first(fixture->guest, rubbish, sizeof(rubbish) - 1);
        begin(fixture);
        assert_int_equal(guest_resets(fixture->guest), 1);
        assert_int_equal(count_allocs(fixture), 0);
}

static void test_the_session_goes_on_when_the_other_end_closes_or_begins_anew(void **state) {
        struct fixture *fixture = *state;
        struct task task;

        begin(fixture);
        guest_hang_up(fixture->guest);
        task_start(&task, fixture->device);
        guest_come_back(fixture->guest);
        task_expect_success(&task);
        guest_replace(fixture->guest, true);
        task_start(&task, fixture->device);
        task_expect_success(&task);
        guest_hang_up(fixture->guest);
        assert_int_equal(test_daemon_kill(fixture->daemon), 0);
        assert_int_equal(test_daemon_start_again(fixture->daemon), 0);
        guest_come_back(fixture->guest);
        task_start(&task, fixture->device);
        task_expect_success(&task);
        assert_int_equal(count_allocs(fixture), 3);
        /* Without patience, it is said. */
        assert_int_equal(dmab_set_reconnect_timeout(fixture->dmab, 0), 0);
        guest_hang_up(fixture->guest);
        assert_true(dmab_call(fixture->dmab, "broker.ping", NULL, NULL) < 0);
        assert_true(dmab_call(fixture->dmab, "broker.ping", NULL, NULL) < 0);
        expect_sentence("virtio port");
        guest_come_back(fixture->guest);
        assert_int_equal(dmab_call(fixture->dmab, "broker.ping", NULL, NULL), 0);
}

static void test_a_daemon_that_was_replaced_without_a_word_is_noticed(void **state) {
        struct fixture *fixture = *state;
        struct task task;

        begin(fixture);
        guest_replace(fixture->guest, false);
        task_start(&task, fixture->device);
        task_expect_success(&task);
        assert_int_equal(count_allocs(fixture), 1);
        assert_int_equal(guest_resets(fixture->guest), 2);
}

static void test_answers_that_come_too_late_are_ignored(void **state) {
        struct fixture *fixture = *state;
        struct task task;

        begin(fixture);
        guest_hold(fixture->guest);
        task_start(&task, fixture->device);
        guest_wait_held(fixture->guest, 1);
        guest_wait_reset(fixture->guest, 2);
        guest_wait_held(fixture->guest, 3); /* of the allocation, the probe, and the new beginning */
        guest_release(fixture->guest);
        task_expect_success(&task);
        assert_int_equal(count_allocs(fixture), 1); /* it was asked for twice */
}

static void test_nobody_who_answers_is_not_waited_for_for_ever(void **state) {
        struct fixture *fixture = *state;

        guest_hold(fixture->guest);
        assert_int_equal(dmab_connect(fixture->uri, &fixture->dmab), -ETIMEDOUT);
        expect_sentence("does not answer");
        guest_release(fixture->guest);
        begin(fixture);
}

static void test_a_port_that_another_process_has_is_said_to_be_busy(void **state) {
        struct fixture *fixture = *state;
        int fd = open(guest_port(fixture->guest), O_RDWR | O_NOCTTY | O_CLOEXEC), status;
        pid_t pid;

        assert_true(fd >= 0);
        assert_int_equal(ioctl(fd, TIOCEXCL), 0);
        pid = fork();
        if (!pid) {
                dmab_t *dmab;

                /* For root, no pty is busy. */
                _exit((!geteuid() && (setgid(65534) || setuid(65534))) || dmab_connect(fixture->uri, &dmab) != -EBUSY ||
                      !strstr(dmab_last_error(), "another process"));
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_int_equal(ioctl(fd, TIOCNXCL), 0);
        close(fd);
        begin(fixture);
}

static void test_paths_that_are_no_port_are_refused(void **state) {
        struct fixture *fixture = *state;
        char uri[200];

        assert_int_equal(dmab_connect("virtio:/nowhere/port", &fixture->dmab), -ENOENT);
        expect_sentence("/nowhere/port");
        snprintf(uri, sizeof(uri), "virtio:%s", test_daemon_config(fixture->daemon));
        assert_int_equal(dmab_connect(uri, &fixture->dmab), -EINVAL);
        expect_sentence("character device");
        snprintf(uri, sizeof(uri), "unix:%s", guest_port(fixture->guest));
        assert_int_equal(dmab_connect(uri, &fixture->dmab), -ENOTSOCK);
        expect_sentence("virtio:PATH");
        assert_null(fixture->dmab);
}

static void test_the_child_of_a_fork_leaves_the_port_alone(void **state) {
        struct fixture *fixture = *state;
        dmab_addr_t dma;
        void *vaddr;
        pid_t pid;
        int status;

        begin(fixture);
        assert_int_equal(dmab_alloc(fixture->device, 100, DMAB_WAIT, &vaddr, &dma), 0); /* the agent runs as well */
        pid = fork();
        if (!pid) {
                bool refused = dmab_call(fixture->dmab, "broker.ping", NULL, NULL) == -EINVAL;

                dmab_disconnect(fixture->dmab);
                _exit(!refused);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_int_equal(dmab_free(fixture->device, vaddr), 0);
        assert_int_equal(guest_resets(fixture->guest), 1);
}

/* Of the guest's end of the port. */
static unsigned count_open(const struct fixture *fixture) {
        struct stat port, about;
        unsigned n = 0;

        assert_int_equal(stat(guest_port(fixture->guest), &port), 0);
        for (int fd = 0; fd < 1024; fd++)
                n += !fstat(fd, &about) && about.st_dev == port.st_dev && about.st_ino == port.st_ino;
        return n;
}

/* Others get it when the program that had it has ended, whatever its children do. */
static void test_the_child_of_a_fork_does_not_have_the_port_open(void **state) {
        struct fixture *fixture = *state;
        const unsigned before = count_open(fixture);
        int status;
        pid_t pid;

        begin(fixture);
        assert_int_equal(count_open(fixture), before + 1);
        pid = fork();
        if (!pid)
                _exit(count_open(fixture) != before);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_int_equal(count_open(fixture), before + 1);
        /* Nor is what has its number there closed with the handle. */
        pid = fork();
        if (!pid) {
                int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

                dmab_disconnect(fixture->dmab);
                _exit(fd < 0 || fcntl(fd, F_GETFD) < 0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

/* Threads, the agent, pools, bounce memory and everything, while the other end comes and goes. */
static void test_work_goes_on_while_the_port_comes_and_goes(void **state) {
        struct fixture *fixture = *state;
        struct load *load;
        dmab_t *host;

        guest_plug(fixture->guest, 32 * MIB, true);
        guest_plug(fixture->guest, 32 * MIB, false);
        begin(fixture);
        host = connect_on_host(fixture);
        load = load_start_in_guest(fixture->dmab, host, 3, 1);
        for (unsigned i = 0; i < 30 && load_wait(load, 5); i++) {
                if (i % 2) {
                        guest_replace(fixture->guest, true);
                        continue;
                }
                guest_hang_up(fixture->guest);
                guest_come_back(fixture->guest);
        }
        load_wait(load, 50);
        load_end(load);
        dmab_disconnect(host);
}

static void test_dmabrokerctl_takes_the_same_address(void **state) {
        struct fixture *fixture = *state;
        char command[600], *program = test_program_path("dmabrokerctl");

        assert_non_null(program);
        snprintf(command, sizeof(command), "%s --socket %s status >/dev/null", program, fixture->uri);
        assert_int_equal(system(command), 0);
        snprintf(command, sizeof(command), "%s --socket %s watch 2>&1 | grep -q 'guest'", program, fixture->uri);
        assert_int_equal(system(command), 0);
        free(program);
}

#define guest_test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                guest_test(test_memory_of_every_kind_lies_in_windows_and_the_host_sees_it),
                guest_test(test_windows_that_come_later_are_found_and_bound),
                guest_test(test_where_the_last_program_said_that_windows_are_is_not_believed),
                guest_test(test_windows_that_could_not_be_looked_at_are_later),
                guest_test(test_nothing_is_taken_while_the_broker_refuses_to_hear_where_a_window_is),
                guest_test(test_a_window_that_goes_while_it_is_looked_at_keeps_nobody_from_the_others),
                guest_test(test_a_misplaced_window_in_which_things_lie_is_told_of_to_who_gets_something_there),
                guest_test(test_a_window_that_is_of_no_use_is_said_to_be_so),
                guest_test(test_a_program_that_makes_no_call_lets_go_of_a_granted_window),
                guest_test(test_a_granted_window_is_not_unmapped_under_an_allocation),
                guest_test(test_a_granted_window_is_not_unmapped_under_blocks_and_slots),
                guest_test(test_a_granted_window_that_was_asked_back_unheard_is_let_go_of),
                guest_test(test_a_granted_window_is_let_go_of_though_the_list_is_refused_once),
                guest_test(test_granted_windows_are_let_go_of_when_the_session_is_over),
                guest_test(test_a_window_of_a_device_is_not_unmapped_when_it_leaves),
                guest_test(test_the_child_of_a_fork_has_no_window_that_was_granted),
                guest_test(test_what_is_heard_before_the_answer_is_nobodys),
                guest_test(test_the_session_goes_on_when_the_other_end_closes_or_begins_anew),
                guest_test(test_a_daemon_that_was_replaced_without_a_word_is_noticed),
                guest_test(test_answers_that_come_too_late_are_ignored),
                guest_test(test_nobody_who_answers_is_not_waited_for_for_ever),
                guest_test(test_a_port_that_another_process_has_is_said_to_be_busy),
                guest_test(test_paths_that_are_no_port_are_refused),
                guest_test(test_the_child_of_a_fork_leaves_the_port_alone),
                guest_test(test_the_child_of_a_fork_does_not_have_the_port_open),
                guest_test(test_work_goes_on_while_the_port_comes_and_goes),
                guest_test(test_dmabrokerctl_takes_the_same_address),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
