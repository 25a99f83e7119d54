#include "daemon/rpc/method.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/log.h"
#include "daemon/rpc/error.h"
#include "daemon/rpc/session.h"

/* A failure's values and what is added to them here. */
_Static_assert(FAILURE_VALUES_MAX + 2 <= RPC_ERROR_VALUES_MAX, "an error cannot hold a failure's values");

#define HANDLER(group, verb) [METHOD_##group##_##verb] = method_##group##_##verb

const rpc_handler_fn method_handlers[METHOD_COUNT] = {
        HANDLER(broker, hello),     HANDLER(broker, ping),      HANDLER(broker, bye),       HANDLER(broker, status),
        [METHOD_rpc_discover] = rpc_discover,
        HANDLER(device, list),      HANDLER(device, get),       HANDLER(device, open),      HANDLER(device, set_mask),
        HANDLER(device, supported), HANDLER(device, close),     HANDLER(device, reserve),   HANDLER(device, unreserve),
        HANDLER(coherent, alloc),   HANDLER(coherent, free),    HANDLER(coherent, move),    HANDLER(coherent, swap_out),
        HANDLER(coherent, swap_in), HANDLER(coherent, list),    HANDLER(coherent, lookup),
        HANDLER(pool, create),      HANDLER(pool, alloc),       HANDLER(pool, free),        HANDLER(pool, lease),
        HANDLER(pool, return),      HANDLER(pool, destroy),     HANDLER(pool, trim),        HANDLER(pool, list),
        HANDLER(pool, stats),
        HANDLER(bounce, create),    HANDLER(bounce, map),       HANDLER(bounce, unmap),     HANDLER(bounce, sync),
        HANDLER(bounce, lease),     HANDLER(bounce, return),    HANDLER(bounce, destroy),   HANDLER(bounce, stats),
        HANDLER(bounce, list),
        HANDLER(mapping, map),      HANDLER(mapping, unmap),    HANDLER(mapping, list),
        HANDLER(lease, list),
        HANDLER(region, list),      HANDLER(region, get),
        HANDLER(memory, release),
        HANDLER(quarantine, list),  HANDLER(quarantine, release),
        HANDLER(guest, list),       HANDLER(guest, get),
        HANDLER(guest, attach),     HANDLER(guest, detach),
        HANDLER(guest, set_quota),  HANDLER(guest, evict),
        HANDLER(guest, exchange),
        HANDLER(window, list),      HANDLER(window, bind),
        HANDLER(grant, list),       HANDLER(grant, map),        HANDLER(grant, unmap),      HANDLER(grant, share),
        HANDLER(quota, get),        HANDLER(quota, set),
        HANDLER(stats, get),        HANDLER(stats, reset),
        HANDLER(events, subscribe), HANDLER(events, unsubscribe),
        HANDLER(debug, check),
};

struct connection *method_connection(const struct rpc_call *call) {
        return rpc_call_peer(call)->userdata;
}

bool method_caller(struct rpc_call *call, struct caller *ret) {
        struct connection *connection = method_connection(call);
        struct failure failure = { 0 };

        ret->admin = connection->identity.admin;
        if (session_need(connection, &ret->session, &failure) == 0)
                return true;
        error_answer(call, &failure);
        return false;
}

bool method_is_admin(const struct rpc_call *call) {
        return method_connection(call)->identity.admin;
}

bool method_tells_machine(const struct rpc_call *call) {
        return rpc_call_peer(call)->role >= SCHEMA_ROLE_LOCAL;
}

