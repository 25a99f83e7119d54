#include "client/coherent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/error.h"
#include "client/params.h"
#include "client/result.h"
#include "client/session.h"
#include "proto/schema.h"

/* Known by its pages from the allocation on until it is freed; while a thread frees it, it is not, so that a second free of
 * the same pointer finds nothing. Ended ones are used again, never freed: see struct piece. */
struct allocation {
        struct piece piece; /* its size: as rounded */
        struct allocation *next, **pprev; /* in dmab->allocations or dmab->swapped; or next in dmab->spare_allocations */
        struct region *region;
        size_t asked; /* the caller's size */
        struct dmab_coherent_attrs attrs; /* with which it is to be swapped in */
        bool any;     /* dmab_alloc()'s */
        bool swapped; /* out */
        struct region_place place;
        uint64_t number, size, machine_addr;
};

static int no_memory(void) {
        return error_set(ENOMEM, "there is not enough memory");
}

/* ---- the list ---- */

static struct allocation *allocation_new(struct dmab *dmab) {
        struct allocation *allocation;

        pthread_mutex_lock(&dmab->lock);
        allocation = dmab->spare_allocations;
        if (allocation)
                dmab->spare_allocations = allocation->next;
        pthread_mutex_unlock(&dmab->lock);
        if (!allocation)
                allocation = calloc(1, sizeof(*allocation));
        return allocation;
}

static void allocation_spare(struct dmab *dmab, struct allocation *allocation) {
        pthread_mutex_lock(&dmab->lock);
        allocation->swapped = false;
        allocation->next = dmab->spare_allocations;
        dmab->spare_allocations = allocation;
        pthread_mutex_unlock(&dmab->lock);
}

static void *vaddr_of(const struct allocation *allocation) {
        return (void *)allocation->piece.start;
}

/* Both with the session's lock held. */
static void list_add(struct dmab *dmab, struct allocation *allocation) {
        struct allocation **list = allocation->swapped ? &dmab->swapped : &dmab->allocations;

        if (!allocation->swapped)
                memory_note(&dmab->memory, &allocation->piece);
        allocation->next = *list;
        allocation->pprev = list;
        if (allocation->next)
                allocation->next->pprev = &allocation->next;
        *list = allocation;
}

static void list_remove(struct dmab *dmab, struct allocation *allocation) {
        if (!allocation->swapped)
                memory_forget(&dmab->memory, &allocation->piece);
        *allocation->pprev = allocation->next;
        if (allocation->next)
                allocation->next->pprev = allocation->pprev;
}

/* The allocation at vaddr, if it is the device's. With the session's lock held. */
static int list_find(const dmab_device_t *device, const void *vaddr, struct allocation **ret) {
        struct piece *piece = memory_find(&device->dmab->memory, vaddr);

        if (!piece || piece->kind != PIECE_COHERENT || piece->start != (uintptr_t)vaddr)
                return error_set(EFAULT,
                                 "%p is not the start of an allocation of this session; it may have been freed already",
                                 vaddr);
        if (piece->device != device)
                return error_set(EXDEV, "the allocation at %p belongs to %s, not to %s", vaddr, piece->device->name,
                                 device->name);
        *ret = (struct allocation *)piece;
        return 0;
}

/* Give up the CPU's view of it. */
static void drop(struct dmab *dmab, struct allocation *allocation) {
        if (!allocation->swapped)
                region_release(dmab, allocation->region);
        allocation_spare(dmab, allocation);
}

/* Put what is the device's, or all of it, on another list. With the session's lock held. */
static void list_move(struct dmab *dmab, struct allocation *list, const struct dmab_device *device, struct allocation **to) {
        struct allocation *allocation, *next;

        for (allocation = list; allocation; allocation = next) {
                next = allocation->next;
                if (device && allocation->piece.device != device)
                        continue;
                list_remove(dmab, allocation);
                allocation->next = *to;
                *to = allocation;
        }
}

void coherent_forget(struct dmab *dmab, const struct dmab_device *device) {
        struct allocation *dropped = NULL, *next;

        pthread_mutex_lock(&dmab->lock);
        list_move(dmab, dmab->allocations, device, &dropped);
        list_move(dmab, dmab->swapped, device, &dropped);
        pthread_mutex_unlock(&dmab->lock);
        for (; dropped; dropped = next) {
                next = dropped->next;
                drop(dmab, dropped);
        }
}

