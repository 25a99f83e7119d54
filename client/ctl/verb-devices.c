/* devices: list, open, close, reserve, unreserve. */
#include <stdio.h>
#include <string.h>

#include "client/ctl/actions.h"
#include "client/ctl/devices.h"
#include "client/ctl/hold.h"
#include "client/ctl/show.h"
#include "client/ctl/verbs.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

enum ctl_status devices_resolve(struct ctl *ctl, const char *text, uint64_t *ret) {
        json_t *result, *device;
        enum ctl_status status;
        uint64_t handle = 0;
        size_t i, found = 0;

        if (*text && !text[strspn(text, "0123456789")])
                return ctl_parse_uint(ctl, "the device", text, ret);
        status = ctl_connect(ctl);
        if (status == CTL_OK)
                status = ctl_list(ctl, "device.list", json_pack("{s:s}", "owner", dmab_owner(ctl->dmab)), "devices",
                                  "device", &result);
        if (status != CTL_OK)
                return status;
        json_array_foreach(json_object_get(result, "devices"), i, device) {
                const char *name = json_string_value(json_object_get(device, "name"));

                if (name && !strcmp(name, text)) {
                        handle = show_uint(device, "device");
                        found++;
                }
        }
        json_decref(result);
        if (!found)
                fprintf(stderr, "dmabrokerctl: you have no open device that is called %s\n", text);
        else if (found > 1)
                fprintf(stderr, "dmabrokerctl: %zu open devices are called %s; give the number of one\n", found, text);
        if (found != 1)
                return CTL_FAILURE;
        *ret = handle;
        return CTL_OK;
}

/* Is there such a device already? A name that no open device has is one to be opened, not a failure. */
static enum ctl_status find_device(struct ctl *ctl, const char *text, uint64_t *ret) {
        json_t *result, *device;
        enum ctl_status status;
        uint64_t handle = 0;
        size_t i;

        if (*text && !text[strspn(text, "0123456789")])
                return ctl_parse_uint(ctl, "--device", text, ret);
        status = ctl_connect(ctl);
        if (status == CTL_OK)
                status = ctl_list(ctl, "device.list", json_pack("{s:s}", "owner", dmab_owner(ctl->dmab)), "devices",
                                  "device", &result);
        if (status != CTL_OK)
                return status;
        json_array_foreach(json_object_get(result, "devices"), i, device)
                if (!handle && !strcmp(json_string_value(json_object_get(device, "name")), text))
                        handle = show_uint(device, "device");
        json_decref(result);
        *ret = handle;
        return CTL_OK;
}

/* Its mask is as wide as can be unless params say otherwise. */
static enum ctl_status open_new(struct ctl *ctl, const char *name, json_t *params, uint64_t *ret) {
        enum ctl_status status;
        json_t *result;

        if (!json_object_get(params, "mask"))
                ctl_put_hex(params, "mask", UINT64_MAX);
        if (json_object_set_new(params, "name", json_string(name))) {
                json_decref(params);
                return ctl_misuse(ctl, "the name of a device must be UTF-8");
        }
        ctl_param_text(ctl, "--parent", params, "parent");
        status = ctl_call(ctl, "device.open", params, &result);
        if (status != CTL_OK)
                return status;
        *ret = show_uint(result, "device");
        json_decref(result);
        return CTL_OK;
}

enum ctl_status devices_get(struct ctl *ctl, json_t *params, uint64_t *ret) {
        const char *name = ctl_value(ctl, "--device");
        enum ctl_status status = CTL_OK;
        uint64_t device = 0;

        /* What is said of a device makes it another one than those that are there. */
        if (name && !ctl_has(ctl, "--parent") && !json_object_size(params))
                status = find_device(ctl, name, &device);
        if (status != CTL_OK || device) {
                json_decref(params);
                if (status == CTL_OK)
                        *ret = device;
                return status;
        }
        return open_new(ctl, name ? name : DEVICES_OWN, params, ret);
}

enum ctl_status devices_open_params(struct ctl *ctl, const char *name, json_t **ret) {
        json_t *params = json_object();
        enum ctl_status status;

