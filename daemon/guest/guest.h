/* One guest and its windows. Private to daemon/guest: guests.h is the outside's. */
#ifndef DMAB_GUEST_GUEST_H
#define DMAB_GUEST_GUEST_H

#include "daemon/alive.h"
#include "daemon/guest/channel.h"
#include "daemon/guest/guests.h"
#include "daemon/guest/ivshmem.h"
#include "daemon/guest/libvirt.h"
#include "daemon/guest/machine.h"
#include "daemon/guest/qmp-window.h"
#include "daemon/guest/qmp.h"
#include "daemon/guest/xen.h"
#include "daemon/guest/xen-channel.h"

enum { COOKIE_BYTES = 16, COOKIE_TEXT = 2 * COOKIE_BYTES + 1, WINDOW_ID_SIZE = 32, WINDOW_PATH_SIZE = 108 };

/* Who waits for the end of an attachment or a detachment. */
struct guest_ask {
        struct ticket ticket;
        broker_done_fn done; /* NULL: nobody waits any more */
        void *userdata;
};

/* Freed when the last thing that was begun for it has ended. */
struct window {
        struct window *prev, *next; /* in guest->windows */
        struct guest *guest;
        unsigned number; /* of the guest's windows since it is known; its device and its socket are called by it */
        enum window_state state;
        uint64_t region, addr, size;
        char cookie[COOKIE_TEXT];
        bool is_bound;
        uint64_t guest_addr;
        char port[32]; /* that it was plugged into, or "" */
        struct reserve_request wanted; /* its key is owned */
        struct ticket *ticket; /* while it is being reserved */
        bool is_ready;       /* to be plugged in: it is reserved, and the ledger is to know of it */
        struct ivshmem *server; /* NULL: none yet, or QEMU has it from an earlier daemon */
        struct xen_grant_run *grants; /* by which the guest has it, as far as they are known */
        size_t n_grants;
        uint32_t domain;     /* to which it was granted last; 0: to none yet, or that is not known */
        uint64_t granted_ms; /* since when it is granted, by the clock that goes on from one daemon to the next; 0: never yet */
        unsigned n_looked;   /* times that it was looked whether nobody has it any more */
        pid_t pid; /* who has the memory by that server, or had it by an earlier daemon's, and since when it lives; 0: nobody */
        uint64_t pid_since;
        bool was_given; /* by that server: it is not given again */
        struct guest_ask *ask; /* or NULL */
        bool is_placed;   /* its addresses are known to the translator */
        bool is_told;     /* that the guest has it */
        bool in_doubt;    /* whether QEMU has it is not known at present: it is asked as soon as that can be */
        bool is_asked;    /* it is being asked */
        bool is_unconfirmed; /* libvirt has not said yet that QEMU has it, or denied that while a process had it */
        unsigned n_denied; /* times that it was said not to be there, while somebody was connected to it */
        uint64_t verify_at_ms; /* before that it is not asked about again, as long as somebody is connected */
        bool is_own;      /* the one that the guest gets whenever it starts */
        bool is_unwanted; /* whoever wanted it was told that it was not had: if QEMU has it, the guest is to let go of it */
        bool is_to_leave; /* the guest was asked to let go of it, and has not refused: it may do so whenever it wants to */
        bool was_asked;   /* that was so already before it was asked as it is now */
        bool is_reset;    /* but the guest has begun anew since: it is not asked any more */
        bool is_left;     /* by a QEMU of an earlier run of the guest, which has not ended: it is only waited for that */
        uint64_t ask_at_ms; /* when the guest is asked once more to let go of what is unwanted, or 0 */
        unsigned n_put_off; /* times that this was put off */
        uint64_t leave_until_ms; /* how long it is waited for, where QEMU does not do that; or 0 */
        bool ended;       /* it is in no list any more */
        unsigned n_begun; /* commands and handles that know it */
};

/* How windows come into a guest and out of it: what differs with who is asked for that. What is begun ends with one of the
 * calls of guest-window.c, unless -errno is returned. */
