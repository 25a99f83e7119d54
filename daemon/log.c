#include <config.h>

#include "daemon/log.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#ifdef HAVE_SYSTEMD
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>
#endif

const char *const log_level_names[] = { "error", "warning", "info", "debug", NULL };

static enum log_level log_level = LOG_LEVEL_INFO;
#ifdef HAVE_SYSTEMD
static bool log_journal;
#endif

void log_configure(enum log_level level, bool journal) {
        log_level = level;
#ifdef HAVE_SYSTEMD
        log_journal = journal;
#endif
}

bool log_stderr_is_journal(void) {
#ifdef HAVE_SYSTEMD
        const char *stream = getenv("JOURNAL_STREAM");
        unsigned long long device, inode;
        struct stat status;

        return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &status) == 0 &&
               status.st_dev == device && status.st_ino == inode;
#else
        return false;
#endif
}

enum { TEXT_MAX = 2048, FIELDS_MAX = 8 };

#ifdef HAVE_SYSTEMD
static bool send_to_journal(enum log_level level, const struct log_field *fields, const char *text) {
        static const char *const priorities[] = { "PRIORITY=3", "PRIORITY=4", "PRIORITY=6", "PRIORITY=7" };
        char lines[FIELDS_MAX][256], message[TEXT_MAX + 16];
        struct iovec parts[FIELDS_MAX + 3];
        int n = 0;

        snprintf(message, sizeof(message), "MESSAGE=%s", text);
        parts[n++] = (struct iovec){ message, strlen(message) };
        parts[n++] = (struct iovec){ (void *)priorities[level], strlen(priorities[level]) };
        parts[n++] = (struct iovec){ (void *)"SYSLOG_IDENTIFIER=dmabrokerd", strlen("SYSLOG_IDENTIFIER=dmabrokerd") };
        for (int i = 0; fields && fields[i].name && i < FIELDS_MAX; i++) {
                snprintf(lines[i], sizeof(lines[i]), "%s=%s", fields[i].name, fields[i].value);
                parts[n++] = (struct iovec){ lines[i], strlen(lines[i]) };
        }
        return sd_journal_sendv(parts, n) == 0;
}
#endif

void log_fields(enum log_level level, const struct log_field *fields, const char *format, ...) {
        char text[TEXT_MAX], line[TEXT_MAX + 64];
        va_list arguments;
        ssize_t written;
        int n;

        if (level > log_level)
                return;
        va_start(arguments, format);
        vsnprintf(text, sizeof(text), format, arguments);
        va_end(arguments);
        /* What comes from a peer must not be able to forge a line. */
        for (char *at = text; *at; at++)
                if ((unsigned char)*at < ' ' || *at == 0x7f)
                        *at = '?';
#ifdef HAVE_SYSTEMD
        if (log_journal && send_to_journal(level, fields, text))
                return;
#endif
        n = snprintf(line, sizeof(line), "dmabrokerd: %s: %s\n", log_level_names[level], text);
        /* One write, so that the lines of several threads do not mix; there is nobody to tell when it fails. */
        written = write(STDERR_FILENO, line, (size_t)n);
        (void)written;
}
