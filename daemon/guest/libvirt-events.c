#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "daemon/guest/libvirt-shared.h"

/* libvirt calls these in the thread of libvirt-loop.h, which must not be kept: they note what happened, and ask nothing. What
 * a connection that is given up still has to tell is of no interest; its address is no other's as long as it tells. */

static const char no_memory[] = "there was no memory for an event of libvirt";

/* Takes the note, or that there is no memory for one: then all guests are asked for anew. */
static void tell_event(struct libvirt *libvirt, virConnectPtr connection, struct note *note) {
        pthread_mutex_lock(&libvirt->mutex);
        if (connection != libvirt->connection)
                libvirt_note_free(note);
        else if (note)
                libvirt_tell_locked(libvirt, note);
        else
                libvirt_worker_break_locked(libvirt, no_memory);
        pthread_mutex_unlock(&libvirt->mutex);
}

static void domain_event(struct libvirt *libvirt, virConnectPtr connection, virDomainPtr domain, enum note_kind kind,
                         int detail, const char *name) {
        char uuid[LIBVIRT_UUID_SIZE];
        struct note *note;

        if (libvirt->library->virDomainGetUUIDString(domain, uuid) < 0)
                return;
        note = libvirt_note_new(kind, uuid, name, NULL);
        if (note) {
                note->detail = detail;
                note->id = libvirt->library->virDomainGetID(domain);
        }
        tell_event(libvirt, connection, note);
}

static enum libvirt_stop stop_of(int detail) {
        switch (detail) {
        case VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN:
                return LIBVIRT_STOP_SHUTDOWN;
        case VIR_DOMAIN_EVENT_STOPPED_DESTROYED:
                return LIBVIRT_STOP_DESTROYED;
        case VIR_DOMAIN_EVENT_STOPPED_CRASHED:
                return LIBVIRT_STOP_CRASHED;
        case VIR_DOMAIN_EVENT_STOPPED_MIGRATED:
                return LIBVIRT_STOP_MIGRATED;
        case VIR_DOMAIN_EVENT_STOPPED_SAVED:
                return LIBVIRT_STOP_SAVED;
        case VIR_DOMAIN_EVENT_STOPPED_FAILED:
                return LIBVIRT_STOP_FAILED;
        default:
                return LIBVIRT_STOP_OTHER;
        }
}

/* Of a shutdown only its end matters, which is told as a stop. */
static int on_lifecycle(virConnectPtr connection, virDomainPtr domain, int event, int detail, void *userdata) {
        struct libvirt *libvirt = userdata;
        const char *name = libvirt->library->virDomainGetName(domain);

        switch (event) {
        case VIR_DOMAIN_EVENT_STARTED:
                if (detail == VIR_DOMAIN_EVENT_STARTED_WAKEUP)
                        domain_event(libvirt, connection, domain, NOTE_RESUMED, 0, NULL);
                else
                        domain_event(libvirt, connection, domain, NOTE_STARTED, 0, name ? name : "");
                break;
        case VIR_DOMAIN_EVENT_STOPPED:
                domain_event(libvirt, connection, domain, NOTE_STOPPED, (int)stop_of(detail), NULL);
                break;
        case VIR_DOMAIN_EVENT_SUSPENDED:
        case VIR_DOMAIN_EVENT_PMSUSPENDED:
        case VIR_DOMAIN_EVENT_CRASHED:
                domain_event(libvirt, connection, domain, NOTE_SUSPENDED, 0, NULL);
                break;
        case VIR_DOMAIN_EVENT_RESUMED:
                domain_event(libvirt, connection, domain, NOTE_RESUMED, 0, NULL);
                break;
        }
        return 0;
}

static void on_reboot(virConnectPtr connection, virDomainPtr domain, void *userdata) {
        domain_event(userdata, connection, domain, NOTE_REBOOTED, 0, NULL);
}

static void on_device_removed(virConnectPtr connection, virDomainPtr domain, const char *alias, void *userdata) {
        domain_event(userdata, connection, domain, NOTE_DEVICE_REMOVED, 0, alias);
}

static void on_device_kept(virConnectPtr connection, virDomainPtr domain, const char *alias, void *userdata) {
        domain_event(userdata, connection, domain, NOTE_DEVICE_KEPT, 0, alias);
}

static void on_agent(virConnectPtr connection, virDomainPtr domain, int state, int reason, void *userdata) {
        domain_event(userdata, connection, domain, NOTE_CHANNEL_STATE,
                     state == VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED, "org.qemu.guest_agent.0");
}

