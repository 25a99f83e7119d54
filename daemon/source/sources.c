#include "daemon/source/sources.h"

#include <string.h>

const struct source_ops *const source_all[] = {
        &source_hugetlb_ops,
        &source_dma_heap_ops,
        &source_sim_ops,
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
