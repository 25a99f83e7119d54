#include "proto/quick.h"

#include <string.h>

/* An id that is longer is nobody's habit. */
#define ID_MAX 64
/* So many digits cannot overflow, and are exact everywhere. */
#define DIGITS_MAX 15

struct reader {
        const char *at, *end;
};

static void skip_space(struct reader *reader) {
        while (reader->at < reader->end && (*reader->at == ' ' || *reader->at == '\t' || *reader->at == '\r'))
                reader->at++;
}

static bool take(struct reader *reader, char c) {
        skip_space(reader);
        if (reader->at == reader->end || *reader->at != c)
                return false;
        reader->at++;
        return true;
}

/* The opening quote has been taken. */
static bool take_string(struct reader *reader, struct quick_span *ret) {
        const char *start = reader->at;

        while (reader->at < reader->end && *reader->at >= ' ' && *reader->at <= '~' && *reader->at != '"' &&
               *reader->at != '\\')
                reader->at++;
        if (reader->at == reader->end || *reader->at != '"')
                return false;
        *ret = (struct quick_span){ start, (size_t)(reader->at - start) };
        reader->at++;
        return true;
}

static bool take_integer(struct reader *reader, struct quick_value *ret) {
        const char *start = reader->at;
        size_t digits;

        ret->integer = 0;
        while (reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9' &&
               reader->at - start <= DIGITS_MAX)
                ret->integer = ret->integer * 10 + (uint64_t)(*reader->at++ - '0');
        digits = (size_t)(reader->at - start);
        if (!digits || digits > DIGITS_MAX || (digits > 1 && *start == '0'))
                return false;
        ret->kind = QUICK_INTEGER;
        ret->text = (struct quick_span){ start, digits };
        /* Not a fraction, an exponent or anything else that goes on. */
        return reader->at < reader->end && strchr(",} \t\r", *reader->at) && *reader->at;
}

static bool take_word(struct reader *reader, const char *word) {
        size_t length = strlen(word);

        if ((size_t)(reader->end - reader->at) < length || memcmp(reader->at, word, length))
                return false;
        reader->at += length;
        return true;
}

static bool take_value(struct reader *reader, struct quick_value *ret) {
        skip_space(reader);
        if (reader->at == reader->end)
                return false;
        switch (*reader->at) {
        case '"':
                reader->at++;
                ret->kind = QUICK_STRING;
                return take_string(reader, &ret->text);
        case 't':
                ret->kind = QUICK_TRUE;
                return take_word(reader, "true");
        case 'f':
                ret->kind = QUICK_FALSE;
                return take_word(reader, "false");
        default:
                return take_integer(reader, ret);
        }
}

static bool take_name(struct reader *reader, struct quick_span *ret) {
        return take(reader, '"') && take_string(reader, ret) && take(reader, ':');
}

static bool take_params(struct reader *reader, struct quick *quick) {
        if (!take(reader, '{'))
                return false;
        if (take(reader, '}'))
                return true;
        do {
                struct quick_value *value = &quick->params[quick->n_params];

                if (quick->n_params == QUICK_PARAMS_MAX || !take_name(reader, &value->name) || !take_value(reader, value))
                        return false;
                quick->n_params++;
        } while (take(reader, ','));
        return take(reader, '}');
}

static bool take_id(struct reader *reader, struct quick_span *ret) {
        struct quick_value value;

        if (!take_value(reader, &value) || (value.kind != QUICK_STRING && value.kind != QUICK_INTEGER) ||
            value.text.length > ID_MAX)
                return false;
        *ret = value.text;
        if (value.kind == QUICK_STRING) {
                ret->at--; /* with its quotes */
                ret->length += 2;
        }
        return true;
}

static bool is(const struct quick_span *span, const char *word) {
        return span->length == strlen(word) && !memcmp(span->at, word, span->length);
}

enum { SEEN_VERSION = 1 << 0, SEEN_METHOD = 1 << 1, SEEN_ID = 1 << 2, SEEN_PARAMS = 1 << 3 };

static bool take_member(struct reader *reader, struct quick *quick, unsigned *seen) {
        struct quick_span name, version;
        unsigned member;
        bool fine;

        if (!take_name(reader, &name))
                return false;
        if (is(&name, "jsonrpc")) {
                member = SEEN_VERSION;
                fine = take(reader, '"') && take_string(reader, &version) && is(&version, "2.0");
        } else if (is(&name, "method")) {
                member = SEEN_METHOD;
                fine = take(reader, '"') && take_string(reader, &quick->method);
        } else if (is(&name, "id")) {
                member = SEEN_ID;
                fine = take_id(reader, &quick->id);
        } else if (is(&name, "params")) {
                member = SEEN_PARAMS;
                fine = take_params(reader, quick);
        } else {
                return false;
        }
        if (*seen & member)
                return false;
        *seen |= member;
        return fine;
}

