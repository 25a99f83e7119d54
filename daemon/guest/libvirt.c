#include <config.h>

#include "daemon/guest/libvirt.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/guest/libvirt-loop.h"
#include "daemon/guest/libvirt-shared.h"
#include "daemon/guest/thread.h"

/* The loop and the connection's thread share struct libvirt. The loop puts requests in one queue, which wakes the thread; the
 * thread and libvirt's callbacks put notes in another, which wakes the loop; a request that is done comes back as a note.
 *
 * Closing asks the thread to end and waits, with a timer, for the note that it has. If it does not come, the thread hangs in
 * libvirt: it is detached, and has a reference of its own to what it may still touch. */

enum {
        KEEPALIVE_SECONDS = 5,
        KEEPALIVE_COUNT = 3,
        RETRY_MS = 1000,
        RETRY_MAX_MS = 30000,
        CLOSE_PATIENCE_MS = 2000,
        NOTES_AT_ONCE = 64, /* until others have their turn on the loop */
};

const char *const libvirt_stop_names[] = {
        [LIBVIRT_STOP_SHUTDOWN] = "shutdown", [LIBVIRT_STOP_DESTROYED] = "destroyed", [LIBVIRT_STOP_CRASHED] = "crashed",
        [LIBVIRT_STOP_MIGRATED] = "migrated", [LIBVIRT_STOP_SAVED] = "saved",         [LIBVIRT_STOP_FAILED] = "failed",
        [LIBVIRT_STOP_OTHER] = "other",
};

const char *libvirt_unavailable(void) {
        const char *why = NULL;

        libvirt_library(&why);
        return why;
}

void libvirt_ref(struct libvirt *libvirt) {
        atomic_fetch_add(&libvirt->n_refs, 1);
}

/* ---- notes ---- */

struct note *libvirt_note_new(enum note_kind kind, const char *uuid, const char *name, const char *text) {
        struct note *note = calloc(1, sizeof(*note));

        if (!note)
                return NULL;
        note->kind = kind;
        if (uuid)
                memcpy(note->uuid, uuid, sizeof(note->uuid));
        note->name = name ? strdup(name) : NULL;
        note->text = text ? strdup(text) : NULL;
        if ((name && !note->name) || (text && !note->text)) {
                libvirt_note_free(note);
                return NULL;
        }
        return note;
}

void libvirt_note_free(struct note *note) {
        if (!note)
                return;
        free(note->name);
        free(note->text);
        free(note); /* or the request that it is in */
}

static void queue_init(struct note_queue *queue) {
        *queue = (struct note_queue){ .tail = &queue->head };
}

static void queue_push(struct note_queue *queue, struct note *note) {
        note->next = NULL;
        *queue->tail = note;
        queue->tail = &note->next;
}

static struct note *queue_pop(struct note_queue *queue) {
        struct note *note = queue->head;

        if (!note)
                return NULL;
        queue->head = note->next;
        if (!queue->head)
                queue->tail = &queue->head;
        return note;
}

static void queue_clear(struct note_queue *queue) {
        struct note *note;

        while ((note = queue_pop(queue)))
                libvirt_note_free(note);
}

static bool is_event(const struct note *note) {
        return note->kind >= NOTE_STARTED && note->kind != NOTE_DONE;
}

void libvirt_tell_locked(struct libvirt *libvirt, struct note *note) {
        if (libvirt->told_no_more) {
                libvirt_note_free(note);
                return;
        }
        queue_push(libvirt->holding && is_event(note) ? &libvirt->held : &libvirt->notes, note);
        uv_async_send(&libvirt->async);
}

void libvirt_tell(struct libvirt *libvirt, struct note *note) {
        pthread_mutex_lock(&libvirt->mutex);
        libvirt_tell_locked(libvirt, note);
        pthread_mutex_unlock(&libvirt->mutex);
}

void libvirt_hold(struct libvirt *libvirt) {
        pthread_mutex_lock(&libvirt->mutex);
        libvirt->holding = true;
        pthread_mutex_unlock(&libvirt->mutex);
}

/* The start of the run that was seen, and what came before it, of that guest. */
static void drop_stale(struct note_queue *queue, const struct seen_run *seen) {
        struct note_queue kept;
        struct note *note, *start = NULL;

        for (note = queue->head; note; note = note->next)
                if (note->kind == NOTE_STARTED && note->id == seen->id && strcmp(note->uuid, seen->uuid) == 0)
                        start = note;
        if (!start)
                return;
        queue_init(&kept);
        while ((note = queue_pop(queue))) {
                if (!start || strcmp(note->uuid, seen->uuid) != 0) {
                        queue_push(&kept, note);
                        continue;
                }
                if (note == start)
                        start = NULL;
                libvirt_note_free(note);
        }
        while ((note = queue_pop(&kept)))
                queue_push(queue, note);
}

