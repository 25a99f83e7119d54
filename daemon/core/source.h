/* Where memory comes from: the table of operations that a memory source offers the core.
 *
 * A source keeps *stock*: free memory that it holds already, in grains (huge pages, or 4 KiB for the simulation), each
 * known by its machine address. The core decides which run of stock becomes a region; the source then *carves* it: it
 * makes a file of its own of exactly that run, in address order, so that file offset 0 is the run's first byte. Handing
 * out the file's descriptor thus shows its holder that region and nothing else. *Restoring* a region takes the file apart
 * and puts zeroed memory back in stock.
 *
 * Everything that may take time is a job. submit() never blocks and never completes a job before it returns; the source
 * works on a thread of its own, and source_dispatch() runs the completions on the loop's thread. Jobs of one source
 * complete in the order in which they were submitted. The core alone keeps track of which stock is free: a job that
 * takes stock (carve, shrink) removes it from the core's books before it is submitted, and whatever comes back is listed
 * in `arrived`, also when the job failed.
 *
 * Memory outlives the daemon where a source is opened with a keep. What a daemon left there, by being killed or by
 * leave(), the next one finds when it opens the source: stock is stock again; a region is kept under the number that the
 * core gave it, until it is adopted, or until SOURCE_RECLAIM makes stock of all that were not. */
#ifndef DMAB_CORE_SOURCE_H
#define DMAB_CORE_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core/failure.h"

struct keep; /* what outlives the daemon (daemon/source/keep.h): opaque to the core */
struct source;
struct source_backing; /* a region's memory as its source keeps it: opaque to the core */

/* A machine-contiguous run of whole grains. */
struct source_run {
        uint64_t addr, size;
        int node; /* NUMA node, or -1 */
};

enum source_job_kind {
        SOURCE_GROW,    /* get `size` more bytes (or as much as there is) from the system into stock: `arrived`, with
                         * SOURCE_AIMS nothing above `limit`; -ENOMEM when there is nothing */
        SOURCE_CARVE,   /* make a backing of stock [addr, addr+size): `backing`; on failure `arrived` has what is left
                         * of it; -EAGAIN: somebody else's use of the same pages broke the run apart, try another.
                         * SOURCE_CHOOSES: make one of `size` bytes and tell `addr`; -ENOMEM: not now */
        SOURCE_RESTORE, /* end `backing`: its memory, zeroed, goes to `arrived`; `backing` is freed by the job in any
                         * case; -EBUSY: not all of it came back, because a holder of the file still has pages in use */
        SOURCE_SHRINK,  /* give stock [addr, addr+size) back to the system; what could not be given is in `arrived` */
        SOURCE_VERIFY,  /* compare every grain of `backing` with the kernel's page map: -EUCLEAN and a sentence */
        SOURCE_ZERO,    /* zero [offset, offset+size) of `backing` */
        SOURCE_RECLAIM, /* before any other job where something was kept: the memory of kept regions that nobody has
                         * adopted, zeroed, and stock that was kept: `arrived`. -EBUSY as for SOURCE_RESTORE. A source
                         * whose memory comes back by GROW, or that keeps no stock, tells nothing as arrived. With
                         * SOURCE_RETURNS and `later`: at any time, for what -EBUSY was told of, and nothing else */
        SOURCE_COPY,    /* copy `size` bytes at `from_offset` of `from` to `offset` of `backing`, either of which may be
                         * another source's; both backings live until the job is done */
        SOURCE_JOB_KINDS
};

struct source_job {
        enum source_job_kind kind;
        uint64_t addr, size; /* in: bytes. CARVE with SOURCE_CHOOSES: `size` and `limit` in, `addr` out */
        uint64_t limit;      /* in, CARVE with SOURCE_CHOOSES, GROW with SOURCE_AIMS: the last byte must be at or below this */
        uint64_t id;         /* in: CARVE: the region's number, never used before in this state directory; without a keep
                              * it means nothing */
        uint64_t offset;     /* in: ZERO, COPY */
        bool later;          /* in: RECLAIM */
        int node;            /* in: GROW's preferred NUMA node, or -1 */
        struct source_backing *backing;
        const struct source_ops *to_ops, *from_ops; /* in: COPY: of either backing */
        struct source_backing *from;
        uint64_t from_offset;