void coherent_deinit(struct dmab *dmab) {
        struct allocation *allocation;

        while ((allocation = dmab->spare_allocations)) {
                dmab->spare_allocations = allocation->next;
                free(allocation);
        }
}

/* ---- allocating ---- */

static int check_flags(unsigned flags) {
        const unsigned known = DMAB_NOWAIT | DMAB_WAIT | DMAB_HIGH | DMAB_ZERO | DMAB_SHAREABLE;

        if (flags & ~known)
                return error_set(EINVAL, "flags 0x%x are none that libdmabroker knows", flags & ~known);
        if ((flags & DMAB_NOWAIT) && (flags & DMAB_WAIT))
                return error_set(EINVAL, "DMAB_NOWAIT and DMAB_WAIT contradict each other");
        return 0;
}

static int check_sizes(size_t size, const struct dmab_coherent_attrs *attrs) {
        if (!size)
                return error_set(EINVAL, "an allocation of 0 bytes is none");
        if (size > SCHEMA_INTEGER_MAX)
                return error_set(E2BIG, "%zu bytes are more than any machine has", size);
        if (attrs->align > SCHEMA_INTEGER_MAX || attrs->boundary > SCHEMA_INTEGER_MAX)
                return error_set(EINVAL, "an alignment or boundary of more than 2^52 bytes cannot be had");
        return 0;
}

/* What allocating and swapping in have in common. */
static void want_params(const dmab_device_t *device, unsigned flags, const struct dmab_coherent_attrs *attrs,
                        struct params *params) {
        if (attrs->align)
                params_uint(params, "align", attrs->align);
        if (attrs->boundary)
                params_uint(params, "boundary", attrs->boundary);
        if (attrs->mask)
                params_hex(params, "mask", attrs->mask);
        params_uint(params, "wait_ms", !(flags & DMAB_WAIT) ? 0 : attrs->wait_ms ? attrs->wait_ms : device->wait_ms);
        if (flags & DMAB_HIGH)
                params_word(params, "priority", "high", '"');
}

static void alloc_params(const dmab_device_t *device, size_t size, unsigned flags,
                         const struct dmab_coherent_attrs *attrs, const char *key, struct params *params) {
        params_begin(params);
        params_uint(params, "device", device->handle);
        params_uint(params, "size", size);
        want_params(device, flags, attrs, params);
        if (flags & DMAB_ZERO)
                params_word(params, "zero", "true", 0);
        if (flags & DMAB_SHAREABLE)
                params_word(params, "shareable", "true", 0);
        /* Where every allocation has a region of its own, its memory had better come at once: it saves a call. Where
         * they share regions, a descriptor with each would be for nothing. */
        if (__atomic_load_n(&device->dmab->fresh_regions, __ATOMIC_RELAXED))
                params_word(params, "fd", "true", 0);
        params_word(params, "request_key", key, '"');
        params_end(params);
}

/* The answer's members. `number` is set if it is there, so that the memory can be given back. */
static int take_answer(json_t *result, struct allocation *allocation) {
        int r = result_uint(result, "alloc", &allocation->number);

        if (!r)
                r = region_read_place(result, &allocation->place);
        if (!r)
                r = result_uint(result, "size", &allocation->size);
        allocation->machine_addr = DMAB_ADDR_NONE;
        if (!r && json_object_get(result, "machine_addr"))
                r = result_hex(result, "machine_addr", &allocation->machine_addr);
        return r;
}

static int free_number(struct dmab *dmab, uint64_t number) {
        struct link_reply reply = { 0 };
        struct params params;
        int r;

        params_begin(&params);
        params_uint(&params, "alloc", number);
        params_end(&params);
        r = link_call(dmab->link,
                      &(struct link_request){ .method = "coherent.free", .params = params.text, .repeat = LINK_RELEASE },
                      &reply);
        link_reply_release(&reply);
        return r;
}

/* Make it visible to the CPU and known to the session. */
static int settle(struct dmab *dmab, struct allocation *allocation, int fd) {
        void *vaddr;
        bool fresh;
        int r = region_use(dmab, &allocation->place, fd, &allocation->region, &fresh);

        if (r)
                return r;
        __atomic_store_n(&dmab->fresh_regions, fresh, __ATOMIC_RELAXED);
        vaddr = region_address(allocation->region, allocation->place.offset, allocation->size);
        if (!vaddr || allocation->asked > allocation->size) {
                region_release(dmab, allocation->region);
                return error_set(EPROTO, "the daemon's answer puts an allocation outside its region");
        }
        allocation->piece.start = (uintptr_t)vaddr;
        allocation->piece.size = allocation->size;
        allocation->piece.delta = allocation->place.dma_addr - (uintptr_t)vaddr;
        pthread_mutex_lock(&dmab->lock);
        list_add(dmab, allocation);
        pthread_mutex_unlock(&dmab->lock);
        return 0;
}

