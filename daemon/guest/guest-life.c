/* What becomes of guests: they start, boot anew and end, as QEMU or libvirt tells. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "daemon/guest/guest.h"
#include "daemon/log.h"

enum { WATCH_AGAIN_MS = 1000, LOOK_AGAIN_MS = 1000, ROUNDS_MAX = 16 };

/* ---- what a guest has ---- */

int guest_open_session(struct guest *guest, struct failure *failure) {
        const struct device_options options = { .name = "windows", .node = -1, .commons = true };
        int r;

        r = session_open_own(guest->guests->broker, guest->owner, &guest->caller.session, failure);
        if (r == 0)
                r = device_open(&guest->caller, &options, &guest->commons, failure);
        if (r == 0)
                r = guest_save(guest);
        return r;
}

struct devices {
        const struct guest *guest;
        uint64_t handle; /* one that is not the commons, or 0 */
};

static int find_other(const struct device_view *view, void *userdata) {
        struct devices *devices = userdata;

        if (view->handle == devices->guest->commons)
                return 0;
        devices->handle = view->handle;
        return 1;
}

void guest_release(struct guest *guest) {
        struct failure failure = { 0 };
        struct devices devices;

        if (!guest->caller.session)
                return; /* the daemon could not begin, and is about to end */
        guest->guests->listener->ended(guest->guests->userdata, guest->owner);
        /* What outlives its session does not outlive its guest. */
        for (;;) {
                devices = (struct devices){ .guest = guest };
                if (device_visit(&guest->caller, guest->owner, find_other, &devices, NULL) < 0 || !devices.handle)
                        return;
                if (device_close(&guest->caller, devices.handle, true, NULL, NULL, &failure) < 0) {
                        log_error("the guest %s keeps a device: %s", guest->name, failure.sentence);
                        return;
                }
        }
}

struct tenant {
        uint64_t region;
        struct alloc_view view; /* its handle is 0: there is none */
};

static int find_tenant(const struct alloc_view *view, void *userdata) {
        struct tenant *tenant = userdata;

        if (view->region != tenant->region)
                return 0;
        tenant->view = *view;
        return 1;
}

/* What outlives its session. What cannot be freed by itself goes with its device. */
static void free_tenants(const struct guest *guest, uint64_t region) {
        const struct caller judge = { .session = guest->caller.session, .admin = true };
        struct failure failure = { 0 };
        struct tenant tenant;

        for (uint64_t after = 0;; after = tenant.view.handle) {
                tenant = (struct tenant){ .region = region };
                coherent_visit(&judge, 0, guest->owner, after, find_tenant, &tenant, NULL);
                if (!tenant.view.handle)
                        return;
                if (coherent_free(&judge, tenant.view.handle, NULL) < 0 &&
                    device_close(&judge, tenant.view.device, true, NULL, NULL, &failure) < 0)
                        log_error("the guest %s keeps a device: %s", guest->name, failure.sentence);
        }
}

static bool is_empty(const struct guest *guest, uint64_t region) {
        struct region_view view;

        return region_get(&guest->caller, region, &view, NULL) < 0 || !view.allocs;
}

/* Where some leave, others who wait for memory may move in: they leave then. */
void guest_empty(struct guest *guest, uint64_t region) {
        const struct guests *guests = guest->guests;
        size_t n = 0;

        for (int i = 0; i < ROUNDS_MAX; i++) {
                if (region_find_users(&guest->caller, region, &n, NULL) < 0)
                        break;
                guests->listener->lost(guests->userdata);
                free_tenants(guest, region);
                if (!n || is_empty(guest, region))
                        return;
        }
        guest_release(guest);
}

static struct window *find_current(const struct guest *guest) {
        struct window *window;

        DL_FOREACH(guest->windows, window)
                if (!window->is_left)
                        return window;
        return NULL;
}

