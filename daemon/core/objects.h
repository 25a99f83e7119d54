/* The core's objects and how they hang together. Private to daemon/core.
 *
 *      broker ─┬─ owner ─┬─ session ─┬─ device ─┬─ alloc        (who holds what)
 *              │         │           │          ├─ pool, bounce (holders: what cuts allocations of its own into pieces)
 *              │         │           │          └─ mapping
 *              │         │           └─ lease                   (a span of a holder's pieces)
 *              │         ├─ window ── region                    (the owner's memory, by source and NUMA node)
 *              │         └─ request                             (what waits for memory, first come, first served)
 *              └─ supply ── stock, region                       (a memory source and what is free in it)
 *
 * A region is one machine-contiguous run in a file of its own. It belongs to one owner; allocations of that owner share
 * it. It lies either in one of the owner's windows or, when it was reserved, in one device's reserve. What waits for pieces of
 * a holder is a waiter, in a queue of the holder's own. */
#ifndef DMAB_CORE_OBJECTS_H
#define DMAB_CORE_OBJECTS_H

/* Out of memory is an error like any other: without this uthash ends the process. An element that could not be added has
 * no table. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>
#include <utlist.h>

#include "daemon/core/arena.h"
#include "daemon/core/broker.h"
#include "daemon/core/handle.h"
#include "daemon/core/ledger.h"
#include "daemon/core/row.h"

#define PAGE UINT64_C(4096)
#define LOW_LIMIT ((UINT64_C(1) << 32) - 1)
#define HANDLE_BITS 53

#define COUNTER_LIST(COUNTER)     \
        COUNTER(allocs)           \
        COUNTER(alloc_failures)   \
        COUNTER(carve_failures)   \
        COUNTER(carves)           \
        COUNTER(cancels)          \
        COUNTER(frees)            \
        COUNTER(grown_bytes)      \
        COUNTER(high_water_bytes) \
        COUNTER(restores)         \
        COUNTER(shrunk_bytes)     \
        COUNTER(timeouts)         \
        COUNTER(waits)            \
        COUNTER(zeroed_bytes)

enum counter {
#define COUNTER_ENUM(name) COUNTER_##name,
        COUNTER_LIST(COUNTER_ENUM)
#undef COUNTER_ENUM
        COUNTERS
};

/* What rests, see quarantine.c: a member of what it is. A device stands for its allocations. */
enum resting_kind { RESTING_ALLOC, RESTING_BLOCKS, RESTING_SLOTS, RESTING_REGION, RESTING_DEVICE };

struct resting {
        struct resting *child, *next, *prev; /* in broker->quarantine or device->resting: heaps */
        uint64_t until_ms;                   /* UINT64_MAX: until an administrator says so */
        uint64_t id : 56, kind : 8;          /* id: not reused while the daemon runs */
};

struct resting_ops {
        struct owner *(*owner)(const struct resting *resting);
        /* What of it does not follow from struct resting; since_ms instead of ages. */
        void (*look)(const struct resting *resting, struct quarantine_view *ret);
        bool (*holds)(const struct resting *resting, uint64_t machine_addr);
        /* That it lies in as a whole, and goes with. NULL: it goes with what it belongs to. */
        const struct region *(*region)(const struct resting *resting);
        /* It may be reused. */
        void (*end)(struct resting *resting);
};

struct request_key {
        UT_hash_handle hh; /* in owner->keys by text */
        enum handle_kind kind;
        uint64_t digest;
        uint64_t handle; /* 0: the request is under way */
        char text[];
};

struct window {
        struct window *next;
        struct supply *supply;
        int node;
        struct arena *arena; /* spans: regions; granule: PAGE */
};

/* What an owner may have of a device and has of it, over all the times that it has opened it. */
struct budget {
        struct budget *prev, *next; /* in owner->budgets */
        struct quota limits, usage;
        unsigned n_devices; /* with that name */
        bool limits_set;    /* by an administrator: stays though no such device is open */
        char name[];
};

struct owner {
        UT_hash_handle hh; /* in broker->owners by name */
        struct broker *broker;
        uint32_t id; /* not reused */
        struct quota quota, usage;
        uint64_t held_low; /* of usage's held_bytes, below 4 GiB */
        struct guarantee guaranteed;
        bool guarantee_told; /* by an administrator */
        bool quota_set; /* stays known though it holds nothing */
        unsigned quota_told; /* bit for each kind that an administrator has set: the ledger's, not the configuration's */
        uint64_t n_answers; /* with blocks of pools that can be given again for their keys: as many as leases, at most */
        struct session *sessions;
        struct device *devices;
        struct device *commons; /* from whose reserve all devices are served, or NULL */
        struct budget *budgets;
        struct region *regions;
        struct window *windows;
        struct request *requests; /* first come first */
        struct request_key *keys;
        char name[];
};

struct session {
        struct session *prev, *next; /* in owner->sessions */
        struct owner *owner;
        uint32_t id; /* not reused */
        struct lease *leases;
        struct mapping *mappings; /* that it made */
        struct grant *grants;     /* likewise */
        struct taker *takers;     /* what it has of pools, one by one */
        uint64_t recall;          /* number of the last that it was told of */
        bool is_own;              /* the daemon's, which counts against nobody's quota */
        bool is_user;             /* of the region that region_find_users() was last asked about */
        char *note; /* what whoever opened it must know after a restart, or NULL */
};

struct holder;
struct waiter;

/* Blocked: it must wait until something is given back. Fetching: the holder is getting memory, for which also those wait
 * that may not wait otherwise. */
enum { WAITER_BLOCKED = 1, WAITER_FETCHING = 2 };

/* What a holder does for those who wait for its pieces. Only serve(), nobody_waits() and tell() may ask for memory, and
 * none of them may end the holder but nobody_waits(). */
struct holder_ops {
        /* 0: it has what it wants. WAITER_*: not now. -errno: never. waiter->failure says why it has not. */
        int (*serve)(struct waiter *waiter);
        /* Say in waiter->failure why it goes without: timeout, or would_block. */
        void (*refuse)(struct waiter *waiter, enum reason reason);
        /* The answer, once: waiter->failure has an error, or it has what it wants. Neither holder nor session are known
         * any more. The waiter is freed then. */
        void (*tell)(struct waiter *waiter);
        /* Nobody wants any more what it has. */
        void (*undo)(struct waiter *waiter);
        /* Called when the queue is empty: memory that is being fetched is not needed. */
        void (*nobody_waits)(struct holder *holder);
};

