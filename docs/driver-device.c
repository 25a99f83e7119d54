/* The device of driver-before.c and driver-after.c. What it is given are addresses, and it finds the memory there as far
 * from the driver as it can: it asks the kernel which page of this process lies there, or with DEVICE_ASKS_BROKER, which
 * works with simulated memory too, it asks the broker in a session of its own. A wrong address ends the program. */
#include "driver-device.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct {
        uint64_t send_ring, receive_ring;
        uint32_t n, send_next, receive_next;
} registers;

static void *bus_error(uint64_t addr, const char *why) {
        fprintf(stderr, "bus error: the device finds nothing at 0x%llx: %s\n", (unsigned long long)addr, why);
        exit(1);
}

#ifdef DEVICE_ASKS_BROKER

#include <dmabroker.h>

enum { REGIONS_MOST = 16 };

static struct {
        unsigned long long number;
        unsigned char *memory;
} regions[REGIONS_MOST];

static unsigned long long member(const char *json, const char *name) {
        char wanted[32];
        const char *found;

        snprintf(wanted, sizeof(wanted), "\"%s\":", name);
        found = strstr(json, wanted);
        return found ? strtoull(found + strlen(wanted), NULL, 10) : 0;
}

/* The memory of a region, mapped once. */
static unsigned char *region_memory(dmab_t *broker, unsigned long long number) {
        size_t i = 0, n_fds;
        char text[64], *answer;
        int fd;

        while (i < REGIONS_MOST - 1 && regions[i].number && regions[i].number != number)
                i++;
        if (regions[i].number == number)
                return regions[i].memory;
        snprintf(text, sizeof(text), "{\"region\": %llu}", number);
        if (dmab_call_fds(broker, "region.get", text, &answer, &fd, 1, &n_fds) || !n_fds)
                return NULL;
        regions[i].number = number;
        regions[i].memory = mmap(NULL, member(answer, "size"), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        free(answer);
        return regions[i].memory == MAP_FAILED ? NULL : regions[i].memory;
}

static void *bus_find(uint64_t addr) {
        static dmab_t *broker;
        unsigned char *memory;
        char text[64], *answer;

        if (!broker && dmab_connect(NULL, &broker))
                return bus_error(addr, dmab_last_error());
        snprintf(text, sizeof(text), "{\"dma_addr\": \"0x%llx\"}", (unsigned long long)addr);
        if (dmab_call(broker, "coherent.lookup", text, &answer))
                return bus_error(addr, dmab_last_error());
        memory = region_memory(broker, member(answer, "region"));
        if (!memory)
                return bus_error(addr, dmab_last_error());
        memory += member(answer, "offset") + member(answer, "at");
        free(answer);
        return memory;
}

#else

enum { PAGE = 4096, ENTRIES = 512 };

/* The kernel's page map, backwards: is one of the pages from `start` on the one at addr? */
static void *find_page(int pagemap, unsigned long start, unsigned long end, uint64_t addr) {
        uint64_t entries[ENTRIES];

        for (; start < end; start += ENTRIES * PAGE) {
                ssize_t n = pread(pagemap, entries, sizeof(entries), (off_t)(start / PAGE * sizeof(*entries)));

                /* Bit 63: present. Bits 0 to 54: the page's number. */
                for (ssize_t i = 0; i < n / (ssize_t)sizeof(*entries); i++)
                        if (entries[i] >> 63 && (entries[i] & ((UINT64_C(1) << 55) - 1)) == addr / PAGE)
                                return (void *)(start + (unsigned long)i * PAGE + addr % PAGE);
        }
        return NULL;
}

static void *bus_find(uint64_t addr) {
        int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
        FILE *maps = fopen("/proc/self/maps", "re");
        unsigned long start, end;
        void *found = NULL;
        char line[512];

        while (maps && !found && fgets(line, sizeof(line), maps))
                if (strstr(line, "hugepage") && sscanf(line, "%lx-%lx", &start, &end) == 2)
                        found = find_page(pagemap, start, end, addr);
        if (maps)
                fclose(maps);
        close(pagemap);
        return found ? found : bus_error(addr, "no huge page of this process is there");
}

#endif

void device_set_rings(uint64_t send_ring, uint64_t receive_ring, uint32_t n) {
        registers.send_ring = send_ring;
        registers.receive_ring = receive_ring;
        registers.n = n;
        registers.send_next = registers.receive_next = 0;
}

void device_doorbell(void) {
        struct descriptor *send = bus_find(registers.send_ring), *receive = bus_find(registers.receive_ring);

        for (;;) {
                struct descriptor *from = &send[registers.send_next], *to = &receive[registers.receive_next];

                if (!from->size || from->done || !to->size || to->done)
                        return;
                if (from->size <= to->size) {
                        memcpy(bus_find(to->addr), bus_find(from->addr), from->size);
                        to->size = from->size;
                        to->done = 1;
                        registers.receive_next = (registers.receive_next + 1) % registers.n;
                }
                from->done = 1;
                registers.send_next = (registers.send_next + 1) % registers.n;
        }
}
