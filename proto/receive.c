/* From a text to calls. What is refused here never reaches a handler. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/quick.h"
#include "proto/service.h"

struct request {
        struct rpc_peer *peer;
        struct rpc_batch *batch;
        json_t *object, *params;
        bool loose, notification;
        const struct schema_method *method;
        const char *id;
        size_t id_length;
};

static const char message_parse[] = "Parse error";
static const char message_invalid[] = "Invalid Request";

static void refuse(const struct request *request, const struct rpc_error *error) {
        if (!request->notification)
                service_refuse(request->peer, request->batch, request->id, request->id_length, error);
}

/* The standard's errors keep the standard's words; detail says what they mean here. */
static void refuse_standard(const struct request *request, int code, const char *message, const char *detail) {
        struct rpc_error error = { .code = code, .message = message, .n_values = 1,
                                   .values = { { .name = "detail", .kind = RPC_VALUE_TEXT, .text = detail } } };

        refuse(request, &error);
}

/* Not even a notification goes without an answer to this. */
static void refuse_invalid(struct request *request, const char *detail) {
        request->notification = false;
        refuse_standard(request, RPC_INVALID_REQUEST, message_invalid, detail);
}

static void refuse_limit(const struct request *request, int code, int error_number, const char *message,
                         const char *name, size_t limit) {
        struct rpc_error error = { .code = code, .error = error_number, .reason = REASON_limit,
                                   .message = code ? message_invalid : message };

        if (code)
                error.values[error.n_values++] = (struct rpc_error_value){ .name = "detail", .kind = RPC_VALUE_TEXT,
                                                                           .text = message };
        error.values[error.n_values++] = (struct rpc_error_value){ .name = "limit", .number = limit };
        error.values[error.n_values++] = (struct rpc_error_value){ .name = "limited", .kind = RPC_VALUE_TEXT,
                                                                   .text = name };
        refuse(request, &error);
}

static void refuse_memory(const struct request *request) {
        static const struct rpc_error error = { .error = ENOMEM, .reason = REASON_no_memory,
                                                .message = "the daemon has no memory for the request" };

        refuse(request, &error);
}

static void refuse_params(const struct request *request, const struct schema_complaint *complaint) {
        char message[320];
        struct rpc_error error = { .code = RPC_INVALID_PARAMS, .error = EINVAL, .reason = REASON_bad_param,
                                   .message = message };

        if (complaint->wrong == SCHEMA_WRONG_MEMORY) {
                refuse_memory(request);
                return;
        }
        snprintf(message, sizeof(message), "Invalid params: %s", complaint->sentence);
        error.values[error.n_values++] = (struct rpc_error_value){ .name = "param", .kind = RPC_VALUE_TEXT,
                                                                   .text = complaint->param };
        if (complaint->has_range) {
                error.values[error.n_values++] = (struct rpc_error_value){ .name = "min", .number = complaint->min };
                error.values[error.n_values++] = (struct rpc_error_value){ .name = "max", .number = complaint->max };
        }
        refuse(request, &error);
}

/* ---- one request ---- */

/* The id as it was written, which the scan found wherever the parser finds one. */
static bool request_take_id(struct request *request, const char *text, const struct scan_span *span) {
        json_t *id = json_object_get(request->object, "id");

        request->notification = !id;
        if (!id || json_is_null(id))
                return true;
        if ((!json_is_string(id) && !json_is_number(id)) || !span->length) {
                refuse_invalid(request, "the id must be a string, a number or null");
                return false;
        }
        if (span->length > CALL_ID_MAX) {
                refuse_limit(request, RPC_INVALID_REQUEST, E2BIG, "the id is too long", "id_bytes", CALL_ID_MAX);
                return false;
        }
        request->id = text + span->start;
        request->id_length = span->length;
        return true;
}

