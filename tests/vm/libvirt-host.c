/* The host of libvirt.sh: starts, stops and kills libvirtd and its guests, and has daemon/guest/libvirt.h tell what it saw. */
#include <errno.h>
#include <fcntl.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "daemon/guest/guest-port.h"
#include "daemon/guest/guest-xml.h"
#include "daemon/guest/libvirt.h"

#define UUID(n) "0e32ac38-09f3-477a-950c-9f481d6bb56" n

enum {
        PATIENCE_MS = 60000,
        ADVISED_PORT = 3,
};

static uv_loop_t loop;
static uint64_t began;
static const char *libvirtd_program, *run_directory;
static char socket_path[128], uri[256];
static pid_t libvirtd;
static virConnectPtr actor; /* does to the guests what others do */

static struct libvirt *libvirt;
static char seen[65536]; /* what was told, a line each */
static const char *looked_at = seen;
static unsigned runs[10]; /* of each guest: the number of the last that was told */
static bool closed;

/* ---- saying and failing ---- */

static void __attribute__((format(printf, 1, 2))) say(const char *format, ...) {
        va_list arguments;

        printf("%7.3f ", (double)(uv_hrtime() - began) / 1e9);
        va_start(arguments, format);
        vprintf(format, arguments);
        va_end(arguments);
        putchar('\n');
        fflush(stdout);
}

/* The rest ends with the namespace. */
static void __attribute__((noreturn)) die(const char *what) {
        const virError *error = virGetLastError();

        say("FAILED: %s: %s", what, error ? error->message : strerror(errno));
        exit(1);
}

static void check(bool is_so, const char *what) {
        if (!is_so)
                die(what);
}

/* ---- what is told ---- */

static void __attribute__((format(printf, 1, 2))) tell(const char *format, ...) {
        size_t length = strlen(seen);
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(seen + length, sizeof(seen) - length, format, arguments);
        va_end(arguments);
        say("        %s", seen + length);
        snprintf(seen + strlen(seen), sizeof(seen) - strlen(seen), "\n");
}

static char number_of(const char *uuid) {
        return uuid[35];
}

static void note_run(const struct libvirt_guest *guest) {
        say("        run %u of guest-%c", guest->run, number_of(guest->uuid));
        runs[number_of(guest->uuid) - '0'] = guest->run;
}

static void on_connected(void *userdata) {
        tell("connected");
}

static void on_lost(void *userdata, const char *why) {
        tell("lost: %s", why);
}

static void on_seen(void *userdata, const struct libvirt_guest *guest) {
        note_run(guest);
        tell("seen %s%s %s", guest->name, guest->paused ? " paused" : "", guest->metadata ? guest->metadata : "-");
}

static void on_listed(void *userdata) {
        tell("listed");
}

static void on_started(void *userdata, const struct libvirt_guest *guest) {
        note_run(guest);
        tell("started %s", guest->name);
}

static void on_stopped(void *userdata, const char *uuid, enum libvirt_stop reason) {
        tell("stopped %c %s", number_of(uuid), libvirt_stop_names[reason]);
}

static void on_rebooted(void *userdata, const char *uuid) {
        tell("rebooted %c", number_of(uuid));
}

static void on_suspended(void *userdata, const char *uuid) {
        tell("suspended %c", number_of(uuid));
}

static void on_resumed(void *userdata, const char *uuid) {
        tell("resumed %c", number_of(uuid));
}

static void on_removed(void *userdata, const char *uuid, const char *alias) {
        tell("removed %c %s", number_of(uuid), alias);
}

static void on_metadata(void *userdata, const char *uuid, const char *metadata) {
        tell("metadata %c %s", number_of(uuid), metadata ? metadata : "-");
}

static void on_channel(void *userdata, const char *uuid, const char *channel, bool is_connected) {
        tell("channel %c %s %s", number_of(uuid), channel, is_connected ? "open" : "shut");
}

static const struct libvirt_listener listener = {
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
        .metadata_changed = on_metadata,
        .channel_state = on_channel,
};

static void on_closed(void *userdata) {
        closed = true;
}

/* ---- waiting ---- */

static bool is_late;

static void on_late(uv_timer_t *timer) {
        is_late = true;
}

