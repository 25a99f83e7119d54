/* help: on verbs from their table, on methods from the protocol's. */
#include <stdio.h>
#include <string.h>

#include "client/ctl/show.h"
#include "client/ctl/verbs.h"
#include "proto/help.h"
#include "proto/methods.h"

enum { WIDTH = 80 };

/* Words from column `indent` on, which the cursor stands at; the last line ends with LF. */
static void wrap(const char *text, int indent) {
        int column = indent;

        while (*text) {
                int word = strcspn(text, " ");

                if (column > indent && column + 1 + word > WIDTH) {
                        printf("\n%*s", indent, "");
                        column = indent;
                } else if (column > indent) {
                        putchar(' ');
                        column++;
                }
                printf("%.*s", word, text);
                column += word;
                text += word + strspn(text + word, " ");
        }
        putchar('\n');
}

/* A term and what it means, beside or below it. */
static void entry(const char *term, int indent, const char *text) {
        int length = printf("  %s", term);

        if (length + 2 > indent)
                printf("\n%*s", indent, "");
        else
                printf("%*s", indent - length, "");
        wrap(text, indent);
}

static void show_options(const struct ctl_option *options) {
        char term[64];

        for (; options && options->name; options++) {
                snprintf(term, sizeof(term), "%s%s%s", options->name, options->argument ? " " : "",
                         options->argument ? options->argument : "");
                entry(term, 28, options->doc);
        }
}

void ctl_help(void) {
        printf("usage: dmabrokerctl [--socket PATH] [--json] VERB …\n\n");
        wrap("Asks a running dmabrokerd for machine-contiguous memory, and shows what it does.", 0);
        printf("\nVerbs:\n");
        for (size_t i = 0; ctl_verbs[i]; i++)
                entry(ctl_verbs[i]->name, 14, ctl_verbs[i]->summary);
        printf("\nOptions of every verb:\n");
        show_options(ctl_common_options);
        printf("\nExit status: 0 success, 1 failure, 2 wrong usage, 3 no daemon to connect to.\n");
        printf("\"dmabrokerctl help VERB\" and \"dmabrokerctl help METHOD\" say more.\n");
}

void ctl_help_verb(const struct ctl_verb *verb) {
        printf("usage: dmabrokerctl %s%s%s%s\n\n", verb->name, verb->options ? " [OPTIONS]" : "",
               *verb->operands ? " " : "", verb->operands);
        wrap(verb->doc, 0);
        if (verb->options) {
                printf("\nOptions:\n");
                show_options(verb->options);
        }
        printf("\nOptions of every verb:\n");
        show_options(ctl_common_options);
}

/* ---- methods ---- */

static void show_fields(const struct schema_struct *structure, int depth) {
        char term[128], type[256], text[1024];

        for (size_t i = 0; structure && i < structure->n_fields; i++) {
                const struct schema_field *field = &structure->fields[i];

                help_describe_type(field, type, sizeof(type));
                snprintf(term, sizeof(term), "%*s%s%s", 2 * depth, "", field->name, field->required ? "" : "?");
                snprintf(text, sizeof(text), "(%s) %s", type, field->doc);
                entry(term, 24, text);
                show_fields(field->sub, depth + 1);
        }
}

static void show_errors(const struct schema_method *method) {
        if (!method->errors)
                return;
        printf("\nErrors:\n");
        for (const enum reason *reason = method->errors; *reason != REASON_NONE; reason++)
                entry(reason_name(*reason), 24, help_reason_text(*reason));
}

bool ctl_help_method(const char *name) {
        const struct schema_method *method = schema_method_find(&protocol_table, name);
        char text[2048];

        if (!method)
                return false;
        printf("usage: dmabrokerctl call %s%s\n\n", method->name, method->params ? " '{…}'" : "");
        printf("%s: ", method->name);
        wrap(method->summary, strlen(method->name) + 2);
        if (method->doc) {
                snprintf(text, sizeof(text), "%s.", method->doc);
                putchar('\n');
                wrap(text, 0);
        }
        if (method->role != SCHEMA_ROLE_ANY)
                printf("\nFor: %s\n",
                       method->role == SCHEMA_ROLE_ADMIN ? "administrators" : "local users and administrators");
        if (method->params) {
                printf("\nParameters (? is optional):\n");
                show_fields(method->params, 0);
        }
        if (method->results && method->results->n_fields) {
                printf("\nResult:\n");
                show_fields(method->results, 0);
        }
        show_errors(method);
        return true;
}

/* ---- the verb ---- */

static const struct ctl_option options[] = {
        { "--words", NULL, "print names only, one on a line: of the verbs, or of a verb's options" },
        { "--operands", NULL, "print what a verb's first operand can be, likewise; nothing when that is not a matter of choice" },
        { NULL },
};

static enum ctl_status words(const struct ctl_verb *verb) {
        for (size_t i = 0; !verb && ctl_verbs[i]; i++)
                printf("%s\n", ctl_verbs[i]->name);
        for (const struct ctl_option *option = verb ? verb->options : NULL; option && option->name; option++)
                printf("%s\n", option->name);
        for (const struct ctl_option *option = ctl_common_options; verb && option->name; option++)
                printf("%s\n", option->name);
        return CTL_OK;
}

static void print_operands(const struct ctl_verb *verb) {
        for (const char *word = verb->words; word && *word; word += strspn(word, " ")) {
                size_t length = strcspn(word, " ");

                printf("%.*s\n", (int)length, word);
                word += length;
        }
}

static enum ctl_status run_help(struct ctl *ctl) {
        const char *name = ctl->n_operands ? ctl->operands[0] : NULL;
        const struct ctl_verb *verb = name ? ctl_verb_find(name) : NULL;

        if (ctl_has(ctl, "--operands") && !verb)
                return ctl_misuse(ctl, "--operands needs a verb");
        if (ctl_has(ctl, "--operands")) {
                print_operands(verb);
                return CTL_OK;
        }
        if (ctl_has(ctl, "--words") && (verb || !name))
                return words(verb);
        if (!name)
                ctl_help();
        else if (verb)
                ctl_help_verb(verb);
        else if (!ctl_help_method(name))
                return ctl_misuse(ctl, "there is neither a verb nor a method %s", name);
        return CTL_OK;
}

const struct ctl_verb verb_help = {
        .name = "help",
        .operands = "[VERB | METHOD]",
        .summary = "print help on everything, a verb, or a method of the protocol",
        .doc = "The methods' help comes from the table that the daemon checks requests against.",
        .options = options,
        .max_operands = 1,
        .run = run_help,
};
