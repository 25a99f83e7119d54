/* Following domains, where the hypervisor and xenstore are played: what a real Xen does is proven by tests/vm/xen.sh. Link with
 * -Wl,--wrap=xen_library,--wrap=connect. */
#include <config.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "daemon/guest/xen.h"
#include "daemon/source/xen-library.h"

#define ONE "00010203-0405-0607-0809-0a0b0c0d0e0f"

#define TOO_MUCH "00010203-0405-0607-0809-0a0b0c0d0e10"
#define WORDS "window=4M bytes=1G"

enum { DOMAINS = 200, POLICIES = 5, PATIENCE_MS = 10000 };

const struct xen_library *__wrap_xen_library(const char **ret_why);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t length);
int __real_connect(int fd, const struct sockaddr *address, socklen_t length);

/* ---- what is played ---- */

static struct {
        pthread_mutex_t mutex;
        xc_domaininfo_t domains[DOMAINS];
        unsigned n;
        atomic_uint n_lists;
        int no_list;    /* errno */
        int store[2];   /* a byte for each thing that xenstore tells; 'p': about what guests are to have */
        const char *policies[POLICIES]; /* of whom anything is said: of ONE, of TOO_MUCH, or of who is gone when it is read */
        int no_policies;         /* errno */
        atomic_uint n_opened, n_closed;
        atomic_bool is_away; /* xenstore: nobody is at its socket */
        atomic_bool is_mute; /* it takes a connection, and says nothing ever */
        int unmute[2];
} fake = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static void locked(void (*change)(int value), int value) {
        pthread_mutex_lock(&fake.mutex);
        change(value);
        pthread_mutex_unlock(&fake.mutex);
}

static xc_interface *control_open(xentoollog_logger *logger, xentoollog_logger *builder, unsigned flags) {
        return (xc_interface *)&fake;
}

static int control_close(xc_interface *control) {
        return 0;
}

static int version(xc_interface *control, int command, void *arg) {
        return 4 << 16 | 17;
}

static int physinfo(xc_interface *control, xc_physinfo_t *ret) {
        return 0;
}

static int list(xc_interface *control, uint32_t first, unsigned max, xc_domaininfo_t *ret) {
        unsigned n = 0;
        int error;

        pthread_mutex_lock(&fake.mutex);
        fake.n_lists++;
        for (unsigned i = 0; i < fake.n && n < max; i++)
                if (fake.domains[i].domain >= first)
                        ret[n++] = fake.domains[i];
        error = fake.no_list;
        pthread_mutex_unlock(&fake.mutex);
        errno = error;
        return error ? -1 : (int)n;
}

static xenforeignmemory_handle *memory_open(xentoollog_logger *logger, unsigned flags) {
        return (xenforeignmemory_handle *)&fake;
}

static int memory_close(xenforeignmemory_handle *memory) {
        return 0;
}

static struct xs_handle *store_open(unsigned long flags) {
        fake.n_opened++;
        return (struct xs_handle *)&fake;
}

static void store_close(struct xs_handle *store) {
        fake.n_closed++;
}

static bool store_watch(struct xs_handle *store, const char *path, const char *token) {
        char byte;

        return !fake.is_mute || read(fake.unmute[0], &byte, 1) == 1;
}

static int store_fileno(struct xs_handle *store) {
        return fake.store[0];
}

static char **store_check_watch(struct xs_handle *store) {
        char byte;
        ssize_t n = recv(fake.store[0], &byte, 1, MSG_DONTWAIT);
        char **what;

        if (n == 1) {
                what = calloc(2, sizeof(char *));
                what[XS_WATCH_PATH] = (char *)"somewhere";
                what[XS_WATCH_TOKEN] = (char *)(byte == 'p' ? "policies" : "domains");
                return what;
        }
        errno = n == 0 ? EINVAL : errno;
        return NULL;
}

static char **store_directory(struct xs_handle *store, xs_transaction_t transaction, const char *path, unsigned *ret_n) {
        char **names = NULL;

        assert_string_equal(path, XEN_POLICIES);
        pthread_mutex_lock(&fake.mutex);
        *ret_n = 0;
        errno = fake.no_policies ? fake.no_policies : ENOENT;
        if (!fake.no_policies && fake.policies[0])
                names = calloc(POLICIES, sizeof(char *));
        for (; names && *ret_n < POLICIES && fake.policies[*ret_n]; ++*ret_n)
                names[*ret_n] = (char *)fake.policies[*ret_n];
        pthread_mutex_unlock(&fake.mutex);
        return names;
}

