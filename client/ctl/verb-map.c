/* map: a picture of memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "client/ctl/memory-map.h"
#include "client/ctl/show.h"
#include "client/ctl/verbs.h"

enum {
        WIDTH_DEFAULT = 80,
        WIDTH_LEAST = 20,
        WIDTH_MOST = 1000,
        RUNS_MAX = 10000, /* free runs to ask for */
        LETTERS = 26,     /* owners with a letter of their own; the others share one */
        PAGE = 4096,
        SPANS_MAX = 8,   /* spans that are drawn each on its own */
        PACKED_ROWS = 4, /* lines for all of it otherwise */
};

static const struct ctl_option options[] = {
        { "--width", "COLUMNS", "how wide to draw; the terminal's width, or 80, unless given" },
        { NULL },
};

/* ---- owners ---- */

struct owners {
        const char *names[LETTERS];
        uint64_t bytes[LETTERS + 1]; /* allocated; the last: of all the others */
        uint64_t pools[LETTERS + 1], bounces[LETTERS + 1]; /* ... of these in pools, in bounce pools */
        size_t n;
};

/* An owner's place; LETTERS for those without a letter. */
static size_t owner_find(const struct owners *owners, const char *name) {
        for (size_t i = 0; i < owners->n; i++)
                if (!strcmp(owners->names[i], name))
                        return i;
        return LETTERS;
}

static void owners_count(struct owners *owners, const struct memory_map *map) {
        for (size_t i = 0; i < map->n_pieces; i++) {
                const struct piece *piece = &map->pieces[i];
                size_t owner = owner_find(owners, piece->owner);

                if (piece->kind == PIECE_FREE)
                        continue;
                if (owner == LETTERS && owners->n < LETTERS) {
                        owner = owners->n++;
                        owners->names[owner] = piece->owner;
                }
                if (piece->kind != PIECE_ALLOC)
                        continue;
                owners->bytes[owner] += piece->size;
                owners->pools[owner] += piece->pool ? piece->size : 0;
                owners->bounces[owner] += piece->bounce ? piece->size : 0;
        }
}

static char owner_letter(size_t owner) {
        return owner < LETTERS ? 'A' + owner : '@';
}

/* ---- cells ---- */

/* A column of the strip: how many of its bytes are what. */
struct cell {
        uint64_t free, held;
        uint64_t pooled; /* of what is used: in slabs of pools and parts of bounce pools */
        uint64_t used[LETTERS + 1];
};

static uint64_t smaller(uint64_t a, uint64_t b) {
        return a < b ? a : b;
}

static void cells_add(struct cell *cells, uint64_t cell_size, uint64_t offset, const struct piece *piece, size_t owner) {
        uint64_t size = piece->size;

        while (size) {
                struct cell *cell = &cells[offset / cell_size];
                uint64_t here = smaller(size, cell_size - offset % cell_size);

                if (piece->kind == PIECE_FREE)
                        cell->free += here;
                else if (piece->kind == PIECE_REGION)
                        cell->held += here;
                else
                        cell->used[owner] += here;
                if (piece->pool || piece->bounce)
                        cell->pooled += here;
                offset += here;
                size -= here;
        }
}

/* A capital where the better part of the column is allocated, a small letter where some is. *ret_pooled: most of what is
 * allocated is in pools. */
static char cell_draw(const struct cell *cell, size_t *ret_owner, bool *ret_pooled) {
        uint64_t used = 0, most = 0;

        *ret_owner = LETTERS + 1;
        for (size_t i = 0; i <= LETTERS; i++) {
                used += cell->used[i];
                if (cell->used[i] > most) {
                        most = cell->used[i];
                        *ret_owner = i;
                }
        }
        *ret_pooled = cell->pooled * 2 > used;
        if (used) {
                char letter = owner_letter(*ret_owner);

                return used * 2 > cell->free + cell->held || letter == '@' ? letter : letter - 'A' + 'a';
        }
        if (cell->held || cell->free)
                return cell->held > cell->free ? '-' : '.';
        return ' ';
}

static void put_cell(char mark, size_t owner, bool pooled) {
        if (show_terminal() && owner <= LETTERS)
                printf("\033[%s7;3%zum%c\033[0m", pooled ? "4;" : "", 1 + owner % 6, mark);
        else
                putchar(mark);
}

static uint64_t round_up(uint64_t value, uint64_t to) {
        return value / to * to + (value % to ? to : 0);
}

/* Rows of cells for the pieces from `first` on; `base` is the packed place or, with gaps, the address that they start
 * at. */
