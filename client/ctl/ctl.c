#include "client/ctl/ctl.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/ctl/verbs.h"

enum { CTL_RECONNECT_MS = 5000 }; /* a person waits */

/* ---- options ---- */

static const struct ctl_given *find_given(const struct ctl *ctl, const char *option) {
        for (size_t i = ctl->n_given; i > 0; i--)
                if (!strcmp(ctl->given[i - 1].option->name, option))
                        return &ctl->given[i - 1];
        return NULL;
}

bool ctl_has(const struct ctl *ctl, const char *option) {
        return find_given(ctl, option);
}

const char *ctl_value(const struct ctl *ctl, const char *option) {
        const struct ctl_given *given = find_given(ctl, option);

        return given ? given->value : NULL;
}

enum ctl_status ctl_misuse(const struct ctl *ctl, const char *format, ...) {
        va_list arguments;

        fputs("dmabrokerctl: ", stderr);
        va_start(arguments, format);
        vfprintf(stderr, format, arguments);
        va_end(arguments);
        if (ctl->verb)
                fprintf(stderr, "\nusage: dmabrokerctl %s%s%s%s; \"dmabrokerctl help %s\" says more\n", ctl->verb->name,
                        ctl->verb->options ? " [OPTIONS]" : "", *ctl->verb->operands ? " " : "", ctl->verb->operands,
                        ctl->verb->name);
        else
                fputs("\n", stderr);
        return CTL_USAGE;
}

enum ctl_status ctl_parse_uint(const struct ctl *ctl, const char *what, const char *text, uint64_t *ret) {
        unsigned long long value;
        char *end;

        errno = 0;
        value = strtoull(text, &end, 10);
        if (errno || *end || !isdigit((unsigned char)*text))
                return ctl_misuse(ctl, "%s must be a number, not \"%s\"", what, text);
        *ret = value;
        return CTL_OK;
}

enum ctl_status ctl_parse_size(const struct ctl *ctl, const char *what, const char *text, uint64_t *ret) {
        static const char suffixes[] = "KMGTPE";
        unsigned long long value;
        const char *suffix;
        unsigned shift = 0;
        char *end;

        errno = 0;
        value = strtoull(text, &end, 10);
        if (*end && (suffix = strchr(suffixes, toupper((unsigned char)*end)))) {
                shift = 10 * (suffix - suffixes + 1);
                end++;
                if (!strcmp(end, "iB") || !strcmp(end, "B"))
                        end = "";
        }
        if (errno || *end || !isdigit((unsigned char)*text) || value > UINT64_MAX >> shift)
                return ctl_misuse(ctl, "%s must be a size, such as 4096, 64K, 1M or 2G, not \"%s\"", what, text);
        *ret = value << shift;
        return CTL_OK;
}

enum ctl_status ctl_parse_address(const struct ctl *ctl, const char *what, const char *text, uint64_t *ret) {
        unsigned long long value;
        char *end;

        errno = 0;
        value = strtoull(text, &end, 16);
        if (errno || *end || strncmp(text, "0x", 2) || !isxdigit((unsigned char)text[2]))
                return ctl_misuse(ctl, "%s must be an address, such as 0x1f400000, not \"%s\"", what, text);
        *ret = value;
        return CTL_OK;
}

enum ctl_status ctl_parse_mask(const struct ctl *ctl, const char *what, const char *text, uint64_t *ret) {
        uint64_t bits;

        if (!strncmp(text, "0x", 2))
                return ctl_parse_address(ctl, what, text, ret);
        if (ctl_parse_uint(ctl, what, text, &bits) != CTL_OK)
                return CTL_USAGE;
        if (bits < 1 || bits > 64)
                return ctl_misuse(ctl,
                                  "%s must be a number of bits from 1 to 64, or a mask such as 0xffffffff, not \"%s\"",
                                  what, text);
        *ret = DMAB_MASK(bits);
        return CTL_OK;
}

enum ctl_status ctl_parse_seconds(const struct ctl *ctl, const char *what, const char *text, uint64_t *ret) {
        double seconds;
        char *end;

        errno = 0;
        seconds = strtod(text, &end);
        if (errno || *end || !isdigit((unsigned char)*text) || !isfinite(seconds) || seconds > 1e9)
                return ctl_misuse(ctl, "%s must be seconds, such as 5 or 0.5, not \"%s\"", what, text);
        *ret = seconds * 1000;
        return CTL_OK;
}

void ctl_put_hex(json_t *params, const char *name, uint64_t value) {
        char text[24];

        snprintf(text, sizeof(text), "0x%llx", (unsigned long long)value);
        json_object_set_new(params, name, json_string(text));
}

typedef enum ctl_status (*parse_fn)(const struct ctl *ctl, const char *what, const char *text, uint64_t *ret);

static enum ctl_status param(const struct ctl *ctl, const char *option, json_t *params, const char *name,
                             parse_fn parse_value) {
        const char *text = ctl_value(ctl, option);
        uint64_t value;

        if (!text)
                return CTL_OK;
        if (parse_value(ctl, option, text, &value) != CTL_OK)
                return CTL_USAGE;
        if (parse_value == ctl_parse_mask)
                ctl_put_hex(params, name, value);
        else if (value > INT64_MAX)
                return ctl_misuse(ctl, "%s is too large: %s", option, text);
        else
                json_object_set_new(params, name, json_integer(value));
        return CTL_OK;
}

