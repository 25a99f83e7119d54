#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/guest/libvirt-loop.h"
#include "daemon/guest/libvirt-shared.h"

/* The connection's thread: it connects, sees which guests there are, does requests until the connection is lost or not wanted
 * any more, and so on. Every call of libvirt in here may take its time. */

enum { WHY_SIZE = 512 }; /* for the sentence that tells why a connection was lost */

/* ---- the queue; with the mutex ---- */

void libvirt_worker_submit_locked(struct libvirt *libvirt, struct request *request) {
        request->next_waiting = NULL;
        *libvirt->waiting_end = request;
        libvirt->waiting_end = &request->next_waiting;
        pthread_cond_signal(&libvirt->wanted);
}

static struct request *next_waiting(struct libvirt *libvirt) {
        struct request *request = libvirt->waiting;

        if (!request)
                return NULL;
        libvirt->waiting = request->next_waiting;
        if (!libvirt->waiting)
                libvirt->waiting_end = &libvirt->waiting;
        return request;
}

void libvirt_worker_drop_locked(struct libvirt *libvirt) {
        struct request *request;

        while ((request = next_waiting(libvirt)))
                if (request->kind == REQUEST_TELL_METADATA)
                        free(request);
}

void libvirt_worker_break_locked(struct libvirt *libvirt, const char *why) {
        if (!libvirt->broken)
                libvirt->broken = why;
        pthread_cond_signal(&libvirt->wanted);
}

/* ---- errors ---- */

static const char *last_sentence(struct libvirt *libvirt) {
        virErrorPtr error = libvirt->library->virGetLastError();

        return error && error->message ? error->message : "libvirt does not say what failed";
}

static int errno_of(int code) {
        switch (code) {
        case VIR_ERR_NO_DOMAIN:
                return ENOENT;
        case VIR_ERR_NO_DOMAIN_METADATA:
                return ENODATA;
        case VIR_ERR_DEVICE_MISSING:
                return ENODEV;
        case VIR_ERR_NO_MEMORY:
                return ENOMEM;
        case VIR_ERR_NO_SUPPORT:
        case VIR_ERR_CONFIG_UNSUPPORTED:
        case VIR_ERR_OPERATION_UNSUPPORTED:
        case VIR_ERR_ARGUMENT_UNSUPPORTED:
                return EOPNOTSUPP;
        case VIR_ERR_OPERATION_DENIED:
        case VIR_ERR_AUTH_FAILED:
        case VIR_ERR_AUTH_CANCELLED:
        case VIR_ERR_AUTH_UNAVAILABLE:
        case VIR_ERR_ACCESS_DENIED:
                return EACCES;
        case VIR_ERR_OPERATION_TIMEOUT:
                return ETIMEDOUT;
        case VIR_ERR_INVALID_ARG:
        case VIR_ERR_XML_ERROR:
        case VIR_ERR_XML_DETAIL:
        case VIR_ERR_XML_INVALID_SCHEMA:
                return EINVAL;
        case VIR_ERR_OPERATION_INVALID: /* the guest does not run */
                return ESRCH;
        default:
                return EIO;
        }
}

/* What kept a call from doing its work; the sentence is to be freed, and NULL without memory. Whatever libvirt says, without a
 * connection that is the reason. Asking whether there is one forgets the error. */
static int last_failure(struct libvirt *libvirt, char **ret_why) {
        virErrorPtr error = libvirt->library->virGetLastError();
        int code = error ? error->code : VIR_ERR_INTERNAL_ERROR;

        *ret_why = strdup(last_sentence(libvirt));
        return libvirt->library->virConnectIsAlive(libvirt->connection) == 1 ? -errno_of(code) : -ECONNRESET;
}

/* ---- seeing guests ---- */

/* Whether it is certain that the guest has ended since it was listed. Whoever was listed and is not told of loses what is kept
 * for it, so that any doubt is in its favour. */
static bool is_gone(struct libvirt *libvirt, virDomainPtr domain, int *ret_state) {
        virErrorPtr error;

        *ret_state = VIR_DOMAIN_NOSTATE;
        if (libvirt->library->virDomainGetState(domain, ret_state, NULL, 0) == 0)
                return *ret_state == VIR_DOMAIN_SHUTOFF;
        error = libvirt->library->virGetLastError();
        return error && error->code == VIR_ERR_NO_DOMAIN;
}

