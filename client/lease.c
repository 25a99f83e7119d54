#include "client/lease.h"

#include <errno.h>
#include <stdlib.h>

#include "client/error.h"
#include "client/pool.h"
#include "client/region.h"
#include "client/session.h"

#define PAGE ((uintptr_t)1 << MEMORY_PAGE_SHIFT)
#define SPAN_MOST ((size_t)32 << 20)

static int no_memory(void) {
        return error_set(ENOMEM, "there is not enough memory");
}

static size_t words_of(size_t count) {
        return (count + 63) / 64;
}

/* ---- slabs ---- */

/* A slab for those pages, not noted yet. With the session's lock held. */
static struct slab *slab_new(struct dmab_pool *pool, uintptr_t start, size_t size, uint64_t delta) {
        struct dmab *dmab = pool->dmab;
        struct slab *slab = dmab->spare_slabs;

        if (slab) {
                dmab->spare_slabs = slab->next;
        } else {
                slab = malloc(sizeof(*slab));
                if (slab) {
                        slab->next_of_all = dmab->slabs;
                        dmab->slabs = slab;
                }
        }
        if (slab)
                *slab = (struct slab){ .piece = { .kind = PIECE_SLAB, .device = pool->device, .start = start, .size = size,
                                                  .delta = delta },
                                       .next_of_all = slab->next_of_all, .any = pool->any,
                                       .span_start = start, .span_size = size };
        return slab;
}

static void slab_note(struct dmab_pool *pool, struct slab *slab) {
        slab->next = NULL;
        pool->n_slabs++;
        __atomic_store_n(&slab->piece.of, pool, __ATOMIC_RELAXED);
        memory_note(&pool->dmab->memory, &slab->piece);
}

static void slab_spare(struct dmab *dmab, struct slab *slab) {
        slab->next = dmab->spare_slabs;
        dmab->spare_slabs = slab;
}

static void slab_forget(struct dmab_pool *pool, struct slab *slab) {
        memory_forget(&pool->dmab->memory, &slab->piece);
        __atomic_store_n(&slab->piece.of, NULL, __ATOMIC_RELAXED);
        pool->n_slabs--;
        slab_spare(pool->dmab, slab);
}

static struct slab *slab_at(const struct dmab_pool *pool, uintptr_t address) {
        struct piece *piece = memory_find(pool->memory, (void *)address);

        return piece && piece->of == pool ? (struct slab *)piece : NULL;
}

static uintptr_t slab_end(const struct slab *slab) {
        return slab->piece.start + slab->piece.size;
}

/* The slabs from start to end are one span now. */
static void span_set(const struct dmab_pool *pool, uintptr_t start, uintptr_t end) {
        struct slab *slab = start < end ? slab_at(pool, start) : NULL;

        for (; slab && slab->piece.start < end; slab = slab_at(pool, slab_end(slab))) {
                magazine_store(&slab->span_start, start);
                magazine_store(&slab->span_size, end - start);
        }
}

/* Join it with the spans before and behind it. Not beyond all measure: all slabs of a span are told. */
static void span_join(const struct dmab_pool *pool, const struct slab *slab) {
        uintptr_t start = slab->piece.start, end = slab_end(slab);
        const struct slab *before = slab_at(pool, start - 1), *behind = slab_at(pool, end);

        if (before && before->piece.delta == slab->piece.delta && end - before->span_start <= SPAN_MOST)
                start = before->span_start;
        if (behind && behind->piece.delta == slab->piece.delta && behind->span_start == end &&
            end + behind->span_size - start <= SPAN_MOST)
                end += behind->span_size;
        span_set(pool, start, end);
}

/* Before it goes. */
static void span_part(const struct dmab_pool *pool, const struct slab *slab) {
        uintptr_t start = slab->span_start, end = start + slab->span_size;

        span_set(pool, start, slab->piece.start);
        span_set(pool, slab_end(slab), end);
}

/* Whose memory has been taken by force, and may be given to others before we know. */
static bool is_ending(const struct piece *piece) {
        return piece->device->closing || (piece->kind == PIECE_SLAB && ((const struct dmab_pool *)piece->of)->ending);
}

