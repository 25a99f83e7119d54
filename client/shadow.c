#include "client/shadow.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "client/error.h"
#include "client/memory.h"

#define PAGE ((uintptr_t)1 << MEMORY_PAGE_SHIFT)

void shadow_init(struct shadow *shadow, unsigned shift) {
        *shadow = (struct shadow){ .shift = shift, .mask = ((uintptr_t)1 << shift) - 1 };
}

static int no_memory(void) {
        return error_set(ENOMEM, "cannot reserve addresses for the states of a pool's blocks: %s", strerrordesc_np(errno));
}

/* Readable everywhere, since any address may be asked about; what is only read takes no memory. */
static int reserve(struct shadow *shadow, const struct memory *memory) {
        void *at = mmap(NULL, memory->size >> shadow->shift, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        if (at == MAP_FAILED)
                return no_memory();
        madvise(at, memory->size >> shadow->shift, MADV_NOHUGEPAGE);
        shadow->states = at;
        shadow->bias = (uintptr_t)at - (memory->start >> shadow->shift); /* the start is a multiple of 1 GiB */
        __atomic_store_n(&shadow->start, memory->start, __ATOMIC_RELAXED);
        __atomic_store_n(&shadow->size, memory->size, __ATOMIC_RELEASE);
        return 0;
}

int shadow_open(struct shadow *shadow, const struct memory *memory, uintptr_t start, uintptr_t end) {
        uintptr_t first, last;
        int r = shadow->size ? 0 : reserve(shadow, memory);

        if (r)
                return r;
        first = (uintptr_t)(shadow->states + ((start - shadow->start) >> shadow->shift)) & ~(PAGE - 1);
        last = (uintptr_t)(shadow->states + ((end - 1 - shadow->start) >> shadow->shift)) | (PAGE - 1);
        return mprotect((void *)first, last + 1 - first, PROT_READ | PROT_WRITE) ? no_memory() : 0;
}

void shadow_deinit(struct shadow *shadow) {
        if (shadow->states)
                munmap(shadow->states, shadow->size >> shadow->shift);
        shadow_init(shadow, shadow->shift);
}
