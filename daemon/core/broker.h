/* The broker: owners, their sessions, devices, regions and allocations, and the memory sources behind them. This is the
 * core's whole face; whoever speaks a protocol calls these functions and nothing else.
 *
 * All calls come from one thread. Functions that can fail return 0 or -errno and fill `failure` (which may be NULL) on
 * error; nothing has changed then. Sizes, offsets and addresses are in bytes, times in milliseconds of the clock that was
 * given to broker_new(). Handles are never reused. Strings and views returned by reference live until the next call. */
#ifndef DMAB_CORE_BROKER_H
#define DMAB_CORE_BROKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core/failure.h"
#include "daemon/core/source.h"
#include "daemon/core/translator.h"

struct broker;
struct session;

/* A request that is not answered yet: the first member of whatever waits. */
struct ticket {
        void (*cancel)(struct ticket *ticket);
};
struct ledger; /* see daemon/core/ledger.h */

/* What an owner may hold. The order is the order in which they are told. */
#define QUOTA_LIST(QUOTA)                                                            \
        QUOTA(bytes, "bytes of coherent allocations")                                \
        QUOTA(held_bytes, "bytes of regions, the unused parts of them included")     \
        QUOTA(low_bytes, "bytes of allocations and reserved regions below 4 GiB")    \
        QUOTA(allocs, "coherent allocations")                                        \
        QUOTA(devices, "open devices")                                               \
        QUOTA(regions, "regions")                                                    \
        QUOTA(pools, "pools and bounce pools")                                       \
        QUOTA(leases, "leases")                                                      \
        QUOTA(mappings, "mappings")                                                  \
        QUOTA(waiters, "requests that wait for memory")                              \
        QUOTA(connections, "connections and sessions")                               \
        QUOTA(calls_per_second, "calls in a second")                                 \
        QUOTA(anonymous_bytes, "bytes of ordinary memory with what was swapped out") \
        QUOTA(grants, "pages of 4 KiB that are granted to guests of Xen's, or by them")

enum quota_kind {
#define QUOTA_ENUM(name, text) QUOTA_##name,
        QUOTA_LIST(QUOTA_ENUM)
#undef QUOTA_ENUM
        QUOTA_KINDS
};

/* Those that can be limited for each device too. */
#define QUOTA_OF_DEVICES                                                                                          \
        (1u << QUOTA_bytes | 1u << QUOTA_low_bytes | 1u << QUOTA_allocs | 1u << QUOTA_pools | 1u << QUOTA_leases | \
         1u << QUOTA_mappings | 1u << QUOTA_waiters)

#define QUOTA_UNLIMITED UINT64_MAX

struct quota {
        uint64_t of[QUOTA_KINDS];
};

const char *quota_name(enum quota_kind kind);

struct broker_options {
        uint64_t (*now_ms)(void *userdata); /* monotonic */
        void *userdata;
        struct quota quota;           /* of owners that nothing else was said about */
        uint64_t region_idle_ms;      /* an unused region goes back to stock after this long */
        unsigned low_keep_percent;    /* of the memory below 4 GiB that only narrow masks may use, where there is memory above */
        unsigned emergency_permille;  /* of each source's memory that only `priority: high` may use */
        uint64_t emergency_max;       /* ... but never more than this many bytes */
        uint64_t minimum;             /* bytes of all sources together that are not given back to the system */
        uint64_t regions_max;         /* of all owners together: each takes file descriptors of the process */
        uint64_t quarantine_ms;       /* what a vanished client had rests this long, see quarantine_visit() */
        bool survives;                /* broker_load() follows when all sources have been added */
        const struct translator_ops *const *translators; /* ends with NULL; in order of precedence */
};

void broker_options_default(struct broker_options *ret);

int broker_new(const struct broker_options *options, struct broker **ret);
/* Ends every session, restores every region, closes every source. Blocks until the sources' work is done. NULL is fine. */
struct broker *broker_free(struct broker *broker);
/* Take over what may change while running: everything but the clock and the translators. */
void broker_reconfigure(struct broker *broker, const struct broker_options *options);

/* Consumes the source, also on failure. Its reserve begins to arrive at once, see broker_settled(). */
int broker_add_source(struct broker *broker, struct source *source);
/* True when no job is under way. */
bool broker_settled(const struct broker *broker);
/* Answers a request once: with NULL, or with why not. Not called any more once the ticket was cancelled. */
typedef void (*broker_done_fn)(void *userdata, const struct failure *failure, uint64_t handle);

/* ---- what survives the daemon ---- */

/* Become what another daemon was, as the ledger knows it, and tell the ledger of every change from now on. After all sources
 * have been added and before anything else; the ledger must outlive the broker. Reasons: source_unavailable (the ledger knows
 * of memory of a source that is not here), no_memory. Nothing of what the ledger knows is lost when it fails. */
int broker_load(struct broker *broker, struct ledger *ledger, struct failure *failure);
/* What has happened since the last commit is true for good, also if the daemon dies now. To be called before anything is
 * answered, and before the daemon waits for anything: memory moves only then. -errno: try again later, and answer nobody
 * until then. Not from within an answer or an event. */
int broker_commit(struct broker *broker);
bool broker_is_dirty(const struct broker *broker);
/* 0, or why nothing more can be promised: the ledger has no room. What is there can be given back even so. last: for whoever
 * comes to give back, who may have part of the room that is left for that. */
int broker_room(struct broker *broker, bool last, struct failure *failure);

