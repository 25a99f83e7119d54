/* The host's own measure of memory pressure: the kernel's pressure stall information. A trigger on /proc/pressure/memory
 * tells when some task has had to wait for memory for longer than a threshold within a window; as long as it does so, the
 * host is short. Where the kernel has none, or does not allow it, that is said once, and nothing is ever told. */
#ifndef DMAB_DAEMON_PRESSURE_H
#define DMAB_DAEMON_PRESSURE_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct pressure;

struct pressure_settings {
        bool watch;
        uint64_t stall_ms, window_ms;
};

/* Called each time that the kernel tells of pressure, and once when it has not for two windows. */
typedef void (*pressure_fn)(void *userdata, bool is_short);

/* The settings may ask for nothing to be watched. -ENOMEM. */
int pressure_new(uv_loop_t *loop, const struct pressure_settings *settings, pressure_fn fn, void *userdata,
                 struct pressure **ret);
/* Other settings; the same ones change nothing. */
void pressure_set(struct pressure *pressure, const struct pressure_settings *settings);
/* Watch this descriptor, which is consumed, instead of the kernel's: whatever comes with priority is pressure. For tests. */
int pressure_watch_consume_fd(struct pressure *pressure, int fd);
bool pressure_is_watched(const struct pressure *pressure);
/* Closes what it has on the loop and frees it when that is done. NULL is fine. */
void pressure_close(struct pressure *pressure);

#endif