void guest_end(struct guest *guest) {
        struct window *window = find_current(guest);
        bool had = window;

        /* First, so that nothing is heard any more that it has said. */
        guest_hang_up(guest);
        guest_release(guest);
        /* Whoever waits for the memory of one may be another. */
        for (; window; window = find_current(guest)) {
                window_take_back(window);
                if (window_is_connected(window))
                        window_leave(window);
                else
                        window_end(window);
        }
        guest_end_vchan(guest);
        guest->alive = alive_forget(guest->alive);
        guest->pid = 0;
        guest->run = 0;
        guest->is_missed = guest->was_missed = false;
        guest->has_begun = guest->wants_own = false;
        guest->had_own = 0;
        guest->own_at_ms = 0;
        guest->n_own_failed = 0;
        guest->n_told = 0;
        guest->own_bytes = guest->window_bytes; /* the metadata is read again when it starts */
        if (had && !guest->windows)
                log_info("the guest %s has ended: what it had is the host's again", guest->name);
        else if (had && guest->is_xen)
                log_info("the guest %s has ended: the windows that it has mapped still stay until it has not", guest->name);
        else if (had)
                log_warning("the guest %s has ended, but windows of it are in use still: they go back when they are not",
                            guest->name);
        guest_save(guest);
        /* Nothing of it is left to follow. */
        if (guest->via == GUEST_BY_NOBODY)
                guests_wake(guest->guests, 0);
}

void guest_forsake(struct guest *guest) {
        guest_release(guest);
        guest_visit_windows(guest, window_forsake);
        guest_save(guest);
}

void guest_set_state(struct guest *guest, enum guest_state state) {
        enum guest_state before = guest->state;
        bool runs = state == GUEST_RUNNING || state == GUEST_PAUSED;

        guest->state = state;
        /* Not when only nobody could be asked about it for a while. */
        if (runs && !guest->has_begun) {
                guest->has_begun = true;
                guest->wants_own = guest->own_bytes;
                guest_tell(guest, GUEST_STARTED);
        }
        if (runs)
                guests_wake(guest->guests, 0);
        else if (state == GUEST_OFF && before != GUEST_OFF) {
                guest_end(guest);
                guest_tell(guest, GUEST_STOPPED);
        }
}

static void reboot(struct guest *guest) {
        struct window *window;

        log_info("the guest %s boots anew: what it had is freed, but for its windows", guest->name);
        guest_release(guest);
        DL_FOREACH(guest->windows, window)
                if (!window->is_left)
                        window_reset(window);
        guest_save(guest);
        guest_tell(guest, GUEST_REBOOTED);
}

void guest_verify(struct guest *guest) {
        struct window *window, *next;

        DL_FOREACH_SAFE(guest->windows, window, next)
                window_verify(window);
}

void guest_lose_sight(struct guest *guest) {
        struct window *window;

        guest->state = GUEST_UNKNOWN;
        DL_FOREACH(guest->windows, window)
                window_doubt(window);
}

bool guest_is_reachable(const struct guest *guest, struct failure *failure) {
        const char *why = guest->state == GUEST_OFF ? "it does not run" : guest_why_unknown(guest);

        if (guest->state == GUEST_RUNNING || guest->state == GUEST_PAUSED)
                return true;
        failure_set(failure, REASON_source_unavailable, "The guest %s cannot be reached: %s", guest->name,
                    *why ? why : "it is not known yet whether it runs");
        failure_add_text(failure, "guest", guest->name);
        return false;
}

/* ---- QEMU's process ---- */

static void on_process_ended(void *userdata) {
        struct guest *guest = userdata;

        guest->alive = alive_forget(guest->alive);
        guest_set_state(guest, GUEST_OFF);
        /* Also where nobody had said that it ran. */
        if (guest->pid)
                guest_end(guest);
        /* Another one may have been waiting for that, or runs already. libvirt tells of the end of this one, if of none other. */
        if (guest->qmp)
                qmp_hurry(guest->qmp);
        if (guest->via != GUEST_BY_LIBVIRT)
                return;
        guest->look_at_ms = uv_now(guest->guests->loop) + LOOK_AGAIN_MS;
        guests_wake(guest->guests, LOOK_AGAIN_MS);
}

