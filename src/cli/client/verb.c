#include "cli/client/verb.h"

#include "cli/args.h"

const struct option client_options[] = {
    {"url", "URL", "where the server is (POSTHORN_URL; default http://127.0.0.1:8484)", OPTION_TEXT,
     IN_COMMAND, NULL, NULL},
    {"key", "KEY", "the API key; better in POSTHORN_KEY, for others see command lines", OPTION_TEXT,
     IN_COMMAND, NULL, NULL},
    {"ca", "FILE", "certificates to trust, when the server's is none of the system's", OPTION_TEXT,
     IN_COMMAND, NULL, NULL},
    {"json", NULL, "print the answer as it came, for programs", OPTION_BOOL, IN_COMMAND, NULL, NULL},
};

const struct option tenant_option = {
    "tenant", "TENANT", "whose it is (POSTHORN_TENANT)", OPTION_TEXT, IN_COMMAND, NULL, NULL,
};

const struct option list_options[] = {
    {"limit", "N", "how many at most (default 50)", OPTION_NUMBER, IN_COMMAND, NULL, NULL},
    {"all", NULL, "all there are, over as many pages as it takes", OPTION_BOOL, IN_COMMAND, NULL, NULL},
    {"cursor", "CURSOR", "go on from where an earlier list ended", OPTION_TEXT, IN_COMMAND, NULL, NULL},
};

const struct option body_options[] = {
    {"body", "JSON", "the request's JSON, @FILE or - for standard input; other flags are laid over it",
     OPTION_TEXT, IN_COMMAND, NULL, NULL},
    {"unset", "FIELD", "put a field back to its default; \"policy.timeout_ms\" is one, too", OPTION_LIST,
     IN_COMMAND, NULL, NULL},
};

void verb_options(const struct verb *v, struct args *a) {
    bool changes = strcmp(v->method, "PATCH") == 0;
    args_know(a, v->options, v->options_n);
    if (verb_has_body(v) && !v->fixed_body)
        args_know(a, body_options, changes ? BODY_OPTIONS_N : BODY_OPTIONS_N - 1);
    if (verb_is_list(v))
        args_know(a, list_options, LIST_OPTIONS_N);
    if (verb_has_tenant(v))
        args_know(a, &tenant_option, 1);
    args_know(a, client_options, verb_client_options(v));
}
