#include <string.h>

#include "proto/codec.h"

struct list {
        const char *items;
        size_t count;
};

/* An enum that no name belongs to is a mistake of the daemon's: null shows it, and every check of the result finds
 * it. */
static void encode_enum(const struct schema_field *field, int value, struct json_writer *writer) {
        for (int i = 0; field->names[i]; i++) {
                if (i == value) {
                        json_write_text(writer, field->names[i]);
                        return;
                }
        }
        json_write_literal(writer, "null");
}

/* Members are read with memcpy, because the tables know their types only at run time. */
static void encode_value(const struct schema_field *field, const char *at, struct json_writer *writer) {
        struct schema_raw raw;
        const char *text;
        uint64_t number;
        int64_t integer;
        double real;
        bool flag;
        int value;

#define READ(variable) memcpy(&(variable), at, sizeof(variable))
        switch (field->type) {
        case SCHEMA_BOOL:
                READ(flag);
                json_write_bytes(writer, flag ? "true" : "false", flag ? 4 : 5);
                break;
        case SCHEMA_UINT:
                READ(number);
                json_write_unsigned(writer, number);
                break;
        case SCHEMA_INT:
                READ(integer);
                json_write_signed(writer, integer);
                break;
        case SCHEMA_NUMBER:
                READ(real);
                json_write_number(writer, real);
                break;
        case SCHEMA_HEX:
                READ(number);
                json_write_hex(writer, number);
                break;
        case SCHEMA_STRING:
                READ(text);
                json_write_text(writer, text);
                break;
        case SCHEMA_ENUM:
                READ(value);
                encode_enum(field, value, writer);
                break;
        case SCHEMA_OBJECT:
                schema_encode(field->sub, at, writer);
                break;
        case SCHEMA_RAW:
                READ(raw);
                if (raw.length)
                        json_write_bytes(writer, raw.text, raw.length);
                else
                        json_write_literal(writer, "null");
                break;
        }
#undef READ
}

static void encode_list(const struct schema_field *field, const char *at, struct json_writer *writer) {
        size_t size = schema_item_size(field);
        struct list list;

        memcpy(&list, at, sizeof(list));
        json_write_literal(writer, "[");
        for (size_t i = 0; i < list.count; i++) {
                if (i)
                        json_write_literal(writer, ",");
                encode_value(field, list.items + i * size, writer);
        }
        json_write_literal(writer, "]");
}

static void encode_members(const struct schema_struct *structure, const char *object, struct json_writer *writer) {
        uint64_t present;
        bool first = true;

        memcpy(&present, object, sizeof(present));
        for (size_t i = 0; i < structure->n_fields; i++) {
                const struct schema_field *field = &structure->fields[i];

                if (!field->required && !(present >> (field->offset / 8) & 1))
                        continue;
                if (first)
                        json_write_literal(writer, "\"");
                else
                        json_write_literal(writer, ",\"");
                json_write_bytes(writer, field->name, strlen(field->name));
                json_write_literal(writer, "\":");
                if (field->array)
                        encode_list(field, object + field->offset, writer);
                else
                        encode_value(field, object + field->offset, writer);
                first = false;
        }
}

void schema_encode(const struct schema_struct *structure, const void *object, struct json_writer *writer) {
        json_write_literal(writer, "{");
        encode_members(structure, object, writer);
        json_write_literal(writer, "}");
}

void schema_encode_result(const struct schema_method *method, const void *result, size_t n_fds,
                          struct json_writer *writer) {
        const struct schema_raw *raw = result;

        if (!method->results && raw) {
                json_write_bytes(writer, raw->text, raw->length);
                return;
        }
        json_write_literal(writer, "{");
        if (result && method->results)
                encode_members(method->results, result, writer);
        if (n_fds) {
                if (writer->length && writer->text[writer->length - 1] != '{')
                        json_write_literal(writer, ",");
                json_write_literal(writer, "\"fds\":");
                json_write_unsigned(writer, n_fds);
        }
        json_write_literal(writer, "}");
}
