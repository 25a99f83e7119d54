/* call: any method of the protocol. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/verbs.h"
#include "proto/methods.h"

static const struct ctl_option options[] = {
        { "--methods", NULL, "list the methods instead" },
        { NULL },
};

static enum ctl_status list_methods(void) {
        for (size_t i = 0; i < protocol_table.n_methods; i++)
                printf("%s\n", protocol_table.methods[i].name);
        return CTL_OK;
}

static bool is_known(const char *method) {
        for (size_t i = 0; i < protocol_table.n_methods; i++)
                if (!strcmp(protocol_table.methods[i].name, method))
                        return true;
        return false;
}

static enum ctl_status run_call(struct ctl *ctl) {
        const char *text = ctl->n_operands > 1 ? ctl->operands[1] : NULL;
        enum ctl_status status;
        json_error_t error;
        json_t *params = NULL, *result;

        if (ctl_has(ctl, "--methods"))
                return ctl->n_operands ? ctl_misuse(ctl, "--methods calls nothing") : list_methods();
        if (!ctl->n_operands)
                return ctl_misuse(ctl, "which method?");
        if (text) {
                params = json_loads(text, JSON_REJECT_DUPLICATES, &error);
                if (!params)
                        return ctl_misuse(ctl, "the parameters are not JSON: %s (column %d)", error.text, error.column);
                if (!json_is_object(params)) {
                        json_decref(params);
                        return ctl_misuse(ctl, "the parameters must be a JSON object, such as '{\"device\": 1}'");
                }
        }
        status = ctl_call(ctl, ctl->operands[0], params, &result);
        if (status == CTL_FAILURE && !is_known(ctl->operands[0]))
                fputs("\"dmabrokerctl call --methods\" lists the methods\n", stderr);
        if (status != CTL_OK)
                return status;
        ctl_print_json(result);
        json_decref(result);
        return CTL_OK;
}

const struct ctl_verb verb_call = {
        .name = "call",
        .operands = "METHOD ['{JSON}']",
        .summary = "call any method of the protocol",
        .doc = "Prints the result as JSON. What is taken ends with this program unless the parameters have "
               "\"lifetime\": \"owner\". \"dmabrokerctl "
               "help METHOD\" and \"dmabrokerctl call --help METHOD\" say what a method takes.",
        .options = options,
        .max_operands = 2,
        .run = run_call,
};
