#include "tests/unit/ledger-fixture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A rewrite that stands alone is written in pieces of this many records. */
enum { REWRITE_RECORDS = 4000, PIECE_RECORDS = 16 };

static struct memory_ledger *ledger_of(const struct ledger *base) {
        return (struct memory_ledger *)base;
}

static bool fails(const struct memory_ledger *ledger) {
        return ledger->fails && ledger->fails(ledger->userdata);
}

/* ---- journals ---- */

static void journal_clear(struct memory_journal *journal) {
        size_t i;

        for (i = 0; i < journal->n; i++)
                free(journal->records[i].bytes);
        free(journal->records);
        *journal = (struct memory_journal){};
}

static int journal_reserve(struct memory_journal *journal, size_t more) {
        size_t capacity = 2 * (journal->n + more) + 64;
        struct memory_record *records;

        if (journal->n + more <= journal->capacity)
                return 0;
        records = realloc(journal->records, capacity * sizeof(*records));
        if (!records)
                return -ENOMEM;
        journal->records = records;
        journal->capacity = capacity;
        return 0;
}

static int journal_add(struct memory_journal *journal, int what, enum row_kind kind, uint64_t id, const void *bytes,
                       size_t size) {
        unsigned char *copy = NULL;

        if (journal_reserve(journal, 1) < 0)
                return -ENOMEM;
        if (size) {
                copy = malloc(size);
                if (!copy)
                        return -ENOMEM;
                memcpy(copy, bytes, size);
        }
        journal->records[journal->n++] = (struct memory_record){
                .what = what, .kind = kind, .id = id, .size = size, .bytes = copy,
        };
        return 0;
}

static int journal_copy(struct memory_journal *journal, const struct memory_journal *from) {
        size_t i;
        int r = 0;

        for (i = 0; i < from->n && r == 0; i++)
                r = journal_add(journal, from->records[i].what, from->records[i].kind, from->records[i].id,
                                from->records[i].bytes, from->records[i].size);
        return r;
}

/* ---- what the core asks for ---- */

static int flush(struct memory_ledger *ledger) {
        struct memory_journal *now = &ledger->now, *pending = &ledger->pending;

        if (fails(ledger) || journal_reserve(now, pending->n) < 0)
                return -ENOSPC;
        if (pending->n)
                memcpy(now->records + now->n, pending->records, pending->n * sizeof(*pending->records));
        now->n += pending->n;
        pending->n = 0;
        return 0;
}

static int memory_put(struct ledger *base, enum row_kind kind, uint64_t id, const void *bytes, size_t size) {
        struct memory_ledger *ledger = ledger_of(base);
        int r = fails(ledger) ? -ENOMEM : journal_add(&ledger->pending, RECORD_PUT, kind, id, bytes, size);

        if (r == 0 && ledger->rewriting && ledger->now.alone && !ledger->ended && !ledger->frozen &&
            ledger->pending.n > PIECE_RECORDS)
                return flush(ledger);
        return r;
}

static int memory_drop(struct ledger *base, enum row_kind kind, uint64_t id) {
        struct memory_ledger *ledger = ledger_of(base);

        return fails(ledger) ? -ENOMEM : journal_add(&ledger->pending, RECORD_DROP, kind, id, NULL, 0);
}

static bool memory_is_dirty(const struct ledger *base) {
        return ledger_of(base)->pending.n > 0;
}

static int memory_commit(struct ledger *base) {
        struct memory_ledger *ledger = ledger_of(base);

        if (ledger->frozen) {
                journal_clear(&ledger->pending);
                return 0;
        }
        if (flush(ledger) < 0)
                return -ENOSPC;
        if (!ledger->ended)
                return 0;
        ledger->ended = ledger->rewriting = false;
        journal_clear(&ledger->before);
        return 0;
}

static int memory_room(struct ledger *base, bool last, struct failure *failure) {
        return fails(ledger_of(base)) ? failure_set(failure, REASON_source_unavailable, "There is no room in the ledger") : 0;
}

static bool memory_is_blank(const struct ledger *base) {
        return ledger_of(base)->blank;
}

static bool memory_wants_rewrite(const struct ledger *base) {
        const struct memory_ledger *ledger = ledger_of(base);

        if (ledger->rewriting)
                return false;
        return ledger->now.n > REWRITE_RECORDS || (ledger->wants_rewrite && ledger->wants_rewrite(ledger->userdata));
}

static int memory_rewrite_begin(struct ledger *base, bool alone) {
        struct memory_ledger *ledger = ledger_of(base);

        if (fails(ledger))
                return -ENOSPC;
        /* One beside which changes were told counts until there is another that has its end. */
        if (alone)
                journal_clear(&ledger->pending);
        if (ledger->rewriting && !ledger->now.alone) {
                if (journal_reserve(&ledger->before, ledger->now.n) < 0)
                        return -ENOMEM;
                if (ledger->now.n)
                        memcpy(ledger->before.records + ledger->before.n, ledger->now.records,
                               ledger->now.n * sizeof(*ledger->now.records));
                ledger->before.n += ledger->now.n;
                ledger->now.n = 0;
        } else if (!ledger->rewriting) {
                ledger->before = ledger->now;
                ledger->now = (struct memory_journal){};
        }
        journal_clear(&ledger->now);
        ledger->now.alone = alone;
        ledger->rewriting = true;
        ledger->ended = ledger->blank = false;
        return 0;
}

static int memory_rewrite_end(struct ledger *base) {
        struct memory_ledger *ledger = ledger_of(base);
        int r = fails(ledger) ? -ENOMEM : journal_add(&ledger->pending, RECORD_END, ROW_BROKER, 0, NULL, 0);

        ledger->ended = r == 0;
        return r;
}

