#include "proto/answer.h"

#include <string.h>

#include "proto/codec.h"

static void write_head(struct json_writer *writer, const char *id, size_t id_length) {
        json_write_literal(writer, "{\"jsonrpc\":\"2.0\",\"id\":");
        if (id_length)
                json_write_bytes(writer, id, id_length);
        else
                json_write_literal(writer, "null");
}

void answer_write_result(struct json_writer *writer, const char *id, size_t id_length,
                         const struct schema_method *method, const void *result, size_t n_fds) {
        write_head(writer, id, id_length);
        json_write_literal(writer, ",\"result\":");
        schema_encode_result(method, result, n_fds, writer);
        json_write_literal(writer, "}");
}

void answer_write_notification(struct json_writer *writer, const char *method, const struct schema_struct *structure,
                               const void *params) {
        json_write_literal(writer, "{\"jsonrpc\":\"2.0\",\"method\":");
        json_write_text(writer, method);
        json_write_literal(writer, ",\"params\":");
        schema_encode(structure, params, writer);
        json_write_literal(writer, "}");
}

static void write_list(struct json_writer *writer, const struct rpc_error_value *value) {
        json_write_literal(writer, "[");
        for (size_t i = 0; i < value->count; i++) {
                if (i)
                        json_write_literal(writer, ",");
                schema_encode(value->sub, (const char *)value->items + i * value->sub->size, writer);
        }
        json_write_literal(writer, "]");
}

static void write_value(struct json_writer *writer, const struct rpc_error_value *value) {
        switch (value->kind) {
        case RPC_VALUE_NUMBER:
                json_write_unsigned(writer, value->number);
                break;
        case RPC_VALUE_HEX:
                json_write_hex(writer, value->number);
                break;
        case RPC_VALUE_TEXT:
                json_write_text(writer, value->text);
                break;
        case RPC_VALUE_RAW:
                json_write_bytes(writer, value->text, strlen(value->text));
                break;
        case RPC_VALUE_LIST:
                write_list(writer, value);
                break;
        }
}

static void write_member(struct json_writer *writer, const char *name, bool *first) {
        if (!*first)
                json_write_literal(writer, ",");
        *first = false;
        json_write_text(writer, name);
        json_write_literal(writer, ":");
}

static void write_data(struct json_writer *writer, const struct rpc_error *error) {
        const char *name = error->error ? strerrorname_np(error->error) : NULL;
        bool first = true;

        json_write_literal(writer, ",\"data\":{");
        if (name) {
                write_member(writer, "errno", &first);
                json_write_text(writer, name);
        }
        if (error->reason != REASON_NONE) {
                write_member(writer, "reason", &first);
                json_write_text(writer, reason_name(error->reason));
        }
        for (size_t i = 0; i < error->n_values; i++) {
                write_member(writer, error->values[i].name, &first);
                write_value(writer, &error->values[i]);
        }
        json_write_literal(writer, "}");
}

void answer_write_error(struct json_writer *writer, const char *id, size_t id_length, const struct rpc_error *error) {
        write_head(writer, id, id_length);
        json_write_literal(writer, ",\"error\":{\"code\":");
        json_write_signed(writer, error->code ? error->code : error->error ? error->error : RPC_INTERNAL_ERROR);
        json_write_literal(writer, ",\"message\":");
        json_write_text(writer, error->message);
        if (error->error || error->reason != REASON_NONE || error->n_values)
                write_data(writer, error);
        json_write_literal(writer, "}}");
}
