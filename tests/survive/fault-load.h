/* Everything that clients can ask, in an order that works: a row of steps with what each is answered. A step that fails because
 * something was made to fail under it must have changed nothing, and must succeed when it is made again. */
#ifndef DMAB_TESTS_SURVIVE_FAULT_LOAD_H
#define DMAB_TESTS_SURVIVE_FAULT_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "tests/lib/daemon.h"
#include "tests/survive/inject.h"

struct load;

struct load *load_new(struct test_daemon *daemon, struct inject *inject);
void load_free(struct load *load);

size_t load_steps(void);
/* The one after it: a step that waits for the next one is made with that. */
size_t load_next(size_t step);
const char *load_step_name(size_t step);
/* Whether it changes nothing, so that it can be made as often as one likes. */
bool load_step_reads(size_t step);
/* The first step at which everything is held. */
size_t load_full(void);

/* Make a step. If n > 0, the n-th call of that kind fails meanwhile. True: so many calls were made. */
bool load_step(struct load *load, size_t step, enum faulty_kind kind, long n, unsigned variant);
/* How many calls of that kind it makes, about. */
long load_measure(struct load *load, size_t step, enum faulty_kind kind, unsigned variant);

/* The steps are made once with nothing failing, and the books after each are remembered. */
void load_learn(struct load *load);
/* Each side has a connection from here on, so that no session ends by itself. */
void load_connect(struct load *load);
/* Connect again and resume the sessions, after the daemon was started anew; then the books are as they were after the step. */
void load_resume(struct load *load, size_t step);
/* After the last step: nothing is left in the daemon, compared with what load_learn() has seen. Ends the test if it is, and
 * says so after what. */
void load_expect_nothing(struct load *load, const char *after);
/* Forget all connections: the daemon is gone. */
void load_drop(struct load *load);
/* Forget the sessions, too: nothing is left of them. */
void load_forget(struct load *load);
/* Of the daemon's heap: what is normal from now on. */
void load_set_base(struct load *load);

/* What came of the calls that failed under a step, and what was found afterwards. */
struct load_counts {
        unsigned long answered, refused, lost; /* as always, with an error, not at all */
        unsigned long again;                   /* asked another time, and answered as always */
        unsigned long rests;                   /* how often nothing was left, compared with load_learn() */
        long fds, blocks;                      /* the most that were there more than at first */
};
/* Of all loads together. */
const struct load_counts *load_counts(void);

/* Remember a line of what has failed and what came of it, and tell it at once if FAULTS_SHOW is set. */
void load_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Those that were last. */
void load_tell(FILE *file);

/* Ends the test with what went wrong, what has failed last, and what the daemon wrote. */
void give_up(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
