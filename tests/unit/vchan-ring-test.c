/* The guest's end of a ring against the end that dom0 has, which is Xen's own library's, over ordinary memory; and against a host
 * that writes what cannot be. */
#include <errno.h>
#include <libxenvchan.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "client/vchan-ring.h"

enum { GUARD = 4096, STREAM_BYTES = 4 << 20 };

static struct {
        _Alignas(VCHAN_PAGE) char page[VCHAN_PAGE];
        struct libxenvchan host;
        struct vchan_ring guest;
        char *out, *in; /* streams of pages of their own */
        unsigned n_told; /* the guest, by the host; atomic */
} scene;

/* Instead of the library's. */
int xenevtchn_notify(xenevtchn_handle *event, evtchn_port_t port) {
        __atomic_fetch_add(&scene.n_told, 1, __ATOMIC_SEQ_CST);
        return 0;
}

static struct vchan_page *page(void) {
        return (struct vchan_page *)scene.page;
}

static void *stream_at(unsigned order, char *own) {
        return order < 12 ? scene.page + (1u << order) : own;
}

static int attach(void) {
        struct vchan_layout layout;
        int r = vchan_layout_read(page(), &layout);

        if (r == 0)
                vchan_ring_init(&scene.guest, page(), &layout, scene.out, scene.in);
        return r;
}

/* As libxenvchan_server_init() does. */
static void begin(unsigned out_order, unsigned in_order) {
        memset(&scene, 0, sizeof(scene));
        scene.out = calloc(1, 1u << out_order);
        scene.in = calloc(1, 1u << in_order);
        scene.host = (struct libxenvchan){
                .ring = (struct vchan_interface *)scene.page, .is_server = 1, .server_persist = 1,
                .read = { .order = (int)out_order }, .write = { .order = (int)in_order },
        };
        scene.host.read.shr = &scene.host.ring->left;
        scene.host.write.shr = &scene.host.ring->right;
        scene.host.read.buffer = stream_at(out_order, scene.out);
        scene.host.write.buffer = stream_at(in_order, scene.in);
        scene.host.ring->left_order = (uint16_t)out_order;
        scene.host.ring->right_order = (uint16_t)in_order;
        scene.host.ring->cli_live = 2;
        scene.host.ring->srv_live = 1;
        scene.host.ring->cli_notify = VCHAN_NOTIFY_WRITE;
        assert_int_equal(attach(), 0);
        page()->guest_lives = 1;
}

static void end(void) {
        free(scene.out);
        free(scene.in);
}

/* ---- what goes over ---- */

static void test_the_page_is_laid_out_as_xen_has_it(void **state) {
        assert_int_equal(offsetof(struct vchan_page, to_guest), offsetof(struct vchan_interface, right));
        assert_int_equal(offsetof(struct vchan_page, to_guest.written), offsetof(struct vchan_interface, right.prod));
        assert_int_equal(offsetof(struct vchan_page, to_guest_order), offsetof(struct vchan_interface, right_order));
        assert_int_equal(offsetof(struct vchan_page, guest_lives), offsetof(struct vchan_interface, cli_live));
        assert_int_equal(offsetof(struct vchan_page, tell_host), offsetof(struct vchan_interface, cli_notify));
        assert_int_equal(offsetof(struct vchan_page, tell_guest), offsetof(struct vchan_interface, srv_notify));
        assert_int_equal(offsetof(struct vchan_page, grants), offsetof(struct vchan_interface, grants));
        assert_int_equal(VCHAN_WROTE, VCHAN_NOTIFY_WRITE);
        assert_int_equal(VCHAN_READ, VCHAN_NOTIFY_READ);
}

