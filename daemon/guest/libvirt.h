/* One connection to a libvirt daemon: which guests run, what becomes of them, and requests on their behalf. It lives on a
 * thread of its own, so that libvirt, which may block for ever, never blocks the loop; it is made again whenever it is lost.
 * All functions belong to the loop's thread, and all callbacks come there, never from within one of these functions. */
#ifndef DMAB_GUEST_LIBVIRT_H
#define DMAB_GUEST_LIBVIRT_H

#include <stdbool.h>
#include <uv.h>

/* What we keep in a domain is one element of this namespace. */
#define LIBVIRT_METADATA_URI "https://dmabroker.org/xmlns/domain/1.0"
#define LIBVIRT_METADATA_PREFIX "dmab"

enum {
        LIBVIRT_REQUESTS_MAX = 256, /* outstanding */
};

struct libvirt;

/* 0 stands for the default. */
struct libvirt_options {
        const char *uri;               /* copied; NULL: libvirt's own choice */
        unsigned keepalive_seconds;    /* without a word, until libvirtd is asked whether it is there; 5 */
        unsigned keepalive_count;      /* times that it may leave that unanswered; 3 */
        unsigned retry_ms;             /* after the first failure, then doubling; 1000 */
        unsigned retry_max_ms;         /* 30000 */
        unsigned close_patience_ms;    /* for a thread that hangs in libvirt, when closing; 2000 */
};

/* A guest that is running, or paused. Strings are valid during the call. */
struct libvirt_guest {
        const char *uuid; /* 36 characters, lower case */
        const char *name;
        unsigned run;         /* libvirt's number for this run of it: of two runs in one life of libvirtd each has its own; 0:
                               * not known */
        bool paused;          /* by whomever, for whatever reason */
        const char *metadata; /* our element; NULL: none can be read, or it just started: see libvirt_get_metadata() */
};

enum libvirt_stop {
        LIBVIRT_STOP_SHUTDOWN,
        LIBVIRT_STOP_DESTROYED,
        LIBVIRT_STOP_CRASHED,
        LIBVIRT_STOP_MIGRATED,
        LIBVIRT_STOP_SAVED,
        LIBVIRT_STOP_FAILED, /* its process died */
        LIBVIRT_STOP_OTHER,
};
extern const char *const libvirt_stop_names[]; /* in this order */

/* Any of these may be NULL. Between connected() and listed() every guest there is is seen; whoever was known from before and
 * was not seen is gone, which is told in no other way. Events during that time come after listed(): one may say again what
 * was seen already, and hence a guest may be told to have started that is known. libvirt may tell that a guest was resumed
 * before it tells that it has started. */
struct libvirt_listener {
        void (*connected)(void *userdata);
        /* The connection is lost, or could not be made, which is said again only when it has another reason. Nothing is known
         * of any guest until the next listed(). */
        void (*lost)(void *userdata, const char *why);
        void (*guest_seen)(void *userdata, const struct libvirt_guest *guest);
        void (*listed)(void *userdata);

        void (*guest_started)(void *userdata, const struct libvirt_guest *guest);
        void (*guest_stopped)(void *userdata, const char *uuid, enum libvirt_stop reason);
        void (*guest_rebooted)(void *userdata, const char *uuid); /* perhaps several times for one reboot */
        void (*guest_suspended)(void *userdata, const char *uuid); /* or panicked, or asleep: it does not run */
        void (*guest_resumed)(void *userdata, const char *uuid);
        void (*device_removed)(void *userdata, const char *uuid, const char *alias);
        /* The guest was asked to let go of it, and has refused. */
        void (*device_kept)(void *userdata, const char *uuid, const char *alias);
        void (*metadata_changed)(void *userdata, const char *uuid, const char *metadata); /* NULL: there is none any more */
        /* libvirt tells it only of org.qemu.guest_agent.0. */
        void (*channel_state)(void *userdata, const char *uuid, const char *channel, bool connected);
};

/* The end of a request: 0 and what was asked for, if anything was, or -errno and libvirt's sentence. -ECONNRESET: the
 * connection was lost, and it may or may not have been done. -ECANCELED: the same, because of libvirt_close(). -ENOENT: there
 * is no such guest. -ENODATA: it has no metadata of ours. */
typedef void (*libvirt_done_fn)(void *userdata, int status, const char *text);

/* NULL if a connection could be had on this host, else a sentence: libvirt is not installed, or this build goes without. It
 * loads the library, which takes some milliseconds. */
const char *libvirt_unavailable(void);

/* Begin to connect. `ops` must outlive it. -ENOPKG: see libvirt_unavailable(); -ENOMEM, -EMFILE, -EAGAIN. */
int libvirt_new(uv_loop_t *loop, const struct libvirt_options *options, const struct libvirt_listener *ops, void *userdata,
                struct libvirt **ret);

/* End it. After this nothing is called but the ends of outstanding requests, and `closed`, unless it is NULL, with the
 * userdata of libvirt_new(); then nothing of it is left on the loop. A thread that hangs in libvirt is left to itself and frees
 * what it has if it ever returns. NULL is fine, and `closed` is not called then. */
void libvirt_close(struct libvirt *libvirt, void (*closed)(void *userdata));

/* Requests are done one after the other. 0: `done` will be called, once; it may be NULL. On failure it is not: -ENOTCONN,
 * -EAGAIN (too many are outstanding), -ENOMEM, -EINVAL (a uuid that is none). Strings are copied.
 *
 * A device is attached to the running guest; with `persistent`, if the guest is, to its configuration, too. Detaching only
 * asks the guest to let go of it: device_removed() tells when it has. */
int libvirt_attach(struct libvirt *libvirt, const char *uuid, const char *xml, bool persistent, libvirt_done_fn done,
                   void *userdata);
int libvirt_detach(struct libvirt *libvirt, const char *uuid, const char *xml, bool persistent, libvirt_done_fn done,
                   void *userdata);
int libvirt_detach_alias(struct libvirt *libvirt, const char *uuid, const char *alias, bool persistent, libvirt_done_fn done,
                         void *userdata);
/* The element as text, of no namespace; NULL removes it. */
int libvirt_set_metadata(struct libvirt *libvirt, const char *uuid, const char *xml, bool persistent, libvirt_done_fn done,
                         void *userdata);
int libvirt_get_metadata(struct libvirt *libvirt, const char *uuid, libvirt_done_fn done, void *userdata);
/* The whole domain's XML, of the running guest. */
int libvirt_get_xml(struct libvirt *libvirt, const char *uuid, libvirt_done_fn done, void *userdata);
/* All guests are seen once more, then listed() comes, then `done`. */
int libvirt_list(struct libvirt *libvirt, libvirt_done_fn done, void *userdata);

#endif
