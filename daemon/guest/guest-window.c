/* Windows: reserved, given to QEMU, bound by the guest, and back. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <utlist.h>

#include "daemon/guest/guest-port.h"
#include "daemon/guest/guest-xml.h"
#include "daemon/guest/guest.h"
#include "daemon/guest/place.h"
#include "daemon/log.h"

#define GUEST_ADDR_MAX (UINT64_C(1) << 52)

/* With its number, a device over QMP. */
#define DEVICE_PREFIX "dmabroker-"

enum { ASK_AGAIN_MS = 1000, PAUSE_MAX_MS = 300000, NUMBER_MAX = 1000000000, LEFTOVERS_MAX = 16 };

/* ---- who waits ---- */

static void on_ask_cancelled(struct ticket *ticket) {
        ((struct guest_ask *)ticket)->done = NULL;
}

static struct guest_ask *ask_new(broker_done_fn done, void *userdata) {
        struct guest_ask *ask = calloc(1, sizeof(*ask));

        if (ask)
                *ask = (struct guest_ask){ .ticket.cancel = on_ask_cancelled, .done = done, .userdata = userdata };
        return ask;
}

/* failure: NULL is success. */
static void answer_with(struct window *window, const struct failure *failure, uint64_t handle) {
        struct guest_ask *ask = window->ask;

        window->ask = NULL;
        if (ask && ask->done)
                ask->done(ask->userdata, failure, handle);
        else if (failure)
                log_warning("a window of the guest %s: %s", window->guest->name, failure->sentence);
        free(ask);
}

static void answer(struct window *window, const struct failure *failure) {
        answer_with(window, failure, window->region);
}

static struct ticket *refuse(broker_done_fn done, void *userdata, const struct failure *failure) {
        done(userdata, failure, 0);
        return NULL;
}

/* ---- names ---- */

static void device_id(const struct window *window, char id[WINDOW_ID_SIZE]) {
        snprintf(id, WINDOW_ID_SIZE, "%s%u", window->guest->way->prefix, window->number);
}

static void socket_path(const struct window *window, char path[WINDOW_PATH_SIZE]) {
        snprintf(path, WINDOW_PATH_SIZE, "%s/%s.%u", window->guest->guests->settings.directory, window->guest->uuid,
                 window->number);
}

/* ---- the cookie ---- */

static int make_cookie(char cookie[COOKIE_TEXT]) {
        unsigned char bytes[COOKIE_BYTES];

        if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
                return -EIO;
        for (size_t i = 0; i < sizeof(bytes); i++)
                snprintf(cookie + 2 * i, 3, "%02x", bytes[i]);
        return 0;
}

/* Where it is to be looked for is in every window. Whether there is a file of it is for its source to know. */
static int write_cookie(const struct window *window) {
        char text[sizeof(WINDOW_MAGIC) - 1 + COOKIE_BYTES];

        memcpy(text, WINDOW_MAGIC, strlen(WINDOW_MAGIC));
        for (size_t i = 0; i < COOKIE_BYTES; i++) {
                unsigned byte = 0;

                sscanf(window->cookie + 2 * i, "%2x", &byte);
                text[strlen(WINDOW_MAGIC) + i] = (char)byte;
        }
        return region_write(&window->guest->caller, window->region, window->size - WINDOW_TAIL, text, sizeof(text), NULL);
}

/* ---- its end ---- */

static void free_if_over(struct window *window) {
        if (!window->ended || window->n_begun)
                return;
        free((char *)window->wanted.request_key);
        free(window->grants);
        free(window);
}

/* What was begun for it has ended. true: and so has the window. */
static bool is_over(struct window *window) {
        bool ended = window->ended;

        window->n_begun--;
        free_if_over(window);
        return ended;
}

void window_begun_over(struct window *window) {
        is_over(window);
}

static void on_server_closed(void *userdata) {
        is_over(userdata);
}

static void close_server(struct window *window, void (*closed)(void *userdata)) {
        if (!window->server)
                return;
        window->n_begun++;
        ivshmem_close(window->server, closed);
        window->server = NULL;
}

/* The guest gets nothing of it any more. */
static bool withdraw(const struct window *window) {
        const struct guest *guest = window->guest;
        struct failure failure = { 0 };

        if (device_withdraw(&guest->caller, guest->commons, window->region, &failure) == 0)
                return true;
        log_error("a window of the guest %s can be allocated from: %s", guest->name, failure.sentence);
        return false;
}

static void reinstate(const struct window *window) {
        const struct guest *guest = window->guest;
        struct failure failure = { 0 };

        if (device_reinstate(&guest->caller, guest->commons, window->region, &failure) < 0)
                log_error("a window of the guest %s cannot be allocated from: %s", guest->name, failure.sentence);
}

/* It stays in the guest, which has all of it as before. */
static void stay(struct window *window) {
        window->state = WINDOW_PLUGGED;
        window->is_to_leave = window->is_reset = false;
        guest_save(window->guest);
        reinstate(window);
}

/* It is withdrawn: nobody gets what a device may write still, before the whole window is zeroed. */
static void end_rest(const struct window *window) {
        const struct guest *guest = window->guest;
        const struct caller judge = { .session = guest->caller.session, .admin = true };
        struct failure failure = { 0 };

        if (quarantine_release_region(&judge, window->region, &failure) < 0)
                log_error("what rests in a window of the guest %s stays: %s", guest->name, failure.sentence);
}

/* Not even something that rests. */
static bool holds_nothing(const struct window *window) {
        struct region_view view;

        return !window->region || region_get(&window->guest->caller, window->region, &view, NULL) < 0 || !view.allocs;
}

/* Also by force; false: what was being zeroed or copied in it when its owner ended is so still. */
static bool is_vacant(const struct window *window) {
        if (holds_nothing(window))
                return true;
        /* Nobody moves in meanwhile. */
        withdraw(window);
        guest_empty(window->guest, window->region);
        end_rest(window);
        return holds_nothing(window);
}

static void give_back(struct window *window) {
        const struct guest *guest = window->guest;
        struct failure failure = { 0 };

        if (device_unreserve(&guest->caller, guest->commons, window->region, &failure) < 0)
                log_error("a window of the guest %s stays reserved: %s", guest->name, failure.sentence);
}

/* QEMU does not have it any more, but the daemon itself is at work in it: it goes back when that is done. */
static void wait_until_vacant(struct window *window) {
        struct failure gone = { 0 };

        failure_set(&gone, REASON_gone, "The guest %s has let go of its window, or has ended", window->guest->name);
        if (window->ask && window->state != WINDOW_LEAVING)
                answer(window, &gone);
        /* But for a daemon that ends for good, and takes it from a QEMU that has it. */
        if (!window->guest->guests->closed)
                window->pid = 0;
        window->state = WINDOW_LEAVING;
        window->is_left = true;
        window->is_unwanted = window->is_bound = false;
        window->leave_until_ms = 0;
        place_unbind(window->addr);
        close_server(window, on_server_closed);
        guest_save(window->guest);
        guests_wake(window->guest->guests, ASK_AGAIN_MS);
}

/* Before it is tried once more what was in vain so often: ever more rarely. */
static uint64_t pause_after(unsigned n) {
        uint64_t ms = (uint64_t)ASK_AGAIN_MS << (n < 10 ? n : 10);

        return ms < PAUSE_MAX_MS ? ms : PAUSE_MAX_MS;
}

