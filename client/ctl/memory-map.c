#include "client/ctl/memory-map.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/show.h"

static const char *text_of(json_t *object, const char *name) {
        const char *text = json_string_value(json_object_get(object, name));

        return text ? text : "";
}

static int add_piece(struct memory_map *map, size_t *room, const struct piece *piece) {
        if (!piece->size || piece->size > UINT64_MAX - piece->addr)
                return 0;
        if (map->n_pieces == *room) {
                struct piece *larger = reallocarray(map->pieces, *room ? *room * 2 : 64, sizeof(*larger));

                if (!larger)
                        return -ENOMEM;
                map->pieces = larger;
                *room = *room ? *room * 2 : 64;
        }
        map->pieces[map->n_pieces++] = *piece;
        return 0;
}

static int add_free(struct memory_map *map, size_t *room, json_t *runs) {
        json_t *run;
        size_t i;

        json_array_foreach(runs, i, run) {
                struct piece piece = { .kind = PIECE_FREE, .size = show_uint(run, "size"), .owner = "" };

                if (show_address(run, "machine_addr", &piece.addr) && add_piece(map, room, &piece))
                        return -ENOMEM;
                map->n_free_runs++;
        }
        return 0;
}

static int add_region(struct memory_map *map, size_t *room, json_t *region) {
        json_t *extent;
        size_t i;

        json_array_foreach(json_object_get(region, "extents"), i, extent) {
                struct piece piece = {
                        .kind = PIECE_REGION,
                        .size = show_uint(extent, "size"),
                        .handle = show_uint(region, "region"),
                        .owner = text_of(region, "owner"),
                };

                if (show_address(extent, "machine_addr", &piece.addr) && add_piece(map, room, &piece))
                        return -ENOMEM;
                map->n_extents++;
        }
        return 0;
}

/* By address; what lies in something comes after it. */
static int compare(const void *left, const void *right) {
        const struct piece *l = left, *r = right;

        if (l->addr != r->addr)
                return l->addr < r->addr ? -1 : 1;
        return (int)l->kind - (int)r->kind;
}

/* The extent that holds an address, among the n pieces that are sorted and do not overlap. */
static const struct piece *find_extent(const struct memory_map *map, size_t n, uint64_t addr) {
        size_t low = 0, high = n;

        while (low < high) {
                size_t middle = (low + high) / 2;

                if (map->pieces[middle].addr <= addr)
                        low = middle + 1;
                else
                        high = middle;
        }
        if (!low || addr - map->pieces[low - 1].addr >= map->pieces[low - 1].size)
                return NULL;
        return &map->pieces[low - 1];
}

/* Allocations do not say what source they are from, but the extents that they lie in are the source's. */
static int add_allocs(struct memory_map *map, size_t *room, json_t *allocs) {
        size_t n = map->n_pieces, i;
        json_t *alloc;

        qsort(map->pieces, n, sizeof(*map->pieces), compare);
        json_array_foreach(allocs, i, alloc) {
                struct piece piece = {
                        .kind = PIECE_ALLOC,
                        .size = show_uint(alloc, "size"),
                        .handle = show_uint(alloc, "alloc"),
                        .pool = show_uint(alloc, "pool"),
                        .bounce = show_uint(alloc, "bounce"),
                        .owner = text_of(alloc, "owner"),
                };
                const struct piece *extent;

                if (!show_address(alloc, "machine_addr", &piece.addr))
                        continue;
                extent = find_extent(map, n, piece.addr);
                if (extent && extent->kind == PIECE_REGION && extent->handle == show_uint(alloc, "region") &&
                    add_piece(map, room, &piece))
                        return -ENOMEM;
        }
        return 0;
}

