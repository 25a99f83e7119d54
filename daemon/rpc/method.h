/* The handlers of the protocol's methods, and what they share. Each takes decoded parameters and answers its call,
 * at once or when the core has an answer. */
#ifndef DMAB_RPC_METHOD_H
#define DMAB_RPC_METHOD_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

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
METHOD_HANDLER(device, get);
METHOD_HANDLER(device, open);
METHOD_HANDLER(device, set_mask);
METHOD_HANDLER(device, supported);
METHOD_HANDLER(device, close);
METHOD_HANDLER(device, reserve);
METHOD_HANDLER(device, unreserve);
METHOD_HANDLER(coherent, alloc);
METHOD_HANDLER(coherent, free);
METHOD_HANDLER(coherent, move);
METHOD_HANDLER(coherent, swap_out);
METHOD_HANDLER(coherent, swap_in);
METHOD_HANDLER(coherent, list);
METHOD_HANDLER(coherent, lookup);
METHOD_HANDLER(pool, create);
METHOD_HANDLER(pool, alloc);
METHOD_HANDLER(pool, free);
METHOD_HANDLER(pool, lease);
METHOD_HANDLER(pool, return);
METHOD_HANDLER(pool, destroy);
METHOD_HANDLER(pool, trim);
METHOD_HANDLER(pool, list);
METHOD_HANDLER(pool, stats);
METHOD_HANDLER(bounce, create);
METHOD_HANDLER(bounce, map);
METHOD_HANDLER(bounce, unmap);
METHOD_HANDLER(bounce, sync);
METHOD_HANDLER(bounce, lease);
METHOD_HANDLER(bounce, return);
METHOD_HANDLER(bounce, destroy);
METHOD_HANDLER(bounce, stats);
METHOD_HANDLER(bounce, list);
METHOD_HANDLER(mapping, map);
METHOD_HANDLER(mapping, unmap);
METHOD_HANDLER(mapping, list);
METHOD_HANDLER(lease, list);
METHOD_HANDLER(region, list);
METHOD_HANDLER(region, get);
METHOD_HANDLER(memory, release);
METHOD_HANDLER(quarantine, list);
METHOD_HANDLER(quarantine, release);
METHOD_HANDLER(guest, list);
METHOD_HANDLER(guest, get);
METHOD_HANDLER(guest, attach);
METHOD_HANDLER(guest, detach);
METHOD_HANDLER(guest, set_quota);
METHOD_HANDLER(guest, evict);
METHOD_HANDLER(guest, exchange);
METHOD_HANDLER(window, list);
METHOD_HANDLER(window, bind);
METHOD_HANDLER(grant, list);
METHOD_HANDLER(grant, map);
METHOD_HANDLER(grant, unmap);
METHOD_HANDLER(grant, share);
METHOD_HANDLER(quota, get);
METHOD_HANDLER(quota, set);
METHOD_HANDLER(stats, get);
METHOD_HANDLER(stats, reset);
METHOD_HANDLER(events, subscribe);
METHOD_HANDLER(events, unsubscribe);
METHOD_HANDLER(debug, check);

struct connection *method_connection(const struct rpc_call *call);
/* Who calls. false: the call has been answered with an error. */
bool method_caller(struct rpc_call *call, struct caller *ret);
bool method_is_admin(const struct rpc_call *call);
/* May the caller be told machine addresses? Guests may not. */
bool method_tells_machine(const struct rpc_call *call);

/* Tell the administrator that one of them did something to what belongs to somebody else. handle 0: it has none. */
void method_log_admin(const struct rpc_call *call, const char *owner, const char *what, uint64_t handle);
/* Whose something is, taken down before something is done to it: nobody if it is the caller's own. */
struct method_other {
        char owner[64];
};
void method_note_other(const struct caller *caller, const char *owner, struct method_other *ret);
/* method_log_admin() if it was somebody else's. */
void method_log_other(const struct rpc_call *call, const struct method_other *other, const char *what, uint64_t handle);

/* A mask was given as 0, which the core would take for "nothing said". Then the call is answered, and this is true. */
bool method_refuse_empty_mask(struct rpc_call *call, const char *name, bool given, uint64_t mask);

/* Tells a repeated request from another that has the same key: over the method and every parameter but the key, and
 * how long it may take: who asks again may have less patience. How long a device waits is a property of the device. */
uint64_t method_digest(const struct schema_method *method, const void *params);

