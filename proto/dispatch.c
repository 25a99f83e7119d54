#include "proto/dispatch.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "proto/answer.h"
#include "proto/service.h"

enum {
        SPARE_CALLS_MAX = 256,
        WRITER_KEEP = 64 << 10, /* bytes of an answer's buffer that are kept for the next */
};

/* ---- the service ---- */

static size_t hash_name(const char *name, size_t length) {
        size_t hash = 2166136261u;

        for (size_t i = 0; i < length; i++)
                hash = (hash ^ (unsigned char)name[i]) * 16777619u;
        return hash ^ hash >> 15;
}

const struct schema_method *service_find(const struct rpc_service *service, const char *name, size_t length) {
        const struct schema_method *method;

        for (size_t i = hash_name(name, length); (method = service->index[i & service->index_mask]); i++)
                if (strlen(method->name) == length && !memcmp(method->name, name, length))
                        return method;
        return NULL;
}

static void index_method(struct rpc_service *service, const struct schema_method *method) {
        size_t i = hash_name(method->name, strlen(method->name));

        while (service->index[i & service->index_mask])
                i++;
        service->index[i & service->index_mask] = method;
        if (method->params && method->params->size > service->params_size)
                service->params_size = method->params->size;
}

int rpc_service_new(const struct schema_table *table, const rpc_handler_fn *handlers, const struct rpc_limits *limits,
                    struct rpc_service **ret) {
        struct rpc_service *service;
        size_t size = 4;

        for (size_t i = 0; i < table->n_methods; i++)
                if (!handlers[i])
                        return -EINVAL;
        while (size < table->n_methods * 4)
                size *= 2;
        service = calloc(1, sizeof(*service));
        if (!service)
                return -ENOMEM;
        service->handlers = calloc(table->n_methods + 1, sizeof(*service->handlers));
        service->index = calloc(size, sizeof(struct schema_method *));
        if (!service->handlers || !service->index || !json_writer_grow(&service->writer, 1)) {
                rpc_service_free(service);
                return -ENOMEM;
        }
        memcpy(service->handlers, handlers, table->n_methods * sizeof(*handlers));
        service->table = table;
        service->index_mask = size - 1;
        for (size_t i = 0; i < table->n_methods; i++)
                index_method(service, &table->methods[i]);
        rpc_service_set_limits(service, limits);
        *ret = service;
        return 0;
}

struct rpc_service *rpc_service_free(struct rpc_service *service) {
        struct rpc_call *call;

        if (!service)
                return NULL;
        while ((call = service->spare)) {
                service->spare = call->next;
                free(call);
        }
        json_writer_deinit(&service->writer);
        free(service->scan.ids);
        free(service->index);
        free(service->handlers);
        free(service);
        return NULL;
}

void rpc_service_set_limits(struct rpc_service *service, const struct rpc_limits *limits) {
        service->limits = *limits;
        if (service->limits.fds_per_reply > FDPASS_MAX)
                service->limits.fds_per_reply = FDPASS_MAX;
}

const struct rpc_limits *rpc_service_limits(const struct rpc_service *service) {
        return &service->limits;
}

void rpc_service_observe(struct rpc_service *service, rpc_begin_fn begin, rpc_observe_fn observe, void *userdata) {
        service->begin = begin;
        service->observe = observe;
        service->observe_userdata = userdata;
}

void rpc_service_set_admit(struct rpc_service *service, rpc_admit_fn admit) {
        service->admit = admit;
}

bool service_admits(struct rpc_peer *peer, const struct schema_method *method, struct rpc_error *ret_error) {
        return !peer->service->admit || peer->service->admit(peer, method, ret_error);
}

void service_count_text(struct rpc_peer *peer) {
        struct rpc_error error;

        service_admits(peer, NULL, &error);
}

