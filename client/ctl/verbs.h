/* Every verb of dmabrokerctl. */
#ifndef DMAB_CTL_VERBS_H
#define DMAB_CTL_VERBS_H

#include "client/ctl/ctl.h"

extern const struct ctl_verb verb_status, verb_version;
extern const struct ctl_verb verb_devices, verb_regions, verb_allocs;
extern const struct ctl_verb verb_guests, verb_windows, verb_grants, verb_attach, verb_detach, verb_exchange;
extern const struct ctl_verb verb_pools, verb_bounces, verb_mappings, verb_leases;
extern const struct ctl_verb verb_quota, verb_stats, verb_top, verb_map, verb_check, verb_watch;
extern const struct ctl_verb verb_swap, verb_release, verb_quarantine;
extern const struct ctl_verb verb_alloc, verb_free, verb_call, verb_bench, verb_help;

/* In the order of the manual; ends with NULL. */
extern const struct ctl_verb *const ctl_verbs[];

/* Options that every verb has; ends with a NULL name. */
extern const struct ctl_option ctl_common_options[];

/* The verb with that name, or NULL. */
const struct ctl_verb *ctl_verb_find(const char *name);

/* Help, on stdout: all verbs, one verb. */
void ctl_help(void);
void ctl_help_verb(const struct ctl_verb *verb);
/* Help on a method of the protocol; false when there is none with that name. */
bool ctl_help_method(const char *name);

#endif
