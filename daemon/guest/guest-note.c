/* What the next daemon must know of a guest, in the note of its session: a line about the guest, and one for each window.
 *
 *      guest UUID PID SINCE RUN OWN MISSED VIA LIMITS
 *      window HANDLE NUMBER COOKIE GUEST_ADDR|- PORT|- PID SINCE UNCONFIRMED TO_LEAVE GRANTED_MS DOMAIN
 *
 * Instead of window: own: the one that it gets whenever it starts; unwanted: it is to be taken out if QEMU has it; left: a QEMU
 * of an earlier run has it still. VIA: by whom they were plugged in, 1: libvirt, 2: QMP, 3: Xen. LIMITS: what tells the limits
 * that were said last where it is managed from others. TO_LEAVE: the guest was asked to let go of it; 2: and has begun anew
 * since. GRANTED_MS: since when a guest of Xen's is granted it, or 0. DOMAIN: as which it had it then, or 0. Earlier daemons did
 * not write what is last in each, nor which is the own one. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "daemon/guest/guest.h"
#include "daemon/log.h"

enum { LINE_SIZE = 256 };

int guest_save(struct guest *guest) {
        char note[(WINDOWS_MAX + 1) * LINE_SIZE];
        const struct window *window;
        size_t used;

        if (!guest->caller.session || guest->is_restoring)
                return 0;
        used = (size_t)snprintf(note, sizeof(note), "guest %s %ld %" PRIu64 " %u %" PRIu64 " %d %d %" PRIx64 "\n",
                                guest->uuid, (long)guest->pid, guest->pid_since, guest->run, guest->had_own, guest->was_missed,
                                guest->via == GUEST_BY_NOBODY ? guest->plugged_via + 1 : guest->via + 1, guest->limits_said);
        DL_FOREACH(guest->windows, window)
                if (window->region && sizeof(note) - used > LINE_SIZE)
                        used += (size_t)window_note(window, note + used, LINE_SIZE);
        return session_set_note(guest->caller.session, note);
}

static int find_commons(const struct device_view *view, void *userdata) {
        struct guest *guest = userdata;

        /* The session has no other. */
        if (strcmp(view->name, "windows") != 0 || strcmp(view->owner, guest->owner) != 0)
                return 0;
        guest->commons = view->handle;
        return 1;
}

/* Where it can be told that it is the same run of it still, it does not begin anew. */
static void restore_run(struct guest *guest, const char *note) {
        int was_missed = 0, via = guest->via + 1;
        long pid = 0;

        /* Earlier daemons did not write by whom. */
        sscanf(note, "guest %*s %ld %" SCNu64 " %u %" SCNu64 " %d %d %" SCNx64, &pid, &guest->pid_since, &guest->run,
               &guest->had_own, &was_missed, &via, &guest->limits_said);
        guest->plugged_via = (enum guest_via)(via - 1);
        guest->was_missed = was_missed;
        guest->pid = (pid_t)pid;
        guest->has_begun = guest->pid || guest->run;
        if (!guest->has_begun)
                guest->had_own = 0;
        /* By the metadata that was known; otherwise by the configuration, which may be another one now. */
        if (!guest->window_bytes)
                guest->own_bytes = guest->had_own;
        guest->wants_own = guest->has_begun && guest->own_bytes != guest->had_own;
}

static int restore(struct guest *guest, const char *note, struct failure *failure) {
        int r = 0;

        guest->is_restoring = true;
        restore_run(guest, note);
        device_visit(&guest->caller, guest->owner, find_commons, guest, NULL);
        if (!guest->commons)
                r = -ENOENT;
        for (const char *line = strchr(note, '\n'); line && line[1] && r == 0; line = strchr(line + 1, '\n'))
                r = window_inherit(guest, line + 1, failure);
        if (r == 0)
                r = window_inherit_unnamed(guest, failure);
        guest->is_restoring = false;
        if (r == 0 && guest_save(guest) < 0)
                r = failure_set(failure, REASON_no_memory, "there is no memory to start");
        return r;
}

struct restoring {
        struct guests *guests;
        struct failure *failure;
        int r;
};

static int visit(struct session *session, void *userdata) {
        struct restoring *restoring = userdata;
        const char *note = session_note(session);
        char uuid[GUEST_UUID_LENGTH + 1] = "";
        bool is_xen;
        struct guest *guest;

        if (!guests_owns_session(note))
                return 0;
        sscanf(note, "guest %36s", uuid);
        is_xen = strncmp(session_owner(session), "xen:", 4) == 0;
        guest = guest_find_uuid(restoring->guests, uuid);
        if (guest && guest->is_xen != is_xen)
                guest = NULL; /* it is another hypervisor's now, and has nothing yet */
        if (!guest) {
                log_warning("the guest %s, which an earlier daemon knew, is not in the configuration: windows that a process has "
                            "go back when that has ended", uuid);
                guest = guests_remember(restoring->guests, uuid, is_xen);
        }
        if (!guest) {
                restoring->r = failure_set(restoring->failure, REASON_no_memory, "there is no memory to start");
                return restoring->r;
        }
        if (guest->caller.session) {
                log_error("the guest %s has two sessions in the ledger: the second one ends", uuid);
                session_abandon(session);
                return 0;
        }
        guest->caller.session = session;
        session_own(session);
        restoring->r = restore(guest, note, restoring->failure);
        if (restoring->r == -ENOENT) {
                /* It never came to having windows. */
                guest->caller.session = session_close(session);
                restoring->r = 0;
        }
        return restoring->r;
}

static int find_any(struct session *session, void *userdata) {
        return guests_owns_session(session_note(session));
}

bool guests_are_known(const struct guests *guests) {
        return broker_visit_sessions(guests->broker, find_any, NULL);
}

int guests_restore(struct guests *guests, struct failure *failure) {
        struct restoring restoring = { .guests = guests, .failure = failure };

        broker_visit_sessions(guests->broker, visit, &restoring);
        return restoring.r;
}
