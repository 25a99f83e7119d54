#include <config.h>

#include "daemon/source/xen-frames.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/source/xen-domain.h"
#include "daemon/source/xen-library.h"

/* ---- who it is ---- */

static int refuse_gone(struct failure *failure) {
        return failure_set(failure, REASON_gone, "The guest has ended, or has booted anew");
}

/* Xen is told a number: this is as close to the call as it can be known whose that is. */
static int check_domain(struct xen_host *host, const struct xen_exchange *exchange, struct failure *failure) {
        struct xen_listed found = { 0 };
        int r = xen_host_look_guest(host, exchange->domid, exchange->uuid, &found);

        if (r < 0 && r != -ENOENT)
                return failure_set_errno(failure, REASON_source_unavailable, -r,
                                         "Xen does not say what domain %" PRIu32 " is: %s", exchange->domid, strerror(-r));
        if (r < 0 || found.is_dying || found.is_down)
                return refuse_gone(failure);
        if (!found.is_pv)
                return failure_set(failure, REASON_unsupported, "The guest is not paravirtualised: what it takes for frames of "
                                   "the machine's are none, and Xen exchanges none of its pages");
        if (exchange->if_paused && !found.is_paused)
                return failure_set(failure, REASON_not_permitted, "The guest runs: only for one that is paused can an "
                                   "administrator know that it has given frames up");
        return 0;
}

/* ---- whose the frames are ---- */

static int refuse_frame(uint64_t frame, struct failure *failure) {
        failure_set(failure, REASON_bad_address, "The guest does not have the frame 0x%" PRIx64 " of the machine's memory",
                    frame);
        failure_add_hex(failure, "frame", frame);
        return -failure->error;
}

static int refuse_for(int error, const char *what, struct failure *failure) {
        return failure_set_errno(failure, error == ENOMEM ? REASON_no_memory : REASON_source_unavailable, error, "%s: %s", what,
                                 strerror(error));
}

static int check_owned(struct xen_host *host, const struct xen_exchange *exchange, struct failure *failure) {
        bool *is_owned = calloc(XEN_MAP_PAGES, sizeof(*is_owned));
        int r = is_owned ? 0 : -ENOMEM;
        size_t at, n = 0;

        for (at = 0; at < exchange->n_frames && r == 0; at += n) {
                n = exchange->n_frames - at < XEN_MAP_PAGES ? exchange->n_frames - at : XEN_MAP_PAGES;
                r = xen_domain_owns_each(host, exchange->domid, exchange->frames + at, n, is_owned);
                for (size_t i = 0; i < n && r == 0; i++)
                        if (!is_owned[i]) {
                                free(is_owned);
                                return refuse_frame(exchange->frames[at + i], failure);
                        }
        }
        free(is_owned);
        return r == 0 ? 0 : refuse_for(-r, "it cannot be seen whose the frames are", failure);
}

/* What it calls its frames goes on being so if each extent takes the place of pages that follow one another in the guest. */
static int name_as_before(struct xen_host *host, const struct xen_exchange *exchange, uint64_t *ret, struct failure *failure) {
        const size_t each = (size_t)1 << exchange->order;
        uint64_t *names = calloc(exchange->n_frames, sizeof(*names));
        int r = names ? xen_host_names(host, exchange->frames, exchange->n_frames, names) : -ENOMEM;

        if (r < 0)
                refuse_for(-r, "what the guest calls its frames is not to be had", failure);
        for (size_t i = 0; i < exchange->n_frames && r == 0; i++) {
                if (i % each == 0)
                        ret[i / each] = names[i];
                else if (names[i] != names[i - 1] + 1)
                        r = failure_set(failure, REASON_bad_param, "The guest has the frames 0x%" PRIx64 " and 0x%" PRIx64
                                        " not one after the other, so that it must say in pfns where it is to have what it gets",
                                        exchange->frames[i - 1], exchange->frames[i]);
        }
        free(names);
        return r;
}

/* ---- the call ---- */

/* The most bits that an address within the mask may have; 0: it is no limit to Xen. */
static unsigned bits_of(uint64_t mask) {
        unsigned bits = 63;

        if (mask == UINT64_MAX)
                return 0;
        while ((UINT64_C(1) << bits) - 1 > mask)
                bits--;
        return bits;
}

/* What Xen reads and writes must not be paged out meanwhile. */
struct call {
        const struct xen_library *library;
        xencall_handle *handle;
        xen_memory_exchange_t *about;
        xen_pfn_t *in, *out;
};

static void call_end(struct call *call) {
        if (!call->handle)
                return;
        call->library->xencall_free_buffer(call->handle, call->out);
        call->library->xencall_free_buffer(call->handle, call->in);
        call->library->xencall_free_buffer(call->handle, call->about);
        call->library->xencall_close(call->handle);
}

