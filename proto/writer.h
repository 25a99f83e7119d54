/* Writing JSON into a buffer that grows. Nothing is checked but memory: when there is none, the writer remembers it,
 * and writes nothing more. */
#ifndef DMAB_PROTO_WRITER_H
#define DMAB_PROTO_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct json_writer {
        char *text; /* not ended by NUL */
        size_t length, size;
        bool failed; /* for lack of memory */
};

/* A zeroed struct is an empty writer. */
void json_writer_deinit(struct json_writer *writer);
/* Forget the text; give memory above keep bytes back. */
void json_writer_clear(struct json_writer *writer, size_t keep);
/* Room for n more bytes, or false. */
bool json_writer_grow(struct json_writer *writer, size_t n);

static inline bool json_writer_reserve(struct json_writer *writer, size_t n) {
        return writer->size - writer->length >= n || json_writer_grow(writer, n);
}

static inline void json_write_bytes(struct json_writer *writer, const char *bytes, size_t n) {
        if (n && json_writer_reserve(writer, n)) {
                memcpy(writer->text + writer->length, bytes, n);
                writer->length += n;
        }
}

/* What the compiler can measure. */
#define json_write_literal(writer, literal) json_write_bytes(writer, "" literal, sizeof(literal) - 1)

void json_write_unsigned(struct json_writer *writer, uint64_t value);
void json_write_signed(struct json_writer *writer, int64_t value);
/* At most three digits behind the point; what is no number is 0. */
void json_write_number(struct json_writer *writer, double value);
/* "0x1f400000" */
void json_write_hex(struct json_writer *writer, uint64_t value);
/* Quoted and escaped. What is not UTF-8 becomes U+FFFD. NULL is "". */
void json_write_string(struct json_writer *writer, const char *text, size_t length);
void json_write_text(struct json_writer *writer, const char *text);

#endif
