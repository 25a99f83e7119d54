/* What every bench shares: a clock, medians and percentiles, and the lines of one table:
 *
 *   P5 | what | peer | peer's figure | ours | ratio | target | met?
 *
 * A peer that is not there has NAN for a figure and is printed as "missing"; a ratio then has no value either. */
#ifndef DMAB_TESTS_BENCH_TABLE_H
#define DMAB_TESTS_BENCH_TABLE_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

enum table_met {
        TABLE_UNKNOWN, /* printed as "?": what it would be compared with is missing */
        TABLE_NOT_MET,
        TABLE_MET,
};

struct table_row {
        const char *id, *what; /* "P5", "mean at 50% occupancy" */
        const char *peer;      /* NULL: the figure has no peer, which is not the same as a peer that is missing */
        double peer_figure, ours;
        const char *unit;      /* "ns", "%", "MiB"; "" for a count */
        const char *target;    /* in words: "<= 0.15x"; NULL: it explains other lines */
        enum table_met met;
};

/* One line to standard output, flushed. The ratio is ours / the peer's. */
void table_print(const struct table_row *row);

/* Whether ours is at most `most` times the peer's: TABLE_UNKNOWN when the peer is missing. */
enum table_met table_met_ratio(double ours, double peer_figure, double most);

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t table_now(void);

/* Both sort the values in place. n must not be 0; share is between 0 and 1. */
double table_median(double *values, size_t n);
double table_percentile(double *values, size_t n, double share);

#endif
