/* The texts of answers. For the dispatch alone. */
#ifndef DMAB_PROTO_ANSWER_H
#define DMAB_PROTO_ANSWER_H

#include "proto/dispatch.h"
#include "proto/writer.h"

/* id: as it was written; length 0 is null. */
void answer_write_result(struct json_writer *writer, const char *id, size_t id_length,
                         const struct schema_method *method, const void *result, size_t n_fds);
void answer_write_notification(struct json_writer *writer, const char *method, const struct schema_struct *structure,
                               const void *params);
void answer_write_error(struct json_writer *writer, const char *id, size_t id_length, const struct rpc_error *error);

#endif