        if (json_object_set_new(params, "name", json_string(name))) {
                json_decref(params);
                return ctl_misuse(ctl, "the name of a device must be UTF-8");
        }
        ctl_param_text(ctl, "--parent", params, "parent");
        status = ctl_param_mask(ctl, "--mask", params, "mask");
        if (status == CTL_OK)
                status = ctl_param_mask(ctl, "--coherent-mask", params, "coherent_mask");
        if (status == CTL_OK)
                status = ctl_param_size(ctl, "--boundary", params, "boundary");
        if (status == CTL_OK)
                status = ctl_param_size(ctl, "--max-segment", params, "max_segment");
        if (status == CTL_OK)
                status = ctl_param_mask(ctl, "--min-align-mask", params, "min_align_mask");
        if (status == CTL_OK)
                status = ctl_param_uint(ctl, "--node", params, "node");
        if (status != CTL_OK) {
                json_decref(params);
                return status;
        }
        *ret = params;
        return CTL_OK;
}

static void show_all(const struct ctl *ctl, json_t *result) {
        if (ctl->json)
                ctl_print_json(result);
        else
                show_pairs(result);
        json_decref(result);
}

/* ---- actions ---- */

static enum ctl_status list(struct ctl *ctl) {
        static const struct show_column columns[] = {
                { "DEVICE", "device", SHOW_NUMBER },
                { "NAME", "name", SHOW_NAME },
                { "OWNER", "owner" },
                { "PARENT", "parent", SHOW_NAME },
                { "VIA", "via", SHOW_NAME },
                { "TRANSLATION", "translation" },
                { "MASK", "mask", SHOW_MASK },
                { "COHERENT-MASK", "coherent_mask", SHOW_MASK },
                { "BOUNDARY", "boundary", SHOW_BYTES },
                { "ALLOCS", "allocs", SHOW_NUMBER },
                { "BYTES", "bytes", SHOW_BYTES },
                { "RESERVED", "reserved_bytes", SHOW_BYTES },
                { "SESSION", "session_bound" },
        };
        json_t *params = json_object(), *result;
        enum ctl_status status;
        int r = 0;

        ctl_param_text(ctl, "--owner", params, "owner");
        status = ctl_list(ctl, "device.list", params, "devices", "device", &result);
        if (status != CTL_OK)
                return status;
        if (ctl->json)
                ctl_print_json(result);
        else
                r = show_table(json_object_get(result, "devices"), columns, N(columns));
        json_decref(result);
        return r ? CTL_FAILURE : CTL_OK;
}

static enum ctl_status open_device(struct ctl *ctl) {
        static const struct holding holding = { .method = "device.open", .of = "name", .command = 2 };
        json_t *params;
        enum ctl_status status = devices_open_params(ctl, ctl->operands[1], &params);

        return status == CTL_OK ? hold(ctl, &holding, params) : status;
}

/* Call with the device of the first operand. params is consumed; *ret as from ctl_call(). */
static enum ctl_status call_device(struct ctl *ctl, const char *method, json_t *params, json_t **ret) {
        uint64_t device;
        enum ctl_status status = devices_resolve(ctl, ctl->operands[1], &device);

        if (status != CTL_OK) {
                json_decref(params);
                return status;
        }
        json_object_set_new(params, "device", json_integer(device));
        return ctl_call(ctl, method, params, ret);
}

static enum ctl_status close_device(struct ctl *ctl) {
        static const struct show_column columns[] = {
                { "FREED", "alloc", SHOW_NUMBER },   { "POOL", "pool", SHOW_NUMBER }, { "BOUNCE", "bounce", SHOW_NUMBER },
                { "MAPPING", "mapping", SHOW_NUMBER }, { "NAME", "name", SHOW_NAME },  { "SIZE", "size", SHOW_BYTES },
                { "DMA-ADDR", "dma_addr" },
        };
        json_t *params = json_object(), *result, *leaked;
        enum ctl_status status;

        ctl_param_flag(ctl, "--force", params, "force");
        status = call_device(ctl, "device.close", params, &result);
        if (status != CTL_OK)
                return status;
        leaked = json_object_get(result, "leaked");
        if (ctl->json)
                ctl_print_json(result);
        else if (json_array_size(leaked))
                show_table(leaked, columns, N(columns));
        json_decref(result);
        return CTL_OK;
}