struct broker_loaded {
        bool damaged;          /* part of the ledger could not be read */
        bool withheld;         /* ... now or at an earlier start: what is kept and not known is left alone until an administrator
                                * says that it is nobody's, see quarantine_release() */
        uint64_t lost_bytes;   /* of regions whose memory is not there any more */
        uint64_t barred_bytes; /* of memory that may be somebody's: it rests, see quarantine_visit() */
        unsigned lost_devices; /* that nobody can map memory for any more; what they have had is not used again */
        const char *lost_why;  /* a sentence about the last one */
};
void broker_loaded(const struct broker *broker, struct broker_loaded *ret);
/* End, and leave everything as it is for the next daemon, which finds it by the ledger. */
struct broker *broker_leave(struct broker *broker);

/* The moment at which broker_tick() wants to run, UINT64_MAX for never. */
uint64_t broker_deadline(const struct broker *broker);
/* Deadlines of waiting requests, idle regions and idle stock. */
void broker_tick(struct broker *broker);

/* ---- owners and sessions ---- */

/* owner: e.g. "user:1000"; the caller has proved who it is. A session holds devices and allocations until it ends.
 * The caller has asked broker_room(). Reasons: quota (connections), no_memory. */
int session_open(struct broker *broker, const char *owner, struct session **ret, struct failure *failure);
/* Frees what the session holds: allocations whose lifetime is not `owner`, devices that have no other allocations, and
 * cancels what waits. NULL is fine. */
struct session *session_close(struct session *session);
/* The same for a session whose client is gone without a word: what it had of pools may still be written by a device, so it
 * is reused only after the quarantine, also when the pool or the session's device ends before that; but not when a device
 * is closed, which then is known to be quiet. Until then its memory counts as its owner's. */
struct session *session_abandon(struct session *session);
/* The same for what the daemon itself holds of an owner's: it counts against no quota. */
int session_open_own(struct broker *broker, const char *owner, struct session **ret, struct failure *failure);
/* It is such a one, which nobody remembers over a restart. */
void session_own(struct session *session);
/* What whoever opened it must know of it after a restart; copied. -ENOMEM. */
int session_set_note(struct session *session, const char *note);
const char *session_note(const struct session *session); /* or NULL */
/* The session may be closed by visit, which ends the visit with anything but 0. */
typedef int (*session_visit_fn)(struct session *session, void *userdata);
int broker_visit_sessions(struct broker *broker, session_visit_fn visit, void *userdata);
const char *session_owner(const struct session *session);
/* Not reused by another session. */
uint32_t session_id(const struct session *session);

/* Whoever calls: a session, and whether it may see and release what belongs to others. */
struct caller {
        struct session *session;
        bool admin;
};

/* Memory that an owner can have whenever it asks, counted like held_bytes, in whole regions. */
struct guarantee {
        uint64_t bytes;     /* wherever it lies */
        uint64_t low_bytes; /* beside these, below 4 GiB */
};

struct owner_view {
        const char *name;
        uint64_t device;         /* of which alone the rest tells, or 0 */
        const char *device_name; /* as it is counted, or NULL */
        struct quota limits, usage;
        struct guarantee guaranteed, unmet; /* not of a device */
};

/* owner NULL: the caller's own. Others: admin only (not_permitted). An owner that has never been here has the default limits. */
int quota_get(const struct caller *caller, const char *owner, struct owner_view *ret, struct failure *failure);
/* Lower than what is in use is allowed: nothing is taken away, nothing more is given. Admin only. mask: bit per kind to set. */
int quota_set(const struct caller *caller, const char *owner, unsigned mask, const struct quota *limits,
              struct failure *failure);
/* The same of one device, for all the times that its owner has opened it, now or later. Only kinds in QUOTA_OF_DEVICES.
 * Reasons: unknown_handle, bad_param, not_permitted. */
int quota_get_device(const struct caller *caller, uint64_t device, struct owner_view *ret, struct failure *failure);
int quota_set_device(const struct caller *caller, uint64_t device, unsigned mask, const struct quota *limits,
                     struct failure *failure);
/* The same without a caller: what the configuration says. */
int broker_set_quota(struct broker *broker, const char *owner, const struct quota *limits);
/* Guarantee an owner memory, instead of what it was guaranteed before: it is taken away from nobody, but not given to others
 * any more. Admin only. Reasons: no_memory (that is more than the sources can have, with what others are guaranteed). */
int guarantee_set(const struct caller *caller, const char *owner, const struct guarantee *guarantee,
                  struct failure *failure);
/* The same without a caller, and without a check: the sources may not be there yet. */
int broker_set_guarantee(struct broker *broker, const char *owner, const struct guarantee *guarantee);
/* Sums of all owners' whose memory only guests can map (granted), or of all others'. */
struct promises {
        struct guarantee guaranteed;
        struct guarantee unmet;    /* of these, what they do not hold: it stays free for them */
        struct guarantee possible; /* what can be guaranteed, as far as the sources can tell now; low_bytes are part of bytes */
};
void broker_promises(const struct broker *broker, bool granted, struct promises *ret);
/* Nothing is said about this owner any more: it has the default, also when that changes, and no guarantee. */
void broker_unset_quota(struct broker *broker, const char *owner);
/* The limit that is in force for an owner, whether or not it has ever been here. Connections beside sessions, and calls,
 * are counted by whoever sees them; such a one keeps the limit until quota_changes() tells another number. */
uint64_t quota_limit(const struct broker *broker, const char *owner, enum quota_kind kind);
uint64_t quota_changes(const struct broker *broker);
typedef int (*owner_visit_fn)(const struct owner_view *view, void *userdata);
int broker_visit_owners(struct broker *broker, owner_visit_fn visit, void *userdata);

/* ---- devices ---- */