/* *ret_misplaced: it is in a window that the guest sees elsewhere than the broker believes. */
static int alloc_once(dmab_device_t *device, size_t size, unsigned flags, const struct dmab_coherent_attrs *attrs, bool any,
                      void **ret_vaddr, dmab_addr_t *ret_dma, bool *ret_misplaced) {
        struct dmab_coherent_attrs known = DMAB_COHERENT_ATTRS_INIT;
        struct link_reply reply = { 0 };
        struct allocation *allocation;
        char key[LINK_KEY_SIZE];
        struct params params;
        int r = session_check(device->dmab);

        if (!r && attrs)
                r = session_copy_struct(&known, sizeof(known), attrs, "struct dmab_coherent_attrs");
        if (!r)
                r = check_flags(flags);
        if (!r)
                r = check_sizes(size, &known);
        if (r)
                return r;
        allocation = allocation_new(device->dmab);
        if (!allocation)
                return no_memory();
        *allocation = (struct allocation){ .piece = { .kind = PIECE_COHERENT, .device = device }, .asked = size,
                                           .attrs = known, .any = any };
        link_make_key(device->dmab->link, key);
        alloc_params(device, size, flags, &known, key, &params);
        r = link_call(device->dmab->link,
                      &(struct link_request){
                              .method = "coherent.alloc", .params = params.text, .repeat = LINK_KEYED },
                      &reply);
        if (!r)
                r = take_answer(reply.result, allocation);
        if (!r) {
                r = settle(device->dmab, allocation, reply.n_fds ? reply.fds[0] : -1);
                *ret_misplaced = r == -EBUSY;
        }
        link_reply_release(&reply);
        if (r) {
                struct error_state *saved = error_save();

                if (allocation->number)
                        free_number(device->dmab, allocation->number);
                error_restore(saved);
                allocation_spare(device->dmab, allocation);
                return r;
        }
        *ret_vaddr = vaddr_of(allocation);
        *ret_dma = allocation->place.dma_addr;
        return 0;
}

/* Once more, where the window turned out to be elsewhere: it can be bound when nothing lies in it. */
static int alloc(dmab_device_t *device, size_t size, unsigned flags, const struct dmab_coherent_attrs *attrs, bool any,
                 void **ret_vaddr, dmab_addr_t *ret_dma) {
        bool misplaced = false;
        int r = alloc_once(device, size, flags, attrs, any, ret_vaddr, ret_dma, &misplaced);

        if (!misplaced)
                return r;
        /* Another thread may have looked already, when this was still in the way. */
        link_distrust_windows(device->dmab->link);
        return alloc_once(device, size, flags, attrs, any, ret_vaddr, ret_dma, &misplaced);
}

int dmab_alloc_coherent_attrs(dmab_device_t *device, size_t size, unsigned flags,
                              const struct dmab_coherent_attrs *attrs, void **ret_vaddr, dmab_addr_t *ret_dma) {
        return alloc(device, size, flags, attrs, false, ret_vaddr, ret_dma);
}

int dmab_alloc_coherent(dmab_device_t *device, size_t size, unsigned flags, void **ret_vaddr, dmab_addr_t *ret_dma) {
        return alloc(device, size, flags, NULL, false, ret_vaddr, ret_dma);
}

int coherent_alloc_any(dmab_device_t *device, size_t size, unsigned flags, void **ret_vaddr, dmab_addr_t *ret_dma) {
        return alloc(device, size, flags, NULL, true, ret_vaddr, ret_dma);
}

/* ---- freeing ---- */

