/* dmabrokerctl: parse, run one verb, say how it went. */
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/verbs.h"
#include "config.h"

static enum ctl_status misuse(const char *what, const char *argument) {
        fprintf(stderr, "dmabrokerctl: %s%s; \"dmabrokerctl help\" lists what there is\n", what, argument);
        return CTL_USAGE;
}

static const struct ctl_option *find_option(const struct ctl_option *options, const char *argument) {
        size_t length = strcspn(argument, "=");

        for (; options && options->name; options++)
                if (strlen(options->name) == length && !strncmp(options->name, argument, length))
                        return options;
        return NULL;
}

/* An option and, if it has one, its argument, which is in the same word or in the next. */
static enum ctl_status take_option(struct ctl *ctl, const struct ctl_option *option, char **words, size_t *i) {
        const char *word = words[*i], *value = strchr(word, '=');

        if (value)
                value++;
        if (value && !option->argument)
                return ctl_misuse(ctl, "%s takes no argument", option->name);
        if (!value && option->argument) {
                value = words[*i + 1];
                if (!value)
                        return ctl_misuse(ctl, "%s needs an argument: %s", option->name, option->argument);
                (*i)++;
        }
        if (!strcmp(option->name, "--socket"))
                ctl->socket = value;
        else if (!strcmp(option->name, "--json"))
                ctl->json = true;
        if (ctl->n_given == CTL_GIVEN_MAX)
                return ctl_misuse(ctl, "there are more than %d options", CTL_GIVEN_MAX);
        ctl->given[ctl->n_given++] = (struct ctl_given){ .option = option, .value = value };
        return CTL_OK;
}

static enum ctl_status take_word(struct ctl *ctl, const char *word) {
        if (!ctl->verb) {
                ctl->verb = ctl_verb_find(word);
                return ctl->verb ? CTL_OK : misuse("there is no verb ", word);
        }
        if (ctl->n_operands == CTL_OPERANDS_MAX)
                return ctl_misuse(ctl, "there are more than %d arguments", CTL_OPERANDS_MAX);
        ctl->operands[ctl->n_operands++] = word;
        return CTL_OK;
}

static enum ctl_status parse(struct ctl *ctl, char **words) {
        bool options_end = false;

        for (size_t i = 1; words[i]; i++) {
                const struct ctl_option *option;
                enum ctl_status status;

                if (options_end || words[i][0] != '-' || !words[i][1]) {
                        status = take_word(ctl, words[i]);
                } else if (!strcmp(words[i], "--")) {
                        options_end = true;
                        continue;
                } else if (!strcmp(words[i], "--version") && !ctl->verb) {
                        ctl->verb = &verb_version;
                        continue;
                } else {
                        option = find_option(ctl_common_options, words[i]);
                        if (!option && ctl->verb)
                                option = find_option(ctl->verb->options, words[i]);
                        if (!option)
                                return ctl->verb ? ctl_misuse(ctl, "there is no option %s", words[i])
                                                 : misuse("there is no option ", words[i]);
                        status = take_option(ctl, option, words, &i);
                }
                if (status != CTL_OK)
                        return status;
        }
        return CTL_OK;
}

static enum ctl_status run(struct ctl *ctl) {
        if (!ctl->verb && ctl_has(ctl, "--help")) {
                ctl_help();
                return CTL_OK;
        }
        if (!ctl->verb)
                return misuse("there is nothing to do: a verb is missing", "");
        if (ctl_has(ctl, "--help") && ctl->verb == &verb_call && ctl->n_operands == 1)
                return ctl_help_method(ctl->operands[0]) ? CTL_OK : misuse("there is no method ", ctl->operands[0]);
        if (ctl_has(ctl, "--help")) {
                ctl_help_verb(ctl->verb);
                return CTL_OK;
        }
        if (ctl->n_operands < ctl->verb->min_operands)
                return ctl_misuse(ctl, "%s is missing", ctl->verb->operands);
        if (ctl->n_operands > ctl->verb->max_operands)
                return ctl_misuse(ctl, "%s is one operand too many", ctl->operands[ctl->verb->max_operands]);
        return ctl->verb->run(ctl);
}

int main(int n, char **words) {
        struct ctl ctl = { 0 };
        enum ctl_status status;

        /* For letters and bars only: numbers look the same everywhere. */
        setlocale(LC_CTYPE, "");
        status = parse(&ctl, words);
        if (status == CTL_OK)
                status = run(&ctl);
        dmab_disconnect(ctl.dmab);
        if (fflush(stdout) || ferror(stdout)) {
                fprintf(stderr, "dmabrokerctl: cannot write: %s\n", strerror(errno));
                if (status == CTL_OK)
                        status = CTL_FAILURE;
        }
        return status;
}
