#include "tests/survive/model.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <utlist.h>

#define PAGE UINT64_C(4096)

enum { OBJECTS_MAX = 48, DEVICES_MAX = 4, CALLS_MAX = 8, BLOCKS_MAX = 16 };

static const char *const kind_names[KINDS] = {
        [DEVICE] = "device", [RESERVED] = "region", [ALLOC] = "alloc",   [POOL] = "pool",
        [BLOCKS] = "blocks", [LEASE] = "lease",     [BOUNCE] = "bounce", [MAPPING] = "mapping",
};

uint64_t worker_random(struct worker *worker, uint64_t n) {
        worker->random ^= worker->random << 13;
        worker->random ^= worker->random >> 7;
        worker->random ^= worker->random << 17;
        return (worker->random * UINT64_C(0x2545f4914f6cdd1d) >> 16) % n;
}

uint64_t number_of(const json_t *object, const char *name) {
        const json_t *value = json_object_get(object, name);

        if (!json_is_integer(value))
                give_up("there is no number `%s` in an answer", name);
        return (uint64_t)json_integer_value(value);
}

uint64_t hex_of(const json_t *object, const char *name) {
        const char *text = json_string_value(json_object_get(object, name));

        if (!text)
                give_up("there is no address `%s` in an answer", name);
        return strtoull(text, NULL, 16);
}

uint64_t address_of(const json_t *object, const char *name) {
        const char *addressing = json_string_value(json_object_get(object, "addressing"));

        return addressing && strcmp(addressing, "none") == 0 ? 0 : hex_of(object, name);
}

static uint64_t number_or(const json_t *object, const char *name, uint64_t otherwise) {
        return json_object_get(object, name) ? number_of(object, name) : otherwise;
}

/* ---- objects ---- */

static bool is_under(const struct object *object, const struct object *above) {
        return object->parent == above || object->other == above;
}

static void object_free(struct object *object) {
        free(object->places);
        free(object);
}

/* With all that is of it. */
static void object_remove(struct worker *worker, struct object *object) {
        struct object *under;
        bool any = true;

        while (any) {
                any = false;
                DL_FOREACH(worker->objects, under)
                        if (is_under(under, object)) {
                                object_remove(worker, under);
                                any = true;
                                break;
                        }
        }
        DL_DELETE(worker->objects, object);
        worker->n_objects--;
        object_free(object);
}

static bool has_any(const struct worker *worker, const struct object *object) {
        const struct object *under;

        DL_FOREACH(worker->objects, under)
                if (is_under(under, object))
                        return true;
        return false;
}

static bool is_idle(const struct worker *worker, const struct object *object) {
        const struct object *under;

        if (object->calls || object->leaving)
                return false;
        DL_FOREACH(worker->objects, under)
                if (is_under(under, object) && !is_idle(worker, under))
                        return false;
        return true;
}

static void set_leaving(struct worker *worker, struct object *object, bool leaving) {
        struct object *under;

        object->leaving = leaving;
        object->n_leaving = leaving ? object->n_places : 0;
        DL_FOREACH(worker->objects, under)
                if (is_under(under, object))
                        set_leaving(worker, under, leaving);
}

/* Some object of this kind for which something can be asked, or NULL. */
static struct object *pick(struct worker *worker, enum kind kind, bool idle) {
        struct object *object, *found = NULL;
        unsigned n = 0;

        DL_FOREACH(worker->objects, object)
                if (object->kind == kind && !object->leaving && (idle ? is_idle(worker, object) : !object->orphaned) &&
                    worker_random(worker, ++n) == 0)
                        found = object;
        return found;
}

static unsigned count(const struct worker *worker, enum kind kind) {
        const struct object *object;
        unsigned n = 0;

        DL_FOREACH(worker->objects, object)
                n += object->kind == kind && !object->orphaned;
        return n;
}

/* ---- memory ---- */

/* Whoever still maps a region keeps its pages from going back. */
static bool is_used(const struct worker *worker, uint64_t region) {
        const struct object *object;
        size_t i;

        DL_FOREACH(worker->objects, object)
                for (i = 0; i < object->n_places - object->n_leaving; i++)
                        if (object->places[i].region == region)
                                return true;
        return false;
}

static void unmap_unused(struct worker *worker) {
        struct mapped *mapped, *next;

        DL_FOREACH_SAFE(worker->regions, mapped, next) {
                if (is_used(worker, mapped->region))
                        continue;
                munmap(mapped->at, mapped->size);
                DL_DELETE(worker->regions, mapped);
                free(mapped);
        }
}

static unsigned char *map_fd(int fd, uint64_t size) {
        unsigned char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

        close(fd);
        if (at == MAP_FAILED)
                give_up("a region of %" PRIu64 " bytes cannot be mapped: %s", size, strerror(errno));
        return at;
}

