/* A guest's channel: what its dom0 shares is Xen's own library's, over ordinary memory, the guest's end is ours, and the event
 * channel is an eventfd. Link with -Wl,--wrap=vchan_library. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "client/vchan-ring.h"
#include "daemon/guest/vchan-library.h"
#include "daemon/guest/xen-channel.h"

enum { DOMID = 7, ORDER = 12, PATIENCE_MS = 20000, MUCH = 8 << 20 };

static struct {
        pthread_mutex_t mutex;
        bool fails, is_mute;
        int unmute[2];
        unsigned n_made, n_closed, n_early, n_asked;
        char path[64];
} fake = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static struct {
        uv_loop_t loop;
        uv_timer_t patience;
        struct xen_channel *channel;
        bool closed;
        struct vchan_page *page;
        char *out, *in;
        int event;
        struct vchan_ring guest;
        int fd; /* of the conversation; -1: none */
        unsigned n_talks;
} scene;

/* ---- Xen's libraries ---- */

const struct vchan_library *__wrap_vchan_library(const char **ret_why);

/* Instead of the library's. */
int xenevtchn_notify(xenevtchn_handle *event, evtchn_port_t port) {
        return 0;
}

static struct xs_handle *store_open(unsigned long flags) {
        char byte;

        if (fake.is_mute && read(fake.unmute[0], &byte, 1) != 1)
                return NULL;
        return (struct xs_handle *)&fake;
}

static void store_close(struct xs_handle *store) {
}

/* Of the domain it is told only when it was asked n_early times. */
static void *store_read(struct xs_handle *store, xs_transaction_t transaction, const char *path, unsigned *ret_length) {
        if (strcmp(path, "/local/domain/7/vm") != 0 || __atomic_fetch_add(&fake.n_asked, 1, __ATOMIC_SEQ_CST) < fake.n_early)
                return NULL;
        *ret_length = 3;
        return strdup("/vm");
}

static bool store_write(struct xs_handle *store, xs_transaction_t transaction, const char *path, const void *data,
                        unsigned length) {
        pthread_mutex_lock(&fake.mutex);
        strncpy(fake.path, path, sizeof(fake.path) - 1);
        pthread_mutex_unlock(&fake.mutex);
        return true;
}

static bool store_permit(struct xs_handle *store, xs_transaction_t transaction, const char *path,
                         struct xs_permissions *permissions, unsigned n) {
        return n == 2 && permissions[0].id == 0 && permissions[0].perms == XS_PERM_NONE && permissions[1].id == DOMID &&
               permissions[1].perms == XS_PERM_READ;
}

static struct libxenvchan *server_init(struct xentoollog_logger *logger, int domain, const char *path, size_t read_min,
                                       size_t write_min) {
        struct libxenvchan *vchan;

        if (domain != DOMID || strcmp(path, "/local/domain/7/dmabroker/vchan") != 0 || fake.fails)
                return NULL;
        vchan = calloc(1, sizeof(*vchan));
        vchan->ring = (struct vchan_interface *)scene.page;
        vchan->is_server = 1;
        vchan->read.order = vchan->write.order = ORDER;
        vchan->read.shr = &vchan->ring->left;
        vchan->write.shr = &vchan->ring->right;
        vchan->read.buffer = scene.out;
        vchan->write.buffer = scene.in;
        vchan->ring->left_order = vchan->ring->right_order = ORDER;
        vchan->ring->cli_live = 2;
        vchan->ring->srv_live = 1;
        vchan->ring->cli_notify = VCHAN_NOTIFY_WRITE;
        __atomic_fetch_add(&fake.n_made, 1, __ATOMIC_SEQ_CST);
        return vchan;
}

static void server_close(struct libxenvchan *vchan) {
        vchan->ring->srv_live = 0;
        free(vchan);
        __atomic_fetch_add(&fake.n_closed, 1, __ATOMIC_SEQ_CST);
}

static int server_fd(struct libxenvchan *vchan) {
        return scene.event;
}

static int server_wait(struct libxenvchan *vchan) {
        uint64_t count;

        return read(scene.event, &count, sizeof(count)) < 0 ? -1 : 0;
}

const struct vchan_library *__wrap_vchan_library(const char **ret_why) {
        static const struct vchan_library library = {
                .libxenvchan_close = server_close,
                .libxenvchan_fd_for_select = server_fd,
                .libxenvchan_read = libxenvchan_read,
                .libxenvchan_server_init = server_init,
                .libxenvchan_wait = server_wait,
                .libxenvchan_write = libxenvchan_write,
                .xs_close = store_close,
                .xs_open = store_open,
                .xs_read = store_read,
                .xs_set_permissions = store_permit,
                .xs_write = store_write,
        };

        return &library;
}

/* ---- the scene ---- */

static void notify_host(void) {
        const uint64_t one = 1;

        assert_int_equal(write(scene.event, &one, sizeof(one)), sizeof(one));
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
        return __atomic_load_n(&fake.n_made, __ATOMIC_SEQ_CST) == 1;
}

static bool is_closed(void) {
        return scene.closed;
}

static void begin_channel(void) {
        static const struct xen_channel_listener listener = { .connected = on_connected };

        scene.closed = false;
        assert_int_equal(xen_channel_new(&scene.loop, DOMID, "one", &listener, NULL, &scene.channel), 0);
}

static void end_channel(void) {
        xen_channel_close(scene.channel, on_closed, NULL);
        run_until(is_closed);
}

