/* libvirt's event loop, called as libvirt does: from several threads, and from within callbacks. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
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
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "daemon/guest/libvirt-loop.h"

/* ThreadSanitizer takes one that the loop still takes away, and one that has its number, for the same. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TAKES_NUMBERS_FOR_DESCRIPTORS true
#endif
#endif
#ifndef TAKES_NUMBERS_FOR_DESCRIPTORS
#define TAKES_NUMBERS_FOR_DESCRIPTORS false
#endif

static const struct libvirt_loop_table *loop = &libvirt_loop_table;

/* Where the thread and the test meet: everything here under the mutex. */
static struct {
        pthread_mutex_t mutex;
        pthread_cond_t changed;
        unsigned n_called, n_freed, n_wrong;
        unsigned told; /* VIR_EVENT_HANDLE_*: all that came */
} seen = { .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static _Thread_local bool removing;

static void begin(void) {
        pthread_mutex_lock(&seen.mutex);
        seen.n_called = seen.n_freed = seen.n_wrong = seen.told = 0;
        pthread_mutex_unlock(&seen.mutex);
        assert_int_equal(libvirt_loop_ref(), 0);
}

static void count(unsigned *what) {
        pthread_mutex_lock(&seen.mutex);
        ++*what;
        pthread_cond_broadcast(&seen.changed);
        pthread_mutex_unlock(&seen.mutex);
}

static void wait_for(const unsigned *what, unsigned n) {
        pthread_mutex_lock(&seen.mutex);
        while (*what < n)
                pthread_cond_wait(&seen.changed, &seen.mutex);
        pthread_mutex_unlock(&seen.mutex);
}

static unsigned now(const unsigned *what) {
        unsigned n;

        pthread_mutex_lock(&seen.mutex);
        n = *what;
        pthread_mutex_unlock(&seen.mutex);
        return n;
}

static void end(void) {
        libvirt_loop_unref();
        assert_int_equal(now(&seen.n_wrong), 0);
}

static void on_free(void *userdata) {
        if (removing)
                count(&seen.n_wrong);
        count(&seen.n_freed);
}

static void take_away(int (*from)(int id), int id) {
        removing = true;
        if (from(id) != 0)
                count(&seen.n_wrong);
        removing = false;
}

static void on_timeout(int id, void *userdata) {
        count(&seen.n_called);
}

static void on_watch(int id, int fd, int events, void *userdata) {
        char byte;

        if (userdata && read(fd, &byte, 1) != 1 && !(events & (VIR_EVENT_HANDLE_ERROR | VIR_EVENT_HANDLE_HANGUP)))
                count(&seen.n_wrong);
        pthread_mutex_lock(&seen.mutex);
        seen.told |= (unsigned)events;
        pthread_mutex_unlock(&seen.mutex);
        count(&seen.n_called);
}

static void make_pair(int pair[2]) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
}

static void close_pair(int pair[2]) {
        close(pair[0]);
        close(pair[1]);
}

/* ---- timeouts ---- */

static void test_a_timeout_of_nothing_comes_until_it_is_taken_back(void **state) {
        unsigned n;
        int id;

        begin();
        id = loop->add_timeout(-1, on_timeout, NULL, on_free);
        assert_true(id > 0);
        loop->update_timeout(id, 0);
        wait_for(&seen.n_called, 3);
        loop->update_timeout(id, -1);
        take_away(loop->remove_timeout, id);
        wait_for(&seen.n_freed, 1);
        n = now(&seen.n_called);
        assert_int_equal(loop->remove_timeout(id), -1);
        end();
        assert_int_equal(now(&seen.n_called), n);
        assert_int_equal(now(&seen.n_freed), 1);
}

static void on_timeout_that_ends_itself(int id, void *userdata) {
        take_away(loop->remove_timeout, id);
        count(&seen.n_called);
}

static void test_a_callback_may_remove_itself_and_nothing_need_be_freed(void **state) {
        begin();
        assert_true(loop->add_timeout(1, on_timeout_that_ends_itself, NULL, NULL) > 0);
        assert_true(loop->add_timeout(0, on_timeout_that_ends_itself, NULL, on_free) > 0);
        wait_for(&seen.n_freed, 1);
        wait_for(&seen.n_called, 2);
        end();
        assert_int_equal(now(&seen.n_called), 2);
}

static void test_kinds_of_ids_are_not_confused(void **state) {
        int pair[2], watch, timeout;

        make_pair(pair);
        begin();
        watch = loop->add_handle(pair[0], VIR_EVENT_HANDLE_READABLE, on_watch, NULL, on_free);
        timeout = loop->add_timeout(-1, on_timeout, NULL, on_free);
        assert_int_not_equal(watch, timeout);
        assert_int_equal(loop->remove_timeout(watch), -1);
        assert_int_equal(loop->remove_handle(timeout), -1);
        assert_int_equal(loop->remove_handle(12345), -1);
        loop->update_timeout(watch, 0);
        loop->update_handle(timeout, VIR_EVENT_HANDLE_WRITABLE);
        loop->update_timeout(54321, 0);
        take_away(loop->remove_handle, watch);
        take_away(loop->remove_timeout, timeout);
        end();
        assert_int_equal(now(&seen.n_called), 0);
        assert_int_equal(now(&seen.n_freed), 2);
        close_pair(pair);
}