/* The members that every request has. */
static bool request_check(struct request *request) {
        const json_t *version = json_object_get(request->object, "jsonrpc");
        const json_t *method = json_object_get(request->object, "method");

        request->params = json_object_get(request->object, "params");
        if (!json_is_string(version) || json_string_length(version) != 3 || strcmp(json_string_value(version), "2.0")) {
                refuse_invalid(request, "jsonrpc must be \"2.0\"");
                return false;
        }
        if (!json_is_string(method)) {
                refuse_invalid(request, "method must be a string");
                return false;
        }
        if (request->params && !json_is_object(request->params) && !json_is_array(request->params)) {
                refuse_invalid(request, "params must be an object");
                return false;
        }
        return true;
}

static const struct schema_method *find_method(const struct rpc_peer *peer, const json_t *object) {
        const json_t *name = json_object_get(object, "method");

        return json_is_string(name) ? service_find(peer->service, json_string_value(name), json_string_length(name)) : NULL;
}

static bool request_has_method(const struct request *request) {
        const json_t *name = json_object_get(request->object, "method");
        char detail[200];

        if (request->method)
                return true;
        snprintf(detail, sizeof(detail), "there is no method %.100s; rpc.discover lists those that there are",
                 json_string_value(name));
        refuse_standard(request, RPC_METHOD_NOT_FOUND, "Method not found", detail);
        return false;
}

static bool request_may(const struct request *request) {
        struct rpc_error error = { .error = EPERM, .reason = REASON_not_permitted };
        char message[160];

        if (request->peer->role >= request->method->role)
                return true;
        snprintf(message, sizeof(message), "%s is for %s only", request->method->name,
                 request->method->role == SCHEMA_ROLE_ADMIN ? "administrators" : "local users and administrators");
        error.message = message;
        refuse(request, &error);
        return false;
}

static bool request_within_limits(const struct request *request) {
        const struct rpc_limits *limits = &request->peer->service->limits;

        if (request->peer->n_calls >= limits->calls_in_flight) {
                refuse_limit(request, 0, EBUSY, "too many calls of this connection wait for their answer already",
                             "calls_in_flight", limits->calls_in_flight);
                return false;
        }
        /* What waits in all of the peer's batches, lest many that wait hold the memory of many. */
        if (request->batch && request->peer->batch_bytes >= limits->batch_reply_bytes) {
                refuse_limit(request, 0, E2BIG,
                             "the answers to batches that are not finished are too long; this call was not executed",
                             "batch_reply_bytes", limits->batch_reply_bytes);
                return false;
        }
        return true;
}

/* Descriptors are promised before the method is executed, so that none has to be taken back. */
static bool request_promise_fds(const struct request *request, struct rpc_call *call) {
        static const struct rpc_error unsupported = { .error = EOPNOTSUPP, .reason = REASON_unsupported,
                                                      .message = "file descriptors travel on local sockets only" };
        const struct schema_method *method = request->method;
        struct rpc_batch *batch = request->batch;
        size_t limit = request->peer->service->limits.fds_per_reply;
        bool asked = method->fds_when && *((const char *)call->params + method->fds_when);

        if (!method->fds_max || (method->fds_when && !asked))
                return true;
        if (!request->peer->takes_fds && asked) {
                refuse(request, &unsupported);
                return false;
        }
        if (!request->peer->takes_fds)
                return true;
        if ((batch ? request->peer->batch_fds + batch->n_fds_promised : 0) + method->fds_max > limit) {
                refuse_limit(request, 0, E2BIG,
                             "the replies to batches that are not finished would carry too many file descriptors",
                             "fds_per_reply", limit);
                return false;
        }
        call->fds_promised = method->fds_max;
        if (batch)
                batch->n_fds_promised += method->fds_max;
        return true;
}

static bool request_decode(const struct request *request, struct rpc_call *call) {
        static const struct schema_struct nothing = { .name = "nothing", .size = sizeof(uint64_t) };
        const struct schema_struct *structure = request->method->params;
        struct schema_complaint complaint;
        uint64_t present;
        int r;

        r = schema_decode(structure ? structure : &nothing, request->params, request->loose, &call->memory,
                          structure ? (void *)call->params : &present, &complaint);
        if (r)
                refuse_params(request, &complaint);
        else
                call->document = json_incref(request->params);
        return !r;
}