/* A gap of more than a sixteenth of all that there is would fill a line with nothing. */
static int make_spans(struct memory_map *map) {
        uint64_t total = 0, end = 0;

        map->spans = calloc(map->n_pieces + 1, sizeof(*map->spans));
        if (!map->spans)
                return -ENOMEM;
        for (size_t i = 0; i < map->n_pieces; i++)
                total += map->pieces[i].kind == PIECE_ALLOC ? 0 : map->pieces[i].size;
        for (size_t i = 0; i < map->n_pieces; i++) {
                const struct piece *piece = &map->pieces[i];
                struct span *span = &map->spans[map->n_spans ? map->n_spans - 1 : 0];

                if (!map->n_spans || (piece->addr > end && piece->addr - end > total / 16)) {
                        span = &map->spans[map->n_spans++];
                        *span = (struct span){ .addr = piece->addr, .first = i };
                        end = piece->addr;
                }
                if (piece->addr + piece->size > end)
                        end = piece->addr + piece->size;
                span->size = end - span->addr;
                span->n_pieces++;
        }
        return 0;
}

static void pack(struct memory_map *map) {
        const struct piece *around = NULL; /* the extent that allocations lie in */

        for (size_t i = 0; i < map->n_pieces; i++) {
                struct piece *piece = &map->pieces[i];

                if (piece->kind == PIECE_ALLOC) {
                        piece->packed = around ? around->packed + (piece->addr - around->addr) : map->total;
                } else {
                        piece->packed = map->total;
                        map->total += piece->size;
                        around = piece;
                }
        }
}

int memory_map_init(struct memory_map *map, json_t *source, json_t *regions, json_t *allocs) {
        json_t *region;
        size_t room = 0, i;
        int r;

        *map = (struct memory_map){ 0 };
        r = add_free(map, &room, json_object_get(source, "free_runs"));
        json_array_foreach(regions, i, region)
                if (!r && !strcmp(text_of(region, "source"), text_of(source, "name")))
                        r = add_region(map, &room, region);
        if (!r && map->n_pieces)
                r = add_allocs(map, &room, allocs);
        if (!r && map->n_pieces)
                qsort(map->pieces, map->n_pieces, sizeof(*map->pieces), compare);
        pack(map);
        if (!r)
                r = make_spans(map);
        if (r)
                memory_map_deinit(map);
        return r;
}

void memory_map_deinit(struct memory_map *map) {
        free(map->pieces);
        free(map->spans);
        *map = (struct memory_map){ 0 };
}

static json_t *piece_json(const struct piece *piece) {
        static const char *const kinds[] = {
                [PIECE_FREE] = "free", [PIECE_REGION] = "region", [PIECE_ALLOC] = "alloc"
        };
        char addr[24];
        json_t *object;

        snprintf(addr, sizeof(addr), "0x%llx", (unsigned long long)piece->addr);
        object = json_pack("{s:s, s:s, s:I}", "kind", kinds[piece->kind], "machine_addr", addr, "size",
                           (json_int_t)piece->size);
        if (piece->kind != PIECE_FREE) {
                json_object_set_new(object, "owner", json_string(piece->owner));
                json_object_set_new(object, kinds[piece->kind], json_integer(piece->handle));
        }
        if (piece->pool)
                json_object_set_new(object, "pool", json_integer((json_int_t)piece->pool));
        if (piece->bounce)
                json_object_set_new(object, "bounce", json_integer((json_int_t)piece->bounce));
        return object;
}

json_t *memory_map_json(const struct memory_map *map) {
        json_t *spans = json_array();

        for (size_t i = 0; i < map->n_spans; i++) {
                const struct span *span = &map->spans[i];
                json_t *pieces = json_array();
                char addr[24];

                for (size_t p = 0; p < span->n_pieces; p++)
                        json_array_append_new(pieces, piece_json(&map->pieces[span->first + p]));
                snprintf(addr, sizeof(addr), "0x%llx", (unsigned long long)span->addr);
                json_array_append_new(spans, json_pack("{s:s, s:I, s:o}", "machine_addr", addr, "size",
                                                       (json_int_t)span->size, "pieces", pieces));
        }
        return spans;
}
