/* How the arena is kept.
 *
 * Every block, free or allocated, has a record in an array that is never inside the memory it describes; indexes of
 * 32 bits take the place of pointers, so that a record stays within 32 bytes and the array may move when it grows.
 *
 * An allocated block is known to whoever has it by the index of its record. Two structures find a block:
 * - by what it can hold: free blocks are apart by zone (the bit length of their first address), then by size class (32
 *   classes per power of two, and an own class for every size below 32 granules), and each class is a treap by address;
 * - by any address in it: all blocks are one list in address order, which is cut into groups of at most GROUP_MAX blocks of
 *   one span; a treap orders the groups. A block joins its neighbour's group, so that treap is touched only when a group is
 *   full or empty.
 *
 * A request looks into the highest zone that can serve it and goes down from there. The classes of a zone hold the
 * blocks that begin in it; the one block that may reach into a zone from below is that zone's straddler, and is looked
 * at after them. An allocation's first byte is therefore always in the highest zone that has a suitable place.
 *
 * Within a zone the highest block of the smallest class is taken, from its end. To choose among equally good fits by
 * address rather than by age keeps the rest together: with a mix of sizes that fills 90% of the memory, the largest
 * free block is twice as large. */
#include "daemon/core/arena.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX
/* Granules: so many a record can count. */
#define SPAN_MAX (UINT64_C(1) << 32)

enum {
        N_ZONES = 64,
        N_SUB = 32,    /* classes per power of two */
        SUB_BITS = 5,
        N_LEVELS = 60, /* for sizes of 64 bits; a zone has as many as its largest span needs */
        GROUP_MAX = 32,
        /* Blocks looked at before a class that is certain to suit is taken instead: more fit better and cost more. */
        PROBES = 16,
};

/* An array whose unused items are chained through their first four bytes. */
struct slots {
        void *items;
        size_t item_size;
        uint32_t capacity, n_touched, n_free, first_free;
};

struct record {
        uint64_t addr;
        uint32_t more;       /* granules after the first */
        uint32_t prev, next; /* neighbours by address, whatever their span */
        uint32_t group : 31;
        uint32_t is_free : 1;
        union {
                uint32_t links[2]; /* free: in its class */
                uint64_t note;     /* allocated: its user's */
        };
};

struct group {
        uint64_t addr; /* of its first block, kept here because every look-up compares it */
        uint32_t first, n_blocks;
        uint32_t links[2];
        uint32_t span;
};

struct span {
        uint64_t addr, size;
        uint32_t tag;
};

struct zone {
        uint64_t levels;            /* which have a block */
        uint32_t classes[N_LEVELS]; /* per level, which classes have a block */
        uint32_t n_levels;
        uint32_t roots[]; /* per class */
};

struct arena {
        uint64_t granule;
        unsigned granule_bits;
        struct slots records, groups, spans;
        uint32_t first; /* the lowest block */
        uint32_t root;  /* of the treap of groups */
        struct zone *zones[N_ZONES];
        uint32_t straddlers[N_ZONES];
        uint64_t filled, straddled; /* which zones have a block in a class, a straddler */
        struct arena_usage usage; /* but for largest_free */
};

/* A request as the search needs it. */
struct want {
        uint64_t size, align, floor, limit;
        uint64_t boundary_mask; /* address bits that the first and the last byte must have in common */
        uint64_t certain;       /* a free block of this size between floor and limit suits; 0: no size is certain to */
};

struct place {
        uint32_t block;
        uint64_t addr;
};

struct class {
        unsigned level, sub;
};

/* ---- slots ---- */

static int slots_reserve(struct slots *slots, uint32_t n) {
        uint32_t capacity = slots->capacity;
        void *items;

        if (slots->n_free + (slots->capacity - slots->n_touched) >= n)
                return 0;
        if (capacity > UINT32_MAX / 4)
                return -ENOMEM;
        capacity = capacity ? capacity * 2 : 16;
        items = reallocarray(slots->items, capacity, slots->item_size);
        if (!items)
                return -ENOMEM;
        slots->items = items;
        slots->capacity = capacity;
        return 0;
}

/* Never fails after slots_reserve(). */
static uint32_t slots_take(struct slots *slots) {
        uint32_t index = slots->first_free;

        if (slots->n_free == 0)
                return slots->n_touched++;
        memcpy(&slots->first_free, (char *)slots->items + index * slots->item_size, sizeof(slots->first_free));
        slots->n_free--;
        return index;
}

static void slots_put(struct slots *slots, uint32_t index) {
        memcpy((char *)slots->items + index * slots->item_size, &slots->first_free, sizeof(slots->first_free));
        slots->first_free = index;
        slots->n_free++;
}

static inline struct record *record_at(const struct arena *arena, uint32_t index) {
        return (struct record *)arena->records.items + index;
}

static inline struct group *group_at(const struct arena *arena, uint32_t index) {
        return (struct group *)arena->groups.items + index;
}

static inline struct span *span_at(const struct arena *arena, uint32_t index) {
        return (struct span *)arena->spans.items + index;
}

static inline uint64_t record_size(const struct arena *arena, const struct record *record) {
        return ((uint64_t)record->more + 1) << arena->granule_bits;
}

static inline void record_set_size(const struct arena *arena, struct record *record, uint64_t size) {
        record->more = (uint32_t)((size >> arena->granule_bits) - 1);
}

/* Ends are told by the last byte, because the end of the address space has no address. */
static inline uint64_t record_last(const struct arena *arena, const struct record *record) {
        return record->addr + (record_size(arena, record) - 1);
}

static inline uint32_t record_span(const struct arena *arena, const struct record *record) {
        return group_at(arena, record->group)->span;
}

