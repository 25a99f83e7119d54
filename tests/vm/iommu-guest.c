/* The first process of the virtual machine of iommu.sh: two `edu` devices behind an IOMMU do DMA to memory of a real daemon, at
 * the dma addresses that it hands out, and reach nothing else. What a device is told to read or write, it reads and
 * writes by itself, through the IOMMU: the bytes prove it. */
#include <dmabroker.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/daemon.h"
#include "tests/vm/machine.h"

enum {
        CHUNK = 2048, /* more at a time ends QEMU 7.2 */
        PAGE = 4096,
        HUGE_PAGES = 24,
        NEXT_OWNER = 1000,
        CLOSER = 1001, /* the configuration lets this user have the device as a whole */
};
#define MIB ((size_t)1 << 20)
#define EDU_BUFFER UINT64_C(0x40000)
#define EDU_MASK UINT64_C(0xfffffff) /* 28 bits */
#define EDU_WIDE_MASK UINT64_C(0xffffffffff) /* if QEMU was asked for it */

static void check(bool right, const char *what) {
        if (right) {
                printf("ok: %s\n", what);
                return;
        }
        printf("FAILED: %s (errno %d: %s; %s)\n", what, errno, strerror(errno), dmab_last_error());
        printf("VM-TEST-FAILED\n");
        fflush(stdout);
        reboot(RB_POWER_OFF);
}

/* What is done many times is told only when it fails. */
static void require(bool right, const char *what) {
        if (!right)
                check(false, what);
}

/* ---- the machine ---- */

/* From the kernel's command line: how the device is to be had; "type1" if nothing is said. */
static bool is_way(const char *way) {
        const char *given = getenv("WAY");

        return strcmp(given ? given : "type1", way) == 0;
}

static void machine_begin(void) {
        char number[16];

        mkdir("/proc", 0755);
        mount("proc", "/proc", "proc", 0, NULL);
        mount("sysfs", "/sys", "sysfs", 0, NULL);
        mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
        mount("tmpfs", "/tmp", "tmpfs", 0, NULL);
        setenv("TOP_BUILDDIR", "/bin", 1);
        setenv("TEST_TIMEOUT_MS", "60000", 1);
        machine_load_modules("allow_unsafe_interrupts=1");
        /* What the kernel has is not found: it is as with one that does not have it. */
        if (is_way("iommufd"))
                check(unlink("/dev/vfio/vfio") == 0, "there is no VFIO with containers");
        if (is_way("noiommu"))
                check(machine_write_file("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y"),
                      "VFIO does without an IOMMU");
        snprintf(number, sizeof(number), "%d", HUGE_PAGES);
        check(machine_write_file("/proc/sys/vm/nr_hugepages", number), "a file of the kernel is written");
        check(machine_write_file("/sys/bus/pci/drivers/vfio-pci/new_id", "1234 11e8"), "a file of the kernel is written");
}

/* ---- the device ---- */

struct edu {
        dmab_t *dmab;
        dmab_device_t *device;
        int fd;
        volatile uint8_t *registers;
        size_t n_registers; /* bytes */
};

static void edu_put(const struct edu *edu, unsigned at, uint64_t value) {
        *(volatile uint64_t *)(edu->registers + at) = value;
}

/* It is polled: the device has an interrupt for the end as well, which is not what is tested here. */
static void edu_run(const struct edu *edu, uint64_t from, uint64_t to, uint64_t command) {
        edu_put(edu, 0x80, from);
        edu_put(edu, 0x88, to);
        edu_put(edu, 0x90, CHUNK);
        edu_put(edu, 0x98, command);
        while (*(volatile uint64_t *)(edu->registers + 0x98) & 1)
                ;
}

static void edu_read(const struct edu *edu, dmab_addr_t from) {
        edu_run(edu, from, EDU_BUFFER, 1);
}

static void edu_write(const struct edu *edu, dmab_addr_t to) {
        edu_run(edu, EDU_BUFFER, to, 3);
}

