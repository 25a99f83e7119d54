#include "tests/unit/proto-peer.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "proto/methods.h"

struct subtract_params {
        uint64_t present;
        int64_t subtrahend;
        int64_t minuend;
};

struct pass_params {
        uint64_t present;
        bool fd SCHEMA_SLOT;
};

struct long_params {
        uint64_t present;
        uint64_t bytes;
};

struct long_result {
        uint64_t present;
        const char *text;
};

#define COUNT(array) (sizeof(array) / sizeof(*(array)))
#define ROW(structure, member, type_, ...)                                                                           \
        { .name = #member, .type = SCHEMA_##type_, .offset = offsetof(struct structure, member),                     \
          .size = sizeof(((struct structure *)0)->member), .doc = "a toy", __VA_ARGS__ }
#define TOY_STRUCT(structure) { #structure, sizeof(struct structure), structure##_rows, COUNT(structure##_rows) }

static const char *const colour_names[] = { "red", "green", NULL };

static const struct schema_field inner_thing_rows[] = { ROW(inner_thing, count, UINT, .required = true) };
static const struct schema_struct inner_thing_struct = TOY_STRUCT(inner_thing);
static const struct schema_field everything_rows[] = {
        ROW(everything, flag, BOOL, .required = true),
        ROW(everything, small, UINT, .required = true, .min = 1, .max = 10),
        ROW(everything, large, UINT, .required = true),
        ROW(everything, below, INT, .required = true, .min = (uint64_t)-5, .max = 5),
        ROW(everything, real, NUMBER, .required = true),
        ROW(everything, address, HEX, .required = true),
        ROW(everything, word, STRING, .required = true, .min = 1, .max = 8),
        ROW(everything, colour, ENUM, .required = true, .names = colour_names),
        ROW(everything, inner, OBJECT, .required = true, .sub = &inner_thing_struct),
        ROW(everything, raw, RAW, .required = true),
        ROW(everything, numbers, UINT, .required = true, .array = true, .max_items = 3),
        ROW(everything, words, STRING, .required = true, .array = true),
        ROW(everything, things, OBJECT, .required = true, .array = true, .sub = &inner_thing_struct),
        ROW(everything, colours, ENUM, .required = true, .array = true, .names = colour_names),
        ROW(everything, maybe, UINT, .nullable = true),
};
const struct schema_struct everything_struct = TOY_STRUCT(everything);
static const struct schema_field subtract_params_rows[] = {
        ROW(subtract_params, subtrahend, INT, .required = true),
        ROW(subtract_params, minuend, INT, .required = true),
};
static const struct schema_struct subtract_params_struct = TOY_STRUCT(subtract_params);
static const struct schema_field pass_params_rows[] = { ROW(pass_params, fd, BOOL) };
static const struct schema_struct pass_params_struct = TOY_STRUCT(pass_params);
static const struct schema_field long_params_rows[] = { ROW(long_params, bytes, UINT, .required = true) };
static const struct schema_struct long_params_struct = TOY_STRUCT(long_params);
static const struct schema_field long_result_rows[] = { ROW(long_result, text, STRING, .required = true) };
static const struct schema_struct long_result_struct = TOY_STRUCT(long_result);
static const struct schema_struct nothing_struct = { .name = "nothing", .size = sizeof(uint64_t) };

#define TOY(name_, ...) [TOY_##name_] = { .id = TOY_##name_, .name = #name_, .summary = "a toy", __VA_ARGS__ }
static const struct schema_method toys[TOY_COUNT] = {
        TOY(subtract, .params = &subtract_params_struct),
        TOY(update, .results = &nothing_struct),
        TOY(get_data),
        TOY(late, .results = &nothing_struct),
        TOY(forget, .results = &nothing_struct),
        TOY(pass, .params = &pass_params_struct, .results = &nothing_struct, .fds_max = 1,
            .fds_when = offsetof(struct pass_params, fd)),
        TOY(everything, .params = &everything_struct, .results = &everything_struct),
        TOY(admin, .results = &nothing_struct, .role = SCHEMA_ROLE_ADMIN),
        TOY(drop, .results = &nothing_struct),
        TOY(long, .params = &long_params_struct, .results = &long_result_struct),
};
const struct schema_table toy_table = { .title = "toys", .version = "1", .methods = toys, .n_methods = TOY_COUNT };

static struct listener *listener_of(const struct rpc_call *call) {
        return rpc_call_peer(call)->userdata;
}

static void reply_text(struct rpc_call *call, const char *text) {
        rpc_call_reply(call, &(struct schema_raw){ .text = text, .length = strlen(text) });
}

static void subtract(struct rpc_call *call, const void *data) {
        const struct subtract_params *params = data;
        char text[32];

        snprintf(text, sizeof(text), "%lld", (long long)(params->minuend - params->subtrahend));
        reply_text(call, text);
}

static void update(struct rpc_call *call, const void *params) {
        listener_of(call)->n_updates++;
        rpc_call_reply(call, NULL);
}

static void get_data(struct rpc_call *call, const void *params) {
        reply_text(call, "[\"hello\",5]");
}

static void cancelled(struct rpc_call *call, void *userdata) {
        struct listener *listener = userdata;

        listener->n_cancelled++;
}

static void late(struct rpc_call *call, const void *params) {
        struct listener *listener = listener_of(call);

        listener->late[listener->n_late++] = call;
        rpc_call_defer(call, cancelled, listener);
}

static void forget(struct rpc_call *call, const void *params) {
}