/* What may be said of a device; 0 or NULL: nothing said. */
struct device_options {
        const char *name;
        const char *parent;
        uint64_t mask;           /* 2^n - 1; default: all ones */
        uint64_t coherent_mask;  /* default: mask */
        uint64_t boundary;       /* power of two */
        uint64_t max_segment;    /* largest allocation */
        uint64_t min_align_mask; /* 2^n - 1: alignment of everything */
        int node;                /* NUMA node, or -1 */
        uint64_t timeout_ms;
        uint64_t quarantine_ms;  /* only of the configuration: instead of the broker's; QUARANTINE_ENDLESS */
        bool commons;            /* what is reserved for it serves all devices of its owner, which get nothing else; never a
                                  * client's to say. One for each owner, which only the session that opens it can name. It
                                  * stays as long as anything lies in its reserve. */
        const char *request_key; /* or NULL */
        uint64_t request_digest; /* of the request's parameters, to tell a repeated request from another */
};

struct device_view {
        uint64_t handle;
        const char *name, *owner, *parent /* or NULL */, *via, *translation;
        uint64_t mask, coherent_mask, boundary, max_segment, min_align_mask;
        int node;
        uint64_t timeout_ms;
        uint64_t allocs, bytes, reserved_bytes;
        bool session_bound; /* ends with its session */
};

/* What the configuration says of a device by name: `dma` false means that it delegates to its parent. */
/* allow: owners that may have it as a whole, between blanks, where that makes them masters of a real device; or NULL. */
int broker_define_device(struct broker *broker, const struct device_options *options, bool dma, const char *allow);

/* The device itself, where its owner may drive it: borrowed; -1: there is none. The owner's own only. */
int device_fd(const struct caller *caller, uint64_t device, int *ret_fd, struct failure *failure);

typedef int (*translator_visit_fn)(const char *name, uint64_t devices, void *userdata);
/* Those that there are, with how many open devices each serves. */
int broker_visit_translators(const struct broker *broker, translator_visit_fn visit, void *userdata);

/* The configuration says nothing of it any more: no limits, and nobody may have it as a whole. */
void broker_forget_device(struct broker *broker, const char *name);

/* What each owner may have of it, unless an administrator said otherwise; NULL: no limits. -ENOENT: it is not defined. */
int broker_limit_device(struct broker *broker, const char *name, const struct quota *limits);

/* Reasons: bad_param, mask, boundary, unknown_device (the parent), quota, busy (same key under way). */
int device_open(const struct caller *caller, const struct device_options *options, uint64_t *ret_handle,
                struct failure *failure);
int device_get(const struct caller *caller, uint64_t device, struct device_view *ret, struct failure *failure);
int device_set_mask(const struct caller *caller, uint64_t device, uint64_t mask, bool coherent, struct failure *failure);
int device_supported(const struct caller *caller, uint64_t device, uint64_t mask, bool coherent, bool *ret,
                     struct failure *failure);
/* What a device still holds: an allocation, a pool, a bounce pool, or a mapping, which may be of a bounce pool. What belongs
 * to a pool is not told apart from it. */
struct leak_view {
        uint64_t alloc, pool, bounce, mapping; /* 0 for what it is not */
        const char *name;                      /* of a pool, or NULL */
        uint64_t size;
        uint64_t dma_addr; /* of a pool: 0 */
};
typedef int (*leak_visit_fn)(const struct leak_view *leak, void *userdata);
/* -EBUSY with what it still holds unless force, which frees it. The leak report is told in either case through visit. */
int device_close(const struct caller *caller, uint64_t device, bool force, leak_visit_fn visit, void *userdata,
                 struct failure *failure);
typedef int (*device_visit_fn)(const struct device_view *view, void *userdata);
/* The caller's own, or with admin those of `owner` (NULL: all). */
int device_visit(const struct caller *caller, const char *owner, device_visit_fn visit, void *userdata,
                 struct failure *failure);

struct reserve_request {
        uint64_t device, size;
        uint64_t mask;           /* 0: the device's coherent mask */
        uint64_t stride, usable; /* only the first `usable` bytes of every `stride` are used, a power of two; both or neither.
                                  * Of a commons `usable` alone: those at its beginning */
        const char *request_key;
        uint64_t request_digest;
};

/* The device is then served from its reserved regions and nobody else is. done gets the region's handle. */
struct ticket *device_reserve(const struct caller *caller, const struct reserve_request *request, broker_done_fn done,
                              void *userdata);
/* Reasons: unknown_handle, wrong_device, busy (allocations live in it). */
int device_unreserve(const struct caller *caller, uint64_t device, uint64_t region, struct failure *failure);
/* It stays reserved, and what lies in it stays, but nothing is allocated in it any more, also of what is freed there, until it
 * is reinstated. The ledger does not know: whoever withdraws it does so again after broker_load(). Twice is as good as once.
 * Reasons: unknown_handle, wrong_device, no_memory. */
int device_withdraw(const struct caller *caller, uint64_t device, uint64_t region, struct failure *failure);
/* Who waits for memory may have it. Reasons: unknown_handle, wrong_device. */
int device_reinstate(const struct caller *caller, uint64_t device, uint64_t region, struct failure *failure);

/* ---- coherent allocations ---- */

struct alloc_request {
        uint64_t device;
        uint64_t size;     /* rounded up to 4 KiB; told by the view */
        uint64_t align;    /* power of two; 0: 4 KiB */
        uint64_t boundary; /* power of two; 0: the device's */
        uint64_t mask;     /* 0: the device's coherent mask */
        uint64_t wait_ms;  /* 0: never wait for memory to become free */
        bool high, zero, shareable;
        bool owner_lifetime;
        const char *request_key;
        uint64_t request_digest;
};

