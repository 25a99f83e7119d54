/* What is checked of pools, and how it is told: always when a free is refused; with DMAB_DEBUG also what was written to
 * blocks that are free, or behind those that are not, and what is left in the end. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/error.h"
#include "client/link.h"
#include "client/pool.h"

enum { POISON_FREE = 0xa7, POISON_GIVEN = 0xa9, RED_ZONE = 0xcc }; /* the first two as the kernel's dma_pool */
enum { LEAKS_TOLD = 16 };

bool inspect_wanted(void) {
        const char *value = secure_getenv("DMAB_DEBUG");

        return value && *value && strcmp(value, "0");
}

static void __attribute__((format(printf, 2, 3))) complain(const struct dmab_pool *pool, const char *format, ...) {
        va_list arguments;

        flockfile(stderr);
        fprintf(stderr, "libdmabroker: pool %s of %s (%s): ", pool->name, pool->device->name,
                link_owner(pool->dmab->link));
        va_start(arguments, format);
        vfprintf(stderr, format, arguments);
        va_end(arguments);
        fputc('\n', stderr);
        funlockfile(stderr);
}

/* ---- refused frees ---- */

/* Whose it is instead. Pools are looked for in the session's list: the one that a slab names may have ended. */
static int tell_foreign(const struct dmab_pool *pool, const void *vaddr, const struct piece *piece) {
        const struct dmab_pool *other;
        int r = 0;

        if (!piece)
                return error_set_reason(EFAULT, "bad_address", "%p is no block of the pool %s of %s: it is not memory from "
                                                               "the broker, or was returned to it", vaddr, pool->name,
                                        pool->device->name);
        pthread_mutex_lock(&pool->dmab->pools_lock);
        for (other = pool->dmab->pools; other && !r; other = other->next)
                if (other == magazine_load(&piece->of))
                        r = error_set_reason(EFAULT, "bad_address", "%p is no block of the pool %s of %s: it belongs to "
                                                                    "the pool %s of %s", vaddr, pool->name,
                                             pool->device->name, other->name, other->device->name);
        pthread_mutex_unlock(&pool->dmab->pools_lock);
        return r ? r
                 : error_set_reason(EFAULT, "bad_address", "%p is no block of the pool %s of %s: it was allocated otherwise",
                                    vaddr, pool->name, pool->device->name);
}

int inspect_free(const struct dmab_pool *pool, const void *vaddr, dmab_addr_t dma) {
        struct piece *piece = memory_find(pool->memory, vaddr);
        const uint8_t *state = shadow_state(&pool->shadow, vaddr);

        if (!piece || magazine_load(&piece->of) != pool)
                return tell_foreign(pool, vaddr, piece);
        if (!state || magazine_load(state) == BLOCK_NONE)
                return error_set_reason(EFAULT, "bad_address", "%p (0x%llx) is not the start of a block of %zu bytes that the "
                                                               "pool %s of %s gave to this process", vaddr,
                                        (unsigned long long)dma, pool->size, pool->name, pool->device->name);
        if (dma != (uintptr_t)vaddr + piece->delta)
                return error_set_reason(EFAULT, "bad_address", "the block at %p of the pool %s of %s has the dma address "
                                                               "0x%llx, and is freed with 0x%llx", vaddr, pool->name,
                                        pool->device->name, (unsigned long long)((uintptr_t)vaddr + piece->delta),
                                        (unsigned long long)dma);
        if (magazine_load(state) == BLOCK_FREE)
                return error_set_reason(EINVAL, "double_free", "the block at %p (0x%llx) of the pool %s of %s is free already",
                                        vaddr, (unsigned long long)dma, pool->name, pool->device->name);
        return 0;
}

void inspect_late(const struct dmab_pool *pool, const void *vaddr, bool none) {
        complain(pool, none ? "%p was freed with others at once, and is no block of the pool; it is ignored"
                            : "the block at %p was freed twice with others at once; set DMAB_DEBUG to find out where",
                 vaddr);
}

/* ---- patterns ---- */

/* The first of n bytes that is not as it should be, or n. */
static size_t first_other(const unsigned char *bytes, size_t n, unsigned char pattern) {
        size_t i = 0;

        while (i < n && bytes[i] == pattern)
                i++;
        return i;
}

void inspect_poison(const struct dmab_pool *pool, void *vaddr) {
        memset(vaddr, POISON_FREE, pool->block_size);
}

void inspect_given(const struct dmab_pool *pool, void *vaddr, dmab_addr_t dma, bool zero) {
        size_t at = first_other(vaddr, pool->block_size, POISON_FREE);

        if (at < pool->block_size)
                complain(pool, "the block at %p (0x%llx) was written to while it was free: byte %zu is 0x%02x", vaddr,
                         (unsigned long long)dma, at, ((unsigned char *)vaddr)[at]);
        memset(vaddr, zero ? 0 : POISON_GIVEN, pool->size);
        memset((char *)vaddr + pool->size, RED_ZONE, pool->block_size - pool->size);
}

void inspect_returned(const struct dmab_pool *pool, void *vaddr, dmab_addr_t dma) {
        size_t tail = pool->block_size - pool->size, at = first_other((unsigned char *)vaddr + pool->size, tail, RED_ZONE);

        if (at < tail)
                complain(pool, "the block at %p (0x%llx) of %zu bytes was written to behind its end: byte %zu is 0x%02x",
                         vaddr, (unsigned long long)dma, pool->size, pool->size + at,
                         ((unsigned char *)vaddr)[pool->size + at]);
        inspect_poison(pool, vaddr);
}

/* ---- leaks ---- */

struct leak_report {
        const struct dmab_pool *pool;
        size_t told;
};

static int tell_leak(void *vaddr, dmab_addr_t dma, void *userdata) {
        struct leak_report *report = userdata;

        complain(report->pool, "  %p (0x%llx)", vaddr, (unsigned long long)dma);
        return ++report->told == LEAKS_TOLD;
}

void inspect_leaks(const struct dmab_pool *pool, const char *when) {
        struct leak_report report = { .pool = pool };
        size_t used = pool_used(pool);

        if (!pool->debug || !used)
                return;
        complain(pool, "%zu block%s of %zu bytes %s in use %s%s", used, used == 1 ? "" : "s", pool->size,
                 used == 1 ? "is" : "are", when, used > LEAKS_TOLD ? "; the first of them:" : ":");
        lease_visit_busy(pool, tell_leak, &report);
}
