/* How a device that is bound to vfio-pci is had from the kernel, in each of the ways that kernels have:
 *
 *      type 1      /dev/vfio/vfio makes an address space, /dev/vfio/GROUP is put into it, and gives the device
 *      iommufd     /dev/iommu makes an address space, /dev/vfio/devices/vfioN is the device, and is put into it
 *      no IOMMU    as with type 1, but there is nothing that translates or protects
 *
 * Memory is mapped by the same calls in the first two: an iommufd takes those of type 1 for the address space that it was told
 * to. None of this blocks. */
#ifndef DMAB_IOMMU_VFIO_OPEN_H
#define DMAB_IOMMU_VFIO_OPEN_H

#include "daemon/core/failure.h"

enum vfio_way { VFIO_TYPE1, VFIO_IOMMUFD, VFIO_NOIOMMU, VFIO_WAYS };

struct vfio_space {
        enum vfio_way way;
        int container_fd; /* takes the calls that map */
        int group_fd;     /* -1 with iommufd */
};

/* An address space for an IOMMU group, by type 1 or, where the kernel does not have that, by iommufd. no_iommu: by that, for a
 * group of pci_noiommu_group(). The caller closes what is in *ret, which is -1 or open, also after an error. */
int vfio_space_open(int group, bool no_iommu, struct vfio_space *ret, struct failure *failure);
/* The device, which is in that address space from then on. Returns its descriptor, which is the caller's. */
int vfio_space_open_device(const struct vfio_space *space, int group, const char *pci, struct failure *failure);

#endif
