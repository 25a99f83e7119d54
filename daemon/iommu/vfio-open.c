#include <config.h>

#include "daemon/iommu/vfio-open.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#ifdef HAVE_IOMMUFD
#include <linux/iommufd.h>
#endif

/* ---- containers and groups ---- */

static int refuse_unviable(int group, struct failure *failure) {
        return failure_set(failure, REASON_busy, "IOMMU group %d has devices with other drivers than vfio-pci: all of them must "
                           "be bound to it (see /sys/kernel/iommu_groups/%d/devices), because they reach each other", group,
                           group);
}

/* -ENODEV: the kernel does not have this way. */
static int container_open(unsigned long type, int *ret) {
        int fd = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);

        if (fd < 0)
                return errno == ENOENT ? -ENODEV : -errno;
        if (ioctl(fd, VFIO_GET_API_VERSION) != VFIO_API_VERSION || ioctl(fd, VFIO_CHECK_EXTENSION, type) <= 0) {
                close(fd);
                return -ENODEV;
        }
        *ret = fd;
        return 0;
}

static int group_fd_open(const char *path, int group, int *ret, struct failure *failure) {
        struct vfio_group_status status = { .argsz = sizeof(status) };
        int fd = open(path, O_RDWR | O_CLOEXEC);

        if (fd < 0 && errno == EBUSY)
                return failure_set(failure, REASON_busy, "%s is in use: another program has the IOMMU group, or somebody who had "
                                   "a device of it has not closed its descriptor", path);
        if (fd < 0)
                return failure_set_errno(failure, REASON_unsupported, errno, "%s cannot be opened: %s", path, strerror(errno));
        if (ioctl(fd, VFIO_GROUP_GET_STATUS, &status) < 0 || !(status.flags & VFIO_GROUP_FLAGS_VIABLE)) {
                close(fd);
                return refuse_unviable(group, failure);
        }
        *ret = fd;
        return 0;
}

static int space_with_group(struct vfio_space *space, int group, unsigned long type, struct failure *failure) {
        char path[64];
        int r;

        snprintf(path, sizeof(path), "/dev/vfio/%s%d", type == VFIO_NOIOMMU_IOMMU ? "noiommu-" : "", group);
        r = group_fd_open(path, group, &space->group_fd, failure);
        if (r < 0)
                return r;
        if (ioctl(space->group_fd, VFIO_GROUP_SET_CONTAINER, &space->container_fd) < 0 ||
            ioctl(space->container_fd, VFIO_SET_IOMMU, type) < 0)
                return failure_set_errno(failure, REASON_unsupported, errno, "IOMMU group %d cannot be used: %s%s", group,
                                         strerror(errno), errno == EPERM ? ". Without interrupt remapping the parameter "
                                         "allow_unsafe_interrupts of vfio_iommu_type1 must be set" : "");
        return 0;
}

/* ---- iommufd ---- */

#ifdef HAVE_IOMMUFD
static int iommufd_open(struct vfio_space *space, struct failure *failure) {
        struct iommu_ioas_alloc alloc = { .size = sizeof(alloc) };
        struct iommu_vfio_ioas use = { .size = sizeof(use), .op = IOMMU_VFIO_IOAS_SET };
        int fd = open("/dev/iommu", O_RDWR | O_CLOEXEC);

        if (fd < 0 && errno == ENOENT)
                return -ENODEV;
        if (fd < 0)
                return failure_set_errno(failure, REASON_unsupported, errno, "/dev/iommu cannot be opened: %s", strerror(errno));
        space->way = VFIO_IOMMUFD;
        space->container_fd = fd;
        if (ioctl(fd, IOMMU_IOAS_ALLOC, &alloc) < 0)
                return failure_set_errno(failure, REASON_unsupported, errno, "the kernel's iommufd makes no address space: %s",
                                         strerror(errno));
        use.ioas_id = alloc.out_ioas_id;
        if (ioctl(fd, IOMMU_VFIO_IOAS, &use) < 0)
                return failure_set_errno(failure, REASON_unsupported, errno, "the kernel's iommufd does not take the calls of "
                                         "VFIO: %s", strerror(errno));
        return 0;
}

static int cdev_open(const char *pci, struct failure *failure) {
        char path[128];
        struct dirent *entry;
        int fd = -1, error = ENOENT;
        DIR *dir;

        snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/vfio-dev", pci);
        dir = opendir(path);
        if (!dir)
                error = errno;
        while (dir && (entry = readdir(dir)))
                if (strncmp(entry->d_name, "vfio", 4) == 0 && strlen(entry->d_name) < 32) {
                        snprintf(path, sizeof(path), "/dev/vfio/devices/%.31s", entry->d_name);
                        fd = open(path, O_RDWR | O_CLOEXEC);
                        error = errno;
                        break;
                }
        if (dir)
                closedir(dir);
        return fd >= 0 ? fd : failure_set_errno(failure, REASON_unsupported, error, "%s cannot be opened: %s", path,
                                                strerror(error));
}