        bool kept_low; /* out: GROW with SOURCE_AIMS: for reasons of its own the source looked no higher than 4 GiB */
        uint64_t awaited; /* out: RESTORE, RECLAIM with SOURCE_RETURNS and -EBUSY: bytes that holders still have in use; what has
                           * neither arrived nor is awaited is gone */
        int status; /* out: 0 or -errno; then `failure` says why */
        struct failure *failure; /* NULL: nobody wants to know */
        struct source_run *arrived; /* out; source_job_deinit() frees it */
        size_t n_arrived;
        struct source_run one;      /* where `arrived` is while it is one run, which therefore never lacks memory */

        /* Called once, on the loop's thread, from source_dispatch(). It owns the job again. */
        void (*done)(struct source_job *job);
        void *userdata;

        struct source_job *next; /* the source's own */
};

enum {
        SOURCE_SIMULATED = 1 << 0, /* the addresses are no machine addresses; every layer says so */
        SOURCE_CHOOSES = 1 << 1,   /* keeps no stock, and is told neither to grow nor to shrink: the system picks the
                                    * address at carve, and gets the memory back at restore */
        SOURCE_PINS = 1 << 2,      /* the memory cannot move while a region lives */
        SOURCE_APART = 1 << 4,     /* an IOMMU cannot be given its memory */
        SOURCE_GUESTS = 1 << 5,    /* no process of the host can map its memory: it is for windows of guests that are
                                    * granted them (TRANSLATOR_GRANTS) */
        SOURCE_AIMS = 1 << 6,      /* GROW can be told how high memory may lie */
        SOURCE_RETURNS = 1 << 7,   /* what holders still have in use comes back later: after RESTORE or RECLAIM with -EBUSY
                                    * RECLAIM is submitted now and then, `later`, until its status is 0 */
        SOURCE_ANONYMOUS = 1 << 3, /* with SOURCE_CHOOSES: ordinary memory for what is swapped out. What it tells as addresses
                                    * only tells its regions apart: no device gets them, and no layer shows them */
};

/* What a source says of itself, for status and for the core's decisions. Strings live as long as the source. */
struct source_info {
        const char *name;     /* "hugetlb", "sim", "dma-heap" */
        const char *about;    /* one sentence: what it is here, e.g. "huge pages of 2 MiB, pinned" */
        unsigned flags;       /* SOURCE_* */
        uint64_t grain;       /* bytes; power of two */
        uint64_t limit;       /* most bytes that it may hold; UINT64_MAX: what the system gives */
        uint64_t reserve;     /* bytes of stock it should hold from the start and never give back */
        uint64_t idle_ms;     /* stock above `reserve` that stays unused this long may be given back; 0: never */
        uint64_t available;   /* bytes that GROW may still get, as far as the source can tell now */
        uint64_t awaited_of;  /* SOURCE_RETURNS: one of those that still have something in use: the domain */
        uint64_t kept;        /* bytes that an earlier daemon has left: regions not adopted yet, and stock not told yet */
};

/* One key=value of the source's section in the configuration. */
struct source_option {
        const char *key, *value;
};

struct source_ops {
        size_t struct_size; /* sizeof(struct source_ops) of the author's header; the table may only grow at its end */
        unsigned version;   /* SOURCE_OPS_VERSION */
        const char *name;
        const char *doc; /* one sentence */
        /* Keys that its section may have, each with a sentence; ends with a NULL key. */
        const struct source_option *options;

