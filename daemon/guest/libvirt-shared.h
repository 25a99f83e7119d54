/* What the loop's side of a connection, its thread and libvirt's callbacks share. */
#ifndef DMAB_GUEST_LIBVIRT_SHARED_H
#define DMAB_GUEST_LIBVIRT_SHARED_H

#include <config.h>
#ifdef HAVE_LIBVIRT

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <uv.h>

#include "daemon/guest/libvirt-library.h"
#include "daemon/guest/libvirt.h"

enum {
        LIBVIRT_UUID_SIZE = VIR_UUID_STRING_BUFLEN,
        LIBVIRT_EVENTS_MAX = 8,
};
#define LIBVIRT_NO_RUN ((unsigned)-1)

enum note_kind {
        NOTE_CONNECTED,
        NOTE_LOST,   /* text: why */
        NOTE_SEEN,   /* name, detail: paused, text: metadata */
        NOTE_LISTED,
        NOTE_STARTED, /* name */
        NOTE_STOPPED, /* detail: why */
        NOTE_REBOOTED,
        NOTE_SUSPENDED,
        NOTE_RESUMED,
        NOTE_DEVICE_REMOVED,   /* name: the alias */
        NOTE_DEVICE_KEPT,      /* name: the alias */
        NOTE_METADATA_CHANGED, /* text */
        NOTE_CHANNEL_STATE,    /* name: the channel, detail: connected */
        NOTE_DONE,             /* it is a request's */
};

/* What the loop is to be told. */
struct note {
        enum note_kind kind;
        int detail;
        unsigned id; /* NOTE_SEEN, NOTE_STARTED: libvirt's number for this run of the guest, or LIBVIRT_NO_RUN */
        char uuid[LIBVIRT_UUID_SIZE];
        char *name, *text; /* or NULL */
        struct note *next;
};

/* A guest that was seen, in that run of it. */
struct seen_run {
        char uuid[LIBVIRT_UUID_SIZE]; /* "": none was */
        unsigned id;
};

struct note_queue {
        struct note *head, **tail;
};

enum request_kind {
        REQUEST_ATTACH,
        REQUEST_DETACH,
        REQUEST_DETACH_ALIAS,
        REQUEST_SET_METADATA,
        REQUEST_GET_METADATA,
        REQUEST_GET_XML,
        REQUEST_LIST,
        REQUEST_TELL_METADATA, /* the thread's own: metadata changed */
};

struct request {
        struct note note; /* first; its detail is the status, its text the answer. The argument is its name */
        enum request_kind kind;
        bool persistent;
        struct request *next_waiting;

        /* The loop's. */
        libvirt_done_fn done;
        void *userdata;
        struct request *next, **link; /* among the outstanding ones */
};

struct libvirt {
        /* One for the loop, one for the thread, one for every event that libvirt tells. */
        atomic_uint n_refs;
        const struct libvirt_library *library;
        char *uri; /* or NULL */
        struct libvirt_options options;

        pthread_mutex_t mutex;
        /* All under the mutex. */
        pthread_cond_t wanted; /* something changed that the thread looks at */
        struct note_queue notes;
        struct note_queue held; /* events that wait until all guests were seen */
        bool holding;
        struct request *waiting, **waiting_end;
        struct request *running;
        virConnectPtr connection; /* NULL: none; only the thread sets it */
        const char *broken;       /* why the connection is no good any more, or NULL; static */
        bool ending;
        bool told_no_more; /* `async` is closed */
        bool thread_ended;

        /* The thread's. */
        int event_ids[LIBVIRT_EVENTS_MAX];
        unsigned n_event_ids;
        bool told_connected; /* and not yet of the loss */

        /* The loop's. */
        uv_async_t async;
        uv_timer_t patience;
        unsigned n_handles;
        pthread_t thread;
        const struct libvirt_listener *ops;
        void *userdata;
        void (*closed)(void *userdata);
        bool closing;
        struct request *outstanding;
        unsigned n_outstanding;
};

void libvirt_ref(struct libvirt *libvirt);
void libvirt_unref(struct libvirt *libvirt);

/* ---- libvirt.c: what the loop is told; any thread ---- */

/* name and text may be NULL, and are copied. NULL: there is no memory. */
struct note *libvirt_note_new(enum note_kind kind, const char *uuid, const char *name, const char *text);
void libvirt_note_free(struct note *note);
/* Consumes the note. The second is for when the mutex is held. */
void libvirt_tell(struct libvirt *libvirt, struct note *note);
void libvirt_tell_locked(struct libvirt *libvirt, struct note *note);
/* Events begin to be held; they come, in order, when that ends. Of a guest that was seen meanwhile, what is from before the run
 * in which it was seen does not: the end of an earlier run would be taken for this one's. */
void libvirt_hold(struct libvirt *libvirt);
void libvirt_hold_no_more(struct libvirt *libvirt, const struct seen_run *seen, size_t n);

/* ---- libvirt-events.c: libvirt's callbacks ---- */

/* Of the connection that is set. -1: there are none to be had, as virGetLastError() says. Thread. */
int libvirt_events_begin(struct libvirt *libvirt);
/* Before the connection is closed, which else would never be. Thread. */
void libvirt_events_end(struct libvirt *libvirt);

/* ---- libvirt-worker.c: the thread, and what it does ---- */

void *libvirt_worker_main(void *libvirt);
/* With the mutex: put it in the thread's queue. */
void libvirt_worker_submit_locked(struct libvirt *libvirt, struct request *request);
/* With the mutex: empty that queue. What the loop waits for is not freed. */
void libvirt_worker_drop_locked(struct libvirt *libvirt);
/* With the mutex: the connection is no good any more; `why` is static, and the first one counts. */
void libvirt_worker_break_locked(struct libvirt *libvirt, const char *why);

#endif
#endif