struct alloc_view {
        uint64_t handle, device, region;
        const char *owner, *device_name;
        uint64_t offset, size; /* within the region's file */
        uint64_t dma_addr, machine_addr;
        uint64_t pool, bounce; /* whose memory it is: then it is theirs to free; or 0 */
        bool simulated, owner_lifetime, shareable;
        bool anonymous; /* it was swapped out: region and offset are in ordinary memory, and it has no address */
        uint64_t age_ms;
};

struct move_request {
        uint64_t alloc;
        uint64_t device;  /* to which, of the same owner */
        uint64_t align;   /* power of two; 0: 4 KiB */
        uint64_t wait_ms; /* 0: never wait for memory to become free */
        bool high;
        const char *request_key;
        uint64_t request_digest;
};

typedef int (*alloc_visit_fn)(const struct alloc_view *view, void *userdata);

/* done is called exactly once, possibly before this returns (the return value is then NULL), with the allocation's
 * handle. Waiting requests of one owner are served in the order in which they came, those of a device that has reserved
 * regions apart from the others. */
struct ticket *coherent_alloc(const struct caller *caller, const struct alloc_request *request, broker_done_fn done,
                              void *userdata);
/* Move an allocation to another device, whose constraints its memory may not meet: a new allocation of the same size, contents
 * and lifetime, then the old one is freed. Answered like coherent_alloc(), with the new one's handle; until then, and if it
 * fails, the old one stays as it is, but can neither be freed nor mapped. Both count meanwhile. What is written during the
 * move may be lost. Reasons: those of coherent_alloc(), busy (it is mapped, moved already, or a pool's), gone (it ended). */
struct ticket *coherent_move(const struct caller *caller, const struct move_request *request, broker_done_fn done,
                             void *userdata);
/* Copy what is in it to ordinary memory, and free its device memory as coherent_free() does. It keeps its handle, and all that
 * was said when it was allocated but its address. What was swapped out already is answered at once. The device must not use it
 * meanwhile; what is written there during the call may be lost. It never waits for memory. Answered with the handle. Reasons:
 * unknown_handle, busy (it is mapped, moved, or a pool's), quota, no_memory, source_unavailable. */
struct ticket *coherent_swap_out(const struct caller *caller, uint64_t alloc, broker_done_fn done, void *userdata);

struct swap_in_request {
        uint64_t alloc;
        uint64_t align, boundary, mask; /* as in struct alloc_request: they are not remembered */
        uint64_t wait_ms;               /* 0: never wait for memory to become free */
        bool high;
};
/* The way back, to another place. Answered like coherent_alloc(), with the handle. */
struct ticket *coherent_swap_in(const struct caller *caller, const struct swap_in_request *request, broker_done_fn done,
                                void *userdata);
/* Nobody waits for the answer any more; what it may have taken is given back. */
void ticket_cancel(struct ticket *ticket);

/* Reasons: unknown_handle; double_free, for a handle that was the caller's own; busy: it is a pool's, or it is mapped. */
int coherent_free(const struct caller *caller, uint64_t alloc, struct failure *failure);
/* Whether a request of the caller's owner with this key (NULL: none) was answered with something that is still there, and
 * another with the same key would be answered with that. */
bool request_is_answered(const struct caller *caller, const char *request_key);
int coherent_get(const struct caller *caller, uint64_t alloc, struct alloc_view *ret, struct failure *failure);
/* By any address inside the allocation; others' only with admin. Reason: bad_address. */
int coherent_lookup(const struct caller *caller, uint64_t addr, bool machine, struct alloc_view *ret,
                    struct failure *failure);
/* In a stable order, from the one that follows the handle `after` (0: from the start). device 0: all; owner as in
 * device_visit(). */
int coherent_visit(const struct caller *caller, uint64_t device, const char *owner, uint64_t after, alloc_visit_fn visit,
                   void *userdata, struct failure *failure);

/* ---- pools ----
 *
 * A pool hands out blocks of one size, cut from slabs: coherent allocations of its device that the pool takes as it needs
 * them. Blocks never cross the pool's boundary, nor the device's. (The kernel's dma_pool, with a mempool's reserve.) It ends with
 * the session that made it; if others have blocks of it then, with the last of them. So does a bounce pool. */

struct pool_options {
        const char *name; /* for people; need not be unique */
        uint64_t device;
        uint64_t size;       /* bytes of a block; rounded up to align, told by the view */
        uint64_t align;      /* power of two; 0: 64 */
        uint64_t boundary;   /* power of two, at least size; 0: the device's */
        uint64_t reserve;    /* blocks that exist from the start, and are never given back while the pool lives */
        uint64_t max_blocks; /* 0: none but the quota */
        enum pool_caching { POOL_CACHED, POOL_WRITE_COMBINED, POOL_UNCACHED } caching;
        uint64_t wait_ms; /* for the reserve's memory */
        bool high;
        const char *request_key;
        uint64_t request_digest;
};

struct pool_view {
        uint64_t handle, device;
        const char *owner, *device_name, *name;
        uint64_t block_size, align, boundary /* 0: none */, blocks_per_slab, slab_size;
        uint64_t reserve, max_blocks /* 0: none */;
        uint64_t slabs, bytes; /* bytes of the slabs */
        uint64_t blocks;       /* all there are: free + used + leased + quarantined */
        uint64_t free, used /* handed out one by one */, leased, quarantined;
        uint64_t high_water; /* of used + leased */
        uint64_t leases, waiters;
        uint64_t allocs, frees; /* blocks that went out and came back since it was made, in leases or one by one */
        uint64_t failures, waits, timeouts, recalls; /* the same of requests */
        uint64_t age_ms;
        bool simulated;
};

