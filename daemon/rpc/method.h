/* The handlers of the protocol's methods, and what they share. Each takes decoded parameters and answers its call,
 * at once or when the core has an answer. */
#ifndef DMAB_RPC_METHOD_H
#define DMAB_RPC_METHOD_H

#include <stdbool.h>

#include "daemon/core/broker.h"
#include "daemon/rpc/connection.h"
#include "proto/dispatch.h"
#include "proto/methods.h"

extern const rpc_handler_fn method_handlers[METHOD_COUNT];

#define METHOD_HANDLER(group, verb) void method_##group##_##verb(struct rpc_call *call, const void *params)
METHOD_HANDLER(broker, hello);
METHOD_HANDLER(broker, ping);
METHOD_HANDLER(broker, bye);
METHOD_HANDLER(broker, status);
METHOD_HANDLER(device, list);
METHOD_HANDLER(device, open);
METHOD_HANDLER(device, set_mask);
METHOD_HANDLER(device, supported);
METHOD_HANDLER(device, close);
METHOD_HANDLER(device, reserve);
METHOD_HANDLER(device, unreserve);
METHOD_HANDLER(coherent, alloc);
METHOD_HANDLER(coherent, free);
METHOD_HANDLER(coherent, list);
METHOD_HANDLER(coherent, lookup);
METHOD_HANDLER(region, list);
METHOD_HANDLER(region, get);
METHOD_HANDLER(quota, get);
METHOD_HANDLER(quota, set);
METHOD_HANDLER(stats, get);
METHOD_HANDLER(stats, reset);
METHOD_HANDLER(debug, check);

struct connection *method_connection(const struct rpc_call *call);
/* Who calls. false: the call has been answered with an error. */
bool method_caller(struct rpc_call *call, struct caller *ret);
bool method_is_admin(const struct rpc_call *call);
/* May the caller be told machine addresses? Guests may not. */
bool method_tells_machine(const struct rpc_call *call);

/* Tell the administrator that one of them did something to what belongs to somebody else. handle 0: it has none. */
void method_log_admin(const struct rpc_call *call, const char *owner, const char *what, uint64_t handle);

/* A mask was given as 0, which the core would take for "nothing said". Then the call is answered, and this is true. */
bool method_refuse_empty_mask(struct rpc_call *call, const char *name, bool given, uint64_t mask);

/* Tells a repeated request from another that has the same key: over the method and every parameter but the key. */
uint64_t method_digest(const struct schema_method *method, const void *params);

/* A list that grows while the core visits. Elements are all of one size. */
struct method_list {
        void *items;
        size_t count, capacity, size;
        size_t limit; /* of elements; beyond, `more` is set and the visit ends */
        bool more, no_memory;
};

void *method_list_add(struct method_list *list); /* zeroed; NULL: limit or memory, the visit should end */
bool method_list_failed(struct method_list *list, struct rpc_call *call); /* then the call is answered, the list freed */

void method_refuse_checks(struct server *server);

#endif
