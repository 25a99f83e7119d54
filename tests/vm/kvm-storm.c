/* A guest to which everything happens that can happen to one, in random order, beside one that works. After each event all that
 * the victim had is revoked, nobody finds a byte of it, the books are clean, and the neighbour has noticed nothing.
 *
 *      kvm-storm KERNEL INITRD                       QEMUs are ours, and asked through their monitors
 *      kvm-storm KERNEL INITRD LIBVIRTD DIRECTORY    a libvirtd of our own has them, and has its own troubles
 *
 * ROUNDS says how many events (each kind once, if not told), SEED in which order, SOURCE=sim that memory shall be simulated,
 * EVENT that only this kind happens, DEADLY that the daemon is killed in each of them (1), or in none (0). */
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/vm/kvm-storm.h"

enum { LATE_BYTES = 2048, LATE_TIMES = 3, FEW = 20, CONNECT_MS = 30000, QUIET_OPS = 600, PAGE = 4096, EVENTS_MAX = 32 };

struct kvm_guest storm_guests[2] = {
        { .name = "victim", .uuid = KVM_UUID }, { .name = "neighbour", .uuid = "0d7a4f0c-52a8-4a58-8f0e-5d1f1a3c9e77" },
};
struct kvm_guest *const storm_victim = &storm_guests[0], *const storm_neighbour = &storm_guests[1];

static struct {
        uint64_t random, fill; /* what the victim has is filled with this */
        struct storm_window window;
        bool is_off;  /* its QEMU is gone */
        bool is_kept; /* it has what it had */
        bool is_deadly, daemon_died; /* the daemon dies in this round; it did */
        uint64_t had_allocs, had_mappings;
        uint64_t taken, taken_bytes, mapped, revoked_allocs, revoked_mappings, compared_bytes;
        uint64_t boots, daemon_deaths, reconnects, evictions, detaches, timeouts, checks;
        uint64_t flood_bytes, refusals, lies, lies_taken, late_writes, late_bytes;
} storm;

static uint64_t below(uint64_t n) {
        storm.random ^= storm.random << 13;
        storm.random ^= storm.random >> 7;
        storm.random ^= storm.random << 17;
        return storm.random % n;
}

static bool chance(uint64_t one_in) {
        return below(one_in) == 0;
}

/* ---- the victim's program ---- */

static const char *require_ok(const struct kvm_guest *guest, const char *line, const char *answer) {
        if (strncmp(answer, "ok", 2) != 0)
                kvm_give_up("%s: %s: %s", guest->name, line, answer);
        return answer + 2 + (answer[2] == ' ');
}

const char *storm_must(struct kvm_guest *guest, const char *format, ...) {
        va_list arguments;
        char line[400];

        va_start(arguments, format);
        vsnprintf(line, sizeof(line), format, arguments);
        va_end(arguments);
        return require_ok(guest, line, kvm_tell(guest, "%s", line));
}

static uint64_t number_in(const char *told, const char *name) {
        json_t *answer = json_loads(told, 0, NULL);
        uint64_t n = (uint64_t)kvm_number(answer, name);

        json_decref(answer);
        return n;
}

/* It dies as programs do that are killed: without a word to the broker. */
static void die(void) {
        kvm_say(storm_victim, "die");
        kvm_is_ready(storm_victim);
}

static bool has_channel(void) {
        json_t *got = kvm_ask("guest.get", "{\"guest\":\"%s\"}", storm_victim->name);
        bool is = json_is_true(json_object_get(got, "connected"));

        json_decref(got);
        return is;
}

/* QEMU comes back within a second, when the daemon is another one or has hung up on who did not read what it answered;
 * whoever comes before that is told so. Hence the wait: who writes to a port before QEMU has seen that its other end is gone,
 * as is so with a guest that was paused meanwhile, makes QEMU 7.2 pass on nothing more until the other end hangs up once more.
 * It throttles the port and never ends that, though it connects again. */
static void connect_anew(void) {
        int64_t end = kvm_now_ms() + CONNECT_MS;
        const char *answer;

        for (;; storm.reconnects++) {
                kvm_await("the victim's channel is connected", has_channel);
                answer = kvm_tell(storm_victim, "connect");
                if (strncmp(answer, "error ECONN", 11) != 0 && strncmp(answer, "error ETIMEDOUT", 15) != 0)
                        break;
                printf("again: %s\n", answer);
                if (kvm_now_ms() > end)
                        break;
        }
        require_ok(storm_victim, "connect", answer);
}

