/* A table as an OpenRPC document. */
#ifndef DMAB_PROTO_DISCOVER_H
#define DMAB_PROTO_DISCOVER_H

#include "proto/schema.h"
#include "proto/writer.h"

/* The writer remembers a lack of memory. */
void discover_write(const struct schema_table *table, struct json_writer *writer);

#endif
