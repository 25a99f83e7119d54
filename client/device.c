#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/any.h"
#include "client/error.h"
#include "client/params.h"
#include "client/pool.h"
#include "client/result.h"
#include "client/session.h"
#include "client/streaming.h"
#include "proto/schema.h"

enum { WAIT_MS_DEFAULT = 10000 };

static int no_memory(void) {
        return error_set(ENOMEM, "there is not enough memory");
}

static void device_free(struct dmab_device *device) {
        free(device->name);
        free(device->translation);
        free(device->via);
        free(device);
}

void device_forget(struct dmab_device *device) {
        pthread_mutex_lock(&device->dmab->lock);
        *device->pprev = device->next;
        if (device->next)
                device->next->pprev = device->pprev;
        pthread_mutex_unlock(&device->dmab->lock);
        any_forget(device);
        streaming_free(device);
        device_free(device);
}

/* ---- opening ---- */

static int add(json_t *params, const char *name, json_t *value) {
        return json_object_set_new(params, name, value) ? -ENOMEM : 0;
}

static int add_hex(json_t *params, const char *name, uint64_t value) {
        char text[24];

        if (!value)
                return 0;
        snprintf(text, sizeof(text), "0x%llx", (unsigned long long)value);
        return add(params, name, json_string(text));
}

static int add_uint(json_t *params, const char *name, uint64_t value) {
        if (value > SCHEMA_INTEGER_MAX)
                return error_set(EINVAL, "%s is larger than anything: %llu bytes", name, (unsigned long long)value);
        return value && add(params, name, json_integer(value)) ? no_memory() : 0;
}

static int open_params(struct dmab *dmab, const char *name, const struct dmab_device_options *options, char **ret) {
        char key[LINK_KEY_SIZE];
        json_t *params = json_object();
        char *text = NULL;
        int r;

        link_make_key(dmab->link, key);
        if (!params)
                r = no_memory();
        else if (add(params, "name", json_string(name)))
                r = error_set(EINVAL, "the name of a device must be UTF-8");
        else if (options->parent && add(params, "parent", json_string(options->parent)))
                r = error_set(EINVAL, "the name of the parent must be UTF-8");
        else if (add_hex(params, "mask", options->mask) || add_hex(params, "coherent_mask", options->coherent_mask) ||
                 add_hex(params, "min_align_mask", options->min_align_mask) ||
                 (options->node >= 0 && add(params, "node", json_integer(options->node))) ||
                 add(params, "wait_ms", json_integer(options->timeout_ms)) ||
                 add(params, "request_key", json_string(key)))
                r = no_memory();
        else
                r = add_uint(params, "boundary", options->boundary);
        if (!r)
                r = add_uint(params, "max_segment", options->max_segment);
        if (!r) {
                text = json_dumps(params, JSON_COMPACT);
                r = text ? 0 : no_memory();
        }
        json_decref(params);
        if (!r)
                *ret = text;
        return r;
}

/* What it can address, as the daemon knows it. */
static int take_limits(json_t *result, struct dmab_device *device) {
        int r = result_hex(result, "mask", &device->mask);

        if (!r && json_object_get(result, "boundary"))
                r = result_uint(result, "boundary", &device->boundary);
        if (!r && json_object_get(result, "max_segment"))
                r = result_uint(result, "max_segment", &device->max_segment);
        if (!r && json_object_get(result, "min_align_mask"))
                r = result_hex(result, "min_align_mask", &device->min_align_mask);
        return r;
}

static int device_new(struct dmab *dmab, const char *name, const struct dmab_device_options *options, json_t *result,
                      struct dmab_device **ret) {
        struct dmab_device *device = calloc(1, sizeof(*device));
        int r;

        if (!device)
                return no_memory();
        device->dmab = dmab;
        device->wait_ms = options->timeout_ms;
        device->name = strdup(name);
        r = device->name ? result_uint(result, "device", &device->handle) : no_memory();
        if (!r)
                r = result_string(result, "translation", &device->translation);
        if (!r)
                r = result_string(result, "via", &device->via);
        if (!r)
                r = take_limits(result, device);
        if (!r)
                r = streaming_new(device);
        if (r) {
                device_free(device);
                return r;
        }
        *ret = device;
        return 0;
}

