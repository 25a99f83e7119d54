/* A simulated source: ordinary memory under made-up machine addresses, for tests and for machines without privileges.
 * The same options and the same jobs always give the same addresses. No device could ever use them, which is why
 * everything that comes from here carries SOURCE_SIMULATED. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/source/kept.h"
#include "daemon/source/copy.h"
#include "daemon/source/layout.h"
#include "daemon/source/memfile.h"
#include "daemon/source/option.h"
#include "daemon/source/sources.h"
#include "daemon/source/worker.h"

#define SIM_LAYOUT_DEFAULT "8M@0x00800000,120M@0x78000000,128M@0x100000000"

enum { SIM_DELAY_MAX_MS = 60 * 1000 };

struct source_backing {
        int fd;
        uint64_t id, addr, size;
        struct source_backing *next, **link; /* in struct sim */
};

/* Pieces of the layout, ordered by rank and address. */
struct pieces {
        struct layout_span *spans;
        size_t n, room;
};

struct sim {
        struct source base;
        struct source_worker *worker;
        struct layout layout;
        /* The worker's alone from the first job on. */
        struct pieces undelivered;
        struct source_backing *backings;
        struct kept kept;
        uint64_t limit, reserve, idle_ms, delay_ms;
        _Atomic uint64_t held; /* delivered by GROW, or adopted, and not given back */
        _Atomic uint64_t kept_bytes; /* of regions that nobody has adopted yet */
        char about[96];
};

struct sim_options {
        struct layout layout;
        uint64_t limit, reserve, idle_ms, delay_ms;
};

static const struct source_option sim_options[] = {
        { "layout", "the made-up memory, a list of SIZE@ADDR in the order in which it is handed out [" SIM_LAYOUT_DEFAULT "]" },
        { "holes", "a list of SIZE@ADDR that is cut out of the layout [none]" },
        { "limit", "most bytes to hold [the whole layout]" },
        { "reserve", "bytes to hold from the start and never give back [all up to the limit]" },
        { "idle_ms", "give memory above the reserve back when it was unused for so long; 0: never [0]" },
        { "delay_ms", "how long making a region takes at least, to test what waits for it [0]" },
        { NULL, NULL },
};

static int sim_read_option(struct sim_options *options, const char *key, const char *value, struct failure *failure) {
        struct layout scratch;
        int r;

        if (strcmp(key, "layout") == 0)
                return layout_parse(key, value, &options->layout, failure);
        if (strcmp(key, "holes") == 0)
                return layout_parse(key, value, &scratch, failure);
        if (strcmp(key, "limit") == 0) {
                r = option_size(key, value, &options->limit, failure);
                if (r == 0 && options->limit < LAYOUT_GRAIN)
                        return failure_set(failure, REASON_bad_param, "limit = %.40s: at least 4096 are needed", value);
                return r;
        }
        if (strcmp(key, "reserve") == 0)
                return option_size(key, value, &options->reserve, failure);
        if (strcmp(key, "idle_ms") == 0)
                return option_number(key, value, &options->idle_ms, failure);
        if (strcmp(key, "delay_ms") == 0) {
                r = option_number(key, value, &options->delay_ms, failure);
                if (r == 0 && options->delay_ms > SIM_DELAY_MAX_MS)
                        return failure_set(failure, REASON_bad_param, "delay_ms = %.40s: at most %d", value,
                                           SIM_DELAY_MAX_MS);
                return r;
        }
        return option_unknown("sim", sim_options, key, failure);
}

static int sim_check_option(const char *key, const char *value, struct failure *failure) {
        struct sim_options scratch;

        return sim_read_option(&scratch, key, value, failure);
}

