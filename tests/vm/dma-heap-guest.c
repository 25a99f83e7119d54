/* Inside the virtual machine of dma-heap.sh: memory below 4 GiB from a daemon whose only source is a dma-buf heap, compared
 * with physical memory as /dev/mem shows it, which is another way than the daemon's. The machine has little else to do,
 * so that the whole of CMA can be taken and given back.
 *
 *      dma-heap-guest              every test
 *      dma-heap-guest few          only a few allocations
 *      dma-heap-guest without-rawio COMMAND...   run it without the right to look at physical memory */
#include <dmabroker.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, BLOCKS_MAX = 256 };
#define MIB ((size_t)1 << 20)

static int mem;

struct block {
        char *memory;
        dmab_addr_t dma;
        uint64_t machine_addr;
        size_t size;
};

static void check(bool right, const char *what) {
        if (right)
                return;
        printf("FAILED: %s (errno %d, %s)\n", what, errno, dmab_last_error());
        exit(1);
}

static unsigned char pattern(uint64_t seed, size_t at) {
        return (unsigned char)((seed + at) * UINT64_C(0x9e3779b97f4a7c15) >> 56);
}

static void fill(const struct block *block, uint64_t seed) {
        for (size_t at = 0; at < block->size; at++)
                block->memory[at] = (char)pattern(seed, at);
}

/* Physical memory has what was written through the mapping, and the other way round. */
static void compare(const struct block *block, uint64_t seed) {
        char page[PAGE], word[8] = "physical";

        for (size_t at = 0; at < block->size; at += PAGE) {
                check(pread(mem, page, PAGE, (off_t)(block->machine_addr + at)) == PAGE, "/dev/mem is read");
                for (size_t i = 0; i < PAGE; i++)
                        check((unsigned char)page[i] == pattern(seed, at + i), "physical memory has what was written");
        }
        check(pwrite(mem, word, 8, (off_t)(block->machine_addr + block->size - 8)) == 8, "/dev/mem is written");
        check(memcmp(block->memory + block->size - 8, word, 8) == 0, "what is written physically shows in the mapping");
}

static int take(dmab_device_t *device, size_t size, unsigned flags, struct block *ret) {
        struct dmab_coherent_info info = DMAB_COHERENT_INFO_INIT;
        void *memory;
        int r;

        r = dmab_alloc_coherent(device, size, DMAB_NOWAIT | DMAB_ZERO | flags, &memory, &ret->dma);
        if (r < 0)
                return r;
        check(dmab_coherent_info(device, memory, &info) == 0, "an allocation tells about itself");
        check(info.addressing == DMAB_ADDRESSING_MACHINE, "the address is a machine address");
        check(info.machine_addr == ret->dma, "the device is given the machine address");
        check(info.machine_addr + size <= UINT64_C(1) << 32, "the memory lies below 4 GiB");
        ret->memory = memory;
        ret->machine_addr = info.machine_addr;
        ret->size = size;
        return 0;
}

static void give(dmab_device_t *device, const struct block *block) {
        check(dmab_free_coherent(device, block->size, block->memory, block->dma) == 0, "memory is given back");
}

static void test_physical_memory_is_what_the_mapping_shows(dmab_device_t *device) {
        static const size_t sizes[] = { PAGE, 3 * PAGE, 64 * 1024, MIB, 8 * MIB };
        struct block block;

        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                check(take(device, sizes[i], 0, &block) == 0, "memory is given");
                for (size_t at = 0; at < block.size; at++)
                        check(block.memory[at] == 0, "new memory is zero");
                fill(&block, i + 1);
                compare(&block, i + 1);
                printf("%zu bytes at 0x%" PRIx64 "\n", block.size, block.machine_addr);
                give(device, &block);
        }
}

static bool overlap(const struct block *a, const struct block *b) {
        return a->machine_addr < b->machine_addr + b->size && b->machine_addr < a->machine_addr + a->size;
}

/* Everything there is, in pieces of 1 MiB. Returns how many. */
static size_t take_all(dmab_device_t *device, unsigned flags, struct block blocks[BLOCKS_MAX]) {
        size_t n = 0;
        int r;

        while ((r = take(device, MIB, flags, &blocks[n])) == 0) {
                for (size_t i = 0; i < n; i++)
                        check(!overlap(&blocks[i], &blocks[n]), "no memory is given twice");
                fill(&blocks[n], n);
                check(++n < BLOCKS_MAX, "there is an end to CMA");
        }
        check(r == -ENOMEM, "the end of CMA is an error like any other");
        printf("then: %s\n", dmab_last_error());
        return n;
}