static void check_both_ways(unsigned out_order, unsigned in_order) {
        char text[32] = "";
        bool tells;

        begin(out_order, in_order);
        assert_int_equal(vchan_ring_read(&scene.guest, text, sizeof(text), &tells), -EAGAIN);
        assert_int_equal(vchan_ring_write(&scene.guest, "question", 9, &tells), 9);
        assert_true(tells);
        assert_int_equal(libxenvchan_read(&scene.host, text, sizeof(text)), 9);
        assert_string_equal(text, "question");
        assert_int_equal(libxenvchan_write(&scene.host, "answer", 7), 7);
        assert_int_equal(scene.n_told, 1);
        assert_int_equal(vchan_ring_read(&scene.guest, text, sizeof(text), &tells), 7);
        assert_string_equal(text, "answer");
        end();
}

static void test_what_is_said_is_heard_in_streams_of_every_place(void **state) {
        check_both_ways(10, 11);
        check_both_ways(11, 10);
        check_both_ways(16, 16);
        check_both_ways(12, 10);
        check_both_ways(11, 20);
}

static void test_what_has_no_room_waits_until_there_is_some(void **state) {
        static char much[3000];
        bool tells;

        begin(11, 10);
        assert_int_equal(vchan_ring_write(&scene.guest, much, sizeof(much), &tells), 2048);
        assert_int_equal(vchan_ring_write(&scene.guest, much, 1, &tells), -EAGAIN);
        assert_int_equal(libxenvchan_read(&scene.host, much, 100), 100);
        assert_int_equal(scene.n_told, 1);
        assert_int_equal(vchan_ring_write(&scene.guest, much, 200, &tells), 100);
        assert_int_equal(libxenvchan_write(&scene.host, much, sizeof(much)), 1024);
        assert_int_equal(libxenvchan_write(&scene.host, much, 1), 0);
        assert_int_equal(vchan_ring_read(&scene.guest, much, 24, &tells), 24);
        assert_true(tells);
        assert_int_equal(libxenvchan_write(&scene.host, much, 25), 24);
        end();
}

static void test_nobody_is_told_who_does_not_wait(void **state) {
        char text[8];
        bool tells;

        begin(16, 16);
        vchan_ring_write(&scene.guest, "a", 1, &tells);
        assert_true(tells);
        vchan_ring_write(&scene.guest, "b", 1, &tells);
        assert_false(tells);
        libxenvchan_write(&scene.host, "c", 1);
        assert_int_equal(scene.n_told, 0);
        assert_int_equal(vchan_ring_read(&scene.guest, text, 1, &tells), 1);
        assert_false(tells);
        end();
}

static void test_a_host_that_goes_is_known_when_all_is_read(void **state) {
        char text[8];
        bool tells;

        begin(16, 16);
        libxenvchan_write(&scene.host, "last", 4);
        page()->host_lives = 0;
        assert_int_equal(vchan_ring_write(&scene.guest, "a", 1, &tells), -EPIPE);
        assert_int_equal(vchan_ring_read(&scene.guest, text, sizeof(text), &tells), 4);
        assert_int_equal(vchan_ring_read(&scene.guest, text, sizeof(text), &tells), 0);
        end();
}

/* Indices go round at 2^32. */
static void test_numbers_of_bytes_go_round(void **state) {
        char text[64] = "";
        bool tells;

        begin(12, 12);
        page()->to_host = page()->to_guest = (struct vchan_indices){ .read = UINT32_MAX - 10, .written = UINT32_MAX - 10 };
        assert_int_equal(attach(), 0);
        for (int i = 0; i < 3; i++) {
                assert_int_equal(vchan_ring_write(&scene.guest, "eleven bytes", 11, &tells), 11);
                assert_int_equal(libxenvchan_read(&scene.host, text, sizeof(text)), 11);
                assert_memory_equal(text, "eleven bytes", 11);
                assert_int_equal(libxenvchan_write(&scene.host, "twelve bytes", 12), 12);
                assert_int_equal(vchan_ring_read(&scene.guest, text, sizeof(text), &tells), 12);
                assert_memory_equal(text, "twelve bytes", 12);
        }
        end();
}

/* ---- two at once ---- */

