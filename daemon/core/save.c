/* Telling the ledger. Whoever changes an object notes it, at no cost to speak of; what the object is like is looked up and
 * told at the commit, when the books are in order. A note that there was no memory for is made good by telling everything.
 *
 * A ledger that has grown is written anew in the same way, a piece at each commit, beside what changes meanwhile. */
#include <errno.h>
#include <stdlib.h>

#include "daemon/core/pool.h"

/* Objects told at each commit while the ledger is written anew. */
#define REWRITE_STEP 16
/* Generations of handles that the ledger is ahead: it is told again when they are used up. */
#define GENERATIONS_AHEAD 64

static const struct {
        enum handle_kind handle;
        enum row_kind row;
} kinds[] = {
        { HANDLE_DEVICE, ROW_DEVICE }, { HANDLE_REGION, ROW_REGION },   { HANDLE_POOL, ROW_POOL },
        { HANDLE_BOUNCE, ROW_BOUNCE }, { HANDLE_ALLOC, ROW_ALLOC },     { HANDLE_LEASE, ROW_LEASE },
        { HANDLE_MAPPING, ROW_MAPPING }, { HANDLE_BLOCKS, ROW_ANSWER },
        { HANDLE_GRANT, ROW_GRANT },
};

static enum handle_kind handle_kind_of(enum row_kind kind) {
        size_t i;