/* It may have been what kept a port from the guest's own window. */
static void want_own_again(struct guest *guest) {
        guest->wants_own |= guest->has_begun && guest->own_bytes != guest->had_own;
        guests_wake(guest->guests, 0);
}

void window_take_back(struct window *window) {
        if (window->guest->way->take_back && window->is_placed)
                window->guest->way->take_back(window);
}

void window_end(struct window *window) {
        struct guest *guest = window->guest;
        bool vacant;

        if (window->ended)
                return;
        window->n_begun++;
        vacant = is_vacant(window);
        if (is_over(window))
                return;
        if (!vacant) {
                wait_until_vacant(window);
                return;
        }
        window->ended = true;
        if (window->ticket)
                ticket_cancel(window->ticket);
        window->ticket = NULL;
        close_server(window, on_server_closed);
        /* Before its memory goes back: whoever waits for that may want its port. */
        DL_DELETE(guest->windows, window);
        guest->n_windows--;
        if (window->region) {
                window_take_back(window);
                give_back(window);
        }
        if (window->is_placed)
                place_remove(window->addr);
        guest_save(guest);
        /* One that is left is of another run than that which may have no own one yet. */
        if (window->is_left || (!window->is_own && (window->is_told || window->is_unwanted)))
                want_own_again(guest);
        if (guest->wants_own)
                guests_wake(guest->guests, 0);
        if (window->is_told)
                guest_tell(guest, GUEST_DETACHED);
        if (window->ask) {
                struct failure gone = { 0 };

                failure_set(&gone, REASON_gone, "The guest %s has ended, and its window with it", guest->name);
                answer(window, window->state == WINDOW_LEAVING ? NULL : &gone);
        }
        free_if_over(window);
}

void window_leave(struct window *window) {
        struct failure gone = { 0 };

        window->state = WINDOW_LEAVING;
        window->n_looked = 0;
        window->is_left = window->in_doubt = true;
        window->is_unwanted = window->is_bound = false;
        window->leave_until_ms = 0;
        place_unbind(window->addr);
        if (withdraw(window))
                end_rest(window);
        guest_save(window->guest);
        failure_set(&gone, REASON_gone, "The guest %s has ended, and a process has its window", window->guest->name);
        if (window->ask)
                answer(window, &gone);
        guests_wake(window->guest->guests, 0);
}

void window_forsake(struct window *window) {
        if (!window_is_connected(window)) {
                window_end(window);
                return;
        }
        window->is_bound = false;
        place_unbind(window->addr);
        if (withdraw(window))
                end_rest(window);
        guests_wake(window->guest->guests, ASK_AGAIN_MS);
}

static void fail(struct window *window, const struct failure *failure) {
        answer(window, failure);
        window_end(window);
}

/* At once when that has failed for the first time. What fells libvirtd is not to do so for ever. */
static void want_own_later(struct guest *guest) {
        unsigned n = guest->n_own_failed++;

        guest->wants_own = true;
        guest->own_at_ms = n ? uv_now(guest->guests->loop) + pause_after(n - 1) : 0;
}

/* Its memory, and its server, stay until it is known what QEMU has done. What nobody has asked for nobody is told to have not. */
static void give_up(struct window *window, const struct failure *failure) {
        window->in_doubt = true;
        window->is_unwanted = !window->is_own;
        window->state = window->is_own ? WINDOW_PLUGGED : WINDOW_LEAVING;
        if (window->is_unwanted)
                withdraw(window);
        guest_save(window->guest);
        answer(window, failure);
        if (window->is_own)
                want_own_later(window->guest);
        guests_wake(window->guest->guests, 0);
}

/* ---- into the guest ---- */

static bool is_port_used(const struct guest *guest, const char *port, size_t length) {
        const struct window *window;

        DL_FOREACH(guest->windows, window)
                if (strlen(window->port) == length && memcmp(window->port, port, length) == 0)
                        return true;
        return false;
}

/* The first of the configuration's that has no window; "" if nothing is said of ports. -ENOSPC: each has one. */
static int choose_port(struct window *window) {
        const char *at = window->guest->ports;
        size_t length;

        for (; at && *at; at += length) {
                at += strspn(at, ", \t");
                length = strcspn(at, ", \t");
                if (length && length < sizeof(window->port) && !is_port_used(window->guest, at, length)) {
                        memcpy(window->port, at, length);
                        return 0;
                }
        }
        return window->guest->ports ? -ENOSPC : 0;
}

/* in_doubt: it may have been plugged in all the same; so it may where a process has it, whatever is said. */
void window_plugged(struct window *window, int error, bool in_doubt, const char *sentence) {
        struct failure failure = { 0 };
        struct guest *guest = window->guest;

        if (is_over(window) || guest->guests->closing || window->is_left)
                return;
        if (error) {
                failure_set(&failure, error == -ECONNRESET  ? REASON_gone
                                      : error == -ETIMEDOUT ? REASON_timeout
                                      : error == -E2BIG     ? REASON_limit
                                                            : REASON_source_unavailable,
                            "The guest %s does not get the window: %s", guest->name, sentence ? sentence : strerror(-error));
                failure_add_text(&failure, "guest", guest->name);
                if (in_doubt || window_is_connected(window))
                        give_up(window, &failure);
                else
                        fail(window, &failure);
                return;
        }
        if (window->state != WINDOW_PLUGGING)
                return;
        window->state = WINDOW_PLUGGED;
        window->is_told = true;
        window->is_unconfirmed = false;
        log_info("the guest %s has a window of %" PRIu64 " bytes", guest->name, window->size);
        guest_save(guest);
        answer(window, NULL);
        guest_tell(guest, GUEST_ATTACHED);
        /* It may have ended already, and all of this with it. */
        if (guest->way->finds_process && window_is_connected(window))
                guest_take_process(guest, window->pid, window->pid_since);
}

static void on_qmp_plugged(void *userdata, const struct qmp_answer *told) {
        window_plugged(userdata, told->error, !told->answered, told->sentence);
}

static void on_libvirt_plugged(void *userdata, int status, const char *text) {
        window_plugged(userdata, status, status == -ECONNRESET, text);
}

static int plug_by_qmp(struct window *window) {
        char id[WINDOW_ID_SIZE], path[WINDOW_PATH_SIZE];
        const struct qmp_window plugged = { .id = id, .socket = path, .bus = *window->port ? window->port : NULL };

        device_id(window, id);
        socket_path(window, path);
        return qmp_attach_window(window->guest->qmp, &plugged, on_qmp_plugged, window);
}

static int plug_into_domain(struct window *window, const struct guest_pci_address *address) {
        char path[WINDOW_PATH_SIZE], number[16], name[32], *xml;
        const struct guest_shmem shmem = { .name = name, .alias = number, .server_path = path, .address = address };
        int r;

        snprintf(number, sizeof(number), "%u", window->number);
        snprintf(name, sizeof(name), "dmabroker-%u", window->number);
        socket_path(window, path);
        r = guest_xml_shmem(&shmem, &xml);
        if (r < 0)
                return r;
        r = libvirt_attach(window->guest->guests->libvirt, window->guest->uuid, xml, false, on_libvirt_plugged, window);
        free(xml);
        return r;
}

