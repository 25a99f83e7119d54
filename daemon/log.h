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

/* Messages that programs may wait for, by their MESSAGE_ID in the journal. These stay as they are from release to release;
 * dmabrokerd(8) lists them. */
#define LOG_ID_READY "35857b0fe9fb47b085f0578915c7dbd7"
#define LOG_ID_RELOADED "387923ef32df4e0480e4100cb9ee84ca"
#define LOG_ID_NOT_RELOADED "e526211aa6874ed296ec2cf2eda0283b"
#define LOG_ID_ENDING "5fb12d43945f4c0b9323556d74090c44"
#define LOG_ID_SERVES "8e718b018fcd4d5987d433be0d2556ff"
#define LOG_ID_CUT_OFF "6fa467357eac49dbb88e517f2d618646"
#define LOG_ID_ADMIN "6bdd9b00085f44aab88876a4795b6e14"

/* For the journal; standard error shows the message only. */
struct log_field {
        const char *name; /* upper case, e.g. "DMABROKER_OWNER"; NULL ends a list */
        const char *value; /* at most some 200 bytes are kept */
};

/* A list of fields that is only a LOG_ID_. */
#define LOG_ID(id) ((const struct log_field[]){ { "MESSAGE_ID", id }, { NULL, NULL } })

void log_fields(enum log_level level, const struct log_field *fields, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

#define log_error(...) log_fields(LOG_LEVEL_ERROR, (const struct log_field *)0, __VA_ARGS__)
#define log_warning(...) log_fields(LOG_LEVEL_WARNING, (const struct log_field *)0, __VA_ARGS__)
#define log_info(...) log_fields(LOG_LEVEL_INFO, (const struct log_field *)0, __VA_ARGS__)
#define log_debug(...) log_fields(LOG_LEVEL_DEBUG, (const struct log_field *)0, __VA_ARGS__)

#endif
