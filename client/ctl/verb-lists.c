/* regions, allocs: what there is. */
#include <stdio.h>

#include "client/ctl/lists.h"
#include "client/ctl/show.h"
#include "client/ctl/verbs.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

/* ---- regions ---- */

static const struct ctl_option regions_options[] = {
        { "--owner", "OWNER", "only this owner's, such as user:1000" },
        { "--device", "DEVICE", "only those reserved for this device" },
        { NULL },
};

static enum ctl_status run_regions(struct ctl *ctl) {
        static const struct show_column columns[] = {
                { "REGION", "region", SHOW_NUMBER },
                { "OWNER", "owner" },
                { "SOURCE", "source" },
                { "DEVICE", "device", SHOW_NUMBER },
                { "NODE", "node", SHOW_NUMBER },
                { "SIZE", "size", SHOW_BYTES },
                { "USED", "used", SHOW_BYTES },
                { "ALLOCS", "allocs", SHOW_NUMBER },
                { "EXTENTS", "extents", SHOW_NUMBER },
                { "MACHINE-ADDR", "machine_addr" },
                { "ADDRESSING", "addressing" },
        };
        json_t *params = json_object(), *result, *region, *first;
        enum ctl_status status = lists_filter(ctl, params);
        size_t i;

        if (status == CTL_OK)
                status = ctl_list(ctl, "region.list", params, "regions", "region", &result);
        if (status != CTL_OK)
                return status;
        if (!ctl->json) {
                json_array_foreach(json_object_get(result, "regions"), i, region) {
                        first = json_object_get(json_array_get(json_object_get(region, "extents"), 0), "machine_addr");
                        if (first)
                                json_object_set(region, "machine_addr", first);
                }
        }
        return lists_print(ctl, result, "regions", columns, N(columns));
}

const struct ctl_verb verb_regions = {
        .name = "regions",
        .operands = "",
        .summary = "list the regions that memory is handed out from",
        .doc = "A region is memory of one owner and one source, made of machine-contiguous extents; its machine "
               "address is that of the "
               "first. DEVICE is the device that a region is reserved for.",
        .options = regions_options,
        .run = run_regions,
};

/* ---- allocations ---- */

static const struct ctl_option allocs_options[] = {
        { "--owner", "OWNER", "only this owner's, such as user:1000" },
        { "--device", "DEVICE", "only this device's: its number, or its name" },
        { "--dma-addr", "ADDRESS", "only the one that holds this address of a device" },
        { "--machine-addr", "ADDRESS", "only the one that holds this address on the machine's bus" },
        { NULL },
};

static const struct show_column allocs_columns[] = {
        { "ALLOC", "alloc", SHOW_NUMBER },   { "OWNER", "owner" },                { "DEVICE", "device", SHOW_NUMBER },
        { "REGION", "region", SHOW_NUMBER }, { "OFFSET", "offset", SHOW_NUMBER }, { "SIZE", "size", SHOW_BYTES },
        { "DMA-ADDR", "dma_addr" },          { "MACHINE-ADDR", "machine_addr" },  { "ADDRESSING", "addressing" },
        { "LIFETIME", "lifetime" },          { "SHAREABLE", "shareable" },        { "AGE", "age_ms", SHOW_MS },
        { "POOL", "pool", SHOW_NUMBER },     { "BOUNCE", "bounce", SHOW_NUMBER },
        /* Of an address that was looked up only. */
        { "AT", "at", SHOW_NUMBER },         { "BLOCK", "block" },                { "LEASE", "lease", SHOW_NUMBER },
};

enum { ALLOCS_LOOKUP_COLUMNS = 3 };

/* Whose is this address? */
static enum ctl_status run_lookup(struct ctl *ctl, json_t *params) {
        const char *dma = ctl_value(ctl, "--dma-addr"), *machine = ctl_value(ctl, "--machine-addr");
        enum ctl_status status;
        uint64_t address;
        json_t *result;

        if (dma && machine)
                status = ctl_misuse(ctl, "--dma-addr and --machine-addr cannot both be given");
        else
                status = ctl_parse_address(ctl, dma ? "--dma-addr" : "--machine-addr", dma ? dma : machine, &address);
        if (status != CTL_OK) {
                json_decref(params);
                return status;
        }
        ctl_put_hex(params, dma ? "dma_addr" : "machine_addr", address);
        status = ctl_call(ctl, "coherent.lookup", params, &result);
        if (status != CTL_OK)
                return status;
        if (ctl->json)
                return lists_print(ctl, result, NULL, NULL, 0);
        result = json_pack("{s:[o]}", "allocs", result);
        return lists_print(ctl, result, "allocs", allocs_columns, N(allocs_columns));
}

static enum ctl_status run_allocs(struct ctl *ctl) {
        bool lookup = ctl_has(ctl, "--dma-addr") || ctl_has(ctl, "--machine-addr");
        json_t *params = json_object(), *result;
        enum ctl_status status;

        if (lookup && ctl_has(ctl, "--owner")) {
                json_decref(params);
                return ctl_misuse(ctl, "--owner and an address cannot both be given");
        }
        status = lists_filter(ctl, params);
        if (status != CTL_OK)
                return status;
        if (lookup)
                return run_lookup(ctl, params);
        status = ctl_list(ctl, "coherent.list", params, "allocs", "alloc", &result);
        if (status != CTL_OK)
                return status;
        return lists_print(ctl, result, "allocs", allocs_columns, N(allocs_columns) - ALLOCS_LOOKUP_COLUMNS);
}

const struct ctl_verb verb_allocs = {
        .name = "allocs",
        .operands = "",
        .summary = "list allocations, or find the one that holds an address",
        .doc = "Yours, or as an administrator everybody's. LIFETIME is session for memory that ends with the program "
               "that allocated it, "
               "owner for memory that stays until it is freed. POOL and BOUNCE are what an allocation belongs to that is "
               "cut into blocks or slots; for an address, AT is where in the allocation it lies, BLOCK where the block "
               "starts that holds it, and LEASE what that is part of.",
        .options = allocs_options,
        .run = run_allocs,
};
