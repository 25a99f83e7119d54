#include "daemon/iommu/vfio.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utlist.h>

#include "daemon/iommu/iova.h"
#include "daemon/iommu/pci.h"
#include "daemon/iommu/vfio-open.h"
#include "daemon/source/keep.h"

/* One device, for as many as have it open. Without an IOMMU each of them has one of these, and the device is another one. */
struct translation {
        struct translation *prev, *next; /* in group->devices */
        struct group *group;
        int fd;
        unsigned n_users;
        unsigned n_drivers; /* without an IOMMU: those of them that still drive it */
        char name[PCI_NAME_MAX];
        struct translation *device; /* NULL until somebody asks for it */
        char owner[];
};

struct group {
        struct group *prev, *next; /* in vfio.groups */
        int number;
        struct vfio_space space;
        bool broken; /* the kernel did not unmap */
        bool found; /* it was held by the keep: what is mapped is mapped still */
        struct iova *iova; /* NULL: nothing is translated */
        struct translation *devices;
        char owner[];
};

static struct {
        struct keep *keep;
        struct group *groups;
        bool leaving; /* everything stays as it is, for the next daemon; also while this one is not sure yet that it can start */
} vfio;

/* ---- what outlives the daemon ---- */

/* What the container is kept as tells which way the group was opened, and for whom: nobody else may find it. */
static const char *const container_prefixes[VFIO_WAYS] = {
        [VFIO_TYPE1] = "vfio-container-",
        [VFIO_IOMMUFD] = "vfio-iommufd-",
        [VFIO_NOIOMMU] = "vfio-noiommu-",
};

static void name_clean(char *name) {
        for (char *at = name; *at; at++)
                if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789", *at))
                        *at = '-';
}

static void container_name(enum vfio_way way, const struct group *group, char name[static KEEP_NAME_MAX + 1]) {
        snprintf(name, KEEP_NAME_MAX + 1, "%s%d-%s", container_prefixes[way], group->number, group->owner);
        name_clean(name);
}

static void group_name(int number, char name[static KEEP_NAME_MAX + 1]) {
        snprintf(name, KEEP_NAME_MAX + 1, "vfio-group-%d", number);
}

static void device_name(const char *pci, char name[static KEEP_NAME_MAX + 1]) {
        snprintf(name, KEEP_NAME_MAX + 1, "vfio-device-%s", pci);
        name_clean(name);
}

static int hold(const char *name, int fd, struct failure *failure) {
        int r = keep_put(vfio.keep, name, fd);

        return r >= 0 ? 0 : failure_set_errno(failure, REASON_source_unavailable, -r, "the IOMMU's descriptors cannot be kept "
                                              "for the next daemon: %s", strerror(-r));
}

static void let_go(const char *name, int fd) {
        if (!vfio.leaving)
                keep_drop(vfio.keep, name);
        close(fd);
}

/* ---- groups ---- */

/* Which addresses the IOMMU takes, as its capabilities tell. */
static int ranges_read(const struct group *group, const struct vfio_iommu_type1_info *info) {
        const struct vfio_iommu_type1_info_cap_iova_range *ranges;
        const struct vfio_info_cap_header *header;
        const char *bytes = (const char *)info;
        uint32_t offset, i;
        int r = -ENOENT;

        for (offset = info->flags & VFIO_IOMMU_INFO_CAPS ? info->cap_offset : 0; offset; offset = header->next) {
                if (offset > info->argsz - sizeof(*header))
                        return -EPROTO;
                header = (const struct vfio_info_cap_header *)(bytes + offset);
                if (header->id != VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE)
                        continue;
                ranges = (const struct vfio_iommu_type1_info_cap_iova_range *)header;
                for (i = 0; i < ranges->nr_iovas; i++) {
                        r = iova_add(group->iova, ranges->iova_ranges[i].start, ranges->iova_ranges[i].end);
                        if (r < 0 && r != -EINVAL)
                                return r;
                }
        }
        return r == -EINVAL ? 0 : r;
}

static int ranges_get(const struct group *group, struct failure *failure) {
        struct vfio_iommu_type1_info *info = calloc(1, sizeof(*info)), *larger;
        uint32_t size = sizeof(*info);
        int r = -ENOMEM;

        while (info) {
                info->argsz = size;
                r = ioctl(group->space.container_fd, VFIO_IOMMU_GET_INFO, info) < 0 ? -errno : 0;
                if (r < 0 || info->argsz <= size)
                        break;
                size = info->argsz;
                larger = realloc(info, size);
                if (!larger) {
                        r = -ENOMEM;
                        break;
                }
                info = larger;
                memset(info, 0, size);
        }
        if (r == 0) {
                info->argsz = size;
                r = ranges_read(group, info);
        }
        free(info);
        if (r < 0)
                return failure_set_errno(failure, REASON_unsupported, -r, "the kernel does not tell which addresses the IOMMU of "
                                         "group %d takes: %s", group->number, strerror(-r));
        return 0;
}

