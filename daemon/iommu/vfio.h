/* The translator `iommu`: devices that are bound to the driver vfio-pci, each IOMMU group with an address space of its own, in
 * which it reaches what is mapped for it and nothing else (VFIO type1 or iommufd, see vfio-open.h). A group is one owner's at a
 * time, because its devices reach each other's memory.
 *
 * The translator `noiommu`: the same for who has no IOMMU (enable_unsafe_noiommu_mode of the module vfio). The broker passes the
 * device, but nothing translates, and nothing keeps it from anything: dma addresses are machine addresses.
 *
 * What the kernel knows of a group lives as long as somebody has its descriptors: they are in the keep, so devices go on
 * while there is no daemon. */
#ifndef DMAB_IOMMU_VFIO_H
#define DMAB_IOMMU_VFIO_H

#include "daemon/core/translator.h"

struct keep;

extern const struct translator_ops translator_vfio_ops, translator_noiommu_ops;

/* Before the first attach(): where descriptors outlive the daemon; borrowed until the last detach(). NULL: nowhere.
 * restores: restored() follows, and until then nothing is taken from any device. */
void vfio_begin(struct keep *keep, bool restores);
/* From here on devices and mappings are only forgotten: for them nothing changes, and the next daemon goes on with them. */
void vfio_leave(void);

#endif
