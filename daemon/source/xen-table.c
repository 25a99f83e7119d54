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

static bool is_free(uint16_t flags) {
        return !(flags & (GTF_type_mask | IN_USE));
}

/* Whether it is that of one of the frames, and which. */
static bool is_of(const grant_entry_v1_t *entry, uint64_t frame, uint64_t count, uint64_t *ret_index) {
        *ret_index = entry->frame - frame;
        return entry->frame >= frame && *ret_index < count;
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
        entry->frame = (uint32_t)frame;
        __atomic_store_n(&entry->flags, (uint16_t)(GTF_permit_access | (is_readonly ? GTF_readonly : 0)), __ATOMIC_RELEASE);
}

int xen_table_give(const struct xen_table *table, uint64_t frame, uint64_t count, uint32_t guest, bool is_readonly,
                   uint32_t *refs) {
        uint64_t n_free = 0, given = 0, index;

        if (count == 0 || frame > UINT32_MAX || count - 1 > UINT32_MAX - frame)
                return -ERANGE;
        each_entry(table, entry) {
                if (is_free(load_flags(entry)))
                        n_free++;
                else if (is_of(entry, frame, count, &index))
                        return -EEXIST;
        }
        if (n_free < count)
                return -ENOSPC;
        each_entry(table, entry) {
                if (given == count)
                        break;
                if (!is_free(load_flags(entry)))
                        continue;
                write_entry(entry, frame + given, guest, is_readonly);
                refs[given++] = ref_of(table, entry);
        }
        return 0;
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

void xen_table_look(const struct xen_table *table, uint64_t frame, uint64_t count, struct xen_table_use *ret,
                    unsigned char *busy) {
        struct xen_table_use use = { 0 };
        uint64_t index;

        each_entry(table, entry) {
                const uint16_t flags = load_flags(entry);

                if (is_free(flags) || !is_of(entry, frame, count, &index))
                        continue;
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
                n += !is_free(load_flags(entry));
        return n;
}