static void *store_read(struct xs_handle *store, xs_transaction_t transaction, const char *path, unsigned *ret_n) {
        const char *name = path + strlen(XEN_POLICIES) + 1;

        *ret_n = 0;
        if (strcmp(name, TOO_MUCH) == 0) {
                *ret_n = 300;
                return calloc(301, 1);
        }
        if (strcmp(name, ONE) == 0) {
                *ret_n = (unsigned)strlen(WORDS);
                return strdup(WORDS);
        }
        errno = ENOENT;
        return NULL;
}

const struct xen_library *__wrap_xen_library(const char **ret_why) {
        static const struct xen_library library = {
                .has_store = true,
                .xc_domain_getinfolist = list,
                .xc_interface_close = control_close,
                .xc_interface_open = control_open,
                .xc_physinfo = physinfo,
                .xc_version = version,
                .xenforeignmemory_close = memory_close,
                .xenforeignmemory_open = memory_open,
                .xs_check_watch = store_check_watch,
                .xs_close = store_close,
                .xs_directory = store_directory,
                .xs_fileno = store_fileno,
                .xs_open = store_open,
                .xs_read = store_read,
                .xs_watch = store_watch,
        };

        return &library;
}

int __wrap_connect(int fd, const struct sockaddr *address, socklen_t length) {
        if (address->sa_family != AF_UNIX)
                return __real_connect(fd, address, length);
        errno = ECONNREFUSED;
        return fake.is_away ? -1 : 0;
}

/* The first byte of its UUID is told, the others are as in ONE. */
static void set_domain(unsigned index, uint16_t domid, uint8_t who, uint32_t flags) {
        pthread_mutex_lock(&fake.mutex);
        fake.domains[index] = (xc_domaininfo_t){ .domain = domid, .flags = flags };
        for (unsigned i = 0; i < 16; i++)
                fake.domains[index].handle[i] = (uint8_t)i;
        fake.domains[index].handle[0] = who;
        if (fake.n <= index)
                fake.n = index + 1;
        pthread_mutex_unlock(&fake.mutex);
}

static void count(int n) {
        fake.n = (unsigned)n;
}

static void fail_to_list(int error) {
        fake.no_list = error;
}

static void fail_to_read(int error) {
        fake.no_policies = error;
}

static void hear(void) {
        assert_int_equal(send(fake.store[1], "d", 1, 0), 1);
}

static void hear_policies(void) {
        assert_int_equal(send(fake.store[1], "p", 1, 0), 1);
}

/* ---- the scene ---- */

static uv_loop_t loop;
static uv_timer_t patience;
static struct xen_tracker *tracker;
static struct xen_seen seen[DOMAINS];
static size_t n_seen;
static unsigned n_told, n_lost, n_policies_told;
static struct xen_policy policies[POLICIES];
static size_t n_policies;
static char why[160];
static bool is_closed;

static void on_listed(void *userdata, const struct xen_seen *all, size_t n) {
        assert_true(n <= DOMAINS);
        memcpy(seen, all, n * sizeof(*all));
        n_seen = n;
        n_told++;
        uv_stop(&loop);
}

static void on_lost(void *userdata, const char *what) {
        strncpy(why, what, sizeof(why) - 1);
        n_lost++;
        uv_stop(&loop);
}

static void on_policies(void *userdata, const struct xen_policy *all, size_t n) {
        assert_true(n <= POLICIES);
        memcpy(policies, all, n * sizeof(*all));
        n_policies = n;
        n_policies_told++;
        uv_stop(&loop);
}

static void on_impatience(uv_timer_t *timer) {
        fail_msg("nothing is told");
}

static void on_closed(void *userdata) {
        is_closed = true;
        uv_stop(&loop);
}

static void run(void) {
        uv_timer_start(&patience, on_impatience, PATIENCE_MS, 0);
        uv_run(&loop, UV_RUN_DEFAULT);
}

