/* What "dmabrokerctl top" shows: what the daemon tells at two moments, as tables with rates. */
#ifndef DMAB_CTL_TOP_VIEWS_H
#define DMAB_CTL_TOP_VIEWS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "client/ctl/show.h"
#include "include/dmabroker.h"

enum { TOP_VIEWS = 6 };

struct top_view {
        const char *name; /* also the member of a refresh that has its rows */
        const char *doc;  /* a phrase */
        const char *key;  /* the member of a row that tells it from the others */
        const struct show_column *columns;
        size_t n_columns;
        size_t sort; /* the column to sort by unless told otherwise */
};

extern const struct top_view top_views[TOP_VIEWS];

/* The place of a view with that name, or TOP_VIEWS. */
size_t top_view_find(const char *name);
/* The place of a column with that title, in any case, or n_columns. */
size_t top_column_find(const struct top_view *view, const char *title);

/* Ask the daemon for everything. *ret is for top_refresh(). -errno as dmab_call(). */
int top_sample(dmab_t *dmab, json_t **ret);

/* Make a refresh of a sample, which is released: the object that --json prints, with each view's rows. Rates and marks are
 * told by comparison with `before`, an earlier refresh or NULL. Never changed afterwards, so that other threads may read
 * it. */
json_t *top_refresh(json_t *sample, json_t *before);

/* A view's rows in the order of a column: numbers from the largest, text from A; or reversed. The caller releases it. */
json_t *top_sort(json_t *refresh, const struct top_view *view, size_t column, bool reversed);

#endif
