#include "daemon/guest/xml-scan.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

void xml_scan_init(struct xml_scan *scan, const char *text) {
        *scan = (struct xml_scan){ .at = text };
}

static bool is_blank(char c) {
        return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static const char *skip_blanks(const char *at) {
        while (is_blank(*at))
                at++;
        return at;
}

/* NULL: there is none. */
static const char *skip_name(const char *at) {
        const char *start = at;

        while (*at && !is_blank(*at) && !strchr("<>/='\"", *at))
                at++;
        return at > start ? at : NULL;
}

/* An attribute. NULL: it is none. */
static const char *skip_attribute(const char *at, const char **ret_value, size_t *ret_length) {
        const char *end;

        at = skip_name(at);
        if (!at)
                return NULL;
        at = skip_blanks(at);
        if (*at != '=')
                return NULL;
        at = skip_blanks(at + 1);
        if (*at != '\'' && *at != '"')
                return NULL;
        end = strchr(at + 1, *at);
        if (!end)
                return NULL;
        *ret_value = at + 1;
        *ret_length = (size_t)(end - at - 1);
        return end + 1;
}

static const char *skip_past(const char *at, const char *what) {
        at = strstr(at, what);
        return at ? at + strlen(what) : NULL;
}

/* What begins with <! or <?. NULL: it does not end, or is a document type. */
static const char *skip_other(const char *at) {
        if (strncmp(at, "<!--", 4) == 0)
                return skip_past(at + 4, "-->");
        if (strncmp(at, "<![CDATA[", 9) == 0)
                return skip_past(at + 9, "]]>");
        return at[1] == '?' ? skip_past(at + 2, "?>") : NULL;
}

static enum xml_token scan_close(struct xml_scan *scan) {
        const char *end = skip_name(scan->at + 2);

        end = end ? skip_blanks(end) : NULL;
        if (!end || *end != '>' || scan->depth == 0)
                return XML_ERROR;
        scan->at = end + 1;
        scan->is_closing = true;
        return XML_CLOSE;
}

static enum xml_token scan_open(struct xml_scan *scan) {
        const char *end = skip_name(scan->at + 1), *colon, *value;
        size_t length;

        if (!end)
                return XML_ERROR;
        scan->name = scan->at + 1;
        colon = memchr(scan->name, ':', (size_t)(end - scan->name));
        scan->name = colon ? colon + 1 : scan->name;
        scan->name_length = (size_t)(end - scan->name);
        scan->attributes = end = skip_blanks(end);
        while (*end && *end != '>' && *end != '/') {
                end = skip_attribute(end, &value, &length);
                if (!end)
                        return XML_ERROR;
                end = skip_blanks(end);
        }
        scan->is_empty = *end == '/';
        end += scan->is_empty;
        if (*end != '>')
                return XML_ERROR;
        scan->at = end + 1;
        scan->depth++;
        return XML_OPEN;
}

/* The depth falls only with the token after XML_CLOSE, which is still about the element. */
enum xml_token xml_scan_next(struct xml_scan *scan) {
        if (scan->is_empty) {
                scan->is_empty = false;
                scan->is_closing = true;
                return XML_CLOSE;
        }
        if (scan->is_closing) {
                scan->is_closing = false;
                scan->depth--;
        }
        for (;;) {
                const char *at = strchr(scan->at, '<');

                if (!at)
                        return scan->depth == 0 && scan->name ? XML_END : XML_ERROR;
                scan->at = at;
                if (at[1] == '/')
                        return scan_close(scan);
                if (at[1] != '!' && at[1] != '?')
                        return scan_open(scan);
                at = skip_other(at);
                if (!at)
                        return XML_ERROR;
                scan->at = at;
        }
}

bool xml_scan_is(const struct xml_scan *scan, const char *name) {
        return scan->name_length == strlen(name) && memcmp(scan->name, name, scan->name_length) == 0;
}

/* ---- values ---- */

/* One character, from a reference or as it is; how much of the text it took. Beyond ASCII a number stands for itself, which no
 * name or number that is looked for here has. 0: it is no reference. */
static size_t decode(const char *text, size_t length, char *ret) {
        static const struct {
                const char *name;
                char character;
        } entities[] = { { "&lt;", '<' }, { "&gt;", '>' }, { "&amp;", '&' }, { "&apos;", '\'' }, { "&quot;", '"' } };
        const char *end;
        char *parsed;
        unsigned long code;

        *ret = *text;
        if (*text != '&')
                return 1;
        for (size_t i = 0; i < sizeof(entities) / sizeof(*entities); i++)
                if (strncmp(text, entities[i].name, strlen(entities[i].name)) == 0) {
                        *ret = entities[i].character;
                        return strlen(entities[i].name);
                }
        end = memchr(text, ';', length);
        if (!end || text[1] != '#' || !isxdigit((unsigned char)text[2 + (text[2] == 'x')]))
                return 0;
        code = text[2] == 'x' ? strtoul(text + 3, &parsed, 16) : strtoul(text + 2, &parsed, 10);
        if (parsed != end || code == 0)
                return 0;
        *ret = code < 128 ? (char)code : '?';
        return (size_t)(end - text) + 1;
}

static bool decode_value(const char *text, size_t length, char *value, size_t size) {
        size_t n = 0, used;

        while (length > 0 && n + 1 < size) {
                used = decode(text, length, &value[n++]);
                if (used == 0 || used > length)
                        return false;
                text += used;
                length -= used;
        }
        value[n] = '\0';
        return length == 0;
}

bool xml_scan_attribute(const struct xml_scan *scan, const char *name, char *value, size_t size) {
        const char *at = scan->attributes, *next, *text;
        size_t length, name_length = strlen(name);

        while (*at && *at != '>' && *at != '/') {
                next = skip_attribute(at, &text, &length);
                if (!next)
                        return false;
                if (skip_name(at) == at + name_length && memcmp(at, name, name_length) == 0)
                        return decode_value(text, length, value, size);
                at = skip_blanks(next);
        }
        return false;
}

bool xml_scan_attribute_is(const struct xml_scan *scan, const char *name, const char *value) {
        char text[64];

        return xml_scan_attribute(scan, name, text, sizeof(text)) && strcmp(text, value) == 0;
}

bool xml_scan_attribute_number(const struct xml_scan *scan, const char *name, unsigned long long max,
                               unsigned long long *ret) {
        char text[32], *end;
        unsigned long long number;
        bool is_hex;

        if (!xml_scan_attribute(scan, name, text, sizeof(text)))
                return false;
        is_hex = strncmp(text, "0x", 2) == 0;
        if (!isxdigit((unsigned char)text[is_hex ? 2 : 0]))
                return false;
        errno = 0;
        number = strtoull(text + (is_hex ? 2 : 0), &end, is_hex ? 16 : 10);
        if (*end || errno || number > max)
                return false;
        *ret = number;
        return true;
}
