/* The client of QEMU's monitor, and what windows take of it, with a QEMU that misbehaves. */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/guest/qmp-window.h"
#include "daemon/guest/qmp.h"
#include "daemon/loop.h"
#include "proto/fdpass.h"
#include "tests/unit/fake-qemu.h"

static uv_loop_t loop;
static struct fake_qemu fake;
static struct qmp *qmp;
static char directory[64];
static unsigned fds_before;

/* What was told, and who shall close the client when it is. */
static struct {
        unsigned connected, lost, closed, events, done;
        char why[256];
        struct {
                enum qmp_event_kind kind;
                char device[32], reason[32];
        } event;
        struct {
                int error;
                bool answered;
                char value[256], sentence[300];
        } answer;
        bool done_before_closed;
        bool refuse; /* whoever connects, after a command */
        enum { CLOSE_NEVER, CLOSE_CONNECTED, CLOSE_LOST, CLOSE_EVENT, CLOSE_DONE } close;
} seen;

/* ---- callbacks ---- */

static void on_closed(void *userdata) {
        assert_ptr_equal(userdata, &seen);
        seen.closed++;
        seen.done_before_closed = seen.done;
}

static void close_now(void) {
        qmp_close(qmp, on_closed);
}

static void on_done(void *userdata, const struct qmp_answer *answer);

static void on_connected(void *userdata) {
        assert_ptr_equal(userdata, &seen);
        assert_true(qmp_is_ready(qmp));
        seen.connected++;
        if (seen.refuse) {
                assert_int_equal(qmp_execute(qmp, "stop", NULL, on_done, NULL), 0);
                qmp_refuse(qmp, "it is not the one");
        }
        if (seen.close == CLOSE_CONNECTED)
                close_now();
}

static void on_lost(void *userdata, const char *why) {
        assert_false(qmp_is_ready(qmp));
        seen.lost++;
        snprintf(seen.why, sizeof(seen.why), "%s", why);
        if (seen.close == CLOSE_LOST)
                close_now();
}

static void on_event(void *userdata, const struct qmp_event *event) {
        seen.events++;
        seen.event.kind = event->kind;
        snprintf(seen.event.device, sizeof(seen.event.device), "%s", event->device ? event->device : "");
        snprintf(seen.event.reason, sizeof(seen.event.reason), "%s", event->reason ? event->reason : "");
        if (seen.close == CLOSE_EVENT)
                close_now();
}

static void on_done(void *userdata, const struct qmp_answer *answer) {
        seen.done++;
        seen.answer.error = answer->error;
        seen.answer.answered = answer->answered;
        assert_int_equal(answer->error == 0, answer->value != NULL);
        assert_int_equal(answer->error != 0, answer->sentence != NULL);
        snprintf(seen.answer.value, sizeof(seen.answer.value), "%s", answer->value ? answer->value : "");
        snprintf(seen.answer.sentence, sizeof(seen.answer.sentence), "%s", answer->sentence ? answer->sentence : "");
        if (seen.close == CLOSE_DONE)
                close_now();
}

static const struct qmp_listener listener = { .connected = on_connected, .lost = on_lost, .event = on_event };

/* ---- beginning and end ---- */

static unsigned count_fds(void) {
        DIR *fds = opendir("/proc/self/fd");
        unsigned n = 0;

        while (readdir(fds))
                n++;
        closedir(fds);
        return n;
}

/* libuv has two descriptors of the process, which stay. */
static int begin_all(void **state) {
        return loop_init(&loop) < 0 || uv_loop_close(&loop) < 0;
}

static int begin(void **state) {
        char path[100];

        alarm(60);
        fds_before = count_fds();
        memset(&seen, 0, sizeof(seen));
        strcpy(directory, "/tmp/qmp-XXXXXX");
        assert_non_null(mkdtemp(directory));
        snprintf(path, sizeof(path), "%s/qmp", directory);
        assert_int_equal(loop_init(&loop), 0);
        fake_init(&fake, &loop, path);
        fake_listen(&fake);
        return 0;
}

static void start(uint64_t timeout_ms) {
        const struct qmp_options options = { .timeout_ms = timeout_ms, .retry_ms = 5, .retry_max_ms = 20 };

        assert_int_equal(qmp_new(&loop, fake.path, &options, &listener, &seen, &qmp), 0);
}

