/* Windows into real QEMUs, two of them, without an operating system inside: their BIOS gives a window's memory an
 * address, and what a guest would do is done through QEMU's own test interface (qtest). Started by ivshmem.sh with
 * QEMU's path and a directory. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include "daemon/guest/ivshmem.h"
#include "daemon/guest/qmp-window.h"
#include "daemon/guest/qmp.h"
#include "daemon/loop.h"

enum { SIZE = 4 << 20, PATH_SIZE = 100, TIMEOUT_S = 120 };

static uv_loop_t loop;
static const char *directory;
static pid_t running[2]; /* QEMUs, which must not outlive the test */

static void kill_all(void) {
        for (size_t i = 0; i < 2; i++)
                if (running[i])
                        kill(running[i], SIGKILL);
}

static void on_alarm(int sign) {
        kill_all();
        _exit(1);
}

static void check(bool right, const char *what) {
        printf("%s: %s\n", right ? "ok" : "FAILED", what);
        fflush(stdout);
        if (!right)
                exit(1);
}

/* ---- QEMU ---- */

struct qemu {
        uv_process_t process;
        bool has_exited;
        char monitor[PATH_SIZE], qtest[PATH_SIZE];
        FILE *guest; /* speaks with QEMU's test interface, or NULL */
        struct qmp *qmp;
        unsigned connected, lost, deleted, resets, closed;
        /* of the last command */
        bool done;
        int error;
        bool running;
        json_t *value;
        char sentence[300];
};

static void on_connected(void *userdata) {
        ((struct qemu *)userdata)->connected++;
}

static void on_lost(void *userdata, const char *why) {
        ((struct qemu *)userdata)->lost++;
}

static void on_event(void *userdata, const struct qmp_event *event) {
        struct qemu *qemu = userdata;

        qemu->deleted += event->kind == QMP_EVENT_DEVICE_DELETED && event->device && strcmp(event->device, "w0") == 0;
        qemu->resets += event->kind == QMP_EVENT_RESET;
}

static void on_qmp_closed(void *userdata) {
        ((struct qemu *)userdata)->closed++;
}

static const struct qmp_listener listener = { .connected = on_connected, .lost = on_lost, .event = on_event };

static void on_exit_of_qemu(uv_process_t *process, int64_t status, int sign) {
        for (size_t i = 0; i < 2; i++)
                if (running[i] == process->pid)
                        running[i] = 0;
        printf("    QEMU has ended with status %d, signal %d\n", (int)status, sign);
        ((struct qemu *)process->data)->has_exited = true;
}

static void run_until(const bool *flag) {
        while (!*flag)
                uv_run(&loop, UV_RUN_ONCE);
}

static void run_until_count(const unsigned *count, unsigned value) {
        while (*count < value)
                uv_run(&loop, UV_RUN_ONCE);
}

static void qemu_start(struct qemu *qemu, const char *program, const char *name) {
        char monitor[PATH_SIZE + 40], qtest[PATH_SIZE + 40];
        uv_stdio_container_t stdio[3] = {
                { .flags = UV_IGNORE },
                { .flags = UV_INHERIT_FD, .data.fd = 1 },
                { .flags = UV_INHERIT_FD, .data.fd = 2 },
        };
        char *arguments[] = {
                (char *)program, "-accel", "tcg", "-machine", "q35", "-m", "64", "-nodefaults", "-display", "none",
                "-qmp", monitor, "-qtest", qtest, "-qtest-log", "none",
                "-device", "pcie-root-port,id=rp1,chassis=1,slot=1,pref64-reserve=16M", NULL,
        };
        const uv_process_options_t options = {
                .exit_cb = on_exit_of_qemu, .file = program, .args = arguments, .stdio = stdio, .stdio_count = 3,
        };
        const struct qmp_options quick = { .retry_ms = 20, .retry_max_ms = 100 };

        snprintf(qemu->monitor, PATH_SIZE, "%s/%s.qmp", directory, name);
        snprintf(qemu->qtest, PATH_SIZE, "%s/%s.qtest", directory, name);
        snprintf(monitor, sizeof(monitor), "unix:%s,server=on,wait=off", qemu->monitor);
        snprintf(qtest, sizeof(qtest), "unix:%s,server=on,wait=off", qemu->qtest);
        qemu->process.data = qemu;
        check(uv_spawn(&loop, &qemu->process, &options) == 0, "QEMU is started");
        running[running[0] != 0] = qemu->process.pid;
        check(qmp_new(&loop, qemu->monitor, &quick, &listener, qemu, &qemu->qmp) == 0, "its monitor is tried");
        run_until_count(&qemu->connected, 1);
        check(qmp_pid(qemu->qmp) == qemu->process.pid, "its monitor answers, and is QEMU's own");
}