static int take_out(dmab_device_t *device, size_t size, void *vaddr, dmab_addr_t dma, struct allocation **ret) {
        struct allocation *allocation;
        int r;

        pthread_mutex_lock(&device->dmab->lock);
        r = list_find(device, vaddr, &allocation);
        if (!r && allocation->asked != size)
                r = error_set(EINVAL, "the allocation at %p was made with %zu bytes, and is freed with %zu", vaddr,
                              allocation->asked, size);
        if (!r && allocation->place.dma_addr != dma)
                r = error_set(EINVAL, "the allocation at %p has the dma address 0x%llx, and is freed with 0x%llx",
                              vaddr, (unsigned long long)allocation->place.dma_addr, (unsigned long long)dma);
        if (!r)
                list_remove(device->dmab, allocation);
        pthread_mutex_unlock(&device->dmab->lock);
        if (!r)
                *ret = allocation;
        return r;
}

static int take_out_any(dmab_device_t *device, void *vaddr, struct allocation **ret) {
        struct allocation *allocation;
        int r;

        pthread_mutex_lock(&device->dmab->lock);
        r = list_find(device, vaddr, &allocation);
        if (!r && !allocation->any)
                r = error_set(EFAULT, "the memory at %p is of dmab_alloc_coherent(); free it with dmab_free_coherent()", vaddr);
        if (!r)
                list_remove(device->dmab, allocation);
        pthread_mutex_unlock(&device->dmab->lock);
        if (!r)
                *ret = allocation;
        return r;
}

static void put_back(struct dmab *dmab, struct allocation *allocation) {
        pthread_mutex_lock(&dmab->lock);
        list_add(dmab, allocation);
        pthread_mutex_unlock(&dmab->lock);
}

/* Whether a call about an allocation that answered r says that there is none: whatever the daemon does not know any more, its
 * owner has lost, by the session's end or an administrator. Also when it is not known what has become of it. */
static bool is_lost(int r) {
        return r == -ESTALE || link_is_unknown(r) || error_is("double_free") || error_is("unknown_handle");
}

/* The daemon's side of it, when the session does not know it any more. */
static int give_back(struct dmab *dmab, struct allocation *allocation) {
        int r = free_number(dmab, allocation->number);

        if (r && !is_lost(r))
                put_back(dmab, allocation);
        else
                drop(dmab, allocation);
        return r;
}

int dmab_free_coherent(dmab_device_t *device, size_t size, void *vaddr, dmab_addr_t dma) {
        struct allocation *allocation;
        int r = session_check(device->dmab);

        if (!r)
                r = take_out(device, size, vaddr, dma, &allocation);
        return r ? r : give_back(device->dmab, allocation);
}

/* ---- moving ---- */

static void move_params(const struct allocation *old, const dmab_device_t *to, unsigned flags, const char *key,
                        struct params *params) {
        params_begin(params);
        params_uint(params, "alloc", old->number);
        params_uint(params, "device", to->handle);
        params_uint(params, "wait_ms", flags & DMAB_WAIT ? to->wait_ms : 0);
        if (flags & DMAB_HIGH)
                params_word(params, "priority", "high", '"');
        params_word(params, "request_key", key, '"');
        params_end(params);
}

/* The daemon's side: *allocation is the new one. *ret_moved: the old one is not there any more. */
static int move(struct dmab *dmab, const struct allocation *old, const dmab_device_t *to, unsigned flags,
                struct allocation *allocation, bool *ret_moved) {
        struct link_reply reply = { 0 };
        char key[LINK_KEY_SIZE];
        struct params params;
        int r;

        link_make_key(dmab->link, key);
        move_params(old, to, flags, key, &params);
        r = link_call(dmab->link,
                      &(struct link_request){ .method = "coherent.move", .params = params.text, .repeat = LINK_KEYED },
                      &reply);
        *ret_moved = !r || r == -ESTALE || link_is_unknown(r) || error_is("double_free");
        if (!r)
                r = take_answer(reply.result, allocation);
        if (!r)
                r = settle(dmab, allocation, reply.n_fds ? reply.fds[0] : -1);
        link_reply_release(&reply);
        return r;
}

static int move_check(const dmab_device_t *device, const dmab_device_t *to, unsigned flags) {
        int r = session_check(device->dmab);

        if (!r && to->dmab != device->dmab)
                r = error_set(EXDEV, "%s and %s are devices of different sessions", device->name, to->name);
        if (!r && flags & (DMAB_ZERO | DMAB_SHAREABLE))
                r = error_set(EINVAL, "what is moved is neither zeroed nor made shareable");
        return r ? r : check_flags(flags);
}

