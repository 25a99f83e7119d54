/* A real guest (kvm-guest.c) of a real QEMU beside a real daemon: windows come and go while the guest runs, its programs allocate
 * in them, a device of its does DMA there, and whatever becomes of the guest or of the daemon, everything is where it belongs.
 *
 *      kvm-host KERNEL INITRD                       QEMU is ours, and asked through its monitor
 *      kvm-host KERNEL INITRD vfio                  the same, with a device of this machine's passed through
 *      kvm-host KERNEL INITRD LIBVIRTD DIRECTORY    a libvirtd of our own has it
 *
 * SOURCE=sim: with simulated memory, though huge pages could be had. */
#include <dmabroker.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/daemon.h"
#include "tests/lib/hugepages.h"
#include "tests/vm/kvm-bed.h"

#define MIB (UINT64_C(1) << 20)

enum { PATIENCE_MS = 240000, PAGE = 4096, HUGE_PAGES = 24, MAPPINGS = 10000 };

static struct {
        const struct kvm_bed *bed;
        struct kvm_place place;
        /* Of one huge page, where memory is real: more in one piece are not to be had on every machine. */
        uint64_t window;
        struct test_daemon *daemon;
        dmab_t *dmab;
        int serial_listener, serial;
        char buffer[8192];
        size_t used;
} host = { .serial = -1 };

void kvm_give_up(const char *format, ...) {
        char *log = host.daemon ? test_daemon_log(host.daemon) : NULL;
        va_list arguments;

        host.bed->kill();
        printf("--- the daemon ---\n%s--- the guest's last words ---\n%.*s\n---\nFAILED: ", log ? log : "", (int)host.used,
               host.buffer);
        va_start(arguments, format);
        vprintf(format, arguments);
        va_end(arguments);
        printf(" (%s)\n", dmab_last_error());
        test_daemon_end(host.daemon);
        exit(1);
}

void kvm_check(bool right, const char *what) {
        if (!right)
                kvm_give_up("%s", what);
        printf("ok: %s\n", what);
}

