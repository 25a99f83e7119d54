#include "daemon/core/handle.h"

#include <errno.h>
#include <stdlib.h>

#define SLOT_BITS 24
#define SLOT_MASK ((UINT64_C(1) << SLOT_BITS) - 1)
#define GENERATION_MAX ((UINT32_C(1) << 29) - 1)
#define NO_SLOT UINT32_MAX

void handle_table_init(struct handle_table *table) {
        *table = (struct handle_table){ .first_free = NO_SLOT, .last_free = NO_SLOT };
}

void handle_table_deinit(struct handle_table *table) {
        free(table->slots);
        handle_table_init(table);
}

static int slot_take(struct handle_table *table, uint32_t *ret_index) {
        struct handle_slot *slots;
        uint32_t index = table->first_free, capacity;

        if (index != NO_SLOT) {
                table->first_free = table->slots[index].released.next_free;
                if (table->first_free == NO_SLOT)
                        table->last_free = NO_SLOT;
                *ret_index = index;
                return 0;
        }
        if (table->n_slots > SLOT_MASK)
                return -ENOMEM;
        if (table->n_slots == table->capacity) {
                capacity = table->capacity ? 2 * table->capacity : 64;
                slots = realloc(table->slots, capacity * sizeof(*slots));
                if (!slots)
                        return -ENOMEM;
                table->slots = slots;
                table->capacity = capacity;
        }
        table->slots[table->n_slots].generation = 0;
        *ret_index = table->n_slots++;
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
        slot->generation++;
        slot->kind = kind;
        slot->live = true;
        slot->object = object;
        *ret_handle = (uint64_t)slot->generation << SLOT_BITS | index;
        return 0;
}

static struct handle_slot *slot_of(const struct handle_table *table, enum handle_kind kind, uint64_t handle) {
        struct handle_slot *slot;
        uint64_t index = handle & SLOT_MASK;

        if (index >= table->n_slots)
                return NULL;
        slot = &table->slots[index];
        return slot->generation == handle >> SLOT_BITS && slot->kind == kind ? slot : NULL;
}

void *handle_find(const struct handle_table *table, enum handle_kind kind, uint64_t handle) {
        struct handle_slot *slot = slot_of(table, kind, handle);

        return slot && slot->live ? slot->object : NULL;
}

void handle_release(struct handle_table *table, uint64_t handle, uint32_t owner) {
        uint32_t index = handle & SLOT_MASK;
        struct handle_slot *slot = &table->slots[index];

        slot->live = false;
        slot->released.owner = owner;
        slot->released.next_free = NO_SLOT;
        /* A slot whose generations are used up is never used again. */
        if (slot->generation >= GENERATION_MAX)
                return;
        if (table->last_free == NO_SLOT)
                table->first_free = index;
        else
                table->slots[table->last_free].released.next_free = index;
        table->last_free = index;
}

bool handle_was(const struct handle_table *table, enum handle_kind kind, uint64_t handle, uint32_t owner) {
        struct handle_slot *slot = slot_of(table, kind, handle);

        return slot && !slot->live && slot->released.owner == owner;
}

void *handle_next(const struct handle_table *table, enum handle_kind kind, uint64_t after, uint64_t *ret_handle) {
        const struct handle_slot *slot;
        uint32_t index;

        for (index = after ? (after & SLOT_MASK) + 1 : 0; index < table->n_slots; index++) {
                slot = &table->slots[index];
                if (!slot->live || slot->kind != kind)
                        continue;
                *ret_handle = (uint64_t)slot->generation << SLOT_BITS | index;
                return slot->object;
        }
        return NULL;
}
