#include "proto/methods.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof(*(array)))

#define FIELD(structure, member, type_, ...) FIELD_AS(structure, member, #member, type_, __VA_ARGS__)
/* For a name that C has taken. */
#define FIELD_AS(structure, member, name_, type_, ...)                                                               \
        {                                                                                                            \
                .name = name_, .type = SCHEMA_##type_, .offset = offsetof(struct structure, member),                 \
                .size = sizeof(((struct structure *)0)->member), __VA_ARGS__                                         \
        }
#define STRUCT(structure, rows)                                                                                      \
        { .name = #structure, .size = sizeof(struct structure), .fields = rows, .n_fields = ARRAY_SIZE(rows) }
#define DEFINE(structure, ...)                                                                                       \
        static const struct schema_field structure##_rows[] = { __VA_ARGS__ };                                       \
        static const struct schema_struct structure##_struct = STRUCT(structure, structure##_rows)

#define NEEDED .required = true
#define HANDLE .min = 1, .max = SCHEMA_INTEGER_MAX
#define NAME .min = 1, .max = 128
/* Of whatever takes memory and may wait for it. */
#define MEMORY_REASONS                                                                                               \
        REASON_no_memory, REASON_no_contiguous, REASON_would_block, REASON_timeout, REASON_busy, REASON_gone,        \
                REASON_source_unavailable
#define ERRORS(...) (const enum reason[]){ __VA_ARGS__, REASON_NONE }

static const char *const role_names[] = { "admin", "local", "guest", NULL };
static const char *const addressing_names[] = { "machine", "simulated", "none", NULL };
static const char *const translation_names[] = { "identity", "iommu", "grant", "guest", NULL };
static const char *const priority_names[] = { "normal", "high", NULL };
static const char *const lifetime_names[] = { "session", "owner", NULL };
static const char *const caching_names[] = { "cached", "wc", "uc", NULL };
static const char *const block_state_names[] = { "free", "used", "leased", "quarantined", NULL };
static const char *const resting_names[] = { "alloc", "blocks", "slots", "region", NULL };
static const char *const rests_names[] = { "vanished", "damaged", NULL };
static const char *const direction_names[] = { "to_device", "from_device", "bidirectional", NULL };
static const char *const sync_names[] = { "cpu", "device", NULL };
static const char *const topic_names[] = { "recall", "pressure", "leak", "guest", NULL };
static const char *const guest_state_names[] = { "unknown", "off", "running", "paused", NULL };
static const char *const guest_change_names[] = { "started", "stopped", "rebooted", "attached", "detached", "connected",
                                                 "leaving", NULL };
static const char *const guest_via_names[] = { "libvirt", "qmp", "none", "xen", NULL };
static const char *const window_state_names[] = { "reserving", "plugging", "plugged", "leaving", NULL };
static const char *const grant_kind_names[] = { "window", "map", "share", NULL };
static const char *const grant_state_names[] = { "granted", "revoking", "mapped", "shared", "gone", NULL };
static const char *const pressure_names[] = { "requests", "host", "grants", NULL };
static const char *const source_state_names[] = { "ready", "unavailable", NULL };
static const char *const stats_group_names[] = { "rpc", "memory", "owners", NULL };
static const char *const quota_names[] = { "bytes",   "held_bytes", "low_bytes", "allocs",
                                           "devices", "regions",    "pools",     "leases",
                                           "mappings", "waiters",   "connections", "calls_per_second",
                                           "anonymous_bytes", "grants", NULL };

#define DOC_REQUEST_KEY                                                                                              \
        "the same key from the same owner gives the same answer again and takes nothing twice"
#define DOC_ADDRESSING                                                                                               \
        "whether the addresses are the machine's or made up by the simulation; none: it was swapped out, and has none"
#define DOC_MACHINE_ADDR "address on the host's memory bus; told to administrators and local users only"
#define DOC_LIST_OWNER "only this owner's, such as user:1000; administrators may name any owner, others themselves"
#define DOC_AFTER "only those with a greater handle: the last one of the page before"
#define DOC_LIST_LIMIT "how many to answer with at most; 1000 unless given"
#define DOC_LEVEL                                                                                                    \
        "of pressure: requests, calls wait for memory; host, the host wants memory back, by its own measure or by an " \
        "administrator's word; grants, the grant table of a memory domain of Xen's, by that name, is nearly full: count is how " \
        "many pages are granted. Each begins and ends by itself"
#define DOC_MORE "whether the limit cut the list short"
#define LIST_LIMIT .min = 1, .max = PROTOCOL_LIST_MAX
#define DOC_OFFSET "where in the region"
#define DOC_REGION "the region that it lies in"
#define DOC_DEVICE_NAME "the device's name"
#define DOC_CHARGED "who is charged for it"
#define DOC_PRIORITY "high may use the emergency reserve, and passes those that wait"
#define DOC_FD "pass a file descriptor of its region with the reply, to be mapped at offset; local sockets only"
#define DOC_DIRECTION "which way the data goes"
#define DOC_RECALLS "times that lease holders were asked to return what they do not use"
#define POSITIVE .min = 1, .max = SCHEMA_INTEGER_MAX

/* Of what may have to wait for memory. */
#define WAIT_ROWS(structure)                                                                                         \
        FIELD(structure, wait_ms, UINT, .max = PROTOCOL_WAIT_MS_MAX,                                                 \
              .doc = "milliseconds to wait for memory; 0: never wait; the device's wait_ms unless given"),           \
        FIELD(structure, priority, ENUM, .names = priority_names, .doc = DOC_PRIORITY)

/* Where something lies in a region. */
#define PLACE_ROWS(structure)                                                                                        \
        FIELD(structure, region, UINT, NEEDED, HANDLE, .doc = DOC_REGION),                                           \
        FIELD(structure, offset, UINT, NEEDED, .doc = DOC_OFFSET)

#define ADDR_ROWS(structure, what)                                                                                   \
        FIELD(structure, dma_addr, HEX, NEEDED, .doc = what),                                                        \
        FIELD(structure, machine_addr, HEX, .doc = DOC_MACHINE_ADDR)

#define ADDRESSING_ROW(structure)                                                                                    \
        FIELD(structure, addressing, ENUM, NEEDED, .names = addressing_names, .doc = DOC_ADDRESSING)

DEFINE(list_params,
        FIELD(list_params, device, UINT, HANDLE, .doc = "only this device's"),
        FIELD(list_params, owner, STRING, NAME, .doc = DOC_LIST_OWNER),
        FIELD(list_params, after, UINT, .doc = DOC_AFTER),
        FIELD(list_params, limit, UINT, LIST_LIMIT, .doc = DOC_LIST_LIMIT));

static const struct schema_struct empty_result_struct = { .name = "empty_result", .size = sizeof(struct empty_result) };

DEFINE(ok_result, FIELD(ok_result, ok, BOOL, NEEDED, .doc = "always true; a failure is an error"));

/* ---- broker ---- */

DEFINE(broker_hello_params,
        FIELD(broker_hello_params, client, STRING, NAME, .doc = "what the client calls itself, for logs and lists"),
        FIELD(broker_hello_params, protocol, UINT, .min = 1, .max = 65535,
              .doc = "the version that the client speaks; 1 unless given"),
        FIELD(broker_hello_params, session, STRING, NAME,
              .doc = "the token of a session to resume; without it a new session is opened"));

DEFINE(hello_limits,
        FIELD(hello_limits, message_bytes, UINT, NEEDED, .doc = "bytes of one message"),
        FIELD(hello_limits, nesting, UINT, NEEDED, .doc = "levels of arrays and objects in one message"),
        FIELD(hello_limits, calls_in_flight, UINT, NEEDED, .doc = "calls of one connection that wait for their reply"),
        FIELD(hello_limits, batch_elements, UINT, NEEDED, .doc = "requests in one batch"),
        FIELD(hello_limits, batch_reply_bytes, UINT, NEEDED,
              .doc = "bytes of a connection's unfinished replies to batches beyond which further calls in "
                     "batches are refused unexecuted"),
        FIELD(hello_limits, fds_per_reply, UINT, NEEDED,
              .doc = "file descriptors with one reply; 0 where none can travel"),
        FIELD(hello_limits, queue_bytes, UINT, NEEDED,
              .doc = "bytes of replies not read yet at which the connection is closed"),
        FIELD(hello_limits, grace_ms, UINT, NEEDED,
              .doc = "milliseconds that a session outlives its connection"),
        FIELD(hello_limits, wait_ms, UINT, NEEDED, .doc = "the longest wait_ms that a call may ask for"),
        FIELD(hello_limits, list_elements, UINT, NEEDED, .doc = "the greatest limit of a list"));

DEFINE(broker_hello_result,
        FIELD(broker_hello_result, server, STRING, NEEDED, .doc = "the name of the daemon"),
        FIELD(broker_hello_result, version, STRING, NEEDED, .doc = "the version of the daemon"),
        FIELD(broker_hello_result, protocol, UINT, NEEDED,
              .doc = "the version of the protocol that is spoken from now on"),
        FIELD(broker_hello_result, session, STRING, NEEDED, .doc = "the session's token; a secret"),
        FIELD(broker_hello_result, owner, STRING, NEEDED,
              .doc = "who the caller is, such as user:1000; nobody can name their own"),
        FIELD(broker_hello_result, role, ENUM, NEEDED, .names = role_names, .doc = "what the caller may do"),
        FIELD(broker_hello_result, capabilities, STRING, NEEDED, .array = true,
              .doc = "what this daemon can do beyond the methods themselves"),
        FIELD(broker_hello_result, limits, OBJECT, NEEDED, .sub = &hello_limits_struct,
              .doc = "the connection's limits"));

DEFINE(broker_status_params,
        FIELD(broker_status_params, runs, UINT, LIST_LIMIT,
              .doc = "also tell where the free memory is: at most so many machine-contiguous runs of each source; "
                     "not for guests"));

DEFINE(memory_run,
        FIELD(memory_run, machine_addr, HEX, NEEDED, .doc = "where on the host's memory bus it starts"),
        FIELD(memory_run, size, UINT, NEEDED, .doc = "its bytes"));

DEFINE(status_source,
        FIELD(status_source, name, STRING, NEEDED, .doc = "hugetlb, dma-heap, xen, sim"),
        FIELD(status_source, addressing, ENUM, NEEDED, .names = addressing_names, .doc = DOC_ADDRESSING),
        FIELD(status_source, state, ENUM, NEEDED, .names = source_state_names, .doc = "whether it serves memory"),
        FIELD(status_source, why, STRING, NEEDED, .doc = "a sentence: why it was chosen, or why it does not serve"),
        FIELD(status_source, total, UINT, NEEDED, .doc = "bytes that it holds"),
        FIELD(status_source, free, UINT, NEEDED, .doc = "bytes of these in no region"),
        FIELD(status_source, in_regions, UINT, NEEDED, .doc = "bytes of these in regions"),
        FIELD(status_source, used, UINT, NEEDED, .doc = "bytes allocated within regions"),
        FIELD(status_source, largest_free, UINT, NEEDED, .doc = "bytes of the largest machine-contiguous free piece"),
        FIELD(status_source, low_total, UINT, NEEDED, .doc = "bytes below 4 GiB"),
        FIELD(status_source, low_free, UINT, NEEDED, .doc = "free bytes below 4 GiB"),
        FIELD(status_source, grain, UINT, NEEDED, .doc = "bytes of the pieces that it moves between owners"),
        FIELD(status_source, pinned, BOOL, NEEDED, .doc = "whether the kernel is kept from moving the pages"),
        FIELD(status_source, limit, UINT, .doc = "bytes that it may grow to; absent: no limit of its own"),
        FIELD(status_source, available, UINT,
              .doc = "bytes more that it can get when they are asked for, as far as it can tell now; absent: unknown"),
        FIELD(status_source, pending, UINT, NEEDED,
              .doc = "jobs under way, such as getting, cleaning and giving back memory"),
        FIELD(status_source, emergency, UINT, NEEDED, .doc = "bytes held back for allocations of high priority"),
        FIELD(status_source, awaited, UINT,
              .doc = "bytes that it has again when the guests that still have them mapped have not; absent: none"),
        FIELD(status_source, free_runs, OBJECT, .array = true, .sub = &memory_run_struct,
              .doc = "memory in no region, ascending; only with runs"));

DEFINE(status_backend,
        FIELD(status_backend, name, STRING, NEEDED, .doc = "who translates a device's addresses"),
        FIELD(status_backend, translation, ENUM, NEEDED, .names = translation_names, .doc = "how"),
        FIELD(status_backend, devices, UINT, NEEDED, .doc = "open devices behind it"));

DEFINE(status_counts,
        FIELD(status_counts, connections, UINT, NEEDED, .doc = "open connections"),
        FIELD(status_counts, sessions, UINT, NEEDED, .doc = "sessions, those in their grace time included"),
        FIELD(status_counts, owners, UINT, NEEDED, .doc = "owners that hold something or are connected"),
        FIELD(status_counts, devices, UINT, NEEDED, .doc = "open devices"),
        FIELD(status_counts, regions, UINT, NEEDED, .doc = "regions"),
        FIELD(status_counts, allocs, UINT, NEEDED, .doc = "live allocations, those of pools included"),
        FIELD(status_counts, pools, UINT, NEEDED, .doc = "pools"),
        FIELD(status_counts, bounces, UINT, NEEDED, .doc = "bounce pools"),
        FIELD(status_counts, leases, UINT, NEEDED, .doc = "leases of either"),
        FIELD(status_counts, mappings, UINT, NEEDED, .doc = "mappings"),
        FIELD(status_counts, waiters, UINT, NEEDED, .doc = "calls that wait for memory"),
        FIELD(status_counts, guests, UINT, NEEDED, .doc = "guests of the configuration, whether they run or not"));

DEFINE(status_guarantees,
        FIELD(status_guarantees, bytes, UINT, NEEDED, .doc = "guaranteed to owners, wherever the memory lies"),
        FIELD(status_guarantees, low_bytes, UINT, NEEDED, .doc = "beside these, guaranteed below 4 GiB"),
        FIELD(status_guarantees, unmet, UINT, NEEDED,
              .doc = "of bytes, what the owners do not hold: so much stays free for them"),
        FIELD(status_guarantees, unmet_low, UINT, NEEDED, .doc = "of low_bytes, likewise"));

DEFINE(status_anonymous,
        FIELD(status_anonymous, total, UINT, NEEDED, .doc = "bytes that it takes"),
        FIELD(status_anonymous, used, UINT, NEEDED, .doc = "bytes of these with something in them"),
        FIELD(status_anonymous, limit, UINT, NEEDED, .doc = "bytes that it may take; 0: nothing can be swapped out"));

DEFINE(broker_status_result,
        FIELD(broker_status_result, server, STRING, NEEDED, .doc = "the name of the daemon"),
        FIELD(broker_status_result, version, STRING, NEEDED, .doc = "the version of the daemon"),
        FIELD(broker_status_result, uptime, UINT, NEEDED, .doc = "seconds since the daemon started"),
        FIELD(broker_status_result, uptime_ms, UINT, NEEDED, .doc = "the same in milliseconds"),
        FIELD(broker_status_result, addressing, ENUM, NEEDED, .names = addressing_names,
              .doc = "simulated if any source that serves memory is a simulation"),
        FIELD(broker_status_result, sources, OBJECT, NEEDED, .array = true, .sub = &status_source_struct,
              .doc = "where memory comes from"),
        FIELD(broker_status_result, backends, OBJECT, NEEDED, .array = true, .sub = &status_backend_struct,
              .doc = "who translates addresses"),
        FIELD(broker_status_result, counts, OBJECT, NEEDED, .sub = &status_counts_struct,
              .doc = "how much there is of everything"),
        FIELD(broker_status_result, guarantees, OBJECT, NEEDED, .sub = &status_guarantees_struct,
              .doc = "what was guaranteed, to all owners together"),
        FIELD(broker_status_result, quarantined, UINT, NEEDED,
              .doc = "bytes that rest, of all owners together, see quarantine.list"),
        FIELD(broker_status_result, anonymous, OBJECT, NEEDED, .sub = &status_anonymous_struct,
              .doc = "ordinary memory for what is swapped out"),
        FIELD(broker_status_result, notes, STRING, NEEDED, .array = true,
              .doc = "sentences an administrator should read, such as why the simulation was picked"));

/* ---- device ---- */

DEFINE(device_list_params,
        FIELD(device_list_params, owner, STRING, NAME, .doc = DOC_LIST_OWNER),
        FIELD(device_list_params, after, UINT, .doc = DOC_AFTER),
        FIELD(device_list_params, limit, UINT, LIST_LIMIT, .doc = DOC_LIST_LIMIT));

#define DOC_MASK "the addresses that it can put on the bus"
#define DOC_COHERENT_MASK "the addresses that coherent memory must have"
#define DOC_BOUNDARY "bytes: a power of two whose multiples no allocation crosses"
#define DOC_MAX_SEGMENT "bytes of the longest piece that it can transfer at once"
#define DOC_MIN_ALIGN_MASK "the address bits that bouncing must preserve"
#define DOC_NODE "the NUMA node that its memory should be on"
#define DOC_WAIT_MS "milliseconds that its allocations wait for memory unless they say otherwise"

DEFINE(device_info,
        FIELD(device_info, device, UINT, NEEDED, HANDLE, .doc = "its handle"),
        FIELD(device_info, name, STRING, NEEDED, .doc = "its name"),
        FIELD(device_info, owner, STRING, NEEDED, .doc = "who opened it"),
        FIELD(device_info, parent, STRING, .doc = "the device that it is attached to"),
        FIELD(device_info, via, STRING, NEEDED, .doc = "the nearest ancestor, or itself, that does the DMA"),
        FIELD(device_info, translation, ENUM, NEEDED, .names = translation_names, .doc = "what its addresses mean"),
        FIELD(device_info, mask, HEX, NEEDED, .doc = DOC_MASK),
        FIELD(device_info, coherent_mask, HEX, NEEDED, .doc = DOC_COHERENT_MASK),
        FIELD(device_info, boundary, UINT, .doc = DOC_BOUNDARY),
        FIELD(device_info, max_segment, UINT, .doc = DOC_MAX_SEGMENT),
        FIELD(device_info, min_align_mask, HEX, .doc = DOC_MIN_ALIGN_MASK),
        FIELD(device_info, node, UINT, .doc = DOC_NODE),
        FIELD(device_info, wait_ms, UINT, .doc = DOC_WAIT_MS),
        FIELD(device_info, allocs, UINT, NEEDED, .doc = "live allocations for it"),
        FIELD(device_info, bytes, UINT, NEEDED, .doc = "bytes of these"),
        FIELD(device_info, reserved_bytes, UINT, NEEDED, .doc = "bytes reserved for it alone"),
        FIELD(device_info, session_bound, BOOL, NEEDED, .doc = "whether it is closed when its session ends"));

DEFINE(device_list_result,
        FIELD(device_list_result, devices, OBJECT, NEEDED, .array = true, .sub = &device_info_struct,
              .doc = "in the order of their handles"),
        FIELD(device_list_result, more, BOOL, NEEDED, .doc = DOC_MORE));

DEFINE(device_get_params, FIELD(device_get_params, device, UINT, NEEDED, HANDLE, .doc = "the device"));

DEFINE(device_open_params,
        FIELD(device_open_params, name, STRING, NEEDED, NAME,
              .doc = "a PCI address such as 0000:03:00.0, or any other name"),
        FIELD(device_open_params, parent, STRING, NAME,
              .doc = "the device that it is attached to, and that does the DMA if it cannot; found in sysfs for "
                     "PCI devices"),
        FIELD(device_open_params, mask, HEX, .doc = DOC_MASK "; all ones unless given"),
        FIELD(device_open_params, coherent_mask, HEX, .doc = DOC_COHERENT_MASK "; the mask unless given"),
        FIELD(device_open_params, boundary, UINT, .doc = DOC_BOUNDARY),
        FIELD(device_open_params, max_segment, UINT, .doc = DOC_MAX_SEGMENT),
        FIELD(device_open_params, min_align_mask, HEX, .doc = DOC_MIN_ALIGN_MASK),
        FIELD(device_open_params, node, UINT, .max = 1023, .doc = DOC_NODE),
        FIELD(device_open_params, wait_ms, UINT, .max = PROTOCOL_WAIT_MS_MAX, .doc = DOC_WAIT_MS),
        FIELD(device_open_params, request_key, STRING, NAME, .doc = DOC_REQUEST_KEY));

DEFINE(device_open_result,
        FIELD(device_open_result, device, UINT, NEEDED, HANDLE, .doc = "its handle"),
        FIELD(device_open_result, translation, ENUM, NEEDED, .names = translation_names,
              .doc = "what its addresses mean: identity (machine addresses), iommu, grant, guest"),
        FIELD(device_open_result, via, STRING, NEEDED, .doc = "the nearest ancestor, or itself, that does the DMA"),
        FIELD(device_open_result, name, STRING, NEEDED, .doc = "its name"),
        FIELD(device_open_result, parent, STRING, .doc = "the device that it is attached to"),
        FIELD(device_open_result, mask, HEX, NEEDED, .doc = DOC_MASK),
        FIELD(device_open_result, coherent_mask, HEX, NEEDED, .doc = DOC_COHERENT_MASK),
        FIELD(device_open_result, boundary, UINT, .doc = DOC_BOUNDARY),
        FIELD(device_open_result, max_segment, UINT, .doc = DOC_MAX_SEGMENT),
        FIELD(device_open_result, min_align_mask, HEX, .doc = DOC_MIN_ALIGN_MASK),
        FIELD(device_open_result, node, UINT, .doc = DOC_NODE),
        FIELD(device_open_result, wait_ms, UINT, .doc = DOC_WAIT_MS));

DEFINE(device_set_mask_params,
        FIELD(device_set_mask_params, device, UINT, NEEDED, HANDLE, .doc = "the device"),
        FIELD(device_set_mask_params, mask, HEX, NEEDED, .doc = "the new mask"),
        FIELD(device_set_mask_params, coherent, BOOL,
              .doc = "true: the coherent mask only; false or absent: both masks"));

DEFINE(device_set_mask_result,
        FIELD(device_set_mask_result, ok, BOOL, NEEDED, .doc = "always true; a mask that cannot be served is an error"),
        FIELD(device_set_mask_result, mask, HEX, NEEDED, .doc = "the mask in force"),
        FIELD(device_set_mask_result, coherent_mask, HEX, NEEDED, .doc = "the coherent mask in force"));

DEFINE(device_supported_params,
        FIELD(device_supported_params, device, UINT, NEEDED, HANDLE, .doc = "the device"),
        FIELD(device_supported_params, mask, HEX, NEEDED, .doc = "the mask in question"),
        FIELD(device_supported_params, coherent, BOOL, .doc = "as for device.set_mask"));

DEFINE(device_supported_result,
        FIELD(device_supported_result, supported, BOOL, NEEDED, .doc = "whether device.set_mask would accept it"),
        FIELD(device_supported_result, why, STRING, .doc = "a sentence: why not"));

DEFINE(device_close_params,
        FIELD(device_close_params, device, UINT, NEEDED, HANDLE, .doc = "the device"),
        FIELD(device_close_params, force, BOOL, .doc = "free what it still holds instead of refusing"));

static const struct schema_field device_leak_rows[] = {
        FIELD(device_leak, alloc, UINT, HANDLE, .doc = "an allocation"),
        FIELD(device_leak, pool, UINT, HANDLE, .doc = "or a pool"),
        FIELD(device_leak, bounce, UINT, HANDLE, .doc = "or a bounce pool, or with mapping: the one that it is of"),
        FIELD(device_leak, mapping, UINT, HANDLE, .doc = "or a mapping"),
        FIELD(device_leak, name, STRING, .doc = "the pool's name"),
        FIELD(device_leak, size, UINT, NEEDED, .doc = "its bytes"),
        FIELD(device_leak, dma_addr, HEX, .doc = "its address for the device; a pool has none"),
};
const struct schema_struct device_leak_struct = STRUCT(device_leak, device_leak_rows);

DEFINE(device_close_result,
        FIELD(device_close_result, leaked, OBJECT, NEEDED, .array = true, .sub = &device_leak_struct,
              .doc = "what the device still held and force freed; without force the error busy has the same "
                     "list in its data"));

DEFINE(device_reserve_params,
        FIELD(device_reserve_params, device, UINT, NEEDED, HANDLE, .doc = "the device"),
        FIELD(device_reserve_params, size, UINT, NEEDED, .min = 1, .max = SCHEMA_INTEGER_MAX,
              .doc = "bytes from the first to the last"),
        FIELD(device_reserve_params, mask, HEX, .doc = "narrower than the device's coherent mask"),
        FIELD(device_reserve_params, stride, UINT, .min = 1, .max = SCHEMA_INTEGER_MAX,
              .doc = "with usable: of every stride bytes only the first usable may be used"),
        FIELD(device_reserve_params, usable, UINT, .min = 1, .max = SCHEMA_INTEGER_MAX,
              .doc = "see stride; a stride of 2 MiB with 1 MiB usable leaves the even megabytes"),
        FIELD(device_reserve_params, request_key, STRING, NAME, .doc = DOC_REQUEST_KEY));

DEFINE(device_reserve_result,
        FIELD(device_reserve_result, region, UINT, NEEDED, HANDLE, .doc = "the region's handle"),
        FIELD(device_reserve_result, size, UINT, NEEDED, .doc = "bytes from the first to the last, as rounded"),
        FIELD(device_reserve_result, usable_bytes, UINT, NEEDED, .doc = "bytes that allocations can have"),
        FIELD(device_reserve_result, dma_addr, HEX, NEEDED, .doc = "the first byte's address for the device"),
        FIELD(device_reserve_result, machine_addr, HEX, .doc = DOC_MACHINE_ADDR),
        FIELD(device_reserve_result, addressing, ENUM, NEEDED, .names = addressing_names, .doc = DOC_ADDRESSING));

DEFINE(device_unreserve_params,
        FIELD(device_unreserve_params, device, UINT, NEEDED, HANDLE, .doc = "the device"),
        FIELD(device_unreserve_params, region, UINT, NEEDED, HANDLE, .doc = "the region that device.reserve gave"));

/* ---- coherent ---- */

DEFINE(coherent_move_params,
        FIELD(coherent_move_params, alloc, UINT, NEEDED, HANDLE, .doc = "the allocation"),
        FIELD(coherent_move_params, device, UINT, NEEDED, HANDLE, .doc = "the device that will use it, of the same owner"),
        FIELD(coherent_move_params, align, UINT, .doc = "a power of two; 4096 unless given, whatever the old one had"),
        FIELD(coherent_move_params, wait_ms, UINT, .max = PROTOCOL_WAIT_MS_MAX,
              .doc = "milliseconds to wait for memory; 0: never wait; the device's wait_ms unless given"),
        FIELD(coherent_move_params, priority, ENUM, .names = priority_names,
              .doc = "high may use the emergency reserve"),
        FIELD(coherent_move_params, fd, BOOL, .doc = "whether to pass a descriptor of the new region"),
        FIELD(coherent_move_params, request_key, STRING, NAME, .doc = DOC_REQUEST_KEY));

DEFINE(coherent_swap_out_params,
        FIELD(coherent_swap_out_params, alloc, UINT, NEEDED, HANDLE, .doc = "the allocation"),
        FIELD(coherent_swap_out_params, fd, BOOL,
              .doc = "pass a file descriptor of the ordinary memory with the reply, to be mapped at offset; local sockets only"));

DEFINE(coherent_swap_out_result,
        FIELD(coherent_swap_out_result, alloc, UINT, NEEDED, HANDLE, .doc = "its handle, the same as before"),
        PLACE_ROWS(coherent_swap_out_result),
        FIELD(coherent_swap_out_result, size, UINT, NEEDED, .doc = "its bytes"),
        ADDRESSING_ROW(coherent_swap_out_result));

DEFINE(coherent_swap_in_params,
        FIELD(coherent_swap_in_params, alloc, UINT, NEEDED, HANDLE, .doc = "the allocation"),
        FIELD(coherent_swap_in_params, align, UINT, .doc = "a power of two; 4096 unless given, whatever it had before"),
        FIELD(coherent_swap_in_params, boundary, UINT,
              .doc = "bytes: a power of two whose multiples it must not cross, in addition to the device's own"),
        FIELD(coherent_swap_in_params, mask, HEX, .doc = "narrower than the device's coherent mask"),
        WAIT_ROWS(coherent_swap_in_params),
        FIELD(coherent_swap_in_params, fd, BOOL, .doc = DOC_FD));

DEFINE(coherent_alloc_params,
        FIELD(coherent_alloc_params, device, UINT, NEEDED, HANDLE, .doc = "the device that will use it"),
        FIELD(coherent_alloc_params, size, UINT, NEEDED, .min = 1, .max = SCHEMA_INTEGER_MAX,
              .doc = "bytes; rounded up to pages"),
        FIELD(coherent_alloc_params, align, UINT,
              .doc = "a power of two; 4096 unless given"),
        FIELD(coherent_alloc_params, boundary, UINT,
              .doc = "bytes: a power of two whose multiples it must not cross, in addition to the device's own"),
        FIELD(coherent_alloc_params, mask, HEX, .doc = "narrower than the device's coherent mask"),
        FIELD(coherent_alloc_params, wait_ms, UINT, .max = PROTOCOL_WAIT_MS_MAX,
              .doc = "milliseconds to wait for memory; 0: never wait; the device's wait_ms unless given"),
        FIELD(coherent_alloc_params, priority, ENUM, .names = priority_names,
              .doc = "high may use the emergency reserve"),
        FIELD(coherent_alloc_params, zero, BOOL, .doc = "zero it even if it was the same owner's before"),
        FIELD(coherent_alloc_params, shareable, BOOL, .doc = "allow it to be mapped for a second device"),
        FIELD(coherent_alloc_params, lifetime, ENUM, .names = lifetime_names,
              .doc = "whether it is freed when the session ends, or stays until freed; session unless given"),
        FIELD(coherent_alloc_params, fd, BOOL,
              .doc = "pass a file descriptor of its region with the reply, to be mapped at offset; local sockets only"),
        FIELD(coherent_alloc_params, request_key, STRING, NAME, .doc = DOC_REQUEST_KEY));

DEFINE(coherent_alloc_result,
        FIELD(coherent_alloc_result, alloc, UINT, NEEDED, HANDLE, .doc = "its handle"),
        FIELD(coherent_alloc_result, region, UINT, NEEDED, HANDLE, .doc = "the region that it lies in"),
        FIELD(coherent_alloc_result, offset, UINT, NEEDED, .doc = "where in the region"),
        FIELD(coherent_alloc_result, size, UINT, NEEDED, .doc = "its bytes, as rounded"),
        FIELD(coherent_alloc_result, dma_addr, HEX, NEEDED, .doc = "the address that the device must be given"),
        FIELD(coherent_alloc_result, machine_addr, HEX, .doc = DOC_MACHINE_ADDR),
        FIELD(coherent_alloc_result, addressing, ENUM, NEEDED, .names = addressing_names, .doc = DOC_ADDRESSING));

DEFINE(coherent_free_params,
        FIELD(coherent_free_params, alloc, UINT, NEEDED, HANDLE, .doc = "the allocation"));

#define ALLOC_ROWS(structure)                                                                                        \
        FIELD(structure, alloc, UINT, NEEDED, HANDLE, .doc = "its handle"),                                          \
        FIELD(structure, device, UINT, NEEDED, HANDLE, .doc = "the device that it is for"),                          \
        FIELD(structure, owner, STRING, NEEDED, .doc = "who is charged for it"),                                     \
        FIELD(structure, region, UINT, NEEDED, HANDLE, .doc = "the region that it lies in"),                         \
        FIELD(structure, offset, UINT, NEEDED, .doc = "where in the region"),                                        \
        FIELD(structure, size, UINT, NEEDED, .doc = "its bytes"),                                                    \
        FIELD(structure, dma_addr, HEX, .doc = "its address for the device; none when it was swapped out"),          \
        FIELD(structure, machine_addr, HEX, .doc = DOC_MACHINE_ADDR),                                                \
        FIELD(structure, addressing, ENUM, NEEDED, .names = addressing_names, .doc = DOC_ADDRESSING),                \
        FIELD(structure, lifetime, ENUM, NEEDED, .names = lifetime_names, .doc = "until when it lives"),             \
        FIELD(structure, shareable, BOOL, NEEDED, .doc = "whether a second device may have it mapped"),              \
        FIELD(structure, age_ms, UINT, NEEDED, .doc = "milliseconds since it was allocated"),                        \
        FIELD(structure, pool, UINT, HANDLE, .doc = "the pool that cuts it into blocks, and alone may free it"),     \
        FIELD(structure, bounce, UINT, HANDLE, .doc = "the bounce pool that cuts it into slots, likewise")

DEFINE(alloc_info, ALLOC_ROWS(alloc_info));

DEFINE(coherent_list_result,
        FIELD(coherent_list_result, allocs, OBJECT, NEEDED, .array = true, .sub = &alloc_info_struct,
              .doc = "in the order of their handles"),
        FIELD(coherent_list_result, more, BOOL, NEEDED, .doc = DOC_MORE));

DEFINE(coherent_lookup_params,
        FIELD(coherent_lookup_params, dma_addr, HEX, .doc = "an address for a device, anywhere in an allocation"),
        FIELD(coherent_lookup_params, machine_addr, HEX,
              .doc = "or a machine address; exactly one of the two is needed"),
        FIELD(coherent_lookup_params, device, UINT, HANDLE, .doc = "only among this device's"));

DEFINE(coherent_lookup_result,
        ALLOC_ROWS(coherent_lookup_result),
        FIELD(coherent_lookup_result, at, UINT, NEEDED, .doc = "where in the allocation the address lies"),
        FIELD(coherent_lookup_result, block, HEX,
              .doc = "where the pool's block that it lies in starts, for the device"),
        FIELD(coherent_lookup_result, state, ENUM, .names = block_state_names, .doc = "what has become of that block"),
        FIELD(coherent_lookup_result, lease, UINT, HANDLE, .doc = "the lease that it lies in"));

/* ---- pool ---- */

#define DOC_BLOCK_ADDR "where it starts, for the device"
#define DOC_BLOCK_SIZE "bytes of a block"
#define DOC_BLOCK_ALIGN "the power of two that every block starts at a multiple of"
#define DOC_BLOCKS_PER_SLAB "blocks that the pool takes and gives back together"
#define DOC_POOL_BOUNDARY "bytes: the power of two whose multiples no block crosses"
#define DOC_SLAB_SIZE "bytes that the pool takes from memory at a time"
#define DOC_RESERVE "blocks that the pool keeps in any case, used ones among them"

DEFINE(pool_create_params,
        FIELD(pool_create_params, name, STRING, NEEDED, NAME, .doc = "for people; need not be unique"),
        FIELD(pool_create_params, device, UINT, NEEDED, HANDLE, .doc = "the device that will use the blocks"),
        FIELD(pool_create_params, size, UINT, NEEDED, POSITIVE, .doc = "bytes of a block; rounded up to align"),
        FIELD(pool_create_params, align, UINT, .doc = "a power of two; 64, a cache line, unless given"),
        FIELD(pool_create_params, boundary, UINT,
              .doc = "bytes: a power of two, not below size, whose multiples no block crosses"),
        FIELD(pool_create_params, reserve, UINT,
              .doc = "blocks to be there from the start and to stay, however short memory becomes"),
        FIELD(pool_create_params, caching, ENUM, .names = caching_names,
              .doc = "how the CPU sees the memory: cached unless given; what this memory cannot be is refused"),
        FIELD(pool_create_params, max_blocks, UINT,
              .doc = "blocks beyond which the pool does not grow; 0 or absent: no limit"),
        WAIT_ROWS(pool_create_params),
        FIELD(pool_create_params, request_key, STRING, NAME, .doc = DOC_REQUEST_KEY));

DEFINE(pool_create_result,
        FIELD(pool_create_result, pool, UINT, NEEDED, HANDLE, .doc = "its handle"),
        FIELD(pool_create_result, block_size, UINT, NEEDED, .doc = "bytes of a block, as rounded"),
        FIELD(pool_create_result, blocks_per_slab, UINT, NEEDED, .doc = DOC_BLOCKS_PER_SLAB),
        FIELD(pool_create_result, align, UINT, NEEDED, .doc = DOC_BLOCK_ALIGN),
        FIELD(pool_create_result, boundary, UINT, .doc = DOC_POOL_BOUNDARY),
        FIELD(pool_create_result, slab_size, UINT, NEEDED, .doc = DOC_SLAB_SIZE),
        FIELD(pool_create_result, reserve, UINT, NEEDED, .doc = DOC_RESERVE));

DEFINE(pool_alloc_params,
        FIELD(pool_alloc_params, pool, UINT, NEEDED, HANDLE, .doc = "the pool"),
        FIELD(pool_alloc_params, count, UINT, .min = 1, .max = PROTOCOL_BLOCKS_MAX, .doc = "blocks; 1 unless given"),
        WAIT_ROWS(pool_alloc_params),
        FIELD(pool_alloc_params, request_key, STRING, NAME, .doc = DOC_REQUEST_KEY));

DEFINE(pool_block_info,
        ADDR_ROWS(pool_block_info, DOC_BLOCK_ADDR),
        PLACE_ROWS(pool_block_info));

DEFINE(pool_alloc_result,
        FIELD(pool_alloc_result, blocks, OBJECT, NEEDED, .array = true, .sub = &pool_block_info_struct,
              .doc = "as many as were asked for"),
        FIELD(pool_alloc_result, block_size, UINT, NEEDED, .doc = DOC_BLOCK_SIZE),
        ADDRESSING_ROW(pool_alloc_result));

DEFINE(pool_free_params,
        FIELD(pool_free_params, pool, UINT, NEEDED, HANDLE, .doc = "the pool that they are of"),
        FIELD(pool_free_params, dma_addrs, HEX, NEEDED, .array = true, .max_items = PROTOCOL_BLOCKS_MAX,
              .doc = "the blocks, each by the address that pool.alloc gave"));

DEFINE(pool_lease_params,
        FIELD(pool_lease_params, pool, UINT, NEEDED, HANDLE, .doc = "the pool"),
        FIELD(pool_lease_params, count, UINT, NEEDED, POSITIVE,
              .doc = "blocks; less are given when not so many lie one behind the other, but at least one"),
        WAIT_ROWS(pool_lease_params),
        FIELD(pool_lease_params, fd, BOOL, .doc = DOC_FD),
        FIELD(pool_lease_params, request_key, STRING, NAME, .doc = DOC_REQUEST_KEY));

DEFINE(pool_lease_result,
        FIELD(pool_lease_result, lease, UINT, NEEDED, HANDLE, .doc = "its handle"),
        PLACE_ROWS(pool_lease_result),
        ADDR_ROWS(pool_lease_result, "the first block's address for the device"),
        FIELD(pool_lease_result, count, UINT, NEEDED, .doc = "blocks, one behind the other"),
        FIELD(pool_lease_result, block_size, UINT, NEEDED, .doc = DOC_BLOCK_SIZE),
        ADDRESSING_ROW(pool_lease_result));

DEFINE(lease_return_params, FIELD(lease_return_params, lease, UINT, NEEDED, HANDLE, .doc = "the lease"));

DEFINE(pool_destroy_params,
        FIELD(pool_destroy_params, pool, UINT, NEEDED, HANDLE, .doc = "the pool"),
        FIELD(pool_destroy_params, force, BOOL, .doc = "take back what is handed out instead of refusing"));

static const struct schema_field pool_busy_block_rows[] = {
        ADDR_ROWS(pool_busy_block, DOC_BLOCK_ADDR),
        PLACE_ROWS(pool_busy_block),
        FIELD(pool_busy_block, lease, UINT, HANDLE, .doc = "the lease that it is part of"),
};
const struct schema_struct pool_busy_block_struct = STRUCT(pool_busy_block, pool_busy_block_rows);

DEFINE(pool_destroy_result,
        FIELD(pool_destroy_result, busy, OBJECT, NEEDED, .array = true, .sub = &pool_busy_block_struct,
              .doc = "the blocks that were handed out and that force took back, the first 1000; without force the "
                     "error busy has the same list in its data"),
        FIELD(pool_destroy_result, more, BOOL, NEEDED, .doc = "whether there were more"));

DEFINE(pool_params, FIELD(pool_params, pool, UINT, NEEDED, HANDLE, .doc = "the pool"));

DEFINE(pool_trim_result, FIELD(pool_trim_result, bytes, UINT, NEEDED, .doc = "bytes that were given back"));

DEFINE(pool_info,
        FIELD(pool_info, pool, UINT, NEEDED, HANDLE, .doc = "its handle"),
        FIELD(pool_info, name, STRING, NEEDED, .doc = "its name"),
        FIELD(pool_info, device, UINT, NEEDED, HANDLE, .doc = "the device that uses its blocks"),
        FIELD(pool_info, device_name, STRING, NEEDED, .doc = DOC_DEVICE_NAME),
        FIELD(pool_info, owner, STRING, NEEDED, .doc = DOC_CHARGED),
        FIELD(pool_info, block_size, UINT, NEEDED, .doc = DOC_BLOCK_SIZE),
        FIELD(pool_info, align, UINT, NEEDED, .doc = DOC_BLOCK_ALIGN),
        FIELD(pool_info, boundary, UINT, .doc = DOC_POOL_BOUNDARY),
        FIELD(pool_info, blocks_per_slab, UINT, NEEDED, .doc = DOC_BLOCKS_PER_SLAB),
        FIELD(pool_info, slab_size, UINT, NEEDED, .doc = DOC_SLAB_SIZE),
        FIELD(pool_info, reserve, UINT, NEEDED, .doc = DOC_RESERVE),
        FIELD(pool_info, max_blocks, UINT, .doc = "blocks beyond which it does not grow; absent: no limit"),
        FIELD(pool_info, slabs, UINT, NEEDED, .doc = "slabs"),
        FIELD(pool_info, bytes, UINT, NEEDED, .doc = "bytes of these"),
        FIELD(pool_info, blocks, UINT, NEEDED, .doc = "blocks: free, used, leased and quarantined ones"),
        FIELD(pool_info, free, UINT, NEEDED, .doc = "blocks that nobody has"),
        FIELD(pool_info, used, UINT, NEEDED, .doc = "blocks handed out one by one"),
        FIELD(pool_info, leased, UINT, NEEDED, .doc = "blocks in leases"),
        FIELD(pool_info, quarantined, UINT, NEEDED,
              .doc = "blocks that a vanished client had, and that a device might still write"),
        FIELD(pool_info, high_water, UINT, NEEDED, .doc = "the most blocks that were used and leased at one time"),
        FIELD(pool_info, leases, UINT, NEEDED, .doc = "leases"),
        FIELD(pool_info, waiters, UINT, NEEDED, .doc = "calls that wait for its blocks"),
        FIELD(pool_info, allocs, UINT, NEEDED, .doc = "blocks given out since it was made, leased ones included"),
        FIELD(pool_info, frees, UINT, NEEDED, .doc = "blocks that came back, likewise"),
        FIELD(pool_info, failures, UINT, NEEDED, .doc = "calls that got no blocks"),
        FIELD(pool_info, waits, UINT, NEEDED, .doc = "calls that had to wait"),
        FIELD(pool_info, timeouts, UINT, NEEDED, .doc = "calls that waited in vain"),
        FIELD(pool_info, recalls, UINT, NEEDED, .doc = DOC_RECALLS),
        ADDRESSING_ROW(pool_info),
        FIELD(pool_info, age_ms, UINT, NEEDED, .doc = "milliseconds since it was made"));

DEFINE(pool_list_result,
        FIELD(pool_list_result, pools, OBJECT, NEEDED, .array = true, .sub = &pool_info_struct,
              .doc = "in the order of their handles"),
        FIELD(pool_list_result, more, BOOL, NEEDED, .doc = DOC_MORE));

/* ---- bounce ---- */

#define DOC_SLOT_SIZE "bytes of a slot"
#define DOC_MAX_SIZE "bytes that it may grow to; absent: it does not grow"
#define DOC_AREAS "the parts that leases take by default"
#define DOC_FIRST_PART "for the device, of the part that it was made with"

DEFINE(bounce_create_params,
        FIELD(bounce_create_params, device, UINT, NEEDED, HANDLE, .doc = "the device that will use it"),
        FIELD(bounce_create_params, size, UINT, NEEDED, POSITIVE, .doc = "bytes; rounded up to whole slots and pages"),
        FIELD(bounce_create_params, slot_size, UINT,
              .doc = "bytes: a power of two; 2048 unless given; raised to what the device's min_align_mask needs"),
        FIELD(bounce_create_params, areas, UINT, POSITIVE,
              .doc = "equal parts that leases take by default; 1 unless given"),
        FIELD(bounce_create_params, max_size, UINT, POSITIVE,
              .doc = "bytes that it may grow to when it is full; it does not grow unless given"),
        WAIT_ROWS(bounce_create_params),
        FIELD(bounce_create_params, request_key, STRING, NAME, .doc = DOC_REQUEST_KEY));

DEFINE(bounce_create_result,
        FIELD(bounce_create_result, bounce, UINT, NEEDED, HANDLE, .doc = "its handle"),
        PLACE_ROWS(bounce_create_result),
        ADDR_ROWS(bounce_create_result, "its first slot's address for the device"),
        FIELD(bounce_create_result, size, UINT, NEEDED, .doc = "its bytes, as rounded"),
        FIELD(bounce_create_result, max_size, UINT, .doc = DOC_MAX_SIZE),
        FIELD(bounce_create_result, slot_size, UINT, NEEDED, .doc = DOC_SLOT_SIZE),
        FIELD(bounce_create_result, slots, UINT, NEEDED, .doc = "slots"),
        FIELD(bounce_create_result, areas, UINT, NEEDED, .doc = DOC_AREAS),
        ADDRESSING_ROW(bounce_create_result));

DEFINE(bounce_map_params,
        FIELD(bounce_map_params, bounce, UINT, NEEDED, HANDLE, .doc = "the bounce pool"),
        FIELD(bounce_map_params, size, UINT, NEEDED, POSITIVE, .doc = "bytes"),
        FIELD(bounce_map_params, direction, ENUM, NEEDED, .names = direction_names, .doc = DOC_DIRECTION),
        FIELD(bounce_map_params, align_offset, UINT,
              .doc = "the buffer's address, or its low bits: those in the device's min_align_mask are kept"),
        WAIT_ROWS(bounce_map_params),
        FIELD(bounce_map_params, request_key, STRING, NAME, .doc = DOC_REQUEST_KEY));

DEFINE(bounce_map_result,
        FIELD(bounce_map_result, mapping, UINT, NEEDED, HANDLE, .doc = "its handle"),
        ADDR_ROWS(bounce_map_result, "the address that the device must be given"),
        FIELD(bounce_map_result, region, UINT, NEEDED, HANDLE, .doc = DOC_REGION),
        FIELD(bounce_map_result, offset, UINT, NEEDED, .doc = "where in the region the data is copied to and from"),
        FIELD(bounce_map_result, size, UINT, NEEDED, .doc = "its bytes"),
        FIELD(bounce_map_result, slots, UINT, NEEDED, .doc = "slots that it takes"),
        ADDRESSING_ROW(bounce_map_result));

#define DOC_AS_MAPPED "as it was mapped; checked if given"

DEFINE(bounce_unmap_params,
        FIELD(bounce_unmap_params, mapping, UINT, NEEDED, HANDLE, .doc = "the mapping"),
        FIELD(bounce_unmap_params, offset, UINT, .doc = "0: a mapping goes as a whole"),
        FIELD(bounce_unmap_params, size, UINT, POSITIVE, .doc = "its bytes, " DOC_AS_MAPPED),
        FIELD(bounce_unmap_params, direction, ENUM, .names = direction_names, .doc = "the direction, " DOC_AS_MAPPED));

DEFINE(bounce_sync_params,
        FIELD(bounce_sync_params, mapping, UINT, NEEDED, HANDLE, .doc = "the mapping"),
        FIELD(bounce_sync_params, offset, UINT, .doc = "where in the mapping; 0 unless given"),
        FIELD(bounce_sync_params, size, UINT, POSITIVE, .doc = "bytes; to the mapping's end unless given"),
        FIELD(bounce_sync_params, direction, ENUM, .names = direction_names, .doc = "the direction, " DOC_AS_MAPPED),
        FIELD_AS(bounce_sync_params, sync_for, "for", ENUM, .names = sync_names,
              .doc = "who looks at the data next; checked against the direction if given"));

DEFINE(bounce_lease_params,
        FIELD(bounce_lease_params, bounce, UINT, NEEDED, HANDLE, .doc = "the bounce pool"),
        FIELD(bounce_lease_params, slots, UINT, POSITIVE,
              .doc = "slots, one behind the other; those of an area unless given; less are given when there are no "
                     "more"),
        WAIT_ROWS(bounce_lease_params),
        FIELD(bounce_lease_params, fd, BOOL, .doc = DOC_FD),
        FIELD(bounce_lease_params, request_key, STRING, NAME, .doc = DOC_REQUEST_KEY));

DEFINE(bounce_lease_result,
        FIELD(bounce_lease_result, lease, UINT, NEEDED, HANDLE, .doc = "its handle"),
        PLACE_ROWS(bounce_lease_result),
        ADDR_ROWS(bounce_lease_result, "the first slot's address for the device"),
        FIELD(bounce_lease_result, slots, UINT, NEEDED, .doc = "slots, one behind the other"),
        FIELD(bounce_lease_result, slot_size, UINT, NEEDED, .doc = DOC_SLOT_SIZE),
        ADDRESSING_ROW(bounce_lease_result));

DEFINE(bounce_destroy_params,
        FIELD(bounce_destroy_params, bounce, UINT, NEEDED, HANDLE, .doc = "the bounce pool"),
        FIELD(bounce_destroy_params, force, BOOL, .doc = "end its mappings and leases instead of refusing"));

static const struct schema_field bounce_busy_run_rows[] = {
        FIELD(bounce_busy_run, mapping, UINT, HANDLE, .doc = "a mapping"),
        FIELD(bounce_busy_run, lease, UINT, HANDLE, .doc = "or a lease"),
        ADDR_ROWS(bounce_busy_run, "its address for the device"),
        PLACE_ROWS(bounce_busy_run),
        FIELD(bounce_busy_run, size, UINT, NEEDED, .doc = "its bytes"),
        FIELD(bounce_busy_run, slots, UINT, NEEDED, .doc = "slots that it takes"),
};
const struct schema_struct bounce_busy_run_struct = STRUCT(bounce_busy_run, bounce_busy_run_rows);

DEFINE(bounce_destroy_result,
        FIELD(bounce_destroy_result, busy, OBJECT, NEEDED, .array = true, .sub = &bounce_busy_run_struct,
              .doc = "the mappings and leases that force ended, the first 1000; without force the error busy has "
                     "the same list in its data"),
        FIELD(bounce_destroy_result, more, BOOL, NEEDED, .doc = "whether there were more"));

DEFINE(bounce_stats_params, FIELD(bounce_stats_params, bounce, UINT, NEEDED, HANDLE, .doc = "the bounce pool"));

DEFINE(bounce_info,
        FIELD(bounce_info, bounce, UINT, NEEDED, HANDLE, .doc = "its handle"),
        FIELD(bounce_info, device, UINT, NEEDED, HANDLE, .doc = "the device that uses it"),
        FIELD(bounce_info, device_name, STRING, NEEDED, .doc = DOC_DEVICE_NAME),
        FIELD(bounce_info, owner, STRING, NEEDED, .doc = DOC_CHARGED),
        FIELD(bounce_info, region, UINT, NEEDED, HANDLE, .doc = "the region of the part that it was made with"),
        FIELD(bounce_info, offset, UINT, NEEDED, .doc = DOC_OFFSET),
        ADDR_ROWS(bounce_info, DOC_FIRST_PART),
        FIELD(bounce_info, size, UINT, NEEDED, .doc = "its bytes"),
        FIELD(bounce_info, max_size, UINT, .doc = DOC_MAX_SIZE),
        FIELD(bounce_info, slot_size, UINT, NEEDED, .doc = DOC_SLOT_SIZE),
        FIELD(bounce_info, areas, UINT, NEEDED, .doc = DOC_AREAS),
        FIELD(bounce_info, slots, UINT, NEEDED, .doc = "slots: free, used, leased and quarantined ones"),
        FIELD(bounce_info, free, UINT, NEEDED, .doc = "slots that nobody has"),
        FIELD(bounce_info, used, UINT, NEEDED, .doc = "slots of mappings"),
        FIELD(bounce_info, leased, UINT, NEEDED, .doc = "slots in leases"),
        FIELD(bounce_info, quarantined, UINT, NEEDED,
              .doc = "slots that a vanished client had, and that a device might still write"),
        FIELD(bounce_info, largest_free, UINT, NEEDED, .doc = "slots of the largest free run"),
        FIELD(bounce_info, high_water, UINT, NEEDED, .doc = "the most slots that were used and leased at one time"),
        FIELD(bounce_info, parts, UINT, NEEDED, .doc = "allocations that it is made of"),
        FIELD(bounce_info, leases, UINT, NEEDED, .doc = "leases"),
        FIELD(bounce_info, waiters, UINT, NEEDED, .doc = "calls that wait for its slots"),
        FIELD(bounce_info, maps, UINT, NEEDED, .doc = "mappings made since it was made"),
        FIELD(bounce_info, unmaps, UINT, NEEDED, .doc = "mappings ended"),
        FIELD(bounce_info, syncs, UINT, NEEDED, .doc = "synchronisations"),
        FIELD(bounce_info, fulls, UINT, NEEDED, .doc = "calls that found no slots"),
        FIELD(bounce_info, waits, UINT, NEEDED, .doc = "calls that had to wait"),
        FIELD(bounce_info, timeouts, UINT, NEEDED, .doc = "calls that waited in vain"),
        FIELD(bounce_info, grows, UINT, NEEDED, .doc = "times that it grew"),
        FIELD(bounce_info, recalls, UINT, NEEDED, .doc = DOC_RECALLS),
        ADDRESSING_ROW(bounce_info),
        FIELD(bounce_info, age_ms, UINT, NEEDED, .doc = "milliseconds since it was made"));

DEFINE(bounce_list_result,
        FIELD(bounce_list_result, bounces, OBJECT, NEEDED, .array = true, .sub = &bounce_info_struct,
              .doc = "in the order of their handles"),
        FIELD(bounce_list_result, more, BOOL, NEEDED, .doc = DOC_MORE));

/* ---- mapping ---- */

DEFINE(mapping_map_params,
        FIELD(mapping_map_params, device, UINT, NEEDED, HANDLE, .doc = "the device that shall reach it"),
        FIELD(mapping_map_params, alloc, UINT, NEEDED, HANDLE,
              .doc = "an allocation, the device's own or a shareable one of another device"),
        FIELD(mapping_map_params, offset, UINT, .doc = "where in the allocation; 0 unless given"),
        FIELD(mapping_map_params, size, UINT, POSITIVE, .doc = "bytes; to the allocation's end unless given"),
        FIELD(mapping_map_params, iova, HEX,
              .doc = "the address at which the device shall see it; anywhere unless given"),
        FIELD(mapping_map_params, direction, ENUM, NEEDED, .names = direction_names, .doc = DOC_DIRECTION),
        FIELD(mapping_map_params, request_key, STRING, NAME, .doc = DOC_REQUEST_KEY));

DEFINE(mapping_map_result,
        FIELD(mapping_map_result, mapping, UINT, NEEDED, HANDLE, .doc = "its handle"),
        FIELD(mapping_map_result, iova, HEX, NEEDED, .doc = "the address that the device must be given"),
        FIELD(mapping_map_result, machine_addr, HEX, .doc = DOC_MACHINE_ADDR),
        PLACE_ROWS(mapping_map_result),
        FIELD(mapping_map_result, size, UINT, NEEDED, .doc = "its bytes"),
        ADDRESSING_ROW(mapping_map_result));

DEFINE(mapping_unmap_params, FIELD(mapping_unmap_params, mapping, UINT, NEEDED, HANDLE, .doc = "the mapping"));

DEFINE(mapping_info,
        FIELD(mapping_info, mapping, UINT, NEEDED, HANDLE, .doc = "its handle"),
        FIELD(mapping_info, device, UINT, NEEDED, HANDLE, .doc = "the device that reaches it"),
        FIELD(mapping_info, device_name, STRING, NEEDED, .doc = DOC_DEVICE_NAME),
        FIELD(mapping_info, owner, STRING, NEEDED, .doc = DOC_CHARGED),
        FIELD(mapping_info, bounce, UINT, HANDLE, .doc = "the bounce pool that it is of"),
        FIELD(mapping_info, alloc, UINT, HANDLE, .doc = "or the allocation that it is of"),
        ADDR_ROWS(mapping_info, "its address for the device"),
        PLACE_ROWS(mapping_info),
        FIELD(mapping_info, size, UINT, NEEDED, .doc = "its bytes"),
        FIELD(mapping_info, slots, UINT, .doc = "slots that it takes in its bounce pool"),
        FIELD(mapping_info, direction, ENUM, NEEDED, .names = direction_names, .doc = DOC_DIRECTION),
        ADDRESSING_ROW(mapping_info),
        FIELD(mapping_info, age_ms, UINT, NEEDED, .doc = "milliseconds since it was made"));

DEFINE(mapping_list_result,
        FIELD(mapping_list_result, mappings, OBJECT, NEEDED, .array = true, .sub = &mapping_info_struct,
              .doc = "in the order of their handles"),
        FIELD(mapping_list_result, more, BOOL, NEEDED, .doc = DOC_MORE));

/* ---- lease ---- */

DEFINE(lease_list_params,
        FIELD(lease_list_params, pool, UINT, HANDLE, .doc = "only this pool's"),
        FIELD(lease_list_params, bounce, UINT, HANDLE, .doc = "only this bounce pool's"),
        FIELD(lease_list_params, owner, STRING, NAME, .doc = DOC_LIST_OWNER),
        FIELD(lease_list_params, after, UINT, .doc = DOC_AFTER),
        FIELD(lease_list_params, limit, UINT, LIST_LIMIT, .doc = DOC_LIST_LIMIT));

DEFINE(lease_info,
        FIELD(lease_info, lease, UINT, NEEDED, HANDLE, .doc = "its handle"),
        FIELD(lease_info, pool, UINT, HANDLE, .doc = "the pool that it is of"),
        FIELD(lease_info, bounce, UINT, HANDLE, .doc = "or the bounce pool that it is of"),
        FIELD(lease_info, device, UINT, NEEDED, HANDLE, .doc = "the device that uses it"),
        FIELD(lease_info, device_name, STRING, NEEDED, .doc = DOC_DEVICE_NAME),
        FIELD(lease_info, owner, STRING, NEEDED, .doc = DOC_CHARGED),
        PLACE_ROWS(lease_info),
        ADDR_ROWS(lease_info, "the first one's address for the device"),
        FIELD(lease_info, unit, UINT, NEEDED, .doc = "bytes of a block or slot"),
        FIELD(lease_info, count, UINT, NEEDED, .doc = "blocks or slots"),
        ADDRESSING_ROW(lease_info),
        FIELD(lease_info, age_ms, UINT, NEEDED, .doc = "milliseconds since it was given"));

DEFINE(lease_list_result,
        FIELD(lease_list_result, leases, OBJECT, NEEDED, .array = true, .sub = &lease_info_struct,
              .doc = "in the order of their handles"),
        FIELD(lease_list_result, more, BOOL, NEEDED, .doc = DOC_MORE));

/* ---- region ---- */

DEFINE(region_list_params,
        FIELD(region_list_params, device, UINT, HANDLE, .doc = "only those reserved for this device"),
        FIELD(region_list_params, owner, STRING, NAME, .doc = DOC_LIST_OWNER),
        FIELD(region_list_params, after, UINT, .doc = DOC_AFTER),
        FIELD(region_list_params, limit, UINT, LIST_LIMIT, .doc = DOC_LIST_LIMIT));

DEFINE(region_extent,
        FIELD(region_extent, offset, UINT, NEEDED, .doc = "where in the region it starts"),
        FIELD(region_extent, machine_addr, HEX, .doc = DOC_MACHINE_ADDR),
        FIELD(region_extent, size, UINT, NEEDED, .doc = "its bytes, machine-contiguous"));

DEFINE(region_info,
        FIELD(region_info, region, UINT, NEEDED, HANDLE, .doc = "its handle"),
        FIELD(region_info, owner, STRING, NEEDED, .doc = "the only one who can see its memory"),
        FIELD(region_info, device, UINT, HANDLE, .doc = "the device that it is reserved for"),
        FIELD(region_info, source, STRING, NEEDED, .doc = "where its memory comes from"),
        FIELD(region_info, node, UINT, .doc = "the NUMA node that it is on"),
        FIELD(region_info, size, UINT, NEEDED, .doc = "its bytes"),
        FIELD(region_info, used, UINT, NEEDED, .doc = "bytes allocated in it"),
        FIELD(region_info, allocs, UINT, NEEDED, .doc = "allocations in it"),
        FIELD(region_info, addressing, ENUM, NEEDED, .names = addressing_names, .doc = DOC_ADDRESSING),
        FIELD(region_info, extents, OBJECT, NEEDED, .array = true, .sub = &region_extent_struct,
              .doc = "the machine-contiguous runs that it is made of; none if it is ordinary memory for what was swapped out"));

DEFINE(region_list_result,
        FIELD(region_list_result, regions, OBJECT, NEEDED, .array = true, .sub = &region_info_struct,
              .doc = "in the order of their handles"),
        FIELD(region_list_result, more, BOOL, NEEDED, .doc = DOC_MORE));

DEFINE(region_get_params, FIELD(region_get_params, region, UINT, NEEDED, HANDLE, .doc = "the region"));

/* ---- memory ---- */

DEFINE(memory_release_params,
        FIELD(memory_release_params, bytes, UINT, .doc = "how much; all that nobody needs if it is 0 or absent"),
        FIELD(memory_release_params, wait_ms, UINT, .max = PROTOCOL_WAIT_MS_MAX,
              .doc = "how long clients may take to return what they have leased and do not use; 1000 unless given"));

DEFINE(memory_release_result,
        FIELD(memory_release_result, released, UINT, NEEDED, .doc = "bytes that went back to the system"),
        FIELD(memory_release_result, held, UINT, NEEDED, .doc = "bytes that the sources hold now"));

/* ---- quarantine ---- */

DEFINE(quarantine_list_params,
        FIELD(quarantine_list_params, owner, STRING, NAME, .doc = DOC_LIST_OWNER),
        FIELD(quarantine_list_params, after, UINT, .doc = "only those with a greater item: the last one of the page before"),
        FIELD(quarantine_list_params, limit, UINT, LIST_LIMIT, .doc = DOC_LIST_LIMIT));

DEFINE(quarantine_info,
        FIELD(quarantine_info, item, UINT, NEEDED, .doc = "its number, while the daemon runs"),
        FIELD(quarantine_info, what, ENUM, NEEDED, .names = resting_names,
              .doc = "an allocation, blocks of a pool, slots of a bounce pool, or what is not in use of a region"),
        FIELD(quarantine_info, reason, ENUM, NEEDED, .names = rests_names,
              .doc = "vanished: whose it was ended without a word; damaged: a damaged ledger has forgotten whose it is"),
        FIELD(quarantine_info, owner, STRING, NEEDED, .doc = DOC_CHARGED),
        FIELD(quarantine_info, device_name, STRING, .doc = "the device that may still write it; none if nobody knows"),
        FIELD(quarantine_info, pool, UINT, HANDLE, .doc = "the pool that it is of"),
        FIELD(quarantine_info, bounce, UINT, HANDLE, .doc = "or the bounce pool that it is of"),
        FIELD(quarantine_info, region, UINT, NEEDED, HANDLE, .doc = "the region of its first byte"),
        FIELD(quarantine_info, machine_addr, HEX, .doc = DOC_MACHINE_ADDR),
        FIELD(quarantine_info, size, UINT, NEEDED, .doc = "its bytes; blocks may lie scattered over their pool"),
        FIELD(quarantine_info, count, UINT, NEEDED, .doc = "blocks, slots, or pieces of the region; 1 for an allocation"),
        ADDRESSING_ROW(quarantine_info),
        FIELD(quarantine_info, age_ms, UINT, NEEDED, .doc = "milliseconds that it has rested"),
        FIELD(quarantine_info, left_ms, UINT,
              .doc = "milliseconds that it will rest still; none: until an administrator says so"));

DEFINE(quarantine_list_result,
        FIELD(quarantine_list_result, items, OBJECT, NEEDED, .array = true, .sub = &quarantine_info_struct,
              .doc = "in the order of their numbers"),
        FIELD(quarantine_list_result, more, BOOL, NEEDED, .doc = DOC_MORE));

DEFINE(quarantine_release_params,
        FIELD(quarantine_release_params, owner, STRING, NAME, .doc = "only this owner's, such as user:1000"),
        FIELD(quarantine_release_params, machine_addr, HEX, .doc = "only the item that lies at this machine address"));

DEFINE(quarantine_release_result,
        FIELD(quarantine_release_result, released, UINT, NEEDED, .doc = "bytes that may be used again"),
        FIELD(quarantine_release_result, resting, UINT, NEEDED, .doc = "bytes that rest still, of all owners together"));

/* ---- quota ---- */

DEFINE(quota_get_params,
        FIELD(quota_get_params, owner, STRING, NAME,
              .doc = "whose; administrators may name any owner, others themselves; the caller's own unless given"),
        FIELD(quota_get_params, device, UINT, HANDLE,
              .doc = "only what its owner may have and has of this device, in all the times that it has opened it"));

DEFINE(quota_values,
        FIELD(quota_values, bytes, UINT, .nullable = true, .doc = "bytes allocated"),
        FIELD(quota_values, held_bytes, UINT, .nullable = true, .doc = "bytes of the regions that the owner occupies"),
        FIELD(quota_values, low_bytes, UINT, .nullable = true, .doc = "bytes allocated or reserved below 4 GiB"),
        FIELD(quota_values, allocs, UINT, .nullable = true, .doc = "allocations"),
        FIELD(quota_values, devices, UINT, .nullable = true, .doc = "open devices"),
        FIELD(quota_values, regions, UINT, .nullable = true, .doc = "regions"),
        FIELD(quota_values, pools, UINT, .nullable = true, .doc = "pools and bounce pools"),
        FIELD(quota_values, leases, UINT, .nullable = true, .doc = "leases"),
        FIELD(quota_values, mappings, UINT, .nullable = true, .doc = "mappings"),
        FIELD(quota_values, waiters, UINT, .nullable = true, .doc = "calls that wait for memory"),
        FIELD(quota_values, connections, UINT, .nullable = true, .doc = "connections"),
        FIELD(quota_values, calls_per_second, UINT, .nullable = true,
              .doc = "calls in a second, over all connections, one after the other or in batches; each call beyond them is "
                     "answered with the error quota and retry_ms"),
        FIELD(quota_values, anonymous_bytes, UINT, .nullable = true,
              .doc = "bytes of ordinary memory with what was swapped out"),
        FIELD(quota_values, grants, UINT, .nullable = true,
              .doc = "pages of 4096 bytes that are granted to guests of Xen's, or by them"));

DEFINE(guarantee_values,
        FIELD(guarantee_values, bytes, UINT, .doc = "bytes of regions, wherever they lie"),
        FIELD(guarantee_values, low_bytes, UINT, .doc = "beside these, bytes of regions below 4 GiB"));

DEFINE(quota_set_params,
        FIELD(quota_set_params, owner, STRING, NAME, .doc = "whose; may be absent if a device is given"),
        FIELD(quota_set_params, device, UINT, HANDLE,
              .doc = "limit what its owner may have of this device, in all the times that it has opened it, now or later; "
                     "bytes, low_bytes, allocs, pools, leases, mappings and waiters can be limited so"),
        FIELD(quota_set_params, guaranteed, OBJECT, .sub = &guarantee_values_struct,
              .doc = "memory that the owner can have whenever it asks, instead of what it was guaranteed before; what is "
                     "absent is 0. It is taken away from nobody, but what is free of it is given to nobody else"),
        FIELD(quota_set_params, limits, OBJECT, .sub = &quota_values_struct,
              .doc = "the limits to set; those absent or null stay as they are; 0 allows none"),
        FIELD(quota_set_params, unlimited, ENUM, .array = true, .max_items = 64, .names = quota_names,
              .doc = "the limits to lift"));

DEFINE(quota_result,
        FIELD(quota_result, owner, STRING, NEEDED, .doc = "whose"),
        FIELD(quota_result, device, UINT, .doc = "the device, if one was asked for"),
        FIELD(quota_result, device_name, STRING, .doc = "its name, under which all that the owner has of it is counted"),
        FIELD(quota_result, limits, OBJECT, NEEDED, .sub = &quota_values_struct,
              .doc = "the limits in force; absent: none"),
        FIELD(quota_result, usage, OBJECT, NEEDED, .sub = &quota_values_struct, .doc = "what is charged now"),
        FIELD(quota_result, guaranteed, OBJECT, .sub = &guarantee_values_struct,
              .doc = "what the owner can have whenever it asks, if anything was guaranteed"),
        FIELD(quota_result, unmet, OBJECT, .sub = &guarantee_values_struct,
              .doc = "of that, what it does not hold: so much stays free for it"));

/* ---- stats ---- */

DEFINE(stats_get_params,
        FIELD(stats_get_params, group, ENUM, .names = stats_group_names, .doc = "only this group"));
DEFINE(stats_reset_params,
        FIELD(stats_reset_params, group, ENUM, .names = stats_group_names, .doc = "only this group"));

DEFINE(stats_counter,
        FIELD(stats_counter, name, STRING, NEEDED, .doc = "what is counted"),
        FIELD(stats_counter, value, UINT, NEEDED,
              .doc = "since the start or the last reset; high-water marks likewise"));

DEFINE(stats_latency,
        FIELD(stats_latency, method, STRING, NEEDED, .doc = "the method"),
        FIELD(stats_latency, count, UINT, NEEDED, .doc = "calls answered"),
        FIELD(stats_latency, mean_us, NUMBER, NEEDED,
              .doc = "mean time from the request to its answer, in microseconds"),
        FIELD(stats_latency, p50_us, NUMBER, NEEDED, .doc = "half of the calls took at most this"),
        FIELD(stats_latency, p99_us, NUMBER, NEEDED, .doc = "99 of 100 calls took at most this"),
        FIELD(stats_latency, max_us, NUMBER, NEEDED, .doc = "the slowest call"));

DEFINE(stats_group,
        FIELD(stats_group, name, ENUM, NEEDED, .names = stats_group_names, .doc = "the group"),
        FIELD(stats_group, counters, OBJECT, NEEDED, .array = true, .sub = &stats_counter_struct,
              .doc = "its counters"),
        FIELD(stats_group, latencies, OBJECT, NEEDED, .array = true, .sub = &stats_latency_struct,
              .doc = "how long calls took, for each method that was called"));

DEFINE(stats_get_result,
        FIELD(stats_get_result, groups, OBJECT, NEEDED, .array = true, .sub = &stats_group_struct,
              .doc = "the groups"));

/* ---- events ---- */

#define DOC_TOPICS "what is subscribed now"

/* ---- guests ---- */

#define DOC_GUEST "the guest's name in the configuration"
#define GUEST_ROW(structure) FIELD(structure, guest, STRING, NEEDED, NAME, .doc = "the guest, by its name or its UUID")

DEFINE(guest_info,
        FIELD(guest_info, guest, STRING, NEEDED, .doc = DOC_GUEST),
        FIELD(guest_info, uuid, STRING, NEEDED, .doc = "its UUID"),
        FIELD(guest_info, owner, STRING, NEEDED, .doc = DOC_CHARGED),
        FIELD(guest_info, state, ENUM, NEEDED, .names = guest_state_names, .doc = "whether it runs"),
        FIELD(guest_info, via, ENUM, NEEDED, .names = guest_via_names,
              .doc = "who is asked about it; none: it is not in the configuration any more"),
        FIELD(guest_info, why, STRING, .doc = "why nothing is known of it"),
        FIELD(guest_info, channel, STRING, NEEDED, .doc = "the socket that its QEMU connects to"),
        FIELD(guest_info, connected, BOOL, NEEDED, .doc = "whether it is connected there"),
        FIELD(guest_info, windows, UINT, NEEDED, .doc = "its windows"),
        FIELD(guest_info, window_bytes, UINT, NEEDED, .doc = "their bytes"));

DEFINE(guest_list_params,
        FIELD(guest_list_params, after, STRING, NAME,
              .doc = "only those that come after this one, by its name or UUID: the last one of the page before"),
        FIELD(guest_list_params, limit, UINT, LIST_LIMIT, .doc = DOC_LIST_LIMIT));

DEFINE(guest_list_result,
        FIELD(guest_list_result, items, OBJECT, NEEDED, .array = true, .sub = &guest_info_struct, .doc = "the guests"),
        FIELD(guest_list_result, more, BOOL, NEEDED, .doc = DOC_MORE));

DEFINE(guest_params, GUEST_ROW(guest_params));

DEFINE(guest_attach_params,
        GUEST_ROW(guest_attach_params),
        FIELD(guest_attach_params, size, UINT, NEEDED, POSITIVE,
              .doc = "bytes of the window, a power of two of at least 1 MiB; its last 4096 are not allocated"),
        FIELD(guest_attach_params, dry_run, BOOL, .doc = "do nothing, and tell what the domain needs for it"),
        FIELD(guest_attach_params, mask, HEX,
              .doc = "of a guest of Xen's: all of the window lies at or below this machine address, all ones below; anywhere "
                     "unless given"),
        FIELD(guest_attach_params, request_key, STRING, NAME, .doc = DOC_REQUEST_KEY));

DEFINE(guest_attach_result,
        FIELD(guest_attach_result, window, UINT, HANDLE, .doc = "its handle, which is that of its region"),
        FIELD(guest_attach_result, size, UINT, NEEDED, .doc = "its bytes"),
        FIELD(guest_attach_result, channel, STRING, NEEDED, .doc = "the socket of the guest's channel"),
        FIELD(guest_attach_result, advice, STRING, .doc = "of a dry run: what an administrator adds to the domain"));

DEFINE(guest_detach_params,
        FIELD(guest_detach_params, window, UINT, NEEDED, HANDLE, .doc = "the window"),
        FIELD(guest_detach_params, force, BOOL, .doc = "end the sessions that have something in it"));

DEFINE(guest_set_quota_params,
        GUEST_ROW(guest_set_quota_params),
        FIELD(guest_set_quota_params, guaranteed, OBJECT, .sub = &guarantee_values_struct, .doc = "as of quota.set"),
        FIELD(guest_set_quota_params, limits, OBJECT, .sub = &quota_values_struct, .doc = "as of quota.set"),
        FIELD(guest_set_quota_params, unlimited, ENUM, .array = true, .max_items = 64, .names = quota_names,
              .doc = "as of quota.set"));

DEFINE(guest_exchange_params,
        FIELD(guest_exchange_params, guest, STRING, NAME,
              .doc = "the guest, by its name or its UUID; the one that asks unless given, which cannot name another one"),
        FIELD(guest_exchange_params, frames, HEX, NEEDED, .array = true, .max_items = PROTOCOL_EXCHANGE_MAX,
              .doc = "the pages, by the machine's numbers of them (MFNs), which are addresses divided by 4096: as many as whole "
                     "pieces have"),
        FIELD(guest_exchange_params, order, UINT, NEEDED, .max = PROTOCOL_EXCHANGE_ORDER_MAX,
              .doc = "of the pieces: 2 to the power of so many pages each. At most 9, which are 2 MiB, if the guest asks"),
        FIELD(guest_exchange_params, mask, HEX,
              .doc = "all of them lie at or below this machine address, all ones below; anywhere unless given"),
        FIELD(guest_exchange_params, pfns, HEX, .array = true, .max_items = PROTOCOL_EXCHANGE_MAX,
              .doc = "for each piece the guest's own number (PFN) of the page that its first one is to be, which Xen notes; "
                     "unless given, of those that it takes the place of, which must then follow one another in the guest"),
        FIELD(guest_exchange_params, given_up, BOOL,
              .doc = "of an administrator's: the guest's kernel does not count on these frames, and will not"));

DEFINE(guest_exchange_result,
        FIELD(guest_exchange_result, frames, HEX, NEEDED, .array = true,
              .doc = "the first page of each piece that it has got, by the machine's number, in the order of the frames"),
        FIELD(guest_exchange_result, exchanged, UINT, NEEDED,
              .doc = "how many of the frames are gone for that, from the first on; with the others nothing was done"),
        FIELD(guest_exchange_result, why, STRING, .doc = "why it is not all of them, or what else is not as it should be"));

DEFINE(window_grant,
        FIELD(window_grant, domain, UINT, NEEDED, .doc = "the domain that grants"),
        FIELD(window_grant, first, UINT, NEEDED, .doc = "the reference of the first page"),
        FIELD(window_grant, count, UINT, NEEDED, .doc = "how many pages there are, whose references follow on it"));

DEFINE(window_info,
        FIELD(window_info, window, UINT, NEEDED, HANDLE, .doc = "its handle"),
        FIELD(window_info, region, UINT, NEEDED, HANDLE, .doc = "the region that it is, by the same number"),
        FIELD(window_info, guest, STRING, NEEDED, .doc = DOC_GUEST),
        FIELD(window_info, size, UINT, NEEDED, .doc = "its bytes"),
        FIELD(window_info, cookie, STRING, NEEDED, .doc = "32 hexadecimal digits: what is in its last page"),
        FIELD(window_info, state, ENUM, NEEDED, .names = window_state_names, .doc = "how far it is"),
        FIELD(window_info, guest_addr, HEX, .doc = "where the guest sees it, if it has told"),
        FIELD(window_info, grants, OBJECT, .array = true, .sub = &window_grant_struct,
              .doc = "of a guest of Xen's: by what it maps the window, from its first page on"),
        FIELD(window_info, mapped, UINT, .doc = "of a guest of Xen's: how many bytes of it are mapped at this moment"));

DEFINE(window_list_params,
        FIELD(window_list_params, guest, STRING, NAME, .doc = "only this guest's; for administrators"),
        FIELD(window_list_params, after, UINT, .doc = DOC_AFTER),
        FIELD(window_list_params, limit, UINT, LIST_LIMIT, .doc = DOC_LIST_LIMIT));

DEFINE(window_list_result,
        FIELD(window_list_result, items, OBJECT, NEEDED, .array = true, .sub = &window_info_struct, .doc = "the windows"),
        FIELD(window_list_result, more, BOOL, NEEDED, .doc = DOC_MORE));

DEFINE(window_bind_params,
        FIELD(window_bind_params, window, UINT, NEEDED, HANDLE, .doc = "the window"),
        FIELD(window_bind_params, guest_addr, HEX, NEEDED, .doc = "the guest physical address of its first byte"));

/* ---- grants ---- */

DEFINE(grant_list_params,
        FIELD(grant_list_params, guest, STRING, NAME, .doc = "only what concerns this guest, by its name or its UUID"),
        FIELD(grant_list_params, owner, STRING, NAME, .doc = DOC_LIST_OWNER),
        FIELD(grant_list_params, after, UINT, .doc = DOC_AFTER),
        FIELD(grant_list_params, limit, UINT, LIST_LIMIT, .doc = DOC_LIST_LIMIT));

DEFINE(grant_info,
        FIELD(grant_info, grant, UINT, NEEDED, HANDLE, .doc = "its handle; of a window that of its region"),
        FIELD(grant_info, owner, STRING, NEEDED, .doc = DOC_CHARGED),
        FIELD(grant_info, guest, STRING, NEEDED, .doc = DOC_GUEST),
        FIELD(grant_info, domain, UINT, NEEDED, .doc = "the number of Xen's that the guest had then"),
        FIELD(grant_info, kind, ENUM, NEEDED, .names = grant_kind_names,
              .doc = "window: the daemon's memory, for the guest; map: the guest's own, for a service of dom0's; share: dom0's, "
                     "for the guest"),
        FIELD(grant_info, region, UINT, HANDLE, .doc = "of a window: the region that it is"),
        FIELD(grant_info, direction, ENUM, NEEDED, .names = direction_names,
              .doc = "which way data goes, where dom0 is the device: to_device, the guest writes and dom0 reads"),
        FIELD(grant_info, pages, UINT, NEEDED, .doc = "how many pages of 4096 bytes it has"),
        FIELD(grant_info, refs, OBJECT, NEEDED, .array = true, .sub = &window_grant_struct,
              .doc = "by what it is mapped, from its first page on; empty when that cannot be done any more"),
        FIELD(grant_info, state, ENUM, NEEDED, .names = grant_state_names,
              .doc = "granted: the guest may map it; revoking: it may not any more, and what it still has mapped is waited for; "
                     "mapped: a service of dom0's may map it; shared: the guest may map it as long as dom0 has it; gone: the "
                     "guest has ended, and it only is to be given back"),
        FIELD(grant_info, in_use, UINT,
              .doc = "how many of its pages are mapped at this moment, as Xen notes it; absent where nobody can read that"),
        FIELD(grant_info, age_ms, UINT, NEEDED, .doc = "milliseconds since it was granted"));

DEFINE(grant_list_result,
        FIELD(grant_list_result, grants, OBJECT, NEEDED, .array = true, .sub = &grant_info_struct,
              .doc = "the grants, by their handles"),
        FIELD(grant_list_result, more, BOOL, NEEDED, .doc = DOC_MORE));

#define DOC_GRANT_DIRECTION                                                                                          \
        "which way data goes, where dom0 is the device: to_device, only the guest writes; from_device and bidirectional, " \
        "dom0 writes, too"

DEFINE(grant_map_params,
        GUEST_ROW(grant_map_params),
        FIELD(grant_map_params, refs, UINT, NEEDED, .array = true, .max = UINT32_MAX, .max_items = PROTOCOL_REFS_MAX,
              .doc = "the references by which the guest has granted its pages to dom0, in their order; at least one"),
        FIELD(grant_map_params, direction, ENUM, NEEDED, .names = direction_names, .doc = DOC_GRANT_DIRECTION),
        FIELD(grant_map_params, request_key, STRING, NAME, .doc = DOC_REQUEST_KEY));

DEFINE(grant_map_result,
        FIELD(grant_map_result, grant, UINT, NEEDED, HANDLE, .doc = "its handle"),
        FIELD(grant_map_result, domain, UINT, NEEDED, .doc = "the domain that grants: by it and the references they are mapped"),
        FIELD(grant_map_result, pages, UINT, NEEDED, .doc = "how many pages that are"));

DEFINE(grant_unmap_params,
        FIELD(grant_unmap_params, grant, UINT, NEEDED, HANDLE, .doc = "the grant, of grant.map or of grant.share"));

DEFINE(grant_share_params,
        GUEST_ROW(grant_share_params),
        FIELD(grant_share_params, size, UINT, NEEDED, .min = 1, .max = PROTOCOL_REFS_MAX * 4096ull,
              .doc = "bytes; rounded up to whole pages of 4096"),
        FIELD(grant_share_params, direction, ENUM, NEEDED, .names = direction_names,
              .doc = "which way data goes, where dom0 is the device: from_device, only dom0 writes; to_device and "
                     "bidirectional, the guest writes, too"),
        FIELD(grant_share_params, request_key, STRING, NAME, .doc = DOC_REQUEST_KEY));

DEFINE(grant_share_result,
        FIELD(grant_share_result, grant, UINT, NEEDED, HANDLE, .doc = "its handle"),
        FIELD(grant_share_result, domain, UINT, NEEDED, .doc = "the domain that may map it: the guest's"),
        FIELD(grant_share_result, size, UINT, NEEDED, .doc = "its bytes"),
        FIELD(grant_share_result, refs, OBJECT, NEEDED, .array = true, .sub = &window_grant_struct,
              .doc = "by what the guest maps it, from its first page on"));

DEFINE(events_subscribe_params,
        FIELD(events_subscribe_params, topics, ENUM, NEEDED, .array = true, .max_items = 64, .names = topic_names,
              .doc = "what to be told of, in addition to what already is subscribed"),
        FIELD(events_subscribe_params, since, UINT,
              .doc = "the number of the last event that is known already: those after it are answered with"));

DEFINE(events_unsubscribe_params,
        FIELD(events_unsubscribe_params, topics, ENUM, .array = true, .max_items = 64, .names = topic_names,
              .doc = "what to be told of no more; everything unless given"));

static const struct schema_field event_info_rows[] = {
        FIELD(event_info, topic, ENUM, NEEDED, .names = topic_names,
              .doc = "recall: return leases that are not in use, for memory is short; pressure: a call waits "
                     "for memory; leak: something was left behind when its device, pool or session ended; guest: something "
                     "has become of a guest"),
        FIELD(event_info, event, UINT, NEEDED, .doc = "its number, counted from the daemon's start"),
        FIELD(event_info, missed, UINT,
              .doc = "events before this one that could not be told, because what was told before was not read"),
        FIELD(event_info, owner, STRING, .doc = "whom it concerns"),
        FIELD(event_info, device, UINT, HANDLE, .doc = "the device that it is about"),
        FIELD(event_info, pool, UINT, HANDLE, .doc = "the pool that it is about"),
        FIELD(event_info, bounce, UINT, HANDLE, .doc = "the bounce pool that it is about"),
        FIELD(event_info, name, STRING, .doc = "the name of what it is about"),
        FIELD(event_info, bytes, UINT, .doc = "bytes wanted, or left behind"),
        FIELD(event_info, count, UINT, .doc = "how many were left behind"),
        FIELD(event_info, over, BOOL, .doc = "of pressure: whether it has ended"),
        FIELD(event_info, level, ENUM, .names = pressure_names, .doc = DOC_LEVEL),
        FIELD(event_info, change, ENUM, .names = guest_change_names,
              .doc = "of guest: what has become of it, or of its windows; leaving: its programs are to unmap a window that was "
                     "granted to them; name is the guest's"),
        FIELD(event_info, grant, UINT, HANDLE,
              .doc = "of recall: the grant that is to be given back, because its guest has ended; name is the guest's owner"),
};
const struct schema_struct event_info_struct = STRUCT(event_info, event_info_rows);

DEFINE(events_subscribe_result,
        FIELD(events_subscribe_result, topics, ENUM, NEEDED, .array = true, .names = topic_names, .doc = DOC_TOPICS),
        FIELD(events_subscribe_result, event, UINT, NEEDED,
              .doc = "the number of the last event, whatever its topic; 0: none yet"),
        FIELD(events_subscribe_result, pressure, BOOL, NEEDED,
              .doc = "whether calls wait for memory now, or the host wants it back"),
        FIELD(events_subscribe_result, level, ENUM, .names = pressure_names, .doc = DOC_LEVEL),
        FIELD(events_subscribe_result, pending, OBJECT, NEEDED, .array = true, .sub = &event_info_struct,
              .doc = "events of these topics after since, as far as they are remembered; none without since"),
        FIELD(events_subscribe_result, missed, UINT,
              .doc = "events after since, of any topic, that are not remembered any more"));

DEFINE(events_unsubscribe_result,
        FIELD(events_unsubscribe_result, topics, ENUM, NEEDED, .array = true, .names = topic_names, .doc = DOC_TOPICS));

/* ---- debug ---- */

DEFINE(debug_check_params,
        FIELD(debug_check_params, repair, BOOL,
              .doc = "also put right what can be; so far nothing can, as `repaired` tells"));

DEFINE(check_counts,
        FIELD(check_counts, owners, UINT, NEEDED, .doc = "owners"),
        FIELD(check_counts, devices, UINT, NEEDED, .doc = "devices"),
        FIELD(check_counts, regions, UINT, NEEDED, .doc = "regions"),
        FIELD(check_counts, extents, UINT, NEEDED, .doc = "extents"),
        FIELD(check_counts, allocs, UINT, NEEDED, .doc = "allocations"),
        FIELD(check_counts, pools, UINT, NEEDED, .doc = "pools"),
        FIELD(check_counts, bounces, UINT, NEEDED, .doc = "bounce pools"),
        FIELD(check_counts, leases, UINT, NEEDED, .doc = "leases"),
        FIELD(check_counts, mappings, UINT, NEEDED, .doc = "mappings"),
        FIELD(check_counts, pages, UINT, NEEDED, .doc = "pages compared with the kernel's page map"));

DEFINE(check_problem,
        FIELD(check_problem, what, STRING, NEEDED, .doc = "a stable word for the kind of problem"),
        FIELD(check_problem, text, STRING, NEEDED, .doc = "a sentence"),
        FIELD(check_problem, handle, UINT, .doc = "the object that it is about"),
        FIELD(check_problem, repaired, BOOL, NEEDED, .doc = "whether it was put right"));

DEFINE(debug_check_result,
        FIELD(debug_check_result, clean, BOOL, NEEDED, .doc = "whether everything agrees"),
        FIELD(debug_check_result, checked, OBJECT, NEEDED, .sub = &check_counts_struct,
              .doc = "how much was looked at"),
        FIELD(debug_check_result, problems, OBJECT, NEEDED, .array = true, .sub = &check_problem_struct,
              .doc = "what does not agree"));

/* ---- the methods ---- */

#define METHOD(group, verb) [METHOD_##group##_##verb] = { .id = METHOD_##group##_##verb, .name = #group "." #verb

static const struct schema_method methods[METHOD_COUNT] = {
        METHOD(broker, hello),
          .summary = "open or resume a session",
          .doc = "Without a token a session is opened and its token returned. With a token the session is "
                 "resumed, which "
                 "only its owner can do. What a session holds is freed when it ends: by broker.bye, by an "
                 "administrator, or when its connection has been gone for the grace time",
          .params = &broker_hello_params_struct, .results = &broker_hello_result_struct,
          .errors = ERRORS(REASON_unknown_handle, REASON_gone, REASON_busy, REASON_unsupported, REASON_limit) },
        METHOD(broker, ping), .summary = "answer", .results = &empty_result_struct },
        METHOD(broker, bye),
          .summary = "end the session",
          .doc = "Everything that lives as long as the session is freed before the answer is sent",
          .results = &empty_result_struct },
        METHOD(broker, status),
          .summary = "say where memory comes from and how much of it there is",
          .params = &broker_status_params_struct, .results = &broker_status_result_struct },
        METHOD(rpc, discover),
          .summary = "describe the protocol",
          .doc = "The result is an OpenRPC document made from the table that requests are checked against" },
        METHOD(device, list),
          .summary = "list open devices",
          .params = &device_list_params_struct, .results = &device_list_result_struct,
          .errors = ERRORS(REASON_not_permitted) },
        METHOD(device, get),
          .summary = "describe one device and pass it, if it is one that can be driven",
          .doc = "Where the translation is iommu, the reply carries the descriptor of VFIO's for the device, by which its owner "
                 "drives it: registers, interrupts, reset. What it reaches is for the daemon alone to say. On local sockets, to "
                 "its owner",
          .params = &device_get_params_struct, .results = &device_info_struct,
          .errors = ERRORS(REASON_unknown_device, REASON_unknown_handle, REASON_no_memory),
          .fds_max = 1, .fds_when = SCHEMA_FDS_ALWAYS },
        METHOD(device, open),
          .summary = "open a device",
          .doc = "A device without DMA of its own uses the nearest ancestor that has it, which is found once, now. The "
                 "name need not be unique",
          .params = &device_open_params_struct, .results = &device_open_result_struct,
          .errors = ERRORS(REASON_mask, REASON_boundary, REASON_unknown_device, REASON_quota, REASON_limit,
                           REASON_unsupported),
          .takes = true },
        METHOD(device, set_mask),
          .summary = "change the addresses that a device can reach",
          .doc = "Refused with the reason mask when there is no memory that the device could then be given",
          .params = &device_set_mask_params_struct, .results = &device_set_mask_result_struct,
          .errors = ERRORS(REASON_unknown_device, REASON_mask, REASON_busy) },
        METHOD(device, supported),
          .summary = "ask whether device.set_mask would accept a mask",
          .params = &device_supported_params_struct, .results = &device_supported_result_struct,
          .errors = ERRORS(REASON_unknown_device) },
        METHOD(device, close),
          .summary = "close a device",
          .doc = "A device that still holds allocations, pools, bounce pools or mappings is not closed unless force is "
                 "given: the error busy then has them in its data as leaked",
          .params = &device_close_params_struct, .results = &device_close_result_struct,
          .errors = ERRORS(REASON_unknown_device, REASON_busy) },
        METHOD(device, reserve),
          .summary = "reserve memory for one device",
          .doc = "The device's allocations are served from the region from then on, and nobody else's are",
          .params = &device_reserve_params_struct, .results = &device_reserve_result_struct,
          .errors = ERRORS(REASON_unknown_device, REASON_quota, REASON_no_memory, REASON_no_contiguous, REASON_mask,
                           REASON_limit, REASON_source_unavailable),
          .takes = true },
        METHOD(device, unreserve),
          .summary = "give a device's reserved memory back",
          .params = &device_unreserve_params_struct, .results = &ok_result_struct,
          .errors = ERRORS(REASON_unknown_device, REASON_unknown_handle, REASON_wrong_device, REASON_busy) },
        METHOD(coherent, alloc),
          .summary = "allocate machine-contiguous memory for a device",
          .doc = "Pages, contiguous on the host's memory bus, that the device and the CPU see alike. A call that waits "
                 "is answered when memory is free or its time is over; other calls are answered meanwhile. With fd the "
                 "reply carries a descriptor of the region, which holds memory of this owner only",
          .params = &coherent_alloc_params_struct, .results = &coherent_alloc_result_struct,
          .errors = ERRORS(REASON_unknown_device, REASON_quota, REASON_no_memory, REASON_no_contiguous, REASON_mask,
                           REASON_boundary, REASON_would_block, REASON_timeout, REASON_limit, REASON_unsupported,
                           REASON_gone, REASON_source_unavailable),
          .fds_max = 1, .fds_when = offsetof(struct coherent_alloc_params, fd), .takes = true },
        METHOD(coherent, free),
          .summary = "free an allocation",
          .params = &coherent_free_params_struct, .results = &ok_result_struct,
          .errors = ERRORS(REASON_unknown_handle, REASON_double_free, REASON_busy) },
        METHOD(coherent, move),
          .summary = "move an allocation to another device, with its contents",
          .doc = "For memory that the other device cannot reach, or that is not shareable: a new allocation of the same size, "
                 "contents and lifetime within the other device's constraints, then the old one is freed. It has a new handle "
                 "and another place; the old handle is not valid any more. If it fails, nothing has changed. Until it is "
                 "answered both count, the old one can neither be freed nor mapped, and what is written to it may be lost. "
                 "An allocation that is mapped, or a pool's, is the error busy. Without a descriptor in the reply, "
                 "region.get passes it",
          .params = &coherent_move_params_struct, .results = &coherent_alloc_result_struct,
          .errors = ERRORS(REASON_unknown_handle, REASON_unknown_device, REASON_busy, REASON_quota, REASON_no_memory,
                           REASON_no_contiguous, REASON_mask, REASON_boundary, REASON_would_block, REASON_timeout,
                           REASON_limit, REASON_gone, REASON_source_unavailable),
          .fds_max = 1, .fds_when = offsetof(struct coherent_move_params, fd), .takes = true },
        METHOD(coherent, swap_out),
          .summary = "move what is in an allocation out to ordinary memory",
          .doc = "For an allocation that no device uses for a while: its contents go to ordinary memory, which the host may page "
                 "out, and its device memory is freed. It keeps its handle, its owner, its device and its lifetime, but has no "
                 "dma address, and addressing is none, until coherent.swap_in. What was swapped out already is answered in the "
                 "same way. If it fails, nothing has changed. The device must not write to it, and what is written during the "
                 "call may be lost. One that is mapped, or a pool's, is the error busy. Without a descriptor in the reply, "
                 "region.get passes it",
          .params = &coherent_swap_out_params_struct, .results = &coherent_swap_out_result_struct,
          .errors = ERRORS(REASON_unknown_handle, REASON_double_free, REASON_busy, REASON_quota, REASON_no_memory, REASON_limit,
                           REASON_gone, REASON_source_unavailable),
          .fds_max = 1, .fds_when = offsetof(struct coherent_swap_out_params, fd) },
        METHOD(coherent, swap_in),
          .summary = "move what is in an allocation back to device memory",
          .doc = "At another address than before, within the constraints of its device and those given here: those of the "
                 "allocating call are not remembered. What is in device memory already, within these constraints, is answered "
                 "with where it is. If it fails, it stays where it is",
          .params = &coherent_swap_in_params_struct, .results = &coherent_alloc_result_struct,
          .errors = ERRORS(REASON_unknown_handle, REASON_double_free, REASON_busy, REASON_quota, REASON_no_memory,
                           REASON_no_contiguous, REASON_mask, REASON_boundary, REASON_would_block, REASON_timeout, REASON_limit,
                           REASON_gone, REASON_source_unavailable),
          .fds_max = 1, .fds_when = offsetof(struct coherent_swap_in_params, fd) },
        METHOD(coherent, list),
          .summary = "list allocations",
          .params = &list_params_struct, .results = &coherent_list_result_struct,
          .errors = ERRORS(REASON_not_permitted, REASON_unknown_device) },
        METHOD(coherent, lookup),
          .summary = "find what holds an address",
          .doc = "The allocation; if that is a pool's, also the pool, the block and the lease that it is part of",
          .params = &coherent_lookup_params_struct, .results = &coherent_lookup_result_struct,
          .errors = ERRORS(REASON_bad_address, REASON_unknown_device, REASON_not_permitted) },
        METHOD(pool, create),
          .summary = "make a pool of blocks of one size",
          .doc = "Blocks are cut from slabs, which the pool takes from memory as it needs them, and keeps for "
                 "reuse. No block crosses the boundary, nor the device's. The reserve's blocks are taken before the "
                 "answer is sent, and stay whatever happens. The pool ends with its session, or with the last other "
                 "session of the owner that still has blocks of it then",
          .params = &pool_create_params_struct, .results = &pool_create_result_struct,
          .errors = ERRORS(REASON_unknown_device, REASON_bad_param, REASON_boundary, REASON_limit, REASON_unsupported,
                           REASON_quota, REASON_mask, MEMORY_REASONS),
          .takes = true },
        METHOD(pool, alloc),
          .summary = "take blocks from a pool",
          .doc = "All of them or none. Calls that wait are served in the order in which they came, leases included. "
                 "The blocks are the session's and go back when it ends",
          .params = &pool_alloc_params_struct, .results = &pool_alloc_result_struct,
          .errors = ERRORS(REASON_unknown_handle, REASON_limit, REASON_quota, MEMORY_REASONS),
          .takes = true },
        METHOD(pool, free),
          .summary = "give blocks back to their pool",
          .doc = "All of them or none. What is no block of this pool, or is in the middle of one, is the error "
                 "bad_address",
          .params = &pool_free_params_struct, .results = &ok_result_struct,
          .errors = ERRORS(REASON_unknown_handle, REASON_bad_address, REASON_double_free, REASON_busy) },
        METHOD(pool, lease),
          .summary = "take a span of a pool's blocks, to be divided without asking",
          .doc = "The blocks lie one behind the other. The lease goes back as a whole; when its session ends, at "
                 "once. The event recall asks for what is not in use",
          .params = &pool_lease_params_struct, .results = &pool_lease_result_struct,
          .errors = ERRORS(REASON_unknown_handle, REASON_limit, REASON_quota, MEMORY_REASONS),
          .fds_max = 1, .fds_when = offsetof(struct pool_lease_params, fd), .takes = true },
        METHOD(pool, return),
          .summary = "give a pool's lease back",
          .params = &lease_return_params_struct, .results = &ok_result_struct,
          .errors = ERRORS(REASON_unknown_handle, REASON_double_free) },
        METHOD(pool, destroy),
          .summary = "end a pool",
          .doc = "A pool whose blocks are not all back is not ended unless force is given: the error busy then has "
                 "them in its data as busy, block by block, the first 1000 of them",
          .params = &pool_destroy_params_struct, .results = &pool_destroy_result_struct,
          .errors = ERRORS(REASON_unknown_handle, REASON_busy) },
        METHOD(pool, trim),
          .summary = "give a pool's unused slabs back, down to its reserve",
          .params = &pool_params_struct, .results = &pool_trim_result_struct,
          .errors = ERRORS(REASON_unknown_handle) },
        METHOD(pool, list),
          .summary = "list pools and how full they are",
          .params = &list_params_struct, .results = &pool_list_result_struct,
          .errors = ERRORS(REASON_not_permitted, REASON_unknown_device) },
        METHOD(pool, stats),
          .summary = "tell everything about one pool",
          .params = &pool_params_struct, .results = &pool_info_struct,
          .errors = ERRORS(REASON_unknown_handle) },
        METHOD(bounce, create),
          .summary = "make a bounce pool",
          .doc = "Memory that the device can reach, in slots, for data that lies where it cannot. The client maps "
                 "the memory (region.get passes it) and does the copying",
          .params = &bounce_create_params_struct, .results = &bounce_create_result_struct,
          .errors = ERRORS(REASON_unknown_device, REASON_bad_param, REASON_limit, REASON_quota, REASON_mask,
                           REASON_boundary, MEMORY_REASONS),
          .takes = true },
        METHOD(bounce, map),
          .summary = "take a run of slots for one transfer",
          .doc = "A pool that is full answers no_memory, or no_contiguous when no free run is long enough, with the "
                 "numbers in slots: asked, in_use, largest_free. What could never fit is the error limit. Calls "
                 "that wait are served in the order in which they came",
          .params = &bounce_map_params_struct, .results = &bounce_map_result_struct,
          .errors = ERRORS(REASON_unknown_handle, REASON_limit, REASON_quota, MEMORY_REASONS),
          .takes = true },
        METHOD(bounce, unmap),
          .summary = "give a mapping's slots back",
          .params = &bounce_unmap_params_struct, .results = &ok_result_struct,
          .errors = ERRORS(REASON_unknown_handle, REASON_double_free, REASON_wrong_size, REASON_wrong_direction,
                           REASON_bad_address) },
        METHOD(bounce, sync),
          .summary = "check a synchronisation of a mapping, or of a part of it",
          .doc = "The copying is the client's; this checks that it makes sense, and counts",
          .params = &bounce_sync_params_struct, .results = &ok_result_struct,
          .errors = ERRORS(REASON_unknown_handle, REASON_double_free, REASON_bad_address, REASON_wrong_direction) },
        METHOD(bounce, lease),
          .summary = "take a span of slots, to be divided without asking",
          .doc = "As pool.lease",
          .params = &bounce_lease_params_struct, .results = &bounce_lease_result_struct,
          .errors = ERRORS(REASON_unknown_handle, REASON_limit, REASON_quota, MEMORY_REASONS),
          .fds_max = 1, .fds_when = offsetof(struct bounce_lease_params, fd), .takes = true },
        METHOD(bounce, return),
          .summary = "give a bounce pool's lease back",
          .params = &lease_return_params_struct, .results = &ok_result_struct,
          .errors = ERRORS(REASON_unknown_handle, REASON_double_free) },
        METHOD(bounce, destroy),
          .summary = "end a bounce pool",
          .doc = "One that has mappings or leases is not ended unless force is given: the error busy then has them "
                 "in its data as busy",
          .params = &bounce_destroy_params_struct, .results = &bounce_destroy_result_struct,
          .errors = ERRORS(REASON_unknown_handle, REASON_busy) },
        METHOD(bounce, stats),
          .summary = "tell everything about one bounce pool",
          .params = &bounce_stats_params_struct, .results = &bounce_info_struct,
          .errors = ERRORS(REASON_unknown_handle) },
        METHOD(bounce, list),
          .summary = "list bounce pools and how full they are",
          .params = &list_params_struct, .results = &bounce_list_result_struct,
          .errors = ERRORS(REASON_not_permitted, REASON_unknown_device) },
        METHOD(mapping, map),
          .summary = "let a device reach an allocation",
          .doc = "The allocation can be the device's own, or another's that was made shareable. It cannot be freed "
                 "until it is unmapped",
          .params = &mapping_map_params_struct, .results = &mapping_map_result_struct,
          .errors = ERRORS(REASON_unknown_device, REASON_unknown_handle, REASON_wrong_device, REASON_bad_address,
                           REASON_mask, REASON_boundary, REASON_limit, REASON_quota, REASON_unsupported),
          .takes = true },
        METHOD(mapping, unmap),
          .summary = "end a mapping",
          .params = &mapping_unmap_params_struct, .results = &ok_result_struct,
          .errors = ERRORS(REASON_unknown_handle, REASON_double_free) },
        METHOD(mapping, list),
          .summary = "list mappings, those of bounce pools included",
          .params = &list_params_struct, .results = &mapping_list_result_struct,
          .errors = ERRORS(REASON_not_permitted, REASON_unknown_device) },
        METHOD(lease, list),
          .summary = "list leases of pools and bounce pools",
          .params = &lease_list_params_struct, .results = &lease_list_result_struct,
          .errors = ERRORS(REASON_not_permitted, REASON_unknown_handle) },
        METHOD(region, list),
          .summary = "list regions and the extents that they are made of",
          .params = &region_list_params_struct, .results = &region_list_result_struct,
          .errors = ERRORS(REASON_not_permitted, REASON_unknown_device) },
        METHOD(region, get),
          .summary = "describe one region and pass its memory",
          .doc = "The reply carries a descriptor of the region's memory to its owner, on local sockets",
          .params = &region_get_params_struct, .results = &region_info_struct,
          .errors = ERRORS(REASON_unknown_handle),
          .fds_max = 1, .fds_when = SCHEMA_FDS_ALWAYS },
        METHOD(memory, release),
          .summary = "give memory that nobody needs back to the system",
          .doc = "What costs others least goes first: free memory, then regions in which nothing is allocated, then what "
                 "pools keep without using it; at last the event recall asks clients for leases. The reserves of the sources "
                 "stay, and the minimum, and what was guaranteed. The event pressure tells when it begins and when it ends. "
                 "It is answered when enough went back, or nothing more can",
          .params = &memory_release_params_struct, .results = &memory_release_result_struct,
          .errors = ERRORS(REASON_gone),
          .role = SCHEMA_ROLE_ADMIN },
        METHOD(quarantine, list),
          .summary = "list memory that rests, because a device may still write it",
          .doc = "What a client had that vanished is not used again before its device is known to be quiet: its time has "
                 "passed, the device was closed, or an administrator said so. It counts as its owner's until then. Yours; "
                 "everybody's for an administrator",
          .params = &quarantine_list_params_struct, .results = &quarantine_list_result_struct,
          .errors = ERRORS(REASON_not_permitted) },
        METHOD(quarantine, release),
          .summary = "say that devices are quiet: memory that rests may be used again at once",
          .doc = "All of it, or what was one owner's, or what lies at one address. What a device writes there nonetheless, it "
                 "writes into the memory of whoever has it then",
          .params = &quarantine_release_params_struct, .results = &quarantine_release_result_struct,
          .errors = ERRORS(REASON_bad_address),
          .role = SCHEMA_ROLE_ADMIN },
        METHOD(guest, list),
          .summary = "list the guests of the configuration, in its order",
          .params = &guest_list_params_struct, .results = &guest_list_result_struct,
          .errors = ERRORS(REASON_unknown_guest),
          .role = SCHEMA_ROLE_ADMIN },
        METHOD(guest, get),
          .summary = "tell of one guest",
          .params = &guest_params_struct, .results = &guest_info_struct,
          .errors = ERRORS(REASON_unknown_guest),
          .role = SCHEMA_ROLE_ADMIN },
        METHOD(guest, attach),
          .summary = "give a guest a window: memory that it sees as a PCI device",
          .doc = "Memory of this size is reserved for the guest, plugged into its QEMU while it runs, or granted to it under "
                 "Xen, and answered when the guest can find it. What the guest allocates from then on lies there. The window "
                 "stays when the guest boots anew, but for Xen, and goes with it when it ends. With dry_run nothing is done: "
                 "advice is what an administrator adds to the domain",
          .params = &guest_attach_params_struct, .results = &guest_attach_result_struct,
          .errors = ERRORS(REASON_unknown_guest, REASON_bad_param, REASON_limit, REASON_quota, REASON_unsupported,
                           MEMORY_REASONS),
          .role = SCHEMA_ROLE_ADMIN,
          .takes = true },
        METHOD(guest, detach),
          .summary = "take a window back from its guest",
          .doc = "Answered when the guest has let go of it; its memory is zeroed before anybody else gets it. A window in which "
                 "something is allocated is the error busy, unless force frees that first, and ends the sessions that have it. A "
                 "guest that does not let go in time is the error timeout: then the window goes back whenever it does",
          .params = &guest_detach_params_struct, .results = &ok_result_struct,
          .errors = ERRORS(REASON_unknown_handle, REASON_busy, REASON_timeout, REASON_gone, REASON_source_unavailable,
                           REASON_no_memory),
          .role = SCHEMA_ROLE_ADMIN },
        METHOD(guest, set_quota),
          .summary = "set a guest's limits, as quota.set sets an owner's",
          .params = &guest_set_quota_params_struct, .results = &quota_result_struct,
          .errors = ERRORS(REASON_unknown_guest, REASON_no_memory),
          .role = SCHEMA_ROLE_ADMIN },
        METHOD(guest, evict),
          .summary = "free everything that a guest has, but for its windows",
          .doc = "Its sessions end",
          .params = &guest_params_struct, .results = &ok_result_struct,
          .errors = ERRORS(REASON_unknown_guest),
          .role = SCHEMA_ROLE_ADMIN },
        METHOD(guest, exchange),
          .summary = "exchange pages of a paravirtualised guest of Xen's for others in one piece",
          .doc = "For a guest that has given these pages up: its kernel has them mapped nowhere, and expects others in their "
                 "place. Xen takes no page that anybody has mapped, which is the error busy; and a kernel of Linux's has "
                 "mapped all that it has. Asked by the guest itself; or, with given_up, by an administrator while it is paused: "
                 "else the error is not_permitted, since a guest whose kernel does not know of it does not live long. What was "
                 "in the pages is lost, and what it gets is zeroed. Where Xen comes to an end in the midst of it, exchanged and "
                 "why say so. When the answer is lost nobody knows whether it was done",
          .params = &guest_exchange_params_struct, .results = &guest_exchange_result_struct,
          .errors = ERRORS(REASON_unsupported, REASON_not_permitted, REASON_unknown_guest, REASON_bad_param, REASON_limit,
                           REASON_mask, REASON_bad_address, REASON_busy, REASON_no_contiguous, REASON_no_memory, REASON_gone,
                           REASON_source_unavailable) },
        METHOD(window, list),
          .summary = "list the windows of the guest that asks",
          .doc = "Everybody's for an administrator. The guest knows a window by the cookie in its last 4096 bytes, which follows "
                 "the 16 letters dmabroker-window, and tells where it sees it with window.bind",
          .params = &window_list_params_struct, .results = &window_list_result_struct,
          .errors = ERRORS(REASON_unknown_guest) },
        METHOD(window, bind),
          .summary = "tell at which address of its own the guest sees a window",
          .doc = "The dma addresses of what lies in it are the guest's own from then on. A window in which something lies cannot "
                 "be bound elsewhere, which is the error busy. By the guest itself only; a wrong address harms nobody else",
          .params = &window_bind_params_struct, .results = &ok_result_struct,
          .errors = ERRORS(REASON_unknown_handle, REASON_bad_param, REASON_busy) },
        METHOD(grant, list),
          .summary = "list the pages that are granted to guests of Xen's, or by them",
          .doc = "What is in use is read from the grant tables at this moment. Yours; everybody's for an administrator. On a "
                 "host without Xen: the error unsupported",
          .params = &grant_list_params_struct, .results = &grant_list_result_struct,
          .errors = ERRORS(REASON_unsupported, REASON_not_permitted, REASON_unknown_guest) },
        METHOD(grant, map),
          .summary = "say that pages which a guest of Xen's has granted to dom0 are being mapped",
          .doc = "Whoever calls maps them by its own /dev/xen/gntdev, with domain and refs: a descriptor that could be passed "
                 "would show every domain's memory. The daemon looks whether the guest has granted them, counts them, lists "
                 "them, and forgets them with grant.unmap or the session. When the guest ends, the event recall says which "
                 "grant is to be given back: until it is unmapped the domain does not go. On a host without Xen: the error "
                 "unsupported",
          .params = &grant_map_params_struct, .results = &grant_map_result_struct,
          .errors = ERRORS(REASON_unsupported, REASON_unknown_guest, REASON_source_unavailable, REASON_bad_address,
                           REASON_quota, REASON_gone, REASON_no_memory),
          .role = SCHEMA_ROLE_ADMIN,
          .takes = true },
        METHOD(grant, unmap),
          .summary = "give a grant back that grant.map or grant.share has made",
          .doc = "After it was unmapped. Pages of grant.share are granted no more as soon as nobody has them mapped",
          .params = &grant_unmap_params_struct, .results = &ok_result_struct,
          .errors = ERRORS(REASON_unsupported, REASON_unknown_handle, REASON_double_free),
          .role = SCHEMA_ROLE_ADMIN },
        METHOD(grant, share),
          .summary = "grant new pages of dom0's to a guest of Xen's",
          .doc = "The pages are zero, lie anywhere in dom0's memory, and no device is told of them. The reply carries a "
                 "descriptor of them, to be mapped at 0; the guest maps them by refs, whoever tells it these. They are there "
                 "until grant.unmap or the end of the session, and as long as anybody has them mapped. On a host without Xen: "
                 "the error unsupported",
          .params = &grant_share_params_struct, .results = &grant_share_result_struct,
          .errors = ERRORS(REASON_unsupported, REASON_unknown_guest, REASON_source_unavailable, REASON_limit, REASON_quota,
                           REASON_gone, REASON_no_memory),
          .role = SCHEMA_ROLE_ADMIN,
          .fds_max = 1, .fds_when = SCHEMA_FDS_ALWAYS, .takes = true },
        METHOD(quota, get),
          .summary = "say what an owner may have and what it has",
          .params = &quota_get_params_struct, .results = &quota_result_struct,
          .errors = ERRORS(REASON_not_permitted, REASON_unknown_handle) },
        METHOD(quota, set),
          .summary = "set an owner's limits, or those of one of its devices",
          .doc = "A limit below what is charged already takes nothing away, but allows no more. More guaranteed than the "
                 "sources can have, with what others are guaranteed, is the error no_memory with the numbers, and nothing "
                 "is set",
          .params = &quota_set_params_struct, .results = &quota_result_struct,
          .errors = ERRORS(REASON_unknown_handle, REASON_no_memory),
          .role = SCHEMA_ROLE_ADMIN },
        METHOD(stats, get),
          .summary = "tell counters, high-water marks and latencies",
          .params = &stats_get_params_struct, .results = &stats_get_result_struct,
          .role = SCHEMA_ROLE_LOCAL },
        METHOD(stats, reset),
          .summary = "start counters and latencies anew",
          .params = &stats_reset_params_struct, .results = &ok_result_struct,
          .role = SCHEMA_ROLE_ADMIN },
        METHOD(events, subscribe),
          .summary = "be told of what happens",
          .doc = "From then on each event comes as a notification with the method event; its params are as the "
                 "elements of pending. Each sees what concerns itself, administrators see everything; recall goes "
                 "to the session that is asked to return something. Whoever does not read what it is told misses "
                 "events, and is told how many. A since greater than the last event's number is of an earlier "
                 "daemon: then everything remembered is told",
          .params = &events_subscribe_params_struct, .results = &events_subscribe_result_struct },
        METHOD(events, unsubscribe),
          .summary = "be told of it no more",
          .params = &events_unsubscribe_params_struct, .results = &events_unsubscribe_result_struct },
        METHOD(debug, check),
          .summary = "check every invariant, and every page's address against the kernel",
          .params = &debug_check_params_struct, .results = &debug_check_result_struct,
          .role = SCHEMA_ROLE_ADMIN },
};

const struct schema_table protocol_table = {
        .title = "dmabroker",
        .version = "1",
        .description = "Machine-contiguous memory for devices, over JSON-RPC 2.0: one JSON text per line",
        .methods = methods,
        .n_methods = METHOD_COUNT,
};
