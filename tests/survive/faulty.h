/* What the test and the library in the daemon tell each other, in a page of memory that both have mapped. */
#ifndef DMAB_TESTS_SURVIVE_FAULTY_H
#define DMAB_TESTS_SURVIVE_FAULTY_H

#include <stdatomic.h>
#include <stdint.h>

/* The environment variable that names the file of the page. */
#define FAULTY_PAGE "FAULTY_PAGE"

/* What can be made to fail. */
enum faulty_kind {
        FAULTY_NONE,
        FAULTY_MEMORY,   /* an allocation has no memory */
        FAULTY_TRANSFER, /* reading or writing takes one byte only */
        FAULTY_CLOSE,    /* close() closes, and says that it failed */
        FAULTY_CALL,     /* a system call fails: not the library's work, but that of inject.h */
};

enum faulty_function { FAULTY_MALLOC, FAULTY_CALLOC, FAULTY_REALLOC, FAULTY_MEMALIGN, FAULTY_READ, FAULTY_PREAD, FAULTY_WRITE,
                       FAULTY_PWRITE, FAULTY_SENDMSG, FAULTY_RECVMSG, FAULTY_CLOSING, FAULTY_FUNCTIONS };

#define FAULTY_NAMES                                                                                                 \
        { "malloc", "calloc", "realloc", "memalign", "read: short", "pread: short", "write: short", "pwrite: short", \
          "sendmsg: short", "recvmsg: short", "close: EIO" }

struct faulty {
        _Atomic uint32_t ready;  /* the library is there */
        _Atomic uint32_t kind;   /* enum faulty_kind: of what the next ones are counted */
        _Atomic int64_t until;   /* so many more, and it fails */
        _Atomic int32_t hit;     /* the function that failed; -1: none has */
        _Atomic int64_t passed;  /* of that kind since it was armed */
        _Atomic int64_t live;    /* blocks of the heap */
        _Atomic uint64_t calls[FAULTY_FUNCTIONS], failed[FAULTY_FUNCTIONS];
};

/* Whether this call is the one that fails. */
static inline int faulty_fails(struct faulty *page, enum faulty_kind kind) {
        if (atomic_load_explicit(&page->kind, memory_order_relaxed) != (uint32_t)kind)
                return 0;
        atomic_fetch_add_explicit(&page->passed, 1, memory_order_relaxed);
        return atomic_fetch_sub(&page->until, 1) == 1;
}

#endif
