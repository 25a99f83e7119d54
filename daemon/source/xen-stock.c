#include "daemon/source/xen-stock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/source/xen-member.h"

enum {
        GRAIN_ORDER = 9,
        /* A guest that lives has run by then, as a rule. */
        LOOKS = 20,
        LOOK_PAUSE_MS = 5,
};
#define FOUR_GIB (UINT64_C(1) << 32)

struct grain {
        uint64_t addr;
        struct xen_member *member;
        enum xen_grain_state state;
        bool is_wanted; /* by the job */
        bool is_clear;  /* no guest has it mapped */
        /* Since it is clear: one of the guests that had it, and for how long that had run by then. */
        uint32_t had_by; /* if it is awaited: one of those of whom it is */
        bool is_noted, is_new; /* by this job */
        uint32_t guest;
        uint64_t ran_ns;
};

struct xen_stock {
        struct xen_host *host;
        struct xen_members members;
        struct grain *grains; /* by address */
        size_t n_grains, capacity;
};

/* ---- grains ---- */

static int by_addr(const void *a, const void *b) {
        const struct grain *x = a, *y = b;

        return (x->addr > y->addr) - (x->addr < y->addr);
}

/* The first at this address or above it. */
static size_t grain_index(const struct xen_stock *stock, uint64_t addr) {
        size_t low = 0, high = stock->n_grains;

        while (low < high) {
                const size_t middle = low + (high - low) / 2;

                if (stock->grains[middle].addr < addr)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

static int grains_reserve(struct xen_stock *stock, size_t more) {
        struct grain *grains;
        size_t capacity = stock->capacity ? stock->capacity : 64;

        while (capacity < stock->n_grains + more)
                capacity *= 2;
        if (capacity == stock->capacity)
                return 0;
        grains = realloc(stock->grains, capacity * sizeof(*grains));
        if (!grains)
                return -ENOMEM;
        stock->grains = grains;
        stock->capacity = capacity;
        return 0;
}

/* There is room for it; the books are in order again after a sort. */
static void grain_add(struct xen_stock *stock, struct xen_member *member, uint64_t addr, enum xen_grain_state state) {
        stock->grains[stock->n_grains++] = (struct grain){ .addr = addr, .member = member, .state = state };
        member->n_grains++;
}

static void grains_sort(struct xen_stock *stock) {
        if (stock->n_grains)
                qsort(stock->grains, stock->n_grains, sizeof(*stock->grains), by_addr);
}

/* Those that have lost their member. */
static void grains_sweep(struct xen_stock *stock) {
        size_t n = 0;

        for (size_t i = 0; i < stock->n_grains; i++)
                if (stock->grains[i].member)
                        stock->grains[n++] = stock->grains[i];
        stock->n_grains = n;
}

static void grain_forget(struct grain *grain) {
        grain->member->n_grains--;
        grain->member = NULL;
}

static uint64_t count(const struct xen_stock *stock, enum xen_grain_state state) {
        uint64_t n = 0;

        for (size_t i = 0; i < stock->n_grains; i++)
                n += stock->grains[i].state == state;
        return n * XEN_GRAIN;
}

uint64_t xen_stock_held(const struct xen_stock *stock) {
        return stock->n_grains * XEN_GRAIN;
}

uint64_t xen_stock_left(const struct xen_stock *stock) {
        return count(stock, XEN_GRAIN_LEFT);
}

uint32_t xen_stock_awaited_of(const struct xen_stock *stock) {
        for (size_t i = 0; i < stock->n_grains; i++)
                if (stock->grains[i].state == XEN_GRAIN_AWAITED)
                        return stock->grains[i].had_by;
        return 0;
}

uint64_t xen_stock_low(const struct xen_stock *stock) {
        return grain_index(stock, FOUR_GIB) * XEN_GRAIN;
}

uint64_t xen_stock_room(const struct xen_stock *stock) {
        return xen_members_room(&stock->members);
}

/* ---- from Xen, and back ---- */

/* Of the largest piece within all of these. */
static unsigned piece_order(uint64_t wanted, uint64_t room, unsigned top) {
        const uint64_t pages = wanted < room ? wanted : room;
        unsigned order = 0;

        while (order < top && pages >> (order + 1))
                order++;
        return order;
}

/* What cannot be zeroed, or not be told of, goes back at once. Returns the bytes. */
static int64_t extent_enter(struct xen_stock *stock, struct xen_member *member, uint64_t frame, unsigned order,
                            struct source_job *job) {
        const uint64_t size = (uint64_t)XEN_PAGE << order, addr = frame * XEN_PAGE;
        int r = grains_reserve(stock, size / XEN_GRAIN);

        if (r == 0)
                r = xen_domain_zero(stock->host, member->domain.domid, frame, 0, size);
        if (r == 0)
                r = source_job_arrive(job, addr, size, -1);
        if (r < 0) {
                xen_domain_give_back(stock->host, &member->domain, frame, order);
                return r;
        }
        for (uint64_t offset = 0; offset < size; offset += XEN_GRAIN)
                grain_add(stock, member, addr + offset, XEN_GRAIN_FREE);
        return (int64_t)size;
}

uint64_t xen_stock_grow(struct xen_stock *stock, uint64_t wanted, unsigned bits, struct source_job *job, int *ret_error) {
        unsigned top = XEN_ORDER_MAX, order;
        struct xen_member *member = NULL;
        uint64_t got = 0, frame;
        int64_t entered;
        int r = xen_members_look(&stock->members);

        if (r < 0)
                failure_set_errno(job->failure, REASON_source_unavailable, -r, "Xen does not list its domains: %s",
                                  strerror(-r));
        /* A domain would be made for it, and end again. */
        if (r == 0 && xen_host_free(stock->host) < XEN_GRAIN)
                r = -ENOSPC;
        while (got + XEN_GRAIN <= wanted && r == 0) {
                order = piece_order((wanted - got) / XEN_PAGE, xen_members_capacity(&stock->members), top);
                r = xen_members_pick(&stock->members, UINT64_C(1) << order, &member, job->failure);
                if (r < 0)
                        break;
                order = piece_order(UINT64_C(1) << order, xen_member_room(member) * XEN_GRAIN_PAGES, top);
                r = xen_domain_populate(stock->host, &member->domain, order, bits, &frame);
                if (r == 0) {
                        entered = extent_enter(stock, member, frame, order, job);
                        r = entered < 0 ? (int)entered : 0;
                        got += entered < 0 ? 0 : (uint64_t)entered;
                } else if (r == -ENOSPC && order > GRAIN_ORDER) {
                        top = order - 1;
                        r = 0;
                }
        }
        grains_sort(stock);
        xen_members_sweep(&stock->members);
        *ret_error = r;
        return got;
}

int xen_stock_shrink(struct xen_stock *stock, struct source_job *job) {
        const size_t first = grain_index(stock, job->addr), end = grain_index(stock, job->addr + job->size);
        int r = xen_members_look(&stock->members), error;

        for (size_t i = first; i < end; i++) {
                struct grain *grain = &stock->grains[i];

                error = grain->member->is_gone ? 0 : xen_domain_give_back(stock->host, &grain->member->domain,
                                                                          grain->addr / XEN_PAGE, GRAIN_ORDER);
                if (error < 0)
                        source_job_arrive(job, grain->addr, XEN_GRAIN, -1);
                else
                        grain_forget(grain);
                r = error < 0 ? error : r;
        }
        grains_sweep(stock);
        xen_members_sweep(&stock->members);
        return r;
}

/* ---- regions ---- */

static int note_piece(struct xen_piece **pieces, size_t *n, const struct grain *grain) {
        struct xen_piece *last = *n ? &(*pieces)[*n - 1] : NULL, *more;

        if (last && last->table == &grain->member->table) {
                last->size += XEN_GRAIN;
                return 0;
        }
        more = realloc(*pieces, (*n + 1) * sizeof(*more));
        if (!more)
                return -ENOMEM;
        more[(*n)++] = (struct xen_piece){ .addr = grain->addr, .size = XEN_GRAIN, .domid = grain->member->domain.domid,
                                           .table = &grain->member->table };
        *pieces = more;
        return 0;
}

int xen_stock_take(struct xen_stock *stock, uint64_t addr, uint64_t size, enum xen_grain_state state, struct xen_piece **ret,
                   size_t *ret_n) {
        const size_t first = grain_index(stock, addr), n = size / XEN_GRAIN;
        struct xen_piece *pieces = NULL;
        size_t n_pieces = 0;
        int r = xen_members_look(&stock->members);

        if (r == 0 && (!n || size % XEN_GRAIN || first + n > stock->n_grains))
                r = -ENOENT;
        for (size_t i = 0; i < n && r == 0; i++) {
                const struct grain *grain = &stock->grains[first + i];

                if (grain->addr != addr + i * XEN_GRAIN || grain->state != state)
                        r = -ENOENT;
                else if (grain->member->is_gone)
                        r = -ENXIO;
                else
                        r = note_piece(&pieces, &n_pieces, grain);
        }
        if (r < 0) {
                free(pieces);
                return r;
        }
        for (size_t i = 0; i < n; i++)
                stock->grains[first + i].state = XEN_GRAIN_REGION;
        *ret = pieces;
        *ret_n = n_pieces;
        return 0;
}

/* ---- what guests have had ---- */

/* Nobody can map it from here on. */
static void grain_revoke(struct grain *grain) {
        const uint64_t frame = grain->addr / XEN_PAGE;
        struct xen_table_use use;

        grain->state = XEN_GRAIN_AWAITED;
        grain->is_wanted = true;
        grain->is_new = false;
        if (grain->member->is_gone)
                return;
        xen_table_revoke(&grain->member->table, frame, XEN_GRAIN_PAGES);
        xen_table_look(&grain->member->table, frame, XEN_GRAIN_PAGES, &use, NULL);
        grain->is_clear = !use.busy;
        grain->had_by = use.last;
        grain->is_noted &= grain->is_clear;
}

static const struct xen_listed *find_listed(const struct xen_listed *listed, size_t n, uint32_t domid) {
        for (size_t i = 0; i < n; i++)
                if (listed[i].domid == domid)
                        return &listed[i];
        return NULL;
}

/* listed: after it was seen that nobody has the grain mapped; NULL: there is no such domain any more.
 *
 * When a domain is destroyed, what it has mapped is noted as not mapped long before its devices are taken from it, which may
 * fail: until then they write to where they could. Xen lists such a domain as it lists one that is paused, and as dying only
 * when all is done. But it has been stopped before the rest begins: whoever has run since, has let go by itself. */
static bool has_let_go(struct grain *grain, uint32_t guest, const struct xen_listed *listed) {
        if (!listed || listed->is_dying || listed->is_running)
                return true;
        if (grain->is_noted && grain->guest == guest)
                return grain->ran_ns != listed->ran_ns;
        grain->is_noted = grain->is_new = true;
        grain->guest = guest;
        grain->ran_ns = listed->ran_ns;
        return false;
}

/* Whether nobody has it, nor has any device of theirs. */
static bool is_nobodys(struct grain *grain, const struct xen_listed *listed, size_t n) {
        const struct xen_table *table = &grain->member->table;
        const uint64_t frame = grain->addr / XEN_PAGE;
        struct xen_table_use use;

        if (!grain->is_clear || !listed)
                return false;
        for (;;) {
                xen_table_look(table, frame, XEN_GRAIN_PAGES, &use, NULL);
                if (!use.past)
                        return true;
                grain->had_by = use.last;
                if (!has_let_go(grain, use.last, find_listed(listed, n, use.last)))
                        return false;
                xen_table_forget(table, frame, XEN_GRAIN_PAGES, use.last);
                grain->is_noted = false;
        }
}

/* If nobody has it, it is zeroed and free. */
static int grain_return(struct xen_stock *stock, struct grain *grain, const struct xen_listed *listed, size_t n,
                        struct source_job *job) {
        int r;

        if (grain->member->is_gone) {
                grain_forget(grain);
                return -ENXIO;
        }
        if (!is_nobodys(grain, listed, n))
                return -EBUSY;
        r = xen_domain_zero(stock->host, grain->member->domain.domid, grain->addr / XEN_PAGE, 0, XEN_GRAIN);
        if (r == 0)
                r = source_job_arrive(job, grain->addr, XEN_GRAIN, -1);
        if (r < 0)
                return -EBUSY;
        grain->state = XEN_GRAIN_FREE;
        return 0;
}

/* Of the grains that are wanted. */
struct returned {
        size_t n_awaited, n_gone;
        bool is_hopeful; /* of what is awaited, a guest has just let go, or is just being destroyed */
};

static void return_wanted(struct xen_stock *stock, struct source_job *job, struct returned *returned) {
        struct xen_listed *listed = NULL;
        size_t n = 0;
        int r;

        returned->n_awaited = 0;
        returned->is_hopeful = false;
        if (xen_host_list(stock->host, &listed, &n) < 0)
                listed = NULL;
        for (size_t i = 0; i < stock->n_grains; i++) {
                struct grain *grain = &stock->grains[i];

                if (!grain->is_wanted)
                        continue;
                r = grain_return(stock, grain, listed, n, job);
                grain->is_wanted = r == -EBUSY;
                returned->n_awaited += r == -EBUSY;
                returned->n_gone += r == -ENXIO;
                returned->is_hopeful |= r == -EBUSY && grain->is_new;
        }
        free(listed);
        grains_sweep(stock);
}

/* That some of it is awaited is told rather than that some of it is gone: it is asked for again. How much that is tells what is
 * gone. */
static int return_all_wanted(struct xen_stock *stock, struct source_job *job) {
        const struct timespec pause = { .tv_nsec = LOOK_PAUSE_MS * 1000000L };
        struct returned returned = { 0 };

        return_wanted(stock, job, &returned);
        for (unsigned i = 1; returned.is_hopeful && i < LOOKS; i++) {
                nanosleep(&pause, NULL);
                return_wanted(stock, job, &returned);
        }
        for (size_t i = 0; i < stock->n_grains; i++)
                stock->grains[i].is_wanted = false;
        xen_members_sweep(&stock->members);
        job->awaited = returned.n_awaited * XEN_GRAIN;
        return returned.n_awaited ? -EBUSY : returned.n_gone ? -ENXIO : 0;
}

int xen_stock_give(struct xen_stock *stock, uint64_t addr, uint64_t size, struct source_job *job) {
        const size_t first = grain_index(stock, addr), end = grain_index(stock, addr + size);

        xen_members_look(&stock->members);
        for (size_t i = first; i < end; i++)
                grain_revoke(&stock->grains[i]);
        return return_all_wanted(stock, job);
}

int xen_stock_reclaim(struct xen_stock *stock, struct source_job *job) {
        xen_members_look(&stock->members);
        for (size_t i = 0; i < stock->n_grains; i++)
                if (stock->grains[i].state == XEN_GRAIN_AWAITED || (stock->grains[i].state == XEN_GRAIN_LEFT && !job->later))
                        grain_revoke(&stock->grains[i]);
        return return_all_wanted(stock, job);
}

/* ---- what an earlier daemon has left ---- */

struct search {
        struct xen_stock *stock;
        struct xen_member *member;
        uint64_t addr, n_frames; /* of the grain that is being counted */
};

/* Grains come and go as a whole: of what is not whole somebody else has taken a part. */
static int note_frame(void *userdata, uint32_t number, uint64_t frame) {
        struct search *search = userdata;
        struct xen_stock *stock = search->stock;
        const uint64_t addr = frame / XEN_GRAIN_PAGES * XEN_GRAIN;
        int r;

        if (!search->member || search->member->domain.number != number || search->addr != addr) {
                search->member = xen_members_of(&stock->members, number);
                search->addr = addr;
                search->n_frames = 0;
        }
        if (!search->member || ++search->n_frames < XEN_GRAIN_PAGES)
                return 0;
        r = grains_reserve(stock, 1);
        if (r == 0)
                grain_add(stock, search->member, addr, XEN_GRAIN_LEFT);
        return r;
}

/* Anybody can write such names; but not own such frames. A guest that writes them to all that it has shall not cost more than
 * a look at every 512th of them. */
static int prove_first_frames(struct xen_stock *stock) {
        uint64_t *frames = malloc(XEN_MAP_PAGES * sizeof(*frames));
        bool *are_its = malloc(XEN_MAP_PAGES * sizeof(*are_its));
        int r = frames && are_its ? 0 : -ENOMEM;
        size_t n;

        for (size_t i = 0; i < stock->n_grains && r == 0; i += n) {
                struct grain *grain = &stock->grains[i];
                const uint32_t domid = grain->member->domain.domid;

                for (n = 0; n < XEN_MAP_PAGES && i + n < stock->n_grains && grain[n].member == grain->member; n++)
                        frames[n] = grain[n].addr / XEN_PAGE;
                r = xen_domain_owns_each(stock->host, domid, frames, n, are_its);
                for (size_t j = n; j-- > 0 && r == 0;)
                        if (!are_its[j])
                                grain_forget(&grain[j]);
        }
        free(are_its);
        free(frames);
        grains_sweep(stock);
        return r;
}

static int prove_grain(struct xen_stock *stock, struct grain *grain) {
        uint64_t frame;
        int r = xen_domain_owns(stock->host, grain->member->domain.domid, grain->addr / XEN_PAGE, XEN_GRAIN_PAGES, &frame);

        if (r == -ENXIO)
                grain_forget(grain);
        return r == -ENXIO ? 0 : r;
}

static int prove(struct xen_stock *stock) {
        uint64_t frame;
        size_t n;
        int r = prove_first_frames(stock);

        for (size_t i = 0; i < stock->n_grains && r == 0; i += n) {
                struct grain *grain = &stock->grains[i];
                const uint32_t domid = grain->member->domain.domid;

                for (n = 1; i + n < stock->n_grains; n++)
                        if (grain[n].member != grain->member || grain[n].addr != grain->addr + n * XEN_GRAIN)
                                break;
                r = xen_domain_owns(stock->host, domid, grain->addr / XEN_PAGE, n * XEN_GRAIN_PAGES, &frame);
                if (r != -ENXIO)
                        continue;
                r = 0;
                for (size_t j = 0; j < n && r == 0; j++)
                        r = prove_grain(stock, &grain[j]);
        }
        grains_sweep(stock);
        return r;
}

/* It is looked for also where there can be nothing: who could not find it again must not take any. */
static int find_left(struct xen_stock *stock, const char **ret_hint) {
        struct search search = { .stock = stock };
        int r = xen_members_find(&stock->members);

        if (r < 0)
                return r;
        r = xen_host_scan(stock->host, note_frame, &search);
        if (r < 0)
                *ret_hint = " (Xen tells a paravirtualised dom0 alone whose frames are)";
        return r == 0 ? prove(stock) : r;
}

int xen_stock_new(struct xen_host *host, uint64_t identity, const struct xen_options *options, struct xen_stock **ret,
                  struct failure *failure) {
        struct xen_stock *stock = calloc(1, sizeof(*stock));
        const char *hint = "";
        int r = -ENOMEM;

        if (stock) {
                stock->host = host;
                stock->members = (struct xen_members){ .host = host, .identity = identity, .options = options };
                r = find_left(stock, &hint);
        }
        if (r < 0) {
                xen_stock_free(stock, false);
                return failure_set_errno(failure, REASON_source_unavailable, -r,
                                         "what an earlier daemon may have left in Xen cannot be found: %s%s", strerror(-r), hint);
        }
        *ret = stock;
        return 0;
}

struct xen_stock *xen_stock_free(struct xen_stock *stock, bool give) {
        if (!stock)
                return NULL;
        xen_members_deinit(&stock->members, give);
        free(stock->grains);
        free(stock);
        return NULL;
}
