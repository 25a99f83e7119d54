/* A guest's channel: what its dom0 shares is ordinary memory, the library is Xen's own, and the guest's end is ours. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "client/vchan-ring.h"
#include "daemon/core/failure.h"
#include "daemon/guest/xen-channel.h"
#include "tests/unit/fake-vchan.h"

#define UUID "6f1c6f0e-3a55-4a8a-9d0e-0c6f0b8a2d11"
#define REF "/local/domain/7/dmabroker/vchan/ring-ref"

enum { PATIENCE_MS = 20000 };

static struct {
        uv_loop_t loop;
        uv_timer_t patience;
        struct xen_channel *channel;
        bool closed;
        bool is_unknown;    /* whether the guest runs */
        unsigned is_not_it; /* so many times from now Xen is asked who the domain is, and it is somebody else; 0: never; atomic */
        unsigned n_asked;   /* atomic */
        struct vchan_page *page; /* as long as it is shared */
        struct vchan_ring guest;
        int fd; /* of the conversation; -1: none */
        unsigned n_talks;
} scene;

/* ---- Xen ---- */

int __wrap_xen_check_guest(uint32_t domid, const char *uuid, struct failure *failure);
int __wrap_uv_timer_start(uv_timer_t *timer, uv_timer_cb callback, uint64_t ms, uint64_t repeat_ms);
int __real_uv_timer_start(uv_timer_t *timer, uv_timer_cb callback, uint64_t ms, uint64_t repeat_ms);

int __wrap_xen_check_guest(uint32_t domid, const char *uuid, struct failure *failure) {
        const unsigned n = __atomic_add_fetch(&scene.n_asked, 1, __ATOMIC_SEQ_CST);

        if (domid == FAKE_VCHAN_DOMID && strcmp(uuid, UUID) == 0 && n != scene.is_not_it)
                return 0;
        return failure_set(failure, REASON_source_unavailable, "domain 7 is not it any more");
}

/* Nobody waits for seconds here. */
int __wrap_uv_timer_start(uv_timer_t *timer, uv_timer_cb callback, uint64_t ms, uint64_t repeat_ms) {
        return __real_uv_timer_start(timer, callback, ms == 5000 ? 5 : ms, repeat_ms);
}

static struct {
        bool fails; /* the event channel's is not to be had */
        uv_poll_t *poll; /* the event channel's */
        uv_poll_cb callback;
} watch;

int __wrap_loop_watch(uv_poll_t *poll, int events, uv_poll_cb callback);
int __real_loop_watch(uv_poll_t *poll, int events, uv_poll_cb callback);

int __wrap_loop_watch(uv_poll_t *poll, int events, uv_poll_cb callback) {
        uv_os_fd_t fd = -1;

        uv_fileno((uv_handle_t *)poll, &fd);
        if (fd != fake_vchan.event)
                return __real_loop_watch(poll, events, callback);
        if (watch.fails)
                return -ENOMEM;
        watch.poll = poll;
        watch.callback = callback;
        return __real_loop_watch(poll, events, callback);
}

/* ---- the scene ---- */

static bool on_asked(void *userdata) {
        return !scene.is_unknown;
}

static void on_connected(void *userdata, int fd) {
        if (scene.fd >= 0)
                close(scene.fd);
        scene.fd = fd;
        scene.n_talks++;
}

static void on_closed(void *userdata) {
        scene.closed = true;
}

static void on_impatience(uv_timer_t *timer) {
        fail_msg("it does not come to it");
}

static void run_until(bool (*is_so)(void)) {
        uv_timer_start(&scene.patience, on_impatience, PATIENCE_MS, 0);
        while (!is_so())
                uv_run(&scene.loop, UV_RUN_ONCE);
        uv_timer_stop(&scene.patience);
}

static void turn(void) {
        for (int i = 0; i < 4; i++)
                uv_run(&scene.loop, UV_RUN_NOWAIT);
}

