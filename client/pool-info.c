/* What there is to tell of a pool, and giving back what it does not use. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/error.h"
#include "client/pool.h"

struct busy {
        void *vaddr;
        dmab_addr_t dma;
};

struct busy_list {
        struct busy *blocks;
        size_t n;
};

static int note_busy(void *vaddr, dmab_addr_t dma, void *userdata) {
        struct busy_list *list = userdata;

        list->blocks[list->n++] = (struct busy){ vaddr, dma };
        return 0;
}

int dmab_pool_visit_busy(dmab_pool_t *pool, int (*fn)(void *vaddr, dmab_addr_t dma, void *userdata), void *userdata) {
        struct busy_list list = { 0 };
        int r = session_check(pool->dmab);

        if (r)
                return r;
        pthread_mutex_lock(&pool->lock);
        pool_gather(pool);
        /* Threads go on meanwhile, and have some of them at hand again. */
        list.blocks = calloc(pool->leases.blocks - pool->leases.n_idle + 1, sizeof(*list.blocks));
        if (list.blocks)
                lease_visit_busy(pool, note_busy, &list);
        pthread_mutex_unlock(&pool->lock);
        if (!list.blocks)
                return error_set(ENOMEM, "there is not enough memory");
        /* Without the lock, so that fn may free them. */
        for (size_t i = 0; i < list.n && !r; i++)
                r = fn(list.blocks[i].vaddr, list.blocks[i].dma, userdata);
        free(list.blocks);
        return r;
}

int dmab_pool_trim(dmab_pool_t *pool) {
        struct link_reply reply = { 0 };
        struct params params;
        int r = session_check(pool->dmab);

        if (r)
                return r;
        pthread_mutex_lock(&pool->lock);
        pool_gather(pool);
        pthread_mutex_unlock(&pool->lock);
        refill_give_back(pool, 0);
        params_begin(&params);
        params_uint(&params, "pool", pool->number);
        params_end(&params);
        r = link_call(pool->dmab->link,
                      &(struct link_request){ .method = "pool.trim", .params = params.text, .repeat = LINK_AGAIN }, &reply);
        link_reply_release(&reply);
        return r;
}

int dmab_pool_info(dmab_pool_t *pool, struct dmab_pool_info *ret) {
        struct dmab_pool_info info = DMAB_POOL_INFO_INIT;
        size_t size = ret->struct_size;
        int r = session_check(pool->dmab);

        if (r)
                return r;
        if (size < sizeof(size))
                return error_set(EINVAL, "struct_size of struct dmab_pool_info is %zu; set it to sizeof(the structure)", size);
        pthread_mutex_lock(&pool->lock);
        info.pool = pool->number;
        info.block_size = pool->size;
        info.leased = pool->leases.blocks;
        info.at_hand = pool_at_hand(pool);
        info.used = pool->leases.blocks - pool->leases.n_idle;
        /* Threads go on meanwhile: what they have at hand is not told at one moment. */
        info.used -= info.at_hand < info.used ? info.at_hand : info.used;
        info.thread_blocks = pool->debug ? 0 : pool->thread_blocks;
        info.high_water = pool->high_water;
        info.refills = pool->refills;
        info.flushes = pool->flushes;
        for (const struct magazine *magazine = pool->magazines; magazine; magazine = magazine->next) {
                info.refills += magazine->refills;
                info.flushes += magazine->flushes;
        }
        info.leases = pool->leases_taken;
        info.recalls = pool->recalls;
        info.failures = pool->failures;
        info.waits = pool->waits;
        pthread_mutex_unlock(&pool->lock);
        memcpy(ret, &info, size < sizeof(info) ? size : sizeof(info));
        ret->struct_size = size;
        return 0;
}

uint64_t dmab_pool_handle(const dmab_pool_t *pool) {
        return pool->number;
}
