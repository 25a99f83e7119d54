/* Lives of the source xen in a real dom0, each in a process of its own that is killed, so that the next one has to find
 * everything. */
#ifndef DMAB_TESTS_VM_XEN_LIFE_H
#define DMAB_TESTS_VM_XEN_LIFE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/core/source.h"
#include "daemon/source/xen-grants.h"

enum { LIFE_RUNS_MAX = 32, LIFE_ENTRIES = 16 * 512 };
#define LIFE_GRANT_FRAMES_TEXT "16"

/* A part of a region that a guest has been granted. */
struct life_grant {
        uint64_t region, region_size, addr, size;
        struct xen_grant_run runs[LIFE_RUNS_MAX];
        uint32_t n_runs;
};

/* In the life's own process. Whatever goes wrong ends it with a sentence. */
void life_open(const char *limit);
uint64_t life_kept(void);
/* The bytes that arrived; *ret: the largest run of them. Where they lie is in life_arrived() until the next job. */
uint64_t life_grow(uint64_t size, uint64_t limit, struct source_run *ret);
const struct source_job *life_arrived(void);
void life_carve(uint64_t addr, uint64_t size);
void life_adopt(uint64_t addr, uint64_t size);
/* The job's status. */
int life_restore(uint64_t addr);
int life_reclaim(uint64_t *ret_arrived);
int life_reclaim_later(uint64_t *ret_arrived); /* what is awaited alone */
void life_shrink(uint64_t addr, uint64_t size);
/* Of the region that has it. */
void life_read(uint64_t addr, void *buffer, uint64_t size);
void life_write(uint64_t addr, const void *buffer, uint64_t size);
void life_verify(uint64_t addr);
/* In order: everything goes back. */
void life_close(void);
void life_check(int right, const char *what);

/* In the test's process. live() says things, and hears when to go on. */
struct life {
        pid_t pid;
        int said, told;
};
void life_begin(struct life *life, void (*live)(void *userdata), void *userdata);
void life_hear(struct life *life, void *ret, size_t size);
void life_tell(struct life *life);
void life_kill(struct life *life);
/* Its status when it has ended. */
int life_reap(struct life *life);
/* Until it ends by itself, and well. */
void life_await(struct life *life);
/* In the life's process. */
void life_say(const void *what, size_t size);
void life_wait(void);

#endif