static uint64_t now_nanoseconds(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- texts on their way out ---- */

struct outgoing {
        struct rpc_peer *peer;
        struct rpc_batch *batch;
        struct json_writer own, *writer;
        size_t mark; /* where this answer begins */
};

static struct json_writer lend_writer(struct rpc_service *service) {
        struct json_writer writer = service->writer;

        service->writer = (struct json_writer){ .text = NULL };
        writer.length = 0;
        writer.failed = false;
        return writer;
}

static void return_writer(struct rpc_service *service, struct json_writer *writer) {
        if (service->writer.text || writer->size > WRITER_KEEP)
                json_writer_deinit(writer);
        else
                service->writer = *writer;
}

static void separate(struct outgoing *out) {
        if (!out->batch)
                return;
        if (out->mark)
                json_write_literal(out->writer, ",");
        else
                json_write_literal(out->writer, "[");
}

static void outgoing_begin(struct outgoing *out, struct rpc_peer *peer, struct rpc_batch *batch) {
        *out = (struct outgoing){ .peer = peer, .batch = batch };
        if (!batch)
                out->own = lend_writer(peer->service);
        out->writer = batch ? &batch->writer : &out->own;
        out->mark = out->writer->length;
        separate(out);
}

/* Whether the answer is as it was meant. When memory was short it is an error instead, for which the memory that the
 * answer had so far nearly always is enough; if even that is not there, nothing can be said. */
static bool outgoing_complete(struct outgoing *out, const char *id, size_t id_length) {
        static const struct rpc_error no_memory = { .error = ENOMEM, .reason = REASON_no_memory,
                                                    .message = "the daemon has no memory for the answer" };

        /* What ends it must fit as well. */
        json_writer_reserve(out->writer, 2);
        if (!out->writer->failed)
                return true;
        out->writer->length = out->mark;
        out->writer->failed = false;
        separate(out);
        answer_write_error(out->writer, id, id_length, &no_memory);
        json_writer_reserve(out->writer, 2);
        if (out->writer->failed)
                out->writer->length = out->mark;
        out->writer->failed = false;
        return false;
}

/* Likewise. An answer that stays in a batch is counted. */
static bool outgoing_settle(struct outgoing *out, const char *id, size_t id_length) {
        bool meant = outgoing_complete(out, id, id_length);

        if (out->batch)
                out->peer->batch_bytes += out->writer->length - out->mark;
        return meant;
}

static void close_fds(const int *fds, size_t n_fds) {
        for (size_t i = 0; i < n_fds; i++)
                close(fds[i]);
}

/* A batch's answer stays in its buffer. */
static void outgoing_send(struct outgoing *out, const int *fds, size_t n_fds) {
        if (out->batch)
                return;
        if (out->writer->length) {
                json_write_literal(out->writer, "\n");
                out->peer->send(out->peer, out->writer->text, out->writer->length, fds, n_fds);
        }
        return_writer(out->peer->service, &out->own);
}

void service_refuse(struct rpc_peer *peer, struct rpc_batch *batch, const char *id, size_t id_length,
                    const struct rpc_error *error) {
        struct outgoing out;

        peer->n_errors++;
        if (peer->dropped)
                return;
        outgoing_begin(&out, peer, batch);
        answer_write_error(out.writer, id, id_length, error);
        outgoing_settle(&out, id, id_length);
        outgoing_send(&out, NULL, 0);
}

struct rpc_batch *batch_new(struct rpc_peer *peer) {
        struct rpc_batch *batch = calloc(1, sizeof(*batch));

        if (!batch)
                return NULL;
        batch->peer = peer;
        batch->references = 1;
        batch->writer = lend_writer(peer->service);
        return batch;
}

void batch_unref(struct rpc_batch *batch) {
        struct rpc_peer *peer = batch->peer;

        if (--batch->references)
                return;
        peer->batch_bytes -= batch->writer.length;
        peer->batch_fds -= batch->n_fds;
        if (batch->writer.length && !peer->dropped) {
                json_write_literal(&batch->writer, "]\n");
                peer->send(peer, batch->writer.text, batch->writer.length, batch->fds, batch->n_fds);
        } else {
                close_fds(batch->fds, batch->n_fds);
        }
        return_writer(peer->service, &batch->writer);
        free(batch);
}

/* ---- calls ---- */

static void call_link(struct rpc_call *call) {
        struct rpc_peer *peer = call->peer;

        call->next = peer->calls;
        if (call->next)
                call->next->previous = call;
        peer->calls = call;
        peer->n_calls++;
}

static void call_unlink(struct rpc_call *call) {
        if (call->previous)
                call->previous->next = call->next;
        else
                call->peer->calls = call->next;
        if (call->next)
                call->next->previous = call->previous;
        call->previous = call->next = NULL;
        call->peer->n_calls--;
}

struct rpc_call *call_new(struct rpc_peer *peer, const struct schema_method *method, struct rpc_batch *batch,
                          const char *id, size_t id_length, bool notification) {
        struct rpc_service *service = peer->service;
        struct rpc_call *call = service->spare;
        char *long_id = NULL;

        if (id_length > CALL_ID_INLINE) {
                long_id = malloc(id_length);
                if (!long_id)
                        return NULL;
        }
        if (call) {
                service->spare = call->next;
                service->n_spare--;
        } else {
                call = malloc(sizeof(*call) + service->params_size);
                if (!call) {
                        free(long_id);
                        return NULL;
                }
        }
        memset(call, 0, offsetof(struct rpc_call, id_inline));
        call->peer = peer;
        call->method = method;
        call->notification = notification;
        call->id = long_id ? long_id : call->id_inline;
        call->id_length = id_length;
        if (id_length)
                memcpy(call->id, id, id_length);
        call->batch = batch;
        if (batch)
                batch->references++;
        if (service->observe)
                call->started = now_nanoseconds();
        call_link(call);
        if (service->begin)
                service->begin(service->observe_userdata, call);
        return call;
}

struct rpc_call *call_free(struct rpc_call *call) {
        struct rpc_service *service = call->peer->service;
        struct rpc_batch *batch = call->batch;

        if (!call->orphan)
                call_unlink(call);
        if (batch)
                batch->n_fds_promised -= call->fds_promised;
        if (call->id != call->id_inline)
                free(call->id);
        schema_memory_free(&call->memory);
        json_decref(call->document);
        if (service->n_spare < SPARE_CALLS_MAX) {
                call->next = service->spare;
                service->spare = call;
                service->n_spare++;
        } else {
                free(call);
        }
        if (batch)
                batch_unref(batch);
        return NULL;
}

/* With a result, or with an error. The call is gone before anything is sent, because sending may drop the peer. */
static void answer(struct rpc_call *call, const void *result, const struct rpc_error *error, const int *fds,
                   size_t n_fds) {
        struct rpc_service *service = call->peer->service;
        struct rpc_batch *batch = call->batch;
        struct outgoing out;
        int code = error ? error->code ? error->code : error->error : 0;

        if (call->state)
                *call->state = HANDLER_ANSWERED;
        if (service->observe)
                service->observe(service->observe_userdata, call->method, now_nanoseconds() - call->started, code);
        call->peer->n_errors += error != NULL;
        if (call->notification || call->peer->dropped) {
                close_fds(fds, n_fds);
                call_free(call);
                return;
        }
        outgoing_begin(&out, call->peer, batch);
        if (error)
                answer_write_error(out.writer, call->id, call->id_length, error);
        else
                answer_write_result(out.writer, call->id, call->id_length, call->method, result, n_fds);
        if (!outgoing_settle(&out, call->id, call->id_length)) {
                close_fds(fds, n_fds);
                n_fds = 0;
        }
        if (batch && n_fds) {
                memcpy(batch->fds + batch->n_fds, fds, n_fds * sizeof(*fds));
                batch->n_fds += n_fds;
                call->peer->batch_fds += n_fds;
        }
        call_free(call);
        outgoing_send(&out, fds, n_fds);
}

struct rpc_peer *rpc_call_peer(const struct rpc_call *call) {
        return call->peer;
}

const struct schema_method *rpc_call_method(const struct rpc_call *call) {
        return call->method;
}

const struct schema_table *rpc_call_table(const struct rpc_call *call) {
        return call->peer->service->table;
}

bool rpc_call_is_notification(const struct rpc_call *call) {
        return call->notification;
}

void rpc_call_defer(struct rpc_call *call, rpc_cancel_fn cancel, void *userdata) {
        call->cancel = cancel;
        call->userdata = userdata;
        if (call->state)
                *call->state = HANDLER_DEFERRED;
}

void *rpc_call_userdata(const struct rpc_call *call) {
        return call->userdata;
}

void rpc_call_reply(struct rpc_call *call, const void *result) {
        answer(call, result, NULL, NULL, 0);
}

void rpc_call_reply_consume_fds(struct rpc_call *call, const void *result, const int *fds, size_t n_fds) {
        bool takes = call->peer->takes_fds && n_fds <= call->fds_promised;

        if (!takes)
                close_fds(fds, n_fds);
        answer(call, result, NULL, takes ? fds : NULL, takes ? n_fds : 0);
}

void rpc_call_fail(struct rpc_call *call, const struct rpc_error *error) {
        answer(call, NULL, error, NULL, 0);
}

void rpc_call_fail_format(struct rpc_call *call, enum reason reason, const char *format, ...) {
        char message[512];
        struct rpc_error error = { .error = reason_errno(reason), .reason = reason, .message = message };
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(message, sizeof(message), format, arguments);
        va_end(arguments);
        rpc_call_fail(call, &error);
}

/* ---- peers ---- */

void rpc_peer_init(struct rpc_peer *peer, struct rpc_service *service, enum schema_role role, bool takes_fds,
                   rpc_send_fn send, void *userdata) {
        *peer = (struct rpc_peer){ .service = service, .role = role, .takes_fds = takes_fds,
                                   .send = send, .userdata = userdata };
}

void rpc_peer_drop(struct rpc_peer *peer) {
        struct rpc_call *call;

        peer->dropped = true;
        while ((call = peer->calls)) {
                call_unlink(call);
                call->orphan = true;
                /* Its handler is on the stack and may still answer it. */
                if (call->state && *call->state == HANDLER_RUNS)
                        continue;
                if (call->state)
                        *call->state = HANDLER_ANSWERED;
                if (call->cancel)
                        call->cancel(call, call->userdata);
                call_free(call);
        }
}

void rpc_peer_complain(struct rpc_peer *peer, const struct rpc_error *error) {
        service_refuse(peer, NULL, NULL, 0, error);
}

void rpc_peer_complain_oversize(struct rpc_peer *peer) {
        const struct rpc_error error = {
                .code = RPC_INVALID_REQUEST, .error = E2BIG, .reason = REASON_limit, .message = "Invalid Request",
                .n_values = 2,
                .values = { { .name = "detail", .kind = RPC_VALUE_TEXT,
                              .text = "the message is too long; it was skipped" },
                            { .name = "limit", .number = peer->service->limits.message_bytes } },
        };

        service_count_text(peer);
        rpc_peer_complain(peer, &error);
}

void rpc_peer_complain_fds(struct rpc_peer *peer) {
        static const struct rpc_error error = {
                .code = RPC_INVALID_REQUEST, .error = EOPNOTSUPP, .reason = REASON_unsupported,
                .message = "Invalid Request", .n_values = 1,
                .values = { { .name = "detail", .kind = RPC_VALUE_TEXT,
                              .text = "file descriptors are not accepted; those that came were closed" } },
        };

        service_count_text(peer);
        rpc_peer_complain(peer, &error);
}

/* A line of its own, whatever else is being put together for this peer at the moment. */
int rpc_peer_notify(struct rpc_peer *peer, const char *method, const struct schema_struct *structure, const void *params) {
        struct outgoing out;
        bool failed;

        if (peer->dropped)
                return 0;
        outgoing_begin(&out, peer, NULL);
        answer_write_notification(out.writer, method, structure, params);
        json_writer_reserve(out.writer, 1);
        failed = out.writer->failed;
        if (failed)
                out.writer->length = 0;
        outgoing_send(&out, NULL, 0);
        return failed ? -ENOMEM : 0;
}
