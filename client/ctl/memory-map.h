/* What lies where in the memory of one source: the model behind the picture that "dmabrokerctl map" draws. */
#ifndef DMAB_CTL_MEMORY_MAP_H
#define DMAB_CTL_MEMORY_MAP_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum piece_kind {
        PIECE_FREE,   /* in no region */
        PIECE_REGION, /* an extent of a region; the allocations in it are pieces of their own */
        PIECE_ALLOC,
};

struct piece {
        enum piece_kind kind;
        uint64_t addr, size;
        uint64_t handle;   /* of the region or allocation; 0 for free memory */
        uint64_t pool, bounce; /* that an allocation belongs to, or 0 */
        const char *owner; /* "" for free memory; borrowed from the lists */
        uint64_t packed;   /* where it would start if all gaps before it were left out */
};

/* Pieces that lie close to each other. Between them may be memory that is not the source's, or that the caller may not
 * see. */
struct span {
        uint64_t addr, size;
        size_t first, n_pieces;
};

struct memory_map {
        struct piece *pieces; /* by address; a region before its allocations */
        size_t n_pieces;
        struct span *spans;
        size_t n_spans;
        size_t n_free_runs, n_extents;
        uint64_t total; /* bytes of all pieces, gaps left out */
};

/* source: an element of broker.status' sources, with free_runs; regions and allocs: the lists of region.list and
 * coherent.list. The map borrows from them. -ENOMEM. */
int memory_map_init(struct memory_map *map, json_t *source, json_t *regions, json_t *allocs);
void memory_map_deinit(struct memory_map *map);

/* The map as JSON: spans with their pieces. */
json_t *memory_map_json(const struct memory_map *map);

#endif