struct arena_block arena_block(const struct arena *arena, uint32_t number) {
        const struct record *record = record_at(arena, number);

        return (struct arena_block){ record->addr, record_size(arena, record), record->is_free ? 0 : record->note,
                                     span_at(arena, record_span(arena, record))->tag, number };
}

/* ---- treaps: binary trees ordered by address, and balanced by what a mixer makes of the index ---- */

enum { LEFT, RIGHT };

/* What the nodes are. These are constants to the functions below, which are inlined for each kind. */
struct treap_kind {
        uint64_t (*addr)(const struct arena *arena, uint32_t node);
        uint32_t *(*links)(const struct arena *arena, uint32_t node);
};

static inline uint32_t treap_priority(uint32_t node) {
        node = (node ^ node >> 16) * UINT32_C(0x7feb352d);
        node = (node ^ node >> 15) * UINT32_C(0x846ca68b);
        return node ^ node >> 16;
}

static inline void treap_insert(const struct arena *arena, const struct treap_kind *kind, uint32_t *root,
                                uint32_t node) {
        uint64_t addr = kind->addr(arena, node);
        uint32_t *links = kind->links(arena, node), *left = &links[LEFT], *right = &links[RIGHT], rest;

        while (*root != NONE && treap_priority(*root) > treap_priority(node))
                root = &kind->links(arena, *root)[addr < kind->addr(arena, *root) ? LEFT : RIGHT];
        rest = *root;
        *root = node;
        while (rest != NONE)
                if (kind->addr(arena, rest) < addr) {
                        *left = rest;
                        left = &kind->links(arena, rest)[RIGHT];
                        rest = *left;
                } else {
                        *right = rest;
                        right = &kind->links(arena, rest)[LEFT];
                        rest = *right;
                }
        *left = *right = NONE;
}

static inline void treap_remove(const struct arena *arena, const struct treap_kind *kind, uint32_t *root,
                                uint32_t node) {
        uint64_t addr = kind->addr(arena, node);
        uint32_t left = kind->links(arena, node)[LEFT], right = kind->links(arena, node)[RIGHT];

        while (*root != node)
                root = &kind->links(arena, *root)[addr < kind->addr(arena, *root) ? LEFT : RIGHT];
        while (left != NONE && right != NONE)
                if (treap_priority(left) > treap_priority(right)) {
                        *root = left;
                        root = &kind->links(arena, left)[RIGHT];
                        left = *root;
                } else {
                        *root = right;
                        root = &kind->links(arena, right)[LEFT];
                        right = *root;
                }
        *root = left != NONE ? left : right;
}

static inline uint64_t record_addr(const struct arena *arena, uint32_t block) {
        return record_at(arena, block)->addr;
}

static inline uint32_t *record_links(const struct arena *arena, uint32_t block) {
        return record_at(arena, block)->links;
}

static inline uint64_t group_addr(const struct arena *arena, uint32_t group) {
        return group_at(arena, group)->addr;
}

static inline uint32_t *group_links(const struct arena *arena, uint32_t group) {
        return group_at(arena, group)->links;
}

static const struct treap_kind class_treap = { record_addr, record_links };
static const struct treap_kind group_treap = { group_addr, group_links };

/* ---- groups: the index by address ---- */

/* The last block that begins at or below addr, or NONE. */
static uint32_t index_floor(const struct arena *arena, uint64_t addr) {
        uint32_t best = NONE, at = arena->root, block, next;

        while (at != NONE)
                if (group_addr(arena, at) <= addr) {
                        best = at;
                        at = group_at(arena, at)->links[RIGHT];
                } else
                        at = group_at(arena, at)->links[LEFT];
        if (best == NONE)
                return NONE;
        block = group_at(arena, best)->first;
        while ((next = record_at(arena, block)->next) != NONE && record_at(arena, next)->addr <= addr)
                block = next;
        return block;
}

/* The block that holds addr, or NONE. */
static uint32_t index_lookup(const struct arena *arena, uint64_t addr) {
        uint32_t block = index_floor(arena, addr);

        return block != NONE && addr <= record_last(arena, record_at(arena, block)) ? block : NONE;
}

/* The blocks of a group from this one on, which is not its first, become a group of their own. */
static void group_cut(struct arena *arena, uint32_t block) {
        uint32_t lower = record_at(arena, block)->group, upper = slots_take(&arena->groups), n_lower = 0, at;
        struct group *group = group_at(arena, lower);

        for (at = group->first; at != block; at = record_at(arena, at)->next)
                n_lower++;
        *group_at(arena, upper) = (struct group){ .addr = record_at(arena, block)->addr, .first = block,
                                                  .n_blocks = group->n_blocks - n_lower, .span = group->span };
        for (; n_lower < group->n_blocks; group->n_blocks--, at = record_at(arena, at)->next)
                record_at(arena, at)->group = upper;
        treap_insert(arena, &group_treap, &arena->root, upper);
}

/* Both links of the record are set; now its neighbours learn of it. */
static void block_link(struct arena *arena, uint32_t block) {
        const struct record *record = record_at(arena, block);

        if (record->next != NONE)
                record_at(arena, record->next)->prev = block;
        if (record->prev != NONE)
                record_at(arena, record->prev)->next = block;
        else
                arena->first = block;
}

/* The block joins the group of the one below. At most one group is taken. */
static void group_join(struct arena *arena, uint32_t block) {
        struct record *record = record_at(arena, block);
        struct group *group;
        uint32_t i;

        record->group = record_at(arena, record->prev)->group;
        group = group_at(arena, record->group);
        if (++group->n_blocks <= GROUP_MAX)
                return;
        for (block = group->first, i = 0; i < GROUP_MAX / 2; i++)
                block = record_at(arena, block)->next;
        group_cut(arena, block);
}

