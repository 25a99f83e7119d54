#include "client/slots.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WORD_BITS 64

enum { LEVELS_MOST = 5, SPINS = 200, PAUSE_NS = 20000 };

/* Of the first slot of a run, and its tag of the last one too. What is between is out of date. */
struct slot {
        uint32_t tag;        /* length << 1 | is_free */
        uint32_t next, prev; /* in the list of free runs of that length, which is a ring with a head */
};

struct slots {
        uint32_t n, used, high_water, n_runs, longest;
        uint64_t barrier_base, barrier_mask; /* slot i is behind a barrier: !((base + i) & mask) */
        uint64_t fulls;
        /* [n], with one before and one behind them that are taken and end every run, and then [n + 1] heads of lists, by
         * length. */
        struct slot *at;
        uint32_t heads; /* where those begin */
        uint64_t *runs;      /* bitmap: a run that is taken begins here */
        unsigned n_levels;
        uint64_t *levels[LEVELS_MOST]; /* bitmaps: of lists that are not empty; of words that are not 0; of those ... */
        struct slot *slots;
};

/* ---- the lock ---- */

/* Sleeping, unlike yielding, lets a holder of lower priority run. */
void slots_wait_lock(struct slots_lock *lock) {
        unsigned spins = 0;

        do {
                while (__atomic_load_n(&lock->taken, __ATOMIC_RELAXED)) {
                        if (++spins < SPINS)
                                continue;
                        nanosleep(&(struct timespec){ .tv_nsec = PAUSE_NS }, NULL);
                        spins = 0;
                }
        } while (!slots_try_lock(lock));
}

/* ---- which lengths there are ---- */

static inline void mark(struct slots *slots, uint32_t length) {
        for (unsigned i = 0; i < slots->n_levels; i++) {
                uint64_t *word = &slots->levels[i][length / WORD_BITS], old = *word;

                *word = old | UINT64_C(1) << length % WORD_BITS;
                if (old)
                        return;
                length /= WORD_BITS;
        }
}

static inline void unmark(struct slots *slots, uint32_t length) {
        for (unsigned i = 0; i < slots->n_levels; i++) {
                uint64_t *word = &slots->levels[i][length / WORD_BITS];

                *word &= ~(UINT64_C(1) << length % WORD_BITS);
                if (*word)
                        return;
                length /= WORD_BITS;
        }
}

/* The shortest length that is at least n and has a run, or 0. Up until a word has a bit at or behind the place, then
 * down to the first bit below that one. */
static inline uint32_t shortest(const struct slots *slots, uint32_t n) {
        for (unsigned i = 0; i < slots->n_levels; i++) {
                uint64_t word = slots->levels[i][n / WORD_BITS] & (~UINT64_C(0) << n % WORD_BITS);

                if (!word) {
                        n = n / WORD_BITS + 1;
                        continue;
                }
                n = n / WORD_BITS * WORD_BITS + (uint32_t)__builtin_ctzll(word);
                while (i--)
                        n = n * WORD_BITS + (uint32_t)__builtin_ctzll(slots->levels[i][n]);
                return n;
        }
        return 0;
}

static uint32_t longest(const struct slots *slots) {
        uint32_t n = 0;

        if (!slots->levels[slots->n_levels - 1][0])
                return 0;
        for (unsigned i = slots->n_levels; i--;)
                n = n * WORD_BITS + (WORD_BITS - 1 - (uint32_t)__builtin_clzll(slots->levels[i][n]));
        return n;
}

/* ---- lists of free runs ---- */

static inline void set_ends(struct slots *slots, uint32_t first, uint32_t length, bool is_free) {
        slots->at[first].tag = slots->at[first + length - 1].tag = length << 1 | is_free;
}

static bool list_is_empty(const struct slots *slots, uint32_t length) {
        return slots->at[slots->heads + length].next == slots->heads + length;
}

static inline void list_add(struct slots *slots, uint32_t first, uint32_t length) {
        uint32_t head = slots->heads + length, next = slots->at[head].next;

        set_ends(slots, first, length, true);
        slots->at[first].next = next;
        slots->at[first].prev = head;
        slots->at[next].prev = first;
        slots->at[head].next = first;
        if (next == head)
                mark(slots, length);
}

static inline void list_remove(struct slots *slots, uint32_t first, uint32_t length) {
        uint32_t next = slots->at[first].next, prev = slots->at[first].prev;

        slots->at[next].prev = prev;
        slots->at[prev].next = next;
        if (next == prev)
                unmark(slots, length);
}

