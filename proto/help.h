/* The tables as words for people. */
#ifndef DMAB_PROTO_HELP_H
#define DMAB_PROTO_HELP_H

#include <stddef.h>

#include "proto/schema.h"

/* "integer, 1 to 1023", "one of session, owner", "array of string" … Cut short if text is too small. */
void help_describe_type(const struct schema_field *field, char *text, size_t text_size);

/* What the reason means, as a clause without a full stop. */
const char *help_reason_text(enum reason reason);

#endif
