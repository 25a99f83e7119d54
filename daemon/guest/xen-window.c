/* Windows of Xen's guests: what they are granted, and what they have mapped of it. The grant table of the memory domain is all
 * that is to be known of that, and outlives the daemon. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "daemon/guest/guest.h"
#include "daemon/guest/place.h"
#include "daemon/log.h"
#include "daemon/source/xen-domain.h"

/* ---- tables ---- */

/* Each is looked through. */
enum { TABLES_MAX = 128 };

static struct guest_table_view table_view(const struct xen_table_view *table) {
        return (struct guest_table_view){
                .domain = table->domid, .entries = table->counts.entries, .granted = table->counts.granted,
                .mapped = table->counts.mapped, .revoking = table->counts.revoking, .free = table->counts.free,
        };
}

size_t guests_look_tables(struct guest_table_view *ret, size_t max) {
        struct xen_table_view tables[TABLES_MAX];
        const size_t n = xen_grants_look_tables(tables, max < TABLES_MAX ? max : TABLES_MAX);

        for (size_t i = 0; i < n; i++)
                ret[i] = table_view(&tables[i]);
        return n;
}

static void tell_table(const struct guests *guests, const struct guest_table_view *view, bool is_over) {
        const uint64_t used = view->granted + view->revoking;

        if (is_over)
                log_info("the grant table of memory domain %" PRIu32 " has room again: %" PRIu64 " of %" PRIu64 " pages are "
                         "granted", view->domain, used, view->entries);
        else
                log_warning("the grant table of memory domain %" PRIu32 " is nearly full: %" PRIu64 " of %" PRIu64 " pages are "
                            "granted, %" PRIu64 " of them are only waited for; grant_frames and domains in [source xen] "
                            "allow more", view->domain, used, view->entries, view->revoking);
        guests->listener->filling(guests->userdata, view, is_over);
}

/* Some of its memory was granted, or taken back, or let go of. */
static void watch_tables(const struct window *window) {
        const struct guests *guests = window->guest->guests;
        struct guest_table_view view;
        struct xen_table_view table;
        bool is_over;

        while (!guests->closing && xen_grants_find_crossed(window->addr, window->size, &table, &is_over)) {
                view = table_view(&table);
                tell_table(guests, &view, is_over);
        }
}

/* ---- what it is granted ---- */

/* There is always room in a guest; in the grant table that is found out when the memory is there. */
static void find_place(struct window *window) {
        window_reserve(window);
}

static void forget_grants(struct window *window) {
        free(window->grants);
        window->grants = NULL;
        window->n_grants = 0;
}

static void bind_to_machine(struct window *window) {
        window->is_bound = true;
        window->guest_addr = window->addr;
        place_bind(window->addr, window->addr);
}

/* The ledger knows of it: if this is the daemon's end, the next one finds what is granted, or takes it back. */
static int plug(struct window *window) {
        struct guest *guest = window->guest;
        struct failure failure = { 0 };
        int r;

        forget_grants(window);
        r = xen_grants_give(window->addr, window->size, guest->run, false, &window->grants, &window->n_grants, &failure);
        if (r == 0 && guest->is_pv)
                bind_to_machine(window);
        if (r == 0)
                window->domain = guest->run;
        window->granted_ms = uv_now(guest->guests->loop);
        watch_tables(window);
        window_plugged(window, r, false, r < 0 ? failure.sentence : NULL);
        return 0;
}

static void take_back(struct window *window) {
        forget_grants(window);
        xen_grants_revoke(window->addr, window->size);
        watch_tables(window);
}

static bool is_had(const struct window *window) {
        struct xen_table_use use;

        if (xen_grants_look(window->addr, window->size, &use) == 0 && use.busy)
                return true;
        watch_tables(window);
        return false;
}

/* What is mapped is mapped to be read, and most of it to be written, too. */
static uint64_t count_mapped(const struct window *window) {
        struct xen_table_use use;

        if (xen_grants_look(window->addr, window->size, &use) < 0)
                return 0;
        return (use.reading > use.writing ? use.reading : use.writing) * XEN_PAGE;
}

/* Whether the guest lets go of it is looked at from now on. Nobody but its programs can, and they are told. */
static int leave(struct window *window) {
        take_back(window);
        guest_tell(window->guest, GUEST_LEAVING);
        window_begun_over(window);
        return 0;
}

/* ---- with the guest ---- */

static bool can_be_asked(const struct guest *guest) {
        return guest->run && (guest->state == GUEST_RUNNING || guest->state == GUEST_PAUSED);
}

static int find_grants(struct window *window) {
        forget_grants(window);
        return xen_grants_find(window->addr, window->size, window->guest->run, &window->grants, &window->n_grants, NULL);
}

/* By the domain that the guest was last. What was to leave may not have been taken back yet. */
static void inherit(struct window *window) {
        if (window->state == WINDOW_LEAVING)
                take_back(window);
        else
                find_grants(window);
}

/* A daemon that was killed may have granted nothing of it yet, or not all. */
static int verify(struct window *window) {
        struct guest *guest = window->guest;
        int r = window->state == WINDOW_LEAVING ? 0 : find_grants(window);

        if (r == 0 && guest->is_pv && window->state != WINDOW_LEAVING)
                bind_to_machine(window);
        if (r == 0 && window->state != WINDOW_LEAVING)
                window->domain = guest->run;
        if (r == 0 && !window->granted_ms)
                window->granted_ms = uv_now(guest->guests->loop);
        watch_tables(window);
        if (r == 0 || r == -ENOMEM) {
                window_verified(window, r == 0, true);
                return 0;
        }
        log_info("the guest %s has no window of %" PRIu64 " bytes any more", guest->name, window->size);
        window->is_asked = false;
        window_begun_over(window);
        take_back(window);
        window_leave(window);
        guest_tell(guest, GUEST_LEAVING);
        return 0;
}

const struct window_way window_xen_way = {
        .prefix = "",
        .is_sure = true,
        .find_place = find_place,
        .plug = plug,
        .leave = leave,
        .can_be_asked = can_be_asked,
        .verify = verify,
        .inherit = inherit,
        .take_back = take_back,
        .is_had = is_had,
        .count_mapped = count_mapped,
};
