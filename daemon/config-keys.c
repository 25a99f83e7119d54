#include "daemon/config.h"

#include "daemon/log.h"
#include "daemon/metrics/address.h"

static const char *const access_names[] = { "group", "everyone", NULL };
static const char *const pressure_names[] = { "off", "psi", NULL };
static const char *const hypervisor_names[] = { [CONFIG_KVM] = "kvm", [CONFIG_XEN] = "xen", NULL };
static const char *const log_target_names[] = { "auto", "journal", "stderr", NULL };

#define IN_CONFIG(member) .offset = offsetof(struct config, member)
#define IN_GUEST(member) .offset = offsetof(struct config_guest, member)
#define IN_DEVICE(member) .offset = offsetof(struct config_device, member)
#define RELOAD .reloadable = true

#define DAEMON(name, type_, ...) { .section = "daemon", .key = name, .type = CONFIG_##type_, __VA_ARGS__ }
#define MEMORY(name, type_, ...) { .section = "memory", .key = name, .type = CONFIG_##type_, RELOAD, __VA_ARGS__ }
#define LIMIT(name, type_, ...) { .section = "limits", .key = name, .type = CONFIG_##type_, RELOAD, __VA_ARGS__ }
#define METRICS(name, type_, ...) { .section = "metrics", .key = name, .type = CONFIG_##type_, __VA_ARGS__ }
#define GUESTS(name, type_, ...) { .section = "guests", .key = name, .type = CONFIG_##type_, __VA_ARGS__ }
#define GUEST(name, type_, ...) { .section = "guest", .key = name, .type = CONFIG_##type_, __VA_ARGS__ }
#define DEVICE(name, type_, ...) { .section = "device", .key = name, .type = CONFIG_##type_, RELOAD, __VA_ARGS__ }
#define DEVICE_LIMIT(kind, type_, doc_)                                                                       \
        { .section = "device", .key = #kind, .type = CONFIG_##type_, RELOAD, .endless = "unlimited",         \
          .offset = offsetof(struct config_device, limits) + QUOTA_##kind * sizeof(uint64_t),                \
          .fallback = "unlimited", .doc = doc_ }