/* One block. Also what a report of busy blocks is made of. */
struct pool_block {
        uint64_t dma_addr, machine_addr, region, offset; /* offset: within the region's file */
        uint64_t lease; /* that it belongs to, or 0 */
};

/* done gets the pool's handle. Waits for nothing but the reserve's memory.
 * Reasons: unknown_device, bad_param, boundary, limit, unsupported (caching), quota, and those of coherent_alloc(). */
struct ticket *pool_create(const struct caller *caller, const struct pool_options *options, broker_done_fn done,
                           void *userdata);
int pool_get(const struct caller *caller, uint64_t pool, struct pool_view *ret, struct failure *failure);
typedef int (*pool_visit_fn)(const struct pool_view *view, void *userdata);
/* As coherent_visit(). */
int pool_visit(const struct caller *caller, uint64_t device, const char *owner, uint64_t after, pool_visit_fn visit,
               void *userdata, struct failure *failure);

struct pool_request {
        uint64_t pool;
        uint64_t count;   /* of blocks; more than 0 */
        uint64_t wait_ms; /* 0: never wait */
        bool high;        /* may use the emergency reserve of the memory source, and passes those that wait */
        const char *request_key;
        uint64_t request_digest;
};

/* Answers a request for blocks once: with NULL and the blocks, which live until it returns, or with why not. */
typedef void (*pool_done_fn)(void *userdata, const struct failure *failure, const struct pool_block *blocks, size_t n);
/* All of them or none. Requests of one pool, leases included, are served in the order in which they came. The blocks are
 * the session's, and go back when it ends. */
struct ticket *pool_alloc(const struct caller *caller, const struct pool_request *request, pool_done_fn done,
                          void *userdata);
/* All of them or none. Reasons: unknown_handle (the pool), bad_address (not in this pool, or not where a block starts; the
 * sentence says which pool it is in, if it is one of the caller's owner), double_free, busy (it is part of a lease),
 * quarantined (its client vanished, it comes back by itself). */
int pool_free_blocks(const struct caller *caller, uint64_t pool, const uint64_t *dma_addrs, size_t n,
                     struct failure *failure);
/* A lease of at most `count` blocks that lie one behind the other: done gets its handle. Less than `count` when no such run
 * is free; at least one. */
struct ticket *pool_lease(const struct caller *caller, const struct pool_request *request, broker_done_fn done,
                          void *userdata);
/* Give idle slabs back, down to the reserve: *ret_bytes of them. */
int pool_trim(const struct caller *caller, uint64_t pool, uint64_t *ret_bytes, struct failure *failure);
/* -EBUSY with what is still handed out unless force, which takes it back. Told block by block in either case, leases as
 * their blocks. */
typedef int (*pool_block_visit_fn)(const struct pool_block *block, void *userdata);
int pool_destroy(const struct caller *caller, uint64_t pool, bool force, pool_block_visit_fn visit, void *userdata,
                 struct failure *failure);

struct pool_block_view {
        uint64_t pool, dma_addr; /* where the block starts */
        uint64_t lease;          /* that it belongs to, or 0 */
        enum pool_block_state { POOL_BLOCK_FREE, POOL_BLOCK_USED, POOL_BLOCK_LEASED, POOL_BLOCK_QUARANTINED } state;
};

/* The block that an address lies in; others' only with admin. Reason: bad_address, also for what lies between blocks. */
int pool_block_at(const struct caller *caller, uint64_t addr, bool machine, struct pool_block_view *ret,
                  struct failure *failure);

/* ---- bounce pools ----
 *
 * Memory that a device can reach, in slots, for data that lies where it cannot: the client copies. A mapping takes a run of
 * slots. (The kernel's SWIOTLB.) */

struct bounce_options {
        uint64_t device;
        uint64_t size;      /* bytes, rounded up to whole slots and pages */
        uint64_t slot_size; /* power of two from 64; 0: 2048; raised so that min_align_mask's bits survive; told by the view */
        uint64_t areas;     /* equal parts of `size` that leases take by default; 0: 1 */
        uint64_t max_size;  /* to which it grows on demand, and shrinks again when that is not used; 0: it does not grow */
        uint64_t wait_ms;   /* for its memory */
        bool high;
        const char *request_key;
        uint64_t request_digest;
};

struct bounce_view {
        uint64_t handle, device;
        const char *owner, *device_name;
        uint64_t region, offset, dma_addr, machine_addr; /* of the part that it was made with */
        uint64_t size, max_size, slot_size, areas;
        uint64_t slots, free, used, leased, quarantined; /* slots */
        uint64_t largest_free; /* slots of the largest free run */
        uint64_t high_water;   /* of used + leased */
        uint64_t parts, leases, waiters;
        uint64_t maps, unmaps, syncs, fulls, waits, timeouts, grows, recalls;
        uint64_t age_ms;
        bool simulated;
};

struct ticket *bounce_create(const struct caller *caller, const struct bounce_options *options, broker_done_fn done,
                             void *userdata);
int bounce_get(const struct caller *caller, uint64_t bounce, struct bounce_view *ret, struct failure *failure);
typedef int (*bounce_visit_fn)(const struct bounce_view *view, void *userdata);
int bounce_visit(const struct caller *caller, uint64_t device, const char *owner, uint64_t after, bounce_visit_fn visit,
                 void *userdata, struct failure *failure);
/* -EBUSY with the mappings and leases that are left, unless force. */
struct mapping_view;
typedef int (*mapping_visit_fn)(const struct mapping_view *view, void *userdata);
int bounce_destroy(const struct caller *caller, uint64_t bounce, bool force, mapping_visit_fn visit, void *userdata,
                   struct failure *failure);

