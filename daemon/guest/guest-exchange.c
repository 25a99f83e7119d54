/* Who may have frames exchanged, and which: judged before anything is asked of Xen. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/guest/guest.h"
#include "daemon/guest/xen-exchange.h"
#include "daemon/log.h"

enum { PAGE_BITS = 12 };
/* So that no guest calls a frame as memory domains do. */
#define PFN_MAX ((UINT64_C(1) << 40) - 1)

/* One of a guest's at a time. */
struct exchange {
        struct ticket ticket;
        struct guest *guest;
        guests_exchange_fn done; /* NULL: nobody waits any more */
        void *userdata;
        size_t n_wanted;
        bool by_itself;
};

static void on_cancelled(struct ticket *ticket) {
        ((struct exchange *)ticket)->done = NULL;
}

static struct ticket *refuse(guests_exchange_fn done, void *userdata, const struct failure *failure) {
        done(userdata, failure, NULL);
        return NULL;
}

/* ---- what is refused ---- */

static int check_pfns(const struct exchange_request *request, struct failure *failure) {
        const size_t n_extents = request->n_frames >> request->order;

        if (!request->pfns)
                return 0;
        if (request->n_pfns != n_extents)
                return failure_set(failure, REASON_bad_param, "pfns has %zu numbers for %zu pieces: one for each, or none at all",
                                   request->n_pfns, n_extents);
        for (size_t i = 0; i < n_extents; i++)
                if (request->pfns[i] > PFN_MAX)
                        return failure_set(failure, REASON_bad_param, "No guest has a page 0x%" PRIx64 ": pfns are numbers of "
                                           "pages, at most 0x%" PRIx64, request->pfns[i], PFN_MAX);
        return 0;
}

static int check_size(const struct exchange_request *request, struct failure *failure) {
        const unsigned order_max = request->by_itself ? EXCHANGE_GUEST_ORDER_MAX : EXCHANGE_ORDER_MAX;
        const size_t each = (size_t)1 << (request->order <= order_max ? request->order : 0);

        if (request->order > order_max) {
                failure_set(failure, REASON_limit, "A piece has at most %u pages, of which the order is %u%s", 1u << order_max,
                            order_max, request->by_itself ? ", as Xen would give a guest that asked it" : "");
                failure_add_number(failure, "limit", order_max);
                return -failure->error;
        }
        if (request->n_frames > EXCHANGE_FRAMES_MAX) {
                failure_set(failure, REASON_limit, "At most %u frames are exchanged at a time", (unsigned)EXCHANGE_FRAMES_MAX);
                failure_add_number(failure, "limit", EXCHANGE_FRAMES_MAX);
                return -failure->error;
        }
        if (!request->n_frames || request->n_frames % each)
                return failure_set(failure, REASON_bad_param, "%zu frames are not as many as some pieces of %zu have",
                                   request->n_frames, each);
        if (request->mask < ((uint64_t)each << PAGE_BITS) - 1) {
                failure_set(failure, REASON_mask, "No piece of %zu pages lies at or below 0x%" PRIx64, each, request->mask);
                failure_add_hex(failure, "mask", request->mask);
                return -failure->error;
        }
        return check_pfns(request, failure);
}

static struct guest *find_guest(const struct guests *guests, const struct exchange_request *request, struct failure *failure) {
        struct guest *guest = guests_find(guests, request->guest, failure);

        if (guest && !guest->is_xen) {
                failure_set(failure, REASON_unsupported, "The guest %s is none of Xen's: only for a paravirtualised one of those "
                            "can frames be exchanged", guest->name);
                return NULL;
        }
        return guest;
}