int dmab_move_coherent(dmab_device_t *device, size_t size, void *vaddr, dmab_addr_t dma, dmab_device_t *to, unsigned flags,
                       void **ret_vaddr, dmab_addr_t *ret_dma) {
        struct dmab *dmab = device->dmab;
        struct allocation *allocation, *old;
        struct error_state *saved;
        bool moved;
        int r = move_check(device, to, flags);

        if (r)
                return r;
        allocation = allocation_new(dmab);
        if (!allocation)
                return no_memory();
        *allocation = (struct allocation){ .piece = { .kind = PIECE_COHERENT, .device = to }, .asked = size };
        r = take_out(device, size, vaddr, dma, &old);
        if (r) {
                allocation_spare(dmab, allocation);
                return r;
        }
        allocation->any = old->any;
        r = move(dmab, old, to, flags, allocation, &moved);
        saved = error_save();
        if (moved)
                drop(dmab, old);
        else
                put_back(dmab, old);
        if (r && allocation->number)
                free_number(dmab, allocation->number);
        if (r)
                allocation_spare(dmab, allocation);
        error_restore(saved);
        if (r)
                return r;
        *ret_vaddr = vaddr_of(allocation);
        *ret_dma = allocation->place.dma_addr;
        return 0;
}

/* ---- swapping ---- */

/* The same allocation: it is in one of the session's lists, or in the other. */
struct dmab_swapped {
        struct allocation allocation;
};

static void file_swapped(struct dmab *dmab, struct allocation *allocation) {
        region_release(dmab, allocation->region);
        pthread_mutex_lock(&dmab->lock);
        allocation->swapped = true;
        list_add(dmab, allocation);
        pthread_mutex_unlock(&dmab->lock);
}

/* It is certain that there is nothing of it any more, here or there. */
static bool is_gone(int r) {
        return r == -ESTALE || error_is("double_free") || error_is("unknown_handle");
}

int dmab_swap_out_coherent(dmab_device_t *device, size_t size, void *vaddr, dmab_addr_t dma, dmab_swapped_t **ret) {
        struct dmab *dmab = device->dmab;
        struct link_reply reply = { 0 };
        struct allocation *allocation;
        struct params params;
        bool lost;
        int r = session_check(dmab);

        if (!r)
                r = take_out(device, size, vaddr, dma, &allocation);
        if (r)
                return r;
        params_begin(&params);
        params_uint(&params, "alloc", allocation->number);
        params_end(&params);
        /* It needs no key to be the same the second time. */
        r = link_call(dmab->link,
                      &(struct link_request){ .method = "coherent.swap_out", .params = params.text, .repeat = LINK_KEYED },
                      &reply);
        lost = reply.lost;
        link_reply_release(&reply);
        if (r && is_gone(r)) {
                drop(dmab, allocation);
                return r;
        }
        if (r && !lost && !link_is_unknown(r)) {
                put_back(dmab, allocation);
                return r;
        }
        /* Where the contents are if that is not known, swapping in will tell: the address that it had may be another's. */
        file_swapped(dmab, allocation);
        *ret = (dmab_swapped_t *)allocation;
        return r ? error_set_reason(ECONNRESET, "gone", "whether the memory at %p was swapped out is not known: swap it in to go "
                                    "on with it", vaddr)
                 : 0;
}

/* Out of the list of those that are swapped out, if it is there. */
static int take_swapped(const dmab_device_t *device, dmab_swapped_t *swapped) {
        struct allocation *allocation = &swapped->allocation;
        struct dmab *dmab = device->dmab;
        int r = 0;

        pthread_mutex_lock(&dmab->lock);
        if (!allocation->swapped || !allocation->pprev)
                r = error_set(EFAULT, "%p is nothing that is swapped out; it may have been swapped in or freed already",
                              (void *)swapped);
        else if (allocation->piece.device != device)
                r = error_set(EXDEV, "what was swapped out is memory of %s, not of %s", allocation->piece.device->name,
                              device->name);
        if (!r) {
                list_remove(dmab, allocation);
                allocation->pprev = NULL;
        }
        pthread_mutex_unlock(&dmab->lock);
        return r;
}

static void set_swapped(struct dmab *dmab, struct allocation *allocation, bool swapped) {
        pthread_mutex_lock(&dmab->lock);
        allocation->swapped = swapped;
        pthread_mutex_unlock(&dmab->lock);
}

