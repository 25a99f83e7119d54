/* Handles: numbers that name objects to the outside. A handle is never reused: it is a slot and the slot's generation.
 * It stays below 2^53, so that JSON numbers hold it. A released slot remembers whose it was, so that a second release can
 * be told apart from a number that never was, though only to the one who owned it. */
#ifndef DMAB_CORE_HANDLE_H
#define DMAB_CORE_HANDLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum handle_kind {
        HANDLE_NONE,
        HANDLE_DEVICE,
        HANDLE_ALLOC,
        HANDLE_REGION,
        HANDLE_POOL,
        HANDLE_BOUNCE,
        HANDLE_LEASE,
        HANDLE_MAPPING,
        HANDLE_GRANT,
        HANDLE_BLOCKS, /* that were given under one request_key; nobody is told of it */
};

/* 12 bytes, because there are as many as there ever were objects: hence no pointer in it. */
struct handle_slot {
        uint32_t low, high;       /* the object's address, which is even; released: twice the next free index and one, and
                                   * the owner of the object that was here */
        uint32_t generation : 28;
        uint32_t kind : 4;        /* less one; also of the object that was here */
};

struct handle_table {
        struct handle_slot *slots;
        uint32_t n_slots, capacity;
        uint32_t first_free, last_free; /* first in, first out: a slot rests as long as can be */
        uint32_t n_free;
        uint32_t base;    /* generation from which slots count that were never used */
        uint32_t highest; /* generation that was ever given */
};

void handle_table_init(struct handle_table *table);
void handle_table_deinit(struct handle_table *table);

/* -ENOMEM, also when there are too many. */
int handle_new(struct handle_table *table, enum handle_kind kind, void *object, uint64_t *ret_handle);
/* NULL: no object of this kind has this handle now. */
void *handle_find(const struct handle_table *table, enum handle_kind kind, uint64_t handle);
/* Two objects of one kind get each other's handles. */
void handle_exchange(struct handle_table *table, uint64_t one, uint64_t other);
/* owner: a number for the owner that is not reused. */
void handle_release(struct handle_table *table, uint64_t handle, uint32_t owner);
/* True if the handle was the last in its slot, of this kind, and of this owner. */
bool handle_was(const struct handle_table *table, enum handle_kind kind, uint64_t handle, uint32_t owner);
/* After a restart: the object has the handle again that it had. -EINVAL: it cannot be one, or the slot is taken, or is so far
 * beyond all others that there is no memory for it; -ENOMEM. */
int handle_restore(struct handle_table *table, enum handle_kind kind, void *object, uint64_t handle);
/* All objects have their handles again: those that are given from now on are above this generation, which no handle of
 * before exceeds. */
void handle_table_restored(struct handle_table *table, uint32_t highest);
/* The first object of a kind whose slot comes after that of `after` (0: from the start); NULL at the end. */
void *handle_next(const struct handle_table *table, enum handle_kind kind, uint64_t after, uint64_t *ret_handle);
/* The same of any kind. */
void *handle_next_any(const struct handle_table *table, uint64_t after, enum handle_kind *ret_kind, uint64_t *ret_handle);

#endif
