#include "daemon/source/layout.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/source/option.h"

static int refuse(struct failure *failure, const char *key, const char *item, const char *why) {
        failure_set(failure, REASON_bad_param, "%s: %.60s %s", key, item, why);
        failure_add_text(failure, "key", key);
        failure_add_text(failure, "value", item);
        return -EINVAL;
}

static int parse_item(const char *key, char *item, struct layout_span *ret, struct failure *failure) {
        char text[64], *at;
        int r;

        snprintf(text, sizeof(text), "%s", item);
        at = strchr(item, '@');
        if (!at)
                return refuse(failure, key, text, "is not of the form SIZE@ADDR, such as 64M@0x40000000");
        *at = '\0';
        r = option_parse_size(item, &ret->size);
        if (r == 0)
                r = option_parse_size(at + 1, &ret->addr);
        if (r < 0)
                return refuse(failure, key, text, "is not of the form SIZE@ADDR, such as 64M@0x40000000");
        if (ret->size == 0)
                return refuse(failure, key, text, "is empty");
        if (ret->size % LAYOUT_GRAIN || ret->addr % LAYOUT_GRAIN)
                return refuse(failure, key, text, "is not in multiples of 4096 bytes");
        if (ret->size > LAYOUT_TOTAL_MAX)
                return refuse(failure, key, text, "is larger than 16 TiB");
        if (ret->addr > LAYOUT_ADDR_MAX - ret->size)
                return refuse(failure, key, text, "ends above 2^52, which no processor can address");
        return 0;
}

static int add(const char *key, char *item, struct layout *layout, struct failure *failure) {
        struct layout_span span = { .rank = (unsigned)layout->n };
        char text[64];
        size_t i;
        int r;

        snprintf(text, sizeof(text), "%s", item);
        r = parse_item(key, item, &span, failure);
        if (r < 0)
                return r;
        for (i = 0; i < layout->n; i++)
                if (span.addr < layout->spans[i].addr + layout->spans[i].size &&
                    layout->spans[i].addr < span.addr + span.size)
                        return refuse(failure, key, text, "overlaps an earlier one");
        if (layout->n == LAYOUT_SPANS_MAX)
                return refuse(failure, key, text, "is one too many: there is room for 256");
        layout->spans[layout->n++] = span;
        if (layout_total(layout) > LAYOUT_TOTAL_MAX)
                return refuse(failure, key, text, "makes it larger than 16 TiB in all");
        return 0;
}

int layout_parse(const char *key, const char *text, struct layout *ret, struct failure *failure) {
        struct layout layout = {};
        const char *end;
        char item[64];
        size_t length;
        int r;

        for (;; text = end + 1) {
                text += strspn(text, " \t");
                end = text + strcspn(text, ",");
                length = (size_t)(end - text);
                while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t'))
                        length--;
                if (length >= sizeof(item))
                        return refuse(failure, key, text, "is not of the form SIZE@ADDR, such as 64M@0x40000000");
                memcpy(item, text, length);
                item[length] = '\0';
                r = add(key, item, &layout, failure);
                if (r < 0)
                        return r;
                if (!*end)
                        break;
        }
        *ret = layout;
        return 0;
}

/* Cut one hole out of one span: what is left above the hole becomes a span of its own. */
static int cut(struct layout *layout, size_t i, const struct layout_span *hole) {
        struct layout_span *span = &layout->spans[i], upper = *span;
        uint64_t end = span->addr + span->size, hole_end = hole->addr + hole->size;

        if (hole_end <= span->addr || end <= hole->addr)
                return 0;
        upper.addr = hole_end;
        upper.size = hole_end < end ? end - hole_end : 0;
        span->size = hole->addr > span->addr ? hole->addr - span->addr : 0;
        if (upper.size == 0)
                return 0;
        if (span->size == 0) {
                *span = upper;
                return 0;
        }
        if (layout->n == LAYOUT_SPANS_MAX)
                return -ENOSPC;
        memmove(span + 2, span + 1, (layout->n - i - 1) * sizeof(*span));
        span[1] = upper;
        layout->n++;
        return 0;
}

int layout_cut(struct layout *layout, const struct layout *holes, struct failure *failure) {
        size_t h, i, n;

        for (h = 0; h < holes->n; h++)
                for (i = 0; i < layout->n; i++)
                        if (cut(layout, i, &holes->spans[h]) < 0)
                                return refuse(failure, "holes", "the list",
                                              "leaves more than 256 pieces of the layout");
        for (i = n = 0; i < layout->n; i++)
                if (layout->spans[i].size > 0)
                        layout->spans[n++] = layout->spans[i];
        layout->n = n;
        if (n == 0)
                return refuse(failure, "holes", "the list", "leaves nothing of the layout");
        return 0;
}

uint64_t layout_total(const struct layout *layout) {
        uint64_t total = 0;
        size_t i;

        for (i = 0; i < layout->n; i++)
                total += layout->spans[i].size;
        return total;
}
