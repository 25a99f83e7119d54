/* pools: list, create, take blocks, give them back, trim, destroy. */
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
        show_put_use(row, in_use, show_uint(row, "high_water"), show_uint(row, "blocks"));
}

static const struct show_column pool_columns[] = {
        { "POOL", "pool", SHOW_NUMBER },
        { "NAME", "name", SHOW_NAME },
        { "OWNER", "owner" },
        { "DEVICE", "device_name", SHOW_NAME },
        { "BLOCK-SIZE", "block_size", SHOW_BYTES },
        { "IN-USE", "in_use", SHOW_NUMBER },
        { "BLOCKS", "blocks", SHOW_NUMBER },
        { "USE", "used_percent", SHOW_BAR },
        { "HIGH", "high_water", SHOW_NUMBER },
        { "LEASED", "leased", SHOW_NUMBER },
        { "QUARANTINED", "quarantined", SHOW_NUMBER },
        { "RESERVE", "reserve", SHOW_NUMBER },
        { "MAX", "max_blocks", SHOW_NUMBER },
        { "BYTES", "bytes", SHOW_BYTES },
        { "WAITERS", "waiters", SHOW_NUMBER },
        { "ADDRESSING", "addressing" },
        { "AGE", "age_ms", SHOW_MS },
};

static const struct list pools = {
        .method = "pool.list",
        .items = "pools",
        .handle = "pool",
        .name = "name",
        .called = "pool named",
        .columns = pool_columns,
        .n_columns = N(pool_columns),
        .add = add_use,
};

/* The first five are those of the kernel's `pools` in sysfs. */
static const struct show_column stats_columns[] = {
        { "NAME", "name", SHOW_NAME },
        { "IN-USE", "in_use", SHOW_NUMBER },
        { "BLOCKS", "blocks", SHOW_NUMBER },
        { "BLOCK-SIZE", "block_size", SHOW_BYTES },
        { "SLABS", "slabs", SHOW_NUMBER },
        { "POOL", "pool", SHOW_NUMBER },
        { "OWNER", "owner" },
        { "DEVICE", "device_name", SHOW_NAME },
        { "HIGH", "high_water", SHOW_NUMBER },
        { "RESERVE", "reserve", SHOW_NUMBER },
        { "LEASED", "leased", SHOW_NUMBER },
        { "LEASES", "leases", SHOW_NUMBER },
        { "QUARANTINED", "quarantined", SHOW_NUMBER },
        { "ALLOCS", "allocs", SHOW_NUMBER },
        { "FREES", "frees", SHOW_NUMBER },
        { "FAILURES", "failures", SHOW_NUMBER },
        { "WAITS", "waits", SHOW_NUMBER },
        { "TIMEOUTS", "timeouts", SHOW_NUMBER },
        { "RECALLS", "recalls", SHOW_NUMBER },
};

const struct list list_pool_stats = {
        .method = "pool.list",
        .items = "pools",
        .handle = "pool",
        .columns = stats_columns,
        .n_columns = N(stats_columns),
        .add = add_use,
};

static enum ctl_status list(struct ctl *ctl) {
        json_t *params = json_object();
        enum ctl_status status = lists_filter(ctl, params);

        return status == CTL_OK ? lists_show(ctl, &pools, params) : status;
}

/* ---- what its devices and blocks are ---- */

/* Parameters that name the pool of the first operand. CTL_OK, or *ret is not set. */
static enum ctl_status pool_params(struct ctl *ctl, json_t **ret) {
        uint64_t pool;
        enum ctl_status status = lists_resolve(ctl, &pools, ctl->operands[1], &pool);

        if (status == CTL_OK)
                *ret = json_pack("{s:I}", "pool", (json_int_t)pool);
        return status;
}

static enum ctl_status create_params(struct ctl *ctl, json_t *params, json_t *device) {
        enum ctl_status status = ctl_param_mask(ctl, "--mask", device, "mask");
        uint64_t size;