static int begin(void **state) {
        n_told = n_lost = n_policies_told = 0;
        is_closed = false;
        fake.n = 0;
        fake.n_lists = fake.n_opened = fake.n_closed = 0;
        fake.no_list = fake.no_policies = 0;
        memset(fake.policies, 0, sizeof(fake.policies));
        fake.is_away = fake.is_mute = false;
        set_domain(0, 0, 0xff, 0);
        uv_loop_init(&loop);
        uv_timer_init(&loop, &patience);
        return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fake.store) || pipe(fake.unmute);
}

static void begin_tracker(unsigned poll_ms, unsigned close_patience_ms) {
        static const struct xen_listener listener = { .listed = on_listed, .lost = on_lost, .policies = on_policies };
        const struct xen_options options = { .poll_ms = poll_ms, .store_retry_ms = 10, .close_patience_ms = close_patience_ms };

        assert_int_equal(xen_tracker_new(&loop, &options, &listener, NULL, &tracker), 0);
}

static void end_tracker(void) {
        xen_tracker_close(tracker, on_closed);
        while (!is_closed)
                run();
}

static int end(void **state) {
        uv_close((uv_handle_t *)&patience, NULL);
        uv_run(&loop, UV_RUN_DEFAULT);
        for (unsigned i = 0; i < 2; i++) {
                close(fake.store[i]);
                close(fake.unmute[i]);
        }
        return uv_loop_close(&loop);
}

static void nap(void) {
        static uv_timer_t timer;

        uv_timer_init(&loop, &timer);
        uv_timer_start(&timer, (uv_timer_cb)uv_stop, 0, 0);
        uv_close((uv_handle_t *)&timer, NULL);
        poll(NULL, 0, 2);
        uv_run(&loop, UV_RUN_NOWAIT);
}

/* ---- tests ---- */

static void test_all_domains_but_dom0_are_told_of_at_first(void **state) {
        set_domain(1, 3, 0, 0);
        set_domain(2, 7, 1, XEN_DOMINF_hvm_guest | XEN_DOMINF_paused);
        begin_tracker(5, 0);
        run();
        assert_int_equal(n_seen, 2);
        assert_string_equal(seen[0].uuid, ONE);
        assert_int_equal(seen[0].domid, 3);
        assert_true(seen[0].is_pv && seen[0].state == XEN_RUNNING);
        assert_true(!seen[1].is_pv && seen[1].state == XEN_PAUSED);
        assert_int_equal(seen[1].domid, 7);
        end_tracker();
}

static void test_a_host_without_guests_is_told_of_once(void **state) {
        begin_tracker(1, 0);
        run();
        assert_int_equal(n_seen, 0);
        while (fake.n_lists < 10)
                nap();
        assert_int_equal(n_told, 1);
        end_tracker();
}

static void test_all_are_told_of_again_when_somebody_wants_that(void **state) {
        set_domain(1, 3, 0, 0);
        begin_tracker(1, 0);
        run();
        xen_tracker_repeat(tracker);
        run();
        assert_int_equal(n_told, 2);
        assert_int_equal(n_seen, 1);
        end_tracker();
        assert_int_equal(n_told, 2);
}

static void test_what_changes_is_told_though_xenstore_says_nothing(void **state) {
        begin_tracker(5, 0);
        run();
        set_domain(1, 1, 0, 0);
        run();
        assert_int_equal(n_seen, 1);
        /* It waits for an interrupt, and that is no news. */
        set_domain(1, 1, 0, XEN_DOMINF_blocked);
        set_domain(2, 2, 1, 0);
        run();
        assert_int_equal(n_told, 3);
        locked(count, 2);
        run();
        assert_int_equal(n_seen, 1);
        end_tracker();
}

static void test_xenstore_hurries_it(void **state) {
        begin_tracker(3600000, 0);
        run();
        set_domain(1, 1, 0, 0);
        hear();
        run();
        assert_int_equal(n_seen, 1);
        set_domain(1, 1, 0, XEN_DOMINF_paused);
        xen_tracker_hurry(tracker);
        run();
        assert_int_equal(seen[0].state, XEN_PAUSED);
        end_tracker();
        assert_int_equal(fake.n_opened, fake.n_closed);
}