/* Until the line is told that begins so, after the one that was waited for last; what comes between is passed over. */
static const char *expect(const char *line) {
        uv_timer_t timer;
        const char *found;
        size_t length = strlen(line);

        is_late = false;
        uv_timer_init(&loop, &timer);
        uv_update_time(&loop);
        uv_timer_start(&timer, on_late, PATIENCE_MS, 0);
        for (;;) {
                for (found = looked_at; *found && strncmp(found, line, length) != 0; found = strchr(found, '\n') + 1)
                        ;
                if (*found || is_late)
                        break;
                uv_run(&loop, UV_RUN_ONCE);
        }
        uv_close((uv_handle_t *)&timer, NULL);
        uv_run(&loop, UV_RUN_NOWAIT);
        if (is_late) {
                say("waited in vain for \"%s\"", line);
                exit(1);
        }
        looked_at = strchr(found, '\n') + 1;
        return found;
}

struct answer {
        bool is_there;
        int status;
        char *text;
};

static void on_done(void *userdata, int status, const char *text) {
        struct answer *answer = userdata;

        check(!answer->is_there, "a request ended twice");
        *answer = (struct answer){ .is_there = true, .status = status, .text = text ? strdup(text) : NULL };
}

static void await(struct answer *answer, int submitted, const char *what) {
        if (submitted < 0) {
                errno = -submitted;
                die(what);
        }
        while (!answer->is_there)
                uv_run(&loop, UV_RUN_ONCE);
        say("        %s: %d %s", what, answer->status, answer->status < 0 ? answer->text : "");
}

static void succeed(struct answer *answer, int submitted, const char *what) {
        await(answer, submitted, what);
        check(answer->status == 0, what);
}

#define SUCCEED(what, request, ...) \
        do { \
                struct answer answer_ = { 0 }; \
                succeed(&answer_, request(libvirt, __VA_ARGS__, on_done, &answer_), what); \
                free(answer_.text); \
        } while (0)

/* ---- libvirtd and its guests ---- */

static void start_libvirtd(void) {
        int log;

        libvirtd = fork();
        check(libvirtd >= 0, "fork");
        if (libvirtd > 0)
                return;
        log = open("libvirtd.log", O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(log, 1);
        dup2(log, 2);
        execl(libvirtd_program, libvirtd_program, "-f", "libvirtd.conf", "-p", "libvirtd.pid", (char *)NULL);
        _exit(127);
}

static void end_libvirtd(int signal) {
        kill(libvirtd, signal);
        check(waitpid(libvirtd, NULL, 0) == libvirtd, "waitpid");
}

/* A connection that is dead is no use for anything. */
static void open_actor(void) {
        if (actor)
                virConnectClose(actor);
        actor = virConnectOpen(uri);
        check(actor, "a second connection");
}

/* Transient, on a machine with PCIe, with nothing to boot, and with a port as we advise it. */
static void start_guest(char number) {
        char xml[2048], *advice;
        virDomainPtr domain;

        check(guest_xml_root_port(ADVISED_PORT, guest_port_reserve(64 << 20), &advice) == 0, "compose a port");
        snprintf(xml, sizeof(xml),
                 "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
                 "<name>guest-%c</name><uuid>" UUID("%c") "</uuid><memory unit='MiB'>64</memory>"
                 "<metadata><dmab:guest xmlns:dmab='" LIBVIRT_METADATA_URI "' quota='%c'/></metadata>"
                 "<os><type arch='x86_64' machine='q35'>hvm</type></os>"
                 "<devices><controller type='usb' model='none'/>"
                 "<controller type='pci' model='pcie-root'/><controller type='pci' index='1' model='pcie-root-port'/>"
                 "<controller type='pci' index='2' model='pcie-root-port'/><controller type='virtio-serial'/>"
                 "<memballoon model='none'/>%.*s</devices>%s</domain>",
                 number, number, number, (int)(strstr(advice, "<!-- in <domain") - advice), advice,
                 strstr(advice, "<qemu:override>"));
        /* libvirtd tells of the end of its last run before it has done with that. */
        for (int i = 0; !(domain = virDomainCreateXML(actor, xml, 0)) && i < 100 &&
                        virGetLastErrorCode() == VIR_ERR_OPERATION_FAILED; i++)
                poll(NULL, 0, 20);
        check(domain, "start a guest");
        virDomainFree(domain);
        free(advice);
}

static virDomainPtr find_guest(char number) {
        char uuid[] = UUID("0");
        virDomainPtr domain;

        uuid[35] = number;
        domain = virDomainLookupByUUIDString(actor, uuid);
        check(domain, "find a guest");
        return domain;
}

static void act(char number, int (*what)(virDomainPtr domain), const char *name) {
        virDomainPtr domain = find_guest(number);

        say("%s guest-%c", name, number);
        check(what(domain) == 0, name);
        virDomainFree(domain);
}

static int reset(virDomainPtr domain) {
        return virDomainReset(domain, 0);
}

static void kill_qemu(char number) {
        char path[256], text[32] = "";
        int fd;

        say("kill the process of guest-%c", number);
        snprintf(path, sizeof(path), "%s/libvirt/qemu/run/guest-%c.pid", run_directory, number);
        fd = open(path, O_RDONLY);
        check(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0, path);
        close(fd);
        check(atoi(text) > 1 && kill(atoi(text), SIGKILL) == 0, "kill");
}

/* ---- what is proven ---- */

static void prove_lifecycle(void) {
        say("libvirtd comes when it is waited for already");
        expect("lost: ");
        start_libvirtd();
        expect("connected");
        expect("listed");
        open_actor();
        say("start guest-1");
        start_guest('1');
        expect("started guest-1");
        act('1', virDomainSuspend, "suspend");
        expect("suspended 1");
        act('1', virDomainResume, "resume");
        expect("resumed 1");
        act('1', reset, "reset");
        expect("rebooted 1");
}

static void prove_metadata(void) {
        struct answer answer = { 0 };

        SUCCEED("set metadata", libvirt_set_metadata, UUID("1"), "<guest quota='64M'/>", true);
        expect("metadata 1 <guest quota=\"64M\"/>");
        succeed(&answer, libvirt_get_metadata(libvirt, UUID("1"), on_done, &answer), "get metadata");
        check(strcmp(answer.text, "<guest quota=\"64M\"/>") == 0, "metadata is what it was set to");
        free(answer.text);
}

static int listen_at(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        check(strlen(path) < sizeof(address.sun_path), path);
        memcpy(address.sun_path, path, strlen(path));
        check(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 1) == 0, path);
        return fd;
}