/* state: the call's own. */
static void request_run(const struct request *request, struct rpc_call *call, const enum handler_state *state) {
        static const struct rpc_error forgotten = { .code = RPC_INTERNAL_ERROR, .message = "Internal error" };
        rpc_handler_fn handler = request->peer->service->handlers[request->method->id];

        handler(call, request->method->params ? call->params : NULL);
        if (*state == HANDLER_ANSWERED)
                return;
        call->state = NULL;
        if (call->orphan) {
                if (call->cancel)
                        call->cancel(call, call->userdata);
                call_free(call);
        } else if (*state == HANDLER_RUNS) {
                rpc_call_fail(call, &forgotten);
        }
}

static void request_execute(struct request *request) {
        enum handler_state state = HANDLER_RUNS;
        struct rpc_call *call;

        if (!request_check(request) || !request_has_method(request))
                return;
        if (json_is_array(request->params)) {
                struct schema_complaint complaint = { .wrong = SCHEMA_WRONG_TYPE, .param = "params",
                                                      .sentence = "parameters go by name, in an object" };

                refuse_params(request, &complaint);
                return;
        }
        if (!request_may(request) || !request_within_limits(request))
                return;
        call = call_new(request->peer, request->method, request->batch, request->id, request->id_length,
                        request->notification);
        if (!call) {
                refuse_memory(request);
                return;
        }
        /* From here on a peer that is dropped, be it by sending a refusal, leaves the call to us. */
        call->state = &state;
        if (request_decode(request, call) && request_promise_fds(request, call))
                request_run(request, call, &state);
        else
                call_free(call);
}

/* ---- one text ---- */

struct text {
        const char *bytes;
        size_t length;
        const struct scan *scan;
        json_t *root;
        bool loose;
};

static void element_receive(struct rpc_peer *peer, struct rpc_batch *batch, const struct text *text, json_t *element,
                            size_t index) {
        static const struct scan_span nowhere = { 0, 0 };
        struct request request = { .peer = peer, .batch = batch, .object = element, .loose = text->loose };
        const struct scan_span *id = index < text->scan->n_elements ? &text->scan->ids[index] : &nowhere;
        struct rpc_error error;
        bool admitted;

        request.method = find_method(peer, element);
        admitted = service_admits(peer, request.method, &error);
        if (!json_is_object(element))
                refuse_invalid(&request, "a request is an object");
        else if (!request_take_id(&request, text->bytes, id))
                return;
        else if (admitted)
                request_execute(&request);
        else
                refuse(&request, &error);
}

static void batch_receive(struct rpc_peer *peer, const struct text *text) {
        struct request request = { .peer = peer };
        struct rpc_batch *batch;

        if (!json_array_size(text->root)) {
                service_count_text(peer);
                refuse_invalid(&request, "a batch must not be empty");
                return;
        }
        batch = batch_new(peer);
        if (!batch) {
                refuse_memory(&request);
                return;
        }
        for (size_t i = 0; i < json_array_size(text->root) && !peer->dropped; i++)
                element_receive(peer, batch, text, json_array_get(text->root, i), i);
        batch_unref(batch);
}

static void refuse_json(struct rpc_peer *peer, const json_error_t *error) {
        struct request request = { .peer = peer };
        char detail[JSON_ERROR_TEXT_LENGTH + 64];

        service_count_text(peer);
        snprintf(detail, sizeof(detail), "%s, at byte %d", error->text, error->position);
        switch (json_error_code(error)) {
        case json_error_unknown: /* it sets no code when an allocation fails */
        case json_error_out_of_memory:
                refuse_memory(&request);
                break;
        case json_error_duplicate_key:
        case json_error_null_byte_in_key:
        case json_error_numeric_overflow:
                refuse_invalid(&request, detail);
                break;
        default:
                refuse_standard(&request, RPC_PARSE_ERROR, message_parse, detail);
                break;
        }
}