static int check_guest(const struct guest *guest, const struct exchange_request *request, struct failure *failure) {
        if (!guest_is_reachable(guest, failure))
                return -failure->error;
        if (!guest->is_pv)
                return failure_set(failure, REASON_unsupported, "The guest %s is not paravirtualised: what it takes for "
                                   "frames of the machine's are none, and Xen exchanges none of its pages", guest->name);
        if (!request->by_itself && !request->given_up)
                return failure_set(failure, REASON_not_permitted, "The kernel of the guest %s would go on with the frames "
                                   "that it had, and not live: say that it has given them up (given_up), or have the guest "
                                   "ask itself", guest->name);
        if (!request->by_itself && guest->state != GUEST_PAUSED)
                return failure_set(failure, REASON_not_permitted, "The guest %s runs: only for one that is paused can an "
                                   "administrator know that it has given frames up", guest->name);
        if (guest->exchange)
                return failure_set(failure, REASON_busy, "Frames of the guest %s are being exchanged already", guest->name);
        return 0;
}

/* ---- what is done ---- */

static void tell(const struct exchange *exchange, const struct failure *failure, const struct exchange_result *result) {
        if (failure)
                log_info("no frames of the guest %s are exchanged: %s", exchange->guest->name, failure->sentence);
        else
                log_info("the guest %s has %zu of %zu pieces of memory for what it has given up%s%s", exchange->guest->name,
                         result->n_extents, exchange->n_wanted, result->why ? ": " : "",
                         result->why ? result->why->sentence : "");
}

static void on_over(void *userdata, const struct failure *failure, const struct exchange_result *result) {
        struct exchange *exchange = userdata;
        struct guests *guests = exchange->guest->guests;

        exchange->guest->exchange = NULL;
        if (!exchange->by_itself || !exchange->done)
                tell(exchange, failure, result);
        if (exchange->done)
                exchange->done(exchange->userdata, failure, result);
        free(exchange);
        if (guests->closed)
                guests_handle_closed(guests);
        else
                guests->n_handles--;
}

static int begin(struct guest *guest, const struct exchange_request *request, struct exchange *exchange,
                 struct failure *failure) {
        int r = xen_exchange_begin(guest->guests->loop, request, guest->run, guest->uuid, on_over, exchange);

        if (r < 0)
                return failure_set_errno(failure, r == -EOPNOTSUPP ? REASON_unsupported : REASON_no_memory, -r,
                                         "No frames can be exchanged: %s", strerror(-r));
        guest->exchange = exchange;
        guest->guests->n_handles++;
        return 0;
}

struct ticket *guests_exchange(struct guests *guests, const struct exchange_request *request, guests_exchange_fn done,
                               void *userdata) {
        const char *no_xen = xen_unavailable();
        struct exchange *exchange = NULL;
        struct failure failure = { 0 };
        struct guest *guest = NULL;
        int r = 0;

        if (no_xen)
                r = failure_set(&failure, REASON_unsupported, "Only Xen exchanges frames: %s", no_xen);
        if (r == 0) {
                guest = find_guest(guests, request, &failure);
                r = guest ? check_size(request, &failure) : -failure.error;
        }
        if (r == 0)
                r = check_guest(guest, request, &failure);
        if (r == 0) {
                exchange = calloc(1, sizeof(*exchange));
                r = exchange ? 0 : failure_set(&failure, REASON_no_memory, "The daemon itself is out of memory");
        }
        if (r == 0) {
                *exchange = (struct exchange){
                        .ticket.cancel = on_cancelled, .guest = guest, .done = done, .userdata = userdata,
                        .n_wanted = request->n_frames >> request->order, .by_itself = request->by_itself,
                };
                r = begin(guest, request, exchange, &failure);
        }
        if (r < 0) {
                free(exchange);
                return refuse(done, userdata, &failure);
        }
        return &exchange->ticket;
}

void guest_leave_exchange(struct guest *guest) {
        struct exchange *exchange = guest->exchange;
        struct failure failure = { 0 };
        guests_exchange_fn done = exchange ? exchange->done : NULL;

        if (!done)
                return;
        exchange->done = NULL;
        failure_set(&failure, REASON_gone, "The daemon is ending: whether frames are exchanged is not known");
        done(exchange->userdata, &failure, NULL);
}
