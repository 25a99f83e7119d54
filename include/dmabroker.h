/* libdmabroker: machine-contiguous memory that a device can reach, from the daemon dmabrokerd(8).
 *
 * Conventions
 *
 *  - Every function that can fail returns 0 or a negative errno value; outputs (`ret_*`) are set only on success.
 *    dmab_last_error() then has a sentence that a person can act on, for the calling thread.
 *  - Sizes, alignments, boundaries and offsets are bytes; times are milliseconds.
 *  - Addresses and masks are 64 bits wide. A mask is the highest address that a device can put on the bus:
 *    DMAB_MASK(32) is 0xffffffff.
 *  - Thread-safety: any number of threads may use one dmab_t and the devices opened through it, at the same time. Only
 *    what ends an object (dmab_disconnect(), a successful dmab_device_close()) must not race with its other uses.
 *    No function is a cancellation point, and none may be called from a signal handler.
 *  - Connection: a lost connection is made again by itself, also to a daemon that was restarted, and the session (what it
 *    had opened and allocated) goes on. The memory stays mapped and valid meanwhile; calls wait, see
 *    dmab_set_reconnect_timeout(). When the daemon no longer knows the session, every call answers -ESTALE with the reason
 *    gone: disconnect and connect again. A program that makes no call keeps its session over a restart as long as it lives.
 *  - fork(): the child must not use the parent's handles; its calls answer -EINVAL. Memory that was mapped before the
 *    fork is shared between both, but for what Xen has granted to a guest, which the child has not. The child may call
 *    dmab_disconnect(), which then releases the child's copies only. exec() closes every descriptor of the library.
 *  - Structures whose first member is `struct_size` must have it set to sizeof(the structure), best by the initializer
 *    next to them; later versions add members at the end without breaking programs that are built already. */
#ifndef DMABROKER_H
#define DMABROKER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* One session with a daemon. */
typedef struct dmab dmab_t;

/* One device that does DMA, opened in a session. */
typedef struct dmab_device dmab_device_t;

/* The address that a device must be given: an address on its own bus, not a pointer. */
typedef uint64_t dmab_addr_t;

/* An address that is not known or not told; no allocation ever has it. */
#define DMAB_ADDR_NONE UINT64_MAX

/* The mask of a device with `bits` address lines, 1 to 64 (the kernel's DMA_BIT_MASK). */
#define DMAB_MASK(bits) ((bits) >= 64 ? UINT64_MAX : (UINT64_C(1) << (bits)) - 1)

/* The release of the library, e.g. "0.1.0". Never freed. */
const char *dmab_version(void);

/* ---- sessions ---------------------------------------------------------------------------------------------------- */

/* Connect to a daemon and open a session.
 *
 * uri is
 *  - `unix:PATH` for the socket PATH;
 *  - `virtio:` inside a guest of KVM, for the daemon of its host: by the virtio port
 *    /dev/virtio-ports/org.dmabroker.0, or `virtio:PATH` by another one. One session of one process at a time can
 *    have a port. The memory lies in windows, which are PCI devices that the host plugs into the guest (ivshmem); to
 *    find and map them, the process must be root or have been given their `enable` and `resource2` in
 *    /sys/bus/pci/devices. dma addresses are those of the guest: what a device in it must be given. No file
 *    descriptors come from the host;
 *  - `xen:` inside a guest of Xen's, for the daemon of its dom0, likewise: xenstore shows the way (dmabroker/vchan, or
 *    `xen:PATH` another one), and the windows are granted to the guest. The process must be root or have been given
 *    /dev/xen/xenbus, /dev/xen/evtchn and /dev/xen/gntdev. dma addresses are those of the machine for every device of a
 *    paravirtualised guest, and for one that is not called by a PCI address in any other;
 *  - `auto:`, NULL or "" for the socket that the environment variable DMABROKER_SOCKET names, else
 *    /run/dmabroker/dmabroker.sock if it is there, else the virtio port if that is there, else `xen:` if a daemon in dom0
 *    knows this guest.
 * The caller ends *ret with dmab_disconnect().
 *
 * -ENOENT, -ECONNREFUSED: no daemon listens there, or nobody is at the host's end of the port; -EACCES: the socket or port is not
 * for this user; -EBUSY: another process has the port, or another session of this one; -ENOTSOCK: the path is
 * something else; -EPROTO: whoever listens does not speak this protocol; -ETIMEDOUT: it does not answer;
 * -EINVAL: the URI, or the number in DMABROKER_RECONNECT_MS, is not understood; -ENAMETOOLONG, -ENOMEM, -EMFILE. */
int dmab_connect(const char *uri, dmab_t **ret);

/* End the session: every device is closed, everything allocated in it is freed, and its memory is unmapped, so that
 * no pointer from it may be used afterwards. dmab is invalid when it returns. NULL is fine. Keeps the thread's last
 * error. */
void dmab_disconnect(dmab_t *dmab);

/* How long a lost connection is tried again, in milliseconds, from when a call finds it lost; 30,000 unless set here or by the
 * environment variable DMABROKER_RECONNECT_MS. Calls wait meanwhile; when it is over they fail, and each later one tries once.
 * 0: a call that finds the connection lost tries once, and a call that loses it answers -ECONNRESET. */