/* The parser takes a failed allocation for bad syntax now and then: it is believed when it says so twice. */
static json_t *parse(const struct text *text, size_t more_flags, json_error_t *ret_error) {
        const size_t flags = JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES | more_flags;
        json_t *root = NULL;

        for (int i = 0; i < 2 && !root; i++) {
                /* Nor does it always write the code, which is in the text's last byte. */
                memset(ret_error, 0, sizeof(*ret_error));
                root = json_loadb(text->bytes, text->length, flags, ret_error);
                if (!root && json_error_code(ret_error) == json_error_numeric_overflow)
                        break;
        }
        return root;
}

static void text_parse(struct rpc_peer *peer, struct text *text) {
        json_error_t error;

        text->root = parse(text, 0, &error);
        if (!text->root && json_error_code(&error) == json_error_numeric_overflow) {
                /* An integer beyond 64 bits is good JSON: whoever it is meant for shall say what the range is. */
                text->loose = true;
                text->root = parse(text, JSON_DECODE_INT_AS_REAL, &error);
        }
        if (!text->root)
                refuse_json(peer, &error);
        else if (json_is_array(text->root))
                batch_receive(peer, text);
        else
                element_receive(peer, NULL, text, text->root, 0);
        json_decref(text->root);
}

/* false: nothing has happened, the parser is to read it. */
static bool quick_receive(struct rpc_peer *peer, const char *bytes, size_t length) {
        struct request request = { .peer = peer };
        enum handler_state state = HANDLER_RUNS;
        struct rpc_error error;
        struct rpc_call *call;
        struct quick quick;

        if (!quick_read(bytes, length, &quick))
                return false;
        request.method = service_find(peer->service, quick.method.at, quick.method.length);
        if (!request.method || peer->role < request.method->role ||
            peer->n_calls >= peer->service->limits.calls_in_flight)
                return false;
        request.notification = !quick.id.length;
        request.id = request.notification ? NULL : quick.id.at;
        request.id_length = quick.id.length;
        call = call_new(peer, request.method, NULL, request.id, request.id_length, request.notification);
        if (!call)
                return false;
        call->state = &state;
        if (!quick_decode(request.method->params, &quick, &call->memory, (void *)call->params)) {
                call_free(call);
                return false;
        }
        if (!service_admits(peer, request.method, &error)) {
                call_free(call);
                refuse(&request, &error);
        } else if (request_promise_fds(&request, call))
                request_run(&request, call, &state);
        else
                call_free(call);
        return true;
}

void rpc_peer_receive(struct rpc_peer *peer, const char *bytes, size_t length) {
        struct rpc_service *service = peer->service;
        struct request request = { .peer = peer };
        struct scan scan = service->scan;
        struct text text = { .bytes = bytes, .length = length, .scan = &scan };
        enum scan_verdict verdict;

        if (peer->dropped || quick_receive(peer, bytes, length))
                return;
        service->scan = (struct scan){ .ids = NULL };
        verdict = scan_text(&scan, bytes, length, service->limits.nesting, service->limits.batch_elements);
        if (verdict != SCAN_FINE)
                service_count_text(peer);
        switch (verdict) {
        case SCAN_FINE:
                text_parse(peer, &text);
                break;
        case SCAN_NUL:
                refuse_standard(&request, RPC_PARSE_ERROR, message_parse, "there is a NUL byte in the message");
                break;
        case SCAN_TOO_DEEP:
                refuse_limit(&request, RPC_INVALID_REQUEST, E2BIG, "the message is nested too deeply", "nesting",
                             service->limits.nesting);
                break;
        case SCAN_TOO_MANY:
                refuse_limit(&request, RPC_INVALID_REQUEST, E2BIG, "the batch has too many elements", "batch_elements",
                             service->limits.batch_elements);
                break;
        case SCAN_NO_MEMORY:
                refuse_memory(&request);
                break;
        }
        free(service->scan.ids);
        service->scan = scan;
}
