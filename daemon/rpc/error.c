#include "daemon/rpc/error.h"

#include <errno.h>

static const enum rpc_value_kind kinds[] = {
        [FAILURE_NUMBER] = RPC_VALUE_NUMBER,
        [FAILURE_HEX] = RPC_VALUE_HEX,
        [FAILURE_TEXT] = RPC_VALUE_TEXT,
};

void error_of_failure(const struct failure *failure, struct rpc_error *ret) {
        *ret = (struct rpc_error){ .error = failure->error, .reason = failure->reason, .message = failure->sentence };
        if (!failure->error) {
                ret->code = RPC_INTERNAL_ERROR;
                ret->message = "The daemon refused without saying why; this is an error in the daemon";
        }
        for (size_t i = 0; i < failure->n_values && i < RPC_ERROR_VALUES_MAX; i++) {
                const struct failure_value *value = &failure->values[i];

                ret->values[ret->n_values++] = (struct rpc_error_value){
                        .name = value->name, .kind = kinds[value->kind], .number = value->number, .text = value->text,
                };
        }
}

void error_answer(struct rpc_call *call, const struct failure *failure) {
        struct rpc_error error;

        error_of_failure(failure, &error);
        rpc_call_fail(call, &error);
}