static void group_new(struct arena *arena, uint32_t block, uint32_t span) {
        struct record *record = record_at(arena, block);

        record->group = slots_take(&arena->groups);
        *group_at(arena, record->group) = (struct group){ .addr = record->addr, .first = block, .n_blocks = 1, .span = span };
        treap_insert(arena, &group_treap, &arena->root, record->group);
}

static void block_leave(struct arena *arena, uint32_t block) {
        struct record *record = record_at(arena, block);
        struct group *group = group_at(arena, record->group);

        if (group->n_blocks == 1) {
                treap_remove(arena, &group_treap, &arena->root, record->group);
                slots_put(&arena->groups, record->group);
        } else {
                group->n_blocks--;
                if (group->first == block) {
                        group->first = record->next;
                        group->addr = record_at(arena, record->next)->addr;
                }
        }
        if (record->prev != NONE)
                record_at(arena, record->prev)->next = record->next;
        else
                arena->first = record->next;
        if (record->next != NONE)
                record_at(arena, record->next)->prev = record->prev;
        slots_put(&arena->records, block);
}

/* ---- zones and classes: the index by size ---- */

static inline unsigned bit_highest(uint64_t value) {
        return 63 - (unsigned)__builtin_clzll(value);
}

static inline unsigned zone_of(uint64_t addr) {
        return addr ? bit_highest(addr) : 0;
}

static inline uint64_t zone_base(unsigned zone) {
        return zone ? UINT64_C(1) << zone : 0;
}

/* Bits from to to, both inclusive. */
static inline uint64_t bits_between(unsigned from, unsigned to) {
        return from > to ? 0 : (UINT64_MAX << from) & (UINT64_MAX >> (63 - to));
}

static inline struct class class_of(const struct arena *arena, uint64_t size) {
        uint64_t granules = size >> arena->granule_bits;
        unsigned highest;

        if (granules < N_SUB)
                return (struct class){ 0, (unsigned)granules };
        highest = bit_highest(granules);
        return (struct class){ highest - SUB_BITS + 1, (unsigned)(granules >> (highest - SUB_BITS)) - N_SUB };
}

/* The first class all of whose blocks have at least size; false: there is none. */
static bool class_above(const struct arena *arena, uint64_t size, struct class *ret) {
        uint64_t granules = size >> arena->granule_bits, step;

        if (granules >= N_SUB) {
                step = UINT64_C(1) << (bit_highest(granules) - SUB_BITS);
                if (granules > UINT64_MAX - (step - 1) || (granules + step - 1) > UINT64_MAX >> arena->granule_bits)
                        return false;
                granules += step - 1;
        }
        *ret = class_of(arena, granules << arena->granule_bits);
        return true;
}

/* Move class to the first at or after it that has a block. */
static inline bool zone_next_class(const struct zone *zone, struct class *class) {
        uint64_t levels;
        uint32_t classes;

        if (class->level >= zone->n_levels)
                return false;
        classes = zone->classes[class->level] & (UINT32_MAX << class->sub);
        if (!classes) {
                levels = zone->levels & (UINT64_MAX << (class->level + 1));
                if (!levels)
                        return false;
                class->level = (unsigned)__builtin_ctzll(levels);
                classes = zone->classes[class->level];
        }
        class->sub = (unsigned)__builtin_ctz(classes);
        return true;
}

static inline void class_step(struct class *class) {
        if (++class->sub == N_SUB) {
                class->sub = 0;
                class->level++;
        }
}

static inline uint32_t *zone_root(struct zone *zone, struct class class) {
        return &zone->roots[class.level * N_SUB + class.sub];
}

/* Classes for every block that can begin within a span, so that a release never needs memory. */
static int zones_reserve(struct arena *arena, uint64_t addr, uint64_t size) {
        uint32_t n_levels = class_of(arena, size).level + 1, old;
        unsigned i;

        for (i = zone_of(addr); i <= zone_of(addr + (size - 1)); i++) {
                struct zone *zone = arena->zones[i];

                old = zone ? zone->n_levels : 0;
                if (old >= n_levels)
                        continue;
                zone = realloc(zone, sizeof(*zone) + (size_t)n_levels * N_SUB * sizeof(zone->roots[0]));
                if (!zone)
                        return -ENOMEM;
                if (!old)
                        memset(zone, 0, sizeof(*zone));
                memset(zone->roots + old * N_SUB, 0xff, (size_t)(n_levels - old) * N_SUB * sizeof(zone->roots[0]));
                zone->n_levels = n_levels;
                arena->zones[i] = zone;
        }
        return 0;
}

/* Which zones above its own the block reaches into. */
static inline uint64_t record_straddles(const struct arena *arena, const struct record *record) {
        return bits_between(zone_of(record->addr) + 1, zone_of(record_last(arena, record)));
}

static void straddlers_set(struct arena *arena, uint64_t zones, uint32_t block) {
        if (block == NONE)
                arena->straddled &= ~zones;
        else
                arena->straddled |= zones;
        for (; zones; zones &= zones - 1)
                arena->straddlers[__builtin_ctzll(zones)] = block;
}

static void class_insert(struct arena *arena, uint32_t block) {
        struct record *record = record_at(arena, block);
        unsigned zone_index = zone_of(record->addr);
        struct zone *zone = arena->zones[zone_index];
        struct class class = class_of(arena, record_size(arena, record));

        record->is_free = true;
        treap_insert(arena, &class_treap, zone_root(zone, class), block);
        zone->classes[class.level] |= UINT32_C(1) << class.sub;
        zone->levels |= UINT64_C(1) << class.level;
        arena->filled |= UINT64_C(1) << zone_index;
        straddlers_set(arena, record_straddles(arena, record), block);
        arena->usage.n_free++;
        arena->usage.free_bytes += record_size(arena, record);
}