        if (status == CTL_OK)
                status = ctl_parse_size(ctl, "SIZE", ctl->operands[2], &size);
        if (status == CTL_OK && size > INT64_MAX)
                status = ctl_misuse(ctl, "SIZE is too large: %s", ctl->operands[2]);
        if (status == CTL_OK)
                status = ctl_param_size(ctl, "--align", params, "align");
        if (status == CTL_OK)
                status = ctl_param_size(ctl, "--boundary", params, "boundary");
        if (status == CTL_OK)
                status = ctl_param_uint(ctl, "--reserve", params, "reserve");
        if (status == CTL_OK)
                status = ctl_param_uint(ctl, "--max-blocks", params, "max_blocks");
        if (status == CTL_OK)
                status = ctl_param_waiting(ctl, params);
        if (status != CTL_OK)
                return status;
        ctl_param_text(ctl, "--caching", params, "caching");
        json_object_set_new(params, "size", json_integer((json_int_t)size));
        if (json_object_set_new(params, "name", json_string(ctl->operands[1])))
                return ctl_misuse(ctl, "the name of a pool must be UTF-8");
        return CTL_OK;
}

static enum ctl_status create(struct ctl *ctl) {
        static const struct holding holding = {
                .method = "pool.create", .of = "device", .undo = "pool.destroy", .handle = "pool", .command = 3
        };
        json_t *params = json_object(), *device = json_object();
        enum ctl_status status = create_params(ctl, params, device);
        uint64_t handle;

        if (status == CTL_OK)
                status = devices_get(ctl, device, &handle);
        else
                json_decref(device);
        if (status != CTL_OK) {
                json_decref(params);
                return status;
        }
        json_object_set_new(params, "device", json_integer((json_int_t)handle));
        return hold(ctl, &holding, params);
}

/* ---- blocks ---- */

static const struct show_column block_columns[] = {
        { "DMA-ADDR", "dma_addr" },
        { "MACHINE-ADDR", "machine_addr" },
        { "REGION", "region", SHOW_NUMBER },
        { "OFFSET", "offset", SHOW_NUMBER },
        { "LEASE", "lease", SHOW_NUMBER },
};

enum { ALLOC_COLUMNS = N(block_columns) - 1 };

static void show_blocks(json_t *result) {
        show_table(json_object_get(result, "blocks"), block_columns, ALLOC_COLUMNS);
}

static enum ctl_status alloc(struct ctl *ctl) {
        static const struct holding holding = { .method = "pool.alloc", .of = "pool", .show = show_blocks, .command = 2 };
        json_t *params;
        enum ctl_status status = pool_params(ctl, &params);

        if (status != CTL_OK)
                return status;
        status = ctl_param_uint(ctl, "--count", params, "count");
        if (status == CTL_OK)
                status = ctl_param_waiting(ctl, params);
        if (status != CTL_OK) {
                json_decref(params);
                return status;
        }
        return hold(ctl, &holding, params);
}

static enum ctl_status lease(struct ctl *ctl) {
        static const struct holding holding = { .method = "pool.lease", .of = "pool", .command = 3 };
        json_t *params;
        uint64_t count;
        enum ctl_status status = ctl_parse_uint(ctl, "COUNT", ctl->operands[2], &count);

        if (status == CTL_OK && count > INT64_MAX)
                status = ctl_misuse(ctl, "COUNT is too large: %s", ctl->operands[2]);
        if (status == CTL_OK)
                status = pool_params(ctl, &params);
        if (status != CTL_OK)
                return status;
        json_object_set_new(params, "count", json_integer((json_int_t)count));
        status = ctl_param_waiting(ctl, params);
        if (status != CTL_OK) {
                json_decref(params);
                return status;
        }
        return hold(ctl, &holding, params);
}

static enum ctl_status free_blocks(struct ctl *ctl) {
        json_t *params, *addresses = json_array(), *result;
        enum ctl_status status = CTL_OK;
        uint64_t address;

        for (size_t i = 2; i < ctl->n_operands && status == CTL_OK; i++) {
                status = ctl_parse_address(ctl, "ADDRESS", ctl->operands[i], &address);
                if (status == CTL_OK)
                        json_array_append_new(addresses, json_sprintf("0x%llx", (unsigned long long)address));
        }
        if (status == CTL_OK)
                status = pool_params(ctl, &params);
        if (status != CTL_OK) {
                json_decref(addresses);
                return status;
        }
        json_object_set_new(params, "dma_addrs", addresses);
        status = ctl_call(ctl, "pool.free", params, &result);
        if (status != CTL_OK)
                return status;
        if (ctl->json)
                ctl_print_json(result);
        json_decref(result);
        return CTL_OK;
}

/* ---- the pool as a whole ---- */

static enum ctl_status call_pool(struct ctl *ctl, const char *method) {
        json_t *params, *result;
        enum ctl_status status = pool_params(ctl, &params);

        if (status == CTL_OK)
                status = ctl_call(ctl, method, params, &result);
        return status == CTL_OK ? lists_print(ctl, result, NULL, NULL, 0) : status;
}

