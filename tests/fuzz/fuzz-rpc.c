/* Bytes as a connection would bring them, through the framing and the dispatch, to handlers that answer at once, late,
 * with an error, or never. The first two bytes choose how. Whatever goes out must be one line of JSON-RPC. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/dispatch.h"
#include "proto/frame.h"
#include "proto/methods.h"
#include "tests/fuzz/fuzz.h"

enum { LATE_MAX = 64 };

struct line {
        struct rpc_peer peer;
        struct rpc_call *late[LATE_MAX];
        size_t n_late;
        uint8_t manner;
        unsigned n_calls, sends_left; /* sends_left: until sending drops the peer; 0: never */
};

static struct rpc_service *service;

static void check_answer(const json_t *answer) {
        const json_t *error = json_object_get(answer, "error"), *id = json_object_get(answer, "id");

        CHECK(json_is_object(answer) && id && (json_is_string(id) || json_is_number(id) || json_is_null(id)));
        CHECK(json_string_length(json_object_get(answer, "jsonrpc")) == 3);
        CHECK(!error != !json_object_get(answer, "result"));
        CHECK(!error ||
              (json_is_integer(json_object_get(error, "code")) && json_is_string(json_object_get(error, "message"))));
}

static bool is_notification(const json_t *message) {
        return json_is_object(json_object_get(message, "params")) && json_is_string(json_object_get(message, "method")) &&
               json_string_length(json_object_get(message, "jsonrpc")) == 3 && json_object_size(message) == 3;
}

/* Ids are echoed as they were written, so they may be integers that only a real can hold. */
static void check_text(struct rpc_peer *peer, const char *text, size_t length, const int *fds, size_t n_fds) {
        const size_t flags = JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL;
        struct line *line = peer->userdata;
        json_t *root;

        CHECK(length > 1 && text[length - 1] == '\n' && n_fds <= 32 && (peer->takes_fds || !n_fds));
        root = json_loadb(text, length, flags & ~(size_t)JSON_DECODE_INT_AS_REAL, NULL);
        if (!root) {
                root = json_loadb(text, length, flags, NULL);
                CHECK(root);
        } else if (json_is_array(root)) {
                CHECK(json_array_size(root) > 0);
                for (size_t i = 0; i < json_array_size(root); i++)
                        check_answer(json_array_get(root, i));
        } else if (!is_notification(root)) {
                check_answer(root);
        }
        json_decref(root);
        for (size_t i = 0; i < n_fds; i++)
                CHECK(!close(fds[i]));
        if (line->sends_left && !--line->sends_left)
                rpc_peer_drop(peer);
}

static void forget_late(struct rpc_call *call, void *userdata) {
        struct line *line = userdata;

        for (size_t i = 0; i < line->n_late; i++) {
                if (line->late[i] == call) {
                        line->late[i] = line->late[--line->n_late];
                        return;
                }
        }
        abort();
}

static const uint64_t zeroes[128];

static void reply(struct rpc_call *call) {
        const struct schema_method *method = rpc_call_method(call);
        int fd;

        if (!method->results) {
                rpc_call_reply(call, &(struct schema_raw){ .text = "[\"any\"]", .length = 7 });
        } else if (method->fds_max) {
                fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
                CHECK(fd >= 0);
                rpc_call_reply_consume_fds(call, zeroes, &fd, 1);
        } else {
                rpc_call_reply(call, zeroes);
        }
}

static void fail(struct rpc_call *call) {
        static const struct device_leak leaks[2] = { { .alloc = 1 }, { .alloc = 2 } };
        const struct rpc_error error = {
                .error = EBUSY,
                .reason = REASON_busy,
                .message = "it is \"busy\"\n\xFF",
                .n_values = 5,
                .values = { { .name = "asked", .number = UINT64_MAX },
                            { .name = "mask", .kind = RPC_VALUE_HEX, .number = UINT64_MAX },
                            { .name = "text", .kind = RPC_VALUE_TEXT, .text = "\xC3\x28" },
                            { .name = "raw", .kind = RPC_VALUE_RAW, .text = "[1,{}]" },
                            { .name = "leaked",
                              .kind = RPC_VALUE_LIST,
                              .sub = &device_leak_struct,
                              .items = leaks,
                              .count = 2 } },
        };

        rpc_call_fail(call, &error);
}