static void give_all(dmab_device_t *device, const struct block *blocks, size_t n) {
        while (n-- > 0) {
                compare(&blocks[n], n);
                give(device, &blocks[n]);
        }
}

static void test_all_of_cma_is_given_once_and_comes_back(dmab_device_t *device) {
        struct block blocks[BLOCKS_MAX];
        size_t n, again;

        n = take_all(device, 0, blocks);
        check(n >= 48, "most of CMA can be had");
        check(system("dmabrokerctl check") == 0, "the daemon finds its books and its memory in order");
        give_all(device, blocks, n);
        again = take_all(device, 0, blocks);
        check(again == n, "what was given back can be had again");
        give_all(device, blocks, again);
        printf("%zu MiB, twice\n", n);
}

/* The source has got back every region: their owner keeps unused ones only for a moment, as configured. */
static void wait_for_regions_to_end(dmab_t *broker) {
        bool ended = false;
        char *status;

        while (!ended) {
                check(dmab_call(broker, "broker.status", "{}", &status) == 0, "the status is told");
                ended = strstr(status, "\"regions\":0,") || strstr(status, "\"regions\": 0,");
                free(status);
        }
}

/* The child has the mapping too, and cannot be made to let it go. */
static void test_memory_that_somebody_still_holds_goes_to_nobody_else(dmab_t *broker, dmab_device_t *device) {
        struct block blocks[BLOCKS_MAX], held;
        size_t n, i, again;
        char page[PAGE];
        pid_t child;

        check(take(device, 4 * MIB, 0, &held) == 0, "memory is given");
        child = fork();
        check(child >= 0, "a child is born");
        if (child == 0) {
                fill(&held, 4711);
                for (;;)
                        pause();
        }
        while (held.memory[held.size - 1] != (char)pattern(4711, held.size - 1))
                sched_yield();
        give(device, &held);
        wait_for_regions_to_end(broker);
        n = take_all(device, DMAB_HIGH, blocks);
        for (i = 0; i < n; i++)
                check(!overlap(&blocks[i], &held), "what is held is not given away");
        check(pread(mem, page, PAGE, (off_t)held.machine_addr) == PAGE, "/dev/mem is read");
        for (i = 0; i < PAGE; i++)
                check((unsigned char)page[i] == pattern(4711, i), "what is held stays as it was");
        kill(child, SIGKILL);
        check(waitpid(child, NULL, 0) == child, "the child ends");
        give_all(device, blocks, n);
        wait_for_regions_to_end(broker);
        again = take_all(device, DMAB_HIGH, blocks);
        check(again >= n + 3, "when the holder has ended, its memory can be had again");
        give_all(device, blocks, again);
        printf("%zu MiB without what was held, %zu MiB after\n", n, again);
}

static dmab_device_t *open_device(dmab_t *broker, const char *name, unsigned bits) {
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        dmab_device_t *device = NULL;

        options.mask = DMAB_MASK(bits);
        options.coherent_mask = DMAB_MASK(bits);
        check(dmab_device_open(broker, name, &options, &device) == 0, "a device is opened");
        return device;
}

static int without_rawio(char **command) {
        check(prctl(PR_CAPBSET_DROP, CAP_SYS_RAWIO, 0, 0, 0) == 0, "a capability is dropped");
        execvp(command[0], command);
        perror(command[0]);
        return 127;
}

int main(int argc, char **argv) {
        dmab_device_t *narrow, *wide;
        dmab_t *broker;

        if (argc > 2 && strcmp(argv[1], "without-rawio") == 0)
                return without_rawio(argv + 2);
        setvbuf(stdout, NULL, _IOLBF, 0);
        mem = open("/dev/mem", O_RDWR | O_CLOEXEC);
        check(mem >= 0, "/dev/mem is opened");
        check(dmab_connect(NULL, &broker) == 0, "the daemon answers");
        narrow = open_device(broker, "narrow", 32);
        test_physical_memory_is_what_the_mapping_shows(narrow);
        if (argc < 2) {
                wide = open_device(broker, "wide", 64);
                test_physical_memory_is_what_the_mapping_shows(wide);
                check(dmab_device_close(wide) == 0, "a device is closed");
                test_all_of_cma_is_given_once_and_comes_back(narrow);
                test_memory_that_somebody_still_holds_goes_to_nobody_else(broker, narrow);
        }
        check(dmab_device_close(narrow) == 0, "a device is closed");
        dmab_disconnect(broker);
        return 0;
}