/* What has allocations that nobody else may free, and cuts them into pieces: the first member of a pool and of a bounce
 * pool. */
struct holder {
        enum { HOLDER_POOL, HOLDER_BOUNCE } kind;
        uint64_t handle;
        struct device *device;
        uint32_t maker; /* id of the session that made it, or of another one with which it goes now */
        struct lease *leases;
        uint64_t n_leases, recalls, recalled_ms;
        uint64_t unit; /* bytes of a block or slot */
        struct request_key *key;
        /* The pieces of a lease that ends are the holder's again; died: its client vanished. The lease is freed then. */
        void (*lease_ended)(struct lease *lease, bool died);

        const struct holder_ops *ops;
        struct waiter *waiters; /* first come first, high priority before the others */
        uint64_t n_waiters, n_hasty; /* n_hasty: those that may not wait */
        uint64_t waits, timeouts, failures;
        struct holder *due_prev, *due_next; /* in broker->due */
        bool due;
        bool is_in_region; /* of region_find_users(), while that looks */
};

/* A request for pieces of a holder: the first member of what the holder keeps of it. */
struct waiter {
        struct ticket ticket;
        struct waiter *prev, *next;               /* in holder->waiters, or in broker->answered */
        struct waiter *broker_prev, *broker_next; /* in broker->waiters, until it is answered */
        struct broker *broker;
        const struct holder_ops *ops;
        struct holder *holder;   /* NULL: it is answered */
        struct session *session; /* the same */
        uint64_t wait_ms, deadline_ms;
        bool high, waited;
        bool *told; /* set when the answer is told */
        struct request_key *key; /* until it belongs to what was asked for */
        struct failure failure;
};

/* A span of a holder's pieces that a client divides by itself. */
struct lease {
        struct lease *prev, *next;               /* in session->leases */
        struct lease *holder_prev, *holder_next; /* in holder->leases */
        uint64_t handle;
        struct session *session;
        struct holder *holder;
        struct alloc *alloc; /* it lies in this one */
        uint64_t addr, count; /* machine address of the first piece; pieces */
        uint64_t born_ms;
        struct request_key *key;
};

/* What a device may reach: a run of a bounce pool's slots, or a span of an allocation. */
struct mapping {
        struct mapping *prev, *next;               /* in session->mappings */
        struct mapping *device_prev, *device_next; /* in device->mappings */
        uint64_t handle;
        struct session *session; /* that made it */
        struct device *device;
        struct holder *holder; /* the bounce pool; NULL: it is of an allocation, which stays until it is unmapped */
        struct alloc *alloc;   /* it lies in this one */
        uint64_t addr, dma_addr, size;
        uint64_t slots; /* of the bounce pool */
        enum dma_direction direction;
        uint64_t born_ms;
        struct request_key *key;
};

/* Pages that a guest of Xen's and a service of this session's may map of each other. */
struct grant {
        struct grant *prev, *next;               /* in session->grants */
        struct grant *broker_prev, *broker_next; /* in broker->grants */
        uint64_t handle;
        struct session *session;
        enum grant_kind kind;
        enum dma_direction direction;
        char *guest;
        uint32_t domain;
        bool gone;
        uint64_t born_ms, pages;
        struct request_key *key;
        size_t n_runs;
        struct grant_run runs[];
};

struct template {
        UT_hash_handle hh; /* in broker->templates by name */
        struct device_options options; /* its strings are owned */
        bool dma;
        char *allow; /* owners that may have it as a whole, between blanks; or NULL */
        struct quota limits; /* of each owner's devices of that name */
        char name[];
};

/* Who comes first, comes first in its lane: a device that is served from its own reserve has one of its own. */
struct lane {
        uint64_t round;      /* in which the rest was found out */
        bool blocked, waits; /* an earlier request is not answered; and one that may wait */
};

struct device {
        struct device *prev, *next; /* in owner->devices */
        uint64_t handle;
        struct owner *owner;
        struct budget *budget;
        struct session *session; /* NULL: lives as long as its allocations */
        char *name, *parent, *via;
        const struct translator_ops *translator;
        struct translation *translation;
        uint64_t reach; /* the mask beyond which no mask can go: of the ancestors and of the translator */
        uint64_t coherent_reach; /* the same of coherent masks, which the configuration may restrict further */
        uint64_t mask, coherent_mask, boundary, max_segment, min_align_mask, timeout_ms;
        int node;
        struct alloc *allocs;    /* but for those that rest */
        struct resting *resting; /* those: a heap */
        struct resting stands;   /* in broker->quarantine for the first of them */
        uint64_t n_allocs, bytes;
        struct pool *pools;
        struct bounce *bounces;
        struct mapping *mappings;
        unsigned n_pools, n_bounces, n_mappings;
        struct arena *reserve; /* NULL: served from the owner's windows, or from its commons */
        bool is_commons;
        uint64_t n_lent; /* allocations of other devices in its reserve */
        uint64_t reserved_bytes;
        struct lane lane;
        unsigned n_requests; /* requests that use it, answered but not yet delivered ones included */
        bool closed;         /* nobody can find it any more */
        struct request_key *key;
};

/* MOVING: a request copies it, and will free it.
 * ANONYMOUS: it was swapped out: it lies in ordinary memory, and has no dma address.
 * RESTING: it is nobody's, and nobody can find it. A device may still write there for a vanished client.
 * EXPOSED, while it rests: so may another device than its own. */
enum { ALLOC_OWNER_LIFETIME = 1 << 0, ALLOC_SHAREABLE = 1 << 1, ALLOC_HELD = 1 << 2, ALLOC_RESTING = 1 << 3,
       ALLOC_MOVING = 1 << 4, ALLOC_EXPOSED = 1 << 5, ALLOC_ANONYMOUS = 1 << 6 };