static void edu_open(dmab_t *dmab, const char *name, struct edu *ret) {
        struct vfio_region_info bar = { .argsz = sizeof(bar), .index = VFIO_PCI_BAR0_REGION_INDEX };
        struct vfio_region_info config = { .argsz = sizeof(config), .index = VFIO_PCI_CONFIG_REGION_INDEX };
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        uint16_t command = 0;

        ret->dmab = dmab;
        options.mask = is_way("noiommu") ? EDU_WIDE_MASK : EDU_MASK;
        check(dmab_device_open(dmab, name, &options, &ret->device) == 0, "the device is opened");
        printf("its translation is %s\n", dmab_device_translation(ret->device));
        check(strcmp(dmab_device_translation(ret->device), is_way("noiommu") ? "identity" : "iommu") == 0, "as it should be");
        check(dmab_device_fd(ret->device, &ret->fd) == 0, "the broker passes the device");
        check(ioctl(ret->fd, VFIO_DEVICE_GET_REGION_INFO, &bar) == 0, "it has registers");
        ret->registers = mmap(NULL, bar.size, PROT_READ | PROT_WRITE, MAP_SHARED, ret->fd, (off_t)bar.offset);
        ret->n_registers = bar.size;
        check(ret->registers != MAP_FAILED && (*(volatile uint32_t *)ret->registers & 0xffff) == 0xed, "they are those of edu");
        check(ioctl(ret->fd, VFIO_DEVICE_GET_REGION_INFO, &config) == 0 &&
              pread(ret->fd, &command, sizeof(command), (off_t)config.offset + PCI_COMMAND) == sizeof(command),
              "it has a command");
        command |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
        check(pwrite(ret->fd, &command, sizeof(command), (off_t)config.offset + PCI_COMMAND) == sizeof(command), "it may do DMA");
}

static void edu_close(struct edu *edu) {
        munmap((void *)edu->registers, edu->n_registers);
        close(edu->fd);
        check(dmab_device_close_force(edu->device) == 0, "the device is closed");
}

/* ---- bytes ---- */

static unsigned char pattern(uint64_t seed, size_t at) {
        return (unsigned char)((seed + at) * UINT64_C(0x9e3779b97f4a7c15) >> 56);
}

static void fill(void *memory, uint64_t seed) {
        for (size_t at = 0; at < CHUNK; at++)
                ((unsigned char *)memory)[at] = pattern(seed, at);
}

static bool has(const void *memory, uint64_t seed) {
        for (size_t at = 0; at < CHUNK; at++)
                if (((const unsigned char *)memory)[at] != pattern(seed, at))
                        return false;
        return true;
}

/* The device copies from one place to another: both are reached, at the addresses that were told. */
static void copy(const struct edu *edu, void *from, dmab_addr_t from_dma, void *to, dmab_addr_t to_dma, uint64_t seed,
                 const char *what) {
        fill(from, seed);
        memset(to, 0, CHUNK);
        edu_read(edu, from_dma);
        edu_write(edu, to_dma);
        printf("0x%" PRIx64 " -> device -> 0x%" PRIx64 ": %d bytes compared\n", from_dma, to_dma, CHUNK);
        check(has(to, seed), what);
}

/* ---- what is tested ---- */

