/* Huge pages: real machine addresses for processes that run on the bare host.
 *
 * Stock lies in a stash that nobody else sees. Carving moves the pages of the chosen run, one by one, into a file of the
 * region's own, in address order; what arrived is looked up in the page map, and a run that somebody else's fault broke
 * apart goes back to the stash. A region's file may be changed by whoever holds its descriptor: nothing here reads or
 * writes such memory except through the kernel, which answers with an errno where an access would raise a signal. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/source/huge.h"
#include "daemon/source/hugepool.h"
#include "daemon/source/hugetlb-options.h"
#include "daemon/source/numa.h"
#include "daemon/source/pagemap.h"
#include "daemon/source/pin.h"
#include "daemon/source/sources.h"
#include "daemon/source/stash.h"
#include "daemon/source/worker.h"

enum {
        HUGE_SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL,
        /* How often a holder that fills the holes of an ended region anew is robbed of them before it is left alone. */
        RESTORE_ROUNDS = 3,
};

struct source_backing {
        struct huge huge; /* for zeroing on the loop's thread */
        int fd;
        void *map;
        uint64_t addr, size;
        uint64_t filled; /* bytes from the start that have pages */
        int node;
        struct pin *pin;
        struct source_backing *next, **link; /* in struct hugetlb */
};

struct hugetlb {
        struct source base;
        struct hugetlb_options options;
        struct huge huge;
        struct hugepool pool;
        bool pins;
        char about[128];
        struct source_worker *worker;
        _Atomic uint64_t held; /* bytes in the stash and in regions */

        /* The worker's alone while it lives. */
        struct stash *stash;
        struct source_backing *backings;
        uint64_t backed;         /* bytes in regions */
        uint64_t raised_reserve; /* pages that the kernel's pool was enlarged by, for good */
        uint64_t raised;         /* and for growth, until they are given back */
};

/* After every job: what describe() may know of the worker's books. */
static void settle(struct hugetlb *hugetlb) {
        atomic_store(&hugetlb->held, stash_count(hugetlb->stash) * hugetlb->huge.page_size + hugetlb->backed);
}

static uint64_t room(const struct hugetlb *hugetlb) {
        uint64_t held = atomic_load(&hugetlb->held);

        return hugetlb->options.limit > held ? hugetlb->options.limit - held : 0;
}

static int hugetlb_grow(struct hugetlb *hugetlb, struct source_job *job) {
        const uint64_t page_size = hugetlb->huge.page_size;
        uint64_t wanted = (job->size < room(hugetlb) ? job->size : room(hugetlb)), got = 0, available, raised;
        int r = 0;

        wanted = wanted / page_size + (wanted % page_size && wanted < room(hugetlb));
        available = hugepool_available(&hugetlb->pool);
        if (hugetlb->options.may_raise && available < wanted &&
            hugepool_raise(&hugetlb->pool, wanted - available, job->node, &raised) == 0)
                hugetlb->raised += raised;

        numa_use_node(job->node, NUMA_PREFER);
        while (got < wanted && r == 0) {
                r = stash_fill(hugetlb->stash, NULL);
                if (r == 0)
                        got++;
        }
        numa_use_node(-1, NUMA_PREFER);
        stash_tell(hugetlb->stash, job);
        if (job->n_arrived > 0)
                return 0;
        if (wanted == 0)
                return failure_set(&job->failure, REASON_no_memory,
                                   "source hugetlb holds its limit of %" PRIu64 " bytes",
                                   hugetlb->options.limit);
        return failure_set_errno(&job->failure, REASON_no_memory, r < 0 && r != -ENOSPC ? -r : ENOMEM,
                                 "no huge page is free%s%s", r < 0 && r != -ENOSPC ? ": " : "",
                                 r < 0 && r != -ENOSPC ? strerror(-r) : "");
}

