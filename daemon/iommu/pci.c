#include "daemon/iommu/pci.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool parse_part(const char **text, unsigned digits, unsigned long max, char end, unsigned long *ret) {
        unsigned long value = 0;
        unsigned n = 0;

        for (; isxdigit((unsigned char)**text) && n < digits; n++, (*text)++)
                value = value * 16 + (unsigned long)(isdigit((unsigned char)**text) ? **text - '0'
                                                                                      : (**text | 32) - 'a' + 10);
        if (!n || value > max || **text != end)
                return false;
        if (end)
                (*text)++;
        *ret = value;
        return true;
}

bool pci_name_parse(const char *text, char ret_name[PCI_NAME_MAX]) {
        unsigned long domain = 0, bus, slot, function;
        const char *at = text, *rest;

        /* With a domain there are two colons; the first attempt is to read one. */
        rest = at;
        if (!parse_part(&rest, 8, 0xffffffff, ':', &domain))
                return false;
        if (parse_part(&rest, 2, 0xff, ':', &bus))
                at = rest;
        else {
                domain = 0;
                if (!parse_part(&at, 2, 0xff, ':', &bus))
                        return false;
        }
        if (!parse_part(&at, 2, 0x1f, '.', &slot) || !parse_part(&at, 1, 7, '\0', &function))
                return false;
        snprintf(ret_name, PCI_NAME_MAX, "%04lx:%02lx:%02lx.%lx", domain, bus, slot, function);
        return true;
}

bool pci_is_present(const char *name) {
        char path[96];

        snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s", name);
        return access(path, F_OK) == 0;
}

int pci_node(const char *name) {
        char path[96];
        int node = -1;
        FILE *file;

        snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/numa_node", name);
        file = fopen(path, "re");
        if (!file)
                return -1;
        if (fscanf(file, "%d", &node) != 1 || node < 0)
                node = -1;
        fclose(file);
        return node;
}

/* The last part of what a link of the device points to, or "". */
static const char *link_end(const char *name, const char *link, char target[PATH_MAX]) {
        char path[128];
        ssize_t n;

        snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", name, link);
        n = readlink(path, target, PATH_MAX - 1);
        target[n < 0 ? 0 : n] = '\0';
        return strrchr(target, '/') ? strrchr(target, '/') + 1 : "";
}

/* VFIO without an IOMMU makes groups, too. */
static int group_of(const char *name, bool no_iommu) {
        char target[PATH_MAX];
        const char *end = link_end(name, "iommu_group", target);
        char path[128], kind[32] = "";
        FILE *file;

        if (!*end)
                return -1;
        snprintf(path, sizeof(path), "/sys/kernel/iommu_groups/%d/name", atoi(end));
        file = fopen(path, "re");
        if (file && fscanf(file, "%31s", kind) != 1)
                kind[0] = '\0';
        if (file)
                fclose(file);
        return (strcmp(kind, "vfio-noiommu") == 0) == no_iommu ? atoi(end) : -1;
}

int pci_group(const char *name) {
        return group_of(name, false);
}

int pci_noiommu_group(const char *name) {
        return group_of(name, true);
}

bool pci_has_driver(const char *name, const char *driver) {
        char target[PATH_MAX];

        return strcmp(link_end(name, "driver", target), driver) == 0;
}

bool pci_is_translated(const char *name) {
        char path[128], type[32] = "";
        int group = pci_group(name);
        FILE *file;

        if (group < 0)
                return false;
        snprintf(path, sizeof(path), "/sys/kernel/iommu_groups/%d/type", group);
        file = fopen(path, "re");
        if (!file)
                return false;
        if (fscanf(file, "%31s", type) != 1)
                type[0] = '\0';
        fclose(file);
        /* What the kernel's drivers have, what is shut, and what VFIO has. */
        return strncmp(type, "DMA", 3) == 0 || strcmp(type, "blocked") == 0 || strcmp(type, "unmanaged") == 0;
}
