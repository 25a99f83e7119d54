#include "daemon/core/failure.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void set(struct failure *failure, enum reason reason, int error, const char *format, va_list arguments)
        __attribute__((format(printf, 4, 0)));

static void set(struct failure *failure, enum reason reason, int error, const char *format, va_list arguments) {
        if (!failure)
                return;
        failure->error = error;
        failure->reason = reason;
        failure->n_values = 0;
        vsnprintf(failure->sentence, sizeof(failure->sentence), format, arguments);
}

int failure_set(struct failure *failure, enum reason reason, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        set(failure, reason, reason_errno(reason), format, arguments);
        va_end(arguments);
        return -reason_errno(reason);
}

int failure_set_errno(struct failure *failure, enum reason reason, int error, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        set(failure, reason, error, format, arguments);
        va_end(arguments);
        return -error;
}

static struct failure_value *add(struct failure *failure, const char *name, enum failure_kind kind) {
        struct failure_value *value;

        if (!failure || failure->n_values == FAILURE_VALUES_MAX)
                return NULL;
        value = &failure->values[failure->n_values++];
        *value = (struct failure_value){ .name = name, .kind = kind };
        return value;
}

void failure_add_number(struct failure *failure, const char *name, uint64_t number) {
        struct failure_value *value = add(failure, name, FAILURE_NUMBER);

        if (value)
                value->number = number;
}

void failure_add_hex(struct failure *failure, const char *name, uint64_t number) {
        struct failure_value *value = add(failure, name, FAILURE_HEX);

        if (value)
                value->number = number;
}

void failure_add_text(struct failure *failure, const char *name, const char *text) {
        struct failure_value *value = add(failure, name, FAILURE_TEXT);

        if (value)
                snprintf(value->text, sizeof(value->text), "%s", text);
}
