/* Rows: objects of the core as bytes, the way the ledger keeps them. A row is a list of fields without names: numbers of 7
 * bits a byte, the low ones first, and texts as their length and their bytes. Fields may only be added at the end: what an
 * older daemon wrote lacks them, and they are read as 0 and NULL then. Whatever means something else than before needs
 * another LEDGER_VERSION. */
#ifndef DMAB_CORE_ROW_H
#define DMAB_CORE_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All zero is an empty one. */
struct row_writer {
        unsigned char *bytes; /* malloc'd */
        size_t size, capacity;
        bool failed; /* there was no memory for it */
};

/* Begin another row in the same memory. */
void row_begin(struct row_writer *writer);
void row_number(struct row_writer *writer, uint64_t number);
/* NULL is told apart from "". */
void row_text(struct row_writer *writer, const char *text);
void row_deinit(struct row_writer *writer);

struct row_reader {
        const unsigned char *at, *end;
        bool failed; /* it is no row */
        bool no_memory; /* there was none for a text */
        char *text;  /* malloc'd */
        size_t text_size;
};

void row_reader_init(struct row_reader *reader, const void *bytes, size_t size);
uint64_t row_read_number(struct row_reader *reader);
/* Lives until the next text is read; or NULL. */
const char *row_read_text(struct row_reader *reader);
void row_reader_deinit(struct row_reader *reader);

#endif