int dmab_set_reconnect_timeout(dmab_t *dmab, unsigned timeout_ms);

/* Call any method of the protocol (dmabroker-protocol(7), `dmabrokerctl help METHOD`).
 *
 * params_json is a JSON object, or NULL for no parameters. *ret_result_json is the result as JSON text on one line; the
 * caller frees it with free(). ret_result_json may be NULL when the result does not matter. File descriptors that come
 * with the result are closed; dmab_call_fds() keeps them. A method that takes something gets a `request_key` unless the
 * parameters have one, so that a lost connection never takes anything twice. broker.hello always resumes this session.
 * Notifications are not passed on.
 *
 * An error of the protocol comes back as its errno (-ENOSYS for an unknown method, -EINVAL for parameters of the wrong
 * form); dmab_last_error_json() has the whole error object. -EINVAL: params_json is no JSON object; -ECONNRESET, with the
 * reason gone: the connection was lost before the answer came, and it is not known whether the call was carried out;
 * -ESTALE with the reason gone: the daemon has forgotten the session, or what the call is about has ended; -ENOMEM.
 *
 * When the connection is lost before the answer comes, the call is made again on the next one: with its key if it takes
 * something; and if it gives something back by its number and nothing is there any more, then the first one did it, which is
 * success. Methods that this library does not know, broker.bye and pool.free are not made again: the latter names blocks by
 * their addresses, which another thread may have been given meanwhile. coherent.lookup tells who has one. */
int dmab_call(dmab_t *dmab, const char *method, const char *params_json, char **ret_result_json);

/* dmab_call() that also receives file descriptors: *ret_n_fds of them in ret_fds, which has room for max_fds. The
 * caller closes them (they are close-on-exec). -E2BIG: more came than there is room for; none is kept, but the call was
 * carried out. */
int dmab_call_fds(dmab_t *dmab, const char *method, const char *params_json, char **ret_result_json, int *ret_fds,
                  size_t max_fds, size_t *ret_n_fds);

/* Why the calling thread's last failed call failed, as a sentence; "" when none has failed. Valid until the thread's
 * next failing call; never freed. A call that succeeds does not change it. */
const char *dmab_last_error(void);

/* The daemon's error object of the calling thread's last failed call as JSON text: code, message and data with errno,
 * reason and the values that matter. NULL when the failure did not come from the daemon. Lives as long as
 * dmab_last_error(). */
const char *dmab_last_error_json(void);

/* The stable token for why the last failed call failed ("quota", "no_contiguous", "mask" …); NULL when the failure has
 * none. Lifetime as dmab_last_error(). */
const char *dmab_last_reason(void);

/* Who the daemon says this session belongs to, e.g. "user:1000", and its role: "admin", "local" or "guest". Never NULL;
 * valid until dmab_disconnect(). */
const char *dmab_owner(const dmab_t *dmab);
const char *dmab_role(const dmab_t *dmab);

/* The release of the daemon that the session was opened with; valid until dmab_disconnect(). */
const char *dmab_server_version(const dmab_t *dmab);

/* ---- devices ----------------------------------------------------------------------------------------------------- */

/* What a device is and can; 0 or NULL leaves a member to the daemon. Mirrors struct device_dma_parameters and the masks
 * of the kernel's struct device. */
struct dmab_device_options {
        size_t struct_size;
        const char *parent; /* the device above it; the nearest ancestor that does DMA itself does it for this one */
        uint64_t mask;      /* highest address that it can put on the bus; 0: all 64 bits */
        uint64_t coherent_mask;  /* highest address of coherent memory; 0: as mask */
        uint64_t boundary;       /* a power of two that no allocation may cross; 0: none */
        uint64_t max_segment;    /* bytes of the longest piece that the device takes at once; 0: no limit */
        uint64_t min_align_mask; /* address bits that must survive bouncing, e.g. 0xfff for NVMe; 0: none */
        int node;                /* preferred NUMA node; -1: none */
        unsigned timeout_ms;     /* how long DMAB_WAIT waits; 0: 10,000 */
};
#define DMAB_DEVICE_OPTIONS_INIT { .struct_size = sizeof(struct dmab_device_options), .node = -1 }

/* Open a device: a PCI address such as "0000:00:1f.6", or a name of the caller's choice for a virtual one. options may
 * be NULL. End *ret with dmab_device_close(); dmab_disconnect() does it otherwise.
 *
 * -EINVAL: a name, mask or boundary that is never acceptable; -ERANGE: the mask cannot be served; -ENODEV: the parent
 * does not exist; -EDQUOT: the owner's quota; -E2BIG: options of a later version with members that this one does not
 * know; and what dmab_call() answers. The same device may be open more than once. */
int dmab_device_open(dmab_t *dmab, const char *name, const struct dmab_device_options *options, dmab_device_t **ret);

/* Close a device that has nothing left. On success device is invalid. -EBUSY: it still has allocations; the sentence
 * says how many and names one, nothing has changed, and device stays open. -ESTALE: the daemon has forgotten the
 * session and with it the device, and -ECONNRESET with the reason gone: whether it was closed is not known; device is
 * invalid and its memory unmapped. On any other error device stays open. */
