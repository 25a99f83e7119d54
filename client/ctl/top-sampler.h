/* A thread that asks the daemon at intervals, so that whoever shows the answers never waits for it. A daemon that goes away is
 * told, and tried again at every interval. */
#ifndef DMAB_CTL_TOP_SAMPLER_H
#define DMAB_CTL_TOP_SAMPLER_H

#include <jansson.h>

#include "include/dmabroker.h"

struct top_sampler;

/* uri is borrowed until the end; dmab is consumed, also on failure. -errno. */
int top_sampler_start(const char *uri, dmab_t *dmab, unsigned interval_ms, struct top_sampler **ret);

/* End it and disconnect. A thread that the daemon keeps waiting is left behind: the process should then end soon. */
void top_sampler_end(struct top_sampler *sampler);

/* Readable when there is something to take. */
int top_sampler_fd(const struct top_sampler *sampler);

/* What has come since the last time: a refresh that the caller releases, or NULL and why there is none, a sentence that
 * the caller frees. Both NULL: nothing. */
void top_sampler_take(struct top_sampler *sampler, json_t **ret_refresh, char **ret_failure);

/* From now on; the next refresh is asked for at once. */
void top_sampler_set_interval(struct top_sampler *sampler, unsigned interval_ms);

#endif
