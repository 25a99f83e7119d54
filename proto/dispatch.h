/* JSON-RPC 2.0 without the sockets: texts go in, calls reach their handlers with decoded parameters, answers come out
 * as texts. Any table of methods will do. Nothing here blocks, and nothing is thread-safe: one thread owns a service
 * and all of its peers.
 *
 * The happy path: rpc_peer_receive() checks a text, decodes it and calls the method's handler, which answers the
 * call, at once or later, exactly once. The answer goes to the peer's send function; the answers to a batch go there
 * together when the last one is known. What can go wrong: a text that is no request is answered without any handler;
 * a peer that is dropped takes its waiting calls with it, and each call's cancel function is told. */
#ifndef DMAB_PROTO_DISPATCH_H
#define DMAB_PROTO_DISPATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/reason.h"
#include "proto/schema.h"

struct rpc_service;
struct rpc_peer;
struct rpc_call;

enum rpc_code {
        RPC_PARSE_ERROR = -32700,
        RPC_INVALID_REQUEST = -32600,
        RPC_METHOD_NOT_FOUND = -32601,
        RPC_INVALID_PARAMS = -32602,
        RPC_INTERNAL_ERROR = -32603,
};

struct rpc_limits {
        size_t message_bytes;     /* for messages about it; the framing enforces it */
        size_t nesting;           /* levels of arrays and objects in a text */
        size_t calls_in_flight;   /* of one peer */
        size_t batch_elements;
        size_t batch_reply_bytes; /* once a peer's unfinished replies to batches are this long, further elements of
                                   * batches are refused unexecuted */
        size_t fds_per_reply;
};

#define RPC_LIMITS_DEFAULT                                                                                    \
        ((struct rpc_limits){ .message_bytes = 1 << 20, .nesting = 64, .calls_in_flight = 256,                \
                              .batch_elements = 1024, .batch_reply_bytes = 8 << 20, .fds_per_reply = 32 })

/* ---- errors ---- */

enum rpc_value_kind {
        RPC_VALUE_NUMBER,
        RPC_VALUE_HEX,
        RPC_VALUE_TEXT,
        RPC_VALUE_RAW,  /* text is JSON */
        RPC_VALUE_LIST, /* items are structs that sub describes */
};

struct rpc_error_value {
        const char *name;
        enum rpc_value_kind kind;
        uint64_t number;
        const char *text;
        const struct schema_struct *sub;
        const void *items;
        size_t count;
};

enum { RPC_ERROR_VALUES_MAX = 12 };

/* All pointers are borrowed until the function that takes the error returns. */
struct rpc_error {
        int code;      /* 0: error is the code */
        int error;     /* positive errno, or 0: not told */
        enum reason reason;
        const char *message; /* a sentence */
        size_t n_values;
        struct rpc_error_value values[RPC_ERROR_VALUES_MAX];
};

/* ---- the service: what all peers share ---- */

/* params: the method's struct, NULL for a method that takes none; valid, with all it points to, until the call is
 * answered or cancelled. The handler answers the call, or keeps it and says so with rpc_call_defer(). */
typedef void (*rpc_handler_fn)(struct rpc_call *call, const void *params);

/* When a call has been read, before its parameters are; NULL: nobody wants to know. */
typedef void (*rpc_begin_fn)(void *userdata, const struct rpc_call *call);
/* After each answer: how long it took, and with what code (0: a result). Not for cancelled calls. */
typedef void (*rpc_observe_fn)(void *userdata, const struct schema_method *method, uint64_t nanoseconds, int code);

/* handlers[method->id], all of them there, copied; table is borrowed for good. -EINVAL: a handler is missing;
 * -ENOMEM. */
int rpc_service_new(const struct schema_table *table, const rpc_handler_fn *handlers, const struct rpc_limits *limits,
                    struct rpc_service **ret);
/* After the last peer was dropped. Returns NULL. */
struct rpc_service *rpc_service_free(struct rpc_service *service);
void rpc_service_set_limits(struct rpc_service *service, const struct rpc_limits *limits);
const struct rpc_limits *rpc_service_limits(const struct rpc_service *service);
void rpc_service_observe(struct rpc_service *service, rpc_begin_fn begin, rpc_observe_fn observe, void *userdata);