#define QUOTA(kind, type_, fallback_, doc_)                                                                   \
        { .section = "quota", .key = #kind, .type = CONFIG_##type_, RELOAD, .endless = "unlimited",          \
          .offset = offsetof(struct config_quota, quota) + QUOTA_##kind * sizeof(uint64_t), .fallback = fallback_, .doc = doc_ }

#define GUARANTEE(name, member, doc_)                                                                         \
        { .section = "quota", .key = name, .type = CONFIG_SIZE, RELOAD, .max = UINT64_C(1) << 53,            \
          .offset = offsetof(struct config_quota, guaranteed.member), .fallback = "0", .doc = doc_ }

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

const struct config_key config_keys[] = {
        DAEMON("socket", TEXT, IN_CONFIG(socket), .fallback = "/run/dmabroker/dmabroker.sock",
               .doc = "path of the socket to listen on; its directory is made if it is missing"),
        DAEMON("state_dir", TEXT, IN_CONFIG(state_dir), .fallback = "/var/lib/dmabroker",
               .doc = "directory for what must survive; one daemon at a time may use it"),
        DAEMON("source", TEXT, IN_CONFIG(source), .fallback = "auto",
               .doc = "memory sources, separated by commas; auto: those that have a section, or else hugetlb where "
                      "that works and sim where not"),
        DAEMON("access", CHOICE, IN_CONFIG(access), RELOAD, .fallback = "group", .choices = access_names,
               .doc = "who may connect: the members of group and admin_group, or everyone on this machine"),
        DAEMON("group", TEXT, IN_CONFIG(group), RELOAD, .fallback = "dmabroker", .doc = "members may connect"),
        DAEMON("admin_group", TEXT, IN_CONFIG(admin_group), RELOAD, .fallback = "dmabroker-admin",
               .doc = "members are administrators, as are root and the daemon's own user"),
        DAEMON("grace", TIME, IN_CONFIG(grace_ms), RELOAD, .fallback = "30s", .max = 86400000,
               .doc = "how long a session outlives its last connection; 0: it ends at once"),
        DAEMON("keep", TIME, IN_CONFIG(keep_ms), .fallback = "30s", .max = 86400000,
               .doc = "how long what is in use is kept for the next daemon when this one has died or was ended; 0: nothing "
                      "outlives it. Where the service manager keeps it, that has a time of its own"),
        DAEMON("ledger", SIZE, IN_CONFIG(ledger_bytes), .fallback = "4M", .min = 4096, .max = 64 * GIB,
               .doc = "how large the ledger of what must survive becomes, at least, before it is written anew without what is "
                      "out of date in it"),
        DAEMON("shutdown_timeout", TIME, IN_CONFIG(shutdown_ms), RELOAD, .fallback = "3s", .max = 600000,
               .doc = "how long the last answers may take to be read when the daemon ends"),
        DAEMON("log_level", CHOICE, IN_CONFIG(log_level), RELOAD, .fallback = "info", .choices = log_level_names,
               .doc = "the least important messages that are logged"),
        DAEMON("log_target", CHOICE, IN_CONFIG(log_target), RELOAD, .fallback = "auto", .choices = log_target_names,
               .doc = "auto: the journal if standard error is connected to it, standard error if not"),

        MEMORY("region_idle", TIME, IN_CONFIG(region_idle_ms), .fallback = "10s",
               .doc = "how long an owner keeps a region in which nothing is allocated, and a pool a slab that it does "
                      "not use"),
        MEMORY("quarantine", TIME, IN_CONFIG(quarantine_ms), .fallback = "1s", .endless = "admin",
               .doc = "how long memory, blocks and slots rest that a client had when it vanished, before they are handed out "
                      "again: a device may still write to them; admin: until an administrator says that it is quiet"),
        MEMORY("low_keep_percent", COUNT, IN_CONFIG(low_keep_percent), .fallback = "50", .max = 100,
               .doc = "percent of the memory below 4 GiB that only devices with narrow masks may use, where there is "
                      "memory above"),
        MEMORY("emergency_permille", COUNT, IN_CONFIG(emergency_permille), .fallback = "20", .max = 1000,
               .doc = "thousandths of each source's memory that only requests of high priority may use"),
        MEMORY("emergency_max", SIZE, IN_CONFIG(emergency_max), .fallback = "64M",
               .doc = "... but never more than this"),
        MEMORY("minimum", SIZE, IN_CONFIG(minimum), .fallback = "0",
               .doc = "bytes of all sources together that are not given back to the system, neither in time nor under "
                      "pressure"),
        MEMORY("pressure", CHOICE, IN_CONFIG(pressure), .fallback = "psi", .choices = pressure_names,
               .doc = "psi: when the kernel's pressure stall information says that the host is short of memory, give back "
                      "what nobody needs, and ask clients for what they do not use; off: do not"),
        MEMORY("pressure_stall", TIME, IN_CONFIG(pressure_stall_ms), .fallback = "200ms", .min = 1, .max = 10000,
               .doc = "how long tasks must have waited for memory within pressure_window for that"),
        MEMORY("pressure_window", TIME, IN_CONFIG(pressure_window_ms), .fallback = "2s", .min = 500, .max = 10000,
               .doc = "the time over which that is measured; a multiple of 2s unless the daemon has CAP_SYS_RESOURCE"),

        LIMIT("connections", COUNT, IN_CONFIG(connections), .fallback = "16384", .min = 1, .max = 1000000,
              .doc = "connections at a time, of all owners"),
        LIMIT("message", SIZE, IN_CONFIG(message_bytes), .fallback = "1M", .min = 1024, .max = 256 * MIB,
              .doc = "bytes of one message"),
        LIMIT("nesting", COUNT, IN_CONFIG(nesting), .fallback = "64", .min = 8, .max = 1024,
              .doc = "levels of arrays and objects in one message"),
        LIMIT("calls_in_flight", COUNT, IN_CONFIG(calls_in_flight), .fallback = "256", .min = 1, .max = 1000000,
              .doc = "calls of one connection that wait for their answer"),
        LIMIT("batch_elements", COUNT, IN_CONFIG(batch_elements), .fallback = "1024", .min = 1, .max = 1000000,
              .doc = "requests in one batch"),
        LIMIT("batch_reply", SIZE, IN_CONFIG(batch_reply_bytes), .fallback = "8M", .min = 4096, .max = GIB,
              .doc = "bytes of a connection's unfinished answers to batches beyond which further calls in "
                     "batches are refused unexecuted"),
        LIMIT("queue", SIZE, IN_CONFIG(queue_bytes), .fallback = "32M", .min = 65536, .max = 4 * GIB,
              .doc = "bytes of answers not read yet at which a connection is cut off"),
        LIMIT("queue_pause", SIZE, IN_CONFIG(queue_pause_bytes), .fallback = "256K", .min = 4096, .max = 4 * GIB,
              .doc = "bytes of answers not read yet at which no more requests are taken from a connection"),
        LIMIT("stall", TIME, IN_CONFIG(stall_ms), .fallback = "30s", .min = 100, .max = 86400000,
              .doc = "how long a connection may leave its answers unread before it is cut off"),

        METRICS("listen", TEXT, IN_CONFIG(metrics_listen), .fallback = "off", .check = metrics_address_check,
                .doc = "where to serve metrics for Prometheus over HTTP, an address with a port or unix: and a path; off: "
                       "nowhere"),
        METRICS("owners", COUNT, IN_CONFIG(metrics_owners), RELOAD, .fallback = "100", .max = 100000,
                .doc = "of how many owners usage and limits are told, those first that hold most"),

        GUESTS("directory", TEXT, IN_CONFIG(guests_directory), .fallback = "/run/dmabroker/guests",
               .doc = "directory for the sockets that QEMU connects to; made if it is missing"),
        GUESTS("libvirt", TEXT, IN_CONFIG(guests_libvirt),
               .doc = "the libvirt connection through which guests are followed; qemu:///system unless given"),
        GUESTS("user", TEXT, IN_CONFIG(guests_user),
               .doc = "the user that QEMU runs as, such as libvirt-qemu; root or the daemon's own user unless given"),
        GUESTS("unplug_timeout", TIME, IN_CONFIG(guests_unplug_ms), .fallback = "10s", .min = 100, .max = 600000,
               .doc = "how long a guest may take to let go of a window"),

        GUEST("uuid", TEXT, IN_GUEST(uuid), .doc = "the guest's UUID, by which it is known whatever its name"),
        GUEST("hypervisor", CHOICE, IN_GUEST(hypervisor), .fallback = "kvm", .choices = hypervisor_names,
              .doc = "whose guest it is"),
        GUEST("qmp", TEXT, IN_GUEST(qmp),
              .doc = "the socket of a monitor (QMP) of its QEMU, for hosts without libvirt"),
        GUEST("ports", TEXT, IN_GUEST(ports),
              .doc = "with qmp: the ids of its free PCIe root ports, separated by blanks; where QEMU likes unless given"),
        GUEST("window", SIZE, IN_GUEST(window_bytes), .fallback = "0",
              .doc = "bytes of the window that it gets whenever it starts, a power of two of at least 1M; 0: none"),

        QUOTA(bytes, SIZE, "unlimited", "bytes of coherent allocations"),
        QUOTA(held_bytes, SIZE, "unlimited", "bytes of regions, the unused parts of them included"),
        QUOTA(low_bytes, SIZE, "unlimited", "bytes of allocations and reserved regions below 4 GiB"),
        QUOTA(allocs, COUNT, "1048576", "coherent allocations"),
        QUOTA(devices, COUNT, "4096", "open devices"),
        QUOTA(regions, COUNT, "65536", "regions"),
        QUOTA(pools, COUNT, "4096", "pools and bounce pools"),
        QUOTA(leases, COUNT, "65536", "leases"),
        QUOTA(mappings, COUNT, "65536", "mappings"),
        QUOTA(waiters, COUNT, "4096", "requests that wait for memory"),
        QUOTA(connections, COUNT, "4096", "connections, and likewise sessions"),
        QUOTA(calls_per_second, COUNT, "unlimited",
              "calls in a second, over all connections; a burst of that many may come at once"),
        QUOTA(anonymous_bytes, SIZE, "unlimited", "bytes of ordinary memory with what was swapped out"),
        QUOTA(grants, COUNT, "unlimited", "pages of 4 KiB that are granted to guests of Xen's, or by them"),
        GUARANTEE("guaranteed", bytes, "bytes of regions that the owner can have whenever it asks; not in [quota default]"),
        GUARANTEE("guaranteed_low", low_bytes, "beside these, bytes of regions below 4 GiB, likewise"),

        DEVICE("parent", TEXT, IN_DEVICE(parent), .doc = "the device that it is attached to"),
        DEVICE("allow", TEXT, IN_DEVICE(allow), .doc = "owners such as user:1000, separated by blanks, that may have it as a "
               "whole, where it is bound to vfio-pci"),
        DEVICE("dma", BOOL, IN_DEVICE(dma), .fallback = "yes",
               .doc = "whether it does DMA by itself; no: its nearest ancestor that can does it"),
        DEVICE("mask", MASK, IN_DEVICE(mask), .min = 0xfff, .doc = "addresses that it can put on the bus"),
        DEVICE("coherent_mask", MASK, IN_DEVICE(coherent_mask), .min = 0xfff,
               .doc = "addresses that its coherent memory must have; the mask unless given"),
        DEVICE("boundary", POWER, IN_DEVICE(boundary), .min = 4096, .doc = "no allocation crosses a multiple of this"),
        DEVICE("max_segment", SIZE, IN_DEVICE(max_segment), .min = 4096, .doc = "its largest allocation"),
        DEVICE("min_align_mask", MASK, IN_DEVICE(min_align_mask), .doc = "address bits that bouncing must preserve"),
        DEVICE("quarantine", TIME, IN_DEVICE(quarantine_ms), .min = 1, .endless = "admin",
               .doc = "how long what it may still write rests when its client has vanished; [memory] quarantine unless given"),
        DEVICE_LIMIT(bytes, SIZE, "bytes of coherent allocations that each owner may have of it"),
        DEVICE_LIMIT(low_bytes, SIZE, "bytes of allocations and reserved regions below 4 GiB, likewise"),
        DEVICE_LIMIT(allocs, COUNT, "coherent allocations, likewise"),
        DEVICE_LIMIT(pools, COUNT, "pools and bounce pools, likewise"),
        DEVICE_LIMIT(leases, COUNT, "leases, likewise"),
        DEVICE_LIMIT(mappings, COUNT, "mappings, likewise"),
        DEVICE_LIMIT(waiters, COUNT, "requests that wait for memory, likewise"),
        { .section = NULL },
};
