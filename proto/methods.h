/* The broker's methods: their numbers, and the C structs of their parameters and results. The rows that describe them,
 * with ranges and documentation, are in methods.c in the same order. See schema.h for the rules.
 *
 * A new method is: an id here, its structs here, its rows in methods.c, and a handler in daemon/rpc/. */
#ifndef DMAB_PROTO_METHODS_H
#define DMAB_PROTO_METHODS_H

#include "proto/schema.h"

enum method {
        METHOD_broker_hello,
        METHOD_broker_ping,
        METHOD_broker_bye,
        METHOD_broker_status,
        METHOD_rpc_discover,
        METHOD_device_list,
        METHOD_device_get,
        METHOD_device_open,
        METHOD_device_set_mask,
        METHOD_device_supported,
        METHOD_device_close,
        METHOD_device_reserve,
        METHOD_device_unreserve,
        METHOD_coherent_alloc,
        METHOD_coherent_free,
        METHOD_coherent_move,
        METHOD_coherent_swap_out,
        METHOD_coherent_swap_in,
        METHOD_coherent_list,
        METHOD_coherent_lookup,
        METHOD_pool_create,
        METHOD_pool_alloc,
        METHOD_pool_free,
        METHOD_pool_lease,
        METHOD_pool_return,
        METHOD_pool_destroy,
        METHOD_pool_trim,
        METHOD_pool_list,
        METHOD_pool_stats,
        METHOD_bounce_create,
        METHOD_bounce_map,
        METHOD_bounce_unmap,
        METHOD_bounce_sync,
        METHOD_bounce_lease,
        METHOD_bounce_return,
        METHOD_bounce_destroy,
        METHOD_bounce_stats,
        METHOD_bounce_list,
        METHOD_mapping_map,
        METHOD_mapping_unmap,
        METHOD_mapping_list,
        METHOD_lease_list,
        METHOD_region_list,
        METHOD_region_get,
        METHOD_memory_release,
        METHOD_quarantine_list,
        METHOD_quarantine_release,
        METHOD_guest_list,
        METHOD_guest_get,
        METHOD_guest_attach,
        METHOD_guest_detach,
        METHOD_guest_set_quota,
        METHOD_guest_evict,
        METHOD_guest_exchange,
        METHOD_window_list,
        METHOD_window_bind,
        METHOD_grant_list,
        METHOD_grant_map,
        METHOD_grant_unmap,
        METHOD_grant_share,
        METHOD_quota_get,
        METHOD_quota_set,
        METHOD_stats_get,
        METHOD_stats_reset,
        METHOD_events_subscribe,
        METHOD_events_unsubscribe,
        METHOD_debug_check,
        METHOD_COUNT
};

extern const struct schema_table protocol_table; /* METHOD_COUNT methods */

enum {
        PROTOCOL_VERSION = 1,
        PROTOCOL_WAIT_MS_MAX = 86400000,
        PROTOCOL_LIST_DEFAULT = 1000, /* elements that a list answers with when no limit is asked for */
        PROTOCOL_LIST_MAX = 10000,
        PROTOCOL_BLOCKS_MAX = 10000, /* blocks in one call; more are what leases are for */
        PROTOCOL_EXCHANGE_MAX = 65536, /* frames in one call */
        PROTOCOL_EXCHANGE_ORDER_MAX = 16,
        PROTOCOL_REFS_MAX = 32768,   /* pages of one grant */
};