static int draw_strip(const struct memory_map *map, size_t first, size_t n_pieces, bool with_gaps, uint64_t base,
                      uint64_t cell_size, size_t n_cells, size_t width, const struct owners *owners) {
        struct cell *cells = calloc(n_cells, sizeof(*cells));
        size_t owner;
        bool pooled;

        if (!cells)
                return -1;
        for (size_t i = first; i < first + n_pieces; i++) {
                const struct piece *piece = &map->pieces[i];

                cells_add(cells, cell_size, (with_gaps ? piece->addr : piece->packed) - base, piece,
                          owner_find(owners, piece->owner));
        }
        for (size_t i = 0; i < n_cells; i++) {
                char mark = cell_draw(&cells[i], &owner, &pooled);

                if (i % width == 0)
                        fputs(i ? "]\n[" : "[", stdout);
                put_cell(mark, owner, pooled);
        }
        puts("]");
        free(cells);
        return 0;
}

static int draw_span(const struct memory_map *map, const struct span *span, const struct owners *owners, size_t width) {
        uint64_t cell_size = round_up(span->size / (width - 2) + 1, PAGE);
        char size[SHOW_SIZE], each[SHOW_SIZE];

        printf("0x%llx-0x%llx  %s, %s a column\n", (unsigned long long)span->addr,
               (unsigned long long)(span->addr + span->size - 1), show_bytes(span->size, size),
               show_bytes(cell_size, each));
        return draw_strip(map, span->first, span->n_pieces, true, span->addr, cell_size,
                          (span->size + cell_size - 1) / cell_size, width - 2, owners);
}

/* Huge pages lie all over the machine: a line for each would be no picture. */
static int draw_packed(const struct memory_map *map, const struct owners *owners, size_t width) {
        const struct span *last = &map->spans[map->n_spans - 1];
        uint64_t cell_size = round_up(map->total / (PACKED_ROWS * (width - 2)) + 1, PAGE);
        char size[SHOW_SIZE], each[SHOW_SIZE];

        printf("0x%llx-0x%llx  %s without the gaps, %s a column\n", (unsigned long long)map->spans[0].addr,
               (unsigned long long)(last->addr + last->size - 1), show_bytes(map->total, size),
               show_bytes(cell_size, each));
        return draw_strip(map, 0, map->n_pieces, false, 0, cell_size, (map->total + cell_size - 1) / cell_size,
                          width - 2, owners);
}

static int draw_map(const struct memory_map *map, const struct owners *owners, size_t width) {
        int r = 0;

        if (map->n_spans > SPANS_MAX)
                return draw_packed(map, owners, width);
        for (size_t i = 0; i < map->n_spans && !r; i++)
                r = draw_span(map, &map->spans[i], owners, width);
        return r;
}

/* ---- the picture ---- */

/* How much of the free memory cannot be had in one piece. */
static unsigned fragmentation(json_t *source) {
        uint64_t free_bytes = show_uint(source, "free"), largest = show_uint(source, "largest_free");

        return free_bytes && largest < free_bytes ? 100 - (unsigned)(largest * 100.0 / free_bytes) : 0;
}

static void draw_figures(json_t *source, const struct memory_map *map) {
        char name[SHOW_SIZE], addressing[SHOW_SIZE], bytes[5][SHOW_SIZE];

        printf("%s (%s): %s, of these %s free, %s in regions, %s allocated\n", show_member(source, "name", name),
               show_member(source, "addressing", addressing), show_member_bytes(source, "total", bytes[0]),
               show_member_bytes(source, "free", bytes[1]), show_member_bytes(source, "in_regions", bytes[2]),
               show_member_bytes(source, "used", bytes[3]));
        printf("free memory in %zu run%s, the largest %s, %u%% fragmented; %zu extent%s\n", map->n_free_runs,
               map->n_free_runs == 1 ? "" : "s", show_member_bytes(source, "largest_free", bytes[4]),
               fragmentation(source), map->n_extents, map->n_extents == 1 ? "" : "s");
}

static void draw_nothing(json_t *source) {
        char name[SHOW_SIZE], addressing[SHOW_SIZE];

        printf("%s (%s): nothing yet; \"dmabrokerctl status\" says more\n\n", show_member(source, "name", name),
               show_member(source, "addressing", addressing));
}