static void run_until(const unsigned *counter, unsigned value) {
        while (*counter < value)
                fake_step(&fake);
        assert_int_equal(*counter, value);
}

static void start_connected(void) {
        start(60000);
        fake_greet(&fake);
        run_until(&seen.connected, 1);
}

static int end(void **state) {
        if (!seen.closed)
                close_now();
        while (!seen.closed)
                uv_run(&loop, UV_RUN_ONCE);
        assert_int_equal(seen.closed, 1);
        fake_deinit(&fake);
        assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
        assert_int_equal(uv_loop_close(&loop), 0);
        assert_int_equal(rmdir(directory), 0);
        assert_int_equal(count_fds(), fds_before);
        return 0;
}

static void execute(const char *command) {
        assert_int_equal(qmp_execute(qmp, command, NULL, on_done, NULL), 0);
}

static void expect_done(unsigned n, int error) {
        run_until(&seen.done, n);
        assert_int_equal(seen.answer.error, error);
}

/* ---- the happy path ---- */

static void test_it_is_ready_when_capabilities_are_negotiated(void **state) {
        start(60000);
        assert_false(qmp_is_ready(qmp));
        assert_int_equal(qmp_execute(qmp, "stop", NULL, on_done, NULL), -ENOTCONN);
        fake_greet(&fake);
        run_until(&seen.connected, 1);
        assert_int_equal(qmp_pid(qmp), getpid());
        assert_string_equal(qmp_why_away(qmp), "");
}

static void test_a_command_is_done_with_what_qemu_returns(void **state) {
        uint64_t id;

        start_connected();
        assert_int_equal(qmp_execute(qmp, "query-pci", "{\"a\": [1, 2]}", on_done, NULL), 0);
        assert_int_equal(seen.done, 0);
        id = fake_expect(&fake, "{\"execute\":\"query-pci\",\"arguments\":{\"a\":[1,2]},\"id\":");
        fake_say(&fake, "{\"return\": [{\"bus\": 0}], \"id\": %d}\r\n", (int)id);
        expect_done(1, 0);
        assert_string_equal(seen.answer.value, "[{\"bus\":0}]");
}

static void test_what_qemu_refuses_is_told_in_its_words_on_one_line(void **state) {
        start_connected();
        execute("device_add");
        fake_refuse(&fake, fake_expect(&fake, "{\"execute\":\"device_add\""), "GenericError", "Bus 'x'\\nnot\\u001b found");
        expect_done(1, -EREMOTEIO);
        assert_true(seen.answer.answered);
        assert_string_equal(seen.answer.sentence, "Bus 'x' not  found");
        execute("device_del");
        fake_refuse(&fake, fake_expect(&fake, "{\"execute\":\"device_del\""), "DeviceNotFound", "none");
        expect_done(2, -ENODEV);
        execute("nonsense");
        fake_refuse(&fake, fake_expect(&fake, "{\"execute\":\"nonsense\""), "CommandNotFound", "none");
        expect_done(3, -EOPNOTSUPP);
}

static void test_answers_find_their_commands_by_number(void **state) {
        uint64_t ids[3];

        start_connected();
        for (int i = 0; i < 3; i++)
                execute("stop");
        for (int i = 0; i < 3; i++)
                ids[i] = fake_expect(&fake, "{\"execute\":\"stop\"");
        for (int i = 2; i >= 0; i--) {
                fake_say(&fake, "{\"return\": %d, \"id\": %d}\n{\"return\": 9, \"id\": 999}\n{\"return\": 9}\n", i, (int)ids[i]);
                expect_done((unsigned)(3 - i), 0);
                assert_int_equal(atoi(seen.answer.value), i);
        }
}