/* The words of the protocol; each counts as its names in methods.c do. */
enum protocol_role { PROTOCOL_ADMIN, PROTOCOL_LOCAL, PROTOCOL_GUEST };
enum protocol_addressing { PROTOCOL_MACHINE, PROTOCOL_SIMULATED, PROTOCOL_NO_ADDRESS };
enum protocol_translation { PROTOCOL_IDENTITY, PROTOCOL_IOMMU, PROTOCOL_GRANT, PROTOCOL_GUEST_ADDRESS };
enum protocol_priority { PROTOCOL_NORMAL, PROTOCOL_HIGH };
enum protocol_lifetime { PROTOCOL_LIFETIME_SESSION, PROTOCOL_LIFETIME_OWNER };
enum protocol_caching { PROTOCOL_CACHED, PROTOCOL_WRITE_COMBINED, PROTOCOL_UNCACHED };
enum protocol_block_state { PROTOCOL_FREE, PROTOCOL_USED, PROTOCOL_LEASED, PROTOCOL_QUARANTINED };
enum protocol_direction { PROTOCOL_TO_DEVICE, PROTOCOL_FROM_DEVICE, PROTOCOL_BIDIRECTIONAL };
enum protocol_resting {
        PROTOCOL_RESTING_ALLOC,
        PROTOCOL_RESTING_BLOCKS,
        PROTOCOL_RESTING_SLOTS,
        PROTOCOL_RESTING_REGION
};
enum protocol_rests { PROTOCOL_RESTS_VANISHED, PROTOCOL_RESTS_DAMAGED };
enum protocol_sync { PROTOCOL_FOR_CPU, PROTOCOL_FOR_DEVICE };
enum protocol_topic { PROTOCOL_RECALL, PROTOCOL_PRESSURE, PROTOCOL_LEAK, PROTOCOL_GUESTS, PROTOCOL_TOPICS };
enum protocol_guest_state {
        PROTOCOL_GUEST_UNKNOWN,
        PROTOCOL_GUEST_OFF,
        PROTOCOL_GUEST_RUNNING,
        PROTOCOL_GUEST_PAUSED
};
enum protocol_guest_change {
        PROTOCOL_GUEST_STARTED,
        PROTOCOL_GUEST_STOPPED,
        PROTOCOL_GUEST_REBOOTED,
        PROTOCOL_GUEST_ATTACHED,
        PROTOCOL_GUEST_DETACHED,
        PROTOCOL_GUEST_CONNECTED,
        PROTOCOL_GUEST_LEAVING
};
enum protocol_guest_via { PROTOCOL_VIA_LIBVIRT, PROTOCOL_VIA_QMP, PROTOCOL_VIA_NONE, PROTOCOL_VIA_XEN };
enum protocol_window_state {
        PROTOCOL_WINDOW_RESERVING,
        PROTOCOL_WINDOW_PLUGGING,
        PROTOCOL_WINDOW_PLUGGED,
        PROTOCOL_WINDOW_LEAVING
};
enum protocol_grant_kind { PROTOCOL_GRANT_WINDOW, PROTOCOL_GRANT_MAP, PROTOCOL_GRANT_SHARE };
enum protocol_grant_state {
        PROTOCOL_GRANT_GRANTED,
        PROTOCOL_GRANT_REVOKING,
        PROTOCOL_GRANT_MAPPED,
        PROTOCOL_GRANT_SHARED,
        PROTOCOL_GRANT_GONE
};
enum protocol_pressure { PROTOCOL_PRESSURE_REQUESTS, PROTOCOL_PRESSURE_HOST, PROTOCOL_PRESSURE_GRANTS };
enum protocol_source_state { PROTOCOL_SOURCE_READY, PROTOCOL_SOURCE_UNAVAILABLE };
enum protocol_stats_group { PROTOCOL_STATS_RPC, PROTOCOL_STATS_MEMORY, PROTOCOL_STATS_OWNERS };
enum protocol_quota_name {
        PROTOCOL_QUOTA_BYTES,
        PROTOCOL_QUOTA_HELD_BYTES,
        PROTOCOL_QUOTA_LOW_BYTES,
        PROTOCOL_QUOTA_ALLOCS,
        PROTOCOL_QUOTA_DEVICES,
        PROTOCOL_QUOTA_REGIONS,
        PROTOCOL_QUOTA_POOLS,
        PROTOCOL_QUOTA_LEASES,
        PROTOCOL_QUOTA_MAPPINGS,
        PROTOCOL_QUOTA_WAITERS,
        PROTOCOL_QUOTA_CONNECTIONS,
        PROTOCOL_QUOTA_CALLS_PER_SECOND,
        PROTOCOL_QUOTA_ANONYMOUS_BYTES,
        PROTOCOL_QUOTA_GRANTS,
};

/* For methods that take nothing (broker.ping, …) and for those that answer {}. */
struct empty_params {
        uint64_t present;
};

struct empty_result {
        uint64_t present;
};

struct ok_result {
        uint64_t present;
        bool ok SCHEMA_SLOT; /* true; what went wrong is an error, never false */
};

/* Of every list that can be narrowed to a device and an owner. */
struct list_params {
        uint64_t present;
        uint64_t device;
        const char *owner;
        uint64_t after;
        uint64_t limit;
};

/* ---- broker ---- */

struct broker_hello_params {
        uint64_t present;
        const char *client;
        uint64_t protocol;
        const char *session;
};

struct hello_limits {
        uint64_t present;
        uint64_t message_bytes;
        uint64_t nesting;
        uint64_t calls_in_flight;
        uint64_t batch_elements;
        uint64_t batch_reply_bytes;
        uint64_t fds_per_reply;
        uint64_t queue_bytes;
        uint64_t grace_ms;
        uint64_t wait_ms;
        uint64_t list_elements;
};

struct broker_hello_result {
        uint64_t present;
        const char *server;
        const char *version;
        uint64_t protocol;
        const char *session;
        const char *owner;
        enum protocol_role role SCHEMA_SLOT;
        SCHEMA_LIST(char *const) capabilities;
        struct hello_limits limits;
};

struct broker_status_params {
        uint64_t present;
        uint64_t runs;
};

struct memory_run {
        uint64_t present;
        uint64_t machine_addr;
        uint64_t size;
};

struct status_source {
        uint64_t present;
        const char *name;
        enum protocol_addressing addressing SCHEMA_SLOT;
        enum protocol_source_state state SCHEMA_SLOT;
        const char *why;
        uint64_t total;
        uint64_t free;
        uint64_t in_regions;
        uint64_t used;
        uint64_t largest_free;
        uint64_t low_total;
        uint64_t low_free;
        uint64_t grain;
        bool pinned SCHEMA_SLOT;
        uint64_t limit; /* optional */
        uint64_t available; /* optional */
        uint64_t pending;
        uint64_t emergency;
        uint64_t awaited; /* optional */
        SCHEMA_LIST(struct memory_run) free_runs; /* optional */
};