static void test_coherent(const struct edu *edu) {
        struct dmab_coherent_info info = DMAB_COHERENT_INFO_INIT;
        dmab_addr_t dma, large_dma;
        void *memory, *large;

        check(dmab_alloc_coherent(edu->device, 2 * PAGE, DMAB_ZERO, &memory, &dma) == 0, "8 KiB are allocated");
        check(dmab_coherent_info(edu->device, memory, &info) == 0, "they are described");
        printf("machine address 0x%" PRIx64 ", dma address 0x%" PRIx64 "\n", info.machine_addr, dma);
        check(dma + 2 * PAGE - 1 <= EDU_MASK, "the dma address is within the mask");
        check(info.machine_addr != dma, "it is not the machine address");
        copy(edu, memory, dma, (char *)memory + PAGE, dma + PAGE, 1, "the device reads and writes coherent memory");
        check(dmab_alloc_coherent(edu->device, 5 * MIB, DMAB_WAIT, &large, &large_dma) == 0, "5 MiB are allocated");
        check(large_dma % (2 * MIB) == 0, "their dma address is lined up for large pages");
        copy(edu, large, large_dma, (char *)large + 5 * MIB - CHUNK, large_dma + 5 * MIB - CHUNK, 2,
             "the device reaches both ends of a large allocation");
        check(dmab_free_coherent(edu->device, 5 * MIB, large, large_dma) == 0, "they are freed");
        check(dmab_free_coherent(edu->device, 2 * PAGE, memory, dma) == 0, "the 8 KiB too");
}

static void test_pool_and_bounce(const struct edu *edu) {
        static char buffer[CHUNK];
        dmab_addr_t one_dma, other_dma, dma;
        dmab_pool_t *pool;
        void *one, *other;

        check(dmab_pool_create("ring", edu->device, CHUNK, 0, 0, NULL, &pool) == 0, "a pool is made");
        check(dmab_pool_alloc(pool, DMAB_WAIT, &one, &one_dma) == 0, "a block is taken");
        check(dmab_pool_alloc(pool, DMAB_WAIT, &other, &other_dma) == 0, "another block is taken");
        copy(edu, one, one_dma, other, other_dma, 3, "the device reads and writes blocks of a pool");

        fill(buffer, 4);
        check(dmab_map_single(edu->device, buffer, sizeof(buffer), DMAB_TO_DEVICE, &dma) == 0,
              "a buffer is mapped to the device");
        edu_read(edu, dma);
        check(dmab_unmap_single(edu->device, dma, sizeof(buffer), DMAB_TO_DEVICE) == 0, "it is unmapped");
        edu_write(edu, other_dma);
        check(has(other, 4), "the device has read the bounced buffer");
        memset(buffer, 0, sizeof(buffer));
        check(dmab_map_single(edu->device, buffer, sizeof(buffer), DMAB_FROM_DEVICE, &dma) == 0, "it is mapped from the device");
        edu_write(edu, dma);
        check(dmab_unmap_single(edu->device, dma, sizeof(buffer), DMAB_FROM_DEVICE) == 0, "it is unmapped");
        check(has(buffer, 4), "the device has written the bounced buffer");
        check(dmab_pool_free(pool, one, one_dma) == 0 && dmab_pool_free(pool, other, other_dma) == 0 &&
              dmab_pool_destroy(pool) == 0, "all is given back");
}

/* What lies beside it keeps the region mapped here, so that its bytes can still be seen. */
static void test_stale(const struct edu *edu) {
        dmab_addr_t dma, beside_dma;
        void *memory, *beside;

        check(dmab_alloc_coherent(edu->device, PAGE, 0, &memory, &dma) == 0, "a page is allocated");
        check(dmab_alloc_coherent(edu->device, PAGE, 0, &beside, &beside_dma) == 0, "another page is allocated");
        fill(beside, 5);
        edu_read(edu, beside_dma);
        fill(memory, 6);
        check(dmab_free_coherent(edu->device, PAGE, memory, dma) == 0, "one of them is freed");
        edu_write(edu, dma);
        check(has(memory, 6), "a write to the address that it had has changed nothing");
        edu_write(edu, beside_dma + CHUNK);
        check(has((char *)beside + CHUNK, 5), "the other one is still reached");
        check(dmab_free_coherent(edu->device, PAGE, beside, beside_dma) == 0, "it is freed");
}

static uint64_t number_of(const char *text, const char *name) {
        char key[64];
        const char *at;

        snprintf(key, sizeof(key), "\"%s\":", name);
        at = text ? strstr(text, key) : NULL;
        check(at != NULL, "the answer has the number");
        at += strlen(key);
        return strtoull(at + (*at == '"'), NULL, 0);
}