static bool memory_is_damaged(const struct ledger *base) {
        return ledger_of(base)->damaged;
}

static bool memory_is_void(const struct ledger *base, const char *source) {
        const char *name = ((const struct memory_ledger *)base)->void_source;

        return name && strcmp(name, source) == 0;
}

/* ---- reading ---- */

struct entry {
        const struct memory_record *record;
        size_t order;
};

static int by_id(const void *a, const void *b) {
        const struct entry *x = a, *y = b;

        if (x->record->kind != y->record->kind)
                return x->record->kind < y->record->kind ? -1 : 1;
        if (x->record->id != y->record->id)
                return x->record->id < y->record->id ? -1 : 1;
        return (x->order > y->order) - (x->order < y->order);
}

static int by_order(const void *a, const void *b) {
        const struct entry *x = a, *y = b;

        return (x->order > y->order) - (x->order < y->order);
}

static bool has_end(const struct memory_journal *journal) {
        size_t i;

        for (i = 0; i < journal->n; i++)
                if (journal->records[i].what == RECORD_END)
                        return true;
        return false;
}

static void entries_add(struct entry *entries, size_t *n, const struct memory_journal *journal) {
        size_t i;

        for (i = 0; i < journal->n; i++)
                if (journal->records[i].what != RECORD_END) {
                        entries[*n] = (struct entry){ .record = &journal->records[i], .order = *n };
                        ++*n;
                }
}

/* kind ROW_KINDS: all. */
static int read_rows(const struct memory_ledger *ledger, enum row_kind kind, row_read_fn read, void *userdata) {
        struct entry *entries = calloc(ledger->before.n + ledger->now.n + 1, sizeof(*entries));
        size_t n = 0, kept = 0, i;
        int r = 0;

        if (!entries)
                return -ENOMEM;
        if (!has_end(&ledger->now))
                entries_add(entries, &n, &ledger->before);
        if (has_end(&ledger->now) || !ledger->now.alone)
                entries_add(entries, &n, &ledger->now);
        qsort(entries, n, sizeof(*entries), by_id);
        for (i = 0; i < n; i++) {
                const struct memory_record *record = entries[i].record;

                if (i + 1 < n && record->kind == entries[i + 1].record->kind && record->id == entries[i + 1].record->id)
                        continue;
                if (record->what == RECORD_PUT && (kind == ROW_KINDS || record->kind == kind))
                        entries[kept++] = entries[i];
        }
        qsort(entries, kept, sizeof(*entries), by_order);
        for (i = 0; i < kept && r == 0; i++)
                r = read(userdata, entries[i].record->kind, entries[i].record->id, entries[i].record->bytes,
                         entries[i].record->size);
        free(entries);
        return r;
}

struct visit {
        row_visit_fn visit;
        void *userdata;
};

static int visit_row(void *userdata, enum row_kind kind, uint64_t id, const void *bytes, size_t size) {
        const struct visit *visit = userdata;

        return visit->visit(visit->userdata, id, bytes, size);
}

static int memory_visit(struct ledger *base, enum row_kind kind, row_visit_fn visit, void *userdata) {
        return read_rows(ledger_of(base), kind, visit_row, &(struct visit){ .visit = visit, .userdata = userdata });
}

static int memory_read_back(struct ledger *base, row_read_fn read, void *userdata) {
        return read_rows(ledger_of(base), ROW_KINDS, read, userdata);
}

static const struct ledger_ops memory_ops = {
        .put = memory_put,
        .drop = memory_drop,
        .is_dirty = memory_is_dirty,
        .commit = memory_commit,
        .room = memory_room,
        .is_blank = memory_is_blank,
        .wants_rewrite = memory_wants_rewrite,
        .rewrite_begin = memory_rewrite_begin,
        .rewrite_end = memory_rewrite_end,
        .visit = memory_visit,
        .is_damaged = memory_is_damaged,
        .is_void = memory_is_void,
        .read_back = memory_read_back,
};

struct memory_ledger *memory_ledger_new(void) {
        struct memory_ledger *ledger = calloc(1, sizeof(*ledger));

        if (!ledger)
                abort();
        ledger->base.ops = &memory_ops;
        ledger->blank = true;
        return ledger;
}

/* Two that count together are not gone on with: everything is told anew first, as the one on disk has it. */
struct memory_ledger *memory_ledger_reopen(const struct memory_ledger *ledger) {
        struct memory_ledger *next = memory_ledger_new();
        int r = 0;

        if (!has_end(&ledger->now))
                r = journal_copy(&next->now, &ledger->before);
        if (r == 0 && (has_end(&ledger->now) || !ledger->now.alone))
                r = journal_copy(&next->now, &ledger->now);
        if (r < 0)
                abort();
        next->now.alone = true;
        next->blank = !has_end(&next->now) || (!has_end(&ledger->now) && !ledger->now.alone);
        return next;
}

void memory_ledger_lose(struct memory_ledger *ledger, enum row_kind kind, uint64_t id) {
        size_t i;

        for (i = 0; i < ledger->now.n; i++)
                if (ledger->now.records[i].what == RECORD_PUT && ledger->now.records[i].kind == kind &&
                    ledger->now.records[i].id == id)
                        ledger->now.records[i].what = RECORD_DROP;
        ledger->damaged = true;
}

struct memory_ledger *memory_ledger_free(struct memory_ledger *ledger) {
        if (!ledger)
                return NULL;
        journal_clear(&ledger->before);
        journal_clear(&ledger->now);
        journal_clear(&ledger->pending);
        free(ledger);
        return NULL;
}