struct status_backend {
        uint64_t present;
        const char *name;
        enum protocol_translation translation SCHEMA_SLOT;
        uint64_t devices;
};

struct status_counts {
        uint64_t present;
        uint64_t connections;
        uint64_t sessions;
        uint64_t owners;
        uint64_t devices;
        uint64_t regions;
        uint64_t allocs;
        uint64_t pools;
        uint64_t bounces;
        uint64_t leases;
        uint64_t mappings;
        uint64_t waiters;
        uint64_t guests;
};

struct status_guarantees {
        uint64_t present;
        uint64_t bytes;
        uint64_t low_bytes;
        uint64_t unmet;
        uint64_t unmet_low;
};

struct status_anonymous {
        uint64_t present;
        uint64_t total;
        uint64_t used;
        uint64_t limit;
};

struct broker_status_result {
        uint64_t present;
        const char *server;
        const char *version;
        uint64_t uptime; /* seconds */
        uint64_t uptime_ms;
        enum protocol_addressing addressing SCHEMA_SLOT;
        SCHEMA_LIST(struct status_source) sources;
        SCHEMA_LIST(struct status_backend) backends;
        struct status_counts counts;
        struct status_guarantees guarantees;
        uint64_t quarantined;
        struct status_anonymous anonymous;
        SCHEMA_LIST(char *const) notes;
};

/* ---- device ---- */

struct device_list_params {
        uint64_t present;
        const char *owner;
        uint64_t after;
        uint64_t limit;
};

struct device_info {
        uint64_t present;
        uint64_t device;
        const char *name;
        const char *owner;
        const char *parent; /* optional */
        const char *via;
        enum protocol_translation translation SCHEMA_SLOT;
        uint64_t mask;
        uint64_t coherent_mask;
        uint64_t boundary;       /* optional */
        uint64_t max_segment;    /* optional */
        uint64_t min_align_mask; /* optional */
        uint64_t node;           /* optional */
        uint64_t wait_ms;        /* optional */
        uint64_t allocs;
        uint64_t bytes;
        uint64_t reserved_bytes;
        bool session_bound SCHEMA_SLOT;
};

struct device_list_result {
        uint64_t present;
        SCHEMA_LIST(struct device_info) devices;
        bool more SCHEMA_SLOT;
};

struct device_get_params {
        uint64_t present;
        uint64_t device;
};

struct device_open_params {
        uint64_t present;
        const char *name;
        const char *parent;
        uint64_t mask;
        uint64_t coherent_mask;
        uint64_t boundary;
        uint64_t max_segment;
        uint64_t min_align_mask;
        uint64_t node;
        uint64_t wait_ms;
        const char *request_key;
};

struct device_open_result {
        uint64_t present;
        uint64_t device;
        enum protocol_translation translation SCHEMA_SLOT;
        const char *via;
        const char *name;
        const char *parent; /* optional */
        uint64_t mask;
        uint64_t coherent_mask;
        uint64_t boundary;       /* optional */
        uint64_t max_segment;    /* optional */
        uint64_t min_align_mask; /* optional */
        uint64_t node;           /* optional */
        uint64_t wait_ms;        /* optional */
};

struct device_set_mask_params {
        uint64_t present;
        uint64_t device;
        uint64_t mask;
        bool coherent SCHEMA_SLOT;
};

struct device_set_mask_result {
        uint64_t present;
        bool ok SCHEMA_SLOT;
        uint64_t mask;
        uint64_t coherent_mask;
};

struct device_supported_params {
        uint64_t present;
        uint64_t device;
        uint64_t mask;
        bool coherent SCHEMA_SLOT;
};

struct device_supported_result {
        uint64_t present;
        bool supported SCHEMA_SLOT;
        const char *why; /* optional */
};

struct device_close_params {
        uint64_t present;
        uint64_t device;
        bool force SCHEMA_SLOT;
};

/* Also what `leaked` in the data of device.close's EBUSY holds, as a RPC_VALUE_LIST of device_leak_struct. */
struct device_leak {
        uint64_t present;
        uint64_t alloc;    /* optional, */
        uint64_t pool;     /* optional, */
        uint64_t bounce;   /* optional, */
        uint64_t mapping;  /* optional: exactly one of the four, but for a bounce mapping, which tells both */
        const char *name;  /* optional */
        uint64_t size;
        uint64_t dma_addr; /* optional */
};
extern const struct schema_struct device_leak_struct;

struct device_close_result {
        uint64_t present;
        SCHEMA_LIST(struct device_leak) leaked;
};

struct device_reserve_params {
        uint64_t present;
        uint64_t device;
        uint64_t size;
        uint64_t mask;
        uint64_t stride;
        uint64_t usable;
        const char *request_key;
};

struct device_reserve_result {
        uint64_t present;
        uint64_t region;
        uint64_t size;
        uint64_t usable_bytes;
        uint64_t dma_addr;
        uint64_t machine_addr; /* optional */
        enum protocol_addressing addressing SCHEMA_SLOT;
};

struct device_unreserve_params {
        uint64_t present;
        uint64_t device;
        uint64_t region;
};

/* ---- coherent ---- */