/* Called once for every request, be it a call, a notification, an element of a batch, or one that is refused for what it
 * is; and for every text that is none. method: NULL if there is none of that name. false: it is not executed, and answered
 * with the error, which is borrowed until then; a request that is wrong in itself is told so instead. */
typedef bool (*rpc_admit_fn)(struct rpc_peer *peer, const struct schema_method *method, struct rpc_error *ret_error);
void rpc_service_set_admit(struct rpc_service *service, rpc_admit_fn admit); /* NULL: nothing is counted */

/* A handler for rpc.discover. */
void rpc_discover(struct rpc_call *call, const void *params);

/* ---- peers: who calls ---- */

/* text: one JSON text and its LF, borrowed until send returns. fds are send's own from then on, also when it fails;
 * they belong to the text. May drop the peer, may not free it. */
typedef void (*rpc_send_fn)(struct rpc_peer *peer, const char *text, size_t length, const int *fds, size_t n_fds);

/* Embedded by whoever owns the connection. The first block may be changed at any time. */
struct rpc_peer {
        enum schema_role role; /* SCHEMA_ROLE_ANY is the least */
        bool takes_fds;        /* whether descriptors can travel to it */
        rpc_send_fn send;
        void *userdata;

        struct rpc_service *service;
        struct rpc_call *calls; /* in flight */
        size_t n_calls;
        size_t batch_bytes, batch_fds; /* in its replies to batches that are not finished */
        uint64_t n_errors; /* what it asked and was answered with an error, or would have been */
        bool dropped;
};

void rpc_peer_init(struct rpc_peer *peer, struct rpc_service *service, enum schema_role role, bool takes_fds,
                   rpc_send_fn send, void *userdata);

/* Take the calls in flight away: each one's cancel function is called, then it is gone. Nothing is sent any more. The
 * struct may be freed once no rpc_peer_receive() for it is on the stack. */
void rpc_peer_drop(struct rpc_peer *peer);

/* One text, without its LF; it need not end with NUL and may hold anything. Handlers run before this returns. */
void rpc_peer_receive(struct rpc_peer *peer, const char *text, size_t length);

/* Tell the peer about something that is no answer to a request (id null): */
void rpc_peer_complain(struct rpc_peer *peer, const struct rpc_error *error);
void rpc_peer_complain_oversize(struct rpc_peer *peer); /* a message beyond message_bytes was skipped */
void rpc_peer_complain_fds(struct rpc_peer *peer);      /* descriptors came in, and were closed */

/* A notification: params is a struct that structure describes. -ENOMEM: nothing was sent. */
int rpc_peer_notify(struct rpc_peer *peer, const char *method, const struct schema_struct *structure, const void *params);

/* ---- calls ---- */

/* The peer is there as long as the call is. */
struct rpc_peer *rpc_call_peer(const struct rpc_call *call);
const struct schema_method *rpc_call_method(const struct rpc_call *call);
const struct schema_table *rpc_call_table(const struct rpc_call *call);
/* Nobody waits for the answer: it will be thrown away, so descriptors need not be made for it. */
bool rpc_call_is_notification(const struct rpc_call *call);

/* The call will be answered later. cancel is called instead if its peer is dropped first: it must forget the call,
 * and not answer it. userdata is the caller's own. */
typedef void (*rpc_cancel_fn)(struct rpc_call *call, void *userdata);
void rpc_call_defer(struct rpc_call *call, rpc_cancel_fn cancel, void *userdata);
void *rpc_call_userdata(const struct rpc_call *call);

/* Each of these answers the call, which is gone afterwards. result: the method's struct; struct schema_raw where the
 * table has none; NULL is {}. */
void rpc_call_reply(struct rpc_call *call, const void *result);
/* Likewise, with descriptors, at most the method's fds_max: they are consumed whatever happens. Not sent to a peer
 * that cannot take them. "fds" is added to the result. */
void rpc_call_reply_consume_fds(struct rpc_call *call, const void *result, const int *fds, size_t n_fds);
void rpc_call_fail(struct rpc_call *call, const struct rpc_error *error);
/* The short form. */
void rpc_call_fail_format(struct rpc_call *call, enum reason reason, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

#endif