struct window_way {
        const char *prefix;  /* of the names of its devices */
        bool finds_process;  /* it is a window's connection that tells which process the guest's is */
        bool is_sure;        /* who says that a window is not there speaks of the guest that has it, or had */
        bool tells_timeout;  /* also that the guest does not let go of a window in time */
        void (*find_place)(struct window *window); /* before its memory is reserved */
        int (*serve)(struct window *window, struct failure *failure); /* it can be had; NULL: nothing is to be done */
        int (*plug)(struct window *window);
        int (*leave)(struct window *window);
        bool (*can_be_asked)(const struct guest *guest);
        int (*verify)(struct window *window);
        void (*inherit)(struct window *window); /* an earlier daemon's: what can be known of it without asking; or NULL */
        /* All or none. Where there are these, it is looked now and then whether a window that leaves has been let go of. */
        void (*take_back)(struct window *window); /* nobody can get it any more; who has it, has it still */
        bool (*is_had)(const struct window *window);
        uint64_t (*count_mapped)(const struct window *window); /* bytes that are mapped at this moment */
};

struct guest {
        struct guest *prev, *next; /* in guests->all */
        struct guests *guests;
        char name[GUEST_NAME_MAX + 1], uuid[GUEST_UUID_LENGTH + 1], owner[GUEST_UUID_LENGTH + 8];
        enum guest_via via;
        enum guest_via plugged_via; /* by whom the windows of the note were plugged in: their devices are called by that */
        bool is_restoring; /* its note is being read, and not written */
        bool is_garbled;   /* a line of it could not be read: its QEMU may have what no line names */
        bool is_xen;
        bool is_pv; /* of Xen's, in this run: it has machine addresses */
        const struct window_way *way;
        char *qmp_path, *ports;
        uint64_t window_bytes; /* of the configuration */
        uint64_t own_bytes;    /* that, or of its metadata: what it gets whenever it starts */
        bool has_quota;        /* the configuration has limits for it */
        uint64_t limits_said;  /* which limits were said last where it is managed, or 0 */
        enum guest_state state;
        struct caller caller; /* of our session; no session: it has ended with the guest */
        uint64_t commons;
        struct channel *channel;
        struct xen_channel *vchan; /* of Xen's, in this run; or NULL */
        unsigned vchan_run;        /* for which it was tried to make it */
        bool vchan_failed;         /* and is tried again */
        uint64_t vchan_tell_ms;    /* before that nobody is told again that a program of it has come */
        char *words;               /* what xenstore says of Xen's; NULL: nothing */
        struct exchange *exchange; /* of its frames, that is under way; or NULL */
        struct held *held;    /* have connected, and are neither let in nor hung up on yet */
        unsigned n_held;
        bool is_judged;       /* who is connected was let in by its machine */
        uint64_t tell_ms;     /* when it is worth a line in the log again that somebody else wanted a window */
        struct qmp *qmp;
        bool is_asked;        /* what devices it has */
        unsigned n_told;      /* lines in the log about devices of earlier daemons, of this QEMU's */
        unsigned n_leftovers; /* devices of earlier daemons that it has not let go of in time */
        pid_t pid; /* of its QEMU, or 0: its monitor's, or with libvirt whoever has a window that was plugged in */
        uint64_t pid_since; /* when that began */
        pid_t refused_pid; /* of a QEMU with the guest's monitor that was told of in the log */
        struct alive *alive; /* it lives; NULL: it could not be watched, and is tried again */
        uint64_t look_at_ms; /* when libvirt is asked whether it runs in another process than that which has ended, or 0 */
        unsigned run;   /* libvirt's number for this run of it, or that of Xen's domain, or 0 */
        char domain[LIBVIRT_MACHINE_SIZE]; /* libvirt's name for it, by machine_clean(), since it was seen: before that no window
                                            * of it is to be had */
        bool has_begun; /* and not ended since */
        uint64_t had_own; /* what own_bytes were when it got them in this run, or 0: that is not done again */
        bool was_seen; /* since libvirt began to list */
        bool is_missed; /* libvirt does not know of it, but a process has its memory */
        bool was_missed; /* in this run: that another libvirt has it is as likely as that this one has found it again */
        bool wants_own; /* it gets the window of the configuration as soon as that can be */
        uint64_t own_at_ms; /* but not before */
        unsigned n_own_failed; /* times that it did not get it, or that that is not known, one after the other */
        unsigned last_number;
        struct window *windows;
        unsigned n_windows; /* those that are left count */
};

