#include "daemon/source/kept.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *kept_name(const char *source, const char *what, uint64_t id, char name[static KEEP_NAME_MAX + 1]) {
        snprintf(name, KEEP_NAME_MAX + 1, "%s-%s-%" PRIu64, source, what, id);
        return name;
}

static int count_region(void *userdata, const char *name) {
        ++*(size_t *)userdata;
        return 0;
}

static int take_region(void *userdata, const char *name) {
        struct kept *kept = userdata;
        struct kept_region *region = &kept->regions[kept->n];

        region->id = strtoull(strrchr(name, '-') + 1, NULL, 10);
        if (keep_take(kept->keep, name, &region->fd) == 0)
                kept->n++;
        return 0;
}

static int compare_ids(const void *a, const void *b) {
        const struct kept_region *x = a, *y = b;

        return (x->id > y->id) - (x->id < y->id);
}

int kept_init(struct keep *keep, const char *source, struct kept *ret) {
        char prefix[KEEP_NAME_MAX + 1];
        size_t n = 0;

        *ret = (struct kept){ .keep = keep, .source = source };
        snprintf(prefix, sizeof(prefix), "%s-region-", source);
        keep_visit(keep, prefix, count_region, &n);
        if (n == 0)
                return 0;
        ret->regions = calloc(n, sizeof(*ret->regions));
        if (!ret->regions)
                return -ENOMEM;
        keep_visit(keep, prefix, take_region, ret);
        qsort(ret->regions, ret->n, sizeof(*ret->regions), compare_ids);
        return 0;
}

void kept_deinit(struct kept *kept, bool drop) {
        size_t i;

        for (i = 0; i < kept->n; i++) {
                if (kept->regions[i].fd < 0)
                        continue;
                if (drop)
                        kept_drop(kept, "region", kept->regions[i].id);
                close(kept->regions[i].fd);
        }
        free(kept->regions);
        kept->regions = NULL;
        kept->n = 0;
}

struct kept_region *kept_find(const struct kept *kept, uint64_t id) {
        struct kept_region key = { .id = id }, *region;

        region = kept->n ? bsearch(&key, kept->regions, kept->n, sizeof(key), compare_ids) : NULL;
        return region && region->fd >= 0 ? region : NULL;
}

int kept_put(const struct kept *kept, const char *what, uint64_t id, int fd) {
        char name[KEEP_NAME_MAX + 1];
        int r;

        r = keep_put(kept->keep, kept_name(kept->source, what, id, name), fd);
        return r == -ENOSPC ? -EMFILE : r < 0 ? r : 0;
}

void kept_drop(const struct kept *kept, const char *what, uint64_t id) {
        char name[KEEP_NAME_MAX + 1];

        keep_drop(kept->keep, kept_name(kept->source, what, id, name));
}

int kept_fail(int r, uint64_t size, struct failure *failure) {
        return failure_set_errno(failure, REASON_source_unavailable, -r,
                                 "a region of %" PRIu64 " bytes cannot be kept beyond the daemon's end: %s", size,
                                 r == -EMFILE ? "whoever keeps it can hold no more descriptors (LimitNOFILE=, "
                                                "FileDescriptorStoreMax=)"
                                              : strerror(-r));
}
