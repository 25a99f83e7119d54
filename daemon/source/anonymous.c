/* Where what is swapped out lies: ordinary memory, one sealed memfd for each region. No device can be given it. It serves
 * beside the sources of device memory, unasked, and for nothing else. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "daemon/source/copy.h"
#include "daemon/source/host.h"
#include "daemon/source/kept.h"
#include "daemon/source/memfile.h"
#include "daemon/source/option.h"
#include "daemon/source/sources.h"
#include "daemon/source/worker.h"

#define GRAIN UINT64_C(4096)
/* What stands for an address: above everything that a machine has, and never twice. */
#define FIRST (UINT64_C(1) << 62)

struct source_backing {
        int fd;
        uint64_t id, size;
        struct source_backing *next, **link; /* in struct anonymous */
};

struct anonymous {
        struct source base;
        struct source_worker *worker;
        /* The worker's alone from the first job on. */
        struct source_backing *backings;
        struct kept kept;
        uint64_t next; /* the first address that nothing has had */
        uint64_t limit;
        _Atomic uint64_t held;
        _Atomic uint64_t kept_bytes; /* of regions that nobody has adopted yet */
        char about[96];
};

static const struct source_option anonymous_options[] = {
        { "limit", "most bytes to hold; 0: nothing can be swapped out. A MemoryMax= of the service must have room for it "
                   "[a quarter of the host's memory]" },
        { NULL, NULL },
};

static int anonymous_check_option(const char *key, const char *value, struct failure *failure) {
        uint64_t limit;

        if (strcmp(key, "limit") == 0)
                return option_size(key, value, &limit, failure);
        return option_unknown("anonymous", anonymous_options, key, failure);
}

static uint64_t limit_default(void) {
        struct sysinfo info;

        return sysinfo(&info) == 0 ? (uint64_t)info.totalram * info.mem_unit / 4 : 0;
}

static uint64_t room(const struct anonymous *anonymous) {
        uint64_t held = atomic_load(&anonymous->held);

        return anonymous->limit > held ? anonymous->limit - held : 0;
}

static void backing_link(struct anonymous *anonymous, struct source_backing *backing) {
        backing->link = &anonymous->backings;
        backing->next = anonymous->backings;
        if (backing->next)
                backing->next->link = &backing->next;
        anonymous->backings = backing;
}

static void backing_free(struct source_backing *backing) {
        *backing->link = backing->next;
        if (backing->next)
                backing->next->link = backing->link;
        close(backing->fd);
        free(backing);
}

/* Nothing is begun that would leave the host without memory. */
static int room_check(const struct anonymous *anonymous, const struct source_job *job, struct failure *failure) {
        uint64_t available = host_available();

        if (job->size > room(anonymous))
                return failure_set(failure, REASON_no_memory, "%" PRIu64 " bytes more would be above the limit of source "
                                   "anonymous, which is %" PRIu64, job->size, anonymous->limit);
        if (job->size > available / 2)
                return failure_set(failure, REASON_no_memory, "the host has only %" PRIu64 " bytes of memory left, too few to "
                                   "swap %" PRIu64 " bytes out", available, job->size);
        return 0;
}

static int anonymous_carve(struct anonymous *anonymous, struct source_job *job) {
        struct source_backing *backing;
        int fd, r;

        r = room_check(anonymous, job, job->failure);
        if (r < 0)
                return r;
        backing = malloc(sizeof(*backing));
        fd = backing ? memfile_make("dmabroker-anonymous", job->size) : -ENOMEM;
        /* Taken now: whoever comes next is to find it taken. */
        if (fd >= 0 && fallocate(fd, 0, 0, (off_t)job->size) < 0) {
                r = -errno;
                close(fd);
                fd = r;
        }
        if (fd < 0) {
                free(backing);
                return failure_set_errno(job->failure, REASON_source_unavailable, -fd,
                                         "no file for a region of %" PRIu64 " bytes: %s", job->size, strerror(-fd));
        }
        r = kept_put(&anonymous->kept, "region", job->id, fd);
        if (r < 0) {
                close(fd);
                free(backing);
                return kept_fail(r, job->size, job->failure);
        }
        *backing = (struct source_backing){ .fd = fd, .id = job->id, .size = job->size };
        backing_link(anonymous, backing);
        atomic_fetch_add(&anonymous->held, job->size);
        job->addr = anonymous->next;
        anonymous->next += job->size;
        job->backing = backing;
        return 0;
}