void libvirt_hold_no_more(struct libvirt *libvirt, const struct seen_run *seen, size_t n) {
        struct note *note;

        pthread_mutex_lock(&libvirt->mutex);
        for (size_t i = 0; i < n; i++)
                drop_stale(&libvirt->held, &seen[i]);
        libvirt->holding = false;
        while ((note = queue_pop(&libvirt->held)))
                libvirt_tell_locked(libvirt, note);
        pthread_mutex_unlock(&libvirt->mutex);
}

/* ---- telling ---- */

static void request_unlink(struct libvirt *libvirt, struct request *request) {
        *request->link = request->next;
        if (request->next)
                request->next->link = request->link;
        libvirt->n_outstanding--;
}

/* The caller frees it. */
static void request_end(struct libvirt *libvirt, struct request *request, int status, const char *text) {
        request_unlink(libvirt, request);
        if (request->done)
                request->done(request->userdata, status, text);
}

static void tell_guest(void (*fn)(void *, const struct libvirt_guest *), void *userdata, const struct note *note) {
        const struct libvirt_guest guest = { .uuid = note->uuid, .name = note->name, .paused = note->detail,
                                             .run = note->id == LIBVIRT_NO_RUN ? 0 : note->id, .metadata = note->text };

        if (fn)
                fn(userdata, &guest);
}

static void tell_uuid(void (*fn)(void *, const char *), void *userdata, const struct note *note) {
        if (fn)
                fn(userdata, note->uuid);
}

static void tell_text(void (*fn)(void *, const char *, const char *), void *userdata, const struct note *note,
                      const char *text) {
        if (fn)
                fn(userdata, note->uuid, text);
}

static void tell_plain(void (*fn)(void *), void *userdata) {
        if (fn)
                fn(userdata);
}

static void listener_call(const struct libvirt_listener *ops, void *userdata, const struct note *note) {
        switch (note->kind) {
        case NOTE_CONNECTED:
                return tell_plain(ops->connected, userdata);
        case NOTE_LOST:
                if (ops->lost)
                        ops->lost(userdata, note->text);
                return;
        case NOTE_SEEN:
                return tell_guest(ops->guest_seen, userdata, note);
        case NOTE_LISTED:
                return tell_plain(ops->listed, userdata);
        case NOTE_STARTED:
                return tell_guest(ops->guest_started, userdata, note);
        case NOTE_STOPPED:
                if (ops->guest_stopped)
                        ops->guest_stopped(userdata, note->uuid, note->detail);
                return;
        case NOTE_REBOOTED:
                return tell_uuid(ops->guest_rebooted, userdata, note);
        case NOTE_SUSPENDED:
                return tell_uuid(ops->guest_suspended, userdata, note);
        case NOTE_RESUMED:
                return tell_uuid(ops->guest_resumed, userdata, note);
        case NOTE_DEVICE_REMOVED:
                return tell_text(ops->device_removed, userdata, note, note->name);
        case NOTE_DEVICE_KEPT:
                return tell_text(ops->device_kept, userdata, note, note->name);
        case NOTE_METADATA_CHANGED:
                return tell_text(ops->metadata_changed, userdata, note, note->text);
        case NOTE_CHANNEL_STATE:
                if (ops->channel_state)
                        ops->channel_state(userdata, note->uuid, note->name, note->detail);
                return;
        case NOTE_DONE:
                return;
        }
}

static struct note *next_note(struct libvirt *libvirt, bool *ret_thread_ended) {
        struct note *note;

        pthread_mutex_lock(&libvirt->mutex);
        note = queue_pop(&libvirt->notes);
        *ret_thread_ended = libvirt->thread_ended;
        pthread_mutex_unlock(&libvirt->mutex);
        return note;
}

/* At most `max` notes. Whether the thread has ended and all was told. A callback may close, which frees nothing yet. */
static bool tell_notes(struct libvirt *libvirt, unsigned max) {
        struct note *note;
        bool thread_ended;

        while ((note = next_note(libvirt, &thread_ended))) {
                if (note->kind == NOTE_DONE)
                        request_end(libvirt, (struct request *)note, note->detail,
                                    note->detail < 0 && !note->text ? "there is no memory to say why" : note->text);
                else if (!libvirt->closing)
                        listener_call(libvirt->ops, libvirt->userdata, note);
                libvirt_note_free(note);
                if (--max == 0) {
                        uv_async_send(&libvirt->async);
                        return false;
                }
        }
        return thread_ended;
}

static void finish(struct libvirt *libvirt, bool thread_ended);

