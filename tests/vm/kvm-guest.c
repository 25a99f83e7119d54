/* The first process of a guest that has a real passed-through memory: it does what it is told over the serial line, one command a
 * line, and answers each with a line that begins with "= ". kvm-host.c tells it what. The library in it is the one that users
 * have; the device is QEMU's edu, which does DMA by itself. */
#include <ctype.h>
#include <dmabroker.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <linux/netlink.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "tests/vm/kvm-guest.h"
#include "tests/vm/machine.h"

enum { CHUNK = 2048 /* more at a time ends QEMU 7.2 */, PAGE = 4096 };
#define PORT "org.dmabroker.0"
#define SYS_PORTS "/sys/class/virtio-ports/"
#define EDU_BUFFER UINT64_C(0x40000)
#define EDU "/sys/bus/pci/devices/0000:00:10.0"

dmab_t *guest_dmab;
dmab_device_t *guest_device;
static char *memory;
static dmab_addr_t memory_dma;
static size_t memory_size;
static volatile uint8_t *registers;

void guest_say(const char *format, ...) {
        va_list arguments;

        printf("\n= ");
        va_start(arguments, format);
        vprintf(format, arguments);
        va_end(arguments);
        printf("\n");
}

void guest_say_result(int r) {
        if (r == 0)
                guest_say("ok");
        else
                guest_say("error %s: %s", strerrorname_np(-r), dmab_last_error());
}

/* ---- the machine ---- */

/* Ports have names only where udev gives them. false: there is none of that name yet. */
static bool name_port(void) {
        char path[96], name[128];
        bool found = false;
        FILE *file;
        glob_t ports;
        size_t n;

        mkdir("/dev/virtio-ports", 0755);
        if (glob("/sys/class/virtio-ports/*/name", 0, NULL, &ports) != 0)
                return false;
        for (size_t i = 0; i < ports.gl_pathc && !found; i++) {
                file = fopen(ports.gl_pathv[i], "re");
                n = file ? fread(name, 1, sizeof(name) - 1, file) : 0;
                if (file)
                        fclose(file);
                name[n] = '\0';
                if (strncmp(name, PORT, strlen(PORT)) != 0)
                        continue;
                snprintf(path, sizeof(path), "/dev/%.*s", (int)(strlen(ports.gl_pathv[i]) - strlen(SYS_PORTS "/name")),
                         ports.gl_pathv[i] + strlen(SYS_PORTS));
                found = symlink(path, "/dev/virtio-ports/" PORT) == 0;
        }
        globfree(&ports);
        return found;
}

/* The host tells of ports while the kernel goes on. */
static void await_port(void) {
        int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
        struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = 1 };
        struct pollfd poll_for = { .fd = fd, .events = POLLIN };
        char event[4096];

        if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
                printf("no events of the kernel: %s\n", strerror(errno));
        while (!name_port() && poll(&poll_for, 1, 10000) > 0)
                while (recv(fd, event, sizeof(event), MSG_DONTWAIT) > 0)
                        ;
        close(fd);
}

static void machine_begin(void) {
        mkdir("/proc", 0755);
        mount("proc", "/proc", "proc", 0, NULL);
        mount("sysfs", "/sys", "sysfs", 0, NULL);
        mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
        mount("tmpfs", "/tmp", "tmpfs", 0, NULL);
        machine_load_modules("");
        await_port();
}

/* ---- the device ---- */

static bool edu_begin(void) {
        uint16_t command = 0;
        int fd;

        if (registers)
                return true;
        machine_write_file(EDU "/enable", "1");
        fd = open(EDU "/config", O_RDWR | O_CLOEXEC);
        if (fd < 0 || pread(fd, &command, sizeof(command), 4) != sizeof(command))
                return false;
        command |= 6; /* memory, and DMA */
        if (pwrite(fd, &command, sizeof(command), 4) != sizeof(command))
                return false;
        close(fd);
        fd = open(EDU "/resource0", O_RDWR | O_CLOEXEC);
        registers = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        if (registers == MAP_FAILED)
                registers = NULL;
        return registers && (*(volatile uint32_t *)registers & 0xffff) == 0xed;
}

static void edu_start(uint64_t from, uint64_t to, uint64_t command) {
        *(volatile uint64_t *)(registers + 0x80) = from;
        *(volatile uint64_t *)(registers + 0x88) = to;
        *(volatile uint64_t *)(registers + 0x90) = CHUNK;
        *(volatile uint64_t *)(registers + 0x98) = command;
}

static void edu_run(uint64_t from, uint64_t to, uint64_t command) {
        edu_start(from, to, command);
        while (*(volatile uint64_t *)(registers + 0x98) & 1)
                ;
}

/* ---- bytes ---- */

static unsigned char pattern(uint64_t seed, size_t at) {
        return (unsigned char)((seed + at) * UINT64_C(0x9e3779b97f4a7c15) >> 56);
}

