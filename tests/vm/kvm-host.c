/* A real guest (kvm-guest.c) of a real QEMU beside a real daemon: windows come and go while the guest runs, its programs allocate
 * in them, a device of its does DMA there, and whatever becomes of the guest or of the daemon, everything is where it belongs.
 *
 *      kvm-host KERNEL INITRD                       QEMU is ours, and asked through its monitor
 *      kvm-host KERNEL INITRD vfio                  the same, with a device of this machine's passed through
 *      kvm-host KERNEL INITRD LIBVIRTD DIRECTORY    a libvirtd of our own has it
 *
 * SOURCE=sim: with simulated memory, though huge pages could be had. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/vm/kvm-bed.h"

enum { PAGE = 4096, MAPPINGS = 10000 };

static struct kvm_guest vm = { .name = "vm", .uuid = KVM_UUID };

/* ---- the guest ---- */

#define guest_ask(...) kvm_tell(&vm, __VA_ARGS__)

static void guest_does(const char *what, const char *line) {
        const char *answer = guest_ask("%s", line);

        if (strncmp(answer, "ok", 2) != 0)
                kvm_give_up("%s: %s", what, answer);
        printf("ok: %s%s\n", what, answer + 2);
}

static void guest_is_refused(const char *what, const char *line, const char *why) {
        const char *answer = guest_ask("%s", line);

        if (strncmp(answer, "error", 5) != 0 || !strstr(answer, why))
                kvm_give_up("%s: %s", what, answer);
        printf("ok: %s: %s\n", what, answer);
}

/* ---- the daemon ---- */

static int refused(const char *method, const char *params) {
        int r = dmab_call(kvm_host.dmab, method, params, NULL);

        printf("%s is refused: %s\n", method, dmab_last_error());
        return r;
}

static bool runs_without_windows(void) {
        return kvm_guest_is(&vm, "running", 0);
}

static bool runs_with_one_window(void) {
        return kvm_guest_is(&vm, "running", 1);
}

static bool is_off(void) {
        return kvm_guest_is(&vm, "off", 0);
}

static bool is_limited(void) {
        json_t *quota = kvm_ask("quota.get", "{\"owner\":\"kvm:" KVM_UUID "\"}");
        bool is = kvm_number(json_object_get(quota, "limits"), "allocs") == kvm_host.bed->allocs;

        json_decref(quota);
        return is;
}

static bool has_nothing(void) {
        return kvm_count("allocs") == 0;
}

static bool is_all_back(void) {
        json_t *status = kvm_ask("broker.status", "{}"), *source;
        bool back = true;
        size_t i;

        json_array_foreach(json_object_get(status, "sources"), i, source)
                back = back && kvm_number(source, "in_regions") == 0 &&
                       kvm_number(source, "total") == kvm_number(source, "free");
        json_decref(status);
        return back;
}

/* ---- bytes, as the host has them ---- */

static unsigned char pattern(uint64_t seed, size_t at) {
        return (unsigned char)((seed + at) * UINT64_C(0x9e3779b97f4a7c15) >> 56);
}

/* The page of the daemon's memory that begins with these bytes: of whichever of its files that is as long as a window. */
static unsigned char *find_page(uint64_t seed) {
        unsigned char first[64];
        char path[64];
        struct stat status;

        for (size_t i = 0; i < sizeof(first); i++)
                first[i] = pattern(seed, i);
        for (int fd = 3; fd < 256; fd++) {
                unsigned char *map;
                int file;

                snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)test_daemon_pid(kvm_host.daemon), fd);
                if (stat(path, &status) < 0 || !S_ISREG(status.st_mode) || status.st_size != (off_t)kvm_host.window)
                        continue;
                file = open(path, O_RDWR | O_CLOEXEC);
                map = file < 0 ? MAP_FAILED : mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
                close(file);
                for (off_t at = 0; map != MAP_FAILED && at < status.st_size; at += PAGE)
                        if (memcmp(map + at, first, sizeof(first)) == 0)
                                return map + at;
                if (map != MAP_FAILED)
                        munmap(map, (size_t)status.st_size);
        }
        return NULL;
}

/* ---- what is tested ---- */

static void test_before_a_window(void) {
        kvm_await("the guest runs, as QEMU says", runs_without_windows);
        if (kvm_host.bed->allocs)
                kvm_await("its domain's metadata limits it", is_limited);
        guest_does("a program in the guest connects, its device's translation is", "connect");
        guest_is_refused("without a window it gets nothing", "alloc 8192", "ENOMEM");
        kvm_check(refused("guest.attach", "{\"guest\":\"vm\",\"size\":3000000}") == -EINVAL,
                  "a window of an odd size is refused");
        kvm_check(refused("guest.attach", "{\"guest\":\"nobody\",\"size\":1048576}") == -ENOENT, "so is one of an unknown guest");
}

