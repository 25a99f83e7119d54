#include "daemon/guest/guest-port.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/guest/xml-scan.h"

enum {
        BUSES = 256,
        /* <domain> <devices> <controller> <address>: deeper ones are the host's, such as those of <hostdev> <source>. */
        DEPTH_DEVICE = 3,
        DEPTH_ADDRESS = 4,
};

static const uint64_t unasked = 2 << 20;

struct port {
        bool exists, is_pluggable, is_used;
        char alias[64];
        uint64_t reserved;
};

struct machine {
        bool is_domain, has_conventional;
        unsigned device_index; /* of the controller whose element this is, or 0 */
        bool in_devices, in_override;
        char override_alias[64];
        uint64_t everywhere; /* what -global reserves for each port */
        struct port ports[BUSES];
};

uint64_t guest_port_reserve(uint64_t size) {
        uint64_t reserve = 1;

        if (size <= unasked)
                return 0;
        if (size > UINT64_C(1) << 62)
                return UINT64_MAX;
        while (reserve < size)
                reserve *= 2;
        return 2 * reserve;
}

/* ---- what the domain has ---- */

/* QEMU's: bytes, or with a letter. 0: it is none. */
static uint64_t parse_size(const char *text) {
        char *end;
        unsigned long long number;
        unsigned shift;

        errno = 0;
        number = strtoull(text, &end, 0);
        shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : *end == 'T' ? 40 : 0;
        if (errno || end == text || end[shift ? 1 : 0] != '\0' || number > UINT64_MAX >> shift)
                return 0;
        return (uint64_t)number << shift;
}

static void take_controller(struct machine *machine, const struct xml_scan *scan) {
        unsigned long long index;
        struct port *port;

        if (!xml_scan_attribute_is(scan, "type", "pci"))
                return;
        if (xml_scan_attribute_is(scan, "model", "pci-root"))
                machine->has_conventional = true;
        if (!xml_scan_attribute_is(scan, "model", "pcie-root-port") ||
            !xml_scan_attribute_number(scan, "index", BUSES - 1, &index) || index == 0)
                return;
        machine->device_index = (unsigned)index;
        port = &machine->ports[index];
        port->exists = port->is_pluggable = true;
        snprintf(port->alias, sizeof(port->alias), "pci.%llu", index);
}

static void take_within_device(struct machine *machine, const struct xml_scan *scan) {
        struct port *port = &machine->ports[machine->device_index];
        unsigned long long bus, domain = 0;

        if (xml_scan_is(scan, "address") && xml_scan_attribute_is(scan, "type", "pci")) {
                xml_scan_attribute_number(scan, "domain", 0xffff, &domain);
                if (domain == 0 && xml_scan_attribute_number(scan, "bus", BUSES - 1, &bus))
                        machine->ports[bus].is_used = true;
        }
        if (machine->device_index == 0)
                return;
        if (xml_scan_is(scan, "alias"))
                xml_scan_attribute(scan, "name", port->alias, sizeof(port->alias));
        if (xml_scan_is(scan, "target") && xml_scan_attribute_is(scan, "hotplug", "off"))
                port->is_pluggable = false;
}

static void take_override(struct machine *machine, const struct xml_scan *scan) {
        char value[32];

        if (xml_scan_is(scan, "device")) {
                if (!xml_scan_attribute(scan, "alias", machine->override_alias, sizeof(machine->override_alias)))
                        machine->override_alias[0] = '\0';
        } else if (xml_scan_is(scan, "property") && xml_scan_attribute_is(scan, "name", "pref64-reserve") &&
                   xml_scan_attribute(scan, "value", value, sizeof(value))) {
                for (unsigned i = 1; i < BUSES; i++)
                        if (machine->ports[i].exists && strcmp(machine->ports[i].alias, machine->override_alias) == 0)
                                machine->ports[i].reserved = parse_size(value);
        }
}

/* <qemu:commandline> <qemu:arg value='-global'/> <qemu:arg value='pcie-root-port.pref64-reserve=64M'/>, which people use, too. */
static void take_argument(struct machine *machine, const struct xml_scan *scan) {
        static const char prefix[] = "pcie-root-port.pref64-reserve=";
        char value[128];

        if (xml_scan_attribute(scan, "value", value, sizeof(value)) && strncmp(value, prefix, strlen(prefix)) == 0)
                machine->everywhere = parse_size(value + strlen(prefix));
}

static void take_element(struct machine *machine, const struct xml_scan *scan) {
        if (scan->depth == 1)
                machine->is_domain = xml_scan_is(scan, "domain");
        if (scan->depth == 2) {
                machine->in_devices = xml_scan_is(scan, "devices");
                machine->in_override = xml_scan_is(scan, "override");
        }
        if (machine->in_devices && scan->depth == DEPTH_DEVICE) {
                machine->device_index = 0;
                if (xml_scan_is(scan, "controller"))
                        take_controller(machine, scan);
        }
        if (machine->in_devices && scan->depth == DEPTH_ADDRESS)
                take_within_device(machine, scan);
        if (machine->in_override && scan->depth > 2)
                take_override(machine, scan);
        if (scan->depth == 3 && xml_scan_is(scan, "arg"))
                take_argument(machine, scan);
}

/* 0 or -EINVAL. */
static int machine_read(struct machine *machine, const char *xml) {
        struct xml_scan scan;
        enum xml_token token;

        xml_scan_init(&scan, xml);
        while ((token = xml_scan_next(&scan)) == XML_OPEN || token == XML_CLOSE)
                if (token == XML_OPEN)
                        take_element(machine, &scan);
        return token == XML_END && machine->is_domain ? 0 : -EINVAL;
}

/* ---- the choice ---- */

static uint64_t reserved_of(const struct machine *machine, const struct port *port) {
        return port->reserved > 0 ? port->reserved : machine->everywhere;
}

static int choose(const struct machine *machine, uint64_t wanted, struct guest_pci_address *ret) {
        unsigned best = 0, n_ports = 0, n_free = 0;

        for (unsigned i = 1; i < BUSES; i++) {
                const struct port *port = &machine->ports[i];

                n_ports += port->exists;
                if (!port->exists || !port->is_pluggable || port->is_used)
                        continue;
                n_free++;
                if (reserved_of(machine, port) < wanted)
                        continue;
                if (best == 0 || reserved_of(machine, port) < reserved_of(machine, &machine->ports[best]))
                        best = i;
        }
        if (best > 0) {
                *ret = (struct guest_pci_address){ .bus = best };
                return 0;
        }
        if (n_ports == 0)
                return machine->has_conventional ? 1 : -ENOSPC;
        return n_free > 0 ? -EFBIG : -ENOSPC;
}

int guest_port_choose(const char *domain_xml, uint64_t size, struct guest_pci_address *ret) {
        struct machine *machine = calloc(1, sizeof(*machine));
        int r;

        if (!machine)
                return -ENOMEM;
        r = machine_read(machine, domain_xml);
        if (r == 0)
                r = choose(machine, guest_port_reserve(size), ret);
        free(machine);
        return r;
}

bool guest_port_is_kvm(const char *domain_xml) {
        struct xml_scan scan;

        xml_scan_init(&scan, domain_xml);
        return xml_scan_next(&scan) == XML_OPEN && xml_scan_is(&scan, "domain") && xml_scan_attribute_is(&scan, "type", "kvm");
}