        for (i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
                if (kinds[i].row == kind)
                        return kinds[i].handle;
        return HANDLE_NONE;
}

/* ---- taking notes ---- */

void book_note(struct broker *broker, enum row_kind kind, uint64_t id) {
        struct book *book = &broker->book;
        struct note *last = book->n_notes ? &book->notes[book->n_notes - 1] : NULL, *notes;
        size_t capacity;

        if (!book->ledger || book->incomplete || (last && last->kind == kind && last->id == id))
                return;
        if (book->n_notes == book->capacity) {
                capacity = book->capacity ? 2 * book->capacity : 64;
                notes = realloc(book->notes, capacity * sizeof(*notes));
                if (!notes) {
                        book->incomplete = true;
                        return;
                }
                book->notes = notes;
                book->capacity = capacity;
        }
        book->notes[book->n_notes++] = (struct note){ .kind = kind, .id = id };
}

struct row_writer *book_begin(struct broker *broker) {
        if (!broker->book.ledger)
                return NULL;
        row_begin(&broker->book.row);
        return &broker->book.row;
}

void book_end(struct broker *broker, enum row_kind kind, uint64_t id) {
        struct book *book = &broker->book;

        if (book->row.failed || book->ledger->ops->put(book->ledger, kind, id, book->row.bytes, book->row.size) < 0)
                book->incomplete = true;
}

void book_drop(struct broker *broker, enum row_kind kind, uint64_t id) {
        struct book *book = &broker->book;

        if (book->ledger && book->ledger->ops->drop(book->ledger, kind, id) < 0)
                book->incomplete = true;
}

void row_key(struct row_writer *row, const struct request_key *key) {
        row_text(row, key ? key->text : NULL);
        row_number(row, key ? key->digest : 0);
}

/* ---- jobs that wait for the commit ---- */

void book_hold(struct broker *broker, struct source_job *job) {
        struct book *book = &broker->book;

        job->next = NULL;
        *book->held_tail = job;
        book->held_tail = &job->next;
}

void book_release(struct broker *broker) {
        struct book *book = &broker->book;
        struct source_job *job;
        struct supply *supply;

        while ((job = book->held)) {
                book->held = job->next;
                if (!book->held)
                        book->held_tail = &book->held;
                supply = job->userdata;
                if (!broker->leaving) {
                        supply->submitted++;
                        supply->source->ops->submit(supply->source, job);
                        continue;
                }
                job->status = job->kind == SOURCE_RESTORE ? 0 : -ECANCELED;
                job->backing = NULL;
                job->done(job);
        }
}

/* ---- rows ---- */

static void tell_broker(struct broker *broker) {
        struct book *book = &broker->book;
        struct row_writer *row = book_begin(broker);

        book->owner_id = broker->last_owner_id;
        book->session_id = broker->last_session_id;
        book->region_id = broker->last_region_id;
        book->generation = broker->handles.highest + GENERATIONS_AHEAD;
        row_number(row, book->owner_id);
        row_number(row, book->session_id);
        row_number(row, book->region_id);
        row_number(row, book->generation);
        book->told_withheld = book->withheld;
        row_number(row, book->withheld);
        book_end(broker, ROW_BROKER, 0);
}

static bool broker_changed(const struct broker *broker) {
        const struct book *book = &broker->book;

        return book->owner_id != broker->last_owner_id || book->session_id != broker->last_session_id ||
               book->region_id != broker->last_region_id || book->generation < broker->handles.highest ||
               book->withheld != book->told_withheld;
}

static void tell_owner(struct broker *broker, const struct owner *owner) {
        struct row_writer *row = book_begin(broker);
        int kind;

        row_text(row, owner->name);
        row_number(row, owner->quota_told);
        for (kind = 0; kind < QUOTA_KINDS; kind++)
                if (owner->quota_told & 1u << kind)
                        row_number(row, owner->quota.of[kind]);
        guarantee_save(row, owner);
        budgets_save(row, owner);
        book_end(broker, ROW_OWNER, owner->id);
}

static void tell_session(struct broker *broker, const struct session *session) {
        struct row_writer *row = book_begin(broker);

        row_number(row, session->owner->id);
        row_text(row, session->note);
        book_end(broker, ROW_SESSION, session->id);
}

/* What is being made is not promised yet. */
static bool is_promised(enum row_kind kind, const void *object) {
        switch (kind) {
        case ROW_POOL:
                return !((const struct pool *)object)->creating;
        case ROW_BOUNCE:
                return bounce_is_made(object);
        case ROW_ANSWER:
                return ((const struct taker *)object)->key;
        default:
                return true;
        }
}

static void tell_object(struct broker *broker, enum row_kind kind, uint64_t handle, const void *object) {
        struct row_writer *row;

        if (!object || !is_promised(kind, object)) {
                book_drop(broker, kind, handle);
                return;
        }
        row = book_begin(broker);
        switch (kind) {
        case ROW_DEVICE:
                device_save(row, object);
                break;
        case ROW_REGION:
                region_save(row, object);
                break;
        case ROW_POOL:
                pool_save(row, object);
                break;
        case ROW_BOUNCE:
                bounce_save(row, object);
                break;
        case ROW_ALLOC:
                alloc_save(row, object);
                break;
        case ROW_LEASE:
                lease_save(row, object);
                break;
        case ROW_MAPPING:
                mapping_save(row, object);
                break;
        case ROW_ANSWER:
                answer_save(row, object);
                break;
        case ROW_GRANT:
                grant_save(row, object);
                break;
        default:
                return;
        }
        book_end(broker, kind, handle);
}

static void tell_note(struct broker *broker, const struct note *note) {
        const struct owner *owner;
        const struct session *session;

        if (note->kind == ROW_OWNER) {
                for (owner = broker->owners; owner; owner = owner->hh.next)
                        if (owner->id == note->id) {
                                tell_owner(broker, owner);
                                return;
                        }
                book_drop(broker, ROW_OWNER, note->id);
        } else if (note->kind == ROW_SESSION) {
                for (owner = broker->owners; owner; owner = owner->hh.next)
                        DL_FOREACH(owner->sessions, session)
                                if (session->id == note->id) {
                                        tell_session(broker, session);
                                        return;
                                }
                book_drop(broker, ROW_SESSION, note->id);
        } else {
                tell_object(broker, note->kind, note->id,
                            handle_find(&broker->handles, handle_kind_of(note->kind), note->id));
        }
}

/* ---- telling everything ---- */

static void tell_all_without_handle(struct broker *broker) {
        const struct session *session;
        const struct device *device;
        const struct owner *owner;
        struct resting *resting;

        tell_broker(broker);
        for (owner = broker->owners; owner; owner = owner->hh.next) {
                tell_owner(broker, owner);
                DL_FOREACH(owner->sessions, session)
                        tell_session(broker, session);
                DL_FOREACH(owner->devices, device)
                        for (resting = device->resting; resting; resting = resting_next(resting))
                                resting_save(broker, resting_alloc(resting));
        }
}

static void tell_any(struct broker *broker, enum handle_kind kind, uint64_t handle, void *object) {
        size_t i;

        for (i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
                if (kinds[i].handle == kind)
                        tell_object(broker, kinds[i].row, handle, object);
        if (kind == HANDLE_POOL)
                pool_save_blocks(object);
        if (kind == HANDLE_REGION)
                bar_save(object);
        if (kind == HANDLE_BOUNCE)
                bounce_save_rests(object);
}

void book_tell_all(struct broker *broker) {
        enum handle_kind kind;
        uint64_t handle = 0;
        void *object;

        tell_all_without_handle(broker);
        while ((object = handle_next_any(&broker->handles, handle, &kind, &handle)))
                tell_any(broker, kind, handle, object);
}

static int rewrite_begin(struct broker *broker, bool alone) {
        struct book *book = &broker->book;
        int r;

        r = book->ledger->ops->rewrite_begin(book->ledger, alone);
        if (r < 0)
                return r;
        book->rewriting = true;
        book->alone = alone;
        book->told = 0;
        tell_all_without_handle(broker);
        return 0;
}

/* At most n objects. */
static int rewrite_step(struct broker *broker, size_t n) {
        struct book *book = &broker->book;
        enum handle_kind kind;
        void *object;
        int r;

        for (; n && !book->incomplete; n--) {
                object = handle_next_any(&broker->handles, book->told, &kind, &book->told);
                if (!object)
                        break;
                tell_any(broker, kind, book->told, object);
        }
        /* Without a row that could not be told it must not seem complete. */
        if (n == 0 || book->incomplete)
                return 0;
        r = book->ledger->ops->rewrite_end(book->ledger);
        if (r == 0)
                book->rewriting = false;
        return r;
}

/* Whatever was noted or not, this is how things are. */
static int rewrite_all(struct broker *broker) {
        struct book *book = &broker->book;
        int r;

        book->incomplete = false;
        book->n_notes = 0;
        r = rewrite_begin(broker, true);
        if (r == 0)
                r = rewrite_step(broker, SIZE_MAX);
        if (r == 0 && book->incomplete)
                r = -ENOMEM;
        if (r < 0)
                book->incomplete = true;
        return r;
}

static int notes_tell(struct broker *broker) {
        struct book *book = &broker->book;
        size_t i;
        int r = 0;

        for (i = 0; i < book->n_notes; i++)
                tell_note(broker, &book->notes[i]);
        book->n_notes = 0;
        if (broker_changed(broker))
                tell_broker(broker);
        if (!book->rewriting && book->ledger->ops->wants_rewrite(book->ledger))
                /* If there is no room for another, this one will do for a while. */
                rewrite_begin(broker, false);
        if (book->rewriting && !book->incomplete)
                r = rewrite_step(broker, REWRITE_STEP);
        return r;
}

/* ---- the commit ---- */

bool broker_is_dirty(const struct broker *broker) {
        const struct book *book = &broker->book;

        return book->ledger && (book->n_notes || book->incomplete || book->held || broker_changed(broker) ||
                                book->ledger->ops->is_dirty(book->ledger));
}

static void translators_committed(const struct broker *broker) {
        const struct translator_ops *const *translator;

        for (translator = broker->options.translators; *translator; translator++)
                if (translator_translates(*translator))
                        (*translator)->committed();
}

int broker_commit(struct broker *broker) {
        struct book *book = &broker->book;
        int r = 0;

        if (!broker_is_dirty(broker)) {
                /* Also where nothing survives. */
                translators_committed(broker);
                return 0;
        }
        if (!book->incomplete)
                r = notes_tell(broker);
        if (book->incomplete)
                r = rewrite_all(broker);
        if (r == 0)
                r = book->ledger->ops->commit(book->ledger);
        if (r == 0)
                translators_committed(broker);
        if (r == 0 && !broker->leaving)
                book_release(broker);
        return r;
}

int broker_room(struct broker *broker, bool last, struct failure *failure) {
        const struct book *book = &broker->book;

        return book->ledger ? book->ledger->ops->room(book->ledger, last, failure) : 0;
}
