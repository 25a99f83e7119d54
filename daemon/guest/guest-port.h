/* Where a PCI device can be plugged into a guest that runs. */
#ifndef DMAB_GUEST_GUEST_PORT_H
#define DMAB_GUEST_GUEST_PORT_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/guest/guest-xml.h"

/* What a port must have reserved for a device whose memory is of `size` bytes: a power of two, twice of it; the firmware gives
 * every port 2 MiB unasked, for which this is 0. UINT64_MAX: there is no such number. */
uint64_t guest_port_reserve(uint64_t size);

/* The PCIe root port for a device with memory of `size` bytes, from the XML of the running domain as libvirt tells it: one that
 * is free and can be plugged into, with as little reserved as will do. 0: *ret is the address. 1: the guest has no such ports
 * and needs none (its machine is "pc"): libvirt shall choose. -ENOSPC: no port is free. -EFBIG: there are free ones, but none
 * reserves enough: the guest would never see the memory, though libvirt reports success; guest_xml_root_port() is the advice.
 * -EINVAL: this is no XML of a domain. -ENOMEM. */
int guest_port_choose(const char *domain_xml, uint64_t size, struct guest_pci_address *ret);

/* Whether KVM runs it, by the same XML. */
bool guest_port_is_kvm(const char *domain_xml);

#endif
