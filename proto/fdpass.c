#include "proto/fdpass.h"

#include <errno.h>
#include <stdalign.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct control {
        alignas(struct cmsghdr) char bytes[CMSG_SPACE(FDPASS_MAX * sizeof(int))];
};

ssize_t fdpass_send(int socket, const struct iovec *pieces, size_t n_pieces, const int *fds, size_t n_fds) {
        struct control control;
        struct msghdr message = { .msg_iov = (struct iovec *)pieces, .msg_iovlen = n_pieces };
        struct cmsghdr *header;
        ssize_t n;

        if (!n_pieces || n_fds > FDPASS_MAX)
                return -EINVAL;
        if (n_fds) {
                memset(&control, 0, sizeof(control));
                message.msg_control = control.bytes;
                message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                header = CMSG_FIRSTHDR(&message);
                header->cmsg_level = SOL_SOCKET;
                header->cmsg_type = SCM_RIGHTS;
                header->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
                memcpy(CMSG_DATA(header), fds, n_fds * sizeof(int));
        }
        do
                n = sendmsg(socket, &message, MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        /* Without a byte the descriptors did not travel, and the caller would wait for room that is there. */
        return n ? n : -EINVAL;
}

static ssize_t receive(int socket, void *buffer, size_t size, struct msghdr *message) {
        struct iovec piece = { .iov_base = buffer, .iov_len = size };
        ssize_t n;

        message->msg_iov = &piece;
        message->msg_iovlen = 1;
        do
                n = recvmsg(socket, message, MSG_CMSG_CLOEXEC);
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : n;
}

ssize_t fdpass_receive(int socket, void *buffer, size_t size, int ret_fds[FDPASS_MAX], size_t *ret_n_fds) {
        struct control control;
        struct msghdr message = { .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes) };
        int fds[FDPASS_MAX];
        size_t n_fds = 0;
        ssize_t n = receive(socket, buffer, size, &message);

        if (n < 0)
                return n;
        for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
                if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
                        continue;
                n_fds = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                memcpy(fds, CMSG_DATA(header), n_fds * sizeof(int));
        }
        if (message.msg_flags & MSG_CTRUNC) {
                for (size_t i = 0; i < n_fds; i++)
                        close(fds[i]);
                return -EPROTO;
        }
        memcpy(ret_fds, fds, n_fds * sizeof(int));
        *ret_n_fds = n_fds;
        return n;
}

ssize_t fdpass_receive_none(int socket, void *buffer, size_t size, bool *ret_refused) {
        struct msghdr message = { .msg_control = NULL };
        ssize_t n = receive(socket, buffer, size, &message);

        if (n >= 0)
                *ret_refused = message.msg_flags & MSG_CTRUNC;
        return n;
}