/* NULL: as errno says. */
static const char *why_no_place(int error) {
        switch (error) {
        case -ENOSPC:
                return "no PCIe root port of it is free: add some to the domain (attach --dry-run shows how)";
        case -EFBIG:
                return "no free PCIe root port of it has room for so much: attach --dry-run shows how";
        case -EOPNOTSUPP:
                /* Its host bridge shows the device at once, and answers with addresses that KVM cannot map. */
                return "QEMU would end if one came to a machine of type pc while its firmware is at work: attach it when "
                       "the guest's system runs";
        default:
                return NULL;
        }
}

/* 0 or 1 as guest_port_choose() says; or -errno, and the window has been told. */
static int choose_in_domain(struct window *window, int status, const char *text, struct guest_pci_address *ret) {
        int r = status;

        if (window->ended || window->guest->guests->closing)
                r = -ECANCELED;
        if (r == 0)
                r = guest_port_choose(text, window->wanted.size, ret);
        if (r == 1 && window->is_own && guest_port_is_kvm(text))
                r = -EOPNOTSUPP;
        if (r < 0)
                window_plugged(window, r, false, status < 0 ? text : why_no_place(r));
        return r;
}

static void on_domain(void *userdata, int status, const char *text) {
        struct window *window = userdata;
        struct guest_pci_address address;
        int r = choose_in_domain(window, status, text, &address);

        if (r < 0)
                return;
        r = plug_into_domain(window, r == 0 ? &address : NULL);
        if (r < 0)
                window_plugged(window, r, false, NULL);
}

/* In which port there is room is told by the domain as it runs. */
static int ask_domain(struct window *window, libvirt_done_fn done) {
        const struct guest *guest = window->guest;

        return guest->guests->libvirt ? libvirt_get_xml(guest->guests->libvirt, guest->uuid, done, window) : -ENOTCONN;
}

static int plug_by_libvirt(struct window *window) {
        return ask_domain(window, on_domain);
}

static void plug(struct window *window) {
        int r;

        window->state = WINDOW_PLUGGING;
        window->n_begun++;
        r = window->guest->way->plug(window);
        if (r < 0)
                window_plugged(window, r, false, NULL);
}

/* ---- reserved ---- */

/* Once, to a QEMU that was asked to take it in: it is not cleared for the next one, and none connects anew. By libvirt's other
 * windows it may be known which process that is. */
static bool is_to_be_had_by(const struct window *window, pid_t pid) {
        const struct guest *guest = window->guest;

        if (window->is_left || window->was_given || (window->state != WINDOW_PLUGGING && !window->in_doubt))
                return false;
        return !guest->way->finds_process || !guest->pid || guest->pid == pid;
}

static void on_not_given(void *userdata) {
        struct window *window = userdata;

        window->pid = 0;
        guest_save(window->guest);
}

/* The ledger knows who has the memory before they have it. */
static bool admits(void *userdata, int fd, const struct ucred *who) {
        struct window *window = userdata;
        struct guest *guest = window->guest;

        if (!is_to_be_had_by(window, who->pid) || !guest_admits(guest, fd, who))
                return false;
        window->pid = who->pid;
        window->pid_since = alive_since(who->pid);
        if (guest_save(guest) == 0 && broker_commit(guest->guests->broker) == 0)
                return true;
        on_not_given(window);
        return false;
}

bool window_is_connected(const struct window *window) {
        if (window->guest->way->is_had)
                return window->is_placed && window->guest->way->is_had(window);
        if (window->server && !ivshmem_is_connected(window->server))
                return false;
        return window->pid ? !alive_is_over(window->pid, window->pid_since) : window->server != NULL;
}

/* It may be this that it stayed in doubt for, or its guest. */
static void on_connection(void *userdata, bool connected, const struct ucred *who) {
        struct window *window = userdata;

        window->was_given |= connected;
        if (connected)
                return;
        window->pid = 0;
        guest_save(window->guest);
        if (window->in_doubt || window->guest->is_missed)
                guests_wake(window->guest->guests, 0);
}

static int serve(struct window *window, struct failure *failure) {
        const struct guests_settings *settings = &window->guest->guests->settings;
        const struct ivshmem_options options = {
                .is_open = settings->has_user, .admits = admits, .changed = on_connection,
                .not_given = on_not_given, .userdata = window,
        };
        char path[WINDOW_PATH_SIZE];
        int fd, r;

        socket_path(window, path);
        r = region_fd(&window->guest->caller, window->region, &fd, failure);
        if (r == 0)
                r = ivshmem_new(window->guest->guests->loop, path, fd, &options, &window->server, failure);
        return r;
}

static int take_place(struct window *window, struct failure *failure) {
        struct region_view view;
        int r = region_get(&window->guest->caller, window->region, &view, failure);

        if (r < 0)
                return r;
        window->addr = view.machine_addr;
        window->size = view.size;
        if (place_add(view.machine_addr, view.size) < 0)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        window->is_placed = true;
        return 0;
}

static int take_port(struct window *window, struct failure *failure) {
        if (choose_port(window) == 0)
                return 0;
        return failure_set(failure, REASON_source_unavailable, "The guest %s does not get the window: every port that the "
                           "configuration names has a window", window->guest->name);
}

static int prepare(struct window *window, struct failure *failure) {
        int r;

        r = take_place(window, failure);
        if (r == 0 && make_cookie(window->cookie) < 0)
                r = failure_set(failure, REASON_source_unavailable, "The kernel gave no random numbers");
        if (r == 0) {
                r = write_cookie(window);
                if (r < 0)
                        failure_set_errno(failure, REASON_source_unavailable, -r, "The window cannot be written to: %s",
                                          strerror(-r));
        }
        if (r == 0 && !*window->port)
                r = take_port(window, failure);
        /* Whoever is asked for it may end with its QEMU having it, and so may the daemon. */
        window->is_unconfirmed = true;
        if (r == 0 && guest_save(window->guest) < 0)
                r = failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        if (r == 0 && window->guest->way->serve)
                r = window->guest->way->serve(window, failure);
        window->is_ready = r == 0;
        return r;
}

static struct window *by_region(const struct guest *guest, uint64_t region) {
        struct window *window;

        DL_FOREACH(guest->windows, window)
                if (window->region == region)
                        return window;
        return NULL;
}

/* Asked for again, with the same key: there is one already, and this one is nothing. */
static void answer_again(struct window *window, struct window *first) {
        struct failure failure = { 0 };

        if (first->state != WINDOW_PLUGGED || first->in_doubt) {
                failure_set(&failure, REASON_busy, "The window of this request_key is being plugged in or taken out");
                fail(window, &failure);
                return;
        }
        /* It was to be taken out, and the guest has kept it. */
        if (first->is_unwanted) {
                first->is_unwanted = false;
                first->is_told = true;
                guest_save(first->guest);
                guest_tell(first->guest, GUEST_ATTACHED);
        }
        answer_with(window, NULL, first->region);
        window_end(window);
}

