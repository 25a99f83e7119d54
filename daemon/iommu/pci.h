/* What sysfs knows of PCI devices. Small files of the kernel's memory: reading them does not block. */
#ifndef DMAB_IOMMU_PCI_H
#define DMAB_IOMMU_PCI_H

#include <stdbool.h>

enum { PCI_NAME_MAX = 32 };

/* Is text a PCI address, such as 0000:03:00.0 or 3:0.0? ret_name gets it as sysfs writes it, with the domain. */
bool pci_name_parse(const char *text, char ret_name[PCI_NAME_MAX]);

/* Names here are as pci_name_parse() gives them. */
bool pci_is_present(const char *name);
/* The NUMA node of a device: -1 when it has none, or is not there. */
int pci_node(const char *name);
/* The number of its IOMMU group; -1: no IOMMU. */
int pci_group(const char *name);
/* The number of the group that VFIO has made for it where there is no IOMMU; -1: it has not. */
int pci_noiommu_group(const char *name);
/* Whether it is bound to this driver. */
bool pci_has_driver(const char *name, const char *driver);
/* Whether an IOMMU translates for it, so that it cannot be given machine addresses. */
bool pci_is_translated(const char *name);

#endif
