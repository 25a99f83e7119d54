/* Leases: spans of a pool or of a bounce pool that a client divides by itself; and the events by which it is asked to
 * return them. */
#include <errno.h>
#include <stdlib.h>

#include "daemon/core/objects.h"

/* Whoever was asked to return leases needs some time to do so. */
#define RECALL_AGAIN_MS 100

void broker_listen(struct broker *broker, broker_event_fn fn, void *userdata) {
        broker->listener = fn;
        broker->listener_userdata = userdata;
}

void event_tell(struct broker *broker, const struct event *event) {
        if (broker->listener)
                broker->listener(broker->listener_userdata, event);
}

static void lease_enter(struct lease *lease) {
        struct holder *holder = lease->holder;
        struct owner *owner = lease->session->owner;

        DL_APPEND(lease->session->leases, lease);
        DL_APPEND2(holder->leases, lease, holder_prev, holder_next);
        holder->n_leases++;
        device_charge(holder->device, QUOTA_leases, 1);
        owner->broker->counts.leases++;
}

int lease_new(struct session *session, struct holder *holder, struct alloc *alloc, uint64_t addr, uint64_t count,
              struct request_key *key, struct lease **ret, struct failure *failure) {
        struct owner *owner = session->owner;
        struct lease *lease;
        int r;

        r = device_check(holder->device, QUOTA_leases, 1, failure);
        if (r < 0)
                return r;
        lease = calloc(1, sizeof(*lease));
        if (!lease || handle_new(&owner->broker->handles, HANDLE_LEASE, lease, &lease->handle) < 0) {
                free(lease);
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        }
        lease->session = session;
        lease->holder = holder;
        lease->alloc = alloc;
        lease->addr = addr;
        lease->count = count;
        lease->born_ms = now_ms(owner->broker);
        lease->key = key;
        if (key)
                key->handle = lease->handle;
        lease_enter(lease);
        book_note(owner->broker, ROW_LEASE, lease->handle);
        *ret = lease;
        return 0;
}

void lease_save(struct row_writer *row, const struct lease *lease) {
        row_number(row, lease->session->id);
        row_number(row, lease->holder->kind);
        row_number(row, lease->holder->handle);
        row_number(row, lease->alloc->handle);
        row_number(row, lease->addr);
        row_number(row, lease->count);
        row_number(row, lease->born_ms);
        row_key(row, lease->key);
}

static int lease_read(struct load *load, struct lease *lease) {
        uint64_t kind;

        lease->session = load_session(load);
        kind = row_read_number(&load->row);
        lease->holder = load_object(load, kind == HOLDER_POOL ? HANDLE_POOL : HANDLE_BOUNCE);
        lease->alloc = load_object(load, HANDLE_ALLOC);
        lease->addr = row_read_number(&load->row);
        lease->count = row_read_number(&load->row);
        lease->born_ms = row_read_number(&load->row);
        if (!lease->session || !lease->holder || !lease->alloc)
                return -ENOENT;
        if (load->row.failed || !(lease->alloc->flags & ALLOC_HELD) || lease->alloc->holder != lease->holder ||
            lease->addr < alloc_addr(lease->alloc) || lease->addr - alloc_addr(lease->alloc) >= alloc_size(lease->alloc) ||
            !lease->count)
                return -EBADMSG;
        return handle_restore(&load->broker->handles, HANDLE_LEASE, lease, load->id);
}

int lease_load(struct load *load) {
        struct lease *lease = calloc(1, sizeof(*lease));
        int r;

        if (!lease)
                return -ENOMEM;
        r = lease_read(load, lease);
        if (r == 0) {
                lease->handle = load->id;
                r = lease->holder->kind == HOLDER_POOL ? pool_load_lease(lease) : bounce_load_lease(lease);
                if (r < 0)
                        handle_release(&load->broker->handles, load->id, 0);
        }
        if (r < 0) {
                free(lease);
                return r;
        }
        lease->key = load_key(load, lease->session->owner, HANDLE_LEASE);
        lease_enter(lease);
        return 0;
}

void lease_end(struct lease *lease, bool died) {
        struct holder *holder = lease->holder;
        struct owner *owner = lease->session->owner;

        DL_DELETE(lease->session->leases, lease);
        DL_DELETE2(holder->leases, lease, holder_prev, holder_next);
        holder->n_leases--;
        device_discharge(holder->device, QUOTA_leases, 1);
        owner->broker->counts.leases--;
        key_forget(owner, lease->key);
        handle_release(&owner->broker->handles, lease->handle, owner->id);
        book_note(owner->broker, ROW_LEASE, lease->handle);
        holder->lease_ended(lease, died);
        free(lease);
}

void leases_end(struct session *session, bool died) {
        while (session->leases)
                lease_end(session->leases, died);
}

/* ---- asking for them back ---- */