static enum ctl_status trim(struct ctl *ctl) {
        return call_pool(ctl, "pool.trim");
}

static enum ctl_status show(struct ctl *ctl) {
        return call_pool(ctl, "pool.stats");
}

static enum ctl_status destroy(struct ctl *ctl) {
        json_t *params, *result;
        enum ctl_status status = pool_params(ctl, &params);

        if (status != CTL_OK)
                return status;
        ctl_param_flag(ctl, "--force", params, "force");
        status = ctl_call(ctl, "pool.destroy", params, &result);
        if (status == CTL_FAILURE)
                lists_print_refusal(ctl, "busy", block_columns, N(block_columns));
        if (status != CTL_OK)
                return status;
        if (ctl->json || json_array_size(json_object_get(result, "busy")))
                return lists_print(ctl, result, "busy", block_columns, N(block_columns));
        json_decref(result);
        return CTL_OK;
}

/* ---- the verb ---- */

static const struct ctl_option options[] = {
        { "--owner", "OWNER", "when listing: only this owner's, such as user:1000" },
        { "--device", "DEVICE",
          "when listing: only this device's; create: for this open device, by number or name, or for a new one of that "
          "name; " DEVICES_OWN " unless given" },
        { "--parent", "NAME", "create: the device above a new one" },
        { "--mask", "BITS|0xMASK", "create: for a new device that can reach these addresses" },
        { "--align", "SIZE", "create: a power of two; a cache line unless given" },
        { "--boundary", "SIZE", "create: a power of two that no block may cross" },
        { "--reserve", "BLOCKS", "create: have so many from the start, and keep them" },
        { "--max-blocks", "BLOCKS", "create: let there never be more" },
        { "--caching", "cached|wc|uc", "create: how the CPU shall see the memory; refused where that is not possible" },
        { "--count", "BLOCKS", "alloc: so many, or none; 1 unless given" },
        { "--wait", "SECONDS", "create, alloc, lease: how long to wait for memory; not at all unless given" },
        { "--high", NULL, "create, alloc, lease: use the emergency reserve if need be, and pass those that wait" },
        { "--force", NULL, "destroy: take back what is handed out, and list it" },
        { NULL },
};

static const struct ctl_action actions[] = {
        { "create", "a name and the size of a block, and perhaps a command to run meanwhile", 2, CTL_OPERANDS_MAX, create,
          "--device --parent --mask --align --boundary --reserve --max-blocks --caching --wait --high " },
        { "alloc", "a pool, and perhaps a command to run meanwhile", 1, CTL_OPERANDS_MAX, alloc, "--count --wait --high " },
        { "lease", "a pool and a number of blocks, and perhaps a command to run meanwhile", 2, CTL_OPERANDS_MAX, lease,
          "--wait --high " },
        { "free", "a pool and addresses of its blocks", 2, CTL_OPERANDS_MAX, free_blocks, "" },
        { "trim", "one pool", 1, 1, trim, "" },
        { "destroy", "one pool", 1, 1, destroy, "--force " },
        { "show", "one pool", 1, 1, show, "" },
};

static enum ctl_status run_pools(struct ctl *ctl) {
        return actions_run(ctl, actions, N(actions), list, "--owner --device ");
}

const struct ctl_verb verb_pools = {
        .name = "pools",
        .operands = "[create NAME SIZE [COMMAND…] | alloc POOL [COMMAND…] | lease POOL COUNT [COMMAND…] | free POOL "
                    "ADDRESS… | trim POOL | destroy POOL | show POOL]",
        .summary = "list pools of blocks, make one, take blocks, trim or destroy one",
        .doc = "Without more, lists your pools, or as an administrator everybody's: IN-USE are the blocks that are handed "
               "out, one by one or in leases, HIGH the most that ever were, QUARANTINED those that a vanished program "
               "had and its device might still write. A pool, blocks or a lease taken here are there until dmabrokerctl is "
               "interrupted or COMMAND ends; COMMAND finds what was taken in its environment, as DMABROKER_POOL, "
               "DMABROKER_BLOCK_SIZE, DMABROKER_BLOCKS and so on, and its status becomes dmabrokerctl's. POOL is a "
               "number from the list, or a name that only one pool in it has. trim gives memory back that no block needs; "
               "show prints everything that is known of one.",
        .words = "create alloc lease free trim destroy show",
        .options = options,
        .max_operands = CTL_OPERANDS_MAX,
        .run = run_pools,
};
