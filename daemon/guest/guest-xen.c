/* What becomes of Xen's guests, as Xen tells. A guest is a domain: it boots anew, or comes back after it was saved, as another
 * one. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
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

/* ---- the channel ---- */

enum { TELL_AGAIN_MS = 1000 };

static bool on_vchan_asks(void *userdata) {
        const struct guest *guest = userdata;

        return guest->state == GUEST_RUNNING;
}

/* Of events only so many are kept for those who come late: a guest whose programs come and go all the time is to leave room for
 * others'. */
static void on_vchan_connected(void *userdata, int fd) {
        struct guest *guest = userdata;
        const uint64_t now = uv_now(guest->guests->loop);

        guest->guests->listener->channel(guest->guests->userdata, guest->owner, fd, 0, 0);
        if (now < guest->vchan_tell_ms)
                return;
        guest->vchan_tell_ms = now + TELL_AGAIN_MS;
        guest_tell(guest, GUEST_CONNECTED);
}

/* One that does not run may not have been built yet: whoever builds it begins by removing what xenstore has of it. */
static void begin_vchan(struct guest *guest) {
        static const struct xen_channel_listener listener = { .runs = on_vchan_asks, .connected = on_vchan_connected };
        int r;

        if (guest->state != GUEST_RUNNING || guest->vchan || (guest->run == guest->vchan_run && !guest->vchan_failed))
                return;
        r = xen_channel_new(guest->guests->loop, guest->run, guest->uuid, guest->name, &listener, guest, &guest->vchan);
        if (r < 0 && r != -ENOPKG && !guest->vchan_failed)
                log_warning("the guest %s has no channel yet: %s", guest->name, strerror(-r));
        guest->vchan_run = guest->run;
        guest->vchan_failed = r < 0 && r != -ENOPKG;
        if (guest->vchan_failed)
                xen_tracker_repeat(guest->guests->xen);
}

static void on_vchan_closed(void *userdata) {
        struct guests *guests = userdata;

        if (guests->closed)
                guests_handle_closed(guests);
        else
                guests->n_handles--;
}

void guest_end_vchan(struct guest *guest) {
        struct xen_channel *vchan = guest->vchan;

        guest->vchan = NULL;
        guest->vchan_run = 0;
        guest->vchan_failed = false;
        if (!vchan)
                return;
        guest->guests->n_handles++;
        xen_channel_close(vchan, on_vchan_closed, guest->guests);
}

/* ---- what becomes of it ---- */

static void follow(struct guest *guest, const struct xen_seen *all, size_t n) {
        const struct xen_seen *current = find_current(guest, all, n);

        if (!current || (guest->run && guest->run != current->domid)) {
                tell_why(guest, all, n);
                guest_set_state(guest, GUEST_OFF);
        }
        if (!current) {
                grants_orphan(guest->guests->broker, guest->owner, 0);
                return;
        }
        guest->is_pv = current->is_pv;
        if (guest->run != current->domid) {
                guest->run = current->domid;
                guest_take_words(guest, guest->words);
                guest_save(guest);
        }
        grants_orphan(guest->guests->broker, guest->owner, guest->run);
        guest_set_state(guest, current->state == XEN_PAUSED ? GUEST_PAUSED : GUEST_RUNNING);
        guest_verify(guest);
        begin_vchan(guest);
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

/* ---- what it is to have ---- */

static const char *find_words(const struct guest *guest, const struct xen_policy *all, size_t n) {
        for (const struct xen_policy *policy = all; policy < all + n; policy++)
                if (strcasecmp(policy->uuid, guest->uuid) == 0)
                        return policy->text;
        return NULL;
}

static bool are_same(const char *one, const char *other) {
        return one && other ? strcmp(one, other) == 0 : one == other;
}

static void take_words(struct guest *guest, const char *words) {
        char *copy = words ? strdup(words) : NULL;

        if (are_same(guest->words, words))
                free(copy);
        else if (words && !copy)
                log_error("what xenstore says of the guest %s is not heard: there is no memory", guest->name);
        else {
                free(guest->words);
                guest->words = copy;
                guest_take_words(guest, copy);
        }
}

static void on_policies(void *userdata, const struct xen_policy *all, size_t n) {
        struct guests *guests = userdata;
        struct guest *guest;

        DL_FOREACH(guests->all, guest)
                if (guest->via == GUEST_BY_XEN)
                        take_words(guest, find_words(guest, all, n));
}

const struct xen_listener guest_xen_listener = { .listed = on_listed, .lost = on_lost, .policies = on_policies };
