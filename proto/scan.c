#include "proto/scan.h"

#include <stdlib.h>
#include <string.h>

struct cursor {
        const char *at, *end, *text;
        size_t depth, level; /* level: the depth of a request's members */
};

static void skip_space(struct cursor *cursor) {
        while (cursor->at < cursor->end && (*cursor->at == ' ' || *cursor->at == '\t' ||
                                            *cursor->at == '\r' || *cursor->at == '\n'))
                cursor->at++;
}

/* From one quote to behind the other. */
static void skip_string(struct cursor *cursor) {
        cursor->at++;
        while (cursor->at < cursor->end && *cursor->at != '"')
                cursor->at += *cursor->at == '\\' ? 2 : 1;
        cursor->at = cursor->at < cursor->end ? cursor->at + 1 : cursor->end;
}

static bool is_delimiter(char c) {
        return c == ',' || c == '}' || c == ']' || c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Behind the colon of a request's "id". */
static void take_id(struct cursor *cursor, struct scan_span *id) {
        const char *start;

        skip_space(cursor);
        start = cursor->at;
        if (start == cursor->end || *start == '{' || *start == '[')
                return;
        if (*start == '"')
                skip_string(cursor);
        else
                while (cursor->at < cursor->end && !is_delimiter(*cursor->at))
                        cursor->at++;
        id->start = (size_t)(start - cursor->text);
        id->length = (size_t)(cursor->at - start);
}

/* A letter is itself or its escape, which for these two has no letters that could be of either case. */
static bool is_id_key(const char *text, size_t length) {
        static const char *const spellings[] = { "\"id\"", "\"\\u0069d\"", "\"i\\u0064\"", "\"\\u0069\\u0064\"" };

        for (size_t i = 0; i < sizeof(spellings) / sizeof(*spellings); i++)
                if (strlen(spellings[i]) == length && !memcmp(spellings[i], text, length))
                        return true;
        return false;
}

static void take_string(struct cursor *cursor, struct scan_span *id) {
        const char *start = cursor->at;
        bool is_id;

        skip_string(cursor);
        is_id = cursor->depth == cursor->level && is_id_key(start, (size_t)(cursor->at - start));
        if (!is_id)
                return;
        skip_space(cursor);
        if (cursor->at < cursor->end && *cursor->at == ':') {
                cursor->at++;
                take_id(cursor, id);
        }
}

/* A new element of the outermost array, or the first. */
static enum scan_verdict add_element(struct scan *scan, size_t elements) {
        size_t size = scan->size ? scan->size * 2 : 16;
        struct scan_span *ids;

        if (scan->n_elements == elements && scan->batch)
                return SCAN_TOO_MANY;
        if (scan->n_elements == scan->size) {
                ids = realloc(scan->ids, size * sizeof(*ids));
                if (!ids)
                        return SCAN_NO_MEMORY;
                scan->ids = ids;
                scan->size = size;
        }
        scan->ids[scan->n_elements++] = (struct scan_span){ 0, 0 };
        return SCAN_FINE;
}

static enum scan_verdict begin(struct scan *scan, struct cursor *cursor, size_t elements) {
        scan->n_elements = 0;
        skip_space(cursor);
        scan->batch = cursor->at < cursor->end && *cursor->at == '[';
        cursor->level = scan->batch ? 2 : 1;
        if (scan->batch) {
                cursor->at++;
                cursor->depth = 1;
                skip_space(cursor);
                if (cursor->at < cursor->end && *cursor->at == ']')
                        return SCAN_FINE;
        }
        return add_element(scan, elements);
}

enum scan_verdict scan_text(struct scan *scan, const char *text, size_t length, size_t nesting, size_t elements) {
        struct cursor cursor = { .at = text, .end = text + length, .text = text };
        struct scan_span nowhere = { 0, 0 };
        enum scan_verdict verdict = begin(scan, &cursor, elements);

        if (length && memchr(text, '\0', length))
                return SCAN_NUL;
        while (cursor.at < cursor.end && verdict == SCAN_FINE) {
                switch (*cursor.at) {
                case '"':
                        take_string(&cursor, scan->n_elements ? &scan->ids[scan->n_elements - 1] : &nowhere);
                        continue;
                case '{':
                case '[':
                        if (++cursor.depth > nesting)
                                verdict = SCAN_TOO_DEEP;
                        break;
                case '}':
                case ']':
                        cursor.depth -= cursor.depth > 0;
                        break;
                case ',':
                        if (scan->batch && cursor.depth == 1)
                                verdict = add_element(scan, elements);
                        break;
                default:
                        break;
                }
                cursor.at++;
        }
        return verdict;
}
