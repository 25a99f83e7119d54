/* Members of a result that the library relies on. Each: 0, or -EPROTO with a sentence that names what is missing. */
#ifndef DMAB_CLIENT_RESULT_H
#define DMAB_CLIENT_RESULT_H

#include <jansson.h>
#include <stdint.h>

int result_uint(json_t *result, const char *name, uint64_t *ret);
int result_hex(json_t *result, const char *name, uint64_t *ret);
/* A copy that the caller frees; -ENOMEM too. */
int result_string(json_t *result, const char *name, char **ret);

#endif
