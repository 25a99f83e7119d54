/* Reading the ledger: a broker that has just been made becomes what another one was. Rows come kind by kind, parents first;
 * what has lost its parent is void. Memory that its source does not have any more is told and forgotten, with all that lay in
 * it. When the ledger is damaged, what is known stays with those who have it, and what only seems free is barred. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/pool.h"

/* How far numbers go on behind those that are known when others may have been given. */
#define NUMBERS_LOST 65536

/* ---- what rows refer to ---- */

static int by_number(const void *a, const void *b) {
        const struct numbered *x = a, *y = b;

        return (x->id > y->id) - (x->id < y->id);
}

static void *number_find(const struct numbers *numbers, uint64_t id) {
        const struct numbered key = { .id = id };
        const struct numbered *found = numbers->n ? bsearch(&key, numbers->all, numbers->n, sizeof(key), by_number) : NULL;

        return found ? found->object : NULL;
}

struct owner *load_owner(struct load *load) {
        return number_find(&load->owners, row_read_number(&load->row));
}

struct session *load_session(struct load *load) {
        return number_find(&load->sessions, row_read_number(&load->row));
}

enum dma_direction load_direction(struct load *load) {
        const uint64_t direction = row_read_number(&load->row);

        load->row.failed |= direction > DMA_BIDIRECTIONAL;
        return (enum dma_direction)direction;
}

void *load_object(struct load *load, enum handle_kind kind) {
        return handle_find(&load->broker->handles, kind, row_read_number(&load->row));
}

/* Always the last fields that are read of a row. The object goes without a key that somebody else has; without memory for it
 * all of the start fails, because it would be done again for whoever repeats the request. */
struct request_key *load_key(struct load *load, struct owner *owner, enum handle_kind kind) {
        const char *text = row_read_text(&load->row);
        uint64_t digest = row_read_number(&load->row);
        struct request_key *key = NULL;
        int r = text ? key_restore(owner, text, kind, digest, load->id, &key) : 0;

        load->row.no_memory |= r == -ENOMEM;
        load->row.failed |= r == -EBADMSG;
        return key;
}

/* Nothing is looked up before all of its kind have been put. */
static int number_put(struct numbers *numbers, uint64_t id, void *object) {
        size_t capacity = 2 * numbers->n + 64;
        struct numbered *all;

        if (id > UINT32_MAX)
                return -EBADMSG;
        if (numbers->n == numbers->capacity) {
                all = realloc(numbers->all, capacity * sizeof(*all));
                if (!all)
                        return -ENOMEM;
                numbers->all = all;
                numbers->capacity = capacity;
        }
        numbers->all[numbers->n++] = (struct numbered){ .id = id, .object = object };
        return 0;
}

static void numbers_sort(struct numbers *numbers) {
        if (numbers->n)
                qsort(numbers->all, numbers->n, sizeof(*numbers->all), by_number);
}

/* ---- what has no handle ---- */

static int load_broker(struct load *load) {
        struct broker *broker = load->broker;

        broker->last_owner_id = broker->book.owner_id = (uint32_t)row_read_number(&load->row);
        broker->last_session_id = broker->book.session_id = (uint32_t)row_read_number(&load->row);
        broker->last_region_id = broker->book.region_id = row_read_number(&load->row);
        broker->book.generation = (uint32_t)row_read_number(&load->row);
        broker->book.withheld = broker->book.told_withheld = row_read_number(&load->row);
        return 0;
}

/* A ledger that is damaged may not know which numbers were given, nor what had them. */
static void numbers_raise(struct broker *broker) {
        if (!broker->book.damaged)
                return;
        broker->last_owner_id += NUMBERS_LOST;
        broker->last_session_id += NUMBERS_LOST;
        broker->last_region_id += NUMBERS_LOST;
        broker->book.generation = (uint32_t)smaller(larger(broker->book.generation, broker->handles.highest) + NUMBERS_LOST,
                                                    UINT32_MAX);
}

