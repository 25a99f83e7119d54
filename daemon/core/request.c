/* Requests: each owner's stand in a queue, first come, first served; the owners take turns. A request of high priority may
 * pass those that wait, and one for a device with a reserve waits only for those that use the same reserve. Answers are
 * given only from requests_deliver(), when the books are in order, because whoever gets an answer may call the core
 * again. */
#include <errno.h>
#include <stdlib.h>

#include "daemon/core/objects.h"

void request_refuse(broker_done_fn done, void *userdata, const struct failure *failure) {
        done(userdata, failure, 0);
}

/* ---- pressure ---- */

/* Nobody needs to hear of it more often, be it ever so busy. */
#define PRESSURE_AGAIN_MS 1000

/* Memory is short for everybody, so nobody's name goes with it. */
static void pressure_begin(struct broker *broker, uint64_t bytes) {
        uint64_t now = now_ms(broker);

        if (broker->pressed || (broker->pressed_ms && now - broker->pressed_ms < PRESSURE_AGAIN_MS))
                return;
        broker->pressed = true;
        broker->pressed_ms = now;
        event_tell(broker, &(struct event){ .topic = EVENT_PRESSURE, .bytes = bytes });
}

static void pressure_end(struct broker *broker) {
        if (!broker->pressed)
                return;
        broker->pressed = false;
        event_tell(broker, &(struct event){ .topic = EVENT_PRESSURE, .over = true });
}

/* ---- coming and going ---- */

static void request_leave(struct request *request) {
        struct owner *owner = request->owner;

        DL_DELETE(owner->requests, request);
        owner->broker->n_requests--;
        owner->broker->counts.waiters--;
        if (request->moved)
                move_end(request);
        device_discharge(request->device, QUOTA_waiters, 1);
        if (!owner->broker->n_requests)
                pressure_end(owner->broker);
}

static void request_finish(struct request *request, bool failed) {
        struct broker *broker = request->owner->broker;

        request_leave(request);
        /* Without a reason it would pass for a success. */
        if (failed && !request->failure.error)
                failure_set(&request->failure, REASON_source_unavailable, "The request could not be served");
        if (failed) {
                broker->counters[COUNTER_alloc_failures]++;
                key_forget(request->owner, request->key);
                request->key = NULL;
        } else {
                request->failure.error = 0;
        }
        request->state = REQUEST_FINISHED;
        DL_APPEND(broker->finished, request);
}

static void requests_deliver(struct broker *broker) {
        struct request *request;
        struct device *device;

        while ((request = broker->finished)) {
                DL_DELETE(broker->finished, request);
                device = request->device;
                if (broker->submitted == request)
                        broker->submitted = NULL;
                device->n_requests--;
                device_forget(device);
                request->done(request->userdata, request->failure.error ? &request->failure : NULL, request->handle);
                free(request);
        }
}

/* ---- serving ---- */

/* A request behind others that wait: it may not overtake them, and it may not wait. */
static void request_turn_away(struct request *request) {
        if (request_possible(request))
                failure_set(&request->failure, REASON_would_block,
                            "Earlier requests of %s wait for memory; this one was told not to wait", request->owner->name);
        request_finish(request, true);
}

static bool memory_returns(const struct broker *broker) {
        const struct supply *supply;

        LL_FOREACH(every_supply(broker), supply)
                if (supply->returning)
                        return true;
        return false;
}

/* True: the request was answered, or its jobs began. */
static bool request_try(struct request *request) {
        struct broker *broker = request->owner->broker;
        int r = request_attempt(request);

        /* It is not tried anew by what concerns others only. */
        request->attempts += r == ATTEMPT_WORKING || request->returned != broker->returned;
        request->returned = broker->returned;
        if (r == ATTEMPT_WORKING)
                return false;
        if (r == ATTEMPT_BLOCKED) {
                /* Memory that is on its way back is not waited for: it is as good as there. */
                if (request->wait_ms || memory_returns(broker))
                        return false;
                request_finish(request, true);
                return true;
        }
        request_finish(request, r < 0);
        return true;
}

static struct lane *lane_of(const struct request *request, struct lane *shared) {
        struct device *lender = request_reserve(request);
        struct lane *lane;

        if (!lender)
                return shared;
        lane = &lender->lane;
        if (lane->round != shared->round)
                *lane = (struct lane){ .round = shared->round };
        return lane;
}

