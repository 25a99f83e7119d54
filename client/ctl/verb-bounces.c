/* bounces: bounce pools, their mappings and leases. */
#include <stdio.h>
#include <string.h>

#include "client/ctl/actions.h"
#include "client/ctl/devices.h"
#include "client/ctl/hold.h"
#include "client/ctl/lists.h"
#include "client/ctl/verbs.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

/* ---- the list ---- */

static void add_use(json_t *row) {
        uint64_t in_use = show_uint(row, "used") + show_uint(row, "leased");

        json_object_set_new(row, "in_use", json_integer((json_int_t)in_use));
        show_put_use(row, in_use, show_uint(row, "high_water"), show_uint(row, "slots"));
}

static const struct show_column bounce_columns[] = {
        { "BOUNCE", "bounce", SHOW_NUMBER },
        { "OWNER", "owner" },
        { "DEVICE", "device_name", SHOW_NAME },
        { "SLOT-SIZE", "slot_size", SHOW_BYTES },
        { "IN-USE", "in_use", SHOW_NUMBER },
        { "SLOTS", "slots", SHOW_NUMBER },
        { "USE", "used_percent", SHOW_BAR },
        { "HIGH", "high_water", SHOW_NUMBER },
        { "LEASED", "leased", SHOW_NUMBER },
        { "QUARANTINED", "quarantined", SHOW_NUMBER },
        { "LARGEST-FREE", "largest_free", SHOW_NUMBER },
        { "SIZE", "size", SHOW_BYTES },
        { "MAX", "max_size", SHOW_BYTES },
        { "FULLS", "fulls", SHOW_NUMBER },
        { "WAITERS", "waiters", SHOW_NUMBER },
        { "ADDRESSING", "addressing" },
        { "AGE", "age_ms", SHOW_MS },
};

static const struct list bounces = {
        .method = "bounce.list",
        .items = "bounces",
        .handle = "bounce",
        .name = "device_name",
        .called = "bounce pool of the device",
        .columns = bounce_columns,
        .n_columns = N(bounce_columns),
        .add = add_use,
};

static const struct show_column stats_columns[] = {
        { "DEVICE", "device_name", SHOW_NAME },
        { "IN-USE", "in_use", SHOW_NUMBER },
        { "SLOTS", "slots", SHOW_NUMBER },
        { "SLOT-SIZE", "slot_size", SHOW_BYTES },
        { "PARTS", "parts", SHOW_NUMBER },
        { "BOUNCE", "bounce", SHOW_NUMBER },
        { "OWNER", "owner" },
        { "HIGH", "high_water", SHOW_NUMBER },
        { "LARGEST-FREE", "largest_free", SHOW_NUMBER },
        { "AREAS", "areas", SHOW_NUMBER },
        { "LEASED", "leased", SHOW_NUMBER },
        { "LEASES", "leases", SHOW_NUMBER },
        { "QUARANTINED", "quarantined", SHOW_NUMBER },
        { "MAPS", "maps", SHOW_NUMBER },
        { "UNMAPS", "unmaps", SHOW_NUMBER },
        { "SYNCS", "syncs", SHOW_NUMBER },
        { "FULLS", "fulls", SHOW_NUMBER },
        { "WAITS", "waits", SHOW_NUMBER },
        { "TIMEOUTS", "timeouts", SHOW_NUMBER },
        { "GROWS", "grows", SHOW_NUMBER },
        { "RECALLS", "recalls", SHOW_NUMBER },
};

const struct list list_bounce_stats = {
        .method = "bounce.list",
        .items = "bounces",
        .handle = "bounce",
        .columns = stats_columns,
        .n_columns = N(stats_columns),
        .add = add_use,
};

static enum ctl_status list(struct ctl *ctl) {
        json_t *params = json_object();
        enum ctl_status status = lists_filter(ctl, params);

        return status == CTL_OK ? lists_show(ctl, &bounces, params) : status;
}