enum dma_direction { DMA_TO_DEVICE, DMA_FROM_DEVICE, DMA_BIDIRECTIONAL };

struct bounce_request {
        uint64_t bounce;
        uint64_t size;         /* bytes to map; of a lease: slots, 0: an area */
        uint64_t align_offset; /* low bits of the buffer's address, of which those in min_align_mask are kept */
        enum dma_direction direction;
        uint64_t wait_ms;
        bool high;
        const char *request_key;
        uint64_t request_digest;
};

/* done gets the mapping's handle. A pool that is full answers no_memory or no_contiguous with the numbers: asked, in use, the
 * largest free run, all in slots. `limit`: larger than the pool can ever be, or than the device's segments. `boundary`: it
 * would have to cross the device's. would_block: others wait. timeout, with the same numbers. gone: the pool or the session
 * has ended. Only of a pool of the caller's owner. */
struct ticket *bounce_map(const struct caller *caller, const struct bounce_request *request, broker_done_fn done,
                          void *userdata);
/* The mapping's whole size and its direction, as it was made; size 0 and direction NULL: not told, not checked.
 * Reasons: unknown_handle (also for an allocation's), double_free, wrong_size, wrong_direction. */
int bounce_unmap(const struct caller *caller, uint64_t mapping, uint64_t size, const enum dma_direction *direction,
                 struct failure *failure);
enum dma_sync { DMA_SYNC_ANY, DMA_SYNC_FOR_CPU, DMA_SYNC_FOR_DEVICE };
/* [offset, offset+size) of the mapping (size 0: to its end). The copying is the client's; this checks and counts.
 * Reasons: as bounce_unmap(); bad_address: outside the mapping; wrong_direction: also for_cpu of what goes to the device
 * only, and the reverse. */
int bounce_sync(const struct caller *caller, uint64_t mapping, uint64_t offset, uint64_t size,
                const enum dma_direction *direction, enum dma_sync sync, struct failure *failure);
/* A lease of a run of slots, all of them or none; done gets its handle. It may lie across the device's boundary: whoever
 * divides it sees to that. */
struct ticket *bounce_lease(const struct caller *caller, const struct bounce_request *request, broker_done_fn done,
                            void *userdata);

/* ---- mappings: what a device may reach at this moment, other than its own coherent memory ---- */

struct mapping_view {
        uint64_t handle, device; /* handle 0: no mapping but a lease, in the report of what a bounce pool is busy with */
        const char *owner, *device_name;
        uint64_t bounce; /* or 0: it is of an allocation */
        uint64_t alloc;  /* or 0 */
        uint64_t lease;  /* or 0 */
        uint64_t dma_addr, machine_addr, region, offset, size;
        uint64_t slots; /* of a bounce mapping */
        enum dma_direction direction;
        uint64_t age_ms;
        bool simulated;
};

struct mapping_request {
        uint64_t device, alloc;
        uint64_t offset, size; /* of the allocation; size 0: to its end */
        uint64_t iova;         /* where the device shall see it; 0: anywhere */
        enum dma_direction direction;
        const char *request_key;
        uint64_t request_digest;
};

/* Make an allocation, the device's own or another's that is shareable, reachable for the device. The allocation stays until
 * it is unmapped. Reasons: unknown_device, unknown_handle, wrong_device (not shareable), bad_address (outside), mask,
 * boundary, limit, quota, unsupported (an iova where nothing translates; memory of a pool). It is revoked, and told as a
 * leak, when the allocation ends before it, with its own device or session. */
int mapping_map(const struct caller *caller, const struct mapping_request *request, uint64_t *ret_handle,
                struct failure *failure);
/* Reasons: unknown_handle (also for a bounce pool's), double_free. */
int mapping_unmap(const struct caller *caller, uint64_t mapping, struct failure *failure);
int mapping_get(const struct caller *caller, uint64_t mapping, struct mapping_view *ret, struct failure *failure);
int mapping_visit(const struct caller *caller, uint64_t device, const char *owner, uint64_t after, mapping_visit_fn visit,
                  void *userdata, struct failure *failure);

/* ---- grants: pages that a guest of Xen's and a service on this host may map of each other ----
 *
 * The core keeps the books: who has asked, and how many pages it is charged for. A grant ends with its session. */

/* Map: of the guest's own memory; share: of this host's. */
enum grant_kind { GRANT_MAP, GRANT_SHARE };
enum {
        GRANT_PAGES_MAX = 32768,   /* of one grant */
        GRANT_DOMAIN_MAX = 0x7fef, /* the numbers behind it are no domain's, for Xen has other uses of them */
};

/* References that follow on each other. */
struct grant_run {
        uint32_t first, count;
};

struct grant_request {
        enum grant_kind kind;
        const char *guest; /* as an owner is called */
        uint32_t domain;   /* in this run of it; never 0 */
        enum dma_direction direction; /* the guest's pages are written by the guest, the host is the device */
        uint64_t pages;    /* of all runs together, at most GRANT_PAGES_MAX */
        const struct grant_run *runs; /* of at least one page each */
        size_t n_runs;
        const char *request_key;
        uint64_t request_digest;
};

struct grant_view {
        uint64_t handle;
        const char *owner, *guest;
        enum grant_kind kind;
        enum dma_direction direction;
        uint32_t domain;
        uint64_t pages;
        const struct grant_run *runs;
        size_t n_runs;
        bool gone; /* the guest has ended, or begun anew */
        uint64_t age_ms;
};

/* For whoever has to do something before grant_new(). 1: it was done already under this key, *ret_handle, whatever has become of
 * the guest since; 0: it was not. Reasons: those of keys. */