/* 40 bits of milliseconds are 34 years. */
#define EXPOSED_FOREVER ((UINT64_C(1) << 40) - 1)

struct alloc {
        struct device *device;
        struct region *region;
        uint64_t born_ms : 48, flags : 8; /* born_ms: with ALLOC_RESTING, since when it rests */
        uint64_t place : 8; /* in its tray */
        uint32_t maker; /* id of the session that asked for it, or 0 with ALLOC_HELD */
        uint32_t block; /* number in the region's arena, which keeps its place, its size, and its dma address as a note */
        union {
                struct {
                        struct alloc *prev, *next; /* in device->allocs */
                        uint64_t handle;
                        union {
                                struct request_key *key;
                                struct holder *holder; /* with ALLOC_HELD */
                        };
                        uint64_t n_mappings : 24; /* while there are any, it is not freed; at most as many as handles */
                        uint64_t exposed_ms : 40; /* until then devices may write there whose mappings have ended; 0: none */
                };
                struct resting resting; /* with ALLOC_RESTING */
        };
};

struct supply_job {
        struct source_job job; /* userdata: the supply */
        struct region *region;
        struct request *request; /* that asked for it, or NULL */
        void (*verified)(struct supply_job *job);
        void *userdata;
};

enum region_state { REGION_CARVING, REGION_LIVE, REGION_RESTORING };

struct region {
        struct region *prev, *next; /* in owner->regions, while live */
        struct region *idle_prev, *idle_next; /* in supply->idle, while live and unused */
        uint64_t handle;
        struct owner *owner;
        struct supply *supply;
        struct device *device; /* exclusive to it, or NULL */
        struct window *window; /* NULL when exclusive */
        enum region_state state;
        uint64_t addr, size;
        int node;
        uint64_t used, n_allocs, n_resting; /* n_resting: of the allocations, without what is barred */
        uint64_t stride, usable; /* of an exclusive region, or 0; usable alone is 0: withdrawn for good, earlier */
        bool withdrawn;          /* its device gets nothing there: what is free of it is taken, with a note that says so */
        uint64_t idle_since_ms;
        uint64_t id;     /* by which its source keeps it, not reused; it has no handle yet when it is carved */
        bool suspect;    /* its source cannot tell that all of it is what it was: what seems free in it is barred */
        struct bar *bar; /* or NULL */
        unsigned checks; /* verifications under way */
        bool restore_wanted; /* ... once they are over */
        struct source_backing *backing;
        struct request_key *key;
        struct supply_job restore; /* no memory is needed to give memory back */
};

struct stock {
        int node;
        struct arena *arena; /* everything in it is free; granule: the grain */
};

enum { SUPPLY_LATE_MAX = 32 };

struct supply {
        struct supply *next;
        struct broker *broker;
        struct source *source;
        struct source_info info;
        struct stock *stocks;
        size_t n_stocks;
        uint64_t held, held_low;   /* stock, regions, and what is on its way between them */
        uint64_t free, free_low;   /* in stock */
        uint64_t in_regions, used;
        uint64_t lost;
        struct source_run late[SUPPLY_LATE_MAX]; /* memory that came, and that there was no memory to enter */
        size_t n_late;
        uint64_t late_bytes, late_since_ms;
        struct region **regions; /* live ones, sorted by address */
        size_t n_regions, regions_capacity;
        struct region *idle; /* unused ones, longest first */
        uint64_t leaving; /* of held: on its way to the system */
        unsigned pending, returning; /* jobs under way; those of them that bring memory */
        unsigned submitted;          /* those of them that the source has */
        uint64_t dry_until_ms;       /* growing brought nothing lately */
        uint64_t low_dry_until_ms;   /* ... below 4 GiB, to which it was to keep */
        uint64_t awaited;            /* what holders had in use when it was to come back: neither held nor lost */
        uint64_t reclaim_ms;         /* when it is looked for again; 0: not at all */
        uint64_t scant_until_ms;     /* choosing brought nothing generous lately */
        bool grows_low;              /* growing for a request last brought nothing above 4 GiB */
        uint64_t touched_ms;         /* when stock was last needed */
};

enum request_kind { REQUEST_ALLOC, REQUEST_RESERVE };
/* Working: jobs of its own are under way. Finished: the answer is known and about to be told. */
enum request_state { REQUEST_QUEUED, REQUEST_WORKING, REQUEST_FINISHED };

struct request {
        struct ticket ticket;
        struct request *prev, *next; /* in owner->requests, or in broker->finished */
        enum request_kind kind;
        enum request_state state;
        struct owner *owner;
        struct device *device;
        struct arena_request want;
        struct arena_request reach; /* what its dma address must be like, where that is another one than the memory's */
        bool high, zero;
        bool cancelled; /* nobody wants an answer */
        bool ended;     /* the answer is `failure`, as soon as its jobs are over */
        unsigned flags; /* ALLOC_* */
        uint64_t wait_ms, deadline_ms;
        uint64_t stride, usable;
        struct holder *holder; /* for whom, or NULL */
        uint32_t maker; /* id of the session that asked, or 0 for a holder */
        uint64_t moved; /* handle of the allocation whose contents and place in the world it gets; or 0 */
        bool swap;      /* ... and whose handle */
        bool anonymous; /* it gets ordinary memory */
        unsigned attempts; /* that could have changed anything */
        uint64_t returned; /* broker->returned at the last one */
        unsigned jobs; /* under way for this request */
        /* Memory that is being zeroed and becomes an allocation then; region also: what has been reserved. */
        struct region *region;
        struct arena_block block;
        struct request_key *key;
        uint64_t handle; /* the answer */
        struct failure failure; /* why it failed or waits */
        broker_done_fn done;
        void *userdata;
};

/* What the ledger is told at the next commit. */
struct note {
        enum row_kind kind;
        uint64_t id;
};