/* Answered with a coherent_alloc_result. */
struct coherent_move_params {
        uint64_t present;
        uint64_t alloc;
        uint64_t device;
        uint64_t align;
        uint64_t wait_ms;
        enum protocol_priority priority SCHEMA_SLOT;
        bool fd SCHEMA_SLOT;
        const char *request_key;
};

struct coherent_swap_out_params {
        uint64_t present;
        uint64_t alloc;
        bool fd SCHEMA_SLOT;
};

struct coherent_swap_out_result {
        uint64_t present;
        uint64_t alloc;
        uint64_t region;
        uint64_t offset;
        uint64_t size;
        enum protocol_addressing addressing SCHEMA_SLOT;
};

/* Answered with a coherent_alloc_result. */
struct coherent_swap_in_params {
        uint64_t present;
        uint64_t alloc;
        uint64_t align;
        uint64_t boundary;
        uint64_t mask;
        uint64_t wait_ms;
        enum protocol_priority priority SCHEMA_SLOT;
        bool fd SCHEMA_SLOT;
};

struct coherent_alloc_params {
        uint64_t present;
        uint64_t device;
        uint64_t size;
        uint64_t align;
        uint64_t boundary;
        uint64_t mask;
        uint64_t wait_ms;
        enum protocol_priority priority SCHEMA_SLOT;
        bool zero SCHEMA_SLOT;
        bool shareable SCHEMA_SLOT;
        enum protocol_lifetime lifetime SCHEMA_SLOT;
        bool fd SCHEMA_SLOT;
        const char *request_key;
};

struct coherent_alloc_result {
        uint64_t present;
        uint64_t alloc;
        uint64_t region;
        uint64_t offset;
        uint64_t size;
        uint64_t dma_addr;
        uint64_t machine_addr; /* optional */
        enum protocol_addressing addressing SCHEMA_SLOT;
};

struct coherent_free_params {
        uint64_t present;
        uint64_t alloc;
};

struct alloc_info {
        uint64_t present;
        uint64_t alloc;
        uint64_t device;
        const char *owner;
        uint64_t region;
        uint64_t offset;
        uint64_t size;
        uint64_t dma_addr;     /* optional */
        uint64_t machine_addr; /* optional */
        enum protocol_addressing addressing SCHEMA_SLOT;
        enum protocol_lifetime lifetime SCHEMA_SLOT;
        bool shareable SCHEMA_SLOT;
        uint64_t age_ms;
        uint64_t pool;   /* optional */
        uint64_t bounce; /* optional */
};

struct coherent_list_result {
        uint64_t present;
        SCHEMA_LIST(struct alloc_info) allocs;
        bool more SCHEMA_SLOT;
};

struct coherent_lookup_params {
        uint64_t present;
        uint64_t dma_addr;
        uint64_t machine_addr;
        uint64_t device;
};

/* struct alloc_info's members, and where in the allocation the address lies. */
struct coherent_lookup_result {
        uint64_t present;
        uint64_t alloc;
        uint64_t device;
        const char *owner;
        uint64_t region;
        uint64_t offset;
        uint64_t size;
        uint64_t dma_addr;     /* optional */
        uint64_t machine_addr; /* optional */
        enum protocol_addressing addressing SCHEMA_SLOT;
        enum protocol_lifetime lifetime SCHEMA_SLOT;
        bool shareable SCHEMA_SLOT;
        uint64_t age_ms;
        uint64_t pool;   /* optional */
        uint64_t bounce; /* optional */
        uint64_t at;
        uint64_t block; /* optional */
        enum protocol_block_state state SCHEMA_SLOT; /* optional */
        uint64_t lease; /* optional */
};

/* ---- pool ---- */

struct pool_create_params {
        uint64_t present;
        const char *name;
        uint64_t device;
        uint64_t size;
        uint64_t align;
        uint64_t boundary;
        uint64_t reserve;
        enum protocol_caching caching SCHEMA_SLOT;
        uint64_t max_blocks;
        uint64_t wait_ms;
        enum protocol_priority priority SCHEMA_SLOT;
        const char *request_key;
};

struct pool_create_result {
        uint64_t present;
        uint64_t pool;
        uint64_t block_size;
        uint64_t blocks_per_slab;
        uint64_t align;
        uint64_t boundary; /* optional */
        uint64_t slab_size;
        uint64_t reserve;
};

struct pool_alloc_params {
        uint64_t present;
        uint64_t pool;
        uint64_t count;
        uint64_t wait_ms;
        enum protocol_priority priority SCHEMA_SLOT;
        const char *request_key;
};

struct pool_block_info {
        uint64_t present;
        uint64_t dma_addr;
        uint64_t machine_addr; /* optional */
        uint64_t region;
        uint64_t offset;
};

struct pool_alloc_result {
        uint64_t present;
        SCHEMA_LIST(struct pool_block_info) blocks;
        uint64_t block_size;
        enum protocol_addressing addressing SCHEMA_SLOT;
};

struct pool_free_params {
        uint64_t present;
        uint64_t pool;
        SCHEMA_LIST(uint64_t) dma_addrs;
};