/* A second device reaches what is mapped for it, at an address of its own, until it is unmapped. */
static void test_sharing(const struct edu *edu, const struct edu *second) {
        struct dmab_coherent_info info = DMAB_COHERENT_INFO_INIT;
        char params[160], *result = NULL;
        dmab_addr_t dma, iova, theirs_dma;
        uint64_t mapping;
        void *memory, *theirs;

        check(dmab_alloc_coherent(edu->device, PAGE, DMAB_SHAREABLE, &memory, &dma) == 0, "a page is allocated to be shared");
        check(dmab_coherent_info(edu->device, memory, &info) == 0, "it is described");
        check(dmab_alloc_coherent(second->device, PAGE, 0, &theirs, &theirs_dma) == 0, "so has the second device one of its own");
        fill(theirs, 20);
        edu_read(second, theirs_dma);
        fill(memory, 7);
        /* The same address may be both devices'. */
        edu_read(second, dma);
        edu_write(second, theirs_dma + CHUNK);
        check(!has((char *)theirs + CHUNK, 7), "it does not read what is the first one's");
        edu_write(second, dma);
        check(has(memory, 7), "nor does it write there");
        check(dmab_free_coherent(second->device, PAGE, theirs, theirs_dma) == 0, "its page is freed");
        snprintf(params, sizeof(params), "{\"device\":%" PRIu64 ",\"alloc\":%" PRIu64 ",\"direction\":\"bidirectional\"}",
                 dmab_device_handle(second->device), info.alloc);
        check(dmab_call(edu->dmab, "mapping.map", params, &result) == 0, "it is mapped for the second device");
        mapping = number_of(result, "mapping");
        iova = number_of(result, "iova");
        free(result);
        edu_read(second, iova);
        memset(memory, 0, CHUNK);
        edu_write(second, iova + CHUNK);
        check(has((char *)memory + CHUNK, 7), "which reads and writes it");
        fill(memory, 8);
        snprintf(params, sizeof(params), "{\"mapping\":%" PRIu64 "}", mapping);
        check(dmab_call(edu->dmab, "mapping.unmap", params, &result) == 0, "it is unmapped");
        free(result);
        edu_write(second, iova);
        check(has(memory, 8), "which ends what it can do");

        snprintf(params, sizeof(params), "{\"device\":%" PRIu64 ",\"alloc\":%" PRIu64 ",\"direction\":\"to_device\"}",
                 dmab_device_handle(second->device), info.alloc);
        check(dmab_call(edu->dmab, "mapping.map", params, &result) == 0, "it is mapped for the second device to read");
        mapping = number_of(result, "mapping");
        iova = number_of(result, "iova");
        free(result);
        edu_read(second, iova);
        fill(memory, 21);
        edu_write(second, iova);
        check(has(memory, 21), "which does not write there");
        snprintf(params, sizeof(params), "{\"mapping\":%" PRIu64 "}", mapping);
        check(dmab_call(edu->dmab, "mapping.unmap", params, &result) == 0, "it is unmapped");
        free(result);
        check(dmab_free_coherent(edu->device, PAGE, memory, dma) == 0, "the page is freed");
}

/* The device goes on while there is no daemon, and with the next one. */
static void test_survival(struct test_daemon *daemon, const struct edu *edu) {
        dmab_addr_t dma, new_dma;
        void *memory, *new;

        check(dmab_alloc_coherent(edu->device, 2 * PAGE, 0, &memory, &dma) == 0, "8 KiB are allocated");
        check(test_daemon_kill(daemon) == 0, "the daemon is killed");
        copy(edu, memory, dma, (char *)memory + PAGE, dma + PAGE, 9, "the device does DMA while there is no daemon");
        check(test_daemon_start_again(daemon) == 0, "another one starts");
        copy(edu, memory, dma, (char *)memory + PAGE, dma + PAGE, 10, "the device does DMA with the next daemon");
        check(dmab_alloc_coherent(edu->device, 2 * PAGE, 0, &new, &new_dma) == 0, "that one allocates");
        check(new_dma != dma, "at another address");
        copy(edu, new, new_dma, (char *)new + PAGE, new_dma + PAGE, 11, "where the device does DMA as well");
        fill(memory, 12);
        check(dmab_free_coherent(edu->device, 2 * PAGE, memory, dma) == 0, "what the first one gave is freed");
        edu_write(edu, dma);
        check(has(memory, 12), "a write to the address that it had has changed nothing");
        check(dmab_free_coherent(edu->device, 2 * PAGE, new, new_dma) == 0, "the rest too");
}