/* 0 or -ENOMEM. *ret_seen is the run that was seen, if any was. */
static int see_guest(struct libvirt *libvirt, virDomainPtr domain, struct seen_run *ret_seen) {
        const struct libvirt_library *library = libvirt->library;
        const char *name = library->virDomainGetName(domain);
        struct note *note;
        char *metadata;
        int state;

        if (library->virDomainGetUUIDString(domain, ret_seen->uuid) < 0 || is_gone(libvirt, domain, &state)) {
                ret_seen->uuid[0] = '\0';
                return 0;
        }
        metadata = library->virDomainGetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT, LIBVIRT_METADATA_URI,
                                                 VIR_DOMAIN_AFFECT_CURRENT);
        note = libvirt_note_new(NOTE_SEEN, ret_seen->uuid, name ? name : "", metadata);
        free(metadata);
        if (!note)
                return -ENOMEM;
        note->detail = state == VIR_DOMAIN_PAUSED || state == VIR_DOMAIN_PMSUSPENDED || state == VIR_DOMAIN_CRASHED;
        note->id = ret_seen->id = library->virDomainGetID(domain);
        libvirt_tell(libvirt, note);
        return 0;
}

/* Consumes the domains. 0 or -errno. Without a connection there is no end of the list. */
static int see_guests(struct libvirt *libvirt, virDomainPtr *domains, size_t n, struct seen_run *seen) {
        struct note *note;
        int r = 0;

        for (size_t i = 0; i < n; i++) {
                if (r == 0)
                        r = see_guest(libvirt, domains[i], &seen[i]);
                libvirt->library->virDomainFree(domains[i]);
        }
        free(domains);
        if (r < 0)
                return r;
        if (libvirt->library->virConnectIsAlive(libvirt->connection) != 1)
                return -ECONNRESET;
        note = libvirt_note_new(NOTE_LISTED, NULL, NULL, NULL);
        if (!note)
                return -ENOMEM;
        libvirt_tell(libvirt, note);
        /* Whatever libvirtd told before it told of the guests is held now. */
        return libvirt_loop_wait_turn();
}

/* The connection tells of events already: they come after what they may contradict. 0, or -errno and a sentence that is to be
 * freed, or NULL. */
static int list_guests(struct libvirt *libvirt, char **ret_why) {
        struct seen_run *seen = NULL;
        virDomainPtr *domains;
        int n, r;

        libvirt_hold(libvirt);
        n = libvirt->library->virConnectListAllDomains(libvirt->connection, &domains, VIR_CONNECT_LIST_DOMAINS_ACTIVE);
        if (n < 0) {
                r = last_failure(libvirt, ret_why);
        } else {
                seen = calloc((size_t)n + 1, sizeof(*seen));
                for (int i = 0; !seen && i < n; i++)
                        libvirt->library->virDomainFree(domains[i]);
                if (!seen)
                        free(domains);
                r = seen ? see_guests(libvirt, domains, (size_t)n, seen) : -ENOMEM;
                if (r < 0)
                        *ret_why = strdup(r == -ENOMEM ? "there is no memory for the list of guests"
                                                       : "the connection was lost");
        }
        libvirt_hold_no_more(libvirt, seen, seen ? (size_t)n : 0);
        free(seen);
        return r;
}

/* ---- requests ---- */

/* What is to change; -1: libvirt does not know whether the guest is persistent. */
static int change_flags(struct libvirt *libvirt, virDomainPtr domain, bool persistent) {
        int r = persistent ? libvirt->library->virDomainIsPersistent(domain) : 0;

        if (r < 0)
                return -1;
        return VIR_DOMAIN_AFFECT_LIVE | (r == 1 ? VIR_DOMAIN_AFFECT_CONFIG : 0);
}

/* -1 or not, as libvirt says it; *ret_text is what was asked for. */
static int change_guest(struct libvirt *libvirt, struct request *request, virDomainPtr domain) {
        const struct libvirt_library *library = libvirt->library;
        const char *argument = request->note.name;
        int flags = change_flags(libvirt, domain, request->persistent);

        if (flags < 0)
                return -1;
        switch (request->kind) {
        case REQUEST_ATTACH:
                return library->virDomainAttachDeviceFlags(domain, argument, (unsigned)flags);
        case REQUEST_DETACH:
                return library->virDomainDetachDeviceFlags(domain, argument, (unsigned)flags);
        case REQUEST_DETACH_ALIAS:
                return library->virDomainDetachDeviceAlias(domain, argument, (unsigned)flags);
        default:
                return library->virDomainSetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT, argument, LIBVIRT_METADATA_PREFIX,
                                                     LIBVIRT_METADATA_URI, (unsigned)flags);
        }
}

