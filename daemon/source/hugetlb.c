/* Huge pages: real machine addresses for processes that run on the bare host.
 *
 * Stock lies in a stash that nobody else sees. Carving moves the pages of the chosen run, one by one, into a file of the
 * region's own, in address order; what arrived is looked up in the page map, and a run that somebody else's fault broke
 * apart goes back to the stash. A region's file may be changed by whoever holds its descriptor: nothing here reads or
 * writes such memory except through the kernel, which answers with an errno where an access would raise a signal.
 *
 * With a keep, every page is at all times in the kernel's pool or in a file that is kept: the stash, or a region, whose
 * file is kept before its first page moves there and until its last one has left. The pin of a region is kept as long as
 * the region is complete. So a kill at any instruction loses no page; at worst one that was on its way is in the pool. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/source/copy.h"
#include "daemon/source/huge.h"
#include "daemon/source/hugepool.h"
#include "daemon/source/hugetlb-options.h"
#include "daemon/source/hugetlb-record.h"
#include "daemon/source/kept.h"
#include "daemon/source/numa.h"
#include "daemon/source/pagemap.h"
#include "daemon/source/pin.h"
#include "daemon/source/sources.h"
#include "daemon/source/stash.h"
#include "daemon/source/worker.h"

#define STOCK_NAME "hugetlb-stock"

enum {
        HUGE_SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL,
        /* How often a holder that fills the holes of an ended region anew is robbed of them before it is left alone. */
        RESTORE_ROUNDS = 3,
};

struct source_backing {
        struct huge huge; /* for zeroing on the loop's thread */
        int fd;
        void *map;
        uint64_t id, addr, size;
        uint64_t filled; /* bytes from the start that have pages */
        uint64_t taken;  /* bytes that the stash gave for it */
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
        struct record *record;
        bool was_left; /* an earlier daemon had left something */
        _Atomic uint64_t held;          /* bytes in the stash and in regions, kept ones included */
        _Atomic uint64_t kept_bytes;    /* in kept regions that nobody has adopted */
        _Atomic uint64_t unheard_bytes; /* in stock that was left and not told yet */

        /* The worker's alone from the first job on. */
        struct stash *stash;
        struct source_backing *backings;
        struct kept kept;
        uint64_t backed; /* bytes in regions */
};

/* After every job: what describe() may know of the worker's books. */
static void settle(struct hugetlb *hugetlb) {
        atomic_store(&hugetlb->held, stash_count(hugetlb->stash) * hugetlb->huge.page_size + hugetlb->backed +
                                             atomic_load(&hugetlb->kept_bytes));
}

static void tell(struct hugetlb *hugetlb, struct source_job *job) {
        stash_tell(hugetlb->stash, job);
        atomic_store(&hugetlb->unheard_bytes, 0);
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
        if (hugetlb->options.may_raise && available < wanted)
                record_raise(hugetlb->record, RECORD_GROWTH, wanted - available, job->node, &raised);

        numa_use_node(job->node, NUMA_PREFER);
        while (got < wanted && r == 0) {
                r = stash_fill(hugetlb->stash, NULL);
                if (r == 0)
                        got++;
        }
        numa_use_node(-1, NUMA_PREFER);
        tell(hugetlb, job);
        if (job->n_arrived > 0)
                return 0;
        if (wanted == 0)
                return failure_set(job->failure, REASON_no_memory,
                                   "source hugetlb holds its limit of %" PRIu64 " bytes",
                                   hugetlb->options.limit);
        return failure_set_errno(job->failure, REASON_no_memory, r < 0 && r != -ENOSPC ? -r : ENOMEM,
                                 "no huge page is free%s%s", r < 0 && r != -ENOSPC ? ": " : "",
                                 r < 0 && r != -ENOSPC ? strerror(-r) : "");
}