int grant_was_made(const struct caller *caller, const char *request_key, uint64_t request_digest, uint64_t *ret_handle,
                   struct failure *failure);
/* Whether it may have so many pages more. Reason: quota. */
int grant_may(const struct caller *caller, uint64_t pages, struct failure *failure);
/* 0, or 1 as above. Reasons: likewise, bad_param, no_memory. */
int grant_new(const struct caller *caller, const struct grant_request *request, uint64_t *ret_handle, struct failure *failure);
/* Reasons: unknown_handle, double_free. */
int grant_end(const struct caller *caller, uint64_t grant, struct failure *failure);
int grant_get(const struct caller *caller, uint64_t grant, struct grant_view *ret, struct failure *failure);
typedef int (*grant_visit_fn)(const struct grant_view *view, void *userdata);
/* owner: only this one's, or NULL. In no order. */
int broker_visit_grants(const struct broker *broker, const char *owner, grant_visit_fn visit, void *userdata);
/* The guest has ended: what it has to do with, but as this domain (0: as any), is gone, and the sessions that have it are told by
 * the event recall. */
void grants_orphan(struct broker *broker, const char *guest, uint32_t domain);
/* Called whenever one has ended, from within any call of the core: it must only take note. NULL: nobody is. */
typedef void (*grant_ended_fn)(void *userdata, uint64_t grant);
void broker_watch_grants(struct broker *broker, grant_ended_fn ended, void *userdata);

/* ---- leases ----
 *
 * A span of a pool's blocks or of a bounce pool's slots, which its holder divides without asking. The broker knows who has
 * it, and reads nothing that a client can write. A lease goes back as a whole; when its session ends, at once. */

struct lease_view {
        uint64_t handle;
        uint64_t pool, bounce; /* one of them is 0 */
        uint64_t device;
        const char *owner, *device_name;
        uint64_t region, offset, dma_addr, machine_addr; /* of its first unit */
        uint64_t unit;                                   /* bytes of a block or slot */
        uint64_t count;                                  /* of them */
        uint64_t age_ms;
        bool simulated;
};

int lease_get(const struct caller *caller, uint64_t lease, struct lease_view *ret, struct failure *failure);
/* of: HOLDER_POOL or HOLDER_BOUNCE wanted; a lease of the other kind is unknown_handle. */
enum lease_kind { LEASE_OF_POOL, LEASE_OF_BOUNCE };
int lease_return(const struct caller *caller, uint64_t lease, enum lease_kind kind, struct failure *failure);
typedef int (*lease_visit_fn)(const struct lease_view *view, void *userdata);
/* pool, bounce: only of this one; 0: of all. */
int lease_visit(const struct caller *caller, uint64_t pool, uint64_t bounce, const char *owner, uint64_t after,
                lease_visit_fn visit, void *userdata, struct failure *failure);

/* ---- quarantine ----
 *
 * What a client had that vanished, or what a device had mapped when the allocation ended: a device may still write there, so
 * nobody gets it before the device is known to be quiet, because time has passed, it was closed, or an administrator said
 * so. It counts as its owner's until then. How much time is the device's; it runs on over a restart, and is not changed any
 * more once something rests. */

#define QUARANTINE_ENDLESS UINT64_MAX /* until an administrator says so */

enum quarantine_what { QUARANTINE_ALLOC, QUARANTINE_BLOCKS, QUARANTINE_SLOTS, QUARANTINE_REGION };
enum quarantine_reason {
        QUARANTINE_VANISHED, /* whose it was ended without a word */
        QUARANTINE_DAMAGED,  /* a damaged ledger has forgotten whose it is: it rests until its owner is gone, and then its time */
};

struct quarantine_view {
        uint64_t id; /* not reused while the daemon runs */
        enum quarantine_what what;
        enum quarantine_reason reason;
        const char *owner, *device_name; /* device_name: NULL, if nobody knows */
        uint64_t pool, bounce, region;   /* pool and bounce: of which it is, or 0 */
        uint64_t machine_addr;         /* of its first byte; blocks may lie scattered */
        uint64_t bytes, count;         /* count: allocations, blocks, slots or pieces of the region */
        uint64_t since_ms, age_ms;
        uint64_t left_ms; /* or QUARANTINE_ENDLESS */
        bool simulated;
};

typedef int (*quarantine_visit_fn)(const struct quarantine_view *view, void *userdata);
/* In the order of their ids, from the one that follows `after`. owner as in device_visit(). */
int quarantine_visit(const struct caller *caller, const char *owner, uint64_t after, quarantine_visit_fn visit,
                     void *userdata, struct failure *failure);
/* The devices are quiet: what rests may be reused at once, all of it, or this owner's, or what lies at this machine address.
 * Admin only: not_permitted. bad_address: nothing rests there. */
int quarantine_release(const struct caller *caller, const char *owner, const uint64_t *machine_addr, uint64_t *ret_bytes,
                       struct failure *failure);
/* The same of what lies in this region and belongs to no pool; nothing else. Reasons: not_permitted, unknown_handle. */
int quarantine_release_region(const struct caller *caller, uint64_t region, struct failure *failure);
/* Bytes that rest, of all owners. */
uint64_t broker_quarantined(const struct broker *broker);

/* ---- events ---- */

enum event_topic {
        EVENT_RECALL,   /* a session should return leases that it does not use: somebody waits for memory; or a grant */
        EVENT_PRESSURE, /* a request found too little memory, or memory is there again */
        EVENT_LEAK,     /* something was left behind when its device or pool was closed by force, or its session ended */
};

