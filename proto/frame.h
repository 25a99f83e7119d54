/* Framing: one JSON text per line. Bytes come in pieces of any size; whole texts come out. Every byte is looked at
 * once, and copied only if its line was not complete in the piece that it came with. A reader between two lines holds
 * no memory.
 *
 * A line beyond the limit is reported once, as soon as that is known, and skipped to its LF; then all goes on. Where
 * resets are enabled (guest channels), the byte 0xFF, which no JSON text has, forgets the line begun before it. */
#ifndef DMAB_PROTO_FRAME_H
#define DMAB_PROTO_FRAME_H

#include <stdbool.h>
#include <stddef.h>

enum frame_event {
        FRAME_MORE,      /* the piece is used up */
        FRAME_TEXT,      /* a whole line */
        FRAME_OVERSIZE,  /* a line beyond the limit begins to be skipped */
        FRAME_NO_MEMORY, /* likewise, because there was no memory to keep its beginning */
        FRAME_RESET,     /* one or more 0xFF in a row of pieces; nothing before them counts */
};

/* Embedded; for frame.c alone. */
struct frame_reader {
        char *buffer;
        size_t size, used;
        size_t limit;
        bool resets, skipping;
};

/* limit: the longest text, in bytes without its LF; at least 1. */
void frame_reader_init(struct frame_reader *reader, size_t limit, bool resets);
void frame_reader_deinit(struct frame_reader *reader);
void frame_reader_set_limit(struct frame_reader *reader, size_t limit);
/* Whether a line was begun, or is being skipped: a peer that goes now leaves half a message behind. */
bool frame_reader_pending(const struct frame_reader *reader);

/* Call until it returns FRAME_MORE: *piece and *piece_size then have been used up. With FRAME_TEXT, *ret_text
 * (without its LF, not ended by NUL) lies in the piece or in the reader, and is good until the next call. */
enum frame_event frame_reader_next(struct frame_reader *reader, const char **piece, size_t *piece_size,
                                   const char **ret_text, size_t *ret_length);

#endif