static void class_remove(struct arena *arena, uint32_t block) {
        const struct record *record = record_at(arena, block);
        unsigned zone_index = zone_of(record->addr);
        struct zone *zone = arena->zones[zone_index];
        struct class class = class_of(arena, record_size(arena, record));
        uint32_t *root = zone_root(zone, class);

        treap_remove(arena, &class_treap, root, block);
        if (*root == NONE && !(zone->classes[class.level] &= ~(UINT32_C(1) << class.sub)) &&
            !(zone->levels &= ~(UINT64_C(1) << class.level)))
                arena->filled &= ~(UINT64_C(1) << zone_index);
        straddlers_set(arena, record_straddles(arena, record), NONE);
        arena->usage.n_free--;
        arena->usage.free_bytes -= record_size(arena, record);
}

/* ---- the search ---- */

static inline bool is_power_of_two(uint64_t value) {
        return value && !(value & (value - 1));
}

static int want_init(const struct arena *arena, const struct arena_request *request, struct want *ret) {
        uint64_t mask = arena->granule - 1, align = request->align > mask ? request->align : arena->granule, certain;
        uint64_t boundary_mask = 0;

        if (!request->size || (request->align && !is_power_of_two(request->align)))
                return -EINVAL;
        if (request->boundary) {
                if (!is_power_of_two(request->boundary) || request->size > request->boundary)
                        return -EINVAL;
                /* Below a granule every block keeps it: what was asked for begins at a granule and is no larger. */
                if (request->boundary > mask)
                        boundary_mask = ~(request->boundary - 1);
        }
        if (request->size > UINT64_MAX - mask)
                return -ENOSPC;
        *ret = (struct want){ (request->size + mask) & ~mask, align, request->floor, request->limit, boundary_mask, 0 };
        if (ret->size > UINT64_MAX - (align - arena->granule))
                return 0;
        certain = ret->size + (align - arena->granule);
        /* A line not to be crossed leaves one side with half of the block; two lines have a whole stretch between. */
        if (boundary_mask && align < request->boundary)
                certain = certain > UINT64_MAX / 2 ? 0 : 2 * certain;
        ret->certain = certain;
        return 0;
}

/* The highest suitable address within a free block. */
static inline bool want_place(const struct arena *arena, const struct want *want, const struct record *record,
                              uint64_t *ret) {
        uint64_t low = record->addr > want->floor ? record->addr : want->floor, high = record_last(arena, record), addr, last;

        if (high > want->limit)
                high = want->limit;
        if (high < low || high - low < want->size - 1)
                return false;
        addr = (high - (want->size - 1)) & ~(want->align - 1);
        last = addr + (want->size - 1);
        /* End at the crossed line; a second line cannot be in the way, because lines are whole alignments apart. */
        if ((addr ^ last) & want->boundary_mask)
                addr = ((last & want->boundary_mask) - want->size) & ~(want->align - 1);
        if (addr < low)
                return false;
        *ret = addr;
        return true;
}

/* The highest suitable block of a class, looking at no more than *n_probes of those that may reach between floor and
 * limit. The depth of the recursion is that of the treap. */
static bool class_probe(const struct arena *arena, uint32_t node, const struct want *want, unsigned *n_probes,
                        struct place *ret) {
        while (node != NONE) {
                const struct record *record = record_at(arena, node);

                if (record->addr <= want->limit) {
                        if (class_probe(arena, record->links[RIGHT], want, n_probes, ret))
                                return true;
                        if (*n_probes == 0)
                                return false;
                        --*n_probes;
                        if (want_place(arena, want, record, &ret->addr)) {
                                ret->block = node;
                                return true;
                        }
                }
                if (record->addr <= want->floor)
                        return false;
                node = record->links[LEFT];
        }
        return false;
}

static bool zone_probe(const struct arena *arena, struct zone *zone, struct class class, const struct want *want,
                       unsigned n_probes, struct place *ret) {
        while (n_probes > 0 && zone_next_class(zone, &class)) {
                if (class_probe(arena, *zone_root(zone, class), want, &n_probes, ret))
                        return true;
                class_step(&class);
        }
        return false;
}

/* First a few of the best fits, then what is certain to fit, then everything. */
static bool zone_search(const struct arena *arena, struct zone *zone, const struct want *want, struct place *ret) {
        struct class class = class_of(arena, want->size), certain;

        if (zone_probe(arena, zone, class, want, PROBES, ret))
                return true;
        /* The floor and the limit may yet forbid the one that is looked at. */
        if (want->certain && class_above(arena, want->certain, &certain) &&
            zone_probe(arena, zone, certain, want, 1, ret))
                return true;
        return zone_probe(arena, zone, class, want, UINT32_MAX, ret);
}

/* What reaches into the zone from below, as far as it is in the zone. */
static bool zone_search_straddler(const struct arena *arena, unsigned zone, const struct want *want,
                                  struct place *ret) {
        uint64_t base = zone_base(zone);
        struct want above = *want;

        if (above.floor < base)
                above.floor = base;
        ret->block = arena->straddlers[zone];
        return want_place(arena, &above, record_at(arena, ret->block), &ret->addr);
}

static bool arena_search(const struct arena *arena, const struct want *want, struct place *ret) {
        /* The block's first byte lies between floor and limit, and so does its zone. */
        uint64_t zones = (arena->filled | arena->straddled) & bits_between(zone_of(want->floor), zone_of(want->limit));
        unsigned zone;

        for (; zones; zones &= ~(UINT64_C(1) << zone)) {
                zone = bit_highest(zones);
                if ((arena->filled >> zone & 1) && zone_search(arena, arena->zones[zone], want, ret))
                        return true;
                if ((arena->straddled >> zone & 1) && zone_search_straddler(arena, zone, want, ret))
                        return true;
        }
        return false;
}