static void recall(struct holder *holder, struct session *session, uint64_t bytes) {
        struct event event = {
                .topic = EVENT_RECALL,
                .session = session,
                .owner = session->owner->name,
                .pool = holder->kind == HOLDER_POOL ? holder->handle : 0,
                .bounce = holder->kind == HOLDER_BOUNCE ? holder->handle : 0,
                .device = holder->device->handle,
                .bytes = bytes,
        };

        event_tell(session->owner->broker, &event);
}

void holder_recall(struct holder *holder, uint64_t bytes) {
        struct broker *broker = holder->device->owner->broker;
        uint64_t now = now_ms(broker), round = broker->recalls + 1;
        struct lease *lease;

        if (!holder->leases || (holder->recalled_ms && now - holder->recalled_ms < RECALL_AGAIN_MS))
                return;
        broker->recalls = round;
        holder->recalled_ms = now;
        holder->recalls++;
        /* Each session once, however many leases it has. */
        for (lease = holder->leases; lease; lease = lease->holder_next) {
                if (lease->session->recall == round)
                        continue;
                lease->session->recall = round;
                recall(holder, lease->session, bytes);
        }
}

/* Whether the request could be served from where this lease is. */
static bool lease_helps(const struct lease *lease, const struct request *request) {
        const struct alloc *alloc = lease->alloc;

        return alloc->region->device == request_reserve(request) && alloc_addr(alloc) <= request->want.limit &&
               alloc_addr(alloc) + alloc_size(alloc) > request->want.floor;
}

void leases_recall(struct broker *broker, const struct request *request) {
        struct session *session;
        struct owner *owner;
        struct lease *lease;

        if (!broker->counts.leases)
                return;
        for (owner = broker->owners; owner; owner = owner->hh.next)
                DL_FOREACH(owner->sessions, session)
                        DL_FOREACH(session->leases, lease)
                                if (lease_helps(lease, request))
                                        holder_recall(lease->holder, request->want.size);
}

/* ---- the outside's view ---- */

static void lease_look(const struct lease *lease, struct lease_view *ret) {
        const struct holder *holder = lease->holder;
        const struct alloc *alloc = lease->alloc;

        *ret = (struct lease_view){
                .handle = lease->handle,
                .pool = holder->kind == HOLDER_POOL ? holder->handle : 0,
                .bounce = holder->kind == HOLDER_BOUNCE ? holder->handle : 0,
                .device = holder->device->handle,
                .owner = lease->session->owner->name,
                .device_name = holder->device->name,
                .region = alloc->region->handle,
                .offset = lease->addr - alloc->region->addr,
                .dma_addr = alloc_dma_at(alloc, lease->addr),
                .machine_addr = lease->addr,
                .unit = holder->unit,
                .count = lease->count,
                .age_ms = now_ms(holder->device->owner->broker) - lease->born_ms,
                .simulated = alloc->region->supply->info.flags & SOURCE_SIMULATED,
        };
}

static int lease_find(const struct caller *caller, uint64_t handle, struct lease **ret, struct failure *failure) {
        struct lease *lease = handle_find(&caller->session->owner->broker->handles, HANDLE_LEASE, handle);

        if (!lease || (lease->session->owner != caller->session->owner && !caller->admin))
                return handle_not_found(caller, HANDLE_LEASE, handle, failure);
        *ret = lease;
        return 0;
}

int lease_get(const struct caller *caller, uint64_t handle, struct lease_view *ret, struct failure *failure) {
        struct lease *lease = NULL;
        int r;

        r = lease_find(caller, handle, &lease, failure);
        if (r == 0)
                lease_look(lease, ret);
        return r;
}

int lease_return(const struct caller *caller, uint64_t handle, enum lease_kind kind, struct failure *failure) {
        struct broker *broker = caller->session->owner->broker;
        struct lease *lease = NULL;
        int r;

        r = lease_find(caller, handle, &lease, failure);
        if (r < 0)
                return r;
        if ((lease->holder->kind == HOLDER_POOL) != (kind == LEASE_OF_POOL))
                return failure_set(failure, REASON_unknown_handle, "Lease %llu is of a %s", (unsigned long long)handle,
                                   lease->holder->kind == HOLDER_POOL ? "pool: return it with pool.return"
                                                                      : "bounce pool: return it with bounce.return");
        lease_end(lease, false);
        requests_serve(broker);
        return 0;
}

int lease_visit(const struct caller *caller, uint64_t pool, uint64_t bounce, const char *name, uint64_t after,
                lease_visit_fn visit, void *userdata, struct failure *failure) {
        struct selection selection;
        struct lease_view view;
        struct lease *lease;
        int r;

        r = selection_begin(&selection, caller, name, 0, after, failure);
        if (r < 0)
                return r;
        while ((lease = selection_next(&selection, HANDLE_LEASE))) {
                if (!selection_has(&selection, lease->session->owner, lease->holder->device))
                        continue;
                lease_look(lease, &view);
                if ((pool && view.pool != pool) || (bounce && view.bounce != bounce))
                        continue;
                if (visit(&view, userdata))
                        break;
        }
        return 0;
}
