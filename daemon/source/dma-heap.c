/* Contiguous memory from a dma-buf heap of the kernel's (CMA): the way to memory below 4 GiB on machines that have more.
 *
 * There is no stock: the kernel chooses where a buffer lies, and tells nobody. A buffer's address is therefore found by
 * writing marks to it and searching physical memory for them (mark.h); a buffer that cannot be found beyond doubt is given
 * back. Once allocated it does not move: pages that CMA gave away are not movable until they are freed.
 *
 * A region's file is the dma-buf. Its size is fixed, and its holder cannot take pages out of it: no access to the
 * daemon's own mapping can raise a signal, so that the daemon may simply write to it. But nobody can take it away from its
 * holder either: memory whose holder has not closed it yet when its region ends stays allocated in the kernel, and goes
 * back to CMA when he does.
 *
 * A dma-buf that is kept beyond the daemon's end stays where it is. Its address is the one that the books say, since it was
 * proven when the buffer was made, and the marks for a new search would destroy what its holder has there; but that
 * physical memory shows there what the buffer holds is looked at again. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/dma-heap.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/source/cma.h"
#include "daemon/source/copy.h"
#include "daemon/source/kept.h"
#include "daemon/source/layout.h"
#include "daemon/source/mark.h"
#include "daemon/source/option.h"
#include "daemon/source/physmem.h"
#include "daemon/source/sources.h"
#include "daemon/source/worker.h"

#define HEAPS "/dev/dma_heap"

enum {
        RANGES_MAX = 64,
        /* CMA fails at once when a page in the way is in use just now. */
        ALLOC_ROUNDS = 3,
};

/* What the heap of the default CMA area is called: today, from the kernel's command line, from a device tree. */
static const char *const heap_names[] = { "default_cma_region", "reserved", "linux,cma", NULL };

struct dma_heap_options {
        char heap[64]; /* "": one of heap_names */
        uint64_t limit;
        struct mark_range ranges[RANGES_MAX];
        size_t n_ranges;
};

struct source_backing {
        int fd;
        char *map;
        uint64_t id, addr, size;
        struct source_backing *next, **link; /* in struct dma_heap */
};

struct dma_heap {
        struct source base;
        struct dma_heap_options options;
        uint64_t page_size;
        int fd;
        char about[160];
        struct source_worker *worker;
        _Atomic uint64_t held;       /* in regions, kept ones included */
        _Atomic uint64_t kept_bytes; /* in kept regions that nobody has adopted */

        /* The worker's alone from the first job on. */
        struct source_backing *backings;
        struct kept kept;
};

/* ---- options ---- */

static const struct source_option dma_heap_options[] = {
        { "heap", "name of the heap in /dev/dma_heap; it must be contiguous [the default CMA area's]" },
        { "limit", "most bytes to hold [all of CMA]" },
        { "range", "where the heap's memory lies, a list of SIZE@ADDR; it is searched whenever a region is made [CMA "
                   "areas if debugfs tells them, or all memory]" },
        { NULL, NULL },
};

static int read_heap(const char *value, struct dma_heap_options *ret, struct failure *failure) {
        if (!*value || value[0] == '.' || strchr(value, '/') || strlen(value) >= sizeof(ret->heap))
                return failure_set(failure, REASON_bad_param, "heap = %.40s: this is no name in " HEAPS, value);
        if (strncmp(value, "system", strlen("system")) == 0)
                return failure_set(failure, REASON_bad_param, "heap = %.40s: the memory of this heap is not contiguous",
                                   value);
        snprintf(ret->heap, sizeof(ret->heap), "%s", value);
        return 0;
}

static int read_range(const char *value, struct dma_heap_options *ret, struct failure *failure) {
        struct layout layout;
        size_t i;
        int r;

        r = layout_parse("range", value, &layout, failure);
        if (r < 0)
                return r;
        if (layout.n > RANGES_MAX)
                return failure_set(failure, REASON_bad_param, "range: at most %d can be given", RANGES_MAX);
        for (i = 0; i < layout.n; i++)
                ret->ranges[i] = (struct mark_range){ .addr = layout.spans[i].addr, .size = layout.spans[i].size };
        ret->n_ranges = layout.n;
        return 0;
}