struct pool_lease_params {
        uint64_t present;
        uint64_t pool;
        uint64_t count;
        uint64_t wait_ms;
        enum protocol_priority priority SCHEMA_SLOT;
        bool fd SCHEMA_SLOT;
        const char *request_key;
};

struct pool_lease_result {
        uint64_t present;
        uint64_t lease;
        uint64_t region;
        uint64_t offset;
        uint64_t dma_addr;
        uint64_t machine_addr; /* optional */
        uint64_t count;
        uint64_t block_size;
        enum protocol_addressing addressing SCHEMA_SLOT;
};

/* Of pool.return and bounce.return. */
struct lease_return_params {
        uint64_t present;
        uint64_t lease;
};

struct pool_destroy_params {
        uint64_t present;
        uint64_t pool;
        bool force SCHEMA_SLOT;
};

/* Also what `busy` in the data of pool.destroy's EBUSY holds. */
struct pool_busy_block {
        uint64_t present;
        uint64_t dma_addr;
        uint64_t machine_addr; /* optional */
        uint64_t region;
        uint64_t offset;
        uint64_t lease; /* optional */
};
extern const struct schema_struct pool_busy_block_struct;

struct pool_destroy_result {
        uint64_t present;
        SCHEMA_LIST(struct pool_busy_block) busy;
        bool more SCHEMA_SLOT;
};

/* Of pool.trim and pool.stats. */
struct pool_params {
        uint64_t present;
        uint64_t pool;
};

struct pool_trim_result {
        uint64_t present;
        uint64_t bytes;
};

/* Also pool.stats's result. */
struct pool_info {
        uint64_t present;
        uint64_t pool;
        const char *name;
        uint64_t device;
        const char *device_name;
        const char *owner;
        uint64_t block_size;
        uint64_t align;
        uint64_t boundary; /* optional */
        uint64_t blocks_per_slab;
        uint64_t slab_size;
        uint64_t reserve;
        uint64_t max_blocks; /* optional */
        uint64_t slabs;
        uint64_t bytes;
        uint64_t blocks;
        uint64_t free;
        uint64_t used;
        uint64_t leased;
        uint64_t quarantined;
        uint64_t high_water;
        uint64_t leases;
        uint64_t waiters;
        uint64_t allocs;
        uint64_t frees;
        uint64_t failures;
        uint64_t waits;
        uint64_t timeouts;
        uint64_t recalls;
        enum protocol_addressing addressing SCHEMA_SLOT;
        uint64_t age_ms;
};

struct pool_list_result {
        uint64_t present;
        SCHEMA_LIST(struct pool_info) pools;
        bool more SCHEMA_SLOT;
};

/* ---- bounce ---- */

struct bounce_create_params {
        uint64_t present;
        uint64_t device;
        uint64_t size;
        uint64_t slot_size;
        uint64_t areas;
        uint64_t max_size;
        uint64_t wait_ms;
        enum protocol_priority priority SCHEMA_SLOT;
        const char *request_key;
};

struct bounce_create_result {
        uint64_t present;
        uint64_t bounce;
        uint64_t region;
        uint64_t offset;
        uint64_t dma_addr;
        uint64_t machine_addr; /* optional */
        uint64_t size;
        uint64_t max_size; /* optional */
        uint64_t slot_size;
        uint64_t slots;
        uint64_t areas;
        enum protocol_addressing addressing SCHEMA_SLOT;
};

struct bounce_map_params {
        uint64_t present;
        uint64_t bounce;
        uint64_t size;
        enum protocol_direction direction SCHEMA_SLOT;
        uint64_t align_offset;
        uint64_t wait_ms;
        enum protocol_priority priority SCHEMA_SLOT;
        const char *request_key;
};

struct bounce_map_result {
        uint64_t present;
        uint64_t mapping;
        uint64_t dma_addr;
        uint64_t machine_addr; /* optional */
        uint64_t region;
        uint64_t offset;
        uint64_t size;
        uint64_t slots;
        enum protocol_addressing addressing SCHEMA_SLOT;
};

struct bounce_unmap_params {
        uint64_t present;
        uint64_t mapping;
        uint64_t offset;
        uint64_t size;
        enum protocol_direction direction SCHEMA_SLOT;
};

struct bounce_sync_params {
        uint64_t present;
        uint64_t mapping;
        uint64_t offset;
        uint64_t size;
        enum protocol_direction direction SCHEMA_SLOT;
        enum protocol_sync sync_for SCHEMA_SLOT; /* `for` on the wire */
};

struct bounce_lease_params {
        uint64_t present;
        uint64_t bounce;
        uint64_t slots;
        uint64_t wait_ms;
        enum protocol_priority priority SCHEMA_SLOT;
        bool fd SCHEMA_SLOT;
        const char *request_key;
};

struct bounce_lease_result {
        uint64_t present;
        uint64_t lease;
        uint64_t region;
        uint64_t offset;
        uint64_t dma_addr;
        uint64_t machine_addr; /* optional */
        uint64_t slots;
        uint64_t slot_size;
        enum protocol_addressing addressing SCHEMA_SLOT;
};

struct bounce_destroy_params {
        uint64_t present;
        uint64_t bounce;
        bool force SCHEMA_SLOT;
};

