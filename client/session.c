#include "client/session.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "client/address.h"
#include "client/agent.h"
#include "client/error.h"
#include "client/fork.h"
#include "client/pool.h"
#include "client/streaming.h"
#include "client/window.h"
#include "config.h"

enum { RECONNECT_MS = 30000 };

/* A handle is the property of the process that made it. Counting forks costs nothing per call; asking for the process's
 * id would be a system call each time. */
int session_check(const struct dmab *dmab) {
        if (!dmab)
                return error_set(EINVAL, "the handle of the session is NULL");
        if (dmab->forks != fork_count())
                return error_set(EINVAL, "this handle is the parent process's, from before fork(); connect again");
        return 0;
}

void session_lost(struct dmab *dmab) {
        struct error_state *saved;

        if (__atomic_exchange_n(&dmab->lost, true, __ATOMIC_RELAXED))
                return;
        saved = error_save();
        pools_session_lost(dmab);
        regions_session_lost(dmab);
        error_restore(saved);
}

static void link_is_lost(void *userdata) {
        session_lost(userdata);
}

static int link_wants_windows(void *userdata) {
        return windows_look(userdata);
}

static int link_distrusts_windows(void *userdata) {
        return windows_check(userdata);
}

int session_copy_struct(void *known, size_t known_size, const void *given, const char *what) {
        const unsigned char *bytes = given;
        size_t size;

        memcpy(&size, given, sizeof(size));
        if (size < sizeof(size) || size > 4096)
                return error_set(EINVAL,
                                 "struct_size of %s is %zu; set it to sizeof(the structure), best with its _INIT macro",
                                 what, size);
        for (size_t i = known_size; i < size; i++)
                if (bytes[i])
                        return error_set(
                                E2BIG, "%s asks for something that libdmabroker %s does not know yet; use a later one",
                                what, VERSION);
        memcpy(known, given, size < known_size ? size : known_size);
        return 0;
}

/* As long as the daemon keeps the session, unless it is configured otherwise. */
static int parse_reconnect(unsigned *ret_ms) {
        const char *text = secure_getenv("DMABROKER_RECONNECT_MS");
        unsigned long long value = RECONNECT_MS;
        char *end;

        if (text && *text) {
                errno = 0;
                value = strtoull(text, &end, 10);
                if (errno || *end || *text < '0' || *text > '9' || value > UINT_MAX)
                        return error_set(EINVAL, "DMABROKER_RECONNECT_MS must be a number of milliseconds, not \"%s\"",
                                         text);
        }
        *ret_ms = (unsigned)value;
        return 0;
}

int dmab_connect(const char *uri, dmab_t **ret) {
        static const struct link_events events = {
                .over = link_is_lost, .unbound = link_wants_windows, .distrusted = link_distrusts_windows,
        };
        struct dmab *dmab;
        struct address address = { 0 };
        unsigned reconnect_ms = 0;
        int r;

        fork_begin();
        r = parse_reconnect(&reconnect_ms);
        if (!r)
                r = address_parse(uri, &address);
        if (r)
                return r;
        dmab = calloc(1, sizeof(*dmab));
        if (dmab) {
                pthread_mutex_init(&dmab->lock, NULL);
                pthread_mutex_init(&dmab->pools_lock, NULL);
                r = link_open(&address, reconnect_ms, &events, dmab, &dmab->link);
        } else {
                r = error_set(ENOMEM, "there is not enough memory");
        }
        free(address.path);
        if (r) {
                free(dmab);
                return r;
        }
        dmab->forks = fork_count();
        *ret = dmab;
        return 0;
}

void dmab_disconnect(dmab_t *dmab) {
        if (!dmab)
                return;
        if (dmab->forks == fork_count()) {
                pools_report(dmab, NULL, "at the end of the session");
                for (const struct dmab_device *device = dmab->devices; device; device = device->next)
                        streaming_report(device, "at the end of the session");
                link_hurry(dmab->link);
                agent_stop(dmab->agent);
                dmab->agent = NULL;
                link_close(dmab->link);
        } else {
                /* Another thread of the parent may have held a lock at the fork; in the child nobody does. */
                pthread_mutex_init(&dmab->lock, NULL);
                pools_disown(dmab);
                agent_abandon(dmab->agent);
                dmab->agent = NULL;
                link_abandon(dmab->link);
        }
        pools_forget(dmab, NULL);
        coherent_forget(dmab, NULL);
        while (dmab->devices)
                device_forget(dmab->devices);
        grants_forget(dmab);
        coherent_deinit(dmab);
        slabs_deinit(dmab);
        regions_deinit(dmab);
        memory_deinit(&dmab->memory);
        pthread_mutex_destroy(&dmab->pools_lock);
        pthread_mutex_destroy(&dmab->lock);
        free(dmab);
}

int dmab_set_reconnect_timeout(dmab_t *dmab, unsigned timeout_ms) {
        int r = session_check(dmab);

        if (!r)
                link_set_timeout(dmab->link, timeout_ms);
        return r;
}

const char *dmab_owner(const dmab_t *dmab) {
        return link_owner(dmab->link);
}

const char *dmab_role(const dmab_t *dmab) {
        return link_role(dmab->link);
}

const char *dmab_server_version(const dmab_t *dmab) {
        return link_server_version(dmab->link);
}

const char *dmab_version(void) {
        return VERSION;
}