static int read_option(struct dma_heap_options *options, const char *key, const char *value, struct failure *failure) {
        int r;

        if (strcmp(key, "heap") == 0)
                return read_heap(value, options, failure);
        if (strcmp(key, "range") == 0)
                return read_range(value, options, failure);
        if (strcmp(key, "limit") == 0) {
                r = option_size(key, value, &options->limit, failure);
                if (r == 0 && options->limit < LAYOUT_GRAIN)
                        return failure_set(failure, REASON_bad_param, "limit = %.40s: at least 4096 are needed", value);
                return r;
        }
        return option_unknown("dma-heap", dma_heap_options, key, failure);
}

static int dma_heap_check_option(const char *key, const char *value, struct failure *failure) {
        struct dma_heap_options scratch;

        return read_option(&scratch, key, value, failure);
}

static int read_options(const struct source_option *options, size_t n, struct dma_heap_options *ret,
                        struct failure *failure) {
        size_t i;
        int r = 0;

        *ret = (struct dma_heap_options){ .limit = UINT64_MAX };
        for (i = 0; i < n && r == 0; i++)
                r = read_option(ret, options[i].key, options[i].value, failure);
        return r;
}

/* ---- buffers ---- */

static uint64_t room(const struct dma_heap *heap) {
        uint64_t held = atomic_load(&heap->held);

        return heap->options.limit > held ? heap->options.limit - held : 0;
}

static void backing_link(struct dma_heap *heap, struct source_backing *backing) {
        backing->link = &heap->backings;
        backing->next = heap->backings;
        if (backing->next)
                backing->next->link = &backing->next;
        heap->backings = backing;
        atomic_fetch_add(&heap->held, backing->size);
}

/* What is kept of it stays so. */
static void backing_free(struct dma_heap *heap, struct source_backing *backing) {
        if (backing->map)
                munmap(backing->map, backing->size);
        if (backing->fd >= 0)
                close(backing->fd);
        if (backing->link) {
                *backing->link = backing->next;
                if (backing->next)
                        backing->next->link = backing->link;
                atomic_fetch_sub(&heap->held, backing->size);
        }
        free(backing);
}

static int heap_alloc(const struct dma_heap *heap, uint64_t size) {
        struct dma_heap_allocation_data data = { .len = size, .fd_flags = O_RDWR | O_CLOEXEC };
        int r, round;

        for (round = 0;; round++) {
                r = ioctl(heap->fd, DMA_HEAP_IOCTL_ALLOC, &data) < 0 ? -errno : 0;
                if (r == 0)
                        return (int)data.fd;
                if (r != -EINTR && (r != -ENOMEM || round + 1 >= ALLOC_ROUNDS))
                        return r;
        }
}

static int backing_map(struct source_backing *backing) {
        void *map = mmap(NULL, backing->size, PROT_READ | PROT_WRITE, MAP_SHARED, backing->fd, 0);

        if (map == MAP_FAILED)
                return -errno;
        /* A keeper that is forked later would hold the memory for ever. */
        madvise(map, backing->size, MADV_DONTFORK);
        backing->map = map;
        return 0;
}

static int backing_new(const struct dma_heap *heap, uint64_t size, struct source_backing **ret) {
        struct source_backing *backing;
        int r;

        backing = calloc(1, sizeof(*backing));
        if (!backing)
                return -ENOMEM;
        backing->size = size;
        r = backing->fd = heap_alloc(heap, size);
        if (r < 0)
                goto fail;
        if (lseek(backing->fd, 0, SEEK_END) != (off_t)size) {
                r = -EIO;
                goto fail_close;
        }
        r = backing_map(backing);
        if (r < 0)
                goto fail_close;
        *ret = backing;
        return 0;

fail_close:
        close(backing->fd);
fail:
        free(backing);
        return r;
}

/* Where to search, from what is known best. */
static void search_ranges(const struct dma_heap *heap, const struct physmem *physmem, struct mark_range areas[RANGES_MAX],
                          struct mark_search *search) {
        if (heap->options.n_ranges > 0) {
                search->ranges = heap->options.ranges;
                search->n_ranges = heap->options.n_ranges;
                return;
        }
        search->ranges = areas;
        search->n_ranges = cma_ranges(areas, RANGES_MAX);
        if (search->n_ranges == 0)
                search->n_ranges = physmem_ranges(physmem, &search->ranges);
}

