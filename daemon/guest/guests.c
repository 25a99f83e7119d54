#include "daemon/guest/guest.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utlist.h>

#include "daemon/guest/place.h"
#include "daemon/log.h"

/* ---- who there is ---- */

/* Those of the configuration come first. */
struct guest *guest_find_uuid(const struct guests *guests, const char *uuid) {
        struct guest *guest;

        DL_FOREACH(guests->all, guest)
                if (strcasecmp(guest->uuid, uuid) == 0)
                        return guest;
        return NULL;
}

static struct guest *find(const struct guests *guests, const char *name, struct failure *failure) {
        struct guest *guest;

        /* One that is not in the configuration any more is called by its UUID, which may be another hypervisor's guest now. */
        DL_FOREACH(guests->all, guest)
                if (guest->via != GUEST_BY_NOBODY && strcmp(guest->name, name) == 0)
                        return guest;
        guest = guest_find_uuid(guests, name);
        if (!guest) {
                failure_set(failure, REASON_unknown_guest, "There is no guest %s in the configuration: add a section [guest %s] "
                            "with its uuid", name, name);
                failure_add_text(failure, "guest", name);
        }
        return guest;
}

const char *guest_why_unknown(const struct guest *guest) {
        if (guest->state != GUEST_UNKNOWN)
                return "";
        if (guest->via == GUEST_BY_NOBODY)
                return "it is not in the configuration any more, but a process has its memory";
        if (guest->via == GUEST_BY_XEN)
                return guest->guests->xen_why;
        if (guest->via == GUEST_BY_QMP)
                return guest->qmp ? qmp_why_away(guest->qmp) : "";
        return guest->is_missed ? "libvirt does not know this guest, but a process has its memory" : guest->guests->libvirt_why;
}

/* Its clock begins anew with the machine. */
static uint64_t age_of(const struct window *window) {
        const uint64_t now = uv_now(window->guest->guests->loop);

        return window->granted_ms && window->granted_ms < now ? now - window->granted_ms : 0;
}

void guest_look(const struct guest *guest, struct guest_view *ret) {
        const struct window *window;

        *ret = (struct guest_view){
                .name = guest->name, .uuid = guest->uuid, .owner = guest->owner,
                .via = guest->via,
                .channel = guest->channel ? channel_path(guest->channel) : "",
                .state = guest->state,
                .why = guest_why_unknown(guest),
        };
        DL_FOREACH(guest->windows, window) {
                ret->n_windows++;
                ret->window_bytes += window->size;
        }
}

void guest_tell(const struct guest *guest, enum guest_change change) {
        struct guest_view view;

        if (guest->guests->closing)
                return;
        guest_look(guest, &view);
        guest->guests->listener->changed(guest->guests->userdata, &view, change);
}

size_t guests_count(const struct guests *guests) {
        return guests->n;
}

int guests_visit(const struct guests *guests, guest_visit_fn visit, void *userdata) {
        const struct guest *guest;
        struct guest_view view;
        int r = 0;

        DL_FOREACH(guests->all, guest) {
                guest_look(guest, &view);
                r = visit(&view, userdata);
                if (r)
                        break;
        }
        return r;
}

int guests_get(const struct guests *guests, const char *name, struct guest_view *ret, struct failure *failure) {
        const struct guest *guest = find(guests, name, failure);

        if (!guest)
                return -reason_errno(REASON_unknown_guest);
        guest_look(guest, ret);
        return 0;
}

int guests_get_owner(const struct guests *guests, const char *owner, struct guest_view *ret) {
        const struct guest *guest;

        DL_FOREACH(guests->all, guest)
                if (strcmp(guest->owner, owner) == 0) {
                        guest_look(guest, ret);
                        return 0;
                }
        return -ENOENT;
}

static void window_look(const struct window *window, struct guest_window_view *ret) {
        *ret = (struct guest_window_view){
                .guest = window->guest->name, .owner = window->guest->owner, .window = window->region, .size = window->size,
                .cookie = window->cookie, .state = window->state, .is_bound = window->is_bound, .guest_addr = window->guest_addr,
                .is_xen = window->guest->is_xen, .domain = window->domain ? window->domain : window->guest->run,
                .age_ms = age_of(window),
        };
}

int guests_visit_windows(const struct guests *guests, const char *owner, bool with_left, guest_window_visit_fn visit,
                         void *userdata) {
        const struct window *window;
        const struct guest *guest;
        struct guest_window_view view;
        int r;

        DL_FOREACH(guests->all, guest) {
                if (owner && strcmp(owner, guest->owner) != 0)
                        continue;
                DL_FOREACH(guest->windows, window) {
                        if (!window->region || (window->is_left && !with_left))
                                continue;
                        window_look(window, &view);
                        r = visit(&view, userdata);
                        if (r)
                                return r;
                }
        }
        return 0;
}

