#include "tests/vm/kvm-bed.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/hugepages.h"

#define MIB (UINT64_C(1) << 20)

enum { ASK_AGAIN_MS = 20 };

struct kvm_host kvm_host;

void kvm_give_up(const char *format, ...) {
        char *log = kvm_host.daemon ? test_daemon_log(kvm_host.daemon) : NULL;
        va_list arguments;

        printf("--- the daemon ---\n%s", log ? log : "");
        for (struct kvm_guest *guest = kvm_host.guests; guest < kvm_host.guests + kvm_host.n_guests; guest++) {
                kvm_host.bed->kill(guest);
                printf("--- the last words of %s ---\n%.*s\n", guest->name, (int)guest->used, guest->buffer);
        }
        printf("---\nFAILED: ");
        va_start(arguments, format);
        vprintf(format, arguments);
        va_end(arguments);
        printf(" (%s)\n", dmab_last_error());
        test_daemon_end(kvm_host.daemon);
        exit(1);
}

void kvm_check(bool right, const char *what) {
        if (!right)
                kvm_give_up("%s", what);
        printf("ok: %s\n", what);
}

int64_t kvm_now_ms(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/* ---- the daemon ---- */

bool kvm_begin(int argc, char **argv, struct kvm_guest *guests, size_t n_guests) {
        setvbuf(stdout, NULL, _IOLBF, 0);
        signal(SIGPIPE, SIG_IGN);
        kvm_host.bed = argc == 3 ? &kvm_bed_qemu : argc == 4 ? &kvm_bed_passed_through : argc == 5 ? kvm_bed_libvirt : NULL;
        if (!kvm_host.bed)
                return false;
        kvm_host.place = (struct kvm_place){ .kernel = argv[1], .initrd = argv[2], .libvirtd = argv[3] };
        if (argc == 5)
                kvm_host.place.run_directory = argv[4];
        kvm_host.guests = guests;
        kvm_host.n_guests = n_guests;
        for (size_t i = 0; i < n_guests; i++)
                guests[i].listener = guests[i].line = guests[i].monitor = -1;
        snprintf(kvm_host.place.directory, sizeof(kvm_host.place.directory), "/tmp/dmab-kvm-XXXXXX");
        return mkdtemp(kvm_host.place.directory) != NULL;
}

static void connect_client(void) {
        test_client_close(kvm_host.client);
        kvm_host.client = NULL;
        if (test_client_connect(test_daemon_socket(kvm_host.daemon), NULL, &kvm_host.client) < 0)
                kvm_give_up("nobody lets us in");
        kvm_request("broker.hello", "{}");
        json_decref(kvm_answer());
        kvm_request("events.subscribe", "{\"topics\":[\"guest\"]}");
        json_decref(kvm_answer());
}

void kvm_start_daemon(const char *more, const char *sim, const char *more_guests) {
        static char config[4096], own[512];
        static struct test_daemon_options options = { .survives = true };
        const char *wanted = getenv("SOURCE");
        bool huge = geteuid() == 0 && !(wanted && strcmp(wanted, "sim") == 0) && test_hugepages_reserve(KVM_HUGE_PAGES) == 0;
        char uri[256];
        int n;

        kvm_host.bed->configure(&kvm_host.place, own, sizeof(own));
        n = snprintf(config, sizeof(config), "%s%s[guests]\ndirectory = %s/guests\n%s%s", more,
                     huge ? "[source hugetlb]\nreserve = 48M\nlimit = 48M\n" : sim, kvm_host.place.directory, more_guests, own);
        for (size_t i = 0; i < kvm_host.n_guests; i++) {
                kvm_host.bed->configure_guest(&kvm_host.place, &kvm_host.guests[i], own, sizeof(own));
                n += snprintf(config + n, sizeof(config) - (size_t)n, "[guest %s]\nuuid = %s\n%s", kvm_host.guests[i].name,
                              kvm_host.guests[i].uuid, own);
        }
        options.source = huge ? "hugetlb" : "sim";
        /* Of one huge page, where memory is real: more in one piece are not to be had on every machine. */
        kvm_host.window = (huge ? 2 : 16) * MIB;
        options.config = config;
        if (test_daemon_start(&options, &kvm_host.daemon) < 0)
                kvm_give_up("the daemon does not start");
        printf("memory comes from %s\n", options.source);
        snprintf(uri, sizeof(uri), "unix:%s", test_daemon_socket(kvm_host.daemon));
        if (dmab_connect(uri, &kvm_host.dmab) < 0)
                kvm_give_up("nobody lets us in");
        connect_client();
}

void kvm_end(void) {
        test_client_close(kvm_host.client);
        dmab_disconnect(kvm_host.dmab);
        kvm_check(test_daemon_end(kvm_host.daemon) == 0, "the daemon ends well");
}

json_t *kvm_ask(const char *method, const char *format, ...) {
        char params[512], *text = NULL;
        va_list arguments;
        json_t *result;

        va_start(arguments, format);
        vsnprintf(params, sizeof(params), format, arguments);
        va_end(arguments);
        if (dmab_call(kvm_host.dmab, method, params, &text) < 0)
                kvm_give_up("%s %s", method, params);
        result = json_loads(text, 0, NULL);
        free(text);
        return result;
}

json_int_t kvm_number(const json_t *object, const char *name) {
        return json_integer_value(json_object_get(object, name));
}

json_int_t kvm_count(const char *what) {
        json_t *status = kvm_ask("broker.status", "{}");
        json_int_t n = kvm_number(json_object_get(status, "counts"), what);

        json_decref(status);
        return n;
}

void kvm_await(const char *what, bool (*is_so)(void)) {
        struct pollfd poll_for = { .fd = test_client_fd(kvm_host.client), .events = POLLIN };
        int64_t end = kvm_now_ms() + KVM_PATIENCE_MS;
        const char *line;

        while (!is_so()) {
                if (poll(&poll_for, 1, ASK_AGAIN_MS) > 0 && test_client_read_line(kvm_host.client, &line) < 0)
                        kvm_give_up("%s: the daemon is gone", what);
                if (kvm_now_ms() > end)
                        kvm_give_up("%s: it does not come to that", what);
        }
        printf("ok: %s\n", what);
}

void kvm_restart_daemon(void) {
        if (test_daemon_restart(kvm_host.daemon, SIGKILL) < 0)
                kvm_give_up("no other daemon starts");
        connect_client();
}

void kvm_request(const char *method, const char *format, ...) {
        char params[512], line[640];
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(params, sizeof(params), format, arguments);
        va_end(arguments);
        snprintf(line, sizeof(line), "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"%s\",\"params\":%s}\n", method, params);
        if (test_client_send_text(kvm_host.client, line) < 0)
                kvm_give_up("%s cannot be asked", method);
}

json_t *kvm_answer(void) {
        const char *line;
        json_t *message;

        for (;;) {
                if (test_client_read_line(kvm_host.client, &line) < 0)
                        kvm_give_up("nothing is answered");
                message = json_loads(line, 0, NULL);
                if (json_object_get(message, "id"))
                        return message;
                json_decref(message);
        }
}

bool kvm_guest_is(const struct kvm_guest *guest, const char *state, json_int_t windows) {
        json_t *got = kvm_ask("guest.get", "{\"guest\":\"%s\"}", guest->name);
        bool is = strcmp(json_string_value(json_object_get(got, "state")), state) == 0 && kvm_number(got, "windows") == windows;

        json_decref(got);
        return is;
}

json_int_t kvm_attach(const struct kvm_guest *guest) {
        json_t *result = kvm_ask("guest.attach", "{\"guest\":\"%s\",\"size\":%" PRIu64 "}", guest->name, kvm_host.window);
        json_int_t window = kvm_number(result, "window");

        printf("ok: a window of %" PRIu64 " MiB is plugged in: %lld\n", kvm_host.window / MIB, (long long)window);
        json_decref(result);
        return window;
}

/* ---- guests ---- */

static void listen_at(struct kvm_guest *guest) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s.serial", kvm_host.place.directory, guest->name);
        unlink(address.sun_path);
        close(guest->listener);
        guest->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (bind(guest->listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(guest->listener, 1) < 0)
                kvm_give_up("%s: %s", address.sun_path, strerror(errno));
}

void kvm_start(struct kvm_guest *guest) {
        json_t *advised = kvm_ask("guest.attach", "{\"guest\":\"%s\",\"size\":%" PRIu64 ",\"dry_run\":true}", guest->name,
                                  kvm_host.window);
        struct pollfd poll_for = { .events = POLLIN };

        listen_at(guest);
        kvm_host.bed->start(&kvm_host.place, guest, json_string_value(json_object_get(advised, "advice")));
        json_decref(advised);
        poll_for.fd = guest->listener;
        if (poll(&poll_for, 1, KVM_PATIENCE_MS) <= 0)
                kvm_give_up("QEMU does not start");
        close(guest->line);
        guest->line = accept4(guest->listener, NULL, NULL, SOCK_CLOEXEC);
        guest->used = 0;
}

/* The next one, until the next one. */
static const char *next_line(struct kvm_guest *guest) {
        static char line[sizeof(guest->buffer)];
        struct pollfd poll_for = { .fd = guest->line, .events = POLLIN };
        int64_t end = kvm_now_ms() + KVM_PATIENCE_MS;
        char *break_;
        size_t length;
        ssize_t n;

        while (!(break_ = memchr(guest->buffer, '\n', guest->used))) {
                if (guest->used == sizeof(guest->buffer))
                        guest->used = 0;
                if (poll(&poll_for, 1, (int)(end > kvm_now_ms() ? end - kvm_now_ms() : 0)) <= 0)
                        kvm_give_up("the guest %s does not answer", guest->name);
                n = read(guest->line, guest->buffer + guest->used, sizeof(guest->buffer) - guest->used);
                if (n <= 0)
                        kvm_give_up("the guest %s is gone", guest->name);
                guest->used += (size_t)n;
        }
        length = (size_t)(break_ - guest->buffer);
        memcpy(line, guest->buffer, length);
        line[length] = '\0';
        memmove(guest->buffer, break_ + 1, guest->used - length - 1);
        guest->used -= length + 1;
        line[strcspn(line, "\r")] = '\0';
        return line;
}

const char *kvm_hear(struct kvm_guest *guest) {
        for (;;) {
                const char *line = next_line(guest);

                if (strncmp(line, "= ", 2) == 0)
                        return line + 2;
                if (*line)
                        printf("%s: %s\n", guest->name, line);
        }
}

void kvm_hear_line(struct kvm_guest *guest, const char *text) {
        while (!strstr(next_line(guest), text))
                ;
}

void kvm_say(struct kvm_guest *guest, const char *format, ...) {
        va_list arguments;
        char line[512];
        int n;

        va_start(arguments, format);
        n = vsnprintf(line, sizeof(line) - 1, format, arguments);
        va_end(arguments);
        line[n++] = '\n';
        if (write(guest->line, line, (size_t)n) != n)
                kvm_give_up("the guest %s does not listen", guest->name);
}

void kvm_is_ready(struct kvm_guest *guest) {
        if (strcmp(kvm_hear(guest), "ready") != 0)
                kvm_give_up("the guest %s does not boot", guest->name);
}
