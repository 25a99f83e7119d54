#include "daemon/iommu/none.h"

#include <stdio.h>
#include <string.h>

#include "daemon/iommu/pci.h"

/* There is nothing to remember of a device. */
struct translation {
        char nothing;
};

static struct translation identity;

static int identity_attach(const char *name, const char *owner, bool permitted, struct translation **ret,
                           struct translator_facts *ret_facts, struct failure *failure) {
        struct translator_facts facts = { .node = -1, .mask = UINT64_MAX };
        char pci[PCI_NAME_MAX];

        if (strlen(name) >= sizeof(facts.name))
                return failure_set(failure, REASON_bad_param, "the device's name has more than %zu characters",
                                   sizeof(facts.name) - 1);
        if (pci_name_parse(name, pci)) {
                snprintf(facts.name, sizeof(facts.name), "%s", pci);
                facts.present = pci_is_present(pci);
                facts.node = pci_node(pci);
                facts.blocked = pci_is_translated(pci);
        } else
                snprintf(facts.name, sizeof(facts.name), "%s", name);
        *ret_facts = facts;
        *ret = &identity;
        return 0;
}

static void identity_detach(struct translation *translation) {
}

static int identity_map(struct translation *translation, const struct translator_run *run, uint64_t *ret_dma,
                        struct failure *failure) {
        *ret_dma = run->addr;
        return 0;
}

static int identity_unmap(struct translation *translation, uint64_t dma_addr, uint64_t size) {
        return 0;
}

const struct translator_ops translator_identity_ops = {
        .struct_size = sizeof(struct translator_ops),
        .version = TRANSLATOR_OPS_VERSION,
        .name = "identity",
        .attach = identity_attach,
        .detach = identity_detach,
        .map = identity_map,
        .unmap = identity_unmap,
};