enum ctl_status ctl_param_uint(const struct ctl *ctl, const char *option, json_t *params, const char *name) {
        return param(ctl, option, params, name, ctl_parse_uint);
}

enum ctl_status ctl_param_size(const struct ctl *ctl, const char *option, json_t *params, const char *name) {
        return param(ctl, option, params, name, ctl_parse_size);
}

enum ctl_status ctl_param_mask(const struct ctl *ctl, const char *option, json_t *params, const char *name) {
        return param(ctl, option, params, name, ctl_parse_mask);
}

enum ctl_status ctl_param_seconds(const struct ctl *ctl, const char *option, json_t *params, const char *name) {
        return param(ctl, option, params, name, ctl_parse_seconds);
}

enum ctl_status ctl_param_waiting(const struct ctl *ctl, json_t *params) {
        json_object_set_new(params, "wait_ms", json_integer(0));
        if (ctl_has(ctl, "--high"))
                json_object_set_new(params, "priority", json_string("high"));
        return ctl_param_seconds(ctl, "--wait", params, "wait_ms");
}

void ctl_param_text(const struct ctl *ctl, const char *option, json_t *params, const char *name) {
        if (ctl_value(ctl, option))
                json_object_set_new(params, name, json_string(ctl_value(ctl, option)));
}

void ctl_param_flag(const struct ctl *ctl, const char *option, json_t *params, const char *name) {
        if (ctl_has(ctl, option))
                json_object_set_new(params, name, json_true());
}

/* ---- the daemon ---- */

void ctl_uri(const struct ctl *ctl, char *ret, size_t size) {
        snprintf(ret, size, "%s%s", ctl->socket && !strchr(ctl->socket, ':') ? "unix:" : "",
                 ctl->socket ? ctl->socket : "auto:");
}

enum ctl_status ctl_connect(struct ctl *ctl) {
        char uri[4200];

        if (ctl->dmab)
                return CTL_OK;
        ctl_uri(ctl, uri, sizeof(uri));
        if (!dmab_connect(uri, &ctl->dmab)) {
                if (!getenv("DMABROKER_RECONNECT_MS"))
                        dmab_set_reconnect_timeout(ctl->dmab, CTL_RECONNECT_MS);
                return CTL_OK;
        }
        ctl_complain(ctl);
        return CTL_NO_DAEMON;
}

enum ctl_status ctl_complain(const struct ctl *ctl) {
        json_t *error = dmab_last_error_json() ? json_loads(dmab_last_error_json(), 0, NULL) : NULL;

        fprintf(stderr, "dmabrokerctl: %s\n", dmab_last_error());
        if (ctl->json) {
                json_t *wrapped = error ? json_pack("{s:O}", "error", error)
                                        : json_pack("{s:{s:s}}", "error", "message", dmab_last_error());

                ctl_print_json(wrapped);
                json_decref(wrapped);
        }
        json_decref(error);
        return CTL_FAILURE;
}

enum ctl_status ctl_call(struct ctl *ctl, const char *method, json_t *params, json_t **ret) {
        char *text = params ? json_dumps(params, JSON_COMPACT) : NULL, *answer = NULL;
        enum ctl_status status = ctl_connect(ctl);
        json_t *result = NULL;

        if (status == CTL_OK && dmab_call(ctl->dmab, method, text, &answer))
                status = ctl_complain(ctl);
        if (status == CTL_OK) {
                result = json_loads(answer, JSON_DECODE_ANY, NULL);
                if (!result) {
                        fprintf(stderr, "dmabrokerctl: the answer to %s cannot be read\n", method);
                        status = CTL_FAILURE;
                }
        }
        free(answer);
        free(text);
        json_decref(params);
        if (status == CTL_OK)
                *ret = result;
        return status;
}

enum ctl_status ctl_list(struct ctl *ctl, const char *method, json_t *params, const char *items, const char *handle,
                         json_t **ret) {
        json_t *all = json_array(), *page = NULL, *last, *result;
        bool more = true;

        if (!params)
                params = json_object();
        while (more) {
                enum ctl_status status = ctl_call(ctl, method, json_incref(params), &page);

                if (status != CTL_OK) {
                        json_decref(all);
                        json_decref(params);
                        return status;
                }
                last = json_array_get(json_object_get(page, items), json_array_size(json_object_get(page, items)) - 1);
                more = json_is_true(json_object_get(page, "more")) && last;
                if (more)
                        json_object_set(params, "after", json_object_get(last, handle));
                json_array_extend(all, json_object_get(page, items));
                if (more)
                        json_decref(page);
        }
        json_decref(params);
        result = page;
        json_object_set_new(result, items, all);
        *ret = result;
        return CTL_OK;
}

void ctl_print_json(const json_t *value) {
        json_dumpf(value, stdout,
                   (isatty(STDOUT_FILENO) ? JSON_INDENT(2) : JSON_COMPACT) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
        putchar('\n');
}
