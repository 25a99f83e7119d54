/* The host's end of a channel, with Xen's own library, over ordinary memory; the guest's end is ours. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "client/vchan-ring.h"
#include "daemon/guest/vchan-server.h"
#include "tests/unit/fake-vchan.h"

#define NODE "/local/domain/7/dmabroker"

/* So many steps may it have. */
enum { STEPS_MAX = 64, STREAM = 16 << 10 };

static struct failure why;

static int begin(void **state) {
        fake_vchan_begin();
        return 0;
}

static int end(void **state) {
        fake_vchan_end();
        return 0;
}

static int make(struct vchan_server **ret) {
        int r;

        why = (struct failure){ 0 };
        fake_vchan.counts_unmaps = true;
        r = vchan_server_new(vchan_library(NULL), FAKE_VCHAN_DOMID, ret, &why);
        fake_vchan.counts_unmaps = false;
        return r;
}

static struct vchan_server *server_new(void) {
        struct vchan_server *server = NULL;

        assert_int_equal(make(&server), 0);
        return server;
}

static void server_free(struct vchan_server *server) {
        fake_vchan.counts_unmaps = true;
        vchan_server_free(server);
        fake_vchan.counts_unmaps = false;
}

/* Pages that were shared together. */
static char *map_stream(const uint32_t *grants, unsigned n) {
        char *first = fake_vchan_map(grants[0]);

        for (unsigned i = 0; i < n; i++)
                assert_ptr_equal(fake_vchan_map(grants[i]), first + (size_t)i * VCHAN_PAGE);
        return first;
}

/* As a program of the guest's does. */
static struct vchan_page *come(struct vchan_ring *ret) {
        struct vchan_page *page = fake_vchan_map((uint32_t)strtoul(fake_vchan_node(NODE "/vchan/ring-ref"), NULL, 10));
        struct vchan_layout layout;

        assert_non_null(page);
        assert_int_equal(vchan_layout_read(page, &layout), 0);
        assert_int_equal(layout.to_host_size, STREAM);
        assert_int_equal(layout.to_guest_size, STREAM);
        assert_int_equal(page->host_lives, 1);
        assert_int_equal(page->guest_lives, 2);
        vchan_ring_init(ret, page, &layout, map_stream(page->grants, layout.n_to_host),
                        map_stream(page->grants + layout.n_to_host, layout.n_to_guest));
        page->guest_lives = 1;
        return page;
}

static void test_what_is_made_is_what_the_guest_reads(void **state) {
        struct vchan_server *server = server_new();
        struct libxenvchan *vchan = vchan_server_vchan(server);
        struct vchan_ring guest;
        char text[32] = "";
        bool tells;

        come(&guest);
        /* The first bytes that are written are told of. */
        assert_int_equal(vchan_ring_write(&guest, "question", 9, &tells), 9);
        assert_true(tells);
        assert_int_equal(libxenvchan_read(vchan, text, sizeof(text)), 9);
        assert_string_equal(text, "question");
        assert_int_equal(libxenvchan_write(vchan, "answer", 7), 7);
        assert_int_equal(vchan_ring_read(&guest, text, sizeof(text), &tells), 7);
        assert_string_equal(text, "answer");
        assert_int_equal(libxenvchan_fd_for_select(vchan), fake_vchan.event);
        fake_vchan_notify();
        assert_int_equal(libxenvchan_wait(vchan), 0);
        server_free(server);
        assert_true(fake_vchan_has_left_nothing());
}

/* A program that goes is not the end of it. */
static void test_it_outlives_whoever_comes(void **state) {
        struct vchan_server *server = server_new();
        struct vchan_ring guest;
        char byte;

        come(&guest)->guest_lives = 0;
        assert_int_equal(libxenvchan_read(vchan_server_vchan(server), &byte, 1), 0);
        assert_int_equal(libxenvchan_is_open(vchan_server_vchan(server)), 1);
        server_free(server);
}

static void test_what_xenstore_tells_is_that_guests(void **state) {
        static const char *const paths[] = { NODE, NODE "/protocol", NODE "/vchan", NODE "/vchan/ring-ref",
                                             NODE "/vchan/event-channel" };
        struct vchan_server *server = server_new();

        assert_string_equal(fake_vchan_node(NODE "/protocol"), "1");
        assert_string_equal(fake_vchan_node(NODE "/vchan/event-channel"), "5");
        for (unsigned i = 0; i < sizeof(paths) / sizeof(*paths); i++)
                assert_true(fake_vchan_is_guests(paths[i]));
        server_free(server);
        assert_null(fake_vchan_node(NODE));
        assert_non_null(fake_vchan_node("/local/domain/7"));
}

