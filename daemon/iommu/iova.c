#include "daemon/iommu/iova.h"

#include <errno.h>
#include <stdlib.h>

#include "daemon/core/arena.h"

#define PAGE UINT64_C(4096)
#define LOWEST (UINT64_C(64) << 10)

struct iova {
        struct arena *arena;
        uint64_t lowest; /* of all that may be used */
        size_t n_used;
        uint32_t *retired; /* blocks; has room for all that are used */
        size_t n_retired, capacity;
};

int iova_new(struct iova **ret) {
        struct iova *iova = calloc(1, sizeof(*iova));

        if (!iova)
                return -ENOMEM;
        if (arena_new(PAGE, &iova->arena) < 0) {
                free(iova);
                return -ENOMEM;
        }
        iova->lowest = UINT64_MAX;
        *ret = iova;
        return 0;
}

struct iova *iova_free(struct iova *iova) {
        if (!iova)
                return NULL;
        arena_free(iova->arena);
        free(iova->retired);
        free(iova);
        return NULL;
}

int iova_add(struct iova *iova, uint64_t first, uint64_t last) {
        uint64_t end;
        int r;

        if (first < LOWEST)
                first = LOWEST;
        first = (first + PAGE - 1) & ~(PAGE - 1);
        end = last & ~(PAGE - 1); /* the last page only if all of it is in */
        if (last % PAGE == PAGE - 1 && last != UINT64_MAX)
                end += PAGE;
        if (end <= first)
                return -EINVAL;
        r = arena_add(iova->arena, first, end - first, 0);
        if (r == 0 && first < iova->lowest)
                iova->lowest = first;
        return r;
}

static int retired_reserve(struct iova *iova) {
        size_t capacity = 2 * iova->capacity + 64;
        uint32_t *retired;

        if (iova->n_used < iova->capacity)
                return 0;
        retired = reallocarray(iova->retired, capacity, sizeof(*retired));
        if (!retired)
                return -ENOMEM;
        iova->retired = retired;
        iova->capacity = capacity;
        return 0;
}

int iova_take(struct iova *iova, const struct translator_run *run, uint64_t *ret) {
        static const uint64_t pages[] = { UINT64_C(1) << 30, UINT64_C(2) << 20, PAGE };
        struct arena_request want = { .size = run->size, .boundary = run->boundary, .limit = run->limit };
        struct arena_block block;
        size_t i;
        int r;

        r = retired_reserve(iova);
        if (r < 0)
                return r;
        for (i = 0; i < sizeof(pages) / sizeof(*pages); i++) {
                if (run->size < pages[i] || run->addr % pages[i])
                        continue;
                want.align = run->align > pages[i] ? run->align : pages[i];
                r = arena_alloc(iova->arena, &want, &block);
                if (r != -ENOSPC)
                        break;
        }
        if (r < 0)
                return r;
        iova->n_used++;
        *ret = block.addr;
        return 0;
}

int iova_take_at(struct iova *iova, uint64_t addr, uint64_t size) {
        struct arena_block block;
        int r = retired_reserve(iova);

        if (r == 0)
                r = arena_alloc_at(iova->arena, addr, size, &block);
        iova->n_used += r == 0;
        return r;
}

/* Which is in use: the caller has got it. */
static uint32_t block_at(const struct iova *iova, uint64_t addr) {
        struct arena_block block = { 0 };
        bool is_free;

        arena_lookup(iova->arena, addr, &block, &is_free);
        return block.number;
}

void iova_retire(struct iova *iova, uint64_t addr) {
        iova->retired[iova->n_retired++] = block_at(iova, addr);
}

static void release(struct iova *iova, uint32_t block) {
        arena_release(iova->arena, block, NULL);
        iova->n_used--;
}

void iova_settle(struct iova *iova) {
        while (iova->n_retired)
                release(iova, iova->retired[--iova->n_retired]);
}

void iova_give_back(struct iova *iova, uint64_t addr) {
        release(iova, block_at(iova, addr));
}

bool iova_reaches(const struct iova *iova, uint64_t limit) {
        return limit >= PAGE - 1 && iova->lowest <= limit - (PAGE - 1);
}

struct free_visit {
        void (*visit)(void *userdata, uint64_t addr, uint64_t size);
        void *userdata;
};

static int visit_block(const struct arena_block *block, bool is_free, void *userdata) {
        const struct free_visit *visit = userdata;

        if (is_free)
                visit->visit(visit->userdata, block->addr, block->size);
        return 0;
}

void iova_visit_free(const struct iova *iova, void (*visit)(void *userdata, uint64_t addr, uint64_t size), void *userdata) {
        arena_visit(iova->arena, visit_block, &(struct free_visit){ .visit = visit, .userdata = userdata });
}

void iova_usage(const struct iova *iova, struct iova_usage *ret) {
        struct arena_usage usage;

        arena_usage(iova->arena, &usage);
        *ret = (struct iova_usage){ .bytes = usage.bytes, .free_bytes = usage.free_bytes, .n_used = iova->n_used };
}
