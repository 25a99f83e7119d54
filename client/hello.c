#include "client/hello.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/clock.h"
#include "client/error.h"
#include "client/link.h"
#include "proto/methods.h"

enum { IN_FLIGHT_DEFAULT = 256 };

/* ---- the answer ---- */

struct answer {
        bool done;
        json_t *message;
};

static void take_answer(json_t *message, const int *fds, size_t n_fds, void *userdata) {
        struct answer *answer = userdata;

        for (size_t i = 0; i < n_fds; i++)
                close(fds[i]);
        /* An error without an id is about the connection itself: the daemon will have no more of them. */
        if (answer->done || (!json_is_integer(json_object_get(message, "id")) && !json_object_get(message, "error"))) {
                json_decref(message);
                return;
        }
        answer->message = message;
        answer->done = true;
}

static int await_answer(struct channel *channel, uint64_t deadline_ms, struct answer *answer) {
        int r = 0;

        while (!r && !answer->done) {
                uint64_t now = clock_ms(), left = deadline_ms > now ? deadline_ms - now : 0;

                r = channel_receive(channel, left < INT_MAX ? (int)left : INT_MAX, take_answer, answer);
        }
        return answer->done ? 0 : r;
}

static int protocol_error(const char *path, int r) {
        switch (r) {
        case -ETIMEDOUT:
                return error_set(ETIMEDOUT, "the daemon at %s accepted the connection, but does not answer", path);
        case -EPROTO:
        case -EMSGSIZE:
                return error_set(EPROTO, "whoever listens at %s does not speak dmabroker's protocol", path);
        default:
                return error_set(-r, "the connection to %s was lost: %s", path, strerrordesc_np(-r));
        }
}

static uint64_t limit_value(json_t *limits, const char *name, uint64_t otherwise) {
        json_t *value = json_object_get(limits, name);

        return json_is_integer(value) && json_integer_value(value) > 0 ? (uint64_t)json_integer_value(value)
                                                                       : otherwise;
}

/* Consumes result. */
static int take_result(const char *path, json_t *result, struct hello *ret) {
        json_t *limits = json_object_get(result, "limits");
        json_int_t protocol = PROTOCOL_VERSION;
        int r = 0;

        *ret = (struct hello){
                .result = result,
                .limits = { .message_bytes = limit_value(limits, "message_bytes", 1 << 20),
                            .nesting = limit_value(limits, "nesting", 64),
                            .calls_in_flight = limit_value(limits, "calls_in_flight", IN_FLIGHT_DEFAULT),
                            .wait_ms = limit_value(limits, "wait_ms", UINT64_MAX) },
        };
        if (json_unpack(result, "{s:s, s:s, s:s, s:s, s?I}", "session", &ret->session, "owner", &ret->owner, "role",
                        &ret->role, "version", &ret->version, "protocol", &protocol))
                r = protocol_error(path, -EPROTO);
        else if (protocol != PROTOCOL_VERSION)
                r = error_set(EPROTO, "the daemon at %s speaks version %lld of the protocol, and this library version %d",
                              path, (long long)protocol, PROTOCOL_VERSION);
        if (r)
                json_decref(result);
        return r;
}

/* ---- the question ---- */

static int ask(struct channel *channel, const char *session) {
        json_t *params = json_pack("{s:s#, s:i, s:s*}", "client", program_invocation_short_name,
                                   (int)strnlen(program_invocation_short_name, 64), "protocol", PROTOCOL_VERSION, "session",
                                   session);
        char *text = params ? json_dumps(params, JSON_COMPACT) : NULL;
        int r = text ? link_send(channel, 0, "broker.hello", text) : -ENOMEM;

        json_decref(params);
        free(text);
        /* A daemon that refuses a connection says why and hangs up, whether it was asked already or not. */
        return r == -EPIPE ? 0 : r;
}

int hello_say(struct channel *channel, const char *path, const char *session, uint64_t deadline_ms, struct hello *ret) {
        struct link_reply reply = { 0 };
        struct answer answer = { 0 };
        int r = ask(channel, session);

        if (!r)
                r = await_answer(channel, deadline_ms, &answer);
        if (r)
                return protocol_error(path, r);
        r = link_judge(answer.message, NULL, 0, &reply);
        if (r && session && (error_is("gone") || error_is("unknown_handle")))
                return error_set_reason(ESTALE, "gone",
                                        "the daemon at %s no longer knows this session: it has lost its state, or the "
                                        "connection was gone for too long; what the session held is freed. Disconnect "
                                        "and connect again",
                                        path);
        return r ? r : take_result(path, reply.result, ret);
}
