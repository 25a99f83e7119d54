/* Prints dmabroker-protocol(7), made from the table that requests are checked against. Run by the build. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/dispatch.h"
#include "proto/help.h"
#include "proto/methods.h"

/* Text that roff takes literally. */
static void print_text(const char *text) {
        if (*text == '.' || *text == '\'')
                fputs("\\&", stdout);
        for (; *text; text++) {
                if (*text == '\\')
                        fputs("\\e", stdout);
                else if (*text == '-')
                        fputs("\\-", stdout);
                else
                        putchar(*text);
        }
}

static void print_sentence(const char *text) {
        putchar(text[0] >= 'a' && text[0] <= 'z' ? text[0] - 'a' + 'A' : text[0]);
        print_text(text + 1);
        fputs(".\n", stdout);
}

static void print_field(const struct schema_field *field) {
        char type[256];

        help_describe_type(field, type, sizeof(type));
        fputs(".TP\n.BR ", stdout);
        print_text(field->name);
        fputs(" \" (", stdout);
        print_text(type);
        fputs(field->required ? ")\"\n" : ", optional)\"\n", stdout);
        print_sentence(field->doc);
}

static void print_fields(const struct schema_struct *structure) {
        for (size_t i = 0; i < structure->n_fields; i++) {
                print_field(&structure->fields[i]);
                if (structure->fields[i].sub) {
                        fputs(".RS\n", stdout);
                        print_fields(structure->fields[i].sub);
                        fputs(".RE\n", stdout);
                }
        }
}

static void print_part(const char *heading, const struct schema_struct *structure) {
        if (!structure || !structure->n_fields)
                return;
        printf(".PP\n.I %s\n.RS\n", heading);
        print_fields(structure);
        fputs(".RE\n", stdout);
}

static void print_method(const struct schema_method *method) {
        fputs(".SS ", stdout);
        print_text(method->name);
        putchar('\n');
        print_sentence(method->summary);
        if (method->doc)
                print_sentence(method->doc);
        if (method->role == SCHEMA_ROLE_ADMIN)
                fputs("For administrators only.\n", stdout);
        else if (method->role == SCHEMA_ROLE_LOCAL)
                fputs("For local users and administrators only.\n", stdout);
        if (!method->params)
                fputs("Takes no parameters.\n", stdout);
        if (method->results && !method->results->n_fields)
                fputs("The result is an empty object.\n", stdout);
        if (method->fds_max)
                fputs("When file descriptors come with the reply, its result has their number as\n.BR fds .\n", stdout);
        print_part("Parameters", method->params);
        print_part("Result", method->results);
        if (!method->errors)
                return;
        fputs(".PP\n.I Refused with\n", stdout);
        for (size_t i = 0; method->errors[i] != REASON_NONE; i++) {
                fputs(".B ", stdout);
                print_text(reason_name(method->errors[i]));
                putchar('\n');
        }
}

static void print_reasons(void) {
        for (unsigned i = REASON_NONE + 1; i < REASON_COUNT; i++) {
                fputs(".TP\n.BR ", stdout);
                print_text(reason_name((enum reason)i));
                printf(" \" (%s, %d)\"\n", strerrorname_np(reason_errno((enum reason)i)), reason_errno((enum reason)i));
                print_sentence(help_reason_text((enum reason)i));
        }
}