static unsigned char *map_anew(struct worker *worker, uint64_t region, uint64_t *ret_size) {
        json_t *result = worker_ask(worker, "region.get", "{\"region\":%" PRIu64 "}", region);
        int fd = test_client_take_fd(worker->client);

        if (number_of(result, "fds") != 1 || fd < 0)
                give_up("region %" PRIu64 " comes without a descriptor", region);
        *ret_size = number_of(result, "size");
        json_decref(result);
        return map_fd(fd, *ret_size);
}

static unsigned char *map(struct worker *worker, uint64_t region) {
        struct mapped *mapped;
        uint64_t size;

        DL_FOREACH(worker->regions, mapped)
                if (mapped->region == region)
                        return mapped->at;
        mapped = calloc(1, sizeof(*mapped));
        mapped->region = region;
        mapped->at = map_anew(worker, region, &size);
        mapped->size = size;
        DL_APPEND(worker->regions, mapped);
        return mapped->at;
}

static uint64_t stamp(const struct object *object, size_t place, uint64_t at) {
        return (object->seed + ((uint64_t)place << 32) + at) * UINT64_C(0x9e3779b97f4a7c15) | 1;
}

static void object_stamp(struct worker *worker, struct object *object) {
        const struct place *place;
        unsigned char *memory;
        uint64_t at, word;
        size_t i;

        object->stamped = true;
        for (i = 0; i < object->n_places && object->step; i++) {
                place = &object->places[i];
                memory = map(worker, place->region) + place->offset;
                for (at = 0; at + sizeof(word) <= place->size; at += object->step) {
                        memcpy(&word, memory + at, sizeof(word));
                        if (object->zero && word)
                                give_up("%s: memory that was to be zero is not, at 0x%" PRIx64, worker->owner,
                                        place->dma_addr + at);
                        word = stamp(object, i, at);
                        memcpy(memory + at, &word, sizeof(word));
                }
        }
}

static void stamp_all(struct worker *worker) {
        struct object *object;
        bool any = true;

        /* Answers that come meanwhile change the list. */
        while (any) {
                any = false;
                DL_FOREACH(worker->objects, object)
                        if (!object->stamped && !object->leaving) {
                                object_stamp(worker, object);
                                any = true;
                                break;
                        }
        }
}

static void place_look(struct worker *worker, const struct object *object, size_t i, const unsigned char *memory) {
        const struct place *place = &object->places[i];
        uint64_t at, word;

        for (at = 0; at + sizeof(word) <= place->size; at += object->step) {
                memcpy(&word, memory + place->offset + at, sizeof(word));
                if (word != stamp(object, i, at))
                        give_up("%s: %s %" PRIu64 " is not as it was written, at 0x%" PRIx64, worker->owner,
                                kind_names[object->kind], object->handle, place->dma_addr + at);
                worker->counts->stamps++;
        }
}

static void look_through(struct worker *worker, uint64_t region, const unsigned char *memory) {
        const struct object *object;
        size_t i;

        DL_FOREACH(worker->objects, object)
                for (i = 0; i < object->n_places && object->step && object->stamped; i++)
                        if (object->places[i].region == region)
                                place_look(worker, object, i, memory);
}

void worker_look(struct worker *worker) {
        struct mapped *mapped, *again = NULL;
        const struct object *object;
        unsigned char *memory;
        unsigned n = 0;
        uint64_t size;
        size_t i;

        DL_FOREACH(worker->objects, object)
                for (i = 0; i < object->n_places && object->step && object->stamped; i++)
                        map(worker, object->places[i].region);
        DL_FOREACH(worker->objects, object)
                worker->counts->looked_at++;
        DL_FOREACH(worker->regions, mapped) {
                look_through(worker, mapped->region, mapped->at);
                if (worker_random(worker, ++n) == 0)
                        again = mapped;
        }
        if (!again)
                return;
        memory = map_anew(worker, again->region, &size);
        if (size != again->size)
                give_up("%s: region %" PRIu64 " has another size", worker->owner, again->region);
        look_through(worker, again->region, memory);
        munmap(memory, size);
}

/* ---- calls ---- */

static void call_free(struct worker *worker, struct call *call) {
        DL_DELETE(worker->calls, call);
        worker->n_calls--;
        free(call->line);
        free(call);
}

static bool send_line(struct worker *worker, const char *line) {
        return test_client_send_text(worker->client, line) == 0;
}

