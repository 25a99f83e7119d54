/* What a guest asks xenstore: here it is a pseudoterminal's other end that answers, rightly and otherwise. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "client/xen-store.h"

struct header {
        uint32_t type, request, transaction, length;
};

static struct {
        int master, slave;
        struct header answer;
        const char *bytes;
        size_t n_bytes;
        char asked[300];
        struct header asks;
        unsigned signals; /* that come while an answer is waited for; atomic */
} store;

/* A signal may end any wait of the library's. */
int poll(struct pollfd *fds, nfds_t n, int timeout_ms) {
        const struct timespec timeout = { .tv_sec = timeout_ms / 1000, .tv_nsec = timeout_ms % 1000 * 1000000L };

        if (n && __atomic_load_n(&store.signals, __ATOMIC_RELAXED)) {
                __atomic_fetch_sub(&store.signals, 1, __ATOMIC_RELAXED);
                errno = EINTR;
                return -1;
        }
        return ppoll(fds, n, timeout_ms < 0 ? NULL : &timeout, NULL);
}

static void read_all(void *ret, size_t size) {
        for (size_t done = 0; done < size;) {
                ssize_t n = read(store.master, (char *)ret + done, size - done);

                if (n <= 0)
                        abort();
                done += (size_t)n;
        }
}

/* Bit by bit, as the kernel may. */
static void *answer(void *unused) {
        read_all(&store.asks, sizeof(store.asks));
        read_all(store.asked, store.asks.length < sizeof(store.asked) ? store.asks.length : sizeof(store.asked));
        if (write(store.master, &store.answer, 7) != 7)
                abort();
        do
                poll(NULL, 0, 2);
        while (__atomic_load_n(&store.signals, __ATOMIC_RELAXED));
        if (write(store.master, (char *)&store.answer + 7, sizeof(store.answer) - 7) < 0 ||
            write(store.master, store.bytes, store.n_bytes) < 0)
                abort();
        return NULL;
}

static int ask(uint32_t type, const char *bytes, uint32_t length, char *ret, size_t size) {
        pthread_t thread;
        int r;

        store.answer = (struct header){ .type = type, .length = length };
        store.bytes = bytes;
        store.n_bytes = length <= strlen(bytes) + 1 ? length : 0;
        tcflush(store.slave, TCIOFLUSH);
        pthread_create(&thread, NULL, answer, NULL);
        r = xen_store_read("dmabroker/vchan/ring-ref", ret, size);
        __atomic_store_n(&store.signals, 0, __ATOMIC_RELAXED);
        pthread_join(thread, NULL);
        return r;
}

static int begin(void **state) {
        struct termios terminal;

        store.master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
        assert_true(grantpt(store.master) == 0 && unlockpt(store.master) == 0);
        store.slave = open(ptsname(store.master), O_RDWR | O_NOCTTY | O_CLOEXEC);
        tcgetattr(store.slave, &terminal);
        cfmakeraw(&terminal);
        tcsetattr(store.slave, TCSANOW, &terminal);
        xen_store_set_device(ptsname(store.master));
        return 0;
}

static int end(void **state) {
        close(store.slave);
        close(store.master);
        return 0;
}

static void test_a_value_is_read(void **state) {
        char text[16];

        assert_int_equal(ask(2, "1234", 4, text, sizeof(text)), 0);
        assert_string_equal(text, "1234");
        assert_int_equal(store.asks.type, 2);
        assert_string_equal(store.asked, "dmabroker/vchan/ring-ref");
        assert_int_equal(store.asks.length, strlen(store.asked) + 1);
        assert_int_equal(ask(2, "", 0, text, sizeof(text)), 0);
        assert_string_equal(text, "");
}

static void test_signals_do_not_end_the_wait(void **state) {
        char text[16];

        store.signals = 3;
        assert_int_equal(ask(2, "1234", 4, text, sizeof(text)), 0);
        assert_string_equal(text, "1234");
}

static void test_errors_have_names(void **state) {
        char text[16];

        assert_int_equal(ask(16, "ENOENT", 7, text, sizeof(text)), -ENOENT);
        assert_int_equal(ask(16, "EACCES", 7, text, sizeof(text)), -EACCES);
        assert_int_equal(ask(16, "ESOMETHING", 11, text, sizeof(text)), -EPROTO);
}

static void test_what_is_no_answer_is_refused(void **state) {
        char text[16];

        assert_int_equal(ask(3, "1234", 4, text, sizeof(text)), -EPROTO);
        assert_int_equal(ask(2, "1234567890123456", 16, text, sizeof(text)), -EPROTO);
        assert_int_equal(ask(2, "", 5000, text, sizeof(text)), -EPROTO);
        assert_int_equal(ask(2, "", UINT32_MAX, text, sizeof(text)), -EPROTO);
}

static void test_where_there_is_no_xenstore_there_is_nothing(void **state) {
        uint32_t number;
        char text[16];

        xen_store_set_device("/nowhere");
        assert_int_equal(xen_store_read("x", text, sizeof(text)), -ENOENT);
        assert_int_equal(xen_store_read_number("x", &number), -ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_a_value_is_read),
                TEST(test_signals_do_not_end_the_wait),
                TEST(test_errors_have_names),
                TEST(test_what_is_no_answer_is_refused),
                TEST(test_where_there_is_no_xenstore_there_is_nothing),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