static int anonymous_restore(struct anonymous *anonymous, struct source_job *job) {
        struct source_backing *backing = job->backing;

        job->backing = NULL;
        memfile_empty(backing->fd, backing->size);
        kept_drop(&anonymous->kept, "region", backing->id);
        atomic_fetch_sub(&anonymous->held, backing->size);
        backing_free(backing);
        return 0;
}

static int anonymous_reclaim(struct anonymous *anonymous) {
        size_t i;

        for (i = 0; i < anonymous->kept.n; i++)
                if (anonymous->kept.regions[i].fd >= 0)
                        memfile_empty(anonymous->kept.regions[i].fd, anonymous->kept.regions[i].bytes);
        kept_deinit(&anonymous->kept, true);
        atomic_store(&anonymous->kept_bytes, 0);
        return 0;
}

static int anonymous_adopt(struct source *source, uint64_t id, uint64_t addr, uint64_t size, int node,
                           struct source_backing **ret, struct failure *failure) {
        struct anonymous *anonymous = (struct anonymous *)source;
        struct kept_region *region = kept_find(&anonymous->kept, id);
        struct source_backing *backing;
        int r;

        if (!region)
                return failure_set_errno(failure, REASON_source_unavailable, ENOENT,
                                         "nothing is kept of a region of %" PRIu64 " bytes that was swapped out", size);
        r = memfile_verify(region->fd, size, failure);
        if (r < 0 || addr < FIRST || addr + size < addr)
                return r == -EUCLEAN || r == 0 ? failure_set_errno(failure, REASON_source_unavailable, EINVAL,
                                                                   "what is kept is not that region") : r;
        backing = malloc(sizeof(*backing));
        if (!backing)
                return failure_set(failure, REASON_no_memory, "there is no memory to go on with a region");
        *backing = (struct source_backing){ .fd = region->fd, .id = id, .size = size };
        region->fd = -1;
        atomic_fetch_sub(&anonymous->kept_bytes, region->bytes);
        backing_link(anonymous, backing);
        atomic_fetch_add(&anonymous->held, size);
        if (anonymous->next < addr + size)
                anonymous->next = addr + size;
        *ret = backing;
        return 0;
}

static int anonymous_backing_fd(struct source_backing *backing) {
        return backing->fd;
}

static int anonymous_backing_zero(struct source_backing *backing, uint64_t offset, uint64_t size) {
        return memfile_zero(backing->fd, backing->size, offset, size);
}

static int anonymous_backing_read(struct source_backing *backing, uint64_t offset, void *buffer, uint64_t size) {
        return memfile_read(backing->fd, backing->size, offset, buffer, size);
}

static int anonymous_backing_write(struct source_backing *backing, uint64_t offset, const void *buffer, uint64_t size) {
        return memfile_write(backing->fd, backing->size, offset, buffer, size);
}

static void anonymous_work(struct source *source, struct source_job *job) {
        struct anonymous *anonymous = (struct anonymous *)source;

        switch (job->kind) {
        case SOURCE_CARVE:
                job->status = anonymous_carve(anonymous, job);
                return;
        case SOURCE_RESTORE:
                job->status = anonymous_restore(anonymous, job);
                return;
        case SOURCE_VERIFY:
                job->status = memfile_verify(job->backing->fd, job->backing->size, job->failure);
                return;
        case SOURCE_COPY:
                job->status = source_copy(job);
                return;
        case SOURCE_RECLAIM:
                job->status = anonymous_reclaim(anonymous);
                return;
        case SOURCE_GROW:
        case SOURCE_SHRINK:
        case SOURCE_ZERO:
        case SOURCE_JOB_KINDS:
                break;
        }
        job->status = failure_set(job->failure, REASON_unsupported, "source anonymous knows no job of kind %d",
                                  (int)job->kind);
}