/* At most one answer. */
static bool owner_serve(struct owner *owner) {
        struct lane shared = { .round = ++owner->broker->round }, *lane;
        struct request *request, *next;

        DL_FOREACH_SAFE(owner->requests, request, next) {
                /* What is swapped out needs nothing that others wait for. */
                if (request->anonymous) {
                        if (request->state == REQUEST_QUEUED && request_try(request))
                                return true;
                        continue;
                }
                lane = lane_of(request, &shared);
                if (request->state == REQUEST_WORKING) {
                        lane->blocked = true;
                        continue;
                }
                if (!lane->blocked || request->high) {
                        if (request_try(request))
                                return true;
                        lane->waits |= request->state == REQUEST_QUEUED && request->wait_ms;
                        lane->blocked = true;
                } else if (lane->waits && !request->wait_ms) {
                        request_turn_away(request);
                        return true;
                }
        }
        return false;
}

static bool owners_serve(struct broker *broker) {
        struct owner *first = broker->owners, *owner;
        bool any = false;

        for (owner = broker->owners; owner; owner = owner->hh.next)
                if (owner->id == broker->turn && owner->hh.next)
                        first = owner->hh.next;
        owner = first;
        while (owner) {
                if (owner->requests && owner_serve(owner)) {
                        broker->turn = owner->id;
                        any = true;
                }
                owner = owner->hh.next ? owner->hh.next : broker->owners;
                if (owner == first)
                        break;
        }
        return any;
}

void requests_serve(struct broker *broker) {
        if (broker->serving) {
                broker->serve_again = true;
                return;
        }
        broker->serving = true;
        do {
                broker->serve_again = false;
                holders_serve(broker);
                while (broker->n_requests && owners_serve(broker))
                        ;
                requests_deliver(broker);
                waiters_deliver(broker);
                releases_serve(broker);
        } while (broker->serve_again);
        broker->serving = false;
}

static void queue_join(struct request *request) {
        struct broker *broker = request->owner->broker;

        DL_APPEND(request->owner->requests, request);
        broker->n_requests++;
        broker->counts.waiters++;
        device_charge(request->device, QUOTA_waiters, 1);
        request->device->n_requests++;
        if (request->wait_ms)
                request->deadline_ms = now_ms(broker) + request->wait_ms;
}

struct ticket *request_submit(struct request *request) {
        struct broker *broker = request->owner->broker;

        queue_join(request);
        /* Called from an answer: whoever gives the answers goes on with this one. */
        if (broker->serving) {
                broker->serve_again = true;
                return &request->ticket;
        }
        broker->submitted = request;
        if (request->owner->requests == request) {
                /* Nobody is before it: the other owners have had their turn. */
                broker->serving = true;
                request_try(request);
                requests_deliver(broker);
                broker->serving = false;
                if (broker->serve_again)
                        requests_serve(broker);
        } else {
                requests_serve(broker);
        }
        if (broker->submitted != request)
                return NULL;
        broker->submitted = NULL;
        if (request->wait_ms && request->state == REQUEST_QUEUED) {
                broker->counters[COUNTER_waits]++;
                pressure_begin(broker, request->want.size);
        }
        return &request->ticket;
}

/* ---- jobs, deadlines, the end ---- */

/* Others of the same owner may have been served while the block was made ready. */
static int ready(struct request *request, struct alloc **ret) {
        const struct arena_block *block = &request->block;
        int r = request->anonymous ? 0 : device_check(request->device, QUOTA_bytes, block->size, &request->failure);

        if (r == 0 && !request->region->device)
                r = device_check(request->device, QUOTA_low_bytes, low_part(block->addr, block->size), &request->failure);
        if (r == 0 && !request->swap)
                r = device_check(request->device, QUOTA_allocs, 1, &request->failure);
        return r < 0 ? r : alloc_new(request, ret);
}

/* The old one goes only when the new one is there. */
static void copied(struct request *request) {
        struct alloc *moved = request_moved(request), *alloc;

        if (!moved)
                failure_set(&request->failure, REASON_gone, "Allocation %llu ended while it was moved",
                            (unsigned long long)request->moved);
        if (!moved || ready(request, &alloc) < 0) {
                request_release(request);
                request_finish(request, true);
                return;
        }
        move_finish(request, alloc);
        request_finish(request, false);
}

static void zeroed(struct request *request) {
        struct alloc *alloc;

        request->owner->broker->counters[COUNTER_zeroed_bytes] += request->block.size;
        if (ready(request, &alloc) < 0) {
                request_release(request);
                request_finish(request, true);
                return;
        }
        request->handle = alloc->handle;
        request_finish(request, false);
}