static int sim_read_options(struct sim *sim, const struct source_option *options, size_t n, struct failure *failure) {
        struct sim_options read = { .limit = UINT64_MAX, .reserve = UINT64_MAX };
        const char *holes = option_find(options, n, "holes");
        struct layout cuts;
        uint64_t total;
        size_t i;
        int r;

        r = layout_parse("layout", SIM_LAYOUT_DEFAULT, &read.layout, failure);
        for (i = 0; i < n && r == 0; i++)
                r = sim_read_option(&read, options[i].key, options[i].value, failure);
        if (r == 0 && holes) {
                r = layout_parse("holes", holes, &cuts, failure);
                if (r == 0)
                        r = layout_cut(&read.layout, &cuts, failure);
        }
        if (r < 0)
                return r;

        total = layout_total(&read.layout);
        sim->layout = read.layout;
        sim->limit = (read.limit < total ? read.limit : total) / LAYOUT_GRAIN * LAYOUT_GRAIN;
        if (read.reserve != UINT64_MAX && read.reserve > sim->limit)
                return failure_set(failure, REASON_bad_param,
                                   "reserve = %" PRIu64 ": that is more than the limit of %" PRIu64 " bytes", read.reserve,
                                   sim->limit);
        sim->reserve = (read.reserve < sim->limit ? read.reserve : sim->limit) / LAYOUT_GRAIN * LAYOUT_GRAIN;
        sim->idle_ms = read.idle_ms;
        sim->delay_ms = read.delay_ms;
        return 0;
}

static bool is_before(const struct layout_span *a, const struct layout_span *b) {
        return a->rank != b->rank ? a->rank < b->rank : a->addr < b->addr;
}

static int pieces_insert(struct pieces *pieces, const struct layout_span *piece) {
        struct layout_span *spans;
        size_t at = 0, room;

        if (pieces->n == pieces->room) {
                room = pieces->room ? 2 * pieces->room : 16;
                spans = realloc(pieces->spans, room * sizeof(*spans));
                if (!spans)
                        return -ENOMEM;
                pieces->spans = spans;
                pieces->room = room;
        }
        while (at < pieces->n && is_before(&pieces->spans[at], piece))
                at++;
        memmove(&pieces->spans[at + 1], &pieces->spans[at], (pieces->n - at) * sizeof(*piece));
        pieces->spans[at] = *piece;
        pieces->n++;
        return 0;
}

/* Join what continues its predecessor within the same span of the layout. */
static void pieces_merge(struct pieces *pieces) {
        struct layout_span *last;
        size_t i, n = 0;

        for (i = 0; i < pieces->n; i++) {
                last = n ? &pieces->spans[n - 1] : NULL;
                if (last && last->rank == pieces->spans[i].rank && last->addr + last->size == pieces->spans[i].addr)
                        last->size += pieces->spans[i].size;
                else
                        pieces->spans[n++] = pieces->spans[i];
        }
        pieces->n = n;
}

/* How much of [addr, addr+size) is in the pieces. */
static uint64_t pieces_within(const struct pieces *pieces, uint64_t addr, uint64_t size) {
        uint64_t begin, end, found = 0;
        size_t i;

        for (i = 0; i < pieces->n; i++) {
                begin = pieces->spans[i].addr > addr ? pieces->spans[i].addr : addr;
                end = pieces->spans[i].addr + pieces->spans[i].size;
                if (end > addr + size)
                        end = addr + size;
                if (begin < end)
                        found += end - begin;
        }
        return found;
}

/* Take [addr, addr+size) out of the pieces, which have all of it. On failure nothing has changed. */
static int pieces_cut(struct pieces *pieces, uint64_t addr, uint64_t size) {
        const uint64_t end = addr + size;
        struct layout_span *span, rest;
        size_t i, n = 0;
        int r;

        for (i = 0; i < pieces->n; i++) {
                span = &pieces->spans[i];
                if (span->addr >= addr || span->addr + span->size <= end)
                        continue;
                /* Cut into two: the only case in which there is one more, and the only one that can fail. */
                rest = (struct layout_span){ .addr = end, .size = span->addr + span->size - end, .rank = span->rank };
                r = pieces_insert(pieces, &rest);
                if (r == 0)
                        pieces->spans[i].size = addr - pieces->spans[i].addr;
                return r;
        }
        for (i = 0; i < pieces->n; i++) {
                rest = pieces->spans[i];
                if (rest.addr < end && rest.addr + rest.size > addr) {
                        if (rest.addr < addr)
                                rest.size = addr - rest.addr;
                        else if (rest.addr + rest.size > end)
                                rest = (struct layout_span){ .addr = end, .size = rest.addr + rest.size - end,
                                                             .rank = rest.rank };
                        else
                                continue;
                }
                pieces->spans[n++] = rest;
        }
        pieces->n = n;
        return 0;
}