static uint64_t take(void) {
        const char *told = storm_must(storm_victim, "take %" PRIu64, ++storm.fill);
        uint64_t bytes = number_in(told, "bytes");

        storm.had_allocs = number_in(told, "pieces");
        storm.taken += storm.had_allocs;
        storm.taken_bytes += bytes;
        storm.compared_bytes += bytes;
        return bytes;
}

static void look(void) {
        storm.compared_bytes += number_in(storm_must(storm_victim, "look %" PRIu64, storm.fill), "bytes");
}

/* ---- what the daemon says ---- */

static json_int_t number_of(const char *method, const char *array) {
        json_t *list = kvm_ask(method, "{\"owner\":\"kvm:" KVM_UUID "\",\"limit\":10000}");
        json_int_t n = (json_int_t)json_array_size(json_object_get(list, array));

        json_decref(list);
        return n;
}

static bool has_nothing(void) {
        return number_of("coherent.list", "allocs") == 0 && number_of("mapping.list", "mappings") == 0;
}

static bool something_rests(void) {
        return number_of("quarantine.list", "items") > 0;
}

static bool victim_runs(void) {
        return kvm_guest_is(storm_victim, "running", storm.window.window ? 1 : 0);
}

static bool victim_is_off(void) {
        return kvm_guest_is(storm_victim, "off", 0);
}

static bool neighbour_runs(void) {
        return kvm_guest_is(storm_neighbour, "running", 1);
}

static bool runs_without(void) {
        return kvm_guest_is(storm_victim, "running", 0);
}

/* All but the neighbour's window. */
static bool is_all_back(void) {
        json_t *status = kvm_ask("broker.status", "{}"), *source;
        json_int_t in_regions = 0, missing = 0;
        size_t i;

        json_array_foreach(json_object_get(status, "sources"), i, source) {
                in_regions += kvm_number(source, "in_regions");
                missing += kvm_number(source, "total") - kvm_number(source, "free");
        }
        json_decref(status);
        return in_regions == (json_int_t)kvm_host.window && missing == in_regions;
}

/* The devices are quiet: what rests may be used again. */
static void release(void) {
        json_decref(kvm_ask("quarantine.release", "{\"owner\":\"kvm:" KVM_UUID "\"}"));
}

static void check_books(void) {
        json_t *result = kvm_ask("debug.check", "{}");
        char *text = json_dumps(json_object_get(result, "problems"), JSON_COMPACT);

        if (!json_is_true(json_object_get(result, "clean")))
                kvm_give_up("the books are not clean: %s", text);
        free(text);
        json_decref(result);
        storm.checks++;
}

/* In the midst of whatever happens. */
static void maybe_lose_daemon(void) {
        if (!storm.is_deadly)
                return;
        storm.is_deadly = false;
        storm.daemon_died = true;
        storm.daemon_deaths++;
        kvm_restart_daemon();
        printf("ok: the daemon is killed, and another one starts\n");
}

/* ---- windows ---- */

static void get_window(void) {
        kvm_await("the victim runs", storm.window.window ? victim_runs : runs_without);
        if (!storm.window.window) {
                kvm_attach(storm_victim);
                storm_window_get(&storm.window);
                storm_window_is_clean(&storm.window);
        }
}

static void ask_back(void) {
        kvm_request("guest.detach", "{\"window\":%lld,\"force\":true}", (long long)storm.window.window);
        storm.detaches++;
}

/* Whoever asked is told that the guest does not let go, if the daemon lives so long. */
static void hear_timeout(void) {
        json_t *message, *error;

        if (storm.daemon_died)
                return;
        message = kvm_answer();
        error = json_object_get(message, "error");
        if (!error || kvm_number(error, "code") != 110)
                kvm_give_up("the guest does not let go, and the answer is %s", json_dumps(message, JSON_COMPACT));
        storm.timeouts++;
        json_decref(message);
}

/* The daemon that was asked is not always the one that is there. */
static bool window_is_back(void) {
        static int64_t again_ms;

        if (kvm_guest_is(storm_victim, "running", 0))
                return true;
        if (storm.daemon_died && kvm_guest_is(storm_victim, "running", 1) && kvm_now_ms() > again_ms) {
                char params[64];

                snprintf(params, sizeof(params), "{\"window\":%lld,\"force\":true}", (long long)storm.window.window);
                dmab_call(kvm_host.dmab, "guest.detach", params, NULL);
                again_ms = kvm_now_ms() + 1000;
        }
        return false;
}