static void backing_unpin(struct hugetlb *hugetlb, struct source_backing *backing) {
        pin_drop(backing->pin, &hugetlb->kept, backing->id);
        backing->pin = pin_free(backing->pin);
}

/* What is kept of it stays so. */
static void backing_free(struct hugetlb *hugetlb, struct source_backing *backing) {
        pin_leave(backing->pin);
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

static void backing_link(struct hugetlb *hugetlb, struct source_backing *backing) {
        backing->link = &hugetlb->backings;
        backing->next = hugetlb->backings;
        if (backing->next)
                backing->next->link = &backing->next;
        hugetlb->backings = backing;
        hugetlb->backed += backing->size;
}

/* A region's file, still without pages, and kept. */
static int backing_new(struct hugetlb *hugetlb, const struct source_job *job, struct source_backing **ret,
                       struct failure *failure) {
        struct source_backing *backing;
        const uint64_t size = job->size;
        int r;

        backing = calloc(1, sizeof(*backing));
        if (!backing)
                return -ENOMEM;
        *backing = (struct source_backing){ .huge = hugetlb->huge, .fd = -1, .id = job->id, .addr = job->addr, .size = size,
                                             .node = -1 };
        r = backing->fd = huge_make_file(&hugetlb->huge, "dmabroker-region", size);
        if (r >= 0)
                r = fcntl(backing->fd, F_ADD_SEALS, HUGE_SEALS) < 0 ? -errno : 0;
        if (r == 0)
                r = huge_map(backing->fd, size, &backing->map);
        if (r == 0) {
                r = kept_put(&hugetlb->kept, "region", backing->id, backing->fd);
                if (r < 0)
                        kept_fail(r, size, failure);
        }
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

/* -ENOENT: there is none. The kernel takes it out of the page tables for a moment also where it tries to move it, in vain. */
static int find_page(const struct source_backing *backing, uint64_t offset, uint64_t *ret_addr) {
        void *at = (char *)backing->map + offset;
        uint64_t pages;
        int r = pagemap_read(backing->huge.pagemap_fd, at, ret_addr);

        if (r != -ENOENT || huge_count(&backing->huge, backing->fd, &pages) < 0 ||
            pages * backing->huge.page_size < backing->size)
                return r;
        r = huge_touch(at);
        return r < 0 ? r : pagemap_read(backing->huge.pagemap_fd, at, ret_addr);
}

/* Every page where it should be? -EUCLEAN with a sentence. */
static int backing_verify(const struct source_backing *backing, struct failure *failure) {
        uint64_t offset, addr;
        int r;

        for (offset = 0; offset < backing->size; offset += backing->huge.page_size) {
                r = find_page(backing, offset, &addr);
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
                backing->taken += page_size;
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

static int backing_pin(struct hugetlb *hugetlb, struct source_backing *backing, struct failure *failure) {
        int r;

        if (!hugetlb->pins)
                return 0;
        r = pin_new(backing->map, backing->size, hugetlb->huge.page_size, &backing->pin);
        if (r < 0) {
                failure_set_errno(failure, REASON_source_unavailable, -r,
                                  "%" PRIu64 " bytes of huge pages cannot be pinned: %s", backing->size, strerror(-r));
                return r;
        }
        r = pin_keep(backing->pin, &hugetlb->kept, backing->id);
        if (r < 0) {
                backing->pin = pin_free(backing->pin);
                kept_fail(r, backing->size, failure);
        }
        return r;
}

static int fill_backing(struct hugetlb *hugetlb, struct source_backing *backing, struct failure *failure) {
        int r;

        r = move_run(hugetlb, backing);
        if (r == 0)
                r = backing_pin(hugetlb, backing, failure);
        if (r < 0)
                return r;
        /* Only now: what is pinned stays where it is found. */
        return backing_verify(backing, failure) < 0 ? -ESTALE : 0;
}

/* A page that was on its way when something failed is in the kernel's pool only when its file is no more. */
static void carve_undo(struct hugetlb *hugetlb, struct source_backing *backing) {
        uint64_t missing;

        backing_unpin(hugetlb, backing);
        missing = backing->taken / hugetlb->huge.page_size;
        missing -= backing_empty(hugetlb, backing);
        kept_drop(&hugetlb->kept, "region", backing->id);
        backing_free(hugetlb, backing);
        while (missing > 0 && stash_fill(hugetlb->stash, NULL) == 0)
                missing--;
}

/* Whatever a carve that failed leaves of the run, and what came in its place, is told as arrived. */
static int carve_fail(struct hugetlb *hugetlb, struct source_job *job, struct source_backing *backing, int r) {
        uint64_t offset;

        if (backing)
                carve_undo(hugetlb, backing);
        for (offset = 0; offset < job->size; offset += hugetlb->huge.page_size)
                stash_untell(hugetlb->stash, job->addr + offset);
        tell(hugetlb, job);
        if (r == -ESTALE || r == -ENOSPC || r == -ENOENT)
                return failure_set_errno(job->failure, REASON_source_unavailable, EAGAIN,
                                         "the run at 0x%" PRIx64 " broke apart: another user of huge pages took a page of it, "
                                         "or the kernel moved one", job->addr);
        if (!job->failure || !job->failure->error)
                failure_set_errno(job->failure, REASON_source_unavailable, -r,
                                  "no region can be made of the %" PRIu64 " bytes at 0x%" PRIx64 ": %s", job->size, job->addr,
                                  strerror(-r));
        return r;
}

static int hugetlb_carve(struct hugetlb *hugetlb, struct source_job *job) {
        struct source_backing *backing = NULL;
        int r;

        r = check_run(hugetlb, job);
        if (r == 0)
                r = backing_new(hugetlb, job, &backing, job->failure);
        if (r == 0)
                r = fill_backing(hugetlb, backing, job->failure);
        if (r < 0)
                return carve_fail(hugetlb, job, backing, r);
        backing_link(hugetlb, backing);
        job->backing = backing;
        return 0;
}

/* Some pages of the file have not come back: a holder has faulted them into the holes meanwhile, or holds them in another
 * way. Returns how many still have not. */
static uint64_t rob(struct hugetlb *hugetlb, int fd, uint64_t size, uint64_t missing) {
        int round;

        for (round = 0; missing > 0 && round < RESTORE_ROUNDS; round++) {
                huge_punch(&hugetlb->huge, fd, 0, size);
                while (missing > 0 && stash_fill(hugetlb->stash, NULL) == 0)
                        missing--;
        }
        /* What is there even so is not ours to count, but its holder should not keep it either. */
        huge_punch(&hugetlb->huge, fd, 0, size);
        return missing;
}

/* A page that somebody still holds (by a pin of his own, or in a pipe) does not reach the kernel's free list, so it cannot
 * arrive here: another free page comes in its place, or none. The kernel zeroes every page that it hands out, and removes
 * it from all page tables before it takes it back. */
static int hugetlb_restore(struct hugetlb *hugetlb, struct source_job *job) {
        struct source_backing *backing = job->backing;
        const uint64_t n_pages = backing->size / hugetlb->huge.page_size;
        uint64_t missing;

        job->backing = NULL;
        backing_unpin(hugetlb, backing);
        missing = n_pages - backing_empty(hugetlb, backing);
        missing = rob(hugetlb, backing->fd, backing->size, missing);
        tell(hugetlb, job);
        if (missing > 0)
                failure_set(job->failure, REASON_busy,
                            "%" PRIu64 " of the %" PRIu64 " pages of the region at 0x%" PRIx64 " did not come back: somebody "
                            "still holds them", missing, n_pages, backing->addr);
        kept_drop(&hugetlb->kept, "region", backing->id);
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
                r = failure_set_errno(job->failure, REASON_source_unavailable, -error,
                                      "the page at 0x%" PRIx64 " cannot be given back: %s", job->addr + offset,
                                      strerror(-error));
        }
        record_lower(hugetlb->record, RECORD_GROWTH, given);
        tell(hugetlb, job);
        return r;
}

static void *hugetlb_backing_map(struct source_backing *backing) {
        return backing->map;
}

static int hugetlb_backing_fd(struct source_backing *backing) {
        return backing->fd;
}

static int hugetlb_backing_zero(struct source_backing *backing, uint64_t offset, uint64_t size) {
        if (offset > backing->size || size > backing->size - offset)
                return -EINVAL;
        return huge_zero(&backing->huge, (char *)backing->map + offset, size);
}

/* ---- what an earlier daemon has left ---- */

static void forget_pin(const struct kept *kept, uint64_t id) {
        struct pin *pin;

        if (pin_take(kept, id, &pin) < 0)
                return;
        pin_drop(pin, kept, id);
        pin_free(pin);
}

/* A pin of another number of pages is one that was not finished, or not forgotten, when the daemon was killed. */
static int take_pin(const struct kept *kept, uint64_t id, uint64_t n_pages, struct pin **ret) {
        struct pin *pin;
        int r;

        r = pin_take(kept, id, &pin);
        if (r == 0 && pin_pages(pin) != n_pages) {
                pin_drop(pin, kept, id);
                pin_free(pin);
                r = -ENOENT;
        }
        if (r == 0)
                *ret = pin;
        return r;
}

/* Only pages that are there count: the region may have been half carved, or half restored. */
static uint64_t reclaim_pages(struct hugetlb *hugetlb, int fd) {
        const uint64_t page_size = hugetlb->huge.page_size;
        uint64_t wanted = 0, left = 0, before, got = 0;
        off_t offset = lseek(fd, 0, SEEK_END);

        huge_count(&hugetlb->huge, fd, &wanted);
        left = wanted;
        while (offset > 0 && left > 0) {
                offset -= (off_t)page_size;
                before = left;
                if (huge_punch(&hugetlb->huge, fd, (uint64_t)offset, page_size) == 0 &&
                    huge_count(&hugetlb->huge, fd, &left) == 0 && left < before &&
                    stash_fill(hugetlb->stash, NULL) == 0)
                        got++;
        }
        return rob(hugetlb, fd, (uint64_t)lseek(fd, 0, SEEK_END), wanted > got ? wanted - got : 0);
}

static int hugetlb_reclaim(struct hugetlb *hugetlb, struct source_job *job) {
        struct kept *kept = &hugetlb->kept;
        uint64_t missing = 0;
        size_t i;

        for (i = 0; i < kept->n; i++) {
                if (kept->regions[i].fd < 0)
                        continue;
                forget_pin(kept, kept->regions[i].id);
                missing += reclaim_pages(hugetlb, kept->regions[i].fd);
        }
        kept_deinit(kept, true);
        atomic_store(&hugetlb->kept_bytes, 0);
        tell(hugetlb, job);
        if (missing > 0)
                return failure_set(job->failure, REASON_busy,
                                   "%" PRIu64 " huge pages of regions that an earlier daemon had left did not come back: "
                                   "somebody still holds them", missing);
        return 0;
}

/* That the file is what the books say, but for its pages. */
static int check_file(const struct kept_region *region, uint64_t size) {
        int seals = fcntl(region->fd, F_GET_SEALS);
        struct stat st;

        if (fstat(region->fd, &st) < 0)
                return -errno;
        return seals >= 0 && (seals & HUGE_SEALS) == HUGE_SEALS && (uint64_t)st.st_size == size ? 0 : -EINVAL;
}

/* Holes that holders have made get pages here, which are then found in the wrong place. */
static int adopt_pages(struct hugetlb *hugetlb, struct source_backing *backing, struct failure *failure) {
        const uint64_t page_size = hugetlb->huge.page_size;
        uint64_t offset;
        int r;

        r = take_pin(&hugetlb->kept, backing->id, backing->size / page_size, &backing->pin);
        for (offset = 0; offset < backing->size; offset += page_size)
                huge_touch((char *)backing->map + offset);
        if (r < 0 && backing_pin(hugetlb, backing, failure) < 0)
                return -EUCLEAN;
        return backing_verify(backing, failure);
}

static int hugetlb_adopt(struct source *source, uint64_t id, uint64_t addr, uint64_t size, int node,
                         struct source_backing **ret, struct failure *failure) {
        struct hugetlb *hugetlb = (struct hugetlb *)source;
        struct kept_region *region = kept_find(&hugetlb->kept, id);
        struct source_backing *backing;
        int r;

        if (!region)
                return failure_set_errno(failure, REASON_source_unavailable, ENOENT,
                                         "nothing is kept of the region at 0x%" PRIx64, addr);
        r = check_file(region, size);
        if (r < 0 && r != -EINVAL)
                return failure_set_errno(failure, REASON_source_unavailable, -r,
                                         "the file of the region at 0x%" PRIx64 " cannot be examined: %s", addr, strerror(-r));
        if (r < 0)
                return failure_set_errno(failure, REASON_source_unavailable, EINVAL,
                                         "what is kept for the region at 0x%" PRIx64 " is no file of %" PRIu64 " bytes that "
                                         "cannot change its size", addr, size);
        backing = calloc(1, sizeof(*backing));
        if (!backing)
                return failure_set(failure, REASON_no_memory, "there is no memory to go on with a region");
        *backing = (struct source_backing){ .huge = hugetlb->huge, .fd = region->fd, .id = id, .addr = addr, .size = size,
                                            .filled = size, .node = node };
        r = huge_map(backing->fd, size, &backing->map);
        if (r < 0) {
                free(backing);
                return failure_set_errno(failure, REASON_source_unavailable, -r,
                                         "the region at 0x%" PRIx64 " cannot be mapped: %s", addr, strerror(-r));
        }
        region->fd = -1;
        atomic_fetch_sub(&hugetlb->kept_bytes, region->bytes);
        backing_link(hugetlb, backing);
        r = adopt_pages(hugetlb, backing, failure);
        settle(hugetlb);
        *ret = backing;
        return r;
}

static int hugetlb_backing_read(struct source_backing *backing, uint64_t offset, void *buffer, uint64_t size) {
        if (offset > backing->size || size > backing->size - offset)
                return -EINVAL;
        return copy_from_file(backing->fd, offset, buffer, size);
}

static int hugetlb_backing_write(struct source_backing *backing, uint64_t offset, const void *buffer, uint64_t size) {
        if (offset > backing->size || size > backing->size - offset)
                return -EINVAL;
        return copy_to_mapping((char *)backing->map + offset, buffer, size);
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
                job->status = backing_verify(job->backing, job->failure);
                break;
        case SOURCE_COPY:
                job->status = source_copy(job);
                break;
        case SOURCE_ZERO:
                job->status = source_zero(&source_hugetlb_ops, job);
                break;
        case SOURCE_RECLAIM:
                job->status = hugetlb_reclaim(hugetlb, job);
                break;
        case SOURCE_JOB_KINDS:
        default:
                job->status = failure_set(job->failure, REASON_unsupported, "source hugetlb knows no job of kind %d",
                                          (int)job->kind);
        }
        settle(hugetlb);
}

/* Everything goes back to the kernel but what holders still have, and its pool gets the size back that it had. Whatever
 * is held no more was given back before, and the record goes last. */
static void give_back(struct hugetlb *hugetlb) {
        struct kept *kept = &hugetlb->kept;
        struct source_backing *backing;
        size_t i;

        for (backing = hugetlb->backings; backing; backing = backing->next) {
                backing_unpin(hugetlb, backing);
                kept_drop(kept, "region", backing->id);
        }
        for (i = 0; i < kept->n; i++)
                if (kept->regions[i].fd >= 0)
                        forget_pin(kept, kept->regions[i].id);
        kept_deinit(kept, true);
        if (hugetlb->stash) {
                stash_empty(hugetlb->stash);
                keep_drop(kept->keep, STOCK_NAME);
        }
}

static void hugetlb_end(struct hugetlb *hugetlb, bool drop) {
        if (!hugetlb)
                return;
        source_worker_free(hugetlb->worker);
        if (drop)
                give_back(hugetlb);
        while (hugetlb->backings)
                backing_free(hugetlb, hugetlb->backings);
        kept_deinit(&hugetlb->kept, false);
        stash_free(hugetlb->stash);
        if (drop && hugetlb->record) {
                record_lower(hugetlb->record, RECORD_GROWTH, UINT64_MAX);
                record_lower(hugetlb->record, RECORD_RESERVE, UINT64_MAX);
        }
        record_close(hugetlb->record, drop);
        if (hugetlb->huge.pagemap_fd >= 0)
                close(hugetlb->huge.pagemap_fd);
        if (hugetlb->huge.zero_fd >= 0)
                close(hugetlb->huge.zero_fd);
        free(hugetlb);
}

static void hugetlb_close(struct source *source) {
        hugetlb_end((struct hugetlb *)source, true);
}

static void hugetlb_leave(struct source *source) {
        struct hugetlb *hugetlb = (struct hugetlb *)source;

        hugetlb_end(hugetlb, hugetlb && !hugetlb->kept.keep);
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
        const uint64_t there = atomic_load(&hugetlb->held) / hugetlb->huge.page_size;
        uint64_t needed = hugetlb->options.reserve / hugetlb->huge.page_size;
        uint64_t available = hugepool_available(&hugetlb->pool), got = 0;
        char size[32];
        int r = 0;

        needed = needed > there ? needed - there : 0;
        hugetlb_size_text(hugetlb->huge.page_size, size);
        /* Trying what cannot be would squeeze everybody else's memory for nothing. */
        if (available < needed && needed - available <= hugepool_possible(&hugetlb->pool))
                r = record_raise(hugetlb->record, RECORD_RESERVE, needed - available, -1, &got);
        if (r < 0)
                return failure_set_errno(failure, REASON_source_unavailable, -r,
                                         "reserve needs %" PRIu64 " huge pages of %s, %" PRIu64 " are free, and more cannot be "
                                         "asked for (%s): run as root, or have them reserved at boot", needed, size, available,
                                         strerror(-r));
        if (available + got < needed) {
                record_lower(hugetlb->record, RECORD_RESERVE, got);
                return failure_set(failure, REASON_no_memory,
                                   "reserve needs %" PRIu64 " huge pages of %s, %" PRIu64 " were free and the kernel made only "
                                   "%" PRIu64 " more: lower reserve, or have them reserved at boot (hugepagesz=, hugepages=)",
                                   needed, size, available, got);
        }
        if (there + available + got == 0 && !hugetlb->options.may_raise)
                return failure_set(failure, REASON_no_memory,
                                   "no huge page of %s is free: echo 64 > /proc/sys/vm/nr_hugepages, or set reserve = 128M in "
                                   "[source hugetlb]", size);
        return 0;
}

/* How many slots: for all that the limit, or the machine, allows, and for what a stash that was left has already. */
static size_t count_slots(const struct hugetlb *hugetlb, int stock_fd) {
        uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE), most;
        struct stat st;

        most = hugetlb->options.limit < memory ? hugetlb->options.limit : memory;
        if (stock_fd >= 0 && fstat(stock_fd, &st) == 0 && (uint64_t)st.st_size > most)
                most = (uint64_t)st.st_size;
        return most / hugetlb->huge.page_size;
}

static int open_kept(struct hugetlb *hugetlb, struct keep *keep) {
        struct kept_region *region;
        uint64_t pages;
        size_t i;
        int r;

        r = kept_init(keep, "hugetlb", &hugetlb->kept);
        for (i = 0; i < hugetlb->kept.n; i++) {
                region = &hugetlb->kept.regions[i];
                pages = 0;
                huge_count(&hugetlb->huge, region->fd, &pages);
                region->bytes = pages * hugetlb->huge.page_size;
                atomic_fetch_add(&hugetlb->kept_bytes, region->bytes);
        }
        return r;
}

/* stock_fd: of the stash that was left, or -1; taken over. */
static int open_stash(struct hugetlb *hugetlb, size_t n_slots, int stock_fd) {
        struct keep *keep = hugetlb->kept.keep;
        int r;

        r = stash_new(&hugetlb->huge, n_slots, record_marks(hugetlb->record), stock_fd, &hugetlb->stash);
        if (r == 0 && stock_fd < 0)
                r = keep_put(keep, STOCK_NAME, stash_fd(hugetlb->stash));
        if (r < 0)
                return r;
        atomic_store(&hugetlb->unheard_bytes, stash_count(hugetlb->stash) * hugetlb->huge.page_size);
        settle(hugetlb);
        return 0;
}

/* What was left, or the beginning of it. The record is kept before the stash, and held no more after it. */
static int open_left(struct hugetlb *hugetlb, struct keep *keep, struct failure *failure) {
        bool is_recorded = false;
        int stock_fd = -1, r;
        size_t n_slots;

        hugetlb->was_left = keep_take(keep, STOCK_NAME, &stock_fd) == 0;
        n_slots = count_slots(hugetlb, stock_fd);
        r = record_open(keep, &hugetlb->pool, n_slots, &hugetlb->record, &is_recorded, failure);
        hugetlb->was_left |= is_recorded;
        if (r < 0 || (stock_fd >= 0 && !is_recorded)) {
                if (stock_fd >= 0)
                        close(stock_fd);
                return r < 0 ? r
                             : failure_set_errno(failure, REASON_source_unavailable, EIO,
                                                 "huge pages are kept, but not the record of them: wait until they are "
                                                 "not kept any longer");
        }
        r = open_stash(hugetlb, n_slots, stock_fd);
        if (r >= 0)
                r = open_kept(hugetlb, keep);
        hugetlb->was_left |= hugetlb->kept.n > 0;
        if (r >= 0)
                settle(hugetlb);
        return r >= 0 ? 0
                      : failure_set_errno(failure, REASON_source_unavailable, -r, "source hugetlb cannot start: %s",
                                          strerror(-r));
}

static int open_worker(struct hugetlb *hugetlb, struct failure *failure) {
        int r;

        r = source_worker_new("source-hugetlb", hugetlb_work, &hugetlb->base, &hugetlb->worker);
        return r < 0 ? failure_set_errno(failure, REASON_source_unavailable, -r, "source hugetlb cannot start: %s",
                                         strerror(-r))
                     : 0;
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
        hugetlb->kept.keep = keep;
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
        r = open_left(hugetlb, keep, failure);
        if (r < 0)
                goto fail;
        r = open_reserve(hugetlb, failure);
        if (r < 0)
                goto fail;
        r = open_worker(hugetlb, failure);
        if (r < 0)
                goto fail;
        *ret = &hugetlb->base;
        return 0;

fail:
        hugetlb_end(hugetlb, !hugetlb->was_left);
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
                .kept = atomic_load(&hugetlb->kept_bytes) + atomic_load(&hugetlb->unheard_bytes),
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
        .backing_map = hugetlb_backing_map,
        .backing_zero = hugetlb_backing_zero,
        .adopt = hugetlb_adopt,
        .leave = hugetlb_leave,
        .backing_read = hugetlb_backing_read,
        .backing_write = hugetlb_backing_write,
};
