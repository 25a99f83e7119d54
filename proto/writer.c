#include "proto/writer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { FIRST_SIZE = 512 };

void json_writer_deinit(struct json_writer *writer) {
        free(writer->text);
        *writer = (struct json_writer){ .text = NULL };
}

void json_writer_clear(struct json_writer *writer, size_t keep) {
        if (writer->size > keep) {
                json_writer_deinit(writer);
                return;
        }
        writer->length = 0;
        writer->failed = false;
}

bool json_writer_grow(struct json_writer *writer, size_t n) {
        size_t size = writer->size ? writer->size : FIRST_SIZE;
        char *text;

        if (writer->failed)
                return false;
        while (size - writer->length < n) {
                if (__builtin_mul_overflow(size, 2, &size)) {
                        writer->failed = true;
                        return false;
                }
        }
        text = realloc(writer->text, size);
        if (!text) {
                writer->failed = true;
                return false;
        }
        writer->text = text;
        writer->size = size;
        return true;
}

void json_write_unsigned(struct json_writer *writer, uint64_t value) {
        char digits[20];
        size_t at = sizeof(digits);

        do {
                digits[--at] = (char)('0' + value % 10);
                value /= 10;
        } while (value);
        json_write_bytes(writer, digits + at, sizeof(digits) - at);
}

void json_write_signed(struct json_writer *writer, int64_t value) {
        if (value < 0)
                json_write_literal(writer, "-");
        json_write_unsigned(writer, value < 0 ? -(uint64_t)value : (uint64_t)value);
}

void json_write_number(struct json_writer *writer, double value) {
        char digits[352];
        int n;

        /* printf follows the locale, which is nobody's concern here: whole and broken part are written as integers. */
        if (!isfinite(value))
                value = 0;
        if (fabs(value) < 9e15) {
                uint64_t thousandths = (uint64_t)(fabs(value) * 1000 + 0.5);

                if (value < 0 && thousandths)
                        json_write_literal(writer, "-");
                json_write_unsigned(writer, thousandths / 1000);
                thousandths %= 1000;
                if (thousandths) {
                        n = snprintf(digits, sizeof(digits), ".%03u", (unsigned)thousandths);
                        while (digits[n - 1] == '0')
                                n--;
                        json_write_bytes(writer, digits, (size_t)n);
                }
                return;
        }
        n = snprintf(digits, sizeof(digits), "%.0f", value);
        json_write_bytes(writer, digits, (size_t)n);
}

void json_write_hex(struct json_writer *writer, uint64_t value) {
        char digits[20];
        size_t at = sizeof(digits);

        digits[--at] = '"';
        do {
                digits[--at] = "0123456789abcdef"[value % 16];
                value /= 16;
        } while (value);
        digits[--at] = 'x';
        digits[--at] = '0';
        digits[--at] = '"';
        json_write_bytes(writer, digits + at, sizeof(digits) - at);
}

/* The length of the well-formed UTF-8 sequence at text, or 0. Neither surrogates nor overlong forms are well-formed. */
static size_t sequence_length(const unsigned char *text, size_t left) {
        unsigned char first = text[0], low = 0x80, high = 0xBF;
        size_t n = first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;

        if (!n || n > left)
                return 0;
        if (first == 0xE0)
                low = 0xA0;
        else if (first == 0xED)
                high = 0x9F;
        else if (first == 0xF0)
                low = 0x90;
        else if (first == 0xF4)
                high = 0x8F;
        for (size_t i = 1; i < n; i++, low = 0x80, high = 0xBF)
                if (text[i] < low || text[i] > high)
                        return 0;
        return n;
}

static void write_escape(struct json_writer *writer, unsigned char byte) {
        static const char shorts[][2] = { { '"', '"' },  { '\\', '\\' }, { '\n', 'n' }, { '\t', 't' },
                                          { '\r', 'r' }, { '\b', 'b' },  { '\f', 'f' } };
        char escape[6] = { '\\', 'u', '0', '0', "0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15] };

        for (size_t i = 0; i < sizeof(shorts) / sizeof(*shorts); i++) {
                if ((unsigned char)shorts[i][0] == byte) {
                        escape[1] = shorts[i][1];
                        json_write_bytes(writer, escape, 2);
                        return;
                }
        }
        json_write_bytes(writer, escape, sizeof(escape));
}

static bool is_plain(unsigned char byte) {
        return byte >= 0x20 && byte < 0x7F && byte != '"' && byte != '\\';
}

void json_write_string(struct json_writer *writer, const char *text, size_t length) {
        const unsigned char *bytes = (const unsigned char *)text;
        size_t at = 0, plain, n;

        json_write_literal(writer, "\"");
        while (at < length) {
                for (plain = at; plain < length && is_plain(bytes[plain]); plain++)
                        ;
                json_write_bytes(writer, text + at, plain - at);
                at = plain;
                if (at == length)
                        break;
                n = sequence_length(bytes + at, length - at);
                if (n > 1)
                        json_write_bytes(writer, text + at, n);
                else if (n)
                        write_escape(writer, bytes[at]);
                else
                        json_write_literal(writer, "\xEF\xBF\xBD");
                at += n ? n : 1;
        }
        json_write_literal(writer, "\"");
}

void json_write_text(struct json_writer *writer, const char *text) {
        json_write_string(writer, text, text ? strlen(text) : 0);
}
