/* What an administrator adds to a domain, so that its guest can have windows and a channel. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/guest/guest-port.h"
#include "daemon/guest/guest-xml.h"
#include "daemon/guest/guest.h"

/* What libvirt adds by itself takes the lowest ports. */
enum { FREE_PORT = 8 };

/* Of memory, by 1,024 pages of its table of mappings, which is what a guest of Xen's has unless more is said; and by one. */
#define XEN_MAPPED_BY_DEFAULT (UINT64_C(1) << 30)
#define XEN_MAPPED_BY_FRAME (UINT64_C(1) << 20)

static int of_libvirt(const struct guest *guest, uint64_t size, FILE *file) {
        uint64_t reserve = guest_port_reserve(size);
        char *channel = NULL, *port = NULL;
        int r;

        r = guest_xml_channel("0", channel_path(guest->channel), &channel);
        if (r == 0 && reserve)
                r = guest_xml_root_port(FREE_PORT, reserve, &port);
        if (r == 0) {
                fprintf(file, "<!-- in <devices> of the domain %s: how its programs reach the broker -->\n%s\n", guest->name,
                        channel);
                if (port)
                        fprintf(file, "<!-- a port in which a window of %" PRIu64 " bytes finds room (a machine \"pc\" needs "
                                "none) -->\n%s\n", size, port);
        }
        free(channel);
        free(port);
        return r;
}

static void of_qemu(const struct guest *guest, uint64_t size, FILE *file) {
        uint64_t reserve = guest_port_reserve(size);

        fprintf(file, "-device virtio-serial-pci -chardev socket,id=dmabroker,path=%s,reconnect=1 \\\n"
                "-device virtserialport,chardev=dmabroker,name=org.dmabroker.0 \\\n"
                "-qmp unix:%s,server=on,wait=off \\\n", channel_path(guest->channel), guest->qmp_path);
        fprintf(file, "-device pcie-root-port,id=dmabroker1,chassis=101,slot=101");
        if (reserve)
                fprintf(file, ",pref64-reserve=%" PRIu64, reserve);
        fprintf(file, "\n# and in the section [guest %s] of the broker's configuration: ports = dmabroker1\n", guest->name);
}

/* A guest that maps more than its table of mappings has entries for cannot have its window. */
static void of_xen(uint64_t size, FILE *file) {
        fprintf(file, "# in the guest's xl.cfg:\nmax_grant_version = 1\n");
        if (size > XEN_MAPPED_BY_DEFAULT)
                fprintf(file, "max_maptrack_frames = %" PRIu64 "\n", 2 * size / XEN_MAPPED_BY_FRAME);
}

int guests_advise(const struct guests *guests, const char *name, uint64_t size, char **ret, struct failure *failure) {
        struct guest *guest = guests_find(guests, name, failure);
        char *text = NULL;
        size_t length;
        FILE *file;
        int r = 0;

        if (!guest)
                return -reason_errno(REASON_unknown_guest);
        if (guest->via == GUEST_BY_NOBODY)
                return failure_set(failure, REASON_unknown_guest, "The guest %s is not in the configuration any more", name);
        if (size < WINDOW_SIZE_MIN || size > WINDOW_SIZE_MAX || size & (size - 1))
                return failure_set(failure, REASON_bad_param, "A window has a power of two of bytes, at least %llu",
                                   (unsigned long long)WINDOW_SIZE_MIN);
        file = open_memstream(&text, &length);
        if (!file)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        if (guest->is_xen)
                of_xen(size, file);
        else if (guest->via == GUEST_BY_QMP)
                of_qemu(guest, size, file);
        else
                r = of_libvirt(guest, size, file);
        if (fclose(file) != 0 || r < 0) {
                free(text);
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        }
        *ret = text;
        return 0;
}