bool quick_read(const char *text, size_t length, struct quick *ret) {
        struct reader reader = { .at = text, .end = text + length };
        unsigned seen = 0;

        ret->id.length = 0;
        ret->n_params = 0;
        if (!take(&reader, '{'))
                return false;
        do
                if (!take_member(&reader, ret, &seen))
                        return false;
        while (take(&reader, ','));
        if (!take(&reader, '}'))
                return false;
        skip_space(&reader);
        return reader.at == reader.end && (seen & SEEN_VERSION) && (seen & SEEN_METHOD);
}

/* ---- decoding ---- */

static const struct schema_field *find_field(const struct schema_struct *structure, const struct quick_span *name) {
        for (size_t i = 0; i < structure->n_fields; i++)
                if (is(name, structure->fields[i].name))
                        return &structure->fields[i];
        return NULL;
}

static bool read_hex(const struct quick_span *text, uint64_t *ret) {
        uint64_t number = 0;

        if (text->length < 3 || text->length > 18 || text->at[0] != '0' || text->at[1] != 'x')
                return false;
        for (size_t i = 2; i < text->length; i++) {
                char c = text->at[i];

                if (c >= '0' && c <= '9')
                        number = number << 4 | (unsigned)(c - '0');
                else if (c >= 'a' && c <= 'f')
                        number = number << 4 | (unsigned)(c - 'a' + 10);
                else
                        return false;
        }
        *ret = number;
        return true;
}

static bool read_enum(const struct schema_field *field, const struct quick_span *text, int *ret) {
        for (int i = 0; field->names[i]; i++) {
                if (!is(text, field->names[i]))
                        continue;
                *ret = i;
                return true;
        }
        return false;
}

static bool in_range(const struct schema_field *field, uint64_t value) {
        return !(field->min || field->max) || (value >= field->min && value <= field->max);
}

static bool decode_value(const struct schema_field *field, const struct quick_value *value, struct schema_memory *memory,
                         char *at) {
        bool flag = value->kind == QUICK_TRUE;
        uint64_t number = value->integer;
        char *text;
        int word;

        switch (field->type) {
        case SCHEMA_BOOL:
                memcpy(at, &flag, sizeof(flag));
                return value->kind == QUICK_TRUE || value->kind == QUICK_FALSE;
        case SCHEMA_UINT:
                memcpy(at, &number, sizeof(number));
                return value->kind == QUICK_INTEGER && in_range(field, number);
        case SCHEMA_HEX:
                if (value->kind != QUICK_STRING || !read_hex(&value->text, &number) || !in_range(field, number))
                        return false;
                memcpy(at, &number, sizeof(number));
                return true;
        case SCHEMA_STRING:
                if (value->kind != QUICK_STRING || !in_range(field, value->text.length))
                        return false;
                text = schema_memory_take(memory, value->text.length + 1, 1);
                if (!text)
                        return false;
                memcpy(text, value->text.at, value->text.length);
                memcpy(at, &text, sizeof(text));
                return true;
        case SCHEMA_ENUM:
                if (value->kind != QUICK_STRING || !read_enum(field, &value->text, &word))
                        return false;
                memcpy(at, &word, sizeof(word));
                return true;
        default:
                return false;
        }
}

bool quick_decode(const struct schema_struct *structure, const struct quick *quick, struct schema_memory *memory,
                  void *ret) {
        uint64_t present = 0, bit;

        if (!structure)
                return !quick->n_params;
        memset(ret, 0, structure->size);
        for (size_t i = 0; i < quick->n_params; i++) {
                const struct schema_field *field = find_field(structure, &quick->params[i].name);

                if (!field || field->array)
                        return false;
                bit = UINT64_C(1) << (field->offset / 8);
                if ((present & bit) || !decode_value(field, &quick->params[i], memory, (char *)ret + field->offset))
                        return false;
                present |= bit;
        }
        for (size_t i = 0; i < structure->n_fields; i++)
                if (structure->fields[i].required && !(present >> (structure->fields[i].offset / 8) & 1))
                        return false;
        memcpy(ret, &present, sizeof(present));
        return true;
}