int dmab_device_open(dmab_t *dmab, const char *name, const struct dmab_device_options *options, dmab_device_t **ret) {
        struct dmab_device_options known = DMAB_DEVICE_OPTIONS_INIT;
        struct link_reply reply = { 0 };
        struct dmab_device *device = NULL;
        char *params;
        int r = session_check(dmab);

        if (!r && !name)
                r = error_set(EINVAL, "a device needs a name: a PCI address, or any other");
        if (!r && options)
                r = session_copy_struct(&known, sizeof(known), options, "struct dmab_device_options");
        if (r)
                return r;
        if (!known.timeout_ms)
                known.timeout_ms = link_limits(dmab->link).wait_ms < WAIT_MS_DEFAULT ? link_limits(dmab->link).wait_ms
                                                                                     : WAIT_MS_DEFAULT;
        r = open_params(dmab, name, &known, &params);
        if (r)
                return r;
        r = link_call(
                dmab->link,
                &(struct link_request){ .method = "device.open", .params = params, .repeat = LINK_KEYED },
                &reply);
        free(params);
        if (!r)
                r = device_new(dmab, name, &known, reply.result, &device);
        link_reply_release(&reply);
        if (r)
                return r;
        pthread_mutex_lock(&dmab->lock);
        device->next = dmab->devices;
        device->pprev = &dmab->devices;
        if (device->next)
                device->next->pprev = &device->next;
        dmab->devices = device;
        pthread_mutex_unlock(&dmab->lock);
        *ret = device;
        return 0;
}

/* ---- closing ---- */

/* The daemon's refusal names how much is left; with the first of it, a person can start to look. */
static int leak_error(const struct dmab_device *device) {
        json_t *error = json_loads(dmab_last_error_json() ? dmab_last_error_json() : "{}", 0, NULL);
        json_t *leaked = json_object_get(json_object_get(error, "data"), "leaked"), *first = json_array_get(leaked, 0);
        const char *address = json_string_value(json_object_get(first, "dma_addr"));
        static const struct {
                const char *member, *name;
        } kinds[] = {
                { "alloc", "allocation" }, { "mapping", "mapping" }, { "pool", "pool" }, { "bounce", "bounce pool" },
        };
        size_t n = json_array_size(leaked), kind = 0;
        char others[48] = "";

        while (kind < sizeof(kinds) / sizeof(*kinds) && !json_object_get(first, kinds[kind].member))
                kind++;
        if (n > 1)
                snprintf(others, sizeof(others), "%zu things, such as ", n);
        if (kind < sizeof(kinds) / sizeof(*kinds))
                error_reword("%s still has %s%s %lld: %lld bytes%s%s", device->name, others, kinds[kind].name,
                             (long long)json_integer_value(json_object_get(first, kinds[kind].member)),
                             (long long)json_integer_value(json_object_get(first, "size")), address ? " at " : "",
                             address ? address : "");
        json_decref(error);
        return -EBUSY;
}

static void set_closing(struct dmab_device *device, bool closing) {
        pthread_mutex_lock(&device->dmab->lock);
        device->closing = closing;
        pthread_mutex_unlock(&device->dmab->lock);
}

static int close_device(dmab_device_t *device, bool force) {
        struct link_reply reply = { 0 };
        struct params params;
        int r;

        if (!device)
                return error_set(EINVAL, "the handle of the device is NULL");
        r = session_check(device->dmab);
        if (!r && !force)
                r = pools_check_closing(device);
        if (!r && !force)
                r = any_sleep(device);
        if (!r && !force)
                r = streaming_sleep(device);
        /* A device that the daemon has forgotten goes like any other, whatever forgot it first. */
        if (r && r != -ESTALE)
                return r;
        pools_report(device->dmab, device, "when the device was closed by force");
        streaming_report(device, "when it was closed by force");
        set_closing(device, force);
        params_begin(&params);
        params_uint(&params, "device", device->handle);
        if (force)
                params_word(&params, "force", "true", 0);
        params_end(&params);
        r = link_call(device->dmab->link,
                      &(struct link_request){ .method = "device.close", .params = params.text, .repeat = LINK_RELEASE },
                      &reply);
        link_reply_release(&reply);
        if (r == -EBUSY)
                return leak_error(device);
        if (r && r != -ESTALE && !link_is_unknown(r)) {
                set_closing(device, false);
                return r;
        }
        pools_forget(device->dmab, device);
        coherent_forget(device->dmab, device);
        device_forget(device);
        return r;
}

int dmab_device_close(dmab_device_t *device) {
        return close_device(device, false);
}

int dmab_device_close_force(dmab_device_t *device) {
        return close_device(device, true);
}