static void test_a_turn_is_over_when_what_was_due_was_called(void **state) {
        begin();
        for (unsigned i = 1; i <= 100; i++) {
                assert_true(loop->add_timeout(0, on_timeout_that_ends_itself, NULL, on_free) > 0);
                assert_int_equal(libvirt_loop_wait_turn(), 0);
                assert_int_equal(now(&seen.n_called), i);
        }
        end();
}

/* ---- watches ---- */

static void test_watches_share_a_descriptor(void **state) {
        int pair[2], readers[3], writer;

        make_pair(pair);
        begin();
        for (unsigned i = 0; i < 3; i++)
                readers[i] = loop->add_handle(pair[0], i < 2 ? VIR_EVENT_HANDLE_READABLE : 0, on_watch, NULL, on_free);
        assert_int_equal(write(pair[1], "a", 1), 1);
        wait_for(&seen.n_called, 4);
        assert_int_equal(now(&seen.told), VIR_EVENT_HANDLE_READABLE);

        /* One goes, the others stay; the one that waited for nothing waits for something else. */
        take_away(loop->remove_handle, readers[0]);
        wait_for(&seen.n_freed, 1);
        take_away(loop->remove_handle, readers[1]);
        wait_for(&seen.n_freed, 2);
        loop->update_handle(readers[2], VIR_EVENT_HANDLE_WRITABLE);
        wait_for(&seen.n_called, now(&seen.n_called) + 2);
        take_away(loop->remove_handle, readers[2]);
        wait_for(&seen.n_freed, 3);

        /* And it may be watched again. */
        writer = loop->add_handle(pair[0], VIR_EVENT_HANDLE_WRITABLE, on_watch, NULL, on_free);
        wait_for(&seen.n_called, now(&seen.n_called) + 1);
        take_away(loop->remove_handle, writer);
        end();
        assert_int_equal(now(&seen.n_freed), 4);
        close_pair(pair);
}

static void test_a_descriptors_number_may_be_used_again_at_once(void **state) {
        int pair[2], watch, number = -1;

        begin();
        for (unsigned i = 0; i < 100; i++) {
                make_pair(pair);
                if (number < 0)
                        number = pair[0];
                assert_int_equal(pair[0], number);
                watch = loop->add_handle(pair[0], VIR_EVENT_HANDLE_READABLE, on_watch, &seen, on_free);
                assert_int_equal(write(pair[1], "a", 1), 1);
                wait_for(&seen.n_called, i + 1);
                take_away(loop->remove_handle, watch);
                if (TAKES_NUMBERS_FOR_DESCRIPTORS)
                        wait_for(&seen.n_freed, i + 1);
                close_pair(pair);
        }
        end();
        assert_int_equal(now(&seen.n_freed), 100);
}

static void test_the_far_end_that_closes_is_a_hangup(void **state) {
        int pair[2], watch;

        make_pair(pair);
        begin();
        watch = loop->add_handle(pair[0], VIR_EVENT_HANDLE_HANGUP, on_watch, NULL, on_free);
        close(pair[1]);
        wait_for(&seen.n_called, 1);
        assert_true(now(&seen.told) & VIR_EVENT_HANDLE_HANGUP);
        take_away(loop->remove_handle, watch);
        end();
        close(pair[0]);
}

/* The writing end of a pipe that nobody reads is in error for good, and libuv stops its handle each time that it finds it so. */
static void test_an_error_is_told_unasked_and_again(void **state) {
        int ends[2], watch;

        assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
        close(ends[0]);
        begin();
        watch = loop->add_handle(ends[1], VIR_EVENT_HANDLE_WRITABLE, on_watch, NULL, on_free);
        wait_for(&seen.n_called, 3);
        assert_true(now(&seen.told) & VIR_EVENT_HANDLE_ERROR);
        loop->update_handle(watch, 0);
        take_away(loop->remove_handle, watch);
        end();
        assert_int_equal(now(&seen.n_freed), 1);
        close(ends[1]);
}

static void test_what_cannot_be_watched_is_told_as_an_error_once(void **state) {
        int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), watch, timeout;

        assert_true(file >= 0);
        begin();
        assert_int_equal(loop->add_handle(-1, VIR_EVENT_HANDLE_READABLE, on_watch, NULL, on_free), -1);
        watch = loop->add_handle(file, VIR_EVENT_HANDLE_READABLE, on_watch, NULL, on_free);
        wait_for(&seen.n_called, 1);
        assert_int_equal(now(&seen.told), VIR_EVENT_HANDLE_ERROR);
        loop->update_handle(watch, VIR_EVENT_HANDLE_WRITABLE);
        timeout = loop->add_timeout(0, on_timeout_that_ends_itself, NULL, NULL);
        assert_true(timeout > 0);
        wait_for(&seen.n_called, 2);
        take_away(loop->remove_handle, watch);
        end();
        assert_int_equal(now(&seen.n_called), 2);
        assert_int_equal(now(&seen.n_freed), 1);
        close(file);
}

