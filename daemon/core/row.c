#include "daemon/core/row.h"

#include <stdlib.h>
#include <string.h>

enum { NUMBER_BYTES_MAX = 10 };

/* ---- writing ---- */

void row_begin(struct row_writer *writer) {
        writer->size = 0;
        writer->failed = false;
}

void row_deinit(struct row_writer *writer) {
        free(writer->bytes);
        *writer = (struct row_writer){};
}

static bool reserve(struct row_writer *writer, size_t more) {
        size_t capacity = writer->capacity ? writer->capacity : 256;
        unsigned char *bytes;

        if (writer->failed)
                return false;
        while (capacity - writer->size < more)
                capacity *= 2;
        if (capacity == writer->capacity)
                return true;
        bytes = realloc(writer->bytes, capacity);
        if (!bytes) {
                writer->failed = true;
                return false;
        }
        writer->bytes = bytes;
        writer->capacity = capacity;
        return true;
}

void row_number(struct row_writer *writer, uint64_t number) {
        if (!reserve(writer, NUMBER_BYTES_MAX))
                return;
        for (; number > 0x7f; number >>= 7)
                writer->bytes[writer->size++] = (unsigned char)(number | 0x80);
        writer->bytes[writer->size++] = (unsigned char)number;
}

void row_text(struct row_writer *writer, const char *text) {
        size_t length = text ? strlen(text) : 0;

        row_number(writer, text ? length + 1 : 0);
        if (!length || !reserve(writer, length))
                return;
        memcpy(writer->bytes + writer->size, text, length);
        writer->size += length;
}

/* ---- reading ---- */

void row_reader_init(struct row_reader *reader, const void *bytes, size_t size) {
        *reader = (struct row_reader){ .at = bytes, .end = (const unsigned char *)bytes + size };
}

void row_reader_deinit(struct row_reader *reader) {
        free(reader->text);
        *reader = (struct row_reader){};
}

uint64_t row_read_number(struct row_reader *reader) {
        uint64_t number = 0;
        unsigned shift;

        for (shift = 0; shift < 64 && reader->at < reader->end; shift += 7) {
                number |= (uint64_t)(*reader->at & 0x7f) << shift;
                if (!(*reader->at++ & 0x80))
                        return number;
        }
        /* A field that is not there; but not half of one. */
        reader->failed |= shift > 0;
        return 0;
}

const char *row_read_text(struct row_reader *reader) {
        uint64_t length = row_read_number(reader);
        char *text;

        if (!length || reader->failed)
                return NULL;
        length--;
        if (length > (size_t)(reader->end - reader->at)) {
                reader->failed = true;
                return NULL;
        }
        if (length >= reader->text_size) {
                text = realloc(reader->text, length + 1);
                if (!text) {
                        reader->no_memory = true;
                        return NULL;
                }
                reader->text = text;
                reader->text_size = length + 1;
        }
        memcpy(reader->text, reader->at, length);
        reader->text[length] = '\0';
        reader->at += length;
        return reader->text;
}
