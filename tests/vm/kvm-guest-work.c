/* A guest that works: what it has is checked, how long the broker takes is measured. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "tests/vm/kvm-guest.h"

enum { SLOTS = 16, PIECE_MAX = 16384, PACE_MS = 4, BUCKETS = 240, PER_OCTAVE = 8 };

struct slot {
        unsigned char *memory; /* NULL: free */
        dmab_addr_t dma;
        size_t size;
        unsigned char byte;
};

static struct {
        pthread_mutex_t lock;
        pthread_cond_t changed;
        uint64_t ops, errors, bytes, worst_us;
        uint32_t histogram[BUCKETS]; /* of microseconds, eight to an octave */
        char error[200];
} work = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static uint64_t now_us(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static unsigned bucket_of(uint64_t us) {
        unsigned octave = us ? 63 - (unsigned)__builtin_clzll(us) : 0;
        unsigned bucket = octave < 3 ? (unsigned)us : octave * PER_OCTAVE + (unsigned)(us >> (octave - 3)) % PER_OCTAVE;

        return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

/* wrong: what is not as it should be, or NULL. */
static void account(uint64_t us, size_t bytes, const char *wrong, const char *why) {
        pthread_mutex_lock(&work.lock);
        work.ops++;
        work.bytes += bytes;
        work.histogram[bucket_of(us)]++;
        if (us > work.worst_us)
                work.worst_us = us;
        if (wrong && work.errors++ == 0)
                snprintf(work.error, sizeof(work.error), "%s: %s", wrong, why);
        pthread_cond_signal(&work.changed);
        pthread_mutex_unlock(&work.lock);
}

static size_t count_others(const unsigned char *memory, size_t size, unsigned char byte) {
        size_t n = 0;

        for (size_t at = 0; at < size; at++)
                n += memory[at] != byte;
        return n;
}

static void fill_slot(struct slot *slot, uint64_t random) {
        uint64_t began = now_us(), took;
        void *memory;
        int r;

        slot->size = 1 + random % PIECE_MAX;
        slot->byte = (unsigned char)(random >> 32 | 1);
        r = dmab_alloc_coherent(guest_device, slot->size, DMAB_ZERO | DMAB_WAIT, &memory, &slot->dma);
        took = now_us() - began;
        if (r < 0) {
                account(took, 0, "an allocation fails", dmab_last_error());
                return;
        }
        slot->memory = memory;
        account(took, slot->size, count_others(memory, slot->size, 0) ? "new memory" : NULL, "it is not zeroed");
        memset(slot->memory, slot->byte, slot->size);
}

static void empty_slot(struct slot *slot) {
        size_t others = count_others(slot->memory, slot->size, slot->byte);
        uint64_t began = now_us();
        int r = dmab_free_coherent(guest_device, slot->size, slot->memory, slot->dma);

        account(now_us() - began, slot->size, r < 0 ? "memory is not freed" : others ? "memory" : NULL,
                r < 0 ? dmab_last_error() : "somebody else has written to it");
        slot->memory = NULL;
}

static void *run(void *unused) {
        static struct slot slots[SLOTS];
        int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
        const struct timespec pace = { .tv_nsec = PACE_MS * 1000000 };
        uint64_t random = now_us() | 1, ticks;

        timerfd_settime(timer, 0, &(struct itimerspec){ .it_value = pace, .it_interval = pace }, NULL);
        while (read(timer, &ticks, sizeof(ticks)) == sizeof(ticks)) {
                struct slot *slot;

                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                slot = &slots[random % SLOTS];
                if (slot->memory)
                        empty_slot(slot);
                else
                        fill_slot(slot, random);
        }
        return NULL;
}

void work_begin(void) {
        pthread_t thread;

        guest_say_result(-pthread_create(&thread, NULL, run, NULL));
}

void work_report(uint64_t least) {
        char text[4096];
        int n;

        pthread_mutex_lock(&work.lock);
        least += work.ops;
        while (work.ops < least && !work.errors)
                pthread_cond_wait(&work.changed, &work.lock);
        n = snprintf(text, sizeof(text), "{\"ops\":%" PRIu64 ",\"errors\":%" PRIu64 ",\"bytes\":%" PRIu64
                     ",\"worst_us\":%" PRIu64 ",\"histogram\":[", work.ops, work.errors, work.bytes, work.worst_us);
        for (unsigned i = 0; i < BUCKETS && n < (int)sizeof(text) - 32; i++)
                if (work.histogram[i])
                        n += snprintf(text + n, sizeof(text) - (size_t)n, "%s[%u,%u]", text[n - 1] == '[' ? "" : ",", i,
                                      work.histogram[i]);
        guest_say("ok %s]} %s", text, work.error);
        work.ops = work.errors = work.bytes = work.worst_us = 0;
        memset(work.histogram, 0, sizeof(work.histogram));
        pthread_mutex_unlock(&work.lock);
}