/* ---- cutting and merging ---- */

/* All that a cut can need. Afterwards nothing fails. */
static int arena_reserve(struct arena *arena, uint32_t n_spans) {
        int r = slots_reserve(&arena->records, 2);

        if (r >= 0)
                r = slots_reserve(&arena->groups, 2);
        if (r >= 0)
                r = slots_reserve(&arena->spans, n_spans);
        return r;
}

static uint32_t block_new_after(struct arena *arena, uint32_t prev, uint64_t addr, uint64_t size) {
        uint32_t block = slots_take(&arena->records);
        struct record *record = record_at(arena, block);

        *record = (struct record){ .addr = addr, .prev = prev, .next = record_at(arena, prev)->next };
        record_set_size(arena, record, size);
        block_link(arena, block);
        group_join(arena, block);
        return block;
}

/* Cut [addr, addr+size) out of a free block: the sides stay free, and the block returned is in no class. */
static uint32_t block_cut(struct arena *arena, uint32_t block, uint64_t addr, uint64_t size) {
        uint64_t first = record_at(arena, block)->addr, last = record_last(arena, record_at(arena, block));
        uint64_t below = addr - first, above = last - (addr + (size - 1));
        uint32_t upper;

        class_remove(arena, block);
        record_set_size(arena, record_at(arena, block), below ? below : size);
        if (below) {
                class_insert(arena, block);
                block = block_new_after(arena, block, addr, size);
        }
        if (above) {
                upper = block_new_after(arena, block, addr + size, above);
                class_insert(arena, upper);
        }
        return block;
}

static void block_allocate(struct arena *arena, uint32_t block, uint64_t addr, uint64_t size, struct arena_block *ret) {
        block = block_cut(arena, block, addr, size);
        record_at(arena, block)->is_free = false;
        record_at(arena, block)->note = 0;
        arena->usage.n_allocated++;
        *ret = arena_block(arena, block);
}

static bool blocks_merge(const struct arena *arena, uint32_t lower, uint32_t upper) {
        return lower != NONE && upper != NONE && record_at(arena, lower)->is_free && record_at(arena, upper)->is_free &&
               record_span(arena, record_at(arena, lower)) == record_span(arena, record_at(arena, upper));
}

/* ---- the interface ---- */

int arena_new(uint64_t granule, struct arena **ret) {
        struct arena *arena;

        if (!is_power_of_two(granule))
                return -EINVAL;
        arena = calloc(1, sizeof(*arena));
        if (!arena)
                return -ENOMEM;
        arena->granule = granule;
        arena->granule_bits = bit_highest(granule);
        arena->records.item_size = sizeof(struct record);
        arena->groups.item_size = sizeof(struct group);
        arena->spans.item_size = sizeof(struct span);
        arena->first = arena->root = NONE;
        *ret = arena;
        return 0;
}

struct arena *arena_free(struct arena *arena) {
        unsigned i;

        if (!arena)
                return NULL;
        for (i = 0; i < N_ZONES; i++)
                free(arena->zones[i]);
        free(arena->records.items);
        free(arena->groups.items);
        free(arena->spans.items);
        free(arena);
        return NULL;
}

static bool is_in_granules(const struct arena *arena, uint64_t addr, uint64_t size) {
        return size && !((addr | size) & (arena->granule - 1)) && addr + (size - 1) >= addr;
}

int arena_add(struct arena *arena, uint64_t addr, uint64_t size, uint32_t tag) {
        uint32_t prev, block, span;
        int r;

        /* The byte counters end with the address space as well. */
        if (!is_in_granules(arena, addr, size) || arena->usage.bytes + size < size || size >> arena->granule_bits > SPAN_MAX)
                return -EINVAL;
        prev = index_floor(arena, addr + (size - 1));
        if (prev != NONE && record_last(arena, record_at(arena, prev)) >= addr)
                return -EEXIST;
        r = arena_reserve(arena, 1);
        if (r >= 0)
                r = zones_reserve(arena, addr, size);
        if (r < 0)
                return r;

        span = slots_take(&arena->spans);
        *span_at(arena, span) = (struct span){ addr, size, tag };
        block = slots_take(&arena->records);
        *record_at(arena, block) =
                (struct record){ .addr = addr, .prev = prev, .next = prev == NONE ? arena->first : record_at(arena, prev)->next };
        record_set_size(arena, record_at(arena, block), size);
        block_link(arena, block);
        group_new(arena, block, span);
        class_insert(arena, block);
        arena->usage.bytes += size;
        arena->usage.n_spans++;
        return 0;
}

/* The free block that holds all of [addr, addr+size). */
static int find_exactly(const struct arena *arena, uint64_t addr, uint64_t size, uint32_t *ret) {
        uint32_t block;
        const struct record *record;
        const struct span *span;

        if (!is_in_granules(arena, addr, size))
                return -EINVAL;
        block = index_lookup(arena, addr);
        if (block == NONE)
                return -ENOENT;
        record = record_at(arena, block);
        span = span_at(arena, record_span(arena, record));
        if (span->size - (addr - span->addr) < size)
                return -ENOENT;
        if (!record->is_free || record_size(arena, record) - (addr - record->addr) < size)
                return -EBUSY;
        *ret = block;
        return 0;
}