static void anonymous_end(struct anonymous *anonymous, bool drop) {
        if (!anonymous)
                return;
        source_worker_free(anonymous->worker);
        while (anonymous->backings) {
                if (drop)
                        kept_drop(&anonymous->kept, "region", anonymous->backings->id);
                backing_free(anonymous->backings);
        }
        kept_deinit(&anonymous->kept, drop);
        free(anonymous);
}

static void anonymous_close(struct source *source) {
        anonymous_end((struct anonymous *)source, true);
}

static void anonymous_leave(struct source *source) {
        anonymous_end((struct anonymous *)source, false);
}

static int anonymous_open(const struct source_option *options, size_t n_options, struct keep *keep, struct source **ret,
                          struct failure *failure) {
        struct anonymous *anonymous = calloc(1, sizeof(*anonymous));
        const char *limit = option_find(options, n_options, "limit");
        int r = 0;

        if (!anonymous)
                return failure_set(failure, REASON_no_memory, "there is no memory to open source anonymous");
        anonymous->base.ops = &source_anonymous_ops;
        anonymous->next = FIRST;
        anonymous->limit = limit_default();
        if (limit)
                r = option_size("limit", limit, &anonymous->limit, failure);
        if (r < 0) {
                anonymous_end(anonymous, false);
                return r;
        }
        r = kept_init(keep, "anonymous", &anonymous->kept);
        atomic_store(&anonymous->kept_bytes, memfiles_kept(&anonymous->kept));
        if (r == 0)
                r = source_worker_new("source-anon", anonymous_work, &anonymous->base, &anonymous->worker);
        if (r < 0) {
                anonymous_end(anonymous, false);
                return failure_set_errno(failure, REASON_source_unavailable, -r, "source anonymous cannot start: %s",
                                         strerror(-r));
        }
        snprintf(anonymous->about, sizeof(anonymous->about), "ordinary memory for what is swapped out, at most %" PRIu64 " MiB",
                 anonymous->limit >> 20);
        *ret = &anonymous->base;
        return 0;
}

static void anonymous_describe(struct source *source, struct source_info *ret) {
        struct anonymous *anonymous = (struct anonymous *)source;

        *ret = (struct source_info){
                .name = "anonymous",
                .about = anonymous->about,
                .flags = SOURCE_CHOOSES | SOURCE_ANONYMOUS,
                .grain = GRAIN,
                .limit = anonymous->limit,
                .available = room(anonymous),
                .kept = atomic_load(&anonymous->kept_bytes),
        };
}

static void anonymous_submit(struct source *source, struct source_job *job) {
        source_worker_submit(((struct anonymous *)source)->worker, job);
}

static int anonymous_event_fd(struct source *source) {
        return source_worker_event_fd(((struct anonymous *)source)->worker);
}

static void anonymous_dispatch(struct source *source) {
        source_worker_dispatch(((struct anonymous *)source)->worker);
}

static void anonymous_wait(struct source *source) {
        source_worker_wait(((struct anonymous *)source)->worker);
}

const struct source_ops source_anonymous_ops = {
        .struct_size = sizeof(struct source_ops),
        .version = SOURCE_OPS_VERSION,
        .name = "anonymous",
        .doc = "ordinary memory for what is swapped out; serves beside the others, and no device",
        .options = anonymous_options,
        .check_option = anonymous_check_option,
        .open = anonymous_open,
        .close = anonymous_close,
        .describe = anonymous_describe,
        .submit = anonymous_submit,
        .event_fd = anonymous_event_fd,
        .dispatch = anonymous_dispatch,
        .wait = anonymous_wait,
        .backing_fd = anonymous_backing_fd,
        .backing_zero = anonymous_backing_zero,
        .adopt = anonymous_adopt,
        .leave = anonymous_leave,
        .backing_read = anonymous_backing_read,
        .backing_write = anonymous_backing_write,
};