static void test_memory(void) {
        unsigned char *page;

        guest_does("it allocates in the window", "alloc 8192");
        guest_does("it writes", "fill 1");
        page = find_page(1);
        kvm_check(page != NULL, "the host sees the bytes");
        for (size_t at = 0; at < PAGE; at++)
                page[at] = pattern(2, at);
        guest_does("and the guest sees the host's", "verify 2");
        guest_does("the guest's device reads and writes there:", "device 3");
        guest_does("and in the blocks of a pool", "pool 4");
        guest_does("and in bounced buffers", "bounce 5");
        guest_does("all the guest's windows are told:", "call window.list");
        guest_is_refused("machine addresses are not its business", "call guest.list", "administrators");
}

static void test_survival(void) {
        guest_does("it fills its memory again", "fill 6");
        kvm_restart_daemon();
        printf("ok: the daemon is killed, and another one starts\n");
        guest_does("the guest has what it had", "verify 6");
        guest_does("its device reads and writes there:", "device 7");
        guest_does("it frees what the first daemon gave", "free");
        guest_does("and allocates", "alloc 16384");
        guest_does("where its device reads and writes:", "device 8");
        kvm_await("the window is known", runs_with_one_window);
}

static void test_second_window(void) {
        json_int_t window;
        char params[64];

        window = kvm_attach(&vm);
        snprintf(params, sizeof(params), "alloc %" PRIu64, kvm_host.window - 2 * PAGE);
        guest_does("it gets memory of the second by itself", params);
        guest_does("where its device reads and writes:", "device 9");
        snprintf(params, sizeof(params), "{\"window\":%lld}", (long long)window);
        kvm_check(refused("guest.detach", params) == -EBUSY, "a window in use is not taken out");
        guest_does("it frees what it has there", "free");
        json_decref(kvm_ask("guest.detach", "%s", params));
        printf("ok: the guest lets go of the second window\n");
        kvm_await("one is left", runs_with_one_window);
}

static void test_reboot(void) {
        kvm_say(&vm, "reboot");
        kvm_is_ready(&vm);
        kvm_await("after a reboot nothing of the last boot is left", has_nothing);
        kvm_check(kvm_guest_is(&vm, "running", 1), "but the window");
        guest_does("a program connects again:", "connect");
        guest_does("and allocates", "alloc 8192");
        guest_does("where its device reads and writes:", "device 10");
}

static void test_crash(void) {
        kvm_say(&vm, "crash");
        kvm_is_ready(&vm);
        kvm_await("a crash is a reboot", has_nothing);
        guest_does("a program connects again:", "connect");
        guest_does("and allocates", "alloc 8192");
}

static void test_rest(void) {
        test_second_window();
        test_reboot();
        test_crash();
}

/* The guest pauses and goes on; who tells us of it is killed, and comes back. */
static void pause_and_lose_manager(void) {
        kvm_host.bed->pause(&vm);
        kvm_host.bed->resume(&vm);
        kvm_check(kill(kvm_host.bed->manager(), SIGKILL) == 0, "libvirtd is killed");
        kvm_host.bed->start_manager();
        printf("ok: and another one started\n");
}

/* What befalls who tells us of the guest. */
static void test_trouble(void) {
        guest_does("it fills its memory", "fill 11");
        pause_and_lose_manager();
        kvm_await("the guest is known to run, and to have its window", runs_with_one_window);
        guest_does("it has what it had", "verify 11");
        guest_does("where its device reads and writes:", "device 12");
}

/* What a window has would not come along. */
static void test_refused_save(void) {
        guest_does("it fills its memory", "fill 13");
        kvm_check(!kvm_host.bed->save(&vm), "a guest with a window is not saved");
        kvm_await("it goes on, with its window", runs_with_one_window);
        guest_does("it has what it had", "verify 13");
}

/* It was killed before. */
static void test_saved(void) {
        kvm_start(&vm);
        kvm_is_ready(&vm);
        kvm_await("the guest is started again", runs_without_windows);
        kvm_check(kvm_host.bed->save(&vm), "without a window it is saved");
        kvm_await("and is off", is_off);
        kvm_host.bed->restore(&vm);
        kvm_await("it is restored, and runs", runs_without_windows);
        kvm_attach(&vm);
        kvm_await("and takes a window", runs_with_one_window);
        kvm_host.bed->kill(&vm);
        kvm_await("when QEMU is killed, it is off", is_off);
        kvm_await("and all memory is the host's again", is_all_back);
}