void guest_look_for_another(struct guest *guest) {
        struct guests *guests = guest->guests;
        uint64_t now = uv_now(guests->loop);

        if (!guest->look_at_ms)
                return;
        if (now < guest->look_at_ms) {
                guests_wake(guests, guest->look_at_ms - now);
                return;
        }
        guest->look_at_ms = 0;
        /* When it is connected anew, it lists them anyway. */
        if (!guests->libvirt_connected || guest->state != GUEST_OFF || libvirt_list(guests->libvirt, NULL, NULL) != -EAGAIN)
                return;
        guest->look_at_ms = now + LOOK_AGAIN_MS;
        guests_wake(guests, LOOK_AGAIN_MS);
}

void guest_watch(struct guest *guest) {
        if (!guest->pid || guest->alive)
                return;
        guest->alive = alive_watch(guest->guests->loop, guest->pid, guest->pid_since, on_process_ended, guest);
        if (guest->alive && !guest->pid_since) {
                /* It could not be read then; without it the next daemon would take whoever has the number for this one. */
                guest->pid_since = alive_since(guest->pid);
                guest_save(guest);
        }
        if (guest->alive)
                return;
        if (alive_is_over(guest->pid, guest->pid_since))
                on_process_ended(guest);
        else
                guests_wake(guest->guests, WATCH_AGAIN_MS);
}

void guest_take_process(struct guest *guest, pid_t pid, uint64_t since) {
        if (guest->pid || !pid)
                return;
        guest->pid = pid;
        guest->pid_since = since;
        guest_save(guest);
        guest_watch(guest);
}

/* Our memory is mapped by another process, which may be about to end. */
static void refuse_process(struct guest *guest, pid_t pid) {
        char why[128];

        snprintf(why, sizeof(why), "process %ld has its monitor, but process %ld has its memory and has not ended", (long)pid,
                 (long)guest->pid);
        if (guest->refused_pid != pid)
                log_warning("the guest %s is not followed: %s", guest->name, why);
        guest->refused_pid = pid;
        qmp_refuse(guest->qmp, why);
}

/* The process that has our memory, or will have it; whatever another one had is not there any more. false: it has, and this
 * one is not talked to. */
static bool follow_process(struct guest *guest, pid_t pid) {
        uint64_t since = pid > 0 ? alive_since(pid) : 0;
        bool is_other = guest->pid && (guest->pid != pid || (since && guest->pid_since && guest->pid_since != since));

        if (is_other && !alive_is_over(guest->pid, guest->pid_since)) {
                refuse_process(guest, pid);
                return false;
        }
        guest->refused_pid = 0;
        if (is_other)
                guest_end(guest);
        if (pid <= 0 || guest->pid)
                return true;
        guest->pid = pid;
        guest->pid_since = since;
        guest_save(guest);
        guest->guests->listener->known(guest->guests->userdata, guest->owner, pid);
        guest_watch(guest);
        return true;
}

/* ---- its monitor ---- */

static void on_status(void *userdata, const struct qmp_answer *answer, const struct qmp_status *status);

static void ask_status(struct guest *guest) {
        int r = qmp_query_status(guest->qmp, on_status, guest);

        if (r < 0)
                log_warning("the guest %s cannot be asked whether it runs: %s", guest->name, strerror(-r));
}

static void on_status(void *userdata, const struct qmp_answer *answer, const struct qmp_status *status) {
        struct guest *guest = userdata;

        /* That the monitor is lost is seen to elsewhere. */
        if (guest->guests->closing || (answer->error && !qmp_is_ready(guest->qmp)))
                return;
        /* It was too busy to answer, and may be so no more. */
        if (answer->error == -ETIMEDOUT)
                ask_status(guest);
        else if (answer->error)
                log_warning("the guest %s does not say whether it runs: %s", guest->name, answer->sentence);
        else
                guest_set_state(guest, status->running ? GUEST_RUNNING : GUEST_PAUSED);
}

static void on_qmp_connected(void *userdata) {
        struct guest *guest = userdata;

        if (!follow_process(guest, qmp_pid(guest->qmp)))
                return;
        guest_verify(guest);
        /* What keeps ports and names is known before it is known to run, and gets what is its own. */
        guest_clear_leftovers(guest);
        ask_status(guest);
}

