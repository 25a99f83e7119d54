/* Memory of any size: size classes over pools of the device, which are made when the first block of a class is asked for, and
 * coherent allocations for what is larger than the largest class, or cannot be had from a pool. */
#include "client/any.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/coherent.h"
#include "client/error.h"
#include "client/pool.h"

/* Multiples of 64 up to 512, then four to a doubling: at most a fifth of a block is waste, and a tenth on average. */
enum {
        UNIT = 64,
        LINEAR = 8, /* classes below 512 bytes, and with it */
        PER_DOUBLING = 4,
        SIZE_MOST = 256 << 10,
        CLASSES = LINEAR + PER_DOUBLING * 9,
};

struct any_classes {
        struct dmab_pool *pools[CLASSES]; /* atomic; NULL: not made yet */
        bool refused[CLASSES];            /* atomic: the device can have no such pool */
        struct dmab_pool *retired;        /* atomic: of classes that have another pool now, or none */
};

static inline unsigned class_of(size_t size) {
        unsigned shift;

        if (size <= UNIT * LINEAR)
                return (unsigned)((size + UNIT - 1) / UNIT) - 1;
        /* Quarters of the power of two below. */
        shift = 61 - __builtin_clzll(size - 1);
        return LINEAR + PER_DOUBLING * (shift - 7) + (unsigned)((size - 1) >> shift) - PER_DOUBLING;
}

static size_t size_of(unsigned class) {
        unsigned doubling = (class - LINEAR) / PER_DOUBLING, quarter = (class - LINEAR) % PER_DOUBLING;

        return class < LINEAR ? (size_t)(class + 1) * UNIT : (size_t)(PER_DOUBLING + 1 + quarter) << (7 + doubling);
}

/* ---- classes ---- */

static struct any_classes *classes_of(struct dmab_device *device) {
        struct any_classes *classes = __atomic_load_n(&device->classes, __ATOMIC_ACQUIRE), *made;