struct book {
        struct ledger *ledger; /* NULL: nothing survives */
        struct row_writer row;
        struct note *notes;
        size_t n_notes, capacity;
        bool incomplete;          /* there was no memory for a note: everything must be told */
        bool rewriting, alone;    /* everything is being told ... */
        uint64_t told;            /* ... up to the object of this handle */
        bool damaged;             /* what was read was not whole */
        bool withheld, told_withheld; /* there may be memory of regions that are not known any more: it is left alone; and
                                       * the ledger knows that */
        uint32_t owner_id, session_id, generation; /* what the ledger knows: at least as much as was given */
        uint64_t region_id;
        struct source_job *held, **held_tail; /* that begin after the commit of what they follow from */
        uint64_t lost_bytes, barred_bytes;
        unsigned lost_devices;
        struct failure lost_why; /* of the last one */
};

struct broker {
        struct broker_options options;
        struct book book;
        struct handle_table handles;
        struct owner *owners;
        uint32_t last_owner_id, last_session_id;
        uint64_t last_region_id;
        uint64_t quota_changes; /* counts them, from 1 */
        broker_event_fn listener;
        void *listener_userdata;
        struct template *templates;
        struct supply *supplies;  /* of device memory */
        struct supply *anonymous; /* for what is swapped out; its next one is the first of supplies; or NULL */
        struct broker_counts counts;
        uint64_t counters[COUNTERS];
        uint64_t bytes; /* in allocations */
        struct guarantee unmet[2]; /* over all owners; the second of those whose memory only guests can map */
        struct waiter *waiters;  /* of all holders, not yet answered */
        struct waiter *answered; /* ... whose answers are about to be told */
        struct holder *due;      /* whose waiters may be served */
        struct part *idle_parts; /* of bounce pools, unused, longest first */
        struct request *finished;
        struct request *submitted; /* not yet answered, by request_submit() */
        uint64_t n_requests; /* in the owners' queues */
        uint32_t turn;       /* id of the owner that was served last */
        uint64_t round;      /* counts owner_serve() */
        uint64_t recalls;    /* counts what holders were asked to recall */
        uint64_t returned;   /* counts jobs that brought memory */
        bool leaving; /* nothing is done to memory any more */
        bool serving, serve_again;
        bool pressed;        /* it was told that requests wait */
        bool host_pressed;   /* it was told that the host wants memory back */
        bool host_short;     /* ... and it still does */
        struct release *releases; /* the first is served first */
        uint64_t pressed_ms; /* when */
        struct grant *grants;
        grant_ended_fn grant_ended;
        void *grant_userdata;
        struct pool *spare;  /* pools that have slabs to give back, longest first */
        struct tray *trays; /* in which allocations lie: those with room */
        struct resting *quarantine; /* what rests: the one whose time is over first */
        uint64_t resting_bytes, last_resting_id;
};

/* From whose reserve this device is served, or NULL: from what is everybody's. */
static inline struct device *device_lender(struct device *device) {
        return device->owner->commons ? device->owner->commons : device->reserve ? device : NULL;
}

static inline struct device *request_reserve(const struct request *request) {
        return request->kind == REQUEST_ALLOC && !request->anonymous ? device_lender(request->device) : NULL;
}

/* Whether what is reserved for the one serves the other. */
static inline bool device_lends(const struct device *lender, const struct device *device) {
        return lender == device || (lender->is_commons && lender->owner == device->owner);
}

/* Memory is either for guests who are granted their windows, and only they can map it; or for all others. */
static inline bool supply_is_granted(const struct supply *supply) {
        return supply->info.flags & SOURCE_GUESTS;
}

/* Of which of the two the owner's is. */
static inline bool owner_is_granted(const struct owner *owner) {
        return owner->commons && translator_grants(owner->commons->translator);
}

static inline bool supply_grants(const struct supply *supply, const struct request *request) {
        const bool is_granted = request->device->is_commons && translator_grants(request->device->translator);

        return supply_is_granted(supply) == is_granted;
}

/* Whether its memory can go to who asks, and to a device that is behind an IOMMU, if it is for one. */
static inline bool supply_suits(const struct supply *supply, const struct request *request) {
        if (!supply_grants(supply, request))
                return false;
        return !(supply->info.flags & SOURCE_APART) || request->anonymous || !translator_translates(request->device->translator);
}

/* The first of all. */
static inline struct supply *every_supply(const struct broker *broker) {
        return broker->anonymous ? broker->anonymous : broker->supplies;
}

static inline uint64_t now_ms(const struct broker *broker) {
        return broker->options.now_ms(broker->options.userdata);
}

static inline uint64_t round_up(uint64_t value, uint64_t granule) {
        return (value + granule - 1) & ~(granule - 1);
}

/* A moment this long after another, or never. */
static inline uint64_t later(uint64_t time_ms, uint64_t ms) {
        return ms > UINT64_MAX - time_ms ? UINT64_MAX : time_ms + ms;
}

static inline bool power_of_two(uint64_t value) {
        return value && !(value & (value - 1));
}

static inline uint64_t smaller(uint64_t a, uint64_t b) {
        return a < b ? a : b;
}

static inline uint64_t larger(uint64_t a, uint64_t b) {
        return a > b ? a : b;
}

static inline struct alloc *resting_alloc(const struct resting *resting) {
        return (struct alloc *)((char *)resting - offsetof(struct alloc, resting));
}

/* How much of [addr, addr+size) lies below 4 GiB. */
static inline uint64_t low_part(uint64_t addr, uint64_t size) {
        return addr > LOW_LIMIT ? 0 : smaller(size, LOW_LIMIT + 1 - addr);
}

/* owner.c */
/* It has its owner and its number: it is in the books from here on, but the ledger is not told. */
void session_enter(struct session *session);
int owner_get(struct broker *broker, const char *name, struct owner **ret);
struct owner *owner_find(struct broker *broker, const char *name);
/* Frees the owner if it holds nothing and nothing was said about it. */
void owner_forget(struct owner *owner);
void owner_free(struct owner *owner);
/* 0, or quota with the numbers. */
int owner_check(const struct owner *owner, enum quota_kind kind, uint64_t more, struct failure *failure);
/* What a list is about: of the objects of a kind, those that the caller wants and may see, in the order of their slots. */
struct selection {
        const struct handle_table *handles;
        const struct owner *owner; /* whose; may be NULL: of somebody who has never been here */
        bool all;                  /* everybody's */
        uint64_t device;           /* of this one; 0: of all */
        uint64_t after;
};
/* owner NULL: the caller's own, or everybody's for an administrator. Reasons: not_permitted, unknown_handle (the device). */
int selection_begin(struct selection *selection, const struct caller *caller, const char *owner, uint64_t device,
                    uint64_t after, struct failure *failure);
