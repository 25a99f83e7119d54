#include "daemon/source/physmem.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "daemon/source/pagemap.h"

enum {
        SEGMENTS_MAX = 4096,
        /* How often the page that proves the mapping may move before we give up. */
        PROOF_ROUNDS = 16,
};

struct segment {
        uint64_t virt;   /* kernel's virtual address */
        uint64_t offset; /* in the file */
};

struct physmem {
        int fd;
        /* In parallel: ranges[i] of physical memory is segments[i] of the file. */
        struct mark_range *ranges;
        struct segment *segments;
        size_t n;
};

static int read_all(int fd, uint64_t offset, void *ret, size_t size) {
        ssize_t n;

        while (size > 0) {
                n = pread(fd, ret, size, (off_t)offset);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                ret = (char *)ret + n;
                offset += (uint64_t)n;
                size -= (size_t)n;
        }
        return 0;
}

int physmem_read(void *userdata, uint64_t addr, void *ret, size_t size) {
        const struct physmem *physmem = userdata;
        const struct mark_range *range;
        size_t i;

        for (i = 0; i < physmem->n; i++) {
                range = &physmem->ranges[i];
                if (addr >= range->addr && addr - range->addr < range->size && size <= range->size - (addr - range->addr))
                        return read_all(physmem->fd, physmem->segments[i].offset + (addr - range->addr), ret, size);
        }
        return -ENXIO;
}

size_t physmem_ranges(const struct physmem *physmem, const struct mark_range **ret) {
        *ret = physmem->ranges;
        return physmem->n;
}

static int read_header(struct physmem *physmem, Elf64_Ehdr *ret) {
        int r;

        r = read_all(physmem->fd, 0, ret, sizeof(*ret));
        if (r < 0)
                return r;
        if (memcmp(ret->e_ident, ELFMAG, SELFMAG) != 0 || ret->e_ident[EI_CLASS] != ELFCLASS64 || ret->e_type != ET_CORE ||
            ret->e_phentsize != sizeof(Elf64_Phdr) || ret->e_phnum == 0 || ret->e_phnum > SEGMENTS_MAX)
                return -ENOEXEC;
        return 0;
}

/* Segments outside of physical memory (modules, vmalloc) say -1 for their physical address. */
static int read_segments(struct physmem *physmem) {
        const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
        Elf64_Ehdr header;
        Elf64_Phdr segment;
        uint64_t skip;
        size_t i;
        int r;

        r = read_header(physmem, &header);
        if (r < 0)
                return r;
        physmem->ranges = calloc(header.e_phnum, sizeof(*physmem->ranges));
        physmem->segments = calloc(header.e_phnum, sizeof(*physmem->segments));
        if (!physmem->ranges || !physmem->segments)
                return -ENOMEM;
        for (i = 0; i < header.e_phnum; i++) {
                r = read_all(physmem->fd, header.e_phoff + i * sizeof(segment), &segment, sizeof(segment));
                if (r < 0)
                        return r;
                skip = (page - segment.p_paddr % page) % page;
                if (segment.p_type != PT_LOAD || segment.p_paddr == UINT64_MAX || segment.p_memsz <= skip ||
                    segment.p_paddr > UINT64_MAX - segment.p_memsz || (segment.p_memsz - skip) / page == 0)
                        continue;
                physmem->ranges[physmem->n] = (struct mark_range){
                        .addr = segment.p_paddr + skip,
                        .size = (segment.p_memsz - skip) / page * page,
                };
                physmem->segments[physmem->n++] = (struct segment){
                        .virt = segment.p_vaddr + skip,
                        .offset = segment.p_offset + skip,
                };
        }
        return 0;
}

/* Keep the segments of the kernel's linear mapping: all those in which virtual and physical address differ by as much as
 * in the segment that was proven. Older kernels do not tell physical addresses, others tell them also of their own
 * image, which lies elsewhere once more. */
static void keep_linear(struct physmem *physmem, uint64_t distance) {
        size_t i, n = 0;

        for (i = 0; i < physmem->n; i++) {
                if (physmem->segments[i].virt - physmem->ranges[i].addr != distance)
                        continue;
                physmem->ranges[n] = physmem->ranges[i];
                physmem->segments[n++] = physmem->segments[i];
        }
        physmem->n = n;
}

