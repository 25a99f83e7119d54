/* Who is at the other end: of a UNIX socket, as the kernel says; of a guest's channel, the guest that it was made for. Nothing
 * that a peer sends can change it. */
#ifndef DMAB_RPC_IDENTITY_H
#define DMAB_RPC_IDENTITY_H

#include <stdbool.h>
#include <sys/types.h>

#include "daemon/core/failure.h"

/* Who may connect, and as what. */
struct identity_rules {
        bool everyone; /* may connect */
        bool has_group, has_admin_group; /* the groups exist */
        gid_t group, admin_group;
        char group_name[64], admin_group_name[64];
};

struct identity {
        pid_t pid;
        uid_t uid;
        gid_t gid;
        bool admin, guest;
        char owner[64]; /* user:UID, or the guest's */
};

/* Looks the groups up, which may ask a name service and thus block: for the start and a reload. */
void identity_rules_init(struct identity_rules *ret, bool everyone, const char *group, const char *admin_group);

/* 0; not_permitted with a sentence that says what to do (*ret is filled then too); -errno of the socket. */
int identity_of_socket(int fd, const struct identity_rules *rules, struct identity *ret, struct failure *failure);

#endif