static bool is_made(void) {
        return __atomic_load_n(&fake_vchan.n_made, __ATOMIC_SEQ_CST) == 1;
}

static bool is_closed(void) {
        return scene.closed;
}

static void begin_channel(void) {
        static const struct xen_channel_listener listener = { .runs = on_asked, .connected = on_connected };

        scene.closed = false;
        assert_int_equal(xen_channel_new(&scene.loop, FAKE_VCHAN_DOMID, UUID, "one", &listener, NULL, &scene.channel), 0);
}

static void end_channel(void) {
        xen_channel_close(scene.channel, on_closed, NULL);
        run_until(is_closed);
}

static int begin(void **state) {
        memset(&scene, 0, sizeof(scene));
        scene.fd = -1;
        memset(&watch, 0, sizeof(watch));
        fake_vchan_begin();
        uv_loop_init(&scene.loop);
        uv_timer_init(&scene.loop, &scene.patience);
        return 0;
}

/* Also by threads that nobody waits for. */
static void await_closed(unsigned n) {
        while (__atomic_load_n(&fake_vchan.n_closed, __ATOMIC_SEQ_CST) < n || !fake_vchan_has_left_nothing())
                sched_yield();
}

static int end(void **state) {
        if (scene.fd >= 0)
                close(scene.fd);
        uv_close((uv_handle_t *)&scene.patience, NULL);
        uv_run(&scene.loop, UV_RUN_DEFAULT);
        assert_int_equal(uv_loop_close(&scene.loop), 0);
        await_closed(__atomic_load_n(&fake_vchan.n_made, __ATOMIC_SEQ_CST));
        fake_vchan_end();
        return 0;
}

static bool has_talk(void) {
        return scene.fd >= 0;
}

/* A program of the guest's opens its end. */
static void come(void) {
        struct vchan_layout layout;

        scene.page = fake_vchan_map((uint32_t)strtoul(fake_vchan_node(REF), NULL, 10));
        assert_non_null(scene.page);
        assert_int_equal(vchan_layout_read(scene.page, &layout), 0);
        vchan_ring_init(&scene.guest, scene.page, &layout, fake_vchan_map(scene.page->grants[0]),
                        fake_vchan_map(scene.page->grants[layout.n_to_host]));
        __atomic_store_n(&scene.page->guest_lives, 1, __ATOMIC_RELEASE);
        fake_vchan_notify();
}

static void go(void) {
        __atomic_store_n(&scene.page->guest_lives, 0, __ATOMIC_RELEASE);
        fake_vchan_notify();
}

static void begin_talk(void) {
        begin_channel();
        run_until(is_made);
        come();
        run_until(has_talk);
}

static void forget_talk(void) {
        close(scene.fd);
        scene.fd = -1;
}

static ssize_t guest_says(const void *bytes, size_t n) {
        bool tells;
        ssize_t r = vchan_ring_write(&scene.guest, bytes, n, &tells);

        if (tells)
                fake_vchan_notify();
        return r;
}

static ssize_t guest_hears(void *buffer, size_t n) {
        bool tells;
        ssize_t r = vchan_ring_read(&scene.guest, buffer, n, &tells);

        if (tells)
                fake_vchan_notify();
        return r;
}

/* ---- tests ---- */

static void test_what_is_said_goes_over_both_ways(void **state) {
        char text[32] = "";

        begin_talk();
        assert_int_equal(guest_says("question", 9), 9);
        turn();
        assert_int_equal(recv(scene.fd, text, sizeof(text), MSG_DONTWAIT), 9);
        assert_string_equal(text, "question");
        assert_int_equal(send(scene.fd, "answer", 7, MSG_DONTWAIT), 7);
        turn();
        assert_int_equal(guest_hears(text, sizeof(text)), 7);
        assert_string_equal(text, "answer");
        end_channel();
        assert_int_equal(fake_vchan.n_closed, 1);
        assert_int_equal(recv(scene.fd, text, sizeof(text), MSG_DONTWAIT), 0);
}