/* Its memory is somebody else's, and has no byte of what the victim had. */
static void follow_window(void) {
        kvm_await("the memory of the victim's window is the host's again", is_all_back);
        storm_outsider_looks(storm.window.machine_addr);
        storm.window.window = 0;
}

/* ---- events ---- */

static void program_dies(void) {
        if (chance(2))
                storm_must(storm_victim, "work");
        kvm_say(storm_victim, "die");
        maybe_lose_daemon();
        kvm_is_ready(storm_victim);
        connect_anew();
}

static void boots(void) {
        kvm_is_ready(storm_victim);
        storm.boots++;
        connect_anew();
}

static void guest_is_reset(void) {
        kvm_host.bed->reset(storm_victim);
        maybe_lose_daemon();
        boots();
}

static void guest_reboots(void) {
        kvm_say(storm_victim, "reboot");
        maybe_lose_daemon();
        boots();
}

static void guest_crashes(void) {
        kvm_say(storm_victim, "crash");
        maybe_lose_daemon();
        boots();
}

static void qemu_is_killed(void) {
        if (chance(2))
                maybe_lose_daemon();
        kvm_host.bed->kill(storm_victim);
        storm.is_off = true;
        maybe_lose_daemon();
}

static void guest_is_destroyed(void) {
        kvm_host.bed->destroy(storm_victim);
        storm.is_off = true;
        maybe_lose_daemon();
}

static void guest_is_powered_off(void) {
        kvm_say(storm_victim, "off");
        maybe_lose_daemon();
        kvm_host.bed->await_end(storm_victim);
        storm.is_off = true;
}

static void guest_pauses(void) {
        kvm_host.bed->pause(storm_victim);
        maybe_lose_daemon();
        kvm_host.bed->resume(storm_victim);
        look();
        storm.is_kept = true;
}

static void freeze(void) {
        kill(kvm_host.bed->pid(storm_victim), SIGSTOP);
}

static void thaw(void) {
        kill(kvm_host.bed->pid(storm_victim), SIGCONT);
}

static void qemu_is_stopped(void) {
        freeze();
        maybe_lose_daemon();
        thaw();
        look();
        storm.is_kept = true;
}

/* Its window is wanted back while it cannot answer. */
static void lose_window(void (*stop)(void), void (*go_on)(void)) {
        stop();
        ask_back();
        maybe_lose_daemon();
        hear_timeout();
        go_on();
        die();
        kvm_await("the victim lets go when it can", window_is_back);
        follow_window();
        connect_anew();
}

static void pause_victim(void) {
        kvm_host.bed->pause(storm_victim);
}

static void resume_victim(void) {
        kvm_host.bed->resume(storm_victim);
}

static void paused_guest_loses_window(void) {
        lose_window(pause_victim, resume_victim);
}

static void stopped_qemu_loses_window(void) {
        lose_window(freeze, thaw);
}

/* Its kernel stands still, and never will let go. */
static void guest_never_answers(void) {
        storm_must(storm_victim, "halt");
        kvm_hear_line(storm_victim, "System halted");
        ask_back();
        maybe_lose_daemon();
        hear_timeout();
        if (chance(2)) {
                kvm_host.bed->kill(storm_victim);
                storm.is_off = true;
                return;
        }
        kvm_host.bed->reset(storm_victim);
        kvm_is_ready(storm_victim);
        storm.boots++;
        kvm_await("the window goes back with a new boot", window_is_back);
        follow_window();
        connect_anew();
}

/* Once more, if the daemon has heard but half of it. */
static void flood(const char *kind, unsigned kib) {
        bool is_deadly = storm.is_deadly;

        die();
        for (int i = is_deadly; i >= 0; i--) {
                kvm_await("the victim's channel is connected", has_channel);
                kvm_say(storm_victim, "flood %s %" PRIu64 " %u", kind, below(1000000), kib);
                maybe_lose_daemon();
                storm.flood_bytes += number_in(require_ok(storm_victim, "flood", kvm_hear(storm_victim)), "bytes");
        }
        die();
        connect_anew();
}

static void garbage_floods(void) {
        flood("garbage", 256);
}

static void halves_flood(void) {
        flood("halves", 128);
}

static void resets_flood(void) {
        flood("resets", 128);
}