static int group_hold(const struct group *group, struct failure *failure) {
        char container[KEEP_NAME_MAX + 1], name[KEEP_NAME_MAX + 1];
        int r;

        container_name(group->space.way, group, container);
        r = hold(container, group->space.container_fd, failure);
        if (r < 0 || group->space.group_fd < 0)
                return r;
        group_name(group->number, name);
        r = hold(name, group->space.group_fd, failure);
        if (r < 0)
                keep_drop(vfio.keep, container);
        return r;
}

static bool find_way(struct group *group, enum vfio_way way) {
        struct vfio_space *space = &group->space;
        char name[KEEP_NAME_MAX + 1];

        container_name(way, group, name);
        if (keep_take(vfio.keep, name, &space->container_fd) < 0)
                return false;
        space->way = way;
        group_name(group->number, name);
        if (way == VFIO_IOMMUFD || keep_take(vfio.keep, name, &space->group_fd) == 0)
                return true;
        container_name(way, group, name);
        let_go(name, space->container_fd);
        space->container_fd = -1;
        return false;
}

/* What an earlier daemon has left: all or nothing. */
static bool group_find(struct group *group, bool no_iommu) {
        if (no_iommu)
                return find_way(group, VFIO_NOIOMMU);
        return find_way(group, VFIO_TYPE1) || find_way(group, VFIO_IOMMUFD);
}

/* Also where somebody else has a descriptor that keeps the container alive: nothing is reached any more. */
static void unmap_all(int container_fd) {
        struct vfio_iommu_type1_dma_unmap all = { .argsz = sizeof(all), .flags = VFIO_DMA_UNMAP_FLAG_ALL };
        struct vfio_iommu_type1_dma_unmap range = { .argsz = sizeof(range), .size = UINT64_C(1) << 63 };

        if (ioctl(container_fd, VFIO_IOMMU_UNMAP_DMA, &all) < 0)
                ioctl(container_fd, VFIO_IOMMU_UNMAP_DMA, &range);
}

static void group_end(struct group *group) {
        const struct vfio_space *space = &group->space;
        char name[KEEP_NAME_MAX + 1];

        if (space->container_fd >= 0 && !vfio.leaving && space->way != VFIO_NOIOMMU)
                unmap_all(space->container_fd);
        group_name(group->number, name);
        if (space->group_fd >= 0)
                let_go(name, space->group_fd);
        container_name(space->way, group, name);
        if (space->container_fd >= 0)
                let_go(name, space->container_fd);
        iova_free(group->iova);
        free(group);
}

static int group_begin(struct group *group, bool no_iommu, struct failure *failure) {
        int r = no_iommu ? 0 : iova_new(&group->iova);

        if (r < 0)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        group->found = group_find(group, no_iommu);
        if (!group->found && no_iommu && vfio.leaving)
                return failure_set(failure, REASON_gone, "nothing is kept of group %d", group->number);
        if (!group->found) {
                r = vfio_space_open(group->number, no_iommu, &group->space, failure);
                if (r == 0)
                        r = group_hold(group, failure);
        }
        return r;
}

static int group_open(int number, bool no_iommu, const char *owner, struct group **ret, struct failure *failure) {
        struct group *group = calloc(1, sizeof(*group) + strlen(owner) + 1);
        int r;

        if (!group)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        group->number = number;
        group->space.group_fd = group->space.container_fd = -1;
        strcpy(group->owner, owner);
        r = group_begin(group, no_iommu, failure);
        if (r < 0) {
                group_end(group);
                return r;
        }
        DL_APPEND(vfio.groups, group);
        *ret = group;
        return 0;
}

static void group_put(struct group *group) {
        if (group->devices)
                return;
        DL_DELETE(vfio.groups, group);
        group_end(group);
}

static int group_get(int number, bool no_iommu, const char *owner, struct group **ret, struct failure *failure) {
        struct group *group;

        DL_FOREACH(vfio.groups, group)
                if (group->number == number)
                        break;
        if (!group)
                return group_open(number, no_iommu, owner, ret, failure);
        if (strcmp(group->owner, owner) != 0)
                return failure_set(failure, REASON_busy, "IOMMU group %d is in use by another owner, and its devices reach each "
                                   "other", number);
        *ret = group;
        return 0;
}