void *selection_next(struct selection *selection, enum handle_kind kind);
/* Whether an object of this owner and device is one of them. device NULL: it is of none. */
bool selection_has(const struct selection *selection, const struct owner *owner, const struct device *device);
/* *ret_key NULL: no key was given. 1: the key is known, *ret_key holds its handle. 0: a new one was made. */
int key_begin(struct owner *owner, const char *text, enum handle_kind kind, uint64_t digest, struct request_key **ret_key,
              struct failure *failure);
void key_forget(struct owner *owner, struct request_key *key);
/* The object if the caller may know of it: its own or, for an administrator, anybody's. */
int handle_not_found(const struct caller *caller, enum handle_kind kind, uint64_t handle, struct failure *failure);

static inline bool supply_chooses(const struct supply *supply) {
        return supply->info.flags & SOURCE_CHOOSES;
}

/* The key of an object that is read from the ledger. -EBADMSG: another object has it; -ENOMEM. */
int key_restore(struct owner *owner, const char *text, enum handle_kind kind, uint64_t digest, uint64_t handle,
                struct request_key **ret);

/* save.c */
/* The object is new, has changed, or is no more: the ledger is told at the next commit. */
void book_note(struct broker *broker, enum row_kind kind, uint64_t id);
/* Rows of what has no handle are told as they are at this moment: begin, write the fields, end. NULL: nothing survives. */
struct row_writer *book_begin(struct broker *broker);
void book_end(struct broker *broker, enum row_kind kind, uint64_t id);
void book_drop(struct broker *broker, enum row_kind kind, uint64_t id);
/* The job begins when what it follows from is true for good. */
void book_hold(struct broker *broker, struct source_job *job);
/* Begin them. */
void book_release(struct broker *broker);
void row_key(struct row_writer *row, const struct request_key *key);
/* Every row that there is, as it is now, to whatever ledger the book has. */
void book_tell_all(struct broker *broker);

/* load.c */
/* Objects by a number that is theirs for ever: there may be few of them, and their numbers large. */
struct numbers {
        struct numbered {
                uint64_t id;
                void *object;
        } *all;
        size_t n, capacity;
};

/* What is read, and what has been found so far. */
struct load {
        struct broker *broker;
        struct failure *failure;
        struct row_reader row;
        uint64_t id; /* of the row */
        struct numbers owners, sessions;
};
struct owner *load_owner(struct load *load);
struct session *load_session(struct load *load);
void *load_object(struct load *load, enum handle_kind kind);
/* One that is none is damage of the row. */
enum dma_direction load_direction(struct load *load);
struct request_key *load_key(struct load *load, struct owner *owner, enum handle_kind kind);

/* supply.c */
void supply_free(struct supply *supply);
/* Whether a live region lies in [addr, addr+size). */
bool supply_claims(const struct supply *supply, uint64_t addr, uint64_t size);
/* Get the memory that it shall hold from the start. */
int supply_begin(struct supply *supply);
/* Look for a run of stock on this node and carve it for the request. 0: under way. -ENOSPC: none suits. Else final. */
int supply_carve(struct supply *supply, struct request *request, const struct arena_request *want, int node,
                 struct failure *failure);
/* Have a source that chooses the address itself make a region for the request. 0: under way. -ENOSPC: it does not choose,
 * or has nothing that this request may have. Else final. */
int supply_choose(struct supply *supply, struct request *request, struct failure *failure);
/* Ask the system for more, for a request that needs `size`. 0: under way. -ENOSPC: there is not enough. Else final: the
 * owner could not have it. */
int supply_grow(struct supply *supply, struct request *request, uint64_t size, int node);
int supply_zero(struct supply *supply, struct request *request);
/* Copy what is moved to the request's block. */
int supply_copy(struct supply *supply, struct request *request, const struct alloc *moved);
/* done runs with the job's status and failure; the region stays until then. */
int supply_verify(struct region *region, void (*done)(struct supply_job *job), void *userdata);
void supply_restore(struct region *region);
void supply_tick(struct supply *supply, uint64_t now);
/* Give at most so much stock back to the system, in whole grains: how much it will be. What has to stay does. */
uint64_t supply_shrink(struct supply *supply, uint64_t most);
/* Bytes that a source may give back, if nobody holds them: beyond its reserve; of all, beyond the minimum. */
uint64_t supply_above_reserve(const struct supply *supply);
uint64_t supplies_above_minimum(const struct broker *broker);
uint64_t supply_deadline(const struct supply *supply);
uint64_t supply_emergency(const struct supply *supply);
/* Free bytes in stock within [0, limit], and the largest piece. */
void supply_usage(const struct supply *supply, uint64_t limit, uint64_t *ret_free, uint64_t *ret_largest);
/* Forget nothing, do the next completions, blocking. */
void supply_wait(struct supply *supply);

/* region.c */
/* Where in supply->regions the first region at or above addr is. */
size_t region_index(const struct supply *supply, uint64_t addr);
/* Pages that a region of this size is granted by, if its owner is a guest that maps it itself. */
uint64_t supply_granted_pages(const struct supply *supply, uint64_t size);
/* What its regions are charged as, and whether they are no device's. */
enum quota_kind supply_quota(const struct supply *supply);
bool region_is_anonymous(const struct region *region);
/* Charge its bytes, or no longer. */
void region_hold(struct region *region);
void region_unhold(struct region *region);
/* A region that is being carved, charged to its owner. */
int region_new(struct supply *supply, struct owner *owner, uint64_t addr, uint64_t size, int node, struct region **ret,
               struct failure *failure);
