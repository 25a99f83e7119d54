/* How results look: members of JSON objects as text, lists as tables. For a terminal, sizes are rounded, and names are
 * cut where a table would not fit; for a pipe, every number is exact, columns are separated by one blank, blanks within
 * a cell are written \x20, and nothing is empty: what is not there is "-". */
#ifndef DMAB_CTL_SHOW_H
#define DMAB_CTL_SHOW_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SHOW_SIZE = 64 }; /* room for any number */

bool show_terminal(void);

/* A member as text: strings as they are, numbers in digits, "yes" and "no", "-" when it is not there. The text lives as
 * long as the object, or in buffer. */
const char *show_member(json_t *object, const char *name, char buffer[SHOW_SIZE]);
/* Members that are bytes, milliseconds, microseconds. */
const char *show_bytes(uint64_t bytes, char buffer[SHOW_SIZE]);
const char *show_member_bytes(json_t *object, const char *name, char buffer[SHOW_SIZE]);
const char *show_member_ms(json_t *object, const char *name, char buffer[SHOW_SIZE]);
uint64_t show_uint(json_t *object, const char *name);
/* A member that is an address, "0x…"; false when it is not there. */
bool show_address(json_t *object, const char *name, uint64_t *ret);

/* A line "name value"; names are padded for a terminal. */
void show_pair(const char *name, const char *value);
/* One for each member of an object that is neither a list nor an object. */
void show_pairs(json_t *object);

enum show_kind {
        SHOW_PLAIN,
        SHOW_NAME, /* cut on a terminal where the table would not fit */
        SHOW_TEXT, /* likewise wrapped */
        SHOW_NUMBER,
        SHOW_BYTES,
        SHOW_MS,
        SHOW_MASK, /* an address mask; on a terminal the number of its bits */
        SHOW_BAR,  /* a percentage; on a terminal a bar, with a mark at the percentage in the row's `high_percent` */
        SHOW_RATE, /* a number of times per second */
};

struct show_column {
        const char *title;
        const char *member; /* of each row's object */
        enum show_kind kind;
};

/* What SHOW_BAR draws, as members of a row: used_percent and high_percent. total 0: neither. */
void show_put_use(json_t *row, uint64_t used, uint64_t high, uint64_t total);

/* A row's cell as text, as show_member(). */
const char *show_cell(json_t *row, const struct show_column *column, char buffer[SHOW_SIZE]);

/* Print a list of objects. Columns of which no row has a value are left out for a terminal only. -ENOMEM. */
int show_table(json_t *rows, const struct show_column *columns, size_t n_columns);

#endif