/* The hole's span becomes two: the side with fewer blocks gets the new one. */
static void span_split(struct arena *arena, uint32_t lower, uint32_t upper) {
        const uint32_t old = record_span(arena, record_at(arena, lower)), new = slots_take(&arena->spans);
        const uint64_t first = span_at(arena, old)->addr, last = first + (span_at(arena, old)->size - 1);
        const uint64_t lower_last = record_last(arena, record_at(arena, lower)), upper_first = record_at(arena, upper)->addr;
        const struct span below = { first, lower_last - first + 1, span_at(arena, old)->tag };
        const struct span above = { upper_first, last - upper_first + 1, span_at(arena, old)->tag };
        uint32_t block;

        if (record_at(arena, lower)->group == record_at(arena, upper)->group)
                group_cut(arena, upper);
        while (lower != NONE && record_span(arena, record_at(arena, lower)) == old &&
               upper != NONE && record_span(arena, record_at(arena, upper)) == old) {
                lower = record_at(arena, lower)->prev;
                upper = record_at(arena, upper)->next;
        }
        if (lower == NONE || record_span(arena, record_at(arena, lower)) != old) {
                *span_at(arena, new) = below;
                *span_at(arena, old) = above;
                block = lower == NONE ? arena->first : record_at(arena, lower)->next;
                for (; record_at(arena, block)->addr <= lower_last; block = record_at(arena, block)->next)
                        group_at(arena, record_at(arena, block)->group)->span = new;
        } else {
                *span_at(arena, new) = above;
                *span_at(arena, old) = below;
                block = upper == NONE ? index_floor(arena, last) : record_at(arena, upper)->prev;
                for (; record_at(arena, block)->addr >= upper_first; block = record_at(arena, block)->prev)
                        group_at(arena, record_at(arena, block)->group)->span = new;
        }
        arena->usage.n_spans++;
}

int arena_remove(struct arena *arena, uint64_t addr, uint64_t size) {
        uint32_t block = NONE, prev, next, index;
        struct span *span;
        bool has_lower, has_upper;
        int r;

        r = find_exactly(arena, addr, size, &block);
        /* A whole block goes without leaving anything to describe: what gives memory back needs none. */
        if (r >= 0 && (record_at(arena, block)->addr != addr || record_size(arena, record_at(arena, block)) != size))
                r = arena_reserve(arena, 1);
        if (r < 0)
                return r;

        block = block_cut(arena, block, addr, size);
        prev = record_at(arena, block)->prev;
        next = record_at(arena, block)->next;
        index = record_span(arena, record_at(arena, block));
        span = span_at(arena, index);
        has_lower = addr != span->addr;
        has_upper = addr + (size - 1) != span->addr + (span->size - 1);
        block_leave(arena, block);
        arena->usage.bytes -= size;
        if (has_lower && has_upper)
                span_split(arena, prev, next);
        else if (has_lower || has_upper) {
                span->addr += has_upper ? size : 0;
                span->size -= size;
        } else {
                slots_put(&arena->spans, index);
                arena->usage.n_spans--;
        }
        return 0;
}

int arena_find(struct arena *arena, const struct arena_request *request, struct arena_block *ret) {
        struct place place = { .block = NONE };
        struct want want;
        int r;

        r = want_init(arena, request, &want);
        if (r < 0)
                return r;
        if (!arena_search(arena, &want, &place))
                return -ENOSPC;
        *ret = (struct arena_block){ .addr = place.addr, .size = want.size,
                                     .tag = span_at(arena, record_span(arena, record_at(arena, place.block)))->tag };
        return 0;
}

int arena_alloc(struct arena *arena, const struct arena_request *request, struct arena_block *ret) {
        struct place place = { .block = NONE };
        struct want want;
        int r;

        r = want_init(arena, request, &want);
        if (r < 0)
                return r;
        if (!arena_search(arena, &want, &place))
                return -ENOSPC;
        r = arena_reserve(arena, 0);
        if (r < 0)
                return r;
        block_allocate(arena, place.block, place.addr, want.size, ret);
        return 0;
}

int arena_alloc_at(struct arena *arena, uint64_t addr, uint64_t size, struct arena_block *ret) {
        uint32_t block = NONE;
        int r;

        r = find_exactly(arena, addr, size, &block);
        if (r >= 0)
                r = arena_reserve(arena, 0);
        if (r < 0)
                return r;
        block_allocate(arena, block, addr, size, ret);
        return 0;
}

void arena_note(struct arena *arena, uint32_t number, uint64_t note) {
        record_at(arena, number)->note = note;
}

void arena_release(struct arena *arena, uint32_t number, struct arena_block *ret_merged) {
        uint32_t block = number, other;

        arena->usage.n_allocated--;
        record_at(arena, block)->is_free = true;
        other = record_at(arena, block)->next;
        if (blocks_merge(arena, block, other)) {
                class_remove(arena, other);
                record_at(arena, block)->more += record_at(arena, other)->more + 1;
                block_leave(arena, other);
        }
        other = record_at(arena, block)->prev;
        if (blocks_merge(arena, other, block)) {
                class_remove(arena, other);
                record_at(arena, other)->more += record_at(arena, block)->more + 1;
                block_leave(arena, block);
                block = other;
        }
        class_insert(arena, block);
        if (ret_merged)
                *ret_merged = arena_block(arena, block);
}

int arena_release_at(struct arena *arena, uint64_t addr, struct arena_block *ret_merged) {
        uint32_t block = index_lookup(arena, addr);

        if (block == NONE || record_at(arena, block)->is_free || record_at(arena, block)->addr != addr)
                return -ENOENT;
        arena_release(arena, block, ret_merged);
        return 0;
}

int arena_lookup(const struct arena *arena, uint64_t addr, struct arena_block *ret, bool *ret_free) {
        uint32_t block = index_lookup(arena, addr);

        if (block == NONE)
                return -ENOENT;
        *ret = arena_block(arena, block);
        *ret_free = record_at(arena, block)->is_free;
        return 0;
}