static void on_done(void *userdata, const struct qmp_answer *answer) {
        struct qemu *qemu = userdata;

        qemu->done = true;
        qemu->error = answer->error;
        json_decref(qemu->value);
        qemu->value = answer->value ? json_loads(answer->value, JSON_DECODE_ANY, NULL) : NULL;
        snprintf(qemu->sentence, sizeof(qemu->sentence), "%s", answer->sentence ? answer->sentence : "");
        if (answer->error)
                printf("    QEMU: %s\n", qemu->sentence);
}

static int wait_done(struct qemu *qemu, int r) {
        if (r == 0)
                run_until(&qemu->done);
        qemu->done = false;
        return r < 0 ? r : qemu->error;
}

static int ask(struct qemu *qemu, const char *command, const char *arguments) {
        return wait_done(qemu, qmp_execute(qemu->qmp, command, arguments, on_done, qemu));
}

static void on_status(void *userdata, const struct qmp_answer *answer, const struct qmp_status *status) {
        struct qemu *qemu = userdata;

        on_done(userdata, answer);
        qemu->running = status && status->running;
}

static void check_alive(struct qemu *qemu, const char *what) {
        check(wait_done(qemu, qmp_query_status(qemu->qmp, on_status, qemu)) == 0 && qemu->running, what);
}

static void qemu_end(struct qemu *qemu) {
        qmp_close(qemu->qmp, on_qmp_closed);
        run_until_count(&qemu->closed, 1);
        if (!qemu->has_exited)
                uv_process_kill(&qemu->process, SIGKILL);
        run_until(&qemu->has_exited);
        uv_close((uv_handle_t *)&qemu->process, NULL);
        json_decref(qemu->value);
        if (qemu->guest)
                fclose(qemu->guest);
}

/* ---- what a guest does ---- */

/* One command, one line: QEMU waits for nothing of ours meanwhile. */
static void guest_does(struct qemu *qemu, const char *command) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        char answer[100] = "";

        if (!qemu->guest) {
                int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

                strcpy(address.sun_path, qemu->qtest);
                check(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "QEMU has its test interface");
                qemu->guest = fdopen(fd, "r+e");
                setvbuf(qemu->guest, NULL, _IONBF, 0);
        }
        fprintf(qemu->guest, "%s\n", command);
        check(fgets(answer, sizeof(answer), qemu->guest) && memcmp(answer, "OK", 2) == 0, command);
}

/* Through the ACPI registers of PCI hot-plug: a bus is selected, by a number of QEMU's, and slot 0 of it let go of. */
static void guest_lets_go(struct qemu *qemu) {
        guest_does(qemu, "outl 0xcd0 0x0");
        guest_does(qemu, "outl 0xcc8 0x1");
        guest_does(qemu, "outl 0xcd0 0x1");
        guest_does(qemu, "outl 0xcc8 0x1");
}

/* ---- windows ---- */

struct window {
        char path[PATH_SIZE];
        struct ivshmem *server;
        int fd;
        uint8_t *memory;
        bool admits;
        pid_t pid;
        unsigned connected, gone, closed;
};

static bool on_admits(void *userdata, int fd, const struct ucred *who) {
        return ((struct window *)userdata)->admits;
}

static void on_changed(void *userdata, bool connected, const struct ucred *who) {
        struct window *window = userdata;

        *(connected ? &window->connected : &window->gone) += 1;
        window->pid = who->pid;
}

static void on_server_closed(void *userdata) {
        ((struct window *)userdata)->closed++;
}

static void window_start(struct window *window, const char *name) {
        const struct ivshmem_options options = { .admits = on_admits, .changed = on_changed, .userdata = window };
        struct failure failure;

        *window = (struct window){ .admits = true };
        snprintf(window->path, PATH_SIZE, "%s/%s", directory, name);
        window->fd = memfd_create(name, MFD_CLOEXEC);
        check(window->fd >= 0 && ftruncate(window->fd, SIZE) == 0, "there is memory");
        window->memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, window->fd, 0);
        for (uint32_t i = 0; i < SIZE / sizeof(i); i++)
                ((uint32_t *)window->memory)[i] = i * 2654435761U;
        check(ivshmem_new(&loop, window->path, window->fd, &options, &window->server, &failure) == 0, "a window is served");
}

static void window_close(struct window *window) {
        ivshmem_close(window->server, on_server_closed);
        run_until_count(&window->closed, 1);
}

static void window_end(struct window *window) {
        munmap(window->memory, SIZE);
        close(window->fd);
}

static int attach(struct qemu *qemu, const struct window *window, const char *bus) {
        const struct qmp_window asked = { .id = "w0", .socket = window->path, .bus = bus };

        return wait_done(qemu, qmp_attach_window(qemu->qmp, &asked, on_done, qemu));
}