/* params: a JSON object without its closing brace. */
static void call_send(struct worker *worker, enum purpose purpose, struct object *object, size_t n_freed,
                      const char *method, const char *params) {
        struct call *call = calloc(1, sizeof(*call));

        call->id = ++worker->last_id;
        call->purpose = purpose;
        call->object = object;
        call->n_freed = n_freed;
        if (asprintf(&call->line, "{\"jsonrpc\":\"2.0\",\"id\":%" PRIu64 ",\"method\":\"%s\",\"params\":%s}}\n", call->id,
                     method, params) < 0)
                give_up("there is no memory");
        DL_APPEND(worker->calls, call);
        worker->n_calls++;
        if (!send_line(worker, call->line))
                give_up("%s: the daemon has hung up", worker->owner);
}

/* ---- taking ---- */

static void take(struct worker *worker, struct object *like, const char *method, const char *format, ...)
        __attribute__((format(printf, 4, 5)));

static void take(struct worker *worker, struct object *like, const char *method, const char *format, ...) {
        struct object *object = malloc(sizeof(*object));
        char params[512];
        va_list arguments;
        size_t n;

        *object = *like;
        object->seed = worker_random(worker, UINT64_C(1) << 40);
        if (object->parent)
                object->parent->calls++;
        if (object->other)
                object->other->calls++;
        va_start(arguments, format);
        n = (size_t)vsnprintf(params, sizeof(params), format, arguments);
        va_end(arguments);
        snprintf(params + n, sizeof(params) - n, ",\"request_key\":\"%u-%" PRIu64 "\"", worker->number, ++worker->last_key);
        call_send(worker, TAKE, object, 0, method, params);
}

static const char *some_mask(struct worker *worker) {
        return worker_random(worker, 3) ? "0xffffffffffffffff" : "0xffffffff";
}

static uint64_t some_size(struct worker *worker) {
        return 1 + worker_random(worker, PAGE << worker_random(worker, 11));
}

static unsigned some_wait(struct worker *worker) {
        return worker_random(worker, 4) ? 0 : 20;
}

static void take_device(struct worker *worker) {
        static const char *const names[] = { "nic", "disk", "gpu" };

        if (count(worker, DEVICE) < DEVICES_MAX)
                take(worker, &(struct object){ .kind = DEVICE }, "device.open", "{\"name\":\"%s\",\"mask\":\"%s\"",
                     names[worker_random(worker, 3)], some_mask(worker));
}

static void take_reserve(struct worker *worker, struct object *device) {
        if (count(worker, RESERVED) == 0)
                take(worker, &(struct object){ .kind = RESERVED, .parent = device }, "device.reserve",
                     "{\"device\":%" PRIu64 ",\"size\":%" PRIu64, device->handle, 65536 + worker_random(worker, 1 << 20));
}

static void take_alloc(struct worker *worker, struct object *device) {
        struct object like = {
                .kind = ALLOC, .parent = device, .step = PAGE, .zero = worker_random(worker, 2),
                .shareable = worker_random(worker, 2), .owner_lifetime = worker_random(worker, 4) == 0,
        };

        take(worker, &like, "coherent.alloc", "{\"device\":%" PRIu64 ",\"size\":%" PRIu64 ",\"zero\":%s,\"shareable\":%s,"
             "\"lifetime\":\"%s\",\"wait_ms\":%u,\"fd\":%s", device->handle, some_size(worker), like.zero ? "true" : "false",
             like.shareable ? "true" : "false", like.owner_lifetime ? "owner" : "session", some_wait(worker),
             worker_random(worker, 2) ? "true" : "false");
}

static void take_pool(struct worker *worker, struct object *device) {
        if (count(worker, POOL) < 4)
                take(worker, &(struct object){ .kind = POOL, .parent = device }, "pool.create",
                     "{\"device\":%" PRIu64 ",\"name\":\"pool\",\"size\":%" PRIu64 ",\"reserve\":%" PRIu64 ",\"max_blocks\":%"
                     PRIu64, device->handle, 64 + worker_random(worker, 8000), worker_random(worker, 20),
                     20 + worker_random(worker, 200));
}

static void take_bounce(struct worker *worker, struct object *device) {
        uint64_t size = 65536 + worker_random(worker, 1 << 18);

        if (count(worker, BOUNCE) < 3)
                take(worker, &(struct object){ .kind = BOUNCE, .parent = device }, "bounce.create",
                     "{\"device\":%" PRIu64 ",\"size\":%" PRIu64 ",\"max_size\":%" PRIu64, device->handle, size,
                     worker_random(worker, 2) ? size : 3 * size);
}

/* Blocks are freed by their addresses: when it is not known whether that was done, it must not concern others. */
static bool frees_blocks(const struct worker *worker, const struct object *pool) {
        const struct object *object;

        DL_FOREACH(worker->objects, object)
                if (object->kind == BLOCKS && object->parent == pool && object->leaving)
                        return true;
        return false;
}