int arena_span(const struct arena *arena, uint64_t addr, struct arena_block *ret) {
        uint32_t block = index_lookup(arena, addr);
        const struct span *span;

        if (block == NONE)
                return -ENOENT;
        span = span_at(arena, record_span(arena, record_at(arena, block)));
        *ret = (struct arena_block){ .addr = span->addr, .size = span->size, .tag = span->tag };
        return 0;
}

static uint64_t class_largest(const struct arena *arena, uint32_t node) {
        uint64_t largest = 0, other;

        for (; node != NONE; node = record_at(arena, node)->links[RIGHT]) {
                other = class_largest(arena, record_at(arena, node)->links[LEFT]);
                if (other > largest)
                        largest = other;
                if (record_size(arena, record_at(arena, node)) > largest)
                        largest = record_size(arena, record_at(arena, node));
        }
        return largest;
}

/* Only the last class that has a block can hold the largest. */
static uint64_t zone_largest(const struct arena *arena, struct zone *zone) {
        struct class class = { .level = bit_highest(zone->levels) };

        class.sub = 31 - (unsigned)__builtin_clz(zone->classes[class.level]);
        return class_largest(arena, *zone_root(zone, class));
}

void arena_usage(const struct arena *arena, struct arena_usage *ret) {
        uint64_t zones, largest;

        *ret = arena->usage;
        ret->largest_free = 0;
        for (zones = arena->filled; zones; zones &= zones - 1) {
                largest = zone_largest(arena, arena->zones[__builtin_ctzll(zones)]);
                if (largest > ret->largest_free)
                        ret->largest_free = largest;
        }
}

void arena_usage_within(const struct arena *arena, uint64_t floor, uint64_t limit, uint64_t *ret_free,
                        uint64_t *ret_largest) {
        uint32_t block = index_floor(arena, floor);
        uint64_t first, last, total = 0, largest = 0;

        for (block = block == NONE ? arena->first : block; block != NONE; block = record_at(arena, block)->next) {
                const struct record *record = record_at(arena, block);

                first = record->addr > floor ? record->addr : floor;
                last = record_last(arena, record) < limit ? record_last(arena, record) : limit;
                if (record->addr > limit)
                        break;
                if (!record->is_free || first > last)
                        continue;
                total += last - first + 1;
                if (last - first + 1 > largest)
                        largest = last - first + 1;
        }
        *ret_free = total;
        *ret_largest = largest;
}

int arena_visit(const struct arena *arena, arena_visit_fn visit, void *userdata) {
        uint32_t block;
        int r = 0;

        for (block = arena->first; block != NONE && r == 0; block = record_at(arena, block)->next) {
                struct arena_block told = arena_block(arena, block);

                r = visit(&told, record_at(arena, block)->is_free, userdata);
        }
        return r;
}

/* ---- the check ---- */

struct check {
        const struct arena *arena;
        char *text;
        size_t text_size;
        struct arena_usage seen;
        uint32_t n_groups, in_group; /* of the group being walked */
        uint64_t straddled;
        size_t n_classed;
};

__attribute__((format(printf, 2, 3))) static int unclean(struct check *check, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(check->text, check->text_size, format, arguments);
        va_end(arguments);
        return -EUCLEAN;
}

#define ADDR "0x%llx"
#define ADDR_OF(record) ((unsigned long long)(record)->addr)

/* Where the span of the block begins and ends, and whether it begins where the last one ended. */
static int check_coverage(struct check *check, uint32_t block, uint32_t prev) {
        const struct arena *arena = check->arena;
        const struct record *record = record_at(arena, block), *before = prev == NONE ? NULL : record_at(arena, prev);
        const uint32_t index = record_span(arena, record), index_before = before ? record_span(arena, before) : NONE;
        const struct span *span = span_at(arena, index), *below = before ? span_at(arena, index_before) : NULL;
        bool is_first = index != index_before;

        if (record->prev != prev)
                return unclean(check, "the block at " ADDR " does not point back to the one below", ADDR_OF(record));
        if (!is_in_granules(arena, record->addr, record_size(arena, record)))
                return unclean(check, "the block at " ADDR " is not in granules", ADDR_OF(record));
        if (before && record_last(arena, before) >= record->addr)
                return unclean(check, "the block at " ADDR " overlaps the one below", ADDR_OF(record));
        if (is_first ? record->addr != span->addr : record_last(arena, before) + 1 != record->addr)
                return unclean(check, "the block at " ADDR " leaves a gap below", ADDR_OF(record));
        if (is_first && before && record_last(arena, before) != below->addr + (below->size - 1))
                return unclean(check, "the span below " ADDR " ends without a block", ADDR_OF(record));
        if (record->next == NONE && record_last(arena, record) != span->addr + (span->size - 1))
                return unclean(check, "the span at " ADDR " ends without a block", ADDR_OF(span));
        if (!is_first && before->is_free && record->is_free)
                return unclean(check, "the free block at " ADDR " is not merged with the one below", ADDR_OF(record));
        if (is_first)
                check->seen.n_spans++;
        return 0;
}

static int check_group(struct check *check, uint32_t block, uint32_t prev) {
        const struct arena *arena = check->arena;
        const struct record *record = record_at(arena, block);

        if (prev == NONE || record_at(arena, prev)->group != record->group) {
                if (group_at(arena, record->group)->first != block || group_addr(arena, record->group) != record->addr)
                        return unclean(check, "the block at " ADDR " does not begin its group", ADDR_OF(record));
                check->n_groups++;
                check->in_group = 0;
        }
        check->in_group++;
        if ((record->next == NONE || record_at(arena, record->next)->group != record->group) &&
            check->in_group != group_at(arena, record->group)->n_blocks)
                return unclean(check, "the group that ends at " ADDR " has a wrong count", ADDR_OF(record));
        if (index_floor(arena, record->addr) != block)
                return unclean(check, "the block at " ADDR " is not found by its address", ADDR_OF(record));
        return 0;
}

