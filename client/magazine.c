#include "client/magazine.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "client/pool.h"

static struct magazine_table no_magazines;

__thread struct magazine_table *magazine_table = &no_magazines;

/* Guards the list of tables, the tables' content against everyone but their threads, which pool a magazine belongs to, and
 * the slots. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct magazine_table *tables;
static uint64_t *slots; /* bitmap of taken ones */
static uint32_t slot_words;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key; /* its value is the thread's table: for its destructor only */
static bool possible;

/* ---- threads that come and go ---- */

static void table_unlink(struct magazine_table *table) {
        *table->pprev = table->next;
        if (table->next)
                table->next->pprev = table->pprev;
}

static void table_link(struct magazine_table *table) {
        table->next = tables;
        table->pprev = &tables;
        if (tables)
                tables->pprev = &table->next;
        tables = table;
}

/* Off its pool's list, both locks held. */
static void magazine_unlink(struct magazine *magazine) {
        struct magazine **place = &magazine->pool->magazines;

        while (*place != magazine)
                place = &(*place)->next;
        *place = magazine->next;
        magazine->pool->n_magazines--;
        magazine->pool->refills += magazine->refills;
        magazine->pool->flushes += magazine->flushes;
}

static void give_up(struct magazine *magazine) {
        struct dmab_pool *pool = magazine->pool;

        pthread_mutex_lock(&pool->lock);
        pool_flush(pool, magazine, 0);
        magazine_unlink(magazine);
        refill_serve(pool);
        pthread_mutex_unlock(&pool->lock);
        free(magazine);
}

static void table_end(void *pointer) {
        struct magazine_table *table = pointer;

        magazine_table = &no_magazines;
        pthread_mutex_lock(&lock);
        for (uint32_t i = 0; i < table->n; i++)
                if (table->magazines[i])
                        give_up(table->magazines[i]);
        table_unlink(table);
        pthread_mutex_unlock(&lock);
        free(table);
}

/* ---- forks ---- */

static void before_fork(void) {
        pthread_mutex_lock(&lock);
}

static void after_fork(void) {
        pthread_mutex_unlock(&lock);
}

/* The child has one thread, and no pool that it may use: an empty table sends it to where that is told. Magazines are freed
 * with their pools. */
static void in_child(void) {
        struct magazine_table *table;

        magazine_table = &no_magazines;
        pthread_setspecific(key, NULL);
        while ((table = tables)) {
                table_unlink(table);
                for (uint32_t i = 0; i < table->n; i++)
                        if (table->magazines[i])
                                table->magazines[i]->table = NULL;
                free(table);
        }
        pthread_mutex_unlock(&lock);
}

/* ---- what the kernel can do ---- */

static int membarrier(int command) {
        return (int)syscall(SYS_membarrier, command, 0, 0);
}

static void set_up(void) {
        int commands = membarrier(MEMBARRIER_CMD_QUERY);

        if (commands < 0 || !(commands & MEMBARRIER_CMD_PRIVATE_EXPEDITED) ||
            membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED))
                return;
        if (pthread_key_create(&key, table_end))
                return;
        possible = !pthread_atfork(before_fork, after_fork, in_child);
}

bool magazines_possible(void) {
        pthread_once(&once, set_up);
        return possible;
}

/* A thread that ends after the library was unloaded must not run its code. When the program ends, threads may be using pools
 * still: then their slots stay taken. */
static void __attribute__((destructor)) tear_down(void) {
        uint64_t taken = 0;

        if (magazines_possible())
                pthread_key_delete(key);
        pthread_mutex_lock(&lock);
        for (uint32_t i = 0; i < slot_words; i++)
                taken |= slots[i];
        if (!taken) {
                free(slots);
                slots = NULL;
                slot_words = 0;
        }
        pthread_mutex_unlock(&lock);
}

/* ---- slots ---- */

int magazine_slot_take(uint32_t *ret) {
        uint64_t *more;
        uint32_t i;

        pthread_mutex_lock(&lock);
        for (i = 0; i < slot_words && slots[i] == UINT64_MAX; i++)
                ;
        if (i == slot_words) {
                more = realloc(slots, (slot_words + 1) * sizeof(*slots));
                if (!more) {
                        pthread_mutex_unlock(&lock);
                        return -ENOMEM;
                }
                slots = more;
                slots[slot_words++] = 0;
        }
        *ret = i * 64 + __builtin_ctzll(~slots[i]);
        slots[i] |= UINT64_C(1) << *ret % 64;
        pthread_mutex_unlock(&lock);
        return 0;
}