/* ---- many writes to what is not there any more ---- */

/* Of each kind of end that what the device could reach has come to. */
static struct {
        unsigned long writes;
        uint64_t bytes, changed;
} stale;

static uint64_t random_state = 1;

static uint64_t below(uint64_t n) {
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        return random_state % n;
}

/* Somewhere in it, while `now` is what is there. The device has other bytes than these. */
static void write_stale(const struct edu *edu, dmab_addr_t dma, size_t size, unsigned char *now) {
        uint64_t seed = below(UINT64_MAX);

        for (size_t at = 0; at < size; at++)
                now[at] = pattern(seed, at);
        edu_write(edu, dma + below((size - CHUNK) / 256 + 1) * 256);
        stale.writes++;
        stale.bytes += size;
        for (size_t at = 0; at < size; at++)
                stale.changed += now[at] != pattern(seed, at);
}

static size_t some_size(void) {
        return (1 + below(16)) * PAGE;
}

/* What lies beside it keeps it to be seen here. */
static void write_freed(const struct edu *edu) {
        size_t size = some_size();
        dmab_addr_t dma, beside_dma;
        void *memory, *beside;

        require(dmab_alloc_coherent(edu->device, PAGE, 0, &beside, &beside_dma) == 0, "memory is allocated and freed");
        require(dmab_alloc_coherent(edu->device, size, 0, &memory, &dma) == 0, "memory is allocated and freed");
        require(dmab_free_coherent(edu->device, size, memory, dma) == 0, "memory is allocated and freed");
        write_stale(edu, dma, size, memory);
        require(dmab_free_coherent(edu->device, PAGE, beside, beside_dma) == 0, "what lies beside is freed");
}

static void write_unmapped(const struct edu *edu, const struct edu *second) {
        struct dmab_coherent_info info = DMAB_COHERENT_INFO_INIT;
        size_t size = some_size();
        char params[160], *result = NULL;
        dmab_addr_t dma, iova;
        void *memory;

        require(dmab_alloc_coherent(edu->device, size, DMAB_SHAREABLE, &memory, &dma) == 0, "memory is allocated to be shared");
        require(dmab_coherent_info(edu->device, memory, &info) == 0, "memory is allocated to be shared");
        snprintf(params, sizeof(params), "{\"device\":%" PRIu64 ",\"alloc\":%" PRIu64 ",\"direction\":\"from_device\"}",
                 dmab_device_handle(second->device), info.alloc);
        require(dmab_call(edu->dmab, "mapping.map", params, &result) == 0, "it is mapped for the second device");
        iova = number_of(result, "iova");
        snprintf(params, sizeof(params), "{\"mapping\":%" PRIu64 "}", number_of(result, "mapping"));
        free(result);
        require(dmab_call(edu->dmab, "mapping.unmap", params, NULL) == 0, "it is unmapped");
        write_stale(second, iova, size, memory);
        require(dmab_free_coherent(edu->device, size, memory, dma) == 0, "it is freed");
}

static dmab_t *connect_as(const char *uri, uid_t uid) {
        dmab_t *dmab;

        require(seteuid(uid) == 0, "root becomes another user");
        require(dmab_connect(uri, &dmab) == 0, "who connects");
        require(seteuid(0) == 0, "root is back");
        return dmab;
}

