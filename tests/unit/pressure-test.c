/* Watching the host's memory pressure, with urgent data on a socket for the kernel's trigger. */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "daemon/pressure.h"

struct host {
        uv_loop_t loop;
        struct pressure *pressure;
        int kernel; /* its end of the connection */
        int near;   /* the other one, again */
        unsigned n_short, n_over;
};

static void on_pressure(void *userdata, bool is_short) {
        struct host *host = userdata;
        char byte;

        host->n_short += is_short;
        host->n_over += !is_short;
        /* Told once, as the kernel does. */
        if (is_short)
                recv(host->near, &byte, 1, MSG_OOB);
}

/* A connection whose far end can send urgent data. */
static int connect_pair(int *ret_far) {
        struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), near = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        socklen_t length = sizeof(address);

        assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(listen(listener, 1), 0);
        assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
        assert_int_equal(connect(near, (struct sockaddr *)&address, sizeof(address)), 0);
        *ret_far = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        assert_true(*ret_far >= 0);
        close(listener);
        return near;
}

static void begin(struct host *host, uint64_t window_ms) {
        struct pressure_settings settings = { .watch = false, .stall_ms = 100, .window_ms = window_ms };

        *host = (struct host){ .kernel = -1, .near = -1 };
        assert_int_equal(uv_loop_init(&host->loop), 0);
        assert_int_equal(pressure_new(&host->loop, &settings, on_pressure, host, &host->pressure), 0);
        assert_false(pressure_is_watched(host->pressure));
        host->near = connect_pair(&host->kernel);
        assert_int_equal(pressure_watch_consume_fd(host->pressure, dup(host->near)), 0);
        assert_true(pressure_is_watched(host->pressure));
}

static void end(struct host *host) {
        pressure_close(host->pressure);
        uv_run(&host->loop, UV_RUN_DEFAULT);
        assert_int_equal(uv_loop_close(&host->loop), 0);
        close(host->near);
        close(host->kernel);
}

static void press(struct host *host) {
        unsigned before = host->n_short;

        assert_int_equal(send(host->kernel, "!", 1, MSG_OOB), 1);
        while (host->n_short == before)
                uv_run(&host->loop, UV_RUN_ONCE);
}

static void test_pressure_is_told_and_its_end_when_two_windows_were_quiet(void **state) {
        struct host host;
        uint64_t start;

        begin(&host, 50);
        for (unsigned round = 1; round < 3; round++) {
                press(&host);
                start = uv_now(&host.loop);
                press(&host);
                assert_int_equal(host.n_short, 2 * round);
                while (host.n_over < round)
                        uv_run(&host.loop, UV_RUN_ONCE);
                assert_true(uv_now(&host.loop) - start >= 100);
        }
        end(&host);
        assert_int_equal(host.n_short, 4);
}

static void test_a_trigger_that_is_gone_is_watched_no_more(void **state) {
        struct host host;

        begin(&host, 50);
        press(&host);
        /* A reset is an error for good. */
        assert_int_equal(setsockopt(host.kernel, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 },
                                    sizeof(struct linger)), 0);
        close(host.kernel);
        host.kernel = -1;
        while (pressure_is_watched(host.pressure))
                uv_run(&host.loop, UV_RUN_ONCE);
        assert_int_equal(host.n_over, 1);
        end(&host);
}

static void test_the_kernels_own_trigger_is_taken_or_its_refusal_borne(void **state) {
        static const struct pressure_settings settings[] = {
                { .watch = true, .stall_ms = 150, .window_ms = 2000 },
                { .watch = true, .stall_ms = 150, .window_ms = 2000 },
                { .watch = true, .stall_ms = 1, .window_ms = 1 }, /* which no kernel takes */
                { .watch = false },
        };
        struct host host = { .kernel = -1, .near = -1 };

        assert_int_equal(uv_loop_init(&host.loop), 0);
        assert_int_equal(pressure_new(&host.loop, &settings[0], on_pressure, &host, &host.pressure), 0);
        for (size_t i = 0; i < sizeof(settings) / sizeof(*settings); i++) {
                pressure_set(host.pressure, &settings[i]);
                if (i >= 2)
                        assert_false(pressure_is_watched(host.pressure));
        }
        end(&host);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_pressure_is_told_and_its_end_when_two_windows_were_quiet),
                cmocka_unit_test(test_a_trigger_that_is_gone_is_watched_no_more),
                cmocka_unit_test(test_the_kernels_own_trigger_is_taken_or_its_refusal_borne),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
