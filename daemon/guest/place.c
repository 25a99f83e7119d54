#include "daemon/guest/place.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "daemon/iommu/pci.h"

struct place {
        struct place *next;
        uint64_t addr, size, guest_addr;
        bool is_bound;
};

/* What is to be known of a device. */
struct translation {
        bool has_machine_addresses; /* wherever the guest sees its memory */
};

static struct translation guest, named = { .has_machine_addresses = true };
static struct place *places;

/* ---- the table ---- */

static struct place *find(uint64_t addr) {
        struct place *place;

        LL_FOREACH(places, place)
                if (addr >= place->addr && addr - place->addr < place->size)
                        return place;
        return NULL;
}

static bool is_of_xen(const char *owner) {
        return strncmp(owner, "xen:", 4) == 0;
}

bool place_is_guest(const char *owner) {
        return strncmp(owner, "kvm:", 4) == 0 || is_of_xen(owner);
}

int place_add(uint64_t addr, uint64_t size) {
        struct place *place = calloc(1, sizeof(*place));

        if (!place)
                return -ENOMEM;
        *place = (struct place){ .addr = addr, .size = size };
        LL_PREPEND(places, place);
        return 0;
}

void place_bind(uint64_t addr, uint64_t guest_addr) {
        struct place *place = find(addr);

        if (!place)
                return;
        place->guest_addr = guest_addr;
        place->is_bound = true;
}

void place_unbind(uint64_t addr) {
        struct place *place = find(addr);

        if (place)
                place->is_bound = false;
}

void place_remove(uint64_t addr) {
        struct place *place = find(addr);

        if (!place)
                return;
        LL_DELETE(places, place);
        free(place);
}

/* ---- the translator ---- */

static int take(const char *name, struct translation *translation, struct translation **ret, struct translator_facts *ret_facts,
                struct failure *failure) {
        struct translator_facts facts = { .node = -1, .mask = UINT64_MAX, .present = true };

        if (strlen(name) >= sizeof(facts.name))
                return failure_set(failure, REASON_bad_param, "the device's name has more than %zu characters",
                                   sizeof(facts.name) - 1);
        snprintf(facts.name, sizeof(facts.name), "%s", name);
        *ret_facts = facts;
        *ret = translation;
        return 0;
}

static int guest_attach(const char *name, const char *owner, bool permitted, struct translation **ret,
                        struct translator_facts *ret_facts, struct failure *failure) {
        return is_of_xen(owner) || !place_is_guest(owner) ? -ENODEV : take(name, &guest, ret, ret_facts, failure);
}

static int grant_attach(const char *name, const char *owner, bool permitted, struct translation **ret,
                        struct translator_facts *ret_facts, struct failure *failure) {
        char pci[PCI_NAME_MAX];

        if (!is_of_xen(owner))
                return -ENODEV;
        return take(name, pci_name_parse(name, pci) ? &guest : &named, ret, ret_facts, failure);
}

static void guest_detach(struct translation *translation) {
}

static int out_of_reach(const struct translator_run *run, uint64_t dma, struct failure *failure) {
        failure_set(failure, REASON_mask, "The guest sees this memory at 0x%llx, beyond the device's mask: let it have its "
                    "window at a lower address", (unsigned long long)dma);
        failure_add_hex(failure, "mask", run->limit);
        failure_add_hex(failure, "guest_addr", dma);
        return -failure->error;
}

/* The place in the machine was chosen by the same alignment and boundary; beyond the grain of the source the guest's differs. */
static int judge(const struct translator_run *run, uint64_t dma, struct failure *failure) {
        const uint64_t last = dma + (run->size - 1);

        if (last < dma || last > run->limit)
                return out_of_reach(run, dma, failure);
        if (run->align && dma % run->align)
                return failure_set(failure, REASON_no_contiguous, "The guest sees its window at an address that does not suit an "
                                   "alignment of %llu bytes", (unsigned long long)run->align);
        if (run->boundary && (dma ^ last) >= run->boundary)
                return failure_set(failure, REASON_boundary, "The guest sees this memory across a multiple of %llu",
                                   (unsigned long long)run->boundary);
        return 0;
}

static int guest_map(struct translation *translation, const struct translator_run *run, uint64_t *ret_dma,
                     struct failure *failure) {
        const struct place *place = find(run->addr);
        uint64_t dma;
        int r;

        if (!place || run->size > place->size - (run->addr - place->addr))
                return failure_set(failure, REASON_source_unavailable, "This memory lies in none of the guest's windows");
        if (!place->is_bound && !translation->has_machine_addresses) {
                failure_set(failure, REASON_source_unavailable, "The guest has not told yet where it sees its window "
                            "(window.bind), so that no address can be given to a device");
                failure_add_number(failure, "unbound", 1);
                return -failure->error;
        }
        dma = translation->has_machine_addresses ? run->addr : place->guest_addr + (run->addr - place->addr);
        r = judge(run, dma, failure);
        if (r == 0)
                *ret_dma = dma;
        return r;
}

static int guest_unmap(struct translation *translation, uint64_t dma_addr, uint64_t size) {
        return 0;
}

/* Where windows will be seen is not known beforehand. */
static bool guest_serves(const struct translation *translation, uint64_t mask) {
        return true;
}

static int guest_restore(struct translation *translation, const struct translator_run *run, uint64_t dma_addr,
                         struct failure *failure) {
        return 0;
}

static void nothing_to_do(void) {
}

static int guest_device_fd(struct translation *translation) {
        return -1;
}

const struct translator_ops translator_guest_ops = {
        .struct_size = sizeof(struct translator_ops),
        .version = TRANSLATOR_OPS_VERSION,
        .name = "guest",
        .attach = guest_attach,
        .detach = guest_detach,
        .map = guest_map,
        .unmap = guest_unmap,
        .flags = TRANSLATOR_TRANSLATES | TRANSLATOR_FOLLOWS,
        .serves = guest_serves,
        .restore = guest_restore,
        .restored = nothing_to_do,
        .committed = nothing_to_do,
        .device_fd = guest_device_fd,
};

/* That a grant is revoked does not end the mapping that the guest has by it. */
const struct translator_ops translator_grant_ops = {
        .struct_size = sizeof(struct translator_ops),
        .version = TRANSLATOR_OPS_VERSION,
        .name = "grant",
        .attach = grant_attach,
        .detach = guest_detach,
        .map = guest_map,
        .unmap = guest_unmap,
        .flags = TRANSLATOR_TRANSLATES | TRANSLATOR_FOLLOWS | TRANSLATOR_GRANTS,
        .serves = guest_serves,
        .restore = guest_restore,
        .restored = nothing_to_do,
        .committed = nothing_to_do,
        .device_fd = guest_device_fd,
};
