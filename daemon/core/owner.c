/* Owners, what they may hold, their sessions and the keys under which they asked for things. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/objects.h"
#include "daemon/probes.h"

const char *quota_name(enum quota_kind kind) {
        static const char *const names[] = {
#define QUOTA_NAME(name, text) #name,
                QUOTA_LIST(QUOTA_NAME)
#undef QUOTA_NAME
        };
        return (unsigned)kind < QUOTA_KINDS ? names[kind] : "?";
}

struct owner *owner_find(struct broker *broker, const char *name) {
        struct owner *owner;

        HASH_FIND_STR(broker->owners, name, owner);
        return owner;
}

int owner_get(struct broker *broker, const char *name, struct owner **ret) {
        struct owner *owner = owner_find(broker, name);
        size_t length = strlen(name) + 1;

        if (!owner) {
                owner = calloc(1, sizeof(*owner) + length);
                if (!owner)
                        return -ENOMEM;
                memcpy(owner->name, name, length);
                owner->broker = broker;
                owner->id = ++broker->last_owner_id;
                owner->quota = broker->options.quota;
                HASH_ADD_STR(broker->owners, name, owner);
                if (!owner->hh.tbl) {
                        free(owner);
                        return -ENOMEM;
                }
                broker->counts.owners++;
                book_note(broker, ROW_OWNER, owner->id);
        }
        *ret = owner;
        return 0;
}

void owner_free(struct owner *owner) {
        struct window *window, *next;

        LL_FOREACH_SAFE(owner->windows, window, next) {
                arena_free(window->arena);
                free(window);
        }
        budgets_free(owner);
        HASH_DEL(owner->broker->owners, owner);
        owner->broker->counts.owners--;
        book_note(owner->broker, ROW_OWNER, owner->id);
        free(owner);
}

void owner_forget(struct owner *owner) {
        if (owner->sessions || owner->devices || owner->requests || owner->usage.of[QUOTA_regions] || owner->quota_set ||
            owner->budgets)
                return;
        owner_free(owner);
}

int owner_check(const struct owner *owner, enum quota_kind kind, uint64_t more, struct failure *failure) {
        uint64_t limit = owner->quota.of[kind], used = owner->usage.of[kind];

        if (limit == QUOTA_UNLIMITED || (used <= limit && more <= limit - used))
                return 0;
        failure_set(failure, REASON_quota, "The quota of %s for %s is %llu, with %llu in use: %llu more would exceed it",
                    owner->name, quota_name(kind), (unsigned long long)limit, (unsigned long long)used,
                    (unsigned long long)more);
        failure_add_text(failure, "quota", quota_name(kind));
        failure_add_number(failure, "asked", more);
        failure_add_number(failure, "limit", limit);
        failure_add_number(failure, "in_use", used);
        return -reason_errno(REASON_quota);
}

int selection_begin(struct selection *selection, const struct caller *caller, const char *owner, uint64_t device,
                    uint64_t after, struct failure *failure) {
        const struct owner *own = caller->session->owner;
        struct device_view view;

        *selection = (struct selection){
                .handles = &own->broker->handles, .owner = own, .all = caller->admin && !owner, .device = device, .after = after,
        };
        if (!caller->admin && owner && strcmp(owner, own->name) != 0)
                return failure_set(failure, REASON_not_permitted, "Only an administrator may see what %s has", owner);
        if (owner)
                selection->owner = owner_find(own->broker, owner);
        return device ? device_get(caller, device, &view, failure) : 0;
}

void *selection_next(struct selection *selection, enum handle_kind kind) {
        return handle_next(selection->handles, kind, selection->after, &selection->after);
}

bool selection_has(const struct selection *selection, const struct owner *owner, const struct device *device) {
        return (selection->all || owner == selection->owner) &&
               (!selection->device || (device && device->handle == selection->device));
}

/* ---- sessions ---- */

void session_enter(struct session *session) {
        struct owner *owner = session->owner;

        DL_APPEND(owner->sessions, session);
        owner->usage.of[QUOTA_connections]++;
        owner->broker->counts.sessions++;
}