/* ---- the thread's beginning and end ---- */

static void test_what_is_added_without_a_thread_waits_for_one(void **state) {
        int id = loop->add_timeout(0, on_timeout_that_ends_itself, NULL, on_free);

        begin();
        assert_int_equal(libvirt_loop_ref(), 0);
        libvirt_loop_unref();
        wait_for(&seen.n_freed, 1);
        assert_true(id > 0);
        end();
}

static void test_what_nobody_removed_keeps_the_thread(void **state) {
        int id;

        begin();
        id = loop->add_timeout(1, on_timeout, NULL, on_free);
        libvirt_loop_unref();
        wait_for(&seen.n_called, now(&seen.n_called) + 2);
        assert_int_equal(libvirt_loop_ref(), 0);
        wait_for(&seen.n_called, now(&seen.n_called) + 2);
        take_away(loop->remove_timeout, id);
        end();
        assert_int_equal(now(&seen.n_freed), 1);
}

/* ---- many threads ---- */

enum { THREADS = 4, ROUNDS = 500 };

struct stressed {
        atomic_bool dead;
        int pair[2];
        unsigned n_calls;
};

static void on_stressed_free(void *userdata) {
        struct stressed *stressed = userdata;

        if (stressed->pair[0] >= 0)
                close_pair(stressed->pair);
        free(stressed);
        on_free(NULL);
}

static void on_stressed_timeout(int id, void *userdata) {
        struct stressed *stressed = userdata;

        if (atomic_load(&stressed->dead))
                count(&seen.n_wrong);
        if (++stressed->n_calls < 3)
                return;
        atomic_store(&stressed->dead, true);
        take_away(loop->remove_timeout, id);
}

static void on_stressed_watch(int id, int fd, int events, void *userdata) {
        struct stressed *stressed = userdata;
        char byte;

        if (atomic_load(&stressed->dead) || read(fd, &byte, 1) != 1)
                count(&seen.n_wrong);
        if (++stressed->n_calls == 1) {
                loop->update_handle(id, 0);
                loop->update_handle(id, VIR_EVENT_HANDLE_READABLE);
                return;
        }
        atomic_store(&stressed->dead, true);
        take_away(loop->remove_handle, id);
}

static struct stressed *stressed_new(void) {
        struct stressed *stressed = calloc(1, sizeof(*stressed));

        stressed->pair[0] = stressed->pair[1] = -1;
        return stressed;
}

static void *stress(void *userdata) {
        struct stressed *watched;
        int id, writer;

        for (int i = 0; i < ROUNDS; i++) {
                loop->add_timeout(i % 2, on_stressed_timeout, stressed_new(), on_stressed_free);
                watched = stressed_new();
                if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, watched->pair) < 0)
                        abort();
                writer = fcntl(watched->pair[1], F_DUPFD_CLOEXEC, 0);
                loop->add_handle(watched->pair[0], VIR_EVENT_HANDLE_READABLE, on_stressed_watch, watched, on_stressed_free);
                if (write(writer, "ab", 2) != 2)
                        count(&seen.n_wrong);
                close(writer);
                id = loop->add_timeout(-1, on_timeout, stressed_new(), on_stressed_free);
                loop->update_timeout(id, 0);
                if (i % 2)
                        loop->update_timeout(id, -1);
                take_away(loop->remove_timeout, id);
        }
        return NULL;
}

static void test_threads_add_and_remove_at_once(void **state) {
        pthread_t threads[THREADS];

        begin();
        for (unsigned i = 0; i < THREADS; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, stress, NULL), 0);
        for (unsigned i = 0; i < THREADS; i++)
                pthread_join(threads[i], NULL);
        wait_for(&seen.n_freed, THREADS * ROUNDS * 3);
        end();
        assert_int_equal(now(&seen.n_freed), THREADS * ROUNDS * 3);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_timeout_of_nothing_comes_until_it_is_taken_back),
                cmocka_unit_test(test_a_callback_may_remove_itself_and_nothing_need_be_freed),
                cmocka_unit_test(test_kinds_of_ids_are_not_confused),
                cmocka_unit_test(test_a_turn_is_over_when_what_was_due_was_called),
                cmocka_unit_test(test_watches_share_a_descriptor),
                cmocka_unit_test(test_a_descriptors_number_may_be_used_again_at_once),
                cmocka_unit_test(test_the_far_end_that_closes_is_a_hangup),
                cmocka_unit_test(test_an_error_is_told_unasked_and_again),
                cmocka_unit_test(test_what_cannot_be_watched_is_told_as_an_error_once),
                cmocka_unit_test(test_what_is_added_without_a_thread_waits_for_one),
                cmocka_unit_test(test_what_nobody_removed_keeps_the_thread),
                cmocka_unit_test(test_threads_add_and_remove_at_once),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
