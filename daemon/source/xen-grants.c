#include "daemon/source/xen-grants.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>

#include "daemon/source/xen-domain.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct xen_lot *lots;
static struct xen_seat *seats;

void xen_grants_enter(struct xen_lot *lot) {
        pthread_mutex_lock(&mutex);
        lot->link = &lots;
        lot->next = lots;
        if (lot->next)
                lot->next->link = &lot->next;
        lots = lot;
        pthread_mutex_unlock(&mutex);
}

void xen_grants_leave(struct xen_lot *lot) {
        pthread_mutex_lock(&mutex);
        if (lot->link)
                *lot->link = lot->next;
        if (lot->next)
                lot->next->link = lot->link;
        lot->link = NULL;
        pthread_mutex_unlock(&mutex);
}

/* All of it is in this one. */
static const struct xen_lot *find_lot(uint64_t addr, uint64_t size) {
        if (!size || (addr | size) % XEN_PAGE || size > UINT64_MAX - addr)
                return NULL;
        for (const struct xen_lot *lot = lots; lot; lot = lot->next) {
                const struct xen_piece *first = lot->pieces, *last = lot->pieces + lot->n_pieces - 1;

                if (addr >= first->addr && addr + size <= last->addr + last->size)
                        return lot;
        }
        return NULL;
}

/* The piece's part of [addr, addr+size), in frames. */
static bool overlap(const struct xen_piece *piece, uint64_t addr, uint64_t size, uint64_t *ret_frame, uint64_t *ret_count) {
        uint64_t first = piece->addr > addr ? piece->addr : addr, end = piece->addr + piece->size;

        if (end > addr + size)
                end = addr + size;
        if (first >= end)
                return false;
        *ret_frame = first / XEN_PAGE;
        *ret_count = (end - first) / XEN_PAGE;
        return true;
}

#define each_part(lot, addr, size, piece, frame, count) \
        for (const struct xen_piece *piece = (lot)->pieces; piece < (lot)->pieces + (lot)->n_pieces; piece++) \
                if (overlap(piece, addr, size, frame, count))

/* ---- runs ---- */

struct runs {
        struct xen_grant_run *all;
        size_t n;
};

static int note_refs(struct runs *runs, uint32_t domid, const uint32_t *refs, uint64_t count) {
        for (uint64_t i = 0; i < count; i++) {
                struct xen_grant_run *last = runs->n ? &runs->all[runs->n - 1] : NULL, *more;

                if (last && last->domid == domid && last->first + last->count == refs[i]) {
                        last->count++;
                        continue;
                }
                /* Grows by doubling: the capacity is the next power of two of the count. */
                if ((runs->n & (runs->n - 1)) == 0) {
                        more = realloc(runs->all, (runs->n ? 2 * runs->n : 1) * sizeof(*more));
                        if (!more)
                                return -ENOMEM;
                        runs->all = more;
                }
                runs->all[runs->n++] = (struct xen_grant_run){ .domid = domid, .first = refs[i], .count = 1 };
        }
        return 0;
}

/* ---- giving and taking ---- */

static void revoke(const struct xen_lot *lot, uint64_t addr, uint64_t size) {
        uint64_t frame, count;

        each_part(lot, addr, size, piece, &frame, &count)
                xen_table_revoke(piece->table, frame, count);
}

/* Of each part the entries, which are made if they shall be; what was made stays also on failure. */
static int collect(const struct xen_lot *lot, uint64_t addr, uint64_t size, uint32_t guest, bool gives, bool is_readonly,
                   uint32_t *refs, struct runs *runs) {
        uint64_t frame, count;
        int r = 0;

        each_part(lot, addr, size, piece, &frame, &count) {
                r = gives ? xen_table_give(piece->table, frame, count, guest, is_readonly, refs)
                          : xen_table_find(piece->table, frame, count, guest, refs);
                if (r == 0)
                        r = note_refs(runs, piece->domid, refs, count);
                if (r < 0)
                        break;
        }
        return r;
}

static int fail(int r, uint64_t addr, uint64_t size, uint32_t guest, struct failure *failure) {
        const enum reason reason = r == -EEXIST ? REASON_busy
                                   : r == -ENOSPC ? REASON_limit
                                   : r == -ENOENT ? REASON_unknown_handle
                                   : r == -ENOMEM ? REASON_no_memory
                                                  : REASON_bad_address;

        return failure_set(failure, reason, "%" PRIu64 " bytes at 0x%" PRIx64 " %s domain %" PRIu32 ": %s", size, addr,
                           r == -ENOENT ? "are not all granted to" : "cannot be granted to", guest,
                           r == -EEXIST ? "some of it is granted already, or a guest still has it mapped"
                           : r == -ENOSPC ? "the grant table has no entries left for it"
                           : r == -ENOENT ? "there is no entry"
                           : r == -ENOMEM ? "there is no memory to list its entries"
                           : r == -ERANGE ? "no entry can name it, or that domain"
                                          : "no region of the source xen is there");
}

/* What some of it has already must not be taken back by what fails here. */
static bool is_busy(const struct xen_lot *lot, uint64_t addr, uint64_t size) {
        struct xen_table_use use;
        uint64_t frame, count;

        each_part(lot, addr, size, piece, &frame, &count) {
                xen_table_look(piece->table, frame, count, &use, NULL);
                if (use.busy)
                        return true;
        }
        return false;
}

