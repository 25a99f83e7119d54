/* mappings, leases: what devices may reach at the moment, and which spans are handed out to be divided. */
#include <stdio.h>
#include <string.h>

#include "client/ctl/actions.h"
#include "client/ctl/devices.h"
#include "client/ctl/hold.h"
#include "client/ctl/lists.h"
#include "client/ctl/verbs.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

/* Print the answer for programs only: it says no more than that it was done. */
static enum ctl_status finish(const struct ctl *ctl, enum ctl_status status, json_t *result) {
        if (status != CTL_OK)
                return status;
        if (ctl->json)
                ctl_print_json(result);
        json_decref(result);
        return CTL_OK;
}

/* ---- mappings ---- */

static const struct show_column mapping_columns[] = {
        { "MAPPING", "mapping", SHOW_NUMBER },
        { "OWNER", "owner" },
        { "DEVICE", "device_name", SHOW_NAME },
        { "BOUNCE", "bounce", SHOW_NUMBER },
        { "ALLOC", "alloc", SHOW_NUMBER },
        { "DIRECTION", "direction" },
        { "SIZE", "size", SHOW_BYTES },
        { "SLOTS", "slots", SHOW_NUMBER },
        { "DMA-ADDR", "dma_addr" },
        { "MACHINE-ADDR", "machine_addr" },
        { "REGION", "region", SHOW_NUMBER },
        { "OFFSET", "offset", SHOW_NUMBER },
        { "ADDRESSING", "addressing" },
        { "AGE", "age_ms", SHOW_MS },
};

static const struct list mappings = {
        .method = "mapping.list",
        .items = "mappings",
        .handle = "mapping",
        .columns = mapping_columns,
        .n_columns = N(mapping_columns),
};

static enum ctl_status list_mappings(struct ctl *ctl) {
        json_t *params = json_object();
        enum ctl_status status = lists_filter(ctl, params);

        return status == CTL_OK ? lists_show(ctl, &mappings, params) : status;
}

static enum ctl_status map_params(struct ctl *ctl, json_t *params) {
        uint64_t alloc, iova;
        enum ctl_status status = ctl_parse_uint(ctl, "ALLOC", ctl->operands[1], &alloc);

        if (status == CTL_OK)
                status = ctl_param_size(ctl, "--offset", params, "offset");
        if (status == CTL_OK)
                status = ctl_param_size(ctl, "--size", params, "size");
        if (status == CTL_OK && ctl_has(ctl, "--iova"))
                status = ctl_parse_address(ctl, "--iova", ctl_value(ctl, "--iova"), &iova);
        if (status != CTL_OK)
                return status;
        if (ctl_has(ctl, "--iova"))
                ctl_put_hex(params, "iova", iova);
        json_object_set_new(params, "alloc", json_integer((json_int_t)alloc));
        json_object_set_new(params, "direction", json_string("bidirectional"));
        ctl_param_text(ctl, "--direction", params, "direction");
        return CTL_OK;
}

static enum ctl_status map(struct ctl *ctl) {
        static const struct holding holding = {
                .method = "mapping.map", .of = "device", .undo = "mapping.unmap", .handle = "mapping", .command = 2
        };
        json_t *params = json_object();
        enum ctl_status status = map_params(ctl, params);
        uint64_t device;

        if (status == CTL_OK)
                status = devices_get(ctl, json_object(), &device);
        if (status != CTL_OK) {
                json_decref(params);
                return status;
        }
        json_object_set_new(params, "device", json_integer((json_int_t)device));
        return hold(ctl, &holding, params);
}

static enum ctl_status unmap(struct ctl *ctl) {
        json_t *result = NULL;
        uint64_t mapping;
        enum ctl_status status = ctl_parse_uint(ctl, "MAPPING", ctl->operands[1], &mapping);

        if (status == CTL_OK)
                status = ctl_call(ctl, "mapping.unmap", json_pack("{s:I}", "mapping", (json_int_t)mapping), &result);
        return finish(ctl, status, result);
}

static const struct ctl_option mappings_options[] = {
        { "--owner", "OWNER", "when listing: only this owner's, such as user:1000" },
        { "--device", "DEVICE",
          "when listing: only this device's; map: for this open device, by number or name, or for a new one of that "
          "name; " DEVICES_OWN " unless given" },
        { "--parent", "NAME", "map: the device above a new one" },
        { "--offset", "BYTES", "map: where in the allocation; its start unless given" },
        { "--size", "SIZE", "map: how much; up to its end unless given" },
        { "--iova", "ADDRESS", "map: where the device shall see it, where something translates" },
        { "--direction", "to_device|from_device|bidirectional", "map: which way data goes; bidirectional unless given" },
        { NULL },
};

static const struct ctl_action mappings_actions[] = {
        { "map", "an allocation, and perhaps a command to run meanwhile", 1, CTL_OPERANDS_MAX, map,
          "--device --parent --offset --size --iova --direction " },
        { "unmap", "one mapping", 1, 1, unmap, "" },
};