static void test_events_are_told_and_unknown_ones_are_not(void **state) {
        static const struct {
                const char *name;
                enum qmp_event_kind kind;
        } events[] = { { "SHUTDOWN", QMP_EVENT_SHUTDOWN },
                       { "RESET", QMP_EVENT_RESET },
                       { "STOP", QMP_EVENT_STOP },
                       { "RESUME", QMP_EVENT_RESUME },
                       { "DEVICE_DELETED", QMP_EVENT_DEVICE_DELETED },
                       { "DEVICE_UNPLUG_GUEST_ERROR", QMP_EVENT_UNPLUG_REFUSED },
                       { "GUEST_PANICKED", QMP_EVENT_GUEST_PANICKED } };

        start_connected();
        for (unsigned i = 0; i < sizeof(events) / sizeof(*events); i++) {
                fake_say(&fake, "{\"event\": \"NIC_RX_FILTER_CHANGED\"}\r\n{\"event\": \"%s\", \"data\": {\"device\": \"d%u\", "
                                "\"reason\": \"why\"}}\r\n", events[i].name, i);
                run_until(&seen.events, i + 1);
                assert_int_equal(seen.event.kind, events[i].kind);
                assert_int_equal(seen.event.device[1], '0' + (int)i);
                assert_string_equal(seen.event.reason, "why");
        }
}

static void test_lines_may_come_in_pieces(void **state) {
        static const char text[] = "{\"event\": \"STOP\"}\r\n{\"event\": \"RESUME\"}\r\n";

        start_connected();
        for (size_t i = 0; i < sizeof(text) - 1; i++) {
                fake_say_bytes(&fake, text + i, 1);
                uv_run(&loop, UV_RUN_NOWAIT);
        }
        run_until(&seen.events, 2);
}

/* ---- when QEMU is away ---- */

static void test_it_waits_until_there_is_a_qemu(void **state) {
        fake_deinit(&fake);
        start(60000);
        while (!*qmp_why_away(qmp))
                uv_run(&loop, UV_RUN_ONCE);
        assert_non_null(strstr(qmp_why_away(qmp), "cannot be connected to: No such file"));
        fake_listen(&fake);
        fake_greet(&fake);
        run_until(&seen.connected, 1);
        assert_int_equal(seen.lost, 0);
}

static void test_commands_fail_when_qemu_ends_and_it_is_connected_to_again(void **state) {
        start_connected();
        for (unsigned i = 1; i <= 20; i++) {
                execute("stop");
                execute("cont");
                if (i % 2)
                        fake_next_line(&fake);
                fake_hang_up(&fake);
                run_until(&seen.lost, i);
                assert_int_equal(seen.done, 2 * i);
                assert_int_equal(seen.answer.error, -ECONNRESET);
                assert_false(seen.answer.answered);
                assert_int_equal(qmp_execute(qmp, "stop", NULL, on_done, NULL), -ENOTCONN);
                assert_int_equal(qmp_pid(qmp), 0);
                fake_greet(&fake);
                run_until(&seen.connected, i + 1);
        }
}

static void test_what_qemu_said_before_its_end_counts(void **state) {
        start_connected();
        execute("quit");
        while (!fake.used)
                fake_step(&fake);
        /* With something unread at its end the connection is reset. */
        fake.deaf = true;
        execute("stop");
        uv_run(&loop, UV_RUN_NOWAIT);
        for (int i = 0; i < 1000; i++)
                fake_say(&fake, "{\"event\": \"STOP\"}\r\n");
        fake_say(&fake, "{\"event\": \"SHUTDOWN\"}\r\n");
        fake_hang_up(&fake);
        run_until(&seen.lost, 1);
        assert_int_equal(seen.events, 1001);
        assert_int_equal(seen.event.kind, QMP_EVENT_SHUTDOWN);
        assert_int_equal(seen.done, 2);
}

static void test_half_a_line_at_the_end_is_nothing(void **state) {
        uint64_t id;

        start_connected();
        execute("stop");
        id = fake_expect(&fake, "{\"execute\":\"stop\"");
        fake_say(&fake, "{\"return\": {}, \"id\": %d}", (int)id);
        fake_hang_up(&fake);
        expect_done(1, -ECONNRESET);
        fake_greet(&fake);
        run_until(&seen.connected, 2);
}

static void test_a_qemu_that_does_not_greet_is_tried_again(void **state) {
        start(30);
        run_until(&fake.n_ended, 3);
        assert_non_null(strstr(qmp_why_away(qmp), "does not greet"));
        assert_int_equal(seen.connected + seen.lost, 0);
}

static void test_a_qemu_that_does_not_negotiate_is_tried_again(void **state) {
        start(30);
        fake_say(&fake, "{\"QMP\": {}}\r\n");
        run_until(&fake.n_ended, 1);
        fake_say(&fake, "{\"QMP\": {}}\r\n");
        fake_refuse(&fake, fake_expect(&fake, "{\"execute\":\"qmp_capabilities\""), "GenericError", "no");
        run_until(&fake.n_ended, 2);
        assert_string_equal(qmp_why_away(qmp), "no");
        assert_int_equal(seen.connected + seen.lost, 0);
}