/* Memory that was a server's, and is as it was left. */
static void leave_one_behind(void) {
        server_free(server_new());
}

static void test_whatever_fails_leaves_nothing(void **state) {
        struct vchan_server *server = NULL;
        char *others[2];
        unsigned n = 0;
        int r;

        leave_one_behind();
        /* Where its streams were is somebody else's now. */
        for (unsigned i = 0; i < 2; i++)
                others[i] = mmap(NULL, STREAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        do {
                fake_vchan.fail_step = ++n;
                r = make(&server);
                if (r < 0) {
                        assert_int_equal(r, -why.error);
                        assert_string_not_equal(why.sentence, "");
                        assert_true(fake_vchan_has_left_nothing());
                }
                assert_true(n < STEPS_MAX);
        } while (r < 0);
        /* Two of memory, three of the event channel, four of what is shared, twelve of xenstore at least. */
        assert_true(n > 21);
        fake_vchan.fail_step = 0;
        server_free(server);
        for (unsigned i = 0; i < 2; i++) {
                others[i][0] = 1;
                munmap(others[i], STREAM);
        }
}

static void test_a_domain_of_which_xenstore_knows_nothing_is_told_nothing(void **state) {
        struct vchan_server *server = NULL;

        fake_vchan_remove_node("/local/domain/7");
        assert_int_equal(make(&server), -ENOENT);
        assert_non_null(strstr(why.sentence, "xenstore"));
        assert_true(fake_vchan_has_left_nothing());
}

static void test_others_who_write_at_the_same_time_are_waited_for_but_not_for_ever(void **state) {
        struct vchan_server *server = NULL;

        fake_vchan.n_conflicts = 10;
        server = server_new();
        fake_vchan.n_conflicts = 10;
        server_free(server);
        assert_true(fake_vchan_has_left_nothing());
        fake_vchan.n_conflicts = 1000000;
        assert_int_equal(make(&server), -EAGAIN);
        fake_vchan.n_conflicts = 0;
}

static void test_what_another_one_has_told_stays(void **state) {
        struct vchan_server *one = server_new(), *other = server_new();
        char ref[16] = "";

        strncpy(ref, fake_vchan_node(NODE "/vchan/ring-ref"), sizeof(ref) - 1);
        server_free(one);
        assert_string_equal(fake_vchan_node(NODE "/vchan/ring-ref"), ref);
        assert_non_null(fake_vchan_map((uint32_t)strtoul(ref, NULL, 10)));
        server_free(other);
        assert_null(fake_vchan_node(NODE));
}

/* A keeper that is forked later would have them for ever, and the guest with it. */
static void test_a_child_has_nothing_of_what_is_shared(void **state) {
        struct vchan_server *server = server_new();
        unsigned n = 0;

        for (const struct fake_share *share = fake_vchan.shares; share < fake_vchan.shares + FAKE_VCHAN_SHARES; share++) {
                unsigned char pages[STREAM / VCHAN_PAGE];
                int status;
                pid_t pid;

                if (!share->at)
                        continue;
                n++;
                assert_int_equal(mincore(share->at, share->size, pages), 0);
                pid = fork();
                assert_true(pid >= 0);
                if (!pid)
                        _exit(mincore(share->at, VCHAN_PAGE, pages) == 0 || errno != ENOMEM);
                assert_int_equal(waitpid(pid, &status, 0), pid);
                assert_int_equal(status, 0);
        }
        assert_int_equal(n, 3);
        server_free(server);
}

static void test_the_guest_sees_that_it_ends(void **state) {
        struct vchan_server *server = server_new();
        unsigned n_told;

        n_told = fake_vchan.n_told;
        server_free(server);
        assert_int_equal(fake_vchan.n_told, n_told + 1);
        assert_null(vchan_server_free(NULL));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_what_is_made_is_what_the_guest_reads),
                TEST(test_it_outlives_whoever_comes),
                TEST(test_what_xenstore_tells_is_that_guests),
                TEST(test_whatever_fails_leaves_nothing),
                TEST(test_a_domain_of_which_xenstore_knows_nothing_is_told_nothing),
                TEST(test_others_who_write_at_the_same_time_are_waited_for_but_not_for_ever),
                TEST(test_what_another_one_has_told_stays),
                TEST(test_a_child_has_nothing_of_what_is_shared),
                TEST(test_the_guest_sees_that_it_ends),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