/* It is plugged in when the ledger knows of it, and whose it is. */
static void on_reserved(void *userdata, const struct failure *why, uint64_t handle) {
        struct window *window = userdata;
        struct failure failure = { 0 };
        struct window *first;

        window->ticket = NULL;
        if (why) {
                fail(window, why);
                return;
        }
        first = by_region(window->guest, handle);
        if (first) {
                answer_again(window, first);
                return;
        }
        window->region = handle;
        if (prepare(window, &failure) < 0)
                fail(window, &failure);
        else
                guests_wake(window->guest->guests, 0);
}

static struct window *window_new(struct guest *guest) {
        struct window *window = calloc(1, sizeof(*window));

        if (!window)
                return NULL;
        window->guest = guest;
        window->number = ++guest->last_number;
        DL_APPEND(guest->windows, window);
        guest->n_windows++;
        return window;
}

/* It may end before this returns, and must have been begun. */
void window_reserve(struct window *window) {
        struct ticket *ticket = device_reserve(&window->guest->caller, &window->wanted, on_reserved, window);

        if (!window->ended && !window->region)
                window->ticket = ticket;
}

static void on_place_found(void *userdata, int status, const char *text) {
        struct window *window = userdata;
        struct guest_pci_address address;

        if (choose_in_domain(window, status, text, &address) < 0)
                return;
        window_reserve(window);
        is_over(window);
}

static void find_place_by_libvirt(struct window *window) {
        int r;

        window->n_begun++;
        r = ask_domain(window, on_place_found);
        if (r < 0)
                window_plugged(window, r, false, NULL);
}

static void find_place_by_qmp(struct window *window) {
        struct failure failure = { 0 };

        if (take_port(window, &failure) < 0)
                fail(window, &failure);
        else
                window_reserve(window);
}

/* There is one with this key already, or it is on its way: this one takes nothing. */
static bool is_asked_again(const struct window *window) {
        const char *key = window->wanted.request_key;
        const struct window *other;

        if (!key)
                return false;
        DL_FOREACH(window->guest->windows, other)
                if (other != window && other->wanted.request_key && strcmp(other->wanted.request_key, key) == 0)
                        return true;
        return request_is_answered(&window->guest->caller, key);
}

/* Memory that comes to nothing counts as the guest's until it is zeroed: first there must be a place for it. */
static void find_place(struct window *window) {
        if (is_asked_again(window))
                window_reserve(window);
        else
                window->guest->way->find_place(window);
}

static struct ticket *attach(struct guest *guest, const struct attach_request *wish, bool is_own, broker_done_fn done,
                             void *userdata) {
        char *key = wish->request_key ? strdup(wish->request_key) : NULL;
        struct guest_ask *ask = wish->request_key && !key ? NULL : ask_new(done, userdata);
        struct window *window = ask ? window_new(guest) : NULL;
        struct failure failure = { 0 };

        if (!window) {
                free(ask);
                free(key);
                failure_set(&failure, REASON_no_memory, "The daemon itself is out of memory");
                return refuse(done, userdata, &failure);
        }
        window->is_own = is_own;
        window->ask = ask;
        window->wanted = (struct reserve_request){
                .device = guest->commons, .size = wish->size, .usable = wish->size - WINDOW_TAIL, .mask = wish->mask,
                .request_key = key, .request_digest = wish->request_digest,
        };
        window->n_begun++;
        find_place(window);
        ask = window->ask;
        is_over(window);
        return ask ? &ask->ticket : NULL;
}

static struct ticket *attach_wanted(struct guests *guests, const struct attach_request *request, broker_done_fn done,
                                    void *userdata) {
        struct failure failure = { 0 };
        struct guest *guest = guests_find(guests, request->guest, &failure);
        uint64_t size = request->size;

        if (!guest)
                return refuse(done, userdata, &failure);
        /* What can never be is told before what cannot be at present. */
        if (size < WINDOW_SIZE_MIN || size > WINDOW_SIZE_MAX || size & (size - 1)) {
                failure_set(&failure, REASON_bad_param, "A window has a power of two of bytes, at least %llu: it becomes the "
                            "memory of a PCI device", (unsigned long long)WINDOW_SIZE_MIN);
                failure_add_text(&failure, "param", "size");
                return refuse(done, userdata, &failure);
        }
        if (request->mask && !guest->is_xen) {
                failure_set(&failure, REASON_unsupported, "The guest %s has addresses of its own: a mask of the machine's means "
                            "nothing to it", guest->name);
                failure_add_text(&failure, "param", "mask");
                return refuse(done, userdata, &failure);
        }
        if (!guest_is_reachable(guest, &failure))
                return refuse(done, userdata, &failure);
        if (guest->n_windows >= WINDOWS_MAX && !request_is_answered(&guest->caller, request->request_key)) {
                failure_set(&failure, REASON_limit, "The guest %s has %u windows already", guest->name, guest->n_windows);
                failure_add_number(&failure, "limit", WINDOWS_MAX);
                return refuse(done, userdata, &failure);
        }
        return attach(guest, request, false, done, userdata);
}

struct ticket *guests_attach(struct guests *guests, const struct attach_request *request, broker_done_fn done,
                             void *userdata) {
        struct attach_request wanted = *request;
        struct failure failure = { 0 };
        struct ticket *ticket;
        char *key = NULL;

        /* It goes among the guest's own keys, none of which, as a text of JSON, has such a byte. */
        if (request->request_key && asprintf(&key, "\xff%s", request->request_key) < 0) {
                failure_set(&failure, REASON_no_memory, "The daemon itself is out of memory");
                return refuse(done, userdata, &failure);
        }
        wanted.request_key = key;
        ticket = attach_wanted(guests, &wanted, done, userdata);
        free(key);
        return ticket;
}

static void have_own(struct guest *guest) {
        guest->had_own = guest->own_bytes;
        guest->n_own_failed = 0;
        guest_save(guest);
}

static void on_own_attached(void *userdata, const struct failure *failure, uint64_t handle) {
        struct guest *guest = userdata;

        if (!failure) {
                have_own(guest);
                return;
        }
        if (!guest->n_own_failed)
                log_error("the guest %s does not get the window that it is to have: %s", guest->name, failure->sentence);
        /* There may be memory later, such as that which the guest had before it began anew. */
        if (failure->reason == REASON_no_memory || failure->reason == REASON_no_contiguous || failure->reason == REASON_limit ||
            failure->reason == REASON_quota)
                want_own_later(guest);
}

void guest_attach_own(struct guest *guest) {
        uint64_t now = uv_now(guest->guests->loop);
        const struct window *window;

        if (now < guest->own_at_ms) {
                guests_wake(guest->guests, guest->own_at_ms - now);
                return;
        }
        DL_FOREACH(guest->windows, window)
                if (window->is_own && !window->is_left)
                        break;
        /* It is known soon whether it has it; or another one has ended: then it comes to this again. */
        if (window ? window->in_doubt || window->state < WINDOW_PLUGGED : guest->n_windows >= WINDOWS_MAX)
                return;
        guest->wants_own = false;
        if (window || !guest->own_bytes)
                have_own(guest);
        else
                attach(guest, &(struct attach_request){ .size = guest->own_bytes }, true, on_own_attached, guest);
}

/* ---- out of the guest ---- */

/* When it can be, that is told. */
static bool can_be_asked(const struct guest *guest) {
        return guest->way->can_be_asked(guest);
}

