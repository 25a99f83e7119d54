/* Text as libvirt would tell it of a domain, whose owner may have written much of it: where a device can be plugged in, and each
 * element with its attributes. The first byte says how large the device is. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/guest/guest-port.h"
#include "daemon/guest/xml-scan.h"
#include "tests/fuzz/fuzz.h"

static void look_at_attributes(const struct xml_scan *scan) {
        static const char *const names[] = { "index", "bus", "type", "window" };
        unsigned long long number;
        char value[8];

        for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
                if (xml_scan_attribute(scan, names[i], value, sizeof(value)))
                        CHECK(strnlen(value, sizeof(value)) < sizeof(value));
                if (xml_scan_attribute_number(scan, names[i], 255, &number))
                        CHECK(number <= 255);
        }
}

static void scan_all(const char *text) {
        enum xml_token token;
        struct xml_scan scan;
        unsigned depth = 0;

        xml_scan_init(&scan, text);
        while ((token = xml_scan_next(&scan)) == XML_OPEN || token == XML_CLOSE) {
                depth += token == XML_OPEN;
                CHECK(scan.depth == depth && depth);
                depth -= token == XML_CLOSE;
                if (token == XML_OPEN)
                        look_at_attributes(&scan);
        }
        CHECK(token == XML_ERROR || !depth);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        struct guest_pci_address address;
        char *text;
        int r;

        if (!size)
                return 0;
        text = malloc(size);
        CHECK(text);
        memcpy(text, data + 1, size - 1);
        text[size - 1] = '\0';
        scan_all(text);
        r = guest_port_choose(text, UINT64_C(1) << (data[0] % 64), &address);
        CHECK(r <= 1);
        if (r == 0)
                CHECK(address.slot < 32 && address.function < 8 && address.bus < 256);
        free(text);
        return 0;
}