static void take_of_pool(struct worker *worker, struct object *pool) {
        struct object like = { .parent = pool, .step = PAGE };

        if (frees_blocks(worker, pool))
                return;
        if (worker_random(worker, 2)) {
                like.kind = BLOCKS;
                take(worker, &like, "pool.alloc", "{\"pool\":%" PRIu64 ",\"count\":%" PRIu64 ",\"wait_ms\":%u", pool->handle,
                     1 + worker_random(worker, BLOCKS_MAX), some_wait(worker));
        } else {
                like.kind = LEASE;
                take(worker, &like, "pool.lease", "{\"pool\":%" PRIu64 ",\"count\":%" PRIu64 ",\"wait_ms\":%u", pool->handle,
                     1 + worker_random(worker, 64), some_wait(worker));
        }
}

static void take_of_bounce(struct worker *worker, struct object *bounce) {
        static const char *const directions[] = { "to_device", "from_device", "bidirectional" };
        struct object like = { .parent = bounce, .step = PAGE };

        if (worker_random(worker, 2)) {
                like.kind = MAPPING;
                take(worker, &like, "bounce.map",
                     "{\"bounce\":%" PRIu64 ",\"size\":%" PRIu64 ",\"direction\":\"%s\",\"wait_ms\":%u", bounce->handle,
                     1 + worker_random(worker, 32768), directions[worker_random(worker, 3)], some_wait(worker));
        } else {
                like.kind = LEASE;
                take(worker, &like, "bounce.lease", "{\"bounce\":%" PRIu64 ",\"slots\":%" PRIu64 ",\"wait_ms\":%u",
                     bounce->handle, 1 + worker_random(worker, 16), some_wait(worker));
        }
}

static void take_mapping(struct worker *worker, struct object *device, struct object *alloc) {
        if (alloc->orphaned || alloc->swapped || (alloc->parent != device && !alloc->shareable))
                return;
        take(worker, &(struct object){ .kind = MAPPING, .parent = device, .other = alloc }, "mapping.map",
             "{\"device\":%" PRIu64 ",\"alloc\":%" PRIu64 ",\"direction\":\"bidirectional\"", device->handle, alloc->handle);
}

/* A new one on another device takes the place of the old one, with all that is in it. */
static void move_alloc(struct worker *worker, struct object *device, struct object *old) {
        struct object *object;
        char params[256];

        if (!is_idle(worker, old) || has_any(worker, old) || old->orphaned || !old->stamped)
                return;
        object = malloc(sizeof(*object));
        *object = (struct object){
                .kind = ALLOC, .parent = device, .step = PAGE, .shareable = old->shareable, .stamped = true, .seed = old->seed,
                .owner_lifetime = old->owner_lifetime,
        };
        device->calls++;
        old->calls++;
        set_leaving(worker, old, true);
        unmap_unused(worker);
        snprintf(params, sizeof(params), "{\"alloc\":%" PRIu64 ",\"device\":%" PRIu64 ",\"wait_ms\":%u,\"request_key\":\"%u-%"
                 PRIu64 "\"", old->handle, device->handle, some_wait(worker), worker->number, ++worker->last_key);
        call_send(worker, MOVE, object, 0, "coherent.move", params);
        worker->calls->prev->old = old;
}

/* Out to ordinary memory, or in again. */
static void swap_alloc(struct worker *worker, struct object *alloc) {
        char params[128];

        if (!is_idle(worker, alloc) || has_any(worker, alloc) || alloc->orphaned || !alloc->stamped)
                return;
        alloc->calls++;
        set_leaving(worker, alloc, true);
        unmap_unused(worker);
        if (alloc->swapped)
                snprintf(params, sizeof(params), "{\"alloc\":%" PRIu64 ",\"wait_ms\":%u", alloc->handle, some_wait(worker));
        else
                snprintf(params, sizeof(params), "{\"alloc\":%" PRIu64, alloc->handle);
        call_send(worker, SWAP, alloc, 0, alloc->swapped ? "coherent.swap_in" : "coherent.swap_out", params);
}

static void take_something(struct worker *worker) {
        struct object *device = pick(worker, DEVICE, false), *alloc = pick(worker, ALLOC, false);
        struct object *pool = pick(worker, POOL, false), *bounce = pick(worker, BOUNCE, false);
        uint64_t what = worker_random(worker, 20);

        if (!device || what == 0)
                take_device(worker);
        else if (what == 1 && worker_random(worker, 3) == 0)
                take_reserve(worker, device);
        else if (what < 3)
                take_pool(worker, device);
        else if (what < 5)
                take_bounce(worker, device);
        else if (what < 9 && pool)
                take_of_pool(worker, pool);
        else if (what < 13 && bounce)
                take_of_bounce(worker, bounce);
        else if (what < 15 && alloc)
                take_mapping(worker, device, alloc);
        else if (what < 16 && alloc && worker_random(worker, 2))
                move_alloc(worker, device, alloc);
        else if (what < 16 && alloc)
                swap_alloc(worker, alloc);
        else
                take_alloc(worker, device);
}