static void check_over(uint32_t flags, const char *reason) {
        set_domain(1, 1, 0, flags);
        run();
        assert_int_equal(seen[0].state, XEN_OVER);
        assert_string_equal(seen[0].why_over, reason);
}

static void test_how_a_domain_has_ended_is_told(void **state) {
        begin_tracker(5, 0);
        run();
        check_over(XEN_DOMINF_shutdown | SHUTDOWN_poweroff << XEN_DOMINF_shutdownshift, "shutdown");
        check_over(XEN_DOMINF_shutdown | SHUTDOWN_reboot << XEN_DOMINF_shutdownshift, "reboot");
        check_over(XEN_DOMINF_shutdown | SHUTDOWN_crash << XEN_DOMINF_shutdownshift, "crash");
        check_over(XEN_DOMINF_dying, "destroyed");
        check_over(XEN_DOMINF_shutdown | 200u << XEN_DOMINF_shutdownshift, "shutdown");
        end_tracker();
}

static int ask_for(uint32_t domid, const char *uuid, const char *why_not) {
        struct failure failure = { 0 };
        int r = xen_check_guest(domid, uuid, &failure);

        assert_non_null(strstr(failure.sentence, why_not));
        return r;
}

static void test_who_a_domain_is_at_this_moment_is_to_be_had_from_xen(void **state) {
        set_domain(1, 3, 1, 0);
        set_domain(2, 7, 0, XEN_DOMINF_paused);
        assert_int_equal(ask_for(7, ONE, ""), 0);
        assert_int_equal(ask_for(3, ONE, "domain 3 is not it"), -ENOENT);
        /* There is none of that number, but later ones. */
        assert_int_equal(ask_for(6, ONE, "domain 6 is not it"), -ENOENT);
        assert_int_equal(ask_for(8, ONE, "domain 8 is not it"), -ENOENT);
        set_domain(2, 7, 0, XEN_DOMINF_shutdown | SHUTDOWN_suspend << XEN_DOMINF_shutdownshift);
        assert_int_equal(ask_for(7, ONE, ""), 0);
        set_domain(2, 7, 0, XEN_DOMINF_dying);
        assert_int_equal(ask_for(7, ONE, "not it any more"), -ENOENT);
        fake.no_list = EPERM;
        assert_int_equal(ask_for(7, ONE, "Xen does not say"), -EPERM);
}

static void test_a_suspended_domain_may_go_on(void **state) {
        set_domain(1, 1, 0, XEN_DOMINF_shutdown | SHUTDOWN_suspend << XEN_DOMINF_shutdownshift);
        begin_tracker(5, 0);
        run();
        assert_int_equal(seen[0].state, XEN_PAUSED);
        set_domain(1, 1, 0, XEN_DOMINF_dying | XEN_DOMINF_shutdown | SHUTDOWN_suspend << XEN_DOMINF_shutdownshift);
        run();
        assert_int_equal(seen[0].state, XEN_OVER);
        assert_string_equal(seen[0].why_over, "suspended");
        end_tracker();
}

static void test_more_domains_than_are_listed_at_a_time(void **state) {
        for (unsigned i = 1; i < DOMAINS; i++)
                set_domain(i, (uint16_t)(3 * i), (uint8_t)i, 0);
        begin_tracker(5, 0);
        run();
        assert_int_equal(n_seen, DOMAINS - 1);
        assert_int_equal(seen[DOMAINS - 2].domid, 3 * (DOMAINS - 1));
        end_tracker();
}

static void test_a_xen_that_does_not_list_is_told_of_once(void **state) {
        set_domain(1, 1, 0, 0);
        begin_tracker(1, 0);
        run();
        locked(fail_to_list, EPERM);
        run();
        assert_int_equal(n_lost, 1);
        assert_string_equal(why, "Xen does not list its domains: Operation not permitted");
        for (unsigned n = fake.n_lists; fake.n_lists < n + 10;)
                nap();
        assert_int_equal(n_lost, 1);
        /* All is told anew, though nothing has changed. */
        locked(fail_to_list, 0);
        run();
        assert_int_equal(n_told, 2);
        end_tracker();
}