/* The limit may be lower than it was when what is held was got. */
static uint64_t room(const struct sim *sim) {
        uint64_t held = atomic_load(&sim->held);

        return sim->limit > held ? sim->limit - held : 0;
}

static int sim_grow(struct sim *sim, struct source_job *job) {
        uint64_t wanted = job->size, got = 0, take;
        struct layout_span *first;
        int r;

        if (wanted > room(sim))
                wanted = room(sim);
        wanted = wanted / LAYOUT_GRAIN * LAYOUT_GRAIN;
        while (got < wanted && sim->undelivered.n > 0) {
                first = &sim->undelivered.spans[0];
                take = first->size < wanted - got ? first->size : wanted - got;
                r = source_job_arrive(job, first->addr, take, -1);
                if (r < 0)
                        break;
                got += take;
                first->addr += take;
                first->size -= take;
                if (first->size == 0)
                        memmove(first, first + 1, --sim->undelivered.n * sizeof(*first));
        }
        atomic_fetch_add(&sim->held, got);
        if (got == 0)
                return failure_set(job->failure, REASON_no_memory,
                                   "the simulated memory of %" PRIu64 " bytes is used up: raise layout or limit of source sim",
                                   sim->limit);
        return 0;
}

/* [addr, addr+size) may cross spans of the layout that touch: each part goes back to its own. */
static int sim_shrink(struct sim *sim, struct source_job *job) {
        const uint64_t job_end = job->addr + job->size;
        struct layout_span part;
        uint64_t end;
        size_t i;
        int r = 0;

        for (i = 0; i < sim->layout.n; i++) {
                part = sim->layout.spans[i];
                end = part.addr + part.size < job_end ? part.addr + part.size : job_end;
                if (part.addr < job->addr)
                        part.addr = job->addr;
                if (part.addr >= end)
                        continue;
                part.size = end - part.addr;
                if (pieces_insert(&sim->undelivered, &part) < 0) {
                        source_job_arrive(job, part.addr, part.size, -1);
                        r = failure_set(job->failure, REASON_no_memory,
                                        "there is no memory for the books of source sim");
                        continue;
                }
                atomic_fetch_sub(&sim->held, part.size);
        }
        pieces_merge(&sim->undelivered);
        return r;
}

static void sim_delay(const struct sim *sim) {
        struct timespec delay = {
                .tv_sec = (time_t)(sim->delay_ms / 1000),
                .tv_nsec = (long)(sim->delay_ms % 1000) * 1000000,
        };

        while (sim->delay_ms && nanosleep(&delay, &delay) < 0 && errno == EINTR)
                ;
}

static void backing_link(struct sim *sim, struct source_backing *backing) {
        backing->link = &sim->backings;
        backing->next = sim->backings;
        if (backing->next)
                backing->next->link = &backing->next;
        sim->backings = backing;
}

static void backing_free(struct source_backing *backing) {
        *backing->link = backing->next;
        if (backing->next)
                backing->next->link = backing->link;
        close(backing->fd);
        free(backing);
}

static int sim_carve(struct sim *sim, struct source_job *job) {
        struct source_backing *backing;
        int fd, r;

        sim_delay(sim);
        if (job->size == 0 || job->size % LAYOUT_GRAIN || job->addr % LAYOUT_GRAIN) {
                r = failure_set(job->failure, REASON_bad_param, "a region is made of whole grains of 4096 bytes");
                goto fail;
        }
        backing = malloc(sizeof(*backing));
        fd = backing ? memfile_make("dmabroker-sim", job->size) : -ENOMEM;
        if (fd < 0) {
                free(backing);
                r = failure_set_errno(job->failure, REASON_source_unavailable, -fd,
                                      "no file for a region of %" PRIu64 " bytes: %s", job->size, strerror(-fd));
                goto fail;
        }
        r = kept_put(&sim->kept, "region", job->id, fd);
        if (r < 0) {
                close(fd);
                free(backing);
                kept_fail(r, job->size, job->failure);
                goto fail;
        }
        *backing = (struct source_backing){ .fd = fd, .id = job->id, .addr = job->addr, .size = job->size };
        backing_link(sim, backing);
        job->backing = backing;
        return 0;

fail:
        source_job_arrive(job, job->addr, job->size, -1);
        return r;
}

