#include "client/ctl/verbs.h"

#include <string.h>

const struct ctl_verb *const ctl_verbs[] = {
        &verb_status, &verb_devices, &verb_guests, &verb_windows, &verb_grants, &verb_regions, &verb_pools,
        &verb_bounces, &verb_allocs, &verb_mappings, &verb_leases, &verb_quota, &verb_stats, &verb_top,
        &verb_map, &verb_check, &verb_watch, &verb_attach, &verb_detach, &verb_exchange, &verb_alloc, &verb_free,
        &verb_swap, &verb_release, &verb_quarantine, &verb_call, &verb_bench, &verb_version, &verb_help,
        NULL,
};

const struct ctl_option ctl_common_options[] = {
        { "--socket", "PATH",
          "the daemon's socket, or virtio:PATH for a virtio port in a guest, or xen: in a guest of Xen's; DMABROKER_SOCKET, "
          "/run/dmabroker/dmabroker.sock, /dev/virtio-ports/org.dmabroker.0 or xen: unless given" },
        { "--json", NULL, "print the daemon's answer as JSON instead of a table" },
        { "--help", NULL, "print help on the verb" },
        { NULL },
};

const struct ctl_verb *ctl_verb_find(const char *name) {
        for (size_t i = 0; ctl_verbs[i]; i++)
                if (!strcmp(ctl_verbs[i]->name, name))
                        return ctl_verbs[i];
        return NULL;
}