/* ---- parameters ---- */

/* Parameters that name the bounce pool of the first operand. CTL_OK, or *ret is not set. */
static enum ctl_status bounce_params(struct ctl *ctl, json_t **ret) {
        uint64_t bounce;
        enum ctl_status status = lists_resolve(ctl, &bounces, ctl->operands[1], &bounce);

        if (status == CTL_OK)
                *ret = json_pack("{s:I}", "bounce", (json_int_t)bounce);
        return status;
}

static enum ctl_status mapping_params(struct ctl *ctl, json_t **ret) {
        uint64_t mapping;
        enum ctl_status status = ctl_parse_uint(ctl, "MAPPING", ctl->operands[1], &mapping);

        if (status == CTL_OK)
                *ret = json_pack("{s:I}", "mapping", (json_int_t)mapping);
        return status;
}

static enum ctl_status size_param(struct ctl *ctl, const char *text, json_t *params) {
        uint64_t size;
        enum ctl_status status = ctl_parse_size(ctl, "SIZE", text, &size);

        if (status == CTL_OK && size > INT64_MAX)
                status = ctl_misuse(ctl, "SIZE is too large: %s", text);
        if (status == CTL_OK)
                json_object_set_new(params, "size", json_integer((json_int_t)size));
        return status;
}

static enum ctl_status create_params(struct ctl *ctl, json_t *params, json_t *device) {
        enum ctl_status status = size_param(ctl, ctl->operands[1], params);

        if (status == CTL_OK)
                status = ctl_param_mask(ctl, "--mask", device, "mask");
        if (status == CTL_OK)
                status = ctl_param_mask(ctl, "--min-align-mask", device, "min_align_mask");
        if (status == CTL_OK)
                status = ctl_param_size(ctl, "--slot-size", params, "slot_size");
        if (status == CTL_OK)
                status = ctl_param_size(ctl, "--max-size", params, "max_size");
        if (status == CTL_OK)
                status = ctl_param_uint(ctl, "--areas", params, "areas");
        if (status == CTL_OK)
                status = ctl_param_waiting(ctl, params);
        return status;
}

/* It is the buffer's whole address, or what counts of it. */
static enum ctl_status offset_param(struct ctl *ctl, json_t *params) {
        const char *text = ctl_value(ctl, "--align-offset");
        uint64_t offset;
        enum ctl_status status;

        if (!text)
                return CTL_OK;
        status = (strncmp(text, "0x", 2) ? ctl_parse_uint : ctl_parse_address)(ctl, "--align-offset", text, &offset);
        if (status == CTL_OK && offset > INT64_MAX)
                status = ctl_misuse(ctl, "--align-offset is too large: %s", text);
        if (status == CTL_OK)
                json_object_set_new(params, "align_offset", json_integer((json_int_t)offset));
        return status;
}

static enum ctl_status map_params(struct ctl *ctl, json_t *params) {
        enum ctl_status status = size_param(ctl, ctl->operands[2], params);

        if (status == CTL_OK)
                status = offset_param(ctl, params);
        if (status == CTL_OK)
                status = ctl_param_waiting(ctl, params);
        json_object_set_new(params, "direction", json_string("bidirectional"));
        ctl_param_text(ctl, "--direction", params, "direction");
        return status;
}

/* ---- actions ---- */

/* Hold or call, or release the parameters when these are not right. */
static enum ctl_status hold_if(enum ctl_status status, struct ctl *ctl, const struct holding *holding, json_t *params) {
        if (status == CTL_OK)
                return hold(ctl, holding, params);
        json_decref(params);
        return status;
}

static enum ctl_status call_if(enum ctl_status status, struct ctl *ctl, const char *method, json_t *params, json_t **ret) {
        if (status == CTL_OK)
                return ctl_call(ctl, method, params, ret);
        json_decref(params);
        return status;
}