int dmab_device_close(dmab_device_t *device);

/* Close a device and free whatever it still has; pointers to its memory are invalid afterwards. Errors as
 * dmab_device_close(), except that -EBUSY does not happen. */
int dmab_device_close_force(dmab_device_t *device);

/* Set both masks of a device (the kernel's dma_set_mask_and_coherent()). What has been allocated stays where it is,
 * and so does what a pool has got already (in the kernel as well): make pools afterwards. dmab_alloc() keeps the new mask.
 * -ERANGE: no memory source can serve it, or it is not of the form 2^n-1; the masks are unchanged. */
int dmab_set_mask(dmab_device_t *device, uint64_t mask);

/* Could this mask be served? 1: yes, 0: no, else -errno (the kernel's dma_supported()). */
int dmab_supported(dmab_device_t *device, uint64_t mask);

/* Properties that never change while the device is open; valid until it is closed, never NULL. */
const char *dmab_device_name(const dmab_device_t *device);        /* as it was opened */
const char *dmab_device_translation(const dmab_device_t *device); /* "identity", "iommu", "grant" or "guest" */
const char *dmab_device_via(const dmab_device_t *device); /* the device that does the DMA: itself or an ancestor */
uint64_t dmab_device_handle(const dmab_device_t *device); /* its number in the protocol, for dmab_call() */

/* The device itself, where dmab_device_translation() is "iommu", or "identity" and VFIO does without an IOMMU: a descriptor of
 * VFIO's, by which it is driven (registers, interrupts, reset; see linux/vfio.h). The caller's to close, before the device.
 * What the device reaches is what this session has allocated and mapped for it, at the dma addresses that it was told; without
 * an IOMMU, everything. -EOPNOTSUPP: there is none, or the daemon is on the host of this guest. */
int dmab_device_fd(dmab_device_t *device, int *ret_fd);

/* Set memory aside that serves this device and nobody else (the kernel's restricted-dma-pool): size bytes below mask
 * (0: the device's coherent mask). Its allocations are then served from there. *ret_region is the number that
 * dmab_device_unreserve() takes; closing the device ends it too. -ENOMEM, -ERANGE, -EDQUOT and what dmab_call()
 * answers. */
int dmab_device_reserve(dmab_device_t *device, size_t size, uint64_t mask, uint64_t *ret_region);

/* Give it back. -EBUSY: there are allocations in it. -ENOENT: not one of this device's. */
int dmab_device_unreserve(dmab_device_t *device, uint64_t region);

/* ---- coherent memory --------------------------------------------------------------------------------------------- */

/* How hard to try, and what for. At most one of the first two; neither is DMAB_NOWAIT. */
enum {
        DMAB_NOWAIT = 1 << 0, /* fail at once with -ENOMEM (GFP_ATOMIC without the reserve) */
        DMAB_WAIT = 1 << 1,   /* wait for memory, up to the device's timeout: -ETIMEDOUT (GFP_KERNEL) */
        DMAB_HIGH = 1 << 2,   /* may use the emergency reserve (__GFP_HIGH) */
        DMAB_ZERO = 1 << 3,   /* filled with zeroes (__GFP_ZERO); else it may hold what the same owner left there */
        DMAB_SHAREABLE = 1 << 4, /* may be mapped for a second device */
};

/* Allocate machine-contiguous memory that the CPU and the device both see without any flushing (the kernel's
 * dma_alloc_coherent()). It is mapped read-write at *ret_vaddr; *ret_dma is what the device must be given.
 * size is rounded up to whole pages of 4 KiB. *ret_dma and *ret_vaddr are aligned to at least a page;
 * dmab_alloc_coherent_attrs() can ask for more. It never crosses the device's boundary and
 * lies below its coherent mask. Free it with dmab_free_coherent(); it ends with its device and its session otherwise.
 *
 * -ENOMEM: not enough free memory, or none in one piece (dmab_last_reason() tells them apart: no_memory,
 * no_contiguous); -ENODEV, -ENXIO, -EACCES with the reason source_unavailable: the window that it lies in cannot be used in this
 * guest, and the sentence says what to do; -ETIMEDOUT: DMAB_WAIT waited in vain; -EDQUOT: the owner's quota; -EINVAL:
 * size 0, flags that do not go together, or larger than the boundary; -E2BIG: more than this daemon ever gives;
 * -EOPNOTSUPP: a flag that is not possible here; and what dmab_call() answers. */
int dmab_alloc_coherent(dmab_device_t *device, size_t size, unsigned flags, void **ret_vaddr, dmab_addr_t *ret_dma);

/* What an allocation may ask for beyond what its device says. 0 leaves it to the device. */
struct dmab_coherent_attrs {
        size_t struct_size;
        uint64_t align;    /* of the dma address: a power of two; 0: a page */
        uint64_t boundary; /* a power of two that must not be crossed, in addition to the device's */
        uint64_t mask;     /* highest address, in addition to the device's coherent mask */
        unsigned wait_ms;  /* with DMAB_WAIT: how long; 0: the device's timeout */
};
#define DMAB_COHERENT_ATTRS_INIT { .struct_size = sizeof(struct dmab_coherent_attrs) }