/* ---- a QEMU that misbehaves ---- */

static void test_what_is_no_qmp_is_hung_up_on(void **state) {
        static const char *const lines[] = {
                "SSH-2.0-OpenSSH_9.2", "{", "[]", "{\"return\": {}} {}", "{\"QMP\": {}}", "{\"event\": 1}", "\x01\x02\xff",
                "{\"error\": {}}", "{\"return\": \"\\u0000\"}",
        };

        start_connected();
        for (unsigned i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
                execute("stop");
                fake_next_line(&fake);
                fake_say(&fake, "%s\r\n{\"event\": \"STOP\"}\r\n", lines[i]);
                run_until(&seen.lost, i + 1);
                assert_int_equal(seen.done, i + 1);
                assert_int_equal(seen.events, 0);
                run_until(&fake.n_ended, i + 1);
                fake_greet(&fake);
                run_until(&seen.connected, i + 2);
        }
}

static void test_what_comes_instead_of_the_greeting_is_hung_up_on(void **state) {
        start(60000);
        fake_say(&fake, "{\"return\": {}, \"id\": 1}\r\n");
        run_until(&fake.n_ended, 1);
        fake_say(&fake, "{\"event\": \"STOP\"}\r\n");
        run_until(&fake.n_ended, 2);
        assert_int_equal(seen.connected + seen.lost + seen.events, 0);
}

static void test_a_line_without_end_is_hung_up_on(void **state) {
        char *text = malloc(2 << 20);

        memset(text, 'x', 2 << 20);
        start_connected();
        fake_say_bytes(&fake, text, 2 << 20);
        free(text);
        run_until(&seen.lost, 1);
        assert_string_equal(seen.why, "what QEMU says is too long");
}

static void test_a_line_as_long_as_allowed_is_read(void **state) {
        size_t size = 1 << 20, n;
        char *text = malloc(size + 1);
        uint64_t id;

        start_connected();
        execute("query-much");
        id = fake_expect(&fake, "{\"execute\":\"query-much\"");
        memset(text, 'x', size);
        n = (size_t)snprintf(text, size, "{\"id\": %d, \"return\": \"", (int)id);
        text[n] = 'x';
        memcpy(text + size - 2, "\"}\n", 3);
        fake_say_bytes(&fake, text, size + 1);
        free(text);
        expect_done(1, 0);
}

static void test_a_flood_of_events_lets_others_have_their_turn(void **state) {
        static char text[19 * 5000 + 1];
        unsigned turns = 0;

        for (int i = 0; i < 5000; i++)
                strcpy(text + 19 * i, "{\"event\": \"STOP\"}\r\n");
        start_connected();
        fake_say_bytes(&fake, text, sizeof(text) - 1);
        while (seen.events < 5000) {
                fake_step(&fake);
                turns++;
        }
        assert_true(turns > 3);
        assert_int_equal(seen.lost, 0);
}

static void test_descriptors_of_qemus_are_not_taken(void **state) {
        static const char text[] = "{\"event\": \"STOP\"}\r\n";
        unsigned before;
        int zero = 0;

        start_connected();
        before = count_fds();
        assert_int_equal(fdpass_send(fake.client, &(struct iovec){ (void *)text, sizeof(text) - 1 }, 1, &zero, 1),
                         sizeof(text) - 1);
        run_until(&seen.events, 1);
        assert_int_equal(count_fds(), before);
}

static void test_a_command_without_answer_fails_and_a_late_answer_is_nobodys(void **state) {
        uint64_t late;

        start(60);
        fake_greet(&fake);
        run_until(&seen.connected, 1);
        execute("stop");
        late = fake_expect(&fake, "{\"execute\":\"stop\"");
        expect_done(1, -ETIMEDOUT);
        assert_false(seen.answer.answered);
        fake_return(&fake, late);
        fake_say(&fake, "{\"event\": \"STOP\"}\r\n");
        run_until(&seen.events, 1);
        assert_int_equal(seen.done, 1);
        assert_int_equal(seen.lost, 0);
        assert_true(qmp_is_ready(qmp));
}