static bool can_be_asked_by_qmp(const struct guest *guest) {
        return guest->qmp && qmp_is_ready(guest->qmp);
}

static bool can_be_asked_by_libvirt(const struct guest *guest) {
        return guest->guests->libvirt_connected && (guest->state == GUEST_RUNNING || guest->state == GUEST_PAUSED);
}

/* It may boot, or be busy; it is asked ever more rarely. */
static void ask_later(struct window *window) {
        struct guests *guests = window->guest->guests;
        uint64_t pause_ms = pause_after(window->n_put_off++);

        window->ask_at_ms = uv_now(guests->loop) + pause_ms;
        guests_wake(guests, pause_ms);
}

/* in_doubt: it may have let go of it all the same. */
static void on_leaving(struct window *window, int error, bool in_doubt, const char *sentence, bool is_gone) {
        struct guest *guest = window->guest;
        struct failure failure = { 0 };

        if (is_over(window) || guest->guests->closing || window->is_left)
                return;
        if (is_gone) {
                window_end(window);
                return;
        }
        if (!error)
                return;
        if (error == -ETIMEDOUT)
                failure_set(&failure, REASON_timeout, "The guest %s does not let go of the window: it goes back when it does",
                            guest->name);
        else {
                failure_set(&failure, REASON_source_unavailable,
                            error == -ECONNRESET ? "Whether the guest %s lets go of the window is not known: %s"
                                                 : "The guest %s keeps the window: %s",
                            guest->name, sentence ? sentence : strerror(-error));
                /* QEMU does not take it well to be asked again before the guest has answered; and if its answer is lost, the
                 * guest may have been asked. */
                if (error == -EBUSY || (!window->was_asked && error != -ECONNRESET))
                        stay(window);
                window->in_doubt |= in_doubt;
        }
        window->in_doubt |= window->is_reset;
        guests_wake(guest->guests, 0);
        failure_add_text(&failure, "guest", guest->name);
        answer(window, &failure);
        if (window->is_unwanted)
                ask_later(window);
}

/* Whoever says that it is not there speaks of the very QEMU that has it, or had. Of what this daemon has served it is the
 * connection that tells. */
static bool is_believed(const struct window *window) {
        return !window->server && (window->guest->way->is_sure || (!window->guest->was_missed && !window->is_unconfirmed));
}

/* That there is no such device is no proof as long as a process has it by this daemon. */
static void on_qmp_left(void *userdata, const struct qmp_answer *told) {
        const struct window *window = userdata;
        bool is_missing = told->error == -ENODEV;

        on_leaving(userdata, told->error, !told->answered || is_missing, told->sentence,
                   !told->error ||
                           (is_missing && !window->ended && (!window_is_connected(window) || is_believed(window))));
}

/* libvirt only says that the guest was asked. */
static void on_libvirt_left(void *userdata, int status, const char *text) {
        /* It may be that there is none any more, for which libvirt has more than one error. */
        on_leaving(userdata, status, status < 0, text, false);
}

static int leave_by_qmp(struct window *window) {
        char id[WINDOW_ID_SIZE];

        device_id(window, id);
        return qmp_detach_window(window->guest->qmp, id, window->guest->guests->settings.unplug_ms, on_qmp_left, window);
}

static int leave_by_libvirt(struct window *window) {
        const struct guests *guests = window->guest->guests;
        char id[WINDOW_ID_SIZE];

        device_id(window, id);
        if (!guests->libvirt)
                return -ENOTCONN;
        return libvirt_detach_alias(guests->libvirt, window->guest->uuid, id, false, on_libvirt_left, window);
}

/* What rests is nobody's, and goes with the window: when that is gone, no device comes there any more. */
static int check_empty(const struct window *window, struct failure *failure) {
        struct region_view view;
        uint64_t allocs;
        int r = region_get(&window->guest->caller, window->region, &view, failure);

        if (r < 0)
                return r;
        allocs = view.allocs - view.resting - view.barred;
        if (allocs) {
                r = failure_set(failure, REASON_busy, "The window holds %" PRIu64 " allocations of the guest %s: free them, or "
                                "use force", allocs, window->guest->name);
                failure_add_number(failure, "allocs", allocs);
        } else if (view.barred)
                r = failure_set(failure, REASON_busy, "The window holds what the guest %s may have, of which a damaged ledger "
                                "does not know: if it has nothing there, \"quarantine release\" says so", window->guest->name);
        return r;
}

/* By force. Nobody moves in meanwhile. */
static int empty(struct window *window, struct failure *failure) {
        int r;

        withdraw(window);
        guest_empty(window->guest, window->region);
        r = check_empty(window, failure);
        if (r < 0 && window->state != WINDOW_LEAVING)
                reinstate(window);
        return r;
}

/* Nobody gets anything there from now on, nor by the next daemon. */
static int begin_to_leave(struct window *window) {
        struct guest *guest = window->guest;
        int r = withdraw(window) ? 0 : -ENOMEM;

        window->was_asked = window->is_to_leave;
        window->is_to_leave = true;
        window->is_reset = false;
        window->state = WINDOW_LEAVING;
        if (r == 0)
                r = guest_save(guest);
        return r < 0 ? r : broker_commit(guest->guests->broker);
}

static void take_out(struct window *window) {
        struct guests *guests = window->guest->guests;
        int r;

        window->n_looked = 0;
        window->ask_at_ms = 0;
        window->n_begun++;
        r = begin_to_leave(window);
        if (r == 0)
                r = window->guest->way->leave(window);
        if (r < 0)
                on_leaving(window, r, false, NULL, false);
        else if (!window->guest->way->tells_timeout)
                window->leave_until_ms = uv_now(guests->loop) + guests->settings.unplug_ms;
        guests_wake(guests, 0);
}

/* Not from under what lies in it. */
static void take_out_unwanted(struct window *window) {
        if (check_empty(window, NULL) < 0)
                ask_later(window);
        else
                take_out(window);
}

static void wait_to_leave(struct window *window, uint64_t now) {
        if (now < window->leave_until_ms) {
                guests_wake(window->guest->guests, window->leave_until_ms - now);
                return;
        }
        window->leave_until_ms = 0;
        window->n_begun++;
        on_leaving(window, -ETIMEDOUT, false, NULL, false);
}

static void wait_to_ask(struct window *window, uint64_t now) {
        if (now < window->ask_at_ms) {
                guests_wake(window->guest->guests, window->ask_at_ms - now);
                return;
        }
        take_out_unwanted(window);
}

/* What is only looked at is looked at soon, and ever more rarely. */
static unsigned look_again_ms(struct window *window) {
        const unsigned ms = window->guest->way->is_had && window->n_looked < 7 ? 10u << window->n_looked : ASK_AGAIN_MS;

        window->n_looked++;
        return ms;
}

void window_work(struct window *window) {
        struct guests *guests = window->guest->guests;
        uint64_t now = uv_now(guests->loop);
        bool is_waited_for = window->is_left || window->guest->via == GUEST_BY_NOBODY;

        if (window->state == WINDOW_RESERVING && window->is_ready) {
                if (!window->guest->way->is_had || can_be_asked(window->guest))
                        plug(window);
                return;
        }
        if (is_waited_for || (window->state == WINDOW_LEAVING && window->guest->way->is_had)) {
                if (!window_is_connected(window)) {
                        window_end(window);
                        return;
                }
                guests_wake(guests, look_again_ms(window));
                if (is_waited_for)
                        return;
        }
        window_verify(window);
        if (window->state == WINDOW_LEAVING && window->leave_until_ms)
                wait_to_leave(window, now);
        else if (window->is_unwanted && !window->in_doubt && window->ask_at_ms && can_be_asked(window->guest))
                wait_to_ask(window, now);
}

