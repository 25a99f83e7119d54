#include "daemon/source/hugetlb-record.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/source/hugetlb-options.h"

#define NAME "hugetlb-record"
#define MAGIC UINT64_C(0x31676d6270616d64)

enum { HEAD_SIZE = 4096 };

enum doing { NOTHING, RAISING, LOWERING };

struct state {
        uint64_t raised[RECORD_PURPOSES];
        /* What is being done, or was when the daemon was killed: to the pool that had `from` pages, by up to `n`. */
        uint32_t doing, purpose;
        uint64_t from, n;
};

/* Of the two states the current one is never written to: the other one is, and is current from then on. */
struct head {
        uint64_t magic, page_size;
        struct state states[2];
        _Atomic uint32_t current;
};

struct record {
        struct keep *keep;
        struct hugepool pool;
        int fd;
        struct head *head; /* and the marks behind it */
        size_t size;
};

static struct state state_of(const struct record *record) {
        return record->head->states[atomic_load(&record->head->current) & 1];
}

static void change(struct record *record, const struct state *state) {
        uint32_t next = ~atomic_load(&record->head->current) & 1;

        record->head->states[next] = *state;
        atomic_store(&record->head->current, next); /* after the above also for whoever looks at it from outside */
}

/* The pool has so many pages now: what came of what was being done? */
static void settle(struct record *record, uint64_t total) {
        struct state state = state_of(record);
        uint64_t done = 0, *raised = &state.raised[state.purpose % RECORD_PURPOSES];

        if (state.doing == RAISING && total > state.from)
                done = total - state.from;
        if (state.doing == LOWERING && total < state.from)
                done = state.from - total;
        if (done > state.n)
                done = state.n;
        if (state.doing == RAISING)
                *raised += done;
        if (state.doing == LOWERING)
                *raised -= done < *raised ? done : *raised;
        state.doing = NOTHING;
        change(record, &state);
}

static int begin(struct record *record, enum doing doing, enum record_purpose purpose, uint64_t n) {
        struct state state = state_of(record);
        int r;

        r = hugepool_total(&record->pool, &state.from);
        if (r < 0)
                return r;
        state.doing = doing;
        state.purpose = purpose;
        state.n = n;
        change(record, &state);
        return 0;
}

static void finish(struct record *record, uint64_t raised, uint64_t lowered) {
        struct state state = state_of(record);
        uint64_t *number = &state.raised[state.purpose];

        *number += raised;
        *number -= lowered < *number ? lowered : *number;
        state.doing = NOTHING;
        change(record, &state);
}

uint64_t record_raised(const struct record *record, enum record_purpose purpose) {
        return state_of(record).raised[purpose];
}

int record_raise(struct record *record, enum record_purpose purpose, uint64_t n, int node, uint64_t *ret_got) {
        uint64_t got = 0;
        int r;

        r = begin(record, RAISING, purpose, n);
        if (r < 0)
                return r;
        r = hugepool_raise(&record->pool, n, node, &got);
        finish(record, r < 0 ? 0 : got, 0);
        if (r == 0)
                *ret_got = got;
        return r;
}

int record_lower(struct record *record, enum record_purpose purpose, uint64_t n) {
        const uint64_t raised = record_raised(record, purpose);
        int r;

        if (n > raised)
                n = raised;
        if (n == 0)
                return 0;
        r = begin(record, LOWERING, purpose, n);
        if (r < 0)
                return r;
        r = hugepool_lower(&record->pool, n);
        finish(record, 0, r < 0 ? 0 : n);
        return r;
}

unsigned char *record_marks(struct record *record) {
        return (unsigned char *)record->head + HEAD_SIZE;
}

/* ---- its file ---- */

static int map(struct record *record) {
        void *at = mmap(NULL, record->size, PROT_READ | PROT_WRITE, MAP_SHARED, record->fd, 0);

        if (at == MAP_FAILED)
                return -errno;
        /* What a keeper inherits it would never let go. */
        madvise(at, record->size, MADV_DONTFORK);
        record->head = at;
        return 0;
}

static int make_new(struct record *record) {
        int r;

        record->fd = memfd_create("dmabroker-record", MFD_CLOEXEC);
        if (record->fd < 0 || ftruncate(record->fd, (off_t)record->size) < 0)
                return -errno;
        r = map(record);
        if (r < 0)
                return r;
        record->head->magic = MAGIC;
        record->head->page_size = record->pool.page_size;
        r = keep_put(record->keep, NAME, record->fd);
        return r < 0 ? r : 0;
}

static int fail_page_size(uint64_t kept, uint64_t wanted, struct failure *failure) {
        char kept_text[32], wanted_text[32];

        hugetlb_size_text(kept, kept_text);
        hugetlb_size_text(wanted, wanted_text);
        return failure_set_errno(failure, REASON_busy, EBUSY,
                                 "huge pages of %s are kept from the daemon before, and page_size is %s now: start once with "
                                 "page_size = %s and end it with SIGTERM, or wait until they are not kept any longer",
                                 kept_text, wanted_text, kept_text);
}

/* The file may be larger than is needed now: the slots beyond are in use still, perhaps. */
static int open_old(struct record *record, struct failure *failure) {
        struct stat st;
        int r;

        if (fstat(record->fd, &st) < 0)
                return -errno;
        if (st.st_size < HEAD_SIZE)
                return -EIO;
        if ((uint64_t)st.st_size > record->size)
                record->size = (size_t)st.st_size;
        else if (ftruncate(record->fd, (off_t)record->size) < 0)
                return -errno;
        r = map(record);
        if (r < 0)
                return r;
        if (record->head->magic != MAGIC)
                return -EIO;
        if (record->head->page_size != record->pool.page_size)
                return fail_page_size(record->head->page_size, record->pool.page_size, failure);
        return 0;
}

static int open_file(struct record *record, bool *ret_is_old, struct failure *failure) {
        uint64_t total;
        int r;

        r = keep_take(record->keep, NAME, &record->fd);
        *ret_is_old = r == 0;
        if (r < 0)
                return make_new(record);
        r = open_old(record, failure);
        if (r == 0)
                r = hugepool_total(&record->pool, &total);
        if (r == 0)
                settle(record, total);
        return r;
}

struct record *record_close(struct record *record, bool drop) {
        if (!record)
                return NULL;
        if (record->head)
                munmap(record->head, record->size);
        if (drop)
                keep_drop(record->keep, NAME);
        if (record->fd >= 0)
                close(record->fd);
        free(record);
        return NULL;
}

int record_open(struct keep *keep, const struct hugepool *pool, size_t n_slots, struct record **ret, bool *ret_is_old,
                struct failure *failure) {
        struct record *record = calloc(1, sizeof(*record));
        int r;

        if (!record)
                return failure_set(failure, REASON_no_memory, "there is no memory to open source hugetlb");
        *record = (struct record){ .keep = keep, .pool = *pool, .fd = -1, .size = HEAD_SIZE + n_slots };
        failure->error = 0;
        r = open_file(record, ret_is_old, failure);
        if (r < 0) {
                /* What is held under this name is not this one. */
                record_close(record, false);
                return failure->error ? r
                                      : failure_set_errno(failure, REASON_source_unavailable, -r,
                                                          "the record of what source hugetlb has taken cannot be kept: %s",
                                                          strerror(-r));
        }
        *ret = record;
        return 0;
}
