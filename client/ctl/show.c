#include "client/ctl/show.h"

#include <errno.h>
#include <libsmartcols.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/ctl/bar.h"

enum { BAR_WIDTH = 12 };

bool show_terminal(void) {
        return isatty(STDOUT_FILENO);
}

uint64_t show_uint(json_t *object, const char *name) {
        json_int_t value = json_integer_value(json_object_get(object, name));

        return value > 0 ? (uint64_t)value : 0;
}

bool show_address(json_t *object, const char *name, uint64_t *ret) {
        const char *text = json_string_value(json_object_get(object, name));

        if (!text)
                return false;
        *ret = strtoull(text, NULL, 16);
        return true;
}

const char *show_member(json_t *object, const char *name, char buffer[SHOW_SIZE]) {
        json_t *value = json_object_get(object, name);

        switch (value ? json_typeof(value) : JSON_NULL) {
        case JSON_STRING:
                return *json_string_value(value) ? json_string_value(value) : "-";
        case JSON_INTEGER:
                snprintf(buffer, SHOW_SIZE, "%lld", (long long)json_integer_value(value));
                return buffer;
        case JSON_REAL:
                snprintf(buffer, SHOW_SIZE, "%.1f", json_real_value(value));
                return buffer;
        case JSON_TRUE:
                return "yes";
        case JSON_FALSE:
                return "no";
        case JSON_ARRAY:
                snprintf(buffer, SHOW_SIZE, "%zu", json_array_size(value));
                return buffer;
        default:
                return "-";
        }
}

const char *show_bytes(uint64_t bytes, char buffer[SHOW_SIZE]) {
        static const char suffixes[] = "KMGTPE";
        const char *suffix = suffixes;
        double value = bytes / 1024.0;

        if (!show_terminal() || bytes < 1024) {
                snprintf(buffer, SHOW_SIZE, "%llu", (unsigned long long)bytes);
                return buffer;
        }
        for (; value >= 1024 && suffix[1]; suffix++)
                value /= 1024;
        snprintf(buffer, SHOW_SIZE, value == (uint64_t)value ? "%.0f%c" : "%.1f%c", value, *suffix);
        return buffer;
}

const char *show_member_bytes(json_t *object, const char *name, char buffer[SHOW_SIZE]) {
        if (!json_is_integer(json_object_get(object, name)))
                return "-";
        return show_bytes(show_uint(object, name), buffer);
}

const char *show_member_ms(json_t *object, const char *name, char buffer[SHOW_SIZE]) {
        uint64_t ms = show_uint(object, name), seconds = ms / 1000;

        if (!json_is_integer(json_object_get(object, name)))
                return "-";
        if (!show_terminal())
                snprintf(buffer, SHOW_SIZE, "%llu", (unsigned long long)ms);
        else if (ms < 10000)
                snprintf(buffer, SHOW_SIZE, "%.1fs", ms / 1000.0);
        else if (seconds < 3600)
                snprintf(buffer, SHOW_SIZE, "%llum%02llus", (unsigned long long)seconds / 60,
                         (unsigned long long)seconds % 60);
        else
                snprintf(buffer, SHOW_SIZE, "%lluh%02llum", (unsigned long long)seconds / 3600,
                         (unsigned long long)seconds / 60 % 60);
        return buffer;
}

void show_pair(const char *name, const char *value) {
        printf(show_terminal() ? "%-15s %s\n" : "%s %s\n", name, value);
}

void show_pairs(json_t *object) {
        char buffer[SHOW_SIZE];
        const char *name;
        json_t *value;

        json_object_foreach(object, name, value)
                if (!json_is_array(value) && !json_is_object(value))
                        show_pair(name, show_member(object, name, buffer));
}

static const char *show_member_mask(json_t *object, const char *name, char buffer[SHOW_SIZE]) {
        uint64_t mask;

        if (!show_terminal() || !show_address(object, name, &mask) || (mask & (mask + 1)))
                return show_member(object, name, buffer);
        snprintf(buffer, SHOW_SIZE, "%d bits", __builtin_popcountll(mask));
        return buffer;
}

/* ---- cells of tables ---- */

static double percent(uint64_t part, uint64_t total) {
        return (double)(uint64_t)((double)part / (double)total * 1000 + 0.5) / 10;
}