bool guests_look_grants(const struct guests *guests, uint64_t handle, struct guest_grants_view *ret) {
        const struct window *window;
        const struct guest *guest;

        DL_FOREACH(guests->all, guest)
                DL_FOREACH(guest->windows, window)
                        if (window->region == handle && window->is_placed && guest->way->count_mapped) {
                                *ret = (struct guest_grants_view){ .runs = window->grants, .n = window->n_grants,
                                                                   .mapped = guest->way->count_mapped(window) };
                                return true;
                        }
        return false;
}

bool guests_owns_session(const char *note) {
        return note && strncmp(note, "guest ", 6) == 0;
}

int guests_evict(struct guests *guests, const char *name, struct failure *failure) {
        struct guest *guest = find(guests, name, failure);

        if (!guest)
                return -reason_errno(REASON_unknown_guest);
        guest_release(guest);
        return 0;
}

struct guest *guests_find(const struct guests *guests, const char *name, struct failure *failure) {
        return find(guests, name, failure);
}

/* ---- beginning ---- */

static char *copy_or_null(const char *text, bool *failed) {
        char *copy = text ? strdup(text) : NULL;

        *failed |= text && !copy;
        return copy;
}

static struct window *window_after(const struct guest *guest, unsigned number) {
        struct window *window, *first = NULL;

        DL_FOREACH(guest->windows, window)
                if (window->number > number && (!first || window->number < first->number))
                        first = window;
        return first;
}

/* Each may take others along when it ends, whose turn has come or not. */
void guest_visit_windows(struct guest *guest, void (*visit)(struct window *window)) {
        struct window *window;

        for (unsigned last = 0; (window = window_after(guest, last));) {
                last = window->number;
                visit(window);
        }
}

static struct guest *guest_free(struct guest *guest) {
        free(guest->qmp_path);
        free(guest->ports);
        free(guest->words);
        free(guest);
        return NULL;
}

/* Of one that is not in the configuration nothing else is left to follow. */
static void forget_if_over(struct guest *guest) {
        if (guest->via != GUEST_BY_NOBODY || guest->windows)
                return;
        guest->alive = alive_forget(guest->alive);
        session_close(guest->caller.session);
        DL_DELETE(guest->guests->all, guest);
        guest_free(guest);
}

static void on_work(uv_timer_t *timer) {
        struct guests *guests = timer->data;
        struct guest *guest, *next;

        /* Nobody gets memory of which the ledger does not know yet whose it is. */
        if (broker_commit(guests->broker) < 0) {
                guests_wake(guests, 100);
                return;
        }
        guests_end_shares(guests);
        DL_FOREACH_SAFE(guests->all, guest, next) {
                guest_watch(guest);
                guest_give_up_missed(guest);
                guest_look_for_another(guest);
                if (guest->wants_own && guest_is_reachable(guest, NULL))
                        guest_attach_own(guest);
                guest_visit_windows(guest, window_work);
                forget_if_over(guest);
        }
}

void guests_wake(struct guests *guests, uint64_t ms) {
        uv_timer_t *timer = &guests->work;

        if (guests->closing || (uv_is_active((uv_handle_t *)timer) && uv_timer_get_due_in(timer) <= ms))
                return;
        uv_timer_start(timer, on_work, ms, 0);
}

int guests_new(uv_loop_t *loop, struct broker *broker, const struct guests_settings *settings, struct guests **ret) {
        struct guests *guests = calloc(1, sizeof(*guests));
        bool failed = false;

        if (!guests)
                return -ENOMEM;
        guests->loop = loop;
        guests->broker = broker;
        guests->settings = *settings;
        if (!settings->machines)
                guests->settings.machines = &machine_systemd_ops;
        guests->settings.directory = copy_or_null(settings->directory, &failed);
        guests->settings.libvirt_uri = copy_or_null(settings->libvirt_uri, &failed);
        if (failed) {
                guests_free(guests);
                return -ENOMEM;
        }
        *ret = guests;
        return 0;
}

static bool is_uuid(const char *text) {
        size_t i;

        for (i = 0; text[i]; i++)
                if (i == 8 || i == 13 || i == 18 || i == 23 ? text[i] != '-' : !strchr("0123456789abcdefABCDEF", text[i]))
                        return false;
        return i == GUEST_UUID_LENGTH;
}

static struct guest *guest_new(struct guests *guests, const char *name, const char *uuid, bool is_xen) {
        struct guest *guest = calloc(1, sizeof(*guest));

