/* debug.check of the ledger: what another daemon would find there now, against what the core would tell it now. A difference
 * is a change that nobody has noted. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/objects.h"

struct told_row {
        enum row_kind kind;
        uint64_t id;
        size_t offset, size; /* in its book's bytes */
        bool found;
};

/* A ledger that remembers what it is told, and no more. */
struct told_book {
        struct ledger base;
        struct told_row *rows;
        size_t n, capacity;
        unsigned char *bytes;
        size_t used, room;
        /* ... and what it is compared with */
        struct check *check;
        struct broker *broker;
        uint64_t read, void_rows;
};

static const char *const row_names[ROW_KINDS] = {
        [ROW_BROKER] = "broker", [ROW_OWNER] = "owner",     [ROW_SESSION] = "session", [ROW_DEVICE] = "device",
        [ROW_REGION] = "region", [ROW_POOL] = "pool",       [ROW_BOUNCE] = "bounce",   [ROW_ALLOC] = "alloc",
        [ROW_LEASE] = "lease",   [ROW_MAPPING] = "mapping", [ROW_ANSWER] = "answer",   [ROW_BLOCK] = "block",
        [ROW_REST] = "rest",     [ROW_RESTING] = "resting", [ROW_BAR] = "bar",      [ROW_GRANT] = "grant",
};

/* ---- what would be told ---- */

static int grow(void **array, size_t needed, size_t *capacity, size_t size) {
        size_t more = *capacity ? *capacity : 64;
        void *grown;

        if (needed <= *capacity)
                return 0;
        while (more < needed)
                more *= 2;
        grown = realloc(*array, more * size);
        if (!grown)
                return -ENOMEM;
        *array = grown;
        *capacity = more;
        return 0;
}

static int told_put(struct ledger *base, enum row_kind kind, uint64_t id, const void *bytes, size_t size) {
        struct told_book *book = (struct told_book *)base;

        if (grow((void **)&book->rows, book->n + 1, &book->capacity, sizeof(*book->rows)) < 0 ||
            grow((void **)&book->bytes, book->used + size, &book->room, 1) < 0)
                return -ENOMEM;
        book->rows[book->n++] = (struct told_row){ .kind = kind, .id = id, .offset = book->used, .size = size };
        if (size)
                memcpy(book->bytes + book->used, bytes, size);
        book->used += size;
        return 0;
}

/* What is not promised yet: there is no row. */
static int told_drop(struct ledger *base, enum row_kind kind, uint64_t id) {
        return 0;
}

static const struct ledger_ops told_ops = { .put = told_put, .drop = told_drop };

static int by_kind_and_id(const void *a, const void *b) {
        const struct told_row *x = a, *y = b;

        if (x->kind != y->kind)
                return x->kind < y->kind ? -1 : 1;
        return (x->id > y->id) - (x->id < y->id);
}

/* The numbers of what was told last stay those of the ledger that was told. */
static bool tell(struct told_book *told) {
        struct book *book = &told->broker->book;
        const struct book before = *book;
        bool failed;

        book->ledger = &told->base;
        book_tell_all(told->broker);
        failed = book->incomplete;
        book->ledger = before.ledger;
        book->incomplete = before.incomplete;
        book->owner_id = before.owner_id;
        book->session_id = before.session_id;
        book->region_id = before.region_id;
        book->generation = before.generation;
        if (told->n)
                qsort(told->rows, told->n, sizeof(*told->rows), by_kind_and_id);
        return !failed;
}

/* ---- against what is written ---- */

/* What the ledger says was given is at least as much as was given. */
static void check_numbers(struct told_book *told, const void *bytes, size_t size) {
        const struct broker *broker = told->broker;
        struct row_reader row;

        row_reader_init(&row, bytes, size);
        if (row_read_number(&row) < broker->last_owner_id || row_read_number(&row) < broker->last_session_id ||
            row_read_number(&row) < broker->last_region_id || row_read_number(&row) < broker->handles.highest)
                check_complain(told->check, "ledger", 0, "It does not know of every number that was given");
        row_reader_deinit(&row);
}

/* Blocks go with their pool, of which alone the end is told. */
static bool is_void(const struct told_book *told, enum row_kind kind, const void *bytes, size_t size) {
        struct row_reader row;
        uint64_t pool;

        if (kind != ROW_BLOCK)
                return false;
        row_reader_init(&row, bytes, size);
        pool = row_read_number(&row);
        row_reader_deinit(&row);
        return !handle_find(&told->broker->handles, HANDLE_POOL, pool);
}

static int compare(void *userdata, enum row_kind kind, uint64_t id, const void *bytes, size_t size) {
        struct told_book *told = userdata;
        const struct told_row key = { .kind = kind, .id = id };
        struct told_row *row = told->n ? bsearch(&key, told->rows, told->n, sizeof(key), by_kind_and_id) : NULL;

        told->read++;
        if (!row && is_void(told, kind, bytes, size)) {
                told->void_rows++;
        } else if (!row) {
                check_complain(told->check, "ledger", id, "It has a row of a %s that is no more", row_names[kind]);
        } else {
                row->found = true;
                if (kind == ROW_BROKER)
                        check_numbers(told, bytes, size);
                else if (row->size != size || (size && memcmp(told->bytes + row->offset, bytes, size) != 0))
                        check_complain(told->check, "ledger", id, "Its row of a %s is out of date", row_names[kind]);
        }
        return 0;
}

void check_book(struct check *check, struct broker *broker) {
        struct told_book told = { .base.ops = &told_ops, .check = check, .broker = broker };
        struct ledger *ledger = broker->book.ledger;
        size_t i;
        int r;

        if (!ledger)
                return;
        r = broker_commit(broker);
        if (r < 0) {
                check_complain(check, "ledger", 0, "It cannot be written: %s", strerror(-r));
                return;
        }
        r = tell(&told) ? ledger->ops->read_back(ledger, compare, &told) : -ENOMEM;
        if (r < 0)
                check_complain(check, "ledger", 0, "It cannot be compared with what there is: %s", strerror(-r));
        for (i = 0; i < told.n && r == 0; i++)
                if (!told.rows[i].found)
                        check_complain(check, "ledger", told.rows[i].id, "It has no row of this %s",
                                       row_names[told.rows[i].kind]);
        if (r == 0)
                check_equal(check, "ledger", 0, "its number of rows", told.read - told.void_rows, told.n);
        free(told.rows);
        free(told.bytes);
}
