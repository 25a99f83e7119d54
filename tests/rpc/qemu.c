#include "tests/rpc/qemu.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/fdpass.h"
#include "tests/lib/daemon.h"

/* ---- the process ---- */

struct wish {
        bool listens;
        struct sockaddr_un address;
};

static int fulfil(const struct wish *wish) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

        if (fd < 0)
                return -errno;
        if (wish->listens)
                unlink(wish->address.sun_path);
        r = wish->listens ? bind(fd, (const struct sockaddr *)&wish->address, sizeof(wish->address))
                          : connect(fd, (const struct sockaddr *)&wish->address, sizeof(wish->address));
        if (r == 0 && wish->listens)
                r = listen(fd, 4);
        if (r == 0)
                return fd;
        r = -errno;
        close(fd);
        return r;
}

static void live(int control) {
        struct wish wish;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        /* What the test has is ended by the test alone. */
        if (control > 3)
                close_range(3, (unsigned)control - 1, 0);
        close_range((unsigned)control + 1, ~0U, 0);
        while (recv(control, &wish, sizeof(wish), 0) == sizeof(wish)) {
                int fd = fulfil(&wish), error = fd < 0 ? fd : 0;
                const struct iovec piece = { &error, sizeof(error) };

                fdpass_send(control, &piece, 1, &fd, fd >= 0);
                if (fd >= 0)
                        close(fd);
                send(control, &error, sizeof(error), MSG_NOSIGNAL); /* now the test alone has it */
        }
        _exit(0);
}

static void wait_readable(int fd) {
        struct pollfd item = { .fd = fd, .events = POLLIN };

        assert_int_equal(poll(&item, 1, test_timeout_ms()), 1);
}

/* The bytes of one message, and the descriptor that came with them, or -1. */
static ssize_t receive(int socket, void *bytes, size_t size, int *ret_fd) {
        union {
                char bytes[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } control;
        struct iovec piece = { bytes, size };
        struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control,
                                  .msg_controllen = sizeof(control) };
        struct cmsghdr *part;
        ssize_t n;

        *ret_fd = -1;
        wait_readable(socket);
        n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
        part = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
        if (part)
                memcpy(ret_fd, CMSG_DATA(part), sizeof(*ret_fd));
        return n;
}

static int open_socket(struct qemu *qemu, const char *path, bool listens) {
        struct wish wish = { .listens = listens, .address.sun_family = AF_UNIX };
        int error, fd, none;

        assert_true(strlen(path) < sizeof(wish.address.sun_path));
        strcpy(wish.address.sun_path, path);
        assert_int_equal(send(qemu->control, &wish, sizeof(wish), MSG_NOSIGNAL), sizeof(wish));
        assert_int_equal(receive(qemu->control, &error, sizeof(error), &fd), sizeof(error));
        assert_int_equal(receive(qemu->control, &error, sizeof(error), &none), sizeof(error));
        return error < 0 ? error : fd;
}

