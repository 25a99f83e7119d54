/* A call for which the core is asked for something that it has at once, or later. If later, the call waits with the session
 * that it came from: it is answered when the core has an answer, or goes with its connection or its session.
 *
 *      pending = pending_new(call, sizeof(*pending), answer);
 *      if (pending)
 *              pending_wait(pending, coherent_alloc(&pending->caller, &request, pending_done, pending));
 */
#ifndef DMAB_RPC_PENDING_H
#define DMAB_RPC_PENDING_H

#include "daemon/rpc/method.h"
#include "daemon/rpc/session.h"

/* Embedded at the start of what a handler needs for its answer. */
struct pending {
        struct waiting waiting;
        struct rpc_call *call;
        struct caller caller;
        /* Answers the call: the core has given this handle. NULL: another function than pending_done() is told. */
        void (*answer)(struct pending *pending, uint64_t handle);
        bool wants_fd; /* a descriptor of the region goes with the answer, if it can */
        bool again;    /* it is another request's, asked for again with its key */
        bool deferred, answered;
};

/* Zeroed but for the beginning, size bytes in all. NULL: the call has been answered with an error. */
struct pending *pending_new(struct rpc_call *call, size_t size, void (*answer)(struct pending *pending, uint64_t handle));
/* Instead of asking the core: the call is answered with why not. */
void pending_refuse(struct pending *pending, const struct failure *failure);
/* After the core was asked: the pending is gone if it was answered already. */
void pending_wait(struct pending *pending, struct ticket *ticket);

/* A broker_done_fn. */
void pending_done(void *userdata, const struct failure *failure, uint64_t handle);
/* The same for other kinds of answers: around answering the call. */
void pending_begin_answer(struct pending *pending);
void pending_end_answer(struct pending *pending);

/* A descriptor of the region if one was asked for and can travel: 0 and *ret_fd, which is -1 if not. */
int pending_dup_fd(const struct pending *pending, uint64_t region, int *ret_fd, struct failure *failure);
/* A lease that was given, with its descriptor or -1. false: it could not be told, the call has been answered with why, and
 * the lease is given back. */
bool pending_lease(struct pending *pending, uint64_t handle, enum lease_kind kind, struct lease_view *ret, int *ret_fd);
/* fd: -1 or consumed. */
void pending_reply(struct pending *pending, const void *result, int fd);

#endif
