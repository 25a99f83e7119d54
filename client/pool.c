/* Pools: making and ending them. */
#include "client/pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/error.h"
#include "client/result.h"
#include "proto/schema.h"

enum {
        ALIGN_DEFAULT = 64,
        ALIGN_LEAST = 8,
        RED_ZONE_BYTES = 64,          /* behind each block, with DMAB_DEBUG */
        THREAD_BYTES = 512 << 10,     /* at hand of one thread at most, unless told otherwise */
        THREAD_BLOCKS = 128,
        FIRST_LEASE_BYTES = 16 << 10,
        FIRST_LEASE_BLOCKS = 64,
        MOST_LEASE_BYTES = 1 << 20,
        MOST_LEASE_BLOCKS = 1024,
};

static int no_memory(void) {
        return error_set(ENOMEM, "there is not enough memory");
}

static size_t clamp(size_t value, size_t least, size_t most) {
        return value < least ? least : value > most ? most : value;
}

/* ---- making ---- */

static int check_caching(enum dmab_caching caching) {
        if (caching != DMAB_CACHED && caching != DMAB_WRITE_COMBINED && caching != DMAB_UNCACHED)
                return error_set(EINVAL, "%d is no way of caching that libdmabroker knows", (int)caching);
        return 0;
}

static bool is_power_of_two(size_t value) {
        return value && !(value & (value - 1));
}

static int check_options(const char *name, size_t size, size_t align, size_t boundary,
                         const struct dmab_pool_options *options) {
        if (!name || !*name)
                return error_set(EINVAL, "a pool needs a name, which need not be unique");
        if (!size)
                return error_set(EINVAL, "blocks of 0 bytes are none");
        if (size > SCHEMA_INTEGER_MAX || options->reserve > SCHEMA_INTEGER_MAX || options->max_blocks > SCHEMA_INTEGER_MAX)
                return error_set(E2BIG, "the pool %s is larger than any machine", name);
        if (align && !is_power_of_two(align))
                return error_set(EINVAL, "the alignment %zu of the pool %s is no power of two", align, name);
        if (boundary && (!is_power_of_two(boundary) || boundary > SCHEMA_INTEGER_MAX))
                return error_set(EINVAL, "the boundary %zu of the pool %s is no power of two below 2^52", boundary, name);
        if (boundary && boundary < size)
                return error_set_reason(EINVAL, "boundary",
                                        "blocks of %zu bytes do not fit between boundaries of %zu in the pool %s", size,
                                        boundary, name);
        return check_caching(options->caching);
}

static int add_uint(json_t *params, const char *name, uint64_t value) {
        return value && json_object_set_new(params, name, json_integer(value)) ? no_memory() : 0;
}

static int create_params(const struct dmab_pool *pool, size_t size, size_t align, size_t boundary,
                         const struct dmab_pool_options *options, char **ret) {
        static const char *const caching[] = { [DMAB_CACHED] = "cached", [DMAB_WRITE_COMBINED] = "wc", [DMAB_UNCACHED] = "uc" };
        char key[LINK_KEY_SIZE];
        json_t *params = json_object();
        int r = params ? 0 : no_memory();

        link_make_key(pool->dmab->link, key);
        if (!r && json_object_set_new(params, "name", json_string(pool->name)))
                r = error_set(EINVAL, "the name of a pool must be UTF-8");
        if (!r && (json_object_set_new(params, "request_key", json_string(key)) ||
                   (options->caching != DMAB_CACHED &&
                    json_object_set_new(params, "caching", json_string(caching[options->caching])))))
                r = no_memory();
        if (!r)
                r = add_uint(params, "device", pool->device->handle);
        if (!r)
                r = add_uint(params, "size", size);
        if (!r)
                r = add_uint(params, "align", align);
        if (!r)
                r = add_uint(params, "boundary", boundary);
        if (!r)
                r = add_uint(params, "reserve", options->reserve);
        if (!r)
                r = add_uint(params, "max_blocks", options->max_blocks);
        *ret = r ? NULL : json_dumps(params, JSON_COMPACT);
        json_decref(params);
        return r ? r : *ret ? 0 : no_memory();
}

