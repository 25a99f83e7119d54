#include "daemon/source/stash.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/source/numa.h"
#include "daemon/source/pagemap.h"

struct slot {
        uint64_t addr; /* 0: empty. No huge page is at address 0. */
        int node;
        bool untold;
};

struct stash {
        struct huge huge;
        int fd;
        void *map;
        struct slot *slots;
        size_t n_slots, n_used;
        uint32_t *empty; /* slots without a page, n_slots - n_used of them */
        uint32_t *untold;
        size_t n_untold;
        uint32_t *index; /* slot + 1 by address, open addressing; 0: nothing */
        unsigned index_bits;
        unsigned char *marks; /* borrowed */
};

/* Not to be moved across system calls, after any of which the process may be no more. */
static void mark(struct stash *stash, uint32_t slot, bool may_have_page) {
        __atomic_store_n(&stash->marks[slot], may_have_page, __ATOMIC_SEQ_CST);
}

static void *at_slot(const struct stash *stash, uint32_t number) {
        return (char *)stash->map + number * stash->huge.page_size;
}

static size_t index_mask(const struct stash *stash) {
        return ((size_t)1 << stash->index_bits) - 1;
}

static size_t index_home(const struct stash *stash, uint64_t addr) {
        return (size_t)(addr / stash->huge.page_size * UINT64_C(0x9e3779b97f4a7c15) >> (64 - stash->index_bits));
}

/* Where addr is, or where it would go. */
static size_t index_find(const struct stash *stash, uint64_t addr) {
        size_t at = index_home(stash, addr);

        while (stash->index[at] && stash->slots[stash->index[at] - 1].addr != addr)
                at = (at + 1) & index_mask(stash);
        return at;
}

/* Entries after the gap move into it unless that would put them before their home. */
static void index_remove(struct stash *stash, uint64_t addr) {
        size_t gap = index_find(stash, addr), at = gap, home;

        for (;;) {
                stash->index[gap] = 0;
                do {
                        at = (at + 1) & index_mask(stash);
                        if (!stash->index[at])
                                return;
                        home = index_home(stash, stash->slots[stash->index[at] - 1].addr);
                } while (((at - home) & index_mask(stash)) < ((at - gap) & index_mask(stash)));
                stash->index[gap] = stash->index[at];
                gap = at;
        }
}

static int find(const struct stash *stash, uint64_t addr, uint32_t *ret_slot) {
        uint32_t entry = addr ? stash->index[index_find(stash, addr)] : 0;

        if (!entry)
                return -ENOENT;
        *ret_slot = entry - 1;
        return 0;
}

static void untell(struct stash *stash, uint32_t slot) {
        if (stash->slots[slot].untold)
                return;
        stash->slots[slot].untold = true;
        stash->untold[stash->n_untold++] = slot;
}

static int recheck(struct stash *stash, uint32_t number, uint64_t *ret_now);

/* Put a slot in the books under its address. When another slot stands there, that one's page must have moved away. */
static void enter(struct stash *stash, uint32_t number, uint64_t addr) {
        uint64_t now;
        uint32_t other;

        if (find(stash, addr, &other) == 0)
                recheck(stash, other, &now);
        stash->slots[number].addr = addr;
        stash->slots[number].node = numa_node_of(at_slot(stash, number));
        stash->index[index_find(stash, addr)] = number + 1;
        untell(stash, number);
}

static int recheck(struct stash *stash, uint32_t number, uint64_t *ret_now) {
        void *at = at_slot(stash, number);
        uint64_t now;
        int r;

        r = pagemap_read(stash->huge.pagemap_fd, at, &now);
        if (r == -ENOENT) {
                /* A page that is being moved is not mapped for a moment; touching it waits for the end of that. */
                r = huge_zero(&stash->huge, at, 1);
                if (r == 0)
                        r = pagemap_read(stash->huge.pagemap_fd, at, &now);
        }
        if (r < 0)
                return r;
        *ret_now = now;
        if (now == stash->slots[number].addr)
                return 0;
        index_remove(stash, stash->slots[number].addr);
        stash->slots[number].addr = 0;
        enter(stash, number, now);
        return -ESTALE;
}

/* The pages of a stash that was left, which may have moved meanwhile. A slot that was being filled or emptied may turn out
 * to have none: touching it then brings one. */
static void find_pages(struct stash *stash) {
        uint64_t addr;
        uint32_t slot;
        void *at;
        int r;

        for (slot = 0; slot < stash->n_slots; slot++) {
                if (!stash->marks[slot])
                        continue;
                at = at_slot(stash, slot);
                r = huge_zero(&stash->huge, at, 1);
                if (r == 0)
                        r = pagemap_read(stash->huge.pagemap_fd, at, &addr);
                if (r == 0) {
                        enter(stash, slot, addr);
                        stash->n_used++;
                } else if (huge_punch(&stash->huge, stash->fd, slot * stash->huge.page_size, stash->huge.page_size) == 0) {
                        mark(stash, slot, false);
                }
        }
}

/* Taken from the end: the lowest slot first. */
static void list_empty(struct stash *stash) {
        uint32_t slot, n = 0;

        for (slot = (uint32_t)stash->n_slots; slot-- > 0;)
                if (!stash->slots[slot].addr)
                        stash->empty[n++] = slot;
}

static int stash_alloc(struct stash *stash) {
        stash->index_bits = 4;
        while ((size_t)1 << stash->index_bits < 2 * stash->n_slots)
                stash->index_bits++;
        stash->slots = calloc(stash->n_slots, sizeof(*stash->slots));
        stash->empty = calloc(stash->n_slots, sizeof(*stash->empty));
        stash->untold = calloc(stash->n_slots, sizeof(*stash->untold));
        stash->index = calloc((size_t)1 << stash->index_bits, sizeof(*stash->index));
        return stash->slots && stash->empty && stash->untold && stash->index ? 0 : -ENOMEM;
}

