#include "daemon/privileges.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

int privileges_drop(void) {
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
        const __u32 others = ~CAP_TO_MASK(CAP_SYS_ADMIN);
        struct __user_cap_data_struct *its = &data[CAP_TO_INDEX(CAP_SYS_ADMIN)];

        if (syscall(SYS_capget, &header, data) < 0)
                return -errno;
        if (!(its->permitted & ~others) && !(its->inheritable & ~others))
                return 0;
        its->effective &= others;
        its->permitted &= others;
        its->inheritable &= others;
        /* The kernel takes it out of the ambient set, too. */
        return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}