/* ---- devices ---- */

static int device_have(struct translation *device, const char *name, struct failure *failure) {
        if (keep_take(vfio.keep, name, &device->fd) == 0)
                return 0;
        device->fd = vfio_space_open_device(&device->group->space, device->group->number, device->name, failure);
        return device->fd < 0 ? device->fd : hold(name, device->fd, failure);
}

static int device_open(struct group *group, const char *pci, struct translation **ret, struct failure *failure) {
        struct translation *device = calloc(1, sizeof(*device));
        char name[KEEP_NAME_MAX + 1];
        int r;

        if (!device)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        device_name(pci, name);
        device->group = group;
        device->n_users = 1;
        snprintf(device->name, sizeof(device->name), "%s", pci);
        r = device_have(device, name, failure);
        /* An iommufd knows them only now. */
        if (r == 0 && group->iova && !group->devices)
                r = ranges_get(group, failure);
        if (r < 0) {
                if (device->fd >= 0)
                        let_go(name, device->fd);
                free(device);
                return r;
        }
        DL_APPEND(group->devices, device);
        *ret = device;
        return 0;
}

static int device_get(struct group *group, const char *pci, struct translation **ret, struct failure *failure) {
        struct translation *device;

        DL_FOREACH(group->devices, device)
                if (strcmp(device->name, pci) == 0) {
                        device->n_users++;
                        *ret = device;
                        return 0;
                }
        return device_open(group, pci, ret, failure);
}

static int attach_to(int number, bool no_iommu, const char *pci, const char *owner, struct translation **ret,
                     struct failure *failure) {
        struct group *group = NULL;
        int r;

        r = group_get(number, no_iommu, owner, &group, failure);
        if (r < 0)
                return r;
        r = device_get(group, pci, ret, failure);
        if (r < 0)
                group_put(group);
        return r;
}

static void facts_of(const char *pci, struct translator_facts *ret) {
        *ret = (struct translator_facts){ .present = true, .mask = UINT64_MAX, .node = pci_node(pci) };
        snprintf(ret->name, sizeof(ret->name), "%s", pci);
}

static int vfio_attach(const char *name, const char *owner, bool permitted, struct translation **ret,
                       struct translator_facts *ret_facts, struct failure *failure) {
        char pci[PCI_NAME_MAX];
        int r, number;

        if (!pci_name_parse(name, pci) || !pci_has_driver(pci, "vfio-pci"))
                return -ENODEV;
        number = pci_group(pci);
        if (number < 0)
                return -ENODEV;
        if (!permitted)
                return failure_set(failure, REASON_not_permitted, "Device %s can be had as a whole, which the configuration does "
                                   "not allow %s: see `allow` in [device %s]", pci, owner, pci);
        r = attach_to(number, false, pci, owner, ret, failure);
        if (r == 0)
                facts_of(pci, ret_facts);
        /* It is nobody else's to try, whatever the kernel says. */
        return r == -ENODEV ? -ENXIO : r;
}

static void vfio_detach(struct translation *device) {
        char name[KEEP_NAME_MAX + 1];
        struct group *group = device->group;

        if (--device->n_users)
                return;
        DL_DELETE(group->devices, device);
        device_name(device->name, name);
        let_go(name, device->fd);
        free(device);
        group_put(group);
}

/* ---- mapping ---- */

static int map_at(const struct group *group, const struct translator_run *run, uint64_t dma_addr) {
        struct vfio_iommu_type1_dma_map map = {
                .argsz = sizeof(map),
                .flags = (run->writes_only ? 0 : VFIO_DMA_MAP_FLAG_READ) | (run->reads_only ? 0 : VFIO_DMA_MAP_FLAG_WRITE),
                .vaddr = (uintptr_t)run->memory, .iova = dma_addr, .size = run->size,
        };

        if (!run->memory)
                return -EFAULT;
        if (group->broken)
                return -EIO;
        return ioctl(group->space.container_fd, VFIO_IOMMU_MAP_DMA, &map) < 0 ? -errno : 0;
}

static int map_fail(const struct group *group, const struct translator_run *run, int r, struct failure *failure) {
        switch (r) {
        case -ENOSPC:
                return failure_set(failure, REASON_mapping_limit, "The IOMMU of group %d takes no more mappings (dma_entry_limit "
                                   "of vfio_iommu_type1)", group->number);
        case -ENOMEM:
                return failure_set(failure, REASON_no_memory, "The daemon may not lock %" PRIu64 " bytes more for a device "
                                   "(RLIMIT_MEMLOCK, or CAP_IPC_LOCK)", run->size);
        case -EFAULT:
                return failure_set(failure, REASON_source_unavailable, "The memory at 0x%" PRIx64 " is of a source that an IOMMU "
                                   "cannot be given", run->addr);
        default:
                return failure_set_errno(failure, REASON_source_unavailable, -r, "The IOMMU of group %d does not map %" PRIu64
                                         " bytes: %s", group->number, run->size, strerror(-r));
        }
}

