/* What the domain's own metadata in libvirt says of a guest, where the configuration says nothing:
 *
 *      <dmab:guest xmlns:dmab="https://dmabroker.org/xmlns/domain/1.0" window="64M" bytes="1G" mappings="1000"/>
 *
 * A window that it gets whenever it starts, and limits by the names of quotas. It holds from when the guest is seen, or the
 * metadata has changed; what an administrator says to the daemon later holds until then. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/guest/guest.h"
#include "daemon/guest/xml-scan.h"
#include "daemon/log.h"
#include "daemon/source/option.h"

static bool read_limit(const struct xml_scan *scan, const struct guest *guest, const char *name, uint64_t *ret) {
        char text[32];

        if (!xml_scan_attribute(scan, name, text, sizeof(text)))
                return false;
        if (strcmp(text, "unlimited") == 0)
                *ret = QUOTA_UNLIMITED;
        else if (option_parse_size(text, ret) < 0) {
                log_warning("the metadata of the guest %s says %s=\"%s\", which is no number", guest->name, name, text);
                return false;
        }
        return true;
}

static void take_limits(struct guest *guest, const struct xml_scan *scan) {
        const struct caller administrator = { .session = guest->caller.session, .admin = true };
        struct failure failure = { 0 };
        struct quota limits = { 0 };
        unsigned mask = 0;

        for (int kind = 0; kind < QUOTA_KINDS; kind++)
                if (read_limit(scan, guest, quota_name(kind), &limits.of[kind]))
                        mask |= 1u << kind;
        if (mask && guest->has_quota)
                log_warning("the limits in the metadata of the guest %s do not hold: the configuration has some for it",
                            guest->name);
        else if (mask && quota_set(&administrator, guest->owner, mask, &limits, &failure) < 0)
                log_warning("the limits in the metadata of the guest %s cannot be set: %s", guest->name, failure.sentence);
}

/* before: what it was to have by the metadata that held until now. */
static void take_window(struct guest *guest, const struct xml_scan *scan, uint64_t before) {
        uint64_t size;

        if (guest->window_bytes || !read_limit(scan, guest, "window", &size))
                return;
        if (size < WINDOW_SIZE_MIN || size > WINDOW_SIZE_MAX || size & (size - 1)) {
                log_warning("the metadata of the guest %s gives it a window of %" PRIu64 " bytes, which must be a power of two "
                            "of at least 1 MiB", guest->name, size);
                return;
        }
        guest->own_bytes = size;
        if (size == before)
                return;
        guest->wants_own = guest->has_begun;
        guests_wake(guest->guests, 0);
}

void guest_take_metadata(struct guest *guest, const char *text) {
        uint64_t before = guest->own_bytes;
        struct xml_scan scan;

        guest->own_bytes = guest->window_bytes;
        if (!text)
                return;
        xml_scan_init(&scan, text);
        if (xml_scan_next(&scan) != XML_OPEN || !xml_scan_is(&scan, "guest")) {
                log_warning("the metadata of the guest %s is no element called guest", guest->name);
                return;
        }
        take_limits(guest, &scan);
        take_window(guest, &scan, before);
}