static void test_a_lost_xenstore_is_looked_for_again(void **state) {
        begin_tracker(3600000, 0);
        run();
        while (!fake.n_opened)
                nap();
        fake.is_away = true;
        shutdown(fake.store[1], SHUT_WR);
        while (!fake.n_closed)
                nap();
        /* Nobody is at its socket: the kernel's way to it is not taken. */
        for (unsigned i = 0; i < 20; i++)
                nap();
        assert_int_equal(fake.n_opened, 1);
        close(fake.store[0]);
        close(fake.store[1]);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fake.store), 0);
        fake.is_away = false;
        while (fake.n_opened < 2)
                nap();
        set_domain(1, 1, 0, 0);
        hear();
        run();
        assert_int_equal(n_seen, 1);
        end_tracker();
}

static void test_a_xenstore_that_does_not_answer_holds_up_nothing(void **state) {
        fake.is_mute = true;
        set_domain(1, 1, 0, 0);
        begin_tracker(5, 20);
        run();
        assert_int_equal(n_seen, 1);
        locked(count, 1);
        run();
        assert_int_equal(n_seen, 0);
        end_tracker();
        assert_int_equal(fake.n_closed, 0);
        /* It ends by itself, with what it has. */
        assert_int_equal(write(fake.unmute[1], "abc", 3), 3);
        while (!fake.n_closed)
                poll(NULL, 0, 1);
}

static void await_policies(unsigned n_told_now) {
        while (n_policies_told < n_told_now)
                run();
}

static void test_what_xenstore_says_of_guests_is_told(void **state) {
        const char *const said[POLICIES] = { "gone", TOO_MUCH, ONE, ONE "-and-more" };

        memcpy(fake.policies, said, sizeof(said));
        begin_tracker(3600000, 0);
        hear_policies();
        await_policies(1);
        assert_int_equal(n_policies, 1);
        assert_string_equal(policies[0].uuid, ONE);
        assert_string_equal(policies[0].text, WORDS);
        end_tracker();
}

static void forget_policies(int nothing) {
        fake.policies[0] = NULL;
}

static void test_that_xenstore_says_nothing_any_more_is_told(void **state) {
        fake.policies[0] = ONE;
        begin_tracker(3600000, 0);
        hear_policies();
        await_policies(1);
        /* That it cannot be asked is nothing that it says. */
        locked(fail_to_read, EACCES);
        hear_policies();
        locked(count, 2);
        set_domain(1, 1, 0, 0);
        hear();
        while (n_seen < 1)
                run();
        assert_int_equal(n_policies_told, 1);
        locked(fail_to_read, 0);
        locked(forget_policies, 0);
        hear_policies();
        await_policies(2);
        assert_int_equal(n_policies, 0);
        end_tracker();
}

static void test_it_ends_at_any_moment(void **state) {
        for (unsigned i = 0; i < 50; i++) {
                is_closed = false;
                set_domain(1, 1, 0, i % 2 ? XEN_DOMINF_paused : 0);
                begin_tracker(1, 0);
                for (unsigned turns = i * 37 % 50; turns > 0; turns--)
                        sched_yield();
                end_tracker();
        }
        xen_tracker_close(NULL, on_closed);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_all_domains_but_dom0_are_told_of_at_first),
                TEST(test_a_host_without_guests_is_told_of_once),
                TEST(test_all_are_told_of_again_when_somebody_wants_that),
                TEST(test_what_changes_is_told_though_xenstore_says_nothing),
                TEST(test_xenstore_hurries_it),
                TEST(test_how_a_domain_has_ended_is_told),
                TEST(test_who_a_domain_is_at_this_moment_is_to_be_had_from_xen),
                TEST(test_a_suspended_domain_may_go_on),
                TEST(test_more_domains_than_are_listed_at_a_time),
                TEST(test_a_xen_that_does_not_list_is_told_of_once),
                TEST(test_a_lost_xenstore_is_looked_for_again),
                TEST(test_a_xenstore_that_does_not_answer_holds_up_nothing),
                TEST(test_what_xenstore_says_of_guests_is_told),
                TEST(test_that_xenstore_says_nothing_any_more_is_told),
                TEST(test_it_ends_at_any_moment),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
