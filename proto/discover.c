#include "proto/discover.h"

#include <errno.h>

#include "proto/dispatch.h"
#include "proto/help.h"

static void write_key(struct json_writer *writer, const char *name) {
        if (writer->length && writer->text[writer->length - 1] != '{')
                json_write_literal(writer, ",");
        json_write_text(writer, name);
        json_write_literal(writer, ":");
}

static void write_key_text(struct json_writer *writer, const char *name, const char *text) {
        if (!text)
                return;
        write_key(writer, name);
        json_write_text(writer, text);
}

static void write_key_unsigned(struct json_writer *writer, const char *name, uint64_t value) {
        write_key(writer, name);
        json_write_unsigned(writer, value);
}

static void write_struct(struct json_writer *writer, const struct schema_struct *structure, unsigned fds_max);

static void write_range(struct json_writer *writer, const struct schema_field *field) {
        bool narrow = field->min || field->max;

        if (field->type == SCHEMA_UINT) {
                write_key_unsigned(writer, "minimum", field->min);
                write_key_unsigned(writer, "maximum", narrow ? field->max : SCHEMA_INTEGER_MAX);
        } else if (field->type == SCHEMA_INT) {
                write_key(writer, "minimum");
                json_write_signed(writer, narrow ? (int64_t)field->min : -(int64_t)SCHEMA_INTEGER_MAX);
                write_key(writer, "maximum");
                json_write_signed(writer, narrow ? (int64_t)field->max : (int64_t)SCHEMA_INTEGER_MAX);
        } else if (field->type == SCHEMA_STRING && narrow) {
                write_key_unsigned(writer, "minLength", field->min);
                write_key_unsigned(writer, "maxLength", field->max);
        }
}

static void write_names(struct json_writer *writer, const char *const *names) {
        write_key(writer, "enum");
        json_write_literal(writer, "[");
        for (size_t i = 0; names[i]; i++) {
                if (i)
                        json_write_literal(writer, ",");
                json_write_text(writer, names[i]);
        }
        json_write_literal(writer, "]");
}

/* The JSON schema of one value. */
static void write_value(struct json_writer *writer, const struct schema_field *field) {
        static const char *const types[] = {
                [SCHEMA_BOOL] = "boolean", [SCHEMA_UINT] = "integer", [SCHEMA_INT] = "integer",
                [SCHEMA_NUMBER] = "number", [SCHEMA_HEX] = "string", [SCHEMA_STRING] = "string",
                [SCHEMA_ENUM] = "string",
        };

        if (field->type == SCHEMA_OBJECT) {
                write_struct(writer, field->sub, 0);
                return;
        }
        json_write_literal(writer, "{");
        if (field->type != SCHEMA_RAW && field->nullable) {
                write_key(writer, "type");
                json_write_literal(writer, "[");
                json_write_text(writer, types[field->type]);
                json_write_literal(writer, ",\"null\"]");
        } else if (field->type != SCHEMA_RAW) {
                write_key_text(writer, "type", types[field->type]);
        }
        write_range(writer, field);
        if (field->type == SCHEMA_HEX)
                write_key_text(writer, "pattern", "^0x[0-9a-fA-F]{1,16}$");
        if (field->type == SCHEMA_ENUM)
                write_names(writer, field->names);
        json_write_literal(writer, "}");
}

static void write_field(struct json_writer *writer, const struct schema_field *field) {
        if (!field->array) {
                write_value(writer, field);
                return;
        }
        json_write_literal(writer, "{\"type\":\"array\",\"items\":");
        write_value(writer, field);
        if (field->max_items)
                write_key_unsigned(writer, "maxItems", field->max_items);
        json_write_literal(writer, "}");
}

static void write_required(struct json_writer *writer, const struct schema_struct *structure) {
        bool first = true;

        write_key(writer, "required");
        json_write_literal(writer, "[");
        for (size_t i = 0; i < structure->n_fields; i++) {
                if (!structure->fields[i].required)
                        continue;
                if (!first)
                        json_write_literal(writer, ",");
                first = false;
                json_write_text(writer, structure->fields[i].name);
        }
        json_write_literal(writer, "]");
}