static int ask_guest(struct libvirt *libvirt, struct request *request, virDomainPtr domain) {
        const struct libvirt_library *library = libvirt->library;
        char *text;

        switch (request->kind) {
        case REQUEST_GET_XML:
                text = library->virDomainGetXMLDesc(domain, 0);
                break;
        case REQUEST_GET_METADATA:
        case REQUEST_TELL_METADATA:
                text = library->virDomainGetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT, LIBVIRT_METADATA_URI,
                                                     VIR_DOMAIN_AFFECT_CURRENT);
                break;
        default:
                return change_guest(libvirt, request, domain);
        }
        request->note.text = text;
        return text ? 0 : -1;
}

/* Sets the note's status and text. */
static void do_request(struct libvirt *libvirt, struct request *request) {
        const struct libvirt_library *library = libvirt->library;
        struct note *note = &request->note;
        virDomainPtr domain;

        library->virResetLastError();
        if (request->kind == REQUEST_LIST) {
                note->detail = list_guests(libvirt, &note->text);
                return;
        }
        domain = library->virDomainLookupByUUIDString(libvirt->connection, note->uuid);
        if (!domain || ask_guest(libvirt, request, domain) < 0)
                note->detail = last_failure(libvirt, &note->text);
        if (domain)
                library->virDomainFree(domain);
}

/* Takes the request. One of the thread's own is worth telling of if it has an answer, which may be that there is nothing. */
static void answer_request(struct libvirt *libvirt, struct request *request) {
        struct note *note = &request->note;

        pthread_mutex_lock(&libvirt->mutex);
        libvirt->running = NULL;
        if (request->kind == REQUEST_TELL_METADATA && note->detail < 0 && note->detail != -ENODATA) {
                libvirt_note_free(note);
        } else {
                if (request->kind == REQUEST_TELL_METADATA && note->detail < 0) {
                        free(note->text);
                        note->text = NULL;
                }
                libvirt_tell_locked(libvirt, note);
        }
        pthread_mutex_unlock(&libvirt->mutex);
}

/* Until the connection is not wanted any more, or lost; the latter's reason, or NULL. */
static const char *serve(struct libvirt *libvirt) {
        struct request *request;
        const char *why;

        pthread_mutex_lock(&libvirt->mutex);
        while (!libvirt->ending && !libvirt->broken) {
                request = next_waiting(libvirt);
                if (!request) {
                        pthread_cond_wait(&libvirt->wanted, &libvirt->mutex);
                        continue;
                }
                libvirt->running = request;
                pthread_mutex_unlock(&libvirt->mutex);
                do_request(libvirt, request);
                answer_request(libvirt, request);
                pthread_mutex_lock(&libvirt->mutex);
        }
        why = libvirt->ending ? NULL : libvirt->broken;
        pthread_mutex_unlock(&libvirt->mutex);
        return why;
}

/* ---- the connection ---- */

static bool is_ending(struct libvirt *libvirt) {
        bool ending;

        pthread_mutex_lock(&libvirt->mutex);
        ending = libvirt->ending;
        pthread_mutex_unlock(&libvirt->mutex);
        return ending;
}

/* Nobody can ask for anything more when the loop hears of the loss; what was asked ends before that. */
static void give_up(struct libvirt *libvirt, const char *why) {
        struct request *request;

        while (libvirt->waiting) {
                request = next_waiting(libvirt);
                if (request->kind == REQUEST_TELL_METADATA) {
                        free(request);
                        continue;
                }
                request->note.detail = libvirt->ending ? -ECANCELED : -ECONNRESET;
                request->note.text = strdup(why);
                libvirt_tell_locked(libvirt, &request->note);
        }
}

static void disconnect(struct libvirt *libvirt, const char *why) {
        virConnectPtr connection = libvirt->connection;

        libvirt_events_end(libvirt);
        pthread_mutex_lock(&libvirt->mutex);
        libvirt->connection = NULL;
        libvirt->broken = NULL;
        give_up(libvirt, why);
        pthread_mutex_unlock(&libvirt->mutex);
        libvirt->library->virConnectClose(connection);
}

