/* What `./run demo` shows: memory that the broker gave, compared page by page with what the kernel says of it. The
 * example for programs is example.c; this one looks behind the curtain, which needs root. */
#include <dmabroker.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PAGE = 4096 };

/* The machine address of the page at vaddr, or 0 where the kernel does not tell. */
static uint64_t kernel_address(int pagemap, const void *vaddr) {
        uint64_t entry;

        if (pread(pagemap, &entry, sizeof(entry), (off_t)((uintptr_t)vaddr / PAGE * sizeof(entry))) != sizeof(entry))
                return 0;
        /* Bit 63: present. Bits 0 to 54: the frame's number, 0 for those who may not know. */
        return entry >> 63 ? (entry & ((UINT64_C(1) << 55) - 1)) * PAGE : 0;
}

static int compare(const char *memory, size_t size, uint64_t machine_addr) {
        size_t right = 0;
        int pagemap;

        pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
        if (pagemap < 0) {
                perror("/proc/self/pagemap");
                return 1;
        }
        for (size_t at = 0; at < size; at += PAGE)
                right += kernel_address(pagemap, memory + at) == machine_addr + at;
        close(pagemap);
        printf("  %zu of %zu pages are where the broker said, in one piece\n", right, size / PAGE);
        return right != size / PAGE;
}

static int show(dmab_device_t *device, size_t size) {
        struct dmab_coherent_info info = DMAB_COHERENT_INFO_INIT;
        dmab_addr_t dma;
        void *memory;
        int r, wrong = 0;

        /* How much is adjacent is the machine's luck: take the largest piece that there is. */
        while ((r = dmab_alloc_coherent(device, size, DMAB_NOWAIT | DMAB_ZERO, &memory, &dma)) == -ENOMEM && size > PAGE) {
                printf("%zu KiB: %s\n", size / 1024, dmab_last_error());
                size /= 2;
        }
        if (r < 0 || dmab_coherent_info(device, memory, &info) < 0) {
                fprintf(stderr, "no memory: %s\n", dmab_last_error());
                return 1;
        }
        printf("%zu KiB: the device is given 0x%" PRIx64 ", the program has it at %p\n", size / 1024, dma, memory);
        memset(memory, 0xa5, size);
        if (info.addressing == DMAB_ADDRESSING_SIMULATED)
                printf("  simulated: the address is made up, so there is nothing to compare it with\n");
        else
                wrong = compare(memory, size, info.machine_addr);
        if (dmab_free_coherent(device, size, memory, dma) < 0) {
                fprintf(stderr, "cannot free: %s\n", dmab_last_error());
                return 1;
        }
        return wrong;
}

int main(void) {
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        dmab_device_t *device;
        dmab_t *broker;
        int wrong;

        options.coherent_mask = DMAB_MASK(64);
        if (dmab_connect(NULL, &broker) < 0) {
                fprintf(stderr, "cannot connect: %s\n", dmab_last_error());
                return 1;
        }
        if (dmab_device_open(broker, "demo-card", &options, &device) < 0) {
                fprintf(stderr, "cannot open the device: %s\n", dmab_last_error());
                dmab_disconnect(broker);
                return 1;
        }
        wrong = show(device, 64 << 10);
        wrong |= show(device, 16 << 20);
        dmab_disconnect(broker);
        return wrong;
}