/* Ordinary memory has no address to lose: whoever still maps the file keeps the old pages, and a region made later at
 * the same simulated address is a new file, full of zeros. */
static int sim_restore(struct sim *sim, struct source_job *job) {
        struct source_backing *backing = job->backing;

        job->backing = NULL;
        kept_drop(&sim->kept, "region", backing->id);
        source_job_arrive(job, backing->addr, backing->size, -1);
        backing_free(backing);
        return 0;
}

static int backing_verify(const struct source_backing *backing, struct failure *failure) {
        return memfile_verify(backing->fd, backing->size, failure);
}

static int sim_backing_fd(struct source_backing *backing) {
        return backing->fd;
}

static int sim_backing_zero(struct source_backing *backing, uint64_t offset, uint64_t size) {
        return memfile_zero(backing->fd, backing->size, offset, size);
}

/* The addresses are in the layout still, and come with the next GROW, each with a new file. */
static int sim_reclaim(struct sim *sim) {
        kept_deinit(&sim->kept, true);
        atomic_store(&sim->kept_bytes, 0);
        return 0;
}

static int sim_adopt(struct source *source, uint64_t id, uint64_t addr, uint64_t size, int node,
                     struct source_backing **ret, struct failure *failure) {
        struct sim *sim = (struct sim *)source;
        struct kept_region *region = kept_find(&sim->kept, id);
        struct source_backing *backing;
        int r;

        if (!region)
                return failure_set_errno(failure, REASON_source_unavailable, ENOENT,
                                         "nothing is kept of the region at 0x%" PRIx64, addr);
        if (size > UINT64_MAX - addr || pieces_within(&sim->undelivered, addr, size) != size)
                return failure_set_errno(failure, REASON_source_unavailable, ENOENT,
                                         "source sim has no memory at 0x%" PRIx64 " any more: its layout has changed",
                                         addr);
        backing = malloc(sizeof(*backing));
        if (!backing)
                return failure_set(failure, REASON_no_memory, "there is no memory to go on with a region");
        *backing = (struct source_backing){ .fd = region->fd, .id = id, .addr = addr, .size = size };
        r = backing_verify(backing, failure);
        if (r == 0 && pieces_cut(&sim->undelivered, addr, size) < 0)
                r = failure_set(failure, REASON_no_memory, "there is no memory for a region");
        if (r < 0) {
                free(backing);
                return r == -EUCLEAN ? -EINVAL : r;
        }
        region->fd = -1;
        atomic_fetch_sub(&sim->kept_bytes, region->bytes);
        backing_link(sim, backing);
        atomic_fetch_add(&sim->held, size);
        *ret = backing;
        return 0;
}

static int sim_backing_read(struct source_backing *backing, uint64_t offset, void *buffer, uint64_t size) {
        return memfile_read(backing->fd, backing->size, offset, buffer, size);
}

static int sim_backing_write(struct source_backing *backing, uint64_t offset, const void *buffer, uint64_t size) {
        return memfile_write(backing->fd, backing->size, offset, buffer, size);
}

static void sim_work(struct source *source, struct source_job *job) {
        struct sim *sim = (struct sim *)source;

        switch (job->kind) {
        case SOURCE_GROW:
                job->status = sim_grow(sim, job);
                return;
        case SOURCE_CARVE:
                job->status = sim_carve(sim, job);
                return;
        case SOURCE_RESTORE:
                job->status = sim_restore(sim, job);
                return;
        case SOURCE_SHRINK:
                job->status = sim_shrink(sim, job);
                return;
        case SOURCE_VERIFY:
                job->status = backing_verify(job->backing, job->failure);
                return;
        case SOURCE_COPY:
                job->status = source_copy(job);
                return;
        case SOURCE_ZERO:
                job->status = source_zero(&source_sim_ops, job);
                return;
        case SOURCE_RECLAIM:
                job->status = sim_reclaim(sim);
                return;
        case SOURCE_JOB_KINDS:
                break;
        }
        job->status = failure_set(job->failure, REASON_unsupported, "source sim knows no job of kind %d",
                                  (int)job->kind);
}

