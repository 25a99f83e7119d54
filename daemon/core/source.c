#include "daemon/core/source.h"

#include <errno.h>
#include <stdlib.h>

void source_job_deinit(struct source_job *job) {
        if (job->arrived != &job->one)
                free(job->arrived);
        job->arrived = NULL;
        job->n_arrived = 0;
}

void source_let_go(struct source *source) {
        if (source->ops->leave)
                source->ops->leave(source);
        else
                source->ops->close(source);
}

int source_job_arrive(struct source_job *job, uint64_t addr, uint64_t size, int node) {
        struct source_run *runs, *last;

        last = job->n_arrived ? &job->arrived[job->n_arrived - 1] : NULL;
        if (last && last->addr + last->size == addr && last->node == node) {
                last->size += size;
                return 0;
        }
        if (!job->n_arrived)
                job->arrived = &job->one;
        /* Grows by doubling: the capacity is the next power of two of the count. */
        else if ((job->n_arrived & (job->n_arrived - 1)) == 0) {
                runs = realloc(job->n_arrived == 1 ? NULL : job->arrived, 2 * job->n_arrived * sizeof(*runs));
                if (!runs)
                        return -ENOMEM;
                if (job->n_arrived == 1)
                        runs[0] = job->one;
                job->arrived = runs;
        }
        job->arrived[job->n_arrived++] = (struct source_run){ .addr = addr, .size = size, .node = node };
        return 0;
}
