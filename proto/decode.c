#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/codec.h"

struct schema_chunk {
        struct schema_chunk *next;
        max_align_t bytes[];
};

struct decoder {
        bool loose;
        struct schema_memory *memory;
        struct schema_complaint *complaint;
};

/* Where the value that is being decoded lies in the parameters. */
struct place {
        const struct place *outer;
        const char *name;
        size_t index; /* of an array's element, where name is NULL */
};

struct list {
        void *items;
        size_t count;
};

void schema_memory_free(struct schema_memory *memory) {
        struct schema_chunk *chunk;

        while ((chunk = memory->chunks)) {
                memory->chunks = chunk->next;
                free(chunk);
        }
}

void *schema_memory_take(struct schema_memory *memory, size_t count, size_t size) {
        struct schema_chunk *chunk;
        size_t bytes;

        if (__builtin_mul_overflow(count, size, &bytes) || __builtin_add_overflow(bytes, sizeof(*chunk), &bytes))
                return NULL;
        chunk = calloc(1, bytes);
        if (!chunk)
                return NULL;
        chunk->next = memory->chunks;
        memory->chunks = chunk;
        return chunk->bytes;
}

static size_t print_place(const struct place *place, char *text, size_t size) {
        size_t n = place->outer ? print_place(place->outer, text, size) : 0;
        int more;

        if (place->name)
                more = snprintf(text + n, size - n, "%s%.64s", n ? "." : "", place->name);
        else
                more = snprintf(text + n, size - n, "[%zu]", place->index);
        n += more > 0 ? (size_t)more : 0;
        return n < size ? n : size - 1;
}

static int complain(struct decoder *decoder, const struct place *place, enum schema_wrong wrong, const char *format,
                    ...) __attribute__((format(printf, 4, 5)));

static int complain(struct decoder *decoder, const struct place *place, enum schema_wrong wrong, const char *format,
                    ...) {
        struct schema_complaint *complaint = decoder->complaint;
        va_list arguments;
        int n;

        complaint->wrong = wrong;
        complaint->has_range = false;
        print_place(place, complaint->param, sizeof(complaint->param));
        n = snprintf(complaint->sentence, sizeof(complaint->sentence), "the parameter %s ", complaint->param);
        va_start(arguments, format);
        vsnprintf(complaint->sentence + n, sizeof(complaint->sentence) - (size_t)n, format, arguments);
        va_end(arguments);
        return wrong == SCHEMA_WRONG_MEMORY ? -ENOMEM : -EINVAL;
}

static const char *json_type_name(const json_t *value) {
        switch (json_typeof(value)) {
        case JSON_OBJECT:
                return "an object";
        case JSON_ARRAY:
                return "an array";
        case JSON_STRING:
                return "a string";
        case JSON_INTEGER:
                return "an integer";
        case JSON_REAL:
                return "a number with a fraction or an exponent";
        case JSON_TRUE:
        case JSON_FALSE:
                return "a boolean";
        default:
                return "null";
        }
}

static int complain_type(struct decoder *decoder, const struct place *place, const char *expected,
                         const json_t *value) {
        return complain(decoder, place, SCHEMA_WRONG_TYPE, "must be %s, not %s", expected, json_type_name(value));
}

static int complain_range(struct decoder *decoder, const struct place *place, uint64_t min, uint64_t max,
                          bool is_signed) {
        if (is_signed)
                complain(decoder, place, SCHEMA_WRONG_VALUE, "must be from %" PRId64 " to %" PRId64, (int64_t)min,
                         (int64_t)max);
        else
                complain(decoder, place, SCHEMA_WRONG_VALUE, "must be from %" PRIu64 " to %" PRIu64, min, max);
        decoder->complaint->has_range = !is_signed;
        decoder->complaint->min = min;
        decoder->complaint->max = max;
        return -EINVAL;
}

/* As a double when the text had an integer that no 64 bits hold; then the exact value does not matter. */
static int read_integer(struct decoder *decoder, const struct schema_field *field, const struct place *place,
                        const json_t *value, int64_t *ret) {
        bool is_signed = field->type == SCHEMA_INT;
        uint64_t type_min = is_signed ? (uint64_t)-(int64_t)SCHEMA_INTEGER_MAX : 0;
        bool narrow = field->min || field->max;
        int64_t min = (int64_t)(narrow ? field->min : type_min);
        int64_t max = (int64_t)(narrow ? field->max : SCHEMA_INTEGER_MAX), integer;
        double real;

        if (json_is_integer(value)) {
                integer = json_integer_value(value);
        } else if (json_is_real(value) && decoder->loose) {
                real = json_real_value(value);
                if (real < (double)min || real > (double)max)
                        return complain_range(decoder, place, (uint64_t)min, (uint64_t)max, is_signed);
                integer = (int64_t)real;
                if ((double)integer != real)
                        return complain_type(decoder, place, "an integer", value);
        } else {
                return complain_type(decoder, place, "an integer", value);
        }
        if (integer < min || integer > max)
                return complain_range(decoder, place, (uint64_t)min, (uint64_t)max, is_signed);
        *ret = integer;
        return 0;
}