/* Which segment shows `proof`, which the page map says is at addr? -ENXIO: none. */
static int find_proof(const struct physmem *physmem, uint64_t addr, const uint64_t proof[4], uint64_t *ret_distance) {
        uint64_t got[4];
        size_t i;

        for (i = 0; i < physmem->n; i++) {
                const struct mark_range *range = &physmem->ranges[i];
                const struct segment *segment = &physmem->segments[i];

                if (addr < range->addr || addr - range->addr >= range->size)
                        continue;
                if (read_all(physmem->fd, segment->offset + (addr - range->addr), got, sizeof(got)) < 0 ||
                    memcmp(got, proof, sizeof(got)) != 0)
                        continue;
                *ret_distance = segment->virt - range->addr;
                return 0;
        }
        return -ENXIO;
}

static int prove_with(struct physmem *physmem, int pagemap_fd, uint64_t *page) {
        uint64_t addr, distance;
        int r = -ENXIO, round;

        /* The kernel may move the page between the look at its address and the look at its content. */
        for (round = 0; round < PROOF_ROUNDS && r == -ENXIO; round++) {
                if (getrandom(page, 4 * sizeof(*page), 0) != 4 * sizeof(*page))
                        return -EIO;
                r = pagemap_read(pagemap_fd, page, &addr);
                if (r == 0)
                        r = find_proof(physmem, addr, page, &distance);
                else if (r == -ENOENT)
                        r = -ENXIO;
        }
        if (r == 0)
                keep_linear(physmem, distance);
        return r;
}

static int prove(struct physmem *physmem, struct failure *failure) {
        const size_t size = (size_t)sysconf(_SC_PAGESIZE);
        void *page;
        int fd, r;

        fd = pagemap_open();
        if (fd < 0)
                return failure_set_errno(failure, REASON_source_unavailable, -fd, "/proc/self/pagemap cannot be opened: %s",
                                         strerror(-fd));
        page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        r = page == MAP_FAILED ? -errno : prove_with(physmem, fd, page);
        if (page != MAP_FAILED)
                munmap(page, size);
        close(fd);
        if (r == -ENXIO)
                return failure_set_errno(failure, REASON_source_unavailable, ENXIO,
                                         "/proc/kcore does not show a page of our own at the address that the page map "
                                         "says: its addresses cannot be trusted");
        if (r < 0)
                return failure_set_errno(failure, REASON_source_unavailable, -r,
                                         "no page of our own can be looked up (%s): the daemon needs CAP_SYS_ADMIN "
                                         "of the host (root; in a container: --privileged)", strerror(-r));
        return 0;
}

int physmem_open(struct physmem **ret, struct failure *failure) {
        struct physmem *physmem;
        int r;

        physmem = calloc(1, sizeof(*physmem));
        if (!physmem)
                return failure_set(failure, REASON_no_memory, "there is no memory to look at /proc/kcore");
        physmem->fd = open("/proc/kcore", O_RDONLY | O_CLOEXEC);
        if (physmem->fd < 0) {
                r = -errno;
                failure_set_errno(failure, REASON_source_unavailable, -r,
                                  r == -ENOENT ? "this kernel has no /proc/kcore (CONFIG_PROC_KCORE), which alone tells "
                                                 "where a buffer is"
                                               : "/proc/kcore cannot be opened (%s): the daemon needs CAP_SYS_RAWIO, and "
                                                 "a kernel that is not locked down",
                                  strerror(-r));
                goto fail;
        }
        r = read_segments(physmem);
        if (r < 0) {
                failure_set_errno(failure, REASON_source_unavailable, -r, "/proc/kcore cannot be understood: %s",
                                  strerror(-r));
                goto fail;
        }
        r = prove(physmem, failure);
        if (r < 0)
                goto fail;
        *ret = physmem;
        return 0;

fail:
        physmem_close(physmem);
        return r;
}

struct physmem *physmem_close(struct physmem *physmem) {
        if (!physmem)
                return NULL;
        if (physmem->fd >= 0)
                close(physmem->fd);
        free(physmem->ranges);
        free(physmem->segments);
        free(physmem);
        return NULL;
}