static unsigned char byte_at(size_t i) {
        return (unsigned char)(i * 2654435761u >> 24);
}

/* It gives back what comes. */
static void *echo(void *unused) {
        static char piece[3001];
        size_t done = 0, have = 0, said = 0;

        while (done < STREAM_BYTES) {
                int n = have == said ? libxenvchan_read(&scene.host, piece, sizeof(piece)) : 0;

                if (n > 0) {
                        said = 0;
                        have = (size_t)n;
                }
                n = have > said ? libxenvchan_write(&scene.host, piece + said, have - said) : 0;
                if (n <= 0)
                        sched_yield();
                else {
                        said += (size_t)n;
                        done += (size_t)n;
                }
        }
        return NULL;
}

static void check_stream(unsigned out_order, unsigned in_order) {
        static unsigned char piece[5003];
        size_t out = 0, in = 0;
        pthread_t host;
        bool tells;

        begin(out_order, in_order);
        pthread_create(&host, NULL, echo, NULL);
        while (in < STREAM_BYTES) {
                size_t n = 1 + out % sizeof(piece);
                ssize_t r;

                n = n < STREAM_BYTES - out ? n : STREAM_BYTES - out;
                for (size_t i = 0; i < n; i++)
                        piece[i] = byte_at(out + i);
                r = n ? vchan_ring_write(&scene.guest, piece, n, &tells) : -EAGAIN;
                assert_true(r > 0 || r == -EAGAIN);
                out += r > 0 ? (size_t)r : 0;
                r = vchan_ring_read(&scene.guest, piece, sizeof(piece), &tells);
                assert_true(r > 0 || r == -EAGAIN);
                for (ssize_t i = 0; i < r; i++)
                        assert_int_equal(piece[i], byte_at(in + (size_t)i));
                in += r > 0 ? (size_t)r : 0;
                if (r < 0)
                        sched_yield();
        }
        pthread_join(host, NULL);
        end();
}

static void test_both_ends_at_once_get_every_byte(void **state) {
        check_stream(10, 11);
        check_stream(16, 16);
}

/* ---- what cannot be ---- */

static void check_layout(unsigned out_order, unsigned in_order, int result) {
        memset(scene.page, 0, sizeof(scene.page));
        page()->to_host_order = (uint16_t)out_order;
        page()->to_guest_order = (uint16_t)in_order;
        assert_int_equal(attach(), result);
}

static void test_sizes_that_cannot_be_are_refused(void **state) {
        check_layout(10, 11, 0);
        check_layout(20, 20, 0);
        check_layout(20, 10, -EPROTO); /* its list would end in data */
        check_layout(10, 10, -EPROTO);
        check_layout(11, 11, -EPROTO);
        check_layout(0, 0, -EPROTO);
        check_layout(9, 16, -EPROTO);
        check_layout(16, 21, -EPROTO);
        check_layout(32, 16, -EPROTO);
        check_layout(65535, 65535, -EPROTO);
        check_layout(12, 64, -EPROTO);
}

static void test_indices_that_cannot_be_end_it(void **state) {
        static char much[1 << 17];
        bool tells;

        begin(12, 12);
        page()->to_guest.written = 4097;
        assert_int_equal(vchan_ring_read(&scene.guest, much, sizeof(much), &tells), -EPROTO);
        page()->to_guest.written = UINT32_MAX;
        assert_int_equal(vchan_ring_read(&scene.guest, much, 1, &tells), -EPROTO);
        page()->to_host.read = 1;
        assert_int_equal(vchan_ring_write(&scene.guest, much, 1, &tells), -EPROTO);
        page()->to_host.read = 0x80000000;
        assert_int_equal(vchan_ring_write(&scene.guest, much, sizeof(much), &tells), -EPROTO);
        end();
}

