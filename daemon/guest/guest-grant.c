/* Grants between a guest of Xen's and those who serve it on this host. The pages are the guest's, and whoever maps them does so
 * by a descriptor of its own: ours would show its holder the memory of every domain. Or they are this host's; then they belong
 * to a descriptor that shows nothing else, which outlives the daemon in the keep. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "daemon/guest/guest.h"
#include "daemon/guest/xen-foreign.h"
#include "daemon/log.h"
#include "daemon/source/keep.h"

/* A descriptor of pages that this host grants. */
struct share {
        struct share *prev, *next; /* in guests->shares */
        uint64_t grant, pages;
        int fd;
        bool has_ended; /* its grant: it is only to be closed */
};

/* ---- shares ---- */

static const char *share_name(uint64_t grant, char name[KEEP_NAME_MAX]) {
        snprintf(name, KEEP_NAME_MAX, "share-%" PRIu64, grant);
        return name;
}

static struct share *find_share(const struct guests *guests, uint64_t grant) {
        struct share *share;

        DL_FOREACH(guests->shares, share)
                if (share->grant == grant && !share->has_ended)
                        return share;
        return NULL;
}

static int share_new(struct guests *guests, uint64_t grant, uint64_t pages, int consume_fd) {
        struct share *share = malloc(sizeof(*share));

        if (!share) {
                close(consume_fd);
                return -ENOMEM;
        }
        *share = (struct share){ .grant = grant, .pages = pages, .fd = consume_fd };
        DL_APPEND(guests->shares, share);
        return 0;
}

/* Closes what it is. */
static void share_end(struct guests *guests, struct share *share) {
        char name[KEEP_NAME_MAX];

        keep_drop(guests->settings.keep, share_name(share->grant, name));
        xen_share_end(share->fd, share->pages);
        DL_DELETE(guests->shares, share);
        free(share);
}

/* Whoever keeps its descriptor may take its time, which is not the core's. */
static void on_grant_ended(void *userdata, uint64_t grant) {
        struct guests *guests = userdata;
        struct share *share = find_share(guests, grant);

        if (!share)
                return;
        share->has_ended = true;
        guests_wake(guests, 0);
}

void guests_end_shares(struct guests *guests) {
        struct share *share, *next;

        DL_FOREACH_SAFE(guests->shares, share, next)
                if (share->has_ended)
                        share_end(guests, share);
}