static int give_or_find(uint64_t addr, uint64_t size, uint32_t guest, bool gives, bool is_readonly, struct runs *runs) {
        uint32_t *refs = malloc(size / XEN_PAGE * sizeof(*refs) + 1);
        const struct xen_lot *lot;
        int r = refs ? 0 : -ENOMEM;

        pthread_mutex_lock(&mutex);
        lot = find_lot(addr, size);
        if (r == 0 && !lot)
                r = -EFAULT;
        if (r == 0 && gives && is_busy(lot, addr, size))
                r = -EEXIST;
        else if (r == 0) {
                r = collect(lot, addr, size, guest, gives, is_readonly, refs, runs);
                if (r < 0 && gives)
                        revoke(lot, addr, size);
        }
        pthread_mutex_unlock(&mutex);
        free(refs);
        return r;
}

static int answer(uint64_t addr, uint64_t size, uint32_t guest, bool gives, bool is_readonly, struct xen_grant_run **ret,
                  size_t *ret_n, struct failure *failure) {
        struct runs runs = { 0 };
        int r = give_or_find(addr, size, guest, gives, is_readonly, &runs);

        if (r < 0) {
                free(runs.all);
                return fail(r, addr, size, guest, failure);
        }
        *ret = runs.all;
        *ret_n = runs.n;
        return 0;
}

int xen_grants_give(uint64_t addr, uint64_t size, uint32_t guest, bool is_readonly, struct xen_grant_run **ret, size_t *ret_n,
                    struct failure *failure) {
        return answer(addr, size, guest, true, is_readonly, ret, ret_n, failure);
}

int xen_grants_find(uint64_t addr, uint64_t size, uint32_t guest, struct xen_grant_run **ret, size_t *ret_n,
                    struct failure *failure) {
        return answer(addr, size, guest, false, false, ret, ret_n, failure);
}

int xen_grants_revoke(uint64_t addr, uint64_t size) {
        const struct xen_lot *lot;

        pthread_mutex_lock(&mutex);
        lot = find_lot(addr, size);
        if (lot)
                revoke(lot, addr, size);
        pthread_mutex_unlock(&mutex);
        return lot ? 0 : -ENOENT;
}

int xen_grants_look(uint64_t addr, uint64_t size, struct xen_table_use *ret) {
        struct xen_table_use use = { 0 }, part;
        const struct xen_lot *lot;
        uint64_t frame, count;

        pthread_mutex_lock(&mutex);
        lot = find_lot(addr, size);
        if (lot)
                each_part(lot, addr, size, piece, &frame, &count) {
                        xen_table_look(piece->table, frame, count, &part, NULL);
                        use.granted += part.granted;
                        use.reading += part.reading;
                        use.writing += part.writing;
                        use.busy += part.busy;
                }
        pthread_mutex_unlock(&mutex);
        if (!lot)
                return -ENOENT;
        *ret = use;
        return 0;
}

/* ---- tables ---- */

void xen_grants_enter_table(struct xen_seat *seat) {
        pthread_mutex_lock(&mutex);
        seat->link = &seats;
        seat->next = seats;
        if (seat->next)
                seat->next->link = &seat->next;
        seats = seat;
        pthread_mutex_unlock(&mutex);
}

void xen_grants_leave_table(struct xen_seat *seat) {
        pthread_mutex_lock(&mutex);
        *seat->link = seat->next;
        if (seat->next)
                seat->next->link = seat->link;
        seat->link = NULL;
        pthread_mutex_unlock(&mutex);
}

static void look_seat(const struct xen_seat *seat, struct xen_table_view *ret) {
        ret->domid = seat->domid;
        xen_table_sum_up(seat->table, &ret->counts);
}

size_t xen_grants_look_tables(struct xen_table_view *ret, size_t max) {
        size_t n = 0;

        pthread_mutex_lock(&mutex);
        for (const struct xen_seat *seat = seats; seat && n < max; seat = seat->next)
                look_seat(seat, &ret[n++]);
        pthread_mutex_unlock(&mutex);
        return n;
}

static bool is_full(const struct xen_table_counts *counts, bool was_full) {
        const unsigned percent = was_full ? XEN_TABLE_ROOM_PERCENT : XEN_TABLE_FULL_PERCENT;

        return 100 * (counts->granted + counts->revoking) >= percent * counts->entries;
}

static bool has_some(const struct xen_table *table, const struct xen_lot *lot, uint64_t addr, uint64_t size) {
        uint64_t frame, count;

        each_part(lot, addr, size, piece, &frame, &count)
                if (piece->table == table)
                        return true;
        return false;
}

bool xen_grants_find_crossed(uint64_t addr, uint64_t size, struct xen_table_view *ret, bool *ret_is_over) {
        const struct xen_lot *lot;
        bool found = false;

        pthread_mutex_lock(&mutex);
        lot = find_lot(addr, size);
        for (struct xen_seat *seat = lot ? seats : NULL; seat && !found; seat = seat->next) {
                if (!has_some(seat->table, lot, addr, size))
                        continue;
                look_seat(seat, ret);
                found = is_full(&ret->counts, seat->is_full) != seat->is_full;
                *ret_is_over = seat->is_full;
                seat->is_full ^= found;
        }
        pthread_mutex_unlock(&mutex);
        return found;
}
