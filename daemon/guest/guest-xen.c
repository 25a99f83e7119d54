/* What becomes of Xen's guests, as Xen tells. A guest is a domain: it boots anew, or comes back after it was saved, as another
 * one. */
#include <stdio.h>
#include <string.h>
#include <utlist.h>

#include "daemon/guest/guest.h"
#include "daemon/log.h"

/* While it is moved within this host there are two of it: it is the known one until that has ended. */
static const struct xen_seen *find_current(const struct guest *guest, const struct xen_seen *all, size_t n) {
        const struct xen_seen *current = NULL;

        for (const struct xen_seen *seen = all; seen < all + n; seen++) {
                if (seen->state == XEN_OVER || strcmp(seen->uuid, guest->uuid) != 0)
                        continue;
                if (seen->domid == guest->run)
                        return seen;
                current = seen;
        }
        return current;
}

static void tell_why(const struct guest *guest, const struct xen_seen *all, size_t n) {
        for (const struct xen_seen *seen = all; seen < all + n; seen++)
                if (guest->run && seen->domid == guest->run && strcmp(seen->uuid, guest->uuid) == 0)
                        log_info("domain %u, which the guest %s was, is over: %s", (unsigned)seen->domid, guest->name,
                                 seen->why_over);
}

static void follow(struct guest *guest, const struct xen_seen *all, size_t n) {
        const struct xen_seen *current = find_current(guest, all, n);

        if (!current || (guest->run && guest->run != current->domid)) {
                tell_why(guest, all, n);
                guest_set_state(guest, GUEST_OFF);
        }
        if (!current)
                return;
        guest->is_pv = current->is_pv;
        if (guest->run != current->domid) {
                guest->run = current->domid;
                guest_save(guest);
        }
        guest_set_state(guest, current->state == XEN_PAUSED ? GUEST_PAUSED : GUEST_RUNNING);
        guest_verify(guest);
}

static void on_listed(void *userdata, const struct xen_seen *all, size_t n) {
        struct guests *guests = userdata;
        struct guest *guest;

        *guests->xen_why = '\0';
        DL_FOREACH(guests->all, guest)
                if (guest->via == GUEST_BY_XEN)
                        follow(guest, all, n);
}

static void on_lost(void *userdata, const char *why) {
        struct guests *guests = userdata;
        struct guest *guest;

        snprintf(guests->xen_why, sizeof(guests->xen_why), "%s", why);
        log_warning("guests of Xen's cannot be followed at present: %s", why);
        DL_FOREACH(guests->all, guest)
                if (guest->via == GUEST_BY_XEN)
                        guest_lose_sight(guest);
}

const struct xen_listener guest_xen_listener = { .listed = on_listed, .lost = on_lost };