static void draw_legend(const struct owners *owners) {
        char bytes[SHOW_SIZE];
        bool pooled = false;

        for (size_t i = 0; i < owners->n; i++) {
                put_cell(owner_letter(i), i, false);
                printf(" %s, %s allocated", owners->names[i], show_bytes(owners->bytes[i], bytes));
                if (owners->pools[i])
                        printf(", of these %s in pools", show_bytes(owners->pools[i], bytes));
                if (owners->bounces[i])
                        printf(", of these %s in bounce pools", show_bytes(owners->bounces[i], bytes));
                putchar('\n');
                pooled |= owners->pools[i] || owners->bounces[i];
        }
        if (owners->bytes[LETTERS])
                printf("@ other owners, %s allocated\n", show_bytes(owners->bytes[LETTERS], bytes));
        if (pooled && show_terminal())
                puts("\033[4munderlined\033[0m: most of what is allocated is in pools or bounce pools");
        puts("small letters: at most half of the column is allocated\n"
             "- held by an owner, not allocated\n"
             ". free\n"
             "  not the broker's, or not yours to see");
}

static enum ctl_status draw(json_t *sources, json_t *regions, json_t *allocs, size_t width) {
        enum ctl_status status = CTL_OK;
        struct owners owners = { 0 };
        json_t *source;
        size_t i;

        json_array_foreach(sources, i, source) {
                struct memory_map map;

                if (!show_uint(source, "total")) {
                        if (!strcmp(json_string_value(json_object_get(source, "state")), "ready"))
                                draw_nothing(source);
                        continue;
                }
                if (memory_map_init(&map, source, regions, allocs))
                        return CTL_FAILURE;
                owners_count(&owners, &map);
                draw_figures(source, &map);
                if (draw_map(&map, &owners, width))
                        status = CTL_FAILURE;
                putchar('\n');
                memory_map_deinit(&map);
        }
        draw_legend(&owners);
        return status;
}

static enum ctl_status print_json(json_t *sources, json_t *regions, json_t *allocs) {
        json_t *source, *result;
        size_t i;

        json_array_foreach(sources, i, source) {
                struct memory_map map;

                if (memory_map_init(&map, source, regions, allocs))
                        return CTL_FAILURE;
                json_object_set_new(source, "spans", memory_map_json(&map));
                json_object_set_new(source, "fragmentation_percent", json_integer(fragmentation(source)));
                json_object_del(source, "free_runs");
                memory_map_deinit(&map);
        }
        result = json_pack("{s:O}", "sources", sources);
        ctl_print_json(result);
        json_decref(result);
        return CTL_OK;
}

static size_t terminal_width(void) {
        struct winsize size;

        if (show_terminal() && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_col >= WIDTH_LEAST)
                return smaller(size.ws_col, WIDTH_MOST);
        return WIDTH_DEFAULT;
}

static enum ctl_status run_map(struct ctl *ctl) {
        json_t *status = NULL, *regions = NULL, *allocs = NULL;
        uint64_t width = terminal_width();
        enum ctl_status end = CTL_OK;

        if (ctl_has(ctl, "--width"))
                end = ctl_parse_uint(ctl, "--width", ctl_value(ctl, "--width"), &width);
        if (end == CTL_OK && (width < WIDTH_LEAST || width > WIDTH_MOST))
                end = ctl_misuse(ctl, "--width must be from %d to %d", WIDTH_LEAST, WIDTH_MOST);
        if (end == CTL_OK)
                end = ctl_call(ctl, "broker.status", json_pack("{s:i}", "runs", RUNS_MAX), &status);
        if (end == CTL_OK)
                end = ctl_list(ctl, "region.list", NULL, "regions", "region", &regions);
        if (end == CTL_OK)
                end = ctl_list(ctl, "coherent.list", NULL, "allocs", "alloc", &allocs);
        if (end == CTL_OK) {
                json_t *sources = json_object_get(status, "sources");

                end = ctl->json ? print_json(sources, json_object_get(regions, "regions"),
                                             json_object_get(allocs, "allocs"))
                                : draw(sources, json_object_get(regions, "regions"), json_object_get(allocs, "allocs"),
                                       width);
        }
        json_decref(status);
        json_decref(regions);
        json_decref(allocs);
        return end;
}

const struct ctl_verb verb_map = {
        .name = "map",
        .operands = "",
        .summary = "draw memory: who has what, and where",
        .doc = "For each source, a strip for each span of addresses: letters are owners, dots are free. Memory that "
               "lies in many "
               "places is drawn as one, without the gaps. Shows how fragmented the free memory is: how much of it "
               "cannot be "
               "had in one piece.",
        .options = options,
        .run = run_map,
};