static enum ctl_status create(struct ctl *ctl) {
        static const struct holding holding = {
                .method = "bounce.create", .of = "device", .undo = "bounce.destroy", .handle = "bounce", .command = 2
        };
        json_t *params = json_object(), *device = json_object();
        enum ctl_status status = create_params(ctl, params, device);
        uint64_t handle = 0;

        if (status == CTL_OK)
                status = devices_get(ctl, device, &handle);
        else
                json_decref(device);
        json_object_set_new(params, "device", json_integer((json_int_t)handle));
        return hold_if(status, ctl, &holding, params);
}

static enum ctl_status map(struct ctl *ctl) {
        static const struct holding holding = {
                .method = "bounce.map", .of = "bounce", .undo = "bounce.unmap", .handle = "mapping", .command = 3
        };
        json_t *params;
        enum ctl_status status = bounce_params(ctl, &params);

        if (status != CTL_OK)
                return status;
        return hold_if(map_params(ctl, params), ctl, &holding, params);
}

static enum ctl_status lease(struct ctl *ctl) {
        static const struct holding holding = { .method = "bounce.lease", .of = "bounce", .command = 2 };
        json_t *params;
        enum ctl_status status = bounce_params(ctl, &params);

        if (status != CTL_OK)
                return status;
        status = ctl_param_uint(ctl, "--slots", params, "slots");
        if (status == CTL_OK)
                status = ctl_param_waiting(ctl, params);
        return hold_if(status, ctl, &holding, params);
}

static enum ctl_status tell(struct ctl *ctl, const char *method) {
        json_t *params, *result;
        enum ctl_status status = mapping_params(ctl, &params);

        if (status != CTL_OK)
                return status;
        status = ctl_param_size(ctl, "--offset", params, "offset");
        if (status == CTL_OK)
                status = ctl_param_size(ctl, "--size", params, "size");
        ctl_param_text(ctl, "--direction", params, "direction");
        ctl_param_text(ctl, "--for", params, "for");
        status = call_if(status, ctl, method, params, &result);
        if (status != CTL_OK)
                return status;
        if (ctl->json)
                ctl_print_json(result);
        json_decref(result);
        return CTL_OK;
}

static enum ctl_status sync_mapping(struct ctl *ctl) {
        return tell(ctl, "bounce.sync");
}

static enum ctl_status unmap(struct ctl *ctl) {
        return tell(ctl, "bounce.unmap");
}

static enum ctl_status destroy(struct ctl *ctl) {
        static const struct show_column columns[] = {
                { "MAPPING", "mapping", SHOW_NUMBER }, { "LEASE", "lease", SHOW_NUMBER },
                { "DMA-ADDR", "dma_addr" },            { "MACHINE-ADDR", "machine_addr" },
                { "REGION", "region", SHOW_NUMBER },   { "OFFSET", "offset", SHOW_NUMBER },
                { "SIZE", "size", SHOW_BYTES },        { "SLOTS", "slots", SHOW_NUMBER },
        };
        json_t *params, *result;
        enum ctl_status status = bounce_params(ctl, &params);

        if (status != CTL_OK)
                return status;
        ctl_param_flag(ctl, "--force", params, "force");
        status = ctl_call(ctl, "bounce.destroy", params, &result);
        if (status == CTL_FAILURE)
                lists_print_refusal(ctl, "busy", columns, N(columns));
        if (status != CTL_OK)
                return status;
        if (ctl->json || json_array_size(json_object_get(result, "busy")))
                return lists_print(ctl, result, "busy", columns, N(columns));
        json_decref(result);
        return CTL_OK;
}

static enum ctl_status show(struct ctl *ctl) {
        json_t *params, *result;
        enum ctl_status status = bounce_params(ctl, &params);

        if (status == CTL_OK)
                status = ctl_call(ctl, "bounce.stats", params, &result);
        return status == CTL_OK ? lists_print(ctl, result, NULL, NULL, 0) : status;
}

/* ---- the verb ---- */

