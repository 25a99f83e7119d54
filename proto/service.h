/* What a service and a call are made of. For dispatch.c and receive.c alone. */
#ifndef DMAB_PROTO_SERVICE_H
#define DMAB_PROTO_SERVICE_H

#include <stdalign.h>
#include <stddef.h>

#include "proto/codec.h"
#include "proto/dispatch.h"
#include "proto/fdpass.h"
#include "proto/scan.h"
#include "proto/writer.h"

enum {
        CALL_ID_INLINE = 40,
        CALL_ID_MAX = 4096, /* bytes of an id that is kept for its answer */
};

struct rpc_service {
        const struct schema_table *table;
        rpc_handler_fn *handlers;
        struct rpc_limits limits;
        rpc_begin_fn begin;
        rpc_observe_fn observe;
        void *observe_userdata;
        rpc_admit_fn admit; /* or NULL */
        const struct schema_method **index; /* open addressing by a hash of the name */
        size_t index_mask;
        size_t params_size;    /* the largest params struct */
        struct rpc_call *spare; /* calls kept for reuse */
        size_t n_spare;
        /* Lent to whoever needs them, so that a callback that comes back here finds empty ones. */
        struct json_writer writer;
        struct scan scan;
};

/* The answers to one batch. Its elements' calls hold it, and whoever walks through it. */
struct rpc_batch {
        struct rpc_peer *peer;
        size_t references;
        struct json_writer writer;
        int fds[FDPASS_MAX];
        size_t n_fds, n_fds_promised;
};

/* How far a handler that is on the stack has come with its call. */
enum handler_state { HANDLER_RUNS, HANDLER_DEFERRED, HANDLER_ANSWERED };

struct rpc_call {
        struct rpc_peer *peer;
        struct rpc_call *previous, *next; /* in the peer's list, or the service's spare ones */
        const struct schema_method *method;
        struct rpc_batch *batch;
        struct json_t *document; /* what params points into */
        struct schema_memory memory;
        enum handler_state *state; /* NULL once the handler returned */
        rpc_cancel_fn cancel;
        void *userdata;
        uint64_t started;
        bool notification, orphan; /* orphan: the peer was dropped while the handler ran */
        unsigned fds_promised;
        size_t id_length;
        char *id, id_inline[CALL_ID_INLINE];
        max_align_t params[];
};

const struct schema_method *service_find(const struct rpc_service *service, const char *name, size_t length);

/* A call of the peer, in its list; id is copied. NULL: no memory. */
struct rpc_call *call_new(struct rpc_peer *peer, const struct schema_method *method, struct rpc_batch *batch,
                          const char *id, size_t id_length, bool notification);
/* Unanswered. */
struct rpc_call *call_free(struct rpc_call *call);

/* Whether a request is within what its peer may ask; then it has been counted. */
bool service_admits(struct rpc_peer *peer, const struct schema_method *method, struct rpc_error *ret_error);
/* What is no request costs like one. */
void service_count_text(struct rpc_peer *peer);

/* Answer what has no call. */
void service_refuse(struct rpc_peer *peer, struct rpc_batch *batch, const char *id, size_t id_length,
                    const struct rpc_error *error);

struct rpc_batch *batch_new(struct rpc_peer *peer);
/* The last one sends the answers, if there are any. */
void batch_unref(struct rpc_batch *batch);

#endif