static void endless_line_floods(void) {
        flood("long", 2048);
}

static void is_refused(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void is_refused(const char *format, ...) {
        va_list arguments;
        const char *answer;
        char line[400];

        va_start(arguments, format);
        vsnprintf(line, sizeof(line), format, arguments);
        va_end(arguments);
        answer = kvm_tell(storm_victim, "call %s", line);
        if (strncmp(answer, "error", 5) != 0)
                kvm_give_up("the victim may do this: %s: %s", line, answer);
        storm.refusals++;
}

/* Everything of the neighbour's that has a number. */
static void stranger_is_named(void) {
        json_t *allocs = kvm_ask("coherent.list", "{\"owner\":\"kvm:%s\",\"limit\":%d}", storm_neighbour->uuid, FEW), *item;
        json_t *windows = kvm_ask("window.list", "{\"guest\":\"%s\"}", storm_neighbour->name);
        json_int_t window = kvm_number(json_array_get(json_object_get(windows, "items"), 0), "window");
        size_t i;

        json_array_foreach(json_object_get(allocs, "allocs"), i, item) {
                long long alloc = kvm_number(item, "alloc"), device = kvm_number(item, "device");

                is_refused("coherent.free {\"alloc\":%lld}", alloc);
                is_refused("mapping.map {\"device\":%lld,\"alloc\":%lld,\"direction\":\"bidirectional\"}", device, alloc);
                is_refused("coherent.alloc {\"device\":%lld,\"size\":4096}", device);
                is_refused("device.close {\"device\":%lld,\"force\":true}", device);
                maybe_lose_daemon();
        }
        is_refused("region.get {\"region\":%lld}", (long long)window);
        is_refused("window.bind {\"window\":%lld,\"guest_addr\":\"0x100000\"}", (long long)window);
        is_refused("guest.detach {\"window\":%lld,\"force\":true}", (long long)window);
        is_refused("guest.evict {\"guest\":\"%s\"}", storm_neighbour->name);
        is_refused("quarantine.release {\"owner\":\"kvm:%s\"}", storm_neighbour->uuid);
        json_decref(allocs);
        json_decref(windows);
        look();
        storm.is_kept = true;
}

static uint64_t neighbours_addr(void) {
        json_t *windows = kvm_ask("window.list", "{\"guest\":\"%s\"}", storm_neighbour->name);
        const json_t *first = json_array_get(json_object_get(windows, "items"), 0);
        const char *addr = json_string_value(json_object_get(first, "guest_addr"));
        uint64_t number = addr ? strtoull(addr, NULL, 16) : 0;

        json_decref(windows);
        return number;
}

static bool lie(uint64_t guest_addr) {
        storm.lies++;
        return strncmp(kvm_tell(storm_victim, "call window.bind {\"window\":%lld,\"guest_addr\":\"0x%" PRIx64 "\"}",
                                (long long)storm.window.window, guest_addr), "ok", 2) == 0;
}

/* Whatever it says of its own window is its own business; a program that comes later finds it where it is. */
static void window_is_lied_about(void) {
        const uint64_t lies[] = { 0, neighbours_addr(), storm.window.machine_addr, below(UINT64_C(1) << 40) * PAGE, 12345,
                                  UINT64_C(0xfffffffffffff000), UINT64_C(1) << 51 };

        die();
        connect_anew();
        kvm_await("nothing lies in the window any more", has_nothing);
        release();
        for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
                storm.lies_taken += lie(lies[i]);
                kvm_tell(storm_victim, "take %" PRIu64, ++storm.fill);
                kvm_tell(storm_victim, "drop");
                if (i == 3)
                        maybe_lose_daemon();
        }
        die();
        connect_anew();
}

/* A device writes to what a program had that has died: it rests, and nobody else has it. */
static void device_writes_late(void) {
        uint64_t dma, bytes, seed = storm.fill + 1000;

        die();
        connect_anew();
        kvm_await("what the first program had is revoked", has_nothing);
        release();
        storm_must(storm_victim, "alloc %d", 2 * PAGE);
        dma = strtoull(storm_must(storm_victim, "late %" PRIu64, seed), NULL, 16);
        kvm_is_ready(storm_victim);
        connect_anew();
        kvm_await("what the device may write to rests", something_rests);
        bytes = take();
        maybe_lose_daemon();
        storm_window_get(&storm.window);
        for (int i = 0; i < LATE_TIMES; i++) {
                storm_must(storm_victim, "stale %" PRIu64, dma);
                look();
                if (!storm_window_has(&storm.window, dma, seed, LATE_BYTES))
                        kvm_give_up("the device has written elsewhere than to 0x%" PRIx64, dma);
                storm.late_writes++;
                storm.late_bytes += LATE_BYTES;
        }
        storm_must(storm_victim, "drop");
        release();
        if (take() < bytes + 2 * PAGE)
                kvm_give_up("what has rested is not given out again");
        die();
        connect_anew();
}

