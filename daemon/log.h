/* What the daemon tells its administrator. One message is one line on standard error, or one entry in the journal with
 * fields of its own. Whoever decides what happens logs it, once: what failed, on what, why. Any thread may log. */
#ifndef DMAB_DAEMON_LOG_H
#define DMAB_DAEMON_LOG_H

#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

extern const char *const log_level_names[]; /* ends with NULL */

/* journal: whether to use the journal rather than standard error; log_stderr_is_journal() is the usual answer. */
void log_configure(enum log_level level, bool journal);
bool log_stderr_is_journal(void);

/* For the journal; standard error shows the message only. */
struct log_field {
        const char *name; /* upper case, e.g. "DMABROKER_OWNER"; NULL ends a list */
        const char *value;
};

void log_fields(enum log_level level, const struct log_field *fields, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

#define log_error(...) log_fields(LOG_LEVEL_ERROR, (const struct log_field *)0, __VA_ARGS__)
#define log_warning(...) log_fields(LOG_LEVEL_WARNING, (const struct log_field *)0, __VA_ARGS__)
#define log_info(...) log_fields(LOG_LEVEL_INFO, (const struct log_field *)0, __VA_ARGS__)
#define log_debug(...) log_fields(LOG_LEVEL_DEBUG, (const struct log_field *)0, __VA_ARGS__)

#endif