void method_log_admin(const struct rpc_call *call, const char *owner, const char *what, uint64_t handle) {
        const struct connection *connection = method_connection(call);
        const char *method = rpc_call_method(call)->name;
        char pid[24], number[32] = "";
        const struct log_field fields[] = {
                { "MESSAGE_ID", LOG_ID_ADMIN },
                { "DMABROKER_METHOD", method },
                { "DMABROKER_ADMIN", connection->identity.owner },
                { "DMABROKER_OWNER", owner },
                { "OBJECT_PID", pid },
                { NULL, NULL },
        };

        snprintf(pid, sizeof(pid), "%ld", (long)connection->identity.pid);
        if (handle)
                snprintf(number, sizeof(number), " %llu", (unsigned long long)handle);
        log_fields(LOG_LEVEL_INFO, fields, "administrator %s (pid %s): %s on %s%s of %s", connection->identity.owner, pid,
                   method, what, number, owner);
}

void method_note_other(const struct caller *caller, const char *owner, struct method_other *ret) {
        bool own = strcmp(owner, session_owner(caller->session)) == 0;

        snprintf(ret->owner, sizeof(ret->owner), "%s", own ? "" : owner);
}

void method_log_other(const struct rpc_call *call, const struct method_other *other, const char *what, uint64_t handle) {
        if (*other->owner)
                method_log_admin(call, other->owner, what, handle);
}

int method_wait_ms(const struct caller *caller, uint64_t device, bool given, uint64_t wait_ms, uint64_t *ret,
                   struct failure *failure) {
        struct device_view view;
        int r;

        *ret = wait_ms;
        if (given)
                return 0;
        r = device_get(caller, device, &view, failure);
        if (r == 0)
                *ret = view.timeout_ms;
        return r;
}

int method_dup_region(const struct caller *caller, uint64_t region, int *ret_fd, struct failure *failure) {
        int r, fd;

        r = region_fd(caller, region, &fd, failure);
        if (r < 0)
                return r;
        fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                return failure_set_errno(failure, REASON_limit, errno, "The daemon has no file descriptor left: %s",
                                         strerror(errno));
        *ret_fd = fd;
        return 0;
}

bool method_refuse_empty_mask(struct rpc_call *call, const char *name, bool given, uint64_t mask) {
        struct failure failure = { 0 };

        if (!given || mask)
                return false;
        failure_set(&failure, REASON_mask, "The mask 0x0 reaches no memory at all; the smallest is 0xfff");
        failure_add_text(&failure, "param", name);
        failure_add_hex(&failure, "asked", mask);
        error_answer(call, &failure);
        return true;
}

/* ---- digests ---- */

static uint64_t mix(uint64_t hash, const void *bytes, size_t size) {
        for (const unsigned char *at = bytes; size; at++, size--)
                hash = (hash ^ *at) * UINT64_C(0x100000001b3);
        return hash;
}

static uint64_t mix_number(uint64_t hash, uint64_t number) {
        return mix(hash, &number, sizeof(number));
}

/* Of the types that methods with a key have: numbers, texts and words, and lists of these. */
static uint64_t mix_value(uint64_t hash, const struct schema_field *field, const void *value) {
        switch (field->type) {
        case SCHEMA_BOOL:
                return mix_number(hash, *(const bool *)value);
        case SCHEMA_ENUM:
                return mix_number(hash, (uint64_t)*(const int *)value);
        case SCHEMA_STRING:
                return mix(hash, *(const char *const *)value, strlen(*(const char *const *)value) + 1);
        default:
                return mix_number(hash, *(const uint64_t *)value);
        }
}

static uint64_t mix_field(uint64_t hash, const struct schema_field *field, const void *value) {
        const SCHEMA_LIST(char) *list = value;

        if (!field->array)
                return mix_value(hash, field, value);
        hash = mix_number(hash, list->count);
        for (size_t i = 0; i < list->count; i++)
                hash = mix_value(hash, field, list->items + i * schema_item_size(field));
        return hash;
}

/* Whether a call with another value of it asks for something else. */
static bool is_asked_for(const struct schema_method *method, const struct schema_field *field) {
        if (strcmp(field->name, "wait_ms") == 0)
                return method->id == METHOD_device_open; /* the device's, not the call's */
        return strcmp(field->name, "request_key") != 0;
}