int region_go_live(struct region *region, struct request *request);
/* It has its handle, device or window: it is in the books from here on. */
void region_enter(struct region *region);
int region_join(struct region *region);
void region_save(struct row_writer *row, const struct region *region);
int region_load(struct load *load);
void region_discard(struct region *region);
/* Give an unused region back; it is no longer the caller's. */
void region_restore(struct region *region);
/* Its device gets nothing there any more; what lies in it stays. -ENOMEM. */
int region_withdraw(struct region *region);
void region_reinstate(struct region *region);
/* An allocated block of its arena is nobody's any more. */
void region_put_block(struct region *region, uint32_t number);
void region_use(struct region *region, uint64_t size);
void region_unuse(struct region *region, uint64_t size);
struct region *region_at(struct broker *broker, uint64_t addr);
int region_find(const struct caller *caller, uint64_t handle, struct region **ret, struct failure *failure);
struct arena *region_arena(const struct region *region);

/* bar.c */
extern const struct resting_ops bar_resting_ops;
/* What seems free of it may be somebody's: it rests until an administrator says so. -ENOMEM. */
int region_bar(struct region *region);
/* Nothing is barred any more of memory that is reserved for this device, or of all that the owner has. */
void device_unbar(struct device *device);
void owner_unbar(struct owner *owner);
/* Nobody is left who could have anything of it: it rests as long as whatever anybody has had. */
void region_unbar_later(struct region *region);
void owner_unbar_later(struct owner *owner);
/* Whether that is so of memory that is reserved for this device. */
bool device_is_barred(const struct device *device);
void bar_save(const struct region *region);
int bar_load(struct load *load);

/* budget.c */
/* That of the devices of this name, for one more of them. limits: of a new one; NULL: none. -ENOMEM. */
int budget_get(struct owner *owner, const char *name, const struct quota *limits, struct budget **ret);
void budget_put(struct owner *owner, struct budget *budget);
void budgets_free(struct owner *owner);
/* Those that an administrator has set. */
void budgets_save(struct row_writer *row, const struct owner *owner);
int budgets_load(struct load *load, struct owner *owner);
/* owner_check(), and the same of the device. */
int device_check(const struct device *device, enum quota_kind kind, uint64_t more, struct failure *failure);
void device_charge(struct device *device, enum quota_kind kind, uint64_t amount);
void device_discharge(struct device *device, enum quota_kind kind, uint64_t amount);

/* guarantee.c */
/* The owner is given a region, at this machine address, or it has gone back. */
void owner_hold(struct owner *owner, uint64_t addr, uint64_t size);
void owner_unhold(struct owner *owner, uint64_t addr, uint64_t size);
struct guarantee guarantee_unmet(const struct owner *owner);
void guarantee_save(struct row_writer *row, const struct owner *owner);
void guarantee_load(struct load *load, struct owner *owner);
/* Whether all of this is what the owner was guaranteed. */
bool guarantee_covers(const struct owner *owner, uint64_t low, uint64_t high);
/* Whether there is enough for everybody's guarantee once the owner has taken this, low bytes below 4 GiB and high above.
 * spared: the emergency reserves need not be left as well. */
bool guarantee_allows(const struct owner *owner, bool spared, uint64_t low, uint64_t high);
/* Bytes that must stay free for others than this owner. */
uint64_t guarantees_of_others(const struct owner *owner);
/* Bytes of stock beyond what must stay free, in this supply and in others that serve the same owners. */
uint64_t guarantees_spare(const struct supply *supply);
/* Of all owners, counted anew. */
struct guarantee guarantees_count(const struct broker *broker, bool granted);
/* From whose reserve all of the owner's devices are served from here on; NULL: there is none. */
void owner_set_commons(struct owner *owner, struct device *device);
/* The largest grain has changed. */
void guarantees_recount(struct broker *broker);

/* device.c */
void device_save(struct row_writer *row, const struct device *device);
int device_load(struct load *load);
/* What resting_save() said of the device of an allocation, which is no more; and nobody can find it. -errno. */
void device_save_hidden(struct row_writer *row, const struct device *device);
int device_load_hidden(struct load *load, struct owner *owner, struct device **ret);
/* The caller's own or, for an administrator, anybody's. */
/* What windows lie in is nobody's but the session's that has opened it: whoever could close it would take away what a guest has
 * mapped. */
bool device_is_hidden(const struct device *device, const struct caller *caller);
int device_find(const struct caller *caller, uint64_t handle, struct device **ret, struct failure *failure);
void device_free(struct device *device);
/* The allocations that are left and go with a session. */
void devices_tell_leaks(const struct session *session);
/* Frees a device that was closed, or that has outlived its session, once nothing holds it. */
void device_forget(struct device *device);
/* Nobody can find it any more. */
void device_hide(struct device *device);
/* Something of it is left that is not just resting. */
bool device_holds(const struct device *device);
void template_free(struct template *template);
/* Have a device reach [addr, addr+size) of a region, by a dma address like `reach`. -errno with a sentence. */
int device_map(const struct device *device, const struct region *region, uint64_t addr, uint64_t size,
               enum dma_direction direction, const struct arena_request *reach, uint64_t *ret_dma, struct failure *failure);
/* Its translator does not have it any more: what it reaches nobody knows. */
bool device_is_lost(const struct device *device);
/* 0, or -errno: it may reach it still. */
int device_unmap(const struct device *device, uint64_t dma_addr, uint64_t size);
/* After a restart: it reaches it there as before. Where that cannot be had, the device is lost. */
void device_remap(struct device *device, const struct region *region, uint64_t addr, uint64_t size,
                  enum dma_direction direction, uint64_t dma_addr);

/* tray.c */
/* All zero, to be given back with tray_put(). NULL: no memory. */
struct alloc *tray_take(struct broker *broker);
void tray_put(struct broker *broker, struct alloc *alloc);

/* coherent.c */
void alloc_save(struct row_writer *row, const struct alloc *alloc);
int alloc_load(struct load *load);
void resting_save(struct broker *broker, const struct alloc *alloc);
int resting_load(struct load *load);
extern const struct resting_ops alloc_resting_ops;
/* Make request->block, which lies in request->region and is taken, an allocation. */
int alloc_new(struct request *request, struct alloc **ret);
void alloc_free(struct alloc *alloc);
/* The same for what was a vanished client's, or of which a holder that ends has pieces that were: after the quarantine, or when
 * the device is closed; at once, where nothing but the translation has let the device reach it. */
