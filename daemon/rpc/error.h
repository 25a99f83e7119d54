/* The only way from a failure of the core to an error on the wire. */
#ifndef DMAB_RPC_ERROR_H
#define DMAB_RPC_ERROR_H

#include "daemon/core/failure.h"
#include "proto/dispatch.h"

/* failure must live as long as the result, whose pointers are borrowed from it. */
void error_of_failure(const struct failure *failure, struct rpc_error *ret);

/* Answers the call. */
void error_answer(struct rpc_call *call, const struct failure *failure);

#endif