static int locate(const struct dma_heap *heap, struct source_backing *backing, uint64_t limit, struct failure *failure) {
        struct mark_search search = { .read = physmem_read, .limit = limit, .page_size = heap->page_size };
        struct mark_range areas[RANGES_MAX];
        struct physmem *physmem;
        int r;

        r = physmem_open(&physmem, failure);
        if (r < 0)
                return r;
        search.userdata = physmem;
        search_ranges(heap, physmem, areas, &search);
        r = mark_locate(&search, backing->map, backing->size, &backing->addr, failure);
        physmem_close(physmem);
        /* The marks, and whatever the kernel might have left. */
        memset(backing->map, 0, backing->size);
        return r;
}

static int fail_alloc(const struct dma_heap *heap, struct source_job *job, int r) {
        uint64_t total = 0, unused = 0;

        if (r != -ENOMEM)
                return failure_set_errno(job->failure, REASON_source_unavailable, -r,
                                         "heap %s makes no buffer of %" PRIu64 " bytes: %s", heap->options.heap, job->size,
                                         strerror(-r));
        cma_bytes(&total, &unused);
        if (unused < job->size)
                failure_set(job->failure, REASON_no_memory,
                            "heap %s has no %" PRIu64 " bytes: %" PRIu64 " of the %" PRIu64 " bytes of CMA are free",
                            heap->options.heap, job->size, unused, total);
        else
                failure_set(job->failure, REASON_no_contiguous,
                            "heap %s has no %" PRIu64 " bytes in one piece: %" PRIu64 " of the %" PRIu64 " bytes of CMA are "
                            "free, but what lies between them is in use and cannot be moved",
                            heap->options.heap, job->size, unused, total);
        failure_add_number(job->failure, "asked", job->size);
        failure_add_number(job->failure, "free", unused);
        return -ENOMEM;
}

static int dma_heap_carve(struct dma_heap *heap, struct source_job *job) {
        struct source_backing *backing = NULL;
        int r;

        if (job->size == 0 || job->size % heap->page_size)
                return failure_set(job->failure, REASON_bad_param, "%" PRIu64 " bytes are not whole pages", job->size);
        if (job->size > room(heap))
                return failure_set(job->failure, REASON_no_memory,
                                   "source dma-heap holds %" PRIu64 " bytes, and its limit is %" PRIu64,
                                   atomic_load(&heap->held), heap->options.limit);
        r = backing_new(heap, job->size, &backing);
        if (r < 0)
                return fail_alloc(heap, job, r);
        backing->id = job->id;
        r = locate(heap, backing, job->limit, job->failure);
        if (r == 0) {
                r = kept_put(&heap->kept, "region", backing->id, backing->fd);
                if (r < 0)
                        kept_fail(r, job->size, job->failure);
        }
        if (r < 0) {
                backing_free(heap, backing);
                return r;
        }
        backing_link(heap, backing);
        job->backing = backing;
        job->addr = backing->addr;
        return 0;
}

/* How many references to the dma-buf there are beside ours: descriptors, mappings, devices. 0 also when the kernel does
 * not tell. */
static long holders(int fd) {
        char path[48], line[128];
        long count = 1;
        FILE *file;

        snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
        file = fopen(path, "re");
        if (!file)
                return 0;
        while (fgets(line, sizeof(line), file))
                if (sscanf(line, "count: %ld", &count) == 1)
                        break;
        fclose(file);
        return count > 1 ? count - 1 : 0;
}

static int dma_heap_restore(struct dma_heap *heap, struct source_job *job) {
        struct source_backing *backing = job->backing;
        int r = 0;

        job->backing = NULL;
        munmap(backing->map, backing->size);
        backing->map = NULL;
        /* First, since whoever keeps it is a holder too. */
        kept_drop(&heap->kept, "region", backing->id);
        if (holders(backing->fd) > 0)
                r = failure_set(job->failure, REASON_busy,
                                "the %" PRIu64 " bytes at 0x%" PRIx64 " go back to CMA when their holder closes them",
                                backing->size, backing->addr);
        backing_free(heap, backing);
        return r;
}

/* ---- verifying ---- */

