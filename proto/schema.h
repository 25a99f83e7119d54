/* The protocol's tables: what a method is called, what it takes, what it gives back, who may call it. The decoder, the
 * encoder, the dispatch, rpc.discover, the manual page and the CLI's help all read the same rows.
 *
 * Parameters and results are plain C structs. A row says where its member lies. Rules for such a struct, which
 * schema_table_check() verifies:
 *   - the first member is `uint64_t present`; optional members are there only if their bit is set: schema_has(),
 *     schema_put(). Required members have their bit set by the decoder, and need none when encoded.
 *   - every member starts at a multiple of 8 bytes of its own (SCHEMA_SLOT for bool and enum), because the number of
 *     its presence bit is its offset / 8;
 *   - rows and members are in the same order, and a member has the name it has on the wire.
 *
 * Strings and lists in decoded parameters are borrowed: they live as long as the call they came with. Those in
 * results need to live only until the function that encodes them returns. */
#ifndef DMAB_PROTO_SCHEMA_H
#define DMAB_PROTO_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/reason.h"

/* The largest integer that every JSON implementation carries unharmed. */
#define SCHEMA_INTEGER_MAX ((UINT64_C(1) << 53) - 1)

enum schema_type {
        SCHEMA_BOOL,   /* bool */
        SCHEMA_UINT,   /* uint64_t: sizes, offsets, counts, handles; at most SCHEMA_INTEGER_MAX */
        SCHEMA_INT,    /* int64_t: within +-SCHEMA_INTEGER_MAX */
        SCHEMA_NUMBER, /* double */
        SCHEMA_HEX,    /* uint64_t: addresses and masks, "0x…" on the wire */
        SCHEMA_STRING, /* const char *: UTF-8 without NUL */
        SCHEMA_ENUM,   /* an enum that counts from 0 as the row's names do */
        SCHEMA_OBJECT, /* a struct that the row's sub describes, embedded */
        SCHEMA_RAW,    /* struct schema_raw: any JSON text, unchecked */
};

struct schema_raw {
        const char *text;
        size_t length;
};

/* A list's member: SCHEMA_LIST(uint64_t) handles; */
#define SCHEMA_LIST(type)           \
        struct {                    \
                const type *items;  \
                size_t count;       \
        }

#define SCHEMA_SLOT __attribute__((aligned(8)))

#define SCHEMA_BIT(structure, member) (UINT64_C(1) << (offsetof(structure, member) / 8))
/* Is the optional member there? */
#define schema_has(object, member) (((object)->present & SCHEMA_BIT(__typeof__(*(object)), member)) != 0)
/* Give an optional member a value. */
#define schema_put(object, member, value)                                               \
        ((void)((object)->member = (value),                                             \
                (object)->present |= SCHEMA_BIT(__typeof__(*(object)), member)))
/* Mark an optional member, filled in by other means, as there. */
#define schema_mark(object, member) ((void)((object)->present |= SCHEMA_BIT(__typeof__(*(object)), member)))

struct schema_struct;

struct schema_field {
        const char *name;
        enum schema_type type;
        bool array;    /* a SCHEMA_LIST of the type; of strings: SCHEMA_LIST(char *const) */
        bool required;
        bool nullable; /* null is taken as absent */
        uint16_t offset, size;
        uint64_t min, max; /* of an integer (SCHEMA_INT: as int64_t) or a string's bytes; both 0: the type's own */
        uint64_t max_items; /* of an array in params; 0: the limits on the message are enough */
        const char *const *names;        /* SCHEMA_ENUM; ends with NULL */
        const struct schema_struct *sub; /* SCHEMA_OBJECT */
        const char *doc;                 /* a phrase or sentences, no full stop at the end */
};

struct schema_struct {
        const char *name;
        size_t size;
        const struct schema_field *fields;
        size_t n_fields;
};

enum schema_role {
        SCHEMA_ROLE_ANY,   /* guests too */
        SCHEMA_ROLE_LOCAL, /* local users and administrators */
        SCHEMA_ROLE_ADMIN,
};

/* fds_when of a method that may pass descriptors whatever its parameters say. */
#define SCHEMA_FDS_ALWAYS 0

struct schema_method {
        unsigned id; /* its index in the table */
        const char *name, *summary, *doc;
        const struct schema_struct *params;  /* NULL: takes none */
        const struct schema_struct *results; /* NULL: any JSON, given as struct schema_raw */
        const enum reason *errors;           /* ends with REASON_NONE; besides bad parameters; NULL: none */
        enum schema_role role;
        unsigned fds_max;  /* descriptors that may travel with the reply; the result then has "fds": N */
        uint16_t fds_when; /* offset of the bool parameter that asks for them, or SCHEMA_FDS_ALWAYS */
        bool takes;        /* takes something, so it has request_key */
};

struct schema_table {
        const char *title, *version, *description;
        const struct schema_method *methods;
        size_t n_methods;
};

/* Does every row keep the rules above? 0, or -EINVAL and a sentence in text. For tests. */
int schema_table_check(const struct schema_table *table, char *text, size_t text_size);

/* The method with that name, or NULL. A linear search: the dispatch has its own index. */
const struct schema_method *schema_method_find(const struct schema_table *table, const char *name);

/* Bytes of one value of the row's type in memory, be it the member itself or an element of its list. */
size_t schema_item_size(const struct schema_field *field);

const char *schema_role_name(enum schema_role role);
/* One word or two for people: "integer", "hex string", "array of string" … */
const char *schema_type_name(enum schema_type type);

#endif