void magazine_slot_release(uint32_t slot) {
        pthread_mutex_lock(&lock);
        slots[slot / 64] &= ~(UINT64_C(1) << slot % 64);
        pthread_mutex_unlock(&lock);
}

/* ---- making and ending ---- */

/* A table of the calling thread with room for that slot. With the lock held. */
static bool table_fit(uint32_t slot) {
        struct magazine_table *old = magazine_table, *table;
        uint32_t n = (slot | 31) + 1;

        if (slot < old->n)
                return true;
        table = calloc(1, sizeof(*table) + n * sizeof(*table->magazines));
        if (!table || pthread_setspecific(key, table)) {
                free(table);
                return false;
        }
        table->n = n;
        for (uint32_t i = 0; i < old->n; i++) {
                table->magazines[i] = old->magazines[i];
                if (table->magazines[i])
                        table->magazines[i]->table = table;
        }
        table_link(table);
        magazine_table = table;
        if (old != &no_magazines) {
                table_unlink(old);
                free(old);
        }
        return true;
}

struct magazine *magazine_make(struct dmab_pool *pool) {
        struct magazine *magazine = magazine_find(pool->slot);

        if (magazine || pool->debug || !pool->thread_blocks || !magazines_possible())
                return magazine;
        magazine = aligned_alloc(64, (sizeof(*magazine) + 63) & ~(size_t)63);
        if (!magazine)
                return NULL;
        memset(magazine, 0, offsetof(struct magazine, vaddrs));
        magazine->size = magazine->limit = pool->thread_blocks;
        magazine->pool = pool;
        pthread_mutex_lock(&lock);
        if (!table_fit(pool->slot)) {
                pthread_mutex_unlock(&lock);
                free(magazine);
                return NULL;
        }
        magazine->table = magazine_table;
        pthread_mutex_lock(&pool->lock);
        magazine->drain = pool_is_at_ease(pool) ? 0 : MAGAZINE_SEIZED;
        magazine->next = pool->magazines;
        pool->magazines = magazine;
        pool->n_magazines++;
        pthread_mutex_unlock(&pool->lock);
        magazine_table->magazines[pool->slot] = magazine;
        pthread_mutex_unlock(&lock);
        return magazine;
}

void magazines_drop(struct dmab_pool *pool) {
        struct magazine *magazine;

        pthread_mutex_lock(&lock);
        while ((magazine = pool->magazines)) {
                pool->magazines = magazine->next;
                if (magazine->table)
                        magazine->table->magazines[pool->slot] = NULL;
                free(magazine);
        }
        pool->n_magazines = 0;
        pthread_mutex_unlock(&lock);
}

/* ---- taking them away ---- */

/* A thread is busy for some nanoseconds, unless the kernel has taken its processor away. It may have to wait for ours, whose
 * yielding is none where ours has the higher priority. */
static void wait_until_idle(const struct magazine *magazine) {
        for (unsigned i = 0; __atomic_load_n(&magazine->busy, __ATOMIC_ACQUIRE); i++)
                if (i >= 1000)
                        syscall(SYS_nanosleep, &(struct timespec){ .tv_nsec = 50000 }, NULL); /* no cancellation point */
                else if (i >= 100)
                        sched_yield();
}

void magazines_seize(struct dmab_pool *pool) {
        struct magazine *magazine;
        bool any = false, sure;

        for (magazine = pool->magazines; magazine; magazine = magazine->next) {
                if (magazine_load(&magazine->drain) == MAGAZINE_SEIZED)
                        continue;
                any = true;
                magazine_store(&magazine->drain, MAGAZINE_WANTED);
        }
        if (!any)
                return;
        sure = !membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
        for (magazine = pool->magazines; magazine; magazine = magazine->next) {
                if (magazine_load(&magazine->drain) == MAGAZINE_SEIZED || (!sure && magazine->table != magazine_table))
                        continue;
                wait_until_idle(magazine);
                magazine_store(&magazine->drain, MAGAZINE_SEIZED);
        }
}

void magazines_release(struct dmab_pool *pool) {
        for (struct magazine *magazine = pool->magazines; magazine; magazine = magazine->next)
                __atomic_store_n(&magazine->drain, 0, __ATOMIC_RELEASE);
}