static int64_t now_ms(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/* ---- the guest ---- */

static void serial_listen(void) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        snprintf(address.sun_path, sizeof(address.sun_path), "%s/serial", host.place.directory);
        unlink(address.sun_path);
        host.serial_listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (bind(host.serial_listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(host.serial_listener, 1) < 0)
                kvm_give_up("%s: %s", address.sun_path, strerror(errno));
}

static void serial_accept(void) {
        struct pollfd poll_for = { .fd = host.serial_listener, .events = POLLIN };

        if (poll(&poll_for, 1, PATIENCE_MS) <= 0)
                kvm_give_up("QEMU does not start");
        close(host.serial);
        host.serial = accept4(host.serial_listener, NULL, NULL, SOCK_CLOEXEC);
        host.used = 0;
}

/* The guest's next answer, without what the kernel says in between. Until the next one. */
static const char *guest_hear(void) {
        static char line[sizeof(host.buffer)];
        struct pollfd poll_for = { .fd = host.serial, .events = POLLIN };
        int64_t end = now_ms() + PATIENCE_MS;
        char *break_;
        ssize_t n;

        for (;;) {
                while ((break_ = memchr(host.buffer, '\n', host.used))) {
                        size_t length = (size_t)(break_ - host.buffer);

                        memcpy(line, host.buffer, length);
                        line[length] = '\0';
                        memmove(host.buffer, break_ + 1, host.used - length - 1);
                        host.used -= length + 1;
                        line[strcspn(line, "\r")] = '\0';
                        if (strncmp(line, "= ", 2) == 0)
                                return line + 2;
                        if (*line)
                                printf("guest: %s\n", line);
                }
                if (host.used == sizeof(host.buffer))
                        host.used = 0;
                if (poll(&poll_for, 1, (int)(end > now_ms() ? end - now_ms() : 0)) <= 0)
                        kvm_give_up("the guest does not answer");
                n = read(host.serial, host.buffer + host.used, sizeof(host.buffer) - host.used);
                if (n <= 0)
                        kvm_give_up("the guest is gone");
                host.used += (size_t)n;
        }
}

static void guest_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void guest_say(const char *format, ...) {
        va_list arguments;
        char line[512];
        int n;

        va_start(arguments, format);
        n = vsnprintf(line, sizeof(line) - 1, format, arguments);
        va_end(arguments);
        line[n++] = '\n';
        if (write(host.serial, line, (size_t)n) != n)
                kvm_give_up("the guest does not listen");
}

#define guest_ask(...) (guest_say(__VA_ARGS__), guest_hear())

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

static void guest_is_ready(void) {
        if (strcmp(guest_hear(), "ready") != 0)
                kvm_give_up("the guest does not boot");
}

/* ---- the daemon ---- */

static json_t *ask(const char *method, const char *params) {
        char *text = NULL;
        json_t *result;
        int r = dmab_call(host.dmab, method, params, &text);

        if (r < 0)
                kvm_give_up("%s %s", method, params ? params : "");
        result = json_loads(text, 0, NULL);
        free(text);
        return result;
}

static int refused(const char *method, const char *params) {
        int r = dmab_call(host.dmab, method, params, NULL);

        printf("%s is refused: %s\n", method, dmab_last_error());
        return r;
}

static json_int_t count(const char *what) {
        json_t *status = ask("broker.status", NULL);
        json_int_t n = json_integer_value(json_object_get(json_object_get(status, "counts"), what));

        json_decref(status);
        return n;
}

/* Asked again until it is so: what follows from an event of QEMU's is not told to us. */
static void await(const char *what, bool (*is_so)(void)) {
        int64_t end = now_ms() + PATIENCE_MS;

        while (!is_so())
                if (now_ms() > end)
                        kvm_give_up("%s: it does not come to that", what);
        printf("ok: %s\n", what);
}

static bool guest_is(const char *state, json_int_t windows) {
        json_t *guest = ask("guest.get", "{\"guest\":\"vm\"}");
        bool is = strcmp(json_string_value(json_object_get(guest, "state")), state) == 0 &&
                  json_integer_value(json_object_get(guest, "windows")) == windows;

        json_decref(guest);
        return is;
}

static bool runs_without_windows(void) {
        return guest_is("running", 0);
}

static bool runs_with_one_window(void) {
        return guest_is("running", 1);
}

static bool is_off(void) {
        return guest_is("off", 0);
}

static bool is_limited(void) {
        json_t *quota = ask("quota.get", "{\"owner\":\"kvm:" KVM_UUID "\"}");
        bool is = json_integer_value(json_object_get(json_object_get(quota, "limits"), "allocs")) == host.bed->allocs;

        json_decref(quota);
        return is;
}

static bool has_nothing(void) {
        return count("allocs") == 0;
}

static bool is_all_back(void) {
        json_t *status = ask("broker.status", NULL), *source;
        bool back = true;
        size_t i;

        json_array_foreach(json_object_get(status, "sources"), i, source)
                back = back && json_integer_value(json_object_get(source, "in_regions")) == 0 &&
                       json_integer_value(json_object_get(source, "total")) ==
                               json_integer_value(json_object_get(source, "free"));
        json_decref(status);
        return back;
}

static json_int_t attach(void) {
        json_t *result;
        json_int_t window;
        char params[96];

        snprintf(params, sizeof(params), "{\"guest\":\"vm\",\"size\":%" PRIu64 "}", host.window);
        result = ask("guest.attach", params);
        window = json_integer_value(json_object_get(result, "window"));
        printf("ok: a window of %" PRIu64 " MiB is plugged in: %lld\n", host.window / MIB, (long long)window);
        json_decref(result);
        return window;
}

static void start_daemon(void) {
        static char config[1024], own[512];
        static struct test_daemon_options options = { .survives = true };
        const char *wanted = getenv("SOURCE");
        bool huge = geteuid() == 0 && !(wanted && strcmp(wanted, "sim") == 0) && test_hugepages_reserve(HUGE_PAGES) == 0;

        host.bed->configure(&host.place, own, sizeof(own));
        snprintf(config, sizeof(config), "[daemon]\nkeep = 60s\n[memory]\nregion_idle = 0\n%s"
                 "[guests]\ndirectory = %s/guests\nunplug_timeout = 40s\n%s",
                 huge ? "[source hugetlb]\nreserve = 48M\nlimit = 48M\n" : "", host.place.directory, own);
        options.source = huge ? "hugetlb" : "sim";
        host.window = (huge ? 2 : 16) * MIB;
        options.config = config;
        if (test_daemon_start(&options, &host.daemon) < 0)
                kvm_give_up("the daemon does not start");
        printf("memory comes from %s\n", options.source);
}

static void connect_admin(void) {
        char uri[256];

        snprintf(uri, sizeof(uri), "unix:%s", test_daemon_socket(host.daemon));
        if (dmab_connect(uri, &host.dmab) < 0)
                kvm_give_up("nobody lets us in");
}

/* What the guest must have so that a window fits, as the daemon says it. */
static char *advice(void) {
        char params[96], *text;
        json_t *result;

        snprintf(params, sizeof(params), "{\"guest\":\"vm\",\"size\":%" PRIu64 ",\"dry_run\":true}", host.window);
        result = ask("guest.attach", params);
        text = strdup(json_string_value(json_object_get(result, "advice")));
        json_decref(result);
        return text;
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

                snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)test_daemon_pid(host.daemon), fd);
                if (stat(path, &status) < 0 || !S_ISREG(status.st_mode) || status.st_size != (off_t)host.window)
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
        await("the guest runs, as QEMU says", runs_without_windows);
        if (host.bed->allocs)
                await("its domain's metadata limits it", is_limited);
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
        kvm_check(test_daemon_kill(host.daemon) == 0, "the daemon is killed");
        kvm_check(test_daemon_start_again(host.daemon) == 0, "and another one starts");
        guest_does("the guest has what it had", "verify 6");
        guest_does("its device reads and writes there:", "device 7");
        guest_does("it frees what the first daemon gave", "free");
        guest_does("and allocates", "alloc 16384");
        guest_does("where its device reads and writes:", "device 8");
        await("the window is known", runs_with_one_window);
}

