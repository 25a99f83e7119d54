#include "client/ctl/top-screen.h"

#include "config.h"

#ifndef HAVE_NCURSES

#include <stdio.h>

bool top_screen_exists(void) {
        return false;
}

enum ctl_status top_screen_run(struct top_sampler *sampler, const struct top_options *options, const sigset_t *signals) {
        return CTL_FAILURE;
}

#else

#include <curses.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

#include "client/ctl/bar.h"
#include "client/ctl/top-views.h"

enum {
        HEAD_ROWS = 5, /* above the first row of the table */
        NAME_WIDTH = 24,
        CELL_WIDTH = 256,
        COLUMNS_MOST = 32,
        SILENCE_MS = 2000, /* after which a daemon is taken to be away */
        INTERVAL_LEAST_MS = 100,
        INTERVAL_MOST_MS = 3600 * 1000,
};

enum colour { COLOUR_LOW = 1, COLOUR_HIGH, COLOUR_FULL, COLOUR_FAILURE };

struct screen {
        struct top_sampler *sampler;
        json_t *refresh;
        char *failure; /* why there is no newer refresh, or NULL */
        size_t view;
        size_t columns[TOP_VIEWS]; /* to sort by */
        bool reversed[TOP_VIEWS];
        size_t first; /* row on the screen */
        unsigned interval_ms;
        uint64_t refreshes;
        int64_t heard_ms; /* when the daemon was last heard of */
        bool unicode, paused, help, end;
};

bool top_screen_exists(void) {
        return true;
}

/* ---- text ---- */

static size_t text_width(const char *text) {
        wchar_t wide[CELL_WIDTH];
        size_t n = mbstowcs(wide, text, CELL_WIDTH);
        int width = n == (size_t)-1 ? -1 : wcswidth(wide, n < CELL_WIDTH ? n : CELL_WIDTH);

        return width < 0 ? strlen(text) : (size_t)width;
}

/* Text in `width` columns, to the right or to the left; what does not fit is cut. */
static void put_text(const char *text, size_t width, bool right) {
        wchar_t wide[CELL_WIDTH];
        size_t n = mbstowcs(wide, text, CELL_WIDTH - 1), used = text_width(text);

        if (n == (size_t)-1) {
                printw("%-*.*s", (int)width, (int)width, text);
                return;
        }
        n = n < CELL_WIDTH - 1 ? n : CELL_WIDTH - 1;
        wide[n] = L'\0';
        while (used > width && n) {
                wide[--n] = L'\0';
                used = wcswidth(wide, n) > 0 ? (size_t)wcswidth(wide, n) : 0;
        }
        printw("%*s", right ? (int)(width - used) : 0, "");
        addwstr(wide);
        printw("%*s", right ? 0 : (int)(width - used), "");
}

static int bar_colour(double percent) {
        return COLOR_PAIR(percent >= 90 ? COLOUR_FULL : percent >= 70 ? COLOUR_HIGH : COLOUR_LOW);
}

/* ---- the head ---- */

static void draw_first_line(const struct screen *screen) {
        json_t *counts = json_object_get(screen->refresh, "counts");
        char text[4][SHOW_SIZE];
        const char *name;
        json_t *count;

        attron(A_BOLD);
        printw("%s %s", show_member(screen->refresh, "server", text[0]), show_member(screen->refresh, "version", text[1]));
        attroff(A_BOLD);
        printw("  up %s  %s ", show_member_ms(screen->refresh, "uptime_ms", text[2]),
               show_member(screen->refresh, "addressing", text[3]));
        json_object_foreach(counts, name, count)
                if (getcurx(stdscr) + (int)strlen(name) + 12 < COLS)
                        printw(" %s %lld", name, (long long)json_integer_value(count));
}

static void put_total(json_t *totals, const char *title, const char *member) {
        static const struct show_column column = { .kind = SHOW_RATE };
        struct show_column wanted = column;
        char text[SHOW_SIZE];

        wanted.member = member;
        if (getcurx(stdscr) + (int)strlen(title) + 12 < COLS)
                printw("%s %s/s  ", title, show_cell(totals, &wanted, text));
}