static void backing_free(struct hugetlb *hugetlb, struct source_backing *backing) {
        pin_free(backing->pin);
        if (backing->map)
                munmap(backing->map, backing->size);
        if (backing->fd >= 0)
                close(backing->fd);
        if (backing->link) {
                *backing->link = backing->next;
                if (backing->next)
                        backing->next->link = backing->link;
                hugetlb->backed -= backing->size;
        }
        free(backing);
}

/* A region's file, still without pages. */
static int backing_new(struct hugetlb *hugetlb, uint64_t addr, uint64_t size, struct source_backing **ret) {
        struct source_backing *backing;
        int r;

        backing = calloc(1, sizeof(*backing));
        if (!backing)
                return -ENOMEM;
        *backing = (struct source_backing){ .huge = hugetlb->huge, .fd = -1, .addr = addr, .size = size, .node = -1 };
        r = backing->fd = huge_make_file(&hugetlb->huge, "dmabroker-region", size);
        if (r >= 0)
                r = fcntl(backing->fd, F_ADD_SEALS, HUGE_SEALS) < 0 ? -errno : 0;
        if (r == 0)
                r = huge_map(backing->fd, size, &backing->map);
        if (r < 0) {
                backing_free(hugetlb, backing);
                return r;
        }
        *ret = backing;
        return 0;
}

/* Move the backing's pages to the stash, the last one first. Each is the next that the kernel hands out, so doing it page
 * by page leaves others the least time to come between. Returns how many pages the stash got. */
static uint64_t backing_empty(struct hugetlb *hugetlb, struct source_backing *backing) {
        const uint64_t page_size = hugetlb->huge.page_size;
        uint64_t got = 0;

        numa_use_node(backing->node, NUMA_PREFER);
        while (backing->filled > 0) {
                backing->filled -= page_size;
                if (huge_punch(&hugetlb->huge, backing->fd, backing->filled, page_size) == 0 &&
                    stash_fill(hugetlb->stash, NULL) == 0)
                        got++;
        }
        numa_use_node(-1, NUMA_PREFER);
        return got;
}

/* Every page where it should be? -EUCLEAN with a sentence. */
static int backing_verify(const struct source_backing *backing, struct failure *failure) {
        uint64_t offset, addr;
        int r;

        for (offset = 0; offset < backing->size; offset += backing->huge.page_size) {
                r = pagemap_read(backing->huge.pagemap_fd, (char *)backing->map + offset, &addr);
                if (r == 0 && addr == backing->addr + offset)
                        continue;
                if (r == -ENOENT)
                        failure_set_errno(failure, REASON_source_unavailable, EUCLEAN,
                                          "the page at 0x%" PRIx64 " is gone: a holder of the region's file made a hole there",
                                          backing->addr + offset);
                else if (r < 0)
                        failure_set_errno(failure, REASON_source_unavailable, EUCLEAN,
                                          "the page at 0x%" PRIx64 " cannot be looked up: %s", backing->addr + offset,
                                          strerror(-r));
                else
                        failure_set_errno(failure, REASON_source_unavailable, EUCLEAN,
                                          "the page at 0x%" PRIx64 " is really at 0x%" PRIx64, backing->addr + offset, addr);
                failure_add_hex(failure, "machine_addr", backing->addr + offset);
                return -EUCLEAN;
        }
        return 0;
}

