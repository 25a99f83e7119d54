/* Which domains there are on this host, as Xen itself says, and what becomes of them. Xen's list is asked for every second, and
 * at once when xenstore tells that a domain has come or gone: what xenstore does not tell, or tells late, is found out all the
 * same, and one that hangs or has died is done without.
 *
 * Both are asked on threads of their own, which may block; so nothing here does. All functions belong to the loop's thread,
 * and all callbacks come there, never from within one of these functions. */
#ifndef DMAB_GUEST_XEN_H
#define DMAB_GUEST_XEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "daemon/core/failure.h"

enum { XEN_UUID_SIZE = 37 };

/* Where dom0 says in xenstore what guests are to have: a node for each, by its UUID, and so for every domain that it will be. */
#define XEN_POLICIES "/local/domain/0/dmabroker/guest"

struct xen_tracker;

/* 0 stands for the default. */
struct xen_options {
        unsigned poll_ms;           /* 1000 */
        unsigned store_retry_ms;    /* until xenstore is looked for again, if it is not there; 5000 */
        unsigned close_patience_ms; /* for a thread that hangs in xenstore, when closing; 2000 */
};

/* Over: its processors do not run any more, and will not; it may have its memory still. Suspended ones are paused: they may go
 * on as the domain that they are. */
enum xen_state { XEN_RUNNING, XEN_PAUSED, XEN_OVER };

struct xen_seen {
        char uuid[XEN_UUID_SIZE]; /* in small letters; several may have the same, of which all but one are over, or will be */
        uint32_t domid;           /* never 0 */
        enum xen_state state;
        bool is_pv;
        const char *why_over; /* "shutdown", "reboot", "crash" …; "" unless it is over */
};

struct xen_policy {
        char uuid[XEN_UUID_SIZE];
        char text[256]; /* as it is there */
};

struct xen_listener {
        /* All that there are but dom0, in the order of their numbers: once at first, and whenever anything has changed. */
        void (*listed)(void *userdata, const struct xen_seen *all, size_t n);
        /* Xen does not say any more, or has never said; told again only when there is another reason. */
        void (*lost)(void *userdata, const char *why);
        /* What xenstore says of guests: once at first, and whenever it says something else. That it cannot be asked any more
         * changes nothing. */
        void (*policies)(void *userdata, const struct xen_policy *all, size_t n);
};

/* NULL if this host's domains can be followed, else a sentence: it is no dom0, or this build goes without Xen. */
const char *xen_unavailable(void);

/* `ops` must outlive it. -ENOPKG: see xen_unavailable(); -ENOMEM, -EMFILE, -EAGAIN. */
int xen_tracker_new(uv_loop_t *loop, const struct xen_options *options, const struct xen_listener *ops, void *userdata,
                    struct xen_tracker **ret);
/* After this nothing is called but `closed`, with the userdata of xen_tracker_new(), when nothing of it is left on the loop.
 * A thread that hangs is left to itself. NULL is fine, and `closed` is not called then. */
void xen_tracker_close(struct xen_tracker *tracker, void (*closed)(void *userdata));
/* Ask now: something was seen to have changed. */
void xen_tracker_hurry(struct xen_tracker *tracker);

/* All are listed at the next look, whether or not anything has changed. */
void xen_tracker_repeat(struct xen_tracker *tracker);

/* Whether this domain is, at this moment, the guest of that UUID, and not over. Xen is asked, and xenstore is not; any thread may
 * ask. 0; -ENOENT, or another -errno where Xen does not say, with a sentence. */
int xen_check_guest(uint32_t domid, const char *uuid, struct failure *failure);

/* Where there is xenstore's socket its daemon has it, or there is none: the kernel's way would lead to nobody. Any thread may
 * ask. */
bool xen_store_is_dead(void);

#endif
