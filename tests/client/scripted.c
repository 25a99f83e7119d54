#include "tests/client/scripted.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/fdpass.h"
#include "tests/lib/daemon.h"

struct scripted {
        char directory[64], path[96], uri[112];
        int listener, connection;
        bool beside; /* the socket is another's */
        char line[65536];
        size_t used, taken; /* received; the first `taken` bytes are the line that was read last */
        long long id;
        char params[65536];
};

void scripted_return(struct scripted *scripted) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        snprintf(address.sun_path, sizeof(address.sun_path), "%s", scripted->path);
        scripted->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(scripted->listener >= 0);
        assert_int_equal(bind(scripted->listener, (struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(listen(scripted->listener, 8), 0);
}

struct scripted *scripted_new(void) {
        struct scripted *scripted = calloc(1, sizeof(*scripted));

        assert_non_null(scripted);
        strcpy(scripted->directory, "/tmp/dmabroker-test.XXXXXX");
        assert_non_null(mkdtemp(scripted->directory));
        snprintf(scripted->path, sizeof(scripted->path), "%s/socket", scripted->directory);
        snprintf(scripted->uri, sizeof(scripted->uri), "unix:%s", scripted->path);
        scripted_return(scripted);
        scripted->connection = -1;
        return scripted;
}

struct scripted *scripted_beside(const struct scripted *scripted) {
        struct scripted *beside = calloc(1, sizeof(*beside));

        assert_non_null(beside);
        beside->beside = true;
        beside->listener = dup(scripted->listener);
        assert_true(beside->listener >= 0);
        beside->connection = -1;
        return beside;
}

void scripted_hang_up(struct scripted *scripted) {
        if (scripted->connection >= 0)
                close(scripted->connection);
        scripted->connection = -1;
        scripted->used = scripted->taken = 0;
}

void scripted_vanish(struct scripted *scripted) {
        if (scripted->listener >= 0)
                close(scripted->listener);
        scripted->listener = -1;
        if (!scripted->beside)
                unlink(scripted->path);
}

void scripted_free(struct scripted *scripted) {
        scripted_hang_up(scripted);
        scripted_vanish(scripted);
        if (!scripted->beside)
                rmdir(scripted->directory);
        free(scripted);
}

const char *scripted_uri(const struct scripted *scripted) {
        return scripted->uri;
}

static void wait_readable(int fd) {
        struct pollfd poller = { .fd = fd, .events = POLLIN };

        assert_int_equal(poll(&poller, 1, test_timeout_ms()), 1);
}

void scripted_accept(struct scripted *scripted) {
        scripted_hang_up(scripted);
        wait_readable(scripted->listener);
        scripted->connection = accept4(scripted->listener, NULL, NULL, SOCK_CLOEXEC);
        assert_true(scripted->connection >= 0);
}

const char *scripted_expect(struct scripted *scripted, const char *method) {
        json_t *request, *params;
        char *end, *text;

        memmove(scripted->line, scripted->line + scripted->taken, scripted->used - scripted->taken);
        scripted->used -= scripted->taken;
        while (!(end = memchr(scripted->line, '\n', scripted->used))) {
                ssize_t n;

                wait_readable(scripted->connection);
                n = recv(scripted->connection, scripted->line + scripted->used, sizeof(scripted->line) - scripted->used,
                         0);
                assert_true(n > 0);
                scripted->used += n;
        }
        scripted->taken = end + 1 - scripted->line;
        request = json_loadb(scripted->line, scripted->taken, JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(request);
        assert_string_equal(json_string_value(json_object_get(request, "jsonrpc")), "2.0");
        assert_string_equal(json_string_value(json_object_get(request, "method")), method);
        scripted->id = json_integer_value(json_object_get(request, "id"));
        params = json_object_get(request, "params");
        text = params ? json_dumps(params, JSON_COMPACT) : NULL;
        snprintf(scripted->params, sizeof(scripted->params), "%s", text ? text : "");
        free(text);
        json_decref(request);
        return scripted->params;
}

long long scripted_id(const struct scripted *scripted) {
        return scripted->id;
}

void scripted_send(struct scripted *scripted, const char *bytes, const int *fds, size_t n_fds) {
        struct iovec piece = { .iov_base = (char *)bytes, .iov_len = strlen(bytes) };

        assert_int_equal(fdpass_send(scripted->connection, &piece, 1, fds, n_fds), strlen(bytes));
}

void scripted_result_of(struct scripted *scripted, long long id, const char *result) {
        char *text;

        assert_true(asprintf(&text, "{\"jsonrpc\":\"2.0\",\"id\":%lld,\"result\":%s}\n", id, result) > 0);
        scripted_send(scripted, text, NULL, 0);
        free(text);
}

void scripted_result(struct scripted *scripted, const char *result) {
        scripted_result_of(scripted, scripted->id, result);
}

void scripted_error(struct scripted *scripted, int code, const char *reason, const char *message) {
        char *text;

        assert_true(asprintf(&text,
                             "{\"jsonrpc\":\"2.0\",\"id\":%lld,\"error\":{\"code\":%d,\"message\":\"%s\","
                             "\"data\":{\"reason\":\"%s\"}}}\n",
                             scripted->id, code, message, reason) > 0);
        scripted_send(scripted, text, NULL, 0);
        free(text);
}

void scripted_too_often(struct scripted *scripted) {
        char text[256];

        snprintf(text, sizeof(text),
                 "{\"jsonrpc\":\"2.0\",\"id\":%lld,\"error\":{\"code\":%d,\"message\":\"too many calls\",\"data\":"
                 "{\"reason\":\"quota\",\"retry_ms\":1}}}\n",
                 scripted->id, EDQUOT);
        scripted_send(scripted, text, NULL, 0);
}

const char *scripted_hello_as(struct scripted *scripted, const char *session, const char *owner, int calls_in_flight) {
        const char *params = scripted_expect(scripted, "broker.hello");
        char *text;

        assert_true(asprintf(&text,
                             "{\"server\":\"dmabrokerd\",\"version\":\"7.7\",\"protocol\":1,\"session\":\"%s\","
                             "\"owner\":\"%s\",\"role\":\"local\",\"capabilities\":[],"
                             "\"limits\":{\"message_bytes\":4096,\"nesting\":8,\"calls_in_flight\":%d,\"wait_ms\":60000}}",
                             session, owner, calls_in_flight) > 0);
        scripted_result(scripted, text);
        free(text);
        return params;
}

const char *scripted_hello(struct scripted *scripted) {
        return scripted_hello_as(scripted, "secret", "user:42", 2);
}

void scripted_welcome(struct scripted *scripted) {
        scripted_accept(scripted);
        scripted_hello(scripted);
}

void scripted_bye(struct scripted *scripted) {
        scripted_expect(scripted, "broker.bye");
        scripted_result(scripted, "{}");
}

bool scripted_is_silent(const struct scripted *scripted) {
        struct pollfd poller = { .fd = scripted->connection, .events = POLLIN };

        return scripted->used == scripted->taken && !poll(&poller, 1, 0);
}
