/* Guarantees: memory that an owner can have whenever it asks. What it has not taken yet stays free, in stock or with the
 * system, whoever else asks for it: of all that is free, the *unmet* part of every guarantee is spoken for.
 *
 * A guarantee has two parts: bytes anywhere, and beside these bytes below 4 GiB. What an owner holds below 4 GiB meets the
 * latter first. Held is what lies in its regions, on their way to it and back included: the unused parts of its regions are
 * its own already. Where the parts of all guarantees are free, each can be met, in whichever order they are called in.
 *
 * What only guests can map who are granted their windows is of no use to others, and all other memory of none to them: their
 * guarantees are counted apart, against that memory. */
#include <errno.h>

#include "daemon/core/objects.h"

static uint64_t add(uint64_t a, uint64_t b) {
        return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t minus(uint64_t a, uint64_t b) {
        return a > b ? a - b : 0;
}

/* No source can give less than its grain. */
static uint64_t whole(const struct owner *owner, uint64_t bytes) {
        uint64_t grain = PAGE;
        const struct supply *supply;

        LL_FOREACH(owner->broker->supplies, supply)
                if (supply_is_granted(supply) == owner_is_granted(owner))
                        grain = larger(grain, supply->info.grain);
        return bytes > UINT64_MAX / 2 ? bytes : round_up(bytes, grain);
}

/* What would be unmet if the owner held so much more. */
static struct guarantee unmet_with(const struct owner *owner, uint64_t low, uint64_t high) {
        uint64_t held_low = owner->held_low + low, held = owner->usage.of[QUOTA_held_bytes] + low + high;
        uint64_t bytes = whole(owner, owner->guaranteed.bytes), low_bytes;

        low_bytes = whole(owner, owner->guaranteed.low_bytes);
        return (struct guarantee){
                .bytes = minus(bytes, held - smaller(held_low, low_bytes)),
                .low_bytes = minus(low_bytes, held_low),
        };
}

static struct guarantee unmet(const struct owner *owner) {
        return unmet_with(owner, 0, 0);
}

static uint64_t both(struct guarantee guarantee) {
        return add(guarantee.bytes, guarantee.low_bytes);
}

static bool is_promised(const struct owner *owner) {
        return owner->guaranteed.bytes || owner->guaranteed.low_bytes;
}

/* The sums over all owners, kept up to date by whatever changes what an owner holds. */
static struct guarantee *sums_of(const struct owner *owner) {
        return &owner->broker->unmet[owner_is_granted(owner)];
}

static void sums_leave(const struct owner *owner) {
        struct guarantee missing = unmet(owner);

        sums_of(owner)->bytes -= missing.bytes;
        sums_of(owner)->low_bytes -= missing.low_bytes;
}

static void sums_enter(const struct owner *owner) {
        struct guarantee missing = unmet(owner);

        sums_of(owner)->bytes += missing.bytes;
        sums_of(owner)->low_bytes += missing.low_bytes;
}

void owner_set_commons(struct owner *owner, struct device *device) {
        sums_leave(owner);
        owner->commons = device;
        sums_enter(owner);
}

void owner_hold(struct owner *owner, uint64_t addr, uint64_t size) {
        bool promised = is_promised(owner);

        if (promised)
                sums_leave(owner);
        owner->usage.of[QUOTA_held_bytes] += size;
        owner->held_low += low_part(addr, size);
        if (promised)
                sums_enter(owner);
}

void owner_unhold(struct owner *owner, uint64_t addr, uint64_t size) {
        bool promised = is_promised(owner);

        if (promised)
                sums_leave(owner);
        owner->usage.of[QUOTA_held_bytes] -= size;
        owner->held_low -= low_part(addr, size);
        if (promised)
                sums_enter(owner);
}

struct guarantee guarantees_count(const struct broker *broker, bool granted) {
        struct guarantee sum = {}, missing;
        const struct owner *owner;

        for (owner = broker->owners; owner; owner = owner->hh.next) {
                if (owner_is_granted(owner) != granted)
                        continue;
                missing = unmet(owner);
                sum.bytes += missing.bytes;
                sum.low_bytes += missing.low_bytes;
        }
        return sum;
}

/* ---- what may be taken ---- */

/* What is free, in stock or still with the system. Where the system would give it is known beforehand only of a source
 * that chooses, all of whose memory counts as low. */
static struct guarantee free_memory(const struct broker *broker, bool granted) {
        const struct supply *supply;
        struct guarantee all = {};

        LL_FOREACH(broker->supplies, supply) {
                if (supply_is_granted(supply) != granted)
                        continue;
                all.bytes = add(all.bytes, add(supply->free, supply->info.available));
                all.low_bytes = add(all.low_bytes, supply->free_low);
                if (supply_chooses(supply))
                        all.low_bytes = add(all.low_bytes, supply->info.available);
        }
        return all;
}

bool guarantee_covers(const struct owner *owner, uint64_t low, uint64_t high) {
        return is_promised(owner) && both(unmet(owner)) - both(unmet_with(owner, low, high)) == low + high;
}

bool guarantee_allows(const struct owner *owner, bool spared, uint64_t low, uint64_t high) {
        const struct broker *broker = owner->broker;
        struct guarantee all, own = unmet(owner), left = unmet_with(owner, low, high), sums = *sums_of(owner);
        const bool granted = owner_is_granted(owner);
        uint64_t keep, keep_low;
        const struct supply *supply;

        if (!sums.bytes && !sums.low_bytes)
                return true;
        all = free_memory(broker, granted);
        keep = both(sums) - both(own) + both(left);
        keep_low = sums.low_bytes - own.low_bytes + left.low_bytes;
        if (!spared)
                LL_FOREACH(broker->supplies, supply)
                        if (supply_is_granted(supply) == granted)
                                keep = add(keep, supply_emergency(supply));
        return minus(all.bytes, low + high) >= keep && (!low || minus(all.low_bytes, low) >= keep_low);
}

uint64_t guarantees_of_others(const struct owner *owner) {
        return both(*sums_of(owner)) - both(unmet(owner));
}

uint64_t guarantees_spare(const struct supply *supply) {
        const bool granted = supply_is_granted(supply);
        const struct supply *other;
        uint64_t stock = 0;

        LL_FOREACH(supply->broker->supplies, other)
                if (supply_is_granted(other) == granted)
                        stock = add(stock, other->free);
        return minus(stock, both(supply->broker->unmet[granted]));
}

/* ---- giving and telling guarantees ---- */

void broker_promises(const struct broker *broker, bool granted, struct promises *ret) {
        const struct supply *supply;
        const struct owner *owner;

        *ret = (struct promises){ .unmet = broker->unmet[granted] };
        for (owner = broker->owners; owner; owner = owner->hh.next) {
                if (owner_is_granted(owner) != granted)
                        continue;
                ret->guaranteed.bytes = add(ret->guaranteed.bytes, whole(owner, owner->guaranteed.bytes));
                ret->guaranteed.low_bytes = add(ret->guaranteed.low_bytes, whole(owner, owner->guaranteed.low_bytes));
        }
        LL_FOREACH(broker->supplies, supply) {
                if (supply_is_granted(supply) != granted)
                        continue;
                ret->possible.bytes = add(ret->possible.bytes, add(supply->held, supply->info.available));
                ret->possible.low_bytes = add(ret->possible.low_bytes, supply->held_low);
                if (supply_chooses(supply))
                        ret->possible.low_bytes = add(ret->possible.low_bytes, supply->info.available);
        }
}

static int refuse(const struct owner *owner, const char *where, uint64_t asked, uint64_t promised, uint64_t possible,
                  struct failure *failure) {
        failure_set(failure, REASON_no_memory,
                    "%llu bytes%s cannot be guaranteed to %s: there are %llu in all, and %llu are guaranteed to others",
                    (unsigned long long)asked, where, owner->name, (unsigned long long)possible,
                    (unsigned long long)promised);
        failure_add_number(failure, "asked", asked);
        failure_add_number(failure, "guaranteed", promised);
        failure_add_number(failure, "reachable", possible);
        return -reason_errno(REASON_no_memory);
}

static int check(struct owner *owner, const struct guarantee *asked, struct failure *failure) {
        struct guarantee before = owner->guaranteed;
        struct promises others;
        uint64_t more = both((struct guarantee){ whole(owner, asked->bytes), whole(owner, asked->low_bytes) });
        uint64_t more_low = whole(owner, asked->low_bytes);

        owner->guaranteed = (struct guarantee){};
        broker_promises(owner->broker, owner_is_granted(owner), &others);
        owner->guaranteed = before;
        if (more_low && add(more_low, others.guaranteed.low_bytes) > others.possible.low_bytes)
                return refuse(owner, " below 4 GiB", asked->low_bytes, others.guaranteed.low_bytes,
                              others.possible.low_bytes, failure);
        if (more && add(more, both(others.guaranteed)) > others.possible.bytes)
                return refuse(owner, "", add(asked->bytes, asked->low_bytes), both(others.guaranteed),
                              others.possible.bytes, failure);
        return 0;
}

static void promise(struct owner *owner, const struct guarantee *guarantee) {
        sums_leave(owner);
        owner->guaranteed = *guarantee;
        sums_enter(owner);
        requests_serve(owner->broker);
}

int guarantee_set(const struct caller *caller, const char *name, const struct guarantee *guarantee,
                  struct failure *failure) {
        struct broker *broker = caller->session->owner->broker;
        struct owner *owner;
        int r;

        if (!caller->admin)
                return failure_set(failure, REASON_not_permitted, "Only an administrator may guarantee memory");
        if (owner_get(broker, name ? name : caller->session->owner->name, &owner) < 0)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        r = check(owner, guarantee, failure);
        if (r < 0) {
                owner_forget(owner);
                return r;
        }
        owner->quota_set = owner->guarantee_told = true;
        promise(owner, guarantee);
        book_note(broker, ROW_OWNER, owner->id);
        return 0;
}

int broker_set_guarantee(struct broker *broker, const char *name, const struct guarantee *guarantee) {
        struct owner *owner;
        int r;

        r = owner_get(broker, name, &owner);
        if (r < 0)
                return r;
        owner->quota_set |= guarantee->bytes || guarantee->low_bytes;
        owner->guarantee_told = false;
        book_note(broker, ROW_OWNER, owner->id);
        promise(owner, guarantee);
        owner_forget(owner);
        return 0;
}

/* ---- the ledger ---- */

void guarantee_save(struct row_writer *row, const struct owner *owner) {
        row_number(row, owner->guarantee_told);
        row_number(row, owner->guarantee_told ? owner->guaranteed.bytes : 0);
        row_number(row, owner->guarantee_told ? owner->guaranteed.low_bytes : 0);
}

/* It was possible when it was given; if the sources have less now, it is kept as far as they go. */
void guarantee_load(struct load *load, struct owner *owner) {
        bool told = row_read_number(&load->row);
        struct guarantee guarantee = { .bytes = row_read_number(&load->row) };

        guarantee.low_bytes = row_read_number(&load->row);
        if (!told)
                return;
        owner->quota_set = owner->guarantee_told = true;
        sums_leave(owner);
        owner->guaranteed = guarantee;
        sums_enter(owner);
}

void guarantees_recount(struct broker *broker) {
        broker->unmet[false] = guarantees_count(broker, false);
        broker->unmet[true] = guarantees_count(broker, true);
}

struct guarantee guarantee_unmet(const struct owner *owner) {
        return unmet(owner);
}
