/* Who has something in a region: those without whom it would be empty. */
#include <errno.h>
#include <stdlib.h>

#include "daemon/core/objects.h"
#include "daemon/core/pool.h"

/* All sessions of the region's owner, by id. */
struct users {
        const struct region *region;
        struct session **sessions;
        size_t n, n_found;
};

static int by_id(const void *one, const void *other) {
        const struct session *a = *(struct session *const *)one, *b = *(struct session *const *)other;

        return a->id < b->id ? -1 : a->id > b->id;
}

static int users_begin(struct users *users) {
        struct owner *owner = users->region->owner;
        struct session *session;

        DL_FOREACH(owner->sessions, session)
                users->n++;
        users->sessions = calloc(users->n + 1, sizeof(struct session *));
        if (!users->sessions)
                return -ENOMEM;
        users->n = 0;
        DL_FOREACH(owner->sessions, session) {
                session->is_user = false;
                users->sessions[users->n++] = session;
        }
        qsort(users->sessions, users->n, sizeof(struct session *), by_id);
        return 0;
}

/* NULL: none, such as one that has ended. */
static void found(struct users *users, struct session *session) {
        if (!session || session->is_own || session->is_user)
                return;
        session->is_user = true;
        users->n_found++;
}

static void found_id(struct users *users, uint32_t id) {
        struct session key = { .id = id }, *wanted = &key, **at;

        at = bsearch(&wanted, users->sessions, users->n, sizeof(struct session *), by_id);
        found(users, at ? *at : NULL);
}

/* Who asked for it, and with whose device it goes: not that of one that outlives sessions. */
static void look_at(struct users *users, const struct alloc *alloc) {
        if (alloc->flags & ALLOC_HELD) {
                alloc->holder->is_in_region = true;
                found_id(users, alloc->holder->maker);
        } else
                found_id(users, alloc->maker);
        if (!(alloc->flags & ALLOC_OWNER_LIFETIME))
                found(users, alloc->device->session);
}

static void look_at_all(struct users *users) {
        const struct device *device;
        const struct alloc *alloc;

        DL_FOREACH(users->region->owner->devices, device)
                DL_FOREACH(device->allocs, alloc)
                        if (alloc->region == users->region)
                                look_at(users, alloc);
}

/* A pool goes as a whole: also who has of it what lies elsewhere. */
static bool has_of_it(const struct region *region, const struct session *session) {
        const struct mapping *mapping;
        const struct taker *taker;
        const struct lease *lease;

        DL_FOREACH(session->takers, taker)
                if (taker->pool->holder.is_in_region)
                        return true;
        DL_FOREACH(session->leases, lease)
                if (lease->holder->is_in_region)
                        return true;
        DL_FOREACH(session->mappings, mapping)
                if (mapping->alloc->region == region || (mapping->holder && mapping->holder->is_in_region))
                        return true;
        return false;
}

static void forget_holders(const struct region *region) {
        const struct device *device;
        const struct alloc *alloc;

        DL_FOREACH(region->owner->devices, device)
                DL_FOREACH(device->allocs, alloc)
                        if (alloc->region == region && alloc->flags & ALLOC_HELD)
                                alloc->holder->is_in_region = false;
}

int region_find_users(const struct caller *caller, uint64_t handle, size_t *ret_n, struct failure *failure) {
        struct region *region = NULL;
        struct users users = { 0 };
        int r = region_find(caller, handle, &region, failure);

        if (r < 0)
                return r;
        users.region = region;
        if (users_begin(&users) < 0)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        look_at_all(&users);
        for (size_t i = 0; i < users.n; i++)
                if (has_of_it(region, users.sessions[i]))
                        found(&users, users.sessions[i]);
        forget_holders(region);
        free(users.sessions);
        *ret_n = users.n_found;
        return 0;
}

bool session_is_user(const struct session *session) {
        return session->is_user;
}
