#include <config.h>

#include "daemon/source/sources.h"

#include <string.h>

static int directory = -1;

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

void source_set_directory(int fd) {
        directory = fd;
}

int source_directory(void) {
        return directory;
}