/* ---- releasing and changing ---- */

static void release(struct worker *worker, struct object *object, const char *method, const char *format, ...)
        __attribute__((format(printf, 4, 5)));

static void release(struct worker *worker, struct object *object, const char *method, const char *format, ...) {
        char params[512];
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(params, sizeof(params), format, arguments);
        va_end(arguments);
        set_leaving(worker, object, true);
        object->calls++;
        unmap_unused(worker);
        call_send(worker, RELEASE, object, 0, method, params);
}

/* Some of them, or all. */
static void release_blocks(struct worker *worker, struct object *blocks) {
        size_t n = 1 + worker_random(worker, blocks->n_places), i, used;
        char params[1024];

        used = (size_t)snprintf(params, sizeof(params), "{\"pool\":%" PRIu64 ",\"dma_addrs\":[", blocks->parent->handle);
        for (i = blocks->n_places - n; i < blocks->n_places; i++)
                used += (size_t)snprintf(params + used, sizeof(params) - used, "%s\"0x%" PRIx64 "\"",
                                         i > blocks->n_places - n ? "," : "", blocks->places[i].dma_addr);
        snprintf(params + used, sizeof(params) - used, "]");
        blocks->calls++;
        blocks->leaving = true;
        blocks->n_leaving = n;
        unmap_unused(worker);
        call_send(worker, RELEASE, blocks, n < blocks->n_places ? n : 0, "pool.free", params);
}

static void release_object(struct worker *worker, struct object *object) {
        const char *force = has_any(worker, object) ? "true" : "false";
        const uint64_t handle = object->handle;

        switch (object->kind) {
        case DEVICE:
                release(worker, object, "device.close", "{\"device\":%" PRIu64 ",\"force\":true", handle);
                break;
        case RESERVED:
                release(worker, object, "device.unreserve", "{\"device\":%" PRIu64 ",\"region\":%" PRIu64,
                        object->parent->handle, handle);
                break;
        case ALLOC:
                release(worker, object, "coherent.free", "{\"alloc\":%" PRIu64, handle);
                break;
        case POOL:
                release(worker, object, "pool.destroy", "{\"pool\":%" PRIu64 ",\"force\":%s", handle, force);
                break;
        case BOUNCE:
                release(worker, object, "bounce.destroy", "{\"bounce\":%" PRIu64 ",\"force\":%s", handle, force);
                break;
        case LEASE:
                release(worker, object, object->parent->kind == POOL ? "pool.return" : "bounce.return", "{\"lease\":%" PRIu64,
                        handle);
                break;
        case MAPPING:
                release(worker, object, object->other ? "mapping.unmap" : "bounce.unmap", "{\"mapping\":%" PRIu64, handle);
                break;
        case BLOCKS:
                release_blocks(worker, object);
                break;
        case KINDS:
                break;
        }
}

static void release_something(struct worker *worker) {
        static const enum kind kinds[] = { ALLOC, ALLOC, ALLOC, BLOCKS, BLOCKS, LEASE, LEASE, MAPPING, MAPPING, RESERVED };
        static const enum kind large[] = { DEVICE, POOL, BOUNCE };
        bool is_large = worker_random(worker, 12) == 0;
        enum kind kind = is_large ? large[worker_random(worker, 3)]
                                  : kinds[worker_random(worker, sizeof(kinds) / sizeof(*kinds))];
        struct object *object = pick(worker, kind, true);

        /* What is mapped is not freed; a device that nobody has ends by itself. */
        if (!object || (kind == ALLOC && has_any(worker, object)) || (kind == DEVICE && object->orphaned) ||
            (kind == RESERVED && object->parent->orphaned) || (kind == BLOCKS && object->parent->calls))
                return;
        release_object(worker, object);
}

static void change_something(struct worker *worker) {
        struct object *device = pick(worker, DEVICE, false), *pool = pick(worker, POOL, false);
        char params[128];

        if (pool && worker_random(worker, 2)) {
                snprintf(params, sizeof(params), "{\"pool\":%" PRIu64, pool->handle);
                pool->calls++;
                call_send(worker, CHANGE, pool, 0, "pool.trim", params);
        } else if (device && !device->calls) {
                snprintf(params, sizeof(params), "{\"device\":%" PRIu64 ",\"mask\":\"%s\"", device->handle, some_mask(worker));
                device->calls++;
                call_send(worker, CHANGE, device, 0, "device.set_mask", params);
        }
}

static bool says_bye(const struct worker *worker) {
        return worker->calls && worker->calls->purpose == BYE;
}

