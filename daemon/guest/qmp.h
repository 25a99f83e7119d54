/* One QEMU, over its monitor's socket (QMP): what happens to its guest, and commands. For hosts without libvirt.
 *
 * The happy path: the socket is connected to, QEMU greets, is told that we understand it, and from then on answers
 * commands in order and tells of events in between.
 *
 * What can go wrong: QEMU is not there, or serves another monitor, or ends: then it is tried again, after a second at
 * first and after half a minute in the end. It sends what is no QMP, or a line that is too long: it is hung up on, and
 * tried again. It does not answer: each command has its time. It does not read: no more is kept for it than the limits
 * say. Whatever happens, each command that was accepted is done exactly once, never from within the call that accepted
 * it.
 *
 * What QEMU says is not trusted any further than its guest is; a sentence of it has no control characters and is short.
 * */
#ifndef DMAB_GUEST_QMP_H
#define DMAB_GUEST_QMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

enum qmp_event_kind {
        QMP_EVENT_SHUTDOWN, /* the guest has ended; QEMU ends as well unless it was told not to */
        QMP_EVENT_RESET,
        QMP_EVENT_STOP,
        QMP_EVENT_RESUME,
        QMP_EVENT_DEVICE_DELETED,   /* the guest has let go of it, and it is gone */
        QMP_EVENT_UNPLUG_REFUSED,   /* the guest does not let go of it */
        QMP_EVENT_GUEST_PANICKED,
};

/* Texts are QEMU's, good during the call, and NULL where it says nothing. */
struct qmp_event {
        enum qmp_event_kind kind;
        const char *device; /* the id of a device that has one */
        const char *path;   /* of the device */
        const char *reason; /* of a shutdown or reset: "guest-reset", "host-qmp-quit" … */
};

/* Called from the loop; any of them may be NULL, and any may close the client. */
struct qmp_listener {
        /* Commands are accepted from now on. What happened before is not known: ask. */
        void (*connected)(void *userdata);
        /* After connected: not any more. Commands that were under way have failed. */
        void (*lost)(void *userdata, const char *why);
        void (*event)(void *userdata, const struct qmp_event *event);
};

/* 0: the default. */
struct qmp_options {
        uint64_t timeout_ms;   /* for the greeting, and for each command: 10 s */
        uint64_t retry_ms;     /* until the first new attempt, doubled after each: 1 s */
        uint64_t retry_max_ms; /* 30 s */
        size_t commands_max;   /* under way at a time: 64 */
        size_t line_max;       /* bytes of a line of QEMU's: 1 MiB */
};

/* Good during the call. */
struct qmp_answer {
        /* 0, or as QEMU has answered: -ENODEV: there is no such device; -EOPNOTSUPP: it does not know the command;
         * -EREMOTEIO: it says why not. Or without its answer: -ETIMEDOUT; -ECONNRESET: it was lost; -ECANCELED: the
         * client was closed. */
        int error;
        bool answered;        /* QEMU has; else the command may have been done all the same */
        const char *value;    /* JSON, when error is 0 */
        const char *sentence; /* else: what is wrong */
};

typedef void (*qmp_done_fn)(void *userdata, const struct qmp_answer *answer);

struct qmp;

/* listener is borrowed until the client is closed, options are copied and may be NULL. The first attempt is made by the
 * loop. 0, -ENAMETOOLONG, -ENOMEM. */
int qmp_new(uv_loop_t *loop, const char *path, const struct qmp_options *options, const struct qmp_listener *listener,
            void *userdata, struct qmp **ret);
/* Hangs up. Commands under way are done with -ECANCELED. Frees itself when its handles are closed, and then calls
 * closed, unless that is NULL. */
void qmp_close(struct qmp *qmp, void (*closed)(void *userdata));

/* This is not the QEMU that is wanted: it is hung up on, and the socket is tried again later, as when it is lost. Also from
 * connected(). why: what qmp_why_away() says then. */
void qmp_refuse(struct qmp *qmp, const char *why);
/* Where it is waited until the next attempt, that is made now. */
void qmp_hurry(struct qmp *qmp);

bool qmp_is_ready(const struct qmp *qmp);
/* The process that has opened the monitor's socket, which is QEMU where nobody has passed it an open one; 0: not
 * connected. */
pid_t qmp_pid(const struct qmp *qmp);
/* Why it is not ready; "" if it never was tried. Good until the next callback. */
const char *qmp_why_away(const struct qmp *qmp);

/* arguments: the text of a JSON object, or NULL. 0: done will be called. Else it will not: -ENOTCONN: not ready;
 * -EBUSY: too many are under way; -ENOBUFS: QEMU does not read them; -EINVAL: arguments are no object; -ENOMEM. */
int qmp_execute(struct qmp *qmp, const char *command, const char *arguments, qmp_done_fn done, void *userdata);

/* As qmp_execute("device_del"), but done with 0 only when the device is gone: its guest has to let go of it.
 * -ETIMEDOUT: it has not done so in timeout_ms; it still may. -EBUSY: it refuses. -ENODEV: there is none. */
int qmp_unplug(struct qmp *qmp, const char *device, uint64_t timeout_ms, qmp_done_fn done, void *userdata);

#endif
