/* Between JSON and C structs, as the tables say. */
#ifndef DMAB_PROTO_CODEC_H
#define DMAB_PROTO_CODEC_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/schema.h"
#include "proto/writer.h"

struct json_t;

/* What decoded lists live in. Zeroed is empty. */
struct schema_memory {
        struct schema_chunk *chunks;
};

void schema_memory_free(struct schema_memory *memory);
/* Zeroed, lives as long as the memory does. NULL: there is none. */
void *schema_memory_take(struct schema_memory *memory, size_t count, size_t size);

enum schema_wrong {
        SCHEMA_WRONG_UNKNOWN, /* there is no such parameter */
        SCHEMA_WRONG_MISSING,
        SCHEMA_WRONG_TYPE,
        SCHEMA_WRONG_VALUE,
        SCHEMA_WRONG_MEMORY, /* not the sender's fault */
};

struct schema_complaint {
        enum schema_wrong wrong;
        char param[80];     /* "size", "limits.bytes", "unlimited[2]" */
        char sentence[256]; /* names the parameter */
        bool has_range;     /* the value must be from min to max */
        uint64_t min, max;
};

/* object (NULL: an empty one) into the struct at ret, which is overwritten, also on failure. Strings point into
 * object, lists into memory; the caller keeps both as long as the struct. loose: numbers were parsed as reals,
 * because one of them is beyond every integer; whole reals then count as integers. 0, or -EINVAL or -ENOMEM with the
 * complaint filled in. */
int schema_decode(const struct schema_struct *structure, const struct json_t *object, bool loose,
                  struct schema_memory *memory, void *ret, struct schema_complaint *complaint);

/* The struct as a JSON object. The writer remembers a lack of memory. */
void schema_encode(const struct schema_struct *structure, const void *object, struct json_writer *writer);

/* A method's result. NULL is {}; with n_fds, "fds" is added. */
void schema_encode_result(const struct schema_method *method, const void *result, size_t n_fds,
                          struct json_writer *writer);

/* Is this JSON value what the method may answer with? 0, or -EINVAL and a sentence in text. For tests. */
int schema_check_result(const struct schema_method *method, const struct json_t *result, char *text, size_t text_size);

#endif
