#include "daemon/rpc/identity.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static bool find_group(const char *name, gid_t *ret) {
        struct group *group;

        errno = 0;
        group = getgrnam(name);
        if (!group)
                return false;
        *ret = group->gr_gid;
        return true;
}

void identity_rules_init(struct identity_rules *ret, bool everyone, const char *group, const char *admin_group) {
        *ret = (struct identity_rules){ .everyone = everyone };
        snprintf(ret->group_name, sizeof(ret->group_name), "%s", group);
        snprintf(ret->admin_group_name, sizeof(ret->admin_group_name), "%s", admin_group);
        ret->has_group = find_group(group, &ret->group);
        ret->has_admin_group = find_group(admin_group, &ret->admin_group);
}

enum { GROUPS_USUAL = 64 };

/* Supplementary groups at the time of connect(). Old kernels do not tell; the primary group is known in any case. */
static int peer_groups(int fd, gid_t *usual, gid_t **ret_groups, size_t *ret_n) {
        socklen_t size = GROUPS_USUAL * sizeof(gid_t);
        gid_t *groups = usual;

        while (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0) {
                int error = errno;

                if (groups != usual)
                        free(groups);
                if (error == ENOPROTOOPT) {
                        *ret_groups = usual;
                        *ret_n = 0;
                        return 0;
                }
                if (error != ERANGE)
                        return -error;
                groups = malloc(size);
                if (!groups)
                        return -ENOMEM;
        }
        *ret_groups = groups;
        *ret_n = size / sizeof(gid_t);
        return 0;
}

static bool is_member(gid_t group, gid_t primary, const gid_t *groups, size_t n) {
        if (group == primary)
                return true;
        for (size_t i = 0; i < n; i++)
                if (groups[i] == group)
                        return true;
        return false;
}

static int refuse(const struct identity_rules *rules, const struct identity *identity, struct failure *failure) {
        failure_set(failure, REASON_not_permitted,
                    "%s may not connect: add the user to the group %s%s, or set access = everyone in [daemon] of the "
                    "configuration", identity->owner, rules->group_name, rules->has_group ? "" : " (create it first)");
        failure_add_text(failure, "owner", identity->owner);
        return failure ? -failure->error : -EPERM;
}

int identity_of_socket(int fd, const struct identity_rules *rules, struct identity *ret, struct failure *failure) {
        struct ucred peer;
        socklen_t size = sizeof(peer);
        gid_t usual[GROUPS_USUAL], *groups;
        struct identity identity;
        bool member;
        size_t n;
        int r;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
                return failure_set_errno(failure, REASON_not_permitted, errno, "the kernel does not say who connects");
        r = peer_groups(fd, usual, &groups, &n);
        if (r < 0)
                return failure_set_errno(failure, REASON_not_permitted, -r, "the kernel does not say who connects");
        identity = (struct identity){ .pid = peer.pid, .uid = peer.uid, .gid = peer.gid };
        snprintf(identity.owner, sizeof(identity.owner), "user:%lu", (unsigned long)peer.uid);
        identity.admin = peer.uid == 0 || peer.uid == geteuid() ||
                         (rules->has_admin_group && is_member(rules->admin_group, peer.gid, groups, n));
        member = rules->has_group && is_member(rules->group, peer.gid, groups, n);
        if (groups != usual)
                free(groups);
        *ret = identity;
        return identity.admin || rules->everyone || member ? 0 : refuse(rules, &identity, failure);
}