void alloc_rest(struct alloc *alloc);
/* It is given back in order: only those may write there whose mappings of it were ended from under them. */
void alloc_return(struct alloc *alloc);
/* The same of all that a device has when it is closed. What rests for its sake need not rest any more. */
void allocs_close(struct device *device);
/* This device, which is not its own, has lost its mapping of it, and may not know. reached: nobody can say that it has. */
void alloc_expose(struct alloc *alloc, const struct device *device, bool reached);
/* Whether it goes with this session: with its device's, or on a device that has outlived its own, with the one that asked
 * for it. */
bool alloc_leaves(const struct alloc *alloc, const struct session *session);
uint64_t alloc_addr(const struct alloc *alloc);
uint64_t alloc_size(const struct alloc *alloc);
uint64_t alloc_dma_addr(const struct alloc *alloc);
/* One address of the same byte in it for the other. */
uint64_t alloc_dma_at(const struct alloc *alloc, uint64_t addr);
uint64_t alloc_addr_at(const struct alloc *alloc, uint64_t dma_addr);
void alloc_look(const struct alloc *alloc, struct alloc_view *ret);
/* An allocation by an address inside it, or NULL. Behind IOMMUs the same dma address may be several owners'. owner NULL:
 * anybody's. Diagnosis: it walks. */
struct alloc *alloc_at(struct broker *broker, const struct owner *owner, uint64_t addr, bool machine);
int bad_address(uint64_t addr, struct failure *failure);
/* 2^n-1 and at least a page. */
int mask_check(uint64_t mask, struct failure *failure);

/* The caller's own or, for an administrator, anybody's. */
int alloc_find(const struct caller *caller, uint64_t handle, struct alloc **ret, struct failure *failure);
/* Something holds it; with a sentence. */
int alloc_check_idle(const struct alloc *alloc, struct failure *failure);
/* It was swapped out. */
static inline bool alloc_is_anonymous(const struct alloc *alloc) {
        return alloc->flags & ALLOC_ANONYMOUS;
}
/* The device's constraints and the request's, whichever are tighter. */
int want_make(const struct device *device, const struct alloc_request *ask, struct arena_request *ret,
              struct failure *failure);
/* What memory is wanted for a request that is to have such dma addresses. */
void request_want(struct request *request, const struct arena_request *reach);
/* A new request, charged to nobody yet; or NULL, and it has been answered: refused for the reason in `failure` if r says
 * so, or told again what its key stands for. */
struct request *request_admit(struct device *device, enum request_kind kind, const char *key_text, uint64_t digest, int r,
                              struct failure *failure, broker_done_fn done, void *userdata);

/* move.c */
/* What a request moves, or NULL: it has ended meanwhile. */
struct alloc *request_moved(const struct request *request);
/* The request leaves: it has what it moves, or does not get it. */
void move_end(const struct request *request);
/* `alloc` is what request->moved was from here on. */
void move_finish(struct request *request, struct alloc *alloc);

/* Memory for a holder, which frees it with alloc_free(). Answered like coherent_alloc(). No waiter is too many: whoever
 * needs the memory was let in already. */
struct ticket *alloc_for_holder(struct holder *holder, const struct arena_request *want, uint64_t wait_ms, bool high,
                                broker_done_fn done, void *userdata);
struct device *device_of(const struct caller *caller, uint64_t handle, struct failure *failure);
int power_check(uint64_t value, const char *name, enum reason reason, struct failure *failure);
uint64_t tightest(uint64_t a, uint64_t b); /* of two limits of which 0 is none */

/* lease.c */
void lease_save(struct row_writer *row, const struct lease *lease);
int lease_load(struct load *load);
/* A new lease of the session; charged. The pieces are taken already. */
int lease_new(struct session *session, struct holder *holder, struct alloc *alloc, uint64_t addr, uint64_t count,
              struct request_key *key, struct lease **ret, struct failure *failure);
void lease_end(struct lease *lease, bool died);
void leases_end(struct session *session, bool died);
/* Ask those who have leases of this holder to return what they do not use. */
void holder_recall(struct holder *holder, uint64_t bytes);
/* Ask everybody who has what this request could be served from, because it finds no memory. */
void leases_recall(struct broker *broker, const struct request *request);
void event_tell(struct broker *broker, const struct event *event);

/* wait.c */
/* A waiter of `size` bytes, charged to nobody yet, to be submitted or freed. NULL: quota or no_memory. */
void *waiter_new(size_t size, struct session *session, struct holder *holder, uint64_t wait_ms, bool high,
                 struct failure *failure);
/* The waiter is the queue's from now on. NULL: it has been answered. */
struct ticket *waiter_submit(struct waiter *waiter);
void waiter_cancel(struct ticket *ticket);
/* Something has changed for those who wait for this holder; they are served when the books are in order. */
void holder_due(struct holder *holder);
void holders_serve(struct broker *broker);
void waiters_deliver(struct broker *broker);
/* Like requests_serve(), after changes from which only those gain who wait for a holder. */
void waiters_serve(struct broker *broker);
/* Answer them with `gone`: the holder ends. */
void waiters_end(struct holder *holder);
void waiters_end_session(struct session *session);
void waiters_tick(struct broker *broker, uint64_t now);
uint64_t waiters_deadline(const struct broker *broker);

/* quarantine.c */
/* How long what this device may still write rests; 0: it does not. */
uint64_t quarantine_ms(const struct device *device);
/* The longest of any device. */
uint64_t quarantine_longest(const struct broker *broker);
/* It rests from now on, or it does no longer. bytes: so many more rest, or fewer; they are the caller's to count. */
void quarantine_enter(struct broker *broker, struct resting *resting, enum resting_kind kind, uint64_t until_ms,
                      uint64_t bytes);
void quarantine_leave(struct broker *broker, struct resting *resting, uint64_t bytes);
/* The same of an allocation, which is found by its device too. */
void quarantine_enter_alloc(struct alloc *alloc, uint64_t until_ms);
void quarantine_leave_alloc(struct alloc *alloc);
/* Free what rests for this device's sake. */
void quarantine_end_device(struct device *device);
/* All of a heap, from its top, in no order; NULL: that was the last. */
struct resting *resting_next(struct resting *resting);
void quarantine_tick(struct broker *broker, uint64_t now);
uint64_t quarantine_deadline(const struct broker *broker);