static int compare(const struct dma_heap *heap, const struct source_backing *backing, struct physmem *physmem,
                   struct failure *failure) {
        uint64_t offset = 0;
        int r;

        r = mark_compare(physmem_read, physmem, backing->map, backing->addr, backing->size, heap->page_size, &offset);
        if (r == 0)
                return 0;
        failure_set_errno(failure, REASON_source_unavailable, EUCLEAN, "physical memory at 0x%" PRIx64 " %s%s",
                          backing->addr + offset,
                          r == -EUCLEAN ? "does not hold what the region holds" : "cannot be compared: ",
                          r == -EUCLEAN ? "" : strerror(-r));
        failure_add_hex(failure, "machine_addr", backing->addr + offset);
        return -EUCLEAN;
}

/* The memory is its holder's now, so no marks can be written: its content is compared with what physical memory shows. */
static int dma_heap_verify(const struct dma_heap *heap, struct source_job *job) {
        struct physmem *physmem;
        int r;

        r = physmem_open(&physmem, job->failure);
        if (r < 0)
                return r;
        r = compare(heap, job->backing, physmem, job->failure);
        physmem_close(physmem);
        return r;
}

/* ---- what an earlier daemon has left ---- */

static int dma_heap_reclaim(struct dma_heap *heap) {
        kept_deinit(&heap->kept, true);
        atomic_fetch_sub(&heap->held, atomic_exchange(&heap->kept_bytes, 0));
        return 0;
}

static int adopt_verify(const struct dma_heap *heap, const struct source_backing *backing, struct failure *failure) {
        struct physmem *physmem;
        int r;

        r = physmem_open(&physmem, failure);
        if (r < 0)
                return -EUCLEAN;
        r = compare(heap, backing, physmem, failure);
        physmem_close(physmem);
        return r;
}

static int dma_heap_adopt(struct source *source, uint64_t id, uint64_t addr, uint64_t size, int node,
                          struct source_backing **ret, struct failure *failure) {
        struct dma_heap *heap = (struct dma_heap *)source;
        struct kept_region *region = kept_find(&heap->kept, id);
        struct source_backing *backing;
        int r;

        if (!region)
                return failure_set_errno(failure, REASON_source_unavailable, ENOENT,
                                         "nothing is kept of the region at 0x%" PRIx64, addr);
        if (size == 0 || size % heap->page_size || addr % heap->page_size || region->bytes != size)
                return failure_set_errno(failure, REASON_source_unavailable, EINVAL,
                                         "what is kept for the region at 0x%" PRIx64 " has %" PRIu64 " bytes, and not %" PRIu64,
                                         addr, region->bytes, size);
        backing = calloc(1, sizeof(*backing));
        if (!backing)
                return failure_set(failure, REASON_no_memory, "there is no memory to go on with a region");
        *backing = (struct source_backing){ .fd = region->fd, .id = id, .addr = addr, .size = size };
        r = backing_map(backing);
        if (r < 0) {
                free(backing);
                return failure_set_errno(failure, REASON_source_unavailable, -r,
                                         "the region at 0x%" PRIx64 " cannot be mapped: %s", addr, strerror(-r));
        }
        region->fd = -1;
        atomic_fetch_sub(&heap->kept_bytes, size);
        atomic_fetch_sub(&heap->held, size);
        backing_link(heap, backing);
        *ret = backing;
        return adopt_verify(heap, backing, failure);
}

static int open_kept(struct dma_heap *heap, struct keep *keep, struct failure *failure) {
        struct kept_region *region;
        off_t size;
        size_t i;
        int r;

        r = kept_init(keep, "dma-heap", &heap->kept);
        if (r < 0)
                return failure_set(failure, REASON_no_memory, "there is no memory to open source dma-heap");
        for (i = 0; i < heap->kept.n; i++) {
                region = &heap->kept.regions[i];
                size = lseek(region->fd, 0, SEEK_END);
                region->bytes = size > 0 ? (uint64_t)size : 0;
                atomic_fetch_add(&heap->kept_bytes, region->bytes);
        }
        atomic_store(&heap->held, atomic_load(&heap->kept_bytes));
        return 0;
}

/* ---- the table ---- */

static int dma_heap_backing_fd(struct source_backing *backing) {
        return backing->fd;
}

