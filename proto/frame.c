#include "proto/frame.h"

#include <stdlib.h>
#include <string.h>

#define RESET_BYTE 0xFF

enum { FIRST_SIZE = 512 };

void frame_reader_init(struct frame_reader *reader, size_t limit, bool resets) {
        *reader = (struct frame_reader){ .limit = limit, .resets = resets };
}

static void forget(struct frame_reader *reader) {
        free(reader->buffer);
        reader->buffer = NULL;
        reader->size = reader->used = 0;
}

void frame_reader_deinit(struct frame_reader *reader) {
        forget(reader);
        reader->skipping = false;
}

void frame_reader_set_limit(struct frame_reader *reader, size_t limit) {
        reader->limit = limit;
}

bool frame_reader_pending(const struct frame_reader *reader) {
        return reader->used > 0 || reader->skipping;
}

/* Doubling keeps the copying linear; the limit bounds it. */
static bool keep(struct frame_reader *reader, const char *bytes, size_t n) {
        size_t needed = reader->used + n, size = reader->size ? reader->size : FIRST_SIZE;
        char *buffer;

        while (size < needed)
                size *= 2;
        if (size != reader->size) {
                buffer = realloc(reader->buffer, size);
                if (!buffer)
                        return false;
                reader->buffer = buffer;
                reader->size = size;
        }
        memcpy(reader->buffer + reader->used, bytes, n);
        reader->used += n;
        return true;
}

static enum frame_event skip_rest(struct frame_reader *reader, bool at_end, enum frame_event event) {
        forget(reader);
        reader->skipping = !at_end;
        return event;
}

/* One line's part in the piece: n bytes, followed by LF if at_end. */
static enum frame_event take(struct frame_reader *reader, const char *bytes, size_t n, bool at_end,
                             const char **ret_text, size_t *ret_length) {
        if (reader->skipping) {
                reader->skipping = !at_end;
                return FRAME_MORE;
        }
        if (n > reader->limit || reader->used > reader->limit - n)
                return skip_rest(reader, at_end, FRAME_OVERSIZE);
        if (at_end && !reader->used) {
                *ret_text = bytes;
                *ret_length = n;
                return FRAME_TEXT;
        }
        if (n && !keep(reader, bytes, n))
                return skip_rest(reader, at_end, FRAME_NO_MEMORY);
        if (!at_end)
                return FRAME_MORE;
        *ret_text = reader->buffer;
        *ret_length = reader->used;
        reader->used = 0;
        return FRAME_TEXT;
}

enum frame_event frame_reader_next(struct frame_reader *reader, const char **piece, size_t *piece_size,
                                   const char **ret_text, size_t *ret_length) {
        enum frame_event event = FRAME_MORE;

        if (!reader->used)
                forget(reader);
        while (*piece_size && event == FRAME_MORE) {
                const char *line = *piece, *end = memchr(line, '\n', *piece_size), *reset = NULL;
                size_t n = end ? (size_t)(end - line) : *piece_size;

                if (reader->resets)
                        reset = memrchr(line, RESET_BYTE, n);
                if (reset) {
                        forget(reader);
                        reader->skipping = false;
                        *piece_size -= (size_t)(reset + 1 - line);
                        *piece = reset + 1;
                        return FRAME_RESET;
                }
                *piece += n + !!end;
                *piece_size -= n + !!end;
                event = take(reader, line, n, !!end, ret_text, ret_length);
        }
        return event;
}