static const char introduction[] =
        ".SH NAME\n"
        "dmabroker\\-protocol \\- how to speak to dmabrokerd\n"
        ".SH DESCRIPTION\n"
        ".BR dmabrokerd (8)\n"
        "speaks JSON\\-RPC 2.0, one JSON text in UTF\\-8 per line, over the socket\n"
        ".IR /run/dmabroker/dmabroker.sock .\n"
        "Batches and notifications are served as the specification says.\n"
        "Replies may overtake each other: a call that waits is answered when its wait is over, and calls made after it "
        "are "
        "answered meanwhile.\n"
        "A batch is answered when all of its calls are.\n"
        "The id of a request is echoed exactly as it was written.\n"
        "The method\n.B rpc.discover\nanswers with all of the following as an OpenRPC document.\n"
        ".SS Values\n"
        "Parameters go by name, in an object; unknown ones are refused, and so is a name given twice.\n"
        "Addresses and masks are strings such as \"0x1f400000\", because JSON numbers lose bits above 2^53.\n"
        "Sizes, offsets, counts and handles are integers, written without fraction or exponent.\n"
        "Handles are never reused.\n"
        "A handle that belongs to somebody else is answered like one that does not exist.\n"
        ".SS File descriptors\n"
        "They travel as SCM_RIGHTS with the first byte of the reply, whose result tells their number as\n.BR fds ;\n"
        "those of a batch are in the order of its replies.\n"
        "Descriptors that a client sends are closed and refused.\n"
        ".SS Repeating a call\n"
        "Calls that take something accept\n.BR request_key :\n"
        "the same key from the same owner gives the same answer again and takes nothing twice, so that a reply that "
        "was "
        "lost can be asked for again.\n"
        ".SS Sessions\n"
        "What a session holds lives until it is freed or the session ends: by\n.BR broker.bye ,\n"
        "by an administrator, or when its connection has been gone for the grace time.\n";

static void print_limits(void) {
        const struct rpc_limits limits = RPC_LIMITS_DEFAULT;

        printf(".SS Limits\n"
               "Unless configured otherwise, and as\n.B broker.hello\ntells:\n"
               "%zu bytes in a message, %zu levels of nesting, %zu calls of one connection in flight, %zu requests in "
               "a batch,\n"
               "%zu bytes in a connection's unfinished replies to batches, after which further calls in batches\n"
               "are refused unexecuted, and\n"
               "%zu file descriptors with one reply.\n"
               "A message that is too long is refused once and skipped to its end.\n",
               limits.message_bytes, limits.nesting, limits.calls_in_flight, limits.batch_elements,
               limits.batch_reply_bytes, limits.fds_per_reply);
}

static const char errors[] =
        ".SH ERRORS\n"
        "What JSON\\-RPC itself defines has its codes:\n"
        "\\-32700 (the text is not JSON), \\-32600 (it is not a request, or beyond a limit), \\-32601 (there is no "
        "such "
        "method), \\-32602 (a parameter is unknown, missing, or has a value that is never acceptable; the data names "
        "it as\n"
        ".BR param )\nand \\-32603.\n"
        "Every other error has a number of\n.BR errno (3)\nas its code, a sentence as its message, and in its data\n"
        ".BR errno ,\n.B reason\nand the values that matter.\n"
        "The reasons:\n";

static const char ending[] = ".SH EXAMPLES\n"
                             ".nf\n"
                             "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"device.open\",\"params\":{\"name\":\"0000:03:"
                             "00.0\",\"mask\":\"0xffffffff\"}}\n"
                             "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"coherent.alloc\",\"params\":{\"device\":1,"
                             "\"size\":65536,\"wait_ms\":0}}\n"
                             ".fi\n"
                             ".SH SEE ALSO\n"
                             ".BR dmabrokerd (8),\n.BR dmabrokerctl (1),\n.BR dmabroker.conf (5)\n"
                             ".PP\n"
                             "JSON\\-RPC 2.0 Specification, https://www.jsonrpc.org/specification\n";

int main(void) {
        printf(".TH dmabroker\\-protocol 7 2026-11-21 dmabroker \"Protocol\"\n%s", introduction);
        print_limits();
        puts(".SH METHODS");
        for (size_t i = 0; i < protocol_table.n_methods; i++)
                print_method(&protocol_table.methods[i]);
        fputs(errors, stdout);
        print_reasons();
        fputs(ending, stdout);
        return ferror(stdout) || fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
}