/* 0, or -1 with a sentence; there is a connection then, or not. */
static int connect_and_list(struct libvirt *libvirt, char *why, size_t size) {
        const struct libvirt_library *library = libvirt->library;
        char *sentence = NULL;
        virConnectPtr connection;
        struct note *connected;

        library->virResetLastError();
        connection = library->virConnectOpen(libvirt->uri);
        if (!connection) {
                snprintf(why, size, "%s", last_sentence(libvirt));
                return -1;
        }
        pthread_mutex_lock(&libvirt->mutex);
        libvirt->connection = connection;
        pthread_mutex_unlock(&libvirt->mutex);
        /* It may have taken so long that nobody waits any more. */
        if (is_ending(libvirt)) {
                snprintf(why, size, "the connection to libvirt is being closed");
                return -1;
        }
        /* A connection within this process needs none. */
        library->virConnectSetKeepAlive(connection, (int)libvirt->options.keepalive_seconds,
                                        libvirt->options.keepalive_count);
        if (libvirt_events_begin(libvirt) < 0) {
                snprintf(why, size, "libvirt tells no events: %s", last_sentence(libvirt));
                return -1;
        }
        connected = libvirt_note_new(NOTE_CONNECTED, NULL, NULL, NULL);
        if (!connected) {
                snprintf(why, size, "there is no memory for the connection");
                return -1;
        }
        libvirt_tell(libvirt, connected);
        libvirt->told_connected = true;
        if (list_guests(libvirt, &sentence) < 0) {
                snprintf(why, size, "%s", sentence ? sentence : "there is no memory to say why");
                free(sentence);
                return -1;
        }
        return 0;
}

/* ---- the thread ---- */

static void rest(struct libvirt *libvirt, unsigned ms) {
        struct timespec until;
        int r = 0;

        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += ms / 1000;
        until.tv_nsec += (long)(ms % 1000) * 1000000;
        if (until.tv_nsec >= 1000000000) {
                until.tv_sec++;
                until.tv_nsec -= 1000000000;
        }
        pthread_mutex_lock(&libvirt->mutex);
        while (!libvirt->ending && r == 0)
                r = pthread_cond_timedwait(&libvirt->wanted, &libvirt->mutex, &until);
        pthread_mutex_unlock(&libvirt->mutex);
}

/* The note for a loss is there before there is anything to lose. */
static struct note *loss_new(void) {
        struct note *loss = libvirt_note_new(NOTE_LOST, NULL, NULL, NULL);

        if (loss) {
                loss->text = malloc(WHY_SIZE);
                if (!loss->text) {
                        libvirt_note_free(loss);
                        return NULL;
                }
        }
        return loss;
}

/* Connect once, and stay as long as that lasts. Whether all was well for some time. */
static bool live(struct libvirt *libvirt, char *told, struct note *loss) {
        const char *broken;
        bool was_well;

        was_well = connect_and_list(libvirt, loss->text, WHY_SIZE) == 0;
        if (was_well) {
                broken = serve(libvirt);
                snprintf(loss->text, WHY_SIZE, "%s", broken ? broken : "the connection to libvirt is being closed");
        }
        if (libvirt->connection)
                disconnect(libvirt, loss->text);
        if (is_ending(libvirt) || (!libvirt->told_connected && strcmp(told, loss->text) == 0)) {
                libvirt_note_free(loss);
        } else {
                snprintf(told, WHY_SIZE, "%s", was_well ? "" : loss->text);
                libvirt_tell(libvirt, loss);
                libvirt->told_connected = false;
        }
        return was_well;
}

void *libvirt_worker_main(void *userdata) {
        struct libvirt *libvirt = userdata;
        unsigned pause_ms = libvirt->options.retry_ms;
        char told[WHY_SIZE] = "";
        struct note *loss;

        while (!is_ending(libvirt)) {
                loss = loss_new();
                if (loss && live(libvirt, told, loss))
                        pause_ms = libvirt->options.retry_ms;
                rest(libvirt, pause_ms);
                pause_ms = pause_ms > libvirt->options.retry_max_ms / 2 ? libvirt->options.retry_max_ms : 2 * pause_ms;
        }
        libvirt_loop_unref();
        pthread_mutex_lock(&libvirt->mutex);
        libvirt->thread_ended = true;
        if (!libvirt->told_no_more)
                uv_async_send(&libvirt->async);
        pthread_mutex_unlock(&libvirt->mutex);
        libvirt_unref(libvirt);
        return NULL;
}