/* A pool in no list. */
static int pool_new(struct dmab_device *device, const char *name, struct dmab_pool **ret) {
        struct dmab_pool *pool = aligned_alloc(_Alignof(struct dmab_pool), sizeof(*pool));

        if (!pool)
                return no_memory();
        memset(pool, 0, sizeof(*pool));
        pool->dmab = device->dmab;
        pool->device = device;
        pool->memory = &device->dmab->memory;
        pool->debug = inspect_wanted();
        pool->delta = DELTA_MIXED;
        pool->name = strdup(name);
        if (!pool->name || magazine_slot_take(&pool->slot)) {
                free(pool->name);
                free(pool);
                return no_memory();
        }
        pthread_mutex_init(&pool->lock, NULL);
        lease_table_init(&pool->leases);
        TAILQ_INIT(&pool->waiters);
        pool->watch.kind = "pool";
        pool->watch.recalled = refill_recalled;
        *ret = pool;
        return 0;
}

static void pool_free(struct dmab_pool *pool) {
        magazine_slot_release(pool->slot);
        lease_table_deinit(&pool->leases);
        shadow_deinit(&pool->shadow);
        pthread_mutex_destroy(&pool->lock);
        free(pool->name);
        free(pool);
}

/* What follows from its block size; size: what of it is the user's, 0: all. */
static int set_sizes(struct dmab_pool *pool, size_t block_size, size_t size, size_t thread_blocks, uint64_t max_blocks) {
        if (!block_size || block_size % ALIGN_LEAST || block_size < size)
                return error_set(EPROTO, "the daemon gives the pool %s blocks of %zu bytes", pool->name, block_size);
        pool->block_size = block_size;
        pool->size = size ? size : block_size;
        /* Blocks begin at multiples of what their size is a multiple of, up to the page that each slab begins with. */
        shadow_init(&pool->shadow, __builtin_ctzll(block_size | (size_t)1 << MEMORY_PAGE_SHIFT));
        pool->thread_blocks = thread_blocks ? clamp(thread_blocks, 1, MAGAZINE_MAX)
                                            : clamp(THREAD_BYTES / block_size, 0, THREAD_BLOCKS);
        pool->lease_next = clamp(FIRST_LEASE_BYTES / block_size, 1, FIRST_LEASE_BLOCKS);
        pool->lease_most = clamp(MOST_LEASE_BYTES / block_size, 1, MOST_LEASE_BLOCKS);
        /* What is more than all blocks is never given. */
        pool->max_blocks = max_blocks;
        if (max_blocks && max_blocks < pool->lease_most)
                pool->lease_most = max_blocks;
        if (pool->lease_next > pool->lease_most)
                pool->lease_next = pool->lease_most;
        return 0;
}

static void list_add(struct dmab_pool *pool) {
        struct dmab *dmab = pool->dmab;

        pthread_mutex_lock(&dmab->pools_lock);
        pool->next = dmab->pools;
        pool->pprev = &dmab->pools;
        if (pool->next)
                pool->next->pprev = &pool->next;
        dmab->pools = pool;
        pthread_mutex_unlock(&dmab->pools_lock);
}

static int destroy_number(struct dmab *dmab, uint64_t number, bool force) {
        struct link_reply reply = { 0 };
        struct params params;
        int r;

        params_begin(&params);
        params_uint(&params, "pool", number);
        if (force)
                params_word(&params, "force", "true", 0);
        params_end(&params);
        r = link_call(dmab->link,
                      &(struct link_request){ .method = "pool.destroy", .params = params.text, .repeat = LINK_RELEASE },
                      &reply);
        link_reply_release(&reply);
        /* An administrator may have ended it. */
        return r && error_is("unknown_handle") ? 0 : r;
}

/* Consumes params. */
static int create_number(struct dmab_pool *pool, char *params, uint64_t *ret_number, size_t *ret_block_size) {
        struct link_reply reply = { 0 };
        uint64_t block_size = 0;
        int r = link_call(pool->dmab->link,
                          &(struct link_request){
                                  .method = "pool.create", .params = params, .repeat = LINK_KEYED },
                          &reply);

        free(params);
        if (!r)
                r = result_uint(reply.result, "pool", ret_number);
        if (!r)
                r = result_uint(reply.result, "block_size", &block_size);
        link_reply_release(&reply);
        if (!r)
                *ret_block_size = block_size;
        return r;
}