/* Who is short of memory. Each is told when it begins and when it ends. */
enum pressure_level {
        PRESSURE_REQUESTS, /* requests wait */
        PRESSURE_HOST,     /* the host wants memory back */
};

struct event {
        enum event_topic topic;
        enum pressure_level level; /* PRESSURE */
        const struct session *session; /* whom it concerns; NULL: everybody who may know of `owner` */
        const char *owner;             /* NULL: of no owner's */
        uint64_t pool, bounce, device; /* 0: none, or all */
        uint64_t grant;                /* RECALL: of which the guest has ended; or 0 */
        const char *name;              /* of the pool or device, or NULL */
        uint64_t bytes, count;         /* wanted, or left behind */
        bool over;                     /* PRESSURE: it has ended */
};

/* Called whenever something happens, from within any call of the core: it must only take note. NULL: nobody listens. */
typedef void (*broker_event_fn)(void *userdata, const struct event *event);
void broker_listen(struct broker *broker, broker_event_fn fn, void *userdata);

/* ---- giving memory back to the host ---- */

/* Give memory back to the system that nobody needs: `bytes` of it (0: all), down to the sources' reserves, the minimum and
 * what was guaranteed. Clients are asked for what they lease and do not use, and waited for as long as wait_ms. done gets how
 * many bytes went back, which may be more than was asked by less than a grain. Admin only: not_permitted. */
struct ticket *memory_release(const struct caller *caller, uint64_t bytes, uint64_t wait_ms, broker_done_fn done,
                              void *userdata);
/* The host is short of memory, or no longer: then all that nobody needs goes back, each time that this is said. */
void broker_press(struct broker *broker, bool is_short);
/* Whether anybody is short of memory, and the worst of it. */
bool broker_pressure(const struct broker *broker, enum pressure_level *ret_level);

/* ---- regions ---- */

struct region_view {
        uint64_t handle;
        uint64_t device; /* to which it is exclusive, or 0 */
        const char *owner, *source;
        int node;
        uint64_t size, used, allocs;
        uint64_t resting; /* of the allocations: nobody's any more */
        bool barred;      /* one of them is what only seems free, because a damaged ledger has forgotten whose it is */
        uint64_t machine_addr; /* one machine-contiguous extent: offset 0 of the file */
        bool simulated;
        bool anonymous; /* ordinary memory for what was swapped out, without an address */
};

int region_get(const struct caller *caller, uint64_t region, struct region_view *ret, struct failure *failure);
/* Finds out which sessions of its owner's have something in it: allocations or pools that they made or whose device they opened,
 * blocks, leases or mappings of these. session_is_user() says it of each until this is asked again. ret_n: how many. Reasons:
 * unknown_handle, no_memory. */
int region_find_users(const struct caller *caller, uint64_t region, size_t *ret_n, struct failure *failure);
bool session_is_user(const struct session *session);
/* The descriptor of the region's memory: the owner's own only, also for an administrator. Borrowed: dup before use.
 * unsupported: the source has no files. */
int region_fd(const struct caller *caller, uint64_t region, int *ret_fd, struct failure *failure);
/* Write to the region's memory. -EINVAL: that is not within it. */
int region_write(const struct caller *caller, uint64_t region, uint64_t offset, const void *buffer, uint64_t size,
                 struct failure *failure);
typedef int (*region_visit_fn)(const struct region_view *view, void *userdata);
int region_visit(const struct caller *caller, const char *owner, uint64_t after, region_visit_fn visit, void *userdata,
                 struct failure *failure);

/* ---- what there is ---- */

struct source_view {
        struct source_info info;
        uint64_t total;        /* bytes that the source holds now */
        uint64_t free;         /* ... of these in stock */
        uint64_t in_regions;   /* ... of these in regions */
        uint64_t used;         /* ... of these in allocations */
        uint64_t largest_free; /* bytes of the largest machine-contiguous piece of stock */
        uint64_t low_total, low_free; /* below 4 GiB */
        uint64_t emergency;
        uint64_t pending;      /* jobs under way */
        uint64_t awaited;      /* bytes that come back when those who have them in use have not */
        uint64_t lost;         /* bytes that did not come back, or came back where something already was */
};
typedef int (*source_visit_fn)(const struct source_view *view, void *userdata);
/* The sources of device memory. */
int broker_visit_sources(struct broker *broker, source_visit_fn visit, void *userdata);
/* That of ordinary memory for what is swapped out; false: there is none. */
bool broker_anonymous(struct broker *broker, struct source_view *ret);

/* Pieces of stock for a picture of memory: free runs, ascending. */
typedef int (*run_visit_fn)(const char *source, uint64_t addr, uint64_t size, void *userdata);
int broker_visit_stock(struct broker *broker, run_visit_fn visit, void *userdata);

struct broker_counts {
        uint64_t owners, sessions, devices, regions, allocs, pools, bounces, leases, mappings, waiters;
};
void broker_counts(const struct broker *broker, struct broker_counts *ret);

/* Counters since the start or the last reset: name, value, ascending by name; until visit returns non-zero. */
typedef int (*counter_visit_fn)(const char *name, uint64_t value, void *userdata);
int broker_visit_counters(const struct broker *broker, counter_visit_fn visit, void *userdata);
void broker_reset_counters(struct broker *broker);

/* Every invariant of the core's books, then every region against its source (for real memory: the kernel's page map).
 * Each problem is one call of problem(); then done(), once. The caller cannot cancel: userdata must live until done(). */
typedef void (*problem_fn)(void *userdata, const char *what, const char *text, uint64_t handle);
void broker_check(struct broker *broker, problem_fn problem, void (*done)(void *userdata, uint64_t checked), void *userdata);

#endif