static void sim_end(struct sim *sim, bool drop) {
        if (!sim)
                return;
        source_worker_free(sim->worker);
        while (sim->backings) {
                if (drop)
                        kept_drop(&sim->kept, "region", sim->backings->id);
                backing_free(sim->backings);
        }
        kept_deinit(&sim->kept, drop);
        free(sim->undelivered.spans);
        free(sim);
}

static void sim_close(struct source *source) {
        sim_end((struct sim *)source, true);
}

static void sim_leave(struct source *source) {
        sim_end((struct sim *)source, false);
}

static int sim_open(const struct source_option *options, size_t n_options, struct keep *keep, struct source **ret,
                    struct failure *failure) {
        struct sim *sim;
        size_t i;
        int r = 0;

        sim = calloc(1, sizeof(*sim));
        if (!sim)
                return failure_set(failure, REASON_no_memory, "there is no memory to open source sim");
        sim->base.ops = &source_sim_ops;
        r = sim_read_options(sim, options, n_options, failure);
        if (r < 0)
                goto fail;
        for (i = 0; i < sim->layout.n && r == 0; i++)
                r = pieces_insert(&sim->undelivered, &sim->layout.spans[i]);
        if (r == 0)
                r = kept_init(keep, "sim", &sim->kept);
        atomic_store(&sim->kept_bytes, memfiles_kept(&sim->kept));
        if (r == 0)
                r = source_worker_new("source-sim", sim_work, &sim->base, &sim->worker);
        if (r < 0) {
                failure_set_errno(failure, REASON_source_unavailable, -r, "source sim cannot start: %s", strerror(-r));
                goto fail;
        }
        snprintf(sim->about, sizeof(sim->about),
                 "simulated memory of %" PRIu64 " KiB in %zu pieces, for no real device",
                 layout_total(&sim->layout) / 1024, sim->layout.n);
        *ret = &sim->base;
        return 0;

fail:
        sim_end(sim, false);
        return r;
}

static void sim_describe(struct source *source, struct source_info *ret) {
        struct sim *sim = (struct sim *)source;

        *ret = (struct source_info){
                .name = "sim",
                .about = sim->about,
                .flags = SOURCE_SIMULATED,
                .grain = LAYOUT_GRAIN,
                .limit = sim->limit,
                .reserve = sim->reserve,
                .idle_ms = sim->idle_ms,
                .available = room(sim),
                .kept = atomic_load(&sim->kept_bytes),
        };
}

static void sim_submit(struct source *source, struct source_job *job) {
        source_worker_submit(((struct sim *)source)->worker, job);
}

static int sim_event_fd(struct source *source) {
        return source_worker_event_fd(((struct sim *)source)->worker);
}

static void sim_dispatch(struct source *source) {
        source_worker_dispatch(((struct sim *)source)->worker);
}

static void sim_wait(struct source *source) {
        source_worker_wait(((struct sim *)source)->worker);
}

const struct source_ops source_sim_ops = {
        .struct_size = sizeof(struct source_ops),
        .version = SOURCE_OPS_VERSION,
        .name = "sim",
        .doc = "simulated memory with made-up addresses, for tests and for machines without privileges",
        .options = sim_options,
        .check_option = sim_check_option,
        .open = sim_open,
        .close = sim_close,
        .describe = sim_describe,
        .submit = sim_submit,
        .event_fd = sim_event_fd,
        .dispatch = sim_dispatch,
        .wait = sim_wait,
        .backing_fd = sim_backing_fd,
        .backing_zero = sim_backing_zero,
        .adopt = sim_adopt,
        .leave = sim_leave,
        .backing_read = sim_backing_read,
        .backing_write = sim_backing_write,
};
