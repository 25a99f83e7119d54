/* What a client of the daemon has, as far as it has been told, and its calls that are not answered: the memory of a test that
 * outlives the daemon. */
#ifndef DMAB_TEST_SURVIVE_MODEL_H
#define DMAB_TEST_SURVIVE_MODEL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/lib/client.h"

enum kind { DEVICE, RESERVED, ALLOC, POOL, BLOCKS, LEASE, BOUNCE, MAPPING, KINDS };

/* Where something lies: in a region's file. */
struct place {
        uint64_t region, offset, size, dma_addr;
};

struct object {
        struct object *prev, *next; /* in worker->objects */
        enum kind kind;
        uint64_t handle;        /* of blocks: 0 */
        struct object *parent;  /* the device, pool or bounce pool that it is of; NULL: it is a device */
        struct object *other;   /* of a mapping of memory: the allocation, which may be of another device */
        unsigned calls;         /* that concern it and are not answered */
        struct place *places;   /* one, or as many as there are blocks, or none */
        size_t n_places;
        uint64_t step;          /* bytes from one stamp to the next */
        uint64_t mask, coherent_mask, count;
        uint64_t seed;          /* of what is written in its memory, wherever that is */
        bool owner_lifetime, shareable, zero, orphaned;
        bool swapped;           /* out: it has no address */
        bool stamped;           /* its memory has been written */
        bool unsure;            /* the mask was set before the daemon died, or not, and cannot be set now */
        bool leaving;           /* it is being released */
        size_t n_leaving;       /* of its places, the last ones: likewise */
};

/* A region in this process's memory, while the worker has anything in it. */
struct mapped {
        struct mapped *prev, *next;
        uint64_t region, size;
        unsigned char *at;
};

enum purpose { TAKE, MOVE, SWAP, RELEASE, CHANGE, BYE };

struct call {
        struct call *prev, *next; /* in worker->calls */
        uint64_t id;
        enum purpose purpose;
        struct object *object; /* taken when it is answered; or released */
        struct object *old;    /* whose place it takes, of a move */
        size_t n_freed;        /* blocks, of the last ones; 0: the whole object */
        bool resent;           /* it may have been done already */
        char *line;
};

struct counts {
        unsigned long taken, moved, swapped, released, changed, refused, resent, done_before, sessions, vanished;
        unsigned long looked_at, stamps; /* objects that were there after a restart, and words of their memory */
};

struct worker {
        unsigned number;
        uint64_t random;
        unsigned uid; /* UINT_MAX: the test's own */
        char owner[32], session[64];
        const char *socket;
        struct test_client *client;
        struct object *objects;
        struct call *calls;
        struct mapped *regions;
        unsigned n_calls, n_objects;
        uint64_t last_id, last_key;
        struct counts *counts;
};

/* Ends the test with what went wrong, and with what the daemon wrote. */
void give_up(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

uint64_t worker_random(struct worker *worker, uint64_t n);
void worker_connect(struct worker *worker);
/* Send something random, if there is anything that it can do. */
void worker_act(struct worker *worker);
/* Read one answer. False: the daemon has gone. */
bool worker_read(struct worker *worker);
/* Read the answers that came before the daemon went. */
void worker_drain(struct worker *worker);
/* The connection is gone. */
void worker_lose(struct worker *worker);
/* Connect again, resume the session, repeat what was not answered, and wait for all answers. */
void worker_resume(struct worker *worker);
/* End the session, or the connection without a word, and begin another one. Nothing may be under way. */
void worker_bye(struct worker *worker);
void worker_vanish(struct worker *worker);
/* Memory that was written is as it was: through mappings from before, and through a descriptor that is asked for now. */
void worker_look(struct worker *worker);
void worker_free(struct worker *worker);

/* Ask and wait; other answers are dealt with meanwhile. The result; the caller's. */
json_t *worker_ask(struct worker *worker, const char *method, const char *params, ...)
        __attribute__((format(printf, 3, 4)));

uint64_t number_of(const json_t *object, const char *name);
uint64_t hex_of(const json_t *object, const char *name);
/* The same, or 0 of what has no address. */
uint64_t address_of(const json_t *object, const char *name);

#endif