/* What it is now has to be asked for, which is the thread's to do. */
static void on_metadata(virConnectPtr connection, virDomainPtr domain, int type, const char *uri, void *userdata) {
        struct libvirt *libvirt = userdata;
        struct request *request;

        if (type != VIR_DOMAIN_METADATA_ELEMENT || !uri || strcmp(uri, LIBVIRT_METADATA_URI) != 0)
                return;
        request = calloc(1, sizeof(*request));
        if (request) {
                request->kind = REQUEST_TELL_METADATA;
                request->note.kind = NOTE_METADATA_CHANGED;
                if (libvirt->library->virDomainGetUUIDString(domain, request->note.uuid) < 0) {
                        free(request);
                        return;
                }
        }
        pthread_mutex_lock(&libvirt->mutex);
        if (connection != libvirt->connection)
                free(request);
        else if (request)
                libvirt_worker_submit_locked(libvirt, request);
        else
                libvirt_worker_break_locked(libvirt, no_memory);
        pthread_mutex_unlock(&libvirt->mutex);
}

static void on_connection_closed(virConnectPtr connection, int reason, void *userdata) {
        static const char *const reasons[] = {
                [VIR_CONNECT_CLOSE_REASON_ERROR] = "the connection to libvirtd failed",
                [VIR_CONNECT_CLOSE_REASON_EOF] = "libvirtd closed the connection",
                [VIR_CONNECT_CLOSE_REASON_KEEPALIVE] = "libvirtd does not answer any more",
        };
        struct libvirt *libvirt = userdata;

        pthread_mutex_lock(&libvirt->mutex);
        if (connection == libvirt->connection && reason != VIR_CONNECT_CLOSE_REASON_CLIENT)
                libvirt_worker_break_locked(libvirt, reasons[reason <= VIR_CONNECT_CLOSE_REASON_KEEPALIVE ? reason : 0]);
        pthread_mutex_unlock(&libvirt->mutex);
}

static void free_userdata(void *userdata) {
        libvirt_unref(userdata);
}

/* 0 or -1. */
static int register_event(struct libvirt *libvirt, int event, virConnectDomainEventGenericCallback callback) {
        int id;

        libvirt_ref(libvirt);
        id = libvirt->library->virConnectDomainEventRegisterAny(libvirt->connection, NULL, event, callback, libvirt,
                                                                free_userdata);
        if (id < 0) {
                libvirt_unref(libvirt);
                return -1;
        }
        libvirt->event_ids[libvirt->n_event_ids++] = id;
        return 0;
}

/* Some drivers have only some of the events: without the first no guest can be followed. */
int libvirt_events_begin(struct libvirt *libvirt) {
        static const struct {
                int event;
                virConnectDomainEventGenericCallback callback;
        } events[] = {
                { VIR_DOMAIN_EVENT_ID_LIFECYCLE, VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle) },
                { VIR_DOMAIN_EVENT_ID_REBOOT, VIR_DOMAIN_EVENT_CALLBACK(on_reboot) },
                { VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, VIR_DOMAIN_EVENT_CALLBACK(on_device_removed) },
                { VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED, VIR_DOMAIN_EVENT_CALLBACK(on_device_kept) },
                { VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, VIR_DOMAIN_EVENT_CALLBACK(on_metadata) },
                { VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, VIR_DOMAIN_EVENT_CALLBACK(on_agent) },
        };

        libvirt->n_event_ids = 0;
        /* A driver that has none of it neither fails nor frees the userdata. It needs no reference of its own: the thread, which
         * has one, takes the callback back before it ends, and then libvirt is not in it. */
        libvirt->library->virConnectRegisterCloseCallback(libvirt->connection, on_connection_closed, libvirt, NULL);
        for (size_t i = 0; i < sizeof(events) / sizeof(*events); i++)
                if (register_event(libvirt, events[i].event, events[i].callback) < 0 && i == 0)
                        return -1;
        return 0;
}

void libvirt_events_end(struct libvirt *libvirt) {
        while (libvirt->n_event_ids > 0)
                libvirt->library->virConnectDomainEventDeregisterAny(libvirt->connection,
                                                                     libvirt->event_ids[--libvirt->n_event_ids]);
        libvirt->library->virConnectUnregisterCloseCallback(libvirt->connection, on_connection_closed);
}