static void test_no_more_than_so_many_commands_are_under_way(void **state) {
        start_connected();
        for (int i = 0; i < 64; i++)
                execute("stop");
        assert_int_equal(qmp_execute(qmp, "stop", NULL, on_done, NULL), -EBUSY);
        assert_int_equal(qmp_unplug(qmp, "d", 1000, on_done, NULL), -EBUSY);
        fake_return(&fake, fake_expect(&fake, "{\"execute\":\"stop\""));
        expect_done(1, 0);
        execute("stop");
}

static void test_no_more_than_so_much_is_kept_for_a_qemu_that_does_not_read(void **state) {
        char *arguments = malloc(400000);
        int r, n = 0;

        memset(arguments, 'x', 400000);
        memcpy(arguments, "{\"a\":\"", 6);
        strcpy(arguments + 399990, "\"}");
        start_connected();
        fake.deaf = true;
        while ((r = qmp_execute(qmp, "stop", arguments, on_done, NULL)) == 0) {
                uv_run(&loop, UV_RUN_NOWAIT);
                n++;
        }
        free(arguments);
        assert_int_equal(r, -ENOBUFS);
        assert_in_range(n, 2, 8);
        fake_hang_up(&fake);
        fake.deaf = false;
        run_until(&seen.done, (unsigned)n);
}

static void test_arguments_that_are_no_object_are_refused(void **state) {
        start_connected();
        assert_int_equal(qmp_execute(qmp, "stop", "{\"a\":", on_done, NULL), -EINVAL);
        assert_int_equal(qmp_execute(qmp, "stop", "{}\n{\"execute\":\"quit\"}", on_done, NULL), -EINVAL);
        execute("cont");
        fake_return(&fake, fake_expect(&fake, "{\"execute\":\"cont\",\"id\":"));
        expect_done(1, 0);
}

/* ---- the end ---- */

static void test_commands_under_way_are_done_before_the_end(void **state) {
        start_connected();
        for (int i = 0; i < 5; i++)
                execute("stop");
        close_now();
        assert_int_equal(seen.done, 0);
        run_until(&seen.closed, 1);
        assert_int_equal(seen.done, 5);
        assert_true(seen.done_before_closed);
        assert_int_equal(seen.answer.error, -ECANCELED);
        assert_int_equal(seen.lost, 0);
}

static void test_it_may_be_closed_from_any_callback(void **state) {
        for (int when = CLOSE_CONNECTED; when <= CLOSE_DONE; when++) {
                memset(&seen, 0, sizeof(seen));
                seen.close = when;
                start(60000);
                fake_greet(&fake);
                run_until(&seen.connected, 1);
                if (when != CLOSE_CONNECTED) {
                        execute("stop");
                        execute("stop");
                        fake_return(&fake, fake_expect(&fake, "{\"execute\":\"stop\""));
                        fake_say(&fake, "{\"event\": \"STOP\"}\nnonsense\n{\"event\": \"STOP\"}\n");
                }
                run_until(&seen.closed, 1);
                assert_int_equal(seen.done, when == CLOSE_CONNECTED ? 0 : 2);
                run_until(&fake.n_ended, (unsigned)when);
        }
}

static void test_one_that_is_refused_is_hung_up_on_and_tried_again(void **state) {
        seen.refuse = true;
        start_connected();
        assert_false(qmp_is_ready(qmp));
        assert_int_equal(seen.lost, 1);
        assert_int_equal(seen.done, 1);
        assert_int_equal(seen.answer.error, -ECONNRESET);
        assert_string_equal(qmp_why_away(qmp), "it is not the one");
        qmp_refuse(qmp, "nobody is there");
        assert_int_equal(seen.lost, 1);
        run_until(&fake.n_ended, 1);
        seen.refuse = false;
        qmp_hurry(qmp);
        fake_greet(&fake);
        run_until(&seen.connected, 2);
        qmp_hurry(qmp);
        assert_true(qmp_is_ready(qmp));
}

static void test_it_may_be_closed_before_anything_happened(void **state) {
        start(60000);
        close_now();
        close_now();
}

static void test_a_path_that_does_not_fit_is_refused(void **state) {
        char path[200];

        memset(path, 'x', sizeof(path) - 1);
        path[sizeof(path) - 1] = '\0';
        assert_int_equal(qmp_new(&loop, path, NULL, &listener, &seen, &qmp), -ENAMETOOLONG);
        start(60000);
}