struct qemu *qemu_start(const char *path) {
        struct qemu *qemu = calloc(1, sizeof(*qemu));
        int pair[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        qemu->control = pair[0];
        qemu->pid = fork();
        if (qemu->pid == 0) {
                close(pair[0]);
                live(pair[1]);
        }
        close(pair[1]);
        qemu->listener = open_socket(qemu, path, true);
        assert_true(qemu->listener >= 0);
        return qemu;
}

void qemu_hang_up(struct qemu *qemu) {
        test_client_close(qemu->monitor);
        qemu->monitor = NULL;
}

struct qemu *qemu_kill(struct qemu *qemu) {
        if (!qemu)
                return NULL;
        kill(qemu->pid, SIGKILL);
        waitpid(qemu->pid, NULL, 0);
        qemu_hang_up(qemu);
        close(qemu->listener);
        close(qemu->control);
        free(qemu);
        return NULL;
}

int qemu_connect(struct qemu *qemu, const char *path) {
        return open_socket(qemu, path, false);
}

/* ---- its monitor ---- */

void qemu_say(struct qemu *qemu, const char *format, ...) {
        va_list arguments;
        char *text;

        va_start(arguments, format);
        assert_true(vasprintf(&text, format, arguments) >= 0);
        va_end(arguments);
        for (char *at = text; *at; at++)
                if (*at == '\'')
                        *at = '"';
        test_client_send_text(qemu->monitor, text);
        test_client_send_text(qemu->monitor, "\r\n");
        free(text);
}

static bool tells_devices(struct qemu *qemu, json_t *message) {
        const char *path = json_string_value(json_object_get(json_object_get(message, "arguments"), "path"));

        if (!path || strcmp(path, "/machine/peripheral") != 0)
                return false;
        qemu_say(qemu, "{'return': %s, 'id': %llu}", qemu->leftovers ? qemu->leftovers : "[]",
                 (unsigned long long)json_integer_value(json_object_get(message, "id")));
        json_decref(message);
        return true;
}

json_t *qemu_expect(struct qemu *qemu, const char *command, uint64_t *ret_id) {
        json_t *message, *arguments;
        const char *line, *said;

        do {
                assert_int_equal(test_client_read_line(qemu->monitor, &line), 0);
                message = json_loads(line, 0, NULL);
        } while (tells_devices(qemu, message));
        said = json_string_value(json_object_get(message, "execute"));
        if (!said || strcmp(said, command) != 0)
                fail_msg("wanted %s, got %s", command, line);
        *ret_id = (uint64_t)json_integer_value(json_object_get(message, "id"));
        arguments = json_incref(json_object_get(message, "arguments"));
        json_decref(message);
        return arguments;
}

void qemu_return(struct qemu *qemu, uint64_t id) {
        qemu_say(qemu, "{'return': {}, 'id': %llu}", (unsigned long long)id);
}

void qemu_refuse(struct qemu *qemu, uint64_t id, const char *class) {
        qemu_say(qemu, "{'id': %llu, 'error': {'class': '%s', 'desc': 'It does not like that'}}", (unsigned long long)id, class);
}

void qemu_event(struct qemu *qemu, const char *event) {
        qemu_say(qemu, "{'timestamp': {'seconds': 1, 'microseconds': 2}, 'event': '%s', 'data': {}}", event);
}

void qemu_deleted(struct qemu *qemu, const char *device) {
        qemu_say(qemu, "{'timestamp': {'seconds': 1, 'microseconds': 2}, 'event': 'DEVICE_DELETED', 'data': "
                       "{'device': '%s', 'path': '/machine/peripheral/%s'}}", device, device);
}

void qemu_obey(struct qemu *qemu, const char *command) {
        uint64_t id;

        json_decref(qemu_expect(qemu, command, &id));
        qemu_return(qemu, id);
}

void qemu_reject(struct qemu *qemu, const char *command, const char *class) {
        uint64_t id;

        json_decref(qemu_expect(qemu, command, &id));
        qemu_refuse(qemu, id, class);
}

void qemu_greet(struct qemu *qemu) {
        int fd;

        qemu_hang_up(qemu);
        wait_readable(qemu->listener);
        fd = accept4(qemu->listener, NULL, NULL, SOCK_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(test_client_adopt(fd, &qemu->monitor), 0);
        qemu_say(qemu, "{'QMP': {'version': {'qemu': {'micro': 0, 'minor': 2, 'major': 7}}, 'capabilities': []}}");
        qemu_obey(qemu, "qmp_capabilities");
}

void qemu_serve(struct qemu *qemu, bool running) {
        uint64_t id;

        qemu_greet(qemu);
        json_decref(qemu_expect(qemu, "query-status", &id));
        qemu_say(qemu, "{'return': {'running': %s, 'singlestep': false, 'status': '%s'}, 'id': %llu}", running ? "true" : "false",
                 running ? "running" : "paused", (unsigned long long)id);
}

/* ---- its windows ---- */

int64_t qemu_hear(const struct qemu_window *window, int *ret_fd) {
        int64_t number;

        assert_int_equal(receive(window->fd, &number, sizeof(number), ret_fd), sizeof(number));
        return number;
}

static void copy(char *to, size_t size, json_t *from) {
        assert_true(json_is_string(from));
        assert_true(strlen(json_string_value(from)) < size);
        strcpy(to, json_string_value(from));
}

static json_t *dig(json_t *from, const char *const *names) {
        for (; *names; names++)
                from = json_object_get(from, *names);
        return from;
}

uint64_t qemu_plug_begin(struct qemu *qemu, struct qemu_window *window) {
        static const char *const path[] = { "backend", "data", "addr", "data", "path", NULL };
        json_t *arguments;
        uint64_t id;
        int none;

        qemu_reject(qemu, "chardev-remove", "GenericError");
        arguments = qemu_expect(qemu, "chardev-add", &id);
        copy(window->connection, sizeof(window->connection), json_object_get(arguments, "id"));
        copy(window->socket, sizeof(window->socket), dig(arguments, path));
        json_decref(arguments);
        window->fd = qemu_connect(qemu, window->socket);
        assert_true(window->fd >= 0);
        qemu_return(qemu, id);
        arguments = qemu_expect(qemu, "device_add", &id);
        copy(window->id, sizeof(window->id), json_object_get(arguments, "id"));
        assert_string_equal(json_string_value(json_object_get(arguments, "chardev")), window->connection);
        json_decref(arguments);
        window->memory = -1;
        if (qemu_hear(window, &none) == 0) {
                assert_true(qemu_hear(window, &none) >= 0);
                assert_int_equal(qemu_hear(window, &window->memory), -1);
                assert_true(window->memory >= 0);
        }
        return id;
}

void qemu_plug(struct qemu *qemu, struct qemu_window *window) {
        qemu_return(qemu, qemu_plug_begin(qemu, window));
}

void qemu_drop(struct qemu_window *window) {
        if (window->memory >= 0)
                close(window->memory);
        close(window->fd);
        *window = (struct qemu_window){ .fd = -1, .memory = -1 };
}