int session_set_note(struct session *session, const char *note) {
        char *copy = strdup(note);

        if (!copy)
                return -ENOMEM;
        free(session->note);
        session->note = copy;
        book_note(session->owner->broker, ROW_SESSION, session->id);
        return 0;
}

const char *session_note(const struct session *session) {
        return session->note;
}

int broker_visit_sessions(struct broker *broker, session_visit_fn visit, void *userdata) {
        struct session *session, *next;
        struct owner *owner, *next_owner;
        int r = 0;

        HASH_ITER(hh, broker->owners, owner, next_owner)
                DL_FOREACH_SAFE(owner->sessions, session, next) {
                        r = visit(session, userdata);
                        if (r)
                                return r;
                }
        return r;
}

void session_own(struct session *session) {
        session->owner->usage.of[QUOTA_connections] -= !session->is_own;
        session->is_own = true;
}

static int open_session(struct broker *broker, const char *name, bool is_own, struct session **ret, struct failure *failure) {
        struct session *session;
        struct owner *owner;
        int r;

        if (owner_get(broker, name, &owner) < 0)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        r = is_own ? 0 : owner_check(owner, QUOTA_connections, 1, failure);
        if (r < 0) {
                owner_forget(owner);
                return r;
        }
        session = calloc(1, sizeof(*session));
        if (!session) {
                owner_forget(owner);
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        }
        session->owner = owner;
        session->id = ++broker->last_session_id;
        session_enter(session);
        book_note(broker, ROW_SESSION, session->id);
        PROBE_SESSION_OPEN(owner->name, session->id);
        *ret = session;
        return 0;
}

int session_open(struct broker *broker, const char *owner, struct session **ret, struct failure *failure) {
        return open_session(broker, owner, false, ret, failure);
}

int session_open_own(struct broker *broker, const char *owner, struct session **ret, struct failure *failure) {
        int r = open_session(broker, owner, true, ret, failure);

        if (r == 0)
                session_own(*ret);
        return r;
}

/* died: its client vanished, and the device may still write to what it had. */
static void allocs_leave(struct device *device, const struct session *session, bool died) {
        struct alloc *alloc, *next;

        DL_FOREACH_SAFE(device->allocs, alloc, next) {
                if (!alloc_leaves(alloc, session))
                        continue;
                mappings_end_alloc(alloc);
                if (died)
                        alloc_rest(alloc);
                else
                        alloc_return(alloc);
        }
}

static void device_leave(struct device *device) {
        struct region *region;

        device_hide(device);
        DL_FOREACH(device->owner->regions, region)
                if (region->device == device)
                        region_unbar_later(region);
}

static void session_drop_devices(struct session *session, bool died) {
        struct device *device, *next;

        DL_FOREACH(session->owner->devices, device)
                device->n_requests++; /* keeps it while what it and the others have goes */
        DL_FOREACH(session->owner->devices, device) {
                pools_leave(device, session);
                bounces_leave(device, session);
                if (device->session == session) {
                        requests_end(session->owner, device);
                        mappings_leave(device, died);
                }
                if (!device->session || device->session == session)
                        allocs_leave(device, session, died);
                if (device->session != session)
                        continue;
                device->session = NULL;
                if (!device->closed)
                        book_note(device->owner->broker, ROW_DEVICE, device->handle);
        }
        DL_FOREACH_SAFE(session->owner->devices, device, next) {
                if (!device->session && !device->closed && !device_holds(device) && !requests_want(device))
                        device_leave(device);
                device->n_requests--;
                device_forget(device);
        }
}

/* Nothing is left of it but what rests. */
static bool is_gone(const struct owner *owner) {
        const struct device *device;

        DL_FOREACH(owner->devices, device)
                if (!device->closed)
                        return false;
        return !owner->sessions;
}

static struct session *session_finish(struct session *session, bool died) {
        struct owner *owner;
        struct broker *broker;