static void on_async(uv_async_t *async) {
        struct libvirt *libvirt = async->data;

        if (tell_notes(libvirt, NOTES_AT_ONCE) && libvirt->closing)
                finish(libvirt, true);
}

/* ---- requests ---- */

/* Either string may be NULL. */
static int submit(struct libvirt *libvirt, enum request_kind kind, const char *uuid, const char *argument, bool persistent,
                  libvirt_done_fn done, void *userdata) {
        struct request *request;
        int r = 0;

        if (uuid && strlen(uuid) != LIBVIRT_UUID_SIZE - 1)
                return -EINVAL;
        if (libvirt->n_outstanding >= LIBVIRT_REQUESTS_MAX)
                return -EAGAIN;
        request = calloc(1, sizeof(*request));
        if (!request)
                return -ENOMEM;
        *request = (struct request){ .kind = kind, .note.kind = NOTE_DONE, .persistent = persistent, .done = done,
                                     .userdata = userdata };
        if (uuid)
                memcpy(request->note.uuid, uuid, LIBVIRT_UUID_SIZE);
        if (argument) {
                request->note.name = strdup(argument);
                if (!request->note.name) {
                        free(request);
                        return -ENOMEM;
                }
        }
        pthread_mutex_lock(&libvirt->mutex);
        if (!libvirt->connection || libvirt->ending)
                r = -ENOTCONN;
        else
                libvirt_worker_submit_locked(libvirt, request);
        pthread_mutex_unlock(&libvirt->mutex);
        if (r < 0) {
                libvirt_note_free(&request->note);
                return r;
        }
        request->next = libvirt->outstanding;
        request->link = &libvirt->outstanding;
        if (request->next)
                request->next->link = &request->next;
        libvirt->outstanding = request;
        libvirt->n_outstanding++;
        return 0;
}

int libvirt_attach(struct libvirt *libvirt, const char *uuid, const char *xml, bool persistent, libvirt_done_fn done,
                   void *userdata) {
        return submit(libvirt, REQUEST_ATTACH, uuid, xml, persistent, done, userdata);
}

int libvirt_detach(struct libvirt *libvirt, const char *uuid, const char *xml, bool persistent, libvirt_done_fn done,
                   void *userdata) {
        return submit(libvirt, REQUEST_DETACH, uuid, xml, persistent, done, userdata);
}

int libvirt_detach_alias(struct libvirt *libvirt, const char *uuid, const char *alias, bool persistent, libvirt_done_fn done,
                         void *userdata) {
        return submit(libvirt, REQUEST_DETACH_ALIAS, uuid, alias, persistent, done, userdata);
}

int libvirt_set_metadata(struct libvirt *libvirt, const char *uuid, const char *xml, bool persistent, libvirt_done_fn done,
                         void *userdata) {
        return submit(libvirt, REQUEST_SET_METADATA, uuid, xml, persistent, done, userdata);
}

int libvirt_get_metadata(struct libvirt *libvirt, const char *uuid, libvirt_done_fn done, void *userdata) {
        return submit(libvirt, REQUEST_GET_METADATA, uuid, NULL, false, done, userdata);
}

int libvirt_get_xml(struct libvirt *libvirt, const char *uuid, libvirt_done_fn done, void *userdata) {
        return submit(libvirt, REQUEST_GET_XML, uuid, NULL, false, done, userdata);
}

int libvirt_list(struct libvirt *libvirt, libvirt_done_fn done, void *userdata) {
        return submit(libvirt, REQUEST_LIST, NULL, NULL, false, done, userdata);
}

/* ---- beginning ---- */

static unsigned or_default(unsigned value, unsigned otherwise) {
        return value > 0 ? value : otherwise;
}

static struct libvirt *allocate(const struct libvirt_options *options, const struct libvirt_library *library) {
        struct libvirt *libvirt = calloc(1, sizeof(*libvirt));
        pthread_condattr_t monotonic;

        if (!libvirt)
                return NULL;
        libvirt->uri = options->uri ? strdup(options->uri) : NULL;
        if (options->uri && !libvirt->uri) {
                free(libvirt);
                return NULL;
        }
        libvirt->library = library;
        libvirt->options = (struct libvirt_options){
                .uri = libvirt->uri,
                .keepalive_seconds = or_default(options->keepalive_seconds, KEEPALIVE_SECONDS),
                .keepalive_count = or_default(options->keepalive_count, KEEPALIVE_COUNT),
                .retry_ms = or_default(options->retry_ms, RETRY_MS),
                .retry_max_ms = or_default(options->retry_max_ms, RETRY_MAX_MS),
                .close_patience_ms = or_default(options->close_patience_ms, CLOSE_PATIENCE_MS),
        };
        atomic_init(&libvirt->n_refs, 1);
        pthread_mutex_init(&libvirt->mutex, NULL);
        pthread_condattr_init(&monotonic);
        pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
        pthread_cond_init(&libvirt->wanted, &monotonic);
        pthread_condattr_destroy(&monotonic);
        queue_init(&libvirt->notes);
        queue_init(&libvirt->held);
        libvirt->waiting_end = &libvirt->waiting;
        return libvirt;
}