/* Also what `busy` in the data of bounce.destroy's EBUSY holds. */
struct bounce_busy_run {
        uint64_t present;
        uint64_t mapping; /* optional: this one, */
        uint64_t lease;   /* optional: or this one */
        uint64_t dma_addr;
        uint64_t machine_addr; /* optional */
        uint64_t region;
        uint64_t offset;
        uint64_t size;
        uint64_t slots;
};
extern const struct schema_struct bounce_busy_run_struct;

struct bounce_destroy_result {
        uint64_t present;
        SCHEMA_LIST(struct bounce_busy_run) busy;
        bool more SCHEMA_SLOT;
};

struct bounce_stats_params {
        uint64_t present;
        uint64_t bounce;
};

/* Also bounce.stats's result. */
struct bounce_info {
        uint64_t present;
        uint64_t bounce;
        uint64_t device;
        const char *device_name;
        const char *owner;
        uint64_t region;
        uint64_t offset;
        uint64_t dma_addr;
        uint64_t machine_addr; /* optional */
        uint64_t size;
        uint64_t max_size; /* optional */
        uint64_t slot_size;
        uint64_t areas;
        uint64_t slots;
        uint64_t free;
        uint64_t used;
        uint64_t leased;
        uint64_t quarantined;
        uint64_t largest_free;
        uint64_t high_water;
        uint64_t parts;
        uint64_t leases;
        uint64_t waiters;
        uint64_t maps;
        uint64_t unmaps;
        uint64_t syncs;
        uint64_t fulls;
        uint64_t waits;
        uint64_t timeouts;
        uint64_t grows;
        uint64_t recalls;
        enum protocol_addressing addressing SCHEMA_SLOT;
        uint64_t age_ms;
};

struct bounce_list_result {
        uint64_t present;
        SCHEMA_LIST(struct bounce_info) bounces;
        bool more SCHEMA_SLOT;
};

/* ---- mapping ---- */

struct mapping_map_params {
        uint64_t present;
        uint64_t device;
        uint64_t alloc;
        uint64_t offset;
        uint64_t size;
        uint64_t iova;
        enum protocol_direction direction SCHEMA_SLOT;
        const char *request_key;
};

struct mapping_map_result {
        uint64_t present;
        uint64_t mapping;
        uint64_t iova;
        uint64_t machine_addr; /* optional */
        uint64_t region;
        uint64_t offset;
        uint64_t size;
        enum protocol_addressing addressing SCHEMA_SLOT;
};

struct mapping_unmap_params {
        uint64_t present;
        uint64_t mapping;
};

struct mapping_info {
        uint64_t present;
        uint64_t mapping;
        uint64_t device;
        const char *device_name;
        const char *owner;
        uint64_t bounce; /* optional: it is of this one, */
        uint64_t alloc;  /* optional: or of this one */
        uint64_t dma_addr;
        uint64_t machine_addr; /* optional */
        uint64_t region;
        uint64_t offset;
        uint64_t size;
        uint64_t slots; /* optional */
        enum protocol_direction direction SCHEMA_SLOT;
        enum protocol_addressing addressing SCHEMA_SLOT;
        uint64_t age_ms;
};

struct mapping_list_result {
        uint64_t present;
        SCHEMA_LIST(struct mapping_info) mappings;
        bool more SCHEMA_SLOT;
};

/* ---- lease ---- */

struct lease_list_params {
        uint64_t present;
        uint64_t pool;
        uint64_t bounce;
        const char *owner;
        uint64_t after;
        uint64_t limit;
};

struct lease_info {
        uint64_t present;
        uint64_t lease;
        uint64_t pool;   /* optional: it is of this one, */
        uint64_t bounce; /* optional: or of this one */
        uint64_t device;
        const char *device_name;
        const char *owner;
        uint64_t region;
        uint64_t offset;
        uint64_t dma_addr;
        uint64_t machine_addr; /* optional */
        uint64_t unit;
        uint64_t count;
        enum protocol_addressing addressing SCHEMA_SLOT;
        uint64_t age_ms;
};

struct lease_list_result {
        uint64_t present;
        SCHEMA_LIST(struct lease_info) leases;
        bool more SCHEMA_SLOT;
};

/* ---- region ---- */

struct region_list_params {
        uint64_t present;
        uint64_t device;
        const char *owner;
        uint64_t after;
        uint64_t limit;
};

struct region_extent {
        uint64_t present;
        uint64_t offset;
        uint64_t machine_addr; /* optional */
        uint64_t size;
};

struct region_info {
        uint64_t present;
        uint64_t region;
        const char *owner;
        uint64_t device; /* optional */
        const char *source;
        uint64_t node; /* optional */
        uint64_t size;
        uint64_t used;
        uint64_t allocs;
        enum protocol_addressing addressing SCHEMA_SLOT;
        SCHEMA_LIST(struct region_extent) extents;
};

struct region_list_result {
        uint64_t present;
        SCHEMA_LIST(struct region_info) regions;
        bool more SCHEMA_SLOT;
};

struct region_get_params {
        uint64_t present;
        uint64_t region;
};
/* region.get's result is a struct region_info. */

/* ---- memory ---- */

struct memory_release_params {
        uint64_t present;
        uint64_t bytes;
        uint64_t wait_ms;
};