static void hello(struct worker *worker) {
        json_t *result = worker_ask(worker, "broker.hello", "{}");

        snprintf(worker->session, sizeof(worker->session), "%s", json_string_value(json_object_get(result, "session")));
        snprintf(worker->owner, sizeof(worker->owner), "%s", json_string_value(json_object_get(result, "owner")));
        json_decref(result);
        worker->counts->sessions++;
}

void worker_act(struct worker *worker) {
        uint64_t what = worker_random(worker, 20);

        if (says_bye(worker) || worker->n_calls >= CALLS_MAX)
                return;
        if (!*worker->session)
                hello(worker);
        stamp_all(worker);
        if (what == 0)
                change_something(worker);
        else if (what < 8 || worker->n_objects > OBJECTS_MAX)
                release_something(worker);
        else
                take_something(worker);
}

/* ---- answers ---- */

static void places_set(struct object *object, size_t n) {
        object->places = calloc(n, sizeof(*object->places));
        object->n_places = n;
}

static void place_read(struct place *place, const json_t *result, const char *addr, uint64_t size) {
        *place = (struct place){
                .region = number_of(result, "region"), .offset = number_of(result, "offset"), .size = size,
                .dma_addr = address_of(result, addr),
        };
}

static void blocks_read(struct object *object, const json_t *result) {
        const json_t *blocks = json_object_get(result, "blocks");
        size_t i;

        places_set(object, json_array_size(blocks));
        for (i = 0; i < object->n_places; i++)
                place_read(&object->places[i], json_array_get(blocks, i), "dma_addr", number_of(result, "block_size"));
}

static void object_read(struct object *object, const json_t *result) {
        object->handle = object->kind == BLOCKS ? 0 : number_of(result, kind_names[object->kind]);
        switch (object->kind) {
        case DEVICE:
                object->mask = hex_of(result, "mask");
                object->coherent_mask = hex_of(result, "coherent_mask");
                break;
        case ALLOC:
        case MAPPING:
                places_set(object, 1);
                place_read(object->places, result, object->other ? "iova" : "dma_addr", number_of(result, "size"));
                break;
        case BLOCKS:
                blocks_read(object, result);
                break;
        case LEASE:
                object->count = number_or(result, "count", 0) + number_or(result, "slots", 0);
                places_set(object, 1);
                place_read(object->places, result, "dma_addr",
                           object->count * (number_or(result, "block_size", 0) + number_or(result, "slot_size", 0)));
                break;
        default:
                break;
        }
}

static void let_go(struct object *object) {
        if (object->parent)
                object->parent->calls--;
        if (object->other)
                object->other->calls--;
}

static bool is_one_of(const char *reason, const char *const *reasons) {
        for (; *reasons; reasons++)
                if (strcmp(reason, *reasons) == 0)
                        return true;
        return false;
}

static void unexpected(const struct worker *worker, const struct call *call, const json_t *error) {
        give_up("%s was refused%s, %s: %s", worker->owner, call->resent ? " again" : "", json_dumps(error, JSON_COMPACT),
                call->line);
}

static const char *reason_of(const json_t *error) {
        return json_string_value(json_object_get(json_object_get(error, "data"), "reason"));
}

static void taken(struct worker *worker, struct call *call, const json_t *result, const json_t *error) {
        static const char *const expected[] = { "no_memory", "no_contiguous", "quota", "would_block", "timeout", "limit", "mask",
                                                "boundary", NULL };
        struct object *object = call->object;

        let_go(object);
        if (result) {
                object_read(object, result);
                DL_APPEND(worker->objects, object);
                worker->n_objects++;
                worker->counts->taken++;
                return;
        }
        if (!is_one_of(reason_of(error), expected))
                unexpected(worker, call, error);
        object_free(object);
        worker->counts->refused++;
}

static void moved(struct worker *worker, struct call *call, const json_t *result, const json_t *error) {
        static const char *const expected[] = { "no_memory", "no_contiguous", "quota", "would_block", "timeout", "limit", "mask",
                                                "boundary", NULL };
        struct object *object = call->object, *old = call->old;

        object->parent->calls--;
        old->calls--;
        if (result) {
                object_read(object, result);
                DL_APPEND(worker->objects, object);
                worker->n_objects++;
                object_remove(worker, old);
                worker->counts->moved++;
                return;
        }
        if (!is_one_of(reason_of(error), expected))
                unexpected(worker, call, error);
        set_leaving(worker, old, false);
        object_free(object);
        worker->counts->refused++;
}

static void swapped(struct worker *worker, struct call *call, const json_t *result, const json_t *error) {
        static const char *const expected[] = { "no_memory", "no_contiguous", "quota", "would_block", "timeout", "mask", NULL };
        struct object *alloc = call->object;

        alloc->calls--;
        if (result) {
                alloc->swapped = !json_object_get(result, "dma_addr");
                place_read(alloc->places, result, "dma_addr", number_of(result, "size"));
                worker->counts->swapped++;
        } else {
                if (!is_one_of(reason_of(error), expected))
                        unexpected(worker, call, error);
                worker->counts->refused++;
        }
        set_leaving(worker, alloc, false);
}