static void test_nobody_is_connected_before_somebody_comes(void **state) {
        begin_channel();
        run_until(is_made);
        turn();
        fake_vchan_notify();
        turn();
        assert_int_equal(scene.n_talks, 0);
        end_channel();
}

static bool are_two_talks(void) {
        return scene.n_talks == 2;
}

static void test_each_program_has_a_conversation_and_its_last_words_are_heard(void **state) {
        char text[32] = "";

        begin_talk();
        guest_says("bye", 3);
        go();
        turn();
        assert_int_equal(recv(scene.fd, text, sizeof(text), MSG_DONTWAIT), 3);
        assert_int_equal(recv(scene.fd, text, sizeof(text), MSG_DONTWAIT), 0);
        forget_talk();
        come();
        run_until(are_two_talks);
        guest_says("hello", 5);
        turn();
        assert_int_equal(recv(scene.fd, text, sizeof(text), MSG_DONTWAIT), 5);
        end_channel();
}

static void test_a_conversation_that_the_daemon_ends_is_followed_by_another(void **state) {
        begin_talk();
        forget_talk();
        run_until(are_two_talks);
        assert_int_equal(send(scene.fd, "\xff", 1, MSG_DONTWAIT), 1);
        turn();
        assert_int_equal(guest_hears(&(char){ 0 }, 1), 1);
        end_channel();
}

static unsigned char byte_at(size_t i) {
        return (unsigned char)(i * 2654435761u >> 24);
}

/* Nothing of what cannot be passed on keeps it busy. */
static bool is_loop_idle(void) {
        struct pollfd poller = { .fd = uv_backend_fd(&scene.loop), .events = POLLIN };

        return poll(&poller, 1, 20) == 0;
}

/* Of what nobody reads only so much is taken; and when it is read, every byte has come. */
static void test_a_flood_stops_itself(void **state) {
        static unsigned char piece[4096];
        size_t said = 0, heard = 0;
        unsigned idle = 0;
        ssize_t n;

        begin_talk();
        while (idle < 50) {
                for (size_t i = 0; i < sizeof(piece); i++)
                        piece[i] = byte_at(said + i);
                n = guest_says(piece, sizeof(piece));
                said += n > 0 ? (size_t)n : 0;
                idle = n > 0 ? 0 : idle + 1;
                uv_run(&scene.loop, UV_RUN_NOWAIT);
                assert_true(said < 1 << 20);
        }
        assert_true(is_loop_idle());
        while (heard < said) {
                n = recv(scene.fd, piece, sizeof(piece), MSG_DONTWAIT);
                for (ssize_t i = 0; i < n; i++)
                        assert_int_equal(piece[i], byte_at(heard + (size_t)i));
                heard += n > 0 ? (size_t)n : 0;
                turn();
        }
        end_channel();
}

static void test_who_does_not_read_is_not_waited_for(void **state) {
        static unsigned char piece[4096];
        size_t said = 0, heard = 0;
        unsigned idle = 0;
        ssize_t n;

        begin_talk();
        while (idle < 50) {
                for (size_t i = 0; i < sizeof(piece); i++)
                        piece[i] = byte_at(said + i);
                n = send(scene.fd, piece, sizeof(piece), MSG_DONTWAIT);
                said += n > 0 ? (size_t)n : 0;
                idle = n > 0 ? 0 : idle + 1;
                uv_run(&scene.loop, UV_RUN_NOWAIT);
                assert_true(said < 1 << 20);
        }
        assert_true(is_loop_idle());
        while (heard < said) {
                n = guest_hears(piece, sizeof(piece));
                for (ssize_t i = 0; i < n; i++)
                        assert_int_equal(piece[i], byte_at(heard + (size_t)i));
                heard += n > 0 ? (size_t)n : 0;
                turn();
        }
        end_channel();
}