struct memory_release_result {
        uint64_t present;
        uint64_t released;
        uint64_t held;
};

/* ---- quarantine ---- */

struct quarantine_list_params {
        uint64_t present;
        const char *owner;
        uint64_t after;
        uint64_t limit;
};

struct quarantine_info {
        uint64_t present;
        uint64_t item;
        enum protocol_resting what SCHEMA_SLOT;
        enum protocol_rests reason SCHEMA_SLOT;
        const char *owner;
        const char *device_name; /* optional */
        uint64_t pool;           /* optional: it is of this one, */
        uint64_t bounce;         /* optional: or of this one */
        uint64_t region;
        uint64_t machine_addr; /* optional */
        uint64_t size;
        uint64_t count;
        enum protocol_addressing addressing SCHEMA_SLOT;
        uint64_t age_ms;
        uint64_t left_ms; /* optional */
};

struct quarantine_list_result {
        uint64_t present;
        SCHEMA_LIST(struct quarantine_info) items;
        bool more SCHEMA_SLOT;
};

struct quarantine_release_params {
        uint64_t present;
        const char *owner;
        uint64_t machine_addr;
};

struct quarantine_release_result {
        uint64_t present;
        uint64_t released;
        uint64_t resting;
};

/* ---- guests ---- */

struct guest_info {
        uint64_t present;
        const char *guest;
        const char *uuid;
        const char *owner;
        enum protocol_guest_state state SCHEMA_SLOT;
        enum protocol_guest_via via SCHEMA_SLOT;
        const char *why; /* optional */
        const char *channel;
        bool connected SCHEMA_SLOT;
        uint64_t windows;
        uint64_t window_bytes;
};

struct guest_list_params {
        uint64_t present;
        const char *after;
        uint64_t limit;
};

struct guest_list_result {
        uint64_t present;
        SCHEMA_LIST(struct guest_info) items;
        bool more SCHEMA_SLOT;
};

struct guest_params {
        uint64_t present;
        const char *guest;
};

struct guest_attach_params {
        uint64_t present;
        const char *guest;
        uint64_t size;
        bool dry_run SCHEMA_SLOT;
        uint64_t mask;
        const char *request_key;
};

struct guest_attach_result {
        uint64_t present;
        uint64_t window; /* optional: not of a dry run */
        uint64_t size;
        const char *channel;
        const char *advice; /* optional: of a dry run */
};

struct guest_detach_params {
        uint64_t present;
        uint64_t window;
        bool force SCHEMA_SLOT;
};

struct guest_exchange_params {
        uint64_t present;
        const char *guest; /* optional: the one that asks */
        SCHEMA_LIST(uint64_t) frames;
        uint64_t order;
        uint64_t mask; /* optional */
        SCHEMA_LIST(uint64_t) pfns; /* optional */
        bool given_up SCHEMA_SLOT;
};

struct guest_exchange_result {
        uint64_t present;
        SCHEMA_LIST(uint64_t) frames;
        uint64_t exchanged;
        const char *why; /* optional */
};

struct window_grant {
        uint64_t present;
        uint64_t domain;
        uint64_t first;
        uint64_t count;
};

struct window_info {
        uint64_t present;
        uint64_t window;
        uint64_t region;
        const char *guest;
        uint64_t size;
        const char *cookie;
        enum protocol_window_state state SCHEMA_SLOT;
        uint64_t guest_addr; /* optional */
        SCHEMA_LIST(struct window_grant) grants; /* optional */
        uint64_t mapped; /* optional */
};

struct window_list_params {
        uint64_t present;
        const char *guest;
        uint64_t after;
        uint64_t limit;
};

struct window_list_result {
        uint64_t present;
        SCHEMA_LIST(struct window_info) items;
        bool more SCHEMA_SLOT;
};

struct window_bind_params {
        uint64_t present;
        uint64_t window;
        uint64_t guest_addr;
};

/* ---- grants ---- */

struct grant_list_params {
        uint64_t present;
        const char *guest;
        const char *owner;
        uint64_t after;
        uint64_t limit;
};

struct grant_info {
        uint64_t present;
        uint64_t grant;
        const char *owner;
        const char *guest;
        uint64_t domain;
        enum protocol_grant_kind kind SCHEMA_SLOT;
        uint64_t region; /* optional: of a window */
        enum protocol_direction direction SCHEMA_SLOT;
        uint64_t pages;
        SCHEMA_LIST(struct window_grant) refs;
        enum protocol_grant_state state SCHEMA_SLOT;
        uint64_t in_use; /* optional */
        uint64_t age_ms;
};

struct grant_list_result {
        uint64_t present;
        SCHEMA_LIST(struct grant_info) grants;
        bool more SCHEMA_SLOT;
};

struct grant_map_params {
        uint64_t present;
        const char *guest;
        SCHEMA_LIST(uint64_t) refs;
        enum protocol_direction direction SCHEMA_SLOT;
        const char *request_key;
};

struct grant_map_result {
        uint64_t present;
        uint64_t grant;
        uint64_t domain;
        uint64_t pages;
};

struct grant_unmap_params {
        uint64_t present;
        uint64_t grant;
};