static int hex_digit(char c) {
        if (c >= '0' && c <= '9')
                return c - '0';
        c |= 0x20;
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int read_hex(struct decoder *decoder, const struct schema_field *field, const struct place *place,
                    const json_t *value, uint64_t *ret) {
        const char *text = json_string_value(value);
        size_t length = json_string_length(value);
        uint64_t number = 0;
        int digit = -1;

        if (!text)
                return complain_type(decoder, place, "a hex string such as \"0x1f400000\"", value);
        if (length > 2 && length <= 18 && text[0] == '0' && text[1] == 'x') {
                for (size_t i = 2; i < length; i++) {
                        digit = hex_digit(text[i]);
                        if (digit < 0)
                                break;
                        number = number << 4 | (unsigned)digit;
                }
        }
        if (digit < 0)
                return complain(decoder, place, SCHEMA_WRONG_VALUE,
                                "must be a hex string of 1 to 16 digits such as \"0x1f400000\"");
        if ((field->min || field->max) && (number < field->min || number > field->max))
                return complain(decoder, place, SCHEMA_WRONG_VALUE, "must be from 0x%" PRIx64 " to 0x%" PRIx64,
                                field->min, field->max);
        *ret = number;
        return 0;
}

static int read_string(struct decoder *decoder, const struct schema_field *field, const struct place *place,
                       const json_t *value, const char **ret) {
        const char *text = json_string_value(value);
        size_t length = json_string_length(value);

        if (!text)
                return complain_type(decoder, place, "a string", value);
        if (memchr(text, '\0', length))
                return complain(decoder, place, SCHEMA_WRONG_VALUE, "must not contain NUL");
        if ((field->min || field->max) && (length < field->min || length > field->max))
                return complain(decoder, place, SCHEMA_WRONG_VALUE, "must have %" PRIu64 " to %" PRIu64 " bytes",
                                field->min, field->max);
        *ret = text;
        return 0;
}

static int read_enum(struct decoder *decoder, const struct schema_field *field, const struct place *place,
                     const json_t *value, int *ret) {
        const char *text = json_string_value(value);
        size_t length = json_string_length(value), n = 0;
        char words[160] = "";

        if (!text)
                return complain_type(decoder, place, "a string", value);
        for (int i = 0; field->names[i]; i++) {
                if (strlen(field->names[i]) == length && !memcmp(field->names[i], text, length)) {
                        *ret = i;
                        return 0;
                }
                if (n < sizeof(words))
                        n += (size_t)snprintf(words + n, sizeof(words) - n, "%s%s", i ? ", " : "", field->names[i]);
        }
        return complain(decoder, place, SCHEMA_WRONG_VALUE, "must be one of %s", words);
}

static int read_raw(struct decoder *decoder, const struct place *place, const json_t *value, struct schema_raw *ret) {
        size_t length = json_dumpb(value, NULL, 0, JSON_ENCODE_ANY | JSON_COMPACT);
        char *text = length ? schema_memory_take(decoder->memory, length, 1) : NULL;

        if (!text || json_dumpb(value, text, length, JSON_ENCODE_ANY | JSON_COMPACT) != length)
                return complain(decoder, place, SCHEMA_WRONG_MEMORY, "did not fit into memory");
        *ret = (struct schema_raw){ .text = text, .length = length };
        return 0;
}

static int decode_struct(struct decoder *decoder, const struct schema_struct *structure, const struct place *outer,
                         const json_t *object, char *ret);

/* Members are written with memcpy, because the tables know their types only at run time. */
static int decode_value(struct decoder *decoder, const struct schema_field *field, const struct place *place,
                        const json_t *value, char *at) {
        struct schema_raw raw = { 0 };
        const char *text = NULL;
        uint64_t number = 0;
        int64_t integer = 0;
        double real;
        bool flag;
        int word = 0, r = 0;

#define STORE(variable) memcpy(at, &(variable), sizeof(variable))
        switch (field->type) {
        case SCHEMA_BOOL:
                if (!json_is_boolean(value))
                        return complain_type(decoder, place, "a boolean", value);
                flag = json_is_true(value);
                STORE(flag);
                break;
        case SCHEMA_UINT:
        case SCHEMA_INT:
                r = read_integer(decoder, field, place, value, &integer);
                STORE(integer);
                break;
        case SCHEMA_NUMBER:
                if (!json_is_number(value))
                        return complain_type(decoder, place, "a number", value);
                real = json_number_value(value);
                STORE(real);
                break;
        case SCHEMA_HEX:
                r = read_hex(decoder, field, place, value, &number);
                STORE(number);
                break;
        case SCHEMA_STRING:
                r = read_string(decoder, field, place, value, &text);
                STORE(text);
                break;
        case SCHEMA_ENUM:
                r = read_enum(decoder, field, place, value, &word);
                STORE(word);
                break;
        case SCHEMA_OBJECT:
                r = decode_struct(decoder, field->sub, place, value, at);
                break;
        case SCHEMA_RAW:
                r = read_raw(decoder, place, value, &raw);
                STORE(raw);
                break;
        }
#undef STORE
        return r;
}

static int decode_list(struct decoder *decoder, const struct schema_field *field, const struct place *place,
                       const json_t *value, char *at) {
        struct list list = { .items = NULL };
        size_t size = schema_item_size(field);
        int r = 0;

        if (!json_is_array(value))
                return complain_type(decoder, place, "an array", value);
        list.count = json_array_size(value);
        if (field->max_items && list.count > field->max_items)
                return complain(decoder, place, SCHEMA_WRONG_VALUE, "must have at most %" PRIu64 " elements",
                                field->max_items);
        if (list.count) {
                list.items = schema_memory_take(decoder->memory, list.count, size);
                if (!list.items)
                        return complain(decoder, place, SCHEMA_WRONG_MEMORY, "did not fit into memory");
        }
        for (size_t i = 0; i < list.count && !r; i++) {
                struct place inner = { .outer = place, .index = i };

                r = decode_value(decoder, field, &inner, json_array_get(value, i), (char *)list.items + i * size);
        }
        memcpy(at, &list, sizeof(list));
        return r;
}

static const struct schema_field *find_field(const struct schema_struct *structure, const char *name) {
        for (size_t i = 0; i < structure->n_fields; i++)
                if (structure->fields[i].name[0] == name[0] && !strcmp(structure->fields[i].name, name))
                        return &structure->fields[i];
        return NULL;
}

static int decode_members(struct decoder *decoder, const struct schema_struct *structure, const struct place *outer,
                          const json_t *object, char *ret, uint64_t *present) {
        const char *name;
        json_t *value;
        int r;

        json_object_foreach((json_t *)object, name, value) {
                struct place place = { .outer = outer, .name = name };
                const struct schema_field *field = find_field(structure, name);

                if (!field)
                        return complain(decoder, &place, SCHEMA_WRONG_UNKNOWN, "is unknown");
                if (field->nullable && json_is_null(value))
                        continue;
                if (field->array)
                        r = decode_list(decoder, field, &place, value, ret + field->offset);
                else
                        r = decode_value(decoder, field, &place, value, ret + field->offset);
                if (r)
                        return r;
                *present |= UINT64_C(1) << (field->offset / 8);
        }
        return 0;
}

static int decode_struct(struct decoder *decoder, const struct schema_struct *structure, const struct place *outer,
                         const json_t *object, char *ret) {
        uint64_t present = 0;
        int r;

        if (object && !json_is_object(object))
                return complain_type(decoder, outer, "an object", object);
        r = decode_members(decoder, structure, outer, object, ret, &present);
        if (r)
                return r;
        for (size_t i = 0; i < structure->n_fields; i++) {
                const struct schema_field *field = &structure->fields[i];
                struct place place = { .outer = outer, .name = field->name };

                if (field->required && !(present >> (field->offset / 8) & 1))
                        return complain(decoder, &place, SCHEMA_WRONG_MISSING, "is missing");
        }
        memcpy(ret, &present, sizeof(present));
        return 0;
}

int schema_decode(const struct schema_struct *structure, const json_t *object, bool loose,
                  struct schema_memory *memory, void *ret, struct schema_complaint *complaint) {
        struct decoder decoder = { .loose = loose, .memory = memory, .complaint = complaint };

        memset(ret, 0, structure->size);
        return decode_struct(&decoder, structure, NULL, object, ret);
}

int schema_check_result(const struct schema_method *method, const json_t *result, char *text, size_t text_size) {
        struct schema_complaint complaint = { .sentence = "out of memory" };
        struct schema_memory memory = { .chunks = NULL };
        const json_t *fds = json_object_get(result, "fds");
        json_t *copy;
        void *decoded;
        int r = -EINVAL;

        if (!method->results)
                return 0;
        if (!json_is_object(result) || (fds && !(json_integer_value(fds) >= 1 &&
                                                 json_integer_value(fds) <= (json_int_t)method->fds_max))) {
                snprintf(text, text_size, "the result is no object, or its fds are too many for %s", method->name);
                return -EINVAL;
        }
        copy = json_copy((json_t *)result);
        decoded = calloc(1, method->results->size);
        if (copy && decoded) {
                json_object_del(copy, "fds");
                r = schema_decode(method->results, copy, false, &memory, decoded, &complaint);
        }
        if (r)
                snprintf(text, text_size, "%s", complaint.sentence);
        schema_memory_free(&memory);
        free(decoded);
        json_decref(copy);
        return r;
}