/* pool.c, and slab.c: what a pool is made of */
struct pool;
extern const struct resting_ops blocks_resting_ops;
void pool_save(struct row_writer *row, const struct pool *pool);
/* Its blocks, one by one. */
void pool_save_blocks(struct pool *pool);
int pool_load(struct load *load);
/* The allocation, which has been read, is a slab of the pool. */
int pool_load_slab(struct pool *pool, struct alloc *alloc);
int pool_load_lease(struct lease *lease);
int answer_load(struct load *load);
int block_load(struct load *load);

/* pool.c */
void pools_end(struct device *device);
/* Those that this session made, unless other sessions have something of them: then they go with one of those. */
void pools_leave(struct device *device, const struct session *session);
/* What a session has been given one by one, in any pool. */
void pools_end_session(struct session *session, bool died);
/* Give idle slabs back, for this request. true: look again. */
bool pools_reclaim(struct broker *broker, const struct request *request);
/* Give idle slabs back, so many bytes if there are, that are not in memory which is reserved for a device. True: any. */
bool pools_trim(struct broker *broker, uint64_t most);
void pools_tick(struct broker *broker, uint64_t now);
uint64_t pools_deadline(const struct broker *broker);

/* bounce.c */
struct bounce;
extern const struct resting_ops slots_resting_ops;
bool bounce_is_made(const struct bounce *bounce);
void bounce_save(struct row_writer *row, const struct bounce *bounce);
void bounce_save_rests(struct bounce *bounce);
int bounce_load(struct load *load);
int bounce_load_part(struct bounce *bounce, struct alloc *alloc);
int bounce_load_lease(struct lease *lease);
int bounce_load_mapping(struct mapping *mapping);
int rest_load(struct load *load);
void bounces_loaded(struct device *device);
void bounces_end(struct device *device);
void bounces_leave(struct device *device, const struct session *session);
/* Give idle parts back, for this request. true: it is worth another attempt. */
bool bounces_reclaim(struct broker *broker, const struct request *request);
/* The same for whoever may need it, but for memory that is reserved for a device. True: any. */
bool bounces_trim(struct broker *broker);
/* The slots of a mapping that ends are the pool's again; died: its client vanished. */
void bounce_unmapped(const struct mapping *mapping, bool died);
void bounce_synced(struct holder *holder);
void bounces_tick(struct broker *broker, uint64_t now);
uint64_t bounces_deadline(const struct broker *broker);

/* mapping.c */
void mapping_save(struct row_writer *row, const struct mapping *mapping);
int mapping_load(struct load *load);
/* A new mapping of session, device, holder, alloc, addresses, size, slots, direction and key as in `like`; charged. */
int mapping_new(const struct mapping *like, struct mapping **ret, struct failure *failure);
void mapping_end(struct mapping *mapping, bool died);
void mapping_look(const struct mapping *mapping, struct mapping_view *ret);
void mappings_end(struct device *device);
/* But for those of bounce pools, which end with these. */
void mappings_leave(struct device *device, bool died);
/* What any device has mapped of it, by whichever session. The devices of its owner are kept meanwhile. */
void mappings_end_alloc(const struct alloc *alloc);
void mappings_end_session(struct session *session, bool died);

/* grant.c */
void grant_save(struct row_writer *row, const struct grant *grant);
int grant_load(struct load *load);
void grants_end_session(struct session *session);
/* Of all its sessions. */
uint64_t grants_count_pages(const struct owner *owner);

/* check.c */
struct check;
void check_complain(struct check *check, const char *what, uint64_t handle, const char *format, ...)
        __attribute__((format(printf, 4, 5)));
void check_equal(struct check *check, const char *what, uint64_t handle, const char *name, uint64_t said, uint64_t counted);
void check_arena(struct check *check, const char *what, const struct arena *arena);
/* Their books; what they count as the owner's is added to `counted`. */
void check_pools(struct check *check, const struct device *device, struct quota *counted);
void check_bounces(struct check *check, const struct device *device, struct quota *counted);
void check_mappings(struct check *check, const struct device *device, struct quota *counted);
/* The ledger, which is written first. */
void check_book(struct check *check, struct broker *broker);
void check_quarantine(struct check *check, const struct broker *broker);

/* release.c */
void release_note(struct broker *broker, uint64_t bytes);
void releases_serve(struct broker *broker);
uint64_t releases_deadline(const struct broker *broker);
/* Answer them with `gone`. */
void releases_end(struct broker *broker);

/* request.c */
/* Queues the request, which is the queue's from now on, and serves it if it can be. NULL: it has been answered. */
struct ticket *request_submit(struct request *request);
void request_cancel(struct ticket *ticket);
/* The same in the middle of a change: nobody else is served yet. */
void request_withdraw(struct ticket *ticket);
/* Answer at once. */
void request_refuse(broker_done_fn done, void *userdata, const struct failure *failure);
/* Serve what can be served, round-robin over the owners. */
void requests_serve(struct broker *broker);
/* End an owner's requests that use this device with `gone`. A holder withdraws its own when it ends. */
void requests_end(struct owner *owner, const struct device *device);
/* The same for what a session has asked for. */
void requests_end_session(const struct session *session);
/* Whether something that is not ended waits for memory for this device. */
bool requests_want(const struct device *device);
void requests_tick(struct broker *broker, uint64_t now);
uint64_t requests_deadline(const struct broker *broker);
/* A job of the request ended. failure may be unset. */
void request_job_done(struct request *request, int status, const struct failure *failure);

/* attempt.c */
enum { ATTEMPT_WORKING = 1, ATTEMPT_BLOCKED = 2 };
/* 0: done, the request has its handle. -errno: never, request->failure says why. Else ATTEMPT_*. */
int request_attempt(struct request *request);
/* Whether it could be served now; with request->failure set when not. */
bool request_possible(struct request *request);
/* Give up memory that was taken for it and not yet made an allocation. */
void request_release(struct request *request);

#endif
