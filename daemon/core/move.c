/* Allocations that go elsewhere with what is in them: to another device, or out to ordinary memory and back. */
#include <errno.h>

#include "daemon/core/objects.h"
#include "daemon/probes.h"

struct alloc *request_moved(const struct request *request) {
        return handle_find(&request->owner->broker->handles, HANDLE_ALLOC, request->moved);
}

void move_end(const struct request *request) {
        struct alloc *moved = request_moved(request);

        if (moved)
                moved->flags &= ~(unsigned)ALLOC_MOVING;
}

static void move_begin(struct request *request, struct alloc *moved) {
        moved->flags |= ALLOC_MOVING;
        request->moved = moved->handle;
        request->flags = moved->flags & (ALLOC_OWNER_LIFETIME | ALLOC_SHAREABLE);
}

/* The new one has the old one's place in the world. */
static void take_over(struct broker *broker, struct alloc *alloc, struct alloc *old) {
        const uint64_t handle = alloc->handle;

        PROBE_FREE(old->device->owner->name, old->device->name, old->handle, alloc_size(old), alloc_dma_addr(old));
        PROBE_ALLOC(old->device->owner->name, old->device->name, old->handle, alloc_size(alloc), alloc_dma_addr(alloc));
        handle_exchange(&broker->handles, handle, old->handle);
        alloc->handle = old->handle;
        old->handle = handle;
        alloc->key = old->key;
        old->key = NULL;
        alloc->maker = old->maker;
        alloc->born_ms = old->born_ms;
        book_note(broker, ROW_ALLOC, alloc->handle);
        handle_release(&broker->handles, handle, 0); /* of which nobody was told */
        book_note(broker, ROW_ALLOC, handle);
        old->handle = 0;
}

void move_finish(struct request *request, struct alloc *alloc) {
        struct alloc *moved = request_moved(request);

        if (request->swap)
                take_over(request->owner->broker, alloc, moved);
        request->handle = alloc->handle;
        alloc_return(moved);
}

/* An allocation that the caller may move. Also an administrator moves its own only: to a device of its owner. */
static int moved_find(const struct caller *caller, uint64_t handle, struct alloc **ret, struct failure *failure) {
        struct alloc *alloc = NULL;
        int r;

        r = alloc_find(caller, handle, &alloc, failure);
        if (r == 0 && alloc->device->owner != caller->session->owner)
                r = handle_not_found(caller, HANDLE_ALLOC, handle, failure);
        if (r == 0)
                r = alloc_check_idle(alloc, failure);
        if (r == 0)
                *ret = alloc;
        return r;
}

struct ticket *coherent_move(const struct caller *caller, const struct move_request *ask, broker_done_fn done,
                             void *userdata) {
        struct alloc_request as = { .device = ask->device, .align = ask->align };
        struct failure failure = {};
        struct alloc *moved = NULL;
        struct arena_request want;
        struct request *request;
        struct device *device;
        int r = 0;

        device = device_of(caller, ask->device, &failure);
        if (!device) {
                done(userdata, &failure, 0);
                return NULL;
        }
        /* What was moved already is not there any more, and its key is what is asked for. */
        if (!request_is_answered(caller, ask->request_key)) {
                r = moved_find(caller, ask->alloc, &moved, &failure);
                as.size = moved ? alloc_size(moved) : 0;
                if (r == 0)
                        r = want_make(device, &as, &want, &failure);
        }
        request = request_admit(device, REQUEST_ALLOC, ask->request_key, ask->request_digest, r, &failure, done, userdata);
        if (!request)
                return NULL;
        move_begin(request, moved);
        request->maker = caller->session->id;
        request_want(request, &want);
        request->high = ask->high;
        request->wait_ms = ask->wait_ms;
        return request_submit(request);
}

/* ---- swapping ---- */

static struct ticket *swap_submit(const struct caller *caller, struct alloc *alloc, const struct arena_request *want, bool out,
                                  const struct swap_in_request *ask, broker_done_fn done, void *userdata) {
        struct failure failure = {};
        struct request *request = request_admit(alloc->device, REQUEST_ALLOC, NULL, 0, 0, &failure, done, userdata);

        if (!request)
                return NULL;
        move_begin(request, alloc);
        request->swap = true;
        request->anonymous = out;
        request->maker = caller->session->id;
        request->want = *want;
        if (!out)
                request_want(request, want);
        request->high = ask && ask->high;
        request->wait_ms = ask ? ask->wait_ms : 0;
        return request_submit(request);
}

struct ticket *coherent_swap_out(const struct caller *caller, uint64_t handle, broker_done_fn done, void *userdata) {
        struct failure failure = {};
        struct alloc *alloc = NULL;
        struct arena_request want;
        int r = moved_find(caller, handle, &alloc, &failure);

        if (r < 0 || alloc_is_anonymous(alloc)) {
                done(userdata, r < 0 ? &failure : NULL, r < 0 ? 0 : handle);
                return NULL;
        }
        want = (struct arena_request){ .size = alloc_size(alloc), .align = PAGE, .limit = UINT64_MAX };
        return swap_submit(caller, alloc, &want, true, NULL, done, userdata);
}

static bool suits(const struct alloc *alloc, const struct arena_request *want) {
        const uint64_t first = alloc_dma_addr(alloc), last = first + (alloc_size(alloc) - 1);

        return first % want->align == 0 && last <= want->limit && (!want->boundary || (first ^ last) < want->boundary);
}

/* Also from one place in device memory to another, if it is there but not as it is wanted. */
struct ticket *coherent_swap_in(const struct caller *caller, const struct swap_in_request *ask, broker_done_fn done,
                                void *userdata) {
        struct alloc_request as = { .align = ask->align, .boundary = ask->boundary, .mask = ask->mask };
        struct failure failure = {};
        struct alloc *alloc = NULL;
        struct arena_request want;
        int r = moved_find(caller, ask->alloc, &alloc, &failure);

        if (r == 0) {
                as.size = alloc_size(alloc);
                r = want_make(alloc->device, &as, &want, &failure);
        }
        if (r == 0 && !alloc_is_anonymous(alloc) && suits(alloc, &want)) {
                done(userdata, NULL, ask->alloc);
                return NULL;
        }
        if (r < 0) {
                request_refuse(done, userdata, &failure);
                return NULL;
        }
        return swap_submit(caller, alloc, &want, false, ask, done, userdata);
}