static int vfio_map(struct translation *device, const struct translator_run *run, uint64_t *ret_dma, struct failure *failure) {
        struct group *group = device->group;
        struct iova_usage usage;
        int r;

        r = iova_take(group->iova, run, ret_dma);
        if (r == -ENOSPC) {
                iova_usage(group->iova, &usage);
                r = failure_set(failure, iova_reaches(group->iova, run->limit) ? REASON_iova_exhausted : REASON_mask,
                                "Device %s has no free addresses for %" PRIu64 " bytes at or below 0x%" PRIx64, device->name,
                                run->size, run->limit);
                failure_add_number(failure, "asked", run->size);
                failure_add_hex(failure, "mask", run->limit);
                failure_add_number(failure, "free", usage.free_bytes);
                failure_add_number(failure, "mappings", usage.n_used);
                return r;
        }
        if (r < 0)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        r = map_at(group, run, *ret_dma);
        if (r == 0)
                return 0;
        /* Whatever is there, it is not to be offered again; nor what a further device of the group has made unusable. */
        if (r != -EEXIST && r != -EINVAL)
                iova_give_back(group->iova, *ret_dma);
        return map_fail(group, run, r, failure);
}

static int unmap_at(const struct group *group, uint64_t dma_addr, uint64_t size) {
        struct vfio_iommu_type1_dma_unmap unmap = { .argsz = sizeof(unmap), .iova = dma_addr, .size = size };

        if (ioctl(group->space.container_fd, VFIO_IOMMU_UNMAP_DMA, &unmap) < 0)
                return -errno;
        return unmap.size == size ? 0 : -ENOENT;
}

/* As far as can be. */
static void device_stop(const struct translation *device) {
        struct vfio_region_info config = { .argsz = sizeof(config), .index = VFIO_PCI_CONFIG_REGION_INDEX };
        uint16_t command;

        if (ioctl(device->fd, VFIO_DEVICE_GET_REGION_INFO, &config) == 0 &&
            pread(device->fd, &command, sizeof(command), (off_t)config.offset + PCI_COMMAND) == sizeof(command)) {
                command &= (uint16_t)~PCI_COMMAND_MASTER;
                (void)!pwrite(device->fd, &command, sizeof(command), (off_t)config.offset + PCI_COMMAND);
        }
        ioctl(device->fd, VFIO_DEVICE_RESET);
}

/* The kernel did not do as it was told: nothing more is mapped for the group. */
static void silence(struct group *group) {
        struct translation *device;

        group->broken = true;
        DL_FOREACH(group->devices, device)
                device_stop(device);
}

static int vfio_unmap(struct translation *device, uint64_t dma_addr, uint64_t size) {
        struct group *group = device->group;
        int r = vfio.leaving ? 0 : unmap_at(group, dma_addr, size);

        if (r < 0)
                silence(group);
        else
                iova_retire(group->iova, dma_addr);
        return r;
}

static bool vfio_serves(const struct translation *device, uint64_t mask) {
        return iova_reaches(device->group->iova, mask);
}

/* What is mapped there is the same: an address is used again only when the ledger knows that it is free. */
static int vfio_restore(struct translation *device, const struct translator_run *run, uint64_t dma_addr,
                        struct failure *failure) {
        struct group *group = device->group;
        int r = iova_take_at(group->iova, dma_addr, run->size);

        if (r < 0)
                return failure_set_errno(failure, REASON_source_unavailable, -r, "device %s had the address 0x%" PRIx64 ", and "
                                         "cannot have it any more: %s", device->name, dma_addr, strerror(-r));
        r = map_at(group, run, dma_addr);
        if (r == 0 || r == -EEXIST)
                return 0;
        iova_give_back(group->iova, dma_addr);
        return map_fail(group, run, r, failure);
}

static void unmap_free(void *userdata, uint64_t addr, uint64_t size) {
        unmap_at(userdata, addr, size);
}

static int give_up(void *userdata, const char *name) {
        int fd;

        if (keep_take(vfio.keep, name, &fd) < 0)
                return 0;
        for (int way = 0; way < VFIO_WAYS; way++)
                if (way != VFIO_NOIOMMU && strncmp(name, container_prefixes[way], strlen(container_prefixes[way])) == 0)
                        unmap_all(fd);
        let_go(name, fd);
        return 0;
}