static bool is_missed(void) {
        json_t *got = kvm_ask("guest.get", "{\"guest\":\"vm\"}");
        const char *why = json_string_value(json_object_get(got, "why"));
        bool is = why && strstr(why, "does not know this guest, but a process has its memory") && kvm_number(got, "windows") == 1;

        json_decref(got);
        return is;
}

static bool runs_with_two_windows(void) {
        return kvm_guest_is(&vm, "running", 2);
}

/* Then libvirtd starts it anew, though its first QEMU lives. It was killed before. */
static void test_lost(void) {
        struct kvm_guest second = { .name = vm.name, .uuid = vm.uuid, .listener = -1, .line = -1, .monitor = -1 };
        pid_t qemu;

        kvm_start(&vm);
        kvm_is_ready(&vm);
        kvm_await("the guest is started again", runs_without_windows);
        kvm_attach(&vm);
        guest_does("a program connects:", "connect");
        guest_does("and allocates", "alloc 8192");
        guest_does("it fills its memory", "fill 14");
        qemu = kvm_host.bed->lose(&vm);
        kvm_await("a libvirtd that has lost the guest does not take its window", is_missed);
        kvm_restart_daemon();
        kvm_await("nor does it beside a new daemon", is_missed);
        guest_does("the guest has what it had", "verify 14");
        guest_does("and its device reads and writes there:", "device 15");
        guest_does("it fills its memory anew", "fill 16");
        kvm_start(&second);
        kvm_is_ready(&second);
        kvm_await("a second QEMU of the guest takes nothing from the first", runs_with_one_window);
        kvm_attach(&second);
        kvm_await("and gets a window of its own", runs_with_two_windows);
        guest_does("the first one still has what it had", "verify 16");
        guest_does("and its device reads and writes there:", "device 17");
        kvm_check(kill(qemu, SIGKILL) == 0, "the first one is killed");
        kvm_await("its window goes back", runs_with_one_window);
        kvm_host.bed->kill(&second);
        kvm_await("and the second's, when that is killed", is_off);
        kvm_await("all memory is the host's again", is_all_back);
}

static bool guest_maps(json_int_t mappings) {
        const char *answer = guest_ask("map %d", (int)mappings);

        if (strcmp(answer, "ok") != 0)
                kvm_give_up("the guest maps what it has: %s", answer);
        return kvm_count("mappings") >= mappings;
}

static void test_end(void) {
        json_t *result;
        int64_t began;
        const json_int_t mappings = kvm_host.bed->is_slow ? 100 : MAPPINGS;

        kvm_check(guest_maps(mappings), "the guest has mappings");
        printf("of those %lld\n", (long long)mappings);
        began = kvm_now_ms();
        kvm_host.bed->kill(&vm);
        kvm_await("when QEMU is killed, the guest is off and has no window", is_off);
        kvm_await("and all memory is the host's again", is_all_back);
        printf("%lld ms after its death all of its mappings are revoked, and its memory is zeroed and the host's\n",
               (long long)(kvm_now_ms() - began));
        kvm_check(kvm_count("mappings") == 0, "no mapping is left");
        kvm_check(refused("guest.attach", "{\"guest\":\"vm\",\"size\":1048576}") < 0, "who is off gets no window");
        result = kvm_ask("debug.check", "{}");
        kvm_check(json_is_true(json_object_get(result, "clean")), "the books are clean");
        json_decref(result);
}

int main(int argc, char **argv) {
        if (!kvm_begin(argc, argv, &vm, 1))
                return 99;
        kvm_start_daemon("[daemon]\nkeep = 60s\n[memory]\nregion_idle = 0\n", "", "unplug_timeout = 40s\n");
        kvm_start(&vm);
        kvm_is_ready(&vm);
        test_before_a_window();
        kvm_attach(&vm);
        test_memory();
        test_survival();
        if (!kvm_host.bed->is_slow)
                test_rest();
        if (kvm_host.bed->manager)
                test_trouble();
        if (kvm_host.bed->save)
                test_refused_save();
        test_end();
        if (kvm_host.bed->save)
                test_saved();
        if (kvm_host.bed->lose)
                test_lost();
        kvm_end();
        printf("KVM-TEST-PASSED\n");
        return 0;
}