static int bind_fail(int error, int group, const char *pci, struct failure *failure) {
        switch (error) {
        case EPERM:
                return failure_set(failure, REASON_busy, "the kernel does not let device %s be used: IOMMU group %d has devices "
                                   "with other drivers than vfio-pci or other users (see /sys/kernel/iommu_groups/%d/devices), "
                                   "or interrupts are not remapped", pci, group, group);
        case EBUSY:
                return failure_set(failure, REASON_busy, "IOMMU group %d is in use: another program has /dev/vfio/%d open", group,
                                   group);
        case EINVAL:
                return failure_set(failure, REASON_busy, "device %s cannot be used: another program has it, or somebody who had "
                                   "it has not closed its descriptor", pci);
        default:
                return failure_set_errno(failure, REASON_unsupported, error, "device %s cannot be used: %s", pci,
                                         strerror(error));
        }
}

static int iommufd_put_in(const struct vfio_space *space, int fd, int group, const char *pci, struct failure *failure) {
        struct iommu_vfio_ioas which = { .size = sizeof(which), .op = IOMMU_VFIO_IOAS_GET };
        struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind), .iommufd = space->container_fd };
        struct vfio_device_attach_iommufd_pt attach = { .argsz = sizeof(attach) };

        if (ioctl(space->container_fd, IOMMU_VFIO_IOAS, &which) < 0)
                return failure_set_errno(failure, REASON_unsupported, errno, "the address space of group %d is gone: %s", group,
                                         strerror(errno));
        if (ioctl(fd, VFIO_DEVICE_BIND_IOMMUFD, &bind) < 0)
                return bind_fail(errno, group, pci, failure);
        attach.pt_id = which.ioas_id;
        if (ioctl(fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach) < 0)
                return failure_set_errno(failure, REASON_unsupported, errno, "device %s does not get an address space of the "
                                         "IOMMU: %s", pci, strerror(errno));
        return 0;
}

static int iommufd_open_device(const struct vfio_space *space, int group, const char *pci, struct failure *failure) {
        int r, fd = cdev_open(pci, failure);

        if (fd < 0)
                return fd;
        r = iommufd_put_in(space, fd, group, pci, failure);
        if (r == 0)
                return fd;
        close(fd);
        return r;
}
#else
static int iommufd_open(struct vfio_space *space, struct failure *failure) {
        return -ENODEV;
}

static int iommufd_open_device(const struct vfio_space *space, int group, const char *pci, struct failure *failure) {
        return failure_set(failure, REASON_unsupported, "This daemon was built without iommufd");
}
#endif

/* ---- both ---- */

int vfio_space_open(int group, bool no_iommu, struct vfio_space *ret, struct failure *failure) {
        const unsigned long type = no_iommu ? VFIO_NOIOMMU_IOMMU : VFIO_TYPE1v2_IOMMU;
        int r;

        *ret = (struct vfio_space){ .way = no_iommu ? VFIO_NOIOMMU : VFIO_TYPE1, .container_fd = -1, .group_fd = -1 };
        r = container_open(type, &ret->container_fd);
        if (r == 0)
                return space_with_group(ret, group, type, failure);
        /* Also where the daemon was not given /dev/vfio/vfio, but the other. */
        if (r != -ENODEV)
                failure_set_errno(failure, REASON_unsupported, -r, "/dev/vfio/vfio cannot be opened: %s", strerror(-r));
        if (!no_iommu && (r == -ENODEV || r == -EACCES || r == -EPERM) && access("/dev/iommu", R_OK | W_OK) == 0)
                r = iommufd_open(ret, failure);
        if (r == -ENODEV)
                return failure_set(failure, REASON_unsupported, "the kernel has neither VFIO with an IOMMU of type 1 (module "
                                   "vfio_iommu_type1) nor iommufd for the daemon");
        return r;
}

int vfio_space_open_device(const struct vfio_space *space, int group, const char *pci, struct failure *failure) {
        int fd;

        if (space->way == VFIO_IOMMUFD)
                return iommufd_open_device(space, group, pci, failure);
        fd = ioctl(space->group_fd, VFIO_GROUP_GET_DEVICE_FD, pci);
        return fd >= 0 ? fd : failure_set_errno(failure, REASON_unsupported, errno, "device %s cannot be opened: %s", pci,
                                                strerror(errno));
}