/* Our own, and the sizes, are not read there again. */
static void test_what_is_ours_is_nobody_elses(void **state) {
        char text[16];
        bool tells;

        begin(12, 12);
        assert_int_equal(libxenvchan_write(&scene.host, "abc", 3), 3);
        page()->to_host.written = 0x12345678;
        page()->to_guest.read = 0x12345678;
        page()->to_host_order = page()->to_guest_order = 31;
        assert_int_equal(vchan_ring_read(&scene.guest, text, sizeof(text), &tells), 3);
        assert_memory_equal(text, "abc", 3);
        assert_int_equal(vchan_ring_write(&scene.guest, "de", 2, &tells), 2);
        assert_int_equal(page()->to_host.written, 2);
        assert_int_equal(page()->to_guest.read, 3);
        end();
}

/* By whoever had the guest's end before. */
static void test_what_was_left_in_disorder_is_mended(void **state) {
        char text[16];
        bool tells;

        begin(12, 12);
        page()->to_host.written = 0x80000000;
        page()->to_guest.read = 77;
        assert_int_equal(attach(), 0);
        assert_int_equal(libxenvchan_read(&scene.host, text, sizeof(text)), 0);
        assert_int_equal(vchan_ring_read(&scene.guest, text, sizeof(text), &tells), -EAGAIN);
        assert_int_equal(vchan_ring_write(&scene.guest, "new", 3, &tells), 3);
        assert_int_equal(libxenvchan_read(&scene.host, text, sizeof(text)), 3);
        assert_memory_equal(text, "new", 3);
        end();
}

/* Nothing is touched that is not the stream's, whatever the host writes meanwhile. */
static void test_garbage_touches_nothing_else(void **state) {
        enum { ORDER = 12 };
        static char out[GUARD + (1 << ORDER) + GUARD], in[GUARD + (1 << ORDER) + GUARD], piece[1 << 14];
        struct vchan_layout layout;
        bool tells;

        begin(ORDER, ORDER);
        srand(1);
        memset(out, 0x5a, sizeof(out));
        memset(in, 0x5a, sizeof(in));
        for (unsigned i = 0; i < 200000; i++) {
                assert_int_equal(vchan_layout_read(page(), &layout), 0);
                if (i % 1000 == 0)
                        vchan_ring_init(&scene.guest, page(), &layout, out + GUARD, in + GUARD);
                page()->to_host.read = rand() % 3 ? scene.guest.written - (uint32_t)(rand() % 5000) : (uint32_t)rand() * 2u;
                page()->to_guest.written = rand() % 3 ? scene.guest.read + (uint32_t)(rand() % 5000) : (uint32_t)rand() * 2u;
                vchan_ring_read(&scene.guest, piece, (size_t)(rand() % (int)sizeof(piece)), &tells);
                vchan_ring_write(&scene.guest, piece, (size_t)(rand() % (int)sizeof(piece)), &tells);
        }
        for (size_t i = 0; i < GUARD; i++) {
                assert_true(out[i] == 0x5a && out[sizeof(out) - 1 - i] == 0x5a);
                assert_true(in[i] == 0x5a && in[sizeof(in) - 1 - i] == 0x5a);
        }
        end();
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_the_page_is_laid_out_as_xen_has_it),
                cmocka_unit_test(test_what_is_said_is_heard_in_streams_of_every_place),
                cmocka_unit_test(test_what_has_no_room_waits_until_there_is_some),
                cmocka_unit_test(test_nobody_is_told_who_does_not_wait),
                cmocka_unit_test(test_a_host_that_goes_is_known_when_all_is_read),
                cmocka_unit_test(test_numbers_of_bytes_go_round),
                cmocka_unit_test(test_both_ends_at_once_get_every_byte),
                cmocka_unit_test(test_sizes_that_cannot_be_are_refused),
                cmocka_unit_test(test_indices_that_cannot_be_end_it),
                cmocka_unit_test(test_what_is_ours_is_nobody_elses),
                cmocka_unit_test(test_what_was_left_in_disorder_is_mended),
                cmocka_unit_test(test_garbage_touches_nothing_else),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