        if (!session)
                return NULL;
        owner = session->owner;
        broker = owner->broker;
        PROBE_SESSION_END(owner->name, session->id, died);
        waiters_end_session(session);
        requests_end_session(session);
        mappings_end_session(session, died);
        leases_end(session, died);
        grants_end_session(session);
        pools_end_session(session, died);
        devices_tell_leaks(session);
        session_drop_devices(session, died);
        DL_DELETE(owner->sessions, session);
        owner->usage.of[QUOTA_connections] -= !session->is_own;
        broker->counts.sessions--;
        book_note(broker, ROW_SESSION, session->id);
        free(session->note);
        free(session);
        if (is_gone(owner))
                owner_unbar_later(owner);
        owner_forget(owner);
        requests_serve(broker);
        return NULL;
}

struct session *session_close(struct session *session) {
        return session_finish(session, false);
}

struct session *session_abandon(struct session *session) {
        return session_finish(session, true);
}

const char *session_owner(const struct session *session) {
        return session->owner->name;
}

uint32_t session_id(const struct session *session) {
        return session->id;
}

/* ---- quotas ---- */

static void owner_view(const struct owner *owner, struct owner_view *ret) {
        *ret = (struct owner_view){
                .name = owner->name,
                .limits = owner->quota,
                .usage = owner->usage,
                .guaranteed = owner->guaranteed,
                .unmet = guarantee_unmet(owner),
        };
}

int quota_get(const struct caller *caller, const char *name, struct owner_view *ret, struct failure *failure) {
        struct selection selection;
        int r;

        r = selection_begin(&selection, caller, name ? name : caller->session->owner->name, 0, 0, failure);
        if (r < 0)
                return r;
        if (selection.owner)
                owner_view(selection.owner, ret);
        else
                *ret = (struct owner_view){ .name = name, .limits = caller->session->owner->broker->options.quota };
        return 0;
}

int quota_set(const struct caller *caller, const char *name, unsigned mask, const struct quota *limits,
              struct failure *failure) {
        struct broker *broker = caller->session->owner->broker;
        struct owner *owner;
        int kind;

        if (!caller->admin)
                return failure_set(failure, REASON_not_permitted, "Only an administrator may change a quota");
        if (owner_get(broker, name ? name : caller->session->owner->name, &owner) < 0)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        owner->quota_set = true;
        owner->quota_told |= mask;
        book_note(broker, ROW_OWNER, owner->id);
        for (kind = 0; kind < QUOTA_KINDS; kind++)
                if (mask & 1u << kind)
                        owner->quota.of[kind] = limits->of[kind];
        broker->quota_changes++;
        requests_serve(broker);
        return 0;
}

int broker_set_quota(struct broker *broker, const char *name, const struct quota *limits) {
        struct owner *owner;
        int r;

        r = owner_get(broker, name, &owner);
        if (r < 0)
                return r;
        owner->quota_set = true;
        owner->quota_told = 0;
        owner->quota = *limits;
        book_note(broker, ROW_OWNER, owner->id);
        broker->quota_changes++;
        requests_serve(broker);
        return 0;
}

void broker_unset_quota(struct broker *broker, const char *name) {
        struct owner *owner = owner_find(broker, name);

        if (!owner)
                return;
        broker_set_guarantee(broker, name, &(struct guarantee){ 0 });
        owner->quota_set = false;
        owner->quota_told = 0;
        owner->quota = broker->options.quota;
        book_note(broker, ROW_OWNER, owner->id);
        broker->quota_changes++;
        owner_forget(owner);
        requests_serve(broker);
}

uint64_t quota_limit(const struct broker *broker, const char *name, enum quota_kind kind) {
        const struct owner *owner;

        HASH_FIND_STR(broker->owners, name, owner);
        return owner ? owner->quota.of[kind] : broker->options.quota.of[kind];
}

uint64_t quota_changes(const struct broker *broker) {
        return broker->quota_changes;
}