/* All pages of the run are in stock and have not moved since they were told. */
static int check_run(struct hugetlb *hugetlb, const struct source_job *job) {
        const uint64_t page_size = hugetlb->huge.page_size;
        uint64_t offset, now;
        int r;

        if (job->size == 0 || job->size % page_size || job->addr % page_size || job->addr > UINT64_MAX - job->size)
                return -EINVAL;
        for (offset = 0; offset < job->size; offset += page_size) {
                r = stash_check(hugetlb->stash, job->addr + offset, &now);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int move_run(struct hugetlb *hugetlb, struct source_backing *backing) {
        const uint64_t page_size = hugetlb->huge.page_size;
        uint64_t wanted, got;
        int r = 0;

        backing->node = stash_node(hugetlb->stash, backing->addr);
        while (backing->filled < backing->size && r == 0) {
                wanted = backing->addr + backing->filled;
                numa_use_node(stash_node(hugetlb->stash, wanted), NUMA_ONLY);
                r = stash_drop(hugetlb->stash, wanted);
                if (r < 0)
                        break;
                r = huge_fill(&hugetlb->huge, backing->fd, backing->map, backing->filled, &got);
                if (r < 0)
                        break;
                backing->filled += page_size;
                if (got != wanted)
                        r = -ESTALE;
        }
        numa_use_node(-1, NUMA_PREFER);
        return r;
}

static int fill_backing(struct hugetlb *hugetlb, struct source_backing *backing, struct failure *failure) {
        int r;

        r = move_run(hugetlb, backing);
        if (r < 0)
                return r;
        if (hugetlb->pins) {
                r = pin_new(backing->map, backing->size, hugetlb->huge.page_size, &backing->pin);
                if (r < 0) {
                        failure_set_errno(failure, REASON_source_unavailable, -r,
                                          "%" PRIu64 " bytes of huge pages cannot be pinned: %s", backing->size,
                                          strerror(-r));
                        return r;
                }
        }
        /* Only now: what is pinned stays where it is found. */
        return backing_verify(backing, failure) < 0 ? -ESTALE : 0;
}

/* Whatever a carve that failed leaves of the run, and what came in its place, is told as arrived. */
static int carve_fail(struct hugetlb *hugetlb, struct source_job *job, struct source_backing *backing, int r) {
        uint64_t offset;

        if (backing) {
                backing->pin = pin_free(backing->pin);
                backing_empty(hugetlb, backing);
                backing_free(hugetlb, backing);
        }
        for (offset = 0; offset < job->size; offset += hugetlb->huge.page_size)
                stash_untell(hugetlb->stash, job->addr + offset);
        stash_tell(hugetlb->stash, job);
        if (r == -ESTALE || r == -ENOSPC || r == -ENOENT)
                return failure_set_errno(&job->failure, REASON_source_unavailable, EAGAIN,
                                         "the run at 0x%" PRIx64 " broke apart: another user of huge pages took a page of it, "
                                         "or the kernel moved one", job->addr);
        if (!job->failure.error)
                failure_set_errno(&job->failure, REASON_source_unavailable, -r,
                                  "no region can be made of the %" PRIu64 " bytes at 0x%" PRIx64 ": %s", job->size, job->addr,
                                  strerror(-r));
        return r;
}

static int hugetlb_carve(struct hugetlb *hugetlb, struct source_job *job) {
        struct source_backing *backing = NULL;
        int r;

        r = check_run(hugetlb, job);
        if (r == 0)
                r = backing_new(hugetlb, job->addr, job->size, &backing);
        if (r == 0)
                r = fill_backing(hugetlb, backing, &job->failure);
        if (r < 0)
                return carve_fail(hugetlb, job, backing, r);

        backing->link = &hugetlb->backings;
        backing->next = hugetlb->backings;
        if (backing->next)
                backing->next->link = &backing->next;
        hugetlb->backings = backing;
        hugetlb->backed += backing->size;
        job->backing = backing;
        return 0;
}

/* A page that somebody still holds (by a pin of his own, or in a pipe) does not reach the kernel's free list, so it cannot
 * arrive here: another free page comes in its place, or none. The kernel zeroes every page that it hands out, and removes
 * it from all page tables before it takes it back. */
static int hugetlb_restore(struct hugetlb *hugetlb, struct source_job *job) {
        struct source_backing *backing = job->backing;
        const uint64_t n_pages = backing->size / hugetlb->huge.page_size;
        uint64_t missing;
        int round;

        job->backing = NULL;
        backing->pin = pin_free(backing->pin);
        missing = n_pages - backing_empty(hugetlb, backing);
        for (round = 0; missing > 0 && round < RESTORE_ROUNDS; round++) {
                huge_punch(&hugetlb->huge, backing->fd, 0, backing->size);
                while (missing > 0 && stash_fill(hugetlb->stash, NULL) == 0)
                        missing--;
        }
        /* What a holder faulted into the holes meanwhile is not ours to count, but it should not keep it either. */
        huge_punch(&hugetlb->huge, backing->fd, 0, backing->size);
        stash_tell(hugetlb->stash, job);
        if (missing > 0)
                failure_set(&job->failure, REASON_busy,
                            "%" PRIu64 " of the %" PRIu64 " pages of the region at 0x%" PRIx64 " did not come back: somebody "
                            "still holds them", missing, n_pages, backing->addr);
        backing_free(hugetlb, backing);
        return missing > 0 ? -EBUSY : 0;
}

static int hugetlb_shrink(struct hugetlb *hugetlb, struct source_job *job) {
        const uint64_t page_size = hugetlb->huge.page_size;
        uint64_t offset, given = 0;
        int r = 0, error;

        for (offset = 0; offset < job->size; offset += page_size) {
                error = stash_drop(hugetlb->stash, job->addr + offset);
                if (error == 0) {
                        given++;
                        continue;
                }
                stash_untell(hugetlb->stash, job->addr + offset);
                r = failure_set_errno(&job->failure, REASON_source_unavailable, -error,
                                      "the page at 0x%" PRIx64 " cannot be given back: %s", job->addr + offset,
                                      strerror(-error));
        }
        if (given > hugetlb->raised)
                given = hugetlb->raised;
        if (given > 0 && hugepool_lower(&hugetlb->pool, given) == 0)
                hugetlb->raised -= given;
        stash_tell(hugetlb->stash, job);
        return r;
}

static int hugetlb_backing_fd(struct source_backing *backing) {
        return backing->fd;
}

static int hugetlb_backing_zero(struct source_backing *backing, uint64_t offset, uint64_t size) {
        if (offset > backing->size || size > backing->size - offset)
                return -EINVAL;
        return huge_zero(&backing->huge, (char *)backing->map + offset, size);
}

static int hugetlb_zero(struct source_job *job) {
        int r;

        r = hugetlb_backing_zero(job->backing, job->offset, job->size);
        if (r < 0)
                failure_set_errno(&job->failure, REASON_source_unavailable, -r,
                                  "%" PRIu64 " bytes of the region at 0x%" PRIx64 " cannot be zeroed: %s", job->size,
                                  job->backing->addr, strerror(-r));
        return r;
}

static void hugetlb_work(struct source *source, struct source_job *job) {
        struct hugetlb *hugetlb = (struct hugetlb *)source;

        switch (job->kind) {
        case SOURCE_GROW:
                job->status = hugetlb_grow(hugetlb, job);
                break;
        case SOURCE_CARVE:
                job->status = hugetlb_carve(hugetlb, job);
                break;
        case SOURCE_RESTORE:
                job->status = hugetlb_restore(hugetlb, job);
                break;
        case SOURCE_SHRINK:
                job->status = hugetlb_shrink(hugetlb, job);
                break;
        case SOURCE_VERIFY:
                job->status = backing_verify(job->backing, &job->failure);
                break;
        case SOURCE_ZERO:
                job->status = hugetlb_zero(job);
                break;
        case SOURCE_RECLAIM:
        case SOURCE_JOB_KINDS:
        default:
                job->status = failure_set(&job->failure, REASON_unsupported, "source hugetlb knows no job of kind %d",
                                          (int)job->kind);
        }
        settle(hugetlb);
}

/* Give the kernel's pool the size back that it had. */
static void lower_all(struct hugetlb *hugetlb) {
        if (hugetlb->raised + hugetlb->raised_reserve > 0)
                hugepool_lower(&hugetlb->pool, hugetlb->raised + hugetlb->raised_reserve);
}

static void hugetlb_close(struct source *source) {
        struct hugetlb *hugetlb = (struct hugetlb *)source;

        if (!hugetlb)
                return;
        source_worker_free(hugetlb->worker);
        while (hugetlb->backings)
                backing_free(hugetlb, hugetlb->backings);
        stash_free(hugetlb->stash);
        lower_all(hugetlb);
        if (hugetlb->huge.pagemap_fd >= 0)
                close(hugetlb->huge.pagemap_fd);
        if (hugetlb->huge.zero_fd >= 0)
                close(hugetlb->huge.zero_fd);
        free(hugetlb);
}

static int open_pool(struct hugetlb *hugetlb, struct failure *failure) {
        char size[32];
        int r;

        r = hugepool_find(&hugetlb->pool, hugetlb->options.page_size);
        if (r == -ENOSYS)
                return failure_set_errno(failure, REASON_source_unavailable, ENOSYS,
                                         "this kernel has no huge pages: it needs CONFIG_HUGETLBFS, and /sys must be mounted");
        if (r < 0)
                return failure_set_errno(failure, REASON_source_unavailable, ENOENT,
                                         "this machine has no huge pages of %s: ls /sys/kernel/mm/hugepages shows what it has",
                                         hugetlb_size_text(hugetlb->options.page_size, size));
        return 0;
}

/* Prove on a page of our own that machine addresses can be had. */
static int open_pagemap(struct hugetlb *hugetlb, struct failure *failure) {
        uint64_t addr;
        char here = 1;
        int r;

        hugetlb->huge.pagemap_fd = r = pagemap_open();
        if (r >= 0)
                r = pagemap_read(hugetlb->huge.pagemap_fd, &here, &addr);
        if (r < 0)
                return failure_set_errno(failure, REASON_source_unavailable, -r,
                                         "machine addresses cannot be read from /proc/self/pagemap (%s): the daemon needs "
                                         "CAP_SYS_ADMIN of the host (root; in a container: --privileged)", strerror(-r));
        hugetlb->huge.zero_fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
        if (hugetlb->huge.zero_fd < 0)
                return failure_set_errno(failure, REASON_source_unavailable, errno, "/dev/zero cannot be opened: %s",
                                         strerror(errno));
        return 0;
}

/* See that as many pages are free as the reserve needs; the GROW that takes them comes later. */
static int open_reserve(struct hugetlb *hugetlb, struct failure *failure) {
        const uint64_t needed = hugetlb->options.reserve / hugetlb->huge.page_size;
        uint64_t available = hugepool_available(&hugetlb->pool), got = 0;
        char size[32];
        int r = 0;

        hugetlb_size_text(hugetlb->huge.page_size, size);
        /* Trying what cannot be would squeeze everybody else's memory for nothing. */
        if (available < needed && needed - available <= hugepool_possible(&hugetlb->pool))
                r = hugepool_raise(&hugetlb->pool, needed - available, -1, &got);
        hugetlb->raised_reserve = got;
        if (r < 0)
                return failure_set_errno(failure, REASON_source_unavailable, -r,
                                         "reserve needs %" PRIu64 " huge pages of %s, %" PRIu64 " are free, and more cannot be "
                                         "asked for (%s): run as root, or have them reserved at boot", needed, size, available,
                                         strerror(-r));
        if (available + got < needed)
                return failure_set(failure, REASON_no_memory,
                                   "reserve needs %" PRIu64 " huge pages of %s, %" PRIu64 " were free and the kernel made only "
                                   "%" PRIu64 " more: lower reserve, or have them reserved at boot (hugepagesz=, hugepages=)",
                                   needed, size, available, got);
        if (available + got == 0 && !hugetlb->options.may_raise)
                return failure_set(failure, REASON_no_memory,
                                   "no huge page of %s is free: echo 64 > /proc/sys/vm/nr_hugepages, or set reserve = 128M in "
                                   "[source hugetlb]", size);
        return 0;
}

static int open_stash(struct hugetlb *hugetlb, struct failure *failure) {
        uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE), most;
        int r;

        most = hugetlb->options.limit < memory ? hugetlb->options.limit : memory;
        r = stash_new(&hugetlb->huge, most / hugetlb->huge.page_size, &hugetlb->stash);
        if (r == 0)
                r = source_worker_new("source-hugetlb", hugetlb_work, &hugetlb->base, &hugetlb->worker);
        if (r < 0)
                return failure_set_errno(failure, REASON_source_unavailable, -r, "source hugetlb cannot start: %s",
                                         strerror(-r));
        return 0;
}

static void open_pin(struct hugetlb *hugetlb) {
        const size_t about_size = sizeof(hugetlb->about);
        char size[32], *about = hugetlb->about;
        int r;

        r = pin_probe();
        hugetlb->pins = r == 0;
        hugetlb_size_text(hugetlb->huge.page_size, size);
        if (r == 0)
                snprintf(about, about_size, "huge pages of %s, pinned", size);
        else
                snprintf(about, about_size, "huge pages of %s, not pinned (vmsplice: %s)", size, strerror(-r));
}

static int hugetlb_open(const struct source_option *options, size_t n_options, struct keep *keep, struct source **ret,
                        struct failure *failure) {
        struct hugetlb *hugetlb;
        int r;

        hugetlb = calloc(1, sizeof(*hugetlb));
        if (!hugetlb)
                return failure_set(failure, REASON_no_memory, "there is no memory to open source hugetlb");
        hugetlb->base.ops = &source_hugetlb_ops;
        hugetlb->huge.pagemap_fd = hugetlb->huge.zero_fd = -1;
        r = hugetlb_read_options(options, n_options, &hugetlb->options, failure);
        if (r < 0)
                goto fail;
        hugetlb->huge.page_size = hugetlb->options.page_size;
        r = open_pool(hugetlb, failure);
        if (r < 0)
                goto fail;
        r = open_pagemap(hugetlb, failure);
        if (r < 0)
                goto fail;
        open_pin(hugetlb);
        r = open_reserve(hugetlb, failure);
        if (r < 0)
                goto fail;
        r = open_stash(hugetlb, failure);
        if (r < 0)
                goto fail;
        *ret = &hugetlb->base;
        return 0;

fail:
        hugetlb_close(&hugetlb->base);
        return r;
}

static void hugetlb_describe(struct source *source, struct source_info *ret) {
        struct hugetlb *hugetlb = (struct hugetlb *)source;
        uint64_t available = room(hugetlb), unused = hugepool_available(&hugetlb->pool) * hugetlb->huge.page_size;

        if (!hugetlb->options.may_raise && available > unused)
                available = unused;
        *ret = (struct source_info){
                .name = "hugetlb",
                .about = hugetlb->about,
                .flags = hugetlb->pins ? SOURCE_PINS : 0,
                .grain = hugetlb->huge.page_size,
                .limit = hugetlb->options.limit,
                .reserve = hugetlb->options.reserve,
                .idle_ms = hugetlb->options.idle_ms,
                .available = available,
        };
}

static void hugetlb_submit(struct source *source, struct source_job *job) {
        source_worker_submit(((struct hugetlb *)source)->worker, job);
}

static int hugetlb_event_fd(struct source *source) {
        return source_worker_event_fd(((struct hugetlb *)source)->worker);
}

static void hugetlb_dispatch(struct source *source) {
        source_worker_dispatch(((struct hugetlb *)source)->worker);
}

static void hugetlb_wait(struct source *source) {
        source_worker_wait(((struct hugetlb *)source)->worker);
}

const struct source_ops source_hugetlb_ops = {
        .struct_size = sizeof(struct source_ops),
        .version = SOURCE_OPS_VERSION,
        .name = "hugetlb",
        .doc = "huge pages of the host, with their real machine addresses",
        .options = hugetlb_options,
        .check_option = hugetlb_check_option,
        .open = hugetlb_open,
        .close = hugetlb_close,
        .describe = hugetlb_describe,
        .submit = hugetlb_submit,
        .event_fd = hugetlb_event_fd,
        .dispatch = hugetlb_dispatch,
        .wait = hugetlb_wait,
        .backing_fd = hugetlb_backing_fd,
        .backing_zero = hugetlb_backing_zero,
};
