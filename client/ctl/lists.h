/* Lists that the daemon keeps, as verbs show them and as operands name what is in them. */
#ifndef DMAB_CTL_LISTS_H
#define DMAB_CTL_LISTS_H

#include "client/ctl/ctl.h"
#include "client/ctl/show.h"

struct list {
        const char *method;             /* "pool.list" */
        const char *items;              /* "pools": the member that is the list */
        const char *handle;             /* "pool": the member of its elements that is their number */
        const char *name, *called;      /* the member that they may be named by, and how that is said: "pool named" */
        const struct show_column *columns;
        size_t n_columns;
        void (*add)(json_t *row); /* adds what columns show and the daemon does not tell; NULL: nothing */
};

/* What the options --owner and --device ask for. Releases params when it fails. */
enum ctl_status lists_filter(struct ctl *ctl, json_t *params);

/* Get the list, all pages of it, and print it. params is consumed. */
enum ctl_status lists_show(struct ctl *ctl, const struct list *list, json_t *params);

/* The number of an element that is given by number or, if those have names, by name. CTL_FAILURE after complaining when
 * there is none, or more than one. */
enum ctl_status lists_resolve(struct ctl *ctl, const struct list *list, const char *text, uint64_t *ret);

/* Print a result, which is released: a member of it that is a list, or NULL for its members one by one. */
enum ctl_status lists_print(const struct ctl *ctl, json_t *result, const char *member, const struct show_column *columns,
                            size_t n_columns);

/* When the last call was refused, and the error has a list of what is in the way, print it, unless --json has already. */
void lists_print_refusal(const struct ctl *ctl, const char *member, const struct show_column *columns, size_t n_columns);

/* Tables of pools and bounce pools that have their statistics in columns, for the verb stats; the rows are result's. */
extern const struct list list_pool_stats, list_bounce_stats;

#endif