uint64_t method_digest(const struct schema_method *method, const void *params) {
        uint64_t hash = mix(UINT64_C(0xcbf29ce484222325), method->name, strlen(method->name) + 1);
        uint64_t present = *(const uint64_t *)params;

        for (size_t i = 0; i < method->params->n_fields; i++) {
                const struct schema_field *field = &method->params->fields[i];

                if (!(present & (UINT64_C(1) << (field->offset / 8))) || !is_asked_for(method, field))
                        continue;
                hash = mix(hash, field->name, strlen(field->name) + 1);
                hash = mix_field(hash, field, (const char *)params + field->offset);
        }
        return hash;
}

/* ---- lists ---- */

void *method_list_add(struct method_list *list) {
        size_t capacity = list->capacity ? 2 * list->capacity : 16;
        void *items;

        if (list->count == list->limit) {
                list->more = true;
                return NULL;
        }
        if (list->count == list->capacity) {
                items = reallocarray(list->items, capacity, list->size);
                if (!items) {
                        list->no_memory = true;
                        return NULL;
                }
                list->items = items;
                list->capacity = capacity;
        }
        items = (char *)list->items + list->count++ * list->size;
        return memset(items, 0, list->size);
}

bool method_list_failed(struct method_list *list, struct rpc_call *call) {
        if (!list->no_memory)
                return false;
        free(list->items);
        rpc_call_fail_format(call, REASON_no_memory, "The daemon has no memory for this list; ask for less at a time");
        return true;
}

static uint64_t handle_at(const void *element, size_t at) {
        uint64_t handle;

        memcpy(&handle, (const char *)element + at, sizeof(handle));
        return handle;
}

static int by_handle(const void *one, const void *other, void *at) {
        uint64_t a = handle_at(one, *(const size_t *)at), b = handle_at(other, *(const size_t *)at);

        return a < b ? -1 : a > b;
}

void method_list_page(struct method_list *list, size_t at, uint64_t after, size_t limit) {
        char *items = list->items;
        size_t start = 0;

        if (!list->count)
                return;
        qsort_r(items, list->count, list->size, by_handle, &at);
        while (start < list->count && handle_at(items + start * list->size, at) <= after)
                start++;
        list->count -= start;
        memmove(items, items + start * list->size, list->count * list->size);
        list->more = list->count > limit;
        if (list->more)
                list->count = limit;
}

void method_refuse_busy(struct rpc_call *call, const struct failure *failure, const char *name,
                        const struct schema_struct *sub, const struct method_list *list) {
        struct rpc_error error;

        error_of_failure(failure, &error);
        if (failure->reason == REASON_busy) {
                error.values[error.n_values++] = (struct rpc_error_value){
                        .name = name, .kind = RPC_VALUE_LIST, .sub = sub, .items = list->items, .count = list->count,
                };
                if (list->more)
                        error.values[error.n_values++] = (struct rpc_error_value){
                                .name = "more", .kind = RPC_VALUE_RAW, .text = "true",
                        };
        }
        rpc_call_fail(call, &error);
}

bool method_listing_init(struct method_listing *listing, struct rpc_call *call, const struct list_params *params,
                         size_t item_size) {
        *listing = (struct method_listing){
                .list = { .size = item_size, .limit = PROTOCOL_LIST_DEFAULT },
                .machine = method_tells_machine(call),
        };
        if (params && schema_has(params, device))
                listing->device = params->device;
        if (params && schema_has(params, owner))
                listing->owner = params->owner;
        if (params && schema_has(params, after))
                listing->after = params->after;
        if (params && schema_has(params, limit))
                listing->list.limit = params->limit;
        return method_caller(call, &listing->caller);
}

bool method_listing_good(struct method_listing *listing, struct rpc_call *call, int r, const struct failure *failure) {
        if (r == 0)
                return !method_list_failed(&listing->list, call);
        free(listing->list.items);
        error_answer(call, failure);
        return false;
}
