#include "daemon/core/handle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SLOT_BITS 24
#define SLOT_MASK ((UINT64_C(1) << SLOT_BITS) - 1)
#define GENERATION_MAX ((UINT32_C(1) << 28) - 1)
#define NO_SLOT (UINT32_MAX >> 1)
/* So many released slots rest before one is used again: a program that takes and gives back without end uses up generations
 * so much more slowly, which also the next daemon counts on from the highest. At a million a second they last for years. */
#define SLOTS_RESTING (UINT32_C(1) << 16)
/* A handle this far beyond all others is a wrong one rather than a right one for which there is no memory. */
#define SLOTS_FAR (UINT32_C(1) << 20)

void handle_table_init(struct handle_table *table) {
        *table = (struct handle_table){ .first_free = NO_SLOT, .last_free = NO_SLOT };
}

void handle_table_deinit(struct handle_table *table) {
        free(table->slots);
        handle_table_init(table);
}

/* NULL: it is released, or was never used. */
static void *slot_object(const struct handle_slot *slot) {
        return slot->low & 1 ? NULL : (void *)(uintptr_t)((uint64_t)slot->high << 32 | slot->low);
}

static enum handle_kind slot_kind(const struct handle_slot *slot) {
        return (enum handle_kind)(slot->kind + 1);
}

static struct handle_slot slot_live(enum handle_kind kind, void *object, uint32_t generation) {
        const uint64_t address = (uintptr_t)object;

        return (struct handle_slot){ (uint32_t)address, (uint32_t)(address >> 32), generation, kind - 1 };
}

static uint32_t slot_next_free(const struct handle_slot *slot) {
        return slot->low >> 1;
}

static void slot_set_next_free(struct handle_slot *slot, uint32_t index) {
        slot->low = index << 1 | 1;
}

static int slots_reserve(struct handle_table *table, uint32_t n) {
        struct handle_slot *slots;
        uint32_t capacity = table->capacity ? table->capacity : 64;

        if (n <= table->capacity)
                return 0;
        while (capacity < n)
                capacity *= 2;
        slots = realloc(table->slots, capacity * sizeof(*slots));
        if (!slots)
                return -ENOMEM;
        table->slots = slots;
        table->capacity = capacity;
        return 0;
}

static int slot_fresh(struct handle_table *table, uint32_t *ret_index) {
        if (table->n_slots > SLOT_MASK || table->base >= GENERATION_MAX || slots_reserve(table, table->n_slots + 1) < 0)
                return -ENOMEM;
        table->slots[table->n_slots].generation = table->base;
        *ret_index = table->n_slots++;
        return 0;
}

static int slot_take(struct handle_table *table, uint32_t *ret_index) {
        uint32_t index = table->first_free;

        if (table->n_free < SLOTS_RESTING && slot_fresh(table, ret_index) == 0)
                return 0;
        if (index == NO_SLOT)
                return -ENOMEM;
        table->first_free = slot_next_free(&table->slots[index]);
        if (table->first_free == NO_SLOT)
                table->last_free = NO_SLOT;
        table->n_free--;
        *ret_index = index;
        return 0;
}

int handle_new(struct handle_table *table, enum handle_kind kind, void *object, uint64_t *ret_handle) {
        struct handle_slot *slot;
        uint32_t index;
        int r;

        r = slot_take(table, &index);
        if (r < 0)
                return r;
        slot = &table->slots[index];
        *slot = slot_live(kind, object, slot->generation + 1);
        if (slot->generation > table->highest)
                table->highest = slot->generation;
        *ret_handle = (uint64_t)slot->generation << SLOT_BITS | index;
        return 0;
}

static struct handle_slot *slot_of(const struct handle_table *table, enum handle_kind kind, uint64_t handle) {
        struct handle_slot *slot;
        uint64_t index = handle & SLOT_MASK;

        if (index >= table->n_slots)
                return NULL;
        slot = &table->slots[index];
        return slot->generation == handle >> SLOT_BITS && slot_kind(slot) == kind ? slot : NULL;
}

void *handle_find(const struct handle_table *table, enum handle_kind kind, uint64_t handle) {
        struct handle_slot *slot = slot_of(table, kind, handle);

        return slot ? slot_object(slot) : NULL;
}