static int swap_in(struct dmab *dmab, struct allocation *allocation, unsigned flags) {
        const dmab_device_t *device = allocation->piece.device;
        struct link_reply reply = { 0 };
        struct params params;
        int r;

        params_begin(&params);
        params_uint(&params, "alloc", allocation->number);
        want_params(device, flags, &allocation->attrs, &params);
        if (__atomic_load_n(&dmab->fresh_regions, __ATOMIC_RELAXED))
                params_word(&params, "fd", "true", 0);
        params_end(&params);
        r = link_call(dmab->link,
                      &(struct link_request){ .method = "coherent.swap_in", .params = params.text, .repeat = LINK_KEYED },
                      &reply);
        if (!r)
                r = take_answer(reply.result, allocation);
        if (!r) {
                set_swapped(dmab, allocation, false);
                r = settle(dmab, allocation, reply.n_fds ? reply.fds[0] : -1);
        }
        if (r)
                set_swapped(dmab, allocation, true);
        link_reply_release(&reply);
        return r;
}

int dmab_swap_in_coherent(dmab_device_t *device, dmab_swapped_t *swapped, unsigned flags, void **ret_vaddr,
                          dmab_addr_t *ret_dma) {
        struct allocation *allocation = &swapped->allocation;
        int r = session_check(device->dmab);

        if (!r && flags & (DMAB_ZERO | DMAB_SHAREABLE))
                r = error_set(EINVAL, "what is swapped in is neither zeroed nor made shareable");
        if (!r)
                r = check_flags(flags);
        if (!r)
                r = take_swapped(device, swapped);
        if (r)
                return r;
        r = swap_in(device->dmab, allocation, flags);
        if (r && is_gone(r))
                drop(device->dmab, allocation);
        else if (r) /* also when it is in, but that is not known here, or it cannot be mapped: it can be asked for again */
                put_back(device->dmab, allocation);
        if (r)
                return r;
        *ret_vaddr = vaddr_of(allocation);
        *ret_dma = allocation->place.dma_addr;
        return 0;
}

int dmab_free_swapped(dmab_device_t *device, dmab_swapped_t *swapped) {
        int r = session_check(device->dmab);

        if (!r)
                r = take_swapped(device, swapped);
        return r ? r : give_back(device->dmab, &swapped->allocation);
}

int coherent_free_any(dmab_device_t *device, void *vaddr) {
        struct allocation *allocation;
        int r = take_out_any(device, vaddr, &allocation);

        return r ? r : give_back(device->dmab, allocation);
}

int dmab_dma_addr(dmab_device_t *device, const void *vaddr, dmab_addr_t *ret_dma) {
        const struct piece *piece = memory_find(&device->dmab->memory, vaddr);

        if (!piece)
                return error_set(EFAULT, "%p is not memory from the broker", vaddr);
        if (piece->device != device)
                return error_set(EXDEV, "%p is memory of %s, not of %s", vaddr,
                                 piece->device ? piece->device->name : "another device", device->name);
        *ret_dma = (uintptr_t)vaddr + piece->delta;
        return 0;
}

int dmab_addressing(dmab_device_t *device, const void *vaddr) {
        dmab_addr_t dma;
        int r = session_check(device->dmab);

        if (!r)
                r = dmab_dma_addr(device, vaddr, &dma);
        return r ? r : (int)region_addressing_at(device->dmab, vaddr);
}

int dmab_coherent_info(dmab_device_t *device, const void *vaddr, struct dmab_coherent_info *ret) {
        struct dmab_coherent_info info = DMAB_COHERENT_INFO_INIT;
        struct allocation *allocation;
        size_t size = ret->struct_size;
        int r = session_check(device->dmab);

        if (r)
                return r;
        if (size < sizeof(size))
                return error_set(EINVAL,
                                 "struct_size of struct dmab_coherent_info is %zu; set it to sizeof(the structure)",
                                 size);
        pthread_mutex_lock(&device->dmab->lock);
        r = list_find(device, vaddr, &allocation);
        if (!r) {
                info.alloc = allocation->number;
                info.region = allocation->place.region;
                info.offset = allocation->place.offset;
                info.size = allocation->size;
                info.dma_addr = allocation->place.dma_addr;
                info.machine_addr = allocation->machine_addr;
                info.addressing = allocation->place.addressing;
        }
        pthread_mutex_unlock(&device->dmab->lock);
        if (r)
                return r;
        memcpy(ret, &info, size < sizeof(info) ? size : sizeof(info));
        ret->struct_size = size;
        return 0;
}
