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
#include <termios.h>
#include <unistd.h>

#include "tests/vm/machine.h"

enum { CHUNK = 2048 /* more at a time ends QEMU 7.2 */, PAGE = 4096 };
#define PORT "org.dmabroker.0"
#define SYS_PORTS "/sys/class/virtio-ports/"
#define EDU_BUFFER UINT64_C(0x40000)
#define EDU "/sys/bus/pci/devices/0000:00:10.0"

static dmab_t *dmab;
static dmab_device_t *device;
static char *memory;
static dmab_addr_t memory_dma;
static size_t memory_size;
static volatile uint8_t *registers;

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *format, ...) {
        va_list arguments;

        printf("\n= ");
        va_start(arguments, format);
        vprintf(format, arguments);
        va_end(arguments);
        printf("\n");
}

static void say_result(int r) {
        if (r == 0)
                say("ok");
        else
                say("error %s: %s", strerrorname_np(-r), dmab_last_error());
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

static void edu_run(uint64_t from, uint64_t to, uint64_t command) {
        *(volatile uint64_t *)(registers + 0x80) = from;
        *(volatile uint64_t *)(registers + 0x88) = to;
        *(volatile uint64_t *)(registers + 0x90) = CHUNK;
        *(volatile uint64_t *)(registers + 0x98) = command;
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
        int r;

        dmab_disconnect(dmab);
        dmab = NULL;
        device = NULL;
        memory = NULL;
        r = dmab_connect("virtio:", &dmab);
        if (r == 0)
                r = dmab_device_open(dmab, "0000:00:10.0", NULL, &device);
        if (r == 0)
                say("ok %s", dmab_device_translation(device));
        else
                say_result(r);
}

static void do_alloc(size_t size) {
        void *where;
        int r = dmab_alloc_coherent(device, size, DMAB_ZERO, &where, &memory_dma);

        if (r < 0) {
                say_result(r);
                return;
        }
        memory = where;
        memory_size = size;
        say("ok dma 0x%" PRIx64, memory_dma);
}

static void do_free(void) {
        int r = dmab_free_coherent(device, memory_size, memory, memory_dma);

        memory = NULL;
        say_result(r);
}

/* The device copies the first half of a page to the second page, at the addresses that the broker has told. */
static void do_device(uint64_t seed) {
        if (!edu_begin()) {
                say("error: there is no edu");
                return;
        }
        fill(memory, CHUNK, seed);
        memset(memory + PAGE, 0, CHUNK);
        edu_run(memory_dma, EDU_BUFFER, 1);
        edu_run(EDU_BUFFER, memory_dma + PAGE, 3);
        if (has(memory + PAGE, CHUNK, seed))
                say("ok %d bytes compared", CHUNK);
        else
                say("error: not the bytes that the device was given");
}

static void do_pool(uint64_t seed) {
        dmab_addr_t one_dma, other_dma;
        dmab_pool_t *pool;
        void *one, *other;
        int r;

        r = dmab_pool_create("ring", device, CHUNK, 0, 0, NULL, &pool);
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
                        say("error: not the bytes that the device was given");
                        return;
                }
                r = dmab_pool_free(pool, one, one_dma);
                if (r == 0)
                        r = dmab_pool_free(pool, other, other_dma);
                if (r == 0)
                        r = dmab_pool_destroy(pool);
        }
        say_result(r);
}

static void do_bounce(uint64_t seed) {
        static char there[CHUNK], back[CHUNK];
        dmab_addr_t dma;
        int r;

        fill(there, CHUNK, seed);
        memset(back, 0, CHUNK);
        r = edu_begin() ? dmab_map_single(device, there, CHUNK, DMAB_TO_DEVICE, &dma) : -ENODEV;
        if (r == 0) {
                edu_run(dma, EDU_BUFFER, 1);
                r = dmab_unmap_single(device, dma, CHUNK, DMAB_TO_DEVICE);
        }
        if (r == 0)
                r = dmab_map_single(device, back, CHUNK, DMAB_FROM_DEVICE, &dma);
        if (r == 0) {
                edu_run(EDU_BUFFER, dma, 3);
                r = dmab_unmap_single(device, dma, CHUNK, DMAB_FROM_DEVICE);
        }
        if (r == 0 && !has(back, CHUNK, seed))
                say("error: not the bytes that the device was given");
        else
                say_result(r);
}

/* So many mappings of what was allocated last. */
static void do_map(uint64_t n) {
        struct dmab_coherent_info info = DMAB_COHERENT_INFO_INIT;
        char params[160];
        int r = dmab_coherent_info(device, memory, &info);

        snprintf(params, sizeof(params), "{\"device\":%" PRIu64 ",\"alloc\":%" PRIu64 ",\"direction\":\"to_device\"}",
                 dmab_device_handle(device), info.alloc);
        for (uint64_t i = 0; i < n && r == 0; i++)
                r = dmab_call(dmab, "mapping.map", params, NULL);
        say_result(r);
}

static void do_call(char *line) {
        char *params = strchr(line, ' '), *result = NULL;
        int r;

        if (params)
                *params++ = '\0';
        r = dmab_call(dmab, line, params, &result);
        if (r == 0)
                say("ok %s", result);
        else
                say_result(r);
        free(result);
}

static void obey(char *line) {
        char *argument = strchr(line, ' ');
        uint64_t number;

        if (argument)
                *argument++ = '\0';
        number = argument && isdigit((unsigned char)*argument) ? strtoull(argument, NULL, 0) : 0;
        if (strcmp(line, "connect") == 0)
                do_connect();
        else if (strcmp(line, "alloc") == 0)
                do_alloc(number);
        else if (strcmp(line, "free") == 0)
                do_free();
        else if (strcmp(line, "fill") == 0) {
                fill(memory, PAGE, number);
                say("ok");
        } else if (strcmp(line, "verify") == 0)
                say(has(memory, PAGE, number) ? "ok" : "error: other bytes");
        else if (strcmp(line, "device") == 0)
                do_device(number);
        else if (strcmp(line, "pool") == 0)
                do_pool(number);
        else if (strcmp(line, "bounce") == 0)
                do_bounce(number);
        else if (strcmp(line, "map") == 0)
                do_map(number);
        else if (strcmp(line, "call") == 0 && argument)
                do_call(argument);
        else if (strcmp(line, "reboot") == 0)
                reboot(RB_AUTOBOOT);
        else if (strcmp(line, "off") == 0)
                reboot(RB_POWER_OFF);
        else if (strcmp(line, "crash") == 0)
                machine_write_file("/proc/sysrq-trigger", "c");
        else
                say("error: what is %s?", line);
}

int main(void) {
        struct termios terminal;
        char line[1024];

        setvbuf(stdout, NULL, _IOLBF, 0);
        machine_begin();
        if (tcgetattr(0, &terminal) == 0) {
                terminal.c_lflag &= ~(tcflag_t)ECHO;
                tcsetattr(0, TCSANOW, &terminal);
        }
        say("ready");
        while (fgets(line, sizeof(line), stdin)) {
                line[strcspn(line, "\r\n")] = '\0';
                if (*line)
                        obey(line);
        }
        reboot(RB_POWER_OFF);
        return 0;
}