struct grant_share_params {
        uint64_t present;
        const char *guest;
        uint64_t size;
        enum protocol_direction direction SCHEMA_SLOT;
        const char *request_key;
};

struct grant_share_result {
        uint64_t present;
        uint64_t grant;
        uint64_t domain;
        uint64_t size;
        SCHEMA_LIST(struct window_grant) refs;
};

/* ---- quota ---- */

struct quota_get_params {
        uint64_t present;
        const char *owner;
        uint64_t device;
};

/* All optional. As limits: absent is unlimited (quota.set: leave as it is). */
struct quota_values {
        uint64_t present;
        uint64_t bytes;
        uint64_t held_bytes;
        uint64_t low_bytes;
        uint64_t allocs;
        uint64_t devices;
        uint64_t regions;
        uint64_t pools;
        uint64_t leases;
        uint64_t mappings;
        uint64_t waiters;
        uint64_t connections;
        uint64_t calls_per_second;
        uint64_t anonymous_bytes;
        uint64_t grants;
};

struct guarantee_values {
        uint64_t present;
        uint64_t bytes;
        uint64_t low_bytes;
};

struct quota_set_params {
        uint64_t present;
        const char *owner;
        uint64_t device;
        struct guarantee_values guaranteed;
        struct quota_values limits;
        SCHEMA_LIST(enum protocol_quota_name) unlimited;
};

/* With quota_set_params as far as they are alike. */
struct guest_set_quota_params {
        uint64_t present;
        const char *guest;
        struct guarantee_values guaranteed;
        struct quota_values limits;
        SCHEMA_LIST(enum protocol_quota_name) unlimited;
};

/* Of quota.get and quota.set. */
struct quota_result {
        uint64_t present;
        const char *owner;
        uint64_t device;
        const char *device_name;
        struct quota_values limits;
        struct quota_values usage;
        struct guarantee_values guaranteed;
        struct guarantee_values unmet;
};

/* ---- stats ---- */

struct stats_get_params {
        uint64_t present;
        enum protocol_stats_group group SCHEMA_SLOT;
};

struct stats_reset_params {
        uint64_t present;
        enum protocol_stats_group group SCHEMA_SLOT;
};

struct stats_counter {
        uint64_t present;
        const char *name;
        uint64_t value;
};

struct stats_latency {
        uint64_t present;
        const char *method;
        uint64_t count;
        double mean_us;
        double p50_us;
        double p99_us;
        double max_us;
};

struct stats_group {
        uint64_t present;
        enum protocol_stats_group name SCHEMA_SLOT;
        SCHEMA_LIST(struct stats_counter) counters;
        SCHEMA_LIST(struct stats_latency) latencies;
};

struct stats_get_result {
        uint64_t present;
        SCHEMA_LIST(struct stats_group) groups;
};

/* ---- events ---- */

struct events_subscribe_params {
        uint64_t present;
        SCHEMA_LIST(enum protocol_topic) topics;
        uint64_t since;
};

struct events_unsubscribe_params {
        uint64_t present;
        SCHEMA_LIST(enum protocol_topic) topics;
};

/* What a notification has as its params: its method is PROTOCOL_EVENT. */
struct event_info {
        uint64_t present;
        enum protocol_topic topic SCHEMA_SLOT;
        uint64_t event;
        uint64_t missed;   /* optional */
        const char *owner; /* optional */
        uint64_t device;   /* optional */
        uint64_t pool;     /* optional */
        uint64_t bounce;   /* optional */
        const char *name;  /* optional */
        uint64_t bytes;    /* optional */
        uint64_t count;    /* optional */
        bool over SCHEMA_SLOT; /* optional */
        enum protocol_pressure level SCHEMA_SLOT; /* optional */
        enum protocol_guest_change change SCHEMA_SLOT; /* optional */
        uint64_t grant;    /* optional */
};
extern const struct schema_struct event_info_struct;
#define PROTOCOL_EVENT "event"

struct events_subscribe_result {
        uint64_t present;
        SCHEMA_LIST(enum protocol_topic) topics;
        uint64_t event;
        bool pressure SCHEMA_SLOT;
        enum protocol_pressure level SCHEMA_SLOT; /* optional */
        SCHEMA_LIST(struct event_info) pending;
        uint64_t missed; /* optional */
};

struct events_unsubscribe_result {
        uint64_t present;
        SCHEMA_LIST(enum protocol_topic) topics;
};

/* ---- debug ---- */

struct debug_check_params {
        uint64_t present;
        bool repair SCHEMA_SLOT;
};

struct check_counts {
        uint64_t present;
        uint64_t owners;
        uint64_t devices;
        uint64_t regions;
        uint64_t extents;
        uint64_t allocs;
        uint64_t pools;
        uint64_t bounces;
        uint64_t leases;
        uint64_t mappings;
        uint64_t pages;
};

struct check_problem {
        uint64_t present;
        const char *what;
        const char *text;
        uint64_t handle; /* optional */
        bool repaired SCHEMA_SLOT;
};

struct debug_check_result {
        uint64_t present;
        bool clean SCHEMA_SLOT;
        struct check_counts checked;
        SCHEMA_LIST(struct check_problem) problems;
};

#endif
