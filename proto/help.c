#include "proto/help.h"

#include <inttypes.h>
#include <stdio.h>

const char *help_reason_text(enum reason reason) {
        static const char *const texts[] = {
                "",
#define REASON_TEXT(token, error, text) text,
                REASON_LIST(REASON_TEXT)
#undef REASON_TEXT
        };
        return (unsigned)reason < REASON_COUNT ? texts[reason] : "";
}

static void describe_range(const struct schema_field *field, char *text, size_t size) {
        if (!field->min && !field->max)
                return;
        if (field->type == SCHEMA_STRING)
                snprintf(text, size, ", %" PRIu64 " to %" PRIu64 " bytes", field->min, field->max);
        else if (field->type == SCHEMA_INT)
                snprintf(text, size, ", %" PRId64 " to %" PRId64, (int64_t)field->min, (int64_t)field->max);
        else if (field->type == SCHEMA_UINT && field->max == SCHEMA_INTEGER_MAX)
                snprintf(text, size, ", at least %" PRIu64, field->min);
        else if (field->type == SCHEMA_UINT)
                snprintf(text, size, ", %" PRIu64 " to %" PRIu64, field->min, field->max);
}

static size_t append(char *text, size_t size, size_t n, const char *more) {
        int added = snprintf(text + n, size - n, "%s", more);

        n += added > 0 ? (size_t)added : 0;
        return n < size ? n : size - 1;
}

void help_describe_type(const struct schema_field *field, char *text, size_t text_size) {
        size_t n = append(text, text_size, 0, field->array ? "array of " : "");

        if (field->type == SCHEMA_ENUM) {
                n = append(text, text_size, n, field->array ? "" : "one of ");
                for (size_t i = 0; field->names[i]; i++) {
                        n = append(text, text_size, n, i ? ", " : "");
                        n = append(text, text_size, n, field->names[i]);
                }
        } else {
                n = append(text, text_size, n, schema_type_name(field->type));
                describe_range(field, text + n, text_size - n);
        }
}