/* What does not need the guest's help to be plugged and unplugged. */
static void prove_channel(void) {
        char path[128], *xml;
        struct answer answer = { 0 }, again = { 0 };
        struct ucred peer;
        socklen_t length = sizeof(peer);
        int listener_fd, fd;

        snprintf(path, sizeof(path), "%s/a&b'.sock", run_directory);
        listener_fd = listen_at(path);
        check(guest_xml_channel("channel", path, &xml) == 0, "compose a channel");
        SUCCEED("attach a channel", libvirt_attach, UUID("1"), xml, true);
        fd = accept(listener_fd, NULL, NULL);
        check(fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0, "QEMU connects");
        say("        QEMU has connected, process %d", (int)peer.pid);
        succeed(&answer, libvirt_get_xml(libvirt, UUID("1"), on_done, &answer), "get XML");
        check(strstr(answer.text, "<alias name='" GUEST_ALIAS_PREFIX "channel'/>"), "libvirt keeps the alias");
        free(answer.text);
        /* QEMU tells of it when no processor of the guest's is at work, which firmware that was reset while it began, and now
         * waits in vain for something, always is. */
        act('1', virDomainSuspend, "suspend");
        expect("suspended 1");
        SUCCEED("detach the channel", libvirt_detach_alias, UUID("1"), GUEST_ALIAS_PREFIX "channel", false);
        expect("removed 1 " GUEST_ALIAS_PREFIX "channel");
        await(&again, libvirt_detach_alias(libvirt, UUID("1"), GUEST_ALIAS_PREFIX "channel", false, on_done, &again),
              "detach it again");
        /* libvirt 9 calls it an internal error. */
        check(again.status == -ENODEV || again.status == -EIO, "it is not there any more");
        free(again.text);
        act('1', virDomainResume, "resume");
        expect("resumed 1");
        free(xml);
        close(fd);
        close(listener_fd);
}

static int choose_port(uint64_t size, struct guest_pci_address *ret) {
        struct answer answer = { 0 };
        int r;

        succeed(&answer, libvirt_get_xml(libvirt, UUID("1"), on_done, &answer), "get XML");
        r = guest_port_choose(answer.text, size, ret);
        free(answer.text);
        return r;
}

static void attach_at(const struct guest_pci_address *address) {
        char xml[256];

        snprintf(xml, sizeof(xml), "<rng model='virtio'><backend model='random'>/dev/urandom</backend>"
                 "<address type='pci' bus='%u' slot='0'/></rng>", address->bus);
        SUCCEED("attach a device to the port", libvirt_attach, UUID("1"), xml, false);
}

