#include "tests/bench/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void table_print(const struct table_row *row) {
        static const char *const met[] = { [TABLE_UNKNOWN] = "?", [TABLE_NOT_MET] = "no", [TABLE_MET] = "yes" };
        char figure[48] = "-", ratio[32] = "-";

        if (row->peer && isnan(row->peer_figure))
                snprintf(figure, sizeof(figure), "missing");
        else if (row->peer)
                snprintf(figure, sizeof(figure), "%.4g %s", row->peer_figure, row->unit);
        if (row->peer && !isnan(row->peer_figure) && row->peer_figure > 0)
                snprintf(ratio, sizeof(ratio), "%.3fx", row->ours / row->peer_figure);
        printf("%s | %s | %s | %s | %.4g %s | %s | %s | %s\n", row->id, row->what, row->peer ? row->peer : "-", figure,
               row->ours, row->unit, ratio, row->target ? row->target : "-",
               row->target ? met[row->met] : "-");
        fflush(stdout);
}

enum table_met table_met_ratio(double ours, double peer_figure, double most) {
        if (isnan(peer_figure))
                return TABLE_UNKNOWN;
        return ours <= most * peer_figure ? TABLE_MET : TABLE_NOT_MET;
}

uint64_t table_now(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int compare(const void *a, const void *b) {
        double left = *(const double *)a, right = *(const double *)b;

        return (left > right) - (left < right);
}

double table_percentile(double *values, size_t n, double share) {
        qsort(values, n, sizeof(*values), compare);
        return values[(size_t)(share * (double)(n - 1) + 0.5)];
}

double table_median(double *values, size_t n) {
        return table_percentile(values, n, 0.5);
}