/* ---- taking devices out ---- */

static void unplug(uint64_t timeout_ms) {
        assert_int_equal(qmp_unplug(qmp, "w0", timeout_ms, on_done, NULL), 0);
}

static void say_deleted(const char *device) {
        fake_say(&fake, "{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"%s\", \"path\": \"/machine\"}}\n"
                        "{\"event\": \"DEVICE_DELETED\", \"data\": {\"path\": \"/machine/0\"}}\n", device);
}

static void test_a_device_is_out_when_the_guest_has_let_go_of_it(void **state) {
        start_connected();
        unplug(60000);
        fake_return(&fake, fake_expect(&fake, "{\"execute\":\"device_del\",\"arguments\":{\"id\":\"w0\"},\"id\":"));
        say_deleted("w1");
        run_until(&seen.events, 2);
        assert_int_equal(seen.done, 0);
        say_deleted("w0");
        run_until(&seen.events, 4);
        assert_int_equal(seen.done, 1);
        assert_int_equal(seen.answer.error, 0);
}

static void test_a_device_may_be_out_before_qemu_answers(void **state) {
        uint64_t id;

        start_connected();
        unplug(60000);
        id = fake_expect(&fake, "{\"execute\":\"device_del\"");
        say_deleted("w0");
        expect_done(1, 0);
        fake_return(&fake, id);
        fake_say(&fake, "{\"event\": \"STOP\"}\n");
        run_until(&seen.events, 3);
        assert_int_equal(seen.done, 1);
}

static void test_a_guest_that_does_not_let_go_is_waited_for_so_long(void **state) {
        start_connected();
        unplug(30);
        fake_return(&fake, fake_expect(&fake, "{\"execute\":\"device_del\""));
        expect_done(1, -ETIMEDOUT);
        assert_string_equal(seen.answer.sentence, "the guest has not let go of w0 in time");
        assert_true(qmp_is_ready(qmp));
}

static void test_a_guest_that_refuses_is_not_waited_for(void **state) {
        start_connected();
        unplug(60000);
        fake_return(&fake, fake_expect(&fake, "{\"execute\":\"device_del\""));
        fake_say(&fake, "{\"event\": \"DEVICE_UNPLUG_GUEST_ERROR\", \"data\": {\"device\": \"w0\", \"path\": \"/m\"}}\n");
        expect_done(1, -EBUSY);
        run_until(&seen.events, 1);
}

static void test_a_qemu_that_refuses_is_not_waited_for(void **state) {
        start_connected();
        unplug(60000);
        fake_refuse(&fake, fake_expect(&fake, "{\"execute\":\"device_del\""), "DeviceNotFound", "none");
        expect_done(1, -ENODEV);
        unplug(60000);
        fake_hang_up(&fake);
        expect_done(2, -ECONNRESET);
}

/* ---- windows ---- */

static const struct qmp_window window = {
        .id = "w0", .socket = "/run/a \"window\"", .vectors = 2, .bus = "rp1", .addr = "0x0",
};

static void attach(void) {
        assert_int_equal(qmp_attach_window(qmp, &window, on_done, NULL), 0);
}

static void expect_clearing(void) {
        uint64_t id = fake_expect(&fake, "{\"execute\":\"chardev-remove\",\"arguments\":{\"id\":\"w0-window\"}");

        fake_refuse(&fake, id, "GenericError", "Chardev 'w0-window' not found");
}

static void test_a_window_is_a_connection_and_a_device(void **state) {
        start_connected();
        attach();
        expect_clearing();
        fake_return(&fake, fake_expect(&fake, "{\"execute\":\"chardev-add\",\"arguments\":{\"id\":\"w0-window\",\"backend\":"
                                              "{\"type\":\"socket\",\"data\":{\"server\":false,\"addr\":{\"type\":\"unix\","
                                              "\"data\":{\"path\":\"/run/a \\\"window\\\"\"}}}}},\"id\":"));
        assert_int_equal(seen.done, 0);
        fake_return(&fake, fake_expect(&fake, "{\"execute\":\"device_add\",\"arguments\":{\"driver\":\"ivshmem-doorbell\","
                                              "\"id\":\"w0\",\"chardev\":\"w0-window\",\"vectors\":2,\"bus\":\"rp1\","
                                              "\"addr\":\"0x0\"},\"id\":"));
        expect_done(1, 0);
}