/* asked: what the daemon is asked for, of which the user has `size` bytes, 0: all. */
static int create(struct dmab_pool *pool, size_t asked, size_t size, size_t align, size_t boundary,
                  const struct dmab_pool_options *options) {
        size_t block_size;
        char *params;
        int r = create_params(pool, asked, align, boundary, options, &params);

        if (!r)
                r = create_number(pool, params, &pool->number, &block_size);
        if (r)
                return r;
        r = set_sizes(pool, block_size, size, options->thread_blocks, options->max_blocks);
        if (r)
                destroy_number(pool->dmab, pool->number, true);
        return r;
}

int pool_create(const char *name, struct dmab_device *device, size_t size, size_t align, size_t boundary,
                const struct dmab_pool_options *options, bool any, struct dmab_pool **ret) {
        size_t unit = !align ? ALIGN_DEFAULT : align > ALIGN_LEAST ? align : ALIGN_LEAST;
        size_t rounded = (size + unit - 1) & ~(unit - 1);
        struct dmab_pool *pool;
        int r = pool_new(device, name, &pool);

        if (r)
                return r;
        pool->any = any;
        /* A red zone may be what makes the blocks too large. */
        if (pool->debug)
                r = create(pool, size + RED_ZONE_BYTES, rounded, unit, boundary, options);
        if (!pool->debug || (r && (error_is("boundary") || error_is("limit") || error_is("bad_param"))))
                r = create(pool, size, 0, unit, boundary, options);
        if (r) {
                pool_free(pool);
                return r;
        }
        list_add(pool);
        *ret = pool;
        return 0;
}

static int check_device(const struct dmab_device *device) {
        return device ? session_check(device->dmab) : error_set(EINVAL, "the handle of the device is NULL");
}

int dmab_pool_create(const char *name, dmab_device_t *device, size_t size, size_t align, size_t boundary,
                     const struct dmab_pool_options *options, dmab_pool_t **ret) {
        struct dmab_pool_options known = DMAB_POOL_OPTIONS_INIT;
        int r = check_device(device);

        if (!r && options)
                r = session_copy_struct(&known, sizeof(known), options, "struct dmab_pool_options");
        if (!r)
                r = check_options(name, size, align, boundary, &known);
        return r ? r : pool_create(name, device, size, align, boundary, &known, false, ret);
}

static int open_pool(struct dmab_device *device, json_t *view, struct dmab_pool **ret) {
        const char *name = json_string_value(json_object_get(view, "name"));
        const char *device_name = json_string_value(json_object_get(view, "device_name"));
        struct dmab_pool *pool;
        uint64_t block_size;
        int r;

        if (device_name && strcmp(device_name, device->name))
                return error_set_reason(EXDEV, "wrong_device", "that pool is of %s, not of %s", device_name, device->name);
        r = pool_new(device, name ? name : "", &pool);
        if (r)
                return r;
        pool->opened = true;
        r = result_uint(view, "pool", &pool->number);
        if (!r)
                r = result_uint(view, "block_size", &block_size);
        if (!r)
                r = set_sizes(pool, block_size, 0, 0, json_integer_value(json_object_get(view, "max_blocks")));
        if (r) {
                pool_free(pool);
                return r;
        }
        list_add(pool);
        *ret = pool;
        return 0;
}

int dmab_pool_open(dmab_device_t *device, uint64_t number, dmab_pool_t **ret) {
        struct link_reply reply = { 0 };
        struct params params;
        int r = check_device(device);

        if (r)
                return r;
        params_begin(&params);
        params_uint(&params, "pool", number);
        params_end(&params);
        r = link_call(device->dmab->link,
                      &(struct link_request){ .method = "pool.stats", .params = params.text, .repeat = LINK_AGAIN }, &reply);
        if (!r)
                r = open_pool(device, reply.result, ret);
        link_reply_release(&reply);
        return r;
}

/* ---- counting ---- */

size_t pool_at_hand(const struct dmab_pool *pool) {
        size_t n = 0;

        for (const struct magazine *magazine = pool->magazines; magazine; magazine = magazine->next)
                n += magazine_load(&magazine->n);
        return n;
}

size_t pool_used(const struct dmab_pool *pool) {
        return pool->leases.blocks - pool->leases.n_idle - pool_at_hand(pool);
}

