/* Trays: what is known of allocations lies in trays of many, without what malloc() would add to each. A tray that is empty
 * goes back. */
#include <stdlib.h>

#include "daemon/core/objects.h"

#ifndef __has_feature
#define __has_feature(feature) 0
#endif

enum { TRAY_ALLOCS = 100 };

struct tray {
        struct tray *prev, *next; /* in broker->trays, while it has room */
        struct alloc *unused;     /* by next */
        uint32_t n_used, n_touched;
        struct alloc allocs[TRAY_ALLOCS];
};

#if __has_feature(address_sanitizer) || defined(__SANITIZE_ADDRESS__)
/* Which sees what malloc() and free() know of. */
struct alloc *tray_take(struct broker *broker) {
        return calloc(1, sizeof(struct alloc));
}

void tray_put(struct broker *broker, struct alloc *alloc) {
        free(alloc);
}
#else
static struct tray *tray_with_room(struct broker *broker) {
        struct tray *tray = broker->trays;

        if (tray)
                return tray;
        tray = malloc(sizeof(*tray));
        if (!tray)
                return NULL;
        tray->unused = NULL;
        tray->n_used = tray->n_touched = 0;
        DL_PREPEND(broker->trays, tray);
        return tray;
}

struct alloc *tray_take(struct broker *broker) {
        struct tray *tray = tray_with_room(broker);
        struct alloc *alloc;

        if (!tray)
                return NULL;
        alloc = tray->unused;
        if (alloc)
                tray->unused = alloc->next;
        else
                alloc = &tray->allocs[tray->n_touched++];
        if (++tray->n_used == TRAY_ALLOCS)
                DL_DELETE(broker->trays, tray);
        *alloc = (struct alloc){ .place = (uint8_t)(alloc - tray->allocs) };
        return alloc;
}

void tray_put(struct broker *broker, struct alloc *alloc) {
        struct tray *tray = (struct tray *)((char *)(alloc - alloc->place) - offsetof(struct tray, allocs));

        alloc->next = tray->unused;
        tray->unused = alloc;
        if (tray->n_used-- == TRAY_ALLOCS)
                DL_PREPEND(broker->trays, tray);
        /* The last one with room stays for whoever comes next. */
        if (tray->n_used || (tray == broker->trays && !tray->next))
                return;
        DL_DELETE(broker->trays, tray);
        free(tray);
}
#endif
