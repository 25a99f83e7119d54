/* Memory for guests of Xen's, in domains that never run (xen-domain.h). The hypervisor keeps it: a region is a note in
 * the books of this process, and no memory moves when one is made or ends. So whatever happens to the daemon at any
 * instruction, all frames are in their domains, where the next one finds them; the core's ledger tells which of them are
 * whose.
 *
 * A guest has a region by grants (xen-grants.h), which outlive the daemon as well. A process of this host cannot have
 * it: there is no file, and a descriptor through which it could be mapped would show its holder the memory of every
 * domain. */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/source/copy.h"
#include "daemon/source/sources.h"
#include "daemon/source/worker.h"
#include "daemon/source/xen-domain.h"
#include "daemon/source/xen-free.h"
#include "daemon/source/xen-grants.h"
#include "daemon/source/xen-identity.h"
#include "daemon/source/xen-options.h"
#include "daemon/source/xen-stock.h"

enum { LOW_BITS = 32 };

struct source_backing {
        const struct xen_host *host;
        struct xen_piece *pieces;
        struct xen_lot lot;
        uint64_t addr, size;
        struct source_backing *next, **link; /* in struct xen */
};

struct xen {
        struct source base;
        struct xen_options options;
        struct xen_host *view; /* for what is asked all the time */
        struct xen_host *host; /* the worker's */
        struct xen_free *free;
        struct source_worker *worker;
        bool survives; /* what there is stays for the next daemon */
        char about[96];
        _Atomic uint64_t held, left, room, awaited_of;

        /* The worker's alone from the first job on. */
        struct xen_stock *stock;
        struct source_backing *backings;
};

/* After every job: what describe() may know of the worker's books. */
static void settle(struct xen *xen) {
        atomic_store(&xen->held, xen_stock_held(xen->stock));
        atomic_store(&xen->left, xen_stock_left(xen->stock));
        atomic_store(&xen->room, xen_stock_room(xen->stock));
        atomic_store(&xen->awaited_of, xen_stock_awaited_of(xen->stock));
        xen_free_note(xen->free, xen_host_free(xen->host));
}

static uint64_t below_limit(const struct xen *xen) {
        const uint64_t held = atomic_load(&xen->held);

        return xen->options.limit > held ? xen->options.limit - held : 0;
}

/* ---- backings ---- */

static int backing_new(struct xen *xen, uint64_t addr, uint64_t size, enum xen_grain_state state,
                       struct source_backing **ret) {
        struct source_backing *backing = calloc(1, sizeof(*backing));
        int r;

        if (!backing)
                return -ENOMEM;
        *backing = (struct source_backing){ .host = xen->host, .addr = addr, .size = size };
        r = xen_stock_take(xen->stock, addr, size, state, &backing->pieces, &backing->lot.n_pieces);
        if (r < 0) {
                free(backing);
                return r;
        }
        backing->lot.pieces = backing->pieces;
        xen_grants_enter(&backing->lot);
        backing->link = &xen->backings;
        backing->next = xen->backings;
        if (backing->next)
                backing->next->link = &backing->next;
        xen->backings = backing;
        *ret = backing;
        return 0;
}

static void backing_free(struct source_backing *backing) {
        xen_grants_leave(&backing->lot);
        *backing->link = backing->next;
        if (backing->next)
                backing->next->link = backing->link;
        free(backing->pieces);
        free(backing);
}

typedef int (*piece_fn)(const struct source_backing *backing, const struct xen_piece *piece, uint64_t offset, uint64_t size,
                        void *userdata);

/* Every piece of [offset, offset+size), with the part of it that is meant. */
static int each_piece(const struct source_backing *backing, uint64_t offset, uint64_t size, piece_fn visit, void *userdata) {
        const struct xen_piece *piece = backing->pieces;
        uint64_t begin = 0, part;
        int r = 0;

        if (offset > backing->size || size > backing->size - offset)
                return -EINVAL;
        for (; size > 0 && r == 0; begin += piece++->size) {
                if (offset >= begin + piece->size)
                        continue;
                part = piece->size - (offset - begin);
                part = part < size ? part : size;
                r = visit(backing, piece, offset - begin, part, userdata);
                offset += part;
                size -= part;
        }
        return r;
}

static int piece_zero(const struct source_backing *backing, const struct xen_piece *piece, uint64_t offset, uint64_t size,
                      void *userdata) {
        return xen_domain_zero(backing->host, piece->domid, piece->addr / XEN_PAGE, offset, size);
}