static void vfio_restored(void) {
        struct translation *device;
        struct group *group;

        vfio.leaving = false;
        DL_FOREACH(vfio.groups, group)
                if (group->space.way == VFIO_NOIOMMU)
                        DL_FOREACH(group->devices, device)
                                if (!device->n_drivers)
                                        device_stop(device);
        DL_FOREACH(vfio.groups, group)
                if (group->found && group->iova)
                        iova_visit_free(group->iova, unmap_free, group);
        /* Groups that nobody has any more. */
        keep_visit(vfio.keep, "vfio-", give_up, NULL);
}

static void vfio_committed(void) {
        struct group *group;

        DL_FOREACH(vfio.groups, group)
                if (group->iova)
                        iova_settle(group->iova);
}

static int vfio_device_fd(struct translation *device) {
        return device->fd;
}

const struct translator_ops translator_vfio_ops = {
        .struct_size = sizeof(struct translator_ops),
        .version = TRANSLATOR_OPS_VERSION,
        .name = "iommu",
        .attach = vfio_attach,
        .detach = vfio_detach,
        .map = vfio_map,
        .unmap = vfio_unmap,
        .flags = TRANSLATOR_PROTECTS | TRANSLATOR_TRANSLATES,
        .serves = vfio_serves,
        .restore = vfio_restore,
        .restored = vfio_restored,
        .committed = vfio_committed,
        .device_fd = vfio_device_fd,
};

/* ---- without an IOMMU ---- */

/* The device itself is taken when it is asked for: until then another program may drive it, and have memory from here. */
static int noiommu_take(struct translation *translation, struct failure *failure) {
        int number = pci_has_driver(translation->name, "vfio-pci") ? pci_noiommu_group(translation->name) : -1, r;

        if (number < 0)
                return failure_set(failure, REASON_gone, "device %s is not bound to vfio-pci any more", translation->name);
        r = attach_to(number, true, translation->name, translation->owner, &translation->device, failure);
        if (r == 0)
                translation->device->n_drivers++;
        return r;
}

/* Who may not have the device itself gets addresses from the translator `identity`. */
static int noiommu_attach(const char *name, const char *owner, bool permitted, struct translation **ret,
                          struct translator_facts *ret_facts, struct failure *failure) {
        struct translation *translation;
        char pci[PCI_NAME_MAX];

        if (!permitted || !pci_name_parse(name, pci))
                return -ENODEV;
        /* One of an earlier daemon stays what it is. */
        if (!vfio.leaving && (!pci_has_driver(pci, "vfio-pci") || pci_noiommu_group(pci) < 0))
                return -ENODEV;
        translation = calloc(1, sizeof(*translation) + strlen(owner) + 1);
        if (!translation)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        memcpy(translation->name, pci, sizeof(pci));
        strcpy(translation->owner, owner);
        /* What that one had taken is taken again; if it is not to be had, its memory stays where it is all the same. */
        if (vfio.leaving)
                noiommu_take(translation, NULL);
        facts_of(pci, ret_facts);
        *ret = translation;
        return 0;
}

static void noiommu_quiet(struct translation *translation) {
        struct translation *device = translation->device;

        if (device && --device->n_drivers == 0 && !vfio.leaving)
                device_stop(device);
}

static void noiommu_detach(struct translation *translation) {
        if (translation->device)
                vfio_detach(translation->device);
        free(translation);
}

static int noiommu_device_fd(struct translation *translation) {
        if (!translation->device && noiommu_take(translation, NULL) < 0)
                return -1;
        return translation->device->fd;
}

static int noiommu_map(struct translation *device, const struct translator_run *run, uint64_t *ret_dma,
                       struct failure *failure) {
        *ret_dma = run->addr;
        return 0;
}

static int noiommu_unmap(struct translation *device, uint64_t dma_addr, uint64_t size) {
        return 0;
}

const struct translator_ops translator_noiommu_ops = {
        .struct_size = sizeof(struct translator_ops),
        .version = TRANSLATOR_OPS_VERSION,
        .name = "noiommu",
        .attach = noiommu_attach,
        .detach = noiommu_detach,
        .map = noiommu_map,
        .unmap = noiommu_unmap,
        .device_fd = noiommu_device_fd,
        .quiet = noiommu_quiet,
};

void vfio_begin(struct keep *keep, bool restores) {
        vfio.keep = keep;
        vfio.leaving = restores;
}

void vfio_leave(void) {
        vfio.leaving = true;
}
