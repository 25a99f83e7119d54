#include "daemon/source/option.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *option_find(const struct source_option *options, size_t n_options, const char *key) {
        while (n_options-- > 0)
                if (strcmp(options[n_options].key, key) == 0)
                        return options[n_options].value;
        return NULL;
}

/* strtoull() would also take signs, blanks and octal. */
static int parse(const char *text, uint64_t *ret, const char **ret_end) {
        bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
        unsigned long long number;
        char *end;

        if (hex ? !isxdigit((unsigned char)text[2]) : !isdigit((unsigned char)text[0]))
                return -EINVAL;
        errno = 0;
        number = strtoull(text, &end, hex ? 16 : 10);
        if (errno == ERANGE)
                return -ERANGE;
        *ret = number;
        *ret_end = end;
        return 0;
}

int option_parse_number(const char *text, uint64_t *ret) {
        const char *end;
        uint64_t number;
        int r;

        r = parse(text, &number, &end);
        if (r < 0)
                return r;
        if (*end)
                return -EINVAL;
        *ret = number;
        return 0;
}

int option_parse_size(const char *text, uint64_t *ret) {
        static const char suffixes[] = "KMGT";
        const char *end, *suffix;
        unsigned shift = 0;
        uint64_t number;
        int r;

        r = parse(text, &number, &end);
        if (r < 0)
                return r;
        if (*end) {
                suffix = strchr(suffixes, toupper((unsigned char)*end));
                if (!suffix || end[1])
                        return -EINVAL;
                shift = 10 * (unsigned)(suffix - suffixes + 1);
        }
        if (number > UINT64_MAX >> shift)
                return -ERANGE;
        *ret = number << shift;
        return 0;
}

static int judge(int r, const char *key, const char *value, const char *form, struct failure *failure) {
        if (r == 0)
                return 0;
        failure_set(failure, REASON_bad_param, "%s = %.60s: %s", key, value,
                    r == -ERANGE ? "the number is too large" : form);
        failure_add_text(failure, "key", key);
        failure_add_text(failure, "value", value);
        return -EINVAL;
}

int option_number(const char *key, const char *value, uint64_t *ret, struct failure *failure) {
        return judge(option_parse_number(value, ret), key, value, "a number is needed", failure);
}

int option_size(const char *key, const char *value, uint64_t *ret, struct failure *failure) {
        return judge(option_parse_size(value, ret), key, value, "a size such as 4096, 512K, 64M or 2G is needed",
                     failure);
}

int option_unknown(const char *source, const struct source_option *known, const char *key, struct failure *failure) {
        char names[128] = "";
        size_t length = 0;

        for (; known->key; known++) {
                int n = snprintf(names + length, sizeof(names) - length, "%s%s", length ? ", " : "", known->key);

                if (n < 0 || (size_t)n >= sizeof(names) - length)
                        break;
                length += (size_t)n;
        }
        failure_set(failure, REASON_bad_param, "source %s has no option %.40s; it has %s", source, key, names);
        failure_add_text(failure, "key", key);
        return -EINVAL;
}