static void write_struct(struct json_writer *writer, const struct schema_struct *structure, unsigned fds_max) {
        json_write_literal(writer, "{\"type\":\"object\",\"properties\":{");
        for (size_t i = 0; i < structure->n_fields; i++) {
                write_key(writer, structure->fields[i].name);
                write_field(writer, &structure->fields[i]);
        }
        if (fds_max) {
                write_key(writer, "fds");
                json_write_literal(writer, "{\"type\":\"integer\",\"minimum\":1,\"maximum\":");
                json_write_unsigned(writer, fds_max);
                json_write_literal(writer, "}");
        }
        json_write_literal(writer, "}");
        write_required(writer, structure);
        json_write_literal(writer, ",\"additionalProperties\":false}");
}

static void write_params(struct json_writer *writer, const struct schema_struct *params) {
        write_key(writer, "params");
        json_write_literal(writer, "[");
        for (size_t i = 0; params && i < params->n_fields; i++) {
                const struct schema_field *field = &params->fields[i];

                if (i)
                        json_write_literal(writer, ",");
                json_write_literal(writer, "{");
                write_key_text(writer, "name", field->name);
                write_key_text(writer, "description", field->doc);
                write_key(writer, "required");
                json_write_bytes(writer, field->required ? "true" : "false", field->required ? 4 : 5);
                write_key(writer, "schema");
                write_field(writer, field);
                json_write_literal(writer, "}");
        }
        json_write_literal(writer, "]");
}

static void write_result(struct json_writer *writer, const struct schema_method *method) {
        write_key(writer, "result");
        json_write_literal(writer, "{\"name\":\"result\",\"schema\":");
        if (method->results)
                write_struct(writer, method->results, method->fds_max);
        else
                json_write_literal(writer, "{}");
        json_write_literal(writer, "}");
}

static void write_errors(struct json_writer *writer, const enum reason *errors) {
        write_key(writer, "errors");
        json_write_literal(writer, "[");
        for (size_t i = 0; errors && errors[i] != REASON_NONE; i++) {
                if (i)
                        json_write_literal(writer, ",");
                json_write_literal(writer, "{");
                write_key(writer, "code");
                json_write_signed(writer, reason_errno(errors[i]));
                write_key_text(writer, "message", help_reason_text(errors[i]));
                write_key(writer, "data");
                json_write_literal(writer, "{\"reason\":");
                json_write_text(writer, reason_name(errors[i]));
                json_write_literal(writer, "}}");
        }
        json_write_literal(writer, "]");
}

static void write_method(struct json_writer *writer, const struct schema_method *method) {
        json_write_literal(writer, "{");
        write_key_text(writer, "name", method->name);
        write_key_text(writer, "summary", method->summary);
        write_key_text(writer, "description", method->doc);
        write_key_text(writer, "paramStructure", "by-name");
        write_params(writer, method->params);
        write_result(writer, method);
        write_errors(writer, method->errors);
        write_key_text(writer, "x-role", schema_role_name(method->role));
        json_write_literal(writer, "}");
}

void discover_write(const struct schema_table *table, struct json_writer *writer) {
        json_write_literal(writer, "{\"openrpc\":\"1.4.0\",\"info\":{");
        write_key_text(writer, "title", table->title);
        write_key_text(writer, "version", table->version);
        write_key_text(writer, "description", table->description);
        json_write_literal(writer, "},\"methods\":[");
        for (size_t i = 0; i < table->n_methods; i++) {
                if (i)
                        json_write_literal(writer, ",");
                write_method(writer, &table->methods[i]);
        }
        json_write_literal(writer, "]}");
}

void rpc_discover(struct rpc_call *call, const void *params) {
        struct json_writer writer = { .text = NULL };
        struct schema_raw document;

        discover_write(rpc_call_table(call), &writer);
        document = (struct schema_raw){ .text = writer.text, .length = writer.length };
        if (writer.failed)
                rpc_call_fail_format(call, REASON_no_memory, "the daemon has no memory for the document");
        else
                rpc_call_reply(call, &document);
        json_writer_deinit(&writer);
}