/* dmab_alloc_coherent() with more to say (the kernel's dma_alloc_attrs()). attrs may be NULL. Errors are the same, and
 * -EINVAL for an alignment or boundary that is no power of two. */
int dmab_alloc_coherent_attrs(dmab_device_t *device, size_t size, unsigned flags,
                              const struct dmab_coherent_attrs *attrs, void **ret_vaddr, dmab_addr_t *ret_dma);

/* Move an allocation of dmab_alloc_coherent() to another device of the same session, with its contents: for memory that
 * the other device cannot reach, or that was not allocated with DMAB_SHAREABLE. It is allocated anew within that device's
 * constraints, copied by the daemon, and freed at its old place: vaddr and dma are then as after dmab_free_coherent().
 * The size stays. No device may use it meanwhile; what is written to it during the call may be lost. flags: DMAB_WAIT
 * (with the new device's timeout), DMAB_NOWAIT, DMAB_HIGH.
 *
 * Errors as dmab_alloc_coherent(), and as dmab_free_coherent() about size, vaddr and dma; -EXDEV also when `to` is of
 * another session; -EBUSY: it is mapped for a device. Nothing has changed then. Only when the moved memory cannot be
 * mapped here is it lost, and freed. */
int dmab_move_coherent(dmab_device_t *device, size_t size, void *vaddr, dmab_addr_t dma, dmab_device_t *to, unsigned flags,
                       void **ret_vaddr, dmab_addr_t *ret_dma);

/* What is in an allocation that was swapped out. */
typedef struct dmab_swapped dmab_swapped_t;

/* Move what is in an allocation of dmab_alloc_coherent() out to ordinary memory, and free its device memory (TTM's swapout of
 * device state to anonymous state): for what no device needs for a while. vaddr and dma are then as after dmab_free_coherent();
 * *ret stands for the contents, until it is swapped in or freed, or its device or session ends, with which it ends. The device
 * must not use the memory any more; what is written to it during the call may be lost.
 *
 * Errors as dmab_free_coherent() about size, vaddr and dma; -EBUSY: it is mapped for a device; -ENOMEM: there is no ordinary
 * memory for it; -EDQUOT; -E2BIG: the daemon can hold no more. Nothing has changed then. -ECONNRESET with the reason gone:
 * whether it was carried out is not known; *ret is set as if it had been, and the contents are there. As there, it is lost when
 * the daemon has forgotten it. */
int dmab_swap_out_coherent(dmab_device_t *device, size_t size, void *vaddr, dmab_addr_t dma, dmab_swapped_t **ret);

/* Move it back to its device's memory, at another address than before, but within the constraints of the device and of the attrs
 * that it was allocated with. swapped is not valid any more. flags: DMAB_WAIT, DMAB_NOWAIT, DMAB_HIGH.
 * Errors as dmab_alloc_coherent(), and -ECONNRESET with the reason gone: then it stays as it is, and can be asked for again;
 * -EFAULT: it is none that is swapped out; -EXDEV: it is another device's; -ESTALE, and what dmab_free_coherent() says of an
 * allocation that somebody else has freed: it is gone. */
int dmab_swap_in_coherent(dmab_device_t *device, dmab_swapped_t *swapped, unsigned flags, void **ret_vaddr,
                          dmab_addr_t *ret_dma);

/* Free it where it is. swapped is not valid any more. Errors as dmab_free_coherent() where it is not known any more, and -EFAULT
 * and -EXDEV as above. */
int dmab_free_swapped(dmab_device_t *device, dmab_swapped_t *swapped);

/* Free what dmab_alloc_coherent() gave (the kernel's dma_free_coherent(), with the checks of CONFIG_DMA_API_DEBUG).
 * Unmaps vaddr. The device must no longer use the memory.
 *
 * -EFAULT: vaddr is not (or no longer) an allocation of this session; -EXDEV: it is another device's; -EINVAL: size is
 * not the size that was asked for, or dma not its address: nothing has changed. -ESTALE: the daemon has forgotten the
 * session, and with it the memory; vaddr is unmapped. An answer with the reason double_free or unknown_handle: somebody
 * else, such as dmabrokerctl, has freed it; vaddr is unmapped. -ECONNRESET with the reason gone: whether it was freed is
 * not known; vaddr is unmapped, and what was not freed goes with the session. On any other error the memory stays allocated
 * and mapped. */
int dmab_free_coherent(dmab_device_t *device, size_t size, void *vaddr, dmab_addr_t dma);

/* Are the addresses of an allocation real? */
enum dmab_addressing {
        DMAB_ADDRESSING_MACHINE = 1,   /* addresses on the machine's bus */
        DMAB_ADDRESSING_SIMULATED = 2, /* made up by the simulation: no device can use them */
};

/* Are the addresses of the memory at vaddr, which may point anywhere into memory from dmab_alloc_coherent(), dmab_alloc() or a
 * pool? DMAB_ADDRESSING_MACHINE, DMAB_ADDRESSING_SIMULATED, or what dmab_dma_addr() answers. Makes no call to the daemon. */
