#include "daemon/source/xen-table.h"

#include <errno.h>
#include <xen/xen.h>
#include <xen/grant_table.h>

#include "daemon/source/xen-domain.h"

#define IN_USE (GTF_reading | GTF_writing)

/* The hypervisor changes the flags too, at any time. */
static uint16_t load_flags(grant_entry_v1_t *entry) {
        return __atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE);
}

/* Xen has the machine's first frame for itself. */
static uint32_t load_frame(const grant_entry_v1_t *entry) {
        return __atomic_load_n(&entry->frame, __ATOMIC_ACQUIRE);
}

/* Neither granted nor in use. */
static bool is_over(uint16_t flags) {
        return !(flags & (GTF_type_mask | IN_USE));
}

static bool is_blank(grant_entry_v1_t *entry) {
        return is_over(load_flags(entry)) && !load_frame(entry);
}

/* Whether it is that of one of the frames, and which. */
static bool is_of(const grant_entry_v1_t *entry, uint64_t frame, uint64_t count, uint64_t *ret_index) {
        const uint64_t its = load_frame(entry);

        *ret_index = its - frame;
        return its && its >= frame && *ret_index < count;
}

#define each_entry(table, entry) \
        for (grant_entry_v1_t *entry = (grant_entry_v1_t *)(table)->entries + XEN_ENTRIES_RESERVED; \
             entry < (grant_entry_v1_t *)(table)->entries + (table)->n; entry++)

static uint32_t ref_of(const struct xen_table *table, const grant_entry_v1_t *entry) {
        return (uint32_t)(entry - (const grant_entry_v1_t *)table->entries);
}

/* Xen reads the rest as soon as the flags permit it. */
static void write_entry(grant_entry_v1_t *entry, uint64_t frame, uint32_t guest, bool is_readonly) {
        entry->domid = (domid_t)guest;
        __atomic_store_n(&entry->frame, (uint32_t)frame, __ATOMIC_RELEASE);
        __atomic_store_n(&entry->flags, (uint16_t)(GTF_permit_access | (is_readonly ? GTF_readonly : 0)), __ATOMIC_RELEASE);
}

/* refs[i] is set where the i-th frame has an entry still, which was the guest's; the first of the table are nobody's. */
static int find_past(const struct xen_table *table, uint64_t frame, uint64_t count, uint32_t guest, uint32_t *refs) {
        uint64_t n_blank = 0, n_past = 0, index;

        for (uint64_t i = 0; i < count; i++)
                refs[i] = 0;
        each_entry(table, entry) {
                n_blank += is_blank(entry);
                if (!is_of(entry, frame, count, &index))
                        continue;
                if (!is_over(load_flags(entry)) || entry->domid != guest)
                        return -EEXIST;
                refs[index] = ref_of(table, entry);
                n_past++;
        }
        return n_past + n_blank < count ? -ENOSPC : 0;
}

int xen_table_give(const struct xen_table *table, uint64_t frame, uint64_t count, uint32_t guest, bool is_readonly,
                   uint32_t *refs) {
        grant_entry_v1_t *const entries = table->entries;
        uint32_t next = XEN_ENTRIES_RESERVED;
        int r;

        if (guest >= DOMID_FIRST_RESERVED || count == 0 || frame == 0 || frame > UINT32_MAX || count - 1 > UINT32_MAX - frame)
                return -ERANGE;
        r = find_past(table, frame, count, guest, refs);
        for (uint64_t i = 0; i < count && r == 0; i++) {
                while (!refs[i] && !is_blank(&entries[next]))
                        next++;
                if (!refs[i])
                        refs[i] = next;
                write_entry(&entries[refs[i]], frame + i, guest, is_readonly);
        }
        return r;
}

int xen_table_find(const struct xen_table *table, uint64_t frame, uint64_t count, uint32_t guest, uint32_t *refs) {
        uint64_t found = 0, index;

        each_entry(table, entry) {
                if ((load_flags(entry) & GTF_type_mask) != GTF_permit_access || entry->domid != guest ||
                    !is_of(entry, frame, count, &index))
                        continue;
                refs[index] = ref_of(table, entry);
                found++;
        }
        return found == count ? 0 : -ENOENT;
}

void xen_table_revoke(const struct xen_table *table, uint64_t frame, uint64_t count) {
        uint64_t index;

        each_entry(table, entry)
                if (load_flags(entry) & GTF_type_mask && is_of(entry, frame, count, &index))
                        __atomic_and_fetch(&entry->flags, (uint16_t)~GTF_type_mask, __ATOMIC_SEQ_CST);
}

void xen_table_forget(const struct xen_table *table, uint64_t frame, uint64_t count, uint32_t guest) {
        uint64_t index;

        each_entry(table, entry)
                if (is_over(load_flags(entry)) && is_of(entry, frame, count, &index) && entry->domid == guest)
                        __atomic_store_n(&entry->frame, 0, __ATOMIC_RELEASE);
}

void xen_table_look(const struct xen_table *table, uint64_t frame, uint64_t count, struct xen_table_use *ret,
                    unsigned char *busy) {
        struct xen_table_use use = { 0 };
        uint64_t index;

        each_entry(table, entry) {
                const uint16_t flags = load_flags(entry);

                if (!is_of(entry, frame, count, &index))
                        continue;
                if (is_over(flags)) {
                        use.past++;
                        use.last = entry->domid;
                        continue;
                }
                if (!use.past)
                        use.last = entry->domid;
                use.granted += (flags & GTF_type_mask) != 0;
                use.reading += (flags & GTF_reading) != 0;
                use.writing += (flags & GTF_writing) != 0;
                use.busy++;
                if (busy)
                        busy[index] = 1;
        }
        *ret = use;
}

uint32_t xen_table_count(const struct xen_table *table) {
        uint32_t n = 0;

        each_entry(table, entry)
                n += !is_over(load_flags(entry));
        return n;
}

uint32_t xen_table_count_blank(const struct xen_table *table) {
        uint32_t n = 0;

        each_entry(table, entry)
                n += is_blank(entry);
        return n;
}

void xen_table_sum_up(const struct xen_table *table, struct xen_table_counts *ret) {
        struct xen_table_counts counts = { .entries = table->n - XEN_ENTRIES_RESERVED };

        each_entry(table, entry) {
                const uint16_t flags = load_flags(entry);

                counts.granted += (flags & GTF_type_mask) != 0;
                counts.mapped += (flags & IN_USE) != 0;
                counts.revoking += !(flags & GTF_type_mask) && flags & IN_USE;
                counts.free += is_over(flags);
        }
        *ret = counts;
}