static void test_bus_and_addr_may_be_left_to_qemu(void **state) {
        start_connected();
        assert_int_equal(qmp_attach_window(qmp, &(struct qmp_window){ .id = "w0", .socket = "s" }, on_done, NULL), 0);
        expect_clearing();
        fake_return(&fake, fake_expect(&fake, "{\"execute\":\"chardev-add\""));
        fake_return(&fake, fake_expect(&fake, "{\"execute\":\"device_add\",\"arguments\":{\"driver\":\"ivshmem-doorbell\","
                                              "\"id\":\"w0\",\"chardev\":\"w0-window\",\"vectors\":1},\"id\":"));
        expect_done(1, 0);
}

static void test_the_connection_is_taken_back_when_the_device_is_refused(void **state) {
        start_connected();
        attach();
        expect_clearing();
        fake_return(&fake, fake_expect(&fake, "{\"execute\":\"chardev-add\""));
        fake_refuse(&fake, fake_expect(&fake, "{\"execute\":\"device_add\""), "GenericError", "Bus 'rp1' not found");
        fake_return(&fake, fake_expect(&fake, "{\"execute\":\"chardev-remove\",\"arguments\":{\"id\":\"w0-window\"}"));
        expect_done(1, -EREMOTEIO);
        assert_string_equal(seen.answer.sentence, "Bus 'rp1' not found");
}

static void test_without_a_connection_there_is_no_device(void **state) {
        start_connected();
        attach();
        expect_clearing();
        fake_refuse(&fake, fake_expect(&fake, "{\"execute\":\"chardev-add\""), "GenericError", "Failed to connect");
        expect_done(1, -EREMOTEIO);
        assert_false(fake_has_line(&fake));
}

static void test_an_attachment_fails_wherever_qemu_ends(void **state) {
        static const char *const commands[] = { "chardev-remove", "chardev-add", "device_add", "chardev-remove" };
        char text[100];

        start_connected();
        for (unsigned last = 0; last < 4; last++) {
                attach();
                for (unsigned i = 0; i <= last; i++) {
                        uint64_t id;

                        snprintf(text, sizeof(text), "{\"execute\":\"%s\"", commands[i]);
                        id = fake_expect(&fake, text);
                        if (i == last)
                                fake_hang_up(&fake);
                        else if (i == 2)
                                fake_refuse(&fake, id, "GenericError", "no");
                        else
                                fake_return(&fake, id);
                }
                expect_done(last + 1, last == 3 ? -EREMOTEIO : -ECONNRESET);
                fake_greet(&fake);
                run_until(&seen.connected, last + 2);
        }
}

static void test_an_attachment_ends_with_the_client(void **state) {
        start_connected();
        attach();
        expect_clearing();
        fake_expect(&fake, "{\"execute\":\"chardev-add\"");
        close_now();
        run_until(&seen.closed, 1);
        assert_int_equal(seen.done, 1);
        assert_int_equal(seen.answer.error, -ECANCELED);
}

static void detach(uint64_t timeout_ms) {
        assert_int_equal(qmp_detach_window(qmp, "w0", timeout_ms, on_done, NULL), 0);
}

static void test_the_connection_is_taken_away_when_the_device_is_out(void **state) {
        start_connected();
        detach(60000);
        fake_return(&fake, fake_expect(&fake, "{\"execute\":\"device_del\",\"arguments\":{\"id\":\"w0\"}"));
        say_deleted("w0");
        fake_return(&fake, fake_expect(&fake, "{\"execute\":\"chardev-remove\",\"arguments\":{\"id\":\"w0-window\"}"));
        expect_done(1, 0);
        detach(60000);
        fake_refuse(&fake, fake_expect(&fake, "{\"execute\":\"device_del\""), "DeviceNotFound", "none");
        expect_clearing();
        expect_done(2, -ENODEV);
        detach(60000);
        fake_refuse(&fake, fake_expect(&fake, "{\"execute\":\"device_del\""), "DeviceNotFound", "none");
        fake_expect(&fake, "{\"execute\":\"chardev-remove\"");
        fake_hang_up(&fake);
        expect_done(3, -ENODEV);
}