static int piece_read(const struct source_backing *backing, const struct xen_piece *piece, uint64_t offset, uint64_t size,
                      void *userdata) {
        char **to = userdata, *at = *to;

        *to += size;
        return xen_domain_read(backing->host, piece->domid, piece->addr / XEN_PAGE, offset, at, size);
}

static int piece_write(const struct source_backing *backing, const struct xen_piece *piece, uint64_t offset, uint64_t size,
                       void *userdata) {
        const char **from = userdata, *at = *from;

        *from += size;
        return xen_domain_write(backing->host, piece->domid, piece->addr / XEN_PAGE, offset, at, size);
}

static int piece_verify(const struct source_backing *backing, const struct xen_piece *piece, uint64_t offset, uint64_t size,
                        void *userdata) {
        uint64_t *frame = userdata;

        return xen_domain_owns(backing->host, piece->domid, (piece->addr + offset) / XEN_PAGE, size / XEN_PAGE, frame);
}

static int xen_backing_fd(struct source_backing *backing) {
        return -1;
}

static int xen_backing_zero(struct source_backing *backing, uint64_t offset, uint64_t size) {
        return each_piece(backing, offset, size, piece_zero, NULL);
}

static int xen_backing_read(struct source_backing *backing, uint64_t offset, void *buffer, uint64_t size) {
        char *to = buffer;

        return each_piece(backing, offset, size, piece_read, &to);
}

static int xen_backing_write(struct source_backing *backing, uint64_t offset, const void *buffer, uint64_t size) {
        const char *from = buffer;

        return each_piece(backing, offset, size, piece_write, &from);
}

static int backing_verify(const struct source_backing *backing, struct failure *failure) {
        uint64_t frame = backing->addr / XEN_PAGE;
        int r = each_piece(backing, 0, backing->size, piece_verify, &frame);

        if (r == 0)
                return 0;
        failure_set_errno(failure, REASON_source_unavailable, EUCLEAN,
                          "the page at 0x%" PRIx64 " is not in a memory domain of this daemon's any more: %s", frame * XEN_PAGE,
                          r == -ENXIO ? "another domain has it, or none" : strerror(-r));
        failure_add_hex(failure, "machine_addr", frame * XEN_PAGE);
        return -EUCLEAN;
}

/* ---- jobs ---- */

/* The most bits that an address at or below the limit may have, all of which are then at or below it. */
static unsigned bits_of(uint64_t limit) {
        unsigned bits = 0;

        while (bits < XEN_BITS_MAX && (UINT64_C(1) << (bits + 1)) - 1 <= limit)
                bits++;
        return bits;
}

/* Fewer bits no whole grain has; and none at all are no limit to Xen. */
static bool is_possible(unsigned bits) {
        return UINT64_C(1) << bits >= XEN_GRAIN;
}

static int grow_fail(const struct xen *xen, uint64_t wanted, unsigned bits, int r, struct failure *failure) {
        if (!wanted)
                return failure_set(failure, REASON_no_memory, "source xen holds its limit of %" PRIu64 " bytes",
                                   xen->options.limit);
        if (r == -ENOSPC)
                return failure_set(failure, REASON_no_memory,
                                   "Xen has no 2 MiB in one piece free%s: %" PRIu64 " bytes are free in all (less "
                                   "for dom0 leaves more: dom0_mem= on Xen's command line, xl mem-set)",
                                   bits < XEN_BITS_MAX ? " where they were asked for" : "", xen_host_free(xen->host));
        if (failure && failure->error)
                return r;
        return failure_set_errno(failure, REASON_source_unavailable, r < 0 ? -r : EIO, "Xen gives no memory: %s",
                                 strerror(r < 0 ? -r : EIO));
}

static int xen_grow(struct xen *xen, struct source_job *job) {
        const uint64_t room = below_limit(xen);
        uint64_t wanted = job->size < room ? job->size : room, low = 0, got = 0;
        unsigned bits = bits_of(job->limit);
        int r = 0;

        wanted = wanted / XEN_GRAIN * XEN_GRAIN + (wanted % XEN_GRAIN && wanted < room ? XEN_GRAIN : 0);
        if (!is_possible(bits))
                return grow_fail(xen, wanted, bits, -ENOSPC, job->failure);
        if (xen_stock_low(xen->stock) < xen->options.low && bits > LOW_BITS)
                low = xen->options.low - xen_stock_low(xen->stock);
        if (low && wanted)
                got = xen_stock_grow(xen->stock, low < wanted ? low : wanted, LOW_BITS, job, &r);
        job->kept_low = low && got == wanted;
        if (got < wanted)
                got += xen_stock_grow(xen->stock, wanted - got, bits, job, &r);
        return got ? 0 : grow_fail(xen, wanted, bits, r, job->failure);
}