int dmab_addressing(dmab_device_t *device, const void *vaddr);

/* Where an allocation is. */
struct dmab_coherent_info {
        size_t struct_size;
        uint64_t alloc;        /* its number in the protocol, for dmab_call() */
        uint64_t region;       /* the region it lies in */
        uint64_t offset;       /* bytes from the region's start */
        uint64_t size;         /* bytes, as rounded up */
        dmab_addr_t dma_addr;  /* what the device is given */
        uint64_t machine_addr; /* on the machine's bus; DMAB_ADDR_NONE when the daemon does not tell this client */
        enum dmab_addressing addressing;
};
#define DMAB_COHERENT_INFO_INIT { .struct_size = sizeof(struct dmab_coherent_info) }

/* Describe the allocation that starts at vaddr. Makes no call to the daemon. The caller sets ret->struct_size; the
 * members within it are filled. -EFAULT: vaddr is not the start of an allocation of this session; -EXDEV: it is another
 * device's; -EINVAL: struct_size is too small. */
int dmab_coherent_info(dmab_device_t *device, const void *vaddr, struct dmab_coherent_info *ret);

/* What is at an address of this process that the broker gave: the address that the device must be given for it (the
 * dma address of a pointer, like rte_malloc_virt2iova()). vaddr may point anywhere into memory from dmab_alloc_coherent(),
 * dmab_alloc() or a pool. Makes no call to the daemon.
 * -EFAULT: it is not memory from the broker; -EXDEV: it is another device's. */
int dmab_dma_addr(dmab_device_t *device, const void *vaddr, dmab_addr_t *ret_dma);

/* ---- memory of any size ------------------------------------------------------------------------------------------ */

/* Allocate size bytes for the device, aligned to a cache line of 64 bytes at least, and sharing none with any other block
 * (the kmalloc() of DMA). Small sizes come from pools that the library makes for the device, and mostly need no call to
 * the daemon; large ones are coherent allocations. Never crosses the device's boundary. Free it with dmab_free().
 * Errors as dmab_alloc_coherent(). */
int dmab_alloc(dmab_device_t *device, size_t size, unsigned flags, void **ret_vaddr, dmab_addr_t *ret_dma);

/* Free what dmab_alloc() gave, from any thread. -EFAULT: not the start of memory from dmab_alloc(), or freed already;
 * -EXDEV: another device's. Nothing has changed then. */
int dmab_free(dmab_device_t *device, void *vaddr);

/* ---- pools ------------------------------------------------------------------------------------------------------- */

/* Blocks of one size (the kernel's dma_pool, with a mempool's reserve). The library takes leases of blocks from the daemon
 * and hands them out without any system call; every thread keeps some at hand. */
typedef struct dmab_pool dmab_pool_t;

/* How the CPU's view of the memory is cached. */
enum dmab_caching {
        DMAB_CACHED = 0,      /* write-back: what there is */
        DMAB_WRITE_COMBINED = 1,
        DMAB_UNCACHED = 2,
};

struct dmab_pool_options {
        size_t struct_size;
        size_t reserve;            /* blocks that can always be had, whatever others take; 0: none */
        size_t max_blocks;         /* of all users of the pool together; 0: no limit but the quota */
        enum dmab_caching caching; /* -EOPNOTSUPP where it cannot be honoured */
        size_t thread_blocks;      /* blocks that a thread keeps at hand at most; 0: the library chooses */
};
#define DMAB_POOL_OPTIONS_INIT { .struct_size = sizeof(struct dmab_pool_options) }

/* Make a pool of blocks of size bytes, aligned to align (a power of two; 0: a cache line), none of which crosses a multiple of
 * boundary (a power of two; 0: the device's). The name is for people and need not be unique. options may be NULL.
 * It ends with dmab_pool_destroy(), with its device, or with the session.
 * -EINVAL: size 0, an alignment or boundary that is no power of two, a boundary below the size; -E2BIG: blocks larger
 * than a slab can hold; -ENOMEM: no memory for the reserve; -EOPNOTSUPP; -EDQUOT; and what dmab_call() answers. */
int dmab_pool_create(const char *name, dmab_device_t *device, size_t size, size_t align, size_t boundary,
                     const struct dmab_pool_options *options, dmab_pool_t **ret);

/* Use a pool that another process of the same owner has made, by its number (dmab_pool_handle()). The device is the caller's
 * own handle of the same device. dmab_pool_destroy() then only lets go of it. When the session that made it ends, the pool goes
 * on for as long as another one has blocks of it; only force takes them. -ENOENT: there is no such pool; -EXDEV: it is another
 * device's. */
int dmab_pool_open(dmab_device_t *device, uint64_t number, dmab_pool_t **ret);

/* Take a block (the kernel's dma_pool_alloc()). flags as for dmab_alloc_coherent(). With DMAB_WAIT threads are served in the
 * order in which they came. -ENOMEM; -E2BIG, reason limit: max_blocks are in use; -EAGAIN: others wait already; -ETIMEDOUT,
 * -EDQUOT, -EINVAL, -EOPNOTSUPP (DMAB_SHAREABLE). */
