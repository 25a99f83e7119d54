/* What becomes of the library in the child of a fork(), which has one thread and may go on for long without a call to the
 * library: what the parent alone is to have is taken from it before it goes on.
 *
 * Nobody forks while something is half done: that is done between fork_hold() and fork_release(), in which no other lock of the
 * library's is taken, nor anything waited for. */
#ifndef DMAB_CLIENT_FORK_H
#define DMAB_CLIENT_FORK_H

#include <stddef.h>
#include <stdint.h>

/* How many forks lie between this process and the one that loaded the library; counted from the first fork_begin() on. */
unsigned fork_count(void);
void fork_begin(void);

void fork_hold(void);
void fork_release(void);

/* Memory that a child is not to have: nothing is there. Between fork_hold() and fork_release(), which was held before it was
 * mapped. */
void fork_withhold(void *memory, size_t size);
/* `size` bytes of an open file, from `at` on, shared, of which a child has nothing. protection as mmap()'s. -errno. */
int fork_map(int fd, uint64_t at, size_t size, int protection, void **ret);

/* The caller's memory, as long as it is on; filled with 0 before. */
struct fork_watch {
        /* In the child, once: it may only make system calls, and lock nothing. The watch is off by then. */
        void (*forked)(struct fork_watch *watch);
        struct fork_watch *next, **pprev; /* pprev NULL: it is off */
};

/* Both between fork_hold() and fork_release(). One that is off may be taken off again. */
void fork_watch_on(struct fork_watch *watch, void (*forked)(struct fork_watch *watch));
void fork_watch_off(struct fork_watch *watch);

/* A file of which a child has no copy: others are to have it when this process ends. */
struct fork_file {
        struct fork_watch watch;
        int fd; /* -1: closed, also in a child */
};

/* flags as open()'s. -errno. */
int fork_file_open(struct fork_file *file, const char *path, int flags);
/* One that is closed may be closed again. */
void fork_file_close(struct fork_file *file);

#endif