        if (classes)
                return classes;
        made = calloc(1, sizeof(*made));
        if (!made)
                return NULL;
        if (__atomic_compare_exchange_n(&device->classes, &classes, made, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
                return made;
        free(made);
        return classes;
}

/* Two threads may make the same class at once; one of both then goes. */
static int make_class(struct dmab_device *device, struct any_classes *classes, unsigned class, struct dmab_pool **ret) {
        struct dmab_pool_options options = DMAB_POOL_OPTIONS_INIT;
        struct dmab_pool *pool, *other = NULL;
        char name[32];
        int r;

        snprintf(name, sizeof(name), "any-%zu", size_of(class));
        r = pool_create(name, device, size_of(class), UNIT, 0, &options, true, &pool);
        if (r)
                return r;
        if (!__atomic_compare_exchange_n(&classes->pools[class], &other, pool, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
                dmab_pool_destroy(pool);
                pool = other;
        }
        *ret = pool;
        return 0;
}

/* Blocks of that class can never be had by this device, but coherent memory may. */
static bool is_about_size(int r) {
        return r == -E2BIG || r == -EINVAL || r == -EOPNOTSUPP;
}

static int alloc_coherent(struct dmab_device *device, size_t size, unsigned flags, void **ret_vaddr, dmab_addr_t *ret_dma) {
        return coherent_alloc_any(device, size, flags, ret_vaddr, ret_dma);
}

static int __attribute__((noinline)) alloc_first(struct dmab_device *device, size_t size, unsigned flags, void **ret_vaddr,
                                                 dmab_addr_t *ret_dma) {
        struct any_classes *classes;
        struct dmab_pool *pool;
        unsigned class;
        int r = device ? session_check(device->dmab) : error_set(EINVAL, "the handle of the device is NULL");

        if (r)
                return r;
        if (!size || size > SIZE_MOST || flags & ~(DMAB_NOWAIT | DMAB_WAIT | DMAB_HIGH | DMAB_ZERO))
                return alloc_coherent(device, size, flags, ret_vaddr, ret_dma);
        classes = classes_of(device);
        if (!classes)
                return error_set(ENOMEM, "there is not enough memory");
        class = class_of(size);
        if (magazine_load(&classes->refused[class]))
                return alloc_coherent(device, size, flags, ret_vaddr, ret_dma);
        r = make_class(device, classes, class, &pool);
        if (r && is_about_size(r)) {
                magazine_store(&classes->refused[class], true);
                return alloc_coherent(device, size, flags, ret_vaddr, ret_dma);
        }
        return r ? r : block_alloc(pool, flags, ret_vaddr, ret_dma);
}

int dmab_alloc(dmab_device_t *device, size_t size, unsigned flags, void **ret_vaddr, dmab_addr_t *ret_dma) {
        struct any_classes *classes = device ? __atomic_load_n(&device->classes, __ATOMIC_ACQUIRE) : NULL;
        struct dmab_pool *pool;

        if (classes && size - 1 < SIZE_MOST && !(flags & DMAB_SHAREABLE)) {
                pool = __atomic_load_n(&classes->pools[class_of(size)], __ATOMIC_ACQUIRE);
                if (pool)
                        return block_alloc(pool, flags, ret_vaddr, ret_dma);
        }
        return alloc_first(device, size, flags, ret_vaddr, ret_dma);
}

/* ---- freeing ---- */

static int __attribute__((noinline)) refuse(const struct dmab_device *device, const void *vaddr, const struct piece *piece) {
        if (piece && piece->device && piece->device != device)
                return error_set_reason(EXDEV, "wrong_device", "the memory at %p is of %s, not of %s", vaddr,
                                        piece->device->name, device->name);
        return error_set_reason(EFAULT, "bad_address",
                                "%p is not the start of memory that dmab_alloc() gave for %s, or was freed already", vaddr,
                                device->name);
}

int dmab_free(dmab_device_t *device, void *vaddr) {
        struct dmab_pool *pool;
        struct piece *piece;
        int r = device ? session_check(device->dmab) : error_set(EINVAL, "the handle of the device is NULL");

        if (r)
                return r;
        piece = memory_find(&device->dmab->memory, vaddr);
        if (!piece || piece->device != device)
                return refuse(device, vaddr, piece);
        if (piece->kind == PIECE_COHERENT)
                return coherent_free_any(device, vaddr);
        /* Classes live as long as their device. */
        pool = piece->kind == PIECE_SLAB && ((struct slab *)piece)->any ? (struct dmab_pool *)magazine_load(&piece->of) : NULL;
        if (!pool)
                return refuse(device, vaddr, piece);
        return block_free(pool, vaddr, (uintptr_t)vaddr + piece->delta);
}

/* ---- ending ---- */

int any_sleep(struct dmab_device *device) {
        struct any_classes *classes = __atomic_load_n(&device->classes, __ATOMIC_ACQUIRE);
        struct dmab_pool *pool;
        int r = 0;

        for (unsigned i = 0; classes && i < CLASSES && !r; i++) {
                pool = __atomic_load_n(&classes->pools[i], __ATOMIC_ACQUIRE);
                if (pool)
                        r = pool_sleep(pool);
        }
        pool = classes ? __atomic_load_n(&classes->retired, __ATOMIC_ACQUIRE) : NULL;
        for (; pool && !r; pool = pool->next_retired)
                r = pool_sleep(pool);
        return r;
}

/* Classes of which nothing is in use go on, with memory that the daemon chooses anew; the others begin anew, and what they have
 * goes back when it is freed. */
void any_narrow(struct dmab_device *device) {
        struct any_classes *classes = __atomic_load_n(&device->classes, __ATOMIC_ACQUIRE);
        struct error_state *saved = error_save();
        struct dmab_pool *pool;

        for (unsigned i = 0; classes && i < CLASSES; i++) {
                pool = __atomic_load_n(&classes->pools[i], __ATOMIC_ACQUIRE);
                if (!pool || !pool_sleep(pool) ||
                    !__atomic_compare_exchange_n(&classes->pools[i], &pool, NULL, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
                        continue;
                pool_retire(pool);
                pool->next_retired = __atomic_load_n(&classes->retired, __ATOMIC_RELAXED);
                while (!__atomic_compare_exchange_n(&classes->retired, &pool->next_retired, pool, false, __ATOMIC_RELEASE,
                                                    __ATOMIC_RELAXED))
                        ;
        }
        error_restore(saved);
}

void any_forget(struct dmab_device *device) {
        free(device->classes);
        device->classes = NULL;
}
