#include "tests/unit/fake-qemu.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

void fake_init(struct fake_qemu *fake, uv_loop_t *loop, const char *path) {
        *fake = (struct fake_qemu){ .loop = loop, .listener = -1, .client = -1 };
        snprintf(fake->path, sizeof(fake->path), "%s", path);
}

void fake_listen(struct fake_qemu *fake) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        strcpy(address.sun_path, fake->path);
        fake->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        assert_true(fake->listener >= 0);
        assert_int_equal(bind(fake->listener, (struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(listen(fake->listener, 8), 0);
}

void fake_hang_up(struct fake_qemu *fake) {
        if (fake->client < 0)
                return;
        close(fake->client);
        fake->client = -1;
        fake->used = 0;
        fake->n_ended++;
}

void fake_deinit(struct fake_qemu *fake) {
        fake_hang_up(fake);
        if (fake->listener >= 0)
                close(fake->listener);
        fake->listener = -1;
        unlink(fake->path);
}

static void do_accept(struct fake_qemu *fake) {
        if (fake->listener < 0 || fake->client >= 0)
                return;
        fake->client = accept4(fake->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fake->client >= 0)
                fake->n_accepted++;
}

static void do_read(struct fake_qemu *fake) {
        ssize_t n;

        if (fake->client < 0 || fake->deaf)
                return;
        assert_true(fake->used < sizeof(fake->in) - 1);
        n = recv(fake->client, fake->in + fake->used, sizeof(fake->in) - 1 - fake->used, 0);
        if (n > 0)
                fake->used += (size_t)n;
        else if (n == 0 || errno != EAGAIN)
                fake_hang_up(fake);
}

void fake_step(struct fake_qemu *fake) {
        struct pollfd fds[3] = {
                { .fd = uv_backend_fd(fake->loop), .events = POLLIN },
                { .fd = fake->client < 0 ? fake->listener : -1, .events = POLLIN },
                { .fd = fake->deaf ? -1 : fake->client, .events = POLLIN },
        };

        uv_update_time(fake->loop);
        poll(fds, 3, uv_backend_timeout(fake->loop));
        uv_run(fake->loop, UV_RUN_NOWAIT);
        do_accept(fake);
        do_read(fake);
}

bool fake_has_line(struct fake_qemu *fake) {
        return memchr(fake->in, '\n', fake->used);
}

const char *fake_next_line(struct fake_qemu *fake) {
        static char line[sizeof(fake->in)];
        size_t length;

        while (!fake_has_line(fake))
                fake_step(fake);
        length = (size_t)((char *)memchr(fake->in, '\n', fake->used) - fake->in);
        memcpy(line, fake->in, length);
        line[length] = '\0';
        fake->used -= length + 1;
        memmove(fake->in, fake->in + length + 1, fake->used);
        return line;
}

uint64_t fake_expect(struct fake_qemu *fake, const char *beginning) {
        const char *line = fake_next_line(fake), *id, *at = line;

        if (strncmp(line, beginning, strlen(beginning)) != 0)
                fail_msg("%s instead of %s", line, beginning);
        for (id = NULL; (at = strstr(at, "\"id\":")); at++)
                id = at + strlen("\"id\":");
        assert_non_null(id);
        return strtoull(id, NULL, 10);
}

void fake_say_bytes(struct fake_qemu *fake, const void *bytes, size_t size) {
        while (fake->client < 0)
                fake_step(fake);
        while (size) {
                ssize_t n = send(fake->client, bytes, size, MSG_NOSIGNAL);

                if (n < 0 && errno == EPIPE)
                        return;
                assert_true(n > 0 || errno == EAGAIN);
                if (n < 0)
                        uv_run(fake->loop, UV_RUN_NOWAIT);
                else {
                        bytes = (const char *)bytes + n;
                        size -= (size_t)n;
                }
        }
}

void fake_say(struct fake_qemu *fake, const char *format, ...) {
        char text[4096];
        va_list arguments;
        int n;

        va_start(arguments, format);
        n = vsnprintf(text, sizeof(text), format, arguments);
        va_end(arguments);
        assert_in_range(n, 0, sizeof(text) - 1);
        fake_say_bytes(fake, text, (size_t)n);
}

void fake_return(struct fake_qemu *fake, uint64_t id) {
        fake_say(fake, "{\"return\": {}, \"id\": %llu}\r\n", (unsigned long long)id);
}

void fake_refuse(struct fake_qemu *fake, uint64_t id, const char *class, const char *desc) {
        fake_say(fake, "{\"id\": %llu, \"error\": {\"class\": \"%s\", \"desc\": \"%s\"}}\r\n", (unsigned long long)id,
                 class, desc);
}

void fake_greet(struct fake_qemu *fake) {
        fake_say(fake, "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 7}}, "
                       "\"capabilities\": []}}\r\n");
        fake_return(fake, fake_expect(fake, "{\"execute\":\"qmp_capabilities\""));
}