int dmab_pool_alloc(dmab_pool_t *pool, unsigned flags, void **ret_vaddr, dmab_addr_t *ret_dma);

/* Give it back, from any thread (the kernel's dma_pool_free(), with its checks).
 * -EFAULT: not a block of this pool, not the start of one, or not that block's dma address; -EINVAL with the reason
 * double_free: it is free already. Nothing has changed then. */
int dmab_pool_free(dmab_pool_t *pool, void *vaddr, dmab_addr_t dma);

/* n blocks at once: all of them or none. */
int dmab_pool_alloc_bulk(dmab_pool_t *pool, unsigned flags, size_t n, void **ret_vaddrs, dmab_addr_t *ret_dmas);
/* Gives n blocks back, or none when one of them is refused. Wrong addresses are refused at once. A block that is free already,
 * or twice in the list, is only found later, when the thread's blocks are looked through, and then told on standard error; with
 * DMAB_DEBUG it is refused at once. */
int dmab_pool_free_bulk(dmab_pool_t *pool, size_t n, void *const *vaddrs, const dmab_addr_t *dmas);

/* End the pool. -EBUSY: blocks are in use; the sentence says how many and names one, dmab_pool_visit_busy() tells all;
 * nothing has changed. No other thread may use the pool meanwhile. On success pool is invalid, and also after -ESTALE, and
 * -ECONNRESET with the reason gone. */
int dmab_pool_destroy(dmab_pool_t *pool);
/* The same, whatever is in use; pointers into it are invalid afterwards. */
int dmab_pool_destroy_force(dmab_pool_t *pool);

/* Call fn for every block of this session that is in use, until it returns something else than 0, which is then returned. */
int dmab_pool_visit_busy(dmab_pool_t *pool, int (*fn)(void *vaddr, dmab_addr_t dma, void *userdata), void *userdata);

/* Return to the daemon what is not in use, the blocks that threads keep at hand included, and have it give its idle memory
 * back. It comes again when it is needed. */
int dmab_pool_trim(dmab_pool_t *pool);

struct dmab_pool_info {
        size_t struct_size;
        uint64_t pool;        /* its number in the protocol */
        size_t block_size;    /* bytes, as rounded up */
        size_t used;          /* blocks that this process has been given and has not given back */
        size_t leased;        /* blocks that this process has leased: used, at hand of threads, and idle */
        size_t at_hand;       /* blocks that threads keep for their next allocations */
        size_t thread_blocks; /* the most that one thread keeps */
        size_t high_water;    /* of leased */
        uint64_t refills, flushes; /* how often a thread's blocks ran out, or over */
        uint64_t leases, recalls;  /* leases taken from the daemon so far, and times it asked for some back */
        uint64_t failures, waits;
};
#define DMAB_POOL_INFO_INIT { .struct_size = sizeof(struct dmab_pool_info) }

/* The caller sets ret->struct_size. Makes no call to the daemon; pool.stats tells the daemon's side. */
int dmab_pool_info(dmab_pool_t *pool, struct dmab_pool_info *ret);
uint64_t dmab_pool_handle(const dmab_pool_t *pool);

/* ---- streaming mappings ------------------------------------------------------------------------------------------ */

/* Who writes and who reads, as the kernel's enum dma_data_direction. */
enum dmab_direction {
        DMAB_BIDIRECTIONAL = 0,
        DMAB_TO_DEVICE = 1,
        DMAB_FROM_DEVICE = 2,
};

/* Make size bytes at buf, wherever they are, reachable for the device (the kernel's dma_map_single()). Memory from the broker
 * that this device can reach is mapped in place; anything else is copied through the device's bounce slots (SWIOTLB): to
 * the device now, from the device at dmab_unmap_single() or dmab_sync_single_for_cpu(). While it is mapped, buf belongs to
 * the device. Makes no system call unless the slots run out. The low bits of *ret_dma that the device's min_align_mask has
 * are those of buf. Bounce memory is taken with the first mapping that needs it, and grows as dmab_set_bounce() says.
 *
 * -EINVAL: buf NULL, size 0, no such direction; -EEXIST: it overlaps a mapping that is written to (DMAB_DEBUG only);
 * -ENOMEM: the slots are full and can grow no more (the sentence has the numbers); -E2BIG: longer than the device's
 * segments, its boundary, or all slots. *ret_dma is DMAB_ADDR_NONE on failure. */
int dmab_map_single(dmab_device_t *device, void *buf, size_t size, enum dmab_direction direction, dmab_addr_t *ret_dma);

/* End a mapping. -EFAULT: nothing is mapped at that address (any more); -EINVAL, with the reasons wrong_size and
 * wrong_direction: it was mapped otherwise; -EXDEV: another device's. Nothing has changed then. What is mapped in place leaves no
 * record unless DMAB_DEBUG is set, and is then only checked to be the device's memory. */
int dmab_unmap_single(dmab_device_t *device, dmab_addr_t dma, size_t size, enum dmab_direction direction);

/* Let the CPU see what the device wrote, or the device what the CPU wrote, while it stays mapped. [dma, dma+size) may be
 * a part of a mapping. -EFAULT: outside of every mapping; -EINVAL with wrong_direction: another direction than it was
 * mapped with, for the CPU of what goes to the device only, or for the device of what comes from it only. What was mapped
 * for both directions may be synced with any. */
