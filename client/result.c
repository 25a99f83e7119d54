#include "client/result.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/error.h"

static int missing(const char *name) {
        return error_set(EPROTO,
                         "the daemon's answer has no usable \"%s\"; is it of another release than this library?", name);
}

int result_uint(json_t *result, const char *name, uint64_t *ret) {
        json_t *value = json_object_get(result, name);

        if (!json_is_integer(value) || json_integer_value(value) < 0)
                return missing(name);
        *ret = json_integer_value(value);
        return 0;
}

int result_hex(json_t *result, const char *name, uint64_t *ret) {
        const char *text = json_string_value(json_object_get(result, name));
        unsigned long long value;
        char *end;

        if (!text || strncmp(text, "0x", 2))
                return missing(name);
        errno = 0;
        value = strtoull(text + 2, &end, 16);
        if (errno || end == text + 2 || *end)
                return missing(name);
        *ret = value;
        return 0;
}

int result_string(json_t *result, const char *name, char **ret) {
        const char *text = json_string_value(json_object_get(result, name));
        char *copy;

        if (!text)
                return missing(name);
        copy = strdup(text);
        if (!copy)
                return error_set(ENOMEM, "there is not enough memory");
        *ret = copy;
        return 0;
}