static int check_free(struct check *check, uint32_t block) {
        const struct arena *arena = check->arena;
        const struct record *record = record_at(arena, block);
        uint64_t straddles = record_straddles(arena, record), rest;

        check->seen.n_free++;
        check->seen.free_bytes += record_size(arena, record);
        check->straddled |= straddles;
        for (rest = straddles; rest; rest &= rest - 1)
                if (arena->straddlers[__builtin_ctzll(rest)] != block)
                        return unclean(check, "the free block at " ADDR " is not known to reach up", ADDR_OF(record));
        return 0;
}

/* Every node of a class belongs there, is between its ancestors and below them in priority. */
static int check_treap(struct check *check, uint32_t node, uint32_t parent, unsigned zone_index, struct class class,
                       uint64_t low, uint64_t high) {
        const struct record *record;
        struct class right;
        int r;

        for (; node != NONE; parent = node, node = record->links[RIGHT]) {
                record = record_at(check->arena, node);
                right = class_of(check->arena, record_size(check->arena, record));
                if (++check->n_classed > check->seen.n_free)
                        return unclean(check, "the classes hold more than the %zu free blocks", check->seen.n_free);
                if (!record->is_free || zone_of(record->addr) != zone_index || right.level != class.level ||
                    right.sub != class.sub)
                        return unclean(check, "the block at " ADDR " is in a wrong class", ADDR_OF(record));
                if (record->addr < low || record->addr > high)
                        return unclean(check, "the block at " ADDR " is misplaced in its class", ADDR_OF(record));
                if (parent != NONE && treap_priority(parent) < treap_priority(node))
                        return unclean(check, "the class of the block at " ADDR " is unbalanced", ADDR_OF(record));
                r = check_treap(check, record->links[LEFT], node, zone_index, class, low, record->addr);
                if (r < 0)
                        return r;
                low = record->addr;
        }
        return 0;
}

static int check_class(struct check *check, unsigned zone_index, struct class class) {
        struct zone *zone = check->arena->zones[zone_index];
        uint32_t root = *zone_root(zone, class);

        if ((zone->classes[class.level] >> class.sub & 1) != (root != NONE) ||
            (zone->levels >> class.level & 1) != (zone->classes[class.level] != 0))
                return unclean(check, "class %u.%u of zone %u is not marked as it is", class.level, class.sub,
                               zone_index);
        return check_treap(check, root, NONE, zone_index, class, 0, UINT64_MAX);
}

/* Together the classes hold every free block. */
static int check_classes(struct check *check) {
        const struct arena *arena = check->arena;
        unsigned i, j;
        int r;

        for (i = 0; i < N_ZONES; i++) {
                const struct zone *zone = arena->zones[i];

                if ((zone && zone->levels) != (arena->filled >> i & 1))
                        return unclean(check, "zone %u is not marked as it is", i);
                for (j = 0; zone && j < zone->n_levels * N_SUB; j++) {
                        r = check_class(check, i, (struct class){ j / N_SUB, j % N_SUB });
                        if (r < 0)
                                return r;
                }
        }
        if (check->n_classed != check->seen.n_free)
                return unclean(check, "the classes hold %zu free blocks of %zu", check->n_classed, check->seen.n_free);
        return 0;
}

static int check_slots(struct check *check, const struct slots *slots, size_t n_used, const char *what) {
        size_t n = slots->n_touched - slots->n_free;

        return n == n_used ? 0 : unclean(check, "%zu %s are taken, %zu are in use", n, what, n_used);
}

static int check_totals(struct check *check) {
        const struct arena *arena = check->arena;
        const struct arena_usage *said = &arena->usage, *seen = &check->seen;
        int r;

        if (said->bytes != seen->bytes || said->free_bytes != seen->free_bytes || said->n_spans != seen->n_spans ||
            said->n_free != seen->n_free || said->n_allocated != seen->n_allocated)
                return unclean(check, "the counters say %zu free, %zu allocated, %zu spans; there are %zu, %zu, %zu, "
                               "or their bytes differ", said->n_free, said->n_allocated, said->n_spans, seen->n_free,
                               seen->n_allocated, seen->n_spans);
        if (check->straddled != arena->straddled)
                return unclean(check, "a zone has a straddler that is not there");
        r = check_slots(check, &arena->records, seen->n_free + seen->n_allocated, "records");
        if (r == 0)
                r = check_slots(check, &arena->groups, check->n_groups, "groups");
        if (r == 0)
                r = check_slots(check, &arena->spans, seen->n_spans, "spans");
        return r;
}

int arena_check(const struct arena *arena, char *text, size_t text_size) {
        struct check check = { .arena = arena, .text = text, .text_size = text_size };
        uint32_t block, prev = NONE;
        int r = 0;

        for (block = arena->first; block != NONE && r == 0; prev = block, block = record_at(arena, block)->next) {
                r = check_coverage(&check, block, prev);
                if (r == 0)
                        r = check_group(&check, block, prev);
                if (r == 0 && record_at(arena, block)->is_free)
                        r = check_free(&check, block);
                else if (r == 0)
                        check.seen.n_allocated++;
                check.seen.bytes += record_size(arena, record_at(arena, block));
        }
        if (r == 0)
                r = check_classes(&check);
        if (r == 0)
                r = check_totals(&check);
        return r;
}