int dmab_sync_single_for_cpu(dmab_device_t *device, dmab_addr_t dma, size_t size, enum dmab_direction direction);
int dmab_sync_single_for_device(dmab_device_t *device, dmab_addr_t dma, size_t size, enum dmab_direction direction);

/* One piece of a scatter list. */
struct dmab_sg {
        void *addr;  /* the caller's */
        size_t size; /* > 0 */
        dmab_addr_t dma_addr; /* set by dmab_map_sg() in the first *ret_n entries: what the device is given, pieces that */
        size_t dma_size;      /* ... lie one behind the other for the device merged into one */
};

/* Map all n pieces or none (the kernel's dma_map_sg()). The first *ret_n entries, at most n, have the device's list in
 * dma_addr and dma_size; pieces are merged where they are adjacent, within the device's max_segment and boundary.
 * Errors as dmab_map_single(); -EINVAL: n 0, a piece of size 0. */
int dmab_map_sg(dmab_device_t *device, struct dmab_sg *sg, size_t n, enum dmab_direction direction, size_t *ret_n);
/* n as it was given to dmab_map_sg(), not what it returned. */
int dmab_unmap_sg(dmab_device_t *device, struct dmab_sg *sg, size_t n, enum dmab_direction direction);
int dmab_sync_sg_for_cpu(dmab_device_t *device, struct dmab_sg *sg, size_t n, enum dmab_direction direction);
int dmab_sync_sg_for_device(dmab_device_t *device, struct dmab_sg *sg, size_t n, enum dmab_direction direction);

/* How much bounce memory the device has: size to begin with, max_size to grow to (bytes; 0: the library's choice, 1 MiB
 * and 64 MiB), slot_size (a power of two; 0: 2048). Before the first mapping that bounces; -EBUSY afterwards. */
int dmab_set_bounce(dmab_device_t *device, size_t size, size_t max_size, size_t slot_size);

struct dmab_bounce_info {
        size_t struct_size;
        size_t slot_size, slots, used; /* of this process; no slots before the first mapping that bounces */
        size_t high_water;             /* the most slots that were in use, added up over areas */
        size_t largest_free; /* slots of the largest free run */
        size_t areas;
        uint64_t mapped_in_place, bounced, bounced_bytes;
        uint64_t fulls; /* times that no run of slots was found */
        enum dmab_addressing addressing; /* of the slots; 0 while there are none */
};
#define DMAB_BOUNCE_INFO_INIT { .struct_size = sizeof(struct dmab_bounce_info) }
int dmab_bounce_info(dmab_device_t *device, struct dmab_bounce_info *ret);

/* ---- Xen --------------------------------------------------------------------------------------------------------- */

/* Pages of 4096 bytes whose references follow on each other: `count` from `first` on, in the grant table of `domain`. */
struct dmab_grant_run {
        uint32_t domain, first, count;
};

/* A grant, as it is at this moment. Strings and runs live for the call that they are told by; members may be added at its end. */
struct dmab_grant_info {
        uint64_t grant;     /* its number in the protocol */
        const char *owner;  /* who is charged for it */
        const char *guest;  /* its name in the configuration */
        uint32_t domain;    /* the number that Xen had given the guest */
        const char *kind;   /* "window", "map" or "share" */
        const char *state;  /* "granted", "revoking", "mapped", "shared" or "gone" */
        enum dmab_direction direction; /* where the side of dom0's is the device */
        uint64_t pages;     /* of 4096 bytes */
        uint64_t in_use;    /* pages that are mapped now, by the grant table; UINT64_MAX: nobody can read that */
        uint64_t age_ms;
        const struct dmab_grant_run *runs;
        size_t n_runs;
};

/* Pages that this process shares with a guest of Xen's. */
typedef struct dmab_grant dmab_grant_t;

struct dmab_grant_options {
        size_t struct_size;
        uint64_t notify; /* of dmab_grant_map(): where in the memory the byte is that the kernel sets to 0 when this process has
                          * it mapped no more, whatever it died of, so that the guest sees it; DMAB_NO_NOTIFY: nowhere */
};
#define DMAB_NO_NOTIFY UINT64_MAX
#define DMAB_GRANT_OPTIONS_INIT { .struct_size = sizeof(struct dmab_grant_options), .notify = DMAB_NO_NOTIFY }

/* In dom0: map n pages of 4096 bytes that the guest has granted to it, by their references in this order, as one piece. It is
 * called by its name or UUID in the daemon's configuration. DMAB_TO_DEVICE: only to be read; else to be written, too. The
 * mapping is this process's own, by /dev/xen/gntdev, which it must be allowed to open; the daemon has been asked before, lists
 * it, and charges its pages to the quota `grants`. options may be NULL. For administrators.
 *
 * When the guest ends, the memory stays and is nobody else's, and Xen keeps what is left of the guest until it is unmapped:
 * dmab_grant_visit() then tells the state "gone", as does the daemon's event `recall`. A child of fork() does not have it.
 *
 * -EOPNOTSUPP (unsupported): there is no Xen, or the guest is none of its; -ENOENT (unknown_guest); -ENODEV or another
 * (source_unavailable): it does not run, or gntdev maps nothing; -EFAULT (bad_address): it has not granted all of it;
 * -EDQUOT (quota); -EPERM (not_permitted); -E2BIG (limit): more than 32768 pages, or more than one message to this daemon has
 * room for. Any number of threads. Mirrors xengnttab_map_domain_grant_refs_notify(). */
