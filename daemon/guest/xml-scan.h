/* Reading XML that another program has written well, such as a domain's from libvirt: elements and attributes, one after the
 * other, in place. It knows no document types and no entities but XML's own five and characters by number, and passes over
 * text, comments, CDATA and processing instructions. What is not XML is an error; not every error is found. */
#ifndef DMAB_GUEST_XML_SCAN_H
#define DMAB_GUEST_XML_SCAN_H

#include <stdbool.h>
#include <stddef.h>

enum xml_token {
        XML_END,   /* of the text, with every element closed */
        XML_OPEN,  /* an element begins */
        XML_CLOSE, /* it ends; also if it is empty */
        XML_ERROR,
};

struct xml_scan {
        unsigned depth; /* of the element that the last token was about: 1 for the outermost one */

        const char *name; /* its name without the namespace's prefix, which ends at name_length; for XML_OPEN */
        size_t name_length;

        const char *at, *attributes;
        bool is_empty, is_closing;
};

/* The text is borrowed, and ends with NUL. */
void xml_scan_init(struct xml_scan *scan, const char *text);
enum xml_token xml_scan_next(struct xml_scan *scan);

/* About the element that the last token, XML_OPEN, was about. */
bool xml_scan_is(const struct xml_scan *scan, const char *name);
/* The attribute's value, cut short if `size` is too small for it. Whether there is one that fits. */
bool xml_scan_attribute(const struct xml_scan *scan, const char *name, char *value, size_t size);
bool xml_scan_attribute_is(const struct xml_scan *scan, const char *name, const char *value);
/* 123 or 0x7b. Whether there is one that is a number of that kind up to `max`. */
bool xml_scan_attribute_number(const struct xml_scan *scan, const char *name, unsigned long long max,
                               unsigned long long *ret);

#endif
