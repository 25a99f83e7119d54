#include <config.h>

#include "daemon/source/sources.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static uint64_t identity;

const struct source_ops *const source_all[] = {
        &source_hugetlb_ops,
        &source_dma_heap_ops,
        &source_sim_ops,
#ifdef HAVE_XEN
        &source_xen_ops,
#endif
        &source_anonymous_ops,
        NULL,
};

const struct source_ops *source_find(const char *name) {
        const struct source_ops *const *ops;

        for (ops = source_all; *ops; ops++)
                if (strcmp((*ops)->name, name) == 0)
                        return *ops;
        return NULL;
}

bool source_needs_no_keep(const char *name) {
        const struct source_ops *ops = source_find(name);

        return ops && ops->is_kept;
}

bool source_any_kept(void) {
        const struct source_ops *const *ops;

        for (ops = source_all; *ops; ops++)
                if ((*ops)->is_kept && (*ops)->is_kept())
                        return true;
        return false;
}

/* FNV-1a of the directory's path as the kernel knows it. */
void source_set_identity(int directory_fd) {
        char link[32], path[4096];
        ssize_t n;

        snprintf(link, sizeof(link), "/proc/self/fd/%d", directory_fd);
        n = readlink(link, path, sizeof(path));
        identity = UINT64_C(0xcbf29ce484222325);
        for (ssize_t i = 0; i < n; i++)
                identity = (identity ^ (unsigned char)path[i]) * UINT64_C(0x100000001b3);
}

uint64_t source_identity(void) {
        return identity;
}