static struct window *find_window(const struct guests *guests, const char *owner, uint64_t handle, struct failure *failure) {
        struct window *window = NULL;
        const struct guest *guest;

        DL_FOREACH(guests->all, guest) {
                if (!owner || strcmp(guest->owner, owner) == 0)
                        window = by_region(guest, handle);
                if (window && !(owner && window->is_left))
                        return window;
        }
        failure_set(failure, REASON_unknown_handle, "There is no window %" PRIu64, handle);
        failure_add_number(failure, "window", handle);
        return NULL;
}

struct ticket *guests_detach(struct guests *guests, uint64_t handle, bool force, broker_done_fn done, void *userdata) {
        struct failure failure = { 0 };
        struct window *window = find_window(guests, NULL, handle, &failure);
        struct guest_ask *ask = NULL;
        int r = window ? 0 : -ENOENT;

        if (r == 0 && window->is_left)
                r = failure_set(&failure, REASON_busy, "A QEMU of an earlier run of the guest %s has the window: it goes back "
                                "when that has ended", window->guest->name);
        /* A guest that has not let go of it in time may be asked again. */
        if (r == 0 && (window->ask || window->state < WINDOW_PLUGGED || (window->state == WINDOW_LEAVING && window->n_begun)))
                r = failure_set(&failure, REASON_busy, "The window is being plugged in or taken out already");
        if (r == 0 && !guest_is_reachable(window->guest, &failure))
                r = -failure.error;
        if (r == 0) {
                ask = ask_new(done, userdata);
                if (!ask)
                        r = failure_set(&failure, REASON_no_memory, "The daemon itself is out of memory");
        }
        if (r == 0)
                r = force ? empty(window, &failure) : check_empty(window, &failure);
        if (r < 0) {
                free(ask);
                return refuse(done, userdata, &failure);
        }
        window->ask = ask;
        take_out(window);
        return window->ask ? &window->ask->ticket : NULL;
}

static struct window *by_id(const struct guest *guest, const char *id) {
        char own[WINDOW_ID_SIZE];
        struct window *window;

        DL_FOREACH(guest->windows, window) {
                device_id(window, own);
                if (strcmp(own, id) == 0)
                        return window;
        }
        return NULL;
}

static void on_cleared(void *userdata, const struct qmp_answer *told) {
        is_over(userdata);
}

/* A QEMU may have any number of them, and may say so any number of times. */
static bool may_tell(struct guest *guest) {
        return guest->n_told < 2 * LEFTOVERS_MAX ? ++guest->n_told : false;
}

static void on_leftover_gone(void *userdata, const struct qmp_answer *told) {
        struct guest *guest = userdata;

        if (guest->guests->closing)
                return;
        if (told->error && told->error != -ENODEV) {
                if (may_tell(guest))
                        log_warning("the guest %s keeps a device of an earlier daemon: %s", guest->name, told->sentence);
        } else
                want_own_again(guest);
        guest->n_leftovers += told->error == -ETIMEDOUT;
}

static void on_leftover_cleared(void *userdata, const struct qmp_answer *told) {
}

/* Not in time, but now. The connection that it had is left. */
static void leftover_removed(struct guest *guest, const char *id) {
        if (!guest->n_leftovers || strncmp(id, DEVICE_PREFIX, strlen(DEVICE_PREFIX)) != 0)
                return;
        guest->n_leftovers--;
        qmp_clear_window(guest->qmp, id, on_leftover_cleared, NULL);
        want_own_again(guest);
}

void window_removed(struct guest *guest, const char *id) {
        struct window *window = by_id(guest, id);

        if (!window && guest->qmp)
                leftover_removed(guest, id);
        /* Over QMP the command that asked for it ends by this, too. */
        if (!window || (guest->qmp && window->state == WINDOW_LEAVING && window->n_begun && !window->is_asked))
                return;
        if (window->is_left)
                return; /* by another QEMU than that which has it */
        log_info("the guest %s has let go of a window of %" PRIu64 " bytes", guest->name, window->size);
        window->n_begun++;
        window_end(window);
        /* The connection that the device had is left. */
        if (!guest->qmp || qmp_clear_window(guest->qmp, id, on_cleared, window) < 0)
                is_over(window);
}

void window_kept(struct guest *guest, const char *id) {
        struct window *window = by_id(guest, id);

        /* Who has one that is left was not asked; and whoever is asking at present hears of it by the answer. */
        if (!window || window->is_left || window->state != WINDOW_LEAVING || window->n_begun)
                return;
        window->leave_until_ms = 0;
        window->n_begun++;
        on_leaving(window, -EBUSY, false, "the guest refuses to let go of the device", false);
}

/* ---- the guest's own word ---- */

static bool is_seen_at(const struct window *window, uint64_t guest_addr, uint64_t size) {
        return window->is_bound && guest_addr < window->guest_addr + window->size && window->guest_addr < guest_addr + size;
}

/* Nothing else of the guest's is seen there: where another window was seen, and has nothing in it, it is not any more. */
static int clear_place(const struct window *window, uint64_t guest_addr, struct failure *failure) {
        struct window *other;

        DL_FOREACH(window->guest->windows, other)
                if (other != window && is_seen_at(other, guest_addr, window->size) && check_empty(other, NULL) < 0) {
                        failure_set(failure, REASON_bad_param, "The guest sees window %" PRIu64 " there, in which things lie",
                                    other->region);
                        failure_add_text(failure, "param", "guest_addr");
                        return -failure->error;
                }
        DL_FOREACH(window->guest->windows, other)
                if (other != window && is_seen_at(other, guest_addr, window->size)) {
                        other->is_bound = false;
                        place_unbind(other->addr);
                }
        return 0;
}

int guests_bind(struct guests *guests, const char *owner, uint64_t handle, uint64_t guest_addr, struct failure *failure) {
        struct window *window = find_window(guests, owner, handle, failure);
        int r;

        if (!window)
                return -reason_errno(REASON_unknown_handle);
        if (!guest_addr || guest_addr % WINDOW_TAIL || guest_addr > GUEST_ADDR_MAX - window->size) {
                failure_set(failure, REASON_bad_param, "No guest can see a window at 0x%" PRIx64, guest_addr);
                failure_add_text(failure, "param", "guest_addr");
                return -failure->error;
        }
        if (window->is_bound && window->guest_addr == guest_addr)
                return 0;
        if (window->guest->is_pv) {
                failure_set(failure, REASON_bad_param, "The guest has machine addresses: it sees the window at 0x%" PRIx64
                            " and nowhere else", window->addr);
                failure_add_text(failure, "param", "guest_addr");
                return -failure->error;
        }
        r = check_empty(window, failure);
        if (r == 0)
                r = clear_place(window, guest_addr, failure);
        if (r < 0)
                return r;
        window->is_bound = true;
        window->guest_addr = guest_addr;
        place_bind(window->addr, guest_addr);
        if (guest_save(window->guest) == 0)
                return 0;
        /* The next daemon would not know. */
        window->is_bound = false;
        place_unbind(window->addr);
        return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
}