        /* Judge one option without any effect: 0, or -errno with a sentence. */
        int (*check_option)(const char *key, const char *value, struct failure *failure);
        /* Open with options that have been checked. Memory that `reserve` demands arrives by a later GROW. On failure a
         * sentence says what a person can do about it, and whatever was kept is kept still. keep: borrowed until close()
         * or leave(); NULL: nothing of this source outlives the daemon. May block. */
        int (*open)(const struct source_option *options, size_t n_options, struct keep *keep, struct source **ret,
                    struct failure *failure);
        /* Ends the worker after the jobs in its queue, gives everything back to the system, kept or not, frees the source.
         * All backings must have been restored or abandoned. Completions not yet dispatched are dispatched. NULL is fine. */
        void (*close)(struct source *source);
        void (*describe)(struct source *source, struct source_info *ret);
        /* Queue a job; the source owns it until done(). Never fails, never blocks: trouble is told by the job's status. */
        void (*submit)(struct source *source, struct source_job *job);
        /* Readable when source_dispatch() has something to do. Owned by the source. */
        int (*event_fd)(struct source *source);
        /* Run the completions that are ready, on the calling thread. */
        void (*dispatch)(struct source *source);
        /* Wait until at least one completion is ready, or until no job is left (for tests and shutdown). */
        void (*wait)(struct source *source);

        /* The backing's file: borrowed, offset 0 is the region's first byte, sealed against any change of size. -1: there
         * is none. */
        int (*backing_fd)(struct source_backing *backing);
        /* Zero [offset, offset+size) at once: for sizes too small to be worth a job. -EFAULT when the holder of the
         * descriptor has made holes that cannot be filled: harms only itself. */
        int (*backing_zero)(struct source_backing *backing, uint64_t offset, uint64_t size);

        /* The following two are NULL where nothing can outlive the daemon. */

        /* Make the kept file of region `id`, of which the core's books say that it is [addr, addr+size) on this node, a
         * backing again: mapped, pinned, and every page looked up. When it has been opened, before the first submit(), on the
         * thread that will submit; may block. *ret: as if it had been carved, the caller's until it is restored.
         * 0; -ENOENT: nothing is kept of it, the memory is gone; -EUCLEAN: *ret is set, but not all of its pages are where
         * they should be, or that cannot be made sure of: its holders have it still, and nobody else may get it; -EINVAL:
         * what is kept under this number is not such a region; -ENOMEM, -errno. With a sentence; without a *ret what is
         * kept stays so, for SOURCE_RECLAIM. */
        int (*adopt)(struct source *source, uint64_t id, uint64_t addr, uint64_t size, int node,
                     struct source_backing **ret, struct failure *failure);
        /* Like close(), but everything that is in the keep stays there, with every byte, for the next daemon: nothing is
         * given back to the system. The backings are freed, but their memory is not restored. After this nothing is to be
         * done with the keep but keep_free(). Without a keep it is the same as close(). NULL is fine. */
        void (*leave)(struct source *source);
        /* Read and write a part, from any thread while the backing lives. A holder's holes read as zeros, or are an errno;
         * they never are a signal. */
        int (*backing_read)(struct source_backing *backing, uint64_t offset, void *buffer, uint64_t size);
        int (*backing_write)(struct source_backing *backing, uint64_t offset, const void *buffer, uint64_t size);
        /* Where all of it is mapped in this process, for whoever gives it to an IOMMU: not to be read or written, since its
         * holder can make loads and stores there a signal. NULL, or a NULL function: nowhere. */
        void *(*backing_map)(struct source_backing *backing);

        /* NULL where the keep alone has what outlives the daemon. */

        /* Whether an earlier daemon has left anything of this source; before it is opened. */
        bool (*is_kept)(void);
        /* NULL where only opening it tells. */

        /* Whether the source can be on this machine at all: 0, or -errno with a sentence. Looks, and does nothing. */
        int (*probe)(struct failure *failure);
};

enum { SOURCE_OPS_VERSION = 2 };

struct source {
        const struct source_ops *ops; /* first member of every source's own struct */
};

/* The source is not used after all: what is kept of it stays for the next daemon. Frees it. */
void source_let_go(struct source *source);

void source_job_deinit(struct source_job *job);
/* Note a run in job->arrived, merged with the last one where it continues it. -ENOMEM. */
int source_job_arrive(struct source_job *job, uint64_t addr, uint64_t size, int node);

#endif
