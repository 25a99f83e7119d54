/* dmabrokerctl: verbs, what a run of one is given, and the daemon that it speaks to.
 *
 * A new verb is: a struct ctl_verb in a file verb-<noun>.c, its declaration in verbs.h and its line in verbs.c.
 * Parsing, --help, completion and the comparison with the manual page follow from that. */
#ifndef DMAB_CTL_CTL_H
#define DMAB_CTL_CTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "include/dmabroker.h"

enum ctl_status {
        CTL_OK = 0,
        CTL_FAILURE = 1,
        CTL_USAGE = 2,
        CTL_NO_DAEMON = 3,
};

struct ctl_option {
        const char *name;     /* with its dashes; NULL ends a list */
        const char *argument; /* what its argument is called; NULL: takes none */
        const char *doc;      /* a phrase, no full stop */
};

struct ctl;

struct ctl_verb {
        const char *name;
        const char *operands;             /* as in the synopsis; "" for none */
        const char *summary;              /* a phrase, no full stop */
        const char *doc;                  /* sentences */
        const char *words;                /* what the first operand can be, with blanks between; NULL: anything */
        const struct ctl_option *options; /* ends with a NULL name; NULL: none of its own */
        size_t min_operands, max_operands;
        enum ctl_status (*run)(struct ctl *ctl);
};

enum { CTL_OPERANDS_MAX = 64, CTL_GIVEN_MAX = 64 };

struct ctl_given {
        const struct ctl_option *option;
        const char *value; /* NULL for an option without argument */
};

/* One run. All strings are argv's. */
struct ctl {
        const struct ctl_verb *verb;
        const char *operands[CTL_OPERANDS_MAX];
        size_t n_operands;
        struct ctl_given given[CTL_GIVEN_MAX];
        size_t n_given;
        const char *socket; /* --socket; NULL: the usual one */
        bool json;
        dmab_t *dmab; /* NULL until something is called */
};

/* ---- options ---- */

/* Was the verb's option given? */
bool ctl_has(const struct ctl *ctl, const char *option);
/* The argument of its last occurrence, or NULL. */
const char *ctl_value(const struct ctl *ctl, const char *option);

/* Complain on stderr about how the verb was used. Returns CTL_USAGE. */
enum ctl_status ctl_misuse(const struct ctl *ctl, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Arguments as numbers: CTL_OK, or CTL_USAGE after complaining. `what` names the argument. */
enum ctl_status ctl_parse_uint(const struct ctl *ctl, const char *what, const char *text, uint64_t *ret);
/* 64K, 1M, 2G …: powers of 1024; plain digits are bytes. */
enum ctl_status ctl_parse_size(const struct ctl *ctl, const char *what, const char *text, uint64_t *ret);
/* 0x… is an address. */
enum ctl_status ctl_parse_address(const struct ctl *ctl, const char *what, const char *text, uint64_t *ret);
/* 0x… is the mask itself, 1 to 64 the number of its bits. */
enum ctl_status ctl_parse_mask(const struct ctl *ctl, const char *what, const char *text, uint64_t *ret);
/* Seconds, 2.5 for example, as milliseconds. */
enum ctl_status ctl_parse_seconds(const struct ctl *ctl, const char *what, const char *text, uint64_t *ret);

/* Members of a call's parameters out of options, absent where the option was not given. CTL_OK, or CTL_USAGE after
 * complaining. */
enum ctl_status ctl_param_uint(const struct ctl *ctl, const char *option, json_t *params, const char *name);
enum ctl_status ctl_param_size(const struct ctl *ctl, const char *option, json_t *params, const char *name);
enum ctl_status ctl_param_mask(const struct ctl *ctl, const char *option, json_t *params, const char *name);
enum ctl_status ctl_param_seconds(const struct ctl *ctl, const char *option, json_t *params, const char *name);
/* What --wait and --high say: wait_ms, 0 unless given, and priority. */
enum ctl_status ctl_param_waiting(const struct ctl *ctl, json_t *params);
void ctl_param_text(const struct ctl *ctl, const char *option, json_t *params, const char *name);
void ctl_param_flag(const struct ctl *ctl, const char *option, json_t *params, const char *name);
void ctl_put_hex(json_t *params, const char *name, uint64_t value);

/* ---- the daemon ---- */

/* What dmab_connect() takes for the daemon that was asked for. */
void ctl_uri(const struct ctl *ctl, char *ret, size_t size);

/* Connect if that has not been done. CTL_OK, or CTL_NO_DAEMON after complaining. */
enum ctl_status ctl_connect(struct ctl *ctl);

/* Call; params is consumed, NULL for none. CTL_OK and a result that the caller releases; otherwise what went wrong has
 * been told, on stderr and with --json also as {"error": …} on stdout. */
enum ctl_status ctl_call(struct ctl *ctl, const char *method, json_t *params, json_t **ret);

/* The same for methods that answer in pages: all of them, as one. `items` is the member that is the list, `handle` the
 * member of its elements that the next page starts after. */
enum ctl_status ctl_list(struct ctl *ctl, const char *method, json_t *params, const char *items, const char *handle,
                         json_t **ret);

/* Complain about the last failure of the library. Returns CTL_FAILURE. */
enum ctl_status ctl_complain(const struct ctl *ctl);

/* A result as it came: on one line, or indented for a terminal. */
void ctl_print_json(const json_t *value);

#endif