struct guests {
        uv_loop_t *loop;
        struct broker *broker;
        struct guests_settings settings; /* its strings are owned */
        const struct guests_listener *listener;
        void *userdata;
        struct guest *all;
        size_t n; /* of the configuration */
        struct libvirt *libvirt;
        bool libvirt_connected;
        char libvirt_why[160];
        struct xen_tracker *xen;
        struct share *shares;
        char xen_why[160];
        uv_timer_t work; /* what cannot be done where it is found out */
        bool begun, closing, leave;
        unsigned n_handles; /* that must be closed before closed() is called; before guests_close() those that are being closed */
        void (*closed)(void *userdata);
        void *closed_userdata;
};

/* ---- guests.c ---- */
/* One that is not in the configuration any more; NULL: no memory. */
struct guest *guests_remember(struct guests *guests, const char *uuid, bool is_xen);
struct guest *guest_find_uuid(const struct guests *guests, const char *uuid);
struct guest *guests_find(const struct guests *guests, const char *name, struct failure *failure);
void guest_look(const struct guest *guest, struct guest_view *ret);
/* Each that there is in its turn; whatever visit ends. */
void guest_visit_windows(struct guest *guest, void (*visit)(struct window *window));
/* "" unless its state is unknown; then also where it is not known why. */
const char *guest_why_unknown(const struct guest *guest);
void guest_tell(const struct guest *guest, enum guest_change change);
/* guests_work() runs in a moment, outside of whatever happens now. */
void guests_wake(struct guests *guests, uint64_t ms);
/* A handle has been closed for guests_close(). */
void guests_handle_closed(struct guests *guests);

/* ---- guest-door.c ---- */
/* Somebody has connected to its channel. Consumes fd. */
void guest_knock(void *guest, int fd, const struct ucred *who);
/* Libvirt has told which run of it this is: now who is held is let in, or not. */
void guest_look_who_is_there(struct guest *guest);
/* It has ended. */
void guest_hang_up(struct guest *guest);
/* Whether who has connected to one of its windows by this socket is its QEMU. */
bool guest_admits(struct guest *guest, int fd, const struct ucred *who);
void guest_forget_held(struct guest *guest);

/* ---- guest-life.c ---- */
extern const struct libvirt_listener guest_libvirt_listener;
int guest_begin_qmp(struct guest *guest);
/* It is known that it runs, or that it does not. */
void guest_set_state(struct guest *guest, enum guest_state state);
/* Nothing is known of it for a while. */
void guest_lose_sight(struct guest *guest);
/* Windows that an earlier daemon has left, or that nothing was heard of for a while, are there still, or are not. */
void guest_verify(struct guest *guest);
/* See to it that the end of its QEMU is told. */
void guest_watch(struct guest *guest);
/* This is its QEMU, since libvirt has plugged something in that this process has. */
void guest_take_process(struct guest *guest, pid_t pid, uint64_t since);
/* It was missed, and nobody has its memory any more: it has ended. */
void guest_give_up_missed(struct guest *guest);
/* Its process has ended, and libvirt has not said so. */
void guest_look_for_another(struct guest *guest);
/* Its session, and the commons in it. 0 or -errno with a sentence. */
int guest_open_session(struct guest *guest, struct failure *failure);
/* Everything it has goes, its windows as well, but for those that a process still has. */
void guest_end(struct guest *guest);
/* It is not in the configuration any more: everything goes but the windows that a process has, which are as they were when it is
 * there again. */