/* Another owner waits until it has all that there is; what lay at the machine address is written to at its old dma address. */
static void write_given_on(const struct edu *edu, dmab_t *other, uint64_t machine_addr, dmab_addr_t dma, size_t size) {
        struct dmab_coherent_info info = DMAB_COHERENT_INFO_INIT;
        dmab_device_t *device;
        dmab_addr_t other_dma;
        bool found = false;
        void *memory;

        check(dmab_device_open(other, "other", NULL, &device) == 0, "somebody else opens a device");
        while (!found && dmab_alloc_coherent(device, MIB, DMAB_WAIT | DMAB_HIGH, &memory, &other_dma) == 0) {
                require(dmab_coherent_info(device, memory, &info) == 0, "its memory is described");
                found = machine_addr >= info.machine_addr && machine_addr + size <= info.machine_addr + info.size;
        }
        check(found, "it is given what the device could reach before");
        write_stale(edu, dma, size, (unsigned char *)memory + (machine_addr - info.machine_addr));
        check(dmab_device_close_force(device) == 0, "it closes its device");
}

static uint64_t machine_of(dmab_device_t *device, const void *memory) {
        struct dmab_coherent_info info = DMAB_COHERENT_INFO_INIT;

        require(dmab_coherent_info(device, memory, &info) == 0, "the machine address is told");
        require(info.machine_addr != DMAB_ADDR_NONE, "the machine address is told");
        return info.machine_addr;
}

/* A whole huge page: nothing else keeps it from going back. */
static void write_of_next_owner(const struct edu *edu, dmab_t *other) {
        uint64_t machine_addr;
        dmab_addr_t dma;
        void *memory;

        require(dmab_alloc_coherent(edu->device, 2 * MIB, 0, &memory, &dma) == 0, "memory is allocated");
        machine_addr = machine_of(edu->device, memory);
        require(dmab_free_coherent(edu->device, 2 * MIB, memory, dma) == 0, "it is freed");
        write_given_on(edu, other, machine_addr, dma, some_size());
}

/* Another owner had the device and has closed it, somebody else has the memory, and the device is opened anew. */
static void write_of_closed(const char *uri, dmab_t *dmab, dmab_t *other) {
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        dmab_t *first = connect_as(uri, CLOSER);
        uint64_t machine_addr;
        dmab_device_t *device;
        struct edu edu;
        dmab_addr_t dma;
        void *memory;

        options.mask = EDU_MASK;
        require(dmab_device_open(first, "0000:00:02.0", &options, &device) == 0, "another owner has the device");
        require(dmab_alloc_coherent(device, 2 * MIB, 0, &memory, &dma) == 0, "another owner has the device");
        machine_addr = machine_of(device, memory);
        require(dmab_device_close_force(device) == 0, "it closes it");
        edu_open(dmab, "0000:00:02.0", &edu);
        write_given_on(&edu, other, machine_addr, dma, some_size());
        edu_close(&edu);
        dmab_disconnect(first);
}

static void tell_stale(const char *what) {
        printf("%lu writes of the device to %s: %" PRIu64 " bytes compared, %" PRIu64 " changed\n", stale.writes, what,
               stale.bytes, stale.changed);
        check(stale.changed == 0, "nothing is changed");
        memset(&stale, 0, sizeof(stale));
}

/* From the kernel's command line: of each kind. */
static unsigned long how_many(void) {
        const char *wanted = getenv("WRITES");

        return wanted ? strtoul(wanted, NULL, 10) : 0;
}

static void test_many_stale(const char *uri, const struct edu *edu, const struct edu *second) {
        unsigned long n = how_many();
        dmab_t *other = connect_as(uri, NEXT_OWNER);

        for (unsigned long i = 0; i < n; i++)
                write_freed(edu);
        tell_stale("what was freed");
        for (unsigned long i = 0; i < n; i++)
                write_unmapped(edu, second);
        tell_stale("what was unmapped");
        for (unsigned long i = 0; i < n; i++)
                write_of_next_owner(edu, other);
        tell_stale("what is another owner's by then");
        dmab_disconnect(other);
}

