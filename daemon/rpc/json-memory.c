#include "daemon/rpc/json-memory.h"

#include <jansson.h>
#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>

/* Enough for the parser's buffers of the longest message that is usual. Costs nothing while it is not touched. */
static alignas(max_align_t) char reserve[8 << 20];
static size_t used, n_taken; /* what was taken is given back as a whole: when nothing of it is in use */

void *json_memory_take(size_t size) {
        void *memory = malloc(size);

        if (memory || size > sizeof(reserve) - alignof(max_align_t))
                return memory;
        size = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
        if (size > sizeof(reserve) - used)
                return NULL;
        memory = reserve + used;
        used += size;
        n_taken++;
        return memory;
}

void json_memory_give(void *memory) {
        uintptr_t at = (uintptr_t)memory, start = (uintptr_t)reserve;

        if (at < start || at >= start + sizeof(reserve))
                free(memory);
        else if (--n_taken == 0)
                used = 0;
}

void json_memory_init(void) {
        json_set_alloc_funcs(json_memory_take, json_memory_give);
}