static int load_owner_row(struct load *load) {
        struct broker *broker = load->broker;
        const char *name = row_read_text(&load->row);
        struct owner *owner;
        int r, kind;

        if (!name)
                return -EBADMSG;
        r = owner_get(broker, name, &owner);
        if (r < 0)
                return r;
        /* The configuration has made some already, under other numbers. */
        owner->id = (uint32_t)load->id;
        broker->last_owner_id = (uint32_t)larger(broker->last_owner_id, load->id);
        owner->quota_told = (unsigned)row_read_number(&load->row);
        owner->quota_set |= owner->quota_told != 0;
        for (kind = 0; kind < QUOTA_KINDS; kind++)
                if (owner->quota_told & 1u << kind)
                        owner->quota.of[kind] = row_read_number(&load->row);
        broker->quota_changes++;
        guarantee_load(load, owner);
        r = budgets_load(load, owner);
        return r < 0 ? r : number_put(&load->owners, load->id, owner);
}

static int load_session_row(struct load *load) {
        struct owner *owner = load_owner(load);
        const char *note = row_read_text(&load->row);
        struct session *session;

        if (!owner)
                return -ENOENT;
        session = calloc(1, sizeof(*session));
        if (!session)
                return -ENOMEM;
        session->note = note ? strdup(note) : NULL;
        if (note && !session->note) {
                free(session);
                return -ENOMEM;
        }
        session->owner = owner;
        session->id = (uint32_t)load->id;
        load->broker->last_session_id = (uint32_t)larger(load->broker->last_session_id, load->id);
        session_enter(session);
        return number_put(&load->sessions, load->id, session);
}

/* ---- all of it ---- */

static int (*const loaders[ROW_KINDS])(struct load *load) = {
        [ROW_BROKER] = load_broker,  [ROW_OWNER] = load_owner_row, [ROW_SESSION] = load_session_row,
        [ROW_DEVICE] = device_load,  [ROW_REGION] = region_load,   [ROW_POOL] = pool_load,
        [ROW_BOUNCE] = bounce_load,  [ROW_ALLOC] = alloc_load,     [ROW_LEASE] = lease_load,
        [ROW_MAPPING] = mapping_load, [ROW_ANSWER] = answer_load,  [ROW_BLOCK] = block_load,
        [ROW_REST] = rest_load,      [ROW_RESTING] = resting_load,
        [ROW_BAR] = bar_load,        [ROW_GRANT] = grant_load,
};

struct visit {
        struct load *load;
        enum row_kind kind;
};

static int load_row(void *userdata, uint64_t id, const void *bytes, size_t size) {
        struct visit *visit = userdata;
        struct load *load = visit->load;
        int r;

        load->id = id;
        row_reader_init(&load->row, bytes, size);
        r = loaders[visit->kind](load);
        /* Rows that do not go together, such as two that claim the same handle. */
        if (r == -EINVAL)
                r = -EBADMSG;
        if (load->row.no_memory)
                r = -ENOMEM;
        if (r != -ENOMEM && (load->row.failed || r == -EBADMSG))
                load->broker->book.damaged = true;
        row_reader_deinit(&load->row);
        if (r != -ENOENT && r != -EBADMSG)
                return r;
        /* It would come again with each start, and be in the way of what is there by then. */
        book_drop(load->broker, visit->kind, id);
        return 0;
}

static int load_kind(struct load *load, enum row_kind kind) {
        struct ledger *ledger = load->broker->book.ledger;
        struct visit visit = { .load = load, .kind = kind };

        return ledger->ops->visit(ledger, kind, load_row, &visit);
}

/* The configuration's owners that nothing was read of keep the numbers that they have, unless somebody else had them. */
static void owners_number(struct load *load) {
        struct broker *broker = load->broker;
        struct owner *owner;

        for (owner = broker->owners; owner; owner = owner->hh.next)
                if (number_find(&load->owners, owner->id) != owner)
                        owner->id = ++broker->last_owner_id;
}