/* ---- libvirtd's troubles ---- */

/* While nobody tells the daemon of it. */
static void something_happens(void) {
        switch (below(3)) {
        case 0:
                program_dies();
                break;
        case 1:
                qemu_is_killed();
                break;
        default:
                maybe_lose_daemon();
                look();
                storm.is_kept = true;
        }
}

static void libvirtd_is_killed(void) {
        kill(kvm_host.bed->manager(), SIGKILL);
        something_happens();
        kvm_host.bed->start_manager();
}

static void libvirtd_is_stopped(void) {
        kill(kvm_host.bed->manager(), SIGSTOP);
        something_happens();
        kill(kvm_host.bed->manager(), SIGCONT);
}

static void libvirtd_is_restarted(void) {
        kill(kvm_host.bed->manager(), SIGTERM);
        kvm_host.bed->start_manager();
        maybe_lose_daemon();
        look();
        storm.is_kept = true;
}

static struct event {
        const char *what;
        void (*happen)(void);
        bool with_manager; /* only where libvirtd is */
        unsigned long times;
} events[] = {
        { "the program is killed", program_dies },
        { "the guest is reset", guest_is_reset },
        { "the guest reboots", guest_reboots },
        { "the guest crashes", guest_crashes },
        { "the guest is powered off", guest_is_powered_off },
        { "QEMU is killed", qemu_is_killed },
        { "the guest is paused", guest_pauses },
        { "QEMU is stopped", qemu_is_stopped },
        { "the window of a paused guest is taken", paused_guest_loses_window },
        { "the window of a stopped QEMU is taken", stopped_qemu_loses_window },
        { "the window of a dead kernel is taken", guest_never_answers },
        { "the channel is flooded with garbage", garbage_floods },
        { "the channel is flooded with half requests", halves_flood },
        { "the channel is flooded with 0xff", resets_flood },
        { "the channel is flooded with an endless line", endless_line_floods },
        { "the guest names what is its neighbour's", stranger_is_named },
        { "the guest lies about its window", window_is_lied_about },
        { "a device writes late", device_writes_late },
        { "the domain is destroyed", guest_is_destroyed, .with_manager = true },
        { "libvirtd is killed", libvirtd_is_killed, .with_manager = true },
        { "libvirtd is stopped", libvirtd_is_stopped, .with_manager = true },
        { "libvirtd is restarted", libvirtd_is_restarted, .with_manager = true },
};

enum { EVENTS = sizeof(events) / sizeof(*events) };

/* ---- rounds ---- */

/* The victim has all of its window, full of bytes, and mappings of it. */
static void prepare(void) {
        get_window();
        take();
        storm.had_mappings = 1 + below(100);
        storm_must(storm_victim, "map %" PRIu64, storm.had_mappings);
        storm.mapped += storm.had_mappings;
}

static void settle(void) {
        if (storm.is_off) {
                kvm_await("the victim is off, and has no window", victim_is_off);
                follow_window();
        }
        if (!storm.is_kept) {
                /* A session that a daemon had before it died may wait long for its program; an administrator need not. */
                if (storm.daemon_died && !storm.is_off && chance(2)) {
                        json_decref(kvm_ask("guest.evict", "{\"guest\":\"%s\"}", storm_victim->name));
                        storm.evictions++;
                        die();
                        connect_anew();
                }
                kvm_await("all that the victim had is revoked", has_nothing);
                release();
                storm.revoked_allocs += storm.had_allocs;
                storm.revoked_mappings += storm.had_mappings;
        }
        check_books();
        kvm_await("the neighbour runs", neighbour_runs);
        storm_neighbour_report(storm.daemon_died ? STORM_DAEMON_DIED : STORM_RAGES, FEW);
        if (storm.is_off) {
                kvm_start(storm_victim);
                boots();
        }
        if (!storm.is_kept)
                prepare();
        storm.is_off = storm.is_kept = storm.daemon_died = false;
}

