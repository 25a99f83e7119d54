/* Memory for the JSON parser. When an allocation fails in the middle of a long string, jansson 2.14 goes on as if it had
 * not, and writes beyond its buffer. So it gets memory from a reserve when there is no other. */
#ifndef DMAB_RPC_JSON_MEMORY_H
#define DMAB_RPC_JSON_MEMORY_H

#include <stddef.h>

/* For the whole process, before the first text is parsed. From then on only one thread may use jansson. */
void json_memory_init(void);

/* What jansson is given; for tests. */
void *json_memory_take(size_t size);
void json_memory_give(void *memory);

#endif