        if (!guest)
                return NULL;
        guest->guests = guests;
        strcpy(guest->name, name);
        for (size_t i = 0; uuid[i]; i++)
                guest->uuid[i] = uuid[i] >= 'A' && uuid[i] <= 'F' ? (char)(uuid[i] + 32) : uuid[i];
        snprintf(guest->owner, sizeof(guest->owner), "%s:%s", is_xen ? "xen" : "kvm", guest->uuid);
        guest->is_xen = is_xen;
        guest->way = is_xen ? &window_xen_way : &window_libvirt_way;
        DL_APPEND(guests->all, guest);
        return guest;
}

struct guest *guests_remember(struct guests *guests, const char *uuid, bool is_xen) {
        struct guest *guest = guest_new(guests, uuid, uuid, is_xen);

        if (guest)
                guest->via = GUEST_BY_NOBODY;
        return guest;
}

int guests_define(struct guests *guests, const struct guest_definition *definition) {
        struct guest *guest;
        bool failed = false;

        if (!definition->uuid || !is_uuid(definition->uuid) || !*definition->name || strlen(definition->name) > GUEST_NAME_MAX)
                return -EINVAL;
        if (find(guests, definition->name, NULL) || guest_find_uuid(guests, definition->uuid))
                return -EEXIST;
        guest = guest_new(guests, definition->name, definition->uuid, definition->is_xen);
        if (!guest)
                return -ENOMEM;
        guest->via = definition->is_xen ? GUEST_BY_XEN : definition->qmp ? GUEST_BY_QMP : GUEST_BY_LIBVIRT;
        if (guest->via == GUEST_BY_QMP)
                guest->way = &window_qmp_way;
        guest->qmp_path = copy_or_null(definition->qmp, &failed);
        guest->ports = copy_or_null(definition->ports, &failed);
        guest->window_bytes = guest->own_bytes = definition->window_bytes;
        guest->has_quota = definition->has_quota;
        guests->n++;
        return failed ? -ENOMEM : 0;
}

static int open_channel(struct guest *guest, struct failure *failure) {
        const struct guests_settings *settings = &guest->guests->settings;
        const struct channel_options options = {
                .is_open = settings->has_user, .connected = guest_knock, .userdata = guest,
        };
        char path[512];

        if (snprintf(path, sizeof(path), "%s/%s.channel", settings->directory, guest->uuid) >= (int)sizeof(path))
                return failure_set(failure, REASON_bad_param, "the directory in [guests] has too long a name");
        return channel_new(guest->guests->loop, path, &options, &guest->channel, failure);
}

/* Where daemons that were killed served windows; nobody answers there any more. Once the channel is ours, so is all else. */
static void remove_old_sockets(const struct guest *guest) {
        const char *directory = guest->guests->settings.directory;
        size_t length = strlen(guest->uuid);
        DIR *dir = opendir(directory);
        const struct dirent *entry;

        while (dir && (entry = readdir(dir)))
                if (strncmp(entry->d_name, guest->uuid, length) == 0 && entry->d_name[length] == '.' &&
                    entry->d_name[length + 1] && !entry->d_name[length + 1 + strspn(entry->d_name + length + 1, "0123456789")])
                        unlinkat(dirfd(dir), entry->d_name, 0);
        if (dir)
                closedir(dir);
}

/* QEMU, which may be another user's, must come to its sockets. What cannot be made is told when the first socket is. */
static void open_directory(const struct guests *guests) {
        if (mkdir(guests->settings.directory, 0711) == 0)
                chmod(guests->settings.directory, 0711);
}

static void begin_libvirt(struct guests *guests) {
        /* libvirt's own choice would be the session of a service's user, which has no guests. */
        const struct libvirt_options options = {
                .uri = guests->settings.libvirt_uri ? guests->settings.libvirt_uri : "qemu:///system",
        };
        const char *why = libvirt_unavailable(), *no_machines = machine_unavailable();
        int r;

        if (no_machines)
                log_warning("what comes through a guest's channel may be of another guest's QEMU: %s", no_machines);
        if (!why) {
                r = libvirt_new(guests->loop, &options, &guest_libvirt_listener, guests, &guests->libvirt);
                why = r < 0 ? strerror(-r) : NULL;
        }
        if (!why)
                return;
        snprintf(guests->libvirt_why, sizeof(guests->libvirt_why), "%s", why);
        log_warning("guests cannot be followed through libvirt: %s", why);
}

static void begin_xen(struct guests *guests) {
        const struct xen_options options = { 0 };
        const char *why = xen_unavailable();
        int r;

        if (!why) {
                r = xen_tracker_new(guests->loop, &options, &guest_xen_listener, guests, &guests->xen);
                why = r < 0 ? strerror(-r) : NULL;
        }
        if (!why)
                return;
        snprintf(guests->xen_why, sizeof(guests->xen_why), "%s", why);
        log_warning("guests of Xen's cannot be followed: %s", why);
}