static enum ctl_status run_mappings(struct ctl *ctl) {
        return actions_run(ctl, mappings_actions, N(mappings_actions), list_mappings, "--owner --device ");
}

const struct ctl_verb verb_mappings = {
        .name = "mappings",
        .operands = "[map ALLOC [COMMAND…] | unmap MAPPING]",
        .summary = "list mappings, or map an allocation for a second device",
        .doc = "What devices may reach at this moment beside their own coherent memory: BOUNCE or ALLOC is what a mapping is "
               "of. Yours, or as an administrator everybody's. A mapping made here is there until dmabrokerctl is "
               "interrupted or COMMAND ends, which finds it in its environment, as DMABROKER_MAPPING, DMABROKER_IOVA and so "
               "on. Those of bounce pools are made and ended by the verb bounces.",
        .words = "map unmap",
        .options = mappings_options,
        .max_operands = CTL_OPERANDS_MAX,
        .run = run_mappings,
};

/* ---- leases ---- */

static const struct show_column lease_columns[] = {
        { "LEASE", "lease", SHOW_NUMBER },
        { "OWNER", "owner" },
        { "DEVICE", "device_name", SHOW_NAME },
        { "POOL", "pool", SHOW_NUMBER },
        { "BOUNCE", "bounce", SHOW_NUMBER },
        { "COUNT", "count", SHOW_NUMBER },
        { "UNIT", "unit", SHOW_BYTES },
        { "DMA-ADDR", "dma_addr" },
        { "MACHINE-ADDR", "machine_addr" },
        { "REGION", "region", SHOW_NUMBER },
        { "OFFSET", "offset", SHOW_NUMBER },
        { "ADDRESSING", "addressing" },
        { "AGE", "age_ms", SHOW_MS },
};

static const struct list leases = {
        .method = "lease.list",
        .items = "leases",
        .handle = "lease",
        .columns = lease_columns,
        .n_columns = N(lease_columns),
};

static enum ctl_status list_leases(struct ctl *ctl) {
        json_t *params = json_object();
        enum ctl_status status = ctl_param_uint(ctl, "--pool", params, "pool");

        if (status == CTL_OK)
                status = ctl_param_uint(ctl, "--bounce", params, "bounce");
        ctl_param_text(ctl, "--owner", params, "owner");
        if (status == CTL_OK)
                return lists_show(ctl, &leases, params);
        json_decref(params);
        return status;
}

/* Is it one of slots? What does not exist is not, and whoever is asked to take it back says so. */
static enum ctl_status is_of_bounce(struct ctl *ctl, uint64_t lease, bool *ret) {
        json_t *params = json_pack("{s:I, s:i}", "after", lease ? (json_int_t)lease - 1 : 0, "limit", 1), *result, *first;
        enum ctl_status status = ctl_call(ctl, "lease.list", params, &result);

        if (status != CTL_OK)
                return status;
        first = json_array_get(json_object_get(result, "leases"), 0);
        *ret = show_uint(first, "lease") == lease && json_object_get(first, "bounce");
        json_decref(result);
        return CTL_OK;
}

static enum ctl_status give_back(struct ctl *ctl) {
        json_t *result = NULL;
        bool bounce = false;
        uint64_t lease;
        enum ctl_status status = ctl_parse_uint(ctl, "LEASE", ctl->operands[1], &lease);

        if (status == CTL_OK && lease > INT64_MAX)
                status = ctl_misuse(ctl, "LEASE is too large: %s", ctl->operands[1]);
        if (status == CTL_OK)
                status = is_of_bounce(ctl, lease, &bounce);
        if (status == CTL_OK)
                status = ctl_call(ctl, bounce ? "bounce.return" : "pool.return",
                                  json_pack("{s:I}", "lease", (json_int_t)lease), &result);
        return finish(ctl, status, result);
}

static const struct ctl_option leases_options[] = {
        { "--owner", "OWNER", "when listing: only this owner's, such as user:1000" },
        { "--pool", "POOL", "when listing: only this pool's, by its number" },
        { "--bounce", "BOUNCE", "when listing: only this bounce pool's, by its number" },
        { NULL },
};

static const struct ctl_action leases_actions[] = {
        { "return", "one lease", 1, 1, give_back, "" },
};

static enum ctl_status run_leases(struct ctl *ctl) {
        return actions_run(ctl, leases_actions, N(leases_actions), list_leases, "--owner --pool --bounce ");
}

const struct ctl_verb verb_leases = {
        .name = "leases",
        .operands = "[return LEASE]",
        .summary = "list leases of blocks and slots, or take one back",
        .doc = "A lease is a span of a pool's blocks or a bounce pool's slots, which its holder divides without asking. COUNT "
               "of them, each of UNIT bytes, lie one behind the other from DMA-ADDR on. Yours, or as an administrator "
               "everybody's. A lease that is returned here while its holder still uses it is memory that two may write.",
        .words = "return",
        .options = leases_options,
        .max_operands = CTL_OPERANDS_MAX,
        .run = run_leases,
};