/* The one that was advised is for large memory, and is left alone as long as there are others. */
static void prove_ports(void) {
        struct guest_pci_address address = { 0 };
        unsigned n = 0;

        check(choose_port(64 << 20, &address) == 0 && address.bus == ADVISED_PORT, "large memory has a place");
        check(choose_port(65 << 20, &address) == -EFBIG, "larger memory has none");
        for (; choose_port(1 << 20, &address) == 0; n++) {
                check(n < 2 && (n == 0) == (address.bus != ADVISED_PORT), "a free port, the advised one last");
                attach_at(&address);
        }
        check(n == 2 && choose_port(1 << 20, &address) == -ENOSPC, "all ports are taken");
}

static void prove_deaths(void) {
        unsigned first = runs[1], second;

        start_guest('2');
        expect("started guest-2");
        second = runs[2];
        kill_qemu('2');
        expect("stopped 2 failed");
        start_guest('2');
        expect("started guest-2");
        check(first && second && runs[2] && runs[2] != second, "another run has another number");
        kill_qemu('2');
        expect("stopped 2 failed");
        start_guest('3');
        expect("started guest-3");
        say("libvirtd dies, and so does guest-3, but not guest-1");
        end_libvirtd(SIGKILL);
        expect("lost: ");
        kill_qemu('3');
        start_libvirtd();
        expect("connected");
        {
                const char *from = looked_at, *to = expect("listed");

                check(strstr(from, "seen guest-1 <guest quota=\"64M\"/>\n"), "guest-1 is seen again");
                check(!memmem(from, (size_t)(to - from), "guest-3", 7), "guest-3 is not");
        }
        check(runs[1] == first, "the same run has the same number");
        open_actor();
        act('1', virDomainSuspend, "suspend");
        expect("suspended 1");
}

static void prove_silence(void) {
        struct answer answer = { 0 };

        say("libvirtd is stopped and says nothing");
        kill(libvirtd, SIGSTOP);
        await(&answer, libvirt_get_xml(libvirt, UUID("1"), on_done, &answer), "get XML");
        check(answer.status == -ECONNRESET, "what was asked ends");
        free(answer.text);
        expect("lost: ");
        kill(libvirtd, SIGCONT);
        expect("connected");
        expect("seen guest-1 paused ");
        expect("listed");
        open_actor();
}

static void prove_end(void) {
        struct answer answers[100] = { 0 };

        act('1', virDomainDestroy, "destroy");
        expect("stopped 1 destroyed");
        virConnectClose(actor);
        actor = NULL;
        say("closing while libvirtd says nothing and 100 requests are outstanding");
        kill(libvirtd, SIGSTOP);
        for (size_t i = 0; i < 100; i++)
                check(libvirt_get_xml(libvirt, UUID("1"), on_done, &answers[i]) == 0, "a request");
        libvirt_close(libvirt, on_closed);
        uv_run(&loop, UV_RUN_DEFAULT);
        check(closed, "closing ends");
        for (size_t i = 0; i < 100; i++) {
                check(answers[i].is_there && answers[i].status == -ECANCELED, "each request ends");
                free(answers[i].text);
        }
        check(uv_loop_close(&loop) == 0, "nothing is left on the loop");
        say("closed");
        kill(libvirtd, SIGCONT);
        end_libvirtd(SIGTERM);
}

static void write_configuration(void) {
        static const char text[] = "auth_unix_rw = \"none\"\nlog_outputs = \"2:stderr\"\n";
        int fd = open("libvirtd.conf", O_WRONLY | O_CREAT, 0600);

        check(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), "libvirtd.conf");
        close(fd);
}

int main(int argc, char **argv) {
        check(argc == 3, "libvirt-host LIBVIRTD DIRECTORY");
        libvirtd_program = argv[1];
        run_directory = argv[2];
        began = uv_hrtime();
        check(chdir(run_directory) == 0, run_directory);
        write_configuration();
        snprintf(socket_path, sizeof(socket_path), "%s/libvirt/libvirt-sock", run_directory);
        snprintf(uri, sizeof(uri), "qemu+unix:///session?socket=%s", socket_path);
        check(uv_loop_init(&loop) == 0, "loop");
        check(libvirt_new(&loop, &(struct libvirt_options){ .uri = uri, .keepalive_seconds = 1, .keepalive_count = 2,
                                                            .retry_ms = 100, .close_patience_ms = 300 },
                          &listener, NULL, &libvirt) == 0, "libvirt_new");
        prove_lifecycle();
        prove_metadata();
        prove_channel();
        prove_ports();
        prove_deaths();
        prove_silence();
        prove_end();
        say("VM-TEST-PASSED");
        return 0;
}