static void test_a_window_that_the_guest_keeps_stays(void **state) {
        start_connected();
        detach(30);
        fake_return(&fake, fake_expect(&fake, "{\"execute\":\"device_del\""));
        expect_done(1, -ETIMEDOUT);
        assert_false(fake_has_line(&fake));
        say_deleted("w0");
        run_until(&seen.events, 2);
}

/* ---- status ---- */

static struct qmp_status status;

static void on_status(void *userdata, const struct qmp_answer *answer, const struct qmp_status *told) {
        assert_int_equal(answer->error == 0, told != NULL);
        if (told)
                status = *told;
        seen.done++;
        seen.answer.error = answer->error;
}

static void test_a_status_is_asked_for(void **state) {
        static const char *const values[] = { "{\"status\": \"paused\", \"running\": false}", "{}" };

        start_connected();
        for (unsigned i = 0; i < 2; i++) {
                assert_int_equal(qmp_query_status(qmp, on_status, NULL), 0);
                fake_say(&fake, "{\"return\": %s, \"id\": %d}\n", values[i],
                         (int)fake_expect(&fake, "{\"execute\":\"query-status\""));
                expect_done(i + 1, i ? -EBADMSG : 0);
        }
        assert_string_equal(status.name, "paused");
        assert_int_equal(qmp_query_status(qmp, on_status, NULL), 0);
        fake_hang_up(&fake);
        expect_done(3, -ECONNRESET);
}

#define test(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void) {
        const struct CMUnitTest tests[] = {
                test(test_it_is_ready_when_capabilities_are_negotiated),
                test(test_a_command_is_done_with_what_qemu_returns),
                test(test_what_qemu_refuses_is_told_in_its_words_on_one_line),
                test(test_answers_find_their_commands_by_number),
                test(test_events_are_told_and_unknown_ones_are_not),
                test(test_lines_may_come_in_pieces),
                test(test_it_waits_until_there_is_a_qemu),
                test(test_commands_fail_when_qemu_ends_and_it_is_connected_to_again),
                test(test_what_qemu_said_before_its_end_counts),
                test(test_half_a_line_at_the_end_is_nothing),
                test(test_a_qemu_that_does_not_greet_is_tried_again),
                test(test_a_qemu_that_does_not_negotiate_is_tried_again),
                test(test_what_is_no_qmp_is_hung_up_on),
                test(test_what_comes_instead_of_the_greeting_is_hung_up_on),
                test(test_a_line_without_end_is_hung_up_on),
                test(test_a_line_as_long_as_allowed_is_read),
                test(test_a_flood_of_events_lets_others_have_their_turn),
                test(test_descriptors_of_qemus_are_not_taken),
                test(test_a_command_without_answer_fails_and_a_late_answer_is_nobodys),
                test(test_no_more_than_so_many_commands_are_under_way),
                test(test_no_more_than_so_much_is_kept_for_a_qemu_that_does_not_read),
                test(test_arguments_that_are_no_object_are_refused),
                test(test_commands_under_way_are_done_before_the_end),
                test(test_it_may_be_closed_from_any_callback),
                test(test_one_that_is_refused_is_hung_up_on_and_tried_again),
                test(test_it_may_be_closed_before_anything_happened),
                test(test_a_path_that_does_not_fit_is_refused),
                test(test_a_device_is_out_when_the_guest_has_let_go_of_it),
                test(test_a_device_may_be_out_before_qemu_answers),
                test(test_a_guest_that_does_not_let_go_is_waited_for_so_long),
                test(test_a_guest_that_refuses_is_not_waited_for),
                test(test_a_qemu_that_refuses_is_not_waited_for),
                test(test_a_window_is_a_connection_and_a_device),
                test(test_bus_and_addr_may_be_left_to_qemu),
                test(test_the_connection_is_taken_back_when_the_device_is_refused),
                test(test_without_a_connection_there_is_no_device),
                test(test_an_attachment_fails_wherever_qemu_ends),
                test(test_an_attachment_ends_with_the_client),
                test(test_the_connection_is_taken_away_when_the_device_is_out),
                test(test_a_window_that_the_guest_keeps_stays),
                test(test_a_status_is_asked_for),
        };

        return cmocka_run_group_tests(tests, begin_all, NULL);
}