/* ---- ending ---- */

/* Nothing of it is left in this process. It is in no list any more. */
static void pool_end(struct dmab_pool *pool) {
        struct lease *lease;

        magazines_drop(pool);
        for (;;) {
                pthread_mutex_lock(&pool->lock);
                lease = lease_pick_any(pool);
                pthread_mutex_unlock(&pool->lock);
                if (!lease)
                        break;
                lease_free(pool->dmab, lease);
        }
        slabs_sweep(pool);
        pool_free(pool);
}

static void list_remove(struct dmab_pool *pool) {
        pthread_mutex_lock(&pool->dmab->pools_lock);
        *pool->pprev = pool->next;
        if (pool->next)
                pool->next->pprev = pool->pprev;
        pthread_mutex_unlock(&pool->dmab->pools_lock);
}

struct first_busy {
        void *vaddr;
        dmab_addr_t dma;
};

static int note_first(void *vaddr, dmab_addr_t dma, void *userdata) {
        *(struct first_busy *)userdata = (struct first_busy){ vaddr, dma };
        return 1;
}

/* -EBUSY with a sentence if blocks are in use, or waited for. */
static int check_idle(struct dmab_pool *pool) {
        struct first_busy first = { 0 };
        bool awaited;
        size_t used;

        pthread_mutex_lock(&pool->lock);
        pool_gather(pool);
        used = pool_used(pool);
        awaited = !TAILQ_EMPTY(&pool->waiters);
        lease_visit_busy(pool, note_first, &first);
        pthread_mutex_unlock(&pool->lock);
        if (!used && !awaited)
                return 0;
        if (!used)
                return error_set_reason(EBUSY, "busy", "threads wait for blocks of the pool %s of %s", pool->name,
                                        pool->device->name);
        return error_set_reason(EBUSY, "busy", "the pool %s of %s still has %zu block%s in use, such as %p (0x%llx)", pool->name,
                                pool->device->name, used, used == 1 ? "" : "s", first.vaddr,
                                (unsigned long long)first.dma);
}

static void report_leaks(struct dmab_pool *pool, const char *when) {
        if (!pool->debug)
                return;
        pthread_mutex_lock(&pool->lock);
        pool_gather(pool);
        inspect_leaks(pool, when);
        pthread_mutex_unlock(&pool->lock);
}

/* The session has other leases of a pool that is not its own: they must not be left behind. */
static void return_all(struct dmab_pool *pool) {
        struct lease *lease;

        for (;;) {
                pthread_mutex_lock(&pool->lock);
                lease = lease_pick_any(pool);
                pthread_mutex_unlock(&pool->lock);
                if (!lease)
                        return;
                refill_return(pool, lease);
        }
}

static void set_ending(struct dmab_pool *pool, bool ending) {
        pthread_mutex_lock(&pool->dmab->lock);
        pool->ending = ending;
        pthread_mutex_unlock(&pool->dmab->lock);
}

static int destroy(struct dmab_pool *pool, bool force) {
        int r = pool ? session_check(pool->dmab) : error_set(EINVAL, "the handle of the pool is NULL");

        if (!r && !force)
                r = check_idle(pool);
        if (r)
                return r;
        report_leaks(pool, "at its forced end");
        refill_stop(pool);
        if (!force)
                refill_give_back(pool, 0);
        else
                set_ending(pool, true);
        if (pool->opened)
                return_all(pool);
        else
                r = destroy_number(pool->dmab, pool->number, force);
        if (r && r != -ESTALE && !link_is_unknown(r)) {
                set_ending(pool, false);
                refill_go_on(pool, pool->number);
                return r;
        }
        list_remove(pool);
        pool_end(pool);
        return r;
}

int dmab_pool_destroy(dmab_pool_t *pool) {
        return destroy(pool, false);
}

int dmab_pool_destroy_force(dmab_pool_t *pool) {
        return destroy(pool, true);
}

int pools_check_closing(struct dmab_device *device) {
        struct dmab *dmab = device->dmab;
        int r = 0;

        pthread_mutex_lock(&dmab->pools_lock);
        for (struct dmab_pool *pool = dmab->pools; pool && !r; pool = pool->next) {
                if (pool->device != device)
                        continue;
                if (!pool->any)
                        r = error_set_reason(EBUSY, "busy", "%s still has the pool %s; destroy it first", device->name,
                                             pool->name);
                else
                        r = check_idle(pool);
        }
        pthread_mutex_unlock(&dmab->pools_lock);
        return r;
}