/* How long the call waits for memory: as it says, or else as long as the device does. -errno with a sentence. */
int method_wait_ms(const struct caller *caller, uint64_t device, bool given, uint64_t wait_ms, uint64_t *ret,
                   struct failure *failure);
enum dma_direction method_direction(enum protocol_direction direction);
/* method_note_other() of the mapping's owner, if the caller is an administrator and there is such a mapping. */
void method_note_mapping(const struct caller *caller, uint64_t mapping, struct method_other *ret);
/* pool.return and bounce.return. */
void method_return_lease(struct rpc_call *call, const struct lease_return_params *params, enum lease_kind kind);
/* A descriptor of the region's memory, the caller's to close. -errno with a sentence. */
int method_dup_region(const struct caller *caller, uint64_t region, int *ret_fd, struct failure *failure);

/* By a translator's name. Whether the device itself is passed on makes no difference to its addresses. */
static inline enum protocol_translation method_translation(const char *name) {
        return strcmp(name, "iommu") == 0   ? PROTOCOL_IOMMU
               : strcmp(name, "grant") == 0 ? PROTOCOL_GRANT
               : strcmp(name, "guest") == 0 ? PROTOCOL_GUEST_ADDRESS
                                            : PROTOCOL_IDENTITY;
}

/* The same of what may have been swapped out. */
static inline enum protocol_addressing method_addressing_of(bool anonymous, bool simulated) {
        return anonymous ? PROTOCOL_NO_ADDRESS : simulated ? PROTOCOL_SIMULATED : PROTOCOL_MACHINE;
}

static inline enum protocol_addressing method_addressing(bool simulated) {
        return simulated ? PROTOCOL_SIMULATED : PROTOCOL_MACHINE;
}

/* The members that say where something is, of any result that has them. */
#define METHOD_PLACE(ret, view, machine)                                          \
        do {                                                                      \
                (ret)->region = (view)->region;                                   \
                (ret)->offset = (view)->offset;                                   \
                (ret)->dma_addr = (view)->dma_addr;                               \
                if (machine)                                                      \
                        schema_put(ret, machine_addr, (view)->machine_addr);      \
        } while (0)

/* A list that grows while the core visits. Elements are all of one size. */
struct method_list {
        void *items;
        size_t count, capacity, size;
        size_t limit; /* of elements; beyond, `more` is set and the visit ends */
        bool more, no_memory;
};

void *method_list_add(struct method_list *list); /* zeroed; NULL: limit or memory, the visit should end */
bool method_list_failed(struct method_list *list, struct rpc_call *call); /* then the call is answered, the list freed */
/* Of a list of everything, in whatever order: leaves what comes after that handle, in their order and not more than `limit`. In
 * each element a handle is `at` bytes from its beginning. */
void method_list_page(struct method_list *list, size_t at, uint64_t after, size_t limit);

/* Answers with the core's failure; if that is busy, with a list of what is in the way: structs that sub describes, by this
 * name, and `more` if the list was cut. The list stays the caller's. */
void method_refuse_busy(struct rpc_call *call, const struct failure *failure, const char *name,
                        const struct schema_struct *sub, const struct method_list *list);

/* What a handler of a list collects, for whom, and from where. */
struct method_listing {
        struct method_list list;
        struct caller caller;
        uint64_t device, after; /* or 0 */
        const char *owner;      /* or NULL */
        bool machine;           /* the caller is told machine addresses */
};

/* params: NULL where the method has others. false: the call has been answered with an error. */
bool method_listing_init(struct method_listing *listing, struct rpc_call *call, const struct list_params *params,
                         size_t item_size);
/* Answers the call with what was collected, which are the result's `member` and `more`; or, when r says so, with the
 * failure. Nothing is left of the listing then. */
#define METHOD_LISTING_ANSWER(listing, call, r, failure, result, member)  \
        do {                                                              \
                if (method_listing_good(listing, call, r, failure)) {     \
                        (result)->member.items = (listing)->list.items;   \
                        (result)->member.count = (listing)->list.count;   \
                        (result)->more = (listing)->list.more;            \
                        rpc_call_reply(call, result);                     \
                        free((listing)->list.items);                      \
                }                                                         \
        } while (0)
bool method_listing_good(struct method_listing *listing, struct rpc_call *call, int r, const struct failure *failure);

void method_refuse_checks(struct server *server);

#endif