void window_reset(struct window *window) {
        window->is_bound = false;
        /* It may have gone with that; or else it stays. */
        if (window->is_to_leave && !window->is_unwanted) {
                window->is_reset = window->in_doubt = true;
                guests_wake(window->guest->guests, 0);
        }
        if (!window->is_placed)
                return;
        place_unbind(window->addr);
        if (write_cookie(window) < 0)
                log_warning("a window of the guest %s could not be marked again", window->guest->name);
}

/* ---- from one daemon to the next ---- */

static const char *window_word(const struct window *window) {
        return window->is_left ? "left" : window->is_unwanted ? "unwanted" : window->is_own ? "own" : "window";
}

int window_note(const struct window *window, char *text, size_t size) {
        char at[24] = "-";

        if (window->is_bound)
                snprintf(at, sizeof(at), "%" PRIx64, window->guest_addr);
        return snprintf(text, size, "%s %" PRIu64 " %u %s %s %s %ld %" PRIu64 " %d %d %" PRIu64 " %" PRIu32 "\n",
                        window_word(window),
                        window->region, window->number, window->cookie, at, *window->port ? window->port : "-",
                        (long)window->pid, window->pid_since, window->is_unconfirmed,
                        window->is_to_leave + (window->is_to_leave && window->is_reset), window->granted_ms,
                        window->domain);
}

static int read_line(struct window *window, const char *line) {
        char what[16], at[24], port[sizeof(window->port)];
        int is_unconfirmed = 0, is_to_leave = 0;
        long pid = 0;
        int n;

        n = sscanf(line, "%15s %" SCNu64 " %u %32[0-9a-f] %23s %31s %ld %" SCNu64 " %d %d %" SCNu64 " %" SCNu32, what,
                   &window->region,
                   &window->number, window->cookie, at, port, &pid, &window->pid_since, &is_unconfirmed, &is_to_leave,
                   &window->granted_ms, &window->domain);
        if (n < 6 || strlen(window->cookie) != COOKIE_TEXT - 1)
                return -EINVAL;
        window->pid = (pid_t)pid;
        window->is_unconfirmed = is_unconfirmed;
        window->is_to_leave = is_to_leave > 0;
        window->is_reset = is_to_leave > 1;
        window->is_unwanted = strcmp(what, "unwanted") == 0;
        window->is_left = strcmp(what, "left") == 0;
        window->is_own = strcmp(what, "own") == 0 || (n == 6 && !window->is_unwanted);
        window->is_bound = strcmp(at, "-") != 0;
        if (window->is_bound)
                window->guest_addr = strtoull(at, NULL, 16);
        if (strcmp(port, "-") != 0)
                strcpy(window->port, port);
        return 0;
}

/* By the guest's QEMU, if that is known. */
static void suppose_had(struct window *window) {
        window->pid = window->guest->pid;
        window->pid_since = window->guest->pid_since;
}

int window_inherit(struct guest *guest, const char *line, struct failure *failure) {
        struct window *window = window_new(guest);
        unsigned last = guest->last_number;
        int r;

        if (!window)
                return failure_set(failure, REASON_no_memory, "there is no memory to start");
        r = read_line(window, line);
        guest->is_garbled |= r < 0;
        /* By that name nobody else knows it: it is only waited for the end of who has it. */
        window->is_left |= guest->via != GUEST_BY_NOBODY && guest->via != guest->plugged_via;
        window->state = window->is_unwanted || window->is_left || window->is_to_leave ? WINDOW_LEAVING : WINDOW_PLUGGED;
        window->is_told = !window->is_unwanted;
        window->in_doubt = true;
        /* It cannot be asked whether it has it. */
        if (!window->pid && (guest->via == GUEST_BY_NOBODY || window->is_left))
                suppose_had(window);
        if (r == 0)
                r = take_place(window, failure);
        if (r < 0) {
                /* Its memory is gone, or was never known. */
                window->region = 0;
                window_end(window);
                return r == -reason_errno(REASON_no_memory) ? r : 0;
        }
        if (guest->way->inherit)
                guest->way->inherit(window);
        guest->last_number = window->number > last - 1 ? window->number : last - 1;
        if (window->state == WINDOW_LEAVING)
                withdraw(window);
        if (window->is_bound)
                place_bind(window->addr, window->guest_addr);
        return 0;
}

struct search {
        const struct guest *guest;
        uint64_t region; /* or 0 */
};

static int find_unnamed(const struct region_view *view, void *userdata) {
        struct search *search = userdata;

        if (view->device != search->guest->commons || by_region(search->guest, view->handle))
                return 0;
        search->region = view->handle;
        return 1;
}

int window_inherit_unnamed(struct guest *guest, struct failure *failure) {
        struct window *window;
        int r;

        for (;;) {
                struct search search = { .guest = guest };

                r = region_visit(&guest->caller, guest->owner, 0, find_unnamed, &search, failure);
                if (r < 0 || !search.region)
                        return r;
                log_warning("a window of the guest %s is told of by nobody: it goes back", guest->name);
                window = window_new(guest);
                if (!window || make_cookie(window->cookie) < 0)
                        return failure_set(failure, REASON_no_memory, "there is no memory to start");
                window->region = search.region;
                window->state = WINDOW_LEAVING;
                window->is_left = true;
                if (guest->is_garbled)
                        suppose_had(window);
                r = take_place(window, failure);
                if (r < 0)
                        return r;
                window_take_back(window);
                withdraw(window);
        }
}

/* A libvirt that denies it once, while a process has it, may go on doing so. */
static void set_confirmed(struct window *window, bool is_confirmed) {
        if (window->is_unconfirmed == !is_confirmed)
                return;
        window->is_unconfirmed = !is_confirmed;
        guest_save(window->guest);
}

/* Ever more rarely: it may be for as long as the process lives. */
static void verify_later(struct window *window) {
        window->verify_at_ms = uv_now(window->guest->guests->loop) + pause_after(window->n_denied - 1);
        guests_wake(window->guest->guests, ASK_AGAIN_MS);
}

/* Whether it is too early to ask again. A connection's end is told; a process's, where an earlier daemon had that, is not. */
static bool is_verified_later(const struct window *window) {
        struct guests *guests = window->guest->guests;
        uint64_t now = uv_now(guests->loop);

        if (now >= window->verify_at_ms || !window_is_connected(window))
                return false;
        guests_wake(guests, window->server && window->verify_at_ms - now > ASK_AGAIN_MS ? window->verify_at_ms - now
                                                                                       : ASK_AGAIN_MS);
        return true;
}

/* Whoever says that it is not there need not know of the QEMU that has it mapped. Where the guest has let go of it, only the
 * connection that it had is left, which nobody but us takes away from a QEMU of ours; QEMU does not do it to a device. */
static void wait_for_connection(struct window *window) {
        const struct guest *guest = window->guest;
        char id[WINDOW_ID_SIZE];

        if (++window->n_denied == 2)
                log_warning("the guest %s is said to have no window of %" PRIu64 " bytes any more, but a process is connected "
                            "to it: it stays until that is not", guest->name, window->size);
        set_confirmed(window, false);
        verify_later(window);
        if (!guest->qmp)
                return;
        device_id(window, id);
        window->n_begun++;
        if (qmp_clear_window(guest->qmp, id, on_cleared, window) < 0)
                is_over(window);
}