static int begin_guest(struct guest *guest, struct failure *failure) {
        int r = 0;

        /* Its QEMU keeps the windows that it has, and cannot be heard. */
        if (guest->via == GUEST_BY_NOBODY) {
                /* A guest of Xen's keeps what it has mapped, and maps no more. */
                if (guest->is_xen)
                        guest_end(guest);
                else
                        guest_forsake(guest);
                return 0;
        }
        if (!guest->caller.session)
                r = guest_open_session(guest, failure);
        if (r == 0 && !guest->is_xen)
                r = open_channel(guest, failure);
        if (r == 0 && !guest->is_xen)
                remove_old_sockets(guest);
        if (r == 0 && guest->via == GUEST_BY_QMP)
                r = guest_begin_qmp(guest);
        if (r < 0 && failure && !failure->error)
                failure_set_errno(failure, REASON_no_memory, -r, "the guest %s cannot be served: %s", guest->name, strerror(-r));
        return r;
}

int guests_begin(struct guests *guests, const struct guests_listener *listener, void *userdata, struct failure *failure) {
        bool wants_libvirt = false, wants_xen = false;
        struct guest *guest;
        int r;

        if (guests_restore_grants(guests) < 0)
                return failure_set(failure, REASON_no_memory, "there is no memory to start");
        if (!guests->n && !guests_are_known(guests) && !guests->shares)
                return 0;
        guests->listener = listener;
        guests->userdata = userdata;
        guests->begun = true;
        open_directory(guests);
        uv_timer_init(guests->loop, &guests->work);
        guests->work.data = guests;
        r = guests_restore(guests, failure);
        DL_FOREACH(guests->all, guest) {
                if (r == 0)
                        r = begin_guest(guest, failure);
                wants_libvirt |= guest->via == GUEST_BY_LIBVIRT;
                wants_xen |= guest->via == GUEST_BY_XEN;
        }
        if (r < 0)
                return r;
        if (wants_libvirt)
                begin_libvirt(guests);
        if (wants_xen)
                begin_xen(guests);
        guests_wake(guests, 0);
        return 0;
}

/* ---- end ---- */

void guests_handle_closed(struct guests *guests) {
        if (--guests->n_handles == 0)
                guests->closed(guests->closed_userdata);
}

static void on_guest_part_closed(void *userdata) {
        const struct guest *guest = userdata;

        guests_handle_closed(guest->guests);
}

static void on_hypervisor_closed(void *userdata) {
        guests_handle_closed(userdata);
}

static void on_work_closed(uv_handle_t *handle) {
        guests_handle_closed(handle->data);
}

/* Also what QEMU has. */
static void end_guest(struct guest *guest) {
        guest_release(guest);
        guest_visit_windows(guest, window_end);
        guest_end(guest);
}

static void close_guest(struct guest *guest) {
        struct guests *guests = guest->guests;

        if (!guests->leave && guest->caller.session)
                end_guest(guest);
        while (guest->windows)
                window_close(guest->windows);
        guest->alive = alive_forget(guest->alive);
        guest_forget_held(guest);
        guest_end_vchan(guest);
        guest_leave_exchange(guest);
        if (guest->channel) {
                guests->n_handles++;
                channel_close(guest->channel, on_guest_part_closed);
                guest->channel = NULL;
        }
        if (guest->qmp) {
                guests->n_handles++;
                qmp_close(guest->qmp, on_guest_part_closed);
                guest->qmp = NULL;
        }
}

void guests_close(struct guests *guests, bool leave, void (*closed)(void *userdata), void *userdata) {
        struct guest *guest;

        guests->closed = closed;
        guests->closed_userdata = userdata;
        guests->leave = leave;
        guests_close_grants(guests, leave);
        guests->n_handles++; /* until this returns */
        if (guests->begun) {
                guests->n_handles++;
                DL_FOREACH(guests->all, guest)
                        close_guest(guest);
                guests->closing = true;
                if (guests->libvirt) {
                        guests->n_handles++;
                        libvirt_close(guests->libvirt, on_hypervisor_closed);
                        guests->libvirt = NULL;
                }
                if (guests->xen) {
                        guests->n_handles++;
                        xen_tracker_close(guests->xen, on_hypervisor_closed);
                        guests->xen = NULL;
                }
                uv_close((uv_handle_t *)&guests->work, on_work_closed);
        }
        guests_handle_closed(guests);
}

struct guests *guests_free(struct guests *guests) {
        struct guest *guest, *next;

        if (!guests)
                return NULL;
        guests_free_grants(guests);
        DL_FOREACH_SAFE(guests->all, guest, next)
                guest_free(guest);
        free((char *)guests->settings.directory);
        free((char *)guests->settings.libvirt_uri);
        free(guests);
        return NULL;
}
