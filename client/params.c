#include "client/params.h"

#include <stdarg.h>
#include <stdio.h>

static void __attribute__((format(printf, 2, 3))) append(struct params *params, const char *format, ...) {
        va_list arguments;
        int length;

        va_start(arguments, format);
        length = vsnprintf(params->text + params->length, sizeof(params->text) - params->length, format, arguments);
        va_end(arguments);
        if (length > 0 && params->length + length < sizeof(params->text))
                params->length += length;
}

static const char *separator(const struct params *params) {
        return params->length > 1 ? "," : "";
}

void params_begin(struct params *params) {
        params->length = 0;
        append(params, "{");
}

void params_end(struct params *params) {
        append(params, "}");
}

void params_uint(struct params *params, const char *name, uint64_t value) {
        append(params, "%s\"%s\":%llu", separator(params), name, (unsigned long long)value);
}

void params_hex(struct params *params, const char *name, uint64_t value) {
        append(params, "%s\"%s\":\"0x%llx\"", separator(params), name, (unsigned long long)value);
}

void params_word(struct params *params, const char *name, const char *word, char quote) {
        append(params, "%s\"%s\":%.*s%s%.*s", separator(params), name, !!quote, &quote, word, !!quote, &quote);
}