/* ---- masks ---- */

static int mask_call(dmab_device_t *device, const char *method, uint64_t mask, struct link_reply *ret) {
        struct params params;
        int r = session_check(device->dmab);

        if (r)
                return r;
        params_begin(&params);
        params_uint(&params, "device", device->handle);
        params_hex(&params, "mask", mask);
        params_end(&params);
        return link_call(device->dmab->link,
                         &(struct link_request){ .method = method, .params = params.text, .repeat = LINK_AGAIN }, ret);
}

int dmab_set_mask(dmab_device_t *device, uint64_t mask) {
        struct link_reply reply = { 0 };
        uint64_t set = mask;
        int r = mask_call(device, "device.set_mask", mask, &reply);

        if (!r)
                r = result_hex(reply.result, "mask", &set);
        if (!r && set < __atomic_exchange_n(&device->mask, set, __ATOMIC_RELAXED))
                any_narrow(device);
        link_reply_release(&reply);
        return r;
}

int dmab_supported(dmab_device_t *device, uint64_t mask) {
        struct link_reply reply = { 0 };
        int r = mask_call(device, "device.supported", mask, &reply);

        if (!r)
                r = json_is_true(json_object_get(reply.result, "supported"));
        link_reply_release(&reply);
        return r;
}

/* ---- reserved memory ---- */

int dmab_device_reserve(dmab_device_t *device, size_t size, uint64_t mask, uint64_t *ret_region) {
        struct link_reply reply = { 0 };
        char key[LINK_KEY_SIZE];
        struct params params;
        int r = session_check(device->dmab);

        if (!r && size > SCHEMA_INTEGER_MAX)
                r = error_set(E2BIG, "%zu bytes are more than any machine has", size);
        if (r)
                return r;
        link_make_key(device->dmab->link, key);
        params_begin(&params);
        params_uint(&params, "device", device->handle);
        params_uint(&params, "size", size);
        if (mask)
                params_hex(&params, "mask", mask);
        params_word(&params, "request_key", key, '"');
        params_end(&params);
        r = link_call(device->dmab->link,
                      &(struct link_request){
                              .method = "device.reserve", .params = params.text, .repeat = LINK_KEYED },
                      &reply);
        if (!r)
                r = result_uint(reply.result, "region", ret_region);
        link_reply_release(&reply);
        return r;
}

int dmab_device_unreserve(dmab_device_t *device, uint64_t region) {
        struct link_reply reply = { 0 };
        struct params params;
        int r = session_check(device->dmab);

        if (r)
                return r;
        params_begin(&params);
        params_uint(&params, "device", device->handle);
        params_uint(&params, "region", region);
        params_end(&params);
        r = link_call(device->dmab->link,
                      &(struct link_request){ .method = "device.unreserve", .params = params.text, .repeat = LINK_RELEASE },
                      &reply);
        link_reply_release(&reply);
        return r;
}

int dmab_device_fd(dmab_device_t *device, int *ret_fd) {
        struct link_reply reply = { 0 };
        struct params params;
        int r = session_check(device->dmab);

        if (!r && !link_takes_fds(device->dmab->link))
                r = error_set_reason(EOPNOTSUPP, "unsupported",
                                     "no descriptor of %s can come from the host into this guest: give the device to the guest, "
                                     "and drive it there", device->name);
        if (r)
                return r;
        params_begin(&params);
        params_uint(&params, "device", device->handle);
        params_end(&params);
        r = link_call(device->dmab->link,
                      &(struct link_request){ .method = "device.get", .params = params.text, .repeat = LINK_AGAIN }, &reply);
        if (!r && !reply.n_fds)
                r = error_set(EOPNOTSUPP, "%s is no device that the daemon can pass: it is not bound to vfio-pci, or, without an "
                              "IOMMU, somebody else has it, or it is not allowed to you, or the daemon lacks CAP_SYS_RAWIO",
                              device->name);
        if (!r) {
                *ret_fd = reply.fds[0];
                reply.n_fds = 0;
        }
        link_reply_release(&reply);
        return r;
}

/* ---- properties ---- */

const char *dmab_device_name(const dmab_device_t *device) {
        return device->name;
}

const char *dmab_device_translation(const dmab_device_t *device) {
        return device->translation;
}

const char *dmab_device_via(const dmab_device_t *device) {
        return device->via;
}

uint64_t dmab_device_handle(const dmab_device_t *device) {
        return device->handle;
}