/* Make the pages from start to end slabs, as far as they are none yet: another lease may lie in the first and in the last.
 * With the session's lock held. */
static int slabs_make(struct dmab_pool *pool, uintptr_t start, uintptr_t end, uint64_t delta) {
        struct slab *made = NULL, *slab;
        uintptr_t run = 0;
        int r = 0;

        for (uintptr_t page = start; page <= end && !r; page += PAGE) {
                const struct piece *piece = page < end ? memory_find(pool->memory, (void *)page) : NULL;

                if (piece && is_ending(piece))
                        piece = NULL;
                if (piece && (piece->of != pool || piece->delta != delta))
                        r = error_set(EPROTO, "the daemon's answer puts blocks of the pool %s where something else is",
                                      pool->name);
                if (page < end && !piece) {
                        run = run ? run : page;
                        continue;
                }
                slab = run && !r ? slab_new(pool, run, page - run, delta) : NULL;
                if (run && !r && !slab)
                        r = no_memory();
                if (slab) {
                        slab->next = made;
                        made = slab;
                }
                run = 0;
        }
        while ((slab = made)) {
                made = slab->next;
                if (r)
                        slab_spare(pool->dmab, slab);
                else
                        slab_note(pool, slab);
        }
        slab = r ? NULL : slab_at(pool, start);
        for (; slab && slab->piece.start < end; slab = slab_at(pool, slab_end(slab)))
                if (!slab->users)
                        span_join(pool, slab);
        return r;
}

/* One user more or less for each slab from start to end. With the session's lock held. */
static void slabs_count(struct dmab_pool *pool, uintptr_t start, uintptr_t end, int users) {
        for (uintptr_t page = start; page < end;) {
                struct slab *slab = slab_at(pool, page);

                /* Something else lies there already, since it was taken by force. */
                if (!slab) {
                        page += PAGE;
                        continue;
                }
                page = slab_end(slab);
                slab->users += users;
                if (slab->users)
                        continue;
                span_part(pool, slab);
                slab_forget(pool, slab);
        }
}

static uintptr_t first_page(uintptr_t start) {
        return start & ~(PAGE - 1);
}

static uintptr_t end_page(const struct dmab_pool *pool, uintptr_t start, size_t count) {
        return (start + count * pool->block_size + PAGE - 1) & ~(PAGE - 1);
}

void slabs_sweep(struct dmab_pool *pool) {
        pthread_mutex_lock(&pool->dmab->lock);
        for (struct slab *slab = pool->dmab->slabs; slab && pool->n_slabs; slab = slab->next_of_all)
                if (slab->piece.of == pool)
                        slab_forget(pool, slab);
        pthread_mutex_unlock(&pool->dmab->lock);
}

void slabs_deinit(struct dmab *dmab) {
        struct slab *slab;

        while ((slab = dmab->slabs)) {
                dmab->slabs = slab->next_of_all;
                free(slab);
        }
        dmab->spare_slabs = NULL;
}

/* ---- the table ---- */

void lease_table_init(struct lease_table *table) {
        TAILQ_INIT(&table->full);
        TAILQ_INIT(&table->partial);
        TAILQ_INIT(&table->idle);
}

void lease_table_deinit(struct lease_table *table) {
        free(table->sorted);
        table->sorted = NULL;
        table->n = table->room = 0;
}

static struct lease_list *list_of(struct lease_table *table, const struct lease *lease) {
        return !lease->n_idle                 ? &table->full
               : lease->n_idle < lease->count ? &table->partial
                                              : &table->idle;
}

/* Change how many of its blocks are idle. */
static void set_idle(struct lease_table *table, struct lease *lease, size_t n_idle) {
        struct lease_list *from = list_of(table, lease), *to;

        table->n_idle += n_idle - lease->n_idle;
        lease->n_idle = n_idle;
        to = list_of(table, lease);
        if (from == to)
                return;
        TAILQ_REMOVE(from, lease, entry);
        TAILQ_INSERT_HEAD(to, lease, entry);
}