static const struct ctl_option options[] = {
        { "--owner", "OWNER", "when listing: only this owner's, such as user:1000" },
        { "--device", "DEVICE",
          "when listing: only this device's; create: for this open device, by number or name, or for a new one of that "
          "name; " DEVICES_OWN " unless given" },
        { "--parent", "NAME", "create: the device above a new one" },
        { "--mask", "BITS|0xMASK", "create: for a new device that can reach these addresses" },
        { "--min-align-mask", "BITS|0xMASK", "create: for a new device, whose transfers keep these address bits" },
        { "--slot-size", "SIZE", "create: a power of two; 2048 unless given" },
        { "--max-size", "SIZE", "create: let it grow so far when it is full" },
        { "--areas", "N", "create: equal parts that leases take unless they say more; 1 unless given" },
        { "--slots", "N", "lease: so many, or less where there are no more; an area unless given" },
        { "--direction", "to_device|from_device|bidirectional",
          "map: which way the data goes; bidirectional unless given. sync, unmap: which way it was said to go, to be checked" },
        { "--align-offset", "ADDRESS", "map: the buffer's address or its low bits, of which the device keeps some" },
        { "--offset", "BYTES", "sync: where in the mapping; its start unless given" },
        { "--size", "SIZE", "sync: how much; up to its end unless given. unmap: how much it was, to be checked" },
        { "--for", "cpu|device", "sync: who looks at the data next, to be checked" },
        { "--wait", "SECONDS", "create, map, lease: how long to wait for memory; not at all unless given" },
        { "--high", NULL, "create, map, lease: use the emergency reserve if need be, and pass those that wait" },
        { "--force", NULL, "destroy: end its mappings and leases, and list them" },
        { NULL },
};

static const struct ctl_action actions[] = {
        { "create", "a size, and perhaps a command to run meanwhile", 1, CTL_OPERANDS_MAX, create,
          "--device --parent --mask --min-align-mask --slot-size --max-size --areas --wait --high " },
        { "map", "a bounce pool and a size, and perhaps a command to run meanwhile", 2, CTL_OPERANDS_MAX, map,
          "--direction --align-offset --wait --high " },
        { "lease", "a bounce pool, and perhaps a command to run meanwhile", 1, CTL_OPERANDS_MAX, lease,
          "--slots --wait --high " },
        { "sync", "one mapping", 1, 1, sync_mapping, "--offset --size --direction --for " },
        { "unmap", "one mapping", 1, 1, unmap, "--size --direction " },
        { "destroy", "one bounce pool", 1, 1, destroy, "--force " },
        { "show", "one bounce pool", 1, 1, show, "" },
};

static enum ctl_status run_bounces(struct ctl *ctl) {
        return actions_run(ctl, actions, N(actions), list, "--owner --device ");
}

const struct ctl_verb verb_bounces = {
        .name = "bounces",
        .operands = "[create SIZE [COMMAND…] | map BOUNCE SIZE [COMMAND…] | lease BOUNCE [COMMAND…] | sync MAPPING | "
                    "unmap MAPPING | destroy BOUNCE | show BOUNCE]",
        .summary = "list bounce pools, make one, map in it, destroy one",
        .doc = "A bounce pool is memory that a device can reach, in slots, for data that lies where it cannot. Without "
               "more, lists yours, or as an administrator everybody's: IN-USE are the slots of mappings and leases, HIGH "
               "the most that ever were, FULLS how often no run of slots was found. What is taken here is there until "
               "dmabrokerctl is interrupted or COMMAND ends; COMMAND finds it in its environment, as DMABROKER_BOUNCE, "
               "DMABROKER_MAPPING, DMABROKER_DMA_ADDR and so on, and its status becomes dmabrokerctl's. BOUNCE is a number "
               "from the list, or the name of a device that has only one.",
        .words = "create map lease sync unmap destroy show",
        .options = options,
        .max_operands = CTL_OPERANDS_MAX,
        .run = run_bounces,
};
