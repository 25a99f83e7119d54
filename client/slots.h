/* Runs of equal slots, handed out and taken back in constant time whatever is free between them.
 *
 * Free runs are kept in one list for every length that a run can have, and a bitmap of a few levels says which lists are not
 * empty: the shortest run that is long enough is found with a handful of bit operations, and so is the answer that there is
 * none. Runs that end or begin next to each other are joined when they become free, by tags at both ends of every run. All
 * of it lies in arrays of its own; the slots' memory is never touched.
 *
 * A run never crosses a barrier. Not thread-safe: whoever shares slots has a struct slots_lock beside them. */
#ifndef DMAB_CLIENT_SLOTS_H
#define DMAB_CLIENT_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct slots;

enum { SLOTS_MOST = 1 << 24 };

/* n slots, all free. Slot i is number base + i on the device's bus, and runs do not cross multiples of `barrier` there, a
 * power of two; 0: none. -EINVAL: n is 0 or above SLOTS_MOST, or barrier no power of two; -ENOMEM. Both without a sentence. */
int slots_new(size_t n, uint64_t base, uint64_t barrier, struct slots **ret);
struct slots *slots_free(struct slots *slots); /* returns NULL; NULL is fine */

/* Held for some 20 ns at a time, unless its holder is preempted. Zeroed is free. */
struct slots_lock {
        unsigned taken; /* atomic */
};

static inline bool slots_try_lock(struct slots_lock *lock) {
        return !__atomic_exchange_n(&lock->taken, 1, __ATOMIC_ACQUIRE);
}

/* Waiting means to spin, and then to sleep for moments. */
void slots_wait_lock(struct slots_lock *lock);

static inline void slots_lock(struct slots_lock *lock) {
        if (!slots_try_lock(lock))
                slots_wait_lock(lock);
}

/* A plain store, which costs nothing, and so nobody can be woken by it. */
static inline void slots_unlock(struct slots_lock *lock) {
        __atomic_store_n(&lock->taken, 0, __ATOMIC_RELEASE);
}

/* Take n slots in one run, from the shortest free run that has them: *ret_first is its first. false: there is none, and it
 * is counted. n > 0. */
bool slots_take(struct slots *slots, size_t n, size_t *ret_first);

/* Give a run back. first must be the first of one that is taken: slots_is_run(). */
void slots_give(struct slots *slots, size_t first);

/* Does a run that is taken begin at this slot? False for slots that there are not. */
bool slots_is_run(const struct slots *slots, size_t slot);
/* The number of slots of the run that begins at first. */
size_t slots_length(const struct slots *slots, size_t first);
/* The run that has this slot: *ret_first. false: it is free. Looks at one word for every 64 slots of the run at most. */
bool slots_find_run(const struct slots *slots, size_t slot, size_t *ret_first);
/* The first run that is taken and begins at `from` or behind. */
bool slots_next_run(const struct slots *slots, size_t from, size_t *ret_first);

struct slots_usage {
        size_t slots, used, high_water;
        size_t runs; /* taken */
        size_t largest_free, longest; /* that there is now, and that there could be if all were free */
        uint64_t fulls; /* times that no run was found */
};

void slots_usage(const struct slots *slots, struct slots_usage *ret);

/* Is everything consistent? For tests: it walks through all of it. 0, or -EIO with what is wrong in text. */
int slots_check(const struct slots *slots, char *text, size_t size);

#endif