static void on_qmp_lost(void *userdata, const char *why) {
        struct guest *guest = userdata;

        /* It may be that only its monitor is away: whether it has ended is told by the process. */
        if (guest->state != GUEST_OFF)
                guest_lose_sight(guest);
}

static void on_qmp_event(void *userdata, const struct qmp_event *event) {
        struct guest *guest = userdata;

        switch (event->kind) {
        case QMP_EVENT_SHUTDOWN:
                guest_release(guest);
                break;
        case QMP_EVENT_RESET:
                reboot(guest);
                break;
        case QMP_EVENT_STOP:
        case QMP_EVENT_RESUME:
                /* Until then it is asked whether it runs as well. */
                if (!guest->is_asked)
                        guest_set_state(guest, event->kind == QMP_EVENT_STOP ? GUEST_PAUSED : GUEST_RUNNING);
                break;
        case QMP_EVENT_DEVICE_DELETED:
                if (event->device)
                        window_removed(guest, event->device);
                break;
        case QMP_EVENT_UNPLUG_REFUSED:
                if (event->device)
                        window_kept(guest, event->device);
                break;
        case QMP_EVENT_GUEST_PANICKED:
                break;
        }
}

static const struct qmp_listener qmp_listener = {
        .connected = on_qmp_connected,
        .lost = on_qmp_lost,
        .event = on_qmp_event,
};

int guest_begin_qmp(struct guest *guest) {
        /* What an earlier daemon knew of may have ended meanwhile. */
        guest_watch(guest);
        return qmp_new(guest->guests->loop, guest->qmp_path, NULL, &qmp_listener, guest, &guest->qmp);
}

/* ---- libvirt ---- */

static struct guest *ours(void *userdata, const char *uuid) {
        struct guest *guest = guest_find_uuid(userdata, uuid);

        return guest && guest->via == GUEST_BY_LIBVIRT ? guest : NULL;
}

static void on_connected(void *userdata) {
        struct guests *guests = userdata;
        struct guest *guest;

        guests->libvirt_connected = true;
        *guests->libvirt_why = '\0';
        DL_FOREACH(guests->all, guest)
                guest->was_seen = false;
}

static void on_lost(void *userdata, const char *why) {
        struct guests *guests = userdata;
        struct guest *guest;

        guests->libvirt_connected = false;
        snprintf(guests->libvirt_why, sizeof(guests->libvirt_why), "%s", why);
        log_warning("guests cannot be followed through libvirt at present: %s", why);
        DL_FOREACH(guests->all, guest)
                if (guest->via == GUEST_BY_LIBVIRT) {
                        guest->is_missed = false; /* it is asked for anew */
                        guest_lose_sight(guest);
                }
}

static void on_metadata(void *userdata, int status, const char *text) {
        struct guest *guest = userdata;

        if (!guest->guests->closing && status == 0)
                guest_take_metadata(guest, text);
}

static void on_metadata_changed(void *userdata, const char *uuid, const char *text) {
        struct guest *guest = ours(userdata, uuid);

        if (guest)
                guest_take_metadata(guest, text);
}

static bool is_connected(const struct guest *guest) {
        const struct window *window;

        DL_FOREACH(guest->windows, window)
                if (!window->is_left && window_is_connected(window))
                        return true;
        return false;
}

/* It may be in the hands of another libvirtd than the one that is asked now. */
static void miss(struct guest *guest) {
        guest->is_missed = is_connected(guest);
        if (!guest->is_missed) {
                guest_set_state(guest, GUEST_OFF);
                return;
        }
        guest->was_missed = true;
        guest_save(guest);
        log_warning("libvirt knows nothing of the guest %s, but a process has its memory: that stays until it has ended",
                    guest->name);
        guests_wake(guest->guests, LOOK_AGAIN_MS);
}

void guest_give_up_missed(struct guest *guest) {
        if (guest->is_missed && is_connected(guest))
                guests_wake(guest->guests, LOOK_AGAIN_MS);
        else if (guest->is_missed)
                guest_set_state(guest, GUEST_OFF);
}

