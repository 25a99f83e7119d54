#include "client/vchan-ring.h"

#include <errno.h>
#include <string.h>

enum { PAGE_SHIFT = 12, SMALL_ORDER = 10, LARGE_ORDER = 11 };

_Static_assert(sizeof(struct vchan_page) == 24, "the page is as Xen has it");

/* ---- the layout ---- */

static bool is_order(unsigned order) {
        return order == SMALL_ORDER || order == LARGE_ORDER || (order >= PAGE_SHIFT && order <= VCHAN_ORDER_MAX);
}

static unsigned grants_of(unsigned order) {
        return order >= PAGE_SHIFT ? 1u << (order - PAGE_SHIFT) : 0;
}

/* The list of grants ends where data begins, if there is any in the page. */
static size_t room_for_grants(unsigned one, unsigned other) {
        size_t end = one == SMALL_ORDER || other == SMALL_ORDER ? 1u << SMALL_ORDER
                     : one == LARGE_ORDER || other == LARGE_ORDER ? 1u << LARGE_ORDER : VCHAN_PAGE;

        return (end - sizeof(struct vchan_page)) / sizeof(uint32_t);
}

int vchan_layout_read(const struct vchan_page *page, struct vchan_layout *ret) {
        const unsigned out = __atomic_load_n(&page->to_host_order, __ATOMIC_RELAXED);
        const unsigned in = __atomic_load_n(&page->to_guest_order, __ATOMIC_RELAXED);

        if (!is_order(out) || !is_order(in) || (out == in && out < PAGE_SHIFT) ||
            grants_of(out) + grants_of(in) > room_for_grants(out, in))
                return -EPROTO;
        *ret = (struct vchan_layout){ .to_host_size = 1u << out, .to_guest_size = 1u << in,
                                      .n_to_host = grants_of(out), .n_to_guest = grants_of(in) };
        return 0;
}

/* ---- the ring ---- */

static uint32_t load(const uint32_t *index) {
        return __atomic_load_n(index, __ATOMIC_ACQUIRE);
}

void vchan_ring_init(struct vchan_ring *ring, struct vchan_page *page, const struct vchan_layout *layout, char *to_host,
                     char *to_guest) {
        *ring = (struct vchan_ring){
                .page = page,
                .to_host = layout->n_to_host ? to_host : (char *)page + layout->to_host_size,
                .to_guest = layout->n_to_guest ? to_guest : (char *)page + layout->to_guest_size,
                .to_host_size = layout->to_host_size,
                .to_guest_size = layout->to_guest_size,
                .written = load(&page->to_host.written),
                .read = load(&page->to_guest.read),
        };
        if (ring->written - load(&page->to_host.read) > ring->to_host_size)
                ring->written = load(&page->to_host.read);
        if (load(&page->to_guest.written) - ring->read > ring->to_guest_size)
                ring->read = load(&page->to_guest.written);
        __atomic_store_n(&page->to_host.written, ring->written, __ATOMIC_RELEASE);
        __atomic_store_n(&page->to_guest.read, ring->read, __ATOMIC_RELEASE);
}

static bool host_lives(const struct vchan_ring *ring) {
        return __atomic_load_n(&ring->page->host_lives, __ATOMIC_ACQUIRE);
}

/* Whoever looks after this sees what was done before, or is told of what is done afterwards. */
static void ask_to_be_told(struct vchan_ring *ring, uint8_t what) {
        __atomic_fetch_or(&ring->page->tell_guest, what, __ATOMIC_SEQ_CST);
}

static bool wants_to_be_told(struct vchan_ring *ring, uint8_t what) {
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        return __atomic_fetch_and(&ring->page->tell_host, (uint8_t)~what, __ATOMIC_SEQ_CST) & what;
}

/* -EPROTO: it cannot be. */
static ssize_t count_ready(const struct vchan_ring *ring) {
        uint32_t n = load(&ring->page->to_guest.written) - ring->read;

        return n > ring->to_guest_size ? -EPROTO : (ssize_t)n;
}

static ssize_t count_room(const struct vchan_ring *ring) {
        uint32_t n = ring->written - load(&ring->page->to_host.read);

        return n > ring->to_host_size ? -EPROTO : (ssize_t)(ring->to_host_size - n);
}

/* `n` of what there is, from `at` on, which goes round. */
static void copy_out(const char *stream, uint32_t size, uint32_t at, char *to, size_t n) {
        size_t first = size - at % size < n ? size - at % size : n;

        memcpy(to, stream + at % size, first);
        memcpy(to + first, stream, n - first);
}

static void copy_in(char *stream, uint32_t size, uint32_t at, const char *from, size_t n) {
        size_t first = size - at % size < n ? size - at % size : n;

        memcpy(stream + at % size, from, first);
        memcpy(stream, from + first, n - first);
}

ssize_t vchan_ring_read(struct vchan_ring *ring, void *buffer, size_t n, bool *ret_tell) {
        ssize_t ready = count_ready(ring);

        *ret_tell = false;
        if (ready >= 0 && (size_t)ready < n) {
                ask_to_be_told(ring, VCHAN_WROTE);
                /* In this order: what was written before it went is read. */
                if (!host_lives(ring) && count_ready(ring) == 0)
                        return 0;
                ready = count_ready(ring);
        }
        if (ready <= 0)
                return ready < 0 ? ready : -EAGAIN;
        if ((size_t)ready < n)
                n = (size_t)ready;
        copy_out(ring->to_guest, ring->to_guest_size, ring->read, buffer, n);
        ring->read += (uint32_t)n;
        __atomic_store_n(&ring->page->to_guest.read, ring->read, __ATOMIC_RELEASE);
        *ret_tell = wants_to_be_told(ring, VCHAN_READ);
        return (ssize_t)n;
}

ssize_t vchan_ring_write(struct vchan_ring *ring, const void *bytes, size_t n, bool *ret_tell) {
        ssize_t room = count_room(ring);

        *ret_tell = false;
        if (!host_lives(ring))
                return -EPIPE;
        if (room >= 0 && (size_t)room < n) {
                ask_to_be_told(ring, VCHAN_READ);
                room = count_room(ring);
        }
        if (room <= 0)
                return room < 0 ? room : -EAGAIN;
        if ((size_t)room < n)
                n = (size_t)room;
        copy_in(ring->to_host, ring->to_host_size, ring->written, bytes, n);
        ring->written += (uint32_t)n;
        __atomic_store_n(&ring->page->to_host.written, ring->written, __ATOMIC_RELEASE);
        *ret_tell = wants_to_be_told(ring, VCHAN_WROTE);
        return (ssize_t)n;
}