void libvirt_unref(struct libvirt *libvirt) {
        if (atomic_fetch_sub(&libvirt->n_refs, 1) > 1)
                return;
        queue_clear(&libvirt->notes);
        queue_clear(&libvirt->held);
        pthread_cond_destroy(&libvirt->wanted);
        pthread_mutex_destroy(&libvirt->mutex);
        free(libvirt->uri);
        free(libvirt);
}

static void on_handle_closed(uv_handle_t *handle) {
        struct libvirt *libvirt = handle->data;

        if (--libvirt->n_handles > 0)
                return;
        if (libvirt->closed)
                libvirt->closed(libvirt->userdata);
        libvirt_unref(libvirt);
}

static void close_handles(struct libvirt *libvirt) {
        uv_close((uv_handle_t *)&libvirt->async, on_handle_closed);
        uv_close((uv_handle_t *)&libvirt->patience, on_handle_closed);
}

/* The handles come last but for the thread. If that fails, they free the rest. */
int libvirt_new(uv_loop_t *loop, const struct libvirt_options *options, const struct libvirt_listener *ops, void *userdata,
                struct libvirt **ret) {
        const struct libvirt_library *library = libvirt_library(NULL);
        struct libvirt *libvirt;
        int r;

        if (!library)
                return -ENOPKG;
        r = libvirt_loop_ref();
        if (r < 0)
                return r;
        libvirt = allocate(options, library);
        r = libvirt ? uv_async_init(loop, &libvirt->async, on_async) : -ENOMEM;
        if (r < 0) {
                if (libvirt)
                        libvirt_unref(libvirt);
                libvirt_loop_unref();
                return r;
        }
        uv_timer_init(loop, &libvirt->patience);
        libvirt->n_handles = 2;
        libvirt->async.data = libvirt->patience.data = libvirt;
        libvirt_ref(libvirt);
        r = guest_thread_start(&libvirt->thread, "libvirt", libvirt_worker_main, libvirt);
        if (r < 0) {
                libvirt_unref(libvirt);
                close_handles(libvirt);
                libvirt_loop_unref();
                return r;
        }
        libvirt->ops = ops;
        libvirt->userdata = userdata;
        *ret = libvirt;
        return 0;
}

/* ---- end ---- */

/* Nobody tells of anything any more. What the thread has in its hands stays its own: the loop only takes over its end. */
static void cut_off(struct libvirt *libvirt, libvirt_done_fn *ret_done, void **ret_userdata) {
        struct request *running;

        pthread_mutex_lock(&libvirt->mutex);
        libvirt->told_no_more = true;
        libvirt_worker_drop_locked(libvirt);
        running = libvirt->running;
        if (running && running->kind != REQUEST_TELL_METADATA) {
                *ret_done = running->done;
                *ret_userdata = running->userdata;
                request_unlink(libvirt, running);
        }
        pthread_mutex_unlock(&libvirt->mutex);
}

static void finish(struct libvirt *libvirt, bool thread_ended) {
        const char *why = "the connection to libvirt is being closed";
        libvirt_done_fn running_done = NULL;
        void *running_userdata = NULL;
        struct request *request;

        if (thread_ended)
                pthread_join(libvirt->thread, NULL);
        else
                pthread_detach(libvirt->thread);
        cut_off(libvirt, &running_done, &running_userdata);
        tell_notes(libvirt, UINT_MAX);
        if (running_done)
                running_done(running_userdata, -ECANCELED, why);
        while ((request = libvirt->outstanding)) {
                request_end(libvirt, request, -ECANCELED, why);
                libvirt_note_free(&request->note);
        }
        close_handles(libvirt);
}

static void on_impatience(uv_timer_t *timer) {
        struct libvirt *libvirt = timer->data;

        finish(libvirt, tell_notes(libvirt, UINT_MAX));
}

void libvirt_close(struct libvirt *libvirt, void (*closed)(void *userdata)) {
        if (!libvirt)
                return;
        libvirt->closing = true;
        libvirt->closed = closed;
        uv_timer_start(&libvirt->patience, on_impatience, libvirt->options.close_patience_ms, 0);
        pthread_mutex_lock(&libvirt->mutex);
        libvirt->ending = true;
        pthread_cond_signal(&libvirt->wanted);
        pthread_mutex_unlock(&libvirt->mutex);
        /* In case that its end was told of, and that passed by. */
        uv_async_send(&libvirt->async);
}