static void round_of(struct event *event) {
        int64_t began = kvm_now_ms();

        storm.is_deadly = chance(3);
        if (getenv("DEADLY"))
                storm.is_deadly = atoi(getenv("DEADLY"));
        printf("--- %s%s\n", event->what, storm.is_deadly ? ", and the daemon is killed meanwhile" : "");
        event->happen();
        event->times++;
        settle();
        printf("--- %lld ms\n", (long long)(kvm_now_ms() - began));
}

/* All kinds, in another order each time. */
static void rounds(unsigned long n) {
        struct event *deck[EVENTS];
        const char *only = getenv("EVENT");
        unsigned long size = 0;

        for (struct event *event = events; event < events + EVENTS; event++)
                if ((!event->with_manager || kvm_host.bed->manager) && (!only || strcmp(only, event->what) == 0))
                        deck[size++] = event;
        for (unsigned long i = 0; size && i < (n ? n : size); i++) {
                unsigned long left = size - i % size, pick = below(left);
                struct event *event = deck[pick];

                deck[pick] = deck[left - 1];
                deck[left - 1] = event;
                round_of(event);
        }
}

static void tell(void) {
        const struct {
                uint64_t n;
                const char *what;
        } rows[] = {
                { storm.daemon_deaths, "deaths of the daemon amid that" },
                { storm.boots, "boots of the victim" },
                { storm.reconnects, "times its program had to connect once more: the daemon had hung up on another" },
                { storm.evictions, "times an administrator evicted it" },
                { storm.taken, "allocations of its own, and" },
                { storm.taken_bytes, "bytes in them, all zeroed when they were given" },
                { storm.mapped, "mappings of them" },
                { storm.revoked_allocs, "allocations revoked by what happened, and" },
                { storm.revoked_mappings, "mappings" },
                { storm.compared_bytes, "bytes compared in the victim, 0 others" },
                { storm_seen.windows, "new windows, and" },
                { storm_seen.window_bytes, "bytes in them seen by the host, 0 not zero" },
                { storm_seen.outsiders, "times somebody else was given all that was free, and" },
                { storm_seen.outsider_bytes, "bytes in it seen, 0 not zero" },
                { storm.detaches, "windows asked back from who could not answer" },
                { storm.timeouts, "times that was told in time, by a daemon that lived" },
                { storm.flood_bytes, "bytes of floods" },
                { storm.refusals, "requests for what is the neighbour's, all refused" },
                { storm.lies, "lies about the window" },
                { storm.lies_taken, "of them taken" },
                { storm.late_writes, "late writes of a device, and" },
                { storm.late_bytes, "bytes of them seen in memory that was nobody's, 0 elsewhere" },
                { storm.checks, "times the books were clean" },
        };

        for (const struct event *event = events; event < events + EVENTS; event++)
                if (event->times)
                        printf("%12lu times %s\n", event->times, event->what);
        for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
                printf("%12" PRIu64 " %s\n", rows[i].n, rows[i].what);
        storm_neighbour_tell();
}

static unsigned long number_from(const char *name, unsigned long otherwise) {
        const char *text = getenv(name);

        return text && *text ? strtoul(text, NULL, 10) : otherwise;
}

int main(int argc, char **argv) {
        unsigned long seed = number_from("SEED", (unsigned long)getpid());

        if (!kvm_begin(argc, argv, storm_guests, 2))
                return 99;
        printf("SEED=%lu\n", seed);
        storm.random = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15);
        kvm_start_daemon("[daemon]\nkeep = 60s\ngrace = 1s\n[memory]\nregion_idle = 0\nemergency_permille = 0\n"
                         "[device 0000:00:10.0]\nquarantine = admin\n",
                         "[source sim]\nlayout = 96M@0x78000000\n", "unplug_timeout = 3s\n");
        kvm_start(storm_neighbour);
        kvm_start(storm_victim);
        kvm_is_ready(storm_neighbour);
        storm_neighbour_begin();
        boots();
        prepare();
        storm_neighbour_report(STORM_RAGES, 1);
        storm_neighbour_report(STORM_QUIET, QUIET_OPS);
        rounds(number_from("ROUNDS", 0));
        tell();
        for (int i = 0; i < 2; i++)
                kvm_host.bed->kill(&storm_guests[i]);
        kvm_end();
        printf("KVM-TEST-PASSED\n");
        return 0;
}