static int detach(struct qemu *qemu, uint64_t timeout_ms) {
        return wait_done(qemu, qmp_detach_window(qemu->qmp, "w0", timeout_ms, on_done, qemu));
}

/* ---- what QEMU has ---- */

/* Wherever it is in what query-pci returns: ports have devices of their own. */
static const json_t *find_device(const json_t *value, const char *id) {
        const char *name = json_string_value(json_object_get(value, "qdev_id")), *key;
        const json_t *found = NULL, *part;
        size_t i;

        if (name && strcmp(name, id) == 0)
                return value;
        json_array_foreach(value, i, part)
                if (!found)
                        found = find_device(part, id);
        json_object_foreach((json_t *)value, key, part)
                if (!found)
                        found = find_device(part, id);
        return found;
}

static const json_t *look_for_device(struct qemu *qemu) {
        check(ask(qemu, "query-pci", NULL) == 0, "QEMU lists its devices");
        return find_device(qemu->value, "w0");
}

/* -1: it has none. */
static int64_t memory_address(const json_t *device) {
        const json_t *region;
        size_t i;

        json_array_foreach(json_object_get(device, "regions"), i, region) {
                if (json_integer_value(json_object_get(region, "bar")) != 2)
                        continue;
                check(json_integer_value(json_object_get(region, "size")) == SIZE, "its memory has the window's size");
                return json_integer_value(json_object_get(region, "address"));
        }
        return -1;
}

/* The BIOS does it when it begins anew, for it has no hot-plug. */
static int64_t give_address(struct qemu *qemu) {
        int64_t address = -1;

        check(ask(qemu, "system_reset", NULL) == 0, "the guest is reset");
        while (address == -1) {
                if (ask(qemu, "query-pci", NULL) < 0)
                        return -1;
                address = memory_address(find_device(qemu->value, "w0"));
        }
        return address;
}

static void check_memory(struct qemu *qemu, const struct window *window, int64_t address, const char *what) {
        char path[PATH_SIZE], arguments[300];
        void *dump;
        int fd;

        snprintf(path, sizeof(path), "%s/dump", directory);
        snprintf(arguments, sizeof(arguments), "{\"val\":%" PRId64 ",\"size\":%d,\"filename\":\"%s\"}", address, SIZE, path);
        check(ask(qemu, "pmemsave", arguments) == 0, "what the guest sees is saved");
        fd = open(path, O_RDONLY | O_CLOEXEC);
        dump = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
        check(dump != MAP_FAILED && memcmp(dump, window->memory, SIZE) == 0, what);
        munmap(dump, SIZE);
        close(fd);
        unlink(path);
}

/* ---- what is proven ---- */

static void prove_window(struct qemu *qemu, struct window *window) {
        const json_t *device, *id;
        char command[100];
        int64_t address;

        check(attach(qemu, window, "rp1") == 0, "a window is attached to a running QEMU");
        run_until_count(&window->connected, 1);
        check(window->pid == qemu->process.pid, "its server knows which process has it");
        /* Behind its port it is seen as soon as the BIOS has numbered the buses. */
        while (!(device = look_for_device(qemu)))
                ;
        id = json_object_get(device, "id");
        check(json_integer_value(json_object_get(id, "vendor")) == 0x1af4 &&
                      json_integer_value(json_object_get(id, "device")) == 0x1110, "QEMU has the device");
        address = give_address(qemu);
        printf("    the window is at %#" PRIx64 "\n", (uint64_t)address);
        check_memory(qemu, window, address, "the guest sees the window's memory, every byte of it");
        snprintf(command, sizeof(command), "writeq %#" PRIx64 " 0x1122334455667788", (uint64_t)address + SIZE - 8);
        guest_does(qemu, command);
        check(*(volatile uint64_t *)(window->memory + SIZE - 8) == UINT64_C(0x1122334455667788),
              "what the guest writes is in our memory");
        check_alive(qemu, "and QEMU goes on");
}

static void prove_refusals(struct qemu *other, struct window *taken) {
        struct window window;

        check(attach(other, taken, "rp1") == -EREMOTEIO && strstr(other->sentence, "version 99"),
              "a second QEMU does not get the same window");
        check(!look_for_device(other), "and has no device");
        check_alive(other, "and goes on");
        check(taken->connected == 1 && taken->gone == 0, "the first one keeps it");
        window_start(&window, "stranger");
        window.admits = false;
        check(attach(other, &window, "rp1") == -EREMOTEIO && strstr(other->sentence, "version 99"),
              "a QEMU that is not admitted gets nothing");
        check_alive(other, "and goes on");
        window.admits = true;
        check(attach(other, &window, "rp9") == -EREMOTEIO, "a port that does not exist is QEMU's to refuse");
        run_until_count(&window.gone, 1);
        check(attach(other, &window, "rp1") == 0, "and the same QEMU gets the window when all is right");
        check(detach(other, 200) == -ETIMEDOUT, "a BIOS does not let go of it");
        window_close(&window);
        window_end(&window);
        check_alive(other, "the server may end, and QEMU goes on");
        guest_lets_go(other);
        run_until_count(&other->deleted, 1);
        check(detach(other, 200) == -ENODEV, "what is left of it is cleared away");
}