/* What is left of the run is told as arrived. */
static int xen_carve(struct xen *xen, struct source_job *job) {
        int r = backing_new(xen, job->addr, job->size, XEN_GRAIN_FREE, &job->backing);

        if (r == 0)
                return 0;
        if (r == -ENXIO) {
                xen_stock_give(xen->stock, job->addr, job->size, job);
                return failure_set_errno(job->failure, REASON_source_unavailable, EAGAIN,
                                         "the memory domain that had 0x%" PRIx64 " was ended by somebody else", job->addr);
        }
        if (r != -ENOENT)
                source_job_arrive(job, job->addr, job->size, -1);
        return failure_set_errno(job->failure, REASON_source_unavailable, -r,
                                 "no region can be made of the %" PRIu64 " bytes at 0x%" PRIx64 ": %s", job->size, job->addr,
                                 strerror(-r));
}

static int returned(int r, struct failure *failure) {
        if (r == -EBUSY)
                failure_set(failure, REASON_busy,
                            "a guest still has some of the memory, or its devices may: it is used again when they have not");
        else if (r < 0)
                failure_set_errno(failure, REASON_source_unavailable, -r,
                                  "some of the memory is no more: its domain was ended by somebody else");
        return r;
}

static int xen_restore(struct xen *xen, struct source_job *job) {
        const uint64_t addr = job->backing->addr, size = job->backing->size;

        backing_free(job->backing);
        job->backing = NULL;
        return returned(xen_stock_give(xen->stock, addr, size, job), job->failure);
}

static int xen_shrink(struct xen *xen, struct source_job *job) {
        int r = xen_stock_shrink(xen->stock, job);

        return r < 0 ? failure_set_errno(job->failure, REASON_source_unavailable, -r,
                                         "memory cannot be given back to Xen: %s", strerror(-r))
                     : 0;
}

static void xen_work(struct source *source, struct source_job *job) {
        struct xen *xen = (struct xen *)source;

        switch (job->kind) {
        case SOURCE_GROW:
                job->status = xen_grow(xen, job);
                break;
        case SOURCE_CARVE:
                job->status = xen_carve(xen, job);
                break;
        case SOURCE_RESTORE:
                job->status = xen_restore(xen, job);
                break;
        case SOURCE_SHRINK:
                job->status = xen_shrink(xen, job);
                break;
        case SOURCE_VERIFY:
                job->status = backing_verify(job->backing, job->failure);
                break;
        case SOURCE_COPY:
                job->status = source_copy(job);
                break;
        case SOURCE_ZERO:
                job->status = source_zero(&source_xen_ops, job);
                break;
        case SOURCE_RECLAIM:
                job->status = returned(xen_stock_reclaim(xen->stock, job), job->failure);
                break;
        case SOURCE_JOB_KINDS:
        default:
                job->status = failure_set(job->failure, REASON_unsupported, "source xen knows no job of kind %d",
                                          (int)job->kind);
        }
        settle(xen);
}

/* ---- from one daemon to the next ---- */

static int xen_adopt(struct source *source, uint64_t id, uint64_t addr, uint64_t size, int node, struct source_backing **ret,
                     struct failure *failure) {
        struct xen *xen = (struct xen *)source;
        int r = backing_new(xen, addr, size, XEN_GRAIN_LEFT, ret);

        settle(xen);
        if (r == -ENXIO)
                r = -ENOENT;
        if (r < 0)
                failure_set_errno(failure, REASON_source_unavailable, -r,
                                  "the region at 0x%" PRIx64 " cannot be taken over: %s", addr,
                                  r == -ENOENT ? "no memory domain of this daemon's has all of its memory" : strerror(-r));
        return r;
}

static bool xen_is_kept(void) {
        struct xen_domain *domains = NULL;
        struct xen_host *host = NULL;
        bool is_kept = false;
        uint64_t identity;
        size_t n = 0;
        int r;

        if (xen_host_open(&host, NULL, NULL) < 0)
                return false;
        r = xen_identity_find(&identity);
        /* Who cannot know is told why when the source opens. */
        if (r < 0 && r != -ENOENT)
                is_kept = true;
        if (r == 0 && xen_domains_find(host, identity, &domains, &n) == 0)
                for (size_t i = 0; i < n; i++)
                        is_kept |= !domains[i].is_dying;
        free(domains);
        xen_host_close(host);
        return is_kept;
}

static int xen_probe(struct failure *failure) {
        struct xen_host *host = NULL;
        int r = xen_host_open(&host, NULL, failure);

        xen_host_close(host);
        return r;
}