static void pass(struct rpc_call *call, const void *data) {
        const struct pass_params *params = data;
        int fd;

        if (!params->fd) {
                rpc_call_reply(call, NULL);
                return;
        }
        fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        rpc_call_reply_consume_fds(call, NULL, &fd, 1);
}

static void everything(struct rpc_call *call, const void *params) {
        rpc_call_reply(call, params);
}

static void drop(struct rpc_call *call, const void *params) {
        rpc_peer_drop(rpc_call_peer(call));
        rpc_call_reply(call, NULL);
}

static void answer_long(struct rpc_call *call, const void *data) {
        const struct long_params *params = data;
        static char text[4096];

        assert_true(params->bytes < sizeof(text));
        memset(text, 'a', params->bytes);
        text[params->bytes] = '\0';
        rpc_call_reply(call, &(struct long_result){ .text = text });
}

static void answer_empty(struct rpc_call *call, const void *params) {
        rpc_call_reply(call, NULL);
}

void toy_answer_late(struct listener *listener, size_t index) {
        rpc_call_reply(listener->late[index], NULL);
}

static void hear(struct rpc_peer *peer, const char *text, size_t length, const int *fds, size_t n_fds) {
        struct listener *listener = peer->userdata;

        assert_true(length > 0 && text[length - 1] == '\n');
        assert_null(memchr(text, '\n', length - 1));
        listener->n_sends++;
        listener->n_fds += n_fds;
        for (size_t i = 0; i < n_fds; i++)
                assert_int_equal(close(fds[i]), 0);
        if (listener->n_heard + length < sizeof(listener->heard)) {
                memcpy(listener->heard + listener->n_heard, text, length);
                listener->n_heard += length;
                listener->heard[listener->n_heard] = '\0';
        }
        if (listener->drops_when_sent_to)
                rpc_peer_drop(peer);
}

static bool admit(struct rpc_peer *peer, const struct schema_method *method, struct rpc_error *ret_error) {
        struct listener *listener = peer->userdata;

        if (!listener->counts || ++listener->n_counted <= listener->n_admitted_most)
                return true;
        *ret_error = (struct rpc_error){ .error = 122, .reason = REASON_quota, .message = "too many" };
        return false;
}

static void count(void *userdata, const struct schema_method *method, uint64_t nanoseconds, int code) {
        struct listener *listener = userdata;

        listener->n_observed++;
}

void listener_init(struct listener *listener, bool with_toys, const struct rpc_limits *limits) {
        static const rpc_handler_fn toy_handlers[TOY_COUNT] = {
                [TOY_subtract] = subtract, [TOY_update] = update, [TOY_get_data] = get_data, [TOY_late] = late,
                [TOY_forget] = forget, [TOY_pass] = pass, [TOY_everything] = everything, [TOY_admin] = answer_empty,
                [TOY_drop] = drop, [TOY_long] = answer_long,
        };
        rpc_handler_fn handlers[METHOD_COUNT];

        memset(listener, 0, sizeof(*listener));
        for (size_t i = 0; i < METHOD_COUNT; i++)
                handlers[i] = answer_empty;
        handlers[METHOD_rpc_discover] = rpc_discover;
        assert_int_equal(rpc_service_new(with_toys ? &toy_table : &protocol_table, with_toys ? toy_handlers : handlers,
                                         limits ? limits : &RPC_LIMITS_DEFAULT, &listener->service), 0);
        rpc_service_observe(listener->service, NULL, count, listener);
        rpc_service_set_admit(listener->service, admit);
        rpc_peer_init(&listener->peer, listener->service, SCHEMA_ROLE_LOCAL, true, hear, listener);
}

void listener_deinit(struct listener *listener) {
        rpc_peer_drop(&listener->peer);
        assert_int_equal(listener->peer.n_calls, 0);
        rpc_service_free(listener->service);
}

const char *ask(struct listener *listener, const char *text) {
        /* Of exactly the text's size, so that a sanitizer sees any look beyond it. */
        size_t length = strlen(text);
        char *copy = malloc(length ? length : 1);

        assert_non_null(copy);
        memcpy(copy, text, length);
        listener->n_heard = 0;
        listener->heard[0] = '\0';
        rpc_peer_receive(&listener->peer, copy, length);
        free(copy);
        return listener->n_heard ? listener->heard : NULL;
}

const char *call(struct listener *listener, const char *method, const char *params) {
        char text[4096];

        snprintf(text, sizeof(text), "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\",\"params\":%s}", method, params);
        return ask(listener, text);
}

static json_t *parse(const char *text) {
        json_error_t error;
        json_t *json = json_loads(text ? text : "", JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);

        if (!json)
                fail_msg("not JSON: %s: %s", error.text, text ? text : "nothing");
        return json;
}

void assert_json(const char *heard, const char *expected) {
        json_t *a = parse(heard), *b = parse(expected);

        if (!json_equal(a, b))
                fail_msg("heard %sexpected %s", heard, expected);
        json_decref(a);
        json_decref(b);
}

json_t *assert_error(const char *heard, int code, const char *reason) {
        static json_t *last;
        json_t *error, *data;

        json_decref(last);
        last = parse(heard);
        error = json_object_get(last, "error");
        data = json_object_get(error, "data");
        if (!error || json_object_get(last, "result") || json_integer_value(json_object_get(error, "code")) != code)
                fail_msg("expected the error %d: %s", code, heard);
        assert_true(json_string_length(json_object_get(error, "message")) > 0);
        if (reason)
                assert_string_equal(json_string_value(json_object_get(data, "reason")), reason);
        else
                assert_null(json_object_get(data, "reason"));
        return data;
}