/* A plain write, since nobody can make a hole in a dma-buf. */
static int dma_heap_backing_zero(struct source_backing *backing, uint64_t offset, uint64_t size) {
        if (offset > backing->size || size > backing->size - offset)
                return -EINVAL;
        memset(backing->map + offset, 0, size);
        return 0;
}

static int dma_heap_backing_read(struct source_backing *backing, uint64_t offset, void *buffer, uint64_t size) {
        if (offset > backing->size || size > backing->size - offset)
                return -EINVAL;
        memcpy(buffer, backing->map + offset, size);
        return 0;
}

static int dma_heap_backing_write(struct source_backing *backing, uint64_t offset, const void *buffer, uint64_t size) {
        if (offset > backing->size || size > backing->size - offset)
                return -EINVAL;
        memcpy(backing->map + offset, buffer, size);
        return 0;
}

static void dma_heap_work(struct source *source, struct source_job *job) {
        struct dma_heap *heap = (struct dma_heap *)source;

        switch (job->kind) {
        case SOURCE_CARVE:
                job->status = dma_heap_carve(heap, job);
                return;
        case SOURCE_RESTORE:
                job->status = dma_heap_restore(heap, job);
                return;
        case SOURCE_VERIFY:
                job->status = dma_heap_verify(heap, job);
                return;
        case SOURCE_COPY:
                job->status = source_copy(job);
                return;
        case SOURCE_ZERO:
                job->status = dma_heap_backing_zero(job->backing, job->offset, job->size);
                return;
        case SOURCE_RECLAIM:
                job->status = dma_heap_reclaim(heap);
                return;
        case SOURCE_GROW:
        case SOURCE_SHRINK:
        case SOURCE_JOB_KINDS:
                break;
        }
        job->status = failure_set(job->failure, REASON_unsupported, "source dma-heap knows no job of kind %d",
                                  (int)job->kind);
}

static void dma_heap_end(struct dma_heap *heap, bool drop) {
        if (!heap)
                return;
        source_worker_free(heap->worker);
        while (heap->backings) {
                if (drop)
                        kept_drop(&heap->kept, "region", heap->backings->id);
                backing_free(heap, heap->backings);
        }
        kept_deinit(&heap->kept, drop);
        if (heap->fd >= 0)
                close(heap->fd);
        free(heap);
}

static void dma_heap_close(struct source *source) {
        dma_heap_end((struct dma_heap *)source, true);
}

static void dma_heap_leave(struct source *source) {
        dma_heap_end((struct dma_heap *)source, false);
}

/* Frame numbers of a paravirtual Xen guest, its control domain included, are not the machine's. */
static int check_machine(struct failure *failure) {
        char type[16] = "";
        FILE *file;

        file = fopen("/sys/hypervisor/guest_type", "re");
        if (!file)
                return 0;
        if (!fgets(type, sizeof(type), file))
                type[0] = '\0';
        fclose(file);
        return strncmp(type, "PV\n", 3) != 0
                       ? 0
                       : failure_set(failure, REASON_unsupported,
                                     "source dma-heap cannot serve in a paravirtual Xen domain: the kernel does not "
                                     "know machine addresses there");
}

static int open_heap_device(struct dma_heap *heap, const char *name) {
        char path[sizeof(HEAPS) + sizeof(heap->options.heap) + 1];

        snprintf(path, sizeof(path), HEAPS "/%s", name);
        heap->fd = open(path, O_RDONLY | O_CLOEXEC);
        return heap->fd < 0 ? -errno : 0;
}

static int open_heap(struct dma_heap *heap, struct failure *failure) {
        int r = -ENOENT;
        size_t i;

        if (*heap->options.heap) {
                r = open_heap_device(heap, heap->options.heap);
                if (r < 0)
                        return failure_set_errno(failure, REASON_source_unavailable, -r,
                                                 HEAPS "/%s cannot be opened: %s", heap->options.heap, strerror(-r));
                return 0;
        }
        for (i = 0; heap_names[i] && r == -ENOENT; i++) {
                r = open_heap_device(heap, heap_names[i]);
                if (r == 0)
                        snprintf(heap->options.heap, sizeof(heap->options.heap), "%s", heap_names[i]);
        }
        if (r < 0)
                return failure_set_errno(failure, REASON_source_unavailable, -r,
                                         HEAPS " has no contiguous heap that can be opened (%s): the kernel needs "
                                         "CONFIG_DMABUF_HEAPS_CMA and cma=256M, say, on its command line; see also the "
                                         "key heap",
                                         strerror(-r));
        return 0;
}

