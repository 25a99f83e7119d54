#include "client/tracking.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "client/error.h"

/* A mapping is listed under every piece of this size that it touches, so that overlaps are found. */
enum { PIECE_SHIFT = 16, N_LISTS = 1024 };

struct mapping;

struct place {
        LIST_ENTRY(place) entry;
        struct mapping *mapping;
        uintptr_t piece;
};
LIST_HEAD(places, place);

struct mapping {
        TAILQ_ENTRY(mapping) entry;
        struct tracked what;
        size_t n_places;
        struct place places[];
};

struct tracking {
        pthread_mutex_t lock;
        size_t n;
        TAILQ_HEAD(, mapping) mappings; /* the oldest first */
        struct places lists[N_LISTS];
};

struct tracking *tracking_new(void) {
        struct tracking *tracking = calloc(1, sizeof(*tracking));

        if (!tracking)
                return NULL;
        pthread_mutex_init(&tracking->lock, NULL);
        TAILQ_INIT(&tracking->mappings);
        return tracking;
}

void tracking_free(struct tracking *tracking) {
        struct mapping *mapping;

        if (!tracking)
                return;
        while ((mapping = TAILQ_FIRST(&tracking->mappings))) {
                TAILQ_REMOVE(&tracking->mappings, mapping, entry);
                free(mapping);
        }
        pthread_mutex_destroy(&tracking->lock);
        free(tracking);
}

static uintptr_t first_piece(const struct tracked *mapping) {
        return (uintptr_t)mapping->buf >> PIECE_SHIFT;
}

static uintptr_t last_piece(const struct tracked *mapping) {
        return ((uintptr_t)mapping->buf + (mapping->size - 1)) >> PIECE_SHIFT;
}

static bool overlap(const struct tracked *a, const struct tracked *b) {
        uintptr_t a_first = (uintptr_t)a->buf, b_first = (uintptr_t)b->buf;

        return a_first <= b_first + (b->size - 1) && b_first <= a_first + (a->size - 1);
}

/* Two that the device only reads may overlap, as in the kernel. */
static const struct mapping *find_conflict(const struct tracking *tracking, const struct tracked *mapping) {
        const struct place *place;

        for (uintptr_t piece = first_piece(mapping); piece <= last_piece(mapping); piece++)
                LIST_FOREACH(place, &tracking->lists[piece % N_LISTS], entry)
                        if (place->piece == piece && overlap(&place->mapping->what, mapping) &&
                            (mapping->direction != DMAB_TO_DEVICE || place->mapping->what.direction != DMAB_TO_DEVICE))
                                return place->mapping;
        return NULL;
}

int tracking_add(struct tracking *tracking, const struct tracked *what, struct tracked *ret) {
        size_t n = last_piece(what) - first_piece(what) + 1;
        struct mapping *mapping = malloc(sizeof(*mapping) + n * sizeof(mapping->places[0]));
        const struct mapping *conflict;

        if (!mapping)
                return error_set(ENOMEM, "there is not enough memory");
        mapping->what = *what;
        mapping->n_places = n;
        pthread_mutex_lock(&tracking->lock);
        conflict = find_conflict(tracking, what);
        if (conflict) {
                *ret = conflict->what;
                pthread_mutex_unlock(&tracking->lock);
                free(mapping);
                return -EEXIST;
        }
        for (size_t i = 0; i < n; i++) {
                struct place *place = &mapping->places[i];

                place->mapping = mapping;
                place->piece = first_piece(what) + i;
                LIST_INSERT_HEAD(&tracking->lists[place->piece % N_LISTS], place, entry);
        }
        TAILQ_INSERT_TAIL(&tracking->mappings, mapping, entry);
        tracking->n++;
        pthread_mutex_unlock(&tracking->lock);
        return 0;
}

static unsigned likeness(const struct tracked *a, const struct tracked *b) {
        return (a->size == b->size) + (a->direction == b->direction) + (a->pieces == b->pieces);
}

int tracking_remove(struct tracking *tracking, const struct tracked *what, struct tracked *ret) {
        struct mapping *best = NULL;
        struct place *place;
        int r = -ENOENT;

        pthread_mutex_lock(&tracking->lock);
        LIST_FOREACH(place, &tracking->lists[first_piece(what) % N_LISTS], entry) {
                const struct tracked *other = &place->mapping->what;

                if (other->buf == what->buf && other->dma == what->dma && place == &place->mapping->places[0] &&
                    (!best || likeness(other, what) > likeness(&best->what, what)))
                        best = place->mapping;
        }
        if (best) {
                *ret = best->what;
                r = likeness(&best->what, what) == 3 ? 0 : -EINVAL;
        }
        if (!r) {
                for (size_t i = 0; i < best->n_places; i++)
                        LIST_REMOVE(&best->places[i], entry);
                TAILQ_REMOVE(&tracking->mappings, best, entry);
                tracking->n--;
                free(best);
        }
        pthread_mutex_unlock(&tracking->lock);
        return r;
}

static bool has(const struct tracked *mapping, const void *buf, size_t size, dmab_addr_t dma) {
        uint64_t offset = dma - mapping->dma;

        return mapping->dma <= dma && offset < mapping->size && size <= mapping->size - offset &&
               (uintptr_t)buf - (uintptr_t)mapping->buf == offset;
}

bool tracking_find(struct tracking *tracking, const void *buf, size_t size, dmab_addr_t dma, uint32_t pieces,
                   struct tracked *ret) {
        struct tracked asked = { .buf = buf, .size = size };
        struct place *place;
        bool found = false;

        pthread_mutex_lock(&tracking->lock);
        LIST_FOREACH(place, &tracking->lists[first_piece(&asked) % N_LISTS], entry) {
                const struct tracked *other = &place->mapping->what;

                if (!has(other, buf, size, dma) || (found && other->pieces != pieces))
                        continue;
                *ret = *other;
                found = true;
                if (other->pieces == pieces)
                        break;
        }
        pthread_mutex_unlock(&tracking->lock);
        return found;
}

size_t tracking_count(struct tracking *tracking, struct tracked *ret_oldest) {
        const struct mapping *oldest;
        size_t n;

        pthread_mutex_lock(&tracking->lock);
        n = tracking->n;
        oldest = TAILQ_FIRST(&tracking->mappings);
        if (oldest)
                *ret_oldest = oldest->what;
        pthread_mutex_unlock(&tracking->lock);
        return n;
}
