/* Sources that go on where an earlier process left off: lives of a source, most of them ended by SIGKILL. */
#ifndef DMAB_TESTS_UNIT_KEEP_FIXTURE_H
#define DMAB_TESTS_UNIT_KEEP_FIXTURE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/core/source.h"
#include "daemon/source/keep.h"

struct life {
        const struct source_ops *ops;
        struct keep *keep;
        struct source *source;
};

/* Make the state directory, and remove it again; cmocka's group functions. */
int lives_begin(void **state);
int lives_end(void **state);

/* The keep of the state directory. */
struct keep *life_keep(void);
/* Open the source with it. Ends the process with a message on failure, also in a child. */
struct life life_begin(const struct source_ops *ops, const struct source_option *options, size_t n);
/* Give everything back, and end the keeper. */
void life_close(struct life *life);
/* Leave everything for the next life. */
void life_leave(struct life *life);

/* Submit one job and come back when its completion has run: its status. What arrived is in the job. */
int life_run(struct life *life, struct source_job *job);
/* GROW or RECLAIM: the bytes that arrived. */
uint64_t life_gain(struct life *life, enum source_job_kind kind, uint64_t size);
struct source_backing *life_carve(struct life *life, uint64_t id, uint64_t addr, uint64_t size);
int life_adopt(struct life *life, uint64_t id, uint64_t addr, uint64_t size, struct source_backing **ret);
char *life_map(struct life *life, struct source_backing *backing, uint64_t size);

/* Fork a child that runs live(), which must not return; *ret_said can be read for what the child tells. */
pid_t life_fork(void (*live)(void *userdata, int say), void *userdata, int *ret_said);
/* Wait for a child that was killed. */
void life_await(pid_t child);
void say(int fd, uint64_t number);
uint64_t hear(int fd);
void __attribute__((noreturn)) be_killed(void);

/* The process was forked by life_fork(): cmocka's asserts do not end it. */
#define insist(expression) insist_on((expression) != 0, #expression, __LINE__)
void insist_on(int is_true, const char *expression, int line);

#endif