static int call_begin(struct call *call, const struct xen_exchange *exchange, const uint64_t *pfns) {
        const size_t n_extents = exchange->n_frames >> exchange->order;

        call->handle = call->library->xencall_open(&xen_library_silence, 0);
        if (!call->handle)
                return xen_library_failed();
        call->about = call->library->xencall_alloc_buffer(call->handle, sizeof(*call->about));
        call->in = call->library->xencall_alloc_buffer(call->handle, exchange->n_frames * sizeof(*call->in));
        call->out = call->library->xencall_alloc_buffer(call->handle, n_extents * sizeof(*call->out));
        if (!call->about || !call->in || !call->out)
                return -ENOMEM;
        for (size_t i = 0; i < exchange->n_frames; i++)
                call->in[i] = exchange->frames[i];
        for (size_t i = 0; i < n_extents; i++)
                call->out[i] = pfns[i];
        *call->about = (xen_memory_exchange_t){
                .in = { .nr_extents = exchange->n_frames, .domid = (domid_t)exchange->domid },
                .out = { .nr_extents = n_extents, .extent_order = exchange->order, .domid = (domid_t)exchange->domid,
                         .mem_flags = XENMEMF_address_bits(bits_of(exchange->mask)) },
        };
        set_xen_guest_handle_raw(call->about->in.extent_start, call->in);
        set_xen_guest_handle_raw(call->about->out.extent_start, call->out);
        return 0;
}

/* Why Xen has not gone on with those that are next. */
static void explain(const struct xen_exchange *exchange, int error, uint64_t frame, struct failure *failure) {
        const uint64_t size = (uint64_t)XEN_PAGE << exchange->order;

        if (error == EINVAL)
                failure_set(failure, REASON_busy, "Xen does not take the frames from 0x%" PRIx64 " on: the guest has one of them "
                            "mapped still, as its kernel has all that it uses, or somebody has whom it has granted it", frame);
        else if (error == ENOMEM && exchange->mask != UINT64_MAX)
                failure_set(failure, REASON_no_contiguous, "Xen has no more %" PRIu64 " bytes in one piece at or below 0x%"
                            PRIx64, size, exchange->mask);
        else if (error == ENOMEM)
                failure_set(failure, REASON_no_contiguous, "Xen has no more %" PRIu64 " bytes in one piece", size);
        else if (error == EPERM)
                failure_set(failure, REASON_not_permitted, "Xen lets this dom0 have no %" PRIu64 " bytes in one piece: see "
                            "memop-max-order of its command line", size);
        else if (error == EOPNOTSUPP)
                failure_set(failure, REASON_unsupported, "Xen exchanges no pages of this guest's");
        else if (error == ESRCH)
                refuse_gone(failure);
        else
                failure_set_errno(failure, REASON_source_unavailable, error, "Xen exchanges nothing: %s", strerror(error));
        if (error == EINVAL)
                failure_add_hex(failure, "frame", frame);
}

/* -errno: what Xen said, whatever has been exchanged. */
static int make_call(struct xen_exchange *exchange, const uint64_t *pfns, size_t *ret_exchanged) {
        struct call call = { .library = xen_library(NULL) };
        int r = call_begin(&call, exchange, pfns);

        *ret_exchanged = 0;
        if (r == 0) {
                r = call.library->xencall2(call.handle, __HYPERVISOR_memory_op, XENMEM_exchange, (uint64_t)(uintptr_t)call.about);
                r = r < 0 ? xen_library_failed() : 0;
                *ret_exchanged = call.about->nr_exchanged;
                exchange->n_extents = *ret_exchanged >> exchange->order;
                for (size_t i = 0; i < exchange->n_extents; i++)
                        exchange->extents[i] = call.out[i];
        }
        call_end(&call);
        return r;
}

/* What others have left there is none of the guest's business. */
static int zero(struct xen_host *host, const struct xen_exchange *exchange) {
        int r = 0;

        for (size_t i = 0; i < exchange->n_extents && r == 0; i++)
                r = xen_domain_zero(host, exchange->domid, exchange->extents[i], 0, (uint64_t)XEN_PAGE << exchange->order);
        return r;
}

static int carry_out(struct xen_host *host, struct xen_exchange *exchange, const uint64_t *pfns, struct failure *failure) {
        struct failure late = { 0 };
        size_t exchanged;
        int r = check_domain(host, exchange, failure);

        if (r < 0)
                return r;
        r = make_call(exchange, pfns, &exchanged);
        if (r < 0)
                explain(exchange, -r, exchange->frames[exchanged < exchange->n_frames ? exchanged : 0], &exchange->why);
        if (!exchange->n_extents) {
                if (failure)
                        *failure = exchange->why;
                return r < 0 ? -exchange->why.error : failure_set(failure, REASON_source_unavailable, "Xen exchanges nothing");
        }
        r = zero(host, exchange);
        if (check_domain(host, exchange, &late) == -reason_errno(REASON_gone))
                return refuse_gone(failure);
        if (r < 0)
                refuse_for(-r, "what the guest has got cannot be zeroed", &exchange->why);
        else if (late.error && !exchange->why.error)
                exchange->why = late;
        return 0;
}

int xen_frames_exchange(struct xen_exchange *exchange, struct failure *failure) {
        const size_t n_extents = exchange->n_frames >> exchange->order;
        uint64_t *named = NULL;
        struct xen_host *host;
        int r;

        exchange->n_extents = 0;
        exchange->why = (struct failure){ 0 };
        r = xen_host_open(&host, NULL, failure);
        if (r < 0)
                return r;
        if (!xen_library(NULL)->has_call)
                r = failure_set(failure, REASON_source_unavailable, "The library libxencall of Xen's is not installed");
        if (r == 0)
                r = check_domain(host, exchange, failure);
        if (r == 0)
                r = check_owned(host, exchange, failure);
        if (r == 0 && !exchange->pfns) {
                named = calloc(n_extents, sizeof(*named));
                r = named ? name_as_before(host, exchange, named, failure)
                          : failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        }
        if (r == 0)
                r = carry_out(host, exchange, named ? named : exchange->pfns, failure);
        free(named);
        xen_host_close(host);
        return r;
}