static void test_what_is_said_to_who_has_gone_is_nobodys(void **state) {
        static char much[4096];

        begin_talk();
        for (int i = 0; i < 100; i++) {
                send(scene.fd, much, sizeof(much), MSG_DONTWAIT | MSG_NOSIGNAL);
                if (i == 50)
                        go();
                turn();
        }
        assert_int_equal(recv(scene.fd, much, 1, MSG_DONTWAIT), 0);
        end_channel();
}

static void test_garbage_in_indices_ends_nothing(void **state) {
        char text[8];

        begin_talk();
        srand(1);
        for (unsigned i = 0; i < 2000; i++) {
                uint32_t *words = (uint32_t *)scene.page;

                words[rand() % 4] = (uint32_t)rand() * 3u;
                scene.page->to_host_order = (uint16_t)rand();
                send(scene.fd, "noise", 5, MSG_DONTWAIT | MSG_NOSIGNAL);
                fake_vchan_notify();
                turn();
                while (recv(scene.fd, text, sizeof(text), MSG_DONTWAIT) > 0)
                        ;
        }
        end_channel();
        assert_int_equal(fake_vchan.n_closed, 1);
}

/* Whoever comes next mends it. */
static void test_what_one_program_leaves_in_disorder_hinders_none_of_the_next(void **state) {
        char text[32] = "";

        begin_talk();
        for (unsigned i = 0; i < 50; i++) {
                uint32_t *words = (uint32_t *)scene.page;
                const unsigned n_talks = scene.n_talks;

                for (unsigned word = 0; word < 4; word++)
                        words[word] = (i + 1) * 2654435761u + word * 40503u * 65521u;
                guest_says("\xff", 1);
                turn();
                go();
                turn();
                forget_talk();
                come();
                run_until(has_talk);
                assert_int_equal(scene.n_talks, n_talks + 1);
                assert_int_equal(guest_says("question", 9), 9);
                turn();
                assert_int_equal(recv(scene.fd, text, sizeof(text), MSG_DONTWAIT), 9);
                assert_int_equal(send(scene.fd, "answer", 7, MSG_DONTWAIT), 7);
                turn();
                assert_int_equal(guest_hears(text, sizeof(text)), 7);
        }
        end_channel();
}

static void test_a_xenstore_that_does_not_answer_holds_up_nothing(void **state) {
        fake_vchan.is_mute = true;
        begin_channel();
        turn();
        end_channel();
        assert_int_equal(fake_vchan.n_closed, 0);
        /* What is made all the same is nobody's. */
        assert_int_equal(write(fake_vchan.unmute[1], "aa", 2), 2);
        await_closed(1);
        assert_int_equal(fake_vchan.n_made, 1);
}

static bool was_asked_often(void) {
        return __atomic_load_n(&scene.n_asked, __ATOMIC_SEQ_CST) >= 10;
}

static void test_what_cannot_be_made_is_tried_again(void **state) {
        fake_vchan.fails_to_share = true;
        begin_channel();
        run_until(was_asked_often);
        assert_int_equal(fake_vchan.n_made, 0);
        fake_vchan.fails_to_share = false;
        run_until(is_made);
        come();
        run_until(has_talk);
        end_channel();
}

static bool was_asked_thrice(void) {
        return __atomic_load_n(&scene.n_asked, __ATOMIC_SEQ_CST) >= 3;
}

static bool are_two_closed(void) {
        return __atomic_load_n(&fake_vchan.n_closed, __ATOMIC_SEQ_CST) == 2;
}

static void test_somebody_else_gets_none(void **state) {
        /* Before it is shared … */
        scene.is_not_it = 1;
        begin_channel();
        run_until(was_asked_thrice);
        assert_int_equal(fake_vchan.n_closed, 0);
        run_until(is_made);
        end_channel();
        await_closed(1);
        /* … and after that: what was shared is not any more. */
        scene.is_not_it = 2;
        scene.n_asked = 0;
        begin_channel();
        scene.is_unknown = true;
        run_until(are_two_closed);
        assert_int_equal(fake_vchan.n_made, 2);
        end_channel();
        await_closed(2);
        assert_int_equal(scene.n_talks, 0);
}

