#include "daemon/rpc/pending.h"

#include <stdlib.h>

#include "daemon/rpc/error.h"

static void forget(struct waiting *waiting) {
        free((struct pending *)((char *)waiting - offsetof(struct pending, waiting)));
}

struct pending *pending_new(struct rpc_call *call, size_t size, void (*answer)(struct pending *pending, uint64_t handle)) {
        struct pending *pending;
        struct caller caller;

        if (!method_caller(call, &caller))
                return NULL;
        pending = calloc(1, size);
        if (!pending) {
                rpc_call_fail_format(call, REASON_no_memory, "The daemon itself is out of memory");
                return NULL;
        }
        pending->call = call;
        pending->caller = caller;
        pending->answer = answer;
        return pending;
}

void pending_refuse(struct pending *pending, const struct failure *failure) {
        error_answer(pending->call, failure);
        free(pending);
}

void pending_wait(struct pending *pending, struct ticket *ticket) {
        if (pending->answered) {
                free(pending);
                return;
        }
        pending->deferred = true;
        waiting_begin(&pending->waiting, method_connection(pending->call), pending->call, ticket, forget);
}

void pending_begin_answer(struct pending *pending) {
        if (pending->deferred)
                waiting_end(&pending->waiting);
}

void pending_end_answer(struct pending *pending) {
        pending->answered = true;
        if (pending->deferred)
                free(pending);
}

void pending_done(void *userdata, const struct failure *failure, uint64_t handle) {
        struct pending *pending = userdata;

        pending_begin_answer(pending);
        if (failure)
                error_answer(pending->call, failure);
        else
                pending->answer(pending, handle);
        pending_end_answer(pending);
}

int pending_dup_fd(const struct pending *pending, uint64_t region, int *ret_fd, struct failure *failure) {
        *ret_fd = -1;
        if (!pending->wants_fd || !rpc_call_peer(pending->call)->takes_fds || rpc_call_is_notification(pending->call))
                return 0;
        return method_dup_region(&pending->caller, region, ret_fd, failure);
}

bool pending_lease(struct pending *pending, uint64_t handle, enum lease_kind kind, struct lease_view *ret, int *ret_fd) {
        struct failure failure = { 0 };
        int r;

        r = lease_get(&pending->caller, handle, ret, &failure);
        if (r == 0) {
                r = pending_dup_fd(pending, ret->region, ret_fd, &failure);
                if (r < 0 && !pending->again)
                        lease_return(&pending->caller, handle, kind, NULL);
        }
        if (r < 0)
                error_answer(pending->call, &failure);
        return r == 0;
}

void pending_reply(struct pending *pending, const void *result, int fd) {
        if (fd >= 0)
                rpc_call_reply_consume_fds(pending->call, result, &fd, 1);
        else
                rpc_call_reply(pending->call, result);
}