static int begin(void **state) {
        memset(&scene, 0, sizeof(scene));
        scene.fd = -1;
        scene.page = calloc(1, VCHAN_PAGE);
        scene.out = calloc(1, 1 << ORDER);
        scene.in = calloc(1, 1 << ORDER);
        scene.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        fake.fails = fake.is_mute = false;
        fake.n_made = fake.n_closed = fake.n_early = fake.n_asked = 0;
        *fake.path = '\0';
        uv_loop_init(&scene.loop);
        uv_timer_init(&scene.loop, &scene.patience);
        return pipe(fake.unmute);
}

static int end(void **state) {
        if (scene.fd >= 0)
                close(scene.fd);
        uv_close((uv_handle_t *)&scene.patience, NULL);
        uv_run(&scene.loop, UV_RUN_DEFAULT);
        assert_int_equal(uv_loop_close(&scene.loop), 0);
        close(scene.event);
        close(fake.unmute[0]);
        close(fake.unmute[1]);
        free(scene.page);
        free(scene.out);
        free(scene.in);
        return 0;
}

static bool has_talk(void) {
        return scene.fd >= 0;
}

/* A program of the guest's opens its end. */
static void come(void) {
        struct vchan_layout layout;

        assert_int_equal(vchan_layout_read(scene.page, &layout), 0);
        vchan_ring_init(&scene.guest, scene.page, &layout, scene.out, scene.in);
        __atomic_store_n(&scene.page->guest_lives, 1, __ATOMIC_RELEASE);
        notify_host();
}

static void go(void) {
        __atomic_store_n(&scene.page->guest_lives, 0, __ATOMIC_RELEASE);
        notify_host();
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
                notify_host();
        return r;
}

static ssize_t guest_hears(void *buffer, size_t n) {
        bool tells;
        ssize_t r = vchan_ring_read(&scene.guest, buffer, n, &tells);

        if (tells)
                notify_host();
        return r;
}

/* ---- tests ---- */

static void test_what_is_said_goes_over_both_ways(void **state) {
        char text[32] = "";

        begin_talk();
        assert_string_equal(fake.path, "/local/domain/7/dmabroker/protocol");
        assert_int_equal(guest_says("question", 9), 9);
        turn();
        assert_int_equal(recv(scene.fd, text, sizeof(text), MSG_DONTWAIT), 9);
        assert_string_equal(text, "question");
        assert_int_equal(send(scene.fd, "answer", 7, MSG_DONTWAIT), 7);
        turn();
        assert_int_equal(guest_hears(text, sizeof(text)), 7);
        assert_string_equal(text, "answer");
        end_channel();
        assert_int_equal(fake.n_closed, 1);
        assert_int_equal(recv(scene.fd, text, sizeof(text), MSG_DONTWAIT), 0);
}

static void test_nobody_is_connected_before_somebody_comes(void **state) {
        begin_channel();
        run_until(is_made);
        turn();
        notify_host();
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
                notify_host();
                turn();
                while (recv(scene.fd, text, sizeof(text), MSG_DONTWAIT) > 0)
                        ;
        }
        end_channel();
        assert_int_equal(fake.n_closed, 1);
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
        fake.is_mute = true;
        begin_channel();
        turn();
        end_channel();
        assert_int_equal(fake.n_closed, 0);
        assert_int_equal(write(fake.unmute[1], "a", 1), 1);
        /* What is made all the same is nobody's. */
        while (!__atomic_load_n(&fake.n_closed, __ATOMIC_SEQ_CST))
                poll(NULL, 0, 1);
}

static void test_what_cannot_be_made_is_tried_again_until_it_is_closed(void **state) {
        fake.fails = true;
        begin_channel();
        for (int i = 0; i < 20; i++) {
                turn();
                poll(NULL, 0, 1);
        }
        end_channel();
        assert_int_equal(fake.n_made, 0);
}

static bool was_asked_thrice(void) {
        return __atomic_load_n(&fake.n_asked, __ATOMIC_SEQ_CST) >= 3;
}

static void test_nothing_is_written_before_xenstore_knows_the_domain(void **state) {
        fake.n_early = 5;
        begin_channel();
        run_until(was_asked_thrice);
        assert_string_equal(fake.path, "");
        assert_int_equal(fake.n_made, 0);
        run_until(is_made);
        assert_string_equal(fake.path, "/local/domain/7/dmabroker/protocol");
        end_channel();
}

static void test_it_ends_at_any_moment(void **state) {
        for (unsigned i = 0; i < 60; i++) {
                begin_channel();
                for (unsigned turns = i * 37 % 50; turns > 0; turns--) {
                        uv_run(&scene.loop, UV_RUN_NOWAIT);
                        if (turns == 20 && __atomic_load_n(&fake.n_made, __ATOMIC_SEQ_CST) == i + 1)
                                come();
                        sched_yield();
                }
                end_channel();
                while (__atomic_load_n(&fake.n_made, __ATOMIC_SEQ_CST) > __atomic_load_n(&fake.n_closed, __ATOMIC_SEQ_CST))
                        sched_yield();
                /* One that was left is made and ended by its thread. */
                while (__atomic_load_n(&fake.n_closed, __ATOMIC_SEQ_CST) < i + 1)
                        sched_yield();
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
                TEST(test_what_cannot_be_made_is_tried_again_until_it_is_closed),
                TEST(test_nothing_is_written_before_xenstore_knows_the_domain),
                TEST(test_it_ends_at_any_moment),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
