/* What is at an address: every region of a session is mapped inside one range of addresses that is reserved for it, so that
 * what a pointer belongs to is found with two loads and no lock, from any thread.
 *
 * A piece is what one page, or several, belong to. Pages of a region that no piece covers belong to nobody here. */
#ifndef DMAB_CLIENT_MEMORY_H
#define DMAB_CLIENT_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dmab_device;

enum { MEMORY_PAGE_SHIFT = 12, MEMORY_CHUNK_SHIFT = 21, MEMORY_CHUNK_PAGES = 1 << (MEMORY_CHUNK_SHIFT - MEMORY_PAGE_SHIFT) };

enum piece_kind {
        PIECE_COHERENT, /* of struct allocation, coherent.c */
        PIECE_SLAB,     /* of struct slab, lease.h: several leases may lie in it */
};

/* The first member of what it is about. It must stay readable as long as its session lives: a pointer that was freed is
 * looked up like any other. */
struct piece {
        enum piece_kind kind;
        struct dmab_device *device; /* NULL: ended */
        const void *of;             /* the pool of a slab; NULL: of none, or ended */
        uintptr_t start;            /* the CPU's address of its first byte */
        size_t size;
        uint64_t delta; /* dma address = CPU's address + delta, modulo 2^64 */
};

struct memory_chunk {
        struct piece *pages[MEMORY_CHUNK_PAGES]; /* atomic: read without a lock */
};

/* The range of a session. */
struct memory {
        uintptr_t start;
        size_t size;                  /* bytes; 0: nothing has been mapped yet */
        struct memory_chunk **chunks; /* atomic; size >> MEMORY_CHUNK_SHIFT of them, allocated when something is mapped there */
        void *reserved; /* the whole mapping, of which the range is an aligned part; NULL: it is not ours alone any more */
        unsigned long *taken;         /* bitmap of chunks; guarded by the session's lock, as are all changes */
};

/* The piece that vaddr lies in, or NULL. */
static inline struct piece *memory_find(const struct memory *memory, const void *vaddr) {
        size_t size = __atomic_load_n(&memory->size, __ATOMIC_ACQUIRE); /* first: the start is set before it */
        uintptr_t offset = (uintptr_t)vaddr - __atomic_load_n(&memory->start, __ATOMIC_RELAXED);
        struct memory_chunk *chunk;

        if (offset >= size)
                return NULL;
        chunk = __atomic_load_n(&memory->chunks[offset >> MEMORY_CHUNK_SHIFT], __ATOMIC_ACQUIRE);
        if (!chunk)
                return NULL;
        return __atomic_load_n(&chunk->pages[offset >> MEMORY_PAGE_SHIFT & (MEMORY_CHUNK_PAGES - 1)], __ATOMIC_ACQUIRE);
}

void memory_deinit(struct memory *memory);

/* Map size bytes of fd, from its start, inside the range; the first call reserves the range. *ret is aligned to a chunk, and
 * to page_size. -errno with a sentence. With the session's lock held. */
int memory_map(struct memory *memory, int fd, size_t size, size_t page_size, void **ret);
/* Nobody points into it any more. With the session's lock held. */
void memory_unmap(struct memory *memory, void *address, size_t size);
/* In the child of a fork, which has nothing there: the addresses are reserved again. Makes one system call. */
void memory_fill(struct memory *memory, void *address, size_t size);

/* Note or forget whose [piece->start, piece->start + piece->size) is; whole pages. What has been noted of another piece since is
 * not forgotten: the daemon gives memory anew that was taken by force, before its holder knows. With the session's lock
 * held. */
void memory_note(struct memory *memory, struct piece *piece);
void memory_forget(struct memory *memory, const struct piece *piece);

#endif