void handle_exchange(struct handle_table *table, uint64_t one, uint64_t other) {
        struct handle_slot *a = &table->slots[one & SLOT_MASK], *b = &table->slots[other & SLOT_MASK], before = *a;

        *a = slot_live(slot_kind(a), slot_object(b), a->generation);
        *b = slot_live(slot_kind(b), slot_object(&before), b->generation);
}

static void slot_release(struct handle_table *table, uint32_t index, uint32_t owner) {
        struct handle_slot *slot = &table->slots[index];

        slot_set_next_free(slot, NO_SLOT);
        slot->high = owner;
        /* A slot whose generations are used up is never used again. */
        if (slot->generation >= GENERATION_MAX)
                return;
        if (table->last_free == NO_SLOT)
                table->first_free = index;
        else
                slot_set_next_free(&table->slots[table->last_free], index);
        table->last_free = index;
        table->n_free++;
}

void handle_release(struct handle_table *table, uint64_t handle, uint32_t owner) {
        slot_release(table, handle & SLOT_MASK, owner);
}

int handle_restore(struct handle_table *table, enum handle_kind kind, void *object, uint64_t handle) {
        uint64_t generation = handle >> SLOT_BITS;
        uint32_t index = handle & SLOT_MASK, capacity = table->capacity;
        struct handle_slot *slot;

        if (!generation || generation > GENERATION_MAX)
                return -EINVAL;
        if (slots_reserve(table, index + 1) < 0)
                return index >= capacity + SLOTS_FAR ? -EINVAL : -ENOMEM;
        if (capacity != table->capacity)
                memset(table->slots + capacity, 0, (table->capacity - capacity) * sizeof(*table->slots));
        slot = &table->slots[index];
        if (slot_object(slot))
                return -EINVAL;
        *slot = slot_live(kind, object, (uint32_t)generation);
        if (index >= table->n_slots)
                table->n_slots = index + 1;
        if (generation > table->highest)
                table->highest = (uint32_t)generation;
        return 0;
}

void handle_table_restored(struct handle_table *table, uint32_t highest) {
        uint32_t i;

        if (highest < table->highest)
                highest = table->highest;
        if (highest > GENERATION_MAX)
                highest = GENERATION_MAX;
        table->base = table->highest = highest;
        /* Some may have been released since they were restored. */
        table->first_free = table->last_free = NO_SLOT;
        table->n_free = 0;
        for (i = 0; i < table->n_slots; i++) {
                if (slot_object(&table->slots[i]))
                        continue;
                table->slots[i] = (struct handle_slot){ .generation = highest };
                slot_release(table, i, 0);
        }
}

bool handle_was(const struct handle_table *table, enum handle_kind kind, uint64_t handle, uint32_t owner) {
        struct handle_slot *slot = slot_of(table, kind, handle);

        return slot && !slot_object(slot) && slot->high == owner;
}

/* kind HANDLE_NONE: any. */
static const struct handle_slot *slot_next(const struct handle_table *table, enum handle_kind kind, uint64_t after,
                                           uint64_t *ret_handle) {
        const struct handle_slot *slot;
        uint32_t index;

        for (index = after ? (after & SLOT_MASK) + 1 : 0; index < table->n_slots; index++) {
                slot = &table->slots[index];
                if (!slot_object(slot) || (kind != HANDLE_NONE && slot_kind(slot) != kind))
                        continue;
                *ret_handle = (uint64_t)slot->generation << SLOT_BITS | index;
                return slot;
        }
        return NULL;
}

void *handle_next(const struct handle_table *table, enum handle_kind kind, uint64_t after, uint64_t *ret_handle) {
        const struct handle_slot *slot = slot_next(table, kind, after, ret_handle);

        return slot ? slot_object(slot) : NULL;
}

void *handle_next_any(const struct handle_table *table, uint64_t after, enum handle_kind *ret_kind, uint64_t *ret_handle) {
        const struct handle_slot *slot = slot_next(table, HANDLE_NONE, after, ret_handle);

        if (slot)
                *ret_kind = slot_kind(slot);
        return slot ? slot_object(slot) : NULL;
}
