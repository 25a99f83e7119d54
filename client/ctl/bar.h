/* Bars that show how much of something is in use, and how much has ever been. */
#ifndef DMAB_CTL_BAR_H
#define DMAB_CTL_BAR_H

#include <stdbool.h>
#include <stddef.h>

enum { BAR_WIDTH_MOST = 60, BAR_SIZE = BAR_WIDTH_MOST * 3 + 1 };

/* Can this terminal's locale show block elements? Asks the locale that main() has set. */
bool bar_unicode(void);

/* A bar that takes `width` columns, at most BAR_WIDTH_MOST and at least 3, its ends included. used and high are percents;
 * the mark of the high one is left out where the bar reaches it. ret has room for 3 * width + 1
 * bytes. */
void bar_draw(double used, double high, size_t width, bool unicode, char *ret);

#endif
