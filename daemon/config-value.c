/* Values of the configuration file: text to number and back to a sentence when it is none. */
#include "daemon/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct unit {
        const char *name;
        uint64_t factor;
};

static const struct unit size_units[] = {
        { "K", 1 << 10 }, { "M", 1 << 20 }, { "G", 1 << 30 }, { "T", UINT64_C(1) << 40 }, { NULL, 0 },
};

static const struct unit time_units[] = {
        { "ms", 1 }, { "s", 1000 }, { "min", 60000 }, { "h", 3600000 }, { NULL, 0 },
};

/* The unit that follows a number; size units may be written as KiB too. */
static bool find_unit(const struct unit *units, const char *text, uint64_t *ret_factor) {
        for (; units->name; units++) {
                size_t n = strlen(units->name);

                if (strncasecmp(units->name, text, n) != 0)
                        continue;
                if (!text[n] || (units->factor % 1024 == 0 && (!strcmp(text + n, "iB") || !strcmp(text + n, "B")))) {
                        *ret_factor = units->factor;
                        return true;
                }
        }
        return false;
}

static bool parse_number(const char *text, const struct unit *units, uint64_t bare, uint64_t *ret) {
        uint64_t factor = bare;
        char *end;

        /* strtoull() would take signs and white space. */
        if (!isdigit((unsigned char)*text))
                return false;
        errno = 0;
        *ret = strtoull(text, &end, 10);
        while (*end == ' ')
                end++;
        if (*end && (!units || !find_unit(units, end, &factor)))
                return false;
        return errno == 0 && !__builtin_mul_overflow(*ret, factor, ret);
}

static bool parse_mask(const char *text, uint64_t *ret) {
        char *end;

        if (strncasecmp(text, "0x", 2) != 0 || !isxdigit((unsigned char)text[2]))
                return false;
        errno = 0;
        *ret = strtoull(text, &end, 16);
        return errno == 0 && !*end && (*ret & (*ret + 1)) == 0;
}

static bool parse_name(const char *const *names, const char *text, uint64_t *ret) {
        for (uint64_t i = 0; names && names[i]; i++)
                if (strcmp(names[i], text) == 0) {
                        *ret = i;
                        return true;
                }
        return false;
}

static bool parse_bool(const char *text, uint64_t *ret) {
        static const char *const words[] = { "no", "yes", "false", "true", "off", "on", NULL };

        if (!parse_name(words, text, ret))
                return false;
        *ret %= 2;
        return true;
}

static bool parse(const struct config_key *key, const char *text, uint64_t *ret) {
        switch (key->type) {
        case CONFIG_TEXT:
                return false;
        case CONFIG_CHOICE:
                return parse_name(key->choices, text, ret);
        case CONFIG_BOOL:
                return parse_bool(text, ret);
        case CONFIG_COUNT:
                return parse_number(text, NULL, 1, ret);
        case CONFIG_SIZE:
                return parse_number(text, size_units, 1, ret);
        case CONFIG_POWER:
                return parse_number(text, size_units, 1, ret) && *ret && (*ret & (*ret - 1)) == 0;
        case CONFIG_TIME:
                return parse_number(text, time_units, 1000, ret);
        case CONFIG_MASK:
                return parse_mask(text, ret);
        }
        return false;
}

static const char *wanted(const struct config_key *key, char *text, size_t text_size) {
        static const char *const words[] = {
                [CONFIG_TEXT] = "text",
                [CONFIG_BOOL] = "yes or no",
                [CONFIG_COUNT] = "a number",
                [CONFIG_SIZE] = "a size such as 4096, 64K, 16M or 2G",
                [CONFIG_POWER] = "a power of two such as 4096, 64K or 1M",
                [CONFIG_TIME] = "a time such as 500ms, 30s or 5min",
                [CONFIG_MASK] = "a mask of ones such as 0xffffffff",
        };
        size_t used = 0;

        if (key->type != CONFIG_CHOICE)
                return words[key->type];
        text[0] = '\0';
        for (size_t i = 0; key->choices[i] && used < text_size; i++)
                used += (size_t)snprintf(text + used, text_size - used, "%s%s", i ? " or " : "", key->choices[i]);
        return text;
}

int config_value_parse(const struct config_key *key, const char *text, void *ret_value, struct failure *failure) {
        char choices[96], *copy;
        uint64_t value;

        if (key->type == CONFIG_TEXT) {
                int r = key->check && *text ? key->check(text, failure) : 0;

                if (!*text)
                        return failure_set(failure, REASON_bad_param, "%s needs a value", key->key);
                if (r < 0)
                        return r;
                copy = strdup(text);
                if (!copy)
                        return failure_set(failure, REASON_no_memory, "there is no memory for the configuration");
                free(*(char **)ret_value);
                *(char **)ret_value = copy;
                return 0;
        }
        if (key->endless && strcmp(text, key->endless) == 0) {
                *(uint64_t *)ret_value = UINT64_MAX;
                return 0;
        }
        if (!parse(key, text, &value))
                return failure_set(failure, REASON_bad_param, "%s is \"%.60s\", but must be %s%s%s", key->key, text,
                                   wanted(key, choices, sizeof(choices)), key->endless ? ", or " : "",
                                   key->endless ? key->endless : "");
        if (value < key->min)
                return failure_set(failure, REASON_bad_param, "%s is %.60s, but must be at least %llu", key->key, text,
                                   (unsigned long long)key->min);
        if (key->max && value > key->max)
                return failure_set(failure, REASON_bad_param, "%s is %.60s, but must be at most %llu%s", key->key, text,
                                   (unsigned long long)key->max, key->type == CONFIG_TIME ? " ms" : "");
        *(uint64_t *)ret_value = value;
        return 0;
}

const char *config_type_name(enum config_type type) {
        static const char *const names[] = {
                [CONFIG_TEXT] = "text",   [CONFIG_CHOICE] = "choice", [CONFIG_BOOL] = "bool", [CONFIG_COUNT] = "count",
                [CONFIG_SIZE] = "size",   [CONFIG_POWER] = "power",   [CONFIG_TIME] = "time", [CONFIG_MASK] = "mask",
        };

        return names[type];
}