int dmab_grant_map(dmab_t *dmab, const char *guest, const uint32_t *refs, size_t n, enum dmab_direction direction,
                   const struct dmab_grant_options *options, void **ret_vaddr, dmab_grant_t **ret);

/* In dom0: new pages of this host's, zero, granted to the guest: size bytes, rounded up to 4096. dmab_grant_runs() has the
 * references, by which the guest maps them from domain 0; how it is told them is up to the caller. DMAB_FROM_DEVICE: the guest
 * may only read. The pages are contiguous for the processor only, and no device is to be given their address. They are there
 * until the guest has them mapped no more either. The daemon has them as well until the session ends, so that the kernel cannot
 * tell the guest by them when this process dies, and notify is -EINVAL; a page that the guest grants and dmab_grant_map() maps
 * can have the byte for it. Errors: as dmab_grant_map(), but for bad_address; -E2BIG (limit) also: the kernel grants no more, see
 * the parameter `limit` of xen_gntalloc. Any number of threads. Mirrors xengntshr_share_pages(). */
int dmab_grant_share(dmab_t *dmab, const char *guest, size_t size, enum dmab_direction direction,
                     const struct dmab_grant_options *options, void **ret_vaddr, dmab_grant_t **ret);

/* The references, as they were given or made; as long as the grant. */
const struct dmab_grant_run *dmab_grant_runs(const dmab_grant_t *grant, size_t *ret_n);
/* Its number in the protocol. */
uint64_t dmab_grant_handle(const dmab_grant_t *grant);

/* Unmap it, and tell the daemon. grant and the memory are invalid afterwards, also on failure. dmab_disconnect() does it for
 * all that are left. Mirrors xengnttab_unmap() and xengntshr_unshare(). */
int dmab_grant_unmap(dmab_grant_t *grant);

/* Call fn for every grant that concerns the guest, which is called by its name or UUID, or with NULL for all: of this user,
 * or of everybody for an administrator. Until it returns something else than 0, which is then returned. It may use the library.
 * -EOPNOTSUPP (unsupported): the daemon's host is no dom0 of Xen's; -ENOENT (unknown_guest). Any number of threads. What is in
 * use is what the flags GTF_reading and GTF_writing of the entries say. */
int dmab_grant_visit(dmab_t *dmab, const char *guest, int (*fn)(const struct dmab_grant_info *info, void *userdata),
                     void *userdata);
struct dmab_exchange_options {
        size_t struct_size;
        const char *guest;    /* for administrators: whose frames, by its name or UUID; NULL: those of the guest that asks */
        uint64_t mask;        /* of the machine addresses of what is given; 0: any */
        const uint64_t *pfns; /* for each piece the guest's number of the page that its first one is to be; NULL: as it was */
        int given_up;         /* of an administrator's, not 0: the guest, which is paused, does not count on its frames */
};
#define DMAB_EXCHANGE_OPTIONS_INIT { .struct_size = sizeof(struct dmab_exchange_options) }

/* Exchange pages of a paravirtualised guest of Xen's for others in pieces of 2^order pages, each machine-contiguous and aligned
 * (the kernel's xen_create_contiguous_region(), in larger pieces and by another's hand).
 *
 * frames are the machine's numbers (MFNs) of n pages that the guest has given up: its kernel has them mapped nowhere, and puts
 * what it is given in their place. n is a multiple of 2^order, at most 65536; order is at most 9 in a guest, 16 for an
 * administrator. The number of the first page of each piece is written to ret_frames, which has room for n >> order, and of the
 * pieces to *ret_n. Fewer than all: with the frames behind those nothing was done, and asking for them alone tells why. What was
 * in the pages is lost, what is given is zeroed. options may be NULL. The call may take as long as Xen does.
 *
 * -EOPNOTSUPP: the daemon's host has no Xen, or the guest is not paravirtualised; -EBUSY: Xen does not take the pages, because
 * somebody has them mapped, or others of this guest are being exchanged; -EPERM: an administrator asks for a guest that is not
 * paused, or does not say that it has given the frames up: it would not live; or neither the guest nor an administrator asks;
 * -EFAULT: the guest does not have these frames; -ENOMEM: Xen has no such piece; -ERANGE: the mask is too low; -E2BIG: n or
 * order is too large; -EINVAL: n is no multiple, pfns are needed or cannot be; -ENOENT: there is no such guest; -ESTALE: it
 * has ended; -ECONNRESET, with the reason gone: nobody knows whether it was done. */
int dmab_exchange_frames(dmab_t *dmab, const uint64_t *frames, size_t n, unsigned order,
                         const struct dmab_exchange_options *options, uint64_t *ret_frames, size_t *ret_n);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
