/* Bytes as a QEMU would send them to our client of its monitor, which asks and unplugs meanwhile. Each command that was
 * accepted is done exactly once, whatever comes; what is said of it has no control characters. */
#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include "daemon/guest/qmp-window.h"
#include "tests/fuzz/fuzz.h"

enum { EVENTS_ASKED = 4, LINE_MAX_BYTES = 2048 };

static struct {
        uv_loop_t loop;
        int listener;
        struct sockaddr_un address;
        struct qmp *qmp;
        unsigned n_open, n_events;
        bool closed;
} bed = { .listener = -1 };

static void check_sentence(const char *sentence) {
        CHECK(sentence && *sentence);
        for (; *sentence; sentence++)
                CHECK(!iscntrl((unsigned char)*sentence));
}

static void check_answer(const struct qmp_answer *answer) {
        CHECK(bed.n_open);
        bed.n_open--;
        CHECK(answer->error <= 0 && (answer->error || answer->value));
        if (answer->error)
                check_sentence(answer->sentence);
}

static void on_done(void *userdata, const struct qmp_answer *answer) {
        check_answer(answer);
}

static void on_status(void *userdata, const struct qmp_answer *answer, const struct qmp_status *status) {
        CHECK(bed.n_open);
        bed.n_open--;
        CHECK(!status == (answer->error != 0));
}

static void accepted(int r) {
        bed.n_open += r == 0;
}

static void ask(void) {
        static const struct qmp_window window = { .id = "w1", .socket = "/nowhere", .bus = "port" };

        accepted(qmp_query_status(bed.qmp, on_status, NULL));
        accepted(qmp_unplug(bed.qmp, "w0", 1000, on_done, NULL));
        accepted(qmp_attach_window(bed.qmp, &window, on_done, NULL));
        accepted(qmp_detach_window(bed.qmp, "w2", 1000, on_done, NULL));
        accepted(qmp_execute(bed.qmp, "qom-list", "{\"path\":\"/machine/peripheral\"}", on_done, NULL));
}

static void on_connected(void *userdata) {
        CHECK(qmp_is_ready(bed.qmp));
        ask();
}

static void on_lost(void *userdata, const char *why) {
        check_sentence(why);
}

static void read_text(const char *text) {
        CHECK(!text || strlen(text) < LINE_MAX_BYTES);
}

static void on_event(void *userdata, const struct qmp_event *event) {
        read_text(event->device);
        read_text(event->path);
        read_text(event->reason);
        if (bed.n_events++ < EVENTS_ASKED)
                ask();
        if (event->kind == QMP_EVENT_GUEST_PANICKED)
                qmp_refuse(bed.qmp, "it panics");
}

static const struct qmp_listener listener = { .connected = on_connected, .lost = on_lost, .event = on_event };

static void on_closed(void *userdata) {
        bed.closed = true;
}

static void start(void) {
        snprintf(bed.address.sun_path, sizeof(bed.address.sun_path), "/tmp/dmab-fuzz-qmp-%ld", (long)getpid());
        bed.address.sun_family = AF_UNIX;
        CHECK(!uv_loop_init(&bed.loop));
        bed.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        CHECK(bed.listener >= 0);
        unlink(bed.address.sun_path);
        CHECK(!bind(bed.listener, (const struct sockaddr *)&bed.address, sizeof(bed.address)) && !listen(bed.listener, 8));
}

/* Whether it has hung up. */
static bool read_away(int fd) {
        char bytes[4096];
        ssize_t n;

        do
                n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
        while (n > 0);
        return n == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        const struct qmp_options options = { .line_max = LINE_MAX_BYTES, .commands_max = 8 };
        int fd = -1;

        if (bed.listener < 0)
                start();
        bed.n_open = bed.n_events = 0;
        bed.closed = false;
        CHECK(!qmp_new(&bed.loop, bed.address.sun_path, &options, &listener, NULL, &bed.qmp));
        while (fd < 0) {
                uv_run(&bed.loop, UV_RUN_NOWAIT);
                fd = accept4(bed.listener, NULL, NULL, SOCK_CLOEXEC);
        }
        for (size_t at = 0; at < size;) {
                ssize_t n = send(fd, data + at, size - at, MSG_DONTWAIT | MSG_NOSIGNAL);

                if (n < 0 && errno != EAGAIN)
                        break;
                at += n > 0 ? (size_t)n : 0;
                uv_run(&bed.loop, UV_RUN_NOWAIT);
                if (read_away(fd))
                        break;
        }
        shutdown(fd, SHUT_WR);
        while (!read_away(fd))
                uv_run(&bed.loop, UV_RUN_ONCE);
        close(fd);
        qmp_close(bed.qmp, on_closed);
        while (!bed.closed)
                uv_run(&bed.loop, UV_RUN_ONCE);
        CHECK(!bed.n_open);
        return 0;
}
