/* Waiting for pieces of a holder, a pool or a bounce pool: one queue per holder, first come, first served. Those of high
 * priority stand before the others. Nobody overtakes those who wait, so a request that may not wait is turned away behind
 * them; only memory that is already being fetched is waited for by everybody.
 *
 * Nothing is served and no answer is given while the books are being changed: whoever changes them says that a holder is
 * due, and whoever began the change runs waiters_serve() or requests_serve() at its end. Answers may call the core again,
 * and end the holder, the session or both; nothing is held on to across them. */
#include <errno.h>
#include <stdlib.h>

#include "daemon/core/objects.h"

void *waiter_new(size_t size, struct session *session, struct holder *holder, uint64_t wait_ms, bool high,
                 struct failure *failure) {
        struct waiter *waiter;

        if (device_check(holder->device, QUOTA_waiters, 1, failure) < 0)
                return NULL;
        waiter = calloc(1, size);
        if (!waiter) {
                failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
                return NULL;
        }
        waiter->ticket.cancel = waiter_cancel;
        waiter->broker = session->owner->broker;
        waiter->ops = holder->ops;
        waiter->holder = holder;
        waiter->session = session;
        waiter->wait_ms = wait_ms;
        waiter->high = high;
        return waiter;
}

static void waiter_join(struct waiter *waiter) {
        struct holder *holder = waiter->holder;
        struct broker *broker = waiter->broker;
        struct waiter *before = holder->waiters;

        while (before && waiter->high && before->high)
                before = before->next;
        if (before && waiter->high)
                DL_PREPEND_ELEM(holder->waiters, before, waiter);
        else
                DL_APPEND(holder->waiters, waiter);
        DL_APPEND2(broker->waiters, waiter, broker_prev, broker_next);
        holder->n_waiters++;
        holder->n_hasty += !waiter->wait_ms;
        broker->counts.waiters++;
        device_charge(holder->device, QUOTA_waiters, 1);
        if (waiter->wait_ms)
                waiter->deadline_ms = now_ms(broker) + waiter->wait_ms;
}

static void waiter_leave(struct waiter *waiter) {
        struct holder *holder = waiter->holder;

        DL_DELETE(holder->waiters, waiter);
        DL_DELETE2(waiter->broker->waiters, waiter, broker_prev, broker_next);
        holder->n_waiters--;
        holder->n_hasty -= !waiter->wait_ms;
        waiter->broker->counts.waiters--;
        device_discharge(holder->device, QUOTA_waiters, 1);
}

static void waiter_answer(struct waiter *waiter, bool failed) {
        struct owner *owner = waiter->session->owner;

        waiter_leave(waiter);
        if (failed) {
                waiter->holder->failures++;
                key_forget(owner, waiter->key);
                waiter->key = NULL;
        } else {
                waiter->failure.error = 0;
        }
        /* Both may end before the answer is told. */
        waiter->holder = NULL;
        waiter->session = NULL;
        DL_APPEND(waiter->broker->answered, waiter);
}

void waiters_deliver(struct broker *broker) {
        struct waiter *waiter;

        while ((waiter = broker->answered)) {
                DL_DELETE(broker->answered, waiter);
                if (waiter->told)
                        *waiter->told = true;
                waiter->ops->tell(waiter);
                free(waiter);
        }
}

/* ---- serving ---- */

static void waiter_waits(struct waiter *waiter) {
        if (waiter->waited || !waiter->wait_ms)
                return;
        waiter->waited = true;
        waiter->holder->waits++;
}

/* True: it was answered. */
static bool waiter_try(struct waiter *waiter) {
        int r = waiter->ops->serve(waiter);

        if (r == WAITER_FETCHING || (r == WAITER_BLOCKED && waiter->wait_ms)) {
                waiter_waits(waiter);
                return false;
        }
        waiter_answer(waiter, r != 0);
        return true;
}

