#include "tests/rpc/ask.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

struct test_daemon *ask_daemon(const char *config) {
        struct test_daemon_options options = { .config = config, .open_directory = true };
        struct test_daemon *daemon;

        assert_int_equal(test_daemon_start(&options, &daemon), 0);
        return daemon;
}

struct test_client *ask_connect(struct test_daemon *daemon, const struct test_identity *as) {
        struct test_client *client;

        assert_int_equal(test_client_connect(test_daemon_socket(daemon), as, &client), 0);
        return client;
}

int ask_set_up(void **state, const char *config) {
        struct ask_fixture *fixture = calloc(1, sizeof(*fixture));

        assert_non_null(fixture);
        fixture->daemon = ask_daemon(config);
        fixture->client = ask_connect(fixture->daemon, NULL);
        fixture->other = ask_connect(fixture->daemon, NULL);
        fixture->device = ask_device(fixture->client, "card");
        *state = fixture;
        return 0;
}

int ask_tear_down(void **state) {
        struct ask_fixture *fixture = *state;
        int r;

        test_client_close(fixture->client);
        test_client_close(fixture->other);
        r = test_daemon_end(fixture->daemon);
        free(fixture);
        return r;
}

struct test_client *ask_connect_as(struct test_daemon *daemon, uid_t uid) {
        struct test_identity as = { .uid = uid, .gid = uid };

        if (geteuid() != 0) {
                print_message("skipped: only root can become another user\n");
                skip();
        }
        return ask_connect(daemon, &as);
}

int ask_send(struct test_client *client, const char *method, const char *params, ...) {
        static int last_id;
        char *text, *request;
        va_list arguments;
        int n;

        va_start(arguments, params);
        assert_true(vasprintf(&text, params, arguments) >= 0);
        va_end(arguments);
        for (char *at = text; *at; at++)
                if (*at == '\'')
                        *at = '"';
        n = asprintf(&request, "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"%s\",\"params\":%s}\n", ++last_id, method,
                     *text ? text : "{}");
        assert_true(n > 0);
        assert_int_equal(test_client_send(client, request, (size_t)n), 0);
        free(request);
        free(text);
        return last_id;
}

json_t *ask_read(struct test_client *client) {
        const char *line;
        json_t *value;

        assert_int_equal(test_client_read_line(client, &line), 0);
        value = json_loads(line, 0, NULL);
        assert_non_null(value);
        return value;
}

static json_t *take(struct test_client *client, int id, const char *member) {
        json_t *answer = ask_read(client), *value;
        char *text;

        value = json_incref(json_object_get(answer, member));
        if (json_integer_value(json_object_get(answer, "id")) != id || !value) {
                text = json_dumps(answer, 0);
                fail_msg("wanted the %s of request %d, got %s", member, id, text);
        }
        json_decref(answer);
        return value;
}

json_t *ask_result(struct test_client *client, int id) {
        return take(client, id, "result");
}

json_t *ask_error(struct test_client *client, int id) {
        return take(client, id, "error");
}

uint64_t ask_peek_number(const json_t *value, const char *member) {
        json_t *number = json_object_get(value, member);

        if (!json_is_integer(number))
                fail_msg("wanted the number %s, got %s", member, json_dumps(value, 0));
        return (uint64_t)json_integer_value(number);
}

uint64_t ask_peek_hex(const json_t *value, const char *member) {
        const char *text = json_string_value(json_object_get(value, member));

        if (!text)
                fail_msg("wanted the address %s, got %s", member, json_dumps(value, 0));
        return strtoull(text, NULL, 16);
}

uint64_t ask_take_number(json_t *value, const char *member) {
        uint64_t result = ask_peek_number(value, member);

        json_decref(value);
        return result;
}

uint64_t ask_take_hex(json_t *value, const char *member) {
        uint64_t result = ask_peek_hex(value, member);

        json_decref(value);
        return result;
}

void ask_clean(struct test_client *client) {
        json_t *result = ask(client, "debug.check", "{}");

        if (!json_is_true(json_object_get(result, "clean")))
                fail_msg("the books are wrong: %s", json_dumps(result, 0));
        json_decref(result);
}

uint64_t ask_now_ms(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t count_waiters(struct test_client *client) {
        json_t *status = ask(client, "broker.status", "{}");
        uint64_t n = ask_peek_number(json_object_get(status, "counts"), "waiters");

        json_decref(status);
        return n;
}

void ask_until_waiting(struct test_client *client, uint64_t wanted) {
        ask_until(count_waiters(client) == wanted);
}

static bool has_books(struct test_client *client, const char *wanted) {
        char *books = ask_books(client);
        bool equal = strcmp(books, wanted) == 0;

        free(books);
        return equal;
}

void ask_until_books(struct test_client *client, const char *wanted) {
        ask_until(has_books(client, wanted));
}

void ask_take_reason(json_t *error, const char *reason) {
        const char *message = json_string_value(json_object_get(error, "message"));
        const char *got = json_string_value(json_object_get(json_object_get(error, "data"), "reason"));

        assert_non_null(message);
        if (!got || strcmp(got, reason) != 0)
                fail_msg("wanted the reason %s, got %s: %s", reason, got ? got : "none", message);
        assert_true(json_integer_value(json_object_get(error, "code")) > 0);
        json_decref(error);
}

void ask_take_code(json_t *error, int code) {
        if (json_integer_value(json_object_get(error, "code")) != code)
                fail_msg("wanted the code %d, got %s", code, json_dumps(error, 0));
        json_decref(error);
}

char *ask_books(struct test_client *client) {
        json_t *quota = ask(client, "quota.get", "{}"), *status = ask(client, "broker.status", "{}");
        json_t *counts = json_object_get(status, "counts"), *source;
        char *usage, *text;
        size_t i;

        usage = json_dumps(json_object_get(quota, "usage"), JSON_SORT_KEYS);
        assert_true(asprintf(&text, "%s devices %lld allocs %lld waiters %lld used", usage,
                             (long long)json_integer_value(json_object_get(counts, "devices")),
                             (long long)json_integer_value(json_object_get(counts, "allocs")),
                             (long long)json_integer_value(json_object_get(counts, "waiters"))) > 0);
        json_array_foreach(json_object_get(status, "sources"), i, source) {
                char *longer;

                assert_true(asprintf(&longer, "%s %lld", text,
                                     (long long)json_integer_value(json_object_get(source, "used"))) > 0);
                free(text);
                text = longer;
        }
        free(usage);
        json_decref(quota);
        json_decref(status);
        return text;
}

uint64_t ask_device(struct test_client *client, const char *name) {
        return ask_number(client, "device", "device.open", "{'name':'%s'}", name);
}

uint64_t ask_alloc(struct test_client *client, uint64_t device, uint64_t size) {
        return ask_number(client, "alloc", "coherent.alloc", "{'device':%" PRIu64 ",'size':%" PRIu64 "}", device, size);
}
