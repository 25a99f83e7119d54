/* alloc, free: memory that outlives this program. */
#include <stdio.h>

#include "client/ctl/devices.h"
#include "client/ctl/show.h"
#include "client/ctl/verbs.h"

static const struct ctl_option alloc_options[] = {
        { "--device", "DEVICE",
          "for this open device, by number or name, or for a new one of that name; " DEVICES_OWN " unless given" },
        { "--parent", "NAME", "the device above a new one" },
        { "--mask", "BITS|0xMASK", "the addresses that the device can reach: 32, or 0xffffffff" },
        { "--align", "SIZE", "a power of two; a page unless given" },
        { "--boundary", "SIZE", "a power of two that must not be crossed" },
        { "--wait", "SECONDS", "how long to wait for memory; not at all unless given" },
        { "--high", NULL, "use the emergency reserve if need be" },
        { "--zero", NULL, "fill it with zeroes, also if it was yours before" },
        { "--shareable", NULL, "allow it to be mapped for a second device" },
        { NULL },
};

static enum ctl_status alloc_params(struct ctl *ctl, json_t **ret) {
        json_t *params = json_pack("{s:s}", "lifetime", "owner");
        uint64_t size;
        enum ctl_status status = ctl_parse_size(ctl, "SIZE", ctl->operands[0], &size);

        if (status == CTL_OK && size > INT64_MAX)
                status = ctl_misuse(ctl, "SIZE is too large: %s", ctl->operands[0]);
        if (status == CTL_OK)
                status = ctl_param_mask(ctl, "--mask", params, "mask");
        if (status == CTL_OK)
                status = ctl_param_size(ctl, "--align", params, "align");
        if (status == CTL_OK)
                status = ctl_param_size(ctl, "--boundary", params, "boundary");
        if (status == CTL_OK)
                status = ctl_param_waiting(ctl, params);
        if (status != CTL_OK) {
                json_decref(params);
                return status;
        }
        ctl_param_flag(ctl, "--zero", params, "zero");
        ctl_param_flag(ctl, "--shareable", params, "shareable");
        json_object_set_new(params, "size", json_integer(size));
        *ret = params;
        return CTL_OK;
}

static enum ctl_status run_alloc(struct ctl *ctl) {
        static const char *const members[] = { "alloc", "device",   "region",       "offset",
                                               "size",  "dma_addr", "machine_addr", "addressing" };
        json_t *params, *result;
        char buffer[SHOW_SIZE];
        uint64_t device;
        enum ctl_status status = alloc_params(ctl, &params);

        if (status != CTL_OK)
                return status;
        status = devices_get(ctl, json_object(), &device);
        if (status != CTL_OK) {
                json_decref(params);
                return status;
        }
        json_object_set_new(params, "device", json_integer(device));
        status = ctl_call(ctl, "coherent.alloc", params, &result);
        if (status != CTL_OK)
                return status;
        json_object_set_new(result, "device", json_integer(device));
        if (ctl->json)
                ctl_print_json(result);
        for (size_t i = 0; i < sizeof(members) / sizeof(*members) && !ctl->json; i++)
                show_pair(members[i], show_member(result, members[i], buffer));
        json_decref(result);
        return CTL_OK;
}

const struct ctl_verb verb_alloc = {
        .name = "alloc",
        .operands = "SIZE",
        .summary = "allocate machine-contiguous memory that stays until it is freed",
        .doc = "SIZE may end with K, M or G. Prints the number that \"dmabrokerctl free\" takes, and the addresses; "
               "with \"addressing "
               "simulated\", these are made up, and no device can use them.",
        .options = alloc_options,
        .min_operands = 1,
        .max_operands = 1,
        .run = run_alloc,
};

static enum ctl_status run_free(struct ctl *ctl) {
        uint64_t handles[CTL_OPERANDS_MAX];
        enum ctl_status status = CTL_OK;
        json_t *freed = json_array(), *result;

        for (size_t i = 0; i < ctl->n_operands && status == CTL_OK; i++)
                status = ctl_parse_uint(ctl, "ALLOC", ctl->operands[i], &handles[i]);
        for (size_t i = 0; i < ctl->n_operands && status != CTL_USAGE && status != CTL_NO_DAEMON; i++) {
                enum ctl_status one =
                        ctl_call(ctl, "coherent.free", json_pack("{s:I}", "alloc", (json_int_t)handles[i]), &result);

                if (one == CTL_OK) {
                        json_array_append_new(freed, json_integer(handles[i]));
                        json_decref(result);
                } else {
                        status = one; /* the others are freed all the same */
                }
        }
        if (ctl->json && status == CTL_OK) {
                result = json_pack("{s:O}", "freed", freed);
                ctl_print_json(result);
                json_decref(result);
        }
        json_decref(freed);
        return status;
}

const struct ctl_verb verb_free = {
        .name = "free",
        .operands = "ALLOC…",
        .summary = "free allocations",
        .doc = "ALLOC is a number that \"dmabrokerctl alloc\" or \"dmabrokerctl allocs\" printed. Those that can be "
               "freed are, also when others "
               "cannot.",
        .min_operands = 1,
        .max_operands = CTL_OPERANDS_MAX,
        .run = run_free,
};
