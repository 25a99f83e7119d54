/* Who translates a device's addresses: the table of operations that a translator (an IOMMU, the grant tables, or nobody)
 * offers the core. The core never interprets a dma address; it only stores what map() said. Which translator serves a
 * device is decided once, when the device is opened: the first in the daemon's list whose attach() takes it.
 *
 * Calls happen on the loop's thread and must not block. */
#ifndef DMAB_CORE_TRANSLATOR_H
#define DMAB_CORE_TRANSLATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core/failure.h"

struct translation; /* one attached device, as the translator keeps it; opaque to the core */

/* What a translator or the bus knows of a device. */
struct translator_facts {
        bool present;       /* the host knows the device; any name may be opened, but only a present one be a parent */
        int node;           /* NUMA node, or -1 */
        bool blocked;       /* addresses of this translator are none to it: somebody else translates for it */
        uint64_t mask;      /* the dma addresses that it can be given, all ones below; UINT64_MAX: no limit */
        char name[64];      /* the device's canonical name, e.g. with the PCI domain filled in */
};

/* A machine-contiguous run of whole pages that a device is to reach. */
struct translator_run {
        uint64_t addr, size;
        void *memory; /* where the daemon has it mapped, or NULL */
        bool reads_only, writes_only; /* the device */
        /* What the dma address must be like; of no concern to who hands out machine addresses. As in struct arena_request. */
        uint64_t align, boundary, limit;
};

struct translator_ops {
        size_t struct_size; /* sizeof of the author's header; the table may only grow at its end */
        unsigned version;   /* TRANSLATOR_OPS_VERSION */
        const char *name;   /* what device.open tells as `translation` */

        /* Take a device by name. owner: for whom. permitted: whether that owner may have a device for itself. -ENODEV: not
         * mine, ask the next. Any other error is final, with a sentence. */
        int (*attach)(const char *name, const char *owner, bool permitted, struct translation **ret,
                      struct translator_facts *ret_facts, struct failure *failure);
        /* Undo attach(); all its mappings have been undone. */
        void (*detach)(struct translation *translation);
        /* Make a run reachable; *ret_dma is what the device must be given. */
        int (*map)(struct translation *translation, const struct translator_run *run, uint64_t *ret_dma,
                   struct failure *failure);
        /* 0, or -errno: the device may reach it still, and it must not be used again. */
        int (*unmap)(struct translation *translation, uint64_t dma_addr, uint64_t size);
        unsigned flags; /* TRANSLATOR_* */

        /* The following are NULL without TRANSLATOR_TRANSLATES. */

        /* Whether anything can be mapped at or below mask. */
        bool (*serves)(const struct translation *translation, uint64_t mask);
        /* After a restart: what was mapped at dma_addr is, or is again. With a sentence. */
        int (*restore)(struct translation *translation, const struct translator_run *run, uint64_t dma_addr,
                       struct failure *failure);
        /* Everything was restored: what else is mapped still, by a daemon that died, is not any more. */
        void (*restored)(void);
        /* What was unmapped until now is so for good: its dma addresses may be used again. Until then they are not, because
         * after a death the next daemon finds them in use. */
        void (*committed)(void);

        /* The device itself, for the one who has opened it: borrowed; -1: there is none. NULL: there never is. */
        int (*device_fd)(struct translation *translation);
        /* Whoever had the device is gone: it is stopped as far as can be, so that what rests because of it is left alone. Once
         * for each attach(), before detach(). NULL: nothing is to be done. */
        void (*quiet)(struct translation *translation);
};

enum { TRANSLATOR_OPS_VERSION = 2 };

enum {
        /* Once unmap() has returned 0, the device cannot write there any more, whatever it was told before. Where this is not so,
         * memory of a client that vanished rests before it is used again. */
        TRANSLATOR_PROTECTS = 1 << 0,
        /* dma addresses are the device's own: its mask, alignment and boundary are theirs, and memory may lie anywhere. */
        TRANSLATOR_TRANSLATES = 1 << 1,
        /* ... but they follow from where the memory lies: as far apart as that, and aligned as it is up to the grain of its
         * source. So its place is looked for with the alignment and the boundary that they must have. */
        TRANSLATOR_FOLLOWS = 1 << 2,
        /* Memory reaches its owner by grants: there is none but that of a source for guests alone (SOURCE_GUESTS). */
        TRANSLATOR_GRANTS = 1 << 3,
};

static inline bool translator_protects(const struct translator_ops *ops) {
        return ops->struct_size > offsetof(struct translator_ops, flags) && ops->flags & TRANSLATOR_PROTECTS;
}

static inline bool translator_translates(const struct translator_ops *ops) {
        return ops->struct_size > offsetof(struct translator_ops, flags) && ops->flags & TRANSLATOR_TRANSLATES;
}

static inline bool translator_grants(const struct translator_ops *ops) {
        return ops->struct_size > offsetof(struct translator_ops, flags) && ops->flags & TRANSLATOR_GRANTS;
}

static inline bool translator_has_device(const struct translator_ops *ops) {
        return ops->struct_size > offsetof(struct translator_ops, device_fd) && ops->device_fd;
}

static inline bool translator_quiets(const struct translator_ops *ops) {
        return ops->struct_size > offsetof(struct translator_ops, quiet) && ops->quiet;
}

static inline bool translator_follows(const struct translator_ops *ops) {
        return ops->struct_size > offsetof(struct translator_ops, flags) && ops->flags & TRANSLATOR_FOLLOWS;
}

#endif