/* The same, when nobody has the device. */
static void test_many_closed(const char *uri, dmab_t *dmab) {
        dmab_t *other = connect_as(uri, NEXT_OWNER);

        for (unsigned long i = 0; i < how_many(); i++)
                write_of_closed(uri, dmab, other);
        tell_stale("what another owner had, who has closed the device, and is somebody else's by then");
        dmab_disconnect(other);
}

static void test_refusals(const char *uri, struct edu *edu) {
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        dmab_device_t *other;
        dmab_addr_t dma;
        uint64_t region;
        dmab_t *dmab;
        void *memory;

        check(dmab_device_reserve(edu->device, MIB, 0, &region) == -EOPNOTSUPP, "nothing is reserved behind an IOMMU");
        check(dmab_alloc_coherent(edu->device, 512 * MIB, 0, &memory, &dma) == -ENOMEM, "there is no more memory than there is");
        check(dmab_supported(edu->device, 0xffff) == 0, "16 bits are too few for the IOMMU");
        check(seteuid(1000) == 0, "root becomes another user");
        check(dmab_connect(uri, &dmab) == 0, "who connects");
        options.mask = EDU_MASK;
        check(dmab_device_open(dmab, "0000:00:02.0", &options, &other) == -EPERM, "who may not have the device as a whole");
        printf("%s\n", dmab_last_error());
        dmab_disconnect(dmab);
        check(seteuid(0) == 0, "root is back");
}

static void check_books(dmab_t *dmab) {
        char *result = NULL;

        check(dmab_call(dmab, "debug.check", NULL, &result) == 0, "the books are looked at");
        printf("%s\n", result);
        check(strstr(result, "\"clean\":true"), "they are clean");
        free(result);
}

/* ---- without an IOMMU ---- */

static void test_untranslated(const struct edu *edu) {
        struct dmab_coherent_info info = DMAB_COHERENT_INFO_INIT;
        dmab_addr_t dma;
        void *memory;

        check(dmab_alloc_coherent(edu->device, 2 * PAGE, DMAB_ZERO, &memory, &dma) == 0, "8 KiB are allocated");
        check(dmab_coherent_info(edu->device, memory, &info) == 0, "they are described");
        printf("machine address 0x%" PRIx64 ", dma address 0x%" PRIx64 "\n", info.machine_addr, dma);
        check(info.machine_addr == dma, "the dma address is the machine address");
        copy(edu, memory, dma, (char *)memory + PAGE, dma + PAGE, 30, "the device reads and writes coherent memory");
        check(dmab_free_coherent(edu->device, 2 * PAGE, memory, dma) == 0, "they are freed");
}

static void check_memory_only(dmab_t *dmab, const char *what) {
        dmab_device_t *device;
        int fd;

        check(dmab_device_open(dmab, "0000:00:02.0", NULL, &device) == 0, what);
        check(strcmp(dmab_device_translation(device), "identity") == 0, "with machine addresses");
        check(dmab_device_fd(device, &fd) < 0, "but without the device itself");
        printf("%s\n", dmab_last_error());
        check(dmab_device_close(device) == 0, "and closes it");
}

static bool is_master(const char *pci) {
        char path[96];
        uint16_t command = 0;
        FILE *file;

        snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config", pci);
        file = fopen(path, "re");
        check(file && fseek(file, PCI_COMMAND, SEEK_SET) == 0 && fread(&command, sizeof(command), 1, file) == 1,
              "the configuration of the device is read");
        fclose(file);
        return command & PCI_COMMAND_MASTER;
}