void request_job_done(struct request *request, int status, const struct failure *failure) {
        request->jobs--;
        if (request->cancelled) {
                request_release(request);
                if (!request->jobs)
                        free(request);
                return;
        }
        request->state = REQUEST_QUEUED;
        if (request->ended) {
                request_release(request);
                request_finish(request, true);
        } else if (status < 0) {
                request_release(request);
                if (failure->error)
                        request->failure = *failure;
                else
                        failure_set_errno(&request->failure, REASON_source_unavailable, -status,
                                          "The memory source could not do its work");
                request_finish(request, true);
        } else if (request->kind == REQUEST_RESERVE && request->region) {
                request->handle = request->region->handle;
                request_finish(request, false);
        } else if (request->region && request->moved) {
                copied(request);
        } else if (request->region) {
                zeroed(request);
        } else if (!request->jobs) {
                /* Before those that came earlier can take what was fetched for this one alone. */
                request_try(request);
        }
}

static void finished_undo(struct request *request) {
        struct broker *broker = request->owner->broker;
        struct alloc *alloc;
        struct region *region;

        /* What was moved has no other place any more. */
        if (request->failure.error || request->moved)
                return;
        alloc = handle_find(&broker->handles, HANDLE_ALLOC, request->handle);
        region = handle_find(&broker->handles, HANDLE_REGION, request->handle);
        if (request->kind == REQUEST_ALLOC && alloc)
                alloc_free(alloc);
        if (request->kind == REQUEST_RESERVE && region)
                region_restore(region);
}

void ticket_cancel(struct ticket *ticket) {
        ticket->cancel(ticket);
}

void request_withdraw(struct ticket *ticket) {
        struct request *request = (struct request *)ticket;
        struct broker *broker = request->owner->broker;
        struct device *device = request->device;

        broker->counters[COUNTER_cancels]++;
        if (request->state == REQUEST_FINISHED) {
                DL_DELETE(broker->finished, request);
                finished_undo(request);
                device->n_requests--;
                device_forget(device);
                free(request);
                return;
        }
        request_leave(request);
        device->n_requests--;
        key_forget(request->owner, request->key);
        request->key = NULL;
        if (request->jobs)
                request->cancelled = true;
        else
                free(request);
        device_forget(device);
}

void request_cancel(struct ticket *ticket) {
        struct broker *broker = ((struct request *)ticket)->owner->broker;

        request_withdraw(ticket);
        requests_serve(broker);
}

/* Its jobs go on: it is answered when they are over. */
static void request_end(struct request *request, enum reason reason, const char *sentence) {
        failure_set(&request->failure, reason, "%s", sentence);
        request->ended = true;
        if (!request->jobs)
                request_finish(request, true);
}

void requests_end(struct owner *owner, const struct device *device) {
        struct request *request, *next;

        DL_FOREACH_SAFE(owner->requests, request, next)
                if (request->device == device && !request->holder)
                        request_end(request, REASON_gone, "The device was closed while the request waited");
}

void requests_end_session(const struct session *session) {
        struct request *request, *next;

        DL_FOREACH_SAFE(session->owner->requests, request, next)
                if (request->maker == session->id)
                        request_end(request, REASON_gone, "The session ended while the request waited");
}

bool requests_want(const struct device *device) {
        const struct request *request;

        DL_FOREACH(device->owner->requests, request)
                if (request->device == device && !request->ended)
                        return true;
        return false;
}

uint64_t requests_deadline(const struct broker *broker) {
        uint64_t deadline = UINT64_MAX;
        const struct request *request;
        const struct owner *owner;

        if (!broker->n_requests)
                return deadline;
        for (owner = broker->owners; owner; owner = owner->hh.next)
                DL_FOREACH(owner->requests, request)
                        if (request->deadline_ms && request->state == REQUEST_QUEUED)
                                deadline = smaller(deadline, request->deadline_ms);
        return deadline;
}

static void request_time_out(struct request *request) {
        struct failure *failure = &request->failure;

        request->owner->broker->counters[COUNTER_timeouts]++;
        failure_set(failure, REASON_timeout, "No memory became free within %llu ms", (unsigned long long)request->wait_ms);
        failure_add_number(failure, "asked", request->want.size);
        failure_add_number(failure, "wait_ms", request->wait_ms);
        request_finish(request, true);
}

void requests_tick(struct broker *broker, uint64_t now) {
        struct request *request, *next;
        struct owner *owner;

        for (owner = broker->owners; owner && broker->n_requests; owner = owner->hh.next)
                DL_FOREACH_SAFE(owner->requests, request, next)
                        if (request->deadline_ms && request->deadline_ms <= now && request->state == REQUEST_QUEUED)
                                request_time_out(request);
        requests_serve(broker);
}
