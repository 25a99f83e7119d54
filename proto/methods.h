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
        METHOD_device_open,
        METHOD_device_set_mask,
        METHOD_device_supported,
        METHOD_device_close,
        METHOD_device_reserve,
        METHOD_device_unreserve,
        METHOD_coherent_alloc,
        METHOD_coherent_free,
        METHOD_coherent_list,
        METHOD_coherent_lookup,
        METHOD_region_list,
        METHOD_region_get,
        METHOD_quota_get,
        METHOD_quota_set,
        METHOD_stats_get,
        METHOD_stats_reset,
        METHOD_debug_check,
        METHOD_COUNT
};

extern const struct schema_table protocol_table; /* METHOD_COUNT methods */

enum {
        PROTOCOL_VERSION = 1,
        PROTOCOL_WAIT_MS_MAX = 86400000,
        PROTOCOL_LIST_DEFAULT = 1000, /* elements that a list answers with when no limit is asked for */
        PROTOCOL_LIST_MAX = 10000,
};

/* The words of the protocol; each counts as its names in methods.c do. */
enum protocol_role { PROTOCOL_ADMIN, PROTOCOL_LOCAL, PROTOCOL_GUEST };
enum protocol_addressing { PROTOCOL_MACHINE, PROTOCOL_SIMULATED };
enum protocol_translation { PROTOCOL_IDENTITY, PROTOCOL_IOMMU, PROTOCOL_GRANT, PROTOCOL_GUEST_ADDRESS };
enum protocol_priority { PROTOCOL_NORMAL, PROTOCOL_HIGH };
enum protocol_lifetime { PROTOCOL_LIFETIME_SESSION, PROTOCOL_LIFETIME_OWNER };
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
        uint64_t waiters;
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
        uint64_t alloc;
        uint64_t size;
        uint64_t dma_addr;
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

struct coherent_list_params {
        uint64_t present;
        uint64_t device;
        const char *owner;
        uint64_t after;
        uint64_t limit;
};

struct alloc_info {
        uint64_t present;
        uint64_t alloc;
        uint64_t device;
        const char *owner;
        uint64_t region;
        uint64_t offset;
        uint64_t size;
        uint64_t dma_addr;
        uint64_t machine_addr; /* optional */
        enum protocol_addressing addressing SCHEMA_SLOT;
        enum protocol_lifetime lifetime SCHEMA_SLOT;
        bool shareable SCHEMA_SLOT;
        uint64_t age_ms;
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
        uint64_t dma_addr;
        uint64_t machine_addr; /* optional */
        enum protocol_addressing addressing SCHEMA_SLOT;
        enum protocol_lifetime lifetime SCHEMA_SLOT;
        bool shareable SCHEMA_SLOT;
        uint64_t age_ms;
        uint64_t at;
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

/* ---- quota ---- */

struct quota_get_params {
        uint64_t present;
        const char *owner;
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
};

struct quota_set_params {
        uint64_t present;
        const char *owner;
        struct quota_values limits;
        SCHEMA_LIST(enum protocol_quota_name) unlimited;
};

/* Of quota.get and quota.set. */
struct quota_result {
        uint64_t present;
        const char *owner;
        struct quota_values limits;
        struct quota_values usage;
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
