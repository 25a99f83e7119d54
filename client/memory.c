#include "client/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "client/error.h"

#define CHUNK ((size_t)1 << MEMORY_CHUNK_SHIFT)
#define RANGE_ALIGN ((size_t)1 << 30)
#define PAGE ((size_t)1 << MEMORY_PAGE_SHIFT)
/* Addresses cost nothing; a machine's memory should fit. Where so many are not to be had, fewer must do. */
#define RANGE_MOST ((size_t)1 << 38)
#define RANGE_LEAST ((size_t)1 << 27)
#define WORD_BITS (8 * sizeof(unsigned long))

static int no_memory(void) {
        return error_set(ENOMEM, "there is not enough memory");
}

/* ---- the range ---- */

/* Aligned to the largest huge pages, which could not be mapped otherwise. */
static int range_reserve(struct memory *memory) {
        size_t size = RANGE_MOST;
        void *at = MAP_FAILED;
        uintptr_t start;

        for (; at == MAP_FAILED && size >= RANGE_LEAST; size /= 2)
                at = mmap(NULL, size + RANGE_ALIGN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED)
                return error_set(errno, "cannot reserve addresses for the broker's memory: %s", strerrordesc_np(errno));
        size *= 2; /* undoes the loop's last step */
        start = ((uintptr_t)at + RANGE_ALIGN - 1) & ~(RANGE_ALIGN - 1);
        memory->chunks = calloc(size >> MEMORY_CHUNK_SHIFT, sizeof(*memory->chunks));
        memory->taken = calloc((size >> MEMORY_CHUNK_SHIFT) / WORD_BITS, sizeof(*memory->taken));
        if (!memory->chunks || !memory->taken) {
                munmap(at, size + RANGE_ALIGN);
                free(memory->chunks);
                free(memory->taken);
                memory->chunks = NULL;
                memory->taken = NULL;
                return no_memory();
        }
        memory->reserved = at;
        __atomic_store_n(&memory->start, start, __ATOMIC_RELAXED);
        __atomic_store_n(&memory->size, size, __ATOMIC_RELEASE);
        return 0;
}

void memory_deinit(struct memory *memory) {
        if (!memory->size)
                return;
        if (memory->reserved)
                munmap(memory->reserved, memory->size + RANGE_ALIGN);
        for (size_t i = 0; i < memory->size >> MEMORY_CHUNK_SHIFT; i++)
                free(memory->chunks[i]);
        free(memory->chunks);
        free(memory->taken);
        *memory = (struct memory){ 0 };
}

/* ---- chunks ---- */

static bool is_taken(const struct memory *memory, size_t chunk) {
        return memory->taken[chunk / WORD_BITS] >> chunk % WORD_BITS & 1;
}

static void set_taken(struct memory *memory, size_t first, size_t n, bool taken) {
        for (size_t i = first; i < first + n; i++) {
                unsigned long bit = 1UL << i % WORD_BITS;

                if (taken)
                        memory->taken[i / WORD_BITS] |= bit;
                else
                        memory->taken[i / WORD_BITS] &= ~bit;
        }
}

/* First fit, at a multiple of `align` chunks. Mapping is rare, and the words of a bitmap are many chunks. */
static bool find_room(const struct memory *memory, size_t n, size_t align, size_t *ret_first) {
        size_t count = memory->size >> MEMORY_CHUNK_SHIFT, run = 0;

        for (size_t i = 0; i < count; i++) {
                if (i % WORD_BITS == 0 && memory->taken[i / WORD_BITS] == ~0UL) {
                        i += WORD_BITS - 1;
                        run = 0;
                        continue;
                }
                run = is_taken(memory, i) || (!run && i % align) ? 0 : run + 1;
                if (run == n) {
                        *ret_first = i + 1 - n;
                        return true;
                }
        }
        return false;
}

/* Chunks once made stay: a lookup may be reading them. */
static int make_chunks(struct memory *memory, size_t first, size_t n) {
        for (size_t i = first; i < first + n; i++) {
                struct memory_chunk *chunk;

                if (memory->chunks[i])
                        continue;
                chunk = calloc(1, sizeof(*chunk));
                if (!chunk)
                        return no_memory();
                __atomic_store_n(&memory->chunks[i], chunk, __ATOMIC_RELEASE);
        }
        return 0;
}

/* The addresses stay reserved, with nothing behind them. */
static int hide(void *address, size_t n_chunks) {
        return mmap(address, n_chunks * CHUNK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) ==
                               MAP_FAILED ? -errno : 0;
}

int memory_map(struct memory *memory, int fd, size_t size, size_t page_size, void **ret) {
        size_t n = (size + CHUNK - 1) >> MEMORY_CHUNK_SHIFT, align = page_size > CHUNK ? page_size / CHUNK : 1, first;
        void *at;
        int r = memory->size ? 0 : range_reserve(memory);

        if (r)
                return r;
        if (!find_room(memory, n, align, &first))
                return error_set(ENOMEM, "the %zu GiB of addresses that are reserved for the broker's memory are used up",
                                 memory->size >> 30);
        r = make_chunks(memory, first, n);
        if (r)
                return r;
        at = (void *)(memory->start + first * CHUNK);
        if (mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
                r = error_set(errno, "cannot map a region of %zu bytes: %s", size, strerrordesc_np(errno));
                hide(at, n);
                return r;
        }
        set_taken(memory, first, n, true);
        *ret = at;
        return 0;
}

void memory_unmap(struct memory *memory, void *address, size_t size) {
        size_t first = ((uintptr_t)address - memory->start) >> MEMORY_CHUNK_SHIFT;
        size_t n = (size + CHUNK - 1) >> MEMORY_CHUNK_SHIFT;

        /* A failure leaves the old memory mapped, and its addresses taken. */
        if (!hide(address, n))
                set_taken(memory, first, n, false);
}

/* Who was faster has the addresses for good: the range as a whole cannot go back then. */
void memory_fill(struct memory *memory, void *address, size_t size) {
        if (mmap(address, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0) != address)
                memory->reserved = NULL;
}

/* ---- pieces ---- */

static struct piece **page_at(const struct memory *memory, uintptr_t address) {
        size_t i = (address - memory->start) >> MEMORY_PAGE_SHIFT;

        return &memory->chunks[i / MEMORY_CHUNK_PAGES]->pages[i % MEMORY_CHUNK_PAGES];
}

void memory_note(struct memory *memory, struct piece *piece) {
        for (size_t at = 0; at < piece->size; at += PAGE)
                __atomic_store_n(page_at(memory, piece->start + at), piece, __ATOMIC_RELEASE);
}

void memory_forget(struct memory *memory, const struct piece *piece) {
        for (size_t at = 0; at < piece->size; at += PAGE) {
                struct piece **page = page_at(memory, piece->start + at);

                if (*page == piece)
                        __atomic_store_n(page, NULL, __ATOMIC_RELEASE);
        }
}