/* Those behind somebody who is not served yet. */
static void turn_away(struct holder *holder) {
        struct waiter *waiter, *next;
        bool waits = false;

        DL_FOREACH_SAFE(holder->waiters, waiter, next) {
                if (!waits || waiter->wait_ms) {
                        waits |= waiter->wait_ms > 0;
                } else if (waiter->high) {
                        waiter_try(waiter);
                } else {
                        waiter->ops->refuse(waiter, REASON_would_block);
                        waiter_answer(waiter, true);
                }
        }
}

static void holder_serve(struct holder *holder) {
        while (holder->waiters && waiter_try(holder->waiters))
                ;
        if (!holder->waiters)
                holder->ops->nobody_waits(holder);
        else if (holder->n_hasty)
                turn_away(holder);
}

void holder_due(struct holder *holder) {
        struct broker *broker = holder->device->owner->broker;

        broker->serve_again = true;
        if (holder->due)
                return;
        holder->due = true;
        DL_APPEND2(broker->due, holder, due_prev, due_next);
}

static void holder_not_due(struct holder *holder) {
        if (!holder->due)
                return;
        holder->due = false;
        DL_DELETE2(holder->device->owner->broker->due, holder, due_prev, due_next);
}

void holders_serve(struct broker *broker) {
        struct holder *holder;

        while ((holder = broker->due)) {
                holder_not_due(holder);
                holder_serve(holder);
        }
}

void waiters_serve(struct broker *broker) {
        if (broker->serving)
                return;
        broker->serving = true;
        broker->serve_again = false;
        holders_serve(broker);
        waiters_deliver(broker);
        broker->serving = false;
        if (broker->serve_again)
                requests_serve(broker);
}

struct ticket *waiter_submit(struct waiter *waiter) {
        struct broker *broker = waiter->broker;
        bool told = false;

        waiter->told = &told;
        waiter_join(waiter);
        holder_due(waiter->holder);
        waiters_serve(broker);
        if (told)
                return NULL;
        waiter->told = NULL;
        if (waiter->holder)
                waiter_waits(waiter);
        return &waiter->ticket;
}

/* ---- cancelling, deadlines, the end ---- */

void waiter_cancel(struct ticket *ticket) {
        struct waiter *waiter = (struct waiter *)ticket;
        struct broker *broker = waiter->broker;

        broker->counters[COUNTER_cancels]++;
        if (waiter->holder) {
                holder_due(waiter->holder);
                waiter_leave(waiter);
                key_forget(waiter->session->owner, waiter->key);
        } else {
                DL_DELETE(broker->answered, waiter);
                if (!waiter->failure.error)
                        waiter->ops->undo(waiter);
        }
        free(waiter);
        requests_serve(broker);
}

static void waiter_end(struct waiter *waiter, const char *sentence) {
        failure_set(&waiter->failure, REASON_gone, "%s", sentence);
        waiter_answer(waiter, true);
}

void waiters_end(struct holder *holder) {
        while (holder->waiters)
                waiter_end(holder->waiters, "The pool was destroyed, or its device closed, while the request waited");
        holder_not_due(holder);
}

void waiters_end_session(struct session *session) {
        struct waiter *waiter, *next;

        for (waiter = session->owner->broker->waiters; waiter; waiter = next) {
                next = waiter->broker_next;
                if (waiter->session != session)
                        continue;
                holder_due(waiter->holder);
                waiter_end(waiter, "The session ended while the request waited");
        }
}

uint64_t waiters_deadline(const struct broker *broker) {
        uint64_t deadline = UINT64_MAX;
        const struct waiter *waiter;

        DL_FOREACH2(broker->waiters, waiter, broker_next)
                if (waiter->deadline_ms)
                        deadline = smaller(deadline, waiter->deadline_ms);
        return deadline;
}

void waiters_tick(struct broker *broker, uint64_t now) {
        struct waiter *waiter, *next;

        for (waiter = broker->waiters; waiter; waiter = next) {
                next = waiter->broker_next;
                if (!waiter->deadline_ms || waiter->deadline_ms > now)
                        continue;
                holder_due(waiter->holder);
                waiter->holder->timeouts++;
                waiter->ops->refuse(waiter, REASON_timeout);
                waiter_answer(waiter, true);
        }
}