/* A device that no session has ends with its last allocation. */
static void orphan_forget(struct worker *worker, struct object *device) {
        const struct object *object;

        if (!device || !device->orphaned)
                return;
        DL_FOREACH(worker->objects, object)
                if (object->kind == ALLOC && object->parent == device)
                        return;
        object_remove(worker, device);
}

static void released(struct worker *worker, struct call *call, const json_t *result, const json_t *error) {
        static const char *const done[] = { "double_free", "unknown_handle", "bad_address", NULL };
        struct object *object = call->object, *device = object->kind == ALLOC ? object->parent : NULL;

        object->calls--;
        if (!result && object->kind == RESERVED && strcmp(reason_of(error), "busy") == 0) {
                set_leaving(worker, object, false);
                worker->counts->refused++;
                return;
        }
        if (!result && !(call->resent && is_one_of(reason_of(error), done)))
                unexpected(worker, call, error);
        worker->counts->done_before += !result;
        worker->counts->released++;
        if (call->n_freed) {
                object->n_places -= call->n_freed;
                object->n_leaving = 0;
                object->leaving = false;
        } else {
                object_remove(worker, object);
                orphan_forget(worker, device);
        }
}

static void changed(struct worker *worker, struct call *call, const json_t *result, const json_t *error) {
        static const char *const expected[] = { "mask", NULL };
        struct object *object = call->object;

        object->calls--;
        if (!result && !is_one_of(reason_of(error), expected))
                unexpected(worker, call, error);
        if (result && object->kind == DEVICE) {
                object->mask = hex_of(result, "mask");
                object->coherent_mask = hex_of(result, "coherent_mask");
                object->unsure = false;
        }
        object->unsure |= !result && call->resent;
        worker->counts->changed++;
}

/* What the session leaves behind is what its owner has for longer. */
static bool stays(const struct worker *worker, const struct object *object) {
        const struct object *alloc;

        if (object->kind == ALLOC)
                return object->owner_lifetime || object->orphaned;
        if (object->kind == RESERVED)
                return stays(worker, object->parent);
        if (object->kind != DEVICE)
                return false;
        DL_FOREACH(worker->objects, alloc)
                if (alloc->kind == ALLOC && alloc->parent == object && stays(worker, alloc))
                        return true;
        return false;
}

static void mark_session(struct worker *worker, bool leaving) {
        struct object *object;

        DL_FOREACH(worker->objects, object)
                if (!stays(worker, object)) {
                        object->leaving = leaving;
                        object->n_leaving = leaving ? object->n_places : 0;
                }
        unmap_unused(worker);
}

static void session_ended(struct worker *worker) {
        struct object *object;
        bool any = true;

        while (any) {
                any = false;
                DL_FOREACH(worker->objects, object)
                        if (!stays(worker, object)) {
                                object_remove(worker, object);
                                any = true;
                                break;
                        }
        }
        DL_FOREACH(worker->objects, object)
                object->orphaned = true;
        *worker->session = '\0';
}

static void on_answer(struct worker *worker, struct call *call, const json_t *answer) {
        const json_t *result = json_object_get(answer, "result"), *error = json_object_get(answer, "error");
        int fd;

        if (!result && !reason_of(error))
                give_up("%s: no result and no reason for %s", worker->owner, call->line);
        /* Regions are mapped when they are needed. */
        if (result && json_object_get(result, "fds")) {
                fd = test_client_take_fd(worker->client);
                if (fd < 0)
                        give_up("%s: no descriptor with %s", worker->owner, call->line);
                close(fd);
        }
        switch (call->purpose) {
        case TAKE:
                taken(worker, call, result, error);
                break;
        case MOVE:
                moved(worker, call, result, error);
                break;
        case SWAP:
                swapped(worker, call, result, error);
                break;
        case RELEASE:
                released(worker, call, result, error);
                break;
        case CHANGE:
                changed(worker, call, result, error);
                break;
        case BYE:
                if (!result)
                        unexpected(worker, call, error);
                session_ended(worker);
                break;
        }
        call_free(worker, call);
}

/* The answer to this id if it is no call's; else NULL, and it has been dealt with. */
static json_t *deal_with(struct worker *worker, const char *line) {
        json_t *answer = json_loads(line, 0, NULL);
        uint64_t id = json_is_object(answer) && json_object_get(answer, "id") ? number_of(answer, "id") : 0;
        struct call *call;

        if (!answer)
                give_up("%s: this is no JSON: %s", worker->owner, line);
        DL_FOREACH(worker->calls, call)
                if (call->id == id)
                        break;
        if (!call)
                return answer;
        on_answer(worker, call, answer);
        json_decref(answer);
        return NULL;
}