int pool_sleep(struct dmab_pool *pool) {
        uint64_t number;
        int r = check_idle(pool);

        if (r)
                return r;
        refill_stop(pool);
        refill_give_back(pool, 0);
        pthread_mutex_lock(&pool->lock);
        number = pool->number;
        pthread_mutex_unlock(&pool->lock);
        r = number ? destroy_number(pool->dmab, number, false) : 0;
        if (r == -ESTALE)
                return 0; /* the device will find that out */
        if (!r || link_is_unknown(r))
                pool_slept(pool, number);
        else
                refill_go_on(pool, number);
        return r;
}

void pool_slept(struct dmab_pool *pool, uint64_t number) {
        pthread_mutex_lock(&pool->lock);
        if (pool->number == number)
                pool->number = 0;
        pthread_mutex_unlock(&pool->lock);
}

void pool_retire(struct dmab_pool *pool) {
        pthread_mutex_lock(&pool->lock);
        pool->retired = true;
        pool_gather(pool);
        pthread_mutex_unlock(&pool->lock);
        refill_give_back(pool, 0);
}

int pool_wake(struct dmab_pool *pool, uint64_t *ret_number) {
        struct dmab_pool_options options = DMAB_POOL_OPTIONS_INIT;
        size_t block_size = pool->block_size;
        uint64_t number, made = 0;
        char *params;
        int r;

        pthread_mutex_lock(&pool->lock);
        number = pool->number;
        pthread_mutex_unlock(&pool->lock);
        if (!number) {
                r = create_params(pool, block_size, 0, 0, &options, &params);
                if (!r)
                        r = create_number(pool, params, &made, &block_size);
                if (r)
                        return r;
                pthread_mutex_lock(&pool->lock);
                number = pool->number;
                if (!number && block_size == pool->block_size)
                        pool->number = number = made;
                pthread_mutex_unlock(&pool->lock);
        }
        if (made && made != number)
                destroy_number(pool->dmab, made, true);
        if (!number)
                return error_set(EPROTO, "the daemon gives the pool %s blocks of another size than before", pool->name);
        *ret_number = number;
        return 0;
}

/* Off the list, if there is one. */
static struct dmab_pool *pick(struct dmab *dmab, const struct dmab_device *device) {
        struct dmab_pool *pool;

        pthread_mutex_lock(&dmab->pools_lock);
        for (pool = dmab->pools; pool && device && pool->device != device; pool = pool->next)
                ;
        if (pool) {
                *pool->pprev = pool->next;
                if (pool->next)
                        pool->next->pprev = pool->pprev;
        }
        pthread_mutex_unlock(&dmab->pools_lock);
        return pool;
}

void pools_forget(struct dmab *dmab, const struct dmab_device *device) {
        struct dmab_pool *pool;

        while ((pool = pick(dmab, device))) {
                refill_stop(pool);
                pool_end(pool);
        }
}

void pools_report(struct dmab *dmab, const struct dmab_device *device, const char *when) {
        pthread_mutex_lock(&dmab->pools_lock);
        for (struct dmab_pool *pool = dmab->pools; pool; pool = pool->next)
                if (!device || pool->device == device)
                        report_leaks(pool, when);
        pthread_mutex_unlock(&dmab->pools_lock);
}

void pools_disown(struct dmab *dmab) {
        pthread_mutex_init(&dmab->pools_lock, NULL);
        for (struct dmab_pool *pool = dmab->pools; pool; pool = pool->next)
                pthread_mutex_init(&pool->lock, NULL);
}

void pools_session_lost(struct dmab *dmab) {
        pthread_mutex_lock(&dmab->pools_lock);
        for (struct dmab_pool *pool = dmab->pools; pool; pool = pool->next) {
                pthread_mutex_lock(&pool->lock);
                pool->dead = refill_dead(pool);
                pool_gather(pool);
                refill_fail_all(pool);
                pthread_mutex_unlock(&pool->lock);
        }
        pthread_mutex_unlock(&dmab->pools_lock);
}