void guest_forsake(struct guest *guest);
/* What was its own but the windows goes. */
void guest_release(struct guest *guest);
/* Likewise what lies in one of them, and no more than must go with that. */
void guest_empty(struct guest *guest, uint64_t region);
bool guest_is_reachable(const struct guest *guest, struct failure *failure);

/* ---- guest-xen.c ---- */
extern const struct xen_listener guest_xen_listener;
/* Who is connected by its channel is hung up on; another one is made when it runs again. */
void guest_end_vchan(struct guest *guest);

/* ---- guest-exchange.c ---- */
/* Who waits for an exchange of its frames waits no more. It is counted until it is over. */
void guest_leave_exchange(struct guest *guest);

/* ---- guest-window.c, xen-window.c ---- */
extern const struct window_way window_qmp_way, window_libvirt_way, window_xen_way;
/* For the ways. A place was found. The window may be no more when this returns. */
void window_reserve(struct window *window);
/* The ends of plug() and verify(). error: 0 or -errno, with a sentence or NULL. in_doubt: it may have come in all the same. The
 * window may be no more when these return, which within verify() must not be: there it can only be told that it is there. */
void window_plugged(struct window *window, int error, bool in_doubt, const char *sentence);
void window_verified(struct window *window, bool known, bool is_there);
/* What was begun is over, without an end. */
void window_begun_over(struct window *window);
/* A window that an earlier daemon has left, in guest->windows. */
int window_inherit(struct guest *guest, const char *line, struct failure *failure);
/* Likewise what is reserved for windows and was in no line: nobody has it. */
int window_inherit_unnamed(struct guest *guest, struct failure *failure);
/* What the next daemon must know of it: a line for the session's note. */
int window_note(const struct window *window, char *text, size_t size);
/* What could not be done at once. */
void window_work(struct window *window);
/* Look whether QEMU has it, if that is in doubt. */
void window_verify(struct window *window);
/* A process has it: is connected to its server, or was to an earlier daemon's, and lives. */
bool window_is_connected(const struct window *window);
/* QEMU cannot be heard any more: what the guest lets go of meanwhile is not told. */
void window_doubt(struct window *window);
/* QEMU does not have it any more, or never had: it goes back to the host, as soon as nothing is at work in it. */
void window_end(struct window *window);
/* Nobody can get it any more, where that is ours to say. */
void window_take_back(struct window *window);
/* The guest has ended, or is in the hands of another QEMU, and nothing of its own lies in it: it ends when nobody has it. */
void window_leave(struct window *window);
/* Its guest is not in the configuration any more: it stays as it is while a process has it, and serves nobody. */
void window_forsake(struct window *window);
/* The guest boots anew: it must tell again where it sees it. */
void window_reset(struct window *window);
/* The guest has let go of a device. */
void window_removed(struct guest *guest, const char *id);
/* It keeps it, though it was asked. */
void window_kept(struct guest *guest, const char *id);
/* Its handles, for guests_close(). */
void window_close(struct window *window);
void guest_attach_own(struct guest *guest);
/* Have QEMU give up devices that no window of now is. It answers this before what it is asked afterwards. */
void guest_clear_leftovers(struct guest *guest);

/* ---- guest-grant.c ---- */
/* What an earlier daemon had, with or without guests. -ENOMEM. */
int guests_restore_grants(struct guests *guests);
/* Of grants that have ended. */
void guests_end_shares(struct guests *guests);
/* leave: for the next daemon. */
void guests_close_grants(struct guests *guests, bool leave);
/* When the loop has ended. */
void guests_free_grants(struct guests *guests);

/* ---- guest-policy.c ---- */
/* What its domain's metadata says, or xenstore; NULL: nothing. */
void guest_take_metadata(struct guest *guest, const char *text);
void guest_take_words(struct guest *guest, const char *text);

/* ---- guest-note.c ---- */
/* The session's note: what the next daemon must know. */
int guest_save(struct guest *guest);
/* Whether sessions of earlier daemons know of any guest. */
bool guests_are_known(const struct guests *guests);
/* Take over what they know. */
int guests_restore(struct guests *guests, struct failure *failure);

#endif