/* Whoever had it has the descriptor still, as a program that was stopped would. */
static void test_stopped(const char *uri, dmab_t *dmab) {
        dmab_t *closer = connect_as(uri, CLOSER);
        dmab_addr_t dma;
        struct edu edu;
        void *memory;
        int calls = 0;

        edu_open(closer, "0000:00:02.0", &edu);
        check(dmab_alloc_coherent(edu.device, PAGE, 0, &memory, &dma) == 0, "an owner has the device, and memory for it");
        check(is_master("0000:00:02.0"), "the device may do DMA");
        dmab_disconnect(closer);
        while (is_master("0000:00:02.0") && ++calls < 1000)
                check(dmab_call(dmab, "broker.ping", NULL, NULL) == 0, "the daemon has had time");
        check(!is_master("0000:00:02.0"), "its owner is gone, and the device may not do DMA any more");
        close(edu.fd);
}

static void test_without_iommu(struct test_daemon *daemon, const char *uri, dmab_t *dmab) {
        dmab_t *stranger = connect_as(uri, NEXT_OWNER), *closer = connect_as(uri, CLOSER);
        dmab_addr_t dma;
        struct edu edu;
        void *memory;

        check_memory_only(stranger, "who may not have the device opens it");
        edu_open(dmab, "0000:00:02.0", &edu);
        test_untranslated(&edu);
        test_pool_and_bounce(&edu);
        check_memory_only(closer, "who might have it if nobody else had opens it");
        check(dmab_alloc_coherent(edu.device, 2 * PAGE, 0, &memory, &dma) == 0, "8 KiB are allocated");
        check(test_daemon_kill(daemon) == 0, "the daemon is killed");
        copy(&edu, memory, dma, (char *)memory + PAGE, dma + PAGE, 31, "the device does DMA while there is no daemon");
        check(test_daemon_start_again(daemon) == 0, "another one starts");
        close(edu.fd);
        check(dmab_device_fd(edu.device, &edu.fd) == 0, "which still has the device");
        copy(&edu, memory, dma, (char *)memory + PAGE, dma + PAGE, 32, "the device does DMA with the next daemon");
        test_untranslated(&edu);
        dmab_disconnect(closer);
        closer = connect_as(uri, CLOSER);
        check_memory_only(closer, "who might have it if nobody else had opens it again");
        edu_close(&edu);
        edu_open(closer, "0000:00:02.0", &edu);
        test_untranslated(&edu);
        edu_close(&edu);
        dmab_disconnect(closer);
        dmab_disconnect(stranger);
        test_stopped(uri, dmab);
}

static void test_with_iommu(struct test_daemon *daemon, const char *uri, dmab_t *dmab) {
        struct edu edu, second;

        edu_open(dmab, "0000:00:02.0", &edu);
        edu_open(dmab, "0000:00:03.0", &second);
        test_coherent(&edu);
        test_pool_and_bounce(&edu);
        test_stale(&edu);
        test_sharing(&edu, &second);
        test_many_stale(uri, &edu, &second);
        test_survival(daemon, &edu);
        test_refusals(uri, &edu);
        check_books(dmab);
        edu_close(&second);
        edu_close(&edu);
        test_many_closed(uri, dmab);
}

int main(void) {
        struct test_daemon_options options = {
                .source = "hugetlb", .survives = true, .open_directory = true,
                .config = "[daemon]\naccess = everyone\n[memory]\nregion_idle = 0\n[device 0000:00:02.0]\nallow = user:1001\n",
        };
        struct test_daemon *daemon;
        char uri[256];
        dmab_t *dmab;

        setvbuf(stdout, NULL, _IOLBF, 0);
        machine_begin();
        check(test_daemon_start(&options, &daemon) == 0, "a daemon serves huge pages");
        snprintf(uri, sizeof(uri), "unix:%s", test_daemon_socket(daemon));
        check(dmab_connect(uri, &dmab) == 0, "a client connects");
        if (is_way("noiommu"))
                test_without_iommu(daemon, uri, dmab);
        else
                test_with_iommu(daemon, uri, dmab);
        check_books(dmab);
        dmab_disconnect(dmab);
        check(test_daemon_end(daemon) == 0, "the daemon ends well");
        printf("VM-TEST-PASSED\n");
        reboot(RB_POWER_OFF);
        return 0;
}