static int regions_bar(struct load *load) {
        struct broker *broker = load->broker;
        struct region *region;
        struct owner *owner;
        int r = 0;

        for (owner = broker->owners; owner && r == 0; owner = owner->hh.next)
                DL_FOREACH(owner->regions, region) {
                        /* No device writes to what was swapped out. */
                        if (r < 0 || (!broker->book.damaged && !region->suspect) || region_is_anonymous(region))
                                continue;
                        r = region_bar(region);
                        bar_save(region);
                }
        return r;
}

static void finish(struct load *load) {
        struct broker *broker = load->broker;
        struct owner *owner, *next_owner;
        struct device *device, *next;

        HASH_ITER(hh, broker->owners, owner, next_owner) {
                book_note(broker, ROW_OWNER, owner->id);
                /* Nothing keeps it any more: it went on its way before its end was written, or lost what it had. */
                DL_FOREACH_SAFE(owner->devices, device, next) {
                        bounces_loaded(device);
                        device->n_requests--;
                        if (!device->session && !device_holds(device) && !device->closed)
                                device_hide(device);
                        device_forget(device);
                }
        }
        HASH_ITER(hh, broker->owners, owner, next_owner)
                owner_forget(owner);
}

static int load_all(struct load *load) {
        int kind, r = 0;

        for (kind = 0; kind < ROW_KINDS && r == 0; kind++) {
                r = load_kind(load, kind);
                if (kind == ROW_OWNER) {
                        numbers_sort(&load->owners);
                        owners_number(load);
                } else if (kind == ROW_SESSION) {
                        numbers_sort(&load->sessions);
                }
        }
        return r < 0 ? r : regions_bar(load);
}

/* What was read so far is not all that there is: nothing is told of it, and no memory is given back. */
static void give_up(struct broker *broker) {
        struct owner *owner, *next_owner;
        struct device *device, *next;

        broker->book.ledger = NULL;
        broker->leaving = true;
        HASH_ITER(hh, broker->owners, owner, next_owner)
                DL_FOREACH_SAFE(owner->devices, device, next) {
                        bounces_loaded(device);
                        device->n_requests--;
                        device_forget(device);
                }
}

static bool anything_is_kept(struct broker *broker) {
        struct supply *supply;
        bool any = false;

        LL_FOREACH(every_supply(broker), supply) {
                supply->source->ops->describe(supply->source, &supply->info);
                any |= supply->info.kept > 0;
        }
        return any;
}

int broker_load(struct broker *broker, struct ledger *ledger, struct failure *failure) {
        struct load load = { .broker = broker, .failure = failure };
        const struct translator_ops *const *translator;
        struct supply *supply;
        int r;

        broker->book.ledger = ledger;
        broker->book.damaged = ledger->ops->is_damaged(ledger);
        r = load_all(&load);
        free(load.owners.all);
        free(load.sessions.all);
        if (r < 0) {
                give_up(broker);
                return failure->error ? r : failure_set_errno(failure, REASON_no_memory, -r, "the ledger cannot be read: %s",
                                                              strerror(-r));
        }
        numbers_raise(broker);
        broker->book.withheld = broker->book.damaged || (broker->book.withheld && anything_is_kept(broker));
        handle_table_restored(&broker->handles, broker->book.generation);
        for (translator = broker->options.translators; *translator; translator++)
                if (translator_translates(*translator))
                        (*translator)->restored();
        finish(&load);
        broker->book.incomplete |= broker->book.damaged || ledger->ops->is_blank(ledger);
        LL_FOREACH(every_supply(broker), supply)
                if (supply_begin(supply) < 0)
                        return failure_set(failure, REASON_no_memory, "there is no memory to start");
        return 0;
}

void broker_loaded(const struct broker *broker, struct broker_loaded *ret) {
        *ret = (struct broker_loaded){
                .damaged = broker->book.damaged,
                .withheld = broker->book.withheld,
                .lost_bytes = broker->book.lost_bytes,
                .barred_bytes = broker->book.barred_bytes,
                .lost_devices = broker->book.lost_devices,
                .lost_why = broker->book.lost_why.sentence,
        };
}