int broker_visit_owners(struct broker *broker, owner_visit_fn visit, void *userdata) {
        struct owner *owner, *next;
        struct owner_view view;
        int r;

        HASH_ITER(hh, broker->owners, owner, next) {
                owner_view(owner, &view);
                r = visit(&view, userdata);
                if (r)
                        return r;
        }
        return 0;
}

/* ---- request keys ---- */

static struct request_key *key_new(struct owner *owner, const char *text, enum handle_kind kind, uint64_t digest) {
        size_t length = strlen(text) + 1;
        struct request_key *key = calloc(1, sizeof(*key) + length);

        if (!key)
                return NULL;
        memcpy(key->text, text, length);
        key->kind = kind;
        key->digest = digest;
        HASH_ADD_STR(owner->keys, text, key);
        if (!key->hh.tbl) {
                free(key);
                return NULL;
        }
        return key;
}

int key_restore(struct owner *owner, const char *text, enum handle_kind kind, uint64_t digest, uint64_t handle,
                struct request_key **ret) {
        struct request_key *key;

        HASH_FIND_STR(owner->keys, text, key);
        if (key)
                return -EBADMSG;
        key = key_new(owner, text, kind, digest);
        if (!key)
                return -ENOMEM;
        key->handle = handle;
        *ret = key;
        return 0;
}

int key_begin(struct owner *owner, const char *text, enum handle_kind kind, uint64_t digest, struct request_key **ret_key,
              struct failure *failure) {
        struct request_key *key;
        int r;

        *ret_key = NULL;
        if (!text)
                return broker_room(owner->broker, false, failure);
        HASH_FIND_STR(owner->keys, text, key);
        if (key && (key->kind != kind || key->digest != digest))
                return failure_set(failure, REASON_bad_param, "This request_key was used for another request");
        if (key && !key->handle)
                return failure_set(failure, REASON_busy, "The request with this request_key is still under way");
        if (key) {
                *ret_key = key;
                return 1;
        }
        r = broker_room(owner->broker, false, failure);
        if (r < 0)
                return r;
        key = key_new(owner, text, kind, digest);
        if (!key)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        *ret_key = key;
        return 0;
}

bool request_is_answered(const struct caller *caller, const char *request_key) {
        struct request_key *key = NULL;

        if (request_key)
                HASH_FIND_STR(caller->session->owner->keys, request_key, key);
        return key && key->handle;
}

void key_forget(struct owner *owner, struct request_key *key) {
        if (!key)
                return;
        HASH_DEL(owner->keys, key);
        free(key);
}

int handle_not_found(const struct caller *caller, enum handle_kind kind, uint64_t handle, struct failure *failure) {
        static const char *const names[] = {
                [HANDLE_NONE] = "object",  [HANDLE_DEVICE] = "device",       [HANDLE_ALLOC] = "allocation",
                [HANDLE_REGION] = "region", [HANDLE_POOL] = "pool",          [HANDLE_BOUNCE] = "bounce pool",
                [HANDLE_LEASE] = "lease",   [HANDLE_MAPPING] = "mapping",
                [HANDLE_GRANT] = "grant",
        };
        static const char *const ends[] = {
                [HANDLE_ALLOC] = "has been freed",
                [HANDLE_LEASE] = "has been returned",
                [HANDLE_MAPPING] = "has been unmapped",
                [HANDLE_GRANT] = "has been given back",
        };
        const char *end = (size_t)kind < sizeof(ends) / sizeof(*ends) ? ends[kind] : NULL;
        struct owner *owner = caller->session->owner;

        if (end && handle_was(&owner->broker->handles, kind, handle, owner->id))
                failure_set(failure, REASON_double_free, "%c%s %llu %s already", toupper((unsigned char)*names[kind]),
                            names[kind] + 1, (unsigned long long)handle, end);
        else
                failure_set(failure, REASON_unknown_handle, "There is no %s %llu", names[kind],
                            (unsigned long long)handle);
        failure_add_number(failure, "handle", handle);
        return failure ? -failure->error : -ENOENT;
}