static void draw_totals(const struct screen *screen) {
        json_t *totals = json_object_get(screen->refresh, "totals");
        uint64_t sent = (uint64_t)json_number_value(json_object_get(totals, "sent_per_second"));
        char text[SHOW_SIZE];

        put_total(totals, "calls", "calls_per_second");
        put_total(totals, "allocs", "allocs_per_second");
        put_total(totals, "frees", "frees_per_second");
        put_total(totals, "blocks", "blocks_per_second");
        put_total(totals, "maps", "maps_per_second");
        put_total(totals, "failures", "failures_per_second");
        put_total(totals, "errors", "errors_per_second");
        if (json_object_get(totals, "sent_per_second") && getcurx(stdscr) + 16 < COLS)
                printw("sent %s/s", show_bytes(sent, text));
}

static void draw_memory(const struct screen *screen) {
        json_t *totals = json_object_get(screen->refresh, "totals");
        double used = json_number_value(json_object_get(totals, "used_percent"));
        char bar[BAR_SIZE], text[3][SHOW_SIZE];
        int width = COLS / 2;

        bar_draw(used, json_number_value(json_object_get(totals, "high_percent")), width > 3 ? width : 3, screen->unicode,
                 bar);
        addstr("memory ");
        attron(bar_colour(used));
        addstr(bar);
        attroff(bar_colour(used));
        printw(" %s of %s, most %s", show_member_bytes(totals, "used", text[0]), show_member_bytes(totals, "capacity", text[1]),
               show_member_bytes(totals, "high_water_bytes", text[2]));
}

static void draw_views(const struct screen *screen) {
        for (size_t i = 0; i < TOP_VIEWS; i++) {
                size_t n = json_array_size(json_object_get(screen->refresh, top_views[i].name));

                if (i == screen->view)
                        attron(A_REVERSE);
                printw(" %zu %s (%zu) ", i + 1, top_views[i].name, n);
                attroff(A_REVERSE);
        }
}

/* ---- the table ---- */

static bool is_right(const struct show_column *column) {
        return column->kind == SHOW_NUMBER || column->kind == SHOW_BYTES || column->kind == SHOW_MS ||
               column->kind == SHOW_RATE;
}

static void measure(const struct top_view *view, json_t *rows, size_t widths[COLUMNS_MOST]) {
        char text[SHOW_SIZE];
        json_t *row;
        size_t i;

        for (size_t c = 0; c < view->n_columns; c++)
                widths[c] = strlen(view->columns[c].title) + 1; /* and the arrow */
        json_array_foreach(rows, i, row)
                for (size_t c = 0; c < view->n_columns; c++) {
                        size_t width = text_width(show_cell(row, &view->columns[c], text));

                        if (view->columns[c].kind == SHOW_NAME && width > NAME_WIDTH)
                                width = NAME_WIDTH;
                        if (width > widths[c])
                                widths[c] = width;
                }
}

/* row NULL: the titles. Columns that do not fit are left out. */
static void draw_row(const struct screen *screen, json_t *row, const size_t widths[COLUMNS_MOST]) {
        const struct top_view *view = &top_views[screen->view];
        char text[SHOW_SIZE], title[SHOW_SIZE];
        size_t x = 0;

        for (size_t c = 0; c < view->n_columns && x + widths[c] <= (size_t)COLS; c++) {
                const struct show_column *column = &view->columns[c];
                bool sorted = c == screen->columns[screen->view];
                int attributes = 0;

                if (!row)
                        snprintf(title, sizeof(title), "%s%s", column->title,
                                 !sorted ? "" : screen->reversed[screen->view] ? "^" : "v");
                if (!row && sorted)
                        attributes = A_BOLD | A_UNDERLINE;
                else if (row && column->kind == SHOW_BAR)
                        attributes = bar_colour(json_number_value(json_object_get(row, column->member)));
                attron(attributes);
                put_text(row ? show_cell(row, column, text) : title, widths[c], is_right(column));
                attroff(attributes);
                x += widths[c] + 1;
                if (x < (size_t)COLS)
                        addch(' ');
        }
}

static size_t table_rows(void) {
        return LINES > HEAD_ROWS + 1 ? (size_t)(LINES - HEAD_ROWS - 1) : 0;
}

static void draw_table(struct screen *screen) {
        const struct top_view *view = &top_views[screen->view];
        json_t *rows = top_sort(screen->refresh, view, screen->columns[screen->view], screen->reversed[screen->view]);
        size_t widths[COLUMNS_MOST], n = json_array_size(rows), room = table_rows();

        if (screen->first + room > n)
                screen->first = n > room ? n - room : 0;
        measure(view, rows, widths);
        move(HEAD_ROWS - 1, 0);
        attron(A_REVERSE);
        printw("%*s", COLS, "");
        move(HEAD_ROWS - 1, 0);
        draw_row(screen, NULL, widths);
        attroff(A_REVERSE);
        for (size_t i = 0; i < room && screen->first + i < n; i++) {
                move(HEAD_ROWS + (int)i, 0);
                draw_row(screen, json_array_get(rows, screen->first + i), widths);
        }
        json_decref(rows);
}