/* QEMU connects first and reads later. */
static void connect_only(struct qemu *qemu, const struct window *window) {
        char arguments[300];

        snprintf(arguments, sizeof(arguments), "{\"id\":\"early\",\"backend\":{\"type\":\"socket\",\"data\":{\"server\":false,"
                 "\"addr\":{\"type\":\"unix\",\"data\":{\"path\":\"%s\"}}}}}", window->path);
        check(ask(qemu, "chardev-add", arguments) == 0, "QEMU connects, and has not read yet");
}

static void prove_ends_of_servers(struct qemu *qemu) {
        static const char device[] = "{\"driver\":\"ivshmem-doorbell\",\"id\":\"w0\",\"chardev\":\"early\",\"bus\":\"rp1\"}";
        struct window window;
        int64_t address;

        window_start(&window, "refuses-and-ends");
        window.admits = false;
        connect_only(qemu, &window);
        ivshmem_close(window.server, on_server_closed);
        check(ask(qemu, "device_add", device) == -EREMOTEIO && strstr(qemu->sentence, "version 99"),
              "a refusal is read also when the server is about to end");
        run_until_count(&window.closed, 1);
        window_end(&window);
        check_alive(qemu, "and QEMU goes on");
        check(ask(qemu, "chardev-remove", "{\"id\":\"early\"}") == 0, "the connection is taken away");

        window_start(&window, "serves-and-ends");
        connect_only(qemu, &window);
        run_until_count(&window.connected, 1);
        ivshmem_close(window.server, on_server_closed);
        check(ask(qemu, "device_add", device) == 0, "a window is had also when the server is about to end");
        run_until_count(&window.closed, 1);
        address = give_address(qemu);
        check_memory(qemu, &window, address, "and its memory is the window's");
        window_end(&window);
        check_alive(qemu, "and QEMU goes on");
}

static void prove_detachment(struct qemu *qemu, struct window *window) {
        check(detach(qemu, 300) == -ETIMEDOUT, "a window that the guest keeps is told to be kept");
        check(look_for_device(qemu), "and QEMU has it still");
        check(window->gone == 0, "and so has its server");
        check(qmp_detach_window(qemu->qmp, "w0", 30000, on_done, qemu) == 0, "it is asked for again");
        check_alive(qemu, "QEMU asks the guest");
        guest_lets_go(qemu);
        check(wait_done(qemu, 0) == 0, "it is detached when the guest lets go of it");
        run_until_count(&window->gone, 1);
        check(!look_for_device(qemu), "QEMU has it no more");
        check(attach(qemu, window, "rp1") == 0, "it can be attached again");
        run_until_count(&window->connected, 2);
}

static void prove_end_of_qemu(struct qemu *qemu, struct window *window) {
        int r = qmp_execute(qemu->qmp, "query-status", NULL, on_done, qemu);

        check(r == 0 && uv_process_kill(&qemu->process, SIGKILL) == 0, "QEMU is killed in the middle of a command");
        wait_done(qemu, r);
        check(qemu->error == -ECONNRESET || qemu->error == 0, "the command is done");
        run_until_count(&qemu->lost, 1);
        run_until_count(&window->gone, 2);
        check(true, "the monitor's end and the window's end are told");
        check(ask(qemu, "query-status", NULL) == -ENOTCONN, "no command is accepted any more");
}

int main(int argc, char **argv) {
        static struct qemu first, second;
        struct window window;

        if (argc != 3)
                return 2;
        directory = argv[2];
        atexit(kill_all);
        signal(SIGALRM, on_alarm);
        alarm(TIMEOUT_S);
        check(loop_init(&loop) == 0, "the loop begins");
        window_start(&window, "window");
        qemu_start(&first, argv[1], "first");
        qemu_start(&second, argv[1], "second");
        prove_window(&first, &window);
        prove_refusals(&second, &window);
        prove_ends_of_servers(&second);
        prove_detachment(&first, &window);
        prove_end_of_qemu(&first, &window);
        window_close(&window);
        window_end(&window);
        qemu_end(&first);
        qemu_end(&second);
        check(uv_run(&loop, UV_RUN_DEFAULT) == 0 && uv_loop_close(&loop) == 0, "the loop ends with nothing left");
        return 0;
}