/* How many leases begin at or before an address. */
static size_t position(const struct lease_table *table, uintptr_t address) {
        size_t low = 0, high = table->n;

        while (low < high) {
                size_t middle = (low + high) / 2;

                if (table->sorted[middle]->start <= address)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

/* Whether any block from start to end is in a lease. */
static bool table_has(const struct dmab_pool *pool, uintptr_t start, uintptr_t end) {
        size_t at = position(&pool->leases, end - 1);
        const struct lease *lease = at ? pool->leases.sorted[at - 1] : NULL;

        return lease && lease->start + lease->count * pool->block_size > start;
}

static int table_add(struct lease_table *table, struct lease *lease) {
        size_t at = position(table, lease->start);

        if (table->n == table->room) {
                size_t room = table->room ? 2 * table->room : 8;
                struct lease **more = realloc(table->sorted, room * sizeof(struct lease *));

                if (!more)
                        return no_memory();
                table->sorted = more;
                table->room = room;
        }
        memmove(table->sorted + at + 1, table->sorted + at, (table->n - at) * sizeof(*table->sorted));
        table->sorted[at] = lease;
        table->n++;
        table->blocks += lease->count;
        table->n_idle += lease->count;
        TAILQ_INSERT_TAIL(&table->idle, lease, entry);
        return 0;
}

static void table_remove(struct lease_table *table, struct lease *lease) {
        size_t at = position(table, lease->start) - 1;

        table->n--;
        memmove(table->sorted + at, table->sorted + at + 1, (table->n - at) * sizeof(*table->sorted));
        table->blocks -= lease->count;
        table->n_idle -= lease->n_idle;
        TAILQ_REMOVE(list_of(table, lease), lease, entry);
}

/* ---- leases ---- */

static void set_states(struct dmab_pool *pool, const struct lease *lease, enum block_state state) {
        for (size_t i = 0; i < lease->count; i++)
                magazine_store(shadow_state_sure(&pool->shadow, (void *)(lease->start + i * pool->block_size)), state);
}

int lease_add(struct dmab_pool *pool, uint64_t number, struct region *region, void *start, dmab_addr_t dma, size_t count) {
        uintptr_t first = first_page((uintptr_t)start), end = end_page(pool, (uintptr_t)start, count);
        struct lease *lease;
        int r;

        if (table_has(pool, (uintptr_t)start, (uintptr_t)start + count * pool->block_size))
                return error_set(EPROTO, "the daemon's answer leases blocks of the pool %s that this process has already",
                                 pool->name);
        lease = malloc(sizeof(*lease) + words_of(count) * sizeof(*lease->idle));
        if (!lease)
                return no_memory();
        *lease = (struct lease){ .number = number, .region = region, .start = (uintptr_t)start,
                                 .delta = dma - (uintptr_t)start, .count = count, .n_idle = count };
        memset(lease->idle, 0xff, words_of(count) * sizeof(*lease->idle));
        if (count % 64)
                lease->idle[count / 64] = (UINT64_C(1) << count % 64) - 1;
        r = shadow_open(&pool->shadow, pool->memory, first, end);
        if (r) {
                free(lease);
                return r;
        }
        pthread_mutex_lock(&pool->dmab->lock);
        r = slabs_make(pool, first, end, lease->delta);
        if (!r) {
                slabs_count(pool, first, end, 1);
                r = table_add(&pool->leases, lease);
                if (r)
                        slabs_count(pool, first, end, -1);
        }
        pthread_mutex_unlock(&pool->dmab->lock);
        if (r) {
                free(lease);
                return r;
        }
        if (pool->leases.n > 1 && pool->delta != lease->delta)
                magazine_store(&pool->delta, DELTA_MIXED);
        else
                magazine_store(&pool->delta, lease->delta);
        set_states(pool, lease, BLOCK_FREE);
        if (pool->debug)
                for (size_t i = 0; i < count; i++)
                        inspect_poison(pool, (char *)start + i * pool->block_size);
        return 0;
}

static void take_out(struct dmab_pool *pool, struct lease *lease) {
        set_states(pool, lease, BLOCK_NONE);
        table_remove(&pool->leases, lease);
        pthread_mutex_lock(&pool->dmab->lock);
        slabs_count(pool, first_page(lease->start), end_page(pool, lease->start, lease->count), -1);
        pthread_mutex_unlock(&pool->dmab->lock);
}

struct lease *lease_pick_idle(struct dmab_pool *pool) {
        struct lease *lease = TAILQ_LAST(&pool->leases.idle, lease_list);

        if (lease)
                take_out(pool, lease);
        return lease;
}

struct lease *lease_pick_any(struct dmab_pool *pool) {
        struct lease *lease = pool->leases.n ? pool->leases.sorted[pool->leases.n - 1] : NULL;

        if (lease)
                take_out(pool, lease);
        return lease;
}

void lease_free(struct dmab *dmab, struct lease *lease) {
        region_release(dmab, lease->region);
        free(lease);
}

/* ---- blocks ---- */

/* At most n from one lease. Returns how many. In the order of their addresses, word by word: the states of blocks that go to
 * different threads then lie in different cache lines. */
static size_t take_from(struct dmab_pool *pool, struct lease *lease, size_t n, enum block_state state, void **vaddrs,
                        dmab_addr_t *dmas) {
        size_t taken = 0;

        for (size_t word = lease->hint; taken < n && word < words_of(lease->count); word++) {
                lease->hint = word;
                for (; taken < n && lease->idle[word]; taken++) {
                        size_t i = word * 64 + __builtin_ctzll(lease->idle[word]);
                        uintptr_t at = lease->start + i * pool->block_size;

                        lease->idle[word] &= lease->idle[word] - 1;
                        vaddrs[taken] = (void *)at;
                        dmas[taken] = at + lease->delta;
                        magazine_store(shadow_state_sure(&pool->shadow, (void *)at), state);
                }
        }
        set_idle(&pool->leases, lease, lease->n_idle - taken);
        return taken;
}

void lease_take(struct dmab_pool *pool, size_t n, enum block_state state, void **ret_vaddrs, dmab_addr_t *ret_dmas) {
        for (size_t taken = 0, more; taken < n; taken += more) {
                struct lease *lease = TAILQ_FIRST(&pool->leases.partial);

                if (!lease)
                        lease = TAILQ_FIRST(&pool->leases.idle);
                more = take_from(pool, lease, n - taken, state, ret_vaddrs + taken, ret_dmas + taken);
        }
}

static bool contains(const struct dmab_pool *pool, const struct lease *lease, const void *vaddr) {
        return (uintptr_t)vaddr - lease->start < lease->count * pool->block_size;
}

bool lease_put(struct dmab_pool *pool, void *vaddr, struct lease **hint) {
        struct lease *lease = *hint;
        size_t i;

        if (!lease || !contains(pool, lease, vaddr)) {
                i = position(&pool->leases, (uintptr_t)vaddr);
                lease = i ? pool->leases.sorted[i - 1] : NULL;
                if (!lease || !contains(pool, lease, vaddr))
                        return false;
                *hint = lease;
        }
        i = ((uintptr_t)vaddr - lease->start) / pool->block_size;
        if (lease->idle[i / 64] >> i % 64 & 1)
                return false;
        lease->idle[i / 64] |= UINT64_C(1) << i % 64;
        if (i / 64 < lease->hint)
                lease->hint = i / 64;
        set_idle(&pool->leases, lease, lease->n_idle + 1);
        return true;
}

int lease_visit_busy(const struct dmab_pool *pool, int (*fn)(void *vaddr, dmab_addr_t dma, void *userdata),
                     void *userdata) {
        for (size_t n = 0; n < pool->leases.n; n++) {
                const struct lease *lease = pool->leases.sorted[n];

                for (size_t i = 0; i < lease->count; i++) {
                        uintptr_t at = lease->start + i * pool->block_size;
                        int r = lease->idle[i / 64] >> i % 64 & 1 ? 0 : fn((void *)at, at + lease->delta, userdata);

                        if (r)
                                return r;
                }
        }
        return 0;
}