bool worker_read(struct worker *worker) {
        const char *line;
        json_t *answer;
        int r;

        r = test_client_read_line(worker->client, &line);
        if (r == -ENODATA || r == -ECONNRESET)
                return false;
        if (r < 0)
                give_up("%s: no answer: %s", worker->owner, strerror(-r));
        answer = deal_with(worker, line);
        if (answer)
                give_up("%s: an answer that nobody has asked for: %s", worker->owner, line);
        return true;
}

void worker_drain(struct worker *worker) {
        while (worker->n_calls && worker_read(worker))
                ;
}

static json_t *ask_anything(struct worker *worker, const char *method, const char *params) {
        uint64_t id = ++worker->last_id;
        json_t *answer = NULL;
        const char *read;
        char *line;
        int r;

        if (asprintf(&line, "{\"jsonrpc\":\"2.0\",\"id\":%" PRIu64 ",\"method\":\"%s\",\"params\":%s}\n", id, method, params) < 0)
                give_up("there is no memory");
        if (!send_line(worker, line))
                give_up("%s: the daemon has hung up before %s", worker->owner, line);
        free(line);
        while (!answer) {
                r = test_client_read_line(worker->client, &read);
                if (r < 0)
                        give_up("%s: no answer to %s: %s", worker->owner, method, strerror(-r));
                answer = deal_with(worker, read);
        }
        if (number_of(answer, "id") != id)
                give_up("%s: an answer that nobody has asked for", worker->owner);
        return answer;
}

json_t *worker_ask(struct worker *worker, const char *method, const char *format, ...) {
        json_t *answer, *result;
        char params[512];
        va_list arguments;
        char *text;

        va_start(arguments, format);
        vsnprintf(params, sizeof(params), format, arguments);
        va_end(arguments);
        answer = ask_anything(worker, method, params);
        result = json_object_get(answer, "result");
        if (!result) {
                text = json_dumps(answer, JSON_COMPACT);
                give_up("%s: %s %s: %s", worker->owner, method, params, text);
        }
        json_incref(result);
        json_decref(answer);
        return result;
}

/* ---- connections and sessions ---- */

void worker_connect(struct worker *worker) {
        const struct test_identity as = { .uid = worker->uid, .gid = worker->uid };
        int r;

        r = test_client_connect(worker->socket, worker->uid == UINT_MAX ? NULL : &as, &worker->client);
        if (r < 0)
                give_up("%s cannot connect: %s", worker->owner, strerror(-r));
}

void worker_lose(struct worker *worker) {
        test_client_close(worker->client);
        worker->client = NULL;
}

/* False: it has ended. */
static bool resume_session(struct worker *worker) {
        char params[128];
        json_t *answer;
        bool resumed;

        snprintf(params, sizeof(params), "{\"session\":\"%s\"}", worker->session);
        answer = ask_anything(worker, "broker.hello", params);
        resumed = json_object_get(answer, "result");
        json_decref(answer);
        return resumed;
}

void worker_resume(struct worker *worker) {
        struct call *call;

        worker_connect(worker);
        if (*worker->session && !resume_session(worker)) {
                if (!says_bye(worker))
                        give_up("%s: the session is gone", worker->owner);
                session_ended(worker);
                call_free(worker, worker->calls);
        }
        DL_FOREACH(worker->calls, call) {
                call->resent = true;
                worker->counts->resent++;
                if (!send_line(worker, call->line))
                        give_up("%s: the daemon has hung up", worker->owner);
        }
        while (worker->n_calls)
                if (!worker_read(worker))
                        give_up("%s: the daemon has gone by itself", worker->owner);
        if (!*worker->session)
                hello(worker);
}

void worker_bye(struct worker *worker) {
        mark_session(worker, true);
        call_send(worker, BYE, NULL, 0, "broker.bye", "{");
}

/* The daemon may learn of the end of the connection before the session is resumed, or after. */
void worker_vanish(struct worker *worker) {
        mark_session(worker, true);
        worker_lose(worker);
        worker_connect(worker);
        if (resume_session(worker)) {
                mark_session(worker, false);
                return;
        }
        session_ended(worker);
        worker->counts->vanished++;
        hello(worker);
}

void worker_free(struct worker *worker) {
        struct object *object, *next;

        worker_lose(worker);
        while (worker->calls) {
                if (worker->calls->purpose == TAKE || worker->calls->purpose == MOVE)
                        object_free(worker->calls->object);
                call_free(worker, worker->calls);
        }
        DL_FOREACH_SAFE(worker->objects, object, next) {
                DL_DELETE(worker->objects, object);
                object_free(object);
        }
        unmap_unused(worker);
}