/* Touch what was decoded, so that a sanitizer sees whether it is there. */
static void touch(const struct schema_struct *structure, const char *object) {
        const char *volatile text;
        uint64_t present;

        memcpy(&present, object, sizeof(present));
        for (size_t i = 0; i < structure->n_fields; i++) {
                const struct schema_field *field = &structure->fields[i];

                CHECK(!field->required || present >> (field->offset / 8) & 1);
                if (!(present >> (field->offset / 8) & 1))
                        continue;
                if (field->type == SCHEMA_STRING && !field->array) {
                        memcpy((void *)&text, object + field->offset, sizeof(char *));
                        CHECK(strlen(text) >= field->min && (!field->max || strlen(text) <= field->max));
                }
        }
}

static void handle(struct rpc_call *call, const void *params) {
        struct line *line = rpc_call_peer(call)->userdata;
        unsigned what = (line->manner ^ line->n_calls++ * 7u ^ rpc_call_method(call)->id) % 16;

        if (params)
                touch(rpc_call_method(call)->params, params);
        /* In the middle of whatever is being answered. */
        if (rpc_call_method(call)->id == METHOD_events_subscribe)
                CHECK(!rpc_peer_notify(rpc_call_peer(call), PROTOCOL_EVENT, &event_info_struct, zeroes));
        if (what < 8 || (what < 12 && line->n_late == LATE_MAX)) {
                reply(call);
        } else if (what < 12) {
                line->late[line->n_late++] = call;
                rpc_call_defer(call, forget_late, line);
        } else if (what < 14) {
                fail(call);
        } else if (what == 14) {
                /* A handler that forgets its call. */
        } else {
                if (line->n_calls > 20)
                        rpc_peer_drop(rpc_call_peer(call));
                reply(call);
        }
}

static void answer_late(struct line *line, size_t left) {
        while (line->n_late > left) {
                struct rpc_call *call = line->late[--line->n_late];

                if (line->n_late % 3)
                        reply(call);
                else
                        fail(call);
        }
}

static void start(void) {
        const struct rpc_limits limits = { .message_bytes = 4096,
                                           .nesting = 8,
                                           .calls_in_flight = 16,
                                           .batch_elements = 24,
                                           .batch_reply_bytes = 8192,
                                           .fds_per_reply = 3 };
        rpc_handler_fn handlers[METHOD_COUNT];

        for (size_t i = 0; i < METHOD_COUNT; i++)
                handlers[i] = handle;
        CHECK(!rpc_service_new(&protocol_table, handlers, &limits, &service));
}

static void receive(struct line *line, struct frame_reader *reader, const uint8_t *data, size_t size) {
        const char *piece = (const char *)data, *text = NULL;
        size_t length = 0;

        for (;;) {
                switch (frame_reader_next(reader, &piece, &size, &text, &length)) {
                case FRAME_TEXT:
                        rpc_peer_receive(&line->peer, text, length);
                        answer_late(line, line->manner % 8);
                        break;
                case FRAME_OVERSIZE:
                case FRAME_NO_MEMORY:
                        rpc_peer_complain_oversize(&line->peer);
                        break;
                case FRAME_RESET:
                        break;
                case FRAME_MORE:
                        return;
                }
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static const size_t steps[] = { 1, 7, 64, SIZE_MAX };
        struct line line = { .manner = size > 1 ? data[1] : 0 };
        uint8_t choice = size ? data[0] : 0;
        struct frame_reader reader;
        size_t step = steps[choice & 3];

        if (!service)
                start();
        if (choice & 128)
                line.sends_left = 1 + line.manner % 5;
        rpc_peer_init(&line.peer, service, (enum schema_role)((choice >> 2 & 3) % 3), choice & 16, check_text, &line);
        frame_reader_init(&reader, 4096, choice & 32);
        for (size_t at = size < 2 ? size : 2; at < size;) {
                size_t n = size - at < step ? size - at : step;

                receive(&line, &reader, data + at, n);
                at += n;
        }
        if (choice & 64)
                answer_late(&line, 0);
        rpc_peer_drop(&line.peer);
        CHECK(!line.n_late && !line.peer.n_calls);
        frame_reader_deinit(&reader);
        return 0;
}