static enum ctl_status reserve(struct ctl *ctl) {
        json_t *params = json_object(), *result;
        uint64_t size;
        enum ctl_status status = ctl_parse_size(ctl, "SIZE", ctl->operands[2], &size);

        if (status == CTL_OK)
                status = ctl_param_mask(ctl, "--mask", params, "mask");
        if (status == CTL_OK)
                status = ctl_param_size(ctl, "--stride", params, "stride");
        if (status == CTL_OK)
                status = ctl_param_size(ctl, "--usable", params, "usable");
        if (status == CTL_OK && size > INT64_MAX)
                status = ctl_misuse(ctl, "SIZE is too large: %s", ctl->operands[2]);
        if (status != CTL_OK) {
                json_decref(params);
                return status;
        }
        json_object_set_new(params, "size", json_integer(size));
        status = call_device(ctl, "device.reserve", params, &result);
        if (status == CTL_OK)
                show_all(ctl, result);
        return status;
}

static enum ctl_status unreserve(struct ctl *ctl) {
        json_t *result;
        uint64_t region;
        enum ctl_status status = ctl_parse_uint(ctl, "REGION", ctl->operands[2], &region);

        if (status == CTL_OK)
                status =
                        call_device(ctl, "device.unreserve", json_pack("{s:I}", "region", (json_int_t)region), &result);
        if (status != CTL_OK)
                return status;
        if (ctl->json)
                ctl_print_json(result);
        json_decref(result);
        return CTL_OK;
}

/* ---- the verb ---- */

static const struct ctl_option options[] = {
        { "--owner", "OWNER", "when listing: only this owner's, such as user:1000" },
        { "--parent", "NAME", "open: the device above it, which does the DMA if this one has none of its own" },
        { "--mask", "BITS|0xMASK",
          "open: the addresses that the device can put on the bus; reserve: those of the memory" },
        { "--coherent-mask", "BITS|0xMASK", "open: the same for coherent memory" },
        { "--boundary", "SIZE", "open: a power of two that no allocation may cross" },
        { "--max-segment", "SIZE", "open: the longest piece that the device transfers at once" },
        { "--min-align-mask", "BITS|0xMASK", "open: the address bits that bouncing must preserve" },
        { "--node", "NODE", "open: the NUMA node that its memory should be on" },
        { "--force", NULL, "close: free what the device still has, and list it" },
        { "--stride", "SIZE", "reserve: of every so many bytes, only the first --usable may be used" },
        { "--usable", "SIZE", "reserve: see --stride" },
        { NULL },
};

static const struct ctl_action actions[] = {
        { "open", "the name of a device, and perhaps a command to run meanwhile", 1, CTL_OPERANDS_MAX, open_device,
          "--parent --mask --coherent-mask --boundary --max-segment --min-align-mask --node " },
        { "close", "one device", 1, 1, close_device, "--force " },
        { "reserve", "a device and a size", 2, 2, reserve, "--mask --stride --usable " },
        { "unreserve", "a device and a region", 2, 2, unreserve, "" },
};

static enum ctl_status run_devices(struct ctl *ctl) {
        return actions_run(ctl, actions, N(actions), list, "--owner ");
}

const struct ctl_verb verb_devices = {
        .name = "devices",
        .operands = "[open NAME [COMMAND…] | close DEVICE | reserve DEVICE SIZE | unreserve DEVICE REGION]",
        .summary = "list open devices, open or close one, reserve memory for one",
        .doc = "Without more, lists your devices, or as an administrator everybody's. A device that is opened here "
               "stays open "
               "until dmabrokerctl is interrupted or COMMAND ends, and as long as allocations from elsewhere keep it. "
               "Reserved memory "
               "serves "
               "its device and nobody else, and ends with it. DEVICE is a number from the list, or the name of a "
               "device of "
               "yours. COMMAND finds what was opened in its environment, as DMABROKER_DEVICE and so on.",
        .words = "open close reserve unreserve",
        .options = options,
        .max_operands = CTL_OPERANDS_MAX,
        .run = run_devices,
};
