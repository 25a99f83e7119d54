#include "proto/schema.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct check {
        char *text;
        size_t text_size;
        const char *where;
};

static int complain(const struct check *check, const char *field, const char *what) {
        snprintf(check->text, check->text_size, "%s.%s: %s", check->where, field, what);
        return -EINVAL;
}

size_t schema_item_size(const struct schema_field *field) {
        switch (field->type) {
        case SCHEMA_BOOL:
                return sizeof(bool);
        case SCHEMA_ENUM:
                return sizeof(int);
        case SCHEMA_STRING:
                return sizeof(char *);
        case SCHEMA_OBJECT:
                return field->sub ? field->sub->size : 0;
        case SCHEMA_RAW:
                return sizeof(struct schema_raw);
        default:
                return sizeof(uint64_t);
        }
}

static int check_struct(const struct check *outer, const struct schema_struct *structure);

static int check_field(const struct check *check, const struct schema_struct *structure, size_t index) {
        const struct schema_field *field = &structure->fields[index];
        size_t end = index ? structure->fields[index - 1].offset + structure->fields[index - 1].size : sizeof(uint64_t);

        if (!field->doc || !*field->doc || field->doc[strlen(field->doc) - 1] == '.')
                return complain(check, field->name, "has no documentation, or ends it with a full stop");
        if (field->offset % 8 || field->offset < end || field->offset / 8 > 63 ||
            field->offset + field->size > structure->size)
                return complain(check, field->name, "has no slot of its own, or is out of order");
        if (field->size != (field->array ? sizeof(SCHEMA_LIST(void)) : schema_item_size(field)))
                return complain(check, field->name, "has a member of another size than its type");
        if ((field->type == SCHEMA_ENUM) != !!field->names || (field->type == SCHEMA_OBJECT) != !!field->sub)
                return complain(check, field->name, "lacks names or a sub-table, or has one in vain");
        if (field->min > field->max && field->type != SCHEMA_INT)
                return complain(check, field->name, "has an empty range");
        for (size_t i = 0; i < index; i++)
                if (!strcmp(structure->fields[i].name, field->name))
                        return complain(check, field->name, "is there twice");
        return field->sub ? check_struct(check, field->sub) : 0;
}

static int check_struct(const struct check *outer, const struct schema_struct *structure) {
        struct check check = *outer;
        int r;

        check.where = structure->name;
        for (size_t i = 0; i < structure->n_fields; i++) {
                r = check_field(&check, structure, i);
                if (r)
                        return r;
        }
        return 0;
}

static const struct schema_field *find_field(const struct schema_struct *structure, const char *name) {
        for (size_t i = 0; structure && i < structure->n_fields; i++)
                if (!strcmp(structure->fields[i].name, name))
                        return &structure->fields[i];
        return NULL;
}

static int check_method(const struct check *outer, const struct schema_method *method) {
        struct check check = *outer;
        const struct schema_field *flag = NULL;
        int r = 0;

        check.where = method->name;
        if (!method->summary)
                return complain(&check, "summary", "is missing");
        for (size_t i = 0; method->fds_when && method->params && i < method->params->n_fields; i++)
                if (method->params->fields[i].offset == method->fds_when)
                        flag = &method->params->fields[i];
        if (method->fds_when && (!method->fds_max || !flag || flag->type != SCHEMA_BOOL))
                return complain(&check, "fds_when", "names no bool parameter");
        if (method->takes != !!find_field(method->params, "request_key"))
                return complain(&check, "request_key", "is what a method has that takes something, and no other");
        if (find_field(method->results, "fds"))
                return complain(&check, "fds", "is written by the dispatch");
        if (method->params)
                r = check_struct(&check, method->params);
        if (!r && method->results)
                r = check_struct(&check, method->results);
        return r;
}

int schema_table_check(const struct schema_table *table, char *text, size_t text_size) {
        struct check check = { .text = text, .text_size = text_size };
        int r;

        for (size_t i = 0; i < table->n_methods; i++) {
                check.where = table->methods[i].name ? table->methods[i].name : "unnamed method";
                if (!table->methods[i].name || table->methods[i].id != i)
                        return complain(&check, "id", "is not its index");
                if (schema_method_find(table, table->methods[i].name) != &table->methods[i])
                        return complain(&check, "name", "is there twice");
                r = check_method(&check, &table->methods[i]);
                if (r)
                        return r;
        }
        return 0;
}

const struct schema_method *schema_method_find(const struct schema_table *table, const char *name) {
        for (size_t i = 0; i < table->n_methods; i++)
                if (table->methods[i].name && !strcmp(table->methods[i].name, name))
                        return &table->methods[i];
        return NULL;
}

const char *schema_role_name(enum schema_role role) {
        return role == SCHEMA_ROLE_ADMIN ? "admin" : role == SCHEMA_ROLE_LOCAL ? "local" : "any";
}

const char *schema_type_name(enum schema_type type) {
        switch (type) {
        case SCHEMA_BOOL:
                return "boolean";
        case SCHEMA_UINT:
        case SCHEMA_INT:
                return "integer";
        case SCHEMA_NUMBER:
                return "number";
        case SCHEMA_HEX:
                return "hex string";
        case SCHEMA_STRING:
        case SCHEMA_ENUM:
                return "string";
        case SCHEMA_OBJECT:
                return "object";
        case SCHEMA_RAW:
                return "any JSON";
        }
        return "unknown";
}