static inline bool is_behind_barrier(const struct slots *slots, uint32_t slot) {
        return !((slots->barrier_base + slot) & slots->barrier_mask);
}

/* ---- taking and giving ---- */

static void count_used(struct slots *slots, uint32_t used) {
        slots->used = used;
        if (used > slots->high_water)
                slots->high_water = used;
}

bool slots_take(struct slots *slots, size_t n, size_t *ret_first) {
        uint32_t length = n <= slots->n ? shortest(slots, (uint32_t)n) : 0, first;

        if (!length) {
                slots->fulls++;
                return false;
        }
        first = slots->at[slots->heads + length].next;
        list_remove(slots, first, length);
        if (length > n)
                list_add(slots, first + (uint32_t)n, length - (uint32_t)n);
        set_ends(slots, first, (uint32_t)n, false);
        slots->runs[first / WORD_BITS] |= UINT64_C(1) << first % WORD_BITS;
        slots->n_runs++;
        count_used(slots, slots->used + (uint32_t)n);
        *ret_first = first;
        return true;
}

void slots_give(struct slots *slots, size_t given) {
        uint32_t first = (uint32_t)given, length = slots->at[first].tag >> 1, before = slots->at[(int64_t)first - 1].tag;
        uint32_t behind = slots->at[first + length].tag;

        slots->runs[first / WORD_BITS] &= ~(UINT64_C(1) << first % WORD_BITS);
        slots->n_runs--;
        count_used(slots, slots->used - length);
        if ((behind & 1) && !is_behind_barrier(slots, first + length)) {
                list_remove(slots, first + length, behind >> 1);
                length += behind >> 1;
        }
        if ((before & 1) && !is_behind_barrier(slots, first)) {
                first -= before >> 1;
                list_remove(slots, first, before >> 1);
                length += before >> 1;
        }
        list_add(slots, first, length);
}

/* ---- looking ---- */

bool slots_is_run(const struct slots *slots, size_t slot) {
        return slot < slots->n && (slots->runs[slot / WORD_BITS] >> slot % WORD_BITS & 1);
}

size_t slots_length(const struct slots *slots, size_t first) {
        return slots->at[first].tag >> 1;
}

bool slots_find_run(const struct slots *slots, size_t slot, size_t *ret_first) {
        size_t i = slot / WORD_BITS, first;
        uint64_t word;

        if (slot >= slots->n)
                return false;
        word = slots->runs[i] & (~UINT64_C(0) >> (WORD_BITS - 1 - slot % WORD_BITS));
        while (!word) {
                if (!i)
                        return false;
                word = slots->runs[--i];
        }
        first = i * WORD_BITS + (WORD_BITS - 1 - (size_t)__builtin_clzll(word));
        if (slot - first >= slots_length(slots, first))
                return false;
        *ret_first = first;
        return true;
}

bool slots_next_run(const struct slots *slots, size_t from, size_t *ret_first) {
        size_t i = from / WORD_BITS;
        uint64_t word;

        if (from >= slots->n)
                return false;
        word = slots->runs[i] & (~UINT64_C(0) << from % WORD_BITS);
        while (!word) {
                if (++i > (slots->n - 1) / WORD_BITS)
                        return false;
                word = slots->runs[i];
        }
        *ret_first = i * WORD_BITS + (size_t)__builtin_ctzll(word);
        return true;
}

void slots_usage(const struct slots *slots, struct slots_usage *ret) {
        *ret = (struct slots_usage){
                .slots = slots->n,
                .used = slots->used,
                .high_water = slots->high_water,
                .runs = slots->n_runs,
                .largest_free = longest(slots),
                .longest = slots->longest,
                .fulls = slots->fulls,
        };
}

/* ---- making and ending ---- */

/* Words enough that the one behind the last bit exists, and is 0. */
static int levels_new(struct slots *slots) {
        size_t n_bits = (size_t)slots->n + 1;

        for (;;) {
                size_t n_words = n_bits / WORD_BITS + 1;
                uint64_t *level = calloc(n_words, sizeof(*level));

                if (!level)
                        return -ENOMEM;
                slots->levels[slots->n_levels++] = level;
                if (n_words == 1)
                        return 0;
                n_bits = n_words;
        }
}

