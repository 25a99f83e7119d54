#include "client/ctl/bar.h"

#include <langinfo.h>
#include <stdint.h>
#include <string.h>

/* What a bar is made of: its ends, the high-water mark, an empty cell, and a cell that is filled by so many parts. */
struct glyphs {
        const char *left, *right, *mark, *empty;
        size_t parts; /* that a cell is divided into */
        const char *const *filled; /* by 1 to `parts` of them */
};

static const char *const eighths[] = { "\u258f", "\u258e", "\u258d", "\u258c", "\u258b", "\u258a", "\u2589", "\u2588" };
static const char *const whole[] = { "#" };
static const struct glyphs ascii = { "[", "]", "|", " ", 1, whole };
static const struct glyphs unicode_glyphs = { "\u2595", "\u258f", "\u2502", " ", 8, eighths };

bool bar_unicode(void) {
        return !strcmp(nl_langinfo(CODESET), "UTF-8");
}

static double clamp(double percent) {
        if (!(percent > 0))
                return 0;
        return percent > 100 ? 100 : percent;
}

static void append(char **end, const char *text) {
        size_t length = strlen(text);

        memcpy(*end, text, length + 1);
        *end += length;
}

void bar_draw(double used, double high, size_t width, bool unicode, char *ret) {
        const struct glyphs *glyphs = unicode ? &unicode_glyphs : &ascii;
        size_t cells = (width < 3 ? 3 : width > BAR_WIDTH_MOST ? BAR_WIDTH_MOST : width) - 2;
        size_t filled, mark = SIZE_MAX;

        filled = (size_t)(clamp(used) / 100 * (double)(cells * glyphs->parts) + 0.5);
        /* What is in use at all is seen, and what is not full does not look so. */
        if (used > 0 && !filled)
                filled = 1;
        if (used < 100 && filled == cells * glyphs->parts)
                filled--;
        if (high > used)
                mark = (size_t)(clamp(high) / 100 * (double)cells + 0.5);
        if (mark != SIZE_MAX && mark)
                mark--;
        append(&ret, glyphs->left);
        for (size_t i = 0; i < cells; i++) {
                size_t parts = filled > i * glyphs->parts ? filled - i * glyphs->parts : 0;

                if (parts)
                        append(&ret, glyphs->filled[(parts < glyphs->parts ? parts : glyphs->parts) - 1]);
                else
                        append(&ret, i == mark ? glyphs->mark : glyphs->empty);
        }
        append(&ret, glyphs->right);
}