static void test_second_window(void) {
        json_int_t window;
        char params[64];

        window = attach();
        snprintf(params, sizeof(params), "alloc %" PRIu64, host.window - 2 * PAGE);
        guest_does("it gets memory of the second by itself", params);
        guest_does("where its device reads and writes:", "device 9");
        snprintf(params, sizeof(params), "{\"window\":%lld}", (long long)window);
        kvm_check(refused("guest.detach", params) == -EBUSY, "a window in use is not taken out");
        guest_does("it frees what it has there", "free");
        json_decref(ask("guest.detach", params));
        printf("ok: the guest lets go of the second window\n");
        await("one is left", runs_with_one_window);
}

static void test_reboot(void) {
        guest_say("reboot");
        guest_is_ready();
        await("after a reboot nothing of the last boot is left", has_nothing);
        kvm_check(guest_is("running", 1), "but the window");
        guest_does("a program connects again:", "connect");
        guest_does("and allocates", "alloc 8192");
        guest_does("where its device reads and writes:", "device 10");
}

static void test_crash(void) {
        guest_say("crash");
        guest_is_ready();
        await("a crash is a reboot", has_nothing);
        guest_does("a program connects again:", "connect");
        guest_does("and allocates", "alloc 8192");
}

static void test_rest(void) {
        test_second_window();
        test_reboot();
        test_crash();
}

/* What befalls who tells us of the guest. */
static void test_trouble(void) {
        guest_does("it fills its memory", "fill 11");
        host.bed->trouble();
        await("the guest is known to run, and to have its window", runs_with_one_window);
        guest_does("it has what it had", "verify 11");
        guest_does("where its device reads and writes:", "device 12");
}

static bool guest_maps(json_int_t mappings) {
        const char *answer = guest_ask("map %d", (int)mappings);

        if (strcmp(answer, "ok") != 0)
                kvm_give_up("the guest maps what it has: %s", answer);
        return count("mappings") >= mappings;
}

static void test_end(void) {
        json_t *result;
        int64_t began;
        const json_int_t mappings = host.bed->is_slow ? 100 : MAPPINGS;

        kvm_check(guest_maps(mappings), "the guest has mappings");
        printf("of those %lld\n", (long long)mappings);
        began = now_ms();
        host.bed->kill();
        await("when QEMU is killed, the guest is off and has no window", is_off);
        await("and all memory is the host's again", is_all_back);
        printf("%lld ms after its death all of its mappings are revoked, and its memory is zeroed and the host's\n",
               (long long)(now_ms() - began));
        kvm_check(count("mappings") == 0, "no mapping is left");
        kvm_check(refused("guest.attach", "{\"guest\":\"vm\",\"size\":1048576}") < 0, "who is off gets no window");
        result = ask("debug.check", NULL);
        kvm_check(json_is_true(json_object_get(result, "clean")), "the books are clean");
        json_decref(result);
}

int main(int argc, char **argv) {
        setvbuf(stdout, NULL, _IOLBF, 0);
        signal(SIGPIPE, SIG_IGN);
        host.bed = argc == 3 ? &kvm_bed_qemu : argc == 4 ? &kvm_bed_passed_through : argc == 5 ? kvm_bed_libvirt : NULL;
        if (!host.bed)
                return 99;
        host.place = (struct kvm_place){ .kernel = argv[1], .initrd = argv[2], .libvirtd = argv[3] };
        if (argc == 5)
                host.place.run_directory = argv[4];
        snprintf(host.place.directory, sizeof(host.place.directory), "/tmp/dmab-kvm-XXXXXX");
        if (!mkdtemp(host.place.directory))
                return 99;
        start_daemon();
        connect_admin();
        serial_listen();
        host.bed->start(&host.place, advice());
        serial_accept();
        guest_is_ready();
        test_before_a_window();
        attach();
        test_memory();
        test_survival();
        if (!host.bed->is_slow)
                test_rest();
        if (host.bed->trouble)
                test_trouble();
        test_end();
        dmab_disconnect(host.dmab);
        kvm_check(test_daemon_end(host.daemon) == 0, "the daemon ends well");
        printf("KVM-TEST-PASSED\n");
        return 0;
}