static int open_file(struct stash *stash) {
        const uint64_t size = stash->n_slots * stash->huge.page_size;

        if (stash->fd >= 0)
                return ftruncate(stash->fd, (off_t)size) < 0 ? -errno : 0;
        memset(stash->marks, 0, stash->n_slots);
        stash->fd = huge_make_file(&stash->huge, "dmabroker-stock", size);
        return stash->fd < 0 ? stash->fd : 0;
}

int stash_new(const struct huge *huge, size_t n_slots, unsigned char *marks, int fd, struct stash **ret) {
        struct stash *stash = NULL;
        int r = -EINVAL;

        if (n_slots > 0 && n_slots <= UINT32_MAX / 2 && n_slots <= INT64_MAX / huge->page_size) {
                stash = calloc(1, sizeof(*stash));
                r = stash ? 0 : -ENOMEM;
        }
        if (r < 0) {
                if (fd >= 0)
                        close(fd);
                return r;
        }
        *stash = (struct stash){ .huge = *huge, .fd = fd, .n_slots = n_slots, .marks = marks };
        r = stash_alloc(stash);
        if (r == 0)
                r = open_file(stash);
        if (r == 0)
                r = huge_map(stash->fd, n_slots * huge->page_size, &stash->map);
        if (r < 0) {
                stash_free(stash);
                return r;
        }
        if (fd >= 0)
                find_pages(stash);
        list_empty(stash);
        *ret = stash;
        return 0;
}

void stash_empty(struct stash *stash) {
        uint32_t slot;

        while (stash->n_untold > 0)
                stash->slots[stash->untold[--stash->n_untold]].untold = false;
        for (slot = 0; slot < stash->n_slots; slot++)
                if (stash->slots[slot].addr)
                        stash_drop(stash, stash->slots[slot].addr);
}

int stash_fd(const struct stash *stash) {
        return stash->fd;
}

struct stash *stash_free(struct stash *stash) {
        if (!stash)
                return NULL;
        if (stash->map)
                munmap(stash->map, stash->n_slots * stash->huge.page_size);
        if (stash->fd >= 0)
                close(stash->fd);
        free(stash->index);
        free(stash->untold);
        free(stash->empty);
        free(stash->slots);
        free(stash);
        return NULL;
}

static void forget_untold(struct stash *stash, uint32_t slot) {
        size_t i;

        for (i = 0; i < stash->n_untold; i++)
                if (stash->untold[i] == slot) {
                        stash->untold[i] = stash->untold[--stash->n_untold];
                        break;
                }
        stash->slots[slot].untold = false;
}

int stash_fill(struct stash *stash, uint64_t *ret_addr) {
        uint32_t number;
        uint64_t addr;
        int r;

        if (stash->n_used == stash->n_slots)
                return -ENOSPC;
        number = stash->empty[stash->n_slots - stash->n_used - 1];
        mark(stash, number, true);
        r = huge_fill(&stash->huge, stash->fd, stash->map, number * stash->huge.page_size, &addr);
        if (r < 0) {
                mark(stash, number, false);
                return r;
        }
        stash->n_used++;
        enter(stash, number, addr);
        if (ret_addr)
                *ret_addr = addr;
        return 0;
}

int stash_drop(struct stash *stash, uint64_t addr) {
        uint32_t number;
        int r;

        r = find(stash, addr, &number);
        if (r == 0)
                r = huge_punch(&stash->huge, stash->fd, number * stash->huge.page_size, stash->huge.page_size);
        if (r < 0)
                return r;
        mark(stash, number, false);
        if (stash->slots[number].untold)
                forget_untold(stash, number);
        index_remove(stash, addr);
        stash->slots[number] = (struct slot){};
        stash->n_used--;
        stash->empty[stash->n_slots - stash->n_used - 1] = number;
        return 0;
}

int stash_node(const struct stash *stash, uint64_t addr) {
        uint32_t number;
        int r;

        r = find(stash, addr, &number);
        return r < 0 ? r : stash->slots[number].node;
}

int stash_check(struct stash *stash, uint64_t addr, uint64_t *ret_now) {
        uint32_t number;
        int r;

        r = find(stash, addr, &number);
        return r < 0 ? r : recheck(stash, number, ret_now);
}

int stash_untell(struct stash *stash, uint64_t addr) {
        uint32_t number;
        int r;

        r = find(stash, addr, &number);
        if (r == 0)
                untell(stash, number);
        return r;
}

static int compare_slots(const void *a, const void *b, void *userdata) {
        const struct stash *stash = userdata;
        uint64_t addr_a = stash->slots[*(const uint32_t *)a].addr, addr_b = stash->slots[*(const uint32_t *)b].addr;

        return (addr_a > addr_b) - (addr_a < addr_b);
}

void stash_tell(struct stash *stash, struct source_job *job) {
        struct slot *slot;
        size_t i;

        qsort_r(stash->untold, stash->n_untold, sizeof(*stash->untold), compare_slots, stash);
        for (i = 0; i < stash->n_untold; i++) {
                slot = &stash->slots[stash->untold[i]];
                if (source_job_arrive(job, slot->addr, stash->huge.page_size, slot->node) < 0)
                        break;
                slot->untold = false;
        }
        memmove(stash->untold, stash->untold + i, (stash->n_untold - i) * sizeof(*stash->untold));
        stash->n_untold -= i;
}

size_t stash_count(const struct stash *stash) {
        return stash->n_used;
}