static void fill(void *where, size_t size, uint64_t seed) {
        for (size_t at = 0; at < size; at++)
                ((unsigned char *)where)[at] = pattern(seed, at);
}

static bool has(const void *where, size_t size, uint64_t seed) {
        for (size_t at = 0; at < size; at++)
                if (((const unsigned char *)where)[at] != pattern(seed, at))
                        return false;
        return true;
}

/* ---- commands ---- */

static void do_connect(void) {
        int tries = 0, r;

        dmab_disconnect(guest_dmab);
        guest_dmab = NULL;
        guest_device = NULL;
        memory = NULL;
        /* In an emulator within an emulator seconds are little time. */
        do
                r = dmab_connect("virtio:", &guest_dmab);
        while (r == -ETIMEDOUT && ++tries < 10);
        if (r == 0)
                r = dmab_device_open(guest_dmab, "0000:00:10.0", NULL, &guest_device);
        if (r == 0)
                guest_say("ok %s", dmab_device_translation(guest_device));
        else
                guest_say_result(r);
}

static void do_alloc(size_t size) {
        void *where;
        int r = dmab_alloc_coherent(guest_device, size, DMAB_ZERO, &where, &memory_dma);

        if (r < 0) {
                guest_say_result(r);
                return;
        }
        memory = where;
        memory_size = size;
        guest_say("ok dma 0x%" PRIx64, memory_dma);
}

static void do_free(void) {
        int r = dmab_free_coherent(guest_device, memory_size, memory, memory_dma);

        memory = NULL;
        guest_say_result(r);
}

/* The device copies the first half of a page to the second page, at the addresses that the broker has told. */
static void do_device(uint64_t seed) {
        if (!edu_begin()) {
                guest_say("error: there is no edu");
                return;
        }
        fill(memory, CHUNK, seed);
        memset(memory + PAGE, 0, CHUNK);
        edu_run(memory_dma, EDU_BUFFER, 1);
        edu_run(EDU_BUFFER, memory_dma + PAGE, 3);
        if (has(memory + PAGE, CHUNK, seed))
                guest_say("ok %d bytes compared", CHUNK);
        else
                guest_say("error: not the bytes that the device was given");
}

static void do_pool(uint64_t seed) {
        dmab_addr_t one_dma, other_dma;
        dmab_pool_t *pool;
        void *one, *other;
        int r;

        r = dmab_pool_create("ring", guest_device, CHUNK, 0, 0, NULL, &pool);
        if (r == 0)
                r = dmab_pool_alloc(pool, DMAB_WAIT, &one, &one_dma);
        if (r == 0)
                r = dmab_pool_alloc(pool, DMAB_WAIT, &other, &other_dma);
        if (r == 0 && edu_begin()) {
                fill(one, CHUNK, seed);
                memset(other, 0, CHUNK);
                edu_run(one_dma, EDU_BUFFER, 1);
                edu_run(EDU_BUFFER, other_dma, 3);
                if (!has(other, CHUNK, seed)) {
                        guest_say("error: not the bytes that the device was given");
                        return;
                }
                r = dmab_pool_free(pool, one, one_dma);
                if (r == 0)
                        r = dmab_pool_free(pool, other, other_dma);
                if (r == 0)
                        r = dmab_pool_destroy(pool);
        }
        guest_say_result(r);
}

static void do_bounce(uint64_t seed) {
        static char there[CHUNK], back[CHUNK];
        dmab_addr_t dma;
        int r;

        fill(there, CHUNK, seed);
        memset(back, 0, CHUNK);
        r = edu_begin() ? dmab_map_single(guest_device, there, CHUNK, DMAB_TO_DEVICE, &dma) : -ENODEV;
        if (r == 0) {
                edu_run(dma, EDU_BUFFER, 1);
                r = dmab_unmap_single(guest_device, dma, CHUNK, DMAB_TO_DEVICE);
        }
        if (r == 0)
                r = dmab_map_single(guest_device, back, CHUNK, DMAB_FROM_DEVICE, &dma);
        if (r == 0) {
                edu_run(EDU_BUFFER, dma, 3);
                r = dmab_unmap_single(guest_device, dma, CHUNK, DMAB_FROM_DEVICE);
        }
        if (r == 0 && !has(back, CHUNK, seed))
                guest_say("error: not the bytes that the device was given");
        else
                guest_say_result(r);
}

/* So many mappings of what was allocated last. */
static void do_map(uint64_t n) {
        struct dmab_coherent_info info = DMAB_COHERENT_INFO_INIT;
        char params[160];
        int r = dmab_coherent_info(guest_device, memory, &info);

        snprintf(params, sizeof(params), "{\"device\":%" PRIu64 ",\"alloc\":%" PRIu64 ",\"direction\":\"to_device\"}",
                 dmab_device_handle(guest_device), info.alloc);
        for (uint64_t i = 0; i < n && r == 0; i++)
                r = dmab_call(guest_dmab, "mapping.map", params, NULL);
        guest_say_result(r);
}