void window_verified(struct window *window, bool known, bool is_there) {
        struct guest *guest = window->guest;

        window->is_asked = false;
        if (is_over(window) || guest->guests->closing || window->is_left)
                return;
        if (!known) {
                guests_wake(guest->guests, ASK_AGAIN_MS);
                return;
        }
        if (!is_there && window_is_connected(window) && !is_believed(window)) {
                wait_for_connection(window);
                return;
        }
        window->in_doubt = false;
        window->n_denied = 0;
        guests_wake(guest->guests, 0); /* what waits for it to be known */
        if (!is_there) {
                log_info("the guest %s has no window of %" PRIu64 " bytes any more", guest->name, window->size);
                window_end(window);
                return;
        }
        set_confirmed(window, true);
        if (window->is_reset && !window->ask)
                stay(window);
        /* The guest may have been somewhere else meanwhile. */
        if (window->is_placed && write_cookie(window) < 0)
                log_warning("a window of the guest %s could not be marked again", guest->name);
        if (window->is_unwanted && !window->ask_at_ms)
                take_out_unwanted(window);
        else if (!window->is_unwanted && !window->is_told) {
                window->is_told = true;
                guest_tell(guest, GUEST_ATTACHED);
        }
        /* It may have ended already, and all of this with it. */
        if (guest->way->finds_process && window_is_connected(window))
                guest_take_process(guest, window->pid, window->pid_since);
}

static void on_qmp_verified(void *userdata, const struct qmp_answer *told) {
        window_verified(userdata, told->answered && (!told->error || told->error == -ENODEV), !told->error);
}

static void on_libvirt_verified(void *userdata, int status, const char *text) {
        struct window *window = userdata;
        char id[WINDOW_ID_SIZE], quoted[WINDOW_ID_SIZE + 8];

        device_id(window, id);
        snprintf(quoted, sizeof(quoted), "'%s'", id);
        window_verified(window, status == 0, status == 0 && strstr(text, quoted));
}

/* ---- what no daemon knows of ---- */

static bool has_number(const struct guest *guest, unsigned number) {
        const struct window *window;

        DL_FOREACH(guest->windows, window)
                if (window->number == number)
                        return true;
        return false;
}

/* The number behind the prefix, or 0: it is none that we ever gave, whatever QEMU says. */
static unsigned read_number(const char *text) {
        char *end;
        unsigned long number = strtoul(text, &end, 10);

        return *text >= '1' && *text <= '9' && *end == '"' && number <= NUMBER_MAX ? (unsigned)number : 0;
}

/* A daemon that was ended for good has taken its memory back, but not its devices: they keep ports and names. */
static void clear_leftovers(struct guest *guest, const char *devices) {
        static const char prefix[] = "\"" DEVICE_PREFIX;
        char id[WINDOW_ID_SIZE];
        unsigned n = 0;

        for (const char *at = strstr(devices, prefix); at; at = strstr(at + 1, prefix)) {
                unsigned number = read_number(at + strlen(prefix));

                if (!number || has_number(guest, number))
                        continue;
                snprintf(id, sizeof(id), DEVICE_PREFIX "%u", number);
                if (guest->last_number < number)
                        guest->last_number = number;
                /* No daemon has left more. */
                if (++n > LEFTOVERS_MAX)
                        continue;
                if (may_tell(guest))
                        log_warning("the guest %s has a device %s that an earlier daemon has left: it is asked to let go of it",
                                    guest->name, id);
                qmp_detach_window(guest->qmp, id, guest->guests->settings.unplug_ms, on_leftover_gone, guest);
        }
}

static int ask_devices(struct guest *guest);

static void on_devices(void *userdata, const struct qmp_answer *told) {
        struct guest *guest = userdata;

        if (guest->guests->closing || (told->error && !qmp_is_ready(guest->qmp)))
                return;
        /* It was too busy to answer, and may be so no more. */
        if (told->error == -ETIMEDOUT && ask_devices(guest) == 0)
                return;
        if (!told->error)
                clear_leftovers(guest, told->value);
        guest->is_asked = false;
}

static int ask_devices(struct guest *guest) {
        return qmp_execute(guest->qmp, "qom-list", "{\"path\":\"/machine/peripheral\"}", on_devices, guest);
}

void guest_clear_leftovers(struct guest *guest) {
        guest->n_leftovers = 0;
        guest->is_asked = ask_devices(guest) == 0;
}

static int verify_by_qmp(struct window *window) {
        char id[WINDOW_ID_SIZE], arguments[96];

        device_id(window, id);
        snprintf(arguments, sizeof(arguments), "{\"path\":\"/machine/peripheral/%s\"}", id);
        return qmp_execute(window->guest->qmp, "qom-list", arguments, on_qmp_verified, window);
}

static int verify_by_libvirt(struct window *window) {
        return libvirt_get_xml(window->guest->guests->libvirt, window->guest->uuid, on_libvirt_verified, window);
}

void window_verify(struct window *window) {
        int r;

        if (!window->in_doubt || window->is_left || window->is_asked || !can_be_asked(window->guest) ||
            is_verified_later(window))
                return;
        window->n_begun++;
        window->is_asked = true;
        r = window->guest->way->verify(window);
        if (r < 0)
                window_verified(window, false, false);
}

/* ---- the ways ---- */

const struct window_way window_qmp_way = {
        .prefix = DEVICE_PREFIX,
        .is_sure = true,
        .tells_timeout = true,
        .find_place = find_place_by_qmp,
        .serve = serve,
        .plug = plug_by_qmp,
        .leave = leave_by_qmp,
        .can_be_asked = can_be_asked_by_qmp,
        .verify = verify_by_qmp,
};

const struct window_way window_libvirt_way = {
        .prefix = GUEST_ALIAS_PREFIX,
        .finds_process = true,
        .find_place = find_place_by_libvirt,
        .serve = serve,
        .plug = plug_by_libvirt,
        .leave = leave_by_libvirt,
        .can_be_asked = can_be_asked_by_libvirt,
        .verify = verify_by_libvirt,
};

void window_doubt(struct window *window) {
        window->in_doubt |= window->state >= WINDOW_PLUGGED;
        window->verify_at_ms = 0; /* who is asked next may know better */
}

static void on_server_closed_for_good(void *userdata) {
        struct window *window = userdata;
        struct guests *guests = window->guest->guests;

        is_over(window);
        guests_handle_closed(guests);
}

void window_close(struct window *window) {
        struct guest *guest = window->guest;
        struct failure failure = { 0 };

        if (window->ticket)
                ticket_cancel(window->ticket);
        window->ticket = NULL;
        failure_set(&failure, REASON_gone, "The daemon is ending");
        if (window->ask)
                answer(window, &failure);
        if (window->server) {
                guest->guests->n_handles++;
                close_server(window, on_server_closed_for_good);
        }
        if (window->is_placed)
                place_remove(window->addr);
        DL_DELETE(guest->windows, window);
        window->ended = true;
        free_if_over(window);
}