int guests_dup_share(const struct guests *guests, uint64_t grant, int *ret_fd, struct failure *failure) {
        const struct share *share = find_share(guests, grant);
        int fd;

        if (!share)
                return failure_set(failure, REASON_gone, "The descriptor of grant %" PRIu64 " was lost with whoever kept it "
                                   "while no daemon ran; who has it, has it still", grant);
        fd = fcntl(share->fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                return failure_set_errno(failure, REASON_limit, errno, "The daemon has no file descriptor left: %s",
                                         strerror(errno));
        *ret_fd = fd;
        return 0;
}

/* ---- from one daemon to the next ---- */

static int take_share(const struct grant_view *view, void *userdata) {
        struct guests *guests = userdata;
        char name[KEEP_NAME_MAX];
        int fd, r = 0;

        if (view->kind != GRANT_SHARE)
                return 0;
        if (keep_take(guests->settings.keep, share_name(view->handle, name), &fd) == 0)
                r = share_new(guests, view->handle, view->pages, fd);
        else
                log_warning("pages that were shared with the guest %s are with whoever has mapped them: nobody has kept their "
                            "descriptor", view->guest);
        return r;
}

struct lost {
        struct guests *guests;
        const char *guest; /* as an owner is called */
};

static int find_lost(const struct grant_view *view, void *userdata) {
        struct lost *lost = userdata;
        const struct guest *guest;

        if (view->gone)
                return 0;
        DL_FOREACH(lost->guests->all, guest)
                if (guest->via == GUEST_BY_XEN && strcmp(guest->owner, view->guest) == 0)
                        return 0;
        lost->guest = view->guest;
        return 1;
}

static int give_up(void *userdata, const char *name) {
        struct guests *guests = userdata;

        keep_drop(guests->settings.keep, name);
        return 0;
}

int guests_restore_grants(struct guests *guests) {
        struct lost lost = { .guests = guests };
        int r = broker_visit_grants(guests->broker, NULL, take_share, guests);

        if (r < 0)
                return r;
        /* Of which the daemon had told nobody when it was killed. */
        keep_visit(guests->settings.keep, "share-", give_up, guests);
        while (broker_visit_grants(guests->broker, NULL, find_lost, &lost))
                grants_orphan(guests->broker, lost.guest, 0);
        broker_watch_grants(guests->broker, on_grant_ended, guests);
        return 0;
}

void guests_close_grants(struct guests *guests, bool leave) {
        struct share *share;
        char name[KEEP_NAME_MAX];

        broker_watch_grants(guests->broker, NULL, NULL);
        DL_FOREACH(guests->shares, share)
                if (!leave || share->has_ended)
                        keep_drop(guests->settings.keep, share_name(share->grant, name));
}

/* Not before: as long as the loop runs, descriptors are put again into a keep that has lost them. */
void guests_free_grants(struct guests *guests) {
        struct share *share, *next;

        guests_close_grants(guests, true);
        DL_FOREACH_SAFE(guests->shares, share, next) {
                close(share->fd);
                free(share);
        }
}

/* ---- for those who ask ---- */

/* What can never be is told before what cannot be at present, and what was done under the key before that. */
static int begin_grant(const struct guests *guests, const struct caller *caller, const struct guest_grant_request *ask,
                       uint64_t *ret_handle, const struct guest **ret, struct failure *failure) {
        const struct guest *guest;
        int r = grant_was_made(caller, ask->request_key, ask->request_digest, ret_handle, failure);

        if (r != 0)
                return r;
        guest = guests_find(guests, ask->guest, failure);
        if (!guest)
                return -reason_errno(REASON_unknown_guest);
        if (!guest->is_xen)
                return failure_set(failure, REASON_unsupported, "The guest %s is none of Xen's: it grants nothing", guest->name);
        if (!guest_is_reachable(guest, failure))
                return -reason_errno(REASON_source_unavailable);
        *ret = guest;
        return grant_may(caller, ask->pages, failure);
}

static struct grant_request request_of(const struct guest *guest, const struct guest_grant_request *ask, enum grant_kind kind) {
        return (struct grant_request){
                .kind = kind, .guest = guest->owner, .domain = guest->run, .direction = ask->direction, .pages = ask->pages,
                .runs = ask->runs, .n_runs = ask->n_runs, .request_key = ask->request_key, .request_digest = ask->request_digest,
        };
}

static int refuse_gone(const struct guest *guest, struct failure *failure) {
        return failure_set(failure, REASON_gone, "The guest %s has ended, or has booted anew", guest->name);
}

static int check_granted(const struct guest *guest, const struct grant_request *request, struct failure *failure) {
        struct xen_foreign *foreign;
        struct xen_foreign_use use;
        int r = xen_foreign_open(request->domain, &foreign);

        if (r == -ENOENT)
                return refuse_gone(guest, failure);
        /* Whoever maps it is told by Xen. */
        if (r < 0)
                return 0;
        xen_foreign_look(foreign, request->runs, request->n_runs, request->direction != DMA_TO_DEVICE, &use);
        xen_foreign_close(foreign);
        if (!use.not_granted)
                return 0;
        failure_set(failure, REASON_bad_address,
                    "The guest %s has not granted dom0 %" PRIu64 " of these %" PRIu64 " pages%s: the first is that of reference "
                    "%" PRIu32, guest->name, use.not_granted, request->pages,
                    request->direction == DMA_TO_DEVICE ? "" : ", to be written", use.first_not_granted);
        failure_add_number(failure, "ref", use.first_not_granted);
        return -reason_errno(REASON_bad_address);
}

int guests_map_grant(struct guests *guests, const struct caller *caller, const struct guest_grant_request *ask,
                     uint64_t *ret_handle, struct failure *failure) {
        const struct guest *guest = NULL;
        struct grant_request request;
        int r = begin_grant(guests, caller, ask, ret_handle, &guest, failure);

        if (r != 0)
                return r < 0 ? r : 0;
        request = request_of(guest, ask, GRANT_MAP);
        r = check_granted(guest, &request, failure);
        if (r == 0)
                r = grant_new(caller, &request, ret_handle, failure);
        return r < 0 ? r : 0;
}

/* The descriptor is held before anybody hears of it. */
static int share_keep(struct guests *guests, uint64_t grant, uint64_t pages, int consume_fd, struct failure *failure) {
        char name[KEEP_NAME_MAX];
        int r = keep_put(guests->settings.keep, share_name(grant, name), consume_fd);

        if (r < 0) {
                close(consume_fd);
                return failure_set_errno(failure, REASON_limit, -r, "The descriptor of these pages cannot be kept: %s",
                                         strerror(-r));
        }
        r = share_new(guests, grant, pages, consume_fd);
        if (r < 0) {
                keep_drop(guests->settings.keep, name);
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        }
        return 0;
}

static int check_guest(const struct guest *guest, struct failure *failure) {
        int r = xen_check_guest(guest->run, guest->uuid, failure);

        return r == -ENOENT ? refuse_gone(guest, failure) : r;
}

/* What was heard of the guest may be old: its number may be another's, who would have the pages. */
static int share_make(const struct guest *guest, const struct caller *caller, struct grant_request *request,
                      uint64_t *ret_handle, struct failure *failure) {
        struct grant_run *runs = NULL;
        int fd = -1, r;

        r = check_guest(guest, failure);
        if (r == 0)
                r = xen_share_open(request->domain, request->pages, request->direction != DMA_FROM_DEVICE, &fd, &runs,
                                   &request->n_runs, failure);
        if (r < 0)
                return r;
        request->runs = runs;
        r = check_guest(guest, failure);
        if (r == 0)
                r = grant_new(caller, request, ret_handle, failure);
        free(runs);
        if (r < 0) {
                xen_share_end(fd, request->pages);
                return r;
        }
        r = share_keep(guest->guests, *ret_handle, request->pages, fd, failure);
        if (r < 0)
                grant_end(caller, *ret_handle, NULL);
        return r;
}

int guests_share(struct guests *guests, const struct caller *caller, const struct guest_grant_request *ask,
                 uint64_t *ret_handle, struct failure *failure) {
        const struct guest *guest = NULL;
        struct grant_request request;
        int r = begin_grant(guests, caller, ask, ret_handle, &guest, failure);

        if (r != 0)
                return r < 0 ? r : 0;
        request = request_of(guest, ask, GRANT_SHARE);
        r = share_make(guest, caller, &request, ret_handle, failure);
        return r < 0 ? r : 0;
}

/* ---- what is in use ---- */

/* Pages that are looked at for one answer. */
enum { USE_PAGES_MAX = 1 << 18 };

struct guests_use {
        struct used_table {
                struct used_table *prev, *next;
                uint32_t domain;
                struct xen_foreign *foreign; /* NULL: it cannot be read */
        } *tables;
        uint64_t left; /* of them */
};

struct guests_use *guests_use_new(void) {
        struct guests_use *use = calloc(1, sizeof(*use));

        if (use)
                use->left = USE_PAGES_MAX;
        return use;
}

struct guests_use *guests_use_free(struct guests_use *use) {
        struct used_table *table, *next;

        if (!use)
                return NULL;
        DL_FOREACH_SAFE(use->tables, table, next) {
                xen_foreign_close(table->foreign);
                free(table);
        }
        free(use);
        return NULL;
}

static const struct xen_foreign *find_table(struct guests_use *use, uint32_t domain) {
        struct used_table *table;

        DL_FOREACH(use->tables, table)
                if (table->domain == domain)
                        return table->foreign;
        table = calloc(1, sizeof(*table));
        if (!table)
                return NULL;
        table->domain = domain;
        xen_foreign_open(domain, &table->foreign);
        DL_APPEND(use->tables, table);
        return table->foreign;
}

bool guests_look_use(struct guests_use *use, const struct grant_view *view, uint64_t *ret) {
        const struct xen_foreign *foreign;
        struct xen_foreign_use found;

        /* The number of one that has ended may be another's. */
        if (view->kind != GRANT_MAP || view->gone || view->pages > use->left)
                return false;
        foreign = find_table(use, view->domain);
        if (!foreign)
                return false;
        use->left -= view->pages;
        xen_foreign_look(foreign, view->runs, view->n_runs, false, &found);
        *ret = found.in_use;
        return true;
}