static void test_of_whom_nothing_is_known_none_is_made(void **state) {
        scene.is_unknown = true;
        begin_channel();
        for (int i = 0; i < 20; i++) {
                turn();
                poll(NULL, 0, 1);
        }
        assert_int_equal(scene.n_asked, 0);
        scene.is_unknown = false;
        run_until(is_made);
        end_channel();
}

static void begin_another_talk(void) {
        forget_talk();
        come();
        run_until(has_talk);
        end_channel();
        assert_int_equal(fake_vchan.n_made, fake_vchan.n_closed);
}

static bool is_another_made(void) {
        return __atomic_load_n(&fake_vchan.n_made, __ATOMIC_SEQ_CST) == 2;
}

static bool is_third_made(void) {
        return __atomic_load_n(&fake_vchan.n_made, __ATOMIC_SEQ_CST) == 3;
}

static void test_one_that_cannot_be_watched_is_ended_and_made_anew(void **state) {
        begin_talk();
        end_channel();
        watch.fails = true;
        begin_channel();
        run_until(are_two_closed);
        watch.fails = false;
        run_until(is_third_made);
        begin_another_talk();
}

static bool is_watched(void) {
        return watch.poll;
}

/* As libuv says that it does not watch it any more. */
static void test_one_that_tells_of_nothing_any_more_is_ended_and_made_anew(void **state) {
        char byte;

        begin_talk();
        uv_poll_stop(watch.poll);
        watch.callback(watch.poll, UV_EBADF, 0);
        run_until(is_another_made);
        assert_int_equal(fake_vchan.n_closed, 1);
        assert_int_equal(recv(scene.fd, &byte, 1, MSG_DONTWAIT), 0);
        begin_another_talk();
        /* And when it is closed while it ends. */
        watch.poll = NULL;
        begin_channel();
        run_until(is_watched);
        watch.callback(watch.poll, UV_EBADF, 0);
        end_channel();
        await_closed(3);
}

static void test_it_ends_at_any_moment(void **state) {
        for (unsigned i = 0; i < 60; i++) {
                begin_channel();
                for (unsigned turns = i * 37 % 50; turns > 0; turns--) {
                        uv_run(&scene.loop, UV_RUN_NOWAIT);
                        if (turns == 20 && __atomic_load_n(&fake_vchan.n_made, __ATOMIC_SEQ_CST) == i + 1)
                                come();
                        sched_yield();
                }
                end_channel();
                /* One that was left is made and ended by its thread. */
                await_closed(i + 1);
        }
        xen_channel_close(NULL, on_closed, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_what_is_said_goes_over_both_ways),
                TEST(test_nobody_is_connected_before_somebody_comes),
                TEST(test_each_program_has_a_conversation_and_its_last_words_are_heard),
                TEST(test_a_conversation_that_the_daemon_ends_is_followed_by_another),
                TEST(test_a_flood_stops_itself),
                TEST(test_who_does_not_read_is_not_waited_for),
                TEST(test_what_is_said_to_who_has_gone_is_nobodys),
                TEST(test_garbage_in_indices_ends_nothing),
                TEST(test_what_one_program_leaves_in_disorder_hinders_none_of_the_next),
                TEST(test_a_xenstore_that_does_not_answer_holds_up_nothing),
                TEST(test_what_cannot_be_made_is_tried_again),
                TEST(test_somebody_else_gets_none),
                TEST(test_of_whom_nothing_is_known_none_is_made),
                TEST(test_one_that_cannot_be_watched_is_ended_and_made_anew),
                TEST(test_one_that_tells_of_nothing_any_more_is_ended_and_made_anew),
                TEST(test_it_ends_at_any_moment),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