void show_put_use(json_t *row, uint64_t used, uint64_t high, uint64_t total) {
        if (!total)
                return;
        json_object_set_new(row, "used_percent", json_real(percent(used, total)));
        json_object_set_new(row, "high_percent", json_real(percent(high > used ? high : used, total)));
}

static const char *show_member_bar(json_t *row, const char *name, char buffer[SHOW_SIZE]) {
        double used = json_number_value(json_object_get(row, name));

        if (!show_terminal() || !json_is_number(json_object_get(row, name)))
                return show_member(row, name, buffer);
        bar_draw(used, json_number_value(json_object_get(row, "high_percent")), BAR_WIDTH, bar_unicode(), buffer);
        snprintf(buffer + strlen(buffer), SHOW_SIZE - strlen(buffer), "%4.0f%%", used);
        return buffer;
}

static const char *show_member_rate(json_t *row, const char *name, char buffer[SHOW_SIZE]) {
        double rate = json_number_value(json_object_get(row, name));

        if (!json_is_number(json_object_get(row, name)))
                return "-";
        snprintf(buffer, SHOW_SIZE, show_terminal() && (rate >= 100 || rate == 0) ? "%.0f" : "%.1f", rate);
        return buffer;
}

const char *show_cell(json_t *row, const struct show_column *column, char buffer[SHOW_SIZE]) {
        switch (column->kind) {
        case SHOW_BYTES:
                return show_member_bytes(row, column->member, buffer);
        case SHOW_MS:
                return show_member_ms(row, column->member, buffer);
        case SHOW_MASK:
                return show_member_mask(row, column->member, buffer);
        case SHOW_BAR:
                return show_member_bar(row, column->member, buffer);
        case SHOW_RATE:
                return show_member_rate(row, column->member, buffer);
        default:
                return show_member(row, column->member, buffer);
        }
}

static bool column_is_empty(json_t *rows, const char *member) {
        json_t *row;
        size_t i;

        json_array_foreach(rows, i, row)
                if (json_object_get(row, member))
                        return false;
        return true;
}

static int fill(struct libscols_table *table, json_t *rows, const struct show_column *columns, size_t n_columns) {
        char buffer[SHOW_SIZE];
        json_t *row;
        size_t i;

        json_array_foreach(rows, i, row) {
                struct libscols_line *line = scols_table_new_line(table, NULL);
                size_t place = 0;

                if (!line)
                        return -ENOMEM;
                for (size_t c = 0; c < n_columns; c++) {
                        if (show_terminal() && column_is_empty(rows, columns[c].member))
                                continue;
                        if (scols_line_set_data(line, place++, show_cell(row, &columns[c], buffer)))
                                return -ENOMEM;
                }
        }
        return 0;
}

/* An empty table has its titles all the same, for whoever reads them; the library prints nothing then. */
static void show_titles(const struct show_column *columns, size_t n_columns) {
        for (size_t i = 0; i < n_columns; i++)
                printf("%s%s", i ? " " : "", columns[i].title);
        putchar('\n');
}

int show_table(json_t *rows, const struct show_column *columns, size_t n_columns) {
        static const int flags[] = {
                [SHOW_PLAIN] = 0,
                [SHOW_NAME] = SCOLS_FL_TRUNC,
                [SHOW_TEXT] = SCOLS_FL_WRAP,
                [SHOW_NUMBER] = SCOLS_FL_RIGHT,
                [SHOW_BYTES] = SCOLS_FL_RIGHT,
                [SHOW_MS] = SCOLS_FL_RIGHT,
                [SHOW_MASK] = SCOLS_FL_RIGHT,
                [SHOW_BAR] = 0,
                [SHOW_RATE] = SCOLS_FL_RIGHT,
        };
        struct libscols_table *table;
        int r = 0;

        if (!json_array_size(rows)) {
                if (!show_terminal())
                        show_titles(columns, n_columns);
                return 0;
        }
        table = scols_new_table();
        if (!table)
                return -ENOMEM;
        scols_table_enable_raw(table, !show_terminal());
        for (size_t i = 0; i < n_columns && !r; i++) {
                if (show_terminal() && column_is_empty(rows, columns[i].member))
                        continue;
                if (!scols_table_new_column(table, columns[i].title, 0, flags[columns[i].kind]))
                        r = -ENOMEM;
        }
        if (!r)
                r = fill(table, rows, columns, n_columns);
        if (!r)
                r = scols_print_table(table) < 0 ? -ENOMEM : 0;
        scols_unref_table(table);
        return r;
}