/* One run between each two barriers. */
static void add_all(struct slots *slots) {
        uint32_t first = 0;

        while (first < slots->n) {
                uint64_t room = slots->n - first;
                uint64_t to_barrier = slots->barrier_mask - ((slots->barrier_base + first) & slots->barrier_mask);

                if (to_barrier < room - 1)
                        room = to_barrier + 1;
                list_add(slots, first, (uint32_t)room);
                if (room > slots->longest)
                        slots->longest = (uint32_t)room;
                first += (uint32_t)room;
        }
}

int slots_new(size_t n, uint64_t base, uint64_t barrier, struct slots **ret) {
        struct slots *slots;

        if (!n || n > SLOTS_MOST || (barrier & (barrier - 1)))
                return -EINVAL;
        slots = calloc(1, sizeof(*slots));
        if (!slots)
                return -ENOMEM;
        slots->n = (uint32_t)n;
        slots->barrier_base = barrier ? base : 0;
        slots->barrier_mask = barrier - 1;
        slots->slots = calloc(2 * n + 3, sizeof(*slots->slots));
        slots->runs = calloc(n / WORD_BITS + 1, sizeof(*slots->runs));
        if (!slots->slots || !slots->runs || levels_new(slots)) {
                slots_free(slots);
                return -ENOMEM;
        }
        slots->at = slots->slots + 1;
        slots->heads = slots->n + 1;
        for (uint32_t i = slots->heads; i <= slots->heads + n; i++)
                slots->at[i].next = slots->at[i].prev = i;
        add_all(slots);
        *ret = slots;
        return 0;
}

struct slots *slots_free(struct slots *slots) {
        if (!slots)
                return NULL;
        for (unsigned i = 0; i < slots->n_levels; i++)
                free(slots->levels[i]);
        free(slots->runs);
        free(slots->slots);
        free(slots);
        return NULL;
}

/* ---- checking ---- */

static int check_levels(const struct slots *slots, char *text, size_t size) {
        size_t n_bits = (size_t)slots->n + 1;

        for (unsigned i = 0; i < slots->n_levels; i++) {
                for (size_t bit = 0; bit < n_bits; bit++) {
                        bool expected = i ? slots->levels[i - 1][bit] != 0 : !list_is_empty(slots, (uint32_t)bit);
                        bool is = slots->levels[i][bit / WORD_BITS] >> bit % WORD_BITS & 1;

                        if (is != expected) {
                                snprintf(text, size, "bit %zu of level %u is %d", bit, i, is);
                                return -EIO;
                        }
                }
                n_bits = n_bits / WORD_BITS + 1;
        }
        return 0;
}

static size_t count_listed(const struct slots *slots) {
        size_t n = 0;

        for (uint32_t length = 0; length <= slots->n; length++) {
                uint32_t head = slots->heads + length, prev = head;

                for (uint32_t i = slots->at[head].next; i != head; prev = i, i = slots->at[i].next) {
                        if (i >= slots->n || slots->at[i].prev != prev || slots->at[i].tag != (length << 1 | 1))
                                return SIZE_MAX;
                        n++;
                }
        }
        return n;
}

/* One run after the other, by their tags. */
static const char *check_runs(const struct slots *slots, uint32_t *ret_at, size_t *ret_n_free) {
        uint32_t first, length, used = 0, n_runs = 0;
        bool was_free = false;

        for (first = 0; first < slots->n; first += length) {
                uint32_t tag = slots->at[first].tag;
                bool is_free = tag & 1;

                *ret_at = first;
                length = tag >> 1;
                if (!length || length > slots->n - first || slots->at[first + length - 1].tag != tag)
                        return "the tags of its ends differ";
                if (slots_is_run(slots, first) == is_free)
                        return "its bit is wrong";
                for (uint32_t i = first + 1; i < first + length; i++)
                        if (slots_is_run(slots, i) || is_behind_barrier(slots, i))
                                return "there is a bit or a barrier inside";
                if (is_free && was_free && !is_behind_barrier(slots, first))
                        return "it is not joined with the one before";
                was_free = is_free;
                used += is_free ? 0 : length;
                n_runs += !is_free;
                *ret_n_free += is_free;
        }
        return used != slots->used || n_runs != slots->n_runs ? "the counts are wrong" : NULL;
}

int slots_check(const struct slots *slots, char *text, size_t size) {
        size_t n_free = 0;
        uint32_t at = 0;
        const char *wrong = check_runs(slots, &at, &n_free);

        if (!wrong && count_listed(slots) != n_free)
                wrong = "the lists do not have every free run once";
        if (wrong) {
                snprintf(text, size, "the run at slot %u: %s", at, wrong);
                return -EIO;
        }
        return check_levels(slots, text, size);
}