static void xen_end(struct xen *xen, bool give) {
        if (!xen)
                return;
        source_worker_free(xen->worker);
        while (xen->backings)
                backing_free(xen->backings);
        xen_stock_free(xen->stock, give);
        xen_free_end(xen->free);
        xen_host_close(xen->host);
        xen_host_close(xen->view);
        free(xen);
}

/* What a guest has mapped is Xen's to keep until it has not. */
static void xen_close(struct source *source) {
        xen_end((struct xen *)source, true);
}

static void xen_leave(struct source *source) {
        struct xen *xen = (struct xen *)source;

        xen_end(xen, xen && !xen->survives);
}

static int find_stock(struct xen *xen, struct failure *failure) {
        const char *about = NULL;
        uint64_t identity;
        int r;

        r = xen_host_open(&xen->view, &about, failure);
        if (r == 0)
                r = xen_host_open(&xen->host, NULL, failure);
        if (r == 0)
                r = xen_identity_get(&identity, failure);
        if (r == 0)
                r = xen_stock_new(xen->host, identity, &xen->options, &xen->stock, failure);
        if (r == 0)
                snprintf(xen->about, sizeof(xen->about), "memory of %s, for its guests", about);
        return r;
}

static int start_threads(struct xen *xen, struct failure *failure) {
        int r = xen_free_new(xen->view, &xen->free);

        if (r == 0)
                r = source_worker_new("source-xen", xen_work, &xen->base, &xen->worker);
        if (r < 0)
                return failure_set_errno(failure, REASON_source_unavailable, -r, "source xen cannot start: %s", strerror(-r));
        settle(xen);
        return 0;
}

static int xen_open(const struct source_option *options, size_t n_options, struct keep *keep, struct source **ret,
                    struct failure *failure) {
        struct xen *xen = calloc(1, sizeof(*xen));
        int r;

        if (!xen)
                return failure_set(failure, REASON_no_memory, "there is no memory to open source xen");
        xen->base.ops = &source_xen_ops;
        xen->survives = keep;
        r = xen_read_options(options, n_options, &xen->options, failure);
        if (r == 0)
                r = find_stock(xen, failure);
        if (r == 0)
                r = start_threads(xen, failure);
        if (r < 0) {
                xen_end(xen, false);
                return r;
        }
        *ret = &xen->base;
        return 0;
}

/* ---- the rest of the table ---- */

static void xen_describe(struct source *source, struct source_info *ret) {
        struct xen *xen = (struct xen *)source;
        const uint64_t room = atomic_load(&xen->room), free = xen_free_bytes(xen->free);
        uint64_t available = below_limit(xen);

        available = available < room ? available : room;
        available = available < free ? available : free;
        *ret = (struct source_info){
                .name = "xen",
                .about = xen->about,
                .flags = SOURCE_PINS | SOURCE_GUESTS | SOURCE_AIMS | SOURCE_RETURNS,
                .grain = XEN_GRAIN,
                .limit = xen->options.limit,
                .reserve = xen->options.reserve,
                .idle_ms = xen->options.idle_ms,
                .available = available / XEN_GRAIN * XEN_GRAIN,
                .awaited_of = atomic_load(&xen->awaited_of),
                .kept = atomic_load(&xen->left),
        };
}

static void xen_submit(struct source *source, struct source_job *job) {
        source_worker_submit(((struct xen *)source)->worker, job);
}

static int xen_event_fd(struct source *source) {
        return source_worker_event_fd(((struct xen *)source)->worker);
}

static void xen_dispatch(struct source *source) {
        source_worker_dispatch(((struct xen *)source)->worker);
}

static void xen_wait(struct source *source) {
        source_worker_wait(((struct xen *)source)->worker);
}

const struct source_ops source_xen_ops = {
        .struct_size = sizeof(struct source_ops),
        .version = SOURCE_OPS_VERSION,
        .name = "xen",
        .doc = "memory of a Xen host, for its guests, with machine addresses",
        .options = xen_options,
        .check_option = xen_check_option,
        .open = xen_open,
        .close = xen_close,
        .describe = xen_describe,
        .submit = xen_submit,
        .event_fd = xen_event_fd,
        .dispatch = xen_dispatch,
        .wait = xen_wait,
        .backing_fd = xen_backing_fd,
        .backing_zero = xen_backing_zero,
        .adopt = xen_adopt,
        .leave = xen_leave,
        .backing_read = xen_backing_read,
        .backing_write = xen_backing_write,
        .is_kept = xen_is_kept,
        .probe = xen_probe,
};