static int open_limit(struct dma_heap *heap, struct failure *failure) {
        uint64_t total, unused;

        if (cma_bytes(&total, &unused) < 0)
                return failure_set(failure, REASON_source_unavailable,
                                   "the kernel has no memory for contiguous allocation: put cma=256M, say, on its "
                                   "command line");
        if (heap->options.limit > total)
                heap->options.limit = total;
        heap->options.limit -= heap->options.limit % heap->page_size;
        snprintf(heap->about, sizeof(heap->about),
                 "contiguous memory of heap %s, %" PRIu64 " KiB at most, found in /proc/kcore", heap->options.heap,
                 heap->options.limit / 1024);
        return 0;
}

/* That it can be read is proven before anybody relies on it. */
static int open_physmem(struct failure *failure) {
        struct physmem *physmem;
        int r;

        r = physmem_open(&physmem, failure);
        if (r == 0)
                physmem_close(physmem);
        return r;
}

static int dma_heap_open(const struct source_option *options, size_t n_options, struct keep *keep, struct source **ret,
                         struct failure *failure) {
        struct dma_heap *heap;
        int r;

        heap = calloc(1, sizeof(*heap));
        if (!heap)
                return failure_set(failure, REASON_no_memory, "there is no memory to open source dma-heap");
        heap->base.ops = &source_dma_heap_ops;
        heap->fd = -1;
        heap->page_size = (uint64_t)sysconf(_SC_PAGESIZE);
        r = read_options(options, n_options, &heap->options, failure);
        if (r == 0)
                r = check_machine(failure);
        if (r == 0)
                r = open_heap(heap, failure);
        if (r == 0)
                r = open_limit(heap, failure);
        if (r == 0)
                r = open_physmem(failure);
        if (r == 0)
                r = open_kept(heap, keep, failure);
        if (r == 0) {
                r = source_worker_new("source-dma-heap", dma_heap_work, &heap->base, &heap->worker);
                if (r < 0)
                        failure_set_errno(failure, REASON_source_unavailable, -r, "source dma-heap cannot start: %s",
                                          strerror(-r));
        }
        if (r < 0) {
                dma_heap_end(heap, false);
                return r;
        }
        *ret = &heap->base;
        return 0;
}

static void dma_heap_describe(struct source *source, struct source_info *ret) {
        struct dma_heap *heap = (struct dma_heap *)source;

        *ret = (struct source_info){
                .name = "dma-heap",
                .about = heap->about,
                .flags = SOURCE_CHOOSES | SOURCE_PINS | SOURCE_APART,
                .grain = heap->page_size,
                .limit = heap->options.limit,
                .available = room(heap),
                .kept = atomic_load(&heap->kept_bytes),
        };
}

static void dma_heap_submit(struct source *source, struct source_job *job) {
        source_worker_submit(((struct dma_heap *)source)->worker, job);
}

static int dma_heap_event_fd(struct source *source) {
        return source_worker_event_fd(((struct dma_heap *)source)->worker);
}

static void dma_heap_dispatch(struct source *source) {
        source_worker_dispatch(((struct dma_heap *)source)->worker);
}

static void dma_heap_wait(struct source *source) {
        source_worker_wait(((struct dma_heap *)source)->worker);
}

const struct source_ops source_dma_heap_ops = {
        .struct_size = sizeof(struct source_ops),
        .version = SOURCE_OPS_VERSION,
        .name = "dma-heap",
        .doc = "the kernel's contiguous memory allocator (CMA) through a dma-buf heap, with real machine addresses",
        .options = dma_heap_options,
        .check_option = dma_heap_check_option,
        .open = dma_heap_open,
        .close = dma_heap_close,
        .describe = dma_heap_describe,
        .submit = dma_heap_submit,
        .event_fd = dma_heap_event_fd,
        .dispatch = dma_heap_dispatch,
        .wait = dma_heap_wait,
        .backing_fd = dma_heap_backing_fd,
        .backing_zero = dma_heap_backing_zero,
        .adopt = dma_heap_adopt,
        .leave = dma_heap_leave,
        .backing_read = dma_heap_backing_read,
        .backing_write = dma_heap_backing_write,
};
