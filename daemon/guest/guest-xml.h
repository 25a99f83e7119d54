/* What a guest gets, as libvirt's XML. Pure functions: 0, and *ret is to be freed; -EINVAL: a string that XML cannot hold, or
 * libvirt does not take; -ENOMEM. */
#ifndef DMAB_GUEST_GUEST_XML_H
#define DMAB_GUEST_GUEST_XML_H

#include <stdint.h>

/* Aliases of ours begin with this, so that libvirt keeps them and nobody else's device is taken for ours. */
#define GUEST_ALIAS_PREFIX "ua-dmabroker-"
/* The channel in which a guest reaches the broker. */
#define GUEST_CHANNEL_NAME "org.dmabroker.0"

struct guest_pci_address {
        unsigned domain, bus, slot, function;
};

/* Memory that a guest sees as a PCI device, from our own ivshmem server. */
struct guest_shmem {
        const char *name;        /* no slash */
        const char *alias;       /* after the prefix: letters, digits, - and _ */
        const char *server_path; /* absolute; nobody but us sees to it that QEMU may connect */
        unsigned vectors;        /* interrupts; 0: one */
        const struct guest_pci_address *address; /* NULL: libvirt's choice */
};
int guest_xml_shmem(const struct guest_shmem *shmem, char **ret);

/* A channel for which we listen at `path`, which must do so when the guest starts; QEMU connects, again and again. */
int guest_xml_channel(const char *alias, const char *path, char **ret);

/* What an administrator adds to a domain so that a device with so much memory can be plugged into the PCIe root port `index`
 * later: the port, and what it must reserve, for which libvirt 9 has only <qemu:override>. `reserve` is a power of two, about
 * twice the memory: see guest_port_reserve(). */
int guest_xml_root_port(unsigned index, uint64_t reserve, char **ret);

#endif