/* ---- the rest ---- */

static void draw_help(void) {
        static const char *const lines[] = {
                "1 to 6, Tab   choose what to look at",
                "< > or arrows choose the column to sort by",
                "r             reverse the order",
                "arrows, Page  scroll",
                "+ -           refresh less often, more often",
                "Blank         hold still, go on",
                "q             quit",
                "",
                "CHANGE/S and other rates are per second, between two refreshes. HIGH is the most that",
                "ever was: as the daemon knows it of pools, as this program has seen it of the others.",
        };

        for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++)
                mvaddnstr(HEAD_ROWS + (int)i, 2, lines[i], COLS > 2 ? COLS - 2 : 0);
}

static void draw_last_line(const struct screen *screen) {
        char text[512];

        if (screen->failure)
                snprintf(text, sizeof(text), "The daemon is away, trying again: %s", screen->failure);
        else
                snprintf(text, sizeof(text), "1-6 view  <> sort  r reverse  +- every %.1fs  blank %s  h help  q quit",
                         screen->interval_ms / 1000.0, screen->paused ? "go on" : "pause");
        move(LINES - 1, 0);
        attron(screen->failure ? COLOR_PAIR(COLOUR_FAILURE) | A_BOLD : A_DIM);
        addnstr(text, COLS > 0 ? COLS - 1 : 0);
        attroff(screen->failure ? COLOR_PAIR(COLOUR_FAILURE) | A_BOLD : A_DIM);
}

static void draw(struct screen *screen) {
        erase();
        if (screen->refresh) {
                move(0, 0);
                draw_first_line(screen);
                move(1, 0);
                draw_totals(screen);
                move(2, 0);
                draw_memory(screen);
                move(3, 0);
                draw_views(screen);
                if (screen->help)
                        draw_help();
                else
                        draw_table(screen);
        }
        draw_last_line(screen);
        refresh();
}

/* ---- what happens ---- */

static void choose_column(struct screen *screen, int step) {
        size_t n = top_views[screen->view].n_columns;

        screen->columns[screen->view] = (screen->columns[screen->view] + n + (size_t)step) % n;
}

static void choose_view(struct screen *screen, size_t view) {
        screen->view = view % TOP_VIEWS;
        screen->first = 0;
}

static void scroll_by(struct screen *screen, long rows) {
        screen->first = rows < 0 && screen->first < (size_t)-rows ? 0 : screen->first + (size_t)rows;
}

static void change_interval(struct screen *screen, double times) {
        double ms = screen->interval_ms * times;

        screen->interval_ms = ms < INTERVAL_LEAST_MS ? INTERVAL_LEAST_MS
                              : ms > INTERVAL_MOST_MS ? INTERVAL_MOST_MS
                                                      : (unsigned)ms;
        top_sampler_set_interval(screen->sampler, screen->interval_ms);
}

static void press(struct screen *screen, int key) {
        bool help = screen->help;

        screen->help = false;
        if (key >= '1' && key < '1' + TOP_VIEWS)
                choose_view(screen, (size_t)(key - '1'));
        else if (key == 'q' || key == 'Q')
                screen->end = true;
        else if (key == '\t')
                choose_view(screen, screen->view + 1);
        else if (key == KEY_BTAB)
                choose_view(screen, screen->view + TOP_VIEWS - 1);
        else if (key == '<' || key == KEY_LEFT)
                choose_column(screen, -1);
        else if (key == '>' || key == KEY_RIGHT)
                choose_column(screen, 1);
        else if (key == 'r')
                screen->reversed[screen->view] = !screen->reversed[screen->view];
        else if (key == KEY_UP || key == KEY_DOWN)
                scroll_by(screen, key == KEY_UP ? -1 : 1);
        else if (key == KEY_PPAGE || key == KEY_NPAGE)
                scroll_by(screen, (key == KEY_PPAGE ? -1 : 1) * (long)table_rows());
        else if (key == KEY_HOME)
                screen->first = 0;
        else if (key == '+' || key == '-')
                change_interval(screen, key == '+' ? 2 : 0.5);
        else if (key == ' ')
                screen->paused = !screen->paused;
        else if (key == 'h' || key == '?')
                screen->help = !help;
        else if (key == '\f')
                clearok(curscr, TRUE);
}