/* The one that was known may have ended when nobody told of it; or lives, and this one was started all the same. The number says
 * nothing of that where libvirtd counts anew. */
static void follow_run(struct guest *guest, unsigned run, bool is_start) {
        bool is_other = (is_start && guest->is_missed) || (guest->pid && alive_is_over(guest->pid, guest->pid_since)) ||
                        (run && guest->run && guest->run != run);

        if (is_other)
                guest_set_state(guest, GUEST_OFF);
        if (!run || guest->run == run)
                return;
        guest->run = run;
        guest_save(guest);
}

static void see(struct guest *guest, const struct libvirt_guest *seen, bool is_start) {
        guest->was_seen = true;
        machine_clean(seen->name, guest->domain);
        follow_run(guest, seen->run, is_start);
        guest->is_missed = false;
        if (seen->metadata)
                guest_take_metadata(guest, seen->metadata);
        else
                libvirt_get_metadata(guest->guests->libvirt, guest->uuid, on_metadata, guest);
        guest_set_state(guest, seen->paused ? GUEST_PAUSED : GUEST_RUNNING);
        guest_look_who_is_there(guest);
        guest_verify(guest);
}

static void on_seen(void *userdata, const struct libvirt_guest *seen) {
        struct guest *guest = ours(userdata, seen->uuid);

        if (guest)
                see(guest, seen, false);
}

/* Who is not there has ended, perhaps while nobody was looking. */
static void on_listed(void *userdata) {
        struct guests *guests = userdata;
        struct guest *guest;

        DL_FOREACH(guests->all, guest)
                if (guest->via == GUEST_BY_LIBVIRT && !guest->was_seen)
                        miss(guest);
}

static void on_started(void *userdata, const struct libvirt_guest *started) {
        struct guest *guest = ours(userdata, started->uuid);

        if (guest)
                see(guest, started, true);
}

/* What libvirt tells of one that it does not know of is another one's, which it could not start. */
static struct guest *known(void *userdata, const char *uuid) {
        struct guest *guest = ours(userdata, uuid);

        return guest && !guest->is_missed ? guest : NULL;
}

static void on_stopped(void *userdata, const char *uuid, enum libvirt_stop reason) {
        struct guest *guest = known(userdata, uuid);

        if (!guest)
                return;
        guest->look_at_ms = 0;
        guest_set_state(guest, GUEST_OFF);
}

static void on_rebooted(void *userdata, const char *uuid) {
        struct guest *guest = known(userdata, uuid);

        if (guest)
                reboot(guest);
}

/* Before it is told that it has started, it is not known which run of it that is. */
static struct guest *known_to_run(void *userdata, const char *uuid) {
        struct guest *guest = known(userdata, uuid);

        return guest && guest->state != GUEST_OFF ? guest : NULL;
}

static void on_suspended(void *userdata, const char *uuid) {
        struct guest *guest = known_to_run(userdata, uuid);

        if (guest)
                guest_set_state(guest, GUEST_PAUSED);
}

static void on_resumed(void *userdata, const char *uuid) {
        struct guest *guest = known_to_run(userdata, uuid);

        if (guest)
                guest_set_state(guest, GUEST_RUNNING);
}

static void on_removed(void *userdata, const char *uuid, const char *alias) {
        struct guest *guest = ours(userdata, uuid);

        if (guest)
                window_removed(guest, alias);
}

static void on_kept(void *userdata, const char *uuid, const char *alias) {
        struct guest *guest = ours(userdata, uuid);

        if (guest)
                window_kept(guest, alias);
}

const struct libvirt_listener guest_libvirt_listener = {
        .connected = on_connected,
        .lost = on_lost,
        .guest_seen = on_seen,
        .listed = on_listed,
        .guest_started = on_started,
        .guest_stopped = on_stopped,
        .guest_rebooted = on_rebooted,
        .guest_suspended = on_suspended,
        .guest_resumed = on_resumed,
        .device_removed = on_removed,
        .device_kept = on_kept,
        .metadata_changed = on_metadata_changed,
};