static void do_take(uint64_t seed) {
        void *first;

        if (storm_take(seed, &first, &memory_dma, &memory_size))
                memory = first;
}

/* The device is told to write, and nobody waits for it. */
static void do_late(uint64_t seed) {
        if (!edu_begin()) {
                guest_say("error: there is no edu");
                return;
        }
        fill(memory, CHUNK, seed);
        edu_run(memory_dma, EDU_BUFFER, 1);
        edu_start(EDU_BUFFER, memory_dma + PAGE, 3);
        guest_say("ok 0x%" PRIx64, memory_dma + PAGE);
        kill(getpid(), SIGKILL);
}

/* The device writes what it was given last to an address that it had once. */
static void do_stale(uint64_t dma) {
        bool is_there = edu_begin();

        if (is_there)
                edu_run(EDU_BUFFER, dma, 3);
        guest_say(is_there ? "ok" : "error: there is no edu");
}

static void do_halt(void) {
        guest_say("ok");
        reboot(RB_HALT_SYSTEM);
}

static void do_call(char *line) {
        char *params = strchr(line, ' '), *result = NULL;
        int r;

        if (params)
                *params++ = '\0';
        r = dmab_call(guest_dmab, line, params, &result);
        if (r == 0)
                guest_say("ok %s", result);
        else
                guest_say_result(r);
        free(result);
}

static void do_fill(uint64_t seed) {
        fill(memory, PAGE, seed);
        guest_say("ok");
}

static void do_verify(uint64_t seed) {
        guest_say(has(memory, PAGE, seed) ? "ok" : "error: other bytes");
}

static void do_reboot(void) {
        reboot(RB_AUTOBOOT);
}

static void do_off(void) {
        reboot(RB_POWER_OFF);
}

static void do_crash(void) {
        machine_write_file("/proc/sysrq-trigger", "c");
}

static void do_die(void) {
        kill(getpid(), SIGKILL);
}

/* A command has nothing after it, a number, or any text. */
static const struct command {
        const char *name;
        void (*plain)(void);
        void (*number)(uint64_t number);
        void (*text)(char *text);
} commands[] = {
        { .name = "connect", .plain = do_connect },
        { .name = "alloc", .number = do_alloc },
        { .name = "free", .plain = do_free },
        { .name = "fill", .number = do_fill },
        { .name = "verify", .number = do_verify },
        { .name = "device", .number = do_device },
        { .name = "pool", .number = do_pool },
        { .name = "bounce", .number = do_bounce },
        { .name = "map", .number = do_map },
        { .name = "call", .text = do_call },
        { .name = "reboot", .plain = do_reboot },
        { .name = "off", .plain = do_off },
        { .name = "crash", .plain = do_crash },
        { .name = "halt", .plain = do_halt },
        { .name = "die", .plain = do_die },
        { .name = "work", .plain = work_begin },
        { .name = "report", .number = work_report },
        { .name = "take", .number = do_take },
        { .name = "look", .number = storm_look },
        { .name = "drop", .plain = storm_drop },
        { .name = "late", .number = do_late },
        { .name = "stale", .number = do_stale },
        { .name = "flood", .text = storm_flood },
};

static void obey(char *line) {
        char *argument = strchr(line, ' ');

        if (argument)
                *argument++ = '\0';
        for (const struct command *command = commands; command < commands + sizeof(commands) / sizeof(*commands); command++) {
                if (strcmp(line, command->name) != 0)
                        continue;
                if (command->plain)
                        command->plain();
                else if (command->number)
                        command->number(argument && isdigit((unsigned char)*argument) ? strtoull(argument, NULL, 0) : 0);
                else if (argument)
                        command->text(argument);
                return;
        }
        guest_say("error: what is %s?", line);
}

static void serve(void) {
        char line[1024];

        guest_say("ready");
        while (fgets(line, sizeof(line), stdin)) {
                line[strcspn(line, "\r\n")] = '\0';
                if (*line)
                        obey(line);
        }
        reboot(RB_POWER_OFF);
}

/* Whoever obeys may die, as programs do; then there is another one. */
int main(void) {
        struct termios terminal;
        pid_t child;

        setvbuf(stdout, NULL, _IOLBF, 0);
        machine_begin();
        if (tcgetattr(0, &terminal) == 0) {
                terminal.c_lflag &= ~(tcflag_t)ECHO;
                tcsetattr(0, TCSANOW, &terminal);
        }
        while ((child = fork()) >= 0) {
                if (child == 0)
                        serve();
                while (waitpid(child, NULL, 0) != child)
                        ;
        }
        return 0;
}
