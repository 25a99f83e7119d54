#include "daemon/rpc/principal.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

struct principal {
        UT_hash_handle hh; /* in server->principals by uid */
        uid_t uid;
        bool limited; /* by an administrator, to limit */
        uint64_t references, limit;
        size_t n_fds;
};

struct principal *principal_get(struct server *server, uid_t uid) {
        struct principal *principal;

        HASH_FIND(hh, server->principals, &uid, sizeof(uid), principal);
        if (!principal) {
                principal = calloc(1, sizeof(*principal));
                if (!principal)
                        return NULL;
                principal->uid = uid;
                HASH_ADD(hh, server->principals, uid, sizeof(uid), principal);
                if (!principal->hh.tbl) {
                        free(principal);
                        return NULL;
                }
        }
        principal->references++;
        return principal;
}

void principal_ref(struct principal *principal) {
        principal->references++;
}

void principal_unref(struct server *server, struct principal *principal) {
        if (!principal || --principal->references || principal->limited)
                return;
        HASH_DEL(server->principals, principal);
        free(principal);
}

uint64_t principal_connections(const struct principal *principal) {
        return principal->references;
}

void principal_add_fds(struct principal *principal, size_t n) {
        principal->n_fds += n;
}

void principal_remove_fds(struct principal *principal, size_t n) {
        principal->n_fds -= n;
}

size_t principal_fds(const struct principal *principal) {
        return principal->n_fds;
}

uint64_t principal_limit(const struct server *server, const struct principal *principal) {
        if (principal->limited)
                return principal->limit;
        return server->settings.connections_of(server->settings.userdata, principal->uid);
}

int principal_set_limit(struct server *server, const char *owner, uint64_t limit) {
        struct principal *principal;
        unsigned long uid;

        if (sscanf(owner, "user:%lu", &uid) != 1)
                return 0;
        principal = principal_get(server, (uid_t)uid);
        if (!principal)
                return -ENOMEM;
        principal->limited = true;
        principal->limit = limit;
        principal_unref(server, principal);
        return 0;
}

void principal_free_all(struct server *server) {
        struct principal *principal, *next;

        HASH_ITER(hh, server->principals, principal, next) {
                HASH_DEL(server->principals, principal);
                free(principal);
        }
}
