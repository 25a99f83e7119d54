/* The thread on which a source does whatever may take time: one queue of jobs in, one list of completions out. */
#ifndef DMAB_SOURCE_WORKER_H
#define DMAB_SOURCE_WORKER_H

#include "daemon/core/source.h"

struct source_worker;

/* Do the job and set its status; runs on the worker's thread. Must not submit, dispatch or wait. */
typedef void (*source_work_fn)(struct source *source, struct source_job *job);

/* Start a thread called `name` (at most 15 characters) that runs `work` for every job, in the order of submission. It
 * blocks all signals: they belong to the loop's thread. `source` is borrowed and must outlive the worker. -ENOMEM,
 * -EMFILE, -EAGAIN (no thread to be had). */
int source_worker_new(const char *name, source_work_fn work, struct source *source, struct source_worker **ret);

/* Run and complete every job that was submitted, those that completions submit included, then end the thread. Returns
 * NULL; NULL is fine. Not from a completion. */
struct source_worker *source_worker_free(struct source_worker *worker);

/* The following mean what struct source_ops says of its operations of the same name; all but submit() belong to the
 * loop's thread. A completion may submit, and may dispatch: the order of completions holds even so. */
void source_worker_submit(struct source_worker *worker, struct source_job *job);
int source_worker_event_fd(struct source_worker *worker);
void source_worker_dispatch(struct source_worker *worker);
void source_worker_wait(struct source_worker *worker);

#endif
