/* The values that options of a source have: how they are written, and the sentences for those that are not. */
#ifndef DMAB_SOURCE_OPTION_H
#define DMAB_SOURCE_OPTION_H

#include "daemon/core/source.h"

/* The value of the last option with this key, or NULL. Borrowed from `options`. */
const char *option_find(const struct source_option *options, size_t n_options, const char *key);

/* A number, decimal or hexadecimal (0x). The whole text must be one. -EINVAL, -ERANGE. */
int option_parse_number(const char *text, uint64_t *ret);

/* A number of bytes: like a number, then perhaps K, M, G or T. -EINVAL, -ERANGE. */
int option_parse_size(const char *text, uint64_t *ret);

/* The same for the option `key`, which is named in the failure. */
int option_number(const char *key, const char *value, uint64_t *ret, struct failure *failure);
int option_size(const char *key, const char *value, uint64_t *ret, struct failure *failure);

/* The failure for a key that the source `source` does not have; lists those that it has. */
int option_unknown(const char *source, const struct source_option *known, const char *key, struct failure *failure);

#endif