static int64_t now_ms(void) {
        struct timespec time;

        clock_gettime(CLOCK_MONOTONIC, &time);
        return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* A daemon that has the connection and says nothing is away too. */
static void miss(struct screen *screen) {
        int64_t silent_ms = now_ms() - screen->heard_ms - screen->interval_ms;

        if (silent_ms < SILENCE_MS)
                return;
        free(screen->failure);
        if (asprintf(&screen->failure, "it has not answered for %lld seconds", (long long)(silent_ms / 1000)) < 0)
                screen->failure = NULL;
}

static void take(struct screen *screen) {
        json_t *fresh;
        char *failure;

        top_sampler_take(screen->sampler, &fresh, &failure);
        if (!fresh && !failure) {
                miss(screen);
                return;
        }
        screen->heard_ms = now_ms();
        free(screen->failure);
        screen->failure = failure;
        if (fresh)
                screen->refreshes++;
        if (fresh && !(screen->paused && screen->refresh)) {
                json_decref(screen->refresh);
                screen->refresh = json_incref(fresh);
        }
        json_decref(fresh);
}

static void on_signal(struct screen *screen, int signals) {
        struct signalfd_siginfo info;
        struct winsize size;

        if (read(signals, &info, sizeof(info)) != sizeof(info))
                return;
        if (info.ssi_signo != SIGWINCH)
                screen->end = true;
        else if (!ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_row && size.ws_col)
                resizeterm(size.ws_row, size.ws_col);
}

/* All keys that are there. False: there never will be any. */
static bool take_keys(struct screen *screen, bool hung_up) {
        int key = getch();

        if (key == ERR && hung_up)
                return false;
        for (; key != ERR; key = getch())
                press(screen, key);
        return true;
}

static void loop(struct screen *screen, int signals, uint64_t count) {
        struct pollfd polled[] = {
                { .fd = top_sampler_fd(screen->sampler), .events = POLLIN },
                { .fd = signals, .events = POLLIN },
                { .fd = isatty(STDIN_FILENO) ? STDIN_FILENO : -1, .events = POLLIN },
        };

        while (!screen->end && (!count || screen->refreshes < count)) {
                draw(screen);
                /* Ctrl-Z and what follows it end the waiting too. */
                if (poll(polled, 3, SILENCE_MS / 2) < 0)
                        continue;
                take(screen);
                if (polled[1].revents)
                        on_signal(screen, signals);
                if (polled[2].revents && !take_keys(screen, polled[2].revents & (POLLHUP | POLLERR)))
                        polled[2].fd = -1;
        }
}

static void begin_colours(void) {
        if (!has_colors() || start_color() == ERR)
                return;
        use_default_colors();
        init_pair(COLOUR_LOW, COLOR_GREEN, -1);
        init_pair(COLOUR_HIGH, COLOR_YELLOW, -1);
        init_pair(COLOUR_FULL, COLOR_RED, -1);
        init_pair(COLOUR_FAILURE, COLOR_RED, -1);
}

enum ctl_status top_screen_run(struct top_sampler *sampler, const struct top_options *options, const sigset_t *signals) {
        struct screen screen = { .sampler = sampler, .view = options->view, .interval_ms = options->interval_ms };
        int fd = signalfd(-1, signals, SFD_CLOEXEC | SFD_NONBLOCK);
        SCREEN *terminal = fd < 0 ? NULL : newterm(NULL, stdout, stdin);

        if (!terminal) {
                fprintf(stderr, "dmabrokerctl: this terminal cannot be drawn on; \"top --once\" prints a snapshot\n");
                if (fd >= 0)
                        close(fd);
                return CTL_FAILURE;
        }
        for (size_t i = 0; i < TOP_VIEWS; i++) {
                screen.columns[i] = options->column < top_views[i].n_columns && i == options->view ? options->column
                                                                                                   : top_views[i].sort;
                screen.reversed[i] = options->reversed && i == options->view;
        }
        screen.unicode = bar_unicode();
        screen.heard_ms = now_ms();
        cbreak();
        noecho();
        nonl();
        keypad(stdscr, TRUE);
        nodelay(stdscr, TRUE);
        set_escdelay(25);
        curs_set(0);
        begin_colours();
        loop(&screen, fd, options->count);
        endwin();
        delscreen(terminal);
        close(fd);
        json_decref(screen.refresh);
        free(screen.failure);
        return CTL_OK;
}

#endif
